/* SPDX-License-Identifier: Apache-2.0
 *
 * test_kafka_options.c - the kafka components' shared keys: what becomes of them in librdkafka, and
 * what is refused with which words.
 */
#include "base/clock.h"
#include "base/str.h"
#include "net/kafka_lib.h"
#include "net/kafka_token.h"
#include "pipeline/conf/tree.h"
#include "pipeline/option/kafka.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

static const struct kafka_owned owned[] = {
	{ "acks", "write it to `producer.required_acks`" },
	{ NULL, NULL },
};

struct loaded {
	struct arena arena;
	struct conf_errors errors;
	struct buf text;
	struct kafka_client_options o;
	struct kafka_properties p;
};

static void load(struct loaded *l, const char *yaml)
{
	struct conf_build b = { .arena = &l->arena, .errors = &l->errors };
	const struct conf_source *source = conf_tree_source(&b, "f");
	struct conf_node *root = NULL;

	assert_int_equal(conf_tree_parse(&b, bytes_str(yaml), source, &root), 0);
	option_parse(kafka_client_option_table, root, &l->o, &l->arena, &l->errors, "k");
	kafka_options_check(&l->o, owned, root, &l->errors, "k");
	conf_error_print(&l->errors, &l->text);
	kafka_options_properties(&l->o, &l->p);
	kafka_options_raw(&l->o, &l->p);
}

static void unload(struct loaded *l)
{
	arena_fini(&l->arena);
	conf_error_fini(&l->errors);
	buf_fini(&l->text);
	kafka_properties_fini(&l->p);
}

