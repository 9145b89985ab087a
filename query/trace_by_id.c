/* SPDX-License-Identifier: Apache-2.0
 *
 * trace_by_id.c - see trace_by_id.h.
 */
#include "query/trace_by_id.h"

#include "base/arena.h"
#include "base/hash.h"
#include "base/str.h"
#include "wire/otlp_encode.h"
#include "wire/otlp_index.h"

#include <stdio.h>

int trace_by_id_parse(const char *text, uint8_t id[16], struct err *err)
{
	char padded[33];
	size_t n = strlen(text);

	if (n == 0 || n > 32)
		return err_set(err, ERR_INVALID, "trace id \"%.64s\": must be 1 to 32 hex digits",
			       text);
	memset(padded, '0', 32 - n);
	memcpy(padded + 32 - n, text, n);
	if (str_unhex((struct bytes){ (const uint8_t *)padded, 32 }, id, 16) < 0)
		return err_set(err, ERR_INVALID, "trace id \"%s\": not hex", text);
	return 0;
}

void trace_by_id_init(struct trace_by_id *t)
{
	memset(t, 0, sizeof(*t));
	t->is_complete = true;
}

void trace_by_id_fini(struct trace_by_id *t)
{
	buf_fini(&t->otlp);
}

static int add_piece(void *arg, struct bytes traces_data, struct err *err)
{
	struct trace_by_id *t = arg;

	if (buf_add_bytes(&t->otlp, traces_data) < 0)
		return err_set(err, ERR_TOO_LARGE, "trace exceeds max size: more than %zu bytes",
			       t->otlp.max);
	return 0;
}

int trace_by_id_find(struct store *s, const char *tenant, const uint8_t id[16], size_t max_bytes,
		     struct trace_by_id *t, struct err *err)
{
	struct store_find_result r;

	t->otlp.max = max_bytes;
	if (store_find(s, tenant, id, add_piece, t, &r, err) < 0)
		return -1;
	t->inspected_bytes += r.inspected_bytes;
	if (r.blocks_failed + r.live_failed > 0) {
		t->is_complete = false;
		snprintf(t->why, sizeof(t->why), "%zu of %zu places could not be read: %.180s",
			 r.blocks_failed + r.live_failed, r.blocks_asked + r.live_failed,
			 r.first_failure);
	}
	return 0;
}

/* Positions of spans that are no double of an earlier one. */
static uint32_t pick_unique(const struct span_tables *t, uint32_t *pick, struct arena *arena)
{
	size_t cap = 16;
	uint32_t *seen, n = 0;

	while (cap < (size_t)t->n_spans * 2)
		cap *= 2;
	seen = arena_zalloc(arena, cap * sizeof(*seen));
	for (uint32_t i = 0; i < t->n_spans; i++) {
		const struct span_ref *sp = &t->spans[i];
		size_t slot = hash_xxh3(sp->p, sp->len) & (cap - 1);
		bool is_double = false;

		for (; seen[slot] != 0; slot = (slot + 1) & (cap - 1)) {
			const struct span_ref *other = &t->spans[seen[slot] - 1];

			is_double = sp->len == other->len && memcmp(sp->p, other->p, sp->len) == 0;
			if (is_double)
				break;
		}
		if (is_double)
			continue;
		seen[slot] = i + 1;
		pick[n++] = i;
	}
	return n;
}

static void replace(struct trace_by_id *t, const struct otlp_pieces *pieces)
{
	struct buf combined = BUF_INIT;

	for (size_t i = 0; i < pieces->n; i++)
		buf_add_bytes(&combined, pieces->v[i]);
	buf_fini(&t->otlp);
	t->otlp = combined;
}

int trace_by_id_combine(struct trace_by_id *t, struct err *err)
{
	struct arena arena = ARENA_INIT;
	struct span_tables tables = { 0 };
	struct otlp_pieces pieces;
	struct otlp_result result;
	struct otlp_counts c;
	uint32_t *pick, n;
	int ret = -1;

	if (otlp_count(buf_bytes(&t->otlp), &c, err) < 0)
		goto out;
	tables.spans = arena_alloc(&arena, c.n_spans * sizeof(*tables.spans));
	tables.scopes = arena_alloc(&arena, c.n_scopes * sizeof(*tables.scopes));
	tables.resources = arena_alloc(&arena, c.n_resources * sizeof(*tables.resources));
	tables.heads = arena_alloc(&arena, c.n_heads * sizeof(*tables.heads));
	pick = arena_alloc(&arena, c.n_spans * sizeof(*pick));
	if (otlp_index(buf_bytes(&t->otlp), &tables, &arena, &result, err) < 0)
		goto out;
	n = pick_unique(&tables, pick, &arena);
	t->n_spans = n;
	if (n < tables.n_spans) {
		otlp_encode(&tables, pick, n, &arena, &pieces);
		replace(t, &pieces);
	}
	ret = 0;
out:
	if (ret < 0 && err != NULL)
		err->kind = ERR_CORRUPT;
	arena_fini(&arena);
	return ret;
}
