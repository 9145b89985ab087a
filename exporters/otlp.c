/* SPDX-License-Identifier: Apache-2.0
 *
 * otlp.c - exporter that sends traces, metrics and logs to the next hop as OTLP over gRPC.
 *
 * consume -> sending queue (pipeline/send/queue.h) -> grpc_client call; nothing is copied but by
 * the compression. One call is one batch of one tenant, which travels as X-Scope-OrgID unless it is
 * the default tenant or `headers` names one.
 * OWNERSHIP, THREADS: the client and all calls belong to one of the service's loops, chosen in
 * turn.
 * LIMITS: sending_queue; max_message_bytes.
 * SPEC: OTLP 1.9 (retryable codes, RetryInfo, partial_success); the Collector's otlp_grpc keys.
 */
#include "base/clock.h"
#include "base/mem.h"
#include "base/str.h"
#include "net/grpc_client.h"
#include "pipeline/auth.h"
#include "pipeline/conf/error.h"
#include "pipeline/send/queue.h"
#include "wire/otlp_answer.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>

#define SERVICE(name) "/opentelemetry.proto.collector." name "/Export"

static const char *const export_paths[] = {
	[OTLP_TRACES] = SERVICE("trace.v1.TraceService"),
	[OTLP_METRICS] = SERVICE("metrics.v1.MetricsService"),
	[OTLP_LOGS] = SERVICE("logs.v1.LogsService"),
};

enum { BACKOFF_MIN_MS = 100, BACKOFF_MAX_MS = 10000 };

struct otlp_config {
	struct grpc_client_options client;
	int64_t timeout_ns;
	struct retry_options retry;
	struct queue_options queue;
	uint64_t max_message_bytes;
};

struct otlp_state {
	struct loop *loop;
	struct tls *tls;
	struct grpc_client *client;
	struct sending_queue *queue;
	const struct authenticator *auth; /* whose credentials are sent, or NULL */
	struct grpc_header *headers;      /* configured, and room for the tenant and credentials */
	size_t n_headers;
	bool has_tenant; /* `headers` names one */
	struct err err;  /* of what runs on the loop for start */
};

#define C struct otlp_config
static const struct option otlp_options[] = {
	OPT_INCLUDE(C, client, struct grpc_client_options, grpc_client_option_table),
	OPT_REQUIRE("endpoint"),
	OPT_DURATION(C, "timeout", timeout_ns, "5s", "Of one attempt; 0: none."),
	OPT_TABLE(C, "retry_on_failure", retry, struct retry_options, retry_option_table,
		  "Attempts after a retryable failure."),
	OPT_SECTION(C, "sending_queue", queue.enabled, queue, struct queue_options,
		    queue_option_table, "on", "What waits to be sent."),
	OPT_BYTES(C, "max_message_bytes", max_message_bytes, "4000000", 0, INT64_C(1) << 30,
		  "Larger batches are sent in parts, uncompressed size; most gRPC servers take 4 "
		  "MiB. 0: never."),
	OPT_END
};
#undef C

/* ---- options ---- */

/* The endpoint without its scheme; *plain and *secure say what the scheme asks for. */
static const char *strip_scheme(const char *endpoint, bool *plain, bool *secure)
{
	static const char *const schemes[] = { "http://", "https://", "dns:///", "dns://",
					       "passthrough:///" };

	*plain = str_has_prefix(endpoint, "http://");
	*secure = str_has_prefix(endpoint, "https://");
	for (size_t i = 0; i < COUNT_OF(schemes); i++)
		if (str_has_prefix(endpoint, schemes[i]))
			return endpoint + strlen(schemes[i]);
	return endpoint;
}

static void check_endpoint(const struct otlp_config *conf, const struct conf_node *node,
			   struct conf_errors *errs, const char *path)
{
	const char *endpoint = conf->client.endpoint;
	bool plain, secure;

	if (endpoint[0] == '\0' || str_has_prefix(endpoint, "unix:"))
		return;
	option_blocks_check_endpoint(strip_scheme(endpoint, &plain, &secure), false, node,
				     "endpoint", errs, path);
}

static void otlp_validate(void *config, const struct conf_node *node, struct conf_errors *errs,
			  const char *path)
{
	const struct otlp_config *conf = config;
	const struct tls_common_options *t = &conf->client.tls.common;

	check_endpoint(conf, node, errs, path);
	option_blocks_check_queue(&conf->queue, node, "sending_queue", errs, path);
	option_blocks_check_tls(t, node, "tls", errs, path);
	option_blocks_check_tls_names(t, node, "tls", errs, path);
}

