/* SPDX-License-Identifier: Apache-2.0
 *
 * batch.c - see batch.h.
 *
 * One allocation holds a batch and all its arrays:
 *   [struct batch][spans][scopes][resources][heads][sources][origins][whole]
 */
#include "pipeline/batch.h"

#include "base/mem.h"
#include "wire/otlp_encode.h"
#include "wire/pb.h"

bool tenant_is_valid(struct bytes name)
{
	if (name.n == 0 || name.n > TENANT_MAX || bytes_eq_str(name, ".") ||
	    bytes_eq_str(name, "..") || bytes_eq_str(name, "_spanmill"))
		return false;
	for (size_t i = 0; i < name.n; i++) {
		uint8_t c = name.p[i];
		bool alnum = (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z');

		if (!alnum && (c == '\0' || strchr("!_.*'()-", c) == NULL))
			return false;
	}
	return true;
}

/* ---- memory ---- */

struct sizes {
	struct otlp_counts tables;
	uint32_t n_sources, n_origins, n_whole;
};

static size_t align16(size_t n)
{
	return (n + 15) & ~(size_t)15;
}

static size_t batch_bytes(const struct sizes *s)
{
	return align16(sizeof(struct batch)) +
	       align16(s->tables.n_spans * sizeof(struct span_ref)) +
	       align16(s->tables.n_scopes * sizeof(struct scope_ref)) +
	       align16(s->tables.n_resources * sizeof(struct resource_ref)) +
	       align16(s->tables.n_heads * sizeof(struct bytes)) +
	       align16(s->n_sources * sizeof(struct rcbuf *)) +
	       align16(s->n_origins * sizeof(struct batch_origin)) +
	       align16(s->n_whole * sizeof(struct bytes));
}

static void *carve(uint8_t **at, size_t n)
{
	void *p = *at;

	*at += align16(n);
	return p;
}

/* Memory for a batch of these sizes; counts are zero, arrays uninitialised. The caller has charged
 * the budget. */
static struct batch *batch_alloc(const struct sizes *s, struct budget *budget, const char *tenant)
{
	size_t n = batch_bytes(s);
	uint8_t *at = xmalloc(n);
	struct batch *b = carve(&at, sizeof(*b));

	memset(b, 0, sizeof(*b));
	atomic_init(&b->refs, 1);
	b->budget = budget;
	b->index_bytes = n;
	b->tables.spans = carve(&at, s->tables.n_spans * sizeof(struct span_ref));
	b->tables.scopes = carve(&at, s->tables.n_scopes * sizeof(struct scope_ref));
	b->tables.resources = carve(&at, s->tables.n_resources * sizeof(struct resource_ref));
	b->tables.heads = carve(&at, s->tables.n_heads * sizeof(struct bytes));
	b->heads_room = s->tables.n_heads;
	b->sources = carve(&at, s->n_sources * sizeof(struct rcbuf *));
	b->origins = carve(&at, s->n_origins * sizeof(struct batch_origin));
	b->whole = carve(&at, s->n_whole * sizeof(struct bytes));
	assert(strlen(tenant) <= TENANT_MAX);
	memcpy(b->tenant, tenant, strlen(tenant) + 1);
	return b;
}

struct batch *batch_ref(struct batch *b)
{
	atomic_fetch_add_explicit(&b->refs, 1, memory_order_relaxed);
	return b;
}

void batch_unref(struct batch *b)
{
	if (b == NULL || atomic_fetch_sub_explicit(&b->refs, 1, memory_order_acq_rel) != 1)
		return;
	for (uint32_t i = 0; i < b->n_sources; i++)
		rcbuf_unref(b->sources[i]);
	budget_release(b->budget, b->index_bytes);
	arena_fini(&b->arena);
	free(b);
}

/* ---- birth ---- */

/* Charge what the arena grew by; it is in memory already, so this cannot be refused. */
static void charge_arena(struct batch *b)
{
	size_t grown = b->arena.bytes - b->arena_charged;

	b->arena_charged += grown;
	budget_force(b->budget, grown);
	b->index_bytes += grown;
}

static int charge_index(const struct rcbuf *request, const struct sizes *s, struct budget *budget,
			struct err *err)
{
	size_t n = batch_bytes(s);

	if (budget != NULL && (int64_t)(n + request->charged) > budget->limit)
		return err_set(
			err, ERR_TOO_LARGE,
			"request: %zu bytes and an index of %zu over the memory limit of %lld",
			request->charged, n, (long long)budget->limit);
	if (budget_charge(budget, n))
		return 0;
	atomic_fetch_add_explicit(&budget->refused_spans, s->tables.n_spans, memory_order_relaxed);
	return err_set(err, ERR_EXHAUSTED, "memory budget: no room for the index of %u spans",
		       s->tables.n_spans);
}

struct batch *batch_from_otlp(struct rcbuf *request, const char *tenant, struct budget *budget,
			      struct otlp_result *result, struct err *err)
{
	return batch_from_request(OTLP_TRACES, request, tenant, budget, result, err);
}

struct batch *batch_from_request(enum otlp_signal signal, struct rcbuf *request, const char *tenant,
				 struct budget *budget, struct otlp_result *result, struct err *err)
{
	struct bytes bytes = { request->p, request->n };
	struct sizes s = { .n_sources = 1, .n_origins = 1, .n_whole = 1 };
	struct batch *b = NULL;

	if (otlp_count_items(signal, bytes, &s.tables, err) < 0 ||
	    charge_index(request, &s, budget, err) < 0) {
		rcbuf_unref(request);
		return NULL;
	}
	b = batch_alloc(&s, budget, tenant);
	b->signal = (uint8_t)signal;
	b->sources[b->n_sources++] = request;
	if (otlp_index_items(signal, bytes, &b->tables, &b->arena, result, err) < 0) {
		batch_unref(b);
		return NULL;
	}
	charge_arena(b);
	if (result->is_whole && b->tables.n_spans > 0)
		b->whole[b->n_whole++] = bytes;
	return b;
}

uint64_t batch_n_points(const struct batch *b)
{
	uint64_t n = 0;

	for (uint32_t i = 0; i < b->tables.n_spans; i++)
		n += b->tables.spans[i].n_points;
	return n;
}

void batch_bind(struct batch *b, struct origin *o)
{
	b->origins[0] = (struct batch_origin){ o, b->tables.n_spans };
	b->n_origins = 1;
}

/* ---- settling ---- */

/* What a settling does to one origin; marks are asked for once, because another thread may fan out
 * other spans of the origin meanwhile. */
struct tally {
	uint32_t n_bad; /* of its spans here: PERMANENT */
	bool has_marks;
};

/* A tally per origin, or NULL when no origin has marks and none needs one. Free it. Origins without
 * spans here may be gone. */
static struct tally *tallies_new(const struct batch *b, bool always)
{
	struct tally *v = NULL;

	for (uint32_t i = 0; i < b->n_origins; i++) {
		bool has_marks =
			b->origins[i].n_spans > 0 && origin_has_marks(b->origins[i].origin);

		if (v == NULL && (has_marks || (always && i == 0)))
			v = xcalloc(b->n_origins, sizeof(*v));
		if (v != NULL)
			v[i].has_marks = has_marks;
	}
	return v;
}

static void settle_some(struct batch *b, uint32_t i, const struct tally *v, uint32_t n,
			enum verdict verdict, enum drop_reason reason, const struct err *err)
{
	if (v != NULL && v[i].has_marks)
		origin_settle_marked(b->origins[i].origin, n, verdict, err);
	else
		origin_settle(b->origins[i].origin, n, verdict, reason, err);
}

/* Returns the spans whose log answers for them (HELD and STORED only). */
static uint32_t settle_all(struct batch *b, enum verdict verdict, enum drop_reason reason,
			   const struct err *err)
{
	struct tally *v = tallies_new(b, false);
	uint32_t n_first = 0;

	for (uint32_t i = 0; v != NULL && i < b->tables.n_spans; i++) {
		const struct span_ref *sp = &b->tables.spans[i];

		if (v[sp->origin].has_marks)
			n_first += origin_mark(b->origins[sp->origin].origin, sp->ordinal, verdict,
					       reason);
	}
	for (uint32_t i = 0; i < b->n_origins; i++) {
		uint32_t n = b->origins[i].n_spans;

		n_first += v == NULL || !v[i].has_marks ? n : 0;
		settle_some(b, i, v, n, verdict, reason, err);
	}
	free(v);
	return n_first;
}

void batch_settle(struct batch *b, enum verdict v, enum drop_reason reason, const struct err *err)
{
	settle_all(b, v, reason, err);
}

uint32_t batch_hold(struct batch *b)
{
	return settle_all(b, VERDICT_HELD, DROP_REASON_MAX, NULL);
}

uint32_t batch_store(struct batch *b)
{
	return settle_all(b, VERDICT_STORED, DROP_REASON_MAX, NULL);
}

void batch_settle_partial(struct batch *b, uint32_t n_rejected, const struct err *err)
{
	uint32_t n_spans = b->tables.n_spans, n_good = n_spans - MIN(n_rejected, n_spans);
	/* Which spans were refused is not said: the last ones stand for them in the books, and none
	 * is sure to be found. */
	enum verdict good = n_rejected > 0 ? VERDICT_ASIDE : VERDICT_DELIVERED;
	struct tally *v = tallies_new(b, true);

	for (uint32_t i = 0; v != NULL && i < n_spans; i++) {
		const struct span_ref *sp = &b->tables.spans[i];
		bool is_bad = i >= n_good;

		v[sp->origin].n_bad += is_bad;
		if (v[sp->origin].has_marks)
			origin_mark(b->origins[sp->origin].origin, sp->ordinal,
				    is_bad ? VERDICT_PERMANENT : good, DROP_REJECTED);
	}
	/* An origin may be gone after the call that pays its last debt, but a call for no spans
	 * does not look at it. */
	for (uint32_t i = 0; i < b->n_origins; i++) {
		settle_some(b, i, v, v[i].n_bad, VERDICT_PERMANENT, DROP_REJECTED, err);
		settle_some(b, i, v, b->origins[i].n_spans - v[i].n_bad, VERDICT_DELIVERED,
			    DROP_REJECTED, NULL);
	}
	free(v);
}

bool batch_is_withdrawn(const struct batch *b)
{
	if (b->n_origins == 0 || b->tables.n_spans == 0)
		return false;
	for (uint32_t i = 0; i < b->n_origins; i++)
		if (b->origins[i].n_spans > 0 && !origin_is_withdrawn(b->origins[i].origin))
			return false;
	return true;
}

/* ---- derived batches ---- */

static void share_sources(struct batch *to, const struct batch *from)
{
	for (uint32_t i = 0; i < from->n_sources; i++)
		to->sources[to->n_sources++] = rcbuf_ref(from->sources[i]);
}

/* Edited spans point into their batch's arena: keep that batch alive behind a source that holds its
 * reference. */
static void release_pinned(struct rcbuf *pin)
{
	batch_unref(pin->owner);
}

static struct rcbuf *pin_batch(struct batch *b)
{
	struct rcbuf *pin = xcalloc(1, sizeof(*pin));

	atomic_init(&pin->refs, 1);
	pin->release = release_pinned;
	pin->owner = batch_ref(b);
	return pin;
}

static bool needs_pin(const struct batch *b)
{
	return b->arena.head != NULL;
}

/* An empty batch with room for `n_spans` of b's spans and all its other tables, copied. */
static struct batch *batch_like(struct batch *b, uint32_t n_spans)
{
	struct sizes s = {
		.tables = { n_spans, b->tables.n_scopes, b->tables.n_resources, b->tables.n_heads },
		.n_sources = b->n_sources + needs_pin(b),
		.n_origins = b->n_origins,
		.n_whole = b->n_whole,
	};
	struct batch *to;

	budget_force(b->budget, batch_bytes(&s));
	to = batch_alloc(&s, b->budget, b->tenant);
	to->is_detached = b->is_detached;
	to->signal = b->signal;
	to->tables.n_scopes = b->tables.n_scopes;
	to->tables.n_resources = b->tables.n_resources;
	to->tables.n_heads = b->tables.n_heads;
	to->tables.n_extras = b->tables.n_extras;
	memcpy(to->tables.scopes, b->tables.scopes, b->tables.n_scopes * sizeof(struct scope_ref));
	memcpy(to->tables.resources, b->tables.resources,
	       b->tables.n_resources * sizeof(struct resource_ref));
	memcpy(to->tables.heads, b->tables.heads, b->tables.n_heads * sizeof(struct bytes));
	share_sources(to, b);
	if (needs_pin(b))
		to->sources[to->n_sources++] = pin_batch(b);
	to->n_origins = b->n_origins;
	for (uint32_t i = 0; i < b->n_origins; i++)
		to->origins[i] = (struct batch_origin){ b->origins[i].origin, 0 };
	return to;
}

static void add_span(struct batch *to, const struct span_ref *sp)
{
	to->tables.spans[to->tables.n_spans++] = *sp;
	if (to->n_origins > 0)
		to->origins[sp->origin].n_spans++;
}

/* Settle the spans of b that are not kept, origin by origin. */
static void settle_dropped(struct batch *b, const struct batch *kept, const uint8_t *keep,
			   enum drop_reason reason)
{
	struct tally *v = tallies_new(b, false);

	for (uint32_t i = 0; v != NULL && i < b->tables.n_spans; i++) {
		const struct span_ref *sp = &b->tables.spans[i];

		if (!keep[i] && v[sp->origin].has_marks)
			origin_mark(b->origins[sp->origin].origin, sp->ordinal, VERDICT_DROPPED,
				    reason);
	}
	for (uint32_t i = 0; i < b->n_origins; i++) {
		uint32_t n = b->origins[i].n_spans - (kept ? kept->origins[i].n_spans : 0);

		settle_some(b, i, v, n, VERDICT_DROPPED, reason, NULL);
	}
	free(v);
}

struct batch *batch_filter(struct batch *b, const uint8_t *keep, enum drop_reason reason)
{
	struct batch *kept = NULL;
	uint32_t n = 0;

	for (uint32_t i = 0; i < b->tables.n_spans; i++)
		n += keep[i] != 0;
	if (n == b->tables.n_spans)
		return b;
	if (n > 0) {
		kept = batch_like(b, n);
		for (uint32_t i = 0; i < b->tables.n_spans; i++)
			if (keep[i])
				add_span(kept, &b->tables.spans[i]);
	}
	settle_dropped(b, kept, keep, reason);
	batch_unref(b);
	return kept;
}

/* b's tables behind those of `to`, which has the extras of all already. */
static void append_tables(struct batch *to, const struct batch *b)
{
	struct span_tables *t = &to->tables;
	const struct span_tables *from = &b->tables;
	uint32_t resource0 = t->n_resources, head0 = t->n_heads - from->n_extras;

	for (uint32_t i = from->n_extras; i < from->n_heads; i++)
		t->heads[t->n_heads++] = from->heads[i];
	for (uint32_t i = 0; i < from->n_resources; i++) {
		t->resources[t->n_resources] = from->resources[i];
		t->resources[t->n_resources++].head += head0;
	}
	for (uint32_t i = 0; i < from->n_scopes; i++) {
		struct scope_ref *s = &t->scopes[t->n_scopes++];

		*s = from->scopes[i];
		s->resource += resource0;
		s->head += head0;
	}
}

static void append_batch(struct batch *to, struct batch *b)
{
	uint32_t scope0 = to->tables.n_scopes, origin0 = to->n_origins;

	assert(b->is_detached == to->is_detached && b->signal == to->signal &&
	       strcmp(b->tenant, to->tenant) == 0);
	append_tables(to, b);
	for (uint32_t i = 0; i < b->n_origins; i++)
		to->origins[to->n_origins++] = b->origins[i];
	for (uint32_t i = 0; i < b->tables.n_spans; i++) {
		struct span_ref *sp = &to->tables.spans[to->tables.n_spans++];

		*sp = b->tables.spans[i];
		sp->scope += scope0;
		sp->origin += origin0;
	}
	share_sources(to, b);
	if (needs_pin(b))
		to->sources[to->n_sources++] = pin_batch(b);
}

static struct sizes sum_sizes(struct batch **v, size_t n)
{
	struct sizes s = { 0 };

	for (size_t i = 0; i < n; i++) {
		s.tables.n_spans += v[i]->tables.n_spans;
		s.tables.n_scopes += v[i]->tables.n_scopes;
		s.tables.n_resources += v[i]->tables.n_resources;
		s.tables.n_heads += v[i]->tables.n_heads;
		s.n_sources += v[i]->n_sources + needs_pin(v[i]);
		s.n_origins += v[i]->n_origins;
		s.n_whole += v[i]->n_whole;
	}
	return s;
}

struct batch *batch_concat(struct batch **v, size_t n)
{
	struct sizes s = sum_sizes(v, n);
	bool whole = true;
	struct batch *to;

	if (n == 1)
		return v[0];
	budget_force(v[0]->budget, batch_bytes(&s));
	to = batch_alloc(&s, v[0]->budget, v[0]->tenant);
	to->is_detached = v[0]->is_detached;
	to->signal = v[0]->signal;
	for (size_t i = 0; i < n; i++) {
		whole &= v[i]->n_whole > 0;
		for (uint32_t k = 0; k < v[i]->tables.n_extras; k++)
			to->tables.heads[to->tables.n_extras++] = v[i]->tables.heads[k];
	}
	to->tables.n_heads = to->tables.n_extras;
	for (size_t i = 0; i < n; i++) {
		append_batch(to, v[i]);
		for (uint32_t k = 0; whole && k < v[i]->n_whole; k++)
			to->whole[to->n_whole++] = v[i]->whole[k];
		batch_unref(v[i]);
	}
	return to;
}

/* In a batch that nobody else has: forget the first n spans. */
static void drop_front(struct batch *b, uint32_t n)
{
	for (uint32_t i = 0; b->n_origins > 0 && i < n; i++)
		b->origins[b->tables.spans[i].origin].n_spans--;
	b->tables.spans += n;
	b->tables.n_spans -= n;
	b->n_whole = 0;
}

void batch_split(struct batch *b, uint32_t n, struct batch **head, struct batch **tail)
{
	bool is_ours = atomic_load(&b->refs) == 1;

	assert(n > 0 && n < b->tables.n_spans);
	*head = batch_like(b, n);
	for (uint32_t i = 0; i < n; i++)
		add_span(*head, &b->tables.spans[i]);
	/* The index of a large batch is large: what is cut off piece by piece is not copied again
	 * and again. */
	if (is_ours) {
		*tail = b;
		drop_front(b, n);
	} else {
		*tail = batch_like(b, b->tables.n_spans - n);
		for (uint32_t i = n; i < b->tables.n_spans; i++)
			add_span(*tail, &b->tables.spans[i]);
		batch_unref(b);
	}
	(*tail)->tables.n_extras = 0;
}

uint32_t batch_split_point(uint32_t n, uint64_t max)
{
	if (max == 0 || n <= max)
		return 0;
	return (uint32_t)MAX(n / 2 / max * max, max);
}

void batch_divide(struct batch *b, const uint8_t *keep, struct batch **kept, struct batch **rest)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < b->tables.n_spans; i++)
		n += keep[i] != 0;
	*kept = n == b->tables.n_spans ? b : NULL;
	*rest = n == 0 && b->tables.n_spans > 0 ? b : NULL;
	if (*kept == b || *rest == b)
		return;
	*kept = batch_like(b, n);
	*rest = batch_like(b, b->tables.n_spans - n);
	(*rest)->tables.n_extras = 0;
	for (uint32_t i = 0; i < b->tables.n_spans; i++)
		add_span(keep[i] ? *kept : *rest, &b->tables.spans[i]);
	batch_unref(b);
}

