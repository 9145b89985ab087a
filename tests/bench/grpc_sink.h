/* SPDX-License-Identifier: Apache-2.0
 *
 * grpc_sink.h - what benches of the gRPC path share: a load generator in a process of its own, the
 * do-nothing server they are compared with ("the sink": frames, answers, discards), and a raw TCP
 * reader of the same bytes.
 *
 *   parent: server on one thread, its CPU time read there      child: 2 connections, 16 calls each
 *
 * Header only, because a bench program is one file. Start the load (load_start) before any thread.
 */
#ifndef TESTS_BENCH_GRPC_SINK_H
#define TESTS_BENCH_GRPC_SINK_H

#include "base/clock.h"
#include "base/mem.h"
#include "net/grpc_client.h"
#include "net/grpc_server.h"
#include "net/listen.h"
#include "tests/bench/payload.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <zlib.h>

enum { LOAD_CONNECTIONS = 2, LOAD_STREAMS = 16, LOAD_BODIES = 32, LOAD_GZIP_LEVEL = 6 };

/* One run, as the parent orders it from the child. */
struct load_order {
	char endpoint[64];
	char path[96]; /* "" = raw bytes without HTTP/2 */
	uint32_t n_requests;
	uint32_t coding;  /* identity or gzip, which was done before */
	uint32_t streams; /* calls of a connection at the same time */
};

struct load {
	pid_t pid;
	int to, from;                   /* pipes */
	uint32_t streams;               /* 0: LOAD_STREAMS */
	size_t body_bytes, coded_bytes; /* of all LOAD_BODIES */
};

/* ---- the child ---- */

struct load_connection {
	struct grpc_client *client;
	struct load_state *state;
};

struct load_state {
	struct buf bodies[LOAD_BODIES], coded[LOAD_BODIES];
	struct load_order order;
	struct loop *loop;
	struct load_connection connections[LOAD_CONNECTIONS];
	uint32_t sent, answered, failed;
	pthread_mutex_t lock;
	pthread_cond_t done;
};

static inline void load_answered(const struct grpc_answer *a, void *arg);

static inline void load_next(struct load_connection *k)
{
	struct load_state *s = k->state;
	bool coded = s->order.coding != CONTENT_IDENTITY;
	struct bytes piece = buf_bytes(&(coded ? s->coded : s->bodies)[s->sent % LOAD_BODIES]);
	struct grpc_request r = { .path = s->order.path,
				  .pieces = &piece,
				  .n_pieces = 1,
				  .coding = (enum content_coding)s->order.coding,
				  .is_coded = true };

	s->sent++;
	grpc_client_start(k->client, &r, load_answered, k);
}

static inline void load_answered(const struct grpc_answer *a, void *arg)
{
	struct load_connection *k = arg;
	struct load_state *s = k->state;

	if (a->status != GRPC_OK && s->failed++ == 0)
		fprintf(stderr, "load: %s: %s\n", grpc_status_name(a->status), a->message);
	s->answered++;
	if (s->sent < s->order.n_requests) {
		load_next(k);
	} else if (s->answered == s->order.n_requests) {
		pthread_mutex_lock(&s->lock);
		pthread_cond_signal(&s->done);
		pthread_mutex_unlock(&s->lock);
	}
}

static inline void load_begin(void *arg)
{
	struct load_state *s = arg;
	struct grpc_client_settings c = { .endpoint = s->order.endpoint };

	for (int i = 0; i < LOAD_CONNECTIONS; i++) {
		s->connections[i].state = s;
		s->connections[i].client = grpc_client_new(s->loop, &c, NULL);
	}
	for (uint32_t i = 0;
	     i < LOAD_CONNECTIONS * s->order.streams && s->sent < s->order.n_requests; i++)
		load_next(&s->connections[i % LOAD_CONNECTIONS]);
}

static inline void load_end(void *arg)
{
	struct load_state *s = arg;

	for (int i = 0; i < LOAD_CONNECTIONS; i++)
		grpc_client_free(s->connections[i].client);
}

static inline void load_grpc(struct load_state *s)
{
	s->sent = s->answered = s->failed = 0;
	s->loop = loop_new(0, NULL);
	pthread_mutex_lock(&s->lock);
	loop_start(s->loop, NULL);
	loop_call(s->loop, load_begin, s);
	while (s->answered < s->order.n_requests)
		pthread_cond_wait(&s->done, &s->lock);
	pthread_mutex_unlock(&s->lock);
	loop_call(s->loop, load_end, s);
	loop_stop(s->loop);
	loop_free(s->loop);
}

