/* SPDX-License-Identifier: Apache-2.0
 *
 * prometheus.c - exporter that shows the latest value of every metric to scrapers: the Collector's
 * prometheus.
 *
 *   consume (any thread) -> ingest -> store <- page job (pool thread) <- GET /metrics (loop)
 *                                       ^---- sweep job, by a timer
 *
 * DESIGN: a page of 100,000 series takes a tenth of a second to write and to compress, so neither
 * is done on a loop. Jobs run one at a time: so the store needs no lock between pages and sweeps,
 * and many scrapers do not take the pool's threads. OWNERSHIP, THREADS: the queue of scrapes and
 * the timer belong to one loop. LIMITS: SCRAPES_MAX wait, the next gets 503; a page is charged to
 * the budget until it is sent. SPEC: the Collector's prometheus keys; OpenMetrics 1.0.
 */
#include "base/clock.h"
#include "base/mem.h"
#include "exporters/prometheus/ingest.h"
#include "exporters/prometheus/page.h"
#include "net/content_coding.h"
#include "net/loop_work.h"
#include "pipeline/conf/error.h"
#include "pipeline/listen/http.h"
#include "pipeline/option/prometheus.h"
#include "pipeline/telemetry.h"

#include <inttypes.h>
#include <unistd.h>

enum { SCRAPES_MAX = 16, HOLD_TIMEOUT_MS = 60000, SWEEP_MIN_MS = 1000, SWEEP_MAX_MS = 30000 };
enum { GZIP_FROM = 1024, GZIP_LEVEL = 1, BODY_MAX = 65536 };

struct prometheus_config {
	struct http_server_options http;
	struct prometheus_options naming;
	struct strmap const_labels;
	bool send_timestamps;
	int64_t metric_expiration_ns;
	bool enable_open_metrics, has_enable_open_metrics;
	bool without_scope_info;
};

/* A request that waits for its page. */
struct scrape {
	struct scrape *next;
	struct component *component;
	struct http_request *req;
	struct page_options page;
	bool gzip;
	struct rcbuf *body; /* NULL: no memory */
};

struct prometheus_state {
	bool is_initialised;
	struct store store;
	struct ingest_options ingest;
	bool allow_open;
	struct http_listener *listener;
	struct loop *loop;
	struct loop_timer sweep_timer;
	/* of the loop */
	struct scrape *first, **last;
	unsigned n_waiting;
	bool wants_sweep, is_stopping;
	struct loop_job job;
	_Atomic bool is_busy; /* a job runs */
	_Atomic uint64_t n_scrapes, n_refused;
};

#define C struct prometheus_config
static const struct option prometheus_options[] = {
	OPT_INCLUDE(C, http, struct http_server_options, http_server_option_table),
	OPT_DEFAULT("endpoint", NULL),
	OPT_REQUIRE("endpoint"),
	OPT_INCLUDE(C, naming, struct prometheus_options, prometheus_option_table),
	OPT_STRMAP(C, "const_labels", const_labels,
		   "Labels of every series; an attribute of the same name wins."),
	OPT_BOOL(C, "send_timestamps", send_timestamps, "false",
		 "Samples with the time of their points. Exemplars always have theirs."),
	OPT_DURATION(C, "metric_expiration", metric_expiration_ns, "5m",
		     "A series without a new point for so long goes; 0: never."),
	OPT_BOOL(C, "enable_open_metrics", enable_open_metrics, "true",
		 "OpenMetrics, with exemplars, for scrapers that ask for it. When not written: not "
		 "without suffixes, since OpenMetrics puts _total behind every counter."),
	OPT_PRESENT(C, "enable_open_metrics", has_enable_open_metrics),
	OPT_BOOL(C, "without_scope_info", without_scope_info, "false", "No otel_scope_... labels."),
	OPT_UNSUPPORTED("resource_constant_labels",
			"use resource_to_telemetry_conversion.enabled: true for all of them"),
	OPT_END
};
#undef C

static bool is_label_name(const char *s)
{
	return strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_0123456789") ==
		       strlen(s) &&
	       s[0] != '\0' && !(s[0] >= '0' && s[0] <= '9') && strncmp(s, "__", 2) != 0;
}

static void prometheus_validate(void *config, const struct conf_node *node,
				struct conf_errors *errs, const char *path)
{
	const struct prometheus_config *conf = config;

