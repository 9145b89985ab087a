/* SPDX-License-Identifier: Apache-2.0
 *
 * zipkin_json.c - see zipkin_json.h.
 */
#include "wire/zipkin_json.h"

#include "wire/zipkin_json_list.h"
#include "wire/zipkin_json_values.h"

struct decoder {
	struct zipkin_json_list list;
	struct zipkin_span sp;
};

static struct decoder *decoder_of(struct zipkin_json_list *l)
{
	return CONTAINER_OF(l, struct decoder, list);
}

static void add_tag(struct zipkin_json_list *l, struct bytes key, struct bytes value)
{
	*zipkin_span_room_tag(&l->room, l->batch.arena) =
		(struct zipkin_span_tag){ .key = key, .value = value };
}

/* One annotation's object; without a time or a text it is passed over. */
static int read_annotation(struct zipkin_json_list *l)
{
	struct zipkin_span_annotation a = { 0 };
	bool has_time = false, has_value = false;
	struct json_value m;
	int rc = 0;

	while ((rc = json_reader_member(&l->r, &m, l->err)) > 0) {
		if (JSON_KEY_IS(&m, "timestamp")) {
			has_time = zipkin_json_us(&m, &a.timestamp_us) == 0 && a.timestamp_us > 0;
		} else if (JSON_KEY_IS(&m, "value") && m.kind == JSON_STRING) {
			if (m.bad_utf8)
				return zipkin_json_bad(l, ZIPKIN_BAD_UTF8, "annotations", &m);
			a.value = m.text;
			has_value = true;
		}
		if (json_reader_skip(&l->r, &m, l->err) < 0)
			return -1;
	}
	if (rc < 0 || !has_time || !has_value)
		return rc;
	*zipkin_span_room_annotation(&l->room, l->batch.arena) = a;
	return 0;
}

static int read_name(struct zipkin_json_list *l, const struct json_value *v, struct bytes *name)
{
	if (v->kind != JSON_STRING)
		return zipkin_json_bad(l, ZIPKIN_BAD_JSON_TYPE, "name", v);
	*name = v->text;
	return 0;
}

/* One member of a span; commonest keys first. */
static int read_member(struct zipkin_json_list *l, const struct json_value *v)
{
	struct zipkin_span *sp = &decoder_of(l)->sp;

	if (JSON_KEY_IS(v, "tags"))
		return zipkin_json_read_tags(l, v, add_tag);
	if (JSON_KEY_IS(v, "traceId"))
		return zipkin_json_read_trace_id(l, v, sp->trace_id);
	if (JSON_KEY_IS(v, "id"))
		return zipkin_json_read_id(l, v, sp->id);
	if (JSON_KEY_IS(v, "parentId"))
		return zipkin_json_read_parent_id(l, v, sp->parent_id);
	if (JSON_KEY_IS(v, "name"))
		return read_name(l, v, &sp->name);
	if (JSON_KEY_IS(v, "timestamp"))
		return zipkin_json_read_us(l, "timestamp", v, &sp->timestamp_us);
	if (JSON_KEY_IS(v, "duration"))
		return zipkin_json_read_us(l, "duration", v, &sp->duration_us);
	if (JSON_KEY_IS(v, "localEndpoint"))
		return zipkin_json_read_endpoint(l, "localEndpoint", v, &sp->local);
	if (JSON_KEY_IS(v, "remoteEndpoint"))
		return zipkin_json_read_endpoint(l, "remoteEndpoint", v, &sp->remote);
	if (JSON_KEY_IS(v, "annotations"))
		return zipkin_json_read_objects(l, "annotations", v, read_annotation);
	if (JSON_KEY_IS(v, "kind") && v->kind == JSON_STRING)
		sp->kind = zipkin_json_kind(v->text);
	else if (JSON_KEY_IS(v, "debug"))
		sp->debug = v->kind == JSON_TRUE;
	else if (JSON_KEY_IS(v, "shared"))
		sp->shared = v->kind == JSON_TRUE;
	return json_reader_skip(&l->r, v, l->err);
}

static void begin_span(struct zipkin_json_list *l)
{
	decoder_of(l)->sp = (struct zipkin_span){ 0 };
	zipkin_span_room_reset(&l->room);
}

static void add_span(struct zipkin_json_list *l)
{
	struct zipkin_span *sp = &decoder_of(l)->sp;

	zipkin_span_room_lend(&l->room, sp);
	zipkin_span_batch_add(&l->batch, sp);
}

int zipkin_json_decode(struct bytes json, size_t max_bytes, bool typed_tags, struct arena *arena,
		       struct buf *out, struct zipkin_result *result, struct err *err)
{
	struct decoder d = {
		.list = { .begin = begin_span, .member = read_member, .add = add_span }
	};

	return zipkin_json_list_decode(&d.list, json, max_bytes, typed_tags, arena, out, result,
				       err);
}
