/* SPDX-License-Identifier: Apache-2.0
 *
 * test_component_options.c - over every compiled-in type: its table is documented, its defaults are
 * legal values of its own rows, and what print-config prints of them parses to the same.
 */
#include "base/arena.h"
#include "cmd/all_components.h"
#include "pipeline/conf/tree.h"
#include "pipeline/registry.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

static void rows_have_help(const struct component_type *t, const struct option *rows)
{
	for (const struct option *o = rows; o != NULL && o->kind != OPTION_END; o++) {
		if (o->kind == OPTION_DEFAULT || o->kind == OPTION_REQUIRE ||
		    o->kind == OPTION_PRESENT)
			continue;
		if (o->kind != OPTION_INCLUDE && (o->help == NULL || o->help[0] == '\0'))
			fail_msg("%s %s: %s has no help", registry_kind_name(t->kind), t->name,
				 o->key);
		rows_have_help(t, o->table);
	}
}

static void every_type_says_what_it_is(void **state)
{
	const struct component_type *t;

	(void)state;
	for (size_t i = 0; (t = registry_at(i)) != NULL; i++) {
		if (t->summary == NULL || t->summary[0] == '\0')
			fail_msg("%s %s has no summary", registry_kind_name(t->kind), t->name);
		if (t->kind != KIND_EXTENSION && t->signals == 0)
			fail_msg("%s %s has no signals", registry_kind_name(t->kind), t->name);
		rows_have_help(t, t->options);
	}
}

static void round_trip(const struct component_type *t)
{
	struct conf_errors errors = CONF_ERRORS_INIT;
	struct arena arena = ARENA_INIT;
	struct conf_build b = { .arena = &arena, .errors = &errors };
	struct buf first = BUF_INIT, second = BUF_INIT;
	void *config = arena_zalloc(&arena, t->config_size);
	struct conf_node *root = NULL;

	option_defaults(t->options, config, &arena);
	conf_tree_print_yaml(option_print(t->options, config, &arena, false), &first);
	assert_int_equal(conf_tree_parse(&b, bytes_str(buf_cstr(&first)),
					 conf_tree_source(&b, t->name), &root),
			 0);
	config = arena_zalloc(&arena, t->config_size);
	option_parse(t->options, root, config, &arena, &errors, t->name);
	conf_tree_print_yaml(option_print(t->options, config, &arena, false), &second);
	assert_string_equal(buf_cstr(&first), buf_cstr(&second));
	/* Required keys are missing by design; else a default is one its own row refuses. */
	buf_reset(&second);
	conf_error_print(&errors, &second);
	if (errors.n_errors > 0 && strstr(buf_cstr(&second), "requires a non-empty") == NULL)
		fail_msg("%s", buf_cstr(&second));
	buf_fini(&first);
	buf_fini(&second);
	conf_error_fini(&errors);
	arena_fini(&arena);
}

static void defaults_print_and_parse_to_the_same(void **state)
{
	const struct component_type *t;

	(void)state;
	for (size_t i = 0; (t = registry_at(i)) != NULL; i++) {
		if (t->options != NULL)
			round_trip(t);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_type_says_what_it_is),
		cmocka_unit_test(defaults_print_and_parse_to_the_same),
	};

	all_components_register();
	return cmocka_run_group_tests_name("component_options", tests, NULL, NULL);
}
