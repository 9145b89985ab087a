/* SPDX-License-Identifier: Apache-2.0
 *
 * block_builder.h - turns the OTLP requests of one tenant into one block: index, sort by trace id, gather, write.
 *
 *   requests --otlp_index--> one set of tables --sort--> pick order --per trace: otlp_encode--> block_writer
 *
 * Duplicates inside a trace: a span with the same id and kind as an earlier one and equal bytes is left out and counted;
 * with different bytes both are kept and counted as conflicting.
 *
 * OWNERSHIP: borrows the requests' bytes until the build ends. THREADS: one at a time.
 * LIMITS: 120 bytes of tables and 24 of sort key a span beside the requests, charged (forced) to the budget.
 */
#ifndef EXPORTERS_BLOCKS_BLOCK_BUILDER_H
#define EXPORTERS_BLOCKS_BLOCK_BUILDER_H

#include "base/budget.h"
#include "blocks/block_writer.h"
#include "wire/otlp_index.h"

struct block_build {
	struct backend *backend;
	const char *tenant;
	const struct block_writer_options *writer;
	struct budget *budget;
	uint64_t first_wall_ns, last_wall_ns;	/* when the section's records came: clamps wild span clocks */
	const struct bytes *requests;		/* validated OTLP requests */
	size_t n_requests;
	/* out */
	uint64_t n_spans, n_duplicates, n_conflicting;
};

/* Build and write data, index, blooms; no meta.json. *meta is complete. On error nothing is left behind. */
int block_build(struct block_build *b, struct block_meta *meta, struct err *err);

#endif
