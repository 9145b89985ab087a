/* SPDX-License-Identifier: Apache-2.0
 *
 * compact_merge.h - several blocks become one: data, index and blooms written, no meta.json.
 *
 *   iterator 0  [a][c][f]...
 *   iterator 1  [b][c]......   ->  [a][b][c joined][f]...  -> block_writer
 *
 * Traces come in the order of their ids from each input. One that a single input has passes
 * through as bytes; one in several is joined (trace_join.h). The claim of a shard is kept only
 * while every id is checked to be in it. Every page of the inputs is checked against its index.
 * THREADS: one; blocks on the backend. OWNERSHIP: borrows all.
 * LIMITS: memory is charged before it begins: read-ahead and pages per input, 40 bytes per trace
 * of the output.
 * SPEC: docs/formats/compaction.md section "Merging".
 */
#ifndef BLOCKS_COMPACT_MERGE_H
#define BLOCKS_COMPACT_MERGE_H

#include "base/budget.h"
#include "blocks/block_meta.h"
#include "blocks/block_writer.h"

struct compact_merge {
	struct backend *backend;
	const struct block_meta *inputs; /* of one tenant, format v2, data encoding and shard */
	size_t n_inputs;
	struct block_writer_options writer;
	size_t read_ahead_bytes; /* per input; 0: 4 MiB */
	struct budget *budget;   /* NULL: none */
	/* Called every some traces; -1 with err filled ends the merge. NULL: never. */
	int (*tick)(void *arg, struct err *err);
	void *arg;
	/* ---- what came of it ---- */
	struct block_meta output;
	size_t bad_input;   /* whose fault an error is; n_inputs: nobody's */
	uint64_t too_large; /* of TOO_LARGE: a bit for each input that the joined trace is of */
	uint64_t n_joined, n_duplicates, n_conflicting, n_whole;
};

/* What a merge of these inputs charges. */
size_t compact_merge_memory(const struct compact_merge *m);
/* Write the output and fill m->output. On error nothing of it is left. NOT_FOUND, CORRUPT, ... with
 * bad_input; TOO_LARGE: a joined trace is larger than a page may be; EXHAUSTED: no memory for it
 * now. */
int compact_merge(struct compact_merge *m, struct err *err);

#endif
