/* SPDX-License-Identifier: Apache-2.0
 *
 * test_receivers.c - the receivers on loops of their own, before a sink that delivers, refuses or
 * keeps what it gets; clients come over unix sockets.
 */
#include "base/clock.h"
#include "base/mem.h"
#include "cmd/all_components.h"
#include "net/grpc_client.h"
#include "net/http_client.h"
#include "pipeline/conf/tree.h"
#include "pipeline/fanout.h"
#include "pipeline/registry.h"
#include "pipeline/service/service.h"
#include "pipeline/ingest/transcode.h"
#include "wire/pb.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

enum { N_LOOPS = 2, ACK_TIMEOUT_MS = 250, WAIT_MS = 60000 };

static const char export_path[] = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

/* ---- the sink ---- */

enum sink_mode { DELIVER, KEEP, RETRY, REJECT };

static struct {
	_Atomic int mode;
	pthread_mutex_t lock;
	struct batch *kept[64];
	unsigned n_kept;
	char tenant[TENANT_MAX + 1];
	_Atomic unsigned n_spans;
} sink = { .lock = PTHREAD_MUTEX_INITIALIZER };

static void sink_consume(struct component *c, struct batch *b)
{
	struct err err = ERR_INIT;

	(void)c;
	err_set(&err, ERR_UNAVAILABLE, "the sink says no");
	pthread_mutex_lock(&sink.lock);
	memcpy(sink.tenant, b->tenant, sizeof(sink.tenant));
	atomic_fetch_add(&sink.n_spans, b->tables.n_spans);
	if (sink.mode == KEEP && sink.n_kept < COUNT_OF(sink.kept)) {
		sink.kept[sink.n_kept++] = b;
		pthread_mutex_unlock(&sink.lock);
		return;
	}
	pthread_mutex_unlock(&sink.lock);
	if (sink.mode == RETRY)
		batch_settle(b, VERDICT_RETRYABLE, DROP_PERMANENT, &err);
	else if (sink.mode == REJECT)
		batch_settle(b, VERDICT_PERMANENT, DROP_PERMANENT, &err);
	else
		batch_settle(b, VERDICT_DELIVERED, DROP_SAMPLED, NULL);
	batch_unref(b);
}

static const struct component_type sink_type = { .name = "sink",
						 .kind = KIND_EXPORTER,
						 .consume = sink_consume };

static unsigned sink_n_kept(void)
{
	unsigned n;

	pthread_mutex_lock(&sink.lock);
	n = sink.n_kept;
	pthread_mutex_unlock(&sink.lock);
	return n;
}

/* Deliver what was kept; returns how many batches were withdrawn by then. */
static unsigned sink_let_go(void)
{
	unsigned n_withdrawn = 0;

	pthread_mutex_lock(&sink.lock);
	for (unsigned i = 0; i < sink.n_kept; i++) {
		n_withdrawn += batch_is_withdrawn(sink.kept[i]);
		batch_settle(sink.kept[i], VERDICT_DELIVERED, DROP_SAMPLED, NULL);
		batch_unref(sink.kept[i]);
	}
	sink.n_kept = 0;
	pthread_mutex_unlock(&sink.lock);
	return n_withdrawn;
}

/* ---- the receiver under test ---- */

static struct {
	struct service service;
	struct loop *loops[N_LOOPS + 1]; /* the last is the clients' */
	struct component receiver, sink;
	struct component_counters counts[2];
	struct fanout_target target;
	struct fanout fanout;
	struct receiver_options options;
	struct arena arena;
	char grpc_path[64], http_path[64], grpc_endpoint[80];
} fx;

static bool wait_until(bool (*done)(void))
{
	for (int i = 0; i < WAIT_MS; i++) {
		if (done())
			return true;
		usleep(1000);
	}
	return false;
}

static void make_service(void)
{
	memset(&fx, 0, sizeof(fx));
	for (unsigned i = 0; i <= N_LOOPS; i++) {
		fx.loops[i] = loop_new(i, NULL);
		assert_int_equal(loop_start(fx.loops[i], NULL), 0);
	}
	fx.service.loops = fx.loops;
	fx.service.n_loops = N_LOOPS;
	atomic_store(&fx.service.budget.limit, 64 << 20);
	snprintf(fx.grpc_path, sizeof(fx.grpc_path), "/tmp/spanmill-test-%d-grpc", getpid());
	snprintf(fx.grpc_endpoint, sizeof(fx.grpc_endpoint), "unix:%s", fx.grpc_path);
	snprintf(fx.http_path, sizeof(fx.http_path), "/tmp/spanmill-test-%d-http", getpid());
	sink.mode = DELIVER;
	atomic_store(&sink.n_spans, 0);
}

