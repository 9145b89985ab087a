/* SPDX-License-Identifier: Apache-2.0
 *
 * zipkin_v1_json.c - see zipkin_v1_json.h.
 *
 * DESIGN: as zipkin_json.c: each reader returns 0 (fine), SPAN_BAD (noted) or -1 (damaged), and the
 * rest of a bad span is passed over, still checked.
 */
#include "wire/zipkin_v1_json.h"

#include "base/mem.h"
#include "base/str.h"
#include "wire/json_reader.h"
#include "wire/zipkin_json_values.h"
#include "wire/zipkin_v1.h"

enum { SPAN_BAD = 1, LIST_DEPTH = 1 };

struct decoder {
	struct json_reader r;
	struct zipkin_span_batch batch;
	struct zipkin_v1_span v1;
	struct zipkin_span_room room;
	size_t position; /* in the list */
	bool has_trace_id, has_id;
	struct zipkin_result *result;
	struct err *err;
};

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

/* An id of n bytes; *is_zero says whether any bit is set. False: not this. */
static bool read_id(const struct json_value *v, uint8_t *id, size_t n, bool *is_zero)
{
	uint8_t any = 0;

	if (v->kind != JSON_STRING || zipkin_json_id(v->text, id, n) < 0)
		return false;
	for (size_t i = 0; i < n; i++)
		any |= id[i];
	*is_zero = any == 0;
	return true;
}

