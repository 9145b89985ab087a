/* SPDX-License-Identifier: Apache-2.0
 *
 * test_prometheus_page.c - the parts of the prometheus exporter: negotiation, numbers, octaves,
 * exemplars, and the store under threads that write, show and sweep.
 */
#include "base/mem.h"
#include "base/rng.h"
#include "exporters/prometheus/ingest.h"
#include "exporters/prometheus/number.h"
#include "exporters/prometheus/page.h"
#include "exporters/prometheus/text.h"
#include "tests/unit/otlp_fixture.h"
#include "wire/otlp_attr.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

/* ---- negotiation ---- */

static const struct {
	const char *accept;
	enum page_kind want;
	bool is_utf8;
} accepts[] = {
	{ NULL, PAGE_TEXT_0_0_4, false },
	{ "", PAGE_TEXT_0_0_4, false },
	{ "*/*", PAGE_TEXT_0_0_4, false },
	{ "text/*;q=0.1, image/png", PAGE_TEXT_0_0_4, false },
	{ "application/openmetrics-text", PAGE_OPEN_1_0_0, false },
	{ "APPLICATION/OpenMetrics-Text ; Version=\"0.0.1\"", PAGE_OPEN_0_0_1, false },
	{ "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8", PAGE_OPEN_1_0_0,
	  true },
	{ "application/openmetrics-text;version=0.0.1;escaping=allow-utf-8", PAGE_OPEN_0_0_1,
	  false },
	{ "application/openmetrics-text;version=2.0.0", PAGE_TEXT_0_0_4, false },
	{ "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;q=0.3", PAGE_TEXT_1_0_0,
	  true },
	{ "text/plain;q=0.5,application/openmetrics-text;q=0.6", PAGE_OPEN_1_0_0, false },
	{ "text/plain;q=0.5,application/openmetrics-text;q=0.5", PAGE_TEXT_0_0_4, false },
	{ "application/openmetrics-text;q=0", PAGE_TEXT_0_0_4, false },
	{ "application/openmetrics-text;q=nan,text/plain;q=-1", PAGE_TEXT_0_0_4, false },
	{ ",;,=;q=,application/openmetrics-text;q=1;x", PAGE_OPEN_1_0_0, false },
};

static void the_highest_q_we_have_is_served(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT_OF(accepts); i++) {
		struct page_form f = accept_choose(accepts[i].accept, true);

		if (f.kind != accepts[i].want || f.is_utf8 != accepts[i].is_utf8)
			fail_msg("%s: %d %d", accepts[i].accept, f.kind, f.is_utf8);
		f = accept_choose(accepts[i].accept, false);
		assert_false(page_form_is_open(&f));
		assert_non_null(accept_content_type(&f));
	}
}

/* ---- numbers ---- */

static const struct {
	double v;
	const char *plain, *open;
} bounds[] = {
	{ 1, "1", "1.0" },
	{ 0, "0", "0.0" },
	{ 0.005, "0.005", "0.005" },
	{ 2.5, "2.5", "2.5" },
	{ 100, "100", "100.0" },
	{ 100000, "100000", "100000.0" },
	{ 1e6, "1e+06", "1e+06" },
	{ 1234567, "1.234567e+06", "1.234567e+06" },
	{ 1e-4, "0.0001", "0.0001" },
	{ 1e-5, "1e-05", "1e-05" },
	{ 1e100, "1e+100", "1e+100" },
	{ -0.25, "-0.25", "-0.25" },
	{ -4, "-4", "-4.0" },
	{ 0.1 + 0.2, "0.30000000000000004", "0.30000000000000004" },
	{ 5e-324, "5e-324", "5e-324" },
	{ (double)INFINITY, "+Inf", "+Inf" },
};

static void bounds_are_canonical(void **state)
{
	char text[NUMBER_BOUND_MAX];

	(void)state;
	for (size_t i = 0; i < COUNT_OF(bounds); i++) {
		assert_int_equal(number_bound(bounds[i].v, false, text), strlen(bounds[i].plain));
		assert_string_equal(text, bounds[i].plain);
		number_bound(bounds[i].v, true, text);
		assert_string_equal(text, bounds[i].open);
	}
}

