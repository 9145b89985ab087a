/* SPDX-License-Identifier: Apache-2.0
 *
 * bench_metrics_path.c - what counting spans costs per span, with exemplars and without.
 *
 *   spanmill, server CPU        one per configuration; those not being measured are idle
 *   load, other CPU             2 connections x 16 calls of the standard payload, of 50 operations
 *   next hop, other CPU         takes the spans: of what nobody can find no exemplar is shown (nop)
 *
 *   plain       gRPC in -> otlp
 *   counted     gRPC in -> otlp, spanmetrics -> nop
 *   exemplars   the same with exemplars: what competes is looked at too
 *   tagged      exemplar processor before both: offered, tagged in line, then as exemplars
 *
 * 3 services x 50 operations x 5 kinds, and those of them with errors: a little over 1,000 series.
 * The cost is the difference of CPU per span to the plain pipeline; best of 7 rounds of each. Every
 * run is checked: all calls answered OK; at the end every process must have accepted and delivered
 * all, and its page must say how many series it has. SPEC: issue 6, "It must show".
 */
#include "tests/bench/child.h"
#include "tests/bench/grpc_sink.h"
#include "tests/bench/next_hop.h"
#include "tests/bench/report.h"

enum { ROUNDS = 7, REQUESTS = 4000, WARM_UP = 512, OPERATIONS = 50 };
#define TARGET_NS 250.0

#define HEAD                                                                                       \
	"receivers: {otlp: {protocols: {grpc: {endpoint: '127.0.0.1:%u'}}}}\n"                     \
	"exporters: {nop: , otlp: {endpoint: '127.0.0.1:%u', tls: {insecure: true}, compression: " \
	"none}}\n"                                                                                 \
	"service: {telemetry: {metrics: {address: '127.0.0.1:%u'}}, pipelines: {"
#define COUNTED(processors)                                                                        \
	HEAD "traces: {receivers: [otlp], " processors "exporters: [otlp, spanmetrics]}, "         \
	     "metrics: {receivers: [spanmetrics], exporters: [nop]}}}\n"

static struct mill {
	const char *name, *config;
	struct child child;
	uint16_t port, metrics;
	uint64_t n_sent;
	double best_ns; /* per span */
} mills[] = {
	{ .name = "plain", .config = HEAD "traces: {receivers: [otlp], exporters: [otlp]}}}\n" },
	{ .name = "counted", .config = COUNTED("") "connectors: {spanmetrics: }\n" },
	{ .name = "exemplars",
	  .config = COUNTED("") "connectors: {spanmetrics: {exemplars: {enabled: true}}}\n" },
	{ .name = "tagged",
	  .config = COUNTED("processors: [exemplar], ") "processors: {exemplar: {connectors: "
							"[spanmetrics]}}\n"
							"connectors: {spanmetrics: {exemplars: "
							"{enabled: true}}}\n" },
};

static struct load load;
static struct next_hop next_hop;
static char folder[64];

static void mill_start(struct mill *m)
{
	char config[1024];

	m->port = child_free_port();
	m->metrics = child_free_port();
	snprintf(config, sizeof(config), m->config, m->port, next_hop.port, m->metrics);
	child_start(&m->child, folder, m->name, "run", config);
	child_wait_listening(&m->child, (uint16_t[]){ m->port, m->metrics, 0 });
}

static double mill_run(struct mill *m, uint32_t n)
{
	double cpu = -child_cpu_ns(&m->child);

	if (load_run(&load, m->port, EXPORT_PATH, n, CONTENT_IDENTITY) != 0)
		exit(2);
	m->n_sent += (uint64_t)n * PAYLOAD_SPANS;
	return (cpu + child_cpu_ns(&m->child)) / n / PAYLOAD_SPANS;
}

static void measure(void)
{
	for (size_t i = 0; i < COUNT_OF(mills); i++)
		mill_run(&mills[i], WARM_UP);
	for (int round = 0; round < ROUNDS; round++)
		for (size_t i = 0; i < COUNT_OF(mills); i++) {
			report_progress("round %d of %d: %s", round + 1, ROUNDS, mills[i].name);
			report_keep_best(&mills[i].best_ns, mill_run(&mills[i], REQUESTS));
		}
}

/* What the page says of its series. */
static double series_of(const struct mill *m)
{
	char cmd[200];
	double n = 0;
	FILE *f;

	snprintf(cmd, sizeof(cmd),
		 "curl -fsS http://127.0.0.1:%u/metrics | grep '^spanmill_spanmetrics_series{.*"
		 "family=\"spans\"' | sed 's/.* //'",
		 m->metrics);
	f = popen(cmd, "r");
	if (f == NULL || fscanf(f, "%lf", &n) != 1)
		child_die(&m->child, "no series on its page");
	pclose(f);
	return n;
}

static bool report(void)
{
	const double plain = mills[0].best_ns;
	bool ok = true;

	printf("series: %.0f\n", series_of(&mills[1]));
	report_value("spans in and out, counted by nobody", plain, "ns/span");
	report_value("spanmetrics, more than that", mills[1].best_ns - plain, "ns/span");
	ok &= report_limit("spanmetrics with exemplars, more", mills[2].best_ns - plain, "ns/span",
			   "the Collector's: 2,150", AT_MOST, TARGET_NS);
	ok &= report_limit("spanmetrics + exemplar processor, more", mills[3].best_ns - plain,
			   "ns/span", "the Collector's: 2,150", AT_MOST, TARGET_NS);
	return ok;
}

static void mill_stop(struct mill *m)
{
	struct child_balance b;

	child_stop(&m->child, &b);
	if (b.accepted == m->n_sent && b.delivered == m->n_sent)
		return;
	fprintf(stderr, "%s: sent %llu, accepted %llu, delivered %llu\n", m->name,
		(unsigned long long)m->n_sent, b.accepted, b.delivered);
	exit(2);
}

int main(void)
{
	bool ok;

	payload_operations = OPERATIONS;
	child_folder(folder, sizeof(folder));
	child_pin(CHILD_LOAD_CPU);
	next_hop_start(&next_hop);
	if (load_start(&load) < 0)
		return 2;
	for (size_t i = 0; i < COUNT_OF(mills); i++)
		mill_start(&mills[i]);
	load_print_shape(&load);
	measure();
	ok = report();
	for (size_t i = 0; i < COUNT_OF(mills); i++)
		mill_stop(&mills[i]);
	load_stop(&load);
	next_hop_stop(&next_hop);
	child_folder_remove(folder);
	return !ok;
}
