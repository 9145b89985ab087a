/* SPDX-License-Identifier: Apache-2.0
 *
 * block_builder.c - see block_builder.h. Notes and their order are span_notes.c, fetching spans is
 * block_gather.c, this is what is done with each request and each trace.
 */
#include "exporters/blocks/block_builder.h"

#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/rng.h"
#include "base/str.h"
#include "blocks/block_object.h"
#include "exporters/blocks/block_gather.h"
#include "exporters/blocks/head_table.h"
#include "wire/otlp_encode.h"
#include "wire/pb.h"

#include <stdio.h>

#define SHARD_HASHER "murmur2"

/* Tables of one request, kept from one to the next. */
struct request_index {
	struct span_tables tables;
	struct otlp_counts room;
	uint32_t *scopes;     /* by scope of the request: its number in the heads, or UINT32_MAX */
	struct arena rebuilt; /* heads that otlp_index put together */
};

struct build_state {
	struct block_build *b;
	const struct block_input *input;
	struct block_writer *writer;
	struct request_index request;
	const struct head_table *noted; /* heads that noted_scopes maps */
	uint32_t *noted_scopes;         /* their number in ours, or UINT32_MAX */
	size_t cap_noted;
	struct bytes *requests; /* where they are, while they stay there */
	size_t n_requests, cap_requests;
	struct span_notes notes;
	struct head_table heads;
	struct block_gather gather;
	size_t charged;
	/* the trace at hand */
	struct span_tables trace; /* its spans; resources and scopes of all */
	size_t cap_spans;
	struct arena scratch;
	uint32_t *pick;
	size_t cap_pick;
	struct bytes *pieces;
	size_t cap_pieces;
	/* Hash table of picked positions + 1: the first span of each id and kind by these, the
	 * others by all their bytes. */
	uint32_t *seen;
	size_t cap_seen; /* slots in use for this trace: a power of two, at most alloc_seen */
	size_t alloc_seen;
	uint64_t seed; /* senders choose span ids, and must not choose slots */
	uint64_t min_start_ns, max_end_ns;
	bool is_sharded;
};

/* ---- requests as an array ---- */

struct array_input {
	const struct block_build *b;
	size_t at;
};

static int next_of_array(void *arg, struct block_request *r, struct err *err)
{
	struct array_input *in = arg;

	(void)err;
	if (in->at == in->b->n_requests)
		return 0;
	*r = (struct block_request){ .otlp = in->b->requests[in->at++] };
	return 1;
}

/* ---- index: one pass over all requests ---- */

/* Room for one more kind of row; what was there is not needed any more. */
static void *room_for(void *p, uint32_t *have, uint32_t need, size_t size)
{
	if (need <= *have && p != NULL)
		return p;
	free(p);
	*have = MAX(need, 64u) + need / 2;
	return xmalloc(*have * size);
}

static int index_request(struct request_index *in, struct bytes otlp, struct err *err)
{
	struct span_tables *t = &in->tables;
	struct otlp_result result;
	struct otlp_counts c;
	uint32_t scopes = in->room.n_scopes;

	if (otlp_count(otlp, &c, err) < 0)
		return -1;
	t->spans = room_for(t->spans, &in->room.n_spans, c.n_spans, sizeof(*t->spans));
	in->scopes = room_for(in->scopes, &scopes, c.n_scopes, sizeof(*in->scopes));
	t->scopes = room_for(t->scopes, &in->room.n_scopes, c.n_scopes, sizeof(*t->scopes));
	t->resources =
		room_for(t->resources, &in->room.n_resources, c.n_resources, sizeof(*t->resources));
	t->heads = room_for(t->heads, &in->room.n_heads, c.n_heads, sizeof(*t->heads));
	arena_reset(&in->rebuilt);
	t->n_spans = t->n_scopes = t->n_resources = t->n_heads = t->n_extras = 0;
	if (otlp_index(otlp, t, &in->rebuilt, &result, err) < 0)
		return -1;
	memset(in->scopes, 0xff, t->n_scopes * sizeof(*in->scopes));
	return 0;
}

