/* SPDX-License-Identifier: Apache-2.0
 *
 * otlp_join.c - see otlp_join.h.
 */
#include "wire/otlp_join.h"

#include "base/mem.h"
#include "wire/pb.h"

enum { TAG_RESOURCE_SPANS = 0x0a, TAG_SCOPE_SPANS = 0x12, TAG_SPAN = 0x12, AHEAD_BYTES = 512 };

static size_t field_size(size_t payload)
{
	return 1 + pb_varint_size(payload) + payload;
}

/* ---- numbers ---- */

/* What `kind` and the heads say, in j->key. */
static struct bytes head_key(struct otlp_join *j, uint32_t kind, const struct span_tables *t,
			     uint32_t first, uint32_t n)
{
	buf_reset(&j->key);
	buf_add(&j->key, &kind, sizeof(kind));
	for (uint32_t i = 0; i < n; i++)
		buf_add_bytes(&j->key, t->heads[first + i]);
	return buf_bytes(&j->key);
}

/* A copy of the bytes behind the kind. */
static struct otlp_join_head keep_head(struct otlp_join *j, struct bytes key, uint32_t resource)
{
	struct otlp_join_head head = { j->heads.n, key.n - sizeof(uint32_t), resource };

	buf_add(&j->heads, key.p + sizeof(uint32_t), head.n);
	return head;
}

/* The number of a head; *list gets it when it is new. */
static uint32_t number(struct otlp_join *j, struct bytes key, uint32_t resource,
		       struct otlp_join_head **list, size_t *n, size_t *cap)
{
	uintptr_t found = (uintptr_t)map_find(&j->numbers, key);

	if (found != 0)
		return (uint32_t)(found - 1);
	*list = xgrow(*list, cap, *n + 1, sizeof(**list));
	(*list)[*n] = keep_head(j, key, resource);
	map_set(&j->numbers, key, (void *)(uintptr_t)(*n + 1));
	return (uint32_t)(*n)++;
}

uint32_t otlp_join_scope(struct otlp_join *j, const struct span_tables *t, uint32_t scope)
{
	const struct scope_ref *s = &t->scopes[scope];
	const struct resource_ref *r = &t->resources[s->resource];
	uint32_t resource;

	resource = number(j, head_key(j, UINT32_MAX, t, r->head, r->n_head), 0, &j->resources,
			  &j->n_resources, &j->cap_resources);
	return number(j, head_key(j, resource, t, s->head, s->n_head), resource, &j->scopes,
		      &j->n_scopes, &j->cap_scopes);
}

void otlp_join_fini(struct otlp_join *j)
{
	map_fini(&j->numbers);
	buf_fini(&j->heads);
	buf_fini(&j->key);
	free(j->resources);
	free(j->scopes);
	*j = (struct otlp_join){ 0 };
}

/* ---- runs ---- */

static bool lies_whole(const struct span_ref *sp)
{
	return sp->pieces == NULL && sp->head_len > 0;
}

void otlp_run_start(struct otlp_run *r, const struct span_tables *t, uint32_t i)
{
	const struct span_ref *sp = &t->spans[i];

	*r = (struct otlp_run){
		.t = t, .first = i, .n = 1, .origin = sp->origin, .ordinal = sp->ordinal
	};
	r->p = lies_whole(sp) ? sp->p - sp->head_len : NULL;
	r->bytes = r->p ? sp->head_len + sp->len : (uint32_t)field_size(sp->len);
}

bool otlp_run_extend(struct otlp_run *r, uint32_t i, uint32_t max_bytes)
{
	const struct span_ref *sp = &r->t->spans[i];

	if (r->p == NULL || i != r->first + r->n || !lies_whole(sp) ||
	    sp->p - sp->head_len != r->p + r->bytes || sp->scope != sp[-1].scope ||
	    sp->origin != r->origin || sp->ordinal != r->ordinal + r->n ||
	    r->bytes + sp->head_len + sp->len > max_bytes)
		return false;
	r->n++;
	r->bytes += sp->head_len + sp->len;
	return true;
}

void otlp_run_halve(struct otlp_run *r, struct otlp_run *rest)
{
	uint32_t half = r->n / 2;

	assert(r->n >= 2 && r->p != NULL);
	*rest = *r;
	rest->extras = false;
	r->n = half;
	r->bytes = 0;
	for (uint32_t i = r->first; i < r->first + half; i++)
		r->bytes += r->t->spans[i].head_len + r->t->spans[i].len;
	rest->first += half;
	rest->ordinal += half;
	rest->n -= half;
	rest->p += r->bytes;
	rest->bytes -= r->bytes;
}

/* ---- sizes ---- */

