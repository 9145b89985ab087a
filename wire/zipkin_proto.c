/* SPDX-License-Identifier: Apache-2.0
 *
 * zipkin_proto.c - see zipkin_proto.h.
 *
 * DESIGN: each reader returns 0 (fine), SPAN_BAD (this span is of no use; noted) or -1 (damaged).
 * A bad span is still walked to its end, so that damage is damage wherever it stands.
 */
#include "wire/zipkin_proto.h"

#include "base/str.h"
#include "wire/pb.h"
#include "wire/zipkin_span.h"

#include <stdlib.h>

enum { SPAN_BAD = 1 };

/* zipkin.proto3.Span */
enum {
	SPAN_TRACE_ID = 1,
	SPAN_PARENT_ID,
	SPAN_ID,
	SPAN_KIND,
	SPAN_NAME,
	SPAN_TIMESTAMP,
	SPAN_DURATION,
	SPAN_LOCAL,
	SPAN_REMOTE,
	SPAN_ANNOTATIONS,
	SPAN_TAGS,
	SPAN_DEBUG,
	SPAN_SHARED,
	SPAN_FIELDS
};

static const uint8_t span_wire[SPAN_FIELDS] = {
	[SPAN_TRACE_ID] = PB_LEN,    [SPAN_PARENT_ID] = PB_LEN, [SPAN_ID] = PB_LEN,
	[SPAN_KIND] = PB_VARINT,     [SPAN_NAME] = PB_LEN,      [SPAN_TIMESTAMP] = PB_FIXED64,
	[SPAN_DURATION] = PB_VARINT, [SPAN_LOCAL] = PB_LEN,     [SPAN_REMOTE] = PB_LEN,
	[SPAN_ANNOTATIONS] = PB_LEN, [SPAN_TAGS] = PB_LEN,      [SPAN_DEBUG] = PB_VARINT,
	[SPAN_SHARED] = PB_VARINT,
};

struct decoder {
	struct zipkin_span_batch batch;
	struct zipkin_span sp;
	struct zipkin_span_room room; /* sp's lists, kept for the next span */
	size_t position;              /* in the list */
	bool has_trace_id, has_id;
	struct zipkin_result *result;
	struct err *err;
};

static int damaged(struct decoder *d, const char *what)
{
	return err_set(d->err, ERR_INVALID, "zipkin: [%zu]%s: damaged protobuf", d->position, what);
}

static int bad_id(struct decoder *d, enum zipkin_reason reason, const char *field,
		  const struct bytes *value)
{
	zipkin_result_bad_hex(d->result, d->position, reason, field, value);
	return SPAN_BAD;
}

/* A text that must be UTF-8. */
static int read_text(struct decoder *d, const char *field, struct bytes text, struct bytes *out)
{
	*out = text;
	if (LIKELY(str_is_utf8(text)))
		return 0;
	zipkin_result_bad(d->result, d->position, ZIPKIN_BAD_UTF8, field, &text, true);
	return SPAN_BAD;
}

static bool is_zero(struct bytes b)
{
	uint8_t any = 0;

	for (size_t i = 0; i < b.n; i++)
		any |= b.p[i];
	return any == 0;
}

/* 16 bytes, or the 8 of a short one. */
static int read_trace_id(struct decoder *d, struct bytes id)
{
	if ((id.n != 16 && id.n != 8) || is_zero(id))
		return bad_id(d, ZIPKIN_BAD_TRACE_ID, "traceId", &id);
	memset(d->sp.trace_id, 0, 16);
	memcpy(d->sp.trace_id + 16 - id.n, id.p, id.n);
	d->has_trace_id = true;
	return 0;
}

static int read_id(struct decoder *d, struct bytes id)
{
	if (id.n != 8 || is_zero(id))
		return bad_id(d, ZIPKIN_BAD_SPAN_ID, "id", &id);
	memcpy(d->sp.id, id.p, 8);
	d->has_id = true;
	return 0;
}

static int read_parent_id(struct decoder *d, struct bytes id)
{
	memset(d->sp.parent_id, 0, 8);
	if (id.n != 0 && id.n != 8)
		return bad_id(d, ZIPKIN_BAD_PARENT_ID, "parentId", &id);
	if (id.n > 0)
		memcpy(d->sp.parent_id, id.p, 8);
	return 0;
}

static enum zipkin_span_kind to_kind(uint64_t v)
{
	static const enum zipkin_span_kind kinds[] = { ZIPKIN_KIND_NONE, ZIPKIN_KIND_CLIENT,
						       ZIPKIN_KIND_SERVER, ZIPKIN_KIND_PRODUCER,
						       ZIPKIN_KIND_CONSUMER };

	return v < COUNT_OF(kinds) ? kinds[v] : ZIPKIN_KIND_NONE;
}

/* Addresses of a wrong length and ports out of range are left out, as in JSON. */
static int read_endpoint(struct decoder *d, const char *field, struct bytes in,
			 struct zipkin_span_endpoint *ep)
{
	struct pb_field f;
	int rc, verdict = 0;

	while ((rc = pb_next(&in, &f)) > 0) {
		if (f.number >= 1 && f.number <= 4 &&
		    f.wire != (f.number == 4 ? PB_VARINT : PB_LEN))
			return damaged(d, field);
		if (f.number == 1 && verdict == 0)
			verdict = read_text(d, field, f.data, &ep->service);
		else if ((f.number == 2 && f.data.n == 4) || (f.number == 3 && f.data.n == 16))
			zipkin_span_endpoint_bytes(ep, f.data);
		else if (f.number == 4)
			ep->port = f.value <= 65535 ? (uint16_t)f.value : 0;
	}
	return rc < 0 ? damaged(d, field) : verdict;
}

