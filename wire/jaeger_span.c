/* SPDX-License-Identifier: Apache-2.0
 *
 * jaeger_span.c - see jaeger_span.h; the mapping itself is docs/formats/jaeger.md.
 */
#include "wire/jaeger_span.h"

#include "base/str.h"
#include "wire/otlp_attr.h"
#include "wire/pb.h"
#include "wire/span.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

enum {
	SPAN_ATTRIBUTES = 9,
	SPAN_EVENTS = 11,
	SPAN_LINKS = 13,
	SPAN_STATUS = 15,
	SPAN_FLAGS = 16,
	EVENT_ATTRIBUTES = 3,
	LINK_ATTRIBUTES = 4,
	RESOURCE_ATTRIBUTES = 1,
	DEBUG_AND_SAMPLED = JAEGER_DEBUG | JAEGER_SAMPLED,
};

const char *jaeger_reason_name(enum jaeger_reason reason)
{
	static const char *const names[JAEGER_BAD_MAX] = {
		[JAEGER_BAD_TRACE_ID] = "bad_trace_id",
		[JAEGER_BAD_SPAN_ID] = "bad_span_id",
		[JAEGER_BAD_VALUE] = "bad_value",
	};

	return names[reason];
}

static bool is_zero(const uint8_t *p, size_t n)
{
	uint8_t any = 0;

	for (size_t i = 0; i < n; i++)
		any |= p[i];
	return any == 0;
}

/* ---- times ---- */

uint64_t jaeger_time_us(int64_t us)
{
	if (us < 0)
		return 0;
	return (uint64_t)us > UINT64_MAX / 1000 ? UINT64_MAX : (uint64_t)us * 1000;
}

uint64_t jaeger_time(int64_t seconds, int32_t nanos)
{
	uint64_t ns;

	if (seconds < 0 || nanos < 0)
		return 0;
	if (__builtin_mul_overflow((uint64_t)seconds, UINT64_C(1000000000), &ns) ||
	    __builtin_add_overflow(ns, (uint64_t)nanos, &ns))
		return UINT64_MAX;
	return ns;
}

int64_t jaeger_duration(int64_t seconds, int64_t nanos)
{
	int64_t ns;

	if (__builtin_mul_overflow(seconds, INT64_C(1000000000), &ns) ||
	    __builtin_add_overflow(ns, nanos, &ns))
		return seconds < 0 ? INT64_MIN : INT64_MAX;
	return ns;
}

/* Clocks that went back give an end before the start: as it came. */
static uint64_t end_of(const struct jaeger_span *sp)
{
	uint64_t end;

	if (sp->duration_ns < 0) {
		uint64_t back = (uint64_t)0 - (uint64_t)sp->duration_ns;

		return back > sp->start_ns ? 0 : sp->start_ns - back;
	}
	if (__builtin_add_overflow(sp->start_ns, (uint64_t)sp->duration_ns, &end))
		return UINT64_MAX;
	return end;
}

/* ---- tags with a meaning ---- */

struct sorted_tags {
	struct bytes trace_state, description, http_message;
	struct bytes scope_name, scope_version, library_name, library_version;
	struct jaeger_tag *kind, *status_code, *http_code;
	bool is_error;
};

static bool is_key(const struct jaeger_tag *t, const char *key, size_t n)
{
	return t->key.n == n && memcmp(t->key.p, key, n) == 0;
}
#define IS_KEY(t, key) is_key(t, key, sizeof(key) - 1)

static void sort_otel_tag(struct sorted_tags *s, struct jaeger_tag *t)
{
	if (t->type != JAEGER_STRING)
		return;
	t->taken = true;
	if (IS_KEY(t, "otel.status_code")) {
		s->status_code = t;
		t->taken = false; /* unless it is understood */
	} else if (IS_KEY(t, "otel.status_description")) {
		s->description = t->text;
	} else if (IS_KEY(t, "otel.scope.name")) {
		s->scope_name = t->text;
	} else if (IS_KEY(t, "otel.scope.version")) {
		s->scope_version = t->text;
	} else if (IS_KEY(t, "otel.library.name")) {
		s->library_name = t->text;
	} else if (IS_KEY(t, "otel.library.version")) {
		s->library_version = t->text;
	} else {
		t->taken = false;
	}
}

