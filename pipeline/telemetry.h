/* SPDX-License-Identifier: Apache-2.0
 *
 * telemetry.h - what the process says of itself: counters per component, and the page on :8888.
 *
 * Names are the Collector's where it has one (otelcol_receiver_accepted_spans ...), ours start with
 * spanmill_. A metric is one row of a table: name, kind, help. Counters are atomics that any thread
 * adds to; the page is written from them.
 *
 * SPEC: Prometheus text format 0.0.4.
 */
#ifndef PIPELINE_TELEMETRY_H
#define PIPELINE_TELEMETRY_H

#include "base/buf.h"
#include "pipeline/component.h"

#include <stdatomic.h>

enum { MAX_TRANSPORTS = 8 };

/* Of one transport and signal of a receiver. Spans, log records or data points; requests for
 * `damaged`. */
struct transport_counters {
	enum otlp_signal signal;
	const char *transport; /* "grpc", "http", "http_v2_json", ...; NULL: slot not used */
	_Atomic uint64_t accepted, refused;
	_Atomic uint64_t rejected; /* spans refused one by one (partial_success) */
	_Atomic uint64_t damaged;  /* requests that could not be decoded */
};

struct component_counters {
	_Atomic uint64_t incoming, outgoing; /* through consume and component_emit */
	struct transport_counters transports[MAX_TRANSPORTS]; /* receivers */
	_Atomic uint64_t sent, send_failed, enqueue_failed;   /* exporters */
	_Atomic int64_t queue_size, queue_capacity; /* exporters with a queue; capacity 0: none */
	_Atomic int64_t in_flight; /* requests being sent, or between two attempts */
};

enum { HISTOGRAM_BOUNDS_MAX = 24 };

/* Set bounds (ascending, borrowed) and n_bounds before use; the rest starts at zero. */
struct telemetry_histogram {
	const uint64_t *bounds;
	size_t n_bounds; /* at most HISTOGRAM_BOUNDS_MAX */
	_Atomic uint64_t counts[HISTOGRAM_BOUNDS_MAX + 1];
	_Atomic uint64_t sum;
};

/* Count one value. Any thread. */
void telemetry_observe(struct telemetry_histogram *h, uint64_t v);

/* The slot of a transport, made on first use. Call in start. */
struct transport_counters *telemetry_transport(struct component *c, const char *transport);
struct transport_counters *telemetry_transport_of(struct component *c, const char *transport,
						  enum otlp_signal signal);

struct service;
/* Append the whole page. Any thread. */
void telemetry_write(struct service *s, struct buf *out);
/* `# HELP` and `# TYPE` of one metric, for component_type.metrics callbacks. */
void telemetry_head(struct buf *out, const char *name, const char *kind, const char *help);
/* The samples of a component's histogram, after telemetry_head with kind "histogram". */
void telemetry_histogram(struct buf *out, const char *name, const struct telemetry_histogram *h,
			 const struct component *c);
/* Text as it stands between the quotes of a label value. */
void telemetry_label_value(struct buf *out, const char *v);
/* The families of a segment log: spanmill_log_lost_records, spanmill_log_quarantined_files. */
void telemetry_segment_log(struct buf *out, const struct component *c, uint64_t lost,
			   uint64_t quarantined);
/* One sample: name{label="value",...} v. Labels are name/value pairs that end with NULL. */
void telemetry_sample(struct buf *out, const char *name, double v, ...);

#endif
