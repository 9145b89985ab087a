/* SPDX-License-Identifier: Apache-2.0
 *
 * sending_queue_log.c - a sending queue's storage: the segment log, and the feeder thread that
 * reads it back.
 *
 *   LSN   freed ...... oldest open ......... fed_to ......... known_to
 *         | delivered  | in memory, at most  | only on disk   | appends under way
 *         |            | 2 * num_consumers   |                |
 *
 * A record read back is the origin of its spans: requests are joined and split as the next hop
 * likes them, and the record is finished when its origin settles. The log is freed up to the oldest
 * record that is not.
 *
 * THE BOOKS: the ledger counts every span here once: batch_hold says how many of a record's spans
 * are ours to report (fewer than it has when a log of another exporter holds them too), and runs of
 * records where the two differ are remembered. Records found at start are counted by reading them,
 * beside the feeding, which does not wait for it. What damage took is what is left of `held` when
 * everything else was finished.
 *
 * THREADS: appends on any; `appended` on the log's writer; the feeder has its own; records settle
 * on the queue's loop. The books are under the queue's lock.
 * SPEC: pipeline/batch_record.h, docs/formats/segment-log.md.
 */
#include "base/clock.h"
#include "base/mem.h"
#include "pipeline/batch_record.h"
#include "pipeline/segment_reader.h"
#include "pipeline/sending_queue_private.h"
#include "pipeline/telemetry.h"

#include <signal.h>
#include <stdio.h>
#include <sys/statvfs.h>
#include <time.h>

enum { JOIN_SPANS = 8192, JOIN_RECORDS = 256, COUNT_STEP = 256, TICK_MS = 1000 };
#define JOIN_BYTES MIB
#define BUDGET_LOW (4 * MIB)

/* A record in memory, from its reading until its last span has a verdict. */
struct record {
	struct origin origin;
	struct sending_queue *q;
	struct record *next, *prev; /* by LSN */
	uint64_t lsn;
	uint32_t n_claimed; /* spans the ledger counts here */
};

/* Records first..last of which the ledger counts n_claimed spans each, not all they have. */
struct claims {
	uint64_t first, last;
	uint32_t n_claimed;
};

struct sending_queue_log {
	struct segment_log *log;
	char *dir;
	pthread_t feeder;
	bool has_feeder;
	pthread_cond_t wake;
	/* ---- with the queue's lock ---- */
	bool stopping;
	uint64_t known_to;             /* below: appended and acknowledged */
	uint64_t fed_to;               /* below: read */
	uint64_t freed_to;             /* below: given back to the log */
	uint64_t found_to, counted_to; /* below: there at start; of those in the ledger */
	uint64_t held;                 /* spans the ledger counts here */
	uint64_t n_appending;
	struct record *oldest, *newest; /* open */
	struct claims *claims;          /* [claims_at, n_claims) */
	size_t claims_at, n_claims, cap_claims;
	bool keeps; /* some are given up until the next start */
	/* ---- the feeder's ---- */
	struct segment_reader *reader, *counter;
	struct batch *carry;     /* read, but of another tenant than what was gathered */
	uint64_t pause_until_ns; /* after a failed read */
};

static const char *id_of(const struct sending_queue *q)
{
	return q->o.component->id;
}

/* ---- appending ---- */

struct append {
	struct segment_append a;
	struct sending_queue *q;
	struct batch *b;
	struct arena arena;
	uint8_t head[BATCH_RECORD_HEAD_MAX];
};

static void append_free(struct append *ap)
{
	struct sending_queue_log *l = ap->q->log;

	batch_unref(ap->b);
	pthread_mutex_lock(&ap->q->lock);
	l->n_appending--;
	pthread_mutex_unlock(&ap->q->lock);
	arena_fini(&ap->arena);
	free(ap);
}

static void refuse(struct append *ap, const struct err *err)
{
	bool too_large = err->kind == ERR_TOO_LARGE;

	atomic_fetch_add(&ap->q->o.component->count->enqueue_failed, ap->b->tables.n_spans);
	log_warn("sending queue does not take more", "exporter", id_of(ap->q), "error", err->msg);
	batch_settle(ap->b, too_large ? VERDICT_PERMANENT : VERDICT_RETRYABLE,
		     too_large ? DROP_TOO_LARGE : DROP_QUEUE_FULL, err);
}

