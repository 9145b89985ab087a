/* SPDX-License-Identifier: Apache-2.0
 *
 * budget.c - see budget.h.
 */
#include "base/budget.h"

#include "base/clock.h"

#include <unistd.h>

enum { SHORT_S = 2, PATIENCE_MS = 1000, IDLE_MS = 100 };

static void note_refusal(struct budget *b)
{
	atomic_fetch_add_explicit(&b->refusals, 1, memory_order_relaxed);
	atomic_store_explicit(&b->refused_ns, clock_mono_ns(), memory_order_relaxed);
}

static void note_peak(struct budget *b, int64_t used)
{
	int64_t peak = atomic_load_explicit(&b->peak, memory_order_relaxed);

	while (used > peak && !atomic_compare_exchange_weak(&b->peak, &peak, used)) {
	}
}

bool budget_charge(struct budget *b, size_t n)
{
	int64_t used;

	if (b == NULL)
		return true;
	used = atomic_fetch_add(&b->used, (int64_t)n) + (int64_t)n;
	if (used > b->limit) {
		atomic_fetch_sub(&b->used, (int64_t)n);
		note_refusal(b);
		return false;
	}
	note_peak(b, used);
	return true;
}

void budget_force(struct budget *b, size_t n)
{
	if (b != NULL)
		note_peak(b, atomic_fetch_add(&b->used, (int64_t)n) + (int64_t)n);
}

void budget_force_patiently(struct budget *b, size_t n)
{
	int64_t least;
	int idle = 0;

	if (b == NULL)
		return;
	budget_force(b, n);
	least = atomic_load(&b->used);
	for (int i = 0; i < PATIENCE_MS && idle < IDLE_MS; i++, idle++) {
		int64_t used = atomic_load(&b->used);

		if (used <= atomic_load(&b->limit))
			return;
		if (used < least)
			idle = 0;
		least = MIN(least, used);
		usleep(1000);
	}
}

void budget_release(struct budget *b, size_t n)
{
	int64_t before;

	if (b == NULL)
		return;
	before = atomic_fetch_sub(&b->used, (int64_t)n);
	assert(before >= (int64_t)n);
	(void)before;
}

size_t budget_left(struct budget *b)
{
	int64_t left;

	if (b == NULL)
		return SIZE_MAX;
	left = b->limit - atomic_load_explicit(&b->used, memory_order_relaxed);
	return left > 0 ? (size_t)left : 0;
}

bool budget_allows_body(struct budget *b, size_t n)
{
	int64_t used, limit;

	if (b == NULL || n <= BUDGET_SMALL_BODY)
		return true;
	used = atomic_load_explicit(&b->used, memory_order_relaxed);
	limit = atomic_load_explicit(&b->limit, memory_order_relaxed);
	/* One that needs more than that gets it when next to nothing is used. */
	if (used + (int64_t)n <= limit - limit / BUDGET_RESERVE || used <= limit / 16)
		return true;
	note_refusal(b);
	return false;
}

bool budget_is_short(const struct budget *b)
{
	uint64_t refused_ns;

	if (b == NULL)
		return false;
	refused_ns = atomic_load_explicit(&b->refused_ns, memory_order_relaxed);
	return refused_ns != 0 && clock_mono_ns() - refused_ns < SHORT_S * NS_PER_S;
}

bool budget_is_too_small(const struct budget *b, size_t n)
{
	return b != NULL && n > (uint64_t)MAX(atomic_load(&b->limit), 0);
}

bool budget_connection(struct budget *b, size_t now, size_t most)
{
	int64_t all;

	if (b == NULL)
		return true;
	budget_force(b, now);
	all = atomic_fetch_add(&b->connections, (int64_t)most) + (int64_t)most;
	return all <= b->limit / BUDGET_CONNECTIONS;
}

void budget_connection_end(struct budget *b, size_t now, size_t most)
{
	if (b == NULL)
		return;
	budget_release(b, now);
	atomic_fetch_sub(&b->connections, (int64_t)most);
}
