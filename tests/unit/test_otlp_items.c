/* SPDX-License-Identifier: Apache-2.0
 *
 * test_otlp_items.c - logs and metrics: what the index counts and refuses, batches of them, and
 * their JSON both ways, against golden pairs that another implementation wrote.
 */
#include "pipeline/batch.h"
#include "pipeline/batch_record.h"
#include "tests/unit/json_golden.h"
#include "tests/unit/otlp_fixture.h"
#include "wire/otlp_json_decode.h"
#include "wire/otlp_json_encode.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

/* ---- the index ---- */

/* Every request is an item's bytes in a scope in a resource. */
static const struct {
	const char *name;
	enum otlp_signal signal;
	const char *item;
	size_t n;
	int n_points; /* -1: damaged */
} items[] = {
	{ "an empty record", OTLP_LOGS, "", 0, 0 },
	{ "a record", OTLP_LOGS, "\x10\x09\x2a\x03\x0a\x01x", 7, 0 },
	{ "a record cut short", OTLP_LOGS, "\x10\x09\x2a\x04\x0a\x01x", 7, -1 },
	{ "a record's attribute is not looked into", OTLP_LOGS, "\x32\x02\x0a\x7f", 4, 0 },
	{ "an unknown field of a record", OTLP_LOGS, "\xa2\x06\x01x", 4, 0 },
	{ "a group is not OTLP", OTLP_LOGS, "\x0b", 1, -1 },
	{ "a metric without points", OTLP_METRICS, "\x0a\x01n", 3, 0 },
	{ "a gauge of two", OTLP_METRICS, "\x2a\x04\x0a\x00\x0a\x00", 6, 2 },
	{ "a sum of one", OTLP_METRICS, "\x3a\x04\x0a\x00\x10\x02", 6, 1 },
	{ "a histogram", OTLP_METRICS, "\x4a\x02\x0a\x00", 4, 1 },
	{ "an exponential histogram", OTLP_METRICS, "\x52\x02\x0a\x00", 4, 1 },
	{ "a summary", OTLP_METRICS, "\x5a\x02\x0a\x00", 4, 1 },
	{ "pieces of one gauge", OTLP_METRICS, "\x2a\x02\x0a\x00\x2a\x02\x0a\x00", 8, 2 },
	{ "metadata has no points", OTLP_METRICS, "\x62\x02\x0a\x00", 4, 0 },
	{ "a point cut short", OTLP_METRICS, "\x2a\x03\x0a\x05z", 5, -1 },
	{ "points of a wrong type", OTLP_METRICS, "\x2a\x02\x08\x01", 4, -1 },
	{ "a gauge of a wrong type", OTLP_METRICS, "\x28\x01", 2, -1 },
	{ "a point is not looked into", OTLP_METRICS, "\x2a\x04\x0a\x02\x0a\x7f", 6, 1 },
};

static void request_of(struct bytes item, unsigned n, struct buf *out)
{
	size_t rs = pb_begin(out, 1), ss;

	pb_put_bytes(out, 1, BYTES_LIT("\x0a\x00")); /* a resource with an attribute */
	ss = pb_begin(out, 2);
	for (unsigned i = 0; i < n; i++)
		pb_put_bytes(out, 2, item);
	pb_end(out, ss);
	pb_end(out, rs);
}

static void items_are_counted_and_not_looked_into(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT_OF(items); i++) {
		struct bytes item = { (const uint8_t *)items[i].item, items[i].n };
		struct buf request = BUF_INIT, again = BUF_INIT;
		struct indexed x;
		int rc;

		request_of(item, 3, &request);
		rc = indexed_init_items(&x, items[i].signal, buf_bytes(&request));
		if (rc != (items[i].n_points < 0 ? -1 : 0))
			fail_msg("%s: rc %d %s", items[i].name, rc, x.err.msg);
		if (rc < 0)
			assert_int_equal(x.err.kind, ERR_INVALID);
		if (rc == 0) {
			assert_int_equal(x.t.n_spans, 3);
			assert_true(x.result.is_whole);
			if (x.t.spans[2].n_points != (uint32_t)items[i].n_points)
				fail_msg("%s: %u points", items[i].name, x.t.spans[2].n_points);
			indexed_encode(&x, NULL, 3, &again);
			assert_true(bytes_eq(buf_bytes(&again), buf_bytes(&request)));
		}
		indexed_fini(&x);
		buf_fini(&request);
		buf_fini(&again);
	}
}

