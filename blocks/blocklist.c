/* SPDX-License-Identifier: Apache-2.0
 *
 * blocklist.c - see blocklist.h.
 *
 *   entries: map "<tenant>/<id>" -> {block, last poll that saw it}; a snapshot walks it.
 */
#include "blocks/blocklist.h"

#include "base/log.h"
#include "base/map.h"
#include "base/mem.h"
#include "blocks/block.h"

#include <pthread.h>
#include <stdio.h>

enum { POLLS_TO_FORGET = 2 };

struct entry {
	struct listed_block *block;
	uint64_t seen;	/* number of the last poll that saw its meta.json */
};

struct blocklist {
	struct backend *be;
	pthread_mutex_t polling;	/* one poll at a time */
	pthread_mutex_t lock;
	struct map entries;
	struct map damaged;		/* tenant -> struct count, of the last poll */
	_Atomic uint64_t polls;
	_Atomic size_t n_damaged;
};

struct count {
	size_t n;
};

struct blocklist *blocklist_new(struct backend *be)
{
	struct blocklist *l = xcalloc(1, sizeof(*l));

	l->be = be;
	pthread_mutex_init(&l->polling, NULL);
	pthread_mutex_init(&l->lock, NULL);
	return l;
}

static void block_unref(struct listed_block *b)
{
	if (atomic_fetch_sub(&b->refs, 1) == 1)
		free(b);
}

static void free_counts(struct map *counts)
{
	struct bytes key;
	void *value;
	size_t pos = 0;

	while (map_next(counts, &pos, &key, &value))
		free(value);
	map_fini(counts);
}

void blocklist_free(struct blocklist *l)
{
	struct bytes key;
	void *value;
	size_t pos = 0;

	if (l == NULL)
		return;
	while (map_next(&l->entries, &pos, &key, &value)) {
		block_unref(((struct entry *)value)->block);
		free(value);
	}
	map_fini(&l->entries);
	free_counts(&l->damaged);
	pthread_mutex_destroy(&l->polling);
	pthread_mutex_destroy(&l->lock);
	free(l);
}

static void key_of(char out[256], const char *tenant, const char *id)
{
	snprintf(out, 256, "%s/%s", tenant, id);
}

/* True when the block is listed; then also mark it as seen by this poll (0: do not). */
static bool is_listed(struct blocklist *l, const char *key, uint64_t poll)
{
	struct entry *e;

	pthread_mutex_lock(&l->lock);
	e = map_find(&l->entries, bytes_str(key));
	if (e != NULL && poll > 0)
		e->seen = poll;
	pthread_mutex_unlock(&l->lock);
	return e != NULL;
}

static void add_block(struct blocklist *l, const struct block_meta *m, uint64_t poll)
{
	struct entry *e = xcalloc(1, sizeof(*e)), *old;
	char key[256];

	e->block = xmalloc(sizeof(*e->block));
	atomic_init(&e->block->refs, 1);
	e->block->meta = *m;
	e->seen = poll;
	key_of(key, m->tenant, m->id);
	pthread_mutex_lock(&l->lock);
	old = map_set(&l->entries, bytes_str(key), e);
	pthread_mutex_unlock(&l->lock);
	if (old != NULL) {
		block_unref(old->block);
		free(old);
	}
}

void blocklist_add(struct blocklist *l, const struct block_meta *m)
{
	add_block(l, m, l->polls);
}

struct poll {
	struct blocklist *l;
	uint64_t number;
	const char *tenant;	/* being listed */
	struct map damaged;	/* tenant -> struct count */
	size_t n_damaged;
};

static void note_damaged(struct poll *p, const char *folder, const struct err *err)
{
	struct count *c = map_find(&p->damaged, bytes_str(p->tenant));

	if (c == NULL) {
		c = xcalloc(1, sizeof(*c));
		map_set(&p->damaged, bytes_str(p->tenant), c);
	}
	c->n++;
	p->n_damaged++;
	log_warn("meta.json is unreadable, block skipped", "block", folder, "error", err->msg);
}

