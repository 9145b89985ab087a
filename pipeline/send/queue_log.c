/* SPDX-License-Identifier: Apache-2.0
 *
 * queue_log.c - a sending queue's storage: appending to the segment log, the books, life.
 * Reading it back is queue_feed.c.
 *
 *   LSN   freed ...... oldest open ......... fed_to ......... known_to
 *         | delivered  | in memory, a few    | only on disk   | appends under way
 *         |            | requests            |                |
 *
 * Records read back are joined to runs, a run is the origin of its spans, and is finished when they
 * all have a verdict. The log is freed up to the oldest run that is not.
 *
 * THE BOOKS: the ledger counts every span here once: batch_hold says how many of a record's spans
 * are ours to report (fewer than it has when a log of another exporter holds them too), for records
 * found at start span_numbers_count does; runs of records where the two differ are remembered. What
 * damage took is what is left of `held` when everything else was finished.
 *
 * A full log or disk refuses. With block_on_overflow the append is parked instead, until there is
 * room or its client was told to come back; the budget, which holds its bytes, bounds how many are.
 *
 * THREADS: appends on any; `appended` on the log's writer. The books are under the queue's lock.
 * SPEC: pipeline/batch_record.h, docs/formats/segment-log.md; the Collector's persistent queue.
 */
#include "base/clock.h"
#include "base/mem.h"
#include "pipeline/send/queue_log_private.h"
#include "pipeline/span/numbers.h"
#include "pipeline/telemetry.h"

#include <signal.h>
#include <stdio.h>
#include <sys/statvfs.h>

static const char *id_of(const struct sending_queue *q)
{
	return q->o.component->id;
}

/* ---- appending ---- */

struct append {
	struct segment_append a;
	struct append *next; /* parked */
	struct sending_queue *q;
	struct batch *b;
	struct arena arena;
	bool is_in, is_durable; /* counted in the queue's size; for good */
	uint8_t head[BATCH_RECORD_HEAD_MAX];
};

uint64_t sending_queue_record_size(const struct sending_queue *q, uint32_t n_spans)
{
	return q->o.queue->sizer == QUEUE_SIZER_ITEMS ? n_spans : 1;
}

static bool is_bounded(const struct queue_options *o)
{
	return o->has_queue_size && o->sizer != QUEUE_SIZER_BYTES;
}

/* Take a place in the queue. One record larger than the whole queue passes when it is alone. */
static int enter_locked(struct append *ap, struct err *err)
{
	const struct queue_options *o = ap->q->o.queue;
	struct sending_queue_log *l = ap->q->log;
	uint64_t size = sending_queue_record_size(ap->q, ap->b->tables.n_spans);

	if (is_bounded(o) && l->size > 0 && l->size + size > o->queue_size)
		return err_set(err, ERR_EXHAUSTED, "sending queue is full: %llu of %llu %s",
			       (unsigned long long)l->size, (unsigned long long)o->queue_size,
			       o->sizer == QUEUE_SIZER_ITEMS ? "items" : "requests");
	l->size += size;
	ap->is_in = true;
	return 0;
}

static void leave_locked(struct append *ap)
{
	if (ap->is_in)
		ap->q->log->size -= sending_queue_record_size(ap->q, ap->b->tables.n_spans);
	ap->is_in = false;
}

static int try_append(struct append *ap, struct err *err)
{
	struct sending_queue *q = ap->q;
	int ret = 0;

	pthread_mutex_lock(&q->lock);
	if (!ap->is_in)
		ret = enter_locked(ap, err);
	pthread_mutex_unlock(&q->lock);
	if (ret == 0 && segment_log_append(q->log->log, &ap->a, err) < 0) {
		pthread_mutex_lock(&q->lock);
		leave_locked(ap);
		pthread_mutex_unlock(&q->lock);
		ret = -1;
	}
	return ret;
}

static void append_free(struct append *ap)
{
	struct sending_queue_log *l = ap->q->log;

	pthread_mutex_lock(&ap->q->lock);
	l->n_appending--;
	if (!ap->is_durable)
		leave_locked(ap);
	pthread_mutex_unlock(&ap->q->lock);
	batch_unref(ap->b);
	arena_fini(&ap->arena);
	free(ap);
}

