/* SPDX-License-Identifier: Apache-2.0
 *
 * s3_key_sources.c - see s3_key_sources.h.
 */
#include "blocks/s3_key_sources.h"

#include "base/clock.h"
#include "base/mem.h"
#include "base/str.h"
#include "blocks/block_meta.h"
#include "blocks/s3_answer.h"
#include "blocks/s3_profile.h"
#include "net/http_client.h"
#include "net/sigv4.h"
#include "wire/json_reader.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

enum { ANSWER_MAX = 65536, STS_TIMEOUT_MS = 10000, METADATA_TIMEOUT_MS = 2000 };

/* ---- small things ---- */

static const char *env(const char *name)
{
	const char *v = getenv(name);

	return v != NULL ? v : "";
}

static int set_key(char *to, size_t size, const char *value, const char *what, struct err *err)
{
	size_t n = strlen(value);

	if (n >= size || strpbrk(value, "\r\n") != NULL)
		return err_set(err, ERR_INVALID, "%s: %zu bytes are no key", what, n);
	memcpy(to, value, n + 1);
	return 0;
}

#define SET_KEY(field, value, what, err) set_key((field), sizeof(field), (value), (what), (err))

static int set_keys(struct s3_keys *k, const char *access, const char *secret, const char *token,
		    struct err *err)
{
	memset(k, 0, sizeof(*k));
	if (SET_KEY(k->access_key, access, "access key", err) < 0 ||
	    SET_KEY(k->secret_key, secret, "secret key", err) < 0 ||
	    SET_KEY(k->session_token, token, "session token", err) < 0)
		return -1;
	return 1;
}

static int read_file(const char *path, struct buf *out, struct err *err)
{
	FILE *f = fopen(path, "re");
	uint8_t *to = buf_reserve(out, ANSWER_MAX + 1);

	if (f == NULL)
		return err_errno(err, "%s", path);
	out->n = fread(to, 1, ANSWER_MAX + 1, f);
	if (ferror(f))
		err_set(err, ERR_IO, "%s: cannot be read", path);
	else if (out->n > ANSWER_MAX)
		err_set(err, ERR_TOO_LARGE, "%s: over %d bytes", path, ANSWER_MAX);
	else {
		fclose(f);
		return 0;
	}
	fclose(f);
	return -1;
}

/* A token that stands in a file by itself. */
static int read_token(const char *path, struct buf *out, struct err *err)
{
	if (read_file(path, out, err) < 0)
		return -1;
	while (out->n > 0 && strchr(" \t\r\n", out->p[out->n - 1]) != NULL)
		out->n--;
	if (out->n == 0 || strpbrk(buf_cstr(out), "\r\n") != NULL)
		return err_set(err, ERR_INVALID, "%s: is no token", path);
	return 0;
}

static void wipe(struct buf *b)
{
	if (b->cap > 0)
		explicit_bzero(b->p, b->cap);
	buf_fini(b);
}

/* ---- 1, 2: written down ---- */

static int from_config(const struct s3_credentials_options *o, struct s3_keys *k, struct err *err)
{
	if (o->access_key == NULL || o->access_key[0] == '\0')
		return 0;
	return set_keys(k, o->access_key, o->secret_key ? o->secret_key : "",
			o->session_token ? o->session_token : "", err);
}

static int from_environment(const struct s3_credentials_options *o, struct s3_keys *k,
			    struct err *err)
{
	const char *access = env("AWS_ACCESS_KEY_ID"), *secret = env("AWS_SECRET_ACCESS_KEY");

	(void)o;
	if (access[0] == '\0' && secret[0] == '\0')
		return 0;
	if (access[0] == '\0' || secret[0] == '\0')
		return err_set(err, ERR_PERMISSION, "%s is set and %s is not",
			       access[0] ? "AWS_ACCESS_KEY_ID" : "AWS_SECRET_ACCESS_KEY",
			       access[0] ? "AWS_SECRET_ACCESS_KEY" : "AWS_ACCESS_KEY_ID");
	return set_keys(k, access, secret, env("AWS_SESSION_TOKEN"), err);
}

/* ---- asking over HTTP ---- */

/* One call with a connection of its own: this is done once an hour. The answer is in *reply. */
static int ask(const struct http_client_settings *set, const struct http_call *call,
	       struct http_reply *reply, struct err *err)
{
	struct http_client *c = http_client_new(set, err);
	int ret = -1;

	if (c != NULL)
		ret = http_client_call(c, call, reply, err);
	http_client_free(c);
	return ret;
}

