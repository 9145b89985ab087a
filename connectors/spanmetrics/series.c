/* SPDX-License-Identifier: Apache-2.0
 *
 * series.c - see series.h.
 */
#include "connectors/spanmetrics/series.h"

#include "base/mem.h"
#include "connectors/spanmetrics/resources.h"
#include "connectors/spanmetrics/slots.h"

enum { FIRST_CHAINS = 64 };

void series_table_init(struct series_table *t, struct budget *budget, uint64_t max_rows)
{
	memset(t, 0, sizeof(*t));
	t->budget = budget;
	t->max_rows = max_rows;
	for (int i = 0; i < SERIES_SHARDS; i++) {
		struct series_shard *sh = &t->shards[i];

		pthread_mutex_init(&sh->lock, NULL);
		sh->n_chains = FIRST_CHAINS;
		sh->chains = xcalloc(sh->n_chains, sizeof(*sh->chains));
	}
}

static void row_free(struct series *s)
{
	exponential_free(s->exponential);
	slots_free(s->slots);
	free(s);
}

void series_table_fini(struct series_table *t)
{
	for (int i = 0; i < SERIES_SHARDS; i++) {
		struct series_shard *sh = &t->shards[i];

		for (size_t n = 0; n < sh->n_chains; n++)
			for (struct series *s = sh->chains[n], *next; s != NULL; s = next) {
				next = s->next;
				row_free(s);
			}
		free(sh->chains);
		pthread_mutex_destroy(&sh->lock);
	}
	budget_release(t->budget, atomic_load(&t->n_bytes));
	atomic_store(&t->n_bytes, 0);
}

static struct series_shard *shard_of(struct series_table *t, uint64_t hash)
{
	return &t->shards[series_shard_of(hash)];
}

static struct series **chain_of(struct series_shard *sh, uint64_t hash)
{
	return &sh->chains[hash & (sh->n_chains - 1)];
}

static bool is_it(const struct series *s, const struct series_key *k)
{
	return s->hash == k->hash && s->facets == k->facets && s->resource == k->resource &&
	       bytes_eq(series_name(s), k->name) && bytes_eq(series_extra(s), k->extra);
}

void series_prefetch(struct series_table *t, uint64_t hash, bool is_row)
{
	struct series **chain = chain_of(shard_of(t, hash), hash);

	if (!is_row) {
		PREFETCH(chain);
	} else if (*chain != NULL) {
		PREFETCH(*chain);
		PREFETCH((const uint8_t *)*chain + 64);
	}
}

struct series *series_find(struct series_table *t, const struct series_key *k)
{
	struct series *s = *chain_of(shard_of(t, k->hash), k->hash);

	while (s != NULL && !is_it(s, k))
		s = s->next;
	return s;
}

bool series_has_room(const struct series_table *t, enum family f, size_t n_bytes)
{
	uint64_t limit =
		t->budget != NULL ? (uint64_t)MAX(atomic_load(&t->budget->limit), 0) : UINT64_MAX;

	return (t->max_rows == 0 || atomic_load(&t->n_rows[f]) < t->max_rows) &&
	       atomic_load(&t->n_bytes) + n_bytes <= limit / SERIES_BUDGET_PART;
}

/* Twice the chains; a row moves in two pointers. */
static void grow(struct series_shard *sh)
{
	struct series **old = sh->chains;
	size_t n_old = sh->n_chains;

	sh->n_chains *= 2;
	sh->chains = xcalloc(sh->n_chains, sizeof(*sh->chains));
	for (size_t i = 0; i < n_old; i++)
		for (struct series *s = old[i], *next; s != NULL; s = next) {
			struct series **to = chain_of(sh, s->hash);

			next = s->next;
			s->next = *to;
			*to = s;
		}
	free(old);
}

static struct series *row_new(const struct series_key *k, struct bytes attributes,
			      uint32_t n_buckets, size_t n)
{
	struct series *s = xcalloc(1, n);
	uint8_t *to = (uint8_t *)(s->buckets + n_buckets);

	s->resource = k->resource;
	s->hash = k->hash;
	s->facets = k->facets;
	s->n_name = (uint32_t)k->name.n;
	s->n_extra = (uint32_t)k->extra.n;
	s->n_attributes = (uint32_t)attributes.n;
	s->n_buckets = n_buckets;
	if (k->name.n > 0)
		memcpy(to, k->name.p, k->name.n);
	if (k->extra.n > 0)
		memcpy(to + k->name.n, k->extra.p, k->extra.n);
	if (attributes.n > 0)
		memcpy(to + k->name.n + k->extra.n, attributes.p, attributes.n);
	return s;
}

static void link_row(struct series_table *t, struct series *s)
{
	struct series_shard *sh = shard_of(t, s->hash);
	struct series **chain, **rows = &s->resource->rows[series_shard_of(s->hash)];

	if (++sh->n > sh->n_chains)
		grow(sh);
	chain = chain_of(sh, s->hash);
	s->next = *chain;
	*chain = s;
	s->next_of_resource = *rows;
	*rows = s;
	atomic_fetch_add(&s->resource->n_rows, 1);
}

struct series *series_add(struct series_table *t, const struct series_key *k,
			  struct bytes attributes, uint32_t n_buckets, uint64_t now_ns, bool forced)
{
	enum family f = (enum family)(k->facets & 0xff);
	size_t n = sizeof(struct series) + n_buckets * sizeof(double) + k->name.n + k->extra.n +
		   attributes.n;
	struct series *s;

	/* With its place in a chain and the allocator's part. */
	size_t charged = n + 24;

	if (!forced && (k->name.n + k->extra.n + attributes.n > SERIES_MAX_TEXT ||
			!series_has_room(t, f, charged) || !budget_charge(t->budget, charged)))
		return NULL;
	if (forced)
		budget_force(t->budget, charged);
	else
		atomic_fetch_add(&t->n_rows[f], 1);
	atomic_fetch_add(&t->n_bytes, charged);
	s = row_new(k, attributes, n_buckets, n);
	s->n_bytes = (uint32_t)charged;
	s->start_ns = s->last_ns = now_ns;
	link_row(t, s);
	return s;
}

void series_remove(struct series_table *t, struct series **at)
{
	struct series *s = *at;
	struct series_shard *sh = shard_of(t, s->hash);
	struct series **chain = chain_of(sh, s->hash);

	*at = s->next_of_resource;
	while (*chain != s)
		chain = &(*chain)->next;
	*chain = s->next;
	sh->n--;
	if (!(s->facets >> 24 & SERIES_OVERFLOW))
		atomic_fetch_sub(&t->n_rows[series_family(s)], 1);
	atomic_fetch_sub(&s->resource->n_rows, 1);
	series_account(
		t,
		-(int64_t)s->n_bytes -
			(int64_t)(s->exponential != NULL ? exponential_bytes(s->exponential) : 0) -
			(int64_t)slots_bytes(s->slots));
	row_free(s);
}

void series_account(struct series_table *t, int64_t n_bytes)
{
	if (n_bytes >= 0)
		budget_force(t->budget, (size_t)n_bytes);
	else
		budget_release(t->budget, (size_t)-n_bytes);
	atomic_fetch_add(&t->n_bytes, (uint64_t)n_bytes);
}
