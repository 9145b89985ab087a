/* SPDX-License-Identifier: Apache-2.0
 *
 * http_linger.c - see http_linger.h.
 *
 * DESIGN: the duplicate shares the socket with libmicrohttpd's descriptor. Whoever reads first
 * throws the bytes away; libmicrohttpd sends its FIN and closes, the socket lives on here.
 *
 * LIMITS: time, bytes and number, below.
 */
#include "net/http_linger.h"

#include "base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

enum { LINGER_MS = 2000, LINGER_MAX = 64, LINGER_CHUNK = 65536, CHUNKS_PER_TURN = 16 };
#define LINGER_BYTES (64 * MIB)

struct http_linger {
	struct http_lingers *all; /* NULL once off the list */
	struct http_linger *next, *prev;
	uv_poll_t poll;
	uv_timer_t timer;
	int fd;
	uint64_t bytes;
	int open_handles;
};

static void linger_closed(uv_handle_t *h)
{
	struct http_linger *l = h->data;

	if (--l->open_handles == 0)
		free(l);
}

static void linger_end(struct http_linger *l)
{
	struct http_lingers *all = l->all;

	if (all == NULL)
		return;
	l->all = NULL;
	all->n--;
	if (l->prev != NULL)
		l->prev->next = l->next;
	else
		all->first = l->next;
	if (l->next != NULL)
		l->next->prev = l->prev;
	/* Before another thread may get the number: uv_close asks epoll about it. */
	uv_close((uv_handle_t *)&l->poll, linger_closed);
	close(l->fd);
	uv_close((uv_handle_t *)&l->timer, linger_closed);
}

static void linger_timeout(uv_timer_t *t)
{
	linger_end(t->data);
}

static void linger_readable(uv_poll_t *p, int status, int events)
{
	struct http_linger *l = p->data;
	uint8_t scratch[LINGER_CHUNK];
	ssize_t n = 0;

	(void)events;
	for (int i = 0; status >= 0 && i < CHUNKS_PER_TURN; i++) {
		/* MSG_TRUNC: TCP drops the bytes without copying them. */
		n = recv(l->fd, scratch, sizeof(scratch), MSG_DONTWAIT | MSG_TRUNC);
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		if (n <= 0)
			break;
		l->bytes += (uint64_t)n;
		if (l->bytes > LINGER_BYTES)
			break;
	}
	if (status < 0 || n <= 0 || l->bytes > LINGER_BYTES)
		linger_end(l);
}

void http_linger_start(struct http_lingers *all, int fd)
{
	struct http_linger *l = NULL;
	int copy = all->n < LINGER_MAX ? fcntl(fd, F_DUPFD_CLOEXEC, 3) : -1;

	if (copy < 0)
		return;
	l = xcalloc(1, sizeof(*l));
	l->fd = copy;
	l->open_handles = 2;
	uv_timer_init(all->loop, &l->timer);
	if (uv_poll_init(all->loop, &l->poll, copy) < 0) {
		close(copy);
		l->open_handles = 1;
		l->timer.data = l;
		uv_close((uv_handle_t *)&l->timer, linger_closed);
		return;
	}
	l->poll.data = l->timer.data = l;
	l->all = all;
	l->next = all->first;
	if (l->next != NULL)
		l->next->prev = l;
	all->first = l;
	all->n++;
	uv_poll_start(&l->poll, UV_READABLE, linger_readable);
	uv_timer_start(&l->timer, linger_timeout, LINGER_MS, 0);
}

void http_linger_stop_all(struct http_lingers *all)
{
	while (all->first != NULL)
		linger_end(all->first);
}
