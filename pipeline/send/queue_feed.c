/* SPDX-License-Identifier: Apache-2.0
 *
 * queue_feed.c - reading a sending queue's log back: the feeder thread, which joins records
 * to requests, and what becomes of the records of a request.
 *
 *   records of one tenant, copied one behind the other -> one request, indexed once -> one batch
 *     whose origin is a run -> [waiting] -> sending -> settled: the run's records are finished
 *
 * DESIGN: an ExportTraceServiceRequest behind another is one request with the spans of both, so
 * that a backlog of small records is neither indexed nor sent one by one. A request that cannot be
 * indexed (a record damaged in a way its CRC does not tell) is read again record by record.
 * Records found at start are counted by reading them, beside the feeding, which does not wait.
 * THREADS: the feeder's own; run_settled on the queue's loop. The books are under the queue's lock.
 * LIMITS: in memory are at most num_consumers + FEED_AHEAD requests of JOIN_BYTES or one record, so
 * that what is in memory is flat however long the backlog: the buffers go round in rcbuf's pool.
 * SPEC: pipeline/batch_record.h, docs/formats/segment-log.md.
 */
#include "base/clock.h"
#include "base/mem.h"
#include "pipeline/send/queue_log_private.h"

#include <sys/statvfs.h>
#include <time.h>

enum { JOIN_SPANS = 4096, COUNT_STEP = 256, FEED_AHEAD = 2, SWEEP_MS = 50 };
#define JOIN_BYTES (512 * KIB)
#define BUDGET_LOW (4 * MIB)
#define INDEX_MIN (64 * KIB) /* what an index takes besides its spans, mostly less */

static const char *id_of(const struct sending_queue *q)
{
	return q->o.component->id;
}

/* ---- runs: open, finished ---- */

/* With the lock. */
static void link_run(struct sending_queue_log *l, struct run *run)
{
	run->prev = l->newest;
	if (l->newest != NULL)
		l->newest->next = run;
	else
		l->oldest = run;
	l->newest = run;
}

/* With the lock. */
static void unlink_run(struct sending_queue_log *l, struct run *run)
{
	if (run->prev != NULL)
		run->prev->next = run->next;
	else
		l->oldest = run->next;
	if (run->next != NULL)
		run->next->prev = run->prev;
	else
		l->newest = run->prev;
}

/* Tell the ledger how n_claimed of the run's spans ended; tallies say how all of them did. */
static void book(const struct run *run)
{
	uint32_t left = run->n_claimed;

	for (int r = 0; r < DROP_REASON_MAX; r++) {
		uint32_t n = MIN(atomic_load(&run->origin.n_dropped[r]), left);

		if (n > 0)
			ledger_held_dropped(run->q->log->books, n, (enum drop_reason)r);
		left -= n;
	}
	ledger_held_delivered(run->q->log->books, left);
}

/* On the loop, or where the feeder stops. */
static void run_settled(struct origin *o)
{
	struct run *run = CONTAINER_OF(o, struct run, origin);
	struct sending_queue *q = run->q;
	struct sending_queue_log *l = q->log;
	struct held_watches *watched = NULL;
	struct origin_outcome outcome;
	bool is_found = origin_is_all_found(o);

	origin_outcome(o, &outcome);
	if (!outcome.retryable) {
		book(run);
		watched = run->watched;
	}
	pthread_mutex_lock(&q->lock);
	if (outcome.retryable) {
		/* It stays in the list, and so in the log. */
		l->keeps = true;
	} else {
		l->held -= run->n_claimed;
		l->size -= MIN(run->size, l->size);
		unlink_run(l, run);
		free(run);
	}
	pthread_cond_signal(&l->wake);
	pthread_mutex_unlock(&q->lock);
	held_watches_end(watched, is_found);
}

/* ---- joining ---- */

/* Memory for n bytes of requests. False: begin another one for what comes now. */
static bool make_room(struct sending_queue *q, size_t n, bool is_backlog)
{
	struct joining *j = &q->log->joining;

	if (j->bytes != NULL)
		return rcbuf_grow(&j->bytes, n) == 0;
	/* What the budget cannot hold is taken all the same: the window bounds it. */
	j->bytes = rcbuf_new_forced(component_budget(q->o.component),
				    MAX(n, is_backlog ? JOIN_BYTES : (size_t)1));
	return true;
}

