/* SPDX-License-Identifier: Apache-2.0
 *
 * histogram.c - see histogram.h.
 */
#include "connectors/spanmetrics/histogram.h"

#include "base/mem.h"

#include <math.h>

struct exponential *exponential_new(uint32_t max_size)
{
	struct exponential *e = xcalloc(1, sizeof(*e));

	e->max_size = MAX(max_size, 2u);
	e->scale = EXPONENTIAL_MAX_SCALE;
	return e;
}

void exponential_free(struct exponential *e)
{
	if (e == NULL)
		return;
	free(e->counts);
	free(e);
}

size_t exponential_bytes(const struct exponential *e)
{
	return sizeof(*e) + e->cap * sizeof(*e->counts);
}

int32_t exponential_index(double value, int32_t scale)
{
	int exponent;
	double fraction = frexp(value, &exponent); /* value = fraction * 2^exponent, 0.5 <= f < 1 */
	double steps;
	int32_t low, i;

	/* A power of two is the upper bound of its bucket, exactly. */
	if (fraction == 0.5)
		return scale >= 0 ? (exponent - 1) * (1 << scale) - 1 : (exponent - 2) >> -scale;
	if (scale <= 0)
		return (exponent - 1) >> -scale;
	steps = ldexp(1.0, scale);
	low = (int32_t)((exponent - 1) * steps);
	i = low + (int32_t)floor(log2(fraction * 2) * steps);
	/* log2 may round up to the next power of two. */
	return MIN(i, low + (int32_t)steps - 1);
}

/* Buckets numbered low..high at a scale that is `by` lower than now. */
static bool fits(int64_t low, int64_t high, int by, uint32_t max_size)
{
	return (high >> by) - (low >> by) < max_size;
}

/* Each bucket takes what 2^by had. */
static void scale_down(struct exponential *e, int by)
{
	int32_t offset = e->offset >> by;

	for (uint32_t i = 0; i < e->n; i++) {
		uint32_t to = (uint32_t)(((e->offset + (int32_t)i) >> by) - offset);
		double v = e->counts[i];

		e->counts[i] = 0;
		e->counts[to] += v;
	}
	if (e->n > 0)
		e->n = (uint32_t)(((e->offset + (int32_t)e->n - 1) >> by) - offset) + 1;
	e->offset = offset;
	e->scale -= by;
}

/* Make buckets low..high be there; they fit. */
static void widen(struct exponential *e, int32_t low, int32_t high)
{
	uint32_t n = (uint32_t)(high - low) + 1, shift = (uint32_t)(e->offset - low);

	if (n > e->cap) {
		e->cap = MIN(MAX(n, 2 * e->cap), e->max_size);
		e->counts = xrealloc(e->counts, e->cap * sizeof(*e->counts));
	}
	if (shift > 0)
		memmove(e->counts + shift, e->counts, e->n * sizeof(*e->counts));
	for (uint32_t i = 0; i < shift; i++)
		e->counts[i] = 0;
	for (uint32_t i = shift + e->n; i < n; i++)
		e->counts[i] = 0;
	e->offset = low;
	e->n = n;
}

void exponential_observe(struct exponential *e, double value, double weight)
{
	int32_t i, low, high;
	int by = 0;

	if (!(value > 0)) {
		e->zero_count += weight;
		return;
	}
	i = exponential_index(value, e->scale);
	low = e->n > 0 ? MIN(i, e->offset) : i;
	high = e->n > 0 ? MAX(i, e->offset + (int32_t)e->n - 1) : i;
	while (!fits(low, high, by, e->max_size))
		by++;
	if (by > 0) {
		scale_down(e, by);
		i >>= by;
		low >>= by;
		high >>= by;
	}
	if (e->n == 0)
		e->offset = i;
	if (e->n == 0 || low < e->offset || high >= e->offset + (int32_t)e->n)
		widen(e, low, high);
	e->counts[i - e->offset] += weight;
}

void exponential_reset(struct exponential *e)
{
	e->zero_count = 0;
	e->n = 0;
	e->offset = 0;
	e->scale = EXPONENTIAL_MAX_SCALE;
}

/* The next of a run: what brings the total sent up to the rounded sum. What was sent already
 * (delta) may leave a bucket just below zero. */
static uint64_t next_rounded(double sum, uint64_t *before)
{
	uint64_t total = sum > 0 ? (uint64_t)llround(sum) : 0, step;

	total = MAX(total, *before);
	step = total - *before;
	*before = total;
	return step;
}

void histogram_round(const double *counts, uint32_t n, uint64_t *out)
{
	uint64_t before = 0;
	double sum = 0;

	for (uint32_t i = 0; i < n; i++)
		out[i] = next_rounded(sum += counts[i], &before);
}

void histogram_round_from(double first, const double *counts, uint32_t n, uint64_t *out)
{
	uint64_t before = 0;
	double sum = first;

	out[0] = next_rounded(sum, &before);
	for (uint32_t i = 0; i < n; i++)
		out[i + 1] = next_rounded(sum += counts[i], &before);
}
