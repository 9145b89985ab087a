/* SPDX-License-Identifier: Apache-2.0
 *
 * hash.h - every hash the formats name, in one place. Pure functions, any thread.
 *
 * SPEC: FNV-1 and FNV-1a (draft-eastlake-fnv), MurmurHash3 x64 128 (Appleby), MurmurHash2 as in
 * Kafka's Java client (org.apache.kafka.common.utils.Utils.murmur2), CRC-32C (RFC 3720 appendix
 * B.4), XXH64 and XXH3 (xxhash library).
 */
#ifndef BASE_HASH_H
#define BASE_HASH_H

#include "base/base.h"

uint32_t hash_fnv1_32(const void *p, size_t n);
uint32_t hash_fnv1a_32(const void *p, size_t n);
uint64_t hash_fnv1_64(const void *p, size_t n);
uint32_t hash_murmur2(const void *p, size_t n);
void hash_murmur3_128(const void *p, size_t n, uint32_t seed, uint64_t out[2]);
/* crc of the bytes so far (0 to start) extended by n more. */
uint32_t hash_crc32c(uint32_t crc, const void *p, size_t n);
uint64_t hash_xxh64(const void *p, size_t n, uint64_t seed);
uint64_t hash_xxh3(const void *p, size_t n);

#endif
