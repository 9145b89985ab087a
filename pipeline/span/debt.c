/* SPDX-License-Identifier: Apache-2.0
 *
 * debt.c - see debt.h.
 *
 * A record has few origins (the requests of some milliseconds), which mostly come one after the
 * other: only the last few are looked at, one that comes again later is listed again.
 */
#include "pipeline/span/debt.h"

#include "base/mem.h"

enum { LOOK_BACK = 64 };

static uint32_t origin_index(struct span_debt *d, struct origin *o)
{
	size_t i = d->n_origins;

	while (i > 0 && d->n_origins - i < LOOK_BACK)
		if (d->origins[--i].origin == o)
			return (uint32_t)i;
	d->origins = xgrow(d->origins, &d->cap_origins, d->n_origins + 1, sizeof(*d->origins));
	d->origins[d->n_origins] = (struct owed_origin){ .origin = o };
	return (uint32_t)d->n_origins++;
}

void span_debt_take(struct span_debt *d, const struct batch *b, const uint32_t *pick, uint32_t n)
{
	bool owes = !b->is_detached && b->n_origins > 0;
	uint32_t last = UINT32_MAX, index = SPAN_DEBT_NONE;

	d->spans = xgrow(d->spans, &d->cap_spans, d->n_spans + n, sizeof(*d->spans));
	for (uint32_t i = 0; i < n; i++) {
		const struct span_ref *sp = &b->tables.spans[pick ? pick[i] : i];

		if (owes && sp->origin != last) {
			last = sp->origin;
			index = origin_index(d, b->origins[last].origin);
		}
		if (owes)
			d->origins[index].n_spans++;
		d->spans[d->n_spans++] = (struct owing_span){ index, sp->ordinal };
	}
}

void span_debt_take_run(struct span_debt *d, const struct batch *b, uint32_t origin,
			uint32_t ordinal, uint32_t n)
{
	bool owes = !b->is_detached && b->n_origins > 0;
	uint32_t index = SPAN_DEBT_NONE;

	d->spans = xgrow(d->spans, &d->cap_spans, d->n_spans + n, sizeof(*d->spans));
	if (owes) {
		index = origin_index(d, b->origins[origin].origin);
		d->origins[index].n_spans += n;
	}
	for (uint32_t i = 0; i < n; i++)
		d->spans[d->n_spans++] = (struct owing_span){ index, ordinal + i };
}

static void clear(struct span_debt *d)
{
	d->n_spans = d->n_origins = 0;
}

/* Write the marks of the spans whose origin has them. Asked once per origin: another thread may fan
 * out other spans of it meanwhile. */
static void mark_spans(struct span_debt *d, enum verdict v, enum drop_reason reason)
{
	bool any = false;

	for (size_t k = 0; k < d->n_origins; k++)
		any |= d->origins[k].has_marks = origin_has_marks(d->origins[k].origin);
	for (size_t i = 0; any && i < d->n_spans; i++) {
		const struct owing_span *sp = &d->spans[i];

		if (sp->origin != SPAN_DEBT_NONE && d->origins[sp->origin].has_marks)
			origin_mark(d->origins[sp->origin].origin, sp->ordinal, v, reason);
	}
}

void span_debt_settle(struct span_debt *d, enum verdict v, enum drop_reason reason,
		      const struct err *err)
{
	mark_spans(d, v, reason);
	/* An origin may be gone once it is paid; one that stands here twice is not before the
	 * second time. */
	for (size_t k = 0; k < d->n_origins; k++) {
		const struct owed_origin *o = &d->origins[k];

		if (o->has_marks)
			origin_settle_marked(o->origin, o->n_spans, v, err);
		else
			origin_settle(o->origin, o->n_spans, v, reason, err);
	}
	clear(d);
}

static size_t n_withdrawn(const struct span_debt *d)
{
	size_t n = 0;

	for (size_t k = 0; k < d->n_origins; k++)
		n += origin_is_withdrawn(d->origins[k].origin);
	return n;
}

bool span_debt_is_withdrawn(const struct span_debt *d)
{
	return d->n_origins > 0 && n_withdrawn(d) == d->n_origins;
}

bool span_debt_has_withdrawn(const struct span_debt *d)
{
	return n_withdrawn(d) > 0;
}

void span_debt_to_batch(struct span_debt *d, struct batch *b)
{
	assert(b->tables.n_spans == d->n_spans && b->n_origins == 0);
	b->origins = arena_alloc(&b->arena, d->n_origins * sizeof(*b->origins));
	b->n_origins = (uint32_t)d->n_origins;
	b->is_detached = d->n_origins == 0;
	for (size_t k = 0; k < d->n_origins; k++)
		b->origins[k] =
			(struct batch_origin){ d->origins[k].origin, d->origins[k].n_spans };
	for (size_t i = 0; !b->is_detached && i < d->n_spans; i++) {
		struct span_ref *sp = &b->tables.spans[i];

		assert(d->spans[i].origin != SPAN_DEBT_NONE);
		sp->origin = d->spans[i].origin;
		sp->ordinal = d->spans[i].ordinal;
	}
	clear(d);
}

void span_debt_fini(struct span_debt *d)
{
	assert(d->n_spans == 0);
	free(d->spans);
	free(d->origins);
	*d = (struct span_debt){ 0 };
}
