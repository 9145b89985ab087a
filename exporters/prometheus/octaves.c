/* SPDX-License-Identifier: Apache-2.0
 *
 * octaves.c - see octaves.h.
 */
#include "exporters/prometheus/octaves.h"

#include <math.h>

/* Octaves below `lo` go into it. */
static void raise_lowest(struct octaves *o, int32_t lo)
{
	uint64_t sum = 0;
	uint32_t gone = (uint32_t)MIN((int64_t)lo - o->lo, (int64_t)o->n);

	for (uint32_t i = 0; i < gone; i++)
		sum += o->counts[i];
	memmove(o->counts, o->counts + gone, (o->n - gone) * sizeof(o->counts[0]));
	o->n -= gone;
	o->lo = lo;
	if (o->n == 0)
		o->counts[o->n++] = 0;
	o->counts[0] += sum;
}

static void lower_lowest(struct octaves *o, int32_t lo)
{
	uint32_t more = (uint32_t)(o->lo - lo);

	memmove(o->counts + more, o->counts, o->n * sizeof(o->counts[0]));
	memset(o->counts, 0, more * sizeof(o->counts[0]));
	o->n += more;
	o->lo = lo;
}

void octaves_add(struct octaves *o, int32_t octave, uint64_t count)
{
	int32_t top;

	if (count == 0)
		return;
	octave = MAX(MIN(octave, (int32_t)OCTAVE_HIGHEST), (int32_t)OCTAVE_LOWEST);
	if (o->n == 0) {
		o->lo = octave;
		o->counts[o->n++] = 0;
	}
	top = MAX(octave, o->lo + (int32_t)o->n - 1);
	if (top - o->lo >= OCTAVES_MAX)
		raise_lowest(o, top - OCTAVES_MAX + 1);
	octave = MAX(octave, top - OCTAVES_MAX + 1);
	if (octave < o->lo)
		lower_lowest(o, octave);
	for (; o->lo + (int32_t)o->n <= octave; o->n++)
		o->counts[o->n] = 0;
	o->counts[octave - o->lo] += count;
}

void octaves_add_all(struct octaves *o, const struct octaves *more)
{
	for (uint32_t i = more->n; i-- > 0;)
		octaves_add(o, more->lo + (int32_t)i, more->counts[i]);
}

/* The octave that holds the upper end of bucket `index`. */
static int32_t octave_of_bucket(int64_t index, int32_t scale)
{
	int64_t octave = scale >= 0 ? index >> scale : (index + 1) * (INT64_C(1) << -scale) - 1;

	return (int32_t)MAX(MIN(octave, (int64_t)OCTAVE_HIGHEST), (int64_t)OCTAVE_LOWEST);
}

void octaves_add_buckets(struct octaves *o, const struct metric_buckets *b, int32_t scale)
{
	struct metric_list l = b->counts;
	int64_t index = b->offset;
	uint64_t count;

	for (; metric_list_next_u64(&l, &count); index++)
		octaves_add(o, octave_of_bucket(index, scale), count);
}

int32_t octave_of(double v)
{
	int exponent;
	double m = frexp(v, &exponent);

	if (isinf(v))
		return OCTAVE_HIGHEST;
	return m == 0.5 ? exponent - 2 : exponent - 1;
}
