/* SPDX-License-Identifier: Apache-2.0
 *
 * otlp_json_encode.h - OTLP protobuf bytes to JSON, in two dialects.
 *
 * OTLP_JSON: the specification's: ids in lower-case hex, enums as integers. resource, scope and
 *	status are always there, as {} when they are empty, as the Collector writes them.
 * OTLP_JSON_TEMPO: gogo jsonpb, what Tempo's API answers: ids in base64, enums by name (a number
 *	where no name is known).
 * Both: lowerCamelCase, 64-bit integers in quotes, other zero scalars and empty lists left out,
 * bytes in base64, "NaN" and "Infinity" in quotes; a sub-message that is present and empty is {};
 * inside an AnyValue zero values are written. Text that is not UTF-8 gets U+FFFD per bad byte.
 *
 * Nothing is unpacked: fields are found by walking the bytes. Their order in the input does not
 * matter: lists are gathered, the last of a scalar wins, pieces of one sub-message are merged, as
 * protobuf wants. Unknown fields have no JSON name and are left out. ResourceSpans field 1000
 * (proto v0.15 to v0.18) is read when field 2 is absent.
 * LIMITS: lists in values at most OTLP_MAX_DEPTH deep, as the index has it (ERR_INVALID); the
 * output by max_bytes (ERR_TOO_LARGE).
 * SPEC: OTLP "JSON Protobuf Encoding"; reference/tempo-api.md 2.1.
 */
#ifndef WIRE_OTLP_JSON_ENCODE_H
#define WIRE_OTLP_JSON_ENCODE_H

#include "base/base.h"
#include "base/buf.h"
#include "base/err.h"
#include "wire/json_writer.h"
#include "wire/span.h"

enum otlp_json_dialect { OTLP_JSON, OTLP_JSON_TEMPO };

/* Append {"resourceSpans":[...]} to out, or {} when there is none, at most max_bytes of it (0: only
 * out's own cap holds). Each part is the bytes of a TracesData or ExportTraceServiceRequest, or any
 * run of its fields, so a list of single ResourceSpans (tag and length included) will do; the
 * parts' lists are joined. Borrows. 0, or -1 with out as it was. Any thread. */
int otlp_json_encode(const struct bytes *parts, size_t n_parts, enum otlp_json_dialect dialect,
		     size_t max_bytes, struct buf *out, struct err *err) MUST_CHECK;

/* The same of any signal: {"resourceLogs":[...]}, {"resourceMetrics":[...]}. */
int otlp_json_encode_items(enum otlp_signal signal, const struct bytes *parts, size_t n_parts,
			   enum otlp_json_dialect dialect, size_t max_bytes, struct buf *out,
			   struct err *err) MUST_CHECK;

/* The same as members of an object the caller has opened: "<key>":[...], nothing when there is no
 * ResourceSpans. Tempo's v1 answer calls the list "batches". Bounded by the cap of the writer's
 * buffer, which the caller checks (overflow). 0, or -1 when the bytes are damaged; what was written
 * so far then stays in the buffer. */
int otlp_json_encode_list(struct json_writer *w, const char *key, const struct bytes *parts,
			  size_t n_parts, enum otlp_json_dialect dialect,
			  struct err *err) MUST_CHECK;

#endif
