/* SPDX-License-Identifier: Apache-2.0
 *
 * fanout.c - see fanout.h.
 */
#include "pipeline/fanout.h"

#include "pipeline/telemetry.h"

static void give(struct component *c, struct batch *b)
{
	atomic_fetch_add_explicit(&c->count->incoming, batch_n_items(b), memory_order_relaxed);
	c->type->consume(c, b);
}

static void give_detached(struct fanout *f, struct batch *b)
{
	for (unsigned i = 0; i < f->n; i++)
		if (f->targets[i].best_effort)
			give(f->targets[i].component, batch_detached(b));
}

void fanout_consume(struct fanout *f, struct batch *b)
{
	unsigned left = f->n_owing;

	/* The looking-only branches first: they must not see a batch that was settled and freed. */
	if (f->n > f->n_owing)
		give_detached(f, b);
	if (left == 0) {
		batch_settle(b, VERDICT_DROPPED, DROP_BEST_EFFORT, NULL);
		batch_unref(b);
		return;
	}
	if (left > 1 && !b->is_detached)
		for (uint32_t i = 0; i < b->n_origins; i++)
			origin_fan_out(b->origins[i].origin, b->origins[i].n_spans, left - 1);
	for (unsigned i = 0; i < f->n; i++) {
		if (f->targets[i].best_effort)
			continue;
		/* The last owing branch gets our own reference. */
		give(f->targets[i].component, --left > 0 ? batch_ref(b) : b);
	}
}

void component_emit(struct component *c, struct batch *b)
{
	atomic_fetch_add_explicit(&c->count->outgoing, batch_n_items(b), memory_order_relaxed);
	fanout_consume(c->out[b->signal], b);
}
