/* SPDX-License-Identifier: Apache-2.0
 *
 * blocklist.c - see blocklist.h.
 *
 *   tenants: map name -> {entries: map id -> {block, last poll that saw it}, array of the blocks}
 *
 * A snapshot is a reference to the tenant's array, which is made anew after a change: a look-up
 * pays for one reference, however many blocks there are.
 */
#include "blocks/blocklist_private.h"

#include "base/clock.h"
#include "base/mem.h"

enum {
	/* What an entry takes beside itself: its key and slot in the map. */
	ENTRY_COST = sizeof(struct entry) + 128,
	BLOCK_COST = sizeof(struct listed_block) + 32,
};

struct blocklist *blocklist_new(struct backend *be)
{
	struct blocklist *l = xcalloc(1, sizeof(*l));

	l->be = be;
	l->next_number = 1;
	pthread_mutex_init(&l->polling, NULL);
	pthread_mutex_init(&l->lock, NULL);
	return l;
}

void blocklist_charge(struct blocklist *l, struct budget *budget)
{
	l->budget = budget;
}

void blocklist_on_gone(struct blocklist *l, void (*fn)(void *arg, uint64_t number), void *arg)
{
	l->gone = fn;
	l->gone_arg = arg;
}

static void block_unref(struct listed_block *b)
{
	if (b == NULL || atomic_fetch_sub(&b->refs, 1) != 1)
		return;
	if (b->list->gone != NULL)
		b->list->gone(b->list->gone_arg, b->number);
	budget_release(b->list->budget, BLOCK_COST);
	free(b);
}

static void array_unref(struct block_array *a)
{
	if (a == NULL || atomic_fetch_sub(&a->refs, 1) != 1)
		return;
	for (size_t i = 0; i < a->n; i++)
		block_unref(a->v[i]);
	free(a);
}

void blocklist_free_entry(struct blocklist *l, struct entry *e)
{
	block_unref(e->block);
	budget_release(l->budget, ENTRY_COST);
	free(e);
}

void blocklist_free_tenant(struct blocklist *l, struct tenant *t)
{
	struct bytes key;
	void *value;
	size_t pos = 0;

	while (map_next(&t->entries, &pos, &key, &value))
		blocklist_free_entry(l, value);
	map_fini(&t->entries);
	array_unref(t->array);
	free(t);
}

void blocklist_free(struct blocklist *l)
{
	struct bytes key;
	void *value;
	size_t pos = 0;

	if (l == NULL)
		return;
	l->gone = NULL;
	while (map_next(&l->tenants, &pos, &key, &value))
		blocklist_free_tenant(l, value);
	map_fini(&l->tenants);
	pthread_mutex_destroy(&l->polling);
	pthread_mutex_destroy(&l->lock);
	free(l);
}

/* ---- entries; under the lock ---- */

struct tenant *blocklist_tenant(struct blocklist *l, const char *name)
{
	struct tenant *t = map_find(&l->tenants, bytes_str(name));

	if (t == NULL) {
		t = xcalloc(1, sizeof(*t));
		map_set(&l->tenants, bytes_str(name), t);
	}
	return t;
}

static void changed(struct tenant *t)
{
	array_unref(t->array);
	t->array = NULL;
}

struct entry *blocklist_entry(struct blocklist *l, struct tenant *t, const char *id)
{
	struct entry *e = map_find(&t->entries, bytes_str(id));

	if (e == NULL) {
		budget_force(l->budget, ENTRY_COST);
		e = xcalloc(1, sizeof(*e));
		map_set(&t->entries, bytes_str(id), e);
	}
	return e;
}

void blocklist_set(struct blocklist *l, struct tenant *t, struct entry *e, struct listed_block *b)
{
	size_t before = e->block != NULL, now = b != NULL;

	if (before + now > 0)
		changed(t);
	block_unref(e->block);
	e->block = b;
	t->n_blocks += now - before;
	l->n_blocks += now - before;
}

static struct listed_block *block_new(struct blocklist *l, const struct block_meta *m)
{
	struct listed_block *b = xmalloc(sizeof(*b));

