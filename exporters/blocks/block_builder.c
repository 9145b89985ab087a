/* SPDX-License-Identifier: Apache-2.0
 *
 * block_builder.c - see block_builder.h.
 *
 * DESIGN: sorting by the first three id bytes with a radix (stable, 3 passes), then each run of
 * equal prefixes by full comparison. A plain qsort costs five times as much. Ids that share a
 * prefix (64-bit Zipkin ids are zero there) make long runs: those go to qsort, never to the
 * quadratic insertion.
 */
#include "exporters/blocks/block_builder.h"

#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/rng.h"
#include "blocks/block_object.h"
#include "wire/otlp_encode.h"

struct sort_key {
	uint64_t hi, lo; /* the trace id, big-endian */
	uint32_t span;
};

/* ---- tables of all requests together ---- */

/* A request that cannot be read again is left out: the rest of the section is none the worse. */
static void skip_request(size_t i, const struct err *err)
{
	log_error("a request of the log is damaged and lost", "request", LOG_NUM(i), "error",
		  err->msg);
}

static void count_all(const struct block_build *b, struct otlp_counts *sum)
{
	*sum = (struct otlp_counts){ 0 };
	for (size_t i = 0; i < b->n_requests; i++) {
		struct otlp_counts c;

		if (otlp_count(b->requests[i], &c, NULL) < 0)
			continue;
		sum->n_spans += c.n_spans;
		sum->n_scopes += c.n_scopes;
		sum->n_resources += c.n_resources;
		sum->n_heads += c.n_heads;
	}
}

static void shift_tables(struct span_tables *t, const struct span_tables *base)
{
	for (uint32_t i = 0; i < t->n_spans; i++)
		t->spans[i].scope += base->n_scopes;
	for (uint32_t i = 0; i < t->n_scopes; i++) {
		t->scopes[i].resource += base->n_resources;
		t->scopes[i].head += base->n_heads;
	}
	for (uint32_t i = 0; i < t->n_resources; i++)
		t->resources[i].head += base->n_heads;
}

static void index_all(const struct block_build *b, struct span_tables *all, struct arena *arena)
{
	for (size_t i = 0; i < b->n_requests; i++) {
		struct span_tables part = {
			.spans = all->spans + all->n_spans,
			.scopes = all->scopes + all->n_scopes,
			.resources = all->resources + all->n_resources,
			.heads = all->heads + all->n_heads,
		};
		struct otlp_result result;
		struct otlp_counts c;
		struct err err = ERR_INIT;

		/* The tables have no room for what count_all left out. */
		if (otlp_count(b->requests[i], &c, &err) < 0 ||
		    otlp_index(b->requests[i], &part, arena, &result, &err) < 0) {
			skip_request(i, &err);
			continue;
		}
		shift_tables(&part, all);
		all->n_spans += part.n_spans;
		all->n_scopes += part.n_scopes;
		all->n_resources += part.n_resources;
		all->n_heads += part.n_heads;
	}
}

/* ---- order ---- */

static int compare_keys(const void *a, const void *b)
{
	const struct sort_key *x = a, *y = b;

	if (x->hi != y->hi)
		return x->hi < y->hi ? -1 : 1;
	if (x->lo != y->lo)
		return x->lo < y->lo ? -1 : 1;
	return x->span < y->span ? -1 : x->span > y->span;
}

static void radix_pass(const struct sort_key *from, struct sort_key *to, size_t n, unsigned shift)
{
	size_t at[257] = { 0 };

	for (size_t i = 0; i < n; i++)
		at[(from[i].hi >> shift & 0xff) + 1]++;
	for (int k = 0; k < 256; k++)
		at[k + 1] += at[k];
	for (size_t i = 0; i < n; i++)
		to[at[from[i].hi >> shift & 0xff]++] = from[i];
}

