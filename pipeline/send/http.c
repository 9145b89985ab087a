/* SPDX-License-Identifier: Apache-2.0
 *
 * http.c - see http.h.
 *
 * A call is started on the sender's loop, carried out by the lane's thread, and answered on the
 * loop again. Cancelling waits for the lane (which never waits for the network), since the body
 * lies in the batch; when the answer is on its way to the loop already, it is taken at once and the
 * task that brings it finds nothing to do.
 *
 * OWNERSHIP: a call owns its compressed body and its header lines; uncompressed pieces are the
 * batch's.
 */
#include "pipeline/send/http.h"

#include "base/clock.h"
#include "base/mem.h"
#include "base/str.h"
#include "net/content_coding.h"
#include "pipeline/auth.h"
#include "pipeline/conf/error.h"
#include "pipeline/telemetry.h"

#include <stdio.h>
#include <strings.h>
#include <time.h>

enum { HEADERS_EXTRA = 5, REASON_MAX = 160, RETRY_AFTER_MAX_S = 86400 };
#define ANSWER_MAX MIB

struct http_sender {
	struct http_sender_settings o;
	struct loop *loop;
	struct http_lane *lane;
	struct sending_queue *queue;
	const struct authenticator *auth; /* whose credentials are sent, or NULL */
	bool has_tenant, has_agent;       /* `headers` names one */
	bool is_cancelling;               /* no further body is begun; the loop's */
};

/* One attempt; in send_request.exporter_data. */
struct call {
	struct http_lane_call lane;
	struct http_sender *sender;
	struct send_request *request; /* NULL: answered already */
	struct loop_task task;
	struct http_payload payload;
	struct buf coded;
	struct bytes coded_piece;
	struct http_header *headers;
	struct buf credentials;
};

static void send_body(struct http_sender *s, struct send_request *r);

/* ---- answers ---- */

uint32_t http_sender_retry_after_ms(const char *value, uint64_t now_wall_ns)
{
	uint64_t seconds = 0, now_s = now_wall_ns / NS_PER_S;
	struct tm tm = { .tm_sec = 0 };
	time_t then;

	if (value == NULL)
		return 0;
	if (str_to_u64(bytes_str(value), &seconds) < 0) {
		/* An IMF-fixdate; the two obsolete forms are not worth the code. */
		if (strptime(value, "%a, %d %b %Y %H:%M:%S GMT", &tm) == NULL)
			return 0;
		then = timegm(&tm);
		seconds = then > 0 && (uint64_t)then > now_s ? (uint64_t)then - now_s : 0;
	}
	return (uint32_t)MIN(seconds, (uint64_t)RETRY_AFTER_MAX_S) * 1000;
}

static enum send_result result_of(const struct http_sender *s, int status)
{
	if (s->o.retries_5xx && status >= 500)
		return SEND_RETRYABLE;
	switch (status) {
	case 429:
	case 502:
	case 503:
	case 504:
		return SEND_RETRYABLE;
	case 413:
		return SEND_TOO_LARGE;
	default:
		return status >= 200 && status < 300 ? SEND_OK : SEND_PERMANENT;
	}
}

/* What the failure says of itself: one line of printable text. */
static void reason_of(const struct http_sender *s, const struct http_reply *reply,
		      char out[REASON_MAX])
{
	struct buf text = BUF_INIT;
	size_t n;

	if (s->o.explain != NULL)
		s->o.explain(s->o.component, reply, &text);
	if (text.n == 0)
		buf_add(&text, reply->body.p, MIN(reply->body.n, (size_t)REASON_MAX));
	n = MIN(text.n, (size_t)REASON_MAX - 1);
	for (size_t i = 0; i < n; i++)
		out[i] = (char)(text.p[i] >= 0x20 && text.p[i] < 0x7f ? text.p[i] : ' ');
	out[n] = '\0';
	buf_fini(&text);
}

/* The next body of the batch from r->progress on, in a call of its own. */
static void go_on(struct http_sender *s, struct send_request *r)
{
	struct err err = ERR_INIT;

	if (!s->is_cancelling) {
		send_body(s, r);
		return;
	}
	err_set(&err, ERR_UNAVAILABLE, "cancelled");
	sending_queue_done(r, SEND_RETRYABLE, 0, &err);
}

/* Keep the first reason why items were refused. */
static void note_refusal(struct send_request *r, const struct err *err)
{
	if (r->refusal == NULL && err->kind != ERR_NONE)
		r->refusal = arena_strdup(&r->arena, err->msg);
}

