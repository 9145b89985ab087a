/* SPDX-License-Identifier: Apache-2.0
 *
 * map.h - a hash map from a run of bytes to a pointer, for tables that are not on the per-span
 * path.
 *
 * Open addressing, linear probing, grows at 3/4. Keys are copied, values are the caller's. One
 * thread at a time.
 */
#ifndef BASE_MAP_H
#define BASE_MAP_H

#include "base/base.h"

struct map_entry;

struct map {
	struct map_entry *slots;
	size_t n;    /* live entries */
	size_t used; /* live and deleted slots */
	size_t cap;  /* power of two, or 0 */
};

#define MAP_INIT                                                                                   \
	{                                                                                          \
		NULL, 0, 0, 0                                                                      \
	}

/* The value, or NULL. */
void *map_find(const struct map *m, struct bytes key);
/* Insert or replace; returns the value that was there, or NULL. `value` must not be NULL. */
void *map_set(struct map *m, struct bytes key, void *value);
/* Remove; returns the value that was there, or NULL. */
void *map_remove(struct map *m, struct bytes key);
/* Walk: start with *pos = 0. 1 and key/value, or 0 at the end. Order is unspecified; only
 * map_remove of the current key is allowed meanwhile. */
int map_next(const struct map *m, size_t *pos, struct bytes *key, void **value);
/* Frees the table and keys, not the values. */
void map_fini(struct map *m);

#endif
