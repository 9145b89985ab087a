/* SPDX-License-Identifier: Apache-2.0
 *
 * wal_record.h - what one acknowledged batch is in a segment log: whose it is, when it came, its OTLP bytes.
 *
 *   [u8 version 1][u8 tenant length][u16 0][u32 spans][u64 wall clock ns][tenant][ExportTraceServiceRequest]
 *
 * Pure functions, any thread. SPEC: docs/formats/wal-record.md.
 */
#ifndef EXPORTERS_BLOCKS_WAL_RECORD_H
#define EXPORTERS_BLOCKS_WAL_RECORD_H

#include "base/err.h"
#include "pipeline/batch.h"

enum { WAL_RECORD_FIXED = 16, WAL_RECORD_HEAD_MAX = WAL_RECORD_FIXED + TENANT_MAX };

struct wal_record {
	char tenant[TENANT_MAX + 1];
	uint32_t n_spans;
	uint64_t wall_ns;
	struct bytes otlp;
};

/* The bytes before the OTLP request; returns their number. */
size_t wal_record_head(uint8_t out[WAL_RECORD_HEAD_MAX], const char *tenant, uint32_t n_spans, uint64_t wall_ns);
/* CORRUPT when it is none of ours. otlp borrows from payload. */
int wal_record_parse(struct bytes payload, struct wal_record *r, struct err *err);

#endif
