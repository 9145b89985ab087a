/* SPDX-License-Identifier: Apache-2.0
 *
 * test_jaeger_json.c - model.Span as JSON: read, written, and the same as its protobuf.
 */
#include "base/arena.h"
#include "base/buf.h"
#include "tests/unit/jaeger_fixture.h"
#include "tests/unit/json_golden.h"
#include "wire/jaeger_encode.h"
#include "wire/jaeger_json.h"
#include "wire/jaeger_proto.h"
#include "wire/otlp_json_encode.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

/* ' for ". */
static struct bytes quoted(const char *text, struct buf *b)
{
	buf_reset(b);
	for (; *text; text++)
		buf_add_char(b, *text == '\'' ? '"' : *text);
	return buf_bytes(b);
}

static int decode(struct bytes json, struct buf *out, struct jaeger_result *res, struct err *err)
{
	struct arena a = ARENA_INIT;
	int rc = jaeger_json_span(json, 0, &a, out, res, err);

	arena_fini(&a);
	return rc;
}

#define IDS "'traceId':'AAAAAAAAAAEAAAAAAAAAAg==','spanId':'AAAAAAAAAAM='"

/* The span's members beside ids; what stands in the OTLP, or the value that is named. */
static const struct {
	const char *in, *want, *bad;
} members[] = {
	{ "'operationName':'op'", "'name':'op'", NULL },
	{ "'operation_name':'op','unknown':{'a':[1]}", "'name':'op'", NULL },
	{ "'startTime':'2017-01-26T16:46:31.639875-05:00'",
	  "'startTimeUnixNano':'1485467191639875000'", NULL },
	{ "'startTime':'2017-01-26T21:46:31.639875Z','duration':'0.022938s'",
	  "'endTimeUnixNano':'1485467191662813000'", NULL },
	{ "'startTime':'1970-01-01T00:00:01Z','duration':'22938000ns'",
	  "'endTimeUnixNano':'1022938000'", NULL },
	{ "'startTime':'1970-01-01T00:00:01.000000001999Z','duration':'1m2.5s'",
	  "'startTimeUnixNano':'1000000001','endTimeUnixNano':'63500000001'", NULL },
	{ "'startTime':'1970-01-01T00:00:01Z','duration':'-1ms'", "'endTimeUnixNano':'999000000'",
	  NULL },
	{ "'startTime':'1970-01-01T00:00:01Z','duration':'1.5\xc2\xb5s'",
	  "'endTimeUnixNano':'1000001500'", NULL },
	{ "'flags':1", "'flags':1", NULL },
	{ "'tags':[{'key':'k','vStr':'v'}]", "{'key':'k','value':{'stringValue':'v'}}", NULL },
	{ "'tags':[{'key':'k','vType':'INT64','vInt64':'-9007199254740993'}]",
	  "{'key':'k','value':{'intValue':'-9007199254740993'}}", NULL },
	{ "'tags':[{'key':'k','v_type':2,'v_int64':7},null]",
	  "{'key':'k','value':{'intValue':'7'}}", NULL },
	{ "'tags':[{'key':'k','vType':'FLOAT64','vFloat64':'NaN'}]", "{'doubleValue':'NaN'}",
	  NULL },
	{ "'tags':[{'key':'k','vType':'BINARY','vBinary':'_-8'}]", "{'bytesValue':'/+8='}", NULL },
	{ "'tags':[{'key':'k','vType':'BOOL','vBool':true}]", "{'boolValue':true}", NULL },
	{ "'references':[{'refType':'FOLLOWS_FROM',"
	  "'traceId':'AAAAAAAAAAEAAAAAAAAAAg==','spanId':'AAAAAAAAAAk='}]",
	  "'parentSpanId':'0000000000000009'", NULL },
	{ "'warnings':['w'],'process':{'serviceName':'s'}", "{'stringValue':'w'}", NULL },
	{ "'process':{'serviceName':'s'}", "{'key':'service.name','value':{'stringValue':'s'}}",
	  NULL },
	{ "'operationName':5", NULL, "spans[0].operationName: a number \"5\"" },
	{ "'startTime':'yesterday'", NULL, "spans[0].startTime: a string \"yesterday\"" },
	{ "'startTime':'2017-01-26T16:46:31+05'", NULL,
	  "spans[0].startTime: a string \"2017-01-26T16:46:31+05\"" },
	{ "'duration':'5 s'", NULL, "spans[0].duration: a string \"5 s\"" },
	{ "'duration':'99999999999h'", NULL, "spans[0].duration: a string \"99999999999h\"" },
	{ "'tags':{'a':'b'}", NULL, "spans[0].tags: an object" },
	{ "'tags':[{'vType':'NONE'}]", NULL, "spans[0].vType: a string \"NONE\"" },
	{ "'references':[{'spanId':'%'}]", NULL, "spans[0].spanId: a string \"%\"" },
};

