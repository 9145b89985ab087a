/* SPDX-License-Identifier: Apache-2.0
 *
 * htpasswd.c - see htpasswd.h.
 *
 * DESIGN: bcrypt and SHA-crypt are slow on purpose, and a loop has no tens of milliseconds for a
 * request. So a right password is remembered, as a keyed digest whose key this process made up, and
 * the next request costs a microsecond; only what was never right goes to a worker.
 * A user that there is not is checked against somebody's hash all the same.
 * OWNERSHIP, THREADS: crypt's memory is per call. libcrypt is loaded when the first slow hash is
 * met (everybody who has glibc has it).
 * LIMITS: 10,000 users; 72 bytes of a bcrypt password count, which is bcrypt's own limit.
 * SPEC: crypt(5); RFC 2307 ({SHA}, {SSHA}).
 */
#include "net/htpasswd.h"

#include "base/buf.h"
#include "base/digest.h"
#include "base/mem.h"
#include "base/rng.h"
#include "base/str.h"

#include <crypt.h>
#include <dlfcn.h>
#include <pthread.h>

enum { MAX_USERS = 10000, MAX_PASSWORD = 512, MAX_SALT = 64 };

enum scheme { SCHEME_PLAIN, SCHEME_SHA, SCHEME_SSHA, SCHEME_CRYPT };

struct entry {
	char *user, *hash;
	enum scheme scheme;
	bool is_known; /* lock; a password was right: */
	uint8_t known[DIGEST_SHA256];
};

struct htpasswd {
	pthread_mutex_t lock;
	uint8_t key[DIGEST_SHA256]; /* of the digests that are remembered */
	struct entry *entries;
	size_t n, cap;
	struct entry *dummy; /* a slow one, for users that there are not; NULL: none is slow */
};

/* ---- crypt(3) ---- */

static char *(*crypt_of_library)(const char *, const char *, void *, int);

static void load_library(void)
{
	void *lib = dlopen("libcrypt.so.1", RTLD_NOW);

	if (lib == NULL)
		lib = dlopen("libcrypt.so.2", RTLD_NOW);
	if (lib != NULL)
		*(void **)&crypt_of_library = dlsym(lib, "crypt_rn");
}

static bool has_crypt(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, load_library);
	return crypt_of_library != NULL;
}

static bool crypt_fits(const char *password, const char *hash)
{
	struct crypt_data *data = xcalloc(1, sizeof(*data));
	const char *got = crypt_of_library(password, hash, data, sizeof(*data));
	size_t n = strlen(hash);
	bool fits = got != NULL && got[0] != '*' && strlen(got) == n &&
		    digest_equal((const uint8_t *)got, (const uint8_t *)hash, n);

	explicit_bzero(data, sizeof(*data));
	free(data);
	return fits;
}

/* ---- lines ---- */

static int set_scheme(struct entry *e, const char *what, size_t line, struct err *err)
{
	static const char *const slow[] = { "$2a$", "$2b$", "$2y$", "$5$", "$6$" };

	for (size_t i = 0; i < COUNT_OF(slow); i++)
		if (str_has_prefix(e->hash, slow[i]))
			e->scheme = SCHEME_CRYPT;
	if (e->scheme == SCHEME_CRYPT && !has_crypt())
		return err_set(err, ERR_CONFIG,
			       "%s: line %zu: libcrypt.so.1 is not there to check "
			       "this hash",
			       what, line);
	if (e->scheme == SCHEME_CRYPT && strlen(e->hash) < (e->hash[1] == '2' ? 60u : 46u))
		return err_set(err, ERR_CONFIG, "%s: line %zu: the hash is cut short", what, line);
	if (str_has_prefix(e->hash, "{SHA}"))
		e->scheme = SCHEME_SHA;
	else if (str_has_prefix(e->hash, "{SSHA}"))
		e->scheme = SCHEME_SSHA;
	else if (e->scheme != SCHEME_CRYPT && (e->hash[0] == '$' || e->hash[0] == '{'))
		return err_set(err, ERR_CONFIG,
			       "%s: line %zu: this kind of hash is not known: make "
			       "a bcrypt one with htpasswd -B",
			       what, line);
	return 0;
}

static int add_line(struct htpasswd *h, struct bytes text, const char *what, size_t line,
		    struct err *err)
{
	const uint8_t *colon = memchr(text.p, ':', text.n);
	struct entry *e;
	size_t n_user;

	if (colon == NULL || colon == text.p || colon + 1 == text.p + text.n ||
	    memchr(text.p, '\0', text.n) != NULL)
		return err_set(err, ERR_CONFIG, "%s: line %zu is not user:hash", what, line);
	if (h->n >= MAX_USERS)
		return err_set(err, ERR_CONFIG, "%s: more than %d users", what, MAX_USERS);
	if (h->n == h->cap) {
		h->cap = h->cap > 0 ? h->cap * 2 : 8;
		h->entries = xrealloc(h->entries, h->cap * sizeof(*h->entries));
	}
	n_user = (size_t)(colon - text.p);
	e = &h->entries[h->n++];
	*e = (struct entry){ .user = xasprintf("%.*s", (int)n_user, (const char *)text.p),
			     .hash = xasprintf("%.*s", (int)(text.n - n_user - 1),
					       (const char *)colon + 1) };
	return set_scheme(e, what, line, err);
}

static struct bytes trim(struct bytes b)
{
	while (b.n > 0 && (b.p[b.n - 1] == '\r' || b.p[b.n - 1] == ' ' || b.p[b.n - 1] == '\t'))
		b.n--;
	while (b.n > 0 && (*b.p == ' ' || *b.p == '\t')) {
		b.p++;
		b.n--;
	}
	return b;
}

