/* SPDX-License-Identifier: Apache-2.0
 *
 * attributes.c - processor that changes attributes of spans: the Collector's attributes.
 *
 * A span that no action changes stays the bytes it was; of one that is changed only the new
 * attributes are new bytes. THREADS: stateless but for what start compiled. SPEC: the Collector's
 * attributes processor.
 */
#include "base/mem.h"
#include "pipeline/edit/attribute_actions.h"
#include "pipeline/component.h"
#include "pipeline/edit/span_match.h"

enum { SPAN_ATTRIBUTES = 9 };

struct attributes_config {
	struct option_list actions;
	struct span_match_sides match;
};

struct attributes_state {
	struct attribute_actions *actions;
	struct span_match *match;
};

#define C struct attributes_config
static const struct option attributes_options[] = {
	OPT_LIST(C, "actions", actions, struct attribute_action_options, attribute_action_table,
		 "What to do, in this order."),
	OPT_INCLUDE(C, match, struct span_match_sides, span_match_sides_table), OPT_END
};
#undef C

static void attributes_validate(void *config, const struct conf_node *node,
				struct conf_errors *errs, const char *path)
{
	const struct attributes_config *c = config;

	attribute_actions_check(&c->actions, node, errs, path, "actions");
	span_match_check(&c->match, node, errs, path);
}

static int attributes_start(struct component *c, struct err *err)
{
	const struct attributes_config *conf = COMPONENT_CONFIG(c, struct attributes_config);
	struct attributes_state *st = COMPONENT_STATE(c, struct attributes_state);

	st->actions = attribute_actions_new(&conf->actions, err);
	st->match = span_match_new(&conf->match, err);
	return st->actions != NULL && st->match != NULL ? 0 : -1;
}

static void edit_span(const struct attributes_state *st, struct batch *b, uint32_t i,
		      struct attr_edit *e)
{
	const struct span_ref *sp = &b->tables.spans[i];
	const struct bytes whole = { sp->p, sp->len };
	const struct bytes *fields;
	size_t n;

	arena_reset(e->scratch);
	attr_edit_start(e, sp->pieces ? sp->pieces : &whole, sp->pieces ? sp->n_pieces : 1);
	attribute_actions_apply(st->actions, e);
	if (!e->changed)
		return;
	fields = attr_edit_fields(e, &n);
	batch_set_span(b, i, fields, n);
}

static void attributes_consume(struct component *c, struct batch *b)
{
	struct attributes_state *st = COMPONENT_STATE(c, struct attributes_state);
	struct arena scratch = ARENA_INIT;
	struct span_match_run run;
	struct attr_edit edit;

	b = batch_editable(b);
	attr_edit_init(&edit, SPAN_ATTRIBUTES, &scratch, &b->arena);
	span_match_begin(&run, st->match, b);
	for (uint32_t i = 0; i < b->tables.n_spans; i++)
		if (span_match_span(&run, i))
			edit_span(st, b, i, &edit);
	span_match_end(&run);
	attr_edit_fini(&edit);
	arena_fini(&scratch);
	component_emit(c, b);
}

static void attributes_shutdown(struct component *c)
{
	struct attributes_state *st = COMPONENT_STATE(c, struct attributes_state);

	attribute_actions_free(st->actions);
	span_match_free(st->match);
	*st = (struct attributes_state){ NULL, NULL };
}

const struct component_type processor_attributes = {
	.name = "attributes",
	.kind = KIND_PROCESSOR,
	.summary = "Adds, changes and removes attributes of spans.",
	.stability = STABILITY_ALPHA,
	.signals = SIGNAL_TRACES,
	.may_overlap = component_overlaps,
	.config_size = sizeof(struct attributes_config),
	.state_size = sizeof(struct attributes_state),
	.options = attributes_options,
	.validate = attributes_validate,
	.start = attributes_start,
	.consume = attributes_consume,
	.shutdown = attributes_shutdown,
};
