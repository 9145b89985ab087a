/* SPDX-License-Identifier: Apache-2.0
 *
 * bench_drain.c - how fast the otlp exporter's queue on disk empties when the next hop is back, and
 * in how much memory.
 *
 *   this process      writes a backlog into the queue's log, drops it from the page cache
 *   spanmill          sending_queue.storage -> otlp exporter, server CPU
 *   next hop          answers and counts, other CPU
 *
 * The reference is a bare read of the same files, as cold, in the pieces that the log reads. The
 * rate is from the first span at the next hop to the last; the memory's spread is that of VmRSS
 * from a tenth of the way to the end. Every span must arrive once, and the books balance.
 *
 *   SPANMILL_DRAIN_MB=4096 build/tests/bench/bench_drain   a backlog of that size; 1,024 by default
 *
 * SPEC: issue 4, "It must show": drains a backlog in flat memory.
 */
#include "base/mem.h"
#include "pipeline/batch_record.h"
#include "pipeline/segment/log.h"
#include "tests/bench/child.h"
#include "tests/bench/next_hop.h"
#include "tests/bench/payload.h"
#include "tests/bench/report.h"

#include <glob.h>
#include <pthread.h>

enum { BODIES = 64, GROUP = 64, READ_STEP = 512 * 1024, SAMPLE_US = 20000, GIVE_UP_S = 240 };
#define TARGET_MB_S 400.0
#define TARGET_SHARE 0.8
#define TARGET_SPREAD_MB 5.0

static const char config_text[] =
	"extensions: {file_storage: {directory: '%s', create_directory: true}}\n"
	"receivers: {otlp: {protocols: {grpc: {endpoint: '127.0.0.1:%u'}}}}\n"
	"exporters: {otlp: {endpoint: '127.0.0.1:%u', tls: {insecure: true}, compression: none,\n"
	"  sending_queue: {storage: file_storage}}}\n"
	"service: {extensions: [file_storage], telemetry: {metrics: {address: '127.0.0.1:%u'}},\n"
	"  pipelines: {traces: {receivers: [otlp], exporters: [otlp]}}}\n";

static char folder[64], queue_dir[128], log_path[192];
static uint64_t n_records, n_bytes;

/* ---- the backlog ---- */

struct body {
	struct segment_append a;
	struct buf record;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t written = PTHREAD_COND_INITIALIZER;
static unsigned n_pending;

static void appended(struct segment_append *a)
{
	if (a->err.kind != ERR_NONE) {
		fprintf(stderr, "backlog: %s\n", a->err.msg);
		exit(2);
	}
	pthread_mutex_lock(&lock);
	if (--n_pending == 0)
		pthread_cond_signal(&written);
	pthread_mutex_unlock(&lock);
}

static void make_bodies(struct body *bodies)
{
	uint8_t head[BATCH_RECORD_HEAD_MAX];

	for (uint64_t i = 0; i < BODIES; i++) {
		size_t n = batch_record_head(head, OTLP_TRACES, TENANT_DEFAULT, PAYLOAD_SPANS,
					     clock_wall_ns(), 0);

		buf_add(&bodies[i].record, head, n);
		payload_request(&bodies[i].record, PAYLOAD_SPANS, i + 1);
		bodies[i].a.done = appended;
	}
}

static void append_group(struct segment_log *log, struct body *bodies)
{
	struct err err = ERR_INIT;

	n_pending = GROUP;
	for (unsigned i = 0; i < GROUP; i++) {
		segment_append_bytes(&bodies[i % BODIES].a, buf_bytes(&bodies[i % BODIES].record));
		if (segment_log_append(log, &bodies[i % BODIES].a, &err) < 0) {
			fprintf(stderr, "backlog: %s\n", err.msg);
			exit(2);
		}
		n_bytes += bodies[i % BODIES].record.n;
	}
	n_records += GROUP;
	pthread_mutex_lock(&lock);
	while (n_pending > 0)
		pthread_cond_wait(&written, &lock);
	pthread_mutex_unlock(&lock);
}

static void write_backlog(uint64_t bytes)
{
	static struct body bodies[BODIES];
	struct segment_log_options o = { .dir = log_path, .sync = true };
	struct segment_log *log;

	snprintf(queue_dir, sizeof(queue_dir), "%s/queue", folder);
	snprintf(log_path, sizeof(log_path), "%s/otlp", queue_dir);
	mkdir(queue_dir, 0777);
	log = segment_log_open(&o, NULL, NULL);
	if (log == NULL)
		exit(2);
	make_bodies(bodies);
	while (n_bytes < bytes) {
		report_progress("writing a backlog: %llu of %llu MB",
				(unsigned long long)n_bytes / 1000000,
				(unsigned long long)bytes / 1000000);
		append_group(log, bodies);
	}
	segment_log_close(log);
	for (unsigned i = 0; i < BODIES; i++)
		buf_fini(&bodies[i].record);
}

/* ---- the disk ---- */

static uint64_t visit_files(void (*visit)(int fd, uint64_t *n))
{
	char pattern[256];
	uint64_t n = 0;
	glob_t g;

	snprintf(pattern, sizeof(pattern), "%s/*.segment", log_path);
	if (glob(pattern, 0, NULL, &g) != 0)
		exit(2);
	for (size_t i = 0; i < g.gl_pathc; i++) {
		int fd = open(g.gl_pathv[i], O_RDONLY);

		if (fd < 0)
			exit(2);
		visit(fd, &n);
		close(fd);
	}
	globfree(&g);
	return n;
}

static void make_cold(int fd, uint64_t *n)
{
	(void)n;
	fdatasync(fd);
	posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
}

static void read_all(int fd, uint64_t *n)
{
	static uint8_t to[READ_STEP];
	ssize_t got;

	while ((got = read(fd, to, sizeof(to))) > 0)
		*n += (uint64_t)got;
}

static double bare_read(void)
{
	uint64_t t0, n;

	visit_files(make_cold);
	t0 = clock_mono_ns();
	n = visit_files(read_all);
	return (double)n * 1e3 / (double)(clock_mono_ns() - t0);
}

/* ---- draining ---- */

struct drain {
	double mb_s, spread_mb, most_mb, cpu_ns; /* cpu_ns: of a span */
};

static void start(struct child *c, const struct next_hop *hop)
{
	uint16_t port = child_free_port();
	char config[1500];

	snprintf(config, sizeof(config), config_text, queue_dir, port, hop->port,
		 child_free_port());
	child_start(c, folder, "drain", "run", config);
	child_wait_listening(c, (uint16_t[]){ port, 0 });
}

/* From the first span to the last. */
static struct drain watch(const struct child *c, const struct next_hop *hop)
{
	uint64_t want = n_records * PAYLOAD_SPANS, seen = 0, at, first_ns = 0, first = 0;
	uint64_t began = clock_mono_ns();
	double least = 0, rss;
	struct drain d = { 0 };

