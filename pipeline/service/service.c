/* SPDX-License-Identifier: Apache-2.0
 *
 * service.c - see service.h.
 */
#include "pipeline/service/service.h"

#include "base/clock.h"
#include "base/mem.h"
#include "pipeline/registry.h"
#include "pipeline/service/instance.h"
#include "pipeline/span/numbers.h"
#include "pipeline/service/system.h"

#include <stdio.h>
#include <unistd.h>

enum { DEFAULT_BUDGET_MIB = 512, DRAIN_STEP_MS = 2, BEST_EFFORT_DRAIN_MS = 1000 };

/* ---- building ---- */

static int64_t default_budget(void)
{
	uint64_t limit = system_memory_cgroup_limit();

	return (int64_t)(limit ? limit / 4 * 3 : DEFAULT_BUDGET_MIB * MIB);
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

	s->conf = conf;
	atomic_init(&s->exemplar_th, conf->exemplar_th);
	atomic_init(&s->sampled_ratio, conf->sampled_ratio);
	pthread_rwlock_init(&s->list_lock, NULL);
	atomic_store(&s->budget.limit, default_budget());
	s->graph = graph_new(conf);
	s->generation = service_generation_new(s, conf, NULL);
	service_make_missing(s, s->graph, s->generation);
	service_wire(s->graph, NULL);
	if (make_loops(s, err) < 0) {
		service_free(s);
		return NULL;
	}
	return s;
}

/* ---- starting ---- */

static int start_loops(struct service *s, struct err *err)
{
	for (; s->n_loops_started < s->n_loops; s->n_loops_started++)
		if (loop_start(s->loops[s->n_loops_started], err) < 0)
			return -1;
	return 0;
}

/* List every instance there is, also those that did not start. */
static void list_all(struct service *s)
{
	for (size_t i = 0; i < s->graph->n; i++) {
		struct component *c = s->graph->nodes[i].c;

		if (c != NULL && !c->is_started)
			service_list_add(s, c);
	}
}

static void shutdown_all(struct service *s)
{
	/* From here on nobody asks a component whether it is ready, or for its metrics. */
	atomic_store(&s->phase, SERVICE_STOPPED);
	service_pass_loops(s);
	memory_keeper_stop(&s->memory);
	/* The reverse of starting, within a kind too: the query borrows the store listed before it.
	 */
	list_all(s);
	for (size_t k = KIND_MAX; k-- > 0;)
		for (size_t i = s->n_components; i-- > 0;) {
			struct component *c = s->components[i];

			if (c->type->kind == service_start_order[k] && c->type->shutdown != NULL)
				c->type->shutdown(c);
		}
	telemetry_server_stop(s->telemetry);
	s->telemetry = NULL;
	while (s->n_loops_started > 0)
		loop_stop(s->loops[--s->n_loops_started]);
}

int service_start(struct service *s, struct err *err)
{
	int ret;

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
	ret = service_start_missing(s, s->graph, err);
	span_numbers_end();
	if (ret < 0)
		goto fail;
	/* Before anybody is told so: who waits for the line and who asks see the same. */
	log_info("Everything is ready. Begin running and processing data.");
	atomic_store(&s->phase, SERVICE_RUNNING);
	atomic_store(&s->reloads.success_wall_ns, clock_wall_ns());
	memory_keeper_start(&s->memory, s->loops[0], &s->budget);
	service_tell_started(s);
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
	bool ready = true;

	if (!service_is_running(s, why, why_size))
		return false;
	pthread_rwlock_rdlock(&s->list_lock);
	for (size_t i = 0; i < s->n_components && ready; i++) {
		struct component *c = s->components[i];

		ready = c->type->is_ready == NULL || c->type->is_ready(c, why, why_size);
	}
	pthread_rwlock_unlock(&s->list_lock);
	return ready;
}

/* ---- stopping ---- */

static void drain_kind(struct service *s, enum component_kind kind)
{
	for (size_t i = 0; i < s->n_components; i++) {
		struct component *c = s->components[i];

		if (c->type->kind == kind && c->type->drain != NULL)
			c->type->drain(c);
	}
}

/* An exporter that holds no acknowledgement holds up no shutdown either, but for a moment. */
static bool is_waited_for(const struct service *s, const struct component *c)
{
	return c->type->kind != KIND_EXPORTER || !c->conf->exporter.best_effort ||
	       clock_mono_ns() - s->drain_mono_ns < BEST_EFFORT_DRAIN_MS * NS_PER_MS;
}

static bool kind_is_drained(struct service *s, enum component_kind kind)
{
	bool drained = true;

	for (size_t i = 0; i < s->n_components; i++) {
		struct component *c = s->components[i];

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

static bool connectors_are_drained(struct service *s)
{
	return kind_is_drained(s, KIND_CONNECTOR) && is_settled(s);
}

static bool exporters_are_drained(struct service *s)
{
	return kind_is_drained(s, KIND_EXPORTER);
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
	/* A slow next hop may take nearly all of the time; leave some for writing what is open. */
	uint64_t settle_by = deadline - (uint64_t)s->conf->drain_timeout_ns / 4;

	s->drain_mono_ns = clock_mono_ns();
	atomic_store(&s->phase, SERVICE_DRAINING);
	drain_kind(s, KIND_RECEIVER);
	drain_kind(s, KIND_PROCESSOR);
	if (!wait_until(s, is_settled, settle_by))
		log_warn("draining: some requests were not settled in time");
	/* What connectors make of the last spans goes to exporters that still take it. */
	drain_kind(s, KIND_CONNECTOR);
	if (!wait_until(s, connectors_are_drained, settle_by))
		log_warn("draining: connectors did not finish in time");
	drain_kind(s, KIND_EXPORTER);
	if (!wait_until(s, exporters_are_drained, deadline))
		log_warn(
			"draining: exporters did not finish in time; what a log holds stays there");
	shutdown_all(s);
}

static void free_instances(struct service *s)
{
	struct component *c;

	for (size_t i = 0; i < s->n_components; i++)
		service_free_instance(s->components[i]);
	s->n_components = 0;
	while ((c = s->ended) != NULL) {
		s->ended = c->next_ended;
		service_free_instance(c);
	}
}

void service_free(struct service *s)
{
	if (s == NULL)
		return;
	/* Unless shutdown_all listed them. */
	if (atomic_load(&s->phase) == SERVICE_NEW)
		list_all(s);
	/* Before the instances: what was posted to a loop runs at its end. */
	for (unsigned i = 0; i < s->n_loops; i++)
		loop_free(s->loops[i]);
	free_instances(s);
	for (size_t i = 0; i < s->n_given_up_gates; i++)
		gate_free(s->given_up_gates[i]);
	free(s->given_up_gates);
	free(s->loops);
	free(s->components);
	graph_free(s->graph);
	s->generation = NULL;
	service_generations_sweep(s);
	service_counters_free(s);
	pthread_rwlock_destroy(&s->list_lock);
	free(s);
}
