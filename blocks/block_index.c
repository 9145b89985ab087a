/* SPDX-License-Identifier: Apache-2.0
 *
 * block_index.c - see block_index.h.
 */
#include "blocks/block_index.h"

#include "base/hash.h"

int block_index_page_size_check(uint32_t page_size, struct err *err)
{
	if (page_size < BLOCK_INDEX_PAGE_MIN || page_size > BLOCK_INDEX_PAGE_MAX)
		return err_set(err, ERR_INVALID, "indexPageSize %u: must be %d to %d", page_size,
			       BLOCK_INDEX_PAGE_MIN, BLOCK_INDEX_PAGE_MAX);
	return 0;
}

uint32_t block_index_per_page(uint32_t page_size)
{
	assert(page_size >= BLOCK_INDEX_PAGE_MIN);
	return (page_size - BLOCK_INDEX_HEAD) / BLOCK_INDEX_RECORD;
}

uint32_t block_index_pages(uint32_t n, uint32_t page_size)
{
	uint32_t per_page = block_index_per_page(page_size);

	return n / per_page + (n % per_page != 0);
}

uint32_t block_index_on_page(uint32_t n, uint32_t page_size, uint32_t page)
{
	uint64_t before = (uint64_t)page * block_index_per_page(page_size);

	if (before >= n)
		return 0;
	return (uint32_t)MIN(n - before, block_index_per_page(page_size));
}

void block_index_record_store(struct buf *records, const struct block_index_record *r)
{
	uint8_t *to = buf_reserve(records, BLOCK_INDEX_RECORD);

	assert(to != NULL);
	memcpy(to, r->id, PAGE_ID);
	store_le64(to + PAGE_ID, r->start);
	store_le32(to + PAGE_ID + 8, r->len);
	records->n += BLOCK_INDEX_RECORD;
}

void block_index_record_load(const uint8_t *p, struct block_index_record *r)
{
	memcpy(r->id, p, PAGE_ID);
	r->start = load_le64(p + PAGE_ID);
	r->len = load_le32(p + PAGE_ID + 8);
}

static void encode_page(struct bytes records, uint32_t page_size, uint8_t *to)
{
	page_head_store(to, page_size, BLOCK_INDEX_HEADER);
	memcpy(to + BLOCK_INDEX_HEAD, records.p, records.n);
	memset(to + BLOCK_INDEX_HEAD + records.n, 0, page_size - BLOCK_INDEX_HEAD - records.n);
	store_le64(to + PAGE_HEAD,
		   hash_xxh64(to + BLOCK_INDEX_HEAD, page_size - BLOCK_INDEX_HEAD, 0));
}

void block_index_encode(struct bytes records, uint32_t page_size, struct buf *out)
{
	size_t per_page = (size_t)block_index_per_page(page_size) * BLOCK_INDEX_RECORD;

	assert(records.n % BLOCK_INDEX_RECORD == 0);
	while (records.n > 0) {
		struct bytes part = { records.p, MIN(records.n, per_page) };
		uint8_t *to = buf_reserve(out, page_size);

		assert(to != NULL);
		encode_page(part, page_size, to);
		out->n += page_size;
		records.p += part.n;
		records.n -= part.n;
	}
}

static const uint8_t *record_at(struct bytes page, uint32_t i)
{
	return page.p + BLOCK_INDEX_HEAD + (size_t)i * BLOCK_INDEX_RECORD;
}

void block_index_page_record(struct bytes page, uint32_t i, struct block_index_record *r)
{
	block_index_record_load(record_at(page, i), r);
}

/* What is wrong with record i, given the one before it (NULL: the first of the page), or NULL. */
static const char *record_fault(const struct block_index_record *r,
				const struct block_index_record *prev)
{
	if (r->len < PAGE_HEAD)
		return "length is less than a page's head";
	if (r->start + r->len < r->start)
		return "runs past the largest offset";
	if (prev == NULL)
		return NULL;
	if (memcmp(prev->id, r->id, PAGE_ID) >= 0)
		return "id is not above the record before it";
	if (prev->start + prev->len != r->start)
		return "does not start where the record before it ends";
	return NULL;
}

static int check_records(struct bytes page, uint32_t n, struct err *err)
{
	struct block_index_record r, prev;

	for (uint32_t i = 0; i < n; i++) {
		const char *fault = NULL;

		block_index_page_record(page, i, &r);
		fault = record_fault(&r, i ? &prev : NULL);
		if (fault != NULL)
			return err_set(err, ERR_CORRUPT, "index record %u: %s", i, fault);
		prev = r;
	}
	return 0;
}

int block_index_page_check(struct bytes page, uint32_t page_size, uint32_t n, struct err *err)
{
	struct bytes header = { NULL, 0 }, body = { NULL, 0 };
	uint64_t want = 0, have = 0;

	if (page.n != page_size)
		return err_set(err, ERR_CORRUPT, "index page of %zu bytes: meta says %u", page.n,
			       page_size);
	if (page_split(page, BLOCK_INDEX_HEADER, &header, &body, err) < 0)
		return err_wrap(err, "index");
	want = load_le64(header.p);
	have = hash_xxh64(body.p, body.n, 0);
	if (want != have)
		return err_set(err, ERR_CORRUPT,
			       "index page: XXH64 is %016llx, header says %016llx",
			       (unsigned long long)have, (unsigned long long)want);
	if (n > block_index_per_page(page_size))
		return err_set(err, ERR_CORRUPT, "index page: %u records do not fit", n);
	for (size_t i = (size_t)n * BLOCK_INDEX_RECORD; i < body.n; i++)
		if (body.p[i] != 0)
			return err_set(err, ERR_CORRUPT, "index page: padding byte %zu is not zero",
				       i);
	return check_records(page, n, err);
}

bool block_index_page_search(struct bytes page, uint32_t n, const uint8_t id[PAGE_ID],
			     struct block_index_record *r)
{
	uint32_t lo = 0, hi = n;

	while (lo < hi) {
		uint32_t mid = lo + (hi - lo) / 2;

		if (memcmp(record_at(page, mid), id, PAGE_ID) >= 0)
			hi = mid;
		else
			lo = mid + 1;
	}
	if (lo == n)
		return false;
	block_index_page_record(page, lo, r);
	return true;
}
