/* SPDX-License-Identifier: Apache-2.0
 *
 * scalar.c - types and values of YAML scalars. Contract in scalar.h.
 *
 * DESIGN: one resolver decides the type from the text alone, and options ask for that type, so
 * `"5"` is never an integer and `yes` never a bool, as in the Collector. No locale, no allocation.
 */
#include "pipeline/conf/scalar.h"

#include "base/str.h"

#include <math.h>
#include <stdio.h>

static bool is_one_of(const char *text, const char *const *words, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (strcmp(text, words[i]) == 0)
			return true;
	}
	return false;
}

static int digit_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

static unsigned int_base(const char **p)
{
	unsigned base = 10;

	if ((*p)[0] != '0' || (*p)[1] == '\0')
		return base;
	switch ((*p)[1]) {
	case 'x':
	case 'X':
		base = 16;
		break;
	case 'o':
	case 'O':
		base = 8;
		break;
	case 'b':
	case 'B':
		base = 2;
		break;
	default:
		*p += 1;
		return 8; /* 0755: the Collector's parser reads it so */
	}
	*p += 2;
	return base;
}

/* [+-] digits with underscores between them. 0, or -1 when it is not an int or leaves 64 bits. */
static int parse_int(const char *p, struct conf_number *out)
{
	unsigned base;
	uint64_t v = 0;
	bool any = false;

	out->negative = *p == '-';
	if (*p == '-' || *p == '+')
		p++;
	base = int_base(&p);
	for (; *p != '\0'; p++) {
		int d = digit_value(*p);

		if (*p == '_' && any)
			continue;
		if (d < 0 || (unsigned)d >= base)
			return -1;
		if (v > (UINT64_MAX - (unsigned)d) / base)
			return -1;
		v = v * base + (unsigned)d;
		any = true;
	}
	if (!any || (out->negative && v > (uint64_t)INT64_MAX + 1))
		return -1;
	out->magnitude = v;
	out->real = out->negative ? -(double)v : (double)v;
	return 0;
}

static bool is_float_shape(const char *p)
{
	bool digits = false, dot = false;

	if (*p == '-' || *p == '+')
		p++;
	for (; (*p >= '0' && *p <= '9') || (*p == '.' && !dot); p++) {
		dot |= *p == '.';
		digits |= *p != '.';
	}
	if (!digits)
		return false;
	if (*p == 'e' || *p == 'E') {
		p++;
		if (*p == '-' || *p == '+')
			p++;
		if (*p < '0' || *p > '9')
			return false;
		while (*p >= '0' && *p <= '9')
			p++;
	}
	return *p == '\0';
}

static int parse_float(const char *text, struct conf_number *out)
{
	static const char *const inf[] = { ".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF" };
	static const char *const nan_[] = { ".nan", ".NaN", ".NAN" };

	if (is_one_of(text, inf, COUNT_OF(inf)))
		out->real = INFINITY;
	else if (text[0] == '-' && is_one_of(text + 1, inf, 3))
		out->real = -INFINITY;
	else if (is_one_of(text, nan_, COUNT_OF(nan_)))
		out->real = NAN;
	else if (!is_float_shape(text) ||
		 sscanf(text, "%lf", &out->real) != 1) /* the shape is checked: no hex, no "nan" */
		return -1;
	return 0;
}

enum conf_type conf_scalar_type(const char *text, struct conf_number *number)
{
	static const char *const nulls[] = { "", "~", "null", "Null", "NULL" };
	static const char *const bools[] = { "true", "True", "TRUE", "false", "False", "FALSE" };
	struct conf_number scratch = { false, 0, 0 };

	if (number == NULL)
		number = &scratch;
	*number = scratch;
	if (is_one_of(text, nulls, COUNT_OF(nulls)))
		return CONF_TYPE_NULL;
	if (is_one_of(text, bools, COUNT_OF(bools)))
		return CONF_TYPE_BOOL;
	if (parse_int(text, number) == 0)
		return CONF_TYPE_INT;
	if (parse_float(text, number) == 0)
		return CONF_TYPE_FLOAT;
	return CONF_TYPE_STRING;
}

bool conf_scalar_bool(const char *text)
{
	return text[0] == 't' || text[0] == 'T';
}

static const struct {
	const char *name;
	uint64_t ns;
} units[] = {
	{ "ns", 1 },
	{ "us", 1000 },
	{ "\xc2\xb5s", 1000 },
	{ "\xce\xbcs", 1000 },
	{ "ms", 1000000 },
	{ "s", 1000000000 },
	{ "m", UINT64_C(60000000000) },
	{ "h", UINT64_C(3600000000000) },
};

/* The digits at *text as a number of `unit`s: whole ones in *whole, the rest of one in *rest.
 * -1 when there are none, or too many for 64 bits. As Go does it, digits of the fraction that no
 * longer fit are ignored. */
static int duration_number(const char **text, uint64_t *whole, uint64_t *frac, double *scale)
{
	const char *p = *text;
	bool any = false;

	*whole = *frac = 0;
	*scale = 1;
	for (; *p >= '0' && *p <= '9'; p++, any = true) {
		if (*whole > (UINT64_C(1) << 63) / 10)
			return -1;
		*whole = *whole * 10 + (unsigned)(*p - '0');
		if (*whole > UINT64_C(1) << 63)
			return -1;
	}
	if (*p == '.') {
		for (p++; *p >= '0' && *p <= '9'; p++, any = true) {
			if (*frac > (UINT64_C(1) << 62) / 10)
				continue;
			*frac = *frac * 10 + (unsigned)(*p - '0');
			*scale *= 10;
		}
	}
	*text = p;
	return any ? 0 : -1;
}

