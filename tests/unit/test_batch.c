/* SPDX-License-Identifier: Apache-2.0
 *
 * test_batch.c - derived batches against protobuf-c: whatever was filtered, merged, split and
 * edited encodes to what the same operation on an unpacked tree packs to. Lifetimes and the budget
 * under AddressSanitizer; allocations counted.
 */
#include "tests/unit/otlp_fixture.h"

#include "base/rng.h"
#include "pipeline/batch.h"
#include "tests/bench/payload.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

/* ---- allocations, counted where no sanitizer owns malloc ---- */

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define COUNTS_MALLOC 0
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define COUNTS_MALLOC 0
#endif
#endif
#ifndef COUNTS_MALLOC
#define COUNTS_MALLOC 1
#endif

static size_t n_mallocs;

#if COUNTS_MALLOC
void *__libc_malloc(size_t n);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *p, size_t n);

void *malloc(size_t n)
{
	n_mallocs++;
	return __libc_malloc(n);
}

void *calloc(size_t count, size_t size)
{
	n_mallocs++;
	return __libc_calloc(count, size);
}

void *realloc(void *p, size_t n)
{
	n_mallocs++;
	return __libc_realloc(p, n);
}
#endif

/* ---- helpers ---- */

static struct batch *batch_of(struct bytes request, struct budget *budget)
{
	struct rcbuf *r = rcbuf_new(budget, request.n);
	struct otlp_result result;
	struct err err = ERR_INIT;
	struct batch *b;

	assert_non_null(r);
	memcpy(r->p, request.p, request.n);
	r->n = request.n;
	b = batch_from_otlp(r, "t1", budget, &result, &err);
	if (b == NULL)
		fail_msg("batch_from_otlp: %s", err.msg);
	return b;
}

static struct batch *payload_batch(uint32_t n_spans, uint64_t seed, struct budget *budget)
{
	struct buf b = BUF_INIT;
	struct batch *out;

	payload_request(&b, n_spans, seed);
	out = batch_of(buf_bytes(&b), budget);
	buf_fini(&b);
	return out;
}

static void encode(const struct batch *b, struct buf *out)
{
	struct arena a = ARENA_INIT;
	struct batch_encoding e;

	batch_encode(b, &a, &e);
	for (size_t i = 0; i < e.n_pieces; i++)
		buf_add_bytes(out, e.pieces[i]);
	assert_int_equal(e.n_bytes, out->n);
	assert_int_equal(batch_encoded_size(b), out->n);
	arena_fini(&a);
}

/* ---- the same operations on a tree ---- */

typedef bool (*keep_fn)(size_t i, const void *arg);

/* Remove spans in place, and envelopes that become empty. */
static void tree_filter(oracle_request *m, keep_fn keep, const void *arg)
{
	size_t number = 0, n_rs = 0;

	for (size_t i = 0; i < m->n_resource_spans; i++) {
		Otlp__ResourceSpans *rs = m->resource_spans[i];
		size_t n_ss = 0;

		for (size_t k = 0; k < rs->n_scope_spans; k++) {
			Otlp__ScopeSpans *ss = rs->scope_spans[k];
			size_t n = 0;

			for (size_t s = 0; s < ss->n_spans; s++)
				if (keep(number++, arg))
					ss->spans[n++] = ss->spans[s];
				else
					otlp__span__free_unpacked(ss->spans[s], NULL);
			ss->n_spans = n;
			if (n > 0)
				rs->scope_spans[n_ss++] = ss;
			else
				otlp__scope_spans__free_unpacked(ss, NULL);
		}
		rs->n_scope_spans = n_ss;
		if (n_ss > 0)
			m->resource_spans[n_rs++] = rs;
		else
			otlp__resource_spans__free_unpacked(rs, NULL);
	}
	m->n_resource_spans = n_rs;
}

