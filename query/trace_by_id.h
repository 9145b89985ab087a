/* SPDX-License-Identifier: Apache-2.0
 *
 * trace_by_id.h - one trace out of a store: every piece, doubles removed.
 *
 * A span that is there twice with equal bytes (a section that moves from live data to a block while
 * we look, a client's retry) is returned once; different bytes under one id and kind are both
 * returned. Ids stay as they were received.
 * THREADS: blocks on the store; any thread. OWNERSHIP: the caller frees the result with
 * trace_by_id_fini.
 * SPEC: INTERFACE "Query"; DESIGN section 6 "Duplicates".
 */
#ifndef QUERY_TRACE_BY_ID_H
#define QUERY_TRACE_BY_ID_H

#include "blocks/store.h"

struct trace_by_id {
	struct buf otlp; /* TracesData; empty when nothing was found */
	uint32_t n_spans;
	bool is_complete; /* every place was asked and answered */
	uint64_t inspected_bytes;
	char why[256]; /* when not complete */
};

/* 1 to 32 hex digits, left-padded with zeros; an odd count gets a zero in front. INVALID quotes the
 * text. */
int trace_by_id_parse(const char *text, uint8_t id[16], struct err *err);
/* Look in one tenant; call again for more tenants, then trace_by_id_combine. -1: over max_bytes
 * (TOO_LARGE). */
int trace_by_id_find(struct store *s, const char *tenant, const uint8_t id[16], size_t max_bytes,
		     struct trace_by_id *t, struct err *err);
/* Remove the doubles. -1: what is stored is damaged (CORRUPT). */
int trace_by_id_combine(struct trace_by_id *t, struct err *err);
void trace_by_id_init(struct trace_by_id *t);
void trace_by_id_fini(struct trace_by_id *t);

#endif
