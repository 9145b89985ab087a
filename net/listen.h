/* SPDX-License-Identifier: Apache-2.0
 *
 * listen.h - addresses as people write them, and listening sockets.
 *
 * Endpoints are the Collector's: "host:port", "[v6]:port", ":port" (every address, both families),
 * "unix:///path", "unix:path" or "/path". All functions: any thread; names are looked up with
 * getaddrinfo, which may block, so call them at start-up only.
 */
#ifndef NET_LISTEN_H
#define NET_LISTEN_H

#include "base/base.h"
#include "base/err.h"

#include <sys/socket.h>

/* Longest host part accepted: the longest DNS name. */
enum { LISTEN_HOST_MAX = 255, LISTEN_ADDR_SIZE = 128 };

/* An endpoint taken apart, nothing looked up. */
struct listen_endpoint {
	char host[LISTEN_HOST_MAX + 1]; /* without brackets; "" = every address; unix: the path */
	uint16_t port;                  /* 0 = let the system choose; unix: 0 */
	bool is_unix;
};

/* Take `endpoint` apart. Errors (CONFIG) name the endpoint and what is wrong with it. */
int listen_parse(const char *endpoint, struct listen_endpoint *e, struct err *err);

/* n listening sockets on one endpoint, non-blocking and close-on-exec, into fds: one per loop. TCP
 * sockets share the port with SO_REUSEPORT (port 0: the system chooses for the first, the rest
 * follow); a port that another process already listens on is an error even so. A unix socket is one
 * socket, n descriptors; a dead process's socket file is replaced. On error nothing stays open. */
int listen_open(const char *endpoint, int *fds, size_t n, struct err *err);
/* A bound, non-blocking, close-on-exec UDP socket, or -1. Not for unix sockets (ERR_CONFIG). */
int listen_open_udp(const char *endpoint, struct err *err);
/* Close n descriptors and remove a unix socket's file (NULL endpoint: leave it). */
void listen_close(const char *endpoint, int *fds, size_t n);

/* The port a socket is bound to; 0 for a unix socket. */
uint16_t listen_port(int fd);
/* "127.0.0.1:4317", "[::1]:4317", "unix:/path" into out. */
void listen_format(const struct sockaddr *a, char out[LISTEN_ADDR_SIZE]);

#endif
