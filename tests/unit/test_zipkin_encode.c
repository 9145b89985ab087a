/* SPDX-License-Identifier: Apache-2.0
 *
 * test_zipkin_encode.c - OTLP to Zipkin v2 and back: what each field becomes, spelled out, and that
 * nothing is lost, over generated spans and the golden lists, in both forms.
 */
#include "base/arena.h"
#include "base/mem.h"
#include "base/rng.h"
#include "tests/unit/json_golden.h"
#include "tests/unit/zipkin_dump.h"
#include "wire/otlp_index.h"
#include "wire/otlp_json_decode.h"
#include "wire/zipkin_encode.h"
#include "wire/zipkin_json.h"
#include "wire/zipkin_proto.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

/* Tables of a request; everything in the arena. */
static struct span_tables tables_of(struct bytes request, struct arena *a)
{
	struct span_tables t = { .n_spans = 0 };
	struct otlp_counts n;
	struct otlp_result res;
	struct err err = ERR_INIT;

	if (otlp_count(request, &n, &err) < 0)
		fail_msg("count: %s", err.msg);
	t.spans = arena_zalloc(a, sizeof(*t.spans) * (n.n_spans + 1));
	t.scopes = arena_zalloc(a, sizeof(*t.scopes) * (n.n_scopes + 1));
	t.resources = arena_zalloc(a, sizeof(*t.resources) * (n.n_resources + 1));
	t.heads = arena_zalloc(a, sizeof(*t.heads) * (n.n_heads + 1));
	if (otlp_index(request, &t, a, &res, &err) < 0)
		fail_msg("index: %s", err.msg);
	assert_int_equal(res.rejects.n, 0);
	return t;
}

/* The request as lists of at most max_bytes, one after the other; their number. */
static size_t encode(struct bytes request, enum zipkin_form form, const char *default_service,
		     size_t max_bytes, struct buf *out)
{
	struct arena a = ARENA_INIT;
	struct span_tables t = tables_of(request, &a);
	struct zipkin_encoder e;
	size_t n = 0;

	buf_reset(out);
	zipkin_encoder_init(&e, form, default_service);
	for (uint32_t i = 0; i < t.n_spans || n == 0; n++)
		i = zipkin_encode_list(&e, &t, i, max_bytes, out);
	zipkin_encoder_fini(&e);
	arena_fini(&a);
	return n;
}

static void decode(struct bytes list, enum zipkin_form form, bool typed, struct buf *pb)
{
	struct arena a = ARENA_INIT;
	struct zipkin_result res;
	struct err err = ERR_INIT;
	int rc;

	buf_reset(pb);
	rc = form == ZIPKIN_JSON ? zipkin_json_decode(list, 0, typed, &a, pb, &res, &err)
				 : zipkin_proto_decode(list, 0, typed, &a, pb, &res, &err);
	if (rc < 0 || res.n_bad > 0)
		fail_msg("way back: %s%s in %.*s", err.msg, res.first_bad, (int)list.n,
			 (const char *)list.p);
	arena_fini(&a);
}