static void sort_error_tag(struct sorted_tags *s, struct jaeger_tag *t)
{
	bool is_true = (t->type == JAEGER_BOOL && t->bits != 0) ||
		       (t->type == JAEGER_STRING && str_eq_nocase(t->text, "true"));

	s->is_error |= is_true;
	t->taken = is_true;
}

static void sort_tag(struct sorted_tags *s, struct jaeger_tag *t)
{
	if (t->key.n == 0)
		return;
	switch (t->key.p[0]) {
	case 'e':
		if (IS_KEY(t, "error"))
			sort_error_tag(s, t);
		break;
	case 'h':
		if (IS_KEY(t, "http.status_code"))
			s->http_code = t;
		else if (IS_KEY(t, "http.status_message") && t->type == JAEGER_STRING)
			s->http_message = t->text;
		break;
	case 'o':
		if (t->key.n > 5 && memcmp(t->key.p, "otel.", 5) == 0)
			sort_otel_tag(s, t);
		break;
	case 's':
		if (IS_KEY(t, "span.kind") && t->type == JAEGER_STRING)
			s->kind = t;
		break;
	case 'w':
		if (IS_KEY(t, "w3c.tracestate") && t->type == JAEGER_STRING) {
			s->trace_state = t->text;
			t->taken = true;
		}
		break;
	default:
		break;
	}
}

/* The kind; takes its tag when it is one. */
static uint32_t kind_of(struct sorted_tags *s)
{
	static const char *const names[] = { [SPAN_INTERNAL] = "internal",
					     [SPAN_SERVER] = "server",
					     [SPAN_CLIENT] = "client",
					     [SPAN_PRODUCER] = "producer",
					     [SPAN_CONSUMER] = "consumer" };

	for (uint32_t kind = SPAN_INTERNAL; s->kind != NULL && kind <= SPAN_CONSUMER; kind++) {
		if (str_eq_nocase(s->kind->text, names[kind])) {
			s->kind->taken = true;
			return kind;
		}
	}
	return SPAN_UNSPECIFIED;
}

struct status {
	uint32_t code; /* enum span_status */
	struct bytes message;
};

static enum span_status status_of_http(const struct jaeger_tag *t, uint32_t kind)
{
	uint64_t code = t->bits;

	if (t->type == JAEGER_STRING) {
		if (str_to_u64(t->text, &code) < 0)
			return STATUS_UNSET;
	} else if (t->type != JAEGER_INT64) {
		return STATUS_UNSET;
	}
	if (code >= 100 && code < 400)
		return STATUS_UNSET;
	return code >= 400 && code < 500 && kind == SPAN_SERVER ? STATUS_UNSET : STATUS_ERROR;
}

/* otel.status_code as a status. False: it is none. */
static bool read_status_code(struct jaeger_tag *t, uint32_t *code)
{
	if (str_eq_nocase(t->text, "ok"))
		*code = STATUS_OK;
	else if (str_eq_nocase(t->text, "error"))
		*code = STATUS_ERROR;
	else if (str_eq_nocase(t->text, "unset"))
		*code = STATUS_UNSET;
	else
		return false;
	t->taken = true;
	return true;
}

/* The first that says something: error, otel.status_code, http.status_code. */
static struct status status_of(struct sorted_tags *s, uint32_t kind)
{
	struct status st = { STATUS_UNSET, s->description };
	bool is_said = s->status_code != NULL && read_status_code(s->status_code, &st.code);

	if (s->is_error)
		st.code = STATUS_ERROR;
	else if (!is_said && s->http_code != NULL)
		st.code = status_of_http(s->http_code, kind);
	if (st.code == STATUS_ERROR && st.message.n == 0 && (s->is_error || !is_said))
		st.message = s->http_message;
	return st;
}

