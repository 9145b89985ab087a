/* SPDX-License-Identifier: Apache-2.0
 *
 * otlp_metrics.h - OTLP metrics read point by point without a tree, and written point by point
 * without one.
 *
 *   struct metrics_reader r;                        |  struct metrics_writer w;
 *   struct metric_point p;                          |
 *                                                   |  metrics_writer_init(&w, &out);
 *   metrics_reader_items(&r, &b->tables);           |  metrics_write_resource(&w, attributes, url);
 *   while ((n = metrics_next(&r, &p)) > 0)          |  metrics_write_scope(&w, name, version);
 *       ... r.resource, r.scope, r.metric, p ...    |  metrics_write_metric(&w, &metric);
 *                                                   |  metrics_point_begin(&w); ...; _end(&w);
 *                                                   |  metrics_writer_finish(&w);
 *
 * Nothing is allocated and nothing copied: what the reader gives are slices of the message, valid
 * as long as it is. Lists (buckets, bounds, quantiles, exemplars, attributes) are walked by
 * iterators, which see packed and unpacked fields alike. A point that makes no sense is told as one
 * (metric_point.fault), so that whoever reads can drop and count it; it never ends the walk.
 *
 * HOSTILE INPUT: a batch of metrics was checked only as far as its Metrics are items
 * (docs/decisions/051). Everything below is checked here, except text: strings may not be UTF-8.
 * Values of attributes may be nested as deep as they like; any_value_text cuts them.
 * SPEC: opentelemetry-proto metrics.proto 1.9, docs/formats/otlp-metrics.md. Pure, any thread; a
 * reader and a writer belong to one thread at a time.
 */
#ifndef WIRE_OTLP_METRICS_H
#define WIRE_OTLP_METRICS_H

#include "base/base.h"
#include "base/buf.h"
#include "wire/any_value.h"
#include "wire/span.h"

/* The field of Metric that holds the data. */
enum metric_kind {
	METRIC_NONE = 0,
	METRIC_GAUGE = 5,
	METRIC_SUM = 7,
	METRIC_HISTOGRAM = 9,
	METRIC_EXPONENTIAL_HISTOGRAM = 10,
	METRIC_SUMMARY = 11,
};

enum metric_temporality { TEMPORALITY_UNSPECIFIED, TEMPORALITY_DELTA, TEMPORALITY_CUMULATIVE };

/* metric_point.flags: the series has ended, or has a gap; values mean nothing. */
enum { METRIC_NO_RECORDED_VALUE = 1 };

/* A histogram, or a summary, with more entries is faulty. SDKs write 160 at most; Prometheus has
 * no use for thousands. */
enum { METRIC_MAX_BUCKETS = 16384 };

/* Scales of exponential histograms: others are faulty (base 2^(2^-scale) leaves double). */
enum { METRIC_MIN_SCALE = -11, METRIC_MAX_SCALE = 20 };

struct metric_resource {
	struct bytes message; /* Resource: its attributes are fields 1 (metric_attributes) */
	struct bytes schema_url;
	uint32_t no; /* 0, 1, ...: changes with every ResourceMetrics walked */
};

struct metric_scope {
	struct bytes message; /* InstrumentationScope: its attributes are fields 3 */
	struct bytes name, version, schema_url;
	uint32_t no; /* over the whole walk, not within the resource */
};

struct metric {
	struct bytes name, description, unit;
	enum metric_kind kind; /* METRIC_NONE: no data, so no points */
	uint8_t temporality;   /* as sent: enum metric_temporality, or a number above */
	bool is_monotonic;     /* of a METRIC_SUM */
	uint32_t no;           /* over the whole walk */
	struct bytes data;     /* the message from its first data field on */
};

/* Where the points of a metric go on: struct metric_points at = { m.data, BYTES_EMPTY }. A kind
 * may come in several pieces; of several kinds the last counts. */
struct metric_points {
	struct bytes fields, points;
};

/* Numbers on the wire, in order. `left` is how many there are. */
struct metric_list {
	struct bytes run, rest; /* what is left of the packed field at hand; what lies behind it */
	uint32_t left;
	uint8_t number, wire; /* enum pb_wire of an element */
};