static bool fits(const struct sending_queue *q, const struct batch_record *br)
{
	const struct queue_options *o = q->o.queue;
	const struct joining *j = &q->log->joining;
	uint64_t max_spans = JOIN_SPANS, max_bytes = JOIN_BYTES;

	if (o->batch_on && o->batch.max_size > 0 && o->batch.sizer == QUEUE_SIZER_BYTES)
		max_bytes = MIN(o->batch.max_size, max_bytes);
	else if (o->batch_on && o->batch.max_size > 0)
		max_spans = MIN(o->batch.max_size, max_spans);
	return j->n_records == 0 ||
	       (j->n_records < SENDING_QUEUE_JOIN_RECORDS &&
		q->log->next.lsn >= q->log->one_by_one_to &&
		j->n_spans + br->n_spans <= max_spans && j->bytes->n + br->otlp.n <= max_bytes &&
		strcmp(j->tenant, br->tenant) == 0);
}

/* Put the next record behind the others. False: it is for the next request. */
static bool join(struct sending_queue *q, bool is_backlog)
{
	const struct batch_record *br = &q->log->next_request;
	struct joining *j = &q->log->joining;
	size_t at = j->bytes != NULL ? j->bytes->n : 0;

	if (!fits(q, br) || !make_room(q, at + br->otlp.n, is_backlog))
		return false;
	memcpy(j->bytes->p + at, br->otlp.p, br->otlp.n);
	j->bytes->n = at + br->otlp.n;
	memcpy(j->tenant, br->tenant, sizeof(j->tenant));
	j->n_spans += br->n_spans;
	j->records[j->n_records].lsn = q->log->next.lsn;
	j->records[j->n_records++].n_spans = br->n_spans;
	return true;
}

/* The joined requests as a batch; NULL: not readable. */
static struct batch *decode(struct sending_queue *q, struct err *err)
{
	const struct joining *j = &q->log->joining;
	struct budget *budget = component_budget(q->o.component);
	enum otlp_signal signal = q->o.component->signal;
	struct otlp_result result = { 0 };
	struct batch *b;

	/* Not to be counted as refused. */
	if (budget_left(budget) < INDEX_MIN + j->n_spans * sizeof(struct span_ref))
		budget = NULL;
	b = batch_from_request(signal, rcbuf_ref(j->bytes), j->tenant, budget, &result, err);
	if (b == NULL && (err->kind == ERR_EXHAUSTED || err->kind == ERR_TOO_LARGE))
		b = batch_from_request(signal, rcbuf_ref(j->bytes), j->tenant, NULL, &result, err);
	return b;
}

/* With the lock. The records of the request are read: fed, and their claims taken. */
static uint32_t take_claims(struct sending_queue_log *l)
{
	const struct joining *j = &l->joining;
	uint32_t n_claimed = 0;

	for (uint32_t i = 0; i < j->n_records; i++)
		n_claimed += sending_queue_take_claim(l, j->records[i].lsn, j->records[i].n_spans);
	l->fed_to = j->records[j->n_records - 1].lsn + 1;
	return n_claimed;
}

static bool is_joined(const struct joining *j, uint64_t lsn)
{
	for (uint32_t i = 0; i < j->n_records; i++)
		if (j->records[i].lsn == lsn)
			return true;
	return false;
}

/* With the lock. The watches of the records that are read: those of the request into *of_request,
 * and those of records that damage took into *of_lost. */
static void take_watches(struct sending_queue_log *l, struct held_watches **of_request,
			 struct held_watches **of_lost)
{
	struct held_watches *w, **to;

	while ((w = l->watched) != NULL && w->lsn < l->fed_to) {
		l->watched = w->next;
		to = is_joined(&l->joining, w->lsn) ? of_request : of_lost;
		w->next = *to;
		*to = w;
	}
	if (l->watched == NULL)
		l->watched_tail = &l->watched;
}

/* From here on the records are open, unless they have no spans that could be sent. False: none has.
 */
