/* SPDX-License-Identifier: Apache-2.0
 *
 * json_reader.c - see json_reader.h.
 */
#include "wire/json_reader.h"

#include "base/str.h"

#include <math.h>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

static int damaged(const struct json_reader *r, const uint8_t *at, const char *what,
		   struct err *err)
{
	size_t off = (size_t)(at - r->start);

	if (at >= r->end)
		return err_set(err, ERR_INVALID, "json: byte %zu: %s, found the end", off, what);
	if (*at > 0x20 && *at < 0x7f)
		return err_set(err, ERR_INVALID, "json: byte %zu: %s, found '%c'", off, what, *at);
	return err_set(err, ERR_INVALID, "json: byte %zu: %s, found byte 0x%02x", off, what, *at);
}

static inline void skip_space(struct json_reader *r)
{
	while (r->p < r->end && *r->p <= 0x20) {
		if (*r->p != ' ' && *r->p != '\n' && *r->p != '\t' && *r->p != '\r')
			return;
		r->p++;
	}
}

/* The first quote, backslash or control character at or after p; *high is set when a byte before it
 * is not ASCII. */
static inline const uint8_t *scan_string(const uint8_t *p, const uint8_t *end, bool *high)
{
#ifdef __SSE2__
	const __m128i quote = _mm_set1_epi8('"');
	const __m128i backslash = _mm_set1_epi8('\\');
	const __m128i control = _mm_set1_epi8(0x1f);

	while (end - p >= 16) {
		__m128i x = _mm_loadu_si128((const __m128i *)(const void *)p);
		__m128i stop = _mm_or_si128(_mm_cmpeq_epi8(x, quote), _mm_cmpeq_epi8(x, backslash));
		unsigned mask, top = (unsigned)_mm_movemask_epi8(x);

		stop = _mm_or_si128(stop, _mm_cmpeq_epi8(_mm_min_epu8(x, control), x));
		mask = (unsigned)_mm_movemask_epi8(stop);
		if (mask != 0) {
			unsigned n = (unsigned)__builtin_ctz(mask);

			*high |= (top & ((1u << n) - 1)) != 0;
			return p + n;
		}
		*high |= top != 0;
		p += 16;
	}
#endif
	while (p < end && *p != '"' && *p != '\\' && *p >= 0x20)
		*high |= *p++ >= 0x80;
	return p;
}

/* Four hex digits at p as a number, or -1. */
static int hex4(const uint8_t *p, const uint8_t *end)
{
	uint8_t two[2];

	if (end - p < 4 || str_unhex((struct bytes){ p, 4 }, two, 2) < 0)
		return -1;
	return two[0] << 8 | two[1];
}

static uint8_t *put_utf8(uint8_t *to, uint32_t c)
{
	if (c < 0x80) {
		*to++ = (uint8_t)c;
	} else if (c < 0x800) {
		*to++ = (uint8_t)(0xc0 | c >> 6);
		*to++ = (uint8_t)(0x80 | (c & 0x3f));
	} else if (c < 0x10000) {
		*to++ = (uint8_t)(0xe0 | c >> 12);
		*to++ = (uint8_t)(0x80 | (c >> 6 & 0x3f));
		*to++ = (uint8_t)(0x80 | (c & 0x3f));
	} else {
		*to++ = (uint8_t)(0xf0 | c >> 18);
		*to++ = (uint8_t)(0x80 | (c >> 12 & 0x3f));
		*to++ = (uint8_t)(0x80 | (c >> 6 & 0x3f));
		*to++ = (uint8_t)(0x80 | (c & 0x3f));
	}
	return to;
}

/* \uXXXX with *p at the backslash; a surrogate pair is one character, a lone surrogate U+FFFD.
 * NULL: not hex. */
static uint8_t *unescape_u(const uint8_t **p, const uint8_t *end, uint8_t *to)
{
	int hi = hex4(*p + 2, end), lo = -1;

	if (hi < 0)
		return NULL;
	*p += 6;
	if ((hi & 0xf800) != 0xd800)
		return put_utf8(to, (uint32_t)hi);
	if (hi < 0xdc00 && end - *p >= 6 && (*p)[0] == '\\' && (*p)[1] == 'u')
		lo = hex4(*p + 2, end);
	if (lo < 0xdc00 || lo > 0xdfff)
		return put_utf8(to, 0xfffd);
	*p += 6;
	return put_utf8(to, 0x10000u + ((uint32_t)(hi & 0x3ff) << 10 | (uint32_t)(lo & 0x3ff)));
}

/* Write the string between p and end, whose quotes are known, to `to`. The bytes written, or -1
 * with *bad at the escape that is none. */
