/* SPDX-License-Identifier: Apache-2.0
 *
 * series.h - one series of the store: its labels, its latest value, its exemplars.
 *
 * Cumulative points replace what is there, delta points are added to it; exponential histograms are
 * kept by octaves (octaves.h). OWNERSHIP, THREADS: of the store, under the shard's lock.
 */
#ifndef EXPORTERS_PROMETHEUS_SERIES_H
#define EXPORTERS_PROMETHEUS_SERIES_H

#include "exporters/prometheus/exemplars.h"
#include "exporters/prometheus/family.h"
#include "exporters/prometheus/octaves.h"
#include "wire/otlp_metrics.h"

struct explicit_buckets {
	struct layout *layout;
	uint64_t counts[]; /* layout->n + 1 */
};

struct exponential_buckets {
	uint64_t zero_count;
	double zero_threshold;
	struct octaves positive, negative;
};

struct quantiles {
	uint32_t n;
	double v[][2]; /* quantile, value */
};

/* Of a histogram or a summary. At most one of the pointers is set. */
struct distribution {
	uint64_t count;
	double sum;
	bool has_sum;
	struct explicit_buckets *buckets;
	struct exponential_buckets *exponential;
	struct quantiles *quantiles;
};

struct series {
	struct family *family;
	uint64_t hash;
	uint64_t seen_ns; /* clock_mono_ns of the last point */
	uint64_t time_ns; /* of the last point; 0: unknown */
	size_t charged;
	uint32_t index; /* in family->members[shard] */
	uint32_t n_labels, n_escaped;
	bool is_gone; /* the sender said that it ended */
	struct metric_number number;
	struct distribution *distribution; /* NULL: a number */
	struct exemplars *exemplars;       /* NULL: none */
	char text[];                       /* labels, then escaped labels where they differ */
};

/* A point on its way into the store. */
struct series_point {
	struct family *family;
	uint64_t hash;
	struct bytes labels;  /* a="b",c="d" */
	struct bytes escaped; /* with legal names only; empty: the same */
	struct metric_point p;
	bool is_delta;
	const double *bounds; /* METRIC_HISTOGRAM */
	const uint64_t *counts;
	uint32_t n_bounds;
	enum metric_kind kind;
	const struct exemplar_offer *exemplars;
	uint32_t n_exemplars;
};

static inline struct bytes series_labels(const struct series *s)
{
	return (struct bytes){ (const uint8_t *)s->text, s->n_labels };
}

static inline struct bytes series_escaped(const struct series *s)
{
	return s->n_escaped > 0
		       ? (struct bytes){ (const uint8_t *)s->text + s->n_labels, s->n_escaped }
		       : series_labels(s);
}

struct series *series_new(const struct series_point *at);
void series_free(struct series *s);
/* What it holds. */
size_t series_bytes(const struct series *s);
/* What it would hold after its first point, so that it can be refused before it is made. */
size_t series_bytes_of(const struct series_point *at);
/* 0; -1: the point is older than what is there, and changes nothing. */
int series_apply(struct series *s, const struct series_point *at, uint64_t now_ns);

#endif
