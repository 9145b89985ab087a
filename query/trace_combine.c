/* SPDX-License-Identifier: Apache-2.0
 *
 * trace_combine.c - trace_by_id_combine: joins the pieces of a trace. See trace_by_id.h.
 *
 * DESIGN: all pieces are indexed as one request. Resources of equal bytes, then scopes of equal
 * bytes and resource, become one: everything refers to the first of them. Then doubles go, by a
 * hash of the span's bytes, and one sort by (rank of the scope, start, id, bytes) gives the order,
 * which otlp_encode gathers. Ranks come from each group's first span, so nothing depends on which
 * piece was there first. Hashes have a seed of their own each time: senders choose these bytes.
 */
#include "query/trace_private.h"

#include "base/hash.h"
#include "base/rng.h"
#include "wire/otlp_encode.h"

#include <stdlib.h>

#define NONE UINT32_MAX

struct combine {
	struct span_tables t;
	struct arena arena;
	struct otlp_result result;
	size_t charged;
	uint64_t seed;
	uint32_t *pick, n; /* spans that stay */
};

/* ---- order ---- */

static int compare_bytes(struct bytes a, struct bytes b)
{
	int c = MIN(a.n, b.n) ? memcmp(a.p, b.p, MIN(a.n, b.n)) : 0;

	return c != 0 ? c : (a.n > b.n) - (a.n < b.n);
}

/* By start, then span id, then all bytes: 0 only for equal spans. */
static int compare_spans(const struct span_ref *a, const struct span_ref *b)
{
	int c;

	if (a->start_ns != b->start_ns)
		return a->start_ns < b->start_ns ? -1 : 1;
	c = memcmp(a->span_id, b->span_id, sizeof(a->span_id));
	return c != 0 ? c : compare_bytes(trace_span_bytes(a), trace_span_bytes(b));
}

/* The raw fields of a resource or scope: one run, or none, in what trace_add_piece encoded. */
static struct bytes head_of(const struct span_tables *t, uint32_t head, uint32_t n)
{
	assert(n <= 1);
	return n > 0 ? t->heads[head] : BYTES_EMPTY;
}

static struct bytes resource_bytes(const struct span_tables *t, uint32_t i)
{
	return head_of(t, t->resources[i].head, t->resources[i].n_head);
}

static struct bytes scope_bytes(const struct span_tables *t, uint32_t i)
{
	return head_of(t, t->scopes[i].head, t->scopes[i].n_head);
}

/* By their resources first. */
static int compare_scopes(const struct span_tables *t, uint32_t a, uint32_t b)
{
	int c = compare_bytes(resource_bytes(t, t->scopes[a].resource),
			      resource_bytes(t, t->scopes[b].resource));

	return c != 0 ? c : compare_bytes(scope_bytes(t, a), scope_bytes(t, b));
}

/* ---- equal resources and scopes ---- */

static size_t hash(const struct combine *c, struct bytes b, uint64_t more)
{
	return hash_xxh64(b.p, b.n, c->seed + more);
}

/* An empty table for n entries, at most half full. */
static uint32_t *table_new(struct arena *a, uint32_t n, size_t *mask)
{
	size_t cap = 16;
	uint32_t *v;

	while (cap < (size_t)n * 2)
		cap *= 2;
	v = arena_alloc(a, cap * sizeof(*v));
	memset(v, 0xff, cap * sizeof(*v));
	*mask = cap - 1;
	return v;
}

/* Every scope's resource becomes the first of the equal ones. */
static void join_resources(struct combine *c)
{
	struct span_tables *t = &c->t;
	uint32_t *same = arena_alloc(&c->arena, t->n_resources * sizeof(*same)), *table;
	size_t mask;

	table = table_new(&c->arena, t->n_resources, &mask);
	for (uint32_t i = 0; i < t->n_resources; i++) {
		struct bytes own = resource_bytes(t, i);
		size_t at = hash(c, own, 0) & mask;

		while (table[at] != NONE && !bytes_eq(resource_bytes(t, table[at]), own))
			at = (at + 1) & mask;
		if (table[at] == NONE)
			table[at] = i;
		same[i] = table[at];
	}
	for (uint32_t i = 0; i < t->n_scopes; i++)
		t->scopes[i].resource = same[t->scopes[i].resource];
}

static void join_scopes(struct combine *c)
{
	struct span_tables *t = &c->t;
	uint32_t *same = arena_alloc(&c->arena, t->n_scopes * sizeof(*same)), *table;
	size_t mask;

	table = table_new(&c->arena, t->n_scopes, &mask);
	for (uint32_t i = 0; i < t->n_scopes; i++) {
		struct bytes own = scope_bytes(t, i);
		uint32_t resource = t->scopes[i].resource;
		size_t at = hash(c, own, resource) & mask;

		while (table[at] != NONE && (t->scopes[table[at]].resource != resource ||
					     !bytes_eq(scope_bytes(t, table[at]), own)))
			at = (at + 1) & mask;
		if (table[at] == NONE)
			table[at] = i;
		same[i] = table[at];
	}
	for (uint32_t i = 0; i < t->n_spans; i++)
		t->spans[i].scope = same[t->spans[i].scope];
}

/* ---- doubles ---- */

