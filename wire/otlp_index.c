/* SPDX-License-Identifier: Apache-2.0
 *
 * otlp_index.c - see otlp_index.h.
 *
 * DESIGN: each level is walked twice: first for its own fields (so that a resource behind its spans still comes first),
 * then for its children. Skipping a child by its length costs a few nanoseconds; the bytes of spans are read once.
 *
 *   request -> ResourceSpans -> ScopeSpans -> Span           otlp_count stops above Span
 */
#include "wire/otlp_index.h"

#include "base/str.h"
#include "wire/otlp_validate.h"
#include "wire/pb.h"
#include "wire/tracestate.h"

#include <stdio.h>

enum {
	REQUEST_RESOURCE_SPANS = 1,
	RS_RESOURCE = 1,
	RS_SCOPE_SPANS = 2,
	RS_SCHEMA_URL = 3,
	RS_DEPRECATED_SPANS = 1000,	/* instrumentation_library_spans of proto 0.15 to 0.18 */
	SS_SCOPE = 1,
	SS_SPANS = 2,
	SS_SCHEMA_URL = 3,
	PREFETCH_AHEAD = 1024,		/* measured: 106-123 -> 87-92 ns/span on cold data */
};

/* Where we are, for messages and rejects; indexes count envelopes as sent, empty ones too. */
struct place {
	uint32_t resource_spans, scope_spans, span;
};

struct walk {
	struct span_tables *t;
	struct arena *arena;
	struct otlp_result *result;
	struct err *err;
	struct place at;
	uint32_t ordinal;
	bool scope_text_is_bad, resource_text_is_bad;
};

static int damaged(const struct walk *w, const char *what)
{
	return err_set(w->err, ERR_INVALID, "resource_spans[%u].scope_spans[%u].spans[%u]%s",
		       w->at.resource_spans, w->at.scope_spans, w->at.span, what);
}

static int refuse(const struct walk *w, enum otlp_verdict v, const char *field)
{
	char text[96];

	snprintf(text, sizeof(text), "%s: %s", field,
		 v == OTLP_TOO_DEEP ? "nested deeper than 64 levels" : "damaged protobuf");
	return damaged(w, text);
}

/* Which field of a ResourceSpans holds its children: 2, or 1000 when there is no 2. */
static int child_field(struct bytes rs, uint32_t *number)
{
	bool old = false;
	struct pb_field f;
	int got;

	*number = RS_SCOPE_SPANS;
	while ((got = pb_next(&rs, &f)) > 0) {
		if (f.number == RS_SCOPE_SPANS)
			return f.wire == PB_LEN ? 0 : -1;
		old |= f.number == RS_DEPRECATED_SPANS && f.wire == PB_LEN;
	}
	if (old)
		*number = RS_DEPRECATED_SPANS;
	return got;
}

/* ---- sizes ---- */

/* Children numbered `child` and runs of other fields in one envelope. */
static int count_level(struct bytes in, uint32_t child, uint64_t *n_children, uint64_t *n_runs)
{
	bool in_run = false;
	struct pb_field f;
	int got;

	*n_children = *n_runs = 0;
	while ((got = pb_next(&in, &f)) > 0) {
		if (f.number == child) {
			if (f.wire != PB_LEN)
				return -1;
			(*n_children)++;
			in_run = false;
		} else if (!in_run) {
			(*n_runs)++;
			in_run = true;
		}
	}
	return got;
}

struct wide_counts {
	uint64_t spans, scopes, resources, heads;
};

static int count_resource_spans(struct bytes rs, struct wide_counts *c)
{
	uint64_t n_scopes, n_runs, n_spans, n_inner, with_spans = 0;
	struct pb_field f;
	uint32_t child;

	if (child_field(rs, &child) < 0 || count_level(rs, child, &n_scopes, &n_runs) < 0)
		return -1;
	for (struct bytes in = rs; pb_next(&in, &f) > 0;) {
		if (f.number != child)
			continue;
		if (count_level(f.data, SS_SPANS, &n_spans, &n_inner) < 0)
			return -1;
		if (n_spans == 0)
			continue;
		with_spans++;
		c->spans += n_spans;
		c->heads += n_inner;
	}
	if (with_spans > 0) {
		c->scopes += with_spans;
		c->resources++;
		c->heads += n_runs;
	}
	return 0;
}

