/* SPDX-License-Identifier: Apache-2.0
 *
 * faulty_backend.h - a backend around another one, whose calls can be told to fail, for tests.
 *
 * A rule names a kind of call and a part of the key; it fails the next `times` calls that match,
 * before the call was made or after it (an ambiguous failure: it was done all the same). Rules may
 * be set from any thread while others call. A hook is called before each call: what others do to
 * the store just then. Header only, because every test program is one file.
 */
#ifndef TESTS_FAULTY_BACKEND_H
#define TESTS_FAULTY_BACKEND_H

#include "base/mem.h"
#include "blocks/backend.h"

#include <pthread.h>

enum faulty_call {
	FAULTY_PUT = 1,
	FAULTY_WRITER = 2,	/* open, append, finish */
	FAULTY_READ = 4,
	FAULTY_SIZE = 8,
	FAULTY_LIST = 16,
	FAULTY_REMOVE = 32,
	FAULTY_ANY = 63,
};

struct faulty_rule {
	unsigned calls;		/* enum faulty_call, or-ed; 0: no rule */
	const char *part;	/* of the key; NULL: any */
	int times;		/* -1: for ever */
	bool afterwards;	/* the call is made, then fails */
	enum err_kind kind;
};

struct faulty_backend {
	struct backend be;
	struct backend_ops ops;
	struct backend *inner;	/* owned */
	pthread_mutex_t lock;
	struct faulty_rule rule;
	bool hangs;		/* such a call fails when the backend is interrupted */
	unsigned hits;		/* calls that the rule failed */
	unsigned calls[64];	/* by enum faulty_call */
	pthread_cond_t interrupted;
	bool interrupt;
	void (*hook)(void *arg, enum faulty_call call, const char *key);
	void *hook_arg;
};

struct faulty_writer {
	struct backend_writer w;
	struct backend_writer *inner;
};

static inline struct faulty_backend *faulty_of(struct backend *be)
{
	return CONTAINER_OF(be, struct faulty_backend, be);
}

static inline void faulty_set_rule(struct backend *be, struct faulty_rule rule, bool hangs)
{
	struct faulty_backend *f = faulty_of(be);

	pthread_mutex_lock(&f->lock);
	f->rule = rule;
	f->hangs = hangs;
	f->hits = 0;
	pthread_mutex_unlock(&f->lock);
}

static inline void faulty_set(struct backend *be, struct faulty_rule rule)
{
	faulty_set_rule(be, rule, false);
}

/* Calls that match neither succeed nor fail before backend_interrupt. */
static inline void faulty_hang(struct backend *be, unsigned calls, const char *part)
{
	faulty_set_rule(be, (struct faulty_rule){ calls, part, -1, false, ERR_UNAVAILABLE }, true);
}

static inline unsigned faulty_hits(struct backend *be)
{
	struct faulty_backend *f = faulty_of(be);
	unsigned n;

	pthread_mutex_lock(&f->lock);
	n = f->hits;
	pthread_mutex_unlock(&f->lock);
	return n;
}

/* -1 when the rule says so. */
static inline int faulty_meet(struct backend *be, enum faulty_call call, const char *key,
			      bool afterwards, struct err *err)
{
	struct faulty_backend *f = faulty_of(be);
	struct faulty_rule *r = &f->rule;
	bool hit;

	if (f->hook != NULL && !afterwards)
		f->hook(f->hook_arg, call, key);
	pthread_mutex_lock(&f->lock);
	f->calls[call] += !afterwards;
	hit = (r->calls & (unsigned)call) && r->afterwards == afterwards && r->times != 0 &&
	      (r->part == NULL || strstr(key, r->part) != NULL);
	if (hit) {
		r->times -= r->times > 0;
		f->hits++;
	}
	while (hit && f->hangs && !f->interrupt)
		pthread_cond_wait(&f->interrupted, &f->lock);
	pthread_mutex_unlock(&f->lock);
	return hit ? err_set(err, r->kind ? r->kind : ERR_UNAVAILABLE, "told to fail") : 0;
}

static inline int faulty_put(struct backend *be, const char *key, struct bytes data,
			     enum backend_put_mode mode, struct err *err)
{
	if (faulty_meet(be, FAULTY_PUT, key, false, err) < 0 ||
	    backend_put(faulty_of(be)->inner, key, data, mode, err) < 0)
		return -1;
	return faulty_meet(be, FAULTY_PUT, key, true, err);
}

static inline struct backend_writer *faulty_writer_open(struct backend *be, const char *key,
							struct err *err)
{
	struct faulty_writer *w;
	struct backend_writer *inner;

	if (faulty_meet(be, FAULTY_WRITER, key, false, err) < 0)
		return NULL;
	inner = backend_writer_open(faulty_of(be)->inner, key, err);
	if (inner == NULL)
		return NULL;
	w = xcalloc(1, sizeof(*w));
	w->inner = inner;
	return &w->w;
}

