/* SPDX-License-Identifier: Apache-2.0
 *
 * batch.h - what flows through a pipeline: received bytes plus an immutable index (DESIGN section
 * 3).
 *
 *   struct batch --- tables.spans[] ---> bytes in sources[] (the request's buffer, which all
 *        |                               derived batches share)
 *        +--------- origins[] ---------> who waits for these spans
 *
 * A batch is one block of memory made at the receiver. Derived batches (filtered, merged, edited)
 * share the buffers and own only their index; an untouched batch is sent as the very bytes it came
 * in.
 *
 * OWNERSHIP: reference counted. consume takes a reference together with the duty to settle the
 * batch's spans exactly once: batch_settle, or handing it on. batch_ref alone copies no duty.
 * THREADS: immutable once built; any thread.
 * LIMITS: sources and index are charged to the budget until the last reference goes.
 */
#ifndef PIPELINE_BATCH_H
#define PIPELINE_BATCH_H

#include "base/arena.h"
#include "base/budget.h"
#include "base/rcbuf.h"
#include "pipeline/origin.h"
#include "wire/otlp_index.h"
#include "wire/span.h"

enum { TENANT_MAX = 150 };
#define TENANT_DEFAULT "single-tenant"

/* Legal: [0-9A-Za-z!_.*'()-]{1,150}, and none of ".", "..", "_spanmill". */
bool tenant_is_valid(struct bytes name);

struct batch_origin {
	struct origin *origin;
	uint32_t n_spans; /* spans of this batch that it waits for */
};

struct batch {
	_Atomic uint32_t refs;
	uint8_t signal; /* enum otlp_signal; of others than traces spans[] are items: wire/span.h */
	struct span_tables tables;
	struct rcbuf **sources;
	struct batch_origin *origins;
	struct bytes *whole; /* when n_whole > 0: these requests, one after the other, are exactly
				this batch */
	uint32_t n_sources, n_origins, n_whole;
	bool is_detached;   /* nobody waits for it: settling is a no-op (best_effort branches) */
	size_t index_bytes; /* charged: this block and what the arena holds */
	struct budget *budget;
	struct arena arena; /* edits: pieces and rewritten fields */
	size_t arena_charged;
	uint32_t heads_room; /* of tables.heads */
	char tenant[TENANT_MAX + 1];
};

/* Index a received ExportTraceServiceRequest. Takes the buffer's reference (also on error). The
 * batch has no origin yet and no duty: batch_bind gives both (a tool may do without: settling is
 * then a no-op). NULL: damaged (ERR_INVALID), the budget refuses the index now (ERR_EXHAUSTED), or
 * could not hold it when empty (ERR_TOO_LARGE). result may say that spans were rejected; a batch of
 * zero spans is legal. */
struct batch *batch_from_otlp(struct rcbuf *request, const char *tenant, struct budget *budget,
			      struct otlp_result *result, struct err *err);
/* The same of any signal. A batch of logs or metrics goes the way of spans and is settled, joined,
 * split and encoded as they are, item by item. */
struct batch *batch_from_request(enum otlp_signal signal, struct rcbuf *request, const char *tenant,
				 struct budget *budget, struct otlp_result *result,
				 struct err *err);
/* What the Collector counts: spans, log records, data points. */
uint64_t batch_n_points(const struct batch *b);
static inline uint64_t batch_n_items(const struct batch *b)
{
	return LIKELY(b->signal != OTLP_METRICS) ? b->tables.n_spans : batch_n_points(b);
}
/* Make `o` the origin of all spans of a fresh batch; origin_init(o, b->tables.n_spans, ...) was
 * called. */
void batch_bind(struct batch *b, struct origin *o);

struct batch *batch_ref(struct batch *b);
/* NULL is fine. */
void batch_unref(struct batch *b);

/* Every span of the batch has this verdict (HELD: see batch_hold). Does not unref. No-op on a
 * detached batch. */
