/* SPDX-License-Identifier: Apache-2.0
 *
 * s3_answer.h - what S3 and STS answer in XML, as structs.
 *
 * The answers are hostile: each is bounded by what its reader was given (the caller caps the body),
 * strings are cut to their field, numbers and times are checked.
 * OWNERSHIP, THREADS: pure functions; a listing owns its strings.
 * SPEC: "Error responses", ListObjectsV2, CreateMultipartUpload, CompleteMultipartUpload of the S3
 * API reference; AssumeRoleWithWebIdentity of the STS API reference.
 */
#ifndef BLOCKS_S3_ANSWER_H
#define BLOCKS_S3_ANSWER_H

#include "base/arena.h"
#include "blocks/backend.h"
#include "blocks/s3_credentials.h"

enum { S3_UPLOAD_ID_SIZE = 512, S3_TOKEN_SIZE = 2048 };

/* The <Error> element. Strings are "" where the store says nothing. */
struct s3_error {
	char code[64], message[160];
	char region[64];    /* the bucket's, when the request went to another one */
	char endpoint[128]; /* where the bucket wants to be asked */
};

/* 1 when the text is an <Error>, 0 when it is something else, damaged or empty. */
int s3_answer_error(struct bytes xml, struct s3_error *e);

/* The id of a started multipart upload. */
int s3_answer_upload_id(struct bytes xml, char id[S3_UPLOAD_ID_SIZE], struct err *err);

/* A multipart upload that is neither complete nor aborted. */
struct s3_pending_upload {
	const char *key; /* whole, as the store has it; lives for the call */
	char id[S3_UPLOAD_ID_SIZE];
	uint64_t begun_ns; /* wall clock of the store */
};

typedef int s3_pending_fn(void *arg, const struct s3_pending_upload *u, struct err *err);

/* Call fn for each upload of one page of ListMultipartUploads; what has no key, id or time is left
 * out. -1 as fn does, or for a text that is something else. */
int s3_answer_uploads(struct bytes xml, s3_pending_fn *fn, void *arg, struct err *err);

/* Does this say that a multipart upload is complete? An answer that was cut short does not. */
bool s3_answer_is_completed(struct bytes xml);

/* One page of a listing. */
struct s3_listing {
	struct backend_entry
		*entries; /* objects and prefixes, merged in byte order of their keys */
	size_t n, cap;
	bool is_truncated;
	char token[S3_TOKEN_SIZE]; /* where the next page begins; never "" when is_truncated */
	struct arena strings;
};

/* Keys are as the store has them, whole; prefixes without the '/' at their end. What can be no key
 * (a NUL in it) is left out. Free with s3_listing_fini, also after an error. */
int s3_answer_listing(struct bytes xml, struct s3_listing *l, struct err *err);
void s3_listing_fini(struct s3_listing *l);

/* Temporary keys from STS. */
int s3_answer_assumed_role(struct bytes xml, struct s3_keys *keys, struct err *err);

#endif
