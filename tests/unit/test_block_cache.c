/* SPDX-License-Identifier: Apache-2.0
 *
 * test_block_cache.c - what is kept, what is not, and that the bound and the budget hold.
 */
#include "base/mem.h"
#include "blocks/block_cache.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

enum { SIZE = 1000 };

static struct block_cache_key bloom_of(uint64_t block)
{
	return (struct block_cache_key){ block, BLOCK_CACHE_BLOOM, 0 };
}

/* Read the piece as a look-up does: from the cache, else "from the backend". */
static bool walk_one(struct block_cache *c, uint64_t block)
{
	uint8_t bytes[SIZE];
	struct block_cache_piece *p = block_cache_find(c, bloom_of(block));

	if (p != NULL) {
		assert_int_equal(p->bytes.n, SIZE);
		assert_int_equal((uintptr_t)p->bytes.p % 8, 0);
		for (size_t i = 0; i < SIZE; i++)
			assert_int_equal(p->bytes.p[i], (uint8_t)block);
		block_cache_unref(p);
		return true;
	}
	memset(bytes, (int)block, SIZE);
	if (block_cache_wants(c, SIZE))
		block_cache_add(c, bloom_of(block), (struct bytes){ bytes, SIZE });
	return false;
}

static size_t walk(struct block_cache *c, uint64_t n)
{
	size_t hits = 0;

	for (uint64_t i = 1; i <= n; i++)
		hits += walk_one(c, i);
	return hits;
}

static void what_fits_is_kept(void **state)
{
	struct block_cache *c = block_cache_new(NULL, MIB);
	struct block_cache_stats st;

	(void)state;
	assert_int_equal(walk(c, 500), 0);
	assert_int_equal(walk(c, 500), 500);
	block_cache_stats(c, &st);
	assert_int_equal(st.pieces, 500);
	assert_int_equal(st.hits[BLOCK_CACHE_BLOOM], 500);
	assert_int_equal(st.misses[BLOCK_CACHE_BLOOM], 500);
	assert_int_equal(st.hits[BLOCK_CACHE_INDEX], 0);
	assert_int_equal(st.evicted + st.passed_over, 0);
	assert_in_range(st.bytes, 500 * SIZE, 500 * (SIZE + 200));
	/* Kind and number are part of the key. */
	assert_null(block_cache_find(c, (struct block_cache_key){ 1, BLOCK_CACHE_INDEX, 0 }));
	assert_null(block_cache_find(c, (struct block_cache_key){ 1, BLOCK_CACHE_BLOOM, 1 }));
	/* What is there already is left alone. */
	block_cache_add(c, bloom_of(1), BYTES_LIT("other"));
	assert_true(walk_one(c, 1));
	block_cache_free(c);
}

/* Walks over twice what fits, again and again: an LRU would never hit. */
static void a_walk_larger_than_the_cache_still_hits(void **state)
{
	enum { N = 1000, WALKS = 50 };
	struct block_cache *c = block_cache_new(NULL, N / 2 * (SIZE + 150));
	struct block_cache_stats st;
	size_t hits = 0;

	(void)state;
	for (int i = 0; i < WALKS; i++) {
		hits += walk(c, N);
		block_cache_stats(c, &st);
		assert_in_range(st.bytes, 0, N / 2 * (SIZE + 150));
	}
	/* The half that fits would be 500 of 1,000. */
	assert_in_range(hits / (WALKS - 1), 400, 510);
	assert_true(st.evicted > 0);
	block_cache_free(c);
}

/* New pieces do get in after a while: a cache full of blocks nobody asks for is no use. */
static void new_pieces_get_in(void **state)
{
	struct block_cache *c = block_cache_new(NULL, 100 * (SIZE + 150));
	size_t hits = 0;

	(void)state;
	walk(c, 200);
	for (int i = 0; i < 200; i++)
		for (uint64_t b = 1001; b <= 1020; b++)
			hits += walk_one(c, b);
	assert_in_range(hits, 200 * 20 / 2, 200 * 20);
	block_cache_free(c);
}

