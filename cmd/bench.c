/* SPDX-License-Identifier: Apache-2.0
 *
 * bench.c - `spanmill bench`: what the core steps cost a span on this machine, on one core.
 *
 * Best of several rounds over made-up requests, interleaved; CPU time of this thread. For sizing a
 * machine; `make bench` measures whole paths against a do-nothing server.
 */
#include "base/mem.h"
#include "cmd/commands.h"
#include "cmd/flags.h"
#include "cmd/gen_payload.h"
#include "net/content_coding.h"
#include "pipeline/batch.h"

#include <stdio.h>
#include <time.h>

enum { ROUNDS = 5, TRACES = 22, PER_TRACE = 10, N_SPANS = TRACES * PER_TRACE, REPEATS = 500 };

struct bench {
	struct buf request;
	struct batch *indexed;
	uint8_t keep[N_SPANS];
};

static double cpu_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static struct batch *index_request(struct bench *b)
{
	struct rcbuf *copy = rcbuf_new(NULL, b->request.n);
	struct otlp_result result;

	memcpy(copy->p, b->request.p, b->request.n);
	copy->n = b->request.n;
	return batch_from_otlp(copy, TENANT_DEFAULT, NULL, &result, NULL);
}

static void step_index(struct bench *b)
{
	batch_unref(index_request(b));
}

static void step_sample(struct bench *b)
{
	struct arena arena = ARENA_INIT;
	struct batch_encoding e;
	struct batch *kept = batch_filter(batch_ref(b->indexed), b->keep, DROP_SAMPLED);

	batch_encode(kept, &arena, &e);
	batch_unref(kept);
	arena_fini(&arena);
}

static void compress(struct bench *b, enum content_coding coding)
{
	struct buf out = BUF_INIT;

	content_encode(coding, 1, buf_bytes(&b->request), &out, NULL);
	buf_fini(&out);
}

static void step_gzip(struct bench *b)
{
	compress(b, CONTENT_GZIP);
}

static void step_zstd(struct bench *b)
{
	compress(b, CONTENT_ZSTD);
}

static const struct {
	const char *name;
	void (*run)(struct bench *b);
	int repeats;
} steps[] = {
	{ "copy and index, all checks", step_index, REPEATS },
	{ "keep 10 % and encode", step_sample, REPEATS },
	{ "gzip level 1", step_gzip, REPEATS / 20 },
	{ "zstd level 1", step_zstd, REPEATS / 20 },
};

static void make_request(struct bench *b)
{
	char *text = gen_payload_text(1);
	struct gen_shape shape = { PER_TRACE, 3, 10, 450, 1, text };
	struct gen_span spans[N_SPANS];

	for (uint64_t i = 0; i < TRACES; i++)
		gen_payload_trace(&shape, i, UINT64_C(1700000000000000000), spans + i * PER_TRACE);
	gen_payload_otlp(&shape, spans, N_SPANS, &b->request);
	b->indexed = index_request(b);
	for (size_t i = 0; i < N_SPANS; i += 10)
		b->keep[i] = 1;
	free(text);
}

static double time_step(struct bench *b, size_t i)
{
	double start = cpu_ns();

	for (int k = 0; k < steps[i].repeats; k++)
		steps[i].run(b);
	return (cpu_ns() - start) / steps[i].repeats / N_SPANS;
}

int cmd_bench(int argc, char **argv)
{
	static const struct flag_command command = {
		.name = "bench",
		.usage = "",
		.about = "Prints what the core steps cost a span on this machine, on one core.",
	};
	double best[COUNT_OF(steps)] = { 0 };
	struct bench b = { .request = BUF_INIT };
	const char *words[1];
	size_t n;

	switch (flags_parse(&command, argc, argv, words, 0, &n)) {
	case FLAG_HELP:
		return 0;
	case FLAG_BAD:
		return 1;
	case FLAG_RUN:
		break;
	}
	make_request(&b);
	printf("%d spans of %zu bytes a request; best of %d\n", N_SPANS, b.request.n / N_SPANS,
	       ROUNDS);
	for (int round = 0; round < ROUNDS; round++)
		for (size_t i = 0; i < COUNT_OF(steps); i++) {
			double ns = time_step(&b, i);

			best[i] = round == 0 ? ns : MIN(best[i], ns);
		}
	for (size_t i = 0; i < COUNT_OF(steps); i++)
		printf("%-28s %8.1f ns/span\n", steps[i].name, best[i]);
	batch_unref(b.indexed);
	buf_fini(&b.request);
	return 0;
}