static void refuse(struct append *ap, const struct err *err)
{
	bool too_large = err->kind == ERR_TOO_LARGE;

	atomic_fetch_add(&ap->q->o.component->count->enqueue_failed, batch_n_items(ap->b));
	log_warn("sending queue does not take more", "exporter", id_of(ap->q), "error", err->msg);
	batch_settle(ap->b, too_large ? VERDICT_PERMANENT : VERDICT_RETRYABLE,
		     too_large ? DROP_TOO_LARGE : DROP_QUEUE_FULL, err);
}

static void note_claims(struct claims *c, uint64_t lsn, uint32_t n_claimed)
{
	struct claim *last = c->n > c->at ? &c->v[c->n - 1] : NULL;

	if (last != NULL && last->last + 1 == lsn && last->n_claimed == n_claimed) {
		last->last = lsn;
		return;
	}
	if (c->at > 64 && c->at > c->n / 2) {
		c->n -= c->at;
		memmove(c->v, c->v + c->at, c->n * sizeof(*c->v));
		c->at = 0;
	}
	c->v = xgrow(c->v, &c->cap, c->n + 1, sizeof(*c->v));
	c->v[c->n++] = (struct claim){ lsn, lsn, n_claimed };
}

uint32_t sending_queue_take_claim(struct sending_queue_log *l, uint64_t lsn, uint32_t n_spans)
{
	struct claims *c = lsn < l->found_to ? &l->found_claims : &l->claims;

	while (c->at < c->n && c->v[c->at].last < lsn)
		c->at++;
	if (c->at < c->n && c->v[c->at].first <= lsn)
		return MIN(c->v[c->at].n_claimed, n_spans);
	return n_spans;
}

/* Wait for room, when that is wanted and can help; false: no. */
static bool park(struct append *ap, const struct err *err)
{
	struct sending_queue *q = ap->q;
	struct sending_queue_log *l = q->log;
	bool parked;

	/* For a detached batch nobody says when to give up. */
	if (!q->o.queue->block_on_overflow || err->kind != ERR_EXHAUSTED || ap->b->is_detached)
		return false;
	pthread_mutex_lock(&q->lock);
	parked = !l->stopping;
	if (parked) {
		ap->next = NULL;
		*l->parked_tail = ap;
		l->parked_tail = &ap->next;
		pthread_cond_signal(&l->wake);
	}
	pthread_mutex_unlock(&q->lock);
	return parked;
}

static void park_or_refuse(struct append *ap, const struct err *err)
{
	if (park(ap, err))
		return;
	refuse(ap, err);
	append_free(ap);
}

static struct append *take_parked(struct sending_queue *q)
{
	struct sending_queue_log *l = q->log;
	struct append *ap;

	pthread_mutex_lock(&q->lock);
	ap = l->parked;
	if (ap != NULL)
		l->parked = ap->next;
	if (l->parked == NULL)
		l->parked_tail = &l->parked;
	pthread_mutex_unlock(&q->lock);
	return ap;
}

static void put_back(struct append *ap)
{
	struct sending_queue_log *l = ap->q->log;

	pthread_mutex_lock(&ap->q->lock);
	ap->next = l->parked;
	if (l->parked == NULL)
		l->parked_tail = &ap->next;
	l->parked = ap;
	pthread_mutex_unlock(&ap->q->lock);
}

/* Settle those whose client was answered. */
static void drop_withdrawn(struct sending_queue *q)
{
	struct sending_queue_log *l = q->log;
	struct append **at, *ap, *gone = NULL;

	pthread_mutex_lock(&q->lock);
	for (at = &l->parked; (ap = *at) != NULL;) {
		if (!batch_is_withdrawn(ap->b)) {
			at = &ap->next;
			continue;
		}
		*at = ap->next;
		ap->next = gone;
		gone = ap;
	}
	l->parked_tail = at;
	pthread_mutex_unlock(&q->lock);
	while ((ap = gone) != NULL) {
		struct err err = ERR_INIT;

		gone = ap->next;
		err_set(&err, ERR_EXHAUSTED, "no room before the deadline");
		refuse(ap, &err);
		append_free(ap);
	}
}

