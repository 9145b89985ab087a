/* SPDX-License-Identifier: Apache-2.0
 *
 * grpc_server.h - unary gRPC on one loop: a listening socket, its connections, their calls.
 *
 * A component runs one grpc_server per loop, each with its own socket of a listen_open group.
 * Everything here is for the loop's thread; a holder of a call on another thread posts to the loop
 * (loop_post) to answer it.
 *
 * A call's life: the request's headers arrive -> the message's five-byte prefix -> memory for it is
 * granted by the budget or the call is refused -> the whole message is in -> the route's handler is
 * called -> somebody answers, at once or seconds later. When the client goes first, the holder
 * hears on_cancel, and answers have no effect. SPEC: gRPC over HTTP/2; statuses as in INTERFACE
 * "Receivers' answers".
 */
#ifndef NET_GRPC_SERVER_H
#define NET_GRPC_SERVER_H

#include "base/base.h"
#include "base/budget.h"
#include "base/err.h"
#include "base/rcbuf.h"
#include "net/content_coding.h"
#include "net/grpc_status.h"
#include "net/loop.h"
#include "net/tls.h"

#include <stdatomic.h>

struct grpc_server;
struct grpc_call;

/* One method. */
struct grpc_route {
	const char *path; /* "/package.Service/Method" */
	/* The whole message is in. Keep the call with grpc_call_ref to answer later; a handler that
	 * returns without an answer and without a reference has the call failed as INTERNAL. */
	void (*call)(struct grpc_call *call, void *arg);
	void *arg;
	bool discard; /* benchmarks: throw the message away as it comes; the handler sees none */
};

/* 0 = the default in brackets, where there is one. Times in milliseconds. */
struct grpc_server_settings {
	size_t max_recv_msg_bytes;        /* of a message, inflated [20 MiB] */
	unsigned max_decompression_ratio; /* of a message, inflated by its bytes; 0: any */
	uint32_t max_concurrent_streams;  /* per connection [256] */
	uint32_t stream_window_bytes;     /* [1 MiB] */
	uint32_t connection_window_bytes; /* [4 MiB] */
	size_t max_connections;           /* more close the idlest one [10,000] */
	struct budget *budget; /* messages and connections are charged to it; NULL = none */
	uint64_t max_connection_idle_ms;      /* without a call; 0 = for ever */
	uint64_t max_connection_age_ms;       /* +-10 %, then GOAWAY; 0 = for ever */
	uint64_t max_connection_age_grace_ms; /* after that GOAWAY; 0 = for ever */
	uint64_t keepalive_time_ms;           /* silence before a PING [2 h] */
	uint64_t keepalive_timeout_ms;        /* silence after it [20 s] */
	uint64_t handshake_timeout_ms;        /* until the client's preface is in [10 s] */
	uint64_t message_timeout_ms; /* a request may take this long, and a second more for each
				      * 64 KiB of it [10 s] */
	uint32_t retry_after_ms;     /* told to a client that the budget refused [1 s] */
	struct tls *tls;             /* NULL = plain; borrowed */
	/* NULL, or called when a call's headers are in: a status other than GRPC_OK (and *message,
	 * static) refuses it before its message is read. */
	enum grpc_status (*admit)(struct grpc_call *call, const char **message, void *arg);
	void *admit_arg;
};

/* Written on the loop, read anywhere. */
struct grpc_server_counts {
	_Atomic uint64_t connections;       /* open now */
	_Atomic uint64_t connections_total; /* accepted, ever */
	_Atomic uint64_t calls;             /* handed to handlers, ever */
	_Atomic uint64_t refused_budget;    /* calls refused because the budget was spent */
	_Atomic uint64_t refused_large;     /* calls refused for size */
	_Atomic uint64_t refused_other;     /* other calls that never reached a handler */
	_Atomic uint64_t abuse;             /* connections closed for floods and protocol errors */
};

/* Listen on fd (takes it, from listen_open; -1 = none, see grpc_server_adopt). Borrows routes (ends
 * with a NULL path) until freed; copies settings. */
struct grpc_server *grpc_server_new(struct loop *l, int fd, const struct grpc_server_settings *c,
				    const struct grpc_route *routes, struct err *err);
/* Serve a connected, non-blocking socket (takes it). For tests and for ports shared with HTTP. */
int grpc_server_adopt(struct grpc_server *s, int fd, struct err *err);
/* Stop accepting, tell clients to go elsewhere (GOAWAY), let the calls there are finish. */
void grpc_server_drain(struct grpc_server *s);
/* No connection is open any more. */
bool grpc_server_is_drained(const struct grpc_server *s);
/* Close everything; held calls hear on_cancel. The memory goes on a later turn of the loop. NULL is
 * fine. */
void grpc_server_free(struct grpc_server *s);
const struct grpc_server_counts *grpc_server_counts(const struct grpc_server *s);

/* ---- calls ---- */

struct grpc_call *grpc_call_ref(struct grpc_call *call);
void grpc_call_unref(struct grpc_call *call);
/* In `admit`: when the message is in call fn instead of the route's handler. fn answers, or takes a
 * reference and calls grpc_call_proceed later. */
void grpc_call_gate(struct grpc_call *call, void (*fn)(struct grpc_call *call, void *arg),
		    void *arg);
/* Let a gated call through to its handler; harmless when its client has gone. */
void grpc_call_proceed(struct grpc_call *call);
/* The loop it lives on; while its client waits. */
struct loop *grpc_call_loop(const struct grpc_call *call);
/* The route's path. */
const char *grpc_call_path(const struct grpc_call *call);
/* The first value of a header (lower-case name); p = NULL when there is none. Valid with the call.
 */
struct bytes grpc_call_header(const struct grpc_call *call, const char *name);
/* "10.0.0.1:1234". Valid until the client is gone; then "". */
const char *grpc_call_peer(const struct grpc_call *call);
/* On the monotonic clock, in ns, from grpc-timeout; 0 = the client set none. */
uint64_t grpc_call_deadline_ns(const struct grpc_call *call);
/* The request message, inflated. The call keeps its reference. */
const struct rcbuf *grpc_call_message(const struct grpc_call *call);
/* The same, but the call's reference becomes the caller's (rcbuf_unref); later calls give NULL. */
struct rcbuf *grpc_call_take_message(struct grpc_call *call);
/* How the message was compressed, and its bytes on the wire. */
enum content_coding grpc_call_coding(const struct grpc_call *call);
size_t grpc_call_wire_bytes(const struct grpc_call *call);
/* Hear, at most once and never after an answer, that the client has gone. fn may unref the call. */
void grpc_call_on_cancel(struct grpc_call *call, void (*fn)(struct grpc_call *call, void *arg),
			 void *arg);
/* Is there nobody to answer any more? */
bool grpc_call_is_cancelled(const struct grpc_call *call);
/* Answer OK with a message (copied). The first answer counts, later ones have no effect. */
void grpc_call_reply(struct grpc_call *call, struct bytes message);
/* Answer an error; retry_after_ms > 0 adds a RetryInfo. `message` is copied. */
void grpc_call_fail(struct grpc_call *call, enum grpc_status status, const char *message,
		    uint32_t retry_after_ms);

#endif
