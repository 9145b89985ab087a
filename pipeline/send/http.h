/* SPDX-License-Identifier: Apache-2.0
 *
 * http.h - what exporters over HTTP share: one POST per batch, its verdict by status, and
 * the options of the Collector's confighttp client.
 *
 *   consume -> sending queue -> `encode` (the exporter's) -> compressed -> POST (net/http_client.h)
 *                   ^                                                            |
 *                   +---- OK, retryable, permanent, too large <- `accepted` -----+
 *
 * An exporter keeps a pointer at the head of its state, says how a batch becomes a body, and what
 * an answer means beside its status.
 *
 * | answer | verdict |
 * |---|---|
 * | 2xx | taken; `accepted` may say that some items were not |
 * | 429, 502, 503, 504, none | retryable, not before Retry-After (seconds, or a date) |
 * | other 5xx | retryable with retries_5xx |
 * | 413 | smaller bodies if the exporter can (`shrink`), else the halves of the batch are tried |
 * | others | permanent |
 *
 * A batch may be several bodies, sent one after the other: `encode` is asked for the next one when
 * one was settled. A retry goes on where the last attempt stopped.
 *
 * THREADS: `encode`, `accepted` and the others run on the sender's loop, so they may not block.
 * OWNERSHIP: the settings are copied; what they point to outlives the sender.
 * LIMITS: the sending queue's; an answer has 1 MiB.
 * SPEC: OTLP/HTTP responses; RFC 9110 10.2.3 (Retry-After); the Collector's confighttp.
 */
#ifndef PIPELINE_SEND_HTTP_H
#define PIPELINE_SEND_HTTP_H

#include "net/http_client.h"
#include "pipeline/component.h"
#include "pipeline/option/blocks.h"
#include "pipeline/send/queue.h"

struct http_sender;

/* What to send. `encode` fills it; it is empty before. */
struct http_payload {
	const char *url;          /* borrowed; lives as long as the sender */
	const char *content_type; /* likewise */
	/* The body: these pieces (they live until the request is answered, as r->encoding does), or
	 * what was put into `own` when there are none. */
	const struct bytes *pieces;
	size_t n_pieces;
	struct buf own;
	const struct http_header *headers; /* beside the usual ones; borrowed like url */
	size_t n_headers;
	/* Of a batch in several bodies. The first is asked for with r->progress 0. */
	bool has_more;     /* the batch goes on at `next` */
	uint64_t next;     /* r->progress, when `encode` is asked again */
	uint32_t n_items;  /* in this body; read when it is not the whole batch */
	uint32_t n_failed; /* items that can be in no body: settled as permanent */
	bool is_empty;     /* nothing to send: there are only such */
};

struct http_sender_settings {
	struct component *component;
	const struct http_client_options *client;
	const struct retry_options *retry;
	const struct queue_options *queue;
	uint64_t max_request_bytes; /* uncompressed OTLP; larger batches are split. 0: never */
	bool in_order;              /* one request at a time */
	bool retries_5xx;           /* every 5xx */
	/* Make the body of r->batch, whose OTLP is r->encoding. -1 and *err: it cannot be encoded,
	 * and is dropped as permanent. 0 and *err: why n_failed items are not in it. */
	int (*encode)(struct component *c, const struct send_request *r, struct http_payload *out,
		      struct err *err);
	/* A 2xx: the number of items that were refused; *err may say why, which is logged also when
	 * the number is 0. May be NULL. */
	uint32_t (*accepted)(struct component *c, const struct http_reply *reply, struct err *err);
	/* A body was refused, as SEND_TOO_LARGE or SEND_PERMANENT: true when `encode` will make a
	 * smaller one from the same place, which may fare better. May be NULL. */
	bool (*shrink)(struct component *c, const struct http_payload *refused,
		       enum send_result why, const struct err *err);
	/* A body is settled, and that n_failed items were in none. May be NULL. */
	void (*settled)(struct component *c, const struct http_payload *p);
	/* A body was refused for good; `err` says why. May be NULL. */
	void (*lost)(struct component *c, const struct http_payload *refused,
		     const struct err *err);
	/* The reason that the body of a failure gives, in words. The body's text when NULL. */
	void (*explain)(struct component *c, const struct http_reply *reply, struct buf *out);
};

/* NULL with *err. On the main thread, in the exporter's start. */
struct http_sender *http_sender_new(const struct http_sender_settings *s, struct err *err);
/* NULL is fine. */
void http_sender_free(struct http_sender *s);

/* Callbacks for the exporter's type, whose state begins with its struct http_sender * (NULL before
 * start and after shutdown). consume takes b; any thread, never blocks. */
void http_sender_consume(struct component *c, struct batch *b);
void http_sender_drain(struct component *c);
int http_sender_is_drained(struct component *c);
bool http_sender_is_ready(struct component *c, char *why, size_t why_size);
void http_sender_metrics(struct component *c, struct buf *out);

/* For an exporter's validate: TLS, compression, queue. `endpoint` itself: http_sender_check_url. */
void http_sender_check(const struct http_client_options *client, const struct queue_options *queue,
		       const struct conf_node *node, struct conf_errors *errs,
		       const char *yaml_path);
/* http[s]://host[:port][/path]; "" is left alone. Reports at `key`. */
void http_sender_check_url(const char *url, const char *key, const struct conf_node *node,
			   struct conf_errors *errs, const char *yaml_path);

/* A Retry-After value, seconds or a date, as milliseconds from now; 0 when it says nothing. */
uint32_t http_sender_retry_after_ms(const char *value, uint64_t now_wall_ns);

#endif
