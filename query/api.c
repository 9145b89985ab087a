/* SPDX-License-Identifier: Apache-2.0
 *
 * api.c - see api.h.
 */
#include "query/api.h"

#include "base/clock.h"
#include "base/mem.h"
#include "base/str.h"
#include "net/loop_work.h"
#include "query/querier_request.h"
#include "query/tempo_proto.h"
#include "query/trace_by_id.h"
#include "wire/json_writer.h"
#include "wire/otlp_json_encode.h"

#include <stdio.h>

#define SINGLE_TENANT "single-tenant"

enum { JSON_GROWTH = 3 };
enum form { FORM_V1, FORM_V2, FORM_OTLP };

/* A look-up from request to answer. */
struct lookup {
	struct query_api *api;
	struct http_request *req;
	struct loop_job job;
	enum form form;
	bool wants_protobuf;
	struct trace_request request;
	uint64_t live_since_ns; /* how far back live answers reach; 0: none was given */
	struct trace_by_id trace;
	struct buf body;
	size_t charged;       /* for body */
	_Atomic bool is_gone; /* nobody waits any more */
	struct err err;
};

/* ---- request ---- */

/* X-Scope-OrgID: one name, or several joined by '|'. */
static int parse_tenants(struct trace_request *l, const char *header, struct err *err)
{
	const char *p = header != NULL && *header != '\0' ? header : SINGLE_TENANT;

	for (l->n_tenants = 0;; p++) {
		size_t n = strcspn(p, "|");

		if (l->n_tenants == TRACE_TENANTS)
			return err_set(err, ERR_INVALID, "X-Scope-OrgID: more than %d tenants",
				       TRACE_TENANTS);
		if (block_meta_tenant_check((struct bytes){ (const uint8_t *)p, n }, err) < 0)
			return err_wrap(err, "X-Scope-OrgID");
		memcpy(l->tenants[l->n_tenants], p, n);
		l->tenants[l->n_tenants++][n] = '\0';
		p += n;
		if (*p == '\0')
			return 0;
	}
}

/* start and end (Unix seconds) are checked; blocks are few enough to ask all. */
static int check_times(struct http_request *req, struct err *err)
{
	const char *start = http_request_param(req, "start"), *end = http_request_param(req, "end");
	uint64_t s = 0, e = 0;

	if (start != NULL && *start != '\0' && str_to_u64(bytes_str(start), &s) < 0)
		return err_set(err, ERR_INVALID, "start \"%.32s\": not a time in Unix seconds",
			       start);
	if (end != NULL && *end != '\0' && str_to_u64(bytes_str(end), &e) < 0)
		return err_set(err, ERR_INVALID, "end \"%.32s\": not a time in Unix seconds", end);
	if (s > 0 && e > 0 && e <= s)
		return err_set(err, ERR_INVALID,
			       "http parameter start must be before end: start=%llu end=%llu",
			       (unsigned long long)s, (unsigned long long)e);
	return 0;
}

static bool accepts(struct http_request *req, const char *media_type)
{
	const char *accept = http_request_header(req, "Accept");

	return accept != NULL && strstr(accept, media_type) != NULL;
}

static int parse_lookup(struct lookup *l, struct err *err)
{
	const char *format = http_request_param(l->req, "format");

	if (format != NULL && strcmp(format, "otlp") != 0 && *format != '\0')
		return err_set(err, ERR_INVALID, "format \"%.32s\": must be otlp, or left out",
			       format);
	if (format != NULL && *format != '\0')
		l->form = FORM_OTLP;
	l->wants_protobuf = accepts(l->req, "application/protobuf");
	if (trace_by_id_parse(l->req->rest, l->request.id, err) < 0 || check_times(l->req, err) < 0)
		return -1;
	if (l->request.is_internal && querier_request_parse(l->req, &l->request, err) < 0)
		return -1;
	return parse_tenants(&l->request, http_request_header(l->req, "X-Scope-OrgID"), err);
}

/* ---- answer ---- */

static int write_v2_json(const struct trace_by_id *t, struct buf *out, struct err *err)
{
	struct bytes otlp = buf_bytes(&t->otlp);
	struct json_writer w = JSON_WRITER(out);

	json_writer_object(&w);
	json_writer_key(&w, "trace");
	json_writer_object(&w);
	if (otlp_json_encode_list(&w, "resourceSpans", &otlp, 1, OTLP_JSON_TEMPO, err) < 0)
		return -1;
	json_writer_object_end(&w);
	json_writer_key(&w, "metrics");
	json_writer_object(&w);
	if (t->inspected_bytes > 0) {
		json_writer_key(&w, "inspectedBytes");
		json_writer_u64_str(&w, t->inspected_bytes);
	}
	json_writer_object_end(&w);
	if (!t->is_complete) {
		json_writer_key(&w, "status");
		json_writer_str(&w, "PARTIAL");
		json_writer_key(&w, "message");
		json_writer_str(&w, t->why);
	}
	json_writer_object_end(&w);
	return 0;
}

