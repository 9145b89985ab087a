/* SPDX-License-Identifier: Apache-2.0
 *
 * grpc_session.h - the server's side of one HTTP/2 connection that carries gRPC: bytes in, calls
 * out, bytes back. No sockets: grpc_server.c connects it to one, a fuzzer to a file.
 *
 * Loop's thread only, everything in here.
 * SPEC: gRPC over HTTP/2 (unary calls), RFC 9113.
 */
#ifndef NET_GRPC_SESSION_H
#define NET_GRPC_SESSION_H

#include "net/grpc_server.h"

#include <sys/uio.h>

struct grpc_session;

/* What a session shares with the others of its server. */
struct grpc_session_env {
	const struct grpc_server_settings *settings;
	const struct grpc_route *routes; /* ends with a NULL path */
	struct grpc_server_counts *counts;
	struct loop *loop;       /* NULL without one (fuzzers) */
	struct grpc_call *spare; /* calls to use again, n_spare of them */
	size_t n_spare;
};

/* `wake` is called when there is something to send that no grpc_session_recv is about to return
 * from. Borrows env and peer; they outlive the session. */
struct grpc_session *grpc_session_new(struct grpc_session_env *env, const char *peer,
				      void (*wake)(void *arg), void *arg, uint64_t now_ms);
/* Calls that are not answered hear on_cancel. NULL is fine. */
void grpc_session_free(struct grpc_session *s);
/* Bytes off the wire. -1 when the connection must be closed (after what there is to send). */
int grpc_session_recv(struct grpc_session *s, struct bytes in, uint64_t now_ms, struct err *err);
/* The next bytes to send, valid until the next call of any function here; n = 0 when there are
 * none. */
struct bytes grpc_session_send(struct grpc_session *s);
/* Is it over: nothing to read, nothing to send, no calls? */
bool grpc_session_is_done(const struct grpc_session *s);
/* No new calls: GOAWAY in two steps, `final` the second. */
void grpc_session_drain(struct grpc_session *s, bool final);
bool grpc_session_is_draining(const struct grpc_session *s);
/* Calls whose stream is open. */
size_t grpc_session_calls(const struct grpc_session *s);
/* Milliseconds (as now_ms) when the last call ended or, before any, the session began. */
uint64_t grpc_session_idle_since(const struct grpc_session *s);
/* Has the client's preface been read in whole? */
bool grpc_session_is_greeted(const struct grpc_session *s);
void grpc_session_ping(struct grpc_session *s);
/* Fail calls whose request comes too slowly, reset those that were answered before their end; to be
 * called about every second. True while some request is still coming in. */
bool grpc_session_check_slow(struct grpc_session *s, uint64_t now_ms);
/* On a crowded connection: do some requests wait for their turn? */
bool grpc_session_has_waiting(const struct grpc_session *s);
/* Let in the next of them, also where those before them stall; to be called every TURN_MS
 * (grpc_turns.h) while some wait. */
void grpc_session_take_turns(struct grpc_session *s, uint64_t now_ms);
/* Free env's spare calls. */
void grpc_session_env_fini(struct grpc_session_env *env);

#endif