	while (seen < want) {
		usleep(SAMPLE_US);
		at = clock_mono_ns();
		if (at - began > GIVE_UP_S * NS_PER_S)
			child_die(c, "the queue does not drain");
		seen = next_hop_spans(hop);
		if (first_ns == 0 && seen > 0) {
			first_ns = at;
			first = seen;
		}
		d.mb_s = (double)n_bytes * (double)(seen - first) / (double)want * 1e3 /
			 (double)MAX(at - first_ns, UINT64_C(1));
		report_progress("drained %llu of %llu spans, %.0f MB/s", (unsigned long long)seen,
				(unsigned long long)want, d.mb_s);
		rss = child_status_kib(c, "VmRSS:") * 1024 / 1e6;
		if (seen < want / 10)
			continue;
		least = least == 0 ? rss : MIN(least, rss);
		d.most_mb = MAX(d.most_mb, rss);
		d.spread_mb = d.most_mb - least;
	}
	d.cpu_ns = child_cpu_ns(c) / (double)want;
	return d;
}

static bool report(const struct drain *d, double disk)
{
	double target = MIN(TARGET_MB_S, TARGET_SHARE * disk);
	char what[80];
	bool ok;

	report_value("queue drain, CPU", d->cpu_ns, "ns/span");
	report_beside("queue drain beside a bare read", d->mb_s, "MB/s", "bare cold read", disk);
	snprintf(what, sizeof(what), "queue drain, %llu MB cold",
		 (unsigned long long)n_bytes / 1000000);
	ok = report_limit(what, d->mb_s, "MB/s", "400, or 80 % of the disk", AT_LEAST, target);
	report_value("queue drain, most memory", d->most_mb, "MB");
	ok &= report_limit("queue drain, memory's spread", d->spread_mb, "MB", "flat", AT_MOST,
			   TARGET_SPREAD_MB);
	return ok;
}

int main(void)
{
	const char *mb = getenv("SPANMILL_DRAIN_MB");
	uint64_t bytes = (mb != NULL ? strtoull(mb, NULL, 10) : 1024) * 1000000;
	struct child c = { .cpu = CHILD_SERVER_CPU };
	struct child_balance b;
	struct next_hop hop;
	struct drain d;
	double disk;
	bool ok;

	child_folder(folder, sizeof(folder));
	write_backlog(bytes);
	disk = bare_read();
	visit_files(make_cold);
	child_pin(CHILD_LOAD_CPU);
	next_hop_start(&hop);
	start(&c, &hop);
	d = watch(&c, &hop);
	child_stop(&c, &b);
	if (next_hop_spans(&hop) != n_records * PAYLOAD_SPANS || b.held != 0 ||
	    b.delivered != n_records * PAYLOAD_SPANS || atomic_load(&hop.shared->n_damaged) != 0)
		child_die(&c, "not every span arrived once");
	next_hop_stop(&hop);
	ok = report(&d, disk);
	child_folder_remove(folder);
	return !ok;
}