static void start(const char *type, const char *yaml, int ack)
{
	const struct component_type *t = registry_find(KIND_RECEIVER, bytes_str(type));
	struct conf_errors errors = CONF_ERRORS_INIT;
	struct conf_build b = { .arena = &fx.arena, .errors = &errors };
	struct conf_node *root = NULL;
	struct err err = ERR_INIT;
	void *config;

	make_service();
	config = arena_zalloc(&fx.arena, t->config_size);
	assert_int_equal(conf_tree_parse(&b, bytes_str(yaml), conf_tree_source(&b, "t"), &root), 0);
	assert_int_equal(option_parse(t->options, root, config, &fx.arena, &errors, type), 0);
	t->validate(config, root, &errors, type);
	assert_int_equal(errors.n_errors, 0);
	conf_error_fini(&errors);
	fx.options =
		(struct receiver_options){ .tenant = "single-tenant",
					   .ack = ack,
					   .ack_timeout_ns = ACK_TIMEOUT_MS * (int64_t)NS_PER_MS };
	fx.sink = (struct component){
		.type = &sink_type, .id = "sink", .count = &fx.counts[1], .service = &fx.service
	};
	fx.target = (struct fanout_target){ &fx.sink, false };
	fx.fanout = (struct fanout){ &fx.target, 1, 1 };
	fx.receiver = (struct component){ .type = t,
					  .id = type,
					  .config = config,
					  .state = xcalloc(1, t->state_size),
					  .receiver = &fx.options,
					  .count = &fx.counts[0],
					  .service = &fx.service,
					  .out = { &fx.fanout } };
	if (t->start(&fx.receiver, &err) < 0)
		fail_msg("%s", err.msg);
}

static void start_otlp(int ack)
{
	char yaml[512];

	snprintf(yaml, sizeof(yaml),
		 "protocols:\n"
		 "  grpc: {endpoint: /tmp/spanmill-test-%d-grpc, transport: unix}\n"
		 "  http: {endpoint: /tmp/spanmill-test-%d-http, transport: unix}\n",
		 getpid(), getpid());
	start("otlp", yaml, ack);
}

static void start_zipkin(void)
{
	char yaml[128];

	snprintf(yaml, sizeof(yaml), "{endpoint: /tmp/spanmill-test-%d-http, transport: unix}",
		 getpid());
	start("zipkin", yaml, RECEIVER_ACK_DURABLE);
}

static void stop_loops(void)
{
	for (unsigned i = 0; i <= N_LOOPS; i++)
		loop_stop(fx.loops[i]);
	for (unsigned i = 0; i <= N_LOOPS; i++)
		loop_free(fx.loops[i]);
	free(fx.receiver.state);
	arena_fini(&fx.arena);
	/* Every request was released, and every byte given back. */
	assert_int_equal(atomic_load(&ledger.in_flight), 0);
	assert_int_equal(atomic_load(&fx.service.budget.used), 0);
}

static void stop(void)
{
	fx.receiver.type->shutdown(&fx.receiver);
	stop_loops();
}

/* ---- requests ---- */

/* n spans in one resource; those with an index below n_bad have a short span id. */
static void make_spans(struct buf *out, unsigned n, unsigned n_bad)
{
	size_t rs = pb_begin(out, 1), ss = pb_begin(out, 2);

	for (unsigned i = 0; i < n; i++) {
		uint8_t id[16] = { 1, 2, 3, [15] = (uint8_t)(i + 1) };
		size_t sp = pb_begin(out, 2);

		pb_put_bytes(out, 1, (struct bytes){ id, 16 });
		pb_put_bytes(out, 2, (struct bytes){ id + 8, i < n_bad ? 7 : 8 });
		pb_put_str(out, 5, "op");
		pb_end(out, sp);
	}
	pb_end(out, ss);
	pb_end(out, rs);
}

