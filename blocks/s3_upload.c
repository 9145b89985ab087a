/* SPDX-License-Identifier: Apache-2.0
 *
 * s3_upload.c - see s3_upload.h.
 */
#include "blocks/s3_upload.h"

#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "blocks/s3_answer.h"

#include <stdio.h>

enum { PARTS_MAX = 10000, ETAG_SIZE = 80, UPLOADS_PAGE_MAX = 4 << 20 };

struct part {
	char etag[ETAG_SIZE];
};

struct upload {
	struct backend_writer w;
	const struct s3_upload_settings *set;
	char *key;
	struct buf buffer; /* less than one part */
	size_t charged;
	uint64_t sent; /* bytes in parts */
	char id[S3_UPLOAD_ID_SIZE];
	struct part *parts;
	size_t n_parts, cap;
};

static struct upload *upload_of(struct backend_writer *w)
{
	return CONTAINER_OF(w, struct upload, w);
}

/* ---- requests ---- */

/* What the user wants of the object, for PUT and CreateMultipartUpload. */
static void add_wishes(const struct s3_upload_settings *set, struct s3_request *r)
{
	if (set->storage_class != NULL)
		r->headers[r->n_headers++] =
			(struct http_header){ "x-amz-storage-class", set->storage_class };
	if (set->sse != NULL)
		r->headers[r->n_headers++] =
			(struct http_header){ "x-amz-server-side-encryption", set->sse };
	if (set->sse_kms_key != NULL)
		r->headers[r->n_headers++] =
			(struct http_header){ "x-amz-server-side-encryption-aws-kms-key-id",
					      set->sse_kms_key };
}

/* Is there an object of that size? Asked when an answer leaves it open: keys of large objects are
 * fresh random ids, so it is ours. */
static bool is_there(const struct s3_upload_settings *set, const char *key, uint64_t size)
{
	struct s3_request r = { .method = "HEAD", .key = key };
	struct s3_reply reply = S3_REPLY_INIT;
	const char *text;
	uint64_t found = 0;
	bool is = false;

	if (s3_client_call(set->client, &r, &reply, NULL) == 0) {
		text = http_reply_header(&reply.http, "Content-Length");
		is = text != NULL && str_to_u64(bytes_str(text), &found) == 0 && found == size;
	}
	s3_reply_fini(&reply);
	return is;
}

/* A status of success is believed only with the answer that belongs to it: an error that came after
 * the status and was cut short, or somebody else's page, may look the same. */
static int check_stored(const struct s3_upload_settings *set, const char *key, uint64_t size,
			struct err *err)
{
	if (is_there(set, key, size))
		return 0;
	return err_set(err, ERR_UNAVAILABLE,
		       "the store said success, but with an answer that is none, and the object is "
		       "not there");
}

int s3_upload_put(const struct s3_upload_settings *set, const char *key, const struct bytes *pieces,
		  size_t n, enum backend_put_mode mode, struct err *err)
{
	struct s3_request r = {
		.method = "PUT", .key = key, .body = pieces, .n_body = n, .may_be_error = true
	};
	struct s3_reply reply = S3_REPLY_INIT;
	uint64_t size = 0;
	int ret;

	add_wishes(set, &r);
	if (mode == BACKEND_IF_NONE_MATCH)
		r.headers[r.n_headers++] = (struct http_header){ "If-None-Match", "*" };
	ret = s3_client_call(set->client, &r, &reply, err);
	for (size_t i = 0; i < n; i++)
		size += pieces[i].n;
	if (ret == 0 && reply.http.body.n > 0)
		ret = check_stored(set, key, size, err);
	s3_reply_fini(&reply);
	return ret;
}

static int start_parts(struct upload *u, struct err *err)
{
	struct s3_request r = {
		.method = "POST", .key = u->key, .params = { { "uploads", "" } }, .n_params = 1
	};
	struct s3_reply reply = S3_REPLY_INIT;
	int ret;

	add_wishes(u->set, &r);
	ret = s3_client_call(u->set->client, &r, &reply, err);
	if (ret == 0)
		ret = s3_answer_upload_id(buf_bytes(&reply.http.body), u->id, err);
	s3_reply_fini(&reply);
	return ret < 0 ? err_wrap(err, "start upload") : 0;
}

