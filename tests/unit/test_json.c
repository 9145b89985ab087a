/* SPDX-License-Identifier: Apache-2.0
 *
 * test_json.c - the JSON reader and writer.
 */
#include "base/arena.h"
#include "base/buf.h"
#include "base/mem.h"
#include "base/rng.h"
#include "base/str.h"
#include "wire/json_reader.h"
#include "wire/json_writer.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

/* Copy everything the reader gives to the writer: what any caller does, and a check of both. */
static int copy_value(struct json_reader *r, const struct json_value *v, struct json_writer *w,
		      struct err *err)
{
	struct json_value inner;
	int rc = 0;

	switch (v->kind) {
	case JSON_NULL:
		json_writer_null(w);
		break;
	case JSON_FALSE:
	case JSON_TRUE:
		json_writer_bool(w, v->kind == JSON_TRUE);
		break;
	case JSON_NUMBER:
		json_writer_raw(w, v->text);
		break;
	case JSON_STRING:
		json_writer_bytes(w, v->text);
		break;
	case JSON_ARRAY:
		json_writer_array(w);
		while ((rc = json_reader_element(r, &inner, err)) > 0)
			if (copy_value(r, &inner, w, err) < 0)
				return -1;
		json_writer_array_end(w);
		break;
	case JSON_OBJECT:
		json_writer_object(w);
		while ((rc = json_reader_member(r, &inner, err)) > 0) {
			json_writer_key_bytes(w, inner.key);
			if (copy_value(r, &inner, w, err) < 0)
				return -1;
		}
		json_writer_object_end(w);
		break;
	}
	return rc;
}

/* Read all of `in` (walked, or only skipped) into out. */
static int copy_text(struct bytes in, bool walk, unsigned max_depth, struct buf *out,
		     struct err *err)
{
	struct arena a = ARENA_INIT;
	struct json_writer w = JSON_WRITER(out);
	struct json_reader r;
	struct json_value v;
	int rc = -1;

	json_reader_init(&r, in, &a);
	r.max_depth = max_depth;
	if (json_reader_value(&r, &v, err) == 0)
		rc = walk ? copy_value(&r, &v, &w, err) : json_reader_skip(&r, &v, err);
	if (rc == 0)
		rc = json_reader_end(&r, err);
	arena_fini(&a);
	return rc;
}

static const struct { const char *in, *out; } good[] = {
	{ "null", "null" },
	{ " true ", "true" },
	{ "\t\r\n false\n", "false" },
	{ "[]", "[]" },
	{ "{ }", "{}" },
	{ "[ 1 , 2,3 ]", "[1,2,3]" },
	{ "{\"a\":{},\"b\":[[],{}],\"a\":1}", "{\"a\":{},\"b\":[[],{}],\"a\":1}" },
	{ "-0", "-0" },
	{ "0.5e+10", "0.5e+10" },
	{ "[1E5,-1.25e-3]", "[1E5,-1.25e-3]" },
	{ "\"\"", "\"\"" },
	{ "\"plain text that is longer than sixteen bytes\"",
	  "\"plain text that is longer than sixteen bytes\"" },
	{ "\"q\\\"b\\\\s\\/n\\n\\t\\b\\f\\r\"", "\"q\\\"b\\\\s/n\\n\\t\\b\\f\\r\"" },
	{ "\"\\u0041\\u00e9\\u20ac\"", "\"A\xc3\xa9\xe2\x82\xac\"" },
	{ "\"\\uD83D\\uDE00\"", "\"\xf0\x9f\x98\x80\"" },
	{ "\"\\ud83d\"", "\"\xef\xbf\xbd\"" },
	{ "\"\\ude00x\"", "\"\xef\xbf\xbdx\"" },
	{ "\"\\ud83d\\ud83d\\ude00\"", "\"\xef\xbf\xbd\xf0\x9f\x98\x80\"" },
	{ "\"\\ud83d\\n\"", "\"\xef\xbf\xbd\\n\"" },
	{ "\"\\u0000\\u001f\"", "\"\\u0000\\u001f\"" },
	{ "{\"k\\u0065y\":1}", "{\"key\":1}" },
	{ "\"\x7f\"", "\"\x7f\"" },
	{ "\"caf\xc3\xa9 on a line longer than sixteen\"",
	  "\"caf\xc3\xa9 on a line longer than sixteen\"" },
};

