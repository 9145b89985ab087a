/* SPDX-License-Identifier: Apache-2.0
 *
 * section_log.c - appending, the open section, start and stop; see section_log.h. The builder is
 * section_build.c, look-ups are section_find.c.
 */
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "blocks/section.h"
#include "exporters/blocks/block_builder.h"
#include "exporters/blocks/section_log_private.h"
#include "pipeline/batch_record.h"
#include "pipeline/segment/reader.h"
#include "pipeline/span/numbers.h"

#include <stdio.h>
#include <time.h>
#include <unistd.h>

enum {
	REPLAY_TRIES = 60,  /* a second each, of a disk that refuses to read */
	BUILD_SHARE = 3,    /* of the budget, at most one part in three */
	NOTES_SHARE = 2,    /* of that, for what the builder remembers of each span */
	LOW_BUDGET = 4,     /* when less than one part in so many is left, notes go */
	TENANTS_MAX = 1000, /* a section's commit record is read back whole */
	OTLP_MAX = SEGMENT_RECORD_MAX - BATCH_RECORD_HEAD_MAX,
	/* What is pending is in batches that the budget has granted; this only has to let all the
	 * halves of one batch pass. */
	PENDING_MAX = 1 << 30,
};

/* ---- the open section ---- */

void section_log_close_open(struct section_log *l)
{
	if (l->open->n_records == 0)
		return;
	section_list_append(&l->closed, l->open);
	l->open = live_section_new(l->o.budget);
	pthread_cond_signal(&l->wake);
}

uint64_t section_log_share(const struct section_log *l)
{
	if (l->o.budget == NULL)
		return 0;
	return (uint64_t)MAX(atomic_load(&l->o.budget->limit), 0) / BUILD_SHARE;
}

/* What grows with the section while it is built; its bytes stay in the log. */
static uint64_t build_bytes(const struct live_section *s)
{
	return s->n_runs * BLOCK_BUILD_RUN_BYTES + s->head_bytes;
}

/* What its largest trace takes, which has to be in memory as a whole. */
static uint64_t trace_bytes(const struct live_section *s)
{
	return s->n_spans == 0 ? 0
			       : s->largest_trace * (BLOCK_BUILD_TRACE_SPAN_BYTES +
						     2 * (s->bytes / s->n_spans));
}

static bool is_full(const struct section_log *l)
{
	const struct live_section *s = l->open;
	uint64_t share = section_log_share(l);

	return (l->o.max_block_bytes && s->bytes >= l->o.max_block_bytes) ||
	       (l->o.max_block_traces && s->n_traces >= l->o.max_block_traces) ||
	       s->n_tenants >= TENANTS_MAX ||
	       (share > 0 && (build_bytes(s) >= share / NOTES_SHARE || trace_bytes(s) >= share));
}

/* Lock held. Notes only save work: when memory is short, those of sections that are not being built
 * go. */
static void drop_notes_when_low(struct section_log *l)
{
	const struct budget *b = l->o.budget;

	if (b == NULL || budget_left(l->o.budget) > (size_t)MAX(b->limit, 0) / LOW_BUDGET)
		return;
	live_section_drop_notes(l->open);
	for (struct live_section *s = l->closed.first; s != NULL; s = s->next)
		if (s != l->closed.first)
			live_section_drop_notes(s);
}

/* Index a durable record and settle its batch: in this order, so that an acknowledged span is
 * always found, and under one lock, so that the section that holds it answers for it in the ledger.
 * A batch `found` at start has no origin to settle. */
