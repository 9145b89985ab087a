/* SPDX-License-Identifier: Apache-2.0
 *
 * peers.c - see peers.h.
 *
 * The table of names is fixed; each has its peers of the moment, under one lock. Calls use a group
 * of connections (net/http_client.h) from a LIFO pool.
 */
#include "query/peers.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "net/http_client.h"

#include <netdb.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

enum {
	IDLE_GROUPS = 16,
	CONNECT_MS = 1000,
	SLOW_MS = 300, /* what a peer that timed out is given for the next call */
	FIRST_WAIT_MS = 2000,
	STOP_WAIT_MS = 1000,
	HOST_MAX = 255,
};

#define RESOLVE_NS (10 * NS_PER_S)
#define RESOLVE_SOONER_NS NS_PER_S /* when a peer could not be reached */
/* A session_timeout of Kafka's (45 s in our configurations) and a rebalance. */
#define LEFT_NS (60 * NS_PER_S)
#define SLOW_NS (10 * NS_PER_S)
#define DNS "dns+"

struct name {
	char *text; /* as configured */
	char host[HOST_MAX + 1], port[8];
	bool is_dns;
	struct peer **v; /* its addresses, and some that have left it */
	size_t n, cap;
	size_t n_whole; /* how many it had when none of those had left */
};

struct peers {
	const char *what;
	struct name *names;
	size_t n_names;
	bool keeps_left;
	uint64_t left_ns; /* under the lock */
	uint32_t timeout_ms;
	size_t max_reply;
	struct query_memory *memory;
	pthread_mutex_t lock; /* names' peers, idle groups, what follows */
	pthread_cond_t wake;  /* the resolver; and who waits for it */
	struct http_group *idle[IDLE_GROUPS];
	size_t n_idle;
	pthread_t resolver;
	bool is_resolving, has_resolved, stopping;
	bool has_ended, is_abandoned; /* the resolver: its end, and that nobody waits for it */
	uint64_t resolved_ns, resolve_at_ns;
	_Atomic bool interrupt;
	_Atomic uint64_t n_calls, n_failures;
};

/* ---- names ---- */

/* "host:port" or "[v6]:port" into name's host and port. */
static int split(const char *text, char host[HOST_MAX + 1], char port[8], struct err *err)
{
	const char *colon = strrchr(text, ':');
	size_t n = colon != NULL ? (size_t)(colon - text) : 0;
	uint64_t number;

	if (colon == NULL || str_to_u64(bytes_str(colon + 1), &number) < 0 || number == 0 ||
	    number > 65535)
		return err_set(err, ERR_INVALID, "\"%.100s\": no port behind the host", text);
	if (n > 2 && text[0] == '[' && text[n - 1] == ']') {
		text++;
		n -= 2;
	} else if (memchr(text, ':', n) != NULL) {
		return err_set(err, ERR_INVALID, "\"%.100s\": is no host:port", text);
	}
	if (n == 0 || n > HOST_MAX || strcspn(text, "/?#@ \t\r\n%\"'<>\\[]{}|^`") < n)
		return err_set(err, ERR_INVALID, "\"%.100s\": is no host", text);
	snprintf(host, HOST_MAX + 1, "%.*s", (int)n, text);
	snprintf(port, 8, "%u", (unsigned)number);
	return 0;
}

static const char *without_dns(const char *name)
{
	return str_has_prefix(name, DNS) ? name + sizeof(DNS) - 1 : name;
}

int peers_check_name(const char *name, struct err *err)
{
	char host[HOST_MAX + 1], port[8];

	return split(without_dns(name), host, port, err);
}

static struct peer *peer_new(const char *host, const char *port)
{
	struct peer *peer = xcalloc(1, sizeof(*peer));
	bool is_v6 = strchr(host, ':') != NULL;

	atomic_init(&peer->refs, 1);
	snprintf(peer->address, sizeof(peer->address), "%s%s%s:%s", is_v6 ? "[" : "", host,
		 is_v6 ? "]" : "", port);
	return peer;
}

static struct peer *peer_ref(struct peer *peer)
{
	atomic_fetch_add(&peer->refs, 1);
	return peer;
}

static void peer_unref(struct peer *peer)
{
	if (atomic_fetch_sub(&peer->refs, 1) == 1)
		free(peer);
}

static void add_peer(struct name *name, struct peer *peer)
{
	name->v = xgrow(name->v, &name->cap, name->n + 1, sizeof(*name->v));
	name->v[name->n++] = peer;
}

