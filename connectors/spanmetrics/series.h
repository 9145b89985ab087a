/* SPDX-License-Identifier: Apache-2.0
 *
 * series.h - the sharded table of a spanmetrics connector: one row per set of labels.
 *
 *   series_table
 *     shard[0] lock  chains[hash] -> series -> series          (the top bits choose the shard)
 *     ...                              |
 *     shard[15]                        +-> span_resource -> its series of each shard
 *
 * A row is one block of memory: numbers, buckets, key, attributes as OTLP bytes. Numbers are
 * doubles, because a sampled span counts as many (adjusted counts); those that nobody sampled stay
 * exact up to 2^53.
 *
 * OWNERSHIP: the table owns rows; a row leaves only through series_remove, which the flush alone
 * calls, so its key and attributes may be read without the lock by the thread that flushes.
 * THREADS: everything of a row that is not its key or attributes under the lock of its shard.
 * LIMITS: rows per family (aggregation_cardinality_limit), bytes of a row, and bytes of all rows: a
 * quarter of the budget. What is over them is the caller's to add to an overflow row.
 */
#ifndef CONNECTORS_SPANMETRICS_SERIES_H
#define CONNECTORS_SPANMETRICS_SERIES_H

#include "base/base.h"
#include "base/budget.h"
#include "connectors/spanmetrics/families.h"
#include "connectors/spanmetrics/histogram.h"

#include <pthread.h>
#include <stdatomic.h>

/* Key and attributes of a row (or of a resource) have at most SERIES_MAX_TEXT bytes. */
enum { SERIES_SHARDS = 16, SERIES_BUDGET_PART = 4, SERIES_MAX_TEXT = 64 * 1024 };

struct span_resource;
struct slots;

/* What tells a row from all others. */
struct series_key {
	uint64_t hash; /* of all the rest */
	struct span_resource *resource;
	uint32_t facets;   /* series_facets() */
	struct bytes name; /* of the span; of host families: the service */
	struct bytes
		extra; /* dimensions, as dimensions.h writes them; of host families: the host */
};

struct series {
	struct series *next;             /* of its hash chain */
	struct series *next_of_resource; /* in this shard */
	struct span_resource *resource;
	uint64_t hash;
	uint32_t facets;
	uint32_t n_name, n_extra, n_attributes;
	uint32_t n_buckets;              /* of an explicit histogram, bounds + 1; 0: none */
	bool is_counted;                 /* a span was; else some only competed for its slots */
	uint32_t n_bytes;                /* charged, without exponential buckets and slots */
	uint64_t start_ns;               /* of its points; wall clock */
	uint64_t last_ns;                /* when the last span came; wall clock */
	double calls;                    /* adjusted; also the count of its histogram */
	double sum_ns;                   /* of durations, adjusted */
	double size_bytes;               /* of spans, adjusted; names: tempo */
	struct exponential *exponential; /* or NULL; owned */
	struct slots *slots;             /* exemplars: made, read and freed by slots.h; or NULL */
	double buckets[];                /* n_buckets, then the bytes of key and attributes */
};

enum series_flag { SERIES_OVERFLOW = 1, SERIES_EXTRAPOLATED = 2 };

/* kind and status as they stand in the span: other numbers than those known are one each. */
static inline uint32_t series_facets(enum family f, uint8_t kind, uint8_t status, unsigned flags)
{
	return (uint32_t)f | (uint32_t)kind << 8 | (uint32_t)status << 16 | (uint32_t)flags << 24;
}

static inline enum family series_family(const struct series *s)
{
	return (enum family)(s->facets & 0xff);
}

static inline struct bytes series_name(const struct series *s)
{
	return (struct bytes){ (const uint8_t *)(s->buckets + s->n_buckets), s->n_name };
}

static inline struct bytes series_extra(const struct series *s)
{
	return (struct bytes){ (const uint8_t *)(s->buckets + s->n_buckets) + s->n_name,
			       s->n_extra };
}

/* KeyValue fields with tag 7, as a NumberDataPoint has them. */
static inline struct bytes series_attributes(const struct series *s)
{
	return (struct bytes){ (const uint8_t *)(s->buckets + s->n_buckets) + s->n_name +
				       s->n_extra,
			       s->n_attributes };
}

struct series_shard {
	pthread_mutex_t lock;
	struct series **chains;
	size_t n_chains; /* a power of two */
	size_t n;
};

struct series_table {
	struct series_shard shards[SERIES_SHARDS];
	_Atomic uint64_t n_rows[FAMILY_MAX]; /* overflow rows are not counted */
	_Atomic uint64_t n_bytes;            /* charged to the budget, with resources.h */
	uint64_t max_rows;                   /* per family; 0: no limit */
	struct budget *budget;
};

void series_table_init(struct series_table *t, struct budget *budget, uint64_t max_rows);
/* Nobody uses it any more. Frees every row. */
void series_table_fini(struct series_table *t);

static inline unsigned series_shard_of(uint64_t hash)
{
	return (unsigned)(hash >> 60);
}

/* Lock of the key's shard held: what a look-up will read is on its way from memory. In two steps,
 * for several keys at a time: first where its chain is, then the chain's first row. */
void series_prefetch(struct series_table *t, uint64_t hash, bool is_row);
/* Lock of the key's shard held. The row, or NULL. */
struct series *series_find(struct series_table *t, const struct series_key *k);
/* Is there room for one more row of this family? Any thread; what it grants is not reserved. */
bool series_has_room(const struct series_table *t, enum family f, size_t n_bytes);
/* Lock of the key's shard held. A new row; copies key and attributes. `forced`: an overflow row,
 * beyond the limits. NULL: over a limit. */
struct series *series_add(struct series_table *t, const struct series_key *k,
			  struct bytes attributes, uint32_t n_buckets, uint64_t now_ns,
			  bool forced);
/* Lock of its shard held; the flush alone. `at` is where its resource's list has it. */
void series_remove(struct series_table *t, struct series **at);
/* What a row took beside itself (exponential buckets, slots), or gave back. Any thread. */
void series_account(struct series_table *t, int64_t n_bytes);

#endif
