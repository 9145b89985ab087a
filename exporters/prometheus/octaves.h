/* SPDX-License-Identifier: Apache-2.0
 *
 * octaves.h - counts of an exponential histogram by powers of two, so that a text page can show it.
 *
 *   octave i counts what lies in (2^i, 2^(i+1)]
 *
 * DESIGN: a text page has only classic buckets, and those must have the same bounds from scrape to
 * scrape and from series to series, or rate() and sum by (le) say nonsense; the buckets of the
 * histogram itself double in width whenever its range grows. Every scale from 0 up merges into the
 * powers of two exactly, so what the page shows is exact, only coarser. (Alternative: +Inf, sum and
 * count alone, as the Collector's page; then there is no quantile.)
 * LIMITS: OCTAVES_MAX of them; what lies lower is counted in the lowest one.
 */
#ifndef EXPORTERS_PROMETHEUS_OCTAVES_H
#define EXPORTERS_PROMETHEUS_OCTAVES_H

#include "base/base.h"
#include "wire/otlp_metrics.h"

enum { OCTAVES_MAX = 64, OCTAVE_LOWEST = -1074, OCTAVE_HIGHEST = 1023 };

struct octaves {
	int32_t lo; /* counts[0] is octave lo; they lie in OCTAVE_LOWEST..OCTAVE_HIGHEST */
	uint32_t n;
	uint64_t counts[OCTAVES_MAX];
};

void octaves_add(struct octaves *o, int32_t octave, uint64_t count);
void octaves_add_all(struct octaves *o, const struct octaves *more);
/* The buckets of one sign of a sound point. */
void octaves_add_buckets(struct octaves *o, const struct metric_buckets *b, int32_t scale);
/* The octave of a value, or of the magnitude of one; v > 0. */
int32_t octave_of(double v);

#endif
