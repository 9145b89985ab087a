/* SPDX-License-Identifier: Apache-2.0
 *
 * backend_s3.c - see backend_s3.h: the calls of a backend as requests. Writers are in s3_upload.c.
 */
#include "blocks/backend_s3.h"

#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/rng.h"
#include "base/str.h"
#include "blocks/s3_answer.h"
#include "blocks/s3_upload.h"

#include <stdio.h>

enum {
	PAGE_MAX = 16 << 20,    /* bytes of one page of a listing */
	PAGES_MAX = 100000,     /* of one listing: 100 million entries */
	EMPTY_PAGES_MAX = 1000, /* one after another */
	PROBES_MAX = 3,
	RENAME_MAX = 16 << 20,
	PART_MIN = 5 << 20,
	PART_DEFAULT = 8 << 20,
};

struct s3 {
	struct backend be;
	struct s3_client *client;
	struct s3_upload_settings upload;
	unsigned list_page; /* 0: the store's */
	char *prefix;       /* "" or "a/b/" */
	char *storage_class, *sse, *sse_kms_key;
};

static struct s3 *s3_of(struct backend *be)
{
	return CONTAINER_OF(be, struct s3, be);
}

/* prefix and key; the longest key S3 takes. */
enum { KEY_SIZE = 1025 };

static int full_key(const struct s3 *s, const char *key, char out[KEY_SIZE], struct err *err)
{
	int n = snprintf(out, KEY_SIZE, "%s%s", s->prefix, key);

	if (n < 0 || n >= KEY_SIZE)
		return err_set(err, ERR_INVALID,
			       "with the prefix the key has %d bytes, S3 takes %d", n,
			       KEY_SIZE - 1);
	return 0;
}

/* ---- put ---- */

static int s3_put(struct backend *be, const char *key, struct bytes data,
		  enum backend_put_mode mode, struct err *err)
{
	struct s3 *s = s3_of(be);
	char full[KEY_SIZE];

	if (full_key(s, key, full, err) < 0)
		return -1;
	return s3_upload_put(&s->upload, full, &data, 1, mode, err);
}

static struct backend_writer *s3_writer_open(struct backend *be, const char *key, struct err *err)
{
	struct s3 *s = s3_of(be);
	char full[KEY_SIZE];

	if (full_key(s, key, full, err) < 0)
		return NULL;
	return s3_upload_open(&s->upload, full);
}

/* ---- read ---- */

static int s3_read(struct backend *be, const char *key, size_t max, struct buf *out,
		   struct err *err)
{
	struct s3_reply reply = S3_REPLY_INIT;
	struct s3_request r = { .method = "GET", .max_reply = MAX(max, (size_t)1), .into = out };
	char full[KEY_SIZE];
	int ret = -1;

	if (full_key(s3_of(be), key, full, err) < 0)
		return -1;
	r.key = full;
	ret = s3_client_call(s3_of(be)->client, &r, &reply, err);
	if (ret < 0 && err != NULL && err->kind == ERR_TOO_LARGE)
		err_set(err, ERR_TOO_LARGE, "%s bytes: the limit is %zu",
			http_reply_header(&reply.http, "Content-Length")
				? http_reply_header(&reply.http, "Content-Length")
				: "too many",
			max);
	s3_reply_fini(&reply);
	return ret;
}

static int s3_read_changed(struct backend *be, const char *key, size_t max,
			   char etag[BACKEND_ETAG_SIZE], struct buf *out, struct err *err)
{
	struct s3_reply reply = S3_REPLY_INIT;
	struct s3_request r = { .method = "GET", .max_reply = MAX(max, (size_t)1), .into = out };
	char full[KEY_SIZE];
	const char *now;
	int ret = -1;

	if (full_key(s3_of(be), key, full, err) < 0)
		return -1;
	r.key = full;
	if (etag[0] != '\0')
		r.headers[r.n_headers++] = (struct http_header){ "If-None-Match", etag };
	ret = s3_client_call(s3_of(be)->client, &r, &reply, err);
	if (ret == 0) {
		now = http_reply_header(&reply.http, "ETag");
		/* One that does not fit would never match. */
		snprintf(etag, BACKEND_ETAG_SIZE, "%s",
			 now != NULL && strlen(now) < BACKEND_ETAG_SIZE ? now : "");
		ret = 1;
	} else if (reply.http.status == 304 && etag[0] != '\0') {
		err_clear(err);
		ret = 0;
	}
	s3_reply_fini(&reply);
	return ret;
}

