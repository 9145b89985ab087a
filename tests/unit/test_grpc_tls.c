/* SPDX-License-Identifier: Apache-2.0
 *
 * test_grpc_tls.c - net/tls under the gRPC client and server: who is trusted, who is not, and that
 * bytes survive. Certificates are made on the spot.
 */
#include "tests/unit/grpc_fixture.h"

#include "tests/unit/certificates.h"

static char cert_path[64], key_path[64], other_path[64];

static int make_certificates(void **state)
{
	(void)state;
	snprintf(cert_path, sizeof(cert_path), "/tmp/test_grpc_tls.%d.crt", (int)getpid());
	snprintf(key_path, sizeof(key_path), "/tmp/test_grpc_tls.%d.key", (int)getpid());
	snprintf(other_path, sizeof(other_path), "/tmp/test_grpc_tls.%d.other", (int)getpid());
	make_certificate("DNS:span.test,IP:127.0.0.1", cert_path, key_path);
	make_certificate("DNS:span.test,IP:127.0.0.1", other_path, NULL);
	return 0;
}

static int remove_certificates(void **state)
{
	(void)state;
	unlink(cert_path);
	unlink(key_path);
	unlink(other_path);
	return 0;
}

static struct tls *server_tls(void)
{
	const struct tls_settings s = { .cert_file = cert_path,
					.key_file = key_path,
					.alpn = "h2" };
	struct err err = ERR_INIT;
	struct tls *t = tls_new_server(&s, &err);

	if (t == NULL)
		fail_msg("%s", err.msg);
	return t;
}

static const struct {
	const char *name;
	const char *ca; /* a path variable's address would not be constant: "own", "other", NULL */
	const char *server_name;
	bool skip_verify, plain;
	const char *want; /* NULL = the call succeeds */
} cases[] = {
	{ "trusted by its own certificate", "own", NULL, false, false, NULL },
	{ "another name, expected", "own", "span.test", false, false, NULL },
	{ "another name, not in it", "own", "elsewhere.test", false, false, "hostname mismatch" },
	{ "another CA", "other", NULL, false, false, "certificate" },
	{ "the system's CAs", NULL, NULL, false, false, "certificate" },
	{ "nobody asks", NULL, "elsewhere.test", true, false, NULL },
	{ "plain text", NULL, NULL, false, true, "connection" },
};

static void trust_is_as_configured(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		struct tls_settings s = { .ca_file = cases[i].ca == NULL               ? NULL
						     : strcmp(cases[i].ca, "own") == 0 ? cert_path
										       : other_path,
					  .server_name = cases[i].server_name,
					  .insecure_skip_verify = cases[i].skip_verify,
					  .alpn = "h2" };
		struct call c = { 0 };

		set_up(NULL);
		f.server_settings.tls = server_tls();
		f.client_settings.tls = cases[i].plain ? NULL : tls_new_client(&s, NULL);
		start_both();
		sync_call(&c, "/test.T/Echo", BYTES_LIT("hello"));
		if (cases[i].want == NULL
			    ? c.status != GRPC_OK || c.response.n != 5
			    : c.status != GRPC_UNAVAILABLE ||
				      strstr(buf_cstr(&c.message), cases[i].want) == NULL)
			fail_msg("%s: %d %s", cases[i].name, c.status, buf_cstr(&c.message));
		end(&c);
		tear_down(NULL);
		tls_free(f.client_settings.tls);
		tls_free(f.server_settings.tls);
	}
}

