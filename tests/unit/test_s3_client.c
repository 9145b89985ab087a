/* SPDX-License-Identifier: Apache-2.0
 *
 * test_s3_client.c - where requests go, what is tried again and how often, what a failure is.
 */
#include "base/clock.h"
#include "base/str.h"
#include "blocks/s3_client.h"

#include "tests/unit/scripted_http.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static struct s3_client_options options(const char *endpoint)
{
	return (struct s3_client_options){
		.endpoint = endpoint,
		.bucket = "bucket1",
		.credentials = { .access_key = "AK", .secret_key = "SECRET/KEY" },
		.backoff_first_ns = NS_PER_MS,
		.backoff_max_ns = 2 * NS_PER_MS,
	};
}

static struct s3_client *client(const struct s3_client_options *o)
{
	struct err err = ERR_INIT;
	struct s3_client *c = s3_client_new(o, &err);

	if (c == NULL)
		fail_msg("%s", err.msg);
	return c;
}

static void buckets_are_paths_or_hosts(void **state)
{
	static const struct {
		const char *endpoint, *bucket, *region;
		bool insecure;
		enum s3_lookup lookup;
		const char *want;
	} cases[] = {
		{ "", "bucket1", "", false, S3_LOOKUP_AUTO,
		  "https://bucket1.s3.us-east-1.amazonaws.com" },
		{ "", "bucket1", "cn-north-1", false, S3_LOOKUP_AUTO,
		  "https://bucket1.s3.cn-north-1.amazonaws.com.cn" },
		{ "", "my.bucket", "eu-west-1", false, S3_LOOKUP_AUTO,
		  "https://s3.eu-west-1.amazonaws.com/my.bucket" },
		{ "s3.dualstack.us-east-1.amazonaws.com", "bucket1", "", false, S3_LOOKUP_PATH,
		  "https://s3.dualstack.us-east-1.amazonaws.com/bucket1" },
		{ "minio:9000", "bucket1", "", true, S3_LOOKUP_AUTO, "http://minio:9000/bucket1" },
		{ "minio:9000", "bucket1", "", true, S3_LOOKUP_DNS, "http://bucket1.minio:9000" },
		{ "http://minio:80/", "bucket1", "", false, S3_LOOKUP_AUTO,
		  "http://minio/bucket1" },
		{ "https://minio:443", "bucket1", "", true, S3_LOOKUP_AUTO,
		  "https://minio/bucket1" },
		{ "[::1]:9000", "B_1", "", true, S3_LOOKUP_AUTO, "http://[::1]:9000/B_1" },
		{ "storage.googleapis.com", "bucket1", "", false, S3_LOOKUP_AUTO,
		  "https://bucket1.storage.googleapis.com" },
		{ "minio/x", "bucket1", "", false, S3_LOOKUP_AUTO,
		  "s3.endpoint: \"minio/x\" is no host[:port]: write it without a path" },
		{ "a b", "bucket1", "", false, S3_LOOKUP_AUTO,
		  "s3.endpoint: \"a b\" is no host[:port]: write it without a path" },
		{ "minio", "", "", false, S3_LOOKUP_AUTO, "s3.bucket: is missing" },
		{ "minio", "a/b", "", false, S3_LOOKUP_AUTO,
		  "s3.bucket: \"a/b\" is no name of a bucket" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		struct s3_client_options o = { .endpoint = cases[i].endpoint,
					       .bucket = cases[i].bucket,
					       .region = cases[i].region,
					       .insecure = cases[i].insecure,
					       .lookup = cases[i].lookup };
		struct err err = ERR_INIT;
		struct s3_client *c = s3_client_new(&o, &err);

		assert_string_equal(c != NULL ? s3_client_where(c) : err.msg, cases[i].want);
		s3_client_free(c);
	}
}

/* One call; "" or the error. */
static const char *call(struct s3_client *c, const struct s3_request *r, struct s3_reply *reply,
			struct err *err)
{
	err_clear(err);
	return s3_client_call(c, r, reply, err) < 0 ? err->msg : "";
}

/* The names in the Authorization header of a request. */
static bool is_signed(const char *head, const char *names)
{
	char want[200];

	snprintf(want, sizeof(want),
		 "/us-east-1/s3/aws4_request, SignedHeaders=%s, Signature=", names);
	return strstr(head, "Authorization: AWS4-HMAC-SHA256 Credential=AK/") != NULL &&
	       strstr(head, want) != NULL;
}

static void requests_are_signed_and_encoded(void **state)
{
	static const struct http_step steps[] = { { .status = 200 }, { .status = 200 } };
	const struct bytes body[] = { BYTES_LIT("ab"), BYTES_LIT("c") };
	struct s3_reply reply = S3_REPLY_INIT;
	struct s3_client_options o;
	struct scripted_http s;
	struct s3_client *c;
	struct err err;
	char host[64], localhost[64];
	const char *port;
	struct s3_request r = { .method = "PUT",
				.key = "a b/+=\xc3\xa9",
				.params = { { "uploadId", "x/+" }, { "partNumber", "7" } },
				.n_params = 2,
				.headers = { { "If-None-Match", "*" } },
				.n_headers = 1,
				.body = body,
				.n_body = 2 };

	(void)state;
	scripted_start(&s, steps, COUNT_OF(steps));
	o = options(s.endpoint);
	o.credentials.session_token = "TOKEN";
	c = client(&o);
	assert_string_equal(call(c, &r, &reply, &err), "");
	assert_non_null(strstr(s.asked[0], "PUT /bucket1/a%20b/%2B%3D%C3%A9"
					   "?partNumber=7&uploadId=x%2F%2B HTTP/1.1\r\n"));
	snprintf(host, sizeof(host), "Host: %.50s\r\n", s.endpoint + 7);
	assert_non_null(strstr(s.asked[0], host));
	assert_non_null(strstr(s.asked[0], "If-None-Match: *\r\n"));
	assert_non_null(strstr(s.asked[0], "x-amz-security-token: TOKEN\r\n"));
	assert_non_null(strstr(s.asked[0],
			       "x-amz-content-sha256: ba7816bf8f01cfea414140de5dae2223b00361a3"
			       "96177a9cb410ff61f20015ad\r\n"));
	assert_true(is_signed(s.asked[0], "host;if-none-match;x-amz-content-sha256;x-amz-date;"
					  "x-amz-security-token"));
	assert_string_equal(buf_cstr(&s.body), "abc");
	s3_client_free(c);
	/* A bucket as a host name: *.localhost is this host. */
	port = strrchr(s.endpoint, ':');
	snprintf(localhost, sizeof(localhost), "http://localhost%.8s", port);
	o = options(localhost);
	o.lookup = S3_LOOKUP_DNS;
	c = client(&o);
	assert_string_equal(
		call(c, &(struct s3_request){ .method = "GET", .key = "k" }, &reply, &err), "");
	assert_non_null(strstr(s.asked[1], "GET /k HTTP/1.1\r\n"));
	assert_non_null(strstr(s.asked[1], "Host: bucket1.localhost:"));
	s3_client_free(c);
	s3_reply_fini(&reply);
	scripted_stop(&s);
}

#define ERROR(code) "<Error><Code>" code "</Code></Error>"

static void what_may_pass_is_tried_again(void **state)
{
	static const struct http_step steps[] = {
		{ .status = 0 },
		{ .status = 503, .body = ERROR("SlowDown") },
		{ .status = 200, .body = "half", .announce = 10 },
		{ .status = 409, .body = ERROR("ConditionalRequestConflict") },
		{ .status = 200, .body = "whole" },
	};
	struct s3_request r = { .method = "GET", .key = "k", .max_reply = 100 };
	struct s3_reply reply = S3_REPLY_INIT;
	struct buf into = BUF_INIT;
	struct s3_client_stats stats;
	struct s3_client_options o;
	struct scripted_http s;
	struct s3_client *c;
	struct err err;

	(void)state;
	scripted_start(&s, steps, COUNT_OF(steps));
	o = options(s.endpoint);
	c = client(&o);
	buf_add_str(&into, "+");
	r.into = &into;
	assert_string_equal(call(c, &r, &reply, &err), "");
	assert_string_equal(buf_cstr(&into), "+whole");
	s3_client_stats(c, &stats);
	assert_int_equal(stats.requests, 5);
	assert_int_equal(stats.retries, 4);
	assert_int_equal(stats.failures, 0);
	s3_client_free(c);
	s3_reply_fini(&reply);
	buf_fini(&into);
	scripted_stop(&s);
}

/* An answer that stands ends the call at once; what passes for an outage after five attempts. */
static void answers_and_outages(void **state)
{
	static const struct http_step never[] = {
		{ .status = 503, .body = ERROR("SlowDown") },
		{ .status = 503 },
		{ .status = 500 },
		{ .status = 429 },
		{ .status = 503, .body = ERROR("SlowDown") },
	};
	static const struct http_step none[] = { { .status = 404, .body = ERROR("NoSuchKey") } };
	static const struct http_step taken[] = { { .status = 412,
						    .body = ERROR("PreconditionFailed") } };
	static const struct http_step lost[] = {
		{ .status = 0 }, { .status = 412, .body = ERROR("PreconditionFailed") }
	};
	static const struct http_step damaged[] = {
		{ .status = 200, .body = ERROR("InternalError") }, { .status = 200, .body = "<x/>" }
	};
	static const struct {
		const struct http_step *steps;
		size_t n;
		enum err_kind kind;
		bool is_unsure;
		const char *tail; /* of the message */
	} cases[] = {
		{ never, 5, ERR_UNAVAILABLE, true, "/bucket1: 503 SlowDown" },
		{ none, 1, ERR_NOT_FOUND, false, "404 NoSuchKey" },
		{ taken, 1, ERR_EXISTS, false, "412 PreconditionFailed" },
		{ lost, 2, ERR_EXISTS, true, "412 PreconditionFailed" },
		{ damaged, 2, ERR_NONE, true, "" },
	};
	const struct s3_request r = { .method = "PUT", .key = "k", .may_be_error = true };

	(void)state;
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		struct s3_reply reply = S3_REPLY_INIT;
		struct err err = ERR_INIT;
		struct s3_client_options o;
		struct scripted_http s;
		struct s3_client *c;
		const char *got;

		scripted_start(&s, cases[i].steps, cases[i].n);
		o = options(s.endpoint);
		c = client(&o);
		got = call(c, &r, &reply, &err);
		if (!str_has_suffix(got, cases[i].tail) || err.kind != cases[i].kind ||
		    reply.is_unsure != cases[i].is_unsure || scripted_asked(&s) != cases[i].n)
			fail_msg("case %zu: %zu asked, unsure %d, kind %d, %s", i,
				 scripted_asked(&s), reply.is_unsure, err.kind, got);
		assert_null(strstr(got, "SECRET"));
		s3_client_free(c);
		s3_reply_fini(&reply);
		scripted_stop(&s);
	}
}