static size_t extras_size(const struct otlp_run *r)
{
	size_t n = 0;

	for (uint32_t i = 0; r->extras && i < r->t->n_extras; i++)
		n += r->t->heads[i].n;
	return n;
}

size_t otlp_join_add_size(const struct otlp_join *j, struct otlp_join_size *s,
			  const struct otlp_run *r)
{
	const struct otlp_join_head *scope = &j->scopes[r->scope];

	if (!s->is_open || j->scopes[s->open_scope].resource != scope->resource) {
		if (s->is_open)
			s->closed += field_size(s->resource + field_size(s->scope));
		s->resource = j->resources[scope->resource].n;
		s->scope = scope->n;
	} else if (s->open_scope != r->scope) {
		s->resource += field_size(s->scope);
		s->scope = scope->n;
	}
	s->is_open = true;
	s->open_scope = r->scope;
	s->scope += r->bytes;
	s->closed += extras_size(r);
	return s->closed + field_size(s->resource + field_size(s->scope));
}

/* The payload of the ScopeSpans that starts with run `first`; *end: behind its last run. */
static size_t scope_payload(const struct otlp_join *j, struct otlp_run *const *v, size_t n,
			    size_t first, size_t *end)
{
	uint32_t scope = v[first]->scope;
	size_t payload = j->scopes[scope].n, i;

	for (i = first; i < n && v[i]->scope == scope; i++)
		payload += v[i]->bytes;
	*end = i;
	return payload;
}

/* The same of the ResourceSpans that starts there. */
static size_t resource_payload(const struct otlp_join *j, struct otlp_run *const *v, size_t n,
			       size_t first, size_t *end)
{
	uint32_t resource = otlp_join_resource(j, v[first]->scope);
	size_t payload = j->resources[resource].n, i = first;

	while (i < n && otlp_join_resource(j, v[i]->scope) == resource)
		payload += field_size(scope_payload(j, v, n, i, &i));
	*end = i;
	return payload;
}

/* ---- bytes ---- */

static uint8_t *put(uint8_t *out, const uint8_t *p, size_t n)
{
	if (n > 0)
		memcpy(out, p, n);
	return out + n;
}

static uint8_t *put_tag(uint8_t *out, uint8_t tag, size_t payload)
{
	*out++ = tag;
	return out + pb_varint_write(out, payload);
}

static uint8_t *put_head(uint8_t *out, const struct otlp_join *j, const struct otlp_join_head *h)
{
	return put(out, j->heads.p + h->off, h->n);
}

static uint8_t *put_run(uint8_t *out, const struct otlp_run *r)
{
	const struct span_ref *sp = &r->t->spans[r->first];

	if (r->p != NULL)
		return put(out, r->p, r->bytes);
	out = put_tag(out, TAG_SPAN, sp->len);
	if (sp->pieces == NULL)
		return put(out, sp->p, sp->len);
	for (unsigned i = 0; i < sp->n_pieces; i++)
		out = put(out, sp->pieces[i].p, sp->pieces[i].n);
	return out;
}

static uint8_t *put_extras(uint8_t *out, const struct otlp_run *r)
{
	for (uint32_t i = 0; r->extras && i < r->t->n_extras; i++)
		out = put(out, r->t->heads[i].p, r->t->heads[i].n);
	return out;
}

/* Its bytes are in no cache: ask for the first of them; what follows the processor fetches. */
static void fetch_ahead(const struct otlp_run *r)
{
	for (size_t i = 0; r->p != NULL && i < MIN(r->bytes, (uint32_t)AHEAD_BYTES); i += 64)
		__builtin_prefetch(r->p + i);
}

static uint8_t *put_scope(uint8_t *out, const struct otlp_join *j, struct otlp_run *const *v,
			  size_t n, size_t first, size_t *end)
{
	out = put_tag(out, TAG_SCOPE_SPANS, scope_payload(j, v, n, first, end));
	out = put_head(out, j, &j->scopes[v[first]->scope]);
	for (size_t i = first; i < *end; i++) {
		if (i + 1 < n)
			fetch_ahead(v[i + 1]);
		out = put_run(out, v[i]);
	}
	return out;
}

uint8_t *otlp_join_write(const struct otlp_join *j, struct otlp_run *const *v, size_t n,
			 uint8_t *out)
{
	size_t i, end;

	for (i = 0; i < n; i++)
		out = put_extras(out, v[i]);
	for (i = 0; i < n;) {
		uint32_t resource = otlp_join_resource(j, v[i]->scope);

		out = put_tag(out, TAG_RESOURCE_SPANS, resource_payload(j, v, n, i, &end));
		out = put_head(out, j, &j->resources[resource]);
		while (i < end)
			out = put_scope(out, j, v, end, i, &i);
	}
	return out;
}