static void reader_and_writer_agree(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT_OF(good); i++) {
		struct buf out = BUF_INIT;
		struct err err = ERR_INIT;

		if (copy_text(bytes_str(good[i].in), true, 64, &out, &err) < 0)
			fail_msg("%s: %s", good[i].in, err.msg);
		assert_string_equal(buf_cstr(&out), good[i].out);
		assert_int_equal(copy_text(bytes_str(good[i].in), false, 64, &out, &err), 0);
		buf_fini(&out);
	}
}

static const struct { const char *in, *msg; } bad[] = {
	{ "", "json: byte 0: expected a value, found the end" },
	{ "  ", "json: byte 2: expected a value, found the end" },
	{ "nul", "json: byte 0: expected a value, found 'n'" },
	{ "truer", "json: byte 4: expected nothing after the value, found 'r'" },
	{ "[1,]", "json: byte 3: expected a value, found ']'" },
	{ "[,1]", "json: byte 1: expected a value, found ','" },
	{ "[1 2]", "json: byte 3: expected ',' or ']', found '2'" },
	{ "[1}", "json: byte 2: expected ',' or ']', found '}'" },
	{ "[", "json: byte 1: expected a value, found the end" },
	{ "[[]", "json: byte 3: expected ',' or ']', found the end" },
	{ "{\"a\"}", "json: byte 4: expected ':' after a key, found '}'" },
	{ "{\"a\":}", "json: byte 5: expected a value, found '}'" },
	{ "{\"a\":1,}", "json: byte 7: expected a key in quotes, found '}'" },
	{ "{,}", "json: byte 1: expected a key in quotes, found ','" },
	{ "{a:1}", "json: byte 1: expected a key in quotes, found 'a'" },
	{ "{\"a\":1 \"b\":2}", "json: byte 7: expected ',' or '}', found '\"'" },
	{ "01", "json: byte 1: expected nothing after the value, found '1'" },
	{ "-", "json: byte 0: expected a value, found '-'" },
	{ "1.", "json: byte 0: expected a value, found '1'" },
	{ ".5", "json: byte 0: expected a value, found '.'" },
	{ "1e", "json: byte 0: expected a value, found '1'" },
	{ "1e+", "json: byte 0: expected a value, found '1'" },
	{ "+1", "json: byte 0: expected a value, found '+'" },
	{ "0x10", "json: byte 1: expected nothing after the value, found 'x'" },
	{ "NaN", "json: byte 0: expected a value, found 'N'" },
	{ "\"abc", "json: byte 4: expected '\"' at the end of a string, found the end" },
	{ "\"a\nb\"", "json: byte 2: expected '\"' at the end of a string, found byte 0x0a" },
	{ "\"a\\", "json: byte 3: expected '\"' at the end of a string, found the end" },
	{ "\"a\\\"", "json: byte 4: expected '\"' at the end of a string, found the end" },
	{ "\"\\x\"", "json: byte 1: no such escape in a string, found '\\'" },
	{ "\"\\u12g4\"", "json: byte 1: no such escape in a string, found '\\'" },
	{ "\"\\u12\"", "json: byte 1: no such escape in a string, found '\\'" },
	{ "\"a\\nb\x01\"", "json: byte 5: expected '\"' at the end of a string, found byte 0x01" },
	{ "[\"ok\",\"\xff\"]", "json: byte 6: string is not UTF-8" },
	{ "\"\xc3\"", "json: byte 0: string is not UTF-8" },
	{ "\"\\n\xed\xa0\x80\"", "json: byte 0: string is not UTF-8" },
	{ "{\"\xc0\x80\":1}", "json: byte 1: string is not UTF-8" },
	{ "[1]]", "json: byte 3: expected nothing after the value, found ']'" },
	{ "'a'", "json: byte 0: expected a value, found '''" },
	{ "/**/1", "json: byte 0: expected a value, found '/'" },
};