	http_listener_check(&conf->http, node, "", errs, path);
	for (size_t i = 0; i < conf->const_labels.n; i++)
		if (!is_label_name(conf->const_labels.items[i].name))
			conf_error_at(errs, node, path, "const_labels",
				      "letters, digits and _, not first a digit or __",
				      "\"%s\" is no name of a label",
				      conf->const_labels.items[i].name);
}

/* ---- jobs: pages and sweeps, one at a time ---- */

static void start_job(struct component *c);

static uint64_t sweep_ms(const struct prometheus_config *conf)
{
	uint64_t ms = (uint64_t)conf->metric_expiration_ns / NS_PER_MS / 2;

	return conf->metric_expiration_ns > 0
		       ? MAX(MIN(ms, (uint64_t)SWEEP_MAX_MS), (uint64_t)SWEEP_MIN_MS)
		       : SWEEP_MAX_MS;
}

static void sweep_work(void *arg)
{
	struct component *c = arg;
	const struct prometheus_config *conf = COMPONENT_CONFIG(c, struct prometheus_config);

	store_sweep(&COMPONENT_STATE(c, struct prometheus_state)->store,
		    (uint64_t)conf->metric_expiration_ns);
}

static void sweep_done(void *arg)
{
	struct component *c = arg;
	struct prometheus_state *st = COMPONENT_STATE(c, struct prometheus_state);

	atomic_store(&st->is_busy, false);
	if (st->is_stopping)
		return;
	loop_timer_start(st->loop, &st->sweep_timer,
			 sweep_ms(COMPONENT_CONFIG(c, struct prometheus_config)));
	start_job(c);
}

static void sweep_due(void *arg)
{
	COMPONENT_STATE((struct component *)arg, struct prometheus_state)->wants_sweep = true;
	start_job(arg);
}

/* The bytes of `page` are the answer's from now on. */
static struct rcbuf *take(struct budget *budget, struct buf *page, struct meter *m)
{
	size_t n;
	uint8_t *p = buf_take(page, &n);

	meter_fini(m);
	return rcbuf_adopt(budget, p != NULL ? p : xmalloc(1), n);
}

static struct rcbuf *write_page(struct component *c, struct scrape *s)
{
	struct prometheus_state *st = COMPONENT_STATE(c, struct prometheus_state);
	struct budget *budget = component_budget(c);
	struct meter m = { .budget = budget }, gz = { .budget = budget };
	struct buf page = { .meter = &m }, packed = { .meter = &gz };
	struct err err = ERR_INIT;
	struct rcbuf *body = NULL;

	page_write(&st->store, &s->page, &page);
	if (page.overflow)
		goto out;
	s->gzip = s->gzip && page.n >= GZIP_FROM;
	if (!s->gzip)
		body = take(budget, &page, &m);
	else if (content_encode(CONTENT_GZIP, GZIP_LEVEL, buf_bytes(&page), &packed, &err) == 0)
		body = take(budget, &packed, &gz);
out:
	buf_fini(&page);
	buf_fini(&packed);
	meter_fini(&m);
	meter_fini(&gz);
	return body;
}

static void page_work(void *arg)
{
	struct scrape *s = arg;

	s->body = write_page(s->component, s);
}

static void scrape_free(struct scrape *s)
{
	rcbuf_unref(s->body);
	http_request_unref(s->req);
	free(s);
}

static void answer(struct scrape *s)
{
	static const struct http_header gzip[] = { { "Content-Encoding", "gzip" },
						   { "Vary", "Accept, Accept-Encoding" } };
	static const struct http_header plain[] = { { "Vary", "Accept, Accept-Encoding" } };
	struct http_answer a = { .status = 200,
				 .content_type = accept_content_type(&s->page.form),
				 .headers = s->gzip ? gzip : plain,
				 .n_headers = s->gzip ? COUNT_OF(gzip) : COUNT_OF(plain),
				 .shared = s->body };

	s->body = NULL;
	http_respond(s->req, &a);
}

static void page_done(void *arg)
{
	struct scrape *s = arg;
	struct component *c = s->component;
	struct prometheus_state *st = COMPONENT_STATE(c, struct prometheus_state);

	if (s->body != NULL) {
		atomic_fetch_add(&st->n_scrapes, 1);
		answer(s);
	} else {
		atomic_fetch_add(&st->n_refused, 1);
		http_respond_error(s->req, 503, 1, "memory budget spent: no room for the page");
	}
	scrape_free(s);
	atomic_store(&st->is_busy, false);
	if (!st->is_stopping)
		start_job(c);
}

