/* SPDX-License-Identifier: Apache-2.0
 *
 * test_block.c - whole blocks: Tempo's golden ones read and regenerated, our own written, read,
 * damaged and checked.
 *
 * Golden data is taken from $SPANMILL_GOLDEN, else ../shared/golden; its tests are skipped when it
 * is not there.
 */
#include "base/rng.h"
#include "base/str.h"
#include "blocks/block.h"
#include "blocks/block_check.h"
#include "blocks/block_iter.h"
#include "blocks/block_object.h"
#include "blocks/block_writer.h"
#include "blocks/bloom.h"
#include "tests/memory_backend.h"
#include "wire/pb.h"

#include <dirent.h>
#include <openssl/sha.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

/* ---- golden blocks ---- */

static const char *golden_root(void)
{
	static char path[512];
	const char *env = getenv("SPANMILL_GOLDEN");
	DIR *d = NULL;

	snprintf(path, sizeof(path), "%s/tempo-v2", env ? env : "../shared/golden");
	d = opendir(path);
	if (d == NULL) {
		printf("skipped: no golden data\n");
		skip();
	}
	closedir(d);
	return path;
}

static int read_whole(const char *path, struct buf *b)
{
	FILE *f = fopen(path, "rb");
	size_t got = 0;

	if (f == NULL)
		return -1;
	do {
		got = fread(buf_reserve(b, 65536), 1, 65536, f);
		b->n += got;
	} while (got > 0);
	fclose(f);
	return 0;
}

/* Copy the files of a golden block to where its meta says they belong. */
static void load_block(struct backend *be, const char *dir, struct block_meta *m)
{
	char path[1024], key[BACKEND_KEY_MAX + 1];
	struct buf b = BUF_INIT;
	struct err err = ERR_INIT;
	struct dirent *e = NULL;
	DIR *d = opendir(dir);

	assert_non_null(d);
	snprintf(path, sizeof(path), "%s/meta.json", dir);
	if (read_whole(path, &b) < 0 || block_meta_parse(buf_bytes(&b), m, &err) < 0)
		fail_msg("%s: %s", path, err.msg);
	while ((e = readdir(d)) != NULL) {
		char *copy = NULL;

		if (e->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "%s/%s", dir, e->d_name);
		buf_reset(&b);
		assert_int_equal(read_whole(path, &b), 0);
		copy = strstr(e->d_name, "-copy");
		if (copy != NULL)
			*copy = '\0';
		assert_int_equal(block_key(key, m->tenant, m->id, e->d_name, &err), 0);
		assert_int_equal(backend_put(be, key, buf_bytes(&b), BACKEND_REPLACE, &err), 0);
	}
	closedir(d);
	buf_fini(&b);
}

struct golden {
	char dir[512], encoding[16], data_encoding[16], first[40], last[40], sha[72];
	unsigned pages, objects;
};

/* The next line of MANIFEST.tsv; false at the end. */
static bool next_golden(FILE *f, struct golden *g)
{
	char line[1024];

	while (fgets(line, sizeof(line), f) != NULL)
		if (line[0] != '#')
			return sscanf(line, "%511s %15s %15s %u %u %39s %39s %71s", g->dir,
				      g->encoding, g->data_encoding, &g->pages, &g->objects,
				      g->first, g->last, g->sha) == 8;
	return false;
}

/* Every id of a block found again with the same bytes; ids around it not. */
static void find_all(struct backend *be, const struct block_meta *m)
{
	struct block_reader *walked = block_reader_new(be, m, NULL, NULL);
	struct block_reader *asked = block_reader_new(be, m, NULL, NULL);
	struct block_iter *it = block_iter_new(walked, BLOCK_ITER_CHECKED);
	static const uint8_t zero[16];
	struct bytes none = BYTES_EMPTY;
	struct page_object o;
	struct err err = ERR_INIT;
	unsigned n = 0;
	int ret = 0;

	while ((ret = block_iter_next(it, &o, &err)) == 1) {
		struct bytes b = BYTES_EMPTY;
		uint8_t other[16];

		if (n++ % (m->objects > 1000 ? 97 : 1) != 0)
			continue;
		if (block_reader_find(asked, o.id, &b, &err) != 1)
			fail_msg("%s: %s", m->id, err.msg);
		assert_true(bytes_eq(b, o.data));
		memcpy(other, o.id, 16);
		other[15] ^= 0x55;
		assert_int_equal(block_reader_find(asked, other, &b, &err), 0);
	}
	if (ret < 0)
		fail_msg("%s: %s", m->id, err.msg);
	assert_int_equal(n, m->objects);
	assert_int_equal(block_reader_find(asked, zero, &none, &err), 0);
	block_iter_free(it);
	block_reader_free(walked);
	block_reader_free(asked);
}

