/* SPDX-License-Identifier: Apache-2.0
 *
 * block_iter.h - all traces of a v2 block in order of their ids, for compaction, fsck and
 * rebuilding an index.
 *
 * Reads data from front to back through a read-ahead window and holds each page against its index
 * record. Checks and errors are those of block_reader.h, and at the end that pages and traces are
 * as many as meta.json says.
 * OWNERSHIP, THREADS: borrows a reader; one thread at a time.
 * LIMITS: memory = read_ahead_bytes or one stored page if larger, one plain page, one index page.
 * SPEC: docs/formats/tempo-v2-block.md.
 */
#ifndef BLOCKS_BLOCK_ITER_H
#define BLOCKS_BLOCK_ITER_H

#include "blocks/block_reader.h"

struct block_iter;

enum block_iter_mode {
	BLOCK_ITER_CHECKED,   /* against the index: all checks */
	BLOCK_ITER_DATA_ONLY, /* data alone, e.g. to rebuild a lost index */
};

/* Begin at the first trace; borrows r, which must not be used otherwise meanwhile. Never NULL. */
struct block_iter *block_iter_new(struct block_reader *r, enum block_iter_mode mode);
/* The next trace in order: 1 = *o, borrowing until the next call; 0 = the end, all counts right; -1
 * = error. */
int block_iter_next(struct block_iter *it, struct page_object *o, struct err *err);
/* Where the page of the last object lies: its number and its offset in `data`. */
uint32_t block_iter_page(const struct block_iter *it);
uint64_t block_iter_offset(const struct block_iter *it);
/* The plain bytes of that page; borrows. */
struct bytes block_iter_body(const struct block_iter *it);
void block_iter_free(struct block_iter *it);

#endif
