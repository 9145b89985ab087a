/* SPDX-License-Identifier: Apache-2.0
 *
 * gen.h - what the parts of `spanmill gen` share.
 *
 *   gen.c       flags, ledger, life of a run; a slot's next request and what its answer means
 *   gen_http.c  one thread and one connection per slot: OTLP/HTTP, OTLP/JSON, Zipkin
 *   gen_grpc.c  slots as state machines on loops: OTLP/gRPC
 *
 * A slot is one request under way at a time: gen_slot_fill, wait until due_ns, gen_slot_sent, send,
 * gen_slot_settle; that says whether the same bytes are to be sent again.
 * THREADS: a slot belongs to one thread; struct gen is shared.
 */
#ifndef CMD_GEN_H
#define CMD_GEN_H

#include "base/err.h"
#include "base/rng.h"
#include "cmd/gen_payload.h"
#include "cmd/gen_stats.h"

enum gen_protocol { GEN_OTLP_GRPC, GEN_OTLP_HTTP, GEN_OTLP_JSON, GEN_ZIPKIN };

struct gen_config {
	const char *endpoint; /* host:port, or a URL */
	int protocol;         /* enum gen_protocol */
	uint64_t rate;        /* spans a second; 0: as fast as answers come */
	uint64_t duration_ns; /* 0: no end but `traces` */
	uint64_t traces;      /* 0: no end but `duration_ns` */
	uint64_t batch;       /* spans in a request */
	uint64_t concurrency, connections;
	uint64_t deadline_ns;
	const char *tenant, *ledger; /* NULL: none */
	bool gzip, retry;
	struct gen_shape shape;
};

struct gen {
	struct gen_config c;
	struct gen_stats stats;
	_Atomic uint64_t next_trace;
	_Atomic bool stopping;        /* begin no new trace */
	_Atomic bool hurried;         /* give up what is under way */
	_Atomic uint64_t give_up_ns;  /* monotonic: no retry after this; 0: not yet known */
	_Atomic unsigned n_running;   /* slots */
	_Atomic unsigned n_no_answer; /* requests in a row, while nothing was acknowledged */
	_Atomic bool ledger_failed;
	int ledger_fd;
	pthread_mutex_t lock; /* of pace_ns, and of the wake-up of gen_run's wait */
	pthread_cond_t changed;
	uint64_t pace_ns; /* when the next request is due */
};

/* What an answer, or its absence, means. */
enum gen_outcome { GEN_ACKED, GEN_REFUSED, GEN_FAILED };

struct gen_verdict {
	enum gen_outcome outcome;
	bool no_answer;          /* nobody was there, or the deadline passed */
	uint64_t rejected;       /* ACKED: by partial_success */
	uint32_t retry_after_ms; /* REFUSED: as the answer said */
	char what[200];          /* not ACKED: why; ACKED: partial_success's message */
};

struct gen_slot {
	struct gen *g;
	struct gen_span *trace; /* the trace being handed out, spans_per_trace */
	size_t trace_at, trace_n;
	struct gen_span *spans; /* of the request: room for batch */
	size_t n;
	struct buf body;         /* encoded, not compressed */
	size_t n_bytes;          /* of the request, for the report */
	uint64_t due_ns;         /* monotonic: do not send before */
	uint64_t pause_until_ns; /* the next one neither: nobody answered */
	uint64_t sent_ns;
	unsigned attempt; /* 0: the first */
	struct rng rng;
};

void gen_slot_init(struct gen_slot *slot, struct gen *g);
void gen_slot_fini(struct gen_slot *slot);
/* Build the next request. False: there is none, the slot is through. */
bool gen_slot_fill(struct gen_slot *slot);
/* Call right before each attempt. */
void gen_slot_sent(struct gen_slot *slot);
/* Count the answer. -1: the request is settled, fill the next; else send it again in so many
 * milliseconds. */
int64_t gen_slot_settle(struct gen_slot *slot, const struct gen_verdict *v);
/* Milliseconds to sleep before looking again, at most 50; 0: the time has come. -1: give up. */
int gen_wait_ms(const struct gen *g, uint64_t until_ns);
/* The same for the first attempt of the slot's request, which is dropped when the run ends before
 * its time. */
int gen_slot_wait_ms(const struct gen_slot *slot);
/* A slot of gen_run is through. Any thread. */
void gen_slot_done(struct gen *g);

/* rejected_spans and error_message of an ExportTraceServiceResponse into *v. */
void gen_read_response(struct bytes message, struct gen_verdict *v);

/* start: set every slot to work; join: after n_running came down to 0. NULL: none was started. */
struct gen_senders;
struct gen_senders *gen_http_start(struct gen *g, struct err *err);
void gen_http_join(struct gen_senders *s);
struct gen_senders *gen_grpc_start(struct gen *g, struct err *err);
void gen_grpc_join(struct gen_senders *s);

#endif
