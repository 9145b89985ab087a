/* SPDX-License-Identifier: Apache-2.0
 *
 * block_index.h - the `index` object of a v2 block: one 28-byte record per data page, in
 * checksummed pages.
 *
 *   index page (exactly page_size bytes)
 *   [u32 LE page_size][u16 LE 8][u64 LE XXH64 of the rest][record]...[record][zeros]
 *   record   [16: last trace id of the data page][u64 LE offset in data][u32 LE length of the page]
 *
 * A full page is checked once (block_index_page_check) and may then be kept and searched by many
 * readers, so a cache can sit between the backend and block_index_page_search. Pure functions over
 * borrowed bytes, any thread.
 * LIMITS: page_size 42 bytes to 64 MiB.
 * SPEC: docs/formats/tempo-v2-block.md section "Index".
 */
#ifndef BLOCKS_BLOCK_INDEX_H
#define BLOCKS_BLOCK_INDEX_H

#include "base/base.h"
#include "base/buf.h"
#include "base/err.h"
#include "blocks/page.h"

enum {
	BLOCK_INDEX_HEADER = 8,
	BLOCK_INDEX_HEAD = PAGE_HEAD + BLOCK_INDEX_HEADER,
	BLOCK_INDEX_RECORD = PAGE_ID + 8 + 4,
	BLOCK_INDEX_PAGE_MIN = BLOCK_INDEX_HEAD + BLOCK_INDEX_RECORD,
	BLOCK_INDEX_PAGE_MAX = 64 * 1024 * 1024,
	BLOCK_INDEX_PAGE_DEFAULT = 250 * 1024,
};

struct block_index_record {
	uint8_t id[PAGE_ID]; /* the largest trace id of the data page */
	uint64_t start;      /* where the page begins in `data` */
	uint32_t len;        /* the page's total length */
};

/* INVALID unless page_size is within the limits. */
int block_index_page_size_check(uint32_t page_size, struct err *err);
/* How many records a page holds, how many pages `n` records take, and how many of n are on page
 * `page`. */
uint32_t block_index_per_page(uint32_t page_size);
uint32_t block_index_pages(uint32_t n, uint32_t page_size);
uint32_t block_index_on_page(uint32_t n, uint32_t page_size, uint32_t page);

/* Append one record in its encoded form to a run of records. */
void block_index_record_store(struct buf *records, const struct block_index_record *r);
void block_index_record_load(const uint8_t *p, struct block_index_record *r);
/* Append the whole index object for `records`, a multiple of 28 bytes, to out. No records give no
 * bytes. */
void block_index_encode(struct bytes records, uint32_t page_size, struct buf *out);

/* Check one page against page_size, its checksum, that its `n` records are not all-zero, ascend
 * strictly by id, touch one another (each starts where the one before ended), and that zeros
 * follow. CORRUPT says what and which record. */
int block_index_page_check(struct bytes page, uint32_t page_size, uint32_t n, struct err *err);
/* Record i of a checked page. */
void block_index_page_record(struct bytes page, uint32_t i, struct block_index_record *r);
/* First record of a checked page with n records whose id >= id. True and *r, or false when all are
 * smaller. */
bool block_index_page_search(struct bytes page, uint32_t n, const uint8_t id[PAGE_ID],
			     struct block_index_record *r);

#endif