/* Regenerate index and blooms from the ids and page places alone and compare. */
static void regenerate(struct backend *be, const struct block_meta *m)
{
	struct block_reader *r = block_reader_new(be, m, NULL, NULL);
	struct block_iter *it = block_iter_new(r, BLOCK_ITER_DATA_ONLY);
	struct buf records = BUF_INIT, index = BUF_INIT, shard = BUF_INIT;
	struct block_index_record rec = { { 0 }, 0, 0 };
	struct bloom *bloom = NULL;
	struct bloom_shape shape = { block_meta_bloom_shards(m), 0, 0 };
	char key[BACKEND_KEY_MAX + 1], name[24];
	struct memory_object *data = NULL;
	struct page_object o;
	struct err err = ERR_INIT;
	bool begun = false;

	assert_int_equal(block_reader_read_bloom(r, 0, &shard, &err), 0);
	shape.m = load_be64(shard.p);
	shape.k = (uint32_t)load_be64(shard.p + 8);
	bloom = bloom_new(shape);
	block_key(key, m->tenant, m->id, "data", NULL);
	data = memory_find(be, key);
	while (block_iter_next(it, &o, &err) == 1) {
		if (begun && block_iter_offset(it) != rec.start)
			block_index_record_store(&records, &rec);
		begun = true;
		rec.start = block_iter_offset(it);
		rec.len = load_le32(data->data.p + rec.start);
		memcpy(rec.id, o.id, 16);
		bloom_add(bloom, o.id);
	}
	block_index_record_store(&records, &rec);
	block_index_encode(buf_bytes(&records), m->index_page_size, &index);
	block_key(key, m->tenant, m->id, "index", NULL);
	assert_true(bytes_eq(buf_bytes(&index), buf_bytes(&memory_find(be, key)->data)));
	for (uint32_t i = 0; i < shape.shards; i++) {
		snprintf(name, sizeof(name), "bloom-%u", i);
		block_key(key, m->tenant, m->id, name, NULL);
		assert_true(bytes_eq(bloom_shard_bytes(bloom, i),
				     buf_bytes(&memory_find(be, key)->data)));
	}
	bloom_free(bloom);
	block_iter_free(it);
	block_reader_free(r);
	buf_fini(&records);
	buf_fini(&index);
	buf_fini(&shard);
}

/* SHA-256 of all plain pages, pages and ids against the manifest; data alone is enough. */
static void walk_golden(struct backend *be, const struct block_meta *m, const struct golden *g)
{
	struct block_reader *r = block_reader_new(be, m, NULL, NULL);
	struct block_iter *it = block_iter_new(r, BLOCK_ITER_DATA_ONLY);
	uint8_t digest[SHA256_DIGEST_LENGTH], last[16] = { 0 };
	struct buf plain = BUF_INIT;
	struct page_object o;
	struct err err = ERR_INIT;
	unsigned pages = 0, objects = 0;
	char hex[2 * SHA256_DIGEST_LENGTH + 1];
	int ret = 0;

	while ((ret = block_iter_next(it, &o, &err)) == 1) {
		if (pages != block_iter_page(it) + 1)
			buf_add_bytes(&plain, block_iter_body(it));
		pages = block_iter_page(it) + 1;
		if (objects++ == 0) {
			str_hex(o.id, 16, hex);
			assert_string_equal(hex, g->first);
		}
		memcpy(last, o.id, 16);
	}
	if (ret < 0)
		fail_msg("%s: %s", g->dir, err.msg);
	SHA256(plain.p, plain.n, digest);
	str_hex(digest, sizeof(digest), hex);
	assert_string_equal(hex, g->sha);
	str_hex(last, 16, hex);
	assert_string_equal(hex, g->last);
	assert_int_equal(pages, g->pages);
	assert_int_equal(objects, g->objects);
	block_iter_free(it);
	block_reader_free(r);
	buf_fini(&plain);
}

