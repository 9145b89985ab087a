/* SPDX-License-Identifier: Apache-2.0
 *
 * block_cache.h - bloom shards and index pages kept in memory between look-ups, within a bound.
 *
 * A look-up asks the bloom filter of every block of its tenant: read each time, that is 100 KiB a
 * block. What was read and checked once is kept here, folded (bloom_fold) or cut to its records,
 * under the number its block has on the block list. Blocks never change, so a piece is right for as
 * long as its block is listed; then block_cache_drop takes it out.
 *
 * Look-ups walk all blocks, again and again: the least recently used piece is the one needed next,
 * and when the bound is below what the walk needs, an LRU never hits. So when the cache is full,
 * one new piece in ADMIT_ONE_OF is let in, for victims drawn by lot: what is kept stays for many
 * walks, and the share of hits is the share that fits.
 *
 * THREADS: any; one lock, held for a look at a table. OWNERSHIP: pieces are reference counted, a
 * reader's reference outlives eviction.
 * LIMITS: max_bytes, and every byte is charged to the budget first: what it refuses is not kept.
 */
#ifndef BLOCKS_BLOCK_CACHE_H
#define BLOCKS_BLOCK_CACHE_H

#include "base/base.h"
#include "base/budget.h"

#include <stdatomic.h>

enum block_cache_kind { BLOCK_CACHE_BLOOM, BLOCK_CACHE_INDEX, BLOCK_CACHE_PAGE, BLOCK_CACHE_KINDS };

struct block_cache_key {
	uint64_t block;  /* struct listed_block.number; never used twice in a process */
	uint32_t kind;   /* enum block_cache_kind */
	uint32_t number; /* of the shard or page */
};

struct block_cache_piece {
	_Atomic uint32_t refs;
	struct block_cache_key key;
	size_t at;          /* the cache's */
	struct bytes bytes; /* 8-byte aligned */
};

struct block_cache;

/* max_bytes 0: an eighth of the budget's limit, as it is at each moment; without a budget 64 MiB.
 * Borrows the budget (NULL: none). */
struct block_cache *block_cache_new(struct budget *budget, uint64_t max_bytes);
/* For what is wanted again soon or never (data pages: a trace that somebody looks at): every piece
 * is let in, and without max_bytes a quarter of the usual share is taken. Before the first use. */
void block_cache_favour_new(struct block_cache *c);
/* No piece may be held. NULL is fine. */
void block_cache_free(struct block_cache *c);
/* A new reference, or NULL: not here. A NULL cache has nothing. */
struct block_cache_piece *block_cache_find(struct block_cache *c, struct block_cache_key key);
void block_cache_unref(struct block_cache_piece *p);
/* Is a piece of n bytes to be kept: is there room, or is it lucky? A NULL cache wants nothing. */
bool block_cache_wants(struct block_cache *c, size_t n);
/* Keep a copy of the bytes, which are wanted; others go to make room. Nothing happens when the
 * budget refuses, or when another reader has brought the piece meanwhile. */
void block_cache_add(struct block_cache *c, struct block_cache_key key, struct bytes bytes);
/* The block is gone: forget its pieces. */
void block_cache_drop(struct block_cache *c, uint64_t block);

struct block_cache_stats {
	uint64_t hits[BLOCK_CACHE_KINDS], misses[BLOCK_CACHE_KINDS];
	uint64_t evicted;     /* for another piece */
	uint64_t passed_over; /* not kept: full, or the budget refused */
	size_t pieces, bytes;
};
void block_cache_stats(struct block_cache *c, struct block_cache_stats *out);
/* Add more's counts to total's. */
void block_cache_stats_add(struct block_cache_stats *total, const struct block_cache_stats *more);
/* "bloom", "index", "page": the label `kind` of the metrics. */
const char *block_cache_kind_name(enum block_cache_kind kind);

#endif
