/* SPDX-License-Identifier: Apache-2.0
 *
 * bench_blocks.c - CPU of building a block, over zstd level 1 alone on the same pages.
 *
 *   gen, other CPU   traces of ten spans, with ids of their own, in requests of 100 KB
 *   spanmill         otlp -> blocks; POST /flush makes a block of all that came
 *   ours             CPU of the thread `builder`: read the log, index, sort, gather, compress,
 *                    write, sync, commit
 *   reference        ZSTD_compressCCtx, level 1, of every page of the block that came out, here
 *
 * Nothing is built by a path of its own: the block is the one that a query would read, and must
 * hold every trace that was sent. Best of 5, the two taken in turn. Beside it what all threads of
 * the process took from the first byte received on: gRPC, index, log with its syncs, block.
 * SPEC: issue 3, "It must show", (e).
 */
#include "blocks/backend_local.h"
#include "tests/bench/child.h"
#include "tests/bench/pages.h"

enum {
	ROUNDS = 5,
	SPANS_PER_TRACE = 10,
	N_TRACES = 27776,
	N_SPANS = N_TRACES * SPANS_PER_TRACE,
	REQUEST_SPANS = 224,
	SPAN_BYTES = 434,
};
#define TARGET_RATIO 2.0

static const char config[] =
	"receivers: {otlp: {protocols: {grpc: {endpoint: '127.0.0.1:%u'}}}}\n"
	"exporters: {blocks: {max_block_age: 1h}}\n"
	"extensions: {trace_store: {local: {path: '%s/data'}},"
	" query: {endpoint: '127.0.0.1:%u'}}\n"
	"service: {telemetry: {metrics: {level: none}}, extensions: [trace_store, query],"
	" pipelines: {traces: {receivers: [otlp], exporters: [blocks]}}}\n";

static char folder[64];

/* What came out of the last round, page after page, and what the best took. */
struct figures {
	struct pages pages;
	double builder_ns, process_ns, zstd_ns; /* per span */
};

/* ---- ours ---- */

static void send_traces(uint16_t port)
{
	char path[300], cmd[600];
	char *argv[] = { "/bin/sh", "-c", cmd, NULL };
	struct child c = { .cpu = CHILD_LOAD_CPU };

	snprintf(path, sizeof(path), "%s", child_binary());
	snprintf(cmd, sizeof(cmd),
		 "exec '%s' gen --endpoint 127.0.0.1:%u --traces %d --spans-per-trace %d "
		 "--span-bytes %d --batch %d --connections 2 --concurrency 32 --quiet",
		 path, port, N_TRACES, SPANS_PER_TRACE, SPAN_BYTES, REQUEST_SPANS);
	child_start_argv(&c, folder, "gen", argv);
	if (child_wait(&c) != 0)
		child_die(&c, "gen: not every span was acknowledged");
}

/* Ask for a block of all that was received; answered when it can be read. */
static void flush(uint16_t port)
{
	static const char request[] = "POST /flush HTTP/1.1\r\nHost: bench\r\n"
				      "Content-Length: 0\r\nConnection: close\r\n\r\n";
	struct sockaddr_in a = { .sin_family = AF_INET,
				 .sin_port = htons(port),
				 .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	char answer[512] = "";
	size_t n = 0;
	ssize_t k = 1;

	if (connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0 ||
	    write(fd, request, sizeof(request) - 1) != sizeof(request) - 1)
		exit(2);
	while (k > 0 && n < sizeof(answer) - 1) {
		k = read(fd, answer + n, sizeof(answer) - 1 - n);
		n += k > 0 ? (size_t)k : 0;
	}
	close(fd);
	if (strncmp(answer, "HTTP/1.1 200", 12) == 0)
		return;
	fprintf(stderr, "POST /flush: %s\n", answer);
	exit(2);
}

static void store_all(struct figures *f)
{
	uint16_t port = child_free_port(), query = child_free_port();
	struct child c = { 0 };
	struct child_balance b;
	char text[1024];
	double start;

	snprintf(text, sizeof(text), config, port, folder, query);
	child_start(&c, folder, "store", "run", text);
	child_wait_listening(&c, (uint16_t[]){ port, query, 0 });
	start = child_cpu_ns(&c);
	send_traces(port);
	flush(query);
	report_keep_best(&f->builder_ns, child_named_cpu_ns(&c, "builder") / N_SPANS);
	report_keep_best(&f->process_ns, (child_cpu_ns(&c) - start) / N_SPANS);
	child_stop(&c, &b);
	if (b.accepted == N_SPANS && b.delivered == N_SPANS)
		return;
	fprintf(stderr, "%d spans sent, %llu accepted, %llu in blocks\n", N_SPANS, b.accepted,
		b.delivered);
	exit(2);
}

/* ---- the pages ---- */

static void compress_pages(struct figures *f)
{
	struct err err = ERR_INIT;
	struct backend *be;
	char path[80];

	snprintf(path, sizeof(path), "%s/data", folder);
	be = backend_local_open(&(struct backend_local_options){ .path = path }, &err);
	pages_must(be == NULL ? -1 : 0, &err);
	f->pages = (struct pages){ .repeats = 1 };
	pages_read(&f->pages, be);
	report_keep_best(&f->zstd_ns, f->pages.zstd_ns / N_SPANS);
	backend_free(be);
	child_folder_remove(path);
	if (f->pages.n_traces == N_TRACES)
		return;
	fprintf(stderr, "%d traces sent, %llu in blocks\n", N_TRACES,
		(unsigned long long)f->pages.n_traces);
	exit(2);
}

/* ---- all ---- */

static bool report(const struct figures *f)
{
	const struct pages *p = &f->pages;

	report_progress("%s", "");
	printf("shape: %d traces of %d spans of about %d bytes and 10 attributes, requests of %d "
	       "spans; %zu blocks of %zu pages of %zu KB; packed %zu bytes a span, zstd alone "
	       "%zu\n",
	       N_TRACES, SPANS_PER_TRACE, SPAN_BYTES, REQUEST_SPANS, p->n_blocks,
	       p->n_pages / p->n_blocks, (size_t)p->plain_bytes / p->n_pages / 1000,
	       (size_t)p->block_bytes / N_SPANS, (size_t)p->zstd_bytes / N_SPANS);
	report_beside("(e) gRPC in, log, sync, block: all threads", f->process_ns, "ns/span",
		      "Tempo 2.10 v2, one binary", 38000);
	return report_ratio("(e) block built from the log", f->builder_ns, "ns/span",
			    "zstd level 1, same pages", f->zstd_ns, AT_MOST, TARGET_RATIO);
}

int main(void)
{
	struct figures f = { 0 };
	bool ok;

	child_folder(folder, sizeof(folder));
	child_pin(CHILD_LOAD_CPU);
	for (int round = 0; round < ROUNDS; round++) {
		report_progress("round %d of %d", round + 1, ROUNDS);
		store_all(&f);
		child_pin(CHILD_SERVER_CPU);
		compress_pages(&f);
		child_pin(CHILD_LOAD_CPU);
	}
	ok = report(&f);
	child_folder_remove(folder);
	return !ok;
}
