/* SPDX-License-Identifier: Apache-2.0
 *
 * test_zipkin_v1.c - Zipkin v1 JSON and thrift to OTLP: the golden files spelled out, every way the
 * halves of a call are told apart, every way a span or the bytes can be bad.
 */
#include "base/arena.h"
#include "base/mem.h"
#include "base/rng.h"
#include "tests/unit/json_golden.h"
#include "tests/unit/zipkin_dump.h"
#include "wire/zipkin_thrift.h"
#include "wire/zipkin_v1_json.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

typedef int (*decode_fn)(struct bytes in, size_t max_bytes, bool typed_tags, struct arena *arena,
			 struct buf *out, struct zipkin_result *result, struct err *err);

static int run(decode_fn decode, struct bytes in, struct buf *pb, struct zipkin_result *res,
	       struct err *err)
{
	struct arena a = ARENA_INIT;
	int rc;

	buf_reset(pb);
	rc = decode(in, 0, false, &a, pb, res, err);
	arena_fini(&a);
	return rc;
}

/* is_object: the file is one span, not a list. */
static const struct {
	const char *file;
	decode_fn decode;
	bool is_object;
	size_t n_ok, n_bad;
	const char *want;
} golden[] = {
	{ "bench-v1-span-client.json", zipkin_v1_json_decode, true, 1, 0,
	  "{service.name=frontend}\n"
	  "4d1e00c0db9010db86154a4ba6e91385/4d1e00c0db9010db^86154a4ba6e91385 CLIENT get "
	  "1472470996199000+207000 clnt/finagle.version=6.45.0 http.path=/api "
	  "network.local.address=127.0.0.1 peer.service=backend "
	  "service.peer.name=backend network.peer.address=192.168.99.101 "
	  "net.peer.port#9000 @1472470996238000 foo() @1472470996403000 bar()\n" },
	{ "bench-v1-span-local.json", zipkin_v1_json_decode, true, 1, 0,
	  "{service.name=zipkin-server}\n"
	  "5af7183fb1d4cf5f/6b221d5bc9e6496c^5af7183fb1d4cf5f - get-traces "
	  "1461750040358000+15495 component=JDBCSpanStore "
	  "request=QueryRequest{serviceName=zipkin-server, spanName=null, "
	  "annotations=[], binaryAnnotations={}, minDuration=null, maxDuration=null, "
	  "endTs=1461750033209, lookback=604800000, limit=10} "
	  "network.local.address=172.19.0.3 net.host.port#9411\n" },
	{ "bench-v1-span-rpc.json", zipkin_v1_json_decode, true, 1, 0,
	  "{service.name=zipkin-web}\n"
	  "83c138a4ee0f3de9/d673d7abe80d2f3f^83c138a4ee0f3de9 CLIENT get "
	  "1461750491274000+51000 http.uri=/api/v1/traces clnt/finagle.version=6.34.0 "
	  "network.local.address=127.0.0.1 peer.service=zipkin-web "
	  "service.peer.name=zipkin-web network.peer.address=172.18.0.4 "
	  "net.peer.port#9411 @1461750491274000 ws() @1461750491325000 wr()\n"
	  "{service.name=zipkin-query}\n"
	  "83c138a4ee0f3de9/d673d7abe80d2f3f^83c138a4ee0f3de9 SERVER get "
	  "1461750491298000+4000 http.path=/api/v1/traces srv/finagle.version=6.34.0 "
	  "network.local.address=172.18.0.4 net.host.port#9411 peer.service=zipkin-web "
	  "service.peer.name=zipkin-web network.peer.address=172.18.0.3 "
	  "net.peer.port#42291 zipkin.shared?1\n" },
	{ "jaeger-zipkin_v1_merged_spans.json", zipkin_v1_json_decode, false, 2, 0,
	  "{service.name=first_service}\n"
	  "4ed11df465275600/4ed11df465275600 SERVER get / 1633073248674949+14861 "
	  "network.local.address=10.0.2.15\n"
	  "4ed11df465275600/c943743e25dc2cdf^4ed11df465275600 CLIENT get /api "
	  "1633073248678309+3360 network.local.address=10.0.2.15\n"
	  "4ed11df465275600/c943743e25dc2cdf^4ed11df465275600 SERVER get /api "
	  "1633073248681669+6719 network.local.address=10.0.2.15 zipkin.shared?1\n" },
	{ "zipkin_v1_error_batch.json", zipkin_v1_json_decode, false, 1, 1,
	  "{service.name=service1}\n"
	  "ed2e63cbe71f5a8/ed2e63cbe71f5a8 SERVER checkAvailability "
	  "1544805927448081+12021 network.local.address=172.31.0.4 zipkin.shared?1 "
	  "@1544805927450000 custom time event()\n" },
	{ "zipkin_v1_single_batch.json", zipkin_v1_json_decode, false, 5, 0,
	  "{service.name=service1}\n"
	  "ed2e63cbe71f5a8/ed2e63cbe71f5a8 SERVER checkAvailability "
	  "1544805927448081+12021 network.local.address=172.31.0.4 zipkin.shared?1 "
	  "@1544805927450000 custom time event()\n"
	  "ed2e63cbe71f5a8/f9ebb6e64880612a^ed2e63cbe71f5a8 CLIENT checkStock "
	  "1544805927453923+3740 network.local.address=172.31.0.4\n"
	  "{service.name=front-proxy}\n"
	  "ed2e63cbe71f5a8/ed2e63cbe71f5a8 CLIENT checkAvailability "
	  "1544805927446743+12956 network.local.address=172.31.0.2\n"
	  "{service.name=service2}\n"
	  "ed2e63cbe71f5a8/f9ebb6e64880612a^ed2e63cbe71f5a8 SERVER checkStock "
	  "1544805927454487+2833 http.url=http://localhost:9000/trace/2 "
	  "http.status_code=200 success=true processed=1.5 "
	  "network.local.address=172.31.0.7 zipkin.shared?1\n"
	  "{}\n"
	  "ed2e63cbe71f5a8/fe351a053fbcac1f^ed2e63cbe71f5a8 - checkStock "
	  "1544805927453923+3740\n" },
	{ "zipkin_v1_multiple_batches.json", zipkin_v1_json_decode, false, 0, 5,
	  "" },
	{ "zipkin_v2_notimestamp.json", zipkin_v1_json_decode, false, 1, 0,
	  "{service.name=baz}\n"
	  "13c3518297c3b59f/c698c56b63c5f5cb^62a165c66951ced3 SERVER "
	  "http:/parent/resource/abc 1615821510040000+1000 http.host=10.3.32.70 "
	  "http.method=GET http.path=/resource/abc "
	  "http.url=http://10.3.32.70:32059/resource/abc?foo=bar "
	  "network.local.address=10.254.85.134 net.host.port#8080 zipkin.shared?1\n" },
	{ "derived/jaeger-conv-zipkin_01.thrift.bin", zipkin_thrift_decode, false, 3, 0,
	  "{service.name=service-x}\n"
	  "1/2 - test-general-conversion 1485467191639875+0 ca= @1485467191639875 "
	  "{\"x\":\"y\"}()\n"
	  "1/2 CLIENT some-operation 0+0 peer.service=service-y "
	  "service.peer.name=service-y network.peer.address=0.0.91.160 net.peer.port#80 "
	  "otel.zipkin.absentField.startTime?1\n"
	  "{service.name=service-y}\n"
	  "20000000000000001/3^2 SERVER some-operation 0+0 peer.service=service-x "
	  "service.peer.name=service-x network.peer.address=0.0.91.160 "
	  "otel.zipkin.absentField.startTime?1 zipkin.shared?1\n" },
	{ "derived/jaeger-conv-zipkin_03.thrift.bin", zipkin_thrift_decode, false, 1, 0,
	  "{service.name=service-x}\n"
	  "1/2 SERVER test-custom-tags 0+0 bool?1 bytes=c29tZS1ob3N0LmNvbQ== i16#12345 "
	  "i16_bad_value=AQ== i32#12345 i32_bad_value=AQ== i64#12345 i64_bad_value=AQ== "
	  "double~12345 double_bad_value=AQ== string=some-host.com "
	  "otel.zipkin.absentField.startTime?1 zipkin.debug?1 zipkin.shared?1\n" },
	{ "derived/jaeger-zipkin_thrift_v1_merged_spans.thrift.bin", zipkin_thrift_decode, false, 2,
	  0,
	  "{}\n"
	  "4ed11df465275600/4ed11df465275600 SERVER get / 1633073248674949+14861\n"
	  "4ed11df465275600/c943743e25dc2cdf^4ed11df465275600 CLIENT get /api "
	  "1633073248678309+3360\n"
	  "4ed11df465275600/c943743e25dc2cdf^4ed11df465275600 SERVER get /api "
	  "1633073248681669+6719 zipkin.shared?1\n" },
	{ "derived/zipkin_v1_thrift_local_component.thrift.bin", zipkin_thrift_decode, false, 2, 0,
	  "{}\n"
	  "ed2e63cbe71f5a8/fe351a053fbcac1f^ed2e63cbe71f5a8 - checkStock "
	  "1544805927453923+3740 component=myLocalComponent\n"
	  "{service.name=myServiceName}\n"
	  "ed2e63cbe71f5a8/fe351a053fbcac21^ed2e63cbe71f5a8 - sendOrder "
	  "1544805927453925+3740 component=myLocalComponent "
	  "network.local.address=172.31.0.7\n" },
	{ "derived/zipkin_v1_thrift_single_batch.thrift.bin", zipkin_thrift_decode, false, 5, 0,
	  "{service.name=service1}\n"
	  "ed2e63cbe71f5a8/ed2e63cbe71f5a8 SERVER checkAvailability "
	  "1544805927448081+12021 network.local.address=172.31.0.4 zipkin.shared?1 "
	  "@1544805927450000 custom time event()\n"
	  "ed2e63cbe71f5a8/f9ebb6e64880612a^ed2e63cbe71f5a8 CLIENT checkStock "
	  "1544805927453923+3740 network.local.address=172.31.0.4\n"
	  "{service.name=front-proxy}\n"
	  "ed2e63cbe71f5a8/ed2e63cbe71f5a8 CLIENT checkAvailability "
	  "1544805927446743+12956 network.local.address=172.31.0.2\n"
	  "{service.name=service2}\n"
	  "ed2e63cbe71f5a8/f9ebb6e64880612a^ed2e63cbe71f5a8 SERVER checkStock "
	  "1544805927454487+2833 http.url=http://localhost:9000/trace/2 "
	  "http.status_code#200 success?1 processed~1.5 network.local.address=172.31.0.7 "
	  "zipkin.shared?1\n"
	  "{}\n"
	  "ed2e63cbe71f5a8/fe351a053fbcac1f^ed2e63cbe71f5a8 - checkStock "
	  "1544805927453923+3740\n" },
	{ "derived/zipkin_v1_thrift_single_batch.thrift-elem11.bin", zipkin_thrift_decode, false, 5,
	  0,
	  "{service.name=service1}\n"
	  "ed2e63cbe71f5a8/ed2e63cbe71f5a8 SERVER checkAvailability "
	  "1544805927448081+12021 network.local.address=172.31.0.4 zipkin.shared?1 "
	  "@1544805927450000 custom time event()\n"
	  "ed2e63cbe71f5a8/f9ebb6e64880612a^ed2e63cbe71f5a8 CLIENT checkStock "
	  "1544805927453923+3740 network.local.address=172.31.0.4\n"
	  "{service.name=front-proxy}\n"
	  "ed2e63cbe71f5a8/ed2e63cbe71f5a8 CLIENT checkAvailability "
	  "1544805927446743+12956 network.local.address=172.31.0.2\n"
	  "{service.name=service2}\n"
	  "ed2e63cbe71f5a8/f9ebb6e64880612a^ed2e63cbe71f5a8 SERVER checkStock "
	  "1544805927454487+2833 http.url=http://localhost:9000/trace/2 "
	  "http.status_code#200 success?1 processed~1.5 network.local.address=172.31.0.7 "
	  "zipkin.shared?1\n"
	  "{}\n"
	  "ed2e63cbe71f5a8/fe351a053fbcac1f^ed2e63cbe71f5a8 - checkStock "
	  "1544805927453923+3740\n" },
};