static long unescape(const uint8_t *p, const uint8_t *end, uint8_t *to, const uint8_t **bad)
{
	static const char from[] = "\"\\/bfnrt", into[] = "\"\\/\b\f\n\r\t";
	uint8_t *start = to;

	while (p < end) {
		const char *hit;

		if (*p != '\\') {
			*to++ = *p++;
			continue;
		}
		*bad = p;
		if (p[1] == 'u') {
			to = unescape_u(&p, end, to);
			if (to == NULL)
				return -1;
			continue;
		}
		hit = p[1] ? strchr(from, p[1]) : NULL;
		if (hit == NULL)
			return -1;
		*to++ = (uint8_t)into[hit - from];
		p += 2;
	}
	return to - start;
}

/* A string with escapes: find its end first, so that the arena gives no more than the text has. */
static int read_escaped(struct json_reader *r, const uint8_t *from, const uint8_t *p,
			struct bytes *out, bool *high, struct err *err)
{
	const uint8_t *bad = p;
	uint8_t *to;
	long n;

	while (p < r->end && *p == '\\')
		p = r->end - p < 2 ? r->end : scan_string(p + 2, r->end, high);
	if (p == r->end || *p != '"')
		return damaged(r, p, "expected '\"' at the end of a string", err);
	to = arena_alloc(r->arena, (size_t)(p - from));
	if (meter_is_refused(r->arena->meter))
		return err_set(err, ERR_EXHAUSTED, "json: byte %zu: memory budget spent",
			       (size_t)(p - r->start));
	n = unescape(from, p, to, &bad);
	if (n < 0)
		return damaged(r, bad, "no such escape in a string", err);
	*out = (struct bytes){ to, (size_t)n };
	r->p = p + 1;
	return 0;
}

/* The string whose opening quote is at the cursor. */
static inline int read_string(struct json_reader *r, struct json_value *v, struct bytes *out,
			      struct err *err)
{
	const uint8_t *from = r->p + 1, *p;
	bool high = false;

	p = scan_string(from, r->end, &high);
	if (LIKELY(p < r->end && *p == '"')) {
		*out = (struct bytes){ from, (size_t)(p - from) };
		r->p = p + 1;
	} else if (p < r->end && *p == '\\') {
		if (read_escaped(r, from, p, out, &high, err) < 0)
			return -1;
	} else {
		return damaged(r, p, "expected '\"' at the end of a string", err);
	}
	if (UNLIKELY(high) && !str_is_utf8(*out)) {
		if (!r->keep_bad_utf8)
			return err_set(err, ERR_INVALID, "json: byte %zu: string is not UTF-8",
				       (size_t)(from - 1 - r->start));
		v->bad_utf8 = true;
	}
	return 0;
}

static inline const uint8_t *skip_digits(const uint8_t *p, const uint8_t *end)
{
	while (p < end && (unsigned)(*p - '0') <= 9)
		p++;
	return p;
}

/* Where the JSON number at p ends, NULL when there is none. */
static inline const uint8_t *number_end(const uint8_t *p, const uint8_t *end)
{
	const uint8_t *digits;

	if (p < end && *p == '-')
		p++;
	digits = p;
	if (p < end && *p == '0')
		p++;
	else
		p = skip_digits(p, end);
	if (p == digits)
		return NULL;
	if (p < end && *p == '.') {
		digits = ++p;
		p = skip_digits(p, end);
		if (p == digits)
			return NULL;
	}
	if (p < end && (*p | 0x20) == 'e') {
		p++;
		if (p < end && (*p == '+' || *p == '-'))
			p++;
		digits = p;
		p = skip_digits(p, end);
		if (p == digits)
			return NULL;
	}
	return p;
}

static int read_number(struct json_reader *r, struct json_value *v, struct err *err)
{
	const uint8_t *p = number_end(r->p, r->end);

	if (p == NULL)
		return damaged(r, r->p, "expected a value", err);
	v->kind = JSON_NUMBER;
	v->text = (struct bytes){ r->p, (size_t)(p - r->p) };
	r->p = p;
	return 0;
}

static int read_word(struct json_reader *r, const char *word, enum json_kind kind,
		     struct json_value *v, struct err *err)
{
	size_t n = strlen(word);

	if ((size_t)(r->end - r->p) < n || memcmp(r->p, word, n) != 0)
		return damaged(r, r->p, "expected a value", err);
	v->kind = kind;
	r->p += n;
	return 0;
}

static int open_bracket(struct json_reader *r, enum json_kind kind, struct json_value *v,
			struct err *err)
{
	uint8_t bit = (uint8_t)(1u << (r->depth & 7));

