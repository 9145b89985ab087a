/* SPDX-License-Identifier: Apache-2.0
 *
 * source.c - see source.h: the list of ranges, and the receiver's side. What sinks call is
 * sink.c.
 */
#include "pipeline/source/private.h"

#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"
#include "pipeline/telemetry.h"

#include <stdio.h>

/* ---- life ---- */

struct source *source_new(const struct source_options *o)
{
	struct source *s = xcalloc(1, sizeof(*s));

	s->name = xstrdup(o->name);
	s->partition = o->partition;
	s->n_partitions = o->n_partitions;
	s->count = o->count;
	s->budget = o->budget;
	atomic_init(&s->refs, 1);
	pthread_mutex_init(&s->lock, NULL);
	return s;
}

static void source_ref(struct source *s)
{
	atomic_fetch_add(&s->refs, 1);
}

void source_unref(struct source *s)
{
	if (s == NULL || atomic_fetch_sub(&s->refs, 1) != 1)
		return;
	assert(s->head == NULL);
	pthread_mutex_destroy(&s->lock);
	free(s->name);
	free(s);
}

const char *source_name(const struct source *s)
{
	return s->name;
}

uint32_t source_partition(const struct source *s)
{
	return s->partition;
}

uint32_t source_n_partitions(const struct source *s)
{
	return s->n_partitions;
}

void source_set_low_watermark(struct source *s, uint64_t offset)
{
	atomic_store(&s->low_watermark, offset);
}

uint64_t source_low_watermark(const struct source *s)
{
	return atomic_load(&s->low_watermark);
}

void source_segment(const char *text, char out[SOURCE_SEGMENT_MAX + 1])
{
	enum { HASH = 17, ROOM = SOURCE_SEGMENT_MAX - HASH };
	size_t n = 0;
	const char *p = text;

	for (; *p && n + 3 <= ROOM; p++) {
		char c = *p;
		bool is_plain = (c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'z') ||
				c == '_' || c == '-' || (c == '.' && n > 0);

		if (is_plain)
			out[n++] = c;
		else
			n += (size_t)snprintf(out + n, 4, "%%%02X", (unsigned char)c);
	}
	out[n] = '\0';
	if (*p || n == 0)
		snprintf(out + n, HASH + 1, "~%016llx",
			 (unsigned long long)hash_xxh64(text, strlen(text), 0));
}

/* ---- the list; lock held ---- */

static void link_before(struct source *s, struct source_range *r, struct source_range *next)
{
	r->next = next;
	r->prev = next ? next->prev : s->tail;
	if (r->prev)
		r->prev->next = r;
	else
		s->head = r;
	if (next)
		next->prev = r;
	else
		s->tail = r;
	for (unsigned i = 0; i < SOURCE_SINKS_MAX; i++) {
		struct source_sink *sink = s->sinks[i];

		if (sink != NULL && r->first >= sink->claimed &&
		    (sink->cursor == NULL || r->first < sink->cursor->first))
			sink->cursor = r;
	}
}

static void unlink_range(struct source *s, struct source_range *r)
{
	for (unsigned i = 0; i < SOURCE_SINKS_MAX; i++)
		if (s->sinks[i] != NULL && s->sinks[i]->cursor == r)
			s->sinks[i]->cursor = r->next;
	if (r->prev)
		r->prev->next = r->next;
	else
		s->head = r->next;
	if (r->next)
		r->next->prev = r->prev;
	else
		s->tail = r->prev;
	if (s->hint == r)
		s->hint = NULL;
	if (s->newest == r)
		s->newest = NULL;
	s->n_refused -= r->state == SOURCE_REFUSED;
	s->n_awaited -= r->is_awaited;
}

static size_t range_bytes(const struct source_range *r)
{
	return sizeof(*r) + r->n_records * sizeof(*r->records);
}

/* Unlinked, all settled. Never the source's last reference: the caller works with it. */
static void range_free(struct source_range *r)
{
	struct source *s = r->source;

	for (unsigned i = 0; i < SOURCE_SINKS_MAX; i++)
		free(r->share[i].ordinals);
	budget_release(s->budget, range_bytes(r));
	free(r->records);
	free(r);
	atomic_fetch_sub(&s->refs, 1);
}

static bool is_released(const struct source *s, const struct source_range *r)
{
	for (unsigned i = 0; i < SOURCE_SINKS_MAX; i++)
		if (s->sinks[i] != NULL && s->sinks[i]->released <= r->last)
			return false;
	return true;
}

