/* SPDX-License-Identifier: Apache-2.0
 *
 * otlp.c - receiver of OTLP over gRPC and HTTP: options, life, and what is answered.
 *
 *	otlp_grpc.c  TraceService/Export --\
 *	                                    +--> batch_from_request -> ingest_submit -> answer
 *	otlp_http.c  POST /v1/traces ------/
 *
 * Logs and metrics go the same way, counted and not looked into. Only signals that a pipeline takes
 * are served.
 * OWNERSHIP, THREADS: a server per loop and protocol; a request belongs to its loop from the socket
 * to the answer.
 * LIMITS: the server blocks' sizes and times; memory by the budget, before a body is read.
 * SPEC: OTLP 1.9; INTERFACE "Receivers' answers"; the Collector's keys and texts.
 */
#include "receivers/otlp/otlp_internal.h"

#include "base/str.h"
#include "pipeline/conf/error.h"
#include "wire/json_writer.h"
#include "wire/pb.h"

#define C struct otlp_http_config
static const struct option otlp_http_options[] = {
	OPT_INCLUDE(C, server, struct http_server_options, http_server_option_table),
	OPT_STR(C, "traces_url_path", traces_path, "/v1/traces", "Path that takes traces."),
	OPT_STR(C, "metrics_url_path", metrics_path, "/v1/metrics", "Path that takes metrics."),
	OPT_STR(C, "logs_url_path", logs_path, "/v1/logs", "Path that takes logs."), OPT_END
};
#undef C

#define C struct otlp_config
static const struct option otlp_options[] = {
	OPT_SECTION(C, "protocols.grpc", grpc_on, grpc, struct grpc_server_options,
		    grpc_server_option_table, "off", "OTLP over gRPC; on when the key is there."),
	OPT_DEFAULT("protocols.grpc.endpoint", "localhost:4317"),
	OPT_SECTION(C, "protocols.http", http_on, http, struct otlp_http_config, otlp_http_options,
		    "off", "OTLP over HTTP, protobuf and JSON; on when the key is there."),
	OPT_DEFAULT("protocols.http.endpoint", "localhost:4318"), OPT_END
};
#undef C

static void check_paths(const struct otlp_http_config *h, const struct conf_node *node,
			struct conf_errors *errs, const char *path)
{
	const struct {
		const char *key, *value, *like;
	} paths[] = {
		{ "protocols.http.traces_url_path", h->traces_path, "for example /v1/traces" },
		{ "protocols.http.metrics_url_path", h->metrics_path, "for example /v1/metrics" },
		{ "protocols.http.logs_url_path", h->logs_path, "for example /v1/logs" },
	};

	for (size_t i = 0; i < COUNT_OF(paths); i++)
		if (paths[i].value[0] == '\0')
			conf_error_at(errs, node, path, paths[i].key, paths[i].like,
				      "must not be empty");
}

static void otlp_validate(void *config, const struct conf_node *node, struct conf_errors *errs,
			  const char *path)
{
	const struct otlp_config *conf = config;

	if (!conf->grpc_on && !conf->http_on)
		conf_error_at(errs, node, path, "protocols",
			      "for example protocols: {grpc: , http: }",
			      "must specify at least one protocol when using the OTLP receiver");
	if (conf->grpc_on)
		grpc_listener_check(&conf->grpc, node, "protocols.grpc.", errs, path);
	if (conf->http_on)
		http_listener_check(&conf->http.server, node, "protocols.http.", errs, path);
	if (conf->http_on)
		check_paths(&conf->http, node, errs, path);
}

static void make_counters(struct component *c, const char *transport,
			  struct transport_counters *count[OTLP_SIGNALS])
{
	for (int g = 0; g < OTLP_SIGNALS; g++)
		if (component_emits(c, (enum otlp_signal)g))
			count[g] = telemetry_transport_of(c, transport, (enum otlp_signal)g);
}

