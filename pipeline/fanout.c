/* SPDX-License-Identifier: Apache-2.0
 *
 * fanout.c - see fanout.h.
 *
 * DESIGN: readers count themselves in one of two counters, chosen by the turn; whoever waits begins
 * the next turn and waits for the counter of the last one to come to zero, twice: one who had read
 * the turn and not yet counted is waited for the second time. That is two atomic additions per
 * batch that enters the graph, and none per span or per component it passes.
 */
#include "pipeline/fanout.h"

#include "pipeline/telemetry.h"

#include <unistd.h>

enum { WAIT_STEP_US = 100 };

static struct {
	_Atomic unsigned turn;
	_Atomic int64_t inside[2];
} readers;

/* Emitting while in a consume of ours: counted once, by the outermost. */
static _Thread_local unsigned depth;

unsigned fanout_enter(void)
{
	unsigned turn;

	if (depth++ > 0)
		return 0;
	turn = atomic_load(&readers.turn) & 1;
	atomic_fetch_add(&readers.inside[turn], 1);
	return turn;
}

void fanout_leave(unsigned turn)
{
	if (--depth == 0)
		atomic_fetch_sub(&readers.inside[turn], 1);
}

void fanout_wait(void)
{
	assert(depth == 0);
	for (int i = 0; i < 2; i++) {
		unsigned turn = atomic_fetch_add(&readers.turn, 1) & 1;

		while (atomic_load(&readers.inside[turn]) > 0)
			usleep(WAIT_STEP_US);
	}
}

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
	unsigned turn = fanout_enter();

	atomic_fetch_add_explicit(&c->count->outgoing, batch_n_items(b), memory_order_relaxed);
	fanout_consume(atomic_load(&c->out[b->signal]), b);
	fanout_leave(turn);
}
