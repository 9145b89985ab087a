/* SPDX-License-Identifier: Apache-2.0
 *
 * http_fixture.h - for test_http_server.c: the server under test and a raw-socket client, or one of
 * OpenSSL's with HTTP_OVER_TLS. Included once, after the headers of the test.
 */
#ifndef TESTS_UNIT_HTTP_FIXTURE_H
#define TESTS_UNIT_HTTP_FIXTURE_H

#ifdef HTTP_OVER_TLS
#include "tests/unit/certificates.h"

#include <openssl/err.h>
#include <openssl/ssl.h>

static char cert_path[64], key_path[64];
static SSL_CTX *client_ctx;
#endif

/* ---- the server under test ---- */

enum { MAX_WAITING = 20000 };

static struct {
	struct loop *loop;
	struct http_server *server;
	struct http_settings settings;
	struct budget budget;
	int listen_fd;
	uint16_t port;
	_Atomic unsigned handled, gone[3], taken, late;
	/* What /hold keeps, for tests to answer from other threads. */
	pthread_mutex_t lock;
	pthread_cond_t cond;
	struct http_request *waiting[MAX_WAITING];
	size_t n_waiting;
	bool is_over;
} fx = { .lock = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER };

static void echo(struct http_request *req, void *arg)
{
	struct rcbuf *body = req->body;

	(void)arg;
	fx.handled++;
	req->body = NULL;
	http_respond(req, &(struct http_answer){ .status = 200, .shared = body });
}

static void count(struct http_request *req, void *arg)
{
	(void)arg;
	fx.handled++;
	http_respond_text(req, 200, "%zu", req->body ? req->body->n : 0);
}

static void text(struct http_request *req, void *arg)
{
	const char *n = http_request_param(req, "n");
	size_t size = n ? (size_t)atol(n) : 5;
	char *p = xmalloc(size + 1);

	(void)arg;
	memset(p, 'a', size);
	http_respond(req, &(struct http_answer){
				  .status = 200,
				  .content_type = "text/plain",
				  .headers = &(struct http_header){ "X-Test", "yes" },
				  .n_headers = 1,
				  .body = { (const uint8_t *)p, size },
			  });
	free(p);
}

static void describe(struct http_request *req, void *arg)
{
	const char *q = http_request_param(req, "q"),
		   *h = http_request_header(req, "x-scope-orgid");

	(void)arg;
	http_respond_text(req, 200, "%s %s rest=%s q=%s h=%s json=%d", req->method, req->path,
			  req->rest, q ? q : "-", h ? h : "-",
			  http_request_is_type(req, "application/json"));
}

static void on_gone(struct http_request *req, enum http_gone why, void *arg)
{
	(void)req;
	(void)arg;
	fx.gone[why]++;
}

static void hold(struct http_request *req, void *arg)
{
	(void)arg;
	fx.handled++;
	http_request_on_gone(req, on_gone, NULL);
	pthread_mutex_lock(&fx.lock);
	assert(fx.n_waiting < MAX_WAITING);
	fx.waiting[fx.n_waiting++] = http_request_ref(req);
	pthread_cond_signal(&fx.cond);
	pthread_mutex_unlock(&fx.lock);
}

static void refuse_type(struct http_request *req, void *arg)
{
	(void)arg;
	http_respond_error(req, 415, 0, "never this type");
}

static void shaped_error(const struct http_request *req, int status, const char *message,
			 struct buf *body, const char **type, void *arg)
{
	(void)req;
	(void)arg;
	buf_printf(body, "{\"code\":%d,\"message\":\"%s\"}", status, message);
	*type = "application/json";
}

static void silent(struct http_request *req, void *arg)
{
	(void)req;
	(void)arg;
}

