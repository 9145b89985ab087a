/* SPDX-License-Identifier: Apache-2.0
 *
 * udp_server.h - datagrams on one loop: a bound socket, several of them per system call, and how
 * many the kernel threw away.
 *
 * Datagrams are read into the loop's scratch (no memory of its own) and given one by one to the
 * owner, on the loop. Nobody is answered. While paused, datagrams wait in the socket's buffer, and
 * those that find it full are counted by the kernel.
 * THREADS: the loop's, but for the counts. LIMITS: UDP_MAX_PACKET; after UDP_BURST datagrams other
 * descriptors have their turn.
 */
#ifndef NET_UDP_SERVER_H
#define NET_UDP_SERVER_H

#include "base/base.h"
#include "base/err.h"
#include "net/loop.h"

#include <stdatomic.h>

enum { UDP_MAX_PACKET = 65535, UDP_BURST = 256 };

struct udp_server;

struct udp_settings {
	size_t max_packet_bytes; /* 1 to UDP_MAX_PACKET; what is longer is cut */
	/* One datagram; data is gone after the call. is_cut: it was longer. */
	void (*datagram)(struct bytes data, bool is_cut, void *arg);
	/* The kernel threw n more away: the buffer was full. May be NULL. */
	void (*dropped)(uint64_t n, void *arg);
	void *arg;
};

/* Written on the loop, read anywhere; they outlive the server. */
struct udp_counts {
	_Atomic uint64_t packets, bytes; /* taken from the socket */
	_Atomic uint64_t kernel_drops;   /* lost in front of it; at most a second old */
};

/* A socket bound to the endpoint (net/listen.h's, but no unix socket), its kernel buffer set to
 * buffer_bytes (0: the system's choice). -1 with *err: also when another process has the port. */
int udp_listen(const char *endpoint, uint64_t buffer_bytes, struct err *err);
/* Set the kernel buffer of a socket, as far as the system allows (net.core.rmem_max). */
void udp_size_buffer(int fd, uint64_t buffer_bytes);
/* What the kernel granted, in bytes of payload and overhead. */
uint64_t udp_buffer_bytes(int fd);

/* Read from fd (takes it, also on error). Borrows counts. */
struct udp_server *udp_server_new(struct loop *l, int fd, const struct udp_settings *settings,
				  struct udp_counts *counts, struct err *err);
void udp_server_pause(struct udp_server *s);
void udp_server_resume(struct udp_server *s);
/* Read what has already come, as far as it is not paused, and no more after that. */
void udp_server_drain(struct udp_server *s);
/* Close. The memory goes on a later turn of the loop. NULL is fine. */
void udp_server_free(struct udp_server *s);

#endif
