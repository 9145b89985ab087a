/* SPDX-License-Identifier: Apache-2.0
 *
 * test_s3_answer.c - S3's and STS's XML as structs, and what an error means to the user.
 */
#include "base/clock.h"
#include "blocks/s3_answer.h"
#include "blocks/s3_failure.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#define LIST(inner) "<ListBucketResult xmlns=\"x\">" inner "</ListBucketResult>"
#define OBJECT(key, size)                                                                          \
	"<Contents><Key>" key "</Key><LastModified>2026-11-26T13:45:05.250Z</LastModified>"        \
	"<ETag>&quot;1&quot;</ETag><Size>" size "</Size><Owner><ID>9</ID></Owner></Contents>"
#define FOLDER(key) "<CommonPrefixes><Prefix>" key "</Prefix></CommonPrefixes>"

static void show_listing(const char *xml, struct buf *out)
{
	struct err err = ERR_INIT;
	struct s3_listing l;

	if (s3_answer_listing(bytes_str(xml), &l, &err) < 0) {
		buf_printf(out, "%s", err.msg);
	} else {
		for (size_t i = 0; i < l.n; i++)
			buf_printf(out, "%s%s:%llu ", l.entries[i].key,
				   l.entries[i].is_prefix ? "/" : "",
				   (unsigned long long)l.entries[i].size);
		if (l.is_truncated)
			buf_printf(out, "-> %s", l.token);
	}
	s3_listing_fini(&l);
}

static void listings(void **state)
{
	static const struct {
		const char *xml, *want;
	} cases[] = {
		{ LIST(""), "" },
		{ LIST("<Prefix>p/</Prefix>" OBJECT("b", "3") FOLDER("a/") OBJECT("c", "0")),
		  "a/:0 b:3 c:0 " },
		{ LIST(OBJECT("a%20b+c%2Bd%25%zz%", "1") "<EncodingType>url</EncodingType>"),
		  "a b c+d%%zz%:1 " },
		{ LIST(OBJECT("a%20b+c", "1")), "a%20b+c:1 " },
		{ LIST(OBJECT("a&amp;&#39;", "1")), "a&':1 " },
		{ LIST("<EncodingType>url</EncodingType>" OBJECT("a%00b", "1") OBJECT("c", "1")),
		  "c:1 " },
		{ LIST("<IsTruncated>true</IsTruncated><NextContinuationToken>t+/=</"
		       "NextContinuationToken>"),
		  "-> t+/=" },
		{ LIST("<IsTruncated>false</IsTruncated><NextContinuationToken/>"), "" },
		{ LIST("<IsTruncated>true</IsTruncated>"), "the answer goes on but has no token" },
		{ LIST(OBJECT("a", "-1")), "Size: \"-1\"" },
		{ LIST(OBJECT("a", "18446744073709551616")), "Size: \"18446744073709551616\"" },
		{ LIST("<Contents><Key>a</Key><LastModified>now</LastModified></Contents>"),
		  "\"now\" is not a time of RFC 3339" },
		{ LIST("<Contents/>"), "" },
		{ "<html/>", "the answer is no ListBucketResult" },
		{ "", "xml: byte 0: ends too early" },
		{ "<ListBucketResult><Contents><Key>a</Key></Contents>",
		  "xml: byte 51: ends too early" },
	};
	struct buf got = BUF_INIT;

	(void)state;
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		buf_reset(&got);
		show_listing(cases[i].xml, &got);
		if (strcmp(buf_cstr(&got), cases[i].want) != 0)
			fail_msg("%s:\n got %s\nwant %s", cases[i].xml, buf_cstr(&got),
				 cases[i].want);
	}
	buf_fini(&got);
}

static void times_of_objects(void **state)
{
	struct s3_listing l;

	(void)state;
	assert_int_equal(s3_answer_listing(bytes_str(LIST(OBJECT("a", "1"))), &l, NULL), 0);
	assert_int_equal(l.entries[0].mtime_ns, UINT64_C(1795700705) * NS_PER_S + 250 * NS_PER_MS);
	s3_listing_fini(&l);
}

static void upload_ids(void **state)
{
	static const char head[] = "<InitiateMultipartUploadResult><UploadId>";
	static const char tail[] = "</UploadId></InitiateMultipartUploadResult>";
	char id[S3_UPLOAD_ID_SIZE];
	struct buf xml = BUF_INIT;

	(void)state;
	buf_printf(&xml, "%sa.b_c-%s", head, tail);
	assert_int_equal(s3_answer_upload_id(buf_bytes(&xml), id, NULL), 0);
	assert_string_equal(id, "a.b_c-");
	buf_reset(&xml);
	buf_add_str(&xml, head);
	for (int i = 0; i < S3_UPLOAD_ID_SIZE; i++)
		buf_add_char(&xml, 'x');
	buf_add_str(&xml, tail);
	assert_int_equal(s3_answer_upload_id(buf_bytes(&xml), id, NULL), -1);
	assert_int_equal(
		s3_answer_upload_id(BYTES_LIT("<InitiateMultipartUploadResult/>"), id, NULL), -1);
	assert_int_equal(s3_answer_upload_id(BYTES_LIT("<Error/>"), id, NULL), -1);
	buf_fini(&xml);
}

