/* SPDX-License-Identifier: Apache-2.0
 *
 * partitioner.h - the partition of a trace: that of a record whose key is the trace id as 32
 * lower-case hex characters, as other clients choose it.
 *
 * SPEC: murmur2: Kafka's Java client (BuiltInPartitioner.partitionForKey); sarama_compat: 32-bit
 * FNV-1a as in Sarama and the Collector (SaramaCompatHasher).
 */
#ifndef EXPORTERS_KAFKA_PARTITIONER_H
#define EXPORTERS_KAFKA_PARTITIONER_H

#include "base/base.h"

enum hasher { HASHER_MURMUR2, HASHER_SARAMA_COMPAT };

enum { TRACE_KEY_BYTES = 32 };

/* The key itself; no NUL. */
void partitioner_key(const uint8_t trace_id[16], char out[TRACE_KEY_BYTES]);
/* 0 .. n_partitions - 1; n_partitions > 0. Pure, any thread. */
uint32_t partitioner_choose(enum hasher hasher, const uint8_t trace_id[16], uint32_t n_partitions);

#endif
