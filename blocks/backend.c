/* SPDX-License-Identifier: Apache-2.0
 *
 * backend.c - see backend.h: key checks and error context in front of the vtable.
 */
#include "blocks/backend.h"

#include "base/clock.h"

#include <stdarg.h>
#include <stdio.h>

/* The rule the segment breaks, or NULL. */
static const char *segment_fault(const char *p, size_t n)
{
	if (n == 0)
		return "has an empty segment";
	if (n > BACKEND_SEGMENT_MAX)
		return "has a segment of more than 255 bytes";
	if ((n == 1 && p[0] == '.') || (n == 2 && p[0] == '.' && p[1] == '.'))
		return "has a segment \".\" or \"..\"";
	for (size_t i = 0; i < n; i++)
		if ((unsigned char)p[i] < 0x20 || p[i] == 0x7f || p[i] == '\\')
			return "has a control byte or a backslash";
	return NULL;
}

int backend_key_check(const char *key, struct err *err)
{
	const char *p = key, *fault = NULL;

	if (strlen(key) > BACKEND_KEY_MAX)
		fault = "has more than 1024 bytes";
	while (fault == NULL) {
		size_t n = strcspn(p, "/");

		fault = segment_fault(p, n);
		if (p[n] == '\0')
			break;
		p += n + 1;
	}
	if (fault != NULL)
		return err_set(err, ERR_INVALID, "object key \"%.100s\": %s", key, fault);
	return 0;
}

int backend_key(char out[BACKEND_KEY_MAX + 1], struct err *err, const char *fmt, ...)
{
	va_list ap;
	int n = 0;

	va_start(ap, fmt);
	n = vsnprintf(out, BACKEND_KEY_MAX + 1, fmt, ap);
	va_end(ap);
	if (n < 0 || n > BACKEND_KEY_MAX)
		return err_set(err, ERR_INVALID,
			       "object key \"%.100s...\": has more than 1024 bytes", out);
	return backend_key_check(out, err);
}

/* Put "verb key" in front of the error of a call that failed. */
static int ended(int ret, const char *verb, const char *key, struct err *err)
{
	return ret < 0 ? err_wrap(err, "%s %s", verb, key) : ret;
}

int backend_put(struct backend *be, const char *key, struct bytes data, enum backend_put_mode mode,
		struct err *err)
{
	if (backend_key_check(key, err) < 0)
		return -1;
	return ended(be->ops->put(be, key, data, mode, err), "put", key, err);
}

struct backend_writer *backend_writer_open(struct backend *be, const char *key, struct err *err)
{
	struct backend_writer *w = NULL;

	if (backend_key_check(key, err) < 0)
		return NULL;
	w = be->ops->writer_open(be, key, err);
	if (w == NULL) {
		err_wrap(err, "write %s", key);
		return NULL;
	}
	w->be = be;
	memcpy(w->key, key, strlen(key) + 1);
	return w;
}

int backend_writer_append(struct backend_writer *w, struct bytes data, struct err *err)
{
	if (data.n == 0)
		return 0;
	return ended(w->be->ops->writer_append(w, data, err), "write", w->key, err);
}

int backend_writer_finish(struct backend_writer *w, struct err *err)
{
	char key[BACKEND_KEY_MAX + 1];

	memcpy(key, w->key, sizeof(key));
	return ended(w->be->ops->writer_finish(w, err), "finish", key, err);
}

void backend_writer_abort(struct backend_writer *w)
{
	if (w != NULL)
		w->be->ops->writer_abort(w);
}

int backend_read(struct backend *be, const char *key, size_t max, struct buf *out, struct err *err)
{
	if (backend_key_check(key, err) < 0)
		return -1;
	return ended(be->ops->read(be, key, max, out, err), "read", key, err);
}

int backend_read_changed(struct backend *be, const char *key, size_t max,
			 char etag[BACKEND_ETAG_SIZE], struct buf *out, struct err *err)
{
	int ret;

	if (backend_key_check(key, err) < 0)
		return -1;
	if (be->ops->read_changed != NULL) {
		ret = be->ops->read_changed(be, key, max, etag, out, err);
	} else {
		etag[0] = '\0';
		ret = be->ops->read(be, key, max, out, err) < 0 ? -1 : 1;
	}
	return ended(ret, "read", key, err);
}

bool backend_is_remote(const struct backend *be)
{
	return be->ops->is_remote;
}