/* A map entry or an annotation: two fields, of which the second is text. */
static int read_annotation(struct decoder *d, struct bytes in)
{
	struct zipkin_span_annotation a = { 0 };
	struct pb_field f;
	int rc, verdict = 0;

	while ((rc = pb_next(&in, &f)) > 0) {
		if (f.number == 1 && f.wire == PB_FIXED64)
			a.timestamp_us = f.value;
		else if (f.number == 2 && f.wire == PB_LEN && verdict == 0)
			verdict = read_text(d, "annotations", f.data, &a.value);
		else if (f.number == 1 || (f.number == 2 && f.wire != PB_LEN))
			return damaged(d, "annotations");
	}
	if (rc < 0)
		return damaged(d, "annotations");
	if (a.timestamp_us > 0 && verdict == 0)
		*zipkin_span_room_annotation(&d->room, d->batch.arena) = a;
	return verdict;
}

static int read_tag(struct decoder *d, struct bytes in)
{
	struct zipkin_span_tag t = { .value = BYTES_EMPTY };
	struct pb_field f;
	int rc, verdict = 0;

	while ((rc = pb_next(&in, &f)) > 0) {
		if (f.number > 2)
			continue;
		if (f.wire != PB_LEN)
			return damaged(d, "tags");
		if (verdict == 0)
			verdict = read_text(d, "tags", f.data, f.number == 1 ? &t.key : &t.value);
	}
	if (rc < 0)
		return damaged(d, "tags");
	if (t.key.n > 0 && verdict == 0)
		*zipkin_span_room_tag(&d->room, d->batch.arena) = t;
	return verdict;
}

static int read_field(struct decoder *d, const struct pb_field *f)
{
	switch (f->number) {
	case SPAN_TRACE_ID:
		return read_trace_id(d, f->data);
	case SPAN_PARENT_ID:
		return read_parent_id(d, f->data);
	case SPAN_ID:
		return read_id(d, f->data);
	case SPAN_KIND:
		d->sp.kind = to_kind(f->value);
		return 0;
	case SPAN_NAME:
		return read_text(d, "name", f->data, &d->sp.name);
	case SPAN_TIMESTAMP:
		d->sp.timestamp_us = f->value;
		return 0;
	case SPAN_DURATION:
		d->sp.duration_us = f->value;
		return 0;
	case SPAN_LOCAL:
		return read_endpoint(d, "localEndpoint", f->data, &d->sp.local);
	case SPAN_REMOTE:
		return read_endpoint(d, "remoteEndpoint", f->data, &d->sp.remote);
	case SPAN_ANNOTATIONS:
		return read_annotation(d, f->data);
	case SPAN_TAGS:
		return read_tag(d, f->data);
	case SPAN_DEBUG:
		d->sp.debug = f->value != 0;
		return 0;
	default:
		d->sp.shared = f->value != 0;
		return 0;
	}
}

/* Also a span that is known to be bad is read to the end; the first complaint counts. */
static int read_span(struct decoder *d, struct bytes in)
{
	struct pb_field f;
	int rc, verdict = 0;

	d->sp = (struct zipkin_span){ 0 };
	zipkin_span_room_reset(&d->room);
	d->has_trace_id = d->has_id = false;
	while ((rc = pb_next(&in, &f)) > 0) {
		if (f.number >= SPAN_FIELDS || (verdict != 0 && f.wire != PB_LEN))
			continue;
		if (f.wire != span_wire[f.number])
			return damaged(d, "");
		if (verdict == 0)
			verdict = read_field(d, &f);
		if (verdict < 0)
			return -1;
	}
	if (rc < 0)
		return damaged(d, "");
	if (verdict == 0 && !d->has_trace_id)
		return bad_id(d, ZIPKIN_BAD_TRACE_ID, "traceId", NULL);
	if (verdict == 0 && !d->has_id)
		return bad_id(d, ZIPKIN_BAD_SPAN_ID, "id", NULL);
	if (verdict != 0)
		return verdict;
	zipkin_span_room_lend(&d->room, &d->sp);
	zipkin_span_batch_add(&d->batch, &d->sp);
	d->result->n_ok++;
	return 0;
}

static int read_list(struct decoder *d, struct bytes in)
{
	struct pb_field f;
	int rc;

	while ((rc = pb_next(&in, &f)) > 0) {
		if (f.number != 1)
			continue;
		if (f.wire != PB_LEN)
			return damaged(d, "");
		if (read_span(d, f.data) < 0)
			return -1;
		if (UNLIKELY(meter_is_refused(d->batch.arena->meter)))
			return err_set(d->err, ERR_EXHAUSTED, "zipkin: memory budget spent");
		d->position++;
	}
	return rc < 0 ? damaged(d, "") : 0;
}

int zipkin_proto_decode(struct bytes list, size_t max_bytes, bool typed_tags, struct arena *arena,
			struct buf *out, struct zipkin_result *result, struct err *err)
{
	struct decoder d = { .result = result, .err = err };
	int rc = 0;

	memset(result, 0, sizeof(*result));
	zipkin_span_batch_init(&d.batch, arena, max_bytes);
	d.batch.typed_tags = typed_tags;
	rc = read_list(&d, list);
	if (rc == 0)
		rc = zipkin_span_batch_encode(&d.batch, out, err);
	zipkin_span_batch_fini(&d.batch);
	zipkin_span_room_fini(&d.room);
	return rc;
}