static const char spans_json[] =
	"{\"resourceSpans\":[{\"scopeSpans\":[{\"spans\":["
	"{\"traceId\":\"0102030405060708090a0b0c0d0e0f10\",\"spanId\":\"0102030405060708\"},"
	"{\"traceId\":\"0102030405060708090a0b0c0d0e0f10\",\"spanId\":\"01\"}]}]}]}";

struct post {
	const char *path, *type, *tenant, *coding;
	struct bytes body;
};

/* The status, with the body (NUL-terminated) in reply. */
static int post(const struct post *p, struct http_reply *reply)
{
	struct http_client_settings settings = { .unix_socket = fx.http_path };
	struct http_client *client = http_client_new(&settings, NULL);
	struct http_header headers[3];
	struct http_call call = { .method = "POST", .headers = headers, .body = &p->body };
	char url[128];
	struct err err = ERR_INIT;

	snprintf(url, sizeof(url), "http://x%s", p->path);
	call.url = url;
	call.n_body = p->body.n > 0;
	headers[call.n_headers++] =
		(struct http_header){ "Content-Type", p->type != NULL ? p->type : "" };
	if (p->tenant != NULL)
		headers[call.n_headers++] = (struct http_header){ "X-Scope-OrgID", p->tenant };
	if (p->coding != NULL)
		headers[call.n_headers++] = (struct http_header){ "Content-Encoding", p->coding };
	if (http_client_call(client, &call, reply, &err) < 0)
		fail_msg("%s", err.msg);
	http_client_free(client);
	buf_cstr(&reply->body);
	return reply->status;
}

static void expect(const char *name, const struct post *p, int want, const char *want_type,
		   const char *want_text)
{
	struct http_reply reply = HTTP_REPLY_INIT;
	int got = post(p, &reply);
	const char *type = http_reply_header(&reply, "Content-Type");

	if (got != want)
		fail_msg("%s: status %d, want %d: %s", name, got, want, buf_cstr(&reply.body));
	if (want_type != NULL && (type == NULL || strcmp(type, want_type) != 0))
		fail_msg("%s: content type %s, want %s", name, type ? type : "none", want_type);
	if (want_text != NULL &&
	    memmem(reply.body.p, reply.body.n, want_text, strlen(want_text)) == NULL)
		fail_msg("%s: \"%s\" is not in \"%s\"", name, want_text, buf_cstr(&reply.body));
	if (want == 503 && http_reply_header(&reply, "Retry-After") == NULL)
		fail_msg("%s: no Retry-After", name);
	http_reply_fini(&reply);
}

/* ---- OTLP over HTTP ---- */

#define PROTOBUF "application/x-protobuf"
#define JSON "application/json"

