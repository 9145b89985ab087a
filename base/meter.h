/* SPDX-License-Identifier: Apache-2.0
 *
 * meter.h - what one piece of work holds of the budget: charged as it grows, given back at once.
 *
 *   struct meter m = { .budget = b };
 *   struct arena a = { .meter = &m };   struct buf out = { .meter = &m };
 *   ... work; it stops when m.refused ...
 *   meter_fini(&m);
 *
 * For work whose memory nobody can know beforehand (a JSON text to be decoded). A buffer refuses to
 * grow; what has no way to refuse (an arena, a table) grows, is accounted all the same, and leaves
 * `refused` behind for the work to see: so it passes the limit by one step at most.
 *
 * One thread at a time. A NULL meter, or one without a budget, grants everything.
 */
#ifndef BASE_METER_H
#define BASE_METER_H

#include "base/budget.h"

struct meter {
	struct budget *budget;
	size_t charged;
	size_t wanted; /* what it would have come to, when something was refused */
	bool refused;  /* stays set */
};

/* True and charged, or false, unchanged and refused. */
bool meter_charge(struct meter *m, size_t n);
/* Charged even over the limit; then refused. */
void meter_force(struct meter *m, size_t n);
/* As xgrow (base/mem.h), forced. */
void *meter_grow(struct meter *m, void *p, size_t *cap, size_t need, size_t elem_size);
/* Was anything refused? */
static inline bool meter_is_refused(const struct meter *m)
{
	return m != NULL && m->refused;
}
/* Give all back. */
void meter_fini(struct meter *m);

#endif
