/* SPDX-License-Identifier: Apache-2.0
 *
 * cors.c - see cors.h.
 *
 * The origin is said back as it came, with Allow-Credentials, and Vary: Origin keeps caches right;
 * for the list ["*"] alone `*` is the answer, which browsers do not send credentials to. Headers
 * that are always safe to take are allowed beside allowed_headers; of OTLP these are Content-Type
 * and Content-Encoding.
 */
#include "pipeline/listen/cors.h"

#include "base/buf.h"
#include "base/str.h"
#include "pipeline/conf/error.h"

#include <ctype.h>
#include <strings.h>

static const char methods[] = "GET, POST, PUT, PATCH, DELETE, HEAD";

/* Does the pattern, with at most one '*', fit? Hosts and schemes have no case. */
static bool origin_fits(const char *pattern, const char *origin)
{
	const char *star = strchr(pattern, '*');
	size_t head = star != NULL ? (size_t)(star - pattern) : 0;
	size_t tail = star != NULL ? strlen(star + 1) : 0, n = strlen(origin);

	if (star == NULL)
		return strcasecmp(pattern, origin) == 0;
	return n >= head + tail && strncasecmp(pattern, origin, head) == 0 &&
	       strcasecmp(star + 1, origin + n - tail) == 0;
}

static const char *allowed_origin(const struct http_cors_options *o, const char *origin)
{
	for (size_t i = 0; origin != NULL && i < o->allowed_origins.n; i++) {
		if (strcmp(o->allowed_origins.items[i], "*") == 0)
			return "*";
		if (origin_fits(o->allowed_origins.items[i], origin))
			return origin;
	}
	return NULL;
}

static bool is_preflight(const struct http_request *req)
{
	return strcmp(req->method, "OPTIONS") == 0 &&
	       http_request_header(req, "Access-Control-Request-Method") != NULL;
}

bool http_cors_answers_preflight(const struct http_cors_options *o, struct http_request *req)
{
	if (o->allowed_origins.n == 0 || !is_preflight(req))
		return false;
	http_respond(req, &(struct http_answer){ .status = 204 });
	return true;
}

static bool is_header_allowed(const struct http_cors_options *o, struct bytes name)
{
	static const char *const always[] = { "accept",           "content-type",
					      "content-encoding", "origin",
					      "x-requested-with", "accept-language",
					      "content-language" };

	for (size_t i = 0; i < COUNT_OF(always); i++)
		if (str_eq_nocase(name, always[i]))
			return true;
	for (size_t i = 0; i < o->allowed_headers.n; i++)
		if (strcmp(o->allowed_headers.items[i], "*") == 0 ||
		    str_eq_nocase(name, o->allowed_headers.items[i]))
			return true;
	return false;
}

/* Are all of the headers it would send allowed? */
static bool are_allowed(const struct http_cors_options *o, const char *list)
{
	while (list != NULL && *list != '\0') {
		size_t n = strcspn(list, ",");
		struct bytes name = { (const uint8_t *)list, n };

		while (name.n > 0 && isspace(*name.p))
			name = (struct bytes){ name.p + 1, name.n - 1 };
		while (name.n > 0 && isspace(name.p[name.n - 1]))
			name.n--;
		if (name.n > 0 && !is_header_allowed(o, name))
			return false;
		list += n + (list[n] == ',');
	}
	return true;
}

static void join(const struct strlist *list, struct buf *out)
{
	for (size_t i = 0; i < list->n; i++)
		buf_printf(out, "%s%s", i > 0 ? ", " : "", list->items[i]);
}

static void preflight_headers(const struct http_cors_options *o, const struct http_request *req,
			      struct http_headers *to)
{
	const char *wanted = http_request_header(req, "Access-Control-Request-Headers");
	char age[24];

	http_answer_header(to, "Access-Control-Allow-Methods", methods);
	if (wanted != NULL && wanted[0] != '\0')
		http_answer_header(to, "Access-Control-Allow-Headers", wanted);
	if (o->max_age_s > 0) {
		snprintf(age, sizeof(age), "%llu", (unsigned long long)o->max_age_s);
		http_answer_header(to, "Access-Control-Max-Age", age);
	}
}

void http_cors_decorate(const struct http_cors_options *o, const struct http_request *req,
			struct http_headers *to)
{
	const char *origin = NULL;
	struct buf exposed = BUF_INIT;
	bool preflight;

	if (o->allowed_origins.n == 0)
		return;
	preflight = is_preflight(req);
	http_answer_header(to, "Vary",
			   preflight ? "Origin, Access-Control-Request-Method, "
				       "Access-Control-Request-Headers"
				     : "Origin");
	origin = allowed_origin(o, http_request_header(req, "Origin"));
	if (origin == NULL ||
	    (preflight && !are_allowed(o, http_request_header(req, "Access-Control-Request-"
								   "Headers"))))
		return;
	http_answer_header(to, "Access-Control-Allow-Origin", origin);
	if (strcmp(origin, "*") != 0)
		http_answer_header(to, "Access-Control-Allow-Credentials", "true");
	if (preflight) {
		preflight_headers(o, req, to);
	} else if (o->exposed_headers.n > 0) {
		join(&o->exposed_headers, &exposed);
		http_answer_header(to, "Access-Control-Expose-Headers", buf_cstr(&exposed));
		buf_fini(&exposed);
	}
}

bool http_cors_is_field(const char *name)
{
	for (const char *p = name; *p != '\0'; p++)
		if (!isalnum((unsigned char)*p) && strchr("!#$%&'*+-.^_`|~", *p) == NULL)
			return false;
	return name[0] != '\0';
}

void http_cors_check(const struct http_cors_options *o, const struct conf_node *node,
		     const char *key, struct conf_errors *errs, const char *yaml_path)
{
	for (size_t i = 0; i < o->allowed_origins.n; i++) {
		const char *s = o->allowed_origins.items[i], *star = strchr(s, '*');

		if (star != NULL && strchr(star + 1, '*') != NULL)
			conf_error_at(errs, node, yaml_path, key,
				      "for example https://*.example.com",
				      "\"%.100s\" has more than one *", s);
		else if (strcmp(s, "*") != 0 && strstr(s, "://") == NULL)
			conf_error_at(errs, node, yaml_path, key,
				      "origins begin with http:// or https://",
				      "\"%.100s\" is no origin", s);
	}
}
