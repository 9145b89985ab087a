/* SPDX-License-Identifier: Apache-2.0
 *
 * test_content_coding.c - codings by name, round trips, hostile headers, limits and the budget.
 */
#include "net/content_coding.h"

#include "base/clock.h"
#include "base/hash.h"
#include "base/mem.h"
#include "base/rng.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#define LIT(s) BYTES_LIT(s)

static void names_are_understood(void **state)
{
	static const struct {
		const char *name;
		int want; /* -1: unknown */
	} cases[] = {
		{ "", CONTENT_IDENTITY },     { "identity", CONTENT_IDENTITY },
		{ "gzip", CONTENT_GZIP },     { " GZip ", CONTENT_GZIP },
		{ "x-gzip", CONTENT_GZIP },   { "deflate", CONTENT_DEFLATE },
		{ "zlib", CONTENT_DEFLATE },  { "zstd", CONTENT_ZSTD },
		{ "snappy", CONTENT_SNAPPY }, { "x-snappy-framed", CONTENT_SNAPPY_FRAMED },
		{ "lz4", CONTENT_LZ4 },       { "br", -1 },
		{ "gzip, gzip", -1 },         { "gzipp", -1 },
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		enum content_coding c = CONTENT_IDENTITY;
		int got = content_coding_parse(bytes_str(cases[i].name), &c);

		if (got == 0)
			got = (int)c;
		if (got != cases[i].want)
			fail_msg("'%s': got %d, want %d", cases[i].name, got, cases[i].want);
	}
}

static void accept_encoding_is_weighed(void **state)
{
	static const struct {
		const char *value;
		bool want;
	} cases[] = {
		{ "", false },
		{ "gzip", true },
		{ "deflate, gzip;q=0.5", true },
		{ "gzip;q=0", false },
		{ "gzip;q=0.000, *", false },
		{ "*", true },
		{ "*;q=0", false },
		{ "br, zstd", false },
		{ ",,gzip ;q=1", true },
		{ "gzip;q=0.01", true },
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(cases); i++)
		if (content_coding_accepts_gzip(bytes_str(cases[i].value)) != cases[i].want)
			fail_msg("'%s': want %d", cases[i].value, cases[i].want);
}

/* Text that compresses about as OTLP does. */
static void fill(struct buf *b, size_t n)
{
	uint64_t x = 88172645463325252u;

	while (b->n < n) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		buf_printf(b, "http.route=/v1/orders/%u;", (unsigned)(x % 1000));
	}
	b->n = n;
}

static void what_is_encoded_decodes(void **state)
{
	static const size_t sizes[] = { 0, 1, 100, 5000, 70000, 1500000 };

	(void)state;
	for (int c = CONTENT_IDENTITY; c <= CONTENT_LZ4; c++) {
		for (size_t i = 0; i < COUNT_OF(sizes); i++) {
			struct budget budget = BUDGET_INIT(64 << 20);
			struct buf in = BUF_INIT, coded = BUF_INIT;
			struct rcbuf *out = NULL;
			struct err err = ERR_INIT;

			fill(&in, sizes[i]);
			assert_int_equal(content_encode(c, (int)i, buf_bytes(&in), &coded, &err),
					 0);
			if (content_decode(c, buf_bytes(&coded), 20 << 20, &budget, &out, &err) < 0)
				fail_msg("%s of %zu: %s", content_coding_name(c), sizes[i],
					 err.msg);
			assert_true(bytes_eq((struct bytes){ out->p, out->n }, buf_bytes(&in)));
			assert_true(out->charged <= MAX(out->n * 4, 65536));
			/* Exactly at the limit passes, one byte less does not. */
			rcbuf_unref(out);
			assert_int_equal(
				content_decode(c, buf_bytes(&coded), sizes[i], &budget, &out, &err),
				0);
			rcbuf_unref(out);
			if (sizes[i] > 0) {
				assert_int_equal(content_decode(c, buf_bytes(&coded), sizes[i] - 1,
								&budget, &out, &err),
						 -1);
				assert_int_equal(err.kind, ERR_TOO_LARGE);
				assert_null(out);
			}
			assert_int_equal(budget.used, 0);
			buf_fini(&in);
			buf_fini(&coded);
		}
	}
}

