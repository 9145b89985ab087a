/* SPDX-License-Identifier: Apache-2.0
 *
 * test_block_builder.c - requests of one tenant become one block that holds each span once.
 */
#include "tests/unit/section_fixture.h"

#include "base/hash.h"
#include "base/str.h"
#include "exporters/blocks/block_builder.h"
#include "exporters/blocks/live_section.h"
#include "tests/memory_backend.h"

#define WALL (UINT64_C(1790000000) * NS_PER_S)

/* Requests under construction, and the build over them. */
struct bench {
	struct backend *be;
	struct buf bytes[64];
	struct bytes requests[64];
	size_t n;
	struct budget budget;
	struct block_build b;
	struct block_meta meta;
};

static void bench_init(struct bench *t)
{
	memset(t, 0, sizeof(*t));
	t->be = memory_backend_new();
	t->budget.limit = 1 << 30;
}

static void add_request(struct bench *t, const struct test_span *spans, size_t n)
{
	assert_true(t->n < COUNT_OF(t->bytes));
	put_request(&t->bytes[t->n], spans, n);
	t->requests[t->n] = buf_bytes(&t->bytes[t->n]);
	t->n++;
}

static int build(struct bench *t, struct err *err)
{
	t->b = (struct block_build){
		.backend = t->be,
		.tenant = "acme",
		.budget = &t->budget,
		.first_wall_ns = WALL,
		.last_wall_ns = WALL + 30 * NS_PER_S,
		.requests = t->requests,
		.n_requests = t->n,
	};
	return block_build(&t->b, &t->meta, err);
}

static void bench_fini(struct bench *t)
{
	assert_int_equal(t->budget.used, 0);
	for (size_t i = 0; i < t->n; i++)
		buf_fini(&t->bytes[i]);
	backend_free(t->be);
}

/* Read a trace of the block back; false when it is not there. */
static bool read_trace(struct bench *t, const struct test_span *s, struct found_spans *f)
{
	struct block_reader *r = block_reader_new(t->be, &t->meta, NULL, NULL);
	struct bytes object = BYTES_EMPTY, segment;
	struct block_object o;
	uint8_t id[16];
	int found;

	assert_non_null(r);
	trace_id_of(s, id);
	found_reset(f);
	f->id = id;
	found = block_reader_find(r, id, &object, NULL);
	assert_true(found >= 0);
	if (found > 0) {
		assert_int_equal(block_object_parse(object, "v2", &o, NULL), 0);
		while (block_object_segment_next(&o.segments, &segment, NULL) > 0)
			assert_int_equal(note_piece(f, segment, NULL), 0);
	}
	f->id = NULL;
	block_reader_free(r);
	return found > 0;
}

enum { SPANS = 6000, TRACES = 900 };

static void test_random_spans_once_each(void **state)
{
	struct test_span *spans = xcalloc(SPANS, sizeof(*spans));
	size_t per_trace[TRACES] = { 0 }, done = 0, n_traces = 0;
	struct found_spans f = { NULL, 0, 0, NULL };
	struct bench t;
	struct rng rng;

	(void)state;
	bench_init(&t);
	rng_seed(&rng, 42);
	for (size_t i = 0; i < SPANS; i++) {
		uint64_t trace = rng_below(&rng, TRACES);

		spans[i] = plain_span(trace, i + 1);
		spans[i].padding = (uint32_t)rng_below(&rng, 900);
		spans[i].short_id = trace % 3 == 0;
		per_trace[trace]++;
	}
	while (done < SPANS) {
		size_t n = 1 + rng_below(&rng, 300);

		if (n > SPANS - done || t.n == COUNT_OF(t.bytes) - 1)
			n = SPANS - done;
		add_request(&t, spans + done, n);
		done += n;
	}
	assert_int_equal(build(&t, NULL), 0);
	for (size_t i = 0; i < TRACES; i++)
		n_traces += per_trace[i] > 0;
	assert_int_equal(t.b.n_spans, SPANS);
	assert_int_equal(t.b.n_traces, n_traces);
	assert_int_equal(t.meta.objects, n_traces);
	assert_int_equal(t.b.n_duplicates + t.b.n_conflicting, 0);
	for (size_t i = 0; i < SPANS; i++) {
		assert_true(read_trace(&t, &spans[i], &f));
		assert_int_equal(f.n, per_trace[spans[i].trace]);
		assert_int_equal(count_span(&f, spans[i].span), 1);
		i += rng_below(&rng, 20); /* not all: sanitizers are slow */
	}
	found_reset(&f);
	free(spans);
	bench_fini(&t);
}

