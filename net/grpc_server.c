/* SPDX-License-Identifier: Apache-2.0
 *
 * grpc_server.c - see grpc_server.h: sockets and clocks around grpc_session.c.
 *
 * DESIGN: one read of up to 256 KiB into the loop's scratch per wake-up, straight into nghttp2;
 * whoever has something to send is put on a list that a uv_prepare handle empties before the loop
 * sleeps, so the answers to everything one turn brought go out in one write per connection.
 * A connection that does not take its answers is not read either.
 * A spent budget closes no door: a client must be able to come and hear that it should come again.
 * When connections hold more than their share of it, the one that was idle longest makes room.
 * OWNERSHIP, THREADS: the server owns connections, a connection its session; loop's thread. A
 * holder's calls survive all of them.
 * LIMITS: max_connections; what each holds is charged to the budget, answers that its client does
 * not read included; times per settings.
 */
#include "net/grpc_server.h"

#include "base/log.h"
#include "base/mem.h"
#include "base/rng.h"
#include "net/grpc_session.h"
#include "net/grpc_turns.h"
#include "net/listen.h"
#include "net/stream.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
	CONNECTION_CHARGE = 16 * 1024, /* idle: 11 to 14 KiB measured */
	CONNECTION_MOST = 40 * 1024,   /* estimate: header tables and buffers full */
	TLS_CHARGE = 20 * 1024,        /* idle: 31 KiB measured, with the session */
	CONNECTIONS_ALWAYS = 32,       /* whatever other listeners' connections hold */
	IDLE_MIN_MS = 500,             /* before that a connection has hardly come */
	ACCEPTS_PER_TURN = 64,
	SEND_BATCH_BYTES = 64 * 1024,
	ACCEPT_PAUSE_MS = 100, /* when descriptors ran out */
	DRAIN_STEP_MS = 100,
	DRAIN_HANDSHAKE_MS = 1000, /* of TLS, as HTTP's */
	SLOW_CHECK_MS = 1000,
};

struct connection {
	struct stream stream;
	struct grpc_server *server;
	struct grpc_session *session;
	struct connection *next, *prev;
	struct connection *next_dirty;
	struct loop_timer timer;
	uint64_t opened_ms, heard_ms;
	uint64_t retire_ms;   /* when its age is up; 0 = never */
	uint64_t drained_ms;  /* when it began to drain; 0 = not */
	uint64_t pinged_ms;   /* 0 = no PING is out */
	uint64_t blocked_ms;  /* since when it takes no more bytes; 0 = it takes them */
	size_t charged, most; /* of the budget; pending bytes included */
	bool dirty;
	bool final;  /* the second GOAWAY is out */
	bool broken; /* close once what there is to say is said */
	char peer[LISTEN_ADDR_SIZE];
};

struct grpc_server {
	struct loop *loop;
	struct grpc_server_settings c;
	struct grpc_session_env env;
	struct grpc_server_counts counts;
	int fd;
	uv_poll_t accept_poll;
	uv_prepare_t prepare;
	unsigned n_handles; /* uv handles that are not closed */
	struct loop_timer accept_pause;
	struct connection *connections, *dirty;
	size_t n_connections; /* in the list */
	size_t n_closing;     /* not in the list, memory not gone */
	struct rng rng;
	bool draining, freeing;
};

/* ---- one connection ---- */

static void release_server(struct grpc_server *s);

static uint64_t now_ms(const struct grpc_server *s)
{
	return uv_now(loop_uv(s->loop));
}

static void connection_closed(struct stream *stream)
{
	struct connection *k = CONTAINER_OF(stream, struct connection, stream);
	struct grpc_server *s = k->server;

	budget_connection_end(s->c.budget, k->charged, k->most);
	free(k);
	s->n_closing--;
	release_server(s);
}

