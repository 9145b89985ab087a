/* SPDX-License-Identifier: Apache-2.0
 *
 * page.h - the two framings of a v2 block: pages (of `data` and `index`) and the objects inside a
 * data page.
 *
 *   page     [u32 LE total][u16 LE header length][header][body]        total counts all of it
 *   object   [u32 LE total][u32 LE id length][id][object bytes]        objects fill a data page's
 *            body exactly
 *
 * Pure functions over borrowed bytes, any thread. Everything is checked against the bytes at hand;
 * nothing is allocated.
 * SPEC: docs/formats/tempo-v2-block.md sections "Page" and "Object".
 */
#ifndef BLOCKS_PAGE_H
#define BLOCKS_PAGE_H

#include "base/base.h"
#include "base/err.h"

enum {
	PAGE_HEAD = 6,        /* bytes before a page's header; all there is in a data page */
	PAGE_OBJECT_HEAD = 8, /* bytes before an object's id */
	PAGE_ID = 16,         /* bytes of a trace id */
};

/* Write the 6 bytes that go before `header_len` bytes of header and the body; total includes them.
 * */
void page_head_store(uint8_t to[PAGE_HEAD], uint32_t total, uint16_t header_len);

/* `page` must be exactly one page whose header has header_len bytes. CORRUPT says which field is
 * wrong. On success *header (may be NULL) and *body borrow from page. */
int page_split(struct bytes page, uint16_t header_len, struct bytes *header, struct bytes *body,
	       struct err *err);
/* The total length at the front of `head` (at least PAGE_HEAD bytes, or CORRUPT), checked to be at
 * least PAGE_HEAD + header_len, for walking `data` without an index. */
int page_total(struct bytes head, uint16_t header_len, uint32_t *total, struct err *err);

struct page_object {
	const uint8_t *id; /* PAGE_ID bytes */
	struct bytes data; /* the object bytes, see block_object.h */
};

/* Write the 24 bytes that go before n object bytes. */
void page_object_head_store(uint8_t to[PAGE_OBJECT_HEAD + PAGE_ID], const uint8_t id[PAGE_ID],
			    uint32_t n);
/* Take the next object off the front of *body (the uncompressed body of a data page). 1 = *o is
 * set, 0 = the end, -1 = damaged (CORRUPT; *body is left at the damage). */
int page_object_next(struct bytes *body, struct page_object *o, struct err *err);

/* Find the object `id` in an uncompressed body, checking all framing on the way, that ids ascend
 * strictly, and that the last one is last_id (from the index record; NULL = unchecked). 1 = *o, 0 =
 * not there, -1 = CORRUPT. */
int page_find(struct bytes body, const uint8_t id[PAGE_ID], const uint8_t *last_id,
	      struct page_object *o, struct err *err);

#endif
