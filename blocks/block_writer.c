/* SPDX-License-Identifier: Apache-2.0
 *
 * block_writer.c - see block_writer.h.
 */
#include "blocks/block_writer.h"

#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/rng.h"
#include "base/str.h"
#include "blocks/block.h"
#include "blocks/block_index.h"
#include "blocks/block_object.h"
#include "blocks/bloom.h"

#include <stdio.h>

enum { DOWNSAMPLE = 1024 * 1024, MAX_PAGE = 64 * 1024 * 1024 };

struct block_writer {
	struct backend *be;
	struct backend_writer *data; /* NULL once finished */
	struct codec *codec;
	char tenant[BLOCK_META_TENANT + 1];
	char id[37];
	char data_encoding[BLOCK_META_NAME + 1];
	uint32_t downsample_bytes, index_page_size, bloom_shard_bytes, max_page_bytes;
	double bloom_fp;
	bool has_times;          /* objects begin with their times */
	struct buf page;         /* plain bytes of the page being filled */
	struct buf packed;       /* a whole compressed page */
	struct buf records;      /* encoded index records */
	struct buf ids;          /* all trace ids, ascending */
	uint64_t offset;         /* bytes of `data` so far */
	uint32_t start_s, end_s; /* extremes of the objects' times */
};

static void set_options(struct block_writer *w, const struct block_writer_options *o)
{
	static const struct block_writer_options defaults;

	if (o == NULL)
		o = &defaults;
	w->codec = codec_new(o->encoding ? *o->encoding : CODEC_ZSTD, o->level);
	w->downsample_bytes = o->downsample_bytes ? o->downsample_bytes : DOWNSAMPLE;
	w->index_page_size = o->index_page_size ? o->index_page_size : BLOCK_INDEX_PAGE_DEFAULT;
	w->bloom_shard_bytes =
		o->bloom_shard_bytes ? o->bloom_shard_bytes : BLOOM_SHARD_BYTES_DEFAULT;
	w->bloom_fp =
		o->bloom_fp > 0 && o->bloom_fp < 1 ? o->bloom_fp : BLOOM_FALSE_POSITIVE_DEFAULT;
	w->max_page_bytes = o->max_page_bytes ? o->max_page_bytes : MAX_PAGE;
	snprintf(w->data_encoding, sizeof(w->data_encoding), "%s",
		 o->data_encoding ? o->data_encoding : "v2");
	w->has_times = strcmp(w->data_encoding, "v2") == 0;
}

static void block_writer_free(struct block_writer *w)
{
	codec_free(w->codec);
	buf_fini(&w->page);
	buf_fini(&w->packed);
	buf_fini(&w->records);
	buf_fini(&w->ids);
	free(w);
}

struct block_writer *block_writer_open(struct backend *be, const char *tenant, const char *id,
				       const struct block_writer_options *o, struct err *err)
{
	char key[BACKEND_KEY_MAX + 1];
	struct block_writer *w = NULL;

	if (block_meta_tenant_check(bytes_str(tenant), err) < 0)
		return NULL;
	w = xcalloc(1, sizeof(*w));
	w->be = be;
	w->start_s = UINT32_MAX;
	set_options(w, o);
	memcpy(w->tenant, tenant, strlen(tenant) + 1);
	if (id != NULL)
		snprintf(w->id, sizeof(w->id), "%s", id);
	else
		rng_uuid(w->id);
	if (block_index_page_size_check(w->index_page_size, err) < 0 ||
	    block_key(key, w->tenant, w->id, "data", err) < 0 ||
	    (w->data = backend_writer_open(be, key, err)) == NULL) {
		block_writer_free(w);
		return NULL;
	}
	return w;
}

/* The compressed page, head included, in w->packed. */
static int pack_page(struct block_writer *w, struct err *err)
{
	buf_reset(&w->packed);
	if (buf_reserve(&w->packed, PAGE_HEAD) == NULL)
		return err_set(err, ERR_INTERNAL, "page buffer is capped");
	w->packed.n = PAGE_HEAD;
	if (codec_id(w->codec) != CODEC_NONE &&
	    codec_compress(w->codec, buf_bytes(&w->page), &w->packed, err) < 0)
		return -1;
	return 0;
}

