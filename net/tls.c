/* SPDX-License-Identifier: Apache-2.0
 *
 * tls.c - see tls.h.
 *
 * DESIGN: OpenSSL reads and writes the descriptor itself (no memory BIOs): one copy less, and the
 * stream above it only needs to know for what to poll. SIGPIPE is no danger: loop threads block it
 * and main ignores it.
 * With reload_interval the files are read again for the first connection after that time, as the
 * Collector does; files that are no good then are logged, and what was read before stays.
 * OWNERSHIP, THREADS: a connection holds a reference to its configuration.
 * LIMITS: OpenSSL's own (16 KiB records, 100 KiB of handshake messages).
 */
#include "net/tls.h"

#include "base/buf.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>

struct tls {
	_Atomic uint32_t refs;  /* the owner's and one per connection */
	struct tls_settings c;  /* copies */
	unsigned char alpn[16]; /* one length-prefixed name; [0] = 0 when none */
	bool is_server;
	pthread_mutex_t lock;
	SSL_CTX *ctx;            /* lock; what was made of the files when they were read last */
	uint64_t loaded_ns;      /* lock; monotonic */
	struct stat client_ca;   /* lock; of that file then */
	struct err failed;       /* lock; why the last reading gave nothing, as it was logged */
	struct tls *next, *prev; /* all_lock */
};

/* Every one of the process, for tls_reload_all. Taken before a struct tls's own lock. */
static pthread_mutex_t all_lock = PTHREAD_MUTEX_INITIALIZER;
static struct tls *all;

struct tls_conn {
	struct tls *tls;
	SSL *ssl;
	bool read_wants_write, write_wants_write; /* where the last one stopped */
	bool write_wants_read;
	bool failed;
	struct err why; /* what failed, for those who ask again */
	bool checked_alpn;
	bool needs_alpn;
};

static bool is_set(const char *s)
{
	return s != NULL && s[0] != '\0';
}

static bool is_pair_set(const char *file, const char *pem)
{
	return is_set(file) || is_set(pem);
}

/* Fill err with OpenSSL's first reason, and empty its queue. Returns -1. */
static int fail(struct err *err, enum err_kind kind, const char *what, const char *value)
{
	char reason[160] = "unknown error";
	unsigned long e = ERR_get_error();

	if (e != 0)
		ERR_error_string_n(e, reason, sizeof(reason));
	ERR_clear_error();
	return err_set(err, kind, "tls: %s%s%s%s: %s", what, value ? " \"" : "", value ? value : "",
		       value ? "\"" : "", reason);
}

static int version_of(const char *name, int otherwise)
{
	static const struct {
		const char *name;
		int version;
	} versions[] = {
		{ "1.0", TLS1_VERSION },
		{ "1.1", TLS1_1_VERSION },
		{ "1.2", TLS1_2_VERSION },
		{ "1.3", TLS1_3_VERSION },
	};

	if (!is_set(name))
		return otherwise;
	for (size_t i = 0; i < COUNT_OF(versions); i++)
		if (strcmp(name, versions[i].name) == 0)
			return versions[i].version;
	return -1;
}

static int set_versions(SSL_CTX *ctx, const struct tls_settings *c, struct err *err)
{
	int min = version_of(c->min_version, TLS1_2_VERSION);
	int max = version_of(c->max_version, 0);

	if (min < 0 || max < 0)
		return err_set(err, ERR_CONFIG, "tls: version \"%s\" is not 1.0, 1.1, 1.2 or 1.3",
			       min < 0 ? c->min_version : c->max_version);
	if (max != 0 && min > max)
		return err_set(err, ERR_CONFIG, "tls: min_version is above max_version \"%s\"",
			       c->max_version);
	SSL_CTX_set_min_proto_version(ctx, min);
	SSL_CTX_set_max_proto_version(ctx, max);
	return 0;
}