/* ---- answers ---- */

static uint32_t read_partial_success(struct bytes response, struct err *err)
{
	struct otlp_partial_success partial;

	otlp_answer_partial(response, false, &partial);
	if (partial.n_rejected > 0 || partial.message[0] != '\0')
		err_set(err, ERR_INVALID, "the next hop refused %llu items: %s",
			(unsigned long long)partial.n_rejected, partial.message);
	return (uint32_t)MIN(partial.n_rejected, (uint64_t)UINT32_MAX);
}

static void accepted(struct send_request *r, const struct grpc_answer *a)
{
	struct component *c = r->exporter_data;
	struct err err = ERR_INIT;
	uint32_t n_rejected = read_partial_success(a->response, &err);

	if (err.kind != ERR_NONE)
		log_warn("Partial success response", "exporter", c->id, "message", err.msg,
			 "dropped_spans", LOG_NUM(n_rejected));
	sending_queue_done(r, SEND_OK, n_rejected, err.kind != ERR_NONE ? &err : NULL);
}

/* A message over the limit of the next hop, or of a proxy before it: OTLP says RESOURCE_EXHAUSTED
 * without RetryInfo. A small message has to be named too large, because that status may also mean
 * a quota. The words are those of grpc-go, grpc-core, grpc-java, .NET, tonic (which says
 * OUT_OF_RANGE) and of HTTP proxies. */
static bool is_too_large(const struct grpc_answer *a, size_t n_bytes)
{
	static const char *const words[] = {
		"larger than", "exceeds maximum size",      "exceeds the maximum", "too large",
		"too big",     "unexpected HTTP status 413"
	};

	if (a->has_retry_info || (a->status != GRPC_RESOURCE_EXHAUSTED &&
				  a->status != GRPC_OUT_OF_RANGE && a->status != GRPC_UNKNOWN))
		return false;
	for (size_t i = 0; i < COUNT_OF(words); i++)
		if (strcasestr(a->message, words[i]) != NULL)
			return true;
	return a->status == GRPC_RESOURCE_EXHAUSTED && n_bytes > MIB;
}

static void failed(struct send_request *r, const struct grpc_answer *a)
{
	enum send_result result = is_too_large(a, r->encoding.n_bytes) ? SEND_TOO_LARGE
				  : a->retryable                       ? SEND_RETRYABLE
								       : SEND_PERMANENT;
	struct err err = ERR_INIT;

	err_set(&err, result == SEND_RETRYABLE ? ERR_UNAVAILABLE : ERR_INVALID,
		"rpc error: code = %s desc = %s", grpc_status_name(a->status), a->message);
	err.retry_after_ms = a->retry_after_ms;
	sending_queue_done(r, result, 0, &err);
}

/* ---- sending ---- */

/* The call under way; in send_request.exporter_data. */
struct call {
	struct component *component;
	struct send_request *request;
	struct grpc_client_call *handle;
};

static void answered(const struct grpc_answer *a, void *arg)
{
	struct call *call = arg;
	struct send_request *r = call->request;

	r->exporter_data = call->component;
	free(call);
	if (a->status == GRPC_OK)
		accepted(r, a);
	else
		failed(r, a);
}

static enum content_coding coding_of(const struct grpc_client_options *o)
{
	switch (o->compression) {
	case COMPRESSION_GZIP:
		return CONTENT_GZIP;
	case COMPRESSION_ZSTD:
		return CONTENT_ZSTD;
	case COMPRESSION_SNAPPY:
		return CONTENT_SNAPPY_FRAMED; /* what gRPC's other ends mean by the name */
	default:
		return CONTENT_IDENTITY;
	}
}

