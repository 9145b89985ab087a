/* SPDX-License-Identifier: Apache-2.0
 *
 * test_otlp_index.c - the index and the gather encoder against hostile and unusual requests.
 */
#include "tests/unit/otlp_fixture.h"

#include "base/rng.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

/* ---- helpers ---- */

/* Wrap the payload of a message in field `number`, in place. */
static void wrap(struct buf *b, uint32_t number)
{
	struct buf out = BUF_INIT;

	pb_put_bytes(&out, number, buf_bytes(b));
	buf_fini(b);
	*b = out;
}

static bool contains(struct bytes hay, struct bytes needle)
{
	return memmem(hay.p, hay.n, needle.p, needle.n) != NULL;
}

static void expect_ok(struct indexed *x, struct bytes request, uint32_t n_spans, const char *what)
{
	if (indexed_init(x, request) < 0)
		fail_msg("%s: refused: %s", what, x->err.msg);
	if (x->t.n_spans != n_spans)
		fail_msg("%s: %u spans, want %u (%s)", what, x->t.n_spans, n_spans,
			 x->result.rejects.first);
	assert_true(x->t.n_scopes <= x->counts.n_scopes && x->t.n_heads <= x->counts.n_heads);
}

static void expect_refused(struct bytes request, const char *message, const char *what)
{
	struct indexed x;

	if (indexed_init(&x, request) == 0)
		fail_msg("%s: taken", what);
	assert_int_equal(x.err.kind, ERR_INVALID);
	if (message != NULL && strcmp(x.err.msg, message) != 0)
		fail_msg("%s: \"%s\", want \"%s\"", what, x.err.msg, message);
	indexed_fini(&x);
}

/* The request, indexed and encoded, means what it meant. */
static void expect_same(struct bytes request, uint32_t n_spans, const char *what)
{
	struct buf out = BUF_INIT, again = BUF_INIT;
	struct indexed x, y;

	expect_ok(&x, request, n_spans, what);
	indexed_encode(&x, NULL, x.t.n_spans, &out);
	if (!oracle_same(request, buf_bytes(&out)))
		fail_msg("%s: encoded differs", what);
	expect_ok(&y, buf_bytes(&out), n_spans, what);
	indexed_encode(&y, NULL, y.t.n_spans, &again);
	if (!bytes_eq(buf_bytes(&out), buf_bytes(&again)))
		fail_msg("%s: encoding is not stable", what);
	indexed_fini(&x);
	indexed_fini(&y);
	buf_fini(&out);
	buf_fini(&again);
}

static void shuffle(struct bytes *v, size_t n, struct rng *r)
{
	for (size_t i = n; i > 1; i--) {
		size_t k = rng_below(r, i);
		struct bytes t = v[i - 1];

		v[i - 1] = v[k];
		v[k] = t;
	}
}

/* ---- what a span_ref says ---- */

static void check_full_span(const struct span_ref *sp, uint8_t id)
{
	assert_int_equal(sp->trace_id[15], id);
	assert_int_equal(sp->span_id[0], id);
	assert_int_equal(sp->parent_id[7], id);
	assert_true(bytes_eq_str(span_name(sp), "name"));
	assert_true(bytes_eq_str(span_trace_state(sp), "ot=th:c,vendor=1"));
	assert_int_equal(sp->kind, SPAN_SERVER);
	assert_int_equal(sp->status, STATUS_ERROR);
	assert_int_equal(sp->start_ns, 1000 + id);
	assert_int_equal(sp->end_ns, 2000 + id);
	assert_int_equal(sp->flags, 0x301);
	assert_int_equal(sp->th, UINT64_C(0xc0000000000000));
	assert_int_equal(sp->r, UINT64_C(0x0a0b0c0d0e0f00) | id);
}

static void every_field_is_read(void **state)
{
	struct buf b = BUF_INIT;
	struct indexed x;

	(void)state;
	put_request(&b, 3);
	expect_ok(&x, buf_bytes(&b), 3, "full request");
	assert_true(x.result.is_whole);
	for (uint8_t i = 0; i < 3; i++) {
		check_full_span(&x.t.spans[i], (uint8_t)(i + 1));
		assert_int_equal(x.t.spans[i].ordinal, i);
		assert_int_not_equal(x.t.spans[i].head_len, 0);
	}
	indexed_fini(&x);
	expect_same(buf_bytes(&b), 3, "full request");
	buf_fini(&b);
}

/* ---- field order ---- */

static void span_fields_in_any_order(void **state)
{
	struct fields f = { 0 };
	struct rng r;

	(void)state;
	rng_seed(&r, 1);
	span_fields(&f, 7);
	for (int round = 0; round < 300; round++) {
		struct buf b = BUF_INIT;
		struct indexed x;

		fields_join(&f, &b);
		wrap(&b, 2);
		wrap(&b, 2);
		wrap(&b, 1);
		expect_ok(&x, buf_bytes(&b), 1, "shuffled span");
		check_full_span(&x.t.spans[0], 7);
		indexed_fini(&x);
		expect_same(buf_bytes(&b), 1, "shuffled span");
		buf_fini(&b);
		shuffle(f.v, f.n, &r);
	}
	arena_fini(&f.arena);
}

