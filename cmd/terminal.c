/* SPDX-License-Identifier: Apache-2.0
 *
 * terminal.c - see terminal.h.
 */
#include "cmd/terminal.h"

#include "base/clock.h"
#include "base/str.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { WIDTH_MIN = 20, WIDTH_MAX = 1000 };

#define ELLIPSIS "\xe2\x80\xa6"

unsigned terminal_width(int fd)
{
	const char *columns = getenv("COLUMNS");
	struct winsize size = { .ws_col = 0 };
	uint64_t n = TERMINAL_WIDTH_DEFAULT;

	if (columns == NULL || str_to_u64(bytes_str(columns), &n) < 0 || n == 0) {
		n = TERMINAL_WIDTH_DEFAULT;
		if (isatty(fd) && ioctl(fd, TIOCGWINSZ, &size) == 0 && size.ws_col > 0)
			n = size.ws_col;
	}
	return (unsigned)MIN(MAX(n, WIDTH_MIN), WIDTH_MAX);
}

bool terminal_has_colour(int fd)
{
	const char *no = getenv("NO_COLOR"), *term = getenv("TERM");

	return isatty(fd) && (no == NULL || *no == '\0') && term != NULL &&
	       strcmp(term, "dumb") != 0;
}

/* ---- text ---- */

/* The code point at p (n > 0 bytes left) and its length; U+FFFD and 1 when it is no UTF-8. */
static uint32_t code_point(const uint8_t *p, size_t n, size_t *len)
{
	size_t want = p[0] < 0x80 ? 1 : p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : 4;
	uint32_t c = p[0];

	*len = 1;
	if (want == 1)
		return c;
	if (want > n || !str_is_utf8((struct bytes){ p, want }))
		return 0xfffd;
	c = want == 2 ? c & 0x1f : want == 3 ? c & 0x0f : c & 0x07;
	for (size_t i = 1; i < want; i++)
		c = c << 6 | (p[i] & 0x3f);
	*len = want;
	return c;
}

static bool in_ranges(uint32_t c, const uint32_t (*r)[2], size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (c >= r[i][0] && c <= r[i][1])
			return true;
	return false;
}

/* C0, DEL, C1, line and paragraph separators, and what changes the direction of writing. */
static bool is_unfit(uint32_t c)
{
	static const uint32_t ranges[][2] = { { 0, 0x1f },        { 0x7f, 0x9f },
					      { 0x200e, 0x200f }, { 0x2028, 0x202e },
					      { 0x2066, 0x2069 }, { 0xfff9, 0xfffb } };

	return in_ranges(c, ranges, COUNT_OF(ranges));
}

static unsigned width_of(uint32_t c)
{
	static const uint32_t none[][2] = { { 0x300, 0x36f },   { 0x200b, 0x200d },
					    { 0x20d0, 0x20ff }, { 0xfe00, 0xfe0f },
					    { 0xfeff, 0xfeff }, { 0xe0100, 0xe01ef } };
	static const uint32_t wide[][2] = { { 0x1100, 0x115f },   { 0x2e80, 0x303e },
					    { 0x3041, 0xa4cf },   { 0xac00, 0xd7a3 },
					    { 0xf900, 0xfaff },   { 0xfe30, 0xfe6f },
					    { 0xff00, 0xff60 },   { 0xffe0, 0xffe6 },
					    { 0x1f300, 0x1f64f }, { 0x1f680, 0x1f6ff },
					    { 0x1f900, 0x1f9ff }, { 0x20000, 0x3fffd } };

	if (c < 0x300)
		return 1;
	if (in_ranges(c, none, COUNT_OF(none)))
		return 0;
	return in_ranges(c, wide, COUNT_OF(wide)) ? 2 : 1;
}

unsigned terminal_text_width(struct bytes text, unsigned max)
{
	unsigned width = 0;
	size_t len = 0;

	for (size_t i = 0; i < text.n && width <= max; i += len) {
		uint32_t c = code_point(text.p + i, text.n - i, &len);

		width += is_unfit(c) ? 1 : width_of(c);
	}
	return width;
}

unsigned terminal_add_text(struct buf *out, struct bytes text, unsigned max, bool ascii)
{
	bool cut = terminal_text_width(text, max) > max;
	unsigned room = cut ? max - (max > 0) : max, width = 0;
	size_t len = 0, end = out->n + MAX((size_t)max * 4, 64) * 4;

	/* `end` bounds what runs of characters without width can add. */
	for (size_t i = 0; i < text.n && out->n < end; i += len) {
		uint32_t c = code_point(text.p + i, text.n - i, &len);
		bool is_odd = is_unfit(c) || c == 0xfffd || (ascii && c > 0x7e);
		unsigned w = is_odd ? 1 : width_of(c);

		if (width + w > room)
			break;
		width += w;
		if (is_odd)
			buf_add_char(out, '?');
		else
			buf_add(out, text.p + i, len);
	}
	if (cut && max > 0) {
		buf_add_str(out, ascii ? "~" : ELLIPSIS);
		width++;
	}
	return width;
}

void terminal_format_time(uint64_t ns, bool ascii, char out[TERMINAL_TIME_SIZE])
{
	static const struct {
		uint64_t ns;
		const char *name;
	} units[] = { { NS_PER_S, "s" }, { NS_PER_MS, "ms" }, { NS_PER_US, "\xc2\xb5s" } };
	uint64_t s = ns / NS_PER_S;

	if (s >= 3600) {
		snprintf(out, TERMINAL_TIME_SIZE, "%lluh %02um", (unsigned long long)(s / 3600),
			 (unsigned)(s / 60 % 60));
		return;
	}
	if (s >= 60) {
		snprintf(out, TERMINAL_TIME_SIZE, "%um %02us", (unsigned)(s / 60),
			 (unsigned)(s % 60));
		return;
	}
	for (size_t i = 0; i < COUNT_OF(units); i++) {
		double v = (double)ns / (double)units[i].ns;

		if (ns < units[i].ns)
			continue;
		snprintf(out, TERMINAL_TIME_SIZE, "%.*f %s",
			 v < 9.995   ? 2
			 : v < 99.95 ? 1
				     : 0,
			 v, i == 2 && ascii ? "us" : units[i].name);
		return;
	}
	snprintf(out, TERMINAL_TIME_SIZE, "%u ns", (unsigned)ns);
}
