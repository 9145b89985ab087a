/* SPDX-License-Identifier: Apache-2.0
 *
 * memory_keeper.c - see memory_keeper.h.
 */
#include "pipeline/service/memory_keeper.h"

#include "base/log.h"
#include "base/rcbuf.h"
#include "pipeline/service/system.h"

#include <malloc.h>

enum { INTERVAL_MS = 1000, LOSS_SHARE = 16, STEP_MIB = 4, LOSS_MIN_MIB = 8 };

/* Resident bytes that neither the start nor the budget explains. */
static uint64_t loss(const struct memory_keeper *k)
{
	uint64_t known = k->base + (uint64_t)MAX(atomic_load(&k->budget->used), 0);
	uint64_t anonymous = system_memory_anonymous();

	return anonymous > known ? anonymous - known : 0;
}

static void tick(void *arg)
{
	struct memory_keeper *k = arg;
	uint64_t allowed =
		MAX((uint64_t)atomic_load(&k->budget->limit) / LOSS_SHARE, LOSS_MIN_MIB * MIB);
	uint64_t before = loss(k);

	k->floor = MIN(k->floor, before);
	/* What stays after a trim is in use, though nobody told the budget: not again for that. */
	if (before > allowed && before > k->floor + STEP_MIB * MIB) {
		rcbuf_trim();
		malloc_trim(0);
		k->floor = loss(k);
		log_debug("gave memory back", "bytes", LOG_NUM(before - MIN(k->floor, before)));
	}
	loop_timer_start(k->loop, &k->timer, INTERVAL_MS);
}

void memory_keeper_start(struct memory_keeper *k, struct loop *loop, struct budget *budget)
{
	*k = (struct memory_keeper){ .loop = loop, .budget = budget };
	k->timer = (struct loop_timer){ .fn = tick, .arg = k };
	k->base = system_memory_anonymous();
	loop_call(loop, tick, k);
}

static void stop_on_loop(void *arg)
{
	struct memory_keeper *k = arg;

	loop_timer_stop(k->loop, &k->timer);
}

void memory_keeper_stop(struct memory_keeper *k)
{
	if (k->loop != NULL)
		loop_call(k->loop, stop_on_loop, k);
	k->loop = NULL;
}
