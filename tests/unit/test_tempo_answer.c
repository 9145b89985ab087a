/* SPDX-License-Identifier: Apache-2.0
 *
 * test_tempo_answer.c - what other nodes answer is taken as a whole or refused with a reason.
 */
#include "query/tempo_answer.h"
#include "wire/pb.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static const uint8_t id[16] = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16 };

/* A trace of one span with this trace id. */
static void put_trace(struct buf *out, const void *trace_id, size_t n)
{
	size_t trace = pb_begin(out, 1), resource = pb_begin(out, 1), scope = pb_begin(out, 2);
	size_t span = pb_begin(out, 2);

	pb_put_bytes(out, 1, (struct bytes){ trace_id, n });
	pb_put_str(out, 5, "name");
	pb_end(out, span);
	pb_end(out, scope);
	pb_end(out, resource);
	pb_end(out, trace);
}

static int parse(const struct buf *b, struct tempo_answer *a, struct err *err)
{
	return tempo_answer_parse(buf_bytes(b), id, a, err);
}

static void an_answer_has_its_parts(void **state)
{
	struct buf b = BUF_INIT;
	struct tempo_answer a;
	struct err err = ERR_INIT;
	size_t mark;

	(void)state;
	put_trace(&b, id, 16);
	mark = pb_begin(&b, 2);
	pb_put_uint(&b, 1, 150);
	pb_end(&b, mark);
	pb_put_uint(&b, 3, 1);
	pb_put_str(&b, 4, "block 1:\na \xc3\xa9 is missing");
	pb_put_str(&b, 99, "of a later version");
	assert_int_equal(parse(&b, &a, &err), 0);
	assert_true(a.is_partial);
	assert_int_equal(a.inspected_bytes, 150);
	assert_string_equal(a.message, "block 1:?a ?? is missing");
	assert_true(a.trace.n > 16);
	buf_fini(&b);
}

static void a_long_message_is_cut(void **state)
{
	char text[1000];
	struct buf b = BUF_INIT;
	struct tempo_answer a;

	(void)state;
	memset(text, 'x', sizeof(text));
	pb_put_bytes(&b, 1, BYTES_EMPTY);
	pb_put_bytes(&b, 4, (struct bytes){ (uint8_t *)text, sizeof(text) });
	assert_int_equal(parse(&b, &a, NULL), 0);
	assert_int_equal(strlen(a.message), TEMPO_ANSWER_MESSAGE - 1);
	assert_int_equal(a.trace.n, 0);
	assert_false(a.is_partial);
	buf_fini(&b);
}

static void what_is_no_answer_is_refused(void **state)
{
	static const struct {
		const char *name, *body;
		size_t n;
		const char *want;
	} cases[] = {
		{ "nothing", "", 0, "no trace" },
		{ "a page", "<html>", 6, "no protobuf" },
		{ "two traces", "\x0a\x00\x0a\x00", 4, "two traces" },
		{ "cut", "\x0a\x05xx", 4, "cut short" },
		{ "metrics of nonsense", "\x0a\x00\x12\x01\xff", 5, "metrics" },
		{ "a trace of nonsense", "\x0a\x01\xff", 3, "trace is damaged" },
		{ "a span of nonsense", "\x0a\x07\x0a\x05\x12\x03\x12\x01\xff", 9,
		  "span is damaged" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		struct bytes body = { (const uint8_t *)cases[i].body, cases[i].n };
		struct tempo_answer a;
		struct err err = ERR_INIT;

		if (tempo_answer_parse(body, id, &a, &err) != -1 || err.kind != ERR_CORRUPT ||
		    strstr(err.msg, cases[i].want) == NULL)
			fail_msg("%s: \"%s\"", cases[i].name, err.msg);
	}
}

static void spans_of_another_trace_are_refused(void **state)
{
	uint8_t other[16];
	struct buf b = BUF_INIT;
	struct tempo_answer a;
	struct err err = ERR_INIT;

	(void)state;
	memcpy(other, id, 16);
	other[15]++;
	put_trace(&b, other, 16);
	assert_int_equal(parse(&b, &a, &err), -1);
	assert_non_null(strstr(err.msg, "another trace: 0102030405060708090a0b0c0d0e0f11"));
	buf_reset(&b);
	put_trace(&b, other, 8); /* as a foreign writer's blocks may hold it */
	assert_int_equal(parse(&b, &a, &err), 0);
	buf_fini(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_answer_has_its_parts),
		cmocka_unit_test(a_long_message_is_cut),
		cmocka_unit_test(what_is_no_answer_is_refused),
		cmocka_unit_test(spans_of_another_trace_are_refused),
	};

	return cmocka_run_group_tests_name("tempo_answer", tests, NULL, NULL);
}
