/* SPDX-License-Identifier: Apache-2.0
 *
 * http_upload.c - from a request's headers to its handler: routes, checks, the body, inflation.
 *
 * DESIGN: libmicrohttpd calls http_upload_access once with the headers, then with pieces of the
 * body, then with size 0; an answer may be queued in the first and the last call only. So:
 *
 *   first: route, checks, `begin`, memory granted   refused -> deliver_early
 *   body:  copied into the granted memory           refused -> DISCARD
 *   last:  inflate, handler                         not answered -> suspended until it is
 *
 * A refused client must see its answer although it sends everything before it reads. A small rest
 * of the body is thrown away and the answer given at the end, which keeps the connection; a client
 * that waits for 100 Continue is answered at once; from a large one the answer goes out first and
 * the rest is read by http_linger; and one that turned out too large on the way past DISCARD_MAX is
 * answered with raw bytes, because libmicrohttpd cannot.
 *
 * LIMITS: max_body counts bytes on the wire, and again inflated; Content-Length is charged to the
 * budget at once, a chunked body by doubling steps before each step is read.
 *
 * SPEC: RFC 9112 6.3; INTERFACE.md "Receivers' answers"; reference/libmicrohttpd.md section 3.
 */
#include "net/http_private.h"

#include "base/clock.h"
#include "base/str.h"

#include <strings.h>

enum { DISCARD_MAX = 1 << 20, CHUNKED_FIRST = 16384 };

/* ---- routes ---- */

static bool method_fits(const struct http_route *r, const char *method)
{
	return strcmp(r->method, method) == 0 ||
	       (strcmp(method, "HEAD") == 0 && strcmp(r->method, "GET") == 0);
}

static bool path_fits(const struct http_route *r, const char *path)
{
	return r->is_prefix ? str_has_prefix(path, r->path) : strcmp(path, r->path) == 0;
}

/* Set ex->route: exact paths before prefixes. False when the path is known but not the method; then
 * route is one of that path, for its error callback, and allow lists the methods. */
static bool find_route(struct http_exchange *ex, struct buf *allow)
{
	const struct http_server *s = ex->conn->server;

	for (int prefixes = 0; prefixes < 2; prefixes++) {
		for (size_t i = 0; i < s->n_routes; i++) {
			const struct http_route *r = &s->routes[i];

			if (r->is_prefix != prefixes || !path_fits(r, ex->req.path))
				continue;
			ex->route = r;
			if (method_fits(r, ex->req.method))
				return true;
			buf_printf(allow, "%s%s%s", allow->n ? ", " : "", r->method,
				   strcmp(r->method, "GET") == 0 ? ", HEAD" : "");
		}
		if (ex->route != NULL)
			return false;
	}
	return true;
}

static int route_request(struct http_exchange *ex)
{
	struct buf allow = BUF_INIT;
	struct http_request *req = &ex->req;

	if (!find_route(ex, &allow)) {
		http_respond_error(req, 405, 0, "405 method not allowed, supported: [%s]",
				   buf_cstr(&allow));
		MHD_add_response_header(ex->response, "Allow", buf_cstr(&allow));
	} else if (ex->route == NULL) {
		http_respond_error(req, 404, 0, "404 page not found");
	} else if (ex->route->is_prefix) {
		req->rest = req->path + strlen(ex->route->path);
	}
	buf_fini(&allow);
	return ex->response == NULL ? 0 : -1;
}

/* ---- the headers ---- */

static int refuse_framing(struct http_exchange *ex, int status, const char *why)
{
	ex->must_close = true; /* where this request ends is anybody's guess */
	http_respond_error(&ex->req, status, 0, "%s", why);
	return -1;
}

/* What libmicrohttpd lets through and RFC 9112 6.3 calls smuggling. */
static int check_framing(struct http_exchange *ex)
{
	unsigned n_length = http_exchange_count(ex, "Content-Length");
	unsigned n_coding = http_exchange_count(ex, "Transfer-Encoding");
	const char *length = http_request_header(&ex->req, "Content-Length");
	const char *coding = http_request_header(&ex->req, "Transfer-Encoding");
	const char *expect = http_request_header(&ex->req, "Expect");

	ex->expects_continue = expect != NULL && strcasecmp(expect, "100-continue") == 0;
	if (n_length > 1)
		return refuse_framing(ex, 400, "more than one Content-Length");
	if (n_length > 0 && n_coding > 0)
		return refuse_framing(ex, 400, "Content-Length beside Transfer-Encoding");
	if (n_coding > 1 || (coding != NULL && strcasecmp(coding, "chunked") != 0))
		return refuse_framing(ex, 501, "only the transfer coding chunked is understood");
	if (length != NULL && str_to_u64(bytes_str(length), &ex->length) < 0)
		return refuse_framing(ex, 400, "Content-Length is not a number");
	ex->chunked = coding != NULL;
	if (ex->conn->nul_in_path)
		return refuse_framing(ex, 400, "the path has a NUL byte");
	return 0;
}

