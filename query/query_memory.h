/* SPDX-License-Identifier: Apache-2.0
 *
 * query_memory.h - what look-ups and their answers may hold, charged to the process's budget.
 *
 * A trace is held in pieces, then joined, then written out, and the answer until a slow reader has
 * taken it: each is charged before it is made. All look-ups together have three quarters of the
 * budget, so that readers cannot keep receivers from taking spans.
 * THREADS: any.
 */
#ifndef QUERY_QUERY_MEMORY_H
#define QUERY_QUERY_MEMORY_H

#include "base/budget.h"
#include "base/err.h"

struct query_memory {
	struct budget *budget; /* borrowed; NULL: everything is granted */
	_Atomic uint64_t used; /* by look-ups and answers */
};

/* n bytes more for one who holds `own`. 0, or -1: TOO_LARGE when that is more than look-ups could
 * ever have, EXHAUSTED when it is too much now. */
int query_memory_charge(struct query_memory *m, size_t own, size_t n, struct err *err);
void query_memory_release(struct query_memory *m, size_t n);

#endif
