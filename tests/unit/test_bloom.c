/* SPDX-License-Identifier: Apache-2.0
 *
 * test_bloom.c - sizes, shards and bits against values Tempo gives.
 */
#include "base/rng.h"
#include "base/str.h"
#include "blocks/bloom.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

static const struct {
	uint64_t n;
	double fp;
	uint32_t shard_bytes, shards, k;
} shapes[] = {
	{ 1, 0.01, 102400, 1, 7 },           { 85462, 0.01, 102400, 1, 7 },
	{ 85466, 0.01, 102400, 1, 7 },       { 85467, 0.01, 102400, 2, 7 },
	{ 100000, 0.01, 102400, 2, 7 },      { 1000000, 0.01, 102400, 12, 7 },
	{ 6000000, 0.01, 102400, 71, 7 },    { 50, 0.01, 20, 3, 7 },
	{ 621, 0.05, 256000, 1, 5 },         { 0, 0.01, 102400, 1, 7 },
	{ 1000000000, 0.01, 1024, 1000, 7 },
};

static void sizes_are_tempos(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT_OF(shapes); i++) {
		struct bloom_shape s =
			bloom_shape_for(shapes[i].n, shapes[i].fp, shapes[i].shard_bytes);

		if (s.shards != shapes[i].shards || s.k != shapes[i].k ||
		    s.m != 8 * (uint64_t)shapes[i].shard_bytes)
			fail_msg("n=%llu: %u shards, k=%u", (unsigned long long)shapes[i].n,
				 s.shards, s.k);
	}
}

static const struct {
	uint8_t id[16];
	uint32_t bits[7];
} vectors[] = {
	{ { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1 },
	  { 557604, 548096, 97154, 260469, 806484, 479164, 28222 } },
	{ { 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1 },
	  { 400405, 526855, 664509, 362961, 489021, 661847, 373517 } },
	{ { 0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef, 0x01, 0x23, 0x45, 0x67, 0x89, 0xab,
	    0xcd, 0xef },
	  { 605652, 293010, 255394, 121153, 274076, 411694, 767294 } },
};

static void bits_are_tempos(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT_OF(vectors); i++) {
		struct bloom *b = bloom_new(bloom_shape_for(1, 0.01, 102400));
		struct bytes s = bloom_shard_bytes(b, 0);
		unsigned set = 0;

		bloom_add(b, vectors[i].id);
		for (size_t at = BLOOM_HEAD; at < s.n; at++)
			set += (unsigned)__builtin_popcount(s.p[at]);
		assert_int_equal(set, 7);
		for (size_t k = 0; k < 7; k++) {
			uint32_t bit = vectors[i].bits[k];
			uint64_t word = load_be64(s.p + BLOOM_HEAD + bit / 64 * 8);

			assert_true(word >> bit % 64 & 1);
		}
		assert_int_equal(s.n, 102424);
		bloom_free(b);
	}
}

static void tiny_shards_byte_for_byte(void **state)
{
	static const char *const want[] = {
		"00000000000000a0"
		"0000000000000007"
		"00000000000000a0"
		"80c00800cc800200"
		"0004c0058c030400"
		"0000000060000402",
		"00000000000000a0"
		"0000000000000007"
		"00000000000000a0"
		"2000000020000000"
		"0000000000a22000"
		"0000000000000080",
		"00000000000000a0"
		"0000000000000007"
		"00000000000000a0"
		"0112041001042015"
		"0024450140f05b01"
		"0000000000200040",
	};
	struct bloom *b = bloom_new(bloom_shape_for(50, 0.01, 20));

	(void)state;
	for (uint8_t y = 1; y <= 10; y++)
		bloom_add(b, (const uint8_t[16]){ [0] = (uint8_t)(16 * y), [15] = y });
	for (uint32_t i = 0; i < 3; i++) {
		char hex[97];

		str_hex(bloom_shard_bytes(b, i).p, 48, hex);
		assert_string_equal(hex, want[i]);
	}
	for (uint8_t y = 1; y <= 10; y++) {
		const uint8_t id[16] = { [0] = (uint8_t)(16 * y), [15] = y };

		assert_int_equal(bloom_test(bloom_shard_bytes(b, bloom_shard_of(id, 3)), id, NULL),
				 1);
	}
	bloom_free(b);
}

