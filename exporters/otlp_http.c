/* SPDX-License-Identifier: Apache-2.0
 *
 * otlp_http.c - exporter that sends traces, metrics and logs to the next hop as OTLP over HTTP.
 *
 * consume -> http_sender (pipeline/send/http.h): queue, retry, compression, verdict by status.
 * `encoding: proto` sends the batch's own bytes, `json` writes OTLP/JSON from them on the loop. One
 * request is one batch of one tenant, which travels as X-Scope-OrgID unless it is the default
 * tenant or `headers` names one.
 * LIMITS: sending_queue; max_message_bytes.
 * SPEC: OTLP/HTTP (paths, statuses, partial_success); the Collector's otlp_http keys.
 */
#include "base/mem.h"
#include "base/str.h"
#include "pipeline/conf/error.h"
#include "pipeline/send/http.h"
#include "wire/otlp_answer.h"
#include "wire/otlp_json_encode.h"

#include <strings.h>

enum encoding { ENCODING_PROTO, ENCODING_JSON };

struct otlp_http_config {
	struct http_client_options client;
	const char *traces_endpoint, *metrics_endpoint, *logs_endpoint;
	int encoding; /* enum encoding */
	struct retry_options retry;
	struct queue_options queue;
	uint64_t max_message_bytes;
};

struct otlp_http_state {
	struct http_sender *sender; /* first: pipeline/send/http.h */
	char *url;                  /* of the signal that this instance sends */
};

static const struct option_choice encodings[] = {
	{ "proto", ENCODING_PROTO },
	{ "json", ENCODING_JSON },
	{ NULL, 0 },
};

#define C struct otlp_http_config
static const struct option otlp_http_options[] = {
	OPT_INCLUDE(C, client, struct http_client_options, http_client_option_table),
	OPT_DEFAULT("write_buffer_size", "512KiB"),
	OPT_STR(C, "traces_endpoint", traces_endpoint, NULL,
		"URL for traces; empty: endpoint and /v1/traces."),
	OPT_STR(C, "metrics_endpoint", metrics_endpoint, NULL,
		"URL for metrics; empty: endpoint and /v1/metrics."),
	OPT_STR(C, "logs_endpoint", logs_endpoint, NULL,
		"URL for logs; empty: endpoint and /v1/logs."),
	OPT_ENUM(C, "encoding", encoding, encodings, "proto", "Of bodies: proto or json."),
	OPT_TABLE(C, "retry_on_failure", retry, struct retry_options, retry_option_table,
		  "Attempts after a retryable failure."),
	OPT_SECTION(C, "sending_queue", queue.enabled, queue, struct queue_options,
		    queue_option_table, "on", "What waits to be sent."),
	OPT_BYTES(C, "max_message_bytes", max_message_bytes, "4000000", 0, INT64_C(1) << 30,
		  "Larger batches are sent in parts, size as uncompressed protobuf. 0: never."),
	OPT_END
};
#undef C

static void otlp_http_validate(void *config, const struct conf_node *node, struct conf_errors *errs,
			       const char *path)
{
	const struct otlp_http_config *conf = config;

	if (conf->client.endpoint[0] == '\0' && conf->traces_endpoint[0] == '\0' &&
	    conf->metrics_endpoint[0] == '\0' && conf->logs_endpoint[0] == '\0')
		conf_error_at(errs, node, path, "endpoint", "add endpoint: http://host:4318",
			      "at least one endpoint must be specified");
	http_sender_check_url(conf->client.endpoint, "endpoint", node, errs, path);
	http_sender_check_url(conf->traces_endpoint, "traces_endpoint", node, errs, path);
	http_sender_check_url(conf->metrics_endpoint, "metrics_endpoint", node, errs, path);
	http_sender_check_url(conf->logs_endpoint, "logs_endpoint", node, errs, path);
	http_sender_check(&conf->client, &conf->queue, node, errs, path);
}

/* ---- bodies ---- */

static int encode_json(const struct send_request *r, struct buf *out, struct err *err)
{
	struct buf joined = BUF_INIT;
	struct bytes whole;
	int ret;

	for (size_t i = 0; i < r->encoding.n_pieces; i++)
		buf_add_bytes(&joined, r->encoding.pieces[i]);
	whole = buf_bytes(&joined);
	ret = otlp_json_encode_items(r->batch->signal, &whole, 1, OTLP_JSON, 0, out, err);
	buf_fini(&joined);
	return ret;
}

static int otlp_http_encode(struct component *c, const struct send_request *r,
			    struct http_payload *out, struct err *err)
{
	const struct otlp_http_config *conf = COMPONENT_CONFIG(c, struct otlp_http_config);

	out->url = COMPONENT_STATE(c, struct otlp_http_state)->url;
	if (conf->encoding == ENCODING_JSON) {
		out->content_type = "application/json";
		return encode_json(r, &out->own, err);
	}
	out->content_type = "application/x-protobuf";
	out->pieces = r->encoding.pieces;
	out->n_pieces = r->encoding.n_pieces;
	return 0;
}

