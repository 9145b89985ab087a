/* SPDX-License-Identifier: Apache-2.0
 *
 * section_build.c - the builder's thread: one closed section after the other becomes blocks
 * (blocks/section.h has the four steps).
 *
 *   BUILD --ok--> COMMIT --ok--> PUBLISH --> retire --> (two polls) --> free in the log
 *     ^  '-fails: delete, again    | EXISTS: delete ours, the winner's record is ours now
 *     '----------------------------' the blocks are too old to be trusted: look, delete, again
 *
 * An attempt keeps its step over failures: blocks whose commit may have succeeded stay, and the
 * same record is put again. A winner may hold less than the section (a process before us cut
 * earlier): the rest is built as a section of its own; or more: what it covers is left out later.
 * Damage never stops the line: a record that cannot be read any more is counted and left out.
 *
 * THREADS: one. LIMITS: one tenant of a section at a time is indexed in memory, charged to the
 * budget; section_log.c closes sections early so that this is at most a third of the budget.
 */
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "blocks/section.h"
#include "exporters/blocks/block_builder.h"
#include "exporters/blocks/section_log_private.h"
#include "pipeline/batch_record.h"
#include "pipeline/segment/slice.h"

#include <stdio.h>
#include <unistd.h>

enum {
	CHUNK_SHARE = 4, /* of what a build may take: the spans it has in memory at a time */
	RETRY_FIRST_MS = 200,
	RETRY_LAST_MS = 30000,
	SWEEP_AGE_S = 3600,
	SWEEP_EVERY_S = 600,
	/* Well below SWEEP_AGE_S: other processes may sweep blocks that no commit names. */
	UNCOMMITTED_MAX_S = 1200,
};

enum step { STEP_BUILD, STEP_COMMIT, STEP_PUBLISH, STEP_DONE };

/* From `from` to the end of the section, or as far as the commit that won says. */
struct attempt {
	struct section_log *l;
	const struct live_section *s;
	enum step step;
	uint64_t from;                /* records below are published */
	struct section_commit commit; /* ours, or the winner's */
	uint64_t built_mono_ns;
	uint64_t n_wanted, n_built, n_duplicates, n_conflicting; /* spans */
	bool is_hidden; /* a block of it is not listed: compacted, or gone */
};

static void pause_for_test(const struct section_log *l)
{
	if (l->step_delay_ms > 0)
		usleep(l->step_delay_ms * 1000);
}

/* ---- step 1 ---- */

/* The requests of one tenant, in the order they came; the builder reads them once when there are
 * notes of their spans, else twice. */
struct requests {
	struct attempt *a;
	uint32_t tenant;
	size_t at;        /* record to look at next */
	uint32_t *record; /* of each request given so far */
	size_t n, cap;
	struct buf payload; /* of the last one, and what of it is charged */
	size_t charged;
	uint32_t head;  /* bytes before the OTLP: the same for every record of a tenant */
	bool use_notes; /* those that were made when the spans came */
	bool used_notes;
	struct segment_slices slices;
};

static bool is_wanted(const struct attempt *a, const struct live_record *rec, uint32_t tenant)
{
	return rec->tenant == tenant && rec->lsn >= a->from;
}

/* Memory for a record, once others have made room for it. */
static void size_payload(struct requests *in, size_t n)
{
	struct buf *b = &in->payload;

	buf_reset(b);
	if (n <= b->cap)
		return;
	buf_fini(b);
	budget_force_patiently(in->a->l->o.budget, n - in->charged);
	in->charged = n;
	b->p = xmalloc(n);
	b->cap = n;
}

static void free_requests(struct requests *in)
{
	segment_slices_fini(&in->slices);
	buf_fini(&in->payload);
	budget_release(in->a->l->o.budget, in->charged);
	free(in->record);
}

/* 1 read, 0 it is damaged for good and logged, -1 try again. */
static int read_record(struct section_log *l, const struct live_record *rec, struct buf *payload,
		       struct bytes *otlp, struct err *err)
{
	struct err local = ERR_INIT;
	struct batch_record r;

