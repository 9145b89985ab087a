/* SPDX-License-Identifier: Apache-2.0
 *
 * section_log.c - see section_log.h.
 *
 * LOCKS: `lock` covers the section lists and counters. It is held for index updates and look-ups, never across I/O: a
 * look-up copies the positions it needs and reads the log afterwards; retired records are freed in the log only by the
 * builder, and a look-up that meets a freed record finds the trace in a block instead.
 */
#include "exporters/blocks/section_log.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "blocks/block.h"
#include "blocks/section.h"
#include "exporters/blocks/block_builder.h"
#include "exporters/blocks/live_section.h"
#include "pipeline/batch_record.h"
#include "pipeline/segment_log.h"
#include "pipeline/segment_reader.h"
#include "wire/otlp_encode.h"

#include <pthread.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

enum { RETRY_FIRST_MS = 200, RETRY_LAST_MS = 30000, SWEEP_AGE_S = 3600 };

struct section_log {
	struct section_log_options o;
	struct segment_log *log;
	char source[64];			/* of the commits: the log's id */
	struct live_source live;
	pthread_mutex_t lock;
	pthread_cond_t wake;			/* the builder's: something to cut, or stop */
	pthread_cond_t progress;		/* a section was published */
	struct live_section *open, *building, *retiring;	/* retiring: oldest first */
	bool cut_asked, stopping;
	uint64_t next_lsn;			/* highest durable LSN seen + 1 */
	struct section_log_stats stats;
	unsigned step_delay_ms;			/* tests: SPANMILL_TEST_STEP_DELAY_MS between the steps of publishing */
	pthread_t builder;
};

/* ---- appending ---- */

/* One batch on its way into the log; freed in done(). */
struct pending {
	struct segment_append append;
	struct section_log *log;
	struct batch *batch;
	struct arena arena;
	uint64_t wall_ns;
	uint8_t head[BATCH_RECORD_HEAD_MAX];
};

static bool is_due(struct section_log *l, uint64_t now)
{
	const struct live_section *s = l->open;

	if (s->n_records == 0)
		return false;
	return l->cut_asked || (l->o.max_block_bytes && s->bytes >= l->o.max_block_bytes) ||
	       (l->o.max_block_traces && s->n_traces >= l->o.max_block_traces) ||
	       now - s->opened_mono_ns >= l->o.max_block_age_ns;
}

/* Index a durable record and settle its batch: in this order, so that an acknowledged span is always found, and under
 * one lock, so that the section that holds it answers for it in the ledger. A replayed batch has no origin to settle. */
static void add_to_open(struct section_log *l, struct batch *b, const struct segment_position *at, uint64_t lsn,
			uint64_t wall_ns, bool replayed)
{
	pthread_mutex_lock(&l->lock);
	live_section_add(l->open, b->tenant, at, lsn, wall_ns, &b->tables);
	l->open->n_claimed += replayed ? b->tables.n_spans : batch_hold(b);
	l->next_lsn = lsn + 1;
	/* The first record starts the clock of max_block_age; later ones wake only when a limit is passed. */
	if (l->open->n_records == 1 || is_due(l, l->open->opened_mono_ns))
		pthread_cond_signal(&l->wake);
	pthread_mutex_unlock(&l->lock);
}

/* On the log's writer thread. */
static void appended(struct segment_append *a)
{
	struct pending *p = a->owner;
	struct batch *b = p->batch;

	if (a->err.kind == ERR_NONE) {
		add_to_open(p->log, b, &a->position, a->lsn, p->wall_ns, false);
	} else {
		batch_settle(b, VERDICT_RETRYABLE, DROP_REASON_MAX, &a->err);
	}
	batch_unref(b);
	arena_fini(&p->arena);
	free(p);
}