void batch_settle(struct batch *b, enum verdict v, enum drop_reason reason, const struct err *err);
/* The batch is in a log of ours and synced: every span is HELD. Returns how many of its spans this
 * log answers for in the ledger when they leave it (ledger_held_delivered, ledger_held_dropped):
 * all of them, less those that another log of the same fan-out holds already, and none of a
 * detached batch. */
uint32_t batch_hold(struct batch *b);
/* The same of a log that queries read: every span is STORED. */
uint32_t batch_store(struct batch *b);
/* The next hop took the batch but refused n spans, nobody knows which: n of them are PERMANENT, the
 * rest DELIVERED. */
void batch_settle_partial(struct batch *b, uint32_t n_rejected, const struct err *err);
/* True when every origin was answered "try again": sending it would only make copies. */
bool batch_is_withdrawn(const struct batch *b);

/* The spans with keep[i] != 0; the others are settled as DROPPED with `reason`. Takes b, returns b
 * itself when all are kept, NULL when none. */
struct batch *batch_filter(struct batch *b, const uint8_t *keep, enum drop_reason reason);
/* One batch of several of one tenant, in order; detached ones do not mix with others. Takes them
 * all (and their duties). n >= 1. */
struct batch *batch_concat(struct batch **v, size_t n);
/* Cut the first n spans off: *head gets them, *tail the rest (0 < n < n_spans). Unknown fields of
 * the request itself go with the head, once. Takes b. */
void batch_split(struct batch *b, uint32_t n, struct batch **head, struct batch **tail);
/* Where to split n spans so that, splitting on, all parts but the last have exactly `max` spans: a
 * multiple of it near the middle, because a split costs as much as it has spans. 0: n <= max, or
 * max is 0. */
uint32_t batch_split_point(uint32_t n, uint64_t max);
/* The spans with keep[i] != 0 into *kept, the others into *rest; either is NULL when it has none.
 * Takes b, and returns b itself for the one that has all. */
void batch_divide(struct batch *b, const uint8_t *keep, struct batch **kept, struct batch **rest);
/* A copy of the index that may be edited before it is shared; same duty. Takes b (returns b when
 * nobody else has it). */
struct batch *batch_editable(struct batch *b);
/* In an editable batch: replace the trace_state of span i (empty removes it), and its r and th with
 * it. Copies `value` (UTF-8, under 1 MiB). */
void batch_set_trace_state(struct batch *b, uint32_t i, struct bytes value);
/* In an editable batch: add a whole field (tag and all) at the end of span i, for fields that it
 * does not have. `raw` must live in b->arena or longer than the batch. */
void batch_append_field(struct batch *b, uint32_t i, struct bytes raw);
/* In an editable batch: the Span i is these runs of whole fields from now on, in this order. They
 * live in b->arena or longer than the batch (what the span had before does). Ids, times, name,
 * kind, status and trace_state must stay as they were: the index is not made anew. */
void batch_set_span(struct batch *b, uint32_t i, const struct bytes *fields, size_t n);
/* In an editable batch: what resource r has beside its scopes is this run of whole fields of
 * ResourceSpans (Resource, schema_url, unknown ones). It lives as those of batch_set_span. */
void batch_set_resource(struct batch *b, uint32_t r, struct bytes head);
/* The same spans without duty, sharing b's reference count and bytes: for a best_effort branch. New
 * reference. */
struct batch *batch_detached(struct batch *b);

/* The batch as one ExportTraceServiceRequest, as a list of slices. Slices point into the batch and
 * into `arena`; both must outlive them. */
struct batch_encoding {
	struct bytes *pieces;
	size_t n_pieces;
	size_t n_bytes;
};
void batch_encode(const struct batch *b, struct arena *arena, struct batch_encoding *out);
/* Encoded size without building the list. */
size_t batch_encoded_size(const struct batch *b);

#endif