static void insertion_sort(struct sort_key *v, size_t n)
{
	for (size_t i = 1; i < n; i++) {
		struct sort_key k = v[i];
		size_t j = i;

		for (; j > 0 && compare_keys(&v[j - 1], &k) > 0; j--)
			v[j] = v[j - 1];
		v[j] = k;
	}
}

enum { PREFIX_SHIFT = 40, SHORT_RUN = 24 };

static void sort_runs(struct sort_key *v, size_t n)
{
	for (size_t i = 0; i < n;) {
		size_t j = i + 1;

		while (j < n && v[j].hi >> PREFIX_SHIFT == v[i].hi >> PREFIX_SHIFT)
			j++;
		if (j - i <= SHORT_RUN)
			insertion_sort(v + i, j - i);
		else
			qsort(v + i, j - i, sizeof(*v), compare_keys);
		i = j;
	}
}

/* Keys of all spans, sorted; `spare` is as long. Returns the sorted one of the two. */
static struct sort_key *sort_spans(const struct span_tables *t, struct sort_key *keys,
				   struct sort_key *spare)
{
	for (uint32_t i = 0; i < t->n_spans; i++)
		keys[i] = (struct sort_key){ load_be64(t->spans[i].trace_id),
					     load_be64(t->spans[i].trace_id + 8), i };
	radix_pass(keys, spare, t->n_spans, PREFIX_SHIFT);
	radix_pass(spare, keys, t->n_spans, PREFIX_SHIFT + 8);
	radix_pass(keys, spare, t->n_spans, PREFIX_SHIFT + 16);
	sort_runs(spare, t->n_spans);
	return spare;
}

/* ---- one trace ---- */

struct build_state {
	struct block_build *b;
	struct span_tables tables;
	struct block_writer *writer;
	struct arena scratch; /* of one trace */
	struct arena rebuilt; /* heads that otlp_index put together */
	struct sort_key *keys, *spare;
	size_t charged;
	uint32_t *pick; /* spans of the trace at hand */
	struct bytes *pieces;
	size_t cap_pieces;
	/* Hash table of picked positions + 1: the first span of each id and kind by these, the
	 * others by all their bytes. */
	uint32_t *seen;
	size_t cap_seen; /* slots in use for this trace: a power of two, at most alloc_seen */
	size_t alloc_seen;
	uint64_t seed; /* senders choose span ids, and must not choose slots */
	uint64_t min_start_ns, max_end_ns;
};

static bool same_span(const struct span_ref *a, const struct span_ref *b)
{
	return a->kind == b->kind && memcmp(a->span_id, b->span_id, 8) == 0;
}

static bool same_bytes(const struct span_ref *a, const struct span_ref *b)
{
	return a->len == b->len && memcmp(a->p, b->p, a->len) == 0;
}

/* The slot of the picked span that `same` finds equal to sp, or the free one where it belongs. */
static uint32_t *find_seen(struct build_state *s, const struct span_ref *sp, uint64_t hash,
			   bool (*same)(const struct span_ref *, const struct span_ref *))
{
	size_t i = hash & (s->cap_seen - 1);

	while (s->seen[i] != 0 && !same(sp, &s->tables.spans[s->pick[s->seen[i] - 1]]))
		i = (i + 1) & (s->cap_seen - 1);
	return &s->seen[i];
}

/* Look the span up among those picked; true when its equal is there. Spans that only share id and
 * kind are found by their bytes: a sender may give all spans of a trace one id, and looking at each
 * of them again for each would take for ever. */
static bool is_duplicate(struct build_state *s, const struct span_ref *sp, uint32_t n_picked)
{
	uint32_t *slot =
		find_seen(s, sp, hash_xxh64(sp->span_id, 8, s->seed + sp->kind), same_span);

	if (*slot != 0) {
		if (same_bytes(sp, &s->tables.spans[s->pick[*slot - 1]]))
			return true;
		slot = find_seen(s, sp, hash_xxh64(sp->p, sp->len, s->seed), same_bytes);
		if (*slot != 0)
			return true;
		s->b->n_conflicting++;
	}
	*slot = n_picked + 1;
	return false;
}

