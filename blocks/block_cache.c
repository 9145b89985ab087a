/* SPDX-License-Identifier: Apache-2.0
 *
 * block_cache.c - see block_cache.h.
 *
 *   table: map key -> piece          all: every piece, in no order, so that one can be drawn by lot
 */
#include "blocks/block_cache.h"

#include "base/map.h"
#include "base/mem.h"
#include "base/rng.h"

#include <pthread.h>

enum {
	ADMIT_ONE_OF = 16,
	BUDGET_SHARE = 8, /* one part in so many is the cache's, by default */
	NEW_SHARE = 32,   /* of one that favours what is new */
	/* A piece's own, its slot and key in the map, its place in `all`, the allocator's headers.
	 */
	OVERHEAD = sizeof(struct block_cache_piece) + 96,
};

#define UNBUDGETED_BYTES (64 * MIB)

/* The block beside the piece, so that looking for a block's pieces reads no piece. */
struct slot {
	uint64_t block;
	struct block_cache_piece *piece;
};

struct block_cache {
	struct budget *budget;
	uint64_t max_bytes;
	uint32_t share, admit_one_of;
	pthread_mutex_t lock;
	struct map table;
	struct slot *all;
	size_t n, cap;
	struct rng rng;
	struct block_cache_stats stats;
};

_Static_assert(sizeof(struct block_cache_key) == 16, "a key is hashed as its bytes");
_Static_assert(sizeof(struct block_cache_piece) % 8 == 0, "the bytes that follow are aligned");

struct block_cache *block_cache_new(struct budget *budget, uint64_t max_bytes)
{
	struct block_cache *c = xcalloc(1, sizeof(*c));
	uint64_t seed;

	c->budget = budget;
	c->max_bytes = max_bytes;
	c->share = BUDGET_SHARE;
	c->admit_one_of = ADMIT_ONE_OF;
	rng_kernel(&seed, sizeof(seed));
	rng_seed(&c->rng, seed);
	pthread_mutex_init(&c->lock, NULL);
	return c;
}

void block_cache_favour_new(struct block_cache *c)
{
	c->share = NEW_SHARE;
	c->admit_one_of = 1;
}

static size_t cost(const struct block_cache_piece *p)
{
	return p->bytes.n + OVERHEAD;
}

static struct bytes key_bytes(const struct block_cache_key *key)
{
	return (struct bytes){ (const uint8_t *)key, sizeof(*key) };
}

/* Under the lock: out of the table and the books; a reader's reference keeps the bytes. */
static void take_out(struct block_cache *c, struct block_cache_piece *p)
{
	c->n--;
	c->all[p->at] = c->all[c->n];
	c->all[p->at].piece->at = p->at;
	map_remove(&c->table, key_bytes(&p->key));
	c->stats.bytes -= cost(p);
	budget_release(c->budget, cost(p));
	block_cache_unref(p);
}

void block_cache_free(struct block_cache *c)
{
	if (c == NULL)
		return;
	while (c->n > 0)
		take_out(c, c->all[c->n - 1].piece);
	map_fini(&c->table);
	free(c->all);
	pthread_mutex_destroy(&c->lock);
	free(c);
}

struct block_cache_piece *block_cache_find(struct block_cache *c, struct block_cache_key key)
{
	struct block_cache_piece *p;

	if (c == NULL)
		return NULL;
	pthread_mutex_lock(&c->lock);
	p = map_find(&c->table, key_bytes(&key));
	if (p != NULL) {
		atomic_fetch_add_explicit(&p->refs, 1, memory_order_relaxed);
		c->stats.hits[key.kind]++;
	} else {
		c->stats.misses[key.kind]++;
	}
	pthread_mutex_unlock(&c->lock);
	return p;
}

void block_cache_unref(struct block_cache_piece *p)
{
	if (p != NULL && atomic_fetch_sub_explicit(&p->refs, 1, memory_order_acq_rel) == 1)
		free(p);
}

