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
enum metric {
	METRIC_CALLS,
	METRIC_DURATION,
	METRIC_SIZE,
	METRIC_EVENTS,
	METRIC_HOST_CALLS,
	METRIC_HOST_LATENCY,
	METRIC_MAX,
};

/* The labels that every span has. */
enum label { LABEL_SERVICE, LABEL_NAME, LABEL_KIND, LABEL_STATUS, LABEL_MAX };

struct families {
	const char *metric_names[METRIC_MAX]; /* NULL: not made */
	const char *units[METRIC_MAX];
	const char *labels[LABEL_MAX]; /* NULL: excluded */
	double ns_per_unit;            /* of durations */
};

/* "SPAN_KIND_SERVER", "STATUS_CODE_ERROR"; of numbers nobody defined the unspecified one. */
const char *families_kind_text(uint8_t kind);
const char *families_status_text(uint8_t status);

#endif