/* Write the page buffer as one page and its record. */
static int cut_page(struct block_writer *w, struct err *err)
{
	bool plain = codec_id(w->codec) == CODEC_NONE;
	struct block_index_record r = { .start = w->offset };
	uint64_t total = 0;

	if (w->page.n == 0)
		return 0;
	if (pack_page(w, err) < 0)
		return -1;
	total = w->packed.n + (plain ? w->page.n : 0);
	if (total > UINT32_MAX)
		return err_set(err, ERR_TOO_LARGE, "page of %llu bytes", (unsigned long long)total);
	page_head_store(w->packed.p, (uint32_t)total, 0);
	if (backend_writer_append(w->data, buf_bytes(&w->packed), err) < 0 ||
	    (plain && backend_writer_append(w->data, buf_bytes(&w->page), err) < 0))
		return -1;
	memcpy(r.id, w->ids.p + w->ids.n - PAGE_ID, PAGE_ID);
	r.len = (uint32_t)total;
	block_index_record_store(&w->records, &r);
	w->offset += total;
	buf_reset(&w->page);
	return 0;
}

static int refuse_order(const struct block_writer *w, const uint8_t *id, struct err *err)
{
	char a[33], b[33];

	str_hex(id, PAGE_ID, a);
	str_hex(w->ids.p + w->ids.n - PAGE_ID, PAGE_ID, b);
	return err_set(err, ERR_INVALID, "trace %s: comes after %s, must ascend", a, b);
}

static int refuse_size(const struct block_writer *w, const uint8_t *id, uint64_t n, struct err *err)
{
	char hex[33];

	str_hex(id, PAGE_ID, hex);
	return err_set(err, ERR_TOO_LARGE, "trace %s: %llu bytes, a page takes at most %u", hex,
		       (unsigned long long)n, w->max_page_bytes);
}

/* The object's own times, now that its bytes lie in one piece. */
static void note_times(struct block_writer *w, const uint8_t *object, size_t n)
{
	if (!w->has_times || n < BLOCK_OBJECT_TIMES)
		return;
	w->start_s = MIN(w->start_s, load_le32(object));
	w->end_s = MAX(w->end_s, load_le32(object + 4));
}

int block_writer_add(struct block_writer *w, const uint8_t id[PAGE_ID], const struct bytes *pieces,
		     size_t n, struct err *err)
{
	enum { HEAD = PAGE_OBJECT_HEAD + PAGE_ID };
	uint64_t len = 0;
	uint8_t *to = NULL;

	for (size_t i = 0; i < n; i++)
		len += pieces[i].n;
	if (w->ids.n > 0 && memcmp(w->ids.p + w->ids.n - PAGE_ID, id, PAGE_ID) >= 0)
		return refuse_order(w, id, err);
	if (len > w->max_page_bytes || len + HEAD > w->max_page_bytes)
		return refuse_size(w, id, len, err);
	if (w->page.n + HEAD + len > w->max_page_bytes && cut_page(w, err) < 0)
		return -1;
	if (w->page.cap == 0)
		buf_reserve(&w->page, (size_t)MIN(w->downsample_bytes, w->max_page_bytes) + KIB);
	to = buf_reserve(&w->page, HEAD + (size_t)len);
	page_object_head_store(to, id, (uint32_t)len);
	to += HEAD;
	for (size_t i = 0; i < n; i++) {
		if (pieces[i].n > 0)
			memcpy(to, pieces[i].p, pieces[i].n);
		to += pieces[i].n;
	}
	note_times(w, to - len, (size_t)len);
	w->page.n += HEAD + (size_t)len;
	buf_add(&w->ids, id, PAGE_ID);
	return w->page.n > w->downsample_bytes ? cut_page(w, err) : 0;
}

uint64_t block_writer_objects(const struct block_writer *w)
{
	return w->ids.n / PAGE_ID;
}

uint64_t block_writer_bytes(const struct block_writer *w)
{
	return w->offset + w->page.n;
}

const char *block_writer_id(const struct block_writer *w)
{
	return w->id;
}