/* ---- answers ---- */

static bool is_type(const struct http_reply *reply, const char *type)
{
	const char *is = http_reply_header(reply, "Content-Type");
	size_t n = strlen(type);

	return is != NULL && strncasecmp(is, type, n) == 0 &&
	       (is[n] == '\0' || is[n] == ';' || is[n] == ' ');
}

static uint32_t otlp_http_accepted(struct component *c, const struct http_reply *reply,
				   struct err *err)
{
	bool is_json = is_type(reply, "application/json");
	struct otlp_partial_success partial;

	(void)c;
	if (!is_json && !is_type(reply, "application/x-protobuf"))
		return 0;
	otlp_answer_partial(buf_bytes(&reply->body), is_json, &partial);
	if (partial.n_rejected > 0 || partial.message[0] != '\0')
		err_set(err, ERR_INVALID, "the next hop refused %llu items: %s",
			(unsigned long long)partial.n_rejected, partial.message);
	return (uint32_t)MIN(partial.n_rejected, (uint64_t)UINT32_MAX);
}

static void otlp_http_explain(struct component *c, const struct http_reply *reply, struct buf *out)
{
	bool is_json = is_type(reply, "application/json");

	(void)c;
	if (is_json || is_type(reply, "application/x-protobuf"))
		otlp_answer_status_message(buf_bytes(&reply->body), is_json, out);
}

/* ---- life ---- */

/* NULL: neither `endpoint` nor the signal's own says where. */
static char *url_of(const struct otlp_http_config *conf, enum otlp_signal signal)
{
	const struct {
		const char *own, *path;
	} urls[] = {
		[OTLP_TRACES] = { conf->traces_endpoint, "/v1/traces" },
		[OTLP_METRICS] = { conf->metrics_endpoint, "/v1/metrics" },
		[OTLP_LOGS] = { conf->logs_endpoint, "/v1/logs" },
	};
	const char *endpoint = conf->client.endpoint;
	size_t n = strlen(endpoint);

	if (urls[signal].own[0] != '\0')
		return xstrdup(urls[signal].own);
	while (n > 0 && endpoint[n - 1] == '/')
		n--;
	return n > 0 ? xasprintf("%.*s%s", (int)n, endpoint, urls[signal].path) : NULL;
}

static int otlp_http_start(struct component *c, struct err *err)
{
	const struct otlp_http_config *conf = COMPONENT_CONFIG(c, struct otlp_http_config);
	struct otlp_http_state *st = COMPONENT_STATE(c, struct otlp_http_state);

	static const char *const keys[] = { [OTLP_TRACES] = "traces_endpoint",
					    [OTLP_METRICS] = "metrics_endpoint",
					    [OTLP_LOGS] = "logs_endpoint" };

	st->url = url_of(conf, c->signal);
	if (st->url == NULL)
		return err_set(err, ERR_CONFIG,
			       "neither endpoint nor %s is set: set one, or take the exporter out "
			       "of that signal's pipeline",
			       keys[c->signal]);
	st->sender = http_sender_new(
		&(struct http_sender_settings){ .component = c,
						.client = &conf->client,
						.retry = &conf->retry,
						.queue = &conf->queue,
						.max_request_bytes = conf->max_message_bytes,
						.encode = otlp_http_encode,
						.accepted = otlp_http_accepted,
						.explain = otlp_http_explain },
		err);
	return st->sender != NULL ? 0 : -1;
}

static void otlp_http_shutdown(struct component *c)
{
	struct otlp_http_state *st = COMPONENT_STATE(c, struct otlp_http_state);

	http_sender_free(st->sender);
	st->sender = NULL;
	free(st->url);
	st->url = NULL;
}

/* Two may send at a time; two may not have one log. */
static bool may_overlap(const void *config)
{
	return ((const struct otlp_http_config *)config)->queue.storage[0] == '\0';
}

const struct component_type exporter_otlp_http = {
	.name = "otlp_http",
	.alias = "otlphttp",
	.kind = KIND_EXPORTER,
	.summary = "Sends traces, metrics and logs to the next hop as OTLP over HTTP.",
	.stability = STABILITY_ALPHA,
	.signals = SIGNAL_ALL,
	.config_size = sizeof(struct otlp_http_config),
	.state_size = sizeof(struct otlp_http_state),
	.options = otlp_http_options,
	.validate = otlp_http_validate,
	.may_overlap = may_overlap,
	.start = otlp_http_start,
	.consume = http_sender_consume,
	.drain = http_sender_drain,
	.is_drained = http_sender_is_drained,
	.shutdown = otlp_http_shutdown,
	.is_ready = http_sender_is_ready,
	.metrics = http_sender_metrics,
};
