/* SPDX-License-Identifier: Apache-2.0
 *
 * grpc_call.h - the inside of a server call, shared by grpc_call.c (what handlers do with it) and
 * grpc_session.c (how it comes in). Others use grpc_server.h.
 */
#ifndef NET_GRPC_CALL_H
#define NET_GRPC_CALL_H

#include "base/buf.h"
#include "net/grpc_session.h"

enum grpc_call_state {
	CALL_HEADERS,  /* header block not complete */
	CALL_PREFIX,   /* waiting for the five bytes before the message */
	CALL_BODY,     /* memory granted, message coming in */
	CALL_COMPLETE, /* waiting for the end of the stream */
	CALL_HANDED,   /* the route's handler has it */
	CALL_ANSWERED, /* what still comes is thrown away */
};

struct grpc_call {
	unsigned refs;
	struct grpc_session *session;  /* NULL once the stream is closed */
	struct grpc_call *next, *prev; /* in the session's list; next alone in env->spare */
	int32_t stream_id;
	enum grpc_call_state state;
	const struct grpc_route *route;
	struct buf headers; /* entries: u16 name length, u16 value length, name, value */
	size_t header_cost; /* as RFC 9113 6.5.2 counts */
	uint64_t started_ms, answered_ms;
	uint64_t deadline_ns;
	enum content_coding coding; /* what grpc-encoding names */
	uint8_t prefix[5];
	uint8_t prefix_n;
	size_t length;               /* of the message, from the prefix */
	size_t received;             /* of those */
	size_t unconsumed;           /* received, but not yet given back as stream window */
	struct grpc_call *next_turn; /* grpc_turns.h */
	size_t promised;             /* bytes it was let in for and has not sent yet, */
	uint32_t round;              /* in this round */
	struct rcbuf *message;
	struct budget *budget; /* charged with `charged` bytes for the call itself */
	size_t charged;
	struct buf reply; /* prefix and message being sent */
	size_t reply_off;
	void (*on_cancel)(struct grpc_call *call, void *arg);
	void *cancel_arg;
	void (*gate)(struct grpc_call *call, void *arg); /* before the handler; NULL: none */
	void *gate_arg;
	bool waits; /* for its turn */
	bool compressed;
	bool cancelled;
};

/* A zeroed call with one reference, from env->spare when there is one. */
struct grpc_call *grpc_call_new(struct grpc_session_env *env);
/* Drop the session's reference, keeping the memory in env->spare when it was the last. */
void grpc_call_retire(struct grpc_call *call, struct grpc_session_env *env);
void grpc_call_delete(struct grpc_call *call);
/* The headers are complete: charge their memory, or forget them; false when the budget refuses. */
bool grpc_call_keep_headers(struct grpc_call *call);
void grpc_call_add_header(struct grpc_call *call, struct bytes name, struct bytes value);
/* As grpc_call_fail, with an HTTP status that is not 200 where gRPC wants one. */
void grpc_call_refuse(struct grpc_call *call, unsigned http_status, enum grpc_status status,
		      const char *message, uint32_t retry_after_ms);

/* grpc_session.c: take the call's answer. `trailers` says that no message follows. */
struct grpc_field {
	const char *name;
	struct bytes value;
};
void grpc_session_submit(struct grpc_call *call, const struct grpc_field *fields, size_t n,
			 bool trailers_only);
const char *grpc_session_peer(const struct grpc_session *s);
struct loop *grpc_session_loop(const struct grpc_session *s);

#endif
