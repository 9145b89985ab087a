/* SPDX-License-Identifier: Apache-2.0
 *
 * http_tls.c - TLS in front of libmicrohttpd: handshakes, and the bytes of each connection through
 * a socket pair.
 *
 * DESIGN: libmicrohttpd reads and writes a descriptor and nothing else, so it is given one end of a
 * pair once the handshake is done; to it and to the rest of http_server this is a connection like
 * any other, with its deadlines, its lingering and its watch for the client's end.
 *
 *   client ==TLS==> stream --up--> [pair] --> libmicrohttpd
 *          <==TLS==        <------ [pair] <--
 *
 * A side that does not take bytes stops the reading of the other, so one connection holds at most
 * READ_BYTES in each direction beside what the kernel keeps. A clean end (close_notify) of one
 * direction is passed on and the other goes on; a dirty one ends both once what came is delivered.
 * OWNERSHIP, THREADS: everything on the loop's thread.
 * LIMITS: max_connections with the handshakes under way; max_handshakes of those, each of
 * handshake_timeout_ms. When there are as many as may be the oldest goes, unless it has just come:
 * then newcomers wait in the backlog. A client that takes nothing for write_timeout_ms is cut off.
 * SPEC: RFC 8446; RFC 7301 (http/1.1); reference/libmicrohttpd.md section 6.
 */
#include "net/http_private.h"

#include "base/log.h"
#include "base/mem.h"
#include "net/stream.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
	READ_BYTES = 64 * 1024,
	PAIR_BYTES = 64 * 1024, /* the kernel's half of each direction */
	TLS_CHARGE = 32 * 1024, /* idle: OpenSSL's session, and this */
	ACCEPTS_PER_TURN = 64,  /* so that those who are here get their turn */
	ACCEPT_PAUSE_MS = 50,   /* until it is looked again for room */
	JUST_COME_MS = 500,     /* a handshake of that age is not cut for a newcomer */
	DRAIN_HANDSHAKE_MS = 1000,
	CLOSE_MS = 2500,    /* for the client's end after ours; more than http_linger takes */
	BLOCKED_MS = 30000, /* without a write_timeout */
};

struct http_tls_conn {
	struct stream stream; /* the client */
	uv_poll_t poll;       /* our end of the pair */
	struct http_tls *front;
	struct http_tls_conn *next, *prev;
	struct loop_timer timer; /* of the handshake, of a blocked client, of the end */
	struct buf up;           /* of the client, for the pair: what it did not take yet */
	size_t up_off;
	int pair; /* -1: handshake */
	int pair_events;
	unsigned n_handles; /* of libuv, not closed yet */
	uint64_t since_ms;  /* when it came */
	size_t charged;
	bool client_ended; /* nothing more comes from it, */
	bool broken;       /* nor can anything be sent to it */
	bool server_ended; /* libmicrohttpd has said all, */
	bool said_end;     /* and the client was told */
	struct sockaddr_storage peer;
	socklen_t peer_len;
};

struct http_tls {
	struct http_server *server;
	uv_poll_t poll; /* the listening socket */
	int listen_fd;
	bool accepting; /* the poll is armed */
	bool closed;    /* no more newcomers */
	struct loop_timer pause;
	struct http_tls_conn *conns; /* newest first */
	unsigned n_conns, n_handshakes;
};

/* ---- the end of a connection ---- */

static void accept_again(void *arg);

static void conn_handle_closed(struct http_tls_conn *k)
{
	struct http_server *s = k->front->server;

	if (--k->n_handles > 0)
		return;
	buf_fini(&k->up);
	free(k);
	http_server_handle_closed(s);
}

static void pair_closed(uv_handle_t *h)
{
	conn_handle_closed(h->data);
}

static void stream_closed(struct stream *stream)
{
	conn_handle_closed(CONTAINER_OF(stream, struct http_tls_conn, stream));
}

static void conn_end(struct http_tls_conn *k)
{
	struct http_tls *front = k->front;
	struct http_server *s = front->server;

	if (k->stream.closing)
		return;
	loop_timer_stop(s->loop, &k->timer);
	if (k->prev != NULL)
		k->prev->next = k->next;
	else
		front->conns = k->next;
	if (k->next != NULL)
		k->next->prev = k->prev;
	front->n_conns--;
	front->n_handshakes -= k->pair < 0;
	budget_connection_end(s->settings.budget, k->charged, TLS_CHARGE);
	if (k->pair >= 0) {
		uv_close((uv_handle_t *)&k->poll, pair_closed);
		close(k->pair); /* libmicrohttpd meets an end of file */
	}
	stream_close(&k->stream, stream_closed);
	/* There may be room for a newcomer, or nobody left to wait for. */
	if (!front->closed && !front->accepting)
		accept_again(front);
	http_server_dirty(s);
}