/* An answer that is not 200, in words. The body is not shown: it may hold anything. */
static int refused(const char *who, const struct http_reply *reply, struct err *err)
{
	struct s3_error e;
	enum err_kind kind =
		reply->status >= 500 || reply->status == 429 ? ERR_UNAVAILABLE : ERR_PERMISSION;

	if (s3_answer_error(buf_bytes(&reply->body), &e))
		return err_set(err, kind, "%s: %d %s: %s", who, reply->status, e.code, e.message);
	return err_set(err, kind, "%s: status %d", who, reply->status);
}

/* ---- 3: web identity ---- */

static void add_param(struct buf *form, const char *name, struct bytes value)
{
	buf_printf(form, "%s%s=", form->n > 0 ? "&" : "", name);
	sigv4_encode(value, false, form);
}

static void make_form(const char *role, struct bytes token, struct buf *form)
{
	const char *session = env("AWS_ROLE_SESSION_NAME");
	char own[48];

	if (session[0] == '\0') {
		snprintf(own, sizeof(own), "spanmill-%llu",
			 (unsigned long long)(clock_wall_ns() / NS_PER_S));
		session = own;
	}
	add_param(form, "Action", BYTES_LIT("AssumeRoleWithWebIdentity"));
	add_param(form, "Version", BYTES_LIT("2011-06-15"));
	add_param(form, "RoleArn", bytes_str(role));
	add_param(form, "RoleSessionName", bytes_str(session));
	add_param(form, "WebIdentityToken", token);
}

/* The region's own STS, as the SDKs do; AWS_ENDPOINT_URL_STS names another one. */
static void sts_url(const char *region, char *out, size_t size)
{
	const char *own = env("AWS_ENDPOINT_URL_STS");
	bool china = str_has_prefix(region, "cn-");

	if (own[0] != '\0')
		snprintf(out, size, "%s/", own);
	else
		snprintf(out, size, "https://sts.%s.amazonaws.com%s/", region, china ? ".cn" : "");
}

static int assume_role(const struct s3_credentials_options *o, const char *role, struct bytes token,
		       struct s3_keys *k, struct err *err)
{
	struct http_header type = { "Content-Type", "application/x-www-form-urlencoded" };
	struct http_client_settings set = { .timeout_ms = STS_TIMEOUT_MS,
					    .ca_file = o->ca_file,
					    .is_interrupted = o->is_interrupted,
					    .interrupt_arg = o->interrupt_arg };
	struct http_reply reply = HTTP_REPLY_INIT;
	struct buf form = BUF_INIT;
	struct bytes body;
	char url[512];
	int ret = -1;

	make_form(role, token, &form);
	body = buf_bytes(&form);
	sts_url(o->region, url, sizeof(url));
	if (ask(&set,
		&(struct http_call){ .url = url,
				     .headers = &type,
				     .n_headers = 1,
				     .body = &body,
				     .n_body = 1,
				     .max_reply = ANSWER_MAX },
		&reply, err) == 0) {
		if (reply.status != 200)
			refused("STS", &reply, err);
		else if (s3_answer_assumed_role(buf_bytes(&reply.body), k, err) == 0)
			ret = 1;
		else
			err_wrap(err, "STS");
	}
	wipe(&form);
	wipe(&reply.body);
	http_reply_fini(&reply);
	return ret;
}

static int from_web_identity(const struct s3_credentials_options *o, struct s3_keys *k,
			     struct err *err)
{
	const char *role = env("AWS_ROLE_ARN"), *path = env("AWS_WEB_IDENTITY_TOKEN_FILE");
	struct buf token = BUF_INIT;
	int ret = -1;

	if (role[0] == '\0' || path[0] == '\0')
		return 0;
	if (read_token(path, &token, err) == 0)
		ret = assume_role(o, role, buf_bytes(&token), k, err);
	if (ret < 0)
		err_wrap(err, "AWS_WEB_IDENTITY_TOKEN_FILE");
	wipe(&token);
	return ret;
}

/* ---- 4: the shared file ---- */

static int from_file(const struct s3_credentials_options *o, struct s3_keys *k, struct err *err)
{
	const char *path = env("AWS_SHARED_CREDENTIALS_FILE"), *profile = env("AWS_PROFILE");
	struct buf text = BUF_INIT;
	struct err local = ERR_INIT;
	char home[512];
	int ret = -1;

	(void)o;
	if (path[0] == '\0') {
		snprintf(home, sizeof(home), "%s/.aws/credentials", env("HOME"));
		path = home;
	}
	if (read_file(path, &text, &local) < 0) {
		if (local.kind == ERR_NOT_FOUND && path == home && profile[0] == '\0')
			ret = 0;
	} else {
		ret = s3_profile_read(buf_bytes(&text), profile[0] ? profile : "default", k,
				      &local);
		if (ret < 0)
			err_wrap(&local, "%s: profile %s", path, profile[0] ? profile : "default");
		else if (ret == 0 && profile[0] != '\0')
			ret = err_set(&local, ERR_PERMISSION,
				      "%s: no keys in profile %s (~/.aws/config is not read)", path,
				      profile);
	}
	if (ret < 0 && err != NULL)
		*err = local;
	wipe(&text);
	return ret;
}

