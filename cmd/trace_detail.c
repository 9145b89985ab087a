/* SPDX-License-Identifier: Apache-2.0
 *
 * trace_detail.c - see trace_detail.h.
 *
 * The bytes were validated by otlp_index: AnyValues nest at most OTLP_MAX_DEPTH deep, which bounds
 * the recursion here.
 */
#include "cmd/trace_detail.h"

#include "base/str.h"
#include "cmd/terminal.h"
#include "wire/json_writer.h"
#include "wire/otlp_index.h"
#include "wire/pb.h"

#include <stdio.h>

enum { TEXT_MAX = 4000, VALUE_MAX = 64 * 1024, HEX_MAX = 64 };

struct detail {
	struct buf *out;
	struct bytes indent;
	bool ascii;
	uint64_t start_ns; /* of the span */
};

/* ---- values ---- */

static void add_value(struct buf *v, struct bytes any, int depth);

static void add_list(struct buf *v, struct bytes list, int depth)
{
	struct pb_field f = { .number = 0 };
	const char *sep = "";

	buf_add_char(v, '[');
	while (pb_next(&list, &f) > 0) {
		if (f.number != 1 || f.wire != PB_LEN)
			continue;
		buf_add_str(v, sep);
		add_value(v, f.data, depth + 1);
		sep = ", ";
	}
	buf_add_char(v, ']');
}

static void read_key_value(struct bytes kv, struct bytes *key, struct bytes *value)
{
	struct pb_field f = { .number = 0 };

	*key = *value = BYTES_EMPTY;
	while (pb_next(&kv, &f) > 0) {
		if (f.number == 1 && f.wire == PB_LEN)
			*key = f.data;
		else if (f.number == 2 && f.wire == PB_LEN)
			*value = f.data;
	}
}

static void add_map(struct buf *v, struct bytes list, int depth)
{
	struct pb_field f = { .number = 0 };
	struct bytes key, value;
	const char *sep = "";

	buf_add_char(v, '{');
	while (pb_next(&list, &f) > 0) {
		if (f.number != 1 || f.wire != PB_LEN)
			continue;
		read_key_value(f.data, &key, &value);
		buf_add_str(v, sep);
		buf_add_bytes(v, key);
		buf_add_str(v, ": ");
		add_value(v, value, depth + 1);
		sep = ", ";
	}
	buf_add_char(v, '}');
}

static void add_double(struct buf *v, uint64_t bits)
{
	struct json_writer w = JSON_WRITER(v);
	double d;

	memcpy(&d, &bits, sizeof(d));
	json_writer_double(&w, d);
}

static void add_hex(struct buf *v, struct bytes bytes)
{
	char hex[2 * HEX_MAX + 1];

	str_hex(bytes.p, MIN(bytes.n, HEX_MAX), hex);
	buf_printf(v, "0x%s%s", hex, bytes.n > HEX_MAX ? "..." : "");
}

/* v has a cap: what passes it is dropped. */
static void add_value(struct buf *v, struct bytes any, int depth)
{
	struct pb_field f = { .number = 0 };

	while (depth <= OTLP_MAX_DEPTH && !v->overflow && pb_next(&any, &f) > 0) {
		if (f.number == 1 && f.wire == PB_LEN)
			buf_add_bytes(v, (struct bytes){ f.data.p, MIN(f.data.n, VALUE_MAX / 2) });
		else if (f.number == 2 && f.wire == PB_VARINT)
			buf_add_str(v, f.value ? "true" : "false");
		else if (f.number == 3 && f.wire == PB_VARINT)
			buf_printf(v, "%lld", (long long)f.value);
		else if (f.number == 4 && f.wire == PB_FIXED64)
			add_double(v, f.value);
		else if (f.number == 5 && f.wire == PB_LEN)
			add_list(v, f.data, depth);
		else if (f.number == 6 && f.wire == PB_LEN)
			add_map(v, f.data, depth);
		else if (f.number == 7 && f.wire == PB_LEN)
			add_hex(v, f.data);
	}
}

/* ---- lines ---- */

static void start_line(const struct detail *d, unsigned level)
{
	buf_add_bytes(d->out, d->indent);
	buf_printf(d->out, "%*s", (int)(2 * level), "");
}

