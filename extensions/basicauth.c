/* SPDX-License-Identifier: Apache-2.0
 *
 * basicauth.c - extension that lets in who has a name and a password, and sends one.
 *
 * DESIGN: users are of `htpasswd` (net/htpasswd.h); what takes long to check is a worker's
 * (pipeline/auth.h), started when a slow hash is met first. Files are looked at once a second.
 * THREADS: one lock over users and credentials; a slow check holds the users it began with by a
 * count, not the lock.
 * LIMITS: a header of 4 KiB; files of 1 MiB.
 * SPEC: the Collector's basicauth keys; RFC 7617.
 */
#include "base/mem.h"
#include "base/str.h"
#include "base/watched_file.h"
#include "net/htpasswd.h"
#include "pipeline/auth.h"
#include "pipeline/conf/error.h"

#include <pthread.h>

enum { MAX_VALUE = 4096, MAX_FILE = 1 << 20 };

struct basic_config {
	const char *file, *inline_text;
	const char *username, *username_file, *password, *password_file;
};

/* Users, and how many use them. */
struct users {
	struct htpasswd *h;
	_Atomic unsigned refs;
};

struct basic_state {
	struct authenticator lent;
	bool is_set_up;
	pthread_mutex_t lock;
	bool started;                                             /* lock */
	struct users *users;                                      /* lock; NULL: nobody */
	struct watched_file users_file, name_file, password_file; /* lock */
	char *name, *password;                                    /* lock; of the client */
	bool file_failed;                                         /* lock; said */
};

#define C struct basic_config
static const struct option basic_options[] = {
	OPT_STR(C, "htpasswd.file", file, NULL,
		"Users as htpasswd writes them (bcrypt, SHA-crypt, SHA-1, plain text), read again "
		"when it changes."),
	OPT_OPAQUE_STR(C, "htpasswd.inline", inline_text, NULL,
		       "The same lines here; a user here goes before one in the file."),
	OPT_STR(C, "client_auth.username", username, NULL, "Name to send."),
	OPT_STR(C, "client_auth.username_file", username_file, NULL,
		"A file with the name, read again when it changes."),
	OPT_OPAQUE_STR(C, "client_auth.password", password, NULL, "Password to send."),
	OPT_STR(C, "client_auth.password_file", password_file, NULL,
		"A file with the password, read again when it changes."),
	OPT_END
};
#undef C

static bool is_server(const struct basic_config *conf)
{
	return conf->file[0] != '\0' || conf->inline_text[0] != '\0';
}

static bool is_client(const struct basic_config *conf)
{
	return conf->username[0] != '\0' || conf->username_file[0] != '\0';
}

static void basic_validate(void *config, const struct conf_node *node, struct conf_errors *errs,
			   const char *path)
{
	const struct basic_config *conf = config;
	struct err err = ERR_INIT;

	if (is_server(conf) && is_client(conf))
		conf_error_at(errs, node, path, "client_auth", "make two extensions of it",
			      "cannot set both `client_auth` and `htpasswd`");
	else if (!is_server(conf) && !is_client(conf))
		conf_error_at(errs, node, path, "htpasswd",
			      "for example htpasswd: {file: /etc/spanmill/users}",
			      "no credential source provided");
	if (conf->inline_text[0] != '\0') {
		struct htpasswd *h =
			htpasswd_parse(bytes_str(conf->inline_text), "htpasswd.inline", &err);

		if (h == NULL)
			conf_error_at(errs, node, path, "htpasswd.inline",
				      "one user:hash a line, made with htpasswd -nB USER", "%s",
				      err.msg);
		htpasswd_free(h);
	}
	if (strchr(conf->username, ':') != NULL)
		conf_error_at(errs, node, path, "client_auth.username", "names have no colon",
			      "a name with a colon cannot be sent");
}

/* ---- users ---- */

static void users_unref(struct users *u)
{
	if (u == NULL || atomic_fetch_sub(&u->refs, 1) != 1)
		return;
	htpasswd_free(u->h);
	free(u);
}

