/* SPDX-License-Identifier: Apache-2.0
 *
 * zipkin_v1_json.h - a Zipkin v1 JSON list of spans to OTLP protobuf bytes.
 *
 * Members of version 2 in such a span (localEndpoint, remoteEndpoint, kind, tags, shared) are
 * understood, since senders mix them.
 * LIMITS: nesting 64; the output by max_bytes.
 * SPEC: zipkin-api.yaml (v1); docs/formats/zipkin.md ("Version 1"); INTERFACE "Receivers' answers".
 */
#ifndef WIRE_ZIPKIN_V1_JSON_H
#define WIRE_ZIPKIN_V1_JSON_H

#include "base/arena.h"
#include "base/base.h"
#include "base/buf.h"
#include "base/err.h"
#include "wire/zipkin_result.h"

/* As zipkin_json_decode (wire/zipkin_json.h). */
int zipkin_v1_json_decode(struct bytes json, size_t max_bytes, bool typed_tags, struct arena *arena,
			  struct buf *out, struct zipkin_result *result,
			  struct err *err) MUST_CHECK;

#endif