/* ---- 5: container ---- */

static int copy_string(const struct json_value *v, char *to, size_t size, struct err *err)
{
	if (v->kind != JSON_STRING || v->text.n >= size)
		return err_set(err, ERR_INVALID, "%.*s: no key", (int)MIN(v->key.n, 32),
			       (const char *)v->key.p);
	if (v->text.n > 0)
		memcpy(to, v->text.p, v->text.n);
	to[v->text.n] = '\0';
	return strlen(to) == v->text.n && strpbrk(to, "\r\n") == NULL
		       ? 0
		       : err_set(err, ERR_INVALID, "%.*s: no key", (int)MIN(v->key.n, 32),
				 (const char *)v->key.p);
}

static int read_member(struct json_reader *r, const struct json_value *v, struct s3_keys *k,
		       struct err *err)
{
	struct block_time t;

	if (JSON_KEY_IS(v, "AccessKeyId"))
		return copy_string(v, k->access_key, sizeof(k->access_key), err);
	if (JSON_KEY_IS(v, "SecretAccessKey"))
		return copy_string(v, k->secret_key, sizeof(k->secret_key), err);
	if (JSON_KEY_IS(v, "Token"))
		return copy_string(v, k->session_token, sizeof(k->session_token), err);
	if (JSON_KEY_IS(v, "Expiration") && v->kind == JSON_STRING) {
		if (block_time_parse(v->text, &t, err) < 0)
			return -1;
		k->expires_wall_ns = t.s < 0 ? 1 : (uint64_t)t.s * NS_PER_S;
		return 0;
	}
	return json_reader_skip(r, v, err);
}

int s3_keys_from_json(struct bytes json, struct s3_keys *k, struct err *err)
{
	struct arena arena = ARENA_INIT;
	struct json_reader r;
	struct json_value v;
	int got = -1;

	memset(k, 0, sizeof(*k));
	json_reader_init(&r, json, &arena);
	if (json_reader_value(&r, &v, err) < 0)
		goto out;
	if (v.kind != JSON_OBJECT) {
		err_set(err, ERR_INVALID, "json: not an object");
		goto out;
	}
	while ((got = json_reader_member(&r, &v, err)) > 0)
		if (read_member(&r, &v, k, err) < 0) {
			got = -1;
			break;
		}
	if (got == 0)
		got = json_reader_end(&r, err);
	if (got == 0 && (k->access_key[0] == '\0' || k->secret_key[0] == '\0'))
		got = err_set(err, ERR_INVALID, "AccessKeyId or SecretAccessKey is missing");
out:
	arena_fini(&arena);
	return got < 0 ? -1 : 0;
}

/* Plain HTTP only where nobody listens in between: this host, and the addresses of ECS and EKS. */
static bool may_be_asked(const char *url)
{
	static const char *const hosts[] = { "localhost",     "127.0.0.1",      "[::1]",
					     "169.254.170.2", "169.254.170.23", "[fd00:ec2::23]" };
	const char *host = url + strlen("http://");

	if (str_has_prefix(url, "https://"))
		return true;
	if (!str_has_prefix(url, "http://"))
		return false;
	for (size_t i = 0; i < COUNT_OF(hosts); i++) {
		size_t n = strlen(hosts[i]);

		if (strncmp(host, hosts[i], n) == 0 && strchr("/:?", host[n]) != NULL)
			return true;
	}
	return false;
}

/* GET url with the header (may be NULL), keys out of the JSON. */
static int fetch_keys(const struct http_client_settings *set, const char *url,
		      const struct http_header *header, struct s3_keys *k, struct err *err)
{
	struct http_reply reply = HTTP_REPLY_INIT;
	int ret = -1;

	if (ask(set,
		&(struct http_call){ .url = url,
				     .headers = header,
				     .n_headers = header != NULL,
				     .max_reply = ANSWER_MAX },
		&reply, err) == 0) {
		if (reply.status != 200)
			refused("credentials endpoint", &reply, err);
		else if (s3_keys_from_json(buf_bytes(&reply.body), k, err) == 0)
			ret = 1;
	}
	wipe(&reply.body);
	http_reply_fini(&reply);
	return ret;
}

