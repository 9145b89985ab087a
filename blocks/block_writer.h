/* SPDX-License-Identifier: Apache-2.0
 *
 * block_writer.h - writes the data, index and bloom objects of one v2 block from traces in order of
 * their ids.
 *
 *   add(id, pieces) -> [page buffer] -> cut, compress -> data
 *                          |  one record per page -> index          (finish)
 *                          '- 16 bytes per trace  -> bloom-0..N     (finish, sized for the count)
 *
 * A trace is gathered from its pieces into the page buffer and copied nowhere else before it is
 * compressed; nothing is allocated per trace. meta.json is not written here: see block_publish.
 * OWNERSHIP, THREADS: borrows the backend for its life and pieces for a call; one thread at a time.
 * LIMITS: memory = one page (downsample_bytes plus one object), its compressed form, 16 bytes per
 * trace, 28 per page, at finish the blooms. An object above max_page_bytes is refused: no reader
 * with the same limit could read it.
 * SPEC: docs/formats/tempo-v2-block.md.
 */
#ifndef BLOCKS_BLOCK_WRITER_H
#define BLOCKS_BLOCK_WRITER_H

#include "blocks/backend.h"
#include "blocks/block_meta.h"

/* Zero means the default. */
struct block_writer_options {
	const enum codec_id *encoding; /* NULL: zstd */
	int level;                     /* of the codec: 1 for zstd, 6 for gzip */
	uint32_t downsample_bytes;     /* a page is cut when its plain size passes this: 1 MiB */
	uint32_t index_page_size;      /* 256,000 */
	double bloom_fp;               /* false-positive rate: 0.01 */
	uint32_t bloom_shard_bytes;    /* 102,400 */
	uint32_t max_page_bytes;       /* plain size a page may reach at most: 64 MiB */
	const char *data_encoding;     /* what the objects are: "v2" */
};

struct block_writer;

/* Begin a block. id is a UUID in lower case, or NULL for a random one; o may be NULL. NULL on
 * error. */
struct block_writer *block_writer_open(struct backend *be, const char *tenant, const char *id,
				       const struct block_writer_options *o, struct err *err);
/* Add one trace: its object bytes (block_object.h) are the n pieces joined. INVALID unless id is
 * above the one before; TOO_LARGE above max_page_bytes (the block goes on without it); other errors
 * leave only abort. */
int block_writer_add(struct block_writer *w, const uint8_t id[PAGE_ID], const struct bytes *pieces,
		     size_t n, struct err *err);
/* Traces so far, and bytes: written, plus what waits uncompressed. */
uint64_t block_writer_objects(const struct block_writer *w);
uint64_t block_writer_bytes(const struct block_writer *w);
/* The block's id; borrows. */
const char *block_writer_id(const struct block_writer *w);
/* Write the last page, index and blooms, and fill *m: all but shard and ingested_at; start and end
 * are the extremes of the objects' own times (data encoding v2), which the caller may replace.
 * Frees w. INVALID when no trace was added; on any error what was written is deleted. */
int block_writer_finish(struct block_writer *w, struct block_meta *m, struct err *err);
/* Delete what was written and free w. NULL is fine. */
void block_writer_abort(struct block_writer *w);

#endif