/* ---- bytes ---- */

static void pair_ready(uv_poll_t *p, int status, int events);

static bool up_waits(const struct http_tls_conn *k)
{
	return k->up.n > k->up_off;
}

static void note_memory(struct http_tls_conn *k)
{
	size_t now = TLS_CHARGE + k->up.cap + stream_pending(&k->stream);
	struct budget *b = k->front->server->settings.budget;

	if (now > k->charged)
		budget_force(b, now - k->charged);
	else
		budget_release(b, k->charged - now);
	k->charged = now;
}

/* Poll for what can go on. */
static void arm(struct http_tls_conn *k)
{
	int want = 0;

	stream_pause(&k->stream, up_waits(k));
	if (!k->server_ended && !k->broken && !stream_is_blocked(&k->stream))
		want |= UV_READABLE;
	if (up_waits(k))
		want |= UV_WRITABLE;
	note_memory(k);
	if (want == k->pair_events)
		return;
	k->pair_events = want;
	if (want == 0)
		uv_poll_stop(&k->poll);
	else
		uv_poll_start(&k->poll, want, pair_ready);
}

/* Of p, what the pair takes now. -1: its other end is closed. */
static ssize_t push(const struct http_tls_conn *k, const uint8_t *p, size_t n)
{
	size_t at = 0;

	while (at < n) {
		ssize_t rc = send(k->pair, p + at, n - at, MSG_DONTWAIT | MSG_NOSIGNAL);

		if (rc < 0 && errno == EINTR)
			continue;
		if (rc < 0)
			return errno == EAGAIN || errno == EWOULDBLOCK ? (ssize_t)at : -1;
		at += (size_t)rc;
	}
	return (ssize_t)at;
}

/* What waited goes on. -1: the connection ended. */
static int flush_up(struct http_tls_conn *k)
{
	ssize_t n = push(k, k->up.p + k->up_off, k->up.n - k->up_off);

	if (n < 0) {
		conn_end(k);
		return -1;
	}
	k->up_off += (size_t)n;
	if (up_waits(k))
		return 0;
	buf_fini(&k->up);
	k->up_off = 0;
	if (k->broken) {
		conn_end(k);
		return -1;
	}
	if (k->client_ended)
		shutdown(k->pair, SHUT_WR);
	return 0;
}

/* The client's direction is over. -1: so is the connection. */
static int client_end(struct http_tls_conn *k, const struct err *err)
{
	if (err->kind != ERR_NONE)
		log_debug("https connection failed", "error", err->msg);
	k->client_ended = true;
	k->broken = err->kind != ERR_NONE;
	/* We said our last and it did, too. */
	if (k->said_end) {
		conn_end(k);
		return -1;
	}
	return flush_up(k);
}

/* Client -> pair. -1: the connection ended. */
static int pump_up(struct http_tls_conn *k)
{
	uint8_t *scratch = loop_scratch(k->front->server->loop);
	struct err err = ERR_INIT;
	ssize_t n, taken;

	if (up_waits(k) || k->client_ended)
		return 0;
	n = stream_read(&k->stream, scratch, READ_BYTES, &err);
	if (n < 0)
		return client_end(k, &err);
	if (n == 0)
		return 0;
	taken = push(k, scratch, (size_t)n);
	if (taken < 0) {
		conn_end(k);
		return -1;
	}
	if (taken < n)
		buf_add(&k->up, scratch + taken, (size_t)(n - taken));
	/* It is read before the loop sleeps, without another turn. */
	http_server_dirty(k->front->server);
	return 0;
}

/* Can nobody read the pair's other end any more? Else http_linger does. */
static bool is_pair_closed(const struct http_tls_conn *k)
{
	struct pollfd p = { .fd = k->pair, .events = POLLIN };

	return poll(&p, 1, 0) > 0 && (p.revents & POLLHUP) != 0;
}

/* libmicrohttpd has said all and the client has it. -1: the connection ended. */
static int server_end(struct http_tls_conn *k)
{
	if (is_pair_closed(k) || k->client_ended) {
		conn_end(k);
		return -1;
	}
	k->said_end = true;
	stream_end(&k->stream);
	loop_timer_start(k->front->server->loop, &k->timer, CLOSE_MS);
	return 0;
}

static void watch_blocked(struct http_tls_conn *k)
{
	const struct http_settings *c = &k->front->server->settings;
	struct loop *l = k->front->server->loop;

	if (!stream_is_blocked(&k->stream))
		loop_timer_stop(l, &k->timer);
	else
		loop_timer_start(l, &k->timer,
				 c->write_timeout_ms > 0 ? c->write_timeout_ms : BLOCKED_MS);
}

