/* SPDX-License-Identifier: Apache-2.0
 *
 * test_grpc_session.c - what the gRPC server answers to bad, slow and hostile clients. No sockets:
 * frames are written by hand, answers are read with nghttp2's HPACK decoder.
 */
#include "base/buf.h"
#include "base/mem.h"
#include "net/grpc_session.h"
#include "net/grpc_turns.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#include <nghttp2/nghttp2.h>
#include <stdio.h>
#include <unistd.h>

enum { DATA = 0, HEADERS = 1, RST_STREAM = 3, SETTINGS = 4, PING = 6, GOAWAY = 7, WINDOW = 8 };
enum { END_STREAM = 1, END_HEADERS = 4 };

static struct {
	struct budget budget;
	struct grpc_server_settings settings;
	struct grpc_server_counts counts;
	struct grpc_session_env env;
	struct grpc_session *session;
	nghttp2_hd_inflater *inflater;
	struct buf in;   /* frames to feed */
	struct buf out;  /* bytes that came out */
	struct buf text; /* the same, readable: "1: :status=200 ...; 1: end; rst 1 0; goaway 11" */
	struct grpc_call *held;
	int n_calls, n_cancelled, n_wakes;
	uint64_t now_ms;
} f;

static void wake(void *arg)
{
	(void)arg;
	f.n_wakes++;
}

static void echo(struct grpc_call *call, void *arg)
{
	const struct rcbuf *m = grpc_call_message(call);

	(void)arg;
	f.n_calls++;
	grpc_call_reply(call, (struct bytes){ m->p, m->n });
}

static void cancelled(struct grpc_call *call, void *arg)
{
	(void)call;
	(void)arg;
	f.n_cancelled++;
}

static void hold(struct grpc_call *call, void *arg)
{
	(void)arg;
	f.n_calls++;
	grpc_call_on_cancel(call, cancelled, NULL);
	if (f.held == NULL)
		f.held = grpc_call_ref(call);
}

static const struct grpc_route routes[] = {
	{ "/t.T/Echo", echo, NULL, false },
	{ "/t.T/Hold", hold, NULL, false },
	{ NULL, NULL, NULL, false },
};

/* ---- writing ---- */

static void frame(int type, int flags, uint32_t stream, struct bytes payload)
{
	uint8_t head[9] = { 0, 0, 0, (uint8_t)type, (uint8_t)flags };

	head[0] = (uint8_t)(payload.n >> 16);
	head[1] = (uint8_t)(payload.n >> 8);
	head[2] = (uint8_t)payload.n;
	store_be32(head + 5, stream);
	buf_add(&f.in, head, 9);
	buf_add_bytes(&f.in, payload);
}

/* A literal header without indexing; lengths below 127, longer values as HPACK integers. */
static void field(struct buf *b, const char *name, const char *value)
{
	size_t n = strlen(value);

	buf_add_char(b, 0);
	buf_add_char(b, (char)strlen(name));
	buf_add_str(b, name);
	if (n < 127) {
		buf_add_char(b, (char)n);
	} else {
		buf_add_char(b, 127);
		for (n -= 127; n >= 128; n >>= 7)
			buf_add_char(b, (char)(n | 128));
		buf_add_char(b, (char)n);
	}
	buf_add_str(b, value);
}

/* Request headers; `extra` is a name and a value, or NULL. */
static void request(uint32_t stream, int flags, const char *method, const char *path,
		    const char *content_type, const char *name, const char *value)
{
	struct buf b = BUF_INIT;

	field(&b, ":method", method);
	field(&b, ":scheme", "http");
	field(&b, ":path", path);
	field(&b, ":authority", "test");
	if (content_type != NULL)
		field(&b, "content-type", content_type);
	if (name != NULL)
		field(&b, name, value);
	frame(HEADERS, flags | END_HEADERS, stream, buf_bytes(&b));
	buf_fini(&b);
}

static void post(uint32_t stream, const char *path)
{
	request(stream, 0, "POST", path, "application/grpc", NULL, NULL);
}

/* A message with its prefix, or as much of it as `sent` says. */
static void message(uint32_t stream, int flags, uint8_t compressed, size_t n, size_t sent)
{
	uint8_t *p = xcalloc(1, n + 5);

	p[0] = compressed;
	store_be32(p + 1, (uint32_t)n);
	frame(DATA, flags, stream, (struct bytes){ p, sent });
	free(p);
}