/* "bytes 3-6/10" is what was asked for? *size is the whole object's, 0 when not said. */
static bool is_range(const struct http_reply *reply, uint64_t off, size_t len, uint64_t *size)
{
	const char *text = http_reply_header(reply, "Content-Range");
	unsigned long long first = 0, last = 0, total = 0;

	*size = 0;
	if (text == NULL || sscanf(text, "bytes %llu-%llu/%llu", &first, &last, &total) < 2)
		return false;
	*size = total;
	return first == off && last == off + len - 1;
}

static int ends_before(uint64_t off, size_t len, uint64_t size, struct err *err)
{
	return err_set(err, ERR_CORRUPT, "range %llu+%zu: the object has %llu bytes",
		       (unsigned long long)off, len, (unsigned long long)size);
}

/* A 2xx came. Are the bytes that came with it the range? */
static int check_range(const struct http_reply *reply, uint64_t off, size_t len, size_t got,
		       struct err *err)
{
	const char *said = http_reply_header(reply, "Content-Range");
	uint64_t size;

	if (reply->status == 206) {
		if (is_range(reply, off, len, &size) && got == len)
			return 0;
		if (size > 0 && off + len > size)
			return ends_before(off, len, size, err);
		return err_set(err, ERR_CORRUPT,
			       "range %llu+%zu: the store sent %zu bytes of \"%s\"",
			       (unsigned long long)off, len, got, said ? said : "");
	}
	/* The whole object: fine when that was asked for. */
	if (off == 0 && got == len)
		return 0;
	return ends_before(off, len, got, err);
}

/* More came than was asked for: the store ignores ranges, or this one because there is nothing. */
static int say_no_range(const struct http_reply *reply, uint64_t off, size_t len, struct err *err)
{
	const char *text = http_reply_header(reply, "Content-Length");
	uint64_t size;

	if (text != NULL && str_to_u64(bytes_str(text), &size) == 0 && off + len > size)
		return ends_before(off, len, size, err);
	return err_set(err, ERR_UNIMPLEMENTED, "the store ignores Range");
}

static int s3_read_range(struct backend *be, const char *key, uint64_t off, size_t len,
			 struct buf *out, struct err *err)
{
	struct s3_reply reply = S3_REPLY_INIT;
	struct s3_request r = { .method = "GET", .n_headers = 1, .max_reply = len, .into = out };
	char full[KEY_SIZE], range[64];
	struct err local = ERR_INIT;
	size_t start = out->n;
	int ret;

	if (full_key(s3_of(be), key, full, err) < 0)
		return -1;
	snprintf(range, sizeof(range), "bytes=%llu-%llu", (unsigned long long)off,
		 (unsigned long long)(off + len - 1));
	r.key = full;
	r.headers[0] = (struct http_header){ "Range", range };
	ret = s3_client_call(s3_of(be)->client, &r, &reply, &local);
	if (ret == 0)
		ret = check_range(&reply.http, off, len, out->n - start, &local);
	else if (local.kind == ERR_CORRUPT)
		err_set(&local, ERR_CORRUPT, "range %llu+%zu: the object ends before",
			(unsigned long long)off, len);
	else if (local.kind == ERR_TOO_LARGE)
		say_no_range(&reply.http, off, len, &local);
	if (ret < 0) {
		out->n = start;
		if (err != NULL)
			*err = local;
	}
	s3_reply_fini(&reply);
	return ret;
}

static int s3_size(struct backend *be, const char *key, uint64_t *size, struct err *err)
{
	struct s3_reply reply = S3_REPLY_INIT;
	struct s3_request r = { .method = "HEAD" };
	char full[KEY_SIZE];
	const char *text;
	int ret;

	if (full_key(s3_of(be), key, full, err) < 0)
		return -1;
	r.key = full;
	ret = s3_client_call(s3_of(be)->client, &r, &reply, err);
	if (ret == 0) {
		text = http_reply_header(&reply.http, "Content-Length");
		if (text == NULL || str_to_u64(bytes_str(text), size) < 0)
			ret = err_set(err, ERR_INVALID, "the answer has no Content-Length");
	}
	s3_reply_fini(&reply);
	return ret;
}

/* ---- list ---- */

