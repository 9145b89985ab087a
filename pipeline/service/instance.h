/* SPDX-License-Identifier: Apache-2.0
 *
 * instance.h - an instance of a component from its making to its end, and the wires between
 * instances. Only service.c and reload.c include it.
 *
 * THREADS: the main thread.
 */
#ifndef PIPELINE_SERVICE_INSTANCE_H
#define PIPELINE_SERVICE_INSTANCE_H

#include "pipeline/service/gate.h"
#include "pipeline/service/graph.h"
#include "pipeline/service/service.h"

/* A new generation, not yet the one in force. `owned` is freed with it; NULL: `conf` is another's.
 */
struct conf_generation *service_generation_new(struct service *s, const struct service_config *conf,
					       struct service_config *owned);
/* Free those that neither an instance nor the service uses. */
void service_generations_sweep(struct service *s);

/* Make the instance of a node that has none; it is not started and leads nowhere. */
void service_make(struct service *s, struct graph_node *n, struct conf_generation *gen);
/* Make all that are missing. */
void service_make_missing(struct service *s, struct graph *g, struct conf_generation *gen);
/* Start those that are not, in start order; each is listed when it runs. */
int service_start_missing(struct service *s, struct graph *g, struct err *err);
/* End it (shutdown, also when it did not start) and free it; unless it was not drained: then its
 * memory stays as long as the service, for what it handed on may still come back. It must not be
 * listed, and nobody be inside it. */
void service_end(struct service *s, struct component *c, bool is_drained);
/* Free its memory. */
void service_free_instance(struct component *c);

/* With the service. */
void service_counters_free(struct service *s);

/* What is listed from now on; copies v. */
void service_list_set(struct service *s, struct component *const *v, size_t n);
void service_list_add(struct service *s, struct component *c);
void service_list_remove(struct service *s, struct component *c);

/* Give every instance of g the fan-out that g asks for, with gates[i] (array and items may be NULL)
 * in the place of node i for those that run already. Returns when nobody is in an old one. */
void service_wire(struct graph *g, struct gate *const *gates);

/* The same for those that do not run yet. */
void service_wire_new(struct graph *g);

/* Kinds in the order of starting; KIND_MAX of them. */
extern const enum component_kind service_start_order[KIND_MAX];

/* No loop is inside a handler that began before the call. */
void service_pass_loops(struct service *s);

/* Tell those who want to know that every instance of s->graph has started. */
void service_tell_started(struct service *s);

#endif
