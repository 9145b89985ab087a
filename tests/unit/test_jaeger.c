/* SPDX-License-Identifier: Apache-2.0
 *
 * test_jaeger.c - Jaeger spans to OTLP: each rule of the mapping, by all three ways in, with the
 * result spelled out; the golden payloads; damage.
 */
#include "base/arena.h"
#include "base/buf.h"
#include "tests/unit/jaeger_fixture.h"
#include "tests/unit/json_golden.h"
#include "wire/jaeger_proto.h"
#include "wire/jaeger_thrift.h"
#include "wire/otlp_json_encode.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

/* How a payload came. */
enum form { COMPACT_MESSAGE, BINARY_MESSAGE, BINARY_BATCH, COMPACT_BATCH, POST_SPANS, FORM_MAX };

static int decode(struct bytes in, enum form form, size_t max, struct arena *a, struct buf *out,
		  struct jaeger_result *res, struct err *err)
{
	enum jaeger_method method = JAEGER_EMIT_BATCH;
	struct thrift_reader r;

	*res = (struct jaeger_result){ 0 };
	if (form == POST_SPANS)
		return jaeger_proto_request(in, max, a, out, res, err);
	thrift_init(&r, in,
		    form == COMPACT_MESSAGE || form == COMPACT_BATCH ? THRIFT_COMPACT
								     : THRIFT_BINARY);
	if ((form == COMPACT_MESSAGE || form == BINARY_MESSAGE) &&
	    jaeger_thrift_message(&r, &method, err) < 0)
		return -1;
	assert_int_equal(method, JAEGER_EMIT_BATCH);
	return jaeger_thrift_batch(&r, max, a, out, res, err);
}

/* As OTLP/JSON, with ' for " so that tests can be read. */
static const char *as_text(struct bytes in, enum form form, struct buf *text,
			   struct jaeger_result *res)
{
	struct arena a = ARENA_INIT;
	struct buf pb = BUF_INIT;
	struct err err = ERR_INIT;
	struct bytes part;

	if (decode(in, form, 0, &a, &pb, res, &err) < 0)
		fail_msg("form %d: %s", form, err.msg);
	part = buf_bytes(&pb);
	buf_reset(text);
	if (otlp_json_encode(&part, 1, OTLP_JSON, 0, text, &err) < 0)
		fail_msg("result does not encode: %s", err.msg);
	for (size_t i = 0; i < text->n; i++)
		if (text->p[i] == '"')
			text->p[i] = '\'';
	arena_fini(&a);
	buf_fini(&pb);
	return buf_cstr(text);
}

static void write_form(enum form form, struct buf *out, const char *service,
		       const struct fixture_tag *process, const struct fixture_span *spans,
		       size_t n)
{
	struct thrift_writer w = { .out = out,
				   .protocol = form == COMPACT_MESSAGE || form == COMPACT_BATCH
						       ? THRIFT_COMPACT
						       : THRIFT_BINARY };

	buf_reset(out);
	if (form == POST_SPANS) {
		fixture_proto(out, service, process, spans, n);
		return;
	}
	if (form == COMPACT_BATCH || form == BINARY_BATCH) {
		fixture_thrift(&w, service, process, spans, n);
		return;
	}
	thrift_put_message(&w, "emitBatch", THRIFT_ONEWAY);
	thrift_begin(&w);
	thrift_put_field(&w, 1, THRIFT_STRUCT);
	fixture_thrift(&w, service, process, spans, n);
	thrift_end(&w);
}

/* ---- one span ---- */

#define STR(k, v) "{'key':'" k "','value':{'stringValue':'" v "'}}"
#define INT(k, v) "{'key':'" k "','value':{'intValue':'" v "'}}"
#define BOOL(k, v) "{'key':'" k "','value':{'boolValue':" v "}}"
#define ATTRS(...) ",'attributes':[" __VA_ARGS__ "]"
#define STATUS(...) ",'status':{" __VA_ARGS__ "}"
#define LINK(trace, span, type)                                                                    \
	"{'traceId':'" trace "','spanId':'" span "','attributes':["                                \
	"{'key':'opentracing.ref_type','value':{'stringValue':'" type "'}}]}"
#define TRACE "00000000000000010000000000000002"
#define OTHER "00000000000000070000000000000008"
#define UNSET STATUS("")
#define ERROR STATUS("'code':2")

/* What these members make beside ids, name and times: between the span id and the name, between
 * name and times, and behind them. */
