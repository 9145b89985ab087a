/* SPDX-License-Identifier: Apache-2.0
 *
 * section_log.h - the life of acknowledged spans between the log and visible blocks (DESIGN
 * section 6).
 *
 *   append (synced) -> open -> closed -> build, commit, publish -> retiring -> log freed
 *                      '-------------- answers queries all the while -------------'
 *
 * The log is the truth; sections are an index over it. The open section closes by bytes, traces,
 * age, number of tenants, and before building it would take more than a third of the memory budget;
 * a builder thread publishes one closed section at a time. A failure is tried again with back-off
 * and loses nothing. A published section is found in its blocks, which this process's store knows
 * at once, so its index goes; its records stay in the log for two more polls of the store.
 *
 * THREADS: append, find: any. start, stop: the owner. The builder and the log's writer are threads
 * of their own. OWNERSHIP: owns log, sections and builder; borrows the store.
 * LIMITS: the index of all sections is charged (forced) to the budget, so that a store that cannot
 * be written pushes back on the receivers.
 */
#ifndef EXPORTERS_BLOCKS_SECTION_LOG_H
#define EXPORTERS_BLOCKS_SECTION_LOG_H

#include "blocks/block_writer.h"
#include "blocks/store.h"
#include "pipeline/batch.h"

struct section_log;
struct segment_io;

struct section_log_options {
	struct store *store;
	const char *dir;                            /* of the log */
	uint64_t max_block_bytes, max_block_traces; /* 0: no limit */
	uint64_t max_block_age_ns;
	struct block_writer_options writer;
	struct budget *budget;
	_Atomic uint64_t *sent;          /* counts spans as they become durable; may be NULL */
	const struct segment_io *log_io; /* fault tests: the log's system calls */
};

struct section_log_stats {
	uint64_t blocks_written, sections, build_failures;
	uint64_t duplicates, conflicting;
	uint64_t lost_spans;                /* to damage of the log, after they were indexed */
	uint64_t lost_records, quarantined; /* of the log: records, files */
	uint64_t live_spans, live_bytes, live_traces; /* not in a published section */
	uint64_t log_bytes;
	char last_error[256]; /* of the attempt under way; empty when all is well */
};

/* Take the log, finish what a crash left, index what is not committed, start the builder. Replays
 * on the caller's thread. NULL on error. */
struct section_log *section_log_start(const struct section_log_options *o, struct err *err);
/* Make the batch durable: settles it HELD (or RETRYABLE; PERMANENT when one span alone is over the
 * log's limit) and drops the reference. Takes b. Never blocks. */
void section_log_append(struct section_log *l, struct batch *b);
/* Close what is open now. section_log_is_idle tells when everything is published. */
void section_log_cut(struct section_log *l);
bool section_log_is_idle(struct section_log *l);
/* True, with the reason, while spans cannot be acknowledged or blocks cannot be written. */
bool section_log_is_failing(struct section_log *l, char *why, size_t why_size);
void section_log_stats(struct section_log *l, struct section_log_stats *out);
/* Stop the builder (after the step it is at; what is not published stays in the log) and close.
 * NULL is fine. */
void section_log_stop(struct section_log *l);

#endif