static void close_connection(struct connection *k)
{
	struct grpc_server *s = k->server;
	struct connection **p = &s->dirty;

	if (k->stream.closing)
		return;
	loop_timer_stop(s->loop, &k->timer);
	if (k->prev != NULL)
		k->prev->next = k->next;
	else
		s->connections = k->next;
	if (k->next != NULL)
		k->next->prev = k->prev;
	s->n_connections--;
	s->n_closing++;
	atomic_fetch_sub_explicit(&s->counts.connections, 1, memory_order_relaxed);
	stream_close(&k->stream, connection_closed);
	/* Last: on_cancel may run foreign code, which may answer other calls. */
	grpc_session_free(k->session);
	k->session = NULL;
	while (*p != NULL && *p != k)
		p = &(*p)->next_dirty;
	if (*p == k)
		*p = k->next_dirty;
}

static void mark_dirty(void *arg)
{
	struct connection *k = arg;

	if (k->dirty || k->stream.closing)
		return;
	k->dirty = true;
	k->next_dirty = k->server->dirty;
	k->server->dirty = k;
}

static void plan(struct connection *k);

/* Account for what waits to be written. */
static void note_pending(struct connection *k)
{
	size_t base = k->server->c.tls != NULL ? CONNECTION_CHARGE + TLS_CHARGE : CONNECTION_CHARGE;
	size_t now = base + stream_pending(&k->stream);

	if (now > k->charged)
		budget_force(k->server->c.budget, now - k->charged);
	else
		budget_release(k->server->c.budget, k->charged - now);
	k->charged = now;
	if (!stream_is_blocked(&k->stream)) {
		k->blocked_ms = 0;
	} else if (k->blocked_ms == 0) {
		k->blocked_ms = now_ms(k->server);
		plan(k);
	}
}

/* Send what the session has. False when the connection is gone. */
static bool flush(struct connection *k)
{
	uint8_t batch[SEND_BATCH_BYTES];
	struct bytes out = BYTES_EMPTY;
	struct iovec iov = { batch, 0 };
	bool more = true;

	while (more && !stream_is_blocked(&k->stream)) {
		iov.iov_len = 0;
		/* A frame is at most 16 KiB and some: there is always room for one more. */
		while (iov.iov_len < sizeof(batch) - 17 * 1024) {
			out = grpc_session_send(k->session);
			if (out.n == 0 || out.n > sizeof(batch) - iov.iov_len)
				break;
			memcpy(batch + iov.iov_len, out.p, out.n);
			iov.iov_len += out.n;
		}
		more = out.n > 0;
		if (iov.iov_len > 0 && stream_write(&k->stream, &iov, 1, NULL) < 0) {
			close_connection(k);
			return false;
		}
	}
	note_pending(k);
	if ((k->broken || grpc_session_is_done(k->session) ||
	     (k->final && grpc_session_calls(k->session) == 0)) &&
	    !stream_is_blocked(&k->stream)) {
		close_connection(k);
		return false;
	}
	return true;
}

static void flush_dirty(uv_prepare_t *h)
{
	struct grpc_server *s = h->data;
	struct connection *k;

	while ((k = s->dirty) != NULL) {
		s->dirty = k->next_dirty;
		k->dirty = false;
		flush(k);
	}
}

static void connection_ready(struct stream *stream, bool readable)
{
	struct connection *k = CONTAINER_OF(stream, struct connection, stream);
	uint8_t *scratch = loop_scratch(k->server->loop);
	struct err err = ERR_INIT;
	ssize_t n;

	mark_dirty(k);
	if (k->broken)
		return;
	if (!readable) {
		stream_pause(stream, false);
		return;
	}
	/* A client that does not read its answers does not get more of them. */
	if (stream_is_blocked(stream)) {
		stream_pause(stream, true);
		return;
	}
	n = stream_read(stream, scratch, LOOP_SCRATCH_BYTES, &err);
	if (n == 0)
		return;
	k->heard_ms = now_ms(k->server);
	k->pinged_ms = 0;
	if (n > 0 && grpc_session_recv(k->session, (struct bytes){ scratch, (size_t)n },
				       k->heard_ms, &err) == 0) {
		plan(k);
		return;
	}
	if (err.kind != ERR_NONE)
		log_debug("grpc connection failed", "peer", k->peer, "error", err.msg);
	if (n < 0) {
		close_connection(k);
		return;
	}
	k->broken = true;
	stream_pause(stream, true);
}

/* ---- what time brings ---- */

