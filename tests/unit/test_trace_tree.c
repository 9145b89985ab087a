/* SPDX-License-Identifier: Apache-2.0
 *
 * test_trace_tree.c - traces as `spanmill get` draws them: the tree, what is broken about it, what
 * strangers put into names, and sizes that must not hurt.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "base/clock.h"
#include "base/mem.h"
#include "cmd/terminal.h"
#include "cmd/trace_view.h"
#include "wire/pb.h"

#include <stdio.h>

#define T0 (UINT64_C(1700000000) * NS_PER_S)

enum { INT = 1, SRV, CLI, PRO, CON };

struct one {
	const char *service, *name;
	uint64_t id, parent;
	int kind;
	uint64_t start_ms, end_ms; /* after T0 */
	int status;
};

static void put_text(struct buf *out, uint32_t number, const char *key, const char *text)
{
	size_t kv = pb_begin(out, number), any;

	pb_put_str(out, 1, key);
	any = pb_begin(out, 2);
	pb_put_str(out, 1, text);
	pb_end(out, any);
	pb_end(out, kv);
}

static void put_id(struct buf *out, uint32_t number, uint64_t id)
{
	uint8_t bytes[8];

	store_be64(bytes, id);
	pb_put_bytes(out, number, (struct bytes){ bytes, 8 });
}

static size_t begin_resource(struct buf *out, const char *service, size_t *scope)
{
	size_t rs = pb_begin(out, 1), resource = pb_begin(out, 1);

	if (service != NULL)
		put_text(out, 1, "service.name", service);
	pb_end(out, resource);
	*scope = pb_begin(out, 2);
	return rs;
}

static void put_span(struct buf *out, const struct one *s)
{
	static const uint8_t trace_id[16] = { 1, 2, 3 };
	size_t span = pb_begin(out, 2), status;

	pb_put_bytes(out, 1, (struct bytes){ trace_id, 16 });
	put_id(out, 2, s->id);
	if (s->parent != 0)
		put_id(out, 4, s->parent);
	pb_put_str(out, 5, s->name);
	pb_put_uint(out, 6, (uint64_t)s->kind);
	pb_put_fixed64(out, 7, T0 + s->start_ms * NS_PER_MS);
	pb_put_fixed64(out, 8, T0 + s->end_ms * NS_PER_MS);
	if (s->status != 0) {
		status = pb_begin(out, 15);
		pb_put_uint(out, 3, (uint64_t)s->status);
		pb_end(out, status);
	}
	pb_end(out, span);
}

static void put_one(struct buf *out, const struct one *s)
{
	size_t scope, rs = begin_resource(out, s->service, &scope);

	put_span(out, s);
	pb_end(out, scope);
	pb_end(out, rs);
}

/* Draw bytes, ASCII, 70 columns; the header's lines are left out unless `whole`. */
static void draw(const struct buf *otlp, bool attributes, bool whole, struct buf *out)
{
	const struct trace_view_options o = { .width = 70,
					      .ascii = true,
					      .attributes = attributes };
	struct bytes exact = { NULL, otlp->n };
	struct err err = ERR_INIT;
	uint8_t *copy = xmalloc(otlp->n + 1);
	struct buf all = BUF_INIT;
	struct trace_tree t;
	const char *p;

	if (otlp->n > 0)
		memcpy(copy, otlp->p, otlp->n);
	exact.p = copy;
	if (trace_tree_build(exact, &t, &err) < 0)
		fail_msg("%s", err.msg);
	trace_view_draw(&t, "0102", &o, &all);
	p = buf_cstr(&all);
	for (int i = 0; !whole && i < 4 && strchr(p, '\n') != NULL; i++)
		p = strchr(p, '\n') + 1;
	buf_add_str(out, p);
	buf_fini(&all);
	trace_tree_fini(&t);
	free(copy);
}

