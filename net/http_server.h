/* SPDX-License-Identifier: Apache-2.0
 *
 * http_server.h - HTTP/1.1 on one loop: a listening socket, a table of routes, handlers that may
 * answer later.
 *
 * The server checks, reads, bounds, charges and inflates; a handler sees complete requests only.
 * What it refuses by itself, each in the form the route's error callback gives it:
 *   400 two Content-Length or one beside Transfer-Encoding, %00 in the path, a damaged body
 *   404 unknown path, 405 known path (with Allow), 408 body too slow
 *   413 over max_body (counted inflated), or more than an empty budget could hold
 *   415 unknown Content-Encoding, 501 a transfer coding other than chunked
 *   503 with Retry-After: 1 budget spent, a body that stalls then, too many connections, deadline
 *       of a held answer, stop
 * Malformed HTTP is libmicrohttpd's 400, 414 or 431.
 */
#ifndef NET_HTTP_SERVER_H
#define NET_HTTP_SERVER_H

#include "base/budget.h"
#include "net/content_coding.h"
#include "net/http_request.h"
#include "net/loop.h"
#include "net/tls.h"

#include <sys/socket.h>

/* Fill body and *content_type (static text) for an error. Loop thread. */
typedef void (*http_error_fn)(const struct http_request *req, int status, const char *message,
			      struct buf *body, const char **content_type, void *arg);
struct http_headers;
typedef void (*http_handler_fn)(struct http_request *req, void *arg);

struct http_route {
	const char *method; /* "GET" serves HEAD too */
	const char *path;
	bool is_prefix;    /* everything that starts with `path`; exact routes are tried first */
	uint64_t max_body; /* 0: the server's */
	http_handler_fn begin; /* NULL, or called before any body is read: may answer (401, 415) */
	http_handler_fn handler; /* the request is complete; answers now, or takes a reference */
	http_error_fn error;     /* NULL: the server's */
	void *arg;               /* of the three */
};

struct http_settings {
	uint64_t max_body;                /* bytes, on the wire and inflated */
	unsigned max_decompression_ratio; /* of a body, inflated by its bytes; 0: any */
	uint32_t read_header_timeout_ms;  /* from the first line, or the connection, to the last
					    header */
	uint32_t body_timeout_ms;         /* from the headers to the last byte of the body; 0: for
					    ever, unless it stalls while memory is short */
	uint32_t hold_timeout_ms;         /* from the complete request to the answer */
	uint32_t write_timeout_ms;        /* from the answer to its last byte */
	uint32_t idle_timeout_ms;         /* between requests */
	uint32_t handshake_timeout_ms;    /* of TLS */
	unsigned max_connections;         /* more make the idlest one go */
	unsigned max_handshakes;          /* of TLS, at a time; more make the oldest one go */
	struct tls *tls;                  /* NULL: plain; borrowed. ALPN: http/1.1 */
	size_t connection_memory;         /* of libmicrohttpd per connection; bounds the headers */
	struct budget *budget;            /* may be NULL */
	http_error_fn error;              /* NULL: text/plain */
	void *error_arg;
	/* NULL, or called before the path is looked up: may answer (a preflight, 401). */
	http_handler_fn admit;
	/* NULL, or adds headers to every answer by http_answer_header. */
	void (*decorate)(const struct http_request *req, struct http_headers *to, void *arg);
	void *admit_arg; /* of both */
};

#define HTTP_SETTINGS_INIT                                                                         \
	{                                                                                          \
		.max_body = 20 * MIB, .max_decompression_ratio = CONTENT_RATIO_DEFAULT,            \
		.read_header_timeout_ms = 60000, .body_timeout_ms = 60000,                         \
		.hold_timeout_ms = 5000, .write_timeout_ms = 60000, .idle_timeout_ms = 120000,     \
		.handshake_timeout_ms = 10000, .max_connections = 4096, .max_handshakes = 256,     \
		.connection_memory = 32768                                                         \
	}

struct http_server;

/* For `decorate`: one more header. */
void http_answer_header(struct http_headers *to, const char *name, const char *value);

/* Serve `listen_fd` (borrowed, never closed; -1: only http_server_add). routes are borrowed for as
 * long as the server lives, settings are copied. Loop thread, or before the loop runs.
 * NULL and *err when libmicrohttpd refuses (out of descriptors). */
struct http_server *http_server_new(struct loop *loop, int listen_fd,
				    const struct http_settings *settings,
				    const struct http_route *routes, size_t n_routes,
				    struct err *err);
/* Serve a connected socket that came another way, as plain text; takes fd. Loop thread. */
int http_server_add(struct http_server *s, int fd, const struct sockaddr *peer, socklen_t peer_len,
		    struct err *err);
/* Stop accepting, close idle connections, answer what runs with Connection: close; calls fn once no
 * connection is left (perhaps at once). Close or pass on the listening socket: its backlog is not
 * served any more. Loop thread. */
void http_server_drain(struct http_server *s, void (*fn)(struct http_server *, void *arg),
		       void *arg);
/* Connections now; those whose answer is held. Loop thread. */
unsigned http_server_connections(const struct http_server *s);
unsigned http_server_held(const struct http_server *s);
/* Answer what is held with 503, give the answers STOP_GRACE_MS to leave, cut the rest. The handles
 * close on the next turns of the loop, so run it once more before its end. Loop thread; not from a
 * handler. NULL is fine. */
void http_server_free(struct http_server *s);

#endif
