/* SPDX-License-Identifier: Apache-2.0
 *
 * tenant_index.c - see tenant_index.h.
 */
#include "blocks/tenant_index.h"

#include "base/mem.h"
#include "base/rcbuf.h"
#include "net/content_coding.h"

#define NAME "index.json"

enum {
	ENTRY_DEPTH = 2, /* brackets open around an entry: the object, the list */
	GZIP_HEAD = 10,  /* RFC 1952 without optional fields */
	GZIP_FLAGS = 3,
	FNAME = 8,         /* the place of the flags, and one of them */
	SMALL = 64 * 1024, /* inflates to this whatever its ratio */
};

void tenant_index_init(struct tenant_index *x, struct budget *budget)
{
	*x = (struct tenant_index){ .created_at = BLOCK_TIME_NONE, .budget = budget };
}

static size_t cost(const struct tenant_index_metas *m)
{
	return m->cap * sizeof(*m->v);
}

void tenant_index_fini(struct tenant_index *x)
{
	budget_release(x->budget, cost(&x->live) + cost(&x->compacted));
	free(x->live.v);
	free(x->compacted.v);
	tenant_index_init(x, x->budget);
}

/* Half as much again, charged first: metas are large, and doubling wastes. */
static int grow(struct tenant_index *x, struct tenant_index_metas *m, struct err *err)
{
	size_t cap = MAX(m->cap + m->cap / 2, (size_t)16), more = (cap - m->cap) * sizeof(*m->v);

	if (m->n >= TENANT_INDEX_BLOCKS)
		return err_set(err, ERR_TOO_LARGE, "more than %d blocks", TENANT_INDEX_BLOCKS);
	if (!budget_charge(x->budget, more))
		return err_set(err, ERR_EXHAUSTED, "no memory for %zu blocks within the budget",
			       cap);
	m->v = xrealloc(m->v, cap * sizeof(*m->v));
	m->cap = cap;
	return 0;
}

int tenant_index_add(struct tenant_index *x, struct tenant_index_metas *to,
		     const struct block_meta *m, struct err *err)
{
	if (to->n == to->cap && grow(x, to, err) < 0)
		return -1;
	to->v[to->n++] = *m;
	return 0;
}

/* ---- reading ---- */

/* One entry, which r has just opened. */
static int take_entry(struct json_reader *r, const char *tenant, struct tenant_index *x,
		      struct tenant_index_metas *to, struct err *err)
{
	struct block_meta m;

	if (block_meta_decode(r, &m, NULL) == 0 && strcmp(m.tenant, tenant) == 0)
		return tenant_index_add(x, to, &m, err);
	x->n_bad++;
	/* When the text is damaged there is no way out of the entry. */
	return json_reader_leave(r, ENTRY_DEPTH, err);
}

/* null is Go's empty list. */
static int take_list(struct json_reader *r, const struct json_value *list, const char *tenant,
		     struct tenant_index *x, struct tenant_index_metas *to, struct err *err)
{
	struct json_value v;
	int got;

	if (list->kind == JSON_NULL)
		return 0;
	if (list->kind != JSON_ARRAY)
		return err_set(err, ERR_INVALID, "%.*s: must be an array, is %s", (int)list->key.n,
			       (const char *)list->key.p, json_reader_kind_name(list->kind));
	while ((got = json_reader_element(r, &v, err)) > 0) {
		if (v.kind != JSON_OBJECT) {
			x->n_bad++;
			if (json_reader_skip(r, &v, err) < 0)
				return -1;
		} else if (take_entry(r, tenant, x, to, err) < 0) {
			return -1;
		}
	}
	return got;
}

static int take_member(struct json_reader *r, const struct json_value *v, const char *tenant,
		       struct tenant_index *x, struct err *err)
{
	if (JSON_KEY_IS(v, "meta"))
		return take_list(r, v, tenant, x, &x->live, err);
	if (JSON_KEY_IS(v, "compacted"))
		return take_list(r, v, tenant, x, &x->compacted, err);
	if (JSON_KEY_IS(v, "created_at") && v->kind == JSON_STRING)
		return block_time_parse(v->text, &x->created_at, err);
	return json_reader_skip(r, v, err);
}