/* Pair -> client. -1: the connection ended. */
static int pump_down(struct http_tls_conn *k)
{
	uint8_t *scratch = loop_scratch(k->front->server->loop);
	struct iovec iov = { scratch, 0 };
	ssize_t n;

	if (k->server_ended || k->broken || stream_is_blocked(&k->stream))
		return 0;
	do
		n = recv(k->pair, scratch, READ_BYTES, MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
	if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
		return 0;
	if (n <= 0) {
		k->server_ended = true;
		return server_end(k);
	}
	iov.iov_len = (size_t)n;
	if (stream_write(&k->stream, &iov, 1, NULL) < 0) {
		conn_end(k);
		return -1;
	}
	if (stream_is_blocked(&k->stream))
		watch_blocked(k);
	return 0;
}

static void pair_ready(uv_poll_t *p, int status, int events)
{
	struct http_tls_conn *k = p->data;

	(void)status;
	(void)events;
	if (up_waits(k) && flush_up(k) < 0)
		return;
	if (pump_down(k) == 0)
		arm(k);
}

/* ---- handshakes ---- */

/* One end of a pair becomes libmicrohttpd's. -1: the connection ended. */
static int hand_over(struct http_tls_conn *k)
{
	struct http_server *s = k->front->server;
	struct err err = ERR_INIT;
	int pair[2], size = PAIR_BYTES;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) < 0 ||
	    uv_poll_init(loop_uv(s->loop), &k->poll, pair[0]) != 0) {
		log_warn("https connection refused", "error", strerror(errno));
		conn_end(k);
		return -1;
	}
	setsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
	setsockopt(pair[1], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
	k->pair = pair[0];
	k->poll.data = k;
	k->n_handles++;
	k->front->n_handshakes--;
	loop_timer_stop(s->loop, &k->timer);
	/* Takes pair[1], also when it fails. */
	if (http_server_add(s, pair[1], (struct sockaddr *)&k->peer, k->peer_len, &err) < 0) {
		log_warn("https connection refused", "error", err.msg);
		conn_end(k);
		return -1;
	}
	return 0;
}

/* Nothing but the handshake is read before it is done. */
static int shake(struct http_tls_conn *k)
{
	char peer[LISTEN_ADDR_SIZE] = "unix";
	struct err err = ERR_INIT;
	int rc = tls_conn_handshake(k->stream.tls, &err);

	if (rc >= 0)
		return rc > 0 ? hand_over(k) : 0;
	if (k->peer.ss_family != AF_UNIX)
		listen_format((struct sockaddr *)&k->peer, peer);
	if (err.kind != ERR_NONE)
		log_info("TLS handshake failed", "client", peer, "error", err.msg);
	/* It should read the alert, though it may send still. */
	shutdown(k->stream.fd, SHUT_WR);
	http_linger_start(&k->front->server->lingers, k->stream.fd);
	conn_end(k);
	return -1;
}

static void client_ready(struct stream *stream, bool readable)
{
	struct http_tls_conn *k = CONTAINER_OF(stream, struct http_tls_conn, stream);

	if (k->pair < 0 && shake(k) < 0)
		return;
	if (k->pair < 0)
		return;
	if (!readable && k->server_ended && !k->said_end) {
		server_end(k);
		return;
	}
	if (!readable)
		watch_blocked(k);
	if (pump_up(k) == 0 && pump_down(k) == 0)
		arm(k);
}

static void timer_rang(void *arg)
{
	struct http_tls_conn *k = arg;

	if (k->pair < 0)
		log_debug("TLS handshake not done in time");
	conn_end(k);
}

/* ---- newcomers ---- */

static void conn_new(struct http_tls *front, int fd, const struct sockaddr_storage *peer,
		     socklen_t peer_len)
{
	struct http_server *s = front->server;
	struct http_tls_conn *k = xcalloc(1, sizeof(*k));
	struct err err = ERR_INIT;
	struct tls_conn *tls = NULL;
	int on = 1;

	k->front = front;
	k->pair = -1;
	k->peer = *peer;
	k->peer_len = peer_len;
	k->since_ms = uv_now(loop_uv(s->loop));
	if (peer->ss_family != AF_UNIX)
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	tls = tls_conn_new(s->settings.tls, fd, NULL, &err);
	if (tls == NULL)
		close(fd);
	if (tls == NULL || stream_open(&k->stream, s->loop, fd, tls, client_ready, &err) < 0) {
		log_warn("https connection refused", "error", err.msg);
		free(k);
		return;
	}
	k->n_handles = 1;
	s->open_handles++;
	k->charged = TLS_CHARGE;
	/* Whether connections have their share of the budget is asked at the hand-over. */
	budget_connection(s->settings.budget, TLS_CHARGE, TLS_CHARGE);
	k->next = front->conns;
	if (k->next != NULL)
		k->next->prev = k;
	front->conns = k;
	front->n_conns++;
	front->n_handshakes++;
	k->timer = (struct loop_timer){ .fn = timer_rang, .arg = k };
	loop_timer_start(s->loop, &k->timer, s->settings.handshake_timeout_ms);
}

