/* SPDX-License-Identifier: Apache-2.0
 *
 * rotating_file.h - an append-only file whose records are there whole or not at all, and which is
 * put aside when it is full.
 *
 *   spans.json  --full-->  spans-2026-11-26T20-48-09.123.json, spans-...json (oldest go)
 *
 * OWNERSHIP: embedded; rotating_file_close. THREADS: one at a time. Blocks on the disk.
 * SPEC: names as the Collector's file exporter (lumberjack) gives them.
 */
#ifndef EXPORTERS_FILE_ROTATING_FILE_H
#define EXPORTERS_FILE_ROTATING_FILE_H

#include "base/base.h"
#include "base/err.h"

struct rotation {
	uint64_t max_bytes;   /* 0: never rotate */
	uint64_t max_backups; /* 0: any number */
	uint64_t max_days;    /* 0: any age */
	bool local_time;      /* names in local time, else UTC */
};

struct rotating_file {
	const char *path; /* borrowed */
	struct rotation rotation;
	int fd;
	uint64_t n_bytes; /* of whole, synced and unsynced records */
	uint64_t n_synced;
	bool is_new; /* its name is not synced yet */
};

/* Open for appending, made when missing. `is_lines`: half a line that a killed process left is cut
 * off; else the half of a length-prefixed record. */
int rotating_file_open(struct rotating_file *f, const char *path, const struct rotation *rotation,
		       bool is_lines, struct err *err);
/* Append one record. On error nothing of it stays. */
int rotating_file_add(struct rotating_file *f, struct bytes record, struct err *err);
/* What was added is on disk. */
int rotating_file_sync(struct rotating_file *f, struct err *err);
/* Forget what was added since the last sync: nobody will be told that it is there. */
void rotating_file_cut(struct rotating_file *f);
void rotating_file_close(struct rotating_file *f);

#endif