static int write_v1_json(const struct trace_by_id *t, struct buf *out, struct err *err)
{
	struct bytes otlp = buf_bytes(&t->otlp);
	struct json_writer w = JSON_WRITER(out);

	json_writer_object(&w);
	if (otlp_json_encode_list(&w, "batches", &otlp, 1, OTLP_JSON_TEMPO, err) < 0)
		return -1;
	json_writer_object_end(&w);
	return 0;
}

static int write_form(struct lookup *l, struct err *err)
{
	struct bytes otlp = buf_bytes(&l->trace.otlp);

	if (l->wants_protobuf) {
		if (l->request.is_internal)
			tempo_proto_internal(&l->trace, &l->body);
		else if (l->form == FORM_V2)
			tempo_proto_response(&l->trace, &l->body);
		else
			tempo_proto_trace(otlp, &l->body);
		return 0;
	}
	if (l->form == FORM_OTLP)
		return otlp_json_encode(&otlp, 1, OTLP_JSON, 0, &l->body, err);
	return l->form == FORM_V2 ? write_v2_json(&l->trace, &l->body, err)
				  : write_v1_json(&l->trace, &l->body, err);
}

/* The body, charged: first by a guess, then for what it is. */
static int write_body(struct lookup *l, struct err *err)
{
	size_t guess = l->trace.otlp.n * (l->wants_protobuf ? 1 : JSON_GROWTH);

	if (query_memory_charge(&l->api->memory, l->trace.charged, guess, err) < 0)
		return -1;
	l->charged = guess;
	if (write_form(l, err) < 0)
		return -1;
	if (l->body.n > guess && query_memory_charge(&l->api->memory, l->trace.charged + guess,
						     l->body.n - guess, err) < 0)
		return -1;
	if (l->body.n < guess)
		query_memory_release(&l->api->memory, guess - l->body.n);
	l->charged = l->body.n;
	return 0;
}

/* On a pool thread. */
static void look_up(void *arg)
{
	struct lookup *l = arg;

	if (trace_places_find(&l->api->places, &l->request, &l->trace, &l->live_since_ns,
			      &l->is_gone, &l->err) < 0)
		return;
	if (trace_by_id_combine(&l->trace, &l->err) == 0)
		write_body(l, &l->err);
}

/* The answer's bytes, charged until the last of them is sent. */
struct charged_body {
	struct query_memory *memory;
	size_t n;
};

static void release_body(struct rcbuf *b)
{
	struct charged_body *own = b->owner;

	query_memory_release(own->memory, own->n);
	free(own);
	free(b->p);
}

static struct rcbuf *take_body(struct lookup *l)
{
	struct charged_body *own = xcalloc(1, sizeof(*own));
	struct rcbuf *b = xcalloc(1, sizeof(*b));

	*own = (struct charged_body){ &l->api->memory, l->charged };
	l->charged = 0;
	b->p = buf_take(&l->body, &b->n);
	b->cap = b->n;
	atomic_init(&b->refs, 1);
	b->release = release_body;
	b->owner = own;
	return b;
}

static void free_lookup(struct lookup *l)
{
	http_request_on_gone(l->req, NULL, NULL);
	http_request_unref(l->req);
	trace_by_id_fini(&l->trace);
	buf_fini(&l->body);
	query_memory_release(&l->api->memory, l->charged);
	free(l);
}

/* How long ago "how far back" is, for who asks on behalf of others. */
static size_t live_header(const struct lookup *l, char text[24], struct http_header *h)
{
	if (!l->request.is_internal || l->live_since_ns == 0)
		return 0;
	snprintf(text, 24, "%llu",
		 (unsigned long long)((clock_mono_ns() - l->live_since_ns) / NS_PER_MS));
	*h = (struct http_header){ PEER_LIVE_HEADER, text };
	return 1;
}

static void respond_found(struct lookup *l)
{
	struct http_header live;
	char text[24];
	size_t n = live_header(l, text, &live);
	bool is_v2 = l->form == FORM_V2;
	int status = 200;

	if (!l->trace.is_complete && !is_v2)
		status = 206;
	http_respond(l->req, &(struct http_answer){
				     .status = status,
				     .content_type = l->wants_protobuf ? "application/protobuf"
								       : "application/json",
				     .headers = &live,
				     .n_headers = n,
				     .shared = take_body(l),
			     });
}

