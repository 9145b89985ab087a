/* SPDX-License-Identifier: Apache-2.0
 *
 * bench_kafka_blocks.c - CPU per span from a Kafka topic to blocks in a bucket, over zstd level 1
 * alone on the same pages; memory and size of the blocks.
 *
 *   gen --gRPC--> spanmill (otlp -> kafka) --> broker, 4 partitions        before the measurement
 *   spanmill (kafka -> blocks, scratch on disk) --> SeaweedFS              what is measured
 *   reference: ZSTD_compressCCtx, level 1, of every page of the blocks     here
 *
 * The topic is full when the builder starts, so that it reads as fast as it can: the harder case
 * for memory. With SPANMILL_BENCH_RATE=23000 (spans a second, 10 MB/s as issue 4 asks) it is filled
 * at that rate while the builder reads, which takes two minutes more. The blocks are cut by POST
 * /flush, one a partition: all count, and each must be of 64 MB or more, so sections of that size
 * lie open in four partitions at once. CPU is that of all threads of the one process, from its
 * start to the answer of the flush; once, and the reference likewise once, not best of 5: it takes
 * long enough to be steady, and a minute. Beside it what the builder's thread took (read, sort,
 * gather, compress, upload), and the rest: fetch, index, scratch log.
 *
 * Checked: every span is accepted and delivered, every trace is in a block, once or, when it came
 * across a cut, more often. Without a broker or an S3 server there is no figure, and it says so.
 * SPEC: issue 4, "It must show", `make bench`.
 */
#include "base/clock.h"
#include "blocks/backend_s3.h"
#include "tests/bench/broker.h"
#include "tests/bench/bucket.h"
#include "tests/bench/pages.h"

enum {
	PARTITIONS = 4,
	SPANS_PER_TRACE = 10,
	N_TRACES = 280000,
	N_SPANS = N_TRACES * SPANS_PER_TRACE,
	SPAN_BYTES = 434,
	REQUEST_SPANS = 224,
	LIMIT_MIB = 240,
	WAIT_S = 120,
	WARM_MIB = 3000,
};
#define TARGET_RATIO 3.0
#define TARGET_NS 3500
#define TARGET_BLOCK_MB 64
#define TARGET_RSS_MB 256
#define TOPIC "spans"

static const char fill_config[] =
	"receivers: {otlp: {ack_timeout: 300s, protocols: {grpc: {endpoint: '127.0.0.1:%u'}}}}\n"
	"exporters: {kafka: {brokers: ['%s'], traces: {topic: " TOPIC "}}}\n"
	"service: {telemetry: {metrics: {level: none}},"
	" pipelines: {traces: {receivers: [otlp], exporters: [kafka]}}}\n";

static const char build_config[] =
	"receivers: {kafka: {brokers: ['%s'], group_id: bench, traces: {topics: [" TOPIC "]},"
	" min_fetch_size: 262144, max_fetch_wait: 500ms}}\n"
	"processors: {memory_limiter: {check_interval: 1s, limit_mib: %d}}\n"
	"exporters: {blocks: {max_block_bytes: 1GiB, max_block_age: 1h}}\n"
	"extensions: {trace_store: {backend: s3, local: {path: '%s/data'}, s3: {endpoint: '%s',"
	" bucket: '%s', access_key: '%s', secret_key: '%s', insecure: true}},"
	" query: {endpoint: '127.0.0.1:%u'}}\n"
	"service: {telemetry: {metrics: {address: '127.0.0.1:%u'}},"
	" extensions: [trace_store, query], pipelines: {traces: {receivers: [kafka],"
	" processors: [memory_limiter], exporters: [blocks]}}}\n";

static struct broker broker;
static struct bucket bucket;
static char folder[64];

struct figures {
	double process_ns, builder_ns; /* per span */
	double peak_mb, seconds;
};

/* ---- filling the topic ---- */

