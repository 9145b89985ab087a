/* SPDX-License-Identifier: Apache-2.0
 *
 * positions.h - how far files were read, across restarts.
 *
 *   spanmill positions 1
 *   <bytes of print> <hash of print> <position> <path>
 *   ...
 *   crc <of all before>
 *
 * OWNERSHIP: the caller's list. THREADS: one at a time. Blocks on the disk. A file that is damaged
 * or missing is an empty list: files are then read as if seen for the first time.
 */
#ifndef RECEIVERS_OTLP_JSON_FILE_POSITIONS_H
#define RECEIVERS_OTLP_JSON_FILE_POSITIONS_H

#include "receivers/otlp_json_file/tail.h"

enum { POSITIONS_MAX = 10000 };

struct position {
	struct tail_print print;
	uint64_t at;
	char *path;
};

struct positions {
	struct position *v;
	size_t n, cap;
	bool is_damaged; /* read: there was something that is no list of ours */
};

void positions_read(const char *file, struct positions *out);
/* Atomic and synced. */
int positions_write(const char *file, const struct positions *p, struct err *err);
/* Copies the path; over POSITIONS_MAX the oldest goes. */
void positions_add(struct positions *p, const struct tail_print *print, uint64_t at,
		   const char *path);
/* The one whose print the open file begins with, or NULL: that of the same path, else any. */
struct position *positions_find(struct positions *p, int fd, const char *path);
void positions_remove(struct positions *p, struct position *one);
void positions_fini(struct positions *p);

#endif
