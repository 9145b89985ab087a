/* SPDX-License-Identifier: Apache-2.0
 *
 * jaeger_grpc.c - CollectorService/PostSpans: answered with an empty PostSpansResponse once the
 * spans are taken.
 *
 * Jaeger's protocol knows no partial success: spans that cannot be used are counted and logged, the
 * others are taken; when none can be, INVALID_ARGUMENT names the first.
 * OWNERSHIP: a request holds a reference of its call and points to nothing of the receiver.
 * SPEC: jaeger-idl api_v2 collector.proto; INTERFACE "Receivers' answers".
 */
#include "receivers/jaeger/jaeger_internal.h"

#include "base/mem.h"

enum { RETRY_AFTER_MS = 1000 };

struct request {
	struct ingest in;
	struct grpc_call *call;
};

static void refuse(struct grpc_call *call, const struct err *err)
{
	enum grpc_status status = grpc_status_of_err(err);

	grpc_call_fail(call, status, err->msg,
		       status == GRPC_UNAVAILABLE ? MAX(err->retry_after_ms, RETRY_AFTER_MS) : 0);
}

static void answer(struct ingest *in, const struct ingest_answer *a)
{
	struct request *r = CONTAINER_OF(in, struct request, in);

	if (a->retryable)
		grpc_call_fail(r->call, GRPC_UNAVAILABLE, a->message,
			       MAX(a->retry_after_ms, RETRY_AFTER_MS));
	else
		grpc_call_reply(r->call, BYTES_EMPTY);
}

static void released(struct ingest *in)
{
	struct request *r = CONTAINER_OF(in, struct request, in);

	grpc_call_unref(r->call);
	free(r);
}

static void gone(struct grpc_call *call, void *arg)
{
	struct request *r = arg;

	(void)call;
	ingest_withdraw(&r->in, "the client cancelled");
}

static void submit(struct grpc_call *call, struct grpc_site *site, struct batch *b,
		   const struct otlp_rejects *rejects)
{
	struct jaeger_state *st = COMPONENT_STATE(site->component, struct jaeger_state);
	struct request *r = xcalloc(1, sizeof(*r));

	r->in.loop = site->loop;
	r->in.count = st->count[JAEGER_WAY_GRPC];
	r->in.answer = answer;
	r->in.released = released;
	r->call = grpc_call_ref(call);
	grpc_call_on_cancel(call, gone, r);
	/* Last: r may be gone when this returns. */
	ingest_submit(&r->in, site->component, b, rejects, grpc_call_deadline_ns(call));
}

static void post_spans(struct grpc_call *call, void *arg)
{
	struct grpc_site *site = arg;
	struct component *c = site->component;
	struct rcbuf *message = grpc_call_take_message(call);
	struct otlp_rejects rejects = { 0 };
	char tenant[TENANT_MAX + 1];
	struct err err = ERR_INIT;
	struct batch *b = NULL;

	if (ingest_tenant(c, grpc_call_header(call, "x-scope-orgid"), tenant, &err) < 0) {
		rcbuf_unref(message);
		refuse(call, &err);
		return;
	}
	if (message == NULL) {
		grpc_call_reply(call, BYTES_EMPTY);
		return;
	}
	b = jaeger_read_body(c, JAEGER_WAY_GRPC, message, tenant, &rejects, &err);
	if (b == NULL)
		refuse(call, &err);
	else
		submit(call, site, b, &rejects);
}

struct grpc_listener *jaeger_grpc_start(struct component *c, struct err *err)
{
	static const struct grpc_route routes[] = {
		{ .path = "/jaeger.api_v2.CollectorService/PostSpans", .call = post_spans },
		{ .path = NULL },
	};

	return grpc_listener_start(c, &COMPONENT_CONFIG(c, struct jaeger_config)->grpc, routes,
				   err);
}