/* The certificate and its chain out of a text, as SSL_CTX_use_certificate_chain_file does it. */
static int use_chain(SSL_CTX *ctx, const char *pem)
{
	BIO *in = BIO_new_mem_buf(pem, -1);
	X509 *x = in != NULL ? PEM_read_bio_X509_AUX(in, NULL, NULL, NULL) : NULL;
	int rc = x != NULL ? SSL_CTX_use_certificate(ctx, x) : 0;

	X509_free(x);
	while (rc == 1 && (x = PEM_read_bio_X509(in, NULL, NULL, NULL)) != NULL)
		if ((rc = SSL_CTX_add0_chain_cert(ctx, x)) != 1)
			X509_free(x);
	/* "No start line" is the end. */
	if (rc == 1)
		ERR_clear_error();
	BIO_free(in);
	return rc;
}

/* A key behind a password would make OpenSSL ask for it on the terminal. */
static int no_password(char *to, int size, int rwflag, void *arg)
{
	(void)to;
	(void)size;
	(void)rwflag;
	(void)arg;
	return -1;
}

static int use_key(SSL_CTX *ctx, const char *pem)
{
	BIO *in = BIO_new_mem_buf(pem, -1);
	EVP_PKEY *key = in != NULL ? PEM_read_bio_PrivateKey(in, NULL, no_password, NULL) : NULL;
	int rc = key != NULL ? SSL_CTX_use_PrivateKey(ctx, key) : 0;

	EVP_PKEY_free(key);
	BIO_free(in);
	return rc;
}

/* Authorities out of a text; none in it is an error. */
static int trust_pem(SSL_CTX *ctx, const char *pem)
{
	BIO *in = BIO_new_mem_buf(pem, -1);
	X509 *x;
	int n = 0;

	while (in != NULL && (x = PEM_read_bio_X509_AUX(in, NULL, NULL, NULL)) != NULL) {
		n += X509_STORE_add_cert(SSL_CTX_get_cert_store(ctx), x) == 1;
		X509_free(x);
	}
	if (n > 0)
		ERR_clear_error();
	BIO_free(in);
	return n > 0;
}

static int load_identity(SSL_CTX *ctx, const struct tls_settings *c, struct err *err)
{
	bool cert = is_pair_set(c->cert_file, c->cert_pem);
	bool key = is_pair_set(c->key_file, c->key_pem);

	if (cert != key)
		return err_set(err, ERR_CONFIG, "tls: cert_file and key_file go together");
	if (!cert)
		return 0;
	SSL_CTX_set_default_passwd_cb(ctx, no_password);
	if (is_set(c->cert_file) && SSL_CTX_use_certificate_chain_file(ctx, c->cert_file) != 1)
		return fail(err, ERR_CONFIG, "cert_file", c->cert_file);
	if (!is_set(c->cert_file) && use_chain(ctx, c->cert_pem) != 1)
		return fail(err, ERR_CONFIG, "cert_pem", NULL);
	if (is_set(c->key_file) &&
	    SSL_CTX_use_PrivateKey_file(ctx, c->key_file, SSL_FILETYPE_PEM) != 1)
		return fail(err, ERR_CONFIG, "key_file", c->key_file);
	if (!is_set(c->key_file) && use_key(ctx, c->key_pem) != 1)
		return fail(err, ERR_CONFIG, "key_pem", NULL);
	if (SSL_CTX_check_private_key(ctx) != 1)
		return fail(err, ERR_CONFIG, "the key does not fit the certificate: key_file",
			    is_set(c->key_file) ? c->key_file : NULL);
	return 0;
}

/* ---- names ---- */

static const struct {
	const char *name, *openssl;
} groups[] = {
	{ "X25519", "X25519" },
	{ "P256", "P-256" },
	{ "P384", "P-384" },
	{ "P521", "P-521" },
	{ "X25519MLKEM768", "X25519MLKEM768" },
};

const char *tls_group_openssl(const char *name)
{
	for (size_t i = 0; i < COUNT_OF(groups); i++)
		if (strcmp(groups[i].name, name) == 0)
			return groups[i].openssl;
	return NULL;
}

bool tls_is_group(const char *name)
{
	const char *openssl = tls_group_openssl(name);
	SSL_CTX *ctx = openssl != NULL ? SSL_CTX_new(TLS_method()) : NULL;
	bool known = ctx != NULL && SSL_CTX_set1_groups_list(ctx, openssl) == 1;

	SSL_CTX_free(ctx);
	ERR_clear_error();
	return known;
}