/* Go on with the rest of the batch, if there is any: in a call of its own. */
static void settled(struct call *call, struct send_request *r)
{
	struct http_sender *s = call->sender;
	const struct http_payload *p = &call->payload;
	struct err err = ERR_INIT;

	if (s->o.settled != NULL)
		s->o.settled(s->o.component, p);
	r->n_refused += p->n_failed;
	r->n_failed += p->n_failed;
	atomic_fetch_add(&s->o.component->count->send_failed, p->n_failed);
	if (p->has_more) {
		r->progress = p->next;
		go_on(s, r);
		return;
	}
	if (r->refusal != NULL)
		err_set(&err, ERR_INVALID, "%s", r->refusal);
	sending_queue_done(r, SEND_OK, r->n_refused, r->refusal != NULL ? &err : NULL);
}

static void taken(struct call *call, struct send_request *r)
{
	struct http_sender *s = call->sender;
	struct err err = ERR_INIT;
	uint32_t n_rejected = 0;

	if (s->o.accepted != NULL)
		n_rejected = s->o.accepted(s->o.component, &call->lane.reply, &err);
	if (err.kind != ERR_NONE)
		log_warn("Partial success response", "exporter", s->o.component->id, "message",
			 err.msg, "dropped_spans", LOG_NUM(n_rejected));
	r->n_refused += n_rejected;
	note_refusal(r, &err);
	settled(call, r);
}

/* A body was refused for good, and is not all of its batch: the others are sent. */
static void lost_body(struct call *call, struct send_request *r, const struct err *err)
{
	struct component *c = call->sender->o.component;

	log_error("Exporting failed. Dropping data.", "exporter", c->id, "error", err->msg,
		  "dropped_items", LOG_NUM(call->payload.n_items));
	r->n_refused += call->payload.n_items;
	r->n_failed += call->payload.n_items;
	atomic_fetch_add(&c->count->send_failed, call->payload.n_items);
	note_refusal(r, err);
	settled(call, r);
}

/* How it ends for this body; a batch of one body ends with it. */
static void refused_for(struct call *call, struct send_request *r, enum send_result result,
			const struct err *err)
{
	const struct http_sender *s = call->sender;

	if (result != SEND_RETRYABLE && s->o.shrink != NULL &&
	    s->o.shrink(s->o.component, &call->payload, result, err)) {
		go_on(call->sender, r);
		return;
	}
	if (result == SEND_PERMANENT && s->o.lost != NULL)
		s->o.lost(s->o.component, &call->payload, err);
	if (result == SEND_PERMANENT && (call->payload.has_more || r->progress > 0)) {
		lost_body(call, r, err);
		return;
	}
	if (result == SEND_PERMANENT && s->o.settled != NULL)
		s->o.settled(s->o.component, &call->payload);
	sending_queue_done(r, result, 0, err);
}

static void refused(struct call *call, struct send_request *r, enum send_result result)
{
	const struct http_reply *reply = &call->lane.reply;
	bool again = result == SEND_RETRYABLE;
	char reason[REASON_MAX], where[HTTP_WHERE_MAX];
	struct err err = ERR_INIT;

	http_client_where(call->payload.url, where);
	reason_of(call->sender, reply, reason);
	err_set(&err, again ? ERR_UNAVAILABLE : ERR_INVALID, "POST %s: HTTP status %d%s%s%s", where,
		reply->status,
		again || result == SEND_TOO_LARGE ? "" : ", which says not to try again",
		reason[0] ? ": " : "", reason);
	if (again)
		err.retry_after_ms = http_sender_retry_after_ms(
			http_reply_header(reply, "Retry-After"), clock_wall_ns());
	refused_for(call, r, result, &err);
}

static void answered(struct call *call)
{
	struct send_request *r = call->request;
	const struct http_reply *reply = &call->lane.reply;
	enum send_result result;

	if (r == NULL)
		return;
	call->request = NULL;
	if (call->lane.err.kind != ERR_NONE) {
		/* No answer that could be read: the next hop is away, or not itself. */
		sending_queue_done(r, SEND_RETRYABLE, 0, &call->lane.err);
		return;
	}
	result = result_of(call->sender, reply->status);
	if (result == SEND_OK)
		taken(call, r);
	else
		refused(call, r, result);
}

static void call_free(struct call *call)
{
	http_reply_fini(&call->lane.reply);
	buf_fini(&call->payload.own);
	buf_fini(&call->coded);
	free(call->headers);
	if (call->credentials.p != NULL)
		explicit_bzero(call->credentials.p, call->credentials.n);
	buf_fini(&call->credentials);
	free(call);
}

static void answered_task(void *arg)
{
	struct call *call = arg;

	answered(call);
	call_free(call);
}

