/* SPDX-License-Identifier: Apache-2.0
 *
 * bench_grpc_sink.c - CPU per span of the do-nothing gRPC server against a raw TCP reader of the
 * same bytes. Best of 5, runs interleaved, CPU time of the serving thread, the client in another
 * process on the other CPU.
 *
 * `sink` is what every other gRPC figure is compared with, so it must itself be near the floor.
 * Exit status 1 when it costs more than twice the raw reader.
 */
#include "tests/bench/child.h"
#include "tests/bench/grpc_sink.h"
#include "tests/bench/report.h"

enum { ROUNDS = 5, REQUESTS = 6000 };
#define TARGET_RATIO 2.0

static double per_span(double ns)
{
	return ns / REQUESTS / PAYLOAD_SPANS;
}

static double run_grpc(struct load *l, struct sink *s, const char *path, enum content_coding coding)
{
	double start = sink_cpu(s);

	if (load_run(l, s->port, path, REQUESTS, coding) != 0)
		exit(2);
	return sink_cpu(s) - start;
}

int main(void)
{
	double raw = 0, discard = 0, assemble = 0;
	struct load load;
	struct sink sink;
	bool ok;

	child_pin(CHILD_LOAD_CPU);
	if (load_start(&load) < 0)
		return 2;
	child_pin(CHILD_SERVER_CPU);
	sink_start(&sink);
	printf("shape: requests of %zu bytes, %d spans of %zu bytes each; %d connections x %d "
	       "calls\n",
	       load.body_bytes / LOAD_BODIES, PAYLOAD_SPANS,
	       load.body_bytes / LOAD_BODIES / PAYLOAD_SPANS, LOAD_CONNECTIONS, LOAD_STREAMS);
	for (int i = 0; i < ROUNDS; i++) {
		report_keep_best(&raw, raw_run(&load, REQUESTS));
		report_keep_best(&discard,
				 run_grpc(&load, &sink, "/bench.B/Sink", CONTENT_IDENTITY));
		report_keep_best(&assemble,
				 run_grpc(&load, &sink, "/bench.B/Assemble", CONTENT_IDENTITY));
	}
	report_value("raw TCP reader", per_span(raw), "ns/span");
	ok = report_ratio("sink: gRPC frames, answers, discards, over raw", per_span(discard),
			  "ns/span", per_span(raw), AT_MOST, TARGET_RATIO);
	report_beside("the same, message assembled first, over raw", per_span(assemble), "ns/span",
		      per_span(raw));
	if (grpc_server_counts(sink.server)->calls != 2 * ROUNDS * REQUESTS)
		return 2;
	load_stop(&load);
	sink_stop(&sink);
	return !ok;
}
