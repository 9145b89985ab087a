/* SPDX-License-Identifier: Apache-2.0
 *
 * reload.c - from the running configuration to the next one, or back.
 *
 *   graph_keep: who stays                        kept | new | leaving
 *   somebody who leaves may not overlap?
 *     gates in the place of all that is not there yet; what leaves drains, ends (its log is free)
 *   new ones start, exporters first, receivers last (on the sockets of those that drain)
 *   wires: what stays leads to what is new; gates give what waited
 *   what leaves and may overlap drains, ends
 *
 * A failure on the way goes the same way back: what is new ends, what has ended is made again from
 * the old configuration, which is kept until then. docs/decisions/050 has the reasons.
 * THREADS: the main thread; data flows meanwhile.
 */
#include "pipeline/service/service.h"

#include "base/clock.h"
#include "base/mem.h"
#include "net/listen_registry.h"
#include "net/tls.h"
#include "pipeline/registry.h"
#include "pipeline/service/instance.h"
#include "pipeline/span/numbers.h"

#include <stdio.h>
#include <unistd.h>

enum { STEP_US = 500, BEST_EFFORT_MS = 1000 };

struct reload {
	struct service *s;
	struct graph *now, *next;
	struct conf_generation *generation; /* of next */
	struct gate **gates;                /* one per node of next, or NULL */
	struct component **leaving;         /* of now, not of next; NULL: has ended */
	size_t n_leaving;
	uint64_t started_ns;
	struct telemetry_server *telemetry; /* of next, where it listens elsewhere */
	bool changes_telemetry;
};

static bool stop_is_wanted(const struct service *s)
{
	return atomic_load(&s->failed) || (s->stop_is_wanted != NULL && s->stop_is_wanted(s->arg));
}

/* ---- ending some ---- */

/* Some instances that end together. */
struct group {
	struct component **v;
	enum component_kind *kinds;
	size_t n;
	bool is_late; /* not all were drained in time */
};

static struct group group_of(size_t room)
{
	return (struct group){ xcalloc(room + 1, sizeof(struct component *)),
			       xcalloc(room + 1, sizeof(enum component_kind)), 0, false };
}

static void group_add(struct group *g, struct component *c)
{
	g->kinds[g->n] = c->type->kind;
	g->v[g->n++] = c;
}

static void group_fini(struct group *g)
{
	free(g->v);
	free(g->kinds);
}

static bool is_waited_for(const struct component *c, uint64_t since_ns)
{
	return c->type->kind != KIND_EXPORTER || !c->conf->exporter.best_effort ||
	       clock_mono_ns() - since_ns < BEST_EFFORT_MS * NS_PER_MS;
}

static void drain_one(struct component *c)
{
	if (!c->is_draining && c->is_started && c->type->drain != NULL)
		c->type->drain(c);
	c->is_draining = true;
}

/* Those of a kind begin to end. */
static void drain_kind(const struct group *g, enum component_kind kind)
{
	for (size_t i = 0; i < g->n; i++)
		if (g->v[i]->type->kind == kind)
			drain_one(g->v[i]);
}

static bool kind_is_drained(const struct group *g, enum component_kind kind, uint64_t since_ns)
{
	bool drained = true;

	for (size_t i = 0; i < g->n; i++) {
		struct component *c = g->v[i];

		if (c->type->kind == kind && c->is_started && c->type->is_drained != NULL &&
		    is_waited_for(c, since_ns))
			drained &= c->type->is_drained(c) != 0;
	}
	return drained;
}

/* 0, also when time is up; -1: the process is to stop, which has a time of its own. */
static int wait_for_kind(struct service *s, struct group *g, enum component_kind kind)
{
	uint64_t since = clock_mono_ns(), until = since + (uint64_t)s->conf->drain_timeout_ns;

	while (!kind_is_drained(g, kind, since)) {
		if (stop_is_wanted(s))
			return -1;
		if (clock_mono_ns() >= until) {
			log_warn("reload: draining took too long; requests are answered \"try "
				 "again\", what a log holds stays there",
				 "kind", registry_kind_name(kind));
			g->is_late = true;
			return 0;
		}
		usleep(STEP_US);
	}
	return 0;
}

/* The pointers in g->v stay, for the caller to forget. */
static void end_kind(struct service *s, const struct group *g, enum component_kind kind)
{
	for (size_t i = g->n; i-- > 0;) {
		if (g->kinds[i] != kind)
			continue;
		service_list_remove(s, g->v[i]);
		service_end(s, g->v[i], !g->is_late);
	}
}

