/* SPDX-License-Identifier: Apache-2.0
 *
 * origin.h - who is waiting for a request's spans: acknowledgements as tallies, not trees (DESIGN
 * section 3).
 *
 *   request of 3 spans -> origin {owed 3}
 *     sampler drops 1            verdict DROPPED 1      owed 2
 *     exporter delivers 2        verdict DELIVERED 2    owed 0 -> settled: the receiver answers
 *
 * Every span_ref says which origin it came from, so a batch may be split, merged or filtered
 * without bookkeeping. A span fanned out to k exporters is owed k verdicts. When nothing is owed,
 * `settled` runs once, on the thread that gave the last verdict.
 *
 * The answer: any retryable -> retryable, the client sends all again; else permanent ones ->
 * success with partial_success of that count; else success. Dropping on purpose is success with a
 * counted reason.
 *
 * The ledger (accepted = delivered + dropped{reason} + held) is written when the origin settles,
 * each span once however many exporters it fed: held if a log has it (it becomes delivered when it
 * leaves that log), else delivered if one took it, else dropped. When several logs hold a span, the
 * first one answers for it in the books: origin_settle_marked and batch_hold tell a log how many of
 * its spans those are. A request answered "retryable" counts as refused and nowhere else, except
 * for what a log holds of it. Verdicts given before any fan-out are tallies; a fan-out keeps one
 * byte per span (origin.marks) to form the union of its branches.
 *
 * THREADS: any, without locks. OWNERSHIP: the receiver embeds the origin in its request and frees
 * it in or after `settled`; a batch holding its spans keeps owed above zero and so the origin
 * alive. origin_withdraw is for whoever frees the origin (or does so on the same loop): nobody else
 * can know that it is still there.
 */
#ifndef PIPELINE_ORIGIN_H
#define PIPELINE_ORIGIN_H

#include "base/base.h"
#include "base/err.h"
#include "wire/span.h"

#include <stdatomic.h>

/* Why a span was dropped: a closed list, the label `reason` of spanmill_dropped_spans. */
enum drop_reason {
	DROP_SAMPLED,    /* a probabilistic sampler's decision */
	DROP_FILTERED,   /* a filter's rule */
	DROP_REJECTED,   /* the next hop took the request but refused the span (partial_success) */
	DROP_PERMANENT,  /* the next hop refused the request for good */
	DROP_QUEUE_FULL, /* a queue that may not block had no room */
	DROP_RETRIES_EXHAUSTED, /* retry_on_failure.max_elapsed_time passed */
	DROP_TOO_LARGE,   /* a span over the limit of what is downstream, without a dead letter */
	DROP_BEST_EFFORT, /* only best_effort exporters saw it */
	DROP_CORRUPT,     /* lost to damage of a log, counted when found */
	DROP_SHUTDOWN,    /* undelivered at exit, and no log holds it */
	DROP_REASON_MAX,
};

enum verdict {
	VERDICT_DELIVERED,
	/* Counts as delivered, but perhaps no query finds it: a dead letter, or one of several of
	 * which the next hop refused some and did not say which. */
	VERDICT_ASIDE,
	VERDICT_HELD, /* in a log of ours, synced: acknowledged, and counted again when it leaves */
	VERDICT_STORED,    /* the same, in a log that queries read: found from now on */
	VERDICT_DROPPED,   /* on purpose: success, counted by reason */
	VERDICT_PERMANENT, /* failed for good: partial_success, counted by reason */
	VERDICT_RETRYABLE,
};

/* How the origin ended, for the answer. */
struct origin_outcome {
	bool retryable;
	uint32_t n_permanent;
	const struct err *err; /* of the first failure; borrowed; ERR_NONE when none */
};

struct ledger;
struct source_range;
struct origin_marks;
struct watch_hold;

/* Who wants to know what became of a span (span/watch.h). The watch must live until it was told. */
struct span_watch {
	struct span_watch *next; /* origin.c's */
	struct watch_hold *hold; /* of the logs that hold the span; span/watch.c's */
	uint32_t ordinal;        /* of the span in its origin, or WATCH_REQUEST */
	/* Once, on the thread that settled it, which may be in the middle of things: no lock may be
	 * asked for here under which anybody settles. */
	void (*told)(struct span_watch *w, bool is_good);
};

/* Not a span, but the request as a whole. */
#define WATCH_REQUEST UINT32_MAX

struct origin {
	void (*settled)(struct origin *o); /* set by the owner; origin_outcome tells how */
	struct ledger *books;              /* NULL: none are kept (origin_init_held) */
	struct source_range *range; /* records it is of (source/source.h); NULL: a client's */
	uint32_t n_spans;
	_Atomic int64_t owed;                      /* verdicts still to come */
	_Atomic uint32_t n_permanent, n_retryable; /* verdicts, for the answer */
	/* Spans that met their one verdict outside a fan-out, for the books. */
	_Atomic uint32_t n_delivered, n_held, n_dropped[DROP_REASON_MAX];
	_Atomic uint32_t n_aside, n_stored;   /* of those delivered; of those held */
	_Atomic(struct span_watch *) watches; /* told when it settles */
	_Atomic(struct origin_marks *) marks; /* once fanned out; see origin.c */
	_Atomic int withdrawn;                /* answered before it settled */
	_Atomic int retry_reason;             /* of the first RETRYABLE verdict, + 1 */
	bool promised;                        /* the client was told "taken" before any verdict */
	_Atomic int err_claimed;
	struct err err;
};

