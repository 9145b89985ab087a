/* SPDX-License-Identifier: Apache-2.0
 *
 * http_request.c - what was received, copied once, and how it is answered.
 *
 * DESIGN: headers and parameters are copied out of libmicrohttpd's pool into the one allocation of
 * the request (some 1 KB, 100 ns), because a held request is looked at by other threads and may
 * outlive its connection.
 *
 *   [http_exchange][pairs ...][method NUL path NUL client NUL name NUL value NUL ...]
 *
 * An answer made while libmicrohttpd is inside its access handler waits in `response` for the
 * handler to queue it; one made for a suspended request is queued and the connection resumed, once,
 * guarded by the state HELD -> ANSWERED.
 *
 * OWNERSHIP, THREADS: see http_request.h. The last reference may go on any thread; by then nothing
 * of libmicrohttpd is left in the request (http_exchange_detach).
 *
 * LIMITS: the headers by connection_memory; answers by who makes them.
 */
#include "net/http_private.h"

#include "base/clock.h"
#include "base/mem.h"

#include <stdarg.h>
#include <stdio.h>
#include <strings.h>
#include <sys/socket.h>

enum { GZIP_FROM = 1024, GZIP_LEVEL = 1, MESSAGE_MAX = 512 };

/* ---- what was received ---- */

struct pair_copy {
	struct http_exchange *ex; /* NULL: only measure */
	size_t n, text_bytes;
	char *to;
};

static const char *copy_text(struct pair_copy *pc, const char *s, size_t n)
{
	char *start = pc->to;

	if (n > 0)
		memcpy(start, s, n);
	start[n] = '\0';
	pc->to += n + 1;
	return start;
}

static enum MHD_Result each_pair(void *arg, enum MHD_ValueKind kind, const char *name,
				 size_t name_n, const char *value, size_t value_n)
{
	struct pair_copy *pc = arg;

	pc->text_bytes += name_n + 1 + value_n + 1;
	if (pc->ex != NULL) {
		struct http_pair *p = &pc->ex->pairs[pc->n];

		p->is_param = kind == MHD_GET_ARGUMENT_KIND;
		p->name = copy_text(pc, name, name_n);
		p->value = copy_text(pc, value, value ? value_n : 0);
	}
	pc->n++;
	return MHD_YES;
}

static void walk_pairs(struct http_conn *c, struct pair_copy *pc)
{
	MHD_get_connection_values_n(c->mhd, MHD_HEADER_KIND, each_pair, pc);
	MHD_get_connection_values_n(c->mhd, MHD_GET_ARGUMENT_KIND, each_pair, pc);
}

struct http_exchange *http_exchange_new(struct http_conn *c, const char *method, const char *path)
{
	struct pair_copy pc = { 0 };
	struct http_exchange *ex = NULL;
	size_t bytes = sizeof(*ex) + strlen(method) + strlen(path) + strlen(c->client) + 3;

	walk_pairs(c, &pc);
	bytes += pc.n * sizeof(ex->pairs[0]) + pc.text_bytes;
	ex = xmalloc(bytes);
	memset(ex, 0, sizeof(*ex));
	ex->budget = c->server->settings.budget;
	ex->charged = bytes;
	budget_force(ex->budget, bytes);
	ex->n_pairs = pc.n;
	pc = (struct pair_copy){ .ex = ex, .to = (char *)&ex->pairs[pc.n] };
	ex->req.method = copy_text(&pc, method, strlen(method));
	ex->req.path = copy_text(&pc, path, strlen(path));
	ex->req.client = copy_text(&pc, c->client, strlen(c->client));
	ex->req.rest = ex->req.path + strlen(path);
	walk_pairs(c, &pc);
	ex->req.received_ns = clock_mono_ns();
	ex->req.deadline_ns = UINT64_MAX;
	ex->state = EX_BEGIN;
	ex->loop = c->server->loop;
	ex->conn = c;
	atomic_init(&ex->refs, 1);
	return ex;
}

unsigned http_exchange_count(const struct http_exchange *ex, const char *name)
{
	unsigned n = 0;

	for (size_t i = 0; i < ex->n_pairs; i++)
		n += !ex->pairs[i].is_param && strcasecmp(ex->pairs[i].name, name) == 0;
	return n;
}

