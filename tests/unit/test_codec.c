/* SPDX-License-Identifier: Apache-2.0
 *
 * test_codec.c - page compression: round trips, limits, damage, S2 blocks by hand.
 */
#include "base/mem.h"
#include "base/rng.h"
#include "blocks/codec.h"
#include "blocks/snappy_frames.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

enum content { ZEROS, NOISE, TEXT };

static const struct {
	enum content content;
	size_t n;
} inputs[] = {
	{ TEXT, 1 },      { TEXT, 100 },    { NOISE, 100 },     { TEXT, 65536 },
	{ NOISE, 65537 }, { TEXT, 300000 }, { ZEROS, 5000000 }, { NOISE, 1500000 },
};

static void make_input(struct buf *b, enum content content, size_t n)
{
	struct rng rng;

	buf_reset(b);
	rng_seed(&rng, n + content);
	while (b->n < n) {
		if (content == ZEROS)
			buf_add_char(b, 0);
		else if (content == NOISE)
			buf_add_char(b, (char)rng_next(&rng));
		else
			buf_printf(b, "service-%u span %u;", (unsigned)rng_below(&rng, 9),
				   (unsigned)rng_below(&rng, 100));
	}
	b->n = n;
}

static void every_codec_gives_back_what_it_took(void **state)
{
	(void)state;
	for (unsigned id = 0; id < CODEC_MAX; id++) {
		struct codec *c = codec_new((enum codec_id)id, 0);
		struct buf in = BUF_INIT, packed = BUF_INIT, out = BUF_INIT;
		struct err err = ERR_INIT;

		for (size_t i = 0; i < COUNT_OF(inputs); i++) {
			make_input(&in, inputs[i].content, inputs[i].n);
			buf_reset(&packed);
			buf_reset(&out);
			buf_add_str(&packed, "head");
			buf_add_str(&out, "base");
			assert_int_equal(codec_compress(c, buf_bytes(&in), &packed, &err), 0);
			struct bytes stream = { packed.p + 4, packed.n - 4 };
			if (codec_decompress(c, stream, in.n, &out, &err) < 0)
				fail_msg("%s input %zu: %s", codec_name(codec_id(c)), i, err.msg);
			assert_int_equal(out.n, in.n + 4);
			assert_memory_equal(out.p + 4, in.p, in.n);
			/* One byte less is too little. */
			buf_reset(&out);
			assert_int_equal(codec_decompress(c, stream, in.n - 1, &out, &err), -1);
			if (err.kind != ERR_TOO_LARGE)
				fail_msg("%s input %zu: %s", codec_name(codec_id(c)), i, err.msg);
		}
		codec_free(c);
		buf_fini(&in);
		buf_fini(&packed);
		buf_fini(&out);
	}
}

static void streams_begin_as_documented(void **state)
{
	static const struct {
		enum codec_id id;
		const char *head;
		size_t n;
	} heads[] = {
		{ CODEC_NONE, "service", 7 },
		{ CODEC_GZIP, "\x1f\x8b\x08\x00", 4 },
		{ CODEC_LZ4_64K, "\x04\x22\x4d\x18\x64\x40", 6 },
		{ CODEC_LZ4_256K, "\x04\x22\x4d\x18\x64\x50", 6 },
		{ CODEC_LZ4_1M, "\x04\x22\x4d\x18\x64\x60", 6 },
		{ CODEC_LZ4, "\x04\x22\x4d\x18\x64\x70", 6 },
		{ CODEC_SNAPPY, "\xff\x06\x00\x00sNaPpY\x00", 11 },
		{ CODEC_ZSTD, "\x28\xb5\x2f\xfd\x64", 5 },
		{ CODEC_S2, "\xff\x06\x00\x00sNaPpY\x00", 11 },
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(heads); i++) {
		struct codec *c = codec_new(heads[i].id, 0);
		struct buf in = BUF_INIT, packed = BUF_INIT;

		make_input(&in, TEXT, 1000);
		assert_int_equal(codec_compress(c, buf_bytes(&in), &packed, NULL), 0);
		assert_memory_equal(packed.p, heads[i].head, heads[i].n);
		codec_free(c);
		buf_fini(&in);
		buf_fini(&packed);
	}
}

