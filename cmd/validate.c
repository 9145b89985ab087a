/* SPDX-License-Identifier: Apache-2.0
 *
 * validate.c - `spanmill validate`: checks a configuration and starts nothing. Contract in cmd.h.
 */
#include "cmd/cmd.h"

int cmd_validate(int argc, char **argv)
{
	struct service_config *config;
	struct cmd_config args;
	const struct flag flags[] = { CMD_CONFIG_FLAGS(&args) };
	const struct flag_command command = {
		"validate", CMD_CONFIG_USAGE,
		"Checks a configuration and starts nothing. Silent and exit status 0 when it is\n"
		"good; else one line per mistake on stderr, all at once, and exit status 1:\n"
		"<source>:<line>:<column>: <yaml.path>: <what>: <hint>",
		flags, COUNT_OF(flags)
	};
	int ret;

	cmd_config_init(&args, argc);
	ret = cmd_config_parse(&command, &args, argc, argv);
	if (ret < 0) {
		config = cmd_config_load(&args);
		ret = config == NULL;
		conf_check_free(config);
	}
	cmd_config_fini(&args);
	return ret;
}
