/* SPDX-License-Identifier: Apache-2.0
 *
 * cmd.h - the subcommands that read a configuration, and the flags they share with `run`.
 *
 * Every cmd_* takes argv with argv[0] the subcommand's own name, prints for people, and returns the
 * exit status: 0 done, 1 bad configuration or usage (INTERFACE.md "The program"). Main thread.
 */
#ifndef CMD_CMD_H
#define CMD_CMD_H

#include "pipeline/conf_check.h"

/* validate --config SOURCE... [--set K=V...]: silent and 0, or every error on stderr and 1. */
int cmd_validate(int argc, char **argv);
/* components: a YAML list of what is compiled in. components --docs DIR: writes DIR/<type>.md for
 * each type. */
int cmd_components(int argc, char **argv);
/* print-config --config SOURCE... [--set K=V...] [--format yaml|json] [--mode redacted|unredacted]
 */
int cmd_print_config(int argc, char **argv);

/* --config and --set as collected from a command line. */
struct cmd_config {
	struct conf_request request;
	const char **configs, **sets; /* behind request; room for argc each */
};

void cmd_config_init(struct cmd_config *c, int argc);
void cmd_config_fini(struct cmd_config *c);
/* Take argv[*i] when it is --config, --set or --feature-gates (`--flag value` or `--flag=value`);
 * moves *i to the last argument taken. 1 taken, 0 not one of ours, -1 the value is missing (said on
 * stderr). */
int cmd_config_take(struct cmd_config *c, int argc, char **argv, int *i);
/* The same for any `flag` that takes a value. */
int cmd_flag_take(const char *flag, int argc, char **argv, int *i, const char **value);
/* Load and check; errors and warnings go to stderr. NULL after an error. Free with conf_check_free.
 */
struct service_config *cmd_config_load(const struct cmd_config *c);
/* "spanmill <name>: unknown argument ..." on stderr; returns 1, the exit status. */
int cmd_usage(const char *name, const char *arg, const char *usage);

#endif
