/* SPDX-License-Identifier: Apache-2.0
 *
 * grpc_client.c - see grpc_client.h: addresses, connections and waiting calls around grpc_link.c.
 *
 *   endpoint -> look-up -> target, target, ... -> link (connecting | ready) each -> calls
 *                                                 \ retired links finish their calls and close
 *
 * DESIGN: everything that wants to be sent waits for the uv_prepare handle, so the calls of one
 * turn go out together. Fail fast, not wait for ready: the exporter has a queue and a retry of its
 * own, and a call that waits in two places has two deadlines. A connection that was up and went
 * down is dialled again at once, and calls wait for that one attempt. OWNERSHIP, THREADS: the
 * client owns targets, links and calls; loop's thread. LIMITS: TARGETS_MAX addresses; calls are
 * bounded by the caller. SPEC: gRPC connection-backoff.md; round_robin.
 */
#include "net/grpc_client.h"

#include "base/clock.h"
#include "base/mem.h"
#include "base/rng.h"
#include "base/str.h"
#include "net/grpc_link.h"

#include <netdb.h>
#include <stdio.h>
#include <sys/un.h>

enum {
	TARGETS_MAX = 32,
	YOUNG_MS = 1000, /* a connection lost before that age waits before it is dialled again */
	RESOLVE_MIN_MS = 1000,
	DOUBT_MS = 100, /* a cancelled call that had no answer for so long says something */
};

struct lookup {
	uv_getaddrinfo_t req;
	struct grpc_client *client; /* NULL: nobody waits for it any more */
};

struct call_list {
	struct grpc_client_call *head, *tail;
};

struct grpc_client {
	struct grpc_client_settings c;
	struct grpc_link_env env;
	struct listen_endpoint endpoint;
	char *authority, *user_agent;
	uv_prepare_t prepare;
	unsigned n_handles;
	struct loop_timer kick;    /* there is work and the loop might go to sleep */
	struct loop_timer resolve; /* look the host up again */
	struct lookup *lookup;
	struct grpc_target *targets, *turn; /* turn: where round robin goes on */
	size_t n_targets;
	struct grpc_link *links, *dirty;
	struct call_list waiting;
	size_t n_calls;
	struct rng rng;
	char last_error[512];
	bool started, freeing, in_prepare;
};

static void look_up(void *arg);
static void redial(void *arg);

const struct grpc_link_env *grpc_client_env(const struct grpc_client *c)
{
	return &c->env;
}

static uint64_t now_ms(const struct grpc_client *c)
{
	return uv_now(loop_uv(c->env.loop));
}

static uint64_t jittered(struct grpc_client *c, uint64_t ms)
{
	return ms * 4 / 5 + rng_below(&c->rng, ms * 2 / 5 + 1);
}

/* ---- lists ---- */

static void append(struct call_list *l, struct grpc_client_call *call)
{
	call->next = NULL;
	call->prev = l->tail;
	if (l->tail != NULL)
		l->tail->next = call;
	else
		l->head = call;
	l->tail = call;
}

static void take_out(struct call_list *l, struct grpc_client_call *call)
{
	if (call->prev != NULL)
		call->prev->next = call->next;
	else
		l->head = call->next;
	if (call->next != NULL)
		call->next->prev = call->prev;
	else
		l->tail = call->prev;
	call->next = call->prev = NULL;
}

void grpc_client_mark_dirty(struct grpc_link *k)
{
	if (k->dirty || k->closed)
		return;
	k->dirty = true;
	k->next_dirty = k->client->dirty;
	k->client->dirty = k;
}

void grpc_client_unmark(struct grpc_link *k)
{
	struct grpc_link **p = &k->client->dirty;

	while (*p != NULL && *p != k)
		p = &(*p)->next_dirty;
	if (*p == k)
		*p = k->next_dirty;
	k->dirty = true; /* never again */
}

/* ---- calls ---- */

static void free_call(struct grpc_client_call *call)
{
	buf_fini(&call->fields);
	buf_fini(&call->coded);
	buf_fini(&call->message);
	buf_fini(&call->response);
	free(call->pieces);
	free(call);
}

/* The message of an answer whose status is OK; inflated into *inflated when it was compressed. */
static int unwrap(const struct grpc_client_call *call, struct rcbuf **inflated, struct bytes *out,
		  struct err *err)
{
	struct bytes in = buf_bytes(&call->response);

