/* SPDX-License-Identifier: Apache-2.0
 *
 * reader.h - reads a segment log in LSN order, as soon as records are durable.
 *
 * Any number of readers per log, each used by one thread at a time. Reads 512 KiB at a time, so
 * a cold backlog drains at disk speed in flat memory: one chunk per reader, more only while a
 * record is larger. Holds one descriptor.
 * SPEC: docs/formats/segment-log.md "Reading".
 */
#ifndef PIPELINE_SEGMENT_READER_H
#define PIPELINE_SEGMENT_READER_H

#include "pipeline/segment/log.h"

struct segment_reader;

struct segment_record {
	uint64_t lsn;
	struct bytes payload;	/* borrowed: valid until the next call on the reader */
	struct segment_position position;
};

/* The first record will be the lowest wanted one with an LSN >= from_lsn. Cannot fail. */
struct segment_reader *segment_reader_new(struct segment_log *log, uint64_t from_lsn);
/* 1: *rec is filled. 0: caught up, ask again after segment_log_wait(log, segment_reader_lsn(r),
 * ...). -1: *err says which LSNs are damaged; they are skipped and counted, the next call goes
 * on behind them - or, err->retryable, a system call failed and the next call tries the same
 * again. */
int segment_reader_next(struct segment_reader *r, struct segment_record *rec, struct err *err);
/* Nothing is to be read for a while: give back the memory that a large record took. The payload of
 * the last one is void. */
void segment_reader_rest(struct segment_reader *r);
/* The LSN at which the next call looks. */
uint64_t segment_reader_lsn(const struct segment_reader *r);
/* Before segment_log_close. NULL is fine. */
void segment_reader_free(struct segment_reader *r);

#endif
