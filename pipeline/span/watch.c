/* SPDX-License-Identifier: Apache-2.0
 *
 * watch.c - see watch.h.
 *
 * A hold is what the origin and the logs share of one watch: each has a reference until it has said
 * its word. The watch is told by the first word that decides: the origin's, or once that said
 * "held", a log's; before the origin has spoken no log may tell it, as it stands in the origin's
 * list.
 */
#include "pipeline/span/watch.h"

#include "base/mem.h"

#include <pthread.h>

enum { HOLDS_MAX = 1 << 16 };

struct watch_hold {
	struct span_watch *w; /* NULL: told */
	uint32_t refs;
	bool is_found;    /* a log delivered it */
	bool has_settled; /* its origin has */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static size_t n_holds; /* lock */

/* ---- collecting ---- */

/* Lock held. A reference for a log, or NULL: too many. */
static struct watch_hold *hold_of(struct span_watch *w)
{
	if (w->hold == NULL && n_holds < HOLDS_MAX) {
		w->hold = xcalloc(1, sizeof(*w->hold));
		w->hold->w = w;
		w->hold->refs = 1;
		n_holds++;
	}
	if (w->hold != NULL)
		w->hold->refs++;
	return w->hold;
}

static struct span_watch *watches_of(const struct batch *b, uint32_t origin)
{
	const struct batch_origin *o = &b->origins[origin];

	return o->n_spans > 0 ? atomic_load_explicit(&o->origin->watches, memory_order_acquire)
			      : NULL;
}

/* A bit per span of this origin that b has; NULL: all. Free it. */
static uint8_t *ordinals_of(const struct batch *b, uint32_t origin)
{
	uint32_t n = b->origins[origin].origin->n_spans;
	uint8_t *bits;

	if (b->origins[origin].n_spans == n)
		return NULL;
	bits = xcalloc(n / 8 + 1, 1);
	for (uint32_t i = 0; i < b->tables.n_spans; i++) {
		const struct span_ref *sp = &b->tables.spans[i];

		if (sp->origin == origin)
			bits[sp->ordinal / 8] |= (uint8_t)(1 << sp->ordinal % 8);
	}
	return bits;
}

static bool is_among(const struct span_watch *w, const uint8_t *bits)
{
	if (w->ordinal == WATCH_REQUEST)
		return false;
	return bits == NULL || (bits[w->ordinal / 8] >> w->ordinal % 8 & 1);
}

static size_t count_watches(const struct batch *b)
{
	size_t n = 0;

	for (uint32_t i = 0; i < b->n_origins; i++)
		for (struct span_watch *w = watches_of(b, i); w != NULL; w = w->next)
			n += w->ordinal != WATCH_REQUEST;
	return n;
}

static void collect(const struct batch *b, uint32_t origin, size_t room, struct held_watches *to)
{
	uint8_t *bits = ordinals_of(b, origin);
	struct watch_hold *h;

	/* More may have been pushed since they were counted; those at the end were there. */
	pthread_mutex_lock(&lock);
	for (struct span_watch *w = watches_of(b, origin); w != NULL && to->n < room; w = w->next)
		if (is_among(w, bits) && (h = hold_of(w)) != NULL)
			to->v[to->n++] = h;
	pthread_mutex_unlock(&lock);
	free(bits);
}

struct held_watches *held_watches_of(const struct batch *b)
{
	size_t room = b->is_detached ? 0 : count_watches(b);
	struct held_watches *h;

	if (room == 0)
		return NULL;
	h = xcalloc(1, sizeof(*h) + room * sizeof(h->v[0]));
	for (uint32_t i = 0; i < b->n_origins; i++)
		if (watches_of(b, i) != NULL)
			collect(b, i, room, h);
	if (h->n > 0)
		return h;
	free(h);
	return NULL;
}

/* ---- telling ---- */

/* Lock held. One word less to come; frees the hold with the last. */
static void let_go(struct watch_hold *h)
{
	if (--h->refs > 0)
		return;
	assert(h->w == NULL);
	free(h);
	n_holds--;
}

/* Lock held. The watch when its time to be told has come. */
static struct span_watch *take_decided(struct watch_hold *h)
{
	struct span_watch *w = h->w;

	/* The last reference is the caller's. */
	if (w == NULL || !h->has_settled || (!h->is_found && h->refs > 1))
		return NULL;
	h->w = NULL;
	return w;
}

static void end_one(struct watch_hold *h, bool is_found)
{
	struct span_watch *w;
	bool is_good;

	pthread_mutex_lock(&lock);
	h->is_found |= is_found;
	is_good = h->is_found;
	w = take_decided(h);
	let_go(h);
	pthread_mutex_unlock(&lock);
	if (w != NULL)
		w->told(w, is_good);
}

void held_watches_end(struct held_watches *list, bool is_found)
{
	struct held_watches *next;

	for (; list != NULL; list = next) {
		next = list->next;
		for (size_t i = 0; i < list->n; i++)
			end_one(list->v[i], is_found);
		free(list);
	}
}

void span_watch_settled(struct span_watch *w, bool is_taken, bool is_found)
{
	struct watch_hold *h = w->hold;

	if (h == NULL) {
		w->told(w, is_found);
		return;
	}
	pthread_mutex_lock(&lock);
	h->has_settled = true;
	is_found = is_taken && (is_found || h->is_found);
	if (!is_taken || is_found || h->refs == 1)
		h->w = NULL;
	else
		w = NULL;
	let_go(h);
	pthread_mutex_unlock(&lock);
	if (w != NULL)
		w->told(w, is_found);
}