/* One property that the YAML must lead to; want NULL: it must not be set. */
static const struct {
	const char *yaml, *name, *want;
} mappings[] = {
	{ "", "bootstrap.servers", "localhost:9092" },
	{ "", "client.id", "otel-collector" },
	{ "", "connections.max.idle.ms", "540000" },
	{ "", "topic.metadata.refresh.interval.ms", "600000" },
	{ "", "topic.metadata.refresh.fast.interval.ms", "250" },
	{ "", "topic.metadata.refresh.sparse", "false" },
	{ "", "security.protocol", "plaintext" },
	{ "", "client.rack", NULL },
	{ "", "sasl.mechanisms", NULL },
	{ "brokers: [a:1, 'b:2', c]", "bootstrap.servers", "a:1,b:2,c" },
	{ "brokers: a:1,b:2", "bootstrap.servers", "a:1,b:2" },
	{ "client_id: me", "client.id", "me" },
	{ "rack_id: eu-1a", "client.rack", "eu-1a" },
	{ "protocol_version: 2.1.0", "broker.version.fallback", "2.1.0" },
	{ "protocol_version: v2.1.0", "broker.version.fallback", "2.1.0" },
	{ "conn_idle_timeout: 0s", "connections.max.idle.ms", "0" },
	{ "conn_idle_timeout: 1500us", "connections.max.idle.ms", "2" },
	{ "metadata: {full: false}", "topic.metadata.refresh.sparse", "true" },
	{ "metadata: {refresh_interval: 5s}", "topic.metadata.refresh.interval.ms", "5000" },
	{ "metadata: {refresh_interval: 5s}", "metadata.max.age.ms", "15000" },
	{ "metadata: {refresh_interval: 100h}", "topic.metadata.refresh.interval.ms", "3600000" },
	{ "metadata: {retry: {backoff: 1s}}", "topic.metadata.refresh.fast.interval.ms", "1000" },
	{ "tls: {}", "security.protocol", "ssl" },
	{ "tls: ", "security.protocol", "plaintext" },
	{ "tls: {insecure: true}", "security.protocol", "plaintext" },
	{ "tls: {ca_file: /a}", "ssl.ca.location", "/a" },
	{ "tls: {ca_pem: x}", "ssl.ca.pem", "x" },
	{ "tls: {cert_file: /c, key_file: /k}", "ssl.certificate.location", "/c" },
	{ "tls: {cert_file: /c, key_file: /k}", "ssl.key.location", "/k" },
	{ "tls: {cert_pem: c, key_pem: k}", "ssl.key.pem", "k" },
	{ "tls: {insecure_skip_verify: true}", "enable.ssl.certificate.verification", "false" },
	{ "tls: {cipher_suites: [TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, "
	  "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, TLS_RSA_WITH_AES_256_CBC_SHA]}",
	  "ssl.cipher.suites",
	  "ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-CHACHA20-POLY1305:AES256-SHA" },
	{ "tls: {cipher_suites: [TLS_AES_128_GCM_SHA256, TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384]}",
	  "ssl.cipher.suites", "ECDHE-RSA-AES256-GCM-SHA384" },
	{ "tls: {cipher_suites: [TLS_AES_128_GCM_SHA256]}", "ssl.cipher.suites", NULL },
	{ "tls: {curve_preferences: [X25519, P256]}", "ssl.curves.list", "X25519:P-256" },
	{ "auth: {tls: {ca_file: /a}}", "ssl.ca.location", "/a" },
	{ "auth: {tls: {ca_file: /a}}", "security.protocol", "ssl" },
	{ "auth: {plain_text: {username: u, password: p}}", "sasl.mechanisms", "PLAIN" },
	{ "auth: {plain_text: {username: u, password: p}}", "security.protocol", "sasl_plaintext" },
	{ "auth: {sasl: {username: u, password: p, mechanism: PLAIN}}", "sasl.username", "u" },
	{ "auth: {sasl: {username: u, password: p, mechanism: SCRAM-SHA-512}}", "sasl.mechanisms",
	  "SCRAM-SHA-512" },
	{ "{tls: {}, auth: {sasl: {username: u, password: p, mechanism: SCRAM-SHA-256}}}",
	  "security.protocol", "sasl_ssl" },
	{ "auth: {kerberos: {service_name: kafka, realm: R, username: u, use_keytab: true, "
	  "keytab_file: /k}}",
	  "sasl.kerberos.principal", "u@R" },
	{ "auth: {kerberos: {username: u, use_keytab: true, keytab_file: /k}}", "sasl.mechanisms",
	  "GSSAPI" },
	{ "auth: {kerberos: {username: u, use_keytab: true, keytab_file: /k}}",
	  "sasl.kerberos.keytab", "/k" },
	{ "auth: {sasl: {mechanism: OAUTHBEARER, oauthbearer_token_file: /t}}", "sasl.mechanisms",
	  "OAUTHBEARER" },
	{ "librdkafka: {socket.timeout.ms: '1234'}", "socket.timeout.ms", "1234" },
	{ "librdkafka: {socket.timeout.ms: 1234}", "socket.timeout.ms", "1234" },
	{ "librdkafka: {socket.keepalive.enable: true}", "socket.keepalive.enable", "true" },
	{ "librdkafka: {ssl.ca.pem: \"a\\nb\"}", "ssl.ca.pem", "a\nb" },
	{ "brokers: [SSL://a:1, plaintext://b]", "bootstrap.servers", "SSL://a:1,plaintext://b" },
	{ "protocol_version: '3.9'", "broker.version.fallback", "3.9" },
	{ "librdkafka: {reconnect.backoff.max.ms: '9'}", "reconnect.backoff.max.ms", "9" },
};

static void keys_become_properties(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT_OF(mappings); i++) {
		struct loaded l = { 0 };
		const char *got;

		load(&l, mappings[i].yaml);
		if (l.errors.n_errors > 0)
			fail_msg("%s: %s", mappings[i].yaml, buf_cstr(&l.text));
		got = kafka_properties_find(&l.p, mappings[i].name);
		if ((got == NULL) != (mappings[i].want == NULL) ||
		    (got != NULL && strcmp(got, mappings[i].want) != 0))
			fail_msg("%s: %s is %s, want %s", mappings[i].yaml, mappings[i].name,
				 got ? got : "(unset)",
				 mappings[i].want ? mappings[i].want : "(unset)");
		unload(&l);
	}
}

/* librdkafka takes every property that a legal configuration leads to. Certificates that are no
 * certificates are refused when a handle is made, not here. */