static struct batch *batch_copy(struct batch *b)
{
	struct batch *to = batch_like(b, b->tables.n_spans);

	memcpy(to->tables.spans, b->tables.spans, b->tables.n_spans * sizeof(struct span_ref));
	to->tables.n_spans = b->tables.n_spans;
	for (uint32_t i = 0; i < b->n_origins; i++)
		to->origins[i].n_spans = b->origins[i].n_spans;
	for (uint32_t i = 0; i < b->n_whole; i++)
		to->whole[to->n_whole++] = b->whole[i];
	return to;
}

struct batch *batch_editable(struct batch *b)
{
	struct batch *to;

	if (atomic_load(&b->refs) == 1)
		return b;
	to = batch_copy(b);
	batch_unref(b);
	return to;
}

struct batch *batch_detached(struct batch *b)
{
	struct batch *to = batch_copy(b);

	to->is_detached = true;
	to->n_origins = 0;
	return to;
}

/* ---- edits ---- */

enum { SPAN_TRACE_STATE = 3, SPAN_ATTRIBUTES = 9, PIECES_MAX = 16, VALUE_MAX = 1 << 20 };

/* A Span under edit; room for one slice more than a span_ref keeps. */
struct edit {
	struct bytes v[PIECES_MAX + 1];
	unsigned n;
};

