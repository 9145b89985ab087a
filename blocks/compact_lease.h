/* SPDX-License-Identifier: Apache-2.0
 *
 * compact_lease.h - who works on a group of blocks now, so that two compactors do not do the same.
 *
 *   _spanmill/leases/compaction/<tenant>/<group>/<slot>.json     slot = clock of the store / 60 s
 *
 * Who puts the slot's object first has the group until the slot ends, and keeps it by putting the
 * next slot's before. For efficiency only: what is wrong here (clocks, a process that sleeps) costs
 * work done twice, of which compact_chain.h lets one count.
 * THREADS: a lease is one thread's; blocks on the backend.
 * SPEC: docs/formats/compaction.md section "Leases".
 */
#ifndef BLOCKS_COMPACT_LEASE_H
#define BLOCKS_COMPACT_LEASE_H

#include "blocks/backend.h"
#include "blocks/compact_record.h"
#include "blocks/compact_select.h"

enum { COMPACT_LEASE_S = 60 };

struct compact_lease {
	struct backend *be;
	const char *owner; /* a UUID; borrowed */
	char tenant[BLOCK_META_TENANT + 1];
	char group[COMPACT_GROUP];
	uint64_t slot; /* held; 0: none */
};

/* 1 it is ours, 0 somebody else's, -1. */
int compact_lease_take(struct compact_lease *l, struct backend *be, const char *owner,
		       const char *tenant, const char *group, struct err *err);
/* To be called now and then while working: puts the next slot's object when this one's is near its
 * end. A failure costs the lease, nothing else. */
void compact_lease_renew(struct compact_lease *l);
/* Give it back early. */
void compact_lease_release(struct compact_lease *l);
/* Delete the objects of slots that ended more than age_ns ago. */
int compact_lease_sweep(struct backend *be, uint64_t age_ns, struct err *err);

#endif
