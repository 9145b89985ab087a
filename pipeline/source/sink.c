/* SPDX-License-Identifier: Apache-2.0
 *
 * sink.c - what keeps of a source's spans call; see source.h.
 */
#include "pipeline/source/private.h"

#include "base/mem.h"

int source_attach(struct source *s, struct source_sink *sink, struct err *err)
{
	unsigned i = 0;
	int ret = 0;

	pthread_mutex_lock(&s->lock);
	while (i < SOURCE_SINKS_MAX && s->sinks[i] != NULL)
		i++;
	if (i == SOURCE_SINKS_MAX) {
		ret = err_set(err, ERR_CONFIG,
			      "%s: feeds more than %d exporters that keep sections of it", s->name,
			      SOURCE_SINKS_MAX);
	} else {
		assert(s->head == NULL);
		sink->source = s;
		sink->index = i;
		sink->cursor = NULL;
		sink->claimed = sink->released = sink->whole_to = 0;
		s->sinks[i] = sink;
	}
	pthread_mutex_unlock(&s->lock);
	return ret;
}

void source_detach(struct source_sink *sink)
{
	struct source *s = sink->source;

	pthread_mutex_lock(&s->lock);
	s->sinks[sink->index] = NULL;
	pthread_mutex_unlock(&s->lock);
}

bool source_is_behind(struct source *s)
{
	bool is_behind = false;

	pthread_mutex_lock(&s->lock);
	for (unsigned i = 0; i < SOURCE_SINKS_MAX; i++)
		is_behind |= s->sinks[i] != NULL && s->sinks[i]->is_behind != NULL &&
			     s->sinks[i]->is_behind(s->sinks[i]);
	pthread_mutex_unlock(&s->lock);
	return is_behind;
}

const struct source_record *source_record_of(const struct source_range *r, uint32_t ordinal)
{
	uint32_t lo = 0, hi = r->n_records;

	/* The last record whose first span is not behind this one: empty ones share the number of
	 * their successor. */
	while (hi - lo > 1) {
		uint32_t mid = lo + (hi - lo) / 2;

		if (r->records[mid].first_span <= ordinal)
			lo = mid;
		else
			hi = mid;
	}
	return &r->records[lo];
}

/* ---- arriving ---- */

static enum source_arrival ask(const struct source_sink *sink, const struct source_range *r)
{
	if (r->last < sink->released)
		return SOURCE_STORED;
	return r->share[sink->index].is_refused ? SOURCE_GIVEN_UP : SOURCE_PARKED;
}

enum source_arrival source_ask(struct source_sink *sink, struct source_range *r)
{
	enum source_arrival a;

	pthread_mutex_lock(&sink->source->lock);
	a = ask(sink, r);
	pthread_mutex_unlock(&sink->source->lock);
	return a;
}

static void keep_ordinals(struct source_share *share, uint32_t n, const uint32_t *ordinals)
{
	share->ordinals = xgrow(share->ordinals, &share->cap_ordinals, share->n_ordinals + n,
				sizeof(*share->ordinals));
	memcpy(share->ordinals + share->n_ordinals, ordinals, n * sizeof(*ordinals));
	share->n_ordinals += n;
}

enum source_arrival source_park(struct source_sink *sink, struct source_range *r, uint32_t n,
				const uint32_t *ordinals)
{
	struct source_share *share = &r->share[sink->index];
	enum source_arrival a;

	pthread_mutex_lock(&sink->source->lock);
	a = ask(sink, r);
	if (a == SOURCE_PARKED) {
		share->n_spans += n;
		r->n_parked += n;
		if (ordinals != NULL)
			keep_ordinals(share, n, ordinals);
	}
	pthread_mutex_unlock(&sink->source->lock);
	return a;
}

/* ---- claiming; lock held ---- */

/* Nobody but sinks owes this range a verdict. */
static bool only_parked(const struct source_range *r)
{
	return atomic_load(&r->origin.owed) == (int64_t)r->n_parked;
}

static bool has_arrived(const struct source_range *r, const struct source_share *share)
{
	return share->n_spans + origin_n_tallied(&r->origin) == r->origin.n_spans;
}

/* Order matters: what another thread settles meanwhile moves spans from owed into the tallies or
 * the refusals, never back. */
static bool is_complete(const struct source_range *r, unsigned sink)
{
	if (r->state != SOURCE_UNDER_WAY)
		return r->state == SOURCE_SETTLED;
	return has_arrived(r, &r->share[sink]) ||
	       (only_parked(r) && atomic_load(&r->origin.n_retryable) == 0);
}

/* Some of its spans will not come before others that are here were refused. */
static bool is_doomed(const struct source_range *r, unsigned sink)
{
	return r->state == SOURCE_UNDER_WAY && r->share[sink].n_spans > 0 && only_parked(r) &&
	       atomic_load(&r->origin.n_retryable) > 0 && !has_arrived(r, &r->share[sink]);
}

static void add_records(struct source_claim *c, size_t *cap, const struct source_range *r)
{
	c->records = xgrow(c->records, cap, c->n_records + r->n_records, sizeof(*c->records));
	memcpy(c->records + c->n_records, r->records, r->n_records * sizeof(*r->records));
	c->n_records += r->n_records;
}