static const struct {
	const char *name;
	struct fixture_span in;
	const char *ids, *kind, *out;
	size_t n_bad_refs;
	const char *scope;
} rules[] = {
	{ "nothing", { .flags = 0 }, "", "", UNSET, 0, NULL },
	{ "all types of tags",
	  { .tags = { { "s", 's', "text" },
		      { "b", 'b', "true" },
		      { "f", 'b', "false" },
		      { "i", 'i', "-5" },
		      { "d", 'd', "0.25" },
		      { "x", 'x', "raw" },
		      { "e", 's', "" },
		      { "u", '?', "" } } },
	  "",
	  "",
	  ATTRS(STR("s", "text") "," BOOL("b", "true") "," BOOL("f", "false") "," INT(
		  "i", "-5") ",{'key':'d','value':{'doubleValue':0.25}},"
			     "{'key':'x','value':{'bytesValue':'cmF3'}}," STR("e", "") "," STR(
				     "u", "<Unknown Jaeger TagType 77>")) UNSET,
	  0,
	  NULL },
	/* kind */
	{ "server",
	  { .tags = { { "span.kind", 's', "server" } } },
	  "",
	  ",'kind':2",
	  UNSET,
	  0,
	  NULL },
	{ "client",
	  { .tags = { { "span.kind", 's', "client" } } },
	  "",
	  ",'kind':3",
	  UNSET,
	  0,
	  NULL },
	{ "producer",
	  { .tags = { { "span.kind", 's', "producer" } } },
	  "",
	  ",'kind':4",
	  UNSET,
	  0,
	  NULL },
	{ "consumer",
	  { .tags = { { "span.kind", 's', "Consumer" } } },
	  "",
	  ",'kind':5",
	  UNSET,
	  0,
	  NULL },
	{ "internal",
	  { .tags = { { "span.kind", 's', "internal" } } },
	  "",
	  ",'kind':1",
	  UNSET,
	  0,
	  NULL },
	{ "a kind that is none",
	  { .tags = { { "span.kind", 's', "local" } } },
	  "",
	  "",
	  ATTRS(STR("span.kind", "local")) UNSET,
	  0,
	  NULL },
	/* status */
	{ "error", { .tags = { { "error", 'b', "true" } } }, "", "", ERROR, 0, NULL },
	{ "error as text", { .tags = { { "error", 's', "true" } } }, "", "", ERROR, 0, NULL },
	{ "no error",
	  { .tags = { { "error", 'b', "false" } } },
	  "",
	  "",
	  ATTRS(BOOL("error", "false")) UNSET,
	  0,
	  NULL },
	{ "error that is a text",
	  { .tags = { { "error", 's', "timeout" } } },
	  "",
	  "",
	  ATTRS(STR("error", "timeout")) UNSET,
	  0,
	  NULL },
	{ "error with a message",
	  { .tags = { { "error", 'b', "true" }, { "otel.status_description", 's', "boom" } } },
	  "",
	  "",
	  STATUS("'message':'boom','code':2"),
	  0,
	  NULL },
	{ "error with HTTP's message",
	  { .tags = { { "error", 'b', "true" }, { "http.status_message", 's', "Gone" } } },
	  "",
	  "",
	  ATTRS(STR("http.status_message", "Gone")) STATUS("'message':'Gone','code':2"),
	  0,
	  NULL },
	{ "error beats the code",
	  { .tags = { { "otel.status_code", 's', "OK" }, { "error", 'b', "true" } } },
	  "",
	  "",
	  ERROR,
	  0,
	  NULL },
	{ "ok",
	  { .tags = { { "otel.status_code", 's', "OK" } } },
	  "",
	  "",
	  STATUS("'code':1"),
	  0,
	  NULL },
	{ "error code",
	  { .tags = { { "otel.status_code", 's', "error" } } },
	  "",
	  "",
	  ERROR,
	  0,
	  NULL },
	{ "a code that is none",
	  { .tags = { { "otel.status_code", 's', "odd" } } },
	  "",
	  "",
	  ATTRS(STR("otel.status_code", "odd")) UNSET,
	  0,
	  NULL },
	{ "code before HTTP's",
	  { .tags = { { "otel.status_code", 's', "OK" }, { "http.status_code", 'i', "500" } } },
	  "",
	  "",
	  ATTRS(INT("http.status_code", "500")) STATUS("'code':1"),
	  0,
	  NULL },
	{ "HTTP 500",
	  { .tags = { { "http.status_code", 'i', "500" } } },
	  "",
	  "",
	  ATTRS(INT("http.status_code", "500")) ERROR,
	  0,
	  NULL },
	{ "HTTP 500 with a message",
	  { .tags = { { "http.status_code", 's', "503" },
		      { "http.status_message", 's', "busy" } } },
	  "",
	  "",
	  ATTRS(STR("http.status_code", "503") "," STR("http.status_message", "busy"))
		  STATUS("'message':'busy','code':2"),
	  0,
	  NULL },
	{ "HTTP 404, client",
	  { .tags = { { "http.status_code", 'i', "404" }, { "span.kind", 's', "client" } } },
	  "",
	  ",'kind':3",
	  ATTRS(INT("http.status_code", "404")) ERROR,
	  0,
	  NULL },
	{ "HTTP 404, server",
	  { .tags = { { "http.status_code", 'i', "404" }, { "span.kind", 's', "server" } } },
	  "",
	  ",'kind':2",
	  ATTRS(INT("http.status_code", "404")) UNSET,
	  0,
	  NULL },
	{ "HTTP 399",
	  { .tags = { { "http.status_code", 'i', "399" } } },
	  "",
	  "",
	  ATTRS(INT("http.status_code", "399")) UNSET,
	  0,
	  NULL },
	{ "HTTP code that is no number",
	  { .tags = { { "http.status_code", 's', "2xx" } } },
	  "",
	  "",
	  ATTRS(STR("http.status_code", "2xx")) UNSET,
	  0,
	  NULL },
	/* scope, trace state */
	{ "scope",
	  { .tags = { { "otel.scope.name", 's', "lib" }, { "otel.scope.version", 's', "1" } } },
	  "",
	  "",
	  UNSET,
	  0,
	  "'name':'lib','version':'1'" },
	{ "library",
	  { .tags = { { "otel.library.name", 's', "lib" }, { "otel.library.version", 's', "2" } } },
	  "",
	  "",
	  UNSET,
	  0,
	  "'name':'lib','version':'2'" },
	{ "trace state",
	  { .tags = { { "w3c.tracestate", 's', "a=b" } } },
	  ",'traceState':'a=b'",
	  "",
	  UNSET,
	  0,
	  NULL },
	/* flags */
	{ "sampled", { .flags = 1 }, "", "", UNSET ",'flags':1", 0, NULL },
	{ "debug",
	  { .flags = 3 },
	  "",
	  "",
	  ATTRS(BOOL("jaeger.debug", "true")) UNSET ",'flags':1",
	  0,
	  NULL },
	{ "firehose",
	  { .flags = 9 },
	  "",
	  "",
	  ATTRS(INT("jaeger.flags", "9")) UNSET ",'flags':1",
	  0,
	  NULL },
	/* references */
	{ "parent", { .parent = 9 }, ",'parentSpanId':'0000000000000009'", "", UNSET, 0, NULL },
	{ "parent said twice",
	  { .parent = 9, .refs = { { 0, 1, 2, 9 } } },
	  ",'parentSpanId':'0000000000000009'",
	  "",
	  UNSET,
	  0,
	  NULL },
	{ "child of",
	  { .refs = { { 0, 1, 2, 9 } } },
	  ",'parentSpanId':'0000000000000009'",
	  "",
	  UNSET,
	  0,
	  NULL },
	{ "follows from, which is the parent, too",
	  { .refs = { { 1, 1, 2, 9 } } },
	  ",'parentSpanId':'0000000000000009'",
	  "",
	  ",'links':[" LINK(TRACE, "0000000000000009", "follows_from") "]" UNSET,
	  0,
	  NULL },
	{ "child of comes before follows from",
	  { .refs = { { 1, 1, 2, 8 }, { 0, 1, 2, 9 } } },
	  ",'parentSpanId':'0000000000000009'",
	  "",
	  ",'links':[" LINK(TRACE, "0000000000000008", "follows_from") "]" UNSET,
	  0,
	  NULL },
	{ "child of a span of another trace with the parent's id",
	  { .parent = 9, .refs = { { 0, 7, 8, 9 } } },
	  ",'parentSpanId':'0000000000000009'",
	  "",
	  ",'links':[" LINK(OTHER, "0000000000000009", "child_of") "]" UNSET,
	  0,
	  NULL },
	{ "two parents",
	  { .refs = { { 0, 1, 2, 9 }, { 0, 1, 2, 10 } } },
	  ",'parentSpanId':'0000000000000009'",
	  "",
	  ",'links':[" LINK(TRACE, "000000000000000a", "child_of") "]" UNSET,
	  0,
	  NULL },
	{ "references to zeros",
	  { .refs = { { 1, 0, 0, 0 }, { 1, 1, 2, 0 }, { 1, 0, 0, 3 } } },
	  "",
	  "",
	  UNSET,
	  3,
	  NULL },
	/* logs */
	{ "log",
	  { .log_us = 5, .log = { { "event", 's', "e" }, { "k", 'i', "1" } } },
	  "",
	  "",
	  ",'events':[{'timeUnixNano':'5000','name':'e','attributes':[" INT("k", "1") "]}]" UNSET,
	  0,
	  NULL },
	{ "log whose event is no text, or comes twice",
	  { .log_us = 5,
	    .log = { { "event", 'i', "1" }, { "event", 's', "a" }, { "event", 's', "b" } } },
	  "",
	  "",
	  ",'events':[{'timeUnixNano':'5000','name':'a','attributes':[" INT("event", "1") "," STR(
		  "event", "b") "]}]" UNSET,
	  0,
	  NULL },
	{ "log of nothing",
	  { .log_us = 5 },
	  "",
	  "",
	  ",'events':[{'timeUnixNano':'5000'}]" UNSET,
	  0,
	  NULL },
};

