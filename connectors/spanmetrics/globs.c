/* SPDX-License-Identifier: Apache-2.0
 *
 * globs.c - see globs.h.
 */
#include "connectors/spanmetrics/globs.h"

#include "wire/any_value.h"
#include "wire/pb.h"

void glob_set_add(struct glob_set *g, const struct option_list *list, unsigned families)
{
	const struct dimension_config *v = list->items;

	for (size_t i = 0; i < list->n; i++) {
		uint32_t at = 0;

		if (v[i].glob[0] == '\0')
			continue;
		while (at < g->n && !bytes_eq_str(g->all[at].pattern, v[i].glob))
			at++;
		assert(at < GLOBS_MAX);
		g->all[at].pattern = bytes_str(v[i].glob);
		g->all[at].families |= families;
		g->n = MAX(g->n, at + 1);
	}
}

bool glob_set_is_same(const struct glob_set *g, unsigned family_a, unsigned family_b)
{
	for (uint32_t i = 0; i < g->n; i++)
		if ((g->all[i].families >> family_a & 1) != (g->all[i].families >> family_b & 1))
			return false;
	return true;
}

/* The last * takes a byte more each time that what follows does not fit: at most n * m steps. */
bool glob_fits(struct bytes pattern, struct bytes name)
{
	size_t p = 0, n = 0, star = SIZE_MAX, from = 0;

	while (n < name.n) {
		if (p < pattern.n && pattern.p[p] == '*') {
			star = p++;
			from = n;
		} else if (p < pattern.n && (pattern.p[p] == '?' || pattern.p[p] == name.p[n])) {
			p++;
			n++;
		} else if (star != SIZE_MAX) {
			p = star + 1;
			n = ++from;
		} else {
			return false;
		}
	}
	while (p < pattern.n && pattern.p[p] == '*')
		p++;
	return p == pattern.n;
}

static bool is_label(const struct dimension_plan *p, struct bytes key)
{
	static const char *const own[] = {
		"service.name", "span.name", "span.kind", "status.code",
		"service",      "span_name", "span_kind", "status_code"
	};

	for (size_t i = 0; i < COUNT_OF(own); i++)
		if (bytes_eq_str(key, own[i]))
			return true;
	for (uint32_t i = 0; i < p->n; i++)
		if (bytes_eq(key, p->all[i].name))
			return true;
	return false;
}

static int compare(struct bytes a, struct bytes b)
{
	int d = memcmp(a.p, b.p, MIN(a.n, b.n));

	return d != 0 ? d : (a.n > b.n) - (a.n < b.n);
}

/* To its place by key, unless that is there. */
static void add(struct glob_matches *to, struct glob_match m)
{
	uint32_t at = to->n;
	int d = 1;

	while (at > 0 && (d = compare(m.key, to->v[at - 1].key)) < 0)
		at--;
	if ((at > 0 && d == 0) || to->n == GLOB_MATCHES_MAX)
		return;
	memmove(&to->v[at + 1], &to->v[at], (to->n - at) * sizeof(to->v[0]));
	to->v[at] = m;
	to->n++;
}

static void match(const struct glob_set *g, const struct dimension_plan *p, struct bytes pair,
		  struct glob_matches *to)
{
	struct glob_match m = { .families = 0 };

	any_pair_read(pair, &m.key, &m.any);
	for (uint32_t i = 0; m.key.n > 0 && i < g->n; i++)
		if (glob_fits(g->all[i].pattern, m.key))
			m.families |= g->all[i].families;
	if (m.families != 0 && !is_label(p, m.key))
		add(to, m);
}

void globs_match(const struct glob_set *g, const struct dimension_plan *p, struct bytes message,
		 uint32_t number, struct glob_matches *to)
{
	struct pb_field f = { 0 };

	while (pb_next(&message, &f) > 0)
		if (f.number == number && f.wire == PB_LEN)
			match(g, p, f.data, to);
}

void globs_match_span(const struct glob_set *g, const struct dimension_plan *p,
		      const struct span_ref *sp, struct glob_matches *to)
{
	const struct bytes whole = { sp->p, sp->len };
	const struct bytes *v = sp->pieces != NULL ? sp->pieces : &whole;
	unsigned n = sp->pieces != NULL ? sp->n_pieces : 1;

	for (unsigned i = 0; i < n; i++)
		globs_match(g, p, v[i], 9, to);
}

void globs_merge(struct glob_matches *to, const struct glob_matches *from)
{
	for (uint32_t i = 0; i < from->n; i++)
		add(to, from->v[i]);
}

void globs_put(const struct glob_matches *m, unsigned family, struct buf *key,
	       struct buf *attributes)
{
	struct buf text = BUF_INIT;

	for (uint32_t i = 0; i < m->n; i++) {
		struct any_value value;

		if (!(m->v[i].families >> family & 1))
			continue;
		any_value_read(m->v[i].any, &value);
		buf_reset(&text);
		any_value_text(&value, &text);
		dimensions_key_text(DIMENSION_GLOB, m->v[i].key, key);
		dimensions_key_text(DIMENSION_GLOB, buf_bytes(&text), key);
		any_pair_put(attributes, 7, m->v[i].key, m->v[i].any);
	}
	buf_fini(&text);
}
