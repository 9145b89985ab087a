/* SPDX-License-Identifier: Apache-2.0
 *
 * compact_job.c - the merges of one tenant: select, lease, merge, commit, and again, as long as
 * there is something to do and time for it.
 *
 * What cannot be merged is left out for an hour: a damaged block, those that share a trace which is
 * too large for a page when it is joined. They stay as they are, and readers read them. A block
 * that could not be read now is left out for a moment, longer each time, and the others are merged.
 */
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "blocks/block.h"
#include "blocks/compact_lease.h"
#include "blocks/compact_merge.h"
#include "blocks/compactor_private.h"

enum { REFUSE_S = 3600, RETRY_S = 5, TENANT_TIME_S = 300 };

/* So many merges of a cycle may fail: then it is the store's fault, not a block's. */
enum { FAILURES_MAX = 3 };

/* The part of the budget that a merge may take: it is not there to keep spans out. */
enum { BUDGET_SHARE = 4 };

enum job_end { JOB_DONE, JOB_SKIPPED, JOB_FAILED, JOB_STOPPED, JOB_TOO_MUCH };

struct job {
	struct compact_tenant *t;
	struct compact_lease lease;
	struct block_meta inputs[COMPACT_INPUTS_MAX]; /* as their meta.json says now */
	char ids[COMPACT_INPUTS_MAX][COMPACT_ID];
	size_t n;
};

/* The first jobs of a selection, by themselves: the lists that a selection points into change with
 * each merge, and a selection looks at all blocks. */
enum { PASS = 64 };

struct pass {
	struct plan {
		char group[COMPACT_GROUP];
		char ids[COMPACT_INPUTS_MAX][COMPACT_ID];
		size_t n;
	} v[PASS];
	size_t n;
};

/* ---- blocks that are left out ---- */

static void leave_out(struct compact_tenant *t, const char *id, uint64_t seconds)
{
	struct compact_refusal *r = map_find(&t->refused, bytes_str(id));

	if (r == NULL) {
		r = xcalloc(1, sizeof(*r));
		map_set(&t->refused, bytes_str(id), r);
	}
	r->until_ns =
		clock_mono_ns() + MIN(seconds << MIN(r->n, 10u), (uint64_t)REFUSE_S) * NS_PER_S;
	r->n++;
}

static void refuse(struct compact_tenant *t, const char *id)
{
	leave_out(t, id, REFUSE_S);
	t->c->stats.refused++;
}

static bool is_refused(struct compact_tenant *t, const char *id)
{
	const struct compact_refusal *r = map_find(&t->refused, bytes_str(id));

	return r != NULL && clock_mono_ns() < r->until_ns;
}

/* ---- one job ---- */

static bool is_of_group(const struct block_meta *a, const struct block_meta *b)
{
	return strcmp(a->shard.hasher, b->shard.hasher) == 0 && a->shard.count == b->shard.count &&
	       a->shard.index == b->shard.index && a->replication_factor == b->replication_factor &&
	       strcmp(a->data_encoding, b->data_encoding) == 0 && strcmp(a->format, b->format) == 0;
}

/* The list may say other things of a block than its meta.json: an index that somebody else wrote
 * did. The next selection knows better. */
static void correct(struct compact_tenant *t, const struct block_meta *m)
{
	struct tenant_index_metas *live = &t->index.live;

	for (size_t i = 0; i < live->n; i++)
		if (strcmp(live->v[i].id, m->id) == 0 && !is_of_group(&live->v[i], m)) {
			live->v[i] = *m;
			t->is_changed = true;
		}
}

/* One input. 1, 0 it is not there or cannot be read, -1 not now. */
static int read_input(struct job *j, const char *id, struct err *err)
{
	struct compact_tenant *t = j->t;
	struct block_meta *m = &j->inputs[j->n];
	struct err local = ERR_INIT;

	memcpy(j->ids[j->n], id, COMPACT_ID);
	/* By a record that was followed since the selection. */
	if (compact_chain_is_used(&t->chain, id))
		return 0;
	if (block_read_meta(t->c->o.backend, t->name, id, "meta.json", m, &local) == 0)
		return 1;
	leave_out(t, id, RETRY_S);
	if (local.retryable && err != NULL)
		*err = local;
	return local.retryable ? -1 : 0;
}

/* The inputs as their own meta.json says. 1; 0: one of them is gone, or another than it seemed; -1.
 */
static int read_inputs(struct job *j, const struct plan *plan, struct err *err)
{
	int ret = 1;

	for (j->n = 0; j->n < plan->n; j->n++) {
		int got = read_input(j, plan->ids[j->n], err);

		if (got <= 0)
			return got;
		if (!is_of_group(&j->inputs[j->n], &j->inputs[0]) ||
		    !compact_is_mergeable(&j->inputs[j->n]))
			ret = 0;
	}
	for (size_t i = 0; ret == 0 && i < j->n; i++)
		correct(j->t, &j->inputs[i]);
	return ret;
}

