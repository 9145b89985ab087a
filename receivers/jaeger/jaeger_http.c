/* SPDX-License-Identifier: Apache-2.0
 *
 * jaeger_http.c - Thrift over HTTP: POST /api/traces with a Batch in the binary protocol, answered
 * 202.
 *
 * The query (?format=jaeger.thrift, from old clients) says nothing. Spans that cannot be used are
 * counted and logged, the others are taken; when none can be, 400 names the first.
 * OWNERSHIP: a request holds a reference of its http_request and points to nothing of the receiver.
 * SPEC: docs/formats/jaeger.md; INTERFACE "Receivers' answers".
 */
#include "receivers/jaeger/jaeger_internal.h"

#include "base/clock.h"
#include "base/mem.h"

enum { HOLD_MARGIN_MS = 1000, GONE_GRACE_MS = 500 };

static const char type_thrift[] = "application/x-thrift",
		  type_apache[] = "application/vnd.apache.thrift.binary";

struct request {
	struct ingest in;
	struct http_request *req;
};

static void accept_request(struct http_request *req)
{
	http_respond(req, &(struct http_answer){ .status = 202 });
}

static void refuse(struct http_request *req, const struct err *err)
{
	http_respond_error(req, http_status_of(err), err->kind == ERR_EXHAUSTED, "%s", err->msg);
}

static void answer(struct ingest *in, const struct ingest_answer *a)
{
	struct request *r = CONTAINER_OF(in, struct request, in);

	if (a->retryable)
		http_respond_error(r->req, 503, MAX((a->retry_after_ms + 999) / 1000, 1u), "%s",
				   a->message);
	else
		accept_request(r->req);
}

static void released(struct ingest *in)
{
	struct request *r = CONTAINER_OF(in, struct request, in);

	http_request_unref(r->req);
	free(r);
}

/* An end of file may be a closed sending half, so what is nearly delivered is still answered. */
static void gone(struct http_request *req, enum http_gone why, void *arg)
{
	struct request *r = arg;

	(void)req;
	if (why == HTTP_GONE_CLIENT)
		ingest_hurry(&r->in, GONE_GRACE_MS);
	else
		ingest_withdraw(&r->in, "the server is stopping, send again");
}

static int tenant_of(struct component *c, const struct http_request *req,
		     char tenant[TENANT_MAX + 1], struct err *err)
{
	return ingest_tenant(c, bytes_str(http_request_header(req, "X-Scope-OrgID")), tenant, err);
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
	else if (tenant_of(c, req, tenant, &err) < 0)
		refuse(req, &err);
	else
		http_listener_takes_coding(req, &COMPONENT_CONFIG(c, struct jaeger_config)->http);
}

static void submit(struct http_request *req, struct http_site *site, struct batch *b,
		   const struct otlp_rejects *rejects)
{
	struct jaeger_state *st = COMPONENT_STATE(site->component, struct jaeger_state);
	struct request *r = xcalloc(1, sizeof(*r));

	r->in.loop = site->loop;
	r->in.count = st->count[JAEGER_WAY_HTTP];
	r->in.answer = answer;
	r->in.released = released;
	r->req = http_request_ref(req);
	http_request_on_gone(req, gone, r);
	/* Last: r may be gone when this returns. */
	ingest_submit(&r->in, site->component, b, rejects, 0);
}

static void take_spans(struct http_request *req, void *arg)
{
	struct http_site *site = arg;
	struct component *c = site->component;
	struct rcbuf *body = req->body;
	struct otlp_rejects rejects = { 0 };
	char tenant[TENANT_MAX + 1];
	struct err err = ERR_INIT;
	struct batch *b = NULL;

	if (body == NULL) {
		accept_request(req);
		return;
	}
	req->body = NULL;
	if (tenant_of(c, req, tenant, &err) < 0)
		rcbuf_unref(body);
	else
		b = jaeger_read_body(c, JAEGER_WAY_HTTP, body, tenant, &rejects, &err);
	if (b == NULL)
		refuse(req, &err);
	else
		submit(req, site, b, &rejects);
}

struct http_listener *jaeger_http_start(struct component *c, struct err *err)
{
	int64_t hold_ms = c->receiver->ack_timeout_ns / (int64_t)NS_PER_MS + HOLD_MARGIN_MS;
	const struct http_route routes[] = {
		{ .method = "POST", .path = "/api/traces", .begin = begin, .handler = take_spans },
	};
	const struct http_listener_setup setup = {
		.routes = routes,
		.n_routes = COUNT_OF(routes),
		/* ingest answers before; this is the net under it. */
		.hold_timeout_ms = (uint32_t)MIN(hold_ms, (int64_t)UINT32_MAX),
	};

	return http_listener_start(c, &COMPONENT_CONFIG(c, struct jaeger_config)->http, &setup,
				   err);
}
