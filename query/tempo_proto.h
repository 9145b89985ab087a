/* SPDX-License-Identifier: Apache-2.0
 *
 * tempo_proto.h - Tempo's protobuf answers: Trace and TraceByIDResponse.
 *
 * Grafana reads resource, scope and status without asking whether they are there, so each is
 * written even when empty. Pure functions, any thread. SPEC: tempopb Trace {1 resource_spans},
 * TraceByIDResponse {1 trace, 2 metrics {1 inspected_bytes}, 3 status, 4 message}.
 */
#ifndef QUERY_TEMPO_PROTO_H
#define QUERY_TEMPO_PROTO_H

#include "base/buf.h"
#include "query/trace_by_id.h"

/* Append a Trace. */
void tempo_proto_trace(struct bytes traces_data, struct buf *out);
/* Append a TraceByIDResponse. */
void tempo_proto_response(const struct trace_by_id *t, struct buf *out);
/* The same with the spans as they are stored, byte for byte: for another query node, which joins
 * them with what it has from elsewhere and must know doubles by their bytes. */
void tempo_proto_internal(const struct trace_by_id *t, struct buf *out);

#endif