static const struct http_route routes[] = {
	{ .method = "POST", .path = "/echo", .handler = echo },
	{ .method = "POST", .path = "/count", .handler = count },
	{ .method = "POST",
	  .path = "/small",
	  .max_body = 1000,
	  .handler = count,
	  .error = shaped_error },
	{ .method = "GET", .path = "/text", .handler = text },
	{ .method = "GET", .path = "/api/traces/", .is_prefix = true, .handler = describe },
	{ .method = "GET", .path = "/both", .handler = describe },
	{ .method = "PUT", .path = "/both", .handler = describe },
	{ .method = "POST", .path = "/hold", .handler = hold },
	{ .method = "POST", .path = "/typed", .begin = refuse_type, .handler = count },
	{ .method = "GET", .path = "/silent", .handler = silent },
};

static void make_server(void *arg)
{
	struct err err = ERR_INIT;

	(void)arg;
	fx.server = http_server_new(fx.loop, fx.listen_fd, &fx.settings, routes, COUNT_OF(routes),
				    &err);
	if (fx.server == NULL)
		fprintf(stderr, "%s\n", err.msg);
}

static void free_server(void *arg)
{
	(void)arg;
	http_server_free(fx.server);
	fx.server = NULL;
}

static void start_with(struct http_settings settings)
{
	struct err err = ERR_INIT;

	fx.settings = settings;
	fx.settings.budget = &fx.budget;
#ifdef HTTP_OVER_TLS
	fx.settings.tls = tls_new_server(&(struct tls_settings){ .cert_file = cert_path,
								 .key_file = key_path,
								 .alpn = "http/1.1" },
					 &err);
	assert_non_null(fx.settings.tls);
#endif
	fx.budget = (struct budget)BUDGET_INIT(256 << 20);
	fx.handled = fx.taken = fx.late = 0;
	fx.gone[0] = fx.gone[1] = fx.gone[2] = 0;
	fx.n_waiting = 0;
	fx.is_over = false;
	fx.loop = loop_new(0, &err);
	assert_non_null(fx.loop);
	assert_int_equal(loop_start(fx.loop, &err), 0);
	if (listen_open("127.0.0.1:0", &fx.listen_fd, 1, &err) < 0)
		fail_msg("%s", err.msg);
	fx.port = listen_port(fx.listen_fd);
	loop_call(fx.loop, make_server, NULL);
	assert_non_null(fx.server);
}

static void start(void)
{
	start_with((struct http_settings)HTTP_SETTINGS_INIT);
}

static void stop(void)
{
	loop_call(fx.loop, free_server, NULL);
	loop_stop(fx.loop);
	loop_free(fx.loop);
	close(fx.listen_fd);
	tls_free(fx.settings.tls);
	for (size_t i = 0; i < fx.n_waiting; i++)
		http_request_unref(fx.waiting[i]);
	fx.n_waiting = 0;
	assert_int_equal(fx.budget.used, 0);
}

/* ---- a client ---- */

struct client {
	int fd;
	struct buf in;
#ifdef HTTP_OVER_TLS
	SSL *ssl;
#endif
};

struct reply {
	int status; /* 0: end of file, -1: reset or time-out */
	char head[2048];
	struct buf body;
};

