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
	_Atomic uint64_t refused_ns; /* clock_mono_ns of the last one */
	_Atomic uint64_t refused_spans; /* of requests that were read before there was no room */
	_Atomic int64_t connections; /* what open connections could come to hold */
};

#define BUDGET_INIT(bytes)                                                                         \
	{                                                                                          \
		.limit = (bytes)                                                                   \
	}

enum {
	BUDGET_SMALL_BODY = 64 * 1024, /* one that may have the last of the budget */
	BUDGET_RESERVE = 8,            /* the part that larger ones leave alone: one in eight */
	BUDGET_CONNECTIONS = 2,        /* the part that connections may come to hold: a half */
};

/* True and accounted, or false and unchanged. NULL budget grants everything. */
bool budget_charge(struct budget *b, size_t n);
/* Account even above the limit. */
void budget_force(struct budget *b, size_t n);
/* The same before n bytes are taken, on a thread that may wait: until others have given back what
 * is over the limit, but at most a second, and 100 ms in which nobody gave anything back. Nobody
 * new is granted anything meanwhile. */
void budget_force_patiently(struct budget *b, size_t n);
void budget_release(struct budget *b, size_t n);
/* Bytes still to be had; 0 when over. SIZE_MAX without a budget. */
size_t budget_left(struct budget *b);

/* May a request that promises n bytes be granted them? Large ones leave an eighth to small ones, so
 * that a few which promise much and send nothing do not keep everybody out. What it allows must
 * still be charged. */
bool budget_allows_body(struct budget *b, size_t n);
/* Was somebody refused in the last two seconds? Then those who hold memory and do nothing for it
 * should give it back. */
bool budget_is_short(const struct budget *b);
/* Could n bytes never be had, not even when nothing else is? False without a budget. */
bool budget_is_too_small(const struct budget *b, size_t n);

/* A connection opened: `now` bytes are charged (forced), and it may come to `most`. False when all
 * connections together could then hold more than half of the limit: time to close an idle one. */
bool budget_connection(struct budget *b, size_t now, size_t most);
/* It closed; the same numbers, `now` as it is by now. */
void budget_connection_end(struct budget *b, size_t now, size_t most);

#endif
