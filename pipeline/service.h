/* SPDX-License-Identifier: Apache-2.0
 *
 * service.h - the life of the process: builds the graph from a configuration, starts it, drains it,
 * stops it.
 *
 *   extensions -> exporters, connectors -> processors -> receivers      start (data can flow when
 *     the last listens)
 *   receivers  -> processors -> exporters, connectors -> extensions     stop
 *
 * One instance per receiver, exporter, connector and extension id; one per (pipeline, processor).
 * THREADS: everything here on the main thread, but for what component.h says.
 * SPEC: DESIGN section 4; INTERFACE "SIGTERM".
 */
#ifndef PIPELINE_SERVICE_H
#define PIPELINE_SERVICE_H

#include "base/budget.h"
#include "net/loop.h"
#include "pipeline/component.h"
#include "pipeline/conf_check.h"
#include "pipeline/fanout.h"
#include "pipeline/memory_keeper.h"
#include "pipeline/telemetry.h"

struct http_server;

/* Where the service is in its life; components see it through component_process_is_ready. */
enum service_phase {
	SERVICE_NEW,
	SERVICE_STARTING,
	SERVICE_RUNNING,
	SERVICE_DRAINING,
	SERVICE_STOPPED
};

struct service {
	const struct service_config *conf;
	struct budget budget;
	struct memory_keeper memory;
	struct loop **loops;
	unsigned n_loops, n_loops_started;
	/* In start order; a processor once per pipeline. */
	struct component *components;
	struct component_counters *counters;
	size_t *conf_index; /* into conf->components */
	size_t n_components, n_started;
	_Atomic int phase;  /* enum service_phase */
	_Atomic int failed; /* a component asked to stop the process */
	char failure[256];
	uint64_t started_mono_ns, drain_mono_ns;
	struct telemetry_server *telemetry;
	struct component *_Atomic starting; /* whose start runs now, or NULL */
	/* Set by the owner before service_start, each may be NULL. */
	bool (*stop_is_wanted)(void *arg);   /* asked between two starts: give up starting */
	void (*component_failed)(void *arg); /* a component cannot go on: stop. Any thread */
	void *arg;
};

/* Build everything, start nothing. Borrows conf until service_free. */
struct service *service_new(const struct service_config *conf, struct err *err);
/* Start loops and components. On error what did start is stopped again. */
int service_start(struct service *s, struct err *err);
/* Stop taking data, settle, flush; at most drain_timeout. Then stop everything. */
void service_stop(struct service *s);
void service_free(struct service *s);

bool service_is_running(struct service *s, char *why, size_t why_size);
bool service_is_ready(struct service *s, char *why, size_t why_size);

/* The page of :8888, on loop 0. NULL endpoint or "" is none. */
struct telemetry_server;
struct telemetry_server *telemetry_server_start(struct service *s, const char *endpoint,
						struct err *err);
void telemetry_server_stop(struct telemetry_server *t);

#endif
