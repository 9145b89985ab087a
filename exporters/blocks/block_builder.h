/* SPDX-License-Identifier: Apache-2.0
 *
 * block_builder.h - turns the OTLP requests of one tenant into one block: note where every span
 * lies, sort by trace id, gather, write.
 *
 *   requests --otlp_index--> notes, heads --sort--> id order --per trace: otlp_encode-->
 *   block_writer
 *
 * The requests may be in memory as a whole, or be read twice from where they lie: once in their own
 * order, once as a chunk of traces at a time (block_gather.h). Then the memory does not depend on
 * the bytes of the section. A request whose notes were made when it came is read once.
 *
 * Duplicates inside a trace: a span with the same id and kind as an earlier one and equal bytes is
 * left out and counted; with different bytes both are kept and counted as conflicting.
 *
 * OWNERSHIP: borrows the requests' bytes until the build ends. THREADS: one at a time.
 * LIMITS: BLOCK_BUILD_RUN_BYTES a run of spans (span_notes.h), the different resources and scopes,
 * a chunk, the block writer's page, and for the largest trace twice its bytes and 170 a span; all
 * charged (forced) to the budget.
 */
#ifndef EXPORTERS_BLOCKS_BLOCK_BUILDER_H
#define EXPORTERS_BLOCKS_BLOCK_BUILDER_H

#include "base/budget.h"
#include "blocks/block_writer.h"
#include "exporters/blocks/early_notes.h"
#include "exporters/blocks/head_table.h"
#include "exporters/blocks/span_notes.h"
#include "wire/otlp_index.h"

enum {
	BLOCK_BUILD_RUN_BYTES = SPAN_NOTE_BYTES,
	/* of the largest trace, beside twice its bytes: plain and packed */
	BLOCK_BUILD_TRACE_SPAN_BYTES =
		sizeof(struct span_ref) + 3 * sizeof(uint32_t) + 2 * sizeof(struct bytes),
	BLOCK_BUILD_CHUNK_MIN = 64 * 1024,
	BLOCK_BUILD_CHUNK_MAX = 8 * 1024 * 1024,
};

/* Where the processor time went, ns: filled when block_build.times is set. */
struct block_build_times {
	uint64_t index, sort, gather, write; /* write: compression and the backend */
};

struct block_request {
	struct bytes otlp;   /* an ExportTraceServiceRequest */
	const uint8_t *keep; /* one byte per span that may go into the block; NULL: all do */
	/* Instead of otlp and keep, when they were made before: all runs of spans of the request,
	 * and the scopes they name. For inputs with `read`. Both stay until the next call. */
	const struct early_note *notes;
	uint32_t n_notes;
	const struct head_table *heads;
};

/* Requests that are not in one array. */
struct block_input {
	/* 1 with the next request, 0 at the end, -1 when the build must begin again later. Its
	 * bytes stay until the next call, or until the build ends when there is no `read`. */
	int (*next)(void *arg, struct block_request *r, struct err *err);
	/* Bytes of a request that `next` gave, by its number. NULL: they are still where they
	 * were. */
	int (*read)(void *arg, uint32_t request, uint32_t off, uint32_t n, void *to,
		    struct err *err);
	void *arg;
	size_t n_runs; /* of spans in all of them, about; saves growing */
};

struct block_build {
	struct backend *backend;
	const char *tenant;
	const struct block_writer_options *writer;
	struct budget *budget;
	/* When the section's records came: clamps wild span clocks. */
	uint64_t first_wall_ns, last_wall_ns;
	const struct block_input *input; /* NULL: the array that follows */
	const struct bytes *requests; /* OTLP requests, validated once; damaged ones are left out */
	size_t n_requests;
	/* The partition that the section is of, by murmur2 of the id in hex: meta gets it when it
	 * is true of every trace. count 0: none. */
	uint32_t shard_count, shard_index;
	uint64_t chunk_bytes; /* of spans in memory at a time, within the two bounds; 0: the most */
	struct block_build_times *times; /* may be NULL */
	/* out */
	uint64_t n_traces; /* 0: there is no block, and *meta is not filled */
	uint64_t n_spans;  /* found in the requests, duplicates too */
	uint64_t n_duplicates, n_conflicting;
	bool is_changed; /* it failed because `read` gave other bytes than there had been */
};

/* Build and write data, index, blooms; no meta.json. *meta is complete. On error nothing is left
 * behind. */
int block_build(struct block_build *b, struct block_meta *meta, struct err *err);

#endif
