/* SPDX-License-Identifier: Apache-2.0
 *
 * trace_join.c - see trace_join.h. Two hash tables over the spans so far: one by all that makes a
 * span equal, one by id and kind.
 */
#include "blocks/trace_join.h"

#include "base/hash.h"
#include "base/mem.h"
#include "base/rng.h"
#include "blocks/block_object.h"
#include "wire/otlp_encode.h"
#include "wire/otlp_index.h"

void trace_join_init(struct trace_join *j, struct budget *budget)
{
	*j = (struct trace_join){ .budget = budget };
	rng_kernel(&j->seed, sizeof(j->seed));
}

void trace_join_fini(struct trace_join *j)
{
	arena_fini(&j->arena);
	free(j->pieces);
	memset(j, 0, sizeof(*j));
}

static void add_piece(struct trace_join *j, struct bytes b)
{
	j->pieces = xgrow(j->pieces, &j->cap, j->n + 1, sizeof(*j->pieces));
	j->pieces[j->n++] = b;
}

/* ---- segments ---- */

struct segment {
	struct bytes bytes;
	struct otlp_counts counts;
	struct span_tables t;
	uint64_t *scope_hash; /* of a scope with its resource */
	bool is_indexed;
};

struct segments {
	struct segment *v;
	size_t n, cap;
	size_t n_spans; /* in all of them */
	size_t n_first; /* segments of object 0 */
};

static int split(struct bytes object, const char *data_encoding, struct segments *s,
		 struct block_object *o, struct err *err)
{
	struct bytes rest, segment;
	int got;

	if (block_object_parse(object, data_encoding, o, err) < 0)
		return -1;
	rest = o->segments;
	while ((got = block_object_segment_next(&rest, &segment, err)) == 1) {
		s->v = xgrow(s->v, &s->cap, s->n + 1, sizeof(*s->v));
		s->v[s->n++] = (struct segment){ .bytes = segment };
	}
	return got;
}

static size_t cost_of(const struct otlp_counts *n)
{
	return n->n_spans * (sizeof(struct span_ref) + 16 * sizeof(uint64_t)) +
	       n->n_scopes * (sizeof(struct scope_ref) + sizeof(uint64_t)) +
	       n->n_resources * sizeof(struct resource_ref) + n->n_heads * sizeof(struct bytes);
}

static uint64_t hash_head(const struct span_tables *t, uint32_t head, uint32_t n, uint64_t h)
{
	for (uint32_t i = 0; i < n; i++)
		h = hash_xxh64(t->heads[head + i].p, t->heads[head + i].n, h);
	return h;
}

static void hash_scopes(struct trace_join *j, struct segment *s)
{
	const struct span_tables *t = &s->t;

	s->scope_hash = arena_alloc(&j->arena, t->n_scopes * sizeof(*s->scope_hash));
	for (uint32_t i = 0; i < t->n_scopes; i++) {
		const struct scope_ref *sc = &t->scopes[i];
		const struct resource_ref *r = &t->resources[sc->resource];

		s->scope_hash[i] = hash_head(t, sc->head, sc->n_head,
					     hash_head(t, r->head, r->n_head, j->seed));
	}
}

/* Tables of a segment whose counts are known. Spans too short to be any have no row: then the
 * segment is not taken apart. */
static void index_segment(struct trace_join *j, struct segment *s)
{
	struct otlp_result result;
	struct span_tables *t = &s->t;

	t->spans = arena_alloc(&j->arena, s->counts.n_spans * sizeof(*t->spans));
	t->scopes = arena_alloc(&j->arena, s->counts.n_scopes * sizeof(*t->scopes));
	t->resources = arena_alloc(&j->arena, s->counts.n_resources * sizeof(*t->resources));
	t->heads = arena_alloc(&j->arena, s->counts.n_heads * sizeof(*t->heads));
	if (otlp_index_stored(s->bytes, t, &j->arena, &result, NULL) < 0 || result.rejects.n > 0)
		return;
	hash_scopes(j, s);
	s->is_indexed = true;
}

