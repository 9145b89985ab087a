/* SPDX-License-Identifier: Apache-2.0
 *
 * otlp_json_decode.h - OTLP/JSON trace requests to OTLP protobuf bytes.
 *
 * One pass over the text, driven by the tables of otlp_json_schema.h; no tree. The result has the
 * fields of each message in number order, repeated ones in the order of the text, minimal lengths,
 * and no zero scalars: equal requests give equal bytes.
 *
 * Taken beyond the letter of the specification: snake_case keys; enums by name (an unknown name is
 * 0); any number in quotes, with fraction or exponent where it is integral; null anywhere (absent;
 * in a list an empty message); instrumentationLibrarySpans where scopeSpans brings nothing, and
 * instrumentationLibrary likewise; base64 of either alphabet. Unknown keys are skipped.
 *
 * What must cost one span and not the request is left to the protobuf index that reads the result,
 * since it validates, counts and names spans anyway:
 * - an id of the wrong length is written with that length, one that is not hex as one zero byte;
 *   an empty id is absent;
 * - text that is not UTF-8 is written as it is.
 * Damaged JSON, a value of the wrong type, a number out of range and lists in values nested deeper
 * than the index allows (OTLP_MAX_DEPTH) are errors of the whole request.
 * SPEC: OTLP "JSON Protobuf Encoding"; docs/formats/otlp.md.
 */
#ifndef WIRE_OTLP_JSON_DECODE_H
#define WIRE_OTLP_JSON_DECODE_H

#include "base/arena.h"
#include "base/base.h"
#include "base/buf.h"
#include "base/err.h"
#include "wire/span.h"

/* Append the ExportTraceServiceRequest (TracesData) in `json` to out, at most max_bytes of it (0:
 * only out's own cap holds). Borrows json; scratch goes to arena, which the caller resets, other
 * memory is charged to its meter. 0, or -1 with out as it was: ERR_INVALID `otlp json: ...` (400),
 * ERR_TOO_LARGE over the cap (413), any error when the meter refused. An empty text is damaged. Any
 * thread. */
int otlp_json_decode(struct bytes json, size_t max_bytes, struct arena *arena, struct buf *out,
		     struct err *err) MUST_CHECK;

/* The same for the request of any signal. */
int otlp_json_decode_items(enum otlp_signal signal, struct bytes json, size_t max_bytes,
			   struct arena *arena, struct buf *out, struct err *err) MUST_CHECK;

#endif