static inline int load_connect(const char *endpoint)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	const char *colon = strrchr(endpoint, ':');
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	a.sin_port = htons((uint16_t)strtoul(colon + 1, NULL, 10));
	return connect(fd, (struct sockaddr *)&a, sizeof(a)) == 0 ? fd : -1;
}

/* The same bodies, written in turn to as many connections, without anything between them. */
static inline void load_raw(struct load_state *s)
{
	int fds[LOAD_CONNECTIONS];

	for (int i = 0; i < LOAD_CONNECTIONS; i++)
		fds[i] = load_connect(s->order.endpoint);
	for (uint32_t n = 0; n < s->order.n_requests; n++) {
		struct buf *b = &s->bodies[n % LOAD_BODIES];

		for (size_t off = 0; off < b->n;) {
			ssize_t rc = write(fds[n % LOAD_CONNECTIONS], b->p + off, b->n - off);

			if (rc <= 0)
				_exit(1);
			off += (size_t)rc;
		}
	}
	for (int i = 0; i < LOAD_CONNECTIONS; i++)
		close(fds[i]);
}

/* As an SDK does: zlib's deflate in a gzip wrapper. */
static inline void load_gzip(struct bytes in, struct buf *out)
{
	z_stream z = { .next_in = (uint8_t *)(uintptr_t)in.p, .avail_in = (unsigned)in.n };
	size_t room;

	if (deflateInit2(&z, LOAD_GZIP_LEVEL, Z_DEFLATED, 16 + MAX_WBITS, 8, Z_DEFAULT_STRATEGY) !=
	    Z_OK)
		_exit(1);
	room = deflateBound(&z, in.n);
	z.next_out = buf_reserve(out, room);
	z.avail_out = (unsigned)room;
	if (deflate(&z, Z_FINISH) != Z_STREAM_END)
		_exit(1);
	out->n += z.total_out;
	deflateEnd(&z);
}

static inline void load_child(int from_parent, int to_parent)
{
	static struct load_state s;
	size_t bytes[2] = { 0, 0 };

	for (int i = 0; i < LOAD_BODIES; i++) {
		payload_request(&s.bodies[i], PAYLOAD_SPANS, (uint64_t)i + 1);
		load_gzip(buf_bytes(&s.bodies[i]), &s.coded[i]);
		bytes[0] += s.bodies[i].n;
		bytes[1] += s.coded[i].n;
	}
	pthread_mutex_init(&s.lock, NULL);
	pthread_cond_init(&s.done, NULL);
	if (write(to_parent, bytes, sizeof(bytes)) != sizeof(bytes))
		_exit(1);
	while (read(from_parent, &s.order, sizeof(s.order)) == sizeof(s.order)) {
		if (s.order.path[0] == '\0')
			load_raw(&s);
		else
			load_grpc(&s);
		if (write(to_parent, &s.failed, sizeof(s.failed)) != sizeof(s.failed))
			_exit(1);
	}
	_exit(0);
}

/* ---- the parent ---- */

/* Fork the load generator. Before any thread. */
static inline int load_start(struct load *l)
{
	size_t bytes[2];
	int to[2], from[2];

	if (pipe(to) < 0 || pipe(from) < 0)
		return -1;
	l->pid = fork();
	if (l->pid < 0)
		return -1;
	if (l->pid == 0) {
		close(to[1]);
		close(from[0]);
		load_child(to[0], from[1]);
	}
	close(to[0]);
	close(from[1]);
	l->to = to[1];
	l->from = from[0];
	if (read(l->from, bytes, sizeof(bytes)) != sizeof(bytes))
		return -1;
	l->body_bytes = bytes[0];
	l->coded_bytes = bytes[1];
	return 0;
}

static inline void load_print_shape(const struct load *l)
{
	printf("shape: requests of %zu bytes, %d spans of %zu bytes and 10 attributes; %d "
	       "connections x %d calls; gzip bodies (zlib level %d): %zu bytes\n",
	       l->body_bytes / LOAD_BODIES, PAYLOAD_SPANS,
	       l->body_bytes / LOAD_BODIES / PAYLOAD_SPANS, LOAD_CONNECTIONS,
	       (int)(l->streams ? l->streams : LOAD_STREAMS), LOAD_GZIP_LEVEL,
	       l->coded_bytes / LOAD_BODIES);
}

/* Send n requests to 127.0.0.1:port and wait for their answers; the number that failed, or -1. */
static inline int load_run(struct load *l, uint16_t port, const char *path, uint32_t n,
			   enum content_coding coding)
{
	struct load_order o = { .n_requests = n,
				.coding = coding,
				.streams = l->streams ? l->streams : LOAD_STREAMS };
	uint32_t failed;

