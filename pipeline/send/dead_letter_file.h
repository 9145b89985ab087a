/* SPDX-License-Identifier: Apache-2.0
 *
 * dead_letter_file.h - the file form of dead letters: one JSON object a line, which is there whole
 * or not at all.
 *
 * THREADS: any; components and processes may share a file (they lock it). Blocks on the disk.
 * SPEC: docs/formats/kafka-record.md "Dead letters".
 */
#ifndef PIPELINE_SEND_DEAD_LETTER_FILE_H
#define PIPELINE_SEND_DEAD_LETTER_FILE_H

#include "base/base.h"
#include "base/err.h"

enum dead_letter_kind { LETTER_TEXT, LETTER_NUMBER, LETTER_BASE64, LETTER_NULL };

/* A member of the object. */
struct dead_letter_member {
	const char *name;
	enum dead_letter_kind kind;
	struct bytes bytes; /* TEXT: what JSON would want escaped becomes '?'; BASE64 */
	uint64_t number;
};

/* Append {"time":NOW, members...} and sync it, and the folder of a new file. -1 with *err: nothing
 * of it stays. Half a line that a killed process left at the end is cut off first. */
int dead_letter_file_put(const char *path, const struct dead_letter_member *v, size_t n,
			 struct err *err);

#endif
