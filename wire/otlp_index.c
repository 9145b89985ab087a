/* SPDX-License-Identifier: Apache-2.0
 *
 * otlp_index.c - see otlp_index.h.
 *
 * DESIGN: envelopes are walked for their own fields, then for their children, so that a resource
 * behind its spans still comes first; skipping a child by its length costs a few nanoseconds. The
 * bytes of a span are read once: scan_fast takes the shapes that every SDK writes (one-byte tags
 * and lengths), pb_next all others; both fill the same span_ref.
 *
 *   request -> ResourceSpans -> ScopeSpans -> Span           otlp_count stops above Span
 *
 * LIMITS: a Span too short to hold its two ids gets no row in the tables, so the index is at most
 * about four times the request, whatever it holds.
 */
#include "wire/otlp_index.h"

#include "base/str.h"
#include "wire/otlp_plain.h"
#include "wire/otlp_validate.h"
#include "wire/pb.h"
#include "wire/tracestate.h"

#include <stdio.h>

enum {
	REQUEST_RESOURCE_SPANS = 1,
	RS_RESOURCE = 1,
	RS_SCOPE_SPANS = 2,
	RS_SCHEMA_URL = 3,
	RS_DEPRECATED_SPANS = 1000, /* instrumentation_library_spans of proto 0.15 to 0.18 */
	SS_SCOPE = 1,
	SS_SPANS = 2,
	SS_SCHEMA_URL = 3,
	METRIC_GAUGE = 5, /* each holds its data points as field 1, as do: */
	METRIC_SUM = 7,
	METRIC_HISTOGRAM = 9,
	METRIC_EXPONENTIAL_HISTOGRAM = 10,
	METRIC_SUMMARY = 11,
	METRIC_POINTS = 1,
	SPAN_MIN = 28,       /* tags, lengths and bytes of a trace id and a span id */
	PREFETCH_MAX = 1024, /* bytes asked for in advance for one child */
};

enum span_field {
	F_TRACE_ID = 1,
	F_SPAN_ID,
	F_TRACE_STATE,
	F_PARENT_SPAN_ID,
	F_NAME,
	F_KIND,
	F_START,
	F_END,
	F_ATTRIBUTES,
	F_DROPPED_ATTRIBUTES,
	F_EVENTS,
	F_DROPPED_EVENTS,
	F_LINKS,
	F_DROPPED_LINKS,
	F_STATUS,
	F_FLAGS,
	F_MAX,
};

/* How deep in the request a message speaks of. */
enum level { AT_RESOURCE, AT_SCOPE, AT_SPAN };

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
	const uint8_t *end; /* of the request */
	bool resource_text_is_bad;
	bool is_stored; /* nothing is rejected any more */
	enum otlp_signal signal;
};

static const struct {
	const char *resource, *scope, *item;
} names[] = {
	[OTLP_TRACES] = { "resource_spans", "scope_spans", "spans" },
	[OTLP_METRICS] = { "resource_metrics", "scope_metrics", "metrics" },
	[OTLP_LOGS] = { "resource_logs", "scope_logs", "log_records" },
};

enum { PLACE_MAX = 80 };

static const char *place_text(const struct walk *w, enum level level, char out[PLACE_MAX])
{
	int n = snprintf(out, PLACE_MAX, "%s[%u]", names[w->signal].resource, w->at.resource_spans);

	if (level >= AT_SCOPE)
		n += snprintf(out + n, (size_t)(PLACE_MAX - n), ".%s[%u]", names[w->signal].scope,
			      w->at.scope_spans);
	if (level >= AT_SPAN)
		snprintf(out + n, (size_t)(PLACE_MAX - n), ".%s[%u]", names[w->signal].item,
			 w->at.span);
	return out;
}

/* The request as a whole is unusable; `field` starts with a dot or is empty. Returns -1. */
static int refuse(const struct walk *w, enum level level, const char *field, enum otlp_verdict v)
{
	char place[PLACE_MAX];

	return err_set(w->err, ERR_INVALID, "%s%s: %s", place_text(w, level, place), field,
		       v == OTLP_TOO_DEEP ? "nested deeper than 64 levels" : "damaged protobuf");
}

/* Which field of a ResourceSpans holds its children: 2, or 1000 when there is no 2. (Those of logs
 * and metrics had a 1000 as well once, which nobody wrote for long.) */
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

struct level_counts {
	uint64_t children, long_children, runs;
};

