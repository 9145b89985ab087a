/* SPDX-License-Identifier: Apache-2.0
 *
 * component.h - the one header a component includes: its descriptor, its instance, and what it may
 * ask of the service.
 *
 *   batches flow left to right, verdicts come back by tally:
 *
 *   receiver --component_emit--> processor --component_emit--> exporter
 *       ^                                                          |
 *       +---------------- origin settled <---- batch_settle -------+
 *
 * A component is one .c file that ends in one `const struct component_type`, and one line in its
 * kind's .def list. The core knows no component by name and no component knows another (DESIGN
 * principle 12).
 *
 * A reload makes new instances and ends old ones while others run; c->config and the rest of an
 * instance do not change as long as it lives.
 * THREADS: validate, start, drain and shutdown are called by the main thread, one component at a
 * time. consume is called on any thread, never blocks on I/O, and takes the batch: its reference
 * and the duty to settle every span in it (batch_settle) or to hand it on (component_emit) exactly
 * once.
 */
#ifndef PIPELINE_COMPONENT_H
#define PIPELINE_COMPONENT_H

#include "base/base.h"
#include "base/budget.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/log.h"
#include "pipeline/batch.h"
#include "pipeline/option/option.h"

#include <stdatomic.h>

enum component_kind {
	KIND_RECEIVER,
	KIND_PROCESSOR,
	KIND_EXPORTER,
	KIND_CONNECTOR,
	KIND_EXTENSION,
	KIND_MAX,
};

enum stability { STABILITY_DEVELOPMENT, STABILITY_ALPHA, STABILITY_BETA, STABILITY_STABLE };

enum signals {
	SIGNAL_TRACES = 1 << OTLP_TRACES,
	SIGNAL_METRICS = 1 << OTLP_METRICS,
	SIGNAL_LOGS = 1 << OTLP_LOGS,
	SIGNAL_ALL = SIGNAL_TRACES | SIGNAL_METRICS | SIGNAL_LOGS,
};

struct authenticator;
struct component;
struct component_counters;
struct conf_errors;
struct conf_node;
struct fanout;
struct loop;
struct receiver_options;
struct component_need;
struct conf_generation;
struct service;
struct service_component;
struct source;

/* What share of traces a processor keeps. */
struct sampling {
	double rate;          /* 0 to 1 */
	bool is_proportional; /* of what comes in; else of all traffic, less what is dropped before
				 it */
	bool is_by_r;         /* by R >= T (wire/tracestate.h), as all who agree about a trace */
	const char *rate_key, *mode_key; /* of its options: who is to blame */
};

/* Missing callbacks mean "nothing to do". */
struct component_type {
	const char *name;  /* the YAML key */
	const char *alias; /* the other spelling of the same type, or NULL */
	enum component_kind kind;
	const char *summary; /* one sentence: docs and `components` show it */
	enum stability stability;
	unsigned signals; /* enum signals, or-ed; 0 for extensions; connectors: what it takes */
	/* Connectors: the signals that can come out of what goes in, by that; enum signals, or-ed.
	 * One that does not give the signal it took (spanmetrics) settles the batch itself, as
	 * DROPPED with DROP_BEST_EFFORT: connectors do not count, any other branch does. */
	unsigned gives[OTLP_SIGNALS];
	bool best_effort; /* exporters: the default of the best_effort option */
	/* Why start may take long, said to who asks meanwhile: ": replaying its log". */
	const char *start_takes;
	/* The type of an extension it borrows from (component_borrow): one must run. */
	const char *needs;
	/* Does it need that, with this configuration? Missing: yes. */
	bool (*is_needed)(const void *config);
	size_t config_size;
	size_t state_size; /* zeroed memory at component_state() */
	const struct option *options;