static void add_to_open(struct section_log *l, struct batch *b, const struct segment_position *at,
			uint64_t lsn, uint64_t wall_ns, const struct early_notes *notes,
			const struct batch_record *found)
{
	uint32_t n_claimed;

	pthread_mutex_lock(&l->lock);
	live_section_add(l->open, b->tenant, at, lsn, wall_ns, &b->tables, notes);
	drop_notes_when_low(l);
	if (found == NULL && l->o.sent != NULL)
		atomic_fetch_add_explicit(l->o.sent, b->tables.n_spans, memory_order_relaxed);
	n_claimed = found != NULL ? span_numbers_count(found->numbers, b->tables.n_spans)
				  : batch_store(b);
	if (found != NULL)
		n_claimed = (uint32_t)span_left_found(&l->left, &ledger, n_claimed);
	l->open->n_claimed += n_claimed;
	l->next_lsn = lsn + 1;
	if (is_full(l))
		section_log_close_open(l);
	else if (l->open->n_records == 1)
		pthread_cond_signal(&l->wake); /* it starts the clock of max_block_age */
	pthread_mutex_unlock(&l->lock);
}

void section_log_retire(struct section_log *l, uint64_t n_blocks, uint64_t n_lost, bool is_listed)
{
	struct live_section *s = section_list_take(&l->closed);
	uint64_t n_dropped = MIN(n_lost, s->n_claimed);

	ledger_held_dropped(&ledger, n_dropped, DROP_CORRUPT);
	ledger_held_delivered(&ledger, s->n_claimed - n_dropped);
	l->stats.sections++;
	l->stats.blocks_written += n_blocks;
	l->stats.lost_spans += n_lost;
	l->stats.last_error[0] = '\0';
	s->retire_mono_ns = clock_mono_ns() + 2 * store_poll_ns(l->o.store);
	/* The index of a section is as large as its traces are many (measured: 1.7 million spans of
	 * a trace each held 42 MiB of a budget of 52 for ten seconds, and nobody was served). */
	if (is_listed)
		live_section_forget(s);
	section_list_append(&l->retiring, s);
	pthread_cond_broadcast(&l->progress);
}

/* ---- appending ---- */

/* One batch on its way into the log; freed in appended(). */
struct pending {
	struct segment_append append;
	struct section_log *log;
	struct batch *batch;
	struct arena arena;
	struct early_notes notes;
	uint64_t wall_ns;
	uint8_t head[BATCH_RECORD_HEAD_MAX];
};

static void pending_free(struct pending *p)
{
	batch_unref(p->batch);
	arena_fini(&p->arena);
	free(p);
}

/* On the log's writer thread. */
static void appended(struct segment_append *a)
{
	struct pending *p = a->owner;

	if (a->err.kind == ERR_NONE)
		add_to_open(p->log, p->batch, &a->position, a->lsn, p->wall_ns, &p->notes, NULL);
	else
		batch_settle(p->batch, VERDICT_RETRYABLE, DROP_REASON_MAX, &a->err);
	pending_free(p);
}

static void append_record(struct section_log *l, struct batch *b)
{
	struct pending *p = xcalloc(1, sizeof(*p));
	struct err err = ERR_INIT;

	p->log = l;
	p->batch = b;
	p->wall_ns = clock_wall_ns();
	p->append.done = appended;
	p->append.owner = p;
	batch_record_lay_out(b, p->wall_ns, &p->arena, p->head, &p->append);
	/* Here the bytes are in the cache, and nobody else waits for it. */
	p->notes = early_notes_of(b, &p->arena);
	if (segment_log_append(l->log, &p->append, &err) == 0)
		return;
	batch_settle(b, err.retryable ? VERDICT_RETRYABLE : VERDICT_PERMANENT, DROP_TOO_LARGE,
		     &err);
	pending_free(p);
}

/* How many of its spans may go into one record: all, unless that would be too large, or take more
 * than its share to build if it is all one trace. */
static uint32_t spans_of_record(const struct section_log *l, const struct batch *b)
{
	uint64_t n = b->tables.n_spans, bytes = batch_encoded_size(b), share = section_log_share(l);
	uint64_t need = n * BLOCK_BUILD_TRACE_SPAN_BYTES + 2 * bytes, fit = n;

	if (bytes > OTLP_MAX)
		fit = n * OTLP_MAX / bytes;
	if (share > 0 && need > share)
		fit = MIN(fit, n * share / need);
	return (uint32_t)(n > 0 ? MAX(fit, 1u) : 0);
}