const char *http_request_header(const struct http_request *req, const char *name)
{
	const struct http_exchange *ex = CONTAINER_OF(req, struct http_exchange, req);

	for (size_t i = 0; i < ex->n_pairs; i++)
		if (!ex->pairs[i].is_param && strcasecmp(ex->pairs[i].name, name) == 0)
			return ex->pairs[i].value;
	return NULL;
}

const char *http_request_param(const struct http_request *req, const char *name)
{
	const struct http_exchange *ex = CONTAINER_OF(req, struct http_exchange, req);

	for (size_t i = 0; i < ex->n_pairs; i++)
		if (ex->pairs[i].is_param && strcmp(ex->pairs[i].name, name) == 0)
			return ex->pairs[i].value;
	return NULL;
}

bool http_request_param_at(const struct http_request *req, size_t i, const char **name,
			   const char **value)
{
	const struct http_exchange *ex = CONTAINER_OF(req, struct http_exchange, req);

	for (size_t k = 0; k < ex->n_pairs; k++) {
		if (!ex->pairs[k].is_param || i-- > 0)
			continue;
		*name = ex->pairs[k].name;
		*value = ex->pairs[k].value;
		return true;
	}
	return false;
}

bool http_request_is_type(const struct http_request *req, const char *media_type)
{
	const char *v = http_request_header(req, "Content-Type");
	size_t n = strlen(media_type);

	if (v == NULL)
		return false;
	v += strspn(v, " \t");
	if (strncasecmp(v, media_type, n) != 0)
		return false;
	v += n;
	v += strspn(v, " \t");
	return *v == '\0' || *v == ';';
}

/* ---- references ---- */

struct loop *http_request_loop(const struct http_request *req)
{
	return CONTAINER_OF(req, const struct http_exchange, req)->loop;
}

struct http_request *http_request_ref(struct http_request *req)
{
	atomic_fetch_add_explicit(&exchange_of(req)->refs, 1, memory_order_relaxed);
	return req;
}

void http_request_unref(struct http_request *req)
{
	struct http_exchange *ex = NULL;

	if (req == NULL)
		return;
	ex = exchange_of(req);
	if (atomic_fetch_sub_explicit(&ex->refs, 1, memory_order_acq_rel) != 1)
		return;
	assert(ex->response == NULL && ex->conn == NULL);
	rcbuf_unref(ex->req.body);
	budget_release(ex->budget, ex->charged);
	free(ex);
}

void http_exchange_gone(struct http_exchange *ex, enum http_gone why)
{
	void (*fn)(struct http_request *, enum http_gone, void *) = ex->gone;

	ex->gone = NULL;
	if (fn != NULL)
		fn(&ex->req, why, ex->gone_arg);
}

void http_exchange_detach(struct http_exchange *ex)
{
	if (ex->state == EX_HELD)
		ex->conn->server->n_held--;
	if (ex->response != NULL)
		MHD_destroy_response(ex->response);
	ex->response = NULL;
	ex->conn->current = NULL;
	ex->conn = NULL;
	if (ex->state != EX_ANSWERED)
		http_exchange_gone(ex, HTTP_GONE_STOP);
	ex->state = EX_GONE;
	http_request_unref(&ex->req);
}

static void run_call(void *arg)
{
	struct http_exchange *ex = arg;

	ex->call(&ex->req, ex->call_arg);
	http_request_unref(&ex->req);
}

void http_request_call(struct http_request *req, void (*fn)(struct http_request *, void *arg),
		       void *arg)
{
	struct http_exchange *ex = exchange_of(http_request_ref(req));

	ex->call = fn;
	ex->call_arg = arg;
	ex->task = (struct loop_task){ .fn = run_call, .arg = ex };
	loop_post(ex->loop, &ex->task);
}

void http_request_set_max_body(struct http_request *req, uint64_t bytes)
{
	exchange_of(req)->max_body = bytes;
}

void http_request_challenge(struct http_request *req, const char *challenge)
{
	exchange_of(req)->challenge = challenge;
}

