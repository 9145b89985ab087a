/* SPDX-License-Identifier: Apache-2.0
 *
 * arena.h - a bump allocator: many small allocations, one free.
 *
 *   [chunk 0: used|....] -> [chunk 1: used.......|..]     chunks double from 4 KiB to 256 KiB
 *
 * arena_reset keeps the largest chunk, so scratch arenas stop allocating once warm. One thread at a
 * time.
 */
#ifndef BASE_ARENA_H
#define BASE_ARENA_H

#include "base/base.h"
#include "base/meter.h"

struct arena_chunk;

struct arena {
	struct arena_chunk *head; /* the chunk being filled; older ones hang off it */
	size_t bytes;             /* total size of all chunks: what the arena retains */
	struct meter *meter;      /* hears of each chunk, forced; NULL: nobody. Not of resets */
};

#define ARENA_INIT                                                                                 \
	{                                                                                          \
		NULL, 0, NULL                                                                      \
	}

/* 16-byte aligned, uninitialised; n = 0 gives a valid pointer. Never NULL. */
void *arena_alloc(struct arena *a, size_t n);
void *arena_zalloc(struct arena *a, size_t n);
void *arena_dup(struct arena *a, const void *p, size_t n);
char *arena_strdup(struct arena *a, const char *s);
char *arena_strndup(struct arena *a, const char *s, size_t n);
char *arena_printf(struct arena *a, const char *fmt, ...) PRINTF_LIKE(2, 3);
void arena_reset(struct arena *a);
/* Free everything; a zeroed arena is fine. */
void arena_fini(struct arena *a);

#endif
