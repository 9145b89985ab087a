/* SPDX-License-Identifier: Apache-2.0
 *
 * section.c - see section.h.
 */
#include "blocks/section.h"

#include "base/clock.h"
#include "base/mem.h"
#include "blocks/block.h"
#include "wire/json_reader.h"
#include "wire/json_writer.h"

#include <stdio.h>

#define COMMITS "_spanmill/commits"

enum { COMMIT_MAX = 16 * 1024 * 1024 };

static void commit_encode(const struct section_commit *c, struct buf *out)
{
	struct json_writer w = JSON_WRITER(out);

	json_writer_object(&w);
	json_writer_key(&w, "first");
	json_writer_u64(&w, c->first);
	json_writer_key(&w, "last");
	json_writer_u64(&w, c->last);
	json_writer_key(&w, "firstTimestampMs");
	json_writer_u64(&w, c->first_timestamp_ms);
	json_writer_key(&w, "blocks");
	json_writer_array(&w);
	for (size_t i = 0; i < c->n_metas; i++)
		block_meta_encode(&c->metas[i], &w);
	json_writer_array_end(&w);
	json_writer_object_end(&w);
}

static int decode_blocks(struct json_reader *r, struct section_commit *c, struct err *err)
{
	struct json_value v;
	size_t cap = 0;
	int got;

	while ((got = json_reader_element(r, &v, err)) > 0) {
		if (v.kind != JSON_OBJECT)
			return err_set(err, ERR_CORRUPT, "blocks: not an object");
		c->metas = xgrow(c->metas, &cap, c->n_metas + 1, sizeof(*c->metas));
		if (block_meta_decode(r, &c->metas[c->n_metas], err) < 0)
			return -1;
		c->n_metas++;
	}
	return got;
}

static int decode_member(struct json_reader *r, const struct json_value *v, struct section_commit *c,
			 struct err *err)
{
	if (JSON_KEY_IS(v, "first"))
		return json_reader_u64(v, &c->first);
	if (JSON_KEY_IS(v, "last"))
		return json_reader_u64(v, &c->last);
	if (JSON_KEY_IS(v, "firstTimestampMs"))
		return json_reader_u64(v, &c->first_timestamp_ms);
	if (JSON_KEY_IS(v, "blocks") && v->kind == JSON_ARRAY)
		return decode_blocks(r, c, err);
	return json_reader_skip(r, v, err);
}

static int commit_decode(struct bytes json, struct section_commit *c, struct err *err)
{
	struct arena arena = ARENA_INIT;
	struct json_reader r;
	struct json_value v;
	int got = -1;

	memset(c, 0, sizeof(*c));
	json_reader_init(&r, json, &arena);
	if (json_reader_value(&r, &v, err) < 0)
		goto out;
	if (v.kind != JSON_OBJECT) {
		err_set(err, ERR_CORRUPT, "commit record: not an object");
		goto out;
	}
	err_set(err, ERR_CORRUPT, "commit record: bad value");
	while ((got = json_reader_member(&r, &v, err)) > 0)
		if (decode_member(&r, &v, c, err) < 0) {
			got = -1;
			break;
		}
	if (got == 0 && c->last < c->first)
		got = err_set(err, ERR_CORRUPT, "commit record: last %llu before first %llu",
			      (unsigned long long)c->last, (unsigned long long)c->first);
out:
	if (got < 0)
		section_commit_fini(c);
	else
		err_clear(err);
	arena_fini(&arena);
	return got < 0 ? -1 : 0;
}

int section_commit_put(struct backend *be, const char *source, const struct section_commit *c, struct err *err)
{
	char key[BACKEND_KEY_MAX + 1];
	struct buf json = BUF_INIT;
	int ret;

	if (backend_key(key, err, COMMITS "/%s/%020llu-%llu.json", source, (unsigned long long)c->first,
			(unsigned long long)c->first_timestamp_ms) < 0)
		return -1;
	commit_encode(c, &json);
	ret = backend_put(be, key, buf_bytes(&json), BACKEND_IF_NONE_MATCH, err);
	buf_fini(&json);
	return ret;
}

/* 1 there, 0 not, -1 cannot tell. */
static int exists(struct backend *be, const struct block_meta *m, const char *object, struct err *err)
{
	char key[BACKEND_KEY_MAX + 1];
	struct err local = ERR_INIT;
	uint64_t size;

	if (block_key(key, m->tenant, m->id, object, err) < 0)
		return -1;
	if (backend_size(be, key, &size, &local) == 0)
		return 1;
	if (local.kind == ERR_NOT_FOUND)
		return 0;
	if (err != NULL)
		*err = local;
	return -1;
}

