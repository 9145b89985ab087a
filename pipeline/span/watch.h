/* SPDX-License-Identifier: Apache-2.0
 *
 * watch.h - watches of spans that a queue's log holds: from its record's fsync until the
 * record leaves the log, which may be long after the origin has settled.
 *
 *   origin settles: found by now -> told. Held only -> handed over to the logs that hold it
 *   record leaves a log: delivered -> told true; dropped, and no other log has it -> told false
 *
 * A log asks for the watches of a batch before batch_hold, keeps what it gets beside the record, in
 * memory, and gives it back with the record's end. What dies with the process was not told, so
 * nothing was made of it.
 * A watch that comes when its span is held already is not seen by that log, and its span is taken
 * for lost: who watches comes before the exporters (fan-outs call connectors first).
 * THREADS: any; one lock for the process, taken only where a watched span meets a queue's log.
 * LIMITS: 65,536 watches in logs; what is more is told false when its origin settles.
 */
#ifndef PIPELINE_SPAN_WATCH_H
#define PIPELINE_SPAN_WATCH_H

#include "pipeline/batch.h"

/* The watches of one record; a list of them belongs to whoever has its head. */
struct held_watches {
	struct held_watches *next;
	uint64_t lsn; /* the log's */
	size_t n;
	struct watch_hold *v[];
};

/* Watches of b's spans, for the log whose record of them is synced; before batch_hold. NULL when
 * nobody watches. */
struct held_watches *held_watches_of(const struct batch *b);
/* The record left the log: whoever looks for its spans finds them, or not by way of this log. Takes
 * the list (NULL is fine). */
void held_watches_end(struct held_watches *list, bool is_found);

/* For origin.c: the origin has settled. `is_taken`: the request was accepted. Tells w, or leaves
 * that to the logs. */
void span_watch_settled(struct span_watch *w, bool is_taken, bool is_found);

#endif