	if (in.n < 5)
		return err_set(err, ERR_INVALID, "the answer has no message");
	if (load_be32(in.p + 1) != in.n - 5)
		return err_set(err, ERR_INVALID, "the answer's message is cut short");
	*out = (struct bytes){ in.p + 5, in.n - 5 };
	if (in.p[0] == 0)
		return 0;
	if (call->coding == CONTENT_IDENTITY)
		return err_set(err, ERR_INVALID, "the answer is compressed without grpc-encoding");
	if (content_decode(call->coding, *out, call->client->env.max_recv_msg_bytes, NULL, inflated,
			   err) < 0)
		return -1;
	*out = (struct bytes){ (*inflated)->p, (*inflated)->n };
	return 0;
}

void grpc_client_finish(struct grpc_client_call *call, enum grpc_status status, const char *message)
{
	struct grpc_answer a = { .status = status,
				 .message = message,
				 .has_retry_info = call->has_retry_info,
				 .retry_after_ms = call->retry_after_ms };
	struct rcbuf *inflated = NULL;
	struct err err = ERR_INIT;

	loop_timer_stop(call->client->env.loop, &call->deadline);
	if (status == GRPC_OK && unwrap(call, &inflated, &a.response, &err) < 0) {
		a.status = GRPC_INTERNAL;
		a.message = err.msg;
	}
	a.retryable = grpc_status_is_retryable(a.status, a.has_retry_info);
	call->client->n_calls--;
	call->done(&a, call->arg);
	rcbuf_unref(inflated);
	free_call(call);
}

void grpc_client_rewind(struct grpc_client_call *call)
{
	call->piece = call->piece_off = call->unread = 0;
	for (size_t i = 0; i < call->n_pieces; i++)
		call->unread += call->pieces[i].n;
}

void grpc_client_requeue(struct grpc_client_call *call)
{
	call->again = true;
	call->http_status = 0;
	grpc_client_rewind(call);
	append(&call->client->waiting, call);
	loop_timer_start(call->client->env.loop, &call->client->kick, 0);
}

/* Take the call from wherever it is. */
static void detach(struct grpc_client_call *call)
{
	if (call->link != NULL)
		grpc_link_drop(call->link, call);
	else
		take_out(&call->client->waiting, call);
}

static void deadline_passed(void *arg)
{
	struct grpc_client_call *call = arg;
	const struct grpc_client *c = call->client;
	struct grpc_link *k = call->link;
	struct buf text = BUF_INIT;

	detach(call);
	if (k != NULL)
		grpc_link_doubt(k, call->started_ms);
	buf_printf(&text, "deadline exceeded%s%s",
		   k == NULL ? " before there was a connection" : "",
		   k == NULL && c->last_error[0] != '\0' ? ": " : "");
	if (k == NULL)
		buf_printf(&text, "%s", c->last_error);
	grpc_client_finish(call, GRPC_DEADLINE_EXCEEDED, buf_cstr(&text));
	buf_fini(&text);
}

void grpc_client_cancel(struct grpc_client_call *call)
{
	struct grpc_client *c = call->client;
	struct grpc_link *k = call->link;

	detach(call);
	if (k != NULL && !c->freeing && now_ms(c) - call->started_ms >= DOUBT_MS)
		grpc_link_doubt(k, call->started_ms);
	grpc_client_finish(call, GRPC_CANCELLED, "cancelled by the client");
}

static void add_field(struct grpc_client_call *call, const char *name, struct bytes value)
{
	size_t n = strlen(name);
	uint8_t *p = buf_reserve(&call->fields, 8 + n + value.n);

	store_le32(p, (uint32_t)n);
	store_le32(p + 4, (uint32_t)value.n);
	memcpy(p + 8, name, n);
	if (value.n > 0)
		memcpy(p + 8 + n, value.p, value.n);
	call->fields.n += 8 + n + value.n;
	call->n_fields++;
}

