/* SPDX-License-Identifier: Apache-2.0
 *
 * http.c - see http.h.
 */
#include "pipeline/listen/http.h"

#include "base/clock.h"
#include "base/mem.h"
#include "base/str.h"
#include "net/content_coding.h"
#include "pipeline/auth.h"
#include "pipeline/conf/error.h"
#include "pipeline/listen/cors.h"
#include "pipeline/listen/listener.h"

#include <stdio.h>

enum { BODY_TIMEOUT_MS = 60000, NOT_KEPT_MS = 1 };

/* One loop's share. */
struct share {
	struct http_site site; /* the routes' arg */
	struct http_listener *owner;
	struct http_server *server;
	struct http_route *routes;
	int fd; /* the listener's */
	struct err err;
};

struct http_listener {
	const struct http_server_options *options;
	const struct http_listener_setup *setup; /* during http_listener_start */
	struct listener sockets;
	struct tls *tls;                  /* NULL: plain */
	const struct authenticator *auth; /* NULL: everybody */
	struct share *shares;
	unsigned n;
	_Atomic unsigned n_drained;
};

static uint32_t ms_of(int64_t ns)
{
	return (uint32_t)MIN(ns / (int64_t)NS_PER_MS, (int64_t)UINT32_MAX);
}

/* ---- before and after the routes ---- */

static void admit(struct http_request *req, void *arg)
{
	const struct http_listener *l = arg;

	if (http_cors_answers_preflight(&l->options->cors, req))
		return;
	if (l->auth != NULL)
		auth_http(req, l->auth);
}

static void decorate(const struct http_request *req, struct http_headers *to, void *arg)
{
	const struct http_server_options *o = ((const struct http_listener *)arg)->options;

	http_cors_decorate(&o->cors, req, to);
	for (size_t i = 0; i < o->response_headers.n; i++)
		http_answer_header(to, o->response_headers.items[i].name,
				   o->response_headers.items[i].value);
}

static struct http_settings settings_of(const struct http_listener *l, struct component *c)
{
	const struct http_server_options *o = l->options;
	struct http_settings s = HTTP_SETTINGS_INIT;

	if (o->max_request_body_size > 0)
		s.max_body = o->max_request_body_size;
	s.max_decompression_ratio = (unsigned)o->max_decompression_ratio;
	s.max_connections = listener_share(o->max_connections, component_n_loops(c));
	s.read_header_timeout_ms = ms_of(o->read_header_timeout_ns);
	s.body_timeout_ms = o->read_timeout_ns > 0 ? ms_of(o->read_timeout_ns) : BODY_TIMEOUT_MS;
	s.write_timeout_ms = ms_of(o->write_timeout_ns);
	s.idle_timeout_ms = o->keep_alives_enabled ? ms_of(o->idle_timeout_ns) : NOT_KEPT_MS;
	s.hold_timeout_ms = l->setup->hold_timeout_ms;
	s.budget = component_budget(c);
	s.tls = l->tls;
	s.admit = admit;
	s.decorate = decorate;
	s.admit_arg = (void *)(uintptr_t)l;
	s.error = l->setup->error;
	return s;
}

static void start_on_loop(void *arg)
{
	struct share *sh = arg;
	struct http_listener *l = sh->owner;
	size_t n = l->setup->n_routes;
	struct http_settings settings = settings_of(l, sh->site.component);

	sh->routes = xcalloc(n, sizeof(*sh->routes));
	for (size_t i = 0; i < n; i++) {
		sh->routes[i] = l->setup->routes[i];
		if (!l->setup->own_args)
			sh->routes[i].arg = &sh->site;
	}
	sh->server = http_server_new(sh->site.loop, sh->fd, &settings, sh->routes, n, &sh->err);
}

static void drained(struct http_server *s, void *arg)
{
	struct http_listener *l = arg;

	(void)s;
	atomic_fetch_add(&l->n_drained, 1);
}

static void drain_on_loop(void *arg)
{
	struct share *sh = arg;

	http_server_drain(sh->server, drained, sh->owner);
}

static void free_on_loop(void *arg)
{
	struct share *sh = arg;

	http_server_free(sh->server);
	free(sh->routes);
}

