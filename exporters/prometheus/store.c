/* SPDX-License-Identifier: Apache-2.0
 *
 * store.c - see store.h.
 */
#include "exporters/prometheus/store.h"

#include "base/clock.h"
#include "base/hash.h"
#include "base/mem.h"
#include "base/rng.h"

enum { FIRST_SLOTS = 64 };

const char *dropped_name(enum dropped d)
{
	static const char *const names[DROPPED_MAX] = {
		[DROPPED_FAULTY] = "faulty",          [DROPPED_CONFLICT] = "name_conflict",
		[DROPPED_MEMORY] = "memory",          [DROPPED_NAME] = "no_name",
		[DROPPED_LABELS] = "labels_too_long", [DROPPED_TEMPORALITY] = "no_temporality",
		[DROPPED_OLD] = "out_of_order",
	};

	return names[d];
}

void store_init(struct store *s, struct budget *budget)
{
	pthread_rwlockattr_t attr;

	*s = (struct store){ .budget = budget };
	rng_kernel(&s->seed, sizeof(s->seed));
	family_table_init(&s->families, budget);
	pthread_rwlockattr_init(&attr);
	/* Or a sweep would wait as long as there is always somebody who reads. */
	pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
	pthread_rwlock_init(&s->life, &attr);
	pthread_rwlockattr_destroy(&attr);
	for (unsigned i = 0; i < STORE_SHARDS; i++)
		pthread_mutex_init(&s->shards[i].lock, NULL);
}

uint64_t store_hash(const struct store *s, const struct family *f, struct bytes labels)
{
	return hash_xxh64(labels.p, labels.n, s->seed ^ (uint64_t)(uintptr_t)f);
}

/* ---- memory ---- */

bool store_has_room(struct store *s, size_t bytes)
{
	size_t limit =
		s->budget != NULL ? (size_t)MAX(atomic_load(&s->budget->limit), 0) : SIZE_MAX;

	return atomic_load(&s->bytes) + atomic_load(&s->families.bytes) + bytes <=
	       limit / STORE_PART;
}

static bool charge(struct store *s, struct series *to, size_t bytes)
{
	if (!store_has_room(s, bytes) || !budget_charge(s->budget, bytes))
		return false;
	atomic_fetch_add(&s->bytes, bytes);
	to->charged = bytes;
	return true;
}

/* It holds more or less than was charged. */
static void charge_again(struct store *s, struct series *of)
{
	size_t now = series_bytes(of);

	if (now > of->charged)
		budget_force(s->budget, now - of->charged);
	else
		budget_release(s->budget, of->charged - now);
	atomic_fetch_add(&s->bytes, now - of->charged);
	of->charged = now;
}

static void discharge(struct store *s, struct series *of)
{
	budget_release(s->budget, of->charged);
	atomic_fetch_sub(&s->bytes, of->charged);
}

/* ---- a shard's table ---- */

static size_t home_of(const struct shard *sh, uint64_t hash)
{
	return hash & (sh->cap - 1);
}

static void place(struct shard *sh, struct series *s)
{
	size_t i = home_of(sh, s->hash);

	while (sh->slots[i] != NULL)
		i = (i + 1) & (sh->cap - 1);
	sh->slots[i] = s;
}

static void make_room(struct shard *sh)
{
	struct series **old = sh->slots;
	size_t cap = sh->cap;

	if (sh->n * 4 < cap * 3)
		return;
	sh->cap = cap > 0 ? 2 * cap : FIRST_SLOTS;
	sh->slots = xcalloc(sh->cap, sizeof(struct series *));
	for (size_t i = 0; i < cap; i++)
		if (old[i] != NULL)
			place(sh, old[i]);
	free(old);
}

static struct series *find(const struct shard *sh, const struct series_point *at)
{
	if (sh->cap == 0)
		return NULL;
	for (size_t i = home_of(sh, at->hash); sh->slots[i] != NULL; i = (i + 1) & (sh->cap - 1)) {
		struct series *s = sh->slots[i];

		if (s->hash == at->hash && s->family == at->family &&
		    bytes_eq(series_labels(s), at->labels))
			return s;
	}
	return NULL;
}

static void add_member(struct series *s, unsigned shard)
{
	struct member_list *m = &s->family->members[shard];

	if (m->n == m->room) {
		m->room = m->room > 0 ? 2 * m->room : 4;
		m->v = xrealloc(m->v, m->room * sizeof(struct series *));
	}
	s->index = m->n;
	m->v[m->n++] = s;
	atomic_fetch_add(&s->family->n_series, 1);
}

