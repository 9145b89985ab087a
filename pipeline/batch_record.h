/* SPDX-License-Identifier: Apache-2.0
 *
 * batch_record.h - what one acknowledged batch is in a segment log: whose it is, when it came, its
 * OTLP bytes.
 *
 *   [u8 version 1, and 16 times the signal][u8 tenant length][u16 length of the trailer]
 *   [u32 spans][u64 wall clock ns][tenant][ExportTraceServiceRequest]
 *   [trailer: numbers of the spans, span/numbers.h]
 *
 * Any thread. SPEC: docs/formats/batch-record.md.
 */
#ifndef PIPELINE_BATCH_RECORD_H
#define PIPELINE_BATCH_RECORD_H

#include "base/err.h"
#include "pipeline/batch.h"
#include "pipeline/segment/log.h"

enum { BATCH_RECORD_FIXED = 16, BATCH_RECORD_HEAD_MAX = BATCH_RECORD_FIXED + TENANT_MAX };

struct batch_record {
	char tenant[TENANT_MAX + 1];
	enum otlp_signal signal;
	uint32_t n_spans; /* or items */
	uint64_t wall_ns;
	struct bytes otlp, numbers;
};

/* The bytes before the OTLP request; returns their number. n_trailer bytes follow the request. */
size_t batch_record_head(uint8_t out[BATCH_RECORD_HEAD_MAX], enum otlp_signal signal,
			 const char *tenant, uint32_t n_spans, uint64_t wall_ns,
			 uint16_t n_trailer);
/* The whole record of b as pieces, in a->iov; the head goes to `head`, the rest lives in the batch
 * and the arena. */
void batch_record_lay_out(const struct batch *b, uint64_t wall_ns, struct arena *arena,
			  uint8_t head[BATCH_RECORD_HEAD_MAX], struct segment_append *a);
/* CORRUPT when it is none of ours. otlp and numbers borrow from payload. */
int batch_record_parse(struct bytes payload, struct batch_record *r, struct err *err);

#endif
