/* SPDX-License-Identifier: Apache-2.0
 *
 * test_sigv4.c - request signatures against AWS's published examples: the four of the S3 API
 * reference ("Signature Calculations for the Authorization Header") and those of the "Signature
 * Version 4 Test Suite" that S3's rules do not exclude (S3 neither normalizes nor joins anything).
 */
#include "net/sigv4.h"

#include "base/clock.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#define S3_DATE "20130524T000000Z"
#define SUITE_DATE "20150830T123600Z"
#define EMPTY "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
#define TOKEN                                                                                      \
	"AQoDYXdzEPT//////////wEXAMPLEtc764bNrC9SAPBSM22wDOk4x4HIZ8j4FZTwdQWLWsKWHGBuFqwAeMicRXmx" \
	"fpSPfIeoIYRqTflfKD8YUuwthAx7mSEI/qkPpKPi/kMcGdQrmGdeehM4IC1NtBmUpp2wUE8phUZampKsburEDy0K" \
	"PkyQDYwT7WZ0wq5VSXDvp75YU9HFvlRd8Tx6q6fE8YQcHNVXAkiY9q6d+xo0rKwT38xVqr7ZD0u0iPPkUL64lIZb" \
	"qBAz+scqKmlzm8FDrypNC9Yjc8fPOLn9FX9KSYvKTr4rvx3iSIlTJabIQwj2ICCR/oLxBA=="
#define ALL "-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

static const struct sigv4_signer s3_example = { "AKIAIOSFODNN7EXAMPLE",
						"wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
						"us-east-1", "s3" };
static const struct sigv4_signer suite = { "AKIDEXAMPLE",
					   "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "us-east-1",
					   "service" };

struct example {
	const char *name, *method, *path; /* the path is not encoded yet */
	struct sigv4_param params[2];
	struct http_header headers[4]; /* beside those below */
	const char *body;
	const char *signed_names, *signature;
};

static size_t count_params(const struct example *e)
{
	size_t n = 0;

	while (n < COUNT_OF(e->params) && e->params[n].name != NULL)
		n++;
	return n;
}

/* Sign an example and compare the whole header. */
static void check(const struct example *e, const struct sigv4_signer *s,
		  const struct http_header *common, size_t n_common, const char *date)
{
	struct buf path = BUF_INIT, query = BUF_INIT, got = BUF_INIT;
	struct bytes body = bytes_str(e->body ? e->body : "");
	struct http_header headers[8];
	char hash[SIGV4_HASH_SIZE], want[700];
	size_t n = 0;

	sigv4_encode(bytes_str(e->path), true, &path);
	sigv4_query(e->params, count_params(e), &query);
	sigv4_hash(&body, 1, hash);
	for (size_t i = 0; i < COUNT_OF(e->headers) && e->headers[i].name != NULL; i++)
		headers[n++] = e->headers[i];
	for (size_t i = 0; i < n_common; i++)
		headers[n++] = common[i];
	if (s == &s3_example)
		headers[n++] = (struct http_header){ "x-amz-content-sha256", hash };
	sigv4_sign(&(struct sigv4_request){ .method = e->method,
					    .path = buf_cstr(&path),
					    .query = buf_cstr(&query),
					    .headers = headers,
					    .n_headers = n,
					    .payload_hash = hash,
					    .date = date },
		   s, &got);
	snprintf(want, sizeof(want),
		 "AWS4-HMAC-SHA256 Credential=%s/%.8s/us-east-1/%s/aws4_request, SignedHeaders=%s, "
		 "Signature=%s",
		 s->access_key, date, s->service, e->signed_names, e->signature);
	if (strcmp(buf_cstr(&got), want) != 0)
		fail_msg("%s:\n got %s\nwant %s", e->name, buf_cstr(&got), want);
	buf_fini(&path);
	buf_fini(&query);
	buf_fini(&got);
}

static void the_examples_of_the_s3_reference(void **state)
{
	static const struct example examples[] = {
		{ "GET object", "GET", "/test.txt", .headers = { { "Range", "bytes=0-9" } },
		  .signed_names = "host;range;x-amz-content-sha256;x-amz-date",
		  .signature = "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41" },
		{ "PUT object", "PUT", "/test$file.text",
		  .headers = { { "Date", "Fri, 24 May 2013 00:00:00 GMT" },
			       { "x-amz-storage-class", "REDUCED_REDUNDANCY" } },
		  .body = "Welcome to Amazon S3.",
		  .signed_names = "date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class",
		  .signature = "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd" },
		{ "GET bucket lifecycle", "GET", "/", .params = { { "lifecycle", "" } },
		  .signed_names = "host;x-amz-content-sha256;x-amz-date",
		  .signature = "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543" },
		{ "list objects", "GET", "/", .params = { { "prefix", "J" }, { "max-keys", "2" } },
		  .signed_names = "host;x-amz-content-sha256;x-amz-date",
		  .signature = "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7" },
	};
	static const struct http_header common[] = {
		{ "Host", "examplebucket.s3.amazonaws.com" },
		{ "x-amz-date", S3_DATE },
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(examples); i++)
		check(&examples[i], &s3_example, common, COUNT_OF(common), S3_DATE);
}

