/* SPDX-License-Identifier: Apache-2.0
 *
 * s3_upload.h - how an object gets into a bucket: by one PUT, or by parts when it is large.
 *
 *   append -> [buffer, at most one part] --full--> UploadPart ... --finish--> Complete
 *                     '--finish before the first part is full--> PUT
 *
 * Parts are equal (but for the last), as some stores demand; a part goes out of the buffer and the
 * caller's bytes without a copy of the latter. Uploading is done by the caller's thread.
 * OWNERSHIP: a writer borrows the settings, which live as long as the backend.
 * LIMITS: one part buffer per writer, charged to the budget; 10,000 parts.
 */
#ifndef BLOCKS_S3_UPLOAD_H
#define BLOCKS_S3_UPLOAD_H

#include "base/budget.h"
#include "blocks/backend.h"
#include "blocks/s3_client.h"

struct s3_upload_settings {
	struct s3_client *client;
	struct budget *budget; /* may be NULL */
	uint64_t part_size;
	const char *storage_class, *sse, *sse_kms_key; /* NULL: none is asked for */
};

/* One PUT of the pieces. The key is the full one. */
int s3_upload_put(const struct s3_upload_settings *set, const char *key, const struct bytes *pieces,
		  size_t n, enum backend_put_mode mode, struct err *err);
/* Abort uploads of blocks' objects ("<prefix><tenant>/<id>/data" and the like) that were begun
 * before then; prefix is "" or ends with '/'. One page of the store's list. */
int s3_upload_sweep(const struct s3_upload_settings *set, const char *prefix, uint64_t before_ns,
		    size_t *n, struct err *err);
/* The writer of struct backend_ops. Nothing is sent by open. */
struct backend_writer *s3_upload_open(const struct s3_upload_settings *set, const char *key);
int s3_upload_append(struct backend_writer *w, struct bytes data, struct err *err);
int s3_upload_finish(struct backend_writer *w, struct err *err);
void s3_upload_abort(struct backend_writer *w);

#endif