/* Equal bytes are one span; other bytes under the same id and kind are both kept; another kind
 * (Zipkin's shared id) is another span. */
static void test_duplicates_and_conflicts(void **state)
{
	struct test_span a = plain_span(1, 11), b = plain_span(1, 12), other = plain_span(2, 11);
	struct test_span conflict = a, client = a;
	struct found_spans f = { NULL, 0, 0, NULL };
	struct bench t;

	(void)state;
	bench_init(&t);
	conflict.end_ns += 1;
	client.kind = 3;
	add_request(&t, (struct test_span[]){ a, b, other }, 3);
	add_request(&t, (struct test_span[]){ a, conflict, client }, 3);
	add_request(&t, (struct test_span[]){ conflict, a, b }, 3);
	assert_int_equal(build(&t, NULL), 0);
	assert_int_equal(t.b.n_spans, 9);
	assert_int_equal(t.b.n_duplicates, 4);
	assert_int_equal(t.b.n_conflicting, 1);
	assert_true(read_trace(&t, &a, &f));
	assert_int_equal(f.n, 4);
	assert_int_equal(count_span(&f, 11), 3);
	assert_int_equal(count_span(&f, 12), 1);
	assert_true(read_trace(&t, &other, &f));
	assert_int_equal(f.n, 1);
	found_reset(&f);
	bench_fini(&t);
}

/* A sender that gives every span the same id: looking each up among the others must not take the
 * square of their number. */
static void test_one_id_for_all(void **state)
{
	enum { N = 40000 };
	struct test_span *spans = xcalloc(N, sizeof(*spans));
	struct bench t;
	uint64_t t0;

	(void)state;
	bench_init(&t);
	for (size_t i = 0; i < N; i++) {
		spans[i] = plain_span(5, 77);
		spans[i].end_ns += i / 2;
	}
	add_request(&t, spans, N);
	t0 = clock_mono_ns();
	assert_int_equal(build(&t, NULL), 0);
	assert_true(clock_mono_ns() - t0 < 30 * NS_PER_S);
	assert_int_equal(t.b.n_duplicates, N / 2);
	assert_int_equal(t.b.n_conflicting, N / 2 - 1);
	free(spans);
	bench_fini(&t);
}

static void test_wild_clocks(void **state)
{
	static const struct {
		uint64_t start_ns, end_ns;
		int64_t start_s, end_s;
	} cases[] = {
		{ WALL, WALL + NS_PER_S, 1790000000, 1790000001 },
		{ WALL + 5, WALL + 7, 1790000000, 1790000001 },
		{ 0, 0, 1790000000 - 86400, 1790000000 - 86400 },
		{ 0, UINT64_MAX, 1790000000 - 86400, 1790000030 + 86400 },
		{ UINT64_MAX, 0, 1790000030 + 86400, 1790000030 + 86400 },
		{ UINT64_C(7258118400) * NS_PER_S, UINT64_C(7258118401) * NS_PER_S,
		  1790000030 + 86400, 1790000030 + 86400 },
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		struct test_span s = plain_span(1, 1);
		struct bench t;

		bench_init(&t);
		s.start_ns = cases[i].start_ns;
		s.end_ns = cases[i].end_ns;
		add_request(&t, &s, 1);
		assert_int_equal(build(&t, NULL), 0);
		assert_int_equal(t.meta.start.s, cases[i].start_s);
		assert_int_equal(t.meta.end.s, cases[i].end_s);
		assert_int_equal(t.meta.ingested_at.s, 1790000030);
		bench_fini(&t);
	}
}