static const struct {
	const char *name;
	struct one spans[8];
	const char *want;
} cases[] = {
	{ "siblings by start, whatever the order they came in",
	  { { "b", "second", 3, 1, INT, 50, 100, 0 },
	    { "a", "first", 2, 1, INT, 0, 50, 0 },
	    { "a", "root", 1, 0, SRV, 0, 100, 2 } },
	  "a  root           srv   100 ms x ====================================\n"
	  "|- a  first       int  50.0 ms   ==================\n"
	  "`- b  second      int  50.0 ms                     ==================\n" },
	{ "missing parents are rows, one for each id",
	  { { "a", "x", 1, 9, INT, 10, 20, 0 },
	    { "a", "y", 2, 9, INT, 0, 100, 0 },
	    { "a", "z", 3, 8, INT, 20, 30, 0 },
	    { "a", "under x", 4, 1, INT, 10, 20, 0 } },
	  "missing parent 0000000000000009\n"
	  "|- a  y                          int   100 ms   =====================\n"
	  "`- a  x                          int  10.0 ms     ==\n"
	  "   `- a  under x                 int  10.0 ms     ==\n"
	  "missing parent 0000000000000008\n"
	  "`- a  z                          int  10.0 ms       ==\n" },
	{ "a shared Zipkin id: client above server, children by their service",
	  { { "web", "get", 2, 1, CLI, 0, 100, 0 },
	    { "db", "get", 2, 1, SRV, 10, 90, 0 },
	    { "web", "local", 3, 2, INT, 5, 6, 0 },
	    { "db", "query", 4, 2, INT, 20, 80, 0 },
	    { "web", "root", 1, 0, SRV, 0, 100, 0 },
	    { "other", "far", 5, 2, INT, 30, 40, 0 } },
	  "web  root            srv   100 ms   =================================\n"
	  "`- web  get          cli   100 ms   =================================\n"
	  "   |- web  local     int  1.00 ms    -\n"
	  "   `- db  get        srv  80.0 ms      ==========================\n"
	  "      |- db  query   int  60.0 ms         ====================\n"
	  "      `- other  far  int  10.0 ms            ====\n" },
	{ "its own parent",
	  { { "a", "me", 1, 1, INT, 0, 10, 0 } },
	  "a  (circle) me    int  10.0 ms   ====================================\n" },
	{ "a circle with a tail is cut at its earliest span",
	  { { "a", "tail", 4, 3, INT, 0, 10, 0 },
	    { "a", "x", 1, 3, INT, 5, 10, 0 },
	    { "a", "y", 2, 1, INT, 4, 10, 0 },
	    { "a", "z", 3, 2, INT, 6, 10, 0 } },
	  "a  (circle) y     int  6.00 ms                 ======================\n"
	  "`- a  z           int  4.00 ms                        ===============\n"
	  "   |- a  tail     int  10.0 ms   ====================================\n"
	  "   `- a  x        int  5.00 ms                     ==================\n" },
	{ "clocks that are off do not stretch the time line",
	  { { "a", "root", 1, 0, SRV, 0, 100, 0 },
	    { "a", "child before it", 2, 1, INT, 0, 50, 0 },
	    { "a", "backwards", 3, 1, INT, 60, 40, 0 },
	    { "a", "in 2200", 4, 1, INT, UINT64_C(7258118400000) - 1700000000000,
	      UINT64_C(7258118401000) - 1700000000000, 0 } },
	  "a  root                srv   100 ms   ===============================\n"
	  "|- a  child before it  int  50.0 ms   ===============\n"
	  "|- a  backwards        int        ?                     -\n"
	  "`- a  in 2200          int   1.00 s                                 >\n" },
	{ "names cannot steer the terminal",
	  { { "a\033[2J", "x\ny\r\x7f\xc2\x9b", 1, 0, 77, 0, 10, 0 },
	    { NULL,
	      "\xe2\x80\xae"
	      "evil \xe4\xbd\xa0\xe5\xa5\xbd",
	      2, 1, INT, 0, 10, 0 } },
	  "a?[2J  x?y???           ?    10.0 ms   ==============================\n"
	  "`- unknown  ?evil ??    int  10.0 ms   ==============================\n" },
	{ "copies of a span are siblings",
	  { { "a", "root", 1, 0, SRV, 0, 10, 0 },
	    { "a", "twin", 2, 1, INT, 0, 10, 0 },
	    { "a", "twin", 2, 1, INT, 0, 10, 0 },
	    { "a", "child", 3, 2, INT, 0, 10, 0 } },
	  "a  root           srv  10.0 ms   ====================================\n"
	  "|- a  twin        int  10.0 ms   ====================================\n"
	  "|  `- a  child    int  10.0 ms   ====================================\n"
	  "`- a  twin        int  10.0 ms   ====================================\n" },
};

static void trees_are_drawn(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		struct buf otlp = BUF_INIT, got = BUF_INIT;

		for (size_t k = 0; k < COUNT_OF(cases[i].spans) && cases[i].spans[k].id; k++)
			put_one(&otlp, &cases[i].spans[k]);
		draw(&otlp, false, false, &got);
		if (strcmp(buf_cstr(&got), cases[i].want) != 0)
			fail_msg("%s: got\n%swant\n%s", cases[i].name, buf_cstr(&got),
				 cases[i].want);
		buf_fini(&otlp);
		buf_fini(&got);
	}
}