/* OTLP/JSON members of the span, the resource's attributes; and the Zipkin span beside its ids. */
static const struct { const char *span, *resource, *want; } cases[] = {
	{ "", "", "" },
	{ ",'name':'get','kind':2,'startTimeUnixNano':'5000','endTimeUnixNano':'9000',"
	  "'parentSpanId':'00000000000000ff'", "['service.name','s']",
	  "<parent>,'kind':'SERVER','name':'get','timestamp':5,'duration':4,"
	  "'localEndpoint':{'serviceName':'s'}" },
	{ ",'kind':3", "", ",'kind':'CLIENT'" }, { ",'kind':4", "", ",'kind':'PRODUCER'" },
	{ ",'kind':5", "", ",'kind':'CONSUMER'" },
	{ ",'kind':1", "", ",'tags':{'span.kind':'internal'}" },
	/* times */
	{ ",'startTimeUnixNano':'1','endTimeUnixNano':'2'", "", ",'timestamp':1,'duration':1" },
	{ ",'startTimeUnixNano':'1999','endTimeUnixNano':'3998'", "",
	  ",'timestamp':1,'duration':1" },
	{ ",'startTimeUnixNano':'9000','endTimeUnixNano':'5000'", "", ",'timestamp':9" },
	{ ",'attributes':[<otel.zipkin.absentField.startTime?true>]", "", "" },
	/* status */
	{ ",'status':{'code':1}", "", ",'tags':{'otel.status_code':'OK'}" },
	{ ",'status':{'code':2}", "",
	  ",'tags':{'otel.status_code':'ERROR','error':'true'}" },
	{ ",'status':{'code':2,'message':'boom'}", "",
	  ",'tags':{'otel.status_code':'ERROR','error':'boom'}" },
	{ ",'status':{'code':2,'message':'False'}", "",
	  ",'tags':{'otel.status_code':'ERROR','error':'true','otel.status_description':'False'}" },
	{ ",'status':{'code':2,'message':'boom'},'attributes':[<error=boom>]", "",
	  ",'tags':{'error':'boom'}" },
	{ ",'status':{'code':2,'message':'boom'},'attributes':[<error=other>]", "",
	  ",'tags':{'otel.status_code':'ERROR','otlp.attribute.error':'other','error':'boom'}" },
	{ ",'status':{},'attributes':[<error=x>]", "", ",'tags':{'otlp.attribute.error':'x'}" },
	{ ",'attributes':[<error?false>]", "", ",'tags':{'error':'false'}" },
	/* values */
	{ ",'attributes':[<a=x>,<i#-7>,<b?true>,<d~1>,<e~1e300>,<f~1.5>]", "",
	  ",'tags':{'a':'x','i':'-7','b':'true','d':'1.0','e':'1.0e+300','f':'1.5'}" },
	{ ",'attributes':[{'key':'l','value':{'arrayValue':{'values':[{'stringValue':'x'},"
	  "{'intValue':'1'},{'doubleValue':2},{'boolValue':false},{}]}}},{'key':'m','value':"
	  "{'kvlistValue':{'values':[<k=v>]}}},{'key':'y','value':{'bytesValue':'AQI='}},"
	  "{'key':'n','value':{}},{'key':'q','value':{'doubleValue':'NaN'}}]", "",
	  ",'tags':{'l':'[\\\"x\\\",1,2.0,false,null]','m':'{\\\"k\\\":\\\"v\\\"}','y':'AQI=',"
	  "'n':'','q':'NaN'}" },
	/* endpoints */
	{ ",'attributes':[<network.local.address=10.0.0.1>,<net.host.port#80>,"
	  "<service.peer.name=db>,<peer.service=db>,<network.peer.address=::1>,"
	  "<net.peer.port#5432>]", "['service.name','s']",
	  ",'localEndpoint':{'serviceName':'s','ipv4':'10.0.0.1','port':80},"
	  "'remoteEndpoint':{'serviceName':'db','ipv6':'::1','port':5432}" },
	{ ",'attributes':[<peer.service=mine>,<service.peer.name=db>]", "",
	  ",'remoteEndpoint':{'serviceName':'db'},'tags':{'peer.service':'mine'}" },
	{ ",'attributes':[<peer.service=db>]", "", ",'remoteEndpoint':{'serviceName':'db'}" },
	{ ",'attributes':[<network.peer.address=010.0.0.1>,<net.peer.port=80>,<net.host.port#0>]",
	  "", ",'tags':{'network.peer.address':'010.0.0.1','net.peer.port':'80',"
	  "'net.host.port':'0'}" },
	{ ",'attributes':[<zipkin.local.ipv4=1.2.3.4>,<network.local.address=::1>,"
	  "<zipkin.remote.ipv4=1.2.3.4>]", "",
	  ",'localEndpoint':{'ipv4':'1.2.3.4','ipv6':'::1'},'tags':{'zipkin.remote.ipv4':"
	  "'1.2.3.4'}" },
	/* flags */
	{ ",'attributes':[<zipkin.debug?true>,<zipkin.shared?true>]", "",
	  ",'debug':true,'shared':true" },
	{ ",'attributes':[<zipkin.debug=true>,<zipkin.shared?false>]", "",
	  ",'tags':{'zipkin.debug':'true','zipkin.shared':'false'}" },
	/* events, links, counts, trace state */
	{ ",'events':[{'timeUnixNano':'7000','name':'e'},{'timeUnixNano':'8000','name':'a|b',"
	  "'attributes':[<k#1>,<s=x>],'droppedAttributesCount':2},{'timeUnixNano':'9000',"
	  "'name':'a|{}|0'}]", "",
	  ",'annotations':[{'timestamp':7,'value':'e'},{'timestamp':8,'value':'a|b|{\\\"k\\\":1,"
	  "\\\"s\\\":\\\"x\\\"}|2'},{'timestamp':9,'value':'a|{}|0|{}|0'}]" },
	{ ",'startTimeUnixNano':'5000','events':[{'name':'e'}]", "",
	  ",'timestamp':5,'annotations':[{'timestamp':5,'value':'e'}]" },
	{ ",'links':[{'traceId':'000000000000000000000000000000aa','spanId':'00000000000000bb',"
	  "'traceState':'a=|{','attributes':[<k=v>],'droppedAttributesCount':3}]", "",
	  ",'tags':{'otlp.link.0':'000000000000000000000000000000aa|00000000000000bb|a=|{|"
	  "{\\\"k\\\":\\\"v\\\"}|3'}" },
	{ ",'droppedAttributesCount':1,'droppedEventsCount':2,'droppedLinksCount':3,"
	  "'traceState':'a=b'", "",
	  ",'tags':{'w3c.tracestate':'a=b','otel.dropped_attributes_count':'1',"
	  "'otel.dropped_events_count':'2','otel.dropped_links_count':'3'}" },
	/* resource */
	{ "", "['host.name','h'],['team','t']", ",'tags':{'host.name':'h','team':'t'}" },
	{ "", "['faas.name','f']",
	  ",'localEndpoint':{'serviceName':'f'},'tags':{'otlp.service.name.source':'faas.name'}" },
	{ ",'attributes':[<team=mine>,<host.name=x>]", "['team','t'],['host.name','h']",
	  ",'tags':{'team':'mine','otlp.attribute.host.name':'x','otlp.resource.team':'t',"
	  "'host.name':'h'}" },
	{ "", "['error','x'],['net.peer.port','1']",
	  ",'tags':{'otlp.resource.error':'x','otlp.resource.net.peer.port':'1'}" },
	/* keys that mean something */
	{ ",'attributes':[<otel.status_code=x>,<w3c.tracestate=y>,<otlp.link.0=z>,<span.kind=odd>,"
	  "<otel.other=o>]", "",
	  ",'tags':{'otlp.attribute.otel.status_code':'x','otlp.attribute.w3c.tracestate':'y',"
	  "'otlp.attribute.otlp.link.0':'z','span.kind':'odd','otel.other':'o'}" },
	{ ",'attributes':[<span.kind=internal>]", "",
	  ",'tags':{'otlp.attribute.span.kind':'internal'}" },
	{ ",'kind':1,'attributes':[<span.kind=odd>]", "",
	  ",'tags':{'otlp.attribute.span.kind':'odd','span.kind':'internal'}" },
};