static void damage_is_named_in_the_signals_words(void **state)
{
	static const struct {
		enum otlp_signal signal;
		const char *in;
		size_t n;
		const char *want;
	} cases[] = {
		{ OTLP_LOGS, "\x0a\x05", 2, "request: damaged protobuf after 0 resource_logs" },
		{ OTLP_LOGS, "\x0a\x02\x12\x05", 4, "resource_logs[0]: damaged protobuf" },
		{ OTLP_METRICS, "\x0a\x06\x12\x04\x12\x02\x0a\x05", 8,
		  "resource_metrics[0].scope_metrics[0].metrics[0]: damaged protobuf" },
		{ OTLP_LOGS, "\x0a\x06\x12\x04\x12\x02\x0a\x05", 8,
		  "resource_logs[0].scope_logs[0].log_records[0]: damaged protobuf" },
		{ OTLP_LOGS, "\x0a\x06\x08\x01\x12\x02\x12\x00", 8,
		  "resource_logs[0].resource: damaged protobuf" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		struct bytes in = { (const uint8_t *)cases[i].in, cases[i].n };
		struct indexed x;

		assert_int_equal(indexed_init_items(&x, cases[i].signal, in), -1);
		assert_string_equal(x.err.msg, cases[i].want);
		indexed_fini(&x);
	}
}

/* ---- batches ---- */

static struct batch *batch_of(enum otlp_signal signal, struct bytes item, unsigned n)
{
	struct buf request = BUF_INIT;
	struct otlp_result result;
	struct rcbuf *r;
	struct batch *b;

	request_of(item, n, &request);
	r = rcbuf_new_forced(NULL, request.n);
	memcpy(r->p, request.p, request.n);
	r->n = request.n;
	buf_fini(&request);
	b = batch_from_request(signal, r, "t", NULL, &result, NULL);
	assert_non_null(b);
	return b;
}

static void batches_join_split_and_keep_their_signal(void **state)
{
	struct batch *v[2], *joined, *head, *tail;
	struct arena arena = ARENA_INIT;
	struct batch_record record;
	struct segment_append a;
	struct buf bytes = BUF_INIT;
	uint8_t room[BATCH_RECORD_HEAD_MAX];

	(void)state;
	v[0] = batch_of(OTLP_METRICS, BYTES_LIT("\x2a\x04\x0a\x00\x0a\x00"), 3);
	v[1] = batch_of(OTLP_METRICS, BYTES_LIT("\x3a\x02\x0a\x00"), 4);
	assert_int_equal(batch_n_items(v[0]), 6);
	joined = batch_concat(v, 2);
	assert_int_equal(joined->signal, OTLP_METRICS);
	assert_int_equal(batch_n_items(joined), 10);
	batch_split(joined, 2, &head, &tail);
	assert_int_equal(head->signal, OTLP_METRICS);
	assert_int_equal(batch_n_items(head), 4);
	assert_int_equal(batch_n_items(tail), 6);
	batch_record_lay_out(tail, 7, &arena, room, &a);
	for (uint32_t i = 0; i < a.n_iov; i++)
		buf_add(&bytes, a.iov[i].iov_base, a.iov[i].iov_len);
	assert_int_equal(batch_record_parse(buf_bytes(&bytes), &record, NULL), 0);
	assert_int_equal(record.signal, OTLP_METRICS);
	assert_int_equal(record.n_spans, 5);
	bytes.p[0] = 1 | OTLP_SIGNALS << 4;
	assert_int_equal(batch_record_parse(buf_bytes(&bytes), &record, NULL), -1);
	batch_unref(head);
	batch_unref(tail);
	arena_fini(&arena);
	buf_fini(&bytes);
}

/* ---- JSON ---- */

static int decode(enum otlp_signal signal, struct bytes json, struct buf *out, struct err *err)
{
	struct arena a = ARENA_INIT;
	int rc = otlp_json_decode_items(signal, json, 0, &a, out, err);

	arena_fini(&a);
	return rc;
}

static const struct {
	enum otlp_signal signal;
	const char *json, *pb;
} golden[] = {
	{ OTLP_LOGS, "otlp/logs.json", "otlp/derived/logs.pb" },
	{ OTLP_METRICS, "otlp/metrics.json", "otlp/derived/metrics.pb" },
	{ OTLP_METRICS, NULL, "otlp/fluentbit-metrics-payload.bin" },
};

static void golden_pairs_agree(void **state)
{
	struct buf json = BUF_INIT, pb = BUF_INIT, got = BUF_INIT, text = BUF_INIT;
	struct err err = ERR_INIT;

	(void)state;
	for (size_t i = 0; i < COUNT_OF(golden); i++) {
		struct bytes part;

		if (!json_golden_read(golden[i].pb, &pb))
			continue;
		if (golden[i].json != NULL && json_golden_read(golden[i].json, &json)) {
			buf_reset(&got);
			if (decode(golden[i].signal, buf_bytes(&json), &got, &err) < 0)
				fail_msg("%s: %s", golden[i].json, err.msg);
			if (!bytes_eq(buf_bytes(&got), buf_bytes(&pb)))
				fail_msg("%s: %zu bytes, want %zu", golden[i].json, got.n, pb.n);
		}
		part = buf_bytes(&pb);
		buf_reset(&text);
		buf_reset(&got);
		assert_int_equal(otlp_json_encode_items(golden[i].signal, &part, 1, OTLP_JSON, 0,
							&text, &err),
				 0);
		assert_int_equal(decode(golden[i].signal, buf_bytes(&text), &got, &err), 0);
		if (golden[i].json != NULL)
			assert_true(bytes_eq(buf_bytes(&got), buf_bytes(&pb)));
	}
	buf_fini(&json);
	buf_fini(&pb);
	buf_fini(&got);
	buf_fini(&text);
}

/* A data point, or a metric where it begins with {"name"; both texts give the same protobuf, and
 * that gives the second text again. The quotes are ', for the reader's eye. */
static const struct {
	const char *name, *in, *out;
} same[] = {
	{ "zero is a value of a oneof", "{'asInt':0}", "{'asInt':'0'}" },
	{ "and of the other one", "{'asDouble':0.0}", "{'asDouble':0}" },
	{ "minus zero", "{'as_double':-0.0}", "{'asDouble':-0.0}" },
	{ "the smallest integer", "{'asInt':'-9223372036854775808'}",
	  "{'asInt':'-9223372036854775808'}" },
	{ "no value", "{'flags':1,'asInt':null}", "{'flags':1}" },
	{ "not a number", "{'asDouble':'NaN'}", "{'asDouble':'NaN'}" },
	{ "an exemplar",
	  "{'exemplars':[{'spanId':'0102030405060708','asInt':'0','timeUnixNano':5}]}",
	  "{'exemplars':[{'timeUnixNano':'5','spanId':'0102030405060708','asInt':'0'}]}" },
};

static const struct {
	const char *name, *in, *out;
} metrics[] = {
	{ "packed counts and bounds, optional zeros",
	  "{'histogram':{'dataPoints':[{'count':'3','sum':0,'bucketCounts':['1',2,'0'],"
	  "'explicitBounds':[0,1.5],'min':0,'max':-0.0}],'aggregationTemporality':"
	  "'AGGREGATION_TEMPORALITY_DELTA'}}",
	  "{'histogram':{'dataPoints':[{'count':'3','sum':0,'bucketCounts':['1','2','0'],"
	  "'explicitBounds':[0,1.5],'min':0,'max':-0.0}],'aggregationTemporality':1}}" },
	{ "empty lists are none",
	  "{'histogram':{'dataPoints':[{'bucketCounts':[],'explicitBounds':[]}]}}",
	  "{'histogram':{'dataPoints':[{}]}}" },
	{ "signed offsets and varint counts",
	  "{'exponential_histogram':{'data_points':[{'scale':-3,'positive':{'offset':'-12',"
	  "'bucketCounts':[0,300,'18446744073709551615']},'negative':{},'zeroThreshold':0}]}}",
	  "{'exponentialHistogram':{'dataPoints':[{'scale':-3,'positive':{'offset':-12,"
	  "'bucketCounts':['0','300','18446744073709551615']},'negative':{}}]}}" },
	{ "a summary",
	  "{'summary':{'dataPoints':[{'sum':0,'quantileValues':[{'quantile':0,'value':2}]}]}}",
	  "{'summary':{'dataPoints':[{'quantileValues':[{'value':2}]}]}}" },
	{ "a sum that is not monotonic", "{'sum':{'isMonotonic':false,'dataPoints':[]}}",
	  "{'sum':{}}" },
	{ "a monotonic one", "{'sum':{'isMonotonic':true,'aggregationTemporality':2}}",
	  "{'sum':{'aggregationTemporality':2,'isMonotonic':true}}" },
};

static struct bytes wrapped(const char *head, const char *in, const char *tail, struct buf *b)
{
	buf_reset(b);
	buf_printf(b, "%s%s%s", head, in, tail);
	for (size_t i = 0; i < b->n; i++)
		if (b->p[i] == '\'')
			b->p[i] = '"';
	return buf_bytes(b);
}

#define ENVELOPE "{'resourceMetrics':[{'resource':{},'scopeMetrics':[{'scope':{},'metrics':["

static void check_text(const char *name, const char *head, const char *in, const char *out,
		       const char *tail)
{
	struct buf from = BUF_INIT, want = BUF_INIT, pb = BUF_INIT, text = BUF_INIT;
	struct err err = ERR_INIT;
	struct bytes part;

	if (decode(OTLP_METRICS, wrapped(head, in, tail, &from), &pb, &err) < 0)
		fail_msg("%s: %s", name, err.msg);
	part = buf_bytes(&pb);
	assert_int_equal(otlp_json_encode_items(OTLP_METRICS, &part, 1, OTLP_JSON, 0, &text, &err),
			 0);
	wrapped(head, out, tail, &want);
	if (!bytes_eq(buf_bytes(&text), buf_bytes(&want)))
		fail_msg("%s: got %s", name, buf_cstr(&text));
	buf_fini(&from);
	buf_fini(&want);
	buf_fini(&pb);
	buf_fini(&text);
}

static void json_of_metrics_keeps_what_is_there(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT_OF(same); i++)
		check_text(same[i].name, ENVELOPE "{'gauge':{'dataPoints':[", same[i].in,
			   same[i].out, "]}}]}]}]}");
	for (size_t i = 0; i < COUNT_OF(metrics); i++)
		check_text(metrics[i].name, ENVELOPE, metrics[i].in, metrics[i].out, "]}]}]}");
}