/* Every prefix of a coded body is damage, never success and never more. */
static void cut_bodies_are_invalid(void **state)
{
	(void)state;
	for (int c = CONTENT_GZIP; c <= CONTENT_LZ4; c++) {
		struct buf in = BUF_INIT, coded = BUF_INIT;
		struct rcbuf *out = NULL;
		struct err err = ERR_INIT;

		fill(&in, 3000);
		assert_int_equal(content_encode(c, 0, buf_bytes(&in), &coded, &err), 0);
		for (size_t n = 0; n < coded.n; n++) {
			int rc;

			/* A stream identifier alone is a stream of nothing. */
			if (c == CONTENT_SNAPPY_FRAMED && n == 10)
				continue;
			rc = content_decode(c, (struct bytes){ coded.p, n }, 1 << 20, NULL, &out,
					    &err);
			if (rc == 0 || err.kind != ERR_INVALID)
				fail_msg("%s cut to %zu: rc %d %s", content_coding_name(c), n, rc,
					 err.msg);
		}
		buf_add_char(&coded, 'x');
		assert_int_equal(content_decode(c, buf_bytes(&coded), 1 << 20, NULL, &out, &err),
				 -1);
		assert_int_equal(err.kind, ERR_INVALID);
		buf_fini(&in);
		buf_fini(&coded);
	}
}

static void what_inflates_out_of_proportion_is_too_large(void **state)
{
	static const struct {
		size_t n; /* zeros */
		unsigned ratio;
		bool ok;
	} cases[] = {
		{ CONTENT_RATIO_FREE, 1, true },      /* little is never held against it */
		{ CONTENT_RATIO_FREE + 1, 1, false }, /* the first byte that is */
		{ 8 << 20, 0, true },                 /* any */
		{ 8 << 20, 100000000, true },
		{ 8 << 20, 10, false },
	};

	(void)state;
	for (int c = CONTENT_GZIP; c <= CONTENT_LZ4; c++) {
		for (size_t i = 0; i < COUNT_OF(cases); i++) {
			struct buf in = BUF_INIT, coded = BUF_INIT;
			struct content_bounds bounds = { 20 << 20, cases[i].ratio };
			struct rcbuf *out = NULL;
			struct err err = ERR_INIT;
			int rc;

			memset(buf_reserve(&in, cases[i].n), 0, cases[i].n);
			in.n = cases[i].n;
			assert_int_equal(content_encode(c, 0, buf_bytes(&in), &coded, &err), 0);
			rc = content_decode_bounded(c, buf_bytes(&coded), &bounds, NULL, &out,
						    &err);
			if ((rc == 0) != cases[i].ok)
				fail_msg("%s %zu: rc %d %s", content_coding_name(c), i, rc,
					 err.msg);
			if (rc < 0) {
				assert_int_equal(err.kind, ERR_TOO_LARGE);
				assert_non_null(strstr(err.msg, "max_decompression_ratio"));
			}
			rcbuf_unref(out);
			buf_fini(&in);
			buf_fini(&coded);
		}
	}
}

static void gzip_members_are_appended(void **state)
{
	struct budget budget = BUDGET_INIT(64 << 20);
	struct buf one = BUF_INIT, all = BUF_INIT, many = BUF_INIT, want = BUF_INIT;
	struct rcbuf *out = NULL;
	struct err err = ERR_INIT;
	uint64_t start = 0;

	(void)state;
	for (size_t i = 0; i < 5; i++) {
		struct buf part = BUF_INIT;

		fill(&part, i * i * 20000 + 1);
		content_encode(CONTENT_GZIP, 0, buf_bytes(&part), &all, NULL);
		buf_add_bytes(&want, buf_bytes(&part));
		buf_fini(&part);
	}
	if (content_decode(CONTENT_GZIP, buf_bytes(&all), 20 << 20, &budget, &out, &err) < 0)
		fail_msg("%s", err.msg);
	assert_true(bytes_eq((struct bytes){ out->p, out->n }, buf_bytes(&want)));
	rcbuf_unref(out);
	/* 200,000 members of a byte each: linear work. */
	content_encode(CONTENT_GZIP, 0, LIT("x"), &one, NULL);
	for (int i = 0; i < 200000; i++)
		buf_add_bytes(&many, buf_bytes(&one));
	start = clock_mono_ns();
	assert_int_equal(
		content_decode(CONTENT_GZIP, buf_bytes(&many), 20 << 20, &budget, &out, &err), 0);
	assert_int_equal(out->n, 200000);
	printf("200,000 gzip members: %llu ms\n",
	       (unsigned long long)((clock_mono_ns() - start) / NS_PER_MS));
	rcbuf_unref(out);
	assert_int_equal(budget.used, 0);
	buf_fini(&one);
	buf_fini(&all);
	buf_fini(&many);
	buf_fini(&want);
}

