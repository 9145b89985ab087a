/* SPDX-License-Identifier: Apache-2.0
 *
 * hash.c - see hash.h. XXH comes from the xxhash library, included as header so that short keys
 * inline.
 */
#include "base/hash.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#if defined(__x86_64__)
#include <nmmintrin.h>
#endif

uint32_t hash_fnv1_32(const void *p, size_t n)
{
	const uint8_t *b = p;
	uint32_t h = 0x811c9dc5u;

	for (size_t i = 0; i < n; i++) {
		h *= 0x01000193u;
		h ^= b[i];
	}
	return h;
}

uint32_t hash_fnv1a_32(const void *p, size_t n)
{
	const uint8_t *b = p;
	uint32_t h = 0x811c9dc5u;

	for (size_t i = 0; i < n; i++) {
		h ^= b[i];
		h *= 0x01000193u;
	}
	return h;
}

uint64_t hash_fnv1_64(const void *p, size_t n)
{
	const uint8_t *b = p;
	uint64_t h = UINT64_C(0xcbf29ce484222325);

	for (size_t i = 0; i < n; i++) {
		h *= UINT64_C(0x100000001b3);
		h ^= b[i];
	}
	return h;
}

uint32_t hash_murmur2(const void *p, size_t n)
{
	const uint8_t *b = p;
	const uint32_t m = 0x5bd1e995u;
	uint32_t h = 0x9747b28cu ^ (uint32_t)n;
	size_t left = n;

	for (; left >= 4; left -= 4, b += 4) {
		uint32_t k = load_le32(b);

		k *= m;
		k ^= k >> 24;
		k *= m;
		h *= m;
		h ^= k;
	}
	if (left == 3)
		h ^= (uint32_t)b[2] << 16;
	if (left >= 2)
		h ^= (uint32_t)b[1] << 8;
	if (left >= 1) {
		h ^= b[0];
		h *= m;
	}
	h ^= h >> 13;
	h *= m;
	return h ^ h >> 15;
}

static uint64_t rotl64(uint64_t x, int r)
{
	return x << r | x >> (64 - r);
}

static uint64_t fmix64(uint64_t k)
{
	k ^= k >> 33;
	k *= UINT64_C(0xff51afd7ed558ccd);
	k ^= k >> 33;
	k *= UINT64_C(0xc4ceb9fe1a85ec53);
	return k ^ k >> 33;
}

/* The last n < 16 bytes as two little-endian words. */
static void murmur3_tail(const uint8_t *p, size_t n, uint64_t *k1, uint64_t *k2)
{
	uint8_t pad[16] = { 0 };

	if (n)
		memcpy(pad, p, n);
	*k1 = load_le64(pad);
	*k2 = load_le64(pad + 8);
}

void hash_murmur3_128(const void *p, size_t n, uint32_t seed, uint64_t out[2])
{
	const uint64_t c1 = UINT64_C(0x87c37b91114253d5), c2 = UINT64_C(0x4cf5ad432745937f);
	const uint8_t *b = p;
	uint64_t h1 = seed, h2 = seed, k1, k2;
	size_t left = n;

	for (; left >= 16; left -= 16, b += 16) {
		k1 = load_le64(b);
		k2 = load_le64(b + 8);
		h1 ^= rotl64(k1 * c1, 31) * c2;
		h1 = (rotl64(h1, 27) + h2) * 5 + 0x52dce729;
		h2 ^= rotl64(k2 * c2, 33) * c1;
		h2 = (rotl64(h2, 31) + h1) * 5 + 0x38495ab5;
	}
	murmur3_tail(b, left, &k1, &k2);
	h2 ^= rotl64(k2 * c2, 33) * c1;
	h1 ^= rotl64(k1 * c1, 31) * c2;
	h1 ^= n;
	h2 ^= n;
	h1 += h2;
	h2 += h1;
	h1 = fmix64(h1);
	h2 = fmix64(h2);
	h1 += h2;
	h2 += h1;
	out[0] = h1;
	out[1] = h2;
}

/* Slicing-by-8 for machines without the instruction. */
static uint32_t crc32c_tables[8][256];

