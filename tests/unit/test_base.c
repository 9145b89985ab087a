/* SPDX-License-Identifier: Apache-2.0
 *
 * test_base.c - arena, buf, map, hashes, text.
 */
#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/hash.h"
#include "base/map.h"
#include "base/mem.h"
#include "base/rng.h"
#include "base/str.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

static void hashes_give_published_values(void **state)
{
	uint64_t h[2];
	uint8_t id[16] = { 0 };

	(void)state;
	/* Kafka's UtilsTest.testMurmur2 */
	assert_int_equal((int32_t)hash_murmur2("21", 2), -973932308);
	assert_int_equal((int32_t)hash_murmur2("foobar", 6), -790332482);
	assert_int_equal((int32_t)hash_murmur2("a-little-bit-long-string", 24), -985981536);
	assert_int_equal((int32_t)hash_murmur2("a-little-bit-longer-string", 26), -1486304829);
	assert_int_equal(hash_crc32c(0, "123456789", 9), 0xe3069283u);
	assert_int_equal(hash_fnv1a_32("foobar", 6), 0xbf9cf968u);
	assert_int_equal(hash_fnv1_32("foobar", 6), 0x31f0b262u);
	assert_int_equal(hash_fnv1_64("foobar", 6), UINT64_C(0x340d8765a4dda9c2));
	assert_int_equal(hash_xxh64("", 0, 0), UINT64_C(0xef46db3751d8e999));
	assert_int_equal(hash_xxh64("a", 1, 0), UINT64_C(0xd24ec4f1a98c6e5b));
	/* tempo-v2-block.md 5.4 */
	id[15] = 1;
	hash_murmur3_128(id, 16, 0, h);
	assert_int_equal(h[0], UINT64_C(0x23eff26357c48224));
	assert_int_equal(h[1], UINT64_C(0x01897af0aa0ca051));
	assert_int_equal(hash_fnv1_32(id, 16), 0x69691904u);
}

static void map_keeps_what_is_set_and_forgets_what_is_removed(void **state)
{
	struct map m = MAP_INIT;
	struct rng rng;
	static char mark[1000];
	size_t n = 0;

	(void)state;
	rng_seed(&rng, 7);
	for (int step = 0; step < 20000; step++) {
		uint64_t k = rng_below(&rng, 1000);
		struct bytes key = { (uint8_t *)&k, 8 };
		char *had = map_find(&m, key);

		assert_true((had != NULL) == (mark[k] != 0));
		if (rng_below(&rng, 2)) {
			assert_ptr_equal(map_set(&m, key, &mark[k]), had);
			n += !mark[k];
			mark[k] = 1;
		} else {
			assert_ptr_equal(map_remove(&m, key), had);
			n -= mark[k];
			mark[k] = 0;
		}
		assert_int_equal(m.n, n);
	}
	map_fini(&m);
}

static void buf_refuses_what_passes_its_cap(void **state)
{
	struct buf b = BUF_INIT_MAX(10);

	(void)state;
	assert_int_equal(buf_add(&b, "12345678", 8), 0);
	assert_int_equal(buf_add(&b, "abc", 3), -1);
	assert_true(b.overflow);
	assert_int_equal(b.n, 8);
	buf_fini(&b);
}

static void arena_gives_aligned_memory_and_keeps_one_chunk(void **state)
{
	struct arena a = ARENA_INIT;

	(void)state;
	for (int i = 0; i < 1000; i++) {
		uint8_t *p = arena_alloc(&a, (size_t)i);

		assert_int_equal((uintptr_t)p % 16, 0);
		memset(p, 0xff, (size_t)i);
	}
	arena_reset(&a);
	assert_true(a.bytes > 0 && a.bytes <= 262144);
	assert_string_equal(arena_printf(&a, "%d-%s", 5, "x"), "5-x");
	arena_fini(&a);
}

static const struct {
	const char *text;
	bool ok;
} utf8_cases[] = {
	{ "plain ascii, longer than sixteen bytes", true },
	{ "gr\xc3\xbc\xc3\x9f", true },
	{ "\xe2\x82\xac", true },
	{ "\xf0\x9f\x98\x80", true },
	{ "\xc0\x80", false },
	{ "\xed\xa0\x80", false },
	{ "\xf4\x90\x80\x80", false },
	{ "\xe2\x82", false },
	{ "0123456789abcdef\xff", false },
	{ "\x80", false },
	{ "", true },
};

