/* SPDX-License-Identifier: Apache-2.0
 *
 * trace_by_id.h - one trace out of a store: every piece, doubles removed, in one order.
 *
 *   trace_by_id_find (per tenant) -> pieces, as live sources and blocks give them
 *   trace_by_id_combine           -> one TracesData
 *
 * A span that is there twice with equal bytes (a section that moves from live data to a block while
 * we look, a client's retry) is returned once; different bytes under one id and kind are both
 * returned. Ids stay as they were received, and so does whatever others stored that we would not
 * have taken (text that is no UTF-8, ids of other lengths). Spans of equal resource and scope stand
 * together; spans, scopes and resources are in the order of their starts: the same spans are the
 * same bytes, wherever they lay.
 *
 * A piece that is damaged costs itself: the answer is then incomplete.
 * THREADS: blocks on the store; any thread. OWNERSHIP: the caller frees the result with
 * trace_by_id_fini.
 * LIMITS: max_bytes of pieces; memory by query_memory.
 * SPEC: INTERFACE "Query"; DESIGN section 6 "Duplicates".
 */
#ifndef QUERY_TRACE_BY_ID_H
#define QUERY_TRACE_BY_ID_H

#include "blocks/store.h"
#include "query/query_memory.h"

struct seen_spans;

/* How the message of a trace over max_bytes begins. */
#define TRACE_TOO_LARGE_TEXT "trace exceeds max size"

struct trace_by_id {
	/* The pieces, one after the other; after combine the trace; empty: nothing was found. */
	struct buf otlp;
	uint32_t n_spans; /* after combine */
	bool is_complete; /* every place was asked and answered */
	uint64_t inspected_bytes;
	char why[256]; /* when not complete: the first reason */

	size_t max_bytes;
	bool keep_what_fits; /* past max_bytes: leave the rest out, incomplete, instead of failing
			      */
	struct query_memory *memory;
	size_t charged;          /* to it, for otlp and seen */
	struct seen_spans *seen; /* what is in otlp; NULL: nothing, or it is combined */
};

/* 1 to 32 hex digits, left-padded with zeros; an odd count gets a zero in front. INVALID quotes the
 * text. */
int trace_by_id_parse(const char *text, uint8_t id[16], struct err *err);
/* Borrows memory. */
void trace_by_id_init(struct trace_by_id *t, size_t max_bytes, struct query_memory *memory);
void trace_by_id_fini(struct trace_by_id *t);
/* Look in one tenant; call again for more tenants, then trace_by_id_combine. -1: over max_bytes, or
 * more memory than there will ever be (TOO_LARGE), or than there is now (EXHAUSTED). */
int trace_by_id_find(struct store *s, const char *tenant, const uint8_t id[16],
		     struct trace_by_id *t, struct err *err);
/* The same in a part of the store. *live_since_ns (may be NULL): see struct store_find_result. */
int trace_by_id_find_in(struct store *s, const struct store_scope *scope, const char *tenant,
			const uint8_t id[16], struct trace_by_id *t, uint64_t *live_since_ns,
			struct err *err);
/* Take in a piece (TracesData) from elsewhere. Errors as trace_by_id_find. */
int trace_by_id_add(struct trace_by_id *t, struct bytes traces_data, struct err *err);
/* Join the pieces. -1: TOO_LARGE or EXHAUSTED as above. */
int trace_by_id_combine(struct trace_by_id *t, struct err *err);
/* Free what only the next piece would need. */
void trace_by_id_forget(struct trace_by_id *t);
/* Note that something is missing; the first reason is kept. */
void trace_by_id_incomplete(struct trace_by_id *t, const char *fmt, ...) PRINTF_LIKE(2, 3);

#endif
