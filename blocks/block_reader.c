/* SPDX-License-Identifier: Apache-2.0
 *
 * block_reader.c - see block_reader.h: lookups.
 */
#include "blocks/block_reader.h"

#include "base/hash.h"
#include "base/mem.h"
#include "blocks/block.h"
#include "blocks/block_reader_internal.h"
#include "blocks/bloom.h"

#include <stdio.h>

enum {
	BLOOM_MAX = 64 * 1024 * 1024,
	KEEP_BYTES = 8 * 1024 * 1024,
	PAGE_KEPT_MAX = 2 * 1024 * 1024, /* stored bytes of a data page that is kept */
	KEPT_HEAD = 16, /* before them in the cache: where the page begins, its length */
};

/* Have n bytes charged for the page, or what the buffers hold already when that is more. */
static int charge_page(struct block_reader *r, size_t n, struct err *err)
{
	n = MAX(n, r->raw.cap + r->page.cap);
	if (n > r->charged && !budget_charge(r->budget, n - r->charged))
		return err_set(err, ERR_EXHAUSTED,
			       "page: memory budget is spent, %zu bytes are wanted", n);
	if (n < r->charged)
		budget_release(r->budget, r->charged - n);
	r->charged = n;
	return 0;
}

/* What a page too many has made of the buffer goes at once: the next one may be small. */
static void drop_page(struct block_reader *r)
{
	buf_fini(&r->page);
	r->page = (struct buf)BUF_INIT;
	charge_page(r, 0, NULL);
}

struct block_reader *block_reader_new(struct backend *be, const struct block_meta *m,
				      const struct block_reader_options *o, struct err *err)
{
	struct block_reader *r = xcalloc(1, sizeof(*r));

	r->be = be;
	r->max_page_bytes = o && o->max_page_bytes ? o->max_page_bytes : 64 * MIB;
	r->read_ahead_bytes = o && o->read_ahead_bytes ? o->read_ahead_bytes : 4 * MIB;
	r->cache = o ? o->cache : NULL;
	r->pages = o ? o->pages : NULL;
	r->budget = o ? o->budget : NULL;
	if (block_reader_open(r, m, o ? o->number : 0, err) == 0)
		return r;
	block_reader_free(r);
	return NULL;
}

int block_reader_open(struct block_reader *r, const struct block_meta *m, uint64_t number,
		      struct err *err)
{
	if (block_meta_check_v2(m, err) < 0)
		return err_wrap(err, "block %s", m->id);
	r->meta = *m;
	r->number = number;
	if (r->raw.cap + r->page.cap > KEEP_BYTES) {
		buf_fini(&r->raw);
		r->raw = (struct buf)BUF_INIT;
		drop_page(r);
	}
	if (r->codec == NULL || codec_id(r->codec) != m->encoding) {
		codec_free(r->codec);
		r->codec = codec_new(m->encoding, 0);
	}
	r->index_page = UINT32_MAX;
	return 0;
}

void block_reader_free(struct block_reader *r)
{
	if (r == NULL)
		return;
	codec_free(r->codec);
	buf_fini(&r->raw);
	buf_fini(&r->page);
	buf_fini(&r->index_read);
	block_cache_unref(r->index_kept);
	budget_release(r->budget, r->charged);
	free(r);
}

const struct block_meta *block_reader_meta(const struct block_reader *r)
{
	return &r->meta;
}

size_t block_reader_stored_max(const struct block_reader *r)
{
	return r->max_page_bytes + r->max_page_bytes / 8 + 64 * KIB;
}

/* Decompress into r->page. What it will take is not known: first as much is charged as pages
 * usually inflate to, then more. */
