/* SPDX-License-Identifier: Apache-2.0
 *
 * blocklist.c - see blocklist.h.
 *
 *   tenants: map name -> {entries: map id -> {block, last poll that saw it}, array of the blocks}
 *
 * A snapshot is a reference to the tenant's array, which is made anew after a change: a look-up
 * pays for one reference, however many blocks there are.
 */
#include "blocks/blocklist.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/map.h"
#include "base/mem.h"
#include "blocks/block.h"

#include <pthread.h>
#include <stdio.h>

enum { POLLS_TO_FORGET = 2 };

/* A meta.json: of a listed block, or one that cannot be read (block NULL). */
struct entry {
	struct listed_block *block;
	uint64_t seen;           /* number of the last poll that saw it */
	bool is_final;           /* unreadable, and will be until the file changes */
	uint64_t size, mtime_ns; /* of the file that was unreadable */
};

/* Immutable, shared by snapshots. */
struct block_array {
	_Atomic uint32_t refs;
	size_t n;
	struct listed_block *v[];
};

struct tenant {
	struct map entries;
	struct block_array *array; /* NULL: to be made */
	size_t n_blocks;
	size_t n_damaged; /* of the last poll */
};

struct blocklist {
	struct backend *be;
	pthread_mutex_t polling; /* one poll at a time */
	pthread_mutex_t lock;
	struct map tenants;
	uint64_t next_number;
	void (*gone)(void *arg, uint64_t number);
	void *gone_arg;
	_Atomic uint64_t polls;
	_Atomic uint64_t begun_ns; /* when the last good poll began; 0: none yet */
	_Atomic size_t n_blocks, n_damaged;
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

static void free_entry(struct entry *e)
{
	block_unref(e->block);
	free(e);
}

static void free_tenant(struct tenant *t)
{
	struct bytes key;
	void *value;
	size_t pos = 0;

	while (map_next(&t->entries, &pos, &key, &value))
		free_entry(value);
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
		free_tenant(value);
	map_fini(&l->tenants);
	pthread_mutex_destroy(&l->polling);
	pthread_mutex_destroy(&l->lock);
	free(l);
}

/* ---- entries; under the lock ---- */

static struct tenant *tenant_of(struct blocklist *l, const char *name)
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

static struct entry *entry_of(struct tenant *t, const char *id)
{
	struct entry *e = map_find(&t->entries, bytes_str(id));

	if (e == NULL) {
		e = xcalloc(1, sizeof(*e));
		map_set(&t->entries, bytes_str(id), e);
	}
	return e;
}

static void set_block(struct blocklist *l, struct tenant *t, struct entry *e,
		      struct listed_block *b)
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

	atomic_init(&b->refs, 1);
	b->list = l;
	b->number = l->next_number++;
	atomic_init(&b->own_ns, 0);
	b->meta = *m;
	return b;
}

static void add_block(struct blocklist *l, const struct block_meta *m, uint64_t poll,
		      uint64_t own_ns)
{
	struct tenant *t;
	struct entry *e;

	pthread_mutex_lock(&l->lock);
	t = tenant_of(l, m->tenant);
	e = entry_of(t, m->id);
	if (e->block == NULL)
		set_block(l, t, e, block_new(l, m));
	if (own_ns > 0)
		atomic_store(&e->block->own_ns, own_ns);
	e->seen = MAX(e->seen, poll);
	pthread_mutex_unlock(&l->lock);
}

void blocklist_add(struct blocklist *l, const struct block_meta *m)
{
	add_block(l, m, l->polls, clock_mono_ns());
}

void blocklist_remove(struct blocklist *l, const struct block_meta *m)
{
	struct tenant *t;
	struct entry *e;

	pthread_mutex_lock(&l->lock);
	t = map_find(&l->tenants, bytes_str(m->tenant));
	e = t != NULL ? map_find(&t->entries, bytes_str(m->id)) : NULL;
	if (e != NULL && e->block != NULL) {
		set_block(l, t, e, NULL);
		map_remove(&t->entries, bytes_str(m->id));
		free_entry(e);
	}
	pthread_mutex_unlock(&l->lock);
}

/* ---- polling ---- */

struct poll {
	struct blocklist *l;
	uint64_t number;
	const char *tenant; /* being listed */
};

/* True when there is nothing to read: the block is listed, or its meta.json is as unreadable as it
 * was. Then it is also marked as seen. */
static bool is_known(struct poll *p, const char *id, const struct backend_entry *file)
{
	struct blocklist *l = p->l;
	struct tenant *t;
	struct entry *e;
	bool known;

	pthread_mutex_lock(&l->lock);
	t = map_find(&l->tenants, bytes_str(p->tenant));
	e = t != NULL ? map_find(&t->entries, bytes_str(id)) : NULL;
	known = e != NULL && (e->block != NULL || (e->is_final && e->size == file->size &&
						   e->mtime_ns == file->mtime_ns));
	if (known)
		e->seen = p->number;
	pthread_mutex_unlock(&l->lock);
	return known;
}

