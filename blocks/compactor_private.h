/* SPDX-License-Identifier: Apache-2.0
 *
 * compactor_private.h - what compactor.c, compact_tenant.c and compact_job.c share; for them only.
 */
#ifndef BLOCKS_COMPACTOR_PRIVATE_H
#define BLOCKS_COMPACTOR_PRIVATE_H

#include "base/map.h"
#include "blocks/compact_chain.h"
#include "blocks/compact_scan.h"
#include "blocks/compactor.h"
#include "blocks/tenant_index.h"

struct compactor {
	struct compactor_options o;
	struct compactor_stats stats;
	struct map tenants; /* name -> struct compact_tenant */
	char owner[COMPACT_ID];
	_Atomic bool stopping;
	struct compactor_sums {
		uint64_t outstanding, unreadable, foreign, set_aside;
	} sums; /* over the tenants of this cycle */
	uint64_t sweep_due_ns; /* clock_mono_ns */
};

struct compact_tenant {
	struct compactor *c;
	char name[BLOCK_META_TENANT + 1];
	struct compact_chain chain;
	bool is_loaded;            /* the index of the store was read */
	bool is_changed;           /* since the index was written */
	struct tenant_index index; /* live and compacted, each ascending by id after a scan */
	struct map refused;        /* block id -> struct compact_refusal * */
	struct map unreadable;     /* block id -> uint64_t *: mtime of its meta.json */
	bool has_foreign;          /* blocks of other formats, said in the log */
	bool is_partial;           /* a meta.json could not be had in this cycle */
	uint64_t now_ns;           /* of the store, when it was listed */
	bool is_seen;              /* by this cycle's listing of tenants */
};

/* A block that could not be merged; owned by compact_tenant.refused. */
struct compact_refusal {
	uint64_t until_ns; /* clock_mono_ns */
	unsigned n;        /* so often in a row */
};

struct compact_tenant *compact_tenant_new(struct compactor *c, const char *name);
void compact_tenant_free(struct compact_tenant *t);
/* All steps. */
int compact_tenant_cycle(struct compact_tenant *t, struct err *err);
/* The merges: from t->index, which they change. -1: some failed, and might succeed later. */
int compact_tenant_merge(struct compact_tenant *t, const struct compact_scan *scan,
			 struct err *err);
/* A block of the live list becomes a compacted one. The list is no longer in order. */
int compact_tenant_retire(struct compact_tenant *t, const char *id, struct err *err);

#endif
