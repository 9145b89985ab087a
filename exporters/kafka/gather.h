/* SPDX-License-Identifier: Apache-2.0
 *
 * gather.h - batches into records: spans by (tenant, topic, partition), over requests, until a
 * record is full or old enough.
 *
 *   batch --partitions, a counting sort--> p0: 3 spans   p1: 7 spans   ...
 *                                            |             |  copied, with their duty
 *   route (tenant, topic)  accumulators: [record p0]   [record p1]     ...
 *                                            '--- 64 KiB, or linger ---> gather_next
 *
 * A record is made within the topic's limit, between spans. A span that passes the limit alone
 * goes to `too_large`. With one record per trace, a full record is taken apart by trace on its way
 * out. What is ready waits for gather_next, so that nothing here calls back into itself.
 *
 * THREADS: the exporter's loop. LIMITS: the exporter's window (record_pool.n_bytes);
 * ROUTES_IDLE_MAX routes that nothing goes over.
 */
#ifndef EXPORTERS_KAFKA_GATHER_H
#define EXPORTERS_KAFKA_GATHER_H

#include "base/map.h"
#include "exporters/kafka/partitioner.h"
#include "exporters/kafka/record.h"
#include "exporters/kafka/topics.h"
#include "net/loop.h"

enum { RECORD_TARGET_BYTES = 64 * 1024, ROUTES_IDLE_MAX = 1024 };

enum spread { SPREAD_BY_TRACE, SPREAD_ROUND_ROBIN, SPREAD_LEAST_BACKUP };

struct accumulator {
	struct record *rec; /* open, or NULL */
	uint32_t hint;      /* bytes of the last one */
	uint32_t n_records; /* that are there, for SPREAD_LEAST_BACKUP */
};

struct route {
	struct topic *topic;
	struct accumulator *at; /* by partition */
	uint32_t n_at;
	uint32_t turn;    /* SPREAD_ROUND_ROBIN */
	size_t n_records; /* that point here */
	size_t overhead;  /* of a record beside its value, most */
	char tenant[TENANT_MAX + 1];
};

struct gather_settings {
	struct loop *loop;
	struct record_pool *pool;
	enum hasher hasher;
	enum spread spread;
	bool by_trace;       /* one record per trace, with its id as the key */
	uint64_t max_bytes;  /* of a record, key and headers included */
	size_t header_bytes; /* of what every record has as headers, beside the tenant */
	uint64_t linger_ns;
	void *arg;
	void (*ready)(void *arg); /* records have become old enough for gather_next */
	/* Span i of b, of `size` bytes alone, is over the route's limit: take over its duty. */
	void (*too_large)(void *arg, struct route *route, struct batch *b, uint32_t i, size_t size);
};

struct gather {
	struct gather_settings o;
	struct map routes;
	struct record *oldest, *newest; /* open, in the order they were opened */
	struct record *ready, *last_ready;
	struct loop_timer timer;
	/* Scratch, grown as needed. */
	uint32_t *partition, *order, *start, *pick;
	size_t cap_partition, cap_order, cap_start, cap_pick;
};

void gather_init(struct gather *g, const struct gather_settings *o);
/* The route of a tenant to a topic, whose partitions are known. Valid until the next call, or for
 * as long as records go over it. */
struct route *gather_route(struct gather *g, struct topic *topic, const char *tenant);
/* Take over n spans of b, pick[] (NULL: all), to this route. `extras`: with the unknown fields of
 * the request itself. */
void gather_add(struct gather *g, struct route *route, struct batch *b, const uint32_t *pick,
		uint32_t n, bool extras);
/* The next record that is to be sent, or NULL. The caller's. */
struct record *gather_next(struct gather *g);
/* rec was found too large on its way out: two records with half its spans each are ready instead.
 * Takes rec, which has two spans at least. */
void gather_halve(struct gather *g, struct record *rec);
/* What is open is ready. */
void gather_flush(struct gather *g);
/* Most bytes of a value that may go this way. */
size_t gather_limit(const struct gather *g, const struct route *route);
/* No record is there any more. */
void gather_fini(struct gather *g);

#endif
