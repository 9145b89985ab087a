/* SPDX-License-Identifier: Apache-2.0
 *
 * otlp_groups.h - spans that come one by one, each with its resource and scope, as an
 * ExportTraceServiceRequest. What the decoders of Zipkin and Jaeger write into.
 *
 *	resource bytes -> resource -> scope -> [off,len] [off,len] ..  of  spans: |..|....|..|
 *
 * A decoder writes a span as a ScopeSpans.spans field at the end of `spans`, looks up where it
 * belongs, and adds it. At the end the pieces are copied together: one ResourceSpans per distinct
 * resource, one ScopeSpans per distinct scope in it, both in order of first appearance, spans in
 * order of arrival.
 * OWNERSHIP, THREADS: borrows an arena for its tables, memory is charged to that one's meter; one
 * thread at a time. LIMITS: max_bytes bounds spans and result alike.
 */
#ifndef WIRE_OTLP_GROUPS_H
#define WIRE_OTLP_GROUPS_H

#include "base/arena.h"
#include "base/base.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/map.h"

struct otlp_groups_resource;
struct otlp_groups_scope;

struct otlp_groups {
	struct arena *arena;
	struct buf spans; /* ScopeSpans.spans fields, in order of arrival */
	struct buf key;   /* scratch: the resource or scope being looked up */
	struct map by_bytes;
	struct otlp_groups_resource *first, *last; /* in order of appearance */
	struct otlp_groups_resource *recent;       /* the last span's: likely the next's */
};

/* max_bytes: of the spans' OTLP form, 0 for no limit. */
void otlp_groups_init(struct otlp_groups *g, struct arena *arena, size_t max_bytes);
/* Where to write a Resource message, in a fixed order, so that equal ones are equal bytes; then
 * its place. */
struct buf *otlp_groups_resource_begin(struct otlp_groups *g);
struct otlp_groups_resource *otlp_groups_resource_end(struct otlp_groups *g);
/* The same for an InstrumentationScope of that resource; one of no bytes is left out. */
struct buf *otlp_groups_scope_begin(struct otlp_groups *g, const struct otlp_groups_resource *rs);
struct otlp_groups_scope *otlp_groups_scope_end(struct otlp_groups *g,
						struct otlp_groups_resource *rs);
/* What stands in `spans` from `off` on belongs to the scope; nothing, when the cap was passed. */
void otlp_groups_add(struct otlp_groups *g, struct otlp_groups_scope *sg, size_t off);
/* Append the request to out. 0, or -1 with out as it was: ERR_TOO_LARGE, which begins with
 * `what`. */
int otlp_groups_encode(struct otlp_groups *g, const char *what, struct buf *out,
		       struct err *err) MUST_CHECK;
void otlp_groups_fini(struct otlp_groups *g);

#endif
