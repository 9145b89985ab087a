/* SPDX-License-Identifier: Apache-2.0
 *
 * early_notes.h - where every run of spans of a batch (span_notes.h) will lie in its record, noted
 * while the batch's index is still in memory, so that the builder need not read and index the
 * record for it.
 *
 *   batch, stored as it came    [request][request]    the bytes of the record
 *   note                        {trace id, offset, length, scope, checksum}
 *
 * Only for batches whose record is the received requests, one after the other. One that was edited
 * or filtered is put together anew: the builder reads it twice.
 *
 * OWNERSHIP: notes are plain data. THREADS: any; a section's by its owner's lock.
 * LIMITS: 32 bytes a run.
 */
#ifndef EXPORTERS_BLOCKS_EARLY_NOTES_H
#define EXPORTERS_BLOCKS_EARLY_NOTES_H

#include "exporters/blocks/head_table.h"
#include "pipeline/batch.h"

struct early_note {
	uint64_t hi, lo;   /* the trace id, big-endian */
	uint32_t off, len; /* of the run in the request; len with SPAN_RUN_BARE */
	uint32_t scope;    /* in the batch's tables; in the section's heads once it is kept there */
	uint32_t check;    /* block_gather_check of the bytes */
};

struct early_notes {
	const struct early_note *v; /* NULL: the batch is not stored as it came */
	uint32_t n;                 /* runs */
};

/* One note per run of spans, in their order, from `arena`. */
struct early_notes early_notes_of(const struct batch *b, struct arena *arena);

/* Those of a section, and the heads they name. Charged (forced) to the budget until the last user
 * is gone: a section may give them up while a builder reads them. Nothing is added then. */
struct section_notes {
	_Atomic unsigned refs;
	struct arena arena;
	struct head_table heads;
	struct budget *budget;
	size_t charged;
};

struct section_notes *section_notes_new(struct budget *budget);
struct section_notes *section_notes_ref(struct section_notes *n);
/* NULL is fine. */
void section_notes_unref(struct section_notes *n);
/* A copy of a batch's notes, naming scopes by their number in the heads. */
const struct early_note *section_notes_add(struct section_notes *n, const struct span_tables *t,
					   const struct early_notes *notes);

#endif
