/* SPDX-License-Identifier: Apache-2.0
 *
 * file.c - see file.h.
 */
#include "base/file.h"

#include "base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <unistd.h>

int file_write_all(int fd, struct bytes b)
{
	while (b.n > 0) {
		ssize_t done = write(fd, b.p, b.n);

		if (done < 0 && errno == EINTR)
			continue;
		if (done < 0)
			return -1;
		b.p += done;
		b.n -= (size_t)done;
	}
	return 0;
}

int file_sync_folder(const char *path)
{
	char *copy = xstrdup(path);
	int fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC), rc = -1;

	if (fd >= 0) {
		rc = fsync(fd);
		close(fd);
	}
	free(copy);
	return rc;
}
