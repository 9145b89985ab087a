/* SPDX-License-Identifier: Apache-2.0
 *
 * bench_blocks.c - CPU of building one block, over zstd level 1 alone on the same pages.
 *
 *   128 MiB of requests (the default size of a block) in memory
 *     ours       block_build: index, sort, gather, compress, write to a local folder and sync it
 *     reference  ZSTD_compressCCtx, level 1, of every page that the block turned out to have
 *
 * Two shapes: a trace's four spans side by side in one request, as the standard payload has them;
 * and ten spans a trace, each in another request, so that most spans bring their resource and scope
 * along. The pages are read back from the built block with the reader. CPU time of the thread,
 * which does all of it, kernel included; best of 5, the two taken in turn. Each block is checked:
 * it must hold every span and trace that went in.
 *
 * Then the whole way in the real binary, for comparison with what others need: gRPC in, index, log
 * with fsync, block; the CPU of all its threads from idle until it is idle again.
 * SPEC: issue 3, "It must show", (e).
 */
#include "blocks/backend_local.h"
#include "blocks/block.h"
#include "blocks/block_reader.h"
#include "exporters/blocks/block_builder.h"
#include "pipeline/batch.h"
#include "tests/bench/child.h"
#include "tests/bench/grpc_sink.h"
#include "tests/bench/report.h"

#include <zstd.h>

enum { ROUNDS = 5, N_REQUESTS = 1380, STORE_ROUNDS = 3, STORE_TRACES = 60000, SPREAD_SPANS = 10 };
#define TARGET_RATIO 2.0
#define IDLE_US 400000

static struct bytes requests[N_REQUESTS];
static struct backend *be;
static char folder[64];

struct shape {
	const char *name;
	uint32_t spans_per_trace;
	bool spread; /* the spans of a trace lie in different requests */
	struct buf pages;
	size_t *page_ends;
	size_t n_pages, cap_pages, block_bytes, zstd_bytes;
	double build_ns, zstd_ns; /* per span, best */
};

static void must(int rc, const struct err *err)
{
	if (rc >= 0)
		return;
	report_progress("%s", "");
	fprintf(stderr, "bench_blocks: %s\n", err->msg);
	exit(2);
}

/* ---- the requests ---- */

/* In one piece of memory, as a section's records are loaded (section_build.c). */
static void make_requests(void)
{
	struct buf b = BUF_INIT;
	uint8_t *at;

	payload_request(&b, PAYLOAD_SPANS, 1);
	at = xmalloc_huge(N_REQUESTS * (b.n + b.n / 8));
	for (uint64_t i = 0; i < N_REQUESTS; i++) {
		buf_reset(&b);
		payload_request(&b, PAYLOAD_SPANS, i + 1);
		requests[i] = (struct bytes){ memcpy(at, b.p, b.n), b.n };
		at += b.n;
	}
	buf_fini(&b);
}

/* Give span k of all the trace id number k mod n. Every span begins with its trace id. */
static void spread_traces(void)
{
	uint64_t n_traces = (uint64_t)N_REQUESTS * PAYLOAD_SPANS / SPREAD_SPANS, k = 0;

	for (size_t i = 0; i < N_REQUESTS; i++) {
		struct rcbuf *copy = rcbuf_new(NULL, requests[i].n);
		struct otlp_result result;
		struct batch *b;

		memcpy(copy->p, requests[i].p, requests[i].n);
		copy->n = requests[i].n;
		b = batch_from_otlp(copy, TENANT_DEFAULT, NULL, &result, NULL);
		for (uint32_t s = 0; s < b->tables.n_spans; s++, k++) {
			size_t at = (size_t)(b->tables.spans[s].p - copy->p) + 2;
			struct rng r;

			rng_seed(&r, k % n_traces + 1);
			store_le64((uint8_t *)(uintptr_t)requests[i].p + at, rng_next(&r));
			store_le64((uint8_t *)(uintptr_t)requests[i].p + at + 8, rng_next(&r) | 1);
		}
		batch_unref(b);
	}
}

/* ---- ours ---- */