	snprintf(o.endpoint, sizeof(o.endpoint), "127.0.0.1:%u", port);
	snprintf(o.path, sizeof(o.path), "%s", path);
	if (write(l->to, &o, sizeof(o)) != sizeof(o) ||
	    read(l->from, &failed, sizeof(failed)) != sizeof(failed))
		return -1;
	return (int)failed;
}

static inline void load_stop(struct load *l)
{
	close(l->to);
	close(l->from);
	waitpid(l->pid, NULL, 0);
}

static inline double thread_cpu_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

/* A gRPC server on its own loop: /bench.B/Sink throws messages away as they come, /bench.B/Assemble
 * once they are whole. */
struct sink {
	struct loop *loop;
	struct grpc_server *server;
	uint16_t port;
	double cpu_ns; /* what sink_cpu found */
};

static inline void sink_answer(struct grpc_call *call, void *arg)
{
	(void)arg;
	grpc_call_reply(call, BYTES_EMPTY);
}

static inline void sink_open(void *arg)
{
	static const struct grpc_route routes[] = {
		{ "/bench.B/Sink", sink_answer, NULL, true },
		{ "/bench.B/Assemble", sink_answer, NULL, false },
		{ NULL, NULL, NULL, false },
	};
	static const struct grpc_server_settings c;
	struct sink *s = arg;
	struct err err = ERR_INIT;
	int fd;

	if (listen_open("127.0.0.1:0", &fd, 1, &err) < 0) {
		fprintf(stderr, "%s\n", err.msg);
		exit(2);
	}
	s->port = listen_port(fd);
	s->server = grpc_server_new(s->loop, fd, &c, routes, &err);
}

static inline void sink_start(struct sink *s)
{
	s->loop = loop_new(0, NULL);
	loop_start(s->loop, NULL);
	loop_call(s->loop, sink_open, s);
}

static inline void sink_read_cpu(void *arg)
{
	((struct sink *)arg)->cpu_ns = thread_cpu_ns();
}

/* CPU time of the server's thread so far. */
static inline double sink_cpu(struct sink *s)
{
	loop_call(s->loop, sink_read_cpu, s);
	return s->cpu_ns;
}

static inline void sink_close(void *arg)
{
	grpc_server_free(((struct sink *)arg)->server);
}

static inline void sink_stop(struct sink *s)
{
	loop_call(s->loop, sink_close, s);
	loop_stop(s->loop);
	loop_free(s->loop);
}

/* A reader that only reads: epoll and recv into the same 256 KiB, until both ends are closed. */
struct raw_reader {
	pthread_t thread;
	int fd;
	double cpu_ns;
};

static inline void *raw_read(void *arg)
{
	static uint8_t buffer[LOOP_SCRATCH_BYTES];
	struct pollfd fds[LOAD_CONNECTIONS];
	struct raw_reader *r = arg;
	int open = LOAD_CONNECTIONS;

	for (int i = 0; i < LOAD_CONNECTIONS; i++)
		fds[i] = (struct pollfd){ .fd = accept4(r->fd, NULL, NULL, SOCK_NONBLOCK),
					  .events = POLLIN };
	while (open > 0) {
		poll(fds, LOAD_CONNECTIONS, -1);
		for (int i = 0; i < LOAD_CONNECTIONS; i++) {
			if (fds[i].fd < 0 || fds[i].revents == 0 ||
			    recv(fds[i].fd, buffer, sizeof(buffer), 0) != 0)
				continue;
			close(fds[i].fd);
			fds[i].fd = -1;
			open--;
		}
	}
	r->cpu_ns = thread_cpu_ns();
	return NULL;
}

/* CPU time that a raw reader needs for n requests' bodies. */
static inline double raw_run(struct load *l, uint32_t n)
{
	struct raw_reader r = { .fd = -1 };
	struct err err = ERR_INIT;
	uint16_t port;

	if (listen_open("127.0.0.1:0", &r.fd, 1, &err) < 0) {
		fprintf(stderr, "%s\n", err.msg);
		exit(2);
	}
	/* The accepts wait for the child. */
	fcntl(r.fd, F_SETFL, fcntl(r.fd, F_GETFL) & ~O_NONBLOCK);
	port = listen_port(r.fd);
	pthread_create(&r.thread, NULL, raw_read, &r);
	load_run(l, port, "", n, CONTENT_IDENTITY);
	pthread_join(r.thread, NULL);
	close(r.fd);
	return r.cpu_ns;
}

#endif