/* Cut the handshake that lasts longest. */
static bool cut_oldest(struct http_tls *front)
{
	struct http_tls_conn *oldest = NULL;

	for (struct http_tls_conn *k = front->conns; k != NULL; k = k->next)
		if (k->pair < 0)
			oldest = k;
	if (oldest == NULL ||
	    uv_now(loop_uv(front->server->loop)) - oldest->since_ms < JUST_COME_MS)
		return false;
	conn_end(oldest);
	return true;
}

static bool make_room(struct http_tls *front)
{
	const struct http_settings *c = &front->server->settings;

	if (front->n_handshakes >= c->max_handshakes && !cut_oldest(front))
		return false;
	return front->n_conns < c->max_connections || http_server_close_idlest(front->server) ||
	       cut_oldest(front);
}

static void pause_accepting(struct http_tls *front)
{
	front->accepting = false;
	uv_poll_stop(&front->poll);
	loop_timer_start(front->server->loop, &front->pause, ACCEPT_PAUSE_MS);
}

static void accept_ready(uv_poll_t *p, int status, int events)
{
	struct http_tls *front = p->data;

	(void)status;
	(void)events;
	for (int i = 0; i < ACCEPTS_PER_TURN; i++) {
		struct sockaddr_storage peer = { 0 };
		socklen_t peer_len = sizeof(peer);
		int fd;

		if (!make_room(front)) {
			pause_accepting(front);
			return;
		}
		fd = accept4(front->listen_fd, (struct sockaddr *)&peer, &peer_len,
			     SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (fd >= 0) {
			conn_new(front, fd, &peer, peer_len);
			continue;
		}
		if (errno == EAGAIN || errno == EWOULDBLOCK)
			return;
		if (errno != EMFILE && errno != ENFILE && errno != ENOBUFS && errno != ENOMEM)
			continue; /* that client has gone already */
		/* The queue stays readable: do not spin on it. */
		log_warn("https accept failed", "error", strerror(errno));
		pause_accepting(front);
		return;
	}
}

static void accept_again(void *arg)
{
	struct http_tls *front = arg;

	loop_timer_stop(front->server->loop, &front->pause);
	front->accepting = true;
	uv_poll_start(&front->poll, UV_READABLE, accept_ready);
}

/* ---- life ---- */

struct http_tls *http_tls_new(struct http_server *s, int listen_fd)
{
	struct http_tls *front = xcalloc(1, sizeof(*front));

	front->server = s;
	front->listen_fd = listen_fd;
	front->closed =
		listen_fd < 0 || uv_poll_init(loop_uv(s->loop), &front->poll, listen_fd) != 0;
	front->pause = (struct loop_timer){ .fn = accept_again, .arg = front };
	front->poll.data = front;
	if (front->closed)
		return front;
	s->open_handles++;
	accept_again(front);
	return front;
}

bool http_tls_is_empty(const struct http_tls *front)
{
	return front == NULL || front->n_conns == 0;
}

static void listener_closed(uv_handle_t *h)
{
	struct http_tls *front = h->data;

	http_server_handle_closed(front->server);
}

void http_tls_drain(struct http_tls *front)
{
	struct loop *l;

	if (front == NULL || front->closed)
		return;
	l = front->server->loop;
	/* Those in the backlog believe to be connected. */
	accept_ready(&front->poll, 0, UV_READABLE);
	front->closed = true;
	loop_timer_stop(l, &front->pause);
	uv_close((uv_handle_t *)&front->poll, listener_closed);
	for (struct http_tls_conn *k = front->conns; k != NULL; k = k->next)
		if (k->pair < 0)
			loop_timer_start(l, &k->timer, DRAIN_HANDSHAKE_MS);
}

void http_tls_pump(struct http_tls *front)
{
	struct http_tls_conn *k = front != NULL ? front->conns : NULL;

	while (k != NULL) {
		struct http_tls_conn *next = k->next;

		if (k->pair >= 0)
			pair_ready(&k->poll, 0, 0);
		k = next;
	}
}

void http_tls_close(struct http_tls *front)
{
	if (front == NULL)
		return;
	http_tls_drain(front);
	while (front->conns != NULL)
		conn_end(front->conns);
}
