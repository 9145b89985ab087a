/* SPDX-License-Identifier: Apache-2.0
 *
 * test_budget.c - the memory budget: who is granted what, and the meter over it.
 */
#include "base/arena.h"
#include "base/buf.h"
#include "base/meter.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

static void a_charge_fits_or_fails(void **state)
{
	struct budget b = BUDGET_INIT(1000);

	(void)state;
	assert_false(budget_is_short(&b));
	assert_true(budget_charge(&b, 600));
	assert_false(budget_charge(&b, 401));
	assert_int_equal(b.used, 600);
	assert_int_equal(b.refusals, 1);
	assert_true(budget_is_short(&b));
	assert_true(budget_charge(&b, 400));
	budget_force(&b, 50);
	assert_int_equal(budget_left(&b), 0);
	assert_int_equal(b.peak, 1050);
	budget_release(&b, 1050);
	assert_int_equal(budget_left(&b), 1000);
	assert_true(budget_charge(NULL, 1) && budget_left(NULL) == SIZE_MAX);
	assert_true(budget_is_too_small(&b, 1001));
	assert_false(budget_is_too_small(&b, 1000) || budget_is_too_small(NULL, SIZE_MAX));
}

static void large_bodies_leave_the_last_eighth(void **state)
{
	static const struct {
		int64_t used;
		size_t n;
		bool want;
	} cases[] = {
		{ 0, 8 << 20, true },         /* all of it, when nothing else is */
		{ 512 << 10, 7 << 20, true }, /* or next to nothing */
		{ 1 << 20, 7 << 20, false },  /* would take all */
		{ 1 << 20, 6 << 20, true },   /* leaves an eighth */
		{ 6 << 20, 1 << 20, true },   /* likewise */
		{ 7 << 20, 70 << 10, false }, /* large enough to wait */
		{ 7 << 20, 64 << 10, true },  /* small */
		{ 8 << 20, 64 << 10, true },  /* the charge itself says no */
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		struct budget b = BUDGET_INIT(8 << 20);

		b.used = cases[i].used;
		if (budget_allows_body(&b, cases[i].n) != cases[i].want)
			fail_msg("%lld used, %zu more: want %d", (long long)cases[i].used,
				 cases[i].n, cases[i].want);
		assert_int_equal(b.refusals, !cases[i].want);
	}
	assert_true(budget_allows_body(NULL, SIZE_MAX));
}

static void connections_may_come_to_half(void **state)
{
	struct budget b = BUDGET_INIT(1000);

	(void)state;
	for (int i = 0; i < 5; i++)
		assert_true(budget_connection(&b, 10, 100));
	assert_false(budget_connection(&b, 10, 100));
	assert_int_equal(b.used, 60);
	budget_connection_end(&b, 10, 100);
	budget_connection_end(&b, 10, 100);
	assert_true(budget_connection(&b, 10, 100));
	for (int i = 0; i < 5; i++)
		budget_connection_end(&b, 10, 100);
	assert_int_equal(b.used, 0);
	assert_int_equal(b.connections, 0);
}

static void *give_back_later(void *arg)
{
	usleep(20000);
	budget_release(arg, 800);
	return NULL;
}

static void who_may_wait_waits_for_room(void **state)
{
	struct budget b = BUDGET_INIT(1000);
	pthread_t t;

	(void)state;
	budget_force_patiently(&b, 100); /* there is room */
	budget_force(&b, 800);
	pthread_create(&t, NULL, give_back_later, &b);
	budget_force_patiently(&b, 700);
	assert_int_equal(b.used, 800);
	pthread_join(t, NULL);
	/* What is larger than the limit is not waited for, for ever. */
	budget_force_patiently(&b, 1000);
	assert_int_equal(b.used, 1800);
}

static void a_meter_stops_what_hangs_on_it(void **state)
{
	struct budget b = BUDGET_INIT(100000);
	struct meter m = { .budget = &b };
	struct arena a = { .meter = &m };
	struct buf buf = { .meter = &m };
	size_t cap = 0;
	int *v = NULL;

	(void)state;
	budget_force(&b, 1000);
	arena_alloc(&a, 10000);
	for (int i = 0; i < 30000; i++)
		assert_int_equal(buf_add_char(&buf, 'x'), 0);
	v = meter_grow(&m, v, &cap, 100, sizeof(*v));
	assert_true(cap >= 100 && !m.refused);
	assert_in_range(b.used, 1000 + 40000 + 400, 100000);
	/* A buffer takes no more than there is, and then nothing. */
	while (buf_add_char(&buf, 'x') == 0)
		assert_true(buf.n < 100000);
	assert_true(buf.overflow && m.refused && b.used <= 100000);
	assert_true(m.wanted > m.charged);
	/* An arena goes on, and says so. */
	arena_alloc(&a, 90000);
	assert_true(b.used > 100000);
	arena_fini(&a);
	buf_fini(&buf);
	free(v);
	meter_fini(&m);
	assert_int_equal(b.used, 1000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_charge_fits_or_fails),
		cmocka_unit_test(large_bodies_leave_the_last_eighth),
		cmocka_unit_test(connections_may_come_to_half),
		cmocka_unit_test(who_may_wait_waits_for_room),
		cmocka_unit_test(a_meter_stops_what_hangs_on_it),
	};

	return cmocka_run_group_tests_name("budget", tests, NULL, NULL);
}
