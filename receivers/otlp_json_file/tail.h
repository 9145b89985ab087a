/* SPDX-License-Identifier: Apache-2.0
 *
 * tail.h - one file that is read line by line while others append to it.
 *
 *   |=== settled ===|== under way ==|.. read ..|      |
 *   0               position        next line         size
 *
 * A file is known by what its first bytes are, so that it is found again under another name; while
 * it is open by its descriptor, so that a renamed one is read to its end. One that became shorter
 * was emptied in place and begins anew.
 *
 * OWNERSHIP: the receiver's list. THREADS: the receiver's thread. LIMITS: a line by max_line; more
 * is never in memory, and READ_BYTES.
 */
#ifndef RECEIVERS_OTLP_JSON_FILE_TAIL_H
#define RECEIVERS_OTLP_JSON_FILE_TAIL_H

#include "base/base.h"
#include "base/buf.h"
#include "base/err.h"

enum { TAIL_PRINT_MAX = 1000 };

struct file_line;

/* The first bytes of a file: how many, and their hash. */
struct tail_print {
	uint32_t n;
	uint64_t hash;
};

struct tail {
	char *path;
	int fd;
	uint64_t dev, ino;
	struct tail_print print;
	uint64_t position; /* all before it is done with */
	uint64_t next;	   /* where reading goes on: begin of `buf` */
	struct buf buf;	   /* read, not yet taken as lines */
	size_t scanned;	   /* of buf: no end of line before it */
	size_t taken;	   /* of buf: the line given out last */
	bool skipping;	   /* inside a line over the limit */
	bool is_joined;	   /* reading began inside a line, which is passed over unsaid */
	uint64_t idle_since_ns;		/* monotonic; 0: it grew at the last look */
	bool is_listed;			/* the patterns still name it */
	struct file_line *first, *last; /* under way, in order; the receiver's */
	size_t n_under_way;
};

/* NULL when it cannot be opened. */
struct tail *tail_open(const char *path, struct err *err);
/* Closes and frees. */
void tail_close(struct tail *t);
/* Read on from here; nothing may be under way. Inside a line: what is left of it is passed over. */
void tail_seek(struct tail *t, uint64_t position);
/* The same at the file's end as it is now. */
void tail_seek_end(struct tail *t);
/* The print of an open file's first bytes, at most `n` of them. */
struct tail_print tail_read_print(int fd, uint32_t n);
/* Does the file begin with what the print was made of? */
bool tail_matches(int fd, const struct tail_print *print);

enum tail_line { TAIL_NONE, TAIL_LINE, TAIL_TOO_LONG };
/* The next whole line without its end; it lies in t->buf until the next call. *start is where it
 * begins, *end where the line after it does. TAIL_TOO_LONG: one over max_line was passed over. */
enum tail_line tail_next(struct tail *t, size_t max_line, struct bytes *line, uint64_t *start,
			 uint64_t *end);
/* True when the file was emptied in place: it is shorter than what was read of it, or begins with
 * something else. */
bool tail_was_emptied(struct tail *t);

#endif