static uint64_t limit(const struct block_cache *c)
{
	if (c->max_bytes > 0)
		return c->max_bytes;
	if (c->budget == NULL)
		return UNBUDGETED_BYTES * BUDGET_SHARE / c->share;
	return (uint64_t)MAX(atomic_load(&c->budget->limit), 0) / c->share;
}

bool block_cache_wants(struct block_cache *c, size_t n)
{
	uint64_t most;
	bool wants;

	if (c == NULL)
		return false;
	pthread_mutex_lock(&c->lock);
	most = limit(c);
	wants = n + OVERHEAD <= most &&
		(c->stats.bytes + n + OVERHEAD <= most || rng_below(&c->rng, c->admit_one_of) == 0);
	c->stats.passed_over += !wants;
	pthread_mutex_unlock(&c->lock);
	return wants;
}

/* Under the lock: n bytes are free and charged. */
static bool make_room(struct block_cache *c, size_t n)
{
	uint64_t most = limit(c);

	if (n > most)
		return false;
	while (c->stats.bytes + n > most) {
		take_out(c, c->all[rng_below(&c->rng, c->n)].piece);
		c->stats.evicted++;
	}
	return budget_charge(c->budget, n);
}

static struct block_cache_piece *piece_new(struct block_cache_key key, struct bytes bytes)
{
	struct block_cache_piece *p = xmalloc(sizeof(*p) + bytes.n);
	uint8_t *to = (uint8_t *)(p + 1);

	if (bytes.n > 0)
		memcpy(to, bytes.p, bytes.n);
	atomic_init(&p->refs, 1);
	p->key = key;
	p->at = 0;
	p->bytes = (struct bytes){ to, bytes.n };
	return p;
}

void block_cache_add(struct block_cache *c, struct block_cache_key key, struct bytes bytes)
{
	struct block_cache_piece *p;

	if (c == NULL)
		return;
	p = piece_new(key, bytes);
	pthread_mutex_lock(&c->lock);
	/* Another reader may have been here first. */
	if (map_find(&c->table, key_bytes(&key)) == NULL) {
		if (make_room(c, cost(p))) {
			c->all = xgrow(c->all, &c->cap, c->n + 1, sizeof(*c->all));
			p->at = c->n;
			c->all[c->n++] = (struct slot){ key.block, p };
			map_set(&c->table, key_bytes(&p->key), p);
			c->stats.bytes += cost(p);
			p = NULL;
		} else {
			c->stats.passed_over++;
		}
	}
	pthread_mutex_unlock(&c->lock);
	free(p);
}

void block_cache_drop(struct block_cache *c, uint64_t block)
{
	if (c == NULL)
		return;
	pthread_mutex_lock(&c->lock);
	for (size_t i = c->n; i-- > 0;)
		if (c->all[i].block == block)
			take_out(c, c->all[i].piece);
	pthread_mutex_unlock(&c->lock);
}

void block_cache_stats(struct block_cache *c, struct block_cache_stats *out)
{
	pthread_mutex_lock(&c->lock);
	*out = c->stats;
	out->pieces = c->n;
	pthread_mutex_unlock(&c->lock);
}

void block_cache_stats_add(struct block_cache_stats *total, const struct block_cache_stats *more)
{
	for (size_t i = 0; i < BLOCK_CACHE_KINDS; i++) {
		total->hits[i] += more->hits[i];
		total->misses[i] += more->misses[i];
	}
	total->evicted += more->evicted;
	total->passed_over += more->passed_over;
	total->pieces += more->pieces;
	total->bytes += more->bytes;
}

const char *block_cache_kind_name(enum block_cache_kind kind)
{
	static const char *const names[BLOCK_CACHE_KINDS] = { "bloom", "index", "page" };

	assert((unsigned)kind < BLOCK_CACHE_KINDS);
	return names[kind];
}
