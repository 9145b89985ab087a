/* SPDX-License-Identifier: Apache-2.0
 *
 * test_gen_payload.c - what `spanmill gen` makes up is legal, nests, repeats, and has the asked
 * size; its histogram of latencies tells percentiles within 3 %.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "base/clock.h"
#include "base/mem.h"
#include "cmd/gen_payload.h"
#include "cmd/gen_stats.h"
#include "wire/otlp_index.h"
#include "wire/zipkin_json.h"

#include <stdio.h>

#define NOW (UINT64_C(1700000000) * NS_PER_S)

static const struct {
	const char *name;
	uint32_t spans, services, attributes, bytes;
} shapes[] = {
	{ "one bare span", 1, 1, 0, 0 },
	{ "the default", 10, 3, 10, 450 },
	{ "one service", 50, 1, 4, 300 },
	{ "many services", 2000, GEN_SERVICES_MAX, 10, 450 },
	{ "all attributes, large", 20, 12, GEN_ATTRIBUTES_MAX, GEN_SPAN_BYTES_MAX },
};

struct made {
	struct gen_shape shape;
	struct gen_span *spans;
	char *text;
};

static void make(struct made *m, size_t i, uint64_t seed)
{
	m->text = gen_payload_text(1);
	m->shape = (struct gen_shape){
		shapes[i].spans, shapes[i].services, shapes[i].attributes, shapes[i].bytes, seed,
		m->text
	};
	m->spans = xcalloc(shapes[i].spans, sizeof(*m->spans));
	gen_payload_trace(&m->shape, 7, NOW, m->spans);
}

static void made_fini(struct made *m)
{
	free(m->spans);
	free(m->text);
}

/* How many spans the index finds; none may be rejected. */
static uint32_t index_count(const struct buf *b, const char *name)
{
	struct span_tables t = { 0 };
	struct otlp_counts n = { 0 };
	struct otlp_result result;
	struct arena arena = ARENA_INIT;
	struct err err = ERR_INIT;

	if (otlp_count(buf_bytes(b), &n, &err) < 0)
		fail_msg("%s: %s", name, err.msg);
	t.spans = xcalloc(n.n_spans + 1, sizeof(*t.spans));
	t.scopes = xcalloc(n.n_scopes + 1, sizeof(*t.scopes));
	t.resources = xcalloc(n.n_resources + 1, sizeof(*t.resources));
	t.heads = xcalloc(n.n_heads + 1, sizeof(*t.heads));
	if (otlp_index(buf_bytes(b), &t, &arena, &result, &err) < 0)
		fail_msg("%s: %s", name, err.msg);
	assert_int_equal(result.rejects.n, 0);
	free(t.spans);
	free(t.scopes);
	free(t.resources);
	free(t.heads);
	arena_fini(&arena);
	return t.n_spans;
}

static void otlp_is_legal_and_has_the_size(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT_OF(shapes); i++) {
		struct buf out = BUF_INIT, again = BUF_INIT;
		struct made m;
		size_t each;

		make(&m, i, 42);
		gen_payload_otlp(&m.shape, m.spans, m.shape.spans_per_trace, &out);
		gen_payload_otlp(&m.shape, m.spans, m.shape.spans_per_trace, &again);
		assert_true(bytes_eq(buf_bytes(&out), buf_bytes(&again)));
		assert_int_equal(index_count(&out, shapes[i].name), shapes[i].spans);
		each = out.n / shapes[i].spans;
		if (shapes[i].attributes >= 10 &&
		    (each < shapes[i].bytes * 9 / 10 || each > shapes[i].bytes * 12 / 10 + 200))
			fail_msg("%s: %zu bytes a span", shapes[i].name, each);
		buf_fini(&out);
		buf_fini(&again);
		made_fini(&m);
	}
}

static void zipkin_is_legal(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT_OF(shapes); i++) {
		struct buf json = BUF_INIT, otlp = BUF_INIT;
		struct zipkin_result result;
		struct arena arena = ARENA_INIT;
		struct err err = ERR_INIT;
		struct made m;

		make(&m, i, 42);
		gen_payload_zipkin(&m.shape, m.spans, m.shape.spans_per_trace, &json);
		if (zipkin_json_decode(buf_bytes(&json), 0, false, &arena,
				       &otlp, &result, &err) < 0)
			fail_msg("%s: %s", shapes[i].name, err.msg);
		assert_int_equal(result.n_bad, 0);
		assert_int_equal(result.n_ok, shapes[i].spans);
		buf_fini(&json);
		buf_fini(&otlp);
		arena_fini(&arena);
		made_fini(&m);
	}
}

static void check_child(const struct gen_span *spans, uint32_t i, const char *name)
{
	const struct gen_span *sp = &spans[i], *parent = &spans[sp->parent];

	if (sp->parent >= i || memcmp(sp->parent_id, parent->span_id, 8) != 0)
		fail_msg("%s: span %u has no parent before it", name, i);
	if (sp->start_ns < parent->start_ns || sp->end_ns > parent->end_ns ||
	    sp->end_ns < sp->start_ns)
		fail_msg("%s: span %u does not lie within its parent", name, i);
	if ((parent->kind == SPAN_CLIENT && sp->kind != SPAN_SERVER) ||
	    (parent->kind == SPAN_PRODUCER && sp->kind != SPAN_CONSUMER))
		fail_msg("%s: span %u does not answer its caller", name, i);
}

static void traces_nest_and_repeat(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT_OF(shapes); i++) {
		struct made a, b, c;

		make(&a, i, 42);
		make(&b, i, 42);
		make(&c, i, 43);
		assert_memory_equal(a.spans, b.spans, shapes[i].spans * sizeof(*a.spans));
		assert_memory_not_equal(a.spans[0].trace_id, c.spans[0].trace_id, 16);
		for (uint32_t k = 1; k < shapes[i].spans; k++)
			check_child(a.spans, k, shapes[i].name);
		made_fini(&a);
		made_fini(&b);
		made_fini(&c);
	}
}

static void percentiles_are_within_3_percent(void **state)
{
	static const struct {
		double share;
		uint64_t us;
	} want[] = { { 0.5, 50000 }, { 0.9, 90000 }, { 0.99, 99000 }, { 0.001, 100 } };
	struct gen_latency *l = xcalloc(1, sizeof(*l));

	(void)state;
	assert_int_equal(gen_latency_percentile(l, 0.5), 0);
	for (uint64_t us = 1; us <= 100000; us++)
		gen_latency_add(l, us * NS_PER_US);
	for (size_t i = 0; i < COUNT_OF(want); i++) {
		uint64_t got = gen_latency_percentile(l, want[i].share);

		if (got < want[i].us || got > want[i].us + want[i].us * 3 / 100 + 1)
			fail_msg("%g: %llu us, want %llu", want[i].share, (unsigned long long)got,
				 (unsigned long long)want[i].us);
	}
	assert_int_equal(gen_latency_percentile(l, 1), 100000);
	gen_latency_add(l, UINT64_MAX); /* the last slot takes whatever is longer */
	free(l);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(otlp_is_legal_and_has_the_size),
		cmocka_unit_test(zipkin_is_legal),
		cmocka_unit_test(traces_nest_and_repeat),
		cmocka_unit_test(percentiles_are_within_3_percent),
	};

	return cmocka_run_group_tests_name("gen_payload", tests, NULL, NULL);
}
