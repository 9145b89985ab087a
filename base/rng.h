/* SPDX-License-Identifier: Apache-2.0
 *
 * rng.h - randomness: a seedable generator for jitter and tests, the kernel's for identifiers.
 *
 * SPEC: xoshiro256** (Blackman, Vigna), seeded by splitmix64; UUID version 4 of RFC 9562.
 */
#ifndef BASE_RNG_H
#define BASE_RNG_H

#include "base/base.h"

struct rng {
	uint64_t s[4];
};

/* Equal seeds give equal sequences. One thread at a time. */
void rng_seed(struct rng *r, uint64_t seed);
uint64_t rng_next(struct rng *r);
/* Uniform in [0, n); n > 0. */
uint64_t rng_below(struct rng *r, uint64_t n);
/* Uniform in [0, 1). */
double rng_unit(struct rng *r);

/* n bytes from the kernel; any thread; aborts when the kernel has none. */
void rng_kernel(void *p, size_t n);
/* Tests: rng_kernel and rng_uuid take theirs from r, which is borrowed (NULL gives the kernel
 * back); then one thread at a time may ask. */
void rng_set_kernel_for_test(struct rng *r);
/* A random UUID as 36 lower-case characters and NUL. Any thread. */
void rng_uuid(char out[37]);

#endif