static size_t edit_len(const struct edit *e)
{
	size_t n = 0;

	for (unsigned k = 0; k < e->n; k++)
		n += e->v[k].n;
	return n;
}

/* Join what there is in `joined`, for a Span that was cut into more slices than we keep. */
static void join_pieces(struct edit *e, uint8_t *joined)
{
	uint8_t *at = joined;

	for (unsigned k = 0; k < e->n; k++) {
		memcpy(at, e->v[k].p, e->v[k].n);
		at += e->v[k].n;
	}
	e->v[0] = (struct bytes){ joined, (size_t)(at - joined) };
	e->n = 1;
}

static void add_piece(struct edit *e, struct bytes raw, struct arena *arena)
{
	struct bytes *last = e->n ? &e->v[e->n - 1] : NULL;

	if (last != NULL && last->p + last->n == raw.p) {
		last->n += raw.n;
		return;
	}
	if (e->n == PIECES_MAX)
		join_pieces(e, arena_alloc(arena, edit_len(e)));
	e->v[e->n++] = raw;
}

/* The Span as it stands. */
static void edit_start(struct edit *e, const struct span_ref *sp)
{
	e->n = sp->pieces ? sp->n_pieces : 1;
	if (sp->pieces != NULL)
		memcpy(e->v, sp->pieces, e->n * sizeof(e->v[0]));
	else
		e->v[0] = (struct bytes){ sp->p, sp->len };
}

