/* SPDX-License-Identifier: Apache-2.0
 *
 * queue_log_private.h - what queue_log.c (appending, the books, life) and
 * queue_feed.c (reading back) share. Nobody else includes it.
 */
#ifndef PIPELINE_SEND_QUEUE_LOG_PRIVATE_H
#define PIPELINE_SEND_QUEUE_LOG_PRIVATE_H

#include "pipeline/batch_record.h"
#include "pipeline/segment/reader.h"
#include "pipeline/send/queue_private.h"
#include "pipeline/span/left.h"
#include "pipeline/span/watch.h"

enum { SENDING_QUEUE_TICK_MS = 1000, SENDING_QUEUE_JOIN_RECORDS = 256 };

/* Records in memory, joined as one batch, from their reading until its last span has a verdict. */
struct run {
	struct origin origin;
	struct sending_queue *q;
	struct run *next, *prev; /* by LSN */
	uint64_t lsn;            /* of the first */
	uint32_t n_claimed;      /* spans the ledger counts here */
	uint64_t size;           /* of its records */
	struct held_watches *watched;
};

/* Records first..last of which the ledger counts n_claimed spans each, not all they have. */
struct claim {
	uint64_t first, last;
	uint32_t n_claimed;
};
struct claims {
	struct claim *v; /* ascending; [at, n) */
	size_t at, n, cap;
};

/* What is being joined: requests one after the other are one request. The feeder's. */
struct joining {
	struct rcbuf *bytes; /* NULL: nothing yet */
	char tenant[TENANT_MAX + 1];
	uint64_t n_spans;
	uint32_t n_records;
	struct {
		uint64_t lsn;
		uint32_t n_spans;
	} records[SENDING_QUEUE_JOIN_RECORDS];
};

struct append;

struct sending_queue_log {
	struct segment_log *log;
	char *dir;
	struct ledger *books;
	pthread_t feeder;
	bool has_feeder;
	pthread_cond_t wake;
	/* ---- with the queue's lock ---- */
	bool stopping;
	uint64_t known_to;             /* below: appended and acknowledged */
	uint64_t fed_to;               /* below: read */
	uint64_t freed_to;             /* below: given back to the log */
	uint64_t found_to, counted_to; /* below: there at start; of those in the ledger */
	uint64_t held;                 /* spans the ledger counts here */
	uint64_t n_appending;
	uint64_t size; /* of records there or on their way there, where sizer is not bytes */
	/* Of records that are not fed yet, in order. */
	struct held_watches *watched, **watched_tail;
	struct run *oldest, *newest;          /* open */
	struct claims claims, found_claims;   /* of what was there at start, in any case below */
	bool keeps;                           /* some are given up until the next start */
	struct append *parked, **parked_tail; /* block_on_overflow: wait for room, in order */
	/* ---- the feeder's ---- */
	struct segment_reader *reader, *counter;
	struct joining joining;
	struct segment_record next; /* read, and not joined yet */
	struct batch_record next_request;
	bool has_next;
	struct span_left left;   /* found, and in the books from before a reload */
	bool counts;             /* keeps span_numbers: until what was found is counted */
	uint64_t one_by_one_to;  /* below: do not join, one of them is damaged */
	uint64_t pause_until_ns; /* after a failed read */
};

/* What a record of n_spans counts against queue_size: spans or 1. */
uint64_t sending_queue_record_size(const struct sending_queue *q, uint32_t n_spans);
/* Spans of a record of n_spans that the ledger counts here. Called in LSN order, with the lock. */
uint32_t sending_queue_take_claim(struct sending_queue_log *l, uint64_t lsn, uint32_t n_spans);
/* A record that was there at start goes into the books, unless it did before. The feeder. */
void sending_queue_found(struct sending_queue *q, uint64_t lsn, const struct batch_record *br);
/* Says so when all of them did. The feeder. */
void sending_queue_counted_all(struct sending_queue *q);
/* Records below are not needed any more. With the lock. */
uint64_t sending_queue_free_point(const struct sending_queue_log *l);
/* Some are not read yet. With the lock. */
bool sending_queue_has_more(const struct sending_queue_log *l);
/* When every record was read and is finished, what the ledger still counts here is lost. With the
 * lock. */
void sending_queue_write_off(struct sending_queue_log *l);
/* What is on disk, against what may be there, into the metrics. Without the lock. */
void sending_queue_note_disk(struct sending_queue *q);

/* Try again with what waits for room, and give up what nobody waits for any more. The feeder. */
void sending_queue_retry_parked(struct sending_queue *q);

/* The feeder's thread: takes the queue. */
void *sending_queue_feeder(void *q);

#endif