static const struct {
	enum otlp_signal signal;
	const char *in, *want;
} wrong[] = {
	{ OTLP_METRICS, "{'sum':{'dataPoints':[{'asInt':1.5}]}}", "expected a 64-bit integer" },
	{ OTLP_METRICS, "{'histogram':{'dataPoints':[{'bucketCounts':[-1]}]}}",
	  "expected an unsigned integer" },
	{ OTLP_METRICS, "{'histogram':{'dataPoints':[{'bucketCounts':3}]}}", "expected an array" },
	{ OTLP_METRICS, "{'histogram':{'dataPoints':[{'explicitBounds':['x']}]}}",
	  "expected a number" },
	{ OTLP_METRICS, "{'exponentialHistogram':{'dataPoints':[{'scale':3000000000}]}}",
	  "expected a 32-bit integer" },
};

static void json_of_a_wrong_type_is_refused(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT_OF(wrong); i++) {
		struct buf from = BUF_INIT, pb = BUF_INIT;
		struct err err = ERR_INIT;
		struct bytes json = wrapped(ENVELOPE, wrong[i].in, "]}]}]}", &from);

		assert_int_equal(decode(wrong[i].signal, json, &pb, &err), -1);
		if (strstr(err.msg, wrong[i].want) == NULL)
			fail_msg("%s: %s", wrong[i].in, err.msg);
		assert_int_equal(pb.n, 0);
		buf_fini(&from);
		buf_fini(&pb);
	}
}