/* The suites of TLS 1.3 name no key exchange. */
static bool is_of_tls_1_3(const char *name)
{
	return strstr(name, "_WITH_") == NULL;
}

bool tls_is_cipher(const char *name)
{
	const char *openssl = OPENSSL_cipher_name(name);
	SSL_CTX *ctx = strcmp(openssl, "(NONE)") != 0 ? SSL_CTX_new(TLS_method()) : NULL;
	bool known =
		ctx != NULL && (is_of_tls_1_3(name) ? SSL_CTX_set_ciphersuites(ctx, openssl)
						    : SSL_CTX_set_cipher_list(ctx, openssl)) == 1;

	SSL_CTX_free(ctx);
	ERR_clear_error();
	return known;
}

const char *tls_cipher_openssl(const char *name)
{
	return tls_is_cipher(name) && !is_of_tls_1_3(name) ? OPENSSL_cipher_name(name) : NULL;
}

static void add_name(struct buf *list, const char *name)
{
	buf_printf(list, "%s%s", list->n > 0 ? ":" : "", name);
}

static int set_ciphers(SSL_CTX *ctx, const struct tls_settings *c, struct err *err)
{
	struct buf now = BUF_INIT, before = BUF_INIT; /* TLS 1.3, and older */
	int ret = 0;

	for (size_t i = 0; ret == 0 && i < c->n_ciphers; i++) {
		if (!tls_is_cipher(c->ciphers[i]))
			ret = err_set(err, ERR_CONFIG, "tls: cipher suite \"%.100s\" is not known",
				      c->ciphers[i]);
		else
			add_name(is_of_tls_1_3(c->ciphers[i]) ? &now : &before,
				 OPENSSL_cipher_name(c->ciphers[i]));
	}
	if (ret == 0 && before.n > 0 && SSL_CTX_set_cipher_list(ctx, buf_cstr(&before)) != 1)
		ret = fail(err, ERR_CONFIG, "cipher_suites", NULL);
	if (ret == 0 && now.n > 0 && SSL_CTX_set_ciphersuites(ctx, buf_cstr(&now)) != 1)
		ret = fail(err, ERR_CONFIG, "cipher_suites", NULL);
	buf_fini(&now);
	buf_fini(&before);
	return ret;
}

static int set_groups(SSL_CTX *ctx, const struct tls_settings *c, struct err *err)
{
	struct buf list = BUF_INIT;
	int ret = 0;

	for (size_t i = 0; ret == 0 && i < c->n_groups; i++) {
		if (!tls_is_group(c->groups[i]))
			ret = err_set(err, ERR_CONFIG, "tls: curve \"%.100s\" is not known",
				      c->groups[i]);
		else
			add_name(&list, tls_group_openssl(c->groups[i]));
	}
	if (ret == 0 && list.n > 0 && SSL_CTX_set1_groups_list(ctx, buf_cstr(&list)) != 1)
		ret = fail(err, ERR_CONFIG, "curve_preferences", NULL);
	buf_fini(&list);
	return ret;
}

/* ---- contexts ---- */

/* A server takes its own protocol only; without ALPN from the client it goes on (prior knowledge).
 */
static int choose_alpn(SSL *ssl, const unsigned char **out, unsigned char *out_n,
		       const unsigned char *in, unsigned in_n, void *arg)
{
	const struct tls *t = arg;
	unsigned char *picked;

	(void)ssl;
	if (SSL_select_next_proto(&picked, out_n, t->alpn, t->alpn[0] + 1U, in, in_n) !=
	    OPENSSL_NPN_NEGOTIATED)
		return SSL_TLSEXT_ERR_ALERT_FATAL;
	*out = picked;
	return SSL_TLSEXT_ERR_OK;
}