	if (segment_log_read(l->log, &rec->at, payload, &local) == 0 &&
	    batch_record_parse(buf_bytes(payload), &r, &local) == 0) {
		*otlp = r.otlp;
		return 1;
	}
	if (local.kind != ERR_CORRUPT && local.kind != ERR_NOT_FOUND)
		return err_set(err, local.kind, "%s", local.msg);
	log_error("a record of the log is damaged and lost", "spans", LOG_NUM(rec->n_spans),
		  "error", local.msg);
	return 0;
}

static int give_notes(struct requests *in, const struct live_record *rec, struct block_request *out)
{
	out->notes = rec->notes;
	out->n_notes = rec->n_notes;
	out->heads = &in->a->s->notes->heads;
	in->used_notes = true;
	return 1;
}

static int give_bytes(struct requests *in, const struct live_record *rec, struct block_request *out,
		      struct err *err)
{
	size_payload(in, rec->at.length);
	return read_record(in->a->l, rec, &in->payload, &out->otlp, err);
}

static int next_request(void *arg, struct block_request *out, struct err *err)
{
	struct requests *in = arg;
	const struct live_section *s = in->a->s;
	int got = 0;

	*out = (struct block_request){ .otlp = BYTES_EMPTY };
	for (; got == 0 && in->at < s->n_records; in->at++) {
		const struct live_record *rec = &s->records[in->at];

		if (!is_wanted(in->a, rec, in->tenant))
			continue;
		got = in->use_notes && rec->notes != NULL ? give_notes(in, rec, out)
							  : give_bytes(in, rec, out, err);
		if (got > 0) {
			in->record = xgrow(in->record, &in->cap, in->n + 1, sizeof(*in->record));
			in->record[in->n++] = (uint32_t)in->at;
		}
	}
	return got;
}

static int read_request(void *arg, uint32_t request, uint32_t off, uint32_t n, void *to,
			struct err *err)
{
	struct requests *in = arg;
	const struct live_record *rec = &in->a->s->records[in->record[request]];

	return segment_slices_read(&in->slices, &rec->at, in->head + off, n, to, err);
}

/* Spans; *n_runs is about what the builder will note of them. */
static uint64_t count_wanted(const struct attempt *a, uint32_t tenant, size_t *n_runs)
{
	uint64_t n = 0;

	*n_runs = 0;
	for (size_t i = 0; i < a->s->n_records; i++)
		if (is_wanted(a, &a->s->records[i], tenant)) {
			const struct live_record *rec = &a->s->records[i];

			n += rec->n_spans;
			*n_runs += rec->n_notes > 0 ? rec->n_notes : rec->n_spans;
		}
	return n;
}

/* *notes: whether to use them; out: whether there were any. */
static int build_from(struct attempt *a, uint32_t tenant, bool *notes, struct err *err)
{
	struct section_log *l = a->l;
	struct requests requests = {
		.a = a,
		.tenant = tenant,
		.head = BATCH_RECORD_FIXED + (uint32_t)strlen(a->s->tenants[tenant]),
		.use_notes = *notes,
	};
	size_t n_runs;
	uint64_t n_wanted = count_wanted(a, tenant, &n_runs);
	const struct block_input input = { next_request, read_request, &requests, n_runs };
	struct block_build b = {
		.backend = store_backend(l->o.store),
		.tenant = a->s->tenants[tenant],
		.writer = &l->o.writer,
		.budget = l->o.budget,
		.first_wall_ns = a->s->min_wall_ns,
		.last_wall_ns = a->s->max_wall_ns,
		.input = &input,
		.chunk_bytes = section_log_share(l) / CHUNK_SHARE,
	};
	int ret;

	segment_slices_init(&requests.slices, l->log);
	ret = block_build(&b, &a->commit.metas[a->commit.n_metas], err);
	free_requests(&requests);
	*notes = requests.used_notes;
	if (ret < 0)
		return -1;
	a->commit.n_metas += b.n_traces > 0;
	a->n_wanted += n_wanted;
	a->n_built += b.n_spans;
	a->n_duplicates += b.n_duplicates;
	a->n_conflicting += b.n_conflicting;
	return 0;
}

