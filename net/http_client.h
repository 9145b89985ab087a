/* SPDX-License-Identifier: Apache-2.0
 *
 * http_client.h - blocking HTTP requests (libcurl), for the command line tools and for workers.
 *
 * libcurl is loaded at the first http_client_new, so a process that asks nobody pays nothing.
 * One client is one thread's at a time and keeps its connections alive between calls. Redirects are
 * not followed. A status of 400 and more is an answer, not an error. The path of the URL is sent as
 * it is. Proxies are those of the environment (http_proxy, no_proxy, ...), as libcurl reads them.
 */
#ifndef NET_HTTP_CLIENT_H
#define NET_HTTP_CLIENT_H

#include "base/base.h"
#include "base/buf.h"
#include "base/err.h"
#include "net/http_request.h"

#include <stdatomic.h>

struct http_client;

struct http_client_settings {
	uint32_t connect_timeout_ms; /* 0: 5 s */
	uint32_t timeout_ms;         /* of a whole call; 0: 30 s */
	uint32_t stall_timeout_ms;   /* without a byte either way; whole seconds, 0: none */
	const char *unix_socket; /* connect to this path instead of the URL's host; may be NULL */
	const char *ca_file, *cert_file, *key_file; /* TLS; NULL: the system's, none */
	bool insecure_skip_verify;
	bool no_proxy;                 /* never, whatever the environment says */
	const char *proxy;             /* URL; NULL: the environment's */
	const char *min_tls, *max_tls; /* "1.2"; NULL: libcurl's */
	bool one_call_per_connection;  /* connections are closed after the answer */
	uint32_t max_idle_s;           /* older idle connections are not used again [118] */
	/* Set by any thread: calls under way end soon (0.1 s, of a group a second or so) with
	 * UNAVAILABLE, later ones at once. Borrowed; may be NULL. */
	const _Atomic bool *interrupt;
	/* The same, for who has to ask: called on the caller's thread while it waits. */
	bool (*is_interrupted)(void *arg);
	void *interrupt_arg;
};

struct http_call {
	const char *method; /* NULL: GET, or POST with a body */
	const char *url;
	const struct http_header *headers;
	size_t n_headers;
	const struct bytes *body; /* pieces, sent one after another */
	size_t n_body;
	uint32_t timeout_ms; /* 0: the client's */
	size_t max_reply;    /* bytes of the answer's body, inflated; 0: 64 MiB */
	/* The body of a 2xx answer is appended here instead of reply->body, and is what max_reply
	 * bounds; other answers then have 1 MiB. As before the call when it fails. May be NULL. */
	struct buf *into;
	bool accept_compressed; /* ask for gzip and inflate it */
	/* Asked before the answer's body takes n bytes more of memory; false ends the call with
	 * EXHAUSTED. Whoever grants gives it back, when the body is freed. May be NULL. */
	bool (*grant)(void *arg, size_t n);
	void *grant_arg;
};

struct http_reply {
	int status;
	struct buf headers; /* "name\0value\0", use http_reply_header */
	struct buf body;
};

#define HTTP_REPLY_INIT                                                                            \
	{                                                                                          \
		0, BUF_INIT, BUF_INIT                                                              \
	}

/* settings are copied; NULL: defaults. NULL and *err (UNIMPLEMENTED) where libcurl is missing. */
struct http_client *http_client_new(const struct http_client_settings *settings, struct err *err);
void http_client_free(struct http_client *c); /* NULL is fine */

/* Send and wait. Fills *reply (emptied first; the caller frees it with http_reply_fini in any
 * case). 0 when an answer came. Errors: UNAVAILABLE (name, connection, cut short), TIMEOUT,
 * TOO_LARGE (over max_reply), INVALID (URL, not HTTP), PERMISSION (TLS verification); the text
 * names the method, the URL without user and query, and the peer. */
int http_client_call(struct http_client *c, const struct http_call *call, struct http_reply *reply,
		     struct err *err);
/* The first header of that name (any case), or NULL. */
const char *http_reply_header(const struct http_reply *reply, const char *name);
void http_reply_fini(struct http_reply *reply);

/* Where a URL points, for messages: without user, and without what may be a secret in the query. */
enum { HTTP_WHERE_MAX = 160 };
void http_client_where(const char *url, char out[HTTP_WHERE_MAX]);

/* Several calls at once, on one thread: what a look-up at many servers is. Keeps their connections
 * alive between calls; one thread's at a time. Settings and errors as of http_client_new. */
struct http_group;

struct http_group *http_group_new(const struct http_client_settings *settings, struct err *err);
void http_group_free(struct http_group *g); /* NULL is fine */
/* Send all, wait for all: calls[i] fills replies[i] and errs[i], whose kind is NONE when an answer
 * came, as http_client_call does. Ends when the last of them has its answer or its time-out. */
void http_group_call(struct http_group *g, const struct http_call *calls,
		     struct http_reply *replies, struct err *errs, size_t n);

/* Calls that nobody waits for: any number at once, on a thread of the lane's own, which starts with
 * the first of them. */
struct http_lane;

struct http_lane_limits {
	uint32_t max_conns; /* open at a time; more calls wait. 0: no limit */
	uint32_t max_idle;  /* kept open; 0: libcurl's choice */
};

/* One call. The caller owns it, and leaves it and what `call` points to alone from http_lane_start
 * until `done`, or until http_lane_cancel says true. */
struct http_lane_call {
	struct http_call call;
	void (*done)(struct http_lane_call *c); /* on the lane's thread; may free it */
	void *arg;                              /* the caller's */
	struct http_reply reply;                /* HTTP_REPLY_INIT; the caller frees it */
	struct err err;                         /* kind NONE: an answer came */
	/* ---- the lane's ---- */
	struct http_lane_call *next;
	struct http_client *client;
	struct call_state *state;
	int stage;
};

/* Settings and errors as of http_client_new; limits may be NULL. */
struct http_lane *http_lane_new(const struct http_client_settings *settings,
				const struct http_lane_limits *limits, struct err *err);
/* No call is under way and none is started. NULL is fine. */
void http_lane_free(struct http_lane *l);
/* Any thread. `done` follows exactly once, unless it is cancelled. */
void http_lane_start(struct http_lane *l, struct http_lane_call *c);
/* Give the call up: its connection is closed. True: `done` is not called any more and what the call
 * points to is free. False: it was called, or is being called now. Any thread but the lane's own;
 * waits for that thread, which does not wait for the network. */
bool http_lane_cancel(struct http_lane *l, struct http_lane_call *c);

#endif
