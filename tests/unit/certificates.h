/* SPDX-License-Identifier: Apache-2.0
 *
 * certificates.h - certificates made on the spot, for tests and benches of TLS. Included once.
 */
#ifndef TESTS_UNIT_CERTIFICATES_H
#define TESTS_UNIT_CERTIFICATES_H

#include <assert.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

static void add_names(X509 *x, const char *names)
{
	X509_EXTENSION *e = X509V3_EXT_conf_nid(NULL, NULL, NID_subject_alt_name, names);

	assert(e != NULL);
	X509_add_ext(x, e, -1);
	X509_EXTENSION_free(e);
}

/* A self-signed certificate for names ("DNS:..."), valid for an hour, in two files. */
static void make_certificate(const char *names, const char *cert, const char *key)
{
	EVP_PKEY *pkey = EVP_EC_gen("P-256");
	X509 *x = X509_new();
	FILE *out;

	X509_set_version(x, 2);
	ASN1_INTEGER_set(X509_get_serialNumber(x), 1);
	X509_gmtime_adj(X509_getm_notBefore(x), -60);
	X509_gmtime_adj(X509_getm_notAfter(x), 3600);
	X509_set_pubkey(x, pkey);
	X509_NAME_add_entry_by_txt(X509_get_subject_name(x), "CN", MBSTRING_ASC,
				   (const unsigned char *)"test", -1, -1, 0);
	X509_set_issuer_name(x, X509_get_subject_name(x));
	add_names(x, names);
	if (X509_sign(x, pkey, EVP_sha256()) <= 0)
		abort();
	out = fopen(cert, "w");
	PEM_write_X509(out, x);
	fclose(out);
	if (key != NULL) {
		out = fopen(key, "w");
		PEM_write_PrivateKey(out, pkey, NULL, NULL, 0, NULL, NULL);
		fclose(out);
	}
	X509_free(x);
	EVP_PKEY_free(pkey);
}

#endif
