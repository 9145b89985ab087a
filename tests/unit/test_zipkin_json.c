/* SPDX-License-Identifier: Apache-2.0
 *
 * test_zipkin_json.c - Zipkin v2 JSON to OTLP. Results are compared as OTLP/JSON text.
 */
#include "base/arena.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/mem.h"
#include "base/rng.h"
#include "tests/unit/json_golden.h"
#include "wire/otlp_json_encode.h"
#include "wire/pb.h"
#include "wire/zipkin_json.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

static int decode(struct bytes json, struct buf *pb, struct zipkin_result *res,
		  struct err *err)
{
	struct arena a = ARENA_INIT;
	int rc = zipkin_json_decode(json, 0, false, &a, pb, res, err);

	arena_fini(&a);
	return rc;
}

/* The list as OTLP/JSON, with ' for " so that tests can be read. */
static const char *as_text(struct bytes json, struct buf *text, struct zipkin_result *res)
{
	struct buf pb = BUF_INIT;
	struct err err = ERR_INIT;
	struct bytes part;

	if (decode(json, &pb, res, &err) < 0)
		fail_msg("%.*s: %s", (int)MIN(json.n, (size_t)300), (const char *)json.p, err.msg);
	part = buf_bytes(&pb);
	buf_reset(text);
	if (otlp_json_encode(&part, 1, OTLP_JSON_TEMPO, 0, text, &err) < 0)
		fail_msg("result does not encode: %s", err.msg);
	for (size_t i = 0; i < text->n; i++)
		if (text->p[i] == '"')
			text->p[i] = '\'';
	buf_fini(&pb);
	return buf_cstr(text);
}

static struct bytes quoted(const char *text, struct buf *b)
{
	buf_reset(b);
	for (; *text; text++)
		buf_add_char(b, *text == '\'' ? '"' : *text);
	buf_cstr(b);
	return buf_bytes(b);
}

