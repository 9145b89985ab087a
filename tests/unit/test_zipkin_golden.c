/* SPDX-License-Identifier: Apache-2.0
 *
 * test_zipkin_golden.c - the small v2 lists of the golden data as OTLP, field by field.
 *
 * Version 1 is in test_zipkin_v1.c. The large lists are compared with themselves after the way
 * there and back, in test_zipkin_encode.c and tests/integration/test_zipkin_exporter.py.
 */
#include "base/arena.h"
#include "tests/unit/json_golden.h"
#include "tests/unit/zipkin_dump.h"
#include "wire/zipkin_json.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

/* is_object: the file is one span, not a list. */
static const struct {
	const char *file;
	bool is_object;
	size_t n_ok;
	const char *want;
} golden[] = {
	{ "bench-zipkin2-chinese", true, 1,
	  "{service.name=订单维护服务}\n"
	  "4d1e00c0db9010db86154a4ba6e91385/4d1e00c0db9010db^86154a4ba6e91385 CLIENT "
	  "个人信息查询 1472470996199000+207000 http.path=/person/profile/query "
	  "http.status_code=403 error=此用户没有操作权限 network.local.address=2001:db8::c001 "
	  "peer.service=个人信息服务 service.peer.name=个人信息服务 "
	  "network.peer.address=192.168.99.101 net.peer.port#9000 !2:此用户没有操作权限\n" },
	{ "bench-zipkin2-client", true, 1,
	  "{service.name=frontend}\n"
	  "4d1e00c0db9010db86154a4ba6e91385/4d1e00c0db9010db^86154a4ba6e91385 CLIENT get "
	  "1472470996199000+207000 http.path=/api clnt/finagle.version=6.45.0 "
	  "network.local.address=2001:db8::c001 peer.service=backend "
	  "service.peer.name=backend network.peer.address=192.168.99.101 "
	  "net.peer.port#9000 @1472470996238000 foo() @1472470996403000 bar()\n" },
	{ "contrib-sample3", false, 1,
	  "{}\n"
	  "4d1e00c0db9010db86154a4ba6e91385/4d1e00c0db9010db^86154a4ba6e91385 CLIENT get "
	  "1472470996199000+207000 http.path=/api clnt/finagle.version=6.45.0 "
	  "network.local.address=7::80:807f peer.service=backend "
	  "service.peer.name=backend network.peer.address=192.168.99.101 "
	  "net.peer.port#9000 @1472470996238000 foo() @1472470996403000 bar() "
	  "!2:Something failed\n" },
	{ "jaeger-zipkin_v2_01", false, 1,
	  "{service.name=foo}\n"
	  "bd7a974555f6b982bd71977555f6b981/2^1 CLIENT foo 1+10 foo=bar "
	  "network.local.address=10.43.17.42 peer.service=bar service.peer.name=bar "
	  "network.peer.address=10.43.17.43 zipkin.debug?1 zipkin.shared?1 @1 foo()\n" },
	{ "jaeger-zipkin_v2_03", false, 1,
	  "{service.name=schemas-service}\n"
	  "91f00370361e578/188bb8428fc7e477^c26551047c72d19 PRODUCER send "
	  "1597704629675602+9550570 kafka.topic=schema-changed peer.service=kafka "
	  "service.peer.name=kafka\n" },
	{ "lens-ascend", false, 8,
	  "{service.name=mobile-gateway}\n"
	  "ef86c83c0a05a6d6/ecc00062ceef4bf0^ef86c83c0a05a6d6 CLIENT get "
	  "1531282088548312+20333 http.method=GET http.path=/content/personal "
	  "network.local.address=172.17.0.13\n"
	  "ef86c83c0a05a6d6/52b1ab4956917c39^ef86c83c0a05a6d6 CLIENT get "
	  "1531282088533834+14077 http.method=GET "
	  "http.path=/auth-service/v1/authentications/ network.local.address=172.17.0.13\n"
	  "ef86c83c0a05a6d6/ef86c83c0a05a6d6 SERVER get 1531282088533035+38793 "
	  "http.method=GET http.path=/mobile-gateway/content/personal "
	  "network.local.address=172.17.0.13 network.peer.address=110.170.201.178 "
	  "net.peer.port#39308\n"
	  "{service.name=content-service}\n"
	  "ef86c83c0a05a6d6/c21c6c51ac71b3ba^ecc00062ceef4bf0 CLIENT get "
	  "1531282088556600+8965 http.method=GET http.path=/api/v1/banners/10000001502 "
	  "network.local.address=172.17.0.10\n"
	  "ef86c83c0a05a6d6/ecc00062ceef4bf0^ef86c83c0a05a6d6 SERVER get "
	  "/content/personal 1531282088552037+15888 http.method=GET "
	  "http.path=/content/personal mvc.controller.class=GenericController "
	  "mvc.controller.method=getPersonalGeneric network.local.address=172.17.0.10 "
	  "network.peer.address=10.230.16.208 net.peer.port#3400 zipkin.shared?1\n"
	  "ef86c83c0a05a6d6/e6422f7ff7d78099^ecc00062ceef4bf0 - hystrix "
	  "1531282088555338+863 network.local.address=172.17.0.10\n"
	  "{service.name=auth-service}\n"
	  "ef86c83c0a05a6d6/52b1ab4956917c39^ef86c83c0a05a6d6 SERVER "
	  "http:/parent/auth-service/v1/authentications/ 1531282088553000+4157 "
	  "http.host=auth-service-alp http.method=GET "
	  "http.path=/auth-service/v1/authentications/ "
	  "http.url=http://auth-service-alp/auth-service/v1/authentications/ "
	  "mvc.controller.class=AuthenticationController "
	  "mvc.controller.method=authenticationsWithAuthorizationHeader "
	  "spring.instance_id=bb52cfc01466:auth-service network.local.address=172.17.0.9 "
	  "net.host.port#8080 zipkin.shared?1\n"
	  "ef86c83c0a05a6d6/80c0d1d62f437a1b^52b1ab4956917c39 - extend-token-life "
	  "1531282088553000+1291 class=AuthenticationService lc=async method=extendToken "
	  "network.local.address=172.17.0.9 net.host.port#8080\n" },
	{ "lens-envoy", false, 1,
	  "{}\n"
	  "978883983d506fa5/978883983d506fa5 SERVER localhost:10000 "
	  "1570523661059232+127115 component=proxy downstream_cluster=- "
	  "guid:x-request-id=d709b78f-583e-988e-b581-25b72c63852d http.method=GET "
	  "http.protocol=HTTP/1.1 http.status_code=200 http.url=http://www.google.com/ "
	  "request_size=0 response_flags=- response_size=67342 "
	  "upstream_cluster=service_google user_agent=Mozilla/5.0 (Macintosh; Intel Mac "
	  "OS X 10_15_0) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/77.0.3865.90 "
	  "Safari/537.36 network.local.address=169.254.65.45 zipkin.shared?1\n" },
	{ "lens-messaging", false, 4,
	  "{service.name=backend}\n"
	  "5aab74dbb904746bb33447baae403ed6/e457b5a2e4d86bd1^5e3ac9a4f6e3b90 CONSUMER "
	  "next-message 1521186011929043+14 rabbit.exchange= rabbit.queue=backend "
	  "rabbit.routing_key=backend network.local.address=192.168.0.10 "
	  "peer.service=rabbitmq service.peer.name=rabbitmq\n"
	  "5aab74dbb904746bb33447baae403ed6/4ad2db84ac76def7^e457b5a2e4d86bd1 - "
	  "on-message 1521186011929105+371 network.local.address=192.168.0.10\n"
	  "{service.name=frontend}\n"
	  "5aab74dbb904746bb33447baae403ed6/5e3ac9a4f6e3b90^b33447baae403ed6 PRODUCER "
	  "publish 1521186011927475+13 network.local.address=192.168.0.10 "
	  "peer.service=rabbitmq service.peer.name=rabbitmq\n"
	  "5aab74dbb904746bb33447baae403ed6/b33447baae403ed6 SERVER get / "
	  "1521186011926119+2839 http.method=GET http.path=/ "
	  "mvc.controller.class=Frontend mvc.controller.method=callBackend "
	  "network.local.address=192.168.0.10 network.peer.address=::1 "
	  "net.peer.port#54602\n" },
	{ "lens-simple-db-p6", false, 5,
	  "{service.name=bootifulmeters}\n"
	  "19f84f102048e047/5d532ef6fed52445^19f84f102048e047 CLIENT insert "
	  "1541485537488973+2033 sql.query=insert into revinfo (rev, revtstmp) values "
	  "(null, 1541485537483) network.local.address=172.23.250.16 peer.service=app_db "
	  "service.peer.name=app_db\n"
	  "19f84f102048e047/e4efd924fec0624c^19f84f102048e047 CLIENT insert "
	  "1541485537470563+2414 sql.query=insert into api_book (book_price, book_title, "
	  "book_id) values (12.25, 'Cloud Native Java', 10001) "
	  "network.local.address=172.23.250.16 peer.service=app_db "
	  "service.peer.name=app_db\n"
	  "19f84f102048e047/8b1e63c0f49a81f7^19f84f102048e047 CLIENT call "
	  "1541485537391810+6051 sql.query=call next value for hibernate_sequence "
	  "network.local.address=172.23.250.16 peer.service=app_db "
	  "service.peer.name=app_db\n"
	  "19f84f102048e047/19f84f102048e047 SERVER http:/book 1541485537291342+252016 "
	  "http.host=localhost http.method=POST http.path=/book "
	  "http.url=http://localhost:9777/book mvc.controller.class=AppController "
	  "mvc.controller.method=postBook network.local.address=172.23.250.16 "
	  "network.peer.address=::1 net.peer.port#53367\n"
	  "19f84f102048e047/544e854ede87b217^19f84f102048e047 CLIENT insert "
	  "1541485537498305+1118 sql.query=insert into api_book_aud (revtype, "
	  "book_price, book_title, book_id, rev) values (0, 12.25, 'Cloud Native Java', "
	  "10001, 97) network.local.address=172.23.250.16 peer.service=app_db "
	  "service.peer.name=app_db\n" },
	{ "lens-skew", false, 4,
	  "{service.name=serviceb}\n"
	  "1e223ff1f80f1c69/43210ae0c10d1234^74280ae0c10d8062 - async "
	  "1470150004008762+65000 network.local.address=192.0.0.0\n"
	  "1e223ff1f80f1c69/74280ae0c10d8062^bf396325699c84bf SERVER post "
	  "1470150004008761+93577 network.local.address=192.0.0.0 zipkin.shared?1\n"
	  "{service.name=servicea}\n"
	  "1e223ff1f80f1c69/bf396325699c84bf SERVER get 1470150004071068+99411 "
	  "network.local.address=127.0.0.0\n"
	  "1e223ff1f80f1c69/74280ae0c10d8062^bf396325699c84bf CLIENT post "
	  "1470150004074202+94539 network.local.address=127.0.0.0\n" },
	{ "sample2", false, 1,
	  "{}\n"
	  "4d1e00c0db9010db86154a4ba6e91385/4d1e00c0db9010db^86154a4ba6e91385 CLIENT get "
	  "1472470996199000+207000 http.path=/api clnt/finagle.version=6.45.0 "
	  "network.local.address=7::80:807f network.peer.address=192.168.99.101 "
	  "net.peer.port#9000 @1472470996238000 foo() @1472470996403000 bar()\n" },
	{ "zipkin_v2_notimestamp", false, 1,
	  "{}\n"
	  "13c3518297c3b59f/c698c56b63c5f5cb^62a165c66951ced3 - "
	  "http:/parent/resource/abc 0+0 otel.zipkin.absentField.startTime?1 "
	  "@1615821510040000 sr() @1615821510041000 ss()\n" },
	{ "zipkin_v2_single", false, 1,
	  "{service.name=frontend}\n"
	  "4d1e00c0db9010db86154a4ba6e91385/4d1e00c0db9010db^86154a4ba6e91385 CLIENT get "
	  "1472470996199000+207000 http.path=/api http.status_code=500 cache_hit=true "
	  "ping_count=25 timeout=12.3 clnt/finagle.version=6.45.0 "
	  "network.local.address=7::80:807f peer.service=backend "
	  "service.peer.name=backend network.peer.address=192.168.99.101 "
	  "net.peer.port#9000 @1472470996238000 foo() @1472470996403000 bar()\n" },
};

