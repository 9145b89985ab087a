/* SPDX-License-Identifier: Apache-2.0
 *
 * test_grpc.c - our gRPC client against our gRPC server over real sockets: sizes, concurrency,
 * deadlines, refusals, broken connections, drain. What only a bad client does is in
 * test_grpc_session.c.
 */
#include "tests/unit/grpc_fixture.h"

/* ---- tests ---- */

static void every_size_comes_back(void **state)
{
	static const size_t sizes[] = {
		0, 1, 5, 1000, 16379, 16384, 65536, 100000, 2000000, 4194300
	};
	static const enum content_coding codings[] = { CONTENT_IDENTITY, CONTENT_GZIP,
						       CONTENT_ZSTD };

	(void)state;
	start_both();
	for (size_t i = 0; i < COUNT_OF(sizes); i++) {
		for (size_t j = 0; j < COUNT_OF(codings); j++) {
			uint8_t *p = pattern(sizes[i]);
			struct call c = { .r = { .coding = codings[j] } };

			sync_call(&c, "/test.T/Echo", (struct bytes){ p, sizes[i] });
			if (c.status != GRPC_OK || c.response.n != sizes[i] ||
			    (sizes[i] > 0 && memcmp(c.response.p, p, sizes[i]) != 0))
				fail_msg("%zu bytes, coding %d: status %d %s, %zu bytes back",
					 sizes[i], (int)j, c.status, buf_cstr(&c.message),
					 c.response.n);
			end(&c);
			free(p);
		}
	}
}

static void compressed_bytes_go_as_they_are(void **state)
{
	struct call c = { .r = { .coding = CONTENT_GZIP, .is_coded = true } };
	struct buf coded = BUF_INIT;
	uint8_t *p = pattern(100000);

	(void)state;
	start_both();
	assert_int_equal(content_encode(CONTENT_GZIP, 9, (struct bytes){ p, 100000 }, &coded, NULL),
			 0);
	sync_call(&c, "/test.T/Echo", buf_bytes(&coded));
	assert_int_equal(c.status, GRPC_OK);
	assert_int_equal(c.response.n, 100000);
	assert_memory_equal(c.response.p, p, 100000);
	end(&c);
	buf_fini(&coded);
	free(p);
}

static void pieces_are_gathered(void **state)
{
	struct bytes pieces[3000];
	uint8_t *p = pattern(3000 * 700);
	size_t n = 0;

	(void)state;
	start_both();
	for (size_t i = 0; i < COUNT_OF(pieces); i++) {
		size_t take = i % 7 == 0 ? 0 : i % 11 == 0 ? 4000 : i % 300;

		pieces[i] = (struct bytes){ p + n, take };
		n += take;
		assert_true(n < 3000 * 700);
	}
	for (int round = 0; round < 3; round++) {
		struct call c = { .r = { .coding = round == 2 ? CONTENT_GZIP : CONTENT_IDENTITY } };

		begin(&c, "/test.T/Echo", pieces, COUNT_OF(pieces));
		wait_for(&c);
		assert_int_equal(c.status, GRPC_OK);
		assert_int_equal(c.response.n, n);
		assert_memory_equal(c.response.p, p, n);
		end(&c);
	}
	free(p);
}

static void the_handler_knows_its_call(void **state)
{
	const struct grpc_header h = { "x-scope-orgid", BYTES_LIT("t1") };
	struct call c = { .r = { .headers = &h, .n_headers = 1, .coding = CONTENT_GZIP } };

	(void)state;
	start_both();
	c.r.deadline_ns = clock_mono_ns() + 7 * NS_PER_S;
	sync_call(&c, "/test.T/Describe", BYTES_LIT("hello"));
	assert_string_equal(buf_cstr(&c.response),
			    "/test.T/Describe tenant=t1 left=7s coding=gzip n=5 taken=1 0");
	end(&c);
	sync_call(&c, "/test.T/Describe", BYTES_LIT(""));
	assert_string_equal(buf_cstr(&c.response),
			    "/test.T/Describe tenant= left=0s coding=identity n=0 taken=1 0");
	end(&c);
}