static double build(const struct shape *s, struct block_meta *meta)
{
	struct block_build b = {
		.backend = be,
		.tenant = TENANT_DEFAULT,
		.first_wall_ns = UINT64_C(1700000000000000000),
		.last_wall_ns = UINT64_C(1700000000000000000) + 1200 * NS_PER_S,
		.requests = requests,
		.n_requests = N_REQUESTS,
		.n_spans_expected = (size_t)N_REQUESTS * PAYLOAD_SPANS,
	};
	uint64_t n_spans = (uint64_t)N_REQUESTS * PAYLOAD_SPANS;
	double start = thread_cpu_ns(), ns;
	struct err err = ERR_INIT;

	must(block_build(&b, meta, &err), &err);
	ns = (thread_cpu_ns() - start) / (double)n_spans;
	if (b.n_spans != n_spans || b.n_duplicates + b.n_conflicting != 0 ||
	    meta->objects != n_spans / s->spans_per_trace) {
		fprintf(stderr, "%s: the block has %llu spans, %llu traces\n", s->name,
			(unsigned long long)b.n_spans, (unsigned long long)meta->objects);
		exit(2);
	}
	return ns;
}

/* ---- the reference ---- */

static void read_pages(struct shape *s, const struct block_meta *meta)
{
	struct err err = ERR_INIT;
	struct block_reader *r = block_reader_new(be, meta, NULL, &err);
	struct buf index = BUF_INIT;
	uint32_t n_pages = block_index_pages(meta->records, meta->index_page_size);

	must(r == NULL ? -1 : 0, &err);
	for (uint32_t p = 0; p < n_pages; p++) {
		uint32_t n = block_index_on_page(meta->records, meta->index_page_size, p);

		buf_reset(&index);
		must(block_reader_read_index_page(r, p, &index, &err), &err);
		for (uint32_t i = 0; i < n; i++) {
			struct block_index_record rec;
			struct bytes body;

			block_index_page_record(buf_bytes(&index), i, &rec);
			must(block_reader_page(r, &rec, &body, &err), &err);
			buf_add_bytes(&s->pages, body);
			s->page_ends = xgrow(s->page_ends, &s->cap_pages, s->n_pages + 1,
					     sizeof(*s->page_ends));
			s->page_ends[s->n_pages++] = s->pages.n;
		}
	}
	s->block_bytes = meta->size;
	buf_fini(&index);
	block_reader_free(r);
}

static double compress_pages(struct shape *s)
{
	static struct buf out;
	ZSTD_CCtx *z = ZSTD_createCCtx();
	double start, ns;
	size_t at = 0;

	s->zstd_bytes = 0;
	start = thread_cpu_ns();
	for (size_t i = 0; i < s->n_pages; at = s->page_ends[i++]) {
		size_t n = s->page_ends[i] - at, room = ZSTD_compressBound(n);

		buf_reset(&out);
		s->zstd_bytes +=
			ZSTD_compressCCtx(z, buf_reserve(&out, room), room, s->pages.p + at, n, 1);
	}
	ns = (thread_cpu_ns() - start) / N_REQUESTS / PAYLOAD_SPANS;
	ZSTD_freeCCtx(z);
	return ns;
}

/* ---- both ---- */

static void measure(struct shape *s)
{
	for (int round = 0; round < ROUNDS; round++) {
		struct err err = ERR_INIT;
		struct block_meta meta;

		report_progress("%s, round %d of %d", s->name, round + 1, ROUNDS);
		report_keep_best(&s->build_ns, build(s, &meta));
		if (round == 0)
			read_pages(s, &meta);
		must(block_delete(be, meta.tenant, meta.id, &err), &err);
		report_keep_best(&s->zstd_ns, compress_pages(s));
	}
}

static bool report(const struct shape *s)
{
	char what[80];

	report_progress("%s", "");
	printf("shape: %d requests, %d spans, %u a trace, %s; %zu pages of %zu KB, packed %zu "
	       "bytes a span (zstd alone %zu)\n",
	       N_REQUESTS, N_REQUESTS * PAYLOAD_SPANS, s->spans_per_trace, s->name, s->n_pages,
	       s->pages.n / s->n_pages / 1000, s->block_bytes / N_REQUESTS / PAYLOAD_SPANS,
	       s->zstd_bytes / N_REQUESTS / PAYLOAD_SPANS);
	snprintf(what, sizeof(what), "(e) block built, %s", s->name);
	return report_ratio(what, s->build_ns, "ns/span", "zstd level 1, same pages", s->zstd_ns,
			    AT_MOST, TARGET_RATIO);
}