	if (r->depth >= r->max_depth)
		return err_set(err, ERR_INVALID, "json: byte %zu: nested deeper than %u levels",
			       v->off, r->max_depth);
	if (kind == JSON_OBJECT)
		r->is_object[r->depth >> 3] |= bit;
	else
		r->is_object[r->depth >> 3] &= (uint8_t)~bit;
	r->depth++;
	r->first = true;
	r->p++;
	v->kind = kind;
	return 0;
}

static inline bool in_object(const struct json_reader *r)
{
	return r->is_object[(r->depth - 1) >> 3] >> ((r->depth - 1) & 7) & 1;
}

/* The value at the cursor; white space before it is passed. Does not touch v->key. */
static inline int read_value(struct json_reader *r, struct json_value *v, struct err *err)
{
	skip_space(r);
	if (r->p == r->end)
		return damaged(r, r->p, "expected a value", err);
	v->off = (size_t)(r->p - r->start);
	v->text = BYTES_EMPTY;
	r->first = false;
	switch (*r->p) {
	case '"':
		v->kind = JSON_STRING;
		return read_string(r, v, &v->text, err);
	case '{':
		return open_bracket(r, JSON_OBJECT, v, err);
	case '[':
		return open_bracket(r, JSON_ARRAY, v, err);
	case 't':
		return read_word(r, "true", JSON_TRUE, v, err);
	case 'f':
		return read_word(r, "false", JSON_FALSE, v, err);
	case 'n':
		return read_word(r, "null", JSON_NULL, v, err);
	default:
		return read_number(r, v, err);
	}
}

void json_reader_init(struct json_reader *r, struct bytes text, struct arena *arena)
{
	memset(r, 0, sizeof(*r));
	if (text.n == 0)
		text.p = (const uint8_t *)"";	/* so that pointer arithmetic below stays defined */
	r->start = r->p = text.p;
	r->end = text.p + text.n;
	r->arena = arena;
	r->max_depth = JSON_DEPTH_DEFAULT;
}

int json_reader_value(struct json_reader *r, struct json_value *v, struct err *err)
{
	assert(r->depth == 0 && r->max_depth <= JSON_DEPTH_MAX);
	v->key = BYTES_EMPTY;
	v->bad_utf8 = false;
	return read_value(r, v, err);
}

/* Past the comma, or past `close` with 0. */
static inline int next_item(struct json_reader *r, uint8_t close, struct err *err)
{
	skip_space(r);
	if (r->p < r->end && *r->p == close) {
		r->p++;
		r->depth--;
		r->first = false;
		return 0;
	}
	if (r->first)
		return 1;
	if (r->p == r->end || *r->p != ',')
		return damaged(r, r->p,
			       close == '}' ? "expected ',' or '}'" : "expected ',' or ']'", err);
	r->p++;
	skip_space(r);
	return 1;
}

int json_reader_member(struct json_reader *r, struct json_value *v, struct err *err)
{
	int rc = 0;

	assert(r->depth > 0 && in_object(r));
	rc = next_item(r, '}', err);
	if (rc <= 0)
		return rc;
	v->bad_utf8 = false;
	if (r->p == r->end || *r->p != '"')
		return damaged(r, r->p, "expected a key in quotes", err);
	if (read_string(r, v, &v->key, err) < 0)
		return -1;
	skip_space(r);
	if (r->p == r->end || *r->p != ':')
		return damaged(r, r->p, "expected ':' after a key", err);
	r->p++;
	return read_value(r, v, err) < 0 ? -1 : 1;
}

int json_reader_element(struct json_reader *r, struct json_value *v, struct err *err)
{
	int rc = 0;

	assert(r->depth > 0 && !in_object(r));
	rc = next_item(r, ']', err);
	if (rc <= 0)
		return rc;
	v->key = BYTES_EMPTY;
	v->bad_utf8 = false;
	return read_value(r, v, err) < 0 ? -1 : 1;
}

int json_reader_leave(struct json_reader *r, unsigned depth, struct err *err)
{
	struct json_value v;

	while (r->depth > depth) {
		int rc = in_object(r) ? json_reader_member(r, &v, err) :
					json_reader_element(r, &v, err);

		if (rc < 0)
			return -1;
	}
	return 0;
}

int json_reader_skip(struct json_reader *r, const struct json_value *v, struct err *err)
{
	if (v->kind < JSON_ARRAY)
		return 0;
	return json_reader_leave(r, r->depth - 1, err);
}

int json_reader_end(struct json_reader *r, struct err *err)
{
	assert(r->depth == 0);
	skip_space(r);
	if (r->p != r->end)
		return damaged(r, r->p, "expected nothing after the value", err);
	return 0;
}