/* The Span without its trace_state fields; pieces end between fields. A hostile Span with many of
 * them is copied, once. */
static void edit_cut_trace_state(struct edit *e, size_t len, struct arena *arena)
{
	struct edit from = *e;
	uint8_t *copy = NULL;
	struct pb_field f;

	e->n = 0;
	for (unsigned i = 0; i < from.n; i++)
		for (struct bytes rest = from.v[i]; pb_next(&rest, &f) > 0;) {
			if (f.number == SPAN_TRACE_STATE)
				continue;
			if (copy == NULL && e->n == PIECES_MAX) {
				copy = arena_alloc(arena, len);
				join_pieces(e, copy);
			}
			if (copy == NULL) {
				add_piece(e, f.raw, arena);
				continue;
			}
			memcpy(copy + e->v[0].n, f.raw.p, f.raw.n);
			e->v[0].n += f.raw.n;
		}
}

static void edit_finish(struct edit *e, struct batch *b, struct span_ref *sp)
{
	sp->len = (uint32_t)edit_len(e);
	sp->pieces = arena_dup(&b->arena, e->v, e->n * sizeof(e->v[0]));
	sp->n_pieces = (uint8_t)e->n;
	b->n_whole = 0;
	charge_arena(b);
}

/* A trace_state field in the arena; *text gets where the value lies. */
static struct bytes new_field(struct arena *arena, struct bytes value, struct bytes *text)
{
	size_t head = 1 + pb_varint_size(value.n);
	uint8_t *field = arena_alloc(arena, head + value.n);