static void lane_done(struct http_lane_call *lane)
{
	struct call *call = CONTAINER_OF(lane, struct call, lane);

	call->task = (struct loop_task){ .fn = answered_task, .arg = call };
	loop_post(call->sender->loop, &call->task);
}

/* ---- a request ---- */

static const struct coding {
	enum content_coding coding;
	const char *name;
} codings[] = {
	[COMPRESSION_NONE] = { CONTENT_IDENTITY, NULL },
	[COMPRESSION_GZIP] = { CONTENT_GZIP, "gzip" },
	[COMPRESSION_ZSTD] = { CONTENT_ZSTD, "zstd" },
	[COMPRESSION_SNAPPY] = { CONTENT_SNAPPY, "snappy" },
	[COMPRESSION_ZLIB] = { CONTENT_DEFLATE, "zlib" },
	[COMPRESSION_DEFLATE] = { CONTENT_DEFLATE, "deflate" },
	[COMPRESSION_SNAPPY_FRAMED] = { CONTENT_SNAPPY_FRAMED, "x-snappy-framed" },
	[COMPRESSION_LZ4] = { CONTENT_LZ4, "lz4" },
};

/* The body as it goes out: compressed into call->coded unless there is no coding. */
static int compress(struct call *call, const struct coding *coding, int level, struct err *err)
{
	struct http_payload *p = &call->payload;
	struct buf joined = BUF_INIT;
	struct bytes whole = buf_bytes(&p->own);
	int ret;

	if (p->n_pieces == 0) {
		p->pieces = &call->coded_piece;
		p->n_pieces = 1;
		call->coded_piece = whole;
	}
	if (coding->name == NULL)
		return 0;
	if (p->n_pieces == 1) {
		whole = p->pieces[0];
	} else {
		for (size_t i = 0; i < p->n_pieces; i++)
			buf_add_bytes(&joined, p->pieces[i]);
		whole = buf_bytes(&joined);
	}
	ret = content_encode(coding->coding, level, whole, &call->coded, err);
	call->coded_piece = buf_bytes(&call->coded);
	p->pieces = &call->coded_piece;
	p->n_pieces = 1;
	buf_fini(&joined);
	return ret;
}

static bool is_of_auth(const struct http_sender *s, const char *name)
{
	return s->auth != NULL && strcasecmp(name, s->auth->client_header) == 0;
}

/* The number of headers; the credentials are there already. */
static size_t add_headers(struct call *call, const struct coding *coding)
{
	const struct http_sender *s = call->sender;
	const struct strmap *map = &s->o.client->headers;
	const char *tenant = call->request->batch->tenant;
	const struct http_payload *p = &call->payload;
	struct http_header *h = xcalloc(map->n + p->n_headers + HEADERS_EXTRA, sizeof(*h));
	size_t n = 0;

	call->headers = h;
	h[n++] = (struct http_header){ "Content-Type", call->payload.content_type };
	if (coding->name != NULL)
		h[n++] = (struct http_header){ "Content-Encoding", coding->name };
	if (!s->has_tenant && strcmp(tenant, TENANT_DEFAULT) != 0)
		h[n++] = (struct http_header){ "X-Scope-OrgID", tenant };
	if (!s->has_agent)
		h[n++] = (struct http_header){ "User-Agent",
					       "spanmill/" SPANMILL_VERSION " (linux)" };
	if (s->auth != NULL)
		h[n++] = (struct http_header){ s->auth->client_header,
					       buf_cstr(&call->credentials) };
	for (size_t i = 0; i < p->n_headers; i++)
		h[n++] = p->headers[i];
	for (size_t i = 0; i < map->n; i++)
		if (!is_of_auth(s, map->items[i].name))
			h[n++] = (struct http_header){ map->items[i].name, map->items[i].value };
	return n;
}

static int prepare(struct call *call, struct err *err)
{
	struct http_sender *s = call->sender;
	const struct http_client_options *o = s->o.client;
	const struct coding *coding = &codings[o->compression];
	int level = o->compression_level > 0 ? (int)o->compression_level : 0;
	uint64_t now = clock_mono_ns(), until = call->request->deadline_ns;
	size_t n_headers;

	if ((s->auth != NULL && s->auth->credentials(s->auth->arg, &call->credentials, err) < 0) ||
	    s->o.encode(s->o.component, call->request, &call->payload, err) < 0)
		return -1;
	if (call->payload.is_empty)
		return 0;
	if (compress(call, coding, level, err) < 0)
		return -1;
	n_headers = add_headers(call, coding);
	call->lane = (struct http_lane_call){
		.call = { .method = "POST",
			  .url = call->payload.url,
			  .headers = call->headers,
			  .n_headers = n_headers,
			  .body = call->payload.pieces,
			  .n_body = call->payload.n_pieces,
			  .timeout_ms = until == 0    ? (uint32_t)INT32_MAX
					: until > now ? (uint32_t)MIN((until - now) / NS_PER_MS + 1,
								      (uint64_t)INT32_MAX)
						      : 1,
			  .max_reply = ANSWER_MAX,
			  .accept_compressed = true },
		.done = lane_done,
		.reply = HTTP_REPLY_INIT,
	};
	return 0;
}