static void errors_carry_message_and_retry_info(void **state)
{
	struct call c = { 0 };

	(void)state;
	start_both();
	sync_call(&c, "/test.T/Fail", BYTES_LIT("x"));
	assert_int_equal(c.status, GRPC_UNAVAILABLE);
	assert_string_equal(buf_cstr(&c.message), "sp\xc3\xa4ter, 100%\n");
	assert_true(c.has_retry_info && c.retryable);
	assert_int_equal(c.retry_after_ms, 2500);
	end(&c);
	sync_call(&c, "/test.T/None", BYTES_LIT("x"));
	assert_int_equal(c.status, GRPC_UNIMPLEMENTED);
	assert_false(c.has_retry_info || c.retryable);
	assert_string_equal(buf_cstr(&c.message), "unknown method /test.T/None");
	end(&c);
	sync_call(&c, "/test.T/Forget", BYTES_LIT("x"));
	assert_int_equal(c.status, GRPC_INTERNAL);
	end(&c);
}

static void many_calls_at_once(void **state)
{
	enum { N = 500 };
	struct call *c = xcalloc(N, sizeof(*c));
	uint8_t *p = pattern(50000);
	struct bytes *m = xcalloc(N, sizeof(*m));

	(void)state;
	start_both();
	for (size_t i = 0; i < N; i++) {
		m[i] = (struct bytes){ p + i, i * 97 % 49000 };
		begin(&c[i], "/test.T/Echo", &m[i], 1);
	}
	for (size_t i = 0; i < N; i++) {
		wait_for(&c[i]);
		assert_int_equal(c[i].status, GRPC_OK);
		assert_int_equal(c[i].response.n, m[i].n);
		assert_true(m[i].n == 0 || memcmp(c[i].response.p, m[i].p, m[i].n) == 0);
		end(&c[i]);
	}
	assert_int_equal(grpc_server_counts(f.server)->calls, N);
	assert_int_equal(grpc_server_counts(f.server)->connections_total, 1);
	free(c);
	free(m);
	free(p);
}

static void a_large_message_is_refused_without_retry(void **state)
{
	uint8_t *p = pattern(3 * MIB);
	struct call c = { 0 };

	(void)state;
	f.server_settings.max_recv_msg_bytes = MIB;
	start_both();
	sync_call(&c, "/test.T/Echo", (struct bytes){ p, 3 * MIB });
	assert_int_equal(c.status, GRPC_RESOURCE_EXHAUSTED);
	assert_false(c.has_retry_info || c.retryable);
	end(&c);
	memset(p, 'a', 3 * MIB);
	c.r.coding = CONTENT_GZIP;
	sync_call(&c, "/test.T/Echo", (struct bytes){ p, 3 * MIB });
	assert_int_equal(c.status, GRPC_RESOURCE_EXHAUSTED);
	assert_false(c.has_retry_info || c.retryable);
	end(&c);
	/* The connection serves on. */
	sync_call(&c, "/test.T/Echo", (struct bytes){ p, 1000 });
	assert_int_equal(c.status, GRPC_OK);
	end(&c);
	assert_int_equal(grpc_server_counts(f.server)->connections_total, 1);
	assert_int_equal(grpc_server_counts(f.server)->refused_large, 2);
	free(p);
}

static void a_spent_budget_says_when_to_come_back(void **state)
{
	uint8_t *p = pattern(10 * MIB);
	struct call c = { 0 };

	(void)state;
	f.budget.limit = 8 * MIB;
	start_both();
	budget_force(&f.budget, 6 * MIB);
	sync_call(&c, "/test.T/Echo", (struct bytes){ p, 3 * MIB });
	assert_int_equal(c.status, GRPC_UNAVAILABLE);
	assert_int_equal(c.retry_after_ms, 1000);
	end(&c);
	/* More than an empty budget could hold is refused for ever. */
	sync_call(&c, "/test.T/Echo", (struct bytes){ p, 9 * MIB });
	assert_int_equal(c.status, GRPC_RESOURCE_EXHAUSTED);
	assert_false(c.has_retry_info);
	end(&c);
	budget_release(&f.budget, 6 * MIB);
	sync_call(&c, "/test.T/Echo", (struct bytes){ p, 3 * MIB });
	assert_int_equal(c.status, GRPC_OK);
	end(&c);
	assert_int_equal(grpc_server_counts(f.server)->refused_budget, 1);
	free(p);
}

static void deadlines_and_cancels_reach_both_sides(void **state)
{
	struct call c = { 0 };

	(void)state;
	start_both();
	c.r.deadline_ns = clock_mono_ns() + 100 * NS_PER_MS;
	sync_call(&c, "/test.T/Hold", BYTES_LIT("x"));
	assert_int_equal(c.status, GRPC_DEADLINE_EXCEEDED);
	assert_true(clock_mono_ns() >= c.r.deadline_ns);
	assert_true(c.retryable);
	end(&c);
	wait_until(&f.n_cancelled, 1);
	begin(&c, "/test.T/Hold", NULL, 0);
	wait_until(&f.n_held, 2);
	loop_call(f.client_loop, (void (*)(void *))grpc_client_cancel, c.handle);
	assert_true(c.done);
	assert_int_equal(c.status, GRPC_CANCELLED);
	end(&c);
	wait_until(&f.n_cancelled, 2);
}