static void properties_are_librdkafkas(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT_OF(mappings); i++) {
		struct loaded l = { 0 };

		load(&l, mappings[i].yaml);
		for (size_t j = 0; j < l.p.n; j++) {
			struct err err = ERR_INIT;

			if (kafka_client_check_property(l.p.v[j].name, l.p.v[j].value, &err) < 0)
				fail_msg("%s: %s", mappings[i].yaml, err.msg);
		}
		unload(&l);
	}
}

static const struct {
	const char *yaml, *want; /* in the lines */
} refusals[] = {
	{ "brokers: []", "k.brokers: requires at least one broker" },
	{ "brokers: ['a b']", "invalid broker \"a b\"" },
	{ "brokers: ['kafka://a:1']", "invalid broker \"kafka://a:1\"" },
	{ "protocol_version: '3'", "invalid Kafka version \"3\"" },
	{ "brokers: ['a:x']", "invalid port \"x\"" },
	{ "protocol_version: two", "f:1:19: k.protocol_version: invalid Kafka version \"two\"" },
	{ "auth: {sasl: {username: u, password: p}}", "mechanism is required" },
	{ "auth: {sasl: {mechanism: PLAIN}}", "k.auth.sasl.username: username is required" },
	{ "auth: {sasl: {mechanism: PLAIN, username: u}}", "password is required" },
	{ "auth: {sasl: {mechanism: AWS_MSK_IAM}}",
	  "AWS IAM authentication is not in Spanmill yet" },
	{ "auth: {sasl: {mechanism: AWS_MSK_IAM_OAUTHBEARER, aws_msk: {region: eu}}}",
	  "f:1:26: k.auth.sasl.mechanism: AWS IAM" },
	{ "auth: {sasl: {mechanism: MD5}}", "k.auth.sasl.mechanism" },
	{ "auth: {sasl: {mechanism: OAUTHBEARER}}", "OAUTHBEARER needs a source of tokens" },
	{ "auth: {sasl: {mechanism: OAUTHBEARER, oauthbearer_token_source: oauth2client}}",
	  "k.auth.sasl.oauthbearer_token_source: extensions that give tokens" },
	{ "auth: {plain_text: {username: u, password: p}, kerberos: {username: u, use_keytab: "
	  "true, keytab_file: /k}}",
	  "more than one way to log in" },
	{ "auth: {kerberos: {username: u, password: p}}",
	  "k.auth.kerberos.password: librdkafka logs in to Kerberos by a keytab only" },
	{ "auth: {kerberos: {username: u, use_keytab: true, keytab_file: /k, config_file: /x}}",
	  "KRB5_CONFIG" },
	{ "{tls: {}, auth: {tls: {}}}", "k.auth.tls: tls and auth.tls" },
	{ "tls: {cert_file: /c}", "must include both certificate and key" },
	{ "tls: {server_name_override: x}", "verifies the name it connects to" },
	{ "tls: {min_version: '1.3'}", "k.tls.min_version: librdkafka takes no TLS versions" },
	{ "tls: {cipher_suites: [ECDHE-RSA-AES128-GCM-SHA256]}",
	  "invalid TLS cipher suite: \"ECDHE-RSA-AES128-GCM-SHA256\"" },
	{ "tls: {curve_preferences: [P257]}", "invalid curve type: \"P257\"" },
	{ "tls: {reload_interval: 1h}", "reads certificates once" },
	{ "tls: {ca_file: /a, include_system_ca_certs_pool: true}", "not both" },
	{ "librdkafka: {no.such: '1'}",
	  "f:1:23: k.librdkafka.no.such: no.such: No such configuration" },
	{ "librdkafka: {socket.timeout.ms: abc}", "k.librdkafka.socket.timeout.ms" },
	{ "librdkafka: {bootstrap.servers: x}",
	  "bootstrap.servers cannot be set here: write them" },
	{ "librdkafka: {acks: '1'}",
	  "acks cannot be set here: write it to `producer.required_acks`" },
	{ "brokerz: []", "did you mean \"brokers\"" },
};

