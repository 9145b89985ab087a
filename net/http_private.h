/* SPDX-License-Identifier: Apache-2.0
 *
 * http_private.h - what http_server.c, http_upload.c and http_request.c share; for them only.
 *
 *   http_server.c   the daemon on its loop: driving, connections and their deadlines, drain, stop
 *   http_upload.c   libmicrohttpd's access handler: checks, body, limits, inflation, handler
 *   http_request.c  the request object: what was received, how it is answered
 *   http_tls.c      TLS in front of libmicrohttpd
 *
 * An exchange goes  BEGIN -> READ -> HANDLER [-> HELD] -> ANSWERED,  or, refused before the end of
 * its body,  BEGIN|READ -> DISCARD -> ANSWERED;  and to GONE from anywhere. The order of
 * libmicrohttpd's callbacks is not this machine (reference/libmicrohttpd.md section 3).
 */
#ifndef NET_HTTP_PRIVATE_H
#define NET_HTTP_PRIVATE_H

#include "net/content_coding.h"
#include "net/http_linger.h"
#include "net/http_server.h"
#include "net/listen.h"
#include "net/loop.h"

#include <microhttpd.h>
#include <uv.h>

enum http_phase { PHASE_IDLE, PHASE_HEADERS, PHASE_BODY, PHASE_HELD, PHASE_SEND };

struct http_conn {
	struct http_server *server;
	struct http_conn *next, *prev;
	struct MHD_Connection *mhd;
	struct http_exchange *current; /* NULL between requests */
	int fd;
	enum http_phase phase;
	uint64_t since_ms;       /* uv_now when the phase began */
	size_t charged, most;    /* of the budget: now, and what it may come to */
	bool leaving;            /* shut down by us */
	bool had_request;        /* the first line of one has come */
	bool nul_in_path;        /* of the request line read last */
	bool watched;            /* for the client's end of file */
	struct loop_timer timer; /* the phase's end */
	char client[LISTEN_ADDR_SIZE];
};

struct http_server {
	struct loop *loop;
	struct http_settings settings;
	const struct http_route *routes;
	size_t n_routes;
	struct MHD_Daemon *daemon;
	struct http_conn *conns;
	unsigned n_conns, n_held;
	uint64_t n_closed;
	struct http_lingers lingers;
	struct http_tls *tls; /* NULL: plain */
	uv_poll_t poll;       /* libmicrohttpd's epoll descriptor */
	uv_timer_t timer;     /* libmicrohttpd's timeout */
	uv_prepare_t prepare; /* drives once before the loop sleeps, when `dirty` */
	uv_poll_t watch_poll; /* epoll set of held connections, for EPOLLRDHUP */
	int watch_fd;
	int open_handles;
	bool driving, dirty, draining, stopping;
	void (*drained)(struct http_server *, void *);
	void *drained_arg;
};

enum exchange_state { EX_BEGIN, EX_READ, EX_DISCARD, EX_HANDLER, EX_HELD, EX_ANSWERED, EX_GONE };

struct http_pair {
	const char *name, *value; /* value NULL: a parameter without '=' */
	bool is_param;
};

struct http_exchange {
	struct http_request req;
	_Atomic uint32_t refs;
	struct budget *budget; /* charged with `charged` bytes for this object */
	size_t charged;
	enum exchange_state state;
	struct loop *loop;
	struct http_conn *conn; /* NULL once it is gone */
	const struct http_route *route;
	struct MHD_Response *response; /* made, not queued yet */
	unsigned status;
	uint64_t max_body;
	uint64_t length; /* Content-Length */
	uint64_t discarded;
	enum content_coding coding;
	bool chunked, expects_continue, must_close;
	void (*gone)(struct http_request *, enum http_gone, void *);
	void *gone_arg;
	void (*call)(struct http_request *, void *);
	void *call_arg;
	void (*gate)(struct http_request *, void *); /* before the handler; NULL: none */
	void *gate_arg;
	const char *challenge; /* of a 401, or NULL */
	struct loop_task task;
	size_t n_pairs;
	struct http_pair pairs[]; /* their text follows */
};

static inline struct http_exchange *exchange_of(struct http_request *req)
{
	return CONTAINER_OF(req, struct http_exchange, req);
}

/* ---- http_request.c ---- */

/* One reference, the server's. Copies everything out of libmicrohttpd. */
struct http_exchange *http_exchange_new(struct http_conn *c, const char *method, const char *path);
/* How many request headers have this name. */
unsigned http_exchange_count(const struct http_exchange *ex, const char *name);
/* Queue ex->response. NO when libmicrohttpd refuses: the connection must close. */
enum MHD_Result http_exchange_queue(struct http_exchange *ex);
/* The connection is gone, or the request ended: nothing of it may be touched after this. */
void http_exchange_detach(struct http_exchange *ex);
/* Nobody waits: tell the holder, once. */
void http_exchange_gone(struct http_exchange *ex, enum http_gone why);
/* Write an answer past libmicrohttpd, where it lets none be queued (mid-body), and end our sending
 * half. An answer made already decides the status. */
void http_exchange_send_raw(struct http_exchange *ex, int status, const char *message);

/* ---- http_upload.c ---- */

/* The request is complete: inflate its body and call the handler. */
void http_upload_handle(struct http_exchange *ex);

enum MHD_Result http_upload_access(void *server, struct MHD_Connection *mhd, const char *url,
				   const char *method, const char *version, const char *data,
				   size_t *size, void **slot);

/* ---- http_server.c ---- */

/* The connection enters a phase that may last so long; 0 ms: for ever. */
void http_conn_phase(struct http_conn *c, enum http_phase phase, uint64_t ms);
/* Watch a held connection for the client's end of file, and stop watching. */
void http_conn_watch(struct http_conn *c);
void http_conn_unwatch(struct http_conn *c);
/* Make room: close the connection that was between requests for longest. False: none was. */
bool http_server_close_idlest(struct http_server *s);
/* One of s->open_handles is closed: the last frees the server. */
void http_server_handle_closed(struct http_server *s);
/* Something was resumed or shut down outside of libmicrohttpd: drive before the loop sleeps. */
void http_server_dirty(struct http_server *s);

/* ---- http_tls.c ---- */

/* Accept on listen_fd (borrowed; -1: nobody) and hand over to s what did its handshake with
 * s->settings.tls. Its memory goes with free once s->open_handles are closed. */
struct http_tls *http_tls_new(struct http_server *s, int listen_fd);
/* Is no connection open, no handshake under way? NULL is empty. */
bool http_tls_is_empty(const struct http_tls *front);
/* No more newcomers; handshakes are given a moment. NULL is fine, here and below. */
void http_tls_drain(struct http_tls *front);
/* Move what libmicrohttpd has written, without a turn of the loop. */
void http_tls_pump(struct http_tls *front);
/* Drop every connection. */
void http_tls_close(struct http_tls *front);

#endif
