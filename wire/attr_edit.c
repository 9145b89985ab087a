/* SPDX-License-Identifier: Apache-2.0
 *
 * attr_edit.c - see attr_edit.h.
 */
#include "wire/attr_edit.h"

#include "wire/any_value.h"
#include "wire/pb.h"

void attr_edit_init(struct attr_edit *e, uint32_t number, struct arena *scratch, struct arena *keep)
{
	*e = (struct attr_edit){
		.number = number, .scratch = scratch, .keep = keep, .text = BUF_INIT
	};
}

void attr_edit_fini(struct attr_edit *e)
{
	buf_fini(&e->text);
}

static struct attr_item *add_item(struct attr_edit *e)
{
	if (e->n == e->cap) {
		size_t cap = MAX(2 * e->cap, 32);
		struct attr_item *v = arena_alloc(e->scratch, cap * sizeof(*v));

		if (e->n > 0)
			memcpy(v, e->v, e->n * sizeof(*v));
		e->v = v;
		e->cap = cap;
	}
	e->v[e->n] = (struct attr_item){ .is_attribute = false };
	return &e->v[e->n++];
}

/* Other fields that follow each other are one item. */
static void add_other(struct attr_edit *e, struct bytes raw)
{
	struct attr_item *last = e->n ? &e->v[e->n - 1] : NULL;

	if (last != NULL && !last->is_attribute && last->raw.p + last->raw.n == raw.p)
		last->raw.n += raw.n;
	else
		add_item(e)->raw = raw;
}

void attr_edit_start(struct attr_edit *e, const struct bytes *v, size_t n)
{
	struct pb_field f = { 0 };

	e->v = NULL;
	e->n = e->cap = 0;
	e->changed = false;
	for (size_t i = 0; i < n; i++)
		for (struct bytes rest = v[i]; pb_next(&rest, &f) > 0;) {
			struct attr_item *item;

			if (f.number != e->number || f.wire != PB_LEN) {
				add_other(e, f.raw);
				continue;
			}
			item = add_item(e);
			item->raw = f.raw;
			item->is_attribute = true;
			any_pair_read(f.data, &item->key, &item->any);
		}
}

struct attr_item *attr_edit_find(struct attr_edit *e, struct bytes key)
{
	for (size_t i = 0; i < e->n; i++)
		if (e->v[i].is_attribute && bytes_eq(e->v[i].key, key))
			return &e->v[i];
	return NULL;
}

/* The bytes of a new KeyValue, kept; what the item knows of it points into them. */
static void write_item(struct attr_edit *e, struct attr_item *item, struct bytes key,
		       struct bytes any)
{
	struct pb_field f = { 0 };
	struct bytes rest;

	buf_reset(&e->text);
	any_pair_put(&e->text, e->number, key, any);
	rest = buf_bytes(&e->text);
	item->raw = (struct bytes){ arena_dup(e->keep, rest.p, rest.n), rest.n };
	item->is_attribute = true;
	rest = item->raw;
	if (pb_next(&rest, &f) > 0)
		any_pair_read(f.data, &item->key, &item->any);
	e->changed = true;
}

void attr_edit_put(struct attr_edit *e, struct bytes key, struct bytes any)
{
	struct attr_item *item = attr_edit_find(e, key);

	if (item != NULL)
		attr_edit_set(e, item, any);
	else
		write_item(e, add_item(e), key, any);
}

void attr_edit_set(struct attr_edit *e, struct attr_item *item, struct bytes any)
{
	if (!bytes_eq(item->any, any))
		write_item(e, item, item->key, any);
}

void attr_edit_remove(struct attr_edit *e, struct attr_item *item)
{
	*item = (struct attr_item){ .is_attribute = false };
	e->changed = true;
}

struct bytes *attr_edit_fields(struct attr_edit *e, size_t *n)
{
	struct bytes *v = arena_alloc(e->scratch, e->n * sizeof(*v));

	*n = 0;
	for (size_t i = 0; i < e->n; i++)
		if (e->v[i].raw.n > 0)
			v[(*n)++] = e->v[i].raw;
	return v;
}
