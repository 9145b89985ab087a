/* SPDX-License-Identifier: Apache-2.0
 *
 * probe_http.c - see probe_http.h.
 */
#include "connectors/spanmetrics/probe_http.h"

#include "base/mem.h"
#include "base/str.h"
#include "net/http_client.h"
#include "wire/otlp_find_span.h"

#include <stdio.h>

#define TIMEOUT_MS 10000
#define ANSWER_MAX (64 * MIB)

struct probe_http {
	struct span_lookup lookup; /* first */
	struct http_client *client;
	struct budget *budget;
	size_t charged;
	char *base; /* URL without a slash at its end */
};

static bool has_scheme(const char *endpoint)
{
	return str_has_prefix(endpoint, "http://") || str_has_prefix(endpoint, "https://");
}

int probe_http_check(const char *endpoint, struct err *err)
{
	const char *host = has_scheme(endpoint) ? strstr(endpoint, "//") + 2 : endpoint;

	for (const char *p = endpoint; *p != '\0'; p++)
		if ((unsigned char)*p <= ' ' || *p == 0x7f || *p == '?' || *p == '#')
			return err_set(err, ERR_INVALID, "\"%.100s\": no spaces, no query",
				       endpoint);
	if (*host == '\0' || *host == '/' || *host == ':')
		return err_set(err, ERR_INVALID, "\"%.100s\": names no host", endpoint);
	if (!has_scheme(endpoint) && (strstr(endpoint, "://") != NULL || !strchr(endpoint, ':')))
		return err_set(err, ERR_INVALID, "\"%.100s\": neither a http URL nor host:port",
			       endpoint);
	return 0;
}

static bool grant(void *arg, size_t n)
{
	struct probe_http *h = arg;

	if (!budget_charge(h->budget, n))
		return false;
	h->charged += n;
	return true;
}

static int call(struct probe_http *h, const struct span_wanted *w, struct http_reply *reply,
		struct err *err)
{
	struct http_header headers[] = { { "Accept", "application/protobuf" },
					 { "X-Scope-OrgID", w->tenant } };
	struct buf url = BUF_INIT;
	char hex[33];
	int ret;

	str_hex(w->trace_id, 16, hex);
	buf_printf(&url, "%s/api/traces/%s", h->base, hex);
	ret = http_client_call(h->client,
			       &(struct http_call){ .url = buf_cstr(&url),
						    .headers = headers,
						    .n_headers = COUNT_OF(headers),
						    .max_reply = ANSWER_MAX,
						    .accept_compressed = true,
						    .grant = grant,
						    .grant_arg = h },
			       reply, err);
	buf_fini(&url);
	return ret;
}

static enum span_found unknown(struct err *err, enum err_kind kind, const char *why)
{
	err_set(err, kind, "%s", why);
	return SPAN_UNKNOWN;
}

static enum span_found judge(const struct http_reply *reply, const struct span_wanted *w,
			     struct err *err)
{
	int got;

	if (reply->status == 404)
		return SPAN_NO_TRACE;
	if (reply->status == 422)
		return unknown(err, ERR_TOO_LARGE, "the trace is larger than it may be (422)");
	if (reply->status != 200 && reply->status != 206) {
		err_set(err, ERR_UNAVAILABLE, "status %d", reply->status);
		return SPAN_UNKNOWN;
	}
	got = otlp_find_span(buf_bytes(&reply->body), w->trace_id, w->span_id);
	if (got > 0)
		return SPAN_FOUND;
	if (got < 0)
		return unknown(err, ERR_CORRUPT, "the answer is no trace in protobuf");
	if (reply->status == 206)
		return unknown(err, ERR_UNAVAILABLE, "not every place was asked (206)");
	return reply->body.n > 0 ? SPAN_NOT_IN_TRACE : SPAN_NO_TRACE;
}

static enum span_found find(struct span_lookup *l, const struct span_wanted *w,
			    const _Atomic bool *is_gone, struct err *err)
{
	struct probe_http *h = (struct probe_http *)l;
	struct http_reply reply = HTTP_REPLY_INIT;
	enum span_found found = SPAN_UNKNOWN;

	(void)is_gone; /* the client has it */
	if (call(h, w, &reply, err) == 0)
		found = judge(&reply, w, err);
	http_reply_fini(&reply);
	budget_release(h->budget, h->charged);
	h->charged = 0;
	return found;
}

struct span_lookup *probe_http_new(const char *endpoint, struct budget *budget,
				   const _Atomic bool *is_gone, struct err *err)
{
	struct http_client_settings settings = { .timeout_ms = TIMEOUT_MS, .interrupt = is_gone };
	struct http_client *client = http_client_new(&settings, err);
	struct probe_http *h;
	struct buf base = BUF_INIT;

	if (client == NULL)
		return NULL;
	h = xcalloc(1, sizeof(*h));
	buf_printf(&base, "%s%s", has_scheme(endpoint) ? "" : "http://", endpoint);
	while (base.n > 0 && base.p[base.n - 1] == '/')
		base.n--;
	h->base = xstrdup(buf_cstr(&base));
	buf_fini(&base);
	h->client = client;
	h->budget = budget;
	h->lookup.find = find;
	return &h->lookup;
}

void probe_http_free(struct span_lookup *l)
{
	struct probe_http *h = (struct probe_http *)l;

	if (h == NULL)
		return;
	http_client_free(h->client);
	free(h->base);
	free(h);
}