static uint64_t earlier(uint64_t a, uint64_t b)
{
	return a == 0 ? b : b == 0 ? a : MIN(a, b);
}

static uint64_t keepalive_due(const struct connection *k)
{
	const struct grpc_server_settings *c = &k->server->c;

	return k->pinged_ms != 0 ? k->pinged_ms + c->keepalive_timeout_ms
				 : k->heard_ms + c->keepalive_time_ms;
}

static uint64_t idle_due(const struct connection *k)
{
	const struct grpc_server_settings *c = &k->server->c;

	if (!grpc_session_is_greeted(k->session))
		return k->opened_ms + c->handshake_timeout_ms;
	if (c->max_connection_idle_ms == 0 || grpc_session_calls(k->session) > 0)
		return 0;
	return grpc_session_idle_since(k->session) + c->max_connection_idle_ms;
}

/* It cannot be told anything yet, a GOAWAY neither. */
static bool is_shaking_hands(const struct connection *k)
{
	return k->server->c.tls != NULL && !grpc_session_is_greeted(k->session);
}

static uint64_t drain_due(const struct connection *k)
{
	const struct grpc_server_settings *c = &k->server->c;

	if (k->drained_ms == 0)
		return k->retire_ms;
	if (is_shaking_hands(k))
		return k->drained_ms + DRAIN_HANDSHAKE_MS;
	if (!k->final)
		return k->drained_ms + DRAIN_STEP_MS;
	return c->max_connection_age_grace_ms > 0 ? k->drained_ms + c->max_connection_age_grace_ms
						  : 0;
}

/* A client that does not read its answers, as one that does not answer a PING. */
static uint64_t blocked_due(const struct connection *k)
{
	return k->blocked_ms > 0 ? k->blocked_ms + k->server->c.keepalive_timeout_ms : 0;
}

/* Set the timer to the next thing that time brings, unless it rings early enough already. */
static void plan(struct connection *k)
{
	uint64_t now = now_ms(k->server);
	uint64_t due = earlier(keepalive_due(k), earlier(idle_due(k), drain_due(k)));

	due = earlier(due, blocked_due(k));
	if (grpc_session_calls(k->session) > 0)
		due = earlier(due, now + SLOW_CHECK_MS);
	if (grpc_session_has_waiting(k->session))
		due = earlier(due, now + TURN_MS);
	if (loop_timer_is_active(&k->timer) && k->timer.due_ms <= due)
		return;
	loop_timer_start(k->server->loop, &k->timer, due > now ? due - now : 0);
}

static void drain_connection(struct connection *k, bool final)
{
	if (k->drained_ms == 0)
		k->drained_ms = now_ms(k->server);
	k->final |= final;
	grpc_session_drain(k->session, final);
}

static void timer_rang(void *arg)
{
	struct connection *k = arg;
	uint64_t now = now_ms(k->server), idle = idle_due(k), drain = drain_due(k);

	if ((idle != 0 && idle <= now && !grpc_session_is_greeted(k->session)) ||
	    (k->blocked_ms != 0 && blocked_due(k) <= now)) {
		close_connection(k);
		return;
	}
	if (keepalive_due(k) <= now) {
		if (k->pinged_ms != 0) {
			close_connection(k);
			return;
		}
		k->pinged_ms = now;
		grpc_session_ping(k->session);
	}
	if (drain != 0 && drain <= now) {
		if (k->final || (k->drained_ms != 0 && is_shaking_hands(k))) {
			close_connection(k);
			return;
		}
		drain_connection(k, k->drained_ms != 0);
	} else if (idle != 0 && idle <= now && k->drained_ms == 0) {
		drain_connection(k, false);
	}
	grpc_session_take_turns(k->session, now);
	grpc_session_check_slow(k->session, now);
	plan(k);
}

/* ---- accepting ---- */

static void set_peer(struct connection *k, int fd)
{
	struct sockaddr_storage sa = { 0 };
	socklen_t n = sizeof(sa);
	int on = 1;

	if (getpeername(fd, (struct sockaddr *)&sa, &n) == 0)
		listen_format((struct sockaddr *)&sa, k->peer);
	if (sa.ss_family == AF_INET || sa.ss_family == AF_INET6)
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
}

