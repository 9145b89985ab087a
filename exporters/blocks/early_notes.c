/* SPDX-License-Identifier: Apache-2.0
 *
 * early_notes.c - see early_notes.h.
 */
#include "exporters/blocks/early_notes.h"

#include "exporters/blocks/block_gather.h"

/* Which of the requests the last span was in, and how many bytes of the record lie before it. */
struct place {
	uint32_t whole;
	uint64_t before;
};

static bool is_in(struct bytes request, const struct span_ref *sp)
{
	return sp->p >= request.p && sp->p + sp->len <= request.p + request.n;
}

/* Spans come in the order of the requests, so that this looks at each request once. */
static bool find_request(const struct batch *b, const struct span_ref *sp, struct place *at)
{
	while (at->whole < b->n_whole && !is_in(b->whole[at->whole], sp))
		at->before += b->whole[at->whole++].n;
	return at->whole < b->n_whole;
}

struct early_note *early_notes_of(const struct batch *b, struct arena *arena)
{
	struct place at = { 0, 0 };
	struct early_note *notes;

	if (b->n_whole == 0)
		return NULL;
	notes = arena_alloc(arena, b->tables.n_spans * sizeof(*notes));
	for (uint32_t i = 0; i < b->tables.n_spans; i++) {
		const struct span_ref *sp = &b->tables.spans[i];

		if (sp->pieces != NULL || !find_request(b, sp, &at))
			return NULL;
		notes[i] = (struct early_note){
			.hi = load_be64(sp->trace_id),
			.lo = load_be64(sp->trace_id + 8),
			.off = (uint32_t)(at.before + (uint64_t)(sp->p - b->whole[at.whole].p)),
			.len = sp->len,
			.scope = sp->scope,
			.check = block_gather_check(sp->p, sp->len),
		};
	}
	return notes;
}