/* Ownership of the peers is not touched. */
static struct peer *find_peer(const struct name *name, const char *address)
{
	for (size_t i = 0; i < name->n; i++)
		if (strcmp(name->v[i]->address, address) == 0)
			return name->v[i];
	return NULL;
}

struct peers *peers_new(const struct peers_options *o)
{
	pthread_condattr_t monotonic;
	struct peers *p;

	if (o->n == 0)
		return NULL;
	p = xcalloc(1, sizeof(*p));
	p->what = o->what;
	p->keeps_left = o->keeps_left;
	p->timeout_ms = o->timeout_ms;
	p->max_reply = o->max_reply;
	p->memory = o->memory;
	p->names = xcalloc(o->n, sizeof(*p->names));
	for (p->n_names = 0; p->n_names < o->n; p->n_names++) {
		struct name *name = &p->names[p->n_names];
		int ret;

		name->text = xstrdup(o->names[p->n_names]);
		name->is_dns = str_has_prefix(name->text, DNS);
		ret = split(without_dns(name->text), name->host, name->port, NULL);
		assert(ret == 0); /* the configuration was checked */
		(void)ret;
		if (!name->is_dns)
			add_peer(name, peer_new(name->host, name->port));
	}
	pthread_mutex_init(&p->lock, NULL);
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&p->wake, &monotonic);
	pthread_condattr_destroy(&monotonic);
	return p;
}

/* ---- resolving ---- */

static void free_all(struct peers *p)
{
	while (p->n_idle > 0)
		http_group_free(p->idle[--p->n_idle]);
	for (size_t i = 0; i < p->n_names; i++) {
		for (size_t k = 0; k < p->names[i].n; k++)
			peer_unref(p->names[i].v[k]);
		free(p->names[i].v);
		free(p->names[i].text);
	}
	free(p->names);
	pthread_mutex_destroy(&p->lock);
	pthread_cond_destroy(&p->wake);
	free(p);
}

/* The addresses of a name as a list of new peers, each once. */
static void resolve(const struct name *name, struct name *found)
{
	const struct addrinfo hints = { .ai_flags = AI_ADDRCONFIG | AI_NUMERICSERV,
					.ai_socktype = SOCK_STREAM };
	struct addrinfo *list = NULL;
	char host[HOST_MAX + 1];

	if (getaddrinfo(name->host, name->port, &hints, &list) != 0)
		return;
	for (struct addrinfo *a = list; a != NULL && found->n < PEERS_MAX; a = a->ai_next) {
		struct peer *peer;

		if (getnameinfo(a->ai_addr, a->ai_addrlen, host, sizeof(host), NULL, 0,
				NI_NUMERICHOST) != 0)
			continue;
		peer = peer_new(host, name->port);
		if (find_peer(found, peer->address) != NULL)
			peer_unref(peer);
		else
			add_peer(found, peer);
	}
	freeaddrinfo(list);
}

/* Under the lock: of what is new to the name what is known of the address stays with it. */
static void keep_known(struct name *name, struct name *found)
{
	for (size_t i = 0; i < found->n; i++) {
		struct peer *old = find_peer(name, found->v[i]->address);

		if (old == NULL)
			continue;
		peer_unref(found->v[i]);
		found->v[i] = peer_ref(old);
		old->left_ns = 0;
	}
}

/* Under the lock: those of the name that were not found, and are to be asked all the same. What
 * they published before they went must be in a list of blocks that is read after it was noticed. */
static void keep_left(struct peers *p, const struct name *name, struct name *found)
{
	size_t n_found = found->n;
	uint64_t now = clock_mono_ns();

	for (size_t i = 0; i < name->n; i++) {
		struct peer *old = name->v[i];
		bool is_news = old->left_ns == 0;

		if (find_peer(found, old->address) != NULL)
			continue;
		if (is_news)
			old->left_ns = now;
		if (p->keeps_left && found->n < name->n_whole && now - old->left_ns < LEFT_NS) {
			add_peer(found, peer_ref(old));
			if (!is_news)
				continue;
		}
		p->left_ns = now;
	}
	found->n_whole = found->n > n_found ? name->n_whole : n_found;
}

/* Under the lock. */
static void replace_peers(struct peers *p, struct name *name, struct name *found)
{
	keep_known(name, found);
	keep_left(p, name, found);
	for (size_t i = 0; i < name->n; i++)
		peer_unref(name->v[i]);
	free(name->v);
	name->v = found->v;
	name->n = found->n;
	name->cap = found->cap;
	name->n_whole = found->n_whole;
}