/* folder: "<tenant>/<id>". -1 only when the backend is away. */
static int read_meta(struct poll *p, const char *folder, struct err *err)
{
	struct block_meta m;
	struct err local = ERR_INIT;

	if (block_read_meta(p->l->be, p->tenant, strrchr(folder, '/') + 1, "meta.json", &m,
			    &local) == 0) {
		add_block(p->l, &m, p->number);
		return 0;
	}
	/* Not published yet, or compacted, or removed since the listing. */
	if (local.kind == ERR_NOT_FOUND)
		return 0;
	if (!local.retryable) {
		note_damaged(p, folder, &local);
		return 0;
	}
	if (err != NULL)
		*err = local;
	return -1;
}

static int visit_block(void *arg, const struct backend_entry *e, struct err *err)
{
	struct poll *p = arg;
	char key[BACKEND_KEY_MAX + 1];
	struct err local = ERR_INIT;
	uint64_t size;

	if (!e->is_prefix || backend_key(key, NULL, "%s/meta.json", e->key) < 0)
		return 0;
	/* A listed block costs one look whether its meta.json is still there, not a read. */
	if (is_listed(p->l, e->key, 0) &&
	    (backend_size(p->l->be, key, &size, &local) == 0 || local.kind != ERR_NOT_FOUND)) {
		is_listed(p->l, e->key, p->number);
		return 0;
	}
	return read_meta(p, e->key, err);
}

static int visit_tenant(void *arg, const struct backend_entry *e, struct err *err)
{
	struct poll *p = arg;

	if (!e->is_prefix || block_meta_tenant_check(bytes_str(e->key), NULL) < 0)
		return 0;
	p->tenant = e->key;
	return backend_list(p->l->be, e->key, BACKEND_ONE_LEVEL, visit_block, p, err);
}

/* Take out what two polls in a row did not see. */
static void forget_missing(struct blocklist *l, uint64_t poll)
{
	struct bytes key;
	void *value;
	size_t pos = 0;

	pthread_mutex_lock(&l->lock);
	while (map_next(&l->entries, &pos, &key, &value)) {
		struct entry *e = value;

		if (e->seen + POLLS_TO_FORGET > poll)
			continue;
		map_remove(&l->entries, key);
		block_unref(e->block);
		free(e);
	}
	pthread_mutex_unlock(&l->lock);
}

int blocklist_poll(struct blocklist *l, struct err *err)
{
	struct poll p = { .l = l };
	struct map old;
	int ret;

	pthread_mutex_lock(&l->polling);
	p.number = l->polls + 1;
	ret = backend_list(l->be, "", BACKEND_ONE_LEVEL, visit_tenant, &p, err);
	if (ret == 0) {
		pthread_mutex_lock(&l->lock);
		old = l->damaged;
		l->damaged = p.damaged;
		p.damaged = old;
		pthread_mutex_unlock(&l->lock);
		l->polls = p.number;
		l->n_damaged = p.n_damaged;
		forget_missing(l, p.number);
	}
	free_counts(&p.damaged);
	pthread_mutex_unlock(&l->polling);
	return ret;
}

void blocklist_snapshot(struct blocklist *l, const char *tenant, struct blocklist_snapshot *out)
{
	const struct count *damaged;
	size_t pos = 0, cap = 0;
	struct bytes key;
	void *value;

	*out = (struct blocklist_snapshot){ NULL, 0, 0 };
	pthread_mutex_lock(&l->lock);
	damaged = map_find(&l->damaged, bytes_str(tenant));
	out->n_damaged = damaged != NULL ? damaged->n : 0;
	while (map_next(&l->entries, &pos, &key, &value)) {
		struct listed_block *b = ((struct entry *)value)->block;

		if (strcmp(b->meta.tenant, tenant) != 0)
			continue;
		out->v = xgrow(out->v, &cap, out->n + 1, sizeof(*out->v));
		out->v[out->n++] = b;
		atomic_fetch_add(&b->refs, 1);
	}
	pthread_mutex_unlock(&l->lock);
}

void blocklist_snapshot_fini(struct blocklist_snapshot *s)
{
	for (size_t i = 0; i < s->n; i++)
		block_unref(s->v[i]);
	free(s->v);
	*s = (struct blocklist_snapshot){ NULL, 0, 0 };
}

size_t blocklist_count(struct blocklist *l)
{
	size_t n;

	pthread_mutex_lock(&l->lock);
	n = l->entries.n;
	pthread_mutex_unlock(&l->lock);
	return n;
}

size_t blocklist_damaged(struct blocklist *l)
{
	return l->n_damaged;
}