static void print_finding(void *arg, const struct block_finding *f)
{
	(void)arg;
	printf("  %s at %llu: %s\n", f->object, (unsigned long long)f->offset, f->what);
}

static void check_sound(struct backend *be, const struct block_meta *m, uint64_t findings)
{
	struct block_check_result result;
	struct err err = ERR_INIT;

	if (block_check(be, m->tenant, m->id, NULL, findings ? NULL : print_finding, NULL, &result,
			&err) < 0)
		fail_msg("%s", err.msg);
	if (result.findings != findings)
		fail_msg("%s: %llu findings", m->id, (unsigned long long)result.findings);
	assert_int_equal(result.traces, m->objects);
}

static void every_golden_block_is_read_and_regenerated(void **state)
{
	const char *root = golden_root();
	char path[1100];
	struct golden g;
	unsigned blocks = 0, whole = 0;
	FILE *f = NULL;

	(void)state;
	snprintf(path, sizeof(path), "%s/MANIFEST.tsv", root);
	f = fopen(path, "r");
	assert_non_null(f);
	while (next_golden(f, &g)) {
		struct backend *be = memory_backend_new();
		struct block_meta m;

		snprintf(path, sizeof(path), "%s/%s", root, g.dir);
		load_block(be, path, &m);
		assert_string_equal(codec_name(m.encoding), g.encoding);
		assert_string_equal(m.data_encoding, g.data_encoding);
		walk_golden(be, &m, &g);
		if (memory_of(be)->n > 2) {
			find_all(be, &m);
			regenerate(be, &m);
			/* dataEncoding "foo" is a finding. */
			check_sound(be, &m, strcmp(g.data_encoding, "foo") == 0 ? 1 : 0);
			whole++;
		}
		backend_free(be);
		blocks++;
	}
	fclose(f);
	printf("%u golden blocks read, %u of them with index and blooms regenerated\n", blocks,
	       whole);
	assert_true(blocks >= 15 && whole >= 13);
}

/* The one golden block that the manifest does not list: data and meta of Tempo 2.0.1, with minID
 * and maxID. */
static void a_block_of_tempo_2_0_is_read(void **state)
{
	const char *root = golden_root();
	struct backend *be = memory_backend_new();
	struct page_object o = { NULL, { NULL, 0 } };
	struct block_reader *r = NULL;
	struct block_iter *it = NULL;
	struct block_meta m;
	char path[1024];
	unsigned n = 0;

	(void)state;
	snprintf(path, sizeof(path), "%s/compacted-2.0.1-meta-data", root);
	load_block(be, path, &m);
	assert_true(m.has_min_id && m.has_max_id);
	r = block_reader_new(be, &m, NULL, NULL);
	it = block_iter_new(r, BLOCK_ITER_DATA_ONLY);
	while (block_iter_next(it, &o, NULL) == 1)
		assert_memory_equal(o.id, n++ == 0 ? m.min_id : o.id, PAGE_ID);
	assert_int_equal(n, m.objects);
	block_iter_free(it);
	block_reader_free(r);
	backend_free(be);
}

static void legacy_formats_are_refused_by_name(void **state)
{
	static const char *const dirs[][2] = {
		{ "legacy-v0test/fake/00f5a116-639e-4880-bbe7-be9b0c828033", "\"v0\"" },
		{ "legacy-v1test/fake/b51766bd-a395-448b-9684-7a4fdbd053aa", "\"v1\"" },
	};
	const char *root = golden_root();

	(void)state;
	for (size_t i = 0; i < COUNT_OF(dirs); i++) {
		struct backend *be = memory_backend_new();
		struct err err = ERR_INIT;
		struct block_meta m;
		char path[1024];

		snprintf(path, sizeof(path), "%s/%s", root, dirs[i][0]);
		load_block(be, path, &m);
		assert_null(block_reader_new(be, &m, NULL, &err));
		assert_int_equal(err.kind, ERR_UNIMPLEMENTED);
		assert_non_null(strstr(err.msg, dirs[i][1]));
		backend_free(be);
	}
}