/* A number taken apart: digits * 10^scale, `digits` without zeros at either end. */
struct decimal {
	bool negative;
	uint64_t digits;
	int64_t scale;
};

/* The exponent's value, saturated far beyond anything that fits. */
static int64_t read_exponent(const uint8_t *p, const uint8_t *end)
{
	enum { SATURATED = 1000000000 };
	bool negative = *p == '-';
	int64_t v = 0;

	if (*p == '-' || *p == '+')
		p++;
	for (; p < end; p++)
		v = MIN(v * 10 + (*p - '0'), SATURATED);
	return negative ? -v : v;
}

/* -1: more significant digits than 64 bits can have. Zeros wait in `zeros` until a digit after them
 * needs them. */
static int read_decimal(struct bytes s, struct decimal *d)
{
	const uint8_t *p = s.p, *end = s.p + s.n;
	int64_t zeros = 0, fraction = 0;
	bool point = false;

	*d = (struct decimal){ .negative = *p == '-' };
	for (p += d->negative; p < end && (*p | 0x20) != 'e'; p++) {
		if (*p == '.') {
			point = true;
			continue;
		}
		fraction += point;
		zeros++;
		if (*p == '0')
			continue;
		for (; d->digits != 0 && zeros > 1; zeros--)
			if (__builtin_mul_overflow(d->digits, 10, &d->digits))
				return -1;
		if (__builtin_mul_overflow(d->digits, 10, &d->digits) ||
		    __builtin_add_overflow(d->digits, (uint64_t)(*p - '0'), &d->digits))
			return -1;
		zeros = 0;
	}
	d->scale = zeros - fraction + (p < end ? read_exponent(p + 1, end) : 0);
	return 0;
}

/* The text of a number, in quotes or not; n is 0 when v is no number. */
static struct bytes number_text(const struct json_value *v)
{
	const uint8_t *end;

	if (v->kind == JSON_NUMBER)
		return v->text;
	if (v->kind != JSON_STRING || v->text.n == 0)
		return BYTES_EMPTY;
	end = v->text.p + v->text.n;
	return number_end(v->text.p, end) == end ? v->text : BYTES_EMPTY;
}

/* Sign and magnitude. The common case, up to 18 plain digits, is one loop. */
static int read_integer(const struct json_value *v, bool *negative, uint64_t *out)
{
	struct bytes s = number_text(v);
	struct decimal d;
	uint64_t n = 0;
	size_t i = 0;

	if (s.n == 0)
		return -1;
	for (; s.n <= 18 && i < s.n && (unsigned)(s.p[i] - '0') <= 9; i++)
		n = n * 10 + (uint64_t)(s.p[i] - '0');
	if (i == s.n) {
		*negative = false;
		*out = n;
		return 0;
	}
	if (read_decimal(s, &d) < 0)
		return -1;
	if (d.digits == 0)
		d.scale = 0;
	if (d.scale < 0 || d.scale > 20)
		return -1;
	for (; d.scale > 0; d.scale--)
		if (__builtin_mul_overflow(d.digits, 10, &d.digits))
			return -1;
	*negative = d.negative && d.digits != 0;
	*out = d.digits;
	return 0;
}

int json_reader_u64(const struct json_value *v, uint64_t *out)
{
	bool negative = false;
	uint64_t n = 0;

	if (read_integer(v, &negative, &n) < 0 || negative)
		return -1;
	*out = n;
	return 0;
}

int json_reader_i64(const struct json_value *v, int64_t *out)
{
	bool negative = false;
	uint64_t n = 0;

	if (read_integer(v, &negative, &n) < 0 || n > (uint64_t)INT64_MAX + negative)
		return -1;
	*out = negative ? (int64_t)(0 - n) : (int64_t)n;
	return 0;
}

int json_reader_double(const struct json_value *v, double *out)
{
	struct bytes s = number_text(v);
	double d = 0;

	if (s.n == 0 && v->kind == JSON_STRING) {
		if (bytes_eq_str(v->text, "NaN"))
			*out = (double)NAN;
		else if (bytes_eq_str(v->text, "Infinity"))
			*out = (double)INFINITY;
		else if (bytes_eq_str(v->text, "-Infinity"))
			*out = -(double)INFINITY;
		else
			return -1;
		return 0;
	}
	if (str_to_double(s, &d) < 0 || isinf(d))
		return -1;
	*out = d;
	return 0;
}

const char *json_reader_kind_name(enum json_kind kind)
{
	static const char *const names[] = {
		"null", "false", "true", "a number", "a string", "an array", "an object"
	};

	return names[kind];
}