static void expect(size_t i, char *want, size_t size)
{
	const char *scope = rules[i].scope ? rules[i].scope : "";

	snprintf(want, size,
		 "{'resourceSpans':[{'resource':{'attributes':[" STR(
			 "service.name",
			 "shop") "]},"
				 "'scopeSpans':[{'scope':{%s},'spans':[{'traceId':'" TRACE "',"
				 "'spanId':'0000000000000003'%s,'name':'op'%s,'startTimeUnixNano':'"
				 "1000000',"
				 "'endTimeUnixNano':'3000000'%s}]}]}]}",
		 scope, rules[i].ids, rules[i].kind, rules[i].out);
}

/* JSON has the parent and the trace state in the order of the fields' numbers. */
static void every_rule_by_every_way_in(void **state)
{
	static const struct fixture_tag no_tags[FIXTURE_TAGS];
	struct buf in = BUF_INIT, text = BUF_INIT;
	struct jaeger_result res;
	char want[2048];

	(void)state;
	for (size_t i = 0; i < COUNT_OF(rules); i++) {
		struct fixture_span sp = rules[i].in;

		sp.high = 1, sp.low = 2, sp.id = 3, sp.name = "op";
		sp.start_us = 1000, sp.duration_us = 2000;
		expect(i, want, sizeof(want));
		for (enum form form = 0; form < FORM_MAX; form++) {
			const char *got;

			write_form(form, &in, "shop", no_tags, &sp, 1);
			got = as_text(buf_bytes(&in), form, &text, &res);
			if (strcmp(got, want) != 0)
				fail_msg("%s, form %d:\n%s\nwant\n%s", rules[i].name, form, got,
					 want);
			assert_int_equal(res.n_bad_refs, rules[i].n_bad_refs);
			assert_int_equal(res.n_ok, 1);
			assert_int_equal(res.n_bad, 0);
		}
	}
	buf_fini(&in);
	buf_fini(&text);
}

