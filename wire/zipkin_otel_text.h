/* SPDX-License-Identifier: Apache-2.0
 *
 * zipkin_otel_text.h - links and events that an OpenTelemetry exporter wrote into Zipkin texts.
 *
 *	tag otlp.link.N    trace id|span id|trace state|{attributes}|dropped count
 *	annotation         name|{attributes}|dropped count		(Collector)
 *	                   "name": {attributes}				(specification; Java, PHP)
 *	                   name: {attributes}				(Go)
 *	                   {"name": {attributes}}			(Python)
 *
 * Attributes are JSON: integers, other numbers as doubles, strings, booleans, arrays and objects
 * (32 levels); null members are left out.
 * LIMITS: time is linear in the text but for at most 8 tries where the JSON starts.
 * SPEC: docs/formats/zipkin.md ("Mapping"). Any thread; scratch goes to the arena.
 */
#ifndef WIRE_ZIPKIN_OTEL_TEXT_H
#define WIRE_ZIPKIN_OTEL_TEXT_H

#include "base/arena.h"
#include "base/buf.h"

/* The members of AnyValue. */
enum { ANY_STRING = 1, ANY_BOOL = 2, ANY_INT = 3, ANY_DOUBLE = 4, ANY_ARRAY = 5, ANY_KVLIST = 6 };

/* Append the text as a Span.Link, field `number`. -1: it is none; nothing is written. */
int zipkin_otel_link(struct buf *b, struct arena *a, uint32_t number, struct bytes text);
/* Append name, attributes and dropped count inside an open Span.Event. is_otel: the span came from
 * an OpenTelemetry exporter, so also the forms that an innocent text might have. -1: it is none;
 * nothing is written. */
int zipkin_otel_event(struct buf *b, struct arena *a, struct bytes text, bool is_otel);

#endif
