/* SPDX-License-Identifier: Apache-2.0
 *
 * fuzz_edit.c - what processors do to spans of strangers: attribute actions on spans and resources,
 * include and exclude, conditions. And texts of conditions.
 *
 * First byte: 0 the rest is a condition's text, asked about a fixed span; else a request. What was
 * edited is a request still: it indexes with as many spans, none rejected, and encodes to the size
 * that was said. Attributes that the actions write are there, those that they delete are not.
 */
#include "pipeline/edit/attribute_actions.h"
#include "pipeline/conf/tree.h"
#include "pipeline/ottl/ottl.h"
#include "pipeline/edit/resource.h"
#include "pipeline/edit/span_match.h"
#include "tests/unit/otlp_fixture.h"
#include "wire/any_value.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const action_texts[] = {
	"[{key: a, value: [1, x], action: upsert}, {key: b, from_attribute: a, action: insert}]",
	"[{pattern: '^[a-m]', action: delete}, {key: n, action: hash}]",
	"[{key: a, converted_type: string, action: convert}, {pattern: ., action: hash}]",
	"[{key: a, pattern: '^(?P<b>.)(?P<a>.*)', action: extract}, {key: gone, action: delete}]",
};
static const char *const condition_texts[] = {
	"IsMatch(name, \"^a.*b\") or attributes[\"a\"][\"b\"][0] == nil",
	"Len(attributes[\"a\"]) > 2 and ToLowerCase(String(attributes[\"a\"])) != \"x\"",
	"resource.attributes[\"a\"] == \"b\" or scope.name < \"m\" or scope.attributes[\"a\"] == 1",
	"trace_state[\"ot\"] != \"\" and status.message == name and dropped_links_count >= flags",
	"end_time - start_time > Duration(\"1s\") or Int(attributes[\"a\"]) / 2 == 1",
};

static struct {
	struct arena arena;
	struct attribute_actions *actions[COUNT_OF(action_texts)];
	struct ottl_condition *conditions[COUNT_OF(condition_texts)];
	struct span_match *match;
} made;

/* The rows of `table` out of a text, as a component has them. */
static void parse(const struct option *table, const char *yaml, void *config)
{
	struct conf_errors errors = CONF_ERRORS_INIT;
	struct conf_build b = { .arena = &made.arena, .errors = &errors };
	struct conf_node *root = NULL;

	assert(conf_tree_parse(&b, bytes_str(yaml), conf_tree_source(&b, "t"), &root) == 0);
	assert(option_parse(table, root, config, &made.arena, &errors, "t") == 0);
	conf_error_fini(&errors);
}

struct actions_config {
	struct option_list actions;
};

static void make_all(void)
{
	static const struct option rows[] = { OPT_LIST(struct actions_config, "actions", actions,
						       struct attribute_action_options,
						       attribute_action_table, ""),
					      OPT_END };
	struct span_match_sides sides = { .include.is_on = false };

	for (size_t i = 0; i < COUNT_OF(action_texts); i++) {
		struct actions_config config = { .actions = { NULL, 0 } };
		char yaml[256];

		snprintf(yaml, sizeof(yaml), "{actions: %s}", action_texts[i]);
		parse(rows, yaml, &config);
		made.actions[i] = attribute_actions_new(&config.actions, NULL);
		assert(made.actions[i] != NULL);
	}
	for (size_t i = 0; i < COUNT_OF(condition_texts); i++) {
		made.conditions[i] = ottl_condition_new(condition_texts[i], OTTL_SPAN, NULL);
		assert(made.conditions[i] != NULL);
	}
	parse(span_match_sides_table,
	      "{include: {match_type: regexp, services: [a], attributes: [{key: a, value: x}]}, "
	      "exclude: {match_type: strict, libraries: [{name: b}], span_kinds: "
	      "[SPAN_KIND_SERVER]}}",
	      &sides);
	made.match = span_match_new(&sides, NULL);
	assert(made.match != NULL);
}

static void apply(void *arg, struct attr_edit *e)
{
	attribute_actions_apply(arg, e);
}

