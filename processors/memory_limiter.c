/* SPDX-License-Identifier: Apache-2.0
 *
 * memory_limiter.c - processor that sets the process's memory budget; the work is done before any
 * body is read.
 *
 * DESIGN: the Collector's limiter looks at its heap once per check_interval and refuses batches
 * that are in memory already. Ours is a hard budget (base/budget.h) that receivers charge from
 * Content-Length or the gRPC frame before they read, so this component only says how large it is:
 * the limit, less what the process itself takes, less the share that an allocator loses. Batches
 * pass through untouched.
 * SPEC: the Collector's memory_limiter keys; DESIGN principle 3.
 */
#include "pipeline/component.h"
#include "pipeline/conf/error.h"
#include "pipeline/service/system.h"
#include "pipeline/telemetry.h"

struct memory_limiter_config {
	int64_t check_interval_ns;
	uint64_t limit_bytes, spike_bytes;
	uint64_t limit_percentage, spike_percentage;
	int64_t gc_ns[4];
};

struct memory_limiter_state {
	bool is_running;
	int64_t limit, before; /* what it set, and what it found */
};

#define C struct memory_limiter_config
static const struct option memory_limiter_options[] = {
	OPT_DURATION(C, "check_interval", check_interval_ns, "1s",
		     "The Collector's key; the budget here is exact at every moment."),
	OPT_SIZE_MIB(C, "limit_mib", limit_bytes, "0", 0, 1 << 24,
		     "Memory the process may use; wins over limit_percentage."),
	OPT_SIZE_MIB(C, "spike_limit_mib", spike_bytes, "0", 0, 1 << 24,
		     "Accepted; a hard budget has no spikes."),
	OPT_UINT(C, "limit_percentage", limit_percentage, "0", 0, 100,
		 "The same as a share of the cgroup's limit, or of all memory."),
	OPT_UINT(C, "spike_limit_percentage", spike_percentage, "0", 0, 100,
		 "Accepted; a hard budget has no spikes."),
	OPT_DURATION(C, "min_gc_interval_when_soft_limited", gc_ns[0], "10s",
		     "Accepted; there is no garbage collector."),
	OPT_DURATION(C, "min_gc_interval_when_hard_limited", gc_ns[1], "0s",
		     "Accepted; there is no garbage collector."),
	OPT_DURATION(C, "max_gc_interval_when_soft_limited", gc_ns[2], "30s",
		     "Accepted; there is no garbage collector."),
	OPT_DURATION(C, "max_gc_interval_when_hard_limited", gc_ns[3], "30s",
		     "Accepted; there is no garbage collector."),
	OPT_MOVED("ballast_size_mib", "remove it: there is no garbage collector to trick"),
	OPT_END
};
#undef C

static void memory_limiter_validate(void *config, const struct conf_node *node,
				    struct conf_errors *errs, const char *path)
{
	const struct memory_limiter_config *c = config;

	if (c->check_interval_ns == 0)
		conf_error_at(errs, node, path, "check_interval", "for example 1s",
			      "'check_interval' must be greater than zero");
	if (c->limit_bytes == 0 && c->limit_percentage == 0)
		conf_error_at(errs, node, path, NULL, "for example limit_mib: 512",
			      "'limit_mib' or 'limit_percentage' must be greater than zero");
	if (c->limit_bytes > 0 && c->spike_bytes >= c->limit_bytes)
		conf_error_at(errs, node, path, "spike_limit_mib", "lower it below limit_mib",
			      "'spike_limit_mib' must be smaller than 'limit_mib'");
	if (c->limit_bytes == 0 && c->limit_percentage > 0 &&
	    c->spike_percentage >= c->limit_percentage)
		conf_error_at(errs, node, path, "spike_limit_percentage",
			      "lower it below limit_percentage",
			      "'spike_limit_percentage' must be smaller than 'limit_percentage'");
}

/* What budget a process limited to `limit` bytes can give away: the program and its libraries are
 * there already; pools, compressors, stacks and what a burst leaves in malloc's heaps until
 * pipeline/service/memory_keeper.c comes round take up to 16 MiB, whatever the limit (measured: 14
 * to 19 in the worst of tests/integration/test_hostile_memory.py); and the rest of the pipeline
 * accounts for what it takes only a moment after it took it. */
static int64_t budget_of(uint64_t limit, uint64_t base)
{
	uint64_t room = limit > base ? limit - base : 0;

	room -= MIN(16 * MIB, room / 4);
	return (int64_t)MAX((uint64_t)(room * 0.85), limit / 4);
}

/* Of the process: how many run, and the limit without any. Main thread. */
static struct {
	unsigned n_running;
	int64_t standard_limit;
	uint64_t base; /* resident bytes before anything was taken */
} common;

static int memory_limiter_start(struct component *c, struct err *err)
{
	const struct memory_limiter_config *conf =
		COMPONENT_CONFIG(c, struct memory_limiter_config);
	struct memory_limiter_state *st = COMPONENT_STATE(c, struct memory_limiter_state);
	uint64_t limit = conf->limit_bytes;

	(void)err;
	if (limit == 0)
		limit = system_memory_total() / 100 * conf->limit_percentage;
	/* At a reload the memory that is in use now is no part of the program. */
	if (common.n_running++ == 0) {
		common.standard_limit = atomic_load(&component_budget(c)->limit);
		if (common.base == 0)
			common.base = system_memory_rss();
	}
	st->is_running = true;
	st->limit = budget_of(limit, common.base);
	st->before = atomic_exchange(&component_budget(c)->limit, st->limit);
	return 0;
}

/* The last one leaves the limit as the first found it; one whose reload failed as it found it. */
static void memory_limiter_shutdown(struct component *c)
{
	struct memory_limiter_state *st = COMPONENT_STATE(c, struct memory_limiter_state);

	if (st->is_running && --common.n_running == 0)
		atomic_store(&component_budget(c)->limit, common.standard_limit);
	else if (st->is_running && atomic_load(&component_budget(c)->limit) == st->limit)
		atomic_store(&component_budget(c)->limit, st->before);
	st->is_running = false;
}

static void memory_limiter_consume(struct component *c, struct batch *b)
{
	component_emit(c, b);
}

static void memory_limiter_metrics(struct component *c, struct buf *out)
{
	static const char accepted[] = "otelcol_processor_memory_limiter_accepted_spans";
	static const char refused[] = "otelcol_processor_memory_limiter_refused_spans";

	telemetry_head(out, accepted, "counter", "Spans that found room.");
	telemetry_sample(out, accepted, (double)atomic_load(&c->count->incoming), "processor",
			 c->id, "pipeline", c->pipeline, NULL);
	telemetry_head(out, refused, "counter",
		       "Spans of the process that found none once their request was read. Most are "
		       "refused before their number is known: spanmill_memory_refusals.");
	telemetry_sample(out, refused, (double)atomic_load(&component_budget(c)->refused_spans),
			 "processor", c->id, "pipeline", c->pipeline, NULL);
}

const struct component_type processor_memory_limiter = {
	.name = "memory_limiter",
	.kind = KIND_PROCESSOR,
	.summary = "Sets the memory budget that every receiver charges before it reads.",
	.stability = STABILITY_BETA,
	.signals = SIGNAL_ALL,
	.config_size = sizeof(struct memory_limiter_config),
	.options = memory_limiter_options,
	.validate = memory_limiter_validate,
	.state_size = sizeof(struct memory_limiter_state),
	.may_overlap = component_overlaps,
	.start = memory_limiter_start,
	.shutdown = memory_limiter_shutdown,
	.consume = memory_limiter_consume,
	.metrics = memory_limiter_metrics,
};
