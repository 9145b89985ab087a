/* SPDX-License-Identifier: Apache-2.0
 *
 * trace_join.h - the fragments of one trace, from several blocks, as one object.
 *
 *   object 0   [times][segments ................]          stays as it is
 *   object 1          [segment: 2 spans known, 1 new]  ->  [segment of the new one]
 *   object 2          [segment: all new]               ->  [segment]
 *
 * A span that is there already, equal bytes under equal resource and scope, is left out and counted
 * as a duplicate. The same id and kind with other bytes are both kept, counted as conflicting.
 * Nothing else is ever left out: a segment that cannot be indexed (damaged by others, or larger
 * than memory allows) is kept whole.
 * OWNERSHIP: pieces borrow from the objects and the join, until its next call. THREADS: one.
 * LIMITS: tables of spans, about 250 bytes each, charged to the budget.
 * SPEC: docs/formats/compaction.md section "Joining".
 */
#ifndef BLOCKS_TRACE_JOIN_H
#define BLOCKS_TRACE_JOIN_H

#include "base/arena.h"
#include "base/budget.h"
#include "base/err.h"

struct trace_join {
	struct budget *budget; /* NULL: none */
	struct arena arena;
	uint64_t seed; /* of hashes: senders choose the bytes */
	struct bytes *pieces;
	size_t n, cap;
	uint64_t n_joined; /* traces that were in several blocks */
	uint64_t n_duplicates, n_conflicting;
	uint64_t n_whole; /* segments that could not be looked into */
};

void trace_join_init(struct trace_join *j, struct budget *budget);
void trace_join_fini(struct trace_join *j);
/* Join n objects of one trace and one data encoding ("v1", "v2"): the result is the j->n pieces.
 * CORRUPT: *bad is the object that is no object. */
int trace_join(struct trace_join *j, const struct bytes *objects, size_t n,
	       const char *data_encoding, size_t *bad, struct err *err);

#endif
