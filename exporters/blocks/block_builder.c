/* SPDX-License-Identifier: Apache-2.0
 *
 * block_builder.c - see block_builder.h.
 *
 * DESIGN: sorting by the first three id bytes with a radix (stable, 3 passes), then each run of equal prefixes by full
 * comparison. A plain qsort costs five times as much. Ids that share a prefix (64-bit Zipkin ids are zero there) make
 * long runs: those go to qsort, never to the quadratic insertion.
 */
#include "exporters/blocks/block_builder.h"

#include "base/clock.h"
#include "base/hash.h"
#include "base/mem.h"
#include "blocks/block_object.h"
#include "wire/otlp_encode.h"

struct sort_key {
	uint64_t hi, lo;	/* the trace id, big-endian */
	uint32_t span;
};

/* ---- tables of all requests together ---- */

static int count_all(const struct block_build *b, struct otlp_counts *sum, struct err *err)
{
	*sum = (struct otlp_counts){ 0 };
	for (size_t i = 0; i < b->n_requests; i++) {
		struct otlp_counts c;

		if (otlp_count(b->requests[i], &c, err) < 0)
			return err_wrap(err, "request %zu of the section", i);
		sum->n_spans += c.n_spans;
		sum->n_scopes += c.n_scopes;
		sum->n_resources += c.n_resources;
		sum->n_heads += c.n_heads;
	}
	return 0;
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

static int index_all(const struct block_build *b, struct span_tables *all, struct arena *arena, struct err *err)
{
	for (size_t i = 0; i < b->n_requests; i++) {
		struct span_tables part = {
			.spans = all->spans + all->n_spans,
			.scopes = all->scopes + all->n_scopes,
			.resources = all->resources + all->n_resources,
			.heads = all->heads + all->n_heads,
		};
		struct otlp_result result;

		if (otlp_index(b->requests[i], &part, arena, &result, err) < 0)
			return err_wrap(err, "request %zu of the section", i);
		shift_tables(&part, all);
		all->n_spans += part.n_spans;
		all->n_scopes += part.n_scopes;
		all->n_resources += part.n_resources;
		all->n_heads += part.n_heads;
	}
	return 0;
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
static struct sort_key *sort_spans(const struct span_tables *t, struct sort_key *keys, struct sort_key *spare)
{
	for (uint32_t i = 0; i < t->n_spans; i++)
		keys[i] = (struct sort_key){ load_be64(t->spans[i].trace_id), load_be64(t->spans[i].trace_id + 8), i };
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
	struct arena scratch;
	uint32_t *pick;		/* spans of the trace at hand */
	struct bytes *pieces;
	size_t cap_pieces;
	uint32_t *seen;		/* hash table of picked positions + 1, for traces with many spans */
	size_t cap_seen;	/* slots in use for this trace: a power of two, at most alloc_seen */
	size_t alloc_seen;
	uint64_t min_start_ns, max_end_ns;
};

static bool same_span(const struct span_ref *a, const struct span_ref *b)
{
	return a->kind == b->kind && memcmp(a->span_id, b->span_id, 8) == 0;
}

/* Look the span up among those picked; true when its equal is there. */
static bool is_duplicate(struct build_state *s, const struct span_ref *sp, uint32_t n_picked)
{
	size_t slot = hash_xxh3(sp->span_id, 8) & (s->cap_seen - 1);
	bool conflict = false;

	for (; s->seen[slot] != 0; slot = (slot + 1) & (s->cap_seen - 1)) {
		const struct span_ref *other = &s->tables.spans[s->pick[s->seen[slot] - 1]];

		if (!same_span(sp, other))
			continue;
		if (sp->len == other->len && memcmp(sp->p, other->p, sp->len) == 0)
			return true;
		conflict = true;
	}
	s->seen[slot] = n_picked + 1;
	s->b->n_conflicting += conflict;
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
	/* Clearing a table sized for the largest trace for every small one would cost more than the traces. */
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

static int write_trace(struct build_state *s, const struct sort_key *keys, uint32_t n, struct err *err)
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
							       block_object_seconds(end), pieces.n_bytes) };
	memcpy(s->pieces + 1, pieces.v, pieces.n * sizeof(*s->pieces));
	store_be64(id, keys->hi);
	store_be64(id + 8, keys->lo);
	return block_writer_add(s->writer, id, s->pieces, pieces.n + 1, err);
}

