/* SPDX-License-Identifier: Apache-2.0
 *
 * ingest.h - a batch of metrics on its way into the store: names, labels, buckets, exemplars.
 *
 * Everything but the values is worked out before a lock is taken, for a chunk of points at a time;
 * then each shard is locked once per chunk. THREADS: any.
 */
#ifndef EXPORTERS_PROMETHEUS_INGEST_H
#define EXPORTERS_PROMETHEUS_INGEST_H

#include "base/err.h"
#include "exporters/prometheus/store.h"
#include "pipeline/option/option.h"

struct ingest_options {
	struct prometheus_naming naming;
	struct strmap const_labels; /* the user's; attributes of the same name win */
	bool resource_labels;       /* resource attributes as labels of every series */
	bool without_scope;
};

struct ingest_result {
	uint64_t n_taken;                /* points */
	uint64_t n_dropped[DROPPED_MAX]; /* of them */
	uint32_t n_bad_items;            /* metrics that lost a point, DROPPED_OLD apart */
	struct err why;                  /* of the first of these */
};

/* The items of a batch of metrics. tenant: a label when it is not TENANT_DEFAULT; NULL: none. */
void ingest(struct store *s, const struct ingest_options *o, const struct span_tables *tables,
	    const char *tenant, struct ingest_result *result);

#endif