/* n more bytes of a message, fed at once. */
static void more(uint32_t stream, size_t n)
{
	uint8_t *p = xcalloc(1, n);

	for (size_t at = 0; at < n; at += 16384)
		frame(DATA, 0, stream, (struct bytes){ p, MIN(n - at, 16384u) });
	grpc_session_recv(f.session, buf_bytes(&f.in), f.now_ms, NULL);
	buf_reset(&f.in);
	free(p);
}

/* ---- reading ---- */

static void read_headers(uint32_t stream, int flags, const uint8_t *p, size_t n)
{
	buf_printf(&f.text, "%u:", stream);
	for (;;) {
		int inflate_flags = 0;
		nghttp2_nv nv;
		ssize_t rc = nghttp2_hd_inflate_hd2(f.inflater, &nv, &inflate_flags, p, n, 1);

		assert_true(rc >= 0);
		p += rc;
		n -= (size_t)rc;
		if ((inflate_flags & NGHTTP2_HD_INFLATE_EMIT) != 0)
			buf_printf(&f.text, " %s=%s", (char *)nv.name, (char *)nv.value);
		if ((inflate_flags & NGHTTP2_HD_INFLATE_FINAL) != 0)
			break;
	}
	nghttp2_hd_inflate_end_headers(f.inflater);
	buf_add_str(&f.text, (flags & END_STREAM) != 0 ? " end; " : "; ");
}

static void read_answers(void)
{
	const uint8_t *p = f.out.p, *end = p + f.out.n;

	while (p < end) {
		size_t n = load_be32(p) >> 8;
		uint32_t stream = load_be32(p + 5);

		if (p[3] == HEADERS)
			read_headers(stream, p[4], p + 9, n);
		else if (p[3] == DATA)
			buf_printf(&f.text, "%u: data %zu; ", stream, n);
		else if (p[3] == RST_STREAM)
			buf_printf(&f.text, "rst %u %u; ", stream, load_be32(p + 9));
		else if (p[3] == GOAWAY)
			buf_printf(&f.text, "goaway %u %u; ", load_be32(p + 9), load_be32(p + 13));
		else if (p[3] == SETTINGS && n == 6)
			buf_printf(&f.text, "setting %u %u; ", load_be32(p + 9) >> 16,
				   load_be32(p + 11));
		else if (p[3] == WINDOW)
			buf_printf(&f.text, "window %u %u; ", stream, load_be32(p + 9));
		p += 9 + n;
	}
	buf_reset(&f.out);
}

/* Take what the session has to send; its text so far. */
static const char *answers(void)
{
	struct bytes out;

	while ((out = grpc_session_send(f.session)).n > 0)
		buf_add_bytes(&f.out, out);
	read_answers();
	return buf_cstr(&f.text);
}

/* Feed the frames written so far; the text of the answers to them alone. */
static const char *play(void)
{
	buf_reset(&f.text);
	grpc_session_recv(f.session, buf_bytes(&f.in), f.now_ms, NULL);
	buf_reset(&f.in);
	return answers();
}