static void fill_pieces(struct pending *p)
{
	struct batch_encoding e;
	struct iovec *iov;

	batch_encode(p->batch, &p->arena, &e);
	iov = arena_alloc(&p->arena, (e.n_pieces + 1) * sizeof(*iov));
	iov[0].iov_base = p->head;
	iov[0].iov_len = batch_record_head(p->head, p->batch->tenant, p->batch->tables.n_spans, p->wall_ns);
	for (size_t i = 0; i < e.n_pieces; i++)
		iov[i + 1] = (struct iovec){ (void *)e.pieces[i].p, e.pieces[i].n };
	p->append.iov = iov;
	p->append.n_iov = (uint32_t)e.n_pieces + 1;
}

void section_log_append(struct section_log *l, struct batch *b)
{
	struct pending *p = xcalloc(1, sizeof(*p));
	struct err err = ERR_INIT;

	p->log = l;
	p->batch = b;
	p->wall_ns = clock_wall_ns();
	p->append.done = appended;
	p->append.owner = p;
	fill_pieces(p);
	if (segment_log_append(l->log, &p->append, &err) == 0)
		return;
	batch_settle(b, err.retryable ? VERDICT_RETRYABLE : VERDICT_PERMANENT, DROP_TOO_LARGE, &err);
	batch_unref(b);
	arena_fini(&p->arena);
	free(p);
}

/* ---- looking up ---- */

struct positions {
	struct segment_position *v;
	size_t n, cap;
};

static void collect(const struct live_section *s, const char *tenant, const uint8_t id[16], struct positions *out)
{
	struct segment_position at;
	uint32_t cursor = 0;

	for (; s != NULL; s = s->next)
		for (cursor = 0; live_section_find(s, tenant, id, &cursor, &at);) {
			out->v = xgrow(out->v, &out->cap, out->n + 1, sizeof(*out->v));
			out->v[out->n++] = at;
		}
}

/* The trace's spans of one record, as TracesData. */
static int give_record(struct bytes payload, const uint8_t id[16], store_piece_fn *piece, void *arg, struct err *err)
{
	struct arena arena = ARENA_INIT;
	struct span_tables t = { 0 };
	struct otlp_pieces pieces;
	struct otlp_result result;
	struct otlp_counts c;
	struct batch_record r;
	struct buf joined = BUF_INIT;
	uint32_t *pick, n = 0;
	int ret = -1;

	if (batch_record_parse(payload, &r, err) < 0 || otlp_count(r.otlp, &c, err) < 0)
		return -1;
	t.spans = arena_alloc(&arena, c.n_spans * sizeof(*t.spans));
	t.scopes = arena_alloc(&arena, c.n_scopes * sizeof(*t.scopes));
	t.resources = arena_alloc(&arena, c.n_resources * sizeof(*t.resources));
	t.heads = arena_alloc(&arena, c.n_heads * sizeof(*t.heads));
	pick = arena_alloc(&arena, c.n_spans * sizeof(*pick));
	if (otlp_index(r.otlp, &t, &arena, &result, err) < 0)
		goto out;
	for (uint32_t i = 0; i < t.n_spans; i++)
		if (memcmp(t.spans[i].trace_id, id, 16) == 0)
			pick[n++] = i;
	otlp_encode(&t, pick, n, &arena, &pieces);
	for (size_t i = 0; i < pieces.n; i++)
		buf_add_bytes(&joined, pieces.v[i]);
	ret = n ? piece(arg, buf_bytes(&joined), err) : 0;
out:
	buf_fini(&joined);
	arena_fini(&arena);
	return ret;
}

