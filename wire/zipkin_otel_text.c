/* SPDX-License-Identifier: Apache-2.0
 *
 * zipkin_otel_text.c - see zipkin_otel_text.h.
 *
 * DESIGN: a name or a trace state may have bars of its own, so where the JSON starts is tried: at
 * each `|{` from the left, up to SPLITS of them, until what follows decodes as one object to its
 * end.
 */
#include "wire/zipkin_otel_text.h"

#include "base/str.h"
#include "wire/json_reader.h"
#include "wire/pb.h"

enum { JSON_DEPTH = 32, SPLITS = 8 };

static int put_json_value(struct buf *b, struct json_reader *r, const struct json_value *v);

/* The members of an opened object as KeyValues, field `number`; null is left out. */
static int put_json_members(struct buf *b, uint32_t number, struct json_reader *r)
{
	struct json_value v;
	int rc = 0;

	while ((rc = json_reader_member(r, &v, NULL)) > 0) {
		size_t pair, any;

		if (v.kind == JSON_NULL)
			continue;
		pair = pb_begin(b, number);
		pb_put_bytes(b, 1, v.key);
		any = pb_begin(b, 2);
		if (put_json_value(b, r, &v) < 0)
			return -1;
		pb_end(b, any);
		pb_end(b, pair);
	}
	return rc;
}

static int put_json_elements(struct buf *b, struct json_reader *r)
{
	struct json_value v;
	int rc = 0;

	while ((rc = json_reader_element(r, &v, NULL)) > 0) {
		size_t any = pb_begin(b, 1);

		if (put_json_value(b, r, &v) < 0)
			return -1;
		pb_end(b, any);
	}
	return rc;
}

static int put_json_number(struct buf *b, const struct json_value *v)
{
	bool is_plain = memchr(v->text.p, '.', v->text.n) == NULL;
	int64_t i = 0;
	double d = 0;

	if (is_plain && json_reader_i64(v, &i) == 0)
		pb_put_uint(b, ANY_INT, (uint64_t)i);
	else if (json_reader_double(v, &d) == 0)
		pb_put_double(b, ANY_DOUBLE, d);
	else
		return -1;
	return 0;
}

/* The content of an AnyValue. */
static int put_json_value(struct buf *b, struct json_reader *r, const struct json_value *v)
{
	size_t mark = 0;
	int rc = 0;

	switch (v->kind) {
	case JSON_NULL:
		return 0;
	case JSON_TRUE:
	case JSON_FALSE:
		pb_put_uint(b, ANY_BOOL, v->kind == JSON_TRUE);
		return 0;
	case JSON_NUMBER:
		return put_json_number(b, v);
	case JSON_STRING:
		pb_put_bytes(b, ANY_STRING, v->text);
		return 0;
	default:
		mark = pb_begin(b, v->kind == JSON_ARRAY ? ANY_ARRAY : ANY_KVLIST);
		rc = v->kind == JSON_ARRAY ? put_json_elements(b, r) : put_json_members(b, 1, r);
		pb_end(b, mark);
		return rc;
	}
}

/* A JSON object as attributes, field `number`. -1: it is none; nothing is written. */
static int put_json_attrs(struct buf *b, struct arena *a, uint32_t number, struct bytes text)
{
	struct json_reader r;
	struct json_value v;
	size_t before = b->n;

	json_reader_init(&r, text, a);
	r.max_depth = JSON_DEPTH;
	if (json_reader_value(&r, &v, NULL) == 0 && v.kind == JSON_OBJECT &&
	    put_json_members(b, number, &r) == 0 && json_reader_end(&r, NULL) == 0)
		return 0;
	b->n = MIN(before, b->n);
	return -1;
}

/* Cut `s` at its first '|': the part before it; *s is what follows. False: there is none. */
static bool cut_first(struct bytes *s, struct bytes *part)
{
	const uint8_t *bar = s->n ? memchr(s->p, '|', s->n) : NULL;

	if (bar == NULL)
		return false;
	*part = (struct bytes){ s->p, (size_t)(bar - s->p) };
	*s = (struct bytes){ bar + 1, s->n - part->n - 1 };
	return true;
}

/* Cut the count behind the last '|' of `s`. -1: there is none. */
static int cut_dropped_count(struct bytes *s, uint32_t *out)
{
	const uint8_t *bar = s->n ? memrchr(s->p, '|', s->n) : NULL;
	uint64_t v = 0;
	size_t at;

	if (bar == NULL)
		return -1;
	at = (size_t)(bar - s->p);
	if (str_to_u64((struct bytes){ bar + 1, s->n - at - 1 }, &v) < 0 || v > UINT32_MAX)
		return -1;
	*out = (uint32_t)v;
	s->n = at;
	return 0;
}

