/* SPDX-License-Identifier: Apache-2.0
 *
 * service.c - see service.h.
 */
#include "pipeline/service.h"

#include "base/clock.h"
#include "base/mem.h"
#include "pipeline/registry.h"
#include "pipeline/span_numbers.h"
#include "pipeline/system.h"

#include <stdio.h>
#include <unistd.h>

enum { DEFAULT_BUDGET_MIB = 512, DRAIN_STEP_MS = 2, BEST_EFFORT_DRAIN_MS = 1000 };

/* ---- building ---- */

static int64_t default_budget(void)
{
	uint64_t limit = system_memory_cgroup_limit();

	return (int64_t)(limit ? limit / 4 * 3 : DEFAULT_BUDGET_MIB * MIB);
}

/* Add an instance of conf->components[index]; returns its place. Room was counted before. */
static size_t add_component(struct service *s, size_t index, enum otlp_signal signal,
			    const char *pipeline)
{
	const struct service_component *sc = &s->conf->components[index];
	struct component *c = &s->components[s->n_components];

	c->type = sc->type;
	c->id = sc->id;
	c->config = sc->config;
	c->receiver = &sc->receiver;
	c->state = xcalloc(1, MAX(sc->type->state_size, (size_t)1));
	c->count = &s->counters[s->n_components];
	c->service = s;
	c->signal = signal;
	c->pipeline = pipeline;
	s->conf_index[s->n_components] = index;
	return s->n_components++;
}

/* A receiver listens once for all signals; others have an instance for each. */
static bool is_per_signal(enum component_kind kind)
{
	return kind == KIND_EXPORTER || kind == KIND_CONNECTOR;
}

/* The instance of a component that exists once per id, or per id and signal; NULL when unused. */
static struct component *instance(struct service *s, size_t conf_index, enum otlp_signal signal)
{
	for (size_t i = 0; i < s->n_components; i++)
		if (s->conf_index[i] == conf_index && s->components[i].pipeline == NULL &&
		    (!is_per_signal(s->components[i].type->kind) ||
		     s->components[i].signal == signal))
			return &s->components[i];
	return NULL;
}

static void add_used(struct service *s, enum component_kind kind)
{
	for (size_t i = 0; i < s->conf->n_components; i++) {
		const struct service_component *sc = &s->conf->components[i];

		if (sc->kind != kind || !sc->is_used)
			continue;
		if (!is_per_signal(kind))
			add_component(s, i, OTLP_TRACES, NULL);
		for (int g = 0; is_per_signal(kind) && g < OTLP_SIGNALS; g++)
			if (sc->used_signals & 1u << g)
				add_component(s, i, (enum otlp_signal)g, NULL);
	}
}

static size_t count_instances(const struct service_config *conf)
{
	size_t n = conf->n_components * OTLP_SIGNALS;

	for (size_t i = 0; i < conf->n_pipelines; i++)
		n += conf->pipelines[i].processors.n;
	return n;
}

static struct fanout *new_fanout(struct component *c, enum otlp_signal signal, size_t room)
{
	struct fanout *f = c->out[signal];

	if (f == NULL) {
		f = c->out[signal] = xcalloc(1, sizeof(*f));
		f->targets = xcalloc(room, sizeof(*f->targets));
	}
	return f;
}

static void connect_to(struct service *s, struct component *from, struct component *to, size_t room)
{
	const struct service_component *sc =
		&s->conf->components[s->conf_index[to - s->components]];
	struct fanout *f = new_fanout(from, to->signal, room);
	bool best_effort = to->type->kind == KIND_EXPORTER && sc->exporter.best_effort;

	f->targets[f->n++] = (struct fanout_target){ to, best_effort };
	f->n_owing += !best_effort;
}

/* Room for every edge that may leave one component: all exporters of a pipeline, or one per
 * pipeline. */
static size_t edge_room(const struct service_config *conf)
{
	return conf->n_components + conf->n_pipelines;
}

/* Where a pipeline's data enters: its first processor, or NULL when it has none. */
static struct component *connect_processors(struct service *s, const struct service_pipeline *p,
					    struct component **last)
{
	struct component *first = NULL;

	*last = NULL;
	for (size_t i = 0; i < p->processors.n; i++) {
		struct component *c =
			&s->components[add_component(s, p->processors.items[i], p->signal, p->id)];

		if (*last != NULL)
			connect_to(s, *last, c, 1);
		if (first == NULL)
			first = c;
		*last = c;
	}
	return first;
}