static int check_coding(struct http_exchange *ex)
{
	static const struct http_header accepted = { "Accept-Encoding",
						     "gzip, deflate, zstd, snappy" };
	const char *name = http_request_header(&ex->req, "Content-Encoding");

	if (name == NULL || (!ex->chunked && ex->length == 0))
		return 0;
	if (http_exchange_count(ex, "Content-Encoding") == 1 &&
	    content_coding_parse(bytes_str(name), &ex->coding) == 0)
		return 0;
	http_respond_error(&ex->req, 415, 0, "unsupported Content-Encoding: %.64s", name);
	MHD_add_response_header(ex->response, accepted.name, accepted.value);
	return -1;
}

static int refuse_too_large(struct http_exchange *ex)
{
	http_respond_error(&ex->req, 413, 0, "request body too large: more than %llu bytes",
			   (unsigned long long)ex->max_body);
	return -1;
}

/* The budget said no to `bytes`: for now, or for ever? */
static int refuse_memory(struct http_exchange *ex, size_t bytes)
{
	const struct budget *b = ex->conn->server->settings.budget;

	if (bytes > (uint64_t)b->limit)
		http_respond_error(&ex->req, 413, 0,
				   "request body too large: %zu bytes, memory budget %lld", bytes,
				   (long long)b->limit);
	else
		http_respond_error(&ex->req, 503, 1, "memory budget spent, try again later");
	return -1;
}

static struct rcbuf *new_body(const struct http_exchange *ex, size_t n)
{
	struct budget *budget = ex->conn->server->settings.budget;

	return budget_allows_body(budget, n) ? rcbuf_new(budget, n) : NULL;
}

/* Memory is granted before bytes are read. */
static int reserve_body(struct http_exchange *ex)
{
	if (ex->length > ex->max_body)
		return refuse_too_large(ex);
	if (ex->length == 0)
		return 0; /* none, or chunked: by steps */
	ex->req.body = new_body(ex, (size_t)ex->length);
	return ex->req.body != NULL ? 0 : refuse_memory(ex, (size_t)ex->length);
}

/* ---- refused before the body was read ---- */

static enum MHD_Result deliver_early(struct http_exchange *ex)
{
	bool small = ex->chunked || ex->length <= DISCARD_MAX;

	ex->state = EX_DISCARD;
	if (small && !ex->must_close && !ex->expects_continue)
		return MHD_YES; /* answered in the last call */
	if (ex->chunked || ex->length > 0 || ex->must_close)
		http_linger_start(&ex->conn->server->lingers, ex->conn->fd);
	return http_exchange_queue(ex);
}

static enum MHD_Result first_call(struct http_conn *c, const char *method, const char *url,
				  void **slot)
{
	const struct http_settings *set = &c->server->settings;
	struct http_exchange *ex = http_exchange_new(c, method, url);
	bool ok = false;

	*slot = ex;
	c->current = ex;
	ex->max_body = set->max_body;
	http_conn_phase(c, PHASE_BODY, set->body_timeout_ms);
	ok = check_framing(ex) == 0;
	if (ok && set->admit != NULL) {
		set->admit(&ex->req, set->admit_arg);
		ok = ex->response == NULL;
	}
	ok = ok && route_request(ex) == 0;
	if (ok && ex->route->max_body > 0)
		ex->max_body = ex->route->max_body;
	if (ok && ex->route->begin != NULL) {
		ex->route->begin(&ex->req, ex->route->arg);
		ok = ex->response == NULL;
	}
	if (!ok || check_coding(ex) < 0 || reserve_body(ex) < 0)
		return deliver_early(ex);
	ex->state = EX_READ;
	return MHD_YES;
}

/* ---- the body ---- */

/* Room for n more bytes of a chunked body. */
static int grow_body(struct http_exchange *ex, size_t n)
{
	struct rcbuf **b = &ex->req.body;
	struct budget *budget = ex->conn->server->settings.budget;
	size_t need = (*b ? (*b)->n : 0) + n;

	if (need > ex->max_body)
		return refuse_too_large(ex);
	if (*b == NULL) {
		*b = new_body(ex, MAX(need, CHUNKED_FIRST));
		return *b != NULL ? 0 : refuse_memory(ex, need);
	}
	if (need <= (*b)->cap)
		return 0;
	if (!budget_allows_body(budget, need))
		return refuse_memory(ex, need);
	/* Doubled while that is granted; the last step before the limit may be just enough. */
	if (rcbuf_grow(b, MAX(need, MIN((*b)->cap * 2, (size_t)ex->max_body))) == 0 ||
	    rcbuf_grow(b, need) == 0)
		return 0;
	return refuse_memory(ex, need);
}

