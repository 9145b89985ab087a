/* SPDX-License-Identifier: Apache-2.0
 *
 * jaeger_http.c - Thrift over HTTP: POST /api/traces with a Batch in the binary protocol, answered
 * 202.
 *
 * The query (?format=jaeger.thrift, from old clients) says nothing. Spans that cannot be used are
 * counted and logged, the others are taken; when none can be, 400 names the first.
 * SPEC: docs/formats/jaeger.md; INTERFACE "Receivers' answers".
 */
#include "receivers/jaeger/jaeger_internal.h"

#include "pipeline/ingest/http.h"

static const char type_thrift[] = "application/x-thrift",
		  type_apache[] = "application/vnd.apache.thrift.binary";

/* What was refused is counted and logged. */
static void accept_request(struct http_request *req, const struct ingest_answer *a, unsigned tag)
{
	(void)a;
	(void)tag;
	http_respond(req, &(struct http_answer){ .status = 202 });
}

/* Before the body is read. */
static void begin(struct http_request *req, void *arg)
{
	struct http_site *site = arg;
	struct component *c = site->component;
	char tenant[TENANT_MAX + 1];
	struct err err = ERR_INIT;

	if (!http_request_is_type(req, type_thrift) && !http_request_is_type(req, type_apache))
		http_respond_error(req, 415, 0, "415 unsupported media type, supported: [%s, %s]",
				   type_thrift, type_apache);
	else if (http_ingest_tenant(c, req, tenant, &err) < 0)
		http_ingest_refuse(req, &err);
	else
		http_listener_takes_coding(req, &COMPONENT_CONFIG(c, struct jaeger_config)->http);
}

static void take_spans(struct http_request *req, void *arg)
{
	struct http_site *site = arg;
	struct component *c = site->component;
	struct jaeger_state *st = COMPONENT_STATE(c, struct jaeger_state);
	struct rcbuf *body = req->body;
	struct otlp_rejects rejects = { 0 };
	char tenant[TENANT_MAX + 1];
	struct err err = ERR_INIT;
	struct batch *b = NULL;

	if (body == NULL) {
		accept_request(req, NULL, 0);
		return;
	}
	req->body = NULL;
	if (http_ingest_tenant(c, req, tenant, &err) < 0)
		rcbuf_unref(body);
	else
		b = jaeger_read_body(c, JAEGER_WAY_HTTP, body, tenant, &rejects, &err);
	if (b == NULL)
		http_ingest_refuse(req, &err);
	else
		http_ingest_submit(req, site, st->count[JAEGER_WAY_HTTP], accept_request, 0, b,
				   &rejects);
}

struct http_listener *jaeger_http_start(struct component *c, struct err *err)
{
	const struct http_route routes[] = {
		{ .method = "POST", .path = "/api/traces", .begin = begin, .handler = take_spans },
	};
	const struct http_listener_setup setup = {
		.routes = routes,
		.n_routes = COUNT_OF(routes),
		.hold_timeout_ms = http_ingest_hold_ms(c),
	};

	return http_listener_start(c, &COMPONENT_CONFIG(c, struct jaeger_config)->http, &setup,
				   err);
}
