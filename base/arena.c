/* SPDX-License-Identifier: Apache-2.0
 *
 * arena.c - see arena.h.
 */
#include "base/arena.h"

#include "base/mem.h"

#include <stdarg.h>
#include <stdio.h>

enum { FIRST_CHUNK = 4096, LAST_CHUNK = 262144, ALIGN = 16 };

struct arena_chunk {
	struct arena_chunk *older;
	size_t size; /* of data[] */
	size_t used;
	_Alignas(ALIGN) uint8_t data[];
};

static void add_chunk(struct arena *a, size_t n)
{
	size_t size = a->head ? a->head->size * 2 : FIRST_CHUNK;
	struct arena_chunk *c;

	size = MIN(size, (size_t)LAST_CHUNK);
	size = MAX(size, n);
	c = xmalloc(sizeof(*c) + size);
	meter_force(a->meter, sizeof(*c) + size);
	c->older = a->head;
	c->size = size;
	c->used = 0;
	a->head = c;
	a->bytes += size;
}

void *arena_alloc(struct arena *a, size_t n)
{
	struct arena_chunk *c = a->head;
	void *p;

	n = (n + ALIGN - 1) & ~(size_t)(ALIGN - 1);
	if (c == NULL || c->size - c->used < n) {
		add_chunk(a, n);
		c = a->head;
	}
	p = c->data + c->used;
	c->used += n;
	return p;
}

void *arena_zalloc(struct arena *a, size_t n)
{
	void *p = arena_alloc(a, n);

	memset(p, 0, n);
	return p;
}

void *arena_dup(struct arena *a, const void *src, size_t n)
{
	void *p = arena_alloc(a, n);

	if (n)
		memcpy(p, src, n);
	return p;
}

char *arena_strdup(struct arena *a, const char *s)
{
	return arena_dup(a, s, strlen(s) + 1);
}

char *arena_strndup(struct arena *a, const char *s, size_t n)
{
	char *p = arena_alloc(a, n + 1);

	if (n)
		memcpy(p, s, n);
	p[n] = '\0';
	return p;
}

char *arena_printf(struct arena *a, const char *fmt, ...)
{
	va_list ap, again;
	char *p;
	int n;

	va_start(ap, fmt);
	va_copy(again, ap);
	n = vsnprintf(NULL, 0, fmt, ap);
	va_end(ap);
	assert(n >= 0);
	p = arena_alloc(a, (size_t)n + 1);
	vsnprintf(p, (size_t)n + 1, fmt, again);
	va_end(again);
	return p;
}

static void free_chunks(struct arena_chunk *c)
{
	while (c != NULL) {
		struct arena_chunk *older = c->older;

		free(c);
		c = older;
	}
}

void arena_reset(struct arena *a)
{
	if (a->head == NULL)
		return;
	/* The newest chunk is the largest (or was asked for by one large allocation): keep it
	 * alone. */
	free_chunks(a->head->older);
	a->head->older = NULL;
	a->head->used = 0;
	a->bytes = a->head->size;
}

void arena_fini(struct arena *a)
{
	free_chunks(a->head);
	*a = (struct arena)ARENA_INIT;
}
