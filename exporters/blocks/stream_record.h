/* SPDX-License-Identifier: Apache-2.0
 *
 * stream_record.h - what lies in the scratch of a stream: a batch, and which of its spans came at
 * which offset.
 *
 *   [head of a batch record][u32 runs][runs x {u64 offset, u32 spans}][ExportTraceServiceRequest]
 *
 * Little-endian. Lives as long as the process: the scratch is emptied at start. Pure functions.
 */
#ifndef EXPORTERS_BLOCKS_STREAM_RECORD_H
#define EXPORTERS_BLOCKS_STREAM_RECORD_H

#include "base/buf.h"
#include "pipeline/batch_record.h"

struct stream_run {
	uint64_t offset;
	uint32_t n_spans; /* in a row, in the order of the request */
};

struct stream_record {
	struct batch_record batch; /* its otlp is the request alone */
	struct bytes runs;
	uint32_t n_runs;
};

/* All that stands before the request of b, whose spans all have a range (origin.range). *first and
 * *last get the lowest and highest offset. */
void stream_record_head(const struct batch *b, uint64_t wall_ns, struct buf *out, uint64_t *first,
			uint64_t *last);
/* CORRUPT when it is none of ours. Borrows from payload. */
int stream_record_parse(struct bytes payload, struct stream_record *r, struct err *err);
struct stream_run stream_record_run(const struct stream_record *r, uint32_t i);
/* One byte per span, 1 for those with an offset in [first, last]. Returns how many there are. */
uint32_t stream_record_mask(const struct stream_record *r, uint64_t first, uint64_t last,
			    struct buf *mask);

#endif
