/* SPDX-License-Identifier: Apache-2.0
 *
 * jaeger_encode.c - see jaeger_encode.h.
 */
#include "wire/jaeger_encode.h"

#include "wire/any_value.h"
#include "wire/jaeger_span.h"
#include "wire/pb.h"
#include "wire/span.h"

#include <stdlib.h>

enum { SPAN_TAGS = 8, LOG_FIELDS = 2, PROCESS_TAGS = 2, REFERENCES = 4, WARNINGS = 12 };

/* ---- tags ---- */

static void put_text_tag(struct buf *out, uint32_t number, const char *key, struct bytes text)
{
	size_t mark = pb_begin(out, number);

	pb_put_str(out, 1, key);
	pb_put_bytes(out, 3, text);
	pb_end(out, mark);
}

static void put_true_tag(struct buf *out, const char *key)
{
	size_t mark = pb_begin(out, SPAN_TAGS);

	pb_put_str(out, 1, key);
	pb_put_uint(out, 2, JAEGER_BOOL);
	pb_put_uint(out, 4, 1);
	pb_end(out, mark);
}

/* Type and value. */
static void put_value(struct buf *out, const struct any_value *v)
{
	struct buf text = BUF_INIT;

	switch (v->kind) {
	case ANY_BOOL:
		pb_put_uint(out, 2, JAEGER_BOOL);
		pb_put_uint(out, 4, v->b);
		return;
	case ANY_INT:
		pb_put_uint(out, 2, JAEGER_INT64);
		pb_put_uint(out, 5, (uint64_t)v->i);
		return;
	case ANY_DOUBLE:
		pb_put_uint(out, 2, JAEGER_FLOAT64);
		pb_put_double(out, 6, v->d);
		return;
	case ANY_BYTES:
		pb_put_uint(out, 2, JAEGER_BINARY);
		pb_put_bytes(out, 7, v->s);
		return;
	case ANY_STRING:
		pb_put_bytes(out, 3, v->s);
		return;
	default: /* Jaeger has no lists: JSON */
		any_value_text(v, &text);
		pb_put_bytes(out, 3, buf_bytes(&text));
		buf_fini(&text);
	}
}

static void put_tag(struct buf *out, uint32_t number, struct bytes key, const struct any_value *v)
{
	size_t mark = pb_begin(out, number);

	pb_put_bytes(out, 1, key);
	put_value(out, v);
	pb_end(out, mark);
}

/* ---- what a span says, taken apart ---- */

struct parts {
	struct bytes resource, scope, span;
	struct bytes trace_id, id, parent, state, name, status_message;
	uint64_t kind, start, end, status;
	uint32_t flags;
};

static void read_status(struct parts *p, struct bytes in)
{
	struct pb_field f;

	while (pb_next(&in, &f) > 0) {
		if (f.number == 2 && f.wire == PB_LEN)
			p->status_message = f.data;
		else if (f.number == 3 && f.wire == PB_VARINT)
			p->status = f.value;
	}
}

static void read_text_field(struct parts *p, const struct pb_field *f)
{
	switch (f->number) {
	case 1:
		p->trace_id = f->data;
		return;
	case 2:
		p->id = f->data;
		return;
	case 3:
		p->state = f->data;
		return;
	case 4:
		p->parent = f->data;
		return;
	case 5:
		p->name = f->data;
		return;
	case 15:
		read_status(p, f->data);
		return;
	default:
		return;
	}
}

/* True when the attribute is one of ours for what Jaeger has a field for. */
static bool take_own(struct parts *p, struct bytes key, const struct any_value *v)
{
	if (key.n == 0 || (key.p[0] != 'j' && key.p[0] != '@'))
		return false;
	if (bytes_eq_str(key, "jaeger.debug") && v->kind == ANY_BOOL) {
		p->flags |= v->b ? JAEGER_DEBUG : 0;
		return v->b;
	}
	if (bytes_eq_str(key, "jaeger.flags") && v->kind == ANY_INT) {
		p->flags |= (uint32_t)v->i;
		return true;
	}
	return bytes_eq_str(key, "@jaeger@warnings") && v->kind == ANY_ARRAY;
}

