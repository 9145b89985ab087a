/* SPDX-License-Identifier: Apache-2.0
 *
 * bench_query_s3.c - traces by id out of 10,000 blocks of a 64-shard tenant in a real bucket, by a
 * front end and two queriers: requests to the bucket per look-up, time, start, memory.
 *
 *   bench --HTTP--> front end --> querier, querier --> SeaweedFS
 *
 * Blocks are small (50 traces), so that they can be written in a minute, but their filters are as
 * full as those of large ones: one in a hundred says "maybe" for nothing, and costs a request. A
 * trace in four is in two blocks. SPANMILL_BENCH_BLOCKS=N is another number of blocks.
 */
#include "tests/bench/bucket.h"
#include "tests/bench/report.h"

#include "base/mem.h"
#include "base/parallel.h"
#include "base/rng.h"
#include "blocks/backend_s3.h"
#include "blocks/block.h"
#include "blocks/block_object.h"
#include "blocks/block_writer.h"
#include "blocks/tenant_index.h"
#include "base/str.h"
#include "net/http_client.h"
#include "wire/pb.h"

#include <pthread.h>

enum {
	BLOCKS = 10000,
	SHARDS = 64,
	TRACES = 50,   /* that a block begins */
	REPEATED = 12, /* of those, in the next block of the shard as well */
	WRITERS = 16,
	LOOKUPS = 500,
	WARMING = 8 * SHARDS, /* look-ups that fill the caches: every shard several times */
};

struct trace_id {
	uint8_t id[16];
};

struct bench {
	char folder[280];
	struct bucket bucket;
	struct backend *be;
	struct rng rng;
	size_t n_blocks;
	struct trace_id *ids; /* TRACES per block */
	struct block_meta *metas;
	struct child queriers[2], front;
	uint16_t ports[3], metrics[3]; /* of the queriers, and of the front end */
	struct http_client *http;
};

static void give_up(const char *what, const char *why)
{
	fprintf(stderr, "bench_query_s3: %s: %s\n", what, why);
	exit(2);
}

static size_t blocks_wanted(void)
{
	const char *text = getenv("SPANMILL_BENCH_BLOCKS");
	uint64_t n = BLOCKS;

	if (text != NULL && (str_to_u64(bytes_str(text), &n) < 0 || n < SHARDS || n > 100000))
		give_up("SPANMILL_BENCH_BLOCKS", "from 64 to 100000");
	return (size_t)n;
}

/* ---- writing ---- */

static int by_id(const void *a, const void *b)
{
	return memcmp(a, b, 16);
}

static struct block_shard shard_of(size_t block)
{
	return (struct block_shard){ "murmur2", SHARDS, (uint32_t)(block % SHARDS) };
}

/* Random ids, each to a block of its shard that has room. */
static void make_ids(struct bench *b)
{
	size_t n[SHARDS] = { 0 }, left = b->n_blocks * TRACES;

	b->ids = xcalloc(left, sizeof(*b->ids));
	while (left > 0) {
		struct trace_id t;
		uint32_t shard = 0;
		size_t block;

		store_be64(t.id, rng_next(&b->rng));
		store_be64(t.id + 8, rng_next(&b->rng));
		while (!block_shard_may_hold(&(struct block_shard){ "murmur2", SHARDS, shard },
					     t.id))
			shard++;
		block = n[shard] / TRACES * SHARDS + shard;
		if (block >= b->n_blocks)
			continue;
		b->ids[block * TRACES + n[shard] % TRACES] = t;
		n[shard]++;
		left--;
	}
}

/* A TracesData of one span; `part` tells the blocks of a trace apart. */
static void put_trace(struct buf *out, const uint8_t id[16], uint64_t part)
{
	size_t rs = pb_begin(out, 1), ss = pb_begin(out, 2), span = pb_begin(out, 2);
	uint8_t span_id[8];

	store_be64(span_id, part + 1);
	pb_put_bytes(out, 1, (struct bytes){ id, 16 });
	pb_put_bytes(out, 2, (struct bytes){ span_id, 8 });
	pb_put_str(out, 5, "GET /api/v1/orders");
	pb_put_fixed64(out, 7, NS_PER_S);
	pb_put_fixed64(out, 8, 2 * NS_PER_S);
	pb_end(out, span);
	pb_end(out, ss);
	pb_end(out, rs);
}