/* What a span with these members beside ids and timestamp 1 has, beside those, in OTLP. */
static const struct { const char *in, *out; } spans[] = {
	{ "", "" },
	{ ",'name':'get','kind':'CLIENT'", ",'name':'get','kind':'SPAN_KIND_CLIENT'" },
	{ ",'kind':'server'", ",'kind':'SPAN_KIND_SERVER'" },
	{ ",'kind':'NO_SUCH','zzz':{'a':[1]},'name':null,'tags':null", "" },
	{ ",'kind':5", "" },
	{ ",'parentId':'2'", ",'parentSpanId':'AAAAAAAAAAI='" },
	{ ",'parentId':'00'", "" },
	{ ",'parentId':''", "" },
	{ ",'parentId':'00000000000000ab'", "" },	/* the span's own id */
	{ ",'tags':{'w3c.tracestate':'a=b','x':'y'}", ",'traceState':'a=b','attributes':[x=y]" },
	{ ",'tags':{'n':7,'b':true,'z':null,'o':{},'a':[1],'f':-1.50e3,'e':''}",
	  ",'attributes':[n=7,b=true,f=-1.50e3,e=]" },
	{ ",'tags':{'span.kind':'internal','x':'y'}",
	  ",'kind':'SPAN_KIND_INTERNAL','attributes':[x=y]" },
	{ ",'tags':{'span.kind':'odd'}", ",'attributes':[span.kind=odd]" },
	{ ",'tags':{'span.kind':'internal'},'kind':'CLIENT'",
	  ",'kind':'SPAN_KIND_CLIENT','attributes':[span.kind=internal]" },
	/* status */
	{ ",'tags':{'otel.status_code':'OK'}", ",'status':{'code':'STATUS_CODE_OK'}" },
	{ ",'tags':{'otel.status_code':'ERROR','otel.status_description':'d'}",
	  ",'status':{'message':'d','code':'STATUS_CODE_ERROR'}" },
	{ ",'tags':{'otel.status_code':'STATUS_CODE_ERROR'}",
	  ",'status':{'code':'STATUS_CODE_ERROR'}" },
	{ ",'tags':{'otel.status_code':'Unset'}", "" },
	{ ",'tags':{'otel.status_code':'odd'}", ",'attributes':[otel.status_code=odd]" },
	{ ",'tags':{'error':'true'}", ",'status':{'code':'STATUS_CODE_ERROR'}" },
	{ ",'tags':{'error':true}", ",'status':{'code':'STATUS_CODE_ERROR'}" },
	{ ",'tags':{'error':'false'}", ",'attributes':[error=false]" },
	{ ",'tags':{'error':''}", ",'attributes':[error=],'status':{'code':'STATUS_CODE_ERROR'}" },
	{ ",'tags':{'error':'boom'}",
	  ",'attributes':[error=boom],'status':{'message':'boom','code':'STATUS_CODE_ERROR'}" },
	{ ",'tags':{'error':'boom','otel.status_description':'d'}",
	  ",'attributes':[error=boom],'status':{'message':'d','code':'STATUS_CODE_ERROR'}" },
	/* endpoints */
	{ ",'remoteEndpoint':{'serviceName':'db','ipv4':'10.0.0.255','port':5432}",
	  ",'attributes':[peer.service=db,service.peer.name=db,network.peer.address=10.0.0.255,"
	  "net.peer.port#5432]" },
	{ ",'remoteEndpoint':{'serviceName':'db'},'tags':{'peer.service':'mine'}",
	  ",'attributes':[peer.service=mine,service.peer.name=db]" },
	{ ",'localEndpoint':{'ipv4':'1.2.3.4','ipv6':'7::0.128.128.127','port':'80'}",
	  ",'attributes':[network.local.address=7::80:807f,zipkin.local.ipv4=1.2.3.4,"
	  "net.host.port#80]" },
	{ ",'localEndpoint':{'ipv6':'::ffff:1.2.3.4'}",
	  ",'attributes':[network.local.address=1.2.3.4]" },
	{ ",'localEndpoint':{'ipv6':'1.2.3.4'}", ",'attributes':[network.local.address=1.2.3.4]" },
	{ ",'localEndpoint':{'ipv4':'::1'}", ",'attributes':[network.local.address=::1]" },
	{ ",'localEndpoint':{'ipv4':'no.1.2.3','port':65536,'x':[{}]},'remoteEndpoint':{'port':-1}",
	  "" },
	{ ",'localEndpoint':{'ipv4':'1.2.3.4'},'tags':{'network.local.address':'x'"
	  ",'net.peer.port':'y'}",
	  ",'attributes':[net.peer.port=y,network.local.address=1.2.3.4]" },
	{ ",'localEndpoint':{},'remoteEndpoint':null", "" },
	/* flags */
	{ ",'debug':true,'shared':true", ",'attributes':[zipkin.debug?true,zipkin.shared?true]" },
	{ ",'debug':false,'shared':null", "" },
	/* annotations */
	{ ",'annotations':[{'timestamp':2,'value':'ev'},{'value':'x'},{'timestamp':3},7,null,"
	  "{'timestamp':'4','value':''}]", ",'events':[{'timeUnixNano':'2000','name':'ev'},"
	  "{'timeUnixNano':'4000'}]" },
	{ ",'annotations':[{'timestamp':2,'value':'n|{\\'i\\':1,\\'d\\':1.5,\\'s\\':\\'a|b\\'"
	  ",\\'n\\':null}|3'}]",
	  ",'events':[{'timeUnixNano':'2000','name':'n','attributes':[i#1,d~1.5,s=a|b],"
	  "'droppedAttributesCount':3}]" },
	{ ",'annotations':[{'timestamp':2,'value':'a|b|c'},{'timestamp':2,'value':'a|"
	  "{\\'x\\':|0'}]",
	  ",'events':[{'timeUnixNano':'2000','name':'a|b|c'},"
	  "{'timeUnixNano':'2000','name':'a|{\\'x\\':|0'}]" },
	/* links */
	{ ",'tags':{'otlp.link.1':'bad','otlp.link.0':'00000000000000000000000000000001|"
	  "0000000000000002|s=t|{\\'k\\':[1,{\\'m\\':true}]}|4'}",
	  ",'attributes':[otlp.link.1=bad],'links':[{'traceId':'AAAAAAAAAAAAAAAAAAAAAQ==',"
	  "'spanId':'AAAAAAAAAAI=','traceState':'s=t','attributes':[{'key':'k','value':"
	  "{'arrayValue':"
	  "{'values':[{'intValue':'1'},{'kvlistValue':{'values':[m?true]}}]}}}],"
	  "'droppedAttributesCount':4}]" },
	{ ",'tags':{'otlp.link.1':'00000000000000000000000000000001|0000000000000002||{}|0'}",
	  ",'attributes':[otlp.link.1=00000000000000000000000000000001|0000000000000002||{}|0]" },
};

