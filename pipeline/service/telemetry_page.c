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
#include "pipeline/service/service.h"
#include "pipeline/service/system.h"

#include <malloc.h>
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

static uint64_t in_flight(const struct component *c)
{
	return (uint64_t)atomic_load(&c->count->in_flight);
}

/* What the Collector calls what it counts; `what` for our help texts. */
static const struct {
	const char *signal, *items, *what;
} signals[] = {
	[OTLP_TRACES] = { "traces", "spans", "Spans" },
	[OTLP_METRICS] = { "metrics", "metric_points", "Data points" },
	[OTLP_LOGS] = { "logs", "log_records", "Log records" },
};

/* A name that ends in an underscore is a family per signal ("..._sent_spans"), and its help follows
 * the name of what is counted. */
static const struct family {
	const char *name, *kind, *help;
	enum component_kind of;
	value_fn *value;
} families[] = {
	{ "otelcol_processor_incoming_items", "counter", "Items handed to the processor.",
	  KIND_PROCESSOR, incoming },
	{ "otelcol_processor_outgoing_items", "counter", "Items the processor handed on.",
	  KIND_PROCESSOR, outgoing },
	{ "otelcol_connector_consumed_items", "counter", "Items handed to the connector.",
	  KIND_CONNECTOR, incoming },
	{ "otelcol_connector_produced_items", "counter",
	  "Items the connector handed on, of whatever signal it gives.", KIND_CONNECTOR, outgoing },
	{ "otelcol_exporter_sent_", "counter", "delivered.", KIND_EXPORTER, sent },
	{ "otelcol_exporter_send_failed_", "counter", "whose delivery failed for good.",
	  KIND_EXPORTER, send_failed },
	{ "otelcol_exporter_enqueue_failed_", "counter", "that found the queue full.",
	  KIND_EXPORTER, enqueue_failed },
	{ "otelcol_exporter_queue_size", "gauge", "What waits in the sending queue.", KIND_EXPORTER,
	  queue_size },
	{ "otelcol_exporter_queue_capacity", "gauge", "Room of the sending queue.", KIND_EXPORTER,
	  queue_capacity },
	{ "otelcol_exporter_in_flight_requests", "gauge",
	  "Requests being sent, or waiting for their next attempt.", KIND_EXPORTER, in_flight },
};

enum { NAME_MAX_BYTES = 80 };

/* Is there anything to say of this signal? Of traces always. */
static bool is_carried(const struct service *s, enum otlp_signal signal)
{
	for (size_t i = 0; i < s->conf->n_pipelines; i++)
		if (s->conf->pipelines[i].signal == signal)
			return true;
	return signal == OTLP_TRACES;
}

/* The head of a family of one signal: prefix "otelcol_exporter_sent_", help "delivered.". */
static void signal_head(struct buf *out, char name[NAME_MAX_BYTES], const char *prefix,
			const char *kind, const char *help, enum otlp_signal signal)
{
	char text[160];

	snprintf(name, NAME_MAX_BYTES, "%s%s", prefix, signals[signal].items);
	snprintf(text, sizeof(text), "%s %s", signals[signal].what, help);
	telemetry_head(out, name, kind, text);
}

/* The samples of the components that carry one of `mask` (enum signals). */
static void write_samples(struct service *s, const struct family *f, const char *name,
			  unsigned mask, struct buf *out)
{
	bool is_queue =
		f->value == queue_size || f->value == queue_capacity || f->value == in_flight;
	bool is_between = f->of == KIND_PROCESSOR || f->of == KIND_CONNECTOR;

	for (size_t i = 0; i < s->n_components; i++) {
		struct component *c = s->components[i];

		if (c->type->kind != f->of || !(mask & 1u << c->signal) ||
		    (is_queue && atomic_load(&c->count->queue_capacity) == 0))
			continue;
		telemetry_sample(out, name, (double)f->value(c), registry_kind_name(f->of), c->id,
				 "pipeline", c->pipeline,
				 is_queue     ? "data_type"
				 : is_between ? "otel_signal"
					      : NULL,
				 signals[c->signal].signal, NULL);
	}
}

