/* SPDX-License-Identifier: Apache-2.0
 *
 * accepted.h - a batch is counted when the requests it came in were accepted, not when it passes.
 *
 * A client that is told "try again" sends the same spans again (a hop that is away: every five
 * seconds), and records of Kafka that were not stored are read again: who counts what passes counts
 * them each time, and cumulative counters cannot take anything back. So `consume` only lets spans
 * compete for slots, hands the batch to accepted_wait, and settles its own share; the numbers are
 * added in `count`, once per span that the ledger calls accepted.
 *
 *   consume: slots, accepted_wait(b) -> settle -> ... the last exporter settles -> a loop: count(b)
 *
 * `count` runs on one of the loops, never inside whoever settled. A request that was promised
 * (ack: early) or has no origin is accepted in any case: then it runs before accepted_wait returns.
 * THREADS: accepted_wait on any. LIMITS: the batch's bytes stay in the budget until then, as long
 * as those who deliver it need anyway.
 */
#ifndef CONNECTORS_SPANMETRICS_ACCEPTED_H
#define CONNECTORS_SPANMETRICS_ACCEPTED_H

#include "pipeline/component.h"

/* is_accepted[o]: of origin o of b (spans[i].origin); NULL: all of it. */
typedef void accepted_fn(struct component *c, struct batch *b, const uint8_t *is_accepted);

/* One per connector; embedded in its state. */
struct accepted {
	struct component *c;
	accepted_fn *count;
	_Atomic int64_t n_waiting; /* batches: not counted yet and not refused */
	_Atomic unsigned turn;     /* of the loops */
};

/* Borrows b, which must not be settled yet by the caller. */
void accepted_wait(struct accepted *a, struct batch *b);
/* Nothing waits any more: for is_drained, and before shutdown frees anything. */
bool accepted_is_idle(struct accepted *a);

#endif