static void add_fields(struct grpc_client_call *call, const struct grpc_request *r)
{
	const struct grpc_client *c = call->client;

	add_field(call, ":method", BYTES_LIT("POST"));
	add_field(call, ":scheme", c->env.tls != NULL ? BYTES_LIT("https") : BYTES_LIT("http"));
	add_field(call, ":path", bytes_str(r->path));
	add_field(call, ":authority", bytes_str(c->authority));
	add_field(call, "te", BYTES_LIT("trailers"));
	add_field(call, "content-type", BYTES_LIT("application/grpc"));
	add_field(call, "user-agent", bytes_str(c->user_agent));
	add_field(call, "grpc-accept-encoding", BYTES_LIT("identity,gzip,deflate,zstd,snappy"));
	if (r->coding != CONTENT_IDENTITY)
		add_field(call, "grpc-encoding",
			  r->coding == CONTENT_SNAPPY_FRAMED
				  ? BYTES_LIT("snappy")
				  : bytes_str(content_coding_name(r->coding)));
	for (size_t i = 0; i < r->n_headers; i++)
		add_field(call, r->headers[i].name, r->headers[i].value);
}

/* Join and compress the pieces. */
static int compress(struct grpc_client_call *call, const struct grpc_request *r, struct err *err)
{
	struct buf joined = BUF_INIT;
	int ret;

	for (size_t i = 0; i < r->n_pieces; i++)
		buf_add_bytes(&joined, r->pieces[i]);
	ret = content_encode(r->coding, r->level, buf_bytes(&joined), &call->coded, err);
	buf_fini(&joined);
	return ret;
}

/* [prefix][piece]...: what goes out, without empty pieces. */
static void add_pieces(struct grpc_client_call *call, const struct bytes *pieces, size_t n)
{
	size_t total = 0;

	call->pieces = xmalloc((n + 1) * sizeof(*pieces));
	call->pieces[0] = (struct bytes){ call->prefix, sizeof(call->prefix) };
	call->n_pieces = 1;
	for (size_t i = 0; i < n; i++) {
		if (pieces[i].n == 0)
			continue;
		call->pieces[call->n_pieces++] = pieces[i];
		total += pieces[i].n;
	}
	assert(total <= UINT32_MAX);
	store_be32(call->prefix + 1, (uint32_t)total);
}

struct grpc_client_call *grpc_client_start(struct grpc_client *c, const struct grpc_request *r,
					   void (*done)(const struct grpc_answer *a, void *arg),
					   void *arg)
{
	struct grpc_client_call *call = xcalloc(1, sizeof(*call));
	uint64_t now = clock_mono_ns();
	struct bytes coded;

	assert(!c->freeing);
	call->client = c;
	call->done = done;
	call->arg = arg;
	call->status = -1;
	add_fields(call, r);
	if (r->is_coded) {
		call->prefix[0] = r->coding != CONTENT_IDENTITY;
		add_pieces(call, r->pieces, r->n_pieces);
	} else if (r->coding != CONTENT_IDENTITY && compress(call, r, NULL) == 0) {
		call->prefix[0] = 1;
		coded = buf_bytes(&call->coded);
		add_pieces(call, &coded, 1);
	} else {
		add_pieces(call, r->pieces, r->n_pieces);
	}
	grpc_client_rewind(call);
	call->deadline_ns = r->deadline_ns;
	call->deadline = (struct loop_timer){ .fn = deadline_passed, .arg = call };
	if (r->deadline_ns != 0)
		loop_timer_start(c->env.loop, &call->deadline,
				 r->deadline_ns > now ? (r->deadline_ns - now) / NS_PER_MS + 1 : 0);
	c->n_calls++;
	append(&c->waiting, call);
	if (c->in_prepare)
		loop_timer_start(c->env.loop, &c->kick, 0);
	if (!c->started) {
		c->started = true;
		look_up(c);
	}
	return call;
}

/* ---- choosing a connection ---- */

static struct grpc_link *pick(struct grpc_client *c)
{
	struct grpc_target *t = c->c.pick_first ? NULL : c->turn;

	for (size_t i = 0; i < c->n_targets; i++) {
		t = t != NULL && t->next != NULL ? t->next : c->targets;
		if (t->link != NULL && t->link->ready && !t->link->doubted) {
			c->turn = t;
			return t->link;
		}
	}
	return NULL;
}

/* Is there a connection to be hoped for? */
static bool may_wait(const struct grpc_client *c)
{
	if (c->n_targets == 0)
		return c->lookup != NULL;
	for (const struct grpc_target *t = c->targets; t != NULL; t = t->next)
		if (!t->failed)
			return true;
	return false;
}

/* Put waiting calls on connections, or fail them. Calls that callbacks start meanwhile may have to
 * wait for the next turn (kick), so that one that fails and starts again cannot hold the loop. */