static void golden_files_spelled_out(void **state)
{
	struct buf in = BUF_INIT, list = BUF_INIT, pb = BUF_INIT, text = BUF_INIT;
	struct zipkin_result res;
	char path[200];
	size_t n = 0;

	(void)state;
	for (size_t i = 0; i < COUNT_OF(golden); i++) {
		struct err err = ERR_INIT;

		snprintf(path, sizeof(path), "zipkin/%s", golden[i].file);
		if (!json_golden_read(path, &in))
			continue;
		buf_reset(&list);
		buf_add_str(&list, golden[i].is_object ? "[" : "");
		buf_add_bytes(&list, buf_bytes(&in));
		buf_add_str(&list, golden[i].is_object ? "]" : "");
		if (run(golden[i].decode, buf_bytes(&list), &pb, &res, &err) < 0)
			fail_msg("%s: %s", golden[i].file, err.msg);
		assert_int_equal(res.n_ok, golden[i].n_ok);
		assert_int_equal(res.n_bad, golden[i].n_bad);
		if (strcmp(zipkin_dump(buf_bytes(&pb), &text), golden[i].want) != 0)
			fail_msg("%s: got\n%swant\n%s", golden[i].file, (char *)text.p,
				 golden[i].want);
		n++;
	}
	printf("%zu golden files\n", n);
	buf_fini(&in);
	buf_fini(&list);
	buf_fini(&pb);
	buf_fini(&text);
}