int otlp_count(struct bytes request, struct otlp_counts *counts, struct err *err)
{
	struct wide_counts c = { 0 };
	struct pb_field f;
	uint64_t n = 0;
	int got;

	while ((got = pb_next(&request, &f)) > 0) {
		if (f.number != REQUEST_RESOURCE_SPANS)
			continue;
		if (f.wire != PB_LEN || count_resource_spans(f.data, &c) < 0)
			return err_set(err, ERR_INVALID, "resource_spans[%llu]: damaged protobuf",
				       (unsigned long long)n);
		n++;
	}
	if (got < 0)
		return err_set(err, ERR_INVALID, "request: damaged protobuf after resource_spans[%llu]",
			       (unsigned long long)n);
	if (MAX(c.spans, c.heads) > UINT32_MAX / 2)
		return err_set(err, ERR_TOO_LARGE, "request: too many spans: %llu",
			       (unsigned long long)c.spans);
	*counts = (struct otlp_counts){ (uint32_t)c.spans, (uint32_t)c.scopes, (uint32_t)c.resources,
					(uint32_t)c.heads };
	return 0;
}

/* ---- spans ---- */

static void reject(struct walk *w, const char *field, const char *why)
{
	struct otlp_rejects *r = &w->result->rejects;

	if (r->n++ == 0)
		snprintf(r->first, sizeof(r->first), "resource_spans[%u].scope_spans[%u].spans[%u]%s: %s",
			 w->at.resource_spans, w->at.scope_spans, w->at.span, field, why);
	w->result->is_whole = false;
}

/* What a span's walk found besides the span_ref itself. */
struct span_scan {
	struct bytes trace_id, span_id, parent_id;
	enum otlp_verdict verdict;	/* worst below span level that does not refuse the request */
};

static int scan_text(struct span_ref *sp, const struct pb_field *f, uint32_t *off, uint32_t *len,
		     struct span_scan *s)
{
	*off = (uint32_t)(f->data.p - sp->p);
	*len = (uint32_t)f->data.n;
	s->verdict = otlp_worse(s->verdict, otlp_validate_string(f->data));
	return 0;
}

/* A field of the Span that holds a message or text; -1 damaged. */
static int scan_len_field(struct walk *w, struct span_ref *sp, const struct pb_field *f,
			  struct span_scan *s)
{
	enum otlp_verdict v = OTLP_VALID;
	const char *field = "";

	switch (f->number) {
	case 1:
		s->trace_id = f->data;
		return 0;
	case 2:
		s->span_id = f->data;
		return 0;
	case 3:
		return scan_text(sp, f, &sp->state_off, &sp->state_len, s);
	case 4:
		s->parent_id = f->data;
		return 0;
	case 5:
		return scan_text(sp, f, &sp->name_off, &sp->name_len, s);
	case 9:
		field = ".attributes";
		v = otlp_validate_key_value(f->data, 0);
		break;
	case 11:
		field = ".events";
		v = otlp_validate_event(f->data);
		break;
	case 13:
		field = ".links";
		v = otlp_validate_link(f->data);
		break;
	case 15:
		field = ".status";
		v = otlp_validate_status(f->data, &sp->status);
		break;
	default:
		return 0;
	}
	if (UNLIKELY(v < 0))
		return refuse(w, v, field);
	s->verdict = otlp_worse(s->verdict, v);
	return 0;
}

/* Wire type of each known Span field; 0xff: unknown, anything goes. */
static const uint8_t span_wire[17] = {
	0xff,	PB_LEN,	    PB_LEN,	PB_LEN, PB_LEN, PB_LEN,	    PB_VARINT, PB_FIXED64, PB_FIXED64,
	PB_LEN, PB_VARINT,  PB_LEN,	PB_VARINT, PB_LEN, PB_VARINT, PB_LEN,    PB_FIXED32,
};

