/* SPDX-License-Identifier: Apache-2.0
 *
 * s3_answer.c - see s3_answer.h.
 */
#include "blocks/s3_answer.h"

#include "base/clock.h"
#include "base/mem.h"
#include "base/str.h"
#include "blocks/block_meta.h"
#include "wire/xml_reader.h"

enum { ENTRIES_MAX = 10000 };

static void set_text(char *to, size_t size, struct bytes text)
{
	size_t n = MIN(text.n, size - 1);

	if (n > 0)
		memcpy(to, text.p, n);
	to[n] = '\0';
	/* What a message shows is one line. */
	for (size_t i = 0; i < n; i++)
		if ((unsigned char)to[i] < 0x20 || to[i] == 0x7f)
			to[i] = ' ';
}

/* Whole or not at all: half an id is another id. */
static int set_exact(char *to, size_t size, struct bytes text, const char *what, struct err *err)
{
	if (text.n == 0 || text.n >= size || memchr(text.p, '\0', text.n) != NULL)
		return err_set(err, ERR_INVALID, "the answer's %s has %zu bytes", what, text.n);
	memcpy(to, text.p, text.n);
	to[text.n] = '\0';
	return 0;
}

#define SET_TEXT(field, text) set_text((field), sizeof(field), (text))
#define SET_EXACT(field, text, what, err) set_exact((field), sizeof(field), (text), (what), (err))

/* ---- leaves ---- */

/* Called for each element that closes: names from the root's child on, at most two of them. */
typedef int leaf_fn(void *arg, struct bytes parent, const struct xml_item *leaf, struct err *err);

/* Walk a text whose root has this name. 1 walked, 0 the root has another name, -1. */
static int walk(struct bytes xml, const char *root, leaf_fn *fn, void *arg, struct err *err)
{
	struct bytes open[XML_DEPTH_MAX + 1] = { { NULL, 0 } };
	struct xml_reader r;
	struct xml_item item;
	int got;

	xml_reader_init(&r, xml);
	while ((got = xml_reader_next(&r, &item, err)) > 0) {
		if (item.depth == 1 && !bytes_eq_str(item.name, root)) {
			got = 0;
			break;
		}
		if (item.kind == XML_OPEN) {
			open[item.depth] = item.name;
		} else if (item.depth > 1 && fn(arg, open[item.depth - 1], &item, err) < 0) {
			got = -1;
			break;
		}
	}
	if (got == 0 && r.depth == 0)
		got = 1;
	xml_reader_fini(&r);
	return got;
}

/* ---- errors, uploads, roles ---- */

static int error_leaf(void *arg, struct bytes parent, const struct xml_item *leaf, struct err *err)
{
	struct s3_error *e = arg;

	(void)err;
	if (!bytes_eq_str(parent, "Error"))
		return 0;
	if (bytes_eq_str(leaf->name, "Code"))
		SET_TEXT(e->code, leaf->text);
	else if (bytes_eq_str(leaf->name, "Message"))
		SET_TEXT(e->message, leaf->text);
	else if (bytes_eq_str(leaf->name, "Region"))
		SET_TEXT(e->region, leaf->text);
	else if (bytes_eq_str(leaf->name, "Endpoint"))
		SET_TEXT(e->endpoint, leaf->text);
	return 0;
}

/* STS wraps its <Error> once more. */
int s3_answer_error(struct bytes xml, struct s3_error *e)
{
	struct err ignored = ERR_INIT;

	memset(e, 0, sizeof(*e));
	if (walk(xml, "Error", error_leaf, e, &ignored) > 0 ||
	    walk(xml, "ErrorResponse", error_leaf, e, &ignored) > 0)
		return 1;
	memset(e, 0, sizeof(*e));
	return 0;
}

static int upload_leaf(void *arg, struct bytes parent, const struct xml_item *leaf, struct err *err)
{
	(void)parent;
	if (!bytes_eq_str(leaf->name, "UploadId"))
		return 0;
	return set_exact(arg, S3_UPLOAD_ID_SIZE, leaf->text, "UploadId", err);
}

static int not_an(const char *what, int got, struct err *err)
{
	if (got == 0)
		err_set(err, ERR_INVALID, "the answer is no %s", what);
	return -1;
}

int s3_answer_upload_id(struct bytes xml, char id[S3_UPLOAD_ID_SIZE], struct err *err)
{
	static const char root[] = "InitiateMultipartUploadResult";
	int got;

	id[0] = '\0';
	got = walk(xml, root, upload_leaf, id, err);
	if (got <= 0)
		return not_an(root, got, err);
	return id[0] != '\0' ? 0 : err_set(err, ERR_INVALID, "the answer has no UploadId");
}