/* One "1.5h" of a duration added to *sum. NULL, or what is wrong with the whole in Go's words;
 * *unit is then the unit concerned. */
static const char *duration_part(const char **text, uint64_t *sum, struct bytes *unit)
{
	uint64_t whole, frac;
	double scale;
	const char *p = *text;
	size_t n = 0;

	if (duration_number(&p, &whole, &frac, &scale) < 0)
		return "invalid";
	while (p[n] != '\0' && p[n] != '.' && (p[n] < '0' || p[n] > '9'))
		n++;
	if (n == 0)
		return "missing unit in";
	*unit = (struct bytes){ (const uint8_t *)p, n };
	*text = p + n;
	for (size_t i = 0; i < COUNT_OF(units); i++) {
		if (!bytes_eq_str(*unit, units[i].name))
			continue;
		if (whole > (UINT64_C(1) << 63) / units[i].ns)
			return "invalid";
		*sum += whole * units[i].ns +
			(uint64_t)((double)frac * ((double)units[i].ns / scale));
		return *sum > UINT64_C(1) << 63 ? "invalid" : NULL;
	}
	return "unknown unit";
}

int conf_scalar_duration(const char *text, int64_t *ns, char *why, size_t why_size)
{
	const char *p = text, *wrong = NULL;
	bool negative = *p == '-';
	struct bytes unit = BYTES_EMPTY;
	uint64_t sum = 0;

	if (*p == '-' || *p == '+')
		p++;
	if (strcmp(p, "0") == 0) {
		*ns = 0;
		return 0;
	}
	if (*p == '\0')
		wrong = "invalid";
	while (wrong == NULL && *p != '\0')
		wrong = duration_part(&p, &sum, &unit);
	if (wrong == NULL && !negative && sum > INT64_MAX)
		wrong = "invalid";
	if (wrong != NULL && wrong[0] == 'u')
		snprintf(why, why_size, "time: unknown unit \"%.*s\" in duration \"%.80s\"",
			 (int)MIN(unit.n, (size_t)40), (const char *)unit.p, text);
	else if (wrong != NULL)
		snprintf(why, why_size, "time: %s duration \"%.80s\"", wrong, text);
	if (wrong != NULL)
		return -1;
	*ns = (int64_t)(negative ? UINT64_C(0) - sum : sum);
	return 0;
}

int conf_scalar_bytes(const char *text, uint64_t *bytes)
{
	static const struct {
		const char *suffix;
		uint64_t unit;
	} sizes[] = { { "KiB", KIB }, { "MiB", MIB }, { "GiB", GIB }, { "", 1 } };
	size_t n = strlen(text);

	for (size_t i = 0; i < COUNT_OF(sizes); i++) {
		struct conf_number v;
		char digits[32];
		size_t d = n - MIN(n, strlen(sizes[i].suffix));
		enum conf_type t;

		if (!str_has_suffix(text, sizes[i].suffix))
			continue;
		while (d > 0 && text[d - 1] == ' ')
			d--;
		if (d == 0 || d >= sizeof(digits))
			return -1;
		memcpy(digits, text, d);
		digits[d] = '\0';
		t = conf_scalar_type(digits, &v);
		if ((t != CONF_TYPE_INT && t != CONF_TYPE_FLOAT) || !(v.real >= 0) ||
		    v.real * (double)sizes[i].unit > 9e18)
			return -1;
		/* 1e6 is a whole number of bytes, 1.5 is none. */
		if (t == CONF_TYPE_FLOAT && sizes[i].unit == 1 && v.real > (double)(uint64_t)v.real)
			return -1;
		*bytes = t == CONF_TYPE_INT ? v.magnitude * sizes[i].unit
					    : (uint64_t)(v.real * (double)sizes[i].unit);
		return 0;
	}
	return -1;
}

void conf_scalar_add_duration(struct buf *out, int64_t ns)
{
	static const struct {
		const char *name;
		uint64_t ns;
	} parts[] = { { "h", UINT64_C(3600000000000) },
		      { "m", UINT64_C(60000000000) },
		      { "s", 1000000000 },
		      { "ms", 1000000 },
		      { "us", 1000 },
		      { "ns", 1 } };
	uint64_t v = ns < 0 ? (uint64_t)0 - (uint64_t)ns : (uint64_t)ns;

	if (v == 0)
		buf_add_str(out, "0s");
	else if (ns < 0)
		buf_add_char(out, '-');
	for (size_t i = 0; i < COUNT_OF(parts); i++) {
		if (v >= parts[i].ns)
			buf_printf(out, "%llu%s", (unsigned long long)(v / parts[i].ns),
				   parts[i].name);
		v %= parts[i].ns;
	}
}

void conf_scalar_add_bytes(struct buf *out, uint64_t bytes)
{
	static const struct {
		const char *name;
		uint64_t unit;
	} sizes[] = { { "GiB", GIB }, { "MiB", MIB }, { "KiB", KIB } };

	for (size_t i = 0; i < COUNT_OF(sizes); i++) {
		if (bytes > 0 && bytes % sizes[i].unit == 0) {
			buf_printf(out, "%llu%s", (unsigned long long)(bytes / sizes[i].unit),
				   sizes[i].name);
			return;
		}
	}
	buf_printf(out, "%llu", (unsigned long long)bytes);
}