/* The spans [i, end) of the request at hand, which are a run. */
static void note_run(struct build_state *s, uint32_t i, uint32_t end, uint32_t request,
		     const uint8_t *base)
{
	const struct span_ref *sp = &s->request.tables.spans[i];
	uint32_t *scope = &s->request.scopes[sp->scope];
	struct span_note note = { .request = request };
	const uint8_t *p = span_run_bytes(s->request.tables.spans, i, end, &note.len);

	if (*scope == UINT32_MAX)
		*scope = head_table_add(&s->heads, &s->request.tables, sp->scope);
	note.scope = *scope;
	note.off = (uint32_t)(p - base);
	if (s->input->read != NULL)
		note.check = block_gather_check(p, note.len & ~SPAN_RUN_BARE);
	span_notes_add(&s->notes, load_be64(sp->trace_id), load_be64(sp->trace_id + 8), &note);
}

/* All runs of the request at hand, without the spans that are not to be kept. */
static void note_runs(struct build_state *s, const uint8_t *keep, uint32_t request,
		      const uint8_t *base)
{
	const struct span_tables *t = &s->request.tables;
	uint32_t end;

	for (uint32_t i = 0; i < t->n_spans; i = end) {
		if (keep != NULL && !keep[i]) {
			end = i + 1;
			continue;
		}
		end = span_run_end(t->spans, i, t->n_spans);
		for (uint32_t k = i + 1; keep != NULL && k < end; k++)
			if (!keep[k])
				end = k;
		note_run(s, i, end, request, base);
	}
}

/* Scopes of another table get their numbers here when they are first met. */
static void map_heads(struct build_state *s, const struct head_table *heads)
{
	if (heads == s->noted)
		return;
	s->noted = heads;
	s->noted_scopes = xgrow(s->noted_scopes, &s->cap_noted, MAX(heads->n_scopes, (size_t)1),
				sizeof(*s->noted_scopes));
	memset(s->noted_scopes, 0xff, s->cap_noted * sizeof(*s->noted_scopes));
}

static void take_notes(struct build_state *s, const struct block_request *r, uint32_t number)
{
	struct span_tables from = { 0 };

	map_heads(s, r->heads);
	head_table_lend(r->heads, &from);
	for (uint32_t i = 0; i < r->n_notes; i++) {
		const struct early_note *n = &r->notes[i];
		uint32_t *scope = &s->noted_scopes[n->scope];
		struct span_note note = { number, n->off, n->len, 0, n->check };

		if (*scope == UINT32_MAX)
			*scope = head_table_add(&s->heads, &from, n->scope);
		note.scope = *scope;
		span_notes_add(&s->notes, n->hi, n->lo, &note);
	}
}

/* A request that cannot be indexed again is left out: the rest of the section is none the worse. */
static void note_request(struct build_state *s, const struct block_request *r)
{
	uint32_t number = (uint32_t)s->n_requests++;
	struct err err = ERR_INIT;

	if (r->notes != NULL) {
		take_notes(s, r, number);
		return;
	}
	if (s->input->read == NULL) {
		s->requests =
			xgrow(s->requests, &s->cap_requests, s->n_requests, sizeof(*s->requests));
		s->requests[number] = r->otlp;
	}
	if (index_request(&s->request, r->otlp, &err) < 0) {
		log_error("a request of the log is damaged and lost", "request", LOG_NUM(number),
			  "error", err.msg);
		return;
	}
	note_runs(s, r->keep, number, r->otlp.p);
}

enum { PATIENT_FROM = 1 << 20 }; /* bytes that are worth waiting for */

static void charge_to(struct build_state *s, size_t n)
{
	/* Requests that are under way need no block to be answered: they can be waited for. */
	if (n > s->charged + PATIENT_FROM)
		budget_force_patiently(s->b->budget, n - s->charged);
	else if (n > s->charged)
		budget_force(s->b->budget, n - s->charged);
	else
		budget_release(s->b->budget, s->charged - n);
	s->charged = n;
}