static Otlp__Span *tree_span(oracle_request *m, size_t number)
{
	for (size_t i = 0; i < m->n_resource_spans; i++)
		for (size_t k = 0; k < m->resource_spans[i]->n_scope_spans; k++) {
			Otlp__ScopeSpans *ss = m->resource_spans[i]->scope_spans[k];

			if (number < ss->n_spans)
				return ss->spans[number];
			number -= ss->n_spans;
		}
	fail_msg("no span %zu", number);
	return NULL;
}

static bool keep_by_table(size_t i, const void *arg)
{
	return ((const uint8_t *)arg)[i] != 0;
}

/* A batch and the tree it must stay equal to. */
struct pair {
	struct batch *b;
	oracle_request *m;
};

static void check_pair(const struct pair *p)
{
	struct buf bytes = BUF_INIT, want = BUF_INIT, got = BUF_INIT;
	struct indexed x;
	oracle_request *m;

	encode(p->b, &bytes);
	m = oracle_unpack(buf_bytes(&bytes));
	assert_non_null(m);
	oracle_pack(p->m, &want);
	oracle_pack(m, &got);
	if (!bytes_eq(buf_bytes(&want), buf_bytes(&got)))
		fail_msg("%zu bytes, the tree packs to %zu", got.n, want.n);
	/* The index of what was encoded has the same spans. */
	assert_int_equal(indexed_init(&x, buf_bytes(&bytes)), 0);
	assert_int_equal(x.t.n_spans, p->b->tables.n_spans);
	for (uint32_t i = 0; i < x.t.n_spans; i++) {
		const struct span_ref *a = &x.t.spans[i], *c = &p->b->tables.spans[i];

		assert_memory_equal(a->trace_id, c->trace_id, 16);
		assert_memory_equal(a->span_id, c->span_id, 8);
		assert_true(a->th == c->th && a->r == c->r && a->len == c->len);
		assert_true(bytes_eq(span_trace_state(a), span_trace_state(c)));
		assert_true(bytes_eq(span_name(a), span_name(c)));
	}
	indexed_fini(&x);
	oracle_free(m);
	buf_fini(&bytes);
	buf_fini(&want);
	buf_fini(&got);
}

static oracle_request *tree_copy(const oracle_request *m)
{
	struct buf b = BUF_INIT;
	oracle_request *copy;

	oracle_pack(m, &b);
	copy = oracle_unpack(buf_bytes(&b));
	buf_fini(&b);
	return copy;
}

static void step_filter(struct pair *p, struct rng *r)
{
	uint32_t n = p->b->tables.n_spans, percent = (uint32_t)rng_below(r, 101);
	uint8_t *keep = xmalloc(n);

	for (uint32_t i = 0; i < n; i++)
		keep[i] = rng_below(r, 100) < percent;
	keep[rng_below(r, n)] = 1;
	p->b = batch_filter(p->b, keep, DROP_FILTERED);
	tree_filter(p->m, keep_by_table, keep);
	free(keep);
}

static void step_edit(struct pair *p, struct rng *r)
{
	static const char *const states[] = { "ot=th:c", "ot=th:8;rv:00000000000001,x=y",
					      "vendor=1", "" };

	p->b = batch_editable(p->b);
	for (uint64_t k = rng_below(r, 20); k > 0; k--) {
		uint32_t i = (uint32_t)rng_below(r, p->b->tables.n_spans);
		const char *state = states[rng_below(r, COUNT_OF(states))];
		Otlp__Span *span = tree_span(p->m, i);

		batch_set_trace_state(p->b, i, bytes_str(state));
		if (span->trace_state != protobuf_c_empty_string)
			free(span->trace_state);
		span->trace_state =
			*state ? xstrdup(state) : (char *)(uintptr_t)protobuf_c_empty_string;
	}
}

