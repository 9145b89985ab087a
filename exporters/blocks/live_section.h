/* SPDX-License-Identifier: Apache-2.0
 *
 * live_section.h - the index of a stretch of the log that is not in a visible block yet: which
 * records hold a trace.
 *
 *   traces (hash by tenant and id)  {id, tenant, links} --> {record 7} -> {record 3} -> {record 0}
 *   records                         {position in the log, LSN, tenant, spans}
 *
 * The bytes stay in the log; a lookup reads the records of a trace and picks its spans. 28 bytes a
 * trace and 8 a (trace, record) pair. Rejected: an index of spans (120 bytes each, to save a lookup
 * reading 100 KB).
 *
 * While at least half of the budget is free, the section also keeps what the builder wants to know
 * of each run of spans (early_notes.h) and the heads they name; 32 bytes a run, which may go at any
 * time.
 *
 * THREADS: none of its own; the exporter's lock covers it. OWNERSHIP: frees itself.
 * LIMITS: its memory is charged (forced) to the budget.
 */
#ifndef EXPORTERS_BLOCKS_LIVE_SECTION_H
#define EXPORTERS_BLOCKS_LIVE_SECTION_H

#include "base/budget.h"
#include "exporters/blocks/early_notes.h"
#include "pipeline/batch.h"
#include "pipeline/segment/log.h"

enum { LIVE_SECTION_HEADS = 1024, LIVE_SECTION_HEAD_COST = 64 };

struct live_record {
	struct segment_position at;
	uint64_t lsn;
	uint64_t first, last; /* offsets of its spans, when it is of a stream; else 0 */
	uint32_t tenant;      /* index into tenants */
	uint32_t n_spans;
	uint32_t head; /* bytes before its OTLP, when it is of a stream */
	uint32_t n_notes;
	const struct early_note *notes; /* one a run, in `notes`; NULL: none are kept */
};

struct live_trace {
	uint8_t id[16];
	uint32_t tenant; /* index + 1; 0: free slot */
	uint32_t links;  /* head of a list of links, index + 1 */
	uint32_t n_spans;
};

struct live_link {
	uint32_t record, next; /* next: index + 1 */
};

struct live_section {
	uint64_t first_lsn, last_lsn;
	uint64_t first_wall_ns;            /* of the first record: names the commit */
	uint64_t min_wall_ns, max_wall_ns; /* the wall clock may step back */
	uint64_t opened_mono_ns;           /* of the first record; for max_block_age */
	uint64_t bytes, n_spans;           /* OTLP bytes, and spans, in the log */
	uint64_t n_runs;                   /* of spans: what a builder notes (span_notes.h) */
	uint64_t head_bytes; /* of resources and scopes, those that repeat mostly left out */
	uint64_t n_claimed;  /* of the spans: those the ledger counts here (batch_hold) */
	struct live_record *records;
	size_t n_records, cap_records;
	char **tenants;
	size_t n_tenants, cap_tenants;
	struct live_trace *traces;
	size_t n_traces, cap_traces; /* cap: power of two or 0 */
	uint32_t largest_trace;      /* spans of the trace that has most */
	struct live_link *links;
	size_t n_links, cap_links;
	struct section_notes *notes;             /* NULL: none */
	uint64_t heads_seen[LIVE_SECTION_HEADS]; /* hashes; each slot has the last one */
	uint64_t seed;                           /* senders choose ids, and must not choose slots */
	struct budget *budget;
	size_t charged;
	uint64_t end_offset;       /* of a stream's: spans at or above do not count any more */
	uint64_t retire_mono_ns;   /* published: when other readers have seen the block */
	struct live_section *next; /* the exporter's lists */
};

/* Sections in the order they were opened. */
struct section_list {
	struct live_section *first, *last;
};

static inline void section_list_append(struct section_list *list, struct live_section *s)
{
	s->next = NULL;
	if (list->last != NULL)
		list->last->next = s;
	else
		list->first = s;
	list->last = s;
}

static inline struct live_section *section_list_take(struct section_list *list)
{
	struct live_section *s = list->first;

	list->first = s->next;
	if (list->first == NULL)
		list->last = NULL;
	return s;
}

struct live_section *live_section_new(struct budget *budget);
void live_section_free(struct live_section *s);
/* Give the index's memory back and find nothing any more: another reader of this process has it
 * all. What the section is (LSNs, times, counts of spans and bytes) stays. */
void live_section_forget(struct live_section *s);
/* The record at `at`, just made durable, holds these spans. LSNs ascend. `notes` (NULL: none) are
 * copied while there is room for them. */
void live_section_add(struct live_section *s, const char *tenant, const struct segment_position *at,
		      uint64_t lsn, uint64_t wall_ns, const struct span_tables *spans,
		      const struct early_notes *notes);
/* Give back the memory of all notes: the builder reads the records instead. */
void live_section_drop_notes(struct live_section *s);
/* Positions of the records that hold the trace, newest first: walk with *cursor = 0 first. 1 or 0
 * at the end. */
int live_section_find(const struct live_section *s, const char *tenant, const uint8_t id[16],
		      uint32_t *cursor, struct segment_position *at);
/* Bytes the index itself takes. */
size_t live_section_memory(const struct live_section *s);

#endif
