/* SPDX-License-Identifier: Apache-2.0
 *
 * hash_sampling.c - see hash_sampling.h.
 */
#include "wire/hash_sampling.h"

#include "base/hash.h"

enum { BUCKET_BITS = 14, BUCKETS = 1 << BUCKET_BITS, SHIFT = 56 - BUCKET_BITS };

uint64_t hash_sampling_randomness(uint32_t seed, const uint8_t trace_id[16])
{
	uint8_t key[4 + 16];
	uint64_t bucket, rest;
	uint32_t hash;

	store_le32(key, seed);
	memcpy(key + 4, trace_id, 16);
	hash = hash_fnv1a_32(key, sizeof(key));
	bucket = hash & (BUCKETS - 1);
	rest = hash >> (32 - BUCKET_BITS);
	rest ^= rest << 10;
	return (BUCKETS - 1 - bucket) << SHIFT | rest << BUCKET_BITS | bucket;
}

uint64_t hash_sampling_threshold(double percentage)
{
	float kept = (float)MIN(percentage, 100.0) * ((float)BUCKETS / 100.0f);

	return (uint64_t)(BUCKETS - (uint32_t)kept) << SHIFT;
}