static void damage_is_named_with_its_offset(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT_OF(bad); i++) {
		for (int walk = 0; walk < 2; walk++) {
			struct buf out = BUF_INIT;
			struct err err = ERR_INIT;

			if (copy_text(bytes_str(bad[i].in), walk, 64, &out, &err) == 0)
				fail_msg("%s: taken as %s", bad[i].in, buf_cstr(&out));
			assert_string_equal(err.msg, bad[i].msg);
			assert_int_equal(err.kind, ERR_INVALID);
			buf_fini(&out);
		}
	}
}

static void nul_bytes_are_damage_outside_of_escapes(void **state)
{
	struct buf out = BUF_INIT;

	(void)state;
	assert_int_equal(copy_text(BYTES_LIT("[1]\0"), true, 64, &out, NULL), -1);
	assert_int_equal(copy_text(BYTES_LIT("[\0]"), true, 64, &out, NULL), -1);
	assert_int_equal(copy_text(BYTES_LIT("\"a\0b\""), true, 64, &out, NULL), -1);
	assert_int_equal(copy_text(BYTES_LIT("\"a\\\0b\""), true, 64, &out, NULL), -1);
	buf_fini(&out);
}

static void malformed_utf8_can_be_kept_and_flagged(void **state)
{
	struct arena a = ARENA_INIT;
	struct json_reader r;
	struct json_value v;

	(void)state;
	json_reader_init(&r, BYTES_LIT("[\"\xff\",\"ok\",{\"\xff\":1,\"k\":2}]"), &a);
	r.keep_bad_utf8 = true;
	assert_int_equal(json_reader_value(&r, &v, NULL), 0);
	assert_int_equal(json_reader_element(&r, &v, NULL), 1);
	assert_true(v.bad_utf8 && v.text.n == 1);
	assert_int_equal(json_reader_element(&r, &v, NULL), 1);
	assert_false(v.bad_utf8);
	assert_int_equal(json_reader_element(&r, &v, NULL), 1);
	assert_int_equal(json_reader_member(&r, &v, NULL), 1);
	assert_true(v.bad_utf8);
	assert_int_equal(json_reader_member(&r, &v, NULL), 1);
	assert_true(!v.bad_utf8 && JSON_KEY_IS(&v, "k"));
	assert_int_equal(json_reader_leave(&r, 0, NULL), 0);
	assert_int_equal(json_reader_end(&r, NULL), 0);
	arena_fini(&a);
}

static void depth_is_bounded(void **state)
{
	static char text[20000];
	struct buf out = BUF_INIT;
	struct err err = ERR_INIT;

	(void)state;
	for (size_t depth = 1; depth <= 10000; depth = depth < 70 ? depth + 1 : depth * 10) {
		memset(text, '[', depth);
		memset(text + depth, ']', depth);
		struct bytes in = { (uint8_t *)text, 2 * depth };

		assert_int_equal(copy_text(in, true, 64, &out, &err), depth <= 64 ? 0 : -1);
		assert_int_equal(copy_text(in, false, 64, &out, &err), depth <= 64 ? 0 : -1);
	}
	assert_string_equal(err.msg, "json: byte 64: nested deeper than 64 levels");
	memset(text, '[', 512);
	memset(text + 512, ']', 512);
	assert_int_equal(copy_text((struct bytes){ (uint8_t *)text, 1024 }, false, JSON_DEPTH_MAX,
				   &out, &err), 0);
	buf_fini(&out);
}

static void every_truncation_is_damage(void **state)
{
	static const char text[] = "{\"a\":[1,-2.5e3,\"x\\u00e9\\ud83d\\ude00\",true,null,"
		"{\"b\":{\"c\":[]}}],\"d\":false}";
	struct buf out = BUF_INIT;

	(void)state;
	for (size_t n = 0; n < sizeof(text) - 1; n++) {
		/* so that a sanitizer sees a byte read too far */
		uint8_t *copy = xmalloc(n + 1);

		memcpy(copy, text, n);
		assert_int_equal(copy_text((struct bytes){ copy, n }, true, 64, &out, NULL), -1);
		free(copy);
	}
	buf_fini(&out);
}

