/* SPDX-License-Identifier: Apache-2.0
 *
 * zipkin_encode_text.h - values, links and events of OTLP as the texts that Zipkin has room for;
 * the other direction is zipkin_otel_text.h.
 *
 * SPEC: docs/formats/zipkin.md ("OTLP to Zipkin"). Any thread.
 */
#ifndef WIRE_ZIPKIN_ENCODE_TEXT_H
#define WIRE_ZIPKIN_ENCODE_TEXT_H

#include "base/arena.h"
#include "base/buf.h"
#include "wire/pb.h"

/* A KeyValue. The value is an AnyValue's bytes, empty for none. */
struct zipkin_attr {
	struct bytes key, any;
	uint32_t member;   /* which of AnyValue, 0: none */
	uint64_t number;   /* bool, int, double: the value's bits */
	struct bytes text; /* string, bytes: the value */
};

/* A KeyValue's bytes taken apart; damage was refused by the index, so it reads as what came before
 * it. */
struct zipkin_attr zipkin_attr_read(struct bytes key_value);
/* The value as the text of a tag: a string as it is, others in `arena`. Lists and maps are JSON,
 * bytes are base64; a double has a point, so that it can be told from an integer. */
struct bytes zipkin_attr_text(const struct zipkin_attr *a, struct arena *arena);
/* A Span.Link: trace id|span id|trace state|{attributes}|dropped count. */
struct bytes zipkin_link_text(struct bytes link, struct arena *arena);
/* A Span.Event: its name, or name|{attributes}|dropped count where there is more than the name or
 * the name alone would be read as that. */
struct bytes zipkin_event_text(struct bytes event, struct arena *arena);

#endif
