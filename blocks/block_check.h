/* SPDX-License-Identifier: Apache-2.0
 *
 * block_check.h - fsck of one v2 block: everything in it is held against everything else.
 *
 *   meta.json   parses, names its own folder, is v2
 *   index       size, page checksums, padding, order, contiguity, across pages too
 *   data        every page inflates, every object parses down to its spans' attributes, ids ascend,
 *               last ids and lengths are the index's; counts, size and first and last id are
 *               meta.json's
 *   bloom-N     all there, well formed, and every id of data is in its shard
 *
 * Checking goes on after a damaged page as far as the index (or else the page's own length) leads,
 * so that one report shows all damage. Any thread.
 * LIMITS: those of block_reader.h; 18 bytes per trace and 28 per page of memory.
 */
#ifndef BLOCKS_BLOCK_CHECK_H
#define BLOCKS_BLOCK_CHECK_H

#include "blocks/backend.h"
#include "blocks/block_reader.h"

struct block_finding {
	const char *object; /* "data", "index", "bloom-3", "meta.json" */
	uint64_t offset;    /* in the object: of the page; 0 when it is about the whole */
	const char *what;   /* one line; borrows for the time of the call */
};

typedef void block_check_fn(void *arg, const struct block_finding *f);

struct block_check_result {
	uint64_t traces;     /* whole objects read */
	uint64_t pages;      /* data pages read whole */
	uint64_t data_bytes; /* size of data */
	uint64_t findings;   /* 0 = the block is sound */
};

/* Check <tenant>/<id>, live or compacted. fn (may be NULL) is called for each finding, at most 100
 * times; all are counted. 0 whatever was found; -1 only when the backend could not be asked (err
 * says why). o may be NULL. */
int block_check(struct backend *be, const char *tenant, const char *id,
		const struct block_reader_options *o, block_check_fn *fn, void *arg,
		struct block_check_result *result, struct err *err);

#endif