/* <k=v>, <k#int>, <k?bool>, <k~double> and ['k','v'] are KeyValues; ' is ". */
static void expand(const char *in, struct buf *out)
{
	while (*in) {
		size_t n = *in == '<' ? strcspn(in, "=#?~") : 0, v;
		const char *member, *quote;

		if (*in != '<') {
			buf_add_char(out, *in == '\'' ? '"' : *in);
			in++;
			continue;
		}
		v = strcspn(in + n, ">");
		member = in[n] == '=' ? "string" : in[n] == '#' ? "int"
			 : in[n] == '?' ? "bool" : "double";
		quote = in[n] == '=' ? "\"" : "";
		buf_printf(out, "{\"key\":\"%.*s\",\"value\":{\"%sValue\":%s%.*s%s}}", (int)n - 1,
			   in + 1, member, quote, (int)v - 1, in + n + 1, quote);
		in += n + v + 1;
	}
}

static void expand_pairs(const char *in, struct buf *out)
{
	const char *comma = "";

	while ((in = strchr(in, '[')) != NULL) {
		size_t k = strcspn(in + 2, "'"), v = strcspn(in + 2 + k + 3, "'");

		buf_printf(out, "%s{\"key\":\"%.*s\",\"value\":{\"stringValue\":\"%.*s\"}}", comma,
			   (int)k, in + 2, (int)v, in + 5 + k);
		comma = ",";
		in += 5 + k + v;
	}
}