/* In an outage the retries run out, and each call is one request. */
static void an_outage_is_no_storm(void **state)
{
	enum { CALLS = 50, TOKENS = 500, COST = 5 };
	static struct http_step steps[CALLS * 5];
	const struct s3_request r = { .method = "GET", .key = "k" };
	struct s3_reply reply = S3_REPLY_INIT;
	struct s3_client_options o;
	struct scripted_http s;
	struct s3_client *c;
	struct err err;

	(void)state;
	for (size_t i = 0; i < COUNT_OF(steps); i++)
		steps[i].status = 503;
	scripted_start(&s, steps, COUNT_OF(steps));
	o = options(s.endpoint);
	o.backoff_first_ns = o.backoff_max_ns = 1000;
	c = client(&o);
	for (int i = 0; i < CALLS; i++)
		assert_string_not_equal(call(c, &r, &reply, &err), "");
	assert_int_equal(scripted_asked(&s), CALLS + TOKENS / COST);
	assert_true(err.retryable);
	s3_client_free(c);
	s3_reply_fini(&reply);
	scripted_stop(&s);
}

static void pauses_grow_and_the_store_is_heard(void **state)
{
	static const struct http_step steps[] = {
		{ .status = 503 },
		{ .status = 503 },
		{ .status = 503, .headers = "Retry-After: 1000000\r\n" },
		{ .status = 200 },
	};
	const struct s3_request r = { .method = "GET", .key = "k" };
	struct s3_reply reply = S3_REPLY_INIT;
	uint64_t start = clock_mono_ns(), took;
	struct s3_client_options o;
	struct scripted_http s;
	struct s3_client *c;
	struct err err;

	(void)state;
	scripted_start(&s, steps, COUNT_OF(steps));
	o = options(s.endpoint);
	o.backoff_first_ns = 40 * NS_PER_MS;
	o.backoff_max_ns = 200 * NS_PER_MS;
	c = client(&o);
	assert_string_equal(call(c, &r, &reply, &err), "");
	took = clock_mono_ns() - start;
	/* At least half of 40 and of 80, and 200 because the store asked for more than that. */
	assert_true(took >= 260 * NS_PER_MS);
	s3_client_free(c);
	s3_reply_fini(&reply);
	scripted_stop(&s);
}

