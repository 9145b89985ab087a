/* SPDX-License-Identifier: Apache-2.0
 *
 * bench_path.c - CPU per span of the real binary on its main paths, over the do-nothing sink's.
 *
 *   this process, server CPU    sink (a thread)
 *   spanmill, server CPU        one per configuration; those not being measured are idle
 *   load, other CPU             2 connections x 16 calls of the standard payload
 *   next hop, other CPU         answers and discards what the otlp exporter sends
 *
 * (a) gRPC in -> full index -> nop; (f) the same with gzip bodies; (c) gRPC in -> sampler -> otlp
 * exporter, without compression, and with gzip in and out beside. Best of 5, every path once a
 * round. The CPU of a path is that of every thread of its process, between idle and idle; the
 * sink's is that of its thread. After the rounds each process is stopped and must have accepted
 * every span sent and balance. SPEC: issue 3, "It must show", (a), (c), (f).
 */
#include "tests/bench/child.h"
#include "tests/bench/grpc_sink.h"
#include "tests/bench/report.h"

enum { ROUNDS = 5, REQUESTS = 4000, REQUESTS_GZIP = 500, WARM_UP = 256 };

#define EXPORT_PATH "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
#define RECEIVER                                                                                   \
	"receivers: {otlp: {protocols: {grpc: {endpoint: '127.0.0.1:%u'}}}}\n"                     \
	"service: {telemetry: {metrics: {level: none}}, pipelines: {traces: {receivers: [otlp],"

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
	uint64_t n_sent;   /* spans */
	char skipped[600]; /* why it does not run; "" = it runs */
};

static struct mill mills[] = {
	{ .name = "nop", .percent = -1 },
	{ .name = "keep-10", .percent = 10, .compression = "none" },
	{ .name = "keep-100", .percent = 100, .compression = "none" },
	{ .name = "keep-10-gzip", .percent = 10, .compression = "gzip" },
	{ .name = "keep-100-gzip", .percent = 100, .compression = "gzip" },
};

enum path_id { SINK, ASSEMBLE, NOP, NOP_GZIP, KEEP_10, KEEP_100, KEEP_10_GZIP, KEEP_100_GZIP };

static struct path {
	struct mill *mill; /* NULL: the sink */
	const char *call;
	enum content_coding coding;
	double best_ns; /* per span */
} paths[] = {
	[SINK] = { NULL, "/bench.B/Sink", CONTENT_IDENTITY, 0 },
	[ASSEMBLE] = { NULL, "/bench.B/Assemble", CONTENT_IDENTITY, 0 },
	[NOP] = { &mills[0], EXPORT_PATH, CONTENT_IDENTITY, 0 },
	[NOP_GZIP] = { &mills[0], EXPORT_PATH, CONTENT_GZIP, 0 },
	[KEEP_10] = { &mills[1], EXPORT_PATH, CONTENT_IDENTITY, 0 },
	[KEEP_100] = { &mills[2], EXPORT_PATH, CONTENT_IDENTITY, 0 },
	[KEEP_10_GZIP] = { &mills[3], EXPORT_PATH, CONTENT_GZIP, 0 },
	[KEEP_100_GZIP] = { &mills[4], EXPORT_PATH, CONTENT_GZIP, 0 },
};

static struct load load;
static struct sink sink;
static char folder[64];

/* ---- the next hop ---- */

struct next_hop {
	struct loop *loop;
	struct grpc_server *server;
	uint16_t port;
};

static void next_hop_open(void *arg)
{
	static const struct grpc_route routes[] = { { EXPORT_PATH, sink_answer, NULL, true },
						    { NULL, NULL, NULL, false } };
	static const struct grpc_server_settings c;
	struct next_hop *h = arg;
	struct err err = ERR_INIT;
	int fd;

	if (listen_open("127.0.0.1:0", &fd, 1, &err) < 0)
		_exit(1);
	h->port = listen_port(fd);
	h->server = grpc_server_new(h->loop, fd, &c, routes, &err);
}

static void next_hop_main(int to_parent)
{
	struct next_hop h = { .loop = loop_new(0, NULL) };

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	loop_start(h.loop, NULL);
	loop_call(h.loop, next_hop_open, &h);
	if (write(to_parent, &h.port, sizeof(h.port)) != sizeof(h.port))
		_exit(1);
	for (;;)
		pause();
}

/* Fork it, before any thread; its port. */
static uint16_t next_hop_start(pid_t *pid)
{
	uint16_t port = 0;
	int fds[2];

	if (pipe(fds) < 0 || (*pid = fork()) < 0)
		exit(2);
	if (*pid == 0)
		next_hop_main(fds[1]);
	if (read(fds[0], &port, sizeof(port)) != sizeof(port))
		exit(2);
	close(fds[0]);
	close(fds[1]);
	return port;
}

/* ---- the processes under test ---- */

static void mill_start(struct mill *m, uint16_t next_port)
{
	char config[1024];

	m->port = child_free_port();
	if (m->percent < 0)
		snprintf(config, sizeof(config), nop_config, m->port);
	else
		snprintf(config, sizeof(config), sampler_config, m->port, m->percent, next_port,
			 m->compression);
	child_start(&m->child, folder, m->name, "validate", config);
	if (child_wait(&m->child) != 0) {
		if (!child_log_line(&m->child, ":", m->skipped, sizeof(m->skipped)))
			snprintf(m->skipped, sizeof(m->skipped), "the configuration is refused");
		return;
	}
	child_start(&m->child, folder, m->name, "run", config);
	child_wait_listening(&m->child, (uint16_t[]){ m->port, 0 });
}

