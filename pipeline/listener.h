/* SPDX-License-Identifier: Apache-2.0
 *
 * listener.h - the listening sockets of a component's server: one per loop, said in the log where.
 *
 * THREADS: the main thread (start, drain, shutdown).
 * SPEC: the Collector's `endpoint` and `transport` keys.
 */
#ifndef PIPELINE_LISTENER_H
#define PIPELINE_LISTENER_H

#include "pipeline/component.h"
#include "pipeline/option_blocks.h"

struct listener {
	char *endpoint; /* as net/listen.h takes it */
	int *fds;       /* -1: closed, or given away with listener_take */
	unsigned n;
};

/* Listen with n sockets and log `sentence` with the real address; an address beyond this machine is
 * pointed out. `transport` is an enum net_transport. On error nothing stays open. */
int listener_open(struct listener *l, struct component *c, const char *endpoint, int transport,
		  unsigned n, const char *sentence, struct err *err);
/* The i-th descriptor becomes the caller's. */
int listener_take(struct listener *l, unsigned i);
/* Close what is open, remove a unix socket's file, free. A zeroed listener is fine. */
void listener_close(struct listener *l);

/* For validate: the endpoint, unless it is a unix socket's path. `key` is its dotted key. */
void listener_check(const char *endpoint, int transport, const struct conf_node *node,
		    const char *key, struct conf_errors *errs, const char *yaml_path);

#endif