static void write_family(struct service *s, const struct family *f, struct buf *out)
{
	char name[NAME_MAX_BYTES];

	if (f->name[strlen(f->name) - 1] != '_') {
		telemetry_head(out, f->name, f->kind, f->help);
		write_samples(s, f, f->name, SIGNAL_ALL, out);
		return;
	}
	for (int g = 0; g < OTLP_SIGNALS; g++) {
		if (!is_carried(s, (enum otlp_signal)g))
			continue;
		signal_head(out, name, f->name, f->kind, f->help, (enum otlp_signal)g);
		write_samples(s, f, name, 1u << g, out);
	}
}

static const struct transport_family {
	const char *name, *help;
	size_t offset;
} transport_families[] = {
	{ "otelcol_receiver_accepted_", "taken: the client was told so.",
	  offsetof(struct transport_counters, accepted) },
	{ "otelcol_receiver_refused_",
	  "the client was told were not taken: to be sent again, or rejected one by one.",
	  offsetof(struct transport_counters, refused) },
	{ "spanmill_receiver_rejected_", "refused one by one (partial success).",
	  offsetof(struct transport_counters, rejected) },
	{ "spanmill_receiver_damaged_requests", "Requests that could not be decoded.",
	  offsetof(struct transport_counters, damaged) },
};

static void write_transport_samples(struct service *s, const struct transport_family *f,
				    const char *name, unsigned mask, struct buf *out)
{
	for (size_t i = 0; i < s->n_components; i++) {
		struct component *c = s->components[i];

		for (int t = 0; c->type->kind == KIND_RECEIVER && t < MAX_TRANSPORTS; t++) {
			struct transport_counters *tc = &c->count->transports[t];

			if (tc->transport != NULL && mask & 1u << tc->signal)
				telemetry_sample(out, name,
						 (double)atomic_load(
							 (_Atomic uint64_t *)(void *)((char *)tc +
										      f->offset)),
						 "receiver", c->id, "transport", tc->transport,
						 mask == SIGNAL_ALL ? "data_type" : NULL,
						 signals[tc->signal].signal, NULL);
		}
	}
}

static void write_transport_family(struct service *s, const struct transport_family *f,
				   struct buf *out)
{
	char name[NAME_MAX_BYTES];

	if (f->name[strlen(f->name) - 1] != '_') {
		telemetry_head(out, f->name, "counter", f->help);
		write_transport_samples(s, f, f->name, SIGNAL_ALL, out);
		return;
	}
	for (int g = 0; g < OTLP_SIGNALS; g++) {
		if (!is_carried(s, (enum otlp_signal)g))
			continue;
		signal_head(out, name, f->name, "counter", f->help, (enum otlp_signal)g);
		write_transport_samples(s, f, name, 1u << g, out);
	}
}

/* A family of one sample without labels. */
static void single(struct buf *out, const char *name, const char *kind, const char *help, double v)
{
	telemetry_head(out, name, kind, help);
	telemetry_sample(out, name, v, NULL);
}

/* The same books of the other signals, in what is settled by itself: log records, metrics. */
static void write_other_ledgers(struct service *s, struct buf *out)
{
	static const char name[] = "spanmill_items";

	if (!is_carried(s, OTLP_METRICS) && !is_carried(s, OTLP_LOGS))
		return;
	telemetry_head(out, name, "gauge",
		       "Log records and metrics (not their data points): accepted = delivered + "
		       "dropped + held.");
	for (int g = OTLP_METRICS; g < OTLP_SIGNALS; g++) {
		const struct ledger *l = ledger_of((enum otlp_signal)g);
		uint64_t dropped = 0;

		for (int r = 0; r < DROP_REASON_MAX; r++)
			dropped += atomic_load(&l->dropped[r]);
		telemetry_sample(out, name, (double)atomic_load(&l->accepted), "data_type",
				 signals[g].signal, "what", "accepted", NULL);
		telemetry_sample(out, name, (double)atomic_load(&l->delivered), "data_type",
				 signals[g].signal, "what", "delivered", NULL);
		telemetry_sample(out, name, (double)dropped, "data_type", signals[g].signal, "what",
				 "dropped", NULL);
		telemetry_sample(out, name, (double)atomic_load(&l->held), "data_type",
				 signals[g].signal, "what", "held", NULL);
	}
}

