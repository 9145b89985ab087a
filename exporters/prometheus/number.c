/* SPDX-License-Identifier: Apache-2.0
 *
 * number.c - see number.h.
 */
#include "exporters/prometheus/number.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { DIGITS_MAX = 17, DIGITS_SURE = 15, INTEGER_MAX_EXPONENT = 15 };

void number_put_u64(struct buf *out, uint64_t v)
{
	char text[20];
	size_t at = sizeof(text);

	do {
		text[--at] = (char)('0' + v % 10);
		v /= 10;
	} while (v > 0);
	buf_add(out, text + at, sizeof(text) - at);
}

static void put_i64(struct buf *out, int64_t v)
{
	if (v < 0)
		buf_add_char(out, '-');
	number_put_u64(out, v < 0 ? 0 - (uint64_t)v : (uint64_t)v);
}

/* NaN and the infinities; NULL for a number. */
static const char *special(double v)
{
	if (isnan(v))
		return "NaN";
	return isinf(v) ? (v > 0 ? "+Inf" : "-Inf") : NULL;
}

void number_put(struct buf *out, double v)
{
	char text[NUMBER_BOUND_MAX];
	const char *word = special(v);

	if (word != NULL) {
		buf_add_str(out, word);
		return;
	}
	if (fabs(v) < 1e15 && v == (double)(int64_t)v) {
		put_i64(out, (int64_t)v);
		return;
	}
	for (int digits = DIGITS_SURE; digits <= DIGITS_MAX; digits++) {
		snprintf(text, sizeof(text), "%.*g", digits, v);
		if (digits == DIGITS_MAX || strtod(text, NULL) == v)
			break;
	}
	buf_add_str(out, text);
}

void number_put_metric(struct buf *out, const struct metric_number *n)
{
	if (n->is_int)
		put_i64(out, n->i);
	else
		number_put(out, n->d);
}

/* "d.ddde+XX" with the fewest digits that read back as v. */
static void shortest(double v, char text[NUMBER_BOUND_MAX])
{
	for (int digits = 1; digits <= DIGITS_MAX; digits++) {
		snprintf(text, NUMBER_BOUND_MAX, "%.*e", digits - 1, v);
		if (strtod(text, NULL) == v)
			return;
	}
}

size_t number_bound(double v, bool open, char out[NUMBER_BOUND_MAX])
{
	const char *word = special(v);
	char text[NUMBER_BOUND_MAX];
	long exponent, digits;

	if (word != NULL) {
		snprintf(out, NUMBER_BOUND_MAX, "%s", word);
		return strlen(out);
	}
	shortest(v, text);
	exponent = strtol(strchr(text, 'e') + 1, NULL, 10);
	digits = (long)strcspn(text + (text[0] == '-'), "e");
	digits -= digits > 1; /* the point */
	if (exponent < -4 || exponent >= 6)
		snprintf(out, NUMBER_BOUND_MAX, "%s", text);
	else
		snprintf(out, NUMBER_BOUND_MAX, "%.*f", (int)MAX(digits - 1 - exponent, 0L), v);
	if (open && strpbrk(out, ".e") == NULL)
		strncat(out, ".0", NUMBER_BOUND_MAX - strlen(out) - 1);
	return strlen(out);
}

void number_put_seconds(struct buf *out, uint64_t ms)
{
	number_put_u64(out, ms / 1000);
	if (ms % 1000 != 0) {
		const char part[4] = { '.', (char)('0' + ms / 100 % 10), (char)('0' + ms / 10 % 10),
				       (char)('0' + ms % 10) };

		buf_add(out, part, sizeof(part));
	}
}
