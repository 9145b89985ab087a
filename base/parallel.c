/* SPDX-License-Identifier: Apache-2.0
 *
 * parallel.c - see parallel.h.
 */
#include "base/parallel.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>

enum { THREADS_MAX = 64 };

struct run {
	void (*fn)(void *arg, size_t i, unsigned worker);
	void *arg;
	size_t n;
	_Atomic size_t next;
};

struct worker {
	struct run *run;
	unsigned number;
	pthread_t thread;
};

static void *work(void *arg)
{
	const struct worker *w = arg;
	size_t i;

	while ((i = atomic_fetch_add(&w->run->next, 1)) < w->run->n)
		w->run->fn(w->run->arg, i, w->number);
	return NULL;
}

void parallel_run(size_t n, unsigned max_threads, void (*fn)(void *arg, size_t i, unsigned worker),
		  void *arg)
{
	struct run run = { .fn = fn, .arg = arg, .n = n };
	struct worker workers[THREADS_MAX] = { { .run = &run } };
	unsigned most = (unsigned)MIN(n, (size_t)MIN(max_threads, (unsigned)THREADS_MAX)), made;
	sigset_t all, before;

	/* Signals are for the threads that expect them. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	for (made = 1; made < most; made++) {
		workers[made] = (struct worker){ .run = &run, .number = made };
		if (pthread_create(&workers[made].thread, NULL, work, &workers[made]) != 0)
			break;
	}
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	work(&workers[0]);
	for (unsigned i = 1; i < made; i++)
		pthread_join(workers[i].thread, NULL);
}
