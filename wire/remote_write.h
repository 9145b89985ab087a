/* SPDX-License-Identifier: Apache-2.0
 *
 * remote_write.h - OTLP metrics as a Prometheus remote-write request (prometheus.WriteRequest).
 *
 *   points of a batch --> [TimeSeries: labels sorted, one sample, exemplars] ... target_info
 *                          '- out->n > max_bytes: stop; the next request goes on at *at
 *
 * | point | series |
 * |---|---|
 * | gauge, sum | name, name_total |
 * | histogram | name_count, name_sum, name_bucket{le} |
 * | exponential histogram | name, a native histogram of schema -4..8 (finer ones are merged) |
 * | summary | name_count, name_sum, name{quantile} |
 *
 * A series may stand in a request several times, in the order of its points. Exemplars go to the
 * bucket whose bound is the smallest that holds them, oldest first. Delta sums and histograms
 * cannot be told: they are left out and counted. A point without a recorded value is a staleness
 * marker.
 *
 * OWNERSHIP, THREADS: an encoder belongs to one thread and keeps its memory; it borrows its options
 * and, during a call, the batch.
 * LIMITS: requests pass max_bytes by one point; one that alone would be twice that is dropped.
 * SPEC: Prometheus Remote-Write 1.0; docs/formats/prometheus.md.
 */
#ifndef WIRE_REMOTE_WRITE_H
#define WIRE_REMOTE_WRITE_H

#include "base/map.h"
#include "wire/otlp_metrics.h"
#include "wire/prometheus_labels.h"

struct remote_write_external {
	struct bytes name, value;
};

struct remote_write_options {
	struct prometheus_naming naming;
	const struct remote_write_external *external; /* labels of every series */
	size_t n_external;
	bool target_info;     /* one series per job and instance with the resource's attributes */
	bool metadata;        /* type, help and unit of each metric */
	bool resource_labels; /* the resource's attributes on every series */
	bool scope_labels;    /* otel_scope_* */
	size_t max_bytes;     /* of a request */
	uint32_t max_points;  /* likewise; 0: no limit */
};

/* Why a point is not in any request. */
enum remote_write_drop {
	REMOTE_WRITE_DELTA,
	REMOTE_WRITE_FAULTY,
	REMOTE_WRITE_NAMELESS,  /* nothing is left of the metric's name */
	REMOTE_WRITE_SCALE,     /* an exponential histogram coarser than schema -4 */
	REMOTE_WRITE_TOO_LARGE, /* one point, one request */
	REMOTE_WRITE_DROPS,
};

/* For a metric's label and a message: "delta". */
const char *remote_write_drop_name(enum remote_write_drop why);

struct remote_write_bound;
struct remote_write_exemplar;
struct remote_write_target;

struct remote_write {
	struct remote_write_options o;
	/* Of the call at hand. */
	uint32_t n_points; /* encoded */
	uint32_t dropped[REMOTE_WRITE_DROPS];
	char first_dropped[160]; /* a metric's name and what is wrong */
	/* ---- the encoder's ---- */
	struct prometheus_labels labels, exemplar_labels;
	struct arena of_resource, of_metric;
	struct buf tail, scratch;
	struct bytes name, name_bucket, name_count, name_sum; /* of the metric */
	enum prometheus_kind kind;
	struct prometheus_target target;
	struct remote_write_exemplar *exemplars;
	uint32_t n_exemplars, exemplars_room;
	struct remote_write_bound *bounds;
	uint32_t n_bounds, bounds_room;
	struct map targets; /* of job and instance, to struct remote_write_target */
	struct remote_write_target **touched;
	uint32_t n_touched, touched_room;
	struct map described; /* metrics whose metadata is in this request */
};

/* o is copied, what it points to borrowed. */
void remote_write_init(struct remote_write *w, const struct remote_write_options *o);
void remote_write_fini(struct remote_write *w);

/* Append a request of the points of a batch from the *at-th on (0, 1, ...), and set *at to the
 * first that did not go in. 1: more follow; 0: that was the last one. Nothing is appended when no
 * point made a series. now_ms: the time of points that have none. */
int remote_write_encode(struct remote_write *w, const struct span_tables *tables, uint64_t *at,
			int64_t now_ms, struct buf *out);
/* The request of the last call was taken. target_info is not sent again with an older time than it
 * was taken with: a receiver refuses a whole request for one such sample. */
void remote_write_taken(struct remote_write *w);

#endif