/* Tempo's uncompressed block, written again by us from its traces, comes out byte for byte. */
static void data_and_index_are_tempos(void **state)
{
	static const char *const names[] = { "data", "index" };
	const enum codec_id none = CODEC_NONE;
	const struct block_writer_options o = { .encoding = &none,
						.downsample_bytes = 1200,
						.index_page_size = 98,
						.bloom_shard_bytes = 20 };
	const char *root = golden_root();
	struct backend *be = memory_backend_new();
	char path[1024], a[BACKEND_KEY_MAX + 1], b[BACKEND_KEY_MAX + 1];
	struct block_meta m, ours;
	struct page_object each;

	(void)state;
	snprintf(path, sizeof(path),
		 "%s/generated-2.10.8/blocks/single-tenant/00000001-0000-4000-8000-000000000002",
		 root);
	load_block(be, path, &m);
	struct block_reader *r = block_reader_new(be, &m, NULL, NULL);
	struct block_iter *it = block_iter_new(r, BLOCK_ITER_CHECKED);
	struct block_writer *w = block_writer_open(be, "other", NULL, &o, NULL);
	while (block_iter_next(it, &each, NULL) == 1)
		assert_int_equal(block_writer_add(w, each.id, &each.data, 1, NULL), 0);
	assert_int_equal(block_writer_finish(w, &ours, NULL), 0);
	/* Not the blooms: Tempo was told to expect 50 ids. */
	for (size_t i = 0; i < COUNT_OF(names); i++) {
		block_key(a, m.tenant, m.id, names[i], NULL);
		block_key(b, ours.tenant, ours.id, names[i], NULL);
		assert_true(bytes_eq(buf_bytes(&memory_find(be, a)->data),
				     buf_bytes(&memory_find(be, b)->data)));
	}
	assert_int_equal(ours.records, m.records);
	assert_int_equal(ours.size, m.size);
	block_iter_free(it);
	block_reader_free(r);
	backend_free(be);
}

/* ---- our own blocks ---- */

/* Trace i of a made-up block: id, and object bytes that only it has (one unknown field of
 * TracesData). */
static void make_trace(uint32_t i, uint8_t id[16], struct buf *object)
{
	struct buf text = BUF_INIT, segment = BUF_INIT;
	uint8_t head[BLOCK_OBJECT_HEAD];
	struct rng rng;
	size_t n = 0;

	memset(id, 0, 16);
	store_be32(id, i * 3 + 1);
	rng_seed(&rng, i);
	store_be64(id + 8, rng_next(&rng));
	n = 20 + rng_below(&rng, 400);
	while (n-- > 0)
		buf_add_char(&text, (char)('a' + (rng_below(&rng, 8) + i) % 20));
	pb_put_bytes(&segment, 15, buf_bytes(&text));
	buf_reset(object);
	buf_add(object, head, block_object_head(head, 1700000000 + i, 1700000100 + i, segment.n));
	buf_add_bytes(object, buf_bytes(&segment));
	buf_fini(&text);
	buf_fini(&segment);
}

static void write_block(struct backend *be, enum codec_id codec, uint32_t n, struct block_meta *m)
{
	const struct block_writer_options o = { .encoding = &codec,
						.downsample_bytes = 1000,
						.index_page_size = 98,
						.bloom_shard_bytes = 20 };
	struct err err = ERR_INIT;
	struct block_writer *w = block_writer_open(be, "t", NULL, &o, &err);
	struct buf object = BUF_INIT;
	uint8_t id[16];

	assert_non_null(w);
	for (uint32_t i = 0; i < n; i++) {
		struct bytes pieces[4];

		make_trace(i, id, &object);
		/* In pieces, one of them empty. */
		pieces[0] = (struct bytes){ object.p, 3 };
		pieces[1] = BYTES_EMPTY;
		pieces[2] = (struct bytes){ object.p + 3, 17 };
		pieces[3] = (struct bytes){ object.p + 20, object.n - 20 };
		if (block_writer_add(w, id, pieces, 4, &err) < 0)
			fail_msg("%s", err.msg);
	}
	assert_int_equal(block_writer_objects(w), n);
	if (block_writer_finish(w, m, &err) < 0 || block_publish(be, m, &err) < 0)
		fail_msg("%s", err.msg);
	buf_fini(&object);
}

