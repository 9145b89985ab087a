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
		child_read_line(out[0], b->text, sizeof(b->text));
	close(out[0]);
	b->endpoint = strsep(&rest, " ");
	b->name = strsep(&rest, " ");
	b->access_key = strsep(&rest, " ");
	b->secret_key = strsep(&rest, " ");
	if (b->secret_key == NULL)
		return false;
	child_must_live(b->pid, "the S3 server");
	return true;
}

static inline void bucket_stop(struct bucket *b)
{
	child_may_end(b->pid);
	close(b->until);
	if (b->pid > 0)
		waitpid(b->pid, NULL, 0);
	b->pid = 0;
}

#endif
