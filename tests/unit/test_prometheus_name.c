/* SPDX-License-Identifier: Apache-2.0
 *
 * test_prometheus_name.c - names of metrics, units and labels under every translation strategy, and
 * label sets: who wins, what is joined, what is left out.
 */
#include "base/base.h"
#include "wire/otlp_attr.h"
#include "wire/prometheus_labels.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define SUFFIXES PROMETHEUS_UNDERSCORE_SUFFIXES
#define PLAIN PROMETHEUS_UNDERSCORE_PLAIN
#define UTF8_SUFFIXES PROMETHEUS_UTF8_SUFFIXES
#define UTF8_PLAIN PROMETHEUS_UTF8_PLAIN
#define GAUGE PROMETHEUS_GAUGE
#define COUNTER PROMETHEUS_COUNTER
#define UP_DOWN PROMETHEUS_UP_DOWN
#define HISTOGRAM PROMETHEUS_HISTOGRAM

/* want NULL: no name is left. */
static const struct {
	const char *name, *unit;
	enum prometheus_kind kind;
	enum prometheus_strategy strategy;
	const char *prefix, *want;
} metrics[] = {
	/* The specification's examples. */
	{ "http.server.request.duration", "s", HISTOGRAM, SUFFIXES, "",
	  "http_server_request_duration_seconds" },
	{ "m", "foo/bar", GAUGE, SUFFIXES, "", "m_foo_per_bar" },
	{ "foo", "{packet}", COUNTER, SUFFIXES, "", "foo_total" },
	{ "foo", "ms", GAUGE, SUFFIXES, "", "foo_milliseconds" },
	{ "foo", "1", GAUGE, SUFFIXES, "", "foo_ratio" },
	{ "a..b  c", "", GAUGE, SUFFIXES, "", "a_b_c" },
	{ "requests_total", "", COUNTER, SUFFIXES, "", "requests_total" },
	/* Types. */
	{ "requests", "1", COUNTER, SUFFIXES, "", "requests_total" },
	{ "queue.size", "1", UP_DOWN, SUFFIXES, "", "queue_size" },
	{ "queue.size", "", UP_DOWN, SUFFIXES, "", "queue_size" },
	{ "cpu.ratio", "1", GAUGE, SUFFIXES, "", "cpu_ratio" },
	{ "ratio.of.cpu", "1", GAUGE, SUFFIXES, "", "of_cpu_ratio" },
	{ "total.requests", "", COUNTER, SUFFIXES, "", "requests_total" },
	{ "latency", "ms", PROMETHEUS_SUMMARY, SUFFIXES, "", "latency_milliseconds" },
	{ "x", "", PROMETHEUS_UNKNOWN, SUFFIXES, "", "x" },
	/* Ours. */
	{ "traces.span.metrics.calls", "", COUNTER, SUFFIXES, "",
	  "traces_span_metrics_calls_total" },
	{ "traces.span.metrics.duration", "ms", HISTOGRAM, SUFFIXES, "",
	  "traces_span_metrics_duration_milliseconds" },
	{ "traces_spanmetrics_calls_total", "", COUNTER, SUFFIXES, "",
	  "traces_spanmetrics_calls_total" },
	/* Units. */
	{ "io", "By", COUNTER, SUFFIXES, "", "io_bytes_total" },
	{ "io", "By/s", GAUGE, SUFFIXES, "", "io_bytes_per_second" },
	{ "io", "1/s", GAUGE, SUFFIXES, "", "io_per_second" },
	{ "io", "{op}/s", GAUGE, SUFFIXES, "", "io_per_second" },
	{ "io", "By/{op}", GAUGE, SUFFIXES, "", "io_bytes" },
	{ "io", "By / m", GAUGE, SUFFIXES, "", "io_bytes_per_minute" },
	{ "io", "m/s", GAUGE, SUFFIXES, "", "io_meters_per_second" },
	{ "io", "/s", GAUGE, SUFFIXES, "", "io_per_second" },
	{ "io", "By/", GAUGE, SUFFIXES, "", "io_bytes" },
	{ "io", "/", GAUGE, SUFFIXES, "", "io" },
	{ "io", "TiBy", GAUGE, SUFFIXES, "", "io_tebibytes" },
	{ "io", "kBy", GAUGE, SUFFIXES, "", "io_kilobytes" },
	{ "heat", "Cel", GAUGE, SUFFIXES, "", "heat_celsius" },
	{ "load", "%", GAUGE, SUFFIXES, "", "load_percent" },
	{ "m", "custom_unit", GAUGE, SUFFIXES, "", "m_custom_unit" },
	{ "m", "a@with#b/c d", GAUGE, SUFFIXES, "", "m_a_with_b_per_c_d" },
	{ "m", "\xc2\xb5s", GAUGE, SUFFIXES, "", "m_s" },
	{ "m", "__", GAUGE, SUFFIXES, "", "m" },
	/* The unit is there already, as whole tokens. */
	{ "response_time_seconds", "s", GAUGE, SUFFIXES, "", "response_time_seconds" },
	{ "seconds.left", "s", GAUGE, SUFFIXES, "", "seconds_left" },
	{ "milliseconds.left", "s", GAUGE, SUFFIXES, "", "milliseconds_left_seconds" },
	{ "io.per.second", "1/s", GAUGE, SUFFIXES, "", "io_per_second" },
	{ "io.bytes", "By/s", GAUGE, SUFFIXES, "", "io_bytes_per_second" },
	{ "cpu_seconds_total", "s", COUNTER, SUFFIXES, "", "cpu_seconds_total" },
	/* Characters. */
	{ "1st.metric", "", GAUGE, SUFFIXES, "", "_1st_metric" },
	{ "1st.metric", "", GAUGE, SUFFIXES, "app", "app_1st_metric" },
	{ "m__x_", "", GAUGE, SUFFIXES, "", "m_x" },
	{ "m__x_", "", GAUGE, PLAIN, "", "m__x_" },
	{ "a:b", "", GAUGE, SUFFIXES, "", "a:b" },
	{ "m\xc3\xa9tric", "", GAUGE, SUFFIXES, "", "m_tric" },
	{ "m\xc3\xa9tric", "", GAUGE, PLAIN, "", "m_tric" },
	{ "@m@@#x$", "", GAUGE, PLAIN, "", "m_x" },
	{ "1st", "", GAUGE, PLAIN, "", "_1st" },
	{ "m", "s", COUNTER, PLAIN, "", "m" },
	{ "m", "1", GAUGE, PLAIN, "", "m" },
	{ "m", "", GAUGE, PLAIN, "test@ns!?", "test_ns_m" },
	{ "m", "", GAUGE, SUFFIXES, "my.app", "my_app_m" },
	/* Nothing left. */
	{ "", "s", GAUGE, SUFFIXES, "", NULL },
	{ "", "", GAUGE, SUFFIXES, "app", NULL },
	{ "", "", GAUGE, UTF8_PLAIN, "app", NULL },
	{ "@#$%", "s", COUNTER, SUFFIXES, "app", NULL },
	{ "@#$%", "", GAUGE, PLAIN, "", NULL },
	{ "___", "", GAUGE, PLAIN, "", NULL },
	/* Names as they are. */
	{ "http.server.duration", "ms", HISTOGRAM, UTF8_PLAIN, "", "http.server.duration" },
	{ "http.requests", "1/s", COUNTER, UTF8_PLAIN, "app", "app_http.requests" },
	{ "http.requests", "1/s", COUNTER, UTF8_SUFFIXES, "app",
	  "app_http.requests_per_second_total" },
	{ "m\xc3\xa9tric", "", COUNTER, UTF8_SUFFIXES, "", "m\xc3\xa9tric_total" },
	{ "requests_total", "", COUNTER, UTF8_SUFFIXES, "", "requests_total" },
	{ "cpu_seconds_total", "s", COUNTER, UTF8_SUFFIXES, "", "cpu_seconds_total" },
	{ "cpu.seconds", "s", GAUGE, UTF8_SUFFIXES, "", "cpu.seconds" },
	{ "use_ratio", "1", GAUGE, UTF8_SUFFIXES, "", "use_ratio" },
	{ "@#$%", "", COUNTER, UTF8_SUFFIXES, "", "@#$%_total" },
	{ "total", "", COUNTER, UTF8_SUFFIXES, "", "total_total" },
	{ "bad\xff", "", GAUGE, UTF8_PLAIN, "", "bad\xef\xbf\xbd" },
};