int section_publish(struct backend *be, const struct block_meta *m, struct err *err)
{
	int compacted = exists(be, m, "meta.compacted.json", err);
	int data = compacted == 0 ? exists(be, m, "data", err) : 0;

	if (compacted < 0 || data < 0)
		return -1;
	return compacted == 0 && data > 0 ? block_publish(be, m, err) : 0;
}

/* ---- following ---- */

struct commit_name {
	uint64_t first, timestamp_ms;
	uint64_t mtime_ns;
};

struct commit_list {
	struct commit_name *v;
	size_t n, cap;
};

static int note_commit(void *arg, const struct backend_entry *e, struct err *err)
{
	struct commit_list *list = arg;
	const char *name = strrchr(e->key, '/');
	unsigned long long first, timestamp;
	int end = 0;

	(void)err;
	if (e->is_prefix || name == NULL || sscanf(name, "/%20llu-%20llu.json%n", &first, &timestamp, &end) != 2 ||
	    end == 0 || name[end] != '\0')
		return 0;
	list->v = xgrow(list->v, &list->cap, list->n + 1, sizeof(*list->v));
	list->v[list->n++] = (struct commit_name){ first, timestamp, e->mtime_ns };
	return 0;
}

static int by_first(const void *a, const void *b)
{
	const struct commit_name *x = a, *y = b;

	return x->first < y->first ? -1 : x->first > y->first;
}

static int list_commits(struct backend *be, const char *source, struct commit_list *list, struct err *err)
{
	char folder[BACKEND_KEY_MAX + 1];

	*list = (struct commit_list){ NULL, 0, 0 };
	if (backend_key(folder, err, COMMITS "/%s", source) < 0 ||
	    backend_list(be, folder, BACKEND_ONE_LEVEL, note_commit, list, err) < 0) {
		free(list->v);
		return -1;
	}
	if (list->n > 1)
		qsort(list->v, list->n, sizeof(*list->v), by_first);
	return 0;
}

static int read_commit(struct backend *be, const char *source, const struct commit_name *name,
		       struct section_commit *c, struct err *err)
{
	char key[BACKEND_KEY_MAX + 1];
	struct buf json = BUF_INIT;
	int ret = -1;

	if (backend_key(key, err, COMMITS "/%s/%020llu-%llu.json", source, (unsigned long long)name->first,
			(unsigned long long)name->timestamp_ms) == 0 &&
	    backend_read(be, key, COMMIT_MAX, &json, err) == 0 && commit_decode(buf_bytes(&json), c, err) == 0)
		ret = 0;
	if (ret < 0)
		err_wrap(err, "commit %s/%llu", source, (unsigned long long)name->first);
	buf_fini(&json);
	return ret;
}

static int finish_commit(struct backend *be, const struct section_commit *c, section_visit_fn *visit, void *arg,
			 struct err *err)
{
	for (size_t i = 0; i < c->n_metas; i++)
		if (section_publish(be, &c->metas[i], err) < 0 || (visit && visit(arg, &c->metas[i], err) < 0))
			return -1;
	return 0;
}

int section_follow(struct backend *be, const char *source, uint64_t from, section_visit_fn *visit, void *arg,
		   uint64_t *next, struct err *err)
{
	struct commit_list list;
	int ret = 0;

	*next = from;
	if (list_commits(be, source, &list, err) < 0)
		return -1;
	for (size_t i = 0; ret == 0 && i < list.n; i++) {
		struct section_commit c;

		if (list.v[i].first < *next)
			continue;
		ret = read_commit(be, source, &list.v[i], &c, err);
		if (ret < 0)
			break;
		ret = finish_commit(be, &c, visit, arg, err);
		*next = c.last + 1;
		section_commit_fini(&c);
	}
	free(list.v);
	return ret;
}

int section_sweep_commits(struct backend *be, const char *source, uint64_t before, uint64_t age_ns, struct err *err)
{
	uint64_t now = clock_wall_ns();
	struct commit_list list;
	int ret = 0;

	if (list_commits(be, source, &list, err) < 0)
		return -1;
	/* The newest one stays: its successor's first position proves that it lies below `before`. */
	for (size_t i = 0; ret == 0 && i + 1 < list.n; i++) {
		char key[BACKEND_KEY_MAX + 1];

		if (list.v[i + 1].first >= before || list.v[i].mtime_ns + age_ns > now)
			continue;
		ret = backend_key(key, err, COMMITS "/%s/%020llu-%llu.json", source,
				  (unsigned long long)list.v[i].first, (unsigned long long)list.v[i].timestamp_ms);
		if (ret == 0)
			ret = backend_delete(be, key, err);
	}
	free(list.v);
	return ret;
}

void section_commit_fini(struct section_commit *c)
{
	free(c->metas);
	c->metas = NULL;
	c->n_metas = 0;
}