static void blocks_of_every_codec_come_back(void **state)
{
	(void)state;
	for (unsigned codec = 0; codec < CODEC_MAX; codec++) {
		struct backend *be = memory_backend_new();
		struct buf object = BUF_INIT;
		struct bytes got = BYTES_EMPTY;
		struct block_meta m, read;
		struct block_reader *r = NULL;
		struct err err = ERR_INIT;
		uint8_t id[16];

		write_block(be, (enum codec_id)codec, 60, &m);
		assert_int_equal(block_read_meta(be, "t", m.id, "meta.json", &read, &err), 0);
		assert_memory_equal(&m, &read, sizeof(m));
		assert_int_equal(m.start.s, 1700000000);
		assert_int_equal(m.end.s, 1700000159);
		check_sound(be, &read, 0);
		r = block_reader_new(be, &read, NULL, NULL);
		for (uint32_t i = 0; i < 60; i++) {
			make_trace(i, id, &object);
			if (block_reader_find(r, id, &got, &err) != 1)
				fail_msg("%s trace %u: %s", codec_name(m.encoding), i, err.msg);
			assert_true(bytes_eq(got, buf_bytes(&object)));
			id[7] = 1;
			assert_int_equal(block_reader_find(r, id, &got, &err), 0);
		}
		block_reader_free(r);
		/* Publishing again is fine; life ends in order. */
		assert_int_equal(block_publish(be, &m, &err), 0);
		assert_int_equal(block_mark_compacted(be, "t", m.id, &err), 0);
		assert_int_equal(block_mark_compacted(be, "t", m.id, &err), -1);
		check_sound(be, &read, 0);
		assert_int_equal(block_delete(be, "t", m.id, &err), 0);
		assert_int_equal(memory_of(be)->n, 0);
		backend_free(be);
		buf_fini(&object);
	}
}

static void a_lookup_costs_few_reads(void **state)
{
	struct backend *be = memory_backend_new();
	struct bytes got = BYTES_EMPTY;
	struct block_meta m;
	struct block_reader *r = NULL;
	const struct block_writer_options o = { .downsample_bytes = 1000 };
	struct block_writer *w = block_writer_open(be, "t", NULL, &o, NULL);
	struct buf object = BUF_INIT;
	uint8_t id[16];

	(void)state;
	for (uint32_t i = 0; i < 500; i++) {
		struct bytes piece;

		make_trace(i, id, &object);
		piece = buf_bytes(&object);
		assert_int_equal(block_writer_add(w, id, &piece, 1, NULL), 0);
	}
	assert_int_equal(block_writer_finish(w, &m, NULL), 0);
	r = block_reader_new(be, &m, NULL, NULL);
	memory_of(be)->reads = 0;
	assert_int_equal(block_reader_find(r, id, &got, NULL), 1);
	assert_int_equal(memory_of(be)->reads, 3); /* bloom, index, page */
	assert_int_equal(block_reader_find(r, id, &got, NULL), 1);
	assert_int_equal(memory_of(be)->reads, 5); /* the index page is kept */
	id[9] = 7;
	assert_int_equal(block_reader_find(r, id, &got, NULL), 0);
	assert_int_equal(memory_of(be)->reads, 6); /* the bloom says no */
	block_reader_free(r);
	backend_free(be);
	buf_fini(&object);
}

static void the_writer_refuses_what_nobody_could_read(void **state)
{
	const struct block_writer_options o = { .max_page_bytes = 1000 };
	struct backend *be = memory_backend_new();
	struct block_writer *w = block_writer_open(be, "t", NULL, &o, NULL);
	static const uint8_t zeros[1000];
	struct bytes piece = { zeros, 977 };
	struct err err = ERR_INIT;
	struct block_meta m;

	(void)state;
	assert_int_equal(block_writer_add(w, (const uint8_t[16]){ 1 }, &piece, 1, &err), -1);
	assert_int_equal(err.kind, ERR_TOO_LARGE);
	piece.n = 976;
	assert_int_equal(block_writer_add(w, (const uint8_t[16]){ 1 }, &piece, 1, &err), 0);
	assert_int_equal(block_writer_add(w, (const uint8_t[16]){ 1 }, &piece, 1, &err), -1);
	assert_int_equal(err.kind, ERR_INVALID);
	assert_int_equal(block_writer_add(w, (const uint8_t[16]){ 0, 9 }, &piece, 1, &err), -1);
	assert_int_equal(block_writer_add(w, (const uint8_t[16]){ 2 }, NULL, 0, &err), 0);
	assert_int_equal(block_writer_finish(w, &m, &err), 0);
	assert_int_equal(m.objects, 2);
	assert_int_equal(m.records, 2);
	backend_free(be);

	be = memory_backend_new();
	w = block_writer_open(be, "t", NULL, NULL, NULL);
	assert_int_equal(block_writer_finish(w, &m, &err), -1);
	assert_int_equal(err.kind, ERR_INVALID);
	assert_null(block_writer_open(be, "..", NULL, NULL, &err));
	assert_null(block_writer_open(be, "t", "a/b/../c", NULL, &err));
	assert_int_equal(memory_of(be)->n, 0);
	block_writer_abort(NULL);
	backend_free(be);
}

