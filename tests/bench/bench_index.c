/* SPDX-License-Identifier: Apache-2.0
 *
 * bench_index.c - CPU per span of the data model's steps, and of protobuf-c unpacking the same
 * bytes.
 *
 * Runs of each step are interleaved, best of 5 counts; CPU time of the thread. `index` is
 * everything a receiver pays: counting, one allocation, the full index with UTF-8 and depth checks,
 * freeing. Exit status 1 when the ratio of protobuf-c to it is below the target of issue 3.
 */
#include "base/rcbuf.h"
#include "pipeline/batch.h"
#include "pipeline/ottl/ottl.h"
#include "tests/bench/payload.h"
#include "tests/bench/report.h"
#include "wire/attr_edit.h"
#include "wire/hash_sampling.h"
#include "wire/proto/otlp_trace.pb-c.h"

#include <time.h>

enum { N_REQUESTS = 32, ROUNDS = 5, REPEAT = 20 };
#define TARGET_RATIO 15.0

static struct rcbuf *requests[N_REQUESTS];
static struct batch *batches[N_REQUESTS];
static uint8_t keep[PAYLOAD_SPANS];
static size_t sink;

static struct batch *index_one(struct rcbuf *request)
{
	struct otlp_result result;
	struct batch *b = batch_from_otlp(rcbuf_ref(request), "bench", NULL, &result, NULL);

	assert(b != NULL && b->tables.n_spans == PAYLOAD_SPANS && result.rejects.n == 0);
	return b;
}

static void run_index(int i)
{
	batch_unref(index_one(requests[i]));
}

static void run_count(int i)
{
	struct otlp_counts c;

	sink += (size_t)otlp_count((struct bytes){ requests[i]->p, requests[i]->n }, &c, NULL);
}

static void run_encode(int i)
{
	static struct arena a;
	struct batch_encoding out;
	uint32_t n_whole = batches[i]->n_whole;

	batches[i]->n_whole = 0; /* otherwise the bytes go out as they came, for nothing */
	batch_encode(batches[i], &a, &out);
	batches[i]->n_whole = n_whole;
	sink += out.n_bytes;
	arena_reset(&a);
}

static void run_filter(int i)
{
	static struct arena a;
	struct batch *kept = batch_filter(batch_ref(batches[i]), keep, DROP_SAMPLED);
	struct batch_encoding out;

	batch_encode(kept, &a, &out);
	sink += out.n_bytes;
	arena_reset(&a);
	batch_unref(kept);
}

static void run_edit(int i)
{
	struct batch *b = batch_editable(batch_ref(batches[i]));

	for (uint32_t k = 0; k < b->tables.n_spans; k++)
		batch_set_trace_state(b, k, BYTES_LIT("ot=th:fd70a"));
	batch_unref(b);
}

static void run_attribute(int i)
{
	const struct span_tables *t = &batches[i]->tables;
	struct bytes value;

	for (uint32_t k = 0; k < t->n_spans; k++)
		sink += otlp_attribute((struct bytes){ t->spans[k].p, t->spans[k].len }, 9,
				       BYTES_LIT("sampling.priority"), &value);
}

static void run_protobuf_c(int i)
{
	Otlp__ExportTraceServiceRequest *m =
		otlp__export_trace_service_request__unpack(NULL, requests[i]->n, requests[i]->p);

	sink += m->n_resource_spans;
	otlp__export_trace_service_request__free_unpacked(m, NULL);
}

/* What the attributes processor does: one attribute more, one away, of each span. */
static void run_attributes(int i)
{
	static struct arena scratch;
	struct batch *b = batch_detached(batches[i]);
	struct attr_edit e;

	attr_edit_init(&e, 9, &scratch, &b->arena);
	for (uint32_t k = 0; k < b->tables.n_spans; k++) {
		const struct span_ref *sp = &b->tables.spans[k];
		const struct bytes whole = { sp->p, sp->len };
		struct bytes *fields;
		size_t n;

		arena_reset(&scratch);
		attr_edit_start(&e, &whole, 1);
		attr_edit_put(&e, BYTES_LIT("deployment.environment"), BYTES_LIT("\x0a\x04prod"));
		attr_edit_remove(&e, &e.v[e.n / 2]);
		fields = attr_edit_fields(&e, &n);
		batch_set_span(b, k, fields, n);
		sink += n;
	}
	attr_edit_fini(&e);
	batch_unref(b);
}

