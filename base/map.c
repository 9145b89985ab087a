/* SPDX-License-Identifier: Apache-2.0
 *
 * map.c - see map.h. A deleted slot keeps a tombstone (key NULL, hash 1) until the next growth.
 */
#include "base/map.h"

#include "base/hash.h"
#include "base/mem.h"

struct map_entry {
	uint64_t hash;	/* 0 = never used, 1 = deleted */
	uint8_t *key;
	size_t key_len;
	void *value;
};

enum { EMPTY = 0, DELETED = 1, FIRST_HASH = 2 };

static uint64_t key_hash(struct bytes key)
{
	uint64_t h = hash_xxh3(key.p, key.n);

	return h < FIRST_HASH ? h + FIRST_HASH : h;
}

static struct map_entry *find_slot(const struct map *m, struct bytes key, uint64_t hash)
{
	if (m->cap == 0)
		return NULL;
	for (size_t i = hash & (m->cap - 1);; i = (i + 1) & (m->cap - 1)) {
		struct map_entry *e = &m->slots[i];

		if (e->hash == EMPTY)
			return NULL;
		if (e->hash == hash && bytes_eq((struct bytes){ e->key, e->key_len }, key))
			return e;
	}
}

static void insert_moved(struct map *m, struct map_entry moved)
{
	size_t i = moved.hash & (m->cap - 1);

	while (m->slots[i].hash != EMPTY)
		i = (i + 1) & (m->cap - 1);
	m->slots[i] = moved;
}

static void rehash(struct map *m)
{
	struct map old = *m;

	m->cap = 16;
	while (m->cap < old.n * 2)
		m->cap *= 2;
	m->slots = xcalloc(m->cap, sizeof(*m->slots));
	m->used = m->n;
	for (size_t i = 0; i < old.cap; i++)
		if (old.slots[i].hash >= FIRST_HASH)
			insert_moved(m, old.slots[i]);
	free(old.slots);
}

void *map_find(const struct map *m, struct bytes key)
{
	struct map_entry *e = find_slot(m, key, key_hash(key));

	return e ? e->value : NULL;
}

static uint8_t *copy_key(struct bytes key)
{
	uint8_t *copy = xmalloc(key.n);

	if (key.n)
		memcpy(copy, key.p, key.n);
	return copy;
}

void *map_set(struct map *m, struct bytes key, void *value)
{
	uint64_t hash = key_hash(key);
	struct map_entry *e = find_slot(m, key, hash);
	void *old;

	assert(value != NULL);
	if (e != NULL) {
		old = e->value;
		e->value = value;
		return old;
	}
	if ((m->used + 1) * 4 > m->cap * 3)
		rehash(m);
	insert_moved(m, (struct map_entry){ hash, copy_key(key), key.n, value });
	m->n++;
	m->used++;
	return NULL;
}

void *map_remove(struct map *m, struct bytes key)
{
	struct map_entry *e = find_slot(m, key, key_hash(key));
	void *old;

	if (e == NULL)
		return NULL;
	old = e->value;
	free(e->key);
	*e = (struct map_entry){ .hash = DELETED };
	m->n--;
	return old;
}

int map_next(const struct map *m, size_t *pos, struct bytes *key, void **value)
{
	while (*pos < m->cap) {
		struct map_entry *e = &m->slots[(*pos)++];

		if (e->hash < FIRST_HASH)
			continue;
		*key = (struct bytes){ e->key, e->key_len };
		*value = e->value;
		return 1;
	}
	return 0;
}

void map_fini(struct map *m)
{
	for (size_t i = 0; i < m->cap; i++)
		if (m->slots[i].hash >= FIRST_HASH)
			free(m->slots[i].key);
	free(m->slots);
	*m = (struct map)MAP_INIT;
}