bool source_claim(struct source_sink *sink, uint64_t max_spans, struct source_claim *out)
{
	struct source *s = sink->source;
	size_t cap = 0;

	*out = (struct source_claim){ 0 };
	pthread_mutex_lock(&s->lock);
	while (sink->cursor != NULL && is_complete(sink->cursor, sink->index)) {
		struct source_range *r = sink->cursor;
		uint32_t n = r->share[sink->index].n_spans;

		if (out->n_spans > 0 && out->n_spans + n > max_spans)
			break;
		add_records(out, &cap, r);
		out->n_spans += n;
		sink->claimed = r->last + 1;
		sink->cursor = r->next;
	}
	out->is_doomed = sink->cursor != NULL && is_doomed(sink->cursor, sink->index);
	pthread_mutex_unlock(&s->lock);
	return out->n_records > 0;
}

uint64_t source_oldest_unclaimed(struct source_sink *sink)
{
	uint64_t at;

	pthread_mutex_lock(&sink->source->lock);
	at = sink->cursor != NULL ? sink->cursor->added_mono_ns : 0;
	pthread_mutex_unlock(&sink->source->lock);
	return at;
}

/* Lock held: has all come to the sink, or into its store, that lies below `offset`? What was
 * refused has not, wherever it lies. */
static bool has_all_below(const struct source_sink *sink, uint64_t offset)
{
	for (const struct source_range *r = sink->source->head; r != NULL; r = r->next) {
		if (r->last < sink->released || r->state == SOURCE_SETTLED)
			continue;
		if (r->state == SOURCE_REFUSED || r->share[sink->index].is_refused)
			return false;
		if (r->first < offset && !is_complete(r, sink->index))
			return false;
	}
	return true;
}

bool source_is_whole(struct source_sink *sink)
{
	struct source *s = sink->source;
	bool is_whole;

	pthread_mutex_lock(&s->lock);
	is_whole = s->has_caught_up;
	/* Mostly nothing has happened since it was whole. */
	if (is_whole && (s->n_refused > 0 || sink->whole_to < s->whole_to)) {
		is_whole = has_all_below(sink, s->whole_to);
		if (is_whole)
			sink->whole_to = s->whole_to;
	}
	pthread_mutex_unlock(&s->lock);
	return is_whole;
}

/* ---- settling ---- */

/* What a sink has of one range, taken out of it: the origin lives until this is settled. */
struct taken {
	struct origin *origin;
	struct source_share share;
};

struct taken_list {
	struct taken *v;
	size_t n, cap;
};

static void take(struct taken_list *list, struct source_range *r, unsigned sink)
{
	struct source_share *share = &r->share[sink];

	if (share->n_spans == 0)
		return;
	list->v = xgrow(list->v, &list->cap, list->n + 1, sizeof(*list->v));
	list->v[list->n++] = (struct taken){ &r->origin, *share };
	r->n_parked -= share->n_spans;
	*share = (struct source_share){ .is_refused = share->is_refused };
}

/* Without the lock: the last verdict runs range_settled. */
static void settle_taken(struct taken_list *list, enum verdict v, const struct err *err)
{
	for (size_t i = 0; i < list->n; i++) {
		struct origin *o = list->v[i].origin;
		struct source_share *share = &list->v[i].share;
		uint32_t n_marked = (uint32_t)share->n_ordinals;

		for (uint32_t k = 0; k < n_marked; k++)
			origin_mark(o, share->ordinals[k], v, DROP_REASON_MAX);
		/* Both ways can meet in one range: some came before the first fan-out of others. A
		 * call for no spans does not look at the origin. */
		origin_settle(o, share->n_spans - n_marked, v, DROP_REASON_MAX, err);
		origin_settle_marked(o, n_marked, v, err);
		free(share->ordinals);
	}
	free(list->v);
}

void source_settle(struct source_sink *sink, uint64_t upto, enum verdict v, const struct err *err)
{
	struct source *s = sink->source;
	struct taken_list list = { NULL, 0, 0 };

	pthread_mutex_lock(&s->lock);
	for (struct source_range *r = s->head; r != NULL && r->last <= upto; r = r->next)
		take(&list, r, sink->index);
	pthread_mutex_unlock(&s->lock);
	settle_taken(&list, v, err);
}

void source_release(struct source_sink *sink, uint64_t upto)
{
	pthread_mutex_lock(&sink->source->lock);
	sink->released = upto + 1;
	source_trim(sink->source);
	pthread_mutex_unlock(&sink->source->lock);
}

void source_give_up(struct source_sink *sink, uint64_t claimed, const struct err *why)
{
	struct source *s = sink->source;
	struct taken_list list = { NULL, 0, 0 };

	pthread_mutex_lock(&s->lock);
	sink->claimed = claimed;
	sink->cursor = NULL;
	if (s->tail != NULL && s->tail->last >= claimed)
		s->whole_to = MAX(s->whole_to, s->tail->last + 1);
	for (struct source_range *r = s->tail; r != NULL && r->first >= claimed; r = r->prev) {
		sink->cursor = r;
		r->share[sink->index].is_refused = r->state == SOURCE_UNDER_WAY;
		take(&list, r, sink->index);
	}
	pthread_mutex_unlock(&s->lock);
	settle_taken(&list, VERDICT_RETRYABLE, why);
}
