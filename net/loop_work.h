/* SPDX-License-Identifier: Apache-2.0
 *
 * loop_work.h - blocking work off the loop: run on a pool thread, be told on the loop.
 *
 * The pool is libuv's (16 threads, see cmd/main.c; made on first use). A job cannot be cancelled:
 * who started it waits for `done` before its loop stops.
 */
#ifndef NET_LOOP_WORK_H
#define NET_LOOP_WORK_H

#include "net/loop.h"

/* Embedded in its owner, untouched until done() is called. */
struct loop_job {
	void (*work)(void *arg); /* on a pool thread */
	void (*done)(void *arg); /* on the loop; may free the job */
	void *arg;
	uv_work_t uv;
};

/* Loop's thread only. */
void loop_work(struct loop *l, struct loop_job *job);

#endif
