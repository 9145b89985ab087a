/* SPDX-License-Identifier: Apache-2.0
 *
 * gates.c - see gates.h.
 */
#include "connectors/spanmetrics/gates.h"

#include "base/mem.h"

enum { WAYS = 4 }; /* places of a slot, side by side in a cache line */

struct gate {
	_Atomic uint64_t check; /* slot ^ r */
	_Atomic uint64_t r;
};

struct gates {
	struct budget *budget;
	_Alignas(64) struct gate v[GATES];
};

struct gates *gates_new(struct budget *budget)
{
	struct gates *g = aligned_alloc(_Alignof(struct gates), sizeof(*g));

	if (g == NULL)
		abort();
	memset(g, 0, sizeof(*g));
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

static size_t set_of(uint64_t slot)
{
	return (slot & (GATES / WAYS - 1)) * WAYS;
}

/* Is it this slot's? Then *r gets what was noted. */
static bool is_of(const struct gate *at, uint64_t slot, uint64_t *r)
{
	*r = atomic_load_explicit(&at->r, memory_order_relaxed);
	return (atomic_load_explicit(&at->check, memory_order_relaxed) ^ *r) == slot;
}

void gates_prefetch(const struct gates *g, uint64_t slot)
{
	__builtin_prefetch(&g->v[set_of(slot)]);
}

bool gates_is_shut(const struct gates *g, uint64_t slot, uint64_t r)
{
	const struct gate *set = &g->v[set_of(slot)];
	uint64_t least;

	for (int i = 0; i < WAYS; i++)
		if (is_of(&set[i], slot, &least))
			return r < least;
	return false;
}

void gates_note(struct gates *g, uint64_t slot, uint64_t r)
{
	struct gate *set = &g->v[set_of(slot)], *at = &set[slot >> 62];
	uint64_t old;

	for (int i = 0; i < WAYS; i++)
		if (is_of(&set[i], slot, &old))
			at = &set[i];

	atomic_store_explicit(&at->r, r, memory_order_relaxed);
	atomic_store_explicit(&at->check, slot ^ r, memory_order_relaxed);
}