/* Cipher suites and curves: only what both sides have, and names that are none are told. */
static void ciphers_and_curves_are_as_configured(void **state)
{
	static const char *const aes128[] = { "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256" };
	static const char *const aes256[] = { "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384" };
	static const char *const new128[] = { "TLS_AES_128_GCM_SHA256" };
	static const char *const new256[] = { "TLS_AES_256_GCM_SHA384" };
	static const char *const p256[] = { "P256" }, *const p384[] = { "P384", "P521" };
	static const struct {
		const char *max_version;
		const char *const *server, *const *client, *const *server_curve,
								   *const *client_curve;
		bool works;
	} pairs[] = {
		{ "1.2", aes128, aes128, NULL, NULL, true },
		{ "1.2", aes128, aes256, NULL, NULL, false },
		{ NULL, aes128, aes256, NULL, NULL, true }, /* 1.3 has suites of its own */
		{ NULL, new128, new128, NULL, NULL, true },
		{ "1.3", new128, new256, NULL, NULL, false },
		{ NULL, NULL, NULL, p256, p256, true },
		{ NULL, NULL, NULL, p256, p384, false },
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(pairs); i++) {
		struct tls_settings s = { .cert_file = cert_path,
					  .key_file = key_path,
					  .alpn = "h2" };
		struct call c = { 0 };

		s.max_version = pairs[i].max_version;
		s.min_version = s.max_version != NULL && s.max_version[2] == '3' ? "1.3" : NULL;
		s.ciphers = pairs[i].server;
		s.n_ciphers = pairs[i].server != NULL;
		s.groups = pairs[i].server_curve;
		s.n_groups = pairs[i].server_curve != NULL;
		set_up(NULL);
		f.server_settings.tls = tls_new_server(&s, NULL);
		s.ca_file = cert_path;
		s.cert_file = s.key_file = NULL;
		s.ciphers = pairs[i].client;
		s.n_ciphers = pairs[i].client != NULL;
		s.groups = pairs[i].client_curve;
		s.n_groups = pairs[i].client_curve == NULL   ? 0
			     : pairs[i].client_curve == p384 ? 2
							     : 1;
		f.client_settings.tls = tls_new_client(&s, NULL);
		assert_non_null(f.server_settings.tls);
		assert_non_null(f.client_settings.tls);
		start_both();
		sync_call(&c, "/test.T/Echo", BYTES_LIT("hello"));
		if ((c.status == GRPC_OK) != pairs[i].works)
			fail_msg("pair %zu: %d %s", i, c.status, buf_cstr(&c.message));
		end(&c);
		tear_down(NULL);
		tls_free(f.client_settings.tls);
		tls_free(f.server_settings.tls);
	}
	assert_true(tls_is_cipher(aes128[0]) && tls_is_cipher(new128[0]) && tls_is_group("P521"));
	assert_false(tls_is_cipher("ROT13") || tls_is_group("P257") || tls_is_cipher(""));
}

/* One call over a new connection; its status. Takes the client's settings. */
static enum grpc_status call_once(struct tls *client)
{
	enum grpc_status status;
	struct call c = { 0 };

	assert_non_null(client);
	f.client_settings.tls = client;
	loop_call(f.client_loop, start_client, NULL);
	sync_call(&c, "/test.T/Echo", BYTES_LIT("hello"));
	status = c.status;
	end(&c);
	loop_call(f.client_loop, free_client, NULL);
	tls_free(client);
	return status;
}

static void copy_file(const char *from, const char *to)
{
	char cmd[300];

	snprintf(cmd, sizeof(cmd), "cp %s %s", from, to);
	assert_int_equal(system(cmd), 0);
}

static void garbage_file(const char *path)
{
	FILE *out = fopen(path, "w");

	fputs("nothing", out);
	fclose(out);
}

/* A server whose certificate changes on disk: with reload_interval new connections see it, without
 * they do not, and files that are no good leave what was read before. */
static void certificates_are_read_again(void **state)
{
	char cert[80], key[80], copy_path[80];

	(void)state;
	snprintf(cert, sizeof(cert), "%s.live", cert_path);
	snprintf(key, sizeof(key), "%s.live", key_path);
	snprintf(copy_path, sizeof(copy_path), "%s.new", cert_path);
	/* Never, by the interval, when told to. */
	for (int how = 0; how < 3; how++) {
		bool reload = how > 0;
		const struct tls_settings s = { .cert_file = cert,
						.key_file = key,
						.alpn = "h2",
						.reload_ns = how == 1 ? 1 : 0 };
		const struct tls_settings was = { .ca_file = cert_path, .alpn = "h2" };
		const struct tls_settings is = { .ca_file = copy_path, .alpn = "h2" };

		copy_file(cert_path, cert);
		copy_file(key_path, key);
		set_up(NULL);
		f.server_settings.tls = tls_new_server(&s, NULL);
		loop_call(f.server_loop, start_server, NULL);
		assert_int_equal(call_once(tls_new_client(&was, NULL)), GRPC_OK);
		make_certificate("DNS:span.test,IP:127.0.0.1", cert, key);
		copy_file(cert, copy_path);
		if (how == 2)
			assert_int_equal(tls_reload_all(), 0);
		assert_int_equal(call_once(tls_new_client(&is, NULL)) == GRPC_OK, reload);
		assert_int_equal(call_once(tls_new_client(&was, NULL)) == GRPC_OK, !reload);
		garbage_file(cert);
		if (how == 2)
			assert_int_equal(tls_reload_all(), 1);
		assert_int_equal(call_once(tls_new_client(&is, NULL)) == GRPC_OK, reload);
		tear_down(NULL);
		tls_free(f.server_settings.tls);
	}
	unlink(cert);
	unlink(key);
	unlink(copy_path);
}

