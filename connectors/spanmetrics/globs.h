/* SPDX-License-Identifier: Apache-2.0
 *
 * globs.h - dimensions by pattern ({glob: "http.*"}): every attribute of a span, or of its
 * resource, whose name fits, unless it is a label already.
 *
 * Matches are kept by name, so that the order of attributes makes no second row.
 * THREADS: a set does not change. LIMITS: GLOB_MATCHES_MAX attributes of a span; more are no
 * labels.
 */
#ifndef CONNECTORS_SPANMETRICS_GLOBS_H
#define CONNECTORS_SPANMETRICS_GLOBS_H

#include "connectors/spanmetrics/dimensions.h"

enum { GLOBS_MAX = 16, GLOB_MATCHES_MAX = 32 };

struct glob_set {
	struct glob {
		struct bytes pattern; /* * any text, ? any byte; else itself */
		unsigned families;    /* bit: enum family */
	} all[GLOBS_MAX];
	uint32_t n;
};

struct glob_matches {
	uint32_t n;
	struct glob_match {
		struct bytes key, any; /* any: AnyValue content */
		unsigned families;
	} v[GLOB_MATCHES_MAX]; /* by key */
};

/* The patterns of a list of the configuration; the same again counts for its families, too. */
void glob_set_add(struct glob_set *g, const struct option_list *list, unsigned families);
/* Do two families have the same patterns? */
bool glob_set_is_same(const struct glob_set *g, unsigned family_a, unsigned family_b);
/* Does the pattern fit the whole name? */
bool glob_fits(struct bytes pattern, struct bytes name);
/* Add the attributes of a message (fields `number`) that fit, or of a span; those whose key is
 * there already, is a dimension by name, or one of the four labels, are passed over. */
void globs_match(const struct glob_set *g, const struct dimension_plan *p, struct bytes message,
		 uint32_t number, struct glob_matches *to);
void globs_match_span(const struct glob_set *g, const struct dimension_plan *p,
		      const struct span_ref *sp, struct glob_matches *to);
void globs_merge(struct glob_matches *to, const struct glob_matches *from);
/* As dimensions_key and dimensions_attributes: those of one family. */
void globs_put(const struct glob_matches *m, unsigned family, struct buf *key,
	       struct buf *attributes);

#endif