static int write_traces(struct build_state *s, const struct sort_key *keys, struct err *err)
{
	uint32_t n = s->tables.n_spans;

	for (uint32_t i = 0; i < n;) {
		uint32_t j = i + 1;

		while (j < n && keys[j].hi == keys[i].hi && keys[j].lo == keys[i].lo)
			j++;
		if (write_trace(s, keys + i, j - i, err) < 0)
			return -1;
		i = j;
	}
	return 0;
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
	uint64_t lo = s->b->first_wall_ns > day ? s->b->first_wall_ns - day : 0, hi = s->b->last_wall_ns + day;

	m->start = block_time_of_ns(clamp(s->min_start_ns, lo, hi) / NS_PER_S * NS_PER_S);
	m->end = block_time_of_ns((clamp(s->max_end_ns, lo, hi) + NS_PER_S - 1) / NS_PER_S * NS_PER_S);
	m->ingested_at = block_time_of_ns(s->b->last_wall_ns);
}

static size_t alloc_tables(struct build_state *s, const struct otlp_counts *c)
{
	s->tables.spans = xmalloc(c->n_spans * sizeof(*s->tables.spans));
	s->tables.scopes = xmalloc(c->n_scopes * sizeof(*s->tables.scopes));
	s->tables.resources = xmalloc(c->n_resources * sizeof(*s->tables.resources));
	s->tables.heads = xmalloc(c->n_heads * sizeof(*s->tables.heads));
	s->pick = xmalloc(c->n_spans * sizeof(*s->pick));
	return c->n_spans * (sizeof(*s->tables.spans) + sizeof(*s->pick) + 2 * sizeof(struct sort_key)) +
	       c->n_scopes * sizeof(*s->tables.scopes) + c->n_resources * sizeof(*s->tables.resources) +
	       c->n_heads * sizeof(*s->tables.heads);
}

static void free_state(struct build_state *s)
{
	free(s->tables.spans);
	free(s->tables.scopes);
	free(s->tables.resources);
	free(s->tables.heads);
	free(s->pick);
	free(s->pieces);
	free(s->seen);
	arena_fini(&s->scratch);
}

int block_build(struct block_build *b, struct block_meta *meta, struct err *err)
{
	struct build_state s = { .b = b, .min_start_ns = UINT64_MAX };
	struct sort_key *keys = NULL, *spare = NULL;
	struct arena rebuilt = ARENA_INIT;
	struct otlp_counts counts;
	size_t charged = 0;
	int ret = -1;

	b->n_spans = b->n_duplicates = b->n_conflicting = 0;
	if (count_all(b, &counts, err) < 0)
		return -1;
	charged = alloc_tables(&s, &counts);
	budget_force(b->budget, charged);
	if (index_all(b, &s.tables, &rebuilt, err) < 0)
		goto out;
	keys = xmalloc(s.tables.n_spans * sizeof(*keys));
	spare = xmalloc(s.tables.n_spans * sizeof(*spare));
	s.writer = block_writer_open(b->backend, b->tenant, NULL, b->writer, err);
	if (s.writer == NULL || write_traces(&s, sort_spans(&s.tables, keys, spare), err) < 0)
		goto out;
	b->n_spans = s.tables.n_spans;
	ret = block_writer_finish(s.writer, meta, err);
	s.writer = NULL;
	if (ret == 0)
		set_times(&s, meta);
out:
	block_writer_abort(s.writer);
	free(keys);
	free(spare);
	arena_fini(&rebuilt);
	free_state(&s);
	budget_release(b->budget, charged);
	return ret;
}