static void metrics_have_their_names(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT_OF(metrics); i++) {
		struct prometheus_naming n =
			prometheus_naming(metrics[i].prefix, metrics[i].strategy);
		const char *want = metrics[i].want;
		struct buf out = BUF_INIT;
		int ret;

		buf_add_str(&out, "before ");
		ret = prometheus_metric_name(&n, bytes_str(metrics[i].name),
					     bytes_str(metrics[i].unit), metrics[i].kind, &out);
		if (ret != (want != NULL ? 0 : -1) ||
		    strcmp(buf_cstr(&out) + 7, want != NULL ? want : "") != 0)
			fail_msg("%s [%s]: %d \"%s\", want \"%s\"", metrics[i].name,
				 metrics[i].unit, ret, buf_cstr(&out) + 7, want ? want : "");
		buf_fini(&out);
	}
}

static void units_have_words(void **state)
{
	static const struct {
		const char *unit;
		enum prometheus_kind kind;
		const char *want;
	} cases[] = {
		{ "ms", HISTOGRAM, "milliseconds" },
		{ "By/s", GAUGE, "bytes_per_second" },
		{ "1/s", GAUGE, "per_second" },
		{ "1", GAUGE, "ratio" },
		{ "1", COUNTER, "" },
		{ "{packet}", COUNTER, "" },
		{ "", GAUGE, "" },
		{ "unit__x", GAUGE, "unit_x" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		struct buf out = BUF_INIT;

		prometheus_unit_name(bytes_str(cases[i].unit), cases[i].kind, &out);
		assert_string_equal(buf_cstr(&out), cases[i].want);
		buf_fini(&out);
	}
	assert_string_equal(prometheus_kind_name(UP_DOWN), "gauge");
	assert_string_equal(prometheus_kind_name(PROMETHEUS_UNKNOWN), "unknown");
}

static void labels_have_their_names(void **state)
{
	static const struct {
		const char *key;
		enum prometheus_strategy strategy;
		const char *want;
	} cases[] = {
		{ "http.request.method", SUFFIXES, "http_request_method" },
		{ "a__b", PLAIN, "a_b" },
		{ "a..b", PLAIN, "a_b" },
		{ "label:with:colons", SUFFIXES, "label_with_colons" },
		{ "Capital", SUFFIXES, "Capital" },
		{ "special$chars)", SUFFIXES, "special_chars_" },
		{ "foreign_\xe5\xad\x97\xe7\xac\xa6", SUFFIXES, "foreign_" },
		{ "123label", SUFFIXES, "key_123label" },
		{ "_label", SUFFIXES, "key_label" },
		{ ".label", SUFFIXES, "key_label" },
		{ "__label", SUFFIXES, "key_label" },
		{ "__name__", SUFFIXES, "__name__" },
		{ "__a.b__", SUFFIXES, "key_a_b_" },
		{ "", SUFFIXES, NULL },
		{ "__", SUFFIXES, NULL },
		{ "\xe5\xad\x97", SUFFIXES, NULL },
		{ "http.request.method", UTF8_PLAIN, "http.request.method" },
		{ "\xe5\xad\x97", UTF8_SUFFIXES, "\xe5\xad\x97" },
		{ "\xff", UTF8_PLAIN, "\xef\xbf\xbd" },
		{ "", UTF8_PLAIN, NULL },
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		struct prometheus_naming n = prometheus_naming("ns", cases[i].strategy);
		struct bytes key = bytes_str(cases[i].key);
		const char *want = cases[i].want;
		struct buf out = BUF_INIT;
		int ret = prometheus_label_name(&n, key, &out);

		if (ret != (want != NULL ? 0 : -1) || strcmp(buf_cstr(&out), want ? want : "") != 0)
			fail_msg("%s: %d \"%s\", want \"%s\"", cases[i].key, ret, buf_cstr(&out),
				 want ? want : "");
		/* What is its own name by the quick look comes out the same by the long one. */
		if (prometheus_label_is_name(&n, key))
			assert_string_equal(want, cases[i].key);
		buf_fini(&out);
	}
}

static void bounds_are_short_decimals(void **state)
{
	static const struct {
		double v;
		const char *want;
	} cases[] = {
		{ 0, "0" },
		{ -0.0, "-0" },
		{ 1, "1" },
		{ 10, "10" },
		{ 2.5, "2.5" },
		{ 0.005, "0.005" },
		{ 0.1, "0.1" },
		{ 1.0 / 3, "0.3333333333333333" },
		{ 16000, "16000" },
		{ 1e6, "1000000" },
		{ 123456789, "123456789" },
		{ 1e20, "100000000000000000000" },
		{ 1e21, "1e+21" },
		{ 1e-7, "0.0000001" },
		{ 1.5e-9, "0.0000000015" },
		{ 5e-324, "5e-324" },
		{ 1.7976931348623157e308, "1.7976931348623157e+308" },
		{ -1234567.5, "-1234567.5" },
		{ INFINITY, "+Inf" },
		{ -INFINITY, "-Inf" },
		{ NAN, "NaN" },
	};
	char out[PROMETHEUS_BOUND_MAX];

	(void)state;
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		assert_int_equal(prometheus_bound_text(cases[i].v, out), strlen(cases[i].want));
		assert_string_equal(out, cases[i].want);
	}
	for (double v = 1.1e-300; v < 1e300; v *= 7.3) {
		prometheus_bound_text(v, out);
		assert_true(strtod(out, NULL) == v);
	}
}

