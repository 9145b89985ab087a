/* SPDX-License-Identifier: Apache-2.0
 *
 * batch_record.h - what one acknowledged batch is in a segment log: whose it is, when it came, its
 * OTLP bytes.
 *
 *   [u8 version 1][u8 tenant length][u16 0][u32 spans][u64 wall clock
 *   ns][tenant][ExportTraceServiceRequest]
 *
 * Pure functions, any thread. SPEC: docs/formats/batch-record.md.
 */
#ifndef PIPELINE_BATCH_RECORD_H
#define PIPELINE_BATCH_RECORD_H

#include "base/err.h"
#include "pipeline/batch.h"

enum { BATCH_RECORD_FIXED = 16, BATCH_RECORD_HEAD_MAX = BATCH_RECORD_FIXED + TENANT_MAX };

struct batch_record {
	char tenant[TENANT_MAX + 1];
	uint32_t n_spans;
	uint64_t wall_ns;
	struct bytes otlp;
};

/* The bytes before the OTLP request; returns their number. */
size_t batch_record_head(uint8_t out[BATCH_RECORD_HEAD_MAX], const char *tenant, uint32_t n_spans,
			 uint64_t wall_ns);
/* CORRUPT when it is none of ours. otlp borrows from payload. */
int batch_record_parse(struct bytes payload, struct batch_record *r, struct err *err);

#endif
