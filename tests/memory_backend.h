/* SPDX-License-Identifier: Apache-2.0
 *
 * memory_backend.h - a backend of named buffers, for tests and fuzz targets. One thread; header
 * only, because every test program is one source file.
 */
#ifndef TESTS_MEMORY_BACKEND_H
#define TESTS_MEMORY_BACKEND_H

#include "base/clock.h"
#include "base/mem.h"
#include "blocks/backend.h"

struct memory_object {
	char *key;
	struct buf data;
	uint64_t mtime_ns;
};

struct memory_backend {
	struct backend be;
	struct memory_object *objects; /* sorted by key */
	size_t n, cap;
	unsigned reads; /* calls of read and read_range */
	int fail_after; /* writes to let pass before all fail; -1 = all pass */
};

struct memory_writer {
	struct backend_writer w;
	struct buf data;
};

static inline struct memory_backend *memory_of(struct backend *be)
{
	return CONTAINER_OF(be, struct memory_backend, be);
}

static inline struct memory_object *memory_find(struct backend *be, const char *key)
{
	struct memory_backend *m = memory_of(be);

	for (size_t i = 0; i < m->n; i++)
		if (strcmp(m->objects[i].key, key) == 0)
			return &m->objects[i];
	return NULL;
}

static inline int memory_refuse(struct memory_backend *m, struct err *err)
{
	if (m->fail_after == 0)
		return err_set(err, ERR_UNAVAILABLE, "told to fail");
	if (m->fail_after > 0)
		m->fail_after--;
	return 0;
}

static inline int memory_put(struct backend *be, const char *key, struct bytes data,
			     enum backend_put_mode mode, struct err *err)
{
	struct memory_backend *m = memory_of(be);
	struct memory_object *o = memory_find(be, key);
	size_t at = 0;

	if (memory_refuse(m, err) < 0)
		return -1;
	if (o != NULL && mode == BACKEND_IF_NONE_MATCH)
		return err_set(err, ERR_EXISTS, "taken");
	if (o == NULL) {
		m->objects = xgrow(m->objects, &m->cap, m->n + 1, sizeof(*o));
		while (at < m->n && strcmp(m->objects[at].key, key) < 0)
			at++;
		o = &m->objects[at];
		memmove(o + 1, o, (m->n++ - at) * sizeof(*o));
		*o = (struct memory_object){ xstrdup(key), BUF_INIT, 0 };
	}
	o->mtime_ns = clock_wall_ns();
	buf_reset(&o->data);
	return buf_add_bytes(&o->data, data);
}

static inline struct backend_writer *memory_writer_open(struct backend *be, const char *key,
							struct err *err)
{
	struct memory_writer *w = NULL;

	(void)key;
	if (memory_refuse(memory_of(be), err) < 0)
		return NULL;
	w = xcalloc(1, sizeof(*w));
	return &w->w;
}

static inline int memory_writer_append(struct backend_writer *w, struct bytes data, struct err *err)
{
	if (memory_refuse(memory_of(w->be), err) < 0)
		return -1;
	return buf_add_bytes(&CONTAINER_OF(w, struct memory_writer, w)->data, data);
}

static inline void memory_writer_abort(struct backend_writer *w)
{
	struct memory_writer *mw = CONTAINER_OF(w, struct memory_writer, w);

	buf_fini(&mw->data);
	free(mw);
}

static inline int memory_writer_finish(struct backend_writer *w, struct err *err)
{
	struct memory_writer *mw = CONTAINER_OF(w, struct memory_writer, w);
	int ret = memory_put(w->be, w->key, buf_bytes(&mw->data), BACKEND_REPLACE, err);

	memory_writer_abort(w);
	return ret;
}

static inline int memory_read(struct backend *be, const char *key, size_t max, struct buf *out,
			      struct err *err)
{
	struct memory_object *o = memory_find(be, key);

	memory_of(be)->reads++;
	if (o == NULL)
		return err_set(err, ERR_NOT_FOUND, "no such object");
	if (o->data.n > max)
		return err_set(err, ERR_TOO_LARGE, "%zu bytes: the limit is %zu", o->data.n, max);
	return buf_add_bytes(out, buf_bytes(&o->data));
}

