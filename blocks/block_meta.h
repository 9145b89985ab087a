/* SPDX-License-Identifier: Apache-2.0
 *
 * block_meta.h - meta.json: what a block is, and by being there, that it is.
 *
 * The keys and their order are Tempo's, for any of its formats; three are ours: `shard`,
 * `bloomXXH64` and `ingestedAt`. Reading matches keys in any case (as Go does), ignores unknown
 * ones, takes null for absent and names the key of every bad value.
 * THREADS: plain data and pure functions, any thread.
 * LIMITS: texts of 1 MiB; names as sized below.
 * SPEC: docs/formats/tempo-v2-block.md section "meta.json".
 */
#ifndef BLOCKS_BLOCK_META_H
#define BLOCKS_BLOCK_META_H

#include "base/base.h"
#include "base/buf.h"
#include "base/err.h"
#include "blocks/codec.h"
#include "blocks/page.h"
#include "wire/json_reader.h"
#include "wire/json_writer.h"

enum {
	BLOCK_META_MAX = 1024 * 1024, /* bytes of a meta.json that are read */
	BLOCK_META_NAME = 32,         /* format, dataEncoding, hasher */
	BLOCK_META_TENANT = 150,
	BLOCK_META_LEGACY_SHARDS = 10, /* what bloomShards 0 means */
	BLOCK_META_BLOOM_SUMS = 16,    /* blooms whose checksum is kept: of 1.3 million traces */
};

/* A time of RFC 3339, UTC. Zero-initialised is 1970; absent is BLOCK_TIME_NONE (Go's zero time,
 * year 1). */
struct block_time {
	int64_t s; /* Unix seconds */
	uint32_t ns;
};

#define BLOCK_TIME_NONE_S INT64_C(-62135596800)
#define BLOCK_TIME_NONE ((struct block_time){ BLOCK_TIME_NONE_S, 0 })

/* Every id of the block hashes to partition `index` of `count`: only then may lookups skip it. */
struct block_shard {
	char hasher[BLOCK_META_NAME + 1]; /* "murmur2", ... */
	uint32_t count;                   /* 0 = no claim */
	uint32_t index;                   /* < count */
};

struct block_meta {
	char format[BLOCK_META_NAME + 1]; /* "v2", "vParquet4", ... */
	char id[37];                      /* UUID, lower case */
	char tenant[BLOCK_META_TENANT + 1];
	bool has_min_id, has_max_id;
	uint8_t min_id[PAGE_ID], max_id[PAGE_ID];
	struct block_time start, end; /* earliest start and latest end of its traces */
	uint64_t objects;             /* traces */
	uint64_t size;                /* bytes of `data`; 0 = not said */
	uint32_t compaction_level;
	enum codec_id encoding;
	uint32_t index_page_size;
	uint32_t records;                        /* data pages = index records */
	char data_encoding[BLOCK_META_NAME + 1]; /* "v2" or "v1": see block_object.h */
	uint32_t bloom_shards;                   /* as written; ask block_meta_bloom_shards */
	uint32_t footer_size;                    /* parquet only */
	uint32_t replication_factor;
	const char *columns; /* parquet only: dedicatedColumns as JSON; block_columns.h owns it */
	struct block_shard shard;
	uint32_t n_bloom_sums;                      /* 0 = not said */
	uint64_t bloom_sums[BLOCK_META_BLOOM_SUMS]; /* XXH64 of bloom-0, ... */
	struct block_time ingested_at;              /* when the block was cut; NONE = not said */
	struct block_time compacted_at;             /* only in a tenant index; NONE otherwise */
};

/* All empty, times NONE. */
void block_meta_init(struct block_meta *m);
/* One meta.json. INVALID names the key and the value: also when format, blockID or tenantID are
 * missing. */
int block_meta_parse(struct bytes json, struct block_meta *m, struct err *err);
/* The same for an object that r has just opened, up to its closing bracket (commit records, tenant
 * index). */
int block_meta_decode(struct json_reader *r, struct block_meta *m, struct err *err);
/* Append the object. minID, maxID, size, dedicatedColumns, replicationFactor, shard, bloomXXH64,
 * ingestedAt and compactedTime only when set. */
void block_meta_encode(const struct block_meta *m, struct json_writer *w);

/* Can a trace with this id be in a block of this shard? True when there is no claim, or one by a
 * hasher that is not known. */
bool block_shard_may_hold(const struct block_shard *s, const uint8_t id[PAGE_ID]);
/* How many bloom-N objects there are. */
uint32_t block_meta_bloom_shards(const struct block_meta *m);
/* Fail unless this is a v2 block with an index page size that can be, and records when it has
 * traces: UNIMPLEMENTED names another format. */
int block_meta_check_v2(const struct block_meta *m, struct err *err);
/* The 16 bytes of a block id. INVALID when the text is no UUID. */
int block_meta_id_bytes(const char *id, uint8_t out[16], struct err *err);
/* [0-9A-Za-z!_.*'()-]{1,150}, not ".", ".." or "_spanmill". */
int block_meta_tenant_check(struct bytes tenant, struct err *err);

/* RFC 3339 with any zone and fraction (digits past nanoseconds are dropped). INVALID quotes it. */
int block_time_parse(struct bytes text, struct block_time *t, struct err *err);
/* As Go prints it in UTC: "2026-11-22T04:58:39Z", fraction only when not zero. The year must be
 * 0..9999. */
#define BLOCK_TIME_TEXT 40
void block_time_format(struct block_time t, char out[BLOCK_TIME_TEXT]);
struct block_time block_time_of_ns(uint64_t unix_ns);
/* -1, 0, 1. */
int block_time_compare(struct block_time a, struct block_time b);

#endif
