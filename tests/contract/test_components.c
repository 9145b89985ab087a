/* SPDX-License-Identifier: Apache-2.0
 *
 * test_components.c - over every compiled-in type: names are YAML keys of their own, defaults pass
 * their own validation or say which key they miss, and shutdown is safe without a start, and again.
 * Tables and help: test_component_options.c.
 */
#include "base/arena.h"
#include "base/mem.h"
#include "cmd/all_components.h"
#include "pipeline/conf_check.h"
#include "pipeline/registry.h"
#include "pipeline/service.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

static void names_are_keys_and_unique(void **state)
{
	const struct component_type *t;

	(void)state;
	for (size_t i = 0; (t = registry_at(i)) != NULL; i++) {
		if (t->name[strspn(t->name, "abcdefghijklmnopqrstuvwxyz0123456789_")] != '\0')
			fail_msg("%s: not lower_snake_case", t->name);
		if (registry_find(t->kind, bytes_str(t->name)) != t)
			fail_msg("%s %s is there twice", registry_kind_name(t->kind), t->name);
		if (t->alias != NULL && registry_find(t->kind, bytes_str(t->alias)) != t)
			fail_msg("%s: alias %s is another's name", t->name, t->alias);
	}
}

/* What the service calls is there. */
static void callbacks_fit_the_kind(void **state)
{
	const struct component_type *t;

	(void)state;
	for (size_t i = 0; (t = registry_at(i)) != NULL; i++) {
		bool consumes = t->kind != KIND_RECEIVER && t->kind != KIND_EXTENSION;

		if (consumes != (t->consume != NULL))
			fail_msg("%s %s: consume %s", registry_kind_name(t->kind), t->name,
				 consumes ? "is missing" : "has no caller");
		if (t->kind == KIND_RECEIVER && (t->start == NULL || t->drain == NULL))
			fail_msg("receiver %s cannot start or stop taking data", t->name);
		if (t->start != NULL && t->state_size > 0 && t->shutdown == NULL &&
		    t->kind != KIND_PROCESSOR)
			fail_msg("%s %s is never freed", registry_kind_name(t->kind), t->name);
	}
}

/* Each complaint about the defaults must name a key below the component. */
static void check_defaults(const struct component_type *t)
{
	struct conf_errors errors = CONF_ERRORS_INIT;
	struct arena arena = ARENA_INIT;
	struct buf text = BUF_INIT, path = BUF_INIT;
	void *config = arena_zalloc(&arena, MAX(t->config_size, (size_t)1));

	if (t->options != NULL)
		option_defaults(t->options, config, &arena);
	buf_printf(&path, "%s.%s", registry_section_name(t->kind), t->name);
	if (t->validate != NULL)
		t->validate(config, NULL, &errors, buf_cstr(&path));
	conf_error_print(&errors, &text);
	if (errors.n_errors > 0 && strstr(buf_cstr(&text), buf_cstr(&path)) == NULL)
		fail_msg("%s %s: %s", registry_kind_name(t->kind), t->name, buf_cstr(&text));
	buf_fini(&path);
	buf_fini(&text);
	conf_error_fini(&errors);
	arena_fini(&arena);
}

static void defaults_are_validated(void **state)
{
	const struct component_type *t;

	(void)state;
	for (size_t i = 0; (t = registry_at(i)) != NULL; i++)
		check_defaults(t);
}

static void shut_down_unstarted(const struct component_type *t)
{
	struct arena arena = ARENA_INIT;
	void *config = arena_zalloc(&arena, MAX(t->config_size, (size_t)1));
	struct component_counters count = { 0 };
	struct receiver_options receiver = { .tenant = "single-tenant" };
	struct component c = { .type = t,
			       .id = t->name,
			       .config = config,
			       .state = xcalloc(1, MAX(t->state_size, (size_t)1)),
			       .receiver = &receiver,
			       .count = &count };

	if (t->options != NULL)
		option_defaults(t->options, config, &arena);
	for (int i = 0; i < 2 && t->shutdown != NULL; i++)
		t->shutdown(&c);
	free(c.state);
	arena_fini(&arena);
}

static void shutdown_without_start_twice(void **state)
{
	const struct component_type *t;

	(void)state;
	for (size_t i = 0; (t = registry_at(i)) != NULL; i++)
		shut_down_unstarted(t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(names_are_keys_and_unique),
		cmocka_unit_test(callbacks_fit_the_kind),
		cmocka_unit_test(defaults_are_validated),
		cmocka_unit_test(shutdown_without_start_twice),
	};

	all_components_register();
	return cmocka_run_group_tests_name("components", tests, NULL, NULL);
}
