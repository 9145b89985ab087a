/* SPDX-License-Identifier: Apache-2.0
 *
 * connector.h - the spanmetrics connector's configuration and state, which its files share.
 *
 *   options.c     keys                          families.c    names of metrics and labels
 *   connector.c   life                          resources.c   resources of batches, known again
 *   record.c      spans into rows               series.c      the rows
 *   histogram.c   buckets of rows               flush.c       rows into OTLP metrics
 *   gates.c       who need not ask slots        globs.c       dimensions by pattern
 *   slots.c       exemplars of rows             probe.c       reads exposed exemplars back
 */
#ifndef CONNECTORS_SPANMETRICS_CONNECTOR_H
#define CONNECTORS_SPANMETRICS_CONNECTOR_H

#include "connectors/spanmetrics/accepted.h"
#include "connectors/spanmetrics/dimensions.h"
#include "connectors/spanmetrics/families.h"
#include "connectors/spanmetrics/gates.h"
#include "connectors/spanmetrics/globs.h"
#include "connectors/spanmetrics/probe.h"
#include "connectors/spanmetrics/resources.h"
#include "connectors/spanmetrics/series.h"
#include "net/loop.h"
#include "pipeline/component.h"
#include "wire/otlp_metrics.h"

enum metric_unit { UNIT_MS, UNIT_S };

struct spanmetrics_config {
	int names;       /* enum metric_names */
	int unit;        /* enum metric_unit */
	int temporality; /* enum metric_temporality */
	bool histogram_off;
	bool explicit_on, exponential_on;
	struct explicit_config {
		struct strlist buckets;
	} explicit_buckets;
	struct exponential_config {
		uint64_t max_size;
	} exponential;
	struct option_list dimensions, calls_dimensions, histogram_dimensions;
	struct option_list events_dimensions; /* all four of struct dimension_config */
	struct strlist exclude_dimensions, resource_key_attributes, scopes;
	const char *namespace;
	bool has_namespace, has_unit;
	bool exemplars_on, events_on, hosts_on, sampling_method_on;
	uint64_t exemplars_per_point; /* 0: one per bucket */
	struct probe_config probe;
	int64_t flush_interval_ns, metrics_expiration_ns, series_expiration_ns;
	uint64_t cardinality_limit;
	/* Made of the above by validate. */
	uint64_t bounds_ns[HISTOGRAM_MAX_BOUNDS];
	uint32_t n_bounds, n_globs;
};

struct spanmetrics_state {
	bool is_started;
	/* Exemplar processors before it: while there is one, only spans it tagged compete. */
	_Atomic int n_bound;
	struct accepted accepted;
	struct families families;
	struct dimension_plan plan;
	struct glob_set globs;
	bool has_own_duration;               /* the histogram's labels are not those of calls */
	double bounds[HISTOGRAM_MAX_BOUNDS]; /* in the unit */
	struct arena arena;                  /* of names */
	struct resource_table resources;
	struct series_table series;
	struct gates *gates;           /* NULL: no exemplars */
	_Atomic uint64_t n_skipped;    /* spans of resources without a service.name */
	_Atomic uint64_t n_unknown;    /* spans whose sampling probability nobody knows */
	_Atomic uint64_t n_overflowed; /* spans counted in an overflow row */
	struct flusher *flusher;
	struct probe *probe;
};

extern const struct option spanmetrics_options[];
void spanmetrics_validate(void *config, const struct conf_node *node, struct conf_errors *errs,
			  const char *path);

#endif
