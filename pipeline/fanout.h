/* SPDX-License-Identifier: Apache-2.0
 *
 * fanout.h - the edge between components: one emitter, k consumers.
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

/* Hand b on. Takes b and its duty. Any thread. */
void fanout_consume(struct fanout *f, struct batch *b);

#endif