/* Drain and end them, those upstream first. -1: the process is to stop; all are still there. */
static int end_group(struct service *s, struct group *g)
{
	static const enum component_kind order[] = { KIND_RECEIVER, KIND_PROCESSOR, KIND_CONNECTOR,
						     KIND_EXPORTER, KIND_EXTENSION };

	/* Connectors last: what they make of the last spans is on its way before exporters end. */
	for (size_t k = 0; k < 2; k++)
		drain_kind(g, order[k]);
	for (size_t k = 0; k < COUNT_OF(order); k++) {
		drain_kind(g, order[k]);
		if (wait_for_kind(s, g, order[k]) < 0)
			return -1;
	}
	for (size_t k = 0; k < COUNT_OF(order); k++)
		end_kind(s, g, order[k]);
	return 0;
}

/* ---- who leaves ---- */

/* Extensions never: those that ask would find either. */
static bool may_overlap(const struct component *c)
{
	return c->type->kind != KIND_EXTENSION && c->type->may_overlap != NULL &&
	       c->type->may_overlap(c->config);
}

static void find_leaving(struct reload *l)
{
	l->leaving = xcalloc(l->now->n + 1, sizeof(struct component *));
	for (size_t i = 0; i < l->now->n; i++)
		if (graph_node_of(l->next, l->now->nodes[i].c) == NULL)
			l->leaving[l->n_leaving++] = l->now->nodes[i].c;
}

static bool one_must_end_first(const struct reload *l)
{
	for (size_t i = 0; i < l->n_leaving; i++)
		if (!may_overlap(l->leaving[i]))
			return true;
	return false;
}

static bool an_extension_leaves(const struct reload *l)
{
	for (size_t i = 0; i < l->n_leaving; i++)
		if (l->leaving[i] != NULL && l->leaving[i]->type->kind == KIND_EXTENSION)
			return true;
	return false;
}

/* c is gone. */
static void forget_leaving(struct reload *l, const struct component *c)
{
	for (size_t i = 0; i < l->n_leaving; i++)
		if (l->leaving[i] == c)
			l->leaving[i] = NULL;
	graph_node_of(l->now, c)->c = NULL;
}

/* End those that leave; `first`: only what has to before the new ones start. That is what may not
 * overlap, whatever leads to it, and all when what they borrow from goes. */
static int end_leaving(struct reload *l, bool first)
{
	bool all = !first || an_extension_leaves(l);
	struct group g = group_of(l->n_leaving);
	int ret;

	for (size_t i = 0; i < l->n_leaving; i++) {
		struct component *c = l->leaving[i];

		if (c != NULL && (all || c->type->kind != KIND_EXPORTER || !may_overlap(c)))
			group_add(&g, c);
	}
	ret = end_group(l->s, &g);
	for (size_t i = 0; ret == 0 && i < g.n; i++)
		forget_leaving(l, g.v[i]);
	group_fini(&g);
	return ret;
}

/* Those that drain leave the page and the questions to their successors, but for extensions, which
 * others still ask. Receivers give up their sockets. */
static void begin_leaving(struct reload *l)
{
	for (size_t i = 0; i < l->n_leaving; i++)
		if (l->leaving[i]->type->kind != KIND_EXTENSION)
			service_list_remove(l->s, l->leaving[i]);
	for (size_t i = 0; i < l->n_leaving; i++)
		if (l->leaving[i]->type->kind == KIND_RECEIVER)
			drain_one(l->leaving[i]);
}

/* ---- gates ---- */

static void close_gates(struct reload *l)
{
	l->gates = xcalloc(l->next->n + 1, sizeof(struct gate *));
	for (size_t i = 0; i < l->next->n; i++) {
		struct component *c = l->next->nodes[i].c;

		if (!c->is_started && c->type->consume != NULL)
			l->gates[i] = gate_new(c);
	}
	service_wire(l->next, l->gates);
}

/* Nobody is led to a gate any more: what waits goes on in `g`, where it would have gone. */
static void open_gates(struct reload *l, const struct graph *g)
{
	for (size_t i = 0; l->gates != NULL && i < l->next->n; i++) {
		const struct graph_node *twin = graph_find(g, &l->next->nodes[i]);

		if (l->gates[i] == NULL)
			continue;
		gate_open(l->gates[i], twin != NULL ? twin->c : NULL);
		gate_free(l->gates[i]);
	}
	free(l->gates);
	l->gates = NULL;
}