static void the_test_suite(void **state)
{
	static const struct example examples[] = {
		{ "get-vanilla", "GET", "/", .signed_names = "host;x-amz-date",
		  .signature = "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31" },
		{ "post-vanilla", "POST", "/", .signed_names = "host;x-amz-date",
		  .signature = "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b" },
		{ "get-utf8", "GET", "/\u1234", .signed_names = "host;x-amz-date",
		  .signature = "8318018e0b0f223aa2bbf98705b62bb787dc9c0e678f255a891fd03141be5d85" },
		{ "get-unreserved", "GET", "/" ALL, .signed_names = "host;x-amz-date",
		  .signature = "07ef7494c76fa4850883e2b006601f940f8a34d404d0cfa977f52a65bbf5f24f" },
		{ "get-space", "GET", "/example space/", .signed_names = "host;x-amz-date",
		  .signature = "652487583200325589f1fba4c7e578f72c47cb61beeca81406b39ddec1366741" },
		{ "get-vanilla-query-order-key-case", "GET", "/",
		  .params = { { "Param2", "value2" }, { "Param1", "value1" } },
		  .signed_names = "host;x-amz-date",
		  .signature = "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500" },
		{ "get-vanilla-query-order-value", "GET", "/",
		  .params = { { "Param1", "value2" }, { "Param1", "value1" } },
		  .signed_names = "host;x-amz-date",
		  .signature = "5772eed61e12b33fae39ee5e7012498b51d56abc0abb7c60486157bd471c4694" },
		{ "get-vanilla-query-unreserved", "GET", "/", .params = { { ALL, ALL } },
		  .signed_names = "host;x-amz-date",
		  .signature = "9c3e54bfcdf0b19771a7f523ee5669cdf59bc7cc0884027167c21bb143a40197" },
		{ "get-vanilla-utf8-query", "GET", "/", .params = { { "\u1234", "bar" } },
		  .signed_names = "host;x-amz-date",
		  .signature = "2cdec8eed098649ff3a119c94853b13c643bcf08f8b0a1d91e12c9027818dd04" },
		{ "post-vanilla-query", "POST", "/", .params = { { "Param1", "value1" } },
		  .signed_names = "host;x-amz-date",
		  .signature = "28038455d6de14eafc1f9222cf5aa6f1a96197d7deb8263271d420d138af7f11" },
		{ "get-header-value-trim", "GET", "/",
		  .headers = { { "My-Header1", " value1" }, { "My-Header2", " \"a   b   c\" " } },
		  .signed_names = "host;my-header1;my-header2;x-amz-date",
		  .signature = "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736" },
		{ "post-header-value-case", "POST", "/", .headers = { { "My-Header1", "VALUE1" } },
		  .signed_names = "host;my-header1;x-amz-date",
		  .signature = "cdbc9802e29d2942e5e10b5bccfdd67c5f22c7c4e8ae67b53629efa58b974b7d" },
		{ "post-x-www-form-urlencoded", "POST", "/",
		  .headers = { { "Content-Type", "application/x-www-form-urlencoded" } },
		  .body = "Param1=value1", .signed_names = "content-type;host;x-amz-date",
		  .signature = "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a" },
		{ "post-sts-header-before", "POST", "/",
		  .headers = { { "X-Amz-Security-Token", TOKEN } },
		  .signed_names = "host;x-amz-date;x-amz-security-token",
		  .signature = "85d96828115b5dc0cfc3bd16ad9e210dd772bbebba041836c64533a82be05ead" },
	};
	static const struct http_header common[] = {
		{ "Host", "example.amazonaws.com" },
		{ "X-Amz-Date", SUITE_DATE },
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(examples); i++)
		check(&examples[i], &suite, common, COUNT_OF(common), SUITE_DATE);
}

static void encoding_keeps_what_may_stay(void **state)
{
	static const struct {
		const char *in;
		bool keep_slash;
		const char *want;
	} cases[] = {
		{ "", true, "" },
		{ "a/b-c_d.e~f", true, "a/b-c_d.e~f" },
		{ "a/b", false, "a%2Fb" },
		{ "a=b&c?d#e+f g", true, "a%3Db%26c%3Fd%23e%2Bf%20g" },
		{ "!*'();:@$,[]%", true, "%21%2A%27%28%29%3B%3A%40%24%2C%5B%5D%25" },
		{ "\xff\xc3\xa9", true, "%FF%C3%A9" },
	};
	struct buf out = BUF_INIT;

	(void)state;
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		buf_reset(&out);
		sigv4_encode(bytes_str(cases[i].in), cases[i].keep_slash, &out);
		assert_string_equal(buf_cstr(&out), cases[i].want);
	}
	buf_fini(&out);
}

static void hashes_and_dates(void **state)
{
	const struct bytes pieces[] = { BYTES_LIT("Welcome to "), BYTES_EMPTY,
					BYTES_LIT("Amazon S3.") };
	char hash[SIGV4_HASH_SIZE], date[SIGV4_DATE_SIZE];

	(void)state;
	sigv4_hash(NULL, 0, hash);
	assert_string_equal(hash, EMPTY);
	sigv4_hash(pieces, COUNT_OF(pieces), hash);
	assert_string_equal(hash,
			    "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072");
	sigv4_date(UINT64_C(1440938160) * NS_PER_S + 999, date);
	assert_string_equal(date, SUITE_DATE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_examples_of_the_s3_reference),
		cmocka_unit_test(the_test_suite),
		cmocka_unit_test(encoding_keeps_what_may_stay),
		cmocka_unit_test(hashes_and_dates),
	};

	return cmocka_run_group_tests_name("sigv4", tests, NULL, NULL);
}
