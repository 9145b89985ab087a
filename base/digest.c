/* SPDX-License-Identifier: Apache-2.0
 *
 * digest.c - see digest.h.
 */
#include "base/digest.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdlib.h>

static void must(bool ok)
{
	if (!ok)
		abort();
}

static void digest(const EVP_MD *type, const struct bytes *pieces, size_t n, uint8_t *out)
{
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();

	must(ctx != NULL && EVP_DigestInit_ex(ctx, type, NULL) == 1);
	for (size_t i = 0; i < n; i++)
		if (pieces[i].n > 0)
			must(EVP_DigestUpdate(ctx, pieces[i].p, pieces[i].n) == 1);
	must(EVP_DigestFinal_ex(ctx, out, NULL) == 1);
	EVP_MD_CTX_free(ctx);
}

void digest_sha1(struct bytes data, uint8_t out[DIGEST_SHA1])
{
	digest(EVP_sha1(), &data, 1, out);
}

void digest_sha256(const struct bytes *pieces, size_t n, uint8_t out[DIGEST_SHA256])
{
	digest(EVP_sha256(), pieces, n, out);
}

void digest_hmac_sha256(struct bytes key, struct bytes data, uint8_t out[DIGEST_SHA256])
{
	must(HMAC(EVP_sha256(), key.p, (int)key.n, data.p, data.n, out, NULL) != NULL);
}

bool digest_equal(const uint8_t *a, const uint8_t *b, size_t n)
{
	return CRYPTO_memcmp(a, b, n) == 0;
}
