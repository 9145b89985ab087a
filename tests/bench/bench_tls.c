/* SPDX-License-Identifier: Apache-2.0
 *
 * bench_tls.c - what TLS costs the OTLP/HTTP receiver, beside plain text.
 *
 *   this process, other CPU      4 connections in turn, one request under way on each
 *   spanmill, server CPU         otlp receiver -> nop, a plain listener and one with TLS
 *
 * CPU of the whole process per span (requests of 100 KB), per request (of one span, 0.5 KB), and
 * per connection (TLS 1.3, P-256, no resumption, one small request each). Best of 5, plain and TLS
 * in turn. No targets: the figures are for whoever chooses. Every answer must be 200 and every span
 * accepted.
 */
#include "base/buf.h"
#include "tests/bench/child.h"
#include "tests/bench/payload.h"
#include "tests/bench/report.h"

#include <arpa/inet.h>
#include <assert.h>
#include <netinet/tcp.h>
#include <openssl/ssl.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "tests/unit/certificates.h"

enum { ROUNDS = 5, CONNECTIONS = 4, LARGE = 800, SMALL = 8000, FRESH = 800 };

struct client {
	int fd;
	SSL *ssl; /* NULL: plain */
};

static struct child child;
static uint16_t plain_port, tls_port;
static SSL_CTX *ctx;
static struct buf large = BUF_INIT, small = BUF_INIT;
static uint64_t n_sent;

static void die(const char *what)
{
	fprintf(stderr, "bench_tls: %s\n", what);
	exit(2);
}

/* ---- a client ---- */

static struct client client_open(bool tls)
{
	struct client c = { .fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0) };
	struct sockaddr_in a = { .sin_family = AF_INET,
				 .sin_port = htons(tls ? tls_port : plain_port),
				 .sin_addr = { htonl(INADDR_LOOPBACK) } };
	int on = 1;

	if (connect(c.fd, (struct sockaddr *)&a, sizeof(a)) < 0)
		die("connect");
	setsockopt(c.fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	if (!tls)
		return c;
	c.ssl = SSL_new(ctx);
	SSL_set_fd(c.ssl, c.fd);
	if (SSL_connect(c.ssl) != 1)
		die("handshake");
	return c;
}

static void client_close(struct client *c)
{
	if (c->ssl != NULL)
		SSL_shutdown(c->ssl);
	SSL_free(c->ssl);
	close(c->fd);
}

static void put(struct client *c, struct bytes b)
{
	while (b.n > 0) {
		ssize_t n = c->ssl != NULL ? SSL_write(c->ssl, b.p, (int)b.n)
					   : send(c->fd, b.p, b.n, MSG_NOSIGNAL);

		if (n <= 0)
			die("write");
		b = (struct bytes){ b.p + n, b.n - (size_t)n };
	}
}

/* The answer to a request that all spans were taken of has no body. */
static void take(struct client *c)
{
	char head[4096];
	size_t n = 0;

	head[0] = '\0';
	while (strstr(head, "\r\n\r\n") == NULL) {
		size_t room = sizeof(head) - 1 - n;
		ssize_t got = c->ssl != NULL ? SSL_read(c->ssl, head + n, (int)room)
					     : recv(c->fd, head + n, room, 0);

		if (got <= 0)
			die("read");
		n += (size_t)got;
		head[n] = '\0';
	}
	if (strncmp(head, "HTTP/1.1 200 ", 13) != 0 || strstr(head, "Content-Length: 0") == NULL)
		die(head);
}

/* ---- runs ---- */

static void make_request(struct buf *out, uint32_t n_spans)
{
	struct buf body = BUF_INIT;

	payload_request(&body, n_spans, 1);
	buf_printf(out,
		   "POST /v1/traces HTTP/1.1\r\nHost: x\r\n"
		   "Content-Type: application/x-protobuf\r\nContent-Length: %zu\r\n\r\n",
		   body.n);
	buf_add_bytes(out, buf_bytes(&body));
	buf_fini(&body);
}