/* On the loop. */
static void looked_up(void *arg)
{
	struct lookup *l = arg;
	struct query_api *api = l->api;

	if (l->err.kind == ERR_TOO_LARGE) {
		atomic_fetch_add(&api->failed, 1);
		http_respond_text(l->req, 422, "%s", l->err.msg);
	} else if (l->err.retryable) {
		atomic_fetch_add(&api->failed, 1);
		http_respond_error(l->req, 503, 1, "%s", l->err.msg);
	} else if (l->err.kind != ERR_NONE) {
		atomic_fetch_add(&api->failed, 1);
		http_respond_text(l->req, 500, "%s", l->err.msg);
	} else if (l->trace.n_spans > 0 || l->form == FORM_V2) {
		atomic_fetch_add(l->trace.n_spans ? &api->found : &api->not_found, 1);
		respond_found(l);
	} else if (!l->trace.is_complete) {
		/* "Not found" would claim that every place was asked. */
		atomic_fetch_add(&api->failed, 1);
		http_respond_error(l->req, 503, 1, "incomplete: %s", l->trace.why);
	} else {
		atomic_fetch_add(&api->not_found, 1);
		http_respond(l->req, &(struct http_answer){ .status = 404 });
	}
	free_lookup(l);
	atomic_fetch_sub(&api->jobs, 1);
}

/* The server answered in our place. A client that closed may have closed its sending half only, and
 * wait; another query node has not: it gave up, and what it no longer wants would be in the way of
 * what it asks for next. */
static void lookup_gone(struct http_request *req, enum http_gone why, void *arg)
{
	struct lookup *l = arg;

	(void)req;
	if (why != HTTP_GONE_CLIENT || l->request.is_internal)
		atomic_store(&l->is_gone, true);
}

static bool refuse_unready(struct query_api *api, struct http_request *req)
{
	char why[256] = "starting";

	if (api->is_running(api->arg, why, sizeof(why)))
		return false;
	http_respond_error(req, 503, 1, "not ready: %s", why);
	return true;
}

/* A front end without a store has nothing that another could ask it for. */
static bool refuse_without_store(struct query_api *api, struct http_request *req)
{
	if (api->places.store != NULL)
		return false;
	http_respond_error(req, 501, 0,
			   "this front end has no trace_store: ask its queriers and builders");
	return true;
}

static void serve_trace(struct query_api *api, struct http_request *req, enum form form,
			bool is_internal)
{
	struct lookup *l;
	struct err err = ERR_INIT;

	/* Before the log is replayed an answer could miss acknowledged spans. */
	if (refuse_unready(api, req))
		return;
	l = xcalloc(1, sizeof(*l));
	l->api = api;
	l->form = form;
	l->req = http_request_ref(req);
	l->request.scope = store_scope_all();
	l->request.is_internal = is_internal;
	trace_by_id_init(&l->trace, api->max_trace_bytes, &api->memory);
	l->trace.keep_what_fits = form == FORM_V2;
	if (parse_lookup(l, &err) < 0) {
		http_respond_text(req, 400, "%s", err.msg);
		free_lookup(l);
		return;
	}
	http_request_on_gone(req, lookup_gone, l);
	l->job = (struct loop_job){ .work = look_up, .done = looked_up, .arg = l };
	atomic_fetch_add(&api->jobs, 1);
	loop_work(http_request_loop(req), &l->job);
}

static void serve_v1(struct http_request *req, void *arg)
{
	serve_trace(arg, req, FORM_V1, false);
}

static void serve_v2(struct http_request *req, void *arg)
{
	serve_trace(arg, req, FORM_V2, false);
}

/* What other query nodes ask. */
static void serve_querier(struct http_request *req, void *arg)
{
	if (!refuse_without_store(arg, req))
		serve_trace(arg, req, FORM_V2, true);
}

/* ---- the small ones ---- */

static void serve_echo(struct http_request *req, void *arg)
{
	(void)arg;
	http_respond_text(req, 200, "echo\n");
}

static void serve_ready(struct http_request *req, void *arg)
{
	struct query_api *api = arg;
	char why[256] = "starting";

	if (api->is_ready(api->arg, why, sizeof(why)))
		http_respond_text(req, 200, "ready\n");
	else
		http_respond_text(req, 503, "not ready: %s\n", why);
}

/* goVersion and the rest are Tempo's keys; Grafana looks at version alone, and wants 2.7 or later
 * for its newest calls. */
static void serve_buildinfo(struct http_request *req, void *arg)
{
	static const char body[] =
		"{\"version\":\"2.10.0-spanmill-" SPANMILL_VERSION "\",\"revision\":\"\","
		"\"branch\":\"\",\"buildUser\":\"\",\"buildDate\":\"\",\"goVersion\":\"\"}";

	(void)arg;
	http_respond(req,
		     &(struct http_answer){ .status = 200,
					    .content_type = "application/json",
					    .body = { (const uint8_t *)body, sizeof(body) - 1 },
					    .body_is_static = true });
}