/* Counting hops from length to length and waits for memory at each; the index then needs all that
 * lies between. So ask for the lines of the child after next, as if it were as long as this one:
 * measured in the receiver, 150 -> 141 ns/span for everything from socket to answer. */
static inline void prefetch_ahead(struct bytes child)
{
	for (size_t at = 0; at < MIN(child.n, (size_t)PREFETCH_MAX); at += 64)
		PREFETCH(child.p + 2 * child.n + at);
}

/* In one envelope: children numbered `child`, those of at least min_bytes, and runs of other
 * fields. */
static int count_level(struct bytes in, uint32_t child, size_t min_bytes, struct level_counts *c)
{
	bool in_run = false;
	struct pb_field f;
	int got;

	*c = (struct level_counts){ 0 };
	while ((got = pb_next(&in, &f)) > 0) {
		if (LIKELY(f.number == child)) {
			if (f.wire != PB_LEN)
				return -1;
			prefetch_ahead(f.data);
			c->children++;
			c->long_children += f.data.n >= min_bytes;
			in_run = false;
		} else if (!in_run) {
			c->runs++;
			in_run = true;
		}
	}
	return got;
}

struct wide_counts {
	uint64_t spans, scopes, resources, heads;
	size_t min_bytes; /* shorter spans have no row */
};

static int count_resource_spans(struct bytes rs, struct wide_counts *c)
{
	struct level_counts own, inner;
	uint64_t with_spans = 0;
	struct pb_field f;
	uint32_t child;

	if (child_field(rs, &child) < 0 || count_level(rs, child, 0, &own) < 0)
		return -1;
	for (struct bytes in = rs; pb_next(&in, &f) > 0;) {
		if (f.number != child)
			continue;
		if (count_level(f.data, SS_SPANS, c->min_bytes, &inner) < 0)
			return -1;
		if (inner.children == 0)
			continue;
		with_spans++;
		c->spans += inner.long_children;
		c->heads += inner.runs;
	}
	if (with_spans > 0) {
		c->scopes += with_spans;
		c->resources++;
		c->heads += own.runs;
	}
	return 0;
}

int otlp_count_items(enum otlp_signal signal, struct bytes request, struct otlp_counts *counts,
		     struct err *err)
{
	struct wide_counts c = { .min_bytes = signal == OTLP_TRACES ? SPAN_MIN : 0 };
	struct pb_field f;
	uint32_t n = 0;
	int got;

	/* Protobuf's own limit; with it every count and length below fits 32 bits. */
	if (request.n > INT32_MAX)
		return err_set(err, ERR_TOO_LARGE, "request: %zu bytes: over 2 GiB", request.n);
	while ((got = pb_next(&request, &f)) > 0) {
		if (f.number != REQUEST_RESOURCE_SPANS) {
			c.heads++;
			continue;
		}
		if (f.wire != PB_LEN || count_resource_spans(f.data, &c) < 0)
			return err_set(err, ERR_INVALID, "%s[%u]: damaged protobuf",
				       names[signal].resource, n);
		n++;
	}
	if (got < 0)
		return err_set(err, ERR_INVALID, "request: damaged protobuf after %u %s", n,
			       names[signal].resource);
	*counts = (struct otlp_counts){ (uint32_t)c.spans, (uint32_t)c.scopes,
					(uint32_t)c.resources, (uint32_t)c.heads };
	return 0;
}

int otlp_count(struct bytes request, struct otlp_counts *counts, struct err *err)
{
	return otlp_count_items(OTLP_TRACES, request, counts, err);
}

/* ---- spans ---- */

static void reject(struct walk *w, const char *field, const char *why)
{
	struct otlp_rejects *r = &w->result->rejects;
	char place[PLACE_MAX];

	if (r->n++ == 0)
		snprintf(r->first, sizeof(r->first), "%s%s: %s", place_text(w, AT_SPAN, place),
			 field, why);
	w->result->is_whole = false;
}

/* What a span's walk found besides the span_ref itself. */
struct span_scan {
	struct bytes trace_id, span_id, parent_id;
	enum otlp_verdict verdict; /* worst below span level that does not refuse the request */
};

static void take_text(struct span_scan *s, struct bytes text)
{
	s->verdict = otlp_worse(s->verdict, otlp_validate_string(text));
}

/* Has a KeyValue of any shape a key of span_wish.h? Arrays and long texts come here, too: a span
 * that has one of them is walked for wishes by nobody (measured: 70 ns/span with exemplars). */
