/* SPDX-License-Identifier: Apache-2.0
 *
 * watched_file.c - see watched_file.h.
 *
 * A stat rather than inotify: no descriptor, and the same on every file system. What a writer
 * changed within the clock's grain of a reading is found by its size, and by the next change.
 */
#include "base/watched_file.h"

#include "base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

enum { LOOK_NS = 1000000000 };

bool watched_file_changed(struct watched_file *w)
{
	uint64_t now = clock_mono_ns();
	struct stat st;

	if (w->path == NULL || w->path[0] == '\0' ||
	    (w->looked_ns != 0 && now - w->looked_ns < LOOK_NS))
		return false;
	w->looked_ns = now;
	if (stat(w->path, &st) < 0)
		return w->seen.st_ino != 0; /* gone: reading says so */
	return st.st_ino != w->seen.st_ino || st.st_dev != w->seen.st_dev ||
	       st.st_size != w->seen.st_size || st.st_mtim.tv_sec != w->seen.st_mtim.tv_sec ||
	       st.st_mtim.tv_nsec != w->seen.st_mtim.tv_nsec;
}

int watched_file_read(struct watched_file *w, size_t max, struct buf *out, struct err *err)
{
	int fd = open(w->path, O_RDONLY | O_CLOEXEC), ret = -1;
	size_t n = 0;
	ssize_t rc = 1;

	w->looked_ns = clock_mono_ns();
	memset(&w->seen, 0, sizeof(w->seen));
	if (fd < 0 || fstat(fd, &w->seen) < 0)
		goto fail;
	while (n <= max && rc > 0) {
		rc = read(fd, buf_reserve(out, 4096), 4096);
		if (rc < 0)
			goto fail;
		out->n += (size_t)rc;
		n += (size_t)rc;
	}
	if (n > max)
		err_set(err, ERR_TOO_LARGE, "%s: more than %zu bytes", w->path, max);
	else
		ret = 0;
	close(fd);
	return ret;
fail:
	err_errno(err, "%s", w->path);
	if (fd >= 0)
		close(fd);
	return -1;
}
