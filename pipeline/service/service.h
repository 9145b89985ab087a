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
 * service.c: life; instance.c: one component's; reload.c: from one configuration to
 * the next; ask.c: what components ask.
 * THREADS: everything here on the main thread, but for what component.h says.
 * SPEC: DESIGN section 4; INTERFACE "SIGTERM".
 */
#ifndef PIPELINE_SERVICE_SERVICE_H
#define PIPELINE_SERVICE_SERVICE_H

#include "base/budget.h"
#include "net/loop.h"
#include "pipeline/component.h"
#include "pipeline/resolve/check.h"
#include "pipeline/fanout.h"
#include "pipeline/service/memory_keeper.h"
#include "pipeline/telemetry.h"

#include <pthread.h>

struct gate;
struct graph;
struct http_server;

/* Where the service is in its life; components see it through component_process_is_ready. */
enum service_phase {
	SERVICE_NEW,
	SERVICE_STARTING,
	SERVICE_RUNNING,
	SERVICE_DRAINING,
	SERVICE_STOPPED
};

/* A configuration that instances were made from: it lives as long as one of them. Main thread. */
struct conf_generation {
	struct conf_generation *next;
	const struct service_config *conf;
	struct service_config *owned; /* NULL: the owner of the service's */
	unsigned n_users;
};

struct service_counters;

/* What became of reloads; any thread reads. */
struct service_reloads {
	_Atomic uint64_t ok, failed;
	_Atomic uint64_t success_wall_ns; /* of the last one, or the start */
};

struct service {
	const struct service_config *conf;                /* in force: main thread, and loop 0 */
	struct conf_generation *generation, *generations; /* conf's; all of them */
	_Atomic uint64_t exemplar_th;                     /* conf's */
	_Atomic double sampled_ratio;                     /* conf's */
	struct budget budget;
	struct memory_keeper memory;
	struct loop **loops;
	unsigned n_loops, n_loops_started;
	struct graph *graph; /* of conf, with its instances */
	/* Instances that are asked and listed, in start order; a processor once per pipeline. */
	pthread_rwlock_t list_lock;
	struct component **components;
	size_t n_components;
	struct service_counters *counters; /* of every id there ever was: origins point to them */
	struct component
		*ended; /* ended before they were drained: what they left may point to them */
	struct gate **given_up_gates; /* of a reload that could not be ended */
	size_t n_given_up_gates;
	struct service_reloads reloads;
	_Atomic int phase;  /* enum service_phase */
	_Atomic int failed; /* a component asked to stop the process */
	char failure[256];
	uint64_t started_mono_ns, drain_mono_ns;
	struct telemetry_server *telemetry;
	struct component *_Atomic starting; /* whose start runs now, or NULL */
	/* Set by the owner before service_start, each may be NULL. */
	bool (*stop_is_wanted)(void *arg);   /* give up starting. Any thread */
	void (*component_failed)(void *arg); /* a component cannot go on: stop. Any thread */
	void *arg;
};

/* Build everything, start nothing. Borrows conf until service_free. */
struct service *service_new(const struct service_config *conf, struct err *err);
/* Start loops and components. On error what did start is stopped again. */
int service_start(struct service *s, struct err *err);
/* Change to `conf` (takes it) while running: what is the same keeps its instance, its queue and its
 * connections; what has changed ends before its successor starts, or while it starts where it
 * may_overlap; listening sockets stay open. Blocks for as long as something drains, at most
 * drain_timeout; data flows meanwhile, or waits where its way is being changed. Logs one line. On
 * error the old configuration is in force again and conf is freed; when even that cannot be
 * started, service.failed says so. docs/decisions/050. */
int service_reload(struct service *s, struct service_config *conf, struct err *err);
/* The configuration was read again and has not changed: only the files that components name are. */
void service_refresh(struct service *s);
/* A reload did not come that far. */
void service_reload_failed(struct service *s);
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
