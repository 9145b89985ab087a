/* SPDX-License-Identifier: Apache-2.0
 *
 * bearertokenauth.c - extension that lets in who knows a token, and sends one.
 *
 * As a server's authenticator any of its tokens opens; as a client's the first one is sent.
 * DESIGN: tokens are kept as SHA-256, and a request's digest is compared with all of them, so that
 * neither a byte nor the number of one shows in the time. `filename` is looked at once a second.
 * THREADS: the tokens have a lock; it is taken once a request.
 * LIMITS: 1,000 tokens, 64 KiB each; a file of 1 MiB.
 * SPEC: the Collector's bearertokenauth keys; RFC 6750.
 */
#include "base/digest.h"
#include "base/mem.h"
#include "base/str.h"
#include "base/watched_file.h"
#include "pipeline/auth.h"
#include "pipeline/conf/error.h"

#include <ctype.h>
#include <pthread.h>
#include <stdio.h>

enum { MAX_TOKENS = 1000, MAX_FILE = 1 << 20, HEADER_MAX = 100 };

struct bearer_config {
	const char *header, *scheme, *token, *filename;
	struct strlist tokens;
};

struct tokens {
	uint8_t (*digests)[DIGEST_SHA256];
	size_t n;
	char *first; /* what a client sends */
};

struct bearer_state {
	struct authenticator lent;
	bool is_set_up;
	char header[HEADER_MAX + 1]; /* lower case; lent until the end */
	pthread_mutex_t lock;
	bool started;             /* lock */
	struct tokens valid;      /* lock */
	struct watched_file file; /* lock */
	bool file_failed;         /* lock; said */
};

#define C struct bearer_config
static const struct option bearer_options[] = {
	OPT_STR(C, "header", header, "Authorization", "Header that carries the token."),
	OPT_STR(C, "scheme", scheme, "Bearer", "Word before the token; empty: none."),
	OPT_OPAQUE_STR(C, "token", token, NULL, "The token."),
	OPT_OPAQUE_LIST(C, "tokens", tokens,
			"Several: all of them are let in, the first one is sent."),
	OPT_STR(C, "filename", filename, NULL,
		"A file with one token a line instead, read again when it changes."),
	OPT_END
};
#undef C

/* What a header's value may have: nothing that ends it. */
static bool is_token(struct bytes b)
{
	for (size_t i = 0; i < b.n; i++)
		if (b.p[i] <= ' ' || b.p[i] == 0x7f)
			return false;
	return b.n > 0;
}

static void bearer_validate(void *config, const struct conf_node *node, struct conf_errors *errs,
			    const char *path)
{
	const struct bearer_config *conf = config;
	unsigned n = (conf->token[0] != '\0') + (conf->tokens.n > 0) + (conf->filename[0] != '\0');

	if (n == 0)
		conf_error_at(errs, node, path, "token", "for example token: ${env:TOKEN}",
			      "no bearer token provided");
	if (conf->filename[0] != '\0' && n > 1)
		conf_error_at(errs, node, path, "filename", "remove one of the two",
			      "either tokens or a filename can be used, not both");
	if (conf->token[0] != '\0' && conf->tokens.n > 0)
		conf_error_at(errs, node, path, "tokens", "put the token first among tokens",
			      "either token or tokens can be used, not both");
	if (conf->token[0] != '\0' && !is_token(bytes_str(conf->token)))
		conf_error_at(errs, node, path, "token", "write it without blanks",
			      "the token has blanks or control characters");
	for (size_t i = 0; i < conf->tokens.n; i++)
		if (!is_token(bytes_str(conf->tokens.items[i])))
			conf_error_at(errs, node, path, "tokens", "write it without blanks",
				      "token %zu is empty, or has blanks or control characters",
				      i + 1);
	if (!is_token(bytes_str(conf->header)) || strlen(conf->header) > HEADER_MAX)
		conf_error_at(errs, node, path, "header", "for example Authorization",
			      "\"%.60s\" is no name of a header", conf->header);
}

