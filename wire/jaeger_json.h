/* SPDX-License-Identifier: Apache-2.0
 *
 * jaeger_json.h - one api_v2 model.Span as protobuf's JSON (what Kafka records of encoding
 * jaeger_json hold), both ways.
 *
 * DESIGN: one table of the messages drives both directions, JSON <-> protobuf bytes; the spans then
 * go through jaeger_proto, so that JSON is mapped as protobuf is.
 * Read: names in lowerCamelCase or as in the .proto; ids and binary in base64 (either alphabet);
 * enums by name or number; 64-bit integers as numbers or in quotes; times as RFC 3339 or whole
 * numbers of seconds, durations as Go writes them ("1.5s", "22938000ns", "1m2s"); null and unknown
 * members are passed over. A value that is not what it must be refuses the span and is named.
 * Written: as gogo's jsonpb writes it (lowerCamelCase, enum names, integers in quotes).
 * LIMITS: nesting 64; the output by max_bytes. SPEC: proto3 JSON mapping; jaeger-idl model.proto.
 * Any thread.
 */
#ifndef WIRE_JAEGER_JSON_H
#define WIRE_JAEGER_JSON_H

#include "wire/jaeger_span.h"

/* Append the OTLP form of the span to out; as jaeger_proto_span (wire/jaeger_proto.h). An empty or
 * blank text is no span. */
int jaeger_json_span(struct bytes json, size_t max_bytes, struct arena *arena, struct buf *out,
		     struct jaeger_result *result, struct err *err) MUST_CHECK;
/* Append a model.Span in protobuf as JSON. -1 with out as it was: damaged, or out's cap. */
int jaeger_json_encode(struct bytes span, struct buf *out, struct err *err) MUST_CHECK;

#endif