void section_log_append(struct section_log *l, struct batch *b)
{
	uint32_t n = spans_of_record(l, b);
	struct batch *head;

	/* Spans differ in size, so that a piece may have to be cut again; one span is never. */
	while (n < b->tables.n_spans) {
		batch_split(b, n, &head, &b);
		section_log_append(l, head);
		n = spans_of_record(l, b);
	}
	if (b->tables.n_spans > 0)
		append_record(l, b);
	else
		batch_unref(b);
}

/* ---- flushing ---- */

void section_log_cut(struct section_log *l)
{
	pthread_mutex_lock(&l->lock);
	section_log_close_open(l);
	pthread_mutex_unlock(&l->lock);
}

static int flush_live(struct live_source *live, struct err *err)
{
	struct section_log *l = CONTAINER_OF(live, struct section_log, live);
	uint64_t goal;
	int ret = 0;

	if (segment_log_flush(l->log, err) < 0)
		return -1;
	pthread_mutex_lock(&l->lock);
	goal = l->next_lsn;
	section_log_close_open(l);
	while (ret == 0 && l->published_lsn < goal) {
		if (l->stopping)
			ret = err_set(err, ERR_UNAVAILABLE, "flush: stopping");
		else if (l->stats.last_error[0] != '\0')
			ret = err_set(err, ERR_UNAVAILABLE, "flush: %s", l->stats.last_error);
		else
			pthread_cond_wait(&l->progress, &l->lock);
	}
	pthread_mutex_unlock(&l->lock);
	return ret;
}

/* ---- start ---- */

static int replay_record(struct section_log *l, const struct segment_record *rec, struct err *err)
{
	struct rcbuf *copy;
	struct otlp_result result;
	struct batch_record r;
	struct arena arena = ARENA_INIT;
	struct early_notes notes;
	struct batch *b;

	if (batch_record_parse(rec->payload, &r, err) < 0)
		return -1;
	copy = rcbuf_new_forced(l->o.budget, r.otlp.n);
	memcpy(copy->p, r.otlp.p, r.otlp.n);
	copy->n = r.otlp.n;
	b = batch_from_otlp(copy, r.tenant, NULL, &result, err);
	if (b == NULL)
		return -1;
	notes = early_notes_of(b, &arena);
	add_to_open(l, b, &rec->position, rec->lsn, r.wall_ns, &notes, &r);
	arena_fini(&arena);
	batch_unref(b);
	return 0;
}

/* While the index of a long backlog fills the memory, let the builder work it off first - as long
 * as it gets on. */
static void wait_for_room(struct section_log *l)
{
	if (l->o.budget == NULL || budget_left(l->o.budget) > (size_t)l->o.budget->limit / 4)
		return;
	pthread_mutex_lock(&l->lock);
	while (l->closed.first != NULL && l->stats.last_error[0] == '\0' &&
	       budget_left(l->o.budget) <= (size_t)l->o.budget->limit / 4)
		pthread_cond_wait(&l->progress, &l->lock);
	pthread_mutex_unlock(&l->lock);
}

/* Index what is in the log and in no committed section. A disk that refuses to read is given a
 * minute. */