struct htpasswd *htpasswd_parse(struct bytes text, const char *what, struct err *err)
{
	struct htpasswd *h = xcalloc(1, sizeof(*h));

	pthread_mutex_init(&h->lock, NULL);
	rng_kernel(h->key, sizeof(h->key));
	for (size_t line = 1; text.n > 0; line++) {
		const uint8_t *end = memchr(text.p, '\n', text.n);
		size_t n = end != NULL ? (size_t)(end - text.p) : text.n;
		struct bytes one = trim((struct bytes){ text.p, n });

		n += end != NULL;
		text = (struct bytes){ text.p + n, text.n - n };
		if (one.n == 0 || one.p[0] == '#')
			continue;
		if (add_line(h, one, what, line, err) < 0) {
			htpasswd_free(h);
			return NULL;
		}
	}
	if (h->n == 0) {
		err_set(err, ERR_CONFIG, "%s: there is no user in it", what);
		htpasswd_free(h);
		return NULL;
	}
	for (size_t i = 0; h->dummy == NULL && i < h->n; i++)
		if (h->entries[i].scheme == SCHEME_CRYPT)
			h->dummy = &h->entries[i];
	return h;
}

void htpasswd_free(struct htpasswd *h)
{
	if (h == NULL)
		return;
	for (size_t i = 0; i < h->n; i++) {
		explicit_bzero(h->entries[i].hash, strlen(h->entries[i].hash));
		free(h->entries[i].user);
		free(h->entries[i].hash);
	}
	free(h->entries);
	pthread_mutex_destroy(&h->lock);
	explicit_bzero(h, sizeof(*h));
	free(h);
}

/* ---- checking ---- */

static struct entry *find(struct htpasswd *h, struct bytes user)
{
	for (size_t i = 0; i < h->n; i++)
		if (bytes_eq_str(user, h->entries[i].user))
			return &h->entries[i];
	return NULL;
}

static void keyed_digest(const struct htpasswd *h, struct bytes b, uint8_t out[DIGEST_SHA256])
{
	digest_hmac_sha256((struct bytes){ h->key, sizeof(h->key) }, b, out);
}

static bool is_same_text(const struct htpasswd *h, struct bytes a, const char *b)
{
	uint8_t x[DIGEST_SHA256], y[DIGEST_SHA256];

	keyed_digest(h, a, x);
	keyed_digest(h, bytes_str(b), y);
	return digest_equal(x, y, sizeof(x));
}

/* base64 of SHA-1 of the password (and the salt that follows in it). */
static bool sha_fits(const struct entry *e, struct bytes password)
{
	const char *text = e->hash + (e->scheme == SCHEME_SHA ? 5 : 6);
	uint8_t want[DIGEST_SHA1 + MAX_SALT + 3], got[DIGEST_SHA1];
	size_t n_text = strlen(text);
	struct buf b = BUF_INIT;
	long n;

	if (n_text > (DIGEST_SHA1 + MAX_SALT) / 3 * 4)
		return false;
	n = str_unbase64(bytes_str(text), want);
	if (n < DIGEST_SHA1 || (e->scheme == SCHEME_SHA && n != DIGEST_SHA1))
		return false;
	buf_add_bytes(&b, password);
	buf_add(&b, want + DIGEST_SHA1, (size_t)n - DIGEST_SHA1);
	digest_sha1(buf_bytes(&b), got);
	explicit_bzero(b.p, b.n);
	buf_fini(&b);
	return digest_equal(want, got, DIGEST_SHA1);
}

static bool is_remembered(struct htpasswd *h, struct entry *e, struct bytes password)
{
	uint8_t got[DIGEST_SHA256];
	bool same;

	keyed_digest(h, password, got);
	pthread_mutex_lock(&h->lock);
	same = e->is_known && digest_equal(e->known, got, sizeof(got));
	pthread_mutex_unlock(&h->lock);
	return same;
}

enum htpasswd_verdict htpasswd_check(struct htpasswd *h, struct bytes user, struct bytes password)
{
	struct entry *e = find(h, user);
	bool fits = false;

	if (password.n > MAX_PASSWORD)
		return HTPASSWD_NO;
	if (e == NULL)
		return h->dummy != NULL ? HTPASSWD_SLOW : HTPASSWD_NO;
	switch (e->scheme) {
	case SCHEME_PLAIN:
		fits = is_same_text(h, password, e->hash);
		break;
	case SCHEME_SHA:
	case SCHEME_SSHA:
		fits = sha_fits(e, password);
		break;
	case SCHEME_CRYPT:
		return is_remembered(h, e, password) ? HTPASSWD_YES : HTPASSWD_SLOW;
	}
	return fits ? HTPASSWD_YES : HTPASSWD_NO;
}

enum htpasswd_verdict htpasswd_check_slowly(struct htpasswd *h, struct bytes user,
					    struct bytes password)
{
	enum htpasswd_verdict fast = htpasswd_check(h, user, password);
	struct entry *e = find(h, user);
	const struct entry *by = e != NULL ? e : h->dummy;
	char *text = NULL;
	bool fits;

	if (fast != HTPASSWD_SLOW || memchr(password.p, '\0', password.n) != NULL)
		return fast == HTPASSWD_YES ? HTPASSWD_YES : HTPASSWD_NO;
	text = xasprintf("%.*s", (int)password.n, (const char *)password.p);
	fits = crypt_fits(text, by->hash) && e != NULL;
	explicit_bzero(text, strlen(text));
	free(text);
	if (!fits)
		return HTPASSWD_NO;
	pthread_mutex_lock(&h->lock);
	keyed_digest(h, password, e->known);
	e->is_known = true;
	pthread_mutex_unlock(&h->lock);
	return HTPASSWD_YES;
}