void sending_queue_retry_parked(struct sending_queue *q)
{
	struct err err = ERR_INIT;
	struct append *ap;

	drop_withdrawn(q);
	while ((ap = take_parked(q)) != NULL) {
		if (try_append(ap, &err) == 0)
			continue;
		if (err.kind == ERR_EXHAUSTED) {
			put_back(ap);
			return;
		}
		refuse(ap, &err);
		append_free(ap);
	}
}

/* On the log's writer thread: durable, or not. */
static void appended(struct segment_append *a)
{
	struct append *ap = CONTAINER_OF(a, struct append, a);
	struct sending_queue *q = ap->q;
	struct sending_queue_log *l = q->log;
	struct held_watches *watched;
	uint32_t n_claimed;

	if (a->err.kind != ERR_NONE) {
		park_or_refuse(ap, &a->err);
		return;
	}
	watched = held_watches_of(ap->b);
	n_claimed = batch_hold(ap->b);
	pthread_mutex_lock(&q->lock);
	if (watched != NULL) {
		watched->lsn = a->lsn;
		*l->watched_tail = watched;
		l->watched_tail = &watched->next;
	}
	if (n_claimed != ap->b->tables.n_spans)
		note_claims(&l->claims, a->lsn, n_claimed);
	l->held += n_claimed;
	l->known_to = a->lsn + 1;
	ap->is_durable = true;
	pthread_cond_signal(&l->wake);
	pthread_mutex_unlock(&q->lock);
	append_free(ap);
}

void sending_queue_log_append(struct sending_queue *q, struct batch *b)
{
	struct append *ap = xcalloc(1, sizeof(*ap));
	struct err err = ERR_INIT;

	ap->q = q;
	ap->b = b;
	ap->a.done = appended;
	batch_record_lay_out(b, clock_wall_ns(), &ap->arena, ap->head, &ap->a);
	pthread_mutex_lock(&q->lock);
	q->log->n_appending++;
	pthread_mutex_unlock(&q->lock);
	if (try_append(ap, &err) < 0)
		park_or_refuse(ap, &err);
}

/* ---- the books ---- */

void sending_queue_found(struct sending_queue *q, uint64_t lsn, const struct batch_record *br)
{
	struct sending_queue_log *l = q->log;
	uint32_t n;

	if (lsn >= l->found_to || lsn < l->counted_to)
		return;
	n = span_numbers_count(br->numbers, br->n_spans);
	n = (uint32_t)span_left_found(&l->left, l->books, n);
	pthread_mutex_lock(&q->lock);
	if (n != br->n_spans)
		note_claims(&l->found_claims, lsn, n);
	l->held += n;
	l->size += q->o.queue->sizer == QUEUE_SIZER_ITEMS ? br->n_spans : 0;
	l->counted_to = lsn + 1;
	pthread_mutex_unlock(&q->lock);
}

void sending_queue_counted_all(struct sending_queue *q)
{
	struct sending_queue_log *l = q->log;

	if (!l->counts || l->counted_to < l->found_to)
		return;
	l->counts = false;
	span_numbers_end();
	/* In the books, and not found again: written off with what damage took. */
	pthread_mutex_lock(&q->lock);
	l->held += l->left.n;
	pthread_mutex_unlock(&q->lock);
	l->left.n = 0;
}

uint64_t sending_queue_free_point(const struct sending_queue_log *l)
{
	return l->oldest != NULL ? l->oldest->lsn : l->fed_to;
}

bool sending_queue_has_more(const struct sending_queue_log *l)
{
	return l->fed_to < l->known_to;
}

void sending_queue_write_off(struct sending_queue_log *l)
{
	if (l->oldest != NULL || sending_queue_has_more(l) || l->counted_to < l->found_to ||
	    l->keeps)
		return;
	/* Records lost to damage were never read, so that nobody took them off. */
	if (l->n_appending == 0)
		l->size = 0;
	if (l->held == 0)
		return;
	ledger_held_dropped(l->books, l->held, DROP_CORRUPT);
	l->held = 0;
}

