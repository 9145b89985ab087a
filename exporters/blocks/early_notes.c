/* SPDX-License-Identifier: Apache-2.0
 *
 * early_notes.c - see early_notes.h.
 */
#include "exporters/blocks/early_notes.h"

#include "base/mem.h"
#include "exporters/blocks/block_gather.h"

/* Which of the requests the last span was in, and how many bytes of the record lie before it. */
struct place {
	uint32_t whole;
	uint64_t before;
};

static bool is_in(struct bytes request, const uint8_t *p, uint32_t len)
{
	return p >= request.p && p + len <= request.p + request.n;
}

/* Spans come in the order of the requests, so that this looks at each request once. */
static bool find_request(const struct batch *b, const uint8_t *p, uint32_t len, struct place *at)
{
	while (at->whole < b->n_whole && !is_in(b->whole[at->whole], p, len))
		at->before += b->whole[at->whole++].n;
	return at->whole < b->n_whole;
}

static bool is_edited(const struct span_ref *spans, uint32_t i, uint32_t end)
{
	for (; i < end; i++)
		if (spans[i].pieces != NULL)
			return true;
	return false;
}

struct early_notes early_notes_of(const struct batch *b, struct arena *arena)
{
	const struct early_notes none = { NULL, 0 };
	const struct span_ref *spans = b->tables.spans;
	struct place at = { 0, 0 };
	struct early_note *v;
	uint32_t n = 0, end;

	if (b->n_whole == 0)
		return none;
	v = arena_alloc(arena, b->tables.n_spans * sizeof(*v));
	for (uint32_t i = 0; i < b->tables.n_spans; i = end) {
		uint32_t len, n_bytes;
		const uint8_t *p;

		end = span_run_end(spans, i, b->tables.n_spans);
		p = span_run_bytes(spans, i, end, &len);
		n_bytes = len & ~SPAN_RUN_BARE;
		if (is_edited(spans, i, end) || !find_request(b, p, n_bytes, &at))
			return none;
		v[n++] = (struct early_note){
			.hi = load_be64(spans[i].trace_id),
			.lo = load_be64(spans[i].trace_id + 8),
			.off = (uint32_t)(at.before + (uint64_t)(p - b->whole[at.whole].p)),
			.len = len,
			.scope = spans[i].scope,
			.check = block_gather_check(p, n_bytes),
		};
	}
	return (struct early_notes){ v, n };
}

/* ---- of a section ---- */

struct section_notes *section_notes_new(struct budget *budget)
{
	struct section_notes *n = xcalloc(1, sizeof(*n));

	n->refs = 1;
	n->budget = budget;
	head_table_init(&n->heads);
	return n;
}

struct section_notes *section_notes_ref(struct section_notes *n)
{
	atomic_fetch_add_explicit(&n->refs, 1, memory_order_relaxed);
	return n;
}

void section_notes_unref(struct section_notes *n)
{
	if (n == NULL || atomic_fetch_sub_explicit(&n->refs, 1, memory_order_acq_rel) > 1)
		return;
	arena_fini(&n->arena);
	head_table_fini(&n->heads);
	budget_release(n->budget, n->charged);
	free(n);
}

static void charge_growth(struct section_notes *n)
{
	size_t now = n->arena.bytes + head_table_memory(&n->heads);

	if (now > n->charged)
		budget_force(n->budget, now - n->charged);
	n->charged = now;
}

/* Spans of a scope come together, so the table is asked once for each. */
const struct early_note *section_notes_add(struct section_notes *n, const struct span_tables *t,
					   const struct early_notes *notes)
{
	struct early_note *kept = arena_alloc(&n->arena, notes->n * sizeof(*kept));
	uint32_t last = UINT32_MAX, number = 0;

	for (uint32_t i = 0; i < notes->n; i++) {
		if (notes->v[i].scope != last)
			number = head_table_add(&n->heads, t, notes->v[i].scope);
		last = notes->v[i].scope;
		kept[i] = notes->v[i];
		kept[i].scope = number;
	}
	charge_growth(n);
	return kept;
}
