/* SPDX-License-Identifier: Apache-2.0
 *
 * json_writer.c - see json_writer.h.
 */
#include "wire/json_writer.h"

#include "base/str.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static void before_value(struct json_writer *w)
{
	if (w->comma)
		buf_add_char(w->out, ',');
	w->comma = true;
}

static void open_bracket(struct json_writer *w, char c)
{
	before_value(w);
	buf_add_char(w->out, c);
	w->comma = false;
}

static void close_bracket(struct json_writer *w, char c)
{
	buf_add_char(w->out, c);
	w->comma = true;
}

void json_writer_object(struct json_writer *w)
{
	open_bracket(w, '{');
}

void json_writer_object_end(struct json_writer *w)
{
	close_bracket(w, '}');
}

void json_writer_array(struct json_writer *w)
{
	open_bracket(w, '[');
}

void json_writer_array_end(struct json_writer *w)
{
	close_bracket(w, ']');
}

void json_writer_key(struct json_writer *w, const char *key)
{
	before_value(w);
	buf_add_char(w->out, '"');
	buf_add_str(w->out, key);
	buf_add(w->out, "\":", 2);
	w->comma = false;
}

static void put_escape(struct buf *out, uint8_t c)
{
	static const char from[] = "\"\\\b\f\n\r\t", into[] = "\"\\bfnrt";
	const char *hit = c ? strchr(from, c) : NULL;

	if (hit != NULL) {
		buf_add_char(out, '\\');
		buf_add_char(out, into[hit - from]);
	} else {
		char text[8];

		snprintf(text, sizeof(text), "\\u%04x", c);
		buf_add(out, text, 6);
	}
}

/* The text in quotes. Runs of plain bytes are copied whole. */
static void put_string(struct buf *out, struct bytes s)
{
	size_t from = 0, i = 0;
	bool clean = str_is_utf8(s);

	buf_add_char(out, '"');
	while (i < s.n) {
		uint8_t c = s.p[i];
		size_t len = 1;

		if (LIKELY(c >= 0x20 && c != '"' && c != '\\' && (c < 0x80 || clean))) {
			i++;
			continue;
		}
		if (c >= 0x80 && (len = str_utf8_sequence(s.p + i, s.n - i)) > 0) {
			i += len;
			continue;
		}
		buf_add(out, s.p + from, i - from);
		if (c >= 0x80)
			buf_add_str(out, "\xef\xbf\xbd");
		else
			put_escape(out, c);
		from = ++i;
	}
	if (s.n > from)
		buf_add(out, s.p + from, s.n - from);
	buf_add_char(out, '"');
}

void json_writer_key_bytes(struct json_writer *w, struct bytes key)
{
	before_value(w);
	put_string(w->out, key);
	buf_add_char(w->out, ':');
	w->comma = false;
}

void json_writer_raw(struct json_writer *w, struct bytes json)
{
	before_value(w);
	buf_add_bytes(w->out, json);
}

void json_writer_null(struct json_writer *w)
{
	json_writer_raw(w, BYTES_LIT("null"));
}

void json_writer_bool(struct json_writer *w, bool v)
{
	json_writer_raw(w, v ? BYTES_LIT("true") : BYTES_LIT("false"));
}

static void put_integer(struct json_writer *w, bool negative, uint64_t v, bool quoted)
{
	char text[24];
	size_t i = sizeof(text);

	if (quoted)
		text[--i] = '"';
	do {
		text[--i] = (char)('0' + v % 10);
		v /= 10;
	} while (v > 0);
	if (negative)
		text[--i] = '-';
	if (quoted)
		text[--i] = '"';
	before_value(w);
	buf_add(w->out, text + i, sizeof(text) - i);
}

static uint64_t magnitude(int64_t v)
{
	return v < 0 ? 0 - (uint64_t)v : (uint64_t)v;
}

void json_writer_u64(struct json_writer *w, uint64_t v)
{
	put_integer(w, false, v, false);
}

void json_writer_i64(struct json_writer *w, int64_t v)
{
	put_integer(w, v < 0, magnitude(v), false);
}

void json_writer_u64_str(struct json_writer *w, uint64_t v)
{
	put_integer(w, false, v, true);
}

void json_writer_i64_str(struct json_writer *w, int64_t v)
{
	put_integer(w, v < 0, magnitude(v), true);
}

void json_writer_double(struct json_writer *w, double v)
{
	char text[40];

	if (isnan(v) || isinf(v)) {
		json_writer_str(w, isnan(v) ? "NaN" : v > 0 ? "Infinity" : "-Infinity");
		return;
	}
	/* 15 digits are enough for most numbers people write, 17 for every double. */
	for (int digits = 15; digits <= 17; digits++) {
		snprintf(text, sizeof(text), "%.*g", digits, v);
		if (strtod(text, NULL) == v)
			break;
	}
	/* A bare -0 is an integer to some readers (Python's), and loses its sign there. */
	json_writer_raw(w, v == 0 && signbit(v) ? BYTES_LIT("-0.0") : bytes_str(text));
}

void json_writer_bytes(struct json_writer *w, struct bytes v)
{
	before_value(w);
	put_string(w->out, v);
}

void json_writer_str(struct json_writer *w, const char *v)
{
	json_writer_bytes(w, bytes_str(v));
}

void json_writer_hex(struct json_writer *w, struct bytes v)
{
	static const char digits[] = "0123456789abcdef";
	uint8_t *to;

	before_value(w);
	to = buf_reserve(w->out, 2 * v.n + 2);
	if (to == NULL)
		return;
	*to++ = '"';
	for (size_t i = 0; i < v.n; i++) {
		*to++ = (uint8_t)digits[v.p[i] >> 4];
		*to++ = (uint8_t)digits[v.p[i] & 15];
	}
	*to = '"';
	w->out->n += 2 * v.n + 2;
}

void json_writer_base64(struct json_writer *w, struct bytes v)
{
	uint8_t *to;
	size_t n;

	before_value(w);
	to = buf_reserve(w->out, 4 * ((v.n + 2) / 3) + 3);
	if (to == NULL)
		return;
	to[0] = '"';
	n = v.n ? str_base64(v.p, v.n, (char *)to + 1) : 0;
	to[n + 1] = '"';
	w->out->n += n + 2;
}