static void remove_member(struct series *s, unsigned shard)
{
	struct member_list *m = &s->family->members[shard];
	struct series *last = m->v[--m->n];

	m->v[s->index] = last;
	last->index = s->index;
	atomic_fetch_sub(&s->family->n_series, 1);
}

/* ---- writing ---- */

/* NULL: no room. */
static struct series *insert(struct store *st, unsigned shard, const struct series_point *at)
{
	struct shard *sh = &st->shards[shard];
	struct series *s = series_new(at);

	if (!charge(st, s, series_bytes_of(at))) {
		series_free(s);
		return NULL;
	}
	make_room(sh);
	place(sh, s);
	sh->n++;
	add_member(s, shard);
	atomic_fetch_add(&st->n_series, 1);
	return s;
}

static enum dropped apply_one(struct store *st, unsigned shard, const struct series_point *at,
			      uint64_t now_ns)
{
	struct series *s = find(&st->shards[shard], at);
	int rc;

	if (s == NULL && (at->p.flags & METRIC_NO_RECORDED_VALUE))
		return DROPPED_MAX;
	if (s == NULL)
		s = insert(st, shard, at);
	if (s == NULL)
		return DROPPED_MEMORY;
	rc = series_apply(s, at, now_ns);
	charge_again(st, s);
	return rc < 0 ? DROPPED_OLD : DROPPED_MAX;
}

void store_apply(struct store *s, const struct series_point *points, size_t n, uint8_t *why)
{
	uint64_t now_ns = clock_mono_ns();

	for (unsigned shard = 0; shard < STORE_SHARDS; shard++) {
		bool is_locked = false;

		for (size_t i = 0; i < n; i++) {
			if (store_shard(points[i].hash) != shard)
				continue;
			if (!is_locked)
				pthread_mutex_lock(&s->shards[shard].lock);
			is_locked = true;
			why[i] = (uint8_t)apply_one(s, shard, &points[i], now_ns);
		}
		if (is_locked)
			pthread_mutex_unlock(&s->shards[shard].lock);
	}
}

/* ---- the sweep ---- */

/* Take slot i out and let those that it kept away from their homes move up. */
static void remove_slot(struct shard *sh, size_t i)
{
	size_t mask = sh->cap - 1, k = i;

	sh->slots[i] = NULL;
	for (;;) {
		size_t home;

		k = (k + 1) & mask;
		if (sh->slots[k] == NULL)
			return;
		home = home_of(sh, sh->slots[k]->hash);
		/* May it stand at i: is its home not between i (excluded) and k? */
		if (((k - home) & mask) < ((k - i) & mask))
			continue;
		sh->slots[i] = sh->slots[k];
		sh->slots[k] = NULL;
		i = k;
	}
}

static void remove_series(struct store *st, unsigned shard, size_t slot)
{
	struct shard *sh = &st->shards[shard];
	struct series *s = sh->slots[slot];

	remove_slot(sh, slot);
	sh->n--;
	remove_member(s, shard);
	discharge(st, s);
	series_free(s);
	atomic_fetch_sub(&st->n_series, 1);
}

static void sweep_shard(struct store *st, unsigned shard, uint64_t oldest_ns)
{
	struct shard *sh = &st->shards[shard];

	for (size_t i = 0; i < sh->cap;) {
		const struct series *s = sh->slots[i];

		if (s != NULL && (s->is_gone || s->seen_ns < oldest_ns))
			remove_series(st, shard, i); /* another may stand here now */
		else
			i++;
	}
}

void store_sweep(struct store *s, uint64_t expire_ns)
{
	uint64_t now_ns = clock_mono_ns();
	uint64_t oldest_ns = expire_ns > 0 && now_ns > expire_ns ? now_ns - expire_ns : 0;

	for (unsigned i = 0; i < STORE_SHARDS; i++) {
		pthread_rwlock_wrlock(&s->life);
		sweep_shard(s, i, oldest_ns);
		pthread_rwlock_unlock(&s->life);
	}
	pthread_rwlock_wrlock(&s->life);
	family_table_sweep(&s->families);
	pthread_rwlock_unlock(&s->life);
}

void store_fini(struct store *s)
{
	for (unsigned i = 0; i < STORE_SHARDS; i++) {
		sweep_shard(s, i, UINT64_MAX);
		free(s->shards[i].slots);
		pthread_mutex_destroy(&s->shards[i].lock);
	}
	family_table_fini(&s->families);
	pthread_rwlock_destroy(&s->life);
}
