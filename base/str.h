/* SPDX-License-Identifier: Apache-2.0
 *
 * str.h - text: hex, numbers, UTF-8, edit distance. Pure functions, any thread.
 */
#ifndef BASE_STR_H
#define BASE_STR_H

#include "base/base.h"

/* Lower-case hex of n bytes into out (2n characters and NUL). */
void str_hex(const uint8_t *p, size_t n, char *out);
/* Exactly 2*n hex digits (either case) of `s` into out. 0, or -1 when the length or a digit is
 * wrong: what is in out then means nothing. */
int str_unhex(struct bytes s, uint8_t *out, size_t n);
/* Whole-string numbers: 0, or -1 on junk, sign or overflow. */
int str_to_u64(struct bytes s, uint64_t *out);
int str_to_i64(struct bytes s, int64_t *out);
int str_to_double(struct bytes s, double *out);
/* Well-formed UTF-8 (RFC 3629: no surrogates, no overlong forms, up to U+10FFFF). ASCII goes 16
 * bytes a step. */
bool str_is_utf8(struct bytes s);
/* Length of the well-formed UTF-8 sequence at p, of n > 0 bytes there; 0 when it is malformed. */
size_t str_utf8_sequence(const uint8_t *p, size_t n);
/* Levenshtein distance, for "did you mean"; both sides are cut at 63 characters. */
unsigned str_distance(const char *a, const char *b);
bool str_has_prefix(const char *s, const char *prefix);
bool str_has_suffix(const char *s, const char *suffix);
bool str_eq_nocase(struct bytes a, const char *b);
/* Standard base64 with padding, appended to out's end; out must hold 4*((n+2)/3)+1. Returns the
 * length. */
size_t str_base64(const uint8_t *p, size_t n, char *out);
/* Standard or URL alphabet, padding optional. Returns the length, or -1; out must hold 3*(n/4)+3.
 */
long str_unbase64(struct bytes s, uint8_t *out);

#endif
