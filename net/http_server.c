/* SPDX-License-Identifier: Apache-2.0
 *
 * http_server.c - one libmicrohttpd daemon on one libuv loop: driving it, deadlines, drain and
 * stop.
 *
 * DESIGN: libmicrohttpd runs in external-epoll mode; nothing wakes it but us. Whatever touches it
 * ends in http_server_drive, which runs it until it has nothing ready, asks when it wants to run
 * next, and runs it once more whenever a connection ended (at the connection limit the listening
 * socket comes back only then):
 *
 *   uv_poll(epoll fd) --\
 *   uv_timer(timeout) ---+--> drive: MHD_run .. MHD_run
 *   uv_prepare(dirty) --/         ^ answers given from loop tasks and timers only set `dirty`,
 *                                   so that a batch of them is one drive
 *
 * libmicrohttpd's own timeout counts inactivity and a byte every second outlives it, so each phase
 * of a connection (headers, body, held, sending, idle) has a deadline of ours.
 *
 * OWNERSHIP, THREADS: everything on the loop's thread. Connections are libmicrohttpd's; ours live
 * from NOTIFY_STARTED to NOTIFY_CLOSED.
 *
 * LIMITS: max_connections, connection_memory, the phases' times (http_server.h). When connections
 * hold more than their share of the budget, or are as many as may be, the one that was between
 * requests for longest is closed for the new one. A body that stalls while others are refused for
 * want of memory gives its own back.
 *
 * SPEC: RFC 9112; DESIGN section 4; reference/libmicrohttpd.md sections 1, 2, 4.
 */
#include "net/http_private.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <unistd.h>

enum {
	ROUNDS = 4,
	STOP_GRACE_MS = 250,
	CONN_IDLE_CHARGE = 6 * 1024, /* measured: before its pool is touched */
	CONNS_ALWAYS = 32,           /* whatever other listeners' connections hold */
	CONNS_SPARE = 4,   /* below max_connections, where libmicrohttpd stops accepting */
	LATE_MS = 500,     /* while draining: for the first line of one that has just come */
	IDLE_MIN_MS = 500, /* before that a connection has hardly come */
	BODY_TICK_MS = 1000,
	SHORT_GRACE_MS = 1000,         /* for a body that stalls while memory is short, */
	SHORT_BYTES_PER_S = 64 * 1024, /* and the speed it must have after that */
	WATCH_BATCH = 64
};

static const char raw_408[] = "HTTP/1.1 408 Request Timeout\r\n"
			      "Connection: close\r\nContent-Length: 0\r\n\r\n";
static const char raw_503[] = "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\n"
			      "Content-Type: text/plain; charset=utf-8\r\n"
			      "Connection: close\r\nContent-Length: 53\r\n\r\n"
			      "no memory for more connections now, try again later.\n";

/* ---- driving ---- */

static void http_server_drive(struct http_server *s);

static void on_timer(uv_timer_t *t)
{
	http_server_drive(t->data);
}

static void on_poll(uv_poll_t *p, int status, int events)
{
	(void)status;
	(void)events;
	http_server_drive(p->data);
}

static void on_prepare(uv_prepare_t *p)
{
	http_server_drive(p->data);
}

void http_server_dirty(struct http_server *s)
{
	s->dirty = true;
	if (!s->driving && !s->stopping)
		uv_prepare_start(&s->prepare, on_prepare);
}

/* Run once. True when it should run again at once; else *wait_ms is how long it may sleep, -1 for
 * ever. */
static bool drive_once(struct http_server *s, int64_t *wait_ms)
{
	uint64_t closed = s->n_closed;
	MHD_UNSIGNED_LONG_LONG ms = 0;

	s->dirty = false;
	MHD_run(s->daemon);
	*wait_ms = MHD_get_timeout(s->daemon, &ms) == MHD_YES ? (int64_t)ms : -1;
	return *wait_ms == 0 || s->dirty || s->n_closed != closed;
}

