/* SPDX-License-Identifier: Apache-2.0
 *
 * backend_s3.h - blocks in a bucket of S3 or of a store that speaks its language.
 *
 * The object's key is "<prefix>/<key>", so a real Tempo with the same bucket and prefix reads the
 * same blocks. What differs from a local disk (see backend.h for the calls):
 *   put, writer   an object is one PUT; beyond part_size a multipart upload of equal parts. One
 *                 that is never finished leaves parts behind: backend_sweep_uploads
 *   IF_NONE_MATCH a header of that name. After a time-out the store may have taken it, so EXISTS
 *                 may mean one's own earlier attempt: who must know reads the object back
 *   rename        S3 has none: read, put if nobody did, delete. Not atomic: for a moment (after a
 *                 crash for ever) both keys exist; the same rename again then finishes it. Small
 *                 objects only
 *   list          in the store's order (AWS: bytes of the whole key); one page is sorted
 *   mtime         the store's, whole seconds
 * LIMITS: prefix and key together 1,024 bytes; 10,000 parts of part_size; a renamed object 16 MiB.
 * Part buffers are charged to the budget.
 * SPEC: docs/formats/s3.md.
 */
#ifndef BLOCKS_BACKEND_S3_H
#define BLOCKS_BACKEND_S3_H

#include "base/budget.h"
#include "blocks/backend.h"
#include "blocks/s3_client.h"

struct backend_s3_options {
	struct s3_client_options client;
	const char *prefix;        /* "" or NULL: none; no '/' at either end */
	uint64_t part_size;        /* 0: 8 MiB; at least 5 MiB, S3's own limit */
	const char *storage_class; /* "" or NULL: the bucket's */
	const char *sse;           /* "AES256", "aws:kms"; "" or NULL: the bucket's */
	const char *sse_kms_key;   /* with aws:kms; "" or NULL: the account's default key */
	struct budget *budget;     /* may be NULL */
	unsigned list_page;        /* entries of one page of a listing; 0: the store's 1,000 */
};

/* Options are copied; the bucket is asked for one listing, so that wrong keys, regions and names
 * are found here. NULL on error. Free with backend_free. Loads libcurl. */
struct backend *backend_s3_open(const struct backend_s3_options *o, struct err *err);
/* Figures for metrics; be is one that backend_s3_open made. */
void backend_s3_stats(struct backend *be, struct s3_client_stats *out);

#endif