	/* What a row of the option table cannot say: add to `errs` through conf_error_at
	 * (pipeline/conf/error.h). `node` is the component's YAML body (may be NULL). Starts
	 * nothing. */
	void (*validate)(void *config, const struct conf_node *node, struct conf_errors *errs,
			 const char *yaml_path);
	/* Make the component ready. Receivers listen here; everything downstream has started. -1
	 * stops the process with exit status 2; shutdown is still called. */
	int (*start)(struct component *c, struct err *err);
	void (*consume)(struct component *c, struct batch *b);
	/* Every instance of the configuration has started: after the start and after each reload,
	 * on the main thread, while data flows. */
	void (*all_started)(struct component *c);
	/* Begin to end: stop taking new data (receivers close their listeners), finish what is
	 * held. Returns at once. */
	void (*drain)(struct component *c);
	/* 1 when nothing is held any more, so that shutdown loses nothing that no log holds; NULL
	 * means always. */
	int (*is_drained)(struct component *c);
	/* Free everything. Also called without start, after a failed start, and never twice. */
	void (*shutdown)(struct component *c);
	/* False with a reason while the component cannot do its work (replay, broker away at
	 * start). */
	bool (*is_ready)(struct component *c, char *why, size_t why_size);
	/* Append this component's own metrics, as rows of the Prometheus text format (see
	 * telemetry.h). */
	void (*metrics)(struct component *c, struct buf *out);
	/* Exporters that keep an ordered source in sections (source/source.h): called before
	 * its first record comes; they attach a sink. On the receiver's thread. */
	void (*source_open)(struct component *c, struct source *s);
	/* And: whether the receiver `from` reads sources that it cannot name now, because it has
	 * not been told yet which, or they change hands. Said again and again while it is so. */
	void (*source_expect)(struct component *c, const struct component *from, bool on);
	/* ---- reload (SIGHUP), see docs/HACKING.md "What a reload asks of a component" ---- */
	/* May a successor start while an instance with this configuration still finishes? Missing:
	 * no, it has what only one may have (a log, a position, a place in a group, a file), and
	 * ends before its successor starts; so does every extension. What listens through
	 * pipeline/listen/listener.h may: drain gives its sockets to the successor. */
	bool (*may_overlap)(const void *config);
	/* A receiver that calls component_source_open: it begins anew when the exporters that its
	 * records go to are others. */
	bool opens_sources;
	/* Extensions: what others borrow from it while it runs; the type is said by the header of
	 * the thing lent (trace_store lends a struct store, blocks/store.h). */
	void *(*lend)(struct component *c);
	/* Extensions that check or give credentials (pipeline/auth.h). The answer is the same from
	 * before start until after shutdown. */
	const struct authenticator *(*authenticator)(struct component *c);
	/* ---- exemplars (docs/exemplars.md) ---- */
	/* Of processors that drop by chance: what share they keep. */
	void (*sampling)(const void *config, struct sampling *out);
	/* Do exemplars come from it, or go by it, with this configuration? Missing: no. */
	bool (*uses_exemplars)(const void *config);
	/* Connectors that show exemplars: which spans of b take a slot now? takes[i] = the metric's
	 * name (lives as long as the instance) for those; the others stay as they are. Any thread;
	 * before the same spans come to consume. */
	void (*exemplar_offer)(struct component *c, const struct batch *b, const char **takes);
	/* An exemplar processor stands before it (on), or no more: while one does, consume lets
	 * only spans with takes_slot compete. Once per processor that began or ended; main
	 * thread. */
	void (*exemplar_bound)(struct component *c, bool on);
};

/* An instance. Components read the members above the line; the service owns the rest. */
struct component {
	const struct component_type *type;
	const char *id;                          /* "otlp/jaeger": the user's spelling */
	const void *config;                      /* type->config_size bytes, parsed */
	void *state;                             /* type->state_size bytes, zeroed at start */
	const struct receiver_options *receiver; /* receivers: tenant, ack, ack_timeout */
	/* Of exporters, processors and connectors: what it gets, nothing else. An exporter or a
	 * connector that several signals use has an instance (with a queue and a client) for each.
	 */
	enum otlp_signal signal;
	const char *pipeline; /* processors: the id of the pipeline it is in, a label; else NULL */
	struct component_counters *count;
	/* ---- */
	struct service *service;
	/* Where component_emit goes, by the batch's signal; NULL where nobody wants it. A reload
	 * changes it, but not whether it is NULL. */
	_Atomic(struct fanout *) out[OTLP_SIGNALS];
	const struct service_component *conf; /* of its configuration; what best_effort says */
	struct conf_generation *generation;   /* keeps config, receiver, id alive */
	struct component_need *needs;         /* the others it asked for (service/ask.c) */
	struct component *next_ended;         /* service.ended */
	bool is_started, is_draining;         /* main thread */
};

