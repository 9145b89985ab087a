/* SPDX-License-Identifier: Apache-2.0
 *
 * stream_append.c - how a batch comes into streams: divided by source, written to the scratch,
 * parked and indexed; see section_streams.h.
 *
 *   batch of several sources --batch_divide--> one part each
 *   part --source_ask--> ranges that are stored already, or were given up: settled at once
 *        --segment_log_append--> (writer's thread) arrived: duty parked, index added, bytes let go
 *
 * Between the two the stream may have given up what it had (its `generation`): then the part is
 * refused as a whole. Else all of its ranges are still wanted.
 */
#include "base/clock.h"
#include "base/mem.h"
#include "exporters/blocks/block_builder.h"
#include "exporters/blocks/stream_private.h"
#include "exporters/blocks/stream_record.h"
#include "pipeline/batch_record.h"

#include <stdio.h>

enum {
	NOTES_SHARE = 2,    /* as in section_streams.c */
	TENANTS_MAX = 1000, /* a section's commit record is read back whole */
	LOW_NOTES = 4,      /* when less than one part in so many is left, notes go */
	LOW_BUDGET = 8,     /* when less than one part in so many is left, the largest is cut */
	LARGE = 1 << 20,    /* bytes of index: less is not worth a section */
	/* Of the OTLP in one record; its runs take as much again at the very worst. */
	OTLP_MAX = SEGMENT_RECORD_MAX / 2 - BATCH_RECORD_HEAD_MAX - 4,
};

/* ---- dividing ---- */

/* Origins without spans here may be gone: they are not looked at. */
static struct source_range *range_at(const struct batch *b, uint32_t origin)
{
	return b->origins[origin].n_spans > 0 ? source_range_of(b->origins[origin].origin) : NULL;
}

bool section_streams_concerns(const struct batch *b)
{
	for (uint32_t i = 0; i < b->n_origins; i++)
		if (range_at(b, i) != NULL)
			return true;
	return false;
}

/* The spans whose origin's flag is set, and the others. Takes b. */
static void divide(struct batch *b, const uint8_t *flags, struct batch **with,
		   struct batch **without)
{
	uint8_t *keep = xmalloc(MAX(b->tables.n_spans, 1u));

	for (uint32_t i = 0; i < b->tables.n_spans; i++)
		keep[i] = flags[b->tables.spans[i].origin];
	batch_divide(b, keep, with, without);
	free(keep);
}

static void settle(struct batch *b, enum verdict v, const char *why)
{
	struct err err = ERR_INIT;

	if (b == NULL)
		return;
	if (v == VERDICT_RETRYABLE) {
		err_set(&err, ERR_UNAVAILABLE, "blocks: %s", why);
		err.retryable = true;
	}
	batch_settle(b, v, DROP_REASON_MAX, &err);
	batch_unref(b);
}

/* ---- arriving ---- */

struct pending {
	struct segment_append append;
	struct stream *stream;
	unsigned generation;
	struct batch *batch;
	struct arena arena;
	struct buf head;
	struct early_notes notes;
	uint64_t wall_ns, first, last; /* offsets */
	size_t n_bytes;
};

static void pending_free(struct pending *p)
{
	batch_unref(p->batch);
	arena_fini(&p->arena);
	buf_fini(&p->head);
	free(p);
}

/* The ordinals of b's spans, origin by origin; *start gets where those of each begin. Free both. */
static uint32_t *ordinals_by_origin(const struct batch *b, uint32_t **start)
{
	uint32_t *v = xmalloc(MAX(b->tables.n_spans, 1u) * sizeof(*v)), n = 0;
	uint32_t *at = xmalloc(b->n_origins * sizeof(*at));

	for (uint32_t o = 0; o < b->n_origins; o++) {
		at[o] = n;
		n += b->origins[o].n_spans;
	}
	for (uint32_t i = 0; i < b->tables.n_spans; i++)
		v[at[b->tables.spans[i].origin]++] = b->tables.spans[i].ordinal;
	for (uint32_t o = 0; o < b->n_origins; o++)
		at[o] -= b->origins[o].n_spans;
	*start = at;
	return v;
}

/* Lock held. Move the duty of every origin into its range; the batch owes nothing after it. */
static void park(struct stream *st, const struct batch *b)
{
	uint32_t *ordinals = NULL, *start = NULL;

	for (uint32_t o = 0; o < b->n_origins; o++) {
		struct source_range *r = range_at(b, o);
		enum source_arrival a;
		bool marked;

		if (r == NULL)
			continue;
		marked = origin_has_marks(&r->origin);
		if (marked && ordinals == NULL)
			ordinals = ordinals_by_origin(b, &start);
		a = source_park(&st->sink, r, b->origins[o].n_spans,
				marked ? ordinals + start[o] : NULL);
		/* The same generation: nothing was given up, nothing incomplete can be stored. */
		assert(a == SOURCE_PARKED);
		(void)a;
	}
	free(ordinals);
	free(start);
}

