/* SPDX-License-Identifier: Apache-2.0
 *
 * test_http_client.c - the HTTP client against our own server.
 */
#include "net/http_client.h"
#include "net/http_server.h"
#include "net/listen.h"

#include "base/mem.h"
#include "base/rng.h"

#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#include <cmocka.h>

static struct {
	struct loop *loop;
	struct http_server *server;
	int fds[1];
	char endpoint[128];
	char base[64]; /* "http://127.0.0.1:port" */
	unsigned connections;
} fx;

static void describe(struct http_request *req, void *arg)
{
	const char *h = http_request_header(req, "X-Test");
	const char *type = http_request_header(req, "Content-Type");
	const char *q = http_request_param(req, "q");
	struct http_header extra[] = { { "ETag", "\"abc\"" } };
	char text[300];

	(void)arg;
	snprintf(text, sizeof(text), "%s q=%s h=%s type=%s expect=%d body=%.*s", req->method,
		 q ? q : "-", h ? h : "-", type ? type : "-",
		 http_request_header(req, "Expect") != NULL, req->body ? (int)req->body->n : 0,
		 req->body ? (char *)req->body->p : "");
	http_respond(req, &(struct http_answer){ .status = 200,
						 .headers = extra,
						 .n_headers = 1,
						 .body = bytes_str(text) });
}

static void count(struct http_request *req, void *arg)
{
	(void)arg;
	http_respond_text(req, 200, "%zu", req->body ? req->body->n : 0);
}

static void large(struct http_request *req, void *arg)
{
	char *p = xcalloc(1, 100000);

	(void)arg;
	http_respond(req, &(struct http_answer){ .status = 200, .body = { (uint8_t *)p, 100000 } });
	free(p);
}

static void never(struct http_request *req, void *arg)
{
	struct http_request **kept = arg;

	*kept = http_request_ref(req);
}

static struct http_request *kept;

static const struct http_route routes[] = {
	{ .method = "GET", .path = "/x", .handler = describe },
	{ .method = "POST", .path = "/x", .handler = describe },
	{ .method = "PUT", .path = "/x", .handler = describe },
	{ .method = "DELETE", .path = "/x", .handler = describe },
	{ .method = "POST", .path = "/count", .handler = count },
	{ .method = "GET", .path = "/large", .handler = large },
	{ .method = "GET", .path = "/never", .handler = never, .arg = &kept },
};

static void make_server(void *arg)
{
	struct http_settings set = HTTP_SETTINGS_INIT;

	fx.server = http_server_new(fx.loop, fx.fds[0], &set, routes, COUNT_OF(routes), arg);
}

static void free_server(void *arg)
{
	(void)arg;
	http_server_free(fx.server);
}

static void ask_connections(void *arg)
{
	(void)arg;
	fx.connections = http_server_connections(fx.server);
}

static void start(const char *endpoint)
{
	struct err err = ERR_INIT;

	snprintf(fx.endpoint, sizeof(fx.endpoint), "%s", endpoint);
	fx.loop = loop_new(0, &err);
	assert_int_equal(loop_start(fx.loop, &err), 0);
	if (listen_open(endpoint, fx.fds, 1, &err) < 0)
		fail_msg("%s", err.msg);
	snprintf(fx.base, sizeof(fx.base), "http://127.0.0.1:%u", listen_port(fx.fds[0]));
	loop_call(fx.loop, make_server, &err);
	assert_non_null(fx.server);
}

static void stop(void)
{
	loop_call(fx.loop, free_server, NULL);
	loop_stop(fx.loop);
	loop_free(fx.loop);
	listen_close(fx.endpoint, fx.fds, 1);
}

static bool is_mapped(const char *name)
{
	FILE *f = fopen("/proc/self/maps", "r");
	char line[512];
	bool found = false;

	while (f != NULL && fgets(line, sizeof(line), f) != NULL)
		found |= strstr(line, name) != NULL;
	if (f != NULL)
		fclose(f);
	return found;
}

static struct http_client *new_client(const struct http_client_settings *set)
{
	struct err err = ERR_INIT;
	struct http_client *c = http_client_new(set, &err);

	if (c == NULL)
		fail_msg("%s", err.msg);
	return c;
}