/* Loop. Sweeps go first: they make pages shorter. */
static void start_job(struct component *c)
{
	struct prometheus_state *st = COMPONENT_STATE(c, struct prometheus_state);
	struct scrape *s = st->first;

	if (atomic_load(&st->is_busy) || (!st->wants_sweep && s == NULL))
		return;
	atomic_store(&st->is_busy, true);
	if (st->wants_sweep) {
		st->wants_sweep = false;
		st->job = (struct loop_job){ .work = sweep_work, .done = sweep_done, .arg = c };
	} else {
		st->first = s->next;
		if (st->first == NULL)
			st->last = &st->first;
		st->n_waiting--;
		st->job = (struct loop_job){ .work = page_work, .done = page_done, .arg = s };
	}
	loop_work(st->loop, &st->job);
}

/* ---- requests ---- */

static void serve(struct http_request *req, void *arg)
{
	struct component *c = ((struct http_site *)arg)->component;
	const struct prometheus_config *conf = COMPONENT_CONFIG(c, struct prometheus_config);
	struct prometheus_state *st = COMPONENT_STATE(c, struct prometheus_state);
	const char *encoding = http_request_header(req, "Accept-Encoding");
	struct scrape *s;

	if (st->n_waiting >= SCRAPES_MAX) {
		atomic_fetch_add(&st->n_refused, 1);
		http_respond_error(req, 503, 1, "%d scrapes wait already", SCRAPES_MAX);
		return;
	}
	s = xcalloc(1, sizeof(*s));
	s->component = c;
	s->req = http_request_ref(req);
	s->page = (struct page_options){
		.form = accept_choose(http_request_header(req, "Accept"), st->allow_open),
		.timestamps = conf->send_timestamps,
		.is_scrape = strcmp(req->method, "GET") == 0,
		.expire_ns = (uint64_t)conf->metric_expiration_ns,
	};
	s->gzip = encoding != NULL && content_coding_accepts_gzip(bytes_str(encoding));
	*st->last = s;
	st->last = &s->next;
	st->n_waiting++;
	start_job(c);
}

/* ---- batches ---- */

static void settle(struct component *c, struct batch *b, struct ingest_result *r)
{
	uint64_t lost = 0;

	for (unsigned i = 0; i < DROPPED_MAX; i++)
		lost += i != DROPPED_OLD ? r->n_dropped[i] : 0;
	atomic_fetch_add(&c->count->sent, r->n_taken + r->n_dropped[DROPPED_OLD]);
	atomic_fetch_add(&c->count->send_failed, lost);
	if (lost == 0) {
		batch_settle(b, VERDICT_DELIVERED, DROP_REASON_MAX, NULL);
		return;
	}
	log_warn("points have no place on the page", "exporter", c->id, "points", LOG_NUM(lost),
		 "first", r->why.msg);
	batch_settle_partial(b, r->n_bad_items, &r->why);
}

static void prometheus_consume(struct component *c, struct batch *b)
{
	struct prometheus_state *st = COMPONENT_STATE(c, struct prometheus_state);
	const char *tenant = strcmp(b->tenant, TENANT_DEFAULT) != 0 ? b->tenant : NULL;
	struct ingest_result result;

	ingest(&st->store, &st->ingest, &b->tables, tenant, &result);
	settle(c, b, &result);
	batch_unref(b);
}

/* ---- life ---- */

/* A successor has the same port, so it starts when this one has ended (no may_overlap). */

static void start_timer(void *arg)
{
	struct component *c = arg;
	struct prometheus_state *st = COMPONENT_STATE(c, struct prometheus_state);

	st->sweep_timer = (struct loop_timer){ .fn = sweep_due, .arg = c };
	loop_timer_start(st->loop, &st->sweep_timer,
			 sweep_ms(COMPONENT_CONFIG(c, struct prometheus_config)));
}