static int scan_span(struct walk *w, struct span_ref *sp, struct span_scan *s)
{
	struct bytes in = { sp->p, sp->len };
	struct pb_field f;
	int got;

	while ((got = pb_next(&in, &f)) > 0) {
		if (f.number >= COUNT_OF(span_wire))
			continue;
		if (UNLIKELY(f.wire != span_wire[f.number]))
			return damaged(w, ": a known field has the wrong wire type");
		if (f.wire == PB_LEN) {
			if (UNLIKELY(scan_len_field(w, sp, &f, s) < 0))
				return -1;
		} else if (f.number == 6) {
			sp->kind = (uint8_t)MIN(f.value, 255u);
		} else if (f.number == 7) {
			sp->start_ns = f.value;
		} else if (f.number == 8) {
			sp->end_ns = f.value;
		} else if (f.number == 16) {
			sp->flags = (uint32_t)f.value;
		}
	}
	return got < 0 ? damaged(w, ": damaged protobuf") : 0;
}

static bool is_zero(const uint8_t *p, size_t n)
{
	uint8_t acc = 0;

	for (size_t i = 0; i < n; i++)
		acc |= p[i];
	return acc == 0;
}

/* Copy the ids in; false (and counted) when one is unusable. */
static bool take_ids(struct walk *w, struct span_ref *sp, const struct span_scan *s)
{
	char text[64];

	if (s->trace_id.n != 16 || is_zero(s->trace_id.p, 16)) {
		snprintf(text, sizeof(text), "%s (%zu bytes)",
			 s->trace_id.n == 16 ? "all zero" : "must be 16 bytes", s->trace_id.n);
		reject(w, ".trace_id", text);
		return false;
	}
	if (s->span_id.n != 8 || is_zero(s->span_id.p, 8)) {
		snprintf(text, sizeof(text), "%s (%zu bytes)",
			 s->span_id.n == 8 ? "all zero" : "must be 8 bytes", s->span_id.n);
		reject(w, ".span_id", text);
		return false;
	}
	if (s->parent_id.n != 8 && s->parent_id.n != 0) {
		snprintf(text, sizeof(text), "must be 8 bytes or empty (%zu bytes)", s->parent_id.n);
		reject(w, ".parent_span_id", text);
		return false;
	}
	memcpy(sp->trace_id, s->trace_id.p, 16);
	memcpy(sp->span_id, s->span_id.p, 8);
	if (s->parent_id.n == 8)
		memcpy(sp->parent_id, s->parent_id.p, 8);
	return true;
}

static bool text_is_fine(struct walk *w, const struct span_scan *s)
{
	if (s->verdict == OTLP_BAD_ID)
		reject(w, ".links", "an id of the wrong length");
	else if (s->verdict == OTLP_BAD_TEXT)
		reject(w, "", "invalid UTF-8 in a string");
	else if (w->scope_text_is_bad)
		reject(w, "", "invalid UTF-8 in its scope");
	else if (w->resource_text_is_bad)
		reject(w, "", "invalid UTF-8 in its resource");
	else
		return true;
	return false;
}

static void take_randomness(struct span_ref *sp)
{
	struct tracestate_ot ot;

	sp->r = tracestate_randomness(sp->trace_id);
	sp->th = TH_UNKNOWN;
	if (LIKELY(sp->state_len == 0))
		return;
	tracestate_read(span_trace_state(sp), &ot);
	sp->th = ot.th;
	if (ot.has_rv)
		sp->r = ot.rv;
}

/* Bytes of the canonical tag and length in front of a span, 0 when what lies there is something else. */
static uint8_t canonical_head(const struct pb_field *f)
{
	size_t head = f->raw.n - f->data.n;

	return f->raw.p[0] == (SS_SPANS << 3 | PB_LEN) && head == 1 + pb_varint_size(f->data.n)
		       ? (uint8_t)head
		       : 0;
}