static void http_server_drive(struct http_server *s)
{
	bool again = true;
	int64_t wait_ms = -1;

	if (s->driving || s->stopping)
		return;
	s->driving = true;
	uv_prepare_stop(&s->prepare);
	for (int i = 0; again && i < ROUNDS; i++)
		again = drive_once(s, &wait_ms);
	s->driving = false;
	if (again || wait_ms >= 0)
		uv_timer_start(&s->timer, on_timer, again ? 0 : (uint64_t)wait_ms, 0);
	else
		uv_timer_stop(&s->timer);
	/* Last: the callback may free the server. */
	if (s->draining && s->n_conns == 0 && http_tls_is_empty(s->tls) && s->drained != NULL) {
		void (*fn)(struct http_server *, void *) = s->drained;

		s->drained = NULL;
		fn(s, s->drained_arg);
	}
}

/* ---- connections and their deadlines ---- */

/* libmicrohttpd sees an end of file and closes. */
static void conn_leave(struct http_conn *c)
{
	c->leaving = true;
	shutdown(c->fd, SHUT_RDWR);
	http_server_dirty(c->server);
}

static void conn_send(const struct http_conn *c, const char *raw, size_t n)
{
	send(c->fd, raw, n, MSG_DONTWAIT | MSG_NOSIGNAL);
}

/* Does its body stall while others are refused for want of memory? */
static bool is_in_the_way(const struct http_conn *c, uint64_t elapsed_ms)
{
	const struct http_exchange *ex = c->current;
	uint64_t got = ex->req.body != NULL ? ex->req.body->n : 0;

	return ex->state == EX_READ && ex->req.body != NULL &&
	       budget_is_short(c->server->settings.budget) &&
	       elapsed_ms > SHORT_GRACE_MS + got * 1000 / SHORT_BYTES_PER_S;
}

/* Is the body still welcome? Looked at every BODY_TICK_MS. */
static bool body_may_go_on(struct http_conn *c)
{
	uint64_t elapsed_ms = (clock_mono_ns() - c->current->req.received_ns) / NS_PER_MS;
	uint64_t limit_ms = c->server->settings.body_timeout_ms;

	if (limit_ms > 0 && elapsed_ms >= limit_ms) {
		http_exchange_send_raw(c->current, 408, "the body did not arrive in time");
		return false;
	}
	if (is_in_the_way(c, elapsed_ms)) {
		http_exchange_send_raw(c->current, 503, "memory budget spent and the body stalls");
		return false;
	}
	loop_timer_start(c->server->loop, &c->timer,
			 limit_ms > 0 ? MIN(limit_ms - elapsed_ms, BODY_TICK_MS) : BODY_TICK_MS);
	return true;
}

/* The client let its time pass. */
static void conn_expire(void *arg)
{
	struct http_conn *c = arg;

	switch (c->phase) {
	case PHASE_HELD:
		http_respond_error(&c->current->req, 503, 1, "no answer within the time limit");
		http_exchange_gone(c->current, HTTP_GONE_DEADLINE);
		return;
	case PHASE_BODY:
		if (body_may_go_on(c))
			return;
		break;
	case PHASE_HEADERS:
		conn_send(c, raw_408, sizeof(raw_408) - 1);
		break;
	case PHASE_IDLE:
	case PHASE_SEND:
		break;
	}
	conn_leave(c);
}

void http_conn_phase(struct http_conn *c, enum http_phase phase, uint64_t ms)
{
	c->phase = phase;
	c->since_ms = uv_now(loop_uv(c->server->loop));
	if (phase == PHASE_BODY)
		ms = ms > 0 ? MIN(ms, BODY_TICK_MS) : BODY_TICK_MS;
	if (ms == 0)
		loop_timer_stop(c->server->loop, &c->timer);
	else
		loop_timer_start(c->server->loop, &c->timer, ms);
}

/* Between requests, or on the way to one. */
bool http_server_close_idlest(struct http_server *s)
{
	uint64_t now_ms = uv_now(loop_uv(s->loop));
	struct http_conn *idlest = NULL;

	for (struct http_conn *c = s->conns; c != NULL; c = c->next)
		if ((c->phase == PHASE_IDLE || c->phase == PHASE_HEADERS) && !c->leaving &&
		    (idlest == NULL || c->since_ms <= idlest->since_ms))
			idlest = c;
	if (idlest == NULL || now_ms - idlest->since_ms < IDLE_MIN_MS)
		return false;
	if (idlest->phase == PHASE_HEADERS)
		conn_send(idlest, raw_503, sizeof(raw_503) - 1);
	conn_leave(idlest);
	/* Its memory goes in the next turn, but others come in this one. */
	budget_connection_end(s->settings.budget, idlest->charged, idlest->most);
	idlest->charged = idlest->most = 0;
	return true;
}