static int tick(void *arg, struct err *err)
{
	struct job *j = arg;

	if (j->t->c->stopping)
		return err_set(err, ERR_UNAVAILABLE, "stopping");
	compact_lease_renew(&j->lease);
	return 0;
}

static bool is_gone(struct compact_tenant *t, const char *id)
{
	struct block_meta m;
	struct err err = ERR_INIT;

	return block_read_meta(t->c->o.backend, t->name, id, "meta.json", &m, &err) < 0 &&
	       err.kind == ERR_NOT_FOUND;
}

/* May the same merge succeed in a moment? An input that cannot be read again and again is as good
 * as damaged. */
static bool is_passing(struct job *j, const struct compact_merge *m, const struct err *why)
{
	const struct compact_refusal *r =
		m->bad_input < j->n ? map_find(&j->t->refused, bytes_str(j->ids[m->bad_input]))
				    : NULL;

	return (why->retryable || why->kind == ERR_IO) && (r == NULL || r->n < FAILURES_MAX);
}

/* Why a merge failed decides what becomes of its inputs. */
static int after_failure(struct job *j, const struct compact_merge *m, const struct err *why,
			 struct err *err)
{
	struct compact_tenant *t = j->t;
	bool is_input = m->bad_input < j->n;

	if (t->c->stopping)
		return JOB_STOPPED;
	if (why->kind == ERR_EXHAUSTED)
		return JOB_TOO_MUCH;
	if (is_passing(j, m, why)) {
		if (is_input)
			leave_out(t, j->ids[m->bad_input], RETRY_S);
		if (err != NULL)
			*err = *why;
		return is_input ? JOB_FAILED : -1;
	}
	if (is_input && why->kind == ERR_NOT_FOUND && is_gone(t, j->ids[m->bad_input])) {
		leave_out(t, j->ids[m->bad_input], RETRY_S);
		return JOB_SKIPPED;
	}
	log_warn("blocks cannot be merged and stay as they are", "tenant", t->name, "error",
		 why->msg);
	for (size_t i = 0; i < j->n; i++)
		if (is_input ? i == m->bad_input : m->too_large == 0 || (m->too_large >> i & 1))
			refuse(t, j->ids[i]);
	return JOB_DONE;
}

static void count(struct job *j, const struct compact_merge *m)
{
	struct compactor_stats *s = &j->t->c->stats;

	s->compactions++;
	s->blocks_in += j->n;
	for (size_t i = 0; i < j->n; i++)
		s->bytes_in += j->inputs[i].size;
	s->bytes_out += m->output.size;
	s->joined += m->n_joined;
	s->duplicates += m->n_duplicates;
	s->conflicting += m->n_conflicting;
}

/* The output is a live block now, and the inputs are not. */
static int note_committed(struct job *j, const struct block_meta *output, struct err *err)
{
	struct compact_tenant *t = j->t;

	for (size_t i = 0; i < j->n; i++) {
		free(map_remove(&t->refused, bytes_str(j->ids[i])));
		if (compact_tenant_retire(t, j->ids[i], err) < 0)
			return -1;
	}
	t->is_changed = true;
	return tenant_index_add(&t->index, &t->index.live, output, err);
}

static int discard(struct job *j, const struct block_meta *output)
{
	struct err err = ERR_INIT;

	j->t->c->stats.lost++;
	if (block_delete(j->t->c->o.backend, output->tenant, output->id, &err) < 0)
		log_warn("cannot delete a block that lost", "error", err.msg);
	return JOB_SKIPPED;
}

static int merge_and_commit(struct job *j, struct err *err)
{
	struct compactor *c = j->t->c;
	struct compact_merge m = {
		.backend = c->o.backend,
		.inputs = j->inputs,
		.n_inputs = j->n,
		.writer = { .max_page_bytes = c->o.max_page_bytes },
		.read_ahead_bytes = c->o.read_ahead_bytes,
		.budget = c->o.budget,
		.tick = tick,
		.arg = j,
	};
	struct err why = ERR_INIT;
	int got;

	if (c->o.budget != NULL &&
	    (int64_t)compact_merge_memory(&m) > c->o.budget->limit / BUDGET_SHARE)
		return JOB_TOO_MUCH;
	if (compact_merge(&m, &why) < 0)
		return after_failure(j, &m, &why, err);
	got = compact_chain_commit(&j->t->chain, j->ids, j->n, &m.output, 1, err);
	if (got < 0)
		return -1;
	if (got == COMPACT_LOST)
		return discard(j, &m.output);
	if (got == COMPACT_UNTOLD) {
		/* Which blocks are used cannot be told from this scan any more. */
		c->stats.lost++;
		return JOB_STOPPED;
	}
	count(j, &m);
	log_info("blocks merged", "tenant", j->t->name, "inputs", LOG_NUM(j->n), "block",
		 m.output.id, "traces", LOG_NUM(m.output.objects), "bytes", LOG_NUM(m.output.size),
		 "level", LOG_NUM(m.output.compaction_level));
	return note_committed(j, &m.output, err) < 0 ? -1 : JOB_DONE;
}