static int put(struct block_writer *w, const char *name, struct bytes data, struct err *err)
{
	char key[BACKEND_KEY_MAX + 1];

	if (block_key(key, w->tenant, w->id, name, err) < 0)
		return -1;
	return backend_put(w->be, key, data, BACKEND_REPLACE, err);
}

static int put_index(struct block_writer *w, struct err *err)
{
	struct buf index = BUF_INIT;
	int ret = 0;

	block_index_encode(buf_bytes(&w->records), w->index_page_size, &index);
	ret = put(w, "index", buf_bytes(&index), err);
	buf_fini(&index);
	return ret;
}

/* Shards, and their checksums if that is not too many. */
static void note_blooms(const struct bloom *bloom, uint32_t shards, struct block_meta *m)
{
	m->bloom_shards = shards;
	if (shards > BLOCK_META_BLOOM_SUMS)
		return;
	m->n_bloom_sums = shards;
	for (uint32_t i = 0; i < shards; i++) {
		struct bytes bytes = bloom_shard_bytes(bloom, i);

		m->bloom_sums[i] = hash_xxh64(bytes.p, bytes.n, 0);
	}
}

static int put_blooms(struct block_writer *w, struct block_meta *m, struct err *err)
{
	struct bloom_shape shape =
		bloom_shape_for(block_writer_objects(w), w->bloom_fp, w->bloom_shard_bytes);
	struct bloom *bloom = bloom_new(shape);
	int ret = 0;

	for (size_t at = 0; at < w->ids.n; at += PAGE_ID)
		bloom_add(bloom, w->ids.p + at);
	for (uint32_t i = 0; i < shape.shards && ret == 0; i++) {
		char name[24];

		snprintf(name, sizeof(name), "bloom-%u", i);
		ret = put(w, name, bloom_shard_bytes(bloom, i), err);
	}
	note_blooms(bloom, shape.shards, m);
	bloom_free(bloom);
	return ret;
}

static int finish_data(struct block_writer *w, struct err *err)
{
	struct backend_writer *data = w->data;

	if (w->ids.n == 0)
		return err_set(err, ERR_INVALID, "block %s: has no traces", w->id);
	if (cut_page(w, err) < 0)
		return -1;
	w->data = NULL;
	return backend_writer_finish(data, err);
}

/* All but what put_blooms notes. */
static void fill_meta(const struct block_writer *w, struct block_meta *m)
{
	memcpy(m->format, "v2", 3);
	memcpy(m->id, w->id, sizeof(m->id));
	memcpy(m->tenant, w->tenant, sizeof(m->tenant));
	memcpy(m->data_encoding, w->data_encoding, sizeof(m->data_encoding));
	m->has_min_id = m->has_max_id = true;
	memcpy(m->min_id, w->ids.p, PAGE_ID);
	memcpy(m->max_id, w->ids.p + w->ids.n - PAGE_ID, PAGE_ID);
	if (w->start_s <= w->end_s) {
		m->start = (struct block_time){ w->start_s, 0 };
		m->end = (struct block_time){ w->end_s, 0 };
	}
	m->objects = block_writer_objects(w);
	m->size = w->offset;
	m->encoding = codec_id(w->codec);
	m->index_page_size = w->index_page_size;
	m->records = (uint32_t)(w->records.n / BLOCK_INDEX_RECORD);
}

int block_writer_finish(struct block_writer *w, struct block_meta *m, struct err *err)
{
	block_meta_init(m);
	if (finish_data(w, err) < 0 || put_index(w, err) < 0 || put_blooms(w, m, err) < 0) {
		block_writer_abort(w);
		return -1;
	}
	fill_meta(w, m);
	block_writer_free(w);
	return 0;
}

void block_writer_abort(struct block_writer *w)
{
	struct err err = ERR_INIT;

	if (w == NULL)
		return;
	if (w->data != NULL)
		backend_writer_abort(w->data);
	else if (block_delete(w->be, w->tenant, w->id, &err) < 0)
		log_warn("cannot delete an unfinished block", "error", err.msg);
	block_writer_free(w);
}