static bool names_wish(struct bytes pair)
{
	static const char *const keys[] = { SPAN_PRIORITY_KEY, SPAN_REASON_KEY, SPAN_COUNT_KEY,
					    SPAN_EXEMPLAR_KEY, SPAN_EXEMPLAR_SDK_KEY };
	struct pb_field f = { 0 };

	while (pb_next(&pair, &f) > 0)
		for (size_t i = 0; f.number == 1 && f.wire == PB_LEN && i < COUNT_OF(keys); i++)
			if (bytes_eq_str(f.data, keys[i]))
				return true;
	return false;
}

/* A field of the Span that holds a message or text; -1 damaged. */
static int scan_len_field(struct walk *w, struct span_ref *sp, const struct pb_field *f,
			  struct span_scan *s)
{
	enum otlp_verdict v = OTLP_VALID;
	const char *field = "";

	switch (f->number) {
	case F_TRACE_ID:
		s->trace_id = f->data;
		break;
	case F_SPAN_ID:
		s->span_id = f->data;
		break;
	case F_PARENT_SPAN_ID:
		s->parent_id = f->data;
		break;
	case F_TRACE_STATE:
		sp->state = f->data.p;
		sp->state_len = (uint32_t)f->data.n;
		take_text(s, f->data);
		break;
	case F_NAME:
		sp->name_off = (uint32_t)(f->data.p - sp->p);
		sp->name_len = (uint32_t)f->data.n;
		take_text(s, f->data);
		break;
	case F_ATTRIBUTES:
		field = ".attributes";
		sp->may_wish |= names_wish(f->data);
		v = otlp_validate_key_value(f->data, 0, w->end);
		break;
	case F_EVENTS:
		field = ".events";
		v = otlp_validate_event(f->data, w->end);
		break;
	case F_LINKS:
		field = ".links";
		v = otlp_validate_link(f->data, w->end);
		break;
	case F_STATUS:
		field = ".status";
		v = otlp_validate_status(f->data, &sp->status, w->end);
		break;
	}
	if (UNLIKELY(v < 0))
		return refuse(w, AT_SPAN, field, v);
	s->verdict = otlp_worse(s->verdict, v);
	return 0;
}

/* Wire type of each known Span field. */
static const uint8_t span_wire[F_MAX] = {
	[F_TRACE_ID] = PB_LEN,    [F_SPAN_ID] = PB_LEN,
	[F_TRACE_STATE] = PB_LEN, [F_PARENT_SPAN_ID] = PB_LEN,
	[F_NAME] = PB_LEN,        [F_KIND] = PB_VARINT,
	[F_START] = PB_FIXED64,   [F_END] = PB_FIXED64,
	[F_ATTRIBUTES] = PB_LEN,  [F_DROPPED_ATTRIBUTES] = PB_VARINT,
	[F_EVENTS] = PB_LEN,      [F_DROPPED_EVENTS] = PB_VARINT,
	[F_LINKS] = PB_LEN,       [F_DROPPED_LINKS] = PB_VARINT,
	[F_STATUS] = PB_LEN,      [F_FLAGS] = PB_FIXED32,
};

/* One field of a Span in full generality. */
static int scan_field(struct walk *w, struct span_ref *sp, const struct pb_field *f,
		      struct span_scan *s)
{
	if (f->number >= F_MAX)
		return 0;
	if (UNLIKELY(f->wire != span_wire[f->number]))
		return refuse(w, AT_SPAN, ": a known field of the wrong wire type", OTLP_DAMAGED);
	if (f->wire == PB_LEN)
		return scan_len_field(w, sp, f, s);
	if (f->number == F_KIND)
		sp->kind = (uint8_t)MIN(f->value, 255u);
	else if (f->number == F_START)
		sp->start_ns = f->value;
	else if (f->number == F_END)
		sp->end_ns = f->value;
	else if (f->number == F_FLAGS)
		sp->flags = (uint32_t)f->value;
	return 0;
}

#define TAG(number, wire) ((number) << 3 | (wire))

enum { FAST_MARGIN = 2 + OTLP_PLAIN_WINDOW };

/* What follows an id of `want` bytes at body, or NULL when it is no such id; `left` counts from its
 * tag. */
static inline const uint8_t *after_id(const uint8_t *body, size_t want, size_t left)
{
	return body[-1] == want && left >= want + 2 ? body + want : NULL;
}

#define KEY_IS(pair, key)                                                                          \
	((pair)[1] == sizeof(key) - 1 && memcmp((pair) + 2, key, sizeof(key) - 1) == 0)
#define KEY_LENGTH(key) (UINT64_C(1) << (sizeof(key) - 1))