void source_trim(struct source *s)
{
	while (s->head != NULL && s->head->state == SOURCE_SETTLED && is_released(s, s->head)) {
		struct source_range *r = s->head;

		s->committable = r->last + 1;
		unlink_range(s, r);
		range_free(r);
	}
}

/* ---- ranges ---- */

/* On the thread that gave the last verdict. */
static void range_settled(struct origin *o)
{
	struct source_range *r = CONTAINER_OF(o, struct source_range, origin);
	struct source *s = r->source;
	struct origin_outcome out;

	origin_outcome(o, &out);
	if (s->count != NULL)
		atomic_fetch_add(out.retryable ? &s->count->refused : &s->count->accepted,
				 o->n_spans);
	/* The range may go before we are done with the source. */
	source_ref(s);
	pthread_mutex_lock(&s->lock);
	if (out.retryable) {
		s->why = *out.err;
		s->whole_to = MAX(s->whole_to, r->last + 1);
	}
	origin_fini(o);
	s->n_under_way--;
	r->state = out.retryable ? SOURCE_REFUSED : SOURCE_SETTLED;
	s->n_refused += out.retryable;
	if (s->is_closed) {
		unlink_range(s, r);
		range_free(r);
	} else {
		source_trim(s);
	}
	pthread_mutex_unlock(&s->lock);
	source_unref(s);
}

struct source_range *source_range_new(struct source *s, struct source_record *records,
				      uint32_t n_records, uint32_t n_spans)
{
	struct source_range *r = xcalloc(1, sizeof(*r));

	assert(n_records > 0);
	origin_init(&r->origin, n_spans, range_settled);
	r->origin.range = r;
	r->source = s;
	r->records = records;
	r->n_records = n_records;
	r->first = records[0].offset;
	r->last = records[n_records - 1].offset;
	r->added_mono_ns = clock_mono_ns();
	source_ref(s);
	budget_force(s->budget, range_bytes(r));
	return r;
}

/* The range that `r` belongs before, after a refused one gave way to it. */
static struct source_range *make_room(struct source *s, struct source_range *r)
{
	struct source_range *at = s->tail;

	if (at == NULL || r->first > at->last)
		return NULL;
	while (at->prev != NULL && at->prev->last >= r->first)
		at = at->prev;
	if (at->first > r->last)
		return at;
	assert(at->state == SOURCE_REFUSED && r->last <= at->last);
	if (r->last < at->last) {
		at->first = r->last + 1;
		return at;
	}
	r->next = at->next;
	unlink_range(s, at);
	at->state = SOURCE_SETTLED;
	range_free(at);
	return r->next;
}

static void tell_added(struct source *s)
{
	struct source_sink *sinks[SOURCE_SINKS_MAX];

	pthread_mutex_lock(&s->lock);
	memcpy(sinks, s->sinks, sizeof(sinks));
	pthread_mutex_unlock(&s->lock);
	for (unsigned i = 0; i < SOURCE_SINKS_MAX; i++)
		if (sinks[i] != NULL)
			sinks[i]->added(sinks[i]);
}

/* Lock held: some sink has nothing before it, and does not look until it is told. */
static bool a_sink_sleeps(const struct source *s)
{
	for (unsigned i = 0; i < SOURCE_SINKS_MAX; i++)
		if (s->sinks[i] != NULL && s->sinks[i]->cursor == NULL)
			return true;
	return false;
}

void source_add(struct source *s, struct source_range *r)
{
	bool wake;

	pthread_mutex_lock(&s->lock);
	assert(!s->is_closed);
	wake = a_sink_sleeps(s);
	link_before(s, r, make_room(s, r));
	s->newest = r;
	s->n_under_way++;
	if (r->origin.n_spans == 0) {
		s->n_under_way--;
		r->state = SOURCE_SETTLED;
		origin_fini(&r->origin);
		source_trim(s);
	}
	pthread_mutex_unlock(&s->lock);
	if (wake)
		tell_added(s);
}

/* ---- reading again ---- */

/* A range that was to be read again was passed without being met. Lock held. When the topic does
 * not say that it lost these records (it was compacted, or a record that was fetched before the
 * seek came in between) the receiver is asked some times more. */
static void pass_by(struct source *s, struct source_range *r)
{
	enum { ATTEMPTS = 3 };

	if (atomic_load(&s->low_watermark) <= r->last && ++r->n_passed < ATTEMPTS) {
		r->is_awaited = false;
		s->n_awaited--;
		return;
	}
	log_error("records are gone from the topic before they were stored", "source", s->name,
		  "first", LOG_NUM(r->first), "last", LOG_NUM(r->last));
	unlink_range(s, r);
	r->state = SOURCE_SETTLED;
	range_free(r);
}

