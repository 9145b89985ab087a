/* SPDX-License-Identifier: Apache-2.0
 *
 * block_iter.c - walks the data of a block from front to back, see block_iter.h.
 *
 *   data: [page 0][page 1][page 2]....
 *             ^off       window holds off .. off + read_ahead: large sequential reads suit disks
 *                        and buckets alike
 *
 * Index pages are read one at a time as their records come up.
 */
#include "blocks/block_iter.h"

#include "base/mem.h"
#include "base/str.h"
#include "blocks/block.h"
#include "blocks/block_reader_internal.h"

struct block_iter {
	struct block_reader *r;
	enum block_iter_mode mode;
	bool opened;       /* size is known */
	uint64_t size;     /* of data */
	uint64_t off;      /* of the next page */
	uint64_t page_off; /* of this page */
	uint32_t pages;    /* begun so far */
	uint64_t objects;  /* given so far */
	struct buf window; /* data from window_off on */
	uint64_t window_off;
	struct buf index;              /* the index page of `rec` */
	struct block_index_record rec; /* of this page, when checked */
	struct bytes body, rest;       /* this page's plain bytes, and what is left of them */
	uint8_t prev[PAGE_ID];         /* id of the last object */
	struct err failed;             /* what ended the walk: every later call says it again */
};

struct block_iter *block_iter_new(struct block_reader *r, enum block_iter_mode mode)
{
	struct block_iter *it = xcalloc(1, sizeof(*it));

	it->r = r;
	it->mode = mode;
	return it;
}

void block_iter_free(struct block_iter *it)
{
	if (it == NULL)
		return;
	buf_fini(&it->window);
	buf_fini(&it->index);
	free(it);
}

uint32_t block_iter_page(const struct block_iter *it)
{
	return it->pages ? it->pages - 1 : 0;
}

uint64_t block_iter_offset(const struct block_iter *it)
{
	return it->page_off;
}

struct bytes block_iter_body(const struct block_iter *it)
{
	return it->body;
}

static int at_page(const struct block_iter *it, struct err *err)
{
	return err_wrap(err, "block %s: page %u, data at %llu", it->r->meta.id, block_iter_page(it),
			(unsigned long long)it->page_off);
}

/* Make the window hold n bytes from it->off; they are inside the data. */
static int fill(struct block_iter *it, size_t n, struct err *err)
{
	char key[BACKEND_KEY_MAX + 1];
	size_t skip = (size_t)(it->off - it->window_off), have = 0;
	uint64_t left = 0;

	if (skip <= it->window.n && it->window.n - skip >= n)
		return 0;
	have = skip < it->window.n ? it->window.n - skip : 0;
	if (have > 0)
		memmove(it->window.p, it->window.p + skip, have);
	it->window.n = have;
	it->window_off = it->off;
	left = it->size - it->off - have;
	if (block_key(key, it->r->meta.tenant, it->r->meta.id, "data", err) < 0)
		return -1;
	return backend_read_range(it->r->be, key, it->off + have,
				  (size_t)MIN(left, MAX(n - have, it->r->read_ahead_bytes)),
				  &it->window, err);
}

static struct bytes window(const struct block_iter *it, size_t n)
{
	return (struct bytes){ it->window.p + (it->off - it->window_off), n };
}

/* Load the index record of page number `page` and hold its place against the data's. */
static int match_record(struct block_iter *it, uint32_t page, uint32_t total, struct err *err)
{
	uint32_t size = it->r->meta.index_page_size, per_page = block_index_per_page(size);

	if (page >= it->r->meta.records)
		return err_set(err, ERR_CORRUPT, "no index record: meta.json says %u records",
			       it->r->meta.records);
	if (page % per_page == 0) {
		buf_reset(&it->index);
		if (block_reader_read_index_page(it->r, page / per_page, &it->index, err) < 0)
			return -1;
	}
	block_index_page_record(buf_bytes(&it->index), page % per_page, &it->rec);
	if (it->rec.start != it->off || it->rec.len != total)
		return err_set(err, ERR_CORRUPT,
			       "page has %u bytes, its index record says %u at %llu", total,
			       it->rec.len, (unsigned long long)it->rec.start);
	return 0;
}