/* All orders of an envelope of four fields; the inner level is permuted along. */
static void envelope_fields_in_any_order(void **state)
{
	(void)state;
	for (unsigned perm = 0; perm < 24 * 24; perm++) {
		unsigned order[2] = { perm % 24, perm / 24 };
		struct fields scope = { 0 }, resource = { 0 };
		struct buf b = BUF_INIT;
		struct indexed x;

		put_scope(&b, "lib");
		fields_add(&scope, &b);
		fields_add_bytes(&scope, 3, BYTES_LIT("https://schema/scope"));
		for (uint8_t i = 1; i <= 2; i++) {
			buf_reset(&b);
			put_span(&b, 2, i);
			fields_add(&scope, &b);
		}
		buf_reset(&b);
		put_resource(&b, "svc");
		fields_add(&resource, &b);
		fields_add_bytes(&resource, 3, BYTES_LIT("https://schema/resource"));
		for (int level = 0; level < 2; level++) {
			struct fields *f = level ? &resource : &scope;
			struct bytes v[4];

			if (level)
				for (int i = 0; i < 2; i++) {
					buf_reset(&b);
					fields_join(&scope, &b);
					fields_add_bytes(&resource, 2, buf_bytes(&b));
				}
			memcpy(v, f->v, sizeof(v));
			/* The order as a factorial number. */
			for (unsigned i = 0, code = order[level], left = 4; i < 4; i++, left--) {
				unsigned k = code % left;

				code /= left;
				f->v[i] = v[k];
				memmove(&v[k], &v[k + 1], (left - k - 1) * sizeof(v[0]));
			}
		}
		buf_reset(&b);
		fields_join(&resource, &b);
		wrap(&b, 1);
		expect_ok(&x, buf_bytes(&b), 4, "permuted envelopes");
		assert_int_equal(x.t.n_scopes, 2);
		assert_int_equal(x.t.n_resources, 1);
		indexed_fini(&x);
		expect_same(buf_bytes(&b), 4, "permuted envelopes");
		arena_fini(&scope.arena);
		arena_fini(&resource.arena);
		buf_fini(&b);
	}
}

/* ---- damage ---- */

#define TEXT(s)                                                                                    \
	{                                                                                          \
		(const uint8_t *)(s), sizeof(s) - 1                                                \
	}

static void every_truncation_is_refused(void **state)
{
	struct buf b = BUF_INIT;
	size_t first;

	(void)state;
	put_request(&b, 2);
	first = b.n;
	put_request(&b, 1);
	for (size_t n = 0; n < b.n; n++) {
		struct indexed x;
		int rc = indexed_init(&x, (struct bytes){ b.p, n });

		/* A cut between two top-level fields is a shorter request. */
		if (rc != (n == 0 || n == first ? 0 : -1))
			fail_msg("cut at %zu of %zu: %d", n, b.n, rc);
		indexed_fini(&x);
	}
	buf_fini(&b);
}

static void wrong_wire_types_are_refused(void **state)
{
	(void)state;
	for (uint32_t number = 1; number <= 16; number++) {
		struct buf b = BUF_INIT;
		bool is_len =
			number <= 5 || number == 9 || number == 11 || number == 13 || number == 15;

		put_small_span(&b, 1);
		/* Open the span again: its header is two bytes. */
		memmove(b.p, b.p + 2, b.n - 2);
		b.n -= 2;
		if (is_len)
			pb_put_uint(&b, number, 1);
		else
			pb_put_str(&b, number, "x");
		wrap(&b, 2);
		wrap(&b, 2);
		wrap(&b, 1);
		expect_refused(buf_bytes(&b), NULL, "known field of the wrong wire type");
		buf_fini(&b);
	}
}

static void nested(struct buf *b, unsigned depth)
{
	buf_add_str(b, "\x0a\x01x");
	for (unsigned i = 0; i < depth; i++) {
		wrap(b, 1);
		wrap(b, 5);
	}
	wrap(b, 2);
}

