/* SPDX-License-Identifier: Apache-2.0
 *
 * bench_path.c - CPU per span of the real binary on its main paths, over the do-nothing sink's.
 *
 *   this process, server CPU    raw TCP reader; sink (a thread each)
 *   spanmill, server CPU        one per configuration; those not being measured are idle
 *   load, other CPU             2 connections x 16 calls of the standard payload
 *   next hop, other CPU         answers and counts what the otlp exporter sends
 *
 * (a) gRPC in -> full index -> nop; (f) the same with gzip bodies; (c) gRPC in -> sampler -> otlp
 * exporter, without compression, and with gzip in and out beside. The sink is the receiver's own
 * server with its default windows and read buffer, on a route that throws away what comes, and must
 * itself be within twice a raw reader of the same bytes. Best of 5, every path once a round. The
 * CPU of a path is that of every thread of its process, between idle and idle; the sink's and the
 * reader's is that of their thread.
 *
 * Every run is checked: all calls answered OK, and the next hop got exactly the spans that the
 * sampling rule keeps. At the end each process must have accepted all that was sent, delivered
 * exactly what it kept, dropped the rest, and hold nothing. SPEC: issue 3, "It must show", (a),
 * (c), (f).
 */
#include "pipeline/batch.h"
#include "tests/bench/child.h"
#include "tests/bench/grpc_sink.h"
#include "tests/bench/next_hop.h"
#include "tests/bench/report.h"
#include "wire/tracestate.h"

enum { ROUNDS = 5, REQUESTS = 4000, WARM_UP = 512, TH_DIGITS = 4 };

#define RECEIVER                                                                                   \
	"receivers: {otlp: {protocols: {grpc: {endpoint: '127.0.0.1:%u'}}}}\n"                     \
	"service: {telemetry: {metrics: {address: '127.0.0.1:%u'}},"                               \
	" pipelines: {traces: {receivers: [otlp],"

static const char nop_config[] = RECEIVER " exporters: [nop]}}}\n"
					  "exporters: {nop: }\n";
/* Then: percent, the next hop's port, compression. */
static const char sampler_config[] =
	RECEIVER " processors: [probabilistic_sampler], exporters: [otlp]}}}\n"
		 "processors: {probabilistic_sampler: {sampling_percentage: %d}}\n"
		 "exporters: {otlp: {endpoint: '127.0.0.1:%u', tls: {insecure: true},"
		 " compression: %s}}\n";

/* A process. */
struct mill {
	const char *name;
	int percent;             /* kept; -1: no sampler, nop exporter */
	const char *compression; /* of the otlp exporter */
	struct child child;
	uint16_t port;
	uint64_t n_sent, n_kept; /* spans */
};

static struct mill mills[] = {
	{ .name = "nop", .percent = -1 },
	{ .name = "keep-10", .percent = 10, .compression = "none" },
	{ .name = "keep-100", .percent = 100, .compression = "none" },
	{ .name = "keep-10-gzip", .percent = 10, .compression = "gzip" },
	{ .name = "keep-100-gzip", .percent = 100, .compression = "gzip" },
};

enum path_id { RAW, SINK, ASSEMBLE, NOP, NOP_GZIP, KEEP_10, KEEP_100, KEEP_10_GZIP, KEEP_100_GZIP };

static struct path {
	const char *name;
	struct mill *mill; /* NULL: the sink, or with no call the raw reader */
	const char *call;
	enum content_coding coding;
	double best_ns; /* per span */
} paths[] = {
	[RAW] = { "raw TCP reader", NULL, NULL, CONTENT_IDENTITY, 0 },
	[SINK] = { "sink", NULL, "/bench.B/Sink", CONTENT_IDENTITY, 0 },
	[ASSEMBLE] = { "sink, assembling", NULL, "/bench.B/Assemble", CONTENT_IDENTITY, 0 },
	[NOP] = { "index, nop", &mills[0], EXPORT_PATH, CONTENT_IDENTITY, 0 },
	[NOP_GZIP] = { "index, nop, gzip", &mills[0], EXPORT_PATH, CONTENT_GZIP, 0 },
	[KEEP_10] = { "10 %", &mills[1], EXPORT_PATH, CONTENT_IDENTITY, 0 },
	[KEEP_100] = { "100 %", &mills[2], EXPORT_PATH, CONTENT_IDENTITY, 0 },
	[KEEP_10_GZIP] = { "10 %, gzip", &mills[3], EXPORT_PATH, CONTENT_GZIP, 0 },
	[KEEP_100_GZIP] = { "100 %, gzip", &mills[4], EXPORT_PATH, CONTENT_GZIP, 0 },
};

static struct load load;
static struct sink sink;
static struct next_hop next_hop;
static char folder[64];

/* ---- what must come out ---- */

static uint32_t kept_of_body[LOAD_BODIES]; /* at 10 % */

/* The rule itself: a trace is kept when its randomness is at least the threshold. */
static uint32_t count_kept(const struct span_tables *t)
{
	uint64_t th = tracestate_threshold(0.1, TH_DIGITS);
	uint32_t n = 0;

	for (uint32_t i = 0; i < t->n_spans; i++)
		n += t->spans[i].r >= th;
	return n;
}

static void find_kept(void)
{
	for (uint64_t i = 0; i < LOAD_BODIES; i++) {
		struct buf body = BUF_INIT;
		struct otlp_result result;
		struct rcbuf *request;
		struct batch *b;

		payload_request(&body, PAYLOAD_SPANS, i + 1);
		request = rcbuf_new(NULL, body.n);
		memcpy(request->p, body.p, body.n);
		request->n = body.n;
		b = batch_from_otlp(request, TENANT_DEFAULT, NULL, &result, NULL);
		if (b == NULL || b->tables.n_spans != PAYLOAD_SPANS)
			exit(2);
		kept_of_body[i] = count_kept(&b->tables);
		batch_unref(b);
		buf_fini(&body);
	}
}

