/* SPDX-License-Identifier: Apache-2.0
 *
 * bench_kafka.c - CPU per span from OTLP/gRPC to a Kafka topic of 64 partitions, over the sink's.
 *
 *   this process, server CPU   sink (a thread)
 *   spanmill, server CPU       otlp -> kafka (lz4, acks=all), and otlp -> nop
 *   load, broker, other CPU    2 connections of the standard payload; a real broker
 *
 * A call is answered when the brokers have its spans, so what is under way at once is what clients
 * send at once; over 64 partitions, that is what a record or a request to the broker can hold.
 * 2 x 128 calls (25 MB) fill them, as many agents do; 2 x 16 (48 KB a partition) are shown beside.
 *
 * Seven rounds of slices in turn: sink, nop, Kafka, sink, of 2 x 128 calls, each some seconds long:
 * the first 25 MB that are under way are memory never touched before. A round's sink is the mean of
 * the two about its Kafka, as neighbours come and go; figures are the medians of the rounds, and
 * the ratio is of these. Beside it: the best of each, of whichever round, and the
 * least and largest ratio of a round. The CPU of a path is that of every thread of its process,
 * between idle and idle; the broker's is not in it. Its parts: receive is the sink's; index what
 * otlp -> nop takes beside; group the rest of the loop's thread (partition, copy, debts, answers);
 * compress is lz4 alone, as librdkafka calls it, here, 64 KiB at a time; produce the rest of
 * librdkafka's threads, and of the kernel's work for them.
 *
 * Every run is checked: all calls answered OK, and at the end everything was delivered. Without
 * network and without an installed broker there is no figure, and it says so.
 * SPEC: issue 4, "It must show", `make bench`.
 */
#include "tests/bench/broker.h"
#include "tests/bench/grpc_sink.h"
#include "tests/bench/next_hop.h"
#include "tests/bench/report.h"

#include <lz4frame.h>

enum {
	ROUNDS = 7,
	FEW_ROUNDS = 2,
	REQUESTS = 7500,
	FEW_REQUESTS = 2500,
	WARM_UP = 512,
	MANY_CALLS = 128
};
#define TARGET_RATIO 15.0
#define TOPIC "spans"

#define RECEIVER                                                                                   \
	"receivers: {otlp: {ack_timeout: 60s,"                                                     \
	" protocols: {grpc: {endpoint: '127.0.0.1:%u'}}}}\n"                                       \
	"service: {telemetry: {metrics: {address: '127.0.0.1:%u'}},"                               \
	" pipelines: {traces: {receivers: [otlp],"

static const char nop_config[] = RECEIVER " exporters: [nop]}}}\n"
					  "exporters: {nop: }\n";
/* Then: the broker. lz4 and acks=all are the defaults. */
static const char kafka_config[] = RECEIVER " exporters: [kafka]}}}\n"
					    "exporters: {kafka: {brokers: ['%s'],"
					    " traces: {topic: " TOPIC "}}}\n";

struct mill {
	struct child child;
	uint16_t port, metrics;
	uint64_t n_sent; /* spans */
};

/* Per span, ns, of a round. */
struct slice {
	double sink, nop, whole, loop, wall;
};

/* Each member is the median of the rounds', but for lz4 and few_calls: the least. */
struct figures {
	struct slice rounds[ROUNDS], median;
	double lz4, few_calls;
	double records, bytes, log_bytes; /* of all that was produced with many calls */
};

static struct mill nop, kafka;
static struct broker broker;
static struct load load;
static struct sink sink;
static char folder[64];

/* ---- the processes ---- */

static void mill_start(struct mill *m, const char *name, const char *config)
{
	char text[1024];

	m->port = child_free_port();
	m->metrics = child_free_port();
	snprintf(text, sizeof(text), config, m->port, m->metrics, broker.address);
	child_start(&m->child, folder, name, "run", text);
	child_wait_listening(&m->child, (uint16_t[]){ m->port, m->metrics, 0 });
}

static void mill_stop(struct mill *m)
{
	struct child_balance b;

	child_stop(&m->child, &b);
	if (b.accepted == m->n_sent && b.delivered == m->n_sent)
		return;
	fprintf(stderr, "sent %llu, accepted %llu, delivered %llu\n", (unsigned long long)m->n_sent,
		b.accepted, b.delivered);
	exit(2);
}

