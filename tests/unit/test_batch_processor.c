/* SPDX-License-Identifier: Apache-2.0
 *
 * test_batch_processor.c - sizes, splits, times and tenants of the batch processor.
 */
#include "tests/unit/processor_fixture.h"

static struct batch *some(uint32_t n, const char *tenant)
{
	struct fx_span *v = xcalloc(n, sizeof(*v));
	struct batch *b;

	for (uint32_t i = 0; i < n; i++)
		v[i].trace_id[0] = 1;
	b = fx_batch(v, n, tenant);
	free(v);
	return b;
}

static unsigned spans_kept(void)
{
	unsigned n = 0;

	pthread_mutex_lock(&fx.lock);
	for (unsigned i = 0; i < fx.n_kept; i++)
		n += fx.kept[i]->tables.n_spans;
	pthread_mutex_unlock(&fx.lock);
	return n;
}

static void wait_for_spans(unsigned n)
{
	for (int i = 0; i < 60000 && spans_kept() < n; i++)
		usleep(1000);
	assert_int_equal(spans_kept(), n);
}

/* Whoever waits for an answer is not held for the whole timeout. */
static void quiet_is_enough(void **state)
{
	unsigned n = 0;

	(void)state;
	/* On a busy machine it may be quiet between the two. */
	for (int i = 0; i < 100 && n != 1; i++) {
		uint64_t start = clock_mono_ns();

		fx_start("batch", "{timeout: 100s}");
		fx_give(some(3, "t"));
		fx_give(some(4, "t"));
		wait_for_spans(7);
		n = fx.n_kept;
		assert_true(clock_mono_ns() - start < 70 * NS_PER_S);
		fx_stop();
	}
	assert_int_equal(n, 1);
}

static void size_sends_at_once(void **state)
{
	unsigned n = 0;

	(void)state;
	/* On a busy machine it may be quiet in between, and the group is no more. */
	for (int i = 0; i < 100 && n == 0; i++) {
		fx_start("batch", "{timeout: 30s, send_batch_size: 10}");
		fx_give(some(4, "t"));
		fx_give(some(4, "t"));
		fx_give(some(4, "t"));
		n = fx.n_kept;
		wait_for_spans(12);
		fx_stop();
	}
	assert_true(n >= 1);
}

/* All parts have send_batch_max_size spans, but for the last. */
static void splits_are_exact(void **state)
{
	static const struct {
		uint32_t n, max, parts;
	} cases[] = { { 10, 10, 1 }, { 11, 10, 2 },  { 20, 10, 2 },    { 1000, 7, 143 },
		      { 9, 1, 9 },   { 99, 100, 1 }, { 4000, 1, 4000 } };

	(void)state;
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		char yaml[96];

		snprintf(yaml, sizeof(yaml), "{send_batch_size: 1, send_batch_max_size: %u}",
			 cases[i].max);
		fx_start("batch", yaml);
		fx_give(some(cases[i].n, "t"));
		assert_int_equal(fx.n_kept, cases[i].parts);
		for (unsigned k = 0; k + 1 < fx.n_kept; k++)
			assert_int_equal(fx.kept[k]->tables.n_spans, cases[i].max);
		assert_int_equal(spans_kept(), cases[i].n);
		fx_stop();
	}
}

/* A request of a very many spans in tiny parts is no quadratic work. */
static void many_parts_are_quick(void **state)
{
	uint64_t start = clock_mono_ns();

	(void)state;
	fx_start("batch", "{send_batch_size: 1, send_batch_max_size: 100}");
	fx_give(some(300000, "t"));
	assert_int_equal(fx.n_kept, 3000);
	assert_true(clock_mono_ns() - start < 30 * NS_PER_S);
	fx_stop();
}

static void tenants_do_not_mix_and_are_bounded(void **state)
{
	char tenant[16];
	unsigned n = 400, before = 0;

	(void)state;
	fx_start("batch", "{timeout: 30s, metadata_cardinality_limit: 10}");
	for (int i = 0; i < 400; i++) {
		snprintf(tenant, sizeof(tenant), "t%d", i);
		fx_give(some(1, tenant));
	}
	/* At most ten wait at a time and ten are on their way, the others were not held. */
	assert_true(fx.n_kept >= 380);
	wait_for_spans(400);
	for (unsigned i = 0; i < fx.n_kept; i++)
		assert_int_equal(fx.kept[i]->tables.n_spans, 1);
	/* Those that had gone have made room: two are joined, unless it is quiet between. */
	for (int i = 0; i < 100 && fx.n_kept != before + 1; i++) {
		before = fx.n_kept;
		fx_give(some(1, "late"));
		fx_give(some(1, "late"));
		wait_for_spans(n += 2);
	}
	assert_int_equal(fx.n_kept, before + 1);
	fx_stop();
}

static void drain_leaves_nothing(void **state)
{
	unsigned n = 0;

	(void)state;
	/* What was quiet for long enough may be on its way already. */
	for (int i = 0; i < 100 && n != 6; i++) {
		fx_start("batch", "{timeout: 30s}");
		fx_give(some(3, "t"));
		fx_give(some(3, "u"));
		fx.processor.type->drain(&fx.processor);
		n = spans_kept();
		assert_true(fx.processor.type->is_drained(&fx.processor));
		wait_for_spans(6);
		fx_stop();
	}
	assert_int_equal(n, 6);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(quiet_is_enough),
		cmocka_unit_test(size_sends_at_once),
		cmocka_unit_test(splits_are_exact),
		cmocka_unit_test(many_parts_are_quick),
		cmocka_unit_test(tenants_do_not_mix_and_are_bounded),
		cmocka_unit_test(drain_leaves_nothing),
	};

	all_components_register();
	return cmocka_run_group_tests_name("batch_processor", tests, NULL, NULL);
}