/* The block's own traces, and the first few of the block before it in the shard, in order. */
static size_t traces_of(const struct bench *b, size_t block, struct trace_id *v)
{
	size_t n = TRACES;

	memcpy(v, &b->ids[block * TRACES], TRACES * sizeof(*v));
	if (block >= SHARDS) {
		memcpy(v + n, &b->ids[(block - SHARDS) * TRACES], REPEATED * sizeof(*v));
		n += REPEATED;
	}
	qsort(v, n, sizeof(*v), by_id);
	return n;
}

static void write_block(void *arg, size_t block, unsigned worker)
{
	/* Of 128 bytes: as full as a shard of 100 KiB is at 85,000 traces. */
	static const struct block_writer_options options = { .bloom_shard_bytes = 128 };
	struct bench *b = arg;
	struct trace_id v[TRACES + REPEATED];
	size_t n = traces_of(b, block, v);
	struct err err = ERR_INIT;
	struct block_writer *w = block_writer_open(b->be, "t", NULL, &options, &err);
	struct block_meta *m = &b->metas[block];
	uint8_t head[BLOCK_OBJECT_HEAD];
	struct buf otlp = BUF_INIT;

	(void)worker;
	for (size_t i = 0; w != NULL && i < n; i++) {
		struct bytes pieces[2];

		buf_reset(&otlp);
		put_trace(&otlp, v[i].id, block);
		pieces[0] = (struct bytes){ head, block_object_head(head, 1, 2, otlp.n) };
		pieces[1] = buf_bytes(&otlp);
		if (block_writer_add(w, v[i].id, pieces, 2, &err) < 0)
			give_up("write", err.msg);
	}
	if (w == NULL || block_writer_finish(w, m, &err) < 0)
		give_up("write", err.msg);
	m->shard = shard_of(block);
	if (block_publish(b->be, m, &err) < 0)
		give_up("publish", err.msg);
	buf_fini(&otlp);
	if (block % 100 == 0)
		report_progress("block %zu of %zu", block, b->n_blocks);
}

static void write_index(struct bench *b)
{
	struct tenant_index x;
	struct err err = ERR_INIT;

	tenant_index_init(&x, NULL);
	for (size_t i = 0; i < b->n_blocks; i++)
		if (tenant_index_add(&x, &x.live, &b->metas[i], &err) < 0)
			give_up("index", err.msg);
	if (tenant_index_write(b->be, "t", &x, &err) < 0)
		give_up("index", err.msg);
	tenant_index_fini(&x);
}

static void write_all(struct bench *b)
{
	struct err err = ERR_INIT;

	b->be = backend_s3_open(
		&(struct backend_s3_options){
			.client = { .endpoint = b->bucket.endpoint,
				    .bucket = b->bucket.name,
				    .credentials = { .access_key = b->bucket.access_key,
						     .secret_key = b->bucket.secret_key } } },
		&err);
	if (b->be == NULL)
		give_up("open", err.msg);
	make_ids(b);
	b->metas = xcalloc(b->n_blocks, sizeof(*b->metas));
	parallel_run(b->n_blocks, WRITERS, write_block, b);
	write_index(b);
	report_progress("%s", "");
}

/* ---- processes ---- */

static int get(struct bench *b, uint16_t port, const char *path, struct http_reply *reply)
{
	static const struct http_header headers[] = { { "X-Scope-OrgID", "t" },
						      { "Accept", "application/protobuf" } };
	struct err err = ERR_INIT;
	char url[200];

	snprintf(url, sizeof(url), "http://127.0.0.1:%u%s", port, path);
	if (http_client_call(b->http,
			     &(struct http_call){ .url = url, .headers = headers, .n_headers = 2 },
			     reply, &err) < 0)
		give_up("ask", err.msg);
	return reply->status;
}