#define IDS "'traceId':'1','id':'2'"
#define AT(s) "'endpoint':{'serviceName':'" s "'}"
#define A(t, v, s) "{'timestamp':" #t ",'value':'" v "'," AT(s) "}"
#define B(k, v, s) "{'key':'" k "','value':" v "," AT(s) "}"

/* What stands behind the ids, and the spans of it. */
static const struct { const char *name, *in, *want; } cases[] = {
	{ "nothing", "", "{}\n1/2 -  0+0 otel.zipkin.absentField.startTime?1\n" },
	{ "debug", ",'timestamp':1,'debug':true", "{}\n1/2 -  1+0 zipkin.debug?1\n" },
	{ "client by annotations", ",'annotations':[" A(5, "cs", "a") "," A(9, "cr", "a") "]",
	  "{service.name=a}\n1/2 CLIENT  5+4\n" },
	{ "client, the span's own times win",
	  ",'timestamp':4,'duration':7,'annotations':[" A(5, "cs", "a") "," A(9, "cr", "a") "]",
	  "{service.name=a}\n1/2 CLIENT  4+7\n" },
	{ "server without times shares the client's span",
	  ",'annotations':[" A(5, "sr", "a") "," A(9, "ss", "a") "]",
	  "{service.name=a}\n1/2 SERVER  5+4 zipkin.shared?1\n" },
	{ "server with times of its own is a root",
	  ",'timestamp':5,'duration':4,'annotations':[" A(5, "sr", "a") "," A(9, "ss", "a") "]",
	  "{service.name=a}\n1/2 SERVER  5+4\n" },
	{ "both ends at two hosts",
	  ",'annotations':[" A(1, "cs", "a") "," A(3, "sr", "b") "," A(7, "ss", "b") ","
	  A(9, "cr", "a") "," A(4, "work", "b") "]",
	  "{service.name=a}\n1/2 CLIENT  1+8\n"
	  "{service.name=b}\n1/2 SERVER  3+4 zipkin.shared?1 @4 work()\n" },
	{ "both ends at one host name",
	  ",'annotations':[" A(1, "cs", "a") "," A(3, "sr", "a") "," A(7, "ss", "a") ","
	  A(9, "cr", "a") "]",
	  "{service.name=a}\n1/2 CLIENT  1+8\n1/2 SERVER  3+4 zipkin.shared?1\n" },
	{ "both ends without a host",
	  ",'annotations':[{'timestamp':1,'value':'cs'},{'timestamp':3,'value':'sr'}]",
	  "{}\n1/2 CLIENT  1+0\n1/2 SERVER  3+0 zipkin.shared?1\n" },
	{ "a lone end is an event", ",'annotations':[" A(9, "cr", "a") "]",
	  "{service.name=a}\n1/2 CLIENT  0+0 otel.zipkin.absentField.startTime?1 @9 cr()\n" },
	{ "an end that the span's times end at",
	  ",'timestamp':4,'duration':5,'annotations':[" A(9, "cr", "a") "]",
	  "{service.name=a}\n1/2 CLIENT  4+5\n" },
	{ "the clock went back", ",'annotations':[" A(9, "cs", "a") "," A(5, "cr", "a") "]",
	  "{service.name=a}\n1/2 CLIENT  9+0\n" },
	{ "a core annotation without time tells the kind",
	  ",'annotations':[{'value':'cs'," AT("a") "}]",
	  "{service.name=a}\n1/2 CLIENT  0+0 otel.zipkin.absentField.startTime?1\n" },
	{ "producer", ",'annotations':[" A(5, "ms", "a") "," A(8, "ws", "a") "]",
	  "{service.name=a}\n1/2 PRODUCER  5+3\n" },
	{ "consumer", ",'annotations':[" A(5, "wr", "a") "," A(8, "mr", "a") "]",
	  "{service.name=a}\n1/2 CONSUMER  5+3\n" },
	{ "consumer without the wire", ",'annotations':[" A(8, "mr", "a") "]",
	  "{service.name=a}\n1/2 CONSUMER  8+0\n" },
	{ "both ends of a message",
	  ",'annotations':[" A(1, "ms", "a") "," A(2, "ws", "a") "," A(5, "wr", "b") ","
	  A(8, "mr", "b") "]",
	  "{service.name=a}\n1/2 PRODUCER  1+1\n"
	  "{service.name=b}\n1/2 CONSUMER  5+3 zipkin.shared?1\n" },
	{ "the wire alone", ",'timestamp':1,'annotations':[" A(2, "ws", "a") "]",
	  "{service.name=a}\n1/2 -  1+0 @2 ws()\n" },
	{ "server address of a client, as true, text or number",
	  ",'annotations':[" A(5, "cs", "a") "],'binaryAnnotations':[" B("sa", "true", "z") "]",
	  "{service.name=a}\n1/2 CLIENT  5+0 peer.service=z service.peer.name=z\n" },
	{ "server address as text",
	  ",'annotations':[" A(5, "cs", "a") "],'binaryAnnotations':[" B("sa", "'1'", "z") "]",
	  "{service.name=a}\n1/2 CLIENT  5+0 peer.service=z service.peer.name=z\n" },
	{ "client address of a server",
	  ",'annotations':[" A(5, "sr", "a") "],'binaryAnnotations':[" B("ca", "true", "z") "]",
	  "{service.name=a}\n1/2 SERVER  5+0 peer.service=z service.peer.name=z "
	  "zipkin.shared?1\n" },
	{ "client address of the server's own name",
	  ",'annotations':[" A(5, "sr", "a") "],'binaryAnnotations':[{'key':'ca','value':true,"
	  "'endpoint':{'serviceName':'a','port':9}}]",
	  "{service.name=a}\n1/2 SERVER  5+0 net.peer.port#9 zipkin.shared?1\n" },
	{ "message address",
	  ",'annotations':[" A(5, "ms", "a") "],'binaryAnnotations':[" B("ma", "true", "z") "]",
	  "{service.name=a}\n1/2 PRODUCER  5+0 peer.service=z service.peer.name=z\n" },
	{ "both addresses and nothing else",
	  ",'timestamp':1,'binaryAnnotations':[" B("ca", "true", "a") "," B("sa", "true", "z")
	  "]", "{service.name=a}\n1/2 -  1+0 peer.service=z service.peer.name=z\n" },
	{ "the server's address alone",
	  ",'timestamp':1,'binaryAnnotations':[" B("sa", "true", "z") "]",
	  "{}\n1/2 -  1+0 peer.service=z service.peer.name=z\n" },
	{ "the client's address alone",
	  ",'timestamp':1,'binaryAnnotations':[" B("ca", "true", "z") "]",
	  "{}\n1/2 SERVER  1+0 peer.service=z service.peer.name=z\n" },
	{ "an address without a host is a tag",
	  ",'timestamp':1,'binaryAnnotations':[{'key':'sa','value':'x'}]",
	  "{}\n1/2 -  1+0 sa=x\n" },
	{ "local component", ",'timestamp':1,'binaryAnnotations':[" B("lc", "'jdbc'", "a") "]",
	  "{service.name=a}\n1/2 -  1+0 component=jdbc\n" },
	{ "local component names the host", ",'timestamp':1,'binaryAnnotations':["
	  B("lc", "''", "a") "]", "{service.name=a}\n1/2 -  1+0\n" },
	{ "error", ",'timestamp':1,'binaryAnnotations':[" B("error", "'boom'", "a") "]",
	  "{service.name=a}\n1/2 -  1+0 error=boom !2:boom\n" },
	{ "values", ",'timestamp':1,'binaryAnnotations':[{'key':'n','value':7},{'key':'b','value':"
	  "false},{'key':'o','value':{}},{'key':'','value':'x'},{'value':'x'},{'key':'k'}]",
	  "{}\n1/2 -  1+0 n=7 b=false\n" },
	{ "members of version 2", ",'timestamp':1,'kind':'CLIENT','shared':true,'tags':{'k':'v'},"
	  "'localEndpoint':{'serviceName':'a'},'remoteEndpoint':{'serviceName':'z'},"
	  "'annotations':[{'timestamp':3,'value':'e'}]",
	  "{service.name=a}\n1/2 CLIENT  1+0 k=v peer.service=z service.peer.name=z "
	  "zipkin.shared?1 @3 e()\n" },
};