static int replay(struct section_log *l, uint64_t from, uint64_t to, struct err *err)
{
	struct segment_reader *reader = segment_reader_new(l->log, from);
	struct segment_record rec;
	uint64_t n = 0;
	int got = 0, tries = 0;

	while (segment_reader_lsn(reader) < to &&
	       (got = segment_reader_next(reader, &rec, err)) != 0) {
		if (got < 0 && err->retryable && tries++ < REPLAY_TRIES) {
			sleep(1);
			continue;
		}
		if (got < 0 && err->retryable)
			break;
		if (got < 0 || replay_record(l, &rec, err) < 0)
			log_error("a record of the log is damaged and lost", "error", err->msg);
		else
			n++;
		err_clear(err);
		wait_for_room(l);
	}
	segment_reader_free(reader);
	if (n > 0)
		log_info("replayed the log", "records", LOG_NUM(n));
	return got < 0 ? -1 : 0;
}

static int list_block(void *arg, const struct block_meta *m, struct err *err)
{
	struct section_log *l = arg;

	(void)err;
	store_add_committed(l->o.store, m);
	return 0;
}

int section_log_follow(struct section_log *l, uint64_t from, uint64_t *next, struct err *err)
{
	int ret = section_follow(store_backend(l->o.store), l->source, from, list_block, l, next,
				 err);

	if (ret != 0)
		err_wrap(err, "following the commits of log %s", l->source);
	return ret;
}

/* A store that can be read and not written (a full disk) is no reason to turn clients away: the
 * builder finishes what is left when it can, before it builds, and we are not ready so long. */
static int follow(struct section_log *l, const struct segment_log_found *found, uint64_t *next,
		  struct err *err)
{
	int ret;

	snprintf(l->source, sizeof(l->source), "%s", segment_log_id(l->log));
	ret = section_log_follow(l, found->first_lsn, next, err);
	if (ret < 0)
		return -1;
	/* What a commit covers is never replayed: no new record may have such a number. */
	segment_log_skip_to(l->log, *next);
	l->next_lsn = l->published_lsn = *next;
	if (ret == 0) {
		segment_log_free_to(l->log, *next);
		return 0;
	}
	l->follow_from = found->first_lsn;
	snprintf(l->stats.last_error, sizeof(l->stats.last_error), "%s", err->msg);
	log_warn("blocks of the last run cannot be made visible yet", "error", err->msg);
	err_clear(err);
	return 0;
}

static int start_builder(struct section_log *l, struct err *err)
{
	if (pthread_create(&l->builder, NULL, section_build_thread, l) != 0)
		return err_set(err, ERR_INTERNAL, "blocks: cannot start the builder thread");
	l->building = true;
	return 0;
}

static void init_waiting(struct section_log *l)
{
	pthread_condattr_t monotonic;

	pthread_mutex_init(&l->lock, NULL);
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&l->wake, &monotonic);
	pthread_cond_init(&l->progress, NULL);
	pthread_condattr_destroy(&monotonic);
}

static void free_list(struct section_list *list)
{
	while (list->first != NULL)
		live_section_free(section_list_take(list));
}

static void stop_builder(struct section_log *l)
{
	pthread_mutex_lock(&l->lock);
	l->stopping = true;
	pthread_cond_broadcast(&l->wake);
	pthread_cond_broadcast(&l->progress);
	pthread_mutex_unlock(&l->lock);
	if (l->building)
		store_join(l->o.store, l->builder);
}

/* Spans that the ledger counts as held here. */
static uint64_t n_claimed(const struct section_log *l)
{
	uint64_t n = l->left.n + l->open->n_claimed;

	for (const struct live_section *s = l->closed.first; s != NULL; s = s->next)
		n += s->n_claimed;
	return n;
}

static void section_log_free(struct section_log *l)
{
	/* The log first: appends that are under way still come in. */
	segment_log_close(l->log);
	if (n_claimed(l) > 0)
		span_left_put(l->dir, n_claimed(l), l->is_replayed);
	live_section_free(l->open);
	free_list(&l->closed);
	free_list(&l->retiring);
	pthread_mutex_destroy(&l->lock);
	pthread_cond_destroy(&l->wake);
	pthread_cond_destroy(&l->progress);
	free(l->dir);
	free(l);
}