static void connect_exporters(struct service *s, const struct service_pipeline *p,
			      struct component *from)
{
	for (size_t i = 0; i < p->exporters.n; i++)
		connect_to(s, from, instance(s, p->exporters.items[i], p->signal),
			   edge_room(s->conf));
}

static void connect_pipeline(struct service *s, const struct service_pipeline *p)
{
	struct component *last, *first = connect_processors(s, p, &last);

	if (last != NULL)
		connect_exporters(s, p, last);
	for (size_t i = 0; i < p->receivers.n; i++) {
		struct component *r = instance(s, p->receivers.items[i], p->signal);

		if (first != NULL)
			connect_to(s, r, first, edge_room(s->conf) * s->conf->n_pipelines);
		else
			connect_exporters(s, p, r);
	}
}

static void add_extensions(struct service *s, bool with_needs)
{
	for (size_t i = 0; i < s->conf->extensions.n; i++) {
		size_t index = s->conf->extensions.items[i];

		if ((s->conf->components[index].type->needs != NULL) == with_needs)
			add_component(s, index, OTLP_TRACES, NULL);
	}
}

static void build_graph(struct service *s)
{
	/* Receivers are added before the processors so that both exist when edges are drawn; start
	 * order is by kind. */
	add_extensions(s, false);
	add_extensions(s,
		       true); /* those that borrow from another, whatever the order of the list */
	add_used(s, KIND_EXPORTER);
	add_used(s, KIND_CONNECTOR);
	add_used(s, KIND_RECEIVER);
	for (size_t i = 0; i < s->conf->n_pipelines; i++)
		connect_pipeline(s, &s->conf->pipelines[i]);
}

static int make_loops(struct service *s, struct err *err)
{
	s->n_loops = system_cpus();
	s->loops = xcalloc(s->n_loops, sizeof(*s->loops));
	for (unsigned i = 0; i < s->n_loops; i++) {
		s->loops[i] = loop_new(i, err);
		if (s->loops[i] == NULL)
			return -1;
	}
	return 0;
}

struct service *service_new(const struct service_config *conf, struct err *err)
{
	struct service *s = xcalloc(1, sizeof(*s));
	size_t room = count_instances(conf);

	s->conf = conf;
	atomic_store(&s->budget.limit, default_budget());
	s->components = xcalloc(room, sizeof(*s->components));
	s->counters = xcalloc(room, sizeof(*s->counters));
	s->conf_index = xcalloc(room, sizeof(*s->conf_index));
	if (make_loops(s, err) < 0) {
		service_free(s);
		return NULL;
	}
	build_graph(s);
	return s;
}

/* ---- starting ---- */

/* Authenticators before the extensions that ask them. */
static const struct step {
	enum component_kind kind;
	bool authenticators;
} start_order[] = {
	{ KIND_EXTENSION, true },  { KIND_EXTENSION, false }, { KIND_EXPORTER, false },
	{ KIND_CONNECTOR, false }, { KIND_PROCESSOR, false }, { KIND_RECEIVER, false }
};

static bool is_of_step(const struct component *c, struct step step)
{
	return c->type->kind == step.kind &&
	       (c->type->authenticator != NULL) == step.authenticators;
}

static int start_kind(struct service *s, struct step step, struct err *err)
{
	enum component_kind kind = step.kind;

	/* A pipeline's later processors first, so that whoever emits finds its target started. */
	for (size_t n = s->n_components, i = n; i-- > 0;) {
		struct component *c = &s->components[kind == KIND_EXTENSION ? n - 1 - i : i];

		if (!is_of_step(c, step))
			continue;
		if (s->stop_is_wanted != NULL && s->stop_is_wanted(s->arg))
			return err_set(err, ERR_UNAVAILABLE, "stopped while starting");
		atomic_store(&s->starting, c);
		if (c->type->start != NULL && c->type->start(c, err) < 0)
			return err_wrap(err, "%s %s", registry_kind_name(kind), c->id);
		atomic_store(&s->starting, NULL);
	}
	return 0;
}

static int start_loops(struct service *s, struct err *err)
{
	for (; s->n_loops_started < s->n_loops; s->n_loops_started++)
		if (loop_start(s->loops[s->n_loops_started], err) < 0)
			return -1;
	return 0;
}

static void nothing(void *arg)
{
	(void)arg;
}

/* No loop is inside a handler that began before the call. */
static void pass_loops(struct service *s)
{
	for (unsigned i = 0; i < s->n_loops_started; i++)
		loop_call(s->loops[i], nothing, NULL);
}