static int trust_as_client(struct tls *t, SSL_CTX *ctx, struct err *err)
{
	const struct tls_settings *c = &t->c;

	if (t->alpn[0] > 0)
		SSL_CTX_set_alpn_protos(ctx, t->alpn, t->alpn[0] + 1U);
	if (is_set(c->ca_file) && SSL_CTX_load_verify_locations(ctx, c->ca_file, NULL) != 1)
		return fail(err, ERR_CONFIG, "ca_file", c->ca_file);
	if (is_set(c->ca_pem) && !trust_pem(ctx, c->ca_pem))
		return fail(err, ERR_CONFIG, "ca_pem", NULL);
	if (!is_pair_set(c->ca_file, c->ca_pem) || c->system_ca_too)
		SSL_CTX_set_default_verify_paths(ctx);
	SSL_CTX_set_verify(ctx, c->insecure_skip_verify ? SSL_VERIFY_NONE : SSL_VERIFY_PEER, NULL);
	return 0;
}

static int trust_as_server(struct tls *t, SSL_CTX *ctx, struct err *err)
{
	const struct tls_settings *c = &t->c;

	if (!is_pair_set(c->cert_file, c->cert_pem))
		return err_set(err, ERR_CONFIG, "tls: a server needs cert_file and key_file");
	if (t->alpn[0] > 0)
		SSL_CTX_set_alpn_select_cb(ctx, choose_alpn, t);
	/* Without it OpenSSL fails the handshake of a client that resumes with a certificate. */
	SSL_CTX_set_session_id_context(ctx, (const unsigned char *)"spanmill", 8);
	if (!is_set(c->client_ca_file))
		return 0;
	if (SSL_CTX_load_verify_locations(ctx, c->client_ca_file, NULL) != 1)
		return fail(err, ERR_CONFIG, "client_ca_file", c->client_ca_file);
	/* The names that clients choose their certificate by. */
	SSL_CTX_set_client_CA_list(ctx, SSL_load_client_CA_file(c->client_ca_file));
	SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
	return 0;
}