static void size_seen(struct build_state *s, size_t n)
{
	size_t want = 16;

	while (want < n * 2)
		want *= 2;
	if (want > s->alloc_seen) {
		free(s->seen);
		s->seen = xmalloc(want * sizeof(*s->seen));
		s->alloc_seen = want;
	}
	/* Clearing a table sized for the largest trace for every small one would cost more than the
	 * traces. */
	s->cap_seen = want;
	memset(s->seen, 0, want * sizeof(*s->seen));
}

static uint32_t pick_trace(struct build_state *s, const struct sort_key *keys, uint32_t n)
{
	uint32_t picked = 0;

	size_seen(s, n);
	for (uint32_t i = 0; i < n; i++) {
		if (n > 1 && is_duplicate(s, &s->tables.spans[keys[i].span], picked))
			s->b->n_duplicates++;
		else
			s->pick[picked++] = keys[i].span;
	}
	return picked;
}

static void trace_times(const struct build_state *s, uint32_t n, uint64_t *start, uint64_t *end)
{
	*start = UINT64_MAX;
	*end = 0;
	for (uint32_t i = 0; i < n; i++) {
		const struct span_ref *sp = &s->tables.spans[s->pick[i]];

		*start = MIN(*start, sp->start_ns);
		*end = MAX(*end, MAX(sp->end_ns, sp->start_ns));
	}
}

static int write_trace(struct build_state *s, const struct sort_key *keys, uint32_t n,
		       struct err *err)
{
	uint8_t head[BLOCK_OBJECT_HEAD], id[16];
	struct otlp_pieces pieces;
	uint64_t start, end;

	n = pick_trace(s, keys, n);
	trace_times(s, n, &start, &end);
	s->min_start_ns = MIN(s->min_start_ns, start);
	s->max_end_ns = MAX(s->max_end_ns, end);
	arena_reset(&s->scratch);
	otlp_encode(&s->tables, s->pick, n, &s->scratch, &pieces);
	s->pieces = xgrow(s->pieces, &s->cap_pieces, pieces.n + 1, sizeof(*s->pieces));
	s->pieces[0] = (struct bytes){ head, block_object_head(head, block_object_seconds(start),
							       block_object_seconds(end),
							       pieces.n_bytes) };
	memcpy(s->pieces + 1, pieces.v, pieces.n * sizeof(*s->pieces));
	store_be64(id, keys->hi);
	store_be64(id + 8, keys->lo);
	return block_writer_add(s->writer, id, s->pieces, pieces.n + 1, err);
}

/* End of the run of equal ids that starts at i. */
static uint32_t trace_end(const struct sort_key *keys, uint32_t n, uint32_t i)
{
	uint32_t j = i + 1;

	while (j < n && keys[j].hi == keys[i].hi && keys[j].lo == keys[i].lo)
		j++;
	return j;
}

static int write_traces(struct build_state *s, const struct sort_key *keys, struct err *err)
{
	uint32_t n = s->tables.n_spans;

	for (uint32_t i = 0; i < n;) {
		uint32_t j = trace_end(keys, n, i);

		if (write_trace(s, keys + i, j - i, err) < 0)
			return -1;
		s->b->n_traces++;
		i = j;
	}
	return 0;
}

/* Span bytes of the largest trace: its page lies in memory twice, plain and packed. */
static size_t largest_trace(const struct build_state *s, const struct sort_key *keys)
{
	uint32_t n = s->tables.n_spans;
	size_t largest = 0;

	for (uint32_t i = 0; i < n;) {
		uint32_t j = trace_end(keys, n, i);
		size_t bytes = 0;

		for (; i < j; i++)
			bytes += s->tables.spans[keys[i].span].len;
		largest = MAX(largest, bytes);
	}
	return largest;
}

