/* SPDX-License-Identifier: Apache-2.0
 *
 * queue.h - queue, retry and timeout around an exporter that only knows how to send one
 * batch.
 *
 *   memory:  consume -> [waiting] -> sending (num_consumers at once) -> done: settled
 *                                      ^  '- retryable: sleeping, then again
 *   storage: consume -> segment log (synced: HELD, acknowledged) -> feeder thread -> [waiting] ->
 *            sending -> done: freed in the log
 *
 * In memory the answer to the client waits for the delivery, and what the client was told to send
 * again is given up within SWEEP_MS, also between two attempts and in the middle of one: a retry is
 * no second copy. With storage the answer waits for the fsync; delivery is retried for ever (or
 * max_elapsed_time) and survives a crash, at least once.
 *
 * THREADS: consume on any; send, cancel and sending_queue_done on the queue's loop; the rest on the
 * main thread but where said.
 * LIMITS: queue_size in requests, items or bytes; over it consume answers "try again". With
 * block_on_overflow the queue takes what comes and the budget bounds it: the caller waits for its
 * answer, not for room (consume never blocks), and is told to come back at its deadline. With
 * storage the disk, or queue_size where it is set; in memory are then at most num_consumers + 2
 * requests of 512 KiB or one record, and what waits for room on the disk.
 * SPEC: the Collector's exporterhelper: sending_queue, retry_on_failure, timeout.
 */
#ifndef PIPELINE_SEND_QUEUE_H
#define PIPELINE_SEND_QUEUE_H

#include "net/loop.h"
#include "pipeline/batch.h"
#include "pipeline/component.h"
#include "pipeline/option/blocks.h"

struct sending_queue;

enum send_result {
	SEND_OK,
	SEND_RETRYABLE,
	SEND_PERMANENT,
	SEND_TOO_LARGE, /* permanent as it is, but each half may be taken */
	SEND_TAKEN,     /* the exporter settles the batch's spans itself (`takes_spans`) */
};

/* What an extension of the type SENDING_QUEUE_STORAGE_TYPE lends (component_type.lend). */
struct sending_queue_storage {
	const char *directory; /* exists */
};
#define SENDING_QUEUE_STORAGE_TYPE "file_storage"

/* One batch on its way. The exporter reads it between send and done. */
struct send_request {
	struct batch *batch;
	struct batch_encoding encoding; /* the bytes to send */
	uint64_t deadline_ns;           /* of this attempt, monotonic; 0: none */
	void *exporter_data;            /* the exporter's */
	void *owner;                    /* sending_queue_settings.owner */
	/* Of a batch that is more than one message: the exporter's place behind what was taken,
	 * kept from one attempt to the next (0 at first); and the items of it that were refused,
	 * and those among them that are in count->send_failed already. */
	uint64_t progress;
	uint32_t n_refused, n_failed;
	const char *refusal; /* why the first of them was, in `arena`; NULL: not said */
	/* ---- the queue's ---- */
	struct sending_queue *queue;
	struct arena arena;
	struct send_request *next, *prev; /* waiting (next only) or active */
	struct loop_timer timer;
	uint64_t first_ns; /* of the first attempt */
	int64_t backoff_ns;
	uint64_t size; /* in the unit of the sizer */
	bool is_active, is_sending;
	bool is_told; /* sleeping for as long as the next hop said */
};

struct sending_queue_settings {
	struct component *component;
	void *owner; /* for send and cancel, in each request; may be NULL */
	struct loop *loop;
	const struct queue_options *queue;
	const struct retry_options *retry;
	int64_t timeout_ns;         /* of one attempt; 0: none */
	uint64_t max_request_bytes; /* larger batches are split between spans; 0: never */
	/* The exporter regroups spans over requests. `send` is given one request at a time,
	 * without its encoding, and keeps it until it has room; SEND_TAKEN then closes it without a
	 * verdict, since the duty to settle its spans has gone to the exporter. */
	bool takes_spans;
	bool in_order; /* one request at a time, whatever num_consumers says */
	/* Start sending; sending_queue_done follows exactly once, now or later. */
	void (*send)(struct component *c, struct send_request *r);
	/* Give up the attempt: sending_queue_done follows before this returns. */
	void (*cancel)(struct component *c, struct send_request *r);
};

/* With storage: takes the log. Everything `s` points to outlives the queue. NULL with *err. */
struct sending_queue *sending_queue_new(const struct sending_queue_settings *s, struct err *err);
/* Takes b. Any thread; never blocks. */
void sending_queue_consume(struct sending_queue *q, struct batch *b);
/* How an attempt ended: err is of a failure, its retry_after_ms is honoured; n_rejected spans were
 * refused by a next hop that took the others. On the loop. */
void sending_queue_done(struct send_request *r, enum send_result result, uint32_t n_rejected,
			const struct err *err);
/* True, with the reason, while the queue on disk cannot take more. Any thread. */
bool sending_queue_is_failing(struct sending_queue *q, char *why, size_t why_size);
/* Nothing waits or is under way. With storage: and what the log still has could not be delivered
 * now. Any thread. */
bool sending_queue_is_drained(struct sending_queue *q);
/* For component_type.metrics: families beside those every exporter has. NULL is fine. */
void sending_queue_metrics(struct sending_queue *q, struct buf *out);
/* Finish what can be finished: pauses between attempts are cut short; with storage a failed attempt
 * is the last one. */
void sending_queue_drain(struct sending_queue *q);
/* Cancels attempts under way. What is left in memory is settled as "try again", what is in the log
 * stays there. The loop still runs. NULL is fine. */
void sending_queue_free(struct sending_queue *q);

#endif
