/* SPDX-License-Identifier: Apache-2.0
 *
 * meter.c - see meter.h.
 */
#include "base/meter.h"

#include "base/mem.h"

bool meter_charge(struct meter *m, size_t n)
{
	if (m == NULL)
		return true;
	if (!budget_charge(m->budget, n)) {
		m->refused = true;
		m->wanted = MAX(m->wanted, m->charged + n);
		return false;
	}
	m->charged += n;
	return true;
}

void meter_force(struct meter *m, size_t n)
{
	if (m == NULL || meter_charge(m, n))
		return;
	budget_force(m->budget, n);
	m->charged += n;
}

void *meter_grow(struct meter *m, void *p, size_t *cap, size_t need, size_t elem_size)
{
	size_t before = *cap;

	p = xgrow(p, cap, need, elem_size);
	if (*cap > before)
		meter_force(m, (*cap - before) * elem_size);
	return p;
}

void meter_fini(struct meter *m)
{
	budget_release(m->budget, m->charged);
	m->charged = 0;
}
