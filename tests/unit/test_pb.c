/* SPDX-License-Identifier: Apache-2.0
 *
 * test_pb.c - protobuf primitives: an item, the end and damage are three things; writers write
 * minimal lengths.
 */
#include "base/base.h"
#include "base/rng.h"
#include "wire/pb.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

static const struct {
	const char *name, *in;
	size_t n;
	int want;
} cases[] = {
	{ "empty input is the end", "", 0, 0 },
	{ "varint field", "\x08\x96\x01", 3, 1 },
	{ "varint of ten bytes", "\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 11, 1 },
	{ "varint of eleven bytes", "\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 12, -1 },
	{ "varint without its end", "\x08\x96", 2, -1 },
	{ "tag without a value", "\x08", 1, -1 },
	{ "tag cut", "\xa2", 1, -1 },
	{ "length runs past the end",
	  "\x0a\x05"
	  "abc",
	  5, -1 },
	{ "length of 2^63", "\x0a\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01", 11, -1 },
	{ "empty payload", "\x0a\x00", 2, 1 },
	{ "fixed64",
	  "\x09"
	  "12345678",
	  9, 1 },
	{ "fixed64 cut",
	  "\x09"
	  "1234567",
	  8, -1 },
	{ "fixed32",
	  "\x0d"
	  "1234",
	  5, 1 },
	{ "fixed32 cut",
	  "\x0d"
	  "123",
	  4, -1 },
	{ "group start is not OTLP", "\x0b", 1, -1 },
	{ "group end", "\x0c", 1, -1 },
	{ "wire type 6", "\x0e", 1, -1 },
	{ "wire type 7", "\x0f", 1, -1 },
	{ "field number 0", "\x02\x00", 2, -1 },
	{ "largest field number", "\xf8\xff\xff\xff\x0f\x01", 6, 1 },
	{ "field number past 2^29", "\x80\x80\x80\x80\x10\x01", 6, -1 },
	{ "padded tag", "\x88\x80\x00\x01", 4, 1 },
	{ "unknown field 100 is an item too", "\xa2\x06\x01x", 4, 1 },
};

static void next_tells_end_from_damage(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		/* Exact size, for AddressSanitizer. */
		uint8_t *copy = malloc(cases[i].n ? cases[i].n : 1);
		struct bytes in = { copy, cases[i].n };
		struct pb_field f = { 0 };
		int got;

		assert_non_null(copy);
		memcpy(copy, cases[i].in, cases[i].n);
		got = pb_next(&in, &f);
		if (got != cases[i].want)
			fail_msg("%s: got %d, want %d", cases[i].name, got, cases[i].want);
		if (got == 1 && (f.raw.p != copy || f.raw.n != cases[i].n || in.n != 0))
			fail_msg("%s: raw is %zu bytes, %zu left", cases[i].name, f.raw.n, in.n);
		free(copy);
	}
}

static void varints_round_trip(void **state)
{
	struct rng r;

	(void)state;
	rng_seed(&r, 3);
	for (int i = 0; i < 20000; i++) {
		uint64_t v = rng_next(&r) >> rng_below(&r, 64), back = 0;
		uint8_t raw[10];
		struct bytes in = { raw, pb_varint_write(raw, v) };

		assert_int_equal(in.n, pb_varint_size(v));
		assert_true(pb_varint(&in, &back) && back == v && in.n == 0);
	}
	assert_int_equal(pb_varint_size(0), 1);
	assert_int_equal(pb_varint_size(127), 1);
	assert_int_equal(pb_varint_size(128), 2);
	assert_int_equal(pb_varint_size(UINT64_MAX), 10);
}

static void fields_round_trip(void **state)
{
	struct buf b = BUF_INIT;
	struct pb_field f;
	struct bytes in;
	double d = -0.0, back;

	(void)state;
	pb_put_uint(&b, 1, UINT64_MAX);
	pb_put_fixed64(&b, 2, UINT64_C(0x1122334455667788));
	pb_put_fixed32(&b, 3, 0xdeadbeef);
	pb_put_double(&b, 4, d);
	pb_put_bytes(&b, 16, BYTES_EMPTY);
	pb_put_str(&b, 0x1fffffff, "text");
	in = buf_bytes(&b);
	assert_int_equal(pb_next(&in, &f), 1);
	assert_true(f.number == 1 && f.wire == PB_VARINT && f.value == UINT64_MAX);
	assert_int_equal(pb_next(&in, &f), 1);
	assert_true(f.number == 2 && f.wire == PB_FIXED64 &&
		    f.value == UINT64_C(0x1122334455667788));
	assert_int_equal(pb_next(&in, &f), 1);
	assert_true(f.number == 3 && f.wire == PB_FIXED32 && f.value == 0xdeadbeef);
	assert_int_equal(pb_next(&in, &f), 1);
	memcpy(&back, &f.value, sizeof(back));
	assert_true(f.number == 4 && memcmp(&back, &d, sizeof(d)) == 0);
	assert_int_equal(pb_next(&in, &f), 1);
	assert_true(f.number == 16 && f.wire == PB_LEN && f.data.n == 0);
	assert_int_equal(pb_next(&in, &f), 1);
	assert_true(f.number == 0x1fffffff && bytes_eq_str(f.data, "text"));
	assert_int_equal(pb_next(&in, &f), 0);
	buf_fini(&b);
}

static void nested_lengths_are_minimal(void **state)
{
	static const size_t sizes[] = { 0, 1, 127, 128, 16383, 16384, 2097152 };

	(void)state;
	for (size_t i = 0; i < COUNT_OF(sizes); i++) {
		struct buf b = BUF_INIT;
		struct bytes in;
		struct pb_field f, inner;
		size_t outer = pb_begin(&b, 1), mark = pb_begin(&b, 2);

		for (size_t k = 0; k < sizes[i]; k++)
			buf_add_char(&b, 'x');
		pb_end(&b, mark);
		pb_end(&b, outer);
		in = buf_bytes(&b);
		assert_int_equal(pb_next(&in, &f), 1);
		assert_int_equal(in.n, 0);
		assert_int_equal(f.raw.n, 1 + pb_varint_size(f.data.n) + f.data.n);
		assert_int_equal(pb_next(&f.data, &inner), 1);
		assert_int_equal(inner.data.n, sizes[i]);
		assert_int_equal(inner.raw.n, 1 + pb_varint_size(sizes[i]) + sizes[i]);
		buf_fini(&b);
	}
}

static void a_cap_stops_all_writers(void **state)
{
	(void)state;
	for (size_t max = 1; max < 64; max++) {
		struct buf b = BUF_INIT_MAX(max);
		size_t mark = pb_begin(&b, 1);

		pb_put_str(&b, 2, "twenty bytes of text");
		pb_put_fixed64(&b, 3, 1);
		pb_put_fixed32(&b, 4, 1);
		pb_put_double(&b, 5, 1);
		pb_end(&b, mark);
		assert_true(b.n <= max);
		buf_fini(&b);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(next_tells_end_from_damage),
		cmocka_unit_test(varints_round_trip),
		cmocka_unit_test(fields_round_trip),
		cmocka_unit_test(nested_lengths_are_minimal),
		cmocka_unit_test(a_cap_stops_all_writers),
	};

	return cmocka_run_group_tests_name("pb", tests, NULL, NULL);
}
