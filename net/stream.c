/* SPDX-License-Identifier: Apache-2.0
 *
 * stream.c - see stream.h.
 *
 * DESIGN: uv_poll rather than uv_stream, because uv_read allocates or borrows a buffer before it
 * knows whether there is anything to read, and because TLS can then read from the descriptor
 * itself. A write that does not fit is copied, so borrowed memory never outlives the call.
 * LIMITS: `pending` is at most one stream_write; callers stop producing while blocked.
 */
#include "net/stream.h"

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

/* Above this an emptied write buffer is given back: thousands of connections have one. */
enum { PENDING_KEEP = 4096 };

static void polled(uv_poll_t *p, int status, int events);

/* Decrypted bytes in the TLS layer do not make the descriptor readable. */
static bool has_hidden(const struct stream *s)
{
	return s->tls != NULL && tls_conn_has_pending(s->tls);
}

static void arm(struct stream *s)
{
	int want = 0;

	if (s->closing)
		return;
	/* A paused reader must not stop the handshake that its own write waits for. */
	if ((!s->paused && !s->ended) || (s->tls != NULL && tls_conn_write_wants_read(s->tls)))
		want |= UV_READABLE;
	/* TLS says itself: a blocked write may be waiting for the peer's half of a handshake. */
	if (s->tls != NULL ? tls_conn_wants_write(s->tls) || (!s->paused && has_hidden(s))
			   : stream_is_blocked(s))
		want |= UV_WRITABLE;
	if (s->dead)
		want = 0;
	if (want == s->events)
		return;
	s->events = want;
	if (want == 0)
		uv_poll_stop(&s->poll);
	else
		uv_poll_start(&s->poll, want, polled);
}

int stream_open(struct stream *s, struct loop *l, int fd, struct tls_conn *tls,
		void (*ready)(struct stream *s, bool readable), struct err *err)
{
	int rc;

	memset(s, 0, sizeof(*s));
	rc = uv_poll_init(loop_uv(l), &s->poll, fd);
	if (rc != 0) {
		close(fd);
		tls_conn_free(tls);
		return err_set(err, ERR_IO, "connection: poll: %s", uv_strerror(rc));
	}
	s->loop = l;
	s->fd = fd;
	s->tls = tls;
	s->ready = ready;
	s->poll.data = s;
	arm(s);
	return 0;
}

static ssize_t read_tls(struct stream *s, uint8_t *to, size_t n, struct err *err)
{
	size_t got = 0;

	while (got < n) {
		ssize_t rc = tls_conn_read(s->tls, to + got, n - got, err);

		if (rc < 0 && got == 0)
			return -1;
		/* An error after some bytes comes again at the next read. */
		if (rc <= 0)
			break;
		got += (size_t)rc;
	}
	return (ssize_t)got;
}