static int find_live(struct live_source *live, const char *tenant, const uint8_t id[16], store_piece_fn *piece,
		     void *arg, struct err *err)
{
	struct section_log *l = CONTAINER_OF(live, struct section_log, live);
	struct positions found = { NULL, 0, 0 };
	struct buf record = BUF_INIT;
	int ret = 0;

	pthread_mutex_lock(&l->lock);
	collect(l->open, tenant, id, &found);
	collect(l->building, tenant, id, &found);
	collect(l->retiring, tenant, id, &found);
	pthread_mutex_unlock(&l->lock);
	/* Oldest first: the order in which the spans came. */
	for (size_t i = found.n; ret == 0 && i-- > 0;) {
		struct err local = ERR_INIT;

		buf_reset(&record);
		if (segment_log_read(l->log, &found.v[i], &record, &local) == 0)
			ret = give_record(buf_bytes(&record), id, piece, arg, err);
		else if (local.kind != ERR_NOT_FOUND) /* freed meanwhile: a block has it */
			ret = err_set(err, local.kind, "%s", local.msg);
	}
	buf_fini(&record);
	free(found.v);
	return ret;
}

/* ---- building ---- */

static void pause_for_test(const struct section_log *l)
{
	if (l->step_delay_ms > 0)
		usleep(l->step_delay_ms * 1000);
}

/* The requests of one tenant, read into one piece of memory charged to the budget. */
struct loaded {
	uint8_t *memory;
	struct bytes *requests;
	size_t n, charged;
};

static void unload(struct section_log *l, struct loaded *in)
{
	free(in->memory);
	free(in->requests);
	budget_release(l->o.budget, in->charged);
	*in = (struct loaded){ 0 };
}

static int load(struct section_log *l, const struct live_section *s, uint32_t tenant, struct loaded *in,
		struct err *err)
{
	size_t bytes = 0, n = 0;
	struct batch_record r;
	uint8_t *at;

	for (size_t i = 0; i < s->n_records; i++)
		if (s->records[i].tenant == tenant) {
			bytes += s->records[i].at.length;
			n++;
		}
	*in = (struct loaded){ xmalloc(bytes), xmalloc(n * sizeof(struct bytes)), 0, bytes };
	budget_force(l->o.budget, bytes);
	at = in->memory;
	for (size_t i = 0; i < s->n_records; i++) {
		const struct live_record *rec = &s->records[i];

		if (rec->tenant != tenant)
			continue;
		if (segment_log_read_into(l->log, &rec->at, at, err) < 0 ||
		    batch_record_parse((struct bytes){ at, rec->at.length }, &r, err) < 0) {
			unload(l, in);
			return -1;
		}
		in->requests[in->n++] = r.otlp;
		at += rec->at.length;
	}
	return 0;
}

static int build_tenant(struct section_log *l, const struct live_section *s, uint32_t tenant, struct block_meta *meta,
			struct err *err)
{
	struct loaded in;
	struct block_build b = {
		.backend = store_backend(l->o.store),
		.tenant = s->tenants[tenant],
		.writer = &l->o.writer,
		.budget = l->o.budget,
		.first_wall_ns = s->first_wall_ns,
		.last_wall_ns = s->last_wall_ns,
	};
	int ret;

	if (load(l, s, tenant, &in, err) < 0)
		return -1;
	b.requests = in.requests;
	b.n_requests = in.n;
	ret = block_build(&b, meta, err);
	unload(l, &in);
	if (ret == 0) {
		pthread_mutex_lock(&l->lock);
		l->stats.duplicates += b.n_duplicates;
		l->stats.conflicting += b.n_conflicting;
		pthread_mutex_unlock(&l->lock);
	}
	return ret;
}

static void delete_blocks(struct section_log *l, const struct section_commit *c)
{
	for (size_t i = 0; i < c->n_metas; i++)
		block_delete(store_backend(l->o.store), c->metas[i].tenant, c->metas[i].id, NULL);
}

static int list_block(void *arg, const struct block_meta *m, struct err *err)
{
	struct section_log *l = arg;

	(void)err;
	store_add_block(l->o.store, m);
	return 0;
}

/* Steps 2 and 3. An attempt that lost to an earlier one of ours (its answer got lost) follows the winner. */
static int commit_and_publish(struct section_log *l, const struct section_commit *c, struct err *err)
{
	struct backend *be = store_backend(l->o.store);
	uint64_t next;

	pause_for_test(l);
	if (section_commit_put(be, l->source, c, err) < 0) {
		if (err->kind != ERR_EXISTS)
			return -1;
		delete_blocks(l, c);
	}
	pause_for_test(l);
	return section_follow(be, l->source, c->first, list_block, l, &next, err);
}