/* The sum of a metric's samples, from the process's own page. */
static double metric(const struct mill *m, const char *name)
{
	char cmd[300], line[1024];
	double sum = 0;
	FILE *f;

	snprintf(cmd, sizeof(cmd),
		 "exec 3<>/dev/tcp/127.0.0.1/%u; printf 'GET /metrics HTTP/1.0\\r\\n\\r\\n' >&3;"
		 " cat <&3",
		 m->metrics);
	setenv("BENCH_COMMAND", cmd, 1);
	f = popen("exec bash -c \"$BENCH_COMMAND\"", "r");
	while (f != NULL && fgets(line, sizeof(line), f) != NULL)
		if (strncmp(line, name, strlen(name)) == 0 && strrchr(line, ' ') != NULL)
			sum += strtod(strrchr(line, ' '), NULL);
	if (f != NULL)
		pclose(f);
	return sum;
}

/* ---- runs ---- */

static void send_load(uint16_t port, const char *path, uint32_t n)
{
	if (load_run(&load, port, path, n, CONTENT_IDENTITY) != 0)
		exit(2);
}

static double sink_run(uint32_t n)
{
	double cpu = -sink_cpu(&sink);

	send_load(sink.port, "/bench.B/Sink", n);
	return (cpu + sink_cpu(&sink)) / n / PAYLOAD_SPANS;
}

/* CPU per span of all threads; *loop that of its loop. */
static double mill_run(struct mill *m, uint32_t n, double *loop)
{
	double cpu = -child_cpu_ns(&m->child);

	*loop = -child_named_cpu_ns(&m->child, "loop-0");
	send_load(m->port, EXPORT_PATH, n);
	cpu += child_cpu_ns(&m->child);
	*loop += child_named_cpu_ns(&m->child, "loop-0");
	*loop /= (double)n * PAYLOAD_SPANS;
	m->n_sent += (uint64_t)n * PAYLOAD_SPANS;
	return cpu / n / PAYLOAD_SPANS;
}

static void kafka_run(struct slice *r)
{
	double wall = -(double)clock_mono_ns();

	r->whole = mill_run(&kafka, REQUESTS, &r->loop);
	r->wall = (wall + (double)clock_mono_ns()) / REQUESTS / PAYLOAD_SPANS;
}

/* lz4 as librdkafka does it: a frame a batch, of blocks of 64 KiB that do not know each other. */
static void lz4_run(struct figures *f, size_t batch_bytes)
{
	LZ4F_preferences_t prefs = { .frameInfo = { .blockMode = LZ4F_blockIndependent } };
	struct buf in = BUF_INIT, out = BUF_INIT;
	double ns;
	size_t n = 0;

	while (in.n < 4 * MIB)
		payload_request(&in, PAYLOAD_SPANS, 1000 + n++);
	buf_reserve(&out, LZ4F_compressFrameBound(batch_bytes, &prefs));
	ns = -thread_cpu_ns();
	for (size_t at = 0; at < in.n; at += batch_bytes)
		LZ4F_compressFrame(out.p, out.cap, in.p + at, MIN(batch_bytes, in.n - at), &prefs);
	ns += thread_cpu_ns();
	report_keep_best(&f->lz4, ns / (double)n / PAYLOAD_SPANS);
	buf_fini(&in);
	buf_fini(&out);
}

/* The same with fewer calls at once. */
static void few_calls_run(struct figures *f)
{
	double unused;

	load.streams = LOAD_STREAMS;
	report_keep_best(&f->few_calls, mill_run(&kafka, FEW_REQUESTS, &unused));
	load.streams = MANY_CALLS;
}

static void round_run(struct slice *r)
{
	double unused;

	r->sink = sink_run(REQUESTS) / 2;
	r->nop = mill_run(&nop, REQUESTS, &unused);
	kafka_run(r);
	r->sink += sink_run(REQUESTS) / 2;
}

