/* SPDX-License-Identifier: Apache-2.0
 *
 * validate.c - `spanmill validate`: checks a configuration and starts nothing. Contract in cmd.h.
 */
#include "cmd/cmd.h"

int cmd_validate(int argc, char **argv)
{
	struct service_config *config = NULL;
	struct cmd_config args;
	int ret = 0;

	cmd_config_init(&args, argc);
	for (int i = 1; i < argc && ret == 0; i++) {
		int got = cmd_config_take(&args, argc, argv, &i);

		if (got == 0)
			cmd_usage("validate", argv[i],
				  "--config SOURCE [--config SOURCE] [--set a.b.c=value]");
		ret = got <= 0;
	}
	if (ret == 0) {
		config = cmd_config_load(&args);
		ret = config == NULL;
	}
	conf_check_free(config);
	cmd_config_fini(&args);
	return ret;
}
