/* SPDX-License-Identifier: Apache-2.0
 *
 * http.h - a request over HTTP on its way down the pipeline: held until its spans are
 * delivered, answered in time, given up when the client goes. What receivers over HTTP share.
 *
 *   begin: http_ingest_tenant -> body -> batch -> http_ingest_submit ... -> succeed, or 503
 *
 * OWNERSHIP: it frees itself after the answer and the last verdict; holds a reference of its
 * request and points to nothing of the receiver. THREADS: the request's loop. SPEC: INTERFACE
 * "Receivers' answers".
 */
#ifndef PIPELINE_INGEST_HTTP_H
#define PIPELINE_INGEST_HTTP_H

#include "pipeline/listen/http.h"
#include "pipeline/ingest/ingest.h"

/* Answer what was taken. `tag` is the receiver's: what http_ingest_submit was given. */
typedef void http_ingest_succeed_fn(struct http_request *req, const struct ingest_answer *a,
				    unsigned tag);

/* The tenant that the request or else the receiver names. -1: no legal name. */
int http_ingest_tenant(const struct component *c, const struct http_request *req,
		       char out[TENANT_MAX + 1], struct err *err);
/* Answer an error of reading a request, by its kind. */
void http_ingest_refuse(struct http_request *req, const struct err *err);
/* Send the batch of a request down the pipeline; takes it. `rejects` may be NULL. */
void http_ingest_submit(struct http_request *req, struct http_site *site,
			struct transport_counters *count, http_ingest_succeed_fn *succeed,
			unsigned tag, struct batch *b, const struct otlp_rejects *rejects);
/* For http_listener_setup.hold_timeout_ms: above what ingest answers by, as the net under it. */
uint32_t http_ingest_hold_ms(const struct component *c);

#endif
