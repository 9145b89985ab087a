/* SPDX-License-Identifier: Apache-2.0
 *
 * zipkin_encode.h - OTLP spans to a list of Zipkin v2 spans, in JSON or protobuf.
 *
 *	struct zipkin_encoder e;
 *
 *	zipkin_encoder_init(&e, ZIPKIN_JSON, "");
 *	for (uint32_t i = 0; i < tables->n_spans;)
 *		i = zipkin_encode_list(&e, tables, i, max_bytes, &out);	one list per record
 *	zipkin_encoder_fini(&e);
 *
 * DESIGN: no tree. One struct zipkin_span is filled from a span's bytes, whose text it borrows, and
 * written; what a scope's spans have in common is kept while the scope lasts.
 * OWNERSHIP, THREADS: an encoder is one thread's at a time and keeps its memory between lists.
 * LIMITS: memory is one span's texts, and the output.
 * SPEC: docs/formats/zipkin.md ("OTLP to Zipkin").
 */
#ifndef WIRE_ZIPKIN_ENCODE_H
#define WIRE_ZIPKIN_ENCODE_H

#include "wire/span.h"
#include "wire/zipkin_span.h"

enum zipkin_form { ZIPKIN_JSON, ZIPKIN_PROTO };

struct zipkin_encoder {
	enum zipkin_form form;
	struct bytes default_service; /* of spans whose resource has no name; may be empty */
	/* What the last span's scope and resource say; scope is its index, UINT32_MAX for none. */
	const struct span_tables *tables;
	uint32_t scope;
	struct bytes service;
	struct zipkin_span_room heads; /* tags of resource and scope; place says which */
	struct arena head_texts;
	/* One span's. */
	struct zipkin_span_room room;
	struct arena texts;
};

/* Borrows default_service. */
void zipkin_encoder_init(struct zipkin_encoder *e, enum zipkin_form form,
			 const char *default_service);
void zipkin_encoder_fini(struct zipkin_encoder *e);

/* Append the spans from number `first` on as one list, as many as fit into max_bytes of it (0: all;
 * at least one, however large it is). Returns the number of the first span that is left, n_spans
 * for none. The tables are an index's: bytes and ids in it are valid. */
uint32_t zipkin_encode_list(struct zipkin_encoder *e, const struct span_tables *t, uint32_t first,
			    size_t max_bytes, struct buf *out);

/* All spans of an ExportTraceServiceRequest as one list, appended to out: at most max_bytes of it,
 * 0 for no limit. 0, or -1 with out as it was: ERR_TOO_LARGE; ERR_INVALID for what is no such
 * request. */
int zipkin_encode_request(struct bytes request, enum zipkin_form form, size_t max_bytes,
			  struct buf *out, struct err *err) MUST_CHECK;

#endif