struct listing {
	struct s3 *s;
	char folder[KEY_SIZE]; /* full, "" or with '/' at its end */
	char token[S3_TOKEN_SIZE];
	char after[KEY_SIZE]; /* full; "": from the beginning */
	enum backend_list_mode mode;
	unsigned n_max; /* entries of a page; 0: the store's 1,000 */
	uint64_t kept;  /* hash of a page before */
	unsigned n_empty;
};

static int ask_page(const struct listing *l, struct s3_listing *page, struct err *err)
{
	struct s3_request r = { .method = "GET", .max_reply = PAGE_MAX };
	struct s3_reply reply = S3_REPLY_INIT;
	char max[16];
	int ret;

	r.params[r.n_params++] = (struct sigv4_param){ "list-type", "2" };
	r.params[r.n_params++] = (struct sigv4_param){ "encoding-type", "url" };
	r.params[r.n_params++] = (struct sigv4_param){ "prefix", l->folder };
	if (l->mode == BACKEND_ONE_LEVEL)
		r.params[r.n_params++] = (struct sigv4_param){ "delimiter", "/" };
	if (l->after[0] != '\0')
		r.params[r.n_params++] = (struct sigv4_param){ "start-after", l->after };
	if (l->token[0] != '\0')
		r.params[r.n_params++] = (struct sigv4_param){ "continuation-token", l->token };
	snprintf(max, sizeof(max), "%u", l->n_max);
	if (l->n_max > 0)
		r.params[r.n_params++] = (struct sigv4_param){ "max-keys", max };
	ret = s3_client_call(l->s->client, &r, &reply, err);
	if (ret == 0)
		ret = s3_answer_listing(buf_bytes(&reply.http.body), page, err);
	else
		memset(page, 0, sizeof(*page));
	s3_reply_fini(&reply);
	return ret;
}

/* 1 = stop, 0, -1. What is no legal key was not put there by us. */
static int show_page(const struct listing *l, const struct s3_listing *page, backend_list_fn *fn,
		     void *arg, struct err *err)
{
	size_t n_prefix = strlen(l->s->prefix), n_folder = strlen(l->folder);
	int ret = 0;

	for (size_t i = 0; i < page->n && ret == 0; i++) {
		struct backend_entry e = page->entries[i];

		if (strncmp(e.key, l->folder, n_folder) != 0 || e.key[n_folder] == '\0')
			continue;
		e.key += n_prefix;
		if (backend_key_check(e.key, NULL) == 0)
			ret = fn(arg, &e, err);
	}
	return ret;
}

static uint64_t hash_page(const struct s3_listing *page)
{
	uint64_t hash = 0;

	for (size_t i = 0; i < page->n; i++)
		hash = hash_xxh64(page->entries[i].key, strlen(page->entries[i].key), hash);
	return hash;
}

/* Is the n-th page (from 0) one that was there before? A page is kept in mind at each power of two,
 * so that a circle of any length is found in at most three rounds. Pages may be empty (AWS skips
 * what was deleted), but not for ever. */
static bool goes_round(struct listing *l, unsigned n, const struct s3_listing *page)
{
	uint64_t hash = hash_page(page);

	if (page->n == 0)
		return ++l->n_empty > EMPTY_PAGES_MAX;
	l->n_empty = 0;
	if (n > 0 && hash == l->kept)
		return true;
	if ((n & (n - 1)) == 0)
		l->kept = hash;
	return false;
}

static int walk_pages(struct listing *l, backend_list_fn *fn, void *arg, struct err *err)
{
	for (unsigned n = 0; n < PAGES_MAX; n++) {
		struct s3_listing page;
		int ret = ask_page(l, &page, err);
		bool goes_on = page.is_truncated;

		if (ret == 0)
			ret = show_page(l, &page, fn, arg, err);
		if (ret == 0 && goes_on &&
		    (strcmp(page.token, l->token) == 0 || goes_round(l, n, &page)))
			ret = err_set(err, ERR_INVALID, "the listing does not get on");
		memcpy(l->token, page.token, sizeof(l->token));
		s3_listing_fini(&page);
		if (ret != 0 || !goes_on)
			return ret < 0 ? -1 : 0;
	}
	return err_set(err, ERR_TOO_LARGE, "the listing has more than %d pages", PAGES_MAX);
}