/* They stay where they are and have everything sent again. */
static void give_up_gates(struct reload *l)
{
	struct service *s = l->s;

	for (size_t i = 0; l->gates != NULL && i < l->next->n; i++) {
		if (l->gates[i] == NULL)
			continue;
		gate_open(l->gates[i], NULL);
		s->given_up_gates = xrealloc(s->given_up_gates,
					     (s->n_given_up_gates + 1) * sizeof(struct gate *));
		s->given_up_gates[s->n_given_up_gates++] = l->gates[i];
	}
	free(l->gates);
	l->gates = NULL;
}

/* ---- telemetry ---- */

static const char *page_endpoint(const struct service_config *conf)
{
	return conf->telemetry.metrics_level != TELEMETRY_NONE ? conf->telemetry.metrics_endpoint
							       : "";
}

static int change_telemetry(struct reload *l, struct err *err)
{
	const char *endpoint = page_endpoint(l->next->conf);

	l->changes_telemetry = strcmp(endpoint, page_endpoint(l->now->conf)) != 0;
	if (l->changes_telemetry && endpoint[0] != '\0') {
		l->telemetry = telemetry_server_start(l->s, endpoint, err);
		if (l->telemetry == NULL)
			return -1;
	}
	if (log_open(&l->next->conf->telemetry.log, err) == 0)
		return 0;
	telemetry_server_stop(l->telemetry);
	l->telemetry = NULL;
	return -1;
}

static void change_telemetry_back(struct reload *l)
{
	struct err err = ERR_INIT;

	telemetry_server_stop(l->telemetry);
	if (log_open(&l->now->conf->telemetry.log, &err) < 0)
		log_error("reload: the log stays as the new configuration had it", "error",
			  err.msg);
}

/* On loop 0, where the page is written. */
static void install_conf(void *arg)
{
	struct reload *l = arg;

	l->s->conf = l->next->conf;
	atomic_store(&l->s->exemplar_th, l->s->conf->exemplar_th);
	atomic_store(&l->s->sampled_ratio, l->s->conf->sampled_ratio);
}

/* ---- there ---- */

static int go(struct reload *l, struct err *err)
{
	service_make_missing(l->s, l->next, l->generation);
	begin_leaving(l);
	if (one_must_end_first(l)) {
		close_gates(l);
		if (end_leaving(l, true) < 0)
			return err_set(err, ERR_UNAVAILABLE, "stopped while reloading");
	}
	service_wire_new(l->next);
	if (service_start_missing(l->s, l->next, err) < 0)
		return -1;
	service_wire(l->next, NULL);
	open_gates(l, l->next);
	return 0;
}

/* The process is to stop: what has not ended is part of what it stops. */
static void list_leaving(struct reload *l)
{
	for (size_t i = 0; i < l->n_leaving; i++)
		if (l->leaving[i] != NULL && l->leaving[i]->type->kind != KIND_EXTENSION)
			service_list_add(l->s, l->leaving[i]);
}

static void list_in_order(struct service *s)
{
	struct component **v = xcalloc(s->graph->n + 1, sizeof(struct component *));

	for (size_t i = 0; i < s->graph->n; i++)
		v[i] = s->graph->nodes[i].c;
	service_list_set(s, v, s->graph->n);
	free(v);
}

static void finish(struct reload *l)
{
	struct service *s = l->s;

	loop_call(s->loops[0], install_conf, l);
	s->graph = l->next;
	s->generation = l->generation;
	if (l->changes_telemetry) {
		telemetry_server_stop(s->telemetry);
		s->telemetry = l->telemetry;
	}
	if (end_leaving(l, false) < 0)
		list_leaving(l);
	else
		list_in_order(s);
	graph_free(l->now);
}

/* ---- back ---- */

/* End what was made for the next configuration and is not of this one. */
static int end_new(struct reload *l, bool started)
{
	struct group g = group_of(l->next->n);
	int ret;

	for (size_t i = 0; i < l->next->n; i++) {
		struct component *c = l->next->nodes[i].c;

		if (c != NULL && c->is_started == started && graph_node_of(l->now, c) == NULL)
			group_add(&g, c);
	}
	ret = end_group(l->s, &g);
	for (size_t i = 0; ret == 0 && i < g.n; i++)
		graph_node_of(l->next, g.v[i])->c = NULL;
	group_fini(&g);
	return ret;
}

/* Receivers that gave up their sockets cannot take them again. */
static int end_draining(struct reload *l)
{
	struct group g = group_of(l->n_leaving);
	int ret;

	for (size_t i = 0; i < l->n_leaving; i++)
		if (l->leaving[i] != NULL && l->leaving[i]->is_draining)
			group_add(&g, l->leaving[i]);
	ret = end_group(l->s, &g);
	for (size_t i = 0; ret == 0 && i < g.n; i++)
		forget_leaving(l, g.v[i]);
	group_fini(&g);
	return ret;
}

