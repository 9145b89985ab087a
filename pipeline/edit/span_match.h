/* SPDX-License-Identifier: Apache-2.0
 *
 * span_match.h - `include` and `exclude` of processors: which spans are meant.
 *
 * All criteria that are given must hold; of several names any one will do. What a resource or scope
 * decides is asked once a scope, not once a span.
 *
 * OWNERSHIP: made from parsed options, which live as long as the component. THREADS: a span_match
 * is immutable; a span_match_run belongs to the one who walks a batch. SPEC: the Collector's
 * attributes processor (match_type, services, span_names, span_kinds, attributes, resources,
 * libraries).
 */
#ifndef PIPELINE_EDIT_SPAN_MATCH_H
#define PIPELINE_EDIT_SPAN_MATCH_H

#include "base/err.h"
#include "pipeline/batch.h"
#include "pipeline/option/option.h"

struct span_match;

/* One side, as written. */
struct span_match_options {
	int match_type;
	struct strlist services, span_names, span_kinds;
	struct option_list attributes, resources, libraries;
	bool is_on; /* the side was written */
};
/* Rows of `include` and `exclude`. */
struct span_match_sides {
	struct span_match_options include, exclude;
};
extern const struct option span_match_sides_table[], span_match_side_table[]; /* of both, of one */

void span_match_check(const struct span_match_sides *o, const struct conf_node *node,
		      struct conf_errors *errs, const char *path);
/* NULL with a reason. Never NULL for want of criteria: then it matches every span. */
struct span_match *span_match_new(const struct span_match_sides *o, struct err *err);
void span_match_free(struct span_match *m);

struct span_match_run {
	const struct span_match *match;
	const struct span_tables *tables;
	struct buf text;
	uint32_t scope; /* what the next two are of; UINT32_MAX: none yet */
	bool include_ok, exclude_ok;
};
void span_match_begin(struct span_match_run *r, const struct span_match *m, const struct batch *b);
/* Is span i meant: included (or no include) and not excluded? */
bool span_match_span(struct span_match_run *r, uint32_t i);
void span_match_end(struct span_match_run *r);

#endif