/* The lock held. -1: the old ones stay. */
static int read_users(struct basic_state *st, const struct basic_config *conf, struct err *err)
{
	struct buf text = BUF_INIT;
	struct htpasswd *h = NULL;
	int rc = 0;

	/* The first line of a name counts. */
	buf_printf(&text, "%s\n", conf->inline_text);
	if (conf->file[0] != '\0')
		rc = watched_file_read(&st->users_file, MAX_FILE, &text, err);
	if (rc == 0)
		h = htpasswd_parse(buf_bytes(&text), conf->file[0] ? conf->file : "htpasswd.inline",
				   err);
	explicit_bzero(text.p, text.n);
	buf_fini(&text);
	if (h == NULL)
		return -1;
	users_unref(st->users);
	st->users = xcalloc(1, sizeof(*st->users));
	st->users->h = h;
	atomic_init(&st->users->refs, 1);
	return 0;
}

/* The first line of a file. The lock held. */
static int read_line(struct watched_file *w, char **line, struct err *err)
{
	struct buf text = BUF_INIT;
	int rc = watched_file_read(w, MAX_FILE, &text, err);

	if (rc == 0) {
		const char *s = buf_cstr(&text);

		free(*line);
		*line = xasprintf("%.*s", (int)strcspn(s, "\r\n"), s);
		explicit_bzero(text.p, text.n);
	}
	buf_fini(&text);
	return rc;
}

/* The lock held. */
static void look_at_files(struct component *c, struct basic_state *st)
{
	const struct basic_config *conf = COMPONENT_CONFIG(c, struct basic_config);
	struct err err = ERR_INIT;
	int rc = 0;

	if (watched_file_changed(&st->users_file))
		rc = read_users(st, conf, &err);
	if (rc == 0 && watched_file_changed(&st->name_file))
		rc = read_line(&st->name_file, &st->name, &err);
	if (rc == 0 && watched_file_changed(&st->password_file))
		rc = read_line(&st->password_file, &st->password, &err);
	if (rc < 0 && !st->file_failed)
		log_warn("users or credentials could not be read again, the old ones stay",
			 "component", c->id, "error", err.msg);
	st->file_failed = rc < 0;
}

/* ---- server ---- */

/* A reference, or NULL. */
static struct users *users_now(struct component *c)
{
	struct basic_state *st = COMPONENT_STATE(c, struct basic_state);
	struct users *u;

	pthread_mutex_lock(&st->lock);
	if (st->started)
		look_at_files(c, st);
	u = st->users;
	if (u != NULL)
		atomic_fetch_add(&u->refs, 1);
	pthread_mutex_unlock(&st->lock);
	return u;
}

/* user:password of "Basic xxxx" into out (MAX_VALUE bytes). False when it is none. */
static bool decode(struct bytes value, uint8_t *out, struct bytes *user, struct bytes *password)
{
	static const char word[] = "Basic ";
	size_t n = sizeof(word) - 1;
	const uint8_t *colon;
	long len;

	if (value.n <= n || value.n > MAX_VALUE ||
	    !str_eq_nocase((struct bytes){ value.p, n }, word))
		return false;
	value = (struct bytes){ value.p + n, value.n - n };
	while (value.n > 0 && *value.p == ' ')
		value = (struct bytes){ value.p + 1, value.n - 1 };
	len = str_unbase64(value, out);
	colon = len > 0 ? memchr(out, ':', (size_t)len) : NULL;
	if (colon == NULL)
		return false;
	*user = (struct bytes){ out, (size_t)(colon - out) };
	*password = (struct bytes){ colon + 1, (size_t)(out + len - colon - 1) };
	return true;
}

static enum auth_verdict check_with(struct component *c, struct bytes value,
				    enum htpasswd_verdict (*check)(struct htpasswd *, struct bytes,
								   struct bytes))
{
	uint8_t text[MAX_VALUE];
	struct bytes user, password;
	enum htpasswd_verdict v = HTPASSWD_NO;
	struct users *u = NULL;

	if (!decode(value, text, &user, &password))
		return AUTH_NO;
	u = users_now(c);
	if (u != NULL)
		v = check(u->h, user, password);
	users_unref(u);
	explicit_bzero(text, sizeof(text));
	return v == HTPASSWD_YES ? AUTH_YES : v == HTPASSWD_SLOW ? AUTH_LATER : AUTH_NO;
}

static enum auth_verdict basic_check(void *arg, struct bytes value)
{
	return check_with(arg, value, htpasswd_check);
}