static bool open_run(struct sending_queue *q, struct batch *b)
{
	struct sending_queue_log *l = q->log;
	uint32_t n = b != NULL ? b->tables.n_spans : 0, n_claimed, n_lost;
	struct run *run = n > 0 ? xcalloc(1, sizeof(*run)) : NULL;
	uint64_t n_spans = l->joining.n_spans;
	uint64_t size = q->o.queue->sizer == QUEUE_SIZER_ITEMS ? n_spans : l->joining.n_records;
	struct held_watches *lost = NULL, *watched = NULL;

	pthread_mutex_lock(&q->lock);
	n_claimed = take_claims(l);
	take_watches(l, &watched, &lost);
	n_lost = (uint32_t)MIN(n_spans > n ? n_spans - n : 0, (uint64_t)n_claimed);
	l->held -= n_lost;
	if (run != NULL) {
		run->q = q;
		run->lsn = l->joining.records[0].lsn;
		run->n_claimed = n_claimed - n_lost;
		run->size = size;
		run->watched = watched;
		origin_init_held(&run->origin, n, run_settled);
		link_run(l, run);
	} else {
		l->size -= MIN(size, l->size);
	}
	pthread_mutex_unlock(&q->lock);
	if (n_lost > 0)
		ledger_held_dropped(l->books, n_lost, DROP_CORRUPT);
	if (run != NULL)
		batch_bind(b, &run->origin);
	else
		held_watches_end(watched, false);
	held_watches_end(lost, false);
	return run != NULL;
}

static void joining_reset(struct joining *j)
{
	rcbuf_unref(j->bytes);
	j->bytes = NULL;
	j->n_spans = j->n_records = 0;
}

/* A failed read. True when the reader stands behind what it could not read. */
static bool note_damage(struct sending_queue *q, const struct err *err)
{
	if (err->retryable)
		q->log->pause_until_ns = clock_mono_ns() + SENDING_QUEUE_TICK_MS * NS_PER_MS;
	log_error("sending queue cannot read its log", "exporter", id_of(q), "error", err->msg);
	return !err->retryable;
}

/* One of the joined records is damaged: read them again, each by itself. */
static void read_again(struct sending_queue *q)
{
	struct sending_queue_log *l = q->log;
	const struct joining *j = &l->joining;

	l->one_by_one_to = j->records[j->n_records - 1].lsn + 1;
	segment_reader_free(l->reader);
	l->reader = segment_reader_new(l->log, j->records[0].lsn);
	l->has_next = false;
	joining_reset(&l->joining);
}

/* What was joined becomes a batch on its way. */
static void finish_request(struct sending_queue *q)
{
	struct sending_queue_log *l = q->log;
	struct err err = ERR_INIT;
	struct batch *b = decode(q, &err);

	if (b == NULL && l->joining.n_records > 1) {
		read_again(q);
		return;
	}
	if (b == NULL)
		note_damage(q, &err);
	if (open_run(q, b))
		sending_queue_push(q, b, true);
	else
		batch_unref(b);
	joining_reset(&l->joining);
}

/* ---- reading ---- */

/* Have the next record below `known_to` in l->next. False: there is none now. */
static bool read_next(struct sending_queue *q, uint64_t known_to)
{
	struct sending_queue_log *l = q->log;
	struct err err = ERR_INIT;
	int rc = 1;

	while (!l->has_next && rc != 0 && segment_reader_lsn(l->reader) < known_to) {
		rc = segment_reader_next(l->reader, &l->next, &err);
		if (rc < 0 && !note_damage(q, &err))
			return false;
		if (rc <= 0)
			continue;
		l->has_next = batch_record_parse(l->next.payload, &l->next_request, &err) == 0;
		if (l->has_next)
			sending_queue_found(q, l->next.lsn, &l->next_request);
		else
			note_damage(q, &err);
	}
	return l->has_next;
}

/* Nothing was joined: what lies up to here, if anything, is no record that could be sent. */
static void nothing_to_feed(struct sending_queue *q, uint64_t known_to)
{
	struct sending_queue_log *l = q->log;
	struct held_watches *lost = NULL;

	segment_reader_rest(l->reader);
	if (clock_mono_ns() < l->pause_until_ns)
		return;
	pthread_mutex_lock(&q->lock);
	l->fed_to = MAX(l->fed_to, known_to);
	take_watches(l, &lost, &lost);
	pthread_mutex_unlock(&q->lock);
	held_watches_end(lost, false);
}

/* Read records of one tenant up to what is good to send at once, and push them as one batch. */
static void feed(struct sending_queue *q)
{
	struct sending_queue_log *l = q->log;
	uint64_t known_to;

	pthread_mutex_lock(&q->lock);
	known_to = l->known_to;
	pthread_mutex_unlock(&q->lock);
	while (read_next(q, known_to) &&
	       join(q, known_to - l->next.lsn > SENDING_QUEUE_JOIN_RECORDS / 8))
		l->has_next = false;
	if (l->joining.n_records > 0)
		finish_request(q);
	else
		nothing_to_feed(q, known_to);
}

