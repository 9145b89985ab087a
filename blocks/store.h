/* SPDX-License-Identifier: Apache-2.0
 *
 * store.h - where the blocks exporter and the query meet: one backend, its blocklist, and the
 * sources of live data.
 *
 *   blocks exporter --store_add_block--> blocklist <--poll-- backend
 *        |                                  |
 *        +--- live_source (undelivered) ----+---> store_find <--- query
 *
 * Owned by the trace_store extension. A span is found from the moment it was acknowledged: first in
 * a live source, and after its section was published in a block; store_find asks the live sources
 * first, so that a section that moves meanwhile is seen at least once (the query removes doubles).
 *
 * THREADS: any; no lock is held while a live source or the backend works.
 * OWNERSHIP: the store owns the backend; a live source is its exporter's and is removed before it
 * ends.
 */
#ifndef BLOCKS_STORE_H
#define BLOCKS_STORE_H

#include "blocks/backend.h"
#include "blocks/block_cache.h"
#include "blocks/block_meta.h"
#include "blocks/blocklist.h"

#include <pthread.h>
#include <stdatomic.h>

struct store;

/* A piece of a trace: OTLP TracesData bytes, borrowed for the call. 0, or -1 to stop. */
typedef int store_piece_fn(void *arg, struct bytes traces_data, struct err *err);

/* Data that is acknowledged but in no visible block yet. */
struct live_source {
	/* Every piece of the trace. 0 also when there is none; -1: could not be asked in full. */
	int (*find)(struct live_source *s, const char *tenant, const uint8_t id[16],
		    store_piece_fn *piece, void *arg, struct err *err);
	/* Cut what is open and return when it is visible in blocks. Blocks. */
	int (*flush)(struct live_source *s, struct err *err);
	struct live_source *next; /* the store's */
	unsigned users;           /* calls under way; the store's */
};

struct store_options {
	struct backend *backend; /* taken */
	const char *local_path;  /* where logs and scratch go, below "<path>/_spanmill"; copied */
	uint64_t poll_ns;        /* between two polls of the backend */
	uint64_t max_page_bytes; /* a page may inflate to this; 0: the reader's default */
	struct budget *budget;   /* of cache and pages; borrowed; NULL: none */
	uint64_t cache_bytes;    /* what the cache may hold; 0: see block_cache_new */
};

struct store *store_new(const struct store_options *o);
/* First poll on the caller's thread (an error is a store that cannot be read), then a thread that
 * polls. */
int store_start(struct store *s, struct err *err);
void store_free(struct store *s);

struct backend *store_backend(struct store *s);
/* Join a thread that uses the backend and was told to end: what it does may end by itself for half
 * a second, then a call that hangs on the store is cut off. */
void store_join(struct store *s, pthread_t thread);
const char *store_local_path(struct store *s);
uint64_t store_poll_ns(struct store *s);
struct blocklist *store_blocklist(struct store *s);
struct block_cache *store_cache(struct store *s);
/* Of all that is kept: blooms, index pages, and from a bucket data pages. */
void store_cache_stats(struct store *s, struct block_cache_stats *out);

void store_add_live(struct store *s, struct live_source *live);
/* Returns when no call of find or flush is under way: tell a waiting flush to end first. */
void store_remove_live(struct store *s, struct live_source *live);
/* Does this process write blocks, too? */
bool store_has_live(struct store *s);
/* A block just published by this process: visible at once. */
void store_add_block(struct store *s, const struct block_meta *m);
/* A block that a commit names, whether its meta.json could be written or not: what it holds is in
 * no log any more, so it is to be found from now on. */
void store_add_committed(struct store *s, const struct block_meta *m);
/* Poll now. */
int store_refresh(struct store *s, struct err *err);
/* Every live source's flush, one after the other. Blocks until all is visible or one fails. */
int store_flush(struct store *s, struct err *err);

struct store_find_result {
	size_t pieces; /* given to the callback */
	/* Failed blocks include those of the tenant whose meta.json could not be read; blocks whose
	 * shard cannot hold the trace are not asked. */
	size_t blocks_asked, blocks_failed, live_failed;
	uint64_t inspected_bytes;
	/* Of a find in live data: what was made visible in blocks before this time (clock_mono_ns)
	 * may be missing from it, so that a block list must be younger than that. */
	uint64_t live_since_ns;
	char first_failure[256];
};

/* Where to look. */
struct store_scope {
	/* What is acknowledged but in no block that others can have seen: live sources, and the
	 * blocks that this process published in the last two polls. */
	bool live;
	bool blocks;                 /* every block on the list */
	uint8_t first[16], last[16]; /* of `blocks`: only those with an id from here to there */
	uint64_t listed_since_ns;    /* the list must be of this time (clock_mono_ns) or later */
	const _Atomic bool
		*is_gone; /* NULL; true: nobody waits any more, stop between two blocks */
};

/* Every piece of a trace, from live sources and blocks. A source that fails is counted and the
 * others are still asked: the answer is then incomplete. -1 only when `piece` returned -1, or with
 * UNAVAILABLE when *is_gone. */
int store_find(struct store *s, const char *tenant, const uint8_t id[16], store_piece_fn *piece,
	       void *arg, struct store_find_result *result, struct err *err);

/* All of a store: live data and all blocks. */
static inline struct store_scope store_scope_all(void)
{
	struct store_scope all = { .live = true, .blocks = true };

	memset(all.last, 0xff, sizeof(all.last));
	return all;
}

/* The same in a part of the store. */
int store_find_in(struct store *s, const struct store_scope *scope, const char *tenant,
		  const uint8_t id[16], store_piece_fn *piece, void *arg,
		  struct store_find_result *result, struct err *err);

#endif
