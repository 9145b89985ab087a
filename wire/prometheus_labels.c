/* SPDX-License-Identifier: Apache-2.0
 *
 * prometheus_labels.c - see prometheus_labels.h.
 *
 * DESIGN: labels are collected as they come, with a rank by who gave them; _finish sorts by name,
 * rank, key and order, so that those of one name stand together with the winner first. A set has
 * ten to twenty labels: insertion sort; a hostile one with thousands goes through qsort.
 */
#include "wire/prometheus_labels.h"

#include "base/mem.h"
#include "base/str.h"
#include "wire/any_value.h"
#include "wire/otlp_index.h"
#include "wire/pb.h"

#include <stdlib.h>

/* The higher wins. */
enum rank { RANK_EXTERNAL, RANK_ATTRIBUTE, RANK_SCOPE, RANK_TARGET, RANK_OWN };

/* Field numbers of Resource and InstrumentationScope. */
enum { RESOURCE_ATTRIBUTES = 1, SCOPE_NAME = 1, SCOPE_VERSION = 2, SCOPE_ATTRIBUTES = 3 };

enum { INSERTION_MAX = 32 };

static const struct bytes service_name = { (const uint8_t *)"service.name", 12 };
static const struct bytes service_namespace = { (const uint8_t *)"service.namespace", 17 };
static const struct bytes service_instance = { (const uint8_t *)"service.instance.id", 19 };

/* ---- collecting ---- */

static void append(struct prometheus_labels *l, struct bytes name, struct bytes value,
		   struct bytes key, enum rank rank)
{
	if (l->n == l->room) {
		l->room = l->room > 0 ? 2 * l->room : 16;
		l->v = xrealloc(l->v, l->room * sizeof(*l->v));
	}
	l->v[l->n] = (struct prometheus_label){
		.name = name, .value = value, .key = key, .order = l->n, .rank = (uint8_t)rank
	};
	l->n++;
}

static struct bytes keep(struct prometheus_labels *l, struct buf *text)
{
	return (struct bytes){ arena_dup(&l->arena, text->p, text->n), text->n };
}

/* Text that a receiver takes, borrowed when it is that already. */
static struct bytes text_of(struct prometheus_labels *l, struct bytes raw)
{
	if (str_is_utf8(raw))
		return raw;
	buf_reset(&l->text);
	prometheus_put_text(raw, &l->text);
	return keep(l, &l->text);
}

static struct bytes value_of(struct prometheus_labels *l, struct bytes any)
{
	struct any_value v;

	any_value_read(any, &v);
	if (v.kind == ANY_EMPTY || v.kind == ANY_STRING)
		return text_of(l, v.s);
	buf_reset(&l->text);
	any_value_text(&v, &l->text);
	return keep(l, &l->text);
}

/* "" when nothing is left of it. */
static struct bytes name_of(struct prometheus_labels *l, const struct prometheus_naming *n,
			    struct bytes key)
{
	if (prometheus_label_is_name(n, key))
		return key;
	buf_reset(&l->text);
	if (prometheus_label_name(n, key, &l->text) < 0) {
		l->n_nameless++;
		return BYTES_EMPTY;
	}
	return keep(l, &l->text);
}

void prometheus_labels_add_attribute(struct prometheus_labels *l, const struct prometheus_naming *n,
				     struct bytes key, struct bytes any)
{
	struct bytes name = name_of(l, n, key);

	if (name.n > 0)
		append(l, name, value_of(l, any), key, RANK_ATTRIBUTE);
}

void prometheus_labels_add_attributes(struct prometheus_labels *l,
				      const struct prometheus_naming *n, struct bytes message,
				      uint32_t number)
{
	struct pb_field f = { 0 };
	struct bytes key, any;

	while (pb_next(&message, &f) > 0) {
		if (f.number != number || f.wire != PB_LEN)
			continue;
		any_pair_read(f.data, &key, &any);
		prometheus_labels_add_attribute(l, n, key, any);
	}
}

void prometheus_labels_add_target(struct prometheus_labels *l, const struct prometheus_target *t)
{
	append(l, BYTES_LIT("job"), t->job, BYTES_EMPTY, RANK_TARGET);
	append(l, BYTES_LIT("instance"), t->instance, BYTES_EMPTY, RANK_TARGET);
}

static void add_scope_attribute(struct prometheus_labels *l, const struct prometheus_naming *n,
				struct bytes pair)
{
	struct bytes key, any, whole;