static struct live_section *open_chunk(struct stream *st)
{
	if (!st->has_open)
		section_list_append(&st->chunks, live_section_new(st->m->o.budget));
	st->has_open = true;
	return st->chunks.last;
}

static bool is_full(const struct section_streams *m, const struct live_section *s)
{
	const struct section_log_options *o = &m->o;
	uint64_t share = section_streams_share(m);
	uint64_t notes = s->n_runs * BLOCK_BUILD_RUN_BYTES + s->head_bytes;

	return (o->max_block_bytes && s->bytes >= o->max_block_bytes) ||
	       (o->max_block_traces && s->n_traces >= o->max_block_traces) ||
	       s->n_tenants >= TENANTS_MAX || (share > 0 && notes >= share / NOTES_SHARE);
}

/* When memory is nearly spent, the stream that holds most of it. */
static struct stream *largest_when_low(struct section_streams *m)
{
	struct stream *largest = NULL;
	size_t most = LARGE;

	if (m->o.budget == NULL ||
	    budget_left(m->o.budget) > (size_t)(m->o.budget->limit / LOW_BUDGET))
		return NULL;
	for (struct stream *st = m->streams; st != NULL; st = st->next)
		if (st->has_open && live_section_memory(st->chunks.last) > most) {
			most = live_section_memory(st->chunks.last);
			largest = st;
		}
	return largest;
}

/* Notes only save work; what a builder reads now stays until it has. */
static void drop_notes_when_low(struct section_streams *m)
{
	if (m->o.budget == NULL ||
	    budget_left(m->o.budget) > (size_t)(m->o.budget->limit / LOW_NOTES))
		return;
	for (struct stream *st = m->streams; st != NULL; st = st->next)
		for (struct live_section *s = st->chunks.first; s != NULL; s = s->next)
			live_section_drop_notes(s);
}

static void index_record(struct pending *p)
{
	struct stream *st = p->stream;
	struct section_streams *m = st->m;
	struct live_section *s = open_chunk(st);
	struct live_record *rec;
	struct stream *largest;
	bool is_first;

	live_section_add(s, p->batch->tenant, &p->append.position, p->append.lsn, p->wall_ns,
			 &p->batch->tables, &p->notes);
	drop_notes_when_low(m);
	rec = &s->records[s->n_records - 1];
	rec->first = p->first;
	rec->last = p->last;
	rec->head = (uint32_t)p->head.n;
	is_first = s->n_records == 1;
	/* A cut may give the chunk up and free it. */
	if (st->is_last || st->wants_cut || is_full(m, s))
		stream_cut(st, clock_mono_ns());
	largest = largest_when_low(m);
	if (largest != NULL)
		stream_cut(largest, clock_mono_ns());
	if (is_first)
		pthread_cond_signal(&m->wake); /* it may start the clock of max_block_age */
}

/* On the scratch's writer thread. */
static void appended(struct segment_append *a)
{
	struct pending *p = a->owner;
	struct stream *st = p->stream;
	struct section_streams *m = st->m;
	bool is_in;

	pthread_mutex_lock(&m->lock);
	if (a->err.kind == ERR_NONE)
		m->next_lsn = a->lsn + 1;
	atomic_fetch_sub_explicit(&m->unwritten, p->n_bytes, memory_order_relaxed);
	is_in = a->err.kind == ERR_NONE && !st->is_closed && p->generation == st->generation;
	if (is_in) {
		park(st, p->batch);
		index_record(p);
	}
	pthread_mutex_unlock(&m->lock);
	if (!is_in && a->err.kind != ERR_NONE)
		batch_settle(p->batch, VERDICT_RETRYABLE, DROP_REASON_MAX, &a->err);
	else if (!is_in)
		settle(batch_ref(p->batch), VERDICT_RETRYABLE,
		       "what was open was given up meanwhile");
	pthread_mutex_lock(&m->lock);
	stream_unref(st);
	pthread_mutex_unlock(&m->lock);
	pending_free(p);
}

static void fill_pieces(struct pending *p)
{
	struct batch_encoding e;
	struct iovec *iov;

	stream_record_head(p->batch, p->wall_ns, &p->head, &p->first, &p->last);
	batch_encode(p->batch, &p->arena, &e);
	iov = arena_alloc(&p->arena, (e.n_pieces + 1) * sizeof(*iov));
	iov[0] = (struct iovec){ p->head.p, p->head.n };
	for (size_t i = 0; i < e.n_pieces; i++)
		iov[i + 1] = (struct iovec){ (void *)(uintptr_t)e.pieces[i].p, e.pieces[i].n };
	p->append.iov = iov;
	p->append.n_iov = (uint32_t)e.n_pieces + 1;
	p->n_bytes = e.n_bytes;
}