static size_t index_memory(const struct request_index *in)
{
	return in->room.n_spans * sizeof(*in->tables.spans) +
	       in->room.n_scopes * (sizeof(*in->tables.scopes) + sizeof(*in->scopes)) +
	       in->room.n_resources * sizeof(*in->tables.resources) +
	       in->room.n_heads * sizeof(*in->tables.heads) + in->rebuilt.bytes;
}

/* What is held beside the trace at hand. */
static size_t base_memory(const struct build_state *s)
{
	return index_memory(&s->request) + span_notes_memory(&s->notes) +
	       head_table_memory(&s->heads) + block_gather_memory(&s->gather) +
	       s->cap_requests * sizeof(*s->requests) + s->cap_noted * sizeof(*s->noted_scopes);
}

static int note_all(struct build_state *s, struct err *err)
{
	struct block_request r;
	int got;

	span_notes_reserve(&s->notes, s->input->n_runs);
	while ((got = s->input->next(s->input->arg, &r, err)) > 0) {
		note_request(s, &r);
		charge_to(s, base_memory(s));
	}
	return got;
}

static void free_index(struct request_index *in)
{
	free(in->tables.spans);
	free(in->tables.scopes);
	free(in->tables.resources);
	free(in->tables.heads);
	free(in->scopes);
	arena_fini(&in->rebuilt);
	memset(in, 0, sizeof(*in));
}

/* ---- one trace: its spans ---- */

static bool same_span(const struct span_ref *a, const struct span_ref *b)
{
	return a->kind == b->kind && memcmp(a->span_id, b->span_id, 8) == 0;
}

static bool same_bytes(const struct span_ref *a, const struct span_ref *b)
{
	return a->len == b->len && memcmp(a->p, b->p, a->len) == 0;
}

/* The slot of the picked span that `same` finds equal to sp, or the free one where it belongs. */
static uint32_t *find_seen(struct build_state *s, const struct span_ref *sp, uint64_t hash,
			   bool (*same)(const struct span_ref *, const struct span_ref *))
{
	size_t i = hash & (s->cap_seen - 1);

	while (s->seen[i] != 0 && !same(sp, &s->trace.spans[s->pick[s->seen[i] - 1]]))
		i = (i + 1) & (s->cap_seen - 1);
	return &s->seen[i];
}

/* Look the span up among those picked; true when its equal is there. Spans that only share id and
 * kind are found by their bytes: a sender may give all spans of a trace one id, and looking at each
 * of them again for each would take for ever. */
static bool is_duplicate(struct build_state *s, const struct span_ref *sp, uint32_t n_picked)
{
	uint32_t *slot =
		find_seen(s, sp, hash_xxh64(sp->span_id, 8, s->seed + sp->kind), same_span);

	if (*slot != 0) {
		if (same_bytes(sp, &s->trace.spans[s->pick[*slot - 1]]))
			return true;
		slot = find_seen(s, sp, hash_xxh64(sp->p, sp->len, s->seed), same_bytes);
		if (*slot != 0)
			return true;
		s->b->n_conflicting++;
	}
	*slot = n_picked + 1;
	return false;
}

static void size_seen(struct build_state *s, size_t n)
{
	size_t want = 16;

	while (want < n * 2)
		want *= 2;
	if (want > s->alloc_seen) {
		free(s->seen);
		s->seen = xmalloc(want * sizeof(*s->seen));
		s->alloc_seen = want;
	}
	/* Clearing a table sized for the largest trace for every small one would cost more than the
	 * traces. */
	s->cap_seen = want;
	memset(s->seen, 0, want * sizeof(*s->seen));
}

static uint32_t pick_trace(struct build_state *s, uint32_t n)
{
	uint32_t picked = 0;

	size_seen(s, n);
	for (uint32_t i = 0; i < n; i++) {
		if (n > 1 && is_duplicate(s, &s->trace.spans[i], picked))
			s->b->n_duplicates++;
		else
			s->pick[picked++] = i;
	}
	return picked;
}

/* The usual span begins with both ids, parent, name, kind and times, in this order, perhaps without
 * a parent; lengths are one byte, since a name is short. False when it looks otherwise: nothing was
 * written then. */