static void read_span(struct parts *p)
{
	struct bytes in = p->span, key, any;
	struct any_value v;
	struct pb_field f;

	while (pb_next(&in, &f) > 0) {
		if (f.wire == PB_LEN && f.number == 9) {
			any_pair_read(f.data, &key, &any);
			any_value_read(any, &v);
			(void)take_own(p, key, &v);
		} else if (f.wire == PB_LEN) {
			read_text_field(p, &f);
		} else if (f.number == 6 && f.wire == PB_VARINT) {
			p->kind = f.value;
		} else if (f.number == 7 && f.wire == PB_FIXED64) {
			p->start = f.value;
		} else if (f.number == 8 && f.wire == PB_FIXED64) {
			p->end = f.value;
		} else if (f.number == 16 && f.wire == PB_FIXED32) {
			p->flags |= (uint32_t)f.value & JAEGER_SAMPLED;
		}
	}
}

/* The first field `number` that is a message. */
static struct bytes sub_message(struct bytes in, uint32_t number)
{
	struct pb_field f;

	while (pb_next(&in, &f) > 0)
		if (f.number == number && f.wire == PB_LEN)
			return f.data;
	return BYTES_EMPTY;
}

static bool find_in_scope(struct parts *p, struct bytes scope_spans)
{
	struct bytes in = scope_spans;
	struct pb_field f;

	while (pb_next(&in, &f) > 0) {
		if (f.number != 2 || f.wire != PB_LEN)
			continue;
		p->span = f.data;
		p->scope = sub_message(scope_spans, 1);
		return true;
	}
	return false;
}

/* The first span, and what it belongs to. */
static bool find_span(struct parts *p, struct bytes request)
{
	struct pb_field rs, ss = { 0 };

	while (pb_next(&request, &rs) > 0) {
		struct bytes in = rs.data;

		while (rs.number == 1 && rs.wire == PB_LEN && pb_next(&in, &ss) > 0) {
			if (ss.number == 2 && ss.wire == PB_LEN && find_in_scope(p, ss.data)) {
				p->resource = sub_message(rs.data, 1);
				return true;
			}
		}
	}
	return false;
}

/* ---- references ---- */

struct link {
	struct bytes trace_id, id;
	enum jaeger_ref_type type;
};

static struct link read_link(struct bytes in)
{
	struct link l = { .type = JAEGER_FOLLOWS_FROM };
	struct bytes key, any;
	struct any_value v;
	struct pb_field f;

	while (pb_next(&in, &f) > 0) {
		if (f.wire != PB_LEN)
			continue;
		if (f.number == 1)
			l.trace_id = f.data;
		else if (f.number == 2)
			l.id = f.data;
		if (f.number != 4)
			continue;
		any_pair_read(f.data, &key, &any);
		any_value_read(any, &v);
		if (bytes_eq_str(key, "opentracing.ref_type") && v.kind == ANY_STRING)
			l.type = bytes_eq_str(v.s, "child_of") ? JAEGER_CHILD_OF
							       : JAEGER_FOLLOWS_FROM;
	}
	return l;
}

static void put_reference(struct buf *out, const struct link *l)
{
	size_t mark = pb_begin(out, REFERENCES);

	pb_put_bytes(out, 1, l->trace_id);
	pb_put_bytes(out, 2, l->id);
	if (l->type != JAEGER_CHILD_OF)
		pb_put_uint(out, 3, l->type);
	pb_end(out, mark);
}

static bool is_parent(const struct parts *p, const struct link *l)
{
	return bytes_eq(l->id, p->parent) && bytes_eq(l->trace_id, p->trace_id);
}