/* k=v, k#int, k?bool, k~double in [...] stand for a KeyValue. */
static void expand(const char *in, struct buf *out)
{
	bool in_list = false;

	while (*in) {
		const char *key = in;
		static const char sign[] = "=#?~";
		static const char *const member[] = { "string", "int", "bool", "double" };
		const char *hit = NULL;
		size_t n, v;

		if (*in == '[' || (in_list && *in == ',')) {
			in_list = true;
			buf_add_char(out, *in++);
			continue;
		}
		n = strcspn(key, "=#?~[]{},'");
		hit = key[n] ? strchr(sign, key[n]) : NULL;
		if (!in_list || n == 0 || hit == NULL) {
			in_list = false;
			buf_add_char(out, *in++);
			continue;
		}
		v = strcspn(key + n + 1, key[n] == '=' && strstr(key, "||{}|0]") ? "]" : ",]");
		buf_printf(out, "{'key':'%.*s','value':{'%sValue':%s%.*s%s}}", (int)n, key,
			   member[hit - sign], hit[0] == '=' || hit[0] == '#' ? "'" : "", (int)v,
				key + n + 1,
			   hit[0] == '=' || hit[0] == '#' ? "'" : "");
		in = key + n + 1 + v;
	}
}

static void spans_are_mapped(void **state)
{
	struct buf json = BUF_INIT, raw = BUF_INIT, text = BUF_INIT, want = BUF_INIT;
	struct zipkin_result res;

	(void)state;
	for (size_t i = 0; i < COUNT_OF(spans); i++) {
		const char *name = strstr(spans[i].out, ",'name':"),
			*kind = strstr(spans[i].out, ",'kind':");
		const char *tail = spans[i].out;
		const char *got;

		/* Times stand between the kind and the attributes. */
		if (kind != NULL)
			tail = strchr(kind + 8, '\'') + 1 + strcspn(kind + 9, "'") + 1;
		else if (name == spans[i].out && name != NULL)
			tail = spans[i].out + strlen(spans[i].out);
		while (strncmp(tail, ",'parentSpanId", 14) == 0 ||
		       strncmp(tail, ",'traceState", 12) == 0)
			tail += 1 + strcspn(tail + 1, ",") ;
		buf_reset(&raw);
		buf_printf(&raw, "[{'traceId':'1','id':'ab','timestamp':1%s}]", spans[i].in);
		/* Inside a string of the case a quote is written \' and stays escaped. */
		quoted(buf_cstr(&raw), &json);
		got = as_text(buf_bytes(&json), &text, &res);
		assert_int_equal(res.n_ok, 1);
		buf_reset(&want);
		buf_add_str(&want,
			    "{'resourceSpans':[{'resource':{},'scopeSpans':[{'spans':[{'traceId':"
			    "'AAAAAAAAAAAAAAAAAAAAAQ==','spanId':'AAAAAAAAAKs='");
		buf_add(&want, spans[i].out, (size_t)(tail - spans[i].out));
		buf_add_str(&want, ",'startTimeUnixNano':'1000','endTimeUnixNano':'1000'");
		expand(tail, &want);
		buf_add_str(&want, "}]}]}]}");
		assert_string_equal(got, buf_cstr(&want));
	}
	buf_fini(&json);
	buf_fini(&raw);
	buf_fini(&text);
	buf_fini(&want);
}