static void dispatch(struct grpc_client *c)
{
	struct grpc_client_call *call;

	for (size_t n = c->n_calls; n > 0 && (call = c->waiting.head) != NULL; n--) {
		struct grpc_link *k = pick(c);

		if (k == NULL && (c->c.wait_for_ready || may_wait(c)))
			return;
		take_out(&c->waiting, call);
		if (k == NULL) {
			grpc_client_finish(call, GRPC_UNAVAILABLE, c->last_error);
		} else if (grpc_link_start(k, call) < 0) {
			/* Its stream ids are used up. */
			append(&c->waiting, call);
			grpc_client_link_lost(k, NULL);
		}
	}
}

static void prepare(uv_prepare_t *h)
{
	struct grpc_client *c = h->data;
	struct grpc_link *k;

	if (c->freeing)
		return;
	c->in_prepare = true;
	dispatch(c);
	while ((k = c->dirty) != NULL) {
		c->dirty = k->next_dirty;
		k->dirty = false;
		grpc_link_flush(k);
	}
	c->in_prepare = false;
}

static void nothing(void *arg)
{
	(void)arg; /* the loop's turn is what was wanted */
}

/* ---- connections ---- */

static void connect_target(struct grpc_target *t)
{
	struct grpc_client *c = t->client;
	struct err err = ERR_INIT;
	struct grpc_link *k = grpc_link_new(c, t, &err);

	if (k == NULL) {
		t->failed = true;
		snprintf(c->last_error, sizeof(c->last_error), "%s", err.msg);
		t->backoff_ms = t->backoff_ms == 0
					? c->c.backoff_min_ms
					: MIN(t->backoff_ms * 8 / 5, c->c.backoff_max_ms);
		loop_timer_start(c->env.loop, &t->redial, jittered(c, t->backoff_ms));
		return;
	}
	t->link = k;
	k->next = c->links;
	if (c->links != NULL)
		c->links->prev = k;
	c->links = k;
	grpc_client_mark_dirty(k);
}

static void redial(void *arg)
{
	connect_target(arg);
}

void grpc_client_link_ready(struct grpc_link *k)
{
	struct grpc_client *c = k->client;

	loop_timer_stop(c->env.loop, &k->timer);
	if (c->env.keepalive_time_ms > 0)
		loop_timer_start(c->env.loop, &k->timer, c->env.keepalive_time_ms);
	if (k->target != NULL)
		k->target->failed = false;
}

/* An address may have moved: ask again soon. */
static void hurry_look_up(struct grpc_client *c)
{
	if (c->lookup == NULL &&
	    (!loop_timer_is_active(&c->resolve) || c->resolve.due_ms > now_ms(c) + RESOLVE_MIN_MS))
		loop_timer_start(c->env.loop, &c->resolve, RESOLVE_MIN_MS);
}

void grpc_client_link_lost(struct grpc_link *k, const char *why)
{
	struct grpc_client *c = k->client;
	struct grpc_target *t = k->target;
	uint64_t wait_ms = 0;

	k->target = NULL;
	t->link = NULL;
	if (why != NULL)
		snprintf(c->last_error, sizeof(c->last_error), "%s", why);
	if (c->freeing)
		return;
	t->failed = !k->ready;
	if (!k->ready || now_ms(c) - k->opened_ms < YOUNG_MS) {
		t->backoff_ms = t->backoff_ms == 0
					? c->c.backoff_min_ms
					: MIN(t->backoff_ms * 8 / 5, c->c.backoff_max_ms);
		wait_ms = jittered(c, t->backoff_ms);
	} else {
		t->backoff_ms = 0;
	}
	if (why != NULL)
		hurry_look_up(c);
	loop_timer_start(c->env.loop, &t->redial, wait_ms);
	grpc_client_mark_dirty(k); /* it closes when its last call is over */
}

static void release(struct grpc_client *c);

void grpc_client_link_freed(struct grpc_link *k)
{
	struct grpc_client *c = k->client;

	if (k->prev != NULL)
		k->prev->next = k->next;
	else
		c->links = k->next;
	if (k->next != NULL)
		k->next->prev = k->prev;
	release(c);
}

/* ---- addresses ---- */

static void remove_target(struct grpc_target **p)
{
	struct grpc_target *t = *p;
	struct grpc_client *c = t->client;

	*p = t->next;
	c->n_targets--;
	c->turn = NULL;
	loop_timer_stop(c->env.loop, &t->redial);
	if (t->link != NULL)
		grpc_link_retire(t->link);
	free(t);
}

