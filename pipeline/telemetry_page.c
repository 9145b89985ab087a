/* SPDX-License-Identifier: Apache-2.0
 *
 * telemetry_page.c - writes the /metrics page and serves it.
 *
 * One family after the other, each with all its samples: families of the core from the table below,
 * then the components' own, gathered so that a family that several components write has one head.
 * THREADS: the page is written on loop 0 from atomics. SPEC: Prometheus text format 0.0.4; names of
 * the Collector.
 */
#include "base/clock.h"
#include "base/map.h"
#include "base/mem.h"
#include "net/http_server.h"
#include "net/listen.h"
#include "pipeline/registry.h"
#include "pipeline/service.h"
#include "pipeline/system.h"

#include <stdio.h>
#include <sys/resource.h>

/* ---- families of the core ---- */

typedef uint64_t value_fn(const struct component *c);

static uint64_t incoming(const struct component *c)
{
	return atomic_load(&c->count->incoming);
}

static uint64_t outgoing(const struct component *c)
{
	return atomic_load(&c->count->outgoing);
}

static uint64_t sent(const struct component *c)
{
	return atomic_load(&c->count->sent);
}

static uint64_t send_failed(const struct component *c)
{
	return atomic_load(&c->count->send_failed);
}

static uint64_t enqueue_failed(const struct component *c)
{
	return atomic_load(&c->count->enqueue_failed);
}

static uint64_t queue_size(const struct component *c)
{
	return (uint64_t)atomic_load(&c->count->queue_size);
}

static uint64_t queue_capacity(const struct component *c)
{
	return (uint64_t)atomic_load(&c->count->queue_capacity);
}

static const struct family {
	const char *name, *kind, *help;
	enum component_kind of;
	value_fn *value;
} families[] = {
	{ "otelcol_processor_incoming_items", "counter", "Spans handed to the processor.",
	  KIND_PROCESSOR, incoming },
	{ "otelcol_processor_outgoing_items", "counter", "Spans the processor handed on.",
	  KIND_PROCESSOR, outgoing },
	{ "otelcol_exporter_sent_spans", "counter", "Spans delivered.", KIND_EXPORTER, sent },
	{ "otelcol_exporter_send_failed_spans", "counter", "Spans whose delivery failed for good.",
	  KIND_EXPORTER, send_failed },
	{ "otelcol_exporter_enqueue_failed_spans", "counter", "Spans that found the queue full.",
	  KIND_EXPORTER, enqueue_failed },
	{ "otelcol_exporter_queue_size", "gauge", "What waits in the sending queue.", KIND_EXPORTER,
	  queue_size },
	{ "otelcol_exporter_queue_capacity", "gauge", "Room of the sending queue.", KIND_EXPORTER,
	  queue_capacity },
};

static const char *name_of(const struct service *s, const char *name, const char *kind,
			   char out[128])
{
	bool suffix = s->conf->telemetry.type_suffix && strcmp(kind, "counter") == 0;

	snprintf(out, 128, "%s%s", name, suffix ? "_total" : "");
	return out;
}

static void write_family(struct service *s, const struct family *f, struct buf *out)
{
	bool is_queue = f->value == queue_size || f->value == queue_capacity;
	char name[128];

	telemetry_head(out, name_of(s, f->name, f->kind, name), f->kind, f->help);
	for (size_t i = 0; i < s->n_components; i++) {
		struct component *c = &s->components[i];

		if (c->type->kind != f->of ||
		    (is_queue && atomic_load(&c->count->queue_capacity) == 0))
			continue;
		telemetry_sample(out, name, (double)f->value(c), registry_kind_name(f->of), c->id,
				 "pipeline", s->pipeline_of[i], is_queue ? "data_type" : NULL,
				 "traces", NULL);
	}
}

static const struct transport_family {
	const char *name, *help;
	size_t offset;
} transport_families[] = {
	{ "otelcol_receiver_accepted_spans", "Spans taken: the client was told so.",
	  offsetof(struct transport_counters, accepted) },
	{ "otelcol_receiver_refused_spans",
	  "Spans the client was told were not taken: to be sent again, or rejected one by one.",
	  offsetof(struct transport_counters, refused) },
	{ "spanmill_receiver_rejected_spans", "Spans refused one by one (partial success).",
	  offsetof(struct transport_counters, rejected) },
	{ "spanmill_receiver_damaged_requests", "Requests that could not be decoded.",
	  offsetof(struct transport_counters, damaged) },
};