struct http_listener *http_listener_start(struct component *c, const struct http_server_options *o,
					  const struct http_listener_setup *setup, struct err *err)
{
	struct http_listener *l = xcalloc(1, sizeof(*l));
	unsigned n = setup->n_loops > 0 ? setup->n_loops : component_n_loops(c);

	l->options = o;
	l->setup = setup;
	if (auth_of_server(c, o->authenticator, &l->auth, err) < 0 ||
	    listener_tls(c, o->tls_on, &o->tls, "HTTP", "http/1.1", &l->tls, err) < 0 ||
	    listener_open(&l->sockets, c, o->endpoint, o->transport, o->tls_on, n,
			  "Starting HTTP server", err) < 0)
		goto fail;
	l->shares = xcalloc(n, sizeof(*l->shares));
	while (l->n < n) {
		struct share *sh = &l->shares[l->n];

		*sh = (struct share){ .site = { c, component_loop(c, l->n) },
				      .owner = l,
				      .fd = l->sockets.fds[l->n] };
		l->n++;
		loop_call(sh->site.loop, start_on_loop, sh);
		if (sh->server == NULL) {
			if (err != NULL)
				*err = sh->err;
			goto fail;
		}
	}
	l->setup = NULL;
	return l;
fail:
	http_listener_free(l);
	return NULL;
}

void http_listener_drain(struct http_listener *l)
{
	if (l == NULL)
		return;
	for (unsigned i = 0; i < l->n; i++)
		loop_call(l->shares[i].site.loop, drain_on_loop, &l->shares[i]);
	/* Their backlogs are not served any more: let clients know. */
	listener_close(&l->sockets);
}

bool http_listener_is_drained(const struct http_listener *l)
{
	return l == NULL || atomic_load(&l->n_drained) == l->n;
}

void http_listener_free(struct http_listener *l)
{
	if (l == NULL)
		return;
	for (unsigned i = 0; i < l->n; i++)
		loop_call(l->shares[i].site.loop, free_on_loop, &l->shares[i]);
	listener_close(&l->sockets);
	tls_free(l->tls);
	free(l->shares);
	free(l);
}

/* ---- options ---- */

/* Do both name the same coding ("x-gzip" is gzip)? */
static bool is_same_coding(const char *a, const char *b)
{
	enum content_coding x, y;

	if (str_eq_nocase(bytes_str(a), b))
		return true;
	return content_coding_parse(bytes_str(a), &x) == 0 &&
	       content_coding_parse(bytes_str(b), &y) == 0 && x == y;
}

bool http_listener_takes_coding(struct http_request *req, const struct http_server_options *o)
{
	const char *coding = http_request_header(req, "Content-Encoding");

	/* No coding is always taken, as everywhere. */
	if (coding == NULL || is_same_coding(coding, "identity"))
		return true;
	for (size_t i = 0; i < o->compression_algorithms.n; i++)
		if (is_same_coding(coding, o->compression_algorithms.items[i]))
			return true;
	http_respond_error(req, 415, 0, "unsupported Content-Encoding: %.64s", coding);
	return false;
}

void http_listener_check(const struct http_server_options *o, const struct conf_node *node,
			 const char *section, struct conf_errors *errs, const char *yaml_path)
{
	char key[128];

	snprintf(key, sizeof(key), "%sendpoint", section);
	listener_check(o->endpoint, o->transport, node, key, errs, yaml_path);
	snprintf(key, sizeof(key), "%stls", section);
	if (o->tls_on)
		listener_check_tls(&o->tls, node, key, errs, yaml_path);
	snprintf(key, sizeof(key), "%scors.allowed_origins", section);
	http_cors_check(&o->cors, node, key, errs, yaml_path);
	snprintf(key, sizeof(key), "%sresponse_headers", section);
	for (size_t i = 0; i < o->response_headers.n; i++)
		if (!http_cors_is_field(o->response_headers.items[i].name) ||
		    strpbrk(o->response_headers.items[i].value, "\r\n") != NULL)
			conf_error_at(errs, node, yaml_path, key, "for example {X-Served-By: me}",
				      "\"%.60s\" is no header", o->response_headers.items[i].name);
}
