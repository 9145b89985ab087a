/* SPDX-License-Identifier: Apache-2.0
 *
 * batch.c - processor that joins small batches of one tenant into larger ones.
 *
 *   consume --> group of the tenant [b][b][b] --size--> concat, emit (on the caller's thread)
 *                                        '----- quiet or timeout --> the same, on loop 0
 *
 * DESIGN: an acknowledgement still means delivered, so a client waits while its spans wait here. A
 * group is therefore also flushed when nothing more arrived for QUIET_MS: a client that sends one
 * request and waits is held for a few milliseconds, not for the whole `timeout`. Joining is
 * concatenation of indexes; no span is copied.
 * THREADS: one lock, taken once per batch. LIMITS: what waits is charged to the budget by its
 * buffers; a group is gone with what waited in it, and a tenant that would need more groups than
 * metadata_cardinality_limit is not batched.
 * SPEC: the Collector's batch processor keys.
 */
#include "base/clock.h"
#include "base/mem.h"
#include "base/str.h"
#include "net/loop.h"
#include "pipeline/component.h"
#include "pipeline/conf/error.h"
#include "pipeline/telemetry.h"

#include <pthread.h>

enum { QUIET_MS = 4 };

struct batch_config {
	int64_t timeout_ns;
	uint64_t send_batch_size, send_batch_max_size;
	uint64_t metadata_cardinality_limit;
	struct strlist metadata_keys;
};

/* What waits of one tenant. */
struct group {
	char tenant[TENANT_MAX + 1];
	struct batch **v;
	size_t n, cap;
	uint64_t n_spans;
	uint64_t first_ns, last_ns; /* monotonic times of the oldest and newest */
	struct group *next;
};

struct batch_state {
	pthread_mutex_t lock;
	bool initialised;
	_Atomic bool draining;
	struct group *groups; /* those in which something waits */
	size_t n_groups;
	struct loop *loop;
	struct loop_task task; /* starts the timer on its loop */
	struct loop_timer timer;
	bool ticking; /* the timer runs, or is about to */
	_Atomic uint64_t size_triggers, timeout_triggers;
	struct telemetry_histogram sizes;
};

/* The Collector's bounds of batch_send_size. */
static const uint64_t size_bounds[] = { 10,   25,    50,    75,    100,   250,   500,  750,
					1000, 2000,  3000,  4000,  5000,  6000,  7000, 8000,
					9000, 10000, 20000, 30000, 50000, 100000 };

#define C struct batch_config
static const struct option batch_options[] = {
	OPT_DURATION(C, "timeout", timeout_ns, "200ms",
		     "Longest time a span waits here; 0 sends at once."),
	OPT_UINT(C, "send_batch_size", send_batch_size, "8192", 0, 1 << 24,
		 "Spans that cause a batch to be sent at once."),
	OPT_UINT(C, "send_batch_max_size", send_batch_max_size, "0", 0, 1 << 24,
		 "Larger batches are split to this many spans; 0 is no limit."),
	OPT_STRLIST(C, "metadata_keys", metadata_keys, "[]",
		    "Accepted: batches never mix tenants anyway."),
	OPT_UINT(C, "metadata_cardinality_limit", metadata_cardinality_limit, "1000", 0, 1 << 24,
		 "Tenants that are batched at a time; the spans of others are sent at once. 0: no "
		 "limit."),
	OPT_END
};
#undef C

static void batch_validate(void *config, const struct conf_node *node, struct conf_errors *errs,
			   const char *path)
{
	const struct batch_config *c = config;

	if (c->send_batch_max_size > 0 && c->send_batch_max_size < c->send_batch_size)
		conf_error_at(errs, node, path, "send_batch_max_size", "raise it, or leave it 0",
			      "must be greater or equal to send_batch_size");
	for (size_t i = 0; i < c->metadata_keys.n; i++)
		for (size_t j = 0; j < i; j++)
			if (str_eq_nocase(bytes_str(c->metadata_keys.items[i]),
					  c->metadata_keys.items[j]))
				conf_error_at(errs, node, path, "metadata_keys", "list it once",
					      "duplicate entry in metadata_keys: \"%.80s\" "
					      "(case-insensitive)",
					      c->metadata_keys.items[i]);
}

