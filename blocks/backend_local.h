/* SPDX-License-Identifier: Apache-2.0
 *
 * backend_local.h - blocks in a folder of a local file system.
 *
 * The key is the path below the folder, so a real Tempo reads the same tree. See backend.h for the
 * calls.
 * LIMITS: link(2) and rename(2) must work inside the folder: one file system, no FAT.
 */
#ifndef BLOCKS_BACKEND_LOCAL_H
#define BLOCKS_BACKEND_LOCAL_H

#include "blocks/backend.h"

struct backend_local_options {
	const char *path;     /* the folder; made with its parents when missing */
	uint64_t grace_s;     /* unfinished files older than this are removed on open; 0 = 3600 */
	bool keep_unfinished; /* remove none: for tools that change nothing */
};

/* Borrows options. NULL on error (PERMISSION never: IO with the reason). Free with backend_free.
 * Several processes may have the same folder open. */
struct backend *backend_local_open(const struct backend_local_options *o, struct err *err);

#endif
