/* SPDX-License-Identifier: Apache-2.0
 *
 * print_config.c - `spanmill print-config`: the effective configuration, secrets redacted. Contract
 * in cmd.h.
 */
#include "cmd/cmd.h"

#include <stdio.h>

static const char *const formats[] = { "yaml", "json", NULL };
static const char *const modes[] = { "redacted", "unredacted", NULL };
enum { FORMAT_YAML, FORMAT_JSON };
enum { MODE_REDACTED, MODE_UNREDACTED };

static void print_tree(const struct conf_node *tree, int format, struct buf *out)
{
	if (format == FORMAT_JSON)
		conf_tree_print_json(tree, out);
	else
		conf_tree_print_yaml(tree, out);
}

/* The checked configuration with its defaults; 0, or 1 with the errors on stderr. */
static int print_checked(const struct cmd_config *args, int format, int mode, struct buf *out)
{
	struct service_config *config = cmd_config_load(args);
	struct arena arena = ARENA_INIT;

	if (config == NULL)
		return 1;
	print_tree(conf_check_print(config, &arena, mode == MODE_REDACTED), format, out);
	arena_fini(&arena);
	conf_check_free(config);
	return 0;
}

/* --validate=false: what the sources give, merged and expanded, whatever a check would say. Only
 * for mode unredacted: no table tells which values are secrets. */
static int print_merged(const struct cmd_config *args, int format, struct buf *out)
{
	struct conf_request request = cmd_config_request(args);
	struct conf_errors errors = CONF_ERRORS_INIT;
	struct arena arena = ARENA_INIT;
	const struct conf_node *root = conf_load(&request, &arena, &errors);
	int ret = errors.n_errors > 0 || root == NULL;

	cmd_config_print_errors(&errors);
	if (ret == 0)
		print_tree(root, format, out);
	arena_fini(&arena);
	return ret;
}

int cmd_print_config(int argc, char **argv)
{
	struct cmd_config args;
	int format = FORMAT_YAML, mode = MODE_REDACTED, ret;
	bool validate = true;
	const struct flag flags[] = {
		CMD_CONFIG_FLAGS(&args),
		FLAG_CHOICE("--format", &format, formats, "NAME", "yaml or json (yaml)"),
		FLAG_CHOICE("--mode", &mode, modes, "NAME",
			    "redacted or unredacted: what becomes of secrets (redacted)"),
		FLAG_BOOL("--validate", &validate,
			  "false: as merged, without defaults and checks; needs --mode unredacted"),
	};
	const struct flag_command command = {
		"print-config",
		CMD_CONFIG_USAGE " [--format yaml|json] [--mode redacted|unredacted]",
		"Prints the effective configuration: sources merged, ${...} expanded, defaults\n"
		"filled in. What it prints is a configuration that means the same.",
		flags, COUNT_OF(flags)
	};
	struct buf out = BUF_INIT;

	cmd_config_init(&args, argc);
	ret = cmd_config_parse(&command, &args, argc, argv);
	if (ret < 0 && !validate && mode == MODE_REDACTED)
		ret = flags_usage(&command, "--validate=false: needs --mode unredacted");
	else if (ret < 0)
		ret = validate ? print_checked(&args, format, mode, &out)
			       : print_merged(&args, format, &out);
	fputs(buf_cstr(&out), stdout);
	if (fflush(stdout) != 0)
		ret = 1;
	buf_fini(&out);
	cmd_config_fini(&args);
	return ret;
}
