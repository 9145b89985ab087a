/* SPDX-License-Identifier: Apache-2.0
 *
 * options.c - keys of the spanmetrics connector: the Collector's, and names, hosts,
 * exemplars.probe.
 *
 * SPEC: the Collector's connector/spanmetricsconnector; INTERFACE "Own components' keys".
 */
#include "base/mem.h"
#include "connectors/spanmetrics/connector.h"
#include "pipeline/conf/error.h"
#include "pipeline/conf/scalar.h"
#include "pipeline/conf/tree.h"

#include <stdio.h>

static const struct option_choice names_choices[] = { { "otel", NAMES_OTEL },
						      { "tempo", NAMES_TEMPO },
						      { NULL, 0 } };
static const struct option_choice unit_choices[] = { { "ms", UNIT_MS },
						     { "s", UNIT_S },
						     { NULL, 0 } };
static const struct option_choice temporality_choices[] = {
	{ "AGGREGATION_TEMPORALITY_CUMULATIVE", TEMPORALITY_CUMULATIVE },
	{ "AGGREGATION_TEMPORALITY_DELTA", TEMPORALITY_DELTA },
	{ NULL, 0 },
};

#define D struct dimension_config
static const struct option dimension_options[] = {
	OPT_STR(D, "name", name, "", "Attribute of the span, of its resource."),
	OPT_STR(D, "default", fallback, "", "Value of spans without it; unset leaves it out."),
	OPT_PRESENT(D, "default", has_fallback),
	OPT_STR(D, "glob", glob, "",
		"Instead of a name: every attribute whose name fits (* any text, ? a character), "
		"but at "
		"most 32 of a span."),
	OPT_END
};
#undef D

#define E struct explicit_config
static const struct option explicit_options[] = {
	OPT_STRLIST(E, "buckets", buckets, "[]",
		    "Upper bounds, as durations, in ascending order. Default: 2ms 4ms 6ms 8ms 10ms "
		    "50ms 100ms 200ms 400ms 800ms 1s 1.4s 2s 5s 10s 15s; names: tempo: 2ms, 4ms, "
		    "8ms ... 16.384s."),
	OPT_END
};
#undef E

#define E struct exponential_config
static const struct option exponential_options[] = {
	OPT_UINT(E, "max_size", max_size, "160", 2, 16384, "Buckets of one histogram, at most."),
	OPT_END
};
#undef E

