/* SPDX-License-Identifier: Apache-2.0
 *
 * tenant_index.h - <tenant>/index.json.gz: the metas of all blocks of a tenant in one object, as
 * Tempo writes and reads it.
 *
 *   gzip (FNAME index.json) of
 *   {"created_at": T, "meta": [meta.json ...], "compacted": [meta.json + "compactedTime" ...]}
 *
 * It saves requests and is never the truth: it may be old, missing or damaged, may name a block
 * that is gone, the same block twice, or one as live that is compacted by now. Whoever reads it
 * knows from a listing which blocks there are, and takes from here only what their meta.json would
 * say.
 *
 * An entry that cannot be a block of this tenant is left out and counted: its meta.json will say
 * what is wrong with it. A text that is no such object is refused as a whole.
 * OWNERSHIP: an index owns its arrays and what it charged. THREADS: plain data, any thread.
 * LIMITS: TENANT_INDEX_GZIP_MAX bytes, which inflate by TENANT_INDEX_RATIO at most;
 * TENANT_INDEX_BLOCKS. Memory is charged to the budget before it is taken.
 * SPEC: docs/formats/compaction.md section "Tenant index".
 */
#ifndef BLOCKS_TENANT_INDEX_H
#define BLOCKS_TENANT_INDEX_H

#include "base/budget.h"
#include "blocks/backend.h"
#include "blocks/block_meta.h"

enum {
	TENANT_INDEX_GZIP_MAX = 64 * 1024 * 1024, /* bytes that are read */
	/* An entry of 400 bytes has 16 random ones: more than 25 cannot be true. */
	TENANT_INDEX_RATIO = 100,
	TENANT_INDEX_BLOCKS = 1000 * 1000,
};

struct tenant_index_metas {
	struct block_meta *v;
	size_t n, cap;
};

struct tenant_index {
	struct block_time created_at; /* NONE: not said */
	struct tenant_index_metas live;
	struct tenant_index_metas compacted; /* compacted_at says since when; NONE: not said */
	size_t n_bad;                        /* entries left out */
	struct budget *budget;               /* what the arrays are charged to; NULL: nothing */
};

/* Empty; budget may be NULL. */
void tenant_index_init(struct tenant_index *x, struct budget *budget);
/* Append a copy. EXHAUSTED when the budget refuses, TOO_LARGE past TENANT_INDEX_BLOCKS. */
int tenant_index_add(struct tenant_index *x, struct tenant_index_metas *to,
		     const struct block_meta *m, struct err *err);
/* The bytes of an index.json.gz. INVALID: damaged, or not an index; TOO_LARGE: past the limits;
 * EXHAUSTED: the budget has no room for it now. On error x is empty. Free with fini. */
int tenant_index_decode(struct bytes gzip, const char *tenant, struct budget *budget,
			struct tenant_index *x, struct err *err);
/* Append the bytes of the object to out: equal indexes give equal bytes. */
int tenant_index_encode(const struct tenant_index *x, struct buf *out, struct err *err);
void tenant_index_fini(struct tenant_index *x);

/* "<tenant>/index.json.gz" into out. */
int tenant_index_key(char out[BACKEND_KEY_MAX + 1], const char *tenant, struct err *err);
/* Encode and put it, replacing the one before. */
int tenant_index_write(struct backend *be, const char *tenant, const struct tenant_index *x,
		       struct err *err);

#endif