static void answer_held(void *arg)
{
	(void)arg;
	for (int i = 0; i < f.n_held; i++) {
		grpc_call_reply(f.held[i], BYTES_LIT("late"));
		grpc_call_fail(f.held[i], GRPC_INTERNAL, "a second answer", 0);
	}
}

static void held_calls_are_answered_later(void **state)
{
	struct call c[8] = { 0 };

	(void)state;
	start_both();
	for (size_t i = 0; i < COUNT_OF(c); i++)
		begin(&c[i], "/test.T/Hold", NULL, 0);
	wait_until(&f.n_held, COUNT_OF(c));
	loop_call(f.server_loop, answer_held, NULL);
	for (size_t i = 0; i < COUNT_OF(c); i++) {
		wait_for(&c[i]);
		assert_int_equal(c[i].status, GRPC_OK);
		assert_string_equal(buf_cstr(&c[i].response), "late");
		end(&c[i]);
	}
	assert_int_equal(f.n_cancelled, 0);
	/* The clients are gone now; answers have no effect. */
	loop_call(f.server_loop, answer_held, NULL);
}

static void a_dead_server_fails_fast_and_is_found_again(void **state)
{
	struct call c = { 0 };
	int tries = 0;

	(void)state;
	start_both();
	begin(&c, "/test.T/Hold", NULL, 0);
	wait_until(&f.n_held, 1);
	loop_call(f.server_loop, free_server, NULL);
	wait_for(&c);
	assert_int_equal(c.status, GRPC_UNAVAILABLE);
	assert_true(c.retryable);
	end(&c);
	/* Wait-for-one-attempt, then fail fast with the reason. */
	sync_call(&c, "/test.T/Echo", BYTES_LIT("x"));
	assert_int_equal(c.status, GRPC_UNAVAILABLE);
	assert_non_null(strstr(buf_cstr(&c.message), "refused"));
	assert_non_null(strstr(buf_cstr(&c.message), f.endpoint));
	end(&c);
	listen_again();
	loop_call(f.server_loop, start_server, NULL);
	do {
		end(&c);
		usleep(10000);
		sync_call(&c, "/test.T/Echo", BYTES_LIT("x"));
	} while (c.status != GRPC_OK && ++tries < 6000);
	assert_int_equal(c.status, GRPC_OK);
	end(&c);
}

static void drain(void *arg)
{
	(void)arg;
	grpc_server_drain(f.server);
}

static void is_drained(void *arg)
{
	*(bool *)arg = grpc_server_is_drained(f.server);
}

static void draining_finishes_what_is_in_flight(void **state)
{
	struct call c = { 0 };
	bool drained = false;

	(void)state;
	start_both();
	begin(&c, "/test.T/Hold", NULL, 0);
	wait_until(&f.n_held, 1);
	loop_call(f.server_loop, drain, NULL);
	usleep(300000);
	loop_call(f.server_loop, is_drained, &drained);
	assert_false(drained);
	loop_call(f.server_loop, answer_held, NULL);
	wait_for(&c);
	assert_int_equal(c.status, GRPC_OK);
	end(&c);
	for (int i = 0; i < 6000 && !drained; i++) {
		usleep(10000);
		loop_call(f.server_loop, is_drained, &drained);
	}
	assert_true(drained);
}

static void old_connections_are_replaced_without_a_failed_call(void **state)
{
	struct call c = { 0 };

	(void)state;
	f.server_settings.max_connection_age_ms = 60;
	f.server_settings.max_connection_age_grace_ms = 5000;
	f.client_settings.backoff_min_ms = 1;
	start_both();
	for (int i = 0; i < 300; i++) {
		sync_call(&c, "/test.T/Echo", BYTES_LIT("x"));
		if (c.status != GRPC_OK)
			fail_msg("call %d: %d %s", i, c.status, buf_cstr(&c.message));
		end(&c);
		usleep(2000);
	}
	assert_true(grpc_server_counts(f.server)->connections_total > 3);
}

/* More idle connections than the budget has room for: the idlest go, and a client that has
 * something to say is heard even when the budget is spent. */
