/* SPDX-License-Identifier: Apache-2.0
 *
 * resource.c - processor that changes attributes of resources: the Collector's resource.
 *
 * Works on the few resources of a batch, not on its spans, whose bytes stay as they were. THREADS:
 * stateless but for what start compiled. SPEC: the Collector's resource processor.
 */
#include "base/mem.h"
#include "pipeline/edit/attribute_actions.h"
#include "pipeline/component.h"
#include "pipeline/edit/resource.h"

struct resource_config {
	struct option_list actions;
};

struct resource_state {
	struct attribute_actions *actions;
};

#define C struct resource_config
static const struct option resource_options[] = {
	OPT_LIST(C, "attributes", actions, struct attribute_action_options, attribute_action_table,
		 "What to do, in this order."),
	OPT_END
};
#undef C

static void resource_validate(void *config, const struct conf_node *node, struct conf_errors *errs,
			      const char *path)
{
	const struct resource_config *c = config;

	attribute_actions_check(&c->actions, node, errs, path, "attributes");
}

static int resource_start(struct component *c, struct err *err)
{
	const struct resource_config *conf = COMPONENT_CONFIG(c, struct resource_config);
	struct resource_state *st = COMPONENT_STATE(c, struct resource_state);

	st->actions = attribute_actions_new(&conf->actions, err);
	return st->actions != NULL ? 0 : -1;
}

static void apply(void *arg, struct attr_edit *e)
{
	const struct resource_state *st = arg;

	attribute_actions_apply(st->actions, e);
}

static void resource_consume(struct component *c, struct batch *b)
{
	component_emit(c, resource_edit(b, apply, COMPONENT_STATE(c, struct resource_state)));
}

static void resource_shutdown(struct component *c)
{
	struct resource_state *st = COMPONENT_STATE(c, struct resource_state);

	attribute_actions_free(st->actions);
	st->actions = NULL;
}

const struct component_type processor_resource = {
	.name = "resource",
	.kind = KIND_PROCESSOR,
	.summary = "Adds, changes and removes attributes of resources.",
	.stability = STABILITY_ALPHA,
	.signals = SIGNAL_ALL,
	.may_overlap = component_overlaps,
	.config_size = sizeof(struct resource_config),
	.state_size = sizeof(struct resource_state),
	.options = resource_options,
	.validate = resource_validate,
	.start = resource_start,
	.consume = resource_consume,
	.shutdown = resource_shutdown,
};
