/* SPDX-License-Identifier: Apache-2.0
 *
 * telemetry.h - the section service.telemetry: what the process says of itself, and where.
 *
 * OWNERSHIP: everything lies in the arena of the load. Main thread.
 * SPEC: the Collector's service.telemetry, its v0.3.0 schema and the older `metrics.address`.
 */
#ifndef PIPELINE_RESOLVE_TELEMETRY_H
#define PIPELINE_RESOLVE_TELEMETRY_H

#include "base/log.h"
#include "pipeline/option/option.h"

enum telemetry_level { TELEMETRY_NONE, TELEMETRY_BASIC, TELEMETRY_NORMAL, TELEMETRY_DETAILED };

/* The section as written. */
struct telemetry_section {
	int metrics_level; /* enum telemetry_level */
	const char *address;
	bool has_readers;
	struct option_list readers;
	int log_level, log_encoding;
	bool development, disable_caller, disable_stacktrace, disable_zap_resource;
	struct strlist output_paths, error_output_paths;
	const struct conf_node *initial_fields, *resource;
	struct log_sampling sampling;
};

extern const struct option telemetry_option_table[];

/* The section as the service uses it. */
struct service_telemetry {
	int metrics_level;            /* enum telemetry_level */
	const char *metrics_endpoint; /* host:port of /metrics; "": none */
	bool type_suffix; /* counters end in _total (a reader's without_type_suffix: false) */
	struct log_settings log;
	struct strmap resource; /* attributes of all our telemetry, each name once */
};

/* Check what rows cannot say and resolve. `node` is the body of `service`, or NULL. */
void conf_telemetry_check(struct telemetry_section *s, const struct conf_node *node,
			  struct service_telemetry *out, struct arena *arena,
			  struct conf_errors *errors);

#endif