void http_request_gate(struct http_request *req, void (*fn)(struct http_request *, void *arg),
		       void *arg)
{
	exchange_of(req)->gate = fn;
	exchange_of(req)->gate_arg = arg;
}

void http_request_proceed(struct http_request *req)
{
	struct http_exchange *ex = exchange_of(req);

	if (ex->state != EX_HELD)
		return;
	http_upload_handle(ex);
	/* It was held before the handler could ask for this. */
	if (ex->state == EX_HELD && ex->gone != NULL && !ex->conn->watched)
		http_conn_watch(ex->conn);
}

void http_request_set_deadline(struct http_request *req, uint64_t deadline_ns)
{
	req->deadline_ns = MIN(req->deadline_ns, deadline_ns);
}

void http_request_on_gone(struct http_request *req,
			  void (*fn)(struct http_request *, enum http_gone, void *arg), void *arg)
{
	exchange_of(req)->gone = fn;
	exchange_of(req)->gone_arg = arg;
}

/* ---- answers ---- */

static void unref_body(void *arg)
{
	rcbuf_unref(arg);
}

static bool has_header(const struct http_answer *a, const char *name)
{
	for (size_t i = 0; i < a->n_headers; i++)
		if (strcasecmp(a->headers[i].name, name) == 0)
			return true;
	return false;
}

/* A gzipped body, charged until it is sent. */
struct packed_body {
	uint8_t *p;
	size_t n;
	struct budget *budget;
};

static void free_packed(void *arg)
{
	struct packed_body *b = arg;

	budget_release(b->budget, b->n);
	free(b->p);
	free(b);
}

static struct MHD_Response *packed_response(const struct http_exchange *ex, struct buf *packed)
{
	struct packed_body *b = xcalloc(1, sizeof(*b));

	/* By force: the plain body it takes the place of is larger, and goes now. */
	b->budget = ex->conn->server->settings.budget;
	budget_force(b->budget, packed->n);
	b->p = buf_take(packed, &b->n);
	return MHD_create_response_from_buffer_with_free_callback_cls(b->n, b->p, free_packed, b);
}

/* The gzipped body, when that is asked for and worth it; else NULL. */
static struct MHD_Response *gzip_response(const struct http_exchange *ex,
					  const struct http_answer *a, struct bytes body)
{
	const char *accept = http_request_header(&ex->req, "Accept-Encoding");
	struct buf b = BUF_INIT;
	struct MHD_Response *r = NULL;

	if (accept == NULL || body.n < GZIP_FROM || has_header(a, "Content-Encoding") ||
	    (strcmp(ex->req.method, "GET") != 0 && strcmp(ex->req.method, "HEAD") != 0) ||
	    !content_coding_accepts_gzip(bytes_str(accept)))
		return NULL;
	if (content_encode(CONTENT_GZIP, GZIP_LEVEL, body, &b, NULL) < 0 || b.n >= body.n) {
		buf_fini(&b);
		return NULL;
	}
	r = packed_response(ex, &b);
	MHD_add_response_header(r, "Content-Encoding", "gzip");
	MHD_add_response_header(r, "Vary", "Accept-Encoding");
	return r;
}

static struct MHD_Response *body_response(const struct http_exchange *ex,
					  const struct http_answer *a)
{
	struct bytes body = a->shared ? (struct bytes){ a->shared->p, a->shared->n } : a->body;
	struct MHD_Response *r = gzip_response(ex, a, body);
	/* libmicrohttpd's signature wants it writable, but it only reads. */
	void *p = body.p ? (void *)(uintptr_t)body.p : (void *)(uintptr_t) "";

	if (r != NULL) {
		rcbuf_unref(a->shared);
		return r;
	}
	if (a->shared != NULL)
		return MHD_create_response_from_buffer_with_free_callback_cls(body.n, p, unref_body,
									      a->shared);
	return MHD_create_response_from_buffer(
		body.n, p, a->body_is_static ? MHD_RESPMEM_PERSISTENT : MHD_RESPMEM_MUST_COPY);
}

/* Headers being collected for an answer: libmicrohttpd's, or a text. */
struct http_headers {
	struct MHD_Response *response;
	struct buf *text;
};

