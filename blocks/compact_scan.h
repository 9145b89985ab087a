/* SPDX-License-Identifier: Apache-2.0
 *
 * compact_scan.h - what lies under a tenant, by one listing of all its objects: live blocks,
 * compacted ones, and what is neither.
 *
 * THREADS: plain data, any thread; the scan blocks on the backend. OWNERSHIP: compact_scan_fini.
 * LIMITS: about 100 bytes per block; one LIST request per thousand objects on S3.
 */
#ifndef BLOCKS_COMPACT_SCAN_H
#define BLOCKS_COMPACT_SCAN_H

#include "blocks/backend.h"
#include "blocks/compact_record.h"

/* A folder named by a UUID. */
struct compact_seen {
	char id[COMPACT_ID];
	bool has_data, has_meta, has_compacted;
	bool is_kept;          /* nocompact.flg: Tempo's sign to leave it alone */
	bool has_other;        /* objects that are no part of a v2 block, or folders */
	uint64_t meta_ns;      /* of meta.json; without one, of meta.compacted.json */
	uint64_t compacted_ns; /* when meta.compacted.json appeared, by the store's clock */
	uint64_t newest_ns;    /* of all its objects */
};

struct compact_scan {
	struct compact_seen *v; /* ascending by id */
	size_t n, cap;
	bool has_index; /* index.json.gz is there */
};

int compact_scan(struct backend *be, const char *tenant, struct compact_scan *s, struct err *err);
/* NULL: not there. */
struct compact_seen *compact_scan_find(const struct compact_scan *s, const char *id);
void compact_scan_fini(struct compact_scan *s);

static inline bool compact_is_live(const struct compact_seen *b)
{
	return b->has_meta && b->has_data && !b->has_compacted;
}

#endif
