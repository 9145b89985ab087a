/* SPDX-License-Identifier: Apache-2.0
 *
 * compact_chain.h - the records of a tenant's compactions, one number after the other: who uses
 * which block, decided once.
 *
 *   1. write data, index, bloom-N of the outputs, no meta.json
 *   2. commit: put record <last + 1> if nobody did       <- the one conditional write that decides
 *   3. publish the outputs
 *   4. mark the inputs compacted
 *   (5. delete them, an hour later: compactor.c)
 *
 * Who commits has followed the chain first: every record up to the last one is read and finished
 * (steps 3 and 4 of what a crash left), and the blocks it merges were on a list made after that. So
 * a block is an input once only. EXISTS at step 2: somebody committed meanwhile; their records are
 * followed, and unless one of them used one of our inputs we try the next number.
 *
 * Old records are swept from the lowest number up, by who finished them; the newest stays, so
 * numbers never restart. A process that slept over all that may put a record under a swept number
 * and win. So nothing counts for standing there; what counts is proved from the newest down: the
 * newest number was never swept, so its record was the first there; each names the id of the one
 * before; where another stands, or none, the right one was swept, and whoever did that had finished
 * it and all before. Everybody sees the same, and no clock is asked.
 *
 * A record whose outputs are gone, or had waited for it so long that a sweeper may have begun to
 * take them for orphans (COMPACT_COMMIT_MAX_S, by the store's own clock), is void: its inputs stay.
 *
 * OWNERSHIP, THREADS: a chain is one thread's; borrows backend and tenant.
 * SPEC: docs/formats/compaction.md; docs/decisions/040.
 */
#ifndef BLOCKS_COMPACT_CHAIN_H
#define BLOCKS_COMPACT_CHAIN_H

#include "base/map.h"
#include "blocks/compact_record.h"

/* From when an output was written to when its record was. Sweepers of orphans wait twice that. */
enum { COMPACT_COMMIT_MAX_S = 1800 };

struct compact_chain {
	struct backend *be;
	const char *tenant;
	uint64_t last; /* number of the newest record that is followed; 0: none */
	char last_id[COMPACT_ID];
	bool missed;     /* records were swept, or damaged, before they were read */
	struct map used; /* inputs of the records that were followed */
	/* Told of each output that is visible now. */
	void (*visible)(void *arg, const struct block_meta *m);
	void *arg;
	/* Counts, for who watches. */
	uint64_t n_finished, n_void, n_damaged, n_marked;
	/* Whose record is looked for while following: commit's own. */
	const char *own_id;
	bool own_counts;
};

void compact_chain_init(struct compact_chain *c, struct backend *be, const char *tenant);
void compact_chain_fini(struct compact_chain *c);
/* Read what is new in the chain and finish it. A list of blocks made after this is free of what
 * the records up to now used, but for `used` that came later: compact_chain_is_used. */
int compact_chain_follow(struct compact_chain *c, struct err *err);
/* Begin a list of blocks: forget `used` and `missed` of before it. After follow. */
void compact_chain_begin(struct compact_chain *c);
bool compact_chain_is_used(const struct compact_chain *c, const char *block);

enum compact_commit {
	COMPACT_LOST,      /* an input is used already: delete the outputs */
	COMPACT_COMMITTED, /* the outputs are live, the inputs marked, or will be by who follows */
	/* Our record was put, and does not count: it was swept since, finished by others, or stands
	 * in the place of a swept one, or is void. The outputs may be live: they must stay. Those
	 * that are not are swept as orphans. */
	COMPACT_UNTOLD,
};

/* Steps 2 to 4. -1: it cannot be told, the outputs must stay: who follows next finishes them, or a
 * sweeper finds them. */
int compact_chain_commit(struct compact_chain *c, char (*inputs)[COMPACT_ID], size_t n_inputs,
			 struct block_meta *outputs, size_t n_outputs, struct err *err);
/* Delete finished records older than age_ns, but the newest. */
int compact_chain_sweep(struct compact_chain *c, uint64_t age_ns, struct err *err);

/* Mark one block: meta.json becomes meta.compacted.json. 1 when it was live, 0 when it was not. */
int compact_mark(struct backend *be, const char *tenant, const char *id, struct err *err);

#endif
