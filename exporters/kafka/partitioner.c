/* SPDX-License-Identifier: Apache-2.0
 *
 * partitioner.c - see partitioner.h.
 */
#include "exporters/kafka/partitioner.h"

#include "base/hash.h"

void partitioner_key(const uint8_t trace_id[16], char out[TRACE_KEY_BYTES])
{
	static const char digits[] = "0123456789abcdef";

	for (unsigned i = 0; i < 16; i++) {
		out[2 * i] = digits[trace_id[i] >> 4];
		out[2 * i + 1] = digits[trace_id[i] & 15];
	}
}

uint32_t partitioner_choose(enum hasher hasher, const uint8_t trace_id[16], uint32_t n_partitions)
{
	char key[TRACE_KEY_BYTES];
	int64_t p;

	partitioner_key(trace_id, key);
	if (hasher == HASHER_MURMUR2)
		return (hash_murmur2(key, sizeof(key)) & 0x7fffffffu) % n_partitions;
	/* Sarama divides the hash as a signed number and then drops the sign. */
	p = (int64_t)(int32_t)hash_fnv1a_32(key, sizeof(key)) % (int64_t)n_partitions;
	return (uint32_t)(p < 0 ? -p : p);
}
