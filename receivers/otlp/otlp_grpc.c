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

#include "base/clock.h"
#include "base/mem.h"
#include "net/grpc_server.h"
#include "net/tls.h"
#include "pipeline/auth.h"

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

struct share;

/* What a route's handler gets. */
struct service_share {
	struct share *share;
	enum otlp_signal signal;
};

/* One loop's share. */
struct share {
	struct component *component;
	struct loop *loop;
	struct otlp_grpc *owner;
	struct service_share services[OTLP_SIGNALS];
	struct grpc_route routes[OTLP_SIGNALS + 1];
	struct grpc_server *server;
	int fd;
	struct err err;
};

struct otlp_grpc {
	struct listener sockets;
	struct grpc_server_settings settings;
	struct tls *tls;
	const struct authenticator *auth; /* NULL: everybody is let in */
	struct share *shares;
	unsigned n;
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
	const struct service_share *service = arg;
	struct share *sh = service->share;
	struct component *c = sh->component;
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
	b = batch_from_request(service->signal, message, tenant, component_budget(c), &result,
			       &err);
	if (b == NULL) {
		atomic_fetch_add(&st->grpc_count[service->signal]->damaged,
				 err.kind == ERR_INVALID);
		refuse(call, &err);
		return;
	}
	r = xcalloc(1, sizeof(*r));
	r->in.loop = sh->loop;
	r->in.count = st->grpc_count[service->signal];
	r->in.answer = answer;
	r->in.released = released;
	r->call = grpc_call_ref(call);
	r->signal = service->signal;
	grpc_call_on_cancel(call, gone, r);
	/* Last: r may be gone when this returns. */
	ingest_submit(&r->in, c, b, &result.rejects, grpc_call_deadline_ns(call));
}

/* ---- life ---- */

static uint64_t ms_of(int64_t ns)
{
	return (uint64_t)ns / NS_PER_MS;
}

static void fill_settings(struct otlp_grpc *g, struct component *c)
{
	const struct grpc_server_options *o = &COMPONENT_CONFIG(c, struct otlp_config)->grpc;

	g->settings = (struct grpc_server_settings){
		.max_recv_msg_bytes = o->max_recv_msg_size,
		.max_concurrent_streams = (uint32_t)o->max_concurrent_streams,
		.budget = component_budget(c),
		.max_connection_idle_ms = ms_of(o->keepalive.max_connection_idle_ns),
		.max_connection_age_ms = ms_of(o->keepalive.max_connection_age_ns),
		.max_connection_age_grace_ms = ms_of(o->keepalive.max_connection_age_grace_ns),
		.keepalive_time_ms = ms_of(o->keepalive.time_ns),
		.keepalive_timeout_ms = ms_of(o->keepalive.timeout_ns),
		.tls = g->tls,
		.admit = g->auth != NULL ? auth_grpc : NULL,
		.admit_arg = (void *)(uintptr_t)g->auth,
	};
}

static void start_on_loop(void *arg)
{
	struct share *sh = arg;

	sh->server = grpc_server_new(sh->loop, sh->fd, &sh->owner->settings, sh->routes, &sh->err);
}

static void make_routes(struct share *sh)
{
	struct grpc_route *route = sh->routes;

	for (int g = 0; g < OTLP_SIGNALS; g++) {
		sh->services[g] = (struct service_share){ sh, (enum otlp_signal)g };
		if (component_emits(sh->component, (enum otlp_signal)g))
			*route++ = (struct grpc_route){ .path = export_paths[g],
							.call = export,
							.arg = &sh->services[g] };
	}
}

static int start_share(struct otlp_grpc *g, struct component *c, struct err *err)
{
	struct share *sh = &g->shares[g->n];

	*sh = (struct share){ .component = c, .loop = component_loop(c, g->n), .owner = g };
	make_routes(sh);
	sh->fd = listener_take(&g->sockets, g->n);
	g->n++;
	loop_call(sh->loop, start_on_loop, sh);
	if (sh->server != NULL)
		return 0;
	if (err != NULL)
		*err = sh->err;
	return -1;
}

struct otlp_grpc *otlp_grpc_start(struct component *c, struct err *err)
{
	const struct grpc_server_options *o = &COMPONENT_CONFIG(c, struct otlp_config)->grpc;
	struct otlp_grpc *g = xcalloc(1, sizeof(*g));
	unsigned n = component_n_loops(c);

	if (auth_of_server(c, o->authenticator, &g->auth, err) < 0 ||
	    listener_tls(c, o->tls_on, &o->tls, "gRPC", "h2", &g->tls, err) < 0 ||
	    listener_open(&g->sockets, c, o->endpoint, o->transport, o->tls_on, n,
			  "Starting GRPC server", err) < 0)
		goto fail;
	fill_settings(g, c);
	g->shares = xcalloc(n, sizeof(*g->shares));
	for (unsigned i = 0; i < n; i++)
		if (start_share(g, c, err) < 0)
			goto fail;
	return g;
fail:
	otlp_grpc_free(g);
	return NULL;
}

static void drain_on_loop(void *arg)
{
	struct share *sh = arg;

	grpc_server_drain(sh->server);
}

void otlp_grpc_drain(struct otlp_grpc *g)
{
	if (g == NULL)
		return;
	for (unsigned i = 0; i < g->n; i++)
		loop_call(g->shares[i].loop, drain_on_loop, &g->shares[i]);
	listener_close(&g->sockets);
}

bool otlp_grpc_is_drained(const struct otlp_grpc *g)
{
	bool drained = true;

	for (unsigned i = 0; g != NULL && i < g->n; i++)
		drained &= atomic_load(&grpc_server_counts(g->shares[i].server)->connections) == 0;
	return drained;
}

static void free_on_loop(void *arg)
{
	struct share *sh = arg;

	grpc_server_free(sh->server);
	sh->server = NULL;
}

void otlp_grpc_free(struct otlp_grpc *g)
{
	if (g == NULL)
		return;
	for (unsigned i = 0; i < g->n; i++)
		loop_call(g->shares[i].loop, free_on_loop, &g->shares[i]);
	listener_close(&g->sockets);
	tls_free(g->tls);
	free(g->shares);
	free(g);
}
