/* SPDX-License-Identifier: Apache-2.0
 *
 * otlp_encode.c - see otlp_encode.h.
 *
 * DESIGN: pass 1 cuts the spans into runs (one per ScopeSpans) and adds up payload lengths; a run
 * also says where its ResourceSpans starts and how long it is. Pass 2 writes tags and lengths into
 * one scratch block and lists slices.
 *
 * What the request itself held besides resource_spans goes out first.
 *
 *   runs:  [first 0, n 3, scope 0, bytes 900, opens resource: 1400]
 *          [first 3, n 2, scope 1, bytes 450] ...
 */
#include "wire/otlp_encode.h"

#include "wire/pb.h"

enum { TAG_RESOURCE_SPANS = 0x0a, TAG_SCOPE_SPANS = 0x12, TAG_SPAN = 0x12, HEAD_MAX = 6 };

struct run {
	uint32_t first, n; /* spans, as positions in the pick order */
	uint32_t scope;
	size_t payload;          /* of the ScopeSpans message */
	size_t resource_payload; /* of the ResourceSpans that starts here; 0: goes on in the one
				    before */
};

static const struct span_ref *span_at(const struct span_tables *t, const uint32_t *pick, uint32_t i)
{
	return &t->spans[pick ? pick[i] : i];
}

static size_t field_size(size_t payload)
{
	return 1 + pb_varint_size(payload) + payload;
}

static size_t extras_size(const struct span_tables *t)
{
	size_t n = 0;

	for (uint32_t i = 0; i < t->n_extras; i++)
		n += t->heads[i].n;
	return n;
}

/* Fill runs[] (NULL: only measure). Returns their number; *total gets the encoded bytes. */
static uint32_t measure(const struct span_tables *t, const uint32_t *pick, uint32_t n,
			struct run *runs, size_t *total)
{
	uint32_t n_runs = 0, open_resource = UINT32_MAX;
	size_t resource_payload = 0, scope_payload;
	struct run *opener = NULL;

	*total = extras_size(t);
	for (uint32_t i = 0; i < n;) {
		uint32_t scope = span_at(t, pick, i)->scope, first = i;
		const struct scope_ref *s = &t->scopes[scope];

		if (s->resource != open_resource) {
			if (opener != NULL)
				opener->resource_payload = resource_payload;
			*total += n_runs ? field_size(resource_payload) : 0;
			open_resource = s->resource;
			resource_payload = t->resources[s->resource].head_bytes;
			opener = runs ? &runs[n_runs] : NULL;
		}
		scope_payload = s->head_bytes;
		for (; i < n && span_at(t, pick, i)->scope == scope; i++)
			scope_payload += field_size(span_at(t, pick, i)->len);
		if (runs != NULL)
			runs[n_runs] = (struct run){ first, i - first, scope, scope_payload, 0 };
		n_runs++;
		resource_payload += field_size(scope_payload);
	}
	if (opener != NULL)
		opener->resource_payload = resource_payload;
	*total += n_runs ? field_size(resource_payload) : 0;
	return n_runs;
}

struct gather {
	struct otlp_pieces *out;
	uint8_t *scratch;
};

static void add_piece(struct gather *g, const uint8_t *p, size_t n)
{
	struct bytes *last = g->out->n ? &g->out->v[g->out->n - 1] : NULL;

	if (n == 0)
		return;
	g->out->n_bytes += n;
	if (last != NULL && last->p + last->n == p)
		last->n += n;
	else
		g->out->v[g->out->n++] = (struct bytes){ p, n };
}

static void add_field_head(struct gather *g, uint8_t tag, size_t payload)
{
	size_t n = 1;

	g->scratch[0] = tag;
	n += pb_varint_write(g->scratch + 1, payload);
	add_piece(g, g->scratch, n);
	g->scratch += n;
}

static void add_heads(struct gather *g, const struct span_tables *t, uint32_t first, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		add_piece(g, t->heads[first + i].p, t->heads[first + i].n);
}

static void add_span(struct gather *g, const struct span_ref *sp)
{
	if (sp->pieces == NULL && sp->head_len > 0) {
		add_piece(g, sp->p - sp->head_len, sp->head_len + (size_t)sp->len);
		return;
	}
	add_field_head(g, TAG_SPAN, sp->len);
	if (sp->pieces == NULL)
		add_piece(g, sp->p, sp->len);
	for (unsigned i = 0; sp->pieces != NULL && i < sp->n_pieces; i++)
		add_piece(g, sp->pieces[i].p, sp->pieces[i].n);
}

/* How many slices and header bytes the worst case needs. */
static size_t count_pieces(const struct span_tables *t, const uint32_t *pick, uint32_t n,
			   const struct run *runs, uint32_t n_runs)
{
	size_t pieces = t->n_extras;

	for (uint32_t i = 0; i < n; i++)
		pieces += 1 + MAX(span_at(t, pick, i)->n_pieces, 1u);
	for (uint32_t r = 0; r < n_runs; r++) {
		const struct scope_ref *s = &t->scopes[runs[r].scope];

		pieces += 2 + s->n_head + t->resources[s->resource].n_head;
	}
	return pieces;
}

