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
	if (name.n == 0 || name.n > TENANT_MAX || bytes_eq_str(name, ".") || bytes_eq_str(name, "..") ||
	    bytes_eq_str(name, "_spanmill"))
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
	return align16(sizeof(struct batch)) + align16(s->tables.n_spans * sizeof(struct span_ref)) +
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

/* Memory for a batch of these sizes; counts are zero, arrays uninitialised. The caller has charged the budget. */
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
	b->sources = carve(&at, s->n_sources * sizeof(struct rcbuf *));
	b->origins = carve(&at, s->n_origins * sizeof(struct batch_origin));
	b->whole = carve(&at, s->n_whole * sizeof(struct bytes));
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

struct batch *batch_from_otlp(struct rcbuf *request, const char *tenant, struct budget *budget,
			      struct otlp_result *result, struct err *err)
{
	struct bytes bytes = { request->p, request->n };
	struct sizes s = { .n_sources = 1, .n_origins = 1, .n_whole = 1 };
	struct batch *b = NULL;

	if (otlp_count(bytes, &s.tables, err) < 0)
		goto fail;
	if (!budget_charge(budget, batch_bytes(&s))) {
		err_set(err, ERR_EXHAUSTED, "memory budget: no room for the index of %u spans", s.tables.n_spans);
		goto fail;
	}
	b = batch_alloc(&s, budget, tenant);
	b->sources[b->n_sources++] = request;
	if (otlp_index(bytes, &b->tables, &b->arena, result, err) < 0) {
		batch_unref(b);
		return NULL;
	}
	if (result->is_whole && b->tables.n_spans > 0)
		b->whole[b->n_whole++] = bytes;
	return b;
fail:
	rcbuf_unref(request);
	return NULL;
}

void batch_bind(struct batch *b, struct origin *o)
{
	b->origins[0] = (struct batch_origin){ o, b->tables.n_spans };
	b->n_origins = 1;
}

/* ---- settling ---- */

/* In a fan-out: mark the spans of one origin, the last n_bad of them PERMANENT, the others with `v`. */
static void mark_spans(struct batch *b, uint32_t origin, uint32_t n_bad, enum verdict v,
		       enum drop_reason reason)
{
	struct origin *o = b->origins[origin].origin;

	if (atomic_load_explicit(&o->marks, memory_order_acquire) == NULL)
		return;
	for (uint32_t i = b->tables.n_spans; i-- > 0;) {
		const struct span_ref *sp = &b->tables.spans[i];

		if (sp->origin != origin)
			continue;
		origin_mark(o, sp->ordinal, n_bad > 0 ? VERDICT_PERMANENT : v, reason);
		n_bad -= n_bad > 0;
	}
}

void batch_settle(struct batch *b, enum verdict v, enum drop_reason reason, const struct err *err)
{
	if (b->is_detached)
		return;
	for (uint32_t i = 0; i < b->n_origins; i++) {
		if (b->origins[i].n_spans == 0)
			continue;
		mark_spans(b, i, 0, v, reason);
		origin_settle(b->origins[i].origin, b->origins[i].n_spans, v, reason, err);
	}
}

void batch_settle_partial(struct batch *b, uint32_t n_rejected, const struct err *err)
{
	uint32_t left = MIN(n_rejected, b->tables.n_spans);

	if (b->is_detached)
		return;
	for (uint32_t i = 0; i < b->n_origins; i++) {
		uint32_t n = b->origins[i].n_spans, bad = MIN(left, n);
		struct origin *o = b->origins[i].origin;

		if (n == 0)
			continue;
		left -= bad;
		/* Which spans were refused is not said: the last ones stand for them. */
		mark_spans(b, i, bad, VERDICT_DELIVERED, DROP_REJECTED);
		/* The first call must not pay the last debt: the origin could be gone before the second. */
		if (n > bad && bad > 0) {
			origin_settle(o, bad, VERDICT_PERMANENT, DROP_REJECTED, err);
			origin_settle(o, n - bad, VERDICT_DELIVERED, DROP_REJECTED, NULL);
		} else {
			origin_settle(o, n, bad ? VERDICT_PERMANENT : VERDICT_DELIVERED, DROP_REJECTED,
				      err);
		}
	}
}