static const struct { const char *in, *out; } times[] = {
	{ "'timestamp':1582662767960310,'duration':2",
	  "'startTimeUnixNano':'1582662767960310000','endTimeUnixNano':'1582662767960312000'" },
	{ "'timestamp':1.58266276796031e+15,'duration':'2'",
	  "'startTimeUnixNano':'1582662767960310000','endTimeUnixNano':'1582662767960312000'" },
	{ "'timestamp':'1582662767960310.7','duration':0.5",
	  "'startTimeUnixNano':'1582662767960310000','endTimeUnixNano':'1582662767960311000'" },
	{ "'duration':3", "'endTimeUnixNano':'3000','attributes':[{'key':"
	  "'otel.zipkin.absentField.startTime','value':{'boolValue':true}}]" },
	{ "'timestamp':-5,'duration':3", "'endTimeUnixNano':'3000','attributes':[{'key':"
	  "'otel.zipkin.absentField.startTime','value':{'boolValue':true}}]" },
	{ "'timestamp':5,'duration':-3", "'startTimeUnixNano':'5000','endTimeUnixNano':'5000'" },
	{ "'timestamp':18446744073709551615,'duration':1e18",
	  "'startTimeUnixNano':'18446744073709551615','endTimeUnixNano':'18446744073709551615'" },
};

static void times_in_every_form(void **state)
{
	struct buf json = BUF_INIT, text = BUF_INIT;
	struct zipkin_result res;
	char raw[300];

	(void)state;
	for (size_t i = 0; i < COUNT_OF(times); i++) {
		const char *got;

		snprintf(raw, sizeof(raw), "[{'traceId':'1','id':'1',%s}]", times[i].in);
		got = strstr(as_text(quoted(raw, &json), &text, &res),
			     "'spanId':'AAAAAAAAAAE=',") + 24;
		if (strncmp(got, times[i].out, strlen(times[i].out)) != 0)
			fail_msg("%s: got %s", times[i].in, got);
	}
	buf_fini(&json);
	buf_fini(&text);
}

static const struct { const char *in, *msg; enum zipkin_reason reason; } bad_spans[] = {
	{ "{'traceId':'1','id':'not hex'}", "[1].id: \"not hex\"", ZIPKIN_BAD_SPAN_ID },
	{ "{'traceId':'1','id':'12345678901234567'}", "[1].id: \"12345678901234567\"",
	  ZIPKIN_BAD_SPAN_ID },
	{ "{'traceId':'1','id':'0'}", "[1].id: \"0\"", ZIPKIN_BAD_SPAN_ID },
	{ "{'traceId':'1','id':null}", "[1].id: missing", ZIPKIN_BAD_SPAN_ID },
	{ "{'traceId':'1','id':7}", "[1].id: 7", ZIPKIN_BAD_SPAN_ID },
	{ "{'id':'1'}", "[1].traceId: missing", ZIPKIN_BAD_TRACE_ID },
	{ "{'traceId':'0000','id':'1'}", "[1].traceId: \"0000\"", ZIPKIN_BAD_TRACE_ID },
	{ "{'traceId':'','id':'1'}", "[1].traceId: \"\"", ZIPKIN_BAD_TRACE_ID },
	{ "{'traceId':'123456789012345678901234567890123','id':'1'}",
	  "[1].traceId: \"123456789012345678901234567890123\"", ZIPKIN_BAD_TRACE_ID },
	{ "{'traceId':['1'],'id':'1'}", "[1].traceId: an array", ZIPKIN_BAD_TRACE_ID },
	{ "{'traceId':'1','id':'1','parentId':'BADID'}", "[1].parentId: \"BADID\"",
	  ZIPKIN_BAD_PARENT_ID },
	{ "{'traceId':'1','id':'1','tags':[{'a':[]}]}", "[1].tags: an array",
	  ZIPKIN_BAD_JSON_TYPE },
	{ "{'traceId':'1','id':'1','annotations':{}}", "[1].annotations: an object",
	  ZIPKIN_BAD_JSON_TYPE },
	{ "{'traceId':'1','id':'1','localEndpoint':'x'}", "[1].localEndpoint: \"x\"",
	  ZIPKIN_BAD_JSON_TYPE },
	{ "{'traceId':'1','id':'1','name':{}}", "[1].name: an object", ZIPKIN_BAD_JSON_TYPE },
	{ "{'traceId':'1','id':'1','timestamp':true}", "[1].timestamp: true",
	  ZIPKIN_BAD_JSON_TYPE },
	{ "{'traceId':'1','id':'1','duration':'1s'}", "[1].duration: \"1s\"", ZIPKIN_BAD_NUMBER },
	{ "{'traceId':'1','id':'1','tags':{'a':'\xff'}}", "[1].tags: \"?\"", ZIPKIN_BAD_UTF8 },
	{ "{'traceId':'1','id':'1','name':'\xff'}", "[1]: \"?\"", ZIPKIN_BAD_UTF8 },
	{ "[[[1]]]", "[1]: an array", ZIPKIN_BAD_JSON_TYPE },
	{ "17", "[1]: 17", ZIPKIN_BAD_JSON_TYPE },
	{ "null", "[1]: null", ZIPKIN_BAD_JSON_TYPE },
};

