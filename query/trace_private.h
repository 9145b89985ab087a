/* SPDX-License-Identifier: Apache-2.0
 *
 * trace_private.h - what trace_by_id.c, trace_pieces.c and trace_combine.c share; for them only.
 */
#ifndef QUERY_TRACE_PRIVATE_H
#define QUERY_TRACE_PRIVATE_H

#include "base/arena.h"
#include "query/trace_by_id.h"
#include "wire/otlp_index.h"

/* Take a piece in: what is damaged is left out and noted, spans that are there already with the
 * same resource and scope are left out. -1: TOO_LARGE, EXHAUSTED. */
int trace_add_piece(struct trace_by_id *t, struct bytes traces_data, struct err *err);

/* About what the tables of an index take, and what is made beside them. */
size_t trace_index_cost(const struct otlp_counts *n);
/* Tables in the arena, then otlp_index_stored. */
int trace_index(struct bytes in, const struct otlp_counts *n, struct span_tables *t,
		struct arena *arena, struct otlp_result *result, struct err *err);

static inline struct bytes trace_span_bytes(const struct span_ref *sp)
{
	return (struct bytes){ sp->p, sp->len };
}

#endif