/* A plain KeyValue with a key of span_wish.h: every sampler asks, and a look at the key's length
 * here saves it a walk over the attributes (measured: 30 ns/span). */
static inline bool is_wish(const uint8_t *pair)
{
	static const uint64_t lengths = KEY_LENGTH(SPAN_PRIORITY_KEY) |
					KEY_LENGTH(SPAN_REASON_KEY) | KEY_LENGTH(SPAN_COUNT_KEY) |
					KEY_LENGTH(SPAN_EXEMPLAR_KEY) |
					KEY_LENGTH(SPAN_EXEMPLAR_SDK_KEY);

	if (LIKELY(!(lengths >> (pair[1] & 63) & 1)))
		return false;
	return KEY_IS(pair, SPAN_PRIORITY_KEY) || KEY_IS(pair, SPAN_REASON_KEY) ||
	       KEY_IS(pair, SPAN_COUNT_KEY) || KEY_IS(pair, SPAN_EXEMPLAR_KEY) ||
	       KEY_IS(pair, SPAN_EXEMPLAR_SDK_KEY);
}

/* The field at p in its usual shape; returns what follows it, or NULL: take the general way.
 * FAST_MARGIN bytes are readable from p, but the payload must still be found to end within `end`.
 * What is written before NULL is returned the general way writes again, or it refuses the request.
 */
static inline const uint8_t *scan_fast(const uint8_t *p, const uint8_t *end, struct span_ref *sp,
				       struct span_scan *s)
{
	const uint8_t *body = p + 2;
	size_t n = p[1], left = (size_t)(end - p);

	switch (p[0]) {
	case TAG(F_ATTRIBUTES, PB_LEN):
		if (n + 2 > left || !otlp_key_value_is_plain(body, n))
			return NULL;
		if (UNLIKELY(is_wish(body)))
			sp->may_wish = true;
		return body + n;
	case TAG(F_TRACE_ID, PB_LEN):
		s->trace_id = (struct bytes){ body, n };
		return after_id(body, 16, left);
	case TAG(F_SPAN_ID, PB_LEN):
		s->span_id = (struct bytes){ body, n };
		return after_id(body, 8, left);
	case TAG(F_PARENT_SPAN_ID, PB_LEN):
		s->parent_id = (struct bytes){ body, n };
		return after_id(body, 8, left);
	case TAG(F_NAME, PB_LEN):
		sp->name_off = (uint32_t)(body - sp->p);
		sp->name_len = (uint32_t)n;
		return n + 2 <= left && otlp_text_is_plain(body, n) ? body + n : NULL;
	case TAG(F_KIND, PB_VARINT):
		sp->kind = (uint8_t)n;
		return n < 0x80 && left >= 2 ? body : NULL;
	case TAG(F_START, PB_FIXED64):
		sp->start_ns = load_le64(p + 1);
		return left >= 9 ? p + 9 : NULL;
	case TAG(F_END, PB_FIXED64):
		sp->end_ns = load_le64(p + 1);
		return left >= 9 ? p + 9 : NULL;
	case TAG(F_FLAGS, PB_FIXED32) & 0xff: /* the tag is two bytes: 85 01 */
		if (n != 1 || left < 6)
			return NULL;
		sp->flags = load_le32(body);
		return body + 4;
	default:
		return NULL;
	}
}

static int scan_span(struct walk *w, struct span_ref *sp, struct span_scan *s)
{
	const uint8_t *p = sp->p, *end = p + sp->len, *next;
	struct pb_field f;
	struct bytes in;
	int got;

	while (p < end) {
		next = LIKELY(w->end - p >= FAST_MARGIN) ? scan_fast(p, end, sp, s) : NULL;
		if (LIKELY(next != NULL)) {
			p = next;
			continue;
		}
		in = (struct bytes){ p, (size_t)(end - p) };
		got = pb_next(&in, &f);
		if (UNLIKELY(got < 0))
			return refuse(w, AT_SPAN, "", OTLP_DAMAGED);
		if (UNLIKELY(scan_field(w, sp, &f, s) < 0))
			return -1;
		p = in.p;
	}
	return 0;
}

static bool id_is_zero(const uint8_t *p, size_t n)
{
	return load_le64(p) == 0 && (n == 8 || load_le64(p + 8) == 0);
}

/* A required id: `want` bytes, not all zero. */
static bool id_is_fine(struct walk *w, struct bytes id, size_t want, const char *field)
{
	char text[64];

	if (LIKELY(id.n == want && !id_is_zero(id.p, want)))
		return true;
	if (id.n == want)
		snprintf(text, sizeof(text), "all zero");
	else
		snprintf(text, sizeof(text), "%zu bytes, must be %zu", id.n, want);
	reject(w, field, text);
	return false;
}

