/* SPDX-License-Identifier: Apache-2.0
 *
 * trace_tree.h - the spans of a trace as the rows of a tree, in the order they are drawn.
 *
 *   spans, any order --> who is whose parent --> rows: depth first, siblings by start
 *
 * Whatever comes out of storage is drawn: a parent that is not there becomes a row of its own above
 * its children; a Zipkin client and server that share one span id become parent and child; a circle
 * of parents is cut at its earliest span; clocks that are off by more than a day do not stretch the
 * time line. Nothing recurses, and time is n log n.
 * OWNERSHIP: rows point into the tree, the tree into the bytes it was built from. One thread.
 * LIMITS: about 300 bytes of memory per span.
 */
#ifndef CMD_TRACE_TREE_H
#define CMD_TRACE_TREE_H

#include "base/arena.h"
#include "base/err.h"
#include "wire/span.h"

struct tree_row {
	const struct span_ref *span; /* NULL: a parent that is not there */
	uint8_t missing_id[8];       /* its id */
	uint32_t depth;              /* 0: top */
	bool is_last;                /* of its siblings */
	bool has_children;
	bool is_cut; /* its parents formed a circle, cut here */
};

struct trace_tree {
	struct tree_row *rows;
	size_t n_rows;
	uint32_t n_spans, n_errors, n_missing;
	uint32_t n_rejected;       /* spans that could not be read, not in rows */
	uint64_t start_ns, end_ns; /* the time line, Unix */
	struct bytes *services;    /* service.name by resource; empty: none */
	uint32_t *service_number;  /* by resource: of its name, 0..n_services-1 in order of rows */
	struct bytes *names;       /* by service number */
	uint32_t n_services;
	struct span_tables tables;
	struct arena arena;
};

/* Build the tree of TracesData bytes, which must outlive it. -1: damaged as a whole. After 0 or -1
 * alike: trace_tree_fini. */
int trace_tree_build(struct bytes traces_data, struct trace_tree *t, struct err *err);
void trace_tree_fini(struct trace_tree *t);

/* The resource of a span, an index into services. */
static inline uint32_t trace_tree_resource(const struct trace_tree *t, const struct span_ref *sp)
{
	return t->tables.scopes[sp->scope].resource;
}

#endif
