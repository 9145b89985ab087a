/* SPDX-License-Identifier: Apache-2.0
 *
 * gates.c - see gates.h.
 */
#include "connectors/spanmetrics/gates.h"

#include "base/mem.h"

struct gate {
	_Atomic uint64_t check; /* slot ^ r */
	_Atomic uint64_t r;
};

struct gates {
	struct budget *budget;
	struct gate v[GATES];
};

struct gates *gates_new(struct budget *budget)
{
	struct gates *g = xcalloc(1, sizeof(*g));

	g->budget = budget;
	budget_force(budget, sizeof(*g));
	return g;
}

void gates_free(struct gates *g)
{
	if (g == NULL)
		return;
	budget_release(g->budget, sizeof(*g));
	free(g);
}

bool gates_is_shut(const struct gates *g, uint64_t slot, uint64_t r)
{
	const struct gate *at = &g->v[slot & (GATES - 1)];
	uint64_t least = atomic_load_explicit(&at->r, memory_order_relaxed);

	return r < least &&
	       (atomic_load_explicit(&at->check, memory_order_relaxed) ^ least) == slot;
}

void gates_note(struct gates *g, uint64_t slot, uint64_t r)
{
	struct gate *at = &g->v[slot & (GATES - 1)];

	atomic_store_explicit(&at->r, r, memory_order_relaxed);
	atomic_store_explicit(&at->check, slot ^ r, memory_order_relaxed);
}