static const struct { const char *text; int64_t i64; int ri; uint64_t u64; int ru; } integers[] = {
	{ "0", 0, 0, 0, 0 },
	{ "-0", 0, 0, 0, 0 },
	{ "0e5", 0, 0, 0, 0 },
	{ "0.000e-5", 0, 0, 0, 0 },
	{ "7", 7, 0, 7, 0 },
	{ "-7", -7, 0, 0, -1 },
	{ "123456789012345678", 123456789012345678, 0, 123456789012345678u, 0 },
	{ "1.58266276796031e+15", 1582662767960310, 0, 1582662767960310u, 0 },
	{ "1.5", 0, -1, 0, -1 },
	{ "1.50e1", 15, 0, 15, 0 },
	{ "1500e-2", 15, 0, 15, 0 },
	{ "1501e-2", 0, -1, 0, -1 },
	{ "3.0", 3, 0, 3, 0 },
	{ "1.000000000000000000000000000000000000000", 1, 0, 1, 0 },
	{ "9223372036854775807", INT64_MAX, 0, INT64_MAX, 0 },
	{ "9223372036854775808", 0, -1, (uint64_t)INT64_MAX + 1, 0 },
	{ "-9223372036854775808", INT64_MIN, 0, 0, -1 },
	{ "-9223372036854775809", 0, -1, 0, -1 },
	{ "18446744073709551615", 0, -1, UINT64_MAX, 0 },
	{ "1.8446744073709551615e19", 0, -1, UINT64_MAX, 0 },
	{ "18446744073709551616", 0, -1, 0, -1 },
	{ "1e19", 0, -1, UINT64_C(10000000000000000000), 0 },
	{ "1e20", 0, -1, 0, -1 },
	{ "1e999999999999999999999999", 0, -1, 0, -1 },
	{ "1e-999999999999999999999999", 0, -1, 0, -1 },
	{ "0e999999999999999999999999", 0, 0, 0, 0 },
	{ "99999999999999999999999999999999999999", 0, -1, 0, -1 },
	{ "10000000000000000000000000000000000000e-30", 10000000, 0, 10000000, 0 },
	{ "0.00000000000000000000000000001e30", 10, 0, 10, 0 },
};

static void integers_are_exact_or_refused(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT_OF(integers); i++) {
		for (int quoted = 0; quoted < 2; quoted++) {
			struct json_value v = { .kind = quoted ? JSON_STRING : JSON_NUMBER,
						.text = bytes_str(integers[i].text) };
			int64_t i64 = 0;
			uint64_t u64 = 0;

			if (json_reader_i64(&v, &i64) != integers[i].ri || i64 != integers[i].i64 ||
			    json_reader_u64(&v, &u64) != integers[i].ru || u64 != integers[i].u64)
				fail_msg("%s: got %lld %llu", integers[i].text, (long long)i64,
					 (unsigned long long)u64);
		}
	}
}

static void text_in_quotes_that_is_no_number_is_refused(void **state)
{
	static const char *const texts[] = { "", " 1", "1 ", "0x1", "inf", "nan", "1e", "--1",
		"1,2", "+1", "true" };

	(void)state;
	for (size_t i = 0; i < COUNT_OF(texts); i++) {
		struct json_value v = { .kind = JSON_STRING, .text = bytes_str(texts[i]) };
		uint64_t u = 0;
		double d = 0;

		assert_int_equal(json_reader_u64(&v, &u), -1);
		assert_int_equal(json_reader_double(&v, &d), -1);
	}
}

static void doubles_survive_both_ways(void **state)
{
	static const double plain[] = { 0, -0.0, 1, -0.5, 0.1, 1e300, 5e-324,
		1.7976931348623157e308, 123456.789 };
	struct rng rng;

	(void)state;
	rng_seed(&rng, 3);
	for (size_t i = 0; i < 5000; i++) {
		struct buf out = BUF_INIT;
		struct json_writer w = JSON_WRITER(&out);
		struct arena a = ARENA_INIT;
		struct json_reader r;
		struct json_value v;
		uint64_t bits = rng_next(&rng);
		double d = 0, back = 1;

		memcpy(&d, &bits, 8);
		if (i < COUNT_OF(plain))
			d = plain[i];
		json_writer_double(&w, d);
		json_reader_init(&r, buf_bytes(&out), &a);
		assert_int_equal(json_reader_value(&r, &v, NULL), 0);
		assert_int_equal(json_reader_double(&v, &back), 0);
		if (isnan(d))
			assert_true(isnan(back));
		else
			assert_memory_equal(&d, &back, 8);
		arena_fini(&a);
		buf_fini(&out);
	}
}