/* The two ends of the books, counted independently of each other. */
static void write_ledger(struct service *s, struct buf *out)
{
	single(out, "spanmill_accepted_spans", "counter",
	       "Spans this process took on, or found in a log at start.",
	       (double)atomic_load(&ledger.accepted));
	single(out, "spanmill_delivered_spans", "counter",
	       "Of those: delivered to an exporter that is not best_effort.",
	       (double)atomic_load(&ledger.delivered));
	telemetry_head(out, "spanmill_dropped_spans", "counter", "Of those: dropped, by reason.");
	for (int r = 0; r < DROP_REASON_MAX; r++)
		telemetry_sample(out, "spanmill_dropped_spans",
				 (double)atomic_load(&ledger.dropped[r]), "reason",
				 drop_reason_name((enum drop_reason)r), NULL);
	single(out, "spanmill_held_spans", "gauge", "Of those: acknowledged and lying in a log.",
	       (double)atomic_load(&ledger.held));
	write_other_ledgers(s, out);
	single(out, "spanmill_in_flight_spans", "gauge", "Spans received and not answered yet.",
	       (double)atomic_load(&ledger.in_flight));
}

static void write_budget(struct service *s, struct buf *out)
{
	static const char name[] = "spanmill_memory_bytes";

	telemetry_head(out, name, "gauge", "The memory budget: granted now, limit, highest.");
	telemetry_sample(out, name, (double)atomic_load(&s->budget.used), "what", "used", NULL);
	telemetry_sample(out, name, (double)atomic_load(&s->budget.limit), "what", "limit", NULL);
	telemetry_sample(out, name, (double)atomic_load(&s->budget.peak), "what", "peak", NULL);
	single(out, "spanmill_memory_refusals", "counter", "Requests refused for want of budget.",
	       (double)atomic_load(&s->budget.refusals));
}

/* The Collector's names, for its dashboards: what Go's runtime calls heap and system memory is what
 * malloc handed out and what it has from the system. */