static void a_bad_span_costs_only_itself(void **state)
{
	struct buf json = BUF_INIT, text = BUF_INIT;
	struct zipkin_result res;
	char raw[400];

	(void)state;
	for (size_t i = 0; i < COUNT_OF(bad_spans); i++) {
		snprintf(raw, sizeof(raw),
			 "[{'traceId':'1','id':'1'},%s,{'traceId':'1','id':'3'},%s]",
			 bad_spans[i].in, bad_spans[i].in);
		as_text(quoted(raw, &json), &text, &res);
		assert_string_equal(res.first_bad, bad_spans[i].msg);
		assert_int_equal(res.n_ok, 2);
		assert_int_equal(res.n_bad, 2);
		assert_int_equal(res.n_bad_by[bad_spans[i].reason], 2);
		assert_non_null(strstr(buf_cstr(&text), "'spanId':'AAAAAAAAAAM='"));
	}
	assert_string_equal(zipkin_reason_name(ZIPKIN_BAD_PARENT_ID), "bad_parent_id");
	buf_fini(&json);
	buf_fini(&text);
}

static const struct { const char *in; int want; const char *msg; } bodies[] = {
	{ "", 0, "" }, { " \n", 0, "" }, { "[]", 0, "" }, { " [ ] ", 0, "" },
	{ "{}", -1, "zipkin: expected a list of spans, got an object" },
	{ "{'traceId':'1','id':'1'}", -1, "zipkin: expected a list of spans, got an object" },
	{ "null", -1, "zipkin: expected a list of spans, got null" },
	{ "[{'traceId':'1','id':'1'}", -1, "json: byte 25: expected ',' or ']', found the end" },
	{ "[{'traceId':'1','id':'zz','x':]", -1, "json: byte 30: expected a value, found ']'" },
	{ "[]]", -1, "json: byte 2: expected nothing after the value, found ']'" },
};

static void bodies_that_are_no_list_or_empty(void **state)
{
	struct buf json = BUF_INIT, pb = BUF_INIT;
	struct zipkin_result res;

	(void)state;
	for (size_t i = 0; i < COUNT_OF(bodies); i++) {
		struct err err = ERR_INIT;

		if (decode(quoted(bodies[i].in, &json), &pb, &res, &err) != bodies[i].want)
			fail_msg("%s: %s", bodies[i].in, err.msg);
		assert_string_equal(err.msg, bodies[i].msg);
		assert_int_equal(pb.n, 0);
	}
	buf_fini(&json);
	buf_fini(&pb);
}

