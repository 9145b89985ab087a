/* SPDX-License-Identifier: Apache-2.0
 *
 * resources.h - the resources whose spans were counted, one per tenant and set of attributes.
 *
 *   bytes as a sender wrote them --alias--> span_resource <-- sorted attributes (the identity)
 *
 * Senders write the same bytes again and again, so a batch costs one hash per resource; attributes
 * are read only for bytes never seen. resource_metrics_key_attributes makes fewer attributes the
 * identity; what is shown are those of the first that came.
 *
 * Each tenant has one more, its root, without attributes: it carries the machine family, and the
 * overflow row for resources that there is no room for.
 *
 * OWNERSHIP: counted by users (batches under way) and rows; the flush lets go of those without
 * either that have been quiet. THREADS: one lock, taken once per batch. LIMITS: charged to the
 * budget; with no room spans go to the root.
 */
#ifndef CONNECTORS_SPANMETRICS_RESOURCES_H
#define CONNECTORS_SPANMETRICS_RESOURCES_H

#include "base/map.h"
#include "connectors/spanmetrics/series.h"
#include "pipeline/batch.h"
#include "pipeline/option/option.h"

struct resource_alias;

struct span_resource {
	struct span_resource *next; /* of the table's list; the lock */
	char tenant[TENANT_MAX + 1];
	bool is_root;
	bool has_service;                              /* false: its spans are not counted */
	uint64_t hash;                                 /* of tenant and identity */
	struct bytes identity, message, service, host; /* message: a Resource; all owned */
	_Atomic uint32_t n_users;                      /* batches being recorded */
	_Atomic uint32_t n_rows;
	_Atomic uint64_t last_ns;           /* wall clock: when a span came */
	struct series *rows[SERIES_SHARDS]; /* lists; each under the lock of its shard */
	struct resource_alias *aliases;
	uint32_t n_aliases;
	size_t n_bytes; /* charged */
};

struct resource_table {
	pthread_mutex_t lock;
	struct map by_bytes;    /* tenant and bytes as sent -> struct span_resource */
	struct map by_identity; /* tenant and sorted attributes -> struct span_resource */
	struct span_resource *all;
	uint32_t n_forced_roots; /* beyond the limits, ever */
	_Atomic size_t n;        /* of all; written under the lock */
	struct budget *budget;
	const struct strlist *key_attributes; /* empty: all */
	struct series_table *series;          /* whose limits hold here, too */
};

void resource_table_init(struct resource_table *t, struct series_table *series,
			 struct budget *budget, const struct strlist *key_attributes);
/* Before that of the rows, which nobody looks at any more. */
void resource_table_fini(struct resource_table *t);
/* The resources of a batch, in its order, each with one more user; roots where there is no room,
 * NULL where there is none even for that. *root: the tenant's, likewise with a user more (or NULL).
 */
void resources_of(struct resource_table *t, const struct batch *b, uint64_t now_ns,
		  struct span_resource **out, struct span_resource **root);
void resources_done(struct span_resource **v, uint32_t n, struct span_resource *root);
/* The flush: every resource there is, to be walked without the lock. Free the list. */
struct span_resource **resources_list(struct resource_table *t, size_t *n);
/* Forget those without rows and users that were quiet since `before_ns`. */
void resources_sweep(struct resource_table *t, uint64_t before_ns);

#endif
