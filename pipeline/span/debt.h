/* SPDX-License-Identifier: Apache-2.0
 *
 * debt.h - the duty to settle spans, kept after their batch is gone: for an exporter that
 * copies spans out of batches into records of its own.
 *
 *   origins  [request A] [request B]
 *   spans    {0, 7} {0, 8} {1, 0} ...     which origin waits, and the span's number there
 *
 * Spans stand in the order of their bytes in the record, so that an index of those bytes can be
 * given its duty back. Spans nobody waits for (a detached batch) are counted and owe nothing.
 *
 * THREADS: one at a time; settling may run `settled` of an origin. OWNERSHIP: an origin is alive
 * while spans owe to it.
 * DESIGN section 3; docs/decisions/010.
 */
#ifndef PIPELINE_SPAN_DEBT_H
#define PIPELINE_SPAN_DEBT_H

#include "pipeline/batch.h"

struct owing_span {
	uint32_t origin;  /* index into origins[], or SPAN_DEBT_NONE */
	uint32_t ordinal; /* of the span within its origin */
};

#define SPAN_DEBT_NONE UINT32_MAX

struct owed_origin {
	struct origin *origin;
	uint32_t n_spans; /* here */
	bool has_marks;   /* while settling */
};

/* Zeroed is empty. */
struct span_debt {
	struct owing_span *spans;
	struct owed_origin *origins; /* one may stand here twice */
	size_t n_spans, cap_spans, n_origins, cap_origins;
};

/* Take over the duty of n spans of b, those at pick[] (NULL: the first n). The caller lets b go
 * without settling them. */
void span_debt_take(struct span_debt *d, const struct batch *b, const uint32_t *pick, uint32_t n);
/* The same of n spans of one origin (its number in b), which are `ordinal` and those after it. */
void span_debt_take_run(struct span_debt *d, const struct batch *b, uint32_t origin,
			uint32_t ordinal, uint32_t n);
/* Every span has this verdict. Leaves d empty, with its memory. */
void span_debt_settle(struct span_debt *d, enum verdict v, enum drop_reason reason,
		      const struct err *err);
/* True when somebody waits for spans and all of them were told to send them again. */
bool span_debt_is_withdrawn(const struct span_debt *d);
/* True when some were. */
bool span_debt_has_withdrawn(const struct span_debt *d);
/* Give the duty back to a batch made by batch_from_otlp of exactly these spans, in this order.
 * Leaves d empty. */
void span_debt_to_batch(struct span_debt *d, struct batch *b);
/* Free the memory of an empty debt. */
void span_debt_fini(struct span_debt *d);

#endif