/* Damage is damage where nothing is kept, too: resources and scopes without spans. */
static void damage_beside_the_spans_is_refused(void **state)
{
	static const struct {
		const char *name, *message;
		uint32_t path[3]; /* fields from the request down, ends with 0 */
		struct bytes payload;
	} cases[] = {
		{ "resource",
		  "resource_spans[1].resource: damaged protobuf",
		  { 1, 1 },
		  TEXT("\xff") },
		{ "resource attribute",
		  "resource_spans[1].resource: damaged protobuf",
		  { 1, 1, 1 },
		  TEXT("\x0a\x05x") },
		{ "scope",
		  "resource_spans[1].scope_spans[0].scope: damaged protobuf",
		  { 1, 2, 1 },
		  TEXT("\x0b") },
	};
	struct buf b = BUF_INIT, bad = BUF_INIT;

	(void)state;
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		buf_reset(&b);
		buf_reset(&bad);
		buf_add_bytes(&bad, cases[i].payload);
		for (size_t k = COUNT_OF(cases[i].path); k-- > 0;)
			if (cases[i].path[k] != 0)
				wrap(&bad, cases[i].path[k]);
		put_request(&b, 1);
		buf_add_bytes(&b, buf_bytes(&bad));
		expect_refused(buf_bytes(&b), cases[i].message, cases[i].name);
	}
	buf_reset(&b);
	buf_reset(&bad);
	nested(&bad, 65);
	wrap(&bad, 1);
	wrap(&bad, 1);
	wrap(&bad, 1);
	expect_refused(buf_bytes(&bad), "resource_spans[0].resource: nested deeper than 64 levels",
		       "depth");
	buf_fini(&b);
	buf_fini(&bad);
}

static void depth_is_bounded(void **state)
{
	static const unsigned depths[] = { 1, 63, 64, 65, 200 };

	(void)state;
	for (size_t i = 0; i < COUNT_OF(depths); i++) {
		struct buf b = BUF_INIT, span = BUF_INIT;
		struct indexed x;

		nested(&b, depths[i]);
		wrap(&b, 9);
		put_small_span(&span, 1);
		buf_add(&b, span.p + 2, span.n - 2);
		wrap(&b, 2);
		wrap(&b, 2);
		wrap(&b, 1);
		if (depths[i] <= 64) {
			expect_ok(&x, buf_bytes(&b), 1, "depth");
			indexed_fini(&x);
		} else {
			expect_refused(buf_bytes(&b),
				       "resource_spans[0].scope_spans[0].spans[0].attributes: "
				       "nested deeper than 64 levels",
				       "depth");
		}
		buf_fini(&b);
		buf_fini(&span);
	}
}

/* ---- rejects ---- */

