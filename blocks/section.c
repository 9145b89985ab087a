/* SPDX-License-Identifier: Apache-2.0
 *
 * section.c - see section.h.
 */
#include "blocks/section.h"

#include "base/log.h"
#include "base/map.h"
#include "base/mem.h"
#include "base/str.h"
#include "blocks/block.h"
#include "blocks/compact_scan.h"
#include "blocks/sealed_json.h"
#include "wire/json_reader.h"
#include "wire/json_writer.h"

#include <stdio.h>

#define COMMITS "_spanmill/commits"

enum {
	COMMIT_MAX = 16 * 1024 * 1024,
	SAMPLES_READ_MAX = 1 << 20, /* of a commit by whoever remembers more than we do */
};

/* What the name of a commit says. */
struct commit_name {
	uint64_t first, timestamp_ms;
	uint64_t mtime_ns;
};

/* Runs of "n more records, each so much further and later than the one before", from 0 and 0 on. */
static void encode_samples(const struct section_commit *c, struct json_writer *w)
{
	struct section_sample at = { 0, 0 };

	json_writer_array(w);
	for (size_t i = 0, n; i < c->n_samples; i += n) {
		const struct section_sample *s = &c->samples[i];
		uint64_t step = s->position - at.position,
			 later = s->timestamp_ms - at.timestamp_ms;

		for (n = 1; i + n < c->n_samples; n++)
			if (s[n].position - s[n - 1].position != step ||
			    s[n].timestamp_ms - s[n - 1].timestamp_ms != later)
				break;
		json_writer_u64(w, n);
		json_writer_i64(w, (int64_t)step);
		json_writer_i64(w, (int64_t)later);
		at = s[n - 1];
	}
	json_writer_array_end(w);
}

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
	if (c->has_timestamps) {
		json_writer_key(&w, "minTimestampMs");
		json_writer_u64(&w, c->min_timestamp_ms);
		json_writer_key(&w, "maxTimestampMs");
		json_writer_u64(&w, c->max_timestamp_ms);
	}
	if (c->n_samples > 0) {
		json_writer_key(&w, "records");
		encode_samples(c, &w);
	}
	json_writer_key(&w, "blocks");
	json_writer_array(&w);
	for (size_t i = 0; i < c->n_metas; i++)
		block_meta_encode(&c->metas[i], &w);
	json_writer_array_end(&w);
	json_writer_object_end(&w);
	/* A flipped digit in a position would skip records that were never built. */
	sealed_json_close(out);
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

/* The next number of a run; a run that ends in its middle is damage. */
static int decode_step(struct json_reader *r, int64_t *step, struct err *err)
{
	struct json_value v;

	if (json_reader_element(r, &v, err) <= 0 || json_reader_i64(&v, step) < 0)
		return err_set(err, ERR_CORRUPT, "records: not runs of three numbers");
	return 0;
}

static int decode_samples(struct json_reader *r, struct section_commit *c, struct err *err)
{
	struct section_sample at = { 0, 0 };
	struct json_value v;
	size_t cap = 0;
	int64_t step, later;
	uint64_t n;
	int got;

	while ((got = json_reader_element(r, &v, err)) > 0) {
		if (json_reader_u64(&v, &n) < 0 || decode_step(r, &step, err) < 0 ||
		    decode_step(r, &later, err) < 0)
			return err_set(err, ERR_CORRUPT, "records: not runs of three numbers");
		if (n > SAMPLES_READ_MAX - c->n_samples)
			return err_set(err, ERR_CORRUPT, "records: more than %d", SAMPLES_READ_MAX);
		if (n > 0)
			c->samples = xgrow(c->samples, &cap, c->n_samples + n, sizeof(*c->samples));
		for (; n > 0; n--) {
			at.position += (uint64_t)step;
			at.timestamp_ms += (uint64_t)later;
			c->samples[c->n_samples++] = at;
		}
	}
	return got;
}

