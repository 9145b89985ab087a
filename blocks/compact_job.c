/* SPDX-License-Identifier: Apache-2.0
 *
 * compact_job.c - the merges of one tenant: select, lease, merge, commit, and again, as long as
 * there is something to do and time for it.
 *
 * What cannot be merged is left out for an hour: a damaged block alone, all inputs of a merge whose
 * joined trace is too large for a page. They stay as they are, and readers read them.
 */
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "blocks/block.h"
#include "blocks/compact_lease.h"
#include "blocks/compact_merge.h"
#include "blocks/compactor_private.h"

enum { REFUSE_S = 3600, TENANT_TIME_S = 300 };

/* The part of the budget that a merge may take: it is not there to keep spans out. */
enum { BUDGET_SHARE = 4 };

enum job_end { JOB_DONE, JOB_SKIPPED, JOB_STOPPED, JOB_TOO_MUCH };

struct job {
	struct compact_tenant *t;
	struct compact_lease lease;
	struct block_meta inputs[COMPACT_INPUTS_MAX]; /* as their meta.json says now */
	char ids[COMPACT_INPUTS_MAX][COMPACT_ID];
	size_t n;
};

/* ---- blocks that are left out ---- */

static void refuse(struct compact_tenant *t, const char *id)
{
	uint64_t *until = map_find(&t->refused, bytes_str(id));

	if (until == NULL) {
		until = xmalloc(sizeof(*until));
		map_set(&t->refused, bytes_str(id), until);
	}
	*until = clock_mono_ns() + REFUSE_S * NS_PER_S;
	t->c->stats.refused++;
}

static bool is_refused(struct compact_tenant *t, const char *id)
{
	uint64_t *until = map_find(&t->refused, bytes_str(id));

	if (until == NULL)
		return false;
	if (clock_mono_ns() < *until)
		return true;
	free(map_remove(&t->refused, bytes_str(id)));
	return false;
}

/* ---- one job ---- */

/* The inputs as their own meta.json says. False: one of them is gone or another than it seemed. */
static int read_inputs(struct job *j, const struct compact_job *plan, struct err *err)
{
	struct compact_tenant *t = j->t;

	for (j->n = 0; j->n < plan->n; j->n++) {
		struct block_meta *m = &j->inputs[j->n];
		const struct block_meta *seemed = plan->inputs[j->n];
		struct err local = ERR_INIT;

		if (block_read_meta(t->c->o.backend, t->name, seemed->id, "meta.json", m, &local) <
		    0) {
			if (!local.retryable)
				return 0;
			if (err != NULL)
				*err = local;
			return -1;
		}
		if (memcmp(&m->shard, &seemed->shard, sizeof(m->shard)) != 0 ||
		    strcmp(m->data_encoding, seemed->data_encoding) != 0 ||
		    strcmp(m->format, seemed->format) != 0)
			return 0;
		memcpy(j->ids[j->n], m->id, COMPACT_ID);
	}
	return 1;
}

static int tick(void *arg, struct err *err)
{
	struct job *j = arg;

	if (j->t->c->stopping)
		return err_set(err, ERR_UNAVAILABLE, "stopping");
	compact_lease_renew(&j->lease);
	return 0;
}

/* Why a merge failed decides what becomes of its inputs. */
static int after_failure(struct job *j, const struct compact_merge *m, const struct err *why,
			 struct err *err)
{
	struct compact_tenant *t = j->t;

	if (t->c->stopping)
		return JOB_STOPPED;
	if (why->kind == ERR_EXHAUSTED)
		return JOB_TOO_MUCH;
	if (why->retryable || why->kind == ERR_IO) {
		if (err != NULL)
			*err = *why;
		return -1;
	}
	log_warn("blocks cannot be merged and stay as they are", "tenant", t->name, "error",
		 why->msg);
	if (m->bad_input < j->n) {
		refuse(t, j->ids[m->bad_input]);
		return JOB_DONE;
	}
	for (size_t i = 0; i < j->n; i++)
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

	for (size_t i = 0; i < j->n; i++)
		if (compact_tenant_retire(t, j->ids[i], err) < 0)
			return -1;
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
static int run_job(struct compact_tenant *t, const struct compact_job *plan, struct err *err)
{
	struct job *j = xcalloc(1, sizeof(*j));
	int ret = JOB_SKIPPED, got;

	j->t = t;
	got = t->c->o.no_leases ? 1
				: compact_lease_take(&j->lease, t->c->o.backend, t->c->owner,
						     t->name, plan->group, err);
	if (got == 1) {
		got = read_inputs(j, plan, err);
		if (got == 1)
			ret = merge_some(j, err);
		compact_lease_release(&j->lease);
	}
	free(j);
	return got < 0 ? -1 : ret;
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

	rules.now_ns = clock_wall_ns();
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
		t->c->stats.outstanding += jobs[i].n;
	free(jobs);
}

/* The first job that can be done, of those from *skip on. Others are skipped: somebody else has
 * their group. */
static int run_one(struct compact_tenant *t, const struct compact_scan *scan, size_t *skip,
		   struct err *err)
{
	struct compact_job *jobs = NULL;
	size_t n = select_jobs(t, scan, &jobs);
	int ret = JOB_STOPPED;

	for (; *skip < n; (*skip)++) {
		ret = run_job(t, &jobs[*skip], err);
		if (ret != JOB_SKIPPED)
			break;
		ret = JOB_STOPPED;
	}
	free(jobs);
	return ret;
}

int compact_tenant_merge(struct compact_tenant *t, const struct compact_scan *scan, struct err *err)
{
	uint64_t most = t->c->o.tenant_time_ns ? t->c->o.tenant_time_ns : TENANT_TIME_S * NS_PER_S;
	uint64_t begin = clock_mono_ns();
	size_t skip = 0;
	int ret = JOB_DONE;

	/* After records of others that were never read, this list is worth nothing. */
	while (ret == JOB_DONE && !t->c->stopping && !t->chain.missed &&
	       clock_mono_ns() - begin < most)
		ret = run_one(t, scan, &skip, err);
	count_outstanding(t, scan);
	return ret < 0 ? -1 : 0;
}
