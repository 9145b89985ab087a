/* SPDX-License-Identifier: Apache-2.0
 *
 * dir.c - see dir.h.
 *
 * DESIGN: everything goes through one descriptor of the folder (openat), so a log survives a
 * rename of its folder. What is made once (id, cursor) is made whole under another name and
 * renamed. What happens while the disk is full (cursor store, unlink, rename into quarantine)
 * needs no new block: the quarantine folder is made together with the log.
 * SPEC: docs/formats/segment-log.md.
 */
#include "pipeline/segment/dir.h"

#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/rng.h"
#include "base/str.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SLOT_SIZE = 40, SLOT_STEP = 512, ID_TEXT = 36, FILE_MODE = 0640, DIR_MODE = 0750 };

static const char suffix[] = ".segment";
static const uint8_t slot_magic[8] = "SPMLCUR1";

/* ---- names ---- */

void segment_dir_name(uint64_t number, char out[SEGMENT_NAME_SIZE])
{
	snprintf(out, SEGMENT_NAME_SIZE, "%020llu%s", (unsigned long long)number, suffix);
}

static bool name_parse(const char *name, uint64_t *number)
{
	struct bytes digits = { (const uint8_t *)name, 20 };

	return strlen(name) == 20 + sizeof(suffix) - 1 && strcmp(name + 20, suffix) == 0 &&
	       str_to_u64(digits, number) == 0 && *number > 0 && *number < UINT64_MAX / 2;
}

