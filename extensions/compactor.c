/* SPDX-License-Identifier: Apache-2.0
 *
 * compactor.c - extension that merges blocks, deletes those past their retention and writes the
 * tenant index (blocks/compactor.h), on a thread of its own.
 *
 * THREADS: one; a look at the clock between cycles. A cycle that fails is tried again after the
 * next pause. It makes the process unready only where compacting is all that the process does:
 * whoever takes or returns spans goes on, and says it by a metric and a log line.
 * SPEC: docs/formats/compaction.md; INTERFACE "Own components' keys".
 */
#include "blocks/compactor.h"
#include "base/clock.h"
#include "base/mem.h"
#include "blocks/store.h"
#include "pipeline/component.h"
#include "pipeline/conf/error.h"
#include "pipeline/conf/scalar.h"
#include "pipeline/conf/tree.h"
#include "pipeline/telemetry.h"

#include <pthread.h>
#include <stdio.h>

enum { FIRST_MS = 1000, GRACE_MS = 2000, POLLS_TO_KEEP = 3 };

struct compactor_config {
	int64_t block_retention_ns;
	int64_t compacted_block_retention_ns;
	int64_t window_ns, cycle_ns;
	uint64_t max_block_bytes, max_objects, min_inputs, max_inputs;
	const struct conf_node *tenants;
};

struct compactor_state {
	struct compactor *compactor;
	struct store *store;
	pthread_t thread;
	bool is_running; /* the thread was started */
	pthread_mutex_t lock;
	pthread_cond_t cond;
	bool has_lock;
	bool stopping, ended;
	char failure[256]; /* of the last cycle; "": none */
	_Atomic uint64_t success_wall_ns;
};

#define C struct compactor_config
static const struct option compactor_options[] = {
	OPT_DURATION(C, "block_retention", block_retention_ns, "336h",
		     "A block is deleted so long after it was ingested; 0: never."),
	OPT_NODE(C, "tenants", tenants, "{acme: {block_retention: 720h}}",
		 "Other retentions, by the tenant's name."),
	OPT_DURATION(C, "compacted_block_retention", compacted_block_retention_ns, "1h",
		     "What was merged or retired stays readable so long for queries under way; at "
		     "least three polls of the store."),
	OPT_DURATION(C, "compaction_window", window_ns, "1h",
		     "Blocks ingested in the same window are merged."),
	OPT_DURATION(C, "compaction_cycle", cycle_ns, "30s", "Pause between two cycles."),
	OPT_BYTES(C, "max_block_bytes", max_block_bytes, "1GiB", 1 << 20, INT64_C(1) << 40,
		  "Merged blocks are no larger."),
	OPT_UINT(C, "max_compaction_objects", max_objects, "6000000", 1, INT64_C(1) << 32,
		 "Merged blocks have no more traces: each takes 40 bytes of memory."),
	OPT_UINT(C, "min_inputs", min_inputs, "4", 2, COMPACT_INPUTS_MAX,
		 "So many blocks of one level are waited for while their window is open."),
	OPT_UINT(C, "max_inputs", max_inputs, "8", 2, COMPACT_INPUTS_MAX,
		 "So many are merged at once: each takes 8 MiB of memory."),
	OPT_END
};
#undef C

/* ---- retention per tenant ---- */

/* The duration below tenants.<name>; false when there is none, or a wrong one. */
static bool tenant_retention(const struct conf_node *tenant, uint64_t *ns)
{
	const struct conf_node *n = conf_tree_find(tenant, "block_retention");
	int64_t v = 0;
	char why[128];

	if (n == NULL || n->kind != CONF_SCALAR ||
	    conf_scalar_duration(n->text, &v, why, sizeof(why)) < 0 || v < 0)
		return false;
	*ns = (uint64_t)v;
	return true;
}

static void check_tenant(const struct conf_node *t, struct conf_errors *errs, const char *path)
{
	struct err err = ERR_INIT;
	uint64_t ns;

	if (block_meta_tenant_check(bytes_str(t->key), &err) < 0)
		conf_error_add(errs, t->key_pos, path, "the name of a tenant", "%s", err.msg);
	if (t->kind != CONF_MAP) {
		conf_error_add(errs, t->pos, path, "write {block_retention: 720h}",
			       "must be a map");
		return;
	}
	for (const struct conf_node *n = t->first; n != NULL; n = n->next)
		if (strcmp(n->key, "block_retention") != 0)
			conf_error_add(errs, n->key_pos, path, "the only key is block_retention",
				       "unknown key \"%.60s\"", n->key);
	if (!tenant_retention(t, &ns))
		conf_error_add(errs, t->pos, path, "for example 720h, or 0 for ever",
			       "block_retention must be a duration, not negative");
}