static void gone_blocks_leave(void **state)
{
	struct budget budget = BUDGET_INIT(16 * MIB);
	struct block_cache *c = block_cache_new(&budget, MIB);
	struct block_cache_piece *held;
	struct block_cache_stats st;

	(void)state;
	walk(c, 100);
	for (uint32_t page = 0; page < 10; page++)
		block_cache_add(c, (struct block_cache_key){ 7, BLOCK_CACHE_INDEX, page },
				BYTES_LIT("page"));
	held = block_cache_find(c, bloom_of(7));
	block_cache_drop(c, 7);
	block_cache_drop(c, 7);
	block_cache_drop(c, 5000);
	assert_null(block_cache_find(c, bloom_of(7)));
	assert_null(block_cache_find(c, (struct block_cache_key){ 7, BLOCK_CACHE_INDEX, 3 }));
	block_cache_stats(c, &st);
	assert_int_equal(st.pieces, 99);
	/* A reader that has it keeps it. */
	assert_int_equal(held->bytes.p[SIZE - 1], 7);
	block_cache_unref(held);
	for (uint64_t i = 1; i <= 100; i++)
		block_cache_drop(c, i);
	block_cache_stats(c, &st);
	assert_int_equal(st.pieces, 0);
	assert_int_equal(st.bytes, 0);
	assert_int_equal(atomic_load(&budget.used), 0);
	block_cache_free(c);
}

static void the_budget_is_asked(void **state)
{
	struct budget budget = BUDGET_INIT(8 * 100 * (SIZE + 150));
	struct block_cache *c = block_cache_new(&budget, 0);
	struct block_cache_stats st;

	(void)state;
	/* Its share is an eighth. */
	for (int i = 0; i < 20; i++)
		walk(c, 1000);
	block_cache_stats(c, &st);
	assert_in_range(st.bytes, 90 * SIZE, 100 * (SIZE + 150));
	assert_int_equal(atomic_load(&budget.used), st.bytes);
	/* Spent by others: nothing more is kept, and nothing breaks. */
	for (uint64_t i = 1; i <= 1000; i++)
		block_cache_drop(c, i);
	budget_force(&budget, budget_left(&budget));
	walk(c, 50);
	block_cache_stats(c, &st);
	assert_int_equal(st.pieces, 0);
	block_cache_free(c);
}

static void a_piece_larger_than_the_cache(void **state)
{
	struct block_cache *c = block_cache_new(NULL, 10 * SIZE);
	struct bytes huge = { xcalloc(1, 20 * SIZE), 20 * SIZE };
	struct block_cache_stats st;

	(void)state;
	walk(c, 5);
	assert_false(block_cache_wants(c, huge.n));
	block_cache_add(c, bloom_of(99), huge);
	block_cache_stats(c, &st);
	assert_int_equal(st.pieces, 5);
	assert_null(block_cache_find(NULL, bloom_of(1)));
	assert_false(block_cache_wants(NULL, 1));
	block_cache_add(NULL, bloom_of(1), huge);
	block_cache_drop(NULL, 1);
	free((void *)(uintptr_t)huge.p);
	block_cache_free(c);
	block_cache_free(NULL);
}

static void *walk_often(void *arg)
{
	for (int i = 0; i < 50; i++) {
		walk(arg, 200);
		block_cache_drop(arg, (uint64_t)(i % 200));
	}
	return NULL;
}

static void threads(void **state)
{
	struct budget budget = BUDGET_INIT(MIB);
	struct block_cache *c = block_cache_new(&budget, 100 * (SIZE + 150));
	pthread_t t[4];

	(void)state;
	for (size_t i = 0; i < COUNT_OF(t); i++)
		assert_int_equal(pthread_create(&t[i], NULL, walk_often, c), 0);
	for (size_t i = 0; i < COUNT_OF(t); i++)
		pthread_join(t[i], NULL);
	block_cache_free(c);
	assert_int_equal(atomic_load(&budget.used), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_fits_is_kept),
		cmocka_unit_test(a_walk_larger_than_the_cache_still_hits),
		cmocka_unit_test(new_pieces_get_in),
		cmocka_unit_test(gone_blocks_leave),
		cmocka_unit_test(the_budget_is_asked),
		cmocka_unit_test(a_piece_larger_than_the_cache),
		cmocka_unit_test(threads),
	};

	return cmocka_run_group_tests_name("block_cache", tests, NULL, NULL);
}