static int decode_member(struct json_reader *r, const struct json_value *v,
			 struct section_commit *c, struct err *err)
{
	if (JSON_KEY_IS(v, "first"))
		return json_reader_u64(v, &c->first);
	if (JSON_KEY_IS(v, "last"))
		return json_reader_u64(v, &c->last);
	if (JSON_KEY_IS(v, "firstTimestampMs"))
		return json_reader_u64(v, &c->first_timestamp_ms);
	if (JSON_KEY_IS(v, "minTimestampMs"))
		return json_reader_u64(v, &c->min_timestamp_ms);
	if (JSON_KEY_IS(v, "maxTimestampMs")) {
		c->has_timestamps = true;
		return json_reader_u64(v, &c->max_timestamp_ms);
	}
	if (JSON_KEY_IS(v, "records") && v->kind == JSON_ARRAY)
		return decode_samples(r, c, err);
	if (JSON_KEY_IS(v, "blocks") && v->kind == JSON_ARRAY)
		return decode_blocks(r, c, err);
	return json_reader_skip(r, v, err);
}

/* Positions that arithmetic can go on from, and the ones its name says. */
static int check_range(const struct section_commit *c, const struct commit_name *name,
		       struct err *err)
{
	if (c->last < c->first || c->last == UINT64_MAX)
		return err_set(err, ERR_CORRUPT, "commit record: last %llu, first %llu",
			       (unsigned long long)c->last, (unsigned long long)c->first);
	if (c->first != name->first || c->first_timestamp_ms != name->timestamp_ms)
		return err_set(err, ERR_CORRUPT, "commit record: says it is %llu-%llu",
			       (unsigned long long)c->first,
			       (unsigned long long)c->first_timestamp_ms);
	for (size_t i = 0; i < c->n_samples; i++)
		if (c->samples[i].position < c->first || c->samples[i].position > c->last ||
		    (i > 0 && c->samples[i].position <= c->samples[i - 1].position))
			return err_set(err, ERR_CORRUPT, "commit record: records out of order");
	return 0;
}

static int commit_decode(struct bytes json, const struct commit_name *name,
			 struct section_commit *c, struct err *err)
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
	if (got == 0)
		got = json_reader_end(&r, err);
	if (got == 0)
		got = check_range(c, name, err);
out:
	if (got < 0)
		section_commit_fini(c);
	else
		err_clear(err);
	arena_fini(&arena);
	return got < 0 ? -1 : 0;
}

static int commit_key(char key[BACKEND_KEY_MAX + 1], const char *source,
		      const struct commit_name *name, struct err *err)
{
	return backend_key(key, err, COMMITS "/%s/%020llu-%llu.json", source,
			   (unsigned long long)name->first, (unsigned long long)name->timestamp_ms);
}

int section_commit_put(struct backend *be, const char *source, const struct section_commit *c,
		       struct err *err)
{
	const struct commit_name name = { c->first, c->first_timestamp_ms, 0 };
	char key[BACKEND_KEY_MAX + 1];
	struct buf json = BUF_INIT;
	int ret;

	if (commit_key(key, source, &name, err) < 0)
		return -1;
	commit_encode(c, &json);
	ret = backend_put(be, key, buf_bytes(&json), BACKEND_IF_NONE_MATCH, err);
	buf_fini(&json);
	return ret;
}

static int read_commit_at(struct backend *be, const char *key, const struct commit_name *name,
			  struct section_commit *c, struct err *err)
{
	struct buf json = BUF_INIT;
	int ret = -1;

	memset(c, 0, sizeof(*c));
	if (backend_read(be, key, COMMIT_MAX, &json, err) == 0) {
		if (sealed_json_is_right(buf_bytes(&json)))
			ret = commit_decode(buf_bytes(&json), name, c, err);
		else
			err_set(err, ERR_CORRUPT, "commit record: wrong crc");
		/* Whatever the JSON reader calls it: a record we wrote is not like that. */
		if (ret < 0 && err != NULL) {
			err->kind = ERR_CORRUPT;
			err_wrap(err, "%s", key);
		}
	}
	buf_fini(&json);
	return ret;
}

static int read_commit(struct backend *be, const char *source, const struct commit_name *name,
		       struct section_commit *c, struct err *err)
{
	char key[BACKEND_KEY_MAX + 1];

	memset(c, 0, sizeof(*c));
	return commit_key(key, source, name, err) < 0 ? -1 : read_commit_at(be, key, name, c, err);
}

int section_commit_read(struct backend *be, const char *source, uint64_t first,
			uint64_t first_timestamp_ms, struct section_commit *c, struct err *err)
{
	const struct commit_name name = { first, first_timestamp_ms, 0 };

	return read_commit(be, source, &name, c, err);
}