/* ---- process ---- */

static const struct {
	const char *name, *service;
	struct fixture_tag tags[FIXTURE_TAGS];
	const char *want;
} processes[] = {
	{ "hostname, ip, version",
	  "shop",
	  { { "hostname", 's', "h" },
	    { "ip", 's', "10.0.0.1" },
	    { "jaeger.version", 's', "Go-2" } },
	  STR("service.name", "shop") "," STR("host.name", "h") "," STR("ip", "10.0.0.1") "," STR(
		  "opencensus.exporterversion", "Jaeger-Go-2") },
	{ "host.name is there already",
	  "shop",
	  { { "hostname", 's', "h" }, { "host.name", 's', "g" } },
	  STR("service.name", "shop") "," STR("hostname", "h") "," STR("host.name", "g") },
	{ "a version that is no text",
	  "shop",
	  { { "jaeger.version", 'i', "3" } },
	  STR("service.name", "shop") "," INT("jaeger.version", "3") },
	{ "without a name the tags stay",
	  "OTLPResourceNoServiceName",
	  { { "a", 'b', "true" } },
	  BOOL("a", "true") },
	{ "a tag names the service",
	  "shop",
	  { { "service.name", 's', "x" } },
	  STR("service.name", "x") },
};

static void processes_become_resources(void **state)
{
	static const struct fixture_span sp = { .high = 1, .low = 2, .id = 3, .name = "op" };
	struct buf in = BUF_INIT, text = BUF_INIT;
	struct jaeger_result res;
	char want[512];

	(void)state;
	for (size_t i = 0; i < COUNT_OF(processes); i++) {
		snprintf(want, sizeof(want), "{'resourceSpans':[{'resource':{'attributes':[%s]},",
			 processes[i].want);
		for (enum form form = 0; form < FORM_MAX; form++) {
			write_form(form, &in, processes[i].service, processes[i].tags, &sp, 1);
			as_text(buf_bytes(&in), form, &text, &res);
			if (strncmp(buf_cstr(&text), want, strlen(want)) != 0)
				fail_msg("%s, form %d: %s\nwant %s", processes[i].name, form,
					 buf_cstr(&text), want);
		}
	}
	buf_fini(&in);
	buf_fini(&text);
}

/* ---- spans that cannot be used ---- */