/* spans_per_s 0: as fast as it goes. */
static void fill_topic(unsigned spans_per_s)
{
	uint16_t port = child_free_port();
	struct child mill = { 0 }, gen = { .cpu = CHILD_LOAD_CPU };
	struct child_balance b;
	char text[800];
	char *argv[] = { "/bin/sh", "-c", text, NULL };

	report_progress("%s", "filling the topic");
	snprintf(text, sizeof(text), fill_config, port, broker.address);
	child_start(&mill, folder, "fill", "run", text);
	child_wait_listening(&mill, (uint16_t[]){ port, 0 });
	snprintf(text, sizeof(text),
		 "exec '%s' gen --endpoint 127.0.0.1:%u --traces %d --spans-per-trace %d "
		 "--span-bytes %d --batch %d --connections 2 --concurrency 32 --deadline 120s "
		 "--rate %u --quiet",
		 child_binary(), port, N_TRACES, SPANS_PER_TRACE, SPAN_BYTES, REQUEST_SPANS,
		 spans_per_s);
	child_start_argv(&gen, folder, "gen", argv);
	if (child_wait(&gen) != 0)
		child_die(&gen, "gen: not every span was acknowledged");
	child_stop(&mill, &b);
	if (b.delivered == N_SPANS)
		return;
	fprintf(stderr, "%d spans for the topic, %llu delivered\n", N_SPANS, b.delivered);
	exit(2);
}

/* ---- the builder ---- */

/* A virtual machine's host takes back memory that lies free, and the first touch of a page of it
 * then costs ten times the copy into it: 0 to 600 ns a span of the scratch's writes, as the memory
 * happened to lie. A builder that has run for some minutes writes where its scratch lay before. */
static void warm_memory(void)
{
	static uint8_t block[1 << 20];
	char path[100];
	int fd;

	report_progress("%s", "touching memory");
	snprintf(path, sizeof(path), "%s/warm", folder);
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	for (int i = 0; i < WARM_MIB; i++)
		if (write(fd, block, sizeof(block)) != (ssize_t)sizeof(block))
			break; /* a small disk: then it is as it is */
	close(fd);
	unlink(path);
}

