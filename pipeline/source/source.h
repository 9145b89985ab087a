/* SPDX-License-Identifier: Apache-2.0
 *
 * source.h - an ordered stream of records (a Kafka partition): which of them are under way, and how
 * far everybody is done with them.
 *
 *   receiver --source_add--> [10..14 settled][15..22 under way][23..29 refused] ...   by offset
 *                                  |               |                |
 *   committable: 15 <--------------+               |                +--> read again: source_place
 *   sink (blocks exporter) claims whole, complete ranges: source_claim; source_release when stored
 *
 * DESIGN: one range = consecutive records of one tenant that went down the pipeline as one batch;
 * its origin says when all its spans met their verdict. Verdicts alone do not tell a sink which
 * stretch of offsets its section may speak for: spans may be dropped on the way, or still wait in a
 * processor. So the source keeps the ranges in order, each with what every sink has of it. A range
 * is complete for a sink when all its spans arrived there or met their verdict before any fan-out;
 * or when nobody but sinks still owes it anything.
 *   The position behind which the source may be forgotten (committed to Kafka) is a position up to
 * which every sink has released everything, so it never runs ahead of a sink's commit: a section of
 * whoever comes next begins where one of ours ended, and the two cannot overlap unseen.
 *
 * THREADS: any; one lock, taken once per range and batch, never per span. Sinks' callbacks run
 * without it. The receiver's functions are called by one thread at a time.
 * OWNERSHIP: the receiver makes source and ranges; the source frees ranges. It lives until the
 * receiver let it go and every origin has settled.
 * LIMITS: what is under way is bounded by the memory budget of the batches and the sinks' limits.
 * SPEC: DESIGN sections 5 and 6; docs/decisions/003.
 */
#ifndef PIPELINE_SOURCE_SOURCE_H
#define PIPELINE_SOURCE_SOURCE_H

#include "base/budget.h"
#include "base/err.h"
#include "pipeline/origin.h"

#include <pthread.h>

enum { SOURCE_SINKS_MAX = 4, SOURCE_SEGMENT_MAX = 240 };

struct source;
struct source_range;
struct transport_counters;

/* One record; what a section's commit is named by, and what tells its spans' offsets. */
struct source_record {
	uint64_t offset;
	uint64_t timestamp_ms;
	uint32_t first_span; /* ordinal of its first span in the range */
};

enum source_state {
	SOURCE_UNDER_WAY,
	SOURCE_SETTLED, /* for good */
	SOURCE_REFUSED, /* to be read again; stays as a place holder */
};

/* What one sink has of a range. */
struct source_share {
	uint32_t n_spans;   /* that arrived and are not settled by it */
	uint32_t *ordinals; /* of these, when the origin has marks */
	size_t n_ordinals, cap_ordinals;
	bool is_refused; /* the sink gave up: whatever else comes is refused too */
};

struct source_range {
	struct origin origin; /* of its spans */
	struct source *source;
	uint64_t first, last; /* offsets, inclusive */
	uint32_t n_records;
	struct source_record *records; /* ascending; at least one */
	uint64_t added_mono_ns;
	/* the source's lock */
	enum source_state state;
	bool is_awaited;   /* refused, and source_rewind spoke of it */
	unsigned n_passed; /* times that it was awaited and did not come */
	uint32_t n_parked; /* verdicts that sinks have and do not give yet */
	struct source_share share[SOURCE_SINKS_MAX];
	struct source_range *prev, *next;
};

/* Who keeps a source's spans in stretches of offsets; embedded by the exporter. */
struct source_sink {
	/* Something is under way behind the last claim, after nothing was. */
	void (*added)(struct source_sink *sink);
	/* Store what is complete now. `last`: nothing will follow. Returns at once. */
	void (*cut)(struct source_sink *sink, bool last);
	/* The source is somebody else's now: refuse what is not stored, call source_detach. */
	void (*close)(struct source_sink *sink);
	/* More than a little of what it was given is in memory only: the receiver waits some
	 * milliseconds. NULL: never. Takes no lock. */
	bool (*is_behind)(const struct source_sink *sink);
	/* the source's */
	struct source *source;
	unsigned index;
	struct source_range *cursor; /* the first one that is in no claim; NULL: none */
	uint64_t claimed, released;  /* offsets below are in a claim; are stored */
	uint64_t whole_to;           /* offsets below had all come once */
};

/* How far it is: what the receiver looks at between polls. */
struct source_progress {
	uint64_t committable;         /* everything below is done with; 0: nothing yet */
	bool has_refused;             /* source_rewind is called for */
	uint32_t n_under_way;         /* ranges */
	uint64_t oldest_timestamp_ms; /* of the first record not done with; 0: there is none */
	struct err why;               /* of the last refusal */
};

struct source_options {
	const char *name; /* "group/cluster/topic/partition", of source_segment()s; copied */
	uint32_t partition, n_partitions;
	struct transport_counters *count; /* accepted and refused spans; may be NULL */
	struct budget *budget;            /* charged (forced) with the ranges; may be NULL */
};

