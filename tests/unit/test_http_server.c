/* SPDX-License-Identifier: Apache-2.0
 *
 * test_http_server.c - the HTTP server on a loop of its own, driven with raw sockets from here.
 */
#include "net/content_coding.h"
#include "net/http_server.h"
#include "net/listen.h"

#include "base/clock.h"
#include "base/mem.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/unit/http_fixture.h"

/* ---- tests ---- */

static void keep_alive_and_pipelining_keep_order(void **state)
{
	struct client c;

	(void)state;
	start();
	c = open_client();
	for (int i = 0; i < 100; i++) {
		put_request(&c, "/echo", "", BYTES_LIT("hello"));
		expect(&c, 200, "hello");
	}
	for (int i = 0; i < 50; i++)
		for (int k = 0; k < 8; k++) {
			char body[16];

			snprintf(body, sizeof(body), "n%d", i * 8 + k);
			put_request(&c, "/echo", "", bytes_str(body));
		}
	for (int i = 0; i < 400; i++) {
		char body[16];

		snprintf(body, sizeof(body), "n%d", i);
		expect(&c, 200, body);
	}
	assert_int_equal(fx.handled, 500);
	close_client(&c);
	stop();
}

static const struct {
	const char *name, *request;
	int status;
	const char *body;   /* NULL: any */
	const char *header; /* in the head; NULL: any */
	bool closes;
} cases[] = {
	{ "text", "GET /text HTTP/1.1\r\nHost: x\r\n\r\n", 200, "aaaaa", "X-Test: yes", false },
	{ "empty body", "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", 200, "",
	  NULL, false },
	{ "no length is no body", "POST /echo HTTP/1.1\r\nHost: x\r\n\r\n", 200, "", NULL, false },
	{ "prefix, parameters, headers",
	  "GET /api/traces/0a1b?q=a%20b&q=2 HTTP/1.1\r\nHost: x\r\nX-Scope-OrgID: t1\r\n\r\n", 200,
	  "GET /api/traces/0a1b rest=0a1b q=a b h=t1 json=0", NULL, false },
	{ "percent-decoded path",
	  "GET /api/traces/%30 HTTP/1.1\r\nHost: x\r\nContent-Type: "
	  "Application/JSON;charset=x\r\n\r\n",
	  200, "GET /api/traces/0 rest=0 q=- h=- json=1", NULL, false },
	{ "unknown path", "GET /nope HTTP/1.1\r\nHost: x\r\n\r\n", 404, "404 page not found\n",
	  NULL, false },
	{ "unknown path with a body",
	  "POST /nope HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc", 404, NULL, NULL,
	  false },
	{ "wrong method", "GET /echo HTTP/1.1\r\nHost: x\r\n\r\n", 405,
	  "405 method not allowed, supported: [POST]\n", "Allow: POST", false },
	{ "wrong method of two", "POST /both HTTP/1.1\r\nHost: x\r\n\r\n", 405, NULL,
	  "Allow: GET, HEAD, PUT", false },
	{ "NUL in the path", "GET /api/traces/a%00b HTTP/1.1\r\nHost: x\r\n\r\n", 400, NULL,
	  "Connection: close", true },
	{ "%00 in a parameter is a byte", "GET /text?n=5&x=%00 HTTP/1.1\r\nHost: x\r\n\r\n", 200,
	  "aaaaa", NULL, false },
	{ "two lengths",
	  "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
	  400, NULL, NULL, true },
	{ "length and chunked",
	  "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n"
	  "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
	  400, NULL, NULL, true },
	{ "gzip as transfer coding",
	  "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, "
	  "chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
	  501, NULL, NULL, true },
	{ "unknown content coding",
	  "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Encoding: br\r\n\r\nabc",
	  415, "unsupported Content-Encoding: br\n", "Accept-Encoding: gzip", false },
	{ "damaged gzip",
	  "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Encoding: "
	  "gzip\r\n\r\nabc",
	  400, NULL, NULL, false },
	{ "begin refuses", "POST /typed HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc", 415,
	  "never this type\n", NULL, false },
	{ "wrong method in the route's error form", "GET /small HTTP/1.1\r\nHost: x\r\n\r\n", 405,
	  "{\"code\":405,\"message\":\"405 method not allowed, supported: [POST]\"}",
	  "Content-Type: application/json", false },
	{ "handler without an answer", "GET /silent HTTP/1.1\r\nHost: x\r\n\r\n", 500, NULL, NULL,
	  false },
	{ "chunked",
	  "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: Chunked\r\n\r\n"
	  "3\r\nabc\r\n4;ext=1\r\ndefg\r\n0\r\nTrailer: x\r\n\r\n",
	  200, "abcdefg", NULL, false },
	{ "not HTTP", "GET /text GARBAGE/7\r\n\r\n", 400, NULL, NULL, true },
	{ "TLS on a plain port", "\x16\x03\x01\x02garbage\r\n\r\n", 0, NULL, NULL, false },
	{ "chunk size is junk",
	  "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n", 400,
	  NULL, NULL, true },
};

