/* SPDX-License-Identifier: Apache-2.0
 *
 * grpc_fixture.h - a gRPC server on one loop, a client on another, and calls from the test's
 * thread; shared by the tests of the gRPC path. Header only, because a test program is one file.
 */
#ifndef TESTS_UNIT_GRPC_FIXTURE_H
#define TESTS_UNIT_GRPC_FIXTURE_H

#include "base/clock.h"
#include "base/mem.h"
#include "net/grpc_client.h"
#include "net/grpc_server.h"
#include "net/listen.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BUDGET_BYTES = 64 * 1024 * 1024, MAX_HELD = 64 };

/* ---- a server on one loop, a client on another ---- */

static struct {
	struct loop *server_loop, *client_loop;
	struct grpc_server *server;
	struct grpc_client *client;
	struct grpc_server_settings server_settings;
	struct grpc_client_settings client_settings;
	struct budget budget;
	char endpoint[32];
	int fd;
	struct grpc_call *held[MAX_HELD]; /* server loop */
	_Atomic int n_held, n_cancelled;
} f;

static inline void echo(struct grpc_call *call, void *arg)
{
	const struct rcbuf *m = grpc_call_message(call);

	(void)arg;
	grpc_call_reply(call, (struct bytes){ m->p, m->n });
}

static inline void give_error(struct grpc_call *call, void *arg)
{
	(void)arg;
	grpc_call_fail(call, GRPC_UNAVAILABLE, "sp\xc3\xa4ter, 100%\n", 2500);
}

static inline void forget(struct grpc_call *call, void *arg)
{
	(void)call;
	(void)arg;
}

static inline void cancelled(struct grpc_call *call, void *arg)
{
	(void)arg;
	f.n_cancelled++;
	assert_true(grpc_call_is_cancelled(call));
	assert_string_equal(grpc_call_peer(call), "");
}

static inline void hold(struct grpc_call *call, void *arg)
{
	(void)arg;
	grpc_call_on_cancel(call, cancelled, NULL);
	f.held[f.n_held] = grpc_call_ref(call);
	f.n_held++;
}

/* Answers with what it knows of the call. */
static inline void describe(struct grpc_call *call, void *arg)
{
	struct bytes tenant = grpc_call_header(call, "x-scope-orgid");
	uint64_t left = grpc_call_deadline_ns(call);
	struct rcbuf *m = grpc_call_take_message(call);
	char text[256];
	int n;

	(void)arg;
	left = left == 0 ? 0 : (left - clock_mono_ns() + NS_PER_S / 2) / NS_PER_S;
	n = snprintf(text, sizeof(text), "%s tenant=%.*s left=%llus coding=%s n=%zu taken=%d %d",
		     grpc_call_path(call), (int)tenant.n, (const char *)tenant.p,
		     (unsigned long long)left, content_coding_name(grpc_call_coding(call)), m->n,
		     grpc_call_message(call) == NULL,
		     strncmp(grpc_call_peer(call), "127.0.0.1:", 10));
	rcbuf_unref(m);
	grpc_call_reply(call, (struct bytes){ (uint8_t *)text, (size_t)n });
}

static const struct grpc_route routes[] = {
	{ "/test.T/Echo", echo, NULL, false },         { "/test.T/Fail", give_error, NULL, false },
	{ "/test.T/Hold", hold, NULL, false },         { "/test.T/Forget", forget, NULL, false },
	{ "/test.T/Describe", describe, NULL, false }, { NULL, NULL, NULL, false },
};

static inline void start_server(void *arg)
{
	struct err err = ERR_INIT;

	(void)arg;
	f.server = grpc_server_new(f.server_loop, f.fd, &f.server_settings, routes, &err);
	assert_non_null(f.server);
}

static inline void free_server(void *arg)
{
	(void)arg;
	for (int i = 0; i < f.n_held; i++)
		grpc_call_unref(f.held[i]);
	f.n_held = 0;
	grpc_server_free(f.server);
	f.server = NULL;
}

static inline void start_client(void *arg)
{
	(void)arg;
	f.client_settings.endpoint = f.endpoint;
	f.client = grpc_client_new(f.client_loop, &f.client_settings, NULL);
	assert_non_null(f.client);
}

static inline void free_client(void *arg)
{
	(void)arg;
	grpc_client_free(f.client);
	f.client = NULL;
}