static void raw_deflate_is_understood(void **state)
{
	struct buf in = BUF_INIT, coded = BUF_INIT;
	struct rcbuf *out = NULL;
	struct err err = ERR_INIT;

	(void)state;
	fill(&in, 20000);
	content_encode(CONTENT_DEFLATE, 0, buf_bytes(&in), &coded, NULL);
	/* Without the 2-byte head and the checksum. */
	if (content_decode(CONTENT_DEFLATE, (struct bytes){ coded.p + 2, coded.n - 6 }, 1 << 20,
			   NULL, &out, &err) < 0)
		fail_msg("%s", err.msg);
	assert_true(bytes_eq((struct bytes){ out->p, out->n }, buf_bytes(&in)));
	rcbuf_unref(out);
	buf_fini(&in);
	buf_fini(&coded);
}

/* A size field that lies costs neither correctness nor memory. */
static void gzip_size_field_may_lie(void **state)
{
	static const uint32_t lies[] = { 0, 1, 4096, 19 << 20, UINT32_MAX };
	struct buf in = BUF_INIT, coded = BUF_INIT;
	struct err err = ERR_INIT;

	(void)state;
	fill(&in, 300000);
	content_encode(CONTENT_GZIP, 0, buf_bytes(&in), &coded, NULL);
	for (size_t i = 0; i < COUNT_OF(lies); i++) {
		struct budget budget = BUDGET_INIT(64 << 20);
		struct rcbuf *out = NULL;

		store_le32(coded.p + coded.n - 4, lies[i]);
		assert_int_equal(content_decode(CONTENT_GZIP, buf_bytes(&coded), 20 << 20, &budget,
						&out, &err),
				 -1);
		assert_int_equal(err.kind, ERR_INVALID);
		assert_true((size_t)budget.peak <= coded.n * 32 + (2 << 20));
		assert_int_equal(budget.used, 0);
	}
	buf_fini(&in);
	buf_fini(&coded);
}

/* The members before an honest last one are not foretold by its size. */
static void small_last_member_hides_a_large_first(void **state)
{
	struct budget budget = BUDGET_INIT(64 << 20);
	struct buf in = BUF_INIT, coded = BUF_INIT;
	struct rcbuf *out = NULL;
	struct err err = ERR_INIT;

	(void)state;
	fill(&in, 3000000);
	content_encode(CONTENT_GZIP, 0, buf_bytes(&in), &coded, NULL);
	content_encode(CONTENT_GZIP, 0, LIT("end"), &coded, NULL);
	if (content_decode(CONTENT_GZIP, buf_bytes(&coded), 20 << 20, &budget, &out, &err) < 0)
		fail_msg("%s", err.msg);
	assert_int_equal(out->n, 3000003);
	rcbuf_unref(out);
	buf_fini(&in);
	buf_fini(&coded);
}

static int read_golden(const char *name, struct buf *b)
{
	const char *dir = getenv("SPANMILL_GOLDEN");
	char path[512];
	FILE *f = NULL;
	size_t got = 0;

	snprintf(path, sizeof(path), "%s/otlp/derived/%s", dir ? dir : "../shared/golden", name);
	f = fopen(path, "rb");
	if (f == NULL)
		return -1;
	do {
		got = fread(buf_reserve(b, 65536), 1, 65536, f);
		b->n += got;
	} while (got > 0);
	fclose(f);
	return 0;
}

static void bomb_is_too_large_and_cheap(void **state)
{
	struct budget budget = BUDGET_INIT(512 << 20);
	struct buf bomb = BUF_INIT, zeros = BUF_INIT, coded = BUF_INIT;
	struct rcbuf *out = NULL;
	struct err err = ERR_INIT;
	uint64_t start = clock_mono_ns();

	(void)state;
	if (read_golden("bomb-256MiB.gz", &bomb) < 0) {
		printf("skipped: no golden data\n");
	} else {
		assert_int_equal(content_decode(CONTENT_GZIP, buf_bytes(&bomb), 20 << 20, &budget,
						&out, &err),
				 -1);
		assert_int_equal(err.kind, ERR_TOO_LARGE);
		assert_true(budget.peak <= 20 << 20);
		printf("bomb: %s; %llu ms, peak %lld\n", err.msg,
		       (unsigned long long)((clock_mono_ns() - start) / NS_PER_MS),
		       (long long)budget.peak);
	}
	/* zstd: 64 MiB of zeros in a few KiB, with its size stated. */
	memset(buf_reserve(&zeros, 64 << 20), 0, 64 << 20);
	zeros.n = 64 << 20;
	content_encode(CONTENT_ZSTD, 0, buf_bytes(&zeros), &coded, NULL);
	budget.peak = 0;
	assert_int_equal(
		content_decode(CONTENT_ZSTD, buf_bytes(&coded), 20 << 20, &budget, &out, &err), -1);
	assert_int_equal(err.kind, ERR_TOO_LARGE);
	assert_true(budget.peak <= 20 << 20);
	assert_int_equal(budget.used, 0);
	buf_fini(&bomb);
	buf_fini(&zeros);
	buf_fini(&coded);
}