static int inflate(struct block_reader *r, struct bytes packed, struct err *err)
{
	enum { USUAL = 16, MORE = 2 };
	size_t most = r->max_page_bytes, limit = most;
	struct err local = ERR_INIT;

	if (r->budget != NULL)
		limit = (size_t)MIN(most, packed.n * USUAL + MIB);
	buf_reset(&r->page);
	for (;;) {
		if (charge_page(r, packed.n + limit, err) < 0)
			return -1;
		if (codec_decompress(r->codec, packed, limit, &r->page, &local) == 0)
			return charge_page(r, 0, err);
		drop_page(r);
		if (local.kind != ERR_TOO_LARGE || limit == most)
			break;
		limit = MIN(most, limit * MORE);
	}
	if (err != NULL)
		*err = local;
	return -1;
}

int block_reader_unpack(struct block_reader *r, struct bytes page, struct bytes *body,
			struct err *err)
{
	struct bytes packed = { NULL, 0 };

	buf_reset(&r->page);
	if (page_split(page, 0, NULL, &packed, err) < 0)
		return -1;
	if (codec_id(r->codec) == CODEC_NONE && packed.n <= r->max_page_bytes)
		*body = packed;
	else if (inflate(r, packed, err) < 0)
		return -1;
	else
		*body = buf_bytes(&r->page);
	if (body->n == 0)
		return err_set(err, ERR_CORRUPT, "page has no objects");
	return 0;
}

static int block_object_key(const struct block_reader *r, const char *name,
			    char key[BACKEND_KEY_MAX + 1], struct err *err)
{
	return block_key(key, r->meta.tenant, r->meta.id, name, err);
}

/* What was appended to b since it had `base` bytes. */
static struct bytes since(const struct buf *b, size_t base)
{
	return b->n == base ? BYTES_EMPTY : (struct bytes){ b->p + base, b->n - base };
}

/* A bit lost in a filter makes a trace unfindable, which no size shows. */
static int check_bloom_sum(const struct block_meta *m, uint32_t shard, struct bytes bloom,
			   struct err *err)
{
	uint64_t have, want;

	if (shard >= m->n_bloom_sums)
		return 0;
	have = hash_xxh64(bloom.p, bloom.n, 0);
	want = m->bloom_sums[shard];
	if (have == want)
		return 0;
	return err_set(err, ERR_CORRUPT, "XXH64 is %016llx, meta.json says %016llx",
		       (unsigned long long)have, (unsigned long long)want);
}

int block_reader_read_bloom(struct block_reader *r, uint32_t shard, struct buf *out,
			    struct err *err)
{
	char key[BACKEND_KEY_MAX + 1], name[24];
	size_t base = out->n;

	snprintf(name, sizeof(name), "bloom-%u", shard);
	if (block_object_key(r, name, key, err) < 0 ||
	    backend_read(r->be, key, BLOOM_MAX, out, err) < 0)
		return -1;
	if (bloom_check(since(out, base), err) < 0 ||
	    check_bloom_sum(&r->meta, shard, since(out, base), err) < 0)
		return err_wrap(err, "block %s: %s", r->meta.id, name);
	return 0;
}

int block_reader_read_index_page(struct block_reader *r, uint32_t page, struct buf *out,
				 struct err *err)
{
	uint32_t size = r->meta.index_page_size;
	char key[BACKEND_KEY_MAX + 1];
	size_t base = out->n;

	if (block_object_key(r, "index", key, err) < 0 ||
	    backend_read_range(r->be, key, (uint64_t)page * size, size, out, err) < 0)
		return -1;
	if (block_index_page_check(since(out, base), size,
				   block_index_on_page(r->meta.records, size, page), err) < 0)
		return err_wrap(err, "block %s: index page %u", r->meta.id, page);
	return 0;
}

/* ---- with a cache ---- */

static struct block_cache_key key_of(const struct block_reader *r, enum block_cache_kind kind,
				     uint32_t number)
{
	return (struct block_cache_key){ r->number, kind, number };
}

/* The page's head and records; what follows them is zeros, and not needed any more. */
static struct bytes index_records(const struct block_reader *r, struct bytes page, uint32_t number)
{
	uint32_t n = block_index_on_page(r->meta.records, r->meta.index_page_size, number);

	return (struct bytes){ page.p, BLOCK_INDEX_HEAD + (size_t)n * BLOCK_INDEX_RECORD };
}