static void one_bad_span_rejects_itself(void **state)
{
	static const struct {
		const char *name;
		uint32_t number; /* field put behind the good ones: the last one wins */
		struct bytes value;
		const char *why;
	} cases[] = {
		{ "short trace id", 1, TEXT("12345678"), ".trace_id: 8 bytes, must be 16" },
		{ "no trace id", 1, TEXT(""), ".trace_id: 0 bytes, must be 16" },
		{ "zero trace id", 1, TEXT("\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"),
		  ".trace_id: all zero" },
		{ "long trace id", 1, TEXT("12345678123456781"),
		  ".trace_id: 17 bytes, must be 16" },
		{ "long span id", 2, TEXT("123456781"), ".span_id: 9 bytes, must be 8" },
		{ "zero span id", 2, TEXT("\0\0\0\0\0\0\0\0"), ".span_id: all zero" },
		{ "short parent", 4, TEXT("1234567"),
		  ".parent_span_id: 7 bytes, must be 8 or none" },
		{ "name", 5, TEXT("caf\xe9"), ": invalid UTF-8 in a string" },
		{ "trace state", 3, TEXT("a=\xff"), ": invalid UTF-8 in a string" },
		{ "attribute key", 9, TEXT("\x0a\x02k\x80"), ": invalid UTF-8 in a string" },
		{ "attribute value", 9, TEXT("\x0a\x01k\x12\x04\x0a\x02\xc0\x80"),
		  ": invalid UTF-8 in a string" },
		{ "status message", 15, TEXT("\x12\x01\x80"), ": invalid UTF-8 in a string" },
		{ "event name", 11, TEXT("\x12\x03\xed\xa0\x80"), ": invalid UTF-8 in a string" },
		{ "link id", 13,
		  TEXT("\x0a\x03"
		       "abc"),
		  ".links: an id of the wrong length" },
		{ "array text", 9, TEXT("\x0a\x01k\x12\x07\x2a\x05\x0a\x03\x0a\x01\x80"),
		  ": invalid UTF-8 in a string" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		struct buf b = BUF_INIT, bad = BUF_INIT, want = BUF_INIT, out = BUF_INIT;
		struct indexed x;

		put_span(&bad, 2, 9);
		/* A span of this size has two length bytes. */
		memmove(bad.p, bad.p + 3, bad.n - 3);
		bad.n -= 3;
		pb_put_bytes(&bad, cases[i].number, cases[i].value);
		put_scope(&b, "lib");
		put_span(&b, 2, 1);
		pb_put_bytes(&b, 2, buf_bytes(&bad));
		put_span(&b, 2, 2);
		wrap(&b, 2);
		wrap(&b, 1);
		expect_ok(&x, buf_bytes(&b), 2, cases[i].name);
		assert_int_equal(x.result.rejects.n, 1);
		assert_false(x.result.is_whole);
		buf_printf(&want, "resource_spans[0].scope_spans[0].spans[1]%s", cases[i].why);
		assert_string_equal(x.result.rejects.first, buf_cstr(&want));
		check_full_span(&x.t.spans[0], 1);
		check_full_span(&x.t.spans[1], 2);
		assert_int_equal(x.t.spans[1].ordinal, 1);
		indexed_encode(&x, NULL, 2, &out);
		assert_false(contains(buf_bytes(&out), buf_bytes(&bad)));
		indexed_fini(&x);
		buf_fini(&b);
		buf_fini(&bad);
		buf_fini(&want);
		buf_fini(&out);
	}
}

/* Bad text of a scope or resource touches its spans and no others. */
static void bad_text_above_spans(void **state)
{
	(void)state;
	for (int where = 0; where < 4; where++) {
		const char *bad = "x\xff";
		struct buf b = BUF_INIT, second = BUF_INIT;
		struct indexed x;

		/* Behind the spans, so that order does not matter. */
		put_span(&b, 2, 1);
		put_span(&b, 2, 2);
		if (where == 0)
			put_scope(&b, bad);
		else if (where == 1)
			pb_put_str(&b, 3, bad);
		wrap(&b, 2);
		if (where == 2)
			put_resource(&b, bad);
		else if (where == 3)
			pb_put_str(&b, 3, bad);
		wrap(&b, 1);
		put_request(&second, 1);
		buf_add_bytes(&b, buf_bytes(&second));
		expect_ok(&x, buf_bytes(&b), 1, "bad text above");
		assert_int_equal(x.result.rejects.n, 2);
		assert_string_equal(x.result.rejects.first,
				    where < 2 ? "resource_spans[0].scope_spans[0].spans[0]: "
						"invalid UTF-8 in its scope"
					      : "resource_spans[0].scope_spans[0].spans[0]: "
						"invalid UTF-8 in its resource");
		assert_int_equal(x.t.n_resources, 1);
		assert_int_equal(x.t.spans[0].ordinal, 0);
		indexed_fini(&x);
		buf_fini(&b);
		buf_fini(&second);
	}
}

/* ---- what survives ---- */

enum { AT_REQUEST, AT_RESOURCE_SPANS, AT_RESOURCE, AT_SCOPE_SPANS, AT_SCOPE, AT_SPAN, LEVELS };

static void maybe(struct buf *b, int level, int here, struct bytes raw)
{
	if (level == here)
		buf_add_bytes(b, raw);
}

/* Two spans; `raw` stands at one level. */
static void request_with(struct buf *out, int level, struct bytes raw)
{
	size_t rs, ss, inner;

	maybe(out, level, AT_REQUEST, raw);
	rs = pb_begin(out, 1);
	inner = pb_begin(out, 1);
	put_attribute(out, 1, "service.name", "svc");
	maybe(out, level, AT_RESOURCE, raw);
	pb_end(out, inner);
	maybe(out, level, AT_RESOURCE_SPANS, raw);
	ss = pb_begin(out, 2);
	inner = pb_begin(out, 1);
	pb_put_str(out, 1, "lib");
	maybe(out, level, AT_SCOPE, raw);
	pb_end(out, inner);
	put_small_span(out, 1);
	maybe(out, level, AT_SCOPE_SPANS, raw);
	inner = pb_begin(out, 2);
	pb_put_bytes(out, 1, BYTES_LIT("0123456789abcdef"));
	maybe(out, level, AT_SPAN, raw);
	pb_put_bytes(out, 2, BYTES_LIT("01234567"));
	pb_end(out, inner);
	pb_end(out, ss);
	pb_end(out, rs);
}

static void unknown_fields_survive(void **state)
{
	static const uint32_t numbers[] = { 17,   18,   100,  999,   1001,
					    1023, 2047, 2048, 19999, 0x1fffffff };
	static const uint8_t wires[] = { PB_VARINT, PB_FIXED64, PB_LEN, PB_FIXED32 };

	(void)state;
	for (size_t i = 0; i < COUNT_OF(numbers) * COUNT_OF(wires) * LEVELS; i++) {
		uint32_t number = numbers[i % COUNT_OF(numbers)], last = 1;
		uint8_t wire = wires[i / COUNT_OF(numbers) % COUNT_OF(wires)];
		int level = (int)(i / COUNT_OF(numbers) / COUNT_OF(wires));
		struct buf raw = BUF_INIT, b = BUF_INIT, out = BUF_INIT;
		struct indexed x;

		pb_put_tag(&raw, number, wire);
		if (wire == PB_LEN)
			/* A whole request inside must not be taken for data. */
			buf_add(&raw, "\x08\x0a\x06\x12\x04\x12\x02\x0a\x00", 9);
		else
			buf_add(&raw, "\xf1\xf2\xf3\xf4\xf5\xf6\xf7\x08",
				wire == PB_FIXED32 ? 4 : 8);
		request_with(&b, level, buf_bytes(&raw));
		expect_ok(&x, buf_bytes(&b), 2, "unknown field");
		assert_true(x.result.is_whole);
		indexed_encode(&x, &last, 1, &out);
		if (!contains(buf_bytes(&out), buf_bytes(&raw)))
			fail_msg("field %u wire %u level %d is lost", number, wire, level);
		indexed_fini(&x);
		expect_same(buf_bytes(&b), 2, "unknown field");
		buf_fini(&raw);
		buf_fini(&b);
		buf_fini(&out);
	}
}

/* A resource or scope in several fields is their merge, and goes out as one field. */
static void split_heads_are_merged(void **state)
{
	(void)state;
	for (int scope = 0; scope < 2; scope++) {
		struct buf b = BUF_INIT, out = BUF_INIT;
		oracle_request *m;
		struct indexed x;

		if (scope)
			put_scope(&b, "old");
		put_span(&b, 2, 1);
		pb_put_str(&b, 3, "https://schema");
		if (scope)
			put_scope(&b, "new");
		wrap(&b, 2);
		put_resource(&b, "one");
		pb_put_uint(&b, 77, 5);
		put_resource(&b, "two");
		wrap(&b, 1);
		expect_ok(&x, buf_bytes(&b), 1, "split resource");
		assert_false(x.result.is_whole);
		indexed_encode(&x, NULL, 1, &out);
		indexed_fini(&x);
		assert_true(oracle_same(buf_bytes(&b), buf_bytes(&out)));
		m = oracle_unpack(buf_bytes(&out));
		assert_int_equal(m->resource_spans[0]->resource->n_attributes, 2);
		oracle_free(m);
		/* One is now what every reader sees. */
		expect_ok(&x, buf_bytes(&out), 1, "merged resource");
		assert_true(x.result.is_whole);
		indexed_fini(&x);
		buf_fini(&b);
		buf_fini(&out);
	}
}

static void deprecated_field_1000(void **state)
{
	struct buf b = BUF_INIT, out = BUF_INIT;
	struct indexed x;

	(void)state;
	put_scope(&b, "oldlib");
	put_span(&b, 2, 1);
	wrap(&b, 1000);
	put_resource(&b, "svc");
	wrap(&b, 1);
	expect_ok(&x, buf_bytes(&b), 1, "field 1000");
	assert_false(x.result.is_whole);
	indexed_encode(&x, NULL, 1, &out);
	indexed_fini(&x);
	expect_ok(&x, buf_bytes(&out), 1, "field 1000 became 2");
	assert_true(x.result.is_whole);
	indexed_fini(&x);
	buf_reset(&b);
	/* With a scope_spans beside it, it is an unknown field. */
	put_span(&b, 2, 1);
	wrap(&b, 1000);
	buf_add_str(&b, "\x12");
	buf_add_char(&b, 0);
	wrap(&b, 1);
	expect_ok(&x, buf_bytes(&b), 0, "field 1000 beside field 2");
	indexed_fini(&x);
	buf_fini(&b);
	buf_fini(&out);
}

/* ---- bounds ---- */

static void floods_cost_no_tables(void **state)
{
	static const struct {
		const char *name, *unit;
		size_t n;
		uint32_t rejects; /* per 1,000 units */
	} cases[] = {
		{ "empty ResourceSpans", "\x0a\x00", 2, 0 },
		{ "empty ScopeSpans", "\x0a\x02\x12\x00", 4, 0 },
		{ "empty Spans", "\x0a\x04\x12\x02\x12\x00", 6, 1000 },
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		uint32_t n = (uint32_t)(16 * MIB / cases[i].n);
		struct buf b = BUF_INIT;
		struct indexed x;

		for (uint32_t k = 0; k < n; k++)
			buf_add(&b, cases[i].unit, cases[i].n);
		expect_ok(&x, buf_bytes(&b), 0, cases[i].name);
		assert_int_equal(x.counts.n_spans, 0);
		assert_true(x.counts.n_scopes * sizeof(struct scope_ref) +
				    x.counts.n_resources * sizeof(struct resource_ref) <=
			    6 * 16 * MIB);
		assert_int_equal(x.result.rejects.n, cases[i].rejects ? n : 0);
		assert_int_equal(x.arena.bytes, 0);
		indexed_fini(&x);
		buf_fini(&b);
	}
}

static void two_gigabytes_are_too_large(void **state)
{
	struct otlp_counts counts;
	struct err err = ERR_INIT;
	uint8_t one = 0;

	(void)state;
	/* Never read: the length alone decides. */
	assert_int_equal(otlp_count((struct bytes){ &one, (size_t)INT32_MAX + 1 }, &counts, &err),
			 -1);
	assert_int_equal(err.kind, ERR_TOO_LARGE);
	assert_false(err.retryable);
}

/* Tags and lengths longer than they need be are legal; they go out short. */
static void padded_headers(void **state)
{
	struct buf b = BUF_INIT, out = BUF_INIT;
	struct indexed x;

	(void)state;
	buf_add(&b, "\x92\x80\x00\x9c\x80\x00", 6); /* tag 2 and length 28, three bytes each */
	buf_add(&b,
		"\x0a\x10"
		"0123456789abcdef"
		"\x12\x08"
		"01234567",
		28);
	wrap(&b, 2);
	wrap(&b, 1);
	expect_ok(&x, buf_bytes(&b), 1, "padded");
	assert_int_equal(x.t.spans[0].head_len, 0);
	indexed_encode(&x, NULL, 1, &out);
	assert_int_equal(out.n, 28 + 6);
	indexed_fini(&x);
	expect_same(buf_bytes(&b), 1, "padded");
	buf_fini(&b);
	buf_fini(&out);
}

/* Near the end of the request the windows of otlp_plain.h do not fit: both ways must judge alike.
 */
static void fast_and_general_way_agree(void **state)
{
	static const uint8_t interesting[] = { 0,    1,    2,    0x0a, 0x10, 0x12, 0x18, 0x21,
					       0x2a, 0x40, 0x4a, 0x7f, 0x80, 0x85, 0xc3, 0xff };
	uint32_t taken = 0;
	struct rng r;

	(void)state;
	rng_seed(&r, 42);
	for (int round = 0; round < 60000; round++) {
		struct buf b = BUF_INIT;
		struct indexed x, y;
		size_t body;
		int rx, ry;

		pb_put_bytes(&b, 1, BYTES_LIT("0123456789abcdef"));
		pb_put_bytes(&b, 2, BYTES_LIT("01234567"));
		pb_put_str(&b, 5, "some name");
		body = b.n;
		buf_add(&b,
			"\x4a\x09\x0a\x01k\x12\x04\x0a\x02"
			"ab",
			11);
		buf_add(&b, "\x4a\x08\x0a\x01k\x12\x03\x18\xac\x02", 10);
		buf_add(&b,
			"\x4a\x0e\x0a\x01k\x12\x09\x21"
			"12345678",
			16);
		buf_add(&b, "\x4a\x0f\x0a\x01k\x12\x0a\x2a\x08\x0a\x02\x0a\x00\x0a\x02\x0a\x00",
			17);
		buf_add(&b,
			"\x30\x03\x85\x01"
			"abcd",
			8);
		for (uint64_t k = rng_below(&r, 4); k > 0; k--)
			b.p[body + rng_below(&r, b.n - body)] =
				interesting[rng_below(&r, COUNT_OF(interesting))];
		wrap(&b, 2);
		wrap(&b, 2);
		wrap(&b, 1);
		rx = indexed_init(&x, buf_bytes(&b));
		for (int k = 0; k < 12; k++)
			pb_put_fixed64(&b, 99, 0);
		ry = indexed_init(&y, buf_bytes(&b));
		if (rx != ry || x.result.rejects.n != y.result.rejects.n ||
		    x.t.n_spans != y.t.n_spans)
			fail_msg("round %d: %d/%d, rejects %u/%u", round, rx, ry,
				 x.result.rejects.n, y.result.rejects.n);
		if (rx == 0 && x.t.n_spans == 1) {
			const struct span_ref *a = x.t.spans, *c = y.t.spans;

			taken++;
			assert_int_equal(a->kind, c->kind);
			assert_int_equal(a->flags, c->flags);
			assert_int_equal(a->status, c->status);
			assert_int_equal(a->name_len, c->name_len);
			assert_int_equal(a->start_ns, c->start_ns);
		}
		indexed_fini(&x);
		indexed_fini(&y);
		buf_fini(&b);
	}
	assert_true(taken > 10000);
}

/* ---- golden data ---- */

static void golden_requests(void **state)
{
	static const char *const names[] = {
		"kitchen-sink",
		"trace",
		"neg-unknown-field",
		"jaeger-cassandra-otel_traces_01",
		"jaeger-integration-example_trace",
		"jaeger-integration-scope_attributes_trace",
		"jaeger-memory-otel_traces_01",
		"jaeger-otlp2jaeger-in",
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(names); i++) {
		struct buf b = BUF_INIT;
		char path[128];
		oracle_request *m;

		snprintf(path, sizeof(path), "otlp/derived/%s.pb", names[i]);
		if (golden_read(path, &b)) {
			m = oracle_unpack(buf_bytes(&b));
			expect_same(buf_bytes(&b), (uint32_t)oracle_count(m), names[i]);
			oracle_free(m);
		}
		buf_fini(&b);
	}
}

static void golden_damage(void **state)
{
	static const struct {
		const char *path, *why;
		uint32_t rejects; /* 0: the request is refused */
	} cases[] = {
		{ "otlp/derived/neg-deep10000.pb",
		  "resource_spans[0].scope_spans[0].spans[0].attributes: nested deeper than 64 "
		  "levels",
		  0 },
		{ "otlp/derived/neg-truncated.pb", NULL, 0 },
		{ "otlp/derived/neg-ids-empty.pb",
		  "resource_spans[0].scope_spans[0].spans[0].trace_id: 0 bytes, must be 16", 1 },
		{ "otlp/derived/neg-traceid-8bytes.pb",
		  "resource_spans[0].scope_spans[0].spans[0].trace_id: 8 bytes, must be 16", 1 },
		{ "otlp/derived/neg-traceid-zero.pb",
		  "resource_spans[0].scope_spans[0].spans[0].trace_id: all zero", 1 },
		/* Its hex ids were read as base64 on the way to protobuf. */
		{ "otlp/derived/fluentbit-test_traces_002.in.pb",
		  "resource_spans[0].scope_spans[0].spans[0].trace_id: 24 bytes, must be 16", 2 },
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		struct buf b = BUF_INIT;
		struct indexed x;

		if (golden_read(cases[i].path, &b) && cases[i].rejects == 0) {
			expect_refused(buf_bytes(&b), cases[i].why, cases[i].path);
		} else if (b.n > 0) {
			expect_ok(&x, buf_bytes(&b), 0, cases[i].path);
			assert_int_equal(x.result.rejects.n, cases[i].rejects);
			assert_string_equal(x.result.rejects.first, cases[i].why);
			indexed_fini(&x);
		}
		buf_fini(&b);
	}
}

static void golden_field_1000(void **state)
{
	struct buf b = BUF_INIT;
	struct indexed x;

	(void)state;
	if (golden_read("otlp/derived/deprecated-field1000.pb", &b)) {
		expect_ok(&x, buf_bytes(&b), 1, "golden field 1000");
		assert_true(bytes_eq_str(span_name(&x.t.spans[0]), "from-oldlib"));
		indexed_fini(&x);
	}
	buf_fini(&b);
}

static void attribute_lookup(void **state)
{
	struct buf b = BUF_INIT;
	struct bytes value;

	(void)state;
	put_attribute(&b, 9, "a", "1");
	pb_put_uint(&b, 9, 7);
	put_attribute(&b, 9, "b", "2");
	put_attribute(&b, 9, "b", "3");
	assert_true(otlp_attribute(buf_bytes(&b), 9, BYTES_LIT("b"), &value));
	assert_true(bytes_eq(value, BYTES_LIT("\x0a\x01"
					      "2")));
	assert_false(otlp_attribute(buf_bytes(&b), 9, BYTES_LIT("c"), &value));
	assert_false(otlp_attribute(buf_bytes(&b), 1, BYTES_LIT("a"), &value));
	buf_fini(&b);
}

/* KeyValues that no SDK writes and every protobuf reader takes. */
static void attribute_lookup_in_any_shape(void **state)
{
	const struct {
		const char *name;
		struct bytes pair, want; /* want: of key "k"; p = NULL: it is not there */
	} cases[] = {
		{ "usual", BYTES_LIT("\x0a\x01k\x12\x02\x10\x01"), BYTES_LIT("\x10\x01") },
		{ "value first", BYTES_LIT("\x12\x02\x10\x01\x0a\x01k"), BYTES_LIT("\x10\x01") },
		{ "the last key counts", BYTES_LIT("\x0a\x01x\x0a\x01k\x12\x02\x10\x01"),
		  BYTES_LIT("\x10\x01") },
		{ "the last key is another", BYTES_LIT("\x0a\x01k\x12\x02\x10\x01\x0a\x01x"),
		  BYTES_EMPTY },
		{ "the last value counts", BYTES_LIT("\x0a\x01k\x12\x02\x10\x01\x12\x02\x10\x02"),
		  BYTES_LIT("\x10\x02") },
		{ "no value", BYTES_LIT("\x0a\x01k"), BYTES_LIT("") },
		{ "an unknown field behind", BYTES_LIT("\x0a\x01k\x12\x02\x10\x01\x18\x05"),
		  BYTES_LIT("\x10\x01") },
		{ "a padded key length", BYTES_LIT("\x0a\x81\x00k\x12\x02\x10\x01"),
		  BYTES_LIT("\x10\x01") },
		{ "a padded value length", BYTES_LIT("\x0a\x01k\x12\x82\x00\x10\x01"),
		  BYTES_LIT("\x10\x01") },
		{ "a longer key", BYTES_LIT("\x0a\x02kk\x12\x02\x10\x01"), BYTES_EMPTY },
	};
	struct bytes value;

	(void)state;
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		struct buf b = BUF_INIT;
		bool found;

		pb_put_bytes(&b, 9, cases[i].pair);
		found = otlp_attribute(buf_bytes(&b), 9, BYTES_LIT("k"), &value);
		if (found != (cases[i].want.p != NULL) ||
		    (found && !bytes_eq(value, cases[i].want)))
			fail_msg("%s: found %d", cases[i].name, found);
		buf_fini(&b);
	}
}