static void idle_connections_make_room(void **state)
{
	enum { N = 200 };
	struct call c = { 0 };
	int fds[N];

	(void)state;
	f.budget.limit = 4 << 20; /* half of it for connections: about 50 */
	start_both();
	for (int i = 0; i < N; i++)
		fds[i] = connect_raw();
	usleep(1000000); /* until then they have hardly come */
	for (int i = 0; i < 600 && (i == 0 || grpc_server_counts(f.server)->connections > 60);
	     i++) {
		usleep(i > 0 ? 100000 : 0);
		sync_call(&c, "/test.T/Echo", BYTES_LIT("x"));
		assert_int_equal(c.status, GRPC_OK);
		end(&c);
	}
	assert_in_range(grpc_server_counts(f.server)->connections, 32, 60);
	budget_force(&f.budget, 4 << 20);
	loop_call(f.client_loop, free_client, NULL);
	loop_call(f.client_loop, start_client, NULL);
	sync_call(&c, "/test.T/Echo", BYTES_LIT("x"));
	assert_int_equal(c.status, GRPC_UNAVAILABLE);
	assert_true(c.has_retry_info); /* it was let in, and told */
	end(&c);
	budget_release(&f.budget, 4 << 20);
	for (int i = 0; i < N; i++)
		close(fds[i]);
}

static void idle_connections_are_closed_and_counted(void **state)
{
	struct call c = { 0 };

	(void)state;
	f.server_settings.max_connection_idle_ms = 50;
	start_both();
	sync_call(&c, "/test.T/Echo", BYTES_LIT("x"));
	end(&c);
	assert_int_equal(grpc_server_counts(f.server)->connections, 1);
	for (int i = 0; i < 6000 && grpc_server_counts(f.server)->connections_total < 2; i++)
		usleep(10000);
	assert_true(grpc_server_counts(f.server)->connections_total >= 2);
}

static void the_endpoint_is_checked(void **state)
{
	static const char *const bad[] = { "localhost", "localhost:0", "http://localhost:x" };
	struct err err = ERR_INIT;

	(void)state;
	for (size_t i = 0; i < COUNT_OF(bad); i++) {
		struct grpc_client_settings s = { .endpoint = bad[i] };

		assert_null(grpc_client_new(f.client_loop, &s, &err));
		assert_int_equal(err.kind, ERR_CONFIG);
	}
	loop_call(f.server_loop, start_server, NULL);
	snprintf(f.endpoint, sizeof(f.endpoint), "no-such-host.invalid:1");
	loop_call(f.client_loop, start_client, NULL);
	struct call c = { 0 };
	sync_call(&c, "/test.T/Echo", BYTES_LIT("x"));
	assert_int_equal(c.status, GRPC_UNAVAILABLE);
	assert_non_null(strstr(buf_cstr(&c.message), "no-such-host.invalid"));
	end(&c);
}

static void names_are_looked_up(void **state)
{
	char endpoint[32];
	struct call c = { 0 };

	(void)state;
	loop_call(f.server_loop, start_server, NULL);
	snprintf(endpoint, sizeof(endpoint), "dns:///localhost%s", strchr(f.endpoint, ':'));
	memcpy(f.endpoint, endpoint, sizeof(endpoint));
	loop_call(f.client_loop, start_client, NULL);
	sync_call(&c, "/test.T/Echo", BYTES_LIT("x"));
	if (c.status != GRPC_OK)
		fail_msg("%s", buf_cstr(&c.message));
	end(&c);
}

/* ---- statuses ---- */

static void messages_are_percent_encoded(void **state)
{
	static const struct {
		const char *plain, *coded;
	} cases[] = {
		{ "", "" },
		{ "plain text", "plain text" },
		{ "100%", "100%25" },
		{ "a\nb\x7f", "a%0Ab%7F" },
		{ "\xc3\xa4", "%C3%A4" },
	};
	static const struct {
		const char *coded, *plain;
	} loose[] = { { "50%", "50%" }, { "%4", "%4" }, { "%zz", "%zz" }, { "%41%4", "A%4" } };

	(void)state;
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		struct buf out = BUF_INIT, back = BUF_INIT;

		grpc_status_encode_message(cases[i].plain, &out);
		assert_string_equal(buf_cstr(&out), cases[i].coded);
		grpc_status_decode_message(buf_bytes(&out), &back);
		assert_string_equal(buf_cstr(&back), cases[i].plain);
		buf_fini(&out);
		buf_fini(&back);
	}
	for (size_t i = 0; i < COUNT_OF(loose); i++) {
		struct buf back = BUF_INIT;

		grpc_status_decode_message(bytes_str(loose[i].coded), &back);
		assert_string_equal(buf_cstr(&back), loose[i].plain);
		buf_fini(&back);
	}
}

