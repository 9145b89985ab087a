/* SPDX-License-Identifier: Apache-2.0
 *
 * zipkin.c - exporter that posts traces to a Zipkin server (or another hop that speaks it) as v2
 * JSON or protobuf.
 *
 * consume -> http_sender (pipeline/send/http.h): queue, retry, compression, verdict by status.
 * The list of spans is written on the sender's loop, by one encoder that keeps its memory. The
 * endpoint is the whole URL, as in the Collector.
 * LIMITS: sending_queue; max_message_bytes.
 * SPEC: zipkin2-api.yaml, zipkin.proto; docs/formats/zipkin.md ("OTLP to Zipkin"); the Collector's
 * zipkin exporter's keys.
 */
#include "pipeline/conf/error.h"
#include "pipeline/send/http.h"
#include "wire/zipkin_encode.h"

struct zipkin_config {
	struct http_client_options client;
	int form; /* enum zipkin_form */
	const char *default_service_name;
	struct retry_options retry;
	struct queue_options queue;
	uint64_t max_message_bytes;
};

struct zipkin_state {
	struct http_sender *sender;    /* first: pipeline/send/http.h */
	struct zipkin_encoder encoder; /* the sender's loop's */
};

static const struct option_choice forms[] = {
	{ "json", ZIPKIN_JSON },
	{ "proto", ZIPKIN_PROTO },
	{ NULL, 0 },
};

#define C struct zipkin_config
static const struct option zipkin_options[] = {
	OPT_INCLUDE(C, client, struct http_client_options, http_client_option_table),
	OPT_REQUIRE("endpoint"),
	OPT_DEFAULT("timeout", "5s"),
	OPT_DEFAULT("compression", "none"),
	OPT_ENUM(C, "format", form, forms, "json", "Of bodies: json or proto."),
	OPT_STR(C, "default_service_name", default_service_name, NULL,
		"Name of the local endpoint when the resource has no service.name; empty: none."),
	OPT_TABLE(C, "retry_on_failure", retry, struct retry_options, retry_option_table,
		  "Attempts after a retryable failure."),
	OPT_SECTION(C, "sending_queue", queue.enabled, queue, struct queue_options,
		    queue_option_table, "on", "What waits to be sent."),
	OPT_BYTES(C, "max_message_bytes", max_message_bytes, "2000000", 0, INT64_C(1) << 30,
		  "Larger batches are sent in parts, size as uncompressed OTLP (Zipkin's JSON is "
		  "about twice that). 0: never."),
	OPT_END
};
#undef C

static void zipkin_validate(void *config, const struct conf_node *node, struct conf_errors *errs,
			    const char *path)
{
	const struct zipkin_config *conf = config;

	http_sender_check_url(conf->client.endpoint, "endpoint", node, errs, path);
	http_sender_check(&conf->client, &conf->queue, node, errs, path);
}

static int encode(struct component *c, const struct send_request *r, struct http_payload *out,
		  struct err *err)
{
	const struct zipkin_config *conf = COMPONENT_CONFIG(c, struct zipkin_config);
	struct zipkin_state *st = COMPONENT_STATE(c, struct zipkin_state);

	(void)err;
	out->url = conf->client.endpoint;
	out->content_type =
		conf->form == ZIPKIN_JSON ? "application/json" : "application/x-protobuf";
	zipkin_encode_list(&st->encoder, &r->batch->tables, 0, 0, &out->own);
	return 0;
}

/* ---- life ---- */

static int zipkin_start(struct component *c, struct err *err)
{
	const struct zipkin_config *conf = COMPONENT_CONFIG(c, struct zipkin_config);
	struct zipkin_state *st = COMPONENT_STATE(c, struct zipkin_state);

	zipkin_encoder_init(&st->encoder, (enum zipkin_form)conf->form, conf->default_service_name);
	st->sender = http_sender_new(
		&(struct http_sender_settings){ .component = c,
						.client = &conf->client,
						.retry = &conf->retry,
						.queue = &conf->queue,
						.max_request_bytes = conf->max_message_bytes,
						.encode = encode },
		err);
	return st->sender != NULL ? 0 : -1;
}

static void zipkin_shutdown(struct component *c)
{
	struct zipkin_state *st = COMPONENT_STATE(c, struct zipkin_state);

	http_sender_free(st->sender);
	st->sender = NULL;
	zipkin_encoder_fini(&st->encoder);
	st->encoder = (struct zipkin_encoder){ .scope = UINT32_MAX };
}

/* Two may send at a time; two may not have one log. */
static bool may_overlap(const void *config)
{
	return ((const struct zipkin_config *)config)->queue.storage[0] == '\0';
}

const struct component_type exporter_zipkin = {
	.name = "zipkin",
	.kind = KIND_EXPORTER,
	.summary = "Posts traces to a Zipkin server as v2 JSON or protobuf.",
	.stability = STABILITY_ALPHA,
	.signals = SIGNAL_TRACES,
	.config_size = sizeof(struct zipkin_config),
	.state_size = sizeof(struct zipkin_state),
	.options = zipkin_options,
	.validate = zipkin_validate,
	.may_overlap = may_overlap,
	.start = zipkin_start,
	.consume = http_sender_consume,
	.drain = http_sender_drain,
	.is_drained = http_sender_is_drained,
	.shutdown = zipkin_shutdown,
	.is_ready = http_sender_is_ready,
	.metrics = http_sender_metrics,
};
