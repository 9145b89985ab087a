/* SPDX-License-Identifier: Apache-2.0
 *
 * run.h - `spanmill [run] --config SOURCE ...`: runs until SIGTERM; returns the exit status. Main
 * thread.
 */
#ifndef CMD_RUN_H
#define CMD_RUN_H

int cmd_run(int argc, char **argv);

#endif