static void spans_are_grouped_in_order(void **state)
{
	struct buf json = BUF_INIT, text = BUF_INIT;
	struct zipkin_result res;

	(void)state;
	as_text(quoted("[{'traceId':'1','id':'1','timestamp':1,'localEndpoint':"
		"{'serviceName':'a'}},"
		       "{'traceId':'1','id':'2','timestamp':1,'localEndpoint':{'serviceName':'b'},"
		       "'tags':{'host.name':'h','service.version':'1'}},"
		       "{'traceId':'1','id':'3','timestamp':1,'localEndpoint':{'serviceName':'a'},"
		       "'tags':{'otel.library.name':'l','otel.library.version':'0'}},"
		       "{'traceId':'1','id':'4','timestamp':1,'localEndpoint':{'serviceName':'a'}},"
		       "{'traceId':'1','id':'5','timestamp':1,'tags':{'service.version':'1',"
		       "'host.name':'h','service.name':'b'}},"
		       "{'traceId':'1','id':'6','timestamp':1,'localEndpoint':{'serviceName':'f'},"
		       "'tags':{'otlp.service.name.source':'faas.name'}}]", &json), &text, &res);
	assert_int_equal(res.n_ok, 6);
	/* Cut the parts that are alike away. */
	for (char *p = (char *)text.p; (p = strstr(p, ",'startTimeUnixNano':'1000'")) != NULL;) {
		static const char same[] = ",'startTimeUnixNano':'1000','endTimeUnixNano':'1000'";

		memmove(p, p + sizeof(same) - 1, strlen(p) - sizeof(same) + 2);
	}
#define ATTR(k, v) "{'key':'" k "','value':{'stringValue':'" v "'}}"
#define SPAN(n) "{'traceId':'AAAAAAAAAAAAAAAAAAAAAQ==','spanId':'AAAAAAAAAA" n "='}"
	assert_string_equal((char *)text.p, "{'resourceSpans':["
		"{'resource':{'attributes':[" ATTR("service.name", "a") "]},'scopeSpans':["
		"{'spans':[" SPAN("E") "," SPAN("Q") "]},"
		"{'scope':{'name':'l','version':'0'},'spans':[" SPAN("M") "]}]},"
		"{'resource':{'attributes':[" ATTR("service.name", "b") ","
		ATTR("host.name", "h") "," ATTR("service.version", "1") "]},"
		"'scopeSpans':[{'spans':[" SPAN("I") "," SPAN("U") "]}]},"
		"{'resource':{'attributes':[" ATTR("faas.name", "f") "]},'scopeSpans':[{'spans':["
		SPAN("Y") "]}]}]}");
	buf_fini(&json);
	buf_fini(&text);
}

static const struct { const char *file; size_t n_ok, n_bad; const char *has; } golden[] = {
	{ "lens-ascend.json", 8, 0, "zipkin.shared" },
	{ "lens-envoy.json", 1, 0, "{'resource':{}" },
	{ "lens-messaging-kafka.json", 28, 0, "SPAN_KIND_PRODUCER" },
	{ "lens-messaging.json", 4, 0,
	  "{'key':'network.peer.address','value':{'stringValue':'::1'}}" },
	{ "lens-simple-db-p6.json", 5, 0, "{'key':'peer.service'" },
	{ "lens-skew.json", 4, 0, "zipkin.shared" },
	{ "lens-smartthings-mobile-web-install.json", 1041, 0,
	  "otel.zipkin.absentField.startTime" },
	{ "lens-smartthings-oauth-authorization.json", 175, 0, "zipkin.shared" },
	{ "sample1.json", 9, 0,
	  "{'key':'network.local.address','value':{'stringValue':'7::80:807f'}}" },
	{ "sample2.json", 1, 0, "{'resource':{}" },
	{ "contrib-sample3.json", 1, 0,
	  "'status':{'message':'Something failed','code':'STATUS_CODE_ERROR'}" },
	{ "jaeger-zipkin_v2_01.json", 1, 0,
	  "'spanId':'AAAAAAAAAAI=','parentSpanId':'AAAAAAAAAAE='" },
	{ "jaeger-zipkin_v2_03.json", 1, 0, "SPAN_KIND_PRODUCER" },
	{ "zipkin_v2_single.json", 1, 0, "SPAN_KIND_CLIENT" },
	{ "zipkin_v2_notimestamp.json", 1, 0, "otel.zipkin.absentField.startTime" },
	{ "zipkin_v1_error_batch.json", 1, 1, "traceId" },
	{ "zipkin_v1_multiple_batches.json", 0, 5, "" },
};