/* Index page `page` in r->index; kept for the next lookup. */
static int load_index_page(struct block_reader *r, uint32_t page, struct err *err)
{
	struct block_cache_key key = key_of(r, BLOCK_CACHE_INDEX, page);

	if (r->index_page == page)
		return 0;
	r->index_page = UINT32_MAX;
	block_cache_unref(r->index_kept);
	r->index_kept = block_cache_find(r->cache, key);
	if (r->index_kept != NULL) {
		r->index = r->index_kept->bytes;
	} else {
		buf_reset(&r->index_read);
		if (block_reader_read_index_page(r, page, &r->index_read, err) < 0)
			return -1;
		r->index = index_records(r, buf_bytes(&r->index_read), page);
		if (block_cache_wants(r->cache, r->index.n))
			block_cache_add(r->cache, key, r->index);
	}
	r->index_page = page;
	return 0;
}

int block_reader_locate(struct block_reader *r, const uint8_t id[PAGE_ID],
			struct block_index_record *rec, struct err *err)
{
	uint32_t n = r->meta.records, size = r->meta.index_page_size;
	uint32_t lo = 0, hi = block_index_pages(n, size), on = 0;

	/* The first index page whose last record is not below id. */
	while (lo < hi) {
		uint32_t mid = lo + (hi - lo) / 2;

		if (load_index_page(r, mid, err) < 0)
			return -1;
		on = block_index_on_page(n, size, mid);
		block_index_page_record(r->index, on - 1, rec);
		if (memcmp(rec->id, id, PAGE_ID) >= 0)
			hi = mid;
		else
			lo = mid + 1;
	}
	if (lo == block_index_pages(n, size))
		return 0;
	if (load_index_page(r, lo, err) < 0)
		return -1;
	on = block_index_on_page(n, size, lo);
	return block_index_page_search(r->index, on, id, rec);
}

/* ---- data pages ----
 *
 * A page is kept as it is stored, behind its place: keys have 32 bits for a place of 64.
 */

static struct block_cache_key page_key(const struct block_reader *r,
				       const struct block_index_record *rec)
{
	return key_of(r, BLOCK_CACHE_PAGE, (uint32_t)(rec->start ^ rec->start >> 32));
}

static void page_head(const struct block_index_record *rec, uint8_t head[KEPT_HEAD])
{
	store_le64(head, rec->start);
	store_le64(head + 8, rec->len);
}

/* Into r->raw. */
static bool take_kept_page(struct block_reader *r, const struct block_index_record *rec)
{
	struct block_cache_piece *kept = block_cache_find(r->pages, page_key(r, rec));
	uint8_t head[KEPT_HEAD];
	bool is_it;

	if (kept == NULL)
		return false;
	page_head(rec, head);
	is_it = kept->bytes.n == KEPT_HEAD + (size_t)rec->len &&
		memcmp(kept->bytes.p, head, KEPT_HEAD) == 0;
	if (is_it)
		buf_add(&r->raw, kept->bytes.p + KEPT_HEAD, rec->len);
	block_cache_unref(kept);
	return is_it;
}

/* What r->raw holds was read and could be unpacked. */
static void keep_page(struct block_reader *r, const struct block_index_record *rec)
{
	uint8_t head[KEPT_HEAD];
	struct buf piece = BUF_INIT;

	if (rec->len > PAGE_KEPT_MAX || !block_cache_wants(r->pages, KEPT_HEAD + rec->len))
		return;
	page_head(rec, head);
	buf_reserve(&piece, KEPT_HEAD + (size_t)rec->len);
	buf_add(&piece, head, KEPT_HEAD);
	buf_add(&piece, r->raw.p, rec->len);
	block_cache_add(r->pages, page_key(r, rec), buf_bytes(&piece));
	buf_fini(&piece);
}

int block_reader_page(struct block_reader *r, const struct block_index_record *rec,
		      struct bytes *body, struct err *err)
{
	char key[BACKEND_KEY_MAX + 1];
	bool is_kept;

