/* SPDX-License-Identifier: Apache-2.0
 *
 * budget.c - see budget.h.
 */
#include "base/budget.h"

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
		atomic_fetch_add_explicit(&b->refusals, 1, memory_order_relaxed);
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