static void request_of(const char *span, const char *resource, struct buf *json, struct buf *pb)
{
	struct arena a = ARENA_INIT;
	struct err err = ERR_INIT;

	buf_reset(json);
	buf_add_str(json, "{\"resourceSpans\":[{\"resource\":{\"attributes\":[");
	expand_pairs(resource, json);
	buf_add_str(json, "]},\"scopeSpans\":[{\"spans\":[{\"traceId\":"
			  "\"00000000000000010000000000000002\",\"spanId\":\"0000000000000003\"");
	expand(span, json);
	buf_add_str(json, "}]}]}]}");
	buf_reset(pb);
	if (otlp_json_decode(buf_bytes(json), 0, &a, pb, &err) < 0)
		fail_msg("%s: %s", buf_cstr(json), err.msg);
	arena_fini(&a);
}

static void fields_are_mapped(void **state)
{
	struct buf json = BUF_INIT, pb = BUF_INIT, out = BUF_INIT, want = BUF_INIT;

	(void)state;
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		const char *tail = cases[i].want;
		bool has_parent = strncmp(tail, "<parent>", 8) == 0;

		request_of(cases[i].span, cases[i].resource, &json, &pb);
		encode(buf_bytes(&pb), ZIPKIN_JSON, "", 0, &out);
		buf_reset(&want);
		expand("[{'traceId':'00000000000000010000000000000002',", &want);
		expand(has_parent ? "'parentId':'00000000000000ff'," : "", &want);
		expand("'id':'0000000000000003'", &want);
		expand(tail + (has_parent ? 8 : 0), &want);
		expand("}]", &want);
		assert_string_equal(buf_cstr(&out), buf_cstr(&want));
	}
	buf_fini(&json);
	buf_fini(&pb);
	buf_fini(&out);
	buf_fini(&want);
}

static void default_service_name(void **state)
{
	struct buf json = BUF_INIT, pb = BUF_INIT, out = BUF_INIT;

	(void)state;
	request_of("", "", &json, &pb);
	encode(buf_bytes(&pb), ZIPKIN_JSON, "nobody", 0, &out);
	assert_non_null(strstr(buf_cstr(&out), "\"localEndpoint\":{\"serviceName\":\"nobody\"}"));
	request_of("", "['service.name','s']", &json, &pb);
	encode(buf_bytes(&pb), ZIPKIN_JSON, "nobody", 0, &out);
	assert_null(strstr(buf_cstr(&out), "nobody"));
	buf_fini(&json);
	buf_fini(&pb);
	buf_fini(&out);
}

/* ---- round trips ---- */

