/* SPDX-License-Identifier: Apache-2.0
 *
 * test_thrift.c - the Thrift reader: each type in both protocols, message headers, and what damage
 * looks like.
 */
#include "base/base.h"
#include "wire/thrift.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#define IN(s)                                                                                      \
	{                                                                                          \
		(const uint8_t *)(s), sizeof(s) - 1                                                \
	}

static struct thrift_reader reader(struct bytes in, enum thrift_protocol protocol)
{
	struct thrift_reader r;

	thrift_init(&r, in, protocol);
	return r;
}

/* {1: true, 2: false, 3: i8 -1, 4: i16 -300, 5: i32 70000, 6: i64 min, 7: 0.5, 8: "ab",
 *  9: [1, 2] of i32, 10: {"k": true}, 11: {}, 40: {1: "x"}} */
static const struct bytes all_types[] = {
	[THRIFT_BINARY] = IN("\x02\0\1\1"
			     "\x02\0\2\0"
			     "\x03\0\3\xff"
			     "\x06\0\4\xfe\xd4"
			     "\x08\0\5\0\1\x11\x70"
			     "\x0a\0\6\x80\0\0\0\0\0\0\0"
			     "\x04\0\7\x3f\xe0\0\0\0\0\0\0"
			     "\x0b\0\x08\0\0\0\2ab"
			     "\x0f\0\x09\x08\0\0\0\2\0\0\0\1\0\0\0\2"
			     "\x0d\0\x0a\x0b\x02\0\0\0\1\0\0\0\1k\1"
			     "\x0c\0\x0b\0"
			     "\x0c\0\x28\x0b\0\1\0\0\0\1x\0"
			     "\0"),
	[THRIFT_COMPACT] = IN("\x11"
			      "\x12"
			      "\x13\xff"
			      "\x14\xd7\x04"
			      "\x15\xe0\xc5\x08"
			      "\x16\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"
			      "\x17\0\0\0\0\0\0\xe0\x3f"
			      "\x18\2ab"
			      "\x19\x25\2\4"
			      "\x1b\1\x81\1k\1"
			      "\x1c\0"
			      "\x0c\x50\x18\1x\0"
			      "\0"),
};

static void assert_text(struct bytes got, const char *want)
{
	if (!bytes_eq_str(got, want))
		fail_msg("got \"%.*s\", want \"%s\"", (int)got.n, (const char *)got.p, want);
}

static void read_list(struct thrift_reader *r)
{
	struct thrift_list l = thrift_list(r);

	assert_int_equal(l.type, THRIFT_I32);
	assert_int_equal(l.n, 2);
	for (int want = 1; thrift_element(r, &l); want++)
		assert_int_equal(thrift_i32(r), want);
}

static void read_map(struct thrift_reader *r)
{
	struct thrift_map m = thrift_map(r);

	assert_int_equal(m.n, 1);
	assert_int_equal(m.key, THRIFT_STRING);
	assert_int_equal(m.value, THRIFT_BOOL);
	assert_text(thrift_string(r), "k");
	assert_true(thrift_bool(r));
}

static void read_value(struct thrift_reader *r, const struct thrift_field *f)
{
	struct thrift_field inner;

	switch (f->id) {
	case 1:
	case 2:
		assert_int_equal(thrift_bool(r), f->id == 1);
		return;
	case 3:
		assert_int_equal(thrift_byte(r), -1);
		return;
	case 4:
		assert_int_equal(thrift_i16(r), -300);
		return;
	case 5:
		assert_int_equal(thrift_i32(r), 70000);
		return;
	case 6:
		assert_true(thrift_i64(r) == INT64_MIN);
		return;
	case 7:
		assert_true(thrift_double(r) == 0.5);
		return;
	case 8:
		assert_text(thrift_string(r), "ab");
		return;
	case 9:
		read_list(r);
		return;
	case 10:
		read_map(r);
		return;
	case 11:
		thrift_struct(r);
		assert_false(thrift_field(r, &inner));
		return;
	default:
		assert_int_equal(f->id, 40);
		thrift_struct(r);
		assert_true(thrift_field(r, &inner));
		assert_int_equal(inner.id, 1);
		assert_text(thrift_string(r), "x");
		assert_false(thrift_field(r, &inner));
	}
}

