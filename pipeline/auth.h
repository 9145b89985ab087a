/* SPDX-License-Identifier: Apache-2.0
 *
 * auth.h - what an authenticator extension lends to receivers and exporters, and how servers ask
 * it.
 *
 *   request's headers -> check: yes, no, busy
 *                          \-> later: body is read -> worker: check_slowly -> handler, or 401
 *
 * A type with `authenticator` (pipeline/component.h) is one; `auth: {authenticator: ID}` of the
 * server and client option blocks names an instance.
 * THREADS: a struct authenticator's functions: any thread, from before start until after shutdown
 * (then everybody is refused). The servers' functions here: the request's loop.
 * SPEC: the Collector's `auth` keys; RFC 9110 11.6 (401, WWW-Authenticate).
 */
#ifndef PIPELINE_AUTH_H
#define PIPELINE_AUTH_H

#include "net/grpc_server.h"
#include "net/http_request.h"
#include "pipeline/component.h"

enum auth_verdict {
	AUTH_YES,
	AUTH_NO,
	AUTH_LATER, /* only check_slowly knows */
};

struct auth_worker;

struct authenticator {
	void *arg;
	/* The server's half; check is NULL when its configuration has none. `value` is the header
	 * of this (lower-case) name, p NULL without one. Never blocks. */
	const char *header;
	const char *challenge; /* for WWW-Authenticate */
	enum auth_verdict (*check)(void *arg, struct bytes value);
	/* On the worker's thread, which check's AUTH_LATER needs. YES or NO. */
	enum auth_verdict (*check_slowly)(void *arg, struct bytes value);
	struct auth_worker *worker;
	/* The client's half; NULL likewise. Append the value of `client_header` (lower-case) to
	 * `out`. -1 when there are no credentials now. */
	const char *client_header;
	int (*credentials)(void *arg, struct buf *out, struct err *err);
};

/* The extension's, by the id in an `auth` block; NULL for "". -1 (err CONFIG) when it is none, or
 * has not the half that is asked for. */
int auth_of_server(struct component *c, const char *id, const struct authenticator **a,
		   struct err *err);
int auth_of_client(struct component *c, const char *id, const struct authenticator **a,
		   struct err *err);

/* For http_settings.admit: answers 401, or 503 when too many wait to be checked; or lets it in, now
 * or later. Borrows a until the request is answered. */
void auth_http(struct http_request *req, const struct authenticator *a);
/* For grpc_server_settings.admit; admit_arg is the authenticator. */
enum grpc_status auth_grpc(struct grpc_call *call, const char **message, void *authenticator);

/* One thread that checks what takes long, one after the other; at most 64 wait. */
struct auth_worker *auth_worker_new(void);
/* Ends once it has answered what waits. NULL is fine. */
void auth_worker_free(struct auth_worker *w);

#endif
