/* SPDX-License-Identifier: Apache-2.0
 *
 * live_section.c - see live_section.h.
 */
#include "exporters/blocks/live_section.h"

#include "base/clock.h"
#include "base/hash.h"
#include "base/mem.h"
#include "base/rng.h"

enum { AHEAD = 48 };     /* spans */
enum { NOTES_ROOM = 2 }; /* notes are kept while one part in so many of the budget is free */

struct live_section *live_section_new(struct budget *budget)
{
	struct live_section *s = xcalloc(1, sizeof(*s));

	s->budget = budget;
	s->min_wall_ns = s->end_offset = UINT64_MAX;
	rng_kernel(&s->seed, sizeof(s->seed));
	return s;
}

void live_section_drop_notes(struct live_section *s)
{
	if (s->notes == NULL)
		return;
	for (size_t i = 0; i < s->n_records; i++)
		s->records[i].notes = NULL;
	section_notes_unref(s->notes);
	s->notes = NULL;
}

void live_section_forget(struct live_section *s)
{
	live_section_drop_notes(s);
	free(s->records);
	free(s->traces);
	free(s->links);
	s->records = NULL;
	s->traces = NULL;
	s->links = NULL;
	s->n_records = s->cap_records = s->n_traces = s->cap_traces = s->n_links = s->cap_links = 0;
	budget_release(s->budget, s->charged);
	s->charged = 0;
}

void live_section_free(struct live_section *s)
{
	if (s == NULL)
		return;
	live_section_forget(s);
	for (size_t i = 0; i < s->n_tenants; i++)
		free(s->tenants[i]);
	free(s->tenants);
	free(s);
}

/* Index of the tenant, or n_tenants. There are few. */
static uint32_t find_tenant(const struct live_section *s, const char *tenant)
{
	uint32_t i = 0;

	while (i < s->n_tenants && strcmp(s->tenants[i], tenant) != 0)
		i++;
	return i;
}

static uint32_t intern_tenant(struct live_section *s, const char *tenant)
{
	uint32_t i = find_tenant(s, tenant);

	if (i == s->n_tenants) {
		s->tenants =
			xgrow(s->tenants, &s->cap_tenants, s->n_tenants + 1, sizeof(*s->tenants));
		s->tenants[s->n_tenants++] = xstrdup(tenant);
	}
	return i;
}

static size_t slot_of(const struct live_section *s, const uint8_t id[16], uint32_t tenant)
{
	return hash_xxh64(id, 16, s->seed + tenant) & (s->cap_traces - 1);
}

static struct live_trace *find_trace(const struct live_section *s, const uint8_t id[16],
				     uint32_t tenant)
{
	size_t i = slot_of(s, id, tenant);

	while (s->traces[i].tenant != 0 &&
	       (s->traces[i].tenant != tenant + 1 || memcmp(s->traces[i].id, id, 16) != 0))
		i = (i + 1) & (s->cap_traces - 1);
	return &s->traces[i];
}

static void grow_traces(struct live_section *s)
{
	struct live_trace *old = s->traces;
	size_t old_cap = s->cap_traces;

	s->cap_traces = old_cap ? old_cap * 2 : 1024;
	s->traces = xcalloc(s->cap_traces, sizeof(*s->traces));
	for (size_t i = 0; i < old_cap; i++)
		if (old[i].tenant != 0)
			*find_trace(s, old[i].id, old[i].tenant - 1) = old[i];
	free(old);
}

static struct live_trace *link_trace(struct live_section *s, const uint8_t id[16], uint32_t tenant,
				     uint32_t record)
{
	struct live_trace *t;

	if ((s->n_traces + 1) * 4 > s->cap_traces * 3)
		grow_traces(s);
	t = find_trace(s, id, tenant);
	if (t->tenant == 0) {
		memcpy(t->id, id, 16);
		t->tenant = tenant + 1;
		s->n_traces++;
	}
	if (t->links != 0 && s->links[t->links - 1].record == record)
		return t;
	s->links = xgrow(s->links, &s->cap_links, s->n_links + 1, sizeof(*s->links));
	s->links[s->n_links] = (struct live_link){ record, t->links };
	t->links = (uint32_t)++s->n_links;
	return t;
}

/* The table is in no cache, and its slots are far apart: those of some rows ahead are fetched while
 * one is linked. A table that grows meanwhile has only been asked for nothing. */
static uint32_t fetch_ahead(const struct live_section *s, const struct span_tables *t,
			    uint32_t tenant, uint32_t at, uint32_t to)
{
	for (; at < t->n_spans && at < to; at++) {
		const uint8_t *id = t->spans[at].trace_id;

		if (at == 0 || memcmp(t->spans[at - 1].trace_id, id, 16) != 0)
			__builtin_prefetch(&s->traces[slot_of(s, id, tenant)], 1);
	}
	return at;
}