/* The address is wanted: keep the target that has it or make one. */
static void want_address(struct grpc_client *c, const struct sockaddr *sa, socklen_t n)
{
	struct grpc_target *t, **end = &c->targets;

	for (t = c->targets; t != NULL; t = t->next) {
		if (t->addr_n == n && memcmp(&t->addr, sa, n) == 0) {
			t->stale = false;
			return;
		}
		end = &t->next;
	}
	if (c->n_targets >= TARGETS_MAX || n > sizeof(t->addr))
		return;
	t = xcalloc(1, sizeof(*t));
	t->client = c;
	memcpy(&t->addr, sa, n);
	t->addr_n = n;
	listen_format(sa, t->text);
	t->redial = (struct loop_timer){ .fn = redial, .arg = t };
	*end = t;
	c->n_targets++;
	connect_target(t);
}

/* A complete list of addresses has come. */
static void use_addresses(struct grpc_client *c, const struct addrinfo *all)
{
	struct grpc_target **p = &c->targets;

	for (struct grpc_target *t = c->targets; t != NULL; t = t->next)
		t->stale = true;
	for (; all != NULL; all = all->ai_next)
		want_address(c, all->ai_addr, all->ai_addrlen);
	while (*p != NULL) {
		if ((*p)->stale)
			remove_target(p);
		else
			p = &(*p)->next;
	}
}

static void looked_up(uv_getaddrinfo_t *req, int status, struct addrinfo *all)
{
	struct lookup *l = CONTAINER_OF(req, struct lookup, req);
	struct grpc_client *c = l->client;

	free(l);
	if (c != NULL) {
		c->lookup = NULL;
		if (status == 0)
			use_addresses(c, all);
		else
			snprintf(c->last_error, sizeof(c->last_error), "look up %s: %s",
				 c->endpoint.host, uv_strerror(status));
		/* A host without addresses has calls waiting for it: they want to know. */
		loop_timer_start(c->env.loop, &c->kick, 0);
		loop_timer_start(c->env.loop, &c->resolve,
				 status == 0 ? c->c.resolve_ms : RESOLVE_MIN_MS);
	}
	uv_freeaddrinfo(all);
}

static void use_unix(struct grpc_client *c)
{
	struct sockaddr_un un = { .sun_family = AF_UNIX };

	memcpy(un.sun_path, c->endpoint.host, strlen(c->endpoint.host) + 1);
	want_address(c, (struct sockaddr *)&un, sizeof(un));
}

static void look_up(void *arg)
{
	struct grpc_client *c = arg;
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST }, *all;
	const char *host = c->endpoint.host[0] != '\0' ? c->endpoint.host : "127.0.0.1";
	char port[8];
	int rc;

	if (c->endpoint.is_unix) {
		use_unix(c);
		return;
	}
	snprintf(port, sizeof(port), "%u", c->endpoint.port);
	/* A number needs no thread and never changes. */
	if (getaddrinfo(host, port, &hints, &all) == 0) {
		use_addresses(c, all);
		freeaddrinfo(all);
		return;
	}
	hints.ai_flags = 0;
	c->lookup = xcalloc(1, sizeof(*c->lookup));
	c->lookup->client = c;
	rc = uv_getaddrinfo(loop_uv(c->env.loop), &c->lookup->req, looked_up, host, port, &hints);
	if (rc == 0)
		return;
	snprintf(c->last_error, sizeof(c->last_error), "look up %s: %s", host, uv_strerror(rc));
	free(c->lookup);
	c->lookup = NULL;
	loop_timer_start(c->env.loop, &c->resolve, RESOLVE_MIN_MS);
}

/* ---- life ---- */

static void or_default(uint64_t *v, uint64_t otherwise)
{
	if (*v == 0)
		*v = otherwise;
}

static void fill_defaults(struct grpc_client_settings *c)
{
	or_default(&c->connect_timeout_ms, 20000);
	or_default(&c->backoff_min_ms, 1000);
	or_default(&c->backoff_max_ms, 120000);
	or_default(&c->resolve_ms, 30000);
	or_default(&c->keepalive_timeout_ms, 20000);
	if (c->max_recv_msg_bytes == 0)
		c->max_recv_msg_bytes = 4 * MIB;
}

