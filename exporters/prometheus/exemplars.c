/* SPDX-License-Identifier: Apache-2.0
 *
 * exemplars.c - see exemplars.h.
 */
#include "exporters/prometheus/exemplars.h"

#include "base/mem.h"

static size_t size_of(const struct exemplar *e)
{
	return e != NULL ? sizeof(*e) + e->n_labels : 0;
}

/* The first slot whose key is not below. */
static uint32_t place_of(const struct exemplars *x, int32_t key)
{
	uint32_t lo = 0, hi = x->n;

	while (lo < hi) {
		uint32_t mid = lo + (hi - lo) / 2;

		if (x->slots[mid].key < key)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

/* NULL: there are too many. */
static struct exemplar_slot *slot_for(struct exemplars *x, int32_t key)
{
	uint32_t at = place_of(x, key);

	if (at < x->n && x->slots[at].key == key)
		return &x->slots[at];
	if (x->n == EXEMPLAR_SLOTS)
		return NULL;
	if (x->n == x->room) {
		x->room = x->room > 0 ? MIN(2 * x->room, (uint32_t)EXEMPLAR_SLOTS) : 1;
		x->slots = xrealloc(x->slots, x->room * sizeof(*x->slots));
		x->bytes += (x->room - x->n) * sizeof(*x->slots);
	}
	memmove(x->slots + at + 1, x->slots + at, (x->n - at) * sizeof(*x->slots));
	x->n++;
	x->slots[at] = (struct exemplar_slot){ .key = key };
	return &x->slots[at];
}

static struct exemplar *copy(const struct exemplar_offer *o)
{
	struct exemplar *e = xmalloc(sizeof(*e) + o->labels.n);

	e->time_ms = o->time_ms;
	e->value = o->value;
	e->n_labels = (uint32_t)o->labels.n;
	if (o->labels.n > 0)
		memcpy(e->labels, o->labels.p, o->labels.n);
	return e;
}

/* May a newer one take its place? What nobody saw yet need not be held. */
static bool is_free(const struct exemplar_slot *s, uint64_t now_ns)
{
	return s->n_scrapes == 0 || s->n_scrapes >= EXEMPLAR_SCRAPES ||
	       now_ns - s->since_ns > EXEMPLAR_AGE_NS;
}

static void drop(struct exemplars *x, struct exemplar *e)
{
	x->bytes -= size_of(e);
	free(e);
}

static void promote(struct exemplars *x, struct exemplar_slot *s, uint64_t now_ns)
{
	drop(x, s->shown);
	s->shown = s->next;
	s->next = NULL;
	s->n_scrapes = 0;
	s->since_ns = now_ns;
}

void exemplars_offer(struct exemplars *x, const struct exemplar_offer *o, uint64_t now_ns)
{
	struct exemplar_slot *s = slot_for(x, o->key);
	const struct exemplar *newest;

	if (s == NULL)
		return;
	newest = s->next != NULL ? s->next : s->shown;
	if (newest != NULL && o->time_ms <= newest->time_ms)
		return;
	drop(x, s->next);
	s->next = copy(o);
	x->bytes += size_of(s->next);
	if (is_free(s, now_ns))
		promote(x, s, now_ns);
}

static const struct exemplar *show(struct exemplars *x, struct exemplar_slot *s, bool is_scrape,
				   uint64_t now_ns)
{
	if (s->next != NULL && is_free(s, now_ns))
		promote(x, s, now_ns);
	s->n_scrapes += is_scrape;
	return s->shown;
}

const struct exemplar *exemplars_show(struct exemplars *x, int32_t key, bool is_scrape,
				      uint64_t now_ns)
{
	uint32_t at = place_of(x, key);

	return at < x->n && x->slots[at].key == key ? show(x, &x->slots[at], is_scrape, now_ns)
						    : NULL;
}

const struct exemplar *exemplars_show_up_to(struct exemplars *x, int32_t key, bool is_scrape,
					    uint64_t now_ns)
{
	uint32_t at = place_of(x, key);

	if (at < x->n && x->slots[at].key == key)
		return show(x, &x->slots[at], is_scrape, now_ns);
	return at > 0 ? show(x, &x->slots[at - 1], is_scrape, now_ns) : NULL;
}

void exemplars_fini(struct exemplars *x)
{
	for (uint32_t i = 0; i < x->n; i++) {
		free(x->slots[i].shown);
		free(x->slots[i].next);
	}
	free(x->slots);
	*x = (struct exemplars){ 0 };
}