static int build_tenant(struct attempt *a, uint32_t tenant, struct err *err)
{
	struct err local = ERR_INIT;
	bool notes = true;

	if (build_from(a, tenant, &notes, &local) == 0)
		return 0;
	/* Reading whole records tells which of them are damaged, and leaves those out. */
	if (notes && (local.kind == ERR_CORRUPT || local.kind == ERR_NOT_FOUND)) {
		log_warn("a section is built again, from whole records", "error", local.msg);
		notes = false;
		return build_from(a, tenant, &notes, err);
	}
	return err_set(err, local.kind, "%s", local.msg);
}

static void delete_blocks(struct attempt *a)
{
	section_commit_discard(store_backend(a->l->o.store), &a->commit);
}

/* Position and time of the first wanted record: the name of the commit. */
static void name_commit(struct attempt *a)
{
	const struct live_section *s = a->s;
	struct section_commit *c = &a->commit;
	struct buf record = BUF_INIT;
	struct batch_record r;
	size_t i = 0;

	while (i + 1 < s->n_records && s->records[i].lsn < a->from)
		i++;
	c->first = s->records[i].lsn;
	c->last = s->last_lsn;
	c->first_timestamp_ms = s->first_wall_ns / NS_PER_MS;
	if (i > 0 && segment_log_read(a->l->log, &s->records[i].at, &record, NULL) == 0 &&
	    batch_record_parse(buf_bytes(&record), &r, NULL) == 0)
		c->first_timestamp_ms = r.wall_ns / NS_PER_MS;
	buf_fini(&record);
}

static int build(struct attempt *a, struct err *err)
{
	const struct live_section *s = a->s;

	a->n_wanted = a->n_built = a->n_duplicates = a->n_conflicting = 0;
	a->commit =
		(struct section_commit){ .metas = xcalloc(s->n_tenants, sizeof(*a->commit.metas)) };
	name_commit(a);
	for (uint32_t t = 0; t < s->n_tenants; t++) {
		if (build_tenant(a, t, err) < 0) {
			delete_blocks(a);
			return -1;
		}
		pause_for_test(a->l);
	}
	a->built_mono_ns = clock_mono_ns();
	a->step = STEP_COMMIT;
	return 0;
}

/* ---- steps 2 and 3 ---- */

/* Somebody's record stands under our key: it is the section now. */
static int follow_winner(struct attempt *a, struct err *err)
{
	struct section_commit winner;
	struct err local = ERR_INIT;

	if (section_commit_read(store_backend(a->l->o.store), a->l->source, a->commit.first,
				a->commit.first_timestamp_ms, &winner, &local) < 0) {
		err_set(err, local.kind, "%s", local.msg);
		/* Nobody can follow it; the next try commits in its place. */
		if (local.kind == ERR_CORRUPT)
			section_commit_set_aside(store_backend(a->l->o.store), a->l->source,
						 a->commit.first, a->commit.first_timestamp_ms,
						 &local);
		return -1;
	}
	/* Our own put may have succeeded although it said no. */
	if (winner.n_metas == 0 || a->commit.n_metas == 0 ||
	    strcmp(winner.metas[0].id, a->commit.metas[0].id) != 0)
		delete_blocks(a);
	else
		section_commit_fini(&a->commit);
	a->commit = winner;
	a->step = STEP_PUBLISH;
	return 0;
}

/* The commit failed for long. Before the blocks are given up: was it written after all? */
static int give_up_blocks(struct attempt *a, struct err *err)
{
	struct err local = ERR_INIT;

	if (follow_winner(a, &local) == 0)
		return 0;
	if (local.kind != ERR_NOT_FOUND)
		return err_set(err, local.kind, "%s", local.msg);
	delete_blocks(a);
	a->step = STEP_BUILD;
	return 0;
}