/* Config and state through a checked size, so that a wrong cast is found in the first test. */
#define COMPONENT_CONFIG(c, T) ((const T *)component_config_((c), sizeof(T)))
#define COMPONENT_STATE(c, T) ((T *)component_state_((c), sizeof(T)))

static inline const void *component_config_(const struct component *c, size_t size)
{
	assert(c->type->config_size == size);
	(void)size;
	return c->config;
}

static inline void *component_state_(const struct component *c, size_t size)
{
	assert(c->type->state_size == size);
	(void)size;
	return c->state;
}

/* For component_type.may_overlap: always. */
bool component_overlaps(const void *config);

/* Hand the batch (and its duties) to every consumer downstream. Takes b. Any thread. */
void component_emit(struct component *c, struct batch *b);

/* A receiver is about to send records of `s`: tell every exporter that will owe it verdicts. May
 * block on I/O. Before the first source_add. */
void component_source_open(struct component *c, struct source *s);

/* Does a pipeline take this signal from the receiver? */
static inline bool component_emits(const struct component *c, enum otlp_signal signal)
{
	return atomic_load(&c->out[signal]) != NULL;
}

/* A receiver does not know all its sources (on), or does again (off, also when it ends): tell the
 * same exporters. While it is on, now and then again: a reload may have changed what is
 * downstream. */
void component_source_expect(struct component *c, bool on);

/* What the service lends. Any thread; valid between start and shutdown. */
struct budget *component_budget(struct component *c);
unsigned component_n_loops(struct component *c);
struct loop *component_loop(struct component *c, unsigned i);
/* The state of the running extension with this id (e.g. `storage: file_storage/queue`), or NULL. */
struct component *component_extension(struct component *c, const char *id);
/* The first running extension of this type, or NULL. */
struct component *component_extension_of_type(struct component *c, const char *type_name);
/* The running connector with this id that takes the signal c gets, or NULL. It outlives c, and a
 * reload that replaces it, takes it away or brings it begins c anew. In start (connectors have
 * started) or later. OPT_CONNECTORS makes a wrong id a configuration error. */
struct component *component_connector(struct component *c, const char *id);
/* T_guard: no sampler may ask more of a trace's R, and only what has it (or a keep record) is shown
 * as an exemplar. TH_UNKNOWN where nothing of the process has to do with exemplars. A reload may
 * change it: ask once per batch. */
uint64_t component_exemplar_guard(const struct component *c);
/* The least share of all traces that samplers of this process keep on some path
 * (resolve/exemplar.h); 1 without samplers, and where nothing has to do with exemplars. */
double component_sampled_ratio(const struct component *c);
/* What the first running extension of this type lends (its type's `lend`), or NULL. */
void *component_borrow(struct component *c, const char *type_name);
/* True when every component started and is ready; else a reason. */
bool component_process_is_ready(struct component *c, char *why, size_t why_size);
/* True between starting (with replay) and stopping, whatever a component cannot do meanwhile. */
bool component_process_is_running(struct component *c, char *why, size_t why_size);
/* Some component's start is under way and shall end soon, because a stop is wanted: who waits for
 * something in `start` asks this. False again once that start has ended: what drains then takes its
 * time. */
bool component_start_is_cancelled(const struct component *c);
/* Stop the whole process as on SIGTERM, because this component can no longer do its work. */
void component_fail(struct component *c, const struct err *why);

#endif
