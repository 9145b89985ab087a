/* SPDX-License-Identifier: Apache-2.0
 *
 * zipkin_v1_json.c - see zipkin_v1_json.h.
 */
#include "wire/zipkin_v1_json.h"

#include "wire/zipkin_json_list.h"
#include "wire/zipkin_json_values.h"
#include "wire/zipkin_v1.h"

struct decoder {
	struct zipkin_json_list list;
	struct zipkin_v1_span v1;
};

static struct decoder *decoder_of(struct zipkin_json_list *l)
{
	return CONTAINER_OF(l, struct decoder, list);
}

/* Without a text it is passed over; without a time it can still say the kind. */
static int read_annotation(struct zipkin_json_list *l)
{
	struct zipkin_v1_annotation a = { 0 };
	bool has_value = false;
	struct json_value m;
	int rc = 0;

	while ((rc = json_reader_member(&l->r, &m, l->err)) > 0) {
		if (JSON_KEY_IS(&m, "endpoint")) {
			rc = zipkin_json_read_endpoint(l, "annotations.endpoint", &m, &a.host);
			if (rc != 0)
				return rc;
			continue;
		}
		if (JSON_KEY_IS(&m, "timestamp") && zipkin_json_us(&m, &a.timestamp_us) < 0)
			a.timestamp_us = 0;
		if (JSON_KEY_IS(&m, "value") && m.kind == JSON_STRING) {
			if (m.bad_utf8)
				return zipkin_json_bad(l, ZIPKIN_BAD_UTF8, "annotations", &m);
			a.value = m.text;
			has_value = true;
		}
		if (json_reader_skip(&l->r, &m, l->err) < 0)
			return -1;
	}
	if (rc == 0 && has_value)
		*zipkin_v1_annotation(&decoder_of(l)->v1, l->batch.arena->meter) = a;
	return rc;
}

/* Without a key, or with null, an array or an object for a value, it is passed over; but the host
 * of "lc" counts. */
static int read_binary(struct zipkin_json_list *l)
{
	struct zipkin_v1_binary b = { .value = BYTES_EMPTY };
	bool has_value = false;
	struct json_value m;
	int rc = 0;

	while ((rc = json_reader_member(&l->r, &m, l->err)) > 0) {
		if (m.bad_utf8)
			return zipkin_json_bad(l, ZIPKIN_BAD_UTF8, "binaryAnnotations", &m);
		if (JSON_KEY_IS(&m, "endpoint")) {
			rc = zipkin_json_read_endpoint(l, "binaryAnnotations.endpoint", &m,
						       &b.host);
			if (rc != 0)
				return rc;
			continue;
		}
		if (JSON_KEY_IS(&m, "key") && m.kind == JSON_STRING)
			b.key = m.text;
		else if (JSON_KEY_IS(&m, "value"))
			has_value = zipkin_json_scalar(&m, &b.value);
		if (json_reader_skip(&l->r, &m, l->err) < 0)
			return -1;
	}
	if (rc == 0 && b.key.n > 0 && has_value)
		*zipkin_v1_binary(&decoder_of(l)->v1, l->batch.arena->meter) = b;
	return rc;
}

/* Version 2's: binary annotations of no host. */
static void add_tag(struct zipkin_json_list *l, struct bytes key, struct bytes value)
{
	*zipkin_v1_binary(&decoder_of(l)->v1, l->batch.arena->meter) =
		(struct zipkin_v1_binary){ .key = key, .value = value };
}

static int read_v2_member(struct zipkin_json_list *l, const struct json_value *v)
{
	struct zipkin_v1_span *v1 = &decoder_of(l)->v1;

	if (JSON_KEY_IS(v, "localEndpoint"))
		return zipkin_json_read_endpoint(l, "localEndpoint", v, &v1->local);
	if (JSON_KEY_IS(v, "remoteEndpoint"))
		return zipkin_json_read_endpoint(l, "remoteEndpoint", v, &v1->remote);
	if (JSON_KEY_IS(v, "tags"))
		return zipkin_json_read_tags(l, v, add_tag);
	if (JSON_KEY_IS(v, "kind") && v->kind == JSON_STRING)
		v1->kind = zipkin_json_kind(v->text);
	else if (JSON_KEY_IS(v, "shared"))
		v1->shared = v->kind == JSON_TRUE;
	return json_reader_skip(&l->r, v, l->err);
}

static int read_member(struct zipkin_json_list *l, const struct json_value *v)
{
	struct zipkin_v1_span *v1 = &decoder_of(l)->v1;

	if (JSON_KEY_IS(v, "traceId"))
		return zipkin_json_read_trace_id(l, v, v1->trace_id);
	if (JSON_KEY_IS(v, "id"))
		return zipkin_json_read_id(l, v, v1->id);
	if (JSON_KEY_IS(v, "parentId"))
		return zipkin_json_read_parent_id(l, v, v1->parent_id);
	if (JSON_KEY_IS(v, "annotations"))
		return zipkin_json_read_objects(l, "annotations", v, read_annotation);
	if (JSON_KEY_IS(v, "binaryAnnotations"))
		return zipkin_json_read_objects(l, "binaryAnnotations", v, read_binary);
	if (JSON_KEY_IS(v, "timestamp"))
		return zipkin_json_read_us(l, "timestamp", v, &v1->timestamp_us);
	if (JSON_KEY_IS(v, "duration"))
		return zipkin_json_read_us(l, "duration", v, &v1->duration_us);
	if (JSON_KEY_IS(v, "name")) {
		v1->name = v->text;
		return v->kind == JSON_STRING ? 0
					      : zipkin_json_bad(l, ZIPKIN_BAD_JSON_TYPE, "name", v);
	}
	if (JSON_KEY_IS(v, "debug"))
		v1->debug = v->kind == JSON_TRUE;
	return read_v2_member(l, v);
}

static void begin_span(struct zipkin_json_list *l)
{
	zipkin_v1_reset(&decoder_of(l)->v1);
}

static void add_span(struct zipkin_json_list *l)
{
	zipkin_v1_add(&decoder_of(l)->v1, &l->room, &l->batch);
}

int zipkin_v1_json_decode(struct bytes json, size_t max_bytes, bool typed_tags, struct arena *arena,
			  struct buf *out, struct zipkin_result *result, struct err *err)
{
	struct decoder d = {
		.list = { .begin = begin_span, .member = read_member, .add = add_span }
	};
	int rc = zipkin_json_list_decode(&d.list, json, max_bytes, typed_tags, arena, out, result,
					 err);

	zipkin_v1_fini(&d.v1);
	return rc;
}