/* The endpoint without what resolvers and URLs put in front. */
static const char *plain_endpoint(const char *endpoint)
{
	static const char *const prefixes[] = { "dns:///", "passthrough:///", "dns:", "http://",
						"https://" };

	for (size_t i = 0; i < COUNT_OF(prefixes); i++)
		if (str_has_prefix(endpoint, prefixes[i]))
			return endpoint + strlen(prefixes[i]);
	return endpoint;
}

static int parse_endpoint(struct grpc_client *c, struct err *err)
{
	const char *endpoint = plain_endpoint(c->c.endpoint);

	if (listen_parse(endpoint, &c->endpoint, err) < 0)
		return -1;
	if (!c->endpoint.is_unix && c->endpoint.port == 0)
		return err_set(err, ERR_CONFIG, "endpoint \"%s\": port 0 cannot be connected to",
			       c->c.endpoint);
	c->authority = xstrdup(c->c.authority != NULL && c->c.authority[0] != '\0' ? c->c.authority
			       : c->endpoint.is_unix                               ? "localhost"
										   : endpoint);
	return 0;
}

static void free_memory(struct grpc_client *c)
{
	free(c->authority);
	free(c->user_agent);
	free(c->env.copy);
	free(c->env.iov);
	free(c);
}

struct grpc_client *grpc_client_new(struct loop *l, const struct grpc_client_settings *settings,
				    struct err *err)
{
	struct grpc_client *c = xcalloc(1, sizeof(*c));
	uint64_t seed;

	c->c = *settings;
	fill_defaults(&c->c);
	if (parse_endpoint(c, err) < 0) {
		free_memory(c);
		return NULL;
	}
	c->user_agent = xstrdup(c->c.user_agent != NULL ? c->c.user_agent : "spanmill");
	c->c.endpoint = c->c.authority = c->c.user_agent = NULL;
	c->env = (struct grpc_link_env){
		.loop = l,
		.tls = c->c.tls,
		.host = c->endpoint.is_unix || c->endpoint.host[0] == '\0' ? "localhost"
									   : c->endpoint.host,
		.connect_timeout_ms = c->c.connect_timeout_ms,
		.keepalive_time_ms = c->c.keepalive_time_ms,
		.keepalive_timeout_ms = c->c.keepalive_timeout_ms,
		.keepalive_idle = c->c.keepalive_idle,
		.max_recv_msg_bytes = c->c.max_recv_msg_bytes,
		.copy = xmalloc(GRPC_LINK_COPY_BYTES),
		.iov = xcalloc(GRPC_LINK_IOVS, sizeof(struct iovec)),
	};
	c->kick = (struct loop_timer){ .fn = nothing };
	c->resolve = (struct loop_timer){ .fn = look_up, .arg = c };
	rng_kernel(&seed, sizeof(seed));
	rng_seed(&c->rng, seed);
	uv_prepare_init(loop_uv(l), &c->prepare);
	c->prepare.data = c;
	uv_prepare_start(&c->prepare, prepare);
	c->n_handles = 1;
	return c;
}

static void release(struct grpc_client *c)
{
	if (c->freeing && c->n_handles == 0 && c->links == NULL)
		free_memory(c);
}

static void uv_closed(uv_handle_t *h)
{
	struct grpc_client *c = h->data;

	c->n_handles--;
	release(c);
}

void grpc_client_free(struct grpc_client *c)
{
	if (c == NULL)
		return;
	c->freeing = true;
	loop_timer_stop(c->env.loop, &c->kick);
	loop_timer_stop(c->env.loop, &c->resolve);
	if (c->lookup != NULL) {
		c->lookup->client = NULL;
		uv_cancel((uv_req_t *)&c->lookup->req);
		c->lookup = NULL;
	}
	while (c->waiting.head != NULL)
		grpc_client_cancel(c->waiting.head);
	for (struct grpc_link *k = c->links; k != NULL; k = k->next) {
		while (!k->closed && k->calls != NULL)
			grpc_client_cancel(k->calls);
		if (!k->closed)
			grpc_link_flush(k); /* the resets */
		grpc_link_close(k, "client closed");
	}
	while (c->targets != NULL)
		remove_target(&c->targets);
	uv_close((uv_handle_t *)&c->prepare, uv_closed);
}

size_t grpc_client_in_flight(const struct grpc_client *c)
{
	return c->n_calls;
}

size_t grpc_client_connections(const struct grpc_client *c)
{
	size_t n = 0;

	for (const struct grpc_target *t = c->targets; t != NULL; t = t->next)
		n += t->link != NULL && t->link->ready;
	return n;
}