/* Account for a new connection, which is not in the list yet, and make room for it. */
static void conn_admit(struct http_server *s, struct http_conn *c)
{
	bool is_fine;

	c->charged = CONN_IDLE_CHARGE;
	c->most = CONN_IDLE_CHARGE + s->settings.connection_memory;
	is_fine = budget_connection(s->settings.budget, c->charged, c->most) ||
		  s->n_conns < CONNS_ALWAYS;
	if (is_fine && s->n_conns + CONNS_SPARE < s->settings.max_connections)
		return;
	/* At max_connections libmicrohttpd lets more wait in the backlog. */
	if (http_server_close_idlest(s) || is_fine)
		return;
	conn_send(c, raw_503, sizeof(raw_503) - 1);
	conn_leave(c);
}

/* The pool, once touched, stays as long as the connection. */
static void conn_touch_pool(struct http_conn *c)
{
	size_t n = c->server->settings.connection_memory;

	if (c->charged != CONN_IDLE_CHARGE)
		return;
	budget_force(c->server->settings.budget, n);
	c->charged += n;
}

static void conn_open(struct http_server *s, struct MHD_Connection *mhd, void **socket_context)
{
	const union MHD_ConnectionInfo *info = NULL;
	struct http_conn *c = xcalloc(1, sizeof(*c));

	c->server = s;
	c->mhd = mhd;
	info = MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CONNECTION_FD);
	c->fd = info->connect_fd;
	info = MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
	/* A unix socket's nameless peer is two bytes long, so not for listen_format. */
	if (info->client_addr != NULL && info->client_addr->sa_family != AF_UNIX)
		listen_format(info->client_addr, c->client);
	else
		snprintf(c->client, sizeof(c->client), "unix");
	c->timer.fn = conn_expire;
	c->timer.arg = c;
	conn_admit(s, c);
	c->next = s->conns;
	if (c->next != NULL)
		c->next->prev = c;
	s->conns = c;
	s->n_conns++;
	*socket_context = c;
	http_conn_phase(c, PHASE_IDLE, s->draining ? LATE_MS : s->settings.read_header_timeout_ms);
}

static void conn_close(struct http_server *s, struct http_conn *c)
{
	http_conn_unwatch(c);
	if (c->prev != NULL)
		c->prev->next = c->next;
	else
		s->conns = c->next;
	if (c->next != NULL)
		c->next->prev = c->prev;
	s->n_conns--;
	s->n_closed++;
	budget_connection_end(s->settings.budget, c->charged, c->most);
	loop_timer_stop(s->loop, &c->timer);
	free(c);
}

/* ---- held connections: has the client gone? ---- */

void http_conn_watch(struct http_conn *c)
{
	struct epoll_event ev = { .events = EPOLLRDHUP | EPOLLONESHOT, .data = { .ptr = c } };

	c->watched = epoll_ctl(c->server->watch_fd, EPOLL_CTL_ADD, c->fd, &ev) == 0;
}

void http_conn_unwatch(struct http_conn *c)
{
	if (c->watched)
		epoll_ctl(c->server->watch_fd, EPOLL_CTL_DEL, c->fd, NULL);
	c->watched = false;
}

static void on_watch(uv_poll_t *p, int status, int events)
{
	struct http_server *s = p->data;
	struct epoll_event ev[WATCH_BATCH];
	int n = epoll_wait(s->watch_fd, ev, WATCH_BATCH, 0);

	(void)status;
	(void)events;
	for (int i = 0; i < n; i++) {
		struct http_conn *c = ev[i].data.ptr;

		/* Answered by the callback of one before it? It is not freed before the next drive.
		 */
		if (!c->watched)
			continue;
		http_conn_unwatch(c);
		/* It may be a legal half-close, so the answer stays owed. */
		http_exchange_gone(c->current, HTTP_GONE_CLIENT);
	}
}

/* ---- libmicrohttpd's callbacks ---- */

static void on_connection(void *arg, struct MHD_Connection *mhd, void **socket_context,
			  enum MHD_ConnectionNotificationCode code)
{
	if (code == MHD_CONNECTION_NOTIFY_STARTED)
		conn_open(arg, mhd, socket_context);
	else if (*socket_context != NULL)
		conn_close(arg, *socket_context);
}