static void cut_short_is_damage(void **state)
{
	(void)state;
	for (unsigned id = CODEC_GZIP; id < CODEC_MAX; id++) {
		struct codec *c = codec_new((enum codec_id)id, 0);
		struct buf in = BUF_INIT, packed = BUF_INIT, out = BUF_INIT;
		struct err err = ERR_INIT;

		make_input(&in, TEXT, 70000);
		assert_int_equal(codec_compress(c, buf_bytes(&in), &packed, NULL), 0);
		for (size_t n = 0; n < packed.n; n += n < 200 || packed.n - n < 200 ? 1 : 97) {
			buf_reset(&out);
			int ret = codec_decompress(c, (struct bytes){ packed.p, n }, 100000, &out,
						   &err);
			/* Whole chunks are whole Snappy streams: only the content is short. */
			if ((id == CODEC_SNAPPY || id == CODEC_S2) && ret == 0)
				assert_true(out.n == 0 || out.n == 65536);
			else if (ret == 0)
				fail_msg("%s: %zu of %zu bytes pass", codec_name(id), n, packed.n);
			else
				assert_int_equal(err.kind, ERR_CORRUPT);
		}
		codec_free(c);
		buf_fini(&in);
		buf_fini(&packed);
		buf_fini(&out);
	}
}

static void flipped_bits_never_pass_as_other_content(void **state)
{
	unsigned caught = 0, same = 0;
	struct rng rng;

	(void)state;
	rng_seed(&rng, 42);
	for (unsigned id = CODEC_GZIP; id < CODEC_MAX; id++) {
		struct codec *c = codec_new((enum codec_id)id, 0);
		struct buf in = BUF_INIT, packed = BUF_INIT, out = BUF_INIT;

		make_input(&in, TEXT, 3000);
		assert_int_equal(codec_compress(c, buf_bytes(&in), &packed, NULL), 0);
		for (size_t i = 0; i < 8 * packed.n; i++) {
			uint8_t bit = (uint8_t)(1u << i % 8);

			packed.p[i / 8] ^= bit;
			buf_reset(&out);
			if (codec_decompress(c, buf_bytes(&packed), 65536, &out, NULL) < 0)
				caught++;
			else if (bytes_eq(buf_bytes(&out), buf_bytes(&in)))
				same++;
			else if (out.n != 0) /* a chunk that became skippable leaves nothing */
				fail_msg("%s: bit %zu of byte %zu", codec_name(id), i % 8, i / 8);
			packed.p[i / 8] ^= bit;
		}
		codec_free(c);
		buf_fini(&in);
		buf_fini(&packed);
		buf_fini(&out);
	}
	printf("flips: %u caught, %u without effect\n", caught, same);
	assert_true(caught > 50 * same);
}

static void several_members_are_one_page(void **state)
{
	static const enum codec_id ids[] = { CODEC_GZIP, CODEC_LZ4, CODEC_SNAPPY, CODEC_ZSTD };

	(void)state;
	for (size_t i = 0; i < COUNT_OF(ids); i++) {
		struct codec *c = codec_new(ids[i], 0);
		struct buf packed = BUF_INIT, out = BUF_INIT;
		struct err err = ERR_INIT;

		assert_int_equal(codec_compress(c, BYTES_LIT("abc"), &packed, NULL), 0);
		assert_int_equal(codec_compress(c, BYTES_LIT("defg"), &packed, NULL), 0);
		if (codec_decompress(c, buf_bytes(&packed), 7, &out, &err) < 0)
			fail_msg("%s: %s", codec_name(ids[i]), err.msg);
		assert_true(bytes_eq_str(buf_bytes(&out), "abcdefg"));
		codec_free(c);
		buf_fini(&packed);
		buf_fini(&out);
	}
}

static void names_are_tempos_in_any_case(void **state)
{
	enum codec_id id = CODEC_NONE;
	struct err err = ERR_INIT;

	(void)state;
	for (unsigned i = 0; i < CODEC_MAX; i++) {
		assert_int_equal(codec_parse(bytes_str(codec_name((enum codec_id)i)), &id, NULL),
				 0);
		assert_int_equal(id, i);
	}
	assert_int_equal(codec_parse(BYTES_LIT("LZ4-1m"), &id, NULL), 0);
	assert_int_equal(id, CODEC_LZ4_1M);
	assert_int_equal(codec_parse(BYTES_LIT(""), &id, &err), -1);
	assert_int_equal(codec_parse(BYTES_LIT("lzo"), &id, &err), -1);
	assert_int_equal(err.kind, ERR_INVALID);
	assert_non_null(strstr(err.msg, "\"lzo\""));
}

