/* SPDX-License-Identifier: Apache-2.0
 *
 * zipkin_thrift.c - see zipkin_thrift.h.
 *
 * DESIGN: the reader's errors stick (wire/thrift.h), so nothing here has an error path of its own;
 * that text is not UTF-8 is remembered with the span being read.
 */
#include "wire/zipkin_thrift.h"

#include "base/str.h"

#include <stdio.h>

/* zipkincore.AnnotationType */
enum { TYPE_BOOL, TYPE_BYTES, TYPE_I16, TYPE_I32, TYPE_I64, TYPE_DOUBLE, TYPE_STRING };

/* The span being read. */
struct reading {
	struct zipkin_thrift *z;
	struct thrift_reader *r;
	const char *bad_field; /* has text that is not UTF-8; NULL: none */
	struct bytes bad_text;
};

static struct bytes read_text(struct reading *rd, const char *field)
{
	struct bytes text = thrift_string(rd->r);

	if (UNLIKELY(!str_is_utf8(text)) && rd->bad_field == NULL) {
		rd->bad_field = field;
		rd->bad_text = text;
	}
	return text;
}

static struct zipkin_span_endpoint read_endpoint(struct reading *rd)
{
	struct zipkin_span_endpoint ep = { .ip_len = 0 };
	struct thrift_field f;
	struct bytes ip;
	uint8_t v4[4];

	thrift_struct(rd->r);
	while (thrift_field(rd->r, &f)) {
		if (f.id == 1 && f.type == THRIFT_I32) {
			store_be32(v4, (uint32_t)thrift_i32(rd->r));
			if (load_le32(v4) != 0)
				zipkin_span_endpoint_bytes(&ep, (struct bytes){ v4, 4 });
		} else if (f.id == 2 && f.type == THRIFT_I16) {
			ep.port = (uint16_t)thrift_i16(rd->r);
		} else if (f.id == 3 && f.type == THRIFT_STRING) {
			ep.service = read_text(rd, "endpoint.service_name");
		} else if (f.id == 4 && f.type == THRIFT_STRING) {
			ip = thrift_string(rd->r);
			if (ip.n == 16)
				zipkin_span_endpoint_bytes(&ep, ip);
		} else {
			thrift_skip(rd->r, f.type);
		}
	}
	return ep;
}

/* Negative times are absent. */
static uint64_t read_us(struct reading *rd)
{
	int64_t us = thrift_i64(rd->r);

	return us > 0 ? (uint64_t)us : 0;
}

static void read_annotation(struct reading *rd)
{
	struct zipkin_v1_annotation a = { 0 };
	struct thrift_field f;

	thrift_struct(rd->r);
	while (thrift_field(rd->r, &f)) {
		if (f.id == 1 && f.type == THRIFT_I64)
			a.timestamp_us = read_us(rd);
		else if (f.id == 2 && f.type == THRIFT_STRING)
			a.value = read_text(rd, "annotations");
		else if (f.id == 3 && f.type == THRIFT_STRUCT)
			a.host = read_endpoint(rd);
		else
			thrift_skip(rd->r, f.type);
	}
	*zipkin_v1_annotation(&rd->z->v1, rd->z->batch.arena->meter) = a;
}

static struct bytes base64_text(struct arena *arena, struct bytes v)
{
	char *to = arena_alloc(arena, 4 * ((v.n + 2) / 3) + 1);
	size_t n = str_base64(v.p, v.n, to);

	return (struct bytes){ (const uint8_t *)to, n };
}

/* The big-endian integer of n bytes, with its sign. */
static int64_t signed_be(struct bytes v)
{
	uint64_t x = v.p[0] & 0x80 ? UINT64_MAX : 0;

	for (size_t i = 0; i < v.n; i++)
		x = x << 8 | v.p[i];
	return (int64_t)x;
}

/* Fewest digits that read back as the same. */
static void print_double(double d, char *text, size_t size)
{
	for (int digits = 15; digits <= 17; digits++) {
		double back = 0;

		snprintf(text, size, "%.*g", digits, d);
		if (str_to_double(bytes_str(text), &back) == 0 && memcmp(&back, &d, 8) == 0)
			return;
	}
}

