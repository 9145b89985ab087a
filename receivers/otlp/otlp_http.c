/* SPDX-License-Identifier: Apache-2.0
 *
 * otlp_http.c - OTLP over HTTP: POST /v1/traces, /v1/metrics and /v1/logs with protobuf or JSON
 * bodies, one server per loop. A signal without a pipeline has no path.
 *
 * Errors, the server's own ones too, are a google.rpc.Status in the request's content type; JSON
 * when it has none of the two.
 * SPEC: OTLP/HTTP; INTERFACE "Receivers' answers".
 */
#include "receivers/otlp/otlp_internal.h"

#include "base/mem.h"
#include "pipeline/ingest/http.h"
#include "pipeline/ingest/transcode.h"
#include "wire/otlp_json_decode.h"

enum { JSON_GROW_MAX = 4 };

static const char type_json[] = "application/json", type_protobuf[] = "application/x-protobuf";

struct otlp_http {
	struct http_listener *listener;
	char *paths[OTLP_SIGNALS];
};

/* ---- answers ---- */

static const char *content_type(bool json)
{
	return json ? type_json : type_protobuf;
}

static enum grpc_status code_of(int status)
{
	switch (status) {
	case 401:
		return GRPC_UNAUTHENTICATED;
	case 404:
	case 405:
	case 501:
		return GRPC_UNIMPLEMENTED;
	case 413:
	case 429:
		return GRPC_RESOURCE_EXHAUSTED;
	case 408:
		return GRPC_DEADLINE_EXCEEDED;
	case 503:
		return GRPC_UNAVAILABLE;
	default:
		return status >= 500 ? GRPC_INTERNAL : GRPC_INVALID_ARGUMENT;
	}
}

static void error_body(const struct http_request *req, int status, const char *message,
		       struct buf *body, const char **type, void *arg)
{
	bool json = !http_request_is_type(req, type_protobuf);

	(void)arg;
	*type = content_type(json);
	otlp_status_encode(code_of(status), message, json, body);
}

/* The tag of a request: its signal, and whether it spoke JSON. */
static unsigned tag_of(enum otlp_signal signal, bool json)
{
	return (unsigned)signal << 1 | json;
}

static void succeed(struct http_request *req, const struct ingest_answer *a, unsigned tag)
{
	bool json = (tag & 1) != 0;
	struct buf body = BUF_INIT;

	otlp_response_encode((enum otlp_signal)(tag >> 1), a, json, &body);
	http_respond(req, &(struct http_answer){ .status = 200,
						 .content_type = content_type(json),
						 .body = buf_bytes(&body) });
	buf_fini(&body);
}

/* ---- requests ---- */

/* Before the body is read. */
static void begin(struct http_request *req, void *arg)
{
	struct http_site *site = arg;
	struct component *c = site->component;
	char tenant[TENANT_MAX + 1];
	struct err err = ERR_INIT;

	if (!http_request_is_type(req, type_protobuf) && !http_request_is_type(req, type_json))
		http_respond_error(req, 415, 0, "415 unsupported media type, supported: [%s, %s]",
				   type_json, type_protobuf);
	else if (http_ingest_tenant(c, req, tenant, &err) < 0)
		http_ingest_refuse(req, &err);
	else
		http_listener_takes_coding(req,
					   &COMPONENT_CONFIG(c, struct otlp_config)->http.server);
}

static int decode_json(struct bytes in, size_t max_bytes, struct arena *arena, struct buf *out,
		       void *arg, struct err *err)
{
	return otlp_json_decode_items(*(const enum otlp_signal *)arg, in, max_bytes, arena, out,
				      err);
}

/* The request's batch. NULL with *err. Takes the body. */
static struct batch *read_batch(struct component *c, struct http_request *req,
				enum otlp_signal signal, bool json, struct otlp_result *result,
				struct err *err)
{
	const struct transcode from_json = { decode_json, &signal, JSON_GROW_MAX };
	struct budget *budget = component_budget(c);
	struct rcbuf *body = req->body;
	char tenant[TENANT_MAX + 1];

