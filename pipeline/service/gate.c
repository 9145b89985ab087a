/* SPDX-License-Identifier: Apache-2.0
 *
 * gate.c - see gate.h.
 */
#include "pipeline/service/gate.h"

#include "base/mem.h"
#include "pipeline/fanout.h"

#include <pthread.h>

struct gate {
	struct component self;
	pthread_mutex_t lock;
	struct batch **v;
	size_t n, cap;
	bool refuses;
};

static void refuse(struct batch *b)
{
	struct err err = ERR_INIT;

	err_set(&err, ERR_UNAVAILABLE, "the configuration is being changed; send again");
	batch_settle(b, VERDICT_RETRYABLE, DROP_SHUTDOWN, &err);
	batch_unref(b);
}

static void gate_consume(struct component *c, struct batch *b)
{
	struct gate *g = CONTAINER_OF(c, struct gate, self);

	bool refuses;

	pthread_mutex_lock(&g->lock);
	refuses = g->refuses;
	if (!refuses) {
		g->v = xgrow(g->v, &g->cap, g->n + 1, sizeof(struct batch *));
		g->v[g->n++] = b;
	}
	pthread_mutex_unlock(&g->lock);
	if (refuses)
		refuse(b);
}

static const struct component_type gate_type = { .name = "gate", .consume = gate_consume };

struct gate *gate_new(struct component *c)
{
	struct gate *g = xcalloc(1, sizeof(*g));

	g->self.type = &gate_type;
	g->self.id = c->id;
	g->self.signal = c->signal;
	g->self.count = c->count;
	g->self.service = c->service;
	pthread_mutex_init(&g->lock, NULL);
	return g;
}

struct component *gate_component(struct gate *g)
{
	return &g->self;
}

size_t gate_open(struct gate *g, struct component *to)
{
	size_t n;

	pthread_mutex_lock(&g->lock);
	n = g->n;
	g->refuses = to == NULL;
	pthread_mutex_unlock(&g->lock);
	/* Nothing more is added: nobody comes in, or all that come are refused. */
	for (size_t i = 0; i < n; i++) {
		if (to == NULL || (!g->v[i]->is_detached && batch_is_withdrawn(g->v[i]))) {
			refuse(g->v[i]);
			continue;
		}
		/* Counted as incoming when it came. */
		unsigned turn = fanout_enter();

		to->type->consume(to, g->v[i]);
		fanout_leave(turn);
	}
	g->n = 0;
	return n;
}

void gate_free(struct gate *g)
{
	if (g == NULL)
		return;
	assert(g->n == 0);
	pthread_mutex_destroy(&g->lock);
	free(g->v);
	free(g);
}