static int index_span(struct walk *w, const struct pb_field *f, uint32_t scope)
{
	struct span_ref *sp = &w->t->spans[w->t->n_spans];
	struct span_scan s = { .verdict = OTLP_VALID };

	PREFETCH(f->data.p + PREFETCH_AHEAD);
	memset(sp, 0, sizeof(*sp));
	sp->p = f->data.p;
	sp->len = (uint32_t)f->data.n;
	sp->scope = scope;
	sp->head_len = canonical_head(f);
	if (scan_span(w, sp, &s) < 0)
		return -1;
	if (!take_ids(w, sp, &s) || !text_is_fine(w, &s))
		return 0;
	take_randomness(sp);
	sp->ordinal = w->ordinal++;
	w->t->n_spans++;
	return 0;
}

/* ---- envelopes ---- */

static void add_head(struct span_tables *t, struct bytes raw, uint32_t first, uint32_t *n,
		     uint32_t *bytes)
{
	struct bytes *last = *n > 0 ? &t->heads[first + *n - 1] : NULL;

	*bytes += (uint32_t)raw.n;
	if (last != NULL && last->p + last->n == raw.p) {
		last->n += raw.n;
		return;
	}
	t->heads[first + (*n)++] = raw;
	t->n_heads++;
}

static int index_scope_spans(struct walk *w, struct bytes in, uint32_t resource)
{
	struct span_tables *t = w->t;
	struct scope_ref *scope = &t->scopes[t->n_scopes];
	uint32_t number = t->n_scopes, spans_before = t->n_spans, heads_before = t->n_heads;
	enum otlp_verdict v = OTLP_VALID;
	struct pb_field f;

	*scope = (struct scope_ref){ .resource = resource, .head = t->n_heads };
	w->at.span = 0;
	for (struct bytes rest = in; pb_next(&rest, &f) > 0;) {
		if (f.number == SS_SPANS)
			continue;
		if ((f.number == SS_SCOPE || f.number == SS_SCHEMA_URL) && f.wire != PB_LEN)
			return damaged(w, ": damaged scope");
		if (f.number == SS_SCOPE)
			v = otlp_worse(v, otlp_validate_scope(f.data));
		else if (f.number == SS_SCHEMA_URL)
			v = otlp_worse(v, otlp_validate_string(f.data));
		if (v < 0)
			return refuse(w, v, ".scope");
		add_head(t, f.raw, scope->head, &scope->n_head, &scope->head_bytes);
	}
	w->scope_text_is_bad = v != OTLP_VALID;
	for (; pb_next(&in, &f) > 0;) {
		if (f.number != SS_SPANS)
			continue;
		if (index_span(w, &f, number) < 0)
			return -1;
		w->at.span++;
	}
	if (t->n_spans > spans_before)
		t->n_scopes++;
	else
		t->n_heads = heads_before;
	return 0;
}

/* A resource sent in several fields means their merge; other readers get that wrong, so it is sent on as one. */
static void merge_resources(struct walk *w, struct bytes rs, uint32_t child, struct resource_ref *res)
{
	struct buf payload = BUF_INIT, whole = BUF_INIT;
	struct pb_field f;

	for (struct bytes in = rs; pb_next(&in, &f) > 0;)
		if (f.number == RS_RESOURCE)
			buf_add_bytes(&payload, f.data);
	pb_put_bytes(&whole, RS_RESOURCE, buf_bytes(&payload));
	for (struct bytes in = rs; pb_next(&in, &f) > 0;)
		if (f.number != RS_RESOURCE && f.number != child)
			buf_add_bytes(&whole, f.raw);
	w->t->heads[res->head] =
		(struct bytes){ arena_dup(w->arena, whole.p, whole.n), whole.n };
	res->n_head = 1;
	res->head_bytes = (uint32_t)whole.n;
	w->t->n_heads = res->head + 1;
	w->result->is_whole = false;
	buf_fini(&payload);
	buf_fini(&whole);
}