static void step_append(struct pair *p, struct rng *r)
{
	struct buf field = BUF_INIT;
	uint32_t i = (uint32_t)rng_below(r, p->b->tables.n_spans);
	Otlp__Span *span = tree_span(p->m, i);
	struct bytes raw;
	Otlp__KeyValue *kv;

	put_attribute(&field, 9, "added", "later");
	p->b = batch_editable(p->b);
	raw = (struct bytes){ arena_dup(&p->b->arena, field.p, field.n), field.n };
	batch_append_field(p->b, i, raw);
	kv = otlp__key_value__unpack(NULL, raw.n - 2, raw.p + 2);
	assert_non_null(kv);
	span->attributes = xrealloc(span->attributes, (span->n_attributes + 1) * sizeof(kv));
	span->attributes[span->n_attributes++] = kv;
	buf_fini(&field);
}

/* Cut in two, keep one half or put both together again. */
static void step_split(struct pair *p, struct rng *r)
{
	uint32_t n = p->b->tables.n_spans, cut;
	struct batch *halves[2];
	uint8_t *keep;

	if (n < 2)
		return;
	cut = 1 + (uint32_t)rng_below(r, n - 1);
	batch_split(p->b, cut, &halves[0], &halves[1]);
	assert_int_equal(halves[0]->tables.n_spans, cut);
	keep = xcalloc(1, n);
	memset(keep + cut, 1, n - cut);
	tree_filter(p->m, keep_by_table, keep);
	free(keep);
	p->b = halves[1];
	batch_unref(halves[0]);
}

/* Divide at random, keep either part. */
static void step_divide(struct pair *p, struct rng *r)
{
	uint32_t n = p->b->tables.n_spans, n_kept = 0;
	uint8_t *keep = xmalloc(n);
	struct batch *parts[2];
	bool second = rng_below(r, 2);
	uint64_t odds = rng_below(r, 5); /* 0: none; 4: all */

	for (uint32_t i = 0; i < n; i++)
		n_kept += keep[i] = rng_below(r, 4) < odds;
	batch_divide(p->b, keep, &parts[0], &parts[1]);
	assert_int_equal(parts[0] ? parts[0]->tables.n_spans : 0, n_kept);
	assert_int_equal(parts[1] ? parts[1]->tables.n_spans : 0, n - n_kept);
	if (parts[second] == NULL)
		second = !second;
	for (uint32_t i = 0; i < n; i++)
		keep[i] = second ? !keep[i] : keep[i];
	tree_filter(p->m, keep_by_table, keep);
	p->b = parts[second];
	batch_unref(parts[!second]);
	free(keep);
}

/* For protobuf concatenation is the merge, and so it is for us. */
static void step_concat(struct pair *p, struct rng *r, struct budget *budget)
{
	struct batch *v[3] = { p->b,
			       payload_batch(1 + (uint32_t)rng_below(r, 20), rng_next(r), budget),
			       payload_batch(1 + (uint32_t)rng_below(r, 20), rng_next(r), budget) };
	struct buf all = BUF_INIT, one = BUF_INIT;

	oracle_pack(p->m, &all);
	for (int i = 1; i < 3; i++) {
		buf_reset(&one);
		encode(v[i], &one);
		buf_add_bytes(&all, buf_bytes(&one));
	}
	oracle_free(p->m);
	p->m = oracle_unpack(buf_bytes(&all));
	p->b = batch_concat(v, 3);
	buf_fini(&all);
	buf_fini(&one);
}

static void random_operations_match_the_tree(void **state)
{
	struct budget budget = BUDGET_INIT(256 * MIB);

	(void)state;
	for (uint64_t seed = 1; seed <= 60; seed++) {
		struct buf bytes = BUF_INIT;
		struct pair p;
		struct rng r;

		rng_seed(&r, seed);
		payload_request(&bytes, 1 + (uint32_t)rng_below(&r, 60), seed);
		p = (struct pair){ batch_of(buf_bytes(&bytes), &budget),
				   oracle_unpack(buf_bytes(&bytes)) };
		buf_fini(&bytes);
		for (int step = 0; step < 12; step++) {
			struct batch *other = rng_below(&r, 3) ? NULL : batch_ref(p.b);
			struct pair before = { other, other ? tree_copy(p.m) : NULL };

			switch (rng_below(&r, 6)) {
			case 0:
				step_filter(&p, &r);
				break;
			case 1:
				step_edit(&p, &r);
				break;
			case 2:
				step_split(&p, &r);
				break;
			case 3:
				step_append(&p, &r);
				break;
			case 4:
				step_divide(&p, &r);
				break;
			default:
				step_concat(&p, &r, &budget);
			}
			check_pair(&p);
			/* Somebody else's reference still sees what it saw. */
			if (other != NULL) {
				check_pair(&before);
				batch_unref(before.b);
				oracle_free(before.m);
			}
		}
		batch_unref(p.b);
		oracle_free(p.m);
		assert_int_equal(atomic_load(&budget.used), 0);
	}
}