/* Call and compare "status body". */
static void check(struct http_client *c, struct http_call call, const char *path, const char *want)
{
	struct http_reply reply = HTTP_REPLY_INIT;
	struct err err = ERR_INIT;
	char url[128], got[400];

	snprintf(url, sizeof(url), "%s%s", fx.base, path);
	call.url = url;
	if (http_client_call(c, &call, &reply, &err) < 0)
		fail_msg("%s", err.msg);
	snprintf(got, sizeof(got), "%d %s", reply.status, buf_cstr(&reply.body));
	assert_string_equal(got, want);
	http_reply_fini(&reply);
}

static void library_is_loaded_on_first_use(void **state)
{
	struct http_client *c = NULL;

	(void)state;
	assert_false(is_mapped("libcurl"));
	c = new_client(NULL);
	assert_true(is_mapped("libcurl"));
	http_client_free(c);
	http_client_free(NULL);
}

static void methods_headers_and_pieces_arrive(void **state)
{
	struct http_header h[] = { { "X-Test", "1" }, { "Content-Type", "application/json" } };
	struct bytes pieces[] = { BYTES_LIT("one"), BYTES_EMPTY, BYTES_LIT("two") };
	struct http_client *c = new_client(NULL);

	(void)state;
	start("127.0.0.1:0");
	check(c, (struct http_call){ 0 }, "/x?q=1", "200 GET q=1 h=- type=- expect=0 body=");
	check(c, (struct http_call){ .headers = h, .n_headers = 2, .body = pieces, .n_body = 3 },
	      "/x", "200 POST q=- h=1 type=application/json expect=0 body=onetwo");
	check(c, (struct http_call){ .method = "PUT", .body = pieces, .n_body = 1 }, "/x",
	      "200 PUT q=- h=- type=- expect=0 body=one");
	check(c, (struct http_call){ .method = "POST" }, "/x",
	      "200 POST q=- h=- type=- expect=0 body=");
	check(c, (struct http_call){ .method = "DELETE" }, "/x",
	      "200 DELETE q=- h=- type=- expect=0 body=");
	check(c, (struct http_call){ .method = "HEAD" }, "/x", "200 ");
	check(c, (struct http_call){ 0 }, "/nope", "404 404 page not found\n");
	loop_call(fx.loop, ask_connections, NULL);
	assert_int_equal(fx.connections, 1); /* all of it on one connection */
	http_client_free(c);
	stop();
}

static void large_bodies_pass(void **state)
{
	static uint8_t mib[1 << 20];
	struct bytes pieces[] = { { mib, sizeof(mib) }, { mib, 12345 }, { mib, sizeof(mib) } };
	struct http_client *c = new_client(NULL);

	(void)state;
	start("127.0.0.1:0");
	for (int i = 0; i < 5; i++)
		check(c, (struct http_call){ .body = pieces, .n_body = 3 }, "/count",
		      "200 2109497");
	http_client_free(c);
	stop();
}

static void reply_headers_caps_and_compression(void **state)
{
	struct http_client *c = new_client(NULL);
	struct http_reply reply = HTTP_REPLY_INIT;
	struct err err = ERR_INIT;
	char url[128];

	(void)state;
	start("127.0.0.1:0");
	snprintf(url, sizeof(url), "%s/x", fx.base);
	assert_int_equal(http_client_call(c, &(struct http_call){ .url = url }, &reply, &err), 0);
	assert_string_equal(http_reply_header(&reply, "etag"), "\"abc\"");
	assert_null(http_reply_header(&reply, "x-none"));
	snprintf(url, sizeof(url), "%s/large", fx.base);
	assert_int_equal(http_client_call(c, &(struct http_call){ .url = url, .max_reply = 99999 },
					  &reply, &err),
			 -1);
	assert_int_equal(err.kind, ERR_TOO_LARGE);
	assert_int_equal(http_client_call(c,
					  &(struct http_call){ .url = url,
							       .max_reply = 100000,
							       .accept_compressed = true },
					  &reply, &err),
			 0);
	assert_int_equal(reply.body.n, 100000);
	assert_string_equal(http_reply_header(&reply, "Content-Encoding"), "gzip");
	http_reply_fini(&reply);
	http_client_free(c);
	stop();
}