static int note_etag(struct upload *u, const struct http_reply *reply, struct err *err)
{
	const char *etag = http_reply_header(reply, "ETag");

	if (etag == NULL || strlen(etag) >= ETAG_SIZE || strpbrk(etag, "<&") != NULL)
		return err_set(err, ERR_INVALID, "the answer has no usable ETag");
	u->parts = xgrow(u->parts, &u->cap, u->n_parts + 1, sizeof(*u->parts));
	memcpy(u->parts[u->n_parts].etag, etag, strlen(etag) + 1);
	u->n_parts++;
	return 0;
}

static int send_part(struct upload *u, const struct bytes *pieces, size_t n, struct err *err)
{
	struct s3_request r = {
		.method = "PUT", .key = u->key, .body = pieces, .n_body = n, .may_be_error = true
	};
	struct s3_reply reply = S3_REPLY_INIT;
	char number[16];
	int ret;

	if (u->n_parts == PARTS_MAX)
		return err_set(err, ERR_TOO_LARGE,
			       "%d parts of %llu bytes are full: set a larger s3.part_size",
			       PARTS_MAX, (unsigned long long)u->set->part_size);
	if (u->n_parts == 0 && start_parts(u, err) < 0)
		return -1;
	snprintf(number, sizeof(number), "%zu", u->n_parts + 1);
	r.params[r.n_params++] = (struct sigv4_param){ "partNumber", number };
	r.params[r.n_params++] = (struct sigv4_param){ "uploadId", u->id };
	ret = s3_client_call(u->set->client, &r, &reply, err);
	if (ret == 0)
		ret = note_etag(u, &reply.http, err);
	s3_reply_fini(&reply);
	if (ret < 0)
		return err_wrap(err, "part %s", number);
	for (size_t i = 0; i < n; i++)
		u->sent += pieces[i].n;
	return 0;
}

