/* SPDX-License-Identifier: Apache-2.0
 *
 * test_remote_write.c - points as remote-write series: what comes out of each kind, how requests
 * are cut, what is dropped. Against a real Prometheus: tests/integration/test_remote_write.py.
 */
#include "tests/unit/otlp_fixture.h"
#include "tests/unit/remote_write_check.h"

#include <inttypes.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

enum { MS = 1000000 };

/* A batch that metrics_writer wrote, and its index. */
struct fixture {
	struct metrics_writer w;
	struct buf request, resource;
	struct indexed x;
};

static void fixture_begin(struct fixture *f, const char *service)
{
	memset(f, 0, sizeof(*f));
	put_attribute(&f->resource, 1, "service.name", service);
	put_attribute(&f->resource, 1, "host.name", "h1");
	metrics_writer_init(&f->w, &f->request);
	metrics_write_resource(&f->w, buf_bytes(&f->resource), BYTES_EMPTY);
	metrics_write_scope(&f->w, BYTES_EMPTY, BYTES_EMPTY);
}

static void metric_is(struct fixture *f, const char *name, enum metric_kind kind, bool is_monotonic)
{
	metrics_write_metric(&f->w, &(struct metric){ .name = bytes_str(name),
						      .kind = kind,
						      .temporality = TEMPORALITY_CUMULATIVE,
						      .is_monotonic = is_monotonic });
}

static void point_begin(struct fixture *f, uint64_t ms)
{
	metrics_point_begin(&f->w);
	metrics_point_times(&f->w, 0, ms * MS);
}

static void number_is(struct fixture *f, uint64_t ms, double v)
{
	point_begin(f, ms);
	metrics_point_double(&f->w, v);
	metrics_point_end(&f->w);
}

static const struct span_tables *fixture_end(struct fixture *f)
{
	metrics_writer_finish(&f->w);
	assert_int_equal(indexed_init_items(&f->x, OTLP_METRICS, buf_bytes(&f->request)), 0);
	return &f->x.t;
}

static void fixture_fini(struct fixture *f)
{
	indexed_fini(&f->x);
	buf_fini(&f->request);
	buf_fini(&f->resource);
}

/* ---- a request as text ---- */

static void label_text(struct bytes m, struct buf *out)
{
	struct pb_field f = { 0 };

	while (pb_next(&m, &f) > 0) {
		buf_add_bytes(out, f.data);
		buf_add_char(out, f.number == 1 ? '=' : ' ');
	}
}

/* Fields in order: a number and its value; messages in brackets. Floats by %g, varints decoded as
 * signed where `zigzag` has the field's bit. */
static void fields_text(struct bytes m, uint32_t zigzag, struct buf *out)
{
	struct pb_field f = { 0 };
	double d;

	while (pb_next(&m, &f) > 0) {
		int64_t v = (int64_t)f.value;

		if (zigzag >> f.number & 1)
			v = (int64_t)(f.value >> 1) ^ -(int64_t)(f.value & 1);
		if (f.wire == PB_FIXED64) {
			memcpy(&d, &f.value, 8);
			buf_printf(out, "%u:%g ", f.number, d);
		} else if (f.wire == PB_VARINT) {
			buf_printf(out, "%u:%" PRId64 " ", f.number, v);
		}
	}
}

static void deltas_text(struct bytes packed, struct buf *out)
{
	uint64_t v;

	while (packed.n > 0 && pb_varint(&packed, &v))
		buf_printf(out, "%" PRId64 ",", (int64_t)(v >> 1) ^ -(int64_t)(v & 1));
}

static void histogram_text(struct bytes m, struct buf *out)
{
	struct bytes all = m;
	struct pb_field f = { 0 };

	fields_text(m, 1 << 4, out);
	while (pb_next(&all, &f) > 0) {
		if (f.wire != PB_LEN)
			continue;
		buf_printf(out, "%u:[", f.number);
		if (f.number == 8 || f.number == 11)
			fields_text(f.data, 1 << 1, out);
		else
			deltas_text(f.data, out);
		buf_add_str(out, "] ");
	}
}

/* Labels; values as "@time value"; exemplars and histograms. A line per series. */
static const char *request_text(struct bytes request, struct buf *out)
{
	struct pb_field f = { 0 }, g = { 0 };

	buf_reset(out);
	while (pb_next(&request, &f) > 0) {
		while (f.number == 1 && pb_next(&f.data, &g) > 0) {
			if (g.number == 1) {
				label_text(g.data, out);
				continue;
			}
			buf_printf(out, "%s(",
				   g.number == 2   ? "sample"
				   : g.number == 3 ? "exemplar"
						   : "histogram");
			if (g.number == 4)
				histogram_text(g.data, out);
			else
				fields_text(g.data, 0, out);
			buf_add_str(out, ")");
		}
		buf_add_char(out, '\n');
	}
	return buf_cstr(out);
}