static void a_bad_span_rejects_itself(void **state)
{
	static const struct fixture_tag no_tags[FIXTURE_TAGS];
	static const struct fixture_span spans[] = {
		{ .low = 2, .id = 3, .name = "good" },
		{ .low = 2, .id = 0, .name = "no id" },
		{ .low = 0, .id = 4, .name = "no trace" },
		{ .low = 2, .id = 5, .name = "good, too" },
	};
	struct buf in = BUF_INIT, text = BUF_INIT;
	struct jaeger_result res;

	(void)state;
	for (enum form form = 0; form < FORM_MAX; form++) {
		write_form(form, &in, "shop", no_tags, spans, COUNT_OF(spans));
		as_text(buf_bytes(&in), form, &text, &res);
		assert_int_equal(res.n_ok, 2);
		assert_int_equal(res.n_bad, 2);
		assert_int_equal(res.n_bad_by[JAEGER_BAD_SPAN_ID], 1);
		assert_int_equal(res.n_bad_by[JAEGER_BAD_TRACE_ID], 1);
		assert_string_equal(res.first_bad, "spans[1].spanId: all zero");
		assert_non_null(strstr(buf_cstr(&text), "'good'"));
		assert_non_null(strstr(buf_cstr(&text), "'good, too'"));
		assert_null(strstr(buf_cstr(&text), "'no id'"));
	}
	buf_fini(&in);
	buf_fini(&text);
}

static const struct {
	size_t trace_id, id; /* bytes */
	const char *want;
} lengths[] = {
	{ 16, 8, "" },
	{ 8, 8, "" },
	{ 0, 8, "spans[0].trace_id: 0 bytes, not 16 or 8" },
	{ 15, 8, "spans[0].trace_id: 15 bytes, not 16 or 8" },
	{ 17, 8, "spans[0].trace_id: 17 bytes, not 16 or 8" },
	{ 16, 7, "spans[0].span_id: 7 bytes, not 8" },
	{ 16, 16, "spans[0].span_id: 16 bytes, not 8" },
};

static void ids_of_other_lengths_are_named(void **state)
{
	static const uint8_t ones[] = "11111111111111111";
	struct buf in = BUF_INIT, text = BUF_INIT;
	struct jaeger_result res;

	(void)state;
	for (size_t i = 0; i < COUNT_OF(lengths); i++) {
		size_t batch, span;

		buf_reset(&in);
		batch = pb_begin(&in, 1);
		span = pb_begin(&in, 1);
		pb_put_bytes(&in, 1, (struct bytes){ ones, lengths[i].trace_id });
		pb_put_bytes(&in, 2, (struct bytes){ ones, lengths[i].id });
		pb_end(&in, span);
		pb_end(&in, batch);
		as_text(buf_bytes(&in), POST_SPANS, &text, &res);
		assert_string_equal(res.first_bad, lengths[i].want);
		assert_int_equal(res.n_ok, lengths[i].want[0] == '\0');
	}
	buf_fini(&in);
	buf_fini(&text);
}

/* ---- protobuf only ---- */

/* A span's own process is its resource; equal ones are one; the batch's is for the others. */
static void spans_are_grouped_by_process(void **state)
{
	static const char *const own[] = { "a", NULL, "a", "b", NULL };
	static const struct fixture_tag no_tags[FIXTURE_TAGS];
	struct buf in = BUF_INIT, text = BUF_INIT;
	struct jaeger_result res;
	size_t batch = pb_begin(&in, 1);

	(void)state;
	for (size_t i = 0; i < COUNT_OF(own); i++) {
		struct fixture_span sp = { .low = 2, .id = 1 + (int64_t)i, .name = "op" };
		size_t span = pb_begin(&in, 1);

		fixture_proto_span(&in, &sp);
		if (own[i] != NULL)
			fixture_proto_process(&in, 10, own[i], no_tags);
		pb_end(&in, span);
	}
	fixture_proto_process(&in, 2, "batch", no_tags);
	pb_end(&in, batch);
	as_text(buf_bytes(&in), POST_SPANS, &text, &res);
#define SPAN(id)                                                                                   \
	"{'traceId':'00000000000000000000000000000002','spanId':'000000000000000" id "',"          \
	"'name':'op','status':{}}"
#define GROUP(name, ...)                                                                           \
	"{'resource':{'attributes':[" STR("service.name", name) "]},'scopeSpans':[{'scope':{},"    \
								"'spans':[" __VA_ARGS__ "]}]}"
	assert_string_equal(
		buf_cstr(&text),
		"{'resourceSpans':[" GROUP("a", SPAN("1") "," SPAN("3")) "," GROUP(
			"batch", SPAN("2") "," SPAN("5")) "," GROUP("b", SPAN("4")) "]}");
	buf_fini(&in);
	buf_fini(&text);
}

static void warnings_are_kept(void **state)
{
	static const struct fixture_span sp = { .low = 2, .id = 3, .name = "op" };
	struct buf in = BUF_INIT, text = BUF_INIT;
	struct jaeger_result res;
	size_t batch = pb_begin(&in, 1), span = pb_begin(&in, 1);

	(void)state;
	fixture_proto_span(&in, &sp);
	pb_put_str(&in, 12, "clock skew");
	pb_put_str(&in, 12, "late");
	pb_end(&in, span);
	pb_end(&in, batch);
	as_text(buf_bytes(&in), POST_SPANS, &text, &res);
	assert_non_null(strstr(buf_cstr(&text),
			       "{'key':'@jaeger@warnings','value':{'arrayValue':{'values':["
			       "{'stringValue':'clock skew'},{'stringValue':'late'}]}}}"));
	buf_fini(&in);
	buf_fini(&text);
}

