/* SPDX-License-Identifier: Apache-2.0
 *
 * digest.h - cryptographic digests, of OpenSSL's libcrypto. Pure functions, any thread. They abort
 * where OpenSSL fails: without memory or with a broken installation.
 *
 * SPEC: SHA-1 and SHA-256 of FIPS 180-4, HMAC of RFC 2104.
 */
#ifndef BASE_DIGEST_H
#define BASE_DIGEST_H

#include "base/base.h"

enum { DIGEST_SHA1 = 20, DIGEST_SHA256 = 32 };

void digest_sha1(struct bytes data, uint8_t out[DIGEST_SHA1]);
/* Of the pieces, one behind the other. */
void digest_sha256(const struct bytes *pieces, size_t n, uint8_t out[DIGEST_SHA256]);
void digest_hmac_sha256(struct bytes key, struct bytes data, uint8_t out[DIGEST_SHA256]);
/* Are they the same? Takes as long whatever they hold. */
bool digest_equal(const uint8_t *a, const uint8_t *b, size_t n);

#endif