	field[0] = SPAN_TRACE_STATE << 3 | PB_LEN;
	pb_varint_write(field + 1, value.n);
	memcpy(field + head, value.p, value.n);
	*text = (struct bytes){ field + head, value.n };
	return (struct bytes){ field, head + value.n };
}

void batch_set_trace_state(struct batch *b, uint32_t i, struct bytes value)
{
	struct span_ref *sp = &b->tables.spans[i];
	struct bytes text = BYTES_EMPTY;
	struct edit e;

	assert(value.n < VALUE_MAX);
	edit_start(&e, sp);
	/* NULL: the index saw no such field, so there is nothing to look for. */
	if (sp->state != NULL)
		edit_cut_trace_state(&e, sp->len, &b->arena);
	if (value.n > 0)
		add_piece(&e, new_field(&b->arena, value, &text), &b->arena);
	edit_finish(&e, b, sp);
	sp->state = text.p;
	sp->state_len = (uint32_t)text.n;
	span_read_sampling(sp);
}

void batch_append_field(struct batch *b, uint32_t i, struct bytes raw)
{
	struct span_ref *sp = &b->tables.spans[i];
	struct edit e;

	assert(raw.n < VALUE_MAX);
	edit_start(&e, sp);
	add_piece(&e, raw, &b->arena);
	edit_finish(&e, b, sp);
	/* It may be an attribute, and which one is not worth a look here. */
	sp->may_wish |= raw.n > 0 && raw.p[0] == (SPAN_ATTRIBUTES << 3 | PB_LEN);
}