/* A number's text and bits, of the first bytes as many as it has. False: there are fewer. */
static bool set_number(struct zipkin_v1_binary *b, int type, struct bytes v, struct arena *arena)
{
	static const uint8_t sizes[] = {
		[TYPE_I16] = 2, [TYPE_I32] = 4, [TYPE_I64] = 8, [TYPE_DOUBLE] = 8
	};
	char text[40];
	double d;

	if (v.n < sizes[type])
		return false;
	v.n = sizes[type];
	if (type == TYPE_DOUBLE) {
		b->type = ZIPKIN_TAG_DOUBLE;
		b->bits = load_be64(v.p);
		memcpy(&d, &b->bits, 8);
		print_double(d, text, sizeof(text));
	} else {
		b->type = ZIPKIN_TAG_INT;
		b->bits = (uint64_t)signed_be(v);
		snprintf(text, sizeof(text), "%lld", (long long)b->bits);
	}
	b->value = bytes_str(arena_strdup(arena, text));
	return true;
}

/* What is not as its type says is kept as bytes. */
static void set_value(struct reading *rd, struct zipkin_v1_binary *b, int type, struct bytes v)
{
	struct arena *arena = rd->z->batch.arena;

	b->value = v;
	if (type == TYPE_BOOL && v.n == 1) {
		b->type = ZIPKIN_TAG_BOOL;
		b->bits = v.p[0] != 0;
		b->value = b->bits ? BYTES_LIT("true") : BYTES_LIT("false");
	} else if (type == TYPE_STRING) {
		if (UNLIKELY(!str_is_utf8(v)) && rd->bad_field == NULL) {
			rd->bad_field = "binary_annotations";
			rd->bad_text = v;
		}
	} else if (type < TYPE_I16 || type > TYPE_DOUBLE || !set_number(b, type, v, arena)) {
		b->value = base64_text(arena, v);
	}
}

/* Without a key it is passed over. */
static void read_binary(struct reading *rd)
{
	struct zipkin_v1_binary b = { .value = BYTES_EMPTY };
	struct bytes value = BYTES_EMPTY;
	int32_t type = TYPE_STRING;
	struct thrift_field f;

	thrift_struct(rd->r);
	while (thrift_field(rd->r, &f)) {
		if (f.id == 1 && f.type == THRIFT_STRING)
			b.key = read_text(rd, "binary_annotations");
		else if (f.id == 2 && f.type == THRIFT_STRING)
			value = thrift_string(rd->r);
		else if (f.id == 3 && f.type == THRIFT_I32)
			type = thrift_i32(rd->r);
		else if (f.id == 4 && f.type == THRIFT_STRUCT)
			b.host = read_endpoint(rd);
		else
			thrift_skip(rd->r, f.type);
	}
	if (b.key.n == 0)
		return;
	set_value(rd, &b, type, value);
	*zipkin_v1_binary(&rd->z->v1, rd->z->batch.arena->meter) = b;
}

static void read_list(struct reading *rd, void (*read)(struct reading *rd))
{
	struct thrift_list l = thrift_list(rd->r);

	while (thrift_element(rd->r, &l)) {
		if (l.type == THRIFT_STRUCT)
			read(rd);
		else
			thrift_skip(rd->r, l.type);
	}
}

static void read_number(struct reading *rd, int16_t id)
{
	struct zipkin_v1_span *v1 = &rd->z->v1;

	switch (id) {
	case 1:
		store_be64(v1->trace_id + 8, (uint64_t)thrift_i64(rd->r));
		break;
	case 4:
		store_be64(v1->id, (uint64_t)thrift_i64(rd->r));
		break;
	case 5:
		store_be64(v1->parent_id, (uint64_t)thrift_i64(rd->r));
		break;
	case 10:
		v1->timestamp_us = read_us(rd);
		break;
	case 11:
		v1->duration_us = read_us(rd);
		break;
	case 12:
		store_be64(v1->trace_id, (uint64_t)thrift_i64(rd->r));
		break;
	default:
		thrift_i64(rd->r);
	}
}