static int listing_init(struct listing *l, struct backend *be, const char *folder,
			enum backend_list_mode mode, struct err *err)
{
	char with_slash[KEY_SIZE];

	*l = (struct listing){ .s = s3_of(be), .mode = mode, .n_max = s3_of(be)->list_page };
	snprintf(with_slash, sizeof(with_slash), "%.*s%s", KEY_SIZE - 2, folder,
		 folder[0] != '\0' ? "/" : "");
	return full_key(l->s, with_slash, l->folder, err);
}

static int s3_list(struct backend *be, const char *folder, enum backend_list_mode mode,
		   backend_list_fn *fn, void *arg, struct err *err)
{
	struct listing l;

	if (listing_init(&l, be, folder, mode, err) < 0)
		return -1;
	return walk_pages(&l, fn, arg, err);
}

static int s3_list_after(struct backend *be, const char *folder, const char *after,
			 backend_list_fn *fn, void *arg, struct err *err)
{
	struct listing l;

	if (listing_init(&l, be, folder, BACKEND_ONE_LEVEL, err) < 0 ||
	    full_key(l.s, after, l.after, err) < 0)
		return -1;
	return walk_pages(&l, fn, arg, err);
}

/* ---- delete, rename ---- */

static int s3_remove(struct backend *be, const char *key, struct err *err)
{
	struct s3_reply reply = S3_REPLY_INIT;
	struct s3_request r = { .method = "DELETE" };
	struct err local = ERR_INIT;
	char full[KEY_SIZE];
	int ret;

	if (full_key(s3_of(be), key, full, err) < 0)
		return -1;
	r.key = full;
	ret = s3_client_call(s3_of(be)->client, &r, &reply, &local);
	if (ret < 0 && local.kind == ERR_NOT_FOUND)
		ret = 0;
	if (ret < 0 && err != NULL)
		*err = local;
	s3_reply_fini(&reply);
	return ret;
}

/* EXISTS, unless what is there came from a rename that did not get to its end. */
static int is_half_done(struct backend *be, const char *to, struct bytes data, struct err *err)
{
	struct buf there = BUF_INIT;
	int ret;

	ret = s3_read(be, to, RENAME_MAX, &there, err);
	if (ret == 0 && !bytes_eq(buf_bytes(&there), data))
		ret = err_set(err, ERR_EXISTS, "%s is taken", to);
	buf_fini(&there);
	return ret;
}

static int s3_rename(struct backend *be, const char *from, const char *to, struct err *err)
{
	struct buf data = BUF_INIT;
	struct err local = ERR_INIT;
	int ret;

	ret = s3_read(be, from, RENAME_MAX, &data, &local);
	if (ret == 0)
		ret = s3_put(be, to, buf_bytes(&data), BACKEND_IF_NONE_MATCH, &local);
	if (ret < 0 && local.kind == ERR_EXISTS)
		ret = is_half_done(be, to, buf_bytes(&data), &local);
	/* Last: before it both names are there, never none. */
	if (ret == 0)
		ret = s3_remove(be, from, &local);
	if (ret < 0 && err != NULL)
		*err = local;
	buf_fini(&data);
	return ret;
}

/* ---- proof, interrupt, sweep ---- */

static int s3_sweep_uploads(struct backend *be, uint64_t before_ns, size_t *n, struct err *err)
{
	return s3_upload_sweep(&s3_of(be)->upload, s3_of(be)->prefix, before_ns, n, err);
}

/* Two conditional puts of a fresh key: the first must win and the second must lose. A first that
 * "loses" did so against its own lost answer. */
static int s3_prove(struct backend *be, struct err *err)
{
	const struct bytes text = BYTES_LIT("conditional put?");
	char key[64] = "_spanmill/probe/", id[37];
	struct err local = ERR_INIT;
	int ret = -1;

	rng_uuid(id);
	memcpy(key + strlen(key), id, sizeof(id));
	/* MinIO says AccessDenied while another process's probe goes and takes the folder along. */
	for (int i = 0; ret < 0 && i < PROBES_MAX && (i == 0 || local.kind == ERR_PERMISSION); i++)
		ret = s3_put(be, key, text, BACKEND_IF_NONE_MATCH, &local);
	if (ret < 0 && local.kind != ERR_EXISTS) {
		if (err != NULL)
			*err = local;
		return err_wrap(err, "conditional put");
	}
	ret = s3_put(be, key, text, BACKEND_IF_NONE_MATCH, &local);
	if (s3_remove(be, key, NULL) < 0)
		log_warn("cannot delete the probe of conditional puts", "key", key);
	if (ret < 0 && local.kind == ERR_EXISTS)
		return 0;
	if (ret < 0) {
		if (err != NULL)
			*err = local;
		return err_wrap(err, "conditional put");
	}
	return err_set(err, ERR_UNIMPLEMENTED,
		       "%.100s: the store ignores If-None-Match on PUT, so two writers could both "
		       "win: use a store that honours it",
		       s3_client_where(s3_of(be)->client));
}

