/* SPDX-License-Identifier: Apache-2.0
 *
 * test_backend_s3.c - the S3 backend against answers that a well-behaved store does not give. What
 * every backend promises is in tests/contract/test_backends.c, which runs on real stores.
 */
#include "base/clock.h"
#include "base/str.h"
#include "blocks/backend_s3.h"

#include "tests/unit/scripted_http.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#define ERROR(code) "<Error><Code>" code "</Code></Error>"
#define LIST(inner) "<ListBucketResult>" inner "</ListBucketResult>"
#define OPENED                                                                                     \
	{                                                                                          \
		.status = 200, .body = LIST("")                                                    \
	}
#define UPLOAD                                                                                     \
	{                                                                                          \
		.status = 200, .body = "<InitiateMultipartUploadResult><UploadId>u/1</UploadId>"   \
				       "</InitiateMultipartUploadResult>"                          \
	}
#define PART_DONE                                                                                  \
	{                                                                                          \
		.status = 200, .headers = "ETag: \"e\"\r\n"                                        \
	}

#define COMPLETED                                                                                  \
	{                                                                                          \
		.status = 200, .body = "<CompleteMultipartUploadResult>"                           \
				       "</CompleteMultipartUploadResult>"                          \
	}

enum { PART = 5 << 20 };

struct fixture {
	struct scripted_http s;
	struct backend *be;
	struct budget budget;
};

static struct backend *open_backend(struct fixture *f, struct err *err)
{
	struct backend_s3_options o = {
		.client = { .endpoint = f->s.endpoint,
			    .bucket = "bucket1",
			    .credentials = { .access_key = "AK", .secret_key = "SK" },
			    .backoff_first_ns = 1000,
			    .backoff_max_ns = 1000 },
		.prefix = "p/q",
		.part_size = PART,
		.storage_class = "STANDARD_IA",
		.sse = "aws:kms",
		.sse_kms_key = "k",
		.budget = &f->budget,
	};

	return backend_s3_open(&o, err);
}

static void start(struct fixture *f, const struct http_step *steps, size_t n)
{
	struct err err = ERR_INIT;

	memset(f, 0, sizeof(*f));
	f->budget.limit = 1 << 30;
	scripted_start(&f->s, steps, n);
	f->be = open_backend(f, &err);
	if (f->be == NULL)
		fail_msg("%s", err.msg);
}

/* Every step was used, and nothing is charged any more. */
static void stop(struct fixture *f)
{
	assert_int_equal(scripted_asked(&f->s), f->s.n_steps);
	backend_free(f->be);
	assert_int_equal(f->budget.used, 0);
	scripted_stop(&f->s);
}

static void assert_asked(struct fixture *f, size_t i, const char *begin)
{
	if (!str_has_prefix(f->s.asked[i], begin))
		fail_msg("request %zu is not %s: %s", i, begin, f->s.asked[i]);
}