static void members_of_a_span(void **state)
{
	struct buf json = BUF_INIT, pb = BUF_INIT, text = BUF_INIT, want = BUF_INIT;

	(void)state;
	for (size_t i = 0; i < COUNT_OF(members); i++) {
		struct jaeger_result res;
		struct err err = ERR_INIT;
		struct bytes part;
		char in[512];

		snprintf(in, sizeof(in), "{" IDS ",%s}", members[i].in);
		buf_reset(&pb);
		buf_reset(&text);
		if (decode(quoted(in, &json), &pb, &res, &err) < 0)
			fail_msg("%s: %s", in, err.msg);
		assert_string_equal(res.first_bad, members[i].bad ? members[i].bad : "");
		assert_int_equal(res.n_bad, members[i].bad != NULL);
		if (members[i].bad != NULL)
			continue;
		part = buf_bytes(&pb);
		assert_int_equal(otlp_json_encode(&part, 1, OTLP_JSON, 0, &text, &err), 0);
		quoted(members[i].want, &want);
		if (strstr(buf_cstr(&text), buf_cstr(&want)) == NULL)
			fail_msg("%s: %s", in, buf_cstr(&text));
	}
	buf_fini(&json);
	buf_fini(&pb);
	buf_fini(&text);
	buf_fini(&want);
}

static const struct {
	const char *in, *error;
} texts[] = {
	{ "", NULL },
	{ " \n", NULL },
	{ "[]", "jaeger json: expected a span, got an array" },
	{ "{", "json: byte 1: " },
	{ "{}x", "json: byte 2: " },
};

static void texts_that_are_no_span(void **state)
{
	struct buf pb = BUF_INIT;

	(void)state;
	for (size_t i = 0; i < COUNT_OF(texts); i++) {
		struct jaeger_result res;
		struct err err = ERR_INIT;
		int rc = decode(bytes_str(texts[i].in), &pb, &res, &err);

		assert_int_equal(rc, texts[i].error ? -1 : 0);
		assert_int_equal(pb.n, 0);
		if (texts[i].error != NULL &&
		    strncmp(err.msg, texts[i].error, strlen(texts[i].error)) != 0)
			fail_msg("%s: %s", texts[i].in, err.msg);
	}
	buf_fini(&pb);
}

static const struct fixture_span every = {
	.high = 1,
	.low = 2,
	.id = 3,
	.parent = 9,
	.name = "op \"quoted\"",
	.start_us = 1485467191639875,
	.duration_us = 22938,
	.flags = 3,
	.tags = { { "s", 's', "text" },
		  { "b", 'b', "true" },
		  { "i", 'i', "-5" },
		  { "d", 'd', "0.25" },
		  { "x", 'x', "raw" },
		  { "span.kind", 's', "client" } },
	.refs = { { 1, 7, 8, 9 } },
	.log_us = 1485467191639876,
	.log = { { "event", 's', "e" }, { "k", 'i', "1" } },
};