static void write_process(struct service *s, struct buf *out)
{
	struct mallinfo2 m = mallinfo2();
	struct rusage u;

	getrusage(RUSAGE_SELF, &u);
	single(out, "otelcol_process_uptime", "counter", "Seconds since the start.",
	       (double)((clock_mono_ns() - s->started_mono_ns) / NS_PER_MS) / 1e3);
	single(out, "otelcol_process_cpu_seconds", "counter", "CPU seconds, user and system.",
	       (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
		       (double)((u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1000) / 1e3);
	single(out, "otelcol_process_memory_rss", "gauge", "Resident bytes.",
	       (double)system_memory_rss());
	single(out, "otelcol_process_runtime_heap_alloc_bytes", "gauge",
	       "Bytes that malloc has given out.", (double)(m.uordblks + m.hblkhd));
	single(out, "otelcol_process_runtime_total_sys_memory_bytes", "gauge",
	       "Bytes that malloc has from the system.", (double)(m.arena + m.hblkhd));
}

static char label_char(char c, bool first)
{
	bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';

	return letter || (!first && c >= '0' && c <= '9') ? c : '_';
}

/* Who speaks: service_name, service_version, service_instance_id and what the user added. */
static void write_target(struct service *s, struct buf *out)
{
	const struct strmap *map = &s->conf->telemetry.resource;

	telemetry_head(out, "target_info", "gauge", "Attributes of this process.");
	buf_add_str(out, "target_info");
	for (size_t i = 0; i < map->n; i++) {
		buf_add_char(out, i == 0 ? '{' : ',');
		for (const char *p = map->items[i].name; *p != '\0'; p++)
			buf_add_char(out, label_char(*p, p == map->items[i].name));
		buf_add_str(out, "=\"");
		telemetry_label_value(out, map->items[i].value);
		buf_add_char(out, '"');
	}
	buf_add_str(out, map->n > 0 ? "} 1\n" : " 1\n");
}

/* ---- components' own families ---- */

/* A family that some components write, each with its own samples: they stand together under one
 * head, as the format wants it. */
struct own_family {
	struct buf text;
	struct own_family *next;
};

struct own_families {
	struct map by_name;
	struct own_family *first, **end;
};

static struct own_family *own_family(struct own_families *all, struct bytes name, bool *is_new)
{
	struct own_family *f = map_find(&all->by_name, name);

	*is_new = f == NULL;
	if (f == NULL) {
		f = xcalloc(1, sizeof(*f));
		map_set(&all->by_name, name, f);
		*all->end = f;
		all->end = &f->next;
	}
	return f;
}

/* The word at p, which ends at a blank, a brace or the line. */
static struct bytes word_at(const char *p)
{
	return (struct bytes){ (const uint8_t *)p, strcspn(p, " {\n") };
}

/* Sort one component's rows: `# HELP name` begins a family, what follows belongs to it. */
static void sort_own(struct own_families *all, const char *text)
{
	struct own_family *f = NULL;
	bool is_new = false;

	for (const char *line = text; *line != '\0'; line += strcspn(line, "\n") + 1) {
		if (strncmp(line, "# HELP ", 7) == 0)
			f = own_family(all, word_at(line + 7), &is_new);
		assert(f != NULL); /* telemetry_head comes first */
		if (line[0] != '#' || is_new)
			buf_add(&f->text, line, strcspn(line, "\n") + 1);
	}
}

static void write_own(struct service *s, struct buf *out)
{
	struct own_families all = { .by_name = MAP_INIT, .end = &all.first };

	for (size_t i = 0; i < s->n_components; i++) {
		struct component *c = s->components[i];
		struct buf own = BUF_INIT;

		if (c->type->metrics != NULL)
			c->type->metrics(c, &own);
		sort_own(&all, buf_cstr(&own));
		buf_fini(&own);
	}
	for (struct own_family *f = all.first, *next; f != NULL; f = next) {
		next = f->next;
		buf_add_bytes(out, buf_bytes(&f->text));
		buf_fini(&f->text);
		free(f);
	}
	map_fini(&all.by_name);
}

/* ---- _total ---- */

/* With a reader that says without_type_suffix: false, counters end in _total. */
static void add_suffixes(struct buf *page, struct buf *out)
{
	static const char type[] = "# TYPE ", help[] = "# HELP ";
	struct map counters = MAP_INIT;
	static char mark;

	for (const char *line = buf_cstr(page); *line != '\0'; line += strcspn(line, "\n") + 1) {
		struct bytes name = word_at(line + strlen(type));

		if (strncmp(line, type, strlen(type)) == 0 &&
		    strncmp((const char *)name.p + name.n, " counter\n", 9) == 0)
			map_set(&counters, name, &mark);
	}
	for (const char *line = buf_cstr(page); *line != '\0'; line += strcspn(line, "\n") + 1) {
		bool head = strncmp(line, type, strlen(type)) == 0 ||
			    strncmp(line, help, strlen(help)) == 0;
		struct bytes name = word_at(line + (head ? strlen(type) : 0));
		const char *rest = (const char *)name.p + name.n;

		buf_add(out, line, (size_t)(rest - line));
		if (map_find(&counters, name) != NULL)
			buf_add_str(out, "_total");
		buf_add(out, rest, strcspn(rest, "\n") + 1);
	}
	map_fini(&counters);
}

static void write_reloads(struct service *s, struct buf *out)
{
	static const char name[] = "spanmill_config_reloads";

	telemetry_head(out, name, "counter", "SIGHUPs, by what came of them.");
	telemetry_sample(out, name, (double)atomic_load(&s->reloads.ok), "result", "ok", NULL);
	telemetry_sample(out, name, (double)atomic_load(&s->reloads.failed), "result", "failed",
			 NULL);
	single(out, "spanmill_config_last_reload_success_timestamp_seconds", "gauge",
	       "When a configuration was last taken, at the start or by SIGHUP; Unix time.",
	       (double)(atomic_load(&s->reloads.success_wall_ns) / NS_PER_MS) / 1e3);
}

/* A reload takes no instance off the list before the page is done with it. */
static void write_families(struct service *s, struct buf *out)
{
	pthread_rwlock_rdlock(&s->list_lock);
	for (size_t i = 0; i < COUNT_OF(transport_families); i++)
		write_transport_family(s, &transport_families[i], out);
	for (size_t i = 0; i < COUNT_OF(families); i++)
		write_family(s, &families[i], out);
	write_ledger(s, out);
	write_budget(s, out);
	write_process(s, out);
	write_reloads(s, out);
	write_target(s, out);
	/* A component that is still starting has nothing to say, and may not be asked. */
	if (atomic_load(&s->phase) == SERVICE_RUNNING || atomic_load(&s->phase) == SERVICE_DRAINING)
		write_own(s, out);
	pthread_rwlock_unlock(&s->list_lock);
}

void telemetry_write(struct service *s, struct buf *out)
{
	struct buf page = BUF_INIT;

	if (!s->conf->telemetry.type_suffix) {
		write_families(s, out);
		return;
	}
	write_families(s, &page);
	add_suffixes(&page, out);
	buf_fini(&page);
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