static void resolve_all(struct peers *p)
{
	for (size_t i = 0; i < p->n_names; i++) {
		struct name found = { .n = 0 }, *name = &p->names[i];

		if (!name->is_dns)
			continue;
		resolve(name, &found);
		if (found.n == 0) {
			log_warn("name has no address, those it had stay", "what", p->what, "name",
				 name->text);
			continue;
		}
		pthread_mutex_lock(&p->lock);
		replace_peers(p, name, &found);
		pthread_mutex_unlock(&p->lock);
	}
}

static struct timespec timespec_of(uint64_t mono_ns)
{
	return (struct timespec){ (time_t)(mono_ns / NS_PER_S), (long)(mono_ns % NS_PER_S) };
}

static void *resolver_thread(void *arg)
{
	struct peers *p = arg;
	bool is_abandoned;

	pthread_mutex_lock(&p->lock);
	while (!p->stopping) {
		struct timespec at;

		if (clock_mono_ns() >= p->resolve_at_ns) {
			pthread_mutex_unlock(&p->lock);
			resolve_all(p);
			pthread_mutex_lock(&p->lock);
			p->has_resolved = true;
			p->resolved_ns = clock_mono_ns();
			p->resolve_at_ns = p->resolved_ns + RESOLVE_NS;
			pthread_cond_broadcast(&p->wake);
		}
		at = timespec_of(p->resolve_at_ns);
		if (!p->stopping)
			pthread_cond_timedwait(&p->wake, &p->lock, &at);
	}
	p->has_ended = true;
	is_abandoned = p->is_abandoned;
	pthread_cond_broadcast(&p->wake);
	pthread_mutex_unlock(&p->lock);
	if (is_abandoned)
		free_all(p);
	return NULL;
}

int peers_start(struct peers *p, struct err *err)
{
	for (size_t i = 0; i < p->n_names; i++)
		p->is_resolving |= p->names[i].is_dns;
	if (!p->is_resolving)
		return 0;
	if (pthread_create(&p->resolver, NULL, resolver_thread, p) == 0)
		return 0;
	p->is_resolving = false;
	return err_set(err, ERR_INTERNAL, "query: cannot start the thread that resolves names");
}

/* A peer was not reached: perhaps it has another address by now. */
static void resolve_sooner(struct peers *p)
{
	pthread_mutex_lock(&p->lock);
	p->resolve_at_ns = MIN(p->resolve_at_ns, p->resolved_ns + RESOLVE_SOONER_NS);
	pthread_cond_broadcast(&p->wake);
	pthread_mutex_unlock(&p->lock);
}

/* ---- who there is ---- */

static int by_address(const void *a, const void *b)
{
	return strcmp((*(struct peer *const *)a)->address, (*(struct peer *const *)b)->address);
}

/* Two names may lead to one address: it is asked once. */
static void drop_doubles(struct peer_list *l)
{
	size_t n = 0;

	for (size_t i = 0; i < l->n; i++)
		if (n > 0 && by_address(&l->v[n - 1], &l->v[i]) == 0)
			peer_unref(l->v[i]);
		else
			l->v[n++] = l->v[i];
	l->n = n;
}

/* Under the lock. */
static void wait_for_names(struct peers *p)
{
	struct timespec at = timespec_of(clock_mono_ns() + FIRST_WAIT_MS * NS_PER_MS);
	int ret = 0;

	while (p->is_resolving && !p->has_resolved && !p->stopping && ret == 0)
		ret = pthread_cond_timedwait(&p->wake, &p->lock, &at);
}

void peers_snapshot(struct peers *p, struct peer_list *out)
{
	*out = (struct peer_list){ .v = NULL };
	pthread_mutex_lock(&p->lock);
	wait_for_names(p);
	out->left_ns = p->left_ns;
	for (size_t i = 0; i < p->n_names; i++) {
		const struct name *name = &p->names[i];

		if (name->n == 0 && out->missing[0] == '\0')
			snprintf(out->missing, sizeof(out->missing), "%s %.200s: no address",
				 p->what, name->text);
		for (size_t k = 0; k < name->n; k++) {
			out->v = xgrow(out->v, &out->cap, out->n + 1, sizeof(*out->v));
			out->v[out->n++] = peer_ref(name->v[k]);
		}
	}
	pthread_mutex_unlock(&p->lock);
	if (out->n > 0)
		qsort(out->v, out->n, sizeof(*out->v), by_address);
	drop_doubles(out);
}