int backend_read_range(struct backend *be, const char *key, uint64_t off, size_t len,
		       struct buf *out, struct err *err)
{
	if (backend_key_check(key, err) < 0)
		return -1;
	if (off + len < off)
		return err_set(err, ERR_CORRUPT,
			       "read %s: range %llu+%zu passes the largest offset", key,
			       (unsigned long long)off, len);
	if (len == 0)
		return 0;
	return ended(be->ops->read_range(be, key, off, len, out, err), "read", key, err);
}

int backend_size(struct backend *be, const char *key, uint64_t *size, struct err *err)
{
	if (backend_key_check(key, err) < 0)
		return -1;
	return ended(be->ops->size(be, key, size, err), "size of", key, err);
}

int backend_list(struct backend *be, const char *folder, enum backend_list_mode mode,
		 backend_list_fn *fn, void *arg, struct err *err)
{
	if (folder[0] != '\0' && backend_key_check(folder, err) < 0)
		return -1;
	return ended(be->ops->list(be, folder, mode, fn, arg, err), "list",
		     folder[0] ? folder : "the root", err);
}

struct members {
	const char *folder, *name;
	backend_list_fn *fn;
	void *arg;
};

/* Hand on what is called <folder>/<one segment>/<name>. */
static int pick_member(void *arg, const struct backend_entry *e, struct err *err)
{
	const struct members *m = arg;
	const char *segment = e->key + strlen(m->folder) + 1;
	const char *slash = strchr(segment, '/');

	if (e->is_prefix || slash == NULL || strcmp(slash + 1, m->name) != 0)
		return 0;
	return m->fn(m->arg, e, err);
}

int backend_list_members(struct backend *be, const char *folder, const char *name,
			 backend_list_fn *fn, void *arg, struct err *err)
{
	struct members m = { folder, name, fn, arg };
	int ret;

	if (backend_key_check(folder, err) < 0 || backend_key_check(name, err) < 0)
		return -1;
	ret = be->ops->list_members != NULL
		      ? be->ops->list_members(be, folder, name, fn, arg, err)
		      : be->ops->list(be, folder, BACKEND_RECURSIVE, pick_member, &m, err);
	return ended(ret, "list", folder, err);
}

/* Of a list of one level, what lies behind a key. */
struct behind {
	const char *after;
	backend_list_fn *fn;
	void *arg;
};

static int show_behind(void *arg, const struct backend_entry *e, struct err *err)
{
	struct behind *b = arg;

	return strcmp(e->key, b->after) > 0 ? b->fn(b->arg, e, err) : 0;
}

int backend_list_after(struct backend *be, const char *folder, const char *after,
		       backend_list_fn *fn, void *arg, struct err *err)
{
	struct behind b = { after, fn, arg };
	int ret;

	if (backend_key_check(folder, err) < 0 || backend_key_check(after, err) < 0)
		return -1;
	ret = be->ops->list_after != NULL
		      ? be->ops->list_after(be, folder, after, fn, arg, err)
		      : be->ops->list(be, folder, BACKEND_ONE_LEVEL, show_behind, &b, err);
	return ended(ret, "list", folder, err);
}

int backend_delete(struct backend *be, const char *key, struct err *err)
{
	if (backend_key_check(key, err) < 0)
		return -1;
	return ended(be->ops->remove(be, key, err), "delete", key, err);
}

int backend_rename(struct backend *be, const char *from, const char *to, struct err *err)
{
	if (backend_key_check(from, err) < 0 || backend_key_check(to, err) < 0)
		return -1;
	return ended(be->ops->rename(be, from, to, err), "rename", from, err);
}

int backend_sweep_uploads(struct backend *be, uint64_t before_ns, size_t *n, struct err *err)
{
	*n = 0;
	if (be->ops->sweep_uploads == NULL)
		return 0;
	return ended(be->ops->sweep_uploads(be, before_ns, n, err), "sweep", "uploads", err);
}

int backend_prove_conditional(struct backend *be, struct err *err)
{
	return be->ops->prove != NULL ? be->ops->prove(be, err) : 0;
}

uint64_t backend_now_ns(struct backend *be)
{
	return be->ops->now_ns != NULL ? be->ops->now_ns(be) : clock_wall_ns();
}

uint64_t backend_mtime_spare_ns(const struct backend *be)
{
	return be->ops->now_ns != NULL ? NS_PER_S : 0;
}

void backend_interrupt(struct backend *be, bool on)
{
	if (be->ops->interrupt != NULL)
		be->ops->interrupt(be, on);
}

void backend_free(struct backend *be)
{
	if (be != NULL)
		be->ops->free(be);
}