/* ---- times ---- */

static const struct {
	int64_t start_us, duration_us;
	const char *want; /* NULL: absent */
} times[] = {
	{ 1000, 2000, "'startTimeUnixNano':'1000000','endTimeUnixNano':'3000000'" },
	{ 1000, 0, "'startTimeUnixNano':'1000000','endTimeUnixNano':'1000000'" },
	{ 0, 0, "'name':'op','status'" },
	{ 1000, -400, "'startTimeUnixNano':'1000000','endTimeUnixNano':'600000'" },
	{ 1000, -2000, "'startTimeUnixNano':'1000000','status'" },
	{ -1000, 2000, "'name':'op','endTimeUnixNano':'2000000'" },
	{ INT64_MAX, 5, "'startTimeUnixNano':'18446744073709551615'" },
};

static void clocks_may_be_wild(void **state)
{
	static const struct fixture_tag no_tags[FIXTURE_TAGS];
	struct buf in = BUF_INIT, text = BUF_INIT;
	struct jaeger_result res;

	(void)state;
	for (size_t i = 0; i < COUNT_OF(times); i++) {
		struct fixture_span sp = { .low = 2, .id = 3, .name = "op" };

		sp.start_us = times[i].start_us;
		sp.duration_us = times[i].duration_us;
		for (enum form form = 0; form < FORM_MAX; form++) {
			write_form(form, &in, "shop", no_tags, &sp, 1);
			as_text(buf_bytes(&in), form, &text, &res);
			if (strstr(buf_cstr(&text), times[i].want) == NULL)
				fail_msg("%lld + %lld, form %d: %s", (long long)times[i].start_us,
					 (long long)times[i].duration_us, form, buf_cstr(&text));
		}
	}
	buf_fini(&in);
	buf_fini(&text);
}

/* ---- damage ---- */

static void a_prefix_is_an_error_or_fewer_spans(void **state)
{
	struct buf in = BUF_INIT, out = BUF_INIT;
	struct arena a = ARENA_INIT;
	struct jaeger_result res;
	struct fixture_span sp = rules[1].in;

	(void)state;
	sp.low = 2, sp.id = 3, sp.name = "op";
	for (enum form form = 0; form < FORM_MAX; form++) {
		write_form(form, &in, "shop", rules[1].in.tags, &sp, 1);
		for (size_t n = 0; n < in.n; n++) {
			struct bytes cut = { in.p, n };
			struct err err = ERR_INIT;
			int rc = decode(cut, form, 0, &a, &out, &res, &err);

			/* Protobuf says nothing behind the end; the arguments' stop byte is not
			 * looked at. */
			if (rc < 0)
				assert_true(out.n == 0 && err.msg[0] != '\0');
			else
				assert_true(form == POST_SPANS ? n == 0 : n == in.n - 1);
			buf_reset(&out);
		}
	}
	arena_fini(&a);
	buf_fini(&in);
	buf_fini(&out);
}

/* In Thrift the process may come behind the spans. */
static void the_order_of_fields_does_not_matter(void **state)
{
	static const struct fixture_span sp = { .low = 2, .id = 3, .name = "op" };
	struct buf in = BUF_INIT, text = BUF_INIT;
	struct thrift_writer w = { .out = &in, .protocol = THRIFT_BINARY };
	struct jaeger_result res;

	(void)state;
	thrift_begin(&w);
	thrift_put_list(&w, 2, 1);
	fixture_thrift_span(&w, &sp);
	thrift_put_field(&w, 1, THRIFT_STRUCT);
	thrift_begin(&w);
	thrift_put_string(&w, 1, BYTES_LIT("late"));
	thrift_end(&w);
	thrift_end(&w);
	as_text(buf_bytes(&in), BINARY_BATCH, &text, &res);
	assert_int_equal(res.n_ok, 1);
	assert_non_null(strstr(buf_cstr(&text), STR("service.name", "late")));
	buf_fini(&in);
	buf_fini(&text);
}

