/* SPDX-License-Identifier: Apache-2.0
 *
 * positions.c - see positions.h.
 */
#include "receivers/otlp_json_file/positions.h"

#include "base/file.h"
#include "base/hash.h"
#include "base/mem.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#define HEAD "spanmill positions 1\n"
enum { FILE_MAX = 64 << 20 };

void positions_add(struct positions *p, const struct tail_print *print, uint64_t at,
		   const char *path)
{
	if (p->n == POSITIONS_MAX)
		positions_remove(p, &p->v[0]);
	p->v = xgrow(p->v, &p->cap, p->n + 1, sizeof(*p->v));
	p->v[p->n++] = (struct position){ *print, at, xstrdup(path) };
}

void positions_remove(struct positions *p, struct position *one)
{
	size_t i = (size_t)(one - p->v);

	free(one->path);
	memmove(one, one + 1, (p->n - i - 1) * sizeof(*one));
	p->n--;
}

struct position *positions_find(struct positions *p, int fd, const char *path)
{
	for (size_t i = 0; i < p->n; i++)
		if (strcmp(p->v[i].path, path) == 0 && tail_matches(fd, &p->v[i].print))
			return &p->v[i];
	for (size_t i = 0; i < p->n; i++)
		if (tail_matches(fd, &p->v[i].print))
			return &p->v[i];
	return NULL;
}

void positions_fini(struct positions *p)
{
	for (size_t i = 0; i < p->n; i++)
		free(p->v[i].path);
	free(p->v);
	*p = (struct positions){ .v = NULL };
}

/* One line; false: it is none. Cuts the line's end off. */
static bool read_line(char *line, struct positions *out)
{
	struct tail_print print;
	uint64_t at;
	int n = 0;

	if (sscanf(line, "%" SCNu32 " %" SCNx64 " %" SCNu64 " %n", &print.n, &print.hash, &at, &n) <
		    3 ||
	    n == 0 || line[n] == '\0' || print.n > TAIL_PRINT_MAX)
		return false;
	positions_add(out, &print, at, line + n);
	return true;
}

/* The lines of a text whose head and crc are right. */
static bool read_text(char *text, size_t n, struct positions *out)
{
	size_t head = strlen(HEAD);
	char *crc = NULL, *line, *end;
	unsigned want = 0;

	for (char *at = text; (at = strstr(at, "\ncrc ")) != NULL; at++)
		crc = at + 1;
	if (n < head || memcmp(text, HEAD, head) != 0 || crc == NULL ||
	    sscanf(crc, "crc %08x\n", &want) != 1 ||
	    want != hash_crc32c(0, text, (size_t)(crc - text)))
		return false;
	*crc = '\0';
	for (line = text + head; *line != '\0'; line = end + 1) {
		end = strchr(line, '\n');
		if (end == NULL)
			return false;
		*end = '\0';
		if (!read_line(line, out))
			return false;
	}
	return true;
}

void positions_read(const char *file, struct positions *out)
{
	FILE *f = fopen(file, "re");
	struct stat st;
	char *text;
	size_t n;

	*out = (struct positions){ .v = NULL };
	if (f == NULL)
		return;
	out->is_damaged = true;
	if (fstat(fileno(f), &st) == 0 && st.st_size <= FILE_MAX) {
		text = xmalloc((size_t)st.st_size + 1);
		n = fread(text, 1, (size_t)st.st_size, f);
		text[n] = '\0';
		out->is_damaged = !read_text(text, n, out);
		free(text);
	}
	fclose(f);
	if (out->is_damaged) {
		positions_fini(out);
		out->is_damaged = true;
	}
}

static int write_synced(const char *file, struct bytes text)
{
	int fd = open(file, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0640);
	int rc = fd >= 0 && file_write_all(fd, text) == 0 && fsync(fd) == 0 ? 0 : -1;

	if (fd >= 0)
		close(fd);
	return rc;
}

int positions_write(const char *file, const struct positions *p, struct err *err)
{
	struct buf text = BUF_INIT;
	char *next = xasprintf("%s.new", file);
	int rc = 0;

	buf_add_str(&text, HEAD);
	for (size_t i = 0; i < p->n; i++)
		/* A path with an end of line in it is not worth a format of its own. */
		if (strchr(p->v[i].path, '\n') == NULL)
			buf_printf(&text, "%" PRIu32 " %" PRIx64 " %" PRIu64 " %s\n",
				   p->v[i].print.n, p->v[i].print.hash, p->v[i].at, p->v[i].path);
	buf_printf(&text, "crc %08x\n", hash_crc32c(0, text.p, text.n));
	if (write_synced(next, buf_bytes(&text)) < 0)
		rc = err_errno(err, "write %s", next);
	else if (rename(next, file) < 0 || file_sync_folder(file) < 0)
		rc = err_errno(err, "rename %s", next);
	free(next);
	buf_fini(&text);
	return rc;
}