static int compare(const void *a, const void *b)
{
	const double *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

/* Of the member at `offset` in each slice. */
static double median(const struct slice *rounds, size_t offset)
{
	double v[ROUNDS];

	for (int i = 0; i < ROUNDS; i++)
		memcpy(&v[i], (const char *)&rounds[i] + offset, sizeof(v[i]));
	qsort(v, ROUNDS, sizeof(v[0]), compare);
	return v[ROUNDS / 2];
}

static void find_medians(struct figures *f)
{
	f->median = (struct slice){
		.sink = median(f->rounds, offsetof(struct slice, sink)),
		.nop = median(f->rounds, offsetof(struct slice, nop)),
		.whole = median(f->rounds, offsetof(struct slice, whole)),
		.loop = median(f->rounds, offsetof(struct slice, loop)),
		.wall = median(f->rounds, offsetof(struct slice, wall)),
	};
}

static void measure(struct figures *f)
{
	double unused;

	sink_run(WARM_UP);
	mill_run(&nop, WARM_UP, &unused);
	mill_run(&kafka, WARM_UP, &unused);
	for (int round = 0; round < ROUNDS; round++) {
		report_progress("round %d of %d", round + 1, ROUNDS);
		round_run(&f->rounds[round]);
		lz4_run(f, 64 * KIB);
	}
	find_medians(f);
	f->records = metric(&kafka, "spanmill_kafka_produced_records{");
	f->bytes = metric(&kafka, "spanmill_kafka_produced_bytes{");
	f->log_bytes = broker_log_bytes(&broker, TOPIC);
	for (int round = 0; round < FEW_ROUNDS; round++) {
		report_progress("few calls, round %d of %d", round + 1, FEW_ROUNDS);
		few_calls_run(f);
	}
}

/* ---- the report ---- */

/* What the rounds say one by one, for who doubts the medians. */
static void report_spread(const struct figures *f)
{
	struct slice best = f->rounds[0];
	double least = 0, most = 0;

	for (int i = 0; i < ROUNDS; i++) {
		const struct slice *r = &f->rounds[i];

		report_keep_best(&best.whole, r->whole);
		report_keep_best(&best.sink, r->sink);
		report_keep_best(&least, r->whole / r->sink);
		most = MAX(most, r->whole / r->sink);
	}
	report_beside("  best of either, of any round", best.whole, "ns/span", "sink", best.sink);
	report_value("  ratio of a round, least", least, "x");
	report_value("  ratio of a round, largest", most, "x");
}

static bool report(const struct figures *f)
{
	const struct slice *m = &f->median;
	bool ok;

	if (f->records == 0)
		child_die(&kafka.child, "no records were counted");
	ok = report_ratio("gRPC -> Kafka, lz4, acks=all, 64 partitions", m->whole, "ns/span",
			  "sink beside it, medians", m->sink, AT_MOST, TARGET_RATIO);
	report_spread(f);
	report_value("  of this: receive", m->sink, "ns/span");
	report_value("  index", m->nop - m->sink, "ns/span");
	report_value("  group", m->loop - m->nop, "ns/span");
	report_value("  compress (lz4 alone)", f->lz4, "ns/span");
	report_value("  produce (librdkafka, the kernel)", m->whole - m->loop - f->lz4, "ns/span");
	report_value("  mean record", f->bytes / f->records, "bytes");
	report_value("  compression, of the topic's log", f->bytes / f->log_bytes, "x");
	report_value("  spans a second, this broker", 1e6 / m->wall, "1000/s");
	report_beside("gRPC -> Kafka, 2 x 16 calls", f->few_calls, "ns/span", "sink", m->sink);
	return ok;
}

static void start_all(void)
{
	child_folder(folder, sizeof(folder));
	if (!broker_start(&broker, folder, TOPIC "=64")) {
		printf("bench_kafka: no broker (tests/tools/install-kafka), so no figures\n");
		broker_stop(&broker);
		child_folder_remove(folder);
		exit(0);
	}
	child_pin(CHILD_LOAD_CPU);
	if (load_start(&load) < 0)
		exit(2);
	load.streams = MANY_CALLS;
	mill_start(&nop, "nop", nop_config);
	mill_start(&kafka, "kafka", kafka_config);
	child_pin(CHILD_SERVER_CPU);
	sink_start(&sink);
}

int main(void)
{
	struct figures f = { 0 };
	bool ok;

	start_all();
	load_print_shape(&load);
	measure(&f);
	ok = report(&f);
	mill_stop(&nop);
	mill_stop(&kafka);
	load_stop(&load);
	sink_stop(&sink);
	broker_stop(&broker);
	child_folder_remove(folder);
	return !ok;
}
