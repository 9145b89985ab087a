/* SPDX-License-Identifier: Apache-2.0
 *
 * s3_credentials.c - see s3_credentials.h.
 *
 *   lock: keys, source, times        fetching: held by the one who asks a source; the others go on
 *                                    with keys that are still good, or wait for it
 */
#include "blocks/s3_credentials.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "blocks/s3_key_sources.h"

#include <pthread.h>
#include <stdio.h>

#define RENEW_BEFORE_NS (300 * NS_PER_S)
#define FETCH_AGAIN_NS (30 * NS_PER_S) /* while the old keys still hold */
#define FAILURE_HOLDS_NS NS_PER_S      /* for others that waited for the same answer */

struct s3_credentials {
	struct s3_credentials_options o; /* strings are ours */
	pthread_mutex_t fetching;
	pthread_mutex_t lock;
	struct s3_keys keys;
	const struct s3_key_source *source; /* that the keys came from; NULL before */
	bool is_distrusted;
	struct err failure;     /* of the last fetch */
	uint64_t asked_mono_ns; /* the last fetch, whatever came of it; 0 never */
	uint64_t distrusted_mono_ns;
};

static char *copy(const char *s)
{
	return s != NULL && s[0] != '\0' ? xstrdup(s) : NULL;
}

struct s3_credentials *s3_credentials_new(const struct s3_credentials_options *o)
{
	struct s3_credentials *c = xcalloc(1, sizeof(*c));

	c->o.access_key = copy(o->access_key);
	c->o.secret_key = copy(o->secret_key);
	c->o.session_token = copy(o->session_token);
	c->o.region = copy(o->region);
	c->o.ca_file = copy(o->ca_file);
	c->o.is_interrupted = o->is_interrupted;
	c->o.interrupt_arg = o->interrupt_arg;
	pthread_mutex_init(&c->fetching, NULL);
	pthread_mutex_init(&c->lock, NULL);
	return c;
}

static void free_secret(const char *s)
{
	char *p = (char *)(uintptr_t)s;

	if (p != NULL)
		explicit_bzero(p, strlen(p));
	free(p);
}

void s3_credentials_free(struct s3_credentials *c)
{
	if (c == NULL)
		return;
	free_secret(c->o.access_key);
	free_secret(c->o.secret_key);
	free_secret(c->o.session_token);
	free((char *)(uintptr_t)c->o.region);
	free((char *)(uintptr_t)c->o.ca_file);
	s3_keys_wipe(&c->keys);
	pthread_mutex_destroy(&c->fetching);
	pthread_mutex_destroy(&c->lock);
	free(c);
}

void s3_keys_wipe(struct s3_keys *keys)
{
	explicit_bzero(keys, sizeof(*keys));
}

/* ---- how good the keys are; lock held ---- */

static bool are_usable(const struct s3_credentials *c)
{
	return c->source != NULL &&
	       (c->keys.expires_wall_ns == 0 || c->keys.expires_wall_ns > clock_wall_ns());
}

static bool are_due(const struct s3_credentials *c)
{
	if (c->source == NULL || c->is_distrusted)
		return true;
	return c->keys.expires_wall_ns != 0 &&
	       c->keys.expires_wall_ns < clock_wall_ns() + RENEW_BEFORE_NS;
}

static bool was_just_now(uint64_t mono_ns)
{
	return mono_ns != 0 && clock_mono_ns() - mono_ns < FETCH_AGAIN_NS;
}

/* ---- fetching ---- */

static int ask_in_turn(struct s3_credentials *c, struct s3_keys *keys,
		       const struct s3_key_source **source, struct err *err)
{
	for (size_t i = 0; i < S3_N_KEY_SOURCES; i++) {
		const struct s3_key_source *s = &s3_key_sources[i];
		int got = s->fetch(&c->o, keys, err);

		*source = s;
		if (got > 0)
			return 0;
		/* The last place needs no setting up, so its failure says nothing by itself. */
		if (got < 0 && i + 1 == S3_N_KEY_SOURCES)
			return err_wrap(err, "no credentials: none in s3.access_key, the AWS_* "
					     "environment or ~/.aws/credentials, and no instance "
					     "metadata");
		if (got < 0)
			return -1;
	}
	return err_set(err, ERR_PERMISSION,
		       "no credentials: set s3.access_key and s3.secret_key, or AWS_ACCESS_KEY_ID "
		       "and AWS_SECRET_ACCESS_KEY");
}

/* fetching held; err is never NULL. */
static int fetch(struct s3_credentials *c, struct err *err)
{
	const struct s3_key_source *source = NULL;
	struct s3_keys keys;
	bool is_new;
	int ret = ask_in_turn(c, &keys, &source, err);

	pthread_mutex_lock(&c->lock);
	c->asked_mono_ns = clock_mono_ns();
	c->failure = *err;
	is_new = ret == 0 && c->source != source;
	c->is_distrusted = false;
	if (ret == 0) {
		err_clear(&c->failure);
		c->keys = keys;
		c->source = source;
	}
	pthread_mutex_unlock(&c->lock);
	s3_keys_wipe(&keys);
	if (is_new)
		log_info("s3 credentials found", "source", source->name);
	return ret;
}

/* Fetch, unless somebody else just did. */
static int renew(struct s3_credentials *c, struct err *err)
{
	bool is_due, has_failed;
	int ret = 0;

	pthread_mutex_lock(&c->fetching);
	pthread_mutex_lock(&c->lock);
	is_due = are_due(c);
	has_failed = c->failure.kind != ERR_NONE &&
		     clock_mono_ns() - c->asked_mono_ns < FAILURE_HOLDS_NS;
	if (is_due && has_failed)
		*err = c->failure;
	pthread_mutex_unlock(&c->lock);
	if (is_due)
		ret = has_failed ? -1 : fetch(c, err);
	pthread_mutex_unlock(&c->fetching);
	return ret;
}

int s3_credentials_keys(struct s3_credentials *c, struct s3_keys *keys, struct err *err)
{
	struct err local = ERR_INIT;
	bool must, may;
	int ret = 0;

	pthread_mutex_lock(&c->lock);
	must = !are_usable(c) || c->is_distrusted;
	may = are_due(c) && !was_just_now(c->asked_mono_ns);
	pthread_mutex_unlock(&c->lock);
	if (must) {
		ret = renew(c, &local);
	} else if (may && pthread_mutex_trylock(&c->fetching) == 0) {
		if (fetch(c, &local) < 0)
			log_warn("s3 credentials could not be renewed, the old ones still hold",
				 "error", local.msg);
		pthread_mutex_unlock(&c->fetching);
	}
	pthread_mutex_lock(&c->lock);
	if (ret == 0)
		*keys = c->keys;
	pthread_mutex_unlock(&c->lock);
	if (ret < 0 && err != NULL)
		*err = local;
	return ret;
}

void s3_credentials_distrust(struct s3_credentials *c, const char *access_key)
{
	pthread_mutex_lock(&c->lock);
	if (strcmp(c->keys.access_key, access_key) == 0 && !was_just_now(c->distrusted_mono_ns)) {
		c->is_distrusted = true;
		c->distrusted_mono_ns = clock_mono_ns();
	}
	pthread_mutex_unlock(&c->lock);
}

const char *s3_credentials_source(struct s3_credentials *c)
{
	const char *name;

	pthread_mutex_lock(&c->lock);
	name = c->source != NULL ? c->source->name : "none";
	pthread_mutex_unlock(&c->lock);
	return name;
}
