/* SPDX-License-Identifier: Apache-2.0
 *
 * tls.h - TLS on a non-blocking descriptor, for clients and servers.
 *
 * A struct tls is one configuration (certificates, verification, ALPN); many connections share it.
 * struct tls: any thread; struct tls_conn: its loop's.
 * SPEC: the keys of the Collector's `tls:` blocks (ca_file, cert_file, key_file,
 * server_name_override, insecure_skip_verify, min_version, max_version, client_ca_file,
 * include_system_ca_certs_pool, cipher_suites, curve_preferences, reload_interval,
 * client_ca_file_reload).
 */
#ifndef NET_TLS_H
#define NET_TLS_H

#include "base/base.h"
#include "base/err.h"

#include <sys/types.h>

struct tls;
struct tls_conn;

/* NULL or "" = not set. Strings are borrowed until tls_new_* returns. */
struct tls_settings {
	const char *what;      /* for the log: whose certificates, "otlp/in protocols.http" */
	const char *ca_file;   /* PEM; client: the server's CA (default: the system's) */
	const char *cert_file; /* PEM chain; required for a server */
	const char *key_file;  /* PEM */
	const char *ca_pem;    /* instead of the files: their content */
	const char *cert_pem, *key_pem;
	const char *client_ca_file; /* server: ask for and verify client certificates */
	const char *server_name;    /* client: verify this name instead of the address */
	const char *min_version;    /* "1.0" to "1.3"; default "1.2" */
	const char *max_version;    /* default: the newest */
	const char *alpn;           /* "h2" or "http/1.1"; a peer that offers another is refused */
	bool insecure_skip_verify;  /* client: take any certificate */
	bool system_ca_too;         /* client: the system's besides ca_file */
	bool client_ca_reload;      /* server: read client_ca_file again when it changes */
	uint64_t reload_ns;         /* read all files again for a connection after this; 0: never */
	/* Names of tls_is_cipher and tls_is_group, by preference; none: the library's. Of ciphers,
	 * those of TLS 1.3 and of before are two lists; one that names none keeps the library's. */
	const char *const *ciphers, *const *groups;
	size_t n_ciphers, n_groups;
};

/* Does this OpenSSL know the cipher suite by this name of IANA's; the group, of X25519, P256, P384,
 * P521, X25519MLKEM768? */
bool tls_is_cipher(const char *name);
bool tls_is_group(const char *name);
/* The name OpenSSL has for such a cipher suite, or group, for a library that hands lists of them to
 * OpenSSL; NULL when it is none. Suites of TLS 1.3 are in no such list: NULL. */
const char *tls_cipher_openssl(const char *name);
const char *tls_group_openssl(const char *name);

/* NULL with err (CONFIG, naming the file) when a file or version is no good. */
struct tls *tls_new_client(const struct tls_settings *c, struct err *err);
struct tls *tls_new_server(const struct tls_settings *c, struct err *err);
/* Connections stay valid. NULL is fine. */
void tls_free(struct tls *t);

/* Read the files of every struct tls of the process again, now (SIGHUP). New connections get what
 * was read; where something is no good the old stays in force, which is logged, once for each
 * reason. Connections are not touched. Any thread; reads files. The number that failed. */
unsigned tls_reload_all(void);

/* A connection on fd, which stays the caller's. Client: `host` is what the certificate must be for
 * (unless server_name is set) and goes into SNI when it is a name. The handshake happens inside
 * tls_conn_read and tls_conn_write. */
struct tls_conn *tls_conn_new(struct tls *t, int fd, const char *host, struct err *err);
/* Says goodbye when the descriptor takes it at once. NULL is fine. */
void tls_conn_free(struct tls_conn *c);
/* Say goodbye (close_notify) when the descriptor takes it at once; then only read. */
void tls_conn_end(struct tls_conn *c);
/* Go on with the handshake, reading nothing else: 1 done, 0 wait for the descriptor, -1. */
int tls_conn_handshake(struct tls_conn *c, struct err *err);
/* Bytes, 0 when it must wait for the descriptor, -1 at the end (err NONE; writing still works) or
 * on an error. */
ssize_t tls_conn_read(struct tls_conn *c, uint8_t *to, size_t n, struct err *err);
ssize_t tls_conn_write(struct tls_conn *c, const uint8_t *from, size_t n, struct err *err);
/* Does it hold bytes that a read would give without the descriptor? */
bool tls_conn_has_pending(const struct tls_conn *c);
/* Did the last read or write stop because the descriptor was not writable? */
bool tls_conn_wants_write(const struct tls_conn *c);
/* Did the last write stop because it must read first (a handshake)? */
bool tls_conn_write_wants_read(const struct tls_conn *c);

#endif
