/* SPDX-License-Identifier: Apache-2.0
 *
 * zipkin_v1.h - the Zipkin v1 span, whatever it was encoded in, and how it becomes v2 spans.
 *
 * A v1 span says what happened at whom: annotations ("cs" at this host, "sr" at that one) and
 * binary annotations (key, value, host). One of them may describe both ends of a call; it then
 * becomes two v2 spans of the same id, the server's `shared`, as zipkin-server splits it.
 * LIMITS: ZIPKIN_V1_HALVES hosts per span; what further hosts say goes to the first.
 * SPEC: zipkin-server's V1SpanConverter; docs/formats/zipkin.md ("Version 1"). Any thread.
 */
#ifndef WIRE_ZIPKIN_V1_H
#define WIRE_ZIPKIN_V1_H

#include "wire/zipkin_span.h"

enum { ZIPKIN_V1_HALVES = 16 };

/* Hosts without a name, address and port are no hosts. */
struct zipkin_v1_annotation {
	uint64_t timestamp_us;
	struct bytes value;
	struct zipkin_span_endpoint host;
	uint8_t owner; /* the conversion's own */
};

struct zipkin_v1_binary {
	struct bytes key, value; /* of a number or boolean its text */
	enum zipkin_tag_type type;
	uint64_t bits;
	struct zipkin_span_endpoint host;
	uint8_t owner; /* the conversion's own */
};

/* Borrows all it points to; `local` is the host of what names none, `remote`, `kind` and `shared`
 * those of a v2 span that was sent as v1. */
struct zipkin_v1_span {
	uint8_t trace_id[16], id[8], parent_id[8];
	struct bytes name;
	uint64_t timestamp_us, duration_us; /* 0: absent */
	bool debug, shared;
	enum zipkin_span_kind kind;
	struct zipkin_span_endpoint local, remote;
	struct zipkin_v1_annotation *annotations;
	struct zipkin_v1_binary *binaries;
	size_t n_annotations, cap_annotations, n_binaries, cap_binaries;
};

/* For readers: forget the last span, but keep the lists' memory; one more element, zeroed, charged
 * to the meter. */
void zipkin_v1_reset(struct zipkin_v1_span *v1);
struct zipkin_v1_annotation *zipkin_v1_annotation(struct zipkin_v1_span *v1, struct meter *meter);
struct zipkin_v1_binary *zipkin_v1_binary(struct zipkin_v1_span *v1, struct meter *meter);
void zipkin_v1_fini(struct zipkin_v1_span *v1);

/* Add the one or more v2 spans that v1 describes. Ids and text were judged by the reader. room is
 * scratch, kept between calls. */
void zipkin_v1_add(struct zipkin_v1_span *v1, struct zipkin_span_room *room,
		   struct zipkin_span_batch *batch);

#endif