/* Steps 1 to 3 of a section. On error nothing of it is committed and its blocks are deleted. */
static int build_section(struct section_log *l, const struct live_section *s, struct err *err)
{
	struct section_commit c = {
		.first = s->first_lsn,
		.last = s->last_lsn,
		.first_timestamp_ms = s->first_wall_ns / NS_PER_MS,
		.metas = xcalloc(s->n_tenants, sizeof(*c.metas)),
	};
	int ret = 0;

	for (uint32_t t = 0; ret == 0 && t < s->n_tenants; t++) {
		ret = build_tenant(l, s, t, &c.metas[c.n_metas], err);
		c.n_metas += ret == 0;
		pause_for_test(l);
	}
	if (ret == 0)
		ret = commit_and_publish(l, &c, err);
	else
		delete_blocks(l, &c);
	section_commit_fini(&c);
	return ret;
}

/* Published: its spans are delivered; it answers queries until everybody has seen the blocks. */
static void retire(struct section_log *l, struct live_section *s)
{
	struct live_section **at = &l->retiring;

	ledger_held_delivered(s->n_claimed);
	s->retire_mono_ns = clock_mono_ns() + 2 * store_poll_ns(l->o.store);
	pthread_mutex_lock(&l->lock);
	l->building = NULL;
	l->stats.sections++;
	l->stats.blocks_written += s->n_tenants;
	l->stats.last_error[0] = '\0';
	s->next = NULL;
	while (*at != NULL)
		at = &(*at)->next;
	*at = s;
	pthread_cond_broadcast(&l->progress);
	pthread_mutex_unlock(&l->lock);
}

/* Step 4 for what everybody has seen. Lock held; released around the log's work. */
static void free_retired(struct section_log *l, uint64_t now)
{
	while (l->retiring != NULL && l->retiring->retire_mono_ns <= now) {
		struct live_section *s = l->retiring;

		l->retiring = s->next;
		pthread_mutex_unlock(&l->lock);
		segment_log_free_to(l->log, s->last_lsn + 1);
		live_section_free(s);
		pthread_mutex_lock(&l->lock);
	}
}

static struct timespec to_timespec(uint64_t mono_ns)
{
	return (struct timespec){ (time_t)(mono_ns / NS_PER_S), (long)(mono_ns % NS_PER_S) };
}

/* Lock held. Sleep until there may be something to do. */
static void wait_for_work(struct section_log *l, uint64_t now)
{
	uint64_t due = UINT64_MAX;
	struct timespec ts;

	if (l->open->n_records > 0)
		due = l->open->opened_mono_ns + l->o.max_block_age_ns;
	if (l->retiring != NULL)
		due = MIN(due, l->retiring->retire_mono_ns);
	if (due == UINT64_MAX) {
		pthread_cond_wait(&l->wake, &l->lock);
	} else if (due > now) {
		ts = to_timespec(due);
		pthread_cond_timedwait(&l->wake, &l->lock, &ts);
	}
}

/* Lock held. Wait after a failed build; an early end only when stopping. */
static void back_off(struct section_log *l, unsigned ms)
{
	struct timespec ts = to_timespec(clock_mono_ns() + ms * NS_PER_MS);

	while (!l->stopping && pthread_cond_timedwait(&l->wake, &l->lock, &ts) == 0) {
	}
}

