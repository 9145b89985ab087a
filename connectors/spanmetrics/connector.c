/* SPDX-License-Identifier: Apache-2.0
 *
 * connector.c - connector that counts spans: calls, durations and events per operation, and per
 * machine.
 *
 *   traces -> consume: compete for slots, wait for the verdict of the others -> settle
 *                                         | accepted
 *                                         v
 *             record_count -> rows --every metrics_flush_interval--> metrics
 *
 * It takes no duty: where spans go to it alone they are dropped (best_effort_only), and no other
 * branch waits for it.
 * THREADS: consume on any; counting there or on a loop; a thread to flush.
 * SPEC: the Collector's spanmetrics connector, Tempo's span metrics (families.h), INTERFACE
 * "Exemplars".
 */
#include "base/mem.h"
#include "connectors/spanmetrics/flush.h"
#include "connectors/spanmetrics/record.h"
#include "pipeline/telemetry.h"

static void count_accepted(struct component *c, struct batch *b, const uint8_t *is_accepted)
{
	record_count(c, b, is_accepted);
}

static void name_families(struct spanmetrics_state *st, const struct spanmetrics_config *conf)
{
	struct families_options o = {
		.names = (enum metric_names)conf->names,
		.namespace = conf->namespace,
		.is_ms = conf->unit == UNIT_MS,
		.has_histogram = !conf->histogram_off,
		.has_events = conf->events_on,
		.has_hosts = conf->hosts_on,
		.excluded = (const char *const *)conf->exclude_dimensions.items,
		.n_excluded = conf->exclude_dimensions.n,
	};

	families_init(&st->families, &o, &st->arena);
	for (uint32_t i = 0; i < conf->n_bounds; i++)
		st->bounds[i] = (double)conf->bounds_ns[i] / st->families.ns_per_unit;
}

static void plan_globs(struct glob_set *g, const struct spanmetrics_config *conf)
{
	unsigned events = conf->events_on ? 1u << FAMILY_EVENTS : 0;

	glob_set_add(g, &conf->dimensions, 1u << FAMILY_SPANS | 1u << FAMILY_DURATION | events);
	glob_set_add(g, &conf->calls_dimensions, 1u << FAMILY_SPANS);
	glob_set_add(g, &conf->histogram_dimensions, 1u << FAMILY_DURATION);
	glob_set_add(g, &conf->events_dimensions, events);
}

static void plan_dimensions(struct spanmetrics_state *st, const struct spanmetrics_config *conf)
{
	struct dimension_plan *p = &st->plan;

	dimension_plan_add(p, &conf->dimensions, &p->spans, &st->arena);
	if (conf->events_on) {
		p->events = p->spans;
		dimension_plan_add(p, &conf->events_dimensions, &p->events, &st->arena);
	}
	p->duration = p->spans;
	if (!conf->histogram_off)
		dimension_plan_add(p, &conf->histogram_dimensions, &p->duration, &st->arena);
	dimension_plan_add(p, &conf->calls_dimensions, &p->spans, &st->arena);
	plan_globs(&st->globs, conf);
	st->has_own_duration = !conf->histogram_off &&
			       (p->duration != p->spans ||
				!glob_set_is_same(&st->globs, FAMILY_SPANS, FAMILY_DURATION));
}

static int spanmetrics_start(struct component *c, struct err *err)
{
	const struct spanmetrics_config *conf = COMPONENT_CONFIG(c, struct spanmetrics_config);
	struct spanmetrics_state *st = COMPONENT_STATE(c, struct spanmetrics_state);

	name_families(st, conf);
	plan_dimensions(st, conf);
	series_table_init(&st->series, component_budget(c), conf->cardinality_limit);
	resource_table_init(&st->resources, &st->series, component_budget(c),
			    &conf->resource_key_attributes);
	st->accepted = (struct accepted){ .c = c, .count = count_accepted };
	st->is_started = true;
	if (conf->exemplars_on)
		st->gates = gates_new(component_budget(c));
	if (conf->exemplars_on)
		st->probe = probe_new(c, &conf->probe, err);
	if (conf->exemplars_on && st->probe == NULL && err->kind != ERR_NONE)
		return -1;
	return flusher_start(c, err);
}

static void spanmetrics_consume(struct component *c, struct batch *b)
{
	struct spanmetrics_state *st = COMPONENT_STATE(c, struct spanmetrics_state);

	if (b->tables.n_spans > 0) {
		if (COMPONENT_CONFIG(c, struct spanmetrics_config)->exemplars_on)
			record_compete(c, b);
		accepted_wait(&st->accepted, b);
	}
	batch_settle(b, VERDICT_DROPPED, DROP_BEST_EFFORT, NULL);
	batch_unref(b);
}