/* What the settings and the files say now. */
static SSL_CTX *make_context(struct tls *t, struct err *err)
{
	SSL_CTX *ctx = SSL_CTX_new(t->is_server ? TLS_server_method() : TLS_client_method());
	const struct tls_settings *c = &t->c;

	if (ctx == NULL) {
		fail(err, ERR_INTERNAL, "context", NULL);
		return NULL;
	}
	SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_RELEASE_BUFFERS |
				      SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
	SSL_CTX_set_options(ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
	if (set_versions(ctx, c, err) == 0 && load_identity(ctx, c, err) == 0 &&
	    set_ciphers(ctx, c, err) == 0 && set_groups(ctx, c, err) == 0 &&
	    (t->is_server ? trust_as_server : trust_as_client)(t, ctx, err) == 0)
		return ctx;
	SSL_CTX_free(ctx);
	return NULL;
}

static const char *copy(const char *s)
{
	return is_set(s) ? xstrdup(s) : NULL;
}

static const char *const *copy_list(const char *const *v, size_t n)
{
	const char **out = xcalloc(n + 1, sizeof(*out));

	for (size_t i = 0; i < n; i++)
		out[i] = xstrdup(v[i]);
	return out;
}

static void free_list(const char *const *v, size_t n)
{
	for (size_t i = 0; v != NULL && i < n; i++)
		free((void *)(uintptr_t)v[i]);
	free((void *)(uintptr_t)v);
}

static void copy_settings(struct tls_settings *to, const struct tls_settings *c)
{
	*to = *c;
	to->what = copy(c->what);
	to->ca_pem = copy(c->ca_pem);
	to->cert_pem = copy(c->cert_pem);
	to->key_pem = copy(c->key_pem);
	to->ca_file = copy(c->ca_file);
	to->cert_file = copy(c->cert_file);
	to->key_file = copy(c->key_file);
	to->client_ca_file = copy(c->client_ca_file);
	to->server_name = copy(c->server_name);
	to->min_version = copy(c->min_version);
	to->max_version = copy(c->max_version);
	to->alpn = NULL;
	to->ciphers = copy_list(c->ciphers, c->n_ciphers);
	to->groups = copy_list(c->groups, c->n_groups);
}

static void free_settings(struct tls_settings *c)
{
	const char *const v[] = { c->ca_file,     c->cert_file,   c->key_file,    c->client_ca_file,
				  c->server_name, c->min_version, c->max_version, c->what,
				  c->ca_pem,      c->cert_pem };

	if (c->key_pem != NULL)
		OPENSSL_cleanse((void *)(uintptr_t)c->key_pem, strlen(c->key_pem));
	free((void *)(uintptr_t)c->key_pem);
	for (size_t i = 0; i < COUNT_OF(v); i++)
		free((void *)(uintptr_t)v[i]);
	free_list(c->ciphers, c->n_ciphers);
	free_list(c->groups, c->n_groups);
}

static bool is_another(SSL_CTX *old, SSL_CTX *ctx)
{
	const X509 *a = old != NULL ? SSL_CTX_get0_certificate(old) : NULL;
	const X509 *b = SSL_CTX_get0_certificate(ctx);

	return a != NULL && b != NULL && X509_cmp(a, b) != 0;
}

/* The lock held, or nobody else there yet. -1: what was read before stays. */
static int load(struct tls *t, struct err *err)
{
	struct stat seen = { .st_size = 0 };
	SSL_CTX *ctx;

	if (is_set(t->c.client_ca_file) && stat(t->c.client_ca_file, &seen) < 0)
		seen.st_size = 0;
	t->loaded_ns = clock_mono_ns();
	t->client_ca = seen;
	ctx = make_context(t, err);
	if (ctx == NULL)
		return -1;
	if (is_another(t->ctx, ctx))
		log_info("a new certificate is in use", "of", is_set(t->c.what) ? t->c.what : "");
	SSL_CTX_free(t->ctx);
	t->ctx = ctx;
	return 0;
}

static bool has_changed(const struct tls *t)
{
	struct stat now;

	if (t->c.reload_ns > 0 && clock_mono_ns() - t->loaded_ns >= t->c.reload_ns)
		return true;
	return t->c.client_ca_reload && is_set(t->c.client_ca_file) &&
	       stat(t->c.client_ca_file, &now) == 0 &&
	       (now.st_mtim.tv_sec != t->client_ca.st_mtim.tv_sec ||
		now.st_mtim.tv_nsec != t->client_ca.st_mtim.tv_nsec ||
		now.st_size != t->client_ca.st_size || now.st_ino != t->client_ca.st_ino);
}

/* Read again; what is no good is said once, however often it is tried. The lock held. */
static int load_again(struct tls *t)
{
	struct err err = ERR_INIT;

	if (load(t, &err) == 0) {
		err_clear(&t->failed);
		return 0;
	}
	if (t->failed.kind == ERR_NONE || strcmp(t->failed.msg, err.msg) != 0)
		log_warn("certificates could not be read again, the old ones stay", "of",
			 is_set(t->c.what) ? t->c.what : "", "error", err.msg);
	t->failed = err;
	return -1;
}

/* A new reference. */
static SSL_CTX *context_now(struct tls *t)
{
	SSL_CTX *ctx;

	pthread_mutex_lock(&t->lock);
	if (has_changed(t))
		load_again(t);
	ctx = t->ctx;
	SSL_CTX_up_ref(ctx);
	pthread_mutex_unlock(&t->lock);
	return ctx;
}

unsigned tls_reload_all(void)
{
	unsigned n_failed = 0;

	pthread_mutex_lock(&all_lock);
	for (struct tls *t = all; t != NULL; t = t->next) {
		pthread_mutex_lock(&t->lock);
		n_failed += load_again(t) < 0;
		pthread_mutex_unlock(&t->lock);
	}
	pthread_mutex_unlock(&all_lock);
	return n_failed;
}

static void list_add(struct tls *t)
{
	pthread_mutex_lock(&all_lock);
	t->next = all;
	if (all != NULL)
		all->prev = t;
	all = t;
	pthread_mutex_unlock(&all_lock);
}

static void list_remove(struct tls *t)
{
	pthread_mutex_lock(&all_lock);
	if (t->prev != NULL)
		t->prev->next = t->next;
	else if (all == t)
		all = t->next;
	if (t->next != NULL)
		t->next->prev = t->prev;
	pthread_mutex_unlock(&all_lock);
}

static struct tls *tls_new(const struct tls_settings *c, bool is_server, struct err *err)
{
	struct tls *t = xcalloc(1, sizeof(*t));
	size_t n = is_set(c->alpn) ? strlen(c->alpn) : 0;

	atomic_init(&t->refs, 1);
	pthread_mutex_init(&t->lock, NULL);
	copy_settings(&t->c, c);
	t->is_server = is_server;
	assert(n < sizeof(t->alpn));
	t->alpn[0] = (unsigned char)n;
	if (n > 0)
		memcpy(t->alpn + 1, c->alpn, n);
	if (load(t, err) == 0) {
		list_add(t);
		return t;
	}
	tls_free(t);
	return NULL;
}

struct tls *tls_new_client(const struct tls_settings *c, struct err *err)
{
	return tls_new(c, false, err);
}

struct tls *tls_new_server(const struct tls_settings *c, struct err *err)
{
	return tls_new(c, true, err);
}

void tls_free(struct tls *t)
{
	if (t == NULL || atomic_fetch_sub_explicit(&t->refs, 1, memory_order_acq_rel) != 1)
		return;
	list_remove(t);
	SSL_CTX_free(t->ctx);
	pthread_mutex_destroy(&t->lock);
	free_settings(&t->c);
	free(t);
}

/* Who the server must prove to be; a name also goes into SNI, an address must not. */
static int expect_host(const struct tls *t, SSL *ssl, const char *host, struct err *err)
{
	X509_VERIFY_PARAM *param = SSL_get0_param(ssl);

	if (t->c.server_name != NULL)
		host = t->c.server_name;
	if (!is_set(host))
		return 0;
	if (X509_VERIFY_PARAM_set1_ip_asc(param, host) == 1)
		return 0;
	ERR_clear_error();
	if (SSL_set_tlsext_host_name(ssl, host) != 1 || SSL_set1_host(ssl, host) != 1)
		return fail(err, ERR_CONFIG, "server name", host);
	return 0;
}

struct tls_conn *tls_conn_new(struct tls *t, int fd, const char *host, struct err *err)
{
	struct tls_conn *c = xcalloc(1, sizeof(*c));
	SSL_CTX *ctx = context_now(t);

	atomic_fetch_add_explicit(&t->refs, 1, memory_order_relaxed);
	c->tls = t;
	c->ssl = SSL_new(ctx);
	SSL_CTX_free(ctx);
	if (c->ssl == NULL || SSL_set_fd(c->ssl, fd) != 1) {
		fail(err, ERR_INTERNAL, "connection", NULL);
		tls_conn_free(c);
		return NULL;
	}
	if (t->is_server) {
		SSL_set_accept_state(c->ssl);
		return c;
	}
	c->needs_alpn = t->alpn[0] > 0;
	SSL_set_connect_state(c->ssl);
	if (expect_host(t, c->ssl, host, err) < 0) {
		tls_conn_free(c);
		return NULL;
	}
	return c;
}

void tls_conn_free(struct tls_conn *c)
{
	if (c == NULL)
		return;
	if (c->ssl != NULL)
		tls_conn_end(c);
	SSL_free(c->ssl);
	tls_free(c->tls);
	free(c);
}

static int set_why(struct tls_conn *c, int why, int saved_errno)
{
	long verify = SSL_get_verify_result(c->ssl);

	if (why == SSL_ERROR_ZERO_RETURN)
		return -1;
	if (verify != X509_V_OK && !SSL_is_init_finished(c->ssl))
		return err_set(&c->why, ERR_UNAVAILABLE, "tls: certificate: %s",
			       X509_verify_cert_error_string(verify));
	if (why == SSL_ERROR_SYSCALL && ERR_peek_error() == 0)
		return err_set(&c->why, ERR_UNAVAILABLE, "tls: %s",
			       saved_errno != 0 ? strerror(saved_errno) : "connection closed");
	return fail(&c->why, ERR_UNAVAILABLE, "connection", NULL);
}

/* What a failed SSL_read or SSL_write means: 0 wait (*wants_write: for writable), -1 over. */
static ssize_t outcome(struct tls_conn *c, int rc, bool *wants_write, struct err *err)
{
	int saved_errno = errno, why = SSL_get_error(c->ssl, rc);

	*wants_write = why == SSL_ERROR_WANT_WRITE;
	if (why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE)
		return 0;
	/* Its goodbye ends one direction only. */
	c->failed = why != SSL_ERROR_ZERO_RETURN;
	err_clear(&c->why);
	set_why(c, why, saved_errno);
	ERR_clear_error();
	if (err != NULL)
		*err = c->why;
	return -1;
}

/* gRPC over TLS is HTTP/2 only when both said so: a server that did not would get garbage. */
static int check_alpn(struct tls_conn *c, struct err *err)
{
	const unsigned char *name = NULL;
	unsigned n = 0;

	if (c->checked_alpn || !c->needs_alpn)
		return 0;
	SSL_get0_alpn_selected(c->ssl, &name, &n);
	c->checked_alpn = true;
	if (n > 0)
		return 0;
	c->failed = true;
	err_set(&c->why, ERR_UNAVAILABLE, "tls: the server did not choose a protocol by ALPN");
	if (err != NULL)
		*err = c->why;
	return -1;
}

static ssize_t failed_before(const struct tls_conn *c, struct err *err)
{
	if (err != NULL)
		*err = c->why;
	return -1;
}

int tls_conn_handshake(struct tls_conn *c, struct err *err)
{
	int rc;

	if (c->failed)
		return (int)failed_before(c, err);
	errno = 0;
	ERR_clear_error();
	c->read_wants_write = false;
	rc = SSL_do_handshake(c->ssl);
	return rc == 1 ? 1 : (int)outcome(c, rc, &c->read_wants_write, err);
}

ssize_t tls_conn_read(struct tls_conn *c, uint8_t *to, size_t n, struct err *err)
{
	int rc;

	if (c->failed)
		return failed_before(c, err);
	errno = 0;
	ERR_clear_error(); /* SSL_get_error looks at the thread's queue */
	c->read_wants_write = false;
	rc = SSL_read(c->ssl, to, (int)MIN(n, (size_t)INT32_MAX));
	if (rc <= 0)
		return outcome(c, rc, &c->read_wants_write, err);
	return check_alpn(c, err) < 0 ? -1 : rc;
}

static ssize_t write_outcome(struct tls_conn *c, int rc, struct err *err)
{
	ssize_t ret = outcome(c, rc, &c->write_wants_write, err);

	c->write_wants_read = ret == 0 && !c->write_wants_write;
	return ret;
}

ssize_t tls_conn_write(struct tls_conn *c, const uint8_t *from, size_t n, struct err *err)
{
	int rc;

	if (c->failed)
		return failed_before(c, err);
	errno = 0;
	ERR_clear_error();
	c->write_wants_write = c->write_wants_read = false;
	if (!SSL_is_init_finished(c->ssl)) {
		rc = SSL_do_handshake(c->ssl);
		if (rc <= 0)
			return write_outcome(c, rc, err);
	}
	/* Before the first byte of ours goes out. */
	if (check_alpn(c, err) < 0)
		return -1;
	rc = SSL_write(c->ssl, from, (int)MIN(n, (size_t)INT32_MAX));
	return rc <= 0 ? write_outcome(c, rc, err) : rc;
}

void tls_conn_end(struct tls_conn *c)
{
	ERR_clear_error();
	if (!c->failed && SSL_is_init_finished(c->ssl))
		SSL_shutdown(c->ssl);
	ERR_clear_error();
}

bool tls_conn_has_pending(const struct tls_conn *c)
{
	return !c->failed && SSL_pending(c->ssl) > 0;
}

bool tls_conn_wants_write(const struct tls_conn *c)
{
	return c->read_wants_write || c->write_wants_write;
}

bool tls_conn_write_wants_read(const struct tls_conn *c)
{
	return c->write_wants_read;
}