static int set_time(struct bytes text, uint64_t *wall_ns, struct err *err)
{
	struct block_time t;

	if (block_time_parse(text, &t, err) < 0)
		return -1;
	*wall_ns = t.s < 0 ? 0 : (uint64_t)t.s * NS_PER_S + t.ns;
	return 0;
}

struct pending_reader {
	struct s3_pending_upload u;
	struct buf key;
	s3_pending_fn *fn;
	void *arg;
};

/* <Upload> has closed. */
static int show_pending(struct pending_reader *r, struct err *err)
{
	int ret = 0;

	r->u.key = buf_cstr(&r->key);
	if (strlen(r->u.key) == r->key.n && r->key.n > 0 && r->u.id[0] != '\0' && r->u.begun_ns > 0)
		ret = r->fn(r->arg, &r->u, err);
	r->u.id[0] = '\0';
	r->u.begun_ns = 0;
	buf_reset(&r->key);
	return ret;
}

static int pending_leaf(void *arg, struct bytes parent, const struct xml_item *leaf,
			struct err *err)
{
	struct pending_reader *r = arg;

	if (leaf->depth == 2 && bytes_eq_str(leaf->name, "Upload"))
		return show_pending(r, err);
	if (!bytes_eq_str(parent, "Upload"))
		return 0;
	if (bytes_eq_str(leaf->name, "Key"))
		buf_add_bytes(&r->key, leaf->text);
	else if (bytes_eq_str(leaf->name, "UploadId"))
		return SET_EXACT(r->u.id, leaf->text, "UploadId", err);
	else if (bytes_eq_str(leaf->name, "Initiated"))
		return set_time(leaf->text, &r->u.begun_ns, err);
	return 0;
}

int s3_answer_uploads(struct bytes xml, s3_pending_fn *fn, void *arg, struct err *err)
{
	static const char root[] = "ListMultipartUploadsResult";
	struct pending_reader r = { .key = BUF_INIT, .fn = fn, .arg = arg };
	int got = walk(xml, root, pending_leaf, &r, err);

	buf_fini(&r.key);
	return got > 0 ? 0 : not_an(root, got, err);
}

static int no_leaf(void *arg, struct bytes parent, const struct xml_item *leaf, struct err *err)
{
	(void)arg, (void)parent, (void)leaf, (void)err;
	return 0;
}

bool s3_answer_is_completed(struct bytes xml)
{
	return walk(xml, "CompleteMultipartUploadResult", no_leaf, NULL, NULL) > 0;
}

static int role_leaf(void *arg, struct bytes parent, const struct xml_item *leaf, struct err *err)
{
	struct s3_keys *k = arg;

	if (!bytes_eq_str(parent, "Credentials"))
		return 0;
	if (bytes_eq_str(leaf->name, "AccessKeyId"))
		return SET_EXACT(k->access_key, leaf->text, "AccessKeyId", err);
	if (bytes_eq_str(leaf->name, "SecretAccessKey"))
		return SET_EXACT(k->secret_key, leaf->text, "SecretAccessKey", err);
	if (bytes_eq_str(leaf->name, "SessionToken"))
		return SET_EXACT(k->session_token, leaf->text, "SessionToken", err);
	if (bytes_eq_str(leaf->name, "Expiration"))
		return set_time(leaf->text, &k->expires_wall_ns, err);
	return 0;
}

int s3_answer_assumed_role(struct bytes xml, struct s3_keys *keys, struct err *err)
{
	static const char root[] = "AssumeRoleWithWebIdentityResponse";
	int got;

	memset(keys, 0, sizeof(*keys));
	got = walk(xml, root, role_leaf, keys, err);
	if (got <= 0)
		return not_an(root, got, err);
	if (keys->access_key[0] == '\0' || keys->secret_key[0] == '\0' ||
	    keys->session_token[0] == '\0')
		return err_set(err, ERR_INVALID, "the answer has no whole set of credentials");
	return 0;
}

/* ---- listings ---- */

struct listing_reader {
	struct s3_listing *l;
	struct backend_entry e; /* the object or prefix being read */
	bool is_encoded;        /* keys are percent-encoded; said at the end of some answers */
};

static int add_entry(struct listing_reader *r, struct err *err)
{
	struct s3_listing *l = r->l;

	if (l->n == ENTRIES_MAX)
		return err_set(err, ERR_TOO_LARGE, "the answer has more than %d entries",
			       ENTRIES_MAX);
	if (r->e.key != NULL) {
		l->entries = xgrow(l->entries, &l->cap, l->n + 1, sizeof(*l->entries));
		l->entries[l->n++] = r->e;
	}
	r->e = (struct backend_entry){ .key = NULL };
	return 0;
}

