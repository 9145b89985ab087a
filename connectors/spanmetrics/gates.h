/* SPDX-License-Identifier: Apache-2.0
 *
 * gates.h - what a span must beat to take a slot, told without a lock or a look at its row.
 *
 *   (row, bucket, interval, who asks) -> hash -> four of GATES places: {hash ^ R, R}
 *
 * Of n spans that come to a slot in an interval about ln n take it: the others are turned away
 * here. A place is whoever wrote it last, and a word torn between two writers is nobody's: then the
 * row is asked, which knows. In an interval R only rises, unless a candidate is lost; all that is
 * known counts for nothing then (slots_n_lost is part of the hash).
 *
 * THREADS: any, without locks. LIMITS: 16 bytes x GATES, charged.
 */
#ifndef CONNECTORS_SPANMETRICS_GATES_H
#define CONNECTORS_SPANMETRICS_GATES_H

#include "base/base.h"
#include "base/budget.h"

#include <stdatomic.h>

enum { GATES = 1 << 15 };

struct gates;

/* Charged to the budget (may be NULL). */
struct gates *gates_new(struct budget *budget);
/* NULL is fine. */
void gates_free(struct gates *g);
/* gates_is_shut will be asked about this slot. */
void gates_prefetch(const struct gates *g, uint64_t slot);
/* Does a span with this R lose for certain? */
bool gates_is_shut(const struct gates *g, uint64_t slot, uint64_t r);
/* In this interval nobody below R takes the slot. */
void gates_note(struct gates *g, uint64_t slot, uint64_t r);

#endif