/* ---- tokens ---- */

static void tokens_fini(struct tokens *t)
{
	if (t->first != NULL)
		explicit_bzero(t->first, strlen(t->first));
	free(t->first);
	free(t->digests);
	*t = (struct tokens){ .n = 0 };
}

static void tokens_add(struct tokens *t, struct bytes token)
{
	if (t->first == NULL)
		t->first = xasprintf("%.*s", (int)token.n, (const char *)token.p);
	t->digests = xrealloc(t->digests, (t->n + 1) * sizeof(*t->digests));
	digest_sha256(&token, 1, t->digests[t->n++]);
}

static int tokens_parse(struct tokens *t, struct bytes text, const char *path, struct err *err)
{
	for (size_t line = 1; text.n > 0; line++) {
		const uint8_t *end = memchr(text.p, '\n', text.n);
		size_t n = end != NULL ? (size_t)(end - text.p) : text.n;
		struct bytes one = { text.p, n };

		n += end != NULL;
		text = (struct bytes){ text.p + n, text.n - n };
		while (one.n > 0 && isspace(one.p[one.n - 1]))
			one.n--;
		while (one.n > 0 && isspace(*one.p))
			one = (struct bytes){ one.p + 1, one.n - 1 };
		if (one.n == 0)
			continue;
		if (!is_token(one) || t->n >= MAX_TOKENS)
			return err_set(err, ERR_CONFIG, "%s: line %zu: %s", path, line,
				       t->n >= MAX_TOKENS ? "too many tokens"
							  : "a token has no blanks in it");
		tokens_add(t, one);
	}
	return t->n > 0 ? 0 : err_set(err, ERR_CONFIG, "%s: there is no token in it", path);
}

/* The lock held. -1: the old ones stay. */
static int read_file(struct bearer_state *st, struct err *err)
{
	struct buf text = BUF_INIT;
	struct tokens t = { .n = 0 };
	int rc = watched_file_read(&st->file, MAX_FILE, &text, err);

	if (rc == 0)
		rc = tokens_parse(&t, buf_bytes(&text), st->file.path, err);
	if (rc == 0) {
		tokens_fini(&st->valid);
		st->valid = t;
	} else {
		tokens_fini(&t);
	}
	if (text.p != NULL)
		explicit_bzero(text.p, text.n);
	buf_fini(&text);
	return rc;
}

/* The lock held. */
static void look_at_file(struct bearer_state *st, const char *id)
{
	struct err err = ERR_INIT;

	if (!watched_file_changed(&st->file))
		return;
	if (read_file(st, &err) == 0) {
		log_info("tokens read again", "component", id, "file", st->file.path);
		st->file_failed = false;
		return;
	}
	if (!st->file_failed)
		log_warn("tokens could not be read again, the old ones stay", "component", id,
			 "error", err.msg);
	st->file_failed = true;
}

/* ---- server ---- */

/* The token behind the scheme's word; n = 0 when it is not that scheme. */
static struct bytes token_of(struct bytes value, const char *scheme)
{
	size_t n = strlen(scheme);

	if (n > 0) {
		if (value.n <= n || value.p[n] != ' ' ||
		    !str_eq_nocase((struct bytes){ value.p, n }, scheme))
			return BYTES_EMPTY;
		value = (struct bytes){ value.p + n, value.n - n };
	}
	while (value.n > 0 && *value.p == ' ')
		value = (struct bytes){ value.p + 1, value.n - 1 };
	while (value.n > 0 && value.p[value.n - 1] == ' ')
		value.n--;
	return value;
}

static enum auth_verdict bearer_check(void *arg, struct bytes value)
{
	struct component *c = arg;
	struct bearer_state *st = COMPONENT_STATE(c, struct bearer_state);
	struct bytes token = token_of(value, COMPONENT_CONFIG(c, struct bearer_config)->scheme);
	uint8_t digest[DIGEST_SHA256];
	unsigned fits = 0;