/* ---- OTLP fields ---- */

static void put_unknown(struct buf *b, uint32_t number, const struct jaeger_tag *t)
{
	char text[64];

	snprintf(text, sizeof(text), "<Unknown Jaeger TagType %u>", t->type);
	otlp_attr_bytes(b, number, t->key, OTLP_STRING, bytes_str(text));
}

static void put_tag(struct buf *b, uint32_t number, const struct jaeger_tag *t)
{
	switch (t->type) {
	case JAEGER_STRING:
		otlp_attr_bytes(b, number, t->key, OTLP_STRING, t->text);
		return;
	case JAEGER_BOOL:
		otlp_attr_uint(b, number, t->key, OTLP_BOOL, t->bits != 0);
		return;
	case JAEGER_INT64:
		otlp_attr_uint(b, number, t->key, OTLP_INT, t->bits);
		return;
	case JAEGER_FLOAT64:
		otlp_attr_double(b, number, t->key, t->bits);
		return;
	case JAEGER_BINARY:
		otlp_attr_bytes(b, number, t->key, OTLP_BYTES, t->text);
		return;
	default:
		put_unknown(b, number, t);
	}
}

/* Texts that the model keeps beside the tags, under the name that Jaeger v2 gives them. */
static void put_warnings(struct buf *b, const struct jaeger_span *sp)
{
	size_t pair = pb_begin(b, SPAN_ATTRIBUTES), any, array;

	pb_put_str(b, 1, "@jaeger@warnings");
	any = pb_begin(b, 2);
	array = pb_begin(b, OTLP_ARRAY);
	for (size_t i = 0; i < sp->n_warnings; i++) {
		size_t one = pb_begin(b, 1);

		pb_put_bytes(b, OTLP_STRING, sp->warnings[i]);
		pb_end(b, one);
	}
	pb_end(b, array);
	pb_end(b, any);
	pb_end(b, pair);
}

static void put_attributes(struct buf *b, const struct jaeger_span *sp)
{
	for (size_t i = 0; i < sp->n_tags; i++)
		if (!sp->tags[i].taken)
			put_tag(b, SPAN_ATTRIBUTES, &sp->tags[i]);
	if (UNLIKELY(sp->n_warnings > 0))
		put_warnings(b, sp);
	if (UNLIKELY(sp->flags & JAEGER_DEBUG))
		otlp_attr_uint(b, SPAN_ATTRIBUTES, BYTES_LIT("jaeger.debug"), OTLP_BOOL, 1);
	/* Bits without a place of their own, all of them together. */
	if (UNLIKELY((sp->flags & ~(uint32_t)DEBUG_AND_SAMPLED) != 0))
		otlp_attr_uint(b, SPAN_ATTRIBUTES, BYTES_LIT("jaeger.flags"), OTLP_INT, sp->flags);
}

/* The field that names the event: its place among the log's, or their number. */
static size_t find_event_name(const struct jaeger_span *sp, const struct jaeger_log *log)
{
	size_t i = 0;

	for (; i < log->n; i++) {
		const struct jaeger_tag *t = &sp->log_tags[log->first + i];

		if (t->type == JAEGER_STRING && IS_KEY(t, "event"))
			break;
	}
	return i;
}

static void put_event(struct buf *b, const struct jaeger_span *sp, const struct jaeger_log *log)
{
	size_t mark = pb_begin(b, SPAN_EVENTS), name = find_event_name(sp, log);

	pb_put_fixed64(b, 1, log->time_ns);
	if (name < log->n && sp->log_tags[log->first + name].text.n > 0)
		pb_put_bytes(b, 2, sp->log_tags[log->first + name].text);
	for (size_t i = 0; i < log->n; i++)
		if (i != name)
			put_tag(b, EVENT_ATTRIBUTES, &sp->log_tags[log->first + i]);
	pb_end(b, mark);
}