/* Lists of numbers are packed by those who follow proto3, and not by some older writers. */
static void unpacked_lists_are_read_too(void **state)
{
	struct buf pb = BUF_INIT, text = BUF_INIT;
	struct bytes part;
	size_t marks[6];

	(void)state;
	marks[0] = pb_begin(&pb, 1);
	marks[1] = pb_begin(&pb, 2);
	marks[2] = pb_begin(&pb, 2);
	marks[3] = pb_begin(&pb, 9);
	marks[4] = pb_begin(&pb, 1);
	pb_put_fixed64(&pb, 6, 7);
	pb_put_fixed64(&pb, 6, 0);
	for (int i = 4; i >= 0; i--)
		pb_end(&pb, marks[i]);
	part = buf_bytes(&pb);
	assert_int_equal(otlp_json_encode_items(OTLP_METRICS, &part, 1, OTLP_JSON, 0, &text, NULL),
			 0);
	assert_non_null(strstr(buf_cstr(&text), "\"bucketCounts\":[\"7\",\"0\"]"));
	buf_fini(&pb);
	buf_fini(&text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(items_are_counted_and_not_looked_into),
		cmocka_unit_test(damage_is_named_in_the_signals_words),
		cmocka_unit_test(batches_join_split_and_keep_their_signal),
		cmocka_unit_test(golden_pairs_agree),
		cmocka_unit_test(json_of_metrics_keeps_what_is_there),
		cmocka_unit_test(json_of_a_wrong_type_is_refused),
		cmocka_unit_test(unpacked_lists_are_read_too),
	};

	return cmocka_run_group_tests_name("otlp_items", tests, NULL, NULL);
}