static void otlp_http_answers(void **state)
{
	static const struct {
		const char *name, *path, *type, *tenant, *coding, *body; /* NULL: 2 spans */
		enum sink_mode mode;
		int want;
		const char *want_type, *want_text;
	} cases[] = {
		{ "spans", "/v1/traces", PROTOBUF, NULL, NULL, NULL, DELIVER, 200, PROTOBUF, "" },
		{ "type with parameters", "/v1/traces", "Application/X-Protobuf; a=b", NULL, NULL,
		  NULL, DELIVER, 200, PROTOBUF, "" },
		{ "nothing", "/v1/traces", PROTOBUF, NULL, NULL, "", DELIVER, 200, PROTOBUF, "" },
		{ "an empty object", "/v1/traces", JSON, NULL, NULL, "{}", DELIVER, 200, JSON,
		  "{}" },
		{ "no JSON", "/v1/traces", JSON, NULL, NULL, "", DELIVER, 400, JSON, "\"code\":3" },
		{ "a bad span in JSON", "/v1/traces", JSON, NULL, NULL, spans_json, DELIVER, 200,
		  JSON,
		  "{\"partialSuccess\":{\"rejectedSpans\":\"1\",\"errorMessage\":\"resource_"
		  "spans" },
		{ "damaged protobuf", "/v1/traces", PROTOBUF, NULL, NULL, "\x0a\x7f", DELIVER, 400,
		  PROTOBUF, "\x08\x03\x12" },
		{ "damaged JSON", "/v1/traces", JSON, NULL, NULL, "{\"resourceSpans\":", DELIVER,
		  400, JSON, "\"code\":3" },
		{ "another type", "/v1/traces", "text/plain", NULL, NULL, "x", DELIVER, 415, JSON,
		  "415 unsupported media type, supported: [application/json, "
		  "application/x-protobuf]" },
		{ "another coding", "/v1/traces", PROTOBUF, NULL, "br", "x", DELIVER, 415, PROTOBUF,
		  "br" },
		{ "damaged gzip", "/v1/traces", PROTOBUF, NULL, "gzip", "x", DELIVER, 400, PROTOBUF,
		  "" },
		{ "metrics", "/v1/metrics", PROTOBUF, NULL, NULL, NULL, DELIVER, 404, PROTOBUF,
		  "\x08\x0c\x12" },
		{ "a tenant", "/v1/traces", PROTOBUF, "blue", NULL, NULL, DELIVER, 200, PROTOBUF,
		  "" },
		{ "a bad tenant", "/v1/traces", JSON, "../x", NULL, spans_json, DELIVER, 400, JSON,
		  "\\\"../x\\\"" },
		{ "try again", "/v1/traces", JSON, NULL, NULL, spans_json, RETRY, 503, JSON,
		  "the sink says no" },
		{ "refused for good", "/v1/traces", JSON, NULL, NULL, spans_json, REJECT, 200, JSON,
		  "{\"partialSuccess\":{\"rejectedSpans\":\"2\",\"errorMessage\":\"the sink says "
		  "no\"}}" },
		{ "kept too long", "/v1/traces", JSON, NULL, NULL, spans_json, KEEP, 503, JSON,
		  "not delivered in time" },
	};
	struct buf spans = BUF_INIT;

	(void)state;
	start_otlp(RECEIVER_ACK_DURABLE);
	make_spans(&spans, 2, 0);
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		struct post p = { cases[i].path, cases[i].type, cases[i].tenant, cases[i].coding,
				  cases[i].body ? bytes_str(cases[i].body) : buf_bytes(&spans) };

		sink.mode = cases[i].mode;
		expect(cases[i].name, &p, cases[i].want, cases[i].want_type, cases[i].want_text);
		if (cases[i].tenant != NULL && cases[i].want == 200)
			assert_string_equal(sink.tenant, cases[i].tenant);
	}
	assert_int_equal(sink_let_go(), 1);
	buf_fini(&spans);
	stop();
}

static void early_acks_are_not_withdrawn(void **state)
{
	struct buf spans = BUF_INIT;
	struct post p = { "/v1/traces", PROTOBUF, NULL, NULL, BYTES_EMPTY };

	(void)state;
	start_otlp(RECEIVER_ACK_EARLY);
	make_spans(&spans, 2, 1);
	p.body = buf_bytes(&spans);
	sink.mode = KEEP;
	expect("early", &p, 200, PROTOBUF, "resource_spans[0]");
	usleep(2 * ACK_TIMEOUT_MS * 1000);
	assert_int_equal(sink_n_kept(), 1);
	assert_int_equal(sink_let_go(), 0);
	buf_fini(&spans);
	stop();
}

/* A request by hand on a socket of its own. */
static int send_raw(const char *text)
{
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	memcpy(un.sun_path, fx.http_path, sizeof(fx.http_path));
	assert_int_equal(connect(fd, (struct sockaddr *)&un, sizeof(un)), 0);
	assert_int_equal(send(fd, text, strlen(text), 0), strlen(text));
	return fd;
}

static bool is_kept(void);
static bool is_withdrawn(void);

static void a_client_that_went_is_not_waited_for(void **state)
{
	struct buf text = BUF_INIT;
	char reply[256] = "";
	int fd;

	(void)state;
	start_otlp(RECEIVER_ACK_DURABLE);
	fx.options.ack_timeout_ns = WAIT_MS * (int64_t)NS_PER_MS;
	buf_printf(&text,
		   "POST /v1/traces HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
		   "Content-Length: %zu\r\n\r\n%s",
		   strlen(spans_json), spans_json);
	sink.mode = KEEP;
	/* One that closed its sending half only gets its answer. */
	fd = send_raw(buf_cstr(&text));
	assert_int_equal(shutdown(fd, SHUT_WR), 0);
	assert_true(wait_until(is_kept));
	usleep(50000);
	assert_int_equal(sink_let_go(), 0);
	assert_true(recv(fd, reply, sizeof(reply) - 1, 0) > 0);
	assert_non_null(strstr(reply, " 200 OK"));
	close(fd);
	/* One that is gone. */
	fd = send_raw(buf_cstr(&text));
	assert_true(wait_until(is_kept));
	close(fd);
	assert_true(wait_until(is_withdrawn));
	assert_int_equal(sink_let_go(), 1);
	buf_fini(&text);
	stop();
}