static void errors_name_the_peer(void **state)
{
	struct http_client *c = new_client(NULL);
	struct http_header bad = { "X-A", "1\r\nX-B: 2" };
	struct http_reply reply = HTTP_REPLY_INIT;
	struct err err = ERR_INIT;
	char url[128], want[200];

	(void)state;
	start("127.0.0.1:0");
	snprintf(url, sizeof(url), "%s/never", fx.base);
	assert_int_equal(http_client_call(c, &(struct http_call){ .url = url, .timeout_ms = 100 },
					  &reply, &err),
			 -1);
	assert_int_equal(err.kind, ERR_TIMEOUT);
	printf("%s\n", err.msg);
	assert_int_equal(
		http_client_call(c,
				 &(struct http_call){ .url = url, .headers = &bad, .n_headers = 1 },
				 &reply, &err),
		-1);
	assert_int_equal(err.kind, ERR_INVALID);
	stop();
	http_request_unref(kept);
	/* Nobody listens there any more. */
	snprintf(url, sizeof(url), "http://user:secret@%s/x?token=secret", fx.base + 7);
	snprintf(want, sizeof(want), "GET %s/x: connect %s: connection refused", fx.base,
		 fx.base + 7);
	assert_int_equal(http_client_call(c, &(struct http_call){ .url = url }, &reply, &err), -1);
	assert_int_equal(err.kind, ERR_UNAVAILABLE);
	assert_true(err.retryable);
	assert_string_equal(err.msg, want);
	assert_int_equal(
		http_client_call(c, &(struct http_call){ .url = "ftp://x/" }, &reply, &err), -1);
	assert_int_equal(err.kind, ERR_INVALID);
	printf("%s\n", err.msg);
	assert_int_equal(http_client_call(c, &(struct http_call){ .url = "http://no.invalid/" },
					  &reply, &err),
			 -1);
	assert_int_equal(err.kind, ERR_UNAVAILABLE);
	printf("%s\n", err.msg);
	http_reply_fini(&reply);
	http_client_free(c);
}

static void a_good_body_goes_where_the_caller_says(void **state)
{
	struct http_client *c = new_client(&(struct http_client_settings){ .no_proxy = true });
	struct http_reply reply = HTTP_REPLY_INIT;
	struct buf into = BUF_INIT;
	struct err err = ERR_INIT;
	struct http_call call = { .into = &into };
	char url[128];

	(void)state;
	start("127.0.0.1:0");
	buf_add_str(&into, "head:");
	snprintf(url, sizeof(url), "%s/large", fx.base);
	call.url = url;
	assert_int_equal(http_client_call(c, &call, &reply, &err), 0);
	assert_int_equal(into.n, 100005);
	assert_int_equal(reply.body.n, 0);
	call.max_reply = 99999;
	assert_int_equal(http_client_call(c, &call, &reply, &err), -1);
	assert_int_equal(err.kind, ERR_TOO_LARGE);
	assert_int_equal(into.n, 100005);
	/* An error is no good body. */
	snprintf(url, sizeof(url), "%s/nope", fx.base);
	assert_int_equal(http_client_call(c, &call, &reply, &err), 0);
	assert_int_equal(reply.status, 404);
	assert_string_equal(buf_cstr(&reply.body), "404 page not found\n");
	assert_int_equal(into.n, 100005);
	/* What HEAD announces is not what it sends. */
	snprintf(url, sizeof(url), "%s/large", fx.base);
	call.method = "HEAD";
	call.max_reply = 10;
	if (http_client_call(c, &call, &reply, &err) < 0)
		fail_msg("%s", err.msg);
	assert_string_equal(http_reply_header(&reply, "Content-Length"), "100000");
	buf_fini(&into);
	http_reply_fini(&reply);
	http_client_free(c);
	stop();
}

static void *interrupt_soon(void *arg)
{
	usleep(100000);
	atomic_store((_Atomic bool *)arg, true);
	return NULL;
}

