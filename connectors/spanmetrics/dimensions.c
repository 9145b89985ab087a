/* SPDX-License-Identifier: Apache-2.0
 *
 * dimensions.c - see dimensions.h.
 */
#include "connectors/spanmetrics/dimensions.h"

#include "wire/any_value.h"
#include "wire/pb.h"

/* The number of this dimension, new or not. Validation has bounded them. */
static uint32_t number_of(struct dimension_plan *p, const struct dimension_config *d,
			  struct arena *arena)
{
	struct dimension *to;
	uint32_t i = 0;

	while (i < p->n && !(bytes_eq_str(p->all[i].name, d->name) &&
			     p->all[i].has_fallback == d->has_fallback &&
			     (!d->has_fallback || strcmp(p->fallbacks[i], d->fallback) == 0)))
		i++;
	if (i < p->n)
		return i;
	assert(p->n < DIMENSIONS_MAX);
	to = &p->all[p->n];
	to->name = bytes_str(d->name);
	to->has_fallback = d->has_fallback;
	p->fallbacks[p->n] = d->fallback;
	if (d->has_fallback) {
		struct buf any = BUF_INIT;

		pb_put_str(&any, ANY_STRING, d->fallback);
		to->fallback = (struct bytes){ arena_dup(arena, any.p, any.n), any.n };
		buf_fini(&any);
	}
	return p->n++;
}

void dimension_plan_add(struct dimension_plan *p, const struct option_list *list, uint64_t *set,
			struct arena *arena)
{
	const struct dimension_config *v = list->items;

	for (size_t i = 0; i < list->n; i++)
		if (v[i].glob[0] == '\0')
			*set |= UINT64_C(1) << number_of(p, &v[i], arena);
}

/* One attribute against the wanted ones. */
static void match(const struct dimension_plan *p, struct bytes pair, uint64_t *wanted,
		  struct dimension_values *out)
{
	struct bytes key, any;

	any_pair_read(pair, &key, &any);
	for (uint64_t left = *wanted; left != 0; left &= left - 1) {
		unsigned i = (unsigned)__builtin_ctzll(left);

		if (!bytes_eq(p->all[i].name, key))
			continue;
		out->any[i] = any;
		out->found |= UINT64_C(1) << i;
		*wanted &= ~(UINT64_C(1) << i);
	}
}

void dimensions_find(const struct dimension_plan *p, struct bytes message, uint32_t number,
		     uint64_t *wanted, struct dimension_values *out)
{
	struct pb_field f;

	while (*wanted != 0 && pb_next(&message, &f) > 0)
		if (f.number == number && f.wire == PB_LEN)
			match(p, f.data, wanted, out);
}

void dimensions_find_in_span(const struct dimension_plan *p, const struct span_ref *sp,
			     uint64_t *wanted, struct dimension_values *out)
{
	const struct bytes whole = { sp->p, sp->len };
	const struct bytes *v = sp->pieces != NULL ? sp->pieces : &whole;
	unsigned n = sp->pieces != NULL ? sp->n_pieces : 1;

	/* The pieces of an edited span end between fields. */
	for (unsigned i = 0; i < n && *wanted != 0; i++)
		dimensions_find(p, v[i], 9, wanted, out);
}

void dimensions_fall_back(const struct dimension_plan *p, uint64_t wanted,
			  struct dimension_values *out)
{
	for (; wanted != 0; wanted &= wanted - 1) {
		unsigned i = (unsigned)__builtin_ctzll(wanted);

		if (!p->all[i].has_fallback)
			continue;
		out->any[i] = p->all[i].fallback;
		out->found |= UINT64_C(1) << i;
	}
}

void dimensions_take(struct dimension_values *to, const struct dimension_values *from, uint64_t set)
{
	to->found |= set;
	for (; set != 0; set &= set - 1) {
		unsigned i = (unsigned)__builtin_ctzll(set);

		to->any[i] = from->any[i];
	}
}

void dimensions_key_text(uint8_t number, struct bytes text, struct buf *key)
{
	uint8_t head[11] = { number };
	size_t n = 1 + pb_varint_write(head + 1, text.n);

	buf_add(key, head, n);
	buf_add_bytes(key, text);
}

void dimensions_key(const struct dimension_values *v, uint64_t set, struct buf *key)
{
	struct buf text = BUF_INIT;

	for (uint64_t left = set & v->found; left != 0; left &= left - 1) {
		unsigned i = (unsigned)__builtin_ctzll(left);
		struct any_value value;

		any_value_read(v->any[i], &value);
		if (value.kind == ANY_STRING) {
			dimensions_key_text((uint8_t)i, value.s, key);
			continue;
		}
		buf_reset(&text);
		any_value_text(&value, &text);
		dimensions_key_text((uint8_t)i, buf_bytes(&text), key);
	}
	buf_fini(&text);
}

void dimensions_attributes(const struct dimension_plan *p, const struct dimension_values *v,
			   uint64_t set, struct buf *attributes)
{
	for (uint64_t left = set & v->found; left != 0; left &= left - 1) {
		unsigned i = (unsigned)__builtin_ctzll(left);

		any_pair_put(attributes, 7, p->all[i].name, v->any[i]);
	}
}