static void send_body(struct http_sender *s, struct send_request *r)
{
	struct call *call = xcalloc(1, sizeof(*call));
	struct err err = ERR_INIT;

	call->sender = s;
	call->request = r;
	r->exporter_data = call;
	if (r->progress > 0 && s->o.client->timeout_ns > 0)
		r->deadline_ns = clock_mono_ns() + (uint64_t)s->o.client->timeout_ns;
	if (prepare(call, &err) < 0) {
		call_free(call);
		sending_queue_done(r, err.kind == ERR_UNAVAILABLE ? SEND_RETRYABLE : SEND_PERMANENT,
				   0, &err);
		return;
	}
	note_refusal(r, &err);
	if (!call->payload.is_empty) {
		http_lane_start(s->lane, &call->lane);
		return;
	}
	settled(call, r);
	call_free(call);
}

static void sender_send(struct component *c, struct send_request *r)
{
	(void)c;
	send_body(r->owner, r);
}

static void sender_cancel(struct component *c, struct send_request *r)
{
	struct call *call = r->exporter_data;
	struct err err = ERR_INIT;

	(void)c;
	if (!http_lane_cancel(call->sender->lane, &call->lane)) {
		call->sender->is_cancelling = true;
		answered(call); /* its task frees it */
		call->sender->is_cancelling = false;
		return;
	}
	call_free(call);
	err_set(&err, ERR_UNAVAILABLE, "cancelled");
	sending_queue_done(r, SEND_RETRYABLE, 0, &err);
}

/* ---- options ---- */

static void not_yet(const struct conf_node *node, struct conf_errors *errs, const char *path,
		    const char *key, const char *hint)
{
	conf_error_at(errs, node, path, key, hint, "it is not in Spanmill's HTTP client");
}

static void check_tls(const struct tls_client_options *tls, const struct conf_node *node,
		      struct conf_errors *errs, const char *path)
{
	const struct tls_common_options *t = &tls->common;

	option_blocks_check_tls(t, node, "tls", errs, path);
	if (t->cert_pem[0] != '\0' || t->key_pem[0] != '\0' || t->ca_pem[0] != '\0')
		conf_error_at(errs, node, path, "tls",
			      "write it to a file and use cert_file, key_file, ca_file",
			      "certificates inside the configuration are not in Spanmill yet");
	if (tls->server_name_override[0] != '\0')
		not_yet(node, errs, path, "tls.server_name_override",
			"write that name in the endpoint and its address in /etc/hosts");
	if (t->cipher_suites.n > 0)
		not_yet(node, errs, path, "tls.cipher_suites", "remove it: min_version is enough");
	if (t->curve_preferences.n > 0)
		not_yet(node, errs, path, "tls.curve_preferences", "remove it");
	if (t->include_system_ca_certs_pool && t->ca_file[0] != '\0')
		not_yet(node, errs, path, "tls.include_system_ca_certs_pool",
			"put the authorities into one file and name it in ca_file");
}

void http_sender_check(const struct http_client_options *client, const struct queue_options *queue,
		       const struct conf_node *node, struct conf_errors *errs, const char *path)
{
	option_blocks_check_queue(queue, node, "sending_queue", errs, path);
	check_tls(&client->tls, node, errs, path);
	http_sender_check_url(client->proxy_url, "proxy_url", node, errs, path);
}

void http_sender_check_url(const char *url, const char *key, const struct conf_node *node,
			   struct conf_errors *errs, const char *path)
{
	bool plain = str_has_prefix(url, "http://");
	const char *host = url + (plain ? 7 : 8);
	size_t n;

	if (url[0] == '\0')
		return;
	if (!plain && !str_has_prefix(url, "https://")) {
		conf_error_at(errs, node, path, key, "write http://host:4318 or https://host:4318",
			      "\"%.100s\" is no URL of http or https", url);
		return;
	}
	n = strcspn(host, "/?#");
	if (n == 0 || strpbrk(url, " \t\r\n") != NULL)
		conf_error_at(errs, node, path, key, "write http://host:port/path",
			      "\"%.100s\" is no URL: %s", url,
			      n == 0 ? "there is no host in it" : "there are blanks in it");
}

