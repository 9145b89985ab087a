/* SPDX-License-Identifier: Apache-2.0
 *
 * http_request.h - one HTTP request as a receiver or the query API sees it, and how it is answered.
 *
 * OWNERSHIP: refcounted. The server holds one reference while the connection is busy with it; who
 * answers later takes another (http_request_ref) in its handler and drops it after answering.
 *
 * THREADS: what was received is immutable and readable on any thread that holds a reference. What
 * answers or changes the request runs on its loop; http_request_call gets there from elsewhere.
 */
#ifndef NET_HTTP_REQUEST_H
#define NET_HTTP_REQUEST_H

#include "base/base.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/rcbuf.h"

struct loop;

struct http_request {
	const char *method;
	const char *path;   /* percent-decoded, without the query */
	const char *rest;   /* of a prefix route: the path after the prefix; else "" */
	const char *client; /* "192.0.2.1:4711", "[2001:db8::1]:4711" or "unix" */
	struct rcbuf
		*body; /* decoded; NULL when empty. A handler may take it over: set NULL here */
	uint64_t received_ns; /* clock_mono_ns of the headers */
	uint64_t deadline_ns; /* clock_mono_ns by which the server answers 503 itself */
};

/* Why nobody waits for an answer any more. */
enum http_gone {
	HTTP_GONE_CLIENT,   /* the client closed, perhaps only its sending half: an answer may still
			       be given */
	HTTP_GONE_DEADLINE, /* 503 was sent */
	HTTP_GONE_STOP,     /* the server stops: 503 was sent, or the connection was cut */
};

struct http_header {
	const char *name, *value;
};

/* An answer. Everything is borrowed during the call, except `shared`. */
struct http_answer {
	int status;
	const char *content_type;          /* NULL: none */
	const struct http_header *headers; /* extra ones */
	size_t n_headers;
	struct bytes body;      /* copied */
	struct rcbuf *shared;   /* instead of body: takes this reference */
	bool body_is_static;    /* `body` lives for ever: not copied */
	unsigned retry_after_s; /* > 0: a Retry-After header */
	bool close;             /* close the connection afterwards */
};

/* Answer. Loop thread; at most once by the holder, which need not know whether anybody still waits.
 * In a handler, or later while held. 0 when the answer was taken, -1 when it came too late
 * (deadline, vanished client, stop): then it is dropped, which harms nothing. GET answers over 1
 * KiB are gzipped when the client accepts that. */
int http_respond(struct http_request *req, const struct http_answer *answer);
/* A text/plain answer. Loop thread. */
int http_respond_text(struct http_request *req, int status, const char *fmt, ...) PRINTF_LIKE(3, 4);
/* An error in the form the route's error callback gives it; retry_after_s 0: no such header.
 * Loop thread. */
int http_respond_error(struct http_request *req, int status, unsigned retry_after_s,
		       const char *fmt, ...) PRINTF_LIKE(4, 5);
/* The status that fits an error's kind: INVALID 400, TOO_LARGE 413, EXHAUSTED and UNAVAILABLE 503,
 * NOT_FOUND 404, PERMISSION 403, UNIMPLEMENTED 501, TIMEOUT 504, else 500. Any thread. */
int http_status_of(const struct err *err);

/* Request headers (any case), the first of that name; NULL without. Any thread, any time. */
const char *http_request_header(const struct http_request *req, const char *name);
/* Query parameters, percent-decoded; NULL without; "" for a name without a value. */
const char *http_request_param(const struct http_request *req, const char *name);
/* The i-th parameter, for callers that accept repeated or unknown names. False past the end. */
bool http_request_param_at(const struct http_request *req, size_t i, const char **name,
			   const char **value);
/* Does Content-Type name this media type (parameters such as charset are ignored, any case)? */
bool http_request_is_type(const struct http_request *req, const char *media_type);

/* The loop the request lives on. Any thread. */
struct loop *http_request_loop(const struct http_request *req);
/* Any thread. */
struct http_request *http_request_ref(struct http_request *req);
void http_request_unref(struct http_request *req); /* NULL is fine */

/* In `begin`: another limit of the body than the server's, in bytes on the wire and inflated. */
void http_request_set_max_body(struct http_request *req, uint64_t bytes);
/* What WWW-Authenticate says in a 401 (borrowed until the answer). */
void http_request_challenge(struct http_request *req, const char *challenge);
/* In `admit` or `begin`: when the request is complete call fn instead of its handler. fn answers,
 * or takes a reference and calls http_request_proceed later. */
void http_request_gate(struct http_request *req, void (*fn)(struct http_request *, void *arg),
		       void *arg);
/* Let a gated request through to its handler. Loop thread; harmless when nobody waits any more. */
void http_request_proceed(struct http_request *req);
/* In `begin` or the handler: answer 503 at this time (clock_mono_ns), when that is earlier. */
void http_request_set_deadline(struct http_request *req, uint64_t deadline_ns);
/* In the handler: call fn on the loop when it turns out that nobody waits, at most once: on the
 * client's end of file, or right after the server gave a 503 itself. For withdrawing work; the
 * reference must be dropped all the same. */
void http_request_on_gone(struct http_request *req,
			  void (*fn)(struct http_request *, enum http_gone, void *arg), void *arg);
/* Any thread that holds a reference: run fn(req, arg) on the request's loop, where it may answer. A
 * reference is held meanwhile. One call at a time per request; the loop must outlive it. */
void http_request_call(struct http_request *req, void (*fn)(struct http_request *, void *arg),
		       void *arg);

#endif