	any_pair_read(pair, &key, &any);
	buf_reset(&l->text);
	buf_add_str(&l->text, "otel_scope_");
	buf_add_bytes(&l->text, key);
	whole = keep(l, &l->text);
	append(l, name_of(l, n, whole), value_of(l, any), key, RANK_SCOPE);
}

void prometheus_labels_add_scope(struct prometheus_labels *l, const struct prometheus_naming *n,
				 struct bytes scope, struct bytes schema_url)
{
	struct pb_field f = { 0 };

	append(l, BYTES_LIT("otel_scope_schema_url"), text_of(l, schema_url), BYTES_EMPTY,
	       RANK_TARGET);
	while (pb_next(&scope, &f) > 0) {
		if (f.wire != PB_LEN)
			continue;
		if (f.number == SCOPE_NAME)
			append(l, BYTES_LIT("otel_scope_name"), text_of(l, f.data), BYTES_EMPTY,
			       RANK_TARGET);
		else if (f.number == SCOPE_VERSION)
			append(l, BYTES_LIT("otel_scope_version"), text_of(l, f.data), BYTES_EMPTY,
			       RANK_TARGET);
		else if (f.number == SCOPE_ATTRIBUTES)
			add_scope_attribute(l, n, f.data);
	}
}

void prometheus_labels_add(struct prometheus_labels *l, struct bytes name, struct bytes value)
{
	append(l, name, text_of(l, value), BYTES_EMPTY, RANK_OWN);
}

void prometheus_labels_add_external(struct prometheus_labels *l, struct bytes name,
				    struct bytes value)
{
	append(l, name, text_of(l, value), BYTES_EMPTY, RANK_EXTERNAL);
}

/* ---- the resource ---- */

/* An attribute's text, "" when there is none. */
static struct bytes resource_text(struct bytes resource, struct bytes key, struct arena *arena)
{
	struct buf text = BUF_INIT;
	struct any_value v;
	struct bytes any, s;

	if (!otlp_attribute(resource, RESOURCE_ATTRIBUTES, key, &any))
		return BYTES_EMPTY;
	any_value_read(any, &v);
	if ((v.kind == ANY_STRING || v.kind == ANY_EMPTY) && str_is_utf8(v.s))
		return v.s;
	if (v.kind == ANY_STRING)
		prometheus_put_text(v.s, &text);
	else
		any_value_text(&v, &text);
	s = (struct bytes){ arena_dup(arena, text.p, text.n), text.n };
	buf_fini(&text);
	return s;
}

static struct bytes joined(struct bytes a, char between, struct bytes b, struct arena *arena)
{
	uint8_t *p = arena_alloc(arena, a.n + 1 + b.n);

	if (a.n > 0)
		memcpy(p, a.p, a.n);
	p[a.n] = (uint8_t)between;
	if (b.n > 0)
		memcpy(p + a.n + 1, b.p, b.n);
	return (struct bytes){ p, a.n + 1 + b.n };
}

struct prometheus_target prometheus_target(struct bytes resource, struct arena *arena)
{
	struct bytes name = resource_text(resource, service_name, arena);
	struct bytes space = resource_text(resource, service_namespace, arena);

	if (name.n > 0 && space.n > 0)
		name = joined(space, '/', name, arena);
	return (struct prometheus_target){
		.job = name,
		.instance = resource_text(resource, service_instance, arena),
	};
}

bool prometheus_labels_add_target_info(struct prometheus_labels *l,
				       const struct prometheus_naming *n, struct bytes resource,
				       const struct prometheus_target *t)
{
	struct pb_field f = { 0 };
	struct bytes key, any;
	uint32_t before = l->n;

	if (t->job.n == 0 && t->instance.n == 0)
		return false;
	while (pb_next(&resource, &f) > 0) {
		if (f.number != RESOURCE_ATTRIBUTES || f.wire != PB_LEN)
			continue;
		any_pair_read(f.data, &key, &any);
		if (!bytes_eq(key, service_name) && !bytes_eq(key, service_namespace) &&
		    !bytes_eq(key, service_instance))
			prometheus_labels_add_attribute(l, n, key, any);
	}
	if (l->n == before)
		return false;
	prometheus_labels_add_target(l, t);
	return true;
}

/* ---- settling ---- */

static int compare(struct bytes a, struct bytes b)
{
	size_t n = MIN(a.n, b.n);
	int d = n > 0 ? memcmp(a.p, b.p, n) : 0;

	return d != 0 ? d : (a.n > b.n) - (a.n < b.n);
}

