/* SPDX-License-Identifier: Apache-2.0
 *
 * gen_payload.h - made-up traces of a small shop, as OTLP protobuf or Zipkin v2 JSON.
 *
 *   frontend POST /checkout (server)
 *     frontend POST /cart (client) -> cart POST /cart (server) -> cart SELECT shop.carts (client)
 *     frontend render page (internal) ...
 *
 * A trace is a function of (seed, number): any thread can make any of them, and equal arguments
 * give equal ids and shapes. Children lie within their parents, clients and producers have a server
 * or consumer in another service below them, 5 % of the spans are errors, 12 % have an event.
 * SPEC: opentelemetry-proto trace.proto 1.9; zipkin2-api.yaml. Pure functions, any thread.
 */
#ifndef CMD_GEN_PAYLOAD_H
#define CMD_GEN_PAYLOAD_H

#include "base/base.h"
#include "base/buf.h"
#include "wire/span.h"

enum { GEN_ATTRIBUTES_MAX = 128, GEN_SERVICES_MAX = 1000, GEN_SPAN_BYTES_MAX = 65536 };

struct gen_shape {
	uint32_t spans_per_trace; /* >= 1 */
	uint32_t services;        /* 1..GEN_SERVICES_MAX */
	uint32_t attributes;      /* of a span, 0..GEN_ATTRIBUTES_MAX */
	uint32_t span_bytes;      /* encoded size to fill a span up to, about; needs attributes */
	uint64_t seed;
	const char *text; /* from gen_payload_text */
};

enum gen_topic { GEN_HTTP, GEN_DATABASE, GEN_MESSAGES, GEN_LOCAL };

struct gen_span {
	uint8_t trace_id[16], span_id[8], parent_id[8]; /* parent all zero: root */
	uint64_t start_ns, end_ns;
	uint64_t cursor_ns; /* where its next child may start */
	const char *name;
	uint32_t parent;  /* index in the trace */
	uint32_t service; /* < services */
	uint32_t peer;    /* client, producer: the service called */
	uint8_t kind;     /* enum span_kind */
	uint8_t topic;    /* enum gen_topic */
	bool has_callee;  /* takes no (more) children */
	bool has_error, has_event;
};

/* The words that spans are filled up with; free() it. */
char *gen_payload_text(uint64_t seed);
/* Fill spans[spans_per_trace] with trace `number`, which has just ended at now_ns (Unix). */
void gen_payload_trace(const struct gen_shape *s, uint64_t number, uint64_t now_ns,
		       struct gen_span *spans);
/* Append an ExportTraceServiceRequest of n spans, one ResourceSpans per service. */
void gen_payload_otlp(const struct gen_shape *s, const struct gen_span *spans, size_t n,
		      struct buf *out);
/* Append a Zipkin v2 JSON list of n spans. */
void gen_payload_zipkin(const struct gen_shape *s, const struct gen_span *spans, size_t n,
			struct buf *out);

#endif
