/* SPDX-License-Identifier: Apache-2.0
 *
 * prometheusremotewrite.c - exporter that writes metrics, with their exemplars, to Prometheus or
 * what takes its remote write (Mimir, Thanos, VictoriaMetrics, ...).
 *
 * consume -> http_sender (pipeline/send/http.h): queue, retry, verdict by status. A batch becomes
 * one body per max_batch_size_bytes on the sender's loop (wire/remote_write.h), since a histogram
 * is some fifteen times as large as series than as OTLP, and one metric may have thousands of
 * points.
 * ORDER: samples of a series must come in the order of their times, so one request is under way at
 * a time, from one batch after the other; a retry goes on with the body that failed.
 * A 400 drops its body only, and is counted; 429 and all 5xx are tried again. Prometheus refuses a
 * whole request for one sample that is older than its series: such a body is sent in halves, so
 * that what else is in it is not lost, at most SPLITS_MAX times for a batch.
 * LIMITS: sending_queue; max_batch_size_bytes.
 * SPEC: Prometheus Remote-Write 1.0; docs/formats/prometheus.md; the Collector's
 * prometheusremotewrite keys.
 */
#include "base/clock.h"
#include "base/mem.h"
#include "pipeline/conf/error.h"
#include "pipeline/send/http.h"
#include "pipeline/option/prometheus.h"
#include "pipeline/telemetry.h"
#include "wire/remote_write.h"

enum { BODY_MIN = 16384, SPLITS_MAX = 40 };

/* Why points were dropped: those of the encoder, then those of the answers. */
enum dropped {
	DROPPED_OUT_OF_ORDER = REMOTE_WRITE_DROPS,
	DROPPED_REFUSED,
	DROPPED_MAX,
};

enum protobuf_message { MESSAGE_V1, MESSAGE_V2 };

struct remote_write_config {
	struct http_client_options client;
	struct prometheus_options naming;
	struct strmap external_labels;
	bool send_metadata, disable_scope_info, target_info;
	uint64_t max_batch_size_bytes;
	int message;         /* enum protobuf_message */
	bool queue_enabled;  /* of remote_write_queue */
	uint64_t queue_size; /* likewise; 0: what sending_queue says */
	struct retry_options retry;
	struct queue_options queue;
};

struct remote_write_state {
	struct http_sender *sender;  /* first: pipeline/send/http.h */
	struct remote_write encoder; /* the sender's loop's */
	struct remote_write_external *external;
	struct arena arena; /* names of external labels */
	uint32_t n_splits;  /* of the batch at hand; the loop's */
	_Atomic uint64_t dropped[DROPPED_MAX];
};

static const struct option_choice messages[] = {
	{ "prometheus.WriteRequest", MESSAGE_V1 },
	{ "io.prometheus.write.v2.Request", MESSAGE_V2 },
	{ NULL, 0 },
};

