/* SPDX-License-Identifier: Apache-2.0
 *
 * instance.c - see instance.h.
 *
 * Counters are kept by kind, id and pipeline until the process ends: a successor goes on counting
 * where its predecessor stopped, and a request that outlives its receiver still finds them. An id
 * costs some 300 bytes.
 */
#include "pipeline/service/instance.h"

#include "base/mem.h"
#include "pipeline/registry.h"
#include "pipeline/service/ask.h"

struct service_counters {
	struct service_counters *next;
	enum component_kind kind;
	enum otlp_signal signal;
	char *id, *pipeline;
	struct component_counters count;
};

const enum component_kind service_start_order[KIND_MAX] = { KIND_EXTENSION, KIND_EXPORTER,
							    KIND_CONNECTOR, KIND_PROCESSOR,
							    KIND_RECEIVER };

/* ---- generations ---- */

struct conf_generation *service_generation_new(struct service *s, const struct service_config *conf,
					       struct service_config *owned)
{
	struct conf_generation *g = xcalloc(1, sizeof(*g));

	*g = (struct conf_generation){ .next = s->generations, .conf = conf, .owned = owned };
	s->generations = g;
	return g;
}

void service_generations_sweep(struct service *s)
{
	struct conf_generation **at = &s->generations, *g;

	while ((g = *at) != NULL) {
		if (g->n_users > 0 || g == s->generation) {
			at = &g->next;
			continue;
		}
		*at = g->next;
		conf_check_free(g->owned);
		free(g);
	}
}

/* ---- instances ---- */

static bool is_of(const struct service_counters *sc, const struct graph_node *n)
{
	const char *pipeline = n->pipeline != NULL ? n->pipeline : "";

	return sc->kind == n->conf->kind && sc->signal == n->signal &&
	       strcmp(sc->id, n->conf->id) == 0 && strcmp(sc->pipeline, pipeline) == 0;
}

static struct component_counters *counters_of(struct service *s, const struct graph_node *n)
{
	struct service_counters *sc = s->counters;

	while (sc != NULL && !is_of(sc, n))
		sc = sc->next;
	if (sc == NULL) {
		sc = xcalloc(1, sizeof(*sc));
		sc->kind = n->conf->kind;
		sc->signal = n->signal;
		sc->id = xstrdup(n->conf->id);
		sc->pipeline = xstrdup(n->pipeline != NULL ? n->pipeline : "");
		sc->next = s->counters;
		s->counters = sc;
	}
	return &sc->count;
}

void service_counters_free(struct service *s)
{
	struct service_counters *sc;

	while ((sc = s->counters) != NULL) {
		s->counters = sc->next;
		free(sc->id);
		free(sc->pipeline);
		free(sc);
	}
}

void service_make(struct service *s, struct graph_node *n, struct conf_generation *gen)
{
	struct component *c = xcalloc(1, sizeof(*c));

	c->type = n->conf->type;
	c->id = n->conf->id;
	c->config = n->conf->config;
	c->receiver = &n->conf->receiver;
	c->state = xcalloc(1, MAX(c->type->state_size, (size_t)1));
	c->count = counters_of(s, n);
	c->service = s;
	c->signal = n->signal;
	c->pipeline = n->pipeline;
	c->conf = n->conf;
	c->generation = gen;
	gen->n_users++;
	n->c = c;
}

void service_make_missing(struct service *s, struct graph *g, struct conf_generation *gen)
{
	for (size_t i = 0; i < g->n; i++)
		if (g->nodes[i].c == NULL)
			service_make(s, &g->nodes[i], gen);
}

static int start_one(struct service *s, struct component *c, struct err *err)
{
	int ret = 0;

	if (s->stop_is_wanted != NULL && s->stop_is_wanted(s->arg))
		return err_set(err, ERR_UNAVAILABLE, "stopped while starting");
	atomic_store(&s->starting, c);
	if (c->type->start != NULL && c->type->start(c, err) < 0)
		ret = err_wrap(err, "%s %s", registry_kind_name(c->type->kind), c->id);
	atomic_store(&s->starting, NULL);
	if (ret < 0)
		return -1;
	c->is_started = true;
	service_list_add(s, c);
	return 0;
}

int service_start_missing(struct service *s, struct graph *g, struct err *err)
{
	for (size_t k = 0; k < KIND_MAX; k++) {
		enum component_kind kind = service_start_order[k];

		/* A pipeline's later processors first, so that whoever emits finds its target
		 * started. */
		for (size_t i = 0; i < g->n; i++) {
			size_t at = kind == KIND_EXTENSION ? i : g->n - 1 - i;
			struct component *c = g->nodes[at].c;

			if (c->type->kind == kind && !c->is_started && start_one(s, c, err) < 0)
				return -1;
		}
	}
	return 0;
}