/* Spans of a trace mostly come in a row: the table is asked once for each row. */
static void link_spans(struct live_section *s, const struct span_tables *t, uint32_t tenant,
		       uint32_t record)
{
	const uint8_t *last = NULL;
	struct live_trace *trace = NULL;
	uint32_t ahead = 0;

	for (uint32_t i = 0; i < t->n_spans; i++) {
		const uint8_t *id = t->spans[i].trace_id;

		if (s->cap_traces > 0)
			ahead = fetch_ahead(s, t, tenant, ahead, i + AHEAD);
		if (last == NULL || memcmp(last, id, 16) != 0)
			trace = link_trace(s, id, tenant, record);
		last = id;
		s->largest_trace = MAX(s->largest_trace, ++trace->n_spans);
	}
}

static void charge_growth(struct live_section *s)
{
	size_t now = live_section_memory(s);

	if (now > s->charged)
		budget_force(s->budget, now - s->charged);
	s->charged = now;
}

/* What the head takes in a builder's memory, which has each once. Forgetting one that was seen long
 * ago only makes the section look larger. */
static void note_head(struct live_section *s, const struct span_tables *t, uint32_t head,
		      uint32_t n_head, uint32_t bytes)
{
	uint64_t hash = s->seed;

	for (uint32_t i = 0; i < n_head; i++)
		hash = hash_xxh64(t->heads[head + i].p, t->heads[head + i].n, hash);
	if (s->heads_seen[hash % LIVE_SECTION_HEADS] == hash)
		return;
	s->heads_seen[hash % LIVE_SECTION_HEADS] = hash;
	s->head_bytes += bytes + LIVE_SECTION_HEAD_COST;
}

static void note_heads(struct live_section *s, const struct span_tables *t)
{
	for (uint32_t i = 0; i < t->n_resources; i++)
		note_head(s, t, t->resources[i].head, t->resources[i].n_head,
			  t->resources[i].head_bytes);
	for (uint32_t i = 0; i < t->n_scopes; i++)
		note_head(s, t, t->scopes[i].head, t->scopes[i].n_head, t->scopes[i].head_bytes);
}

/* ---- notes ---- */

static bool has_room_for_notes(const struct live_section *s)
{
	const struct budget *b = s->budget;

	return b == NULL || budget_left(s->budget) >= (size_t)MAX(b->limit, 0) / NOTES_ROOM;
}

static const struct early_note *keep_notes(struct live_section *s, const struct span_tables *t,
					   const struct early_notes *notes)
{
	if (notes == NULL || notes->v == NULL || t->n_spans == 0 || !has_room_for_notes(s))
		return NULL;
	if (s->notes == NULL)
		s->notes = section_notes_new(s->budget);
	return section_notes_add(s->notes, t, notes);
}

void live_section_add(struct live_section *s, const char *tenant, const struct segment_position *at,
		      uint64_t lsn, uint64_t wall_ns, const struct span_tables *spans,
		      const struct early_notes *notes)
{
	uint32_t t = intern_tenant(s, tenant), record = (uint32_t)s->n_records;
	bool is_noted = notes != NULL && notes->v != NULL;

	if (s->n_records == 0) {
		s->first_lsn = lsn;
		s->first_wall_ns = wall_ns;
		s->opened_mono_ns = clock_mono_ns();
	}
	s->last_lsn = lsn;
	s->min_wall_ns = MIN(s->min_wall_ns, wall_ns);
	s->max_wall_ns = MAX(s->max_wall_ns, wall_ns);
	s->bytes += at->length;
	s->n_spans += spans->n_spans;
	s->n_runs += is_noted ? notes->n : spans->n_spans;
	note_heads(s, spans);
	s->records = xgrow(s->records, &s->cap_records, s->n_records + 1, sizeof(*s->records));
	s->records[s->n_records++] = (struct live_record){
		.at = *at,
		.lsn = lsn,
		.tenant = t,
		.n_spans = spans->n_spans,
		.n_notes = is_noted ? notes->n : 0,
		.notes = keep_notes(s, spans, notes),
	};
	link_spans(s, spans, t, record);
	charge_growth(s);
}

int live_section_find(const struct live_section *s, const char *tenant, const uint8_t id[16],
		      uint32_t *cursor, struct segment_position *at)
{
	uint32_t link = *cursor;

	if (link == 0) {
		uint32_t t = find_tenant(s, tenant);

		if (t == s->n_tenants || s->cap_traces == 0)
			return 0;
		link = find_trace(s, id, t)->links;
	} else {
		link = s->links[link - 1].next;
	}
	if (link == 0)
		return 0;
	*cursor = link;
	*at = s->records[s->links[link - 1].record].at;
	return 1;
}

size_t live_section_memory(const struct live_section *s)
{
	return s->cap_records * sizeof(*s->records) + s->cap_traces * sizeof(*s->traces) +
	       s->cap_links * sizeof(*s->links);
}