static int read_ids(struct decoder *d, const struct json_value *v)
{
	bool is_zero = false;

	if (JSON_KEY_IS(v, "traceId")) {
		if (!read_id(v, d->v1.trace_id, 16, &is_zero) || is_zero)
			return span_bad(d, ZIPKIN_BAD_TRACE_ID, "traceId", v);
		d->has_trace_id = true;
	} else if (JSON_KEY_IS(v, "id")) {
		if (!read_id(v, d->v1.id, 8, &is_zero) || is_zero)
			return span_bad(d, ZIPKIN_BAD_SPAN_ID, "id", v);
		d->has_id = true;
	} else {
		memset(d->v1.parent_id, 0, 8);
		if ((v->kind != JSON_STRING || v->text.n > 0) &&
		    !read_id(v, d->v1.parent_id, 8, &is_zero))
			return span_bad(d, ZIPKIN_BAD_PARENT_ID, "parentId", v);
	}
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

static int read_endpoint(struct decoder *d, const char *field, const struct json_value *v,
			 struct zipkin_span_endpoint *ep)
{
	struct json_value bad;
	int rc;

	if (v->kind == JSON_NULL)
		return 0;
	if (v->kind != JSON_OBJECT)
		return span_bad(d, ZIPKIN_BAD_JSON_TYPE, field, v);
	rc = zipkin_json_endpoint(&d->r, ep, &bad, d->err);
	return rc > 0 ? span_bad(d, ZIPKIN_BAD_UTF8, field, &bad) : rc;
}

/* Without a text it is passed over; without a time it can still say the kind. */
static int read_annotation(struct decoder *d)
{
	struct zipkin_v1_annotation a = { 0 };
	bool has_value = false;
	struct json_value m;
	int rc = 0;

	while ((rc = json_reader_member(&d->r, &m, d->err)) > 0) {
		if (JSON_KEY_IS(&m, "endpoint")) {
			rc = read_endpoint(d, "annotations.endpoint", &m, &a.host);
			if (rc != 0)
				return rc;
			continue;
		}
		if (JSON_KEY_IS(&m, "timestamp") && zipkin_json_us(&m, &a.timestamp_us) < 0)
			a.timestamp_us = 0;
		if (JSON_KEY_IS(&m, "value") && m.kind == JSON_STRING) {
			if (m.bad_utf8)
				return span_bad(d, ZIPKIN_BAD_UTF8, "annotations", &m);
			a.value = m.text;
			has_value = true;
		}
		if (json_reader_skip(&d->r, &m, d->err) < 0)
			return -1;
	}
	if (rc == 0 && has_value)
		*zipkin_v1_annotation(&d->v1, d->batch.arena->meter) = a;
	return rc;
}

/* Without a key, or with null, an array or an object for a value, it is passed over; but the host
 * of "lc" counts. */
static int read_binary(struct decoder *d)
{
	struct zipkin_v1_binary b = { .value = BYTES_EMPTY };
	bool has_value = false;
	struct json_value m;
	int rc = 0;

	while ((rc = json_reader_member(&d->r, &m, d->err)) > 0) {
		if (m.bad_utf8)
			return span_bad(d, ZIPKIN_BAD_UTF8, "binaryAnnotations", &m);
		if (JSON_KEY_IS(&m, "endpoint")) {
			rc = read_endpoint(d, "binaryAnnotations.endpoint", &m, &b.host);
			if (rc != 0)
				return rc;
			continue;
		}
		if (JSON_KEY_IS(&m, "key") && m.kind == JSON_STRING)
			b.key = m.text;
		else if (JSON_KEY_IS(&m, "value"))
			has_value = zipkin_json_scalar(&m, &b.value);
		if (json_reader_skip(&d->r, &m, d->err) < 0)
			return -1;
	}
	if (rc == 0 && b.key.n > 0 && has_value)
		*zipkin_v1_binary(&d->v1, d->batch.arena->meter) = b;
	return rc;
}

static int read_list_of(struct decoder *d, const char *field, const struct json_value *v,
			int (*read)(struct decoder *d))
{
	struct json_value e;
	int rc = 0;

	if (v->kind != JSON_ARRAY)
		return span_bad(d, ZIPKIN_BAD_JSON_TYPE, field, v);
	while ((rc = json_reader_element(&d->r, &e, d->err)) > 0) {
		int got = e.kind == JSON_OBJECT ? read(d) : json_reader_skip(&d->r, &e, d->err);

		if (got != 0)
			return got;
	}
	return rc;
}

/* Version 2's: binary annotations of no host. */
static int read_tags(struct decoder *d, const struct json_value *v)
{
	struct json_value m;
	int rc = 0;

	if (v->kind != JSON_OBJECT)
		return span_bad(d, ZIPKIN_BAD_JSON_TYPE, "tags", v);
	while ((rc = json_reader_member(&d->r, &m, d->err)) > 0) {
		struct zipkin_v1_binary b = { .key = m.key };

		if (m.bad_utf8)
			return span_bad(d, ZIPKIN_BAD_UTF8, "tags", &m);
		if (zipkin_json_scalar(&m, &b.value))
			*zipkin_v1_binary(&d->v1, d->batch.arena->meter) = b;
		else if (json_reader_skip(&d->r, &m, d->err) < 0)
			return -1;
	}
	return rc;
}

static int read_v2_member(struct decoder *d, const struct json_value *v)
{
	if (JSON_KEY_IS(v, "localEndpoint"))
		return read_endpoint(d, "localEndpoint", v, &d->v1.local);
	if (JSON_KEY_IS(v, "remoteEndpoint"))
		return read_endpoint(d, "remoteEndpoint", v, &d->v1.remote);
	if (JSON_KEY_IS(v, "tags"))
		return read_tags(d, v);
	if (JSON_KEY_IS(v, "kind") && v->kind == JSON_STRING)
		d->v1.kind = zipkin_json_kind(v->text);
	else if (JSON_KEY_IS(v, "shared"))
		d->v1.shared = v->kind == JSON_TRUE;
	return json_reader_skip(&d->r, v, d->err);
}

static int read_member(struct decoder *d, const struct json_value *v)
{
	if (JSON_KEY_IS(v, "traceId") || JSON_KEY_IS(v, "id") || JSON_KEY_IS(v, "parentId"))
		return read_ids(d, v);
	if (JSON_KEY_IS(v, "annotations"))
		return read_list_of(d, "annotations", v, read_annotation);
	if (JSON_KEY_IS(v, "binaryAnnotations"))
		return read_list_of(d, "binaryAnnotations", v, read_binary);
	if (JSON_KEY_IS(v, "timestamp"))
		return read_us(d, "timestamp", v, &d->v1.timestamp_us);
	if (JSON_KEY_IS(v, "duration"))
		return read_us(d, "duration", v, &d->v1.duration_us);
	if (JSON_KEY_IS(v, "name")) {
		d->v1.name = v->text;
		return v->kind == JSON_STRING ? 0 : span_bad(d, ZIPKIN_BAD_JSON_TYPE, "name", v);
	}
	if (JSON_KEY_IS(v, "debug"))
		d->v1.debug = v->kind == JSON_TRUE;
	return read_v2_member(d, v);
}

static int read_span(struct decoder *d, const struct json_value *v)
{
	struct json_value m;
	int rc = 0;

	zipkin_v1_reset(&d->v1);
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
	zipkin_v1_add(&d->v1, &d->room, &d->batch);
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

int zipkin_v1_json_decode(struct bytes json, size_t max_bytes, bool typed_tags, struct arena *arena,
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
	zipkin_v1_fini(&d.v1);
	return rc;
}