/* The parent first; a link to it says what kind of reference it is. */
static void put_references(struct buf *out, const struct parts *p)
{
	struct link parent = { p->trace_id, p->parent, JAEGER_CHILD_OF };
	struct bytes in = p->span;
	struct pb_field f;

	while (p->parent.n > 0 && pb_next(&in, &f) > 0) {
		if (f.number == 13 && f.wire == PB_LEN) {
			struct link l = read_link(f.data);

			if (is_parent(p, &l))
				parent.type = l.type;
		}
	}
	if (p->parent.n > 0)
		put_reference(out, &parent);
	for (in = p->span; pb_next(&in, &f) > 0;) {
		if (f.number == 13 && f.wire == PB_LEN) {
			struct link l = read_link(f.data);

			if (!is_parent(p, &l))
				put_reference(out, &l);
		}
	}
}

/* ---- tags, logs, process ---- */

static void put_attributes(struct buf *out, struct parts *p)
{
	struct bytes in = p->span, key, any;
	struct any_value v;
	struct pb_field f;

	while (pb_next(&in, &f) > 0) {
		if (f.number != 9 || f.wire != PB_LEN)
			continue;
		any_pair_read(f.data, &key, &any);
		any_value_read(any, &v);
		if (!take_own(p, key, &v))
			put_tag(out, SPAN_TAGS, key, &v);
	}
}

static void put_scope(struct buf *out, struct bytes scope)
{
	struct bytes name = sub_message(scope, 1), version = sub_message(scope, 2);

	if (name.n > 0)
		put_text_tag(out, SPAN_TAGS, "otel.scope.name", name);
	if (version.n > 0)
		put_text_tag(out, SPAN_TAGS, "otel.scope.version", version);
}

static void put_meanings(struct buf *out, const struct parts *p)
{
	static const char *const kinds[] = { [SPAN_INTERNAL] = "internal",
					     [SPAN_SERVER] = "server",
					     [SPAN_CLIENT] = "client",
					     [SPAN_PRODUCER] = "producer",
					     [SPAN_CONSUMER] = "consumer" };

	put_scope(out, p->scope);
	if (p->kind > 0 && p->kind < COUNT_OF(kinds))
		put_text_tag(out, SPAN_TAGS, "span.kind", bytes_str(kinds[p->kind]));
	if (p->status == STATUS_OK)
		put_text_tag(out, SPAN_TAGS, "otel.status_code", BYTES_LIT("OK"));
	if (p->status == STATUS_ERROR) {
		put_text_tag(out, SPAN_TAGS, "otel.status_code", BYTES_LIT("ERROR"));
		put_true_tag(out, "error");
	}
	if (p->status_message.n > 0)
		put_text_tag(out, SPAN_TAGS, "otel.status_description", p->status_message);
	if (p->state.n > 0)
		put_text_tag(out, SPAN_TAGS, "w3c.tracestate", p->state);
}

static void put_time(struct buf *out, uint32_t number, int64_t seconds, int64_t nanos)
{
	size_t mark = pb_begin(out, number);

	if (seconds != 0)
		pb_put_uint(out, 1, (uint64_t)seconds);
	if (nanos != 0)
		pb_put_uint(out, 2, (uint64_t)nanos);
	pb_end(out, mark);
}

static void put_ns(struct buf *out, uint32_t number, uint64_t ns)
{
	put_time(out, number, (int64_t)(ns / 1000000000), (int64_t)(ns % 1000000000));
}

/* The name is the field `event`, unless an attribute of that name is there. */
static void put_log(struct buf *out, struct bytes event)
{
	struct bytes in = event, name = BYTES_EMPTY, key, any;
	size_t mark = pb_begin(out, 9);
	uint64_t time = 0;
	struct any_value v;
	struct pb_field f;
	bool has_event = false;

	while (pb_next(&in, &f) > 0) {
		if (f.number == 1 && f.wire == PB_FIXED64)
			time = f.value;
		else if (f.number == 2 && f.wire == PB_LEN)
			name = f.data;
		else if (f.number == 3 && f.wire == PB_LEN) {
			any_pair_read(f.data, &key, &any);
			has_event |= bytes_eq_str(key, "event");
		}
	}
	put_ns(out, 1, time);
	if (name.n > 0 && !has_event)
		put_text_tag(out, LOG_FIELDS, "event", name);
	for (in = event; pb_next(&in, &f) > 0;) {
		if (f.number != 3 || f.wire != PB_LEN)
			continue;
		any_pair_read(f.data, &key, &any);
		any_value_read(any, &v);
		put_tag(out, LOG_FIELDS, key, &v);
	}
	pb_end(out, mark);
}