static inline int memory_read_range(struct backend *be, const char *key, uint64_t off, size_t len,
				    struct buf *out, struct err *err)
{
	struct memory_object *o = memory_find(be, key);

	memory_of(be)->reads++;
	if (o == NULL)
		return err_set(err, ERR_NOT_FOUND, "no such object");
	if (off + len > o->data.n)
		return err_set(err, ERR_CORRUPT, "range %llu+%zu: the object has %zu bytes",
			       (unsigned long long)off, len, o->data.n);
	return buf_add(out, o->data.p + off, len);
}

static inline int memory_size(struct backend *be, const char *key, uint64_t *size, struct err *err)
{
	struct memory_object *o = memory_find(be, key);

	if (o == NULL)
		return err_set(err, ERR_NOT_FOUND, "no such object");
	*size = o->data.n;
	return 0;
}

static inline int memory_remove(struct backend *be, const char *key, struct err *err)
{
	struct memory_backend *m = memory_of(be);
	struct memory_object *o = memory_find(be, key);

	(void)err;
	if (o == NULL)
		return 0;
	free(o->key);
	buf_fini(&o->data);
	memmove(o, o + 1, (size_t)(m->objects + --m->n - o) * sizeof(*o));
	return 0;
}

/* The folder that `key` lies in, when it is not `folder` itself but below it: "folder/x" of
 * "folder/x/y/z". Told once, at the last of its objects. */
static inline int memory_prefix(struct memory_backend *m, size_t i, size_t skip,
				backend_list_fn *fn, void *arg, struct err *err)
{
	const char *key = m->objects[i].key;
	size_t n = (size_t)(strchr(key + skip, '/') - key);
	char prefix[BACKEND_KEY_MAX + 1];
	struct backend_entry e = { prefix, true, 0, 0 };

	if (i + 1 < m->n && strncmp(m->objects[i + 1].key, key, n + 1) == 0)
		return 0;
	memcpy(prefix, key, n);
	prefix[n] = '\0';
	return fn(arg, &e, err);
}

/* Objects directly in the folder and its sub-folders, or all below it. */
static inline int memory_list(struct backend *be, const char *folder, enum backend_list_mode mode,
			      backend_list_fn *fn, void *arg, struct err *err)
{
	struct memory_backend *m = memory_of(be);
	size_t n = strlen(folder);

	for (size_t i = m->n; i-- > 0;) {
		struct memory_object *o = &m->objects[i];
		struct backend_entry e = { o->key, false, o->data.n, o->mtime_ns };
		size_t skip = n + (n > 0);
		int ret = 0;

		if (n > 0 && (strncmp(o->key, folder, n) != 0 || o->key[n] != '/'))
			continue;
		if (mode == BACKEND_ONE_LEVEL && strchr(o->key + skip, '/') != NULL)
			ret = memory_prefix(m, i, skip, fn, arg, err);
		else
			ret = fn(arg, &e, err);
		if (ret != 0)
			return ret < 0 ? -1 : 0;
	}
	return 0;
}

static inline int memory_rename(struct backend *be, const char *from, const char *to,
				struct err *err)
{
	struct memory_object *o = memory_find(be, from);

	if (o == NULL)
		return err_set(err, ERR_NOT_FOUND, "no such object");
	if (memory_put(be, to, buf_bytes(&o->data), BACKEND_IF_NONE_MATCH, err) < 0)
		return -1;
	return memory_remove(be, from, err);
}

static inline void memory_free(struct backend *be)
{
	struct memory_backend *m = memory_of(be);

	while (m->n > 0)
		memory_remove(be, m->objects[m->n - 1].key, NULL);
	free(m->objects);
	free(m);
}

static inline struct backend *memory_backend_new(void)
{
	static const struct backend_ops ops = {
		.put = memory_put,
		.writer_open = memory_writer_open,
		.writer_append = memory_writer_append,
		.writer_finish = memory_writer_finish,
		.writer_abort = memory_writer_abort,
		.read = memory_read,
		.read_range = memory_read_range,
		.size = memory_size,
		.list = memory_list,
		.remove = memory_remove,
		.rename = memory_rename,
		.free = memory_free,
	};
	struct memory_backend *m = xcalloc(1, sizeof(*m));

	m->be.ops = &ops;
	m->fail_after = -1;
	return &m->be;
}

#endif