static void both_protocols_give_the_same_values(void **state)
{
	static const uint8_t types[] = { THRIFT_BOOL, THRIFT_BOOL, THRIFT_BYTE,   THRIFT_I16,
					 THRIFT_I32,  THRIFT_I64,  THRIFT_DOUBLE, THRIFT_STRING,
					 THRIFT_LIST, THRIFT_MAP,  THRIFT_STRUCT, THRIFT_STRUCT };

	(void)state;
	for (int protocol = THRIFT_BINARY; protocol <= THRIFT_COMPACT; protocol++) {
		struct thrift_reader r = reader(all_types[protocol], protocol);
		struct thrift_field f;
		size_t n = 0;

		thrift_struct(&r);
		for (; thrift_field(&r, &f); n++) {
			assert_int_equal(f.type, types[n]);
			read_value(&r, &f);
		}
		assert_int_equal(n, COUNT_OF(types));
		assert_int_equal(thrift_failed(&r, NULL), 0);
		assert_int_equal(thrift_left(&r), 0);
	}
}

static void what_is_skipped_is_skipped_whole(void **state)
{
	(void)state;
	for (int protocol = THRIFT_BINARY; protocol <= THRIFT_COMPACT; protocol++) {
		struct thrift_reader r = reader(all_types[protocol], protocol);

		thrift_skip(&r, THRIFT_STRUCT);
		assert_int_equal(thrift_failed(&r, NULL), 0);
		assert_int_equal(thrift_left(&r), 0);
	}
}

/* However much of it is missing: an error, not a crash; a struct without its stop is damaged. */
static void a_prefix_is_damaged(void **state)
{
	(void)state;
	for (int protocol = THRIFT_BINARY; protocol <= THRIFT_COMPACT; protocol++) {
		for (size_t n = 0; n < all_types[protocol].n; n++) {
			struct bytes in = { all_types[protocol].p, n };
			struct thrift_reader r = reader(in, protocol);

			thrift_skip(&r, THRIFT_STRUCT);
			if (thrift_failed(&r, NULL) == 0)
				fail_msg("protocol %d: %zu bytes were enough", protocol, n);
		}
	}
}

static const struct {
	const char *name;
	enum thrift_protocol protocol;
	struct bytes in;
	const char *want;
} damaged[] = {
	{ "string length", THRIFT_BINARY, IN("\x0b\0\1\0\0\0\5abc"),
	  "thrift: byte 7: a string longer than what is left: its bytes (5)" },
	{ "negative length", THRIFT_BINARY,
	  IN("\x0b\0\1\xff\xff\xff\xff"
	     "abc"),
	  "thrift: byte 7: a string longer than what is left: its bytes (4294967295)" },
	{ "compact length", THRIFT_COMPACT, IN("\x18\5abc"),
	  "thrift: byte 2: a string longer than what is left: its bytes (5)" },
	{ "count of structs", THRIFT_BINARY, IN("\x0f\0\1\x0c\0\0\0\3\0\0"),
	  "thrift: byte 8: more elements than there are bytes left for: their number (3)" },
	{ "count of i64, half there", THRIFT_BINARY, IN("\x0f\0\1\x0a\0\0\0\2\0\0\0\0\0\0\0\0\0\0"),
	  "thrift: byte 8: more elements than there are bytes left for: their number (2)" },
	{ "compact count", THRIFT_COMPACT, IN("\x19\xfc\xff\xff\xff\xff\x0f\0\0"),
	  "thrift: byte 7: more elements than there are bytes left for: their number "
	  "(4294967295)" },
	{ "map count", THRIFT_COMPACT, IN("\x1b\x08\x88\0\0"),
	  "thrift: byte 3: more elements than there are bytes left for: their number (8)" },
	{ "type", THRIFT_BINARY, IN("\x05\0\1\0"), "thrift: byte 1: no such type (5)" },
	{ "compact type", THRIFT_COMPACT, IN("\x1e\0"), "thrift: byte 1: no such type (14)" },
	{ "endless number", THRIFT_COMPACT, IN("\x16\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"),
	  "thrift: byte 1: a number that does not end: bytes left (11)" },
};