/* The page at it->off: window filled, head and index record checked, its length in *total. */
static int fetch_page(struct block_iter *it, uint32_t *total, struct err *err)
{
	uint64_t left = it->size - it->off;

	if (left < PAGE_HEAD)
		return err_set(err, ERR_CORRUPT, "only %llu bytes left for a page head",
			       (unsigned long long)left);
	if (fill(it, PAGE_HEAD, err) < 0 || page_total(window(it, PAGE_HEAD), 0, total, err) < 0)
		return -1;
	if (*total > left)
		return err_set(err, ERR_CORRUPT,
			       "page of %u bytes runs past the end of data, %llu left", *total,
			       (unsigned long long)left);
	if (it->mode == BLOCK_ITER_CHECKED && match_record(it, it->pages - 1, *total, err) < 0)
		return -1;
	if (*total > block_reader_stored_max(it->r))
		return err_set(err, ERR_TOO_LARGE, "page of %u bytes, pages may inflate to %zu",
			       *total, it->r->max_page_bytes);
	return fill(it, *total, err);
}

static int next_page(struct block_iter *it, struct err *err)
{
	uint32_t total = 0;

	it->page_off = it->off;
	it->pages++;
	if (fetch_page(it, &total, err) < 0 ||
	    block_reader_unpack(it->r, window(it, total), &it->body, err) < 0)
		return at_page(it, err);
	it->off += total;
	it->rest = it->body;
	return 0;
}

/* All pages are read: do the counts agree? */
static int check_end(const struct block_iter *it, struct err *err)
{
	const struct block_meta *m = &it->r->meta;

	if (it->pages != m->records)
		return err_set(err, ERR_CORRUPT,
			       "block %s: data has %u pages, meta.json says %u records", m->id,
			       it->pages, m->records);
	if (it->objects != m->objects)
		return err_set(err, ERR_CORRUPT,
			       "block %s: data has %llu traces, meta.json says %llu", m->id,
			       (unsigned long long)it->objects, (unsigned long long)m->objects);
	return 0;
}

static int check_order(const struct block_iter *it, const uint8_t *id, struct err *err)
{
	char a[33], b[33];

	if (it->objects == 0 || memcmp(it->prev, id, PAGE_ID) < 0)
		return 0;
	str_hex(id, PAGE_ID, a);
	str_hex(it->prev, PAGE_ID, b);
	return err_set(err, ERR_CORRUPT, "trace %s is not above the one before it, %s", a, b);
}

/* The page is used up: does it end with the id its record names? */
static int check_last(const struct block_iter *it, struct err *err)
{
	char a[33], b[33];

	if (it->pages == 0 || it->mode != BLOCK_ITER_CHECKED ||
	    memcmp(it->rec.id, it->prev, PAGE_ID) == 0)
		return 0;
	str_hex(it->prev, PAGE_ID, a);
	str_hex(it->rec.id, PAGE_ID, b);
	return err_set(err, ERR_CORRUPT, "page ends with trace %s, its index record says %s", a, b);
}

/* Find the next page, or the end. 1, 0, -1. */
static int advance(struct block_iter *it, struct err *err)
{
	if (check_last(it, err) < 0)
		return at_page(it, err);
	if (it->off == it->size)
		return it->mode == BLOCK_ITER_CHECKED ? check_end(it, err) : 0;
	return next_page(it, err) < 0 ? -1 : 1;
}

static int next(struct block_iter *it, struct page_object *o, struct err *err)
{
	int ret = 0;

	if (!it->opened && block_reader_data_size(it->r, &it->size, err) < 0)
		return -1;
	it->opened = true;
	if (it->rest.n == 0) {
		ret = advance(it, err);
		if (ret != 1)
			return ret;
	}
	if (page_object_next(&it->rest, o, err) < 0 || check_order(it, o->id, err) < 0)
		return at_page(it, err);
	memcpy(it->prev, o->id, PAGE_ID);
	it->objects++;
	return 1;
}

int block_iter_next(struct block_iter *it, struct page_object *o, struct err *err)
{
	int ret = -1;

	if (it->failed.kind == ERR_NONE)
		ret = next(it, o, &it->failed);
	if (ret < 0 && err != NULL)
		*err = it->failed;
	return ret;
}