static void crc32c_init_tables(void)
{
	for (uint32_t i = 0; i < 256; i++) {
		uint32_t c = i;

		for (int k = 0; k < 8; k++)
			c = c & 1 ? c >> 1 ^ 0x82f63b78u : c >> 1;
		crc32c_tables[0][i] = c;
	}
	for (uint32_t i = 0; i < 256; i++)
		for (int t = 1; t < 8; t++)
			crc32c_tables[t][i] = crc32c_tables[t - 1][i] >> 8 ^
					      crc32c_tables[0][crc32c_tables[t - 1][i] & 0xff];
}

static uint32_t crc32c_soft(uint32_t crc, const uint8_t *p, size_t n)
{
	for (; n >= 8; n -= 8, p += 8) {
		uint32_t lo = load_le32(p) ^ crc, hi = load_le32(p + 4);

		crc = crc32c_tables[7][lo & 0xff] ^ crc32c_tables[6][lo >> 8 & 0xff] ^
		      crc32c_tables[5][lo >> 16 & 0xff] ^ crc32c_tables[4][lo >> 24] ^
		      crc32c_tables[3][hi & 0xff] ^ crc32c_tables[2][hi >> 8 & 0xff] ^
		      crc32c_tables[1][hi >> 16 & 0xff] ^ crc32c_tables[0][hi >> 24];
	}
	while (n--)
		crc = crc >> 8 ^ crc32c_tables[0][(crc ^ *p++) & 0xff];
	return crc;
}

/* The instruction takes three cycles and one can start every cycle: three blocks that follow one
 * another are summed side by side, and the sums joined. crc32c_shift says what CRC_BLOCK zero bytes
 * make of a sum, byte by byte of it (a sum is linear). Measured: 9 -> 23 bytes/ns. */
enum { CRC_BLOCK = 1024 };
static uint32_t crc32c_shift[4][256];

static void crc32c_init_shift(void)
{
	static const uint8_t zeros[CRC_BLOCK];
	uint32_t of_bit[32];

	for (unsigned i = 0; i < 32; i++)
		of_bit[i] = crc32c_soft(UINT32_C(1) << i, zeros, CRC_BLOCK);
	for (unsigned k = 0; k < 4; k++)
		for (unsigned b = 1; b < 256; b++)
			crc32c_shift[k][b] = crc32c_shift[k][b & (b - 1)] ^
					     of_bit[8 * k + (unsigned)__builtin_ctz(b)];
}

__attribute__((constructor)) static void crc32c_init(void)
{
	crc32c_init_tables();
	crc32c_init_shift();
}

#if defined(__x86_64__)
static uint32_t behind_block(uint32_t crc)
{
	return crc32c_shift[0][crc & 0xff] ^ crc32c_shift[1][crc >> 8 & 0xff] ^
	       crc32c_shift[2][crc >> 16 & 0xff] ^ crc32c_shift[3][crc >> 24];
}

__attribute__((target("sse4.2"))) static uint32_t crc32c_three(uint32_t crc, const uint8_t *p)
{
	uint64_t a = crc, b = 0, c = 0;

	for (size_t i = 0; i < CRC_BLOCK; i += 8) {
		a = _mm_crc32_u64(a, load_le64(p + i));
		b = _mm_crc32_u64(b, load_le64(p + CRC_BLOCK + i));
		c = _mm_crc32_u64(c, load_le64(p + 2 * CRC_BLOCK + i));
	}
	return behind_block(behind_block((uint32_t)a) ^ (uint32_t)b) ^ (uint32_t)c;
}

__attribute__((target("sse4.2"))) static uint32_t crc32c_sse42(uint32_t crc, const uint8_t *p,
							       size_t n)
{
	uint64_t c;

	for (; n >= 3 * CRC_BLOCK; p += 3 * CRC_BLOCK, n -= 3 * CRC_BLOCK)
		crc = crc32c_three(crc, p);
	c = crc;
	for (; n >= 8; n -= 8, p += 8)
		c = _mm_crc32_u64(c, load_le64(p));
	while (n--)
		c = _mm_crc32_u8((uint32_t)c, *p++);
	return (uint32_t)c;
}
#endif

uint32_t hash_crc32c(uint32_t crc, const void *p, size_t n)
{
#if defined(__x86_64__)
	if (__builtin_cpu_supports("sse4.2"))
		return ~crc32c_sse42(~crc, p, n);
#endif
	return ~crc32c_soft(~crc, p, n);
}

uint64_t hash_xxh64(const void *p, size_t n, uint64_t seed)
{
	return XXH64(p, n, seed);
}

uint64_t hash_xxh3(const void *p, size_t n)
{
	return XXH3_64bits(p, n);
}
