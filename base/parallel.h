/* SPDX-License-Identifier: Apache-2.0
 *
 * parallel.h - a loop whose steps wait for something far away, run by several threads.
 *
 * For a handful of requests that would otherwise wait one after the other. Threads are made for the
 * call and end with it; a thread that cannot be made is done without.
 */
#ifndef BASE_PARALLEL_H
#define BASE_PARALLEL_H

#include "base/base.h"

/* fn(arg, i, worker) for each i below n, in no order, on at most max_threads threads, the caller's
 * among them; worker is below max_threads and tells them apart. Returns when all have run. */
void parallel_run(size_t n, unsigned max_threads, void (*fn)(void *arg, size_t i, unsigned worker),
		  void *arg);

#endif