/* Copy the ids in; false (and counted) when one is unusable. */
static bool take_ids(struct walk *w, struct span_ref *sp, const struct span_scan *s)
{
	char text[64];

	if (!id_is_fine(w, s->trace_id, 16, ".trace_id") ||
	    !id_is_fine(w, s->span_id, 8, ".span_id"))
		return false;
	if (s->parent_id.n != 8 && s->parent_id.n != 0) {
		snprintf(text, sizeof(text), "%zu bytes, must be 8 or none", s->parent_id.n);
		reject(w, ".parent_span_id", text);
		return false;
	}
	memcpy(sp->trace_id, s->trace_id.p, 16);
	memcpy(sp->span_id, s->span_id.p, 8);
	if (s->parent_id.n == 8)
		memcpy(sp->parent_id, s->parent_id.p, 8);
	return true;
}

static void take_any_id(uint8_t *to, size_t want, struct bytes id)
{
	memset(to, 0, want);
	if (id.n > 0)
		memcpy(to, id.p, MIN(id.n, want));
}

/* The ids of a stored span, whatever their length. */
static void take_any_ids(struct span_ref *sp, const struct span_scan *s)
{
	take_any_id(sp->trace_id, sizeof(sp->trace_id), s->trace_id);
	take_any_id(sp->span_id, sizeof(sp->span_id), s->span_id);
	take_any_id(sp->parent_id, sizeof(sp->parent_id), s->parent_id);
}

static bool text_is_fine(struct walk *w, const struct span_scan *s)
{
	if (LIKELY(s->verdict == OTLP_VALID))
		return true;
	if (s->verdict == OTLP_BAD_ID)
		reject(w, ".links", "an id of the wrong length");
	else
		reject(w, "", "invalid UTF-8 in a string");
	return false;
}

void span_read_sampling(struct span_ref *sp)
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

/* Bytes of the canonical tag and length in front of a span, 0 when what lies there is something
 * else. */
static uint8_t canonical_head(const struct pb_field *f)
{
	size_t head = f->raw.n - f->data.n;

	return f->raw.p[0] == TAG(SS_SPANS, PB_LEN) && head == 1 + pb_varint_size(f->data.n)
		       ? (uint8_t)head
		       : 0;
}

/* Field by field: as one assignment the compiler makes a `rep stos` of it, 15 ns/span. Ids, r and
 * th are always set. */
static void clear_span(struct span_ref *sp)
{
	sp->pieces = NULL;
	memset(sp->parent_id, 0, sizeof(sp->parent_id));
	sp->start_ns = sp->end_ns = 0;
	sp->name_off = sp->name_len = 0;
	sp->state = NULL;
	sp->state_len = 0;
	sp->flags = 0;
	sp->origin = 0;
	sp->kind = sp->status = sp->n_pieces = 0;
	sp->may_wish = sp->takes_slot = sp->is_kept = sp->is_uncounted = false;
}

static int index_span(struct walk *w, const struct pb_field *f, uint32_t scope)
{
	struct span_scan s = { .verdict = OTLP_VALID };
	struct span_ref too_short, *sp = &too_short;

	/* It cannot hold its ids and was not counted: only damage and the reason matter. */
	if (LIKELY(f->data.n >= SPAN_MIN))
		sp = &w->t->spans[w->t->n_spans];
	clear_span(sp);
	sp->p = f->data.p;
	sp->len = (uint32_t)f->data.n;
	sp->scope = scope;
	sp->ordinal = w->t->n_spans;
	sp->head_len = canonical_head(f);
	if (scan_span(w, sp, &s) < 0)
		return -1;
	if (w->is_stored && sp != &too_short)
		take_any_ids(sp, &s);
	else if (!take_ids(w, sp, &s) || !text_is_fine(w, &s))
		return 0;
	span_read_sampling(sp);
	w->t->n_spans++;
	return 0;
}

/* ---- log records and metrics ---- */

/* The data points of a Gauge, Sum, ...; -1: damaged. */
static int64_t count_points(struct bytes data)
{
	struct pb_field f;
	int64_t n = 0;
	int got;

	while ((got = pb_next(&data, &f)) > 0) {
		if (f.number == METRIC_POINTS && f.wire != PB_LEN)
			return -1;
		n += f.number == METRIC_POINTS;
	}
	return got < 0 ? -1 : n;
}

