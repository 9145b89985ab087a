/* SPDX-License-Identifier: Apache-2.0
 *
 * zipkin_json_list.c - see zipkin_json_list.h.
 */
#include "wire/zipkin_json_list.h"

#include "wire/zipkin_json_values.h"

enum { LIST_DEPTH = 1 };

int zipkin_json_bad(struct zipkin_json_list *l, enum zipkin_reason reason, const char *field,
		    const struct json_value *v)
{
	struct bytes shown = v == NULL ? BYTES_EMPTY : v->text;
	bool is_text = v != NULL && v->kind == JSON_STRING;

	if (v != NULL && !is_text && v->kind != JSON_NUMBER)
		shown = bytes_str(json_reader_kind_name(v->kind));
	zipkin_result_bad(l->result, l->position, reason, field, v == NULL ? NULL : &shown,
			  is_text);
	return ZIPKIN_JSON_SPAN_BAD;
}

/* ---- members ---- */

static bool is_zero(const uint8_t *p, size_t n)
{
	uint8_t any = 0;

	for (size_t i = 0; i < n; i++)
		any |= p[i];
	return any == 0;
}

int zipkin_json_read_trace_id(struct zipkin_json_list *l, const struct json_value *v, uint8_t *id)
{
	if (v->kind != JSON_STRING || zipkin_json_id(v->text, id, 16) < 0 || is_zero(id, 16))
		return zipkin_json_bad(l, ZIPKIN_BAD_TRACE_ID, "traceId", v);
	l->has_trace_id = true;
	return 0;
}

int zipkin_json_read_id(struct zipkin_json_list *l, const struct json_value *v, uint8_t *id)
{
	if (v->kind != JSON_STRING || zipkin_json_id(v->text, id, 8) < 0 || is_zero(id, 8))
		return zipkin_json_bad(l, ZIPKIN_BAD_SPAN_ID, "id", v);
	l->has_id = true;
	return 0;
}

int zipkin_json_read_parent_id(struct zipkin_json_list *l, const struct json_value *v, uint8_t *id)
{
	memset(id, 0, 8);
	if (v->kind == JSON_STRING && v->text.n == 0)
		return 0;
	if (v->kind != JSON_STRING || zipkin_json_id(v->text, id, 8) < 0)
		return zipkin_json_bad(l, ZIPKIN_BAD_PARENT_ID, "parentId", v);
	return 0;
}

int zipkin_json_read_us(struct zipkin_json_list *l, const char *field, const struct json_value *v,
			uint64_t *us)
{
	if (v->kind != JSON_STRING && v->kind != JSON_NUMBER)
		return zipkin_json_bad(l, ZIPKIN_BAD_JSON_TYPE, field, v);
	if (zipkin_json_us(v, us) < 0)
		return zipkin_json_bad(l, ZIPKIN_BAD_NUMBER, field, v);
	return 0;
}

int zipkin_json_read_endpoint(struct zipkin_json_list *l, const char *field,
			      const struct json_value *v, struct zipkin_span_endpoint *ep)
{
	struct json_value bad;
	int rc;

	if (v->kind == JSON_NULL)
		return 0;
	if (v->kind != JSON_OBJECT)
		return zipkin_json_bad(l, ZIPKIN_BAD_JSON_TYPE, field, v);
	rc = zipkin_json_endpoint(&l->r, ep, &bad, l->err);
	return rc > 0 ? zipkin_json_bad(l, ZIPKIN_BAD_UTF8, field, &bad) : rc;
}

int zipkin_json_read_objects(struct zipkin_json_list *l, const char *field,
			     const struct json_value *v, int (*read)(struct zipkin_json_list *l))
{
	struct json_value e;
	int rc = 0;

	if (v->kind != JSON_ARRAY)
		return zipkin_json_bad(l, ZIPKIN_BAD_JSON_TYPE, field, v);
	while ((rc = json_reader_element(&l->r, &e, l->err)) > 0) {
		int got = e.kind == JSON_OBJECT ? read(l) : json_reader_skip(&l->r, &e, l->err);

		if (got != 0)
			return got;
	}
	return rc;
}