static void add_text(const struct detail *d, struct bytes text)
{
	terminal_add_text(d->out, text, TEXT_MAX, d->ascii);
}

static void draw_key_value(const struct detail *d, struct bytes kv, unsigned level)
{
	struct buf text = BUF_INIT_MAX(VALUE_MAX);
	struct bytes key, value;

	read_key_value(kv, &key, &value);
	add_value(&text, value, 0);
	start_line(d, level);
	add_text(d, key);
	buf_add_str(d->out, " = ");
	add_text(d, buf_bytes(&text));
	buf_add_char(d->out, '\n');
	buf_fini(&text);
}

/* Every KeyValue field `number` of a message. */
static void draw_attributes(const struct detail *d, struct bytes message, uint32_t number,
			    unsigned level)
{
	struct pb_field f = { .number = 0 };

	while (pb_next(&message, &f) > 0)
		if (f.number == number && f.wire == PB_LEN)
			draw_key_value(d, f.data, level);
}

static void draw_event(const struct detail *d, struct bytes event)
{
	struct bytes in = event, name = BYTES_EMPTY;
	struct pb_field f = { .number = 0 };
	char time[TERMINAL_TIME_SIZE];
	uint64_t at = 0;

	while (pb_next(&in, &f) > 0) {
		if (f.number == 1 && f.wire == PB_FIXED64)
			at = f.value;
		else if (f.number == 2 && f.wire == PB_LEN)
			name = f.data;
	}
	terminal_format_time(at > d->start_ns ? at - d->start_ns : d->start_ns - at, d->ascii,
			     time);
	start_line(d, 0);
	buf_printf(d->out, "event %c%s ", at < d->start_ns ? '-' : '+', time);
	add_text(d, name);
	buf_add_char(d->out, '\n');
	draw_attributes(d, event, 3, 2);
}

static void draw_link(const struct detail *d, struct bytes link)
{
	char trace[33] = "?", span[17] = "?";
	struct bytes in = link;
	struct pb_field f = { .number = 0 };

	while (pb_next(&in, &f) > 0) {
		if (f.number == 1 && f.wire == PB_LEN && f.data.n == 16)
			str_hex(f.data.p, 16, trace);
		else if (f.number == 2 && f.wire == PB_LEN && f.data.n == 8)
			str_hex(f.data.p, 8, span);
	}
	start_line(d, 0);
	buf_printf(d->out, "link trace %s span %s\n", trace, span);
	draw_attributes(d, link, 4, 2);
}

static void draw_status(const struct detail *d, struct bytes status)
{
	struct bytes message = BYTES_EMPTY;
	struct pb_field f = { .number = 0 };
	uint64_t code = 0;

	while (pb_next(&status, &f) > 0) {
		if (f.number == 2 && f.wire == PB_LEN)
			message = f.data;
		else if (f.number == 3 && f.wire == PB_VARINT)
			code = f.value;
	}
	if (code == STATUS_UNSET && message.n == 0)
		return;
	start_line(d, 0);
	buf_printf(d->out, "status %s",
		   code == STATUS_ERROR ? "error"
		   : code == STATUS_OK  ? "ok"
					: "unset");
	if (message.n > 0) {
		buf_add_str(d->out, ": ");
		add_text(d, message);
	}
	buf_add_char(d->out, '\n');
}

static void draw_id(const struct detail *d, const struct span_ref *sp)
{
	char hex[17];

	str_hex(sp->span_id, 8, hex);
	start_line(d, 0);
	buf_printf(d->out, "span %s\n", hex);
}

void trace_detail_draw(const struct span_ref *sp, struct bytes indent, bool ascii, struct buf *out)
{
	const struct detail d = { out, indent, ascii, sp->start_ns };
	struct bytes span = { sp->p, sp->len }, in = span;
	struct pb_field f = { .number = 0 };

	draw_id(&d, sp);
	while (pb_next(&in, &f) > 0)
		if (f.number == 15 && f.wire == PB_LEN)
			draw_status(&d, f.data);
	draw_attributes(&d, span, 9, 0);
	for (in = span; pb_next(&in, &f) > 0;) {
		if (f.number == 11 && f.wire == PB_LEN)
			draw_event(&d, f.data);
		else if (f.number == 13 && f.wire == PB_LEN)
			draw_link(&d, f.data);
	}
}
