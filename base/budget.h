/* SPDX-License-Identifier: Apache-2.0
 *
 * budget.h - the one memory budget: bytes are granted before they are read (DESIGN principle 3).
 *
 * A charge either fits or fails at once; nothing waits in here. What a holder charged it releases,
 * from any thread. The limit may be passed by one forced charge (what is already in memory must be
 * accounted even when it is too much).
 */
#ifndef BASE_BUDGET_H
#define BASE_BUDGET_H

#include "base/base.h"

#include <stdatomic.h>

struct budget {
	_Atomic int64_t used;
	_Atomic int64_t limit; /* bytes */
	_Atomic int64_t peak;  /* highest `used` seen */
	_Atomic uint64_t refusals;
};

#define BUDGET_INIT(bytes)                                                                         \
	{                                                                                          \
		0, (bytes), 0, 0                                                                   \
	}

/* True and accounted, or false and unchanged. NULL budget grants everything. */
bool budget_charge(struct budget *b, size_t n);
/* Account even above the limit. */
void budget_force(struct budget *b, size_t n);
void budget_release(struct budget *b, size_t n);
/* Bytes still to be had; 0 when over. SIZE_MAX without a budget. */
size_t budget_left(struct budget *b);

#endif
