/* SPDX-License-Identifier: Apache-2.0
 *
 * gather.h - batches into records: spans by (tenant, topic, partition), over requests, until there
 * is enough for good records or what waits is old enough.
 *
 *   batch -> route (tenant, topic) -> hold.h: requests as they came, and where their spans go
 *                                       '--- 64 KiB a partition, or linger ---> records, each
 *                                            partition's with its resources once ---> gather_next
 *
 * A record is made within the topic's limit, between spans. A span that passes the limit alone
 * goes to `too_large`. With one record per trace, runs stand by trace too. What is ready waits for
 * gather_next, so that nothing here calls back into itself.
 *
 * THREADS: the exporter's loop. LIMITS: the exporter's window (record_pool.n_bytes and n_pinned);
 * hold_max; ROUTES_IDLE_MAX routes that nothing goes over.
 */
#ifndef EXPORTERS_KAFKA_GATHER_H
#define EXPORTERS_KAFKA_GATHER_H

#include "base/map.h"
#include "exporters/kafka/hold.h"
#include "exporters/kafka/partitioner.h"
#include "exporters/kafka/record.h"
#include "exporters/kafka/topics.h"
#include "net/loop.h"

/* RECORD_TARGET: of a partition's records when a route has enough, in the mean; RECORD_MAX: what is
 * larger is cut; RUN_MAX: of spans that are not cut apart for that. */
enum { RECORD_TARGET_BYTES = 64 * 1024, RECORD_MAX_BYTES = 128 * 1024, RUN_MAX_BYTES = 8 * 1024 };
enum { ROUTES_IDLE_MAX = 1024 };

enum spread { SPREAD_BY_TRACE, SPREAD_ROUND_ROBIN, SPREAD_LEAST_BACKUP };

struct accumulator {
	uint32_t n_records; /* that are there, and held requests: for SPREAD_LEAST_BACKUP */
};

struct route {
	struct route *next, *prev; /* of those that hold something */
	struct hold *hold;         /* or NULL */
	uint64_t due_ns;           /* when what is held goes */
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
	struct route *oldest, *newest; /* that hold something, in the order they began to */
	struct hold *spare;
	size_t n_pinned; /* of memory, by what is held */
	size_t hold_max; /* bytes of spans that a route holds at most; 0: no limit. The caller's */
	struct record *ready, *last_ready;
	struct loop_timer timer;
	/* Scratch, grown as needed. */
	uint32_t *pick;
	size_t cap_pick;
};

void gather_init(struct gather *g, const struct gather_settings *o);
/* The route of a tenant to a topic, whose partitions are known. Valid until the next call, or for
 * as long as records go over it. */
struct route *gather_route(struct gather *g, struct topic *topic, const char *tenant);
/* Take over n spans of b, pick[] (NULL: all), to this route; b is kept for a while. `extras`: with
 * the unknown fields of the request itself. */
void gather_add(struct gather *g, struct route *route, struct batch *b, const uint32_t *pick,
		uint32_t n, bool extras);
/* The next record that is to be sent, or NULL. The caller's. */
struct record *gather_next(struct gather *g);
/* rec was found too large on its way out: two records with half its spans each are ready instead.
 * Takes rec, which has two spans at least. */
void gather_halve(struct gather *g, struct record *rec);
/* What is held is ready. */
void gather_flush(struct gather *g);
/* Most bytes of a value that may go this way. */
size_t gather_limit(const struct gather *g, const struct route *route);
/* No record is there any more. */
void gather_fini(struct gather *g);

#endif