#define C struct remote_write_config
static const struct option remote_write_options[] = {
	OPT_INCLUDE(C, client, struct http_client_options, http_client_option_table),
	OPT_REQUIRE("endpoint"),
	OPT_DEFAULT("timeout", "5s"),
	OPT_DEFAULT("compression", "snappy"),
	OPT_DEFAULT("write_buffer_size", "512KiB"),
	OPT_INCLUDE(C, naming, struct prometheus_options, prometheus_option_table),
	OPT_STRMAP(C, "external_labels", external_labels,
		   "Labels of every series, unless it has them."),
	OPT_BOOL(C, "send_metadata", send_metadata, "false", "Type, help and unit of metrics."),
	OPT_BOOL(C, "disable_scope_info", disable_scope_info, "false",
		 "No otel_scope_ labels on series."),
	OPT_BOOL(C, "target_info.enabled", target_info, "true",
		 "A series target_info per job and instance, with the resource's attributes."),
	OPT_BYTES(C, "max_batch_size_bytes", max_batch_size_bytes, "3000000", BODY_MIN, 1 << 28,
		  "Of a request before compression, about; a larger batch is several."),
	OPT_ENUM(C, "protobuf_message", message, messages, "prometheus.WriteRequest",
		 "Of requests."),
	OPT_BOOL(C, "remote_write_queue.enabled", queue_enabled, "true",
		 "The Collector's spelling of sending_queue."),
	OPT_UINT(C, "remote_write_queue.queue_size", queue_size, "0", 0, INT64_C(1) << 50,
		 "The same: most requests that wait; 0: as sending_queue says."),
	OPT_IGNORED("remote_write_queue.num_consumers",
		    "requests are sent one after the other, so that series stay in order"),
	OPT_IGNORED("max_batch_request_parallelism",
		    "requests are sent one after the other, so that series stay in order"),
	OPT_UNSUPPORTED("wal", "write sending_queue: {storage: file_storage}: the queue is then a "
			       "log on disk that survives a crash"),
	OPT_MOVED("scope_info", "it is gone: otel_scope_ labels are on every series, unless "
				"disable_scope_info is true"),
	OPT_MOVED("export_created_metric", "it is gone: Prometheus has no use for _created"),
	OPT_TABLE(C, "retry_on_failure", retry, struct retry_options, retry_option_table,
		  "Attempts after a retryable failure."),
	OPT_DEFAULT("retry_on_failure.initial_interval", "50ms"),
	OPT_SECTION(C, "sending_queue", queue.enabled, queue, struct queue_options,
		    queue_option_table, "on", "What waits to be sent."),
	OPT_DEFAULT("sending_queue.num_consumers", "1"),
	OPT_DEFAULT("sending_queue.queue_size", "10000"),
	OPT_END
};
#undef C

/* remote_write_queue says the same as sending_queue; what it says is in force. */
static void take_queue(struct remote_write_config *conf, const struct conf_node *node,
		       struct conf_errors *errs, const char *path)
{
	if (!conf->queue_enabled)
		conf->queue.enabled = false;
	if (conf->queue_size == 0)
		return;
	if (conf->queue.has_queue_size && conf->queue.queue_size != conf->queue_size)
		conf_error_at(errs, node, path, "remote_write_queue.queue_size",
			      "keep that of sending_queue",
			      "sending_queue.queue_size says something else");
	if (conf->queue.sizer != QUEUE_SIZER_REQUESTS)
		conf_error_at(errs, node, path, "remote_write_queue.queue_size",
			      "write sending_queue: {queue_size: } with that sizer",
			      "it counts requests, and sending_queue.sizer something else");
	conf->queue.queue_size = conf->queue_size;
	conf->queue.has_queue_size = true;
}

static void remote_write_validate(void *config, const struct conf_node *node,
				  struct conf_errors *errs, const char *path)
{
	struct remote_write_config *conf = config;

	take_queue(conf, node, errs, path);
	http_sender_check_url(conf->client.endpoint, "endpoint", node, errs, path);
	http_sender_check(&conf->client, &conf->queue, node, errs, path);
	if (conf->client.compression != COMPRESSION_SNAPPY)
		conf_error_at(errs, node, path, "compression", "remove it",
			      "compression type must be snappy");
	if (conf->message != MESSAGE_V1)
		conf_error_at(errs, node, path, "protobuf_message",
			      "remove it: prometheus.WriteRequest is understood everywhere",
			      "version 2 of remote write is not in Spanmill yet");
	if (conf->queue.enabled && conf->queue.num_consumers > 1)
		conf_error_at(errs, node, path, "sending_queue.num_consumers", "remove it",
			      "requests are sent one after the other, so that samples of a series "
			      "stay in order");
	for (size_t i = 0; i < conf->external_labels.n; i++)
		if (conf->external_labels.items[i].name[0] == '\0')
			conf_error_at(errs, node, path, "external_labels", "give it a name",
				      "a label has no name");
}

/* ---- bodies ---- */

static int remote_write_body(struct component *c, const struct send_request *r,
			     struct http_payload *out, struct err *err)
{
	static const struct http_header version[] = {
		{ "X-Prometheus-Remote-Write-Version", "0.1.0" },
	};
	const struct remote_write_config *conf = COMPONENT_CONFIG(c, struct remote_write_config);
	struct remote_write *w = &COMPONENT_STATE(c, struct remote_write_state)->encoder;
	uint64_t at = r->progress;