/* ---- label sets ---- */

static void put_string(struct buf *b, uint32_t number, const char *key, const char *value)
{
	otlp_attr_bytes(b, number, bytes_str(key), OTLP_STRING, bytes_str(value));
}

/* name="value" of all, in order. */
static const char *text_of(struct prometheus_labels *l, struct buf *out)
{
	buf_reset(out);
	for (uint32_t i = 0; i < l->n; i++)
		buf_printf(out, "%s%.*s=\"%.*s\"", i ? " " : "", (int)l->v[i].name.n,
			   l->v[i].name.p, (int)l->v[i].value.n, l->v[i].value.p);
	return buf_cstr(out);
}

static void attributes_become_labels(void **state)
{
	static const struct bytes raw = { (const uint8_t *)"ok\xff", 3 };
	struct prometheus_naming n = prometheus_naming("", SUFFIXES);
	struct prometheus_labels l = PROMETHEUS_LABELS_INIT;
	struct buf m = BUF_INIT, out = BUF_INIT;
	int64_t minus = -3;

	(void)state;
	put_string(&m, 7, "zone", "eu");
	put_string(&m, 7, "a.b", "2nd");
	put_string(&m, 7, "a-b", "1st");
	put_string(&m, 7, "a/b", "3rd, given twice");
	put_string(&m, 7, "a/b", "3rd");
	put_string(&m, 7, "empty", "");
	put_string(&m, 7, "__", "nameless");
	put_string(&m, 6, "other", "field");
	otlp_attr_uint(&m, 7, BYTES_LIT("n"), OTLP_INT, (uint64_t)minus);
	otlp_attr_uint(&m, 7, BYTES_LIT("yes"), OTLP_BOOL, 1);
	otlp_attr_bytes(&m, 7, BYTES_LIT("raw"), OTLP_STRING, raw);
	for (int i = 0; i < 3; i++) { /* reused: the same each time */
		prometheus_labels_reset(&l);
		prometheus_labels_add_attributes(&l, &n, buf_bytes(&m), 7);
		prometheus_labels_finish(&l);
		assert_string_equal(text_of(&l, &out),
				    "a_b=\"1st;2nd;3rd\" n=\"-3\" raw=\"ok\xef\xbf\xbd\" "
				    "yes=\"true\" zone=\"eu\"");
	}
	assert_int_equal(l.n_nameless, 3);
	prometheus_labels_fini(&l);
	buf_fini(&m);
	buf_fini(&out);
}