static void methods(void **state)
{
	static const struct {
		const char *name, *error;
		enum jaeger_method method;
	} cases[] = {
		{ "emitBatch", NULL, JAEGER_EMIT_BATCH },
		{ "emitBitch",
		  "jaeger message: method \"emitBitch\" is not the agent's: emitBatch "
		  "or emitZipkinBatch wanted",
		  0 },
		{ "emitZipkinBatch", "jaeger message: emitZipkinBatch without its argument", 0 },
	};
	struct buf in = BUF_INIT;

	(void)state;
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		struct thrift_writer w = { .out = &in, .protocol = THRIFT_COMPACT };
		struct err err = ERR_INIT;
		enum jaeger_method method;
		struct thrift_reader r;
		int rc;

		buf_reset(&in);
		thrift_put_message(&w, cases[i].name, THRIFT_CALL);
		thrift_begin(&w);
		thrift_put_field(&w, 1, THRIFT_STRUCT);
		thrift_begin(&w);
		thrift_end(&w);
		thrift_end(&w);
		thrift_init(&r, buf_bytes(&in), THRIFT_COMPACT);
		rc = jaeger_thrift_message(&r, &method, &err);
		assert_int_equal(rc, cases[i].error ? -1 : 0);
		assert_string_equal(err.msg, cases[i].error ? cases[i].error : "");
	}
	buf_fini(&in);
}

/* ---- golden ---- */

/* Pieces of what is wanted. */
static const char api[] = "{'resourceSpans':[{'resource':{'attributes':[" STR("service.name",
	"api");
static const char host[] = "," STR("host.name", "api246-sjc1") "," STR("ip", "10.53.69.61") ","
	STR("opencensus.exporterversion", "Jaeger-Python-3.1.0");
static const char typed_tags[] = "," BOOL("a.bool", "true")
	",{'key':'a.double','value':{'doubleValue':1234.56789}}," INT( "a.long", "123456789")
	",{'key':'a.binary','value':{'bytesValue':'AQIDBAMCAQ=='}}";
static const char scope[] = "]},'scopeSpans':[{'scope':{},'spans':[";
static const char ids[] =
	"{'traceId':'000000000000000052969a8955571a3f','spanId':'0000000000647d98',";
static const char parent[] = "'parentSpanId':'000000000068c4e3',";
static const char get_server[] = "'name':'get','kind':2,";
static const char get_client[] = "'name':'get','kind':3,";
static const char get[] = "'name':'get',";
static const char span_times[] =
	"'startTimeUnixNano':'1485467191639875000','endTimeUnixNano':'1485467191662813000',";
static const char url_127[] = "'attributes':[" STR("http.url",
	"http://127.0.0.1:15598/client_transactions");
static const char url_localhost[] = "'attributes':[" STR("http.url",
	"http://localhost:15598/client_transactions");
static const char span_tags[] = "," INT("peer.port", "53931") "," BOOL("someBool", "true")
	",{'key':'someDouble','value':{'doubleValue':129.8}}" "," STR("peer.service", "rtapi") ","
	INT("peer.ipv4", "3224716605") "]";
static const char two_logs[] = ",'events':[{'timeUnixNano':'1485467191639875000','attributes':["
	STR("key1", "value1") "," STR("key2", "value2") "]},"
	"{'timeUnixNano':'1485467191639875000'," "'name':'nothing'}]";
static const char three_logs[] = ",'events':[{'timeUnixNano':'1485467191639874000','attributes':"
	"[" INT("message.id", "0") "," STR("message.type", "SENT") "," INT(
	"message.compressed_size", "512") "," INT("message.uncompressed_size", "1024")
	"]},{'timeUnixNano':'" "1485467191639875000','attributes':" "[" STR("key1", "value1")
	"]}," "{'timeUnixNano':" "'148546719163987" "5000','name':'" "nothing','" "attributes':"
	"[" STR("descript" "ion", "annotati" "on " "descript" "ion") "]" "}" "]";
static const char oc_logs[] = ",'events':[{'timeUnixNano':'1485467191639874000','attributes':["
	INT( "oc.timeevent.messageevent.id", "0") "," STR("oc.timeevent.messageevent.type",
	"SENT") "," INT("oc.timeevent.messageevent.csize", "512") ","
	INT("oc.timeevent.messageevent.usize", "1024") "]},{'timeUnixNano':'"
	"1485467191639875000','attributes':" "[" STR("key1", "value1") "]}," "{'timeUnixNano':'"
	"1485467191639875000'" ",'name':'nothing','" "attributes':[" STR("oc." "timeevent."
	"annotation." "description", "annotation " "description") "]}]";
static const char end_span[] = ",'status':{}}";
static const char end[] = "]}]}]}";
static const char binary_tag[] =
	"'attributes':[{'key':'peer.service','value':{'bytesValue':'AAAAAAAAMDk='}}]";
static const char next_ids[] =
	",{'traceId':'000000000000000052969a8955571a3f','spanId':'0000000000647d99',";
static const char two_links[] = "'links':[" LINK("000000000000000052969a8955571a3f",
	"0000000000647d98", "child_of") "," LINK("000000000000000052969a8955571a3f",
	"000000000068c4e3", "follows_from") "]";
