/* SPDX-License-Identifier: Apache-2.0
 *
 * str.c - see str.h.
 */
#include "base/str.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

void str_hex(const uint8_t *p, size_t n, char *out)
{
	static const char digits[] = "0123456789abcdef";

	for (size_t i = 0; i < n; i++) {
		out[2 * i] = digits[p[i] >> 4];
		out[2 * i + 1] = digits[p[i] & 15];
	}
	out[2 * n] = '\0';
}

/* The value of a hex digit; 0xff for any other character. */
static const uint8_t hex_values[256] = {
#define NONE8 255, 255, 255, 255, 255, 255, 255, 255
#define NONE32 NONE8, NONE8, NONE8, NONE8
#define LETTERS 255, 10, 11, 12, 13, 14, 15, 255, NONE8, NONE8, NONE8
	NONE32, NONE8, NONE8, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 255, 255, 255, 255, 255, 255,
	LETTERS, LETTERS, NONE32, NONE32, NONE32, NONE32,
#undef LETTERS
#undef NONE32
#undef NONE8
};

int str_unhex(struct bytes s, uint8_t *out, size_t n)
{
	unsigned bad = 0;

	if (s.n != 2 * n)
		return -1;
	for (size_t i = 0; i < n; i++) {
		unsigned hi = hex_values[s.p[2 * i]], lo = hex_values[s.p[2 * i + 1]];

		bad |= hi | lo;
		out[i] = (uint8_t)(hi << 4 | lo);
	}
	return bad > 15 ? -1 : 0;
}

int str_to_u64(struct bytes s, uint64_t *out)
{
	uint64_t v = 0;

	if (s.n == 0)
		return -1;
	for (size_t i = 0; i < s.n; i++) {
		unsigned d = (unsigned)s.p[i] - '0';

		if (d > 9 || v > (UINT64_MAX - d) / 10)
			return -1;
		v = v * 10 + d;
	}
	*out = v;
	return 0;
}

int str_to_i64(struct bytes s, int64_t *out)
{
	bool neg = s.n > 0 && s.p[0] == '-';
	uint64_t v;

	if (neg || (s.n > 0 && s.p[0] == '+')) {
		s.p++;
		s.n--;
	}
	if (str_to_u64(s, &v) < 0 || v > (uint64_t)INT64_MAX + neg)
		return -1;
	*out = neg ? (int64_t)(0 - v) : (int64_t)v;
	return 0;
}

int str_to_double(struct bytes s, double *out)
{
	char text[512], *end;

	if (s.n == 0 || s.n >= sizeof(text) || isspace(s.p[0]))
		return -1;
	memcpy(text, s.p, s.n);
	text[s.n] = '\0';
	*out = strtod(text, &end);
	return end == text + s.n ? 0 : -1;
}

size_t str_utf8_sequence(const uint8_t *p, size_t n)
{
	uint8_t lead = p[0], lo = 0x80, hi = 0xbf;
	size_t len;

	if (lead < 0x80)
		return 1;
	if (lead >= 0xc2 && lead <= 0xdf)
		len = 2;
	else if (lead >= 0xe0 && lead <= 0xef)
		len = 3;
	else if (lead >= 0xf0 && lead <= 0xf4)
		len = 4;
	else
		return 0;
	if (lead == 0xe0)
		lo = 0xa0;
	else if (lead == 0xed)
		hi = 0x9f;
	else if (lead == 0xf0)
		lo = 0x90;
	else if (lead == 0xf4)
		hi = 0x8f;
	if (len > n || p[1] < lo || p[1] > hi)
		return 0;
	for (size_t i = 2; i < len; i++)
		if ((p[i] & 0xc0) != 0x80)
			return 0;
	return len;
}

bool str_is_utf8(struct bytes s)
{
	const uint8_t *p = s.p;
	size_t n = s.n;

	while (n >= 16) {
		if ((load_le64(p) | load_le64(p + 8)) & UINT64_C(0x8080808080808080))
			break;
		p += 16;
		n -= 16;
	}
	while (n > 0) {
		size_t len = str_utf8_sequence(p, n);

		if (len == 0)
			return false;
		p += len;
		n -= len;
	}
	return true;
}

unsigned str_distance(const char *a, const char *b)
{
	enum { LONGEST = 64 };
	unsigned row[LONGEST];
	size_t na = strnlen(a, LONGEST - 1), nb = strnlen(b, LONGEST - 1);

	for (size_t j = 0; j <= nb; j++)
		row[j] = (unsigned)j;
	for (size_t i = 1; i <= na; i++) {
		unsigned diagonal = row[0];

		row[0] = (unsigned)i;
		for (size_t j = 1; j <= nb; j++) {
			unsigned above = row[j];
			unsigned change = diagonal + (a[i - 1] != b[j - 1]);

			row[j] = MIN(MIN(above, row[j - 1]) + 1, change);
			diagonal = above;
		}
	}
	return row[nb];
}

bool str_has_prefix(const char *s, const char *prefix)
{
	return strncmp(s, prefix, strlen(prefix)) == 0;
}

bool str_has_suffix(const char *s, const char *suffix)
{
	size_t n = strlen(s), k = strlen(suffix);

	return n >= k && strcmp(s + n - k, suffix) == 0;
}

bool str_eq_nocase(struct bytes a, const char *b)
{
	if (a.n != strlen(b))
		return false;
	for (size_t i = 0; i < a.n; i++)
		if (tolower(a.p[i]) != tolower((uint8_t)b[i]))
			return false;
	return true;
}

size_t str_base64(const uint8_t *p, size_t n, char *out)
{
	static const char digits[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	char *o = out;

	for (; n > 0; p += 3) {
		uint32_t v = (uint32_t)p[0] << 16 | (n > 1 ? (uint32_t)p[1] << 8 : 0) |
			     (n > 2 ? p[2] : 0);

		*o++ = digits[v >> 18];
		*o++ = digits[v >> 12 & 63];
		*o++ = n > 1 ? digits[v >> 6 & 63] : '=';
		*o++ = n > 2 ? digits[v & 63] : '=';
		n -= MIN(n, (size_t)3);
	}
	*o = '\0';
	return (size_t)(o - out);
}

static int base64_value(uint8_t c)
{
	if (c >= 'A' && c <= 'Z')
		return c - 'A';
	if (c >= 'a' && c <= 'z')
		return c - 'a' + 26;
	if (c >= '0' && c <= '9')
		return c - '0' + 52;
	if (c == '+' || c == '-')
		return 62;
	return c == '/' || c == '_' ? 63 : -1;
}

long str_unbase64(struct bytes s, uint8_t *out)
{
	uint32_t acc = 0;
	unsigned bits = 0;
	long n = 0;

	if (s.n % 4 == 0)
		for (int i = 0; i < 2 && s.n > 0 && s.p[s.n - 1] == '='; i++)
			s.n--;
	if (s.n % 4 == 1)
		return -1;
	for (size_t i = 0; i < s.n; i++) {
		int v = base64_value(s.p[i]);

		if (v < 0)
			return -1;
		acc = acc << 6 | (uint32_t)v;
		bits += 6;
		if (bits >= 8) {
			bits -= 8;
			out[n++] = (uint8_t)(acc >> bits);
		}
	}
	return n;
}
