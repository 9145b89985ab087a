/* SPDX-License-Identifier: Apache-2.0
 *
 * otlp_join.h - spans of several requests written as one, in which each resource and each scope
 * stands once.
 *
 *   request 1  resource A [s1 s2] resource B [s3]         run {s1 s2}: scope 0
 *   request 2  resource B [s4] resource A [s5]            run {s3}, {s4}: scope 1   run {s5}: 0
 *   joined     resource A [s1 s2 s5] resource B [s3 s4]
 *
 * A run is spans of one request and one scope that lie side by side, so that they are copied as
 * one. The join numbers resources and scopes by their bytes (all fields but what they hold, unknown
 * ones too) and has a copy of these. Who writes puts the runs in order: those of one scope, and
 * scopes of one resource, one after the other.
 *
 * THREADS: one at a time. OWNERSHIP: runs point into tables and bytes that their owner keeps.
 * SPEC: opentelemetry-proto trace.proto.
 */
#ifndef WIRE_OTLP_JOIN_H
#define WIRE_OTLP_JOIN_H

#include "base/buf.h"
#include "base/map.h"
#include "wire/span.h"

struct otlp_run {
	const struct span_tables *t;
	const uint8_t *p;  /* their bytes, tags and lengths included; NULL: it is one span that
				   does not lie so */
	uint32_t first, n; /* in t->spans */
	uint32_t bytes;    /* encoded, tags and lengths included */
	uint32_t scope;    /* its number in the join */
	uint32_t origin, ordinal; /* span_ref's: of the first; those of the others follow it */
	uint32_t source, group;   /* the caller's */
	bool extras;              /* unknown fields of the request itself go along */
};

struct otlp_join_head {
	size_t off, n;     /* in heads */
	uint32_t resource; /* of a scope */
};

/* Zeroed is empty. */
struct otlp_join {
	struct map numbers; /* of a head's bytes, + 1 */
	struct buf heads, key;
	struct otlp_join_head *resources, *scopes;
	size_t n_resources, cap_resources, n_scopes, cap_scopes;
};

/* How large a request of some runs is, with the one that is added last. */
struct otlp_join_size {
	size_t closed, resource, scope; /* payloads; of those that are open now */
	uint32_t open_scope;
	bool is_open;
};

/* The number of a scope of t. */
uint32_t otlp_join_scope(struct otlp_join *j, const struct span_tables *t, uint32_t scope);
/* The resource of such a number. */
static inline uint32_t otlp_join_resource(const struct otlp_join *j, uint32_t scope)
{
	return j->scopes[scope].resource;
}
/* Span i of t as a run of its own; the caller sets what is not known here. */
void otlp_run_start(struct otlp_run *r, const struct span_tables *t, uint32_t i);
/* Take span i, too, when it lies right behind, is of the same scope and the next one of the same
 * origin, and all stays within max_bytes. */
bool otlp_run_extend(struct otlp_run *r, uint32_t i, uint32_t max_bytes);
/* Cut a run of two spans or more in two; r keeps the first half. */
void otlp_run_halve(struct otlp_run *r, struct otlp_run *rest);
/* Add a run to *s (zeroed is empty). Returns the encoded size of all so far. */
size_t otlp_join_add_size(const struct otlp_join *j, struct otlp_join_size *s,
			  const struct otlp_run *r);
/* Write n runs in this order; `out` has room for what otlp_join_add_size said. Returns their end.
 */
uint8_t *otlp_join_write(const struct otlp_join *j, struct otlp_run *const *v, size_t n,
			 uint8_t *out);
/* Forget all numbers. */
void otlp_join_fini(struct otlp_join *j);

#endif