static struct bytes quoted(const char *text, struct buf *b)
{
	buf_reset(b);
	for (; *text; text++)
		buf_add_char(b, *text == '\'' ? '"' : *text);
	return buf_bytes(b);
}

static void halves_are_told_apart(void **state)
{
	struct buf raw = BUF_INIT, json = BUF_INIT, pb = BUF_INIT, text = BUF_INIT;
	struct zipkin_result res;

	(void)state;
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		struct err err = ERR_INIT;

		buf_reset(&raw);
		buf_printf(&raw, "[{" IDS "%s}]", cases[i].in);
		if (run(zipkin_v1_json_decode, quoted(buf_cstr(&raw), &json), &pb, &res, &err) < 0)
			fail_msg("%s: %s", cases[i].name, err.msg);
		assert_int_equal(res.n_ok, 1);
		if (strcmp(zipkin_dump(buf_bytes(&pb), &text), cases[i].want) != 0)
			fail_msg("%s: got\n%s", cases[i].name, (char *)text.p);
	}
	buf_fini(&raw);
	buf_fini(&json);
	buf_fini(&pb);
	buf_fini(&text);
}

static const struct { const char *in, *first; enum zipkin_reason reason; } bad[] = {
	{ "'traceId':'1'", "[1].id: missing", ZIPKIN_BAD_SPAN_ID },
	{ "'id':'1'", "[1].traceId: missing", ZIPKIN_BAD_TRACE_ID },
	{ "'traceId':'0','id':'1'", "[1].traceId: \"0\"", ZIPKIN_BAD_TRACE_ID },
	{ "'traceId':'1','id':'x'", "[1].id: \"x\"", ZIPKIN_BAD_SPAN_ID },
	{ IDS ",'parentId':'BADID'", "[1].parentId: \"BADID\"", ZIPKIN_BAD_PARENT_ID },
	{ IDS ",'timestamp':'x'", "[1].timestamp: \"x\"", ZIPKIN_BAD_NUMBER },
	{ IDS ",'duration':{}", "[1].duration: an object", ZIPKIN_BAD_JSON_TYPE },
	{ IDS ",'annotations':{}", "[1].annotations: an object", ZIPKIN_BAD_JSON_TYPE },
	{ IDS ",'binaryAnnotations':7", "[1].binaryAnnotations: 7", ZIPKIN_BAD_JSON_TYPE },
	{ IDS ",'binaryAnnotations':[{'key':'k','value':'\xff'}]", "[1].binaryAnnotations: \"?\"",
	  ZIPKIN_BAD_UTF8 },
	{ IDS ",'annotations':[{'value':'\xff'}]", "[1].annotations: \"?\"", ZIPKIN_BAD_UTF8 },
	{ IDS ",'annotations':[{'endpoint':{'serviceName':'\xff'}}]",
	  "[1].annotations.endpoint: \"?\"", ZIPKIN_BAD_UTF8 },
	{ IDS ",'annotations':[{'endpoint':7}]", "[1].annotations.endpoint: 7",
	  ZIPKIN_BAD_JSON_TYPE },
	{ IDS ",'name':[]", "[1].name: an array", ZIPKIN_BAD_JSON_TYPE },
	{ IDS ",'tags':[]", "[1].tags: an array", ZIPKIN_BAD_JSON_TYPE },
};