static void the_header_counts(void **state)
{
	static const struct one spans[] = { { "a", "x", 1, 9, INT, 0, 1500, 2 },
					    { "b", "y", 2, 1, INT, 0, 100, 0 },
					    { "a", "z", 3, 1, INT, 0, 100, 2 } };
	struct buf otlp = BUF_INIT, got = BUF_INIT, none = BUF_INIT;

	(void)state;
	for (size_t k = 0; k < COUNT_OF(spans); k++)
		put_one(&otlp, &spans[k]);
	draw(&otlp, false, true, &got);
	assert_non_null(strstr(buf_cstr(&got), "trace 0102  3 spans, 2 services, 1.50 s, "
					       "1 missing parent, 2 errors\n"
					       "2023-11-14T22:13:20.000Z  a, b\n"));
	buf_reset(&got);
	draw(&none, true, true, &got);
	assert_non_null(strstr(buf_cstr(&got), "trace 0102  0 spans, 0 services"));
	buf_fini(&otlp);
	buf_fini(&got);
}

/* Key "k" with an AnyValue of these bytes. */
static void put_value(struct buf *out, const void *any, size_t n)
{
	size_t kv = pb_begin(out, 9);

	pb_put_str(out, 1, "k");
	pb_put_bytes(out, 2, (struct bytes){ any, n });
	pb_end(out, kv);
}

/* [[[...]]], 60 deep. */
static void put_deep_value(struct buf *out)
{
	struct buf inner = BUF_INIT, outer = BUF_INIT;

	for (int i = 0; i < 60; i++) {
		size_t array;

		buf_reset(&outer);
		array = pb_begin(&outer, 5);
		pb_put_bytes(&outer, 1, buf_bytes(&inner));
		pb_end(&outer, array);
		buf_reset(&inner);
		buf_add(&inner, outer.p, outer.n);
	}
	put_value(out, inner.p, inner.n);
	buf_fini(&inner);
	buf_fini(&outer);
}

