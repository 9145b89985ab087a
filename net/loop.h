/* SPDX-License-Identifier: Apache-2.0
 *
 * loop.h - an event loop on a thread of its own: descriptors (libuv), timers, and work posted from
 * other threads.
 *
 * Everything of net/ belongs to one loop and is touched on that loop's thread only; other threads
 * reach it with loop_post or loop_call. Signals are the main thread's business: a loop's thread
 * blocks them all.
 *
 *   loop_new -> loop_start -> ... -> owners close what they have on it -> loop_stop -> loop_free
 */
#ifndef NET_LOOP_H
#define NET_LOOP_H

#include "base/base.h"
#include "base/err.h"

#include <uv.h>

struct loop;

/* Work for a loop. The poster owns the memory and leaves it alone until fn runs; fn may free or
 * re-post it. */
struct loop_task {
	void (*fn)(void *arg);
	void *arg;
	struct loop_task *next; /* the loop's while posted */
};

/* A one-shot timer, embedded in its owner. Stopping is synchronous: after loop_timer_stop (or once
 * fn is called) the memory may go. Zeroed is stopped. */
struct loop_timer {
	void (*fn)(void *arg);
	void *arg;
	uint64_t due_ms; /* by the loop's clock */
	size_t slot;     /* 1 + place in the loop's heap; 0 = stopped */
};

enum { LOOP_SCRATCH_BYTES = 256 * 1024 };

/* `index` names the thread ("loop-0"). NULL only when the system has no descriptors left. */
struct loop *loop_new(unsigned index, struct err *err);
/* Run it on its own thread. Without it the loop can be turned by hand: loop_turn. */
int loop_start(struct loop *l, struct err *err);
/* Run what was posted so far and what that posts, then end the thread and join it. Not from the
 * loop's own thread. Harmless when not started. */
void loop_stop(struct loop *l);
/* After loop_stop. Runs, here, what was posted since, and complains in the log of handles that
 * nobody closed. NULL is fine. */
void loop_free(struct loop *l);
/* Tests and fuzzers: run what is ready now on the calling thread, without waiting. Not while
 * started. */
void loop_turn(struct loop *l);

/* Run t->fn(t->arg) on the loop's thread, soon, in the order of posting. Any thread; no allocation.
 * A task must not be posted again before it has run. */
void loop_post(struct loop *l, struct loop_task *t);
/* Run fn(arg) on the loop's thread and wait for it; at once when already there, or when the loop is
 * not running. Any thread. */
void loop_call(struct loop *l, void (*fn)(void *arg), void *arg);

/* Is the caller on this loop's thread? */
bool loop_is_current(const struct loop *l);
/* For uv_*_init; loop's thread only. */
uv_loop_t *loop_uv(struct loop *l);
unsigned loop_index(const struct loop *l);
/* LOOP_SCRATCH_BYTES to read into, shared by everything on this loop: content is gone after the
 * callback. Loop's thread only. */
uint8_t *loop_scratch(struct loop *l);

/* (Re)start: fn(arg) once, at least `ms` from now. Loop's thread only. */
void loop_timer_start(struct loop *l, struct loop_timer *t, uint64_t ms);
/* Harmless when stopped. Loop's thread only. */
void loop_timer_stop(struct loop *l, struct loop_timer *t);
static inline bool loop_timer_is_active(const struct loop_timer *t)
{
	return t->slot != 0;
}

#endif