static const struct {
	const char *name, *in;
	size_t n;
	const char *want; /* NULL: damaged */
} s2_blocks[] = {
	{ "literal",
	  "\x08"
	  "abc",
	  4, "abc" },
	{ "copy1",
	  "\x08"
	  "abc"
	  "\x01\x03",
	  6, "abcabca" },
	{ "copy2, overlapping",
	  "\x00"
	  "a"
	  "\x16\x01\x00",
	  5, "aaaaaaa" },
	{ "copy4",
	  "\x08"
	  "abc"
	  "\x0b\x03\x00\x00\x00",
	  9, "abcabc" },
	{ "repeat, code 0 = 4",
	  "\x08"
	  "abc"
	  "\x01\x03"
	  "\x01\x00",
	  8, "abcabcabcab" },
	{ "repeat, code 5 = 1 byte + 4 + 4",
	  "\x00"
	  "a"
	  "\x02\x01\x00"
	  "\x15\x00\x01",
	  8, "aaaaaaaaaaa" },
	{ "long literal",
	  "\xf0\x02"
	  "xyz",
	  5, "xyz" },
	{ "repeat before any copy",
	  "\x08"
	  "abc"
	  "\x01\x00",
	  6, NULL },
	{ "copy from before the start",
	  "\x08"
	  "abc"
	  "\x01\x04",
	  6, NULL },
	{ "copy2 with offset 0",
	  "\x08"
	  "abc"
	  "\x0a\x00\x00",
	  7, NULL },
	{ "literal cut short",
	  "\x0c"
	  "ab",
	  3, NULL },
	{ "tag cut short",
	  "\x08"
	  "abc"
	  "\x02\x01",
	  6, NULL },
};

static void s2_blocks_by_hand(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT_OF(s2_blocks); i++) {
		struct bytes in = { (const uint8_t *)s2_blocks[i].in, s2_blocks[i].n };
		size_t n = s2_blocks[i].want ? strlen(s2_blocks[i].want) : 7;
		uint8_t out[64];
		int ret = -1;

		ret = snappy_frames_s2_block(in, out, n);
		if ((ret == 0) != (s2_blocks[i].want != NULL))
			fail_msg("%s: %d", s2_blocks[i].name, ret);
		if (ret == 0 && memcmp(out, s2_blocks[i].want, n) != 0)
			fail_msg("%s: %.*s", s2_blocks[i].name, (int)n, out);
	}
}

static void a_short_page_cannot_ask_for_much(void **state)
{
	/* zstd frame, single segment, content size 2^32-1, no blocks; gzip whose trailer claims 4
	 * GiB. */
	static const uint8_t zstd[] = { 0x28, 0xb5, 0x2f, 0xfd, 0xa0, 0xff, 0xff, 0xff, 0xff };
	static const uint8_t gzip[] = { 0x1f, 0x8b, 8, 0, 0, 0, 0,    0,    0,    0xff,
					3,    0,    0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff };
	struct codec *z = codec_new(CODEC_ZSTD, 0), *g = codec_new(CODEC_GZIP, 0);
	struct buf out = BUF_INIT;

	(void)state;
	assert_int_equal(
		codec_decompress(z, (struct bytes){ zstd, sizeof(zstd) }, 64 * MIB, &out, NULL),
		-1);
	assert_int_equal(
		codec_decompress(g, (struct bytes){ gzip, sizeof(gzip) }, 64 * MIB, &out, NULL),
		-1);
	assert_true(out.cap < MIB);
	codec_free(z);
	codec_free(g);
	buf_fini(&out);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_codec_gives_back_what_it_took),
		cmocka_unit_test(streams_begin_as_documented),
		cmocka_unit_test(cut_short_is_damage),
		cmocka_unit_test(flipped_bits_never_pass_as_other_content),
		cmocka_unit_test(several_members_are_one_page),
		cmocka_unit_test(names_are_tempos_in_any_case),
		cmocka_unit_test(s2_blocks_by_hand),
		cmocka_unit_test(a_short_page_cannot_ask_for_much),
	};

	return cmocka_run_group_tests_name("codec", tests, NULL, NULL);
}
