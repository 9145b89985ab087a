/* SPDX-License-Identifier: Apache-2.0
 *
 * fuzz_block.c - everything a block is read with. The first byte chooses:
 *
 *   c+id (0..8)  a codec stream           'm' meta.json      'i' an index page
 *   'o'          the body of a data page  'b' a bloom shard
 *   'B'          a whole block: [name: d i 0 1 m][u16 LE length][bytes] ...
 *
 * What is accepted must survive being written and read again.
 */
#include "blocks/block.h"
#include "blocks/block_check.h"
#include "blocks/block_iter.h"
#include "blocks/block_object.h"
#include "blocks/bloom.h"
#include "tests/memory_backend.h"

enum { MAX = 1024 * 1024 };

#define TENANT "t"
#define ID "00000000-0000-4000-8000-000000000001"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void fuzz_codec(enum codec_id id, struct bytes in)
{
	struct codec *c = codec_new(id, 0);
	struct buf plain = BUF_INIT, packed = BUF_INIT, again = BUF_INIT;

	if (codec_decompress(c, in, MAX, &plain, NULL) == 0) {
		assert(plain.n <= MAX);
		assert(codec_compress(c, buf_bytes(&plain), &packed, NULL) == 0);
		assert(codec_decompress(c, buf_bytes(&packed), MAX, &again, NULL) == 0);
		assert(bytes_eq(buf_bytes(&plain), buf_bytes(&again)));
	}
	buf_reset(&packed);
	buf_reset(&again);
	assert(codec_compress(c, in, &packed, NULL) == 0);
	assert(codec_decompress(c, buf_bytes(&packed), in.n, &again, NULL) == 0);
	assert(bytes_eq(in, buf_bytes(&again)));
	codec_free(c);
	buf_fini(&plain);
	buf_fini(&packed);
	buf_fini(&again);
}

static void fuzz_meta(struct bytes in)
{
	struct buf a = BUF_INIT, b = BUF_INIT;
	struct json_writer wa = JSON_WRITER(&a), wb = JSON_WRITER(&b);
	struct block_meta m;

	if (block_meta_parse(in, &m, NULL) == 0) {
		block_meta_encode(&m, &wa);
		/* A year past 9999 can come of a zone; Go would not read that either. */
		if (m.start.s > -62167219200 && m.start.s < 253402300800 &&
		    m.end.s > -62167219200 && m.end.s < 253402300800 &&
		    m.ingested_at.s > -62167219200 && m.ingested_at.s < 253402300800 &&
		    m.compacted_at.s > -62167219200 && m.compacted_at.s < 253402300800) {
			assert(block_meta_parse(buf_bytes(&a), &m, NULL) == 0);
			block_meta_encode(&m, &wb);
			assert(bytes_eq(buf_bytes(&a), buf_bytes(&b)));
		}
	}
	buf_fini(&a);
	buf_fini(&b);
}

static void fuzz_index(struct bytes in)
{
	struct block_index_record r;
	uint8_t id[PAGE_ID] = { 0 };

	if (in.n < BLOCK_INDEX_PAGE_MIN)
		return;
	for (uint32_t n = 0; n <= block_index_per_page((uint32_t)in.n); n++) {
		if (block_index_page_check(in, (uint32_t)in.n, n, NULL) < 0)
			continue;
		memcpy(id, in.p + in.n - PAGE_ID, PAGE_ID);
		if (block_index_page_search(in, n, id, &r))
			assert(memcmp(r.id, id, PAGE_ID) >= 0);
	}
}

static void fuzz_objects(struct bytes in)
{
	static const uint8_t id[PAGE_ID] = { 1 };
	struct page_object o;
	struct block_object object;
	struct bytes segment, body = in;

	while (page_object_next(&body, &o, NULL) == 1)
		if (block_object_parse(o.data, "v2", &object, NULL) == 0)
			while (block_object_segment_next(&object.segments, &segment, NULL) == 1)
				assert(segment.n <= o.data.n);
	if (page_find(in, id, NULL, &o, NULL) == 1)
		assert(memcmp(o.id, id, PAGE_ID) == 0);
}

static const char *name_of(uint8_t c)
{
	return c == 'd'   ? "data"
	       : c == 'i' ? "index"
	       : c == '0' ? "bloom-0"
	       : c == '1' ? "bloom-1"
			  : "meta.json";
}

/* With a cache, with what it kept, and without: the same answer. */
static void ask_three_ways(struct block_reader *cached, struct block_reader *plain,
			   const uint8_t id[PAGE_ID])
{
	struct bytes first = BYTES_EMPTY, again = BYTES_EMPTY, own = BYTES_EMPTY;
	int ret = block_reader_find(plain, id, &own, NULL);

	assert(block_reader_find(cached, id, &first, NULL) == ret);
	assert(ret != 1 || bytes_eq(first, own));
	assert(block_reader_find(cached, id, &again, NULL) == ret);
	assert(ret != 1 || bytes_eq(again, own));
}

static void read_block(struct backend *be, struct block_meta *m)
{
	struct budget budget = BUDGET_INIT(64 * MAX);
	struct block_cache *cache = block_cache_new(&budget, 0);
	const struct block_reader_options o = { .max_page_bytes = MAX, .read_ahead_bytes = 64 };
	const struct block_reader_options with_cache = {
		.max_page_bytes = MAX, .cache = cache, .number = 1, .budget = &budget
	};
	struct block_reader *r = block_reader_new(be, m, &o, NULL);
	struct block_reader *plain = block_reader_new(be, m, &o, NULL);
	struct block_reader *cached = block_reader_new(be, m, &with_cache, NULL);
	struct page_object each;

	for (int mode = 0; r != NULL && mode < 2; mode++) {
		struct block_iter *it = block_iter_new(r, (enum block_iter_mode)mode);

		for (int n = 0; n < 100 && block_iter_next(it, &each, NULL) == 1; n++)
			ask_three_ways(cached, plain, each.id);
		block_iter_free(it);
	}
	block_reader_free(r);
	block_reader_free(plain);
	block_reader_free(cached);
	block_cache_free(cache);
	assert(atomic_load(&budget.used) == 0);
}

static void fuzz_block(struct bytes in)
{
	const struct block_reader_options o = { .max_page_bytes = MAX };
	struct backend *be = memory_backend_new();
	struct block_check_result result;
	struct block_meta m;

	while (in.n >= 3) {
		size_t n = MIN(load_le16(in.p + 1), in.n - 3);
		char key[BACKEND_KEY_MAX + 1];

		block_key(key, TENANT, ID, name_of(in.p[0]), NULL);
		backend_put(be, key, (struct bytes){ in.p + 3, n }, BACKEND_REPLACE, NULL);
		in.p += 3 + n;
		in.n -= 3 + n;
	}
	assert(block_check(be, TENANT, ID, &o, NULL, NULL, &result, NULL) == 0);
	if (block_read_meta(be, TENANT, ID, "meta.json", &m, NULL) == 0)
		read_block(be, &m);
	backend_free(be);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const uint8_t id[PAGE_ID] = { 1, 2, 3 };
	struct bytes in = { data + 1, size - 1 };

	if (size == 0)
		return 0;
	switch (data[0]) {
	case 'm':
		fuzz_meta(in);
		break;
	case 'i':
		fuzz_index(in);
		break;
	case 'o':
		fuzz_objects(in);
		break;
	case 'b':
		bloom_test(in, id, NULL);
		break;
	case 'B':
		fuzz_block(in);
		break;
	default:
		fuzz_codec((enum codec_id)(data[0] % CODEC_MAX), in);
	}
	return 0;
}