static void note_claims(struct sending_queue_log *l, uint64_t lsn, uint32_t n_claimed)
{
	struct claims *last = l->n_claims > l->claims_at ? &l->claims[l->n_claims - 1] : NULL;

	if (last != NULL && last->last + 1 == lsn && last->n_claimed == n_claimed) {
		last->last = lsn;
		return;
	}
	if (l->claims_at > 64 && l->claims_at > l->n_claims / 2) {
		l->n_claims -= l->claims_at;
		memmove(l->claims, l->claims + l->claims_at, l->n_claims * sizeof(*l->claims));
		l->claims_at = 0;
	}
	l->claims = xgrow(l->claims, &l->cap_claims, l->n_claims + 1, sizeof(*l->claims));
	l->claims[l->n_claims++] = (struct claims){ lsn, lsn, n_claimed };
}

/* Spans of a record of n_spans that the ledger counts here. Called in LSN order. */
static uint32_t take_claim(struct sending_queue_log *l, uint64_t lsn, uint32_t n_spans)
{
	while (l->claims_at < l->n_claims && l->claims[l->claims_at].last < lsn)
		l->claims_at++;
	if (l->claims_at < l->n_claims && l->claims[l->claims_at].first <= lsn)
		return MIN(l->claims[l->claims_at].n_claimed, n_spans);
	return n_spans;
}

/* On the log's writer thread: durable, or not. */
static void appended(struct segment_append *a)
{
	struct append *ap = CONTAINER_OF(a, struct append, a);
	struct sending_queue *q = ap->q;
	struct sending_queue_log *l = q->log;
	uint32_t n_claimed;

	if (a->err.kind != ERR_NONE) {
		refuse(ap, &a->err);
		append_free(ap);
		return;
	}
	n_claimed = batch_hold(ap->b);
	pthread_mutex_lock(&q->lock);
	if (n_claimed != ap->b->tables.n_spans)
		note_claims(l, a->lsn, n_claimed);
	l->held += n_claimed;
	l->known_to = a->lsn + 1;
	pthread_cond_signal(&l->wake);
	pthread_mutex_unlock(&q->lock);
	append_free(ap);
}

/* The record of ap->b as pieces. */
static void lay_out(struct append *ap)
{
	struct batch *b = ap->b;
	struct batch_encoding e;
	struct iovec *iov;
	size_t n_head = batch_record_head(ap->head, b->tenant, b->tables.n_spans, clock_wall_ns());

	batch_encode(b, &ap->arena, &e);
	iov = arena_alloc(&ap->arena, (e.n_pieces + 1) * sizeof(*iov));
	iov[0] = (struct iovec){ ap->head, n_head };
	for (size_t i = 0; i < e.n_pieces; i++)
		iov[i + 1] = (struct iovec){ (void *)(uintptr_t)e.pieces[i].p, e.pieces[i].n };
	ap->a.iov = iov;
	ap->a.n_iov = (uint32_t)(e.n_pieces + 1);
}

void sending_queue_log_append(struct sending_queue *q, struct batch *b)
{
	struct append *ap = xcalloc(1, sizeof(*ap));
	struct err err = ERR_INIT;

	ap->q = q;
	ap->b = b;
	ap->a.done = appended;
	lay_out(ap);
	pthread_mutex_lock(&q->lock);
	q->log->n_appending++;
	pthread_mutex_unlock(&q->lock);
	if (segment_log_append(q->log->log, &ap->a, &err) == 0)
		return;
	refuse(ap, &err);
	append_free(ap);
}

/* ---- records: open, finished ---- */

/* With the lock. */
static void link_record(struct sending_queue_log *l, struct record *rec)
{
	rec->prev = l->newest;
	if (l->newest != NULL)
		l->newest->next = rec;
	else
		l->oldest = rec;
	l->newest = rec;
}

/* With the lock. */
static void unlink_record(struct sending_queue_log *l, struct record *rec)
{
	if (rec->prev != NULL)
		rec->prev->next = rec->next;
	else
		l->oldest = rec->next;
	if (rec->next != NULL)
		rec->next->prev = rec->prev;
	else
		l->newest = rec->prev;
}

