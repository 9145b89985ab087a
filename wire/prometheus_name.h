/* SPDX-License-Identifier: Apache-2.0
 *
 * prometheus_name.h - what an OTLP metric and an attribute are called in Prometheus. Both
 * Prometheus exporters name by this; whole label sets: prometheus_labels.h.
 *
 *	http.server.request.duration, unit s  ->  http_server_request_duration_seconds
 *	http.request.method                   ->  http_request_method
 *
 * THREADS: pure functions, any thread.
 * SPEC: OpenTelemetry "Prometheus and OpenMetrics compatibility"; the Collector's
 * translation_strategy; docs/formats/prometheus.md.
 */
#ifndef WIRE_PROMETHEUS_NAME_H
#define WIRE_PROMETHEUS_NAME_H

#include "base/base.h"
#include "base/buf.h"
#include "wire/otlp_metrics.h"

/* What a metric is in Prometheus' terms. */
enum prometheus_kind {
	PROMETHEUS_UNKNOWN,
	PROMETHEUS_GAUGE,
	PROMETHEUS_COUNTER,   /* a monotonic Sum */
	PROMETHEUS_UP_DOWN,   /* any other Sum: a gauge whose name gets no _ratio */
	PROMETHEUS_HISTOGRAM, /* explicit or exponential */
	PROMETHEUS_SUMMARY,
};

/* The Collector's translation_strategy. */
enum prometheus_strategy {
	PROMETHEUS_UNDERSCORE_SUFFIXES, /* UnderscoreEscapingWithSuffixes */
	PROMETHEUS_UNDERSCORE_PLAIN,    /* UnderscoreEscapingWithoutSuffixes */
	PROMETHEUS_UTF8_SUFFIXES,       /* NoUTF8EscapingWithSuffixes */
	PROMETHEUS_UTF8_PLAIN,          /* NoTranslation */
};

struct prometheus_naming {
	struct bytes prefix; /* the `namespace` option; "" is none */
	bool add_suffixes;   /* of unit and type */
	bool is_utf8;        /* names stay as they are */
};

/* prefix is borrowed. */
struct prometheus_naming prometheus_naming(const char *prefix, enum prometheus_strategy strategy);

/* Append the metric's name, without _bucket and the like. -1: nothing is left of it (`name` is
 * empty, or has not one usable character); out is as it was. */
int prometheus_metric_name(const struct prometheus_naming *n, struct bytes name, struct bytes unit,
			   enum prometheus_kind kind, struct buf *out);
/* Append the unit in words, as UNIT metadata has it ("bytes_per_second"); nothing for a unit that
 * Prometheus has no word for: "", "{packet}", and "1" of anything but a gauge. */
void prometheus_unit_name(struct bytes unit, enum prometheus_kind kind, struct buf *out);
/* Append an attribute's key as a label's name. -1: nothing is left of it; out is as it was. */
int prometheus_label_name(const struct prometheus_naming *n, struct bytes key, struct buf *out);
/* Is `key` its own name, so that nobody need copy it? */
bool prometheus_label_is_name(const struct prometheus_naming *n, struct bytes key);
/* Append text, with U+FFFD for each byte that is not UTF-8. */
void prometheus_put_text(struct bytes text, struct buf *out);
/* "counter", "gauge", "histogram", "summary", "unknown": TYPE metadata. */
const char *prometheus_kind_name(enum prometheus_kind kind);
/* What a metric of OTLP is called as; UNKNOWN for one without data. */
enum prometheus_kind prometheus_kind_of(const struct metric *m);

/* Enough for prometheus_bound_text, with the NUL. */
enum { PROMETHEUS_BOUND_MAX = 32 };
/* A bucket's bound or a quantile as the value of `le` or `quantile`: the shortest decimal that
 * reads back as v, without an exponent where that fits ("0.005", "1", "+Inf"). The Collector writes
 * the same, so a series goes on under its name. Returns the length. */
size_t prometheus_bound_text(double v, char out[PROMETHEUS_BOUND_MAX]);

#endif