/* ---- the whole way ---- */

static const char store_config[] =
	"receivers: {otlp: {protocols: {grpc: {endpoint: '127.0.0.1:%u'}}}}\n"
	"exporters: {blocks: {max_block_age: 1s}}\n"
	"extensions: {trace_store: {local: {path: '%s/data'}}}\n"
	"service: {telemetry: {metrics: {level: none}}, extensions: [trace_store],"
	" pipelines: {traces: {receivers: [otlp], exporters: [blocks]}}}\n";

/* CPU so far, once it stands still: the last section is built max_block_age after it was opened. */
static double idle_cpu_ns(const struct child *c)
{
	double before = -1, now = child_cpu_ns(c);

	for (int quiet = 0; quiet<4; quiet = now - before> 1e6 ? 0 : quiet + 1) {
		usleep(IDLE_US);
		before = now;
		now = child_cpu_ns(c);
	}
	return now;
}

/* Traces of the load generator, every span with ids of its own: equal ones would be left out. */
static void send_traces(uint16_t port)
{
	char path[300], endpoint[64], n[32];
	char *argv[] = { path,
			 "gen",
			 "--endpoint",
			 endpoint,
			 "--traces",
			 n,
			 "--batch",
			 "224",
			 "--spans-per-trace",
			 "10",
			 "--span-bytes",
			 "434",
			 "--connections",
			 "2",
			 "--concurrency",
			 "32",
			 "--quiet",
			 NULL };
	struct child c = { .cpu = CHILD_LOAD_CPU };

	snprintf(path, sizeof(path), "%s", child_binary());
	snprintf(endpoint, sizeof(endpoint), "127.0.0.1:%u", port);
	snprintf(n, sizeof(n), "%d", STORE_TRACES);
	child_start_argv(&c, folder, "gen", argv);
	if (child_wait(&c) != 0)
		child_die(&c, "not every span was acknowledged");
}

static double store_all(void)
{
	uint16_t port = child_free_port();
	struct child c = { 0 };
	struct child_balance b;
	char config[1024];
	double ns;

	snprintf(config, sizeof(config), store_config, port, folder);
	child_start(&c, folder, "store", "run", config);
	child_wait_listening(&c, (uint16_t[]){ port, 0 });
	ns = -idle_cpu_ns(&c);
	send_traces(port);
	ns += idle_cpu_ns(&c);
	child_stop(&c, &b);
	if (b.accepted != STORE_TRACES * 10 || b.delivered != b.accepted) {
		fprintf(stderr, "store: %llu spans accepted, %llu in blocks\n", b.accepted,
			b.delivered);
		exit(2);
	}
	return ns / STORE_TRACES / 10;
}

static void measure_store(void)
{
	double best = 0;

	for (int round = 0; round < STORE_ROUNDS; round++) {
		char data[80];

		report_progress("gRPC to blocks, round %d of %d", round + 1, STORE_ROUNDS);
		report_keep_best(&best, store_all());
		snprintf(data, sizeof(data), "%s/data", folder);
		child_folder_remove(data);
	}
	report_beside("(e) gRPC in, log, fsync, block: whole process", best, "ns/span",
		      "Tempo 2.10 v2, one binary", 38000);
}

int main(void)
{
	static struct shape beside = { .name = "traces lie side by side", .spans_per_trace = 4 };
	static struct shape spread = { .name = "spans lie spread",
				       .spans_per_trace = SPREAD_SPANS };
	struct err err = ERR_INIT;
	bool ok = true;

	child_folder(folder, sizeof(folder));
	child_pin(CHILD_LOAD_CPU);
	measure_store();
	child_pin(CHILD_SERVER_CPU);
	be = backend_local_open(&(struct backend_local_options){ .path = folder }, &err);
	must(be == NULL ? -1 : 0, &err);
	make_requests();
	measure(&beside);
	ok &= report(&beside);
	buf_fini(&beside.pages);
	spread_traces();
	measure(&spread);
	ok &= report(&spread);
	backend_free(be);
	child_folder_remove(folder);
	return !ok;
}