static void false_positives_are_as_rare_as_asked(void **state)
{
	struct bloom *b = bloom_new(bloom_shape_for(85462, 0.01, 102400));
	unsigned wrong = 0;

	(void)state;
	for (uint32_t i = 0; i < 85462; i++) {
		uint8_t id[16] = { 1 };

		store_be32(id + 12, i);
		bloom_add(b, id);
	}
	for (uint32_t i = 0; i < 100000; i++) {
		uint8_t id[16] = { 2 };

		store_be32(id + 12, i);
		wrong += (unsigned)bloom_test(bloom_shard_bytes(b, 0), id, NULL);
	}
	printf("%u of 100000 false positives\n", wrong);
	assert_in_range(wrong, 500, 1500);
	bloom_free(b);
}

static void random_id(struct rng *rng, uint8_t id[16])
{
	store_be64(id, rng_next(rng));
	store_be64(id + 8, rng_next(rng));
}

/* Whatever the fold, an id that is in is never missed, and few others pass. */
static void folded_filters_miss_nothing(void **state)
{
	static const struct {
		uint32_t n, shard_bytes;
		double fp;
		size_t at_most; /* bytes when folded */
	} cases[] = {
		{ 1, 102400, 0.01, 256 },        { 100, 102400, 0.01, 1700 },
		{ 1000, 102400, 0.01, 13000 },   { 20000, 102400, 0.01, 102416 },
		{ 85462, 102400, 0.01, 102416 }, { 10, 20, 0.01, 40 },
		{ 1000, 256000, 0.05, 16016 },   { 5, 1024, 0.5, 1040 },
	};
	enum { OTHERS = 100000 };

	(void)state;
	for (size_t c = 0; c < COUNT_OF(cases); c++) {
		struct bloom_shape shape =
			bloom_shape_for(cases[c].n, cases[c].fp, cases[c].shard_bytes);
		struct bloom *b;
		struct bytes shard;
		struct buf folded = BUF_INIT;
		struct rng rng;
		uint8_t id[16];
		size_t more = 0;

		shape.shards = 1;
		b = bloom_new(shape);
		rng_seed(&rng, c);
		for (uint32_t i = 0; i < cases[c].n; i++) {
			random_id(&rng, id);
			bloom_add(b, id);
		}
		shard = bloom_shard_bytes(b, 0);
		bloom_fold(shard, &folded);
		if (folded.n > cases[c].at_most)
			fail_msg("case %zu: %zu bytes", c, folded.n);
		rng_seed(&rng, c);
		for (uint32_t i = 0; i < cases[c].n; i++) {
			random_id(&rng, id);
			if (!bloom_folded_test(buf_bytes(&folded), id))
				fail_msg("case %zu: id %u is missed", c, i);
		}
		for (size_t i = 0; i < OTHERS; i++) {
			int whole;

			random_id(&rng, id);
			whole = bloom_test(shard, id, NULL);
			if (whole == 1 && !bloom_folded_test(buf_bytes(&folded), id))
				fail_msg("case %zu: the whole filter says maybe", c);
			more += whole == 0 && bloom_folded_test(buf_bytes(&folded), id);
		}
		assert_in_range(more, 0, OTHERS * 3 / 10000);
		buf_fini(&folded);
		bloom_free(b);
	}
}

static void damaged_shards_are_refused(void **state)
{
	uint8_t ok[32] = { 0 }, s[33];
	struct err err = ERR_INIT;
	const uint8_t id[16] = { 0 };

	(void)state;
	ok[7] = ok[23] = 64;
	ok[15] = 7;
	assert_int_equal(bloom_test((struct bytes){ ok, 32 }, id, &err), 0);
	for (size_t n = 0; n < 32; n++)
		assert_int_equal(bloom_test((struct bytes){ ok, n }, id, &err), -1);
	for (size_t i = 0; i < 24; i++) {
		memcpy(s, ok, 32);
		s[i] ^= 0x80;
		assert_int_equal(bloom_test((struct bytes){ s, 32 }, id, &err), -1);
		assert_int_equal(err.kind, ERR_CORRUPT);
	}
	memset(s, 0, 32);
	assert_int_equal(bloom_test((struct bytes){ s, 32 }, id, &err), -1);
	memset(s, 0xff, 32);
	assert_int_equal(bloom_test((struct bytes){ s, 32 }, id, &err), -1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sizes_are_tempos),
		cmocka_unit_test(bits_are_tempos),
		cmocka_unit_test(tiny_shards_byte_for_byte),
		cmocka_unit_test(false_positives_are_as_rare_as_asked),
		cmocka_unit_test(folded_filters_miss_nothing),
		cmocka_unit_test(damaged_shards_are_refused),
	};

	return cmocka_run_group_tests_name("bloom", tests, NULL, NULL);
}