/* Until a process says that it is ready; it listens, and answers 503, before that. */
static void wait_ready(struct bench *b, const struct child *c, uint16_t port)
{
	int status;

	do {
		struct http_reply reply = HTTP_REPLY_INIT;

		status = get(b, port, "/ready", &reply);
		http_reply_fini(&reply);
		if (status != 200 && clock_mono_ns() - c->exec_ns > 60 * NS_PER_S)
			give_up("start", "not ready within 60 s");
		if (status != 200)
			usleep(1000);
	} while (status != 200);
}

static void start_querier(struct bench *b, int i, double *ready_ms)
{
	char config[1500], name[16];

	b->ports[i] = child_free_port();
	b->metrics[i] = child_free_port();
	snprintf(
		config, sizeof(config),
		"{extensions: {trace_store: {backend: s3, blocklist_poll: 1h, s3: {endpoint: '%s', "
		"bucket: %s, access_key: '%s', secret_key: '%s'}}, query: {endpoint: "
		"'127.0.0.1:%u'}}, service: {extensions: [trace_store, query], telemetry: "
		"{metrics: {address: '127.0.0.1:%u'}}}}",
		b->bucket.endpoint, b->bucket.name, b->bucket.access_key, b->bucket.secret_key,
		b->ports[i], b->metrics[i]);
	snprintf(name, sizeof(name), "querier%d", i);
	child_start(&b->queriers[i], b->folder, name, "run", config);
	child_wait_listening(&b->queriers[i], (uint16_t[]){ b->ports[i], b->metrics[i], 0 });
	wait_ready(b, &b->queriers[i], b->ports[i]);
	*ready_ms = (double)(clock_mono_ns() - b->queriers[i].exec_ns) / 1e6;
}

static void start_front(struct bench *b)
{
	char config[600];

	b->ports[2] = child_free_port();
	b->metrics[2] = child_free_port();
	snprintf(config, sizeof(config),
		 "{extensions: {query: {endpoint: '127.0.0.1:%u', queriers: ['127.0.0.1:%u', "
		 "'127.0.0.1:%u']}}, service: {extensions: [query], telemetry: {metrics: {address: "
		 "'127.0.0.1:%u'}}}}",
		 b->ports[2], b->ports[0], b->ports[1], b->metrics[2]);
	child_start(&b->front, b->folder, "front", "run", config);
	child_wait_listening(&b->front, (uint16_t[]){ b->ports[2], b->metrics[2], 0 });
	wait_ready(b, &b->front, b->ports[2]);
}

/* ---- asking ---- */

/* Both queriers' sum of a metric with this label (part of it; "" for any). */
static double metric(struct bench *b, const char *name, const char *label)
{
	double sum = 0;

	for (int i = 0; i < 2; i++) {
		struct http_reply reply = HTTP_REPLY_INIT;
		char *line, *rest;

		get(b, b->metrics[i], "/metrics", &reply);
		rest = (char *)(uintptr_t)buf_cstr(&reply.body);
		while ((line = strsep(&rest, "\n")) != NULL)
			if (strncmp(line, name, strlen(name)) == 0 && strstr(line, label) != NULL)
				sum += strtod(strrchr(line, ' '), NULL);
		http_reply_fini(&reply);
	}
	return sum;
}

static double gets_of(struct bench *b)
{
	return metric(b, "spanmill_s3_requests", "op=\"get\"");
}

/* Fields 1 of the trace: one for each resource of ours, which are equal, so spans are counted by
 * their names. */
static size_t count_spans(const struct buf *body)
{
	static const char name[] = "GET /api/v1/orders";
	const uint8_t *p = body->p, *end = body->p + body->n;
	size_t n = 0;

	while (p != NULL && (p = memmem(p, (size_t)(end - p), name, sizeof(name) - 1)) != NULL) {
		p += sizeof(name) - 1;
		n++;
	}
	return n;
}