bool batch_is_withdrawn(const struct batch *b)
{
	if (b->is_detached || b->n_origins == 0)
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

/* Edited spans point into their batch's arena: keep that batch alive behind a source that holds its reference. */
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
	to->tables.n_scopes = b->tables.n_scopes;
	to->tables.n_resources = b->tables.n_resources;
	to->tables.n_heads = b->tables.n_heads;
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
	if (!to->is_detached)
		to->origins[sp->origin].n_spans++;
}

/* Settle the spans of b that are not kept, origin by origin. */
static void settle_dropped(struct batch *b, const struct batch *kept, const uint8_t *keep,
			   enum drop_reason reason)
{
	if (b->is_detached)
		return;
	for (uint32_t i = 0; i < b->tables.n_spans; i++) {
		const struct span_ref *sp = &b->tables.spans[i];

		if (!keep[i])
			origin_mark(b->origins[sp->origin].origin, sp->ordinal, VERDICT_DROPPED, reason);
	}
	for (uint32_t i = 0; i < b->n_origins; i++) {
		uint32_t n = b->origins[i].n_spans - (kept ? kept->origins[i].n_spans : 0);

		origin_settle(b->origins[i].origin, n, VERDICT_DROPPED, reason, NULL);
	}
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

static void append_batch(struct batch *to, struct batch *b)
{
	struct span_tables *t = &to->tables;
	uint32_t scope0 = t->n_scopes, resource0 = t->n_resources, head0 = t->n_heads;
	uint32_t origin0 = to->n_origins;

	for (uint32_t i = 0; i < b->n_origins; i++)
		to->origins[to->n_origins++] = (struct batch_origin){ b->origins[i].origin, 0 };
	for (uint32_t i = 0; i < b->tables.n_heads; i++)
		t->heads[t->n_heads++] = b->tables.heads[i];
	for (uint32_t i = 0; i < b->tables.n_resources; i++) {
		t->resources[t->n_resources] = b->tables.resources[i];
		t->resources[t->n_resources++].head += head0;
	}
	for (uint32_t i = 0; i < b->tables.n_scopes; i++) {
		struct scope_ref *s = &t->scopes[t->n_scopes++];

		*s = b->tables.scopes[i];
		s->resource += resource0;
		s->head += head0;
	}
	for (uint32_t i = 0; i < b->tables.n_spans; i++) {
		struct span_ref *sp = &t->spans[t->n_spans++];

		*sp = b->tables.spans[i];
		sp->scope += scope0;
		sp->origin += origin0;
		if (!to->is_detached)
			to->origins[sp->origin].n_spans++;
	}
	share_sources(to, b);
	if (needs_pin(b))
		to->sources[to->n_sources++] = pin_batch(b);
}

struct batch *batch_concat(struct batch **v, size_t n)
{
	struct sizes s = { 0 };
	bool whole = true;
	struct batch *to;

