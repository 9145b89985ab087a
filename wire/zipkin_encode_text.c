/* SPDX-License-Identifier: Apache-2.0
 *
 * zipkin_encode_text.c - see zipkin_encode_text.h.
 */
#include "wire/zipkin_encode_text.h"

#include "base/str.h"
#include "wire/json_writer.h"
#include "wire/otlp_index.h"
#include "wire/zipkin_otel_text.h"

#include <inttypes.h>
#include <stdio.h>

enum { ANY_BYTES = 7 };

static void read_any(struct zipkin_attr *a, struct bytes any)
{
	struct pb_field f = { .number = 0 };

	a->any = any;
	while (pb_next(&any, &f) > 0) {
		if (f.number == 0 || f.number > ANY_BYTES)
			continue;
		a->member = f.number;
		a->number = f.value;
		a->text = f.wire == PB_LEN ? f.data : BYTES_EMPTY;
	}
}

struct zipkin_attr zipkin_attr_read(struct bytes key_value)
{
	struct zipkin_attr a = { .member = 0 };
	struct pb_field f = { .number = 0 };

	while (pb_next(&key_value, &f) > 0) {
		if (f.number == 1 && f.wire == PB_LEN)
			a.key = f.data;
		else if (f.number == 2 && f.wire == PB_LEN)
			read_any(&a, f.data);
	}
	return a;
}

/* ---- values as JSON ---- */

/* With a point, so that who reads it knows it from an integer. */
static void put_double(struct buf *out, uint64_t bits)
{
	struct json_writer w = JSON_WRITER(out);
	size_t from = out->n, end;
	const uint8_t *e;
	double d;

	memcpy(&d, &bits, 8);
	json_writer_double(&w, d);
	if (out->overflow || out->n == from || out->p[from] == '"' ||
	    memchr(out->p + from, '.', out->n - from) != NULL)
		return;
	e = memchr(out->p + from, 'e', out->n - from);
	end = e != NULL ? (size_t)(e - out->p) : out->n;
	if (buf_reserve(out, 2) == NULL)
		return;
	memmove(out->p + end + 2, out->p + end, out->n - end);
	memcpy(out->p + end, ".0", 2);
	out->n += 2;
}

static void put_json(struct json_writer *w, const struct zipkin_attr *a, unsigned depth);

/* The elements of an ArrayValue, or the members of a KeyValueList. */
static void put_json_list(struct json_writer *w, struct bytes list, bool is_array, unsigned depth)
{
	struct pb_field f = { .number = 0 };

	while (pb_next(&list, &f) > 0) {
		struct zipkin_attr a = { .member = 0 };

		if (f.number != 1 || f.wire != PB_LEN)
			continue;
		if (is_array) {
			read_any(&a, f.data);
		} else {
			a = zipkin_attr_read(f.data);
			json_writer_key_bytes(w, a.key);
		}
		put_json(w, &a, depth + 1);
	}
}

static void put_json(struct json_writer *w, const struct zipkin_attr *a, unsigned depth)
{
	struct buf number = BUF_INIT;

	if (depth > OTLP_MAX_DEPTH) {
		json_writer_null(w);
		return;
	}
	switch (a->member) {
	case ANY_STRING:
		json_writer_bytes(w, a->text);
		break;
	case ANY_BOOL:
		json_writer_bool(w, a->number != 0);
		break;
	case ANY_INT:
		json_writer_i64(w, (int64_t)a->number);
		break;
	case ANY_DOUBLE:
		put_double(&number, a->number);
		json_writer_raw(w, buf_bytes(&number));
		buf_fini(&number);
		break;
	case ANY_ARRAY:
		json_writer_array(w);
		put_json_list(w, a->text, true, depth);
		json_writer_array_end(w);
		break;
	case ANY_KVLIST:
		json_writer_object(w);
		put_json_list(w, a->text, false, depth);
		json_writer_object_end(w);
		break;
	case ANY_BYTES:
		json_writer_base64(w, a->text);
		break;
	default:
		json_writer_null(w);
	}
}

/* ---- texts ---- */

static struct bytes keep(struct buf *b, struct arena *arena)
{
	struct bytes text = { arena_dup(arena, b->p, b->n), b->n };

	buf_fini(b);
	return text;
}

/* NaN and infinities without quotes: this is no JSON. */
static struct bytes double_text(uint64_t bits, struct arena *arena)
{
	struct buf b = BUF_INIT;
	struct bytes text;

	put_double(&b, bits);
	text = keep(&b, arena);
	if (text.n > 2 && text.p[0] == '"')
		text = (struct bytes){ text.p + 1, text.n - 2 };
	return text;
}