/* ---- the block ---- */

static uint64_t clamp(uint64_t t, uint64_t lo, uint64_t hi)
{
	return t < lo ? lo : t > hi ? hi : t;
}

/* A span's wild clock (1970, 2200) widens the block's range by a day at most. */
static void set_times(const struct build_state *s, struct block_meta *m)
{
	const uint64_t day = 86400 * NS_PER_S;
	uint64_t lo = s->b->first_wall_ns > day ? s->b->first_wall_ns - day : 0;
	uint64_t hi = s->b->last_wall_ns + day;

	m->start = block_time_of_ns(clamp(s->min_start_ns, lo, hi) / NS_PER_S * NS_PER_S);
	m->end = block_time_of_ns((clamp(s->max_end_ns, lo, hi) + NS_PER_S - 1) / NS_PER_S *
				  NS_PER_S);
	m->ingested_at = block_time_of_ns(s->b->last_wall_ns);
}

static void charge(struct build_state *s, size_t n)
{
	budget_force(s->b->budget, n);
	s->charged += n;
}

static void alloc_tables(struct build_state *s, const struct otlp_counts *c)
{
	charge(s, c->n_spans * (sizeof(*s->tables.spans) + sizeof(*s->pick) +
				2 * sizeof(struct sort_key)) +
			  c->n_scopes * sizeof(*s->tables.scopes) +
			  c->n_resources * sizeof(*s->tables.resources) +
			  c->n_heads * sizeof(*s->tables.heads));
	s->tables.spans = xmalloc(c->n_spans * sizeof(*s->tables.spans));
	s->tables.scopes = xmalloc(c->n_scopes * sizeof(*s->tables.scopes));
	s->tables.resources = xmalloc(c->n_resources * sizeof(*s->tables.resources));
	s->tables.heads = xmalloc(c->n_heads * sizeof(*s->tables.heads));
	s->pick = xmalloc(c->n_spans * sizeof(*s->pick));
	s->keys = xmalloc(c->n_spans * sizeof(*s->keys));
	s->spare = xmalloc(c->n_spans * sizeof(*s->spare));
}

static void free_state(struct build_state *s)
{
	free(s->tables.spans);
	free(s->tables.scopes);
	free(s->tables.resources);
	free(s->tables.heads);
	free(s->pick);
	free(s->keys);
	free(s->spare);
	free(s->pieces);
	free(s->seen);
	arena_fini(&s->scratch);
	arena_fini(&s->rebuilt);
	budget_release(s->b->budget, s->charged);
}

static int write_block(struct build_state *s, struct block_meta *meta, struct err *err)
{
	struct block_build *b = s->b;
	const struct sort_key *sorted = sort_spans(&s->tables, s->keys, s->spare);

	charge(s, 2 * largest_trace(s, sorted));
	s->writer = block_writer_open(b->backend, b->tenant, NULL, b->writer, err);
	if (s->writer == NULL)
		return -1;
	if (write_traces(s, sorted, err) < 0) {
		block_writer_abort(s->writer);
		return -1;
	}
	if (block_writer_finish(s->writer, meta, err) < 0)
		return -1;
	set_times(s, meta);
	return 0;
}

int block_build(struct block_build *b, struct block_meta *meta, struct err *err)
{
	struct build_state s = { .b = b, .min_start_ns = UINT64_MAX };
	struct otlp_counts counts;
	int ret = 0;

	b->n_traces = b->n_spans = b->n_duplicates = b->n_conflicting = 0;
	rng_kernel(&s.seed, sizeof(s.seed));
	count_all(b, &counts);
	alloc_tables(&s, &counts);
	index_all(b, &s.tables, &s.rebuilt);
	b->n_spans = s.tables.n_spans;
	if (b->n_spans > 0)
		ret = write_block(&s, meta, err);
	free_state(&s);
	return ret;
}