static void read_fields(struct reading *rd)
{
	struct thrift_field f;

	thrift_struct(rd->r);
	while (thrift_field(rd->r, &f)) {
		if (f.type == THRIFT_I64)
			read_number(rd, f.id);
		else if (f.id == 3 && f.type == THRIFT_STRING)
			rd->z->v1.name = read_text(rd, "name");
		else if (f.id == 6 && f.type == THRIFT_LIST)
			read_list(rd, read_annotation);
		else if (f.id == 8 && f.type == THRIFT_LIST)
			read_list(rd, read_binary);
		else if (f.id == 9 && f.type == THRIFT_BOOL)
			rd->z->v1.debug = thrift_bool(rd->r);
		else
			thrift_skip(rd->r, f.type);
	}
}

static bool is_zero(const uint8_t *id, size_t n)
{
	uint8_t any = 0;

	for (size_t i = 0; i < n; i++)
		any |= id[i];
	return any == 0;
}

static void read_span(struct thrift_reader *r, struct zipkin_thrift *z)
{
	struct reading rd = { .z = z, .r = r };
	struct zipkin_v1_span *v1 = &z->v1;
	struct bytes id;

	zipkin_v1_reset(v1);
	read_fields(&rd);
	if (r->why != NULL)
		return;
	if (is_zero(v1->trace_id, 16)) {
		id = (struct bytes){ v1->trace_id, 16 };
		zipkin_result_bad_hex(z->result, z->position, ZIPKIN_BAD_TRACE_ID, "trace_id", &id);
	} else if (is_zero(v1->id, 8)) {
		id = (struct bytes){ v1->id, 8 };
		zipkin_result_bad_hex(z->result, z->position, ZIPKIN_BAD_SPAN_ID, "id", &id);
	} else if (rd.bad_field != NULL) {
		zipkin_result_bad(z->result, z->position, ZIPKIN_BAD_UTF8, rd.bad_field,
				  &rd.bad_text, true);
	} else {
		zipkin_v1_add(v1, &z->room, &z->batch);
		z->result->n_ok++;
	}
}

/* ---- public ---- */

void zipkin_thrift_init(struct zipkin_thrift *z, size_t max_bytes, struct arena *arena,
			struct zipkin_result *result)
{
	*z = (struct zipkin_thrift){ .result = result };
	memset(result, 0, sizeof(*result));
	zipkin_span_batch_init(&z->batch, arena, max_bytes);
}

void zipkin_thrift_read_list(struct thrift_reader *r, struct zipkin_thrift *z)
{
	struct thrift_list l = thrift_list(r);

	if (l.n > 0 && l.type != THRIFT_STRUCT && l.type != THRIFT_STRING)
		thrift_fail(r, "zipkin: expected a list of structs, element type", l.type);
	while (thrift_element(r, &l)) {
		read_span(r, z);
		if (UNLIKELY(meter_is_refused(z->batch.arena->meter)))
			return;
		z->position++;
	}
}

int zipkin_thrift_finish(const struct thrift_reader *r, struct zipkin_thrift *z, struct buf *out,
			 struct err *err)
{
	int rc = 0;

	if (meter_is_refused(z->batch.arena->meter))
		rc = err_set(err, ERR_EXHAUSTED, "zipkin: memory budget spent");
	else if (thrift_failed(r, err) < 0)
		rc = err_wrap(err, "zipkin: [%zu]", z->position);
	else
		rc = zipkin_span_batch_encode(&z->batch, out, err);
	zipkin_span_batch_fini(&z->batch);
	zipkin_span_room_fini(&z->room);
	zipkin_v1_fini(&z->v1);
	return rc;
}

int zipkin_thrift_decode(struct bytes list, size_t max_bytes, bool typed_tags, struct arena *arena,
			 struct buf *out, struct zipkin_result *result, struct err *err)
{
	struct thrift_reader r;
	struct zipkin_thrift z;

	thrift_init(&r, list, THRIFT_BINARY);
	zipkin_thrift_init(&z, max_bytes, arena, result);
	z.batch.typed_tags = typed_tags;
	if (list.n > 0)
		zipkin_thrift_read_list(&r, &z);
	return zipkin_thrift_finish(&r, &z, out, err);
}
