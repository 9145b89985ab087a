/* SPDX-License-Identifier: Apache-2.0
 *
 * record.h - spans into rows.
 *
 *   pass 1, no lock:    per resource   who it is, its dimensions          (once per batch)
 *                       per span       key, hash, weight, duration   -> observation[]
 *   pass 2:             per shard      lock once; find or add each row, count
 *                       what found no room goes to overflow rows the same way
 *
 * Each counts as many as span_weight says (wire/span_wish.h): its adjusted count, 1 without th, 0
 * when it was kept for an exemplar alone.
 * LIMITS: some thousand observations at a time, whatever is in a batch; what is kept per resource
 * of it is charged to the budget.
 */
#ifndef CONNECTORS_SPANMETRICS_RECORD_H
#define CONNECTORS_SPANMETRICS_RECORD_H

#include "connectors/spanmetrics/connector.h"

/* What a batch is looked at for. */
enum purpose { TO_COUNT, TO_COMPETE, TO_OFFER };

/* One span (or one event of it) and one row. */
struct observation {
	struct series_key key;
	double weight;
	uint64_t duration_ns;
	uint64_t slot;              /* TO_OFFER, TO_COMPETE: for gates.h */
	uint32_t bucket;            /* likewise: that of the slot */
	uint32_t span;              /* of the batch */
	uint32_t attr_off, n_attrs; /* of its dimensions, in recording.attributes */
	uint32_t next;              /* of its shard, + 1; 0: the last */
};

struct recording {
	struct component *c;
	const struct spanmetrics_config *conf;
	struct spanmetrics_state *st;
	const struct batch *b;
	enum purpose purpose;
	const uint8_t *is_accepted; /* TO_COUNT: by origin; NULL: all are */
	const char **takes;         /* TO_OFFER */
	uint64_t interval, n_lost;  /* TO_OFFER, TO_COMPETE: of slots */
	uint64_t now_ns;            /* wall clock */
	uint64_t guard;             /* exemplars: the least R that may be shown */
	struct span_resource **resources, *root;
	struct resource_facts *facts; /* per resource of the batch */
	struct scope_facts *scopes;   /* per scope; NULL: none is a label */
	struct observation *v;
	size_t n, cap;
	size_t n_weeded;               /* TO_OFFER, TO_COMPETE: of v, those that do not lose */
	struct buf extras, attributes; /* of dimensions */
	struct buf labels;             /* of a row being made */
	uint32_t first[SERIES_SHARDS]; /* + 1 */
	uint64_t n_unknown, n_skipped;
	struct dimension_values values; /* of the resource at hand */
	uint32_t values_of;             /* which, + 1 */
	struct glob_matches resource_globs;
	const struct glob_matches *globs; /* of the span or event at hand; NULL: no patterns */
	struct meter meter;
	struct arena arena; /* of the batch */
};

/* Count the spans of a batch whose requests were accepted (accepted.h: is_accepted[origin], or NULL
 * for all). Borrows b. Any thread. */
void record_count(struct component *c, const struct batch *b, const uint8_t *is_accepted);
/* The spans of a batch compete for the slots of their rows: before it is settled. Any thread. */
void record_compete(struct component *c, const struct batch *b);
/* component_type.exemplar_offer: which spans of b take a slot. Any thread. */
void record_offer(struct component *c, const struct batch *b, const char **takes);

#endif