int section_commit_set_aside(struct backend *be, const char *source, uint64_t first,
			     uint64_t first_timestamp_ms, struct err *err)
{
	const struct commit_name name = { first, first_timestamp_ms, 0 };
	char key[BACKEND_KEY_MAX + 1], aside[BACKEND_KEY_MAX + 1];

	if (commit_key(key, source, &name, err) < 0 ||
	    backend_key(aside, err, "%s.damaged", key) < 0)
		return -1;
	log_error("a commit record is damaged and set aside", "key", key, "error",
		  err ? err->msg : "");
	if (backend_rename(be, key, aside, err) == 0)
		return 0;
	/* One was set aside under this name before. */
	return err != NULL && err->kind == ERR_EXISTS ? backend_delete(be, key, err) : -1;
}

static bool is_damaged(const struct err *err)
{
	return err->kind == ERR_CORRUPT || err->kind == ERR_TOO_LARGE;
}

/* 1 there, 0 not, -1 cannot tell. */
static int exists(struct backend *be, const struct block_meta *m, const char *object,
		  struct err *err)
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
	if (compacted > 0 || data == 0)
		return 0;
	return block_publish(be, m, err) < 0 ? -1 : 1;
}

static const struct section_sample *find_sample(const struct section_commit *c, uint64_t position)
{
	size_t low = 0, high = c->n_samples;

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (c->samples[mid].position < position)
			low = mid + 1;
		else
			high = mid;
	}
	return low < c->n_samples && c->samples[low].position == position ? &c->samples[low] : NULL;
}

enum section_match section_commit_match(const struct section_commit *c, uint64_t position,
					uint64_t timestamp_ms)
{
	const struct section_sample *s;

	if (position == c->first)
		return timestamp_ms == c->first_timestamp_ms ? SECTION_SAME : SECTION_OTHER;
	if (!c->has_timestamps || position < c->first || position > c->last ||
	    timestamp_ms < c->min_timestamp_ms || timestamp_ms > c->max_timestamp_ms)
		return SECTION_OTHER;
	if (c->n_samples == 0)
		return SECTION_SAME;
	s = find_sample(c, position);
	if (s == NULL)
		return SECTION_OPEN;
	return s->timestamp_ms == timestamp_ms ? SECTION_SAME : SECTION_OTHER;
}

void section_commit_discard(struct backend *be, struct section_commit *c)
{
	struct err err = ERR_INIT;

	for (size_t i = 0; i < c->n_metas; i++)
		if (block_delete(be, c->metas[i].tenant, c->metas[i].id, &err) < 0)
			log_warn("cannot delete a block that lost", "error", err.msg);
	section_commit_fini(c);
}

/* ---- following ---- */

struct commit_list {
	struct commit_name *v;
	size_t n, cap;
};

/* The number at *p, which moves behind it. Digits only: no sign, no blank. */
static bool take_number(const char **p, uint64_t *v)
{
	size_t n = strspn(*p, "0123456789");
	struct bytes digits = { (const uint8_t *)*p, n };

	*p += n;
	return n > 0 && n <= 20 && str_to_u64(digits, v) == 0;
}

/* "<first>-<timestamp>.json", the last part of a key. */
static bool parse_name(const char *key, struct commit_name *name)
{
	const char *p = strrchr(key, '/');

	if (p == NULL)
		return false;
	p++;
	return take_number(&p, &name->first) && *p++ == '-' &&
	       take_number(&p, &name->timestamp_ms) && strcmp(p, ".json") == 0;
}

static int note_commit(void *arg, const struct backend_entry *e, struct err *err)
{
	struct commit_list *list = arg;
	struct commit_name name = { .mtime_ns = e->mtime_ns };

	(void)err;
	if (e->is_prefix || !parse_name(e->key, &name))
		return 0;
	list->v = xgrow(list->v, &list->cap, list->n + 1, sizeof(*list->v));
	list->v[list->n++] = name;
	return 0;
}

static int by_first(const void *a, const void *b)
{
	const struct commit_name *x = a, *y = b;

	return x->first < y->first ? -1 : x->first > y->first;
}

static int list_commits(struct backend *be, const char *source, struct commit_list *list,
			struct err *err)
{
	char folder[BACKEND_KEY_MAX + 1];

	*list = (struct commit_list){ NULL, 0, 0 };
	if (backend_key(folder, err, COMMITS "/%s", source) < 0 ||
	    backend_list(be, folder, BACKEND_ONE_LEVEL, note_commit, list, err) < 0) {
		free(list->v);
		return -1;
	}
	if (list->n > 0)
		qsort(list->v, list->n, sizeof(*list->v), by_first);
	return 0;
}