	req->body = NULL;
	if (http_ingest_tenant(c, req, tenant, err) < 0) {
		rcbuf_unref(body);
		return NULL;
	}
	if (json)
		body = transcode_body(&from_json, body, budget, err);
	return body != NULL ? batch_from_request(signal, body, tenant, budget, result, err) : NULL;
}

static void export(struct http_request *req, struct http_site *site, enum otlp_signal signal)
{
	struct component *c = site->component;
	struct otlp_state *st = COMPONENT_STATE(c, struct otlp_state);
	struct otlp_result result = { 0 };
	struct err err = ERR_INIT;
	struct batch *b = NULL;
	bool json = http_request_is_type(req, type_json);

	if (req->body == NULL && !json) {
		succeed(req, &(struct ingest_answer){ .message = "" }, tag_of(signal, false));
		return;
	}
	if (req->body != NULL)
		b = read_batch(c, req, signal, json, &result, &err);
	else
		err_set(&err, ERR_INVALID, "otlp json: the body is empty");
	if (b == NULL) {
		atomic_fetch_add(&st->http_count[signal]->damaged, err.kind == ERR_INVALID);
		http_ingest_refuse(req, &err);
		return;
	}
	http_ingest_submit(req, site, st->http_count[signal], succeed, tag_of(signal, json), b,
			   &result.rejects);
}

static void export_traces(struct http_request *req, void *arg)
{
	export(req, arg, OTLP_TRACES);
}

static void export_metrics(struct http_request *req, void *arg)
{
	export(req, arg, OTLP_METRICS);
}

static void export_logs(struct http_request *req, void *arg)
{
	export(req, arg, OTLP_LOGS);
}

/* ---- life ---- */

/* The routes of the signals that are taken; returns their number. */
static unsigned make_routes(struct otlp_http *h, struct component *c,
			    const struct otlp_http_config *conf,
			    struct http_route routes[OTLP_SIGNALS])
{
	const struct {
		const char *path;
		void (*handler)(struct http_request *req, void *arg);
	} all[] = {
		[OTLP_TRACES] = { conf->traces_path, export_traces },
		[OTLP_METRICS] = { conf->metrics_path, export_metrics },
		[OTLP_LOGS] = { conf->logs_path, export_logs },
	};
	unsigned n = 0;

	for (int g = 0; g < OTLP_SIGNALS; g++) {
		const char *path = all[g].path;

		if (!component_emits(c, (enum otlp_signal)g))
			continue;
		h->paths[g] = xasprintf("%s%s", path[0] == '/' ? "" : "/", path);
		routes[n++] = (struct http_route){ .method = "POST",
						   .path = h->paths[g],
						   .begin = begin,
						   .handler = all[g].handler };
	}
	return n;
}

struct otlp_http *otlp_http_start(struct component *c, struct err *err)
{
	const struct otlp_http_config *conf = &COMPONENT_CONFIG(c, struct otlp_config)->http;
	struct otlp_http *h = xcalloc(1, sizeof(*h));
	struct http_route routes[OTLP_SIGNALS];
	struct http_listener_setup setup = { .routes = routes, .error = error_body };

	setup.n_routes = make_routes(h, c, conf, routes);
	setup.hold_timeout_ms = http_ingest_hold_ms(c);
	h->listener = http_listener_start(c, &conf->server, &setup, err);
	if (h->listener != NULL)
		return h;
	otlp_http_free(h);
	return NULL;
}

void otlp_http_drain(struct otlp_http *h)
{
	if (h != NULL)
		http_listener_drain(h->listener);
}

bool otlp_http_is_drained(const struct otlp_http *h)
{
	return h == NULL || http_listener_is_drained(h->listener);
}

void otlp_http_free(struct otlp_http *h)
{
	if (h == NULL)
		return;
	http_listener_free(h->listener);
	for (int g = 0; g < OTLP_SIGNALS; g++)
		free(h->paths[g]);
	free(h);
}
