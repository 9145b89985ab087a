/* SPDX-License-Identifier: Apache-2.0
 *
 * broker.h - a real Kafka broker for a bench: started by the bed of the integration tests
 * (tests/integration/kafka_bed.py), which installs what is missing, and gone when the bench is.
 * When it dies, so does the bench, with a message.
 *
 *   bench --stdin's end--> kafka_bed.py --serve FOLDER/kafka --> java, all on the other CPU
 *
 * Header only, because a bench program is one file. Main thread only; start it before any thread.
 */
#ifndef TESTS_BENCH_BROKER_H
#define TESTS_BENCH_BROKER_H

#include "tests/bench/child.h"

#include <glob.h>

struct broker {
	pid_t pid;
	int until;        /* closed: it ends */
	char folder[300]; /* of its logs */
	char address[64];
};

/* The bed, with our pipes as its input and output. It ends by its input, not by a signal: it has a
 * broker to take along. */
static inline void broker_exec(const struct broker *b, int in, int out, const char *topics)
{
	char cmd[800];

	dup2(in, STDIN_FILENO);
	dup2(out, STDOUT_FILENO);
	child_pin(CHILD_LOAD_CPU);
	snprintf(cmd, sizeof(cmd),
		 "tests/tools/install-clients >&2 && "
		 "exec build/venv/bin/python tests/integration/kafka_bed.py --serve '%s' %s",
		 b->folder, topics);
	execl("/bin/sh", "sh", "-c", cmd, (char *)NULL);
	_exit(127);
}

/* Start one with these topics ("a=64 b=4"). False when there is none to be had: its words are on
 * stderr. */
static inline bool broker_start(struct broker *b, const char *folder, const char *topics)
{
	int in[2], out[2];

	snprintf(b->folder, sizeof(b->folder), "%s/kafka", folder);
	if (pipe2(in, O_CLOEXEC) < 0 || pipe2(out, O_CLOEXEC) < 0)
		return false;
	fflush(stdout);
	b->pid = fork();
	if (b->pid == 0)
		broker_exec(b, in[0], out[1], topics);
	close(in[0]);
	close(out[1]);
	b->until = in[1];
	b->address[0] = '\0';
	if (b->pid > 0)
		child_read_line(out[0], b->address, sizeof(b->address));
	close(out[0]);
	if (b->address[0] == '\0')
		return false;
	child_must_live(b->pid, "the broker");
	return true;
}

static inline void broker_stop(struct broker *b)
{
	child_may_end(b->pid);
	close(b->until);
	if (b->pid > 0)
		waitpid(b->pid, NULL, 0);
	b->pid = 0;
}

/* Bytes of record batches, as they were compressed by who wrote them, in a topic's log. */
static inline double broker_log_bytes(const struct broker *b, const char *topic)
{
	char pattern[500];
	double bytes = 0;
	struct stat st;
	glob_t found;

	snprintf(pattern, sizeof(pattern), "%s/broker1/data/%s-*/*.log", b->folder, topic);
	if (glob(pattern, 0, NULL, &found) != 0)
		return 0;
	for (size_t i = 0; i < found.gl_pathc; i++)
		if (stat(found.gl_pathv[i], &st) == 0)
			bytes += (double)st.st_size;
	globfree(&found);
	return bytes;
}

#endif
