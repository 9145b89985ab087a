/* SPDX-License-Identifier: Apache-2.0
 *
 * number.h - numbers as a page shows them.
 *
 * THREADS: pure functions, any thread. SPEC: OpenMetrics 1.0 "Numbers", "Canonical numbers" (of
 * le and quantile); the Prometheus text format, as Go's strconv writes it.
 */
#ifndef EXPORTERS_PROMETHEUS_NUMBER_H
#define EXPORTERS_PROMETHEUS_NUMBER_H

#include "base/base.h"
#include "base/buf.h"
#include "wire/otlp_metrics.h"

/* Append the shortest text that reads back as v; integers below 10^15 as digits. */
void number_put(struct buf *out, double v);
void number_put_u64(struct buf *out, uint64_t v);
/* An int exactly. */
void number_put_metric(struct buf *out, const struct metric_number *n);

enum { NUMBER_BOUND_MAX = 32 };
/* The value of `le` or `quantile`: "1", "0.005", "1e+06", "+Inf"; open: "1.0" for "1", as
 * OpenMetrics wants it. With a NUL; returns the length. */
size_t number_bound(double v, bool open, char out[NUMBER_BOUND_MAX]);
/* Milliseconds since the epoch as seconds: "1766000000.123". */
void number_put_seconds(struct buf *out, uint64_t ms);

#endif