	buf_reset(&r->raw);
	if (rec->len > block_reader_stored_max(r))
		return err_set(err, ERR_TOO_LARGE,
			       "block %s: data at %llu: page of %u bytes, pages may inflate to %zu",
			       r->meta.id, (unsigned long long)rec->start, rec->len,
			       r->max_page_bytes);
	if (block_object_key(r, "data", key, err) < 0 || charge_page(r, rec->len, err) < 0)
		return -1;
	is_kept = take_kept_page(r, rec);
	if (!is_kept && backend_read_range(r->be, key, rec->start, rec->len, &r->raw, err) < 0)
		return -1;
	if (block_reader_unpack(r, buf_bytes(&r->raw), body, err) < 0)
		return err_wrap(err, "block %s: data at %llu", r->meta.id,
				(unsigned long long)rec->start);
	if (!is_kept)
		keep_page(r, rec);
	return 0;
}

static void keep_bloom(struct block_reader *r, uint32_t shard, struct bytes bloom)
{
	struct buf folded = BUF_INIT;

	if (!block_cache_wants(r->cache, bloom.n))
		return;
	bloom_fold(bloom, &folded);
	block_cache_add(r->cache, key_of(r, BLOCK_CACHE_BLOOM, shard), buf_bytes(&folded));
	buf_fini(&folded);
}

static uint32_t bloom_shard(const struct block_reader *r, const uint8_t id[PAGE_ID])
{
	return bloom_shard_of(id, block_meta_bloom_shards(&r->meta));
}

int block_reader_ask_kept(struct block_reader *r, const uint8_t id[PAGE_ID])
{
	struct block_cache_key key = key_of(r, BLOCK_CACHE_BLOOM, bloom_shard(r, id));
	struct block_cache_piece *kept = block_cache_find(r->cache, key);
	int ret;

	if (kept == NULL)
		return -1;
	ret = bloom_folded_test(kept->bytes, id);
	block_cache_unref(kept);
	return ret;
}

int block_reader_ask_read(struct block_reader *r, const uint8_t id[PAGE_ID], struct err *err)
{
	uint32_t shard = bloom_shard(r, id);

	buf_reset(&r->raw);
	if (block_reader_read_bloom(r, shard, &r->raw, err) < 0)
		return -1;
	keep_bloom(r, shard, buf_bytes(&r->raw));
	return bloom_test(buf_bytes(&r->raw), id, err);
}

int block_reader_find_here(struct block_reader *r, const uint8_t id[PAGE_ID], struct bytes *object,
			   struct err *err)
{
	struct page_object o = { NULL, { NULL, 0 } };
	struct block_index_record rec;
	struct bytes body;
	int ret = block_reader_locate(r, id, &rec, err);

	if (ret != 1)
		return ret;
	if (block_reader_page(r, &rec, &body, err) < 0)
		return -1;
	ret = page_find(body, id, rec.id, &o, err);
	if (ret < 0)
		return err_wrap(err, "block %s: data at %llu", r->meta.id,
				(unsigned long long)rec.start);
	*object = o.data;
	return ret;
}

int block_reader_find(struct block_reader *r, const uint8_t id[PAGE_ID], struct bytes *object,
		      struct err *err)
{
	int ret = block_reader_ask_kept(r, id);

	if (ret < 0)
		ret = block_reader_ask_read(r, id, err);
	return ret == 1 ? block_reader_find_here(r, id, object, err) : ret;
}

int block_reader_data_size(struct block_reader *r, uint64_t *size, struct err *err)
{
	char key[BACKEND_KEY_MAX + 1];

	if (block_object_key(r, "data", key, err) < 0 || backend_size(r->be, key, size, err) < 0)
		return -1;
	if (r->meta.size != 0 && r->meta.size != *size)
		return err_set(err, ERR_CORRUPT,
			       "block %s: data has %llu bytes, meta.json says %llu", r->meta.id,
			       (unsigned long long)*size, (unsigned long long)r->meta.size);
	return 0;
}
