/* SPDX-License-Identifier: Apache-2.0
 *
 * cmd_config.c - the flags that say which configuration, and loading it. Contract in cmd.h.
 */
#include "cmd/cmd.h"

#include "base/mem.h"

#include <stdio.h>

void cmd_config_init(struct cmd_config *c, int argc)
{
	size_t n = (size_t)MAX(argc, 1);

	*c = (struct cmd_config){ .configs = xcalloc(n, sizeof(char *)),
				  .sets = xcalloc(n, sizeof(char *)) };
	c->request.configs = c->configs;
	c->request.sets = c->sets;
}

void cmd_config_fini(struct cmd_config *c)
{
	free(c->configs);
	free(c->sets);
	*c = (struct cmd_config){ .configs = NULL };
}

int cmd_flag_take(const char *flag, int argc, char **argv, int *i, const char **value)
{
	size_t n = strlen(flag);
	const char *arg = argv[*i];

	if (strncmp(arg, flag, n) != 0 || (arg[n] != '\0' && arg[n] != '='))
		return 0;
	if (arg[n] == '=') {
		*value = arg + n + 1;
		return 1;
	}
	if (*i + 1 >= argc) {
		fprintf(stderr, "spanmill: %s: needs a value\n", flag);
		return -1;
	}
	*value = argv[++*i];
	return 1;
}

int cmd_config_take(struct cmd_config *c, int argc, char **argv, int *i)
{
	const char *value = NULL;
	int got = cmd_flag_take("--config", argc, argv, i, &value);

	if (got > 0)
		c->configs[c->request.n_configs++] = value;
	if (got != 0)
		return got;
	got = cmd_flag_take("--set", argc, argv, i, &value);
	if (got > 0)
		c->sets[c->request.n_sets++] = value;
	if (got != 0)
		return got;
	got = cmd_flag_take("--feature-gates", argc, argv, i, &value);
	if (got > 0)
		fprintf(stderr,
			"warning: --feature-gates: %s: Spanmill has no feature gates; ignored\n",
			value);
	return got;
}

struct service_config *cmd_config_load(const struct cmd_config *c)
{
	struct conf_errors errors = CONF_ERRORS_INIT;
	struct service_config *config = conf_check_load(&c->request, &errors);
	struct buf text = BUF_INIT;

	conf_error_print(&errors, &text);
	fputs(buf_cstr(&text), stderr);
	buf_fini(&text);
	conf_error_fini(&errors);
	return config;
}

int cmd_usage(const char *name, const char *arg, const char *usage)
{
	fprintf(stderr, "spanmill %s: unknown argument \"%s\": usage: spanmill %s %s\n", name, arg,
		name, usage);
	return 1;
}
