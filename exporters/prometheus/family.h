/* SPDX-License-Identifier: Apache-2.0
 *
 * family.h - the metric families of a page: a name, what it is, and which series it has.
 *
 * Of two metrics that want one name the first has it as long as it has series; that includes the
 * names of samples (a histogram h takes h_count from a gauge), since a page must not use a name
 * twice.
 * OWNERSHIP: of the table. A family stays while it has series, or somebody holds the store's
 * `life` lock for reading. THREADS: any; members[i] under the lock of shard i.
 * LIMITS: memory by the store's allowance.
 */
#ifndef EXPORTERS_PROMETHEUS_FAMILY_H
#define EXPORTERS_PROMETHEUS_FAMILY_H

#include "base/budget.h"
#include "base/map.h"
#include "wire/prometheus_name.h"

#include <pthread.h>

enum { STORE_SHARDS = 16, BOUND_TEXTS = 2 };

enum family_kind { FAMILY_GAUGE, FAMILY_COUNTER, FAMILY_HISTOGRAM, FAMILY_SUMMARY, FAMILY_INFO };

struct series;

/* The bounds of explicit buckets, with the texts of le, shared by the series that have them. */
struct layout {
	_Atomic uint32_t refs;
	uint32_t n;
	const double *bounds;
	const char *const *le[BOUND_TEXTS]; /* plain, open: NUL-terminated */
	bool has_negative;
};

struct layout *layout_new(const double *bounds, uint32_t n);
struct layout *layout_ref(struct layout *l);
void layout_unref(struct layout *l); /* NULL is fine */
bool layout_is(const struct layout *l, const double *bounds, uint32_t n);
size_t layout_bytes(uint32_t n);

struct member_list {
	struct series **v;
	uint32_t n, room;
};

struct family {
	enum family_kind kind;
	struct bytes name;    /* as translated; OpenMetrics: what samples of counters are called */
	struct bytes base;    /* the family's name in OpenMetrics: a counter's without _total */
	struct bytes escaped; /* `name` of legal characters only; the same as name when it is */
	struct bytes escaped_base;
	struct bytes help, unit; /* unit: "" unless base ends in it */
	_Atomic uint32_t n_series;
	pthread_mutex_t lock;  /* of latest */
	struct layout *latest; /* the layout that was asked for last */
	struct member_list members[STORE_SHARDS];
};

struct family_table {
	pthread_mutex_t lock;
	struct map by_name, taken; /* name -> family; every name of its samples -> family */
	struct budget *budget;     /* charged by force: who makes one asks first */
	_Atomic size_t bytes;
};

void family_table_init(struct family_table *f, struct budget *budget);
void family_table_fini(struct family_table *f); /* all series must be gone */
/* What a family is called. Borrowed. */
struct family_head {
	enum family_kind kind;
	struct bytes name, help, unit; /* unit in words; help and unit of the first count */
};
/* The family; made when nobody has one of its names and there may be more. NULL: somebody has, as
 * *other says; or there may not be more (*other is NULL). */
struct family *family_table_find(struct family_table *f, const struct family_head *head,
				 bool may_make, const struct family **other);
/* Those without series go. The caller has the store's `life` lock for writing. */
void family_table_sweep(struct family_table *f);
/* All of them, sorted by name; free() it. */
struct family **family_table_list(struct family_table *f, size_t *n);
/* A layout of these bounds: that which was asked for last, or a new one. New reference. */
struct layout *family_layout(struct family *f, const double *bounds, uint32_t n);

#endif
