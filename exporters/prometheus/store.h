/* SPDX-License-Identifier: Apache-2.0
 *
 * store.h - every series of one prometheus exporter, by family and labels.
 *
 *   hash of (family, labels) --low bits--> shard: a hash table, one lock, taken once per chunk
 *   family -> members[shard]: the series of a family, for the page
 *
 * Series are known by what they are called on the page, not by what OTLP knows them by: two that
 * would be one line are one series, since a page that has a line twice is refused as a whole.
 * OWNERSHIP: owns everything in it. THREADS: any; the page and the sweep are run one at a time.
 * LIMITS: memory is charged to the budget, and never more than a STORE_PART of its limit; what has
 * no room is counted.
 */
#ifndef EXPORTERS_PROMETHEUS_STORE_H
#define EXPORTERS_PROMETHEUS_STORE_H

#include "base/budget.h"
#include "exporters/prometheus/series.h"

enum { STORE_PART = 4 };

enum dropped {
	DROPPED_FAULTY,      /* the point makes no sense (metric_point.fault) */
	DROPPED_CONFLICT,    /* another metric has the name, or is of another type */
	DROPPED_MEMORY,      /* no room for one more series */
	DROPPED_NAME,        /* nothing is left of the metric's name */
	DROPPED_LABELS,      /* labels of more than 64 KiB */
	DROPPED_TEMPORALITY, /* neither delta nor cumulative */
	DROPPED_OLD,         /* older than the point that is there: superseded */
	DROPPED_MAX,
};
const char *dropped_name(enum dropped d);

struct shard {
	pthread_mutex_t lock;
	struct series **slots; /* open addressing; cap is a power of two */
	size_t n, cap;
};

struct store {
	struct budget *budget;
	struct family_table families;
	/* Reading: who holds families and series between two locks of a shard. Writing: the sweep,
	 * a shard at a time. */
	pthread_rwlock_t life;
	struct shard shards[STORE_SHARDS];
	_Atomic size_t bytes;
	_Atomic uint64_t n_series, dropped[DROPPED_MAX];
	uint64_t seed;
};

void store_init(struct store *s, struct budget *budget);
void store_fini(struct store *s);

uint64_t store_hash(const struct store *s, const struct family *f, struct bytes labels);
static inline unsigned store_shard(uint64_t hash)
{
	return (unsigned)(hash >> 60) % STORE_SHARDS;
}

/* Put the points into their shards. The caller holds `life` for reading since it found their
 * families. why[i]: what became of a point that was dropped, else DROPPED_MAX. */
void store_apply(struct store *s, const struct series_point *points, size_t n, uint8_t *why);
/* Is that much still to be had of the store's part? */
bool store_has_room(struct store *s, size_t bytes);

/* Series that nobody wrote to for expire_ns (0: never) go, and those that ended, and families
 * without any. */
void store_sweep(struct store *s, uint64_t expire_ns);

#endif