static void the_higher_rank_wins(void **state)
{
	struct prometheus_naming n = prometheus_naming("", SUFFIXES);
	struct prometheus_labels l = PROMETHEUS_LABELS_INIT;
	struct prometheus_target t = { BYTES_LIT("shop/cart"), BYTES_LIT("i-1") };
	struct buf m = BUF_INIT, out = BUF_INIT;

	(void)state;
	put_string(&m, 1, "job", "mine");
	put_string(&m, 1, "le", "mine");
	put_string(&m, 1, "cluster", "mine");
	prometheus_labels_add_external(&l, BYTES_LIT("cluster"), BYTES_LIT("external"));
	prometheus_labels_add_external(&l, BYTES_LIT("region"), BYTES_LIT("external"));
	prometheus_labels_add(&l, BYTES_LIT("le"), BYTES_LIT("0.5"));
	prometheus_labels_add_target(&l, &t);
	prometheus_labels_add_attributes(&l, &n, buf_bytes(&m), 1);
	prometheus_labels_finish(&l);
	assert_string_equal(text_of(&l, &out),
			    "cluster=\"mine\" instance=\"i-1\" job=\"shop/cart\" le=\"0.5\" "
			    "region=\"external\"");
	prometheus_labels_put(&l, BYTES_LIT("le"), BYTES_LIT("+Inf"));
	prometheus_labels_put(&l, BYTES_LIT("__name__"), BYTES_LIT("x_bucket"));
	prometheus_labels_put(&l, BYTES_LIT("zz"), BYTES_LIT("last"));
	prometheus_labels_put(&l, BYTES_LIT("job"), BYTES_EMPTY);
	prometheus_labels_put(&l, BYTES_LIT("nothing"), BYTES_EMPTY);
	assert_string_equal(text_of(&l, &out),
			    "__name__=\"x_bucket\" cluster=\"mine\" instance=\"i-1\" le=\"+Inf\" "
			    "region=\"external\" zz=\"last\"");
	assert_true(bytes_eq_str(prometheus_labels_find(&l, BYTES_LIT("region")), "external"));
	assert_int_equal(prometheus_labels_find(&l, BYTES_LIT("job")).n, 0);
	prometheus_labels_fini(&l);
	buf_fini(&m);
	buf_fini(&out);
}

