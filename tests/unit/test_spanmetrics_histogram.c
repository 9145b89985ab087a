/* SPDX-License-Identifier: Apache-2.0
 *
 * test_spanmetrics_histogram.c - buckets of the spanmetrics connector against a straightforward
 * model: bounds, exponential numbers and scales, rounding.
 */
#include "base/mem.h"
#include "base/rng.h"
#include "connectors/spanmetrics/histogram.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

static void a_bound_belongs_to_its_bucket(void **state)
{
	static const uint64_t bounds[] = { 10, 20, 30 };
	static const struct {
		uint64_t value;
		uint32_t want;
	} cases[] = { { 0, 0 },  { 10, 0 }, { 11, 1 }, { 20, 1 },
		      { 21, 2 }, { 30, 2 }, { 31, 3 }, { UINT64_MAX, 3 } };

	(void)state;
	for (size_t i = 0; i < COUNT_OF(cases); i++)
		assert_int_equal(histogram_bucket(bounds, 3, cases[i].value), cases[i].want);
	assert_int_equal(histogram_bucket(bounds, 0, 5), 0);
}

/* Upper bound of a bucket, by definition. */
static long double upper(int32_t index, int32_t scale)
{
	return powl(2.0L, ((long double)index + 1) * powl(2.0L, -scale));
}

static void numbers_are_those_of_the_definition(void **state)
{
	struct rng rng;

	(void)state;
	rng_seed(&rng, 3);
	for (int scale = -4; scale <= 10; scale++)
		for (int i = 0; i < 2000; i++) {
			double v = exp((rng_unit(&rng) - 0.5) * 60);
			int32_t at = exponential_index(v, scale);

			/* Off by one is a matter of rounding only where v lies on the bound. */
			if (v > upper(at, scale) * (1 + 1e-12L) ||
			    v <= upper(at - 1, scale) * (1 - 1e-12L))
				fail_msg("%.17g at scale %d: %d", v, scale, at);
		}
}

static void powers_of_two_end_their_bucket(void **state)
{
	(void)state;
	for (int e = -20; e <= 40; e++) {
		double v = ldexp(1.0, e);

		assert_int_equal(exponential_index(v, 0), e - 1);
		assert_int_equal(exponential_index(nextafter(v, 1e300), 0), e);
		assert_int_equal(exponential_index(v, 3), e * 8 - 1);
		assert_int_equal(exponential_index(nextafter(v, 1e300), 3), e * 8);
		assert_int_equal(exponential_index(v, -1), (e - 1) >> 1);
		assert_int_equal(exponential_index(nextafter(v, 0), 20), e * (1 << 20) - 1);
	}
}

enum { N = 3000 };

/* What was observed, and the histogram of it, agree bucket by bucket. */
static void check_against(const struct exponential *e, const double *v, const double *weight,
			  size_t n)
{
	double *want = xcalloc(e->n + 1, sizeof(*want)), zero = 0;

	for (size_t i = 0; i < n; i++) {
		int64_t at;

		if (v[i] == 0) {
			zero += weight[i];
			continue;
		}
		/* Through the scale it came at: a value on a bound must not change sides. */
		at = exponential_index(v[i], EXPONENTIAL_MAX_SCALE) >>
		     (EXPONENTIAL_MAX_SCALE - e->scale);
		at -= e->offset;
		if (at < 0 || at >= (int64_t)e->n)
			fail_msg("%g has no bucket", v[i]);
		want[at] += weight[i];
	}
	assert_true(fabs(zero - e->zero_count) < 1e-6);
	for (uint32_t i = 0; i < e->n; i++)
		if (fabs(want[i] - e->counts[i]) > 1e-6)
			fail_msg("bucket %u of %u, scale %d: %g, want %g", i, e->n, e->scale,
				 e->counts[i], want[i]);
	free(want);
}

static void any_values_any_size(void **state)
{
	static const uint32_t sizes[] = { 2, 3, 20, 160 };
	static double v[N], weight[N];
	struct rng rng;

	(void)state;
	rng_seed(&rng, 11);
	for (size_t s = 0; s < COUNT_OF(sizes); s++)
		for (int spread = 0; spread < 60; spread += 5) {
			struct exponential *e = exponential_new(sizes[s]);

			for (int i = 0; i < N; i++) {
				v[i] = rng_below(&rng, 20) == 0
					       ? 0
					       : exp((rng_unit(&rng) - 0.5) * spread);
				weight[i] = 1 + (double)rng_below(&rng, 3) / 3;
				exponential_observe(e, v[i], weight[i]);
				if (i < 100)
					check_against(e, v, weight, (size_t)i + 1);
			}
			assert_true(e->n <= sizes[s]);
			check_against(e, v, weight, N);
			/* No coarser than it must be: one scale finer would not fit. */
			if (e->scale < EXPONENTIAL_MAX_SCALE && e->n > 0)
				assert_true(e->n * 2 >= sizes[s] || e->n <= 2);
			exponential_reset(e);
			assert_true(e->n == 0 && e->zero_count == 0);
			exponential_free(e);
		}
}

static void rounded_totals_are_rounded_running_totals(void **state)
{
	double counts[17], running = 0;
	uint64_t out[17], total = 0;
	struct rng rng;

	(void)state;
	rng_seed(&rng, 5);
	for (int i = 0; i < 17; i++)
		counts[i] = rng_unit(&rng) * 3;
	histogram_round(counts, 17, out);
	for (int i = 0; i < 17; i++) {
		running += counts[i];
		total += out[i];
		assert_int_equal(total, llround(running));
	}
	counts[3] = -0.4;
	counts[0] = counts[1] = counts[2] = 0;
	histogram_round(counts, 17, out);
	assert_int_equal(out[0] + out[1] + out[2] + out[3], 0);
	histogram_round_from(1.6, counts, 16, out);
	assert_int_equal(out[0], 2);
}

/* Intervals of deltas add up to the whole, whatever each of them rounds. */
static void what_was_sent_and_what_is_left_are_the_whole(void **state)
{
	double left[5] = { 0 }, sum[5] = { 0 };
	uint64_t out[5], sent[5] = { 0 };
	struct rng rng;

	(void)state;
	rng_seed(&rng, 6);
	for (int interval = 0; interval < 1000; interval++) {
		for (int i = 0; i < 5; i++) {
			double more = rng_unit(&rng) * 2;

			left[i] += more;
			sum[i] += more;
		}
		histogram_round(left, 5, out);
		for (int i = 0; i < 5; i++) {
			left[i] -= (double)out[i];
			sent[i] += out[i];
		}
	}
	for (int i = 0; i < 5; i++)
		assert_true(fabs(sum[i] - (double)sent[i]) <= 3);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_bound_belongs_to_its_bucket),
		cmocka_unit_test(numbers_are_those_of_the_definition),
		cmocka_unit_test(powers_of_two_end_their_bucket),
		cmocka_unit_test(any_values_any_size),
		cmocka_unit_test(rounded_totals_are_rounded_running_totals),
		cmocka_unit_test(what_was_sent_and_what_is_left_are_the_whole),
	};

	return cmocka_run_group_tests_name("spanmetrics_histogram", tests, NULL, NULL);
}