static void otlp_send(struct component *c, struct send_request *r)
{
	const struct otlp_config *conf = COMPONENT_CONFIG(c, struct otlp_config);
	struct otlp_state *st = COMPONENT_STATE(c, struct otlp_state);
	struct call *call = xcalloc(1, sizeof(*call));
	struct buf credentials = BUF_INIT;
	struct err err = ERR_INIT;
	struct grpc_request request = {
		.path = export_paths[c->signal],
		.headers = st->headers,
		.n_headers = st->n_headers,
		.pieces = r->encoding.pieces,
		.n_pieces = r->encoding.n_pieces,
		.coding = coding_of(&conf->client),
		.deadline_ns = r->deadline_ns,
	};

	if (!st->has_tenant && strcmp(r->batch->tenant, TENANT_DEFAULT) != 0)
		st->headers[request.n_headers++] =
			(struct grpc_header){ "x-scope-orgid", bytes_str(r->batch->tenant) };
	if (st->auth != NULL && st->auth->credentials(st->auth->arg, &credentials, &err) < 0) {
		free(call);
		buf_fini(&credentials);
		sending_queue_done(r, SEND_RETRYABLE, 0, &err);
		return;
	}
	if (st->auth != NULL)
		st->headers[request.n_headers++] =
			(struct grpc_header){ st->auth->client_header, buf_bytes(&credentials) };
	*call = (struct call){ .component = c, .request = r };
	r->exporter_data = call;
	call->handle = grpc_client_start(st->client, &request, answered, call);
	if (credentials.p != NULL)
		explicit_bzero(credentials.p, credentials.n);
	buf_fini(&credentials);
}

static void otlp_cancel(struct component *c, struct send_request *r)
{
	struct call *call = r->exporter_data;

	(void)c;
	grpc_client_cancel(call->handle);
}

static void otlp_consume(struct component *c, struct batch *b)
{
	sending_queue_consume(COMPONENT_STATE(c, struct otlp_state)->queue, b);
}

/* ---- life ---- */

static int make_tls(struct component *c, const struct grpc_client_options *o, struct err *err)
{
	struct otlp_state *st = COMPONENT_STATE(c, struct otlp_state);
	const struct tls_common_options *t = &o->tls.common;
	bool plain, secure;

	strip_scheme(o->endpoint, &plain, &secure);
	if (plain || (o->tls.insecure && !secure))
		return 0;
	st->tls = tls_new_client(
		&(struct tls_settings){ .what = c->id,
					.ca_file = t->ca_file,
					.cert_file = t->cert_file,
					.key_file = t->key_file,
					.ca_pem = t->ca_pem,
					.cert_pem = t->cert_pem,
					.key_pem = t->key_pem,
					.server_name = o->tls.server_name_override,
					.min_version = tls_version_name(t->min_version),
					.max_version = tls_version_name(t->max_version),
					.alpn = "h2",
					.insecure_skip_verify = o->tls.insecure_skip_verify,
					.system_ca_too = t->include_system_ca_certs_pool,
					.reload_ns = (uint64_t)t->reload_interval_ns,
					.ciphers = t->cipher_suites.items,
					.n_ciphers = t->cipher_suites.n,
					.groups = t->curve_preferences.items,
					.n_groups = t->curve_preferences.n },
		err);
	return st->tls != NULL ? 0 : -1;
}

/* Metadata keys are lower case. */
static void make_headers(struct otlp_state *st, const struct strmap *map)
{
	st->headers = xcalloc(map->n + 2, sizeof(*st->headers));
	for (size_t i = 0; i < map->n; i++) {
		char *name = xstrdup(map->items[i].name);

		for (char *p = name; *p != '\0'; p++)
			*p = (char)tolower((unsigned char)*p);
		if (st->auth != NULL && strcmp(name, st->auth->client_header) == 0) {
			free(name);
			continue;
		}
		st->has_tenant |= strcmp(name, "x-scope-orgid") == 0;
		st->headers[st->n_headers++] =
			(struct grpc_header){ name, bytes_str(map->items[i].value) };
	}
}

static void start_on_loop(void *arg)
{
	struct component *c = arg;
	const struct otlp_config *conf = COMPONENT_CONFIG(c, struct otlp_config);
	const struct grpc_client_options *o = &conf->client;
	struct otlp_state *st = COMPONENT_STATE(c, struct otlp_state);
	uint64_t first_ms = (uint64_t)conf->retry.initial_interval_ns / NS_PER_MS;
	uint64_t max_ms = (uint64_t)conf->retry.max_interval_ns / NS_PER_MS;
	struct grpc_client_settings settings = {
		.endpoint = o->endpoint,
		.tls = st->tls,
		.authority = o->authority[0] != '\0' ? o->authority : NULL,
		.user_agent = o->user_agent[0] != '\0' ? o->user_agent
						       : "spanmill/" SPANMILL_VERSION " (linux)",
		/* Trying to connect costs little; a backlog that waits for it does not. */
		.backoff_min_ms = MIN(MAX(first_ms, (uint64_t)BACKOFF_MIN_MS), UINT64_C(1000)),
		.backoff_max_ms =
			MIN(MAX(max_ms, (uint64_t)BACKOFF_MIN_MS), (uint64_t)BACKOFF_MAX_MS),
		.wait_for_ready = o->wait_for_ready,
		.pick_first = o->balancer == GRPC_BALANCER_PICK_FIRST,
	};

	if (o->keepalive_on) {
		settings.keepalive_time_ms = (uint64_t)o->keepalive.time_ns / NS_PER_MS;
		settings.keepalive_timeout_ms = (uint64_t)o->keepalive.timeout_ns / NS_PER_MS;
		settings.keepalive_idle = o->keepalive.permit_without_stream;
	}
	st->client = grpc_client_new(st->loop, &settings, &st->err);
}