static int from_container(const struct s3_credentials_options *o, struct s3_keys *k,
			  struct err *err)
{
	const char *relative = env("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI");
	const char *full = env("AWS_CONTAINER_CREDENTIALS_FULL_URI");
	const char *path = env("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE");
	struct http_client_settings set = { .timeout_ms = METADATA_TIMEOUT_MS,
					    .ca_file = o->ca_file,
					    .no_proxy = true,
					    .is_interrupted = o->is_interrupted,
					    .interrupt_arg = o->interrupt_arg };
	struct http_header header = { "Authorization", env("AWS_CONTAINER_AUTHORIZATION_TOKEN") };
	struct buf token = BUF_INIT;
	char url[1024];
	int ret = -1;

	if (relative[0] == '\0' && full[0] == '\0')
		return 0;
	if (relative[0] != '\0')
		snprintf(url, sizeof(url), "http://169.254.170.2%s", relative);
	else
		snprintf(url, sizeof(url), "%s", full);
	if (!may_be_asked(url)) {
		err_set(err, ERR_PERMISSION,
			"AWS_CONTAINER_CREDENTIALS_FULL_URI: %.100s: plain http is for this host "
			"and the container's agent only",
			url);
		return -1;
	}
	if (path[0] == '\0' || read_token(path, &token, err) == 0) {
		if (path[0] != '\0')
			header.value = buf_cstr(&token);
		ret = fetch_keys(&set, url, header.value[0] ? &header : NULL, k, err);
	}
	wipe(&token);
	return ret < 0 ? err_wrap(err, "AWS_CONTAINER_CREDENTIALS") : ret;
}

/* ---- 6: instance metadata ---- */

/* A small text: a session token or the role's name. */
static int ask_text(const struct http_client_settings *set, const char *method, const char *url,
		    const struct http_header *header, char *out, size_t size, struct err *err)
{
	struct http_reply reply = HTTP_REPLY_INIT;
	const char *text;
	size_t n;
	int ret = -1;

	if (ask(set,
		&(struct http_call){ .method = method,
				     .url = url,
				     .headers = header,
				     .n_headers = 1,
				     .max_reply = ANSWER_MAX },
		&reply, err) == 0) {
		text = buf_cstr(&reply.body);
		n = strcspn(text, "\r\n");
		if (reply.status != 200)
			refused("instance metadata", &reply, err);
		else if (n == 0 || n >= size)
			err_set(err, ERR_INVALID, "instance metadata: answer of %zu bytes", n);
		else
			ret = snprintf(out, size, "%.*s", (int)n, text) < 0 ? -1 : 0;
	}
	http_reply_fini(&reply);
	return ret;
}

static int from_instance(const struct s3_credentials_options *o, struct s3_keys *k, struct err *err)
{
	const char *base = env("AWS_EC2_METADATA_SERVICE_ENDPOINT");
	struct http_client_settings set = { .timeout_ms = METADATA_TIMEOUT_MS,
					    .connect_timeout_ms = METADATA_TIMEOUT_MS / 2,
					    .no_proxy = true,
					    .is_interrupted = o->is_interrupted,
					    .interrupt_arg = o->interrupt_arg };
	struct http_header ttl = { "X-aws-ec2-metadata-token-ttl-seconds", "21600" };
	char token[256], role[256], url[1024];
	struct http_header proof = { "X-aws-ec2-metadata-token", token };

	if (strcasecmp(env("AWS_EC2_METADATA_DISABLED"), "true") == 0)
		return 0;
	if (base[0] == '\0')
		base = "http://169.254.169.254";
	snprintf(url, sizeof(url), "%s/latest/api/token", base);
	if (ask_text(&set, "PUT", url, &ttl, token, sizeof(token), err) < 0)
		return -1;
	snprintf(url, sizeof(url), "%s/latest/meta-data/iam/security-credentials/", base);
	if (ask_text(&set, "GET", url, &proof, role, sizeof(role), err) < 0)
		return -1;
	snprintf(url, sizeof(url), "%s/latest/meta-data/iam/security-credentials/%s", base, role);
	return fetch_keys(&set, url, &proof, k, err);
}

const struct s3_key_source s3_key_sources[S3_N_KEY_SOURCES] = {
	{ "configuration", from_config },      { "environment", from_environment },
	{ "web identity", from_web_identity }, { "credentials file", from_file },
	{ "container", from_container },       { "instance metadata", from_instance },
};