/* A key with a NUL in it cannot be handled, and is none of ours. */
static void set_key(struct listing_reader *r, struct bytes text, bool is_prefix)
{
	if (text.n == 0 || memchr(text.p, '\0', text.n) != NULL)
		return;
	r->e.is_prefix = is_prefix;
	r->e.key = arena_strndup(&r->l->strings, (const char *)text.p, text.n);
}

static int object_leaf(struct listing_reader *r, const struct xml_item *leaf, struct err *err)
{
	if (bytes_eq_str(leaf->name, "Key"))
		set_key(r, leaf->text, false);
	else if (bytes_eq_str(leaf->name, "LastModified"))
		return set_time(leaf->text, &r->e.mtime_ns, err);
	else if (bytes_eq_str(leaf->name, "Size") && str_to_u64(leaf->text, &r->e.size) < 0)
		return err_set(err, ERR_INVALID, "Size: \"%.*s\"", (int)MIN(leaf->text.n, 20),
			       leaf->text.n ? (const char *)leaf->text.p : "");
	return 0;
}

static int listing_leaf(void *arg, struct bytes parent, const struct xml_item *leaf,
			struct err *err)
{
	struct listing_reader *r = arg;

	if (bytes_eq_str(parent, "Contents"))
		return object_leaf(r, leaf, err);
	if (bytes_eq_str(parent, "CommonPrefixes")) {
		if (bytes_eq_str(leaf->name, "Prefix"))
			set_key(r, leaf->text, true);
		return 0;
	}
	if (leaf->depth != 2)
		return 0;
	if (bytes_eq_str(leaf->name, "Contents") || bytes_eq_str(leaf->name, "CommonPrefixes"))
		return add_entry(r, err);
	if (bytes_eq_str(leaf->name, "IsTruncated"))
		r->l->is_truncated = bytes_eq_str(leaf->text, "true");
	else if (bytes_eq_str(leaf->name, "EncodingType"))
		r->is_encoded = bytes_eq_str(leaf->text, "url");
	else if (bytes_eq_str(leaf->name, "NextContinuationToken") && leaf->text.n > 0)
		return SET_EXACT(r->l->token, leaf->text, "token", err);
	return 0;
}

/* Percent-decode in place; '+' is a blank, as all stores write it. False: a NUL came out. */
static bool decode_key(char *key)
{
	char *to = key;

	for (const char *p = key; *p != '\0'; p++) {
		struct bytes digits = { (const uint8_t *)p + 1, strnlen(p + 1, 2) };
		uint8_t c = (uint8_t)*p, byte;

		if (c == '+') {
			c = ' ';
		} else if (c == '%' && str_unhex(digits, &byte, 1) == 0) {
			c = byte;
			p += 2;
		}
		if (c == '\0')
			return false;
		*to++ = (char)c;
	}
	*to = '\0';
	return true;
}

static int by_key(const void *a, const void *b)
{
	return strcmp(((const struct backend_entry *)a)->key,
		      ((const struct backend_entry *)b)->key);
}

/* Decoded keys, prefixes without their '/', in order. */
static void finish_listing(struct listing_reader *r)
{
	struct s3_listing *l = r->l;
	size_t kept = 0;

	for (size_t i = 0; i < l->n; i++) {
		char *key = (char *)(uintptr_t)l->entries[i].key;
		size_t n;

		if (r->is_encoded && !decode_key(key))
			continue;
		n = strlen(key);
		if (l->entries[i].is_prefix && n > 0 && key[n - 1] == '/')
			key[n - 1] = '\0';
		l->entries[kept++] = l->entries[i];
	}
	l->n = kept;
	if (kept > 0)
		qsort(l->entries, kept, sizeof(*l->entries), by_key);
}

int s3_answer_listing(struct bytes xml, struct s3_listing *l, struct err *err)
{
	static const char root[] = "ListBucketResult";
	struct listing_reader r = { .l = l };
	int got;

	memset(l, 0, sizeof(*l));
	got = walk(xml, root, listing_leaf, &r, err);
	if (got <= 0)
		return not_an(root, got, err);
	if (l->is_truncated && l->token[0] == '\0')
		return err_set(err, ERR_INVALID, "the answer goes on but has no token");
	finish_listing(&r);
	return 0;
}

void s3_listing_fini(struct s3_listing *l)
{
	free(l->entries);
	arena_fini(&l->strings);
	l->entries = NULL;
	l->n = l->cap = 0;
}
