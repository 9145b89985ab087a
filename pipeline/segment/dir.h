/* SPDX-License-Identifier: Apache-2.0
 *
 * dir.h - the folder of a segment log: owner's lock, log id, cursor, file names,
 * quarantine.
 *
 * One thread at a time, but for segment_dir_open_segment and segment_dir_remove (any thread).
 * SPEC: docs/formats/segment-log.md "The folder", "The cursor".
 */
#ifndef PIPELINE_SEGMENT_DIR_H
#define PIPELINE_SEGMENT_DIR_H

#include "base/err.h"
#include "pipeline/segment/file.h"

enum { SEGMENT_QUARANTINE_MAX = 8, SEGMENT_NAME_SIZE = 32 };

struct segment_dir {
	char *path;
	int fd, lock_fd, cursor_fd;
	uint8_t id[SEGMENT_ID_SIZE];
	char id_text[37];
	bool has_id;
	uint64_t generation;	/* of the cursor slot written last */
	uint64_t low_water;	/* as read by segment_dir_read_cursor; 0: never written */
	uint64_t stored;	/* low water that the file has */
	bool cursor_damaged;
	bool is_looked_at;	/* opened without `create`: nothing is written */
};

struct segment_numbers {
	uint64_t *v;		/* ascending */
	size_t n, cap;
	uint64_t highest;	/* of these and of what lies in quarantine; 0: none */
};

/* Create (one level, when `create`) and lock the folder; reads id and cursor when they are
 * there. -1: not usable, or kind EXISTS with the owner's pid in the text. After 0 or -1 alike:
 * segment_dir_close. */
int segment_dir_open(struct segment_dir *d, const char *path, bool create, struct err *err);
void segment_dir_close(struct segment_dir *d);

/* Believe this id from now on, and read the cursor again; nothing is written. */
void segment_dir_take_id(struct segment_dir *d, const uint8_t *id);
/* Store this id, or a new random one when id is NULL, durably. */
int segment_dir_store_id(struct segment_dir *d, const uint8_t *id, struct err *err);
/* Make sure there is a cursor file with room for both slots. */
int segment_dir_make_cursor(struct segment_dir *d, struct err *err);
/* One pwrite into the older slot; failing is logged (the cursor only saves work). */
void segment_dir_store_cursor(struct segment_dir *d, uint64_t low_water);
/* 0 only when the file has this low water, durably. */
int segment_dir_sync_cursor(struct segment_dir *d, uint64_t low_water);

/* The numbers of the segments. The caller frees v. */
int segment_dir_list(struct segment_dir *d, struct segment_numbers *out, struct err *err);
void segment_dir_name(uint64_t number, char out[SEGMENT_NAME_SIZE]);
/* Descriptor or -1 with errno. */
int segment_dir_open_segment(const struct segment_dir *d, uint64_t number, int flags);
/* The folder was removed under its owner: make it (and the one above it) again, empty, with the
 * same id, and take it. 0, also when it is there after all; -1 with *err. Nobody else may use the
 * cursor meanwhile. */
int segment_dir_revive(struct segment_dir *d, struct err *err);
/* Does the disk give what it has, of the folder's smallest file, past the page cache? */
bool segment_dir_answers(const struct segment_dir *d);
/* Unlink; or, when damaged, move to quarantine/ and drop what is too much there. 0, or -1 with
 * errno. */
int segment_dir_remove(const struct segment_dir *d, uint64_t number, bool is_damaged);

#endif
