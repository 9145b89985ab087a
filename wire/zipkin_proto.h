/* SPDX-License-Identifier: Apache-2.0
 *
 * zipkin_proto.h - a Zipkin v2 protobuf list of spans (zipkin.proto3.ListOfSpans) to OTLP bytes.
 *
 * One pass over the bytes, one struct zipkin_span reused; the mapping is zipkin_span.h's. A span
 * with unusable ids or text is passed over and named; bytes that are damaged as protobuf (also a
 * known field of another wire type) are an error of the whole request.
 * LIMITS: the output by max_bytes; nesting is the schema's.
 * SPEC: zipkin.proto (openzipkin/zipkin-api); docs/formats/zipkin.md; INTERFACE "Receivers'
 * answers".
 */
#ifndef WIRE_ZIPKIN_PROTO_H
#define WIRE_ZIPKIN_PROTO_H

#include "base/arena.h"
#include "base/base.h"
#include "base/buf.h"
#include "base/err.h"
#include "wire/zipkin_result.h"

/* As zipkin_json_decode (wire/zipkin_json.h). */
int zipkin_proto_decode(struct bytes list, size_t max_bytes, bool typed_tags, struct arena *arena,
			struct buf *out, struct zipkin_result *result, struct err *err) MUST_CHECK;

#endif
