/* SPDX-License-Identifier: Apache-2.0
 *
 * otlp_encode.h - a gather list for span tables: lengths bottom-up once, then slices of what was
 * received.
 *
 * Consecutive spans of one scope share a ScopeSpans, consecutive scopes of one resource a
 * ResourceSpans. Spans that lie next to each other in the input, headers included, become one
 * slice. Lengths are minimal, order is the tables', so equal input gives equal bytes. SPEC:
 * opentelemetry-proto trace.proto. Pure, any thread.
 */
#ifndef WIRE_OTLP_ENCODE_H
#define WIRE_OTLP_ENCODE_H

#include "base/arena.h"
#include "wire/span.h"

struct otlp_pieces {
	struct bytes *v;
	size_t n;
	size_t n_bytes;
};

/* Encode `n` spans of the tables, in the order given by pick[] (NULL: all, in order), behind the
 * tables' extras. The list and the headers are in `arena`. */
void otlp_encode(const struct span_tables *t, const uint32_t *pick, uint32_t n, struct arena *arena,
		 struct otlp_pieces *out);
/* Encoded size of the same. */
size_t otlp_encoded_size(const struct span_tables *t, const uint32_t *pick, uint32_t n);
/* The same bytes written to `out`, which has room for otlp_encoded_size of them; returns their end.
 * For few spans at a time: no list, no memory. */
uint8_t *otlp_write(const struct span_tables *t, const uint32_t *pick, uint32_t n, uint8_t *out);

#endif