static void a_failing_store_leaves_nothing(void **state)
{
	(void)state;
	for (int allowed = 0;; allowed++) {
		struct backend *be = memory_backend_new();
		const struct block_writer_options o = { .downsample_bytes = 1000,
							.bloom_shard_bytes = 20 };
		struct buf object = BUF_INIT;
		struct err err = ERR_INIT;
		struct block_writer *w = NULL;
		struct block_meta m;
		uint8_t id[16];
		int ret = -1;

		memory_of(be)->fail_after = allowed;
		w = block_writer_open(be, "t", NULL, &o, &err);
		for (uint32_t i = 0; w != NULL && i < 20; i++) {
			struct bytes piece;

			make_trace(i, id, &object);
			piece = buf_bytes(&object);
			if (block_writer_add(w, id, &piece, 1, &err) < 0) {
				block_writer_abort(w);
				w = NULL;
			}
		}
		if (w != NULL)
			ret = block_writer_finish(w, &m, &err);
		if (ret < 0) {
			assert_int_equal(err.kind, ERR_UNAVAILABLE);
			assert_int_equal(memory_of(be)->n, 0);
		}
		backend_free(be);
		buf_fini(&object);
		if (ret == 0)
			break;
	}
}

/* ---- damage ---- */

enum mutation { FLIP, ZERO, TRUNCATE, GARBAGE, MUTATIONS };

/* Damage b; false when that changed nothing. */
static bool mutate(struct buf *b, struct rng *rng)
{
	size_t at = rng_below(rng, b->n), n = 1 + rng_below(rng, 20);
	bool changed = false;

	switch (rng_below(rng, MUTATIONS)) {
	case FLIP:
		b->p[at] ^= (uint8_t)(1u << rng_below(rng, 8));
		return true;
	case TRUNCATE:
		b->n = at;
		return true;
	case ZERO:
		for (size_t i = at; i < b->n && i < at + n; i++) {
			changed |= b->p[i] != 0;
			b->p[i] = 0;
		}
		return changed;
	default:
		for (size_t i = at; i < b->n && i < at + n; i++) {
			uint8_t v = (uint8_t)rng_next(rng);

			changed |= b->p[i] != v;
			b->p[i] = v;
		}
		return changed;
	}
}

struct tally {
	unsigned right, refused, absent, wrong;
};

/* Ask for every trace of a damaged block. */
static void ask_all(struct backend *be, const struct block_meta *m, uint32_t n, struct tally *t)
{
	struct block_reader *r = block_reader_new(be, m, NULL, NULL);
	struct buf object = BUF_INIT;
	struct bytes got = BYTES_EMPTY;
	uint8_t id[16];

	for (uint32_t i = 0; r != NULL && i < n; i++) {
		struct err err = ERR_INIT;
		int ret = 0;

		make_trace(i, id, &object);
		ret = block_reader_find(r, id, &got, &err);
		if (ret < 0) {
			assert_true(err.kind != ERR_NONE && err.msg[0] != '\0');
			t->refused++;
		} else if (ret == 0) {
			t->absent++;
		} else if (bytes_eq(got, buf_bytes(&object))) {
			t->right++;
		} else {
			t->wrong++;
		}
	}
	t->refused += r == NULL ? n : 0;
	block_reader_free(r);
	buf_fini(&object);
}

static void iterate(struct backend *be, const struct block_meta *m, enum block_iter_mode mode)
{
	struct block_reader *r = block_reader_new(be, m, NULL, NULL);
	struct block_iter *it = NULL;
	struct page_object o;

	if (r == NULL)
		return;
	it = block_iter_new(r, mode);
	while (block_iter_next(it, &o, NULL) == 1)
		;
	block_iter_next(it, &o, NULL);
	block_iter_free(it);
	block_reader_free(r);
}

