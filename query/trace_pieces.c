/* SPDX-License-Identifier: Apache-2.0
 *
 * trace_pieces.c - trace_add_piece: one piece into the trace that is being gathered.
 *
 *   t->otlp   [piece][piece][piece]...
 *   t->seen   hash table of the spans in it: {hash of span, scope and resource, place, length}
 *
 * While a section moves from live data to a block a trace is given twice: its second half costs no
 * memory. Doubles under another resource or scope stay for trace_combine.c, which knows the rule.
 */
#include "query/trace_private.h"

#include "base/hash.h"
#include "base/mem.h"
#include "base/rng.h"
#include "wire/otlp_encode.h"

#include <stdlib.h>

struct seen_span {
	uint64_t hash;
	size_t at; /* in otlp */
	uint32_t len;
	bool is_used;
};

struct seen_spans {
	struct seen_span *slots;
	size_t n, cap; /* cap a power of two, or 0 */
	uint64_t seed;
};

/* A piece on its way in. */
struct piece {
	struct span_tables t;
	struct arena arena;
	struct otlp_result result;
	uint64_t *scope_hash; /* of a scope with its resource */
	uint32_t *fresh, n_fresh;
};

size_t trace_index_cost(const struct otlp_counts *n)
{
	return n->n_spans * (sizeof(struct span_ref) + 6 * sizeof(uint32_t)) +
	       n->n_scopes * (sizeof(struct scope_ref) + 8 * sizeof(uint32_t)) +
	       n->n_resources * (sizeof(struct resource_ref) + 8 * sizeof(uint32_t)) +
	       n->n_heads * sizeof(struct bytes);
}

int trace_index(struct bytes in, const struct otlp_counts *n, struct span_tables *t,
		struct arena *arena, struct otlp_result *result, struct err *err)
{
	t->spans = arena_alloc(arena, n->n_spans * sizeof(*t->spans));
	t->scopes = arena_alloc(arena, n->n_scopes * sizeof(*t->scopes));
	t->resources = arena_alloc(arena, n->n_resources * sizeof(*t->resources));
	t->heads = arena_alloc(arena, n->n_heads * sizeof(*t->heads));
	return otlp_index_stored(in, t, arena, result, err);
}

/* ---- the table ---- */

static size_t table_cost(size_t cap)
{
	return cap * sizeof(struct seen_span);
}

static struct seen_span *free_slot(struct seen_spans *seen, uint64_t hash)
{
	size_t i = hash & (seen->cap - 1);

	while (seen->slots[i].is_used)
		i = (i + 1) & (seen->cap - 1);
	return &seen->slots[i];
}

/* Room for n more, charged. */
static int grow_table(struct trace_by_id *t, size_t n, struct err *err)
{
	struct seen_spans *seen = t->seen, old;
	size_t cap;

	if (seen == NULL) {
		t->seen = seen = xcalloc(1, sizeof(*seen));
		rng_kernel(&seen->seed, sizeof(seen->seed));
	}
	old = *seen;
	for (cap = MAX(old.cap, (size_t)64); cap < 2 * (old.n + n);)
		cap *= 2;
	if (cap == old.cap)
		return 0;
	if (query_memory_charge(t->memory, t->charged, table_cost(cap), err) < 0)
		return -1;
	seen->slots = xcalloc(cap, sizeof(*seen->slots));
	seen->cap = cap;
	for (size_t i = 0; i < old.cap; i++)
		if (old.slots[i].is_used)
			*free_slot(seen, old.slots[i].hash) = old.slots[i];
	free(old.slots);
	query_memory_release(t->memory, table_cost(old.cap));
	t->charged += table_cost(cap) - table_cost(old.cap);
	return 0;
}

void trace_by_id_forget(struct trace_by_id *t)
{
	struct seen_spans *seen = t->seen;

	if (seen == NULL)
		return;
	query_memory_release(t->memory, table_cost(seen->cap));
	t->charged -= table_cost(seen->cap);
	free(seen->slots);
	free(seen);
	t->seen = NULL;
}

/* ---- a piece ---- */

static uint64_t hash_head(const struct span_tables *t, uint32_t head, uint32_t n, uint64_t h)
{
	for (uint32_t i = 0; i < n; i++)
		h = hash_xxh64(t->heads[head + i].p, t->heads[head + i].n, h);
	return h;
}

static void hash_scopes(struct piece *p, uint64_t seed)
{
	const struct span_tables *t = &p->t;

	p->scope_hash = arena_alloc(&p->arena, t->n_scopes * sizeof(*p->scope_hash));
	for (uint32_t i = 0; i < t->n_scopes; i++) {
		const struct scope_ref *s = &t->scopes[i];
		const struct resource_ref *r = &t->resources[s->resource];

		p->scope_hash[i] =
			hash_head(t, s->head, s->n_head, hash_head(t, r->head, r->n_head, seed));
	}
}

static uint64_t hash_span(const struct piece *p, const struct span_ref *sp)
{
	return hash_xxh64(sp->p, sp->len, p->scope_hash[sp->scope]);
}