static void check_tenants(const struct conf_node *tenants, struct conf_errors *errs,
			  const char *yaml_path)
{
	char path[512];

	if (tenants == NULL || tenants->kind == CONF_NULL)
		return;
	snprintf(path, sizeof(path), "%s.tenants", yaml_path);
	if (tenants->kind != CONF_MAP) {
		conf_error_add(errs, tenants->pos, path, "write {NAME: {block_retention: 720h}}",
			       "must be a map");
		return;
	}
	for (const struct conf_node *t = tenants->first; t != NULL; t = t->next) {
		snprintf(path, sizeof(path), "%s.tenants.%.160s", yaml_path, t->key);
		check_tenant(t, errs, path);
	}
}

static void compactor_validate(void *config, const struct conf_node *node, struct conf_errors *errs,
			       const char *path)
{
	const struct compactor_config *c = config;

	if (c->window_ns == 0)
		conf_error_at(errs, node, path, "compaction_window", "for example 1h",
			      "must be above 0");
	if (c->cycle_ns == 0)
		conf_error_at(errs, node, path, "compaction_cycle", "for example 30s",
			      "must be above 0");
	if (c->max_inputs < c->min_inputs)
		conf_error_at(errs, node, path, "max_inputs", "raise it, or lower min_inputs",
			      "is below min_inputs");
	check_tenants(c->tenants, errs, path);
}

static uint64_t retention_of(void *arg, const char *tenant)
{
	const struct compactor_config *conf =
		COMPONENT_CONFIG((struct component *)arg, struct compactor_config);
	const struct conf_node *t = NULL;
	uint64_t ns = (uint64_t)conf->block_retention_ns;

	if (conf->tenants != NULL && conf->tenants->kind == CONF_MAP)
		t = conf_tree_find(conf->tenants, tenant);
	if (t != NULL)
		(void)tenant_retention(t, &ns);
	return ns;
}

/* Of all tenants; 0: some are kept for ever. */
static uint64_t longest_retention(const struct compactor_config *conf)
{
	uint64_t longest = (uint64_t)conf->block_retention_ns;
	const struct conf_node *t = NULL;

	if (longest == 0)
		return 0;
	if (conf->tenants != NULL && conf->tenants->kind == CONF_MAP)
		t = conf->tenants->first;
	for (; t != NULL; t = t->next) {
		uint64_t ns = longest;

		if (tenant_retention(t, &ns) && ns == 0)
			return 0;
		longest = MAX(longest, ns);
	}
	return longest;
}

/* ---- the thread ---- */

static void visible(void *arg, const struct block_meta *m)
{
	struct compactor_state *st =
		COMPONENT_STATE((struct component *)arg, struct compactor_state);

	store_add_block(st->store, m);
}

/* False: the process stops. */
static bool pause_for(struct compactor_state *st, uint64_t ns)
{
	uint64_t due = clock_mono_ns() + ns;
	struct timespec ts = { (time_t)(due / NS_PER_S), (long)(due % NS_PER_S) };
	bool stopping;

	pthread_mutex_lock(&st->lock);
	while (!st->stopping && clock_mono_ns() < due)
		pthread_cond_timedwait(&st->cond, &st->lock, &ts);
	stopping = st->stopping;
	pthread_mutex_unlock(&st->lock);
	return !stopping;
}

static void note_cycle(struct compactor_state *st, int ret, const struct err *err)
{
	pthread_mutex_lock(&st->lock);
	if (!st->stopping)
		snprintf(st->failure, sizeof(st->failure), "%s", ret < 0 ? err->msg : "");
	pthread_mutex_unlock(&st->lock);
	if (ret == 0)
		st->success_wall_ns = clock_wall_ns();
	else if (st->failure[0] != '\0')
		log_warn("compaction cycle failed, the next one tries again", "error", err->msg);
}

static void *run(void *arg)
{
	struct component *c = arg;
	struct compactor_state *st = COMPONENT_STATE(c, struct compactor_state);
	uint64_t every = (uint64_t)COMPONENT_CONFIG(c, struct compactor_config)->cycle_ns;
	bool go_on = pause_for(st, MIN(every, FIRST_MS * NS_PER_MS));

	while (go_on) {
		struct err err = ERR_INIT;
		int ret = compactor_cycle(st->compactor, &err);

		note_cycle(st, ret, &err);
		go_on = pause_for(st, every);
	}
	pthread_mutex_lock(&st->lock);
	st->ended = true;
	pthread_cond_broadcast(&st->cond);
	pthread_mutex_unlock(&st->lock);
	return NULL;
}

/* ---- life ---- */