/* The fields of a ResourceSpans other than its children. */
static int index_resource(struct walk *w, struct bytes rs, uint32_t child, struct resource_ref *res)
{
	enum otlp_verdict v = OTLP_VALID;
	uint32_t n_resources = 0;
	struct pb_field f;

	for (struct bytes in = rs; pb_next(&in, &f) > 0;) {
		if (f.number == child)
			continue;
		if ((f.number == RS_RESOURCE || f.number == RS_SCHEMA_URL) && f.wire != PB_LEN)
			return damaged(w, ": damaged resource");
		if (f.number == RS_RESOURCE) {
			v = otlp_worse(v, otlp_validate_resource(f.data));
			n_resources++;
		} else if (f.number == RS_SCHEMA_URL) {
			v = otlp_worse(v, otlp_validate_string(f.data));
		}
		if (v < 0)
			return refuse(w, v, ".resource");
		add_head(w->t, f.raw, res->head, &res->n_head, &res->head_bytes);
	}
	w->resource_text_is_bad = v != OTLP_VALID;
	if (n_resources > 1)
		merge_resources(w, rs, child, res);
	return 0;
}

static bool scope_has_spans(struct bytes scope_spans)
{
	struct pb_field f;

	while (pb_next(&scope_spans, &f) > 0)
		if (f.number == SS_SPANS)
			return true;
	return false;
}

static bool resource_has_spans(struct bytes rs, uint32_t child)
{
	struct pb_field f;

	while (pb_next(&rs, &f) > 0)
		if (f.number == child && scope_has_spans(f.data))
			return true;
	return false;
}

static int index_resource_spans(struct walk *w, struct bytes rs)
{
	struct span_tables *t = w->t;
	struct resource_ref *res = &t->resources[t->n_resources];
	uint32_t number = t->n_resources, spans_before = t->n_spans, heads_before = t->n_heads;
	struct pb_field f;
	uint32_t child;

	w->at.scope_spans = w->at.span = 0;
	if (child_field(rs, &child) < 0)
		return damaged(w, ": damaged protobuf");
	if (!resource_has_spans(rs, child)) {
		w->result->is_whole = false;
		return 0;
	}
	w->result->is_whole &= child == RS_SCOPE_SPANS;
	*res = (struct resource_ref){ .head = t->n_heads };
	if (index_resource(w, rs, child, res) < 0)
		return -1;
	for (; pb_next(&rs, &f) > 0;) {
		if (f.number != child)
			continue;
		/* The tables have no room for an empty envelope: it was not counted. */
		if (!scope_has_spans(f.data))
			w->result->is_whole = false;
		else if (index_scope_spans(w, f.data, number) < 0)
			return -1;
		w->at.scope_spans++;
	}
	if (t->n_spans > spans_before)
		t->n_resources++;
	else
		t->n_heads = heads_before;
	return 0;
}

int otlp_index(struct bytes request, struct span_tables *tables, struct arena *arena,
	       struct otlp_result *result, struct err *err)
{
	struct walk w = { .t = tables, .arena = arena, .result = result, .err = err };
	struct pb_field f;

	tables->n_spans = tables->n_scopes = tables->n_resources = tables->n_heads = 0;
	*result = (struct otlp_result){ .is_whole = true };
	while (pb_next(&request, &f) > 0) {
		if (f.number != REQUEST_RESOURCE_SPANS)
			continue;
		if (index_resource_spans(&w, f.data) < 0)
			return -1;
		w.at.resource_spans++;
	}
	return 0;
}

bool otlp_attribute(struct bytes message, uint32_t number, struct bytes key, struct bytes *value)
{
	struct pb_field f, kv;

	while (pb_next(&message, &f) > 0) {
		bool match = false;

		if (f.number != number || f.wire != PB_LEN)
			continue;
		*value = BYTES_EMPTY;
		while (pb_next(&f.data, &kv) > 0) {
			if (kv.wire != PB_LEN)
				continue;
			if (kv.number == 1)
				match = bytes_eq(kv.data, key);
			else if (kv.number == 2)
				*value = kv.data;
		}
		if (match)
			return true;
	}
	return false;
}