/* A value of 133 bytes: its length takes two, the first of which could be taken for 133. */
static void attribute_lookup_of_long_values(void **state)
{
	static const size_t sizes[] = { 126, 127, 128, 133, 300 };
	struct bytes value;

	(void)state;
	for (size_t i = 0; i < COUNT_OF(sizes); i++) {
		uint8_t text[300] = { 0 };
		struct buf b = BUF_INIT;
		size_t mark = pb_begin(&b, 9);

		pb_put_str(&b, 1, "k");
		pb_put_bytes(&b, 2, (struct bytes){ text, sizes[i] });
		pb_end(&b, mark);
		assert_true(otlp_attribute(buf_bytes(&b), 9, BYTES_LIT("k"), &value));
		assert_int_equal(value.n, sizes[i]);
		assert_false(otlp_attribute(buf_bytes(&b), 9, BYTES_LIT("x"), &value));
		buf_fini(&b);
	}
}

/* The flag says exactly whether there is such an attribute, in whatever shape. */
static void priority_is_noted(void **state)
{
	const struct {
		const char *name;
		struct bytes pair;
		bool want;
	} cases[] = {
		{ "number", BYTES_LIT("\x0a\x11sampling.priority\x12\x02\x18\x01"), true },
		{ "text",
		  BYTES_LIT("\x0a\x11sampling.priority\x12\x03\x0a\x01"
			    "1"),
		  true },
		{ "as long", BYTES_LIT("\x0a\x11sampling.prioritx\x12\x02\x18\x01"), false },
		{ "shorter", BYTES_LIT("\x0a\x10sampling.priorit\x12\x02\x18\x01"), false },
		{ "reason", BYTES_LIT("\x0a\x0fsampling.reason\x12\x03\x0a\x01x"), true },
		{ "count", BYTES_LIT("\x0a\x17sampling.adjusted_count\x12\x02\x18\x00"), true },
		{ "hint",
		  BYTES_LIT("\x0a\x08"
			    "exemplar\x12\x02\x10\x01"),
		  true },
		{ "hint of the draft", BYTES_LIT("\x0a\x0dotel.exemplar\x12\x02\x10\x01"), true },
		{ "value first", BYTES_LIT("\x12\x02\x18\x01\x0a\x11sampling.priority"), true },
		{ "padded length", BYTES_LIT("\x0a\x91\x00sampling.priority\x12\x02\x18\x01"),
		  true },
		{ "an array beside it", BYTES_LIT("\x0a\x01x\x12\x06\x2a\x04\x0a\x02\x18\x01"),
		  false },
		{ "an array of it", BYTES_LIT("\x0a\x11sampling.priority\x12\x02\x2a\x00"), true },
		{ "last key", BYTES_LIT("\x0a\x01x\x0a\x11sampling.priority\x12\x02\x18\x01"),
		  true },
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(cases) * 2; i++) {
		const struct bytes pair = cases[i / 2].pair;
		struct buf b = BUF_INIT, span = BUF_INIT;
		struct indexed x;

		put_small_span(&span, 1);
		buf_add(&b, span.p + 2, span.n - 2);
		pb_put_bytes(&b, 9, pair);
		put_attribute(&b, 9, "other", "attribute");
		wrap(&b, 2);
		wrap(&b, 2);
		wrap(&b, 1);
		for (int k = 0; i % 2 == 0 && k < 12;
		     k++) /* room for the windows of the fast way */
			pb_put_fixed64(&b, 99, 0);
		expect_ok(&x, buf_bytes(&b), 1, cases[i / 2].name);
		/* Exactly: a walk in vain over every span's attributes is dear. */
		if (x.t.spans[0].may_wish != cases[i / 2].want)
			fail_msg("%s: wishes %d", cases[i / 2].name, x.t.spans[0].may_wish);
		indexed_fini(&x);
		buf_fini(&b);
		buf_fini(&span);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_field_is_read),
		cmocka_unit_test(span_fields_in_any_order),
		cmocka_unit_test(envelope_fields_in_any_order),
		cmocka_unit_test(every_truncation_is_refused),
		cmocka_unit_test(wrong_wire_types_are_refused),
		cmocka_unit_test(depth_is_bounded),
		cmocka_unit_test(damage_beside_the_spans_is_refused),
		cmocka_unit_test(one_bad_span_rejects_itself),
		cmocka_unit_test(bad_text_above_spans),
		cmocka_unit_test(unknown_fields_survive),
		cmocka_unit_test(split_heads_are_merged),
		cmocka_unit_test(deprecated_field_1000),
		cmocka_unit_test(floods_cost_no_tables),
		cmocka_unit_test(two_gigabytes_are_too_large),
		cmocka_unit_test(padded_headers),
		cmocka_unit_test(fast_and_general_way_agree),
		cmocka_unit_test(golden_requests),
		cmocka_unit_test(golden_damage),
		cmocka_unit_test(golden_field_1000),
		cmocka_unit_test(attribute_lookup),
		cmocka_unit_test(attribute_lookup_in_any_shape),
		cmocka_unit_test(attribute_lookup_of_long_values),
		cmocka_unit_test(priority_is_noted),
	};

	return cmocka_run_group_tests_name("otlp_index", tests, NULL, NULL);
}
