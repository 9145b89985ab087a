/* SPDX-License-Identifier: Apache-2.0
 *
 * block_check.c - see block_check.h.
 */
#include "blocks/block_check.h"

#include "base/mem.h"
#include "base/str.h"
#include "blocks/block.h"
#include "blocks/block_object.h"
#include "blocks/bloom.h"
#include "wire/otlp_index.h"

#include <stdarg.h>
#include <stdio.h>

enum { REPORTS_MAX = 100 };

struct check {
	struct backend *be;
	struct block_meta meta;
	struct block_reader *r;
	block_check_fn *fn;
	void *arg;
	struct block_check_result *result;
	uint64_t data_size;
	struct buf records; /* index records as stored; only when the whole index is sound */
	bool has_index;
	struct buf ids; /* of every object read, in file order */
	bool gap;       /* part of data could not be read: counts mean nothing */
	bool opaque;    /* dataEncoding is not known: objects are not looked into */
	struct arena arena;
};

static void PRINTF_LIKE(4, 5)
	report(struct check *c, const char *object, uint64_t offset, const char *fmt, ...)
{
	struct block_finding f = { object, offset, NULL };
	char what[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(what, sizeof(what), fmt, ap);
	va_end(ap);
	f.what = what;
	if (c->result->findings++ < REPORTS_MAX && c->fn != NULL)
		c->fn(c->arg, &f);
}

/* Is the error about the block, or could the backend not be asked? */
static bool is_damage(const struct err *e)
{
	return e->kind == ERR_CORRUPT || e->kind == ERR_NOT_FOUND || e->kind == ERR_TOO_LARGE ||
	       e->kind == ERR_INVALID || e->kind == ERR_UNIMPLEMENTED;
}

/* Report the damage and return 0, or hand on what is none and return -1. */
static int found(struct check *c, const char *object, uint64_t offset, const struct err *e,
		 struct err *err)
{
	if (!is_damage(e)) {
		if (err != NULL)
			*err = *e;
		return -1;
	}
	report(c, object, offset, "%s", e->msg);
	return 0;
}

/* ---- meta ---- */

static int check_meta(struct check *c, const char *tenant, const char *id,
		      const struct block_reader_options *o, struct err *err)
{
	struct block_object unused;
	struct err e = ERR_INIT;
	int ret = block_read_meta(c->be, tenant, id, "meta.json", &c->meta, &e);

	if (ret < 0 && e.kind == ERR_NOT_FOUND)
		ret = block_read_meta(c->be, tenant, id, "meta.compacted.json", &c->meta, &e);
	if (ret == 0)
		c->r = block_reader_new(c->be, &c->meta, o, &e);
	if (c->r == NULL)
		return found(c, "meta.json", 0, &e, err);
	c->opaque = block_object_parse(BYTES_EMPTY, c->meta.data_encoding, &unused, &e) < 0;
	return c->opaque ? found(c, "meta.json", 0, &e, err) : 0;
}

/* ---- index ---- */

/* Append the page's records, held against the last one of the page before. */
static int take_records(struct check *c, struct bytes page, uint32_t n, struct err *err)
{
	struct block_index_record prev, r;

	block_index_page_record(page, 0, &r);
	if (c->records.n == 0) {
		if (r.start != 0)
			return err_set(err, ERR_CORRUPT, "first record starts at %llu, not 0",
				       (unsigned long long)r.start);
	} else {
		block_index_record_load(c->records.p + c->records.n - BLOCK_INDEX_RECORD, &prev);
		if (memcmp(prev.id, r.id, PAGE_ID) >= 0 || prev.start + prev.len != r.start)
			return err_set(err, ERR_CORRUPT,
				       "first record does not follow the page before");
	}
	buf_add(&c->records, page.p + BLOCK_INDEX_HEAD, (size_t)n * BLOCK_INDEX_RECORD);
	return 0;
}

static int check_index_page(struct check *c, uint32_t i, struct buf *page, struct err *err)
{
	uint32_t size = c->meta.index_page_size;

	buf_reset(page);
	if (block_reader_read_index_page(c->r, i, page, err) < 0)
		return -1;
	return take_records(c, buf_bytes(page), block_index_on_page(c->meta.records, size, i), err);
}

static int index_size_fits(struct check *c, uint32_t pages, struct err *err)
{
	char key[BACKEND_KEY_MAX + 1];
	uint64_t size = 0, fits = (uint64_t)pages * c->meta.index_page_size;

	if (block_key(key, c->meta.tenant, c->meta.id, "index", err) < 0 ||
	    backend_size(c->be, key, &size, err) < 0)
		return -1;
	if (size != fits)
		return err_set(err, ERR_CORRUPT, "index has %llu bytes, %u records take %llu",
			       (unsigned long long)size, c->meta.records, (unsigned long long)fits);
	return 0;
}

static int check_index(struct check *c, struct err *err)
{
	uint32_t pages = block_index_pages(c->meta.records, c->meta.index_page_size);
	uint64_t offset = 0;
	struct buf page = BUF_INIT;
	struct err e = ERR_INIT;
	int ret = index_size_fits(c, pages, &e);

	for (uint32_t i = 0; i < pages && ret == 0; i++) {
		offset = (uint64_t)i * c->meta.index_page_size;
		ret = check_index_page(c, i, &page, &e);
	}
	buf_fini(&page);
	c->has_index = ret == 0;
	return ret < 0 ? found(c, "index", offset, &e, err) : 0;
}

/* ---- data ---- */

/* A segment is one TracesData, to the last attribute. */
static int check_segment(struct check *c, struct bytes segment, struct err *err)
{
	struct span_tables t = { 0 };
	struct otlp_result result;
	struct otlp_counts n;

	arena_reset(&c->arena);
	if (otlp_count(segment, &n, err) < 0)
		return -1;
	t.spans = arena_alloc(&c->arena, n.n_spans * sizeof(*t.spans));
	t.scopes = arena_alloc(&c->arena, n.n_scopes * sizeof(*t.scopes));
	t.resources = arena_alloc(&c->arena, n.n_resources * sizeof(*t.resources));
	t.heads = arena_alloc(&c->arena, n.n_heads * sizeof(*t.heads));
	return otlp_index_stored(segment, &t, &c->arena, &result, err);
}

static int check_segments(struct check *c, struct bytes data, struct err *err)
{
	struct block_object o;
	struct bytes segment;
	int ret = 0;

	if (block_object_parse(data, c->meta.data_encoding, &o, err) < 0)
		return -1;
	if (o.has_times && o.start_s > o.end_s)
		return err_set(err, ERR_CORRUPT, "object starts at %u, after its end %u", o.start_s,
			       o.end_s);
	while ((ret = block_object_segment_next(&o.segments, &segment, err)) == 1)
		if (check_segment(c, segment, err) < 0)
			return -1;
	return ret;
}

/* An object of the page at `offset`. Its framing is sound, so whatever is wrong, the next one can
 * be looked at. */
static void check_object(struct check *c, const struct page_object *o, uint64_t offset)
{
	struct err e = ERR_INIT;
	char hex[33], last[33];

	str_hex(o->id, PAGE_ID, hex);
	if (c->ids.n > 0 && memcmp(c->ids.p + c->ids.n - PAGE_ID, o->id, PAGE_ID) >= 0) {
		str_hex(c->ids.p + c->ids.n - PAGE_ID, PAGE_ID, last);
		report(c, "data", offset, "trace %s is not above the one before it, %s", hex, last);
	}
	buf_add(&c->ids, o->id, PAGE_ID);
	c->result->traces++;
	if (!c->opaque && check_segments(c, o->data, &e) < 0)
		report(c, "data", offset, "trace %s: %s", hex, e.msg);
}

static int check_page(struct check *c, const struct block_index_record *rec, struct err *err)
{
	struct bytes body = { NULL, 0 };
	struct page_object o;
	int ret = 0;

	if (block_reader_page(c->r, rec, &body, err) < 0) {
		c->gap = true;
		return -1;
	}
	while ((ret = page_object_next(&body, &o, err)) == 1)
		check_object(c, &o, rec->start);
	if (ret < 0) {
		c->gap = true;
		return -1;
	}
	c->result->pages++;
	if (c->has_index &&
	    (c->ids.n == 0 || memcmp(c->ids.p + c->ids.n - PAGE_ID, rec->id, PAGE_ID)))
		return err_set(err, ERR_CORRUPT,
			       "page does not end with the id of its index record");
	return 0;
}

/* Where the next page is, by the index or by its own head. 1, 0 at the end, -1 when there is no
 * telling. */
static int locate_page(struct check *c, uint32_t i, uint64_t at, struct block_index_record *rec,
		       struct err *err)
{
	char key[BACKEND_KEY_MAX + 1];
	struct buf head = BUF_INIT;
	int ret = 1;

	if (c->has_index) {
		if (i == c->records.n / BLOCK_INDEX_RECORD)
			return 0;
		block_index_record_load(c->records.p + (size_t)i * BLOCK_INDEX_RECORD, rec);
		return 1;
	}
	if (at == c->data_size)
		return 0;
	if (block_key(key, c->meta.tenant, c->meta.id, "data", err) < 0 ||
	    backend_read_range(c->be, key, at, PAGE_HEAD, &head, err) < 0 ||
	    page_total(buf_bytes(&head), 0, &rec->len, err) < 0)
		ret = -1;
	rec->start = at;
	buf_fini(&head);
	return ret;
}

static int check_pages(struct check *c, struct err *err)
{
	struct block_index_record rec = { .start = 0 };
	struct err e = ERR_INIT;
	uint64_t at = 0;
	int ret = 0;

	for (uint32_t i = 0; (ret = locate_page(c, i, at, &rec, &e)) == 1; i++) {
		if (check_page(c, &rec, &e) < 0 && found(c, "data", rec.start, &e, err) < 0)
			return -1;
		at = rec.start + rec.len;
		if (at > c->data_size)
			break;
	}
	if (ret < 0) {
		c->gap = true;
		return found(c, "data", at, &e, err);
	}
	if (at != c->data_size)
		report(c, "data", at, "data has %llu bytes, its pages take %llu",
		       (unsigned long long)c->data_size, (unsigned long long)at);
	return 0;
}

static void check_end_ids(struct check *c)
{
	const struct block_meta *m = &c->meta;

	if (c->ids.n == 0)
		return;
	if (m->has_min_id && memcmp(m->min_id, c->ids.p, PAGE_ID) != 0)
		report(c, "meta.json", 0, "minID is not the first trace of data");
	if (m->has_max_id && memcmp(m->max_id, c->ids.p + c->ids.n - PAGE_ID, PAGE_ID) != 0)
		report(c, "meta.json", 0, "maxID is not the last trace of data");
}

static void check_counts(struct check *c)
{
	const struct block_meta *m = &c->meta;

	if (c->gap)
		return;
	if (c->result->traces != m->objects)
		report(c, "meta.json", 0, "totalObjects is %llu, data has %llu traces",
		       (unsigned long long)m->objects, (unsigned long long)c->result->traces);
	if (c->result->pages != m->records)
		report(c, "meta.json", 0, "totalRecords is %u, data has %llu pages", m->records,
		       (unsigned long long)c->result->pages);
	check_end_ids(c);
}

static int check_data(struct check *c, struct err *err)
{
	char key[BACKEND_KEY_MAX + 1];
	struct err e = ERR_INIT;

	if (block_key(key, c->meta.tenant, c->meta.id, "data", &e) < 0 ||
	    backend_size(c->be, key, &c->data_size, &e) < 0)
		return found(c, "data", 0, &e, err);
	c->result->data_bytes = c->data_size;
	if (c->meta.size != 0 && c->meta.size != c->data_size)
		report(c, "meta.json", 0, "size is %llu, data has %llu bytes",
		       (unsigned long long)c->meta.size, (unsigned long long)c->data_size);
	if (check_pages(c, err) < 0)
		return -1;
	check_counts(c);
	return 0;
}

/* ---- bloom ---- */

/* The shard of every id, once. */
static uint16_t *shards_of_ids(const struct check *c, uint32_t shards)
{
	size_t n = c->ids.n / PAGE_ID;
	uint16_t *of = xmalloc(n * sizeof(*of) + 1);

	for (size_t i = 0; i < n; i++)
		of[i] = (uint16_t)bloom_shard_of(c->ids.p + i * PAGE_ID, shards);
	return of;
}

static void test_shard(struct check *c, const char *name, uint32_t shard, const uint16_t *of,
		       struct bytes bloom)
{
	for (size_t i = 0; i < c->ids.n / PAGE_ID; i++) {
		const uint8_t *id = c->ids.p + i * PAGE_ID;
		char hex[33];

		if (of[i] != shard || bloom_test(bloom, id, NULL) == 1)
			continue;
		str_hex(id, PAGE_ID, hex);
		report(c, name, 0, "trace %s is not in the filter", hex);
	}
}

static int check_blooms(struct check *c, struct err *err)
{
	uint32_t shards = block_meta_bloom_shards(&c->meta);
	struct buf bloom = BUF_INIT;
	uint16_t *of = NULL;
	int ret = 0;

	if (shards > BLOOM_SHARDS_MAX) {
		report(c, "meta.json", 0, "bloomShards is %u, at most 1000 can be", shards);
		return 0;
	}
	of = shards_of_ids(c, shards);
	for (uint32_t i = 0; i < shards && ret == 0; i++) {
		struct err e = ERR_INIT;
		char name[24];

		snprintf(name, sizeof(name), "bloom-%u", i);
		buf_reset(&bloom);
		if (block_reader_read_bloom(c->r, i, &bloom, &e) < 0)
			ret = found(c, name, 0, &e, err);
		else
			test_shard(c, name, i, of, buf_bytes(&bloom));
	}
	buf_fini(&bloom);
	free(of);
	return ret;
}

int block_check(struct backend *be, const char *tenant, const char *id,
		const struct block_reader_options *o, block_check_fn *fn, void *arg,
		struct block_check_result *result, struct err *err)
{
	struct check c = { .be = be, .fn = fn, .arg = arg, .result = result };
	int ret = 0;

	*result = (struct block_check_result){ 0 };
	ret = check_meta(&c, tenant, id, o, err);
	if (ret == 0 && c.r != NULL)
		ret = check_index(&c, err) < 0 || check_data(&c, err) < 0 ||
				      check_blooms(&c, err) < 0
			      ? -1
			      : 0;
	block_reader_free(c.r);
	buf_fini(&c.records);
	buf_fini(&c.ids);
	arena_fini(&c.arena);
	return ret;
}