int section_commit_publish(struct backend *be, const struct section_commit *c,
			   section_visit_fn *visit, void *arg, struct err *err)
{
	for (size_t i = 0; i < c->n_metas; i++) {
		int visible = section_publish(be, &c->metas[i], err);

		if (visible < 0 || (visible && visit && visit(arg, &c->metas[i], err) < 0))
			return -1;
	}
	return 0;
}

/* Its data is there, and it was neither compacted nor deleted. */
static bool is_complete(struct backend *be, const struct block_meta *m)
{
	return exists(be, m, "data", NULL) > 0 && exists(be, m, "meta.compacted.json", NULL) == 0;
}

/* Step 3 as far as it can be done: 0, or 1 when a meta.json could not be written. After one that
 * could not no other is tried, but all whose data is there are visited. */
static int publish_or_visit(struct backend *be, const struct section_commit *c, bool may_write,
			    section_visit_fn *visit, void *arg, struct err *err)
{
	int ret = may_write ? 0 : 1;

	for (size_t i = 0; i < c->n_metas; i++) {
		const struct block_meta *m = &c->metas[i];
		int visible = ret == 0 ? section_publish(be, m, err) : -1;

		if (visible < 0)
			ret = 1;
		if (visible < 0 && is_complete(be, m))
			visible = 1;
		if (visible > 0 && visit != NULL && visit(arg, m, err) < 0)
			return -1;
	}
	return ret;
}

static int follow_commit(struct backend *be, const char *source, const struct commit_name *name,
			 uint64_t from, bool may_write, section_visit_fn *visit, void *arg,
			 uint64_t *next, struct err *err)
{
	struct section_commit c;
	int ret = read_commit(be, source, name, &c, err);

	if (ret < 0 && is_damaged(err))
		return section_commit_set_aside(be, source, name->first, name->timestamp_ms, err) <
		       0;
	if (ret == 0 && c.last >= from) {
		ret = publish_or_visit(be, &c, may_write, visit, arg, err);
		*next = MAX(*next, c.last + 1);
	}
	section_commit_fini(&c);
	return ret;
}

int section_follow(struct backend *be, const char *source, uint64_t from, section_visit_fn *visit,
		   void *arg, uint64_t *next, struct err *err)
{
	struct err first = ERR_INIT, local = ERR_INIT;
	struct commit_list list;
	size_t i = 0;
	int ret = 0;

	*next = from;
	if (list_commits(be, source, &list, err) < 0)
		return -1;
	/* The commit before may reach over `from`: its first records can be lost to damage. */
	while (i + 1 < list.n && list.v[i + 1].first < from)
		i++;
	for (; ret >= 0 && i < list.n; i++) {
		int got = follow_commit(be, source, &list.v[i], from, ret == 0, visit, arg, next,
					&local);

		if (got != 0 && (ret == 0 || got < 0))
			first = local;
		ret = got < 0 ? -1 : MAX(ret, got);
	}
	free(list.v);
	if (ret != 0 && err != NULL)
		*err = first;
	return ret;
}

/* ---- names ---- */

static int compare_names(const struct section_name *a, const struct section_name *b)
{
	if (a->first != b->first)
		return a->first < b->first ? -1 : 1;
	return a->timestamp_ms < b->timestamp_ms ? -1 : a->timestamp_ms > b->timestamp_ms;
}

/* Mostly at the end, once each. */
static int add_name(void *arg, const struct backend_entry *e, struct err *err)
{
	struct section_names *names = arg;
	struct commit_name parsed;
	struct section_name name;
	size_t at = names->n;

	(void)err;
	if (e->is_prefix || !parse_name(e->key, &parsed))
		return 0;
	name = (struct section_name){ parsed.first, parsed.timestamp_ms };
	while (at > 0 && compare_names(&names->v[at - 1], &name) > 0)
		at--;
	if (at > 0 && compare_names(&names->v[at - 1], &name) == 0)
		return 0;
	names->v = xgrow(names->v, &names->cap, names->n + 1, sizeof(*names->v));
	memmove(names->v + at + 1, names->v + at, (names->n - at) * sizeof(*names->v));
	names->v[at] = name;
	names->n++;
	return 0;
}