int zipkin_json_read_tags(struct zipkin_json_list *l, const struct json_value *v,
			  void (*tag)(struct zipkin_json_list *l, struct bytes key,
				      struct bytes value))
{
	struct json_value m;
	int rc = 0;

	if (v->kind != JSON_OBJECT)
		return zipkin_json_bad(l, ZIPKIN_BAD_JSON_TYPE, "tags", v);
	while ((rc = json_reader_member(&l->r, &m, l->err)) > 0) {
		struct bytes value;

		if (m.bad_utf8)
			return zipkin_json_bad(l, ZIPKIN_BAD_UTF8, "tags", &m);
		if (zipkin_json_scalar(&m, &value))
			tag(l, m.key, value);
		else if (json_reader_skip(&l->r, &m, l->err) < 0)
			return -1;
	}
	return rc;
}

/* ---- the list ---- */

static int read_members(struct zipkin_json_list *l)
{
	struct json_value m;
	int rc = 0;

	while ((rc = json_reader_member(&l->r, &m, l->err)) > 0) {
		if (m.kind == JSON_NULL)
			continue;
		rc = m.bad_utf8 ? zipkin_json_bad(l, ZIPKIN_BAD_UTF8, "", &m) : l->member(l, &m);
		if (rc != 0)
			return rc;
		if (UNLIKELY(meter_is_refused(l->batch.arena->meter)))
			return err_set(l->err, ERR_EXHAUSTED, "zipkin: memory budget spent");
	}
	return rc;
}

/* One element of the list, whatever it is. */
static int read_span(struct zipkin_json_list *l, const struct json_value *v)
{
	int rc;

	l->begin(l);
	l->has_trace_id = l->has_id = false;
	if (v->kind != JSON_OBJECT)
		return zipkin_json_bad(l, ZIPKIN_BAD_JSON_TYPE, "", v);
	rc = read_members(l);
	if (rc != 0)
		return rc;
	if (!l->has_trace_id)
		return zipkin_json_bad(l, ZIPKIN_BAD_TRACE_ID, "traceId", NULL);
	if (!l->has_id)
		return zipkin_json_bad(l, ZIPKIN_BAD_SPAN_ID, "id", NULL);
	l->add(l);
	l->result->n_ok++;
	return 0;
}

static int read_list(struct zipkin_json_list *l)
{
	struct json_value v;
	int rc = 0;

	if (json_reader_value(&l->r, &v, l->err) < 0)
		return -1;
	if (v.kind != JSON_ARRAY)
		return err_set(l->err, ERR_INVALID, "zipkin: expected a list of spans, got %s",
			       json_reader_kind_name(v.kind));
	while ((rc = json_reader_element(&l->r, &v, l->err)) > 0) {
		rc = read_span(l, &v);
		if (rc < 0 || (rc == ZIPKIN_JSON_SPAN_BAD &&
			       json_reader_leave(&l->r, LIST_DEPTH, l->err) < 0))
			return -1;
		l->position++;
	}
	return rc < 0 ? -1 : json_reader_end(&l->r, l->err);
}

int zipkin_json_list_decode(struct zipkin_json_list *l, struct bytes json, size_t max_bytes,
			    bool typed_tags, struct arena *arena, struct buf *out,
			    struct zipkin_result *result, struct err *err)
{
	int rc = 0;

	memset(result, 0, sizeof(*result));
	if (zipkin_json_is_blank(json))
		return 0;
	l->result = result;
	l->err = err;
	json_reader_init(&l->r, json, arena);
	l->r.keep_bad_utf8 = true;
	zipkin_span_batch_init(&l->batch, arena, max_bytes);
	l->batch.typed_tags = typed_tags;
	rc = read_list(l);
	if (rc == 0)
		rc = zipkin_span_batch_encode(&l->batch, out, err);
	zipkin_span_batch_fini(&l->batch);
	zipkin_span_room_fini(&l->room);
	return rc;
}