void batch_set_span(struct batch *b, uint32_t i, const struct bytes *fields, size_t n)
{
	struct span_ref *sp = &b->tables.spans[i];
	struct edit e = { .n = 0 };
	size_t n_bytes = 0;
	uint8_t *copy, *at;

	for (size_t k = 0; k < n && e.n < PIECES_MAX; k++)
		add_piece(&e, fields[k], &b->arena);
	if (e.n == PIECES_MAX) {
		for (size_t k = 0; k < n; k++)
			n_bytes += fields[k].n;
		copy = at = arena_alloc(&b->arena, n_bytes);
		for (size_t k = 0; k < n; at += fields[k++].n)
			memcpy(at, fields[k].p, fields[k].n);
		e.v[0] = (struct bytes){ copy, n_bytes };
		e.n = 1;
	}
	edit_finish(&e, b, sp);
	sp->may_wish = true;
}

/* Room for one more head; the old array stays where it is, for batches that copied nothing. */
static uint32_t add_head(struct batch *b)
{
	struct span_tables *t = &b->tables;
	size_t room = MAX(2 * (size_t)t->n_heads, 16);

	if (t->n_heads == b->heads_room) {
		struct bytes *heads = arena_alloc(&b->arena, room * sizeof(*heads));

		memcpy(heads, t->heads, t->n_heads * sizeof(*heads));
		t->heads = heads;
		b->heads_room = (uint32_t)room;
	}
	return t->n_heads++;
}