/* The reference that is the parent; NULL: a root, or the span said it itself. */
static const struct jaeger_ref *find_parent(const struct jaeger_span *sp)
{
	const struct jaeger_ref *follows = NULL;

	for (size_t i = 0; i < sp->n_refs; i++) {
		const struct jaeger_ref *r = &sp->refs[i];

		if (memcmp(r->trace_id, sp->trace_id, 16) != 0)
			continue;
		if (r->type == JAEGER_CHILD_OF)
			return r;
		if (follows == NULL)
			follows = r;
	}
	return follows;
}

static bool is_parent(const struct jaeger_span *sp, const struct jaeger_ref *r)
{
	return r->type == JAEGER_CHILD_OF && memcmp(r->span_id, sp->parent_id, 8) == 0 &&
	       memcmp(r->trace_id, sp->trace_id, 16) == 0;
}

static void put_link(struct buf *b, const struct jaeger_ref *r)
{
	static const struct bytes key = { (const uint8_t *)"opentracing.ref_type", 20 };
	size_t mark = pb_begin(b, SPAN_LINKS);

	pb_put_bytes(b, 1, (struct bytes){ r->trace_id, 16 });
	pb_put_bytes(b, 2, (struct bytes){ r->span_id, 8 });
	otlp_attr_bytes(b, LINK_ATTRIBUTES, key, OTLP_STRING,
			r->type == JAEGER_CHILD_OF ? BYTES_LIT("child_of")
						   : BYTES_LIT("follows_from"));
	pb_end(b, mark);
}

/* Ids, trace state, parent. */
static void put_ids(struct buf *b, const struct jaeger_span *sp, struct bytes trace_state)
{
	pb_put_bytes(b, 1, (struct bytes){ sp->trace_id, 16 });
	pb_put_bytes(b, 2, (struct bytes){ sp->id, 8 });
	if (trace_state.n > 0)
		pb_put_bytes(b, 3, trace_state);
	if (!is_zero(sp->parent_id, 8))
		pb_put_bytes(b, 4, (struct bytes){ sp->parent_id, 8 });
}

static void put_times(struct buf *b, const struct jaeger_span *sp)
{
	uint64_t end = end_of(sp);

	if (sp->start_ns > 0)
		pb_put_fixed64(b, 7, sp->start_ns);
	if (end > 0)
		pb_put_fixed64(b, 8, end);
}

static void put_status(struct buf *b, const struct status *st)
{
	size_t mark;

	if (st->code == STATUS_UNSET && st->message.n == 0)
		return;
	mark = pb_begin(b, SPAN_STATUS);
	if (st->message.n > 0)
		pb_put_bytes(b, 2, st->message);
	if (st->code != STATUS_UNSET)
		pb_put_uint(b, 3, st->code);
	pb_end(b, mark);
}

static void put_span(struct buf *b, const struct jaeger_span *sp, struct sorted_tags *s)
{
	uint32_t kind = kind_of(s);
	struct status st = status_of(s, kind);
	size_t mark = pb_begin(b, 2);

	put_ids(b, sp, s->trace_state);
	if (sp->name.n > 0)
		pb_put_bytes(b, 5, sp->name);
	if (kind != SPAN_UNSPECIFIED)
		pb_put_uint(b, 6, kind);
	put_times(b, sp);
	put_attributes(b, sp);
	for (size_t i = 0; i < sp->n_logs; i++)
		put_event(b, sp, &sp->logs[i]);
	for (size_t i = 0; i < sp->n_refs; i++)
		if (!is_parent(sp, &sp->refs[i]))
			put_link(b, &sp->refs[i]);
	put_status(b, &st);
	if (sp->flags & JAEGER_SAMPLED)
		pb_put_fixed32(b, SPAN_FLAGS, JAEGER_SAMPLED);
	pb_end(b, mark);
}

/* ---- resource and scope ---- */

static const struct jaeger_tag *find_tag(const struct jaeger_process *p, const char *key)
{
	for (size_t i = 0; i < p->n_tags; i++)
		if (bytes_eq_str(p->tags[i].key, key))
			return &p->tags[i];
	return NULL;
}