static size_t count(const char *text, const char *what)
{
	size_t n = 0;

	for (; (text = strstr(text, what)) != NULL; text += strlen(what))
		n++;
	return n;
}

static void golden_lists(void **state)
{
	struct buf json = BUF_INIT, text = BUF_INIT;
	size_t n_files = 0, n_spans = 0;

	(void)state;
	for (size_t i = 0; i < COUNT_OF(golden); i++) {
		struct zipkin_result res;
		const char *got;
		char path[200];

		snprintf(path, sizeof(path), "zipkin/%s", golden[i].file);
		if (!json_golden_read(path, &json))
			continue;
		got = as_text(buf_bytes(&json), &text, &res);
		if (res.n_ok != golden[i].n_ok || res.n_bad != golden[i].n_bad)
			fail_msg("%s: %zu good, %zu bad: %s", golden[i].file, res.n_ok, res.n_bad,
				 res.first_bad);
		assert_int_equal(count(got, "{'traceId':"), res.n_ok);
		if (strstr(got, golden[i].has) == NULL)
			fail_msg("%s: no %s in %.2000s", golden[i].file, golden[i].has, got);
		n_files++;
		n_spans += res.n_ok;
		if (strstr(golden[i].file, "mobile-web")) {	/* figures of the data's manifest */
			assert_int_equal(count(got, "zipkin.shared"), 294);
			assert_int_equal(count(got, "absentField.startTime"), 84);
		}
	}
	printf("%zu lists, %zu spans\n", n_files, n_spans);
	buf_fini(&json);
	buf_fini(&text);
}

static const char whole[] =
	"[{\"traceId\":\"5af7183fb1d4cf5f\",\"parentId\":\"6b221d5bc9e6496c\""
	",\"id\":\"352bff9a74ca9ad2\","
	"\"kind\":\"CLIENT\",\"name\":\"get /api\",\"timestamp\":1556604172355737"
	",\"duration\":1431,"
	"\"localEndpoint\":{\"serviceName\":\"backend\",\"ipv4\":\"192.168.99.1\",\"port\":3306},"
	"\"remoteEndpoint\":{\"ipv6\":\"::1\",\"port\":58648},\"annotations\":["
	"{\"timestamp\":1556604172355738,"
	"\"value\":\"n|{\\\"a\\\":[1,{\\\"b\\\":2}]}|0\"}],\"tags\":{\"http.method\":\"GET\""
	",\"error\":\"x\","
	"\"otlp.link.0\":\"5af7183fb1d4cf5f5af7183fb1d4cf5f|352bff9a74ca9ad2||"
	"{\\\"k\\\":1.5}|1\"},\"shared\":true},"
	"{\"traceId\":\"1\",\"id\":\"2\",\"localEndpoint\":{\"serviceName\":\"other\"}}]";

static void every_truncation_is_refused(void **state)
{
	struct buf pb = BUF_INIT;
	struct zipkin_result res;

	(void)state;
	for (size_t n = 1; n < sizeof(whole) - 1; n++) {
		uint8_t *copy = xmalloc(n);

		memcpy(copy, whole, n);
		assert_int_equal(decode((struct bytes){ copy, n }, &pb, &res, NULL), -1);
		assert_int_equal(pb.n, 0);
		free(copy);
	}
	assert_int_equal(decode(BYTES_LIT(whole), &pb, &res, NULL), 0);
	assert_int_equal(res.n_ok, 2);
	buf_fini(&pb);
}

static void flipped_bits_and_nul_bytes_do_no_harm(void **state)
{
	struct rng rng;

	(void)state;
	rng_seed(&rng, 5);
	for (int i = 0; i < 5000; i++) {
		uint8_t *copy = xmalloc(sizeof(whole) - 1);
		struct bytes json = { copy, sizeof(whole) - 1 };
		struct zipkin_result res;
		struct buf pb = BUF_INIT, text = BUF_INIT;

		memcpy(copy, whole, json.n);
		if (i % 3 == 0)
			copy[rng_below(&rng, json.n)] = 0;
		else
			copy[rng_below(&rng, json.n)] ^= (uint8_t)(1u << rng_below(&rng, 8));
		if (decode(json, &pb, &res, NULL) == 0) {
			struct bytes part = buf_bytes(&pb);

			assert_int_equal(otlp_json_encode(&part, 1, OTLP_JSON, 0, &text, NULL), 0);
		}
		buf_fini(&pb);
		buf_fini(&text);
		free(copy);
	}
}

