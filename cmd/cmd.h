/* SPDX-License-Identifier: Apache-2.0
 *
 * cmd.h - the subcommands that read a configuration, and the flags they share with `run`.
 *
 * Every cmd_* takes argv with argv[0] the subcommand's own name, prints for people, and returns the
 * exit status: 0 done, 1 bad configuration or usage (INTERFACE.md "The program"). Main thread.
 */
#ifndef CMD_CMD_H
#define CMD_CMD_H

#include "cmd/flags.h"
#include "pipeline/resolve/check.h"

/* validate --config SOURCE... [--set K=V...]: silent and 0, or every error on stderr and 1. */
int cmd_validate(int argc, char **argv);
/* components: a YAML list of what is compiled in. components --docs DIR: writes DIR/<type>.md for
 * each type. */
int cmd_components(int argc, char **argv);
/* print-config --config SOURCE... [--set K=V...] [--format yaml|json] [--mode redacted|unredacted]
 * [--validate=false] */
int cmd_print_config(int argc, char **argv);

/* --config, --set and --feature-gates as collected from a command line. */
struct cmd_config {
	struct flag_list configs, sets, gates;
};

/* The rows of a flag table that fill `c`. */
#define CMD_CONFIG_FLAGS(c)                                                                        \
	FLAG_LIST("--config", &(c)->configs, "SOURCE",                                             \
		  "a file, file:PATH, env:NAME or yaml:TEXT; later ones are merged over earlier"), \
		FLAG_LIST("--set", &(c)->sets, "KEY=VALUE",                                        \
			  "a.b.c=value, merged after every --config; the value is YAML"),          \
		FLAG_LIST("--feature-gates", &(c)->gates, "LIST",                                  \
			  "taken for the Collector's sake: there are no gates")
#define CMD_CONFIG_USAGE "--config SOURCE [--config SOURCE] [--set a.b.c=value]"

/* Room for every argument. Free with cmd_config_fini. */
void cmd_config_init(struct cmd_config *c, int argc);
void cmd_config_fini(struct cmd_config *c);
/* flags_parse for a command that takes no words: -1 go on, else the exit status. Says which feature
 * gates are ignored. */
int cmd_config_parse(const struct flag_command *command, const struct cmd_config *c, int argc,
		     char **argv);
/* What conf_load and conf_check_load want; borrows c. */
struct conf_request cmd_config_request(const struct cmd_config *c);
/* Load and check; errors and warnings go to stderr. NULL after an error. Free with conf_check_free.
 */
struct service_config *cmd_config_load(const struct cmd_config *c);
/* Print the lines of `errors` on stderr and empty it. */
void cmd_config_print_errors(struct conf_errors *errors);

#endif
