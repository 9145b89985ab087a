/* SPDX-License-Identifier: Apache-2.0
 *
 * stream_build.c - the builder's thread: whose turn it is, what a step's end means.
 *
 * One thread serves all streams, a step at a time: of those with something to build the one whose
 * window was closed first. A stream whose store fails waits (200 ms, doubling, to 30 s) while
 * others go on. When the scratch has lost something, the stream gives up all that is not stored and
 * its source reads it again: nothing was acknowledged yet, so nothing is lost.
 *
 * THREADS: one; by hand in tests.
 */
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "exporters/blocks/stream_private.h"

#include <stdio.h>

enum {
	RETRY_FIRST_MS = 200,
	RETRY_LAST_MS = 30000,
	AGAIN_MS = 50, /* a section was due and nothing was complete */
	SWEEP_EVERY_S = 600,
	/* No attempt that begins below the topic's own beginning is alive after that. */
	SWEEP_AGE_S = 24 * 3600,
};

/* ---- the end of a step; lock held ---- */

static void finish_window(struct stream *st)
{
	struct section_streams *m = st->m;
	struct stream_attempt *a = &st->attempt;
	struct stream_window *w = a->window;
	uint64_t last = w->records[w->n_records - 1].offset;

	m->stats.s.sections++;
	m->stats.s.blocks_written += a->n_blocks;
	m->stats.s.duplicates += a->n_duplicates;
	m->stats.s.conflicting += a->n_conflicting;
	m->stats.s.last_error[0] = '\0';
	if (m->o.sent != NULL)
		atomic_fetch_add_explicit(m->o.sent, w->n_spans, memory_order_relaxed);
	source_settle(&st->sink, last, VERDICT_DELIVERED, NULL);
	source_release(&st->sink, last);
	stream_retire(st, last + 1);
	stream_window_free(w);
	*a = (struct stream_attempt){ 0 };
	pthread_cond_broadcast(&m->progress);
}

static void note_failure(struct stream *st, uint64_t now_ns, const struct err *err)
{
	struct section_streams_stats *s = &st->m->stats;

	st->wait_ms = st->wait_ms ? MIN(st->wait_ms * 2, (unsigned)RETRY_LAST_MS)
				  : (unsigned)RETRY_FIRST_MS;
	st->retry_mono_ns = now_ns + st->wait_ms * NS_PER_MS;
	s->s.build_failures++;
	snprintf(s->s.last_error, sizeof(s->s.last_error), "%s", err->msg);
	pthread_cond_broadcast(&st->m->progress);
	log_warn("writing a section failed, its source keeps the records", "source", st->name,
		 "error", err->msg);
}

static void drop_attempt(struct stream *st)
{
	struct stream_attempt *a = &st->attempt;

	stream_window_free(a->window);
	*a = (struct stream_attempt){ 0 };
	st->is_void = false;
	pthread_cond_broadcast(&st->m->progress);
}

static void end_step(struct stream *st, enum stream_step was, int ret, bool is_broken,
		     uint64_t now_ns, const struct err *err)
{
	struct section_streams *m = st->m;
	struct err why = ERR_INIT;

	if (is_broken && !st->is_closed && !st->is_void) {
		log_error("the scratch lost records, they are read again", "source", st->name,
			  "error", err->msg);
		err_set(&why, ERR_UNAVAILABLE, "blocks: the scratch lost records");
		m->stats.given_up++;
		m->stats.s.build_failures++;
		stream_give_up(st, st->sink.released, &why);
	}
	if (st->is_void || st->is_closed) {
		pthread_mutex_unlock(&m->lock);
		stream_attempt_abandon(st);
		pthread_mutex_lock(&m->lock);
		drop_attempt(st);
		return;
	}
	if (ret < 0) {
		note_failure(st, now_ns, err);
		return;
	}
	/* Only a step forward says that the store works again. */
	if (st->attempt.step > was)
		st->wait_ms = 0;
	if (st->attempt.step == STREAM_DONE)
		finish_window(st);
}

void stream_tidy_orphans(struct section_streams *m)
{
	while (m->orphans != NULL) {
		struct stream *st = m->orphans;

		m->orphans = st->next;
		pthread_mutex_unlock(&m->lock);
		stream_attempt_abandon(st);
		pthread_mutex_lock(&m->lock);
		drop_attempt(st);
		stream_unref(st);
	}
}

/* Lock held, released meanwhile. */
static void take_step(struct stream *st, uint64_t now_ns)
{
	struct section_streams *m = st->m;
	enum stream_step was;
	struct err err = ERR_INIT;
	bool is_broken;
	int ret;

	if (st->attempt.window == NULL) {
		st->attempt.window = st->first;
		st->first = st->first->next;
		if (st->first == NULL)
			st->last = NULL;
	}
	was = st->attempt.step;
	st->is_busy = true;
	st->users++;
	pthread_mutex_unlock(&m->lock);
	ret = stream_attempt_step(st, &is_broken, &err);
	pthread_mutex_lock(&m->lock);
	st->is_busy = false;
	end_step(st, was, ret, is_broken, now_ns, &err);
	stream_unref(st);
}

/* ---- whose turn it is; lock held ---- */