/* Runs when every span changes scope: as many as spans. Count first, so that the array fits. */
static uint32_t count_runs(const struct span_tables *t, const uint32_t *pick, uint32_t n)
{
	uint32_t runs = 0, scope = UINT32_MAX;

	for (uint32_t i = 0; i < n; i++) {
		runs += span_at(t, pick, i)->scope != scope;
		scope = span_at(t, pick, i)->scope;
	}
	return runs;
}

void otlp_encode(const struct span_tables *t, const uint32_t *pick, uint32_t n, struct arena *arena,
		 struct otlp_pieces *out)
{
	uint32_t n_runs = count_runs(t, pick, n);
	struct run *runs = arena_alloc(arena, n_runs * sizeof(*runs));
	struct gather g = { .out = out };
	size_t total;

	measure(t, pick, n, runs, &total);
	out->n = out->n_bytes = 0;
	out->v = arena_alloc(arena, count_pieces(t, pick, n, runs, n_runs) * sizeof(*out->v));
	g.scratch = arena_alloc(arena, HEAD_MAX * 2 * ((size_t)n + 2 * (size_t)n_runs));
	add_heads(&g, t, 0, t->n_extras);
	for (uint32_t r = 0; r < n_runs; r++) {
		const struct scope_ref *s = &t->scopes[runs[r].scope];
		const struct resource_ref *res = &t->resources[s->resource];

		if (runs[r].resource_payload > 0) {
			add_field_head(&g, TAG_RESOURCE_SPANS, runs[r].resource_payload);
			add_heads(&g, t, res->head, res->n_head);
		}
		add_field_head(&g, TAG_SCOPE_SPANS, runs[r].payload);
		add_heads(&g, t, s->head, s->n_head);
		for (uint32_t i = 0; i < runs[r].n; i++)
			add_span(&g, span_at(t, pick, runs[r].first + i));
	}
	assert(out->n_bytes == total);
}

size_t otlp_encoded_size(const struct span_tables *t, const uint32_t *pick, uint32_t n)
{
	size_t total;

	measure(t, pick, n, NULL, &total);
	return total;
}

/* ---- written in one go ---- */

/* The payload of the ScopeSpans that starts at span `first`; *end: behind its last span. */
static size_t scope_payload(const struct span_tables *t, const uint32_t *pick, uint32_t n,
			    uint32_t first, uint32_t *end)
{
	uint32_t scope = span_at(t, pick, first)->scope, i;
	size_t payload = t->scopes[scope].head_bytes;

	for (i = first; i < n && span_at(t, pick, i)->scope == scope; i++)
		payload += field_size(span_at(t, pick, i)->len);
	*end = i;
	return payload;
}

/* The same of the ResourceSpans that starts there. */
static size_t resource_payload(const struct span_tables *t, const uint32_t *pick, uint32_t n,
			       uint32_t first, uint32_t *end)
{
	uint32_t resource = t->scopes[span_at(t, pick, first)->scope].resource, i = first;
	size_t payload = t->resources[resource].head_bytes;

	while (i < n && t->scopes[span_at(t, pick, i)->scope].resource == resource)
		payload += field_size(scope_payload(t, pick, n, i, &i));
	*end = i;
	return payload;
}

static uint8_t *put(uint8_t *out, const uint8_t *p, size_t n)
{
	if (n > 0)
		memcpy(out, p, n);
	return out + n;
}

static uint8_t *put_head(uint8_t *out, uint8_t tag, size_t payload)
{
	*out++ = tag;
	return out + pb_varint_write(out, payload);
}

static uint8_t *put_heads(uint8_t *out, const struct span_tables *t, uint32_t first, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		out = put(out, t->heads[first + i].p, t->heads[first + i].n);
	return out;
}

static uint8_t *put_span(uint8_t *out, const struct span_ref *sp)
{
	if (sp->pieces == NULL && sp->head_len > 0)
		return put(out, sp->p - sp->head_len, sp->head_len + (size_t)sp->len);
	out = put_head(out, TAG_SPAN, sp->len);
	if (sp->pieces == NULL)
		return put(out, sp->p, sp->len);
	for (unsigned i = 0; i < sp->n_pieces; i++)
		out = put(out, sp->pieces[i].p, sp->pieces[i].n);
	return out;
}

static uint8_t *put_scope(uint8_t *out, const struct span_tables *t, const uint32_t *pick,
			  uint32_t n, uint32_t first, uint32_t *end)
{
	const struct scope_ref *s = &t->scopes[span_at(t, pick, first)->scope];

	out = put_head(out, TAG_SCOPE_SPANS, scope_payload(t, pick, n, first, end));
	out = put_heads(out, t, s->head, s->n_head);
	for (uint32_t i = first; i < *end; i++)
		out = put_span(out, span_at(t, pick, i));
	return out;
}

uint8_t *otlp_write(const struct span_tables *t, const uint32_t *pick, uint32_t n, uint8_t *out)
{
	uint32_t i = 0, end;

	out = put_heads(out, t, 0, t->n_extras);
	while (i < n) {
		const struct resource_ref *r =
			&t->resources[t->scopes[span_at(t, pick, i)->scope].resource];

		out = put_head(out, TAG_RESOURCE_SPANS, resource_payload(t, pick, n, i, &end));
		out = put_heads(out, t, r->head, r->n_head);
		while (i < end)
			out = put_scope(out, t, pick, end, i, &i);
	}
	return out;
}
