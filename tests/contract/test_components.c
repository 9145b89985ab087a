/* SPDX-License-Identifier: Apache-2.0
 *
 * test_components.c - over every compiled-in type: names are YAML keys of their own, defaults pass
 * their own validation or say which key they miss, shutdown is safe without a start, and again, and
 * a reload may take each in and out while the process runs.
 * Tables and help: test_component_options.c.
 */
#include "base/arena.h"
#include "base/mem.h"
#include "cmd/all_components.h"
#include "pipeline/resolve/check.h"
#include "pipeline/registry.h"
#include "pipeline/service/service.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

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
		for (int g = 0; g < OTLP_SIGNALS; g++)
			if ((t->gives[g] != 0) !=
			    (t->kind == KIND_CONNECTOR && (t->signals & 1u << g) != 0))
				fail_msg("%s %s: what does it give of signal %d?",
					 registry_kind_name(t->kind), t->name, g);
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

/* ---- in and out, twice ---- */

/* What a type needs to start, with DIR a folder of the test's own; the others start as they are. */
static const struct {
	enum component_kind kind;
	const char *name, *yaml, *extensions; /* beside it */
} starts[] = {
	{ KIND_RECEIVER, "otlp",
	  "{protocols: {grpc: {endpoint: \"127.0.0.1:0\"}, http: {endpoint: \"127.0.0.1:0\"}}}",
	  "" },
	{ KIND_RECEIVER, "zipkin", "{endpoint: \"127.0.0.1:0\"}", "" },
	{ KIND_RECEIVER, "jaeger",
	  "{protocols: {grpc: {endpoint: \"127.0.0.1:0\"}, thrift_http: {endpoint: "
	  "\"127.0.0.1:0\"}, thrift_compact: {endpoint: \"127.0.0.1:0\"}}}",
	  "" },
	{ KIND_RECEIVER, "kafka", "{brokers: [\"127.0.0.1:1\"]}", "" },
	{ KIND_RECEIVER, "otlp_json_file", "{include: [DIR/in]}", "" },
	{ KIND_PROCESSOR, "memory_limiter", "{check_interval: 1s, limit_mib: 100}", "" },
	{ KIND_PROCESSOR, "attributes", "{actions: [{key: a, action: delete}]}", "" },
	{ KIND_PROCESSOR, "resource", "{attributes: [{key: a, action: delete}]}", "" },
	{ KIND_PROCESSOR, "filter", "{traces: {span: ['name == \"x\"']}}", "" },
	{ KIND_EXPORTER, "otlp",
	  "{endpoint: \"127.0.0.1:1\", tls: {insecure: true}, sending_queue: {storage: "
	  "file_storage}}",
	  "file_storage: {directory: DIR}" },
	{ KIND_EXPORTER, "otlp_http",
	  "{endpoint: \"http://127.0.0.1:1\", sending_queue: {storage: file_storage}}",
	  "file_storage: {directory: DIR}" },
	{ KIND_EXPORTER, "zipkin", "{endpoint: \"http://127.0.0.1:1/api/v2/spans\"}", "" },
	{ KIND_EXPORTER, "prometheusremotewrite",
	  "{endpoint: \"http://127.0.0.1:1/api/v1/write\", sending_queue: {storage: file_storage}}",
	  "file_storage: {directory: DIR}" },
	{ KIND_EXPORTER, "kafka", "{brokers: [\"127.0.0.1:1\"]}", "" },
	{ KIND_EXPORTER, "file", "{path: DIR/out}", "" },
	{ KIND_EXPORTER, "prometheus", "{endpoint: \"127.0.0.1:0\"}", "" },
	{ KIND_EXPORTER, "blocks", "", "trace_store: {local: {path: DIR}}" },
	{ KIND_EXTENSION, "trace_store", "{local: {path: DIR}}", "" },
	{ KIND_EXTENSION, "query", "{endpoint: \"127.0.0.1:0\"}",
	  "trace_store: {local: {path: DIR}}" },
	{ KIND_EXTENSION, "compactor", "", "trace_store: {local: {path: DIR}}" },
	{ KIND_EXTENSION, "health_check", "{endpoint: \"127.0.0.1:0\"}", "" },
	{ KIND_EXTENSION, "file_storage", "{directory: DIR}", "" },
	{ KIND_EXTENSION, "basicauth", "{client_auth: {username: a, password: b}}", "" },
	{ KIND_EXTENSION, "bearertokenauth", "{token: a}", "" },
};

static char dir[] = "/tmp/spanmill-contract-XXXXXX";

/* Text with DIR filled in. */
static void add_text(struct buf *out, const char *text)
{
	for (const char *at; (at = strstr(text, "DIR")) != NULL; text = at + 3) {
		buf_add(out, text, (size_t)(at - text));
		buf_add_str(out, dir);
	}
	buf_add_str(out, text);
}

/* What a connector makes of traces. */
static const char *signal_given(const struct component_type *t)
{
	unsigned gives = t->gives[OTLP_TRACES];

	return gives & SIGNAL_TRACES ? "traces" : gives & SIGNAL_METRICS ? "metrics" : "logs";
}

/* An exporter that does not take traces stands in a pipeline of its own. */
static bool is_of_metrics(const struct component_type *t)
{
	return t->kind == KIND_EXPORTER && !(t->signals & SIGNAL_TRACES);
}

