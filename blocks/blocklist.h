/* SPDX-License-Identifier: Apache-2.0
 *
 * blocklist.h - which blocks there are, per tenant: filled by polling the backend and by this
 * process's own builder.
 *
 * A block is on the list from when its meta.json was seen (or written by us) until a poll finds it
 * gone; a compacted block stays for two more polls, so that a lookup in between finds either the
 * inputs or the output.
 *
 * How it is polled: blocklist_poll.c.
 * A meta.json is read once: blocks never change. One that cannot be read is counted, logged and
 * skipped, never fatal, and read again when it has changed; a snapshot says how many the tenant
 * has, because a trace may be in one of those blocks.
 *
 * THREADS: any; one mutex, held for looks at tables. A snapshot keeps its metas alive; the list
 * outlives its snapshots.
 * LIMITS: metas are 1 KiB each, charged to the budget.
 */
#ifndef BLOCKS_BLOCKLIST_H
#define BLOCKS_BLOCKLIST_H

#include "base/budget.h"
#include "blocks/backend.h"
#include "blocks/block_meta.h"

#include <stdatomic.h>

struct blocklist;

/* A listed block, reference counted and immutable but for own_ns. */
struct listed_block {
	_Atomic uint32_t refs;
	struct blocklist *list;
	uint64_t number; /* its key in caches: never given twice, also when a block comes back */
	_Atomic uint64_t own_ns; /* clock_mono_ns when this process published it; 0: it did not */
	struct block_meta meta;
};

struct block_array;

struct blocklist_snapshot {
	struct listed_block *const *v; /* by id */
	size_t n;
	size_t n_damaged; /* blocks of the tenant whose meta.json could not be read */
	struct block_array *array;
};

struct blocklist *blocklist_new(struct backend *be);
void blocklist_free(struct blocklist *l);
/* Charge what is listed to this budget (forced: a list is never partial). Before the first poll. */
void blocklist_charge(struct blocklist *l, struct budget *budget);
/* fn is told the number of each block that nobody can see any more: off the list, and in no
 * snapshot. Any thread, perhaps under the list's lock: it must not call back. Set before the first
 * poll. */
void blocklist_on_gone(struct blocklist *l, void (*fn)(void *arg, uint64_t number), void *arg);
/* Ask the backend for everything: tenants, blocks, new meta.json files. On error (the backend
 * cannot list, or is away) the old list stays. One poll at a time; others wait. */
int blocklist_poll(struct blocklist *l, struct err *err);
/* As blocklist_poll, but one tenant, and only unless a poll that began at since_ns (clock_mono_ns)
 * or later has ended well: for a reader who must see what is in the backend since then. Many at
 * once cost one poll. */
int blocklist_poll_since(struct blocklist *l, const char *tenant, uint64_t since_ns,
			 struct err *err);
/* A block this process published. */
void blocklist_add(struct blocklist *l, const struct block_meta *m);
/* A block that a commit names: its meta.json may not be there yet, so no poll that misses it takes
 * it off the list before one has seen it. */
void blocklist_add_committed(struct blocklist *l, const struct block_meta *m);
/* The tenant's blocks now; free with blocklist_snapshot_fini. */
void blocklist_snapshot(struct blocklist *l, const char *tenant, struct blocklist_snapshot *out);
void blocklist_snapshot_fini(struct blocklist_snapshot *s);
/* The block is known to be gone from the backend. */
void blocklist_remove(struct blocklist *l, const struct block_meta *m);
/* Blocks of all tenants, and unreadable meta.json files at the last poll. */
size_t blocklist_count(struct blocklist *l);
size_t blocklist_damaged(struct blocklist *l);

struct blocklist_stats {
	uint64_t polls;      /* of everything, that ended well */
	uint64_t metas_read; /* meta.json files asked for */
	uint64_t index_read, index_same,
		index_bad; /* tenant indexes: used, unchanged, unreadable */
};
void blocklist_stats(struct blocklist *l, struct blocklist_stats *out);

#endif
