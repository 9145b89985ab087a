/* SPDX-License-Identifier: Apache-2.0
 *
 * tls.c - see tls.h.
 *
 * DESIGN: OpenSSL reads and writes the descriptor itself (no memory BIOs): one copy less, and the
 * stream above it only needs to know for what to poll. SIGPIPE is no danger: loop threads block it
 * and main ignores it.
 * OWNERSHIP, THREADS: a connection holds a reference to its configuration.
 * LIMITS: OpenSSL's own (16 KiB records, 100 KiB of handshake messages).
 */
#include "net/tls.h"

#include "base/mem.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <errno.h>
#include <stdatomic.h>

struct tls {
	_Atomic uint32_t refs; /* the owner's and one per connection */
	SSL_CTX *ctx;
	char *server_name;
	unsigned char alpn[16]; /* one length-prefixed name; [0] = 0 when none */
	bool is_server;
	bool skip_verify;
};

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

static int set_versions(struct tls *t, const struct tls_settings *c, struct err *err)
{
	int min = version_of(c->min_version, TLS1_2_VERSION);
	int max = version_of(c->max_version, 0);

	if (min < 0 || max < 0)
		return err_set(err, ERR_CONFIG, "tls: version \"%s\" is not 1.0, 1.1, 1.2 or 1.3",
			       min < 0 ? c->min_version : c->max_version);
	if (max != 0 && min > max)
		return err_set(err, ERR_CONFIG, "tls: min_version is above max_version \"%s\"",
			       c->max_version);
	SSL_CTX_set_min_proto_version(t->ctx, min);
	SSL_CTX_set_max_proto_version(t->ctx, max);
	return 0;
}

static int load_identity(struct tls *t, const struct tls_settings *c, struct err *err)
{
	if (is_set(c->cert_file) != is_set(c->key_file))
		return err_set(err, ERR_CONFIG, "tls: cert_file and key_file go together");
	if (!is_set(c->cert_file))
		return 0;
	if (SSL_CTX_use_certificate_chain_file(t->ctx, c->cert_file) != 1)
		return fail(err, ERR_CONFIG, "cert_file", c->cert_file);
	if (SSL_CTX_use_PrivateKey_file(t->ctx, c->key_file, SSL_FILETYPE_PEM) != 1)
		return fail(err, ERR_CONFIG, "key_file", c->key_file);
	if (SSL_CTX_check_private_key(t->ctx) != 1)
		return fail(err, ERR_CONFIG, "the key does not fit the certificate: key_file",
			    c->key_file);
	return 0;
}

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

static struct tls *new_context(const struct tls_settings *c, bool is_server, struct err *err)
{
	struct tls *t = xcalloc(1, sizeof(*t));
	size_t n = is_set(c->alpn) ? strlen(c->alpn) : 0;

	atomic_init(&t->refs, 1);
	t->is_server = is_server;
	t->skip_verify = c->insecure_skip_verify;
	t->server_name = is_set(c->server_name) ? xstrdup(c->server_name) : NULL;
	assert(n < sizeof(t->alpn));
	t->alpn[0] = (unsigned char)n;
	if (n > 0)
		memcpy(t->alpn + 1, c->alpn, n);
	t->ctx = SSL_CTX_new(is_server ? TLS_server_method() : TLS_client_method());
	if (t->ctx == NULL) {
		fail(err, ERR_INTERNAL, "context", NULL);
		goto fail;
	}
	SSL_CTX_set_mode(t->ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_RELEASE_BUFFERS |
					 SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
	SSL_CTX_set_options(t->ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
	if (set_versions(t, c, err) < 0 || load_identity(t, c, err) < 0)
		goto fail;
	return t;
fail:
	tls_free(t);
	return NULL;
}

struct tls *tls_new_client(const struct tls_settings *c, struct err *err)
{
	struct tls *t = new_context(c, false, err);

	if (t == NULL)
		return NULL;
	if (t->alpn[0] > 0)
		SSL_CTX_set_alpn_protos(t->ctx, t->alpn, t->alpn[0] + 1U);
	if (is_set(c->ca_file)) {
		if (SSL_CTX_load_verify_locations(t->ctx, c->ca_file, NULL) != 1) {
			fail(err, ERR_CONFIG, "ca_file", c->ca_file);
			tls_free(t);
			return NULL;
		}
	} else {
		SSL_CTX_set_default_verify_paths(t->ctx);
	}
	SSL_CTX_set_verify(t->ctx, t->skip_verify ? SSL_VERIFY_NONE : SSL_VERIFY_PEER, NULL);
	return t;
}

struct tls *tls_new_server(const struct tls_settings *c, struct err *err)
{
	struct tls *t = new_context(c, true, err);

	if (t == NULL)
		return NULL;
	if (!is_set(c->cert_file)) {
		err_set(err, ERR_CONFIG, "tls: a server needs cert_file and key_file");
		goto fail;
	}
	if (t->alpn[0] > 0)
		SSL_CTX_set_alpn_select_cb(t->ctx, choose_alpn, t);
	if (is_set(c->client_ca_file)) {
		if (SSL_CTX_load_verify_locations(t->ctx, c->client_ca_file, NULL) != 1) {
			fail(err, ERR_CONFIG, "client_ca_file", c->client_ca_file);
			goto fail;
		}
		SSL_CTX_set_verify(t->ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
	}
	return t;
fail:
	tls_free(t);
	return NULL;
}

void tls_free(struct tls *t)
{
	if (t == NULL || atomic_fetch_sub_explicit(&t->refs, 1, memory_order_acq_rel) != 1)
		return;
	SSL_CTX_free(t->ctx);
	free(t->server_name);
	free(t);
}

/* Who the server must prove to be; a name also goes into SNI, an address must not. */
static int expect_host(const struct tls *t, SSL *ssl, const char *host, struct err *err)
{
	X509_VERIFY_PARAM *param = SSL_get0_param(ssl);

	if (t->server_name != NULL)
		host = t->server_name;
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

	atomic_fetch_add_explicit(&t->refs, 1, memory_order_relaxed);
	c->tls = t;
	c->ssl = SSL_new(t->ctx);
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
	if (c->ssl != NULL && !c->failed && SSL_is_init_finished(c->ssl))
		SSL_shutdown(c->ssl);
	ERR_clear_error();
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
	c->failed = true;
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
