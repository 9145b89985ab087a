/* SPDX-License-Identifier: Apache-2.0
 *
 * block_reader_internal.h - what block_reader.c and block_iter.c share. Nobody else includes it.
 */
#ifndef BLOCKS_BLOCK_READER_INTERNAL_H
#define BLOCKS_BLOCK_READER_INTERNAL_H

#include "blocks/block_reader.h"
#include "blocks/codec.h"

struct block_reader {
	struct backend *be;
	struct block_meta meta;
	size_t max_page_bytes, read_ahead_bytes;
	struct codec *codec;
	struct buf raw;                       /* stored bytes of a page, or a bloom shard */
	struct buf page;                      /* plain bytes of a page */
	struct block_cache *cache, *pages;    /* NULL: none */
	struct budget *budget;                /* NULL: none */
	size_t charged;                       /* to it: for raw and page */
	uint64_t number;                      /* the block's key in the cache */
	struct buf index_read;                /* an index page that was read */
	struct block_cache_piece *index_kept; /* or one of the cache */
	struct bytes index; /* head and records of index page index_page, checked; in one of them */
	uint32_t index_page; /* UINT32_MAX: none */
};

/* Most stored bytes of a page that are read. */
size_t block_reader_stored_max(const struct block_reader *r);
/* Split and decompress one whole stored page. *body borrows from r->page, or from page with codec
 * none. */
int block_reader_unpack(struct block_reader *r, struct bytes page, struct bytes *body,
			struct err *err);

#endif