bool sending_queue_log_is_failing(struct sending_queue *q, char *why, size_t why_size)
{
	return segment_log_is_failing(q->log->log, why, why_size);
}

void sending_queue_note_disk(struct sending_queue *q)
{
	struct component_counters *count = q->o.component->count;
	struct segment_log_stats s;
	struct statvfs fs;
	uint64_t size;

	if (is_bounded(q->o.queue)) {
		pthread_mutex_lock(&q->lock);
		size = q->log->size;
		pthread_mutex_unlock(&q->lock);
		atomic_store(&count->queue_size, (int64_t)size);
		return;
	}
	segment_log_stats(q->log->log, &s);
	atomic_store(&count->queue_size, s.records_held > 0 ? (int64_t)s.bytes_on_disk : 0);
	if (s.max_bytes > 0)
		atomic_store(&count->queue_capacity, (int64_t)s.max_bytes);
	else if (statvfs(q->log->dir, &fs) == 0)
		atomic_store(&count->queue_capacity,
			     (int64_t)(s.bytes_on_disk + (uint64_t)fs.f_bavail * fs.f_frsize));
}

/* ---- life ---- */

/* "<directory>/<exporter id>", with %XX for what a file name should not have; with "@logs" or
 * "@metrics" behind it, since an exporter has a queue per signal. */
static char *log_dir(const char *directory, const struct component *c)
{
	static const char *const suffixes[] = {
		[OTLP_TRACES] = "", [OTLP_METRICS] = "@metrics", [OTLP_LOGS] = "@logs"
	};
	const char *id = c->id;
	struct buf path = BUF_INIT;
	char *dir;

	buf_printf(&path, "%s/", directory);
	for (; *id != '\0'; id++) {
		bool plain = (*id >= '0' && *id <= '9') || (*id >= 'A' && *id <= 'Z') ||
			     (*id >= 'a' && *id <= 'z') || strchr("_-.", *id) != NULL;

		if (plain)
			buf_add_char(&path, *id);
		else
			buf_printf(&path, "%%%02X", (uint8_t)*id);
	}
	buf_add_str(&path, suffixes[c->signal]);
	dir = xstrdup(buf_cstr(&path));
	buf_fini(&path);
	return dir;
}

static const struct sending_queue_storage *find_storage(struct sending_queue *q, struct err *err)
{
	const char *id = q->o.queue->storage;
	struct component *ext = component_extension(q->o.component, id);
	const struct sending_queue_storage *storage = NULL;

	if (ext != NULL && strcmp(ext->type->name, SENDING_QUEUE_STORAGE_TYPE) == 0)
		storage = ext->type->lend(ext);
	if (storage == NULL)
		err_set(err, ERR_CONFIG,
			"sending_queue.storage: \"%s\" is no running %s extension: list it under "
			"service.extensions",
			id, SENDING_QUEUE_STORAGE_TYPE);
	return storage;
}

static int start_feeder(struct sending_queue *q, struct err *err)
{
	pthread_condattr_t attr;
	sigset_t all, before;
	int rc;

	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&q->log->wake, &attr);
	pthread_condattr_destroy(&attr);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	rc = pthread_create(&q->log->feeder, NULL, sending_queue_feeder, q);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (rc != 0)
		return err_set(err, ERR_INTERNAL, "sending queue: start its thread: %s",
			       strerror(rc));
	q->log->has_feeder = true;
	return 0;
}