static void put_talkative_span(struct buf *out)
{
	static const uint8_t ids[24] = { 0xaa, [16] = 0xbb };
	size_t scope, rs = begin_resource(out, "a", &scope), span = pb_begin(out, 2), mark;

	pb_put_bytes(out, 1, (struct bytes){ ids, 16 });
	put_id(out, 2, 7);
	pb_put_str(out, 5, "n");
	pb_put_fixed64(out, 7, T0);
	pb_put_fixed64(out, 8, T0 + NS_PER_S);
	put_text(out, 9, "text", "a\033b");
	put_value(out, "\x10\x01", 2);
	put_value(out, "\x18\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 11);
	put_value(out, "\x21\0\0\0\0\0\0\xf8\x3f", 9);
	put_value(out, "\x32\x09\x0a\x07\x0a\x01x\x12\x02\x10\0", 11);
	put_value(out, "\x3a\x02\xca\xfe", 4);
	put_value(out, "", 0);
	put_deep_value(out);
	mark = pb_begin(out, 11);
	pb_put_fixed64(out, 1, T0 + 1500 * NS_PER_US);
	pb_put_str(out, 2, "ev");
	put_text(out, 3, "in", "event");
	pb_end(out, mark);
	mark = pb_begin(out, 13);
	pb_put_bytes(out, 1, (struct bytes){ ids, 16 });
	pb_put_bytes(out, 2, (struct bytes){ ids + 16, 8 });
	pb_end(out, mark);
	mark = pb_begin(out, 15);
	pb_put_str(out, 2, "no money");
	pb_put_uint(out, 3, 2);
	pb_end(out, mark);
	pb_end(out, span);
	pb_end(out, scope);
	pb_end(out, rs);
}

static void attributes_are_shown(void **state)
{
	static const char *const want[] = {
		"   span 0000000000000007\n",
		"   status error: no money\n",
		"   text = a?b\n",
		"   k = true\n",
		"   k = -1\n",
		"   k = 1.5\n",
		"   k = {x: false}\n",
		"   k = 0xcafe\n",
		"   k = \n",
		"   k = [[[[[[[[[[[",
		"   event +1.50 ms ev\n       in = event\n",
		"   link trace aa000000000000000000000000000000 span bb00000000000000\n"
	};
	struct buf otlp = BUF_INIT, got = BUF_INIT;

	(void)state;
	put_talkative_span(&otlp);
	draw(&otlp, true, true, &got);
	for (size_t i = 0; i < COUNT_OF(want); i++)
		if (strstr(buf_cstr(&got), want[i]) == NULL)
			fail_msg("no \"%s\" in\n%s", want[i], buf_cstr(&got));
	buf_fini(&otlp);
	buf_fini(&got);
}

enum { MANY = 100000 };

static uint64_t one_below_the_other(uint64_t i)
{
	return i;
}

static uint64_t nobody(uint64_t i)
{
	return i + MANY * 10;
}

static uint64_t the_same(uint64_t i)
{
	(void)i;
	return 1;
}

static uint64_t in_a_ring(uint64_t i)
{
	return i == 0 ? MANY : i;
}

/* 100,000 spans, ids 1.. (or all 1), with parents by the rule. */
static void sizes_do_not_hurt(void **state)
{
	static const struct {
		const char *name;
		uint64_t (*parent)(uint64_t i);
		bool same_id;
	} rules[] = { { "a chain", one_below_the_other, false },
		      { "orphans", nobody, false },
		      { "children of one", the_same, false },
		      { "one id", the_same, true },
		      { "a ring", in_a_ring, false } };

	(void)state;
	for (size_t i = 0; i < COUNT_OF(rules); i++) {
		struct buf otlp = BUF_INIT, got = BUF_INIT;
		uint64_t start = clock_mono_ns(), took;
		size_t scope, rs = begin_resource(&otlp, "s", &scope), lines = 0;

		for (uint64_t k = 0; k < MANY; k++) {
			const struct one s = { NULL,
					       "n",
					       rules[i].same_id ? 1 : k + 1,
					       rules[i].parent(k),
					       k % 2 ? SRV : CLI,
					       k,
					       k + 1,
					       0 };

			put_span(&otlp, &s);
		}
		pb_end(&otlp, scope);
		pb_end(&otlp, rs);
		draw(&otlp, true, false, &got);
		for (const char *p = buf_cstr(&got); (p = strchr(p, '\n')) != NULL; p++)
			lines++;
		if (lines < 2 * (size_t)MANY)
			fail_msg("%s: %zu lines", rules[i].name, lines);
		took = (clock_mono_ns() - start) / NS_PER_MS;
		print_message("%s: %zu lines, %zu bytes, %llu ms\n", rules[i].name, lines, got.n,
			      (unsigned long long)took);
		buf_fini(&otlp);
		buf_fini(&got);
	}
}

static void damage_is_an_error(void **state)
{
	static const uint8_t damaged[] = { 0x0a, 0x05, 0x12, 0x7f };
	struct err err = ERR_INIT;
	struct trace_tree t;

	(void)state;
	assert_int_equal(trace_tree_build((struct bytes){ damaged, sizeof(damaged) }, &t, &err),
			 -1);
	assert_true(err.msg[0] != '\0');
	trace_tree_fini(&t);
}

static void times_read_well(void **state)
{
	static const struct {
		uint64_t ns;
		const char *want;
	} times[] = { { 0, "0 ns" },
		      { 999, "999 ns" },
		      { 1000, "1.00 us" },
		      { 12345678, "12.3 ms" },
		      { 999999999, "1000 ms" },
		      { 59 * NS_PER_S, "59.0 s" },
		      { 125 * NS_PER_S, "2m 05s" },
		      { 7300 * NS_PER_S, "2h 01m" },
		      { UINT64_MAX, "5124095h 34m" } };

	(void)state;
	for (size_t i = 0; i < COUNT_OF(times); i++) {
		char got[TERMINAL_TIME_SIZE];

		terminal_format_time(times[i].ns, true, got);
		assert_string_equal(got, times[i].want);
	}
}

static void texts_are_cut_by_columns(void **state)
{
	static const struct {
		const char *in;
		unsigned max;
		bool ascii;
		const char *want;
		unsigned width;
	} texts[] = { { "abc", 3, false, "abc", 3 },
		      { "abcd", 3, false, "ab\xe2\x80\xa6", 3 },
		      { "abcd", 3, true, "ab~", 3 },
		      { "abcd", 0, true, "", 0 },
		      { "\xe4\xbd\xa0\xe5\xa5\xbd", 4, false, "\xe4\xbd\xa0\xe5\xa5\xbd", 4 },
		      { "\xe4\xbd\xa0\xe5\xa5\xbd", 3, false, "\xe4\xbd\xa0\xe2\x80\xa6", 3 },
		      { "e\xcc\x81x", 2, false, "e\xcc\x81x", 2 },
		      { "\xff\xc3", 5, false, "??", 2 } };

	(void)state;
	for (size_t i = 0; i < COUNT_OF(texts); i++) {
		struct buf out = BUF_INIT;
		unsigned width = terminal_add_text(&out, bytes_str(texts[i].in), texts[i].max,
						   texts[i].ascii);

		assert_string_equal(buf_cstr(&out), texts[i].want);
		assert_int_equal(width, texts[i].width);
		buf_fini(&out);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(trees_are_drawn),          cmocka_unit_test(the_header_counts),
		cmocka_unit_test(attributes_are_shown),     cmocka_unit_test(sizes_do_not_hurt),
		cmocka_unit_test(damage_is_an_error),       cmocka_unit_test(times_read_well),
		cmocka_unit_test(texts_are_cut_by_columns),
	};

	return cmocka_run_group_tests_name("trace_tree", tests, NULL, NULL);
}
