/* SPDX-License-Identifier: Apache-2.0
 *
 * early_notes.h - where every span of a batch will lie in its record, noted while the batch's index
 * is still in memory, so that the builder need not read and index the record for it.
 *
 *   batch, stored as it came    [request][request]    the bytes of the record
 *   note                        {trace id, offset, length, scope, checksum}
 *
 * Only for batches whose record is the received requests, one after the other. One that was edited
 * or filtered is put together anew: the builder reads it twice.
 *
 * OWNERSHIP: plain data. THREADS: any. LIMITS: 32 bytes a span.
 */
#ifndef EXPORTERS_BLOCKS_EARLY_NOTES_H
#define EXPORTERS_BLOCKS_EARLY_NOTES_H

#include "pipeline/batch.h"

struct early_note {
	uint64_t hi, lo;   /* the trace id, big-endian */
	uint32_t off, len; /* of the Span message in the request */
	uint32_t scope;    /* in the batch's tables; in the section's heads once it is kept there */
	uint32_t check;    /* block_gather_check of the bytes */
};

/* One note per span, in their order, from `arena`. NULL: the batch is not stored as it came. */
struct early_note *early_notes_of(const struct batch *b, struct arena *arena);

#endif
