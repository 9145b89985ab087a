/* SPDX-License-Identifier: Apache-2.0
 *
 * zipkin_json.c - see zipkin_json.h.
 *
 * DESIGN: each reader below returns 0 (fine), SPAN_BAD (this span is of no use; the reason is
 * noted) or -1 (the text is damaged). After SPAN_BAD the rest of the span is passed over, still
 * checked.
 */
#include "wire/zipkin_json.h"

#include "base/str.h"
#include "wire/json_reader.h"
#include "wire/zipkin_json_values.h"
#include "wire/zipkin_span.h"

enum { SPAN_BAD = 1, LIST_DEPTH = 1 };

struct decoder {
	struct json_reader r;
	struct zipkin_span_batch batch;
	struct zipkin_span sp;
	struct zipkin_span_room room; /* sp's lists, kept for the next span */
	size_t position;              /* in the list */
	bool has_trace_id, has_id;
	struct zipkin_result *result;
	struct err *err;
};

/* Count the span and, when it is the first, name it: `[0].id: "not hex"`. field may be "" (the span
 * itself) and v NULL (missing). */
static int span_bad(struct decoder *d, enum zipkin_reason reason, const char *field,
		    const struct json_value *v)
{
	struct bytes shown = v == NULL ? BYTES_EMPTY : v->text;
	bool is_text = v != NULL && v->kind == JSON_STRING;

	if (v != NULL && !is_text && v->kind != JSON_NUMBER)
		shown = bytes_str(json_reader_kind_name(v->kind));
	zipkin_result_bad(d->result, d->position, reason, field, v == NULL ? NULL : &shown,
			  is_text);
	return SPAN_BAD;
}

static bool is_zero(const uint8_t *p, size_t n)
{
	uint8_t any = 0;

	for (size_t i = 0; i < n; i++)
		any |= p[i];
	return any == 0;
}

static int read_trace_id(struct decoder *d, const struct json_value *v)
{
	if (v->kind != JSON_STRING || zipkin_json_id(v->text, d->sp.trace_id, 16) < 0 ||
	    is_zero(d->sp.trace_id, 16))
		return span_bad(d, ZIPKIN_BAD_TRACE_ID, "traceId", v);
	d->has_trace_id = true;
	return 0;
}

static int read_id(struct decoder *d, const struct json_value *v)
{
	if (v->kind != JSON_STRING || zipkin_json_id(v->text, d->sp.id, 8) < 0 ||
	    is_zero(d->sp.id, 8))
		return span_bad(d, ZIPKIN_BAD_SPAN_ID, "id", v);
	d->has_id = true;
	return 0;
}

/* An empty parent id is none, as null is. */
static int read_parent_id(struct decoder *d, const struct json_value *v)
{
	memset(d->sp.parent_id, 0, 8);
	if (v->kind == JSON_STRING && v->text.n == 0)
		return 0;
	if (v->kind != JSON_STRING || zipkin_json_id(v->text, d->sp.parent_id, 8) < 0)
		return span_bad(d, ZIPKIN_BAD_PARENT_ID, "parentId", v);
	return 0;
}

static int read_us(struct decoder *d, const char *field, const struct json_value *v, uint64_t *us)
{
	if (v->kind != JSON_STRING && v->kind != JSON_NUMBER)
		return span_bad(d, ZIPKIN_BAD_JSON_TYPE, field, v);
	if (zipkin_json_us(v, us) < 0)
		return span_bad(d, ZIPKIN_BAD_NUMBER, field, v);
	return 0;
}

static int read_name(struct decoder *d, const struct json_value *v)
{
	if (v->kind != JSON_STRING)
		return span_bad(d, ZIPKIN_BAD_JSON_TYPE, "name", v);
	d->sp.name = v->text;
	return 0;
}

static int read_endpoint(struct decoder *d, const char *field, const struct json_value *v,
			 struct zipkin_span_endpoint *ep)
{
	struct json_value bad;
	int rc;

	if (v->kind != JSON_OBJECT)
		return span_bad(d, ZIPKIN_BAD_JSON_TYPE, field, v);
	rc = zipkin_json_endpoint(&d->r, ep, &bad, d->err);
	return rc > 0 ? span_bad(d, ZIPKIN_BAD_UTF8, field, &bad) : rc;
}

static int read_tags(struct decoder *d, const struct json_value *v)
{
	struct json_value m;
	int rc = 0;

	if (v->kind != JSON_OBJECT)
		return span_bad(d, ZIPKIN_BAD_JSON_TYPE, "tags", v);
	while ((rc = json_reader_member(&d->r, &m, d->err)) > 0) {
		struct bytes value;

		if (m.bad_utf8)
			return span_bad(d, ZIPKIN_BAD_UTF8, "tags", &m);
		if (!zipkin_json_scalar(&m, &value)) {
			if (json_reader_skip(&d->r, &m, d->err) < 0)
				return -1;
			continue;
		}
		*zipkin_span_room_tag(&d->room, d->batch.arena) =
			(struct zipkin_span_tag){ .key = m.key, .value = value };
	}
	return rc;
}

/* One annotation's object; without a time or a text it is passed over. */
static int read_annotation(struct decoder *d)
{
	struct zipkin_span_annotation a = { 0 };
	bool has_time = false, has_value = false;
	struct json_value m;
	int rc = 0;

	while ((rc = json_reader_member(&d->r, &m, d->err)) > 0) {
		if (JSON_KEY_IS(&m, "timestamp")) {
			has_time = zipkin_json_us(&m, &a.timestamp_us) == 0 && a.timestamp_us > 0;
		} else if (JSON_KEY_IS(&m, "value") && m.kind == JSON_STRING) {
			if (m.bad_utf8)
				return span_bad(d, ZIPKIN_BAD_UTF8, "annotations", &m);
			a.value = m.text;
			has_value = true;
		}
		if (json_reader_skip(&d->r, &m, d->err) < 0)
			return -1;
	}
	if (rc < 0 || !has_time || !has_value)
		return rc;
	*zipkin_span_room_annotation(&d->room, d->batch.arena) = a;
	return 0;
}

