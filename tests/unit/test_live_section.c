/* SPDX-License-Identifier: Apache-2.0
 *
 * test_live_section.c - the index of what no block holds yet, against a plain list.
 */
#include "tests/unit/section_fixture.h"

#include "exporters/blocks/live_section.h"

enum { TENANTS = 3, TRACES = 400, RECORDS = 3000, SPANS_MAX = 6 };

/* Which records hold a (tenant, trace), in the order they came. */
struct truth {
	uint32_t v[RECORDS];
	size_t n;
};

static struct truth truth[TENANTS][TRACES];

static void number_id(uint64_t number, uint8_t id[16])
{
	/* Half of them 64-bit ids: zero in front. */
	store_be64(id, number % 2 ? 0 : number * UINT64_C(0x9e3779b97f4a7c15));
	store_be64(id + 8, number + 1);
}

static void add_record(struct live_section *s, struct rng *rng, uint32_t record)
{
	static const char *const names[TENANTS] = { "a", "b", "single-tenant" };
	struct segment_position at = { record / 100, record, 1000 };
	struct span_ref spans[SPANS_MAX];
	struct span_tables t = { .spans = spans,
				 .n_spans = 1 + (uint32_t)rng_below(rng, SPANS_MAX) };
	size_t tenant = rng_below(rng, TENANTS);

	for (uint32_t i = 0; i < t.n_spans; i++) {
		size_t trace = rng_below(rng, TRACES);
		struct truth *tr = &truth[tenant][trace];

		number_id(trace, spans[i].trace_id);
		if (tr->n == 0 || tr->v[tr->n - 1] != record)
			tr->v[tr->n++] = record;
	}
	live_section_add(s, names[tenant], &at, 100 + record * 3, 1000 + record, &t, NULL);
}

static void test_finds_all(void **state)
{
	static const char *const names[TENANTS] = { "a", "b", "single-tenant" };
	struct budget budget = BUDGET_INIT(1 << 30);
	struct live_section *s = live_section_new(&budget);
	struct segment_position at;
	struct rng rng;
	uint8_t id[16];

	(void)state;
	rng_seed(&rng, 7);
	for (uint32_t i = 0; i < RECORDS; i++)
		add_record(s, &rng, i);
	assert_int_equal(s->first_lsn, 100);
	assert_int_equal(s->last_lsn, 100 + (RECORDS - 1) * 3);
	assert_int_equal(s->n_records, RECORDS);
	assert_int_equal(s->bytes, RECORDS * 1000);
	for (size_t t = 0; t < TENANTS; t++)
		for (size_t trace = 0; trace < TRACES; trace++) {
			const struct truth *tr = &truth[t][trace];
			uint32_t cursor = 0;

			number_id(trace, id);
			for (size_t i = tr->n; i-- > 0;) {
				assert_int_equal(live_section_find(s, names[t], id, &cursor, &at),
						 1);
				assert_int_equal(at.offset, tr->v[i]);
			}
			assert_int_equal(live_section_find(s, names[t], id, &cursor, &at), 0);
		}
	assert_true(budget.used >= (int64_t)live_section_memory(s));
	live_section_free(s);
	assert_int_equal(budget.used, 0);
}

static void test_empty_and_unknown(void **state)
{
	struct live_section *s = live_section_new(NULL);
	struct segment_position at = { 1, 2, 3 };
	struct span_ref span = { .trace_id = { 9 } };
	struct span_tables t = { .spans = &span, .n_spans = 1 };
	uint8_t id[16] = { 9 };
	uint32_t cursor = 0;

	(void)state;
	assert_int_equal(live_section_find(s, "a", id, &cursor, &at), 0);
	live_section_add(s, "a", &at, 1, 50, &t, NULL);
	/* The wall clock steps back. */
	live_section_add(s, "a", &at, 2, 20, &t, NULL);
	assert_int_equal(s->first_wall_ns, 50);
	assert_int_equal(s->min_wall_ns, 20);
	assert_int_equal(s->max_wall_ns, 50);
	cursor = 0;
	assert_int_equal(live_section_find(s, "b", id, &cursor, &at), 0);
	id[0] = 8;
	assert_int_equal(live_section_find(s, "a", id, &cursor, &at), 0);
	live_section_free(s);
	live_section_free(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_finds_all),
		cmocka_unit_test(test_empty_and_unknown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