/* Of the spans of n requests, those that reach the next hop. */
static uint64_t spans_kept(const struct mill *m, uint32_t n)
{
	uint64_t kept = 0;

	if (m->percent != 10)
		return (uint64_t)n * PAYLOAD_SPANS;
	for (uint32_t i = 0; i < n; i++)
		kept += kept_of_body[i % LOAD_BODIES];
	return kept;
}

static void check_run(struct mill *m, uint32_t n, uint64_t received)
{
	uint64_t want = m->percent < 0 ? 0 : spans_kept(m, n);

	m->n_sent += (uint64_t)n * PAYLOAD_SPANS;
	m->n_kept += spans_kept(m, n);
	if (received == want && atomic_load(&next_hop.shared->n_damaged) == 0)
		return;
	report_progress("%s", "");
	fprintf(stderr, "%s: the next hop got %llu spans, not %llu\n", m->name,
		(unsigned long long)received, (unsigned long long)want);
	exit(2);
}

/* ---- the processes under test ---- */

static void mill_start(struct mill *m)
{
	uint16_t metrics = child_free_port();
	char config[1024];

	m->port = child_free_port();
	if (m->percent < 0)
		snprintf(config, sizeof(config), nop_config, m->port, metrics);
	else
		snprintf(config, sizeof(config), sampler_config, m->port, metrics, m->percent,
			 next_hop.port, m->compression);
	child_start(&m->child, folder, m->name, "run", config);
	child_wait_listening(&m->child, (uint16_t[]){ m->port, 0 });
}

static void mill_stop(struct mill *m)
{
	struct child_balance b;

	child_stop(&m->child, &b);
	if (b.accepted == m->n_sent && b.delivered == m->n_kept && b.held == 0 &&
	    b.dropped == m->n_sent - m->n_kept)
		return;
	fprintf(stderr, "%s: sent %llu, to be kept %llu; accepted %llu, delivered %llu\n", m->name,
		(unsigned long long)m->n_sent, (unsigned long long)m->n_kept, b.accepted,
		b.delivered);
	exit(2);
}

/* ---- runs ---- */

static void send_load(const struct path *p, uint32_t n)
{
	uint16_t port = p->mill != NULL ? p->mill->port : sink.port;

	if (load_run(&load, port, p->call, n, p->coding) != 0)
		exit(2);
}

/* Send n requests; CPU per span of the server. */
static double path_run(struct path *p, uint32_t n)
{
	uint64_t received = next_hop_spans(&next_hop);
	double cpu;

	if (p->call == NULL) {
		cpu = raw_run(&load, n);
	} else if (p->mill == NULL) {
		cpu = -sink_cpu(&sink);
		send_load(p, n);
		cpu += sink_cpu(&sink);
	} else {
		cpu = -child_cpu_ns(&p->mill->child);
		send_load(p, n);
		cpu += child_cpu_ns(&p->mill->child);
		check_run(p->mill, n, next_hop_spans(&next_hop) - received);
	}
	return cpu / n / PAYLOAD_SPANS;
}

static void measure(void)
{
	for (size_t i = 0; i < COUNT_OF(paths); i++)
		path_run(&paths[i], WARM_UP);
	for (int round = 0; round < ROUNDS; round++)
		for (size_t i = 0; i < COUNT_OF(paths); i++) {
			report_progress("round %d of %d: %s", round + 1, ROUNDS, paths[i].name);
			report_keep_best(&paths[i].best_ns, path_run(&paths[i], REQUESTS));
		}
}

/* ---- the report ---- */

static bool ratio(const char *what, enum path_id id, enum path_id base, double target)
{
	return report_ratio(what, paths[id].best_ns, "ns/span", paths[base].name,
			    paths[base].best_ns, AT_MOST, target);
}

static void beside(const char *what, enum path_id id, enum path_id base)
{
	report_beside(what, paths[id].best_ns, "ns/span", paths[base].name, paths[base].best_ns);
}

static bool report(void)
{
	bool ok = true;

	ok &= ratio("sink: gRPC frames, answers, discards", SINK, RAW, 2);
	beside("sink, message assembled first", ASSEMBLE, SINK);
	ok &= ratio("(a) gRPC -> full index -> nop", NOP, SINK, 3.5);
	ok &= ratio("(c) gRPC -> sampler 10 % -> otlp", KEEP_10, SINK, 4.5);
	ok &= ratio("(c) gRPC -> sampler 100 % -> otlp", KEEP_100, SINK, 7);
	beside("(c) 10 %, gzip in and out", KEEP_10_GZIP, SINK);
	beside("(c) 100 %, gzip in and out", KEEP_100_GZIP, SINK);
	ok &= ratio("(f) (a) with gzip bodies", NOP_GZIP, NOP, 2.5);
	return ok;
}

static void start_all(void)
{
	find_kept();
	child_folder(folder, sizeof(folder));
	child_pin(CHILD_LOAD_CPU);
	next_hop_start(&next_hop);
	if (load_start(&load) < 0)
		exit(2);
	for (size_t i = 0; i < COUNT_OF(mills); i++)
		mill_start(&mills[i]);
	child_pin(CHILD_SERVER_CPU);
	sink_start(&sink);
}

int main(void)
{
	bool ok;

	start_all();
	load_print_shape(&load);
	measure();
	ok = report();
	for (size_t i = 0; i < COUNT_OF(mills); i++)
		mill_stop(&mills[i]);
	load_stop(&load);
	sink_stop(&sink);
	next_hop_stop(&next_hop);
	child_folder_remove(folder);
	return !ok;
}