ssize_t stream_read(struct stream *s, uint8_t *to, size_t n, struct err *err)
{
	ssize_t rc;

	err_clear(err);
	if (s->dead)
		return -1;
	if (s->tls != NULL) {
		rc = read_tls(s, to, n, err);
	} else {
		do
			rc = recv(s->fd, to, n, 0);
		while (rc < 0 && errno == EINTR);
		if (rc == 0)
			rc = -1;
		else if (rc < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
			rc = 0;
		else if (rc < 0)
			err_errno(err, "connection: read");
	}
	if (rc < 0 && err != NULL && err->kind == ERR_NONE)
		s->ended = true;
	else if (rc < 0)
		s->dead = true;
	arm(s);
	return rc;
}

/* Bytes taken, 0 when the kernel is full, -1. */
static ssize_t send_some(struct stream *s, const struct iovec *iov, size_t n, struct err *err)
{
	struct msghdr m = { .msg_iov = (struct iovec *)(uintptr_t)iov, .msg_iovlen = n };
	ssize_t rc;

	if (s->tls != NULL)
		return tls_conn_write(s->tls, iov[0].iov_base, iov[0].iov_len, err);
	do
		rc = sendmsg(s->fd, &m, MSG_NOSIGNAL);
	while (rc < 0 && errno == EINTR);
	if (rc < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
		return 0;
	if (rc < 0)
		err_errno(err, "connection: write");
	return rc;
}

static void keep_rest(struct stream *s, const struct iovec *iov, size_t n, size_t skip)
{
	for (size_t i = 0; i < n; i++) {
		buf_add(&s->pending, (uint8_t *)iov[i].iov_base + skip, iov[i].iov_len - skip);
		skip = 0;
	}
}

int stream_write(struct stream *s, const struct iovec *iov, size_t n, struct err *err)
{
	struct iovec first;
	size_t skip = 0;

	if (s->dead)
		return err_set(err, ERR_UNAVAILABLE, "connection: closed");
	while (n > 0 && !stream_is_blocked(s)) {
		ssize_t rc;

		first.iov_base = (uint8_t *)iov->iov_base + skip;
		first.iov_len = iov->iov_len - skip;
		/* A cut first piece goes alone; the gather call takes whole ones. */
		rc = first.iov_len == 0
			     ? 0
			     : send_some(s, skip > 0 ? &first : iov, skip > 0 ? 1 : n, err);
		if (rc < 0) {
			s->dead = true;
			arm(s);
			return -1;
		}
		if (rc == 0 && first.iov_len > 0)
			break;
		skip += (size_t)rc;
		while (n > 0 && skip >= iov->iov_len) {
			skip -= iov->iov_len;
			iov++;
			n--;
		}
	}
	keep_rest(s, iov, n, skip);
	arm(s);
	return 0;
}

/* Try to send what is pending; -1 when the stream died. */
static int flush(struct stream *s)
{
	while (stream_is_blocked(s)) {
		struct iovec iov = { s->pending.p + s->pending_off, s->pending.n - s->pending_off };
		ssize_t rc = send_some(s, &iov, 1, NULL);

		if (rc < 0)
			return -1;
		if (rc == 0)
			return 0;
		s->pending_off += (size_t)rc;
	}
	s->pending_off = 0;
	if (s->pending.cap > PENDING_KEEP)
		buf_fini(&s->pending);
	else
		buf_reset(&s->pending);
	return 0;
}

static void polled(uv_poll_t *p, int status, int events)
{
	struct stream *s = p->data;
	bool was_blocked = stream_is_blocked(s);
	bool readable = status < 0 || (events & UV_READABLE) != 0;

	/* A TLS handshake may need a read before a write goes through. */
	if (was_blocked && flush(s) < 0) {
		/* Nobody will get it, and a reader who waits for its end would not find the
		 * error. */
		s->pending_off = s->pending.n;
		readable = true;
	}
	if (!s->paused && !s->ended && (readable || has_hidden(s)))
		s->ready(s, true);
	if (!s->closing && was_blocked && !stream_is_blocked(s))
		s->ready(s, false);
	if (!s->closing)
		arm(s);
}

bool stream_is_blocked(const struct stream *s)
{
	return s->pending.n > s->pending_off;
}

size_t stream_pending(const struct stream *s)
{
	return s->pending.cap;
}

void stream_end(struct stream *s)
{
	if (s->tls != NULL)
		tls_conn_end(s->tls);
	shutdown(s->fd, SHUT_WR);
}

void stream_pause(struct stream *s, bool paused)
{
	s->paused = paused;
	arm(s);
}

static void poll_closed(uv_handle_t *h)
{
	struct stream *s = h->data;

	if (s->closed != NULL)
		s->closed(s);
}

void stream_close(struct stream *s, void (*closed)(struct stream *s))
{
	assert(!s->closing);
	s->closing = true;
	s->closed = closed;
	/* Before another thread may get the number: uv_close asks epoll about it. */
	uv_close((uv_handle_t *)&s->poll, poll_closed);
	if (s->tls != NULL)
		tls_conn_free(s->tls);
	s->tls = NULL;
	close(s->fd);
	s->fd = -1;
	buf_fini(&s->pending);
}