static struct client open_client(void)
{
	struct client c = { .fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0) };
	struct sockaddr_in a = { .sin_family = AF_INET,
				 .sin_port = htons(fx.port),
				 .sin_addr = { htonl(INADDR_LOOPBACK) } };
	struct timeval patience = { .tv_sec = 10 };

	setsockopt(c.fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	setsockopt(c.fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
	if (connect(c.fd, (struct sockaddr *)&a, sizeof(a)) < 0)
		fail_msg("connect: %s", strerror(errno));
#ifdef HTTP_OVER_TLS
	c.ssl = SSL_new(client_ctx);
	SSL_set_fd(c.ssl, c.fd);
	if (SSL_connect(c.ssl) != 1)
		fail_msg("handshake: %s", ERR_error_string(ERR_get_error(), NULL));
#endif
	return c;
}

/* Nothing more is sent, but read. */
static void end_sending(struct client *c)
{
#ifdef HTTP_OVER_TLS
	SSL_shutdown(c->ssl);
#endif
	shutdown(c->fd, SHUT_WR);
}

static void close_client(struct client *c)
{
#ifdef HTTP_OVER_TLS
	SSL_free(c->ssl);
#endif
	close(c->fd);
	buf_fini(&c->in);
}

/* 0, or the errno that stopped it. */
static int put(struct client *c, const void *p, size_t n)
{
	while (n > 0) {
#ifdef HTTP_OVER_TLS
		ssize_t done = SSL_write(c->ssl, p, (int)MIN(n, (size_t)1 << 20));

		if (done <= 0 && errno == 0)
			errno = EPIPE;
		done = MAX(done, -1);
		done -= done == 0;
#else
		ssize_t done = send(c->fd, p, n, MSG_NOSIGNAL);
#endif

		if (done < 0)
			return errno;
		p = (const char *)p + done;
		n -= (size_t)done;
	}
	return 0;
}

static void put_str(struct client *c, const char *s)
{
	assert_int_equal(put(c, s, strlen(s)), 0);
}

static void put_request(struct client *c, const char *path, const char *headers, struct bytes body)
{
	struct buf b = BUF_INIT;

	buf_printf(&b, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %zu\r\n%s\r\n", path, body.n,
		   headers);
	buf_add_bytes(&b, body);
	assert_int_equal(put(c, b.p, b.n), 0);
	buf_fini(&b);
}

/* More input: 1, 0 end of file, -1 error. */
static int fill(struct client *c)
{
#ifdef HTTP_OVER_TLS
	ssize_t n = SSL_read(c->ssl, buf_reserve(&c->in, 65536), 65536);

	/* An end without a goodbye is an error. */
	if (n <= 0)
		n = SSL_get_error(c->ssl, (int)n) == SSL_ERROR_ZERO_RETURN ? 0 : -1;
#else
	ssize_t n = recv(c->fd, buf_reserve(&c->in, 65536), 65536, 0);
#endif

	if (n > 0)
		c->in.n += (size_t)n;
	return n > 0 ? 1 : (int)n;
}

static void drop_input(struct client *c, size_t n)
{
	memmove(c->in.p, c->in.p + n, c->in.n - n);
	c->in.n -= n;
}

static struct reply take(struct client *c)
{
	struct reply r = { 0 };
	const char *end = NULL, *length = NULL;
	size_t head = 0, body = 0;
	int rc = 1;

	while ((end = strstr(buf_cstr(&c->in), "\r\n\r\n")) == NULL)
		if ((rc = fill(c)) <= 0) {
			r.status = c->in.n > 0 ? -1 : rc;
			return r;
		}
	head = (size_t)(end - (char *)c->in.p) + 4;
	snprintf(r.head, sizeof(r.head), "%.*s", (int)head, (char *)c->in.p);
	r.status = (int)strtol(r.head + strlen("HTTP/1.1 "), NULL, 10);
	length = strstr(r.head, "Content-Length: ");
	body = length ? (size_t)atol(length + strlen("Content-Length: ")) : 0;
	drop_input(c, head);
	while (c->in.n < body && (rc = fill(c)) > 0)
		;
	buf_add(&r.body, c->in.p, MIN(body, c->in.n));
	drop_input(c, MIN(body, c->in.n));
	return r;
}

/* Read one answer and check it. body NULL: any. */
static void expect(struct client *c, int status, const char *body)
{
	struct reply r = take(c);

	if (r.status != status)
		fail_msg("status %d, want %d: %s%s", r.status, status, r.head, buf_cstr(&r.body));
	if (body != NULL && strcmp(buf_cstr(&r.body), body) != 0)
		fail_msg("body '%s', want '%s'", buf_cstr(&r.body), body);
	buf_fini(&r.body);
}

static void expect_eof(struct client *c)
{
	int rc = 1;

	while (rc > 0 && c->in.n == 0)
		rc = fill(c);
	if (rc != 0 || c->in.n > 0)
		fail_msg("rc %d (%s), %zu bytes: want a clean end", rc, strerror(errno), c->in.n);
}

#endif