static void test_single_huge_trace(void **state)
{
	enum { N = 20000 };
	struct test_span *spans = xcalloc(N, sizeof(*spans));
	struct found_spans f = { NULL, 0, 0, NULL };
	struct bench t;

	(void)state;
	bench_init(&t);
	for (size_t i = 0; i < N; i++) {
		spans[i] = plain_span(3, i + 1);
		spans[i].padding = 400;
	}
	for (size_t i = 0; i < 20; i++)
		add_request(&t, spans + i * N / 20, N / 20);
	assert_int_equal(build(&t, NULL), 0);
	assert_int_equal(t.b.n_traces, 1);
	assert_int_equal(t.meta.records, 1);
	assert_true(read_trace(&t, &spans[0], &f));
	assert_int_equal(f.n, N);
	qsort(f.v, f.n, sizeof(*f.v), compare_u64);
	for (size_t i = 0; i < N; i++)
		assert_int_equal(f.v[i], i + 1);
	/* Requests, tables, and the trace's page twice were on the books at the same time. */
	assert_true(t.budget.peak > (int64_t)N * (2 * 400 + 150));
	found_reset(&f);
	free(spans);
	bench_fini(&t);
}

/* What cannot be indexed again is left out and the rest is a block; nothing at all is no block. */
static void test_damaged_and_empty(void **state)
{
	static const uint8_t junk[] = { 0x0a, 0x7f, 1, 2, 3 };
	/* A Span of one known field of the wrong wire type: counted by the envelopes, then refused.
	 */
	static const uint8_t deep[] =
		"\x0a\x24\x12\x22\x12\x20\x0d\1\2\3\4aaaaaaaaaaaaaaaaaaaaaaaaaaa";
	struct test_span s = plain_span(1, 1);
	struct found_spans f = { NULL, 0, 0, NULL };
	struct bench t;

	(void)state;
	bench_init(&t);
	assert_int_equal(build(&t, NULL), 0);
	assert_int_equal(t.b.n_traces, 0);
	assert_int_equal(tally_backend(t.be).datas, 0);
	t.requests[t.n++] = (struct bytes){ junk, sizeof(junk) };
	t.requests[t.n++] = (struct bytes){ deep, sizeof(deep) - 1 };
	t.requests[t.n++] = BYTES_EMPTY;
	assert_int_equal(build(&t, NULL), 0);
	assert_int_equal(t.b.n_traces, 0);
	add_request(&t, &s, 1);
	assert_int_equal(build(&t, NULL), 0);
	assert_int_equal(t.b.n_spans, 1);
	assert_int_equal(t.b.n_traces, 1);
	assert_true(read_trace(&t, &s, &f));
	found_reset(&f);
	bench_fini(&t);
}

/* A store that fails at its n-th write: an error, and no object is left. */
static void test_failing_store(void **state)
{
	struct test_span spans[100];
	struct bench t;
	int n;

	(void)state;
	for (size_t i = 0; i < COUNT_OF(spans); i++)
		spans[i] = plain_span(i, i + 1);
	for (n = 0; n < 50; n++) {
		struct err err = ERR_INIT;

		bench_init(&t);
		add_request(&t, spans, COUNT_OF(spans));
		memory_of(t.be)->fail_after = n;
		if (build(&t, &err) == 0) {
			bench_fini(&t);
			break;
		}
		assert_int_equal(err.kind, ERR_UNAVAILABLE);
		assert_int_equal(memory_of(t.be)->n, 0);
		bench_fini(&t);
	}
	assert_in_range(n, 4, 49);
}

/* ---- requests that are read twice from where they lie ---- */

struct elsewhere {
	struct bench *t;
	size_t at, reads;
	struct buf one;          /* what `next` gave: gone at the next call */
	const uint8_t *keep[64]; /* by request */
	bool changes;            /* between the two readings */
	const struct live_section *noted;
};

static int next_elsewhere(void *arg, struct block_request *r, struct err *err)
{
	struct elsewhere *e = arg;

	(void)err;
	buf_fini(&e->one);
	if (e->at == e->t->n)
		return 0;
	buf_add_bytes(&e->one, e->t->requests[e->at]);
	*r = (struct block_request){ .otlp = buf_bytes(&e->one), .keep = e->keep[e->at] };
	e->at++;
	return 1;
}

