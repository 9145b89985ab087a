/* SPDX-License-Identifier: Apache-2.0
 *
 * grpc_client.h - unary gRPC calls to one endpoint, from one loop.
 *
 * A client looks its host up, keeps a connection to every address, and spreads calls over them in
 * turn. Calls wait for the first connection; when every address has failed they fail at once with
 * UNAVAILABLE until one answers again (retrying is the caller's business, reconnecting ours).
 * A connection on which a call timed out or was given up without a byte from the server gets no
 * more calls until the server speaks again, and is closed when it does not answer a PING: a frozen
 * peer is not sent the same spans again and again.
 * Everything is for the loop's thread.
 * SPEC: gRPC over HTTP/2 (unary calls), gRPC connection backoff, RFC 9113.
 */
#ifndef NET_GRPC_CLIENT_H
#define NET_GRPC_CLIENT_H

#include "base/base.h"
#include "base/err.h"
#include "net/content_coding.h"
#include "net/grpc_status.h"
#include "net/loop.h"
#include "net/tls.h"

struct grpc_client;
struct grpc_client_call;

/* 0 or NULL = the default in brackets. Times in milliseconds. Strings are copied. */
struct grpc_client_settings {
	const char *endpoint;          /* host:port, [v6]:port, unix:path; "dns:///", "http://" and
					* "https://" in front are taken off */
	struct tls *tls;               /* NULL = plain; borrowed */
	const char *authority;         /* [the endpoint] */
	const char *user_agent;        /* ["spanmill"] */
	uint64_t connect_timeout_ms;   /* until the server's SETTINGS are here [20 s] */
	uint64_t backoff_min_ms;       /* after a failed connection, +-20 % [1 s], */
	uint64_t backoff_max_ms;       /* growing by 1.6 up to [2 min] */
	uint64_t resolve_ms;           /* the host is looked up again [30 s] and after failures */
	uint64_t keepalive_time_ms;    /* silence before a PING [none] */
	uint64_t keepalive_timeout_ms; /* silence after it [20 s] */
	bool keepalive_idle;           /* PINGs also while no call is open */
	bool wait_for_ready;           /* calls wait although every address has failed */
	bool pick_first;               /* the first address that is up gets all calls */
	size_t max_recv_msg_bytes;     /* of an answer, inflated [4 MiB] */
};

struct grpc_header {
	const char *name; /* lower case */
	struct bytes value;
};

/* Everything but the pieces' bytes is copied by grpc_client_start. */
struct grpc_request {
	const char *path; /* "/package.Service/Method" */
	const struct grpc_header *headers;
	size_t n_headers;
	const struct bytes *pieces; /* the message, in order; the bytes are borrowed until done is
				     * called (compressed here: until grpc_client_start returns) */
	size_t n_pieces;
	enum content_coding coding;
	int level;            /* of the coding; 0 = its default */
	bool is_coded;        /* the pieces are compressed already, in `coding` */
	uint64_t deadline_ns; /* monotonic; sent as grpc-timeout; 0 = none */
};

/* Valid during the callback. */
struct grpc_answer {
	enum grpc_status status;
	const char *message;     /* never NULL */
	bool retryable;          /* as grpc_status_is_retryable says */
	bool has_retry_info;     /* the server sent a RetryInfo: */
	uint32_t retry_after_ms; /* its delay, 0 otherwise */
	struct bytes response;   /* the message when status is OK */
};

/* NULL with err (CONFIG) when the endpoint is malformed. Connects at the first call. */
struct grpc_client *grpc_client_new(struct loop *l, const struct grpc_client_settings *c,
				    struct err *err);
/* Calls in flight are answered CANCELLED in here. The memory goes on a later turn of the loop. Not
 * from a callback of the client's. NULL is fine. */
void grpc_client_free(struct grpc_client *c);

/* Start a call; done is called exactly once, later, on the loop. The handle is good until then. */
struct grpc_client_call *grpc_client_start(struct grpc_client *c, const struct grpc_request *r,
					   void (*done)(const struct grpc_answer *a, void *arg),
					   void *arg);
/* Give up: done is called with CANCELLED before this returns. */
void grpc_client_cancel(struct grpc_client_call *call);
/* Calls that are not answered. */
size_t grpc_client_in_flight(const struct grpc_client *c);
/* Connections that can take calls now. */
size_t grpc_client_connections(const struct grpc_client *c);

#endif