static void list_parts(const struct upload *u, struct buf *xml)
{
	buf_add_str(xml, "<CompleteMultipartUpload "
			 "xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">");
	for (size_t i = 0; i < u->n_parts; i++)
		buf_printf(xml, "<Part><PartNumber>%zu</PartNumber><ETag>%s</ETag></Part>", i + 1,
			   u->parts[i].etag);
	buf_add_str(xml, "</CompleteMultipartUpload>");
}

static int complete(struct upload *u, struct err *err)
{
	struct s3_request r = { .method = "POST",
				.key = u->key,
				.params = { { "uploadId", u->id } },
				.n_params = 1,
				.may_be_error = true };
	struct s3_reply reply = S3_REPLY_INIT;
	struct err local = ERR_INIT;
	struct buf xml = BUF_INIT;
	struct bytes body;
	int ret;

	list_parts(u, &xml);
	body = buf_bytes(&xml);
	r.body = &body;
	r.n_body = 1;
	ret = s3_client_call(u->set->client, &r, &reply, &local);
	if (ret == 0 && !s3_answer_is_completed(buf_bytes(&reply.http.body)))
		ret = check_stored(u->set, u->key, u->sent, &local);
	else if (ret < 0 && (reply.is_unsure || local.kind == ERR_NOT_FOUND) &&
		 is_there(u->set, u->key, u->sent))
		ret = 0;
	if (ret < 0 && err != NULL)
		*err = local;
	s3_reply_fini(&reply);
	buf_fini(&xml);
	return ret;
}

static int abort_upload(const struct s3_upload_settings *set, const char *key, const char *id,
			struct err *err)
{
	struct s3_request r = {
		.method = "DELETE", .key = key, .params = { { "uploadId", id } }, .n_params = 1
	};
	struct s3_reply reply = S3_REPLY_INIT;
	struct err local = ERR_INIT;
	int ret = s3_client_call(set->client, &r, &reply, &local);

	s3_reply_fini(&reply);
	if (ret == 0 || local.kind == ERR_NOT_FOUND)
		return 0;
	if (err != NULL)
		*err = local;
	return -1;
}

/* Parts cost money until somebody drops them. */
static void drop_parts(const struct upload *u)
{
	struct err err = ERR_INIT;

	if (abort_upload(u->set, u->key, u->id, &err) < 0)
		log_warn("an unfinished multipart upload stays in the bucket", "key", u->key,
			 "error", err.msg);
}

/* ---- what killed writers left ---- */

struct sweep {
	const struct s3_upload_settings *set;
	size_t n_prefix;
	const char *prefix;
	uint64_t before_ns;
	size_t n;
};

/* "<tenant>/<id>/data", "index" or "bloom-N": what else is in the bucket is none of ours. */
static bool is_block_object(const char *key)
{
	const char *id = strchr(key, '/');
	const char *name = id != NULL ? strchr(id + 1, '/') : NULL;

	if (name == NULL || name - id != 37 || strspn(id + 1, "0123456789abcdef-") != 36)
		return false;
	return strcmp(name, "/data") == 0 || strcmp(name, "/index") == 0 ||
	       str_has_prefix(name, "/bloom-");
}

static int sweep_one(void *arg, const struct s3_pending_upload *u, struct err *err)
{
	struct sweep *s = arg;

	if (u->begun_ns >= s->before_ns || strncmp(u->key, s->prefix, s->n_prefix) != 0 ||
	    !is_block_object(u->key + s->n_prefix))
		return 0;
	if (abort_upload(s->set, u->key, u->id, err) < 0)
		return -1;
	s->n++;
	return 0;
}

int s3_upload_sweep(const struct s3_upload_settings *set, const char *prefix, uint64_t before_ns,
		    size_t *n, struct err *err)
{
	struct sweep s = { set, strlen(prefix), prefix, before_ns, 0 };
	struct s3_request r = { .method = "GET",
				.params = { { "uploads", "" }, { "prefix", prefix } },
				.n_params = prefix[0] != '\0' ? 2 : 1,
				.max_reply = UPLOADS_PAGE_MAX };
	struct s3_reply reply = S3_REPLY_INIT;
	int ret = s3_client_call(set->client, &r, &reply, err);

	if (ret == 0)
		ret = s3_answer_uploads(buf_bytes(&reply.http.body), sweep_one, &s, err);
	s3_reply_fini(&reply);
	*n = s.n;
	return ret;
}

/* ---- the writer ---- */

struct backend_writer *s3_upload_open(const struct s3_upload_settings *set, const char *key)
{
	struct upload *u = xcalloc(1, sizeof(*u));

	u->set = set;
	u->key = xstrdup(key);
	return &u->w;
}

static void upload_free(struct upload *u)
{
	budget_release(u->set->budget, u->charged);
	buf_fini(&u->buffer);
	free(u->parts);
	free(u->key);
	free(u);
}

/* What is in the buffer must be held whatever the budget says: the block is half written. */
static void hold(struct upload *u, struct bytes data)
{
	buf_add_bytes(&u->buffer, data);
	if (u->buffer.cap > u->charged) {
		budget_force(u->set->budget, u->buffer.cap - u->charged);
		u->charged = u->buffer.cap;
	}
}

int s3_upload_append(struct backend_writer *w, struct bytes data, struct err *err)
{
	struct upload *u = upload_of(w);

	while (u->buffer.n + data.n >= u->set->part_size) {
		size_t step = (size_t)u->set->part_size - u->buffer.n;
		const struct bytes pieces[] = { buf_bytes(&u->buffer), { data.p, step } };

		if (send_part(u, pieces, COUNT_OF(pieces), err) < 0)
			return -1;
		buf_reset(&u->buffer);
		data.p += step;
		data.n -= step;
	}
	if (data.n > 0)
		hold(u, data);
	return 0;
}

int s3_upload_finish(struct backend_writer *w, struct err *err)
{
	struct upload *u = upload_of(w);
	struct bytes rest = buf_bytes(&u->buffer);
	int ret = 0;

	if (u->n_parts == 0) {
		ret = s3_upload_put(u->set, u->key, &rest, 1, BACKEND_REPLACE, err);
	} else {
		if (rest.n > 0)
			ret = send_part(u, &rest, 1, err);
		if (ret == 0)
			ret = complete(u, err);
	}
	if (ret < 0)
		s3_upload_abort(w);
	else
		upload_free(u);
	return ret;
}

void s3_upload_abort(struct backend_writer *w)
{
	struct upload *u = upload_of(w);

	if (u->id[0] != '\0')
		drop_parts(u);
	upload_free(u);
}
