/* SPDX-License-Identifier: Apache-2.0
 *
 * family.c - see family.h.
 */
#include "exporters/prometheus/family.h"

#include "base/mem.h"
#include "exporters/prometheus/number.h"

#include <stdlib.h>

/* ---- layouts ---- */

size_t layout_bytes(uint32_t n)
{
	return sizeof(struct layout) +
	       n * (sizeof(double) + BOUND_TEXTS * (sizeof(char *) + NUMBER_BOUND_MAX));
}

struct layout *layout_new(const double *bounds, uint32_t n)
{
	struct layout *l = xcalloc(1, layout_bytes(n));
	double *copy = (double *)(void *)(l + 1);
	const char **le = (const char **)(void *)(copy + n);
	char *text = (char *)(le + (size_t)BOUND_TEXTS * n);

	l->refs = 1;
	l->n = n;
	l->bounds = copy;
	for (uint32_t i = 0; i < n; i++) {
		copy[i] = bounds[i];
		l->has_negative |= bounds[i] < 0;
	}
	for (unsigned open = 0; open < BOUND_TEXTS; open++) {
		l->le[open] = le + (size_t)open * n;
		for (uint32_t i = 0; i < n; i++, text += NUMBER_BOUND_MAX) {
			le[(size_t)open * n + i] = text;
			number_bound(bounds[i], open != 0, text);
		}
	}
	return l;
}

struct layout *layout_ref(struct layout *l)
{
	atomic_fetch_add(&l->refs, 1);
	return l;
}

void layout_unref(struct layout *l)
{
	if (l != NULL && atomic_fetch_sub(&l->refs, 1) == 1)
		free(l);
}

bool layout_is(const struct layout *l, const double *bounds, uint32_t n)
{
	return l != NULL && l->n == n &&
	       (n == 0 || memcmp(l->bounds, bounds, n * sizeof(*bounds)) == 0);
}

struct layout *family_layout(struct family *f, const double *bounds, uint32_t n)
{
	struct layout *l;

	pthread_mutex_lock(&f->lock);
	if (!layout_is(f->latest, bounds, n)) {
		layout_unref(f->latest);
		f->latest = layout_new(bounds, n);
	}
	l = layout_ref(f->latest);
	pthread_mutex_unlock(&f->lock);
	return l;
}

/* ---- names ---- */

static bool ends_with(struct bytes s, struct bytes end)
{
	return end.n > 0 && s.n > end.n && memcmp(s.p + s.n - end.n, end.p, end.n) == 0;
}

static struct bytes without(struct bytes s, struct bytes end)
{
	return ends_with(s, end) ? (struct bytes){ s.p, s.n - end.n } : s;
}

static struct bytes suffix_of(enum family_kind kind)
{
	if (kind == FAMILY_COUNTER)
		return BYTES_LIT("_total");
	return kind == FAMILY_INFO ? BYTES_LIT("_info") : BYTES_EMPTY;
}

static struct bytes dup_bytes(struct bytes s)
{
	return (struct bytes){ (const uint8_t *)xstrndup(s.n > 0 ? (const char *)s.p : "", s.n),
			       s.n };
}

static bool is_legal(uint8_t c, bool is_first)
{
	return (c | 0x20) >= 'a' ? (c | 0x20) <= 'z' || c == '_'
				 : c == ':' || c == '_' || (!is_first && c >= '0' && c <= '9');
}

static struct bytes escape(struct bytes name)
{
	uint8_t *to = xmalloc(name.n + 2);
	size_t n = 0;

	for (size_t i = 0; i < name.n; i++)
		to[n++] = is_legal(name.p[i], i == 0) ? name.p[i] : '_';
	to[n] = '\0';
	return (struct bytes){ to, n };
}

/* The suffixes that samples of a family may have; "" is the family itself. */
static const char *const *suffixes(enum family_kind kind)
{
	static const char *const gauge[] = { "", NULL };
	static const char *const counter[] = { "", "_total", "_created", NULL };
	static const char *const histogram[] = {
		"", "_bucket", "_sum", "_count", "_created", NULL
	};
	static const char *const summary[] = { "", "_sum", "_count", "_created", NULL };
	static const char *const info[] = { "", "_info", NULL };
	static const char *const *const all[] = { [FAMILY_GAUGE] = gauge,
						  [FAMILY_COUNTER] = counter,
						  [FAMILY_HISTOGRAM] = histogram,
						  [FAMILY_SUMMARY] = summary,
						  [FAMILY_INFO] = info };

	return all[kind];
}

/* Calls fn for every name; stops at the first that gives something. */
static const struct family *each_name(struct family_table *t, struct family *f,
				      const struct family *(*fn)(struct family_table *,
								 struct family *, struct bytes))
{
	const struct family *found = NULL;
	struct buf name = BUF_INIT;

	for (const char *const *s = suffixes(f->kind); *s != NULL && found == NULL; s++) {
		buf_reset(&name);
		buf_add_bytes(&name, f->escaped_base);
		buf_add_str(&name, *s);
		found = fn(t, f, buf_bytes(&name));
	}
	buf_fini(&name);
	return found;
}

