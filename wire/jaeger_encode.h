/* SPDX-License-Identifier: Apache-2.0
 *
 * jaeger_encode.h - an OTLP span as Jaeger's model.Span in protobuf; the other direction is
 * jaeger_proto.h. JSON is made of it by jaeger_json.h.
 *
 * SPEC: docs/formats/jaeger.md ("OTLP to Jaeger"). Input was validated by otlp_index. Any thread.
 */
#ifndef WIRE_JAEGER_ENCODE_H
#define WIRE_JAEGER_ENCODE_H

#include "base/buf.h"
#include "base/err.h"

/* Append the one span of an ExportTraceServiceRequest (of several the first). 0, or -1 with out as
 * it was: ERR_TOO_LARGE by out's cap, ERR_INVALID for what has no span. */
int jaeger_encode_span(struct bytes request, struct buf *out, struct err *err) MUST_CHECK;

#endif