static int go_back(struct reload *l, struct err *err)
{
	/* What did not start never took anything. */
	if (end_new(l, false) < 0 || stop_is_wanted(l->s) || end_new(l, true) < 0 ||
	    end_draining(l) < 0)
		return err_set(err, ERR_UNAVAILABLE, "stopped while reloading");
	service_make_missing(l->s, l->now, l->s->generation);
	service_wire_new(l->now);
	if (service_start_missing(l->s, l->now, err) < 0)
		return -1;
	service_wire(l->now, NULL);
	open_gates(l, l->now);
	list_in_order(l->s);
	return 0;
}

/* Neither there nor back: the process stops, or is told to. */
static void give_up(struct reload *l, const struct err *why)
{
	struct service *s = l->s;

	give_up_gates(l);
	list_leaving(l);
	if (stop_is_wanted(s))
		return;
	log_error("reload: the old configuration cannot be started again: stopping", "error",
		  why->msg);
	if (atomic_exchange(&s->failed, 1) == 0)
		snprintf(s->failure, sizeof(s->failure), "reload: %.240s", why->msg);
	if (s->component_failed != NULL)
		s->component_failed(s->arg);
}

/* ---- what is said ---- */

/* Names for the line, and how many stay. */
struct report {
	struct buf changed, started, stopped;
	size_t n_kept;
};

static void add_name(struct buf *names, const struct graph_node *n)
{
	if (names->n > 0)
		buf_add_str(names, ", ");
	buf_add_str(names, n->conf->yaml_path);
	if (n->pipeline != NULL)
		buf_printf(names, " in %s", n->pipeline);
}

static void compare(const struct reload *l, struct report *r)
{
	for (size_t i = 0; i < l->next->n; i++) {
		const struct graph_node *n = &l->next->nodes[i];

		if (n->c != NULL)
			r->n_kept++;
		else
			add_name(graph_find(l->now, n) ? &r->changed : &r->started, n);
	}
	for (size_t i = 0; i < l->now->n; i++)
		if (graph_find(l->next, &l->now->nodes[i]) == NULL)
			add_name(&r->stopped, &l->now->nodes[i]);
}

static void tell(const struct reload *l, struct report *r)
{
	log_info("SIGHUP: the configuration is in force", "kept", LOG_NUM(r->n_kept), "changed",
		 buf_cstr(&r->changed), "started", buf_cstr(&r->started), "stopped",
		 buf_cstr(&r->stopped), "ms",
		 LOG_NUM((clock_mono_ns() - l->started_ns) / NS_PER_MS));
}

static void report_fini(struct report *r)
{
	buf_fini(&r->changed);
	buf_fini(&r->started);
	buf_fini(&r->stopped);
}

/* ---- all of it ---- */

void service_reload_failed(struct service *s)
{
	atomic_fetch_add(&s->reloads.failed, 1);
}

static void count_success(struct service *s)
{
	atomic_fetch_add(&s->reloads.ok, 1);
	atomic_store(&s->reloads.success_wall_ns, clock_wall_ns());
}

void service_refresh(struct service *s)
{
	tls_reload_all();
	count_success(s);
}

static void undo(struct reload *l)
{
	struct err err = ERR_INIT;

	change_telemetry_back(l);
	if (go_back(l, &err) < 0)
		give_up(l, &err);
	graph_free(l->next);
	service_reload_failed(l->s);
}

static int change(struct reload *l, struct err *err)
{
	struct report r = { BUF_INIT, BUF_INIT, BUF_INIT, 0 };
	int ret = -1;

	graph_keep(l->next, l->now);
	find_leaving(l);
	compare(l, &r);
	/* Before new ones read theirs. */
	tls_reload_all();
	if (change_telemetry(l, err) < 0) {
		graph_free(l->next);
		service_reload_failed(l->s);
	} else if (go(l, err) < 0) {
		undo(l);
	} else {
		finish(l);
		count_success(l->s);
		tell(l, &r);
		service_tell_started(l->s);
		ret = 0;
	}
	report_fini(&r);
	free(l->leaving);
	return ret;
}

int service_reload(struct service *s, struct service_config *conf, struct err *err)
{
	struct reload l = { .s = s, .now = s->graph, .started_ns = clock_mono_ns() };
	int ret;

	l.next = graph_new(conf);
	l.generation = service_generation_new(s, conf, conf);
	listen_registry_keep();
	span_numbers_begin();
	ret = change(&l, err);
	span_numbers_end();
	listen_registry_settle();
	service_generations_sweep(s);
	return ret;
}