static void targets_come_from_the_resource(void **state)
{
	static const struct {
		const char *name, *space, *instance, *other, *want; /* NULL: not there */
	} cases[] = {
		{ "cart", NULL, "i-1", "h1", "host_name=\"h1\" instance=\"i-1\" job=\"cart\"" },
		{ "cart", "shop", NULL, "h1", "host_name=\"h1\" job=\"shop/cart\"" },
		{ "cart", "", "", "h1", "host_name=\"h1\" job=\"cart\"" },
		{ NULL, "shop", "i-1", "h1", "host_name=\"h1\" instance=\"i-1\"" },
		{ "cart", "shop", "i-1", NULL, NULL },
		{ NULL, "shop", NULL, "h1", NULL },
		{ NULL, NULL, NULL, NULL, NULL },
	};
	struct prometheus_naming n = prometheus_naming("", SUFFIXES);

	(void)state;
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		struct prometheus_labels l = PROMETHEUS_LABELS_INIT;
		struct buf m = BUF_INIT, out = BUF_INIT;
		struct arena arena = ARENA_INIT;
		struct prometheus_target t;
		bool is_there;

		if (cases[i].space != NULL)
			put_string(&m, 1, "service.namespace", cases[i].space);
		if (cases[i].name != NULL)
			put_string(&m, 1, "service.name", cases[i].name);
		if (cases[i].instance != NULL)
			put_string(&m, 1, "service.instance.id", cases[i].instance);
		if (cases[i].other != NULL)
			put_string(&m, 1, "host.name", cases[i].other);
		t = prometheus_target(buf_bytes(&m), &arena);
		is_there = prometheus_labels_add_target_info(&l, &n, buf_bytes(&m), &t);
		prometheus_labels_finish(&l);
		assert_int_equal(is_there, cases[i].want != NULL);
		if (is_there)
			assert_string_equal(text_of(&l, &out), cases[i].want);
		prometheus_labels_fini(&l);
		arena_fini(&arena);
		buf_fini(&m);
		buf_fini(&out);
	}
}