static void a_bad_span_costs_only_itself(void **state)
{
	struct buf raw = BUF_INIT, json = BUF_INIT, pb = BUF_INIT;
	struct zipkin_result res;

	(void)state;
	for (size_t i = 0; i < COUNT_OF(bad); i++) {
		buf_reset(&raw);
		buf_printf(&raw, "[{" IDS "},{%s},{" IDS "},{%s}]", bad[i].in, bad[i].in);
		assert_int_equal(run(zipkin_v1_json_decode, quoted(buf_cstr(&raw), &json), &pb,
				     &res, NULL), 0);
		assert_int_equal(res.n_ok, 2);
		assert_int_equal(res.n_bad, 2);
		assert_int_equal(res.n_bad_by[bad[i].reason], 2);
		assert_string_equal(res.first_bad, bad[i].first);
	}
	buf_fini(&raw);
	buf_fini(&json);
	buf_fini(&pb);
}

/* A span in the binary protocol: trace id, id, and what follows. */
#define THRIFT_LIST_OF(n) "\x0c\0\0\0" n
#define T_IDS "\x0a\0\1\0\0\0\0\0\0\0\1\x0a\0\4\0\0\0\0\0\0\0\2"
#define T_TIME "\x0a\0\x0a\0\0\0\0\0\0\0\1"