static void mistakes_are_named(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT_OF(refusals); i++) {
		struct loaded l = { 0 };

		load(&l, refusals[i].yaml);
		if (l.errors.n_errors == 0 || strstr(buf_cstr(&l.text), refusals[i].want) == NULL)
			fail_msg("%s: got %s, want %s", refusals[i].yaml, buf_cstr(&l.text),
				 refusals[i].want);
		unload(&l);
	}
}

static void keys_without_effect_warn(void **state)
{
	static const char *const keys[] = {
		"resolve_canonical_bootstrap_servers_only: true",
		"auth: {sasl: {mechanism: PLAIN, username: u, password: p, version: 1}}",
		"metadata: {retry: {max: 5}}",
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(keys); i++) {
		struct loaded l = { 0 };

		load(&l, keys[i]);
		assert_int_equal(l.errors.n_errors, 0);
		assert_int_equal(l.errors.n_warnings, 1);
		unload(&l);
	}
}

/* {"alg":"none"} . the claims . nothing */
static const struct {
	const char *claims, *principal;
	int64_t expires_ms; /* 0: in a minute */
} tokens[] = {
	{ "{\"sub\":\"mill\",\"exp\":1700000000}", "mill", INT64_C(1700000000000) },
	{ "{\"a\":{\"exp\":5},\"exp\" : 1700000000.5}", "spanmill", INT64_C(1700000000000) },
	{ "{\"x\":\"\\\"exp\\\":7\",\"iat\":1}", "spanmill", 0 },
	{ "{\"exp\":99999999999999999999999}", "spanmill", INT64_MAX },
	{ "{\"sub\":\"", "spanmill", 0 },
	{ "{\"sub\":", "spanmill", 0 },
	{ "", "spanmill", 0 },
};

static void claims_of_a_token(void **state)
{
	static struct kafka_token t;

	(void)state;
	for (size_t i = 0; i < COUNT_OF(tokens); i++) {
		size_t n = (size_t)snprintf(t.text, sizeof(t.text), "eyJhbGciOiJub25lIn0.");

		n += str_base64((const uint8_t *)tokens[i].claims, strlen(tokens[i].claims),
				t.text + n);
		snprintf(t.text + n, sizeof(t.text) - n, ".");
		kafka_token_claims(&t, 1000 * NS_PER_S);
		assert_string_equal(t.principal, tokens[i].principal);
		if (tokens[i].expires_ms == INT64_MAX)
			assert_true(t.expires_ms > INT64_C(1) << 40);
		else
			assert_int_equal(t.expires_ms,
					 tokens[i].expires_ms ? tokens[i].expires_ms : 1060000);
	}
	snprintf(t.text, sizeof(t.text), "opaque-token");
	kafka_token_claims(&t, 1000 * NS_PER_S);
	assert_int_equal(t.expires_ms, 1060000);
}

static void a_file_holds_a_token_or_not(void **state)
{
	static const struct {
		const char *text, *want; /* NULL: not a token */
	} files[] = { { " abc.def \n", "abc.def" }, { "", NULL }, { "\n", NULL }, { "a b", NULL } };
	char path[] = "/tmp/spanmill-token-XXXXXX";
	static struct kafka_token t;
	struct err err = ERR_INIT;
	int fd = mkstemp(path);

	(void)state;
	assert_true(fd >= 0);
	for (size_t i = 0; i < COUNT_OF(files); i++) {
		size_t n = strlen(files[i].text);

		assert_int_equal(ftruncate(fd, 0), 0);
		assert_int_equal(pwrite(fd, files[i].text, n, 0), n);
		assert_int_equal(kafka_token_read(path, &t, &err), files[i].want ? 0 : -1);
		if (files[i].want != NULL)
			assert_string_equal(t.text, files[i].want);
	}
	close(fd);
	unlink(path);
	assert_int_equal(kafka_token_read(path, &t, &err), -1);
	assert_int_equal(err.kind, ERR_NOT_FOUND);
}