static enum auth_verdict basic_check_slowly(void *arg, struct bytes value)
{
	return check_with(arg, value, htpasswd_check_slowly);
}

/* ---- client ---- */

static int basic_credentials(void *arg, struct buf *out, struct err *err)
{
	struct component *c = arg;
	struct basic_state *st = COMPONENT_STATE(c, struct basic_state);
	struct buf plain = BUF_INIT;
	bool has;

	pthread_mutex_lock(&st->lock);
	has = st->started;
	if (has) {
		look_at_files(c, st);
		buf_printf(&plain, "%s:%s", st->name, st->password);
		buf_add_str(out, "Basic ");
		out->n += str_base64(plain.p, plain.n,
				     (char *)buf_reserve(out, 4 * ((plain.n + 2) / 3) + 1));
		explicit_bzero(plain.p, plain.n);
	}
	pthread_mutex_unlock(&st->lock);
	buf_fini(&plain);
	return has ? 0 : err_set(err, ERR_UNAVAILABLE, "extension %s is stopped", c->id);
}

/* ---- life ---- */

static const struct authenticator *basic_authenticator(struct component *c)
{
	const struct basic_config *conf = COMPONENT_CONFIG(c, struct basic_config);
	struct basic_state *st = COMPONENT_STATE(c, struct basic_state);

	if (st->is_set_up)
		return &st->lent;
	st->is_set_up = true;
	pthread_mutex_init(&st->lock, NULL);
	st->lent = (struct authenticator){ .arg = c,
					   .header = "authorization",
					   .challenge = "Basic realm=\"spanmill\"" };
	if (is_server(conf)) {
		st->lent.check = basic_check;
		st->lent.check_slowly = basic_check_slowly;
	}
	if (is_client(conf)) {
		st->lent.client_header = "authorization";
		st->lent.credentials = basic_credentials;
	}
	return &st->lent;
}

static int read_all(struct basic_state *st, const struct basic_config *conf, struct err *err)
{
	st->users_file.path = conf->file;
	st->name_file.path = conf->username_file;
	st->password_file.path = conf->password_file;
	st->name = xstrdup(conf->username);
	st->password = xstrdup(conf->password);
	if (is_server(conf) && read_users(st, conf, err) < 0)
		return -1;
	if (conf->username_file[0] != '\0' && read_line(&st->name_file, &st->name, err) < 0)
		return -1;
	return conf->password_file[0] != '\0' ? read_line(&st->password_file, &st->password, err)
					      : 0;
}

static int basic_start(struct component *c, struct err *err)
{
	struct basic_state *st = COMPONENT_STATE(c, struct basic_state);
	const struct basic_config *conf = COMPONENT_CONFIG(c, struct basic_config);
	int rc;

	basic_authenticator(c);
	if (is_server(conf) && (st->lent.worker = auth_worker_new()) == NULL)
		return err_set(err, ERR_EXHAUSTED, "no thread to check passwords on");
	pthread_mutex_lock(&st->lock);
	rc = read_all(st, conf, err);
	st->started = rc == 0;
	pthread_mutex_unlock(&st->lock);
	return rc;
}

static void basic_shutdown(struct component *c)
{
	struct basic_state *st = COMPONENT_STATE(c, struct basic_state);

	if (!st->is_set_up)
		return;
	auth_worker_free(st->lent.worker);
	st->lent.worker = NULL;
	/* Whoever borrowed it may still ask, and is refused. */
	pthread_mutex_lock(&st->lock);
	st->started = false;
	users_unref(st->users);
	st->users = NULL;
	free(st->name);
	if (st->password != NULL)
		explicit_bzero(st->password, strlen(st->password));
	free(st->password);
	st->name = st->password = NULL;
	pthread_mutex_unlock(&st->lock);
}

const struct component_type extension_basicauth = {
	.name = "basicauth",
	.alias = "basic_auth",
	.kind = KIND_EXTENSION,
	.summary = "Lets in who has a name and a password, and sends one.",
	.stability = STABILITY_ALPHA,
	.config_size = sizeof(struct basic_config),
	.state_size = sizeof(struct basic_state),
	.options = basic_options,
	.validate = basic_validate,
	.start = basic_start,
	.shutdown = basic_shutdown,
	.authenticator = basic_authenticator,
};