/* ---- single properties ---- */

static void untouched_bytes_go_out_as_they_came(void **state)
{
	struct buf bytes = BUF_INIT, out = BUF_INIT;
	struct arena a = ARENA_INIT;
	struct batch_encoding e;
	struct batch *v[2];
	struct batch *b;

	(void)state;
	/* A padded length: legal, and not what the encoder would write. */
	buf_add(&bytes, "\x0a\xa6\x00\x12\xa3\x00\x12\x9e\x80\x00", 10);
	buf_add(&bytes,
		"\x0a\x10"
		"0123456789abcdef"
		"\x12\x08"
		"01234567"
		"\x30\x02",
		30);
	bytes.p[1] = (uint8_t)(0x80 | (bytes.n - 3));
	bytes.p[4] = (uint8_t)(0x80 | (bytes.n - 6));
	v[0] = batch_of(buf_bytes(&bytes), NULL);
	v[1] = batch_of(buf_bytes(&bytes), NULL);
	batch_encode(v[0], &a, &e);
	assert_int_equal(e.n_pieces, 1);
	assert_true(bytes_eq(e.pieces[0], buf_bytes(&bytes)));
	b = batch_concat(v, 2);
	batch_encode(b, &a, &e);
	assert_int_equal(e.n_pieces, 2);
	assert_true(bytes_eq(e.pieces[1], buf_bytes(&bytes)));
	encode(b, &out);
	assert_int_equal(out.n, 2 * bytes.n);
	batch_unref(b);
	arena_fini(&a);
	buf_fini(&bytes);
	buf_fini(&out);
}

/* Unknown fields of the request itself: kept by filter, edit and concat, given to the head of a
 * split, once. */
static void request_level_fields_are_kept(void **state)
{
	struct bytes unknown = BYTES_LIT("\xfa\x3f\x05"
					 "extra");
	struct buf bytes = BUF_INIT, out = BUF_INIT;
	struct batch *v[2], *b, *head, *tail;
	uint8_t keep[4] = { 1, 0, 1, 1 };

	(void)state;
	put_request(&bytes, 2);
	buf_add_bytes(&bytes, unknown);
	v[0] = batch_of(buf_bytes(&bytes), NULL);
	v[1] = batch_of(buf_bytes(&bytes), NULL);
	b = batch_concat(v, 2);
	b = batch_filter(b, keep, DROP_FILTERED);
	encode(b, &out);
	assert_memory_equal(out.p, unknown.p, unknown.n);
	assert_memory_equal(out.p + unknown.n, unknown.p, unknown.n);
	batch_split(b, 1, &head, &tail);
	buf_reset(&out);
	encode(head, &out);
	assert_memory_equal(out.p + unknown.n, unknown.p, unknown.n);
	buf_reset(&out);
	encode(tail, &out);
	assert_null(memmem(out.p, out.n, unknown.p, unknown.n));
	batch_unref(head);
	batch_unref(tail);
	buf_fini(&bytes);
	buf_fini(&out);
}