/* Close the connection that was without a call for longest. False: all have some. */
static bool close_idlest(struct grpc_server *s)
{
	struct connection *idlest = NULL;

	for (struct connection *k = s->connections; k != NULL; k = k->next)
		if (grpc_session_calls(k->session) == 0 &&
		    (idlest == NULL || grpc_session_idle_since(k->session) <=
					       grpc_session_idle_since(idlest->session)))
			idlest = k;
	if (idlest == NULL || now_ms(s) - grpc_session_idle_since(idlest->session) < IDLE_MIN_MS)
		return false;
	/* With a last GOAWAY, so that its client knows what to send again. */
	drain_connection(idlest, true);
	if (flush(idlest))
		close_connection(idlest);
	return true;
}

/* Account for a new connection and make room for it; false: there is none. */
static bool admit(struct grpc_server *s, struct connection *k)
{
	size_t tls = s->c.tls != NULL ? TLS_CHARGE : 0;
	bool in_share;

	k->charged = CONNECTION_CHARGE + tls;
	k->most = CONNECTION_MOST + tls;
	in_share = budget_connection(s->c.budget, k->charged, k->most);
	if (s->n_connections < s->c.max_connections &&
	    (in_share || s->n_connections < CONNECTIONS_ALWAYS))
		return true;
	return close_idlest(s);
}

int grpc_server_adopt(struct grpc_server *s, int fd, struct err *err)
{
	struct connection *k = xcalloc(1, sizeof(*k));
	struct tls_conn *tls = NULL;

	k->server = s;
	if (!admit(s, k)) {
		err_set(err, ERR_EXHAUSTED, "too many connections, none of them idle");
		close(fd);
		goto fail;
	}
	set_peer(k, fd);
	if (s->c.tls != NULL && (tls = tls_conn_new(s->c.tls, fd, NULL, err)) == NULL) {
		close(fd);
		goto fail;
	}
	if (stream_open(&k->stream, s->loop, fd, tls, connection_ready, err) < 0)
		goto fail;
	k->opened_ms = k->heard_ms = now_ms(s);
	if (s->c.max_connection_age_ms > 0)
		k->retire_ms = k->opened_ms + s->c.max_connection_age_ms * 9 / 10 +
			       rng_below(&s->rng, s->c.max_connection_age_ms / 5 + 1);
	k->timer = (struct loop_timer){ .fn = timer_rang, .arg = k };
	k->session = grpc_session_new(&s->env, k->peer, mark_dirty, k, k->opened_ms);
	k->next = s->connections;
	if (s->connections != NULL)
		s->connections->prev = k;
	s->connections = k;
	s->n_connections++;
	atomic_fetch_add_explicit(&s->counts.connections, 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&s->counts.connections_total, 1, memory_order_relaxed);
	mark_dirty(k); /* our SETTINGS */
	plan(k);
	return 0;
fail:
	budget_connection_end(s->c.budget, k->charged, k->most);
	free(k);
	return -1;
}

static void accept_ready(uv_poll_t *p, int status, int events);

static void accept_again(void *arg)
{
	struct grpc_server *s = arg;

	uv_poll_start(&s->accept_poll, UV_READABLE, accept_ready);
}

