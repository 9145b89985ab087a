/* SPDX-License-Identifier: Apache-2.0
 *
 * dead_letter_file.c - see dead_letter_file.h.
 */
#include "pipeline/send/dead_letter_file.h"

#include "base/buf.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/str.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

/* How every line of ours begins. */
#define LINE_START "{\"time\":\""

/* ---- the line ---- */

/* A reason may quote what came, which may be anything. */
static void add_text(struct buf *out, struct bytes text)
{
	bool is_utf8 = str_is_utf8(text);

	for (size_t i = 0; i < text.n; i++) {
		uint8_t c = text.p[i];
		bool is_bad = c < ' ' || c == '"' || c == '\\' || (c >= 0x80 && !is_utf8);

		buf_add_char(out, is_bad ? '?' : (char)c);
	}
}

static void add_base64(struct buf *out, struct bytes b)
{
	out->n += str_base64(b.p, b.n, (char *)buf_reserve(out, 4 * ((b.n + 2) / 3) + 1));
}

static void add_member(struct buf *out, const struct dead_letter_member *m)
{
	buf_printf(out, ",\"%s\":", m->name);
	if (m->kind == LETTER_NUMBER) {
		buf_printf(out, "%llu", (unsigned long long)m->number);
		return;
	}
	if (m->kind == LETTER_NULL) {
		buf_add_str(out, "null");
		return;
	}
	buf_add_char(out, '"');
	if (m->kind == LETTER_TEXT)
		add_text(out, m->bytes);
	else
		add_base64(out, m->bytes);
	buf_add_char(out, '"');
}

static void add_line(struct buf *out, const struct dead_letter_member *v, size_t n)
{
	char time[CLOCK_RFC3339_SIZE];

	clock_format_rfc3339(clock_wall_ns(), time);
	buf_printf(out, LINE_START "%s\"", time);
	for (size_t i = 0; i < n; i++)
		add_member(out, &v[i]);
	buf_add_str(out, "}\n");
}

/* ---- the file ---- */

/* Where the last line begins of a file of so many bytes; that is its end when it is whole. */
static off_t last_line(int fd, off_t size)
{
	char block[4096];

	while (size > 0) {
		size_t want = MIN((size_t)size, sizeof(block));
		ssize_t got = pread(fd, block, want, size - (off_t)want);

		if (got != (ssize_t)want)
			return size;
		for (; want > 0; want--, size--)
			if (block[want - 1] == '\n')
				return size;
	}
	return 0;
}

/* A process died while it wrote: its letter was not acknowledged, so the piece may go. What does
 * not look like ours gets its end of line. */
static int mend(int fd, off_t *size)
{
	char start[sizeof(LINE_START) - 1];
	off_t at = last_line(fd, *size);
	ssize_t got;

	if (at == *size)
		return 0;
	got = pread(fd, start, sizeof(start), at);
	if (got < 0 || memcmp(start, LINE_START, (size_t)got) != 0) {
		++*size;
		return file_write_all(fd, bytes_str("\n"));
	}
	*size = at;
	return ftruncate(fd, at);
}

static int append(int fd, const char *path, struct bytes line, struct err *err)
{
	struct stat st = { .st_size = 0 };

	if (flock(fd, LOCK_EX) < 0 || fstat(fd, &st) < 0 || mend(fd, &st.st_size) < 0)
		return err_errno(err, "open %s", path);
	if (file_write_all(fd, line) == 0 && fdatasync(fd) == 0 &&
	    (st.st_size > 0 || file_sync_folder(path) == 0))
		return 0;
	err_errno(err, "write %s", path);
	if (ftruncate(fd, st.st_size) < 0)
		log_warn("half a dead letter stays in the file", "file", path);
	return -1;
}

int dead_letter_file_put(const char *path, const struct dead_letter_member *v, size_t n,
			 struct err *err)
{
	int fd = open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0640), ret;
	struct buf line = BUF_INIT;

	if (fd < 0)
		return err_errno(err, "open %s", path);
	add_line(&line, v, n);
	ret = append(fd, path, buf_bytes(&line), err);
	close(fd);
	buf_fini(&line);
	return ret;
}
