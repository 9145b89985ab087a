/* SPDX-License-Identifier: Apache-2.0
 *
 * accepted.c - see accepted.h.
 *
 * Each origin of the batch is watched as a request; whoever is told last posts the batch to a loop.
 */
#include "connectors/spanmetrics/accepted.h"

#include "base/mem.h"
#include "net/loop.h"

struct waiting;

struct request_watch {
	struct span_watch w;
	struct waiting *of;
	uint32_t origin; /* of the batch */
};

struct waiting {
	struct accepted *a;
	struct batch *b;
	struct loop_task task;
	_Atomic uint32_t n_open;  /* origins not told of, and the one who watches them */
	_Atomic uint32_t n_taken; /* origins accepted */
	uint8_t *is_accepted;     /* [n_origins] */
	struct request_watch watches[];
};

static void finish(struct waiting *w)
{
	struct accepted *a = w->a;

	batch_unref(w->b);
	free(w->is_accepted);
	free(w);
	atomic_fetch_sub(&a->n_waiting, 1);
}

static void count_on_loop(void *arg)
{
	struct waiting *w = arg;
	bool all = atomic_load(&w->n_taken) == w->b->n_origins;

	w->a->count(w->a->c, w->b, all ? NULL : w->is_accepted);
	finish(w);
}

static void close_one(struct waiting *w)
{
	struct accepted *a = w->a;

	if (atomic_fetch_sub(&w->n_open, 1) > 1)
		return;
	if (atomic_load(&w->n_taken) == 0) {
		finish(w);
		return;
	}
	w->task = (struct loop_task){ .fn = count_on_loop, .arg = w };
	loop_post(component_loop(a->c, atomic_fetch_add(&a->turn, 1)), &w->task);
}

static void told(struct span_watch *sw, bool is_good)
{
	struct request_watch *rw = CONTAINER_OF(sw, struct request_watch, w);
	struct waiting *w = rw->of;

	w->is_accepted[rw->origin] = is_good;
	atomic_fetch_add(&w->n_taken, is_good);
	close_one(w);
}

/* Nothing can make it refused any more. Origins without spans here may be gone. */
static bool is_certain(const struct batch *b)
{
	for (uint32_t i = 0; !b->is_detached && i < b->n_origins; i++)
		if (b->origins[i].n_spans > 0 && !b->origins[i].origin->promised)
			return false;
	return true;
}

static void watch(struct waiting *w, uint32_t origin)
{
	struct request_watch *rw = &w->watches[origin];

	if (w->b->origins[origin].n_spans == 0) {
		atomic_fetch_add(&w->n_taken, 1); /* of no spans */
		close_one(w);
		return;
	}
	*rw = (struct request_watch){
		.w = { .ordinal = WATCH_REQUEST, .told = told },
		.of = w,
		.origin = origin,
	};
	origin_watch(w->b->origins[origin].origin, &rw->w);
}

void accepted_wait(struct accepted *a, struct batch *b)
{
	uint32_t n = b->n_origins;
	struct waiting *w;

	if (is_certain(b)) {
		a->count(a->c, b, NULL);
		return;
	}
	atomic_fetch_add(&a->n_waiting, 1);
	w = xcalloc(1, sizeof(*w) + n * sizeof(w->watches[0]));
	w->a = a;
	w->b = batch_ref(b);
	w->is_accepted = xcalloc(n, 1);
	atomic_init(&w->n_open, n + 1);
	for (uint32_t i = 0; i < n; i++)
		watch(w, i);
	close_one(w);
}

bool accepted_is_idle(struct accepted *a)
{
	return atomic_load(&a->n_waiting) == 0;
}
