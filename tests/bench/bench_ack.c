/* SPDX-License-Identifier: Apache-2.0
 *
 * bench_ack.c - how long one client waits for an Export that is answered by the segment log's
 * fsync, over a bare pwrite + fdatasync of as many bytes on the same disk.
 *
 *   client (other CPU) -> gRPC -> otlp receiver -> blocks exporter -> segment log -> answer
 *
 * The two alternate call by call, so that both meet the same disk; a round is 300 of each, the best
 * of 5 rounds counts, the percentiles of each side taken apart. The bare file is preallocated, as
 * the log's is. SPEC: issue 3, "It must show", (g).
 */
#include "tests/bench/child.h"
#include "tests/bench/grpc_sink.h"
#include "tests/bench/report.h"

enum { ROUNDS = 5, CALLS = 300, BARE_FILE_BYTES = 64 << 20 };
#define TARGET_RATIO 3.0

static const char config[] =
	"receivers: {otlp: {protocols: {grpc: {endpoint: '127.0.0.1:%u'}}}}\n"
	"exporters: {blocks: }\n"
	"extensions: {trace_store: {local: {path: '%s/data'}}}\n"
	"service: {telemetry: {metrics: {level: none}}, extensions: [trace_store],"
	" pipelines: {traces: {receivers: [otlp], exporters: [blocks]}}}\n";

struct times {
	double us[CALLS];
	double p50, p99; /* best of the rounds */
};

/* One shape of request. */
struct shape {
	const char *name;
	uint32_t n_spans;
	struct times export, bare;
};

/* One call at a time from the main thread, over a client on a loop. */
struct caller {
	struct loop *loop;
	struct grpc_client *client;
	struct buf body;
	pthread_mutex_t lock;
	pthread_cond_t cond;
	bool answered;
	enum grpc_status status;
	uint16_t port;
};

static int double_cmp(const void *a, const void *b)
{
	const double *x = a, *y = b;

	return *x < *y ? -1 : *x > *y;
}

static void settle(struct times *t)
{
	qsort(t->us, CALLS, sizeof(t->us[0]), double_cmp);
	report_keep_best(&t->p50, t->us[CALLS / 2]);
	report_keep_best(&t->p99, t->us[CALLS * 99 / 100]);
}

/* ---- one side: a call ---- */

static void open_client(void *arg)
{
	struct caller *k = arg;
	struct grpc_client_settings c = { 0 };
	char endpoint[64];

	snprintf(endpoint, sizeof(endpoint), "127.0.0.1:%u", k->port);
	c.endpoint = endpoint;
	k->client = grpc_client_new(k->loop, &c, NULL);
}

static void close_client(void *arg)
{
	grpc_client_free(((struct caller *)arg)->client);
}

static void call_answered(const struct grpc_answer *a, void *arg)
{
	struct caller *k = arg;

	if (a->status != GRPC_OK)
		fprintf(stderr, "%s: %s\n", grpc_status_name(a->status), a->message);
	pthread_mutex_lock(&k->lock);
	k->status = a->status;
	k->answered = true;
	pthread_cond_signal(&k->cond);
	pthread_mutex_unlock(&k->lock);
}

static void start_call(void *arg)
{
	struct caller *k = arg;
	struct bytes piece = buf_bytes(&k->body);
	struct grpc_request r = {
		.path = "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
		.pieces = &piece,
		.n_pieces = 1,
	};

	grpc_client_start(k->client, &r, call_answered, k);
}

static double call_us(struct caller *k, uint32_t n_spans, uint64_t seed)
{
	struct loop_task task = { .fn = start_call, .arg = k };
	uint64_t t0;

	buf_reset(&k->body);
	payload_request(&k->body, n_spans, seed);
	k->answered = false;
	t0 = clock_mono_ns();
	loop_post(k->loop, &task);
	pthread_mutex_lock(&k->lock);
	while (!k->answered)
		pthread_cond_wait(&k->cond, &k->lock);
	pthread_mutex_unlock(&k->lock);
	if (k->status != GRPC_OK)
		exit(2);
	return (double)(clock_mono_ns() - t0) / 1e3;
}

