/* SPDX-License-Identifier: Apache-2.0
 *
 * otlp_plain.h - the shape nearly every KeyValue on the wire has, recognised without a loop.
 *
 *   0a KLEN key.... 12 VLEN  0a SLEN text....      string_value
 *                            10 01 | 18 varint     bool_value, int_value
 *                            21 8 bytes            double_value
 *                            2a ALEN (0a ELEN 0a SLEN text....)*    array_value of strings
 *
 * DESIGN: otlp_high_bits gives one bit per byte for 64 bytes at once. Tags and lengths of the shape
 * are below 0x80, text should be ASCII, and the bytes of a varint have the high bit set up to the
 * last, so one comparison with the expected pattern checks the KeyValue from end to end. Loops over
 * bytes cost a mispredicted branch per attribute: measured 159 -> 70 ns/span together with
 * otlp_index's scan_fast. What is longer, or not ASCII, goes the general way.
 *
 * THREADS: pure. LIMITS: reads OTLP_PLAIN_WINDOW bytes; the caller knows that they are there.
 */
#ifndef WIRE_OTLP_PLAIN_H
#define WIRE_OTLP_PLAIN_H

#include "base/base.h"

#ifdef __SSE2__
#include <emmintrin.h>
#endif

enum { OTLP_PLAIN_WINDOW = 64 };

#ifdef __SSE2__
static inline uint64_t otlp_high_bits_16(const uint8_t *p)
{
	return (uint32_t)_mm_movemask_epi8(_mm_loadu_si128((const __m128i *)(const void *)p));
}
#else
/* The multiplication gathers the eight high bits of a word in its top byte. */
static inline uint64_t otlp_high_bits_8(const uint8_t *p)
{
	return (load_le64(p) & UINT64_C(0x8080808080808080)) * UINT64_C(0x0002040810204081) >> 56;
}

static inline uint64_t otlp_high_bits_16(const uint8_t *p)
{
	return otlp_high_bits_8(p) | otlp_high_bits_8(p + 8) << 8;
}
#endif

/* Bit i is the high bit of p[i], for 64 bytes. */
static inline uint64_t otlp_high_bits(const uint8_t *p)
{
	uint64_t low = otlp_high_bits_16(p) | otlp_high_bits_16(p + 16) << 16;

	return low | (otlp_high_bits_16(p + 32) | otlp_high_bits_16(p + 48) << 16) << 32;
}

/* The lowest n bits; 1 <= n <= 64. */
static inline uint64_t otlp_low_mask(size_t n)
{
	return ~UINT64_C(0) >> (64 - n);
}

/* Is text of n bytes ASCII, by one look? n > 64 says no. 64 bytes from p are readable. */
static inline bool otlp_text_is_plain(const uint8_t *p, size_t n)
{
	return n == 0 || (n <= OTLP_PLAIN_WINDOW && (otlp_high_bits(p) & otlp_low_mask(n)) == 0);
}

/* n bytes of an ArrayValue: strings and nothing else. */
static inline bool otlp_array_is_plain(const uint8_t *p, size_t n)
{
	while (n >= 4 && p[0] == 0x0a && p[2] == 0x0a && p[1] == p[3] + 2 &&
	       (size_t)p[1] + 2 <= n) {
		n -= (size_t)p[1] + 2;
		p += (size_t)p[1] + 2;
	}
	return n == 0;
}

/* The value of an AnyValue of n bytes at `at` within the window whose high bits are `bits`: is it
 * one of the shapes, and is everything before it, and in it where it is text, below 0x80? */
static inline bool otlp_value_is_plain(const uint8_t *window, size_t at, size_t n, uint64_t bits)
{
	const uint8_t *v = window + at;

	switch (v[0]) {
	case 0x0a: /* string_value */
		return v[1] == n - 2 && bits == 0;
	case 0x10: /* bool_value */
	case 0x18: /* int_value: n - 2 bytes with the high bit, one without */
		return n <= 11 && bits == otlp_low_mask(n - 1) >> 1 << (at + 1);
	case 0x21: /* double_value */
		return n == 9 && (bits & otlp_low_mask(at + 1)) == 0;
	case 0x2a: /* array_value */
		return v[1] == n - 2 && bits == 0 && otlp_array_is_plain(v + 2, n - 2);
	default:
		return false;
	}
}

/* A KeyValue of n bytes at p has the shape; 64 bytes from p are readable. False: look closer. */
static inline bool otlp_key_value_is_plain(const uint8_t *p, size_t n)
{
	size_t klen = p[1], at = klen + 4, vlen;

	if (n > OTLP_PLAIN_WINDOW || at + 2 > n || p[0] != 0x0a || p[2 + klen] != 0x12)
		return false;
	vlen = p[3 + klen];
	return vlen + at == n &&
	       otlp_value_is_plain(p, at, vlen, otlp_high_bits(p) & otlp_low_mask(n));
}

/* An AnyValue of n bytes at p, likewise. */
static inline bool otlp_any_value_is_plain(const uint8_t *p, size_t n)
{
	return n >= 2 && n <= OTLP_PLAIN_WINDOW &&
	       otlp_value_is_plain(p, 0, n, otlp_high_bits(p) & otlp_low_mask(n));
}

#endif