static const char process_tags [] = "," STR("host.name", "api246-sjc1") "," INT("pid", "13") ","
	STR("start.time", "2017-" "01-" "26T21:" "46:30." "639875" "Z") "," STR("ip",
	"10.53.69.61") "," STR("opencensus.exporterversion", "someVersion") "," STR("a.bool",
	"true") "," STR("a.double", "1234.56789") "," STR("a.long", "123456789") ","
	STR("a.binary", "AQIDBAMCAQ==");
static const char more_process_tags[] = "," STR("resource_key1", "resource_val1") "," STR(
	"opencensus.resourcetype", "k8s.io/container");

enum { PIECES = 20 };
static const char *const conv_01[PIECES] = { api,       host,       scope,      ids,
					     parent,    get_server, span_times, url_127,
					     span_tags, two_logs,   end_span,   end };
static const char *const batch_01[PIECES] = {
	api,        host,          typed_tags, scope,    ids,      parent, get_server,
	span_times, url_localhost, span_tags,  two_logs, end_span, end
};
static const char *const batch_02[PIECES] = { api,        scope,      ids,       parent,   get,
					      span_times, binary_tag, end_span,  next_ids, parent,
					      get,        span_times, two_links, end_span, end };
static const char *const proto_01[PIECES] = { api,           process_tags, scope,
					      ids,           get_server,   span_times,
					      url_localhost, span_tags,    three_logs,
					      end_span,      end };
static const char *const no_binary_01[PIECES] = {
	api,        process_tags,  more_process_tags, scope,   ids,      parent, get_client,
	span_times, url_localhost, span_tags,         oc_logs, end_span, end
};

static const struct {
	const char *file;
	enum form form;
	const char *const *want;
} golden[] = {
	{ "conv_batch_01.http-binary.bin", BINARY_BATCH, conv_01 },
	{ "conv_batch_01.udp-binary.bin", BINARY_MESSAGE, conv_01 },
	{ "conv_batch_01.udp-compact-oneway.bin", COMPACT_MESSAGE, conv_01 },
	{ "domain_01.postspans.pb", POST_SPANS, conv_01 },
	{ "thrift_batch_01.http-binary.bin", BINARY_BATCH, batch_01 },
	{ "thrift_batch_01.udp-binary.bin", BINARY_MESSAGE, batch_01 },
	{ "thrift_batch_01.udp-binary-old.bin", BINARY_MESSAGE, batch_01 },
	{ "thrift_batch_01.udp-compact-oneway.bin", COMPACT_MESSAGE, batch_01 },
	{ "thrift_batch_01.udp-compact-call.bin", COMPACT_MESSAGE, batch_01 },
	{ "thrift_batch_02.http-binary.bin", BINARY_BATCH, batch_02 },
	{ "thrift_batch_02.udp-binary.bin", BINARY_MESSAGE, batch_02 },
	{ "thrift_batch_02.udp-compact-oneway.bin", COMPACT_MESSAGE, batch_02 },
	{ "jaegerproto_batch_01.postspans.pb", POST_SPANS, proto_01 },
	{ "proto_batch_no_binary_tags_01.postspans.pb", POST_SPANS, no_binary_01 },
};

static void golden_payloads(void **state)
{
	struct buf in = BUF_INIT, text = BUF_INIT, want = BUF_INIT;
	struct jaeger_result res;
	char name[128];

	(void)state;
	for (size_t i = 0; i < COUNT_OF(golden); i++) {
		snprintf(name, sizeof(name), "jaeger/derived/%s", golden[i].file);
		if (!json_golden_read(name, &in))
			continue;
		as_text(buf_bytes(&in), golden[i].form, &text, &res);
		buf_reset(&want);
		for (size_t k = 0; golden[i].want[k] != NULL; k++)
			buf_add_str(&want, golden[i].want[k]);
		if (!bytes_eq(buf_bytes(&text), buf_bytes(&want)))
			fail_msg("%s:\n%s\nwant\n%s", name, buf_cstr(&text), buf_cstr(&want));
		assert_int_equal(res.n_bad, 0);
	}
	buf_fini(&in);
	buf_fini(&text);
	buf_fini(&want);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_rule_by_every_way_in),
		cmocka_unit_test(processes_become_resources),
		cmocka_unit_test(a_bad_span_rejects_itself),
		cmocka_unit_test(ids_of_other_lengths_are_named),
		cmocka_unit_test(spans_are_grouped_by_process),
		cmocka_unit_test(warnings_are_kept),
		cmocka_unit_test(clocks_may_be_wild),
		cmocka_unit_test(a_prefix_is_an_error_or_fewer_spans),
		cmocka_unit_test(the_order_of_fields_does_not_matter),
		cmocka_unit_test(methods),
		cmocka_unit_test(golden_payloads),
	};

	return cmocka_run_group_tests_name("jaeger", tests, NULL, NULL);
}