static void budget_refuses_before_memory_is_written(void **state)
{
	struct budget budget = BUDGET_INIT(4 << 20);
	struct buf in = BUF_INIT, coded = BUF_INIT;
	struct rcbuf *out = NULL;
	struct err err = ERR_INIT;

	(void)state;
	fill(&in, 3 << 20);
	for (int c = CONTENT_GZIP; c <= CONTENT_LZ4; c++) {
		buf_reset(&coded);
		content_encode(c, 0, buf_bytes(&in), &coded, NULL);
		assert_true(budget_charge(&budget, 3 << 20)); /* somebody else */
		assert_int_equal(
			content_decode(c, buf_bytes(&coded), 20 << 20, &budget, &out, &err), -1);
		assert_int_equal(err.kind, ERR_EXHAUSTED);
		budget_release(&budget, 3 << 20);
		assert_int_equal(budget.used, 0);
		/* What no budget could hold is too large, not "try later". */
		budget.limit = 2 << 20;
		assert_int_equal(
			content_decode(c, buf_bytes(&coded), 20 << 20, &budget, &out, &err), -1);
		assert_int_equal(err.kind, ERR_TOO_LARGE);
		budget.limit = 4 << 20;
		assert_int_equal(budget.used, 0);
	}
	buf_fini(&in);
	buf_fini(&coded);
}

static void add_chunk(struct buf *b, uint8_t type, uint32_t crc_of, struct bytes data)
{
	uint8_t head[8] = { 0 };

	store_le32(head, (uint32_t)(data.n + 4) << 8 | type);
	store_le32(head + 4, (crc_of >> 15 | crc_of << 17) + 0xa282ead8u);
	buf_add(b, head, sizeof(head));
	buf_add_bytes(b, data);
}

static void framed_snappy_is_told_from_blocks(void **state)
{
	static const uint8_t identifier[10] = { 0xff, 6, 0, 0, 's', 'N', 'a', 'P', 'p', 'Y' };
	struct buf framed = BUF_INIT, part = BUF_INIT, block = BUF_INIT;
	struct rcbuf *out = NULL;
	struct err err = ERR_INIT;

	(void)state;
	buf_add(&framed, identifier, sizeof(identifier));
	fill(&part, 60000);
	content_encode(CONTENT_SNAPPY, 0, buf_bytes(&part), &block, NULL);
	add_chunk(&framed, 0, hash_crc32c(0, part.p, part.n), buf_bytes(&block));
	add_chunk(&framed, 0xfe, 0, LIT("padding"));
	add_chunk(&framed, 1, hash_crc32c(0, "plain", 5), LIT("plain"));
	if (content_decode(CONTENT_SNAPPY, buf_bytes(&framed), 1 << 20, NULL, &out, &err) < 0)
		fail_msg("%s", err.msg);
	assert_int_equal(out->n, 60005);
	assert_memory_equal(out->p, part.p, 60000);
	assert_memory_equal(out->p + 60000, "plain", 5);
	rcbuf_unref(out);
	assert_int_equal(
		content_decode(CONTENT_SNAPPY, buf_bytes(&framed), 60004, NULL, &out, &err), -1);
	assert_int_equal(err.kind, ERR_TOO_LARGE);
	framed.p[framed.n - 1] ^= 1;
	assert_int_equal(
		content_decode(CONTENT_SNAPPY, buf_bytes(&framed), 1 << 20, NULL, &out, &err), -1);
	assert_int_equal(err.kind, ERR_INVALID);
	/* A block of 6 bytes that claims 16 MiB is not believed. */
	assert_int_equal(content_decode(CONTENT_SNAPPY, LIT("\x80\x80\x80\x08zz"), 20 << 20, NULL,
					&out, &err),
			 -1);
	assert_int_equal(err.kind, ERR_INVALID);
	buf_fini(&framed);
	buf_fini(&part);
	buf_fini(&block);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(names_are_understood),
		cmocka_unit_test(accept_encoding_is_weighed),
		cmocka_unit_test(what_is_encoded_decodes),
		cmocka_unit_test(cut_bodies_are_invalid),
		cmocka_unit_test(what_inflates_out_of_proportion_is_too_large),
		cmocka_unit_test(gzip_members_are_appended),
		cmocka_unit_test(raw_deflate_is_understood),
		cmocka_unit_test(gzip_size_field_may_lie),
		cmocka_unit_test(small_last_member_hides_a_large_first),
		cmocka_unit_test(bomb_is_too_large_and_cheap),
		cmocka_unit_test(budget_refuses_before_memory_is_written),
		cmocka_unit_test(framed_snappy_is_told_from_blocks),
	};

	return cmocka_run_group_tests_name("content_coding", tests, NULL, NULL);
}