	if (token.n == 0)
		return AUTH_NO;
	digest_sha256(&token, 1, digest);
	pthread_mutex_lock(&st->lock);
	if (st->started)
		look_at_file(st, c->id);
	for (size_t i = 0; i < st->valid.n; i++)
		fits |= digest_equal(digest, st->valid.digests[i], sizeof(digest));
	pthread_mutex_unlock(&st->lock);
	return fits ? AUTH_YES : AUTH_NO;
}

/* ---- client ---- */

static int bearer_credentials(void *arg, struct buf *out, struct err *err)
{
	struct component *c = arg;
	struct bearer_state *st = COMPONENT_STATE(c, struct bearer_state);
	const char *scheme = COMPONENT_CONFIG(c, struct bearer_config)->scheme;
	bool has;

	pthread_mutex_lock(&st->lock);
	if (st->started)
		look_at_file(st, c->id);
	has = st->valid.first != NULL;
	if (has)
		buf_printf(out, "%s%s%s", scheme, scheme[0] != '\0' ? " " : "", st->valid.first);
	pthread_mutex_unlock(&st->lock);
	return has ? 0 : err_set(err, ERR_UNAVAILABLE, "extension %s has no token now", c->id);
}

/* ---- life ---- */

static const struct authenticator *bearer_authenticator(struct component *c)
{
	struct bearer_state *st = COMPONENT_STATE(c, struct bearer_state);

	if (!st->is_set_up) {
		st->is_set_up = true;
		snprintf(st->header, sizeof(st->header), "%s",
			 COMPONENT_CONFIG(c, struct bearer_config)->header);
		for (char *p = st->header; *p != '\0'; p++)
			*p = (char)tolower((unsigned char)*p);
		pthread_mutex_init(&st->lock, NULL);
		st->lent = (struct authenticator){ .arg = c,
						   .header = st->header,
						   .challenge = "Bearer",
						   .check = bearer_check,
						   .client_header = st->header,
						   .credentials = bearer_credentials };
	}
	return &st->lent;
}

static int bearer_start(struct component *c, struct err *err)
{
	const struct bearer_config *conf = COMPONENT_CONFIG(c, struct bearer_config);
	struct bearer_state *st = COMPONENT_STATE(c, struct bearer_state);
	int rc = 0;

	bearer_authenticator(c);
	pthread_mutex_lock(&st->lock);
	st->file.path = conf->filename;
	if (conf->token[0] != '\0')
		tokens_add(&st->valid, bytes_str(conf->token));
	for (size_t i = 0; i < MIN(conf->tokens.n, (size_t)MAX_TOKENS); i++)
		tokens_add(&st->valid, bytes_str(conf->tokens.items[i]));
	if (conf->filename[0] != '\0')
		rc = read_file(st, err);
	st->started = true;
	pthread_mutex_unlock(&st->lock);
	return rc;
}

static void bearer_shutdown(struct component *c)
{
	struct bearer_state *st = COMPONENT_STATE(c, struct bearer_state);

	if (!st->is_set_up)
		return;
	/* Whoever borrowed it may still ask, and is refused. */
	pthread_mutex_lock(&st->lock);
	tokens_fini(&st->valid);
	st->started = false;
	pthread_mutex_unlock(&st->lock);
}

const struct component_type extension_bearertokenauth = {
	.name = "bearertokenauth",
	.alias = "bearer_token_auth",
	.kind = KIND_EXTENSION,
	.summary = "Lets in who knows a token, and sends one.",
	.stability = STABILITY_ALPHA,
	.config_size = sizeof(struct bearer_config),
	.state_size = sizeof(struct bearer_state),
	.options = bearer_options,
	.validate = bearer_validate,
	.start = bearer_start,
	.shutdown = bearer_shutdown,
	.authenticator = bearer_authenticator,
};
