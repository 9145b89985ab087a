/* SPDX-License-Identifier: Apache-2.0
 *
 * compact_select.h - which blocks of a tenant should become one.
 *
 * Blocks are merged within a group: equal shard, data encoding, replication factor, and window of
 * the time they were ingested. While the window is open, only blocks of one level, min_inputs to
 * max_inputs of them: each trace is then rewritten about log(blocks)/log(min_inputs) times. When it
 * is over, from two on and whatever their level, the smallest first, until what is left would be
 * larger than a block may be.
 * Pure, any thread. SPEC: docs/formats/compaction.md section "Selection".
 */
#ifndef BLOCKS_COMPACT_SELECT_H
#define BLOCKS_COMPACT_SELECT_H

#include "blocks/block_meta.h"

enum { COMPACT_INPUTS_MAX = 32, COMPACT_GROUP = 64 };

struct compact_rules {
	uint64_t now_ns;    /* wall clock */
	uint64_t window_ns; /* above 0 */
	uint64_t max_block_bytes, max_objects;
	unsigned min_inputs, max_inputs; /* 2 .. COMPACT_INPUTS_MAX */
};

struct compact_job {
	const struct block_meta *inputs[COMPACT_INPUTS_MAX];
	size_t n;
	char group[COMPACT_GROUP]; /* of the lease: the shard */
	int64_t window;
	uint32_t level;
};

/* Lowest level first, then the newest window. `blocks` is sorted by the way; what is of another
 * format than v2 is left out. Jobs have no block in common. free(*jobs). */
size_t compact_select(const struct block_meta **blocks, size_t n, const struct compact_rules *r,
		      struct compact_job **jobs);
/* Of a format that is merged at all: v2, and a data encoding that can be taken apart. */
bool compact_is_mergeable(const struct block_meta *m);
/* When a block was ingested, for windows and retention: what it says, else its end, but never after
 * now. Nanoseconds. */
uint64_t compact_time_of(const struct block_meta *m, uint64_t now_ns);

#endif