static int prometheus_start(struct component *c, struct err *err)
{
	const struct prometheus_config *conf = COMPONENT_CONFIG(c, struct prometheus_config);
	struct prometheus_state *st = COMPONENT_STATE(c, struct prometheus_state);
	struct http_route route = {
		.method = "GET", .path = "/metrics", .max_body = BODY_MAX, .handler = serve
	};
	struct http_listener_setup setup = {
		.routes = &route, .n_routes = 1, .hold_timeout_ms = HOLD_TIMEOUT_MS, .n_loops = 1
	};

	st->last = &st->first;
	st->loop = component_loop(c, 0);
	st->ingest = (struct ingest_options){ .naming = prometheus_options_naming(&conf->naming),
					      .const_labels = conf->const_labels,
					      .resource_labels = conf->naming.resource_to_telemetry,
					      .without_scope = conf->without_scope_info };
	st->allow_open = conf->enable_open_metrics &&
			 (conf->has_enable_open_metrics || st->ingest.naming.add_suffixes);
	store_init(&st->store, component_budget(c));
	st->is_initialised = true;
	st->listener = http_listener_start(c, &conf->http, &setup, err);
	if (st->listener == NULL)
		return -1;
	loop_call(st->loop, start_timer, c);
	return 0;
}

static void prometheus_drain(struct component *c)
{
	http_listener_drain(COMPONENT_STATE(c, struct prometheus_state)->listener);
}

static int prometheus_is_drained(struct component *c)
{
	return http_listener_is_drained(COMPONENT_STATE(c, struct prometheus_state)->listener);
}

static void stop_jobs(void *arg)
{
	struct component *c = arg;
	struct prometheus_state *st = COMPONENT_STATE(c, struct prometheus_state);
	struct scrape *s;

	st->is_stopping = true;
	loop_timer_stop(st->loop, &st->sweep_timer);
	while ((s = st->first) != NULL) {
		st->first = s->next;
		scrape_free(s);
	}
	st->last = &st->first;
	st->n_waiting = 0;
}

static void prometheus_shutdown(struct component *c)
{
	struct prometheus_state *st = COMPONENT_STATE(c, struct prometheus_state);

	if (!st->is_initialised)
		return;
	/* Answers what waits with 503; nothing new comes after it. */
	http_listener_free(st->listener);
	loop_call(st->loop, stop_jobs, c);
	while (atomic_load(&st->is_busy))
		usleep(1000);
	/* The done() that said so is still on the loop. */
	loop_call(st->loop, stop_jobs, c);
	store_fini(&st->store);
	st->is_initialised = false;
	st->listener = NULL;
}

static void prometheus_metrics(struct component *c, struct buf *out)
{
	struct prometheus_state *st = COMPONENT_STATE(c, struct prometheus_state);
	const char *dropped = "spanmill_prometheus_dropped_points";

	if (!st->is_initialised)
		return;
	telemetry_head(out, "spanmill_prometheus_series", "gauge",
		       "Series that the page has; a histogram is one.");
	telemetry_sample(out, "spanmill_prometheus_series",
			 (double)atomic_load(&st->store.n_series), "exporter", c->id, NULL);
	telemetry_head(out, "spanmill_prometheus_bytes", "gauge", "Memory they take.");
	telemetry_sample(out, "spanmill_prometheus_bytes", (double)atomic_load(&st->store.bytes),
			 "exporter", c->id, NULL);
	telemetry_head(out, dropped, "counter", "Data points that are not shown, by reason.");
	for (unsigned i = 0; i < DROPPED_MAX; i++)
		telemetry_sample(out, dropped, (double)atomic_load(&st->store.dropped[i]),
				 "exporter", c->id, "reason", dropped_name((enum dropped)i), NULL);
	telemetry_head(out, "spanmill_prometheus_scrapes", "counter", "Pages, by how it ended.");
	telemetry_sample(out, "spanmill_prometheus_scrapes", (double)atomic_load(&st->n_scrapes),
			 "exporter", c->id, "result", "ok", NULL);
	telemetry_sample(out, "spanmill_prometheus_scrapes", (double)atomic_load(&st->n_refused),
			 "exporter", c->id, "result", "refused", NULL);
}

const struct component_type exporter_prometheus = {
	.name = "prometheus",
	.kind = KIND_EXPORTER,
	.summary = "Shows the latest value of every metric, with exemplars, to scrapers.",
	.stability = STABILITY_ALPHA,
	.signals = SIGNAL_METRICS,
	.config_size = sizeof(struct prometheus_config),
	.state_size = sizeof(struct prometheus_state),
	.options = prometheus_options,
	.validate = prometheus_validate,
	.start = prometheus_start,
	.consume = prometheus_consume,
	.drain = prometheus_drain,
	.is_drained = prometheus_is_drained,
	.shutdown = prometheus_shutdown,
	.metrics = prometheus_metrics,
};