static const struct remote_write_options plain = { .naming = { .add_suffixes = true } };

static void assert_written(struct fixture *f, const struct remote_write_options *o,
			   const char *want)
{
	const struct span_tables *t = fixture_end(f);
	struct buf out = BUF_INIT, text = BUF_INIT;
	struct remote_write w;

	remote_write_init(&w, o);
	encode_all(&w, t, &out);
	assert_string_equal(request_text(buf_bytes(&out), &text), want);
	remote_write_fini(&w);
	check_remote_write(t, o);
	buf_fini(&out);
	buf_fini(&text);
	fixture_fini(f);
}

/* ---- tests ---- */

static void numbers_are_samples(void **state)
{
	struct fixture f;

	(void)state;
	fixture_begin(&f, "s");
	metric_is(&f, "g", METRIC_GAUGE, false);
	number_is(&f, 5, -1.5);
	number_is(&f, 6, 2.5);
	metric_is(&f, "c", METRIC_SUM, true);
	number_is(&f, 0, 3); /* no time: the one that is told */
	assert_written(&f, &plain,
		       "__name__=g job=s sample(1:-1.5 2:5 )\n"
		       "__name__=g job=s sample(1:2.5 2:6 )\n"
		       "__name__=c_total job=s sample(1:3 2:1000 )\n");
}

static void buckets_have_their_exemplars(void **state)
{
	static const double bounds[] = { 0.5, 2 };
	static const uint64_t counts[] = { 1, 0, 4 };
	static const struct {
		uint64_t ms;
		double v;
	} exemplars[] = { { 9, 100 }, { 8, 2 }, { 7, 0.5 }, { 6, 3 } };
	struct fixture f;

	(void)state;
	fixture_begin(&f, "s");
	metric_is(&f, "h", METRIC_HISTOGRAM, false);
	point_begin(&f, 5);
	metrics_point_count(&f.w, 5);
	metrics_point_sum(&f.w, 7.5);
	metrics_point_buckets(&f.w, bounds, counts, 2);
	for (size_t i = 0; i < COUNT_OF(exemplars); i++)
		metrics_point_exemplar(
			&f.w,
			&(struct metric_exemplar){ .time_ns = exemplars[i].ms * MS,
						   .has_value = true,
						   .number = { .d = exemplars[i].v } },
			BYTES_EMPTY);
	metrics_point_end(&f.w);
	assert_written(&f, &plain,
		       "__name__=h_count job=s sample(1:5 2:5 )\n"
		       "__name__=h_sum job=s sample(1:7.5 2:5 )\n"
		       "__name__=h_bucket job=s le=0.5 sample(1:1 2:5 )exemplar(2:0.5 3:7 )\n"
		       "__name__=h_bucket job=s le=2 sample(1:1 2:5 )exemplar(2:2 3:8 )\n"
		       "__name__=h_bucket job=s le=+Inf sample(1:5 2:5 )"
		       "exemplar(2:3 3:6 )exemplar(2:100 3:9 )\n");
}

static const struct {
	const char *name;
	int32_t scale, offset;
	uint64_t counts[8];
	size_t n;
	const char *want; /* schema, then spans and deltas */
} natives[] = {
	{ "none", 1, 0, { 0 }, 0, "4:1" },
	{ "one", 0, 0, { 5 }, 1, "4:0|11:[1:1 2:1 ] 12:[5,] " },
	{ "a gap of two is filled", 0, -1, { 1, 0, 0, 2 }, 4, "4:0|11:[1:0 2:4 ] 12:[1,-1,0,2,] " },
	{ "of three not",
	  0,
	  -1,
	  { 1, 0, 0, 0, 2 },
	  5,
	  "4:0|11:[1:0 2:1 ] 11:[1:3 2:1 ] 12:[1,1,] " },
	{ "zeros before and behind", 2, 7, { 0, 0, 3, 0 }, 4, "4:2|11:[1:10 2:1 ] 12:[3,] " },
	{ "finer than 8, merged by two",
	  9,
	  -3,
	  { 1, 2, 4, 8 },
	  4,
	  "4:8|11:[1:-1 2:3 ] 12:[1,5,2,] " },
};

