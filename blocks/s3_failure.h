/* SPDX-License-Identifier: Apache-2.0
 *
 * s3_failure.h - what an error answer of a store means: whether to try again, the kind, and a
 * message that says what to do.
 *
 * Pure functions, any thread. SPEC: "Error responses" of the S3 API reference.
 */
#ifndef BLOCKS_S3_FAILURE_H
#define BLOCKS_S3_FAILURE_H

#include "base/err.h"
#include "blocks/s3_answer.h"
#include "net/http_client.h"

/* What the message tells beside the answer. */
struct s3_context {
	const char *method;
	const char *bucket, *region;
	const char *where;      /* "https://host/bucket" */
	const char *key_source; /* s3_credentials_source */
};

/* The store's clock as of an answer, by its Date header. False: it does not tell. */
bool s3_failure_date(const struct http_reply *reply, uint64_t *unix_s);
/* The <Error> of an answer, completed from its headers; without one the code is "". */
void s3_failure_read(const struct http_reply *reply, struct s3_error *e);
/* May the same request succeed in a moment? */
bool s3_failure_is_transient(int status, const struct s3_error *e);
/* Are the keys at fault in a way that fresh ones may mend? */
bool s3_failure_is_stale_key(const struct s3_error *e);
/* Fill *err; returns -1. */
int s3_failure_describe(const struct http_reply *reply, const struct s3_error *e,
			const struct s3_context *x, struct err *err);

#endif
