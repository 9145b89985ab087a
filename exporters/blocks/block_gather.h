/* SPDX-License-Identifier: Apache-2.0
 *
 * block_gather.h - brings the runs of spans of the next traces into memory, from requests that stay
 * where they are.
 *
 *   keys in id order   [trace a: 3 spans][trace b: 1] ...  as many as fit into a chunk
 *   reads in the order of their places, spans that lie near each other at once
 *   chunk              [run][run]...[run]   in id order again
 *
 * Rejected: k passes over all requests, each keeping one range of ids. That reads and indexes every
 * byte k times; this reads it twice, and memory does not depend on the size of the section.
 *
 * The bytes were read and checked before; what is read again must have the same checksum.
 * OWNERSHIP: owns its chunk. THREADS: one at a time.
 * LIMITS: chunk_bytes, more for a single trace that is larger; 24 bytes a run of it; one read.
 */
#ifndef EXPORTERS_BLOCKS_BLOCK_GATHER_H
#define EXPORTERS_BLOCKS_BLOCK_GATHER_H

#include "base/err.h"
#include "exporters/blocks/block_builder.h"
#include "exporters/blocks/span_notes.h"

struct block_gather {
	const struct block_input *input;
	const struct span_notes *notes;
	size_t chunk_bytes;
	bool is_changed;     /* a span's bytes were not what they had been */
	bool has_long_reads; /* the order of ids is one of few reads already */
	size_t from, to;     /* keys whose runs are in the chunk */
	uint8_t *chunk;
	size_t cap_chunk;
	size_t *at; /* of run from + i in the chunk */
	size_t cap_at;
	uint64_t *order; /* note << 32 | key - from: sorted, the order of places */
	uint64_t *spare; /* as large */
	size_t cap_order;
	uint8_t *bounce; /* one read */
	size_t cap_bounce;
};

void block_gather_init(struct block_gather *g, const struct block_input *input,
		       const struct span_notes *notes, size_t chunk_bytes);
void block_gather_fini(struct block_gather *g);
/* Fetch the trace whose first key is `from`, and as many of those behind as fit. CORRUPT when bytes
 * are not what they were: begin again. */
int block_gather_load(struct block_gather *g, size_t from, struct err *err);
/* The bytes of the run of key i, which is in [from, to). */
const uint8_t *block_gather_run(const struct block_gather *g, size_t i);
size_t block_gather_memory(const struct block_gather *g);
/* What notes remember of a run's bytes. */
uint32_t block_gather_check(const uint8_t *p, size_t n);

#endif
