/* SPDX-License-Identifier: Apache-2.0
 *
 * test_s3_credentials.c - where keys are found, in which order, and when they are fetched again.
 */
#include "base/clock.h"
#include "blocks/s3_credentials.h"
#include "blocks/s3_key_sources.h"
#include "blocks/s3_profile.h"

#include "tests/unit/scripted_http.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#define NOW_S UINT64_C(1795700705) /* 2026-11-26T13:45:05Z */

static char folder[64];

static void clear_environment(void)
{
	static const char *const names[] = {
		"AWS_ACCESS_KEY_ID",
		"AWS_SECRET_ACCESS_KEY",
		"AWS_SESSION_TOKEN",
		"AWS_ROLE_ARN",
		"AWS_WEB_IDENTITY_TOKEN_FILE",
		"AWS_ROLE_SESSION_NAME",
		"AWS_ENDPOINT_URL_STS",
		"AWS_SHARED_CREDENTIALS_FILE",
		"AWS_PROFILE",
		"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
		"AWS_CONTAINER_CREDENTIALS_FULL_URI",
		"AWS_CONTAINER_AUTHORIZATION_TOKEN",
		"AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
		"AWS_EC2_METADATA_SERVICE_ENDPOINT",
	};

	for (size_t i = 0; i < COUNT_OF(names); i++)
		unsetenv(names[i]);
	setenv("AWS_EC2_METADATA_DISABLED", "true", 1);
	setenv("HOME", folder, 1);
}

static int setup(void **state)
{
	(void)state;
	snprintf(folder, sizeof(folder), "/tmp/s3_credentials-XXXXXX");
	if (mkdtemp(folder) == NULL)
		return -1;
	clear_environment();
	clock_set_wall_for_test(NOW_S * NS_PER_S);
	return 0;
}

static int teardown(void **state)
{
	char path[128];

	(void)state;
	clock_set_wall_for_test(0);
	snprintf(path, sizeof(path), "%s/file", folder);
	unlink(path);
	return rmdir(folder);
}

/* A file of the test's folder with this text; its path. */
static const char *make_file(const char *text)
{
	static char path[128];
	FILE *f;

	snprintf(path, sizeof(path), "%s/file", folder);
	f = fopen(path, "w");
	assert_non_null(f);
	fputs(text, f);
	fclose(f);
	return path;
}

/* "access secret token expires-now", or the error. */
static const char *keys_of(struct s3_credentials *c)
{
	static char text[600];
	struct err err = ERR_INIT;
	struct s3_keys k;

	if (s3_credentials_keys(c, &k, &err) < 0)
		return snprintf(text, sizeof(text), "%s", err.msg) < 0 ? "" : text;
	snprintf(text, sizeof(text), "%.100s %.100s %.200s %lld", k.access_key, k.secret_key,
		 k.session_token,
		 k.expires_wall_ns ? (long long)(k.expires_wall_ns / NS_PER_S) - (long long)NOW_S
				   : 0);
	s3_keys_wipe(&k);
	return text;
}

static const char *keys_with(const struct s3_credentials_options *o)
{
	struct s3_credentials *c = s3_credentials_new(o);
	const char *text = keys_of(c);

	s3_credentials_free(c);
	return text;
}

