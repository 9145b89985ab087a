/* SPDX-License-Identifier: Apache-2.0
 *
 * main.c - picks the subcommand; without one, `run`.
 */
#include "cmd/all_components.h"
#include "cmd/commands.h"
#include "base/base.h"

#include <stdio.h>

static int print_version(int argc, char **argv)
{
	(void)argc;
	(void)argv;
	printf("spanmill version %s\n", SPANMILL_VERSION);
	return 0;
}

static int print_help(int argc, char **argv);

static const struct command {
	const char *name;
	int (*run)(int argc, char **argv);
	const char *help; /* NULL: not listed */
} commands[] = {
	{ "run", cmd_run, "run a configuration (the word may be left out)" },
	{ "validate", cmd_validate, "check a configuration and start nothing" },
	{ "print-config", cmd_print_config, "print the merged configuration" },
	{ "print-initial-config", cmd_print_config, NULL },
	{ "components", cmd_components, "list what is compiled in" },
	{ "gen", cmd_gen, "send made-up traces and say what became of them" },
	{ "get", cmd_get, "print a trace as a tree" },
	{ "fsck", cmd_fsck, "look at the logs and blocks of a data folder" },
	{ "bench", cmd_bench, "what the core steps cost a span on this machine" },
	{ "--version", print_version, "print the version" },
	{ "-v", print_version, NULL },
	{ "--help", print_help, "print this" },
	{ "-h", print_help, NULL },
	{ "help", print_help, NULL },
};

static int print_help(int argc, char **argv)
{
	(void)argc;
	(void)argv;
	printf("spanmill carries traces from any tracer to trace blocks, and back by trace id.\n\n"
	       "usage: spanmill [COMMAND] [--config SOURCE] [--set a.b.c=value] ...\n\n");
	for (size_t i = 0; i < COUNT_OF(commands); i++)
		if (commands[i].help != NULL)
			printf("  %-14s %s\n", commands[i].name, commands[i].help);
	printf("\nSOURCE is a file, file:PATH, env:NAME or yaml:TEXT. `spanmill COMMAND --help` "
	       "says more.\n");
	return 0;
}

static const struct command *find_command(const char *name)
{
	for (size_t i = 0; i < COUNT_OF(commands); i++)
		if (strcmp(commands[i].name, name) == 0)
			return &commands[i];
	return NULL;
}

int main(int argc, char **argv)
{
	const struct command *c = argc > 1 ? find_command(argv[1]) : NULL;

	all_components_register();
	if (c != NULL)
		return c->run(argc - 1, argv + 1);
	if (argc > 1 && argv[1][0] != '-') {
		fprintf(stderr, "spanmill: unknown command \"%s\": see spanmill --help\n", argv[1]);
		return 1;
	}
	return cmd_run(argc, argv);
}
