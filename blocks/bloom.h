/* SPDX-License-Identifier: Apache-2.0
 *
 * bloom.h - the `bloom-N` objects of a block: a sharded bloom filter over its trace ids.
 *
 *   shard of an id = FNV-1 32 (id) mod shards                         one object per shard:
 *   [u64 BE m][u64 BE k][u64 BE m][u64 BE word]...                    bit i is bit i%64 (0 =
 *                                                                     lowest) of word i/64
 *
 * The writer sets bits straight in the object's bytes. Reading (bloom_test) works on an object's
 * bytes too, so that a cache needs to keep nothing else.
 * SPEC: docs/formats/tempo-v2-block.md section "Bloom".
 */
#ifndef BLOCKS_BLOOM_H
#define BLOCKS_BLOOM_H

#include "base/base.h"
#include "base/buf.h"
#include "base/err.h"

enum {
	BLOOM_HEAD = 24,
	BLOOM_SHARDS_MAX = 1000,
	BLOOM_SHARD_BYTES_DEFAULT = 100 * 1024,
	BLOOM_K_MAX = 64,
};
#define BLOOM_FALSE_POSITIVE_DEFAULT 0.01
#define BLOOM_FOLDED_FALSE_POSITIVE 1e-4

struct bloom_shape {
	uint32_t shards; /* 1..1000 */
	uint32_t k;      /* bits set per id, 1..BLOOM_K_MAX */
	uint64_t m;      /* bits per shard: 8 * shard bytes */
};

/* Tempo's sizes for n ids (0 counts as 1) at false-positive rate fp in (0, 1) and shard_bytes > 0.
 * */
struct bloom_shape bloom_shape_for(uint64_t n, double fp, uint32_t shard_bytes);

struct bloom;

/* All shards, empty; shards * (24 + m/8) bytes. One thread at a time until it is filled. */
struct bloom *bloom_new(struct bloom_shape shape);
void bloom_free(struct bloom *b);
void bloom_add(struct bloom *b, const uint8_t id[16]);
/* The object's bytes of shard i; borrows from b. */
struct bytes bloom_shard_bytes(const struct bloom *b, uint32_t i);

/* Pure, any thread. The shard to ask for an id; shards > 0. */
uint32_t bloom_shard_of(const uint8_t id[16], uint32_t shards);
/* Are these the bytes of a filter: m = its third field > 0, k in 1..BLOOM_K_MAX, as many words as m
 * needs. CORRUPT says which is not. */
int bloom_check(struct bytes shard, struct err *err);
/* 1 = maybe in the block, 0 = certainly not, -1 = CORRUPT (bloom_check). */
int bloom_test(struct bytes shard, const uint8_t id[16], struct err *err);

/* A filter as a cache keeps it. One whose block is far from full has few bits set, and is folded to
 * a fraction of its size: 1,000 ids in 6 KiB instead of 100. Append it to out; the shard must have
 * passed bloom_check. Folded bytes never leave the process. */
void bloom_fold(struct bytes shard, struct buf *out);
/* May the id be in the block? `folded`, 8-byte aligned, is what bloom_fold made. Never false where
 * bloom_test says maybe; true for at most BLOOM_FOLDED_FALSE_POSITIVE more of the other ids. */
bool bloom_folded_test(struct bytes folded, const uint8_t id[16]);

#endif