static void profiles(void **state)
{
	static const struct {
		const char *text, *profile;
		int want;
		const char *keys;
	} cases[] = {
		{ "", "default", 0, "" },
		{ "[default]\naws_access_key_id=A\naws_secret_access_key=S\n", "default", 1,
		  "A S " },
		{ "[default]\r\naws_access_key_id = A\r\naws_secret_access_key = S=/+\r\n"
		  "aws_session_token=T\r\n",
		  "default", 1, "A S=/+ T" },
		{ "[a]\naws_access_key_id=1\n# x\n; y\n[profile b]\n aws_access_key_id=2\n"
		  "aws_secret_access_key=3\nregion=x",
		  "b", 1, "2 3 " },
		{ "[a]\naws_access_key_id=1\naws_secret_access_key=2\n", "b", 0, "" },
		{ "[b]\nregion=x\n", "b", 0, "" },
		{ "[a]\ncredential_process=/bin/x\n[b]\nregion=x\n", "b", 0, "" },
		{ "[b]\nregion=x\ncredential_process = /bin/x --secret s\n", "b", -1,
		  "credential_process is not supported: write keys, or give them by the AWS_* "
		  "environment" },
		{ "[b]\nrole_arn=x\n", "b", -1,
		  "role_arn is not supported: write keys, or give them by the AWS_* environment" },
		{ "[b]\nrole_arn=x\naws_access_key_id=1\naws_secret_access_key=2\n", "b", 1,
		  "1 2 " },
		{ "[b]\naws_access_key_id=1\n", "b", -1, "aws_secret_access_key is missing" },
		{ "[b]\naws_secret_access_key=1\n", "b", -1, "aws_access_key_id is missing" },
		{ "aws_access_key_id=1\naws_secret_access_key=2\n", "default", 0, "" },
		{ "[default\naws_access_key_id=1\naws_secret_access_key=2\n", "default", 0, "" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		struct err err = ERR_INIT;
		struct s3_keys k;
		char got[300] = "";
		int ret = s3_profile_read(bytes_str(cases[i].text), cases[i].profile, &k, &err);

		assert_int_equal(ret, cases[i].want);
		if (ret > 0)
			snprintf(got, sizeof(got), "%.64s %.64s %.64s", k.access_key, k.secret_key,
				 k.session_token);
		assert_string_equal(ret < 0 ? err.msg : got, cases[i].keys);
	}
}

static void places_are_asked_in_order(void **state)
{
	const struct s3_credentials_options config = { .access_key = "AC", .secret_key = "SC" };
	const struct s3_credentials_options none = { .region = "us-east-1" };

	(void)state;
	assert_non_null(strstr(keys_with(&none), "no credentials: set s3.access_key"));
	setenv("AWS_SHARED_CREDENTIALS_FILE",
	       make_file("[default]\naws_access_key_id=AF\naws_secret_access_key=SF\n"
			 "[p]\naws_access_key_id=AP\naws_secret_access_key=SP\n"),
	       1);
	assert_string_equal(keys_with(&none), "AF SF  0");
	setenv("AWS_PROFILE", "p", 1);
	assert_string_equal(keys_with(&none), "AP SP  0");
	setenv("AWS_PROFILE", "q", 1);
	assert_non_null(strstr(keys_with(&none), "/file: no keys in profile q"));
	setenv("AWS_ACCESS_KEY_ID", "AE", 1);
	assert_string_equal(keys_with(&none),
			    "AWS_ACCESS_KEY_ID is set and AWS_SECRET_ACCESS_KEY is not");
	setenv("AWS_SECRET_ACCESS_KEY", "SE", 1);
	assert_string_equal(keys_with(&none), "AE SE  0");
	setenv("AWS_SESSION_TOKEN", "TE", 1);
	assert_string_equal(keys_with(&none), "AE SE TE 0");
	assert_string_equal(keys_with(&config), "AC SC  0");
	setenv("AWS_ACCESS_KEY_ID", "A\r\nX-Evil: 1", 1);
	assert_non_null(strstr(keys_with(&none), "access key"));
	clear_environment();
	setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere/file", 1);
	assert_string_equal(keys_with(&none), "/nowhere/file: No such file or directory");
}

#define ROLE(access, expires)                                                                      \
	"<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><Credentials>"        \
	"<AccessKeyId>" access "</AccessKeyId><SecretAccessKey>S</SecretAccessKey>"                \
	"<SessionToken>T+/=</SessionToken><Expiration>" expires "</Expiration></Credentials>"      \
	"</AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"

static void web_identity_is_renewed_in_time(void **state)
{
	static const struct http_step steps[] = {
		{ .status = 200, .body = ROLE("A1", "2026-11-26T14:45:05Z") },
		{ .status = 500 },
		{ .status = 200, .body = ROLE("A2", "2026-11-26T15:45:05Z") },
		{ .status = 400,
		  .body = "<ErrorResponse><Error><Code>ExpiredTokenException</Code>"
			  "<Message>Token expired</Message></Error></ErrorResponse>" },
	};
	struct s3_credentials_options o = { .region = "us-east-1" };
	struct s3_credentials *c = s3_credentials_new(&o);
	struct scripted_http s;

	(void)state;
	scripted_start(&s, steps, COUNT_OF(steps));
	setenv("AWS_ROLE_ARN", "arn:aws:iam::1:role/r", 1);
	setenv("AWS_WEB_IDENTITY_TOKEN_FILE", make_file("jwt.a-b_c\n"), 1);
	setenv("AWS_ENDPOINT_URL_STS", s.endpoint, 1);
	setenv("AWS_ROLE_SESSION_NAME", "me", 1);
	assert_string_equal(s3_credentials_source(c), "none");
	assert_string_equal(keys_of(c), "A1 S T+/= 3600");
	assert_string_equal(s3_credentials_source(c), "web identity");
	assert_string_equal(
		buf_cstr(&s.body),
		"Action=AssumeRoleWithWebIdentity&Version=2011-06-15&RoleArn=arn%3Aaws"
		"%3Aiam%3A%3A1%3Arole%2Fr&RoleSessionName=me&WebIdentityToken=jwt.a-b_c");
	assert_string_equal(keys_of(c), "A1 S T+/= 3600");
	assert_int_equal(scripted_asked(&s), 1);
	/* Within 5 minutes of the end, but asked less than 30 s ago: the old ones do. */
	clock_set_wall_for_test((NOW_S + 3400) * NS_PER_S);
	assert_string_equal(keys_of(c), "A1 S T+/= 3600");
	assert_int_equal(scripted_asked(&s), 1);
	/* Over: they must be renewed. A failure is an error now, and holds for a second. */
	clock_set_wall_for_test((NOW_S + 3601) * NS_PER_S);
	assert_string_equal(keys_of(c), "AWS_WEB_IDENTITY_TOKEN_FILE: STS: status 500");
	assert_string_equal(keys_of(c), "AWS_WEB_IDENTITY_TOKEN_FILE: STS: status 500");
	assert_int_equal(scripted_asked(&s), 2);
	sleep(1);
	assert_string_equal(keys_of(c), "A2 S T+/= 7200");
	clock_set_wall_for_test((NOW_S + 7201) * NS_PER_S);
	assert_string_equal(keys_of(c), "AWS_WEB_IDENTITY_TOKEN_FILE: STS: 400 "
					"ExpiredTokenException: Token expired");
	s3_credentials_free(c);
	scripted_stop(&s);
}

#define KEYS_JSON                                                                                  \
	"{\"Code\":\"Success\",\"AccessKeyId\":\"AJ\",\"SecretAccessKey\":\"SJ\","                 \
	"\"Token\":\"TJ\",\"Expiration\":\"2026-11-26T19:45:05Z\",\"X\":[1,{}]}"

static void containers(void **state)
{
	static const struct http_step steps[] = {
		{ .status = 200, .body = KEYS_JSON },
		{ .status = 200, .body = KEYS_JSON },
		{ .status = 200, .body = "{\"AccessKeyId\":\"A\"}" },
		{ .status = 404 },
	};
	const struct s3_credentials_options o = { .region = "us-east-1" };
	struct scripted_http s;
	char url[128];

	(void)state;
	scripted_start(&s, steps, COUNT_OF(steps));
	snprintf(url, sizeof(url), "%s/creds?x=1", s.endpoint);
	setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", url, 1);
	setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN", "plain", 1);
	assert_string_equal(keys_with(&o), "AJ SJ TJ 21600");
	assert_non_null(strstr(s.asked[0], "GET /creds?x=1 HTTP"));
	assert_non_null(strstr(s.asked[0], "Authorization: plain\r\n"));
	setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", make_file("from-file\n"), 1);
	assert_string_equal(keys_with(&o), "AJ SJ TJ 21600");
	assert_non_null(strstr(s.asked[1], "Authorization: from-file\r\n"));
	assert_string_equal(keys_with(&o),
			    "AWS_CONTAINER_CREDENTIALS: AccessKeyId or SecretAccessKey is missing");
	assert_string_equal(keys_with(&o),
			    "AWS_CONTAINER_CREDENTIALS: credentials endpoint: status 404");
	/* Keys are not sent for in the clear to just anybody. */
	setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://example.com/creds", 1);
	assert_non_null(strstr(keys_with(&o), "plain http is for this host"));
	setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://127.0.0.1.example.com/creds", 1);
	assert_non_null(strstr(keys_with(&o), "plain http is for this host"));
	assert_int_equal(scripted_asked(&s), 4);
	scripted_stop(&s);
}

static void instance_metadata(void **state)
{
	static const struct http_step steps[] = {
		{ .status = 200, .body = "proof==" },
		{ .status = 200, .body = "my-role\n" },
		{ .status = 200, .body = KEYS_JSON },
		{ .status = 403 },
	};
	const struct s3_credentials_options o = { .region = "us-east-1" };
	struct scripted_http s;

	(void)state;
	scripted_start(&s, steps, COUNT_OF(steps));
	unsetenv("AWS_EC2_METADATA_DISABLED");
	setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", s.endpoint, 1);
	assert_string_equal(keys_with(&o), "AJ SJ TJ 21600");
	assert_non_null(strstr(s.asked[0], "PUT /latest/api/token HTTP"));
	assert_non_null(strstr(s.asked[0], "X-aws-ec2-metadata-token-ttl-seconds: 21600\r\n"));
	assert_non_null(
		strstr(s.asked[2], "GET /latest/meta-data/iam/security-credentials/my-role HTTP"));
	assert_non_null(strstr(s.asked[2], "X-aws-ec2-metadata-token: proof==\r\n"));
	assert_string_equal(keys_with(&o),
			    "no credentials: none in s3.access_key, the AWS_* environment or "
			    "~/.aws/credentials, and no instance metadata: instance metadata: "
			    "status 403");
	scripted_stop(&s);
}

static void distrusted_keys_are_fetched_again(void **state)
{
	const struct s3_credentials_options o = { .region = "us-east-1" };
	struct s3_credentials *c = s3_credentials_new(&o);

	(void)state;
	setenv("AWS_SHARED_CREDENTIALS_FILE",
	       make_file("[default]\naws_access_key_id=A1\naws_secret_access_key=S1\n"), 1);
	assert_string_equal(keys_of(c), "A1 S1  0");
	make_file("[default]\naws_access_key_id=A2\naws_secret_access_key=S2\n");
	assert_string_equal(keys_of(c), "A1 S1  0");
	s3_credentials_distrust(c, "other");
	assert_string_equal(keys_of(c), "A1 S1  0");
	s3_credentials_distrust(c, "A1");
	assert_string_equal(keys_of(c), "A2 S2  0");
	s3_credentials_free(c);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(profiles),
		TEST(places_are_asked_in_order),
		TEST(web_identity_is_renewed_in_time),
		TEST(containers),
		TEST(instance_metadata),
		TEST(distrusted_keys_are_fetched_again),
	};

	return cmocka_run_group_tests_name("s3_credentials", tests, NULL, NULL);
}