static void a_target_may_be_a_number(void **state)
{
	struct arena arena = ARENA_INIT;
	struct prometheus_target t;
	struct buf m = BUF_INIT;

	(void)state;
	otlp_attr_uint(&m, 1, BYTES_LIT("service.name"), OTLP_INT, 7);
	otlp_attr_bytes(&m, 1, BYTES_LIT("service.instance.id"), OTLP_STRING,
			(struct bytes){ (const uint8_t *)"\xff!", 2 });
	t = prometheus_target(buf_bytes(&m), &arena);
	assert_true(bytes_eq_str(t.job, "7"));
	assert_true(bytes_eq_str(t.instance, "\xef\xbf\xbd!"));
	arena_fini(&arena);
	buf_fini(&m);
}

static void scopes_have_labels(void **state)
{
	struct prometheus_naming n = prometheus_naming("", SUFFIXES);
	struct prometheus_labels l = PROMETHEUS_LABELS_INIT;
	struct buf m = BUF_INIT, out = BUF_INIT;

	(void)state;
	pb_put_str(&m, 1, "io.otel.http");
	pb_put_str(&m, 2, "1.2");
	put_string(&m, 3, "name", "no match for the scope's own");
	put_string(&m, 3, "library.mascot", "bear");
	put_string(&m, 3, "library-mascot", "bird");
	prometheus_labels_add_scope(&l, &n, buf_bytes(&m), BYTES_LIT("http://schema"));
	prometheus_labels_finish(&l);
	assert_string_equal(text_of(&l, &out),
			    "otel_scope_library_mascot=\"bird;bear\" "
			    "otel_scope_name=\"io.otel.http\" "
			    "otel_scope_schema_url=\"http://schema\" otel_scope_version=\"1.2\"");
	prometheus_labels_reset(&l);
	prometheus_labels_add_scope(&l, &n, BYTES_EMPTY, BYTES_EMPTY);
	prometheus_labels_finish(&l);
	assert_int_equal(l.n, 0);
	prometheus_labels_fini(&l);
	buf_fini(&m);
	buf_fini(&out);
}

/* More than insertion sort takes, and all of one name: what is joined grows with the input only. */
static void many_labels_are_sorted_and_joined(void **state)
{
	struct prometheus_naming n = prometheus_naming("", SUFFIXES);
	struct prometheus_labels l = PROMETHEUS_LABELS_INIT;
	enum { MANY = 20000 };
	struct buf m = BUF_INIT;
	char key[32];

	(void)state;
	for (int i = 0; i < MANY; i++) {
		snprintf(key, sizeof(key), "k%05d", (i * 7919) % MANY);
		put_string(&m, 1, key, "v");
	}
	prometheus_labels_add_attributes(&l, &n, buf_bytes(&m), 1);
	prometheus_labels_finish(&l);
	assert_int_equal(l.n, MANY);
	for (uint32_t i = 1; i < l.n; i++)
		assert_true(memcmp(l.v[i - 1].name.p, l.v[i].name.p, 6) < 0);

	buf_reset(&m);
	for (int i = 0; i < MANY; i++) {
		char dots[4] = { (char)('!' + i % 12), (char)('!' + i / 12 % 12),
				 (char)('!' + i / 144 % 12), 0 };

		snprintf(key, sizeof(key), "a%s%c", dots, '!' + i / 1728 % 12);
		put_string(&m, 1, key, "0123456789");
	}
	prometheus_labels_reset(&l);
	prometheus_labels_add_attributes(&l, &n, buf_bytes(&m), 1);
	prometheus_labels_finish(&l);
	assert_int_equal(l.n, 1);
	assert_int_equal(l.v[0].value.n, 11 * MANY - 1);
	assert_true(l.arena.bytes < 16 * MIB);
	prometheus_labels_fini(&l);
	buf_fini(&m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(metrics_have_their_names),
		cmocka_unit_test(units_have_words),
		cmocka_unit_test(labels_have_their_names),
		cmocka_unit_test(bounds_are_short_decimals),
		cmocka_unit_test(attributes_become_labels),
		cmocka_unit_test(the_higher_rank_wins),
		cmocka_unit_test(targets_come_from_the_resource),
		cmocka_unit_test(a_target_may_be_a_number),
		cmocka_unit_test(scopes_have_labels),
		cmocka_unit_test(many_labels_are_sorted_and_joined),
	};

	return cmocka_run_group_tests_name("prometheus_name", tests, NULL, NULL);
}