static int parse(struct bytes json, const char *tenant, struct tenant_index *x, struct err *err)
{
	struct arena arena = ARENA_INIT;
	struct json_reader r;
	struct json_value v;
	int got = -1;

	json_reader_init(&r, json, &arena);
	if (json_reader_value(&r, &v, err) < 0)
		goto out;
	if (v.kind != JSON_OBJECT) {
		err_set(err, ERR_INVALID, "must be an object, is %s",
			json_reader_kind_name(v.kind));
		goto out;
	}
	while ((got = json_reader_member(&r, &v, err)) > 0)
		if (take_member(&r, &v, tenant, x, err) < 0) {
			got = -1;
			break;
		}
	if (got == 0)
		got = json_reader_end(&r, err);
out:
	arena_fini(&arena);
	return got < 0 ? -1 : 0;
}

int tenant_index_decode(struct bytes gzip, const char *tenant, struct budget *budget,
			struct tenant_index *x, struct err *err)
{
	struct rcbuf *json = NULL;
	int ret = -1;

	tenant_index_init(x, budget);
	if (gzip.n > TENANT_INDEX_GZIP_MAX)
		err_set(err, ERR_TOO_LARGE, "%zu bytes: the limit is %d", gzip.n,
			TENANT_INDEX_GZIP_MAX);
	else if (content_decode(CONTENT_GZIP, gzip, SMALL + gzip.n * TENANT_INDEX_RATIO, budget,
				&json, err) == 0)
		ret = parse((struct bytes){ json->p, json->n }, tenant, x, err);
	rcbuf_unref(json);
	if (ret == 0)
		return 0;
	tenant_index_fini(x);
	return err_wrap(err, "%s/" NAME ".gz", tenant);
}

/* ---- writing ---- */

static void put_list(struct json_writer *w, const char *key, const struct tenant_index_metas *m)
{
	json_writer_key(w, key);
	json_writer_array(w);
	for (size_t i = 0; i < m->n; i++)
		block_meta_encode(&m->v[i], w);
	json_writer_array_end(w);
}

static void put_json(const struct tenant_index *x, struct buf *out)
{
	struct json_writer w = JSON_WRITER(out);
	char created[BLOCK_TIME_TEXT];

	block_time_format(x->created_at, created);
	json_writer_object(&w);
	json_writer_key(&w, "created_at");
	json_writer_str(&w, created);
	put_list(&w, "meta", &x->live);
	put_list(&w, "compacted", &x->compacted);
	json_writer_object_end(&w);
}

/* Put the name behind the head, as Tempo does. */
static int add_name(struct bytes gzip, struct buf *out, struct err *err)
{
	uint8_t head[GZIP_HEAD];

	if (gzip.n < GZIP_HEAD || gzip.p[GZIP_FLAGS] != 0)
		return err_set(err, ERR_INTERNAL, "gzip: a head with other fields");
	memcpy(head, gzip.p, GZIP_HEAD);
	head[GZIP_FLAGS] = FNAME;
	buf_add(out, head, GZIP_HEAD);
	buf_add(out, NAME, sizeof(NAME));
	buf_add(out, gzip.p + GZIP_HEAD, gzip.n - GZIP_HEAD);
	return 0;
}

int tenant_index_encode(const struct tenant_index *x, struct buf *out, struct err *err)
{
	struct buf json = BUF_INIT, gzip = BUF_INIT;
	int ret = -1;

	put_json(x, &json);
	if (content_encode(CONTENT_GZIP, 0, buf_bytes(&json), &gzip, err) == 0)
		ret = add_name(buf_bytes(&gzip), out, err);
	buf_fini(&json);
	buf_fini(&gzip);
	return ret;
}

int tenant_index_key(char out[BACKEND_KEY_MAX + 1], const char *tenant, struct err *err)
{
	return backend_key(out, err, "%s/" NAME ".gz", tenant);
}

int tenant_index_write(struct backend *be, const char *tenant, const struct tenant_index *x,
		       struct err *err)
{
	char key[BACKEND_KEY_MAX + 1];
	struct buf gzip = BUF_INIT;
	int ret = -1;

	if (tenant_index_key(key, tenant, err) == 0 && tenant_index_encode(x, &gzip, err) == 0)
		ret = backend_put(be, key, buf_bytes(&gzip), BACKEND_REPLACE, err);
	buf_fini(&gzip);
	return ret;
}
