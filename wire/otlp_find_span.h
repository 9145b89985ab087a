/* SPDX-License-Identifier: Apache-2.0
 *
 * otlp_find_span.h - is a span in a trace? One walk over the bytes, without an index.
 *
 * SPEC: TracesData of opentelemetry-proto, which is also tempopb.Trace. Pure function, any thread.
 */
#ifndef WIRE_OTLP_FIND_SPAN_H
#define WIRE_OTLP_FIND_SPAN_H

#include "base/base.h"

/* 1: there is a span with both ids. 0: there is none. -1: the bytes are damaged before one came. */
int otlp_find_span(struct bytes traces_data, const uint8_t trace_id[16], const uint8_t span_id[8]);

#endif