static void numbers_read_back(void **state)
{
	struct buf out = BUF_INIT;
	struct rng r;

	(void)state;
	rng_seed(&r, 1);
	for (int i = 0; i < 20000; i++) {
		uint64_t bits = rng_next(&r);
		char text[NUMBER_BOUND_MAX];
		double v;

		memcpy(&v, &bits, sizeof(v));
		if (i % 3 == 0)
			v = (double)(int64_t)(bits >> (bits % 64));
		if (isnan(v))
			continue;
		buf_reset(&out);
		number_put(&out, v);
		if (strtod(buf_cstr(&out), NULL) != v)
			fail_msg("%a is %s", v, buf_cstr(&out));
		number_bound(v, i % 2 == 0, text);
		if (strtod(text, NULL) != v)
			fail_msg("%a is %s", v, text);
	}
	buf_reset(&out);
	number_put_metric(&out, &(struct metric_number){ .is_int = true, { .i = INT64_MIN } });
	buf_add_char(&out, ' ');
	number_put_seconds(&out, 1766000000007);
	buf_add_char(&out, ' ');
	number_put_seconds(&out, 5000);
	assert_string_equal(buf_cstr(&out), "-9223372036854775808 1766000000.007 5");
	buf_fini(&out);
}

static void text_is_escaped_and_made_utf8(void **state)
{
	struct buf out = BUF_INIT;

	(void)state;
	assert_true(
		text_put_label(&out, BYTES_LIT("a_1"), BYTES_LIT("\"\\\n\xc3\xa4\xff\xc3|\0|\r")));
	assert_string_equal(buf_cstr(&out), "a_1=\"\\\"\\\\\\n\xc3\xa4\xef\xbf\xbd\xef\xbf\xbd|"
					    "\xef\xbf\xbd|\r\"");
	buf_reset(&out);
	assert_false(text_put_label(&out, BYTES_LIT("1.a"), BYTES_LIT("x")));
	assert_string_equal(buf_cstr(&out), "\"1.a\"=\"x\"");
	assert_int_equal(text_code_points(BYTES_LIT("a\xc3\xa4\xf0\x9f\x98\x80")), 3);
	buf_fini(&out);
}

/* ---- octaves ---- */

static uint64_t octaves_sum(const struct octaves *o)
{
	uint64_t sum = 0;

	for (uint32_t i = 0; i < o->n; i++)
		sum += o->counts[i];
	return sum;
}

/* Against plain counters: what is too low lies in the lowest, the rest where it belongs. */
static void octaves_keep_every_count(void **state)
{
	struct rng r;

	(void)state;
	rng_seed(&r, 2);
	for (int round = 0; round < 200; round++) {
		int32_t middle = (int32_t)rng_below(&r, 2400) - 1200, top = INT32_MIN;
		static uint64_t plain[4000];
		struct octaves o = { 0 };
		uint64_t sum = 0;

		memset(plain, 0, sizeof(plain));
		for (int i = 0; i < 100; i++) {
			int32_t at = middle + (int32_t)rng_below(&r, 150) - 75;
			uint64_t n = rng_below(&r, 3);

			octaves_add(&o, at, n);
			at = MAX(MIN(at, (int32_t)OCTAVE_HIGHEST), (int32_t)OCTAVE_LOWEST);
			plain[at + 2000] += n;
			sum += n;
			top = n > 0 ? MAX(top, at) : top;
		}
		assert_true(o.n <= OCTAVES_MAX && octaves_sum(&o) == sum);
		for (uint32_t i = 1; i < o.n; i++)
			assert_int_equal(o.counts[i], plain[o.lo + (int32_t)i + 2000]);
		assert_int_equal(o.lo + (int32_t)o.n - 1, top);
	}
}

static void a_value_lies_in_its_octave(void **state)
{
	static const double values[] = { 1, 1.5, 2, 2.0000001, 1e-300, 5e-324, 1e308, 0.75, 1024 };

	(void)state;
	for (size_t i = 0; i < COUNT_OF(values); i++) {
		int32_t o = octave_of(values[i]);

		assert_true(values[i] <= ldexp(1, o + 1));
		assert_true(values[i] > ldexp(1, o) || ldexp(1, o) == 0);
	}
	assert_int_equal(octave_of(INFINITY), OCTAVE_HIGHEST);
}

/* ---- exemplars ---- */

static void offer(struct exemplars *x, int32_t key, uint64_t ms, uint64_t now_ns)
{
	exemplars_offer(x,
			&(struct exemplar_offer){ .key = key,
						  .time_ms = ms,
						  .value = (double)ms,
						  .labels = BYTES_LIT("trace_id=\"a\"") },
			now_ns);
}

static uint64_t shown(struct exemplars *x, int32_t key, bool is_scrape, uint64_t now_ns)
{
	const struct exemplar *e = exemplars_show(x, key, is_scrape, now_ns);

	return e != NULL ? e->time_ms : 0;
}