/* Emit in pieces of send_batch_max_size, the last one of what is left. Takes b. */
static void emit_split(struct component *c, struct batch *b)
{
	uint64_t max = COMPONENT_CONFIG(c, struct batch_config)->send_batch_max_size;
	uint32_t n = batch_split_point(b->tables.n_spans, max);
	struct batch *head, *tail;

	if (n == 0) {
		telemetry_observe(&COMPONENT_STATE(c, struct batch_state)->sizes,
				  b->tables.n_spans);
		component_emit(c, b);
		return;
	}
	batch_split(b, n, &head, &tail);
	emit_split(c, head);
	emit_split(c, tail);
}

/* Takes the group, which is on no list any more. NULL is fine. */
static void emit_group(struct component *c, struct group *g)
{
	uint64_t enough = MAX(COMPONENT_CONFIG(c, struct batch_config)->send_batch_size, 1u);
	struct batch *large = NULL;

	if (g == NULL)
		return;
	/* What is large enough by itself gains nothing by a copy of its index. */
	if (g->n > 1 && g->v[g->n - 1]->tables.n_spans >= enough)
		large = g->v[--g->n];
	emit_split(c, batch_concat(g->v, g->n));
	if (large != NULL)
		emit_split(c, large);
	free(g->v);
	free(g);
}

/* Where the tenant's group is linked in, or would be. Lock held. */
static struct group **find_group(struct batch_state *st, const char *tenant)
{
	struct group **at = &st->groups;

	while (*at != NULL && strcmp((*at)->tenant, tenant) != 0)
		at = &(*at)->next;
	return at;
}

/* Lock held. */
static struct group *unlink_group(struct batch_state *st, struct group **at)
{
	struct group *g = *at;

	*at = g->next;
	g->next = NULL;
	st->n_groups--;
	return g;
}

static struct group *new_group(struct batch_state *st, const char *tenant, uint64_t now)
{
	struct group *g = xcalloc(1, sizeof(*g));

	memcpy(g->tenant, tenant, strlen(tenant) + 1);
	g->first_ns = now;
	st->n_groups++;
	return g;
}

static void start_timer(void *arg)
{
	struct component *c = arg;
	struct batch_state *st = COMPONENT_STATE(c, struct batch_state);

	loop_timer_start(st->loop, &st->timer, QUIET_MS);
}

/* Let b wait in its tenant's group; *full gets the group when it is to be sent at once. False: b is
 * not taken. Lock held. */
static bool join(const struct batch_config *conf, struct batch_state *st, struct batch *b,
		 struct group **full)
{
	struct group **at = find_group(st, b->tenant), *g;
	uint64_t now = clock_mono_ns();

	if (*at == NULL && conf->metadata_cardinality_limit > 0 &&
	    st->n_groups >= conf->metadata_cardinality_limit)
		return false;
	if (*at == NULL)
		*at = new_group(st, b->tenant, now);
	g = *at;
	g->last_ns = now;
	g->v = xgrow(g->v, &g->cap, g->n + 1, sizeof(struct batch *));
	g->v[g->n++] = b;
	g->n_spans += b->tables.n_spans;
	if (g->n_spans >= MAX(conf->send_batch_size, 1u))
		*full = unlink_group(st, at);
	return true;
}

static void batch_processor_consume(struct component *c, struct batch *b)
{
	const struct batch_config *conf = COMPONENT_CONFIG(c, struct batch_config);
	struct batch_state *st = COMPONENT_STATE(c, struct batch_state);
	struct group *full = NULL;
	bool taken;

	if (conf->timeout_ns == 0 || st->draining) {
		emit_split(c, b);
		return;
	}
	pthread_mutex_lock(&st->lock);
	taken = join(conf, st, b, &full);
	if (full != NULL) {
		atomic_fetch_add(&st->size_triggers, 1);
	} else if (taken && !st->ticking) {
		st->ticking = true;
		loop_post(st->loop, &st->task);
	}
	pthread_mutex_unlock(&st->lock);
	emit_group(c, full);
	if (!taken)
		emit_split(c, b);
}

static bool is_due(const struct batch_config *conf, const struct group *g, uint64_t now)
{
	return now - g->last_ns >= QUIET_MS * NS_PER_MS ||
	       now - g->first_ns >= (uint64_t)conf->timeout_ns;
}

