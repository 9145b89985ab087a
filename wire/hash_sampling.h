/* SPDX-License-Identifier: Apache-2.0
 *
 * hash_sampling.h - the Collector's older sampling rule, said in the terms of consistent sampling.
 *
 *   hash    = FNV-1a 32 of (seed, 4 bytes little endian; trace id)
 *   bucket  = hash & 0x3fff                      kept: bucket < percentage * 163.84
 *   R       = (16383 - bucket) << 42 | mix << 14 | bucket
 *   T       = (16384 - buckets kept) << 42       so that R >= T says the same
 *
 * A fleet in which some nodes still run a Collector with this rule agrees bit by bit.
 *
 * SPEC: probabilistic_sampler of the OpenTelemetry Collector, mode hash_seed. Pure functions, any
 * thread.
 */
#ifndef WIRE_HASH_SAMPLING_H
#define WIRE_HASH_SAMPLING_H

#include "base/base.h"

/* The 56-bit randomness that this seed gives a trace. */
uint64_t hash_sampling_randomness(uint32_t seed, const uint8_t trace_id[16]);
/* The threshold of a percentage: a multiple of 2^42; 0 keeps all, TRACESTATE_W56 keeps nothing (a
 * percentage under 1/163.84 does). Single precision, as the original. */
uint64_t hash_sampling_threshold(double percentage);

#endif