/* Build l->building until it works or the exporter stops. Lock held, released while building. */
static void build_with_retries(struct section_log *l)
{
	unsigned wait_ms = RETRY_FIRST_MS;

	while (l->building != NULL) {
		struct live_section *s = l->building;
		struct err err = ERR_INIT;
		int ret;

		pthread_mutex_unlock(&l->lock);
		ret = build_section(l, s, &err);
		if (ret == 0)
			retire(l, s);
		pthread_mutex_lock(&l->lock);
		if (ret == 0)
			return;
		l->stats.build_failures++;
		snprintf(l->stats.last_error, sizeof(l->stats.last_error), "%s", err.msg);
		log_warn("building a block failed, the spans stay in the log", "error", err.msg);
		if (l->stopping)
			return;
		back_off(l, wait_ms);
		wait_ms = MIN(wait_ms * 2, (unsigned)RETRY_LAST_MS);
	}
}

static void *builder_thread(void *arg)
{
	struct section_log *l = arg;

	pthread_mutex_lock(&l->lock);
	while (!l->stopping) {
		uint64_t now = clock_mono_ns();

		free_retired(l, now);
		if (is_due(l, now)) {
			l->building = l->open;
			l->open = live_section_new();
			l->cut_asked = false;
			build_with_retries(l);
		} else {
			if (l->open->n_records == 0)
				l->cut_asked = false;
			wait_for_work(l, now);
		}
	}
	pthread_mutex_unlock(&l->lock);
	return NULL;
}

static int flush_live(struct live_source *live, struct err *err)
{
	struct section_log *l = CONTAINER_OF(live, struct section_log, live);
	uint64_t goal;
	int ret = 0;

	if (segment_log_flush(l->log, err) < 0)
		return -1;
	section_log_cut(l);
	pthread_mutex_lock(&l->lock);
	goal = l->next_lsn;
	while (ret == 0 && !l->stopping &&
	       ((l->open->n_records > 0 && l->open->first_lsn < goal) || l->building != NULL)) {
		struct timespec ts = to_timespec(clock_mono_ns() + NS_PER_S);

		if (l->stats.last_error[0] != '\0')
			ret = err_set(err, ERR_UNAVAILABLE, "flush: %s", l->stats.last_error);
		else
			pthread_cond_timedwait(&l->progress, &l->lock, &ts);
	}
	pthread_mutex_unlock(&l->lock);
	return ret;
}

/* ---- start and stop ---- */

static int replay_record(struct section_log *l, const struct segment_record *rec, struct err *err)
{
	struct rcbuf *copy;
	struct otlp_result result;
	struct batch_record r;
	struct batch *b;

	if (batch_record_parse(rec->payload, &r, err) < 0)
		return -1;
	copy = rcbuf_new_forced(l->o.budget, r.otlp.n);
	memcpy(copy->p, r.otlp.p, r.otlp.n);
	copy->n = r.otlp.n;
	b = batch_from_otlp(copy, r.tenant, NULL, &result, err);
	if (b == NULL)
		return -1;
	add_to_open(l, b, &rec->position, rec->lsn, r.wall_ns, true);
	ledger_found(b->tables.n_spans);
	batch_unref(b);
	return 0;
}

/* Index what is in the log and in no committed section. */
static int replay(struct section_log *l, uint64_t from, uint64_t to, struct err *err)
{
	struct segment_reader *reader = segment_reader_new(l->log, from);
	struct segment_record rec;
	uint64_t n = 0;
	int got;

	while (segment_reader_lsn(reader) < to && (got = segment_reader_next(reader, &rec, err)) != 0) {
		if (got < 0 && err->retryable) {
			segment_reader_free(reader);
			return -1;
		}
		if (got < 0 || replay_record(l, &rec, err) < 0)
			log_error("a record of the log is damaged and lost", "error", err->msg);
		else
			n++;
	}
	segment_reader_free(reader);
	if (n > 0)
		log_info("replayed the log", "records", LOG_NUM(n), "spans", LOG_NUM(l->open->n_spans));
	return 0;
}