static void doubles_read_from_every_form(void **state)
{
	static char many[1000];
	struct json_value v = { .kind = JSON_STRING, .text = BYTES_LIT("-Infinity") };
	double d = 0;

	(void)state;
	assert_int_equal(json_reader_double(&v, &d), 0);
	assert_true(isinf(d) && d < 0);
	v.text = BYTES_LIT("-0");
	assert_int_equal(json_reader_double(&v, &d), 0);
	assert_true(d == 0 && signbit(d));
	v.text = BYTES_LIT("1e999");
	assert_int_equal(json_reader_double(&v, &d), -1);
	memset(many, '9', sizeof(many));
	v.text = (struct bytes){ (uint8_t *)many, sizeof(many) };
	assert_int_equal(json_reader_double(&v, &d), -1);
	v.kind = JSON_TRUE;
	assert_int_equal(json_reader_double(&v, &d), -1);
}

static void writer_forms(void **state)
{
	struct buf out = BUF_INIT;
	struct json_writer w = JSON_WRITER(&out);

	(void)state;
	json_writer_object(&w);
	json_writer_key(&w, "a");
	json_writer_array(&w);
	json_writer_u64(&w, UINT64_MAX);
	json_writer_i64(&w, INT64_MIN);
	json_writer_u64_str(&w, UINT64_MAX);
	json_writer_i64_str(&w, INT64_MIN);
	json_writer_hex(&w, BYTES_LIT("\x01\xab"));
	json_writer_base64(&w, BYTES_LIT("\x01\xab"));
	json_writer_hex(&w, BYTES_EMPTY);
	json_writer_base64(&w, BYTES_EMPTY);
	json_writer_double(&w, (double)NAN);
	json_writer_double(&w, 0.1);
	json_writer_raw(&w, BYTES_LIT("{}"));
	json_writer_array_end(&w);
	json_writer_key(&w, "b");
	json_writer_bytes(&w, BYTES_LIT("bad \xff\xc3 caf\xc3\xa9 \xf0\x9f\x98"));
	json_writer_object_end(&w);
	assert_string_equal(buf_cstr(&out),
		"{\"a\":[18446744073709551615,-9223372036854775808,\"18446744073709551615\","
		"\"-9223372036854775808\",\"01ab\",\"Aas=\",\"\",\"\",\"NaN\",0.1,{}],"
		"\"b\":\"bad \xef\xbf\xbd\xef\xbf\xbd caf\xc3\xa9 "
		"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\"}");
	buf_fini(&out);
}

static void writer_stops_at_the_cap(void **state)
{
	struct buf out = BUF_INIT_MAX(20);
	struct json_writer w = JSON_WRITER(&out);

	(void)state;
	for (int i = 0; i < 100; i++)
		json_writer_hex(&w, BYTES_LIT("abcdefgh"));
	assert_true(out.overflow && out.n <= 20);
	buf_fini(&out);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(reader_and_writer_agree),
		cmocka_unit_test(damage_is_named_with_its_offset),
		cmocka_unit_test(nul_bytes_are_damage_outside_of_escapes),
		cmocka_unit_test(malformed_utf8_can_be_kept_and_flagged),
		cmocka_unit_test(depth_is_bounded),
		cmocka_unit_test(every_truncation_is_damage),
		cmocka_unit_test(integers_are_exact_or_refused),
		cmocka_unit_test(text_in_quotes_that_is_no_number_is_refused),
		cmocka_unit_test(doubles_survive_both_ways),
		cmocka_unit_test(doubles_read_from_every_form),
		cmocka_unit_test(writer_forms),
		cmocka_unit_test(writer_stops_at_the_cap),
	};

	return cmocka_run_group_tests_name("json", tests, NULL, NULL);
}