static struct compactor_options options_of(struct component *c)
{
	const struct compactor_config *conf = COMPONENT_CONFIG(c, struct compactor_config);
	struct store *store = COMPONENT_STATE(c, struct compactor_state)->store;

	return (struct compactor_options){
		.backend = store_backend(store),
		.budget = component_budget(c),
		.rules = { .window_ns = (uint64_t)conf->window_ns,
			   .max_block_bytes = conf->max_block_bytes,
			   .max_objects = conf->max_objects,
			   .min_inputs = (unsigned)conf->min_inputs,
			   .max_inputs = (unsigned)conf->max_inputs },
		.retention_ns = (uint64_t)conf->block_retention_ns,
		/* Who polled last before the mark finds the block for two polls more. */
		.compacted_retention_ns = MAX((uint64_t)conf->compacted_block_retention_ns,
					      POLLS_TO_KEEP * store_poll_ns(store)),
		.retention_of = retention_of,
		.longest_retention_ns = longest_retention(conf),
		.visible = visible,
		.arg = c,
	};
}

static int compactor_start(struct component *c, struct err *err)
{
	struct compactor_state *st = COMPONENT_STATE(c, struct compactor_state);
	struct compactor_options o;
	pthread_condattr_t attr;

	st->store = component_borrow(c, "trace_store");
	if (st->store == NULL)
		return err_set(
			err, ERR_CONFIG,
			"no trace_store extension: list one before it under service.extensions");
	if (backend_prove_conditional(store_backend(st->store), err) < 0)
		return -1;
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_mutex_init(&st->lock, NULL);
	pthread_cond_init(&st->cond, &attr);
	pthread_condattr_destroy(&attr);
	st->has_lock = true;
	o = options_of(c);
	st->compactor = compactor_new(&o);
	if (pthread_create(&st->thread, NULL, run, c) != 0)
		return err_set(err, ERR_INTERNAL, "cannot start the compactor's thread");
	st->is_running = true;
	return 0;
}

/* A merge ends at its next trace; a call to a store that hangs is cut off. Nothing is lost: what is
 * half done is finished, or swept, by whoever comes next. */
static void stop_thread(struct compactor_state *st)
{
	struct backend *be = store_backend(st->store);
	uint64_t due = clock_mono_ns() + GRACE_MS * NS_PER_MS;
	struct timespec ts = { (time_t)(due / NS_PER_S), (long)(due % NS_PER_S) };
	bool ended;

	pthread_mutex_lock(&st->lock);
	st->stopping = true;
	compactor_stop(st->compactor);
	pthread_cond_broadcast(&st->cond);
	while (!st->ended && clock_mono_ns() < due)
		pthread_cond_timedwait(&st->cond, &st->lock, &ts);
	ended = st->ended;
	pthread_mutex_unlock(&st->lock);
	if (!ended)
		backend_interrupt(be, true);
	pthread_join(st->thread, NULL);
	if (!ended)
		backend_interrupt(be, false);
}

static void compactor_shutdown(struct component *c)
{
	struct compactor_state *st = COMPONENT_STATE(c, struct compactor_state);

	if (st->is_running)
		stop_thread(st);
	compactor_free(st->compactor);
	if (st->has_lock) {
		pthread_mutex_destroy(&st->lock);
		pthread_cond_destroy(&st->cond);
	}
	st->compactor = NULL;
	st->is_running = st->has_lock = false;
}

/* Taking spans and answering queries do not depend on it. */
static bool is_all_there_is(struct component *c)
{
	struct compactor_state *st = COMPONENT_STATE(c, struct compactor_state);

	return !store_has_live(st->store) && component_extension_of_type(c, "query") == NULL;
}

static bool compactor_is_ready(struct component *c, char *why, size_t why_size)
{
	struct compactor_state *st = COMPONENT_STATE(c, struct compactor_state);
	bool ready;

	if (!st->is_running || !is_all_there_is(c))
		return true;
	pthread_mutex_lock(&st->lock);
	ready = st->failure[0] == '\0';
	if (!ready)
		snprintf(why, why_size, "%s: the last cycle failed: %s", c->id, st->failure);
	pthread_mutex_unlock(&st->lock);
	return ready;
}

/* ---- metrics ---- */

struct row {
	const char *name, *kind, *label, *value, *help; /* help NULL: as the row before */
	size_t at;
};