static void an_exemplar_stays_until_it_was_seen_twice(void **state)
{
	struct exemplars x = { 0 };

	(void)state;
	assert_int_equal(shown(&x, 1, true, 0), 0);
	offer(&x, 1, 10, 0);
	offer(&x, 1, 20, 0); /* nobody saw the first */
	assert_int_equal(shown(&x, 1, false, 0), 20);
	assert_int_equal(shown(&x, 1, true, 0), 20);
	offer(&x, 1, 30, 0);
	offer(&x, 1, 40, 0);
	offer(&x, 1, 35, 0); /* older than one that waits */
	assert_int_equal(shown(&x, 1, true, 0), 20);
	assert_int_equal(shown(&x, 1, true, 0), 40);
	offer(&x, 1, 40, 0); /* nor of the same time */
	assert_null(x.slots[0].next);
	offer(&x, 1, 50, 0);
	assert_int_equal(shown(&x, 1, false, EXEMPLAR_AGE_NS), 40);
	assert_int_equal(shown(&x, 1, false, EXEMPLAR_AGE_NS + 1), 50);
	assert_int_equal(shown(&x, 2, true, 0), 0);
	exemplars_fini(&x);
}

static void slots_are_by_bucket_and_bounded(void **state)
{
	struct exemplars x = { 0 };
	size_t before;

	(void)state;
	for (int32_t i = 0; i < 2 * EXEMPLAR_SLOTS; i++)
		offer(&x, (i * 37) % (2 * EXEMPLAR_SLOTS), (uint64_t)i + 1, 0);
	assert_int_equal(x.n, EXEMPLAR_SLOTS);
	for (uint32_t i = 1; i < x.n; i++)
		assert_true(x.slots[i - 1].key < x.slots[i].key);
	before = x.bytes;
	for (int i = 0; i < 1000; i++) {
		offer(&x, x.slots[3].key, 1000 + (uint64_t)i, 0);
		shown(&x, x.slots[3].key, true, 0);
	}
	assert_true(x.bytes <= before + 2 * sizeof(struct exemplar) + 64);
	assert_null(exemplars_show_up_to(&x, x.slots[0].key - 1, false, 0));
	assert_non_null(exemplars_show_up_to(&x, INT32_MAX, false, 0));
	exemplars_fini(&x);
	assert_int_equal(x.bytes, 0);
}

/* ---- the store ---- */

struct writing {
	struct buf request;
	struct metrics_writer w;
};

static void writing_begin(struct writing *x)
{
	buf_reset(&x->request);
	metrics_writer_init(&x->w, &x->request);
	metrics_write_resource(&x->w, BYTES_EMPTY, BYTES_EMPTY);
	metrics_write_scope(&x->w, BYTES_EMPTY, BYTES_EMPTY);
}

static void put_counter(struct writing *x, const char *name, uint64_t label, int64_t value)
{
	metrics_write_metric(&x->w, &(struct metric){ .name = bytes_str(name),
						      .kind = METRIC_SUM,
						      .temporality = TEMPORALITY_CUMULATIVE,
						      .is_monotonic = true });
	metrics_point_begin(&x->w);
	otlp_attr_uint(x->w.out, x->w.attribute_field, BYTES_LIT("n"), OTLP_INT, label);
	metrics_point_int(&x->w, value);
	metrics_point_end(&x->w);
}

static const struct ingest_options plain_options = { .naming = { .add_suffixes = true } };

static void feed(struct store *s, struct writing *x, struct ingest_result *result)
{
	struct indexed i;

	metrics_writer_finish(&x->w);
	assert_int_equal(indexed_init_items(&i, OTLP_METRICS, buf_bytes(&x->request)), 0);
	ingest(s, &plain_options, &i.t, NULL, result);
	indexed_fini(&i);
}