static int compare_labels(const void *va, const void *vb)
{
	const struct prometheus_label *a = va, *b = vb;
	int d = compare(a->name, b->name);

	if (d == 0)
		d = (int)b->rank - (int)a->rank;
	if (d == 0)
		d = compare(a->key, b->key);
	return d != 0 ? d : (a->order > b->order) - (a->order < b->order);
}

static void sort(struct prometheus_label *v, uint32_t n)
{
	if (n > INSERTION_MAX) {
		qsort(v, n, sizeof(*v), compare_labels);
		return;
	}
	for (uint32_t i = 1; i < n; i++) {
		struct prometheus_label it = v[i];
		uint32_t j = i;

		for (; j > 0 && compare_labels(&v[j - 1], &it) > 0; j--)
			v[j] = v[j - 1];
		v[j] = it;
	}
}

/* Is v[i] the last of its key, among n of one name? Of one key given twice the later counts. */
static bool is_last_of_key(const struct prometheus_label *v, uint32_t i, uint32_t n)
{
	return i + 1 == n || v[i + 1].rank != v[i].rank || !bytes_eq(v[i + 1].key, v[i].key);
}

/* The label that v[0..n), which have one name, come to. Where several attributes became one name,
 * their values are joined. */
static struct prometheus_label winner(struct prometheus_labels *l, const struct prometheus_label *v,
				      uint32_t n)
{
	struct prometheus_label won = v[0];
	uint32_t n_values = 0;

	for (uint32_t i = 0; i < n && v[i].rank == v[0].rank; i++) {
		if (!is_last_of_key(v, i, n))
			continue;
		if (n_values == 1) {
			buf_reset(&l->text);
			buf_add_bytes(&l->text, won.value);
		}
		if (n_values++ == 0) {
			won = v[i];
			continue;
		}
		buf_add_char(&l->text, ';');
		buf_add_bytes(&l->text, v[i].value);
	}
	if (n_values > 1)
		won.value = keep(l, &l->text);
	return won;
}

void prometheus_labels_finish(struct prometheus_labels *l)
{
	uint32_t kept = 0, end;

	sort(l->v, l->n);
	for (uint32_t i = 0; i < l->n; i = end) {
		struct prometheus_label won;

		for (end = i + 1; end < l->n && bytes_eq(l->v[i].name, l->v[end].name);)
			end++;
		won = winner(l, l->v + i, end - i);
		if (won.name.n > 0 && won.value.n > 0)
			l->v[kept++] = won;
	}
	l->n = kept;
}

/* ---- a finished set ---- */

/* Where `name` is, or where it would stand. */
static uint32_t place_of(const struct prometheus_labels *l, struct bytes name, bool *is_there)
{
	uint32_t lo = 0, hi = l->n;

	while (lo < hi) {
		uint32_t mid = lo + (hi - lo) / 2;
		int d = compare(l->v[mid].name, name);

		if (d == 0) {
			*is_there = true;
			return mid;
		}
		if (d < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	*is_there = false;
	return lo;
}

void prometheus_labels_put(struct prometheus_labels *l, struct bytes name, struct bytes value)
{
	bool is_there;
	uint32_t i = place_of(l, name, &is_there);

	if (is_there && value.n > 0) {
		l->v[i].value = value;
		return;
	}
	if (is_there) {
		memmove(l->v + i, l->v + i + 1, (l->n - i - 1) * sizeof(*l->v));
		l->n--;
		return;
	}
	if (value.n == 0)
		return;
	append(l, name, value, BYTES_EMPTY, RANK_OWN);
	memmove(l->v + i + 1, l->v + i, (l->n - 1 - i) * sizeof(*l->v));
	l->v[i] = (struct prometheus_label){ .name = name, .value = value, .rank = RANK_OWN };
}

struct bytes prometheus_labels_find(const struct prometheus_labels *l, struct bytes name)
{
	bool is_there;
	uint32_t i = place_of(l, name, &is_there);

	return is_there ? l->v[i].value : BYTES_EMPTY;
}

/* ---- life ---- */

void prometheus_labels_reset(struct prometheus_labels *l)
{
	l->n = 0;
	arena_reset(&l->arena);
}

void prometheus_labels_fini(struct prometheus_labels *l)
{
	free(l->v);
	arena_fini(&l->arena);
	buf_fini(&l->text);
	*l = (struct prometheus_labels)PROMETHEUS_LABELS_INIT;
}