void peer_list_fini(struct peer_list *l)
{
	for (size_t i = 0; i < l->n; i++)
		peer_unref(l->v[i]);
	free(l->v);
	*l = (struct peer_list){ .v = NULL };
}

/* ---- calls ---- */

static bool grant(void *arg, size_t n)
{
	struct peer_call *c = arg;

	if (query_memory_charge(c->memory, c->charged, n, NULL) < 0)
		return false;
	c->charged += n;
	return true;
}

void peer_call_fini(struct peer_call *c)
{
	buf_fini(&c->body);
	if (c->memory != NULL)
		query_memory_release(c->memory, c->charged);
	c->charged = 0;
}

static struct http_group *borrow_group(struct peers *p, struct err *err)
{
	const struct http_client_settings settings = { .connect_timeout_ms = CONNECT_MS,
						       .timeout_ms = p->timeout_ms,
						       .no_proxy = true,
						       .interrupt = &p->interrupt };
	struct http_group *g = NULL;

	pthread_mutex_lock(&p->lock);
	if (p->n_idle > 0)
		g = p->idle[--p->n_idle];
	pthread_mutex_unlock(&p->lock);
	return g != NULL ? g : http_group_new(&settings, err);
}

static void return_group(struct peers *p, struct http_group *g)
{
	pthread_mutex_lock(&p->lock);
	if (p->n_idle < IDLE_GROUPS) {
		p->idle[p->n_idle++] = g;
		g = NULL;
	}
	pthread_mutex_unlock(&p->lock);
	http_group_free(g);
}

/* Its own words, when they are text. */
static void first_line(const struct buf *body, char out[100])
{
	size_t n = 0;

	while (n < body->n && n < 99 && body->p[n] >= 0x20 && body->p[n] < 0x7f) {
		out[n] = (char)body->p[n];
		n++;
	}
	out[n] = '\0';
}

/* An answer came: is it one that can be read? */
static int check_reply(const struct http_reply *reply, struct peer_call *c)
{
	const char *type = http_reply_header(reply, "Content-Type");
	const char *live = http_reply_header(reply, PEER_LIVE_HEADER);
	char words[100];

	if (reply->status != 200) {
		first_line(&reply->body, words);
		return err_set(&c->err, reply->status == 503 ? ERR_UNAVAILABLE : ERR_INVALID,
			       "answered %d%s%s", reply->status, words[0] ? ": " : "", words);
	}
	if (type == NULL || !str_has_prefix(type, "application/protobuf"))
		return err_set(&c->err, ERR_INVALID, "answered %.60s, not application/protobuf",
			       type != NULL ? type : "without a Content-Type");
	if (live != NULL && str_to_u64(bytes_str(live), &c->live_ms) < 0)
		return err_set(&c->err, ERR_INVALID, PEER_LIVE_HEADER " is no number");
	return 0;
}

static void take_reply(struct peers *p, struct peer_call *c, const struct http_reply *reply)
{
	c->answered_ns = clock_mono_ns();
	if (c->err.kind == ERR_TIMEOUT)
		atomic_store(&c->peer->slow_until_ns, c->answered_ns + SLOW_NS);
	else
		atomic_store(&c->peer->slow_until_ns, 0);
	if (c->err.kind == ERR_NONE)
		check_reply(reply, c);
	if (c->err.kind == ERR_NONE)
		return;
	atomic_fetch_add(&p->n_failures, 1);
	if (!atomic_load(&p->interrupt))
		log_warn("no answer from a query node", "what", p->what, "address",
			 c->peer->address, "error", c->err.msg);
	err_wrap(&c->err, "%s %.100s", p->what, c->peer->address);
}

/* What libcurl says begins with the method and the URL, which say nothing new here. */
static void drop_url(struct err *err)
{
	char text[sizeof(err->msg)];
	const char *rest = strstr(err->msg, "traces/");

	if (err->kind == ERR_NONE || rest == NULL || (rest = strstr(rest, ": ")) == NULL)
		return;
	snprintf(text, sizeof(text), "%s", rest + 2);
	memcpy(err->msg, text, sizeof(text));
}

bool peer_is_slow(const struct peer *peer)
{
	return atomic_load(&peer->slow_until_ns) != 0;
}

/* Little for one that timed out lately. When that is over, one call finds out whether it still
 * does, and the others do not wait for it. */