/* Tell the ledger how n_claimed of the record's spans ended; tallies say how all of them did. */
static void book(const struct record *rec)
{
	uint32_t left = rec->n_claimed;

	for (int r = 0; r < DROP_REASON_MAX; r++) {
		uint32_t n = MIN(atomic_load(&rec->origin.n_dropped[r]), left);

		if (n > 0)
			ledger_held_dropped(n, (enum drop_reason)r);
		left -= n;
	}
	ledger_held_delivered(left);
}

/* On the loop, or where the feeder stops. */
static void record_settled(struct origin *o)
{
	struct record *rec = CONTAINER_OF(o, struct record, origin);
	struct sending_queue *q = rec->q;
	struct sending_queue_log *l = q->log;
	struct origin_outcome outcome;

	origin_outcome(o, &outcome);
	if (!outcome.retryable)
		book(rec);
	pthread_mutex_lock(&q->lock);
	if (outcome.retryable) {
		/* It stays in the list, and so in the log. */
		l->keeps = true;
	} else {
		l->held -= rec->n_claimed;
		unlink_record(l, rec);
		free(rec);
	}
	pthread_cond_signal(&l->wake);
	pthread_mutex_unlock(&q->lock);
}

/* ---- reading ---- */

static void found_spans(struct sending_queue *q, uint64_t lsn, uint32_t n)
{
	struct sending_queue_log *l = q->log;

	if (lsn >= l->found_to || lsn < l->counted_to)
		return;
	ledger_found(n);
	pthread_mutex_lock(&q->lock);
	l->held += n;
	l->counted_to = lsn + 1;
	pthread_mutex_unlock(&q->lock);
}

/* A failed read. True when the reader stands behind what it could not read. */
static bool note_damage(struct sending_queue *q, const struct err *err)
{
	if (err->retryable)
		q->log->pause_until_ns = clock_mono_ns() + TICK_MS * NS_PER_MS;
	log_error("sending queue cannot read its log", "exporter", id_of(q), "error", err->msg);
	return !err->retryable;
}

/* The payload's request as a batch. What the budget cannot hold is taken all the same: the window
 * bounds it. NULL: not readable. */
static struct batch *decode(struct sending_queue *q, const struct batch_record *br, struct err *err)
{
	struct budget *budget = component_budget(q->o.component);
	struct rcbuf *buf = rcbuf_new_forced(budget, MAX(br->otlp.n, (size_t)1));
	struct otlp_result result = { 0 };
	struct batch *b;

	memcpy(buf->p, br->otlp.p, br->otlp.n);
	buf->n = br->otlp.n;
	b = batch_from_otlp(rcbuf_ref(buf), br->tenant, budget, &result, err);
	if (b == NULL && (err->kind == ERR_EXHAUSTED || err->kind == ERR_TOO_LARGE))
		b = batch_from_otlp(rcbuf_ref(buf), br->tenant, NULL, &result, err);
	rcbuf_unref(buf);
	return b;
}

/* The record is read: from here on it is open, unless it has no spans that could be sent. */
static struct batch *open_record(struct sending_queue *q, uint64_t lsn, uint32_t n_spans,
				 struct batch *b)
{
	struct sending_queue_log *l = q->log;
	uint32_t n = b != NULL ? b->tables.n_spans : 0;
	uint32_t n_lost = n_spans > n ? n_spans - n : 0, n_claimed;
	struct record *rec = NULL;

	pthread_mutex_lock(&q->lock);
	n_claimed = take_claim(l, lsn, n_spans);
	l->fed_to = lsn + 1;
	n_lost = MIN(n_lost, n_claimed);
	l->held -= n_lost;
	if (n > 0) {
		rec = xcalloc(1, sizeof(*rec));
		rec->q = q;
		rec->lsn = lsn;
		rec->n_claimed = n_claimed - n_lost;
		origin_init_held(&rec->origin, n, record_settled);
		link_record(l, rec);
	}
	pthread_mutex_unlock(&q->lock);
	if (n_lost > 0)
		ledger_held_dropped(n_lost, DROP_CORRUPT);
	if (rec != NULL) {
		batch_bind(b, &rec->origin);
		return b;
	}
	batch_unref(b);
	return NULL;
}

