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

	*c = (struct cmd_config){ .configs = { xcalloc(n, sizeof(char *)), 0 },
				  .sets = { xcalloc(n, sizeof(char *)), 0 },
				  .gates = { xcalloc(n, sizeof(char *)), 0 } };
}

void cmd_config_fini(struct cmd_config *c)
{
	free(c->configs.items);
	free(c->sets.items);
	free(c->gates.items);
	*c = (struct cmd_config){ .configs = { NULL, 0 } };
}

int cmd_config_parse(const struct flag_command *command, const struct cmd_config *c, int argc,
		     char **argv)
{
	size_t n_words = 0;

	switch (flags_parse(command, argc, argv, NULL, 0, &n_words)) {
	case FLAG_HELP:
		return 0;
	case FLAG_BAD:
		return 1;
	case FLAG_RUN:
	default:
		break;
	}
	for (size_t i = 0; i < c->gates.n; i++)
		fprintf(stderr,
			"warning: --feature-gates: %s: Spanmill has no feature gates: ignored\n",
			c->gates.items[i]);
	return -1;
}

struct conf_request cmd_config_request(const struct cmd_config *c)
{
	return (struct conf_request){ .configs = c->configs.items,
				      .n_configs = c->configs.n,
				      .sets = c->sets.items,
				      .n_sets = c->sets.n };
}

void cmd_config_print_errors(struct conf_errors *errors)
{
	struct buf text = BUF_INIT;

	conf_error_print(errors, &text);
	fputs(buf_cstr(&text), stderr);
	buf_fini(&text);
	conf_error_fini(errors);
}

struct service_config *cmd_config_load(const struct cmd_config *c)
{
	struct conf_request request = cmd_config_request(c);
	struct conf_errors errors = CONF_ERRORS_INIT;
	struct service_config *config = conf_check_load(&request, &errors);

	cmd_config_print_errors(&errors);
	return config;
}
