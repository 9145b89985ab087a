/* SPDX-License-Identifier: Apache-2.0
 *
 * bucket.h - a real S3 server (SeaweedFS) with an empty bucket for a bench: started by the bed of
 * the integration tests (tests/integration/s3_servers.py), gone when the bench is.
 *
 *   bench --stdin's end--> s3_servers.py --serve FOLDER/s3 --> weed
 *
 * Header only, because a bench program is one file. Main thread only; start it before any thread.
 */
#ifndef TESTS_BENCH_BUCKET_H
#define TESTS_BENCH_BUCKET_H

#include "tests/bench/child.h"

struct bucket {
	pid_t pid;
	int until; /* closed: it ends */
	char text[400];
	char *endpoint, *name, *access_key, *secret_key; /* in text */
};

static inline void bucket_exec(const char *folder, int in, int out)
{
	char cmd[800];

	dup2(in, STDIN_FILENO);
	dup2(out, STDOUT_FILENO);
	snprintf(cmd, sizeof(cmd),
		 "tests/tools/install-clients >&2 && "
		 "exec build/venv/bin/python tests/integration/s3_servers.py --serve '%s/s3'",
		 folder);
	execl("/bin/sh", "sh", "-c", cmd, (char *)NULL);
	_exit(127);
}

/* Its line, which may come in pieces. */
static inline void bucket_read_line(struct bucket *b, int fd)
{
	size_t have = 0;
	ssize_t n;

	while (have < sizeof(b->text) - 1 && memchr(b->text, '\n', have) == NULL &&
	       (n = read(fd, b->text + have, sizeof(b->text) - 1 - have)) > 0)
		have += (size_t)n;
	b->text[have] = '\0';
	b->text[strcspn(b->text, "\n")] = '\0';
}

/* False when there is none to be had: its words are on stderr. */
static inline bool bucket_start(struct bucket *b, const char *folder)
{
	char *rest = b->text;
	int in[2], out[2];

	if (pipe2(in, O_CLOEXEC) < 0 || pipe2(out, O_CLOEXEC) < 0)
		return false;
	fflush(stdout);
	b->pid = fork();
	if (b->pid == 0)
		bucket_exec(folder, in[0], out[1]);
	close(in[0]);
	close(out[1]);
	b->until = in[1];
	if (b->pid > 0)
		bucket_read_line(b, out[0]);
	close(out[0]);
	b->endpoint = strsep(&rest, " ");
	b->name = strsep(&rest, " ");
	b->access_key = strsep(&rest, " ");
	b->secret_key = strsep(&rest, " ");
	return b->secret_key != NULL;
}

static inline void bucket_stop(struct bucket *b)
{
	close(b->until);
	if (b->pid > 0)
		waitpid(b->pid, NULL, 0);
	b->pid = 0;
}

#endif