/* Protobuf -> JSON is as Jaeger writes it, and gives the same OTLP. */
static void written_and_read_again(void **state)
{
	static const struct fixture_tag tags[FIXTURE_TAGS] = { { "hostname", 's', "h" } };
	struct buf pb = BUF_INIT, json = BUF_INIT, a = BUF_INIT, b = BUF_INIT, want = BUF_INIT;
	struct arena arena = ARENA_INIT;
	struct jaeger_result res;

	(void)state;
	fixture_proto_span(&pb, &every);
	fixture_proto_process(&pb, 10, "shop", tags);
	assert_int_equal(jaeger_json_encode(buf_bytes(&pb), &json, NULL), 0);
	quoted("{'traceId':'AAAAAAAAAAEAAAAAAAAAAg==','spanId':'AAAAAAAAAAM=',"
	       "'operationName':'op \\'quoted\\'','references':["
	       "{'traceId':'AAAAAAAAAAEAAAAAAAAAAg==','spanId':'AAAAAAAAAAk=',"
	       "'refType':'CHILD_OF'},"
	       "{'traceId':'AAAAAAAAAAcAAAAAAAAACA==','spanId':'AAAAAAAAAAk=',"
	       "'refType':'FOLLOWS_FROM'}],'flags':3,"
	       "'startTime':'2017-01-26T21:46:31.639875000Z','duration':'0.022938000s',"
	       "'tags':[{'key':'s','vStr':'text'},{'key':'b','vType':'BOOL','vBool':true},"
	       "{'key':'i','vType':'INT64','vInt64':'-5'},"
	       "{'key':'d','vType':'FLOAT64','vFloat64':0.25},"
	       "{'key':'x','vType':'BINARY','vBinary':'cmF3'},"
	       "{'key':'span.kind','vStr':'client'}],"
	       "'logs':[{'timestamp':'2017-01-26T21:46:31.639876000Z','fields':["
	       "{'key':'event','vStr':'e'},{'key':'k','vType':'INT64','vInt64':'1'}]}],"
	       "'process':{'serviceName':'shop','tags':[{'key':'hostname','vStr':'h'}]}}",
	       &want);
	assert_string_equal(buf_cstr(&json), buf_cstr(&want));
	assert_int_equal(jaeger_proto_span(buf_bytes(&pb), 0, &arena, &a, &res, NULL), 0);
	assert_int_equal(decode(buf_bytes(&json), &b, &res, NULL), 0);
	assert_int_equal(res.n_ok, 1);
	assert_true(bytes_eq(buf_bytes(&a), buf_bytes(&b)));
	arena_fini(&arena);
	buf_fini(&pb);
	buf_fini(&json);
	buf_fini(&a);
	buf_fini(&b);
	buf_fini(&want);
}

/* OTLP -> Jaeger is as the Collector writes it, and comes back as the same OTLP. */
static void there_and_back(void **state)
{
	static const struct fixture_tag tags[FIXTURE_TAGS] = { { "host.name", 's', "h" } };
	struct buf pb = BUF_INIT, otlp = BUF_INIT, jaeger = BUF_INIT, json = BUF_INIT;
	struct buf again = BUF_INIT, want = BUF_INIT;
	struct arena arena = ARENA_INIT;
	struct jaeger_result res;

	(void)state;
	fixture_proto_span(&pb, &every);
	pb_put_str(&pb, 12, "late");
	fixture_proto_process(&pb, 10, "shop", tags);
	assert_int_equal(jaeger_proto_span(buf_bytes(&pb), 0, &arena, &otlp, &res, NULL), 0);
	assert_int_equal(jaeger_encode_span(buf_bytes(&otlp), &jaeger, NULL), 0);
	assert_int_equal(jaeger_json_encode(buf_bytes(&jaeger), &json, NULL), 0);
	quoted("{'traceId':'AAAAAAAAAAEAAAAAAAAAAg==','spanId':'AAAAAAAAAAM=',"
	       "'operationName':'op \\'quoted\\'','references':["
	       "{'traceId':'AAAAAAAAAAEAAAAAAAAAAg==','spanId':'AAAAAAAAAAk='},"
	       "{'traceId':'AAAAAAAAAAcAAAAAAAAACA==','spanId':'AAAAAAAAAAk=',"
	       "'refType':'FOLLOWS_FROM'}],'flags':3,"
	       "'startTime':'2017-01-26T21:46:31.639875000Z','duration':'0.022938000s',"
	       "'tags':[{'key':'s','vStr':'text'},{'key':'b','vType':'BOOL','vBool':true},"
	       "{'key':'i','vType':'INT64','vInt64':'-5'},"
	       "{'key':'d','vType':'FLOAT64','vFloat64':0.25},"
	       "{'key':'x','vType':'BINARY','vBinary':'cmF3'},"
	       "{'key':'span.kind','vStr':'client'}],"
	       "'logs':[{'timestamp':'2017-01-26T21:46:31.639876000Z','fields':["
	       "{'key':'event','vStr':'e'},{'key':'k','vType':'INT64','vInt64':'1'}]}],"
	       "'process':{'serviceName':'shop','tags':[{'key':'host.name','vStr':'h'}]},"
	       "'warnings':['late']}",
	       &want);
	assert_string_equal(buf_cstr(&json), buf_cstr(&want));
	assert_int_equal(jaeger_proto_span(buf_bytes(&jaeger), 0, &arena, &again, &res, NULL), 0);
	assert_true(bytes_eq(buf_bytes(&otlp), buf_bytes(&again)));
	arena_fini(&arena);
	buf_fini(&pb);
	buf_fini(&otlp);
	buf_fini(&jaeger);
	buf_fini(&json);
	buf_fini(&again);
	buf_fini(&want);
}