static int add_pending(void *arg, const struct s3_pending_upload *u, struct err *err)
{
	(void)err;
	buf_printf(arg, "%s=%s@%llu ", u->key, u->id, (unsigned long long)(u->begun_ns / NS_PER_S));
	return 0;
}

static void pending_uploads(void **state)
{
	static const char xml[] =
		"<ListMultipartUploadsResult><Prefix>p/</Prefix><IsTruncated>false</IsTruncated>"
		"<Upload><Key>p/a&amp;b</Key><UploadId>1</UploadId><Owner><ID>x</ID></Owner>"
		"<Initiated>2026-11-26T13:45:05.000Z</Initiated></Upload>"
		"<Upload><Key>no id</Key><Initiated>2026-11-26T13:45:05Z</Initiated></Upload>"
		"<Upload><Key>no time</Key><UploadId>2</UploadId></Upload>"
		"<Upload><UploadId>3</UploadId><Initiated>2026-11-26T13:45:05Z</Initiated></Upload>"
		"<Upload><Initiated>1970-01-02T00:00:00Z</Initiated><UploadId>4</UploadId>"
		"<Key>k</Key></Upload></ListMultipartUploadsResult>";
	struct buf got = BUF_INIT;

	(void)state;
	assert_int_equal(s3_answer_uploads(bytes_str(xml), add_pending, &got, NULL), 0);
	assert_string_equal(buf_cstr(&got), "p/a&b=1@1795700705 k=4@86400 ");
	assert_int_equal(s3_answer_uploads(BYTES_LIT("<Error/>"), add_pending, &got, NULL), -1);
	assert_int_equal(s3_answer_uploads(BYTES_LIT("<ListMultipartUploadsResult>"), add_pending,
					   &got, NULL),
			 -1);
	buf_fini(&got);
}

static void roles(void **state)
{
	static const char good[] =
		"<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><Credentials>"
		"<SessionToken>T/+=</SessionToken><SecretAccessKey>S</SecretAccessKey>"
		"<Expiration>2026-11-26T13:45:05Z</Expiration><AccessKeyId>A</AccessKeyId>"
		"</Credentials></AssumeRoleWithWebIdentityResult>"
		"</AssumeRoleWithWebIdentityResponse>";
	static const char half[] = "<AssumeRoleWithWebIdentityResponse><Credentials>"
				   "<AccessKeyId>A</AccessKeyId></Credentials>"
				   "</AssumeRoleWithWebIdentityResponse>";
	struct s3_keys k;

	(void)state;
	assert_int_equal(s3_answer_assumed_role(bytes_str(good), &k, NULL), 0);
	assert_string_equal(k.access_key, "A");
	assert_string_equal(k.secret_key, "S");
	assert_string_equal(k.session_token, "T/+=");
	assert_int_equal(k.expires_wall_ns, UINT64_C(1795700705) * NS_PER_S);
	assert_int_equal(s3_answer_assumed_role(bytes_str(half), &k, NULL), -1);
}