static void skip_to(struct sending_queue *q, uint64_t lsn)
{
	pthread_mutex_lock(&q->lock);
	q->log->fed_to = MAX(q->log->fed_to, lsn);
	pthread_mutex_unlock(&q->lock);
}

/* The next record below `known_to` as a batch; NULL when there is none now. */
static struct batch *next_batch(struct sending_queue *q, uint64_t known_to)
{
	struct sending_queue_log *l = q->log;
	struct batch_record br;
	struct segment_record rec;
	struct batch *b = NULL;
	struct err err;
	int rc;

	while (b == NULL && segment_reader_lsn(l->reader) < known_to) {
		err_clear(&err);
		rc = segment_reader_next(l->reader, &rec, &err);
		if (rc == 0) {
			skip_to(q, known_to);
			return NULL;
		}
		if (rc < 0 && !note_damage(q, &err))
			return NULL;
		if (rc < 0)
			continue;
		if (batch_record_parse(rec.payload, &br, &err) < 0) {
			note_damage(q, &err);
			skip_to(q, rec.lsn + 1);
			continue;
		}
		found_spans(q, rec.lsn, br.n_spans);
		b = decode(q, &br, &err);
		if (b == NULL)
			note_damage(q, &err);
		b = open_record(q, rec.lsn, br.n_spans, b);
	}
	if (b == NULL)
		segment_reader_rest(l->reader);
	return b;
}

static bool fits(const struct sending_queue *q, struct batch *const *v, size_t n, uint64_t spans,
		 uint64_t bytes, const struct batch *b)
{
	const struct queue_options *o = q->o.queue;
	uint64_t max_spans = JOIN_SPANS, max_bytes = JOIN_BYTES;

	if (o->batch_on && o->batch.max_size > 0 && o->batch.sizer == QUEUE_SIZER_BYTES)
		max_bytes = MIN(o->batch.max_size, max_bytes);
	else if (o->batch_on && o->batch.max_size > 0)
		max_spans = MIN(o->batch.max_size, max_spans);
	return n == 0 ||
	       (n < JOIN_RECORDS && spans + b->tables.n_spans <= max_spans &&
		bytes + batch_encoded_size(b) <= max_bytes && strcmp(v[0]->tenant, b->tenant) == 0);
}