/* Tags that give status, scope and trace state make the round, too. */
static void meanings_there_and_back(void **state)
{
	static const struct fixture_tag tags[][FIXTURE_TAGS] = {
		{ { "error", 'b', "true" }, { "otel.status_description", 's', "boom" } },
		{ { "otel.status_code", 's', "OK" } },
		{ { "otel.status_description", 's', "said" } },
		{ { "otel.scope.name", 's', "lib" }, { "otel.scope.version", 's', "1" } },
		{ { "w3c.tracestate", 's', "a=b" }, { "span.kind", 's', "internal" } },
		{ { "http.status_code", 'i', "500" } },
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(tags); i++) {
		struct buf pb = BUF_INIT, otlp = BUF_INIT, jaeger = BUF_INIT, again = BUF_INIT;
		struct fixture_span sp = { .low = 2, .id = 3, .name = "op" };
		struct arena arena = ARENA_INIT;
		struct jaeger_result res;

		memcpy(sp.tags, tags[i], sizeof(sp.tags));
		fixture_proto_span(&pb, &sp);
		assert_int_equal(jaeger_proto_span(buf_bytes(&pb), 0, &arena, &otlp, &res, NULL),
				 0);
		assert_int_equal(jaeger_encode_span(buf_bytes(&otlp), &jaeger, NULL), 0);
		assert_int_equal(
			jaeger_proto_span(buf_bytes(&jaeger), 0, &arena, &again, &res, NULL), 0);
		if (!bytes_eq(buf_bytes(&otlp), buf_bytes(&again)))
			fail_msg("%s does not come back", tags[i][0].key);
		arena_fini(&arena);
		buf_fini(&pb);
		buf_fini(&otlp);
		buf_fini(&jaeger);
		buf_fini(&again);
	}
}

/* The span in jaeger-conv-domain_01.json is the one in the protobuf made of it. */
static void golden_json_is_the_golden_protobuf(void **state)
{
	struct buf text = BUF_INIT, pb = BUF_INIT, a = BUF_INIT, b = BUF_INIT;
	struct arena arena = ARENA_INIT;
	struct jaeger_result res;
	struct bytes one;

	(void)state;
	if (json_golden_read("jaeger/jaeger-conv-domain_01.json", &text) &&
	    json_golden_read("jaeger/derived/domain_01.postspans.pb", &pb)) {
		const char *list = strchr(buf_cstr(&text), '['), *last = strrchr(list, ']');

		one = (struct bytes){ (const uint8_t *)list + 1, (size_t)(last - list) - 1 };
		assert_int_equal(decode(one, &a, &res, NULL), 0);
		assert_int_equal(res.n_ok, 1);
		assert_int_equal(jaeger_proto_request(buf_bytes(&pb), 0, &arena, &b, &res, NULL),
				 0);
		assert_true(bytes_eq(buf_bytes(&a), buf_bytes(&b)));
	}
	arena_fini(&arena);
	buf_fini(&text);
	buf_fini(&pb);
	buf_fini(&a);
	buf_fini(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(members_of_a_span),
		cmocka_unit_test(texts_that_are_no_span),
		cmocka_unit_test(written_and_read_again),
		cmocka_unit_test(there_and_back),
		cmocka_unit_test(meanings_there_and_back),
		cmocka_unit_test(golden_json_is_the_golden_protobuf),
	};

	return cmocka_run_group_tests_name("jaeger_json", tests, NULL, NULL);
}