static int commit(struct attempt *a, struct err *err)
{
	pause_for_test(a->l);
	if (clock_mono_ns() - a->built_mono_ns > UNCOMMITTED_MAX_S * NS_PER_S)
		return give_up_blocks(a, err);
	if (section_commit_put(store_backend(a->l->o.store), a->l->source, &a->commit, err) == 0) {
		a->step = STEP_PUBLISH;
		return 0;
	}
	return err->kind == ERR_EXISTS ? follow_winner(a, err) : -1;
}

static int publish(struct attempt *a, struct err *err)
{
	pause_for_test(a->l);
	for (size_t i = 0; i < a->commit.n_metas; i++) {
		const struct block_meta *m = &a->commit.metas[i];
		int visible = section_publish(store_backend(a->l->o.store), m, err);

		if (visible < 0)
			return -1;
		if (visible)
			store_add_block(a->l->o.store, m);
		else
			a->is_hidden = true;
		pause_for_test(a->l);
	}
	a->step = STEP_DONE;
	return 0;
}

static int take_step(struct attempt *a, struct err *err)
{
	switch (a->step) {
	case STEP_BUILD:
		return build(a, err);
	case STEP_COMMIT:
		return commit(a, err);
	case STEP_PUBLISH:
		return publish(a, err);
	default:
		return 0;
	}
}

/* ---- one section ---- */

static struct timespec to_timespec(uint64_t mono_ns)
{
	return (struct timespec){ (time_t)(mono_ns / NS_PER_S), (long)(mono_ns % NS_PER_S) };
}

/* Lock held. Wait after a failure; an early end only when stopping. */
static void back_off(struct section_log *l, unsigned ms)
{
	struct timespec ts = to_timespec(clock_mono_ns() + ms * NS_PER_MS);

	while (!l->stopping && pthread_cond_timedwait(&l->wake, &l->lock, &ts) == 0) {
	}
}

static void note_failure(struct section_log *l, const struct err *err)
{
	l->stats.build_failures++;
	snprintf(l->stats.last_error, sizeof(l->stats.last_error), "%s", err->msg);
	pthread_cond_broadcast(&l->progress);
	log_warn("writing a section failed, the spans stay in the log", "error", err->msg);
}

/* Lock held, released meanwhile. Take steps until done; -1 when stopping. */
static int run_attempt(struct attempt *a)
{
	struct section_log *l = a->l;
	unsigned wait_ms = RETRY_FIRST_MS;

	while (a->step != STEP_DONE) {
		struct err err = ERR_INIT;
		enum step step = a->step;
		int ret;

		pthread_mutex_unlock(&l->lock);
		ret = take_step(a, &err);
		pthread_mutex_lock(&l->lock);
		if (ret == 0) {
			/* Only a step forward says that the store works again. */
			wait_ms = a->step > step ? RETRY_FIRST_MS : wait_ms;
			continue;
		}
		note_failure(l, &err);
		if (l->stopping)
			return -1;
		back_off(l, wait_ms);
		wait_ms = MIN(wait_ms * 2, (unsigned)RETRY_LAST_MS);
	}
	return 0;
}

/* Lock held, released meanwhile: the oldest closed section, until it is published or we stop. */
static void build_section(struct section_log *l)
{
	const struct live_section *s = l->closed.first;
	uint64_t n_blocks = 0, n_lost = 0;
	bool is_listed = true;

	while (l->published_lsn <= s->last_lsn) {
		struct attempt a = { .l = l, .s = s, .from = l->published_lsn };

		if (run_attempt(&a) < 0) {
			section_commit_fini(&a.commit);
			return;
		}
		/* A winner may reach further than we do, or end before us. */
		l->published_lsn = a.commit.last + 1;
		l->stats.duplicates += a.n_duplicates;
		l->stats.conflicting += a.n_conflicting;
		n_blocks += a.commit.n_metas;
		is_listed &= !a.is_hidden;
		if (a.n_built < a.n_wanted)
			n_lost += a.n_wanted - a.n_built;
		section_commit_fini(&a.commit);
	}
	section_log_retire(l, n_blocks, n_lost, is_listed);
}

/* Lock held, released meanwhile. What the start could not finish, until it is or we stop. The pause
 * is no longer than a poll, so that the list does not forget blocks without a meta.json. */
