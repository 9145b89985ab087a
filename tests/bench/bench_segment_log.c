/* SPDX-License-Identifier: Apache-2.0
 *
 * bench_segment_log.c - an acknowledged append against a bare pwrite + fdatasync of as many
 * bytes.
 *
 * Rounds of both are interleaved on the same disk; the best round of each counts. The bare loop
 * is one thread and writes, per fdatasync, as many bytes as the log did: with 16 threads that is
 * what a group of records has in the mean. With threads a record waits for the group before its own
 * too, so twice the bare time is the least and there is no target. Then the speed of writing and of
 * draining a cold backlog.
 *
 *   bench_segment_log [folder]
 */
#include "base/clock.h"
#include "base/mem.h"
#include "pipeline/segment/reader.h"
#include "tests/bench/report.h"

#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { ROUNDS = 5, APPENDS = 400, THREADS_MAX = 16 };
#define TARGET_RATIO 3.0

static char folder[256];

struct latencies {
	double us[APPENDS * THREADS_MAX];
	size_t n;
	double p50, p99;
};

static int double_cmp(const void *a, const void *b)
{
	const double *x = a, *y = b;

	return *x < *y ? -1 : *x > *y;
}

static void settle(struct latencies *l)
{
	qsort(l->us, l->n, sizeof(l->us[0]), double_cmp);
	l->p50 = l->us[l->n / 2];
	l->p99 = l->us[l->n * 99 / 100];
}

static void bare(struct latencies *l, size_t size)
{
	size_t room = (64 << 20) / size * size;
	uint8_t *p = xcalloc(1, size);
	char path[300];
	int fd;

	snprintf(path, sizeof(path), "%s/bare", folder);
	fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
	if (fd < 0 || fallocate(fd, 0, 0, 64 << 20) < 0 || fsync(fd) < 0)
		abort();
	for (size_t i = 0; i < APPENDS; i++) {
		uint64_t t0 = clock_mono_ns();

		memset(p, (int)i, size);
		if (pwrite(fd, p, size, (off_t)(i * size % room)) != (ssize_t)size ||
		    fdatasync(fd) < 0)
			abort();
		l->us[l->n++] = (double)(clock_mono_ns() - t0) / 1e3;
	}
	close(fd);
	unlink(path);
	free(p);
	settle(l);
}

struct appender {
	pthread_t thread;
	struct segment_log *log;
	struct segment_append a;
	sem_t answered;
	uint8_t *p;
	size_t size, n;
	double us[APPENDS];
};

static void answered(struct segment_append *a)
{
	sem_post(&CONTAINER_OF(a, struct appender, a)->answered);
}

static void *append_main(void *arg)
{
	struct appender *ap = arg;

	for (size_t i = 0; i < APPENDS; i++) {
		uint64_t t0 = clock_mono_ns();

		memset(ap->p, (int)i, ap->size);
		segment_append_bytes(&ap->a, (struct bytes){ ap->p, ap->size });
		ap->a.done = answered;
		if (segment_log_append(ap->log, &ap->a, NULL) < 0)
			abort();
		while (sem_wait(&ap->answered) < 0)
			continue;
		if (ap->a.err.kind != ERR_NONE)
			abort();
		ap->us[ap->n++] = (double)(clock_mono_ns() - t0) / 1e3;
	}
	return NULL;
}

/* Returns the bytes written per fdatasync. */
static size_t appended(struct latencies *l, size_t size, unsigned threads)
{
	char dir[300];
	struct segment_log_options o = { .dir = dir, .sync = true };
	static struct appender ap[THREADS_MAX];
	struct segment_log_stats st;
	struct segment_log *log;

	snprintf(dir, sizeof(dir), "%s/log", folder);
	log = segment_log_open(&o, NULL, NULL);
	if (log == NULL)
		abort();
	for (unsigned i = 0; i < threads; i++) {
		memset(&ap[i], 0, sizeof(ap[i]));
		ap[i].log = log;
		ap[i].size = size;
		ap[i].p = xcalloc(1, size);
		sem_init(&ap[i].answered, 0, 0);
		pthread_create(&ap[i].thread, NULL, append_main, &ap[i]);
	}
	for (unsigned i = 0; i < threads; i++) {
		pthread_join(ap[i].thread, NULL);
		memcpy(l->us + l->n, ap[i].us, sizeof(ap[i].us));
		l->n += ap[i].n;
		free(ap[i].p);
	}
	segment_log_stats(log, &st);
	segment_log_free_to(log, UINT64_MAX);
	segment_log_close(log);
	settle(l);
	return (size_t)(size * l->n / st.fsyncs);
}