/* A peer that accepts and says nothing: the stall ends the call, or an interrupt does. */
static void silence_ends(void **state)
{
	static _Atomic bool interrupt;
	struct http_client_settings set = { .stall_timeout_ms = 1000, .interrupt = &interrupt };
	struct http_client *c = new_client(&set);
	struct http_reply reply = HTTP_REPLY_INIT;
	struct err err = ERR_INIT;
	pthread_t thread;
	char url[128];

	(void)state;
	start("127.0.0.1:0");
	snprintf(url, sizeof(url), "%s/never", fx.base);
	assert_int_equal(http_client_call(c, &(struct http_call){ .url = url }, &reply, &err), -1);
	assert_int_equal(err.kind, ERR_TIMEOUT);
	http_client_free(c);
	stop();
	http_request_unref(kept);
	set.stall_timeout_ms = 0;
	c = new_client(&set);
	start("127.0.0.1:0");
	snprintf(url, sizeof(url), "%s/never", fx.base);
	assert_int_equal(pthread_create(&thread, NULL, interrupt_soon, &interrupt), 0);
	assert_int_equal(http_client_call(c, &(struct http_call){ .url = url }, &reply, &err), -1);
	assert_int_equal(err.kind, ERR_UNAVAILABLE);
	assert_non_null(strstr(err.msg, "/never: interrupted"));
	pthread_join(thread, NULL);
	http_client_free(c);
	http_reply_fini(&reply);
	stop();
	http_request_unref(kept);
}

static void unix_sockets_work(void **state)
{
	struct http_client_settings set = { 0 };
	struct http_client *c = NULL;
	char path[64], endpoint[80];

	(void)state;
	snprintf(path, sizeof(path), "/tmp/test_http_client.%d", (int)getpid());
	snprintf(endpoint, sizeof(endpoint), "unix://%s", path);
	start(endpoint);
	set.unix_socket = path;
	c = new_client(&set);
	snprintf(fx.base, sizeof(fx.base), "http://localhost");
	check(c, (struct http_call){ 0 }, "/x", "200 GET q=- h=- type=- expect=0 body=");
	http_client_free(c);
	stop();
}

static bool grant_up_to(void *arg, size_t n)
{
	size_t *left = arg;

	if (n > *left)
		return false;
	*left -= n;
	return true;
}

static void a_body_takes_no_memory_that_is_not_granted(void **state)
{
	struct http_client *c = NULL;
	struct http_reply reply = HTTP_REPLY_INIT;
	struct err err = ERR_INIT;
	size_t left = 65536;
	char url[128];

	(void)state;
	start("127.0.0.1:0");
	c = new_client(NULL);
	snprintf(url, sizeof(url), "%s/large", fx.base);
	assert_int_equal(
		http_client_call(
			c,
			&(struct http_call){ .url = url, .grant = grant_up_to, .grant_arg = &left },
			&reply, &err),
		-1);
	assert_int_equal(err.kind, ERR_EXHAUSTED);
	assert_true(err.retryable);
	left = 2 * 131072;
	assert_int_equal(
		http_client_call(
			c,
			&(struct http_call){ .url = url, .grant = grant_up_to, .grant_arg = &left },
			&reply, &err),
		0);
	assert_int_equal(reply.body.n, 100000);
	assert_true(2 * 131072 - left >= reply.body.cap / 2);
	http_reply_fini(&reply);
	http_client_free(c);
	stop();
}

/* Three good ones, one that never answers, one that nobody listens to: each has its own end, and
 * connections are kept for the next round. */
static void a_group_waits_for_all_of_its_calls(void **state)
{
	static const char *const paths[] = { "/x?q=0", "/never", "/x?q=2", NULL, "/x?q=4" };
	enum { N = COUNT_OF(paths) };
	struct http_call calls[N] = { { 0 } };
	struct http_reply replies[N] = { HTTP_REPLY_INIT };
	struct err errs[N];
	struct http_group *g = NULL;
	char urls[N][128];

	(void)state;
	start("127.0.0.1:0");
	for (size_t i = 0; i < N; i++) {
		if (paths[i] != NULL)
			snprintf(urls[i], sizeof(urls[i]), "%s%s", fx.base, paths[i]);
		else
			snprintf(urls[i], sizeof(urls[i]), "http://127.0.0.1:1/x");
		calls[i] = (struct http_call){ .url = urls[i], .timeout_ms = i == 1 ? 200 : 5000 };
	}
	g = http_group_new(NULL, &errs[0]);
	assert_non_null(g);
	for (int round = 0; round < 2; round++) {
		http_group_call(g, calls, replies, errs, N);
		assert_int_equal(errs[1].kind, ERR_TIMEOUT);
		assert_int_equal(errs[3].kind, ERR_UNAVAILABLE);
		for (size_t i = 0; i < N; i += 2) {
			char want[64];

			assert_int_equal(errs[i].kind, ERR_NONE);
			snprintf(want, sizeof(want), "GET q=%zu ", i);
			if (strncmp((char *)replies[i].body.p, want, strlen(want)) != 0)
				fail_msg("call %zu: %.40s", i, (char *)replies[i].body.p);
		}
		http_request_unref(kept);
		kept = NULL;
	}
	loop_call(fx.loop, ask_connections, NULL);
	if (fx.connections < 3 || fx.connections > 5) /* those that timed out may be seen yet */
		fail_msg("%u connections", fx.connections);
	for (size_t i = 0; i < N; i++)
		http_reply_fini(&replies[i]);
	http_group_free(g);
	stop();
}

