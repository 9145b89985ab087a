/* SPDX-License-Identifier: Apache-2.0
 *
 * fuzz_grpc_server.c - what a client sends to the gRPC server, without sockets: no crash, no leak,
 * nothing left charged to the budget, and calls answered at once, late, or never.
 *
 * Byte 0: bit 0 puts the client's preface and SETTINGS in front; bit 1 feeds small pieces; bit 2
 * answers held calls before the end; bit 3 lets a minute pass half-way; bit 4 drains half-way.
 */
#include "net/grpc_session.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { MAX_HELD = 64 };

static struct grpc_call *held[MAX_HELD];
static size_t n_held;

static void echo(struct grpc_call *call, void *arg)
{
	const struct rcbuf *m = grpc_call_message(call);

	(void)arg;
	assert(grpc_call_header(call, ":path").n > 0);
	grpc_call_reply(call, (struct bytes){ m->p, m->n });
}

static void keep(struct grpc_call *call, void *arg)
{
	(void)arg;
	if (n_held < MAX_HELD) {
		held[n_held++] = grpc_call_ref(call);
		rcbuf_unref(grpc_call_take_message(call));
	}
}

static void wake(void *arg)
{
	(void)arg;
}

static void answer_held(void)
{
	while (n_held > 0) {
		grpc_call_fail(held[--n_held], GRPC_UNAVAILABLE, "sp\xc3\xa4ter", 1000);
		grpc_call_unref(held[n_held]);
	}
}

static const struct grpc_route routes[] = {
	{ "/t.T/E", echo, NULL, false },
	{ "/t.T/H", keep, NULL, false },
	{ "/t.T/D", echo, NULL, false },
	{ NULL, NULL, NULL, false },
};

/* Feed one piece, take everything that comes out. -1 when the connection is over. */
static int feed(struct grpc_session *s, struct bytes in, uint64_t now_ms)
{
	int rc = grpc_session_recv(s, in, now_ms, NULL);

	while (grpc_session_send(s).n > 0)
		;
	return grpc_session_is_done(s) ? -1 : rc;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const uint8_t hello[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0";
	struct budget budget = BUDGET_INIT(1024 * 1024);
	struct grpc_server_settings c = { .max_recv_msg_bytes = 300000,
					  .max_concurrent_streams = 20,
					  .stream_window_bytes = 65535,
					  .connection_window_bytes = 100000,
					  .message_timeout_ms = 10000,
					  .retry_after_ms = 1000,
					  .budget = &budget };
	struct grpc_server_counts counts = { 0 };
	struct grpc_session_env env = { .settings = &c, .routes = routes, .counts = &counts };
	struct grpc_session *s = grpc_session_new(&env, "fuzz", wake, NULL, 1);
	uint8_t how = size > 0 ? data[0] : 0;
	struct bytes rest = { data + (size > 0), size - (size > 0) };
	uint64_t now_ms = 1;
	int rc = 0;

	if ((how & 1) != 0)
		feed(s, (struct bytes){ hello, sizeof(hello) - 1 }, now_ms);
	while (rc == 0 && rest.n > 0) {
		size_t n = (how & 2) != 0 ? MIN(rest.n, 1 + rest.n % 13) : rest.n;

		rc = feed(s, (struct bytes){ rest.p, n }, now_ms++);
		rest.p += n;
		rest.n -= n;
		if (rest.n < size / 2 && (how & 8) != 0) {
			now_ms += 60000;
			grpc_session_take_turns(s, now_ms);
			grpc_session_check_slow(s, now_ms);
			how &= (uint8_t)~8;
		}
		if (rest.n < size / 2 && (how & 16) != 0) {
			grpc_session_drain(s, !grpc_session_is_draining(s));
			how &= (uint8_t)~16;
		}
	}
	if ((how & 4) != 0) {
		answer_held();
		feed(s, BYTES_EMPTY, now_ms);
	}
	grpc_session_free(s);
	answer_held();
	grpc_session_env_fini(&env);
	assert(budget.used == 0);
	return 0;
}