#define C struct spanmetrics_config
const struct option spanmetrics_options[] = {
	OPT_ENUM(C, "names", names, names_choices, "otel",
		 "otel: the Collector's names. tempo: those of Tempo's metrics generator, in "
		 "seconds, which Grafana's own views expect."),
	OPT_STR(C, "namespace", namespace, "traces.span.metrics",
		"What names of metrics begin with; not with names: tempo."),
	OPT_PRESENT(C, "namespace", has_namespace),
	OPT_BOOL(C, "histogram.disable", histogram_off, "false", "Count calls only."),
	OPT_ENUM(C, "histogram.unit", unit, unit_choices, "ms",
		 "Of durations; always s with names: tempo."),
	OPT_PRESENT(C, "histogram.unit", has_unit),
	OPT_SECTION(C, "histogram.explicit", explicit_on, explicit_buckets, struct explicit_config,
		    explicit_options, "off", "Buckets of your own."),
	OPT_SECTION(C, "histogram.exponential", exponential_on, exponential,
		    struct exponential_config, exponential_options, "off",
		    "Buckets that scale themselves, instead of bounds."),
	OPT_LIST(C, "histogram.dimensions", histogram_dimensions, struct dimension_config,
		 dimension_options, "Further labels of the duration histogram."),
	OPT_LIST(C, "dimensions", dimensions, struct dimension_config, dimension_options,
		 "Further labels of all metrics, from attributes."),
	OPT_LIST(C, "calls_dimensions", calls_dimensions, struct dimension_config,
		 dimension_options, "Further labels of calls."),
	OPT_STRLIST(C, "exclude_dimensions", exclude_dimensions, "[]",
		    "Which of service.name, span.name, span.kind, status.code to leave out."),
	OPT_ENUM(C, "aggregation_temporality", temporality, temporality_choices,
		 "AGGREGATION_TEMPORALITY_CUMULATIVE",
		 "Totals since the start, or since the last flush."),
	OPT_DURATION(C, "metrics_flush_interval", flush_interval_ns, "60s",
		     "How often metrics go on."),
	OPT_DURATION(C, "metrics_expiration", metrics_expiration_ns, "0",
		     "Forget the metrics of a resource that sent no span for so long; 0: never."),
	OPT_DURATION(C, "series_expiration", series_expiration_ns, "0",
		     "Forget a series that no span came to for so long; 0: never."),
	OPT_UINT(C, "aggregation_cardinality_limit", cardinality_limit, "0", 0, 1e9,
		 "Sets of labels per metric, at most; spans of others count in a series with the "
		 "label otel.metric.overflow=true. 0: as many as a quarter of the memory limit "
		 "holds."),
	OPT_STRLIST(C, "resource_metrics_key_attributes", resource_key_attributes, "[]",
		    "Attributes that tell resources apart; none: all. For resources with changing "
		    "ones (a process id)."),
	OPT_BOOL(C, "exemplars.enabled", exemplars_on, "false",
		 "Show the trace behind a value; docs/exemplars.md."),
	OPT_UINT(C, "exemplars.max_per_data_point", exemplars_per_point, "0", 0, 1e6,
		 "At most so many per point; 0: one per bucket."),
	OPT_TABLE(C, "exemplars.probe", probe, struct probe_config, probe_option_table,
		  "Reads exposed exemplars back."),
	OPT_BOOL(C, "events.enabled", events_on, "false", "Count span events, too."),
	OPT_LIST(C, "events.dimensions", events_dimensions, struct dimension_config,
		 dimension_options, "Further labels of events, also from their own attributes."),
	OPT_STRLIST(C, "include_instrumentation_scope", scopes, "[]",
		    "Instrumentation scopes whose name and version are labels "
		    "(span.instrumentation.scope.name, .version)."),
	OPT_BOOL(C, "enable_metrics_sampling_method", sampling_method_on, "false",
		 "Label sampling.method: extrapolated where the sampling probability is known, "
		 "else counted."),
	OPT_BOOL(C, "hosts.enabled", hosts_on, "true",
		 "The machine family: traces.host.calls and traces.host.latency by service and "
		 "host (host.name, else service.instance.id)."),
	OPT_IGNORED("add_resource_attributes",
		    "The resource of the spans is the resource of the metrics."),
	OPT_IGNORED("dimensions_cache_size", "There is no cache to size."),
	OPT_IGNORED("resource_metrics_cache_size", "Bounded by memory, and by expiration."),
	OPT_IGNORED("metric_timestamp_cache_size", "A series knows when it was last sent."),
	OPT_END
};
#undef C

static const char *const default_buckets[][17] = {
	[NAMES_OTEL] = { "2ms", "4ms", "6ms", "8ms", "10ms", "50ms", "100ms", "200ms", "400ms",
			 "800ms", "1s", "1.4s", "2s", "5s", "10s", "15s", NULL },
	[NAMES_TEMPO] = { "2ms", "4ms", "8ms", "16ms", "32ms", "64ms", "128ms", "256ms", "512ms",
			  "1.024s", "2.048s", "4.096s", "8.192s", "16.384s", NULL },
};

struct check {
	struct spanmetrics_config *c;
	const struct conf_node *node;
	struct conf_errors *errs;
	const char *path;
};

static void check_buckets(const struct check *k)
{
	struct spanmetrics_config *c = k->c;
	const struct strlist *own = &c->explicit_buckets.buckets;
	bool has_own = c->explicit_on && own->n > 0;
	const char *const *v = has_own ? own->items : default_buckets[c->names];
	char why[160];
	int64_t ns = 0;

	for (c->n_bounds = 0; has_own ? c->n_bounds < own->n : *v != NULL; v++) {
		if (c->n_bounds == HISTOGRAM_MAX_BOUNDS) {
			conf_error_at(k->errs, k->node, k->path, "histogram.explicit.buckets",
				      "use an exponential histogram", "more than %d buckets",
				      HISTOGRAM_MAX_BOUNDS);
			return;
		}
		if (conf_scalar_duration(*v, &ns, why, sizeof(why)) < 0 || ns < 0) {
			conf_error_at(k->errs, k->node, k->path, "histogram.explicit.buckets",
				      "write 2ms, 1.5s", "\"%.80s\" is not a duration", *v);
			return;
		}
		if (c->n_bounds > 0 && (uint64_t)ns <= c->bounds_ns[c->n_bounds - 1]) {
			conf_error_at(k->errs, k->node, k->path, "histogram.explicit.buckets",
				      "order them", "\"%.80s\" is not above the bound before it",
				      *v);
			return;
		}
		c->bounds_ns[c->n_bounds++] = (uint64_t)ns;
	}
}

static bool is_one_of(const char *name, const char *const *v)
{
	while (*v != NULL && strcmp(name, *v) != 0)
		v++;
	return *v != NULL;
}