static int otlp_start(struct component *c, struct err *err)
{
	static _Atomic unsigned turn;
	const struct otlp_config *conf = COMPONENT_CONFIG(c, struct otlp_config);
	struct otlp_state *st = COMPONENT_STATE(c, struct otlp_state);

	if (auth_of_client(c, conf->client.authenticator, &st->auth, err) < 0)
		return -1;
	make_headers(st, &conf->client.headers);
	if (make_tls(c, &conf->client, err) < 0)
		return err_wrap(err, "tls");
	st->loop = component_loop(c, atomic_fetch_add(&turn, 1) % component_n_loops(c));
	loop_call(st->loop, start_on_loop, c);
	if (st->client == NULL) {
		if (err != NULL)
			*err = st->err;
		return -1;
	}
	st->queue = sending_queue_new(
		&(struct sending_queue_settings){ .component = c,
						  .loop = st->loop,
						  .queue = &conf->queue,
						  .retry = &conf->retry,
						  .timeout_ns = conf->timeout_ns,
						  .max_request_bytes = conf->max_message_bytes,
						  .send = otlp_send,
						  .cancel = otlp_cancel },
		err);
	return st->queue != NULL ? 0 : -1;
}

static void otlp_drain(struct component *c)
{
	struct otlp_state *st = COMPONENT_STATE(c, struct otlp_state);

	if (st->queue != NULL)
		sending_queue_drain(st->queue);
}

static int otlp_is_drained(struct component *c)
{
	struct otlp_state *st = COMPONENT_STATE(c, struct otlp_state);

	return st->queue == NULL || sending_queue_is_drained(st->queue);
}

static bool otlp_is_ready(struct component *c, char *why, size_t why_size)
{
	struct otlp_state *st = COMPONENT_STATE(c, struct otlp_state);
	char reason[200];

	if (st->queue == NULL || !sending_queue_is_failing(st->queue, reason, sizeof(reason)))
		return st->queue != NULL;
	snprintf(why, why_size, "exporter %s: %s", c->id, reason);
	return false;
}

static void otlp_metrics(struct component *c, struct buf *out)
{
	sending_queue_metrics(COMPONENT_STATE(c, struct otlp_state)->queue, out);
}

static void stop_on_loop(void *arg)
{
	struct otlp_state *st = arg;

	grpc_client_free(st->client);
	st->client = NULL;
}

static void otlp_shutdown(struct component *c)
{
	struct otlp_state *st = COMPONENT_STATE(c, struct otlp_state);

	sending_queue_free(st->queue);
	st->queue = NULL;
	if (st->client != NULL)
		loop_call(st->loop, stop_on_loop, st);
	tls_free(st->tls);
	st->tls = NULL;
	for (size_t i = 0; i < st->n_headers; i++)
		free((void *)(uintptr_t)st->headers[i].name);
	free(st->headers);
	st->headers = NULL;
	st->n_headers = 0;
}

/* Two may send at a time; two may not have one log. */
static bool may_overlap(const void *config)
{
	return ((const struct otlp_config *)config)->queue.storage[0] == '\0';
}

const struct component_type exporter_otlp = {
	.name = "otlp",
	.alias = "otlp_grpc",
	.kind = KIND_EXPORTER,
	.summary = "Sends traces, metrics and logs to the next hop as OTLP over gRPC.",
	.stability = STABILITY_ALPHA,
	.signals = SIGNAL_ALL,
	.config_size = sizeof(struct otlp_config),
	.state_size = sizeof(struct otlp_state),
	.options = otlp_options,
	.validate = otlp_validate,
	.may_overlap = may_overlap,
	.start = otlp_start,
	.consume = otlp_consume,
	.drain = otlp_drain,
	.is_drained = otlp_is_drained,
	.shutdown = otlp_shutdown,
	.is_ready = otlp_is_ready,
	.metrics = otlp_metrics,
};
