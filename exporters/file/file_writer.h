/* SPDX-License-Identifier: Apache-2.0
 *
 * file_writer.h - the one writer of one file, shared by all exporters of this process that name it
 * (an exporter has an instance per signal).
 *
 *   file_writer_put (any thread) -> list -> thread: encode, write all, one sync -> verdicts
 *
 * DESIGN: delivered means synced. What has come while the disk worked goes with the next sync. A
 * disk that fails or is full is "try again" for the sender, and the file is cut back to its last
 * whole record: it is locked, so all of it is ours.
 * OWNERSHIP: counted; the last file_writer_close ends the thread. THREADS: open and close on the
 * main thread, put on any. LIMITS: what waits is in the memory budget already.
 */
#ifndef EXPORTERS_FILE_FILE_WRITER_H
#define EXPORTERS_FILE_FILE_WRITER_H

#include "exporters/file/rotating_file.h"
#include "net/content_coding.h"
#include "pipeline/component.h"

enum file_format { FORMAT_JSON, FORMAT_PROTO };

struct file_writer_options {
	const char *path;
	enum file_format format;
	enum content_coding compression;
	struct rotation rotation;
};

struct file_writer;

/* The writer of this file, started when there is none. NULL: the file cannot be opened, or another
 * exporter writes it in another form. */
struct file_writer *file_writer_open(const struct file_writer_options *o, struct err *err);
/* All that the caller put has been settled. */
void file_writer_close(struct file_writer *w);
/* Takes b and its duty; *pending counts it until it is settled. */
void file_writer_put(struct file_writer *w, struct component *c, struct batch *b,
		     _Atomic uint64_t *pending);

#endif
