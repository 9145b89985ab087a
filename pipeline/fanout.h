/* SPDX-License-Identifier: Apache-2.0
 *
 * fanout.h - the edge between components: one emitter, k consumers.
 *
 * A reload puts another fan-out in the place of c->out (an atomic pointer, loaded once per batch),
 * then fanout_wait: after it nobody is inside the old one, and what only it led to gets nothing
 * more.
 *
 * Every consumer but best_effort exporters owes a verdict on every span; those get a detached
 * batch, which nobody waits for. The batch is shared, never copied, but for detached ones.
 */
#ifndef PIPELINE_FANOUT_H
#define PIPELINE_FANOUT_H

#include "pipeline/component.h"

struct fanout_target {
	struct component *component;
	bool best_effort;
};

struct fanout {
	struct fanout_target *targets;
	unsigned n;
	unsigned n_owing; /* targets that are not best_effort */
};

/* Hand b on. Takes b and its duty. Any thread, between enter and leave when f may be replaced. */
void fanout_consume(struct fanout *f, struct batch *b);

/* Around the use of a component's `out`, and of what it leads to. They nest on a thread; leave gets
 * what enter returned. */
unsigned fanout_enter(void);
void fanout_leave(unsigned turn);
/* Everybody who was inside when this was called has left. Not from inside. */
void fanout_wait(void);

#endif
