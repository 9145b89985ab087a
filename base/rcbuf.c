/* SPDX-License-Identifier: Apache-2.0
 *
 * rcbuf.c - see rcbuf.h.
 *
 *   class 0: 4 KiB   [buf] -> [buf]          each class is a stack under one lock, taken once per
 *     request;
 *   ...                                      POOL_BYTES bounds what all of them keep
 *   class 8: 1 MiB   [buf]
 */
#include "base/rcbuf.h"

#include "base/mem.h"

#include <pthread.h>

enum { FIRST_CLASS_BITS = 12, N_CLASSES = 9, POOL_BYTES = 4 * 1024 * 1024 };

/* Lives in the first bytes of a pooled buffer's memory while nobody uses it. */
struct pooled {
	struct pooled *next;
};

static struct {
	pthread_mutex_t lock;
	struct pooled *top[N_CLASSES];
	size_t bytes;
} pool = { .lock = PTHREAD_MUTEX_INITIALIZER };

/* The class that holds n bytes, or -1 when it is too large to pool. */
static int class_of(size_t n)
{
	for (int c = 0; c < N_CLASSES; c++)
		if (n <= (size_t)1 << (FIRST_CLASS_BITS + c))
			return c;
	return -1;
}

static uint8_t *pool_get(int class)
{
	struct pooled *p;

	pthread_mutex_lock(&pool.lock);
	p = pool.top[class];
	if (p != NULL) {
		pool.top[class] = p->next;
		pool.bytes -= (size_t)1 << (FIRST_CLASS_BITS + class);
	}
	pthread_mutex_unlock(&pool.lock);
	return (uint8_t *)p;
}

static bool pool_put(int class, uint8_t *memory)
{
	size_t size = (size_t)1 << (FIRST_CLASS_BITS + class);
	struct pooled *p = (void *)memory;
	bool kept;

	pthread_mutex_lock(&pool.lock);
	kept = pool.bytes + size <= POOL_BYTES;
	if (kept) {
		p->next = pool.top[class];
		pool.top[class] = p;
		pool.bytes += size;
	}
	pthread_mutex_unlock(&pool.lock);
	return kept;
}

static struct rcbuf *make(struct budget *budget, size_t cap, bool forced)
{
	int class = class_of(cap);
	size_t size = class < 0 ? cap : (size_t)1 << (FIRST_CLASS_BITS + class);
	struct rcbuf *b;

	if (forced)
		budget_force(budget, size);
	else if (!budget_charge(budget, size))
		return NULL;
	b = xcalloc(1, sizeof(*b));
	b->p = class < 0 ? NULL : pool_get(class);
	if (b->p == NULL)
		b->p = xmalloc(size + RCBUF_PAD);
	b->cap = size;
	b->budget = budget;
	b->charged = size;
	atomic_init(&b->refs, 1);
	return b;
}

struct rcbuf *rcbuf_new(struct budget *budget, size_t cap)
{
	return make(budget, cap, false);
}

struct rcbuf *rcbuf_new_forced(struct budget *budget, size_t cap)
{
	return make(budget, cap, true);
}

struct rcbuf *rcbuf_adopt(struct budget *budget, uint8_t *p, size_t n)
{
	struct rcbuf *b;

	/* What fits a class of the pool must be of its size. */
	if (class_of(n) >= 0) {
		b = rcbuf_new_forced(budget, n);
		if (n > 0)
			memcpy(b->p, p, n);
		free(p);
	} else {
		b = xcalloc(1, sizeof(*b));
		b->p = xrealloc(p, n + RCBUF_PAD);
		b->cap = b->charged = n;
		b->budget = budget;
		budget_force(budget, n);
		atomic_init(&b->refs, 1);
	}
	b->n = n;
	return b;
}

int rcbuf_grow(struct rcbuf **b, size_t cap)
{
	struct rcbuf *old = *b, *grown;

	assert(atomic_load(&old->refs) == 1);
	if (cap <= old->cap)
		return 0;
	grown = rcbuf_new(old->budget, cap);
	if (grown == NULL)
		return -1;
	memcpy(grown->p, old->p, old->n);
	grown->n = old->n;
	rcbuf_unref(old);
	*b = grown;
	return 0;
}

struct rcbuf *rcbuf_ref(struct rcbuf *b)
{
	atomic_fetch_add_explicit(&b->refs, 1, memory_order_relaxed);
	return b;
}

static void give_back(struct rcbuf *b)
{
	int class = class_of(b->cap);

	if (class < 0 || !pool_put(class, b->p))
		free(b->p);
}

void rcbuf_unref(struct rcbuf *b)
{
	if (b == NULL || atomic_fetch_sub_explicit(&b->refs, 1, memory_order_acq_rel) != 1)
		return;
	budget_release(b->budget, b->charged);
	if (b->release != NULL)
		b->release(b);
	else
		give_back(b);
	free(b);
}

void rcbuf_trim(void)
{
	pthread_mutex_lock(&pool.lock);
	for (int c = 0; c < N_CLASSES; c++)
		while (pool.top[c] != NULL) {
			struct pooled *p = pool.top[c];

			pool.top[c] = p->next;
			free(p);
		}
	pool.bytes = 0;
	pthread_mutex_unlock(&pool.lock);
}