void http_answer_header(struct http_headers *to, const char *name, const char *value)
{
	if (to->response != NULL)
		MHD_add_response_header(to->response, name, value);
	else
		buf_printf(to->text, "%s: %s\r\n", name, value);
}

/* What every answer of this status carries. */
static void decorate(const struct http_exchange *ex, int status, struct MHD_Response *response,
		     struct buf *text)
{
	const struct http_settings *c = &ex->conn->server->settings;
	struct http_headers to = { response, text };

	if (status == 401 && ex->challenge != NULL)
		http_answer_header(&to, "WWW-Authenticate", ex->challenge);
	if (c->decorate != NULL)
		c->decorate(&ex->req, &to, c->admit_arg);
}

static struct MHD_Response *make_response(const struct http_exchange *ex,
					  const struct http_answer *a)
{
	struct MHD_Response *r = body_response(ex, a);
	char number[16];

	if (r == NULL)
		abort(); /* out of memory */
	if (a->content_type != NULL)
		MHD_add_response_header(r, "Content-Type", a->content_type);
	for (size_t i = 0; i < a->n_headers; i++)
		MHD_add_response_header(r, a->headers[i].name, a->headers[i].value);
	if (a->retry_after_s > 0) {
		snprintf(number, sizeof(number), "%u", a->retry_after_s);
		MHD_add_response_header(r, "Retry-After", number);
	}
	decorate(ex, a->status, r, NULL);
	if (a->close || ex->must_close || ex->conn->server->draining)
		MHD_add_response_header(r, "Connection", "close");
	return r;
}

static const char *reason_of(int status)
{
	switch (status) {
	case 200:
		return "OK";
	case 408:
		return "Request Timeout";
	case 413:
		return "Content Too Large";
	case 503:
		return "Service Unavailable";
	default:
		return "Answer"; /* nobody reads this phrase */
	}
}

/* Write a whole answer to the socket and end our sending half. */
static void send_raw(const struct http_exchange *ex, const struct http_answer *a)
{
	struct bytes body = a->shared ? (struct bytes){ a->shared->p, a->shared->n } : a->body;
	struct buf b = BUF_INIT;
	ssize_t n = 1;

	buf_printf(&b, "HTTP/1.1 %d %s\r\nConnection: close\r\nContent-Length: %zu\r\n", a->status,
		   reason_of(a->status), body.n);
	if (a->content_type != NULL)
		buf_printf(&b, "Content-Type: %s\r\n", a->content_type);
	for (size_t i = 0; i < a->n_headers; i++)
		buf_printf(&b, "%s: %s\r\n", a->headers[i].name, a->headers[i].value);
	if (a->retry_after_s > 0)
		buf_printf(&b, "Retry-After: %u\r\n", a->retry_after_s);
	decorate(ex, a->status, NULL, &b);
	buf_add_str(&b, "\r\n");
	if (strcmp(ex->req.method, "HEAD") != 0)
		buf_add_bytes(&b, body);
	/* Nothing is under way on this connection, so what fits the socket's buffer goes out. */
	for (size_t at = 0; at < b.n && n > 0; at += (size_t)MAX(n, 0))
		n = send(ex->conn->fd, b.p + at, b.n - at, MSG_DONTWAIT | MSG_NOSIGNAL);
	shutdown(ex->conn->fd, SHUT_WR);
	buf_fini(&b);
}

