/* SPDX-License-Identifier: Apache-2.0
 *
 * test_gates.c - who is turned away without a look at its row would have lost there, too.
 */
#include "connectors/spanmetrics/gates.h"

#include "base/clock.h"
#include "base/rng.h"
#include "connectors/spanmetrics/slots.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static void shut_for_those_below(void **state)
{
	struct budget budget = BUDGET_INIT(GIB);
	struct gates *g;

	(void)state;
	g = gates_new(&budget);
	assert_true(atomic_load(&budget.used) >= 16 * GATES);
	assert_false(gates_is_shut(g, 5, 0));
	gates_note(g, 5, 100);
	assert_true(gates_is_shut(g, 5, 0));
	assert_true(gates_is_shut(g, 5, 99));
	assert_false(gates_is_shut(g, 5, 100));
	/* Another slot in the same place knows nothing, and takes the place. */
	assert_false(gates_is_shut(g, 5 + GATES, 0));
	gates_note(g, 5 + GATES, 50);
	assert_true(gates_is_shut(g, 5 + GATES, 49));
	assert_false(gates_is_shut(g, 5, 0));
	/* One in another way of the set leaves it alone; what is noted again is there once. */
	gates_note(g, 5 | UINT64_C(3) << 62, 70);
	gates_note(g, 5 + GATES, 60);
	assert_true(gates_is_shut(g, 5 | UINT64_C(3) << 62, 69));
	assert_true(gates_is_shut(g, 5 + GATES, 59));
	gates_free(g);
	assert_int_equal(atomic_load(&budget.used), 0);
}

enum { ROWS = 400, BIDS = 200000 };

/* The same bids to two sets of slots, one of them behind gates: the same ones take them. */
static void the_same_ones_win(void **state)
{
	struct gates *g = gates_new(NULL);
	struct slots *with[ROWS] = { NULL }, *without[ROWS] = { NULL };
	unsigned n_won = 0, n_shut = 0;
	struct rng rng;
	size_t grown;

	(void)state;
	rng_seed(&rng, 11);
	for (unsigned i = 0; i < BIDS; i++) {
		unsigned row = (unsigned)rng_below(&rng, ROWS);
		uint64_t r = rng_next(&rng) >> 8;
		struct slot_bid bid = { .bucket = (uint32_t)rng_below(&rng, 17),
					.interval = i / (BIDS / 4),
					.now_ns = NS_PER_S * 1000 };
		struct slot_bid again = bid;
		uint64_t slot = (row * 17 + bid.bucket) * 4 + bid.interval;
		bool won, want = slots_offer(&without[row], &bid, r, &grown);

		/* Spread, so that places are shared. */
		slot = slot * UINT64_C(0x9e3779b97f4a7c15);
		slot ^= slot >> 32;
		if (gates_is_shut(g, slot, r)) {
			won = false;
			n_shut++;
		} else {
			won = slots_offer(&with[row], &again, r, &grown);
			gates_note(g, slot, again.least);
		}
		assert_int_equal(won, want);
		n_won += won;
	}
	for (unsigned row = 0; row < ROWS; row++) {
		slots_free(with[row]);
		slots_free(without[row]);
	}
	gates_free(g);
	/* Some must win, and most must have been turned away: else this shows nothing. */
	assert_true(n_won > 4 * ROWS);
	assert_true(n_shut > BIDS / 5);
}

/* ---- writers that meet in one place ---- */

static struct gates *shared;

/* Slot s may be noted with R = s alone. */
static void *note_mine(void *arg)
{
	uint64_t slot = (uint64_t)(uintptr_t)arg * GATES + 3;

	for (int i = 0; i < 300000; i++) {
		gates_note(shared, slot, slot);
		if (gates_is_shut(shared, slot, slot))
			return (void *)"shut for its own R";
	}
	return NULL;
}

static void torn_words_are_nobodys(void **state)
{
	pthread_t t[3];
	void *wrong = NULL;

	(void)state;
	shared = gates_new(NULL);
	for (uintptr_t i = 0; i < COUNT_OF(t); i++)
		pthread_create(&t[i], NULL, note_mine, (void *)(i + 1));
	for (size_t i = 0; i < COUNT_OF(t); i++) {
		void *said;

		pthread_join(t[i], &said);
		wrong = said != NULL ? said : wrong;
	}
	gates_free(shared);
	if (wrong != NULL)
		fail_msg("%s", (const char *)wrong);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(shut_for_those_below),
		cmocka_unit_test(the_same_ones_win),
		cmocka_unit_test(torn_words_are_nobodys),
	};

	return cmocka_run_group_tests_name("gates", tests, NULL, NULL);
}