static const char *const reserved[] = { "service.name", "span.name", "span.kind", "status.code",
					NULL };
static const char *const reserved_of_tempo[] = { "service", "span_name", "span_kind", "status_code",
						 NULL };

/* The name of a label that every span has? */
static bool is_reserved(const struct check *k, const char *name)
{
	return is_one_of(name, reserved) ||
	       (k->c->names == NAMES_TEMPO && is_one_of(name, reserved_of_tempo));
}

static void check_glob(const struct check *k, const char *key, const struct dimension_config *d)
{
	if (d->name[0] != '\0' || d->has_fallback)
		conf_error_at(k->errs, k->node, k->path, key, "keep one of them",
			      "a glob has no name and no default: \"%.120s\"", d->glob);
	if (++k->c->n_globs > GLOBS_MAX)
		conf_error_at(k->errs, k->node, k->path, key, "use fewer", "more than %d globs",
			      GLOBS_MAX);
}

/* `others` (may be NULL) are in the same metrics already. */
static void check_dimensions(const struct check *k, const char *key, const struct option_list *list,
			     const struct option_list *others)
{
	const struct dimension_config *v = list->items, *o = others ? others->items : NULL;

	for (size_t i = 0; i < list->n; i++) {
		bool again = is_reserved(k, v[i].name);

		for (size_t j = 0; j < i; j++)
			again |= strcmp(v[i].name, v[j].name) == 0;
		for (size_t j = 0; others != NULL && j < others->n; j++)
			again |= strcmp(v[i].name, o[j].name) == 0;
		if (v[i].glob[0] != '\0')
			check_glob(k, key, &v[i]);
		else if (v[i].name[0] == '\0')
			conf_error_at(k->errs, k->node, k->path, key, "write {name: http.route}",
				      "a dimension without a name");
		else if (again)
			conf_error_at(k->errs, k->node, k->path, key, "list it once",
				      "duplicate dimension name %.120s", v[i].name);
	}
	if (list->n + (others != NULL ? others->n : 0) > DIMENSIONS_MAX / 4)
		conf_error_at(k->errs, k->node, k->path, key, "use fewer",
			      "more than %d dimensions", DIMENSIONS_MAX / 4);
}

/* The Collector passes over other names, so they stop nobody. */
static void check_excluded(const struct check *k)
{
	const struct strlist *v = &k->c->exclude_dimensions;
	struct conf_pos nowhere = { 0 };
	char path[256];

	snprintf(path, sizeof(path), "%s.exclude_dimensions", k->path);
	for (size_t i = 0; i < v->n; i++)
		if (!is_one_of(v->items[i], reserved))
			conf_error_warn(k->errs, nowhere, path,
					"one of service.name, span.name, span.kind, status.code",
					"\"%.120s\" is not a default dimension", v->items[i]);
}

void spanmetrics_validate(void *config, const struct conf_node *node, struct conf_errors *errs,
			  const char *path)
{
	struct spanmetrics_config *c = config;
	struct check k = { c, node, errs, path };

	c->n_globs = 0;
	if (c->explicit_on && c->exponential_on)
		conf_error_at(errs, node, path, "histogram", "keep one of the two",
			      "use either `explicit` or `exponential` buckets histogram");
	if (c->flush_interval_ns == 0)
		conf_error_at(errs, node, path, "metrics_flush_interval", "60s is the default",
			      "the duration should be positive");
	if (c->events_on && c->events_dimensions.n == 0)
		conf_error_at(errs, node, path, "events", "name at least one, or leave events off",
			      "no dimensions configured for events");
	if (c->names == NAMES_TEMPO && c->has_namespace)
		conf_error_at(errs, node, path, "namespace", "leave one of the two out",
			      "names: tempo has names of its own");
	if (c->names == NAMES_TEMPO && c->has_unit && c->unit != UNIT_S)
		conf_error_at(errs, node, path, "histogram.unit", "leave it out",
			      "names: tempo counts in seconds");
	check_dimensions(&k, "dimensions", &c->dimensions, NULL);
	check_dimensions(&k, "calls_dimensions", &c->calls_dimensions, &c->dimensions);
	check_dimensions(&k, "histogram.dimensions", &c->histogram_dimensions, &c->dimensions);
	check_dimensions(&k, "events.dimensions", &c->events_dimensions, &c->dimensions);
	check_excluded(&k);
	check_buckets(&k);
	probe_validate(&c->probe, node, errs, path, "exemplars.probe.endpoint");
	if (c->names == NAMES_TEMPO)
		c->unit = UNIT_S;
}
