/* SPDX-License-Identifier: Apache-2.0
 *
 * rotating_file.c - see rotating_file.h.
 */
#include "exporters/file/rotating_file.h"

#include "base/buf.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define DAY_S 86400

/* ---- what a killed process left ---- */

/* Where the last whole line ends. */
static uint64_t end_of_lines(int fd, uint64_t size)
{
	char block[65536];

	while (size > 0) {
		size_t want = MIN((size_t)size, sizeof(block));

		if (pread(fd, block, want, (off_t)(size - want)) != (ssize_t)want)
			return size;
		for (; want > 0; want--, size--)
			if (block[want - 1] == '\n')
				return size;
	}
	return 0;
}

/* Where the last whole record of 4 bytes of length and as many bytes ends. */
static uint64_t end_of_records(int fd, uint64_t size)
{
	uint64_t at = 0;
	uint8_t head[4];

	while (size - at >= sizeof(head) &&
	       pread(fd, head, sizeof(head), (off_t)at) == (ssize_t)sizeof(head) &&
	       load_be32(head) <= size - at - sizeof(head))
		at += sizeof(head) + load_be32(head);
	return at;
}

static int open_file(struct rotating_file *f, struct err *err)
{
	struct stat st;

	f->fd = open(f->path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0640);
	if (f->fd < 0 || fstat(f->fd, &st) < 0)
		return err_errno(err, "open %s", f->path);
	/* Who cuts off what was refused must know that it is his own. */
	if (flock(f->fd, LOCK_EX | LOCK_NB) < 0)
		return err_set(err, ERR_CONFIG,
			       "%s is written by another process: give each a file of its own",
			       f->path);
	f->n_bytes = f->n_synced = (uint64_t)st.st_size;
	f->is_new = st.st_size == 0;
	return 0;
}

int rotating_file_open(struct rotating_file *f, const char *path, const struct rotation *rotation,
		       bool is_lines, struct err *err)
{
	uint64_t end;

	*f = (struct rotating_file){ .path = path, .rotation = *rotation, .fd = -1 };
	if (open_file(f, err) < 0)
		return -1;
	end = is_lines ? end_of_lines(f->fd, f->n_bytes) : end_of_records(f->fd, f->n_bytes);
	if (end == f->n_bytes)
		return 0;
	if (ftruncate(f->fd, (off_t)end) < 0)
		return err_errno(err, "cut half a record off %s", path);
	log_warn("half a record of a killed process was cut off", "file", path);
	f->n_bytes = f->n_synced = end;
	return 0;
}

void rotating_file_close(struct rotating_file *f)
{
	if (f->path != NULL && f->fd >= 0)
		close(f->fd);
	f->path = NULL;
}

/* ---- rotation ---- */

/* Folder, name and extension of the path: "/a/b.json" -> "/a", "b", ".json". */
static void split_path(const char *path, char **dir, char **stem, const char **ext)
{
	const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
	const char *dot = strrchr(name, '.');

	*ext = dot != NULL && dot != name ? dot : "";
	*stem = xstrndup(name, strlen(name) - strlen(*ext));
	*dir = slash == NULL ? xstrdup(".")
			     : xstrndup(path, slash == path ? 1 : (size_t)(slash - path));
}

/* "<dir>/<stem>-2026-11-26T20-48-09.123<ext>"; free it. */
static char *backup_name(const struct rotating_file *f)
{
	uint64_t now = clock_wall_ns();
	time_t s = (time_t)(now / NS_PER_S);
	char *dir, *stem, *ret, when[32];
	const char *ext;
	struct tm tm;

	if (f->rotation.local_time)
		localtime_r(&s, &tm);
	else
		gmtime_r(&s, &tm);
	strftime(when, sizeof(when), "%Y-%m-%dT%H-%M-%S", &tm);
	split_path(f->path, &dir, &stem, &ext);
	ret = xasprintf("%s/%s-%s.%03u%s", dir, stem, when, (unsigned)(now % NS_PER_S / NS_PER_MS),
			ext);
	free(dir);
	free(stem);
	return ret;
}

