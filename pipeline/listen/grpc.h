/* SPDX-License-Identifier: Apache-2.0
 *
 * grpc.h - the gRPC server block of a component: one server per loop behind one endpoint,
 * from the options to the end of the last connection. The sibling of http.h.
 *
 *	endpoint -> listener -> loop 0: grpc_server -> routes, arg = struct grpc_site *
 *	                    \-> loop 1: grpc_server -> ..
 *
 * THREADS: start, drain and stop on the main thread; handlers on their loop.
 * LIMITS: grpc_server_option_table. SPEC: the Collector's configgrpc keys.
 */
#ifndef PIPELINE_LISTEN_GRPC_H
#define PIPELINE_LISTEN_GRPC_H

#include "net/grpc_server.h"
#include "pipeline/component.h"
#include "pipeline/option/blocks.h"

/* What a handler is given as its argument. */
struct grpc_site {
	struct component *component;
	struct loop *loop;
	const void *of; /* the arg of the route that was given to grpc_listener_start */
};

struct grpc_listener;

/* Listen and serve `routes` (ends with a NULL path; copied, paths borrowed; a handler's arg is its
 * site). NULL with *err. */
struct grpc_listener *grpc_listener_start(struct component *c, const struct grpc_server_options *o,
					  const struct grpc_route *routes, struct err *err);
/* Close the listening sockets, tell clients to go elsewhere. NULL is fine. */
void grpc_listener_drain(struct grpc_listener *l);
/* No connection is left. NULL is. */
bool grpc_listener_is_drained(const struct grpc_listener *l);
/* Close everything; held calls hear that their client has gone. NULL is fine. */
void grpc_listener_free(struct grpc_listener *l);

/* For validate. `section` is the block's dotted key with a dot at the end. */
void grpc_listener_check(const struct grpc_server_options *o, const struct conf_node *node,
			 const char *section, struct conf_errors *errs, const char *yaml_path);

#endif