static void put_logs(struct buf *out, struct bytes span)
{
	struct pb_field f = { .number = 0 };

	while (pb_next(&span, &f) > 0)
		if (f.number == 11 && f.wire == PB_LEN)
			put_log(out, f.data);
}

static struct bytes service_of(struct bytes resource)
{
	struct bytes key, any;
	struct any_value v;
	struct pb_field f;

	while (pb_next(&resource, &f) > 0) {
		if (f.number != 1 || f.wire != PB_LEN)
			continue;
		any_pair_read(f.data, &key, &any);
		any_value_read(any, &v);
		if (bytes_eq_str(key, "service.name") && v.kind == ANY_STRING)
			return v.s;
	}
	return BYTES_LIT(JAEGER_NO_SERVICE);
}

static void put_process(struct buf *out, struct bytes resource)
{
	size_t mark = pb_begin(out, 10);
	struct bytes key, any;
	struct any_value v;
	struct pb_field f;

	pb_put_bytes(out, 1, service_of(resource));
	while (pb_next(&resource, &f) > 0) {
		if (f.number != 1 || f.wire != PB_LEN)
			continue;
		any_pair_read(f.data, &key, &any);
		any_value_read(any, &v);
		if (!bytes_eq_str(key, "service.name") || v.kind != ANY_STRING)
			put_tag(out, PROCESS_TAGS, key, &v);
	}
	pb_end(out, mark);
}

static void put_texts(struct buf *out, struct bytes array)
{
	struct any_value v;
	struct pb_field f;

	while (pb_next(&array, &f) > 0) {
		if (f.number != 1 || f.wire != PB_LEN)
			continue;
		any_value_read(f.data, &v);
		if (v.kind == ANY_STRING)
			pb_put_bytes(out, WARNINGS, v.s);
	}
}

static void put_warnings(struct buf *out, struct bytes span)
{
	struct bytes key, any;
	struct any_value v;
	struct pb_field f;

	while (pb_next(&span, &f) > 0) {
		if (f.number != 9 || f.wire != PB_LEN)
			continue;
		any_pair_read(f.data, &key, &any);
		any_value_read(any, &v);
		if (bytes_eq_str(key, "@jaeger@warnings") && v.kind == ANY_ARRAY)
			put_texts(out, v.s);
	}
}

static void put_span(struct buf *out, struct parts *p)
{
	int64_t ns = (int64_t)(p->end - p->start);

	pb_put_bytes(out, 1, p->trace_id);
	pb_put_bytes(out, 2, p->id);
	if (p->name.n > 0)
		pb_put_bytes(out, 3, p->name);
	put_references(out, p);
	if (p->flags != 0)
		pb_put_uint(out, 5, p->flags);
	put_ns(out, 6, p->start);
	put_time(out, 7, ns / 1000000000, ns % 1000000000);
	put_attributes(out, p);
	put_meanings(out, p);
	put_logs(out, p->span);
	put_process(out, p->resource);
	put_warnings(out, p->span);
}

int jaeger_encode_span(struct bytes request, struct buf *out, struct err *err)
{
	struct parts p = { .flags = 0 };
	size_t start = out->n;

	if (!find_span(&p, request))
		return err_set(err, ERR_INVALID, "jaeger: a request without a span");
	read_span(&p);
	put_span(out, &p);
	if (!out->overflow)
		return 0;
	out->n = start;
	return err_set(err, ERR_TOO_LARGE, "jaeger: the span is larger than %zu bytes", out->max);
}