/* ---- OTLP over gRPC ---- */

struct call {
	struct grpc_client *client;
	const char *path, *tenant;
	struct bytes body;
	uint64_t deadline_ms; /* from the start; 0: none */
	bool cancel;          /* as soon as the sink has it */
	struct grpc_client_call *handle;
	struct loop_timer timer;
	struct grpc_answer answer;
	char message[256];
	uint8_t response[256];
	uint64_t took_ms, began_ns;
	_Atomic bool done;
};

static struct call *current;

static void call_done(const struct grpc_answer *a, void *arg)
{
	struct call *k = arg;

	k->answer = *a;
	snprintf(k->message, sizeof(k->message), "%s", a->message);
	k->answer.message = k->message;
	k->answer.response.n = MIN(a->response.n, sizeof(k->response));
	if (k->answer.response.n > 0)
		memcpy(k->response, a->response.p, k->answer.response.n);
	k->answer.response.p = k->response;
	k->took_ms = (clock_mono_ns() - k->began_ns) / NS_PER_MS;
	atomic_store(&k->done, true);
}

static void call_start(void *arg)
{
	struct call *k = arg;
	struct grpc_client_settings settings = { .endpoint = fx.grpc_endpoint };
	struct grpc_header header = { "x-scope-orgid", bytes_str(k->tenant) };
	struct grpc_request r = { .path = k->path ? k->path : export_path,
				  .headers = &header,
				  .n_headers = k->tenant != NULL,
				  .pieces = &k->body,
				  .n_pieces = 1 };

	k->client = grpc_client_new(fx.loops[N_LOOPS], &settings, NULL);
	k->began_ns = clock_mono_ns();
	if (k->deadline_ms > 0)
		r.deadline_ns = k->began_ns + k->deadline_ms * NS_PER_MS;
	k->handle = grpc_client_start(k->client, &r, call_done, k);
}

static void call_cancel(void *arg)
{
	grpc_client_cancel(((struct call *)arg)->handle);
}

static void call_free(void *arg)
{
	grpc_client_free(((struct call *)arg)->client);
}

static bool is_answered(void)
{
	return atomic_load(&current->done);
}

static bool is_kept(void)
{
	return sink_n_kept() > 0;
}

static bool is_withdrawn(void)
{
	bool yes;

	pthread_mutex_lock(&sink.lock);
	yes = sink.n_kept > 0 && batch_is_withdrawn(sink.kept[0]);
	pthread_mutex_unlock(&sink.lock);
	return yes;
}

static void call(struct call *k)
{
	current = k;
	loop_call(fx.loops[N_LOOPS], call_start, k);
	if (k->cancel) {
		assert_true(wait_until(is_kept));
		loop_call(fx.loops[N_LOOPS], call_cancel, k);
		assert_true(wait_until(is_withdrawn));
	}
	assert_true(wait_until(is_answered));
	loop_call(fx.loops[N_LOOPS], call_free, k);
}

