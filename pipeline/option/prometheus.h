/* SPDX-License-Identifier: Apache-2.0
 *
 * prometheus.h - the options by which both Prometheus exporters name metrics and labels.
 *
 * SPEC: the Collector's keys of the same names; docs/formats/prometheus.md.
 */
#ifndef PIPELINE_OPTION_PROMETHEUS_H
#define PIPELINE_OPTION_PROMETHEUS_H

#include "pipeline/option/option.h"
#include "wire/prometheus_name.h"

/* Use OPT_INCLUDE(C, naming, struct prometheus_options, prometheus_option_table). */
struct prometheus_options {
	const char *namespace;
	bool add_metric_suffixes;
	int translation_strategy; /* 0: unset; else enum prometheus_strategy + 1 */
	bool resource_to_telemetry;
};

extern const struct option prometheus_option_table[];

/* How names are made. Borrows the namespace. */
struct prometheus_naming prometheus_options_naming(const struct prometheus_options *o);

#endif