/* The process's books. Spans; any thread. The receivers count what they accept or refuse, the
 * origins what became of it: independently, so that a lost span shows. */
struct ledger {
	_Atomic uint64_t accepted, refused;
	_Atomic uint64_t delivered;
	_Atomic int64_t held;
	_Atomic uint64_t dropped[DROP_REASON_MAX];
	_Atomic int64_t in_flight; /* origins not settled, in spans */
};

extern struct ledger ledger;
/* Of log records and of metrics (not their data points); that of traces is `ledger`. */
struct ledger *ledger_of(enum otlp_signal signal);

/* "sampled", "filtered", ...: the label of a drop reason. */
const char *drop_reason_name(enum drop_reason reason);

/* Before the spans go anywhere: n_spans are owed one verdict each. With n_spans 0 nothing is owed
 * and `settled` never runs: the owner answers at once (and calls origin_fini). */
void origin_init(struct origin *o, uint32_t n_spans, void (*settled)(struct origin *o));
/* The same for items of any signal. */
void origin_init_items(struct origin *o, enum otlp_signal signal, uint32_t n_items,
		       void (*settled)(struct origin *o));
/* The same for spans that a log of ours holds: the books were written when they came in, so none
 * are written here and origin_fini is not called; no fan-out. */
void origin_init_held(struct origin *o, uint32_t n_spans, void (*settled)(struct origin *o));
/* The client is told "taken" before the verdicts come (ack: early): what then cannot be delivered
 * is lost, not refused, and the books say so. Before the spans go anywhere. */
void origin_promise(struct origin *o);
/* Each of n spans is owed `extra` further verdicts: called by the fan-out before the branches run.
 * With n = 0 the origin is not looked at: it may be gone. */
void origin_fan_out(struct origin *o, uint32_t n, uint32_t extra);
/* True once some of the origin's spans went through a fan-out. A caller that settles spans asks
 * once per batch and origin, and then follows one way for all of them: marks, or tallies. */
bool origin_has_marks(const struct origin *o);
/* Tell `w` what becomes of its span: is_good = whoever looks for the span finds it from now on. So
 * an exporter that is not best_effort delivered it, or a log that queries read holds it; one that a
 * queue's log holds is told about when it leaves that log, and a span of a request that its client
 * sends again is not good. With WATCH_REQUEST: is_good = the request was accepted, as the ledger
 * has it (after origin_promise: in any case), which is said when it settles.
 * Called by who still owes a verdict on that span, before paying it. Any thread, no lock. Costs
 * whoever does not watch nothing. */
void origin_watch(struct origin *o, struct span_watch *w);
/* Every one of its spans is found from now on, by the verdicts so far: for an origin without
 * fan-out. */
bool origin_is_all_found(const struct origin *o);
/* The number of one of its spans, with which logs tell it from others of the epoch; 0 while there
 * are no marks. */
uint64_t origin_number(const struct origin *o, uint32_t ordinal);
/* Of this process: no two of them have the same. */
uint64_t origin_epoch(void);
/* One span's verdict, when there are marks; origin_settle_marked follows. True when the span is now
 * HELD or STORED and was not before: this log answers for it in the books. */
bool origin_mark(struct origin *o, uint32_t ordinal, enum verdict v, enum drop_reason reason);
/* n spans have this verdict. `reason` matters for DROPPED and PERMANENT, and for RETRYABLE after
 * origin_promise (DROP_REASON_MAX: none in particular); `err` (may be NULL) for
 * the failures. When this pays the last debt, `settled` runs before the call returns, and the
 * origin may be gone after it. */
void origin_settle(struct origin *o, uint32_t n, enum verdict v, enum drop_reason reason,
		   const struct err *err);
/* The same for n spans that were marked one by one. */
void origin_settle_marked(struct origin *o, uint32_t n, enum verdict v, const struct err *err);
void origin_outcome(const struct origin *o, struct origin_outcome *out);
/* Spans that met a verdict, other than "try again", before or without any fan-out. */
uint32_t origin_n_tallied(const struct origin *o);
/* The answer is "try again" although spans are still under way: what is unsent should not be sent
 * (exporters ask origin_is_withdrawn), and the ledger counts the request as refused. False when it
 * has settled already or is settling: then the settled callback's outcome is the answer. */
bool origin_withdraw(struct origin *o);
bool origin_is_withdrawn(const struct origin *o);
/* In `settled`, once: write the books. Frees what the origin owns. Returns the number of spans
 * accepted. */
uint32_t origin_fini(struct origin *o);

/* Spans found in a log at start, or leaving it later: n of those that batch_hold or ledger_found
 * spoke of. */
void ledger_found(struct ledger *l, uint64_t n);
void ledger_held_delivered(struct ledger *l, uint64_t n);
void ledger_held_dropped(struct ledger *l, uint64_t n, enum drop_reason reason);

#endif
