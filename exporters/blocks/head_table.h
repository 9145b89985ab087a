/* SPDX-License-Identifier: Apache-2.0
 *
 * head_table.h - the resources and scopes of many requests, each once.
 *
 *   resources[]  bytes of a ResourceSpans beside its scopes     found by hash of the bytes
 *   scopes[]     resource + bytes of a ScopeSpans beside its spans   by hash of both
 *
 * Processes send the same resource with every request, so a section of 400 MB has a few thousand
 * of them at most; the bytes are copied here and the requests may go. A trace that came in pieces
 * gets one ResourceSpans per resource, not one per request.
 *
 * OWNERSHIP: owns copies. THREADS: one at a time. LIMITS: as many bytes as the caller adds;
 * head_table_memory says how many they are.
 */
#ifndef EXPORTERS_BLOCKS_HEAD_TABLE_H
#define EXPORTERS_BLOCKS_HEAD_TABLE_H

#include "base/arena.h"
#include "base/buf.h"
#include "wire/span.h"

struct head_set {
	uint32_t *slots; /* index + 1 into scopes or resources; 0: free */
	size_t cap;      /* power of two or 0 */
};

struct head_table {
	struct scope_ref *scopes;
	struct resource_ref *resources;
	struct bytes *heads; /* one per scope or resource that has any */
	size_t n_scopes, n_resources, n_heads;
	size_t cap_scopes, cap_resources, cap_heads;
	struct head_set scope_set, resource_set;
	struct arena arena;
	struct buf joined; /* of the head at hand */
	uint64_t seed;     /* senders choose the bytes, and must not choose slots */
};

void head_table_init(struct head_table *h);
void head_table_fini(struct head_table *h);
/* The number here of from->scopes[scope]; added with its resource unless both are there. */
uint32_t head_table_add(struct head_table *h, const struct span_tables *from, uint32_t scope);
/* Scopes, resources and heads as encoders want them: borrows, until the next add. */
void head_table_lend(const struct head_table *h, struct span_tables *to);
size_t head_table_memory(const struct head_table *h);

#endif
