/* SPDX-License-Identifier: Apache-2.0
 *
 * graph.h - what a configuration asks for, as nodes and edges; and which nodes of the running one a
 * new one may keep.
 *
 *   configuration -> graph_new -> nodes without instances --graph_keep(running graph)--> those that
 *     stay have theirs; the service makes the rest
 *
 * One node per receiver and extension id that is used, per signal that an exporter or connector
 * gets, and per processor in a pipeline. Nodes stand in the order they are made: extensions first,
 * then exporters, connectors, receivers, processors along their pipeline.
 * OWNERSHIP: a graph owns its nodes, borrows the configuration, and only names instances.
 * THREADS: the main thread.
 */
#ifndef PIPELINE_SERVICE_GRAPH_H
#define PIPELINE_SERVICE_GRAPH_H

#include "pipeline/resolve/check.h"

struct component_need;

struct graph_node {
	const struct service_component *conf;
	enum otlp_signal signal; /* of all but receivers and extensions: what it gets */
	const char *pipeline;    /* processors: the id of theirs; else NULL */
	size_t place;            /* processors: their place in it */
	size_t *to;              /* whom it emits to: indices of nodes */
	size_t n_to;
	struct component *c; /* NULL: to be made */
};

struct graph {
	const struct service_config *conf;
	struct graph_node *nodes;
	size_t n;
};

struct graph *graph_new(const struct service_config *conf);
/* NULL is fine. */
void graph_free(struct graph *g);

/* The node of the same kind, id, signal and pipeline, or NULL. */
struct graph_node *graph_find(const struct graph *g, const struct graph_node *like);
/* The node of this instance, or NULL. */
struct graph_node *graph_node_of(const struct graph *g, const struct component *c);
/* Who would be found in g by that question (ask.h), or NULL. */
struct graph_node *graph_asked(const struct graph *g, const struct component_need *need);

/* Give nodes of `next` the instances of `now` that stay. One does when its options are the same,
 * and what it holds on to stays too:
 *   every extension or connector it has asked for (component_need), and where it found none there
 *     is none;
 *   a processor keeps its place among those that both pipelines have: when two change places both
 *     begin anew, so that no batch passes one of them twice, or never;
 *   a receiver has the same signals; one of ordered sources keeps the exporters that keep sections
 *     of them. */
void graph_keep(struct graph *next, const struct graph *now);

#endif
