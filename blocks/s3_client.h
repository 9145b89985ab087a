/* SPDX-License-Identifier: Apache-2.0
 *
 * s3_client.h - one bucket over HTTP: signs, sends, tries again, and says what an error means.
 *
 * DESIGN: any thread calls; each call borrows a connection (net/http_client.h) from a pool and
 * blocks. What may go away by itself (429, 500, 502, 503, 504, time-outs, broken connections, a
 * conditional write in conflict) is tried again after a pause that doubles and is jittered; a
 * token bucket, filled by successes, pays for retries, so that an outage gets one request per call
 * and not five. Errors name the status, the store's code and what to do; no secret is in them.
 * THREADS: any. OWNERSHIP: options are copied.
 * LIMITS: max_attempts; what an answer may hold is said by the request; 16 idle connections.
 * SPEC: S3 REST API, path and virtual-hosted style; retries as the AWS SDKs' "standard" mode.
 */
#ifndef BLOCKS_S3_CLIENT_H
#define BLOCKS_S3_CLIENT_H

#include "base/base.h"
#include "base/buf.h"
#include "base/err.h"
#include "blocks/s3_credentials.h"
#include "net/http_client.h"
#include "net/sigv4.h"

enum s3_lookup {
	S3_LOOKUP_AUTO, /* bucket.host at AWS, Google and Aliyun, else host/bucket */
	S3_LOOKUP_DNS,  /* bucket.host */
	S3_LOOKUP_PATH, /* host/bucket */
};

struct s3_client_options {
	const char *endpoint; /* host[:port], may have a scheme; "" or NULL: AWS in the region */
	const char *bucket;
	const char *region; /* "" or NULL: us-east-1 */
	bool insecure;      /* http, where the endpoint has no scheme */
	enum s3_lookup lookup;
	const char *ca_file, *cert_file, *key_file; /* "" or NULL: the system's, none */
	bool insecure_skip_verify;
	struct s3_credentials_options credentials; /* region and ca_file are filled in */
	unsigned max_attempts;                     /* 0: 5 */
	uint64_t backoff_first_ns, backoff_max_ns; /* 0: 200 ms, 5 s */
	uint32_t stall_timeout_ms;                 /* 0: 15 s */
	/* While it says true calls end as after s3_client_interrupt: for a stop that comes while
	 * the owner still starts. Any thread; may be NULL. */
	bool (*is_cancelled)(void *arg);
	void *cancel_arg;
};

enum { S3_PARAMS_MAX = 8, S3_HEADERS_MAX = 8 };

struct s3_request {
	const char *method;
	const char *key; /* NULL: the bucket itself */
	struct sigv4_param params[S3_PARAMS_MAX];
	size_t n_params;
	struct http_header headers[S3_HEADERS_MAX]; /* beside those that every request has */
	size_t n_headers;
	const struct bytes *body; /* pieces, sent one after another */
	size_t n_body;
	size_t max_reply;  /* bytes of the answer's body; 0: 1 MiB */
	struct buf *into;  /* as in struct http_call */
	bool may_be_error; /* a 200 may hold an <Error>, which is then one */
	bool is_once;      /* never tried again: the caller does that */
};

struct s3_reply {
	struct http_reply http;
	char code[64]; /* the store's word for the error, "" without one */
	/* An earlier attempt of this call may have been carried out although it failed. False
	 * proves nothing: libcurl itself sends again when the store closed a kept connection. */
	bool is_unsure;
};

#define S3_REPLY_INIT                                                                              \
	{                                                                                          \
		HTTP_REPLY_INIT, "", false                                                         \
	}

enum s3_op { S3_OP_GET, S3_OP_HEAD, S3_OP_LIST, S3_OP_PUT, S3_OP_POST, S3_OP_DELETE, S3_OPS };

struct s3_client_stats {
	uint64_t requests; /* attempts sent */
	uint64_t retries;  /* of those, not the first of their call */
	/* Calls that ended with an error that is no answer: not 404, 412, 304, 416. */
	uint64_t failures;
	uint64_t ops[S3_OPS]; /* requests, by kind */
};

struct s3_client;

/* Nothing is sent yet. NULL with CONFIG (endpoint, bucket), UNIMPLEMENTED (no libcurl). */
struct s3_client *s3_client_new(const struct s3_client_options *o, struct err *err);
/* No call may be under way. NULL is fine. */
void s3_client_free(struct s3_client *c);

/* 0 with a 2xx answer in *reply, which the caller frees with s3_reply_fini in any case. Kinds:
 * NOT_FOUND (404 but for the bucket), EXISTS (412, 304), CORRUPT (416), PERMISSION (keys, rights,
 * clock, TLS), CONFIG (bucket, region), UNIMPLEMENTED (501), TOO_LARGE, UNAVAILABLE and TIMEOUT
 * (retryable, after retries), INVALID (else). */
int s3_client_call(struct s3_client *c, const struct s3_request *r, struct s3_reply *reply,
		   struct err *err);
void s3_reply_fini(struct s3_reply *reply);

/* While on, calls under way and later ones end soon, with UNAVAILABLE: for a stop that must not
 * wait for a store that hangs. */
void s3_client_interrupt(struct s3_client *c, bool on);
void s3_client_stats(struct s3_client *c, struct s3_client_stats *out);
/* The store's wall clock by the Date of its last answer, to a second; this machine's before there
 * was one. Any thread. */
uint64_t s3_client_now_ns(const struct s3_client *c);
/* "get", "list", ...: the label `op` of the metrics. */
const char *s3_op_name(enum s3_op op);
/* "https://host/bucket": for messages. Lives as long as the client. */
const char *s3_client_where(const struct s3_client *c);

#endif
