/* SPDX-License-Identifier: Apache-2.0
 *
 * block_object.h - what one trace is inside a block (Tempo's dataEncoding "v2").
 *
 *   [u32 LE start seconds][u32 LE end seconds][TraceBytes { repeated bytes traces = 1 }]
 *
 * Each element of `traces`, a segment, is one serialized OTLP TracesData. dataEncoding "v1" is the
 * same without the two times. A writer gathers: the times, then per segment its head and its bytes;
 * nothing here copies a segment. Pure functions, any thread.
 * SPEC: docs/formats/tempo-v2-block.md section "Object bytes".
 */
#ifndef BLOCKS_BLOCK_OBJECT_H
#define BLOCKS_BLOCK_OBJECT_H

#include "base/base.h"
#include "base/err.h"

enum {
	BLOCK_OBJECT_TIMES = 8,         /* the two times */
	BLOCK_OBJECT_SEGMENT_HEAD = 11, /* most bytes before a segment */
	BLOCK_OBJECT_HEAD = BLOCK_OBJECT_TIMES + BLOCK_OBJECT_SEGMENT_HEAD,
};

/* Seconds for the two times: both floored, clamped to what a u32 holds. */
uint32_t block_object_seconds(uint64_t unix_ns);
void block_object_times_store(uint8_t to[BLOCK_OBJECT_TIMES], uint32_t start_s, uint32_t end_s);
/* Tag and length before a segment of n bytes. Returns how many bytes were written. */
size_t block_object_segment_head(uint8_t to[BLOCK_OBJECT_SEGMENT_HEAD], size_t n);
/* All that goes before the first (often the only) segment of n bytes: the times and its head.
 * Returns the length. */
size_t block_object_head(uint8_t to[BLOCK_OBJECT_HEAD], uint32_t start_s, uint32_t end_s, size_t n);

struct block_object {
	bool has_times; /* dataEncoding v2 and not empty */
	uint32_t start_s, end_s;
	struct bytes segments; /* the TraceBytes message; walk with block_object_segment_next */
};

/* Split object bytes. data_encoding other than "v1" and "v2" is UNIMPLEMENTED; a v2 object of 1 to
 * 7 bytes is CORRUPT; an empty one is an empty trace. Borrows. */
int block_object_parse(struct bytes object, const char *data_encoding, struct block_object *o,
		       struct err *err);
/* Take the next segment off *segments; fields other than `traces` are skipped. 1, 0 at the end, -1
 * CORRUPT. */
int block_object_segment_next(struct bytes *segments, struct bytes *segment, struct err *err);

#endif
