/* SPDX-License-Identifier: Apache-2.0
 *
 * test_parallel.c - every step runs once, on no more threads than allowed.
 */
#include "base/parallel.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>

#include <cmocka.h>

enum { N = 1000, WORKERS = 7 };

struct steps {
	_Atomic int ran[N];
	_Atomic int by[WORKERS];
	_Atomic int at_once, most;
};

static void step(void *arg, size_t i, unsigned worker)
{
	struct steps *s = arg;
	int now = atomic_fetch_add(&s->at_once, 1) + 1;

	if (now > atomic_load(&s->most))
		atomic_store(&s->most, now);
	atomic_fetch_add(&s->ran[i], 1);
	atomic_fetch_add(&s->by[worker], 1);
	atomic_fetch_sub(&s->at_once, 1);
}

static void every_step_runs_once(void **state)
{
	static const size_t sizes[] = { 0, 1, 2, WORKERS, N };

	(void)state;
	for (size_t k = 0; k < COUNT_OF(sizes); k++) {
		static struct steps s;
		int sum = 0;

		memset(&s, 0, sizeof(s));
		parallel_run(sizes[k], WORKERS, step, &s);
		for (size_t i = 0; i < N; i++)
			assert_int_equal(s.ran[i], i < sizes[k]);
		for (size_t i = 0; i < WORKERS; i++)
			sum += s.by[i];
		assert_int_equal(sum, sizes[k]);
		assert_true(s.most <= WORKERS);
	}
}

/* Steps that wait for each other: only several threads get through. */
static void meet(void *arg, size_t i, unsigned worker)
{
	(void)i;
	(void)worker;
	pthread_barrier_wait(arg);
}

static void steps_run_at_once(void **state)
{
	pthread_barrier_t barrier;

	(void)state;
	pthread_barrier_init(&barrier, NULL, WORKERS);
	parallel_run(WORKERS, WORKERS, meet, &barrier);
	pthread_barrier_destroy(&barrier);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_step_runs_once),
		cmocka_unit_test(steps_run_at_once),
	};

	return cmocka_run_group_tests_name("parallel", tests, NULL, NULL);
}
