/* SPDX-License-Identifier: Apache-2.0
 *
 * sigv4.h - signs an HTTP request for S3 and its relatives: AWS Signature Version 4 in the
 * Authorization header.
 *
 * DESIGN: the caller builds the request's path, query and headers once, as they are sent, and this
 * signs exactly those bytes: nothing can be encoded in two ways. Why not libcurl's: Debian 12's
 * leaves out x-amz-content-sha256, signs the query unsorted and a key with '=' wrongly.
 * THREADS: pure functions, any thread. OWNERSHIP: borrows everything.
 * SPEC: "Authenticating Requests (AWS Signature Version 4)" of the S3 API reference: the path is
 * encoded once and not normalized, as S3 wants it (other AWS services want otherwise).
 */
#ifndef NET_SIGV4_H
#define NET_SIGV4_H

#include "base/base.h"
#include "base/buf.h"
#include "net/http_request.h"

enum { SIGV4_HASH_SIZE = 65, SIGV4_DATE_SIZE = 17, SIGV4_HEADERS_MAX = 24 };

struct sigv4_param {
	const char *name, *value; /* as they are, not encoded; value "" for a name alone */
};

struct sigv4_request {
	const char *method;
	const char *path;  /* encoded (sigv4_encode), begins with '/' */
	const char *query; /* encoded and sorted (sigv4_query), "" without */
	/* All of these are signed, each name once, at most SIGV4_HEADERS_MAX: host, x-amz-date,
	 * x-amz-content-sha256, and what else must not be tampered with. */
	const struct http_header *headers;
	size_t n_headers;
	const char *payload_hash; /* sigv4_hash of the body */
	const char *date;         /* the value of x-amz-date */
};

struct sigv4_signer {
	const char *access_key, *secret_key;
	const char *region, *service;
};

/* Percent-encode all but A-Z a-z 0-9 - . _ ~ (and '/' when keep_slash), with upper-case digits. */
void sigv4_encode(struct bytes s, bool keep_slash, struct buf *out);
/* "a=1&b=%20": encoded, in the order the signature wants. At most 16 parameters. */
void sigv4_query(const struct sigv4_param *params, size_t n, struct buf *out);
/* SHA-256 of the pieces one after another, as 64 hex digits and NUL. */
void sigv4_hash(const struct bytes *pieces, size_t n, char out[SIGV4_HASH_SIZE]);
/* "20150830T123600Z" and NUL. */
void sigv4_date(uint64_t wall_ns, char out[SIGV4_DATE_SIZE]);
/* Append the value of the Authorization header. */
void sigv4_sign(const struct sigv4_request *r, const struct sigv4_signer *s, struct buf *out);

#endif
