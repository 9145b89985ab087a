/* SPDX-License-Identifier: Apache-2.0
 *
 * tail.c - see tail.h.
 */
#include "receivers/otlp_json_file/tail.h"

#include "base/hash.h"
#include "base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

enum { READ_BYTES = 256 << 10 };

static ssize_t read_at(int fd, void *to, size_t n, uint64_t at)
{
	ssize_t got;

	do
		got = pread(fd, to, n, (off_t)at);
	while (got < 0 && errno == EINTR);
	return got;
}

struct tail_print tail_read_print(int fd, uint32_t n)
{
	uint8_t first[TAIL_PRINT_MAX];
	ssize_t got = read_at(fd, first, MIN(n, sizeof(first)), 0);

	return (struct tail_print){ got > 0 ? (uint32_t)got : 0,
				    hash_xxh3(first, got > 0 ? (size_t)got : 0) };
}

bool tail_matches(int fd, const struct tail_print *print)
{
	struct tail_print now = tail_read_print(fd, print->n);

	return print->n > 0 && now.n == print->n && now.hash == print->hash;
}

struct tail *tail_open(const char *path, struct err *err)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	struct stat st;
	struct tail *t;

	if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
		if (fd < 0)
			err_errno(err, "open %s", path);
		else
			err_set(err, ERR_IO, "%s is no regular file", path);
		if (fd >= 0)
			close(fd);
		return NULL;
	}
	t = xcalloc(1, sizeof(*t));
	t->path = xstrdup(path);
	t->fd = fd;
	t->dev = (uint64_t)st.st_dev;
	t->ino = (uint64_t)st.st_ino;
	t->print = tail_read_print(fd, TAIL_PRINT_MAX);
	t->is_listed = true;
	return t;
}

void tail_close(struct tail *t)
{
	close(t->fd);
	buf_fini(&t->buf);
	free(t->path);
	free(t);
}

void tail_seek(struct tail *t, uint64_t position)
{
	uint8_t before = '\n';

	t->position = t->next = position;
	buf_reset(&t->buf);
	t->scanned = t->taken = 0;
	t->skipping = false;
	if (position > 0)
		(void)(read_at(t->fd, &before, 1, position - 1) == 1);
	t->is_joined = before != '\n';
}

void tail_seek_end(struct tail *t)
{
	struct stat st;

	tail_seek(t, fstat(t->fd, &st) == 0 ? (uint64_t)st.st_size : 0);
}

bool tail_was_emptied(struct tail *t)
{
	struct stat st;

	if (fstat(t->fd, &st) == 0 && (uint64_t)st.st_size < t->next + t->buf.n)
		return true;
	/* It may have grown over its old length since. */
	return t->print.n > 0 && !tail_matches(t->fd, &t->print);
}

/* Forget the first n bytes of the buffer. */
static void drop(struct tail *t, size_t n)
{
	memmove(t->buf.p, t->buf.p + n, t->buf.n - n);
	t->buf.n -= n;
	t->next += n;
	t->scanned = 0;
}

static bool read_more(struct tail *t)
{
	uint8_t *to = buf_reserve(&t->buf, READ_BYTES);
	ssize_t got = to ? read_at(t->fd, to, READ_BYTES, t->next + t->buf.n) : -1;

	if (got <= 0)
		return false;
	t->buf.n += (size_t)got;
	return true;
}

enum tail_line tail_next(struct tail *t, size_t max_line, struct bytes *line, uint64_t *start,
			 uint64_t *end)
{
	const uint8_t *at = NULL;
	bool was_long;
	size_t n;

	if (t->taken > 0)
		drop(t, t->taken);
	t->taken = 0;
	for (;;) {
		if (t->buf.n > t->scanned)
			at = memchr(t->buf.p + t->scanned, '\n', t->buf.n - t->scanned);
		if (at != NULL)
			break;
		t->scanned = t->buf.n;
		if (t->buf.n > max_line) {
			t->skipping = true;
			drop(t, t->buf.n);
		}
		if (!read_more(t))
			return TAIL_NONE;
	}
	n = (size_t)(at - t->buf.p);
	was_long = !t->is_joined && (t->skipping || n > max_line);
	t->skipping = false;
	if (t->is_joined) {
		t->is_joined = false;
		t->taken = n + 1;
		return tail_next(t, max_line, line, start, end);
	}
	*line = (struct bytes){ t->buf.p, n > 0 && at[-1] == '\r' ? n - 1 : n };
	*start = t->next;
	*end = t->next + n + 1;
	t->taken = n + 1;
	return was_long ? TAIL_TOO_LONG : TAIL_LINE;
}
