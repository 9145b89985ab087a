/* SPDX-License-Identifier: Apache-2.0
 *
 * any_value.c - see any_value.h.
 */
#include "wire/any_value.h"

#include "wire/json_writer.h"
#include "wire/otlp_index.h"
#include "wire/pb.h"

#include <inttypes.h>

void any_value_read(struct bytes any, struct any_value *out)
{
	struct pb_field f = { 0 };

	*out = (struct any_value){ .kind = ANY_EMPTY };
	while (pb_next(&any, &f) > 0) {
		if (f.number < ANY_STRING || f.number > ANY_BYTES)
			continue;
		*out = (struct any_value){ .kind = (enum any_kind)f.number, .s = BYTES_EMPTY };
		if (f.number == ANY_BOOL)
			out->b = f.value != 0;
		else if (f.number == ANY_INT)
			out->i = (int64_t)f.value;
		else if (f.number == ANY_DOUBLE)
			memcpy(&out->d, &f.value, sizeof(out->d));
		else
			out->s = f.data;
	}
}

void any_value_put(struct buf *out, const struct any_value *v)
{
	switch (v->kind) {
	case ANY_EMPTY:
		break;
	case ANY_BOOL:
		pb_put_uint(out, ANY_BOOL, v->b);
		break;
	case ANY_INT:
		pb_put_uint(out, ANY_INT, (uint64_t)v->i);
		break;
	case ANY_DOUBLE:
		pb_put_double(out, ANY_DOUBLE, v->d);
		break;
	default:
		pb_put_bytes(out, (uint32_t)v->kind, v->s);
		break;
	}
}

bool any_value_equal(const struct any_value *a, const struct any_value *b)
{
	if (a->kind != b->kind)
		return false;
	switch (a->kind) {
	case ANY_EMPTY:
		return true;
	case ANY_BOOL:
		return a->b == b->b;
	case ANY_INT:
		return a->i == b->i;
	case ANY_DOUBLE:
		return a->d == b->d;
	default:
		return bytes_eq(a->s, b->s);
	}
}

static void write_json(struct json_writer *w, struct bytes any, int depth);

static void write_json_map(struct json_writer *w, struct bytes map, int depth)
{
	struct bytes key, any;
	struct pb_field f = { 0 };

	json_writer_object(w);
	while (pb_next(&map, &f) > 0) {
		if (f.number != 1 || f.wire != PB_LEN)
			continue;
		any_pair_read(f.data, &key, &any);
		json_writer_key_bytes(w, key);
		write_json(w, any, depth + 1);
	}
	json_writer_object_end(w);
}

static void write_json_list(struct json_writer *w, struct bytes list, int depth)
{
	struct pb_field f = { 0 };

	json_writer_array(w);
	while (pb_next(&list, &f) > 0)
		if (f.number == 1 && f.wire == PB_LEN)
			write_json(w, f.data, depth + 1);
	json_writer_array_end(w);
}

static void write_json(struct json_writer *w, struct bytes any, int depth)
{
	struct any_value v;

	any_value_read(any, &v);
	switch (depth > OTLP_MAX_DEPTH ? ANY_EMPTY : v.kind) {
	case ANY_STRING:
		json_writer_bytes(w, v.s);
		break;
	case ANY_BOOL:
		json_writer_bool(w, v.b);
		break;
	case ANY_INT:
		json_writer_i64(w, v.i);
		break;
	case ANY_DOUBLE:
		json_writer_double(w, v.d);
		break;
	case ANY_ARRAY:
		write_json_list(w, v.s, depth);
		break;
	case ANY_KVLIST:
		write_json_map(w, v.s, depth);
		break;
	case ANY_BYTES:
		json_writer_base64(w, v.s);
		break;
	default:
		json_writer_null(w);
		break;
	}
}

/* Without the quotes that JSON puts around base64 and around what is no number. */
static void add_unquoted(struct buf *out, size_t from)
{
	size_t n = out->n - from;

	if (n < 2 || out->p[from] != '"')
		return;
	memmove(out->p + from, out->p + from + 1, n - 2);
	out->n -= 2;
}

void any_value_text(const struct any_value *v, struct buf *out)
{
	struct json_writer w = JSON_WRITER(out);
	size_t from = out->n;

	switch (v->kind) {
	case ANY_STRING:
		buf_add_bytes(out, v->s);
		break;
	case ANY_BOOL:
		buf_add_str(out, v->b ? "true" : "false");
		break;
	case ANY_INT:
		buf_printf(out, "%" PRId64, v->i);
		break;
	case ANY_DOUBLE:
		json_writer_double(&w, v->d);
		add_unquoted(out, from);
		break;
	case ANY_ARRAY:
		write_json_list(&w, v->s, 0);
		break;
	case ANY_KVLIST:
		write_json_map(&w, v->s, 0);
		break;
	case ANY_BYTES:
		json_writer_base64(&w, v->s);
		add_unquoted(out, from);
		break;
	default:
		break;
	}
}

void any_pair_read(struct bytes pair, struct bytes *key, struct bytes *any)
{
	struct pb_field f = { 0 };

	*key = *any = BYTES_EMPTY;
	while (pb_next(&pair, &f) > 0) {
		if (f.number == 1)
			*key = f.data;
		else if (f.number == 2)
			*any = f.data;
	}
}

void any_pair_put(struct buf *out, uint32_t number, struct bytes key, struct bytes any)
{
	size_t mark = pb_begin(out, number);

	pb_put_bytes(out, 1, key);
	pb_put_bytes(out, 2, any);
	pb_end(out, mark);
}
