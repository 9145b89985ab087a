/* SPDX-License-Identifier: Apache-2.0
 *
 * forward.c - connector that leads from some pipelines to others of the same signal.
 *
 *   traces/in: [otlp] -> exemplar --+-> forward -> traces/kept: sampler -> kafka
 *   traces/b:  [kafka] -------------+
 *
 * DESIGN: the batch is handed on as it is. Who feeds it waits for the verdicts of what it feeds
 * (fan-in and fan-out are the service's, pipeline/fanout.c), so an acknowledgement means the same
 * as without it and the books do not know it. It holds nothing: a successor may start beside it.
 * SPEC: the Collector's forward connector, which has no keys either.
 */
#include "pipeline/component.h"

static void forward_consume(struct component *c, struct batch *b)
{
	component_emit(c, b);
}

const struct component_type connector_forward = {
	.name = "forward",
	.kind = KIND_CONNECTOR,
	.summary = "Leads from one pipeline to others of the same signal.",
	.stability = STABILITY_BETA,
	.signals = SIGNAL_ALL,
	.gives = { [OTLP_TRACES] = SIGNAL_TRACES,
		   [OTLP_METRICS] = SIGNAL_METRICS,
		   [OTLP_LOGS] = SIGNAL_LOGS },
	.may_overlap = component_overlaps,
	.consume = forward_consume,
};
