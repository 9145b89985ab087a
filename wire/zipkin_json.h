/* SPDX-License-Identifier: Apache-2.0
 *
 * zipkin_json.h - a Zipkin v2 JSON list of spans to OTLP protobuf bytes.
 *
 * One pass over the text with json_reader, one struct zipkin_span reused; the mapping is
 * zipkin_span.h's. A span that cannot be used is passed over and counted by reason, the first one
 * is named; a text that is damaged as JSON, or no list, is an error of the whole request.
 * LIMITS: nesting 64; the output by max_bytes.
 * SPEC: docs/formats/zipkin.md ("Reading"); zipkin2-api.yaml; INTERFACE "Receivers' answers".
 */
#ifndef WIRE_ZIPKIN_JSON_H
#define WIRE_ZIPKIN_JSON_H

#include "base/arena.h"
#include "base/base.h"
#include "base/buf.h"
#include "base/err.h"
#include "wire/zipkin_result.h"

/* Append the OTLP form (ExportTraceServiceRequest) of the list in `json` to out, at most max_bytes
 * of it (0: only out's own cap holds), and fill *result. An empty list, and an empty or blank text,
 * is zero spans. typed_tags: what looks like a number or a boolean becomes one. Borrows json;
 * scratch goes to arena, which the caller resets, other memory is charged to its meter. 0 (also
 * when every span was bad), or -1 with out as it was: ERR_INVALID (400), ERR_TOO_LARGE (413), any
 * error when the meter refused. Any thread. */
int zipkin_json_decode(struct bytes json, size_t max_bytes, bool typed_tags, struct arena *arena,
		       struct buf *out, struct zipkin_result *result, struct err *err) MUST_CHECK;

#endif