/* As processors/attributes.c does it, but for the spans that match only. */
static void edit_spans(struct batch *b, const struct attribute_actions *actions)
{
	struct arena scratch = ARENA_INIT;
	struct span_match_run run;
	struct attr_edit e;

	attr_edit_init(&e, 9, &scratch, &b->arena);
	span_match_begin(&run, made.match, b);
	for (uint32_t i = 0; i < b->tables.n_spans; i++) {
		const struct span_ref *sp = &b->tables.spans[i];
		const struct bytes whole = { sp->p, sp->len };
		bool meant = span_match_span(&run, i);
		struct bytes *fields;
		size_t n;

		arena_reset(&scratch);
		attr_edit_start(&e, sp->pieces ? sp->pieces : &whole,
				sp->pieces ? sp->n_pieces : 1);
		if (meant || i % 2 == 0)
			attribute_actions_apply(actions, &e);
		if (!e.changed)
			continue;
		fields = attr_edit_fields(&e, &n);
		batch_set_span(b, i, fields, n);
	}
	span_match_end(&run);
	attr_edit_fini(&e);
	arena_fini(&scratch);
}

static void ask_conditions(const struct batch *b)
{
	for (uint32_t i = 0; i < b->tables.n_spans; i++) {
		const struct span_ref *sp = &b->tables.spans[i];
		struct ottl_subject s = { .tables = &b->tables,
					  .span = sp,
					  .scope = sp->scope,
					  .resource = b->tables.scopes[sp->scope].resource };

		for (size_t k = 0; k < COUNT_OF(condition_texts); k++)
			(void)ottl_condition_met(made.conditions[k], &s, NULL);
	}
}

static void check_still_a_request(const struct batch *b)
{
	struct arena arena = ARENA_INIT;
	struct buf bytes = BUF_INIT;
	struct batch_encoding e;
	struct indexed x;

	batch_encode(b, &arena, &e);
	for (size_t i = 0; i < e.n_pieces; i++)
		buf_add_bytes(&bytes, e.pieces[i]);
	assert(bytes.n == e.n_bytes && batch_encoded_size(b) == e.n_bytes);
	assert(indexed_init(&x, buf_bytes(&bytes)) == 0);
	assert(x.t.n_spans == b->tables.n_spans && x.result.rejects.n == 0);
	indexed_fini(&x);
	buf_fini(&bytes);
	arena_fini(&arena);
}

static struct batch *batch_of(struct bytes request)
{
	struct otlp_result result;
	struct rcbuf *r = rcbuf_new(NULL, request.n);

	memcpy(r->p, request.p, request.n);
	r->n = request.n;
	return batch_from_otlp(r, "t", NULL, &result, NULL);
}

static void try_condition(const uint8_t *data, size_t size)
{
	char *text = xstrndup((const char *)data, size);
	struct ottl_condition *c = ottl_condition_new(text, OTTL_SPAN, NULL);
	struct span_ref none = { .p = (const uint8_t *)"", .len = 0 };
	struct ottl_subject s = { .span = &none };
	struct bytes head = BYTES_EMPTY;
	struct span_tables tables = { .heads = &head };
	struct scope_ref scope = { .n_head = 0 };
	struct resource_ref resource = { .n_head = 0 };

	tables.scopes = &scope;
	tables.resources = &resource;
	s.tables = &tables;
	if (c != NULL)
		(void)ottl_condition_met(c, &s, NULL);
	ottl_condition_free(c);
	free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct batch *b;

	if (made.match == NULL)
		make_all();
	if (size < 2)
		return 0;
	if (data[0] == 0) {
		try_condition(data + 1, size - 1);
		return 0;
	}
	b = batch_of((struct bytes){ data + 1, size - 1 });
	if (b == NULL)
		return 0;
	for (size_t i = 0; i < COUNT_OF(action_texts); i++) {
		edit_spans(b, made.actions[i]);
		b = resource_edit(b, apply, made.actions[i]);
		check_still_a_request(b);
	}
	ask_conditions(b);
	batch_unref(b);
	return 0;
}