static bool holds_points(uint32_t number)
{
	return number == METRIC_GAUGE || number == METRIC_SUM || number == METRIC_HISTOGRAM ||
	       number == METRIC_EXPONENTIAL_HISTOGRAM || number == METRIC_SUMMARY;
}

/* The item's own fields are whole; *n_points of a Metric. */
static int scan_item(const struct walk *w, struct bytes item, uint32_t *n_points)
{
	struct pb_field f;
	int64_t n;
	int got;

	while ((got = pb_next(&item, &f)) > 0) {
		if (w->signal != OTLP_METRICS || !holds_points(f.number))
			continue;
		n = f.wire == PB_LEN ? count_points(f.data) : -1;
		if (n < 0)
			return -1;
		*n_points += (uint32_t)n;
	}
	return got;
}

static int index_item(struct walk *w, const struct pb_field *f, uint32_t scope)
{
	struct span_ref *sp = &w->t->spans[w->t->n_spans];
	uint32_t n_points = 0;

	if (scan_item(w, f->data, &n_points) < 0)
		return refuse(w, AT_SPAN, "", OTLP_DAMAGED);
	clear_span(sp);
	memset(sp->trace_id, 0, sizeof(sp->trace_id));
	memset(sp->span_id, 0, sizeof(sp->span_id));
	sp->r = 0;
	sp->th = TH_UNKNOWN;
	sp->p = f->data.p;
	sp->len = (uint32_t)f->data.n;
	sp->scope = scope;
	sp->ordinal = w->t->n_spans++;
	sp->head_len = canonical_head(f);
	sp->n_points = n_points;
	return 0;
}

/* ---- envelopes ---- */

/* A run of heads being filled: {first, n, bytes} of a scope_ref or resource_ref. */
struct head_run {
	uint32_t first, n, bytes;
};

static void add_head(struct span_tables *t, struct bytes raw, struct head_run *run)
{
	struct bytes *last = run->n > 0 ? &t->heads[run->first + run->n - 1] : NULL;

	run->bytes += (uint32_t)raw.n;
	if (last != NULL && last->p + last->n == raw.p) {
		last->n += raw.n;
		return;
	}
	t->heads[run->first + run->n++] = raw;
	t->n_heads++;
}

/* A resource or scope sent in several fields means their merge; other readers get that wrong, so it
 * is sent on as one. Both are field 1. */
static void merge_heads(struct walk *w, struct bytes envelope, uint32_t child, struct head_run *run)
{
	size_t payload = 0, others = 0;
	uint8_t *whole, *at;
	struct pb_field f;

	for (struct bytes in = envelope; pb_next(&in, &f) > 0;) {
		payload += f.number == RS_RESOURCE ? f.data.n : 0;
		others += f.number != RS_RESOURCE && f.number != child ? f.raw.n : 0;
	}
	whole = at = arena_alloc(w->arena, 1 + pb_varint_size(payload) + payload + others);
	*at++ = TAG(RS_RESOURCE, PB_LEN);
	at += pb_varint_write(at, payload);
	for (int rest = 0; rest < 2; rest++)
		for (struct bytes in = envelope; pb_next(&in, &f) > 0;) {
			struct bytes part = rest ? f.raw : f.data;

			if (f.number == child || (f.number == RS_RESOURCE) == rest)
				continue;
			memcpy(at, part.p, part.n);
			at += part.n;
		}
	w->t->heads[run->first] = (struct bytes){ whole, (size_t)(at - whole) };
	w->t->n_heads = run->first + 1;
	run->n = 1;
	run->bytes = (uint32_t)(at - whole);
	w->result->is_whole = false;
}

/* The spans of a scope from number `first` in the tables on, bad ones among them, are rejected
 * together. */
static void reject_scope(struct walk *w, uint32_t first, uint32_t rejects_before, const char *why)
{
	uint32_t n_spans = w->at.span;

	w->t->n_spans = first;
	w->result->rejects.n = rejects_before;
	w->at.span = 0;
	reject(w, "", why);
	w->result->rejects.n = rejects_before + n_spans;
}