	out->url = conf->client.endpoint;
	out->content_type = "application/x-protobuf";
	out->headers = version;
	out->n_headers = COUNT_OF(version);
	out->has_more = remote_write_encode(w, &r->batch->tables, &at,
					    (int64_t)(clock_wall_ns() / NS_PER_MS), &out->own);
	out->next = at;
	out->n_items = w->n_points;
	out->is_empty = out->own.n == 0;
	for (int i = 0; i < REMOTE_WRITE_DROPS; i++)
		out->n_failed += w->dropped[i];
	if (out->n_failed > 0)
		err_set(err, ERR_INVALID, "%u data points cannot be written, as %s", out->n_failed,
			w->first_dropped);
	return 0;
}

/* ---- answers ---- */

static uint32_t remote_write_accepted(struct component *c, const struct http_reply *reply,
				      struct err *err)
{
	(void)reply;
	(void)err;
	remote_write_taken(&COMPONENT_STATE(c, struct remote_write_state)->encoder);
	return 0;
}

static bool says(const struct err *err, const char *words)
{
	return strstr(err->msg, words) != NULL;
}

/* Prometheus, Mimir and Thanos say it in words only. */
static bool is_out_of_order(const struct err *err)
{
	return says(err, "out of order") || says(err, "out-of-order") ||
	       says(err, "out of bounds") || says(err, "too old") || says(err, "too-old") ||
	       says(err, "duplicate sample") || says(err, "duplicate-timestamp");
}

static bool smaller_bodies(struct component *c, const struct http_payload *refused)
{
	struct remote_write *w = &COMPONENT_STATE(c, struct remote_write_state)->encoder;
	size_t to = MIN(w->o.max_bytes, refused->own.n) / 2;

	if (to < BODY_MIN)
		return false;
	log_warn("too large for the next hop, later requests are smaller; see max_batch_size_bytes",
		 "exporter", c->id, "bytes", LOG_NUM(refused->own.n));
	w->o.max_bytes = to;
	return true;
}

static bool remote_write_shrink(struct component *c, const struct http_payload *refused,
				enum send_result why, const struct err *err)
{
	struct remote_write_state *st = COMPONENT_STATE(c, struct remote_write_state);

	if (refused->n_items < 2)
		return false;
	if (why == SEND_TOO_LARGE)
		return smaller_bodies(c, refused);
	if (!is_out_of_order(err) || st->n_splits == SPLITS_MAX)
		return false;
	st->n_splits++;
	st->encoder.o.max_points = refused->n_items / 2;
	return true;
}

/* Points that could not be told, once it is settled that they were in the batch. */
static void count_drops(struct component *c, const struct http_payload *p)
{
	struct remote_write_state *st = COMPONENT_STATE(c, struct remote_write_state);

	for (int i = 0; i < REMOTE_WRITE_DROPS; i++)
		atomic_fetch_add(&st->dropped[i], st->encoder.dropped[i]);
	log_warn("data points that remote write cannot carry were dropped", "exporter", c->id,
		 "points", LOG_NUM(p->n_failed), "delta",
		 LOG_NUM(st->encoder.dropped[REMOTE_WRITE_DELTA]), "first",
		 st->encoder.first_dropped);
}

static void remote_write_settled(struct component *c, const struct http_payload *p)
{
	struct remote_write_state *st = COMPONENT_STATE(c, struct remote_write_state);
	struct remote_write_options *o = &st->encoder.o;

	if (p->n_failed > 0)
		count_drops(c, p);
	/* What was wrong is behind us, perhaps. */
	o->max_points = p->has_more && o->max_points < UINT32_MAX / 2 ? 2 * o->max_points : 0;
	if (!p->has_more)
		st->n_splits = 0;
}