/* Past the answer: throw away, up to a point. */
static enum MHD_Result discard(struct http_exchange *ex, size_t n)
{
	ex->discarded += n;
	if (ex->discarded <= DISCARD_MAX)
		return MHD_YES;
	http_linger_start(&ex->conn->server->lingers, ex->conn->fd);
	http_exchange_send_raw(ex, (int)ex->status, "refused before the end of the request body");
	return MHD_NO;
}

static enum MHD_Result take_body(struct http_exchange *ex, const char *data, size_t n)
{
	if (ex->state != EX_READ)
		return discard(ex, n);
	if (grow_body(ex, n) < 0) {
		rcbuf_unref(ex->req.body);
		ex->req.body = NULL; /* nothing is held for the refused */
		ex->state = EX_DISCARD;
		return discard(ex, n);
	}
	memcpy(ex->req.body->p + ex->req.body->n, data, n);
	ex->req.body->n += n;
	return MHD_YES;
}

/* Inflate in place of the coded body. */
static int decode_body(struct http_exchange *ex)
{
	const struct http_settings *set = &ex->conn->server->settings;
	struct rcbuf *coded = ex->req.body, *plain = NULL;
	struct err err = ERR_INIT;
	int rc = 0;

	if (coded == NULL || ex->coding == CONTENT_IDENTITY)
		return 0;
	rc = content_decode_bounded(
		ex->coding, (struct bytes){ coded->p, coded->n },
		&(struct content_bounds){ (size_t)ex->max_body, set->max_decompression_ratio },
		set->budget, &plain, &err);
	rcbuf_unref(coded);
	ex->req.body = plain;
	if (rc < 0)
		http_respond_error(&ex->req, http_status_of(&err), err.kind == ERR_EXHAUSTED, "%s",
				   err.msg);
	return rc;
}

/* ---- complete ---- */

static uint64_t ms_until(uint64_t deadline_ns)
{
	uint64_t now = clock_mono_ns();

	return deadline_ns > now ? (deadline_ns - now) / NS_PER_MS + 1 : 1;
}

static enum MHD_Result hold(struct http_exchange *ex)
{
	struct http_conn *c = ex->conn;

	ex->state = EX_HELD;
	c->server->n_held++;
	http_conn_phase(c, PHASE_HELD,
			ex->req.deadline_ns == UINT64_MAX ? 0 : ms_until(ex->req.deadline_ns));
	if (ex->gone != NULL)
		http_conn_watch(c);
	MHD_suspend_connection(c->mhd);
	return MHD_YES;
}

void http_upload_handle(struct http_exchange *ex)
{
	if (decode_body(ex) == 0)
		ex->route->handler(&ex->req, ex->route->arg);
}

static enum MHD_Result last_call(struct http_exchange *ex)
{
	const struct http_server *s = ex->conn->server;

	if (ex->state == EX_DISCARD)
		return http_exchange_queue(ex);
	if (ex->state != EX_READ)
		return MHD_NO; /* answered past libmicrohttpd: close */
	ex->state = EX_HANDLER;
	if (s->settings.hold_timeout_ms > 0)
		http_request_set_deadline(&ex->req, clock_mono_ns() + s->settings.hold_timeout_ms *
									      NS_PER_MS);
	if (s->stopping)
		http_respond_error(&ex->req, 503, 1, "the server is stopping");
	else if (ex->gate != NULL)
		ex->gate(&ex->req, ex->gate_arg);
	else
		http_upload_handle(ex);
	/* Nobody else could answer it. */
	if (ex->response == NULL && atomic_load(&ex->refs) == 1)
		http_respond_error(&ex->req, 500, 0, "the handler gave no answer");
	return ex->response != NULL ? http_exchange_queue(ex) : hold(ex);
}

enum MHD_Result http_upload_access(void *server, struct MHD_Connection *mhd, const char *url,
				   const char *method, const char *version, const char *data,
				   size_t *size, void **slot)
{
	size_t n = *size;

	(void)server;
	(void)version;
	if (*slot == NULL) {
		const union MHD_ConnectionInfo *info =
			MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_SOCKET_CONTEXT);

		return first_call(info->socket_context, method, url, slot);
	}
	if (n == 0)
		return last_call(*slot);
	*size = 0;
	return take_body(*slot, data, n);
}