struct metric_buckets {
	int32_t offset;
	struct metric_list counts; /* of metric_list_next_u64 */
};

/* A number: a point's or an exemplar's value. */
struct metric_number {
	bool is_int;
	union {
		int64_t i;
		double d;
	};
};

/* What each kind has: number: GAUGE, SUM. count, sum: HISTOGRAM, EXPONENTIAL_HISTOGRAM, SUMMARY.
 * The rest of a kind is zero. */
struct metric_point {
	struct bytes message; /* the data point */
	const char *fault;    /* NULL, or why it means nothing: "bucket counts do not ..." */
	uint64_t start_ns;    /* 0: unknown */
	uint64_t time_ns;     /* 0: unknown */
	uint32_t flags;       /* METRIC_NO_RECORDED_VALUE */
	bool has_value;       /* GAUGE, SUM: one of as_int, as_double was there */
	bool has_sum, has_min, has_max;
	uint8_t attribute_field, exemplar_field, quantile_field; /* 0: the kind has none */
	uint32_t n_exemplars;
	struct metric_number number;
	uint64_t count;
	double sum, min, max;
	/* HISTOGRAM. Sound: both empty, or one count more than bounds and bounds ascending. */
	struct metric_list counts; /* metric_list_next_u64 */
	struct metric_list bounds; /* metric_list_next_double */
	/* EXPONENTIAL_HISTOGRAM. Bucket i of positive: (base^(offset+i), base^(offset+i+1)], base
	 * = 2^(2^-scale). */
	int32_t scale;
	uint64_t zero_count;
	double zero_threshold;
	struct metric_buckets positive, negative;
};

struct metric_exemplar {
	struct bytes message; /* its filtered attributes are fields METRIC_EXEMPLAR_ATTRIBUTES */
	uint64_t time_ns;     /* 0: unknown */
	bool has_value;
	struct metric_number number;
	struct bytes trace_id; /* 16 bytes, else empty */
	struct bytes span_id;  /* 8 bytes, else empty */
};

enum {
	METRIC_RESOURCE_ATTRIBUTES = 1,
	METRIC_SCOPE_ATTRIBUTES = 3,
	METRIC_EXEMPLAR_ATTRIBUTES = 7
};

static inline double metric_number_double(const struct metric_number *n)
{
	return n->is_int ? (double)n->i : n->d;
}

/* ---- the walk ---- */

/* Members below the line are the reader's. */
struct metrics_reader {
	struct metric_resource resource;
	struct metric_scope scope;
	struct metric metric;
	uint32_t item; /* of metrics_reader_items: the index into tables->spans of metric */
	/* ---- */
	const struct span_tables *tables; /* NULL: of a request */
	struct bytes request, scopes, metrics;
	struct metric_points points;
	uint32_t next_item, resource_row, scope_row;
};

/* Walk the items of a batch of metrics (b->tables), in their order. `tables` must outlive the
 * walk. A batch joined of several requests may have equal resources side by side. */
void metrics_reader_items(struct metrics_reader *r, const struct span_tables *tables);
/* Walk an ExportMetricsServiceRequest that nobody looked at yet. */
void metrics_reader_request(struct metrics_reader *r, struct bytes request);
/* The next data point: 1; 0 at the end; -1 when the envelopes of a request are damaged (of items:
 * when one is, which a batch never has). Metrics without points, and resources and scopes without
 * metrics, are passed over. r->resource, r->scope and r->metric say where the point stands. */
int metrics_next(struct metrics_reader *r, struct metric_point *p);

/* One Metric message alone: 0, or -1 damaged. Sets all but `no`. */
int metric_read(struct bytes message, struct metric *m);
/* The next point of it: 1, 0, -1. */
int metric_next_point(const struct metric *m, struct metric_points *at, struct metric_point *p);

/* ---- lists: each gives the next one and true, or false at the end ---- */

/* *l is a copy of the point's list. */
bool metric_list_next_u64(struct metric_list *l, uint64_t *v);
bool metric_list_next_double(struct metric_list *l, double *v);

/* Attributes of a message: struct metric_attributes it = { p.message, p.attribute_field }. A key
 * may come twice. A point with a damaged one is faulty; of a resource or a scope damage reads as
 * empty. */