/* With all inputs, or with as few as there is memory for. */
static int merge_some(struct job *j, struct err *err)
{
	int ret = merge_and_commit(j, err);

	for (; ret == JOB_TOO_MUCH && j->n > 2; ret = merge_and_commit(j, err))
		j->n = MAX(j->n / 2, (size_t)2);
	if (ret != JOB_TOO_MUCH)
		return ret;
	j->t->c->stats.postponed++;
	return JOB_SKIPPED;
}

/* enum job_end, or -1. */
static int run_job(struct compact_tenant *t, const struct plan *plan, struct err *err)
{
	struct job *j = xcalloc(1, sizeof(*j));
	int ret = JOB_SKIPPED, got;

	j->t = t;
	got = t->c->o.no_leases ? 1
				: compact_lease_take(&j->lease, t->c->o.backend, t->c->owner,
						     t->name, plan->group, err);
	if (got == 1) {
		got = read_inputs(j, plan, err);
		ret = got == 1 ? merge_some(j, err) : got < 0 ? JOB_FAILED : JOB_SKIPPED;
		compact_lease_release(&j->lease);
	} else if (got < 0) {
		ret = -1;
	}
	free(j);
	return ret;
}

/* ---- all of them ---- */

static bool may_merge(struct compact_tenant *t, const struct compact_scan *scan,
		      const struct block_meta *m)
{
	const struct compact_seen *seen = compact_scan_find(scan, m->id);

	if (seen != NULL && seen->is_kept)
		return false;
	return !compact_chain_is_used(&t->chain, m->id) && !is_refused(t, m->id);
}

static size_t select_jobs(struct compact_tenant *t, const struct compact_scan *scan,
			  struct compact_job **jobs)
{
	const struct tenant_index_metas *live = &t->index.live;
	const struct block_meta **v = xmalloc((live->n + 1) * sizeof(*v));
	struct compact_rules rules = t->c->o.rules;
	size_t n = 0;

	rules.now_ns = t->now_ns;
	for (size_t i = 0; i < live->n; i++)
		if (may_merge(t, scan, &live->v[i]))
			v[n++] = &live->v[i];
	n = compact_select(v, n, &rules, jobs);
	free(v);
	return n;
}

static void count_outstanding(struct compact_tenant *t, const struct compact_scan *scan)
{
	struct compact_job *jobs = NULL;
	size_t n = select_jobs(t, scan, &jobs);

	for (size_t i = 0; i < n; i++)
		t->c->sums.outstanding += jobs[i].n;
	free(jobs);
}

/* The jobs from number `skip` on. */
static void plan_pass(struct compact_tenant *t, const struct compact_scan *scan, size_t skip,
		      struct pass *pass)
{
	struct compact_job *jobs = NULL;
	size_t n = select_jobs(t, scan, &jobs);

	for (pass->n = 0; pass->n < PASS && skip + pass->n < n; pass->n++) {
		const struct compact_job *job = &jobs[skip + pass->n];
		struct plan *plan = &pass->v[pass->n];

		memcpy(plan->group, job->group, sizeof(plan->group));
		for (plan->n = 0; plan->n < job->n; plan->n++)
			memcpy(plan->ids[plan->n], job->inputs[plan->n]->id, COMPACT_ID);
	}
	free(jobs);
}

/* What happened so far in a cycle. */
struct progress {
	uint64_t until_ns; /* clock_mono_ns */
	size_t n_skipped;  /* jobs that somebody else is at */
	unsigned n_failed;
	bool is_over;
};

static bool may_go_on(const struct compact_tenant *t, const struct progress *p)
{
	/* After records of others that were never read, this list is worth nothing. */
	return !p->is_over && !t->c->stopping && !t->chain.missed && p->n_failed < FAILURES_MAX &&
	       clock_mono_ns() < p->until_ns;
}

static void run_pass(struct compact_tenant *t, const struct pass *pass, struct progress *p,
		     struct err *err)
{
	for (size_t i = 0; i < pass->n && may_go_on(t, p); i++) {
		int ret = run_job(t, &pass->v[i], err);

		p->n_skipped += ret == JOB_SKIPPED;
		p->n_failed += ret == JOB_FAILED;
		if (ret < 0)
			p->n_failed = FAILURES_MAX;
		p->is_over = ret == JOB_STOPPED;
	}
}

int compact_tenant_merge(struct compact_tenant *t, const struct compact_scan *scan, struct err *err)
{
	uint64_t most = t->c->o.tenant_time_ns ? t->c->o.tenant_time_ns : TENANT_TIME_S * NS_PER_S;
	struct progress p = { .until_ns = clock_mono_ns() + most };
	struct pass *pass = xmalloc(sizeof(*pass));

	while (may_go_on(t, &p)) {
		plan_pass(t, scan, p.n_skipped, pass);
		if (pass->n == 0)
			break;
		run_pass(t, pass, &p, err);
	}
	free(pass);
	count_outstanding(t, scan);
	return p.n_failed > 0 ? -1 : 0;
}
