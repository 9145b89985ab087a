/* SPDX-License-Identifier: Apache-2.0
 *
 * test_otlp_metrics.c - metrics read point by point and written point by point: every kind, every
 * fault, packed and unpacked lists, golden payloads, and the copy of each that the writer makes.
 */
#include "tests/unit/json_golden.h"
#include "tests/unit/metrics_fixture.h"
#include "tests/unit/otlp_fixture.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

/* A request with one metric, whose fields these are. */
static void request_of(struct bytes metric, struct buf *out)
{
	size_t rs = pb_begin(out, 1), ss;

	put_resource(out, "svc");
	ss = pb_begin(out, 2);
	put_scope(out, "lib");
	pb_put_bytes(out, 2, metric);
	pb_end(out, ss);
	pb_put_str(out, 3, "url");
	pb_end(out, rs);
}

/* What the walk of a request gives, both ways; the items' walk must say the same. */
static int text_of(struct bytes request, struct buf *out)
{
	struct buf items = BUF_INIT;
	struct metrics_reader r;
	struct indexed x;
	int got;

	metrics_reader_request(&r, request);
	got = dump_metrics(&r, true, out);
	if (indexed_init_items(&x, OTLP_METRICS, request) == 0) {
		metrics_reader_items(&r, &x.t);
		assert_int_equal(dump_metrics(&r, true, &items), 0);
		assert_string_equal(buf_cstr(&items), buf_cstr(out));
	} else {
		assert_int_equal(got, -1);
	}
	indexed_fini(&x);
	buf_fini(&items);
	return got;
}

#define HEAD "{service.name=1:svc }url/lib@1.0/"

