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
 * buffers.
 * SPEC: the Collector's batch processor keys.
 */
#include "base/clock.h"
#include "base/mem.h"
#include "net/loop.h"
#include "pipeline/component.h"
#include "pipeline/conf_error.h"
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
	struct group *groups;
	struct loop *loop;
	struct loop_task task; /* starts the timer on its loop */
	struct loop_timer timer;
	bool ticking; /* the timer runs, or is about to */
	_Atomic uint64_t size_triggers, timeout_triggers;
};

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
		 "Accepted with metadata_keys."),
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
}

/* Emit in pieces of at most send_batch_max_size. Takes b. */
static void emit_split(struct component *c, struct batch *b)
{
	uint64_t max = COMPONENT_CONFIG(c, struct batch_config)->send_batch_max_size;
	struct batch *head;

	while (max > 0 && b->tables.n_spans > max) {
		batch_split(b, (uint32_t)max, &head, &b);
		component_emit(c, head);
	}
	component_emit(c, b);
}

static void emit_group(struct component *c, struct group *g)
{
	if (g->n > 0)
		emit_split(c, batch_concat(g->v, g->n));
	free(g->v);
}

/* Move what waits out of the group. Lock held. */
static struct group take(struct group *g)
{
	struct group taken = *g;

	g->v = NULL;
	g->n = g->cap = 0;
	g->n_spans = 0;
	return taken;
}

static struct group *group_of(struct batch_state *st, const char *tenant)
{
	struct group *g = st->groups;

	while (g != NULL && strcmp(g->tenant, tenant) != 0)
		g = g->next;
	if (g == NULL) {
		g = xcalloc(1, sizeof(*g));
		memcpy(g->tenant, tenant, strlen(tenant) + 1);
		g->next = st->groups;
		st->groups = g;
	}
	return g;
}

static void start_timer(void *arg)
{
	struct component *c = arg;
	struct batch_state *st = COMPONENT_STATE(c, struct batch_state);

	loop_timer_start(st->loop, &st->timer, QUIET_MS);
}

static void batch_processor_consume(struct component *c, struct batch *b)
{
	const struct batch_config *conf = COMPONENT_CONFIG(c, struct batch_config);
	struct batch_state *st = COMPONENT_STATE(c, struct batch_state);
	struct group full = { .n = 0 };
	uint64_t now = clock_mono_ns();
	struct group *g;

	if (conf->timeout_ns == 0 || st->draining) {
		emit_split(c, b);
		return;
	}
	pthread_mutex_lock(&st->lock);
	g = group_of(st, b->tenant);
	if (g->n == 0)
		g->first_ns = now;
	g->last_ns = now;
	g->v = xgrow(g->v, &g->cap, g->n + 1, sizeof(struct batch *));
	g->v[g->n++] = b;
	g->n_spans += b->tables.n_spans;
	if (g->n_spans >= MAX(conf->send_batch_size, 1u)) {
		full = take(g);
		atomic_fetch_add(&st->size_triggers, 1);
	} else if (!st->ticking) {
		st->ticking = true;
		loop_post(st->loop, &st->task);
	}
	pthread_mutex_unlock(&st->lock);
	emit_group(c, &full);
}

static bool is_due(const struct batch_config *conf, const struct group *g, uint64_t now)
{
	return g->n > 0 && (now - g->last_ns >= QUIET_MS * NS_PER_MS ||
			    now - g->first_ns >= (uint64_t)conf->timeout_ns);
}

/* Emit every group that is due (all of them: the process drains). True when some still wait. */
static bool flush_groups(struct component *c, bool all)
{
	const struct batch_config *conf = COMPONENT_CONFIG(c, struct batch_config);
	struct batch_state *st = COMPONENT_STATE(c, struct batch_state);
	uint64_t now = clock_mono_ns();
	bool waiting = false;

	pthread_mutex_lock(&st->lock);
	for (struct group *g = st->groups; g != NULL; g = g->next) {
		struct group due;

		if (!all && !is_due(conf, g, now)) {
			waiting |= g->n > 0;
			continue;
		}
		due = take(g);
		/* Groups are only freed at shutdown, so the walk may go on after the lock was given
		 * up. */
		pthread_mutex_unlock(&st->lock);
		if (due.n > 0)
			atomic_fetch_add(&st->timeout_triggers, 1);
		emit_group(c, &due);
		pthread_mutex_lock(&st->lock);
	}
	st->ticking = waiting;
	pthread_mutex_unlock(&st->lock);
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
	while (st->groups != NULL) {
		struct group *next = st->groups->next;

		free(st->groups);
		st->groups = next;
	}
	pthread_mutex_destroy(&st->lock);
	st->initialised = false;
}

static void batch_processor_metrics(struct component *c, struct buf *out)
{
	struct batch_state *st = COMPONENT_STATE(c, struct batch_state);

	telemetry_head(out, "otelcol_processor_batch_batch_size_trigger_send", "counter",
		       "Batches sent because of their size.");
	telemetry_sample(out, "otelcol_processor_batch_batch_size_trigger_send",
			 (double)atomic_load(&st->size_triggers), "processor", c->id, NULL);
	telemetry_head(out, "otelcol_processor_batch_timeout_trigger_send", "counter",
		       "Batches sent because time passed or nothing more came.");
	telemetry_sample(out, "otelcol_processor_batch_timeout_trigger_send",
			 (double)atomic_load(&st->timeout_triggers), "processor", c->id, NULL);
}

const struct component_type processor_batch = {
	.name = "batch",
	.kind = KIND_PROCESSOR,
	.summary = "Joins small batches; an ack still means delivered.",
	.stability = STABILITY_BETA,
	.signals = SIGNAL_TRACES,
	.config_size = sizeof(struct batch_config),
	.state_size = sizeof(struct batch_state),
	.options = batch_options,
	.validate = batch_validate,
	.start = batch_processor_start,
	.consume = batch_processor_consume,
	.drain = batch_processor_drain,
	.is_drained = batch_processor_is_drained,
	.shutdown = batch_processor_shutdown,
	.metrics = batch_processor_metrics,
};
