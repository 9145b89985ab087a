/* SPDX-License-Identifier: Apache-2.0
 *
 * test_segment_slice.c - parts of records by position: the right bytes over many segments, and an
 * error where there are none.
 */
#include "base/rng.h"
#include "pipeline/segment/slice.h"
#include "tests/unit/segment_fixture.h"

enum { RECORDS = 400 };

static void slices_are_the_records_bytes(void **state)
{
	struct segment_log_options o = { .dir = scratch("slices"), .segment_bytes = 64 * KIB };
	struct segment_log *log = open_log(&o, NULL);
	struct item *it = fill(log, 1, RECORDS, 3000);
	struct segment_slices s;
	struct err err = ERR_INIT;
	struct rng rng;
	uint8_t got[4096];

	(void)state;
	rng_seed(&rng, 5);
	segment_slices_init(&s, log);
	for (int i = 0; i < 5000; i++) {
		/* In order, as builders do, and at random. */
		const struct item *one = &it[i < RECORDS ? (size_t)i : rng_below(&rng, RECORDS)];
		uint32_t off = (uint32_t)rng_below(&rng, one->n + 1);
		uint32_t n = (uint32_t)rng_below(&rng, one->n - off + 1);

		assert_int_equal(segment_slices_read(&s, &one->a.position, off, n, got, &err), 0);
		assert_memory_equal(got, (const uint8_t *)one->payload + off, n);
	}
	assert_int_equal(
		segment_slices_read(&s, &it[3].a.position, 0, (uint32_t)it[3].n + 1, got, &err),
		-1);
	assert_int_equal(err.kind, ERR_CORRUPT);
	assert_int_equal(segment_slices_read(&s, &it[3].a.position, UINT32_MAX, 2, got, &err), -1);
	assert_int_equal(err.kind, ERR_CORRUPT);
	segment_log_free_to(log, 200);
	segment_slices_fini(&s);
	assert_int_equal(segment_slices_read(&s, &it[0].a.position, 0, 1, got, &err), -1);
	assert_int_equal(err.kind, ERR_NOT_FOUND);
	assert_int_equal(segment_slices_read(&s, &it[300].a.position, 0, 1, got, &err), 0);
	segment_slices_fini(&s);
	segment_log_close(log);
	items_free(it, RECORDS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(slices_are_the_records_bytes),
	};

	log_configure(LOG_ERROR + 1, LOG_CONSOLE);
	return cmocka_run_group_tests_name("segment_slice", tests, group_setup, group_teardown);
}