static int recover(struct section_log *l, const struct segment_log_found *found, struct err *err)
{
	struct backend *be = store_backend(l->o.store);
	uint64_t next;

	snprintf(l->source, sizeof(l->source), "%s", segment_log_id(l->log));
	if (section_follow(be, l->source, found->first_lsn, list_block, l, &next, err) < 0)
		return err_wrap(err, "following the commits of log %s", l->source);
	segment_log_free_to(l->log, next);
	if (section_sweep_commits(be, l->source, next, SWEEP_AGE_S * NS_PER_S, err) < 0)
		log_warn("sweeping old commit records failed", "error", err->msg);
	err_clear(err);
	l->next_lsn = next;
	return replay(l, next, found->next_lsn, err);
}

static void init_waiting(struct section_log *l)
{
	pthread_condattr_t monotonic;

	pthread_mutex_init(&l->lock, NULL);
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&l->wake, &monotonic);
	pthread_cond_init(&l->progress, &monotonic);
	pthread_condattr_destroy(&monotonic);
}

static void section_log_free(struct section_log *l)
{
	segment_log_close(l->log);
	live_section_free(l->open);
	live_section_free(l->building);
	while (l->retiring != NULL) {
		struct live_section *next = l->retiring->next;

		live_section_free(l->retiring);
		l->retiring = next;
	}
	pthread_mutex_destroy(&l->lock);
	pthread_cond_destroy(&l->wake);
	pthread_cond_destroy(&l->progress);
	free(l);
}

struct section_log *section_log_start(const struct section_log_options *o, struct err *err)
{
	struct segment_log_options log = { .dir = o->dir, .sync = true, .budget = o->budget };
	const char *delay = getenv("SPANMILL_TEST_STEP_DELAY_MS");
	struct section_log *l = xcalloc(1, sizeof(*l));
	struct segment_log_found found;

	l->o = *o;
	l->open = live_section_new();
	l->live = (struct live_source){ .find = find_live, .flush = flush_live };
	init_waiting(l);
	if (delay != NULL)
		l->step_delay_ms = (unsigned)strtoul(delay, NULL, 10);
	l->log = segment_log_open(&log, &found, err);
	if (l->log == NULL || recover(l, &found, err) < 0)
		goto fail;
	if (pthread_create(&l->builder, NULL, builder_thread, l) != 0) {
		err_set(err, ERR_INTERNAL, "blocks: cannot start the builder thread");
		goto fail;
	}
	store_add_live(o->store, &l->live);
	return l;
fail:
	section_log_free(l);
	return NULL;
}

void section_log_cut(struct section_log *l)
{
	pthread_mutex_lock(&l->lock);
	l->cut_asked = true;
	pthread_cond_signal(&l->wake);
	pthread_mutex_unlock(&l->lock);
}

bool section_log_is_idle(struct section_log *l)
{
	bool idle;

	pthread_mutex_lock(&l->lock);
	idle = l->open->n_records == 0 && l->building == NULL;
	pthread_mutex_unlock(&l->lock);
	return idle;
}

void section_log_stats(struct section_log *l, struct section_log_stats *out)
{
	struct segment_log_stats log;

	segment_log_stats(l->log, &log);
	pthread_mutex_lock(&l->lock);
	*out = l->stats;
	out->live_spans = l->open->n_spans + (l->building ? l->building->n_spans : 0);
	out->live_bytes = l->open->bytes + (l->building ? l->building->bytes : 0);
	out->live_traces = l->open->n_traces + (l->building ? l->building->n_traces : 0);
	pthread_mutex_unlock(&l->lock);
	out->log_bytes = log.bytes_on_disk;
}

void section_log_stop(struct section_log *l)
{
	struct live_section *s;

	if (l == NULL)
		return;
	store_remove_live(l->o.store, &l->live);
	pthread_mutex_lock(&l->lock);
	l->stopping = true;
	pthread_cond_broadcast(&l->wake);
	pthread_cond_broadcast(&l->progress);
	pthread_mutex_unlock(&l->lock);
	pthread_join(l->builder, NULL);
	/* Published sections need no waiting: at the next start their commits are followed. */
	for (s = l->retiring; s != NULL; s = s->next)
		segment_log_free_to(l->log, s->last_lsn + 1);
	section_log_free(l);
}