/* Of equal spans one stays: that of the lesser resource and scope, whichever came first. */
static void pick_unique(struct combine *c)
{
	struct span_tables *t = &c->t;
	size_t mask;
	uint32_t *table = table_new(&c->arena, t->n_spans, &mask);

	c->pick = arena_alloc(&c->arena, t->n_spans * sizeof(*c->pick));
	for (uint32_t i = 0; i < t->n_spans; i++) {
		const struct span_ref *sp = &t->spans[i];
		size_t at = hash(c, trace_span_bytes(sp), 0) & mask;

		while (table[at] != NONE &&
		       compare_bytes(trace_span_bytes(&t->spans[c->pick[table[at]]]),
				     trace_span_bytes(sp)))
			at = (at + 1) & mask;
		if (table[at] == NONE) {
			table[at] = c->n;
			c->pick[c->n++] = i;
		} else if (compare_scopes(t, sp->scope, t->spans[c->pick[table[at]]].scope) < 0) {
			c->pick[table[at]] = i;
		}
	}
}

/* ---- ranks ---- */

struct ranks {
	const struct span_tables *t;
	uint32_t *of_scope; /* where its group stands; then its place in all */
	uint32_t *first_of_scope, *first_of_resource; /* span, or NONE */
};

static void note_first(const struct span_tables *t, uint32_t *first, uint32_t span)
{
	if (*first == NONE || compare_spans(&t->spans[span], &t->spans[*first]) < 0)
		*first = span;
}

/* By the first span of the resource, then by the scope's own. */
static int by_first_spans(const void *a, const void *b, void *arg)
{
	const struct ranks *r = arg;
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
	uint32_t x_resource = r->t->scopes[x].resource, y_resource = r->t->scopes[y].resource;

	if (x_resource != y_resource)
		return compare_spans(&r->t->spans[r->first_of_resource[x_resource]],
				     &r->t->spans[r->first_of_resource[y_resource]]);
	return compare_spans(&r->t->spans[r->first_of_scope[x]],
			     &r->t->spans[r->first_of_scope[y]]);
}

static int by_rank(const void *a, const void *b, void *arg)
{
	const struct ranks *r = arg;
	const struct span_ref *x = &r->t->spans[*(const uint32_t *)a];
	const struct span_ref *y = &r->t->spans[*(const uint32_t *)b];

	if (x->scope != y->scope)
		return r->of_scope[x->scope] < r->of_scope[y->scope] ? -1 : 1;
	return compare_spans(x, y);
}

static uint32_t *filled(struct arena *a, uint32_t n)
{
	uint32_t *v = arena_alloc(a, n * sizeof(*v));

	memset(v, 0xff, n * sizeof(*v));
	return v;
}

static void sort_picked(struct combine *c)
{
	struct span_tables *t = &c->t;
	struct ranks r = { t, filled(&c->arena, t->n_scopes), filled(&c->arena, t->n_scopes),
			   filled(&c->arena, t->n_resources) };
	uint32_t *scopes = arena_alloc(&c->arena, t->n_scopes * sizeof(*scopes)), n = 0;

	for (uint32_t i = 0; i < c->n; i++) {
		uint32_t scope = t->spans[c->pick[i]].scope;

		if (r.first_of_scope[scope] == NONE)
			scopes[n++] = scope;
		note_first(t, &r.first_of_scope[scope], c->pick[i]);
		note_first(t, &r.first_of_resource[t->scopes[scope].resource], c->pick[i]);
	}
	qsort_r(scopes, n, sizeof(*scopes), by_first_spans, &r);
	for (uint32_t i = 0; i < n; i++)
		r.of_scope[scopes[i]] = i;
	qsort_r(c->pick, c->n, sizeof(*c->pick), by_rank, &r);
}

/* ---- */

static int index_pieces(struct trace_by_id *t, struct combine *c, struct err *err)
{
	struct otlp_counts n;
	size_t cost;

	/* Each piece was indexed when it came, so only their sum can be too large for this. */
	if (otlp_count(buf_bytes(&t->otlp), &n, err) < 0)
		return -1;
	cost = trace_index_cost(&n);
	if (query_memory_charge(t->memory, t->charged, cost, err) < 0)
		return -1;
	c->charged = cost;
	return trace_index(buf_bytes(&t->otlp), &n, &c->t, &c->arena, &c->result, err);
}

static int gather(struct trace_by_id *t, struct combine *c, struct err *err)
{
	struct buf combined = BUF_INIT;
	struct otlp_pieces pieces;

	otlp_encode(&c->t, c->pick, c->n, &c->arena, &pieces);
	if (query_memory_charge(t->memory, t->charged + c->charged, pieces.n_bytes, err) < 0)
		return -1;
	if (pieces.n_bytes > 0)
		buf_reserve(&combined, pieces.n_bytes);
	for (size_t i = 0; i < pieces.n; i++)
		buf_add_bytes(&combined, pieces.v[i]);
	buf_fini(&t->otlp);
	query_memory_release(t->memory, t->charged);
	t->otlp = combined;
	t->charged = pieces.n_bytes;
	t->n_spans = c->n;
	return 0;
}

int trace_by_id_combine(struct trace_by_id *t, struct err *err)
{
	struct combine c = { .n = 0 };
	int ret = 0;

	trace_by_id_forget(t);
	if (t->otlp.n == 0)
		return 0;
	rng_kernel(&c.seed, sizeof(c.seed));
	ret = index_pieces(t, &c, err);
	if (ret == 0) {
		join_resources(&c);
		join_scopes(&c);
		pick_unique(&c);
		sort_picked(&c);
		ret = gather(t, &c, err);
	}
	arena_fini(&c.arena);
	query_memory_release(t->memory, c.charged);
	return ret;
}
