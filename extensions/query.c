/* SPDX-License-Identifier: Apache-2.0
 *
 * query.c - extension that serves the query API (query/api.h) over the trace_store.
 *
 * OWNERSHIP, THREADS: one HTTP server per loop; look-ups on pool threads, waited for before the
 * loops stop.
 * SPEC: INTERFACE "Query".
 */
#include "query/api.h"
#include "base/clock.h"
#include "base/mem.h"
#include "net/listen.h"
#include "pipeline/component.h"
#include "pipeline/conf_error.h"
#include "pipeline/option_blocks.h"
#include "pipeline/telemetry.h"

#include <stdio.h>
#include <unistd.h>

#define TIMEOUT_MAX_NS (20 * NS_PER_S)
#define ANSWER_HEAD MIB /* of an answer of max_trace_bytes: what is not the trace */

struct query_config {
	const char *endpoint;
	struct strlist builders, queriers;
	int64_t builder_timeout_ns, querier_timeout_ns;
	uint64_t max_trace_bytes;
};

struct query_server {
	struct component *component;
	struct loop *loop;
	int fd;
	struct http_server *http;
	struct err err;
};

struct query_state {
	struct query_api api;
	bool has_api;
	struct http_route routes[QUERY_ROUTES];
	struct query_server *servers;
	int *fds;
	unsigned n;
};

#define C struct query_config
static const struct option query_options[] = {
	OPT_STR(C, "endpoint", endpoint, "127.0.0.1:3200", "Where the API listens."),
	OPT_STRLIST(
		C, "builders", builders, "[]",
		"Query endpoints of builders that hold live traces: host:port, or dns+host:port "
		"for every address of a name."),
	OPT_STRLIST(
		C, "queriers", queriers, "[]",
		"Query endpoints of query nodes, named as builders are: this one is then a front "
		"end that shares each look-up among them."),
	OPT_DURATION(C, "builder_timeout", builder_timeout_ns, "3s",
		     "How long a builder may take; the answer is incomplete without it."),
	OPT_DURATION(C, "querier_timeout", querier_timeout_ns, "10s",
		     "How long a querier may take; then another one is asked, once."),
	OPT_BYTES(C, "max_trace_bytes", max_trace_bytes, "256MiB", 1 << 20, INT64_C(4) << 30,
		  "A trace larger than this is answered with 422."),
	OPT_END
};
#undef C

static void check_names(const struct strlist *names, const struct conf_node *node,
			struct conf_errors *errs, const char *path, const char *key)
{
	struct err err = ERR_INIT;

	for (size_t i = 0; i < names->n; i++)
		if (peers_check_name(names->items[i], &err) < 0)
			conf_error_at(errs, node, path, key, "host:port or dns+host:port", "%s",
				      err.msg);
}

/* A look-up asks builders, then queriers, then others of these, before its client gets a 503. */
static void check_timeout(int64_t ns, const struct conf_node *node, struct conf_errors *errs,
			  const char *path, const char *key)
{
	if (ns < INT64_C(1000000) || (uint64_t)ns > TIMEOUT_MAX_NS)
		conf_error_at(errs, node, path, key, "for example 3s",
			      "must be from 1ms to 20s: a look-up is given up after 60s");
}

static void query_validate(void *config, const struct conf_node *node, struct conf_errors *errs,
			   const char *path)
{
	struct query_config *c = config;

	option_blocks_check_endpoint(c->endpoint, true, node, "endpoint", errs, path);
	check_names(&c->builders, node, errs, path, "builders");
	check_names(&c->queriers, node, errs, path, "queriers");
	check_timeout(c->builder_timeout_ns, node, errs, path, "builder_timeout");
	check_timeout(c->querier_timeout_ns, node, errs, path, "querier_timeout");
}

/* A front end has what its queriers have. */
static bool needs_store(const void *config)
{
	return ((const struct query_config *)config)->queriers.n == 0;
}

static bool is_running(void *arg, char *why, size_t why_size)
{
	return component_process_is_running(arg, why, why_size);
}

static bool is_ready(void *arg, char *why, size_t why_size)
{
	return component_process_is_ready(arg, why, why_size);
}

static void start_on_loop(void *arg)
{
	struct query_server *q = arg;
	struct query_state *st = COMPONENT_STATE(q->component, struct query_state);
	struct http_settings settings = HTTP_SETTINGS_INIT;

	settings.max_body = 65536;
	settings.hold_timeout_ms = 60000;
	settings.budget = component_budget(q->component);
	q->http = http_server_new(q->loop, q->fd, &settings, st->routes, QUERY_ROUTES, &q->err);
}

static void free_on_loop(void *arg)
{
	struct query_server *q = arg;

	http_server_free(q->http);
	q->http = NULL;
}

static struct peers *new_peers(const struct query_config *conf, const char *what,
			       const struct strlist *names, int64_t timeout_ns,
			       struct query_memory *memory)
{
	return peers_new(&(struct peers_options){
		.what = what,
		.names = names->items,
		.n = names->n,
		.timeout_ms = (uint32_t)((uint64_t)timeout_ns / NS_PER_MS),
		.max_reply = conf->max_trace_bytes + ANSWER_HEAD,
		.memory = memory,
	});
}

