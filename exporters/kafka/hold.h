/* SPDX-License-Identifier: Apache-2.0
 *
 * hold.h - the requests of a route that wait to become records, and the records they become.
 *
 *   batches (kept)   runs: spans of one partition that lie side by side
 *   [b0] [b1] ..     {b0 p3} {b0 p7} {b0 p3} {b1 p7} ...
 *                      '-- sorted by partition, resource, scope: counting, stable --> cut into
 *                          records of even size, each written once, as a whole
 *
 * DESIGN: spans are copied when all that goes into a record is known. Copying each request's spans
 * behind those of the open record of each partition (as it was) goes to 64 places that no cache
 * has, and repeats the resource and scope of every trace, a fifth of all bytes.
 * What is kept is the batch: a request whose buffer is mostly something else is copied out first.
 *
 * THREADS: the exporter's loop. LIMITS: gather's; n_pinned is what the batches keep in memory.
 */
#ifndef EXPORTERS_KAFKA_HOLD_H
#define EXPORTERS_KAFKA_HOLD_H

#include "exporters/kafka/record.h"
#include "wire/otlp_join.h"

struct held_batch {
	struct batch *b;
	int32_t partition; /* of all its spans; -1: each has its own */
	bool extras;       /* unknown fields of the request itself have still to go out */
};

/* Zeroed is empty. */
struct hold {
	struct hold *next;
	struct otlp_join join;
	struct otlp_run *runs;
	struct held_batch *batches;
	size_t n_runs, cap_runs, n_batches, cap_batches;
	size_t n_bytes;  /* of the runs */
	size_t n_pinned; /* of memory, by the batches */
	/* Scratch of hold_sort. */
	struct otlp_run **order, **other;
	size_t cap_order, cap_count;
	uint32_t *count;
	uint32_t *scopes; /* scratch of hold_add: number + 1 of the batch's scopes */
	size_t cap_scopes;
};

/* Where spans go. */
struct hold_spread {
	int32_t partition; /* of all; -1: by the trace */
	uint32_t (*choose)(void *arg, const uint8_t trace_id[16]);
	void *arg;
	uint32_t run_bytes; /* a run is no longer, unless it is one span */
	bool by_trace;      /* a run is of one trace */
};

/* Keep n spans of b, pick[] (NULL: all), with the duty to settle them. A new reference to b. */
void hold_add(struct hold *h, struct batch *b, const uint32_t *pick, uint32_t n, bool extras,
	      const struct hold_spread *s);
/* The runs in the order of partition, (by_trace) trace id, resource, scope and arrival. Valid until
 * the next call. */
struct otlp_run *const *hold_sort(struct hold *h, uint32_t n_partitions, bool by_trace);
/* A record of n runs in this order, which encode to `size` bytes. */
struct record *hold_record(const struct hold *h, struct record_pool *pool, struct route *route,
			   struct otlp_run *const *v, size_t n, size_t size);
/* The batches go; the duty of all runs was taken over. Keeps its arrays. */
void hold_clear(struct hold *h);
void hold_fini(struct hold *h);

#endif