/* ---- the receiver ---- */

struct source *source_new(const struct source_options *o);
/* Ranges still under way keep it alive. NULL is fine. */
void source_unref(struct source *s);
const char *source_name(const struct source *s);
uint32_t source_partition(const struct source *s);
uint32_t source_n_partitions(const struct source *s);
/* Any text as one segment of a name: what is not of [A-Za-z0-9_-] or a dot inside becomes %XX; long
 * ones end in a hash. */
void source_segment(const char *text, char out[SOURCE_SEGMENT_MAX + 1]);

/* A range of these records, of n_spans spans (which batch_bind then binds to its origin). Takes the
 * array. Not yet part of the source. */
struct source_range *source_range_new(struct source *s, struct source_record *records,
				      uint32_t n_records, uint32_t n_spans);
/* Put it in its place, before its batch is emitted. With no spans it is settled at once. */
void source_add(struct source *s, struct source_range *r);

enum source_place {
	SOURCE_NEW,   /* not seen, or refused before: to be sent down the pipeline */
	SOURCE_KNOWN, /* under way or settled, or refused since the last rewind: pass over it */
};
/* What to do with the record at this offset; *limit gets the highest offset that may share a range
 * with it. Ranges that were to be read again and lie wholly before it have not come: when the topic
 * begins behind them by now, or after some attempts, they are forgotten. */
enum source_place source_place(struct source *s, uint64_t offset, uint64_t *limit);
/* True when something was refused, or the range added last is being refused: no more should be
 * sent down before source_rewind. Cheap. */
bool source_is_refusing(struct source *s);
/* True while a sink is behind with writing: what is sent down now lies in memory. */
bool source_is_behind(struct source *s);
/* The offset from which to read on, so that all that was refused comes again; UINT64_MAX: nothing
 * was. */
uint64_t source_rewind(struct source *s);
void source_poll(struct source *s, struct source_progress *out);
/* Ask every sink to store what is complete. */
void source_cut(struct source *s, bool last);
/* The partition went to somebody else, or the process ends: sinks refuse what is not stored, and
 * nothing is committable any more. */
void source_close(struct source *s);
/* What was in the topic when the receiver took it has been added: source_is_whole. */
void source_set_caught_up(struct source *s);
/* Where the topic begins now: commits below may be swept. */
void source_set_low_watermark(struct source *s, uint64_t offset);
uint64_t source_low_watermark(const struct source *s);

/* ---- sinks ---- */

/* -1: there are SOURCE_SINKS_MAX already. Before the first source_add. */
int source_attach(struct source *s, struct source_sink *sink, struct err *err);
/* In close, after source_give_up: nothing of this source concerns the sink any more. */
void source_detach(struct source_sink *sink);

/* The range that these spans are of, or NULL. */
static inline struct source_range *source_range_of(const struct origin *o)
{
	return o->range;
}

/* The record of a span; borrows from the range. Without the lock: records do not change. */
const struct source_record *source_record_of(const struct source_range *r, uint32_t ordinal);

enum source_arrival {
	SOURCE_PARKED,  /* the sink has the duty now */
	SOURCE_STORED,  /* all of the range is stored already: settle as delivered */
	SOURCE_GIVEN_UP /* settle as retryable */
};
/* What would become of spans of this range now, without parking them. */
enum source_arrival source_ask(struct source_sink *sink, struct source_range *r);
/* n spans have come, whose duty the caller has. `ordinals` when the origin has marks, else NULL. */
enum source_arrival source_park(struct source_sink *sink, struct source_range *r, uint32_t n,
				const uint32_t *ordinals);

/* A stretch of the source that may become a section. */
struct source_claim {
	struct source_record *records; /* all of it, first_span unused; free() */
	size_t n_records;
	uint64_t n_spans; /* of it, at this sink */
	bool is_doomed;   /* what follows can never be complete: source_give_up */
};
/* Claim what is complete behind the last claim, at most about max_spans. False: nothing is. */
bool source_claim(struct source_sink *sink, uint64_t max_spans, struct source_claim *out);
/* Monotonic time since when something that is not claimed has been under way; 0: nothing is. */
uint64_t source_oldest_unclaimed(struct source_sink *sink);
/* Does the sink have, or has it stored, all that an owner before us may have shown of the source,
 * and all that we have? Not before the receiver caught up and the sink got what it read until then,
 * nor while something is refused that is to be read again. */
bool source_is_whole(struct source_sink *sink);
/* Settle what is parked up to this offset, inclusive. */
void source_settle(struct source_sink *sink, uint64_t upto, enum verdict v, const struct err *err);
/* All up to this offset is stored and settled. */
void source_release(struct source_sink *sink, uint64_t upto);
/* Claims from this offset on are void: refuse what is parked of them and of what is in no claim
 * yet, and what still comes of it. */
void source_give_up(struct source_sink *sink, uint64_t claimed, const struct err *why);

#endif