/* Read records of one tenant up to what is good to send at once, and push them as one batch. */
static void feed(struct sending_queue *q)
{
	struct sending_queue_log *l = q->log;
	struct batch *v[JOIN_RECORDS], *b;
	uint64_t spans = 0, bytes = 0, known_to;
	size_t n = 0;

	pthread_mutex_lock(&q->lock);
	known_to = l->known_to;
	pthread_mutex_unlock(&q->lock);
	for (;;) {
		b = l->carry ? l->carry : next_batch(q, known_to);
		l->carry = NULL;
		if (b == NULL)
			break;
		if (!fits(q, v, n, spans, bytes, b)) {
			l->carry = b;
			break;
		}
		spans += b->tables.n_spans;
		bytes += batch_encoded_size(b);
		v[n++] = b;
	}
	if (n > 0)
		sending_queue_push(q, batch_concat(v, n), true);
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
			found_spans(q, rec.lsn, br.n_spans);
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

static uint64_t free_point_locked(const struct sending_queue_log *l)
{
	return l->oldest != NULL ? l->oldest->lsn : l->fed_to;
}

static bool has_more_locked(const struct sending_queue_log *l)
{
	return l->fed_to < l->known_to;
}

static bool may_feed_locked(struct sending_queue *q)
{
	const struct sending_queue_log *l = q->log;

	if ((!has_more_locked(l) && l->carry == NULL) || q->n_open >= 2 * q->n_consumers ||
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

/* When every record was read and is finished, what the ledger still counts here is lost. */
static void write_off_locked(struct sending_queue_log *l)
{
	if (l->held == 0 || l->oldest != NULL || has_more_locked(l) ||
	    l->counted_to < l->found_to || l->keeps)
		return;
	ledger_held_dropped(l->held, DROP_CORRUPT);
	l->held = 0;
}

/* What is on disk, against what may be there. Without the lock. */
bool sending_queue_log_is_failing(struct sending_queue *q, char *why, size_t why_size)
{
	return segment_log_is_failing(q->log->log, why, why_size);
}

static void note_disk(struct sending_queue *q)
{
	struct component_counters *count = q->o.component->count;
	struct segment_log_stats s;
	struct statvfs fs;

	segment_log_stats(q->log->log, &s);
	atomic_store(&count->queue_size, s.records_held > 0 ? (int64_t)s.bytes_on_disk : 0);
	if (s.max_bytes > 0)
		atomic_store(&count->queue_capacity, (int64_t)s.max_bytes);
	else if (statvfs(q->log->dir, &fs) == 0)
		atomic_store(&count->queue_capacity,
			     (int64_t)(s.bytes_on_disk + (uint64_t)fs.f_bavail * fs.f_frsize));
}

static void wait_a_tick_locked(struct sending_queue *q)
{
	uint64_t ns = clock_mono_ns() + TICK_MS * NS_PER_MS;
	struct timespec until = { (time_t)(ns / NS_PER_S), (long)(ns % NS_PER_S) };

	pthread_cond_timedwait(&q->log->wake, &q->lock, &until);
}

static void *feeder(void *arg)
{
	struct sending_queue *q = arg;
	struct sending_queue_log *l = q->log;
	uint64_t free_to;

	pthread_mutex_lock(&q->lock);
	while (!l->stopping) {
		free_to = free_point_locked(l);
		if (free_to > l->freed_to) {
			l->freed_to = free_to;
			pthread_mutex_unlock(&q->lock);
			segment_log_free_to(l->log, free_to);
			pthread_mutex_lock(&q->lock);
		}
		if (may_feed_locked(q)) {
			pthread_mutex_unlock(&q->lock);
			feed(q);
			pthread_mutex_lock(&q->lock);
		} else if (may_count_locked(l)) {
			pthread_mutex_unlock(&q->lock);
			count_found(q);
			pthread_mutex_lock(&q->lock);
		} else if (free_point_locked(l) == l->freed_to) {
			write_off_locked(l);
			pthread_mutex_unlock(&q->lock);
			note_disk(q);
			pthread_mutex_lock(&q->lock);
			if (!l->stopping && !may_feed_locked(q) &&
			    free_point_locked(l) == l->freed_to)
				wait_a_tick_locked(q);
		}
	}
	pthread_mutex_unlock(&q->lock);
	return NULL;
}

/* ---- life ---- */

/* "<directory>/<exporter id>", with %XX for what a file name should not have. */
static char *log_dir(const char *directory, const char *id)
{
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
	rc = pthread_create(&q->log->feeder, NULL, feeder, q);
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
	l->dir = log_dir(storage->directory, id_of(q));
	options.dir = l->dir;
	options.max_bytes = o->sizer == QUEUE_SIZER_BYTES ? MAX(o->queue_size, MIB) : 0;
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
	l->reader = segment_reader_new(l->log, found.first_lsn);
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

	return l->n_appending == 0 && l->oldest == NULL && !has_more_locked(l);
}

bool sending_queue_log_is_counted(const struct sending_queue *q)
{
	return q->log->counted_to >= q->log->found_to;
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
	if (l->carry != NULL)
		batch_settle(l->carry, VERDICT_RETRYABLE, DROP_SHUTDOWN, NULL);
	batch_unref(l->carry);
	l->carry = NULL;
}

void sending_queue_log_close(struct sending_queue *q)
{
	struct sending_queue_log *l = q->log;
	struct record *rec, *next;

	if (l == NULL)
		return;
	segment_reader_free(l->reader);
	segment_reader_free(l->counter);
	segment_log_free_to(l->log, free_point_locked(l));
	write_off_locked(l);
	segment_log_close(l->log);
	for (rec = l->oldest; rec != NULL; rec = next) {
		next = rec->next;
		free(rec);
	}
	pthread_cond_destroy(&l->wake);
	free(l->claims);
	free(l->dir);
	free(l);
	q->log = NULL;
}
