/* SPDX-License-Identifier: Apache-2.0
 *
 * head_table.c - see head_table.h.
 */
#include "exporters/blocks/head_table.h"

#include "base/hash.h"
#include "base/mem.h"
#include "base/rng.h"

void head_table_init(struct head_table *h)
{
	memset(h, 0, sizeof(*h));
	rng_kernel(&h->seed, sizeof(h->seed));
}

void head_table_fini(struct head_table *h)
{
	free(h->scopes);
	free(h->resources);
	free(h->heads);
	free(h->scope_set.slots);
	free(h->resource_set.slots);
	arena_fini(&h->arena);
	buf_fini(&h->joined);
}

/* The head's fragments in one piece; valid until the next call. */
static struct bytes join(struct head_table *h, const struct bytes *v, uint32_t n)
{
	if (n == 1)
		return v[0];
	buf_reset(&h->joined);
	for (uint32_t i = 0; i < n; i++)
		buf_add_bytes(&h->joined, v[i]);
	return buf_bytes(&h->joined);
}

/* The head of entry i of either kind. */
struct entry {
	uint32_t resource; /* of a scope; UINT32_MAX for a resource */
	struct bytes head;
};

static struct bytes head_at(const struct head_table *h, uint32_t head, uint32_t n_head)
{
	return n_head ? h->heads[head] : BYTES_EMPTY;
}

static struct entry scope_entry(const struct head_table *h, uint32_t i)
{
	const struct scope_ref *s = &h->scopes[i];

	return (struct entry){ s->resource, head_at(h, s->head, s->n_head) };
}

static struct entry resource_entry(const struct head_table *h, uint32_t i)
{
	const struct resource_ref *r = &h->resources[i];

	return (struct entry){ UINT32_MAX, head_at(h, r->head, r->n_head) };
}

typedef struct entry entry_fn(const struct head_table *h, uint32_t i);

static uint32_t *find_slot(const struct head_table *h, const struct head_set *set, entry_fn *at,
			   const struct entry *e)
{
	size_t i = hash_xxh64(e->head.p, e->head.n, h->seed ^ e->resource) & (set->cap - 1);

	for (; set->slots[i] != 0; i = (i + 1) & (set->cap - 1)) {
		struct entry other = at(h, set->slots[i] - 1);

		if (other.resource == e->resource && bytes_eq(other.head, e->head))
			break;
	}
	return &set->slots[i];
}

/* Make room for one more than n. */
static void grow_set(const struct head_table *h, struct head_set *set, entry_fn *at, size_t n)
{
	if ((n + 1) * 2 <= set->cap)
		return;
	set->cap = set->cap ? set->cap * 2 : 64;
	free(set->slots);
	set->slots = xcalloc(set->cap, sizeof(*set->slots));
	for (uint32_t i = 0; i < n; i++) {
		struct entry e = at(h, i);

		*find_slot(h, set, at, &e) = i + 1;
	}
}

/* Copy the head; returns how many entries of heads[] it took: 1, or 0 when it is empty. */
static uint32_t keep_head(struct head_table *h, struct bytes head)
{
	if (head.n == 0)
		return 0;
	h->heads = xgrow(h->heads, &h->cap_heads, h->n_heads + 1, sizeof(*h->heads));
	h->heads[h->n_heads++] = (struct bytes){ arena_dup(&h->arena, head.p, head.n), head.n };
	return 1;
}

static uint32_t add_resource(struct head_table *h, struct bytes head)
{
	struct entry e = { UINT32_MAX, head };
	uint32_t *slot, n_head;

	grow_set(h, &h->resource_set, resource_entry, h->n_resources);
	slot = find_slot(h, &h->resource_set, resource_entry, &e);
	if (*slot != 0)
		return *slot - 1;
	n_head = keep_head(h, head);
	h->resources =
		xgrow(h->resources, &h->cap_resources, h->n_resources + 1, sizeof(*h->resources));
	h->resources[h->n_resources++] =
		(struct resource_ref){ (uint32_t)h->n_heads - n_head, n_head, (uint32_t)head.n };
	*slot = (uint32_t)h->n_resources;
	return *slot - 1;
}

static uint32_t add_scope(struct head_table *h, uint32_t resource, struct bytes head)
{
	struct entry e = { resource, head };
	uint32_t *slot, n_head;

	grow_set(h, &h->scope_set, scope_entry, h->n_scopes);
	slot = find_slot(h, &h->scope_set, scope_entry, &e);
	if (*slot != 0)
		return *slot - 1;
	n_head = keep_head(h, head);
	h->scopes = xgrow(h->scopes, &h->cap_scopes, h->n_scopes + 1, sizeof(*h->scopes));
	h->scopes[h->n_scopes++] = (struct scope_ref){ resource, (uint32_t)h->n_heads - n_head,
						       n_head, (uint32_t)head.n };
	*slot = (uint32_t)h->n_scopes;
	return *slot - 1;
}

uint32_t head_table_add(struct head_table *h, const struct span_tables *from, uint32_t scope)
{
	const struct scope_ref *s = &from->scopes[scope];
	const struct resource_ref *r = &from->resources[s->resource];
	uint32_t resource = add_resource(h, join(h, from->heads + r->head, r->n_head));

	return add_scope(h, resource, join(h, from->heads + s->head, s->n_head));
}

void head_table_lend(const struct head_table *h, struct span_tables *to)
{
	to->scopes = h->scopes;
	to->resources = h->resources;
	to->heads = h->heads;
	to->n_scopes = (uint32_t)h->n_scopes;
	to->n_resources = (uint32_t)h->n_resources;
	to->n_heads = (uint32_t)h->n_heads;
	to->n_extras = 0;
}

size_t head_table_memory(const struct head_table *h)
{
	return h->cap_scopes * sizeof(*h->scopes) + h->cap_resources * sizeof(*h->resources) +
	       h->cap_heads * sizeof(*h->heads) + h->arena.bytes + h->joined.cap +
	       (h->scope_set.cap + h->resource_set.cap) * sizeof(uint32_t);
}