static int read_annotations(struct decoder *d, const struct json_value *v)
{
	struct json_value e;
	int rc = 0;

	if (v->kind != JSON_ARRAY)
		return span_bad(d, ZIPKIN_BAD_JSON_TYPE, "annotations", v);
	while ((rc = json_reader_element(&d->r, &e, d->err)) > 0) {
		int got = e.kind == JSON_OBJECT ? read_annotation(d)
						: json_reader_skip(&d->r, &e, d->err);

		if (got != 0)
			return got;
	}
	return rc;
}

/* One member of a span; commonest keys first. */
static int read_member(struct decoder *d, const struct json_value *v)
{
	if (JSON_KEY_IS(v, "tags"))
		return read_tags(d, v);
	if (JSON_KEY_IS(v, "traceId"))
		return read_trace_id(d, v);
	if (JSON_KEY_IS(v, "id"))
		return read_id(d, v);
	if (JSON_KEY_IS(v, "parentId"))
		return read_parent_id(d, v);
	if (JSON_KEY_IS(v, "name"))
		return read_name(d, v);
	if (JSON_KEY_IS(v, "timestamp"))
		return read_us(d, "timestamp", v, &d->sp.timestamp_us);
	if (JSON_KEY_IS(v, "duration"))
		return read_us(d, "duration", v, &d->sp.duration_us);
	if (JSON_KEY_IS(v, "localEndpoint"))
		return read_endpoint(d, "localEndpoint", v, &d->sp.local);
	if (JSON_KEY_IS(v, "remoteEndpoint"))
		return read_endpoint(d, "remoteEndpoint", v, &d->sp.remote);
	if (JSON_KEY_IS(v, "annotations"))
		return read_annotations(d, v);
	if (JSON_KEY_IS(v, "kind") && v->kind == JSON_STRING)
		d->sp.kind = zipkin_json_kind(v->text);
	else if (JSON_KEY_IS(v, "debug"))
		d->sp.debug = v->kind == JSON_TRUE;
	else if (JSON_KEY_IS(v, "shared"))
		d->sp.shared = v->kind == JSON_TRUE;
	return json_reader_skip(&d->r, v, d->err);
}

/* One element of the list, whatever it is. */
static int read_span(struct decoder *d, const struct json_value *v)
{
	struct json_value m;
	int rc = 0;

	d->sp = (struct zipkin_span){ 0 };
	zipkin_span_room_reset(&d->room);
	d->has_trace_id = d->has_id = false;
	if (v->kind != JSON_OBJECT)
		return span_bad(d, ZIPKIN_BAD_JSON_TYPE, "", v);
	while ((rc = json_reader_member(&d->r, &m, d->err)) > 0) {
		if (m.kind == JSON_NULL)
			continue;
		rc = m.bad_utf8 ? span_bad(d, ZIPKIN_BAD_UTF8, "", &m) : read_member(d, &m);
		if (rc != 0)
			return rc;
		if (UNLIKELY(meter_is_refused(d->batch.arena->meter)))
			return err_set(d->err, ERR_EXHAUSTED, "zipkin: memory budget spent");
	}
	if (rc < 0)
		return -1;
	if (!d->has_trace_id)
		return span_bad(d, ZIPKIN_BAD_TRACE_ID, "traceId", NULL);
	if (!d->has_id)
		return span_bad(d, ZIPKIN_BAD_SPAN_ID, "id", NULL);
	zipkin_span_room_lend(&d->room, &d->sp);
	zipkin_span_batch_add(&d->batch, &d->sp);
	d->result->n_ok++;
	return 0;
}

static int read_list(struct decoder *d)
{
	struct json_value v;
	int rc = 0;

	if (json_reader_value(&d->r, &v, d->err) < 0)
		return -1;
	if (v.kind != JSON_ARRAY)
		return err_set(d->err, ERR_INVALID, "zipkin: expected a list of spans, got %s",
			       json_reader_kind_name(v.kind));
	while ((rc = json_reader_element(&d->r, &v, d->err)) > 0) {
		rc = read_span(d, &v);
		if (rc < 0 || (rc == SPAN_BAD && json_reader_leave(&d->r, LIST_DEPTH, d->err) < 0))
			return -1;
		d->position++;
	}
	return rc < 0 ? -1 : json_reader_end(&d->r, d->err);
}

int zipkin_json_decode(struct bytes json, size_t max_bytes, bool typed_tags, struct arena *arena,
		       struct buf *out, struct zipkin_result *result, struct err *err)
{
	struct decoder d = { .result = result, .err = err };
	int rc = 0;

	memset(result, 0, sizeof(*result));
	if (zipkin_json_is_blank(json))
		return 0;
	json_reader_init(&d.r, json, arena);
	d.r.keep_bad_utf8 = true;
	zipkin_span_batch_init(&d.batch, arena, max_bytes);
	d.batch.typed_tags = typed_tags;
	rc = read_list(&d);
	if (rc == 0)
		rc = zipkin_span_batch_encode(&d.batch, out, err);
	zipkin_span_batch_fini(&d.batch);
	zipkin_span_room_fini(&d.room);
	return rc;
}
