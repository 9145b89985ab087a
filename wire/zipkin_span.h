/* SPDX-License-Identifier: Apache-2.0
 *
 * zipkin_span.h - the Zipkin v2 span, whatever it was encoded in, and its mapping to OTLP bytes.
 *
 * The readers (JSON; protobuf and thrift) fill one struct zipkin_span at a time and add it to a
 * batch, which writes it as OTLP protobuf at once; wire/otlp_groups.h joins what belongs
 * together.
 * OWNERSHIP, THREADS: a batch borrows an arena for its tables; one thread at a time.
 * LIMITS: max_bytes bounds spans and result alike.
 * SPEC: docs/formats/zipkin.md is the mapping, and where it differs from the Collector's.
 */
#ifndef WIRE_ZIPKIN_SPAN_H
#define WIRE_ZIPKIN_SPAN_H

#include "base/arena.h"
#include "base/base.h"
#include "base/buf.h"
#include "base/err.h"
#include "wire/otlp_groups.h"

/* OTLP's numbers, so that the mapping is none. */
enum zipkin_span_kind {
	ZIPKIN_KIND_NONE = 0,
	ZIPKIN_KIND_SERVER = 2,
	ZIPKIN_KIND_CLIENT = 3,
	ZIPKIN_KIND_PRODUCER = 4,
	ZIPKIN_KIND_CONSUMER = 5,
};

struct zipkin_span_endpoint {
	struct bytes service;	/* empty: none */
	uint8_t ip[16];
	uint8_t ip_len;		/* 0, 4 or 16 */
	uint16_t port;		/* 0: none */
};

struct zipkin_span_tag {
	struct bytes key, value;
	bool taken;		/* the mapping's own: it is no attribute any more */
};

struct zipkin_span_annotation {
	uint64_t timestamp_us;
	struct bytes value;
};

/* Borrows all it points to until zipkin_span_batch_add returns. */
struct zipkin_span {
	uint8_t trace_id[16];	/* a 64-bit id has 8 zero bytes in front */
	uint8_t id[8];
	uint8_t parent_id[8];	/* all zero, or equal to id: a root */
	enum zipkin_span_kind kind;
	bool debug, shared;
	struct bytes name;
	uint64_t timestamp_us;	/* 0: absent */
	uint64_t duration_us;	/* 0: absent */
	struct zipkin_span_endpoint local, remote;
	struct zipkin_span_tag *tags;
	size_t n_tags;
	const struct zipkin_span_annotation *annotations;
	size_t n_annotations;
};

struct zipkin_span_batch {
	struct arena *arena;
	struct otlp_groups groups;
};

/* Text to address: IPv4 or IPv6, whichever it is; an IPv4-mapped one becomes IPv4. IPv6 is kept
 * when both were there. Text that is neither is ignored. */
void zipkin_span_endpoint_ip(struct zipkin_span_endpoint *ep, struct bytes text);

/* max_bytes: of the spans' OTLP form, 0 for no limit. */
void zipkin_span_batch_init(struct zipkin_span_batch *b, struct arena *arena, size_t max_bytes);
/* Write one span. Ids must be right (trace id and id not all zero) and text UTF-8: the reader
 * judges. Only the cap can be in the way, which zipkin_span_batch_encode reports. */
void zipkin_span_batch_add(struct zipkin_span_batch *b, struct zipkin_span *sp);
/* Append the ExportTraceServiceRequest to out. 0, or -1 with out as it was: ERR_TOO_LARGE. */
int zipkin_span_batch_encode(struct zipkin_span_batch *b, struct buf *out,
			     struct err *err) MUST_CHECK;
void zipkin_span_batch_fini(struct zipkin_span_batch *b);

#endif
