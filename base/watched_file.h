/* SPDX-License-Identifier: Apache-2.0
 *
 * watched_file.h - a small file that is read again when it changed: tokens, passwords.
 *
 * Looked at when somebody asks, at most once a second; a replaced file (another inode, as secrets
 * in containers are) counts as changed. One owner at a time; its lock is the caller's.
 */
#ifndef BASE_WATCHED_FILE_H
#define BASE_WATCHED_FILE_H

#include "base/base.h"
#include "base/buf.h"
#include "base/err.h"

#include <sys/stat.h>

struct watched_file {
	const char *path; /* borrowed; NULL or "": none */
	struct stat seen; /* when it was read last */
	uint64_t looked_ns;
};

/* Is it time to look, and is it another file than the one read? False without a file. */
bool watched_file_changed(struct watched_file *w);
/* Append the content, at most `max` bytes. -1 (err IO or TOO_LARGE, naming the path) when it cannot
 * be read; it counts as read all the same, so that it is tried again once it changes. */
int watched_file_read(struct watched_file *w, size_t max, struct buf *out, struct err *err);

#endif