static void many_trace_states_and_many_edits(void **state)
{
	struct buf bytes = BUF_INIT, span = BUF_INIT, field = BUF_INIT;
	struct batch *b;
	oracle_request *m;

	(void)state;
	pb_put_bytes(&span, 1, BYTES_LIT("0123456789abcdef"));
	pb_put_bytes(&span, 2, BYTES_LIT("01234567"));
	for (int i = 0; i < 2000; i++) {
		pb_put_str(&span, 3, "old=1");
		put_attribute(&span, 9, "k", "v");
	}
	pb_put_bytes(&bytes, 2, buf_bytes(&span));
	buf_reset(&span);
	pb_put_bytes(&span, 2, buf_bytes(&bytes));
	buf_reset(&bytes);
	pb_put_bytes(&bytes, 1, buf_bytes(&span));
	b = batch_of(buf_bytes(&bytes), NULL);
	batch_set_trace_state(b, 0, BYTES_LIT("ot=th:c"));
	assert_true(b->tables.spans[0].th == UINT64_C(0xc0000000000000));
	assert_true(b->arena.bytes < 256 * KIB);
	put_attribute(&field, 9, "more", "x");
	for (int i = 0; i < 300; i++) {
		batch_append_field(
			b, 0, (struct bytes){ arena_dup(&b->arena, field.p, field.n), field.n });
		if (i % 50 == 0)
			batch_set_trace_state(b, 0, i % 100 ? BYTES_LIT("ot=th:8") : BYTES_EMPTY);
	}
	batch_set_trace_state(b, 0, BYTES_LIT("last=1"));
	buf_reset(&bytes);
	encode(b, &bytes);
	m = oracle_unpack(buf_bytes(&bytes));
	assert_int_equal(tree_span(m, 0)->n_attributes, 2300);
	assert_string_equal(tree_span(m, 0)->trace_state, "last=1");
	assert_true(b->tables.spans[0].th == TH_UNKNOWN);
	oracle_free(m);
	batch_unref(b);
	buf_fini(&bytes);
	buf_fini(&span);
	buf_fini(&field);
}

/* What derived batches point into outlives the batch it came from. */
static void edits_outlive_their_batch(void **state)
{
	uint8_t keep[3] = { 0, 1, 1 };
	struct buf bytes = BUF_INIT, first = BUF_INIT, then = BUF_INIT;
	struct batch *b, *looking;

	(void)state;
	put_request(&bytes, 3);
	b = batch_of(buf_bytes(&bytes), NULL);
	for (uint32_t i = 0; i < 3; i++)
		batch_set_trace_state(b, i, BYTES_LIT("ot=th:fd70a"));
	b = batch_filter(b, keep, DROP_SAMPLED);
	encode(b, &first);
	looking = batch_detached(b);
	batch_set_trace_state(b, 0, BYTES_LIT("other=1"));
	batch_unref(b);
	encode(looking, &then);
	assert_true(bytes_eq(buf_bytes(&first), buf_bytes(&then)));
	batch_settle(looking, VERDICT_DELIVERED, DROP_SAMPLED, NULL);
	assert_int_equal(batch_hold(looking), 0);
	assert_false(batch_is_withdrawn(looking));
	batch_unref(looking);
	buf_fini(&bytes);
	buf_fini(&first);
	buf_fini(&then);
}

static void the_budget_is_paid_back(void **state)
{
	struct budget budget = BUDGET_INIT(3 * MIB);
	struct buf bytes = BUF_INIT;
	struct batch *v[64], *b;
	struct otlp_result result;
	struct err err = ERR_INIT;
	struct rcbuf *r;
	size_t n = 0;

	(void)state;
	payload_request(&bytes, 224, 1);
	while (n < COUNT_OF(v)) {
		r = rcbuf_new(&budget, bytes.n);
		if (r == NULL)
			break;
		memcpy(r->p, bytes.p, bytes.n);
		r->n = bytes.n;
		v[n] = batch_from_otlp(r, "t1", &budget, &result, &err);
		if (v[n] == NULL)
			break;
		n++;
	}
	assert_true(n > 5 && n < COUNT_OF(v));
	assert_true(atomic_load(&budget.used) <= budget.limit);
	if (err.kind != ERR_NONE)
		assert_true(err.kind == ERR_EXHAUSTED && err.retryable);
	assert_int_equal(budget.refused_spans, err.kind != ERR_NONE ? 224 : 0);
	/* Deriving is accounted but never refused. */
	b = batch_concat(v, n);
	for (uint32_t i = 0; i < b->tables.n_spans; i++)
		batch_set_trace_state(b, i, BYTES_LIT("ot=th:c"));
	assert_true(atomic_load(&budget.used) > budget.limit);
	batch_unref(b);
	assert_int_equal(atomic_load(&budget.used), 0);
	/* What an empty budget could not hold is never retryable. */
	budget.limit = 256 * 1024;
	r = rcbuf_new(&budget, bytes.n);
	buf_reset(&bytes);
	for (int i = 0; i < 40; i++)
		payload_request(&bytes, 50, 2);
	rcbuf_unref(r);
	budget.limit = (int64_t)bytes.n + 1024;
	r = rcbuf_new_forced(&budget, bytes.n);
	memcpy(r->p, bytes.p, bytes.n);
	r->n = bytes.n;
	assert_null(batch_from_otlp(r, "t1", &budget, &result, &err));
	assert_true(err.kind == ERR_TOO_LARGE && !err.retryable);
	assert_int_equal(atomic_load(&budget.used), 0);
	buf_fini(&bytes);
}