static int number_cmp(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

/* The segment numbers in a folder named relative to d, ascending. */
static int list_folder(const struct segment_dir *d, const char *name, struct segment_numbers *out)
{
	int fd = openat(d->fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	const struct dirent *e;
	uint64_t number;

	if (dir == NULL) {
		if (fd >= 0)
			close(fd);
		return -1;
	}
	while ((e = readdir(dir)) != NULL) {
		if (!name_parse(e->d_name, &number))
			continue;
		out->v = xgrow(out->v, &out->cap, out->n + 1, sizeof(*out->v));
		out->v[out->n++] = number;
	}
	closedir(dir);
	if (out->n > 0)
		qsort(out->v, out->n, sizeof(*out->v), number_cmp);
	return 0;
}

int segment_dir_list(struct segment_dir *d, struct segment_numbers *out, struct err *err)
{
	struct segment_numbers bad = { 0 };

	memset(out, 0, sizeof(*out));
	if (list_folder(d, ".", out) < 0)
		return err_errno(err, "segment log %s: list", d->path);
	if (list_folder(d, "quarantine", &bad) == 0 && bad.n > 0)
		out->highest = bad.v[bad.n - 1];
	if (out->n > 0)
		out->highest = MAX(out->highest, out->v[out->n - 1]);
	free(bad.v);
	return 0;
}

int segment_dir_open_segment(const struct segment_dir *d, uint64_t number, int flags)
{
	char name[SEGMENT_NAME_SIZE];

	segment_dir_name(number, name);
	return openat(d->fd, name, flags | O_CLOEXEC, FILE_MODE);
}

static void prune_quarantine(const struct segment_dir *d)
{
	struct segment_numbers bad = { 0 };
	char path[SEGMENT_NAME_SIZE + 16];
	char name[SEGMENT_NAME_SIZE];

	if (list_folder(d, "quarantine", &bad) == 0)
		for (size_t i = 0; i + SEGMENT_QUARANTINE_MAX < bad.n; i++) {
			segment_dir_name(bad.v[i], name);
			snprintf(path, sizeof(path), "quarantine/%s", name);
			unlinkat(d->fd, path, 0);
		}
	free(bad.v);
}

int segment_dir_remove(const struct segment_dir *d, uint64_t number, bool is_damaged)
{
	char path[SEGMENT_NAME_SIZE + 16];
	char name[SEGMENT_NAME_SIZE];

	segment_dir_name(number, name);
	snprintf(path, sizeof(path), "quarantine/%s", name);
	if (!is_damaged || renameat(d->fd, name, d->fd, path) < 0)
		return unlinkat(d->fd, name, 0);
	prune_quarantine(d);
	return 0;
}

/* ---- lock ---- */

static int lock_refused(struct segment_dir *d, struct err *err)
{
	char pid[24] = "";
	ssize_t n = pread(d->lock_fd, pid, sizeof(pid) - 1, 0);

	if (n > 0)
		pid[strcspn(pid, "\n")] = '\0';
	return err_set(err, ERR_EXISTS,
		       "segment log %s: in use by process %s: stop it, or give each a folder of "
		       "its own",
		       d->path, n > 0 ? pid : "unknown");
}

static int take_lock(struct segment_dir *d, bool create, struct err *err)
{
	char pid[24];
	int n = snprintf(pid, sizeof(pid), "%ld\n", (long)getpid());

	d->lock_fd = openat(d->fd, "lock", O_RDWR | O_CLOEXEC | (create ? O_CREAT : 0), FILE_MODE);
	if (d->lock_fd < 0 && !create)
		return 0;	/* a log copied without its lock file can still be checked */
	if (d->lock_fd < 0)
		return err_errno(err, "segment log %s: open lock", d->path);
	if (flock(d->lock_fd, LOCK_EX | LOCK_NB) < 0) {
		if (errno == EWOULDBLOCK)
			return lock_refused(d, err);
		return err_errno(err, "segment log %s: lock", d->path);
	}
	/* The pid is for people; on a full disk it may stay the old one. */
	if (create && (ftruncate(d->lock_fd, 0) < 0 || pwrite(d->lock_fd, pid, (size_t)n, 0) < 0))
		log_debug("segment log pid not stored", "dir", d->path);
	return 0;
}

/* ---- id ---- */

static void id_from_text(struct segment_dir *d)
{
	char hex[33];
	size_t n = 0;

	for (size_t i = 0; i < ID_TEXT && n < 32; i++)
		if (d->id_text[i] != '-')
			hex[n++] = d->id_text[i];
	d->has_id = n == 32 &&
		    str_unhex((struct bytes){ (const uint8_t *)hex, n }, d->id, sizeof(d->id)) == 0;
}

static void id_to_text(struct segment_dir *d)
{
	char hex[33];

	str_hex(d->id, sizeof(d->id), hex);
	snprintf(d->id_text, sizeof(d->id_text), "%.8s-%.4s-%.4s-%.4s-%.12s", hex, hex + 8,
		 hex + 12, hex + 16, hex + 20);
}

static void read_id(struct segment_dir *d)
{
	char text[ID_TEXT + 2] = "";
	int fd = openat(d->fd, "id", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text));

	if (fd >= 0)
		close(fd);
	if (n < ID_TEXT)
		return;
	memcpy(d->id_text, text, ID_TEXT);
	id_from_text(d);
	if (d->has_id)
		id_to_text(d);
}

/* Make a small file whole: write aside, fsync, rename, fsync the folder. */
static int put_file(struct segment_dir *d, const char *name, const void *p, size_t n,
		    struct err *err)
{
	char aside[32];
	int fd;

	snprintf(aside, sizeof(aside), "%s.new", name);
	fd = openat(d->fd, aside, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, FILE_MODE);
	if (fd < 0)
		return err_errno(err, "segment log %s: create %s", d->path, name);
	if (write(fd, p, n) != (ssize_t)n || fsync(fd) < 0) {
		err_errno(err, "segment log %s: write %s", d->path, name);
		close(fd);
		unlinkat(d->fd, aside, 0);
		return -1;
	}
	close(fd);
	if (renameat(d->fd, aside, d->fd, name) < 0 || fsync(d->fd) < 0)
		return err_errno(err, "segment log %s: rename %s", d->path, name);
	return 0;
}

static void read_cursor(struct segment_dir *d);

void segment_dir_take_id(struct segment_dir *d, const uint8_t *id)
{
	memcpy(d->id, id, sizeof(d->id));
	id_to_text(d);
	d->has_id = true;
	read_cursor(d);
}

int segment_dir_store_id(struct segment_dir *d, const uint8_t *id, struct err *err)
{
	char line[ID_TEXT + 2];

	if (id == NULL) {
		rng_uuid(d->id_text);
		id_from_text(d);
	} else {
		segment_dir_take_id(d, id);
	}
	snprintf(line, sizeof(line), "%s\n", d->id_text);
	return put_file(d, "id", line, ID_TEXT + 1, err);
}

/* ---- cursor ---- */

static uint32_t slot_crc(const struct segment_dir *d, const uint8_t *slot)
{
	return hash_crc32c(hash_crc32c(0, d->id, sizeof(d->id)), slot, SLOT_SIZE - 4);
}

static void read_cursor(struct segment_dir *d)
{
	uint8_t slot[SLOT_SIZE];
	unsigned good = 0, used = 0;

	if (d->cursor_fd < 0)
		d->cursor_fd = openat(d->fd, "cursor", O_RDWR | O_CLOEXEC);
	if (d->cursor_fd < 0 && d->is_looked_at) /* it may lie on a read-only disk */
		d->cursor_fd = openat(d->fd, "cursor", O_RDONLY | O_CLOEXEC);
	for (unsigned i = 0; i < 2 && d->cursor_fd >= 0; i++) {
		if (pread(d->cursor_fd, slot, sizeof(slot), i * SLOT_STEP) != SLOT_SIZE)
			continue;
		used += load_le64(slot) != 0;
		if (memcmp(slot, slot_magic, 8) != 0 || load_le32(slot + 36) != slot_crc(d, slot))
			continue;
		good++;
		if (load_le64(slot + 8) < d->generation)
			continue;
		d->generation = load_le64(slot + 8);
		d->low_water = d->stored = load_le64(slot + 16);
	}
	d->cursor_damaged = good < used;
}

int segment_dir_make_cursor(struct segment_dir *d, struct err *err)
{
	static const uint8_t zeros[2 * SLOT_STEP];
	struct stat st;

	if (d->cursor_fd >= 0 && fstat(d->cursor_fd, &st) == 0 && st.st_size >= 2 * SLOT_STEP)
		return 0;
	if (d->cursor_fd >= 0)
		close(d->cursor_fd);
	d->cursor_fd = -1;
	if (put_file(d, "cursor", zeros, sizeof(zeros), err) < 0)
		return -1;
	d->cursor_fd = openat(d->fd, "cursor", O_RDWR | O_CLOEXEC);
	if (d->cursor_fd < 0)
		return err_errno(err, "segment log %s: open cursor", d->path);
	if (d->low_water > 0)
		segment_dir_store_cursor(d, d->low_water);
	return 0;
}

void segment_dir_store_cursor(struct segment_dir *d, uint64_t low_water)
{
	uint8_t slot[SLOT_SIZE] = { 0 };

	d->generation++;
	memcpy(slot, slot_magic, 8);
	store_le64(slot + 8, d->generation);
	store_le64(slot + 16, low_water);
	store_le32(slot + 36, slot_crc(d, slot));
	if (pwrite(d->cursor_fd, slot, sizeof(slot), d->generation % 2 * SLOT_STEP) == SLOT_SIZE)
		d->stored = low_water;
	else
		log_warn("segment log cursor not stored", "dir", d->path, "error", strerror(errno));
}

int segment_dir_sync_cursor(struct segment_dir *d, uint64_t low_water)
{
	if (d->stored < low_water)
		segment_dir_store_cursor(d, low_water);
	return d->stored < low_water ? -1 : fdatasync(d->cursor_fd);
}

/* ---- all together ---- */

int segment_dir_open(struct segment_dir *d, const char *path, bool create, struct err *err)
{
	memset(d, 0, sizeof(*d));
	d->fd = d->lock_fd = d->cursor_fd = -1;
	d->path = xstrdup(path);
	d->is_looked_at = !create;
	if (create && mkdir(path, DIR_MODE) < 0 && errno != EEXIST)
		return err_errno(err, "segment log %s: create", path);
	d->fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (d->fd < 0)
		return err_errno(err, "segment log %s: open", path);
	if (take_lock(d, create, err) < 0)
		return -1;
	if (create && mkdirat(d->fd, "quarantine", DIR_MODE) < 0 && errno != EEXIST)
		return err_errno(err, "segment log %s: create quarantine", path);
	read_id(d);
	if (d->has_id)
		read_cursor(d);
	return 0;
}

/* Another descriptor of the same number: who uses it meanwhile sees the one or the other. */
static void replace_fd(int *fd, int with)
{
	if (*fd < 0)
		*fd = fcntl(with, F_DUPFD_CLOEXEC, 0);
	else
		dup3(with, *fd, O_CLOEXEC);
}

static int make_anew(struct segment_dir *d, struct segment_dir *made, struct err *err)
{
	char *parent = xstrdup(d->path), *slash = strrchr(parent, '/');

	if (slash != NULL && slash != parent) {
		*slash = '\0';
		if (mkdir(parent, DIR_MODE) < 0 && errno != EEXIST)
			log_debug("folder not made", "dir", parent, "error", strerror(errno));
	}
	free(parent);
	if (segment_dir_open(made, d->path, true, err) < 0)
		return -1;
	if (made->has_id)
		return err_set(err, ERR_EXISTS, "segment log %s: another log lies there now",
			       d->path);
	made->generation = d->generation;
	made->low_water = d->stored;
	return segment_dir_store_id(made, d->id, err) < 0 ||
			       segment_dir_make_cursor(made, err) < 0
		       ? -1
		       : 0;
}

int segment_dir_revive(struct segment_dir *d, struct err *err)
{
	struct segment_dir made;
	struct stat st;
	int ret;

	if (fstat(d->fd, &st) < 0 || st.st_nlink > 0)
		return 0;
	ret = make_anew(d, &made, err);
	if (ret == 0) {
		log_warn("segment log made again: its folder was removed", "dir", d->path);
		replace_fd(&d->fd, made.fd);
		replace_fd(&d->lock_fd, made.lock_fd);
		replace_fd(&d->cursor_fd, made.cursor_fd);
		d->generation = made.generation;
		d->stored = made.stored;
	}
	segment_dir_close(&made);
	return ret;
}

bool segment_dir_answers(const struct segment_dir *d)
{
	_Alignas(4096) static _Thread_local uint8_t page[4096];
	int fd = openat(d->fd, "id", O_RDONLY | O_DIRECT | O_CLOEXEC);
	ssize_t n;

	if (fd < 0 && errno == EINVAL)
		fd = openat(d->fd, "id", O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT;
	n = pread(fd, page, sizeof(page), 0);
	close(fd);
	return n >= 0;
}

void segment_dir_close(struct segment_dir *d)
{
	if (d == NULL || d->path == NULL)
		return;
	if (d->cursor_fd >= 0)
		close(d->cursor_fd);
	if (d->fd >= 0)
		close(d->fd);
	if (d->lock_fd >= 0)
		close(d->lock_fd);	/* last: this gives the lock up */
	free(d->path);
	d->path = NULL;
}