static bool is_seen(const struct trace_by_id *t, const struct span_ref *sp, uint64_t hash)
{
	const struct seen_spans *seen = t->seen;

	for (size_t i = hash & (seen->cap - 1); seen->slots[i].is_used;
	     i = (i + 1) & (seen->cap - 1)) {
		const struct seen_span *s = &seen->slots[i];

		if (s->hash == hash && s->len == sp->len &&
		    memcmp(t->otlp.p + s->at, sp->p, sp->len) == 0)
			return true;
	}
	return false;
}

static void find_fresh(const struct trace_by_id *t, struct piece *p)
{
	p->fresh = arena_alloc(&p->arena, p->t.n_spans * sizeof(*p->fresh));
	for (uint32_t i = 0; i < p->t.n_spans; i++)
		if (!is_seen(t, &p->t.spans[i], hash_span(p, &p->t.spans[i])))
			p->fresh[p->n_fresh++] = i;
}

/* Over max_bytes: the end, or the rest is left out. */
static int refuse(struct trace_by_id *t, struct err *err)
{
	static const char text[] = TRACE_TOO_LARGE_TEXT ": it has more than %zu bytes";

	if (!t->keep_what_fits)
		return err_set(err, ERR_TOO_LARGE, text, t->max_bytes);
	trace_by_id_incomplete(t, text, t->max_bytes);
	return 0;
}

/* Span number k of what was appended at `from` is the k-th fresh one. */
static void note_appended(struct trace_by_id *t, struct piece *p, size_t from)
{
	struct bytes added = { t->otlp.p + from, t->otlp.n - from };
	struct span_tables own = { 0 };
	struct otlp_counts n;
	int ret = otlp_count(added, &n, NULL);

	if (ret == 0)
		ret = trace_index(added, &n, &own, &p->arena, &p->result, NULL);
	assert(ret == 0 && own.n_spans == p->n_fresh);
	for (uint32_t k = 0; k < own.n_spans; k++) {
		uint64_t hash = hash_span(p, &p->t.spans[p->fresh[k]]);

		*free_slot(t->seen, hash) =
			(struct seen_span){ hash, from + (size_t)(own.spans[k].p - added.p),
					    own.spans[k].len, true };
		t->seen->n++;
	}
}

/* As many of the fresh spans as there is room for. */
static void cut_to_fit(struct piece *p, size_t room)
{
	uint32_t fits = 0, too_many = p->n_fresh + 1;

	while (too_many - fits > 1) {
		uint32_t mid = fits + (too_many - fits) / 2;

		if (otlp_encoded_size(&p->t, p->fresh, mid) <= room)
			fits = mid;
		else
			too_many = mid;
	}
	p->n_fresh = fits;
}

/* The fresh spans at the end of otlp. */
static int append(struct trace_by_id *t, struct piece *p, struct err *err)
{
	size_t from = t->otlp.n, room = t->max_bytes - MIN(from, t->max_bytes);
	struct otlp_pieces out;

	p->t.n_extras = 0;
	if (otlp_encoded_size(&p->t, p->fresh, p->n_fresh) > room) {
		if (refuse(t, err) < 0)
			return -1;
		cut_to_fit(p, room);
		if (p->n_fresh == 0)
			return 0;
	}
	otlp_encode(&p->t, p->fresh, p->n_fresh, &p->arena, &out);
	if (query_memory_charge(t->memory, t->charged, out.n_bytes, err) < 0)
		return -1;
	t->charged += out.n_bytes;
	if (grow_table(t, p->n_fresh, err) < 0)
		return -1;
	for (size_t i = 0; i < out.n; i++)
		buf_add_bytes(&t->otlp, out.v[i]);
	note_appended(t, p, from);
	return 0;
}

static int add_indexed(struct trace_by_id *t, struct piece *p, struct err *err)
{
	if (p->result.rejects.n > 0)
		trace_by_id_incomplete(t, "%u stored spans are too short to be spans: %.150s",
				       p->result.rejects.n, p->result.rejects.first);
	if (grow_table(t, 0, err) < 0)
		return -1;
	hash_scopes(p, t->seen->seed);
	find_fresh(t, p);
	return p->n_fresh > 0 ? append(t, p, err) : 0;
}

static int leave_out(struct trace_by_id *t, const struct err *damage)
{
	trace_by_id_incomplete(t, "a stored piece of the trace is damaged: %.180s", damage->msg);
	return 0;
}

int trace_add_piece(struct trace_by_id *t, struct bytes traces_data, struct err *err)
{
	struct piece p = { .n_fresh = 0 };
	struct err damage = ERR_INIT;
	struct otlp_counts n;
	size_t cost;
	int ret;

	if (otlp_count(traces_data, &n, &damage) < 0)
		return damage.kind == ERR_TOO_LARGE ? refuse(t, err) : leave_out(t, &damage);
	cost = 2 * trace_index_cost(&n); /* of the piece, and of what is appended of it */
	if (query_memory_charge(t->memory, t->charged, cost, err) < 0)
		return -1;
	if (trace_index(traces_data, &n, &p.t, &p.arena, &p.result, &damage) < 0)
		ret = leave_out(t, &damage);
	else
		ret = add_indexed(t, &p, err);
	arena_fini(&p.arena);
	query_memory_release(t->memory, cost);
	return ret;
}