static struct bytes json_text(const struct zipkin_attr *a, struct arena *arena)
{
	struct buf b = BUF_INIT;
	struct json_writer w = JSON_WRITER(&b);

	put_json(&w, a, 0);
	return keep(&b, arena);
}

static struct bytes base64_text(struct bytes v, struct arena *arena)
{
	char *to = arena_alloc(arena, 4 * ((v.n + 2) / 3) + 1);
	size_t n = str_base64(v.p, v.n, to);

	return (struct bytes){ (const uint8_t *)to, n };
}

static struct bytes int_text(uint64_t bits, struct arena *arena)
{
	char text[24];
	int n = snprintf(text, sizeof(text), "%" PRId64, (int64_t)bits);

	return (struct bytes){ arena_dup(arena, text, (size_t)n), (size_t)n };
}

struct bytes zipkin_attr_text(const struct zipkin_attr *a, struct arena *arena)
{
	switch (a->member) {
	case 0:
		return BYTES_EMPTY;
	case ANY_STRING:
		return a->text;
	case ANY_BOOL:
		return a->number != 0 ? BYTES_LIT("true") : BYTES_LIT("false");
	case ANY_INT:
		return int_text(a->number, arena);
	case ANY_DOUBLE:
		return double_text(a->number, arena);
	case ANY_BYTES:
		return base64_text(a->text, arena);
	default:
		return json_text(a, arena);
	}
}

/* |{attributes}|count: the fields `number` of a message, and its count in field number + 1. */
static void put_tail(struct buf *out, struct bytes message, uint32_t number, uint64_t n_dropped)
{
	struct json_writer w = JSON_WRITER(out);
	struct pb_field f = { .number = 0 };

	buf_add_char(out, '|');
	json_writer_object(&w);
	while (pb_next(&message, &f) > 0) {
		struct zipkin_attr a;

		if (f.number != number || f.wire != PB_LEN)
			continue;
		a = zipkin_attr_read(f.data);
		json_writer_key_bytes(&w, a.key);
		put_json(&w, &a, 0);
	}
	json_writer_object_end(&w);
	buf_printf(out, "|%" PRIu64, n_dropped);
}

struct bytes zipkin_link_text(struct bytes link, struct arena *arena)
{
	struct bytes all = link, trace_id = BYTES_EMPTY, span_id = BYTES_EMPTY, state = BYTES_EMPTY;
	struct pb_field f = { .number = 0 };
	struct buf b = BUF_INIT;
	uint64_t n_dropped = 0;
	char hex[33];

	while (pb_next(&link, &f) > 0) {
		if (f.number == 1 && f.data.n == 16)
			trace_id = f.data;
		else if (f.number == 2 && f.data.n == 8)
			span_id = f.data;
		else if (f.number == 3 && f.wire == PB_LEN)
			state = f.data;
		else if (f.number == 5 && f.wire == PB_VARINT)
			n_dropped = (uint32_t)f.value;
	}
	str_hex(trace_id.p, trace_id.n, hex);
	buf_printf(&b, "%s|", hex);
	str_hex(span_id.p, span_id.n, hex);
	buf_printf(&b, "%s|", hex);
	buf_add_bytes(&b, state);
	put_tail(&b, all, 4, n_dropped);
	return keep(&b, arena);
}

/* Would the name by itself be read as a name and attributes? */
static bool looks_like_more(struct bytes name, struct arena *arena)
{
	struct buf scratch = BUF_INIT;
	bool is = false;

	if (name.n > 0 && (name.p[name.n - 1] == '}' || memmem(name.p, name.n, "|{", 2) != NULL)) {
		is = zipkin_otel_event(&scratch, arena, name, true) == 0;
		buf_fini(&scratch);
	}
	return is;
}

struct bytes zipkin_event_text(struct bytes event, struct arena *arena)
{
	struct bytes all = event, name = BYTES_EMPTY;
	struct pb_field f = { .number = 0 };
	struct buf b = BUF_INIT;
	uint64_t n_dropped = 0;
	bool has_attrs = false;

	while (pb_next(&event, &f) > 0) {
		if (f.number == 2 && f.wire == PB_LEN)
			name = f.data;
		else if (f.number == 3)
			has_attrs = true;
		else if (f.number == 4 && f.wire == PB_VARINT)
			n_dropped = (uint32_t)f.value;
	}
	if (!has_attrs && n_dropped == 0 && !looks_like_more(name, arena))
		return name;
	buf_add_bytes(&b, name);
	put_tail(&b, all, 3, n_dropped);
	return keep(&b, arena);
}
