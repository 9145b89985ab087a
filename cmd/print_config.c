/* SPDX-License-Identifier: Apache-2.0
 *
 * print_config.c - `spanmill print-config`: the effective configuration, secrets redacted. Contract
 * in cmd.h.
 */
#include "cmd/cmd.h"

#include "base/str.h"

#include <stdio.h>

#define USAGE                                                                                      \
	"--config SOURCE [--set a.b.c=value] [--format yaml|json] [--mode redacted|unredacted]"

struct print_args {
	struct cmd_config config;
	const char *format, *mode;
};

static int parse(struct print_args *a, int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		int got = cmd_config_take(&a->config, argc, argv, &i);

		if (got == 0)
			got = cmd_flag_take("--format", argc, argv, &i, &a->format);
		if (got == 0)
			got = cmd_flag_take("--mode", argc, argv, &i, &a->mode);
		if (got == 0)
			cmd_usage("print-config", argv[i], USAGE);
		if (got <= 0)
			return -1;
	}
	if (strcmp(a->format, "yaml") != 0 && strcmp(a->format, "json") != 0) {
		cmd_usage("print-config", a->format, USAGE);
		return -1;
	}
	if (strcmp(a->mode, "redacted") != 0 && strcmp(a->mode, "unredacted") != 0) {
		cmd_usage("print-config", a->mode, USAGE);
		return -1;
	}
	return 0;
}

int cmd_print_config(int argc, char **argv)
{
	struct print_args a = { .format = "yaml", .mode = "redacted" };
	struct service_config *config = NULL;
	struct arena arena = ARENA_INIT;
	struct buf out = BUF_INIT;
	struct conf_node *tree;
	int ret = 1;

	cmd_config_init(&a.config, argc);
	if (parse(&a, argc, argv) < 0)
		goto out;
	config = cmd_config_load(&a.config);
	if (config == NULL)
		goto out;
	tree = conf_check_print(config, &arena, strcmp(a.mode, "redacted") == 0);
	if (strcmp(a.format, "json") == 0)
		conf_tree_print_json(tree, &out);
	else
		conf_tree_print_yaml(tree, &out);
	fputs(buf_cstr(&out), stdout);
	ret = fflush(stdout) != 0;
out:
	buf_fini(&out);
	arena_fini(&arena);
	conf_check_free(config);
	cmd_config_fini(&a.config);
	return ret;
}