static void otlp_grpc_answers(void **state)
{
	static const struct {
		const char *name, *path, *tenant, *body; /* NULL: 3 spans, one of them bad */
		enum sink_mode mode;
		enum grpc_status want;
		const char *want_text;
	} cases[] = {
		{ "a bad span", NULL, NULL, NULL, DELIVER, GRPC_OK, "resource_spans[0]" },
		{ "nothing", NULL, NULL, "", DELIVER, GRPC_OK, "" },
		{ "damaged", NULL, NULL, "\x0a\x7f", DELIVER, GRPC_INVALID_ARGUMENT, "" },
		{ "a tenant", NULL, "green", NULL, DELIVER, GRPC_OK, "" },
		{ "a bad tenant", NULL, "_spanmill", NULL, DELIVER, GRPC_INVALID_ARGUMENT,
		  "_spanmill" },
		{ "logs", "/opentelemetry.proto.collector.logs.v1.LogsService/Export", NULL, "",
		  DELIVER, GRPC_UNIMPLEMENTED, "" },
		{ "try again", NULL, NULL, NULL, RETRY, GRPC_UNAVAILABLE, "the sink says no" },
		{ "kept too long", NULL, NULL, NULL, KEEP, GRPC_UNAVAILABLE,
		  "not delivered in time" },
	};
	struct buf spans = BUF_INIT;

	(void)state;
	start_otlp(RECEIVER_ACK_DURABLE);
	make_spans(&spans, 3, 1);
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		struct call k = { .path = cases[i].path,
				  .tenant = cases[i].tenant,
				  .body = cases[i].body ? bytes_str(cases[i].body)
							: buf_bytes(&spans) };
		struct grpc_answer *a = &k.answer;
		const char *text = k.message;

		sink.mode = cases[i].mode;
		call(&k);
		if (a->status != cases[i].want)
			fail_msg("%s: %s: %s", cases[i].name, grpc_status_name(a->status),
				 k.message);
		if (a->status == GRPC_OK)
			text = (const char *)memmem(k.response, a->response.n, cases[i].want_text,
						    strlen(cases[i].want_text));
		if (text == NULL || strstr(text, cases[i].want_text) == NULL)
			fail_msg("%s: no \"%s\" in the answer", cases[i].name, cases[i].want_text);
		if ((a->status == GRPC_UNAVAILABLE) != a->has_retry_info)
			fail_msg("%s: RetryInfo", cases[i].name);
	}
	assert_string_equal(sink.tenant, "single-tenant");
	assert_int_equal(sink_let_go(), 1);
	buf_fini(&spans);
	stop();
}

static void a_deadline_is_answered_before_it(void **state)
{
	struct buf spans = BUF_INIT;
	struct call k = { .deadline_ms = 3000 };

	(void)state;
	start_otlp(RECEIVER_ACK_DURABLE);
	fx.options.ack_timeout_ns = WAIT_MS * (int64_t)NS_PER_MS;
	make_spans(&spans, 1, 0);
	k.body = buf_bytes(&spans);
	sink.mode = KEEP;
	call(&k);
	assert_int_equal(k.answer.status, GRPC_UNAVAILABLE);
	assert_true(k.answer.has_retry_info);
	assert_in_range(k.took_ms, 1500, 2999);
	assert_int_equal(sink_let_go(), 1);
	buf_fini(&spans);
	stop();
}

static void a_cancelled_call_is_withdrawn(void **state)
{
	struct buf spans = BUF_INIT;
	struct call k = { .cancel = true };

	(void)state;
	start_otlp(RECEIVER_ACK_DURABLE);
	make_spans(&spans, 1, 0);
	k.body = buf_bytes(&spans);
	sink.mode = KEEP;
	call(&k);
	assert_int_equal(k.answer.status, GRPC_CANCELLED);
	assert_int_equal(sink_let_go(), 1);
	buf_fini(&spans);
	stop();
}

/* ---- life ---- */

static void *post_in_background(void *arg)
{
	struct http_reply reply = HTTP_REPLY_INIT;
	int status = post(arg, &reply);

	http_reply_fini(&reply);
	return (void *)(intptr_t)status;
}

static bool is_drained(void)
{
	return fx.receiver.type->is_drained(&fx.receiver) != 0;
}

static void drain_waits_for_the_answer(void **state)
{
	struct buf spans = BUF_INIT;
	struct post p = { "/v1/traces", PROTOBUF, NULL, NULL, BYTES_EMPTY };
	struct call k = { 0 };
	pthread_t thread;
	void *status = NULL;

	(void)state;
	start_otlp(RECEIVER_ACK_DURABLE);
	fx.options.ack_timeout_ns = WAIT_MS * (int64_t)NS_PER_MS;
	make_spans(&spans, 1, 0);
	p.body = k.body = buf_bytes(&spans);
	call(&k); /* a gRPC connection that was used and went */
	sink.mode = KEEP;
	pthread_create(&thread, NULL, post_in_background, &p);
	assert_true(wait_until(is_kept));
	fx.receiver.type->drain(&fx.receiver);
	usleep(20000);
	assert_false(is_drained());
	assert_int_equal(sink_let_go(), 0);
	pthread_join(thread, &status);
	assert_int_equal((intptr_t)status, 200);
	assert_true(wait_until(is_drained));
	assert_int_not_equal(access(fx.http_path, F_OK), 0);
	buf_fini(&spans);
	stop();
}