void service_tell_started(struct service *s)
{
	for (size_t i = 0; i < s->graph->n; i++) {
		struct component *c = s->graph->nodes[i].c;

		if (c->type->all_started != NULL)
			c->type->all_started(c);
	}
}

static void nothing(void *arg)
{
	(void)arg;
}

void service_pass_loops(struct service *s)
{
	for (unsigned i = 0; i < s->n_loops_started; i++)
		loop_call(s->loops[i], nothing, NULL);
}

void service_free_instance(struct component *c)
{
	service_ask_forget(c);
	c->generation->n_users--;
	free(c->state);
	for (int k = 0; k < OTLP_SIGNALS; k++)
		free(atomic_load(&c->out[k]));
	free(c);
}

void service_end(struct service *s, struct component *c, bool is_drained)
{
	if (c->type->shutdown != NULL)
		c->type->shutdown(c);
	/* Handles close on the next turns of their loops; what was posted runs before. */
	service_pass_loops(s);
	service_pass_loops(s);
	if (is_drained) {
		service_free_instance(c);
		return;
	}
	c->next_ended = s->ended;
	s->ended = c;
}

/* ---- the list ---- */

void service_list_set(struct service *s, struct component *const *v, size_t n)
{
	struct component **copy = xcalloc(n + 1, sizeof(struct component *)), **old;

	memcpy(copy, v, n * sizeof(struct component *));
	pthread_rwlock_wrlock(&s->list_lock);
	old = s->components;
	s->components = copy;
	s->n_components = n;
	pthread_rwlock_unlock(&s->list_lock);
	free(old);
}

/* The main thread alone changes the list, so it may read without the lock. */
void service_list_add(struct service *s, struct component *c)
{
	struct component **v = xcalloc(s->n_components + 1, sizeof(struct component *));

	for (size_t i = 0; i < s->n_components; i++)
		v[i] = s->components[i];
	v[s->n_components] = c;
	service_list_set(s, v, s->n_components + 1);
	free(v);
}

void service_list_remove(struct service *s, struct component *c)
{
	struct component **v = xcalloc(s->n_components + 1, sizeof(struct component *));
	size_t n = 0;

	for (size_t i = 0; i < s->n_components; i++)
		if (s->components[i] != c)
			v[n++] = s->components[i];
	service_list_set(s, v, n);
	free(v);
}

/* ---- wires ---- */

/* What leaves a node of one signal; NULL: nothing does. */
static struct fanout *new_fanout(const struct graph *g, const struct graph_node *n,
				 enum otlp_signal signal, struct gate *const *gates)
{
	struct fanout *f = xcalloc(1, sizeof(*f) + n->n_to * sizeof(*f->targets));

	f->targets = (struct fanout_target *)(void *)(f + 1);
	for (size_t i = 0; i < n->n_to; i++) {
		const struct graph_node *to = &g->nodes[n->to[i]];
		struct gate *gate = gates != NULL && n->c->is_started ? gates[n->to[i]] : NULL;
		bool best_effort =
			to->conf->kind == KIND_EXPORTER && to->conf->exporter.best_effort;

		if (to->signal != signal)
			continue;
		f->targets[f->n++] =
			(struct fanout_target){ gate != NULL ? gate_component(gate) : to->c,
						best_effort };
		f->n_owing += !best_effort;
	}
	if (f->n > 0)
		return f;
	free(f);
	return NULL;
}

/* Wire one instance; what it had goes to old, which has room. Returns how many. */
static size_t wire_one(const struct graph *g, const struct graph_node *n, struct gate *const *gates,
		       struct fanout **old)
{
	size_t n_old = 0;

	for (int k = 0; k < OTLP_SIGNALS; k++) {
		struct fanout *f = new_fanout(g, n, (enum otlp_signal)k, gates);

		f = atomic_exchange(&n->c->out[k], f);
		if (f != NULL)
			old[n_old++] = f;
	}
	return n_old;
}

void service_wire(struct graph *g, struct gate *const *gates)
{
	struct fanout **old = xcalloc(g->n * OTLP_SIGNALS + 1, sizeof(*old));
	size_t n = 0;

	/* Downstream first, as instances are started: nobody is led to one that leads nowhere. */
	for (size_t i = g->n; i-- > 0;)
		n += wire_one(g, &g->nodes[i], gates, old + n);
	fanout_wait();
	while (n > 0)
		free(old[--n]);
	free(old);
}

void service_wire_new(struct graph *g)
{
	struct fanout *old[OTLP_SIGNALS];

	for (size_t i = 0; i < g->n; i++) {
		size_t n = 0;

		if (!g->nodes[i].c->is_started)
			n = wire_one(g, &g->nodes[i], NULL, old);
		while (n > 0)
			free(old[--n]);
	}
}