static void expired_keys_are_replaced(void **state)
{
	static const struct http_step steps[] = {
		{ .status = 400, .body = ERROR("ExpiredToken") },
		{ .status = 200 },
		{ .status = 403, .body = ERROR("InvalidAccessKeyId") },
		{ .status = 403, .body = ERROR("InvalidAccessKeyId") },
	};
	const struct s3_request r = { .method = "GET", .key = "k" };
	struct s3_reply reply = S3_REPLY_INIT;
	struct s3_client_options o;
	struct scripted_http s;
	struct s3_client *c;
	struct err err;

	(void)state;
	scripted_start(&s, steps, COUNT_OF(steps));
	o = options(s.endpoint);
	o.credentials.access_key = "";
	setenv("AWS_ACCESS_KEY_ID", "OLD", 1);
	setenv("AWS_SECRET_ACCESS_KEY", "x", 1);
	c = client(&o);
	assert_int_equal(scripted_asked(&s), 0);
	assert_string_equal(call(c, &r, &reply, &err), "");
	assert_non_null(strstr(s.asked[0], "Credential=OLD/"));
	/* Fresh ones once; when they are no better that is the answer. */
	assert_string_equal(call(c, &r, &reply, &err),
			    "403 InvalidAccessKeyId: the store does not know the access key (from "
			    "environment)");
	assert_int_equal(scripted_asked(&s), 4);
	assert_int_equal(err.kind, ERR_PERMISSION);
	unsetenv("AWS_ACCESS_KEY_ID");
	unsetenv("AWS_SECRET_ACCESS_KEY");
	s3_client_free(c);
	s3_reply_fini(&reply);
	scripted_stop(&s);
}