/* The verdict comes when the receiver, its servers and even the loops' threads have gone. */
static void a_late_verdict_finds_nobody(void **state)
{
	struct buf spans = BUF_INIT;
	struct post p = { "/v1/traces", PROTOBUF, NULL, NULL, BYTES_EMPTY };
	pthread_t thread;
	void *status = NULL;

	(void)state;
	start_otlp(RECEIVER_ACK_DURABLE);
	fx.options.ack_timeout_ns = WAIT_MS * (int64_t)NS_PER_MS;
	make_spans(&spans, 1, 0);
	p.body = buf_bytes(&spans);
	sink.mode = KEEP;
	pthread_create(&thread, NULL, post_in_background, &p);
	assert_true(wait_until(is_kept));
	fx.receiver.type->shutdown(&fx.receiver);
	pthread_join(thread, &status);
	assert_int_equal((intptr_t)status, 503);
	assert_int_equal(sink_let_go(), 1);
	fx.receiver.type->shutdown(&fx.receiver);
	buf_fini(&spans);
	stop_loops();
}

/* ---- Zipkin ---- */

static void zipkin_answers(void **state)
{
	static const char good[] = "{\"traceId\":\"1f\",\"id\":\"2\"}";
	static const struct {
		const char *name, *path, *type, *body;
		enum sink_mode mode;
		int want;
		const char *want_text;
	} cases[] = {
		{ "a span", "/api/v2/spans", JSON, "[{\"traceId\":\"1f\",\"id\":\"2\"}]", DELIVER,
		  202, NULL },
		{ "no type", "/api/v2/spans", NULL, "[{\"traceId\":\"1f\",\"id\":\"2\"}]", DELIVER,
		  202, NULL },
		{ "nothing", "/api/v2/spans", JSON, "", DELIVER, 202, NULL },
		{ "an empty list", "/api/v2/spans", JSON, "[]", DELIVER, 202, NULL },
		{ "bad among good", "/api/v2/spans", JSON,
		  "[{\"traceId\":\"1\",\"id\":\"not hex\"},{\"traceId\":\"1f\",\"id\":\"2\"}]",
		  DELIVER, 202, NULL },
		{ "none usable", "/api/v2/spans", JSON, "[{\"traceId\":\"1\",\"id\":\"not hex\"}]",
		  DELIVER, 400, "[0].id: \"not hex\"" },
		{ "damaged", "/api/v2/spans", JSON, "[{", DELIVER, 400, "" },
		{ "protobuf", "/api/v2/spans", PROTOBUF, "\x0a", DELIVER, 400,
		  "damaged protobuf" },
		{ "v1", "/api/v1/spans", JSON, "[]", DELIVER, 202, NULL },
		{ "v1 thrift", "/api/v1/spans", "application/x-thrift", "x", DELIVER, 400,
		  "thrift" },
		{ "elsewhere", "/spans", JSON, "[]", DELIVER, 404, "" },
		{ "try again", "/api/v2/spans", JSON, "[{\"traceId\":\"1f\",\"id\":\"2\"}]", RETRY,
		  503, "the sink says no" },
		{ "refused for good", "/api/v2/spans", JSON, "[{\"traceId\":\"1f\",\"id\":\"2\"}]",
		  REJECT, 202, NULL },
	};
	const struct transport_counters *count = &fx.counts[0].transports[1];
	struct buf many = BUF_INIT;

	(void)state;
	start_zipkin();
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		struct post p = { cases[i].path, cases[i].type, NULL, NULL,
				  bytes_str(cases[i].body) };

		sink.mode = cases[i].mode;
		expect(cases[i].name, &p, cases[i].want, NULL, cases[i].want_text);
	}
	assert_string_equal(count->transport, "http_v2_json");
	assert_int_equal(count->accepted, 4);
	assert_int_equal(count->refused, 2);
	assert_int_equal(count->rejected, 2);
	/* Short spans grow in OTLP: more room is found on the way. */
	sink.mode = DELIVER;
	atomic_store(&sink.n_spans, 0);
	buf_add_char(&many, '[');
	for (int i = 0; i < 20000; i++)
		buf_printf(&many, "%s%s", i ? "," : "", good);
	buf_add_char(&many, ']');
	expect("many", &(struct post){ "/api/v2/spans", JSON, NULL, NULL, buf_bytes(&many) }, 202,
	       NULL, NULL);
	assert_int_equal(atomic_load(&sink.n_spans), 20000);
	buf_fini(&many);
	stop();
}

/* ---- transcode ---- */

