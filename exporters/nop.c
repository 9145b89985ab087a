/* SPDX-License-Identifier: Apache-2.0
 *
 * nop.c - exporter that takes every span and does nothing with it, as the Collector's does: for
 * measuring what comes before it.
 */
#include "pipeline/component.h"
#include "pipeline/telemetry.h"

struct nop_config {
	bool unused;
};

static const struct option nop_options[] = { OPT_END };

static void nop_consume(struct component *c, struct batch *b)
{
	atomic_fetch_add_explicit(&c->count->sent, batch_n_items(b), memory_order_relaxed);
	batch_settle(b, VERDICT_ASIDE, DROP_REASON_MAX, NULL); /* nobody finds it there */
	batch_unref(b);
}

const struct component_type exporter_nop = {
	.name = "nop",
	.kind = KIND_EXPORTER,
	.summary = "Takes every span and does nothing with it.",
	.stability = STABILITY_BETA,
	.signals = SIGNAL_ALL,
	.config_size = sizeof(struct nop_config),
	.options = nop_options,
	.may_overlap = component_overlaps,
	.consume = nop_consume,
};