/* ---- lanes ---- */

static _Atomic int n_done, n_good;

static void lane_call_done(struct http_lane_call *c)
{
	atomic_fetch_add(&n_good, c->err.kind == ERR_NONE && c->reply.status == 200);
	http_reply_fini(&c->reply);
	atomic_fetch_add(&n_done, 1);
}

static void wait_done(int n)
{
	for (int i = 0; i < 60000 && atomic_load(&n_done) < n; i++)
		usleep(1000);
	assert_int_equal(atomic_load(&n_done), n);
}

static void a_lane_carries_many_calls_and_gives_some_up(void **state)
{
	enum { N = 40 };
	struct http_lane_limits limits = { .max_conns = 4, .max_idle = 4 };
	struct http_lane_call calls[N] = { { .done = NULL } };
	struct http_lane *l = http_lane_new(NULL, &limits, NULL);
	char url[128], slow[128], nowhere[] = "http://127.0.0.1:1/x";
	int n_given_up = 0;

	(void)state;
	start("127.0.0.1:0");
	snprintf(url, sizeof(url), "%s/x", fx.base);
	snprintf(slow, sizeof(slow), "%s/never", fx.base);
	assert_non_null(l);
	atomic_store(&n_done, 0);
	atomic_store(&n_good, 0);
	for (int i = 0; i < N; i++) {
		calls[i] = (struct http_lane_call){ .done = lane_call_done };
		calls[i].call.url = i == 7 ? nowhere : url;
		http_lane_start(l, &calls[i]);
	}
	wait_done(N);
	assert_int_equal(atomic_load(&n_good), N - 1);
	loop_call(fx.loop, ask_connections, NULL);
	assert_in_range(fx.connections, 1, 4);

	/* One that is not answered, given up while it runs; one that is answered at once, given up
	 * before, while or after it runs: done is called or it is given up, never both. */
	calls[0] = (struct http_lane_call){ .call.url = slow, .done = lane_call_done };
	http_lane_start(l, &calls[0]);
	usleep(20000);
	assert_true(http_lane_cancel(l, &calls[0]));
	http_reply_fini(&calls[0].reply);
	for (int i = 1; i < N; i++) {
		calls[i] = (struct http_lane_call){ .call.url = url, .done = lane_call_done };
		http_lane_start(l, &calls[i]);
		usleep((useconds_t)(i * 37 % 1000));
		if (http_lane_cancel(l, &calls[i])) {
			n_given_up++;
			http_reply_fini(&calls[i].reply);
		}
	}
	wait_done(N + N - 1 - n_given_up);
	http_lane_free(l);
	http_request_unref(kept);
	kept = NULL;
	stop();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(library_is_loaded_on_first_use),
		cmocka_unit_test(methods_headers_and_pieces_arrive),
		cmocka_unit_test(large_bodies_pass),
		cmocka_unit_test(reply_headers_caps_and_compression),
		cmocka_unit_test(errors_name_the_peer),
		cmocka_unit_test(a_good_body_goes_where_the_caller_says),
		cmocka_unit_test(silence_ends),
		cmocka_unit_test(unix_sockets_work),
		cmocka_unit_test(a_body_takes_no_memory_that_is_not_granted),
		cmocka_unit_test(a_group_waits_for_all_of_its_calls),
		cmocka_unit_test(a_lane_carries_many_calls_and_gives_some_up),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests_name("http_client", tests, NULL, NULL);
}