/* An answer of a store, what it means, and the line the user reads. */
static void errors_say_what_to_do(void **state)
{
	static const struct {
		int status;
		const char *headers, *body; /* headers: "name\0value\0" */
		size_t n_headers;
		enum err_kind kind;
		bool is_transient;
		const char *want;
	} cases[] = {
		{ 503, "", "<Error><Code>SlowDown</Code><Message>Reduce.</Message></Error>", 0,
		  ERR_UNAVAILABLE, true, "503 SlowDown: Reduce." },
		{ 500, "", "", 0, ERR_UNAVAILABLE, true, "500" },
		{ 502, "", "<html>\nBad gateway", 0, ERR_UNAVAILABLE, true, "502: <html>" },
		{ 429, "", "", 0, ERR_UNAVAILABLE, true, "429" },
		{ 400, "", "<Error><Code>RequestTimeout</Code></Error>", 0, ERR_UNAVAILABLE, true,
		  "400 RequestTimeout" },
		{ 409, "", "<Error><Code>ConditionalRequestConflict</Code></Error>", 0,
		  ERR_UNAVAILABLE, true, "409 ConditionalRequestConflict" },
		{ 404, "", "<Error><Code>NoSuchKey</Code></Error>", 0, ERR_NOT_FOUND, false,
		  "404 NoSuchKey" },
		{ 404, "", "", 0, ERR_NOT_FOUND, false, "404" },
		{ 404, "", "<Error><Code>NoSuchBucket</Code></Error>", 0, ERR_CONFIG, false,
		  "404 NoSuchBucket: no http://h/b: create the bucket or correct s3.bucket" },
		{ 412, "", "<Error><Code>PreconditionFailed</Code></Error>", 0, ERR_EXISTS, false,
		  "412 PreconditionFailed" },
		{ 416, "", "<Error><Code>InvalidRange</Code></Error>", 0, ERR_CORRUPT, false,
		  "416 InvalidRange" },
		{ 501, "", "<Error><Code>NotImplemented</Code><Message>A header</Message></Error>",
		  0, ERR_UNIMPLEMENTED, false, "501 NotImplemented: A header" },
		{ 403, "", "<Error><Code>InvalidAccessKeyId</Code></Error>", 0, ERR_PERMISSION,
		  false,
		  "403 InvalidAccessKeyId: the store does not know the access key (from "
		  "environment)" },
		{ 403, "", "<Error><Code>SignatureDoesNotMatch</Code></Error>", 0, ERR_PERMISSION,
		  false, "403 SignatureDoesNotMatch: the secret key (from environment) is wrong" },
		{ 403, "", "<Error><Code>AccessDenied</Code></Error>", 0, ERR_PERMISSION, false,
		  "403 AccessDenied: the keys (from environment) may not PUT at http://h/b" },
		{ 403, "", "", 0, ERR_PERMISSION, false,
		  "403: the keys (from environment) may not PUT at http://h/b" },
		{ 403, "", "<Error><Code>QuotaExceeded</Code><Message>Full.</Message></Error>", 0,
		  ERR_PERMISSION, false, "403 QuotaExceeded: Full." },
		{ 400, "", "<Error><Code>ExpiredToken</Code><Message>Old.</Message></Error>", 0,
		  ERR_PERMISSION, false,
		  "400 ExpiredToken: the session token (from environment) is out of date: renew "
		  "it" },
		{ 302, "Location\0http://login/", "<html>", 23, ERR_CONFIG, false,
		  "302: http://h/b is elsewhere: check s3.endpoint and s3.region" },
		{ 403, "Date\0Thu, 26 Nov 2026 15:45:05 GMT",
		  "<Error><Code>RequestTimeTooSkewed</Code></Error>", 35, ERR_PERMISSION, false,
		  "403 RequestTimeTooSkewed: the clock of this host is 7200 s behind the store's: "
		  "set it (NTP)" },
		{ 403, "", "<Error><Code>RequestTimeTooSkewed</Code></Error>", 0, ERR_PERMISSION,
		  false,
		  "403 RequestTimeTooSkewed: the clock of this host is wrong: set it (NTP)" },
		{ 400, "",
		  "<Error><Code>AuthorizationHeaderMalformed</Code><Region>eu-west-1</Region>"
		  "</Error>",
		  0, ERR_INVALID, false,
		  "400 AuthorizationHeaderMalformed: bucket b is in region eu-west-1: set "
		  "s3.region, now us-east-1" },
		{ 301, "x-amz-bucket-region\0eu-west-1", "", 30, ERR_CONFIG, false,
		  "301: bucket b is in region eu-west-1: set s3.region, now us-east-1" },
		{ 301, "",
		  "<Error><Code>PermanentRedirect</Code><Endpoint>b.s3.x</Endpoint></Error>", 0,
		  ERR_CONFIG, false,
		  "301 PermanentRedirect: bucket b is at b.s3.x: set s3.endpoint" },
		{ 400, "", "Client sent an HTTP request to an HTTPS server.\n", 0, ERR_INVALID,
		  false, "400: Client sent an HTTP request to an HTTPS server." },
	};
	static const struct s3_context x = { "PUT", "b", "us-east-1", "http://h/b", "environment" };

	(void)state;
	clock_set_wall_for_test(UINT64_C(1795700705) * NS_PER_S);
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		struct http_reply reply = HTTP_REPLY_INIT;
		struct err err = ERR_INIT;
		struct s3_error e;

		reply.status = cases[i].status;
		buf_add(&reply.headers, cases[i].headers, cases[i].n_headers);
		buf_add_str(&reply.body, cases[i].body);
		s3_failure_read(&reply, &e);
		s3_failure_describe(&reply, &e, &x, &err);
		assert_string_equal(err.msg, cases[i].want);
		if (err.kind != cases[i].kind ||
		    s3_failure_is_transient(reply.status, &e) != cases[i].is_transient)
			fail_msg("%s: kind %d", cases[i].want, err.kind);
		http_reply_fini(&reply);
	}
	clock_set_wall_for_test(0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(listings),   cmocka_unit_test(times_of_objects),
		cmocka_unit_test(upload_ids), cmocka_unit_test(pending_uploads),
		cmocka_unit_test(roles),      cmocka_unit_test(errors_say_what_to_do),
	};

	return cmocka_run_group_tests_name("s3_answer", tests, NULL, NULL);
}