static uint64_t closed_at(const struct stream *st)
{
	return st->attempt.window ? st->attempt.window->closed_mono_ns : st->first->closed_mono_ns;
}

static bool has_work(const struct stream *st)
{
	return !st->is_busy && (st->attempt.window != NULL || st->first != NULL);
}

/* *due gets when the next one may try again. */
static struct stream *next_stream(struct section_streams *m, uint64_t now_ns, uint64_t *due)
{
	struct stream *best = NULL;

	for (struct stream *st = m->streams; st != NULL; st = st->next) {
		if (!has_work(st))
			continue;
		if (st->retry_mono_ns > now_ns)
			*due = MIN(*due, st->retry_mono_ns);
		else if (best == NULL || closed_at(st) < closed_at(best))
			best = st;
	}
	return best;
}

/* When the section that is open is due by age; UINT64_MAX: nothing is open. While one waits to be
 * built the next may grow: a slow store gets fewer and larger blocks. */
static uint64_t age_due(struct stream *st, uint64_t now_ns)
{
	uint64_t oldest = source_oldest_unclaimed(&st->sink);

	if (oldest == 0 || st->first != NULL)
		return UINT64_MAX;
	if (st->wants_cut)
		return now_ns + AGAIN_MS * NS_PER_MS;
	return MAX(oldest, st->cut_mono_ns) + st->m->o.max_block_age_ns;
}

/* Cut what is due; when the next one is. */
static uint64_t cut_due(struct section_streams *m, uint64_t now_ns)
{
	uint64_t next = UINT64_MAX;

	for (struct stream *st = m->streams; st != NULL; st = st->next) {
		uint64_t due;

		if (st->wants_cut)
			stream_cut(st, now_ns);
		due = age_due(st, now_ns);
		if (due <= now_ns) {
			stream_cut(st, now_ns);
			due = age_due(st, now_ns);
		}
		next = MIN(next, due);
	}
	return next;
}

/* ---- keeping house ---- */

/* Lock held, released around I/O: the scratch's front, which no chunk has. */
static void free_scratch(struct section_streams *m)
{
	uint64_t lsn = section_streams_wanted_lsn(m);

	if (lsn <= m->freed_lsn)
		return;
	m->freed_lsn = lsn;
	pthread_mutex_unlock(&m->lock);
	segment_log_free_to(m->scratch, lsn);
	pthread_mutex_lock(&m->lock);
}

/* Lock held, released: commits of records that the topic itself does not have any more. */
static bool sweep_one(struct section_streams *m, uint64_t now_ns)
{
	struct stream *st = m->streams;
	struct err err = ERR_INIT;
	uint64_t before;

	while (st != NULL && (st->sweep_mono_ns > now_ns || st->is_busy))
		st = st->next;
	if (st == NULL)
		return false;
	st->sweep_mono_ns = now_ns + SWEEP_EVERY_S * NS_PER_S;
	before = source_low_watermark(st->sink.source);
	if (before == 0)
		return false;
	st->users++;
	pthread_mutex_unlock(&m->lock);
	if (section_sweep_commits(store_backend(m->o.store), st->name, before,
				  SWEEP_AGE_S * NS_PER_S, &err) < 0)
		log_warn("sweeping old commit records failed", "source", st->name, "error",
			 err.msg);
	pthread_mutex_lock(&m->lock);
	stream_unref(st);
	return true;
}

/* ---- the thread ---- */

bool section_streams_step(struct section_streams *m, uint64_t now_ns)
{
	uint64_t due = UINT64_MAX;
	struct stream *st;

	pthread_mutex_lock(&m->lock);
	cut_due(m, now_ns);
	st = next_stream(m, now_ns, &due);
	if (st != NULL)
		take_step(st, now_ns);
	stream_tidy_orphans(m);
	free_scratch(m);
	pthread_mutex_unlock(&m->lock);
	return st != NULL;
}

void section_streams_settle_appends(struct section_streams *m)
{
	struct err unused = ERR_INIT;

	segment_log_flush(m->scratch, &unused);
}

/* Lock held. */
static void wait_until(struct section_streams *m, uint64_t due)
{
	struct timespec ts = { (time_t)(due / NS_PER_S), (long)(due % NS_PER_S) };

	if (due == UINT64_MAX)
		pthread_cond_wait(&m->wake, &m->lock);
	else
		pthread_cond_timedwait(&m->wake, &m->lock, &ts);
}

void *stream_build_thread(void *arg)
{
	struct section_streams *m = arg;

	pthread_setname_np(pthread_self(), "builder");
	pthread_mutex_lock(&m->lock);
	while (!m->stopping) {
		uint64_t now_ns, due;
		struct stream *st;

		/* First: they let the lock go, and what is asked for meanwhile wakes nobody. */
		stream_tidy_orphans(m);
		free_scratch(m);
		now_ns = clock_mono_ns();
		due = cut_due(m, now_ns);
		st = next_stream(m, now_ns, &due);
		if (st != NULL)
			take_step(st, now_ns);
		else if (!m->stopping && !sweep_one(m, now_ns))
			wait_until(m, due);
	}
	pthread_mutex_unlock(&m->lock);
	return NULL;
}