/* The request line is complete; its raw form is seen here only. */
static void *on_request_line(void *arg, const char *uri, struct MHD_Connection *mhd)
{
	struct http_server *s = arg;
	struct http_conn *c =
		MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_SOCKET_CONTEXT)->socket_context;
	const char *nul = strstr(uri, "%00");
	const char *query = strchr(uri, '?');

	conn_touch_pool(c);
	c->had_request = true;
	c->nul_in_path = nul != NULL && (query == NULL || nul < query);
	http_conn_phase(c, PHASE_HEADERS, s->settings.read_header_timeout_ms);
	return NULL;
}

static void on_completed(void *arg, struct MHD_Connection *mhd, void **slot,
			 enum MHD_RequestTerminationCode code)
{
	struct http_server *s = arg;
	struct http_conn *c =
		MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_SOCKET_CONTEXT)->socket_context;

	(void)code;
	if (*slot != NULL)
		http_exchange_detach(*slot);
	*slot = NULL;
	http_conn_phase(c, PHASE_IDLE, s->settings.idle_timeout_ms);
}

static void on_log(void *arg, const char *fmt, va_list ap) PRINTF_LIKE(2, 0);

static void on_log(void *arg, const char *fmt, va_list ap)
{
	const struct http_server *s = arg;
	char line[256];
	size_t n = 0;
	/* On a socket pair it cannot set what it need not set. */
	bool of_pair = strstr(fmt, "TCP_") != NULL || strstr(fmt, "push the data") != NULL;

	if (!log_is_on(LOG_DEBUG) || (s->tls != NULL && of_pair))
		return;
	vsnprintf(line, sizeof(line), fmt, ap);
	n = strlen(line);
	if (n > 0 && line[n - 1] == '\n')
		line[n - 1] = '\0';
	log_debug("http", "message", line);
}

/* ---- start ---- */

static struct MHD_Daemon *start_daemon(struct http_server *s, int listen_fd)
{
	unsigned flags = MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG;
	struct MHD_OptionItem listen_item[] = {
		{ listen_fd >= 0 ? MHD_OPTION_LISTEN_SOCKET : MHD_OPTION_END, listen_fd, NULL },
		{ MHD_OPTION_END, 0, NULL },
	};

	if (listen_fd < 0)
		flags |= MHD_USE_NO_LISTEN_SOCKET;
	return MHD_start_daemon(flags, 0, NULL, NULL, http_upload_access, s, /* */
				MHD_OPTION_EXTERNAL_LOGGER, on_log, s,       /* must be the first */
				MHD_OPTION_CONNECTION_LIMIT, s->settings.max_connections,
				MHD_OPTION_CONNECTION_MEMORY_LIMIT, s->settings.connection_memory,
				MHD_OPTION_CONNECTION_TIMEOUT, 0u, /* ours are better */
				MHD_OPTION_NOTIFY_CONNECTION, on_connection, s,
				MHD_OPTION_NOTIFY_COMPLETED, on_completed, s,
				MHD_OPTION_URI_LOG_CALLBACK, on_request_line, s, MHD_OPTION_ARRAY,
				listen_item, MHD_OPTION_END);
}

static void init_handles(struct http_server *s, uv_loop_t *uv)
{
	int fd = MHD_get_daemon_info(s->daemon, MHD_DAEMON_INFO_EPOLL_FD)->epoll_fd;

	uv_timer_init(uv, &s->timer);
	uv_prepare_init(uv, &s->prepare);
	uv_poll_init(uv, &s->poll, fd);
	uv_poll_init(uv, &s->watch_poll, s->watch_fd);
	s->timer.data = s->prepare.data = s->poll.data = s->watch_poll.data = s;
	s->open_handles = 4;
	s->lingers.loop = uv;
	uv_poll_start(&s->poll, UV_READABLE, on_poll);
	uv_poll_start(&s->watch_poll, UV_READABLE, on_watch);
}

struct http_server *http_server_new(struct loop *loop, int listen_fd,
				    const struct http_settings *settings,
				    const struct http_route *routes, size_t n_routes,
				    struct err *err)
{
	struct http_server *s = xcalloc(1, sizeof(*s));