static void write_transport_family(struct service *s, const struct transport_family *f,
				   struct buf *out)
{
	char name[128];

	telemetry_head(out, name_of(s, f->name, "counter", name), "counter", f->help);
	for (size_t i = 0; i < s->n_components; i++) {
		struct component *c = &s->components[i];

		for (int t = 0; c->type->kind == KIND_RECEIVER && t < MAX_TRANSPORTS; t++) {
			struct transport_counters *tc = &c->count->transports[t];

			if (tc->transport != NULL)
				telemetry_sample(out, name,
						 (double)atomic_load(
							 (_Atomic uint64_t *)(void *)((char *)tc +
										      f->offset)),
						 "receiver", c->id, "transport", tc->transport,
						 NULL);
		}
	}
}

/* The two ends of the books, counted independently of each other. */
static void write_ledger(struct service *s, struct buf *out)
{
	char name[128];

	telemetry_head(out, name_of(s, "spanmill_accepted_spans", "counter", name), "counter",
		       "Spans this process took on, or found in a log at start.");
	telemetry_sample(out, name, (double)atomic_load(&ledger.accepted), NULL);
	telemetry_head(out, name_of(s, "spanmill_delivered_spans", "counter", name), "counter",
		       "Of those: delivered to an exporter that is not best_effort.");
	telemetry_sample(out, name, (double)atomic_load(&ledger.delivered), NULL);
	telemetry_head(out, name_of(s, "spanmill_dropped_spans", "counter", name), "counter",
		       "Of those: dropped, by reason.");
	for (int r = 0; r < DROP_REASON_MAX; r++)
		telemetry_sample(out, name, (double)atomic_load(&ledger.dropped[r]), "reason",
				 drop_reason_name((enum drop_reason)r), NULL);
	telemetry_head(out, "spanmill_held_spans", "gauge",
		       "Of those: acknowledged and lying in a log.");
	telemetry_sample(out, "spanmill_held_spans", (double)atomic_load(&ledger.held), NULL);
	telemetry_head(out, "spanmill_in_flight_spans", "gauge",
		       "Spans received and not answered yet.");
	telemetry_sample(out, "spanmill_in_flight_spans", (double)atomic_load(&ledger.in_flight),
			 NULL);
}