static void native_buckets_are_sparse(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT_OF(natives); i++) {
		const char *bar = strchr(natives[i].want, '|');
		struct fixture f;
		uint64_t sum = 0;
		char want[256];

		for (size_t k = 0; k < natives[i].n; k++)
			sum += natives[i].counts[k];
		fixture_begin(&f, "s");
		metric_is(&f, "e", METRIC_EXPONENTIAL_HISTOGRAM, false);
		point_begin(&f, 5);
		metrics_point_count(&f.w, sum + 1);
		metrics_point_sum(&f.w, 2);
		metrics_point_scale(&f.w, natives[i].scale, 1, 0.25);
		metrics_point_positive(&f.w, natives[i].offset, natives[i].counts, natives[i].n);
		metrics_point_end(&f.w);
		snprintf(want, sizeof(want),
			 "__name__=e job=s histogram(1:%" PRIu64 " 3:2 %.*s 5:0.25 6:1 15:5 %s)\n",
			 sum + 1, bar ? (int)(bar - natives[i].want) : 3, natives[i].want,
			 bar ? bar + 1 : "");
		assert_written(&f, &plain, want);
	}
}

static void a_target_is_told_once_per_request_and_time(void **state)
{
	struct remote_write_options o = plain;
	struct buf out = BUF_INIT, text = BUF_INIT;
	const struct span_tables *t;
	struct remote_write w;
	uint64_t at = 0;
	struct fixture f;

	(void)state;
	o.target_info = true;
	fixture_begin(&f, "s");
	metric_is(&f, "g", METRIC_GAUGE, false);
	number_is(&f, 5, 1);
	number_is(&f, 3, 1);
	t = fixture_end(&f);
	remote_write_init(&w, &o);
	for (int i = 0; i < 3; i++) {
		at = 0;
		buf_reset(&out);
		remote_write_encode(&w, t, &at, 1000, &out);
		/* Not taken, so told again; then taken. */
		assert_int_equal(check_request(buf_bytes(&out)), i < 2 ? 3 : 2);
		if (i == 1)
			remote_write_taken(&w);
	}
	assert_non_null(strstr(request_text(buf_bytes(&out), &text), "__name__=g"));
	remote_write_fini(&w);
	buf_fini(&out);
	buf_fini(&text);
	fixture_fini(&f);
}

/* One point that is larger than a request may be is dropped, its neighbours are not. */
static void a_giant_point_is_dropped_alone(void **state)
{
	enum { BOUNDS = 2000 };
	struct remote_write_options o = plain;
	const struct span_tables *t;
	double bounds[BOUNDS];
	uint64_t counts[BOUNDS + 1] = { 0 };
	struct buf out = BUF_INIT, giant = BUF_INIT;
	struct remote_write w;
	struct fixture f;

	(void)state;
	for (int i = 0; i < BOUNDS; i++)
		bounds[i] = i;
	for (int i = 0; i < 2000; i++)
		buf_add_char(&giant, 'x');
	fixture_begin(&f, "s");
	metric_is(&f, "g", METRIC_GAUGE, false);
	number_is(&f, 5, 1);
	metric_is(&f, "h", METRIC_HISTOGRAM, false);
	point_begin(&f, 5);
	metrics_point_buckets(&f.w, bounds, counts, BOUNDS);
	put_attribute(&f.request, f.w.attribute_field, "k", buf_cstr(&giant));
	metrics_point_end(&f.w);
	metric_is(&f, "g2", METRIC_GAUGE, false);
	number_is(&f, 5, 2);
	t = fixture_end(&f);
	o.max_bytes = 100000;
	remote_write_init(&w, &o);
	assert_int_equal(encode_all(&w, t, &out), 2);
	assert_int_equal(w.dropped[REMOTE_WRITE_TOO_LARGE], 1);
	assert_string_equal(w.first_dropped, "h: one point is larger than two requests");
	assert_int_equal(check_request(buf_bytes(&out)), 2);
	assert_true(out.n < 1000);
	remote_write_fini(&w);
	buf_fini(&out);
	buf_fini(&giant);
	fixture_fini(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(numbers_are_samples),
		cmocka_unit_test(buckets_have_their_exemplars),
		cmocka_unit_test(native_buckets_are_sparse),
		cmocka_unit_test(a_target_is_told_once_per_request_and_time),
		cmocka_unit_test(a_giant_point_is_dropped_alone),
	};

	return cmocka_run_group_tests_name("remote_write", tests, NULL, NULL);
}