/* The other nodes that are asked. */
static int start_peers(struct query_state *st, const struct query_config *conf, struct err *err)
{
	struct trace_places *places = &st->api.places;

	places->builders = new_peers(conf, "builder", &conf->builders, conf->builder_timeout_ns,
				     &st->api.memory);
	places->queriers = new_peers(conf, "querier", &conf->queriers, conf->querier_timeout_ns,
				     &st->api.memory);
	if (places->builders != NULL && peers_start(places->builders, err) < 0)
		return -1;
	return places->queriers != NULL ? peers_start(places->queriers, err) : 0;
}

static int query_start(struct component *c, struct err *err)
{
	const struct query_config *conf = COMPONENT_CONFIG(c, struct query_config);
	struct query_state *st = COMPONENT_STATE(c, struct query_state);
	struct store *store = component_borrow(c, "trace_store");
	unsigned n = component_n_loops(c);
	char port[16];

	if (store == NULL && conf->queriers.n == 0)
		return err_set(err, ERR_CONFIG,
			       "no trace_store extension: list one before it under "
			       "service.extensions, or name queriers");
	st->api.places.store = store;
	st->api.max_trace_bytes = conf->max_trace_bytes;
	st->api.memory.budget = component_budget(c);
	st->api.is_running = is_running;
	st->api.is_ready = is_ready;
	st->api.arg = c;
	query_api_init(&st->api);
	st->has_api = true;
	if (start_peers(st, conf, err) < 0)
		return -1;
	query_api_routes(&st->api, st->routes);
	st->fds = xcalloc(n, sizeof(*st->fds));
	st->servers = xcalloc(n, sizeof(*st->servers));
	if (listen_open(conf->endpoint, st->fds, n, err) < 0)
		return -1;
	for (st->n = 0; st->n < n; st->n++) {
		struct query_server *q = &st->servers[st->n];

		*q = (struct query_server){ .component = c,
					    .loop = component_loop(c, st->n),
					    .fd = st->fds[st->n] };
		loop_call(q->loop, start_on_loop, q);
		if (q->http == NULL) {
			if (err != NULL)
				*err = q->err;
			return -1;
		}
	}
	snprintf(port, sizeof(port), "%u", listen_port(st->fds[0]));
	log_info("Starting query server", "endpoint", conf->endpoint, "port", port);
	return 0;
}

static void query_shutdown(struct component *c)
{
	struct query_state *st = COMPONENT_STATE(c, struct query_state);

	for (unsigned i = 0; i < st->n; i++)
		loop_call(st->servers[i].loop, free_on_loop, &st->servers[i]);
	peers_interrupt(st->api.places.builders);
	peers_interrupt(st->api.places.queriers);
	while (atomic_load(&st->api.jobs) > 0)
		usleep(1000);
	peers_free(st->api.places.builders);
	peers_free(st->api.places.queriers);
	if (st->fds != NULL)
		listen_close(COMPONENT_CONFIG(c, struct query_config)->endpoint, st->fds, st->n);
	free(st->servers);
	free(st->fds);
	if (st->has_api)
		query_api_fini(&st->api);
	*st = (struct query_state){ .n = 0 };
}

static void peer_metrics(struct component *c, struct buf *out)
{
	static const char calls[] = "spanmill_query_peer_calls";
	static const char *const results[] = { "ok", "failed" };
	struct query_state *st = COMPONENT_STATE(c, struct query_state);
	struct peers *all[] = { st->api.places.builders, st->api.places.queriers };

	if (all[0] == NULL && all[1] == NULL)
		return;
	telemetry_head(out, calls, "counter", "Calls to builders and queriers, by how they ended.");
	for (size_t i = 0; i < COUNT_OF(all); i++) {
		struct peers_stats stats;

		if (all[i] == NULL)
			continue;
		peers_stats(all[i], &stats);
		telemetry_sample(out, calls, (double)(stats.calls - stats.failures), "extension",
				 c->id, "peer", peers_what(all[i]), "result", results[0], NULL);
		telemetry_sample(out, calls, (double)stats.failures, "extension", c->id, "peer",
				 peers_what(all[i]), "result", results[1], NULL);
	}
}

static void query_metrics(struct component *c, struct buf *out)
{
	static const char name[] = "spanmill_query_traces";
	struct query_state *st = COMPONENT_STATE(c, struct query_state);

	telemetry_head(out, name, "counter", "Look-ups by id, by result.");
	telemetry_sample(out, name, (double)atomic_load(&st->api.found), "extension", c->id,
			 "result", "found", NULL);
	telemetry_sample(out, name, (double)atomic_load(&st->api.not_found), "extension", c->id,
			 "result", "not_found", NULL);
	telemetry_sample(out, name, (double)atomic_load(&st->api.failed), "extension", c->id,
			 "result", "failed", NULL);
	peer_metrics(c, out);
}

const struct component_type extension_query = {
	.name = "query",
	.kind = KIND_EXTENSION,
	.summary = "Serves traces by id in Tempo's API.",
	.stability = STABILITY_ALPHA,
	.needs = "trace_store",
	.is_needed = needs_store,
	.config_size = sizeof(struct query_config),
	.state_size = sizeof(struct query_state),
	.options = query_options,
	.validate = query_validate,
	.start = query_start,
	.shutdown = query_shutdown,
	.metrics = query_metrics,
};