struct metric_attributes {
	struct bytes rest;
	uint32_t number;
};
bool metric_attribute_next(struct metric_attributes *it, struct bytes *key,
			   struct any_value *value);

/* Exemplars of a point: *it begins as p->message. Any number; those with damage are passed over. */
bool metric_exemplar_next(const struct metric_point *p, struct bytes *it,
			  struct metric_exemplar *x);
/* Quantiles (0..1) of a SUMMARY point, with their values; *it begins as p->message. */
bool metric_quantile_next(const struct metric_point *p, struct bytes *it, double *quantile,
			  double *value);

/* ---- writing ---- */

/* Appends to *out, which the caller owns and may cap: after the cap was passed (out->overflow)
 * every call is a no-op. out->n tells the size so far, less a few bytes per open level. Nothing is
 * allocated but what *out grows by: give it room once and reuse it. */
struct metrics_writer {
	struct buf *out;
	uint32_t n_points; /* ended so far */
	enum metric_kind kind;
	/* Field numbers in the point at hand, for otlp_attr_*(w.out, w.attribute_field, ...). */
	uint8_t attribute_field, exemplar_field;
	/* ---- where the lengths of the open messages stand; 0: not open */
	size_t resource, scope, metric, data, point;
};

void metrics_writer_init(struct metrics_writer *w, struct buf *out);
/* Each ends what is open of its level and below, and begins a new one. */
/* attributes: a run of KeyValue fields of any one-byte tag (a Resource message, or one of ours). */
void metrics_write_resource(struct metrics_writer *w, struct bytes attributes,
			    struct bytes schema_url);
void metrics_write_scope(struct metrics_writer *w, struct bytes name, struct bytes version);
/* name, description, unit, kind, temporality, is_monotonic of *m. */
void metrics_write_metric(struct metrics_writer *w, const struct metric *m);
/* Close all that is open: *out holds one ExportMetricsServiceRequest. The writer may begin anew. */
void metrics_writer_finish(struct metrics_writer *w);

/* One data point: begin, times, attributes, values, exemplars, end; the middle in any order. What
 * was written last of a value counts for no reader: write each once. */
void metrics_point_begin(struct metrics_writer *w);
void metrics_point_times(struct metrics_writer *w, uint64_t start_ns, uint64_t time_ns);
/* Flags that are 0 need not be written. */
void metrics_point_flags(struct metrics_writer *w, uint32_t flags);
/* Attributes as in metrics_write_resource; or one at a time by wire/otlp_attr.h. */
void metrics_point_attributes(struct metrics_writer *w, struct bytes attributes);
/* GAUGE, SUM. */
void metrics_point_int(struct metrics_writer *w, int64_t v);
void metrics_point_double(struct metrics_writer *w, double v);
/* HISTOGRAM, EXPONENTIAL_HISTOGRAM, SUMMARY. */
void metrics_point_count(struct metrics_writer *w, uint64_t count);
void metrics_point_sum(struct metrics_writer *w, double sum);
void metrics_point_min_max(struct metrics_writer *w, double min, double max);
/* HISTOGRAM: n_bounds bounds ascending, n_bounds + 1 counts (none of both when counts is NULL). */
void metrics_point_buckets(struct metrics_writer *w, const double *bounds, const uint64_t *counts,
			   size_t n_bounds);
/* EXPONENTIAL_HISTOGRAM. */
void metrics_point_scale(struct metrics_writer *w, int32_t scale, uint64_t zero_count,
			 double zero_threshold);
void metrics_point_positive(struct metrics_writer *w, int32_t offset, const uint64_t *counts,
			    size_t n);
void metrics_point_negative(struct metrics_writer *w, int32_t offset, const uint64_t *counts,
			    size_t n);
/* SUMMARY. */
void metrics_point_quantile(struct metrics_writer *w, double quantile, double value);
/* time_ns, number, trace_id and span_id (empty: none) of *x, and attributes as above. Not for a
 * SUMMARY. */
void metrics_point_exemplar(struct metrics_writer *w, const struct metric_exemplar *x,
			    struct bytes attributes);
void metrics_point_end(struct metrics_writer *w);

#endif
