/* SPDX-License-Identifier: Apache-2.0
 *
 * histogram.h - durations in buckets: explicit bounds, or exponential buckets that scale
 * themselves.
 *
 * Counts are doubles (adjusted counts). Pure data structures; the caller has the lock.
 * SPEC: opentelemetry metrics data model, Histogram and ExponentialHistogram (base 2^(2^-scale),
 * bucket i is (base^i, base^(i+1)]; the scale begins at 20, as SDKs have it).
 */
#ifndef CONNECTORS_SPANMETRICS_HISTOGRAM_H
#define CONNECTORS_SPANMETRICS_HISTOGRAM_H

#include "base/base.h"

enum { HISTOGRAM_MAX_BOUNDS = 256, EXPONENTIAL_MAX_SCALE = 20 };

/* The bucket of a value: bucket i holds values up to and with bounds[i], the last one the rest. */
static inline uint32_t histogram_bucket(const uint64_t *bounds_ns, uint32_t n, uint64_t value_ns)
{
	uint32_t i = 0;

	/* No branch to mispredict; 16 bounds take some nanoseconds. */
	for (uint32_t b = 0; b < n; b++)
		i += bounds_ns[b] < value_ns;
	return i;
}

struct exponential {
	double zero_count;
	int32_t scale;
	int32_t offset; /* bucket number of counts[0] */
	uint32_t n;     /* buckets in use; 0: no value above zero yet */
	uint32_t cap;   /* of counts */
	uint32_t max_size;
	double *counts;
};

/* max_size >= 2. Returns the memory it takes. */
struct exponential *exponential_new(uint32_t max_size);
void exponential_free(struct exponential *e);
/* Bytes it has now. */
size_t exponential_bytes(const struct exponential *e);
/* Count a value >= 0 with this weight; scales down as far as it must. */
void exponential_observe(struct exponential *e, double value, double weight);
/* Bucket number of a value > 0 at a scale. */
int32_t exponential_index(double value, int32_t scale);
/* Forget counts (delta); the scale starts anew. */
void exponential_reset(struct exponential *e);

/* Whole numbers to send for these counts, such that every running total is the rounded running
 * total: they add up to round(sum), and what le="..." shows never falls. */
void histogram_round(const double *counts, uint32_t n, uint64_t *out);
/* The same of one number and then the counts: out has n + 1. */
void histogram_round_from(double first, const double *counts, uint32_t n, uint64_t *out);

#endif