/* head|{...}: the attributes as field `number`, *head what stands before. -1: not this. */
static int put_split(struct buf *b, struct arena *a, uint32_t number, struct bytes text,
		     struct bytes *head)
{
	size_t at = 0;

	for (int i = 0; i < SPLITS; i++) {
		const uint8_t *hit = memmem(text.p + at, text.n - at, "|{", 2);

		if (hit == NULL)
			return -1;
		at = (size_t)(hit - text.p) + 1;
		*head = (struct bytes){ text.p, at - 1 };
		if (put_json_attrs(b, a, number, (struct bytes){ text.p + at, text.n - at }) == 0)
			return 0;
	}
	return -1;
}

int zipkin_otel_link(struct buf *b, struct arena *a, uint32_t number, struct bytes text)
{
	struct bytes trace_hex, span_hex, state;
	size_t before = b->n, mark;
	uint8_t trace_id[16], span_id[8];
	uint32_t n_dropped = 0;

	if (!cut_first(&text, &trace_hex) || !cut_first(&text, &span_hex) ||
	    cut_dropped_count(&text, &n_dropped) < 0 || str_unhex(trace_hex, trace_id, 16) < 0 ||
	    str_unhex(span_hex, span_id, 8) < 0)
		return -1;
	mark = pb_begin(b, number);
	pb_put_bytes(b, 1, (struct bytes){ trace_id, 16 });
	pb_put_bytes(b, 2, (struct bytes){ span_id, 8 });
	if (put_split(b, a, 4, text, &state) < 0) {
		b->n = before;
		return -1;
	}
	if (state.n > 0)
		pb_put_bytes(b, 3, state);
	if (n_dropped > 0)
		pb_put_uint(b, 5, n_dropped);
	pb_end(b, mark);
	return 0;
}

static int put_event(struct buf *b, struct bytes name, uint32_t n_dropped)
{
	if (name.n > 0)
		pb_put_bytes(b, 2, name);
	if (n_dropped > 0)
		pb_put_uint(b, 4, n_dropped);
	return 0;
}

/* "name": {...}, as the specification writes it, and name: {...} without the quotes (Go). */
static int put_spec_event(struct buf *b, struct arena *a, struct bytes text)
{
	const uint8_t *hit =
		memmem(text.p, text.n, text.p[0] == '"' ? "\":" : ": {", text.p[0] == '"' ? 2 : 3);
	size_t quote = text.p[0] == '"', at;

	if (hit == NULL || (at = (size_t)(hit - text.p)) < 2 * quote)
		return -1;
	if (put_json_attrs(b, a, 3, (struct bytes){ hit + 1 + quote, text.n - at - 1 - quote }) < 0)
		return -1;
	return put_event(b, (struct bytes){ text.p + quote, at - quote }, 0);
}

/* {"name": {...}} (Python). */
static int put_object_event(struct buf *b, struct arena *a, struct bytes text)
{
	struct json_reader r;
	struct json_value v, m;
	struct bytes name;
	size_t before = b->n;

	json_reader_init(&r, text, a);
	r.max_depth = JSON_DEPTH;
	if (json_reader_value(&r, &v, NULL) < 0 || v.kind != JSON_OBJECT ||
	    json_reader_member(&r, &m, NULL) <= 0 || m.kind != JSON_OBJECT)
		return -1;
	name = m.key;
	if (put_json_members(b, 3, &r) == 0 && json_reader_member(&r, &v, NULL) == 0 &&
	    json_reader_end(&r, NULL) == 0)
		return put_event(b, name, 0);
	b->n = MIN(before, b->n);
	return -1;
}

int zipkin_otel_event(struct buf *b, struct arena *a, struct bytes text, bool is_otel)
{
	struct bytes whole = text, name;
	uint32_t n_dropped = 0;

	if (text.n < 4)
		return -1;
	if (cut_dropped_count(&text, &n_dropped) == 0 && put_split(b, a, 3, text, &name) == 0)
		return put_event(b, name, n_dropped);
	if (!is_otel || whole.p[whole.n - 1] != '}')
		return -1;
	return whole.p[0] == '{' ? put_object_event(b, a, whole) : put_spec_event(b, a, whole);
}