	if (n == 1)
		return v[0];
	for (size_t i = 0; i < n; i++) {
		s.tables.n_spans += v[i]->tables.n_spans;
		s.tables.n_scopes += v[i]->tables.n_scopes;
		s.tables.n_resources += v[i]->tables.n_resources;
		s.tables.n_heads += v[i]->tables.n_heads;
		s.n_sources += v[i]->n_sources + needs_pin(v[i]);
		s.n_origins += v[i]->n_origins;
		s.n_whole += v[i]->n_whole;
		whole &= v[i]->n_whole > 0;
	}
	budget_force(v[0]->budget, batch_bytes(&s));
	to = batch_alloc(&s, v[0]->budget, v[0]->tenant);
	to->is_detached = v[0]->is_detached;
	for (size_t i = 0; i < n; i++) {
		append_batch(to, v[i]);
		for (uint32_t k = 0; whole && k < v[i]->n_whole; k++)
			to->whole[to->n_whole++] = v[i]->whole[k];
		batch_unref(v[i]);
	}
	return to;
}

void batch_split(struct batch *b, uint32_t n, struct batch **head, struct batch **tail)
{
	assert(n > 0 && n < b->tables.n_spans);
	*head = batch_like(b, n);
	*tail = batch_like(b, b->tables.n_spans - n);
	for (uint32_t i = 0; i < b->tables.n_spans; i++)
		add_span(i < n ? *head : *tail, &b->tables.spans[i]);
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

enum { SPAN_TRACE_STATE = 3, MAX_PIECES = 255 };

/* The span's bytes as it stands, without its trace_state fields, as slices; returns their number. */
static uint32_t cut_field(const struct span_ref *sp, uint32_t number, struct bytes *pieces)
{
	struct bytes one = { sp->p, sp->len };
	const struct bytes *in = sp->pieces ? sp->pieces : &one;
	uint32_t n_in = sp->pieces ? sp->n_pieces : 1, n = 0;
	struct pb_field f;

	for (uint32_t i = 0; i < n_in; i++)
		for (struct bytes rest = in[i]; pb_next(&rest, &f) > 0;) {
			struct bytes *last = n ? &pieces[n - 1] : NULL;

			if (f.number == number)
				continue;
			if (last && last->p + last->n == f.raw.p)
				last->n += f.raw.n;
			else
				pieces[n++] = f.raw;
		}
	return n;
}

/* How many slices cut_field can make: fields of that number plus the pieces there are. */
static uint32_t count_cuts(const struct span_ref *sp, uint32_t number)
{
	struct bytes one = { sp->p, sp->len };
	const struct bytes *in = sp->pieces ? sp->pieces : &one;
	uint32_t n_in = sp->pieces ? sp->n_pieces : 1, n = n_in;
	struct pb_field f;

	for (uint32_t i = 0; i < n_in; i++)
		for (struct bytes rest = in[i]; pb_next(&rest, &f) > 0;)
			n += f.number == number;
	return n;
}

void batch_set_trace_state(struct batch *b, uint32_t i, struct bytes value)
{
	struct span_ref *sp = &b->tables.spans[i];
	uint32_t room = count_cuts(sp, SPAN_TRACE_STATE) + 1, n;
	struct bytes *pieces = arena_alloc(&b->arena, room * sizeof(*pieces));
	struct buf field = BUF_INIT;
	uint32_t len = 0;

	n = cut_field(sp, SPAN_TRACE_STATE, pieces);
	if (value.n > 0) {
		pb_put_bytes(&field, SPAN_TRACE_STATE, value);
		pieces[n++] = (struct bytes){ arena_dup(&b->arena, field.p, field.n), field.n };
	}
	buf_fini(&field);
	for (uint32_t k = 0; k < n; k++)
		len += (uint32_t)pieces[k].n;
	/* A hostile span with hundreds of trace_state fields: join the slices rather than refuse the edit. */
	if (n > MAX_PIECES) {
		uint8_t *joined = arena_alloc(&b->arena, len), *at = joined;

		for (uint32_t k = 0; k < n; k++) {
			memcpy(at, pieces[k].p, pieces[k].n);
			at += pieces[k].n;
		}
		pieces[0] = (struct bytes){ joined, len };
		n = 1;
	}
	sp->pieces = pieces;
	sp->n_pieces = (uint8_t)n;
	sp->len = len;
	b->n_whole = 0;
}

void batch_append_field(struct batch *b, uint32_t i, struct bytes raw)
{
	struct span_ref *sp = &b->tables.spans[i];
	uint32_t n = sp->pieces ? sp->n_pieces : 1;
	struct bytes *pieces = arena_alloc(&b->arena, (n + 1) * sizeof(*pieces));

	if (sp->pieces != NULL)
		memcpy(pieces, sp->pieces, n * sizeof(*pieces));
	else
		pieces[0] = (struct bytes){ sp->p, sp->len };
	assert(n < MAX_PIECES);
	pieces[n] = raw;
	sp->pieces = pieces;
	sp->n_pieces = (uint8_t)(n + 1);
	sp->len += (uint32_t)raw.n;
	b->n_whole = 0;
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