/* Has the client closed its sending half? */
static bool is_half_closed(const struct http_conn *c)
{
	char byte = 0;

	return recv(c->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0;
}

enum MHD_Result http_exchange_queue(struct http_exchange *ex)
{
	struct http_conn *c = ex->conn;
	enum MHD_Result rc = MHD_queue_response(c->mhd, ex->status, ex->response);

	MHD_destroy_response(ex->response);
	ex->response = NULL;
	ex->state = EX_ANSWERED;
	http_conn_phase(c, PHASE_SEND, c->server->settings.write_timeout_ms);
	return rc;
}

/* The connection is suspended: answer and wake it, once. */
static void answer_held(struct http_exchange *ex, const struct http_answer *a)
{
	struct http_conn *c = ex->conn;

	http_conn_unwatch(c);
	c->server->n_held--;
	if (is_half_closed(c)) {
		/* Woken, libmicrohttpd reads before it writes, meets the end of file and drops the
		 * answer; but this client may be waiting for it. */
		send_raw(ex, a);
		rcbuf_unref(a->shared);
		ex->state = EX_ANSWERED;
		http_conn_phase(c, PHASE_SEND, c->server->settings.write_timeout_ms);
	} else {
		ex->response = make_response(ex, a);
		ex->status = (unsigned)a->status;
		if (http_exchange_queue(ex) != MHD_YES)
			shutdown(c->fd, SHUT_RDWR);
	}
	MHD_resume_connection(c->mhd);
	http_server_dirty(c->server);
}

static bool is_open(const struct http_exchange *ex)
{
	return ex->conn != NULL && ex->response == NULL &&
	       (ex->state == EX_BEGIN || ex->state == EX_READ || ex->state == EX_HANDLER ||
		ex->state == EX_HELD);
}

int http_respond(struct http_request *req, const struct http_answer *answer)
{
	struct http_exchange *ex = exchange_of(req);

	if (!is_open(ex)) {
		rcbuf_unref(answer->shared);
		return -1;
	}
	if (ex->state == EX_HELD) {
		answer_held(ex, answer);
	} else {
		ex->response = make_response(ex, answer);
		ex->status = (unsigned)answer->status;
	}
	return 0;
}

int http_respond_text(struct http_request *req, int status, const char *fmt, ...)
{
	va_list ap;
	char text[MESSAGE_MAX];

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	return http_respond(req, &(struct http_answer){
					 .status = status,
					 .content_type = "text/plain; charset=utf-8",
					 .body = bytes_str(text),
				 });
}

/* The error's body and type, as the route, the server or nobody in particular has them. */
static const char *error_body(const struct http_exchange *ex, int status, const char *message,
			      struct buf *body)
{
	const struct http_settings *set = &ex->conn->server->settings;
	const char *type = "text/plain; charset=utf-8";

	if (ex->route != NULL && ex->route->error != NULL) {
		ex->route->error(&ex->req, status, message, body, &type, ex->route->arg);
	} else if (set->error != NULL) {
		set->error(&ex->req, status, message, body, &type, set->error_arg);
	} else {
		buf_add_str(body, message);
		buf_add_char(body, '\n');
	}
	return type;
}

int http_respond_error(struct http_request *req, int status, unsigned retry_after_s,
		       const char *fmt, ...)
{
	struct http_exchange *ex = exchange_of(req);
	struct buf body = BUF_INIT;
	struct http_answer a = { .status = status, .retry_after_s = retry_after_s };
	char message[MESSAGE_MAX];
	va_list ap;
	int rc = 0;

	if (!is_open(ex))
		return -1;
	va_start(ap, fmt);
	vsnprintf(message, sizeof(message), fmt, ap);
	va_end(ap);
	a.content_type = error_body(ex, status, message, &body);
	a.body = buf_bytes(&body);
	rc = http_respond(req, &a);
	buf_fini(&body);
	return rc;
}

int http_status_of(const struct err *err)
{
	switch (err->kind) {
	case ERR_INVALID:
		return 400;
	case ERR_PERMISSION:
		return 403;
	case ERR_NOT_FOUND:
		return 404;
	case ERR_TOO_LARGE:
		return 413;
	case ERR_EXHAUSTED:
	case ERR_UNAVAILABLE:
		return 503;
	case ERR_UNIMPLEMENTED:
		return 501;
	case ERR_TIMEOUT:
		return 504;
	default:
		return 500;
	}
}

void http_exchange_send_raw(struct http_exchange *ex, int status, const char *message)
{
	struct buf body = BUF_INIT;
	struct http_answer a = { .status = ex->response != NULL ? (int)ex->status : status };

	a.content_type = error_body(ex, a.status, message, &body);
	a.body = buf_bytes(&body);
	a.retry_after_s = a.status == 503;
	send_raw(ex, &a);
	buf_fini(&body);
}