static void s3_interrupt(struct backend *be, bool on)
{
	s3_client_interrupt(s3_of(be)->client, on);
}

/* ---- open, free ---- */

static uint64_t s3_now_ns(struct backend *be)
{
	return s3_client_now_ns(s3_of(be)->client);
}

static void s3_free(struct backend *be)
{
	struct s3 *s = s3_of(be);

	s3_client_free(s->client);
	free(s->prefix);
	free(s->storage_class);
	free(s->sse);
	free(s->sse_kms_key);
	free(s);
}

static const struct backend_ops s3_ops = {
	.put = s3_put,
	.writer_open = s3_writer_open,
	.writer_append = s3_upload_append,
	.writer_finish = s3_upload_finish,
	.writer_abort = s3_upload_abort,
	.read = s3_read,
	.read_changed = s3_read_changed,
	.read_range = s3_read_range,
	.size = s3_size,
	.list = s3_list,
	.list_after = s3_list_after,
	.remove = s3_remove,
	.rename = s3_rename,
	.free = s3_free,
	.prove = s3_prove,
	.sweep_uploads = s3_sweep_uploads,
	.interrupt = s3_interrupt,
	.now_ns = s3_now_ns,
	.is_remote = true,
};

static char *copy(const char *s)
{
	return s != NULL && s[0] != '\0' ? xstrdup(s) : NULL;
}

static int set_prefix(struct s3 *s, const char *prefix, struct err *err)
{
	if (prefix == NULL || prefix[0] == '\0') {
		s->prefix = xstrdup("");
		return 0;
	}
	if (backend_key_check(prefix, err) < 0)
		return err_wrap(err, "s3.prefix");
	s->prefix = xasprintf("%s/", prefix);
	return 0;
}

/* One entry of the root: says whether we are let in, and with a message if not. */
static int knock(struct s3 *s, struct err *err)
{
	struct listing l = { .s = s, .mode = BACKEND_ONE_LEVEL, .n_max = 1 };
	struct s3_listing page;
	int ret;

	memcpy(l.folder, s->prefix, strlen(s->prefix) + 1);
	ret = ask_page(&l, &page, err);
	s3_listing_fini(&page);
	if (ret < 0 && err != NULL && err->kind == ERR_INVALID)
		err_wrap(err, "%.100s does not answer as an S3 store, check s3.endpoint",
			 s3_client_where(s->client));
	return ret;
}

struct backend *backend_s3_open(const struct backend_s3_options *o, struct err *err)
{
	struct s3 *s = xcalloc(1, sizeof(*s));

	s->be.ops = &s3_ops;
	s->list_page = o->list_page;
	s->storage_class = copy(o->storage_class);
	s->sse = copy(o->sse);
	s->sse_kms_key = copy(o->sse_kms_key);
	s->client = s3_client_new(&o->client, err);
	s->upload = (struct s3_upload_settings){
		.client = s->client,
		.budget = o->budget,
		.part_size = o->part_size ? o->part_size : PART_DEFAULT,
		.storage_class = s->storage_class,
		.sse = s->sse,
		.sse_kms_key = s->sse_kms_key,
	};
	if (s->client == NULL || set_prefix(s, o->prefix, err) < 0)
		goto fail;
	if (s->upload.part_size < PART_MIN) {
		err_set(err, ERR_CONFIG, "s3.part_size: %llu: S3 takes no parts below 5 MiB",
			(unsigned long long)s->upload.part_size);
		goto fail;
	}
	if (knock(s, err) < 0)
		goto fail;
	return &s->be;
fail:
	err_wrap(err, "s3 backend");
	s3_free(&s->be);
	return NULL;
}

void backend_s3_stats(struct backend *be, struct s3_client_stats *out)
{
	s3_client_stats(s3_of(be)->client, out);
}