static void utf8_is_told_from_other_bytes(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT_OF(utf8_cases); i++)
		if (str_is_utf8(bytes_str(utf8_cases[i].text)) != utf8_cases[i].ok)
			fail_msg("case %zu", i);
}

static void text_numbers_and_encodings(void **state)
{
	char text[16];
	uint8_t raw[16];
	int64_t i;
	uint64_t u;

	(void)state;
	assert_int_equal(str_to_i64(BYTES_LIT("-9223372036854775808"), &i), 0);
	assert_int_equal(i, INT64_MIN);
	assert_int_equal(str_to_i64(BYTES_LIT("9223372036854775808"), &i), -1);
	assert_int_equal(str_to_u64(BYTES_LIT("18446744073709551615"), &u), 0);
	assert_int_equal(str_to_u64(BYTES_LIT("18446744073709551616"), &u), -1);
	assert_int_equal(str_to_u64(BYTES_LIT(""), &u), -1);
	assert_int_equal(str_unhex(BYTES_LIT("0aFf"), raw, 2), 0);
	assert_int_equal(raw[1], 0xff);
	assert_int_equal(str_unhex(BYTES_LIT("0aF"), raw, 2), -1);
	for (size_t n = 0; n < 5; n++) {
		str_base64((const uint8_t *)"abcde", n, text);
		assert_int_equal(str_unbase64(bytes_str(text), raw), n);
		assert_memory_equal(raw, "abcde", n);
	}
	assert_int_equal(str_unbase64(BYTES_LIT("a"), raw), -1);
	assert_int_equal(str_unbase64(BYTES_LIT("a*=="), raw), -1);
	assert_int_equal(str_distance("endpont", "endpoint"), 1);
}

static void errors_carry_context_and_are_cut_not_overrun(void **state)
{
	struct err e = ERR_INIT;

	(void)state;
	errno = ENOENT;
	assert_int_equal(err_errno(&e, "open %s", "x"), -1);
	assert_int_equal(e.kind, ERR_NOT_FOUND);
	err_wrap(&e, "block %d", 5);
	assert_string_equal(e.msg, "block 5: open x: No such file or directory");
	for (int i = 0; i < 100; i++)
		err_wrap(&e, "again");
	assert_int_equal(strlen(e.msg), sizeof(e.msg) - 1);
}

/* Bit by bit, as the definition says. */
static uint32_t crc32c_by_bit(const uint8_t *p, size_t n)
{
	uint32_t c = ~UINT32_C(0);

	for (size_t i = 0; i < n; i++) {
		c ^= p[i];
		for (int k = 0; k < 8; k++)
			c = c & 1 ? c >> 1 ^ 0x82f63b78u : c >> 1;
	}
	return ~c;
}

/* Around the sizes at which it changes its ways, in one piece and in two. */
static void crc32c_of_any_length(void **state)
{
	static const size_t sizes[] = { 0,    1,    7,    8,    1023, 1024, 3071, 3072,
					3073, 3080, 6143, 6144, 6151, 9999, 20000 };
	uint8_t *p = xmalloc(20000);

	(void)state;
	for (size_t i = 0; i < 20000; i++)
		p[i] = (uint8_t)(i * 131 >> 3 ^ i);
	for (size_t i = 0; i < COUNT_OF(sizes); i++) {
		uint32_t want = crc32c_by_bit(p, sizes[i]), half;

		if (hash_crc32c(0, p, sizes[i]) != want)
			fail_msg("%zu bytes", sizes[i]);
		half = hash_crc32c(0, p, sizes[i] / 3);
		if (hash_crc32c(half, p + sizes[i] / 3, sizes[i] - sizes[i] / 3) != want)
			fail_msg("%zu bytes in two pieces", sizes[i]);
	}
	free(p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(hashes_give_published_values),
		cmocka_unit_test(map_keeps_what_is_set_and_forgets_what_is_removed),
		cmocka_unit_test(buf_refuses_what_passes_its_cap),
		cmocka_unit_test(arena_gives_aligned_memory_and_keeps_one_chunk),
		cmocka_unit_test(utf8_is_told_from_other_bytes),
		cmocka_unit_test(text_numbers_and_encodings),
		cmocka_unit_test(errors_carry_context_and_are_cut_not_overrun),
		cmocka_unit_test(crc32c_of_any_length),
	};

	return cmocka_run_group_tests_name("base", tests, NULL, NULL);
}
