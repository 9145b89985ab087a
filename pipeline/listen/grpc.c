/* SPDX-License-Identifier: Apache-2.0
 *
 * grpc.c - see grpc.h.
 */
#include "pipeline/listen/grpc.h"

#include "base/clock.h"
#include "base/mem.h"
#include "pipeline/auth.h"
#include "pipeline/listen/listener.h"

#include <stdio.h>

enum { MAX_ROUTES = 8 };

/* One loop's share. */
struct share {
	struct grpc_listener *owner;
	struct loop *loop;
	struct grpc_site sites[MAX_ROUTES];
	struct grpc_route routes[MAX_ROUTES + 1];
	struct grpc_server *server;
	int fd;
	struct err err;
};

struct grpc_listener {
	struct listener sockets;
	struct grpc_server_settings settings;
	struct tls *tls;
	const struct authenticator *auth; /* NULL: everybody is let in */
	struct share *shares;
	unsigned n;
};

static uint64_t ms_of(int64_t ns)
{
	return (uint64_t)ns / NS_PER_MS;
}

static void fill_settings(struct grpc_listener *l, struct component *c,
			  const struct grpc_server_options *o)
{
	const struct grpc_keepalive_server_options *k = &o->keepalive;

	l->settings = (struct grpc_server_settings){
		.max_recv_msg_bytes = o->max_recv_msg_size,
		.max_decompression_ratio = (unsigned)o->max_decompression_ratio,
		.max_connections = listener_share(o->max_connections, component_n_loops(c)),
		.max_concurrent_streams = (uint32_t)o->max_concurrent_streams,
		.budget = component_budget(c),
		.max_connection_idle_ms = ms_of(k->max_connection_idle_ns),
		.max_connection_age_ms = ms_of(k->max_connection_age_ns),
		.max_connection_age_grace_ms = ms_of(k->max_connection_age_grace_ns),
		.keepalive_time_ms = ms_of(k->time_ns),
		.keepalive_timeout_ms = ms_of(k->timeout_ns),
		.tls = l->tls,
		.admit = l->auth != NULL ? auth_grpc : NULL,
		.admit_arg = (void *)(uintptr_t)l->auth,
	};
}

static void start_on_loop(void *arg)
{
	struct share *sh = arg;

	sh->server = grpc_server_new(sh->loop, sh->fd, &sh->owner->settings, sh->routes, &sh->err);
}

static int start_share(struct grpc_listener *l, struct component *c,
		       const struct grpc_route *routes, struct err *err)
{
	struct share *sh = &l->shares[l->n];

	*sh = (struct share){ .owner = l, .loop = component_loop(c, l->n) };
	for (size_t i = 0; routes[i].path != NULL; i++) {
		assert(i < MAX_ROUTES);
		sh->sites[i] = (struct grpc_site){ c, sh->loop, routes[i].arg };
		sh->routes[i] = routes[i];
		sh->routes[i].arg = &sh->sites[i];
	}
	sh->fd = listener_take(&l->sockets, l->n);
	l->n++;
	loop_call(sh->loop, start_on_loop, sh);
	if (sh->server != NULL)
		return 0;
	if (err != NULL)
		*err = sh->err;
	return -1;
}

struct grpc_listener *grpc_listener_start(struct component *c, const struct grpc_server_options *o,
					  const struct grpc_route *routes, struct err *err)
{
	struct grpc_listener *l = xcalloc(1, sizeof(*l));
	unsigned n = component_n_loops(c);

	if (auth_of_server(c, o->authenticator, &l->auth, err) < 0 ||
	    listener_tls(c, o->tls_on, &o->tls, "gRPC", "h2", &l->tls, err) < 0 ||
	    listener_open(&l->sockets, c, o->endpoint, o->transport, o->tls_on, n,
			  "Starting GRPC server", err) < 0)
		goto fail;
	fill_settings(l, c, o);
	l->shares = xcalloc(n, sizeof(*l->shares));
	for (unsigned i = 0; i < n; i++)
		if (start_share(l, c, routes, err) < 0)
			goto fail;
	return l;
fail:
	grpc_listener_free(l);
	return NULL;
}

static void drain_on_loop(void *arg)
{
	struct share *sh = arg;

	grpc_server_drain(sh->server);
}

void grpc_listener_drain(struct grpc_listener *l)
{
	if (l == NULL)
		return;
	for (unsigned i = 0; i < l->n; i++)
		loop_call(l->shares[i].loop, drain_on_loop, &l->shares[i]);
	listener_close(&l->sockets);
}

bool grpc_listener_is_drained(const struct grpc_listener *l)
{
	bool drained = true;

	for (unsigned i = 0; l != NULL && i < l->n; i++)
		drained &= atomic_load(&grpc_server_counts(l->shares[i].server)->connections) == 0;
	return drained;
}

static void free_on_loop(void *arg)
{
	struct share *sh = arg;

	grpc_server_free(sh->server);
	sh->server = NULL;
}

void grpc_listener_free(struct grpc_listener *l)
{
	if (l == NULL)
		return;
	for (unsigned i = 0; i < l->n; i++)
		loop_call(l->shares[i].loop, free_on_loop, &l->shares[i]);
	listener_close(&l->sockets);
	tls_free(l->tls);
	free(l->shares);
	free(l);
}

void grpc_listener_check(const struct grpc_server_options *o, const struct conf_node *node,
			 const char *section, struct conf_errors *errs, const char *yaml_path)
{
	char key[128];

	snprintf(key, sizeof(key), "%sendpoint", section);
	listener_check(o->endpoint, o->transport, node, key, errs, yaml_path);
	snprintf(key, sizeof(key), "%stls", section);
	if (o->tls_on)
		listener_check_tls(&o->tls, node, key, errs, yaml_path);
}
