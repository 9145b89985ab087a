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
#include "pipeline/conf/error.h"
#include "pipeline/listen/http.h"
#include "pipeline/telemetry.h"
#include "query/span_found.h"

#include <unistd.h>

#define TIMEOUT_MAX_NS (20 * NS_PER_S)
#define HOLD_MS 60000
#define JOBS_GRACE_MS 500 /* of a stop, for look-ups under way */
#define ANSWER_HEAD MIB   /* of an answer of max_trace_bytes: what is not the trace */

struct query_config {
	struct http_server_options http;
	struct strlist builders, queriers;
	int64_t builder_timeout_ns, querier_timeout_ns;
	uint64_t max_trace_bytes;
};

struct query_state {
	struct query_api api;
	bool has_api;
	struct span_found_lookup lookup;
	struct http_route routes[QUERY_ROUTES];
	struct http_listener *listener;
};

#define C struct query_config
static const struct option query_options[] = {
	OPT_INCLUDE(C, http, struct http_server_options, http_server_option_table),
	OPT_DEFAULT("endpoint", "127.0.0.1:3200"),
	OPT_DEFAULT("max_request_body_size", "64KiB"),
	OPT_DEFAULT("write_timeout", "1m"),
	OPT_DEFAULT("idle_timeout", "2m"),
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

	http_listener_check(&c->http, node, "", errs, path);
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

static struct peers *new_peers(const struct query_config *conf, const char *what,
			       const struct strlist *names, int64_t timeout_ns, bool keeps_left,
			       struct query_memory *memory)
{
	return peers_new(&(struct peers_options){
		.what = what,
		.names = names->items,
		.n = names->n,
		.keeps_left = keeps_left,
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
				     true, &st->api.memory);
	places->queriers = new_peers(conf, "querier", &conf->queriers, conf->querier_timeout_ns,
				     false, &st->api.memory);
	if (places->builders != NULL && peers_start(places->builders, err) < 0)
		return -1;
	return places->queriers != NULL ? peers_start(places->queriers, err) : 0;
}

static int query_start(struct component *c, struct err *err)
{
	const struct query_config *conf = COMPONENT_CONFIG(c, struct query_config);
	struct query_state *st = COMPONENT_STATE(c, struct query_state);
	struct store *store = component_borrow(c, "trace_store");
	struct http_listener_setup setup = { .routes = st->routes,
					     .n_routes = QUERY_ROUTES,
					     .own_args = true,
					     .hold_timeout_ms = HOLD_MS };

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
	span_found_init(&st->lookup, &st->api);
	if (start_peers(st, conf, err) < 0)
		return -1;
	query_api_routes(&st->api, st->routes);
	st->listener = http_listener_start(c, &conf->http, &setup, err);
	return st->listener != NULL ? 0 : -1;
}

/* A struct span_lookup: pipeline/span/lookup.h. */
static void *query_lend(struct component *c)
{
	return &COMPONENT_STATE(c, struct query_state)->lookup.lookup;
}

/* Look-ups under way on the pool, which nobody waits for any more: one that hangs on the store is
 * cut off. */
static void end_jobs(struct query_state *st)
{
	struct store *store = st->api.places.store;
	bool is_cut = false;

	peers_interrupt(st->api.places.builders);
	peers_interrupt(st->api.places.queriers);
	for (unsigned ms = 0; atomic_load(&st->api.jobs) > 0; ms++) {
		if (ms == JOBS_GRACE_MS && store != NULL) {
			backend_interrupt(store_backend(store), true);
			is_cut = true;
		}
		usleep(1000);
	}
	if (is_cut)
		backend_interrupt(store_backend(store), false);
}

static void query_shutdown(struct component *c)
{
	struct query_state *st = COMPONENT_STATE(c, struct query_state);

	http_listener_free(st->listener);
	end_jobs(st);
	peers_free(st->api.places.builders);
	peers_free(st->api.places.queriers);
	if (st->has_api)
		query_api_fini(&st->api);
	*st = (struct query_state){ .has_api = false };
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
	.lend = query_lend,
};