static bool is_backup(const char *name, const char *stem, const char *ext)
{
	size_t n_stem = strlen(stem), n_ext = strlen(ext), n = strlen(name);

	return n == n_stem + strlen("-2026-11-26T20-48-09.123") + n_ext &&
	       strncmp(name, stem, n_stem) == 0 && name[n_stem] == '-' &&
	       strcmp(name + n - n_ext, ext) == 0 && name[n_stem + 11] == 'T';
}

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Names of the backups, oldest first, at most 10,000; free each and the list. */
static char **list_backups(const char *dir, const char *stem, const char *ext, size_t *n)
{
	char **list = NULL;
	size_t cap = 0;
	DIR *d = opendir(dir);
	struct dirent *e;

	*n = 0;
	while (d != NULL && *n < 10000 && (e = readdir(d)) != NULL)
		if (is_backup(e->d_name, stem, ext)) {
			list = xgrow(list, &cap, *n + 1, sizeof(*list));
			list[(*n)++] = xasprintf("%s/%s", dir, e->d_name);
		}
	if (d != NULL)
		closedir(d);
	if (*n > 0)
		qsort(list, *n, sizeof(*list), by_name);
	return list;
}

static bool is_too_old(const char *path, uint64_t max_days)
{
	struct stat st;

	return max_days > 0 && stat(path, &st) == 0 &&
	       (uint64_t)st.st_mtime + max_days * DAY_S < clock_wall_ns() / NS_PER_S;
}

static void delete_old(const struct rotating_file *f)
{
	char *dir, *stem, **list;
	const char *ext;
	size_t n;

	split_path(f->path, &dir, &stem, &ext);
	list = list_backups(dir, stem, ext, &n);
	for (size_t i = 0; i < n; i++) {
		bool is_over = f->rotation.max_backups > 0 && n - i > f->rotation.max_backups;

		if ((is_over || is_too_old(list[i], f->rotation.max_days)) && unlink(list[i]) < 0)
			log_warn("cannot delete an old file", "file", list[i], "error",
				 strerror(errno));
		free(list[i]);
	}
	free(list);
	free(dir);
	free(stem);
}

/* What was added so far is synced first: the file is not ours to cut any more. */
static int rotate(struct rotating_file *f, struct err *err)
{
	char *name;

	if (rotating_file_sync(f, err) < 0)
		return -1;
	name = backup_name(f);
	if (rename(f->path, name) < 0) {
		err_errno(err, "rename %s to %s", f->path, name);
		free(name);
		return -1;
	}
	free(name);
	close(f->fd);
	f->fd = -1;
	delete_old(f);
	return open_file(f, err);
}

/* ---- records ---- */

int rotating_file_add(struct rotating_file *f, struct bytes record, struct err *err)
{
	bool is_full = f->rotation.max_bytes > 0 && f->n_bytes > 0 &&
		       f->n_bytes + record.n > f->rotation.max_bytes;

	if (f->fd < 0 && open_file(f, err) < 0)
		return -1;
	if (is_full && rotate(f, err) < 0)
		return -1;
	if (file_write_all(f->fd, record) == 0) {
		f->n_bytes += record.n;
		return 0;
	}
	err_errno(err, "write %s", f->path);
	if (ftruncate(f->fd, (off_t)f->n_bytes) < 0)
		log_error("half a record stays in the file", "file", f->path, "error",
			  strerror(errno));
	return -1;
}

int rotating_file_sync(struct rotating_file *f, struct err *err)
{
	if (f->n_bytes == f->n_synced && !f->is_new)
		return 0;
	if (fdatasync(f->fd) == 0 && (!f->is_new || file_sync_folder(f->path) == 0)) {
		f->n_synced = f->n_bytes;
		f->is_new = false;
		return 0;
	}
	return err_errno(err, "sync %s", f->path);
}

void rotating_file_cut(struct rotating_file *f)
{
	if (f->fd < 0)
		return;
	if (ftruncate(f->fd, (off_t)f->n_synced) == 0)
		f->n_bytes = f->n_synced;
	else
		log_error("records that nobody was told of stay in the file", "file", f->path,
			  "error", strerror(errno));
}
