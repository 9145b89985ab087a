/* SPDX-License-Identifier: Apache-2.0
 *
 * slice.h - reads parts of records of a segment log by position, many in a row.
 *
 * For callers that have read and checked the whole record before and remember a checksum of the
 * part: a slice is read as it lies on disk. Keeps the segments it read last open, so that slices
 * mostly cost one system call each.
 * THREADS: one at a time; the log's other calls may go on. OWNERSHIP: borrows the log.
 * LIMITS: SEGMENT_SLICES_OPEN descriptors.
 */
#ifndef PIPELINE_SEGMENT_SLICE_H
#define PIPELINE_SEGMENT_SLICE_H

#include "pipeline/segment/log.h"

/* As many segments as the sections of several partitions lie in, which share a log: with fewer, two
 * segments of one place are opened again for every other slice. */
enum { SEGMENT_SLICES_OPEN = 64 };

struct segment_slices {
	struct segment_log *log;
	struct {
		uint64_t segment; /* its number modulo SEGMENT_SLICES_OPEN is the place here */
		int fd;           /* -1: none */
	} open[SEGMENT_SLICES_OPEN];
};

void segment_slices_init(struct segment_slices *s, struct segment_log *log);
void segment_slices_fini(struct segment_slices *s);
/* n bytes from `off` of the payload at `at`. -1: NOT_FOUND (freed), CORRUPT (no such bytes), IO. */
int segment_slices_read(struct segment_slices *s, const struct segment_position *at, uint32_t off,
			uint32_t n, void *to, struct err *err);

#endif