static bool compare(size_t size, unsigned threads)
{
	static struct latencies b, a;
	double best[4] = { 1e18, 1e18, 1e18, 1e18 };
	size_t group = 0;
	char name[80], bare_name[40];

	for (int i = 0; i < ROUNDS; i++) {
		report_progress("%zu B, %u threads, round %d of %d", size, threads, i + 1, ROUNDS);
		memset(&b, 0, sizeof(b));
		memset(&a, 0, sizeof(a));
		group = appended(&a, size, threads);
		bare(&b, group);
		best[0] = MIN(best[0], b.p50);
		best[1] = MIN(best[1], b.p99);
		best[2] = MIN(best[2], a.p50);
		best[3] = MIN(best[3], a.p99);
	}
	snprintf(name, sizeof(name), "log append %zu B, %u threads, p50", size, threads);
	snprintf(bare_name, sizeof(bare_name), "bare, %zu B, p50", group);
	report_beside(name, best[2], "us", bare_name, best[0]);
	snprintf(name, sizeof(name), "log append %zu B, %u threads, p99", size, threads);
	snprintf(bare_name, sizeof(bare_name), "bare, %zu B, p99", group);
	if (threads == 1)
		return report_ratio(name, best[3], "us", bare_name, best[1], AT_MOST, TARGET_RATIO);
	report_beside(name, best[3], "us", bare_name, best[1]);
	return true;
}

/* ---- draining ---- */

static void counted(struct segment_append *a)
{
	sem_post(a->owner);
}

static void write_backlog(struct segment_log *log, size_t size, size_t n)
{
	enum { AHEAD = 64 };
	struct segment_append a[AHEAD] = { 0 };
	uint8_t *p = xcalloc(1, size);
	sem_t sem;

	sem_init(&sem, 0, 0);
	for (size_t i = 0; i < n; i += AHEAD) {
		for (size_t k = 0; k < AHEAD; k++) {
			segment_append_bytes(&a[k], (struct bytes){ p, size });
			a[k].done = counted;
			a[k].owner = &sem;
			if (segment_log_append(log, &a[k], NULL) < 0)
				abort();
		}
		for (size_t k = 0; k < AHEAD; k++)
			while (sem_wait(&sem) < 0)
				continue;
	}
	free(p);
}

static void drain(void)
{
	enum { SIZE = 100000, COUNT = 64 * 80 };
	char dir[300], cmd[400];
	struct segment_log_options o = { .dir = dir, .sync = true };
	struct segment_log *log;
	struct segment_reader *r;
	struct segment_record rec;
	uint64_t t0, n = 0;
	double open_ms, s;

	snprintf(dir, sizeof(dir), "%s/log", folder);
	log = segment_log_open(&o, NULL, NULL);
	t0 = clock_mono_ns();
	write_backlog(log, SIZE, COUNT);
	s = (double)(clock_mono_ns() - t0) / 1e9;
	report_value("log append, synced, 64 x 100 KB at a time", SIZE / 1e6 * COUNT / s, "MB/s");
	segment_log_close(log);
	snprintf(cmd, sizeof(cmd),
		 "for f in %s/*.segment; do "
		 "dd if=$f iflag=nocache count=0 2>/dev/null; done",
		 dir);
	if (system(cmd) != 0)
		printf("page cache not dropped\n");
	t0 = clock_mono_ns();
	log = segment_log_open(&o, NULL, NULL);
	open_ms = (double)(clock_mono_ns() - t0) / 1e6;
	t0 = clock_mono_ns();
	r = segment_reader_new(log, 0);
	while (segment_reader_next(r, &rec, NULL) == 1)
		n += rec.payload.n;
	s = (double)(clock_mono_ns() - t0) / 1e9;
	report_value("log open, 512 MB cold", open_ms, "ms");
	report_value("log drain, 512 MB cold", (double)n / 1e6 / s, "MB/s");
	segment_reader_free(r);
	segment_log_free_to(log, UINT64_MAX);
	segment_log_close(log);
}

int main(int argc, char **argv)
{
	char cmd[300];
	bool ok = true;

	snprintf(folder, sizeof(folder), "%s/bench_segment.XXXXXX", argc > 1 ? argv[1] : "/tmp");
	if (mkdtemp(folder) == NULL) {
		perror(folder);
		return 1;
	}
	ok &= compare(1000, 1);
	ok &= compare(100000, 1);
	ok &= compare(1000, 16);
	ok &= compare(100000, 16);
	drain();
	snprintf(cmd, sizeof(cmd), "rm -rf '%s'", folder);
	return system(cmd) != 0 || !ok;
}
