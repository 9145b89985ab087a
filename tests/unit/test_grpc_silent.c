/* SPDX-License-Identifier: Apache-2.0
 *
 * test_grpc_silent.c - a gRPC client whose server is frozen with its connections open (SIGSTOP, a
 * machine that is gone), and the options that choose among connections.
 */
#include "tests/unit/grpc_fixture.h"

/* ---- a server whose loop stands still ---- */

static pthread_mutex_t ice = PTHREAD_MUTEX_INITIALIZER;

static void stand_still(void *arg)
{
	(void)arg;
	pthread_mutex_lock(&ice);
	pthread_mutex_unlock(&ice);
}

static struct loop_task frozen = { .fn = stand_still };

static bool is_frozen;

static void freeze(void)
{
	is_frozen = true;
	pthread_mutex_lock(&ice);
	loop_post(f.server_loop, &frozen);
}

static void thaw(void)
{
	is_frozen = false;
	pthread_mutex_unlock(&ice);
}

/* A failed assertion leaves the test in mid-winter. */
static int tear_down_thawed(void **state)
{
	if (is_frozen)
		thaw();
	return tear_down(state);
}

static enum grpc_status call_within(const char *path, uint64_t ms, char message[256])
{
	struct call c = { .r = { .deadline_ns = clock_mono_ns() + ms * NS_PER_MS } };
	enum grpc_status status;

	sync_call(&c, path, BYTES_LIT("x"));
	status = c.status;
	snprintf(message, 256, "%s", buf_cstr(&c.message));
	end(&c);
	return status;
}

static void count_connections(void *arg)
{
	*(size_t *)arg = grpc_client_connections(f.client);
}

static size_t connections(void)
{
	size_t n;

	loop_call(f.client_loop, count_connections, &n);
	return n;
}

/* What timed out once is not sent into the silence again, and waits for the server's next word. */
static void a_silent_connection_gets_no_more_calls(void **state)
{
	char message[256];

	(void)state;
	start_both();
	assert_int_equal(call_within("/test.T/Echo", 5000, message), GRPC_OK);
	freeze();
	assert_int_equal(call_within("/test.T/Hold", 200, message), GRPC_DEADLINE_EXCEEDED);
	assert_string_equal(message, "deadline exceeded");
	for (int i = 0; i < 3; i++) {
		assert_int_equal(call_within("/test.T/Hold", 100, message), GRPC_DEADLINE_EXCEEDED);
		assert_non_null(strstr(message, "before there was a connection"));
	}
	thaw();
	assert_int_equal(call_within("/test.T/Echo", 5000, message), GRPC_OK);
	assert_true(f.n_held <= 1);
	assert_int_equal(connections(), 1);
}

/* One that is given up (its client has gone) says the same. */
static void a_cancelled_call_raises_doubts_too(void **state)
{
	struct bytes piece = BYTES_LIT("x");
	char message[256];
	struct call c = { .done = false };

	(void)state;
	start_both();
	assert_int_equal(call_within("/test.T/Echo", 5000, message), GRPC_OK);
	freeze();
	begin(&c, "/test.T/Hold", &piece, 1);
	usleep(150000);
	loop_call(f.client_loop, (void (*)(void *))grpc_client_cancel, c.handle);
	assert_int_equal(c.status, GRPC_CANCELLED);
	end(&c);
	assert_int_equal(call_within("/test.T/Hold", 100, message), GRPC_DEADLINE_EXCEEDED);
	thaw();
	assert_int_equal(call_within("/test.T/Echo", 5000, message), GRPC_OK);
	assert_true(f.n_held <= 1);
}

/* A ping that nobody answers ends the connection; a new one is dialled and works after the thaw. */
static void silence_ends_the_connection(void **state)
{
	char message[256];

	(void)state;
	f.client_settings.keepalive_timeout_ms = 200;
	f.client_settings.connect_timeout_ms = 300;
	start_both();
	assert_int_equal(call_within("/test.T/Echo", 5000, message), GRPC_OK);
	freeze();
	assert_int_equal(call_within("/test.T/Hold", 100, message), GRPC_DEADLINE_EXCEEDED);
	for (int i = 0; i < 60000 && connections() > 0; i++)
		usleep(1000);
	assert_int_equal(connections(), 0);
	/* Now every address has failed: no waiting any more. */
	for (int i = 0; i < 100; i++)
		if (call_within("/test.T/Echo", 100, message) == GRPC_UNAVAILABLE)
			break;
	assert_non_null(strstr(message, "connect timed out"));
	thaw();
	for (int i = 0; i < 1000; i++, usleep(10000))
		if (call_within("/test.T/Echo", 200, message) == GRPC_OK)
			return;
	fail_msg("not found again: %s", message);
}

/* ---- options ---- */

static void wait_for_ready_waits(void **state)
{
	struct bytes piece = BYTES_LIT("x");
	char message[256];
	struct call c = { .done = false };

	(void)state;
	close(f.fd);
	f.client_settings.wait_for_ready = true;
	loop_call(f.client_loop, start_client, NULL);
	assert_int_equal(call_within("/test.T/Echo", 500, message), GRPC_DEADLINE_EXCEEDED);
	assert_non_null(strstr(message, "refused"));
	begin(&c, "/test.T/Echo", &piece, 1);
	usleep(100000);
	assert_false(c.done);
	listen_again();
	loop_call(f.server_loop, start_server, NULL);
	wait_for(&c);
	assert_int_equal(c.status, GRPC_OK);
	end(&c);
}

/* keepalive pings an idle connection only when asked to. */
static void idle_connections_are_pinged_on_request(void **state)
{
	char message[256];

	(void)state;
	for (int idle = 0; idle < 2; idle++) {
		f.client_settings.keepalive_time_ms = 100;
		f.client_settings.keepalive_timeout_ms = 100;
		f.client_settings.keepalive_idle = idle;
		if (idle == 0)
			loop_call(f.server_loop, start_server, NULL);
		loop_call(f.client_loop, start_client, NULL);
		assert_int_equal(call_within("/test.T/Echo", 5000, message), GRPC_OK);
		freeze();
		usleep(600000);
		for (int i = 0; idle && i < 60000 && connections() > 0; i++)
			usleep(1000);
		assert_int_equal(connections(), !idle);
		thaw();
		if (idle == 0)
			loop_call(f.client_loop, free_client, NULL);
	}
}

#define SOCKET_TEST(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down_thawed)

int main(void)
{
	const struct CMUnitTest tests[] = {
		SOCKET_TEST(a_silent_connection_gets_no_more_calls),
		SOCKET_TEST(a_cancelled_call_raises_doubts_too),
		SOCKET_TEST(silence_ends_the_connection),
		SOCKET_TEST(wait_for_ready_waits),
		SOCKET_TEST(idle_connections_are_pinged_on_request),
	};

	return cmocka_run_group_tests_name("grpc_silent", tests, NULL, NULL);
}