static void put_kv(struct buf *b, uint32_t number, const char *key, uint32_t member,
		   struct rng *rng)
{
	static const char *const texts[] = { "x", "", "a|b", "{\"k\":1}", "é", "true", "7", "1.5" };
	size_t kv = pb_begin(b, number), any;

	pb_put_str(b, 1, key);
	any = pb_begin(b, 2);
	switch (member) {
	case 2:
		pb_put_uint(b, 2, rng_below(rng, 2));
		break;
	case 3:
		pb_put_uint(b, 3, rng_next(rng) >> rng_below(rng, 63));
		break;
	case 4:
		pb_put_double(b, 4, ((double)rng_below(rng, 2000) - 1000) / 8);
		break;
	default:
		pb_put_str(b, 1, texts[rng_below(rng, COUNT_OF(texts) - (member == 0 ? 3 : 0))]);
	}
	pb_end(b, any);
	pb_end(b, kv);
}

/* Distinct keys: a random one of each few. */
static void put_attrs(struct buf *b, uint32_t number, bool typed, struct rng *rng)
{
	static const char *const keys[] = {
		"http.method", "otel.status_code", "span.kind", "w3c.tracestate", "host.name",
		"service.name", "otlp.link.0", "otel.scope.name", "net.peer.port", "zipkin.debug",
		"network.peer.address", "otel.dropped_links_count", "zipkin.remote.ipv4",
		"db", "otlp.attribute.x",
	};
	/* Text that looks like a number would become one. */
	static const uint32_t members[] = { 0, 2, 3, 4 };

	for (size_t i = 0; i < COUNT_OF(keys); i++)
		if (rng_below(rng, 4) == 0)
			put_kv(b, number, keys[i], typed ? members[rng_below(rng, 4)] : 0, rng);
}

static void put_event(struct buf *b, struct rng *rng)
{
	static const char *const names[] = { "e", "", "a|b", "a|{}|0", "x: {\"a\":1}",
					     "{\"a\":{}}", "\"q\": {}", "a|{\"k\":1}|7" };
	size_t mark = pb_begin(b, 11);

	pb_put_fixed64(b, 1, (1 + rng_below(rng, 1000)) * 1000);
	pb_put_str(b, 2, names[rng_below(rng, COUNT_OF(names))]);
	if (rng_below(rng, 2))
		put_kv(b, 3, "k", 1 + (uint32_t)rng_below(rng, 4), rng);
	if (rng_below(rng, 3) == 0)
		pb_put_uint(b, 4, 1 + rng_below(rng, 9));
	pb_end(b, mark);
}

static void put_link(struct buf *b, struct rng *rng)
{
	static const uint8_t id[16] = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16 };
	size_t mark = pb_begin(b, 13);

	pb_put_bytes(b, 1, (struct bytes){ id, 16 });
	pb_put_bytes(b, 2, (struct bytes){ id, 8 });
	if (rng_below(rng, 2))
		pb_put_str(b, 3, rng_below(rng, 2) ? "a=b" : "a=|{}|0");
	if (rng_below(rng, 2))
		put_kv(b, 4, "k", 1 + (uint32_t)rng_below(rng, 4), rng);
	if (rng_below(rng, 3) == 0)
		pb_put_uint(b, 5, 1 + rng_below(rng, 9));
	pb_end(b, mark);
}

static void put_status(struct buf *b, struct rng *rng)
{
	static const char *const messages[] = { "boom", "true", "False", "x|{}|0" };
	uint64_t code = rng_below(rng, 3), message = rng_below(rng, 2 * COUNT_OF(messages));
	size_t mark;

	if (code == 0 && message >= COUNT_OF(messages))
		return; /* an empty status is none */
	mark = pb_begin(b, 15);
	if (message < COUNT_OF(messages))
		pb_put_str(b, 2, messages[message]);
	if (code > 0)
		pb_put_uint(b, 3, code);
	pb_end(b, mark);
}

