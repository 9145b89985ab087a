/* SPDX-License-Identifier: Apache-2.0
 *
 * fuzz_config.c - any text as a configuration: parse, merge with a fixed one, expand, check, print,
 * and read back.
 *
 * The environment has a few variables that refer to each other; files are not read. What was
 * accepted and printed must be accepted again and print the same.
 */
#include "base/buf.h"
#include "pipeline/resolve/check.h"
#include "pipeline/registry.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct thing {
	bool grpc_on, flag;
	int64_t number, wait_ns;
	struct grpc_server_options grpc;
	struct grpc_client_options client;
	struct queue_options queue;
	struct option_list readers;
	const struct conf_node *any;
};

#define C struct thing
static const struct option options[] = {
	OPT_SECTION(C, "protocols.grpc", grpc_on, grpc, struct grpc_server_options,
		    grpc_server_option_table, "off", "."),
	OPT_TABLE(C, "client", client, struct grpc_client_options, grpc_client_option_table, "."),
	OPT_SECTION(C, "sending_queue", queue.enabled, queue, struct queue_options,
		    queue_option_table, "on", "."),
	OPT_LIST(C, "queues", readers, struct queue_options, queue_option_table, "."),
	OPT_BOOL(C, "flag", flag, "true", "."),
	OPT_INT(C, "number", number, "3", -10, 10, "."),
	OPT_DURATION(C, "wait", wait_ns, "3s", "."),
	OPT_NODE(C, "any", any, "x", "."),
	OPT_END
};
#undef C

static const struct component_type types[] = {
	{ .name = "otlp",
	  .kind = KIND_RECEIVER,
	  .signals = SIGNAL_TRACES,
	  .config_size = sizeof(struct thing),
	  .options = options },
	{ .name = "batch", .kind = KIND_PROCESSOR, .signals = SIGNAL_TRACES },
	{ .name = "debug",
	  .kind = KIND_EXPORTER,
	  .signals = SIGNAL_TRACES,
	  .config_size = sizeof(struct thing),
	  .options = options },
	{ .name = "forward", .kind = KIND_CONNECTOR, .signals = SIGNAL_TRACES },
	{ .name = "health_check", .kind = KIND_EXTENSION },
};

static void set_up(void)
{
	static const struct component_type *all[COUNT_OF(types)];

	for (size_t i = 0; i < COUNT_OF(types); i++)
		all[i] = &types[i];
	registry_init(all, COUNT_OF(types));
	setenv("A", "text", 1);
	setenv("B", "${A}${A}", 1);
	setenv("L", "[a, {b: ${C}}]", 1);
	setenv("C", "{c: ${L}, d: ${L}}", 1);
	setenv("S", "${S}$$", 1);
	setenv("N", "5", 1);
}

static struct service_config *load(const char *text, bool with_base)
{
	static const char base[] =
		"yaml:receivers: {otlp: {protocols: {grpc: }}}\nexporters: {debug: }\n"
		"service: {pipelines: {traces: {receivers: [otlp], exporters: [debug]}}}";
	const char *configs[] = { text, text };
	struct conf_errors errors = CONF_ERRORS_INIT;
	struct conf_request r = { configs, 1, NULL, 0, true };
	struct service_config *c;
	struct buf out = BUF_INIT;

	if (with_base) {
		configs[0] = base;
		r.n_configs = 2;
	}
	c = conf_check_load(&r, &errors);
	conf_error_print(&errors, &out);
	if ((c == NULL) != (errors.n_errors > 0))
		abort();
	buf_fini(&out);
	conf_error_fini(&errors);
	return c;
}

static void print(const struct service_config *c, struct buf *out)
{
	struct arena arena = ARENA_INIT;
	struct buf json = BUF_INIT;

	conf_tree_print_yaml(conf_check_print(c, &arena, false), out);
	conf_tree_print_json(conf_check_print(c, &arena, true), &json);
	buf_fini(&json);
	arena_fini(&arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct service_config *c, *again;
	struct buf text = BUF_INIT, first = BUF_INIT, second = BUF_INIT;

	if (registry_at(0) == NULL)
		set_up();
	buf_add_str(&text, "yaml:");
	buf_add(&text, data, strnlen((const char *)data, size));
	conf_check_free(load(buf_cstr(&text), false));
	c = load(buf_cstr(&text), true);
	if (c != NULL) {
		buf_add_str(&first, "yaml:");
		print(c, &first);
		again = load(buf_cstr(&first), false);
		if (again == NULL)
			abort();
		buf_add_str(&second, "yaml:");
		print(again, &second);
		if (strcmp(buf_cstr(&first), buf_cstr(&second)) != 0)
			abort();
		conf_check_free(again);
	}
	conf_check_free(c);
	buf_fini(&text);
	buf_fini(&first);
	buf_fini(&second);
	return 0;
}