int section_names_add(struct backend *be, const char *source, const struct section_name *after,
		      struct section_names *names, struct err *err)
{
	char folder[BACKEND_KEY_MAX + 1], key[BACKEND_KEY_MAX + 1];

	if (backend_key(folder, err, COMMITS "/%s", source) < 0)
		return -1;
	if (after == NULL)
		return backend_list(be, folder, BACKEND_ONE_LEVEL, add_name, names, err);
	if (commit_key(key, source, &(struct commit_name){ after->first, after->timestamp_ms, 0 },
		       err) < 0)
		return -1;
	return backend_list_after(be, folder, key, add_name, names, err);
}

/* ---- sweeping ---- */

int section_sweep_commits(struct backend *be, const char *source, uint64_t before, uint64_t age_ns,
			  struct err *err)
{
	uint64_t now = backend_now_ns(be);
	struct commit_list list;
	int ret = 0;

	if (list_commits(be, source, &list, err) < 0)
		return -1;
	/* Its successor's first position proves that a commit lies below `before`. */
	for (size_t i = 0; ret == 0 && i + 1 < list.n; i++) {
		char key[BACKEND_KEY_MAX + 1];

		if (list.v[i + 1].first >= before || list.v[i].mtime_ns + age_ns > now)
			continue;
		ret = commit_key(key, source, &list.v[i], err);
		if (ret == 0)
			ret = backend_delete(be, key, err);
	}
	free(list.v);
	return ret;
}

/* Folders "<tenant>/<id>" that look like an unpublished block: the map's values are not used. */
struct orphans {
	struct backend *be;
	uint64_t newest_ns; /* files may be this young */
	struct map folders;
};

static int look_at_tenant(void *arg, const struct backend_entry *e, struct err *err)
{
	struct orphans *o = arg;
	struct compact_scan s;
	char folder[BACKEND_KEY_MAX + 1];

	if (!e->is_prefix || block_meta_tenant_check(bytes_str(e->key), NULL) < 0)
		return 0;
	if (compact_scan(o->be, e->key, &s, err) < 0)
		return -1;
	for (size_t i = 0; i < s.n; i++)
		if (!s.v[i].has_other && s.v[i].newest_ns <= o->newest_ns &&
		    backend_key(folder, NULL, "%s/%s", e->key, s.v[i].id) == 0)
			map_set(&o->folders, bytes_str(folder), o);
	compact_scan_fini(&s);
	return 0;
}

/* What a commit names is no orphan, whoever's commit it is. One that cannot be read spares all. */
static int spare_committed(void *arg, const struct backend_entry *e, struct err *err)
{
	struct orphans *o = arg;
	struct commit_name name = { .first = 0 };
	char folder[BACKEND_KEY_MAX + 1];
	struct section_commit c;

	if (e->is_prefix || !parse_name(e->key, &name))
		return 0;
	if (read_commit_at(o->be, e->key, &name, &c, err) < 0)
		return -1;
	for (size_t i = 0; i < c.n_metas; i++)
		if (backend_key(folder, NULL, "%s/%s", c.metas[i].tenant, c.metas[i].id) == 0)
			map_remove(&o->folders, bytes_str(folder));
	section_commit_fini(&c);
	return 0;
}

/* The same for what compactions wrote. A record that cannot be read names nothing: who follows it
 * cannot either. */
static int spare_compacted(void *arg, const struct backend_entry *e, struct err *err)
{
	struct orphans *o = arg;
	char tenant[BLOCK_META_TENANT + 1], folder[BACKEND_KEY_MAX + 1];
	const char *name = e->key + sizeof(COMPACT_RECORDS);
	struct compact_record r;
	struct err local = ERR_INIT;
	uint64_t number;
	int ret = 0;

	if (e->is_prefix || !compact_record_number(e->key, &number))
		return 0;
	snprintf(tenant, sizeof(tenant), "%.*s", (int)strcspn(name, "/"), name);
	if (compact_record_read(o->be, tenant, number, &r, &local) < 0 &&
	    local.kind != ERR_CORRUPT && local.kind != ERR_NOT_FOUND) {
		ret = -1;
		if (err != NULL)
			*err = local;
	}
	for (size_t i = 0; i < r.n_outputs; i++)
		if (backend_key(folder, NULL, "%s/%s", tenant, r.outputs[i].id) == 0)
			map_remove(&o->folders, bytes_str(folder));
	compact_record_fini(&r);
	return ret;
}