/* The same for the authorities of clients; and a client may trust the system's besides its own. */
static void client_authorities_are_read_again(void **state)
{
	char ca[80];

	(void)state;
	snprintf(ca, sizeof(ca), "%s.ca", cert_path);
	for (int reload = 0; reload < 2; reload++) {
		const struct tls_settings s = { .cert_file = cert_path,
						.key_file = key_path,
						.client_ca_file = ca,
						.client_ca_reload = reload,
						.alpn = "h2" };
		const struct tls_settings client = { .ca_file = cert_path,
						     .cert_file = cert_path,
						     .key_file = key_path,
						     .system_ca_too = true,
						     .alpn = "h2" };

		copy_file(other_path, ca);
		set_up(NULL);
		f.server_settings.tls = tls_new_server(&s, NULL);
		loop_call(f.server_loop, start_server, NULL);
		assert_int_not_equal(call_once(tls_new_client(&client, NULL)), GRPC_OK);
		unlink(ca);
		copy_file(cert_path, ca);
		assert_int_equal(call_once(tls_new_client(&client, NULL)) == GRPC_OK, reload);
		tear_down(NULL);
		tls_free(f.server_settings.tls);
	}
	unlink(ca);
}

static void large_messages_survive(void **state)
{
	const struct tls_settings s = { .ca_file = cert_path, .alpn = "h2" };
	enum { N = 12 };
	struct call c[N] = { 0 };
	struct bytes m[N];
	uint8_t *p = pattern(3 * MIB);

	(void)state;
	set_up(NULL);
	f.server_settings.tls = server_tls();
	f.client_settings.tls = tls_new_client(&s, NULL);
	start_both();
	for (size_t i = 0; i < N; i++) {
		m[i] = (struct bytes){ p + i, (i % 3 + 1) * 900000 };
		begin(&c[i], "/test.T/Echo", &m[i], 1);
	}
	for (size_t i = 0; i < N; i++) {
		wait_for(&c[i]);
		if (c[i].status != GRPC_OK)
			fail_msg("%s", buf_cstr(&c[i].message));
		assert_int_equal(c[i].response.n, m[i].n);
		assert_memory_equal(c[i].response.p, m[i].p, m[i].n);
		end(&c[i]);
	}
	tear_down(NULL);
	tls_free(f.client_settings.tls);
	tls_free(f.server_settings.tls);
	free(p);
}

static void bad_settings_name_the_file(void **state)
{
	const struct {
		struct tls_settings s;
		bool server;
		const char *want;
	} bad[] = {
		{ { .ca_file = "/no/such/ca" }, false, "/no/such/ca" },
		{ { .cert_file = cert_path }, false, "go together" },
		{ { .cert_file = cert_path, .key_file = "/no/key" }, true, "/no/key" },
		{ { .cert_file = key_path, .key_file = key_path }, true, key_path },
		{ { .min_version = "1.4" }, false, "1.4" },
		{ { .min_version = "1.3", .max_version = "1.2" }, false, "1.2" },
		{ { .alpn = "h2" }, true, "cert_file" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(bad); i++) {
		struct err err = ERR_INIT;
		struct tls *t = bad[i].server ? tls_new_server(&bad[i].s, &err)
					      : tls_new_client(&bad[i].s, &err);

		assert_null(t);
		assert_int_equal(err.kind, ERR_CONFIG);
		if (strstr(err.msg, bad[i].want) == NULL)
			fail_msg("%zu: %s", i, err.msg);
	}
	tls_free(NULL);
	tls_conn_free(NULL);
}

static void drain_server(void *arg)
{
	(void)arg;
	grpc_server_drain(f.server);
}

static void wait_for_connections(size_t want)
{
	for (int i = 0; i < 60000 && grpc_server_counts(f.server)->connections != want; i++)
		usleep(1000);
	assert_int_equal(grpc_server_counts(f.server)->connections, want);
}

/* Who hangs up in the handshake, or speaks something else, is gone at once; who is silent does not
 * hold up the end. The handshake's own time is ten minutes here. */
static void a_handshake_that_fails_ends_its_connection(void **state)
{
	int fds[3];

	set_up(state);
	f.server_settings.tls = server_tls();
	f.server_settings.handshake_timeout_ms = 600000;
	loop_call(f.server_loop, start_server, NULL);
	for (size_t i = 0; i < COUNT_OF(fds); i++)
		fds[i] = connect_raw();
	wait_for_connections(3);
	close(fds[0]);
	wait_for_connections(2);
	assert_int_equal(send(fds[1], "GET / HTTP/1.0\r\n\r\n", 18, 0), 18);
	wait_for_connections(1);
	loop_call(f.server_loop, drain_server, NULL);
	wait_for_connections(0);
	close(fds[1]);
	close(fds[2]);
	tear_down(state);
	tls_free(f.server_settings.tls);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(trust_is_as_configured),
		cmocka_unit_test(ciphers_and_curves_are_as_configured),
		cmocka_unit_test(certificates_are_read_again),
		cmocka_unit_test(client_authorities_are_read_again),
		cmocka_unit_test(large_messages_survive),
		cmocka_unit_test(a_handshake_that_fails_ends_its_connection),
		cmocka_unit_test(bad_settings_name_the_file),
	};

	return cmocka_run_group_tests_name("grpc_tls", tests, make_certificates,
					   remove_certificates);
}
