/* SPDX-License-Identifier: Apache-2.0
 *
 * families.h - which metrics a spanmetrics connector makes of spans, what they are called and what
 * their labels are called.
 *
 *                 names: otel                            names: tempo
 *   calls         traces.span.metrics.calls              traces_spanmetrics_calls
 *   duration      traces.span.metrics.duration (ms, s)   traces_spanmetrics_latency
 *   events        traces.span.metrics.events             traces_spanmetrics_events
 *   size          -                                      traces_spanmetrics_size
 *   hosts         traces.host.calls, traces.host.latency (s), whatever `names` says
 *
 * SPEC: the Collector's spanmetrics connector; Tempo's metrics generator (span-metrics).
 */
#ifndef CONNECTORS_SPANMETRICS_FAMILIES_H
#define CONNECTORS_SPANMETRICS_FAMILIES_H

#include "base/arena.h"
#include "base/buf.h"

enum metric_names { NAMES_OTEL, NAMES_TEMPO };

/* Rows of one family have the same numbers and the same kinds of labels. */
enum family {
	FAMILY_SPANS,        /* calls (and size), and duration unless its labels differ */
	FAMILY_DURATION,     /* duration alone, with labels of its own */
	FAMILY_EVENTS,       /* span events */
	FAMILY_HOST_CALLS,   /* per machine */
	FAMILY_HOST_LATENCY, /* per machine: count and sum */
	FAMILY_MAX,
};

/* One metric of the output. */
enum span_metric {
	SPAN_METRIC_CALLS,
	SPAN_METRIC_DURATION,
	SPAN_METRIC_SIZE,
	SPAN_METRIC_EVENTS,
	SPAN_METRIC_HOST_CALLS,
	SPAN_METRIC_HOST_LATENCY,
	SPAN_METRIC_MAX,
};

/* The labels that every span has. */
enum label { LABEL_SERVICE, LABEL_NAME, LABEL_KIND, LABEL_STATUS, LABEL_MAX };

struct families {
	struct family_metric {
		const char *name; /* OTLP's; NULL: not made */
		const char *unit;
	} metrics[SPAN_METRIC_MAX];
	const char *labels[LABEL_MAX]; /* NULL: excluded */
	double ns_per_unit;            /* of durations, except those of hosts (seconds) */
};

struct families_options {
	enum metric_names names;
	const char *namespace; /* names: otel */
	bool is_ms, has_histogram, has_events, has_hosts;
	const char *const *excluded; /* "span.kind", ... */
	size_t n_excluded;
};

/* Names that are put together live in `arena`; the others for ever. */
void families_init(struct families *f, const struct families_options *o, struct arena *arena);

/* "SPAN_KIND_SERVER", "STATUS_CODE_ERROR"; of numbers nobody defined the unspecified one. */
const char *families_kind_text(uint8_t kind);
const char *families_status_text(uint8_t status);

#endif