void batch_set_resource(struct batch *b, uint32_t r, struct bytes head)
{
	struct resource_ref *res = &b->tables.resources[r];

	if (res->n_head == 0)
		res->head = add_head(b);
	res->n_head = head.n > 0;
	res->head_bytes = (uint32_t)head.n;
	b->tables.heads[res->head] = head;
	b->n_whole = 0;
	charge_arena(b);
}

/* ---- out ---- */

void batch_encode(const struct batch *b, struct arena *arena, struct batch_encoding *out)
{
	struct otlp_pieces pieces;

	if (b->n_whole > 0) {
		*out = (struct batch_encoding){ b->whole, b->n_whole, 0 };
		for (uint32_t i = 0; i < b->n_whole; i++)
			out->n_bytes += b->whole[i].n;
		return;
	}
	otlp_encode(&b->tables, NULL, b->tables.n_spans, arena, &pieces);
	*out = (struct batch_encoding){ pieces.v, pieces.n, pieces.n_bytes };
}

size_t batch_encoded_size(const struct batch *b)
{
	size_t n = 0;

	if (b->n_whole == 0)
		return otlp_encoded_size(&b->tables, NULL, b->tables.n_spans);
	for (uint32_t i = 0; i < b->n_whole; i++)
		n += b->whole[i].n;
	return n;
}