static void damage_is_named_with_its_place(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT_OF(damaged); i++) {
		struct thrift_reader r = reader(damaged[i].in, damaged[i].protocol);
		struct err err = ERR_INIT;

		thrift_skip(&r, THRIFT_STRUCT);
		if (thrift_failed(&r, &err) == 0 || strcmp(err.msg, damaged[i].want) != 0)
			fail_msg("%s: \"%s\"", damaged[i].name, err.msg);
		assert_int_equal(err.kind, ERR_INVALID);
	}
}

/* n structs (or lists, or maps) in one another. */
static int nest(uint8_t *p, enum thrift_protocol protocol, char what, int n)
{
	static const struct bytes levels[2][128] = {
		[THRIFT_BINARY] = { ['s'] = IN("\x0c\0\1"),
				    ['l'] = IN("\x0f\0\0\0\1"),
				    ['m'] = IN("\x03\x0d\0\0\0\1\0") },
		[THRIFT_COMPACT] = { ['s'] = IN("\x1c"),
				     ['l'] = IN("\x19"),
				     ['m'] = IN("\1\x3b\0") },
	};
	struct bytes level = levels[protocol][(int)what];
	uint8_t *from = p;

	for (int i = 0; i < n; i++, p += level.n)
		memcpy(p, level.p, level.n);
	return (int)(p - from);
}

static void nesting_is_bounded(void **state)
{
	static const uint8_t of[128] = {
		['s'] = THRIFT_STRUCT, ['l'] = THRIFT_LIST, ['m'] = THRIFT_MAP
	};
	uint8_t in[8192] = { 0 };

	(void)state;
	for (int protocol = THRIFT_BINARY; protocol <= THRIFT_COMPACT; protocol++) {
		for (const char *what = "slm"; *what != '\0'; what++) {
			struct thrift_reader r;
			struct err err = ERR_INIT;

			memset(in, 0, sizeof(in));
			nest(in, protocol, *what, 1000);
			r = reader((struct bytes){ in, sizeof(in) }, protocol);
			thrift_skip(&r, of[(int)*what]);
			assert_int_equal(thrift_failed(&r, &err), -1);
			assert_non_null(strstr(err.msg, "nested too deep: levels (32)"));
		}
	}
}

static void allowed_nesting_is_read(void **state)
{
	uint8_t in[256] = { 0 };

	(void)state;
	for (int protocol = THRIFT_BINARY; protocol <= THRIFT_COMPACT; protocol++) {
		struct thrift_reader r;
		int n;

		memset(in, 0, sizeof(in));
		n = nest(in, protocol, 's', THRIFT_MAX_DEPTH - 1) + THRIFT_MAX_DEPTH;
		r = reader((struct bytes){ in, (size_t)n }, protocol);
		thrift_skip(&r, THRIFT_STRUCT);
		assert_int_equal(thrift_failed(&r, NULL), 0);
		assert_int_equal(thrift_left(&r), 0);
	}
}

