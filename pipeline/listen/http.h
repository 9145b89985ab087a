/* SPDX-License-Identifier: Apache-2.0
 *
 * http.h - the HTTP server block of a component: one server per loop behind one endpoint,
 * from the options to the end of the last connection.
 *
 *	endpoint -> listener -> loop 0: http_server -> routes, arg = struct http_site *
 *	                    \-> loop 1: http_server -> ..
 *
 * THREADS: start, drain and stop on the main thread; handlers on their loop.
 * LIMITS: http_server_option_table; a body that does not come in 60 s is given up even when
 * read_timeout is 0.
 * SPEC: the Collector's confighttp keys.
 */
#ifndef PIPELINE_LISTEN_HTTP_H
#define PIPELINE_LISTEN_HTTP_H

#include "net/http_server.h"
#include "pipeline/component.h"
#include "pipeline/option/blocks.h"

/* What a handler is given as its argument. */
struct http_site {
	struct component *component;
	struct loop *loop;
};

struct http_listener;

struct http_listener_setup {
	const struct http_route *routes; /* arg is set per loop; copied, paths borrowed */
	size_t n_routes;
	bool own_args;            /* no: the routes' arg stays as it is */
	http_error_fn error;      /* NULL: text/plain */
	uint32_t hold_timeout_ms; /* the latest a held answer may be given */
	unsigned n_loops;         /* 0: all of them */
};

/* Listen and serve. `o` is borrowed until http_listener_free. */
struct http_listener *http_listener_start(struct component *c, const struct http_server_options *o,
					  const struct http_listener_setup *setup, struct err *err);
/* Close the listening sockets, finish what runs. NULL is fine. */
void http_listener_drain(struct http_listener *l);
/* No connection is left. NULL is. */
bool http_listener_is_drained(const struct http_listener *l);
/* Answer 503 to what is held and close everything. NULL is fine. */
void http_listener_free(struct http_listener *l);

/* For `begin`: is the request's Content-Encoding among compression_algorithms? Answers 415 and
 * returns false when it is not. */
bool http_listener_takes_coding(struct http_request *req, const struct http_server_options *o);
/* For validate. `section` is the block's dotted key with a dot at the end, or "". */
void http_listener_check(const struct http_server_options *o, const struct conf_node *node,
			 const char *section, struct conf_errors *errs, const char *yaml_path);

#endif
