/* SPDX-License-Identifier: Apache-2.0
 *
 * grpc_link.h - one connection of a gRPC client and the calls on it. Private to grpc_client.c and
 * grpc_link.c; others use grpc_client.h. Loop's thread only.
 */
#ifndef NET_GRPC_LINK_H
#define NET_GRPC_LINK_H

#include "base/buf.h"
#include "net/grpc_client.h"
#include "net/listen.h"
#include "net/stream.h"

#include <nghttp2/nghttp2.h>
#include <sys/socket.h>

struct grpc_link;

struct grpc_client_call {
	struct grpc_client *client;
	struct grpc_link *link; /* NULL: waiting, or over */
	struct grpc_client_call *next,
		*prev; /* in the client's waiting or over list, or the link's */
	int32_t stream_id;
	uint64_t started_ms; /* it was put on the link */
	struct loop_timer deadline;
	uint64_t deadline_ns;
	void (*done)(const struct grpc_answer *a, void *arg); /* NULL once it was called */
	void *arg;
	/* The request. */
	struct buf fields; /* n_fields times: u32 name length, u32 value length, name, value */
	size_t n_fields;
	struct bytes *pieces; /* [0] is the prefix */
	size_t n_pieces;
	size_t piece, piece_off; /* how far it is sent */
	size_t unread;           /* bytes of the request that nghttp2 has not asked for */
	uint8_t prefix[5];
	struct buf coded; /* the compressed message, when there is a coding */
	/* The answer. */
	unsigned http_status;
	int status; /* -1 until grpc-status is here */
	enum content_coding coding;
	struct buf message;
	struct buf response; /* with its prefix */
	uint32_t retry_after_ms;
	bool has_retry_info;
	bool too_large;
	bool again; /* it was refused unseen once already */
};

/* An address that the client keeps a connection to. */
struct grpc_target {
	struct sockaddr_storage addr;
	socklen_t addr_n;
	char text[LISTEN_ADDR_SIZE];
	struct grpc_client *client;
	struct grpc_target *next;
	struct grpc_link *link;   /* the one that takes calls; NULL = none */
	struct loop_timer redial; /* runs while there is none */
	uint64_t backoff_ms;      /* the next wait; 0 = none failed */
	bool failed;              /* the last attempt did */
	bool stale;               /* the last look-up did not give it any more */
};

struct grpc_link {
	struct stream stream;
	nghttp2_session *h2;
	struct grpc_client *client;
	struct grpc_target *target; /* NULL: takes no more calls */
	struct grpc_link *next, *prev;
	struct grpc_link *next_dirty;
	struct grpc_client_call *calls;
	struct loop_timer timer; /* connect timeout, then keepalive */
	uint64_t opened_ms, heard_ms;
	bool pinged;
	bool ready;        /* the server's SETTINGS are here */
	bool doubted;      /* silent while a call timed out: takes no calls until it is heard */
	unsigned n_doubts; /* since the last answer */
	bool dirty;
	bool closed;
	/* What the turn of the send loop collects. */
	struct iovec *iov;
	size_t n_iov;
	uint8_t *copy;
	size_t copy_n;
	bool full;
	char peer[LISTEN_ADDR_SIZE];
};

/* What a link needs of its client. */
struct grpc_link_env {
	struct loop *loop;
	struct tls *tls;
	const char *host; /* for certificates */
	uint64_t connect_timeout_ms, keepalive_time_ms, keepalive_timeout_ms;
	bool keepalive_idle;
	size_t max_recv_msg_bytes;
	uint8_t *copy;     /* GRPC_LINK_COPY_BYTES, shared by a client's links */
	struct iovec *iov; /* GRPC_LINK_IOVS, likewise */
};

enum { GRPC_LINK_COPY_BYTES = 64 * 1024, GRPC_LINK_IOVS = 256 };

/* Begin to connect. NULL with err when that fails at once. */
struct grpc_link *grpc_link_new(struct grpc_client *client, struct grpc_target *t, struct err *err);
/* Put a call on a ready link. -1: the link takes no more, the call is untouched. */
int grpc_link_start(struct grpc_link *k, struct grpc_client_call *call);
/* Reset the call's stream and take it off the link. */
void grpc_link_drop(struct grpc_link *k, struct grpc_client_call *call);
/* A call that was started at since_ms timed out or was given up: if nothing was heard from the
 * server meanwhile, doubt the connection and ask by PING. */
void grpc_link_doubt(struct grpc_link *k, uint64_t since_ms);
/* Take no more calls; close once the ones there are over. */
void grpc_link_retire(struct grpc_link *k);
/* Send what there is to send. */
void grpc_link_flush(struct grpc_link *k);
/* Close now; its calls are answered UNAVAILABLE with `why`. */
void grpc_link_close(struct grpc_link *k, const char *why);

/* ---- grpc_client.c ---- */
const struct grpc_link_env *grpc_client_env(const struct grpc_client *c);
void grpc_client_link_ready(struct grpc_link *k);
/* The link takes no more calls (GOAWAY) or is closed. `why` NULL: without anything having failed.
 */
void grpc_client_link_lost(struct grpc_link *k, const char *why);
void grpc_client_link_freed(struct grpc_link *k);
void grpc_client_mark_dirty(struct grpc_link *k);
void grpc_client_unmark(struct grpc_link *k);
/* The call is over: say so to its owner and free it. It is on no list. */
void grpc_client_finish(struct grpc_client_call *call, enum grpc_status status,
			const char *message);
/* The server has not seen the call: let it wait for another link. It is on no list. */
void grpc_client_requeue(struct grpc_client_call *call);
/* Forget how far the request was sent. */
void grpc_client_rewind(struct grpc_client_call *call);

#endif