static void write_process(struct service *s, struct buf *out)
{
	struct rusage u;
	double cpu;
	char name[128];

	getrusage(RUSAGE_SELF, &u);
	cpu = (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
	      (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
	telemetry_head(out, name_of(s, "otelcol_process_uptime", "counter", name), "counter",
		       "Seconds since the start.");
	telemetry_sample(out, name, (double)(clock_wall_ns() - s->started_wall_ns) / 1e9, NULL);
	telemetry_head(out, name_of(s, "otelcol_process_cpu_seconds", "counter", name), "counter",
		       "CPU seconds, user and system.");
	telemetry_sample(out, name, cpu, NULL);
	telemetry_head(out, "otelcol_process_memory_rss", "gauge", "Resident bytes.");
	telemetry_sample(out, "otelcol_process_memory_rss", (double)system_memory_rss(), NULL);
	telemetry_head(out, "spanmill_memory_bytes", "gauge",
		       "The memory budget: granted now, limit, highest.");
	telemetry_sample(out, "spanmill_memory_bytes", (double)atomic_load(&s->budget.used), "what",
			 "used", NULL);
	telemetry_sample(out, "spanmill_memory_bytes", (double)atomic_load(&s->budget.limit),
			 "what", "limit", NULL);
	telemetry_sample(out, "spanmill_memory_bytes", (double)atomic_load(&s->budget.peak), "what",
			 "peak", NULL);
	telemetry_head(out, name_of(s, "spanmill_memory_refusals", "counter", name), "counter",
		       "Requests refused for want of budget.");
	telemetry_sample(out, name, (double)atomic_load(&s->budget.refusals), NULL);
}

/* ---- components' own families ---- */

/* Copy `own` into out, leaving out heads of families that were written before (two components of
 * one type). */
static void merge_own(struct buf *own, struct map *seen, struct buf *out)
{
	static char mark;
	const char *line = buf_cstr(own);

	while (*line != '\0') {
		const char *end = strchr(line, '\n');
		size_t n = end ? (size_t)(end - line) + 1 : strlen(line);
		bool is_head = line[0] == '#';

		if (!is_head ||
		    map_set(seen, (struct bytes){ (const uint8_t *)line, n }, &mark) == NULL)
			buf_add(out, line, n);
		line += n;
	}
}

static void write_own(struct service *s, struct buf *out)
{
	struct map seen = MAP_INIT;

	/* Components of one type stand together, so that a family's samples do. */
	for (size_t i = 0; i < s->n_components; i++) {
		bool done = false;

		for (size_t j = 0; j < i; j++)
			done |= s->components[j].type == s->components[i].type;
		for (size_t j = i; !done && j < s->n_components; j++) {
			struct component *c = &s->components[j];
			struct buf own = BUF_INIT;

			if (c->type != s->components[i].type || c->type->metrics == NULL)
				continue;
			c->type->metrics(c, &own);
			merge_own(&own, &seen, out);
			buf_fini(&own);
		}
	}
	map_fini(&seen);
}

void telemetry_write(struct service *s, struct buf *out)
{
	for (size_t i = 0; i < COUNT_OF(transport_families); i++)
		write_transport_family(s, &transport_families[i], out);
	for (size_t i = 0; i < COUNT_OF(families); i++)
		write_family(s, &families[i], out);
	write_ledger(s, out);
	write_process(s, out);
	/* A component that is still starting has nothing to say, and may not be asked. */
	if (atomic_load(&s->phase) == SERVICE_RUNNING || atomic_load(&s->phase) == SERVICE_DRAINING)
		write_own(s, out);
}

/* ---- the server ---- */

struct telemetry_server {
	struct service *service;
	struct loop *loop;
	char *endpoint;
	int fd;
	struct http_server *http;
	struct http_route route;
	struct err err;
};

static void serve_page(struct http_request *req, void *arg)
{
	struct telemetry_server *t = arg;
	struct buf page = BUF_INIT;

	telemetry_write(t->service, &page);
	http_respond(req, &(struct http_answer){ .status = 200,
						 .content_type =
							 "text/plain; version=0.0.4; charset=utf-8",
						 .body = buf_bytes(&page) });
	buf_fini(&page);
}

static void start_on_loop(void *arg)
{
	struct telemetry_server *t = arg;
	struct http_settings settings = HTTP_SETTINGS_INIT;

	settings.max_body = 65536;
	settings.max_connections = 64;
	t->route = (struct http_route){
		.method = "GET", .path = "/metrics", .handler = serve_page, .arg = t
	};
	t->http = http_server_new(t->loop, t->fd, &settings, &t->route, 1, &t->err);
}

static void stop_on_loop(void *arg)
{
	struct telemetry_server *t = arg;

	http_server_free(t->http);
}

struct telemetry_server *telemetry_server_start(struct service *s, const char *endpoint,
						struct err *err)
{
	struct telemetry_server *t = xcalloc(1, sizeof(*t));

	t->service = s;
	t->loop = s->loops[0];
	t->endpoint = xstrdup(endpoint);
	if (listen_open(endpoint, &t->fd, 1, err) < 0) {
		err_wrap(err, "service.telemetry.metrics");
		free(t->endpoint);
		free(t);
		return NULL;
	}
	loop_call(t->loop, start_on_loop, t);
	if (t->http == NULL) {
		*err = t->err;
		telemetry_server_stop(t);
		return NULL;
	}
	return t;
}

void telemetry_server_stop(struct telemetry_server *t)
{
	if (t == NULL)
		return;
	if (t->http != NULL)
		loop_call(t->loop, stop_on_loop, t);
	listen_close(t->endpoint, &t->fd, 1);
	free(t->endpoint);
	free(t);
}