static void hostile_shapes(void **state)
{
	struct buf json = BUF_INIT, pb = BUF_INIT;
	struct arena a = ARENA_INIT;
	struct zipkin_result res;
	struct err err = ERR_INIT;

	(void)state;
	for (int i = 0; i < 10000; i++)
		buf_add_char(&json, '[');
	assert_int_equal(decode(buf_bytes(&json), &pb, &res, &err), -1);
	assert_string_equal(err.msg, "json: byte 64: nested deeper than 64 levels");
	/* An annotation whose own JSON is 10,000 deep is just a text. */
	buf_reset(&json);
	buf_add_str(&json,
		    "[{\"traceId\":\"1\",\"id\":\"1\",\"annotations\":[{\"timestamp\":1"
		    ",\"value\":\"n|{");
	for (int i = 0; i < 10000; i++)
		buf_add_str(&json, "\\\"a\\\":{");
	buf_add_str(&json, "|0\"}]}]");
	assert_int_equal(decode(buf_bytes(&json), &pb, &res, &err), 0);
	assert_int_equal(res.n_ok, 1);
	/* 20,000 services: a table, not a search. */
	buf_reset(&json);
	buf_add_char(&json, '[');
	for (int i = 0; i < 20000; i++)
		buf_printf(&json,
			   "%s{\"traceId\":\"1\",\"id\":\"1\",\"localEndpoint\":"
			   "{\"serviceName\":\"s%d\"}}",
			   i ? "," : "", i);
	buf_add_char(&json, ']');
	buf_reset(&pb);
	assert_int_equal(decode(buf_bytes(&json), &pb, &res, &err), 0);
	assert_int_equal(res.n_ok, 20000);
	assert_int_equal(zipkin_json_decode(buf_bytes(&json), 100000, false, &a, &pb, &res,
					    &err), -1);
	assert_int_equal(err.kind, ERR_TOO_LARGE);
	arena_fini(&a);
	buf_fini(&json);
	buf_fini(&pb);
}

/* Not a verdict (the machine is shared), a figure to look at. */
static void speed(void **state)
{
	struct buf json = BUF_INIT, pb = BUF_INIT;
	struct arena a = ARENA_INIT;
	struct zipkin_result res;
	uint64_t best = UINT64_MAX;

	(void)state;
	if (!json_golden_read("zipkin/lens-smartthings-oauth-authorization.json", &json))
		return;
	for (int i = 0; i < 20; i++) {
		uint64_t t = clock_mono_ns();

		buf_reset(&pb);
		arena_reset(&a);
		assert_int_equal(zipkin_json_decode(buf_bytes(&json), 0, false, &a, &pb, &res,
						    NULL), 0);
		best = MIN(best, clock_mono_ns() - t);
	}
	printf("%.0f ns per span of %zu bytes\n", (double)best / (double)res.n_ok,
	       json.n / res.n_ok);
	arena_fini(&a);
	buf_fini(&json);
	buf_fini(&pb);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(spans_are_mapped),
		cmocka_unit_test(times_in_every_form),
		cmocka_unit_test(a_bad_span_costs_only_itself),
		cmocka_unit_test(bodies_that_are_no_list_or_empty),
		cmocka_unit_test(spans_are_grouped_in_order),
		cmocka_unit_test(golden_lists),
		cmocka_unit_test(every_truncation_is_refused),
		cmocka_unit_test(flipped_bits_and_nul_bytes_do_no_harm),
		cmocka_unit_test(hostile_shapes),
		cmocka_unit_test(speed),
	};

	return cmocka_run_group_tests_name("zipkin_json", tests, NULL, NULL);
}
