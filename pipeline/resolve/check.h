/* SPDX-License-Identifier: Apache-2.0
 *
 * check.h - from a merged tree to a resolved `struct service_config`: what the service builds
 * and runs.
 *
 * OWNERSHIP: everything a service_config points to lives in its own arena and goes with
 * conf_check_free; it is never changed after conf_check_load returned it, so any thread may read
 * it. Loading is for the main thread. SPEC: docs/formats/config.md; the Collector's sections, ids,
 * pipelines and texts; INTERFACE.md "Config errors".
 */
#ifndef PIPELINE_RESOLVE_CHECK_H
#define PIPELINE_RESOLVE_CHECK_H

#include "pipeline/component.h"
#include "pipeline/conf/load.h"
#include "pipeline/resolve/telemetry.h"
#include "pipeline/option/blocks.h"

/* One entry of receivers:, processors:, exporters:, connectors: or extensions:. Configured but
 * unused ones are here too; they are checked and never started. */
struct service_component {
	enum component_kind kind;
	const char *id; /* "otlp/jaeger": the user's spelling, blanks trimmed */
	const struct component_type *type;
	void *config;                 /* type->config_size bytes, parsed and validated */
	const struct conf_node *node; /* the body; may be a null node */
	const char *yaml_path;        /* "exporters.otlp/jaeger" */
	bool is_used;                 /* by a pipeline or by service.extensions */
	unsigned used_signals; /* of those pipelines; enum signals, or-ed; connectors: of those
				  that feed it */
	unsigned fed_signals;  /* connectors: of the pipelines it feeds */
	struct receiver_options receiver; /* receivers: the keys every one has */
	struct exporter_options exporter; /* exporters: likewise */
};

/* Indices into service_config.components. */
struct service_refs {
	size_t *items;
	size_t n;
};

struct service_pipeline {
	const char *id; /* "traces/2" */
	enum otlp_signal signal;
	struct service_refs receivers;  /* receivers, and connectors that feed this pipeline */
	struct service_refs processors; /* in order */
	struct service_refs exporters;  /* exporters, and connectors this pipeline feeds */
	const struct conf_node *node;
	const char *yaml_path;
};

struct service_config {
	struct arena arena;
	struct service_component
		*components; /* in the order of the file, by section as in enum component_kind */
	size_t n_components;
	struct service_pipeline *pipelines;
	size_t n_pipelines;
	struct service_refs extensions; /* service.extensions, in order: the order to start */
	struct service_telemetry telemetry;
	int64_t drain_timeout_ns;
	bool has_exemplar_guard; /* false: the lowest keep rate of the process decides */
	double exemplar_guard;
	uint64_t exemplar_th; /* what comes of it: component_exemplar_guard() */
	double sampled_ratio; /* component_sampled_ratio() */
	const struct conf_node *root; /* merged and expanded */
	const void *service;          /* the section as parsed, for conf_check_print */
};

/* Load, expand and check. NULL when errors were added (warnings alone do not count). The caller
 * prints `errors` either way. */
struct service_config *conf_check_load(const struct conf_request *r, struct conf_errors *errors);
/* NULL is fine. */
void conf_check_free(struct service_config *c);
/* Does connector c lead from pipelines of `from` to those of `to`? True for an unknown type and one
 * signal, so that the references can be checked all the same. */
bool conf_check_joins(const struct service_component *c, enum otlp_signal from,
		      enum otlp_signal to);
/* Two components of one type: are all their options the same, defaults filled in and secrets
 * included? */
bool conf_check_is_same(const struct service_component *a, const struct service_component *b);
/* The whole effective configuration, defaults filled in, as a tree in `arena`; opaque values
 * [REDACTED] when redact. */
struct conf_node *conf_check_print(const struct service_config *c, struct arena *arena,
				   bool redact);

#endif
