/* SPDX-License-Identifier: Apache-2.0
 *
 * gate.h - stands in the place of a component that ends before its successor starts: holds the
 * batches that come meanwhile.
 *
 * What it holds is charged to the budget by the batches' buffers, so receivers refuse when it is
 * too much; a client whose deadline comes is told to send again, and its batch is not handed on.
 * THREADS: batches come on any; the rest on the main thread.
 */
#ifndef PIPELINE_SERVICE_GATE_H
#define PIPELINE_SERVICE_GATE_H

#include "pipeline/component.h"

struct gate;

/* For the place of `c`, whose counters it counts in. Borrows c until opened. */
struct gate *gate_new(struct component *c);
/* What a fan-out names as its target. */
struct component *gate_component(struct gate *g);
/* Hand what waits to `to`; nobody comes in any more (fanout_wait). Or, when that is NULL, have it
 * sent again by the clients, and also what still comes. Returns how many batches waited. */
size_t gate_open(struct gate *g, struct component *to);
/* After gate_open. NULL is fine. */
void gate_free(struct gate *g);

#endif