/* One request to a port of ours; the answer, cut to what fits. */
static void ask(uint16_t port, const char *request, char *answer, size_t size)
{
	struct sockaddr_in a = { .sin_family = AF_INET,
				 .sin_port = htons(port),
				 .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	size_t n = 0;
	ssize_t k = 1;

	if (connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0 ||
	    write(fd, request, strlen(request)) != (ssize_t)strlen(request)) {
		perror("bench_kafka_blocks: asking the builder");
		exit(2);
	}
	while (k > 0 && n < size - 1) {
		k = read(fd, answer + n, size - 1 - n);
		n += k > 0 ? (size_t)k : 0;
	}
	answer[n] = '\0';
	close(fd);
}

static double metric(const char *page, const char *name)
{
	const char *at = strstr(page, name);

	at = at != NULL ? strchr(at + 1, ' ') : NULL;
	return at != NULL ? strtod(at, NULL) : 0;
}

/* What was read and indexed: in blocks (only then a span is accepted) or on the way there. */
static double spans_read(uint16_t metrics)
{
	static char page[256 * 1024];

	ask(metrics, "GET /metrics HTTP/1.0\r\n\r\n", page, sizeof(page));
	return metric(page, "\nspanmill_accepted_spans") +
	       metric(page, "\nspanmill_blocks_live_spans");
}

static void wait_until_read(const struct child *c, uint16_t metrics)
{
	uint64_t until = clock_mono_ns() + WAIT_S * NS_PER_S;
	double n = 0;

	while ((n = spans_read(metrics)) < N_SPANS) {
		report_progress("reading the topic: %.1f of %.1f million spans", n / 1e6,
				N_SPANS / 1e6);
		if (clock_mono_ns() > until)
			child_die(c, "the topic was not read in time");
		usleep(200 * 1000);
	}
}

static void flush(uint16_t query)
{
	char answer[512];

	report_progress("%s", "building blocks");
	ask(query,
	    "POST /flush HTTP/1.1\r\nHost: bench\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
	    answer, sizeof(answer));
	if (strncmp(answer, "HTTP/1.1 200", 12) == 0)
		return;
	fprintf(stderr, "POST /flush: %s\n", answer);
	exit(2);
}

static void build_blocks(struct figures *f, unsigned spans_per_s)
{
	uint16_t query = child_free_port(), metrics = child_free_port();
	struct child c = { 0 };
	struct child_balance b;
	char text[2000];

	snprintf(text, sizeof(text), build_config, broker.address, LIMIT_MIB, folder,
		 bucket.endpoint, bucket.name, bucket.access_key, bucket.secret_key, query,
		 metrics);
	child_start(&c, folder, "builder", "run", text);
	child_wait_listening(&c, (uint16_t[]){ query, metrics, 0 });
	f->seconds = -(double)clock_mono_ns() / NS_PER_S;
	if (spans_per_s > 0)
		fill_topic(spans_per_s);
	wait_until_read(&c, metrics);
	flush(query);
	f->seconds += (double)clock_mono_ns() / NS_PER_S;
	f->process_ns = child_cpu_ns(&c) / N_SPANS;
	f->builder_ns = child_named_cpu_ns(&c, "builder") / N_SPANS;
	f->peak_mb = child_status_kib(&c, "VmHWM:") * 1024 / 1e6;
	child_stop(&c, &b);
	if (b.accepted == N_SPANS && b.delivered == N_SPANS)
		return;
	fprintf(stderr, "%d spans in the topic, %llu accepted, %llu in blocks\n", N_SPANS,
		b.accepted, b.delivered);
	exit(2);
}

/* ---- the reference ---- */

static void read_blocks(struct pages *p)
{
	struct backend_s3_options o = {
		.client = { .endpoint = bucket.endpoint,
			    .bucket = bucket.name,
			    .credentials = { .access_key = bucket.access_key,
					     .secret_key = bucket.secret_key } },
	};
	struct err err = ERR_INIT;
	struct backend *be = backend_s3_open(&o, &err);

	pages_must(be == NULL ? -1 : 0, &err);
	pages_read(p, be);
	backend_free(be);
	if (p->n_traces >= N_TRACES)
		return;
	fprintf(stderr, "%d traces sent, %llu in blocks\n", N_TRACES,
		(unsigned long long)p->n_traces);
	exit(2);
}

/* ---- all ---- */

static bool report(const struct figures *f, const struct pages *p)
{
	bool ok;

	report_progress("%s", "");
	printf("shape: %d traces of %d spans of about %d bytes in %d partitions, read in %.1f s "
	       "(%.0f MB/s); %zu blocks of %.0f MB, %zu pages; packed %.0f bytes a span, zstd "
	       "alone %.0f\n",
	       N_TRACES, SPANS_PER_TRACE, SPAN_BYTES, PARTITIONS, f->seconds,
	       (double)N_SPANS * SPAN_BYTES / f->seconds / 1e6, p->n_blocks,
	       (double)p->block_bytes / 1e6 / (double)p->n_blocks, p->n_pages,
	       (double)p->block_bytes / N_SPANS, (double)p->zstd_bytes / N_SPANS);
	ok = report_ratio("Kafka -> S3 blocks over zstd", f->process_ns, "ns/span",
			  "zstd level 1, same pages", p->zstd_ns / N_SPANS, AT_MOST, TARGET_RATIO);
	ok &= report_limit("Kafka -> S3 blocks, CPU", f->process_ns, "ns/span",
			   "Tempo 2.10 v2: 17600", AT_MOST, TARGET_NS);
	report_value("Kafka -> S3 blocks, the builder's thread", f->builder_ns, "ns/span");
	report_value("Kafka -> S3 blocks, fetch, index, log", f->process_ns - f->builder_ns,
		     "ns/span");
	ok &= report_limit("Kafka -> S3 blocks, least block", (double)p->least_block / 1e6, "MB",
			   "", AT_LEAST, TARGET_BLOCK_MB);
	ok &= report_limit("Kafka -> S3 blocks, peak resident", f->peak_mb, "MB",
			   "Tempo 2.10 v2: 610", AT_MOST, TARGET_RSS_MB);
	return ok;
}

static bool start_servers(void)
{
	char topics[40];

	snprintf(topics, sizeof(topics), TOPIC "=%d", PARTITIONS);
	if (!broker_start(&broker, folder, topics)) {
		printf("bench_kafka_blocks: no broker (tests/tools/install-kafka), so no "
		       "figures\n");
		return false;
	}
	if (bucket_start(&bucket, folder))
		return true;
	printf("bench_kafka_blocks: no S3 server (SeaweedFS), so no figures\n");
	return false;
}

int main(void)
{
	struct figures f = { 0 };
	struct pages p = { .repeats = 1 };
	const char *rate = getenv("SPANMILL_BENCH_RATE");
	unsigned spans_per_s = rate != NULL ? (unsigned)strtoul(rate, NULL, 10) : 0;
	bool ok = true;

	child_folder(folder, sizeof(folder));
	child_pin(CHILD_LOAD_CPU);
	if (start_servers()) {
		if (spans_per_s == 0)
			fill_topic(0);
		warm_memory();
		build_blocks(&f, spans_per_s);
		child_pin(CHILD_SERVER_CPU);
		read_blocks(&p);
		ok = report(&f, &p);
	}
	if (bucket.pid > 0)
		bucket_stop(&bucket);
	broker_stop(&broker);
	child_folder_remove(folder);
	return !ok;
}