/* Index what can be; *charged is given back by the caller. False: there is no memory for it. */
static bool index_all(struct trace_join *j, struct segments *s, size_t *charged)
{
	for (size_t i = 0; i < s->n; i++)
		if (otlp_count(s->v[i].bytes, &s->v[i].counts, NULL) < 0)
			s->v[i].counts = (struct otlp_counts){ .n_spans = UINT32_MAX };
		else
			*charged += cost_of(&s->v[i].counts);
	if (!budget_charge(j->budget, *charged)) {
		*charged = 0;
		return false;
	}
	for (size_t i = 0; i < s->n; i++) {
		if (s->v[i].counts.n_spans == UINT32_MAX)
			continue;
		index_segment(j, &s->v[i]);
		s->n_spans += s->v[i].is_indexed ? s->v[i].t.n_spans : 0;
	}
	return true;
}

/* ---- tables ---- */

struct slot {
	uint64_t hash;
	const struct segment *s; /* NULL: free */
	uint32_t span;
};

struct table {
	struct slot *v;
	size_t mask;
};

static struct table table_new(struct arena *a, size_t n)
{
	size_t cap = 16;

	while (cap < 2 * n)
		cap *= 2;
	return (struct table){ arena_zalloc(a, cap * sizeof(struct slot)), cap - 1 };
}

typedef bool is_equal_fn(const struct segment *a, uint32_t i, const struct segment *b, uint32_t k);

/* True when an equal one was there; else it is now. */
static bool put_or_find(struct table *t, uint64_t hash, const struct segment *s, uint32_t span,
			is_equal_fn *is_equal)
{
	size_t at = hash & t->mask;

	for (; t->v[at].s != NULL; at = (at + 1) & t->mask)
		if (t->v[at].hash == hash && is_equal(t->v[at].s, t->v[at].span, s, span))
			return true;
	t->v[at] = (struct slot){ hash, s, span };
	return false;
}

static bool is_equal_heads(const struct span_tables *a, uint32_t a_head, uint32_t a_n,
			   const struct span_tables *b, uint32_t b_head, uint32_t b_n)
{
	bool equal = a_n == b_n;

	for (uint32_t i = 0; equal && i < a_n; i++)
		equal = bytes_eq(a->heads[a_head + i], b->heads[b_head + i]);
	return equal;
}

static bool is_equal_span(const struct segment *a, uint32_t i, const struct segment *b, uint32_t k)
{
	const struct span_ref *x = &a->t.spans[i], *y = &b->t.spans[k];
	const struct scope_ref *xs = &a->t.scopes[x->scope], *ys = &b->t.scopes[y->scope];
	const struct resource_ref *xr = &a->t.resources[xs->resource];
	const struct resource_ref *yr = &b->t.resources[ys->resource];

	return x->len == y->len && memcmp(x->p, y->p, x->len) == 0 &&
	       is_equal_heads(&a->t, xs->head, xs->n_head, &b->t, ys->head, ys->n_head) &&
	       is_equal_heads(&a->t, xr->head, xr->n_head, &b->t, yr->head, yr->n_head);
}

static bool is_equal_id(const struct segment *a, uint32_t i, const struct segment *b, uint32_t k)
{
	const struct span_ref *x = &a->t.spans[i], *y = &b->t.spans[k];

	return x->kind == y->kind && memcmp(x->span_id, y->span_id, sizeof(x->span_id)) == 0;
}

struct seen {
	struct table spans, ids;
	struct trace_join *j;
};

static bool is_new(struct seen *seen, const struct segment *s, uint32_t i)
{
	const struct span_ref *sp = &s->t.spans[i];

	return !put_or_find(&seen->spans, hash_xxh64(sp->p, sp->len, s->scope_hash[sp->scope]), s,
			    i, is_equal_span);
}

static bool is_id_known(struct seen *seen, const struct segment *s, uint32_t i)
{
	const struct span_ref *sp = &s->t.spans[i];

	return put_or_find(&seen->ids, hash_xxh64(sp->span_id, 8, seen->j->seed + sp->kind), s, i,
			   is_equal_id);
}

/* ---- joining ---- */

