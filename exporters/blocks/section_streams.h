/* SPDX-License-Identifier: Apache-2.0
 *
 * section_streams.h - ordered sources (Kafka partitions) as sections of blocks, each offset in
 * exactly one committed section, whoever else believes to own the source (DESIGN section 6).
 *
 *   batch --by source--> scratch (not synced) --> chunks: index of what is in no block yet
 *                                                    |
 *   complete stretch of offsets --source_claim--> window --build, commit, publish--> settled
 *
 * Unlike the log (section_log.h) nothing is acknowledged before its section is committed: the
 * source keeps the records, so the scratch is never synced and empty at start. One scratch and one
 * builder serve all sources. What a batch owes stays parked in its source
 * (pipeline/source/source.h), without the batch's bytes.
 *
 * A section closes by bytes, traces, age, tenants, before building it would take more than a third
 * of the memory budget, and earlier (the largest) when the budget is nearly spent. It holds whole
 * ranges only; ranges whose spans still wait in a processor are left to the next one.
 *
 * THREADS: append, find: any. open: the receiver's. start, stop: the owner.
 * OWNERSHIP: owns scratch, streams and builder; borrows the store. A stream ends when its source is
 * closed.
 * LIMITS: the index is charged (forced) to the budget.
 * SPEC: docs/formats/section-commit.md, docs/decisions/003.
 */
#ifndef EXPORTERS_BLOCKS_SECTION_STREAMS_H
#define EXPORTERS_BLOCKS_SECTION_STREAMS_H

#include "exporters/blocks/section_log.h"
#include "pipeline/source/source.h"

struct section_streams;

struct section_streams_options {
	struct section_log_options o; /* dir: of the scratch; sent: counted when published */
	const char *exporter;         /* the part of its id behind the '/', or "": exporters of one
	                                 source commit apart */
	bool flush_at_end;            /* of a source: publish what is complete; else refuse it */
	bool by_hand;                 /* tests: no thread, section_streams_step instead */
};

struct section_streams_stats {
	struct section_log_stats s;
	uint64_t followed; /* sections that somebody else had committed */
	uint64_t given_up; /* times that what was open was refused, to be read again */
	uint64_t streams;
};

/* NULL on error. The texts are copied. */
struct section_streams *section_streams_start(const struct section_streams_options *o,
					      struct err *err);
/* Attach to a source that is about to send. */
int section_streams_open(struct section_streams *m, struct source *s, struct err *err);
/* More sources are to come from `whom` (a name only) that are not known yet, or (off) not any more.
 * Until then, and until each source is whole (source_is_whole), a look-up is incomplete: an owner
 * before us may have shown what we have not read yet. */
void section_streams_expect(struct section_streams *m, const void *whom, bool on);
/* True when some span of the batch is of a source. */
bool section_streams_concerns(const struct batch *b);
/* Take the spans of b that are of sources; *rest gets the others (NULL: none). Takes b. Never
 * blocks. */
void section_streams_append(struct section_streams *m, struct batch *b, struct batch **rest);
void section_streams_cut(struct section_streams *m);
/* Nothing is being built, or waits for it. */
bool section_streams_is_idle(struct section_streams *m);
bool section_streams_is_failing(struct section_streams *m, char *why, size_t why_size);
void section_streams_stats(struct section_streams *m, struct section_streams_stats *out);
/* by_hand: cut what is due at this (monotonic) time and take one step of one section. False when
 * there was nothing to do. */
bool section_streams_step(struct section_streams *m, uint64_t now_ns);
/* by_hand: everything appended so far is in the chunks. */
void section_streams_settle_appends(struct section_streams *m);
/* Stop the builder after the step it is at. Every source must be closed. NULL is fine. */
void section_streams_stop(struct section_streams *m);

#endif