#define AT(m) offsetof(struct compactor_stats, m)
static const struct row rows[] = {
	{ "spanmill_compaction_cycles", "counter", "result", "all",
	  "Cycles over all tenants; failed ones could not do all of it.", AT(cycles) },
	{ "spanmill_compaction_cycles", "counter", "result", "failed", NULL, AT(failed_cycles) },
	{ "spanmill_compaction_merges", "counter", "result", "committed",
	  "Merges of blocks: committed; lost, because somebody else had merged one of the inputs; "
	  "postponed for want of memory.",
	  AT(compactions) },
	{ "spanmill_compaction_merges", "counter", "result", "lost", NULL, AT(lost) },
	{ "spanmill_compaction_merges", "counter", "result", "postponed", NULL, AT(postponed) },
	{ "spanmill_compaction_bytes", "counter", "direction", "in",
	  "Compressed bytes of merged blocks and of what became of them.", AT(bytes_in) },
	{ "spanmill_compaction_bytes", "counter", "direction", "out", NULL, AT(bytes_out) },
	{ "spanmill_compaction_joined_traces", "counter", NULL, NULL,
	  "Traces that were in several of the blocks merged.", AT(joined) },
	{ "spanmill_compaction_duplicate_spans", "counter", NULL, NULL,
	  "Spans left out because an equal one was in another block.", AT(duplicates) },
	{ "spanmill_compaction_conflicting_spans", "counter", NULL, NULL,
	  "Spans of one id and kind but other bytes; both were kept.", AT(conflicting) },
	{ "spanmill_compaction_refused_blocks", "counter", NULL, NULL,
	  "Blocks that could not be merged and stay as they are: damaged, or too large together.",
	  AT(refused) },
	{ "spanmill_compaction_records", "counter", "state", "finished",
	  "Records of compactions, ours and others', by what became of them.", AT(finished) },
	{ "spanmill_compaction_records", "counter", "state", "void", NULL, AT(void_records) },
	{ "spanmill_compaction_records", "counter", "state", "damaged", NULL, AT(damaged_records) },
	{ "spanmill_compaction_outstanding_blocks", "gauge", NULL, NULL,
	  "Blocks that could be merged, as of the last cycle.", AT(outstanding) },
	{ "spanmill_compaction_left_blocks", "gauge", "reason", "meta",
	  "Live blocks that are left as they are, as of the last cycle: meta.json cannot be read "
	  "(meta); not of the format v2 (format); a merge of them failed, it is tried again later "
	  "(failed).",
	  AT(unreadable) },
	{ "spanmill_compaction_left_blocks", "gauge", "reason", "format", NULL, AT(foreign) },
	{ "spanmill_compaction_left_blocks", "gauge", "reason", "failed", NULL, AT(set_aside) },
	{ "spanmill_blocks_compacted", "counter", NULL, NULL, "Blocks that became part of another.",
	  AT(blocks_in) },
	{ "spanmill_blocks_retired", "counter", NULL, NULL,
	  "Blocks marked for deletion because block_retention was over.", AT(retired) },
	{ "spanmill_blocks_deleted", "counter", NULL, NULL,
	  "Blocks deleted after compacted_block_retention.", AT(deleted) },
	{ "spanmill_blocks_orphans_deleted", "counter", NULL, NULL,
	  "Blocks deleted that were written and never committed.", AT(orphans) },
	{ "spanmill_blocks_indexes_written", "counter", NULL, NULL, "Tenant indexes written.",
	  AT(indexes) },
};
#undef AT

static void compactor_metrics(struct component *c, struct buf *out)
{
	static const char success[] = "spanmill_compaction_last_success_seconds";
	struct compactor_state *st = COMPONENT_STATE(c, struct compactor_state);
	const char *stats;

	if (st->compactor == NULL)
		return;
	stats = (const char *)compactor_stats(st->compactor);
	for (size_t i = 0; i < COUNT_OF(rows); i++) {
		const struct row *r = &rows[i];
		const _Atomic uint64_t *v = (const void *)(stats + r->at);

		if (r->help != NULL)
			telemetry_head(out, r->name, r->kind, r->help);
		telemetry_sample(out, r->name, (double)atomic_load(v), "extension", c->id, r->label,
				 r->value, NULL);
	}
	telemetry_head(out, success, "gauge",
		       "When the last cycle ended without failure; Unix time, 0: none yet.");
	telemetry_sample(out, success, (double)(st->success_wall_ns / NS_PER_S), "extension", c->id,
			 NULL);
}

const struct component_type extension_compactor = {
	.name = "compactor",
	.kind = KIND_EXTENSION,
	.summary = "Merges blocks, deletes those past their retention, writes the tenant index.",
	.stability = STABILITY_ALPHA,
	.needs = "trace_store",
	.config_size = sizeof(struct compactor_config),
	.state_size = sizeof(struct compactor_state),
	.options = compactor_options,
	.validate = compactor_validate,
	.start = compactor_start,
	.shutdown = compactor_shutdown,
	.is_ready = compactor_is_ready,
	.metrics = compactor_metrics,
};
