/* SPDX-License-Identifier: Apache-2.0
 *
 * jaeger_proto.h - Jaeger's api_v2 protobuf messages to OTLP protobuf bytes.
 *
 * Read with wire/pb.h into wire/jaeger_span.h's span: no message is unpacked, which protobuf-c
 * would do with several allocations a tag (docs/formats/jaeger.md has the figures).
 * A message that is damaged as protobuf is refused as a whole; a span with ids that are none
 * rejects
 * itself. A span's own process is its resource, else the batch's.
 * SPEC: jaeger-idl api_v2 model.proto, collector.proto; docs/formats/jaeger.md. Any thread.
 */
#ifndef WIRE_JAEGER_PROTO_H
#define WIRE_JAEGER_PROTO_H

#include "wire/jaeger_span.h"

/* Append the OTLP form (ExportTraceServiceRequest) of a PostSpansRequest to out, at most max_bytes
 * of it (0: only out's own cap holds), and fill *result. Scratch goes to arena, which the caller
 * resets, other memory is charged to its meter. 0 (also when every span was bad), or -1 with out as
 * it was: ERR_INVALID, ERR_TOO_LARGE, any error when the meter refused. */
int jaeger_proto_request(struct bytes in, size_t max_bytes, struct arena *arena, struct buf *out,
			 struct jaeger_result *result, struct err *err) MUST_CHECK;
/* The same for one model.Span, which is what a Kafka record holds. Nothing is no span. */
int jaeger_proto_span(struct bytes in, size_t max_bytes, struct arena *arena, struct buf *out,
		      struct jaeger_result *result, struct err *err) MUST_CHECK;

#endif