static const struct family *find_taken(struct family_table *t, struct family *f, struct bytes name)
{
	(void)f;
	return map_find(&t->taken, name);
}

static const struct family *take_name(struct family_table *t, struct family *f, struct bytes name)
{
	map_set(&t->taken, name, f);
	return NULL;
}

static const struct family *give_name(struct family_table *t, struct family *f, struct bytes name)
{
	(void)f;
	map_remove(&t->taken, name);
	return NULL;
}

/* ---- families ---- */

static void family_free(struct family *f)
{
	if (f->escaped.p != f->name.p)
		free((void *)(uintptr_t)f->escaped.p);
	free((void *)(uintptr_t)f->name.p);
	free((void *)(uintptr_t)f->help.p);
	free((void *)(uintptr_t)f->unit.p);
	for (unsigned i = 0; i < STORE_SHARDS; i++)
		free(f->members[i].v);
	layout_unref(f->latest);
	pthread_mutex_destroy(&f->lock);
	free(f);
}

static size_t family_bytes(const struct family *f)
{
	return sizeof(*f) + 8 * f->name.n + f->help.n + 512;
}

static struct family *family_new(const struct family_head *head)
{
	struct family *f = xcalloc(1, sizeof(*f));
	struct buf tail = BUF_INIT;

	f->kind = head->kind;
	pthread_mutex_init(&f->lock, NULL);
	f->name = dup_bytes(head->name);
	f->base = without(f->name, suffix_of(head->kind));
	f->escaped = escape(head->name);
	if (bytes_eq(f->escaped, f->name)) {
		free((void *)(uintptr_t)f->escaped.p);
		f->escaped = f->name;
	}
	f->escaped_base = (struct bytes){ f->escaped.p, f->base.n };
	f->help = dup_bytes(head->help);
	buf_add_char(&tail, '_');
	buf_add_bytes(&tail, head->unit);
	if (head->unit.n > 0 && ends_with(f->base, buf_bytes(&tail)))
		f->unit = dup_bytes(head->unit);
	buf_fini(&tail);
	return f;
}

void family_table_init(struct family_table *f, struct budget *budget)
{
	pthread_mutex_init(&f->lock, NULL);
	f->budget = budget;
}

/* Under the lock. NULL: another has one of its names. */
static struct family *make_family(struct family_table *t, const struct family_head *head,
				  const struct family **other)
{
	struct family *f = family_new(head);

	*other = each_name(t, f, find_taken);
	if (*other != NULL) {
		family_free(f);
		return NULL;
	}
	map_set(&t->by_name, f->name, f);
	each_name(t, f, take_name);
	atomic_fetch_add(&t->bytes, family_bytes(f));
	budget_force(t->budget, family_bytes(f));
	return f;
}

struct family *family_table_find(struct family_table *t, const struct family_head *head,
				 bool may_make, const struct family **other)
{
	struct family *f;

	pthread_mutex_lock(&t->lock);
	f = map_find(&t->by_name, head->name);
	*other = f;
	if (f == NULL && may_make)
		f = make_family(t, head, other);
	else if (f != NULL && f->kind != head->kind)
		f = NULL;
	pthread_mutex_unlock(&t->lock);
	return f;
}

static void remove_family(struct family_table *t, struct family *f)
{
	map_remove(&t->by_name, f->name);
	each_name(t, f, give_name);
	atomic_fetch_sub(&t->bytes, family_bytes(f));
	budget_release(t->budget, family_bytes(f));
	family_free(f);
}

void family_table_sweep(struct family_table *t)
{
	size_t pos = 0;
	struct bytes name;
	void *value;

	pthread_mutex_lock(&t->lock);
	while (map_next(&t->by_name, &pos, &name, &value) > 0) {
		struct family *f = value;

		if (atomic_load(&f->n_series) == 0)
			remove_family(t, f);
	}
	pthread_mutex_unlock(&t->lock);
}

static int compare_names(const void *a, const void *b)
{
	const struct family *x = *(struct family *const *)a, *y = *(struct family *const *)b;
	int d = memcmp(x->name.p, y->name.p, MIN(x->name.n, y->name.n));

	return d != 0 ? d : (x->name.n > y->name.n) - (x->name.n < y->name.n);
}

struct family **family_table_list(struct family_table *t, size_t *n)
{
	struct family **v;
	size_t pos = 0;
	struct bytes name;
	void *value;

	pthread_mutex_lock(&t->lock);
	v = xmalloc((t->by_name.n + 1) * sizeof(*v));
	for (*n = 0; map_next(&t->by_name, &pos, &name, &value) > 0; (*n)++)
		v[*n] = value;
	pthread_mutex_unlock(&t->lock);
	qsort(v, *n, sizeof(*v), compare_names);
	return v;
}

void family_table_fini(struct family_table *t)
{
	family_table_sweep(t);
	map_fini(&t->by_name);
	map_fini(&t->taken);
	pthread_mutex_destroy(&t->lock);
}
