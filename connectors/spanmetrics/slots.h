/* SPDX-License-Identifier: Apache-2.0
 *
 * slots.h - the exemplars of one row: a slot per bucket, which the span with the greatest R takes,
 * and which shows a span only once that can be found.
 *
 *   offered: a processor before the fan-out asks who would take the slot, and tags it (offered_r)
 *   competes: R > the candidate's, R >= T_guard or kept -> CANDIDATE, its span watched
 *   told durable -> EXPOSED until a newer one is; told not -> the slot is open again, and goes on
 *   showing what it showed
 *
 *   slot {exposed: A (interval 6)} {candidate: B, R .97, waits} {of interval 6: C, still waits}
 *
 * Max-R needs no agreement: among the spans that a sampler anywhere keeps (R >= T) is the one with
 * the greatest R, unless it keeps none; and the gate R >= T_guard, which no sampler may pass, sees
 * to that one case. Every interval begins with an open slot.
 *
 * OWNERSHIP: a row owns its slots. A candidate belongs to its slot and, until it was told, to the
 * watch: whoever comes last frees it. THREADS: everything under the lock of the row's shard, but
 * the telling, which takes no lock: it may come from inside an exporter's.
 * LIMITS: slots only for buckets used; two candidates a slot; an exemplar is shown for an hour.
 * SPEC: docs/exemplars.md.
 */
#ifndef CONNECTORS_SPANMETRICS_SLOTS_H
#define CONNECTORS_SPANMETRICS_SLOTS_H

#include "pipeline/batch.h"

struct slots; /* series.slots; NULL: none yet */

struct exemplar {
	uint8_t trace_id[16], span_id[8];
	uint64_t value_ns; /* the duration */
	uint64_t time_ns;  /* the span's end, as far as times of a slot only rise */
	uint64_t r;
};

/* What a span comes to a slot with. */
struct slot_bid {
	uint32_t bucket;   /* of the explicit histogram; slot_of_exponential(); 0 without one */
	uint64_t interval; /* number of the flush interval: now / metrics_flush_interval */
	uint64_t value_ns;
	uint64_t now_ns; /* wall clock */
	uint64_t least;  /* answered: below this R nobody takes the slot in this interval, unless a
			    candidate is lost meanwhile (slots_n_lost) */
};

/* Exponential histograms have a slot per power of two of the duration. */
static inline uint32_t slot_of_exponential(uint64_t value_ns)
{
	return value_ns == 0 ? 0 : 64 - (uint32_t)__builtin_clzll(value_ns);
}

/* May span sp be shown at all? `guard`: component_exemplar_guard(). Kept ones may, whatever R is.
 * Ask this first: it is the cheap question, and needs no lock. */
bool slots_may_compete(const struct span_ref *sp, uint64_t guard);

/* For exemplar_offer: would a span with this R take the slot now? Then the slot remembers, so that
 * of the spans asked about one after the other only new maxima take it. Makes *slots when there are
 * none; returns the bytes that they grew by in *grown (series_account). */
bool slots_offer(struct slots **slots, struct slot_bid *bid, uint64_t r, size_t *grown);

/* For consume, before the batch is settled: span i of b competes (slots_may_compete said yes, and
 * the processor tagged it when there is one). A span of a detached batch never does: nobody tells
 * what becomes of it. *grown as above. */
void slots_compete(struct slots **slots, struct slot_bid *bid, const struct batch *b, uint32_t i,
		   size_t *grown);

/* What the slot of a bucket shows now; false: nothing. */
bool slots_exposed(struct slots *slots, uint32_t bucket, uint64_t now_ns, struct exemplar *out);
/* The one with the greatest R of all buckets: for counters. */
bool slots_best(struct slots *slots, uint64_t now_ns, struct exemplar *out);
/* All that is shown, in no order: calls fn for each. For exponential histograms. */
void slots_each(struct slots *slots, uint64_t now_ns,
		void (*fn)(void *arg, const struct exemplar *), void *arg);

/* What they take now. */
size_t slots_bytes(const struct slots *slots);
/* With the row; candidates that wait free themselves. NULL is fine. */
void slots_free(struct slots *slots);

/* A number that changes when a slot of this process may have become open again. */
uint64_t slots_n_lost(void);

/* For tests and metrics: candidates of this process that wait to be told. */
uint64_t slots_n_waiting(void);

#endif
