/* SPDX-License-Identifier: Apache-2.0
 *
 * graph.c - see graph.h.
 */
#include "pipeline/service/graph.h"

#include "base/mem.h"
#include "pipeline/service/ask.h"

/* ---- building ---- */

static size_t count_nodes(const struct service_config *conf)
{
	size_t n = conf->n_components * OTLP_SIGNALS;

	for (size_t i = 0; i < conf->n_pipelines; i++)
		n += conf->pipelines[i].processors.n;
	return n;
}

/* Room was counted before. */
static size_t add_node(struct graph *g, size_t conf_index, enum otlp_signal signal)
{
	g->nodes[g->n] =
		(struct graph_node){ .conf = &g->conf->components[conf_index], .signal = signal };
	return g->n++;
}

/* Authenticators before the extensions that ask them, and before those that borrow from another,
 * whatever the order of the list. */
static unsigned rank_of(const struct component_type *t)
{
	if (t->authenticator != NULL)
		return 0;
	return t->needs == NULL ? 1 : 2;
}

static void add_extensions(struct graph *g)
{
	for (unsigned rank = 0; rank <= 2; rank++)
		for (size_t i = 0; i < g->conf->extensions.n; i++) {
			size_t index = g->conf->extensions.items[i];

			if (rank_of(g->conf->components[index].type) == rank)
				add_node(g, index, OTLP_TRACES);
		}
}

/* A receiver listens once for all signals; others have an instance for each. */
static bool is_per_signal(enum component_kind kind)
{
	return kind == KIND_EXPORTER || kind == KIND_CONNECTOR;
}

static void add_used(struct graph *g, enum component_kind kind)
{
	for (size_t i = 0; i < g->conf->n_components; i++) {
		const struct service_component *sc = &g->conf->components[i];

		if (sc->kind != kind || !sc->is_used)
			continue;
		if (!is_per_signal(kind))
			add_node(g, i, OTLP_TRACES);
		for (int k = 0; is_per_signal(kind) && k < OTLP_SIGNALS; k++)
			if (sc->used_signals & 1u << k)
				add_node(g, i, (enum otlp_signal)k);
	}
}

/* The node of a component that exists once per id, or per id and signal. */
static size_t node_of(const struct graph *g, size_t conf_index, enum otlp_signal signal)
{
	const struct service_component *sc = &g->conf->components[conf_index];
	size_t i = 0;

	while (g->nodes[i].conf != sc || g->nodes[i].pipeline != NULL ||
	       (is_per_signal(sc->kind) && g->nodes[i].signal != signal))
		i++;
	assert(i < g->n);
	return i;
}

static void connect(struct graph *g, size_t from, size_t to)
{
	struct graph_node *n = &g->nodes[from];

	n->to = xrealloc(n->to, (n->n_to + 1) * sizeof(*n->to));
	n->to[n->n_to++] = to;
}

/* Connectors first: they watch spans, which an exporter may settle at once (span/watch.h). */
static void connect_exporters(struct graph *g, const struct service_pipeline *p, size_t from)
{
	for (int connectors = 1; connectors >= 0; connectors--)
		for (size_t i = 0; i < p->exporters.n; i++) {
			size_t index = p->exporters.items[i];

			if ((g->conf->components[index].kind == KIND_CONNECTOR) == connectors)
				connect(g, from, node_of(g, index, p->signal));
		}
}

/* To the first processor of p, or to its exporters (SIZE_MAX). */
static void connect_first(struct graph *g, const struct service_pipeline *p, size_t from,
			  size_t first)
{
	if (first != SIZE_MAX)
		connect(g, from, first);
	else
		connect_exporters(g, p, from);
}

/* What stands under the receivers of p; of a connector every instance that makes p's signal. */
static void connect_receiver(struct graph *g, const struct service_pipeline *p, size_t conf_index,
			     size_t first)
{
	const struct service_component *sc = &g->conf->components[conf_index];

	for (int k = 0; k < OTLP_SIGNALS; k++) {
		enum otlp_signal takes = (enum otlp_signal)k;
		bool leads_here = sc->kind != KIND_CONNECTOR
					  ? takes == p->signal
					  : (sc->used_signals & 1u << k) != 0 &&
						    conf_check_joins(sc, takes, p->signal);

		if (leads_here)
			connect_first(g, p, node_of(g, conf_index, takes), first);
	}
}

static void add_pipeline(struct graph *g, const struct service_pipeline *p)
{
	size_t first = g->n;

	for (size_t i = 0; i < p->processors.n; i++) {
		size_t node = add_node(g, p->processors.items[i], p->signal);

		g->nodes[node].pipeline = p->id;
		g->nodes[node].place = i;
		if (i > 0)
			connect(g, node - 1, node);
	}
	if (g->n > first)
		connect_exporters(g, p, g->n - 1);
	for (size_t i = 0; i < p->receivers.n; i++)
		connect_receiver(g, p, p->receivers.items[i], g->n > first ? first : SIZE_MAX);
}

struct graph *graph_new(const struct service_config *conf)
{
	struct graph *g = xcalloc(1, sizeof(*g));

	g->conf = conf;
	g->nodes = xcalloc(count_nodes(conf) + 1, sizeof(*g->nodes));
	add_extensions(g);
	add_used(g, KIND_EXPORTER);
	add_used(g, KIND_CONNECTOR);
	add_used(g, KIND_RECEIVER);
	for (size_t i = 0; i < conf->n_pipelines; i++)
		add_pipeline(g, &conf->pipelines[i]);
	return g;
}