static void no_allocation_per_span(void **state)
{
	static const uint32_t sizes[] = { 10, 1000 };
	size_t got[2] = { 0, 0 };

	(void)state;
	for (int i = 0; i < 2; i++) {
		struct buf bytes = BUF_INIT;
		struct otlp_result result;
		struct rcbuf *r;
		struct batch *b;
		size_t before;

		payload_request(&bytes, sizes[i], 1);
		r = rcbuf_new(NULL, bytes.n);
		memcpy(r->p, bytes.p, bytes.n);
		r->n = bytes.n;
		before = n_mallocs;
		b = batch_from_otlp(r, "t1", NULL, &result, NULL);
		got[i] = n_mallocs - before;
		assert_int_equal(b->tables.n_spans, sizes[i]);
		batch_unref(b);
		buf_fini(&bytes);
	}
	printf("allocations: %zu for 10 spans, %zu for 1,000%s\n", got[0], got[1],
	       COUNTS_MALLOC ? "" : " (not counted under sanitizers)");
	assert_int_equal(got[0], got[1]);
	assert_true(got[1] <= 1);
}

static void tenant_names(void **state)
{
	static const struct {
		const char *name;
		bool ok;
	} cases[] = {
		{ "single-tenant", true },
		{ "a", true },
		{ "A!_.*'()-9", true },
		{ "", false },
		{ ".", false },
		{ "..", false },
		{ "...", true },
		{ "../x", false },
		{ "_spanmill", false },
		{ "_spanmil", true },
		{ "a b", false },
		{ "a/b", false },
		{ "\xc3\xbc", false },
		{ "a\n", false },
		{ "@", false },
		{ "`", false },
		{ "[", false },
		{ "{", false },
	};
	char longest[152];

	(void)state;
	for (size_t i = 0; i < COUNT_OF(cases); i++)
		if (tenant_is_valid(bytes_str(cases[i].name)) != cases[i].ok)
			fail_msg("tenant \"%s\"", cases[i].name);
	memset(longest, 'a', sizeof(longest));
	assert_true(tenant_is_valid((struct bytes){ (uint8_t *)longest, 150 }));
	assert_false(tenant_is_valid((struct bytes){ (uint8_t *)longest, 151 }));
	assert_false(tenant_is_valid((struct bytes){ (const uint8_t *)"a\0b", 3 }));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(random_operations_match_the_tree),
		cmocka_unit_test(untouched_bytes_go_out_as_they_came),
		cmocka_unit_test(request_level_fields_are_kept),
		cmocka_unit_test(many_trace_states_and_many_edits),
		cmocka_unit_test(edits_outlive_their_batch),
		cmocka_unit_test(the_budget_is_paid_back),
		cmocka_unit_test(no_allocation_per_span),
		cmocka_unit_test(tenant_names),
	};

	return cmocka_run_group_tests_name("batch", tests, NULL, NULL);
}