static inline int faulty_writer_append(struct backend_writer *w, struct bytes data, struct err *err)
{
	if (faulty_meet(w->be, FAULTY_WRITER, w->key, false, err) < 0)
		return -1;
	return backend_writer_append(CONTAINER_OF(w, struct faulty_writer, w)->inner, data, err);
}

static inline void faulty_writer_abort(struct backend_writer *w)
{
	backend_writer_abort(CONTAINER_OF(w, struct faulty_writer, w)->inner);
	free(CONTAINER_OF(w, struct faulty_writer, w));
}

static inline int faulty_writer_finish(struct backend_writer *w, struct err *err)
{
	struct faulty_writer *fw = CONTAINER_OF(w, struct faulty_writer, w);
	int ret;

	if (faulty_meet(w->be, FAULTY_WRITER, w->key, false, err) < 0) {
		faulty_writer_abort(w);
		return -1;
	}
	ret = backend_writer_finish(fw->inner, err);
	if (ret == 0)
		ret = faulty_meet(w->be, FAULTY_WRITER, w->key, true, err);
	free(fw);
	return ret;
}

static inline int faulty_read(struct backend *be, const char *key, size_t max, struct buf *out,
			      struct err *err)
{
	if (faulty_meet(be, FAULTY_READ, key, false, err) < 0)
		return -1;
	return backend_read(faulty_of(be)->inner, key, max, out, err);
}

static inline int faulty_read_changed(struct backend *be, const char *key, size_t max,
				      char etag[BACKEND_ETAG_SIZE], struct buf *out,
				      struct err *err)
{
	if (faulty_meet(be, FAULTY_READ, key, false, err) < 0)
		return -1;
	return backend_read_changed(faulty_of(be)->inner, key, max, etag, out, err);
}

static inline int faulty_read_range(struct backend *be, const char *key, uint64_t off, size_t len,
				    struct buf *out, struct err *err)
{
	if (faulty_meet(be, FAULTY_READ, key, false, err) < 0)
		return -1;
	return backend_read_range(faulty_of(be)->inner, key, off, len, out, err);
}

static inline int faulty_size(struct backend *be, const char *key, uint64_t *size, struct err *err)
{
	if (faulty_meet(be, FAULTY_SIZE, key, false, err) < 0)
		return -1;
	return backend_size(faulty_of(be)->inner, key, size, err);
}

static inline int faulty_list(struct backend *be, const char *folder, enum backend_list_mode mode,
			      backend_list_fn *fn, void *arg, struct err *err)
{
	if (faulty_meet(be, FAULTY_LIST, folder, false, err) < 0)
		return -1;
	return backend_list(faulty_of(be)->inner, folder, mode, fn, arg, err);
}

static inline int faulty_remove(struct backend *be, const char *key, struct err *err)
{
	if (faulty_meet(be, FAULTY_REMOVE, key, false, err) < 0)
		return -1;
	return backend_delete(faulty_of(be)->inner, key, err);
}

static inline int faulty_rename(struct backend *be, const char *from, const char *to,
				struct err *err)
{
	return backend_rename(faulty_of(be)->inner, from, to, err);
}

static inline void faulty_interrupt(struct backend *be, bool on)
{
	struct faulty_backend *f = faulty_of(be);

	pthread_mutex_lock(&f->lock);
	f->interrupt = on;
	pthread_cond_broadcast(&f->interrupted);
	pthread_mutex_unlock(&f->lock);
}

static inline void faulty_free(struct backend *be)
{
	struct faulty_backend *f = faulty_of(be);

	backend_free(f->inner);
	pthread_mutex_destroy(&f->lock);
	pthread_cond_destroy(&f->interrupted);
	free(f);
}

/* Takes inner; is_remote is what backend_is_remote says. Free with backend_free. */
static inline struct backend *faulty_backend_new_at(struct backend *inner, bool is_remote)
{
	static const struct backend_ops ops = {
		.put = faulty_put,
		.writer_open = faulty_writer_open,
		.writer_append = faulty_writer_append,
		.writer_finish = faulty_writer_finish,
		.writer_abort = faulty_writer_abort,
		.read = faulty_read,
		.read_changed = faulty_read_changed,
		.read_range = faulty_read_range,
		.size = faulty_size,
		.list = faulty_list,
		.remove = faulty_remove,
		.rename = faulty_rename,
		.free = faulty_free,
		.interrupt = faulty_interrupt,
	};
	struct faulty_backend *f = xcalloc(1, sizeof(*f));

	f->ops = ops;
	f->ops.is_remote = is_remote;
	f->be.ops = &f->ops;
	f->inner = inner;
	pthread_mutex_init(&f->lock, NULL);
	pthread_cond_init(&f->interrupted, NULL);
	return &f->be;
}

static inline struct backend *faulty_backend_new(struct backend *inner)
{
	return faulty_backend_new_at(inner, false);
}

#endif