static int otlp_start(struct component *c, struct err *err)
{
	const struct otlp_config *conf = COMPONENT_CONFIG(c, struct otlp_config);
	struct otlp_state *st = COMPONENT_STATE(c, struct otlp_state);

	if (conf->grpc_on) {
		make_counters(c, "grpc", st->grpc_count);
		st->grpc = otlp_grpc_start(c, err);
		if (st->grpc == NULL)
			return -1;
	}
	if (conf->http_on) {
		make_counters(c, "http", st->http_count);
		st->http = otlp_http_start(c, err);
		if (st->http == NULL)
			return -1;
	}
	return 0;
}

static void otlp_drain(struct component *c)
{
	struct otlp_state *st = COMPONENT_STATE(c, struct otlp_state);

	grpc_listener_drain(st->grpc);
	otlp_http_drain(st->http);
}

static int otlp_is_drained(struct component *c)
{
	struct otlp_state *st = COMPONENT_STATE(c, struct otlp_state);

	return grpc_listener_is_drained(st->grpc) && otlp_http_is_drained(st->http);
}

static void otlp_shutdown(struct component *c)
{
	struct otlp_state *st = COMPONENT_STATE(c, struct otlp_state);

	grpc_listener_free(st->grpc);
	otlp_http_free(st->http);
	st->grpc = NULL;
	st->http = NULL;
}

/* ---- messages ---- */

/* Messages may quote what a client sent, cut anywhere; a protobuf string must be UTF-8. */
static void put_text(struct buf *out, uint32_t number, const char *text)
{
	size_t from = out->n, n = strlen(text);

	pb_put_str(out, number, text);
	if (out->n == from || str_is_utf8(bytes_str(text)))
		return;
	for (size_t i = out->n - n; i < out->n; i++)
		if (out->p[i] >= 0x80)
			out->p[i] = '?';
}

static void response_json(enum otlp_signal signal, const struct ingest_answer *a, struct buf *out)
{
	static const char *const keys[] = { [OTLP_TRACES] = "rejectedSpans",
					    [OTLP_METRICS] = "rejectedDataPoints",
					    [OTLP_LOGS] = "rejectedLogRecords" };
	struct json_writer w = JSON_WRITER(out);

	json_writer_object(&w);
	if (a->n_rejected > 0) {
		json_writer_key(&w, "partialSuccess");
		json_writer_object(&w);
		json_writer_key(&w, keys[signal]);
		json_writer_u64_str(&w, a->n_rejected);
		json_writer_key(&w, "errorMessage");
		json_writer_str(&w, a->message);
		json_writer_object_end(&w);
	}
	json_writer_object_end(&w);
}

void otlp_response_encode(enum otlp_signal signal, const struct ingest_answer *a, bool json,
			  struct buf *out)
{
	size_t mark;

	if (json) {
		response_json(signal, a, out);
		return;
	}
	if (a->n_rejected == 0)
		return;
	mark = pb_begin(out, 1);
	pb_put_uint(out, 1, a->n_rejected);
	put_text(out, 2, a->message);
	pb_end(out, mark);
}

void otlp_status_encode(enum grpc_status code, const char *message, bool json, struct buf *out)
{
	struct json_writer w = JSON_WRITER(out);

	if (!json) {
		pb_put_uint(out, 1, code);
		put_text(out, 2, message);
		return;
	}
	json_writer_object(&w);
	json_writer_key(&w, "code");
	json_writer_u64(&w, code);
	json_writer_key(&w, "message");
	json_writer_str(&w, message);
	json_writer_object_end(&w);
}

const struct component_type receiver_otlp = {
	.name = "otlp",
	.kind = KIND_RECEIVER,
	.summary = "Takes OTLP over gRPC and over HTTP, as protobuf or JSON.",
	.stability = STABILITY_ALPHA,
	.signals = SIGNAL_ALL,
	.config_size = sizeof(struct otlp_config),
	.state_size = sizeof(struct otlp_state),
	.options = otlp_options,
	.validate = otlp_validate,
	.may_overlap = component_overlaps,
	.start = otlp_start,
	.drain = otlp_drain,
	.is_drained = otlp_is_drained,
	.shutdown = otlp_shutdown,
};
