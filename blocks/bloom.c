/* SPDX-License-Identifier: Apache-2.0
 *
 * bloom.c - see bloom.h. All shards are one allocation of equal strides.
 */
#include "blocks/bloom.h"

#include "base/hash.h"
#include "base/mem.h"

#include <math.h>

struct bloom {
	struct bloom_shape shape;
	size_t stride; /* bytes per shard object */
	uint8_t bytes[];
};

struct bloom_shape bloom_shape_for(uint64_t n, double fp, uint32_t shard_bytes)
{
	/* In doubles and in this order, so that the sizes are Tempo's to the bit. */
	double count = (double)MAX(n, UINT64_C(1));
	double bits = ceil(-1 * count * log(fp) / pow(log(2), 2));
	double k = ceil(log(2) * bits / count);
	double shards = ceil(bits / (8.0 * shard_bytes));
	struct bloom_shape s = { 0, 0, 8 * (uint64_t)shard_bytes };

	assert(fp > 0 && fp < 1 && shard_bytes > 0);
	s.shards = (uint32_t)fmin(fmax(shards, 1), BLOOM_SHARDS_MAX);
	s.k = (uint32_t)fmin(fmax(k, 1), BLOOM_K_MAX);
	return s;
}

static size_t words(uint64_t m)
{
	return (size_t)(m / 64 + (m % 64 != 0));
}

struct bloom *bloom_new(struct bloom_shape shape)
{
	size_t stride = BLOOM_HEAD + 8 * words(shape.m);
	struct bloom *b = xcalloc(1, sizeof(*b) + shape.shards * stride);

	b->shape = shape;
	b->stride = stride;
	for (uint32_t i = 0; i < shape.shards; i++) {
		uint8_t *p = b->bytes + i * stride;

		store_be64(p, shape.m);
		store_be64(p + 8, shape.k);
		store_be64(p + 16, shape.m);
	}
	return b;
}

void bloom_free(struct bloom *b)
{
	free(b);
}

uint32_t bloom_shard_of(const uint8_t id[16], uint32_t shards)
{
	return hash_fnv1_32(id, 16) % shards;
}

/* The four words every bit position is made of. */
static void base_hashes(const uint8_t id[16], uint64_t h[4])
{
	uint8_t longer[17];

	memcpy(longer, id, 16);
	longer[16] = 1;
	hash_murmur3_128(id, 16, 0, h);
	hash_murmur3_128(longer, 17, 0, h + 2);
}

static uint64_t location(const uint64_t h[4], uint32_t i, uint64_t m)
{
	return (h[i % 2] + i * h[2 + (i + i % 2) % 4 / 2]) % m;
}

/* The byte of bit i, words being big-endian. */
static size_t byte_of(uint64_t i)
{
	return (size_t)(BLOOM_HEAD + i / 64 * 8 + 7 - i % 64 / 8);
}

void bloom_add(struct bloom *b, const uint8_t id[16])
{
	uint8_t *p = b->bytes + bloom_shard_of(id, b->shape.shards) * b->stride;
	uint64_t h[4];

	base_hashes(id, h);
	for (uint32_t i = 0; i < b->shape.k; i++) {
		uint64_t bit = location(h, i, b->shape.m);

		p[byte_of(bit)] |= (uint8_t)(1u << bit % 8);
	}
}

struct bytes bloom_shard_bytes(const struct bloom *b, uint32_t i)
{
	assert(i < b->shape.shards);
	return (struct bytes){ b->bytes + i * b->stride, b->stride };
}

int bloom_check(struct bytes shard, struct err *err)
{
	uint64_t m = 0, k = 0;

	if (shard.n < BLOOM_HEAD)
		return err_set(err, ERR_CORRUPT, "bloom: only %zu of 24 head bytes", shard.n);
	m = load_be64(shard.p);
	k = load_be64(shard.p + 8);
	if (m == 0 || m != load_be64(shard.p + 16))
		return err_set(err, ERR_CORRUPT, "bloom: m is %llu, bit set length is %llu",
			       (unsigned long long)m, (unsigned long long)load_be64(shard.p + 16));
	if (k == 0 || k > BLOOM_K_MAX)
		return err_set(err, ERR_CORRUPT, "bloom: k is %llu, must be 1 to %d",
			       (unsigned long long)k, BLOOM_K_MAX);
	if (words(m) != (shard.n - BLOOM_HEAD) / 8 || (shard.n - BLOOM_HEAD) % 8 != 0)
		return err_set(err, ERR_CORRUPT, "bloom: %zu bytes do not hold %llu bits", shard.n,
			       (unsigned long long)m);
	return 0;
}

int bloom_test(struct bytes shard, const uint8_t id[16], struct err *err)
{
	uint64_t m = 0, k = 0, h[4];

	if (bloom_check(shard, err) < 0)
		return -1;
	m = load_be64(shard.p);
	k = load_be64(shard.p + 8);
	base_hashes(id, h);
	for (uint32_t i = 0; i < k; i++) {
		uint64_t bit = location(h, i, m);

		if (!(shard.p[byte_of(bit)] & 1u << bit % 8))
			return 0;
	}
	return 1;
}

/* ---- folded ----
 *
 *   object   [word 0][word 1][word 2][word 3]         bit x mod m
 *   folded   [0 or 2][1 or 3]                         bit x mod m/2: m/2 divides m
 */

struct folded {
	uint64_t m; /* bits, after folding */
	uint64_t k;
	uint64_t words[];
};

/* Set bits, from one word in SAMPLE of a large filter: hashes spread evenly, and a count that is
 * off costs a few needless reads at worst. */
static uint64_t estimate_bits(struct bytes shard)
{
	enum { SAMPLE = 8, SMALL = 4096 };
	size_t step = shard.n > SMALL ? SAMPLE : 1;
	uint64_t n = 0;

	for (size_t i = BLOOM_HEAD; i < shard.n; i += 8 * step)
		n += (uint64_t)__builtin_popcountll(load_be64(shard.p + i));
	return n * step;
}

/* Half as many bits as long as whole words fold onto whole words and so many of the bits stay clear
 * that an id passes by chance no more often than FOLDED_FALSE_POSITIVE. */
static uint64_t folded_bits(uint64_t m, uint64_t k, uint64_t n_set)
{
	while (m % 128 == 0 &&
	       pow((double)n_set / (double)(m / 2), (double)k) <= BLOOM_FOLDED_FALSE_POSITIVE)
		m /= 2;
	return m;
}

void bloom_fold(struct bytes shard, struct buf *out)
{
	uint64_t m = load_be64(shard.p), k = load_be64(shard.p + 8);
	uint64_t to = folded_bits(m, k, estimate_bits(shard));
	size_t n = words(to), at = 0, size = sizeof(struct folded) + n * sizeof(uint64_t);
	struct folded *f = xcalloc(1, size);

	f->m = to;
	f->k = k;
	for (size_t i = BLOOM_HEAD; i < shard.n; i += 8) {
		f->words[at] |= load_be64(shard.p + i);
		at = at + 1 == n ? 0 : at + 1;
	}
	buf_add(out, f, size);
	free(f);
}

bool bloom_folded_test(struct bytes folded, const uint8_t id[16])
{
	const struct folded *f = (const struct folded *)(const void *)folded.p;
	uint64_t h[4];

	base_hashes(id, h);
	for (uint32_t i = 0; i < f->k; i++) {
		uint64_t bit = location(h, i, f->m);

		if (!(f->words[bit / 64] >> bit % 64 & 1))
			return false;
	}
	return true;
}