static const struct { const char *name, *in; size_t n; int rc; size_t n_ok; const char *want; }
thrift_cases[] = {
#define CASE(name, in, rc, n_ok, want) { name, in, sizeof(in) - 1, rc, n_ok, want }
	CASE("empty body", "", 0, 0, ""),
	CASE("empty list", THRIFT_LIST_OF("\0"), 0, 0, ""),
	CASE("one", THRIFT_LIST_OF("\1") T_IDS T_TIME "\0", 0, 1, "{}\n1/2 -  1+0\n"),
	CASE("bytes behind the list", THRIFT_LIST_OF("\1") T_IDS T_TIME "\0xyz", 0, 1,
	     "{}\n1/2 -  1+0\n"),
	CASE("high trace id", THRIFT_LIST_OF("\1") T_IDS T_TIME "\x0a\0\x0c\0\0\0\0\0\0\0\7\0", 0,
	     1, "{}\n70000000000000001/2 -  1+0\n"),
	CASE("unknown fields, fields of another type",
	     THRIFT_LIST_OF("\1") T_IDS T_TIME "\x0b\0\2\0\0\0\1x\x08\0\3\0\0\0\1\x02\0\7\1\0", 0,
	     1, "{}\n1/2 -  1+0\n"),
	CASE("negative time",
	     THRIFT_LIST_OF("\1") T_IDS "\x0a\0\x0a\xff\xff\xff\xff\xff\xff\xff\xff\0",
	     0, 1, "{}\n1/2 -  0+0 otel.zipkin.absentField.startTime?1\n"),
	CASE("host", THRIFT_LIST_OF("\1") T_IDS T_TIME "\x0f\0\6\x0c\0\0\0\1"
	     "\x0a\0\1\0\0\0\0\0\0\0\3\x0b\0\2\0\0\0\2sr"
	     "\x0c\0\3\x08\0\1\xc0\xa8\0\1\x06\0\2\xff\xff\x0b\0\3\0\0\0\1s\0\0\0",
	     0, 1, "{service.name=s}\n1/2 SERVER  1+0 network.local.address=192.168.0.1 "
	     "net.host.port#65535\n"),
	CASE("ipv6 host of a component", THRIFT_LIST_OF("\1") T_IDS T_TIME "\x0f\0\x08\x0c\0\0\0\1"
	     "\x0b\0\1\0\0\0\2lc\x0b\0\2\0\0\0\0\x08\0\3\0\0\0\6"
	     "\x0c\0\4\x0b\0\4\0\0\0\x10\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\1\0\0\0",
	     0, 1, "{}\n1/2 -  1+0 network.local.address=::1\n"),
	CASE("negative numbers keep their sign",
	     THRIFT_LIST_OF("\1") T_IDS T_TIME "\x0f\0\x08\x0c\0\0\0\2"
	     "\x0b\0\1\0\0\0\1i\x0b\0\2\0\0\0\2\xff\xfe\x08\0\3\0\0\0\2\0"
	     "\x0b\0\1\0\0\0\1k\x0b\0\2\0\0\0\4\xff\xff\xff\xf9\x08\0\3\0\0\0\3\0\0",
	     0, 1, "{}\n1/2 -  1+0 i#-2 k#-7\n"),
	CASE("zero trace id", THRIFT_LIST_OF("\1") "\x0a\0\4\0\0\0\0\0\0\0\2\0", 0, 0, ""),
	CASE("zero id", THRIFT_LIST_OF("\1") "\x0a\0\1\0\0\0\0\0\0\0\2\0", 0, 0, ""),
	CASE("bad text", THRIFT_LIST_OF("\1") T_IDS "\x0b\0\3\0\0\0\1\xff\0", 0, 0, ""),
	CASE("no list of structs", "\x0a\0\0\0\1\0\0\0\0\0\0\0\1", -1, 0, ""),
	CASE("cut", THRIFT_LIST_OF("\1") T_IDS, -1, 0, ""),
	CASE("a count that nothing backs", "\x0c\x7f\xff\xff\xff", -1, 0, ""),
	CASE("an annotation count that nothing backs",
	     THRIFT_LIST_OF("\1") T_IDS "\x0f\0\6\x0c\x7f\xff\xff\xff\0", -1, 0, ""),
#undef CASE
};