static void mill_stop(struct mill *m)
{
	double share = m->percent < 0 ? 1 : m->percent / 100.0, delivered;
	struct child_balance b;

	if (m->skipped[0] != '\0')
		return;
	child_stop(&m->child, &b);
	delivered = (double)b.delivered / (double)m->n_sent;
	if (b.accepted != m->n_sent || delivered < share * 0.8 || delivered > share * 1.2) {
		fprintf(stderr, "%s: sent %llu, accepted %llu, delivered %llu\n", m->name,
			(unsigned long long)m->n_sent, b.accepted, b.delivered);
		exit(2);
	}
}

static double path_cpu_ns(const struct path *p)
{
	return p->mill != NULL ? child_cpu_ns(&p->mill->child) : sink_cpu(&sink);
}

/* Send n requests; CPU per span of the server. */
static double path_run(struct path *p, uint32_t n)
{
	double start = path_cpu_ns(p);

	if (load_run(&load, p->mill != NULL ? p->mill->port : sink.port, p->call, n, p->coding) !=
	    0)
		exit(2);
	if (p->mill != NULL)
		p->mill->n_sent += (uint64_t)n * PAYLOAD_SPANS;
	return (path_cpu_ns(p) - start) / n / PAYLOAD_SPANS;
}

static bool path_is_skipped(const struct path *p)
{
	return p->mill != NULL && p->mill->skipped[0] != '\0';
}

static void measure(void)
{
	for (size_t i = 0; i < COUNT_OF(paths); i++)
		if (!path_is_skipped(&paths[i]))
			path_run(&paths[i], WARM_UP);
	for (int round = 0; round < ROUNDS; round++)
		for (size_t i = 0; i < COUNT_OF(paths); i++)
			if (!path_is_skipped(&paths[i]))
				report_keep_best(&paths[i].best_ns,
						 path_run(&paths[i], paths[i].coding == CONTENT_GZIP
									     ? REQUESTS_GZIP
									     : REQUESTS));
}

/* ---- the report ---- */

static bool ratio(const char *name, enum path_id id, enum path_id base, double target)
{
	if (path_is_skipped(&paths[id])) {
		report_skip(name, paths[id].mill->skipped);
		return true;
	}
	return report_ratio(name, paths[id].best_ns, "ns/span", paths[base].best_ns, AT_MOST,
			    target);
}

static void beside(const char *name, enum path_id id, enum path_id base)
{
	if (path_is_skipped(&paths[id]))
		report_skip(name, paths[id].mill->skipped);
	else
		report_beside(name, paths[id].best_ns, "ns/span", paths[base].best_ns);
}

static bool report(void)
{
	bool ok = true;

	report_value("sink: gRPC frames, answers, discards", paths[SINK].best_ns, "ns/span");
	beside("sink, message assembled first", ASSEMBLE, SINK);
	ok &= ratio("(a) gRPC -> full index -> nop, over sink", NOP, SINK, 3.5);
	ok &= ratio("(f) the same, gzip bodies, over plain bodies", NOP_GZIP, NOP, 2.5);
	ok &= ratio("(c) gRPC -> sampler 10 % -> otlp, over sink", KEEP_10, SINK, 4.5);
	ok &= ratio("(c) gRPC -> sampler 100 % -> otlp, over sink", KEEP_100, SINK, 7);
	beside("    sampler 10 %, gzip in and out, over sink", KEEP_10_GZIP, SINK);
	beside("    sampler 100 %, gzip in and out, over sink", KEEP_100_GZIP, SINK);
	return ok;
}

static void start_all(pid_t *next_hop)
{
	uint16_t next_port;

	child_folder(folder, sizeof(folder));
	child_pin(CHILD_LOAD_CPU);
	next_port = next_hop_start(next_hop);
	if (load_start(&load) < 0)
		exit(2);
	for (size_t i = 0; i < COUNT_OF(mills); i++)
		mill_start(&mills[i], next_port);
	child_pin(CHILD_SERVER_CPU);
	sink_start(&sink);
}

int main(void)
{
	pid_t next_hop;
	bool ok;

	start_all(&next_hop);
	printf("shape: requests of %zu bytes, %d spans of %zu bytes each; %d connections x %d "
	       "calls; %d requests a run (%d with gzip, level 6)\n",
	       load.body_bytes / LOAD_BODIES, PAYLOAD_SPANS,
	       load.body_bytes / LOAD_BODIES / PAYLOAD_SPANS, LOAD_CONNECTIONS, LOAD_STREAMS,
	       REQUESTS, REQUESTS_GZIP);
	measure();
	ok = report();
	for (size_t i = 0; i < COUNT_OF(mills); i++)
		mill_stop(&mills[i]);
	load_stop(&load);
	sink_stop(&sink);
	kill(next_hop, SIGKILL);
	waitpid(next_hop, NULL, 0);
	child_folder_remove(folder);
	return !ok;
}
