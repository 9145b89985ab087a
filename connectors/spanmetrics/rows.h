/* SPDX-License-Identifier: Apache-2.0
 *
 * rows.h - a run of rows of one resource, copied under the locks of their shards, and written as
 * OTLP points without them.
 *
 *   resource -> shard 0..15 -> rows     rows_copy: ROWS_AT_ONCE per hold of a lock
 *   copies   -> calls, duration, size, events: rows_write
 *
 * So all metrics of a row are of one moment (calls is the histogram's count), and spans wait for a
 * copy of some microseconds, never for the writing. Delta: what is copied is taken out of the row.
 * THREADS: the flush alone, which is the only one that takes rows away.
 */
#ifndef CONNECTORS_SPANMETRICS_ROWS_H
#define CONNECTORS_SPANMETRICS_ROWS_H

#include "connectors/spanmetrics/connector.h"
#include "connectors/spanmetrics/slots.h"

enum { ROWS_AT_ONCE = 128, ROWS_MAX = 1024, ROWS_MAX_BYTES = 384 * 1024 };

struct row_copy {
	const struct series *row; /* its attributes do not change */
	uint64_t start_ns;
	uint64_t count, size_bytes;
	double sum; /* in the unit of its family */
	/* Into rows.counts, rows.exemplars. */
	uint32_t counts, n_counts, exemplars, n_exemplars;
	bool has_best;
	struct exemplar best; /* of the counter */
	bool is_exponential;
	int32_t scale, offset;
	uint64_t zero_count;
};

struct rows {
	struct component *c;
	const struct spanmetrics_config *conf;
	struct spanmetrics_state *st;
	uint64_t now_ns, last_flush_ns;
	/* ---- */
	struct row_copy *v;
	size_t n, cap;
	uint64_t *counts;
	size_t n_counts, counts_cap;
	struct exemplar *exemplars;
	size_t n_exemplars, exemplars_cap;
	size_t n_bytes; /* estimate of what they will be as points */
	/* Where the walk of the resource goes on. */
	struct span_resource *resource;
	unsigned shard;
	struct series **at;
};

/* Begin with a resource. */
void rows_begin(struct rows *r, struct span_resource *resource);
/* Copy the next run of rows; those that expired leave the table. False: there are no more. */
bool rows_copy(struct rows *r);
/* Write what was copied: a resource with its metrics. */
void rows_write(struct rows *r, struct metrics_writer *w);
void rows_fini(struct rows *r);

#endif
