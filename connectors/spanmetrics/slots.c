/* SPDX-License-Identifier: Apache-2.0
 *
 * slots.c - see slots.h.
 *
 * A candidate's state is the one word that the row's lock and the telling thread share; both move
 * it away from WAITING by exchange, and who finds the other's word frees the candidate. What was
 * told is looked at when the slot is used next, under the lock.
 *
 * Of candidates that wait when a better one comes, or a new interval begins, a slot keeps the
 * oldest: should the newer one be lost (a filter of every branch dropped it), there is something to
 * show all the same.
 */
#include "connectors/spanmetrics/slots.h"

#include "base/clock.h"
#include "base/mem.h"
#include "wire/span_wish.h"

enum { WAITING, GOOD, BAD, ABANDONED };

#define SHOWN_NS (3600 * NS_PER_S)

struct candidate {
	struct span_watch w;
	_Atomic int state;
	struct exemplar e;
};

struct slot {
	uint32_t bucket;
	bool is_showing;
	uint64_t interval; /* that `offered` and `best` are of */
	uint64_t offered;  /* R + 1 of the last one that may take the slot; 0: open */
	uint64_t best;     /* R + 1 of the last one that competed and is not lost; 0: none */
	struct candidate *newest, *older;
	struct exemplar shown;
	uint64_t shown_ns; /* since when */
};

struct slots {
	uint32_t n, cap;
	struct slot v[];
};

static _Atomic uint64_t n_waiting, n_lost;

bool slots_may_compete(const struct span_ref *sp, uint64_t guard)
{
	enum span_wish wish;

	/* Its th is a lie, for which samplers may drop it. */
	if (sp->th != TH_UNKNOWN && sp->r < sp->th)
		return false;
	wish = span_wish(sp);
	return wish > WISH_DROP || (wish == WISH_NONE && sp->r >= guard);
}

/* ---- candidates ---- */

static void candidate_free(struct candidate *c)
{
	free(c);
	atomic_fetch_sub_explicit(&n_waiting, 1, memory_order_relaxed);
}

static void told(struct span_watch *w, bool is_good)
{
	struct candidate *c = CONTAINER_OF(w, struct candidate, w);

	if (atomic_exchange(&c->state, is_good ? GOOD : BAD) == ABANDONED)
		candidate_free(c);
	else if (!is_good)
		/* After its word: who sees this number finds the slot open. */
		atomic_fetch_add(&n_lost, 1);
}

/* The slot wants it no more. */
static void abandon(struct candidate *c)
{
	if (c != NULL && atomic_exchange(&c->state, ABANDONED) != WAITING)
		candidate_free(c);
}

static struct candidate *candidate_new(const struct slot_bid *bid, const struct span_ref *sp)
{
	struct candidate *c = xcalloc(1, sizeof(*c));

	c->w.ordinal = sp->ordinal;
	c->w.told = told;
	c->e.value_ns = bid->value_ns;
	c->e.time_ns = sp->end_ns;
	c->e.r = sp->r;
	memcpy(c->e.trace_id, sp->trace_id, sizeof(c->e.trace_id));
	memcpy(c->e.span_id, sp->span_id, sizeof(c->e.span_id));
	atomic_fetch_add_explicit(&n_waiting, 1, memory_order_relaxed);
	return c;
}

/* ---- a slot ---- */

/* Times of a series must rise, in the milliseconds that Prometheus keeps, and none lie ahead. */
static void show(struct slot *s, const struct exemplar *e, uint64_t now_ns)
{
	uint64_t time_ns = MIN(e->time_ns, now_ns);

	if (s->is_showing)
		time_ns = MAX(time_ns, s->shown.time_ns + NS_PER_MS);
	s->shown = *e;
	s->shown.time_ns = time_ns;
	s->shown_ns = now_ns;
	s->is_showing = true;
}

/* Look at what one candidate was told; true when it waits no more. */
static bool take_word(struct slot *s, struct candidate **at, uint64_t now_ns, bool *is_lost)
{
	struct candidate *c = *at;
	int state = c != NULL ? atomic_load(&c->state) : WAITING;

	*is_lost = state == BAD;
	if (state == WAITING)
		return false;
	if (state == GOOD)
		show(s, &c->e, now_ns);
	candidate_free(c);
	*at = NULL;
	return true;
}

/* The slot as of now. */
static void refresh(struct slot *s, uint64_t now_ns)
{
	bool is_lost;

	take_word(s, &s->older, now_ns, &is_lost);
	if (take_word(s, &s->newest, now_ns, &is_lost) && is_lost)
		s->offered = s->best = 0;
	/* Its trace has an end, too. */
	if (s->is_showing && now_ns > s->shown_ns + SHOWN_NS)
		s->is_showing = false;
}

