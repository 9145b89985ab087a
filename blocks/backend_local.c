/* SPDX-License-Identifier: Apache-2.0
 *
 * backend_local.c - see backend_local.h.
 *
 * DESIGN: a file is written under <root>/_spanmill/tmp/<random>, fsynced, then given its name by
 * rename (replace) or link (conditional: link never replaces, and of two who link one gets EEXIST,
 * also over NFS). Then every folder from the file up to the root is fsynced: a name is durable only
 * when all folders on its path are, and another thread may have made one of them a moment ago. The
 * fsync of a clean folder costs next to nothing.
 *
 *   open tmp -> write -> fsync -> [mkdir path] -> rename|link -> fsync folders
 *
 * Deleting the last file of a folder removes the folder too, so that dead blocks leave nothing; a
 * writer that loses its folder to that makes it again. tmp is never listed, and swept on open.
 * THREADS: no state but the root descriptor; any thread.
 */
#include "blocks/backend_local.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/rng.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#define TMP_DIR "_spanmill/tmp"

enum { TMP_NAME = sizeof(TMP_DIR) + 37, GRACE_S = 3600, MAKE_TRIES = 100, DEPTH_MAX = 64 };

struct local {
	struct backend be;
	int root;
};

struct local_writer {
	struct backend_writer w;
	int fd;
	char tmp[TMP_NAME];
};

static struct local *local_of(struct backend *be)
{
	return CONTAINER_OF(be, struct local, be);
}

static bool is_hidden(const char *key)
{
	size_t n = strlen(TMP_DIR);

	return strncmp(key, TMP_DIR, n) == 0 && (key[n] == '\0' || key[n] == '/');
}

/* ---- small files and folders ---- */

static int write_all(int fd, struct bytes data, struct err *err)
{
	while (data.n > 0) {
		ssize_t n = write(fd, data.p, data.n);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_errno(err, "write");
		data.p += n;
		data.n -= (size_t)n;
	}
	return 0;
}

/* Make every folder above the key. When one is removed meanwhile this stops: the caller's own call
 * then fails with ENOENT, and it tries again. */
static int make_parents(int root, const char *key, struct err *err)
{
	char path[BACKEND_KEY_MAX + 1];
	const char *slash = key;

	while ((slash = strchr(slash, '/')) != NULL) {
		size_t n = (size_t)(slash - key);

		memcpy(path, key, n);
		path[n] = '\0';
		if (mkdirat(root, path, 0777) < 0 && errno != EEXIST)
			return errno == ENOENT ? 0 : err_errno(err, "make folder %s", path);
		slash++;
	}
	return 0;
}