static void requests_are_checked(void **state)
{
	(void)state;
	start();
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		struct client c = open_client();
		struct reply r;

		put_str(&c, cases[i].request);
		r = take(&c);
		if (r.status != cases[i].status ||
		    (cases[i].body && strcmp(buf_cstr(&r.body), cases[i].body) != 0) ||
		    (cases[i].header && strstr(r.head, cases[i].header) == NULL))
			fail_msg("%s: %s%s", cases[i].name, r.head, buf_cstr(&r.body));
		buf_fini(&r.body);
		if (cases[i].closes) {
			expect_eof(&c);
		} else if (r.status != 0) {
			put_request(&c, "/echo", "", BYTES_LIT("again"));
			expect(&c, 200, "again");
		}
		close_client(&c);
	}
	stop();
}

static void head_is_get_without_a_body(void **state)
{
	struct client c;
	struct reply r;

	(void)state;
	start();
	c = open_client();
	put_str(&c, "HEAD /text?n=7 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
	while (fill(&c) > 0)
		;
	r = take(&c);
	assert_int_equal(r.status, 200);
	assert_non_null(strstr(r.head, "Content-Length: 7"));
	assert_int_equal(c.in.n, 0);
	buf_fini(&r.body);
	close_client(&c);
	stop();
}

static void answers_are_gzipped_when_asked(void **state)
{
	struct client c;
	struct reply r;
	struct rcbuf *plain = NULL;

	(void)state;
	start();
	c = open_client();
	put_str(&c, "GET /text?n=100000 HTTP/1.1\r\nHost: x\r\nAccept-Encoding: br, gzip\r\n\r\n");
	r = take(&c);
	assert_non_null(strstr(r.head, "Content-Encoding: gzip"));
	assert_true(r.body.n < 2000);
	assert_int_equal(
		content_decode(CONTENT_GZIP, buf_bytes(&r.body), 1 << 20, NULL, &plain, NULL), 0);
	assert_int_equal(plain->n, 100000);
	rcbuf_unref(plain);
	buf_fini(&r.body);
	put_str(&c, "GET /text?n=1000 HTTP/1.1\r\nHost: x\r\nAccept-Encoding: gzip\r\n\r\n");
	r = take(&c);
	assert_null(strstr(r.head, "Content-Encoding"));
	assert_int_equal(r.body.n, 1000);
	buf_fini(&r.body);
	close_client(&c);
	stop();
}

static void fill_text(struct buf *b, size_t n)
{
	unsigned x = 1;

	while (b->n < n)
		buf_printf(b, "span %u;", x = x * 1103515245u + 12345u);
	b->n = n;
}

static void coded_bodies_are_inflated(void **state)
{
	static const size_t sizes[] = { 1, 3000, 200000, 5000000 };

	(void)state;
	start();
	for (int coding = CONTENT_GZIP; coding <= CONTENT_LZ4; coding++)
		for (size_t i = 0; i < COUNT_OF(sizes); i++) {
			struct client c = open_client();
			struct buf plain = BUF_INIT, coded = BUF_INIT;
			struct reply r;
			char header[64];

			fill_text(&plain, sizes[i]);
			content_encode(coding, 0, buf_bytes(&plain), &coded, NULL);
			snprintf(header, sizeof(header), "Content-Encoding: %s\r\n",
				 content_coding_name(coding));
			put_request(&c, "/echo", header, buf_bytes(&coded));
			r = take(&c);
			assert_int_equal(r.status, 200);
			assert_true(bytes_eq(buf_bytes(&r.body), buf_bytes(&plain)));
			buf_fini(&r.body);
			buf_fini(&plain);
			buf_fini(&coded);
			close_client(&c);
		}
	stop();
}

static void put_chunk(struct buf *b, struct bytes data)
{
	buf_printf(b, "%zx\r\n", data.n);
	buf_add_bytes(b, data);
	buf_add_str(b, "\r\n");
}

static void chunked_bodies_grow(void **state)
{
	struct buf body = BUF_INIT, wire = BUF_INIT;
	struct client c;
	struct reply r;

	(void)state;
	start();
	c = open_client();
	fill_text(&body, 3000000);
	buf_add_str(&wire, "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
	for (size_t at = 0, n = 1; at < body.n; at += n, n = n * 3 % 70001)
		put_chunk(&wire, (struct bytes){ body.p + at, n = MIN(n, body.n - at) });
	buf_add_str(&wire, "0\r\n\r\n");
	assert_int_equal(put(&c, wire.p, wire.n), 0);
	r = take(&c);
	assert_int_equal(r.status, 200);
	assert_true(bytes_eq(buf_bytes(&r.body), buf_bytes(&body)));
	buf_fini(&r.body);
	buf_fini(&body);
	buf_fini(&wire);
	close_client(&c);
	stop();
}

static void expect_100_continue(void **state)
{
	struct client c;

	(void)state;
	start();
	c = open_client();
	put_str(&c, "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n"
		    "Expect: 100-continue\r\n\r\n");
	expect(&c, 100, NULL);
	put_str(&c, "hello");
	expect(&c, 200, "hello");
	/* Refused: no 100, nothing needs to be sent. */
	put_str(&c, "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 50000000\r\n"
		    "Expect: 100-continue\r\n\r\n");
	expect(&c, 413, NULL);
	expect_eof(&c);
	close_client(&c);
	stop();
}

/* The client sends everything before it reads. */
static void send_all_then_expect(const char *head, size_t body, bool chunked, int status,
				 bool closes)
{
	struct client c = open_client();
	static uint8_t zeros[65536];
	uint64_t begin = clock_mono_ns();
	int rc = 0;

	put_str(&c, head);
	for (size_t at = 0; rc == 0 && at < body; at += sizeof(zeros)) {
		if (chunked)
			rc = put(&c, "10000\r\n", 7);
		if (rc == 0)
			rc = put(&c, zeros, sizeof(zeros));
		if (rc == 0 && chunked)
			rc = put(&c, "\r\n", 2);
	}
	if (rc == 0 && chunked)
		rc = put(&c, "0\r\n\r\n", 5);
	if (rc != 0)
		fail_msg("sending %zu bytes: %s", body, strerror(rc));
	expect(&c, status, NULL);
	if (closes) {
		expect_eof(&c);
	} else {
		put_request(&c, "/echo", "", BYTES_LIT("again"));
		expect(&c, 200, "again");
	}
	close_client(&c);
	assert_true(clock_mono_ns() - begin < 50 * NS_PER_S);
}

static void clients_that_do_not_read_see_the_413(void **state)
{
	(void)state;
	start();
	for (int i = 0; i < 10; i++) {
		/* Content-Length just over, far over; chunked just over and far over. */
		send_all_then_expect(
			"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 20971584\r\n\r\n",
			20971584 - 64, false, 413, true);
		send_all_then_expect(
			"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 31457280\r\n\r\n",
			31457280, false, 413, true);
		send_all_then_expect(
			"POST /small HTTP/1.1\r\nHost: x\r\nContent-Length: 65536\r\n\r\n", 65536,
			false, 413, false);
		send_all_then_expect(
			"POST /small HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
			65536, true, 413, false);
		send_all_then_expect(
			"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
			30 << 20, true, 413, true);
		send_all_then_expect(
			"POST /nope HTTP/1.1\r\nHost: x\r\nContent-Length: 31457280\r\n\r\n",
			31457280, false, 404, true);
	}
	assert_true(fx.budget.peak < 60 << 20);
	stop();
}

static void bomb_is_answered_413(void **state)
{
	const char *dir = getenv("SPANMILL_GOLDEN");
	struct buf bomb = BUF_INIT;
	struct client c;
	char path[512];
	FILE *f = NULL;

	(void)state;
	snprintf(path, sizeof(path), "%s/otlp/derived/bomb-256MiB.gz",
		 dir ? dir : "../shared/golden");
	f = fopen(path, "rb");
	if (f == NULL) {
		printf("skipped: no golden data\n");
		return;
	}
	bomb.n = fread(buf_reserve(&bomb, 1 << 20), 1, 1 << 20, f);
	fclose(f);
	start();
	c = open_client();
	put_request(&c, "/count", "Content-Encoding: gzip\r\n", buf_bytes(&bomb));
	expect(&c, 413, NULL);
	assert_true(fx.budget.peak < 22 << 20);
	put_request(&c, "/echo", "", BYTES_LIT("alive"));
	expect(&c, 200, "alive");
	close_client(&c);
	buf_fini(&bomb);
	stop();
}

static void spent_budget_is_503_and_holds_nothing(void **state)
{
	struct client c;
	struct reply r;
	static uint8_t body[300000];

	(void)state;
	start();
	c = open_client();
	put_request(&c, "/count", "", BYTES_LIT("x"));
	expect(&c, 200, "1");
	budget_force(&fx.budget, 256 << 20);
	put_request(&c, "/count", "", (struct bytes){ body, sizeof(body) });
	r = take(&c);
	assert_int_equal(r.status, 503);
	assert_non_null(strstr(r.head, "Retry-After: 1"));
	buf_fini(&r.body);
	put_str(&c, "POST /count HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
		    "3\r\nabc\r\n0\r\n\r\n");
	expect(&c, 503, NULL);
	assert_int_equal(fx.handled, 1);
	budget_release(&fx.budget, 256 << 20);
	put_request(&c, "/count", "", (struct bytes){ body, sizeof(body) });
	expect(&c, 200, "300000");
	/* More than all of it: 413, for ever. */
	fx.budget.limit = 200000;
	put_request(&c, "/count", "", (struct bytes){ body, sizeof(body) });
	expect(&c, 413, NULL);
	close_client(&c);
	stop();
}

/* ---- held answers ---- */

static void complete(struct http_request *req, void *arg)
{
	(void)arg;
	if (http_respond_text(req, 200, "done") == 0)
		fx.taken++;
	else
		fx.late++;
}

/* Answer what waits, each after some delay, until told to end. */
static void *completer(void *arg)
{
	unsigned seed = (unsigned)(uintptr_t)arg;

	for (;;) {
		struct http_request *req = NULL;

		pthread_mutex_lock(&fx.lock);
		while (fx.n_waiting == 0 && !fx.is_over)
			pthread_cond_wait(&fx.cond, &fx.lock);
		if (fx.n_waiting > 0)
			req = fx.waiting[--fx.n_waiting];
		pthread_mutex_unlock(&fx.lock);
		if (req == NULL)
			return NULL;
		if (rand_r(&seed) % 8 == 0)
			usleep((unsigned)rand_r(&seed) % 3000);
		http_request_call(req, complete, NULL);
		http_request_unref(req);
	}
}

struct load {
	int requests;
	unsigned ok, refused, other;
};

static void *hold_client(void *arg)
{
	struct load *l = arg;
	struct client c = open_client();

	for (int i = 0; i < l->requests; i += 4) {
		for (int k = 0; k < 4; k++)
			put_request(&c, "/hold", "", BYTES_LIT("x"));
		for (int k = 0; k < 4; k++) {
			struct reply r = take(&c);

			if (r.status == 200)
				l->ok++;
			else if (r.status == 503)
				l->refused++;
			else
				l->other++;
			buf_fini(&r.body);
		}
	}
	close_client(&c);
	return NULL;
}

static void held_answers_race_their_deadline(void **state)
{
	enum { CLIENTS = 16, EACH = 640 };
	struct http_settings set = HTTP_SETTINGS_INIT;
	pthread_t clients[CLIENTS], workers[2];
	struct load loads[CLIENTS] = { { 0 } };
	unsigned ok = 0, refused = 0, other = 0;

	(void)state;
	set.hold_timeout_ms = 4;
	start_with(set);
	for (size_t i = 0; i < 2; i++)
		pthread_create(&workers[i], NULL, completer, (void *)(i + 1));
	for (size_t i = 0; i < CLIENTS; i++) {
		loads[i].requests = EACH;
		pthread_create(&clients[i], NULL, hold_client, &loads[i]);
	}
	for (size_t i = 0; i < CLIENTS; i++) {
		pthread_join(clients[i], NULL);
		ok += loads[i].ok;
		refused += loads[i].refused;
		other += loads[i].other;
	}
	pthread_mutex_lock(&fx.lock);
	fx.is_over = true;
	pthread_cond_broadcast(&fx.cond);
	pthread_mutex_unlock(&fx.lock);
	for (size_t i = 0; i < 2; i++)
		pthread_join(workers[i], NULL);
	stop();
	printf("held: %u 200, %u 503, %u late completions, %u told of the deadline\n", ok, refused,
	       fx.late, fx.gone[HTTP_GONE_DEADLINE]);
	assert_int_equal(other, 0);
	assert_int_equal(ok + refused, CLIENTS * EACH);
	assert_int_equal(fx.handled, CLIENTS * EACH);
	assert_int_equal(ok, fx.taken);
	assert_int_equal(refused, fx.late);
	assert_int_equal(refused, fx.gone[HTTP_GONE_DEADLINE]);
	assert_true(ok > 0 && refused > 0);
}

/* Clients that stop anywhere: half a request, a request and no reading, reset or close. */
static void *rude_client(void *arg)
{
	static const char script[] =
		"POST /hold HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"
		"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: "
		"chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
		"POST /nope HTTP/1.1\r\nHost: x\r\nContent-Length: 9000000\r\n\r\nabc";
	unsigned seed = (unsigned)(uintptr_t)arg;

	for (int i = 0; i < 300; i++) {
		struct client c = open_client();
		struct linger reset = { .l_onoff = 1, .l_linger = 0 };
		size_t from = rand_r(&seed) % 2 ? 0 : 67 * (rand_r(&seed) % 2);

		put(&c, script + from, 1 + (size_t)rand_r(&seed) % (sizeof(script) - 1 - from));
		if (rand_r(&seed) % 3 == 0)
			usleep((unsigned)rand_r(&seed) % 2000);
		if (rand_r(&seed) % 3 == 0)
			end_sending(&c);
		if (rand_r(&seed) % 2)
			setsockopt(c.fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
		close_client(&c);
	}
	return NULL;
}

static void rude_clients_harm_nobody(void **state)
{
	enum { CLIENTS = 8 };
	struct http_settings set = HTTP_SETTINGS_INIT;
	pthread_t clients[CLIENTS], workers[2];
	struct client c;

	(void)state;
	set.hold_timeout_ms = 3;
	start_with(set);
	for (size_t i = 0; i < 2; i++)
		pthread_create(&workers[i], NULL, completer, (void *)(i + 1));
	for (size_t i = 0; i < CLIENTS; i++)
		pthread_create(&clients[i], NULL, rude_client, (void *)(i + 1));
	for (size_t i = 0; i < CLIENTS; i++)
		pthread_join(clients[i], NULL);
	c = open_client();
	put_request(&c, "/echo", "", BYTES_LIT("alive"));
	expect(&c, 200, "alive");
	close_client(&c);
	pthread_mutex_lock(&fx.lock);
	fx.is_over = true;
	pthread_cond_broadcast(&fx.cond);
	pthread_mutex_unlock(&fx.lock);
	for (size_t i = 0; i < 2; i++)
		pthread_join(workers[i], NULL);
	printf("rude: %u handled, gone %u client %u deadline %u stop\n", fx.handled, fx.gone[0],
	       fx.gone[1], fx.gone[2]);
	stop();
}

static bool wait_until(_Atomic unsigned *value, unsigned want)
{
	for (int i = 0; i < 60000 && *value < want; i++)
		usleep(1000);
	return *value >= want;
}

static void vanished_client_is_noticed_and_its_answer_dropped(void **state)
{
	struct http_settings set = HTTP_SETTINGS_INIT;
	struct client c;

	(void)state;
	set.hold_timeout_ms = 60000;
	start_with(set);
	c = open_client();
	put_request(&c, "/hold", "", BYTES_LIT("x"));
	assert_true(wait_until(&fx.handled, 1));
	close_client(&c);
	assert_true(wait_until(&fx.gone[HTTP_GONE_CLIENT], 1));
	/* Half-closed clients still get their answer. */
	c = open_client();
	put_request(&c, "/hold", "", BYTES_LIT("x"));
	end_sending(&c);
	assert_true(wait_until(&fx.gone[HTTP_GONE_CLIENT], 2));
	http_request_call(fx.waiting[0], complete, NULL);
	http_request_call(fx.waiting[1], complete, NULL);
	expect(&c, 200, "done");
	expect_eof(&c);
	close_client(&c);
	stop();
	assert_int_equal(fx.gone[HTTP_GONE_DEADLINE], 0);
}

static void stop_answers_50_held_requests(void **state)
{
	struct client c[50];

	(void)state;
	start();
	for (size_t i = 0; i < 50; i++) {
		c[i] = open_client();
		put_request(&c[i], "/hold", "", BYTES_LIT("x"));
	}
	assert_true(wait_until(&fx.handled, 50));
	stop();
	for (size_t i = 0; i < 50; i++) {
		struct reply r = take(&c[i]);

		assert_int_equal(r.status, 503);
		assert_non_null(strstr(r.head, "Connection: close"));
		buf_fini(&r.body);
		expect_eof(&c[i]);
		close_client(&c[i]);
	}
	assert_int_equal(fx.gone[HTTP_GONE_STOP], 50);
}

static _Atomic unsigned drained;

static void when_drained(struct http_server *s, void *arg)
{
	(void)s;
	(void)arg;
	drained++;
}

static void drain_server(void *arg)
{
	(void)arg;
	http_server_drain(fx.server, when_drained, NULL);
}

static void drain_finishes_what_runs(void **state)
{
	struct client idle, busy;
	struct reply r;

	(void)state;
	start();
	drained = 0;
	idle = open_client();
	put_request(&idle, "/echo", "", BYTES_LIT("x"));
	expect(&idle, 200, "x");
	busy = open_client();
	put_request(&busy, "/hold", "", BYTES_LIT("x"));
	assert_true(wait_until(&fx.handled, 2));
	loop_call(fx.loop, drain_server, NULL);
	expect_eof(&idle);
	assert_int_equal(drained, 0);
	http_request_call(fx.waiting[0], complete, NULL);
	r = take(&busy);
	assert_int_equal(r.status, 200);
	assert_non_null(strstr(r.head, "Connection: close"));
	buf_fini(&r.body);
	expect_eof(&busy);
	assert_true(wait_until(&drained, 1));
	close_client(&idle);
	close_client(&busy);
	stop();
}

static void stop_in_the_middle_of_uploads(void **state)
{
	struct client c[10];

	(void)state;
	start();
	for (size_t i = 0; i < 10; i++) {
		c[i] = open_client();
		put_str(&c[i],
			i % 2 ? "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nabc"
			      : "POST /echo HT");
	}
	usleep(50000);
	stop();
	for (size_t i = 0; i < 10; i++)
		close_client(&c[i]);
}

/* ---- time and numbers ---- */

static bool has_input(struct client *c)
{
#ifdef HTTP_OVER_TLS
	char one = 0;
	bool has = false;

	fcntl(c->fd, F_SETFL, fcntl(c->fd, F_GETFL) | O_NONBLOCK);
	has = SSL_peek(c->ssl, &one, 1) > 0;
	fcntl(c->fd, F_SETFL, fcntl(c->fd, F_GETFL) & ~O_NONBLOCK);
	return has;
#else
	return recv(c->fd, (char[1]){ 0 }, 1, MSG_PEEK | MSG_DONTWAIT) > 0;
#endif
}

static void slow_senders_are_cut(void **state)
{
	struct http_settings set = HTTP_SETTINGS_INIT;
	struct client head, body, fresh;
	uint64_t begin = 0;

	(void)state;
	set.read_header_timeout_ms = 300;
	set.body_timeout_ms = 300;
	set.idle_timeout_ms = 300;
	start_with(set);
	fresh = open_client();
	head = open_client();
	body = open_client();
	put_str(&head, "GET /text HTTP/1.1\r\n");
	put_str(&body, "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n");
	begin = clock_mono_ns();
	/* A byte every 20 ms, which is never inactive. */
	for (int i = 0; i < 30; i++) {
		put(&head, "A", 1);
		put(&body, "A", 1);
		usleep(20000);
		if (has_input(&body))
			break;
	}
	expect(&body, 408, NULL);
	expect(&head, 408, NULL);
	expect_eof(&fresh);
	assert_true(clock_mono_ns() - begin < 50 * NS_PER_S);
	close_client(&head);
	close_client(&body);
	close_client(&fresh);
	/* Idle between requests. */
	fresh = open_client();
	put_request(&fresh, "/echo", "", BYTES_LIT("x"));
	expect(&fresh, 200, "x");
	expect_eof(&fresh);
	close_client(&fresh);
	stop();
}

static void ask_connections(void *arg)
{
	*(unsigned *)arg = http_server_connections(fx.server);
}

static void slow_readers_are_cut(void **state)
{
	struct http_settings set = HTTP_SETTINGS_INIT;
	struct client c;
	unsigned open = 1;
	int small = 4096;

	(void)state;
	set.write_timeout_ms = 200;
	start_with(set);
	c = open_client();
	setsockopt(c.fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
	put_str(&c, "GET /text?n=20000000 HTTP/1.1\r\nHost: x\r\n\r\n");
	for (int i = 0; i < 6000 && open > 0; i++) {
		usleep(10000);
		recv(c.fd, (char[10]){ 0 }, 10, MSG_DONTWAIT);
		loop_call(fx.loop, ask_connections, &open);
		open = i < 5 ? 1 : open; /* it takes a moment to arrive */
	}
	assert_int_equal(open, 0);
	close_client(&c);
	stop();
}

static void *limited_client(void *arg)
{
	struct load *l = arg;

	for (int i = 0; i < l->requests; i++) {
		struct client c = open_client();
		struct reply r;

		put_request(&c, "/echo", "Connection: close\r\n", BYTES_LIT("x"));
		r = take(&c);
		l->ok += r.status == 200;
		buf_fini(&r.body);
		close_client(&c);
	}
	return NULL;
}

static void clients_over_the_limit_wait_their_turn(void **state)
{
	enum { CLIENTS = 16 };
	struct http_settings set = HTTP_SETTINGS_INIT;
	struct load loads[CLIENTS] = { { 0 } };
	pthread_t clients[CLIENTS];
	uint64_t begin = clock_mono_ns();

	(void)state;
	set.max_connections = 3;
	start_with(set);
	for (size_t i = 0; i < CLIENTS; i++) {
		loads[i].requests = 50;
		pthread_create(&clients[i], NULL, limited_client, &loads[i]);
	}
	for (size_t i = 0; i < CLIENTS; i++) {
		pthread_join(clients[i], NULL);
		assert_int_equal(loads[i].ok, 50);
	}
	printf("limit of 3: 800 connections in %llu ms\n",
	       (unsigned long long)((clock_mono_ns() - begin) / NS_PER_MS));
	stop();
}

static long rss_kib(void)
{
	FILE *f = fopen("/proc/self/statm", "r");
	long pages = 0;

	if (f == NULL || fscanf(f, "%*s %ld", &pages) != 1)
		pages = 0;
	if (f != NULL)
		fclose(f);
	return pages * (sysconf(_SC_PAGESIZE) / 1024);
}

static void a_thousand_idle_connections(void **state)
{
#ifdef HTTP_OVER_TLS
	enum { N = 500 }; /* a pair of sockets more each */
#else
	enum { N = 1000 }; /* both ends are in this process */
#endif
	static struct client c[N];
	struct rlimit files;
	long before = 0, fresh = 0, used = 0;
	unsigned open = 0;

	(void)state;
	getrlimit(RLIMIT_NOFILE, &files);
	files.rlim_cur = MIN(files.rlim_max, 4096);
	setrlimit(RLIMIT_NOFILE, &files);
	if (files.rlim_cur < 2000 + 50) {
		printf("skipped: %ld descriptors\n", (long)files.rlim_cur);
		return;
	}
	start();
	before = rss_kib();
	for (size_t i = 0; i < N; i++)
		c[i] = open_client();
	for (int i = 0; i < 60000 && open < N; i++) {
		usleep(1000);
		loop_call(fx.loop, ask_connections, &open);
	}
	assert_int_equal(open, N);
	fresh = rss_kib();
	for (size_t i = 0; i < N; i++) {
		put_request(&c[i], "/echo", "", BYTES_LIT("x"));
		expect(&c[i], 200, "x");
	}
	used = rss_kib();
	printf("idle connections, per 1,000: %ld KiB fresh, %ld KiB after one request\n",
	       (fresh - before) * 1000 / N, (used - before) * 1000 / N);
	for (size_t i = 0; i < N; i++)
		close_client(&c[i]);
	stop();
}

static int64_t wait_used_below(int64_t bytes)
{
	for (int i = 0; i < 60000 && fx.budget.used >= bytes; i++)
		usleep(1000);
	return fx.budget.used;
}

/* More idle connections than the budget has room for: they go, a client that has something to say
 * is served, and requests keep their memory. */
static void idle_connections_make_room(void **state)
{
	enum { N = 200 };
	static struct client idle[N];
	unsigned open = N;
	struct client c;

	(void)state;
	start();
	fx.budget.limit = 4 << 20; /* half of it for connections: about 50 */
	for (size_t i = 0; i < N; i++)
		idle[i] = open_client();
	usleep(1000000); /* until then they have hardly come */
	for (int i = 0; i < 3; i++) {
		c = open_client();
		put_request(&c, "/echo", "", BYTES_LIT("x"));
		expect(&c, 200, "x");
		close_client(&c);
	}
	for (int i = 0; i < 60000 && open > 60; i++) {
		usleep(1000);
		loop_call(fx.loop, ask_connections, &open);
	}
	assert_in_range(open, 28, 60); /* 32 whatever the budget says, less one that just left */
	assert_true(fx.budget.used < fx.budget.limit / (fx.settings.tls != NULL ? 2 : 4));
	for (size_t i = 0; i < N; i++)
		close_client(&idle[i]);
	assert_int_equal(wait_used_below(1), 0);
	assert_int_equal(fx.budget.connections, 0);
	stop();
}

/* Who promises much and sends nothing gives way as soon as somebody else needs the memory. */
static void a_body_that_stalls_gives_way(void **state)
{
	struct client stalls, c;
	struct reply r = { 0 };
	uint8_t *body = xcalloc(1, 3 << 20);

	(void)state;
	start();
	fx.budget.limit = 8 << 20;
	stalls = open_client();
	put_str(&stalls, "POST /count HTTP/1.1\r\nHost: x\r\nContent-Length: 5000000\r\n\r\nx");
	for (int i = 0; i < 60000 && fx.budget.used < 5000000; i++)
		usleep(1000);
	for (int i = 0; i < 1200 && r.status != 200; i++) {
		c = open_client();
		put_request(&c, "/count", "Connection: close\r\n", (struct bytes){ body, 3 << 20 });
		r = take(&c);
		assert_true(r.status == 200 || r.status == 503);
		buf_fini(&r.body);
		close_client(&c);
		usleep(50000);
	}
	assert_int_equal(r.status, 200);
	r = take(&stalls);
	assert_int_equal(r.status, 503);
	assert_non_null(strstr(r.head, "Retry-After: 1"));
	buf_fini(&r.body);
	close_client(&stalls);
	free(body);
	stop();
}

static void answer_from_nowhere(void *arg)
{
	(void)arg;
	for (size_t i = 0; i < fx.n_waiting; i++)
		if (http_respond_text(fx.waiting[i], 200, "late") == 0)
			fx.taken++;
		else
			fx.late++;
}

static void references_outlive_the_server(void **state)
{
	struct client c[8];

	(void)state;
	start();
	for (size_t i = 0; i < 8; i++) {
		c[i] = open_client();
		put_request(&c[i], "/hold", "", BYTES_LIT("x"));
	}
	assert_true(wait_until(&fx.handled, 8));
	loop_call(fx.loop, free_server, NULL);
	loop_call(fx.loop, answer_from_nowhere, NULL);
	assert_int_equal(fx.late, 8);
	assert_int_equal(fx.taken, 0);
	for (size_t i = 0; i < 8; i++) {
		expect(&c[i], 503, NULL);
		close_client(&c[i]);
	}
	stop();
}

#ifdef HTTP_OVER_TLS
#define NAME "https_server"

/* A connection that says nothing. */
static int silent_fd(void)
{
	struct sockaddr_in a = { .sin_family = AF_INET,
				 .sin_port = htons(fx.port),
				 .sin_addr = { htonl(INADDR_LOOPBACK) } };
	struct timeval patience = { .tv_sec = 5 };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	return fd;
}

/* They end after their time; and when there are too many the oldest goes, so that others are served
 * although nobody's time is up. */
static void handshakes_are_bounded(void **state)
{
	struct http_settings set = HTTP_SETTINGS_INIT;
	int fds[8];

	(void)state;
	for (int many = 0; many < 2; many++) {
		set.handshake_timeout_ms = many ? 60000 : 200;
		set.max_handshakes = many ? 4 : 100;
		start_with(set);
		for (size_t i = 0; i < COUNT_OF(fds); i++)
			fds[i] = silent_fd();
		if (many) {
			struct client c = open_client();

			put_request(&c, "/echo", "", BYTES_LIT("x"));
			expect(&c, 200, "x");
			close_client(&c);
		}
		/* Cut: all of them; or, of eight, those before the last four. */
		for (size_t i = 0; i < (many ? 4 : COUNT_OF(fds)); i++)
			assert_int_equal(recv(fds[i], (char[1]){ 0 }, 1, 0), 0);
		for (size_t i = 0; i < COUNT_OF(fds); i++)
			close(fds[i]);
		stop();
	}
}

static int set_up_group(void **state)
{
	(void)state;
	snprintf(cert_path, sizeof(cert_path), "/tmp/test_https.%d.crt", (int)getpid());
	snprintf(key_path, sizeof(key_path), "/tmp/test_https.%d.key", (int)getpid());
	make_certificate("IP:127.0.0.1", cert_path, key_path);
	client_ctx = SSL_CTX_new(TLS_client_method());
	return SSL_CTX_load_verify_locations(client_ctx, cert_path, NULL) == 1 ? 0 : -1;
}

static int tear_down_group(void **state)
{
	(void)state;
	unlink(cert_path);
	unlink(key_path);
	SSL_CTX_free(client_ctx);
	return 0;
}
#else
#define NAME "http_server"
#define set_up_group NULL
#define tear_down_group NULL
#endif

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_thousand_idle_connections), /* first: memory is untouched */
		cmocka_unit_test(keep_alive_and_pipelining_keep_order),
		cmocka_unit_test(requests_are_checked),
		cmocka_unit_test(head_is_get_without_a_body),
		cmocka_unit_test(answers_are_gzipped_when_asked),
		cmocka_unit_test(coded_bodies_are_inflated),
		cmocka_unit_test(chunked_bodies_grow),
		cmocka_unit_test(expect_100_continue),
		cmocka_unit_test(clients_that_do_not_read_see_the_413),
		cmocka_unit_test(bomb_is_answered_413),
		cmocka_unit_test(spent_budget_is_503_and_holds_nothing),
		cmocka_unit_test(held_answers_race_their_deadline),
		cmocka_unit_test(rude_clients_harm_nobody),
		cmocka_unit_test(vanished_client_is_noticed_and_its_answer_dropped),
		cmocka_unit_test(stop_answers_50_held_requests),
		cmocka_unit_test(drain_finishes_what_runs),
		cmocka_unit_test(stop_in_the_middle_of_uploads),
		cmocka_unit_test(slow_senders_are_cut),
		cmocka_unit_test(slow_readers_are_cut),
		cmocka_unit_test(clients_over_the_limit_wait_their_turn),
		cmocka_unit_test(idle_connections_make_room),
		cmocka_unit_test(a_body_that_stalls_gives_way),
		cmocka_unit_test(references_outlive_the_server),
#ifdef HTTP_OVER_TLS
		cmocka_unit_test(handshakes_are_bounded),
#endif
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests_name(NAME, tests, set_up_group, tear_down_group);
}