/* A pipeline from a receiver that listens nowhere fixed to nop, with or without the type. */
static struct service_config *configuration(const struct component_type *t, size_t row, bool with)
{
	const char *own = row < COUNT_OF(starts) ? starts[row].yaml : "";
	const char *beside = row < COUNT_OF(starts) ? starts[row].extensions : "";
	const char *parts[KIND_MAX] = { "zipkin/0", "", "nop/0", "", "" };
	struct conf_errors errors = CONF_ERRORS_INIT;
	struct buf yaml = BUF_INIT, text = BUF_INIT;
	struct arena arena = ARENA_INIT;
	struct service_config *c;
	const char *configs[1], *fed = "";

	buf_add_str(&yaml, "yaml:");
	for (int k = 0; k < KIND_MAX; k++) {
		bool here = with && t->kind == (enum component_kind)k;

		if (k == KIND_CONNECTOR && !here)
			continue;
		buf_printf(&yaml, "%s:\n", registry_section_name((enum component_kind)k));
		if (k == KIND_RECEIVER)
			buf_add_str(&yaml, "  zipkin/0: {endpoint: \"127.0.0.1:0\"}\n");
		if (k == KIND_RECEIVER && with && is_of_metrics(t))
			buf_add_str(&yaml, "  otlp/0: {protocols: {http: {endpoint: "
					   "\"127.0.0.1:0\"}}}\n");
		if (k == KIND_EXPORTER)
			buf_add_str(&yaml, "  nop/0:\n");
		if (k == KIND_EXTENSION && with && beside[0] != '\0') {
			buf_add_str(&yaml, "  ");
			add_text(&yaml, beside);
			buf_add_char(&yaml, '\n');
		}
		if (here) {
			buf_printf(&yaml, "  %s: ", t->name);
			add_text(&yaml, own);
			buf_add_char(&yaml, '\n');
			if (is_of_metrics(t)) {
				fed = arena_printf(&arena,
						   ", metrics: {receivers: [otlp/0], exporters: "
						   "[%s]}",
						   t->name);
				continue;
			}
			parts[k] = k == KIND_RECEIVER
					   ? arena_printf(&arena, "zipkin/0, %s", t->name)
				   : k == KIND_EXPORTER ? arena_printf(&arena, "nop/0, %s", t->name)
							: t->name;
			if (k == KIND_CONNECTOR) {
				parts[KIND_EXPORTER] = arena_printf(&arena, "nop/0, %s", t->name);
				fed = arena_printf(
					&arena, ", %s/fed: {receivers: [%s], exporters: [nop/0]}",
					signal_given(t), t->name);
			}
		}
	}
	if (with && beside[0] != '\0')
		parts[KIND_EXTENSION] = arena_printf(&arena, "%.*s%s%s", (int)strcspn(beside, ":"),
						     beside, t->kind == KIND_EXTENSION ? ", " : "",
						     t->kind == KIND_EXTENSION ? t->name : "");
	buf_printf(&yaml,
		   "service: {drain_timeout: 1s, telemetry: {metrics: {level: none}, logs: {level: "
		   "error}}, extensions: [%s], pipelines: {traces: {receivers: [%s], processors: "
		   "[%s], exporters: [%s]}%s}}\n",
		   parts[KIND_EXTENSION], parts[KIND_RECEIVER], parts[KIND_PROCESSOR],
		   parts[KIND_EXPORTER], fed);
	configs[0] = buf_cstr(&yaml);
	c = conf_check_load(&(struct conf_request){ configs, 1, NULL, 0, false }, &errors);
	conf_error_print(&errors, &text);
	if (c == NULL)
		fail_msg("%s %s: what does it need to start? add a row to `starts`:\n%s%s",
			 registry_kind_name(t->kind), t->name, buf_cstr(&text), buf_cstr(&yaml));
	conf_error_fini(&errors);
	arena_fini(&arena);
	buf_fini(&yaml);
	buf_fini(&text);
	return c;
}

static void in_and_out(const struct component_type *t)
{
	struct err err = ERR_INIT;
	struct service_config *first;
	struct service *s;
	size_t row = 0;

	while (row < COUNT_OF(starts) &&
	       (starts[row].kind != t->kind || strcmp(starts[row].name, t->name) != 0))
		row++;
	first = configuration(t, row, false);
	s = service_new(first, &err);
	if (s == NULL || service_start(s, &err) < 0)
		fail_msg("%s", err.msg);
	for (int i = 0; i < 4; i++)
		if (service_reload(s, configuration(t, row, i % 2 == 0), &err) < 0)
			fail_msg("%s %s, the %d. time: %s", registry_kind_name(t->kind), t->name,
				 i / 2 + 1, err.msg);
	service_stop(s);
	service_free(s);
	conf_check_free(first);
}

static void remove_dir(void)
{
	char command[64];

	snprintf(command, sizeof(command), "rm -rf '%s'", dir);
	assert_int_equal(system(command), 0);
}

/* A type that comes and goes leaves nothing behind that keeps the next instance from starting. */
static void reloads_take_it_in_and_out(void **state)
{
	const struct component_type *t;

	(void)state;
	assert_non_null(mkdtemp(dir));
	for (size_t i = 0; (t = registry_at(i)) != NULL; i++) {
#ifdef __SANITIZE_THREAD__
		/* librdkafka's threads are C11's, which gcc's TSan does not know: it crashes. */
		if (strcmp(t->name, "kafka") == 0)
			continue;
#endif
		in_and_out(t);
	}
	remove_dir();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(names_are_keys_and_unique),
		cmocka_unit_test(callbacks_fit_the_kind),
		cmocka_unit_test(defaults_are_validated),
		cmocka_unit_test(shutdown_without_start_twice),
		cmocka_unit_test(reloads_take_it_in_and_out),
	};

	all_components_register();
	return cmocka_run_group_tests_name("components", tests, NULL, NULL);
}