static void shutdown_all(struct service *s)
{
	/* From here on nobody asks a component whether it is ready, or for its metrics. */
	atomic_store(&s->phase, SERVICE_STOPPED);
	pass_loops(s);
	memory_keeper_stop(&s->memory);
	/* The reverse of starting, within a kind too: the query borrows the store listed before it.
	 */
	for (size_t k = COUNT_OF(start_order); k-- > 0;)
		for (size_t i = s->n_components; i-- > 0;) {
			struct component *c = &s->components[i];

			if (is_of_step(c, start_order[k]) && c->type->shutdown != NULL)
				c->type->shutdown(c);
		}
	telemetry_server_stop(s->telemetry);
	s->telemetry = NULL;
	while (s->n_loops_started > 0)
		loop_stop(s->loops[--s->n_loops_started]);
}

int service_start(struct service *s, struct err *err)
{
	int ret = 0;

	atomic_store(&s->phase, SERVICE_STARTING);
	s->started_mono_ns = clock_mono_ns();
	if (start_loops(s, err) < 0)
		goto fail;
	if (s->conf->telemetry.metrics_level != TELEMETRY_NONE &&
	    s->conf->telemetry.metrics_endpoint[0] != '\0') {
		s->telemetry = telemetry_server_start(s, s->conf->telemetry.metrics_endpoint, err);
		if (s->telemetry == NULL)
			goto fail;
	}
	log_info("Starting extensions...");
	/* What one log found is not counted again by one that starts later. */
	span_numbers_begin();
	for (size_t k = 0; ret == 0 && k < COUNT_OF(start_order); k++)
		ret = start_kind(s, start_order[k], err);
	span_numbers_end();
	if (ret < 0)
		goto fail;
	/* Before anybody is told so: who waits for the line and who asks see the same. */
	log_info("Everything is ready. Begin running and processing data.");
	atomic_store(&s->phase, SERVICE_RUNNING);
	memory_keeper_start(&s->memory, s->loops[0], &s->budget);
	return 0;
fail:
	shutdown_all(s);
	return -1;
}

bool service_is_running(struct service *s, char *why, size_t why_size)
{
	static const char *const phases[] = { "starting", "starting", "", "shutting down",
					      "stopped" };
	const struct component *c = atomic_load(&s->starting);
	int phase = atomic_load(&s->phase);

	if (phase == SERVICE_RUNNING)
		return true;
	if (phase == SERVICE_STARTING && c != NULL)
		snprintf(why, why_size, "starting %s %s%s", registry_kind_name(c->type->kind),
			 c->id, c->type->start_takes ? c->type->start_takes : "");
	else
		snprintf(why, why_size, "%s", phases[phase]);
	return false;
}

bool service_is_ready(struct service *s, char *why, size_t why_size)
{
	if (!service_is_running(s, why, why_size))
		return false;
	for (size_t i = 0; i < s->n_components; i++) {
		struct component *c = &s->components[i];

		if (c->type->is_ready != NULL && !c->type->is_ready(c, why, why_size))
			return false;
	}
	return true;
}

/* ---- stopping ---- */

static void drain_kind(struct service *s, enum component_kind kind)
{
	for (size_t i = 0; i < s->n_components; i++) {
		struct component *c = &s->components[i];

		if (c->type->kind == kind && c->type->drain != NULL)
			c->type->drain(c);
	}
}

/* An exporter that holds no acknowledgement holds up no shutdown either, but for a moment. */
static bool is_waited_for(const struct service *s, const struct component *c)
{
	const struct service_component *sc = &s->conf->components[s->conf_index[c - s->components]];

	return c->type->kind != KIND_EXPORTER || !sc->exporter.best_effort ||
	       clock_mono_ns() - s->drain_mono_ns < BEST_EFFORT_DRAIN_MS * NS_PER_MS;
}

static bool kind_is_drained(struct service *s, enum component_kind kind)
{
	bool drained = true;

	for (size_t i = 0; i < s->n_components; i++) {
		struct component *c = &s->components[i];

		if (c->type->kind == kind && c->type->is_drained != NULL && is_waited_for(s, c))
			drained &= c->type->is_drained(c) != 0;
	}
	return drained;
}

/* Everything upstream of the exporters is empty: no request unanswered, no span unsettled. */
static bool is_settled(struct service *s)
{
	int64_t in_flight = 0;

	for (int g = 0; g < OTLP_SIGNALS; g++)
		in_flight += atomic_load(&ledger_of((enum otlp_signal)g)->in_flight);
	return kind_is_drained(s, KIND_PROCESSOR) && kind_is_drained(s, KIND_RECEIVER) &&
	       in_flight == 0;
}

