/* SPDX-License-Identifier: Apache-2.0
 *
 * commands.h - every subcommand: argv[0] is its own name; returns the exit status. Main thread.
 */
#ifndef CMD_COMMANDS_H
#define CMD_COMMANDS_H

#include "cmd/cmd.h"
#include "cmd/run.h"

/* gen [FLAGS]: load generator. cmd/gen.c */
int cmd_gen(int argc, char **argv);
/* get TRACE-ID [FLAGS]: a trace as a tree. cmd/get.c */
int cmd_get(int argc, char **argv);
/* fsck [PATH] | queue DIR | block DIR: look at logs and blocks, change nothing. */
int cmd_fsck(int argc, char **argv);
/* bench: what the core steps cost a span on this machine. */
int cmd_bench(int argc, char **argv);

#endif