/* What the filter does: a condition that is false at its end. */
static void run_condition(int i)
{
	static struct ottl_condition *c;
	const struct span_tables *t = &batches[i]->tables;

	if (c == NULL)
		c = ottl_condition_new("IsMatch(name, \"^/health\") or attributes[\"none\"] == 1",
				       OTTL_SPAN, NULL);
	for (uint32_t k = 0; k < t->n_spans; k++) {
		const struct span_ref *sp = &t->spans[k];
		struct ottl_subject s = { .tables = t,
					  .span = sp,
					  .scope = sp->scope,
					  .resource = t->scopes[sp->scope].resource };

		sink += (size_t)ottl_condition_met(c, &s, NULL);
	}
}

static void run_hash(int i)
{
	const struct span_tables *t = &batches[i]->tables;

	for (uint32_t k = 0; k < t->n_spans; k++)
		sink += hash_sampling_randomness(22, t->spans[k].trace_id);
}

enum step_id {
	INDEX,
	COUNT,
	ENCODE,
	FILTER,
	EDIT,
	ATTRIBUTE,
	ATTRIBUTES,
	CONDITION,
	HASH,
	PROTOBUF_C
};

static struct step {
	const char *name;
	void (*run)(int i);
	double best_ns;
} steps[] = {
	[INDEX] = { "index", run_index, 0 },
	[COUNT] = { "counting, a part of indexing", run_count, 0 },
	[ENCODE] = { "encode all", run_encode, 0 },
	[FILTER] = { "filter 10 % and encode", run_filter, 0 },
	[EDIT] = { "set trace_state on a copy of the index", run_edit, 0 },
	[ATTRIBUTE] = { "look for an attribute that is not there", run_attribute, 0 },
	[ATTRIBUTES] = { "add and remove an attribute, with a copy of the index", run_attributes,
			 0 },
	[CONDITION] = { "a condition: a pattern and an attribute", run_condition, 0 },
	[HASH] = { "hash_seed's hash of a trace id", run_hash, 0 },
	[PROTOBUF_C] = { "protobuf-c unpack and free", run_protobuf_c, 0 },
};

static double cpu_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static void measure(struct step *s)
{
	double start = cpu_ns(), ns;

	for (int k = 0; k < REPEAT; k++)
		for (int i = 0; i < N_REQUESTS; i++)
			s->run(i);
	ns = (cpu_ns() - start) / (REPEAT * N_REQUESTS * PAYLOAD_SPANS);
	report_keep_best(&s->best_ns, ns);
}

static size_t make_requests(void)
{
	struct buf text = BUF_INIT;
	size_t bytes = 0;

	for (int i = 0; i < N_REQUESTS; i++) {
		buf_reset(&text);
		payload_request(&text, PAYLOAD_SPANS, (uint64_t)i + 1);
		requests[i] = rcbuf_new(NULL, text.n);
		memcpy(requests[i]->p, text.p, text.n);
		requests[i]->n = text.n;
		batches[i] = index_one(requests[i]);
		bytes += text.n;
	}
	for (uint32_t i = 0; i < PAYLOAD_SPANS; i++)
		keep[i] = i % 10 == 3;
	buf_fini(&text);
	return bytes;
}

int main(void)
{
	size_t bytes = make_requests();
	bool ok;

	printf("shape: %d requests of %zu bytes, %d spans of %zu bytes and 10 attributes\n",
	       N_REQUESTS, bytes / N_REQUESTS, PAYLOAD_SPANS, bytes / N_REQUESTS / PAYLOAD_SPANS);
	for (int round = 0; round < ROUNDS; round++)
		for (size_t i = 0; i < COUNT_OF(steps); i++) {
			report_progress("round %d of %d: %s", round + 1, ROUNDS, steps[i].name);
			measure(&steps[i]);
		}
	for (size_t i = INDEX + 1; i < PROTOBUF_C; i++)
		report_value(steps[i].name, steps[i].best_ns, "ns/span");
	ok = report_ratio("(b) index, full (UTF-8, depth), with its memory", steps[INDEX].best_ns,
			  "ns/span", steps[PROTOBUF_C].name, steps[PROTOBUF_C].best_ns, AT_LEAST,
			  TARGET_RATIO);
	for (int i = 0; i < N_REQUESTS; i++) {
		batch_unref(batches[i]);
		rcbuf_unref(requests[i]);
	}
	return !ok || sink == 0;
}