/* What Grafana asks Tempo for and is not here: "page not found" would read as a wrong address. */
static void serve_absent(struct http_request *req, void *arg)
{
	(void)arg;
	http_respond_text(req, 404,
			  "%.100s: not supported: traces are found by id, at /api/traces/<id> and "
			  "/api/v2/traces/<id>\n",
			  req->path);
}

/* ---- flush ----
 *
 *   request -> waiting --(no flush under way)--> flushing: store_flush, then all are answered
 *
 * A flush may take long, and pool threads are few, so that one runs at a time. It serves who asked
 * before it began.
 */

struct flush {
	struct query_api *api;
	struct http_request *req;
	struct flush *next;
	struct loop_job job; /* of the first of a list */
	struct err err;
};

/* On the request's loop. */
static void answer_flush(struct http_request *req, void *arg)
{
	struct flush *f = arg;
	struct query_api *api = f->api;

	if (f->err.kind == ERR_NONE)
		http_respond_text(req, 200, "flushed\n");
	else
		http_respond_error(req, 503, 1, "%s", f->err.msg);
	http_request_unref(f->req);
	free(f);
	atomic_fetch_sub(&api->jobs, 1);
}

static void start_flush(struct query_api *api, struct loop *loop);

static void flush_store(void *arg)
{
	struct query_api *api = arg;

	store_flush(api->places.store, &api->flushing->err);
}

/* On the loop of the first of the list. */
static void flushed(void *arg)
{
	struct query_api *api = arg;
	struct flush *list = api->flushing, *next;
	struct loop *loop = http_request_loop(list->req);
	struct err err = list->err;

	pthread_mutex_lock(&api->flush_lock);
	api->flushing = api->waiting;
	api->waiting = NULL;
	if (api->flushing != NULL)
		start_flush(api, loop);
	pthread_mutex_unlock(&api->flush_lock);
	for (; list != NULL; list = next) {
		next = list->next;
		list->err = err;
		http_request_call(list->req, answer_flush, list);
	}
}

/* Under the lock, on this loop. */
static void start_flush(struct query_api *api, struct loop *loop)
{
	struct flush *f = api->flushing;

	f->job = (struct loop_job){ .work = flush_store, .done = flushed, .arg = api };
	loop_work(loop, &f->job);
}

static void serve_flush(struct http_request *req, void *arg)
{
	struct query_api *api = arg;
	struct flush *f;

	if (refuse_unready(api, req) || refuse_without_store(api, req))
		return;
	f = xcalloc(1, sizeof(*f));
	f->api = api;
	f->req = http_request_ref(req);
	atomic_fetch_add(&api->jobs, 1);
	pthread_mutex_lock(&api->flush_lock);
	if (api->flushing == NULL) {
		api->flushing = f;
		start_flush(api, http_request_loop(req));
	} else {
		f->next = api->waiting;
		api->waiting = f;
	}
	pthread_mutex_unlock(&api->flush_lock);
}

void query_api_init(struct query_api *api)
{
	pthread_mutex_init(&api->flush_lock, NULL);
}

void query_api_fini(struct query_api *api)
{
	pthread_mutex_destroy(&api->flush_lock);
}

void query_api_routes(struct query_api *api, struct http_route routes[QUERY_ROUTES])
{
	const struct http_route table[QUERY_ROUTES] = {
		{ .method = "GET",
		  .path = "/api/traces/",
		  .is_prefix = true,
		  .handler = serve_v1,
		  .arg = api },
		{ .method = "GET",
		  .path = "/api/v2/traces/",
		  .is_prefix = true,
		  .handler = serve_v2,
		  .arg = api },
		{ .method = "GET",
		  .path = "/querier/api/traces/",
		  .is_prefix = true,
		  .handler = serve_querier,
		  .arg = api },
		{ .method = "GET",
		  .path = "/querier/api/v2/traces/",
		  .is_prefix = true,
		  .handler = serve_querier,
		  .arg = api },
		{ .method = "GET", .path = "/api/echo", .handler = serve_echo, .arg = api },
		{ .method = "GET",
		  .path = "/api/status/buildinfo",
		  .handler = serve_buildinfo,
		  .arg = api },
		{ .method = "GET", .path = "/ready", .handler = serve_ready, .arg = api },
		{ .method = "GET", .path = "/api/search", .handler = serve_absent },
		{ .method = "GET",
		  .path = "/api/search/",
		  .is_prefix = true,
		  .handler = serve_absent },
		{ .method = "GET",
		  .path = "/api/v2/search/",
		  .is_prefix = true,
		  .handler = serve_absent },
		{ .method = "GET",
		  .path = "/api/metrics/",
		  .is_prefix = true,
		  .handler = serve_absent },
		{ .method = "POST", .path = "/flush", .handler = serve_flush, .arg = api },
	};

	memcpy(routes, table, sizeof(table));
}
