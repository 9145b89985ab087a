/* SPDX-License-Identifier: Apache-2.0
 *
 * ingest.h - the common half of every receiver: a decoded request goes in, an answer comes out, in
 * time.
 *
 *   receiver decodes -> ingest_submit -> pipeline ... verdicts (any thread) -> settled
 *                            |                                                  | loop_post
 *                            +--- timer: deadline near -> withdraw ------------>+--> answer (on the
 * loop), once
 *
 * No answer outlives its client: the answer is given by min(client's deadline less max(50 ms, 10
 * %), ack_timeout) with "try again", and what is unsent is withdrawn from memory queues, so that a
 * retry is no second copy.
 *
 * OWNERSHIP: the receiver embeds struct ingest at the head of its request and frees it in
 * `released`, which comes after both the answer and the last verdict. THREADS: ingest_submit,
 * answer and released on the request's loop.
 */
#ifndef PIPELINE_INGEST_INGEST_H
#define PIPELINE_INGEST_INGEST_H

#include "net/loop.h"
#include "pipeline/batch.h"
#include "pipeline/component.h"
#include "pipeline/telemetry.h"

/* What to tell the client. */
struct ingest_answer {
	bool retryable;          /* try again later: 503 / UNAVAILABLE */
	uint32_t retry_after_ms; /* at least; 0: not said */
	uint32_t n_rejected;     /* success with partial_success */
	const char *message;     /* of the rejection or failure; "" when none */
};

struct ingest {
	struct origin origin;
	struct loop *loop;
	struct transport_counters *count;
	struct loop_timer timer;
	struct loop_task task;
	uint32_t n_items;    /* what the counters count: spans, log records, data points */
	uint32_t n_rejected; /* by the index */
	char first_reject[192];
	uint64_t due_ns; /* monotonic: when the answer is given at the latest */
	bool answered;
	bool is_one_way; /* nobody waits and nobody sends again (UDP): as with ack: early */
	void (*answer)(struct ingest *in, const struct ingest_answer *a);
	void (*released)(struct ingest *in);
};

/* Send a decoded batch down the pipeline. Takes b (no origin bound yet). `deadline_ns`: the
 * client's, monotonic, 0 when it said none. `rejects` may be NULL. answer() may run before this
 * returns. */
void ingest_submit(struct ingest *in, struct component *c, struct batch *b,
		   const struct otlp_rejects *rejects, uint64_t deadline_ns);
/* The client may have gone (its end of file; some only close their sending half): the answer is due
 * in `ms`, when that is earlier. On the loop. */
void ingest_hurry(struct ingest *in, uint32_t ms);

/* Nobody waits any more (the client went): as if the deadline had come. What is unsent is
 * withdrawn, and answer() runs once more for the counters. Nothing when the answer was given
 * already, or is about to be. On the loop. */
void ingest_withdraw(struct ingest *in, const char *why);

/* The tenant of a request: what it said (X-Scope-OrgID; p = NULL: nothing), else the receiver's
 * `tenant`. -1 with ERR_INVALID when that is no legal name. Any thread. */
int ingest_tenant(const struct component *c, struct bytes said, char out[TENANT_MAX + 1],
		  struct err *err);

#endif