/* Read on among the records found at start, for the ledger only. */
static void count_found(struct sending_queue *q)
{
	struct sending_queue_log *l = q->log;
	int n_step = atomic_load(&q->last_failed) ? COUNT_STEP : 1;
	struct batch_record br;
	struct segment_record rec;
	struct err err = ERR_INIT;
	int rc = 1;

	if (l->counter != NULL && segment_reader_lsn(l->counter) < l->counted_to) {
		segment_reader_free(l->counter);
		l->counter = NULL;
	}
	if (l->counter == NULL)
		l->counter = segment_reader_new(l->log, l->counted_to);
	/* While the hop takes what it is sent, feeding comes first, and counts as it goes. */
	for (int i = 0; i < n_step && rc == 1; i++) {
		rc = segment_reader_lsn(l->counter) < l->found_to
			     ? segment_reader_next(l->counter, &rec, &err)
			     : 0;
		if (rc == 1 && batch_record_parse(rec.payload, &br, &err) == 0)
			sending_queue_found(q, rec.lsn, &br);
	}
	if (rc < 0 && err.retryable)
		note_damage(q, &err);
	if (rc != 0)
		return;
	segment_reader_free(l->counter);
	l->counter = NULL;
	pthread_mutex_lock(&q->lock);
	l->counted_to = l->found_to;
	pthread_mutex_unlock(&q->lock);
}

/* ---- the feeder; what has `_locked` wants the lock ---- */

static bool may_feed_locked(struct sending_queue *q)
{
	const struct sending_queue_log *l = q->log;
	uint64_t window = MIN(q->n_consumers + FEED_AHEAD, 2 * q->n_consumers);

	if ((!sending_queue_has_more(l) && !l->has_next) || q->n_open >= window ||
	    clock_mono_ns() < l->pause_until_ns)
		return false;
	if (atomic_load(&q->draining) && atomic_load(&q->last_failed))
		return false;
	return q->n_open == 0 || budget_left(component_budget(q->o.component)) > BUDGET_LOW;
}

static bool may_count_locked(const struct sending_queue_log *l)
{
	return l->counted_to < l->found_to && clock_mono_ns() >= l->pause_until_ns;
}

static void wait_locked(struct sending_queue *q)
{
	const struct sending_queue_log *l = q->log;
	uint64_t ms = l->parked != NULL ? SWEEP_MS : SENDING_QUEUE_TICK_MS;
	uint64_t ns = clock_mono_ns() + ms * NS_PER_MS;
	struct timespec until = { (time_t)(ns / NS_PER_S), (long)(ns % NS_PER_S) };

	pthread_cond_timedwait(&q->log->wake, &q->lock, &until);
}

/* The thread's next step, without the lock; NULL: nothing to do now. */
static void (*next_step_locked(struct sending_queue *q))(struct sending_queue *q)
{
	if (may_feed_locked(q))
		return feed;
	return may_count_locked(q->log) ? count_found : NULL;
}

/* What is finished goes back to the log; true when something did. With the lock, released
 * meanwhile. */
static bool give_back_locked(struct sending_queue *q)
{
	struct sending_queue_log *l = q->log;
	uint64_t free_to = sending_queue_free_point(l);

	if (free_to <= l->freed_to)
		return false;
	l->freed_to = free_to;
	pthread_mutex_unlock(&q->lock);
	segment_log_free_to(l->log, free_to);
	pthread_mutex_lock(&q->lock);
	return true;
}

void *sending_queue_feeder(void *arg)
{
	struct sending_queue *q = arg;
	struct sending_queue_log *l = q->log;
	void (*step)(struct sending_queue * q);

	pthread_mutex_lock(&q->lock);
	while (!l->stopping) {
		bool was_freed = give_back_locked(q);

		step = next_step_locked(q);
		if (step == NULL)
			sending_queue_write_off(l);
		pthread_mutex_unlock(&q->lock);
		if (step != NULL)
			step(q);
		else
			sending_queue_note_disk(q);
		sending_queue_retry_parked(q);
		sending_queue_counted_all(q);
		pthread_mutex_lock(&q->lock);
		if (step == NULL && !was_freed && !l->stopping && next_step_locked(q) == NULL &&
		    sending_queue_free_point(l) == l->freed_to)
			wait_locked(q);
	}
	pthread_mutex_unlock(&q->lock);
	return NULL;
}