static void put_span(struct buf *b, bool typed, struct rng *rng)
{
	uint64_t start = (1 + rng_below(rng, 1000)) * 1000, kind = rng_below(rng, 6);
	uint8_t id[16];
	size_t mark = pb_begin(b, 2);

	store_le64(id, rng_next(rng) | 1);
	store_le64(id + 8, rng_next(rng) | 1);
	if (rng_below(rng, 4) == 0)
		memset(id, 0, 8);
	pb_put_bytes(b, 1, (struct bytes){ id, 16 });
	pb_put_bytes(b, 2, (struct bytes){ id + 8, 8 });
	if (rng_below(rng, 2))
		pb_put_str(b, 3, "ot=th:8");
	id[15] ^= 1;
	if (rng_below(rng, 2))
		pb_put_bytes(b, 4, (struct bytes){ id + 8, 8 });
	pb_put_str(b, 5, "name");
	if (kind > 0)
		pb_put_uint(b, 6, kind);
	pb_put_fixed64(b, 7, start);
	pb_put_fixed64(b, 8, start + rng_below(rng, 100) * 1000);
	put_attrs(b, 9, typed, rng);
	if (rng_below(rng, 3) == 0)
		put_kv(b, 9, "error", 0, rng);
	for (size_t i = rng_below(rng, 3); i > 0; i--)
		put_event(b, rng);
	for (size_t i = rng_below(rng, 3); i > 0; i--)
		put_link(b, rng);
	put_status(b, rng);
	for (uint32_t n = 10; n <= 14; n += 2)
		if (rng_below(rng, 5) == 0)
			pb_put_uint(b, n, 1 + rng_below(rng, 9));
	pb_end(b, mark);
}

/* One resource with keys that Zipkin's readers know, one scope, one span. */
static void make_request(struct buf *b, bool typed, struct rng *rng)
{
	size_t rs = pb_begin(b, 1), mark = pb_begin(b, 1), ss;

	put_kv(b, 1, "service.name", 0, rng);
	if (rng_below(rng, 2))
		put_kv(b, 1, "host.name", 0, rng);
	if (rng_below(rng, 2))
		put_kv(b, 1, "otlp.odd", 0, rng);
	pb_end(b, mark);
	ss = pb_begin(b, 2);
	mark = pb_begin(b, 1);
	pb_put_str(b, 1, "scope");
	if (rng_below(rng, 2))
		pb_put_str(b, 2, "1.0");
	if (rng_below(rng, 2))
		put_kv(b, 3, "k", 0, rng);
	pb_end(b, mark);
	put_span(b, typed, rng);
	pb_end(b, ss);
	pb_end(b, rs);
}

/* Text that only a type was lost from: "k#7" and "k?1" are what "k=7", "k=true" were. */
static void otlp_to_zipkin_and_back(void **state)
{
	struct buf in = BUF_INIT, list = BUF_INIT, back = BUF_INIT;
	struct buf text = BUF_INIT, want = BUF_INIT;
	struct rng rng;

	(void)state;
	rng_seed(&rng, 11);
	zipkin_dump_sorted = true;
	for (int i = 0; i < 20000; i++) {
		enum zipkin_form form = i % 2 ? ZIPKIN_JSON : ZIPKIN_PROTO;
		bool typed = i % 4 >= 2;

		buf_reset(&in);
		make_request(&in, typed, &rng);
		encode(buf_bytes(&in), form, "", 0, &list);
		decode(buf_bytes(&list), form, typed, &back);
		zipkin_dump(buf_bytes(&in), &want);
		if (strcmp(zipkin_dump(buf_bytes(&back), &text), buf_cstr(&want)) != 0)
			fail_msg("%d: sent\n%sgot\n%sas %.*s", i, buf_cstr(&want), (char *)text.p,
				 (int)list.n, (char *)list.p);
	}
	zipkin_dump_sorted = false;
	buf_fini(&in);
	buf_fini(&list);
	buf_fini(&back);
	buf_fini(&text);
	buf_fini(&want);
}

