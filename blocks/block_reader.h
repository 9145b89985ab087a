/* SPDX-License-Identifier: Apache-2.0
 *
 * block_reader.h - reads one trace of a v2 block by its id. To read all of them: block_iter.h.
 *
 *   find:  bloom-<shard> -> index page(s) -> one range of data -> decompress -> scan
 *
 * Nothing is believed: index checksums, page and object lengths, order, contiguity, last ids and
 * counts are checked, and what is wrong is CORRUPT with block, page offset and what. Codecs other
 * than none check the bytes themselves. A cache (block_cache.h) may keep checked bloom shards and
 * index pages from one look-up to the next.
 * OWNERSHIP, THREADS: a reader has scratch buffers: one thread at a time; any number of readers per
 * block.
 * LIMITS: max_page_bytes for a page's plain and (plus an eighth) stored size; bloom shards of 64
 * MiB.
 * ERRORS: NOT_FOUND when an object of the block is gone (deleted meanwhile), CORRUPT, TOO_LARGE,
 * EXHAUSTED when the budget cannot hold the page now, the backend's own.
 * SPEC: docs/formats/tempo-v2-block.md.
 */
#ifndef BLOCKS_BLOCK_READER_H
#define BLOCKS_BLOCK_READER_H

#include "blocks/backend.h"
#include "blocks/block_cache.h"
#include "blocks/block_index.h"
#include "blocks/block_meta.h"
#include "blocks/page.h"

/* Zero means the default. */
struct block_reader_options {
	size_t max_page_bytes;     /* plain size of a page: 64 MiB */
	size_t read_ahead_bytes;   /* of an iterator: 4 MiB */
	struct block_cache *cache; /* borrowed; NULL: none */
	struct block_cache *pages; /* the same for data pages, as they are stored */
	uint64_t number;           /* of the block in the caches */
	struct budget *budget;     /* charged for pages; borrowed; NULL: none */
};

struct block_reader;

/* Copies m and o (NULL: defaults), borrows be; reads nothing yet. NULL: UNIMPLEMENTED for a format
 * that is not v2, INVALID for a meta that cannot be. */
struct block_reader *block_reader_new(struct backend *be, const struct block_meta *m,
				      const struct block_reader_options *o, struct err *err);
/* Turn to another block of the same backend: cheaper than another reader. -1 as block_reader_new's
 * NULL; then only block_reader_open and _free may follow. */
int block_reader_open(struct block_reader *r, const struct block_meta *m, uint64_t number,
		      struct err *err);
/* NULL is fine. */
void block_reader_free(struct block_reader *r);
const struct block_meta *block_reader_meta(const struct block_reader *r);

/* The object bytes of trace id, borrowed from r until its next call. 1 = found, 0 = not in this
 * block, -1 = error. */
int block_reader_find(struct block_reader *r, const uint8_t id[PAGE_ID], struct bytes *object,
		      struct err *err);

/* The steps of find, for who asks many blocks at once. What the cache knows of the filter: 1 =
 * maybe here, 0 = not in this block, -1 = nothing. */
int block_reader_ask_kept(struct block_reader *r, const uint8_t id[PAGE_ID]);
/* Read the filter, keep it, and ask it: 1, 0, -1 = error. */
int block_reader_ask_read(struct block_reader *r, const uint8_t id[PAGE_ID], struct err *err);
/* As block_reader_find when the filter has said maybe. */
int block_reader_find_here(struct block_reader *r, const uint8_t id[PAGE_ID], struct bytes *object,
			   struct err *err);

/* The steps of find, past the cache. Each appends whole checked bytes to out:
 * bloom shard i; index page i (with block_index_on_page records). */
int block_reader_read_bloom(struct block_reader *r, uint32_t shard, struct buf *out,
			    struct err *err);
int block_reader_read_index_page(struct block_reader *r, uint32_t page, struct buf *out,
				 struct err *err);
/* Search the index for the page that may hold id, reading index pages as needed. 1 = *rec, 0 =
 * none, -1. */
int block_reader_locate(struct block_reader *r, const uint8_t id[PAGE_ID],
			struct block_index_record *rec, struct err *err);
/* Read and decompress the data page of a record. *body borrows from r until its next call. */
int block_reader_page(struct block_reader *r, const struct block_index_record *rec,
		      struct bytes *body, struct err *err);
/* Bytes of `data`, checked against meta's size when it has one. */
int block_reader_data_size(struct block_reader *r, uint64_t *size, struct err *err);

#endif