static bool read_usual_fields(struct span_ref *sp)
{
	enum { IDS = 28, PARENT = 10, KIND_AND_TIMES = 20 };
	const uint8_t *p = sp->p + IDS, *end = sp->p + sp->len;

	if (sp->len < IDS + PARENT + 2 || load_le16(sp->p) != 0x100a ||
	    load_le16(sp->p + 18) != 0x0812)
		return false;
	if (load_le16(p) == 0x0822)
		p += PARENT;
	if (p[0] != 0x2a || p[1] > 0x7f || end - p < 2 + p[1] + KIND_AND_TIMES)
		return false;
	p += 2 + p[1];
	if (p[0] != 0x30 || p[1] > 0x7f || p[2] != 0x39 || p[11] != 0x41)
		return false;
	memcpy(sp->span_id, sp->p + 20, sizeof(sp->span_id));
	sp->kind = p[1];
	sp->start_ns = load_le64(p + 3);
	sp->end_ns = load_le64(p + 12);
	return true;
}

/* The fields that the builder looks at; the span was validated before. */
static void read_fields(struct span_ref *sp)
{
	enum { SPAN_ID = 2, KIND = 6, START = 7, END = 8 };
	struct bytes rest = { sp->p, sp->len };
	unsigned seen = 0;
	struct pb_field f = { 0 };

	if (read_usual_fields(sp))
		return;
	memset(sp->span_id, 0, sizeof(sp->span_id));
	sp->kind = 0;
	sp->start_ns = sp->end_ns = 0;
	while (seen != 0xf && pb_next(&rest, &f) > 0) {
		if (f.number == SPAN_ID && f.wire == PB_LEN && f.data.n == sizeof(sp->span_id)) {
			memcpy(sp->span_id, f.data.p, sizeof(sp->span_id));
			seen |= 1;
		} else if (f.number == KIND && f.wire == PB_VARINT) {
			sp->kind = (uint8_t)f.value;
			seen |= 2;
		} else if (f.number == START && f.wire == PB_FIXED64) {
			sp->start_ns = f.value;
			seen |= 4;
		} else if (f.number == END && f.wire == PB_FIXED64) {
			sp->end_ns = f.value;
			seen |= 8;
		}
	}
}

/* Room for one more than n. Zero at first, so that add_span need not clear 128 bytes for each span
 * again (4 of 100 of a build). */
static void grow_trace(struct build_state *s, size_t n)
{
	size_t cap = MAX(n + n / 2, (size_t)64);

	if (n < s->cap_spans)
		return;
	s->trace.spans = xrealloc(s->trace.spans, cap * sizeof(*s->trace.spans));
	memset(s->trace.spans + s->cap_spans, 0, (cap - s->cap_spans) * sizeof(*s->trace.spans));
	s->cap_spans = cap;
}

/* Fills the fields that are read here or by the encoder; the others stay zero. */
static void add_span(struct build_state *s, struct bytes span, size_t head_len, uint32_t scope)
{
	struct span_ref *sp;

	grow_trace(s, s->trace.n_spans);
	sp = &s->trace.spans[s->trace.n_spans++];
	sp->p = span.p;
	sp->len = (uint32_t)span.n;
	sp->head_len = (uint8_t)head_len;
	sp->scope = scope;
	read_fields(sp);
}

/* The spans of key i join the trace. Their checksum was right, so they are what they were. */
static void add_run(struct build_state *s, size_t i)
{
	const struct span_key *key = &s->notes.keys[i];
	const struct span_note *note = &s->notes.notes[key->note];
	struct bytes rest = { NULL, key->len };
	struct pb_field f;

	rest.p = s->input->read != NULL ? block_gather_run(&s->gather, i)
					: s->requests[note->request].p + note->off;
	if (note->len & SPAN_RUN_BARE) {
		add_span(s, rest, 0, note->scope);
		return;
	}
	for (const uint8_t *head = rest.p; pb_next(&rest, &f) > 0; head = rest.p)
		add_span(s, f.data, (size_t)(f.data.p - head), note->scope);
}