/* A session with a client that has not seen our settings yet. */
static void set_up_unacknowledged(void)
{
	memset(&f, 0, sizeof(f));
	f.budget = (struct budget)BUDGET_INIT(8 * 1024 * 1024);
	f.settings = (struct grpc_server_settings){ .max_recv_msg_bytes = 4 * MIB,
						    .max_concurrent_streams = 100,
						    .stream_window_bytes = MIB,
						    .connection_window_bytes = 4 * MIB,
						    .message_timeout_ms = 10000,
						    .retry_after_ms = 1000,
						    .budget = &f.budget };
	f.env = (struct grpc_session_env){ .settings = &f.settings,
					   .routes = routes,
					   .counts = &f.counts };
	f.now_ms = 1000;
	f.session = grpc_session_new(&f.env, "peer", wake, NULL, f.now_ms);
	nghttp2_hd_inflate_new(&f.inflater);
	buf_add_str(&f.in, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
	frame(SETTINGS, 0, 0, BYTES_EMPTY);
	play();
}

static int set_up(void **state)
{
	(void)state;
	set_up_unacknowledged();
	frame(SETTINGS, 1, 0, BYTES_EMPTY); /* ACK: our windows count from here */
	play();
	assert_true(grpc_session_is_greeted(f.session));
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	if (f.held != NULL)
		grpc_call_unref(f.held);
	grpc_session_free(f.session);
	grpc_session_env_fini(&f.env);
	nghttp2_hd_inflate_del(f.inflater);
	buf_fini(&f.in);
	buf_fini(&f.out);
	buf_fini(&f.text);
	assert_int_equal(f.budget.used, 0);
	return 0;
}

static void assert_has(const char *text, const char *part)
{
	if (strstr(text, part) == NULL)
		fail_msg("no \"%s\" in \"%s\"", part, text);
}

/* ---- tests ---- */

static void a_call_is_answered(void **state)
{
	const char *text;

	(void)state;
	post(1, "/t.T/Echo");
	message(1, END_STREAM, 0, 20, 25);
	text = play();
	assert_string_equal(text, "1: :status=200 content-type=application/grpc "
				  "grpc-accept-encoding=identity,gzip,deflate,zstd,snappy; "
				  "1: data 25; 1: grpc-status=0 end; ");
	assert_int_equal(grpc_session_calls(f.session), 0);
	assert_int_equal(f.n_wakes, 0);
}

static const struct {
	const char *name, *method, *path, *content_type, *header, *value, *want;
} bad_headers[] = {
	{ "method", "GET", "/t.T/Echo", "application/grpc", NULL, NULL, ":status=405" },
	{ "no content type", "POST", "/t.T/Echo", NULL, NULL, NULL, ":status=415" },
	{ "content type", "POST", "/t.T/Echo", "text/plain", NULL, NULL,
	  ":status=415 content-type=application/grpc grpc-status=12" },
	{ "almost the content type", "POST", "/t.T/Echo", "application/grpcx", NULL, NULL,
	  ":status=415" },
	{ "another codec", "POST", "/t.T/Echo", "application/grpc+json", NULL, NULL,
	  ":status=415" },
	{ "path", "POST", "/t.T/None", "application/grpc", NULL, NULL,
	  ":status=200 content-type=application/grpc grpc-status=12" },
	{ "encoding", "POST", "/t.T/Echo", "application/grpc", "grpc-encoding", "br",
	  "grpc-accept-encoding=identity,gzip,deflate,zstd,snappy" },
	{ "timeout", "POST", "/t.T/Echo", "application/grpc", "grpc-timeout", "soon",
	  ":status=400 content-type=application/grpc grpc-status=13" },
};

static void bad_headers_are_named(void **state)
{
	uint32_t stream = 1;

	(void)state;
	for (size_t i = 0; i < COUNT_OF(bad_headers); i++, stream += 2) {
		const char *text;

		request(stream, 0, bad_headers[i].method, bad_headers[i].path,
			bad_headers[i].content_type, bad_headers[i].header, bad_headers[i].value);
		message(stream, END_STREAM, 0, 5, 10);
		text = play();
		if (strstr(text, bad_headers[i].want) == NULL || strstr(text, " end") == NULL)
			fail_msg("%s: \"%s\"", bad_headers[i].name, text);
	}
	assert_int_equal(f.n_calls, 0);
	/* Parameters and +proto are fine. */
	request(stream, 0, "POST", "/t.T/Echo", "application/grpc+proto", NULL, NULL);
	message(stream, END_STREAM, 0, 5, 10);
	assert_has(play(), "grpc-status=0");
	request(stream + 2, 0, "POST", "/t.T/Echo", "application/grpc;charset=utf-8", NULL, NULL);
	message(stream + 2, END_STREAM, 0, 5, 10);
	assert_has(play(), "grpc-status=0");
}

static const struct {
	const char *name, *encoding;
	uint8_t flag;
	size_t n, sent;
	const char *want;
} bad_messages[] = {
	{ "nothing", NULL, 0, 0, 0, "grpc-status=3 grpc-message=no message" },
	{ "half a prefix", NULL, 0, 10, 3, "grpc-status=3 grpc-message=message is cut short" },
	{ "cut short", NULL, 0, 10, 12, "grpc-status=3 grpc-message=message is cut short" },
	{ "flag 2", NULL, 2, 10, 15, "grpc-status=13" },
	{ "compressed without encoding", NULL, 1, 10, 15, "grpc-status=13" },
	{ "compressed with identity", "identity", 1, 10, 15, "grpc-status=13" },
	{ "not gzip at all", "gzip", 1, 100, 105, "grpc-status=3" },
	{ "too large", NULL, 0, 4 * MIB + 1, 5, "grpc-status=8" },
};

static void bad_messages_are_named(void **state)
{
	uint32_t stream = 1;

	(void)state;
	for (size_t i = 0; i < COUNT_OF(bad_messages); i++, stream += 2) {
		const char *text;

		request(stream, 0, "POST", "/t.T/Echo", "application/grpc",
			bad_messages[i].encoding != NULL ? "grpc-encoding" : NULL,
			bad_messages[i].encoding);
		message(stream, END_STREAM, bad_messages[i].flag, bad_messages[i].n,
			bad_messages[i].sent);
		text = play();
		if (strstr(text, bad_messages[i].want) == NULL)
			fail_msg("%s: \"%s\"", bad_messages[i].name, text);
		assert_int_equal(f.budget.used, 0);
	}
	post(stream, "/t.T/Echo");
	frame(DATA, 0, stream, BYTES_LIT("\0\xff\xff\xff\xff"));
	assert_has(play(), "grpc-status=8");
	assert_int_equal(f.n_calls, 0);
}

static void two_messages_are_one_too_many(void **state)
{
	(void)state;
	post(1, "/t.T/Echo");
	message(1, 0, 0, 5, 10);
	message(1, END_STREAM, 0, 5, 10);
	assert_has(play(), "grpc-status=3 grpc-message=more than one message");
	assert_int_equal(f.n_calls, 0);
}

static void a_message_may_come_byte_by_byte(void **state)
{
	struct buf all;

	(void)state;
	post(1, "/t.T/Echo");
	message(1, 0, 0, 3, 8);
	frame(DATA, END_STREAM, 1, BYTES_EMPTY);
	all = f.in;
	f.in = (struct buf)BUF_INIT;
	for (size_t i = 0; i < all.n; i++)
		grpc_session_recv(f.session, (struct bytes){ all.p + i, 1 }, f.now_ms, NULL);
	buf_fini(&all);
	assert_has(play(), "1: data 8; 1: grpc-status=0 end");
}

static void large_headers_are_refused(void **state)
{
	char value[8001];
	struct buf b = BUF_INIT;

	(void)state;
	memset(value, 'x', 8000);
	value[8000] = '\0';
	field(&b, ":method", "POST");
	field(&b, ":scheme", "http");
	field(&b, ":path", "/t.T/Echo");
	field(&b, ":authority", "test");
	field(&b, "content-type", "application/grpc");
	field(&b, "a", value);
	frame(HEADERS, 0, 1, buf_bytes(&b));
	buf_reset(&b);
	field(&b, "b", value);
	frame(9, 0, 1, buf_bytes(&b));
	buf_reset(&b);
	field(&b, "c", value);
	frame(9, END_HEADERS, 1, buf_bytes(&b));
	buf_fini(&b);
	message(1, END_STREAM, 0, 5, 10);
	assert_has(play(), ":status=431 content-type=application/grpc grpc-status=8");
}

static void promises_do_not_take_the_whole_budget(void **state)
{
	const char *text;

	(void)state;
	f.settings.max_recv_msg_bytes = 3 * MIB;
	for (uint32_t s = 1; s < 20; s += 2) {
		post(s, "/t.T/Echo");
		message(s, 0, 0, 3 * MIB, 5);
	}
	text = play();
	/* One is admitted: two would be more than half of 8 MiB. The calls cost a bit. */
	assert_in_range(f.budget.used, 3 * MIB, 3 * MIB + 10 * 4096);
	assert_int_equal(strncmp(text, "3: ", 3), 0);
	assert_has(text, "3: :status=200 content-type=application/grpc grpc-status=14");
	assert_has(text, "grpc-status-details-bin=");
	assert_int_equal(f.counts.refused_budget, 9);
}

/* A refused client cannot make us take more than its stream's window. */
static void windows_are_given_for_admitted_bytes_only(void **state)
{
	const char *text;
	uint8_t *p = xcalloc(1, 16384);

	(void)state;
	post(1, "/t.T/Echo");
	message(1, 0, 0, 5 * MIB, 5);
	for (size_t i = 0; i < 40; i++)
		frame(DATA, 0, 1, (struct bytes){ p, 16384 });
	text = play();
	assert_has(text, "grpc-status=8");
	assert_null(strstr(text, "window 1 "));
	post(3, "/t.T/Echo");
	message(3, 0, 0, 3 * MIB, 5);
	for (size_t i = 0; i < 40; i++)
		frame(DATA, 0, 3, (struct bytes){ p, 16384 });
	text = play();
	assert_has(text, "window 3 ");
	free(p);
}

/* ---- turns ---- */

enum { CROWD = 10, CROWD_MESSAGE = 200000, CROWD_SENT = 25 };

/* Ten calls, streams 1 to 19, that announce 200 kB each and send 20 bytes of it. */
static const char *crowd(void)
{
	for (uint32_t s = 1; s < 2 * CROWD; s += 2) {
		post(s, "/t.T/Echo");
		message(s, 0, 0, CROWD_MESSAGE, CROWD_SENT);
	}
	return play();
}

/* The client takes the small windows. */
static const char *crowd_in_turns(void)
{
	assert_has(crowd(), "setting 4 16384; ");
	frame(SETTINGS, 1, 0, BYTES_EMPTY);
	return play();
}

/* The rest of a message, fed as it comes. */
static const char *finish(uint32_t stream)
{
	buf_reset(&f.text);
	more(stream, CROWD_MESSAGE + 5 - CROWD_SENT);
	frame(DATA, END_STREAM, stream, BYTES_EMPTY);
	grpc_session_recv(f.session, buf_bytes(&f.in), f.now_ms, NULL);
	buf_reset(&f.in);
	return answers();
}

static void a_crowd_comes_in_turns(void **state)
{
	const char *text;

	(void)state;
	text = crowd_in_turns();
	/* What goes over 16 KiB, and one more than that. */
	assert_string_equal(text, "window 1 183622; window 3 183622; ");
	assert_true(grpc_session_has_waiting(f.session));
	for (uint32_t s = 1; s < 2 * CROWD; s += 2) {
		char next[32];

		text = finish(s);
		assert_has(text, ": :status=200"); /* the answer does not fit the client's window */
		snprintf(next, sizeof(next), "window %u 183622; ", s + 4);
		assert_int_equal(strstr(text, next) != NULL, s + 4 < 2 * CROWD);
	}
	assert_false(grpc_session_has_waiting(f.session));
	assert_int_equal(f.n_calls, CROWD);
}

static void few_calls_have_no_turns(void **state)
{
	(void)state;
	for (uint32_t s = 1; s < 14; s += 2) {
		post(s, "/t.T/Echo");
		message(s, 0, 0, CROWD_MESSAGE, CROWD_SENT);
	}
	assert_string_equal(play(), "");
}

/* Memory is taken with the turn. */
static void those_who_wait_hold_little(void **state)
{
	(void)state;
	crowd_in_turns();
	for (uint32_t s = 21; s < 21 + 2 * CROWD; s += 2) {
		post(s, "/t.T/Echo");
		message(s, 0, 0, CROWD_MESSAGE, CROWD_SENT);
	}
	play();
	/* The first came before turns were; these have 16 KiB each. */
	assert_in_range(f.budget.used, CROWD * 262144 + CROWD * 16384,
			CROWD * 262144 + CROWD * (16384 + 4096));
}

static void a_client_that_stalls_holds_up_nobody(void **state)
{
	const char *text;

	(void)state;
	crowd_in_turns();
	buf_reset(&f.text);
	f.now_ms += TURN_MS - 1;
	grpc_session_take_turns(f.session, f.now_ms);
	assert_string_equal(answers(), "");
	f.now_ms += 1;
	grpc_session_take_turns(f.session, f.now_ms);
	assert_string_equal(answers(), "window 5 183622; window 7 183622; ");
	/* What comes late of those before is not taken off what these were promised. */
	text = finish(1);
	assert_has(text, "1: :status=200");
	assert_null(strstr(text, "window"));
	assert_has(finish(7), "window 9 183622; ");
}

static void those_who_leave_make_room(void **state)
{
	uint8_t code[4] = { 0, 0, 0, 8 };

	(void)state;
	crowd_in_turns();
	for (uint32_t s = 5; s < 2 * CROWD; s += 4) /* 5, 9, 13, 17 wait, the last is 19 */
		frame(RST_STREAM, 0, s, (struct bytes){ code, 4 });
	frame(RST_STREAM, 0, 19, (struct bytes){ code, 4 });
	frame(RST_STREAM, 0, 1, (struct bytes){ code, 4 });
	assert_string_equal(play(), "window 7 183622; ");
	post(21, "/t.T/Echo");
	message(21, 0, 0, CROWD_MESSAGE, CROWD_SENT);
	assert_string_equal(play(), "");
	assert_has(finish(3), "window 11 183622; ");
	assert_has(finish(7), "window 15 183622; ");
	assert_has(finish(11), "window 21 183622; ");
}

/* Who waits and sends more than 16 KiB breaks HTTP/2's rule; nothing is written past its buffer. */
static void who_does_not_wait_is_reset(void **state)
{
	uint8_t *p = xcalloc(1, 16384);

	(void)state;
	crowd_in_turns();
	post(21, "/t.T/Echo");
	message(21, 0, 0, CROWD_MESSAGE, CROWD_SENT);
	frame(DATA, 0, 21, (struct bytes){ p, 16384 });
	frame(DATA, 0, 21, (struct bytes){ p, 16384 });
	assert_has(play(), "rst 21 3; ");
	assert_has(finish(1), "1: :status=200");
	free(p);
}

/* A byte of message and 255 of padding in each frame: more window goes for padding than for the
 * message, and it must come to its end all the same. */
static void padding_does_not_use_up_the_window(void **state)
{
	uint8_t p[257] = { 255 };
	int64_t window = CROWD_MESSAGE + 5 + 1 - CROWD_SENT;
	size_t sent = CROWD_SENT, updates = 0;

	(void)state;
	crowd_in_turns();
	while (sent < 8000) {
		const char *text, *w;

		assert_true(window >= 257);
		frame(DATA, 8 /* PADDED */, 1, (struct bytes){ p, 257 });
		window -= 257;
		sent++;
		text = play();
		for (w = text; (w = strstr(w, "window 1 ")) != NULL; w++, updates++)
			window += atol(w + 9);
	}
	assert_true(updates > 0);
	assert_int_equal(f.n_calls, 0);
}

static void slow_requests_end(void **state)
{
	(void)state;
	post(1, "/t.T/Echo");
	message(1, 0, 0, 5, 7);
	post(3, "/t.T/Echo");
	message(3, 0, 0, 2 * MIB, 105);
	play();
	for (int i = 0; i < 11; i++) {
		grpc_session_check_slow(f.session, f.now_ms += 1000);
		more(3, 70000);
	}
	assert_has(answers(), "1: :status=200 content-type=application/grpc grpc-status=4");
	assert_null(strstr(buf_cstr(&f.text), "3: "));
	/* 770 KB at 64 KiB a second are 12 s more; that it promised 2 MiB helps it nothing. */
	grpc_session_check_slow(f.session, f.now_ms += 10000);
	assert_null(strstr(answers(), "3: "));
	grpc_session_check_slow(f.session, f.now_ms += 3000);
	assert_has(answers(), "3: :status=200 content-type=application/grpc grpc-status=4");
	f.now_ms += 1000;
	grpc_session_check_slow(f.session, f.now_ms);
	assert_has(answers(), "rst 3 0");
	assert_int_equal(grpc_session_calls(f.session), 0);
}

/* Nobody waits for the answer to a request that is not even in by its deadline. */
static void requests_past_their_deadline_end(void **state)
{
	(void)state;
	request(1, 0, "POST", "/t.T/Echo", "application/grpc", "grpc-timeout", "1m");
	message(1, 0, 0, 2 * MIB, 105);
	request(3, 0, "POST", "/t.T/Echo", "application/grpc", "grpc-timeout", "1H");
	message(3, 0, 0, MIB, 105);
	play();
	usleep(2000);
	grpc_session_check_slow(f.session, f.now_ms += 1);
	assert_has(answers(), "1: :status=200 content-type=application/grpc grpc-status=4");
	assert_null(strstr(buf_cstr(&f.text), "3: "));
	assert_true(f.budget.used < (int64_t)(2 * MIB));
}

/* Who promised much and stalls gives it back as soon as somebody else needs it, and hears that it
 * may come again; who gets on is left alone. */
static void stalled_requests_give_way_when_memory_is_short(void **state)
{
	(void)state;
	post(1, "/t.T/Echo");
	message(1, 0, 0, 3 * MIB, 105);
	post(3, "/t.T/Echo");
	message(3, 0, 0, MIB / 2, 105);
	play();
	more(3, 200000);
	grpc_session_check_slow(f.session, f.now_ms += 2000);
	assert_string_equal(answers(), "");
	assert_false(budget_charge(&f.budget, 6 * MIB)); /* somebody else's */
	grpc_session_check_slow(f.session, f.now_ms += 1000);
	assert_has(answers(), "1: :status=200 content-type=application/grpc grpc-status=14");
	assert_has(buf_cstr(&f.text), "grpc-status-details-bin=");
	assert_null(strstr(buf_cstr(&f.text), "3: "));
	assert_true(budget_charge(&f.budget, 6 * MIB));
	budget_release(&f.budget, 6 * MIB);
}

/* The last eighth of the budget is for small requests. */
static void large_promises_leave_room_for_small_ones(void **state)
{
	(void)state;
	budget_force(&f.budget, 6 * MIB);
	post(1, "/t.T/Echo");
	message(1, 0, 0, MIB + MIB / 2, 5);
	assert_has(play(), "1: :status=200 content-type=application/grpc grpc-status=14");
	post(3, "/t.T/Echo");
	message(3, 0, 0, 60000, 16000);
	more(3, 60005 - 16000);
	frame(DATA, END_STREAM, 3, BYTES_EMPTY);
	assert_has(play(), "3: grpc-status=0");
	budget_release(&f.budget, 6 * MIB);
}

/* Headers are memory too. */
static void large_headers_are_charged(void **state)
{
	char value[8001];
	int64_t before = f.budget.used;

	(void)state;
	memset(value, 'v', 8000);
	value[8000] = '\0';
	request(1, 0, "POST", "/t.T/Echo", "application/grpc", "x-long", value);
	play();
	assert_true(f.budget.used >= before + 8000);
	budget_force(&f.budget, 8 * MIB);
	request(3, 0, "POST", "/t.T/Echo", "application/grpc", "x-long", value);
	assert_has(play(), "3: :status=200 content-type=application/grpc grpc-status=14");
	budget_release(&f.budget, 8 * MIB);
}

/* Streams over the limit, before the client can know it: a few are told to come again, a flood ends
 * the connection and leaves no thousand RST_STREAMs in memory. */
static void refused_streams_have_a_rate(void **state)
{
	const char *text;
	size_t n = 0;

	tear_down(state);
	set_up_unacknowledged();
	for (uint32_t s = 1; s < 400; s += 2)
		post(s, "/t.T/Hold");
	play();
	assert_false(grpc_session_is_done(f.session));
	for (uint32_t s = 401; s < 8000; s += 2)
		post(s, "/t.T/Hold");
	for (text = play(); (text = strstr(text, "rst ")) != NULL; text++)
		n++;
	assert_has(buf_cstr(&f.text), "goaway");
	assert_true(n < 300);
	assert_true(f.counts.abuse > 0);
}

static void half_a_header_block_ends_the_connection(void **state)
{
	struct buf b = BUF_INIT;

	(void)state;
	field(&b, ":method", "POST");
	frame(HEADERS, 0, 1, buf_bytes(&b));
	buf_fini(&b);
	play();
	f.now_ms += 11000;
	grpc_session_check_slow(f.session, f.now_ms);
	assert_has(answers(), "goaway");
	assert_true(grpc_session_is_done(f.session));
}

static void a_reset_reaches_the_holder(void **state)
{
	(void)state;
	post(1, "/t.T/Hold");
	message(1, END_STREAM, 0, 5, 10);
	play();
	assert_int_equal(f.n_calls, 1);
	frame(RST_STREAM, 0, 1, BYTES_LIT("\0\0\0\x08"));
	play();
	assert_int_equal(f.n_cancelled, 1);
	assert_true(grpc_call_is_cancelled(f.held));
	assert_int_equal(grpc_call_message(f.held)->n, 5);
	grpc_call_reply(f.held, BYTES_EMPTY);
	grpc_call_fail(f.held, GRPC_INTERNAL, "x", 0);
	assert_string_equal(answers(), "");
}

static void rapid_resets_end_the_connection(void **state)
{
	int rc = 0;

	(void)state;
	for (uint32_t s = 1; s < 6000 && rc == 0; s += 2) {
		post(s, "/t.T/Hold");
		message(s, END_STREAM, 0, 5, 10);
		frame(RST_STREAM, 0, s, BYTES_LIT("\0\0\0\x08"));
		rc = grpc_session_recv(f.session, buf_bytes(&f.in), f.now_ms, NULL);
		buf_reset(&f.in);
		answers();
		if (grpc_session_is_done(f.session))
			rc = -1;
	}
	assert_int_equal(rc, -1);
	assert_true(f.n_calls < 1200);
	assert_has(buf_cstr(&f.text), "goaway");
}

static void floods_end_the_connection(void **state)
{
	static const struct {
		int type;
		struct bytes payload;
	} floods[] = {
		{ PING, { (const uint8_t *)"12345678", 8 } },
		{ SETTINGS, { NULL, 0 } },
		{ WINDOW, { (const uint8_t *)"\0\0\0\1", 4 } },
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(floods); i++) {
		int n = 0;

		tear_down(NULL);
		set_up(NULL);
		while (n < 5000 && !grpc_session_is_done(f.session)) {
			frame(floods[i].type, 0, 0, floods[i].payload);
			play();
			n++;
		}
		assert_in_range(n, 500, 1500);
		assert_true(f.counts.abuse > 0);
	}
}

static void an_unread_answer_flood_is_bounded(void **state)
{
	int rc = 0, n = 0;

	(void)state;
	/* The client never takes what we send: acknowledgements must not pile up. */
	while (rc == 0 && n < 5000) {
		frame(PING, 0, 0, BYTES_LIT("12345678"));
		rc = grpc_session_recv(f.session, buf_bytes(&f.in), f.now_ms, NULL);
		buf_reset(&f.in);
		n++;
	}
	assert_int_equal(rc, -1);
}

static void drain_is_two_goaways(void **state)
{
	(void)state;
	post(1, "/t.T/Hold");
	message(1, END_STREAM, 0, 5, 10);
	play();
	grpc_session_drain(f.session, false);
	assert_has(answers(), "goaway 2147483647 0");
	post(3, "/t.T/Echo");
	message(3, END_STREAM, 0, 5, 10);
	assert_has(play(), "3: grpc-status=0");
	grpc_session_drain(f.session, true);
	assert_has(answers(), "goaway 3 0");
	assert_false(grpc_session_is_done(f.session));
	grpc_call_reply(f.held, BYTES_LIT("x"));
	assert_true(f.n_wakes > 0);
	assert_has(answers(), "1: grpc-status=0 end");
	assert_true(grpc_session_is_done(f.session));
}

static void http1_is_refused(void **state)
{
	struct grpc_session *s;
	struct err err = ERR_INIT;

	(void)state;
	s = grpc_session_new(&f.env, "peer", wake, NULL, 1);
	assert_int_equal(
		grpc_session_recv(s, BYTES_LIT("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), 1, &err), -1);
	assert_has(err.msg, "peer");
	grpc_session_free(s);
}

#define SESSION_TEST(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		SESSION_TEST(a_call_is_answered),
		SESSION_TEST(bad_headers_are_named),
		SESSION_TEST(bad_messages_are_named),
		SESSION_TEST(two_messages_are_one_too_many),
		SESSION_TEST(a_message_may_come_byte_by_byte),
		SESSION_TEST(large_headers_are_refused),
		SESSION_TEST(promises_do_not_take_the_whole_budget),
		SESSION_TEST(windows_are_given_for_admitted_bytes_only),
		SESSION_TEST(a_crowd_comes_in_turns),
		SESSION_TEST(few_calls_have_no_turns),
		SESSION_TEST(those_who_wait_hold_little),
		SESSION_TEST(a_client_that_stalls_holds_up_nobody),
		SESSION_TEST(those_who_leave_make_room),
		SESSION_TEST(who_does_not_wait_is_reset),
		SESSION_TEST(padding_does_not_use_up_the_window),
		SESSION_TEST(slow_requests_end),
		SESSION_TEST(requests_past_their_deadline_end),
		SESSION_TEST(stalled_requests_give_way_when_memory_is_short),
		SESSION_TEST(large_promises_leave_room_for_small_ones),
		SESSION_TEST(large_headers_are_charged),
		SESSION_TEST(refused_streams_have_a_rate),
		SESSION_TEST(half_a_header_block_ends_the_connection),
		SESSION_TEST(a_reset_reaches_the_holder),
		SESSION_TEST(rapid_resets_end_the_connection),
		SESSION_TEST(floods_end_the_connection),
		SESSION_TEST(an_unread_answer_flood_is_bounded),
		SESSION_TEST(drain_is_two_goaways),
		SESSION_TEST(http1_is_refused),
	};

	return cmocka_run_group_tests_name("grpc_session", tests, NULL, NULL);
}