static void thrift_lists(void **state)
{
	struct buf pb = BUF_INIT, text = BUF_INIT;
	struct zipkin_result res;

	(void)state;
	for (size_t i = 0; i < COUNT_OF(thrift_cases); i++) {
		struct bytes in = { (const uint8_t *)thrift_cases[i].in, thrift_cases[i].n };
		struct err err = ERR_INIT;

		if (run(zipkin_thrift_decode, in, &pb, &res, &err) != thrift_cases[i].rc)
			fail_msg("%s: %s", thrift_cases[i].name, err.msg);
		assert_int_equal(err.kind, thrift_cases[i].rc < 0 ? ERR_INVALID : ERR_NONE);
		assert_int_equal(res.n_ok, thrift_cases[i].n_ok);
		if (strcmp(zipkin_dump(buf_bytes(&pb), &text), thrift_cases[i].want) != 0)
			fail_msg("%s: got\n%s", thrift_cases[i].name, (char *)text.p);
	}
	buf_fini(&pb);
	buf_fini(&text);
}

/* As the Jaeger receivers call it: emitZipkinBatch in a message, in the compact protocol. */
static void a_batch_inside_a_message(void **state)
{
	struct buf in = BUF_INIT, list = BUF_INIT, pb = BUF_INIT, other = BUF_INIT;
	struct buf text = BUF_INIT, want = BUF_INIT;
	struct zipkin_result res;
	struct arena a = ARENA_INIT;
	struct thrift_reader r;
	struct thrift_message m;
	struct thrift_field f;
	struct zipkin_thrift z;

	(void)state;
	if (!json_golden_read("zipkin/derived/zipkin_v1_thrift_single_batch.udp-"
			      "emitZipkinBatch-compact.bin", &in) ||
	    !json_golden_read("zipkin/derived/zipkin_v1_thrift_single_batch.thrift.bin", &list))
		return;
	thrift_init(&r, buf_bytes(&in), THRIFT_COMPACT);
	zipkin_thrift_init(&z, 0, &a, &res);
	thrift_message(&r, &m);
	assert_true(bytes_eq_str(m.name, "emitZipkinBatch"));
	thrift_struct(&r);
	while (thrift_field(&r, &f)) {
		assert_int_equal(f.id, 1);
		zipkin_thrift_read_list(&r, &z);
	}
	assert_int_equal(zipkin_thrift_finish(&r, &z, &pb, NULL), 0);
	assert_int_equal(res.n_ok, 5);
	assert_int_equal(run(zipkin_thrift_decode, buf_bytes(&list), &other, &res, NULL), 0);
	assert_string_equal(zipkin_dump(buf_bytes(&pb), &text),
			    zipkin_dump(buf_bytes(&other), &want));
	arena_fini(&a);
	buf_fini(&in);
	buf_fini(&list);
	buf_fini(&pb);
	buf_fini(&other);
	buf_fini(&text);
	buf_fini(&want);
}