/* What an earlier instance of this process left in the books and the replay did not meet: in blocks
 * by now when a commit covered it, else lost to damage. */
static void account_for_left(struct section_log *l, bool was_followed)
{
	if (was_followed)
		ledger_held_delivered(&ledger, l->left.n);
	else
		ledger_held_dropped(&ledger, l->left.n, DROP_CORRUPT);
	l->left.n = 0;
}

struct section_log *section_log_start(const struct section_log_options *o, struct err *err)
{
	struct segment_log_options log = {
		.dir = o->dir,
		.sync = true,
		.budget = o->budget,
		.io = o->log_io,
		.max_pending_bytes = PENDING_MAX,
		/* A section's blocks are written before its records are freed. */
		.leave_free = o->max_block_bytes
				      ? 2 * MAX(o->max_block_bytes, SEGMENT_BYTES_DEFAULT)
				      : GIB,
	};
	const char *delay = getenv("SPANMILL_TEST_STEP_DELAY_MS");
	struct section_log *l = xcalloc(1, sizeof(*l));
	struct err local = ERR_INIT;
	struct segment_log_found found;
	uint64_t from;

	l->o = *o;
	l->open = live_section_new(o->budget);
	l->live = (struct live_source){ .find = section_find_live, .flush = flush_live };
	init_waiting(l);
	if (delay != NULL)
		l->step_delay_ms = (unsigned)strtoul(delay, NULL, 10);
	l->dir = xstrdup(o->dir);
	l->log = segment_log_open(&log, &found, &local);
	if (l->log != NULL)
		l->left = span_left_take(l->dir);
	/* The builder works while the replay goes on: a backlog need not fit into memory. */
	if (l->log != NULL && follow(l, &found, &from, &local) == 0 &&
	    start_builder(l, &local) == 0 && replay(l, from, found.next_lsn, &local) == 0) {
		account_for_left(l, from > found.first_lsn);
		l->is_replayed = true;
		store_add_live(o->store, &l->live);
		return l;
	}
	stop_builder(l);
	section_log_free(l);
	if (err != NULL)
		*err = local;
	return NULL;
}

/* ---- stop, and what others ask ---- */

bool section_log_is_idle(struct section_log *l)
{
	bool idle;

	pthread_mutex_lock(&l->lock);
	idle = l->open->n_records == 0 && l->closed.first == NULL;
	pthread_mutex_unlock(&l->lock);
	return idle;
}

bool section_log_is_failing(struct section_log *l, char *why, size_t why_size)
{
	bool failing;

	if (segment_log_is_failing(l->log, why, why_size))
		return true;
	pthread_mutex_lock(&l->lock);
	failing = l->stats.last_error[0] != '\0';
	if (failing)
		snprintf(why, why_size, "blocks cannot be written: %s", l->stats.last_error);
	pthread_mutex_unlock(&l->lock);
	return failing;
}

void section_log_stats(struct section_log *l, struct section_log_stats *out)
{
	struct segment_log_stats log;
	const struct live_section *s;

	segment_log_stats(l->log, &log);
	pthread_mutex_lock(&l->lock);
	*out = l->stats;
	l->open->next = l->closed.first;
	for (s = l->open; s != NULL; s = s->next) {
		out->live_spans += s->n_spans;
		out->live_bytes += s->bytes;
		out->live_traces += s->n_traces;
	}
	l->open->next = NULL;
	pthread_mutex_unlock(&l->lock);
	out->log_bytes = log.bytes_on_disk;
	out->lost_records = log.lost;
	out->quarantined = log.quarantined;
}

void section_log_stop(struct section_log *l)
{
	if (l == NULL)
		return;
	stop_builder(l);
	store_remove_live(l->o.store, &l->live);
	/* Published sections need no waiting: at the next start their commits are followed. */
	if (l->retiring.last != NULL)
		segment_log_free_to(l->log, l->retiring.last->last_lsn + 1);
	section_log_free(l);
}