static void a_store_that_refuses_says_why(void **state)
{
	static const struct {
		struct http_step step;
		const char *want;
	} cases[] = {
		{ { .status = 404, .body = ERROR("NoSuchBucket") },
		  "404 NoSuchBucket: no http://127.0.0.1:" },
		{ { .status = 403, .body = ERROR("AccessDenied") },
		  "may not GET at http://127.0.0.1:" },
		{ { .status = 200, .body = "<html>no store</html>" },
		  "the answer is no ListBucketResult" },
		{ { .status = 200, .body = "hello" }, "xml: byte 0" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		struct fixture f = { .be = NULL };
		struct err err = ERR_INIT;

		scripted_start(&f.s, &cases[i].step, 1);
		assert_null(open_backend(&f, &err));
		if (strstr(err.msg, cases[i].want) == NULL)
			fail_msg("%s", err.msg);
		assert_true(str_has_prefix(err.msg, "s3 backend: "));
		scripted_stop(&f.s);
	}
}

static void conditional_puts_must_decide(void **state)
{
	static const struct http_step ignores[] = {
		OPENED, { .status = 200 }, { .status = 200 }, { .status = 204 }
	};
	static const struct http_step cannot[] = {
		OPENED, { .status = 501, .body = ERROR("NotImplemented") }
	};
	static const struct http_step lost[] = {
		OPENED, { .status = 500 }, { .status = 412 }, { .status = 412 }, { .status = 204 }
	};
	static const struct http_step denied[] = { OPENED,
						   { .status = 403, .body = ERROR("AccessDenied") },
						   { .status = 403, .body = ERROR("AccessDenied") },
						   { .status = 403,
						     .body = ERROR("AccessDenied") } };
	static const struct http_step folder_goes[] = { OPENED,
							{ .status = 403,
							  .body = ERROR("AccessDenied") },
							{ .status = 200 },
							{ .status = 412 },
							{ .status = 204 } };
	struct err err = ERR_INIT;
	struct fixture f;

	(void)state;
	start(&f, denied, COUNT_OF(denied));
	assert_int_equal(backend_prove_conditional(f.be, &err), -1);
	assert_int_equal(err.kind, ERR_PERMISSION);
	stop(&f);
	start(&f, folder_goes, COUNT_OF(folder_goes));
	assert_int_equal(backend_prove_conditional(f.be, &err), 0);
	stop(&f);
	start(&f, ignores, COUNT_OF(ignores));
	assert_int_equal(backend_prove_conditional(f.be, &err), -1);
	assert_int_equal(err.kind, ERR_UNIMPLEMENTED);
	assert_non_null(strstr(err.msg, "the store ignores If-None-Match on PUT"));
	assert_asked(&f, 1, "PUT /bucket1/p/q/_spanmill/probe/");
	assert_asked(&f, 3, "DELETE /bucket1/p/q/_spanmill/probe/");
	stop(&f);
	start(&f, cannot, COUNT_OF(cannot));
	assert_int_equal(backend_prove_conditional(f.be, &err), -1);
	assert_string_equal(err.msg, "conditional put: 501 NotImplemented");
	stop(&f);
	start(&f, lost, COUNT_OF(lost));
	assert_int_equal(backend_prove_conditional(f.be, &err), 0);
	stop(&f);
}

/* What range 2+4 of an object comes to, for odd answers. */
static void ranges_are_checked(void **state)
{
	static const struct {
		struct http_step step;
		enum err_kind kind; /* NONE: read */
		const char *want;
	} cases[] = {
		{ { .status = 206, .headers = "Content-Range: bytes 2-5/10\r\n", .body = "2345" },
		  ERR_NONE,
		  "2345" },
		{ { .status = 206, .headers = "Content-Range: bytes 2-5/*\r\n", .body = "2345" },
		  ERR_NONE,
		  "2345" },
		{ { .status = 206, .headers = "Content-Range: bytes 2-4/5\r\n", .body = "234" },
		  ERR_CORRUPT,
		  "read k: range 2+4: the object has 5 bytes" },
		{ { .status = 206, .headers = "Content-Range: bytes 0-3/10\r\n", .body = "0123" },
		  ERR_CORRUPT,
		  "read k: range 2+4: the store sent 4 bytes of \"bytes 0-3/10\"" },
		{ { .status = 206, .body = "2345" },
		  ERR_CORRUPT,
		  "read k: range 2+4: the store sent 4 bytes of \"\"" },
		{ { .status = 200, .body = "0123456789" },
		  ERR_UNIMPLEMENTED,
		  "read k: the store ignores Range" },
		{ { .status = 200, .body = "01234" },
		  ERR_CORRUPT,
		  "read k: range 2+4: the object has 5 bytes" },
		{ { .status = 416, .body = ERROR("InvalidRange") },
		  ERR_CORRUPT,
		  "read k: range 2+4: the object ends before" },
		{ { .status = 404, .body = ERROR("NoSuchKey") },
		  ERR_NOT_FOUND,
		  "read k: 404 NoSuchKey" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		const struct http_step steps[] = { OPENED, cases[i].step };
		struct err err = ERR_INIT;
		struct buf b = BUF_INIT;
		struct fixture f;
		int ret;

		start(&f, steps, COUNT_OF(steps));
		ret = backend_read_range(f.be, "k", 2, 4, &b, &err);
		assert_non_null(strstr(f.s.asked[1], "Range: bytes=2-5\r\n"));
		assert_string_equal(ret < 0 ? err.msg : buf_cstr(&b), cases[i].want);
		assert_int_equal(err.kind, cases[i].kind);
		assert_int_equal(b.n, ret < 0 ? 0 : 4);
		buf_fini(&b);
		stop(&f);
	}
}

static int count_entry(void *arg, const struct backend_entry *e, struct err *err)
{
	(void)err;
	(void)e;
	++*(int *)arg;
	return 0;
}

#define KEY(k) "<Contents><Key>" k "</Key></Contents>"
#define MORE(token)                                                                                \
	"<IsTruncated>true</IsTruncated><NextContinuationToken>" token "</NextContinuationToken>"

static void listings_of_odd_stores(void **state)
{
	static const struct http_step pages[] = {
		OPENED,
		/* Keys of others: outside of the folder, the folder itself, no legal key. */
		{ .status = 200,
		  .body = LIST(KEY("other/x") KEY("p/q/t/") KEY("p/q/t/a//b") KEY("p/q/t/1")
				       MORE("t=1")) },
		{ .status = 200, .body = LIST(KEY("p/q/t/2")) },
	};
	static const struct http_step circle[] = {
		OPENED,
		{ .status = 200, .body = LIST(KEY("p/q/t/1") MORE("same")) },
		{ .status = 200, .body = LIST(KEY("p/q/t/2") MORE("same")) },
	};
	/* Tokens that are new each time, pages that are not. */
	static const struct http_step round[] = {
		OPENED,
		{ .status = 200, .body = LIST(KEY("p/q/t/1") MORE("a")) },
		{ .status = 200, .body = LIST(KEY("p/q/t/2") MORE("b")) },
		{ .status = 200, .body = LIST(MORE("c")) },
		{ .status = 200, .body = LIST(KEY("p/q/t/3") MORE("d")) },
		{ .status = 200, .body = LIST(KEY("p/q/t/2") MORE("e")) },
	};
	static const struct http_step gone[] = { OPENED,
						 { .status = 404, .body = ERROR("NoSuchBucket") } };
	struct err err = ERR_INIT;
	struct fixture f;
	int n = 0;

	(void)state;
	start(&f, pages, COUNT_OF(pages));
	assert_int_equal(backend_list(f.be, "t", BACKEND_RECURSIVE, count_entry, &n, &err), 0);
	assert_int_equal(n, 2);
	assert_asked(&f, 1, "GET /bucket1?encoding-type=url&list-type=2&prefix=p%2Fq%2Ft%2F HTTP");
	assert_asked(&f, 2, "GET /bucket1?continuation-token=t%3D1&encoding-type=url");
	stop(&f);
	start(&f, circle, COUNT_OF(circle));
	assert_int_equal(backend_list(f.be, "t", BACKEND_ONE_LEVEL, count_entry, &n, &err), -1);
	assert_string_equal(err.msg, "list t: the listing does not get on");
	stop(&f);
	start(&f, round, COUNT_OF(round));
	assert_int_equal(backend_list(f.be, "t", BACKEND_ONE_LEVEL, count_entry, &n, &err), -1);
	assert_string_equal(err.msg, "list t: the listing does not get on");
	stop(&f);
	/* A bucket that is gone is no empty folder. */
	start(&f, gone, COUNT_OF(gone));
	assert_int_equal(backend_list(f.be, "t", BACKEND_ONE_LEVEL, count_entry, &n, &err), -1);
	assert_int_equal(err.kind, ERR_CONFIG);
	stop(&f);
}

static int write_large(struct fixture *f, size_t n, struct err *err)
{
	struct backend_writer *w = backend_writer_open(f->be, "t/data", err);
	uint8_t *p = xcalloc(1, n);
	int ret = backend_writer_append(w, (struct bytes){ p, n }, err);

	assert_true(f->budget.used > 0 || ret < 0);
	if (ret == 0)
		ret = backend_writer_finish(w, err);
	else
		backend_writer_abort(w);
	free(p);
	return ret;
}

static void uploads_that_go_wrong(void **state)
{
	static const struct http_step whole[] = { OPENED, UPLOAD, PART_DONE, PART_DONE, COMPLETED };
	/* Success without the answer of a success: the object tells. */
	static const struct http_step odd[] = { OPENED,
						UPLOAD,
						PART_DONE,
						PART_DONE,
						{ .status = 200, .body = "<Ok/>" },
						{ .status = 200, .announce = PART + 100 } };
	static const struct http_step cut[] = { OPENED,
						UPLOAD,
						PART_DONE,
						PART_DONE,
						{ .status = 200, .body = "<?xml ?><Err" },
						{ .status = 404 },
						{ .status = 204 } };
	/* Completed, the answer lost, and gone when asked again; the object is there. */
	static const struct http_step lost[] = { OPENED,
						 UPLOAD,
						 PART_DONE,
						 PART_DONE,
						 { .status = 0 },
						 { .status = 404, .body = ERROR("NoSuchUpload") },
						 { .status = 200, .announce = PART + 100 } };
	/* The same without the object: an error, and the parts are dropped. */
	static const struct http_step failed[] = { OPENED,
						   UPLOAD,
						   PART_DONE,
						   PART_DONE,
						   { .status = 404, .body = ERROR("NoSuchUpload") },
						   { .status = 404 },
						   { .status = 204 } };
	static const struct http_step part_fails[] = {
		OPENED, UPLOAD, { .status = 403, .body = ERROR("AccessDenied") }, { .status = 204 }
	};
	static const struct http_step no_etag[] = {
		OPENED, UPLOAD, { .status = 200 }, { .status = 204 }
	};
	static const struct http_step late_error[] = {
		OPENED,
		UPLOAD,
		PART_DONE,
		PART_DONE,
		{ .status = 200, .body = ERROR("InvalidPart") },
		{ .status = 204 }
	};
	static const struct {
		const struct http_step *steps;
		size_t n;
		const char *want;
	} cases[] = {
		{ whole, COUNT_OF(whole), "" },
		{ odd, COUNT_OF(odd), "" },
		{ cut, COUNT_OF(cut),
		  "finish t/data: the store said success, but with an answer that is none, and the "
		  "object is not there" },
		{ lost, COUNT_OF(lost), "" },
		{ failed, COUNT_OF(failed), "finish t/data: 404 NoSuchUpload" },
		{ part_fails, COUNT_OF(part_fails), "write t/data: part 1: 403 AccessDenied" },
		{ no_etag, COUNT_OF(no_etag),
		  "write t/data: part 1: the answer has no usable ETag" },
		{ late_error, COUNT_OF(late_error), "finish t/data: 200 InvalidPart" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		struct err err = ERR_INIT;
		struct fixture f;
		int ret;

		start(&f, cases[i].steps, cases[i].n);
		ret = write_large(&f, PART + 100, &err);
		if (!str_has_prefix(err.msg, cases[i].want) || (ret == 0) != (err.msg[0] == '\0'))
			fail_msg("case %zu: %s", i, err.msg);
		assert_asked(&f, 1, "POST /bucket1/p/q/t/data?uploads= HTTP");
		assert_asked(&f, 2, "PUT /bucket1/p/q/t/data?partNumber=1&uploadId=u%2F1 HTTP");
		if (ret < 0)
			assert_asked(&f, cases[i].n - 1,
				     "DELETE /bucket1/p/q/t/data?uploadId=u%2F1 HTTP");
		stop(&f);
	}
}

/* A 200 of somebody else, or one that an error follows, is no success of a PUT either. */
static void a_put_is_answered_by_the_store(void **state)
{
	static const struct http_step steps[] = {
		OPENED,
		{ .status = 200, .body = "<html>please log in</html>" },
		{ .status = 404 },
		{ .status = 200, .body = ERROR("AccessDenied") },
		{ .status = 200, .body = "<PutObjectResult/>" },
		{ .status = 200, .announce = 1 },
	};
	struct err err = ERR_INIT;
	struct fixture f;

	(void)state;
	start(&f, steps, COUNT_OF(steps));
	assert_int_equal(backend_put(f.be, "k", BYTES_LIT("x"), BACKEND_REPLACE, &err), -1);
	assert_true(err.retryable);
	assert_asked(&f, 2, "HEAD /bucket1/p/q/k HTTP");
	assert_int_equal(backend_put(f.be, "k", BYTES_LIT("x"), BACKEND_REPLACE, &err), -1);
	assert_string_equal(err.msg, "put k: 200 AccessDenied");
	assert_int_equal(backend_put(f.be, "k", BYTES_LIT("x"), BACKEND_REPLACE, &err), 0);
	stop(&f);
}

static void wishes_go_with_the_object(void **state)
{
	static const struct http_step steps[] = { OPENED,    { .status = 200 }, UPLOAD,
						  PART_DONE, PART_DONE,         COMPLETED };
	struct fixture f;

	(void)state;
	start(&f, steps, COUNT_OF(steps));
	assert_int_equal(backend_put(f.be, "k", BYTES_LIT("x"), BACKEND_REPLACE, NULL), 0);
	assert_int_equal(write_large(&f, PART + 1, NULL), 0);
	for (size_t i = 1; i < 3; i++) {
		assert_non_null(strstr(f.s.asked[i], "x-amz-storage-class: STANDARD_IA\r\n"));
		assert_non_null(strstr(f.s.asked[i], "x-amz-server-side-encryption: aws:kms\r\n"));
		assert_non_null(
			strstr(f.s.asked[i], "x-amz-server-side-encryption-aws-kms-key-id: k\r\n"));
	}
	assert_null(strstr(f.s.asked[3], "x-amz-storage-class"));
	stop(&f);
}

/* A rename that died between put and delete is finished by the next; another's object is not. */
static void renames_are_finished(void **state)
{
	static const struct http_step half[] = { OPENED,
						 { .status = 200, .body = "meta" },
						 { .status = 412 },
						 { .status = 200, .body = "meta" },
						 { .status = 204 } };
	static const struct http_step taken[] = { OPENED,
						  { .status = 200, .body = "meta" },
						  { .status = 412 },
						  { .status = 200, .body = "other" } };
	struct err err = ERR_INIT;
	struct fixture f;

	(void)state;
	start(&f, half, COUNT_OF(half));
	assert_int_equal(backend_rename(f.be, "a", "b", &err), 0);
	assert_asked(&f, 2, "PUT /bucket1/p/q/b HTTP");
	assert_non_null(strstr(f.s.asked[2], "If-None-Match: *\r\n"));
	assert_asked(&f, 4, "DELETE /bucket1/p/q/a HTTP");
	stop(&f);
	start(&f, taken, COUNT_OF(taken));
	assert_int_equal(backend_rename(f.be, "a", "b", &err), -1);
	assert_int_equal(err.kind, ERR_EXISTS);
	stop(&f);
}

static void sizes_and_limits(void **state)
{
	static const struct http_step steps[] = { OPENED,
						  { .status = 200, .announce = 12345 },
						  { .status = 200, .body = "0123456789" },
						  { .status = 404 } };
	struct err err = ERR_INIT;
	struct buf b = BUF_INIT;
	char key[BACKEND_KEY_MAX + 1];
	uint64_t size = 0;
	struct fixture f;

	(void)state;
	start(&f, steps, COUNT_OF(steps));
	assert_int_equal(backend_size(f.be, "k", &size, &err), 0);
	assert_int_equal(size, 12345);
	assert_int_equal(backend_read(f.be, "k", 9, &b, &err), -1);
	assert_string_equal(err.msg, "read k: 10 bytes: the limit is 9");
	assert_int_equal(backend_size(f.be, "k", &size, &err), -1);
	assert_int_equal(err.kind, ERR_NOT_FOUND);
	/* The prefix counts. */
	memset(key, 'a', sizeof(key));
	for (size_t i = 200; i < BACKEND_KEY_MAX; i += 200)
		key[i] = '/';
	key[BACKEND_KEY_MAX] = '\0';
	assert_int_equal(backend_size(f.be, key, &size, &err), -1);
	assert_int_equal(err.kind, ERR_INVALID);
	buf_fini(&b);
	stop(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_store_that_refuses_says_why),
		cmocka_unit_test(conditional_puts_must_decide),
		cmocka_unit_test(ranges_are_checked),
		cmocka_unit_test(listings_of_odd_stores),
		cmocka_unit_test(uploads_that_go_wrong),
		cmocka_unit_test(a_put_is_answered_by_the_store),
		cmocka_unit_test(wishes_go_with_the_object),
		cmocka_unit_test(renames_are_finished),
		cmocka_unit_test(sizes_and_limits),
	};

	return cmocka_run_group_tests_name("backend_s3", tests, NULL, NULL);
}