static int read_elsewhere(void *arg, uint32_t request, uint32_t off, uint32_t n, void *to,
			  struct err *err)
{
	struct elsewhere *e = arg;
	struct bytes from = e->t->requests[request];

	(void)err;
	assert_true(off <= from.n && n <= from.n - off);
	memcpy(to, from.p + off, n);
	/* All: what lies between two runs does not matter. */
	for (uint32_t i = 0; e->changes && e->reads == 3 && i < n; i++)
		((uint8_t *)to)[i] ^= 4;
	e->reads++;
	return 0;
}

static int build_elsewhere(struct bench *t, struct elsewhere *e, uint64_t chunk, struct err *err)
{
	const struct block_input in = { next_elsewhere, read_elsewhere, e, 10 };
	int ret;

	e->t = t;
	t->b = (struct block_build){
		.backend = t->be,
		.tenant = "acme",
		.budget = &t->budget,
		.first_wall_ns = WALL,
		.last_wall_ns = WALL + 30 * NS_PER_S,
		.input = &in,
		.chunk_bytes = chunk,
	};
	ret = block_build(&t->b, &t->meta, err);
	buf_fini(&e->one);
	return ret;
}

static void data_of(struct bench *t, struct buf *out)
{
	char key[BACKEND_KEY_MAX + 1];

	assert_int_equal(block_key(key, "acme", t->meta.id, "data", NULL), 0);
	assert_int_equal(backend_read(t->be, key, 1 << 30, out, NULL), 0);
}

static void add_mixed(struct bench *t, size_t n, uint32_t padding)
{
	struct test_span *spans = xcalloc(n, sizeof(*spans));
	struct rng rng;

	rng_seed(&rng, 7);
	for (size_t i = 0; i < n; i++) {
		spans[i] = plain_span(rng_below(&rng, n / 4), i + 1);
		spans[i].padding = (uint32_t)rng_below(&rng, padding);
	}
	for (size_t i = 0; i < 50; i++)
		add_request(t, spans + i * (n / 50), n / 50);
	free(spans);
}

static void add_runs(struct bench *t, size_t n)
{
	struct test_span *spans = xcalloc(n, sizeof(*spans));

	for (size_t i = 0; i < n; i++)
		spans[i] = plain_span(i / 8, i + 1);
	for (size_t i = 0; i < 50; i++)
		add_request(t, spans + i * (n / 50), n / 50);
	free(spans);
}

/* The same block, whether the requests stay in memory or are read again, in any chunks. */
static void test_read_twice(void **state)
{
	static const uint64_t chunks[] = { 1, 200000, 0 };
	struct buf want = BUF_INIT, have = BUF_INIT;
	struct test_span huge = plain_span(3, 9000001);
	struct bench t;

	(void)state;
	bench_init(&t);
	add_mixed(&t, 4000, 900);
	huge.padding = 400000; /* more than one read, more than the smallest chunk */
	add_request(&t, &huge, 1);
	assert_int_equal(build(&t, NULL), 0);
	data_of(&t, &want);
	for (size_t i = 0; i < COUNT_OF(chunks); i++) {
		struct elsewhere e = { .at = 0 };

		assert_int_equal(build_elsewhere(&t, &e, chunks[i], NULL), 0);
		assert_int_equal(t.b.n_spans, 4001);
		buf_reset(&have);
		data_of(&t, &have);
		assert_int_equal(have.n, want.n);
		assert_memory_equal(have.p, want.p, want.n);
	}
	buf_fini(&want);
	buf_fini(&have);
	bench_fini(&t);
}

/* ---- requests whose notes were made when they came ---- */

static struct batch *batch_of(struct bytes otlp)
{
	struct rcbuf *copy = rcbuf_new_forced(NULL, otlp.n);
	struct otlp_result result;
	struct batch *b;

	memcpy(copy->p, otlp.p, otlp.n);
	copy->n = otlp.n;
	b = batch_from_otlp(copy, "acme", NULL, &result, NULL);
	assert_non_null(b);
	return b;
}

/* Pairs of requests are one batch, and one request of the input; of each third there are no notes.
 */