/* A field of a ScopeSpans that is no span. */
static int scope_field(struct walk *w, const struct pb_field *f, enum otlp_verdict *worst)
{
	enum otlp_verdict v = OTLP_VALID;

	if ((f->number == SS_SCOPE || f->number == SS_SCHEMA_URL) && f->wire != PB_LEN)
		v = OTLP_DAMAGED;
	else if (w->signal != OTLP_TRACES)
		return 0;
	else if (f->number == SS_SCOPE)
		v = otlp_validate_scope(f->data, w->end);
	else if (f->number == SS_SCHEMA_URL)
		v = otlp_validate_string(f->data);
	if (v < 0)
		return refuse(w, AT_SCOPE, f->number == SS_SCOPE ? ".scope" : ".schema_url", v);
	*worst = otlp_worse(*worst, v);
	return 0;
}

static int index_scope_spans(struct walk *w, struct bytes ss, uint32_t resource)
{
	struct span_tables *t = w->t;
	struct head_run run = { .first = t->n_heads };
	uint32_t first = t->n_spans, n_scope_fields = 0, rejects = w->result->rejects.n;
	bool is_opaque = w->signal != OTLP_TRACES;
	enum otlp_verdict v = OTLP_VALID;
	struct pb_field f;

	w->at.span = 0;
	for (struct bytes in = ss; pb_next(&in, &f) > 0;) {
		if (LIKELY(f.number == SS_SPANS)) {
			if ((is_opaque ? index_item(w, &f, t->n_scopes)
				       : index_span(w, &f, t->n_scopes)) < 0)
				return -1;
			w->at.span++;
			continue;
		}
		if (scope_field(w, &f, &v) < 0)
			return -1;
		n_scope_fields += f.number == SS_SCOPE;
		add_head(t, f.raw, &run);
	}
	if (!w->is_stored && (v != OTLP_VALID || w->resource_text_is_bad))
		reject_scope(w, first, rejects,
			     v != OTLP_VALID ? "invalid UTF-8 in its scope"
					     : "invalid UTF-8 in its resource");
	if (t->n_spans == first) {
		t->n_heads = run.first;
		return 0;
	}
	if (n_scope_fields > 1)
		merge_heads(w, ss, SS_SPANS, &run);
	t->scopes[t->n_scopes++] = (struct scope_ref){ resource, run.first, run.n, run.bytes };
	return 0;
}

/* A field of a ResourceSpans that is no child. */
static int resource_field(struct walk *w, const struct pb_field *f)
{
	enum otlp_verdict v = OTLP_VALID;

	if ((f->number == RS_RESOURCE || f->number == RS_SCHEMA_URL) && f->wire != PB_LEN)
		v = OTLP_DAMAGED;
	else if (w->signal != OTLP_TRACES)
		return 0;
	else if (f->number == RS_RESOURCE)
		v = otlp_validate_resource(f->data, w->end);
	else if (f->number == RS_SCHEMA_URL)
		v = otlp_validate_string(f->data);
	if (v < 0)
		return refuse(w, AT_RESOURCE,
			      f->number == RS_RESOURCE ? ".resource" : ".schema_url", v);
	w->resource_text_is_bad |= v != OTLP_VALID;
	return 0;
}

/* The fields of a ResourceSpans other than its children. */
static int index_resource(struct walk *w, struct bytes rs, uint32_t child, struct head_run *run)
{
	uint32_t n_resources = 0;
	struct pb_field f;

	w->resource_text_is_bad = false;
	for (struct bytes in = rs; pb_next(&in, &f) > 0;) {
		if (f.number == child)
			continue;
		if (resource_field(w, &f) < 0)
			return -1;
		n_resources += f.number == RS_RESOURCE;
		add_head(w->t, f.raw, run);
	}
	if (n_resources > 1)
		merge_heads(w, rs, child, run);
	return 0;
}

/* A ScopeSpans without spans leaves nothing behind, but damage in it is damage. */
static int check_empty_scope(struct walk *w, struct bytes ss)
{
	enum otlp_verdict v = OTLP_VALID;
	struct pb_field f;

	while (pb_next(&ss, &f) > 0)
		if (scope_field(w, &f, &v) < 0)
			return -1;
	return 0;
}

