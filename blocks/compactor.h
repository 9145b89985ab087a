/* SPDX-License-Identifier: Apache-2.0
 *
 * compactor.h - keeps the blocks of a store few and no older than wanted: merges, retires, deletes,
 * and writes the tenant index.
 *
 *   per tenant, in this order (each step relies on those before):
 *   follow the chain   finish what a crash left                        compact_chain.h
 *   scan               what blocks there are, from one listing         compact_scan.h
 *   retention          mark what is due
 *   merge              select, lease, merge, commit, again             compact_select.h, _merge.h
 *   delete             what was marked long ago
 *   index              if anything changed                             tenant_index.h
 *
 * and now and then for the whole store: orphans, old records and leases.
 *
 * Any number of compactors may work on one store, be killed and sleep at any point: no span is
 * lost, none is stored twice (docs/decisions/040). Metas are kept from cycle to cycle and begin
 * with the tenant index; before a block is marked or merged its own meta.json is read again.
 *
 * THREADS: new, cycle and free on one thread; stop and stats on any.
 * LIMITS: a block_meta per block and tenant, charged to the budget; one merge at a time.
 * SPEC: docs/formats/compaction.md.
 */
#ifndef BLOCKS_COMPACTOR_H
#define BLOCKS_COMPACTOR_H

#include "base/budget.h"
#include "blocks/backend.h"
#include "blocks/compact_select.h"

#include <stdatomic.h>

struct compactor;

struct compactor_options {
	struct backend *backend;         /* borrowed */
	struct budget *budget;           /* NULL: none */
	struct compact_rules rules;      /* now_ns is the compactor's */
	uint64_t retention_ns;           /* 0: for ever */
	uint64_t compacted_retention_ns; /* from marked to deleted */
	/* Of a tenant; NULL: retention_ns for all. */
	uint64_t (*retention_of)(void *arg, const char *tenant);
	/* A block this process published. */
	void (*visible)(void *arg, const struct block_meta *m);
	void *arg;
	uint32_t max_page_bytes; /* 0: 64 MiB */
	size_t read_ahead_bytes; /* 0: 4 MiB */
	/* No block of any tenant is kept longer: commits of sections that old go; 0: they stay. */
	uint64_t longest_retention_ns;
	uint64_t tenant_time_ns; /* so long on one tenant's merges, then the next; 0: 5 min */
	uint64_t sweep_every_ns; /* 0: 1 h */
	uint64_t orphan_age_ns;  /* 0: 1 h, and not less */
	uint64_t record_age_ns;  /* of finished ones that go: 0: 10 min */
	bool no_leases;          /* tests */
};

/* Counters, and four gauges. */
struct compactor_stats {
	_Atomic uint64_t cycles, failed_cycles;
	_Atomic uint64_t compactions, blocks_in, bytes_in, bytes_out;
	_Atomic uint64_t lost;     /* merges that somebody else had done */
	_Atomic uint64_t finished; /* records followed, own ones too */
	_Atomic uint64_t void_records, damaged_records;
	_Atomic uint64_t joined, duplicates, conflicting;
	_Atomic uint64_t refused;     /* blocks that cannot be merged: damaged, or too large */
	_Atomic uint64_t postponed;   /* merges for which there was no memory */
	_Atomic uint64_t retired;     /* marked by retention */
	_Atomic uint64_t deleted;     /* blocks */
	_Atomic uint64_t orphans;     /* blocks nobody committed, deleted */
	_Atomic uint64_t indexes;     /* written */
	/* Blocks, as of the end of the last cycle: that could be merged; whose meta.json cannot be
	 * read; of a format that is not merged; left out for a while after a failed merge. */
	_Atomic uint64_t outstanding, unreadable, foreign, set_aside;
};

struct compactor *compactor_new(const struct compactor_options *o);
void compactor_free(struct compactor *c);
/* All tenants once. -1: some of it could not be done, the first reason in err; the rest was. */
int compactor_cycle(struct compactor *c, struct err *err);
/* The same for one tenant. */
int compactor_tenant(struct compactor *c, const char *tenant, struct err *err);
/* A cycle under way ends soon. Any thread. */
void compactor_stop(struct compactor *c);
const struct compactor_stats *compactor_stats(const struct compactor *c);

#endif
