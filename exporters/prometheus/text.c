/* SPDX-License-Identifier: Apache-2.0
 *
 * text.c - see text.h.
 */
#include "exporters/prometheus/text.h"

#include "base/str.h"

/* U+FFFD */
#define REPLACEMENT "\xef\xbf\xbd"

static bool is_plain(uint8_t c)
{
	return c >= 0x20 && c < 0x80 && c != '"' && c != '\\';
}

/* Append one character, perhaps of several bytes; returns how many. */
static size_t put_one(struct buf *out, struct bytes text, bool quotes)
{
	uint8_t c = text.p[0];
	size_t n;

	if (c == '\n' || c == '\\' || (c == '"' && quotes)) {
		buf_add_char(out, '\\');
		buf_add_char(out, c == '\n' ? 'n' : (char)c);
		return 1;
	}
	/* NUL ends the text for Prometheus' parser. */
	n = c == '\0' ? 0 : str_utf8_sequence(text.p, text.n);
	if (n == 0)
		buf_add_str(out, REPLACEMENT);
	else
		buf_add(out, text.p, n);
	return MAX(n, (size_t)1);
}

void text_put_escaped(struct buf *out, struct bytes text, bool quotes)
{
	while (text.n > 0) {
		size_t n = 0;

		while (n < text.n && is_plain(text.p[n]))
			n++;
		buf_add(out, text.p, n);
		if (n < text.n)
			n += put_one(out, (struct bytes){ text.p + n, text.n - n }, quotes);
		text = (struct bytes){ text.p + n, text.n - n };
	}
}

static bool is_label_name(struct bytes name)
{
	for (size_t i = 0; i < name.n; i++) {
		uint8_t c = name.p[i];

		if (!((c | 0x20) >= 'a' && (c | 0x20) <= 'z') && c != '_' &&
		    !(i > 0 && c >= '0' && c <= '9'))
			return false;
	}
	return name.n > 0;
}

bool text_put_label(struct buf *out, struct bytes name, struct bytes value)
{
	bool is_legal = is_label_name(name);

	if (is_legal) {
		buf_add_bytes(out, name);
	} else {
		buf_add_char(out, '"');
		text_put_escaped(out, name, true);
		buf_add_char(out, '"');
	}
	buf_add(out, "=\"", 2);
	text_put_escaped(out, value, true);
	buf_add_char(out, '"');
	return is_legal;
}

size_t text_put_exemplar_label(struct buf *out, struct bytes name, struct bytes value)
{
	if (out->n > 0)
		buf_add_char(out, ',');
	text_put_label(out, name, value);
	return text_code_points(name) + text_code_points(value);
}

size_t text_code_points(struct bytes text)
{
	size_t n = 0;

	for (size_t i = 0; i < text.n; i++)
		n += (text.p[i] & 0xc0) != 0x80;
	return n;
}
