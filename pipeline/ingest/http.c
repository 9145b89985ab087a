/* SPDX-License-Identifier: Apache-2.0
 *
 * http.c - see http.h.
 */
#include "pipeline/ingest/http.h"

#include "base/clock.h"
#include "base/mem.h"
#include "pipeline/option/blocks.h"

enum { HOLD_MARGIN_MS = 1000, GONE_GRACE_MS = 500 };

struct http_ingest {
	struct ingest in;
	struct http_request *req;
	http_ingest_succeed_fn *succeed;
	unsigned tag;
};

static void answer(struct ingest *in, const struct ingest_answer *a)
{
	struct http_ingest *h = CONTAINER_OF(in, struct http_ingest, in);

	if (a->retryable)
		http_respond_error(h->req, 503, MAX((a->retry_after_ms + 999) / 1000, 1u), "%s",
				   a->message);
	else
		h->succeed(h->req, a, h->tag);
}

static void released(struct ingest *in)
{
	struct http_ingest *h = CONTAINER_OF(in, struct http_ingest, in);

	http_request_unref(h->req);
	free(h);
}

/* An end of file may be a closed sending half, so what is nearly delivered is still answered. */
static void gone(struct http_request *req, enum http_gone why, void *arg)
{
	struct http_ingest *h = arg;

	(void)req;
	if (why == HTTP_GONE_CLIENT)
		ingest_hurry(&h->in, GONE_GRACE_MS);
	else
		ingest_withdraw(&h->in, "the server is stopping, send again");
}

int http_ingest_tenant(const struct component *c, const struct http_request *req,
		       char out[TENANT_MAX + 1], struct err *err)
{
	return ingest_tenant(c, bytes_str(http_request_header(req, "X-Scope-OrgID")), out, err);
}

void http_ingest_refuse(struct http_request *req, const struct err *err)
{
	http_respond_error(req, http_status_of(err), err->kind == ERR_EXHAUSTED, "%s", err->msg);
}

void http_ingest_submit(struct http_request *req, struct http_site *site,
			struct transport_counters *count, http_ingest_succeed_fn *succeed,
			unsigned tag, struct batch *b, const struct otlp_rejects *rejects)
{
	struct http_ingest *h = xcalloc(1, sizeof(*h));

	h->in.loop = site->loop;
	h->in.count = count;
	h->in.answer = answer;
	h->in.released = released;
	h->req = http_request_ref(req);
	h->succeed = succeed;
	h->tag = tag;
	http_request_on_gone(req, gone, h);
	/* Last: h may be gone when this returns. */
	ingest_submit(&h->in, site->component, b, rejects, 0);
}

uint32_t http_ingest_hold_ms(const struct component *c)
{
	int64_t ms = c->receiver->ack_timeout_ns / (int64_t)NS_PER_MS + HOLD_MARGIN_MS;

	return (uint32_t)MIN(ms, (int64_t)UINT32_MAX);
}