static void details_carry_retry_info(void **state)
{
	static const uint32_t delays[] = { 1, 999, 1000, 2500, 86400000 };
	/* A Status without details, as another server writes it; junk; a cut one. */
	static const struct {
		const char *in;
		int want;
	} others[] = {
		{ "CA4SAXg=", 0 }, { "CA4SAXg", 0 }, { "", 0 }, { "*", -1 }, { "GgUK", -1 }
	};
	uint32_t ms = 0;

	(void)state;
	for (size_t i = 0; i < COUNT_OF(delays); i++) {
		struct buf out = BUF_INIT;

		grpc_status_encode_details(GRPC_UNAVAILABLE, "later", delays[i], &out);
		assert_int_equal(grpc_status_decode_details(buf_bytes(&out), &ms), 1);
		assert_int_equal(ms, delays[i]);
		buf_fini(&out);
	}
	for (size_t i = 0; i < COUNT_OF(others); i++)
		assert_int_equal(grpc_status_decode_details(bytes_str(others[i].in), &ms),
				 others[i].want);
}

static void timeouts_parse(void **state)
{
	static const struct {
		const char *in;
		uint64_t ns;
	} good[] = { { "1n", 1 },
		     { "5S", 5 * NS_PER_S },
		     { "100m", 100 * NS_PER_MS },
		     { "99999999u", 99999999 * NS_PER_US },
		     { "2H", 7200 * NS_PER_S },
		     { "3M", 180 * NS_PER_S } };
	static const char *const bad[] = { "", "S", "5", "5s", "123456789S", "-1S", "1.5S", " 1S" };
	uint64_t ns;
	char text[16];

	(void)state;
	for (size_t i = 0; i < COUNT_OF(good); i++) {
		assert_int_equal(grpc_status_parse_timeout(bytes_str(good[i].in), &ns), 0);
		assert_int_equal(ns, good[i].ns);
		grpc_status_format_timeout(good[i].ns, text);
		assert_int_equal(grpc_status_parse_timeout(bytes_str(text), &ns), 0);
		assert_int_equal(ns, good[i].ns);
	}
	for (size_t i = 0; i < COUNT_OF(bad); i++)
		assert_int_equal(grpc_status_parse_timeout(bytes_str(bad[i]), &ns), -1);
	assert_int_equal(grpc_status_parse_timeout(BYTES_LIT("99999999H"), &ns), 0);
}

static void retryable_as_otlp_says(void **state)
{
	(void)state;
	for (int s = 0; s <= 16; s++) {
		bool want = s == 1 || s == 4 || s == 10 || s == 11 || s == 14 || s == 15;

		assert_int_equal(grpc_status_is_retryable((enum grpc_status)s, false), want);
		assert_int_equal(grpc_status_is_retryable((enum grpc_status)s, true),
				 want || s == 8);
	}
	assert_string_equal(grpc_status_name(GRPC_UNAUTHENTICATED), "UNAUTHENTICATED");
	assert_string_equal(grpc_status_name((enum grpc_status)99), "UNKNOWN");
}

#define SOCKET_TEST(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(messages_are_percent_encoded),
		cmocka_unit_test(details_carry_retry_info),
		cmocka_unit_test(timeouts_parse),
		cmocka_unit_test(retryable_as_otlp_says),
		SOCKET_TEST(every_size_comes_back),
		SOCKET_TEST(compressed_bytes_go_as_they_are),
		SOCKET_TEST(pieces_are_gathered),
		SOCKET_TEST(the_handler_knows_its_call),
		SOCKET_TEST(errors_carry_message_and_retry_info),
		SOCKET_TEST(many_calls_at_once),
		SOCKET_TEST(a_large_message_is_refused_without_retry),
		SOCKET_TEST(a_spent_budget_says_when_to_come_back),
		SOCKET_TEST(deadlines_and_cancels_reach_both_sides),
		SOCKET_TEST(held_calls_are_answered_later),
		SOCKET_TEST(a_dead_server_fails_fast_and_is_found_again),
		SOCKET_TEST(draining_finishes_what_is_in_flight),
		SOCKET_TEST(old_connections_are_replaced_without_a_failed_call),
		SOCKET_TEST(idle_connections_make_room),
		SOCKET_TEST(idle_connections_are_closed_and_counted),
		SOCKET_TEST(the_endpoint_is_checked),
		SOCKET_TEST(names_are_looked_up),
	};

	return cmocka_run_group_tests_name("grpc", tests, NULL, NULL);
}