static const struct {
	const char *name, *metric;
	size_t n;
	const char *want; /* NULL: damaged */
} points[] = {
#define M(bytes) bytes, sizeof(bytes) - 1
	{ "no data", M("\x0a\x01n"), "" },
	{ "no points", M("\x2a\x00"), "" },
	{ "a gauge without value", M("\x2a\x02\x0a\x00"), ",, 5 0 !it has no value\n" },
	{ "an int", M("\x2a\x0b\x0a\x09\x31\xff\xff\xff\xff\xff\xff\xff\xff"),
	  ",, 5 0 {} 0..0 f0 -1\n" },
	{ "a double", M("\x2a\x0b\x0a\x09\x21\0\0\0\0\0\0\xf0\x3f"), ",, 5 0 {} 0..0 f0 0x1p+0\n" },
	{ "of two values the last",
	  M("\x2a\x14\x0a\x12\x21\0\0\0\0\0\0\xf0\x3f\x31\x02\0\0\0\0\0\0\0"),
	  ",, 5 0 {} 0..0 f0 2\n" },
	{ "a sum, monotonic, cumulative",
	  M("\x3a\x0f\x10\x02\x18\x01\x0a\x09\x31\x05\0\0\0\0\0\0\0"), ",, 7 2m {} 0..0 f0 5\n" },
	{ "what it says comes behind the points",
	  M("\x3a\x0f\x0a\x09\x31\x05\0\0\0\0\0\0\0\x10\x01\x18\x01"), ",, 7 1m {} 0..0 f0 5\n" },
	{ "two pieces of one sum",
	  M("\x3a\x0b\x0a\x09\x31\x05\0\0\0\0\0\0\0\x3a\x0d\x10\x02\x0a\x09\x31\x06\0\0\0\0\0\0\0"),
	  ",, 7 2 {} 0..0 f0 5\n" HEAD ",, 7 2 {} 0..0 f0 6\n" },
	{ "of two kinds the last",
	  M("\x3a\x0d\x10\x02\x0a\x09\x31\x05\0\0\0\0\0\0\0\x2a\x0b\x0a\x09\x31\x06\0\0\0\0\0\0\0"),
	  ",, 5 0 {} 0..0 f0 6\n" },
	{ "an ended series has no value", M("\x2a\x04\x0a\x02\x40\x01"), ",, 5 0 {} 0..0 f1 \n" },
	{ "flags of a wrong type", M("\x2a\x05\x0a\x03\x42\x01x"),
	  ",, 5 0 !a field has the wire type of another\n" },
	{ "a point cut short", M("\x2a\x03\x0a\x01\x31"), ",, 5 0 !it is damaged\n" },
	{ "points cut short", M("\x2a\x03\x0a\x05\x31"), NULL },
	{ "points of a wrong type", M("\x2a\x02\x08\x05"), NULL },
	{ "data of a wrong type", M("\x28\x05"), NULL },
	{ "a damaged attribute", M("\x2a\x05\x0a\x03\x3a\x01\x0a"),
	  ",, 5 0 !an attribute is damaged\n" },
	{ "an empty histogram", M("\x4a\x02\x0a\x00"),
	  ",, 9 0 {} 0..0 f0 n=0 [|] 0 0 0x0p+0 + 0 - 0 \n" },
	{ "packed buckets",
	  M("\x4a\x27\x0a\x25\x21\x03\0\0\0\0\0\0\0\x32\x10\x01\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0"
	    "\x3a\x08\0\0\0\0\0\0\0\x40"),
	  ",, 9 0 {} 0..0 f0 n=3 [1 2 |0x1p+1 ] 0 0 0x0p+0 + 0 - 0 \n" },
	{ "unpacked buckets",
	  M("\x4a\x26\x0a\x24\x31\x01\0\0\0\0\0\0\0\x21\x03\0\0\0\0\0\0\0\x31\x02\0\0\0\0\0\0\0"
	    "\x39\0\0\0\0\0\0\0\x40"),
	  ",, 9 0 {} 0..0 f0 n=3 [1 2 |0x1p+1 ] 0 0 0x0p+0 + 0 - 0 \n" },
	{ "more in the buckets than the count",
	  M("\x4a\x15\x0a\x13\x21\x03\0\0\0\0\0\0\0\x32\x08\x04\0\0\0\0\0\0\0"),
	  ",, 9 0 !its buckets hold more than its count\n" },
	{ "counts without bounds",
	  M("\x4a\x1d\x0a\x1b\x21\x03\0\0\0\0\0\0\0\x32\x10\x01\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0"),
	  ",, 9 0 !its bucket counts do not go with its bounds\n" },
	{ "bounds without counts", M("\x4a\x0c\x0a\x0a\x3a\x08\0\0\0\0\0\0\0\x40"),
	  ",, 9 0 !its bucket counts do not go with its bounds\n" },
	{ "half a bucket", M("\x4a\x05\x0a\x03\x32\x01x"),
	  ",, 9 0 !a list of buckets is damaged\n" },
	{ "equal bounds",
	  M("\x4a\x2e\x0a\x2c\x32\x18\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
	    "\x3a\x10\0\0\0\0\0\0\0\x40\0\0\0\0\0\0\0\x40"),
	  ",, 9 0 !its bounds do not ascend\n" },
	{ "an exponential histogram",
	  M("\x52\x25\x0a\x23\x21\x06\0\0\0\0\0\0\0\x30\x05\x39\x01\0\0\0\0\0\0\0"
	    "\x42\x06\x08\x01\x12\x02\x02\x01\x4a\x05\x12\x03\x01\x00\x01"),
	  ",, 10 0 {} 0..0 f0 n=6 [|] -3 1 0x0p+0 + -1 2 1 - 0 1 0 1 \n" },
	{ "unpacked varints", M("\x52\x11\x0a\x0f\x21\x03\0\0\0\0\0\0\0\x42\x04\x10\x02\x10\x01"),
	  ",, 10 0 {} 0..0 f0 n=3 [|] 0 0 0x0p+0 + 0 2 1 - 0 \n" },
	{ "a bucket's varint is cut", M("\x52\x07\x0a\x05\x42\x03\x12\x01\x80"),
	  ",, 10 0 !bucket counts are damaged\n" },
	{ "a bucket's varint is too long",
	  M("\x52\x11\x0a\x0f\x42\x0d\x12\x0b\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01"),
	  ",, 10 0 !its buckets hold more than its count\n" },
	{ "a scale of 21", M("\x52\x04\x0a\x02\x30\x2a"),
	  ",, 10 0 !its scale is not in -11..20\n" },
	{ "an offset at the edge",
	  M("\x52\x17\x0a\x15\x21\x01\0\0\0\0\0\0\0\x42\x0a\x08\xfe\xff\xff\xff\x0f\x12\x02\x01"
	    "\x00"),
	  ",, 10 0 !a bucket's index passes 2^31\n" },
	{ "positive twice", M("\x52\x0a\x0a\x08\x42\x03\x12\x01\0\x42\x01\x08"),
	  ",, 10 0 !buckets of one sign are given twice\n" },
	{ "a summary",
	  M("\x5a\x28\x0a\x26\x21\x02\0\0\0\0\0\0\0\x29\0\0\0\0\0\0\xf0\x3f"
	    "\x32\x12\x09\0\0\0\0\0\0\xe0\x3f\x11\0\0\0\0\0\0\xf0\x3f"),
	  ",, 11 0 {} 0..0 f0 n=2 sum=0x1p+0 [|] 0 0 0x0p+0 + 0 - 0 q0x1p-1=0x1p+0 \n" },
#undef M
};