/* Writes the input `factor` times. */
static int repeat(struct bytes in, size_t max_bytes, struct arena *arena, struct buf *out,
		  void *arg, struct err *err)
{
	unsigned *factor = arg;

	arena_alloc(arena, 1);
	if (in.n * *factor > max_bytes)
		return err_set(err, ERR_TOO_LARGE, "more than %zu", max_bytes);
	for (unsigned i = 0; i < *factor; i++)
		if (buf_add_bytes(out, in) < 0)
			return err_set(err, ERR_INTERNAL, "whatever");
	return 0;
}

/* Needs `factor` times the input beside an output of one byte. */
static int think(struct bytes in, size_t max_bytes, struct arena *arena, struct buf *out, void *arg,
		 struct err *err)
{
	unsigned *factor = arg;

	(void)max_bytes;
	for (unsigned i = 0; i < *factor && !arena->meter->refused; i++)
		arena_alloc(arena, in.n);
	if (arena->meter->refused)
		return err_set(err, ERR_INTERNAL, "whatever");
	return buf_add_char(out, 'x');
}

static void transcode_finds_room(void **state)
{
	static const struct {
		const char *name;
		size_t n;
		transcode_fn decode;
		unsigned factor, grow_max;
		int64_t limit, used;
		enum err_kind want;
	} cases[] = {
		{ "empty", 100000, repeat, 0, 4, 1 << 30, 0, ERR_NONE },
		{ "as large", 100000, repeat, 1, 4, 1 << 30, 0, ERR_NONE },
		{ "larger", 2000000, repeat, 4, 4, 1 << 30, 0, ERR_NONE },
		{ "much larger", 100000, repeat, 16, 16, 1 << 30, 0, ERR_NONE },
		{ "over its bound", 2000000, repeat, 5, 4, 1 << 30, 0, ERR_TOO_LARGE },
		{ "just within the budget", 2000000, repeat, 3, 4, 8400000, 0, ERR_NONE },
		{ "over the budget", 2000000, repeat, 4, 4, 8400000, 0, ERR_TOO_LARGE },
		{ "over what is left", 2000000, repeat, 4, 4, 20 << 20, 15 << 20, ERR_EXHAUSTED },
		{ "much scratch", 2000000, think, 4, 4, 16 << 20, 0, ERR_NONE },
		{ "too much scratch", 2000000, think, 9, 4, 16 << 20, 0, ERR_TOO_LARGE },
		{ "too much for now", 2000000, think, 4, 4, 16 << 20, 9 << 20, ERR_EXHAUSTED },
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		struct budget budget = BUDGET_INIT(cases[i].limit);
		unsigned factor = cases[i].factor;
		struct transcode t = { cases[i].decode, &factor, cases[i].grow_max };
		struct rcbuf *in = rcbuf_new_forced(&budget, cases[i].n), *out;
		struct err err = ERR_INIT;

		in->n = cases[i].n;
		memset(in->p, 'x', in->n);
		budget_force(&budget, (size_t)cases[i].used);
		out = transcode_body(&t, in, &budget, &err);
		if (err.kind != cases[i].want || (out != NULL) != (err.kind == ERR_NONE))
			fail_msg("%s: %s", cases[i].name, err.msg);
		if (out != NULL && t.decode == repeat)
			assert_int_equal(out->n, factor * cases[i].n);
		/* Nothing is held beyond the output, and hardly more than that while it ran. */
		assert_true(out == NULL ||
			    budget.used <= cases[i].used + (int64_t)out->n * 2 + 4096);
		assert_true(budget.peak <= cases[i].limit + (4 << 20));
		rcbuf_unref(out);
		assert_int_equal(budget.used, cases[i].used);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(otlp_http_answers),
		cmocka_unit_test(early_acks_are_not_withdrawn),
		cmocka_unit_test(a_client_that_went_is_not_waited_for),
		cmocka_unit_test(otlp_grpc_answers),
		cmocka_unit_test(a_deadline_is_answered_before_it),
		cmocka_unit_test(a_cancelled_call_is_withdrawn),
		cmocka_unit_test(drain_waits_for_the_answer),
		cmocka_unit_test(a_late_verdict_finds_nobody),
		cmocka_unit_test(zipkin_answers),
		cmocka_unit_test(transcode_finds_room),
	};

	all_components_register();
	return cmocka_run_group_tests_name("receivers", tests, NULL, NULL);
}
