/* SPDX-License-Identifier: Apache-2.0
 *
 * query_memory.c - see query_memory.h.
 */
#include "query/query_memory.h"

static uint64_t share(const struct query_memory *m)
{
	return (uint64_t)MAX(atomic_load(&m->budget->limit), 0) / 4 * 3;
}

int query_memory_charge(struct query_memory *m, size_t own, size_t n, struct err *err)
{
	uint64_t most, used;

	if (m->budget == NULL)
		return 0;
	most = share(m);
	if (own > most || n > most - own)
		return err_set(err, ERR_TOO_LARGE,
			       "the answer takes at least %zu bytes of memory, look-ups have %llu: "
			       "protobuf takes less than JSON, and memory_limiter sets the limit",
			       own + n, (unsigned long long)most);
	used = atomic_fetch_add(&m->used, n);
	if (used + n > most || !budget_charge(m->budget, n)) {
		atomic_fetch_sub(&m->used, n);
		return err_set(err, ERR_EXHAUSTED,
			       "memory for look-ups is spent: %llu bytes in use, %zu wanted",
			       (unsigned long long)used, n);
	}
	return 0;
}

void query_memory_release(struct query_memory *m, size_t n)
{
	if (m->budget == NULL || n == 0)
		return;
	atomic_fetch_sub(&m->used, n);
	budget_release(m->budget, n);
}