static void put_version(struct buf *b, const struct jaeger_tag *t)
{
	static const char prefix[] = "Jaeger-", key[] = "opencensus.exporterversion";
	size_t pair = pb_begin(b, RESOURCE_ATTRIBUTES), any, text;

	pb_put_str(b, 1, key);
	any = pb_begin(b, 2);
	text = pb_begin(b, OTLP_STRING);
	buf_add_str(b, prefix);
	buf_add_bytes(b, t->text);
	pb_end(b, text);
	pb_end(b, any);
	pb_end(b, pair);
}

static void write_resource(struct buf *b, const struct jaeger_process *p)
{
	bool has_host = find_tag(p, "host.name") != NULL;
	bool has_version = find_tag(p, "opencensus.exporterversion") != NULL;

	/* A tag of that name is what a person set. */
	if (p->service.n > 0 && !bytes_eq_str(p->service, JAEGER_NO_SERVICE) &&
	    find_tag(p, "service.name") == NULL)
		otlp_attr_bytes(b, RESOURCE_ATTRIBUTES, BYTES_LIT("service.name"), OTLP_STRING,
				p->service);
	for (size_t i = 0; i < p->n_tags; i++) {
		struct jaeger_tag t = p->tags[i];

		if (!has_host && IS_KEY(&t, "hostname"))
			t.key = BYTES_LIT("host.name");
		if (!has_version && t.type == JAEGER_STRING && IS_KEY(&t, "jaeger.version"))
			put_version(b, &t);
		else
			put_tag(b, RESOURCE_ATTRIBUTES, &t);
	}
}

static void write_scope(struct buf *b, const struct sorted_tags *s)
{
	struct bytes name = s->scope_name.n > 0 ? s->scope_name : s->library_name;
	struct bytes version = s->scope_version.n > 0 ? s->scope_version : s->library_version;

	if (name.n > 0)
		pb_put_bytes(b, 1, name);
	if (version.n > 0)
		pb_put_bytes(b, 2, version);
}

/* ---- lists ---- */

