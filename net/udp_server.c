/* SPDX-License-Identifier: Apache-2.0
 *
 * udp_server.c - see udp_server.h.
 *
 * DESIGN: recvmmsg by hand, because libuv's own gives no access to the options. Drops are read with
 * SO_MEMINFO, which is the counter that SO_RXQ_OVFL sends along with each datagram, but also tells
 * when no further datagram comes.
 * SPEC: socket(7), sock_diag(7).
 */
#include "net/udp_server.h"

#include "base/mem.h"
#include "net/listen.h"

#include <errno.h>
#include <linux/sock_diag.h>
#include <sys/socket.h>
#include <unistd.h>

/* DRAIN_MAX: who floods the port does not keep it open. */
enum { MAX_MESSAGES = 64, LOOK_MS = 1000, DRAIN_MAX = 16384 };

struct udp_server {
	struct loop *loop;
	struct udp_settings settings;
	struct udp_counts *counts;
	uv_poll_t poll;
	struct loop_timer look; /* at the kernel's counter */
	int fd;
	bool is_paused;
	uint32_t drops_seen;
	unsigned n_messages; /* per call */
	struct mmsghdr messages[MAX_MESSAGES];
	struct iovec iov[MAX_MESSAGES];
};

/* ---- counter of the kernel ---- */

static void look_at_drops(struct udp_server *s)
{
	uint32_t info[SK_MEMINFO_VARS] = { 0 }, more;
	socklen_t n = sizeof(info);

	if (getsockopt(s->fd, SOL_SOCKET, SO_MEMINFO, info, &n) < 0)
		return;
	more = info[SK_MEMINFO_DROPS] - s->drops_seen; /* 32 bits, and they wrap */
	s->drops_seen = info[SK_MEMINFO_DROPS];
	atomic_fetch_add_explicit(&s->counts->kernel_drops, more, memory_order_relaxed);
	if (more > 0 && s->settings.dropped != NULL)
		s->settings.dropped(more, s->settings.arg);
}

static void look(void *arg)
{
	struct udp_server *s = arg;

	look_at_drops(s);
	loop_timer_start(s->loop, &s->look, LOOK_MS);
}

/* ---- datagrams ---- */

static void take(struct udp_server *s, unsigned i)
{
	struct bytes data = { s->iov[i].iov_base, s->messages[i].msg_len };
	bool is_cut = (s->messages[i].msg_hdr.msg_flags & MSG_TRUNC) != 0;

	atomic_fetch_add_explicit(&s->counts->packets, 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&s->counts->bytes, data.n, memory_order_relaxed);
	s->settings.datagram(data, is_cut, s->settings.arg);
}

/* Where the loop's scratch has room for them. */
static void point_messages(struct udp_server *s)
{
	uint8_t *scratch = loop_scratch(s->loop);

	for (unsigned i = 0; i < s->n_messages; i++) {
		s->iov[i].iov_base = scratch + i * s->settings.max_packet_bytes;
		s->iov[i].iov_len = s->settings.max_packet_bytes;
		s->messages[i].msg_hdr.msg_iov = &s->iov[i];
		s->messages[i].msg_hdr.msg_iovlen = 1;
	}
}

static void read_burst(struct udp_server *s, unsigned max)
{
	for (unsigned n = 0; n < max && !s->is_paused;) {
		int got;

		point_messages(s);
		got = recvmmsg(s->fd, s->messages, s->n_messages, MSG_DONTWAIT, NULL);
		if (got <= 0)
			return; /* nothing more, or an error of one datagram (ICMP) */
		/* Those that are read already are taken, paused or not. */
		for (int i = 0; i < got; i++)
			take(s, (unsigned)i);
		n += (unsigned)got;
		if ((unsigned)got < s->n_messages)
			return;
	}
}

static void readable(uv_poll_t *p, int status, int events)
{
	(void)events;
	if (status == 0)
		read_burst(p->data, UDP_BURST);
}

static void start_reading(struct udp_server *s)
{
	uv_poll_start(&s->poll, UV_READABLE, readable);
}

/* ---- public ---- */

uint64_t udp_buffer_bytes(int fd)
{
	int v = 0;
	socklen_t n = sizeof(v);

	return getsockopt(fd, SOL_SOCKET, SO_RCVBUF, &v, &n) == 0 ? (uint64_t)v : 0;
}

void udp_size_buffer(int fd, uint64_t buffer_bytes)
{
	int v = (int)MIN(buffer_bytes, (uint64_t)INT32_MAX);

	/* Who calls tells when the system allows less. */
	if (v > 0)
		(void)setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &v, sizeof(v));
}

int udp_listen(const char *endpoint, uint64_t buffer_bytes, struct err *err)
{
	int fd = listen_open_udp(endpoint, err);

	if (fd >= 0)
		udp_size_buffer(fd, buffer_bytes);
	return fd;
}

struct udp_server *udp_server_new(struct loop *l, int fd, const struct udp_settings *settings,
				  struct udp_counts *counts, struct err *err)
{
	struct udp_server *s = xcalloc(1, sizeof(*s));
	int rc;

	assert(settings->max_packet_bytes >= 1 && settings->max_packet_bytes <= UDP_MAX_PACKET);
	s->loop = l;
	s->settings = *settings;
	s->counts = counts;
	s->fd = fd;
	s->n_messages = (unsigned)MIN((size_t)MAX_MESSAGES,
				      LOOP_SCRATCH_BYTES / settings->max_packet_bytes);
	rc = uv_poll_init(loop_uv(l), &s->poll, fd);
	if (rc != 0) {
		err_set(err, ERR_IO, "udp server: poll: %s", uv_strerror(rc));
		close(fd);
		free(s);
		return NULL;
	}
	s->poll.data = s;
	s->look = (struct loop_timer){ .fn = look, .arg = s };
	loop_timer_start(l, &s->look, LOOK_MS);
	start_reading(s);
	return s;
}

void udp_server_pause(struct udp_server *s)
{
	if (!s->is_paused)
		uv_poll_stop(&s->poll);
	s->is_paused = true;
}

void udp_server_resume(struct udp_server *s)
{
	if (s->is_paused)
		start_reading(s);
	s->is_paused = false;
}

void udp_server_drain(struct udp_server *s)
{
	read_burst(s, DRAIN_MAX);
	udp_server_pause(s);
	look_at_drops(s);
}

static void closed(uv_handle_t *h)
{
	free(h->data);
}

void udp_server_free(struct udp_server *s)
{
	if (s == NULL)
		return;
	look_at_drops(s);
	loop_timer_stop(s->loop, &s->look);
	uv_poll_stop(&s->poll);
	uv_close((uv_handle_t *)&s->poll, closed);
	close(s->fd);
}