/* The same for a ResourceSpans. */
static int check_empty_resource(struct walk *w, struct bytes rs, uint32_t child)
{
	struct pb_field f;

	while (pb_next(&rs, &f) > 0) {
		if (f.number != child) {
			if (resource_field(w, &f) < 0)
				return -1;
			continue;
		}
		if (check_empty_scope(w, f.data) < 0)
			return -1;
		w->at.scope_spans++;
	}
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
	struct head_run run = { .first = t->n_heads };
	uint32_t spans_before = t->n_spans;
	struct pb_field f;
	uint32_t child;

	w->at.scope_spans = w->at.span = 0;
	if (child_field(rs, &child) < 0)
		return refuse(w, AT_RESOURCE, "", OTLP_DAMAGED);
	/* The tables have no room for an empty envelope: it was not counted. */
	if (!resource_has_spans(rs, child)) {
		w->result->is_whole = false;
		return check_empty_resource(w, rs, child);
	}
	w->result->is_whole &= child == RS_SCOPE_SPANS;
	if (index_resource(w, rs, child, &run) < 0)
		return -1;
	for (; pb_next(&rs, &f) > 0;) {
		if (f.number != child)
			continue;
		if (!scope_has_spans(f.data)) {
			w->result->is_whole = false;
			if (check_empty_scope(w, f.data) < 0)
				return -1;
		} else if (index_scope_spans(w, f.data, t->n_resources) < 0) {
			return -1;
		}
		w->at.scope_spans++;
	}
	if (t->n_spans == spans_before) {
		t->n_heads = run.first;
		return 0;
	}
	t->resources[t->n_resources++] = (struct resource_ref){ run.first, run.n, run.bytes };
	return 0;
}

static int index_request(struct walk *w, struct bytes request)
{
	struct span_tables *tables = w->t;
	struct head_run extras = { 0 };
	struct pb_field f;

	tables->n_spans = tables->n_scopes = tables->n_resources = tables->n_heads = 0;
	*w->result = (struct otlp_result){ .is_whole = true };
	w->end = request.p + request.n;
	for (struct bytes in = request; pb_next(&in, &f) > 0;)
		if (f.number != REQUEST_RESOURCE_SPANS)
			add_head(tables, f.raw, &extras);
	tables->n_extras = extras.n;
	while (pb_next(&request, &f) > 0) {
		if (f.number != REQUEST_RESOURCE_SPANS)
			continue;
		if (index_resource_spans(w, f.data) < 0)
			return -1;
		w->at.resource_spans++;
	}
	return 0;
}

int otlp_index(struct bytes request, struct span_tables *tables, struct arena *arena,
	       struct otlp_result *result, struct err *err)
{
	struct walk w = { .t = tables, .arena = arena, .result = result, .err = err };

	return index_request(&w, request);
}

int otlp_index_items(enum otlp_signal signal, struct bytes request, struct span_tables *tables,
		     struct arena *arena, struct otlp_result *result, struct err *err)
{
	struct walk w = {
		.t = tables, .arena = arena, .result = result, .err = err, .signal = signal
	};

	return index_request(&w, request);
}

int otlp_index_stored(struct bytes traces_data, struct span_tables *tables, struct arena *arena,
		      struct otlp_result *result, struct err *err)
{
	struct walk w = {
		.t = tables, .arena = arena, .result = result, .err = err, .is_stored = true
	};

	return index_request(&w, traces_data);
}

/* The key and value of a KeyValue in the shape that every SDK writes: one of each, in this order,
 * with one-byte lengths. False: it has another shape. */
static inline bool split_plain_pair(struct bytes pair, struct bytes *key, struct bytes *value)
{
	size_t n_key, n_value;

	if (UNLIKELY(pair.n < 4 || pair.p[0] != TAG(1, PB_LEN) || pair.p[1] >= 0x80))
		return false;
	n_key = pair.p[1];
	if (UNLIKELY(n_key > pair.n - 4 || pair.p[n_key + 2] != TAG(2, PB_LEN)))
		return false;
	n_value = pair.p[n_key + 3];
	if (UNLIKELY(n_value >= 0x80 || n_key + 4 + n_value != pair.n))
		return false;
	*key = (struct bytes){ pair.p + 2, n_key };
	*value = (struct bytes){ pair.p + n_key + 4, n_value };
	return true;
}

/* The same in full generality: the last key and the last value count. */
static void split_pair(struct bytes pair, struct bytes *key, struct bytes *value)
{
	struct pb_field f;

	*key = *value = BYTES_EMPTY;
	while (pb_next(&pair, &f) > 0) {
		if (f.wire != PB_LEN)
			continue;
		if (f.number == 1)
			*key = f.data;
		else if (f.number == 2)
			*value = f.data;
	}
}

bool otlp_attribute(struct bytes message, uint32_t number, struct bytes key, struct bytes *value)
{
	struct bytes found;
	struct pb_field f;

	while (pb_next(&message, &f) > 0) {
		if (f.number != number || f.wire != PB_LEN)
			continue;
		if (!split_plain_pair(f.data, &found, value))
			split_pair(f.data, &found, value);
		if (bytes_eq(found, key))
			return true;
	}
	return false;
}