static bool exporters_are_drained(struct service *s)
{
	return kind_is_drained(s, KIND_CONNECTOR) && kind_is_drained(s, KIND_EXPORTER);
}

static bool wait_until(struct service *s, bool (*done)(struct service *), uint64_t deadline)
{
	while (!done(s)) {
		if (clock_mono_ns() >= deadline)
			return false;
		usleep(DRAIN_STEP_MS * 1000);
	}
	return true;
}

void service_stop(struct service *s)
{
	uint64_t deadline = clock_mono_ns() + (uint64_t)s->conf->drain_timeout_ns;

	s->drain_mono_ns = clock_mono_ns();
	atomic_store(&s->phase, SERVICE_DRAINING);
	drain_kind(s, KIND_RECEIVER);
	drain_kind(s, KIND_PROCESSOR);
	drain_kind(s, KIND_CONNECTOR);
	/* A slow next hop may take nearly all of the time; leave some for writing what is open. */
	if (!wait_until(s, is_settled, deadline - (uint64_t)s->conf->drain_timeout_ns / 4))
		log_warn("draining: some requests were not settled in time");
	drain_kind(s, KIND_EXPORTER);
	if (!wait_until(s, exporters_are_drained, deadline))
		log_warn(
			"draining: exporters did not finish in time; what a log holds stays there");
	shutdown_all(s);
}

void service_free(struct service *s)
{
	if (s == NULL)
		return;
	for (size_t i = 0; i < s->n_components; i++) {
		free(s->components[i].state);
		for (int g = 0; g < OTLP_SIGNALS; g++) {
			if (s->components[i].out[g] != NULL)
				free(s->components[i].out[g]->targets);
			free(s->components[i].out[g]);
		}
	}
	for (unsigned i = 0; i < s->n_loops; i++)
		loop_free(s->loops[i]);
	free(s->loops);
	free(s->components);
	free(s->counters);
	free(s->conf_index);
	free(s);
}

/* ---- what components ask ---- */

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

struct component *component_extension(struct component *c, const char *id)
{
	struct service *s = c->service;

	for (size_t i = 0; i < s->n_components; i++)
		if (s->components[i].type->kind == KIND_EXTENSION &&
		    strcmp(s->components[i].id, id) == 0)
			return &s->components[i];
	return NULL;
}

struct component *component_extension_of_type(struct component *c, const char *type_name)
{
	struct service *s = c->service;

	for (size_t i = 0; i < s->n_components; i++)
		if (s->components[i].type->kind == KIND_EXTENSION &&
		    strcmp(s->components[i].type->name, type_name) == 0)
			return &s->components[i];
	return NULL;
}

void *component_borrow(struct component *c, const char *type_name)
{
	struct component *ext = component_extension_of_type(c, type_name);

	return ext != NULL && ext->type->lend != NULL ? ext->type->lend(ext) : NULL;
}

/* Everybody downstream once, however many ways lead there; not those that nobody waits for. */
static void open_downstream(struct component *c, struct source *s, bool *visited)
{
	const struct fanout *f = c->out[OTLP_TRACES];

	for (unsigned i = 0; f != NULL && i < f->n; i++) {
		struct component *to = f->targets[i].component;
		size_t index = (size_t)(to - to->service->components);

		if (f->targets[i].best_effort || visited[index])
			continue;
		visited[index] = true;
		if (to->type->source_open != NULL)
			to->type->source_open(to, s);
		open_downstream(to, s, visited);
	}
}

void component_source_open(struct component *c, struct source *s)
{
	bool *visited = xcalloc(c->service->n_components, sizeof(*visited));

	open_downstream(c, s, visited);
	free(visited);
}

bool component_process_is_running(struct component *c, char *why, size_t why_size)
{
	return service_is_running(c->service, why, why_size);
}

bool component_process_is_ready(struct component *c, char *why, size_t why_size)
{
	return service_is_ready(c->service, why, why_size);
}

void component_fail(struct component *c, const struct err *why)
{
	struct service *s = c->service;

	if (atomic_exchange(&s->failed, 1) == 0)
		snprintf(s->failure, sizeof(s->failure), "%.60s: %.190s", c->id, why->msg);
	if (s->component_failed != NULL)
		s->component_failed(s->arg);
}