/* One damaged object: ask, walk and check, then put it back. */
static void damage_once(struct backend *be, const struct block_meta *m, struct rng *rng,
			struct tally *sums, unsigned *unseen)
{
	struct memory_object *victim = &memory_of(be)->objects[rng_below(rng, memory_of(be)->n)];
	const char *name = strrchr(victim->key, '/') + 1;
	struct buf saved = BUF_INIT;
	struct block_meta read = *m;
	struct block_check_result result;
	struct tally t = { 0, 0, 0, 0 };
	bool checked = m->encoding != CODEC_NONE, is_meta = strcmp(name, "meta.json") == 0;

	buf_add_bytes(&saved, buf_bytes(&victim->data));
	if (mutate(&victim->data, rng)) {
		/* A reader sees the meta that parses, damaged or not. */
		if (is_meta && block_read_meta(be, m->tenant, m->id, "meta.json", &read, NULL) < 0)
			read = *m;
		ask_all(be, &read, 30, &t);
		iterate(be, &read, BLOCK_ITER_CHECKED);
		iterate(be, &read, BLOCK_ITER_DATA_ONLY);
		assert_int_equal(block_check(be, m->tenant, m->id, NULL, NULL, NULL, &result, NULL),
				 0);
		if (checked && t.wrong != 0)
			fail_msg("%s of %s: %u wrong traces", name, codec_name(m->encoding),
				 t.wrong);
		/* All but meta.json is checksummed: what is there must not be reported absent. */
		if (checked && t.absent != 0 && !is_meta)
			fail_msg("%s of %s: %u absent", name, codec_name(m->encoding), t.absent);
		if (checked && result.findings == 0 && t.right != 30)
			fail_msg("%s of %s: fsck sees nothing", name, codec_name(m->encoding));
		*unseen += result.findings == 0;
		sums->right += t.right;
		sums->refused += t.refused;
		sums->absent += t.absent;
		sums->wrong += t.wrong;
	}
	buf_reset(&victim->data);
	buf_add_bytes(&victim->data, buf_bytes(&saved));
	buf_fini(&saved);
}

static void damage_is_seen_and_never_answered(void **state)
{
	(void)state;
	for (unsigned codec = 0; codec < CODEC_MAX; codec++) {
		struct backend *be = memory_backend_new();
		struct tally sums = { 0, 0, 0, 0 };
		struct block_meta m;
		struct rng rng;
		unsigned unseen = 0;

		write_block(be, (enum codec_id)codec, 30, &m);
		rng_seed(&rng, 1000 + codec);
		for (int i = 0; i < 600; i++)
			damage_once(be, &m, &rng, &sums, &unseen);
		check_sound(be, &m, 0);
		printf("%-9s lookups: %u right, %u refused, %u absent, %u wrong; "
		       "fsck passed %u of 600\n",
		       codec_name(m.encoding), sums.right, sums.refused, sums.absent, sums.wrong,
		       unseen);
		backend_free(be);
	}
}

static void missing_objects_are_errors_not_absence(void **state)
{
	static const char *const names[] = { "data", "index", "bloom-0", "bloom-1" };

	(void)state;
	for (size_t i = 0; i < COUNT_OF(names); i++) {
		struct backend *be = memory_backend_new();
		struct tally t = { 0, 0, 0, 0 };
		char key[BACKEND_KEY_MAX + 1];
		struct block_check_result result;
		struct block_meta m;

		write_block(be, CODEC_ZSTD, 30, &m);
		block_key(key, "t", m.id, names[i], NULL);
		assert_int_equal(backend_delete(be, key, NULL), 0);
		ask_all(be, &m, 30, &t);
		assert_int_equal(t.absent, 0);
		assert_true(t.refused > 0);
		block_check(be, "t", m.id, NULL, NULL, NULL, &result, NULL);
		assert_true(result.findings > 0);
		backend_free(be);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_golden_block_is_read_and_regenerated),
		cmocka_unit_test(a_block_of_tempo_2_0_is_read),
		cmocka_unit_test(legacy_formats_are_refused_by_name),
		cmocka_unit_test(data_and_index_are_tempos),
		cmocka_unit_test(blocks_of_every_codec_come_back),
		cmocka_unit_test(a_lookup_costs_few_reads),
		cmocka_unit_test(the_writer_refuses_what_nobody_could_read),
		cmocka_unit_test(a_failing_store_leaves_nothing),
		cmocka_unit_test(damage_is_seen_and_never_answered),
		cmocka_unit_test(missing_objects_are_errors_not_absence),
	};

	return cmocka_run_group_tests_name("block", tests, NULL, NULL);
}