	s->loop = loop;
	s->settings = *settings;
	s->routes = routes;
	s->n_routes = n_routes;
	s->watch_fd = epoll_create1(EPOLL_CLOEXEC);
	s->daemon =
		s->watch_fd < 0 ? NULL : start_daemon(s, settings->tls != NULL ? -1 : listen_fd);
	if (s->daemon == NULL) {
		err_errno(err, "http server");
		if (s->watch_fd >= 0)
			close(s->watch_fd);
		free(s);
		return NULL;
	}
	init_handles(s, loop_uv(loop));
	if (settings->tls != NULL)
		s->tls = http_tls_new(s, listen_fd);
	return s;
}

int http_server_add(struct http_server *s, int fd, const struct sockaddr *peer, socklen_t peer_len,
		    struct err *err)
{
	if (MHD_add_connection(s->daemon, fd, peer, peer_len) != MHD_YES)
		return err_set(err, ERR_EXHAUSTED, "http server: connection refused: %u of %u open",
			       s->n_conns, s->settings.max_connections);
	http_server_dirty(s);
	return 0;
}

unsigned http_server_connections(const struct http_server *s)
{
	return s->n_conns;
}

unsigned http_server_held(const struct http_server *s)
{
	return s->n_held;
}

/* ---- drain and stop ---- */

/* One that has said nothing yet may have its first request on the way, which its client would not
 * send again. */
static void close_idle(struct http_server *s)
{
	for (struct http_conn *c = s->conns; c != NULL; c = c->next) {
		if (c->phase != PHASE_IDLE)
			continue;
		if (c->had_request || s->stopping)
			conn_leave(c);
		else
			http_conn_phase(c, PHASE_IDLE, LATE_MS);
	}
}

void http_server_drain(struct http_server *s, void (*fn)(struct http_server *, void *arg),
		       void *arg)
{
	/* First take in what has arrived already: its clients believe to be served. */
	http_tls_drain(s->tls);
	http_server_drive(s);
	if (!s->draining)
		MHD_quiesce_daemon(s->daemon);
	s->draining = true;
	s->drained = fn;
	s->drained_arg = arg;
	close_idle(s);
	http_server_drive(s);
}

static void answer_held(struct http_server *s)
{
	struct http_conn *c = s->conns;

	while (c != NULL) {
		struct http_conn *next = c->next; /* nothing is unlinked before MHD_run */

		if (c->phase == PHASE_HELD) {
			http_respond_error(&c->current->req, 503, 1, "the server is stopping");
			http_exchange_gone(c->current, HTTP_GONE_STOP);
		}
		c = next;
	}
}

/* Let the last answers out. Twice at least: a resumed connection runs in the turn after. */
static void flush(struct http_server *s)
{
	uint64_t end = clock_mono_ns() + STOP_GRACE_MS * NS_PER_MS;
	struct pollfd p = {
		.fd = MHD_get_daemon_info(s->daemon, MHD_DAEMON_INFO_EPOLL_FD)->epoll_fd,
		.events = POLLIN
	};
	int64_t wait_ms = 0;

	for (int i = 0; i < 2 || (s->n_conns > 0 && clock_mono_ns() < end); i++) {
		if (!drive_once(s, &wait_ms) && i >= 1 && s->n_conns > 0)
			poll(&p, 1, 10);
		http_tls_pump(s->tls);
		close_idle(s);
		/* A handler that ran just now may have held another. */
		if (s->n_held > 0)
			answer_held(s);
	}
}

void http_server_handle_closed(struct http_server *s)
{
	if (--s->open_handles > 0)
		return;
	free(s->tls);
	free(s);
}

static void server_closed(uv_handle_t *h)
{
	http_server_handle_closed(h->data);
}

void http_server_free(struct http_server *s)
{
	if (s == NULL)
		return;
	assert(!s->driving);
	s->stopping = true; /* from here no drive but flush's */
	if (!s->draining)
		MHD_quiesce_daemon(s->daemon);
	s->draining = true;
	http_tls_drain(s->tls);
	answer_held(s);
	flush(s);
	http_tls_close(s->tls);
	assert(s->n_held == 0); /* libmicrohttpd aborts on suspended connections */
	uv_close((uv_handle_t *)&s->poll, server_closed); /* before its descriptor closes */
	uv_close((uv_handle_t *)&s->watch_poll, server_closed);
	MHD_stop_daemon(s->daemon);
	close(s->watch_fd);
	http_linger_stop_all(&s->lingers);
	uv_close((uv_handle_t *)&s->timer, server_closed);
	uv_close((uv_handle_t *)&s->prepare, server_closed);
}
