/* SPDX-License-Identifier: Apache-2.0
 *
 * blocklist_private.h - what blocklist.c and blocklist_poll.c share; for them only.
 */
#ifndef BLOCKS_BLOCKLIST_PRIVATE_H
#define BLOCKS_BLOCKLIST_PRIVATE_H

#include "base/map.h"
#include "blocks/blocklist.h"

#include <pthread.h>

enum entry_state {
	ENTRY_LISTED,    /* it has a block */
	ENTRY_DAMAGED,   /* its meta.json cannot be read */
	ENTRY_PENDING,   /* a folder without meta.json: not published yet, or never */
	ENTRY_COMPACTED, /* what it held is in other blocks; on the list for two more polls */
};

/* In the way of no poll's number, and far from overflow. */
#define BLOCKLIST_AWAITED (UINT64_MAX / 2)

/* A block's folder. */
struct entry {
	struct listed_block *block; /* on the list; NULL: not */
	enum entry_state state;
	/* The tenant's last poll that saw it as what it is; BLOCKLIST_AWAITED: none did yet, and it
	 * stays until one does. */
	uint64_t seen;
	uint64_t folder;         /* compacted: the last poll that saw the folder */
	uint32_t tries;          /* pending: how often it was asked for */
	bool is_final;           /* damaged, and will be until the file changes */
	uint64_t size, mtime_ns; /* of the file that was unreadable */
};

/* Immutable, shared by snapshots. */
struct block_array {
	_Atomic uint32_t refs;
	size_t n;
	struct listed_block *v[];
};

struct tenant {
	struct map entries;
	struct block_array *array; /* NULL: to be made */
	size_t n_blocks;
	size_t n_damaged;             /* of the last poll */
	uint64_t polls;               /* that ended well */
	uint64_t begun_ns;            /* when the last of those began */
	uint64_t visited;             /* the last poll of everything that came by */
	char etag[BACKEND_ETAG_SIZE]; /* of the tenant index that was read; "" */
};

/* The last poll that failed. */
struct failed_poll {
	uint64_t begun_ns;                  /* 0: none did */
	char tenant[BLOCK_META_TENANT + 1]; /* ""; all */
	struct err err;
};

struct blocklist {
	struct backend *be;
	struct budget *budget;     /* NULL: none */
	pthread_mutex_t polling;   /* one poll at a time */
	struct failed_poll failed; /* under `polling` */
	pthread_mutex_t lock;
	struct map tenants;
	uint64_t next_number;
	void (*gone)(void *arg, uint64_t number);
	void *gone_arg;
	uint64_t rounds;           /* polls of everything; under `polling` */
	_Atomic uint64_t begun_ns; /* when the last good one began; 0: none yet */
	_Atomic size_t n_blocks, n_damaged;
	_Atomic uint64_t n_polls, n_metas_read, n_index_read, n_index_same, n_index_bad;
};

/* All under the lock. */
struct tenant *blocklist_tenant(struct blocklist *l, const char *name);
struct entry *blocklist_entry(struct blocklist *l, struct tenant *t, const char *id);
/* Put the block on the list, if none of that id is; it was seen by this poll of the tenant. */
struct entry *blocklist_put(struct blocklist *l, struct tenant *t, const struct block_meta *m,
			    uint64_t poll);
void blocklist_set(struct blocklist *l, struct tenant *t, struct entry *e, struct listed_block *b);
void blocklist_free_entry(struct blocklist *l, struct entry *e);
void blocklist_free_tenant(struct blocklist *l, struct tenant *t);

#endif
