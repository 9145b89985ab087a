/* SPDX-License-Identifier: Apache-2.0
 *
 * block_builder.h - turns the OTLP requests of one tenant into one block: index, sort by trace id,
 * gather, write.
 *
 *   requests --otlp_index--> one set of tables --sort--> pick order --per trace: otlp_encode-->
 *   block_writer
 *
 * Duplicates inside a trace: a span with the same id and kind as an earlier one and equal bytes is
 * left out and counted; with different bytes both are kept and counted as conflicting.
 *
 * OWNERSHIP: borrows the requests' bytes until the build ends. THREADS: one at a time.
 * LIMITS: 180 bytes a span beside the requests and twice the largest trace, charged (forced) to the
 * budget.
 */
#ifndef EXPORTERS_BLOCKS_BLOCK_BUILDER_H
#define EXPORTERS_BLOCKS_BLOCK_BUILDER_H

#include "base/budget.h"
#include "blocks/block_writer.h"
#include "wire/otlp_index.h"

/* Where the time went: filled when block_build.times is set. Nanoseconds. */
struct block_build_times {
	uint64_t index, sort, gather, write; /* write: compression and the backend */
};

struct block_build {
	struct backend *backend;
	const char *tenant;
	const struct block_writer_options *writer;
	struct budget *budget;
	/* When the section's records came: clamps wild span clocks. */
	uint64_t first_wall_ns, last_wall_ns;
	const struct bytes *requests; /* OTLP requests, validated once; damaged ones are left out */
	size_t n_requests;
	struct block_build_times *times; /* may be NULL */
	/* out */
	uint64_t n_traces; /* 0: there is no block, and *meta is not filled */
	uint64_t n_spans;  /* found in the requests, duplicates too */
	uint64_t n_duplicates, n_conflicting;
};

/* Build and write data, index, blooms; no meta.json. *meta is complete. On error nothing is left
 * behind. */
int block_build(struct block_build *b, struct block_meta *meta, struct err *err);

#endif