static void finish_following(struct section_log *l)
{
	unsigned wait_ms = RETRY_FIRST_MS;
	uint64_t next;

	while (l->follow_from != 0 && !l->stopping) {
		struct err err = ERR_INIT;
		int ret;

		back_off(l, wait_ms);
		if (l->stopping)
			return;
		wait_ms = MIN(wait_ms * 2, (unsigned)(store_poll_ns(l->o.store) / NS_PER_MS) + 1);
		pthread_mutex_unlock(&l->lock);
		ret = section_log_follow(l, l->follow_from, &next, &err);
		if (ret == 0)
			segment_log_free_to(l->log, l->published_lsn);
		pthread_mutex_lock(&l->lock);
		if (ret != 0) {
			note_failure(l, &err);
			continue;
		}
		l->follow_from = 0;
		l->stats.last_error[0] = '\0';
		log_info("the blocks of the last run are visible");
		pthread_cond_broadcast(&l->progress);
	}
}

/* ---- step 4, sweeping, the thread ---- */

/* Lock held; released around the log's work. */
static void free_retired(struct section_log *l)
{
	while (l->retiring.first != NULL && l->retiring.first->retire_mono_ns <= clock_mono_ns()) {
		struct live_section *s = section_list_take(&l->retiring);

		pthread_mutex_unlock(&l->lock);
		pause_for_test(l);
		segment_log_free_to(l->log, s->last_lsn + 1);
		live_section_free(s);
		pthread_mutex_lock(&l->lock);
	}
}

/* Commits that nobody needs any more, and what crashed attempts left. Lock held, released. */
static void sweep(struct section_log *l)
{
	struct backend *be = store_backend(l->o.store);
	uint64_t now = clock_mono_ns(), before = l->published_lsn;
	struct err err = ERR_INIT;
	size_t n = 0;

	if (now < l->sweep_mono_ns)
		return;
	l->sweep_mono_ns = now + SWEEP_EVERY_S * NS_PER_S;
	/* Published is not enough: what is not freed in the log is followed at the next start. */
	if (l->retiring.first != NULL)
		before = l->retiring.first->first_lsn;
	pthread_mutex_unlock(&l->lock);
	if (section_sweep_commits(be, l->source, before, SWEEP_AGE_S * NS_PER_S, &err) < 0)
		log_warn("sweeping old commit records failed", "error", err.msg);
	if (section_sweep_orphans(be, SWEEP_AGE_S * NS_PER_S, &n, &err) < 0)
		log_warn("sweeping blocks of crashed attempts failed", "error", err.msg);
	if (n > 0)
		log_info("removed blocks of crashed attempts", "blocks", LOG_NUM(n));
	pthread_mutex_lock(&l->lock);
}

/* Lock held. Sleep until there may be something to do. */
static void wait_for_work(struct section_log *l)
{
	uint64_t due = UINT64_MAX;
	struct timespec ts;

	if (l->open->n_records > 0)
		due = l->open->opened_mono_ns + l->o.max_block_age_ns;
	if (l->retiring.first != NULL)
		due = MIN(due, l->retiring.first->retire_mono_ns);
	if (due == UINT64_MAX) {
		pthread_cond_wait(&l->wake, &l->lock);
	} else if (due > clock_mono_ns()) {
		ts = to_timespec(due);
		pthread_cond_timedwait(&l->wake, &l->lock, &ts);
	}
}

void *section_build_thread(void *arg)
{
	struct section_log *l = arg;

	pthread_setname_np(pthread_self(), "builder");
	pthread_mutex_lock(&l->lock);
	finish_following(l);
	while (!l->stopping) {
		free_retired(l);
		if (l->open->n_records > 0 &&
		    clock_mono_ns() - l->open->opened_mono_ns >= l->o.max_block_age_ns)
			section_log_close_open(l);
		if (l->closed.first != NULL) {
			build_section(l);
			continue;
		}
		sweep(l);
		if (!l->stopping && l->closed.first == NULL)
			wait_for_work(l);
	}
	pthread_mutex_unlock(&l->lock);
	return NULL;
}