/* 300 hosts in one span: halves are bounded, nothing that was said is gone. */
static void more_hosts_than_halves(void **state)
{
	struct buf json = BUF_INIT, pb = BUF_INIT, text = BUF_INIT;
	struct zipkin_result res;

	(void)state;
	buf_add_str(&json, "[{\"traceId\":\"1\",\"id\":\"2\",\"annotations\":[");
	for (int i = 0; i < 300; i++)
		buf_printf(&json, "%s{\"timestamp\":1,\"value\":\"event%d\",\"endpoint\":"
			   "{\"serviceName\":\"s%d\"}}", i ? "," : "", i, i);
	buf_add_str(&json, "]}]");
	assert_int_equal(run(zipkin_v1_json_decode, buf_bytes(&json), &pb, &res, NULL), 0);
	zipkin_dump(buf_bytes(&pb), &text);
	for (int i = 0; i < 300; i++) {
		char event[20];

		snprintf(event, sizeof(event), " event%d()", i);
		assert_non_null(strstr((char *)text.p, event));
	}
	buf_fini(&json);
	buf_fini(&pb);
	buf_fini(&text);
}

static void flipped_bits_and_cuts_do_no_harm(void **state)
{
	static const char thrift[] = THRIFT_LIST_OF("\1") T_IDS T_TIME "\x0f\0\6\x0c\0\0\0\1"
		"\x0a\0\1\0\0\0\0\0\0\0\3\x0b\0\2\0\0\0\2sr"
		"\x0c\0\3\x08\0\1\xc0\xa8\0\1\x06\0\2\xff\xff\x0b\0\3\0\0\0\1s\0\0\0";
	struct buf raw = BUF_INIT, json = BUF_INIT, pb = BUF_INIT;
	struct zipkin_result res;
	struct rng rng;

	(void)state;
	rng_seed(&rng, 9);
	buf_printf(&raw, "[{" IDS "%s%s}]", cases[6].in, cases[28].in);
	quoted(buf_cstr(&raw), &json);
	for (int i = 0; i < 10000; i++) {
		struct bytes of_thrift = { (const uint8_t *)thrift, sizeof(thrift) - 1 };
		struct bytes in = i & 1 ? buf_bytes(&json) : of_thrift;
		size_t n = i % 8 < 2 ? rng_below(&rng, in.n) + 1 : in.n;
		uint8_t *copy = xmalloc(n);

		memcpy(copy, in.p, n);
		copy[rng_below(&rng, n)] ^= (uint8_t)(1u << rng_below(&rng, 8));
		if (run(i & 1 ? zipkin_v1_json_decode : zipkin_thrift_decode,
			(struct bytes){ copy, n }, &pb, &res, NULL) < 0)
			assert_int_equal(pb.n, 0);
		free(copy);
	}
	buf_fini(&raw);
	buf_fini(&json);
	buf_fini(&pb);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(golden_files_spelled_out),
		cmocka_unit_test(halves_are_told_apart),
		cmocka_unit_test(a_bad_span_costs_only_itself),
		cmocka_unit_test(thrift_lists),
		cmocka_unit_test(a_batch_inside_a_message),
		cmocka_unit_test(more_hosts_than_halves),
		cmocka_unit_test(flipped_bits_and_cuts_do_no_harm),
	};

	return cmocka_run_group_tests_name("zipkin_v1", tests, NULL, NULL);
}
