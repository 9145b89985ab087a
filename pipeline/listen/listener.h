/* SPDX-License-Identifier: Apache-2.0
 *
 * listener.h - the listening sockets of a component's server: one per loop, said in the log where.
 * A successor on the same endpoint gets the same sockets (net/listen_registry.h).
 *
 * THREADS: the main thread (start, drain, shutdown).
 * SPEC: the Collector's `endpoint` and `transport` keys.
 */
#ifndef PIPELINE_LISTEN_LISTENER_H
#define PIPELINE_LISTEN_LISTENER_H

#include "net/tls.h"
#include "pipeline/component.h"
#include "pipeline/option/blocks.h"

enum { LISTENER_CONNECTIONS_MIN = 16 };

struct listener {
	struct listen_lease *lease; /* the registry's part: sockets survive a reload */
	char *endpoint;             /* as net/listen.h takes it */
	int *fds;                   /* -1: closed, or given away with listener_take */
	unsigned n;
};

/* Listen with n sockets and log `sentence` with the real address; an address beyond this machine is
 * pointed out, with a warning when it has no TLS. `transport` is an enum net_transport. On error
 * nothing stays open. */
int listener_open(struct listener *l, struct component *c, const char *endpoint, int transport,
		  bool has_tls, unsigned n, const char *sentence, struct err *err);
/* A UDP socket with a buffer of buffer_bytes in the kernel (0: the system's choice), announced in
 * the same way; less than that is pointed out. On error nothing stays open. */
int listener_open_udp(struct listener *l, struct component *c, const char *endpoint,
		      uint64_t buffer_bytes, const char *sentence, struct err *err);
/* The i-th descriptor becomes the caller's. */
int listener_take(struct listener *l, unsigned i);
/* Close what is open, remove a unix socket's file (unless a reload keeps both), free. A zeroed
 * listener is fine. */
void listener_close(struct listener *l);

/* What one of n loops' servers may hold when all together may hold about `most` connections. A
 * server needs a few to turn idle ones away. */
static inline unsigned listener_share(uint64_t most, unsigned n)
{
	return (unsigned)MAX((most + n - 1) / n, (uint64_t)LISTENER_CONNECTIONS_MIN);
}

/* Server TLS out of the option block; `section` ("HTTP") and the component name it in the log. *tls
 * stays NULL without a `tls:` block. -1 (err names the file) when something is no good. */
int listener_tls(struct component *c, bool tls_on, const struct tls_server_options *o,
		 const char *section, const char *alpn, struct tls **tls, struct err *err);
/* For validate: the server's `tls:` block at the dotted key `key`. */
void listener_check_tls(const struct tls_server_options *o, const struct conf_node *node,
			const char *key, struct conf_errors *errs, const char *yaml_path);
/* For validate: the endpoint, unless it is a unix socket's path. `key` is its dotted key. */
void listener_check(const char *endpoint, int transport, const struct conf_node *node,
		    const char *key, struct conf_errors *errs, const char *yaml_path);

#endif