static void note_pairs(struct bench *t, struct live_section *s)
{
	struct segment_position at = { 1, 2, 3 };
	size_t n = 0;

	for (size_t i = 0; i + 1 < t->n; i += 2) {
		struct batch *v[2] = { batch_of(t->requests[i]), batch_of(t->requests[i + 1]) };
		struct batch *both = batch_concat(v, 2);
		struct arena arena = ARENA_INIT;
		struct early_notes notes = early_notes_of(both, &arena);

		assert_non_null(notes.v);
		assert_in_range(notes.n, 1, both->tables.n_spans);
		live_section_add(s, "acme", &at, i, i, &both->tables, n % 3 ? &notes : NULL);
		arena_fini(&arena);
		batch_unref(both);
		buf_add_bytes(&t->bytes[i], t->requests[i + 1]);
		t->requests[n++] = buf_bytes(&t->bytes[i]);
	}
	t->n = n;
}

static int next_noted(void *arg, struct block_request *r, struct err *err)
{
	struct elsewhere *e = arg;
	const struct live_section *s = e->noted;
	const struct live_record *rec = &s->records[e->at];

	if (e->at == e->t->n || rec->notes == NULL)
		return next_elsewhere(arg, r, err);
	*r = (struct block_request){ .notes = rec->notes,
				     .n_notes = rec->n_notes,
				     .heads = &s->notes->heads };
	e->at++;
	return 1;
}

/* The same block as from the bytes, and damage of a span is noticed. */
static void build_noted(struct bench *t, bool changes, const struct buf *want)
{
	struct budget budget = BUDGET_INIT(1 << 30);
	struct live_section *s = live_section_new(&budget);
	struct elsewhere e = { .t = t, .noted = s, .changes = changes };
	const struct block_input in = { next_noted, read_elsewhere, &e, 10 };
	struct buf have = BUF_INIT;
	struct err err = ERR_INIT;

	note_pairs(t, s);
	t->b.input = &in;
	if (changes) {
		assert_int_equal(block_build(&t->b, &t->meta, &err), -1);
		assert_int_equal(err.kind, ERR_CORRUPT);
		assert_true(t->b.is_changed);
	} else {
		assert_int_equal(block_build(&t->b, &t->meta, NULL), 0);
		data_of(t, &have);
		assert_int_equal(have.n, want->n);
		assert_memory_equal(have.p, want->p, want->n);
	}
	assert_true(budget.used >= (int64_t)live_section_memory(s));
	live_section_drop_notes(s);
	assert_null(s->records[1].notes);
	live_section_free(s);
	assert_int_equal(budget.used, 0);
	buf_fini(&have);
	buf_fini(&e.one);
}

static void test_from_notes(void **state)
{
	(void)state;
	for (int i = 0; i < 4; i++) {
		struct buf want = BUF_INIT;
		struct bench t;

		bench_init(&t);
		/* Spans of a trace far apart, or side by side. */
		if (i < 2)
			add_mixed(&t, 4000, 900);
		else
			add_runs(&t, 4000);
		assert_int_equal(build(&t, NULL), 0);
		data_of(&t, &want);
		build_noted(&t, i % 2, &want);
		buf_fini(&want);
		/* Each second request became part of the one before. */
		t.n = COUNT_OF(t.bytes);
		bench_fini(&t);
	}
}

/* An edited batch is not stored as it came. */
static void test_no_notes_of_edits(void **state)
{
	struct test_span spans[2] = { plain_span(1, 1), plain_span(2, 2) };
	struct arena arena = ARENA_INIT;
	struct batch *b;
	struct bench t;

	(void)state;
	bench_init(&t);
	add_request(&t, spans, 2);
	b = batch_editable(batch_of(t.requests[0]));
	assert_non_null(early_notes_of(b, &arena).v);
	batch_set_trace_state(b, 1, bytes_str("ot=th:8"));
	assert_null(early_notes_of(b, &arena).v);
	batch_unref(b);
	arena_fini(&arena);
	bench_fini(&t);
}

/* ---- limits ---- */