/* Emit every group that is due (all of them: the process drains). True when some still wait. */
static bool flush_groups(struct component *c, bool all)
{
	const struct batch_config *conf = COMPONENT_CONFIG(c, struct batch_config);
	struct batch_state *st = COMPONENT_STATE(c, struct batch_state);
	struct group *due = NULL, *g, **at = &st->groups;
	uint64_t now = clock_mono_ns();
	bool waiting;

	pthread_mutex_lock(&st->lock);
	while (*at != NULL) {
		if (!all && !is_due(conf, *at, now)) {
			at = &(*at)->next;
			continue;
		}
		g = unlink_group(st, at);
		g->next = due;
		due = g;
	}
	waiting = st->ticking = st->groups != NULL;
	pthread_mutex_unlock(&st->lock);
	while ((g = due) != NULL) {
		due = g->next;
		atomic_fetch_add(&st->timeout_triggers, 1);
		emit_group(c, g);
	}
	return waiting;
}

static void tick(void *arg)
{
	if (flush_groups(arg, false))
		start_timer(arg);
}

static int batch_processor_start(struct component *c, struct err *err)
{
	struct batch_state *st = COMPONENT_STATE(c, struct batch_state);

	(void)err;
	pthread_mutex_init(&st->lock, NULL);
	st->initialised = true;
	st->sizes.bounds = size_bounds;
	st->sizes.n_bounds = COUNT_OF(size_bounds);
	st->loop = component_loop(c, 0);
	st->task = (struct loop_task){ .fn = start_timer, .arg = c };
	st->timer = (struct loop_timer){ .fn = tick, .arg = c };
	return 0;
}

static void batch_processor_drain(struct component *c)
{
	struct batch_state *st = COMPONENT_STATE(c, struct batch_state);

	st->draining = true;
	flush_groups(c, true);
}

static int batch_processor_is_drained(struct component *c)
{
	/* A consume that raced with the drain may have left something. */
	return !flush_groups(c, true);
}

static void stop_timer(void *arg)
{
	struct batch_state *st = arg;

	loop_timer_stop(st->loop, &st->timer);
}

static void batch_processor_shutdown(struct component *c)
{
	struct batch_state *st = COMPONENT_STATE(c, struct batch_state);

	if (!st->initialised)
		return;
	flush_groups(c, true);
	loop_call(st->loop, stop_timer, st);
	pthread_mutex_destroy(&st->lock);
	st->initialised = false;
}

static void counter(struct buf *out, const struct component *c, const char *name, uint64_t v,
		    const char *help)
{
	telemetry_head(out, name, "counter", help);
	telemetry_sample(out, name, (double)v, "processor", c->id, "pipeline", c->pipeline, NULL);
}

static void batch_processor_metrics(struct component *c, struct buf *out)
{
	static const char sizes[] = "otelcol_processor_batch_batch_send_size",
			  cardinality[] = "otelcol_processor_batch_metadata_cardinality";
	struct batch_state *st = COMPONENT_STATE(c, struct batch_state);
	size_t n_groups;

	pthread_mutex_lock(&st->lock);
	n_groups = st->n_groups;
	pthread_mutex_unlock(&st->lock);
	telemetry_head(out, sizes, "histogram", "Spans in the batches sent.");
	telemetry_histogram(out, sizes, &st->sizes, c);
	counter(out, c, "otelcol_processor_batch_batch_size_trigger_send",
		atomic_load(&st->size_triggers), "Batches sent because of their size.");
	counter(out, c, "otelcol_processor_batch_timeout_trigger_send",
		atomic_load(&st->timeout_triggers),
		"Batches sent because time passed or nothing more came.");
	telemetry_head(out, cardinality, "gauge", "Tenants whose spans wait to be joined.");
	telemetry_sample(out, cardinality, (double)n_groups, "processor", c->id, "pipeline",
			 c->pipeline, NULL);
}

const struct component_type processor_batch = {
	.name = "batch",
	.kind = KIND_PROCESSOR,
	.summary = "Joins small batches; an ack still means delivered.",
	.stability = STABILITY_BETA,
	.signals = SIGNAL_ALL,
	.config_size = sizeof(struct batch_config),
	.state_size = sizeof(struct batch_state),
	.options = batch_options,
	.validate = batch_validate,
	.may_overlap = component_overlaps,
	.start = batch_processor_start,
	.consume = batch_processor_consume,
	.drain = batch_processor_drain,
	.is_drained = batch_processor_is_drained,
	.shutdown = batch_processor_shutdown,
	.metrics = batch_processor_metrics,
};