static void spanmetrics_drain(struct component *c)
{
	struct spanmetrics_state *st = COMPONENT_STATE(c, struct spanmetrics_state);

	/* Some spans may get no verdict before time is up: what is counted by now goes on. */
	if (!accepted_is_idle(&st->accepted))
		flusher_flush(st->flusher);
}

static int spanmetrics_is_drained(struct component *c)
{
	struct spanmetrics_state *st = COMPONENT_STATE(c, struct spanmetrics_state);

	/* The last spans first, then the last flush. */
	if (!accepted_is_idle(&st->accepted))
		return 0;
	flusher_finish(st->flusher);
	return flusher_is_finished(st->flusher);
}

static void spanmetrics_shutdown(struct component *c)
{
	struct spanmetrics_state *st = COMPONENT_STATE(c, struct spanmetrics_state);

	if (!st->is_started)
		return;
	flusher_stop(st->flusher);
	st->flusher = NULL;
	probe_free(st->probe);
	st->probe = NULL;
	gates_free(st->gates);
	st->gates = NULL;
	resource_table_fini(&st->resources);
	series_table_fini(&st->series);
	arena_fini(&st->arena);
	st->is_started = false;
}

static void spanmetrics_offer(struct component *c, const struct batch *b, const char **takes)
{
	record_offer(c, b, takes);
}

static void spanmetrics_bound(struct component *c, bool on)
{
	atomic_fetch_add(&COMPONENT_STATE(c, struct spanmetrics_state)->n_bound, on ? 1 : -1);
}

static bool spanmetrics_uses_exemplars(const void *config)
{
	return ((const struct spanmetrics_config *)config)->exemplars_on;
}

static void counter(const struct component *c, struct buf *out, const char *name, uint64_t v,
		    const char *help)
{
	telemetry_head(out, name, "counter", help);
	telemetry_sample(out, name, (double)v, "connector", c->id, NULL);
}

static void row_metrics(struct component *c, struct buf *out)
{
	static const char rows[] = "spanmill_spanmetrics_series";
	static const char *const families[FAMILY_MAX] = { "spans", "duration", "events",
							  "host_calls", "host_latency" };
	struct spanmetrics_state *st = COMPONENT_STATE(c, struct spanmetrics_state);

	telemetry_head(out, rows, "gauge", "Sets of labels that have a series of their own.");
	for (int f = 0; f < FAMILY_MAX; f++)
		telemetry_sample(out, rows, (double)atomic_load(&st->series.n_rows[f]), "connector",
				 c->id, "family", families[f], NULL);
	telemetry_head(out, "spanmill_spanmetrics_series_bytes", "gauge", "Memory of the series.");
	telemetry_sample(out, "spanmill_spanmetrics_series_bytes",
			 (double)atomic_load(&st->series.n_bytes), "connector", c->id, NULL);
}

static void spanmetrics_metrics(struct component *c, struct buf *out)
{
	struct spanmetrics_state *st = COMPONENT_STATE(c, struct spanmetrics_state);

	row_metrics(c, out);
	counter(c, out, "spans_unknown_probability_total", atomic_load(&st->n_unknown),
		"Spans counted as one because nobody said how they were sampled.");
	counter(c, out, "spanmill_spanmetrics_skipped_spans", atomic_load(&st->n_skipped),
		"Spans not counted: their resource has no service.name.");
	counter(c, out, "spanmill_spanmetrics_overflowed_spans", atomic_load(&st->n_overflowed),
		"Spans counted in a series with otel.metric.overflow=true.");
	flusher_metrics(st->flusher, c->id, out);
	probe_metrics(st->probe, c->id, out);
}

const struct component_type connector_spanmetrics = {
	.name = "spanmetrics",
	.alias = "span_metrics",
	.kind = KIND_CONNECTOR,
	.summary = "Counts spans: calls, durations and events per operation, and per machine.",
	.stability = STABILITY_ALPHA,
	.signals = SIGNAL_TRACES,
	.gives = { [OTLP_TRACES] = SIGNAL_METRICS },
	.config_size = sizeof(struct spanmetrics_config),
	.state_size = sizeof(struct spanmetrics_state),
	.options = spanmetrics_options,
	.validate = spanmetrics_validate,
	.start = spanmetrics_start,
	.consume = spanmetrics_consume,
	.drain = spanmetrics_drain,
	.is_drained = spanmetrics_is_drained,
	.shutdown = spanmetrics_shutdown,
	.metrics = spanmetrics_metrics,
	.uses_exemplars = spanmetrics_uses_exemplars,
	.exemplar_offer = spanmetrics_offer,
	.exemplar_bound = spanmetrics_bound,
};