static int delete_orphan(struct orphans *o, struct bytes folder, struct err *err)
{
	char tenant[BLOCK_META_TENANT + 1], id[37];
	const char *slash = memchr(folder.p, '/', folder.n);
	size_t n = (size_t)((const uint8_t *)slash - folder.p);

	snprintf(tenant, sizeof(tenant), "%.*s", (int)n, (const char *)folder.p);
	snprintf(id, sizeof(id), "%.*s", (int)(folder.n - n - 1), slash + 1);
	return block_delete(o->be, tenant, id, err);
}

int section_sweep_orphans(struct backend *be, uint64_t age_ns, size_t *n, struct err *err)
{
	uint64_t now = backend_now_ns(be);
	struct orphans o = { .be = be, .newest_ns = now > age_ns ? now - age_ns : 0 };
	struct bytes folder;
	void *value;
	size_t pos = 0;
	int ret;

	*n = 0;
	ret = backend_list(be, "", BACKEND_ONE_LEVEL, look_at_tenant, &o, err);
	/* The commits after the folders: a block that is committed now was complete before. */
	if (ret == 0 && o.folders.n > 0)
		ret = backend_list(be, COMMITS, BACKEND_RECURSIVE, spare_committed, &o, err);
	if (ret == 0 && o.folders.n > 0)
		ret = backend_list(be, COMPACT_RECORDS, BACKEND_RECURSIVE, spare_compacted, &o,
				   err);
	while (ret == 0 && map_next(&o.folders, &pos, &folder, &value)) {
		ret = delete_orphan(&o, folder, err);
		*n += ret == 0;
	}
	map_fini(&o.folders);
	return ret;
}

/* ---- what nobody sweeps ---- */

/* The newest commit of each source, and those that are old. */
struct aged {
	uint64_t before_ns;
	struct map newest; /* folder -> struct commit_name *, owned */
	char **old;        /* keys, owned */
	size_t n, cap;
};

static int note_aged(void *arg, const struct backend_entry *e, struct err *err)
{
	struct aged *g = arg;
	struct commit_name name = { .mtime_ns = e->mtime_ns }, *newest;
	struct bytes folder = bytes_str(e->key);

	(void)err;
	if (e->is_prefix || !parse_name(e->key, &name))
		return 0;
	folder.n = (size_t)(strrchr(e->key, '/') - e->key);
	newest = map_find(&g->newest, folder);
	if (newest == NULL) {
		newest = xmalloc(sizeof(*newest));
		*newest = name;
		map_set(&g->newest, folder, newest);
	} else if (by_first(newest, &name) < 0) {
		*newest = name;
	}
	if (name.mtime_ns < g->before_ns) {
		g->old = xgrow(g->old, &g->cap, g->n + 1, sizeof(*g->old));
		g->old[g->n++] = xstrdup(e->key);
	}
	return 0;
}

static bool is_newest(struct aged *g, const char *key)
{
	struct bytes folder = bytes_str(key);
	struct commit_name name = { .first = 0 };
	const struct commit_name *newest;

	folder.n = (size_t)(strrchr(key, '/') - key);
	newest = map_find(&g->newest, folder);
	return !parse_name(key, &name) || newest == NULL || by_first(&name, newest) >= 0;
}

static void aged_fini(struct aged *g)
{
	struct bytes key;
	void *value;
	size_t pos = 0;

	while (map_next(&g->newest, &pos, &key, &value))
		free(value);
	map_fini(&g->newest);
	for (size_t i = 0; i < g->n; i++)
		free(g->old[i]);
	free(g->old);
}

int section_sweep_aged(struct backend *be, uint64_t age_ns, size_t *n, struct err *err)
{
	uint64_t now = backend_now_ns(be);
	struct aged g = { .before_ns = now > age_ns ? now - age_ns : 0 };
	int ret = backend_list(be, COMMITS, BACKEND_RECURSIVE, note_aged, &g, err);

	*n = 0;
	for (size_t i = 0; ret == 0 && i < g.n; i++) {
		if (is_newest(&g, g.old[i]))
			continue;
		ret = backend_delete(be, g.old[i], err);
		*n += ret == 0;
	}
	aged_fini(&g);
	return ret;
}

void section_commit_fini(struct section_commit *c)
{
	free(c->metas);
	free(c->samples);
	c->metas = NULL;
	c->samples = NULL;
	c->n_metas = c->n_samples = 0;
}