/* The runs of the keys [i, j) become s->trace. Returns the spans. */
static uint32_t take_trace(struct build_state *s, size_t i, size_t j)
{
	s->trace.n_spans = 0;
	for (; i < j; i++)
		add_run(s, i);
	s->pick = xgrow(s->pick, &s->cap_pick, s->trace.n_spans, sizeof(*s->pick));
	s->b->n_spans += s->trace.n_spans;
	return s->trace.n_spans;
}

/* ---- one trace: its object ---- */

static void trace_times(const struct build_state *s, uint32_t n, uint64_t *start, uint64_t *end)
{
	*start = UINT64_MAX;
	*end = 0;
	for (uint32_t i = 0; i < n; i++) {
		const struct span_ref *sp = &s->trace.spans[s->pick[i]];

		*start = MIN(*start, sp->start_ns);
		*end = MAX(*end, MAX(sp->end_ns, sp->start_ns));
	}
}

/* A producer of another kind may have put the trace elsewhere: then the block makes no claim. */
static void check_shard(struct build_state *s, const uint8_t id[16])
{
	char hex[33];

	if (!s->is_sharded)
		return;
	str_hex(id, 16, hex);
	s->is_sharded =
		(hash_murmur2(hex, 32) & 0x7fffffff) % s->b->shard_count == s->b->shard_index;
}

static int write_trace(struct build_state *s, const struct span_key *key, uint32_t n,
		       struct err *err)
{
	uint8_t head[BLOCK_OBJECT_HEAD], id[16];
	struct otlp_pieces pieces;
	uint64_t start, end;

	n = pick_trace(s, n);
	trace_times(s, n, &start, &end);
	s->min_start_ns = MIN(s->min_start_ns, start);
	s->max_end_ns = MAX(s->max_end_ns, end);
	arena_reset(&s->scratch);
	otlp_encode(&s->trace, s->pick, n, &s->scratch, &pieces);
	s->pieces = xgrow(s->pieces, &s->cap_pieces, pieces.n + 1, sizeof(*s->pieces));
	s->pieces[0] = (struct bytes){ head, block_object_head(head, block_object_seconds(start),
							       block_object_seconds(end),
							       pieces.n_bytes) };
	memcpy(s->pieces + 1, pieces.v, pieces.n * sizeof(*s->pieces));
	store_be64(id, key->hi);
	store_be64(id + 8, key->lo);
	check_shard(s, id);
	return block_writer_add(s->writer, id, s->pieces, pieces.n + 1, err);
}

/* ---- all traces ---- */

/* Its page lies in memory twice, plain and packed; its spans in the tables. */
static size_t trace_memory(const struct build_state *s, size_t i, size_t j)
{
	size_t bytes = s->trace.n_spans * BLOCK_BUILD_TRACE_SPAN_BYTES;

	for (; i < j; i++)
		bytes += 2 * (size_t)s->notes.keys[i].len;
	return bytes;
}

static uint64_t now_for(const struct build_state *s)
{
	return s->b->times != NULL ? clock_cpu_ns() : 0;
}

static int fetch(struct build_state *s, size_t i, struct err *err)
{
	uint64_t t0;

	if (s->input->read == NULL || i < s->gather.to)
		return 0;
	t0 = now_for(s);
	if (block_gather_load(&s->gather, i, err) < 0)
		return -1;
	if (s->b->times != NULL)
		s->b->times->gather += clock_cpu_ns() - t0;
	return 0;
}

static int write_traces(struct build_state *s, struct err *err)
{
	size_t largest = 0;

	for (size_t i = 0; i < s->notes.n;) {
		size_t j = span_notes_trace_end(&s->notes, i);

		uint32_t n;

		if (fetch(s, i, err) < 0)
			return -1;
		n = take_trace(s, i, j);
		largest = MAX(largest, trace_memory(s, i, j));
		charge_to(s, base_memory(s) + largest);
		if (write_trace(s, &s->notes.keys[i], n, err) < 0)
			return -1;
		s->b->n_traces++;
		i = j;
	}
	return 0;
}

/* ---- the block ---- */