static uint32_t timeout_of(const struct peers *p, const struct peer_call *c)
{
	struct peer *peer = c->peer;
	uint64_t until = atomic_load(&peer->slow_until_ns), now = clock_mono_ns();

	if (until == 0 || c->is_patient ||
	    (now >= until && atomic_compare_exchange_strong(&peer->slow_until_ns, &until,
							    now + p->timeout_ms * NS_PER_MS)))
		return p->timeout_ms;
	return MIN(SLOW_MS, p->timeout_ms);
}

/* All of one round; `g` is the caller's. */
static void run_round(struct peers *p, struct http_group *g, struct peer_call *calls, size_t n,
		      const struct http_header *headers, size_t n_headers)
{
	struct http_call *http = xcalloc(n, sizeof(*http));
	struct http_reply *replies = xcalloc(n, sizeof(*replies));
	struct err *errs = xcalloc(n, sizeof(*errs));
	char **urls = xcalloc(n, sizeof(*urls));

	for (size_t i = 0; i < n; i++) {
		urls[i] = xasprintf("http://%s%s", calls[i].peer->address, calls[i].path);
		http[i] = (struct http_call){ .url = urls[i],
					      .headers = headers,
					      .n_headers = n_headers,
					      .timeout_ms = timeout_of(p, &calls[i]),
					      .max_reply = p->max_reply,
					      .into = &calls[i].body,
					      .grant = grant,
					      .grant_arg = &calls[i] };
	}
	http_group_call(g, http, replies, errs, n);
	for (size_t i = 0; i < n; i++) {
		calls[i].err = errs[i];
		drop_url(&calls[i].err);
		take_reply(p, &calls[i], &replies[i]);
		http_reply_fini(&replies[i]);
		free(urls[i]);
	}
	free(urls);
	free(errs);
	free(replies);
	free(http);
}

void peers_call(struct peers *p, struct peer_call *calls, size_t n,
		const struct http_header *headers, size_t n_headers)
{
	struct http_header all[PEER_HEADERS + 1] = { { "Accept", "application/protobuf" } };
	struct err err = ERR_INIT;
	struct http_group *g;
	bool failed = false;

	assert(n_headers <= PEER_HEADERS);
	for (size_t i = 0; i < n_headers; i++)
		all[i + 1] = headers[i];
	for (size_t i = 0; i < n; i++) {
		calls[i].memory = p->memory;
		calls[i].live_ms = PEER_LIVE_UNSAID;
		err_clear(&calls[i].err);
	}
	atomic_fetch_add(&p->n_calls, n);
	g = borrow_group(p, &err);
	if (g == NULL) {
		for (size_t i = 0; i < n; i++)
			calls[i].err = err;
		return;
	}
	run_round(p, g, calls, n, all, n_headers + 1);
	return_group(p, g);
	for (size_t i = 0; i < n; i++)
		failed |= calls[i].err.kind != ERR_NONE;
	if (failed && p->is_resolving)
		resolve_sooner(p);
}

/* ---- the end ---- */

void peers_interrupt(struct peers *p)
{
	if (p != NULL)
		atomic_store(&p->interrupt, true);
}

/* A name server that is away can keep the resolver for half a minute: a stop does not wait for
 * that. False when the resolver frees everything itself then. */
static bool end_resolver(struct peers *p)
{
	struct timespec at = timespec_of(clock_mono_ns() + STOP_WAIT_MS * NS_PER_MS);
	int ret = 0;

	pthread_mutex_lock(&p->lock);
	p->stopping = true;
	pthread_cond_broadcast(&p->wake);
	while (!p->has_ended && ret == 0)
		ret = pthread_cond_timedwait(&p->wake, &p->lock, &at);
	p->is_abandoned = !p->has_ended;
	if (p->is_abandoned)
		pthread_detach(p->resolver);
	ret = p->is_abandoned;
	pthread_mutex_unlock(&p->lock);
	if (ret == 0)
		pthread_join(p->resolver, NULL);
	return ret == 0;
}

void peers_free(struct peers *p)
{
	if (p != NULL && (!p->is_resolving || end_resolver(p)))
		free_all(p);
}

void peers_stats(struct peers *p, struct peers_stats *out)
{
	*out = (struct peers_stats){ atomic_load(&p->n_calls), atomic_load(&p->n_failures), 0 };
	pthread_mutex_lock(&p->lock);
	for (size_t i = 0; i < p->n_names; i++)
		out->peers += p->names[i].n;
	pthread_mutex_unlock(&p->lock);
}

const char *peers_what(const struct peers *p)
{
	return p->what;
}