/* Series come and go; the page has those that are there, each once, and nothing is left behind. */
static void series_go_and_others_stay(void **state)
{
	enum { N = 3000 };
	struct budget budget = BUDGET_INIT(1 << 30);
	struct page_options o = { .form = { PAGE_OPEN_1_0_0, false } };
	struct ingest_result result;
	struct writing x = { BUF_INIT, { 0 } };
	struct buf page = BUF_INIT;
	struct store s;
	struct rng r;

	(void)state;
	rng_seed(&r, 3);
	store_init(&s, &budget);
	for (int round = 0; round < 6; round++) {
		uint64_t lines = 0;

		writing_begin(&x);
		for (uint64_t i = 0; i < N; i++)
			put_counter(&x, i % 2 == 0 ? "even" : "odd", i, (int64_t)i);
		for (uint64_t i = 0; i < N; i++) {
			bool ends = rng_below(&r, 3) > 0;

			metrics_write_metric(
				&x.w, &(struct metric){ .name = i % 2 == 0 ? BYTES_LIT("even")
									   : BYTES_LIT("odd"),
							.kind = METRIC_SUM,
							.temporality = TEMPORALITY_CUMULATIVE,
							.is_monotonic = true });
			metrics_point_begin(&x.w);
			otlp_attr_uint(x.w.out, x.w.attribute_field, BYTES_LIT("n"), OTLP_INT, i);
			metrics_point_flags(&x.w, ends ? METRIC_NO_RECORDED_VALUE : 0);
			metrics_point_int(&x.w, 7);
			metrics_point_end(&x.w);
			lines += !ends;
		}
		feed(&s, &x, &result);
		assert_int_equal(result.n_taken, 2 * N);
		store_sweep(&s, 0);
		assert_int_equal(atomic_load(&s.n_series), lines);
		buf_reset(&page);
		page_write(&s, &o, &page);
		for (const char *at = buf_cstr(&page); (at = strstr(at, "_total{n=")) != NULL; at++)
			lines--;
		assert_int_equal(lines, 0);
	}
	store_sweep(&s, 1); /* all are older than that */
	assert_int_equal(atomic_load(&s.n_series), 0);
	assert_int_equal(atomic_load(&s.bytes), 0);
	assert_int_equal(atomic_load(&budget.used), 0);
	store_fini(&s);
	buf_fini(&page);
	buf_fini(&x.request);
}

struct shared {
	struct store store;
	_Atomic bool is_over;
};

static void *write_all_the_time(void *arg)
{
	struct shared *sh = arg;
	struct writing x = { BUF_INIT, { 0 } };
	struct ingest_result result;
	int64_t value = 0;

	while (!atomic_load(&sh->is_over)) {
		writing_begin(&x);
		for (int i = 0; i < 40; i++) {
			struct metric_exemplar e = { .time_ns = (uint64_t)value * 1000000,
						     .number = { .is_int = true, { 1 } } };

			value++;
			put_counter(&x, i % 3 == 0 ? "a" : "b", (uint64_t)(value + i) % 300, value);
			metrics_point_begin(&x.w);
			metrics_point_int(&x.w, value);
			metrics_point_exemplar(&x.w, &e, BYTES_EMPTY);
			metrics_point_end(&x.w);
		}
		feed(&sh->store, &x, &result);
	}
	buf_fini(&x.request);
	return NULL;
}

/* Two write, one shows and sweeps. TSan looks on. */
static void a_page_is_whole_while_others_write(void **state)
{
	enum { PAGES = 150 };
	struct page_options o = { .form = { PAGE_OPEN_1_0_0, false }, .is_scrape = true };
	struct buf page = BUF_INIT;
	pthread_t threads[2];
	struct shared sh;

	(void)state;
	store_init(&sh.store, NULL);
	atomic_init(&sh.is_over, false);
	for (size_t i = 0; i < COUNT_OF(threads); i++)
		assert_int_equal(pthread_create(&threads[i], NULL, write_all_the_time, &sh), 0);
	for (int i = 0; i < PAGES; i++) {
		buf_reset(&page);
		page_write(&sh.store, &o, &page);
		assert_true(page.n >= 6 && memcmp(page.p + page.n - 6, "# EOF\n", 6) == 0);
		if (i % 10 == 9)
			store_sweep(&sh.store, i % 20 == 9 ? 1000000 : 0);
	}
	atomic_store(&sh.is_over, true);
	for (size_t i = 0; i < COUNT_OF(threads); i++)
		pthread_join(threads[i], NULL);
	store_fini(&sh.store);
	buf_fini(&page);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_highest_q_we_have_is_served),
		cmocka_unit_test(bounds_are_canonical),
		cmocka_unit_test(numbers_read_back),
		cmocka_unit_test(text_is_escaped_and_made_utf8),
		cmocka_unit_test(octaves_keep_every_count),
		cmocka_unit_test(a_value_lies_in_its_octave),
		cmocka_unit_test(an_exemplar_stays_until_it_was_seen_twice),
		cmocka_unit_test(slots_are_by_bucket_and_bounded),
		cmocka_unit_test(series_go_and_others_stay),
		cmocka_unit_test(a_page_is_whole_while_others_write),
	};

	return cmocka_run_group_tests_name("prometheus_page", tests, NULL, NULL);
}