int sending_queue_log_open(struct sending_queue *q, struct err *err)
{
	const struct queue_options *o = q->o.queue;
	const struct sending_queue_storage *storage = find_storage(q, err);
	struct segment_log_options options = { .sync = true };
	struct segment_log_found found;
	struct sending_queue_log *l;

	if (storage == NULL)
		return -1;
	l = xcalloc(1, sizeof(*l));
	l->parked_tail = &l->parked;
	l->watched_tail = &l->watched;
	l->dir = log_dir(storage->directory, q->o.component);
	l->books = ledger_of(q->o.component->signal);
	options.dir = l->dir;
	options.max_bytes =
		o->has_queue_size && o->sizer == QUEUE_SIZER_BYTES ? MAX(o->queue_size, MIB) : 0;
	options.budget = component_budget(q->o.component);
	l->log = segment_log_open(&options, &found, err);
	if (l->log == NULL) {
		free(l->dir);
		free(l);
		return -1;
	}
	q->log = l;
	l->fed_to = l->freed_to = l->counted_to = found.first_lsn;
	l->known_to = l->found_to = found.next_lsn;
	l->size = o->sizer == QUEUE_SIZER_ITEMS ? 0 : found.records;
	l->reader = segment_reader_new(l->log, found.first_lsn);
	l->left = span_left_take(l->dir);
	l->counts = true;
	span_numbers_begin();
	if (found.records > 0)
		log_info("sending queue found records of an earlier run", "exporter", id_of(q),
			 "records", LOG_NUM(found.records), "bytes", LOG_NUM(found.bytes));
	return start_feeder(q, err);
}

void sending_queue_metrics(struct sending_queue *q, struct buf *out)
{
	struct segment_log_stats s;

	if (q == NULL || q->log == NULL)
		return;
	segment_log_stats(q->log->log, &s);
	telemetry_segment_log(out, q->o.component, s.lost, s.quarantined);
}

void sending_queue_log_wake(struct sending_queue *q)
{
	if (q->log == NULL)
		return;
	pthread_mutex_lock(&q->lock);
	pthread_cond_signal(&q->log->wake);
	pthread_mutex_unlock(&q->lock);
}

bool sending_queue_log_is_empty(const struct sending_queue *q)
{
	const struct sending_queue_log *l = q->log;

	return l->n_appending == 0 && l->oldest == NULL && !sending_queue_has_more(l);
}

bool sending_queue_log_is_counted(const struct sending_queue *q)
{
	return q->log->counted_to >= q->log->found_to;
}

static void refuse_parked(struct sending_queue *q)
{
	struct err err = ERR_INIT;
	struct append *ap;

	err_set(&err, ERR_UNAVAILABLE, "shutting down");
	while ((ap = take_parked(q)) != NULL) {
		refuse(ap, &err);
		append_free(ap);
	}
}

void sending_queue_log_stop(struct sending_queue *q)
{
	struct sending_queue_log *l = q->log;

	if (l == NULL || !l->has_feeder)
		return;
	pthread_mutex_lock(&q->lock);
	l->stopping = true;
	pthread_cond_signal(&l->wake);
	pthread_mutex_unlock(&q->lock);
	pthread_join(l->feeder, NULL);
	l->has_feeder = false;
	if (l->counted_to < l->found_to)
		log_warn("not all records of an earlier run were counted: the log holds more than "
			 "`held` says",
			 "exporter", id_of(q), "records", LOG_NUM(l->found_to - l->counted_to));
	refuse_parked(q);
}

/* Whoever changes its name or its place now is to know of it. */
static void tell_what_stays(const struct sending_queue *q)
{
	struct segment_log_stats s;

	segment_log_stats(q->log->log, &s);
	if (s.records_held > 0)
		log_info("sending queue keeps records on disk", "exporter", id_of(q), "dir",
			 q->log->dir, "records", LOG_NUM(s.records_held));
}

void sending_queue_log_close(struct sending_queue *q)
{
	struct sending_queue_log *l = q->log;
	struct run *run, *next;

	if (l == NULL)
		return;
	segment_reader_free(l->reader);
	segment_reader_free(l->counter);
	segment_log_free_to(l->log, sending_queue_free_point(l));
	sending_queue_write_off(l);
	tell_what_stays(q);
	if (l->counts)
		span_numbers_end();
	segment_log_close(l->log);
	/* After the appends that were under way. */
	if (l->held + l->left.n > 0)
		span_left_put(l->dir, l->held + l->left.n, l->counted_to >= l->found_to);
	/* Whoever opens it next sends what is left, and knows of no watch. */
	held_watches_end(l->watched, false);
	for (run = l->oldest; run != NULL; run = next) {
		next = run->next;
		held_watches_end(run->watched, false);
		free(run);
	}
	pthread_cond_destroy(&l->wake);
	free(l->claims.v);
	free(l->found_claims.v);
	free(l->dir);
	free(l);
	q->log = NULL;
}