static void note_damaged(struct poll *p, const char *id, const struct backend_entry *file,
			 const struct err *err)
{
	struct blocklist *l = p->l;
	struct tenant *t;
	struct entry *e;
	bool is_news;

	pthread_mutex_lock(&l->lock);
	t = tenant_of(l, p->tenant);
	e = entry_of(t, id);
	is_news = e->seen == 0;
	set_block(l, t, e, NULL);
	e->seen = p->number;
	e->is_final = err->kind == ERR_INVALID;
	e->size = file->size;
	e->mtime_ns = file->mtime_ns;
	pthread_mutex_unlock(&l->lock);
	if (is_news)
		log_warn("meta.json is unreadable, block skipped", "file", file->key, "error",
			 err->msg);
}

/* e: "<tenant>/<id>/meta.json". -1 only when the backend is away. */
static int visit_meta(void *arg, const struct backend_entry *e, struct err *err)
{
	struct poll *p = arg;
	struct err local = ERR_INIT;
	struct block_meta m;
	char id[BACKEND_SEGMENT_MAX + 1];

	snprintf(id, sizeof(id), "%s", e->key + strlen(p->tenant) + 1);
	id[strcspn(id, "/")] = '\0';
	if (is_known(p, id, e))
		return 0;
	if (block_read_meta(p->l->be, p->tenant, id, "meta.json", &m, &local) == 0) {
		add_block(p->l, &m, p->number, 0);
		return 0;
	}
	/* Compacted, or removed since the listing. */
	if (local.kind == ERR_NOT_FOUND)
		return 0;
	if (!local.retryable) {
		note_damaged(p, id, e, &local);
		return 0;
	}
	if (err != NULL)
		*err = local;
	return -1;
}

static int visit_tenant(void *arg, const struct backend_entry *e, struct err *err)
{
	struct poll *p = arg;

	if (!e->is_prefix || block_meta_tenant_check(bytes_str(e->key), NULL) < 0)
		return 0;
	p->tenant = e->key;
	return backend_list_members(p->l->be, e->key, "meta.json", visit_meta, p, err);
}

/* Take out what was not seen: a block after two polls in a row, a damaged meta.json at once. */
static void forget_missing(struct blocklist *l, struct tenant *t, uint64_t poll)
{
	struct bytes key;
	void *value;
	size_t pos = 0;

	t->n_damaged = 0;
	while (map_next(&t->entries, &pos, &key, &value)) {
		struct entry *e = value;
		uint64_t polls = e->block != NULL ? POLLS_TO_FORGET : 1;

		if (e->seen + polls > poll) {
			t->n_damaged += e->block == NULL;
			continue;
		}
		set_block(l, t, e, NULL);
		map_remove(&t->entries, key);
		free_entry(e);
	}
}

static void end_poll(struct blocklist *l, uint64_t poll)
{
	struct bytes key;
	void *value;
	size_t pos = 0, n_damaged = 0;

	pthread_mutex_lock(&l->lock);
	while (map_next(&l->tenants, &pos, &key, &value)) {
		struct tenant *t = value;

		forget_missing(l, t, poll);
		n_damaged += t->n_damaged;
		if (t->n_blocks + t->n_damaged > 0)
			continue;
		map_remove(&l->tenants, key);
		free_tenant(t);
	}
	l->n_damaged = n_damaged;
	l->polls = poll;
	pthread_mutex_unlock(&l->lock);
}

/* Under `polling`. */
static int poll_now(struct blocklist *l, struct err *err)
{
	struct poll p = { .l = l, .number = l->polls + 1 };
	uint64_t begun_ns = clock_mono_ns();

	if (backend_list(l->be, "", BACKEND_ONE_LEVEL, visit_tenant, &p, err) < 0)
		return -1;
	end_poll(l, p.number);
	l->begun_ns = begun_ns;
	return 0;
}

int blocklist_poll(struct blocklist *l, struct err *err)
{
	int ret;

	pthread_mutex_lock(&l->polling);
	ret = poll_now(l, err);
	pthread_mutex_unlock(&l->polling);
	return ret;
}

int blocklist_poll_since(struct blocklist *l, uint64_t since_ns, struct err *err)
{
	int ret = 0;

	if (l->begun_ns >= since_ns)
		return 0;
	pthread_mutex_lock(&l->polling);
	if (l->begun_ns < since_ns)
		ret = poll_now(l, err);
	pthread_mutex_unlock(&l->polling);
	return ret;
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