/* Memory is a chunk and 44 bytes a run, however large the requests are. */
static void test_memory_does_not_follow_bytes(void **state)
{
	enum { N = 30000, CHUNK = 1 << 20 };
	struct elsewhere e = { .at = 0 };
	struct bench t;
	size_t total = 0;

	(void)state;
	bench_init(&t);
	add_mixed(&t, N, 1000);
	for (size_t i = 0; i < t.n; i++)
		total += t.requests[i].n;
	assert_true(total > 15 << 20);
	assert_int_equal(build_elsewhere(&t, &e, CHUNK, NULL), 0);
	assert_int_equal(t.b.n_spans, N);
	assert_in_range(t.budget.peak, CHUNK, CHUNK + N * BLOCK_BUILD_RUN_BYTES * 3 / 2 + 700000);
	bench_fini(&t);
}

static void test_changed_between_readings(void **state)
{
	struct elsewhere e = { .changes = true };
	struct err err = ERR_INIT;
	struct bench t;

	(void)state;
	bench_init(&t);
	add_mixed(&t, 1000, 300);
	assert_int_equal(build_elsewhere(&t, &e, 0, &err), -1);
	assert_int_equal(err.kind, ERR_CORRUPT);
	assert_int_equal(memory_of(t.be)->n, 0);
	bench_fini(&t);
}

static void test_only_some_spans(void **state)
{
	static const uint8_t keep[3] = { 1, 0, 1 };
	struct test_span spans[3] = { plain_span(1, 1), plain_span(1, 2), plain_span(2, 3) };
	struct elsewhere e = { .keep = { keep } };
	struct found_spans f = { NULL, 0, 0, NULL };
	struct bench t;

	(void)state;
	bench_init(&t);
	add_request(&t, spans, 3);
	add_request(&t, spans + 1, 1);
	e.keep[1] = keep + 1;
	assert_int_equal(build_elsewhere(&t, &e, 0, NULL), 0);
	assert_int_equal(t.b.n_spans, 2);
	assert_true(read_trace(&t, &spans[0], &f));
	assert_int_equal(f.n, 1);
	assert_int_equal(count_span(&f, 1), 1);
	found_reset(&f);
	bench_fini(&t);
}

/* ---- shard ---- */

static uint32_t partition_of(const struct test_span *s, uint32_t count)
{
	uint8_t id[16];
	char hex[33];

	trace_id_of(s, id);
	str_hex(id, 16, hex);
	return (hash_murmur2(hex, 32) & 0x7fffffff) % count;
}

/* A block says which partition it is of only when that is so of each of its traces. */
static void test_shard_only_when_true(void **state)
{
	enum { COUNT = 4, INDEX = 2 };
	struct test_span spans[20], stranger = plain_span(0, 99);
	struct bench t;
	size_t n = 0;

	(void)state;
	for (uint64_t trace = 0; n < COUNT_OF(spans); trace++) {
		spans[n] = plain_span(trace, n + 1);
		n += partition_of(&spans[n], COUNT) == INDEX;
	}
	while (partition_of(&stranger, COUNT) == INDEX)
		stranger.trace++;
	for (int with = 0; with < 2; with++) {
		bench_init(&t);
		add_request(&t, spans, n);
		if (with)
			add_request(&t, &stranger, 1);
		t.b = (struct block_build){
			.backend = t.be,
			.tenant = "acme",
			.requests = t.requests,
			.n_requests = t.n,
			.shard_count = COUNT,
			.shard_index = INDEX,
		};
		assert_int_equal(block_build(&t.b, &t.meta, NULL), 0);
		assert_int_equal(t.meta.shard.count, with ? 0 : COUNT);
		assert_int_equal(t.meta.shard.index, with ? 0 : INDEX);
		assert_string_equal(t.meta.shard.hasher, with ? "" : "murmur2");
		bench_fini(&t);
	}
}

/* ---- spans of other shapes ---- */

/* How a sender may write what the builder looks at. */
struct shape {
	const char *name;
	bool has_parent, has_state, times_first, end_is_last;
	uint32_t kind;
	unsigned name_bytes;
};

