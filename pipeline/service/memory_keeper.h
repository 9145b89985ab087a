/* SPDX-License-Identifier: Apache-2.0
 *
 * memory_keeper.h - gives memory that was freed back to the system.
 *
 * malloc keeps what is freed in its heaps, and a burst of small allocations (the headers of ten
 * thousand streams) leaves them full of holes: they count as resident while the budget has long
 * given the same bytes to somebody else. Once a second the keeper compares what the process holds
 * with what the budget knows, and trims the heaps when that is much.
 *
 * THREADS: start and stop on the main thread; the work is done on the loop.
 */
#ifndef PIPELINE_SERVICE_MEMORY_KEEPER_H
#define PIPELINE_SERVICE_MEMORY_KEEPER_H

#include "base/budget.h"
#include "net/loop.h"

struct memory_keeper {
	struct loop *loop;
	struct loop_timer timer;
	struct budget *budget;
	uint64_t base;  /* resident when nothing was used yet; bytes */
	uint64_t floor; /* unaccounted bytes that trimming did not bring back */
};

/* Take what the process holds now as its own. Borrows loop and budget until memory_keeper_stop. */
void memory_keeper_start(struct memory_keeper *k, struct loop *loop, struct budget *budget);
/* A zeroed one is fine. */
void memory_keeper_stop(struct memory_keeper *k);

#endif
