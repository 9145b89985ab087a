/* SPDX-License-Identifier: Apache-2.0
 *
 * gen_stats.h - what became of the spans `spanmill gen` sent: counts, latencies, the progress line
 * and the report.
 *
 *   sent = acked + rejected + refused + failed, once nothing is under way
 *
 * Latencies are kept in a histogram of 32 steps per power of two (3 % wide), in microseconds.
 * THREADS: counters are atomics that any sender adds to; printing is one thread's.
 */
#ifndef CMD_GEN_STATS_H
#define CMD_GEN_STATS_H

#include "base/base.h"
#include "base/buf.h"

#include <pthread.h>
#include <stdatomic.h>

enum { GEN_LATENCY_STEPS = 32, GEN_LATENCY_SLOTS = 37 * GEN_LATENCY_STEPS };

struct gen_latency {
	_Atomic uint64_t slots[GEN_LATENCY_SLOTS];
	_Atomic uint64_t n, max_us;
};

struct gen_stats {
	_Atomic uint64_t requests; /* whose first attempt was made */
	_Atomic uint64_t sent;     /* spans in them */
	_Atomic uint64_t acked;
	_Atomic uint64_t rejected;   /* by partial_success */
	_Atomic uint64_t refused;    /* the answer said: later; or nobody answered */
	_Atomic uint64_t failed;     /* the answer said: never */
	_Atomic uint64_t retries;    /* attempts after the first */
	_Atomic uint64_t unanswered; /* attempts that nobody answered within the deadline */
	_Atomic uint64_t bytes;      /* of the requests, before compression */
	struct gen_latency latency;  /* of acknowledged attempts */
	uint64_t start_ns, end_ns;   /* monotonic; end 0: still running */
	pthread_mutex_t lock;        /* of what follows */
	char first_error[256];
	char first_id[33]; /* of the first trace that was acknowledged */
};

void gen_stats_init(struct gen_stats *s);
void gen_stats_fini(struct gen_stats *s);
/* Keep the first one. Any thread. */
void gen_stats_note_error(struct gen_stats *s, const char *what);
void gen_stats_note_id(struct gen_stats *s, const uint8_t trace_id[16]);

void gen_latency_add(struct gen_latency *l, uint64_t ns);
/* The latency that a share of them (0.99) does not pass, in microseconds, at most 3 % too high. */
uint64_t gen_latency_percentile(const struct gen_latency *l, double share);

/* One line without its end. `before` has the spans acknowledged and the time at the last call, and
 * is brought up to date: the rate is of the time between. */
struct gen_progress {
	uint64_t ns, acked;
};
void gen_stats_progress(const struct gen_stats *s, struct gen_progress *before, struct buf *out);
/* The final report, for people or as one JSON object. */
void gen_stats_report(struct gen_stats *s, struct buf *out);
void gen_stats_report_json(struct gen_stats *s, struct buf *out);

#endif
