/* SPDX-License-Identifier: Apache-2.0
 *
 * next_hop.h - where the otlp exporter of a bench sends to: a gRPC server in a process of its own
 * that counts the spans of every request it takes whole, in memory shared with the bench.
 *
 * Header only, because a bench program is one file. Start it before any thread.
 */
#ifndef TESTS_BENCH_NEXT_HOP_H
#define TESTS_BENCH_NEXT_HOP_H

#include "net/grpc_server.h"
#include "net/listen.h"
#include "wire/otlp_index.h"

#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define EXPORT_PATH "/opentelemetry.proto.collector.trace.v1.TraceService/Export"

/* Written by the child. */
struct next_hop_shared {
	_Atomic uint64_t n_spans, n_damaged;
	_Atomic uint32_t port; /* 0 until it listens */
};

struct next_hop {
	pid_t pid;
	struct next_hop_shared *shared;
	uint16_t port;
};

static inline void next_hop_export(struct grpc_call *call, void *arg)
{
	struct next_hop_shared *shared = arg;
	const struct rcbuf *m = grpc_call_message(call);
	struct otlp_counts c;

	if (m != NULL && otlp_count((struct bytes){ m->p, m->n }, &c, NULL) == 0)
		atomic_fetch_add(&shared->n_spans, c.n_spans);
	else
		atomic_fetch_add(&shared->n_damaged, 1);
	grpc_call_reply(call, BYTES_EMPTY);
}

struct next_hop_server {
	struct loop *loop;
	struct grpc_route routes[2];
	struct next_hop_shared *shared;
};

static inline void next_hop_open(void *arg)
{
	static const struct grpc_server_settings c;
	struct next_hop_server *s = arg;
	struct err err = ERR_INIT;
	int fd;

	if (listen_open("127.0.0.1:0", &fd, 1, &err) < 0 ||
	    grpc_server_new(s->loop, fd, &c, s->routes, &err) == NULL) {
		fprintf(stderr, "next hop: %s\n", err.msg);
		_exit(1);
	}
	atomic_store(&s->shared->port, listen_port(fd));
}

static inline void next_hop_main(struct next_hop_shared *shared)
{
	static struct next_hop_server s;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	s.loop = loop_new(0, NULL);
	s.shared = shared;
	s.routes[0] = (struct grpc_route){ EXPORT_PATH, next_hop_export, shared, false };
	loop_start(s.loop, NULL);
	loop_call(s.loop, next_hop_open, &s);
	for (;;)
		pause();
}

static inline void next_hop_start(struct next_hop *h)
{
	h->shared = mmap(NULL, sizeof(*h->shared), PROT_READ | PROT_WRITE,
			 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (h->shared == MAP_FAILED || (h->pid = fork()) < 0) {
		perror("next hop");
		exit(2);
	}
	if (h->pid == 0)
		next_hop_main(h->shared);
	while ((h->port = (uint16_t)atomic_load(&h->shared->port)) == 0) {
		if (waitpid(h->pid, NULL, WNOHANG) != 0)
			exit(2);
		usleep(1000);
	}
}

static inline uint64_t next_hop_spans(const struct next_hop *h)
{
	return atomic_load(&h->shared->n_spans);
}

static inline void next_hop_stop(struct next_hop *h)
{
	kill(h->pid, SIGKILL);
	waitpid(h->pid, NULL, 0);
	munmap(h->shared, sizeof(*h->shared));
}

#endif