/* The range that holds the offset, or the first one behind it. Lock held. */
static struct source_range *find_range(struct source *s, uint64_t offset)
{
	struct source_range *r = s->hint;

	if (r == NULL || r->first > offset)
		r = s->head;
	while (r != NULL && r->last < offset) {
		struct source_range *next = r->next;

		if (r->is_awaited)
			pass_by(s, r);
		r = next;
	}
	s->hint = r;
	return r;
}

enum source_place source_place(struct source *s, uint64_t offset, uint64_t *limit)
{
	enum source_place place = SOURCE_NEW;
	struct source_range *r;

	*limit = UINT64_MAX;
	pthread_mutex_lock(&s->lock);
	r = s->n_refused > 0 || (s->tail != NULL && offset <= s->tail->last) ? find_range(s, offset)
									     : NULL;
	if (offset < s->committable)
		place = SOURCE_KNOWN;
	else if (r != NULL && r->first > offset)
		*limit = r->first - 1;
	else if (r != NULL && r->is_awaited)
		*limit = r->last;
	else if (r != NULL)
		place = SOURCE_KNOWN;
	source_trim(s);
	pthread_mutex_unlock(&s->lock);
	return place;
}

bool source_is_refusing(struct source *s)
{
	bool is_refusing;

	pthread_mutex_lock(&s->lock);
	is_refusing = s->n_refused > s->n_awaited;
	/* What is awaited must be read all the same: sinks keep what lies behind it until then. */
	if (s->n_awaited == 0 && s->newest != NULL && s->newest->state == SOURCE_UNDER_WAY)
		is_refusing |= atomic_load(&s->newest->origin.n_retryable) > 0;
	pthread_mutex_unlock(&s->lock);
	return is_refusing;
}

uint64_t source_rewind(struct source *s)
{
	uint64_t from = UINT64_MAX;

	pthread_mutex_lock(&s->lock);
	for (struct source_range *r = s->head; r != NULL && s->n_refused > 0; r = r->next) {
		if (r->state != SOURCE_REFUSED)
			continue;
		from = MIN(from, r->first);
		s->n_awaited += !r->is_awaited;
		r->is_awaited = true;
	}
	s->hint = NULL;
	pthread_mutex_unlock(&s->lock);
	return from;
}

void source_set_caught_up(struct source *s)
{
	pthread_mutex_lock(&s->lock);
	s->has_caught_up = true;
	if (s->tail != NULL)
		s->whole_to = MAX(s->whole_to, s->tail->last + 1);
	pthread_mutex_unlock(&s->lock);
}

void source_poll(struct source *s, struct source_progress *out)
{
	*out = (struct source_progress){ 0 };
	pthread_mutex_lock(&s->lock);
	out->committable = s->committable;
	out->n_under_way = s->n_under_way;
	if (s->head != NULL)
		out->oldest_timestamp_ms = s->head->records[0].timestamp_ms;
	out->has_refused = s->n_refused > s->n_awaited;
	if (out->has_refused)
		out->why = s->why;
	pthread_mutex_unlock(&s->lock);
}

/* ---- the end ---- */

void source_cut(struct source *s, bool last)
{
	struct source_sink *sinks[SOURCE_SINKS_MAX];

	pthread_mutex_lock(&s->lock);
	memcpy(sinks, s->sinks, sizeof(sinks));
	pthread_mutex_unlock(&s->lock);
	for (unsigned i = 0; i < SOURCE_SINKS_MAX; i++)
		if (sinks[i] != NULL)
			sinks[i]->cut(sinks[i], last);
}

void source_close(struct source *s)
{
	struct source_sink *sinks[SOURCE_SINKS_MAX];
	struct source_range *r, *next;

	pthread_mutex_lock(&s->lock);
	memcpy(sinks, s->sinks, sizeof(sinks));
	pthread_mutex_unlock(&s->lock);
	for (unsigned i = 0; i < SOURCE_SINKS_MAX; i++)
		if (sinks[i] != NULL)
			sinks[i]->close(sinks[i]);
	pthread_mutex_lock(&s->lock);
	s->is_closed = true;
	for (r = s->head; r != NULL; r = next) {
		next = r->next;
		if (r->state == SOURCE_UNDER_WAY)
			continue;
		unlink_range(s, r);
		range_free(r);
	}
	pthread_mutex_unlock(&s->lock);
}