void graph_free(struct graph *g)
{
	if (g == NULL)
		return;
	for (size_t i = 0; i < g->n; i++)
		free(g->nodes[i].to);
	free(g->nodes);
	free(g);
}

/* ---- looking ---- */

static bool is_same_text(const char *a, const char *b)
{
	return a == b || (a != NULL && b != NULL && strcmp(a, b) == 0);
}

struct graph_node *graph_find(const struct graph *g, const struct graph_node *like)
{
	for (size_t i = 0; i < g->n; i++) {
		struct graph_node *n = &g->nodes[i];

		if (n->conf->kind == like->conf->kind && n->signal == like->signal &&
		    strcmp(n->conf->id, like->conf->id) == 0 &&
		    is_same_text(n->pipeline, like->pipeline))
			return n;
	}
	return NULL;
}

struct graph_node *graph_node_of(const struct graph *g, const struct component *c)
{
	for (size_t i = 0; i < g->n; i++)
		if (g->nodes[i].c == c)
			return &g->nodes[i];
	return NULL;
}

struct graph_node *graph_asked(const struct graph *g, const struct component_need *need)
{
	for (size_t i = 0; i < g->n; i++) {
		const struct graph_node *n = &g->nodes[i];

		if (service_ask_is_answer(need, n->conf->kind, n->signal, n->conf->id,
					  n->conf->type->name))
			return &g->nodes[i];
	}
	return NULL;
}

/* ---- what stays ---- */

/* Do a and b stand the other way round in the other graph? */
static bool changed_places(const struct graph_node *a, const struct graph_node *b,
			   const struct graph *other)
{
	const struct graph_node *a2 = graph_find(other, a), *b2 = graph_find(other, b);

	return a2 != NULL && b2 != NULL && (a->place < b->place) != (a2->place < b2->place);
}

static bool keeps_its_place(const struct graph *next, const struct graph_node *n,
			    const struct graph *now)
{
	for (size_t i = 0; n->pipeline != NULL && i < next->n; i++) {
		const struct graph_node *other = &next->nodes[i];

		if (other != n && is_same_text(other->pipeline, n->pipeline) &&
		    changed_places(n, other, now))
			return false;
	}
	return true;
}

static bool keeps_what_it_asked(const struct graph *next, const struct component *c)
{
	struct component_need need;

	for (size_t i = 0; service_ask_need(c, i, &need); i++) {
		const struct graph_node *n = graph_asked(next, &need);

		if (n == NULL ? need.found != NULL : n->c == NULL || n->c != need.found)
			return false;
	}
	return true;
}

/* Mark everything downstream of a node. */
static void mark_reach(const struct graph *g, const struct graph_node *from, bool *seen)
{
	for (size_t i = 0; i < from->n_to; i++) {
		if (seen[from->to[i]])
			continue;
		seen[from->to[i]] = true;
		mark_reach(g, &g->nodes[from->to[i]], seen);
	}
}

/* Every sink that a leads to is one of b's, the same instance. */
static bool sinks_are_among(const struct graph *ga, const struct graph_node *a,
			    const struct graph *gb, const struct graph_node *b)
{
	bool *in_a = xcalloc(ga->n + 1, sizeof(bool)), *in_b = xcalloc(gb->n + 1, sizeof(bool));
	bool all = true;

	mark_reach(ga, a, in_a);
	mark_reach(gb, b, in_b);
	for (size_t i = 0; i < ga->n && all; i++) {
		const struct graph_node *n = &ga->nodes[i], *twin;

		if (!in_a[i] || n->conf->type->source_open == NULL)
			continue;
		twin = n->c != NULL ? graph_node_of(gb, n->c) : NULL;
		all = twin != NULL && in_b[twin - gb->nodes];
	}
	free(in_a);
	free(in_b);
	return all;
}

/* The signals that leave a node, or-ed. */
static unsigned signals_out(const struct graph *g, const struct graph_node *n)
{
	unsigned signals = 0;

	for (size_t i = 0; i < n->n_to; i++)
		signals |= 1u << g->nodes[n->to[i]].signal;
	return signals;
}

static bool may_stay(const struct graph *next, const struct graph_node *n, const struct graph *now)
{
	const struct graph_node *twin = graph_find(now, n);

	if (!keeps_its_place(next, n, now) || !keeps_what_it_asked(next, n->c) ||
	    signals_out(next, n) != signals_out(now, twin))
		return false;
	return !n->conf->type->opens_sources ||
	       (sinks_are_among(next, n, now, twin) && sinks_are_among(now, twin, next, n));
}

void graph_keep(struct graph *next, const struct graph *now)
{
	bool changed = true;

	for (size_t i = 0; i < next->n; i++) {
		struct graph_node *n = &next->nodes[i], *twin = graph_find(now, n);

		n->c = twin != NULL && conf_check_is_same(twin->conf, n->conf) ? twin->c : NULL;
	}
	/* One that goes may take others along. */
	while (changed) {
		changed = false;
		for (size_t i = 0; i < next->n; i++) {
			struct graph_node *n = &next->nodes[i];

			if (n->c == NULL || may_stay(next, n, now))
				continue;
			n->c = NULL;
			changed = true;
		}
	}
}