static void put_shape(struct buf *out, const struct shape *h, const struct test_span *s,
		      uint32_t kind)
{
	static const uint8_t parent[8] = { 1, 2, 3 };
	static char name[300];
	uint8_t trace[16], span[8];
	size_t rs = pb_begin(out, 1), ss = pb_begin(out, 2), mark = pb_begin(out, 2);

	trace_id_of(s, trace);
	store_be64(span, s->span);
	memset(name, 'A', h->name_bytes);
	name[h->name_bytes] = '\0';
	if (h->times_first)
		pb_put_fixed64(out, 8, s->end_ns);
	pb_put_bytes(out, 1, (struct bytes){ trace, 16 });
	pb_put_bytes(out, 2, (struct bytes){ span, 8 });
	if (h->has_state)
		pb_put_str(out, 3, "a=b");
	if (h->has_parent)
		pb_put_bytes(out, 4, (struct bytes){ parent, 8 });
	if (h->name_bytes > 0)
		pb_put_str(out, 5, name);
	if (kind != 0)
		pb_put_uint(out, 6, kind);
	pb_put_fixed64(out, 7, s->start_ns);
	if (h->end_is_last)
		pb_put_fixed64(out, 40, 1); /* of a later version */
	if (!h->times_first)
		pb_put_fixed64(out, 8, s->end_ns);
	pb_end(out, mark);
	pb_end(out, ss);
	pb_end(out, rs);
}

/* One span twice and once more as another kind: its times, and which of them are equal. */
static void test_shapes(void **state)
{
	static const struct shape shapes[] = {
		{ "usual", true, false, false, false, 2, 20 },
		{ "a root", false, false, false, false, 1, 20 },
		{ "without a name", true, false, false, false, 3, 0 },
		{ "name of two bytes' length", true, false, false, false, 2, 200 },
		{ "name of the longest short length", true, false, false, false, 2, 127 },
		{ "with a state", true, true, false, false, 2, 20 },
		{ "times first", true, false, true, false, 2, 20 },
		{ "something between the times", true, false, false, true, 2, 20 },
		{ "kind of two bytes", true, false, false, false, 200, 20 },
		{ "no kind", true, false, false, false, 0, 20 },
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(shapes); i++) {
		struct test_span s = plain_span(1, 1);
		struct bench t;

		bench_init(&t);
		s.start_ns = WALL + (10 + i) * NS_PER_S;
		s.end_ns = s.start_ns + 3 * NS_PER_S;
		put_shape(&t.bytes[0], &shapes[i], &s, shapes[i].kind);
		put_shape(&t.bytes[0], &shapes[i], &s, shapes[i].kind);
		put_shape(&t.bytes[0], &shapes[i], &s, 4);
		t.requests[0] = buf_bytes(&t.bytes[0]);
		t.n = 1;
		assert_int_equal(build(&t, NULL), 0);
		if (t.b.n_duplicates != 1 || t.b.n_conflicting != 0 ||
		    (uint64_t)t.meta.start.s * NS_PER_S != s.start_ns ||
		    (uint64_t)t.meta.end.s * NS_PER_S != s.end_ns)
			fail_msg("%s: duplicates %llu, conflicts %llu", shapes[i].name,
				 (unsigned long long)t.b.n_duplicates,
				 (unsigned long long)t.b.n_conflicting);
		bench_fini(&t);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_random_spans_once_each),
		cmocka_unit_test(test_duplicates_and_conflicts),
		cmocka_unit_test(test_one_id_for_all),
		cmocka_unit_test(test_wild_clocks),
		cmocka_unit_test(test_single_huge_trace),
		cmocka_unit_test(test_damaged_and_empty),
		cmocka_unit_test(test_failing_store),
		cmocka_unit_test(test_read_twice),
		cmocka_unit_test(test_from_notes),
		cmocka_unit_test(test_shapes),
		cmocka_unit_test(test_no_notes_of_edits),
		cmocka_unit_test(test_memory_does_not_follow_bytes),
		cmocka_unit_test(test_changed_between_readings),
		cmocka_unit_test(test_only_some_spans),
		cmocka_unit_test(test_shard_only_when_true),
	};

	log_configure(LOG_ERROR + 1, LOG_CONSOLE);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
