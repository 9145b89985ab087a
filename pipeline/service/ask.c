/* SPDX-License-Identifier: Apache-2.0
 *
 * ask.c - see ask.h and "What the service lends" in component.h.
 */
#include "pipeline/service/ask.h"

#include "base/mem.h"
#include "pipeline/service/service.h"

#include <stdio.h>

bool component_overlaps(const void *config)
{
	(void)config;
	return true;
}

struct budget *component_budget(struct component *c)
{
	return &c->service->budget;
}

unsigned component_n_loops(struct component *c)
{
	return c->service->n_loops;
}

struct loop *component_loop(struct component *c, unsigned i)
{
	return c->service->loops[i % c->service->n_loops];
}

/* ---- extensions and connectors ---- */

/* Questions are few; one lock for all of them. */
static pthread_mutex_t needs_lock = PTHREAD_MUTEX_INITIALIZER;

static bool is_same(const char *a, const char *b)
{
	return a == b || (a != NULL && b != NULL && strcmp(a, b) == 0);
}

static bool is_same_question(const struct component_need *a, const struct component_need *b)
{
	return a->kind == b->kind && a->signal == b->signal && is_same(a->id, b->id) &&
	       is_same(a->type_name, b->type_name);
}

bool service_ask_is_answer(const struct component_need *need, enum component_kind kind,
			   enum otlp_signal signal, const char *id, const char *type_name)
{
	if (kind != need->kind || (kind == KIND_CONNECTOR && signal != need->signal))
		return false;
	return need->id != NULL ? strcmp(id, need->id) == 0
				: strcmp(type_name, need->type_name) == 0;
}

static void remember(struct component *c, const struct component_need *question,
		     struct component *found)
{
	struct component_need *n;

	pthread_mutex_lock(&needs_lock);
	for (n = c->needs; n != NULL && !is_same_question(n, question); n = n->next)
		;
	if (n == NULL) {
		n = xcalloc(1, sizeof(*n));
		*n = *question;
		n->id = question->id != NULL ? xstrdup(question->id) : NULL;
		n->type_name = question->type_name != NULL ? xstrdup(question->type_name) : NULL;
		n->next = c->needs;
		c->needs = n;
	}
	n->found = found;
	pthread_mutex_unlock(&needs_lock);
}

bool service_ask_need(const struct component *c, size_t i, struct component_need *out)
{
	const struct component_need *n;

	pthread_mutex_lock(&needs_lock);
	for (n = c->needs; n != NULL && i > 0; n = n->next)
		i--;
	if (n != NULL)
		*out = *n;
	pthread_mutex_unlock(&needs_lock);
	return n != NULL;
}

void service_ask_forget(struct component *c)
{
	struct component_need *n;

	while ((n = c->needs) != NULL) {
		c->needs = n->next;
		free((void *)(uintptr_t)n->id);
		free((void *)(uintptr_t)n->type_name);
		free(n);
	}
}

static struct component *ask(struct component *c, const struct component_need *question)
{
	struct service *s = c->service;
	struct component *found = NULL;

	pthread_rwlock_rdlock(&s->list_lock);
	for (size_t i = 0; i < s->n_components && found == NULL; i++) {
		struct component *e = s->components[i];

		if (service_ask_is_answer(question, e->type->kind, e->signal, e->id, e->type->name))
			found = e;
	}
	pthread_rwlock_unlock(&s->list_lock);
	remember(c, question, found);
	return found;
}

struct component *component_extension(struct component *c, const char *id)
{
	return ask(c, &(struct component_need){ .kind = KIND_EXTENSION, .id = id });
}

struct component *component_extension_of_type(struct component *c, const char *type_name)
{
	return ask(c, &(struct component_need){ .kind = KIND_EXTENSION, .type_name = type_name });
}

struct component *component_connector(struct component *c, const char *id)
{
	return ask(c, &(struct component_need){
			      .kind = KIND_CONNECTOR, .signal = c->signal, .id = id });
}

uint64_t component_exemplar_guard(const struct component *c)
{
	return atomic_load_explicit(&c->service->exemplar_th, memory_order_relaxed);
}

double component_sampled_ratio(const struct component *c)
{
	return atomic_load_explicit(&c->service->sampled_ratio, memory_order_relaxed);
}

void *component_borrow(struct component *c, const char *type_name)
{
	struct component *ext = component_extension_of_type(c, type_name);

	return ext != NULL && ext->type->lend != NULL ? ext->type->lend(ext) : NULL;
}

/* ---- sources ---- */

struct visited {
	struct component **v;
	size_t n, cap;
};

static bool visit(struct visited *all, struct component *c)
{
	for (size_t i = 0; i < all->n; i++)
		if (all->v[i] == c)
			return false;
	all->v = xgrow(all->v, &all->cap, all->n + 1, sizeof(*all->v));
	all->v[all->n++] = c;
	return true;
}

/* What exporters that keep sources are told: a source opens, or (NULL) some are expected. */
struct source_news {
	const struct component *from;
	struct source *source;
	bool is_expected;
};

static void tell_one(struct component *to, const struct source_news *news)
{
	if (news->source != NULL && to->type->source_open != NULL)
		to->type->source_open(to, news->source);
	if (news->source == NULL && to->type->source_expect != NULL)
		to->type->source_expect(to, news->from, news->is_expected);
}

/* Everybody downstream once, however many ways lead there; not those that nobody waits for. */
static void tell_downstream(struct component *c, const struct source_news *news,
			    struct visited *all)
{
	const struct fanout *f = atomic_load(&c->out[OTLP_TRACES]);

	for (unsigned i = 0; f != NULL && i < f->n; i++) {
		struct component *to = f->targets[i].component;

		if (f->targets[i].best_effort || !visit(all, to))
			continue;
		tell_one(to, news);
		tell_downstream(to, news, all);
	}
}

static void tell(struct component *c, const struct source_news *news)
{
	struct visited all = { .n = 0 };
	unsigned turn = fanout_enter();

	tell_downstream(c, news, &all);
	fanout_leave(turn);
	free(all.v);
}

void component_source_open(struct component *c, struct source *s)
{
	tell(c, &(struct source_news){ .from = c, .source = s });
}

void component_source_expect(struct component *c, bool on)
{
	tell(c, &(struct source_news){ .from = c, .is_expected = on });
}

/* ---- the process ---- */

bool component_process_is_running(struct component *c, char *why, size_t why_size)
{
	return service_is_running(c->service, why, why_size);
}

bool component_process_is_ready(struct component *c, char *why, size_t why_size)
{
	return service_is_ready(c->service, why, why_size);
}

bool component_start_is_cancelled(const struct component *c)
{
	const struct service *s = c->service;

	return atomic_load(&s->starting) != NULL && s->stop_is_wanted != NULL &&
	       s->stop_is_wanted(s->arg);
}

void component_fail(struct component *c, const struct err *why)
{
	struct service *s = c->service;

	if (atomic_exchange(&s->failed, 1) == 0)
		snprintf(s->failure, sizeof(s->failure), "%.60s: %.190s", c->id, why->msg);
	if (s->component_failed != NULL)
		s->component_failed(s->arg);
}