/* A trace at random, through the front end; ms. What comes back must be all of it. */
static double look_up(struct bench *b)
{
	size_t block = rng_below(&b->rng, (uint32_t)b->n_blocks), at = rng_below(&b->rng, TRACES);
	size_t want = at < REPEATED && block + SHARDS < b->n_blocks ? 2 : 1, got;
	struct http_reply reply = HTTP_REPLY_INIT;
	char path[80] = "/api/traces/";
	uint64_t begin;
	double ms;

	str_hex(b->ids[block * TRACES + at].id, 16, path + strlen(path));
	begin = clock_mono_ns();
	if (get(b, b->ports[2], path, &reply) != 200) {
		fprintf(stderr, "%d %s\n", reply.status, buf_cstr(&reply.body));
		give_up("look-up", "not found, or not all of it");
	}
	ms = (double)(clock_mono_ns() - begin) / 1e6;
	got = count_spans(&reply.body);
	if (got != want)
		give_up("look-up", "spans are missing");
	http_reply_fini(&reply);
	return ms;
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double percentile(double *v, size_t n, double p)
{
	qsort(v, n, sizeof(*v), by_value);
	return v[(size_t)((double)(n - 1) * p)];
}

/* ---- measures ---- */

static void measure_cold(struct bench *b, const double ready_ms[2])
{
	double before, first;

	report_value("query over S3: start of a querier", MAX(ready_ms[0], ready_ms[1]), "ms");
	report_value("query over S3: start of a querier: GETs", gets_of(b) / 2, "");
	report_value("query over S3: start of a querier: LISTs",
		     metric(b, "spanmill_s3_requests", "op=\"list\"") / 2, "");
	report_value("query over S3: start of a querier: meta.json read",
		     metric(b, "spanmill_blocks_metas_read", "") / 2, "");
	if (metric(b, "spanmill_blocks_listed", "") != 2.0 * (double)b->n_blocks)
		give_up("start", "blocks are missing");
	before = gets_of(b);
	first = look_up(b);
	report_value("query over S3: first look-up of a shard", first, "ms");
	report_value("query over S3: first look-up of a shard: GETs", gets_of(b) - before, "");
}

static bool measure_warm(struct bench *b)
{
	static double n[LOOKUPS], ms[LOOKUPS];
	size_t n_asked = MIN(b->n_blocks / 2, (size_t)LOOKUPS);
	bool ok;

	for (size_t i = 0; i < n_asked; i++) {
		double before = gets_of(b);

		ms[i] = look_up(b);
		n[i] = gets_of(b) - before;
	}
	ok = report_limit("query over S3: GETs of a look-up, p50", percentile(n, n_asked, 0.5), "",
			  "Tempo: a bloom GET a block, warm or not", AT_MOST, 4);
	ok &= report_limit("query over S3: GETs of a look-up, p99", percentile(n, n_asked, 0.99),
			   "", "-", AT_MOST, 12);
	report_value("query over S3: look-up, p50", percentile(ms, n_asked, 0.5), "ms");
	report_value("query over S3: look-up, p99", percentile(ms, n_asked, 0.99), "ms");
	report_value("query over S3: cached by both queriers",
		     metric(b, "spanmill_blocks_cache_bytes", "") / 1e6, "MB");
	report_value("query over S3: memory of a querier",
		     child_status_kib(&b->queriers[0], "RssAnon:") / 1024, "MiB");
	return ok;
}

int main(void)
{
	struct bench b = { .n_blocks = blocks_wanted() };
	double ready_ms[2], begin_s;
	bool ok;

	rng_seed(&b.rng, 1);
	child_folder(b.folder, sizeof(b.folder));
	if (!bucket_start(&b.bucket, b.folder))
		give_up("SeaweedFS", "does not start");
	begin_s = (double)clock_mono_ns() / 1e9;
	write_all(&b);
	printf("%zu blocks written in %.0f s\n", b.n_blocks,
	       (double)clock_mono_ns() / 1e9 - begin_s);
	b.http = http_client_new(NULL, NULL);
	for (int i = 0; i < 2; i++)
		start_querier(&b, i, &ready_ms[i]);
	start_front(&b);
	measure_cold(&b, ready_ms);
	for (size_t i = 0; i < WARMING; i++)
		look_up(&b);
	ok = measure_warm(&b);
	child_stop(&b.front, NULL);
	for (int i = 0; i < 2; i++)
		child_stop(&b.queriers[i], NULL);
	http_client_free(b.http);
	backend_free(b.be);
	free(b.ids);
	free(b.metas);
	bucket_stop(&b.bucket);
	child_folder_remove(b.folder);
	return ok ? 0 : 1;
}