static void accept_ready(uv_poll_t *p, int status, int events)
{
	struct grpc_server *s = p->data;
	struct err err = ERR_INIT;

	(void)status;
	(void)events;
	for (int i = 0; i < ACCEPTS_PER_TURN; i++) {
		int fd = accept4(s->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

		if (fd >= 0) {
			if (grpc_server_adopt(s, fd, &err) < 0)
				log_warn("grpc connection refused", "error", err.msg);
			continue;
		}
		if (errno == EAGAIN || errno == EWOULDBLOCK)
			return;
		if (errno != EMFILE && errno != ENFILE && errno != ENOBUFS && errno != ENOMEM)
			continue; /* that client has gone already */
		/* The queue stays readable: do not spin on it. */
		log_warn("grpc accept failed", "error", strerror(errno));
		uv_poll_stop(&s->accept_poll);
		loop_timer_start(s->loop, &s->accept_pause, ACCEPT_PAUSE_MS);
		return;
	}
}

/* ---- life ---- */

static void or_default(uint64_t *v, uint64_t otherwise)
{
	if (*v == 0)
		*v = otherwise;
}

static void fill_defaults(struct grpc_server_settings *c)
{
	if (c->max_recv_msg_bytes == 0)
		c->max_recv_msg_bytes = 20 * MIB;
	if (c->max_concurrent_streams == 0)
		c->max_concurrent_streams = 256;
	if (c->stream_window_bytes == 0)
		c->stream_window_bytes = MIB;
	if (c->connection_window_bytes == 0)
		c->connection_window_bytes = 4 * MIB;
	if (c->max_connections == 0)
		c->max_connections = 10000;
	if (c->retry_after_ms == 0)
		c->retry_after_ms = 1000;
	or_default(&c->keepalive_time_ms, UINT64_C(2) * 3600 * 1000);
	or_default(&c->keepalive_timeout_ms, 20000);
	or_default(&c->handshake_timeout_ms, 10000);
	or_default(&c->message_timeout_ms, 10000);
}

struct grpc_server *grpc_server_new(struct loop *l, int fd, const struct grpc_server_settings *c,
				    const struct grpc_route *routes, struct err *err)
{
	struct grpc_server *s = xcalloc(1, sizeof(*s));
	uint64_t seed;
	int rc;

	s->loop = l;
	s->c = *c;
	fill_defaults(&s->c);
	s->env = (struct grpc_session_env){
		.settings = &s->c, .routes = routes, .counts = &s->counts, .loop = l
	};
	s->fd = fd;
	s->accept_pause = (struct loop_timer){ .fn = accept_again, .arg = s };
	rng_kernel(&seed, sizeof(seed));
	rng_seed(&s->rng, seed);
	if (fd >= 0) {
		rc = uv_poll_init(loop_uv(l), &s->accept_poll, fd);
		if (rc != 0) {
			err_set(err, ERR_IO, "grpc server: poll: %s", uv_strerror(rc));
			close(fd);
			free(s);
			return NULL;
		}
		s->accept_poll.data = s;
		s->n_handles++;
		accept_again(s);
	}
	uv_prepare_init(loop_uv(l), &s->prepare);
	s->prepare.data = s;
	s->n_handles++;
	uv_prepare_start(&s->prepare, flush_dirty);
	return s;
}

static void uv_closed(uv_handle_t *h)
{
	struct grpc_server *s = h->data;

	s->n_handles--;
	release_server(s);
}

/* Free the memory once nothing of libuv's points to it any more. */
static void release_server(struct grpc_server *s)
{
	if (!s->freeing || s->n_handles > 0 || s->n_connections > 0 || s->n_closing > 0)
		return;
	grpc_session_env_fini(&s->env);
	free(s);
}

static void stop_accepting(struct grpc_server *s)
{
	if (s->fd < 0)
		return;
	loop_timer_stop(s->loop, &s->accept_pause);
	uv_poll_stop(&s->accept_poll);
	uv_close((uv_handle_t *)&s->accept_poll, uv_closed);
	close(s->fd);
	s->fd = -1;
}

void grpc_server_drain(struct grpc_server *s)
{
	s->draining = true;
	stop_accepting(s);
	for (struct connection *k = s->connections; k != NULL; k = k->next) {
		drain_connection(k, false);
		plan(k);
	}
}

bool grpc_server_is_drained(const struct grpc_server *s)
{
	return s->n_connections == 0;
}

void grpc_server_free(struct grpc_server *s)
{
	if (s == NULL)
		return;
	stop_accepting(s);
	while (s->connections != NULL) {
		struct connection *k = s->connections;

		/* What was answered in this turn still goes out, with a last GOAWAY. */
		drain_connection(k, true);
		if (flush(k))
			close_connection(k);
	}
	s->freeing = true;
	uv_close((uv_handle_t *)&s->prepare, uv_closed);
}

const struct grpc_server_counts *grpc_server_counts(const struct grpc_server *s)
{
	return &s->counts;
}