static void points_are_read_or_faulted(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT_OF(points); i++) {
		struct bytes metric = { (const uint8_t *)points[i].metric, points[i].n };
		struct buf request = BUF_INIT, got = BUF_INIT, want = BUF_INIT;
		int rc;

		request_of(metric, &request);
		rc = text_of(buf_bytes(&request), &got);
		if (points[i].want != NULL && points[i].want[0] != '\0') {
			bool is_named = metric.p[0] == 0x0a;

			buf_printf(&want, HEAD "%s%s", is_named ? "n" : "", points[i].want);
		}
		if (rc != (points[i].want == NULL ? -1 : 0) ||
		    strcmp(buf_cstr(&got), buf_cstr(&want)) != 0)
			fail_msg("%s: %d %s, want %s", points[i].name, rc, buf_cstr(&got),
				 buf_cstr(&want));
		buf_fini(&request);
		buf_fini(&got);
		buf_fini(&want);
	}
}

/* ---- what SDKs wrote ---- */

/* The points without fault: Fluent Bit's histogram has more in its buckets than its count. */
static void check_copy(struct bytes request, const char *name)
{
	struct buf before = BUF_INIT, after = BUF_INIT, copy = BUF_INIT;
	struct metrics_reader r;
	struct metrics_writer w;

	metrics_reader_request(&r, request);
	assert_int_equal(dump_metrics(&r, false, &before), 0);
	metrics_reader_request(&r, request);
	metrics_writer_init(&w, &copy);
	assert_int_equal(copy_metrics(&r, &w), 0);
	assert_int_equal(text_of(buf_bytes(&copy), &after), 0);
	if (strcmp(buf_cstr(&before), buf_cstr(&after)) != 0)
		fail_msg("%s: %s\nis not %s", name, buf_cstr(&after), buf_cstr(&before));
	assert_true(before.n > 0 && w.n_points > 0);
	buf_fini(&before);
	buf_fini(&after);
	buf_fini(&copy);
}

static void golden_payloads_survive_a_copy(void **state)
{
	static const char *const files[] = { "otlp/derived/metrics.pb",
					     "otlp/fluentbit-metrics-payload.bin" };
	struct buf b = BUF_INIT;

	(void)state;
	for (size_t i = 0; i < COUNT_OF(files); i++)
		if (json_golden_read(files[i], &b))
			check_copy(buf_bytes(&b), files[i]);
	buf_fini(&b);
}

/* ---- the writer ---- */

static const uint8_t trace_id[16] = { 1, 2, 3 }, span_id[8] = { 9, 8 };

static void write_exemplar(struct metrics_writer *w)
{
	struct metric_exemplar x = { .time_ns = 7,
				     .number = { .d = 1.5 },
				     .trace_id = { trace_id, 16 },
				     .span_id = { span_id, 8 } };

	metrics_point_exemplar(w, &x, BYTES_EMPTY);
}

static void write_histograms(struct metrics_writer *w)
{
	const double bounds[] = { 1, 2.5 };
	const uint64_t counts[] = { 3, 4, 200 };

	metrics_write_metric(w, &(struct metric){ .name = BYTES_LIT("h"),
						  .unit = BYTES_LIT("s"),
						  .kind = METRIC_HISTOGRAM,
						  .temporality = TEMPORALITY_DELTA });
	metrics_point_begin(w);
	metrics_point_times(w, 1, 2);
	metrics_point_count(w, 207);
	metrics_point_sum(w, 0.5);
	metrics_point_min_max(w, -1, 4);
	metrics_point_buckets(w, bounds, counts, 2);
	write_exemplar(w);
	metrics_point_end(w);
	metrics_write_metric(w, &(struct metric){ .name = BYTES_LIT("e"),
						  .kind = METRIC_EXPONENTIAL_HISTOGRAM,
						  .temporality = TEMPORALITY_CUMULATIVE });
	metrics_point_begin(w);
	metrics_point_count(w, 415);
	metrics_point_scale(w, -1, 1, 0.25);
	metrics_point_positive(w, -5, counts, 3);
	metrics_point_negative(w, 6, counts, 3);
	write_exemplar(w);
	metrics_point_end(w);
}