static const char *const golden[] = {
	"lens-ascend", "lens-envoy", "lens-messaging-kafka", "lens-messaging", "lens-simple-db-p6",
	"lens-skew", "lens-smartthings-mobile-web-install",
	"lens-smartthings-oauth-authorization", "sample1", "sample2", "contrib-sample3",
	"jaeger-zipkin_v2_01", "jaeger-zipkin_v2_03", "zipkin_v2_single", "zipkin_v2_notimestamp",
};

static void golden_to_otlp_and_back(void **state)
{
	struct buf in = BUF_INIT, first = BUF_INIT, list = BUF_INIT, back = BUF_INIT;
	struct buf text = BUF_INIT, want = BUF_INIT;
	size_t n = 0;
	char path[200];

	(void)state;
	zipkin_dump_sorted = true;
	for (size_t i = 0; i < 2 * COUNT_OF(golden); i++) {
		enum zipkin_form form = i % 2 ? ZIPKIN_JSON : ZIPKIN_PROTO;

		snprintf(path, sizeof(path), "zipkin/%s.json", golden[i / 2]);
		if (!json_golden_read(path, &in))
			continue;
		decode(buf_bytes(&in), ZIPKIN_JSON, false, &first);
		encode(buf_bytes(&first), form, "", 0, &list);
		decode(buf_bytes(&list), form, false, &back);
		assert_string_equal(zipkin_dump(buf_bytes(&back), &text),
				    zipkin_dump(buf_bytes(&first), &want));
		n++;
	}
	zipkin_dump_sorted = false;
	printf("%zu round trips of golden lists\n", n);
	buf_fini(&in);
	buf_fini(&first);
	buf_fini(&list);
	buf_fini(&back);
	buf_fini(&text);
	buf_fini(&want);
}

/* Lists of a bounded size: no span is lost, none is twice, each list within the bound unless it has
 * one span only. */
static void lists_are_split_by_size(void **state)
{
	struct buf in = BUF_INIT, list = BUF_INIT, back = BUF_INIT;
	struct arena a = ARENA_INIT;
	struct rng rng;

	(void)state;
	rng_seed(&rng, 3);
	for (int i = 0; i < 50; i++)
		make_request(&in, true, &rng);
	for (size_t max = 1; max < 60000; max = max * 3 + 1) {
		for (int f = 0; f < 2; f++) {
			struct span_tables t = tables_of(buf_bytes(&in), &a);
			struct zipkin_encoder e;
			size_t n_spans = 0;

			zipkin_encoder_init(&e, f ? ZIPKIN_JSON : ZIPKIN_PROTO, "");
			for (uint32_t at = 0, next; at < t.n_spans; at = next) {
				struct zipkin_result res;

				buf_reset(&list);
				next = zipkin_encode_list(&e, &t, at, max, &list);
				assert_true(next > at);
				assert_true(list.n <= max || next == at + 1);
				buf_reset(&back);
				assert_int_equal((f ? zipkin_json_decode : zipkin_proto_decode)(
							 buf_bytes(&list), 0, false, &a, &back,
							 &res, NULL), 0);
				assert_int_equal(res.n_ok, next - at);
				n_spans += res.n_ok;
			}
			assert_int_equal(n_spans, 50);
			zipkin_encoder_fini(&e);
			arena_reset(&a);
		}
	}
	arena_fini(&a);
	buf_fini(&in);
	buf_fini(&list);
	buf_fini(&back);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(fields_are_mapped),
		cmocka_unit_test(default_service_name),
		cmocka_unit_test(otlp_to_zipkin_and_back),
		cmocka_unit_test(golden_to_otlp_and_back),
		cmocka_unit_test(lists_are_split_by_size),
	};

	return cmocka_run_group_tests_name("zipkin_encode", tests, NULL, NULL);
}