static const struct {
	const char *name;
	enum thrift_protocol protocol;
	struct bytes in;
	const char *method, *error;
	int type, seqid;
} messages[] = {
	{ "compact call", THRIFT_COMPACT,
	  IN("\x82\x21\x01\x09"
	     "emitBatch"),
	  "emitBatch", NULL, THRIFT_CALL, 1 },
	{ "compact oneway", THRIFT_COMPACT,
	  IN("\x82\x81\0\x09"
	     "emitBatch"),
	  "emitBatch", NULL, THRIFT_ONEWAY, 0 },
	{ "binary strict", THRIFT_BINARY,
	  IN("\x80\1\0\4\0\0\0\2"
	     "ab"
	     "\0\0\0\7"),
	  "ab", NULL, THRIFT_ONEWAY, 7 },
	{ "binary old", THRIFT_BINARY,
	  IN("\0\0\0\2"
	     "ab"
	     "\1\0\0\0\7"),
	  "ab", NULL, THRIFT_CALL, 7 },
	{ "not compact", THRIFT_COMPACT,
	  IN("\x81\1\0\4\0\0\0\2"
	     "ab"),
	  NULL, "thrift: byte 1: no compact message: it does not begin with 130 but (129)", 0, 0 },
	{ "binary for compact", THRIFT_COMPACT,
	  IN("\x80\1\0\4\0\0\0\2"
	     "ab"),
	  NULL,
	  "thrift: byte 1: a message of the binary protocol where a compact one belongs (128)", 0,
	  0 },
	{ "compact for binary", THRIFT_BINARY,
	  IN("\x82\x21\x01\x09"
	     "emitBatch"),
	  NULL,
	  "thrift: byte 4: a message of the compact protocol where a binary one belongs (130)", 0,
	  0 },
	{ "compact version", THRIFT_COMPACT,
	  IN("\x82\x22\0\2"
	     "ab"),
	  NULL, "thrift: byte 2: version of the compact protocol (2)", 0, 0 },
	{ "binary version", THRIFT_BINARY,
	  IN("\x80\2\0\4\0\0\0\2"
	     "ab\0\0\0\0"),
	  NULL, "thrift: byte 4: version of the binary protocol (32770)", 0, 0 },
	{ "old, name too long", THRIFT_BINARY,
	  IN("\x7f\0\0\2"
	     "ab\0\0\0\0"),
	  NULL, "thrift: byte 4: a name longer than what is left: its bytes (2130706434)", 0, 0 },
	{ "nothing", THRIFT_BINARY, IN(""), NULL,
	  "thrift: byte 0: the input ends early: bytes wanted (4)", 0, 0 },
};

static void message_headers(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT_OF(messages); i++) {
		struct thrift_reader r = reader(messages[i].in, messages[i].protocol);
		struct thrift_message m;
		struct err err = ERR_INIT;

		thrift_message(&r, &m);
		if (thrift_failed(&r, &err) < 0) {
			assert_string_equal(err.msg, messages[i].error ? messages[i].error : "");
			continue;
		}
		assert_null(messages[i].error);
		assert_text(m.name, messages[i].method);
		assert_int_equal(m.type, messages[i].type);
		assert_int_equal(m.seqid, messages[i].seqid);
		assert_int_equal(thrift_left(&r), 0);
	}
}

/* As some writers leave them. */
static void lists_without_a_type_are_empty(void **state)
{
	static const struct bytes in = IN("\0\0\0\0\0");
	struct thrift_reader r = reader(in, THRIFT_BINARY);
	struct thrift_list l = thrift_list(&r);

	(void)state;
	assert_int_equal(l.n, 0);
	assert_false(thrift_element(&r, &l));
	assert_int_equal(thrift_failed(&r, NULL), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(both_protocols_give_the_same_values),
		cmocka_unit_test(what_is_skipped_is_skipped_whole),
		cmocka_unit_test(a_prefix_is_damaged),
		cmocka_unit_test(damage_is_named_with_its_place),
		cmocka_unit_test(nesting_is_bounded),
		cmocka_unit_test(allowed_nesting_is_read),
		cmocka_unit_test(message_headers),
		cmocka_unit_test(lists_without_a_type_are_empty),
	};

	return cmocka_run_group_tests_name("thrift", tests, NULL, NULL);
}