static void remote_write_lost(struct component *c, const struct http_payload *refused,
			      const struct err *err)
{
	struct remote_write_state *st = COMPONENT_STATE(c, struct remote_write_state);

	atomic_fetch_add(
		&st->dropped[is_out_of_order(err) ? DROPPED_OUT_OF_ORDER : DROPPED_REFUSED],
		refused->n_items);
}

/* ---- life ---- */

/* External labels under names that Prometheus takes. */
static void add_external(struct remote_write_state *st, const struct strmap *map,
			 struct remote_write_options *o)
{
	struct buf name = BUF_INIT;

	st->external = xcalloc(map->n + 1, sizeof(*st->external));
	for (size_t i = 0; i < map->n; i++) {
		struct bytes key = bytes_str(map->items[i].name);

		buf_reset(&name);
		if (prometheus_label_name(&o->naming, key, &name) == 0)
			st->external[o->n_external++] = (struct remote_write_external){
				.name = { arena_dup(&st->arena, name.p, name.n), name.n },
				.value = bytes_str(map->items[i].value),
			};
	}
	o->external = st->external;
	buf_fini(&name);
}

static int remote_write_start(struct component *c, struct err *err)
{
	const struct remote_write_config *conf = COMPONENT_CONFIG(c, struct remote_write_config);
	struct remote_write_state *st = COMPONENT_STATE(c, struct remote_write_state);
	struct remote_write_options o = {
		.naming = prometheus_options_naming(&conf->naming),
		.target_info = conf->target_info,
		.metadata = conf->send_metadata,
		.resource_labels = conf->naming.resource_to_telemetry,
		.scope_labels = !conf->disable_scope_info,
		.max_bytes = conf->max_batch_size_bytes,
	};

	add_external(st, &conf->external_labels, &o);
	remote_write_init(&st->encoder, &o);
	st->sender =
		http_sender_new(&(struct http_sender_settings){ .component = c,
								.client = &conf->client,
								.retry = &conf->retry,
								.queue = &conf->queue,
								.in_order = true,
								.retries_5xx = true,
								.encode = remote_write_body,
								.accepted = remote_write_accepted,
								.shrink = remote_write_shrink,
								.settled = remote_write_settled,
								.lost = remote_write_lost },
				err);
	return st->sender != NULL ? 0 : -1;
}

static void remote_write_metrics(struct component *c, struct buf *out)
{
	static const char name[] = "spanmill_remote_write_dropped_points";
	struct remote_write_state *st = COMPONENT_STATE(c, struct remote_write_state);

	http_sender_metrics(c, out);
	telemetry_head(out, name, "counter", "Data points that were not written, by reason.");
	for (int i = 0; i < DROPPED_MAX; i++) {
		const char *reason = i == DROPPED_OUT_OF_ORDER ? "out_of_order"
				     : i == DROPPED_REFUSED    ? "refused"
							       : remote_write_drop_name(i);

		telemetry_sample(out, name, (double)atomic_load(&st->dropped[i]), "exporter", c->id,
				 "reason", reason, NULL);
	}
}

static void remote_write_shutdown(struct component *c)
{
	struct remote_write_state *st = COMPONENT_STATE(c, struct remote_write_state);

	http_sender_free(st->sender);
	st->sender = NULL;
	remote_write_fini(&st->encoder);
	free(st->external);
	st->external = NULL;
	arena_fini(&st->arena);
}

/* Two may not write one series, in whatever order. */
const struct component_type exporter_prometheusremotewrite = {
	.name = "prometheusremotewrite",
	.alias = "prometheus_remote_write",
	.kind = KIND_EXPORTER,
	.summary = "Writes metrics with exemplars to Prometheus and what takes its remote write.",
	.stability = STABILITY_ALPHA,
	.signals = SIGNAL_METRICS,
	.config_size = sizeof(struct remote_write_config),
	.state_size = sizeof(struct remote_write_state),
	.options = remote_write_options,
	.validate = remote_write_validate,
	.start = remote_write_start,
	.consume = http_sender_consume,
	.drain = http_sender_drain,
	.is_drained = http_sender_is_drained,
	.shutdown = remote_write_shutdown,
	.is_ready = http_sender_is_ready,
	.metrics = remote_write_metrics,
};
