/* SPDX-License-Identifier: Apache-2.0
 *
 * section_find.c - look-ups in what the log holds and no visible block does yet.
 *
 * The index says which records hold spans of the trace; they are read from the log, indexed, and
 * the trace's spans of each are given on as one piece.
 * THREADS: any; see section_log_private.h.
 */
#include "base/mem.h"
#include "exporters/blocks/section_find.h"
#include "exporters/blocks/section_log_private.h"
#include "pipeline/batch_record.h"
#include "wire/otlp_encode.h"

/* Newest first within a section, oldest section first: turned round. */
void section_find_collect(const struct live_section *s, const char *tenant, const uint8_t id[16],
			  struct section_positions *out)
{
	struct segment_position at;
	size_t first;

	for (; s != NULL; s = s->next) {
		uint32_t cursor = 0;

		first = out->n;
		while (live_section_find(s, tenant, id, &cursor, &at)) {
			out->v = xgrow(out->v, &out->cap, out->n + 1, sizeof(*out->v));
			out->v[out->n++] = at;
		}
		for (size_t i = first, j = out->n; i + 1 < j; i++, j--) {
			at = out->v[i];
			out->v[i] = out->v[j - 1];
			out->v[j - 1] = at;
		}
	}
}

int section_find_give(struct bytes otlp, const uint8_t id[16], store_piece_fn *piece, void *arg,
		      struct err *err)
{
	struct arena arena = ARENA_INIT;
	struct span_tables t = { 0 };
	struct otlp_pieces pieces;
	struct otlp_result result;
	struct otlp_counts c;
	struct buf joined = BUF_INIT;
	uint32_t *pick, n = 0;
	int ret = -1;

	if (otlp_count(otlp, &c, err) < 0)
		return -1;
	t.spans = arena_alloc(&arena, c.n_spans * sizeof(*t.spans));
	t.scopes = arena_alloc(&arena, c.n_scopes * sizeof(*t.scopes));
	t.resources = arena_alloc(&arena, c.n_resources * sizeof(*t.resources));
	t.heads = arena_alloc(&arena, c.n_heads * sizeof(*t.heads));
	pick = arena_alloc(&arena, c.n_spans * sizeof(*pick));
	if (otlp_index(otlp, &t, &arena, &result, err) < 0)
		goto out;
	/* Unknown fields of the request belong to no trace; a block leaves them out too. */
	t.n_extras = 0;
	for (uint32_t i = 0; i < t.n_spans; i++)
		if (memcmp(t.spans[i].trace_id, id, 16) == 0)
			pick[n++] = i;
	otlp_encode(&t, pick, n, &arena, &pieces);
	for (size_t i = 0; i < pieces.n; i++)
		buf_add_bytes(&joined, pieces.v[i]);
	ret = n ? piece(arg, buf_bytes(&joined), err) : 0;
out:
	buf_fini(&joined);
	arena_fini(&arena);
	return ret;
}

int section_find_live(struct live_source *live, const char *tenant, const uint8_t id[16],
		      store_piece_fn *piece, void *arg, struct err *err)
{
	struct section_log *l = CONTAINER_OF(live, struct section_log, live);
	struct section_positions found = { NULL, 0, 0 };
	struct buf record = BUF_INIT;
	int ret = 0;

	pthread_mutex_lock(&l->lock);
	section_find_collect(l->retiring.first, tenant, id, &found);
	section_find_collect(l->closed.first, tenant, id, &found);
	section_find_collect(l->open, tenant, id, &found);
	pthread_mutex_unlock(&l->lock);
	for (size_t i = 0; ret == 0 && i < found.n; i++) {
		struct err local = ERR_INIT;
		struct batch_record r;

		buf_reset(&record);
		if (segment_log_read(l->log, &found.v[i], &record, &local) == 0 &&
		    batch_record_parse(buf_bytes(&record), &r, &local) == 0)
			ret = section_find_give(r.otlp, id, piece, arg, err);
		else if (local.kind != ERR_NOT_FOUND) /* freed meanwhile: a block has it */
			ret = err_set(err, local.kind, "%s", local.msg);
	}
	buf_fini(&record);
	free(found.v);
	return ret;
}
