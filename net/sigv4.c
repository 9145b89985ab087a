/* SPDX-License-Identifier: Apache-2.0
 *
 * sigv4.c - see sigv4.h.
 *
 *   canonical request --sha256--> string to sign --hmac--> signature
 *                                      key: "AWS4"+secret -> date -> region -> service -> request
 *
 * The key is derived anew each time: five HMACs cost 5 us, a request to a store 1,000.
 */
#include "net/sigv4.h"

#include "base/clock.h"
#include "base/digest.h"
#include "base/str.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>
#include <time.h>

enum { DIGEST = DIGEST_SHA256, PARAMS_MAX = 16 };

/* ---- encoding ---- */

static bool is_unreserved(uint8_t c)
{
	return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
	       c == '-' || c == '.' || c == '_' || c == '~';
}

void sigv4_encode(struct bytes s, bool keep_slash, struct buf *out)
{
	static const char digits[] = "0123456789ABCDEF";

	for (size_t i = 0; i < s.n; i++) {
		uint8_t c = s.p[i];

		if (is_unreserved(c) || (c == '/' && keep_slash)) {
			buf_add_char(out, (char)c);
		} else {
			const char code[3] = { '%', digits[c >> 4], digits[c & 15] };

			buf_add(out, code, sizeof(code));
		}
	}
}

/* By name, then value: for our names the order before encoding is the order after it. */
static int by_name(const void *a, const void *b)
{
	const struct sigv4_param *x = a, *y = b;
	int order = strcmp(x->name, y->name);

	return order != 0 ? order : strcmp(x->value, y->value);
}

void sigv4_query(const struct sigv4_param *params, size_t n, struct buf *out)
{
	struct sigv4_param sorted[PARAMS_MAX];

	assert(n <= PARAMS_MAX);
	if (n == 0)
		return;
	memcpy(sorted, params, n * sizeof(*params));
	qsort(sorted, n, sizeof(*sorted), by_name);
	for (size_t i = 0; i < n; i++) {
		if (i > 0)
			buf_add_char(out, '&');
		sigv4_encode(bytes_str(sorted[i].name), false, out);
		buf_add_char(out, '=');
		sigv4_encode(bytes_str(sorted[i].value), false, out);
	}
}

void sigv4_date(uint64_t wall_ns, char out[SIGV4_DATE_SIZE])
{
	time_t s = (time_t)(wall_ns / NS_PER_S);
	struct tm tm;

	gmtime_r(&s, &tm);
	strftime(out, SIGV4_DATE_SIZE, "%Y%m%dT%H%M%SZ", &tm);
}

/* ---- digests ---- */

void sigv4_hash(const struct bytes *pieces, size_t n, char out[SIGV4_HASH_SIZE])
{
	uint8_t digest[DIGEST];

	digest_sha256(pieces, n, digest);
	str_hex(digest, sizeof(digest), out);
}

static void hmac(const void *key, size_t key_n, struct bytes data, uint8_t out[DIGEST])
{
	digest_hmac_sha256((struct bytes){ key, key_n }, data, out);
}

/* ---- the canonical request ---- */

static void add_lower(const char *s, struct buf *out)
{
	for (; *s != '\0'; s++)
		buf_add_char(out, (char)tolower((unsigned char)*s));
}

/* Without blanks around, runs of blanks as one. */
static void add_trimmed(const char *s, struct buf *out)
{
	size_t n = strlen(s);

	while (n > 0 && (s[n - 1] == ' ' || s[n - 1] == '\t'))
		n--;
	for (size_t i = 0; i < n; i++)
		if (s[i] != ' ' && s[i] != '\t')
			buf_add_char(out, s[i]);
		else if (i > 0 && s[i - 1] != ' ' && s[i - 1] != '\t')
			buf_add_char(out, ' ');
}

static int by_header(const void *a, const void *b)
{
	return strcasecmp(((const struct http_header *)a)->name,
			  ((const struct http_header *)b)->name);
}

static void add_signed_names(const struct http_header *sorted, size_t n, struct buf *out)
{
	for (size_t i = 0; i < n; i++) {
		if (i > 0)
			buf_add_char(out, ';');
		add_lower(sorted[i].name, out);
	}
}

static void canonical_request(const struct sigv4_request *r, const struct http_header *sorted,
			      struct buf *out)
{
	buf_printf(out, "%s\n%s\n%s\n", r->method, r->path, r->query);
	for (size_t i = 0; i < r->n_headers; i++) {
		add_lower(sorted[i].name, out);
		buf_add_char(out, ':');
		add_trimmed(sorted[i].value, out);
		buf_add_char(out, '\n');
	}
	buf_add_char(out, '\n');
	add_signed_names(sorted, r->n_headers, out);
	buf_printf(out, "\n%s", r->payload_hash);
}

/* ---- the signature ---- */

static void signing_key(const struct sigv4_signer *s, const char *date, uint8_t key[DIGEST])
{
	struct buf secret = BUF_INIT;

	buf_printf(&secret, "AWS4%s", s->secret_key);
	hmac(secret.p, secret.n, (struct bytes){ (const uint8_t *)date, 8 }, key);
	hmac(key, DIGEST, bytes_str(s->region), key);
	hmac(key, DIGEST, bytes_str(s->service), key);
	hmac(key, DIGEST, BYTES_LIT("aws4_request"), key);
	explicit_bzero(secret.p, secret.n);
	buf_fini(&secret);
}

void sigv4_sign(const struct sigv4_request *r, const struct sigv4_signer *s, struct buf *out)
{
	struct http_header sorted[SIGV4_HEADERS_MAX];
	char hash[SIGV4_HASH_SIZE], scope[160];
	struct buf text = BUF_INIT;
	uint8_t key[DIGEST];
	struct bytes whole;

	assert(r->n_headers <= SIGV4_HEADERS_MAX);
	memcpy(sorted, r->headers, r->n_headers * sizeof(*sorted));
	qsort(sorted, r->n_headers, sizeof(*sorted), by_header);
	canonical_request(r, sorted, &text);
	whole = buf_bytes(&text);
	sigv4_hash(&whole, 1, hash);
	snprintf(scope, sizeof(scope), "%.8s/%.64s/%.32s/aws4_request", r->date, s->region,
		 s->service);
	buf_reset(&text);
	buf_printf(&text, "AWS4-HMAC-SHA256\n%s\n%s\n%s", r->date, scope, hash);
	signing_key(s, r->date, key);
	hmac(key, sizeof(key), buf_bytes(&text), key);
	str_hex(key, sizeof(key), hash);
	buf_printf(out, "AWS4-HMAC-SHA256 Credential=%s/%s, SignedHeaders=", s->access_key, scope);
	add_signed_names(sorted, r->n_headers, out);
	buf_printf(out, ", Signature=%s", hash);
	explicit_bzero(key, sizeof(key));
	buf_fini(&text);
}