static int sync_folder(int root, const char *path, struct err *err)
{
	int fd = openat(root, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int ret = 0;

	if (fd < 0)
		return errno == ENOENT ? 0 : err_errno(err, "open folder %s", path);
	if (fsync(fd) < 0)
		ret = err_errno(err, "fsync folder %s", path);
	close(fd);
	return ret;
}

/* Make the name of `key` durable: fsync each folder above it, deepest first, and the root. */
static int sync_parents(int root, const char *key, struct err *err)
{
	char path[BACKEND_KEY_MAX + 1];
	char *slash = NULL;

	memcpy(path, key, strlen(key) + 1);
	while ((slash = strrchr(path, '/')) != NULL) {
		*slash = '\0';
		if (sync_folder(root, path, err) < 0)
			return -1;
	}
	return sync_folder(root, ".", err);
}

/* Remove folders above the key as far as they are empty. */
static void drop_empty_parents(int root, const char *key)
{
	char path[BACKEND_KEY_MAX + 1];
	char *slash = NULL;

	memcpy(path, key, strlen(key) + 1);
	while ((slash = strrchr(path, '/')) != NULL) {
		*slash = '\0';
		if (unlinkat(root, path, AT_REMOVEDIR) < 0)
			return;
	}
}

/* Create a fresh file in tmp. Returns the descriptor. */
static int tmp_open(int root, char name[TMP_NAME], struct err *err)
{
	char id[37];
	int fd = -1;

	rng_uuid(id);
	snprintf(name, TMP_NAME, TMP_DIR "/%s", id);
	for (int i = 0; i < MAKE_TRIES && fd < 0; i++) {
		fd = openat(root, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
		if (fd < 0 && (errno != ENOENT || make_parents(root, name, err) < 0))
			break;
	}
	return fd < 0 ? err_errno(err, "create %s", name) : fd;
}

/* Give the finished tmp file its name. The tmp name is gone afterwards, whatever happens. */
static int tmp_commit(int root, const char *tmp, const char *key, enum backend_put_mode mode,
		      struct err *err)
{
	int ret = -1;

	/* A folder may be removed between being made and being used (drop_empty_parents). */
	for (int i = 0; i < MAKE_TRIES; i++) {
		if (make_parents(root, key, err) < 0)
			break;
		if (mode == BACKEND_IF_NONE_MATCH)
			ret = linkat(root, tmp, root, key, 0);
		else
			ret = renameat(root, tmp, root, key);
		if (ret == 0)
			break;
		err_errno(err, "%s", mode == BACKEND_IF_NONE_MATCH ? "link" : "rename");
		if (errno != ENOENT)
			break;
	}
	if (ret < 0 && errno == EEXIST)
		sync_parents(root, key, NULL); /* the winner's name: the loser will build on it */
	if (ret < 0 || mode == BACKEND_IF_NONE_MATCH)
		unlinkat(root, tmp, 0);
	return ret < 0 ? -1 : sync_parents(root, key, err);
}

/* ---- writing ---- */

static int refuse_hidden(const char *key, struct err *err)
{
	if (is_hidden(key))
		return err_set(err, ERR_INVALID, TMP_DIR " is reserved");
	return 0;
}

static struct backend_writer *local_writer_open(struct backend *be, const char *key,
						struct err *err)
{
	struct local_writer *lw = NULL;

	if (refuse_hidden(key, err) < 0)
		return NULL;
	lw = xcalloc(1, sizeof(*lw));
	lw->w.be = be;
	lw->fd = tmp_open(local_of(be)->root, lw->tmp, err);
	if (lw->fd < 0) {
		free(lw);
		return NULL;
	}
	return &lw->w;
}

static int local_writer_append(struct backend_writer *w, struct bytes data, struct err *err)
{
	return write_all(CONTAINER_OF(w, struct local_writer, w)->fd, data, err);
}

static void local_writer_abort(struct backend_writer *w)
{
	struct local_writer *lw = CONTAINER_OF(w, struct local_writer, w);

	close(lw->fd);
	unlinkat(local_of(w->be)->root, lw->tmp, 0);
	free(lw);
}

static int local_writer_end(struct local_writer *lw, enum backend_put_mode mode, struct err *err)
{
	int root = local_of(lw->w.be)->root, ret = 0;

	if (fsync(lw->fd) < 0) {
		err_errno(err, "fsync");
		local_writer_abort(&lw->w);
		return -1;
	}
	close(lw->fd);
	ret = tmp_commit(root, lw->tmp, lw->w.key, mode, err);
	free(lw);
	return ret;
}

static int local_writer_finish(struct backend_writer *w, struct err *err)
{
	return local_writer_end(CONTAINER_OF(w, struct local_writer, w), BACKEND_REPLACE, err);
}

static int local_put(struct backend *be, const char *key, struct bytes data,
		     enum backend_put_mode mode, struct err *err)
{
	struct backend_writer *w = local_writer_open(be, key, err);

	if (w == NULL)
		return -1;
	memcpy(w->key, key, strlen(key) + 1);
	if (write_all(CONTAINER_OF(w, struct local_writer, w)->fd, data, err) < 0) {
		local_writer_abort(w);
		return -1;
	}
	return local_writer_end(CONTAINER_OF(w, struct local_writer, w), mode, err);
}

/* ---- reading ---- */

/* Open a regular file; anything else is no object. */
static int open_object(struct backend *be, const char *key, struct stat *st, struct err *err)
{
	int fd = -1;

	if (refuse_hidden(key, err) < 0)
		return -1;
	fd = openat(local_of(be)->root, key, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0 && (errno == ENOTDIR || errno == ENXIO))
		errno = ENOENT;
	if (fd < 0)
		return err_errno(err, "open");
	if (fstat(fd, st) < 0) {
		err_errno(err, "stat");
	} else if (!S_ISREG(st->st_mode)) {
		err_set(err, ERR_NOT_FOUND, "not a regular file");
	} else {
		return fd;
	}
	close(fd);
	return -1;
}

static int read_at(int fd, uint64_t off, size_t len, struct buf *out, struct err *err)
{
	uint8_t *to = buf_reserve(out, len);
	size_t got = 0;

	if (to == NULL)
		return err_set(err, ERR_TOO_LARGE, "%zu bytes do not fit the buffer", len);
	while (got < len) {
		ssize_t n = pread(fd, to + got, len - got, (off_t)(off + got));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_errno(err, "read");
		if (n == 0)
			return err_set(err, ERR_CORRUPT, "range %llu+%zu: the file became shorter",
				       (unsigned long long)off, len);
		got += (size_t)n;
	}
	out->n += len;
	return 0;
}

static int local_read(struct backend *be, const char *key, size_t max, struct buf *out,
		      struct err *err)
{
	struct stat st;
	int fd = open_object(be, key, &st, err), ret = -1;

	if (fd < 0)
		return -1;
	if ((uint64_t)st.st_size > max)
		err_set(err, ERR_TOO_LARGE, "%llu bytes: the limit is %zu",
			(unsigned long long)st.st_size, max);
	else
		ret = st.st_size ? read_at(fd, 0, (size_t)st.st_size, out, err) : 0;
	close(fd);
	return ret;
}

/* What changes with the object: a new one is another file, and has another time. */
static int local_read_changed(struct backend *be, const char *key, size_t max,
			      char etag[BACKEND_ETAG_SIZE], struct buf *out, struct err *err)
{
	struct stat st;
	char now[BACKEND_ETAG_SIZE];
	int fd = open_object(be, key, &st, err);

	if (fd < 0)
		return -1;
	close(fd);
	snprintf(now, sizeof(now), "%llu-%llu-%lld.%09ld", (unsigned long long)st.st_ino,
		 (unsigned long long)st.st_size, (long long)st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
	if (strcmp(now, etag) == 0)
		return 0;
	/* Replaced since then: what is read is newer than the etag, and is read again next time. */
	if (local_read(be, key, max, out, err) < 0)
		return -1;
	memcpy(etag, now, sizeof(now));
	return 1;
}

static int local_read_range(struct backend *be, const char *key, uint64_t off, size_t len,
			    struct buf *out, struct err *err)
{
	struct stat st;
	int fd = open_object(be, key, &st, err), ret = -1;

	if (fd < 0)
		return -1;
	if (off + len > (uint64_t)st.st_size)
		err_set(err, ERR_CORRUPT, "range %llu+%zu: the object has %llu bytes",
			(unsigned long long)off, len, (unsigned long long)st.st_size);
	else
		ret = read_at(fd, off, len, out, err);
	close(fd);
	return ret;
}

static int local_size(struct backend *be, const char *key, uint64_t *size, struct err *err)
{
	struct stat st;
	int fd = open_object(be, key, &st, err);

	if (fd < 0)
		return -1;
	*size = (uint64_t)st.st_size;
	close(fd);
	return 0;
}

/* ---- listing ---- */

struct names {
	char **p;
	size_t n, cap;
};

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static void names_fini(struct names *names)
{
	for (size_t i = 0; i < names->n; i++)
		free(names->p[i]);
	free(names->p);
}

/* The entries of one folder, sorted; none when it is not there. */
static int read_folder(int root, const char *folder, struct names *names, struct err *err)
{
	int fd = openat(root, folder[0] ? folder : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct dirent *e = NULL;
	DIR *d = NULL;

	if (fd < 0)
		return errno == ENOENT || errno == ENOTDIR ? 0 : err_errno(err, "open folder");
	d = fdopendir(fd);
	if (d == NULL) {
		close(fd);
		return err_errno(err, "open folder");
	}
	while ((e = readdir(d)) != NULL) {
		if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
			continue;
		names->p = xgrow(names->p, &names->cap, names->n + 1, sizeof(*names->p));
		names->p[names->n++] = xstrdup(e->d_name);
	}
	closedir(d);
	if (names->n > 0)
		qsort(names->p, names->n, sizeof(*names->p), by_name);
	return 0;
}

struct listing {
	int root;
	enum backend_list_mode mode;
	backend_list_fn *fn;
	void *arg;
};

static int list_folder(const struct listing *l, const char *folder, int depth, struct err *err);

/* Show one entry, or go into it. 1 = stop, 0, -1. Files that vanish meanwhile and odd file types
 * are passed over. */
static int list_entry(const struct listing *l, const char *key, int depth, struct err *err)
{
	struct backend_entry e = { key, false, 0, 0 };
	struct stat st;

	if (is_hidden(key) || fstatat(l->root, key, &st, 0) < 0)
		return 0;
	if (S_ISDIR(st.st_mode)) {
		if (l->mode == BACKEND_RECURSIVE)
			return list_folder(l, key, depth + 1, err);
		e.is_prefix = true;
		return l->fn(l->arg, &e, err);
	}
	if (!S_ISREG(st.st_mode))
		return 0;
	e.size = (uint64_t)st.st_size;
	e.mtime_ns = (uint64_t)st.st_mtim.tv_sec * NS_PER_S + (uint64_t)st.st_mtim.tv_nsec;
	return l->fn(l->arg, &e, err);
}

static int list_folder(const struct listing *l, const char *folder, int depth, struct err *err)
{
	struct names names = { NULL, 0, 0 };
	char key[BACKEND_KEY_MAX + 1];
	int ret = 0;

	if (depth > DEPTH_MAX)
		return err_set(err, ERR_INVALID, "%s: folders nested deeper than %d", folder,
			       DEPTH_MAX);
	if (read_folder(l->root, folder, &names, err) < 0)
		return -1;
	for (size_t i = 0; i < names.n && ret == 0; i++) {
		int n = snprintf(key, sizeof(key), "%s%s%s", folder, folder[0] ? "/" : "",
				 names.p[i]);

		/* A name that is no legal key was not put here by us. */
		if (n > 0 && (size_t)n < sizeof(key) && backend_key_check(key, NULL) == 0)
			ret = list_entry(l, key, depth, err);
	}
	names_fini(&names);
	return ret;
}

static int local_list(struct backend *be, const char *folder, enum backend_list_mode mode,
		      backend_list_fn *fn, void *arg, struct err *err)
{
	const struct listing l = { local_of(be)->root, mode, fn, arg };
	int ret = is_hidden(folder) ? 0 : list_folder(&l, folder, 0, err);

	return ret < 0 ? -1 : 0;
}

/* Show <folder>/<sub>/<name> if it is there. 1 = stop, 0, -1. */
static int list_member(const struct listing *l, const char *folder, const char *sub,
		       const char *name, struct err *err)
{
	struct backend_entry e = { NULL, false, 0, 0 };
	char key[BACKEND_KEY_MAX + 1];
	struct stat st;

	if (snprintf(key, sizeof(key), "%s/%s/%s", folder, sub, name) > BACKEND_KEY_MAX ||
	    backend_key_check(key, NULL) < 0)
		return 0;
	e.key = key;
	/* What is there and cannot be looked at is for the reader to find out. */
	if (fstatat(l->root, key, &st, 0) < 0)
		return errno == ENOENT || errno == ENOTDIR ? 0 : l->fn(l->arg, &e, err);
	if (!S_ISREG(st.st_mode))
		return 0;
	e.size = (uint64_t)st.st_size;
	e.mtime_ns = (uint64_t)st.st_mtim.tv_sec * NS_PER_S + (uint64_t)st.st_mtim.tv_nsec;
	return l->fn(l->arg, &e, err);
}

static int local_list_members(struct backend *be, const char *folder, const char *name,
			      backend_list_fn *fn, void *arg, struct err *err)
{
	const struct listing l = { local_of(be)->root, BACKEND_ONE_LEVEL, fn, arg };
	struct names names = { NULL, 0, 0 };
	int ret = 0;

	if (is_hidden(folder))
		return 0;
	if (read_folder(l.root, folder, &names, err) < 0)
		ret = -1;
	for (size_t i = 0; i < names.n && ret == 0; i++)
		ret = list_member(&l, folder, names.p[i], name, err);
	names_fini(&names);
	return ret < 0 ? -1 : 0;
}

/* ---- delete, rename ---- */

static int local_remove(struct backend *be, const char *key, struct err *err)
{
	int root = local_of(be)->root;

	if (refuse_hidden(key, err) < 0)
		return -1;
	if (unlinkat(root, key, 0) < 0)
		return errno == ENOENT || errno == ENOTDIR ? 0 : err_errno(err, "unlink");
	/* Without this a crash could bring back the meta.json of a block whose data stays gone. */
	if (sync_parents(root, key, err) < 0)
		return -1;
	drop_empty_parents(root, key);
	return 0;
}

/* For file systems without RENAME_NOREPLACE. A crash in between leaves both names, which the next
 * try finds. */
static int link_and_unlink(int root, const char *from, const char *to)
{
	if (linkat(root, from, root, to, 0) < 0)
		return -1;
	return unlinkat(root, from, 0);
}

static int local_rename(struct backend *be, const char *from, const char *to, struct err *err)
{
	int root = local_of(be)->root, ret = 0;

	if (refuse_hidden(from, err) < 0 || refuse_hidden(to, err) < 0 ||
	    make_parents(root, to, err) < 0)
		return -1;
	/* Before the rename: whoever finds the new name must find its time too. */
	if (utimensat(root, from, NULL, 0) < 0)
		return err_errno(err, "set time");
	ret = renameat2(root, from, root, to, RENAME_NOREPLACE);
	if (ret < 0 && (errno == EINVAL || errno == ENOSYS))
		ret = link_and_unlink(root, from, to);
	if (ret < 0)
		return err_errno(err, "to %s", to);
	if (sync_parents(root, to, err) < 0 || sync_parents(root, from, err) < 0)
		return -1;
	return 0;
}

/* ---- open, free ---- */

static void sweep(int root, uint64_t grace_s)
{
	struct names names = { NULL, 0, 0 };
	uint64_t now_s = clock_wall_ns() / NS_PER_S;
	struct err err = ERR_INIT;
	struct stat st;

	if (read_folder(root, TMP_DIR, &names, &err) < 0)
		log_warn("cannot sweep unfinished files", "error", err.msg);
	for (size_t i = 0; i < names.n; i++) {
		char key[BACKEND_KEY_MAX + 1];

		snprintf(key, sizeof(key), TMP_DIR "/%s", names.p[i]);
		if (fstatat(root, key, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode) &&
		    (uint64_t)st.st_mtim.tv_sec + grace_s < now_s && unlinkat(root, key, 0) == 0)
			log_info("removed an unfinished file", "file", key);
	}
	names_fini(&names);
}

static void local_free(struct backend *be)
{
	struct local *l = local_of(be);

	close(l->root);
	free(l);
}

static const struct backend_ops local_ops = {
	.put = local_put,
	.writer_open = local_writer_open,
	.writer_append = local_writer_append,
	.writer_finish = local_writer_finish,
	.writer_abort = local_writer_abort,
	.read = local_read,
	.read_changed = local_read_changed,
	.read_range = local_read_range,
	.size = local_size,
	.list = local_list,
	.list_members = local_list_members,
	.remove = local_remove,
	.rename = local_rename,
	.free = local_free,
};

/* mkdir -p of the root, each new folder's name made durable in its parent. */
static int make_root(const char *path, struct err *err)
{
	char *p = xstrdup(path);
	int ret = 0;

	for (char *end = p + 1; ret == 0 && end <= p + strlen(path); end++) {
		char was = *end, *slash = NULL;

		if (was != '/' && was != '\0')
			continue;
		*end = '\0';
		if (mkdir(p, 0777) == 0) {
			slash = strrchr(p, '/');
			if (slash != NULL)
				*slash = '\0';
			ret = sync_folder(AT_FDCWD, slash == NULL ? "." : p[0] ? p : "/", err);
			if (slash != NULL)
				*slash = '/';
		} else if (errno != EEXIST) {
			ret = err_errno(err, "make folder %s", p);
		}
		*end = was;
	}
	free(p);
	return ret;
}

struct backend *backend_local_open(const struct backend_local_options *o, struct err *err)
{
	struct local *l = NULL;
	int root = -1;

	if (o->path == NULL || o->path[0] == '\0') {
		err_set(err, ERR_INVALID, "local backend: path is empty");
		return NULL;
	}
	if (make_root(o->path, err) < 0) {
		err_wrap(err, "local backend %s", o->path);
		return NULL;
	}
	root = open(o->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (root < 0) {
		err_errno(err, "local backend %s", o->path);
		return NULL;
	}
	if (!o->keep_unfinished)
		sweep(root, o->grace_s ? o->grace_s : GRACE_S);
	l = xcalloc(1, sizeof(*l));
	l->be.ops = &local_ops;
	l->root = root;
	return &l->be;
}