static void *one_more(struct jaeger_batch *b, void **list, size_t *n, size_t *cap, size_t size)
{
	uint8_t *at;

	if (*n == *cap)
		*list = meter_grow(b->arena->meter, *list, cap, *n + 1, size);
	at = (uint8_t *)*list + (*n)++ * size;
	memset(at, 0, size);
	return at;
}
#define ONE_MORE(b, of, list)                                                                      \
	one_more(b, (void **)&(of).list, &(of).n_##list, &(of).cap_##list, sizeof(*(of).list))

struct jaeger_tag *jaeger_batch_process_tag(struct jaeger_batch *b)
{
	return ONE_MORE(b, b->process, tags);
}

struct jaeger_tag *jaeger_batch_tag(struct jaeger_batch *b)
{
	return ONE_MORE(b, b->span, tags);
}

struct jaeger_tag *jaeger_batch_log_tag(struct jaeger_batch *b)
{
	b->span.logs[b->span.n_logs - 1].n++;
	return ONE_MORE(b, b->span, log_tags);
}

struct jaeger_log *jaeger_batch_log(struct jaeger_batch *b)
{
	struct jaeger_log *log = ONE_MORE(b, b->span, logs);

	log->first = b->span.n_log_tags;
	return log;
}

struct jaeger_ref *jaeger_batch_ref(struct jaeger_batch *b)
{
	return ONE_MORE(b, b->span, refs);
}

void jaeger_batch_warning(struct jaeger_batch *b, struct bytes text)
{
	struct bytes *w = ONE_MORE(b, b->span, warnings);

	*w = text;
}

/* ---- public ---- */

void jaeger_batch_init(struct jaeger_batch *b, struct arena *arena, size_t max_bytes,
		       struct jaeger_result *result)
{
	*b = (struct jaeger_batch){ .arena = arena, .result = result };
	*result = (struct jaeger_result){ 0 };
	otlp_groups_init(&b->groups, arena, max_bytes);
}

struct jaeger_process *jaeger_batch_process(struct jaeger_batch *b)
{
	b->process.service = BYTES_EMPTY;
	b->process.n_tags = 0;
	return &b->process;
}

void jaeger_batch_use_process(struct jaeger_batch *b)
{
	size_t cap = b->groups.key.cap;

	write_resource(otlp_groups_resource_begin(&b->groups), &b->process);
	b->resource = otlp_groups_resource_end(&b->groups);
	meter_force(b->arena->meter, b->groups.key.cap - cap);
}

struct jaeger_span *jaeger_batch_span(struct jaeger_batch *b)
{
	struct jaeger_span *sp = &b->span;

	memset(sp, 0, offsetof(struct jaeger_span, tags));
	sp->n_tags = sp->n_log_tags = sp->n_refs = sp->n_logs = sp->n_warnings = 0;
	return sp;
}

void jaeger_batch_reject(struct jaeger_batch *b, enum jaeger_reason reason, const char *fmt, ...)
{
	struct jaeger_result *r = b->result;
	size_t number = r->n_ok + r->n_bad;
	va_list args;
	int n;

	r->n_bad++;
	r->n_bad_by[reason]++;
	if (r->n_bad > 1)
		return;
	n = snprintf(r->first_bad, sizeof(r->first_bad), "spans[%zu].", number);
	va_start(args, fmt);
	vsnprintf(r->first_bad + n, sizeof(r->first_bad) - (size_t)n, fmt, args);
	va_end(args);
}

/* References to nothing: out, and counted. */
static void drop_bad_refs(struct jaeger_batch *b)
{
	struct jaeger_span *sp = &b->span;
	size_t n = 0;

	for (size_t i = 0; i < sp->n_refs; i++)
		if (!is_zero(sp->refs[i].trace_id, 16) && !is_zero(sp->refs[i].span_id, 8))
			sp->refs[n++] = sp->refs[i];
	b->result->n_bad_refs += sp->n_refs - n;
	sp->n_refs = n;
}

static bool has_ids(struct jaeger_batch *b)
{
	if (is_zero(b->span.trace_id, 16))
		jaeger_batch_reject(b, JAEGER_BAD_TRACE_ID, "traceId: all zero");
	else if (is_zero(b->span.id, 8))
		jaeger_batch_reject(b, JAEGER_BAD_SPAN_ID, "spanId: all zero");
	else
		return true;
	return false;
}

void jaeger_batch_add(struct jaeger_batch *b)
{
	struct jaeger_span *sp = &b->span;
	size_t off = b->groups.spans.n, cap = b->groups.key.cap;
	const struct jaeger_ref *parent;
	struct sorted_tags s = { 0 };

	if (!has_ids(b))
		return;
	b->result->n_ok++;
	drop_bad_refs(b);
	parent = is_zero(sp->parent_id, 8) ? find_parent(sp) : NULL;
	if (parent != NULL)
		memcpy(sp->parent_id, parent->span_id, 8);
	for (size_t i = 0; i < sp->n_tags; i++)
		sort_tag(&s, &sp->tags[i]);
	put_span(&b->groups.spans, sp, &s);
	write_scope(otlp_groups_scope_begin(&b->groups, b->resource), &s);
	otlp_groups_add(&b->groups, otlp_groups_scope_end(&b->groups, b->resource), off);
	meter_force(b->arena->meter, b->groups.key.cap - cap);
}

int jaeger_batch_encode(struct jaeger_batch *b, struct buf *out, struct err *err)
{
	return otlp_groups_encode(&b->groups, "jaeger", out, err);
}

void jaeger_batch_fini(struct jaeger_batch *b)
{
	otlp_groups_fini(&b->groups);
	free(b->process.tags);
	free(b->span.tags);
	free(b->span.log_tags);
	free(b->span.refs);
	free(b->span.logs);
	free(b->span.warnings);
}