/* ---- the other: a write ---- */

static int bare_open(const char *folder)
{
	char path[300];
	int fd;

	snprintf(path, sizeof(path), "%s/bare", folder);
	fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0 || fallocate(fd, 0, 0, BARE_FILE_BYTES) < 0 || fsync(fd) < 0) {
		perror(path);
		exit(2);
	}
	return fd;
}

static double bare_us(int fd, struct bytes b, off_t *at)
{
	uint64_t t0 = clock_mono_ns();

	if (*at + (off_t)b.n > BARE_FILE_BYTES)
		*at = 0;
	if (pwrite(fd, b.p, b.n, *at) != (ssize_t)b.n || fdatasync(fd) < 0) {
		perror("bare write");
		exit(2);
	}
	*at += (off_t)b.n;
	return (double)(clock_mono_ns() - t0) / 1e3;
}

/* ---- both ---- */

static void round_of(struct shape *s, struct caller *k, int fd, off_t *at, uint64_t *seed)
{
	for (int i = 0; i < CALLS; i++) {
		s->export.us[i] = call_us(k, s->n_spans, ++*seed);
		s->bare.us[i] = bare_us(fd, buf_bytes(&k->body), at);
	}
	settle(&s->export);
	settle(&s->bare);
}

static bool report(const struct shape *s, size_t n_bytes)
{
	char what[80];

	report_progress("%s", "");
	printf("shape: %s, %u spans, %zu bytes, one client\n", s->name, s->n_spans, n_bytes);
	snprintf(what, sizeof(what), "(g) Export to blocks, %s, p50", s->name);
	report_beside(what, s->export.p50, "us", "write, fdatasync, p50", s->bare.p50);
	snprintf(what, sizeof(what), "(g) Export to blocks, %s, p99", s->name);
	return report_ratio(what, s->export.p99, "us", "write, fdatasync, p99", s->bare.p99,
			    AT_MOST, TARGET_RATIO);
}

static void measure(struct shape *shapes, size_t n, struct caller *k, const char *folder)
{
	off_t at = 0;
	int fd = bare_open(folder);
	uint64_t seed = 0;

	for (int round = 0; round < ROUNDS; round++)
		for (size_t i = 0; i < n; i++) {
			report_progress("round %d of %d: %s", round + 1, ROUNDS, shapes[i].name);
			round_of(&shapes[i], k, fd, &at, &seed);
		}
	close(fd);
}

int main(void)
{
	static struct shape shapes[] = { { .name = "1 KB", .n_spans = 2 },
					 { .name = "100 KB", .n_spans = PAYLOAD_SPANS } };
	struct caller k = { .port = child_free_port() };
	char folder[64], text[1024];
	struct child c = { 0 };
	bool ok = true;

	child_pin(CHILD_LOAD_CPU);
	child_folder(folder, sizeof(folder));
	snprintf(text, sizeof(text), config, k.port, folder);
	child_start(&c, folder, "blocks", "run", text);
	child_wait_listening(&c, (uint16_t[]){ k.port, 0 });
	pthread_mutex_init(&k.lock, NULL);
	pthread_cond_init(&k.cond, NULL);
	k.loop = loop_new(0, NULL);
	loop_start(k.loop, NULL);
	loop_call(k.loop, open_client, &k);
	measure(shapes, COUNT_OF(shapes), &k, folder);
	for (size_t i = 0; i < COUNT_OF(shapes); i++) {
		buf_reset(&k.body);
		payload_request(&k.body, shapes[i].n_spans, 1);
		ok &= report(&shapes[i], k.body.n);
	}
	loop_call(k.loop, close_client, &k);
	loop_stop(k.loop);
	loop_free(k.loop);
	buf_fini(&k.body);
	child_stop(&c, NULL);
	child_folder_remove(folder);
	return !ok;
}