	budget_force(l->budget, BLOCK_COST);
	atomic_init(&b->refs, 1);
	b->list = l;
	b->number = l->next_number++;
	atomic_init(&b->own_ns, 0);
	b->meta = *m;
	return b;
}

struct entry *blocklist_put(struct blocklist *l, struct tenant *t, const struct block_meta *m,
			    uint64_t poll)
{
	struct entry *e = blocklist_entry(l, t, m->id);

	/* Once compacted it does not come back. */
	if (e->state != ENTRY_COMPACTED) {
		if (e->block == NULL)
			blocklist_set(l, t, e, block_new(l, m));
		e->state = ENTRY_LISTED;
	}
	e->seen = MAX(e->seen, poll);
	return e;
}

static void add_own(struct blocklist *l, const struct block_meta *m, bool is_published)
{
	struct tenant *t;
	struct entry *e;

	pthread_mutex_lock(&l->lock);
	t = blocklist_tenant(l, m->tenant);
	e = blocklist_put(l, t, m, is_published ? t->polls : BLOCKLIST_AWAITED);
	if (e->block != NULL)
		atomic_store(&e->block->own_ns, clock_mono_ns());
	pthread_mutex_unlock(&l->lock);
}

void blocklist_add(struct blocklist *l, const struct block_meta *m)
{
	add_own(l, m, true);
}

void blocklist_add_committed(struct blocklist *l, const struct block_meta *m)
{
	add_own(l, m, false);
}

void blocklist_remove(struct blocklist *l, const struct block_meta *m)
{
	struct tenant *t;
	struct entry *e;

	pthread_mutex_lock(&l->lock);
	t = map_find(&l->tenants, bytes_str(m->tenant));
	e = t != NULL ? map_find(&t->entries, bytes_str(m->id)) : NULL;
	if (e != NULL && e->block != NULL) {
		blocklist_set(l, t, e, NULL);
		map_remove(&t->entries, bytes_str(m->id));
		blocklist_free_entry(l, e);
	}
	pthread_mutex_unlock(&l->lock);
}

/* ---- snapshots ---- */

static int by_id(const void *a, const void *b)
{
	return strcmp((*(struct listed_block *const *)a)->meta.id,
		      (*(struct listed_block *const *)b)->meta.id);
}

/* In the order of their ids, so that equal lists give equal answers. */
static struct block_array *make_array(const struct tenant *t)
{
	struct block_array *a = xmalloc(sizeof(*a) + t->n_blocks * sizeof(a->v[0]));
	struct bytes key;
	void *value;
	size_t pos = 0;

	atomic_init(&a->refs, 1);
	a->n = 0;
	while (map_next(&t->entries, &pos, &key, &value)) {
		struct listed_block *b = ((struct entry *)value)->block;

		if (b == NULL)
			continue;
		atomic_fetch_add(&b->refs, 1);
		a->v[a->n++] = b;
	}
	assert(a->n == t->n_blocks);
	qsort(a->v, a->n, sizeof(a->v[0]), by_id);
	return a;
}

void blocklist_snapshot(struct blocklist *l, const char *tenant, struct blocklist_snapshot *out)
{
	struct tenant *t;

	*out = (struct blocklist_snapshot){ .v = NULL };
	pthread_mutex_lock(&l->lock);
	t = map_find(&l->tenants, bytes_str(tenant));
	if (t != NULL) {
		if (t->array == NULL)
			t->array = make_array(t);
		atomic_fetch_add(&t->array->refs, 1);
		out->array = t->array;
		out->v = t->array->v;
		out->n = t->array->n;
		out->n_damaged = t->n_damaged;
	}
	pthread_mutex_unlock(&l->lock);
}

void blocklist_snapshot_fini(struct blocklist_snapshot *s)
{
	array_unref(s->array);
	*s = (struct blocklist_snapshot){ .v = NULL };
}

size_t blocklist_count(struct blocklist *l)
{
	return l->n_blocks;
}

size_t blocklist_damaged(struct blocklist *l)
{
	return l->n_damaged;
}
