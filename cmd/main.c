/* SPDX-License-Identifier: Apache-2.0
 *
 * main.c - picks the subcommand; without one, `run`.
 */
#include "cmd/all_components.h"
#include "cmd/commands.h"
#include "base/base.h"
#include "base/str.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define USAGE "usage: spanmill [COMMAND] " CMD_CONFIG_USAGE "\n"

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
	{ "print-config", cmd_print_config, "print the effective configuration" },
	{ "print-initial-config", cmd_print_config, NULL },
	{ "components", cmd_components, "list what is compiled in" },
	{ "gen", cmd_gen, "send made-up traces and say what became of them" },
	{ "get", cmd_get, "print a trace as a tree" },
	{ "fsck", cmd_fsck, "look at the logs and blocks of a data folder" },
	{ "bench", cmd_bench, "what the core steps cost a span on this machine" },
	{ "--version", print_version, "print the version" },
	{ "-v", print_version, NULL },
	{ "version", print_version, NULL },
	{ "--help", print_help, "print this" },
	{ "-h", print_help, NULL },
	{ "help", print_help, NULL },
};

static const struct command *find_command(const char *name)
{
	for (size_t i = 0; i < COUNT_OF(commands); i++)
		if (strcmp(commands[i].name, name) == 0)
			return &commands[i];
	return NULL;
}

static int unknown_command(const char *name)
{
	const char *near = NULL;
	unsigned best = 4;

	for (size_t i = 0; i < COUNT_OF(commands); i++) {
		unsigned d = str_distance(name, commands[i].name);

		if (commands[i].help != NULL && d < best) {
			best = d;
			near = commands[i].name;
		}
	}
	fprintf(stderr, "spanmill: unknown command \"%.80s\"", name);
	if (near != NULL)
		fprintf(stderr, ": did you mean %s?", near);
	fprintf(stderr, "\n" USAGE "spanmill --help lists the commands\n");
	return 1;
}

/* help, help COMMAND */
static int print_help(int argc, char **argv)
{
	char help[] = "--help", *args[] = { argv[1], help, NULL };
	const struct command *c = argc > 1 ? find_command(argv[1]) : NULL;

	if (c != NULL && c->name[0] != '-' && c->run != print_help)
		return c->run(2, args);
	if (argc > 1 && argv[1][0] != '-')
		return unknown_command(argv[1]);
	printf("spanmill carries traces from any tracer to trace blocks, and back by trace "
	       "id.\n\n" USAGE "\n");
	for (size_t i = 0; i < COUNT_OF(commands); i++)
		if (commands[i].help != NULL)
			printf("  %-14s %s\n", commands[i].name, commands[i].help);
	printf("\nSOURCE is a file, file:PATH, env:NAME or yaml:TEXT (a::b nests); later sources "
	       "are\n"
	       "merged over earlier ones. `spanmill COMMAND --help` says more.\n\n"
	       "A first look: spanmill --config configs/all-in-one.yaml, then in another terminal\n"
	       "spanmill get $(spanmill gen --traces 1 --print-id)\n\n"
	       "Exit status: 0 done, 1 bad configuration or usage, 2 could not start, 3 stopped "
	       "with\n"
	       "something undelivered that no log holds.\n");
	return 0;
}

/* A socket or log that got the number of a closed stdin, stdout or stderr would be written into. */
static void open_standard_fds(void)
{
	int fd;

	do
		fd = open("/dev/null", O_RDWR);
	while (fd >= 0 && fd <= STDERR_FILENO);
	if (fd >= 0)
		close(fd);
}

/* libuv reads it at the pool's first use; here there is one thread yet. Look-ups wait for buckets
 * and for other nodes, not for processors: with libuv's four threads, four that wait for a frozen
 * builder would keep out all others. What is set already stays. */
static void size_pool(void)
{
	setenv("UV_THREADPOOL_SIZE", "16", 0);
}

int main(int argc, char **argv)
{
	const struct command *c = argc > 1 ? find_command(argv[1]) : NULL;

	open_standard_fds();
	size_pool();
	all_components_register();
	if (c != NULL)
		return c->run(argc - 1, argv + 1);
	if (argc > 1 && argv[1][0] != '-')
		return unknown_command(argv[1]);
	return cmd_run(argc, argv);
}