static const struct {
	rd_kafka_resp_err_t code;
	enum err_kind kind;
	bool retryable;
} codes[] = {
	{ RD_KAFKA_RESP_ERR__TRANSPORT, ERR_UNAVAILABLE, true },
	{ RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN, ERR_UNAVAILABLE, true },
	{ RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS, ERR_UNAVAILABLE, true },
	{ RD_KAFKA_RESP_ERR__MSG_TIMED_OUT, ERR_TIMEOUT, true },
	{ RD_KAFKA_RESP_ERR__QUEUE_FULL, ERR_EXHAUSTED, true },
	{ RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE, ERR_TOO_LARGE, false },
	{ RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART, ERR_NOT_FOUND, true },
	{ RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED, ERR_PERMISSION, true },
	{ RD_KAFKA_RESP_ERR_INVALID_RECORD, ERR_INVALID, false },
	{ RD_KAFKA_RESP_ERR_UNKNOWN, ERR_UNAVAILABLE, true },
};

static void errors_keep_their_meaning(void **state)
{
	(void)state;
	assert_non_null(kafka_lib(NULL));
	for (size_t i = 0; i < COUNT_OF(codes); i++) {
		struct err err = ERR_INIT;

		assert_int_equal(kafka_lib_err(&err, codes[i].code, "produce to %s", "t"), -1);
		if (err.kind != codes[i].kind || err.retryable != codes[i].retryable)
			fail_msg("%s: kind %d, retryable %d", err.msg, err.kind, err.retryable);
		assert_memory_equal(err.msg, "produce to t: ", 14);
	}
}

static void a_handle_is_made_and_a_bad_one_is_not(void **state)
{
	struct loaded l = { 0 };
	struct kafka_settings s = { .id = "kafka/test" };
	const struct kafka_settings *opaque = &s;
	struct err err = ERR_INIT;
	rd_kafka_t *rk;

	(void)state;
#ifdef __SANITIZE_THREAD__
	skip(); /* gcc's TSan does not know librdkafka's threads (test_kafka_producer.c) */
#endif
	/* OpenSSL takes the suites and groups by the names we give it. */
	load(&l,
	     "{brokers: ['127.0.0.1:1'], tls: {curve_preferences: [P256, P384], "
	     "cipher_suites: [TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, TLS_AES_128_GCM_SHA256]}}");
	s.properties = l.p.v;
	s.n_properties = l.p.n;
	rk = kafka_lib_open(RD_KAFKA_PRODUCER, kafka_lib_conf(&s, &opaque, &err), &err);
	assert_non_null(rk);
	kafka_lib(NULL)->destroy(rk);
	kafka_properties_add(&l.p, "ssl.ca.location", "/nowhere");
	kafka_properties_add(&l.p, "security.protocol", "ssl");
	s.properties = l.p.v;
	s.n_properties = l.p.n;
	rk = kafka_lib_open(RD_KAFKA_PRODUCER, kafka_lib_conf(&s, &opaque, &err), &err);
	assert_null(rk);
	assert_int_equal(err.kind, ERR_CONFIG);
	assert_non_null(strstr(err.msg, "ssl.ca.location"));
	kafka_properties_add(&l.p, "ssl.ca.location", "/");
	l.p.v[l.p.n - 3].value = "/";
	kafka_properties_add(&l.p, "no.such", "1");
	s.properties = l.p.v;
	s.n_properties = l.p.n;
	assert_null(kafka_lib_conf(&s, &opaque, &err));
	assert_non_null(strstr(err.msg, "no.such"));
	unload(&l);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(keys_become_properties),
		cmocka_unit_test(properties_are_librdkafkas),
		cmocka_unit_test(mistakes_are_named),
		cmocka_unit_test(keys_without_effect_warn),
		cmocka_unit_test(claims_of_a_token),
		cmocka_unit_test(a_file_holds_a_token_or_not),
		cmocka_unit_test(errors_keep_their_meaning),
		cmocka_unit_test(a_handle_is_made_and_a_bad_one_is_not),
	};

	return cmocka_run_group_tests_name("kafka_options", tests, NULL, NULL);
}
