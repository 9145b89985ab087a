/* SPDX-License-Identifier: Apache-2.0
 *
 * otlp_grpc.c - OTLP over gRPC: Export of the three services, one server per loop.
 *
 * A signal without a pipeline has no route: the server answers UNIMPLEMENTED, as the Collector
 * does; profiles never have one.
 * OWNERSHIP: a request is one allocation from Export to `released`; it holds a reference of its
 * call and may outlive the connection, the server and the receiver, so it points to none of them.
 * SPEC: opentelemetry-proto collector/{trace,metrics,logs}/v1; INTERFACE "Receivers' answers".
 */
#include "receivers/otlp/otlp_internal.h"

#include "base/mem.h"

enum { RETRY_AFTER_MS = 1000 };

#define SERVICE(name) "/opentelemetry.proto.collector." name "/Export"

static const char *const export_paths[] = {
	[OTLP_TRACES] = SERVICE("trace.v1.TraceService"),
	[OTLP_METRICS] = SERVICE("metrics.v1.MetricsService"),
	[OTLP_LOGS] = SERVICE("logs.v1.LogsService"),
};

struct request {
	struct ingest in;
	struct grpc_call *call;
	enum otlp_signal signal;
};

/* ---- requests ---- */

static void refuse(struct grpc_call *call, const struct err *err)
{
	enum grpc_status status = grpc_status_of_err(err);

	grpc_call_fail(call, status, err->msg,
		       status == GRPC_UNAVAILABLE ? MAX(err->retry_after_ms, RETRY_AFTER_MS) : 0);
}

static void answer(struct ingest *in, const struct ingest_answer *a)
{
	struct request *r = CONTAINER_OF(in, struct request, in);
	struct buf message = BUF_INIT;

	if (a->retryable) {
		grpc_call_fail(r->call, GRPC_UNAVAILABLE, a->message,
			       MAX(a->retry_after_ms, RETRY_AFTER_MS));
		return;
	}
	otlp_response_encode(r->signal, a, false, &message);
	grpc_call_reply(r->call, buf_bytes(&message));
	buf_fini(&message);
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

static void export(struct grpc_call *call, void *arg)
{
	const struct grpc_site *site = arg;
	enum otlp_signal signal = *(const enum otlp_signal *)site->of;
	struct component *c = site->component;
	struct otlp_state *st = COMPONENT_STATE(c, struct otlp_state);
	struct rcbuf *message = grpc_call_take_message(call);
	struct otlp_result result = { 0 };
	char tenant[TENANT_MAX + 1];
	struct err err = ERR_INIT;
	struct batch *b = NULL;
	struct request *r;

	if (ingest_tenant(c, grpc_call_header(call, "x-scope-orgid"), tenant, &err) < 0) {
		rcbuf_unref(message);
		refuse(call, &err);
		return;
	}
	if (message == NULL) {
		grpc_call_reply(call, BYTES_EMPTY);
		return;
	}
	b = batch_from_request(signal, message, tenant, component_budget(c), &result, &err);
	if (b == NULL) {
		atomic_fetch_add(&st->grpc_count[signal]->damaged, err.kind == ERR_INVALID);
		refuse(call, &err);
		return;
	}
	r = xcalloc(1, sizeof(*r));
	r->in.loop = site->loop;
	r->in.count = st->grpc_count[signal];
	r->in.answer = answer;
	r->in.released = released;
	r->call = grpc_call_ref(call);
	r->signal = signal;
	grpc_call_on_cancel(call, gone, r);
	/* Last: r may be gone when this returns. */
	ingest_submit(&r->in, c, b, &result.rejects, grpc_call_deadline_ns(call));
}

/* ---- life ---- */

struct grpc_listener *otlp_grpc_start(struct component *c, struct err *err)
{
	static const enum otlp_signal signals[OTLP_SIGNALS] = { OTLP_TRACES, OTLP_METRICS,
								OTLP_LOGS };
	struct grpc_route routes[OTLP_SIGNALS + 1] = { 0 }, *route = routes;

	for (int g = 0; g < OTLP_SIGNALS; g++)
		if (component_emits(c, signals[g]))
			*route++ = (struct grpc_route){ .path = export_paths[signals[g]],
							.call = export,
							.arg = (void *)(uintptr_t)&signals[g] };
	return grpc_listener_start(c, &COMPONENT_CONFIG(c, struct otlp_config)->grpc, routes, err);
}