/* Takes b and a use of the stream. */
static void append_record(struct stream *st, unsigned generation, struct batch *b)
{
	struct pending *p = xcalloc(1, sizeof(*p));
	struct section_streams *m = st->m;
	struct err err = ERR_INIT;

	p->stream = st;
	p->generation = generation;
	p->batch = b;
	p->wall_ns = clock_wall_ns();
	p->append.done = appended;
	p->append.owner = p;
	fill_pieces(p);
	p->notes = early_notes_of(b, &p->arena);
	atomic_fetch_add_explicit(&m->unwritten, p->n_bytes, memory_order_relaxed);
	if (segment_log_append(m->scratch, &p->append, &err) == 0)
		return;
	atomic_fetch_sub_explicit(&m->unwritten, p->n_bytes, memory_order_relaxed);
	batch_settle(b, err.retryable ? VERDICT_RETRYABLE : VERDICT_PERMANENT, DROP_TOO_LARGE,
		     &err);
	pthread_mutex_lock(&m->lock);
	stream_unref(st);
	pthread_mutex_unlock(&m->lock);
	pending_free(p);
}

/* ---- one source's part ---- */

/* The stream of this source with a use for the caller, or NULL when it was closed. */
static struct stream *stream_of(struct section_streams *m, const struct source *source,
				unsigned *generation)
{
	struct stream *st;

	pthread_mutex_lock(&m->lock);
	st = m->streams;
	while (st != NULL && st->sink.source != source)
		st = st->next;
	if (st != NULL) {
		st->users++;
		*generation = st->generation;
	}
	pthread_mutex_unlock(&m->lock);
	return st;
}

static void end_use(struct stream *st)
{
	pthread_mutex_lock(&st->m->lock);
	stream_unref(st);
	pthread_mutex_unlock(&st->m->lock);
}

/* Settle the ranges for which source_ask says `a`; what is left, or NULL. Takes b. */
static struct batch *settle_those(struct stream *st, struct batch *b, enum source_arrival a,
				  enum verdict v, const char *why)
{
	uint8_t *flags = xcalloc(MAX(b->n_origins, 1u), 1);
	struct batch *with = NULL;
	bool any = false;

	for (uint32_t o = 0; o < b->n_origins; o++) {
		struct source_range *r = range_at(b, o);

		flags[o] = r != NULL && source_ask(&st->sink, r) == a;
		any |= flags[o];
	}
	if (any)
		divide(b, flags, &with, &b);
	free(flags);
	settle(with, v, why);
	return b;
}

/* Merged batches can pass what a record takes. Halves, until they fit. Takes b. */
static void append_fitting(struct stream *st, unsigned generation, struct batch *b)
{
	struct batch *head, *tail;

	if (b->tables.n_spans > 1 && batch_encoded_size(b) > OTLP_MAX) {
		batch_split(b, b->tables.n_spans / 2, &head, &tail);
		append_fitting(st, generation, head);
		append_fitting(st, generation, tail);
		return;
	}
	pthread_mutex_lock(&st->m->lock);
	st->users++;
	pthread_mutex_unlock(&st->m->lock);
	append_record(st, generation, b);
}

/* Takes b, all of one source. */
static void append_part(struct section_streams *m, const struct source *source, struct batch *b)
{
	unsigned generation;
	struct stream *st = stream_of(m, source, &generation);

	if (st == NULL) {
		settle(b, VERDICT_RETRYABLE, "the partition went to another owner");
		return;
	}
	b = settle_those(st, b, SOURCE_STORED, VERDICT_DELIVERED, "");
	if (b != NULL)
		b = settle_those(st, b, SOURCE_GIVEN_UP, VERDICT_RETRYABLE,
				 "what was open was given up");
	if (b != NULL)
		append_fitting(st, generation, b);
	end_use(st);
}

/* ---- all of a batch ---- */

/* Flag the origins of this source; true when all that have spans are of it. */
static bool flag_source(const struct batch *b, const struct source *source, uint8_t *flags)
{
	bool all = true;

	for (uint32_t o = 0; o < b->n_origins; o++) {
		struct source_range *r = range_at(b, o);

		flags[o] = r != NULL && r->source == source;
		all &= flags[o] || b->origins[o].n_spans == 0;
	}
	return all;
}

static const struct source *first_source(const struct batch *b)
{
	for (uint32_t o = 0; o < b->n_origins; o++) {
		struct source_range *r = range_at(b, o);

		if (r != NULL)
			return r->source;
	}
	return NULL;
}

void section_streams_append(struct section_streams *m, struct batch *b, struct batch **rest)
{
	const struct source *source;
	uint8_t *flags = xcalloc(MAX(b->n_origins, 1u), 1);

	while (b != NULL && (source = first_source(b)) != NULL) {
		struct batch *part = b;

		if (flag_source(b, source, flags))
			b = NULL;
		else
			divide(part, flags, &part, &b);
		append_part(m, source, part);
	}
	free(flags);
	*rest = b;
}