/* CPU of the server for n requests on connections that last, ns per span. */
static double lasting(bool tls, const struct buf *request, uint32_t n, uint32_t n_spans)
{
	struct client c[CONNECTIONS];
	double cpu;

	for (size_t i = 0; i < CONNECTIONS; i++) {
		c[i] = client_open(tls);
		put(&c[i], buf_bytes(request));
	}
	for (size_t i = 0; i < CONNECTIONS; i++)
		take(&c[i]);
	cpu = -child_cpu_ns(&child);
	for (size_t i = 0; i < CONNECTIONS; i++)
		put(&c[i], buf_bytes(request));
	for (uint32_t i = 0; i < n; i++) {
		take(&c[i % CONNECTIONS]);
		if (i + CONNECTIONS < n)
			put(&c[i % CONNECTIONS], buf_bytes(request));
	}
	cpu += child_cpu_ns(&child);
	for (size_t i = 0; i < CONNECTIONS; i++)
		client_close(&c[i]);
	n_sent += (uint64_t)(n + CONNECTIONS) * n_spans;
	return cpu / n / n_spans;
}

static double fresh(bool tls, const struct buf *request, uint32_t n)
{
	double cpu = -child_cpu_ns(&child);

	for (uint32_t i = 0; i < n; i++) {
		struct client c = client_open(tls);

		put(&c, buf_bytes(request));
		take(&c);
		client_close(&c);
	}
	cpu += child_cpu_ns(&child);
	n_sent += n;
	return cpu / n;
}

static void measure(double best[3][2])
{
	for (int round = 0; round < ROUNDS; round++)
		for (int tls = 0; tls < 2; tls++) {
			report_progress("round %d of %d", round + 1, ROUNDS);
			report_keep_best(&best[0][tls], lasting(tls, &large, LARGE, PAYLOAD_SPANS));
			report_keep_best(&best[1][tls], lasting(tls, &small, SMALL, 1));
			report_keep_best(&best[2][tls], fresh(tls, &small, FRESH));
		}
}

/* ---- the process under test ---- */

static void start(const char *folder)
{
	char config[2048], cert[128], key[128];

	snprintf(cert, sizeof(cert), "%s/server.pem", folder);
	snprintf(key, sizeof(key), "%s/server.key", folder);
	make_certificate("IP:127.0.0.1", cert, key);
	plain_port = child_free_port();
	tls_port = child_free_port();
	snprintf(config, sizeof(config),
		 "receivers: {otlp: {protocols: {http: {endpoint: '127.0.0.1:%u'}}},"
		 " otlp/tls: {protocols: {http: {endpoint: '127.0.0.1:%u',"
		 " tls: {cert_file: '%s', key_file: '%s'}}}}}\n"
		 "exporters: {nop: }\n"
		 "service: {telemetry: {metrics: {level: none}},"
		 " pipelines: {traces: {receivers: [otlp, otlp/tls], exporters: [nop]}}}\n",
		 plain_port, tls_port, cert, key);
	child_start(&child, folder, "tls", "run", config);
	child_wait_listening(&child, (uint16_t[]){ plain_port, tls_port, 0 });
	ctx = SSL_CTX_new(TLS_client_method());
	SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
	if (SSL_CTX_load_verify_locations(ctx, cert, NULL) != 1)
		die("certificate");
}

int main(void)
{
	double best[3][2] = { { 0 } };
	struct child_balance b;
	char folder[64];

	make_request(&large, PAYLOAD_SPANS);
	make_request(&small, 1);
	child_folder(folder, sizeof(folder));
	child_pin(CHILD_LOAD_CPU);
	start(folder);
	measure(best);
	report_beside("OTLP/HTTP with TLS, 100 KB requests", best[0][1], "ns/span", "plain text",
		      best[0][0]);
	report_beside("OTLP/HTTP with TLS, requests of one span", best[1][1] / 1000, "us/req",
		      "plain text", best[1][0] / 1000);
	report_beside("OTLP/HTTP with TLS, a connection and one request", best[2][1] / 1000, "us",
		      "plain text", best[2][0] / 1000);
	child_stop(&child, &b);
	if (b.accepted != n_sent || b.delivered != n_sent)
		die("not all spans were accepted");
	SSL_CTX_free(ctx);
	buf_fini(&large);
	buf_fini(&small);
	child_folder_remove(folder);
	return 0;
}