static void add_head(struct trace_join *j, size_t n)
{
	uint8_t *head = arena_alloc(&j->arena, BLOCK_OBJECT_SEGMENT_HEAD);

	add_piece(j, (struct bytes){ head, block_object_segment_head(head, n) });
}

static void add_whole(struct trace_join *j, const struct segment *s)
{
	add_head(j, s->bytes.n);
	add_piece(j, s->bytes);
}

static void add_picked(struct trace_join *j, const struct segment *s, const uint32_t *pick,
		       uint32_t n)
{
	struct otlp_pieces out;

	otlp_encode(&s->t, pick, n, &j->arena, &out);
	add_head(j, out.n_bytes);
	for (size_t i = 0; i < out.n; i++)
		add_piece(j, out.v[i]);
}

/* The spans of a later object's segment that are not there yet. */
static void add_fresh(struct trace_join *j, struct seen *seen, const struct segment *s)
{
	uint32_t *pick = arena_alloc(&j->arena, s->t.n_spans * sizeof(*pick)), n = 0;

	for (uint32_t i = 0; i < s->t.n_spans; i++) {
		if (!is_new(seen, s, i))
			continue;
		j->n_conflicting += is_id_known(seen, s, i);
		pick[n++] = i;
	}
	j->n_duplicates += s->t.n_spans - n;
	if (n == s->t.n_spans)
		add_whole(j, s);
	else if (n > 0)
		add_picked(j, s, pick, n);
}

/* Of object 0 all stays: its spans are only noted. */
static void note_first(struct seen *seen, const struct segment *s)
{
	for (uint32_t i = 0; i < s->t.n_spans; i++)
		if (is_new(seen, s, i))
			is_id_known(seen, s, i);
}

static bool is_among(const struct segments *s, size_t end)
{
	for (size_t i = 0; i < end; i++)
		if (bytes_eq(s->v[i].bytes, s->v[end].bytes))
			return true;
	return false;
}

static void join_segments(struct trace_join *j, struct segments *s, bool is_indexed)
{
	struct seen seen = { .j = j };

	if (is_indexed) {
		seen.spans = table_new(&j->arena, s->n_spans);
		seen.ids = table_new(&j->arena, s->n_spans);
	}
	for (size_t i = 0; i < s->n; i++) {
		const struct segment *seg = &s->v[i];

		if (seg->is_indexed && i < s->n_first)
			note_first(&seen, seg);
		else if (seg->is_indexed)
			add_fresh(j, &seen, seg);
		else if (i >= s->n_first && !is_among(s, i)) {
			j->n_whole++;
			add_whole(j, seg);
		}
	}
}

/* The times of all, and object 0 behind them. */
static void begin(struct trace_join *j, struct bytes first, bool has_times, uint32_t start_s,
		  uint32_t end_s)
{
	if (has_times) {
		uint8_t *times = arena_alloc(&j->arena, BLOCK_OBJECT_TIMES);

		block_object_times_store(times, start_s, end_s);
		add_piece(j, (struct bytes){ times, BLOCK_OBJECT_TIMES });
	}
	add_piece(j, first);
}

int trace_join(struct trace_join *j, const struct bytes *objects, size_t n,
	       const char *data_encoding, size_t *bad, struct err *err)
{
	struct segments s = { NULL, 0, 0, 0, 0 };
	struct bytes first = BYTES_EMPTY;
	uint32_t start_s = UINT32_MAX, end_s = 0;
	bool has_times = false, is_indexed;
	size_t charged = 0;

	arena_reset(&j->arena);
	j->n = 0;
	for (size_t i = 0; i < n; i++) {
		struct block_object o;

		if (split(objects[i], data_encoding, &s, &o, err) < 0) {
			*bad = i;
			free(s.v);
			return -1;
		}
		if (i == 0) {
			first = o.segments;
			s.n_first = s.n;
		}
		if (o.has_times) {
			has_times = true;
			start_s = MIN(start_s, o.start_s);
			end_s = MAX(end_s, o.end_s);
		}
	}
	j->n_joined++;
	begin(j, first, has_times, start_s, end_s);
	is_indexed = index_all(j, &s, &charged);
	join_segments(j, &s, is_indexed);
	budget_release(j->budget, charged);
	free(s.v);
	return 0;
}
