/* SPDX-License-Identifier: Apache-2.0
 *
 * s3_failure.c - see s3_failure.h.
 */
#include "blocks/s3_failure.h"

#include "base/clock.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static bool is_one_of(const char *code, const char *const *list, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (strcmp(code, list[i]) == 0)
			return true;
	return false;
}

static bool is(const struct s3_error *e, const char *code)
{
	return strcmp(e->code, code) == 0;
}

void s3_failure_read(const struct http_reply *reply, struct s3_error *e)
{
	const char *region = http_reply_header(reply, "x-amz-bucket-region");

	s3_answer_error(buf_bytes(&reply->body), e);
	if (e->region[0] == '\0' && region != NULL)
		snprintf(e->region, sizeof(e->region), "%s", region);
}

bool s3_failure_is_transient(int status, const struct s3_error *e)
{
	static const char *const codes[] = {
		"InternalError", "SlowDown",       "ServiceUnavailable",        "RequestTimeout",
		"BadDigest",     "IncompleteBody", "XAmzContentSHA256Mismatch",
	};

	switch (status) {
	case 408:
	case 409: /* somebody else at the same key just now, or at its folder on a file system */
	case 429:
	case 500:
	case 502:
	case 503:
	case 504:
		return true;
	default:
		return is_one_of(e->code, codes, COUNT_OF(codes));
	}
}

bool s3_failure_is_stale_key(const struct s3_error *e)
{
	static const char *const codes[] = { "ExpiredToken", "InvalidToken", "InvalidAccessKeyId",
					     "TokenRefreshRequired" };

	return is_one_of(e->code, codes, COUNT_OF(codes));
}

/* None is followed: a signature is for one host, and where it leads is the configuration's say. */
static bool is_redirect(int status)
{
	return status >= 300 && status < 400 && status != 304;
}

static enum err_kind kind_of(int status, const struct s3_error *e)
{
	if (s3_failure_is_transient(status, e) || status == 507)
		return ERR_UNAVAILABLE;
	if (is(e, "NoSuchBucket") || is(e, "InvalidBucketName") || is_redirect(status))
		return ERR_CONFIG;
	if (s3_failure_is_stale_key(e) || status == 401 || status == 403)
		return ERR_PERMISSION;
	if (is(e, "EntityTooLarge") || status == 413)
		return ERR_TOO_LARGE;
	switch (status) {
	case 404:
		return ERR_NOT_FOUND;
	case 304: /* If-None-Match of a read */
	case 412:
		return ERR_EXISTS;
	case 416:
		return ERR_CORRUPT;
	case 501:
		return ERR_UNIMPLEMENTED;
	default:
		return ERR_INVALID;
	}
}

/* ---- messages ---- */

bool s3_failure_date(const struct http_reply *reply, uint64_t *unix_s)
{
	const char *date = http_reply_header(reply, "Date");
	struct tm tm = { .tm_isdst = 0 };
	time_t t;

	if (date == NULL || strptime(date, "%a, %d %b %Y %H:%M:%S GMT", &tm) == NULL)
		return false;
	t = timegm(&tm);
	*unix_s = (uint64_t)t;
	return t > 0;
}

/* How far this host's clock is from the store's. */
static void say_skew(const struct http_reply *reply, char *out, size_t size)
{
	uint64_t store_s = 0;
	int64_t off;

	if (!s3_failure_date(reply, &store_s)) {
		snprintf(out, size, "the clock of this host is wrong: set it (NTP)");
		return;
	}
	off = (int64_t)(clock_wall_ns() / NS_PER_S) - (int64_t)store_s;
	snprintf(out, size, "the clock of this host is %lld s %s the store's: set it (NTP)",
		 (long long)llabs(off), off < 0 ? "behind" : "ahead of");
}

/* Other reasons of a 403, a quota for example, tell themselves. */
static bool says_denied(const struct s3_error *e)
{
	return e->code[0] == '\0' || e->message[0] == '\0' || is(e, "AccessDenied") ||
	       is(e, "AllAccessDisabled") || is(e, "AccountProblem");
}

/* What to do; "" when the store's own words must do. */
static void say_hint(const struct http_reply *reply, const struct s3_error *e,
		     const struct s3_context *x, char *out, size_t size)
{
	int status = reply->status;
	bool is_elsewhere = is_redirect(status);

	out[0] = '\0';
	if (is(e, "RequestTimeTooSkewed"))
		say_skew(reply, out, size);
	else if ((is_elsewhere || status == 400 || status == 403) && e->region[0] != '\0' &&
		 strcmp(e->region, x->region) != 0)
		snprintf(out, size, "bucket %.64s is in region %s: set s3.region, now %s",
			 x->bucket, e->region, x->region);
	else if (is(e, "InvalidAccessKeyId"))
		snprintf(out, size, "the store does not know the access key (from %s)",
			 x->key_source);
	else if (is(e, "SignatureDoesNotMatch"))
		snprintf(out, size, "the secret key (from %s) is wrong", x->key_source);
	else if (is(e, "ExpiredToken") || is(e, "TokenRefreshRequired"))
		snprintf(out, size, "the session token (from %s) is out of date: renew it",
			 x->key_source);
	else if (is(e, "NoSuchBucket") || is(e, "InvalidBucketName"))
		snprintf(out, size, "no %.100s: create the bucket or correct s3.bucket", x->where);
	else if (e->endpoint[0] != '\0')
		snprintf(out, size, "bucket %.64s is at %.100s: set s3.endpoint", x->bucket,
			 e->endpoint);
	else if ((status == 401 || status == 403) && says_denied(e))
		snprintf(out, size, "the keys (from %s) may not %s at %.100s", x->key_source,
			 x->method, x->where);
	else if (is_elsewhere)
		snprintf(out, size, "%.100s is elsewhere: check s3.endpoint and s3.region",
			 x->where);
}

/* The first line of a body that is no XML, such as a proxy's page. */
static void say_body(const struct http_reply *reply, char out[80])
{
	size_t n = 0;

	for (size_t i = 0; i < reply->body.n && n < 79 && reply->body.p[i] != '\n'; i++)
		if (isprint(reply->body.p[i]))
			out[n++] = (char)reply->body.p[i];
	out[n] = '\0';
}

int s3_failure_describe(const struct http_reply *reply, const struct s3_error *e,
			const struct s3_context *x, struct err *err)
{
	enum err_kind kind = kind_of(reply->status, e);
	char hint[200], body[80] = "";

	say_hint(reply, e, x, hint, sizeof(hint));
	if (e->code[0] == '\0')
		say_body(reply, body);
	if (hint[0] != '\0')
		return err_set(err, kind, "%d%s%s: %s", reply->status, e->code[0] ? " " : "",
			       e->code, hint);
	return err_set(err, kind, "%d%s%s%s%.120s", reply->status, e->code[0] ? " " : "", e->code,
		       e->message[0] || body[0] ? ": " : "", e->code[0] ? e->message : body);
}