/* ---- life ---- */

static const char *or_null(const char *s)
{
	return s[0] != '\0' ? s : NULL;
}

static struct http_lane *lane_new(const struct http_client_options *o, struct err *err)
{
	const struct tls_common_options *t = &o->tls.common;
	uint64_t idle_ns = (uint64_t)MAX(o->idle_conn_timeout_ns, INT64_C(0));
	struct http_client_settings client = {
		.ca_file = or_null(t->ca_file),
		.cert_file = or_null(t->cert_file),
		.key_file = or_null(t->key_file),
		.min_tls = tls_version_name(t->min_version),
		.max_tls = tls_version_name(t->max_version),
		.insecure_skip_verify = o->tls.insecure_skip_verify,
		.proxy = or_null(o->proxy_url),
		.one_call_per_connection = o->disable_keep_alives,
		.max_idle_s = (uint32_t)MIN(idle_ns / NS_PER_S, (uint64_t)INT32_MAX),
	};
	uint64_t idle = o->max_idle_conns_per_host ? o->max_idle_conns_per_host : o->max_idle_conns;
	struct http_lane_limits limits = {
		.max_conns = (uint32_t)MIN(o->max_conns_per_host, (uint64_t)INT32_MAX),
		.max_idle = (uint32_t)MIN(idle, (uint64_t)INT32_MAX),
	};

	return http_lane_new(&client, &limits, err);
}

static void note_headers(struct http_sender *s)
{
	const struct strmap *map = &s->o.client->headers;

	for (size_t i = 0; i < map->n; i++) {
		s->has_tenant |= strcasecmp(map->items[i].name, "X-Scope-OrgID") == 0;
		s->has_agent |= strcasecmp(map->items[i].name, "User-Agent") == 0;
	}
}

struct http_sender *http_sender_new(const struct http_sender_settings *settings, struct err *err)
{
	static _Atomic unsigned turn;
	struct component *c = settings->component;
	struct http_sender *s = xcalloc(1, sizeof(*s));

	s->o = *settings;
	note_headers(s);
	s->loop = component_loop(c, atomic_fetch_add(&turn, 1) % component_n_loops(c));
	if (auth_of_client(c, s->o.client->authenticator, &s->auth, err) == 0)
		s->lane = lane_new(s->o.client, err);
	if (s->lane != NULL)
		s->queue = sending_queue_new(
			&(struct sending_queue_settings){ .component = c,
							  .owner = s,
							  .loop = s->loop,
							  .queue = s->o.queue,
							  .retry = s->o.retry,
							  .timeout_ns = s->o.client->timeout_ns,
							  .max_request_bytes =
								  s->o.max_request_bytes,
							  .in_order = s->o.in_order,
							  .send = sender_send,
							  .cancel = sender_cancel },
			err);
	if (s->queue == NULL) {
		http_sender_free(s);
		return NULL;
	}
	return s;
}

/* ---- callbacks of the exporters' types ---- */

static struct http_sender *sender_of(struct component *c)
{
	assert(c->type->state_size >= sizeof(struct http_sender *));
	return *(struct http_sender **)c->state;
}

void http_sender_consume(struct component *c, struct batch *b)
{
	sending_queue_consume(sender_of(c)->queue, b);
}

void http_sender_drain(struct component *c)
{
	if (sender_of(c) != NULL)
		sending_queue_drain(sender_of(c)->queue);
}

int http_sender_is_drained(struct component *c)
{
	return sender_of(c) == NULL || sending_queue_is_drained(sender_of(c)->queue);
}

bool http_sender_is_ready(struct component *c, char *why, size_t why_size)
{
	struct http_sender *s = sender_of(c);
	char reason[200];

	if (s == NULL || !sending_queue_is_failing(s->queue, reason, sizeof(reason)))
		return s != NULL;
	snprintf(why, why_size, "exporter %s: %s", c->id, reason);
	return false;
}

void http_sender_metrics(struct component *c, struct buf *out)
{
	if (sender_of(c) != NULL)
		sending_queue_metrics(sender_of(c)->queue, out);
}

/* ---- the end ---- */

static void nothing(void *arg)
{
	(void)arg;
}

void http_sender_free(struct http_sender *s)
{
	if (s == NULL)
		return;
	sending_queue_free(s->queue);
	http_lane_free(s->lane);
	/* Answers that were on their way when their calls were given up find their memory. */
	loop_call(s->loop, nothing, NULL);
	free(s);
}