static void retire_newest(struct slot *s)
{
	if (s->older == NULL)
		s->older = s->newest;
	else
		abandon(s->newest);
	s->newest = NULL;
}

static struct slot *find(struct slots *slots, uint32_t bucket)
{
	for (uint32_t i = 0; slots != NULL && i < slots->n; i++)
		if (slots->v[i].bucket == bucket)
			return &slots->v[i];
	return NULL;
}

static struct slot *add(struct slots **at, uint32_t bucket)
{
	struct slots *slots = *at;
	uint32_t cap;

	if (slots == NULL || slots->n == slots->cap) {
		cap = slots != NULL ? slots->cap * 2 : 1;
		slots = xrealloc(slots, sizeof(*slots) + cap * sizeof(slots->v[0]));
		if (*at == NULL)
			slots->n = 0;
		slots->cap = cap;
		*at = slots;
	}
	slots->v[slots->n] = (struct slot){ .bucket = bucket };
	return &slots->v[slots->n++];
}

/* The slot, as of this bid's time and interval. */
static struct slot *slot_for(struct slots **at, const struct slot_bid *bid, size_t *grown)
{
	struct slot *s = find(*at, bid->bucket);
	size_t before = slots_bytes(*at);

	if (s == NULL)
		s = add(at, bid->bucket);
	*grown = slots_bytes(*at) - before;
	refresh(s, bid->now_ns);
	if (s->interval != bid->interval) {
		s->interval = bid->interval;
		s->offered = s->best = 0;
		if (s->newest != NULL)
			retire_newest(s);
	}
	return s;
}

bool slots_offer(struct slots **slots, struct slot_bid *bid, uint64_t r, size_t *grown)
{
	struct slot *s = slot_for(slots, bid, grown);

	bid->least = MAX(s->offered, s->best);
	if (r < bid->least)
		return false;
	bid->least = s->offered = r + 1;
	return true;
}

void slots_compete(struct slots **slots, struct slot_bid *bid, const struct batch *b, uint32_t i,
		   size_t *grown)
{
	const struct span_ref *sp = &b->tables.spans[i];
	struct slot *s;

	*grown = 0;
	bid->least = 0;
	if (b->is_detached || b->n_origins == 0)
		return;
	s = slot_for(slots, bid, grown);
	bid->least = s->best;
	if (sp->r < s->best)
		return;
	if (s->newest != NULL)
		retire_newest(s);
	bid->least = s->best = sp->r + 1;
	s->newest = candidate_new(bid, sp);
	origin_watch(b->origins[sp->origin].origin, &s->newest->w);
}

/* ---- reading ---- */

bool slots_exposed(struct slots *slots, uint32_t bucket, uint64_t now_ns, struct exemplar *out)
{
	struct slot *s = find(slots, bucket);

	if (s == NULL)
		return false;
	refresh(s, now_ns);
	*out = s->shown;
	return s->is_showing;
}

void slots_each(struct slots *slots, uint64_t now_ns,
		void (*fn)(void *arg, const struct exemplar *), void *arg)
{
	for (uint32_t i = 0; slots != NULL && i < slots->n; i++) {
		refresh(&slots->v[i], now_ns);
		if (slots->v[i].is_showing)
			fn(arg, &slots->v[i].shown);
	}
}

bool slots_best(struct slots *slots, uint64_t now_ns, struct exemplar *out)
{
	bool any = false;

	for (uint32_t i = 0; slots != NULL && i < slots->n; i++) {
		struct slot *s = &slots->v[i];

		refresh(s, now_ns);
		if (!s->is_showing || (any && s->shown.r <= out->r))
			continue;
		*out = s->shown;
		any = true;
	}
	return any;
}

/* ---- memory ---- */

size_t slots_bytes(const struct slots *slots)
{
	return slots != NULL ? sizeof(*slots) + slots->cap * sizeof(slots->v[0]) : 0;
}

void slots_free(struct slots *slots)
{
	if (slots == NULL)
		return;
	for (uint32_t i = 0; i < slots->n; i++) {
		abandon(slots->v[i].newest);
		abandon(slots->v[i].older);
	}
	free(slots);
	/* Its row may come again in the same interval. */
	atomic_fetch_add(&n_lost, 1);
}

uint64_t slots_n_lost(void)
{
	return atomic_load(&n_lost);
}

uint64_t slots_n_waiting(void)
{
	return atomic_load(&n_waiting);
}