static inline void listen_again(void)
{
	struct err err = ERR_INIT;

	if (listen_open(f.endpoint, &f.fd, 1, &err) < 0)
		fail_msg("%s", err.msg);
	snprintf(f.endpoint, sizeof(f.endpoint), "127.0.0.1:%u", listen_port(f.fd));
}

static inline int set_up(void **state)
{
	(void)state;
	memset(&f, 0, sizeof(f));
	f.budget = (struct budget)BUDGET_INIT(BUDGET_BYTES);
	f.server_settings.budget = &f.budget;
	f.client_settings.backoff_min_ms = 20;
	snprintf(f.endpoint, sizeof(f.endpoint), "127.0.0.1:0");
	listen_again();
	f.server_loop = loop_new(0, NULL);
	f.client_loop = loop_new(1, NULL);
	loop_start(f.server_loop, NULL);
	loop_start(f.client_loop, NULL);
	return 0;
}

static inline int tear_down(void **state)
{
	(void)state;
	loop_call(f.client_loop, free_client, NULL);
	loop_call(f.server_loop, free_server, NULL);
	loop_stop(f.client_loop);
	loop_stop(f.server_loop);
	loop_free(f.client_loop);
	loop_free(f.server_loop);
	assert_int_equal(f.budget.used, 0);
	return 0;
}

/* A connection that says nothing. */
static inline int connect_raw(void)
{
	struct sockaddr_in a = { .sin_family = AF_INET,
				 .sin_port = htons(listen_port(f.fd)),
				 .sin_addr = { htonl(INADDR_LOOPBACK) } };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0)
		fail_msg("connect: %s", strerror(errno));
	return fd;
}

static inline void start_both(void)
{
	loop_call(f.server_loop, start_server, NULL);
	loop_call(f.client_loop, start_client, NULL);
}

/* ---- calls from the test's thread ---- */

struct call {
	struct grpc_request r;
	struct grpc_client_call *handle;
	pthread_mutex_t lock;
	pthread_cond_t cond;
	bool done;
	enum grpc_status status;
	bool retryable, has_retry_info;
	uint32_t retry_after_ms;
	struct buf message, response;
};

static inline void call_done(const struct grpc_answer *a, void *arg)
{
	struct call *c = arg;

	pthread_mutex_lock(&c->lock);
	assert_false(c->done);
	c->status = a->status;
	c->retryable = a->retryable;
	c->has_retry_info = a->has_retry_info;
	c->retry_after_ms = a->retry_after_ms;
	buf_add_str(&c->message, a->message);
	buf_add_bytes(&c->response, a->response);
	c->done = true;
	pthread_cond_signal(&c->cond);
	pthread_mutex_unlock(&c->lock);
}

static inline void start_call(void *arg)
{
	struct call *c = arg;

	c->handle = grpc_client_start(f.client, &c->r, call_done, c);
}

static inline void begin(struct call *c, const char *path, const struct bytes *pieces, size_t n)
{
	c->r.path = path;
	c->r.pieces = pieces;
	c->r.n_pieces = n;
	pthread_mutex_init(&c->lock, NULL);
	pthread_cond_init(&c->cond, NULL);
	loop_call(f.client_loop, start_call, c);
}

static inline void wait_for(struct call *c)
{
	pthread_mutex_lock(&c->lock);
	while (!c->done)
		pthread_cond_wait(&c->cond, &c->lock);
	pthread_mutex_unlock(&c->lock);
}

static inline void end(struct call *c)
{
	pthread_mutex_destroy(&c->lock);
	pthread_cond_destroy(&c->cond);
	buf_fini(&c->message);
	buf_fini(&c->response);
	memset(c, 0, sizeof(*c));
}

static inline void sync_call(struct call *c, const char *path, struct bytes message)
{
	begin(c, path, &message, 1);
	wait_for(c);
}

/* Wait at most a minute for a number on the server's side. */
static inline void wait_until(const _Atomic int *n, int want)
{
	for (int i = 0; i < 60000 && atomic_load(n) < want; i++)
		usleep(1000);
	assert_int_equal(atomic_load(n), want);
}

static inline uint8_t *pattern(size_t n)
{
	uint8_t *p = xmalloc(n + 1);

	for (size_t i = 0; i < n; i++)
		p[i] = (uint8_t)(i * 31 + (i >> 8) * 7 + (i >> 16));
	return p;
}

#endif