static void write_numbers(struct metrics_writer *w)
{
	struct buf pairs = BUF_INIT;

	put_attribute(&pairs, 1, "a", "b");
	metrics_write_metric(w, &(struct metric){ .name = BYTES_LIT("c"),
						  .description = BYTES_LIT("d"),
						  .kind = METRIC_SUM,
						  .temporality = TEMPORALITY_CUMULATIVE,
						  .is_monotonic = true });
	for (int i = 0; i < 2; i++) {
		metrics_point_begin(w);
		metrics_point_attributes(w, buf_bytes(&pairs));
		metrics_point_double(w, i);
		metrics_point_flags(w, (uint32_t)i);
		metrics_point_end(w);
	}
	buf_fini(&pairs);
}

#define X " #7 0x1.8p+0 t01020300000000000000000000000000 s0908000000000000{}\n"
static const char *const want_written =
	"{r=1:s }u/sc@1/c,d, 7 2m {a=1:b } 0..0 f0 0x0p+0\n"
	"{r=1:s }u/sc@1/c,d, 7 2m {a=1:b } 0..0 f1 0x1p+0\n"
	"{r=1:s }u/sc@1/h,,s 9 1 {} 1..2 f0 n=207 sum=0x1p-1 min=-0x1p+0 max=0x1p+2 "
	"[3 4 200 |0x1p+0 0x1.4p+1 ] 0 0 0x0p+0 + 0 - 0 " X
	"{r=1:s }u/sc@1/e,, 10 2 {} 0..0 f0 n=415 [|] -1 1 0x1p-2 + -5 3 4 200 - 6 3 4 200 " X
	"{}/@/c,d, 7 2m {a=1:b } 0..0 f0 0x0p+0\n"
	"{}/@/c,d, 7 2m {a=1:b } 0..0 f1 0x1p+0\n";

static void write_all(struct metrics_writer *w)
{
	struct buf pairs = BUF_INIT;

	put_attribute(&pairs, 9, "r", "s");
	metrics_write_resource(w, buf_bytes(&pairs), BYTES_LIT("u"));
	metrics_write_scope(w, BYTES_LIT("sc"), BYTES_LIT("1"));
	write_numbers(w);
	write_histograms(w);
	metrics_write_resource(w, BYTES_EMPTY, BYTES_EMPTY);
	metrics_write_scope(w, BYTES_EMPTY, BYTES_EMPTY);
	write_numbers(w);
	metrics_writer_finish(w);
	buf_fini(&pairs);
}

static void what_is_written_is_read(void **state)
{
	struct buf out = BUF_INIT, text = BUF_INIT;
	struct metrics_writer w;

	(void)state;
	metrics_writer_init(&w, &out);
	write_all(&w);
	assert_int_equal(w.n_points, 6);
	assert_int_equal(text_of(buf_bytes(&out), &text), 0);
	assert_string_equal(buf_cstr(&text), want_written);
	buf_fini(&text);
	buf_fini(&out);
}

/* At any cap the writer stops quietly and writes nothing behind it. */
static void a_full_buffer_stops_the_writer(void **state)
{
	struct metrics_writer w;
	struct buf whole = BUF_INIT;

	(void)state;
	metrics_writer_init(&w, &whole);
	write_all(&w);
	for (size_t max = 1; max < whole.n; max++) {
		struct buf out = BUF_INIT_MAX(max);

		metrics_writer_init(&w, &out);
		write_all(&w);
		assert_true(out.overflow && out.n <= max);
		buf_fini(&out);
	}
	buf_fini(&whole);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(points_are_read_or_faulted),
		cmocka_unit_test(golden_payloads_survive_a_copy),
		cmocka_unit_test(what_is_written_is_read),
		cmocka_unit_test(a_full_buffer_stops_the_writer),
	};

	return cmocka_run_group_tests_name("otlp_metrics", tests, NULL, NULL);
}