static uint64_t clamp(uint64_t t, uint64_t lo, uint64_t hi)
{
	return t < lo ? lo : t > hi ? hi : t;
}

/* A span's wild clock (1970, 2200) widens the block's range by a day at most. */
static void set_times(const struct build_state *s, struct block_meta *m)
{
	const uint64_t day = 86400 * NS_PER_S;
	uint64_t lo = s->b->first_wall_ns > day ? s->b->first_wall_ns - day : 0;
	uint64_t hi = s->b->last_wall_ns + day;

	m->start = block_time_of_ns(clamp(s->min_start_ns, lo, hi) / NS_PER_S * NS_PER_S);
	m->end = block_time_of_ns((clamp(s->max_end_ns, lo, hi) + NS_PER_S - 1) / NS_PER_S *
				  NS_PER_S);
	m->ingested_at = block_time_of_ns(s->b->last_wall_ns);
}

static void set_shard(const struct build_state *s, struct block_meta *m)
{
	if (!s->is_sharded)
		return;
	snprintf(m->shard.hasher, sizeof(m->shard.hasher), SHARD_HASHER);
	m->shard.count = s->b->shard_count;
	m->shard.index = s->b->shard_index;
}

static void free_state(struct build_state *s)
{
	free_index(&s->request);
	free(s->noted_scopes);
	free(s->requests);
	span_notes_fini(&s->notes);
	head_table_fini(&s->heads);
	block_gather_fini(&s->gather);
	free(s->trace.spans);
	free(s->pick);
	free(s->pieces);
	free(s->seen);
	arena_fini(&s->scratch);
	charge_to(s, 0);
}

static int write_block(struct build_state *s, struct block_meta *meta, struct err *err)
{
	struct block_build *b = s->b;

	s->writer = block_writer_open(b->backend, b->tenant, NULL, b->writer, err);
	if (s->writer == NULL)
		return -1;
	head_table_lend(&s->heads, &s->trace);
	if (write_traces(s, err) < 0) {
		block_writer_abort(s->writer);
		return -1;
	}
	if (block_writer_finish(s->writer, meta, err) < 0)
		return -1;
	set_times(s, meta);
	set_shard(s, meta);
	return 0;
}

/* Index, sort, write; what gathering took of the last is counted apart. */
static int run(struct build_state *s, struct block_meta *meta, struct err *err)
{
	struct block_build_times *t = s->b->times, none;
	uint64_t t0 = now_for(s), t1, t2;
	int ret = 0;

	if (t == NULL)
		t = &none;
	*t = (struct block_build_times){ 0 };
	if (note_all(s, err) < 0)
		return -1;
	free_index(&s->request);
	t1 = now_for(s);
	span_notes_sort(&s->notes);
	t2 = now_for(s);
	if (s->notes.n > 0)
		ret = write_block(s, meta, err);
	t->index = t1 - t0;
	t->sort = t2 - t1;
	t->write = now_for(s) - t2 - t->gather;
	return ret;
}

int block_build(struct block_build *b, struct block_meta *meta, struct err *err)
{
	struct array_input array = { b, 0 };
	const struct block_input in_array = { .next = next_of_array, .arg = &array };
	struct build_state s = { .b = b, .min_start_ns = UINT64_MAX };
	uint64_t chunk;
	int ret;

	s.input = b->input ? b->input : &in_array;
	s.is_sharded = b->shard_count > 0;
	b->n_traces = b->n_spans = b->n_duplicates = b->n_conflicting = 0;
	rng_kernel(&s.seed, sizeof(s.seed));
	head_table_init(&s.heads);
	chunk = b->chunk_bytes ? b->chunk_bytes : BLOCK_BUILD_CHUNK_MAX;
	chunk = MIN(MAX(chunk, (uint64_t)BLOCK_BUILD_CHUNK_MIN), (uint64_t)BLOCK_BUILD_CHUNK_MAX);
	block_gather_init(&s.gather, s.input, &s.notes, (size_t)chunk);
	ret = run(&s, meta, err);
	b->is_changed = s.gather.is_changed;
	free_state(&s);
	return ret;
}