static void lists_spelled_out(void **state)
{
	struct buf in = BUF_INIT, list = BUF_INIT, pb = BUF_INIT, text = BUF_INIT;
	struct zipkin_result res;
	char path[200];
	size_t n = 0;

	(void)state;
	for (size_t i = 0; i < COUNT_OF(golden); i++) {
		struct arena a = ARENA_INIT;
		struct err err = ERR_INIT;

		snprintf(path, sizeof(path), "zipkin/%s.json", golden[i].file);
		if (!json_golden_read(path, &in))
			continue;
		buf_reset(&list);
		buf_add_str(&list, golden[i].is_object ? "[" : "");
		buf_add_bytes(&list, buf_bytes(&in));
		buf_add_str(&list, golden[i].is_object ? "]" : "");
		buf_reset(&pb);
		if (zipkin_json_decode(buf_bytes(&list), 0, false, &a, &pb, &res, &err) < 0)
			fail_msg("%s: %s", golden[i].file, err.msg);
		assert_int_equal(res.n_ok, golden[i].n_ok);
		assert_int_equal(res.n_bad, 0);
		if (strcmp(zipkin_dump(buf_bytes(&pb), &text), golden[i].want) != 0)
			fail_msg("%s: got\n%swant\n%s", golden[i].file, (char *)text.p,
				 golden[i].want);
		arena_fini(&a);
		n++;
	}
	printf("%zu golden files\n", n);
	buf_fini(&in);
	buf_fini(&list);
	buf_fini(&pb);
	buf_fini(&text);
}

/* A span by itself is no list. */
static void an_object_is_refused(void **state)
{
	struct buf in = BUF_INIT, pb = BUF_INIT;
	struct zipkin_result res;
	struct arena a = ARENA_INIT;
	struct err err = ERR_INIT;

	(void)state;
	if (json_golden_read("zipkin/bench-zipkin2-client.json", &in)) {
		assert_int_equal(zipkin_json_decode(buf_bytes(&in), 0, false, &a, &pb, &res, &err),
				 -1);
		assert_int_equal(err.kind, ERR_INVALID);
	}
	arena_fini(&a);
	buf_fini(&in);
	buf_fini(&pb);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(lists_spelled_out),
		cmocka_unit_test(an_object_is_refused),
	};

	return cmocka_run_group_tests_name("zipkin_golden", tests, NULL, NULL);
}