static void *interrupt_soon(void *arg)
{
	usleep(50000);
	s3_client_interrupt(arg, true);
	return NULL;
}

static void silence_is_a_timeout_and_can_be_interrupted(void **state)
{
	static const struct http_step steps[] = {
		{ .status = 200, .silent_ms = 2500 },
		{ .status = 200, .silent_ms = 20000 },
	};
	const struct s3_request once = { .method = "GET", .key = "k", .is_once = true };
	const struct s3_request r = { .method = "GET", .key = "k" };
	struct s3_reply reply = S3_REPLY_INIT;
	struct s3_client_options o;
	struct scripted_http s;
	struct s3_client *c;
	pthread_t thread;
	uint64_t start;
	struct err err;

	(void)state;
	scripted_start(&s, steps, COUNT_OF(steps));
	o = options(s.endpoint);
	o.stall_timeout_ms = 1000;
	c = client(&o);
	assert_string_not_equal(call(c, &once, &reply, &err), "");
	assert_int_equal(err.kind, ERR_TIMEOUT);
	s3_client_free(c);
	o.stall_timeout_ms = 0;
	c = client(&o);
	start = clock_mono_ns();
	assert_int_equal(pthread_create(&thread, NULL, interrupt_soon, c), 0);
	assert_non_null(strstr(call(c, &r, &reply, &err), "interrupted"));
	assert_int_equal(err.kind, ERR_UNAVAILABLE);
	assert_true(clock_mono_ns() - start < 19 * NS_PER_S);
	pthread_join(thread, NULL);
	s3_client_free(c);
	s3_reply_fini(&reply);
	scripted_stop(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(buckets_are_paths_or_hosts),
		cmocka_unit_test(requests_are_signed_and_encoded),
		cmocka_unit_test(what_may_pass_is_tried_again),
		cmocka_unit_test(answers_and_outages),
		cmocka_unit_test(an_outage_is_no_storm),
		cmocka_unit_test(pauses_grow_and_the_store_is_heard),
		cmocka_unit_test(expired_keys_are_replaced),
		cmocka_unit_test(silence_is_a_timeout_and_can_be_interrupted),
	};

	return cmocka_run_group_tests_name("s3_client", tests, NULL, NULL);
}
