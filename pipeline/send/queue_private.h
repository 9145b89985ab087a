/* SPDX-License-Identifier: Apache-2.0
 *
 * queue_private.h - what queue.c (attempts, waiting list) and queue_log.c
 * (storage) share.
 *
 * LOCKS: `lock` covers what is marked so and the storage's books; it is never held across a call
 * that settles spans, sends, or touches the disk.
 */
#ifndef PIPELINE_SEND_QUEUE_PRIVATE_H
#define PIPELINE_SEND_QUEUE_PRIVATE_H

#include "base/rng.h"
#include "pipeline/send/queue.h"

#include <pthread.h>
#include <stdatomic.h>

struct sending_queue_log;

struct request_list {
	struct send_request *head, **tail;
	uint64_t size;
	uint32_t n;
};

struct sending_queue {
	struct sending_queue_settings o;
	struct sending_queue_log *log; /* NULL: in memory */
	pthread_mutex_t lock;
	struct request_list waiting; /* lock */
	uint64_t size;               /* lock; of all requests, in the unit of the sizer */
	uint64_t n_open;             /* lock; requests: waiting, sending or sleeping */
	struct send_request *active; /* loop: sending and sleeping */
	uint64_t n_busy;             /* loop: their number */
	uint64_t n_consumers;        /* most of them */
	bool pumping, stopping;      /* loop */
	_Atomic bool draining, last_failed, posted;
	_Atomic uint64_t max_bytes; /* of a request; less than configured when the hop takes less */
	struct loop_task task;
	struct loop_timer sweeper;
	struct rng rng; /* loop */
};

/* Make b into requests that the next hop takes and let them wait. Takes b. False when the queue has
 * no room (`forced` does not ask): b is still the caller's. Any thread. */
bool sending_queue_push(struct sending_queue *q, struct batch *b, bool forced);

/* ---- storage; NULL-log queues are fine where the name ends in wake, stop or close ---- */

int sending_queue_log_open(struct sending_queue *q, struct err *err);
/* Takes b. Any thread. */
void sending_queue_log_append(struct sending_queue *q, struct batch *b);
/* There is room in memory, or less to wait for. Any thread, without the lock. */
void sending_queue_log_wake(struct sending_queue *q);
bool sending_queue_log_is_failing(struct sending_queue *q, char *why, size_t why_size);
/* Everything was read and is finished. With the lock. */
bool sending_queue_log_is_empty(const struct sending_queue *q);
/* What was there at start is in the ledger, so that the last line tells what the log holds. With
 * the lock. */
bool sending_queue_log_is_counted(const struct sending_queue *q);
/* Read no more. Main thread. */
void sending_queue_log_stop(struct sending_queue *q);
void sending_queue_log_close(struct sending_queue *q);

#endif
