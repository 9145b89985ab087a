/* SPDX-License-Identifier: Apache-2.0
 *
 * test_backends.c - what every backend promises (blocks/backend.h), one table of tests for all: the
 * local disk always, S3 when SPANMILL_TEST_S3 names a store (tests/integration/test_s3.py starts
 * real ones): "endpoint bucket access_key secret_key".
 */
#include "base/clock.h"
#include "base/mem.h"
#include "base/rng.h"
#include "blocks/backend_local.h"
#include "blocks/backend_s3.h"
#include "blocks/block.h"
#include "blocks/block_object.h"
#include "blocks/block_writer.h"
#include "blocks/section.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#include <cmocka.h>

enum { PART = 5 << 20 };

/* ---- the backends ---- */

static char local_path[64]; /* "" when the tests run on S3 */
static struct budget budget = BUDGET_INIT(INT64_C(1) << 30);

static struct backend *open_local(struct err *err)
{
	const char *tmp = getenv("TMPDIR");

	snprintf(local_path, sizeof(local_path), "%.40s/backends-XXXXXX", tmp ? tmp : "/tmp");
	assert_non_null(mkdtemp(local_path));
	return backend_local_open(&(struct backend_local_options){ .path = local_path }, err);
}

/* Each test has a prefix of its own. */
static struct backend *open_s3(struct err *err)
{
	char *words = xstrdup(getenv("SPANMILL_TEST_S3")), *rest = words;
	char prefix[64] = "contract/", id[37];
	struct backend_s3_options o = { .part_size = PART, .budget = &budget, .list_page = 3 };
	struct backend *be;

	rng_uuid(id);
	memcpy(prefix + strlen(prefix), id, sizeof(id));
	o.client.endpoint = strsep(&rest, " ");
	o.client.bucket = strsep(&rest, " ");
	o.client.credentials.access_key = strsep(&rest, " ");
	o.client.credentials.secret_key = strsep(&rest, " ");
	o.client.backoff_first_ns = 20 * NS_PER_MS;
	o.prefix = prefix;
	be = backend_s3_open(&o, err);
	free(words);
	return be;
}

static struct backend *(*open_backend)(struct err *) = open_local;

static int setup(void **state)
{
	struct err err = ERR_INIT;
	struct backend *be = open_backend(&err);

	if (be == NULL)
		printf("%s\n", err.msg);
	*state = be;
	return be == NULL ? -1 : 0;
}

static int delete_entry(void *arg, const struct backend_entry *e, struct err *err)
{
	return backend_delete(arg, e->key, err);
}

static int teardown(void **state)
{
	struct backend *be = *state;
	char path[128];
	struct err err = ERR_INIT;
	int ret = backend_list(be, "", BACKEND_RECURSIVE, delete_entry, be, &err);

	if (ret < 0)
		printf("%s\n", err.msg);
	backend_free(be);
	if (local_path[0] != '\0') {
		snprintf(path, sizeof(path), "%s/_spanmill/tmp", local_path);
		rmdir(path);
		snprintf(path, sizeof(path), "%s/_spanmill", local_path);
		rmdir(path);
		/* Nothing may be left over. */
		ret |= rmdir(local_path);
	}
	return ret < 0 || budget.used != 0 ? -1 : 0;
}

/* ---- helpers ---- */

static void put(struct backend *be, const char *key, struct bytes data)
{
	struct err err = ERR_INIT;

	if (backend_put(be, key, data, BACKEND_REPLACE, &err) < 0)
		fail_msg("%s", err.msg);
}

static void expect(struct backend *be, const char *key, const char *want)
{
	struct buf b = BUF_INIT;
	struct err err = ERR_INIT;

	if (backend_read(be, key, 1000, &b, &err) < 0)
		fail_msg("%s", err.msg);
	assert_string_equal(buf_cstr(&b), want);
	buf_fini(&b);
}

static enum err_kind read_error(struct backend *be, const char *key, size_t max)
{
	struct buf b = BUF_INIT;
	struct err err = ERR_INIT;

	assert_int_equal(backend_read(be, key, max, &b, &err), -1);
	assert_int_equal(b.n, 0);
	buf_fini(&b);
	return err.kind;
}

static int count_entry(void *arg, const struct backend_entry *e, struct err *err)
{
	(void)e;
	(void)err;
	++*(int *)arg;
	return 0;
}

static int count(struct backend *be)
{
	int n = 0;

	assert_int_equal(backend_list(be, "", BACKEND_RECURSIVE, count_entry, &n, NULL), 0);
	return n;
}

/* ---- the tests ---- */

static void put_replaces_or_not(void **state)
{
	struct backend *be = *state;
	struct err err = ERR_INIT;

	assert_int_equal(read_error(be, "a/b/c", 10), ERR_NOT_FOUND);
	assert_int_equal(backend_put(be, "a/b/c", BYTES_LIT("one"), BACKEND_IF_NONE_MATCH, &err),
			 0);
	assert_int_equal(backend_put(be, "a/b/c", BYTES_LIT("two"), BACKEND_IF_NONE_MATCH, &err),
			 -1);
	assert_int_equal(err.kind, ERR_EXISTS);
	expect(be, "a/b/c", "one");
	put(be, "a/b/c", BYTES_LIT("three"));
	expect(be, "a/b/c", "three");
	assert_int_equal(read_error(be, "a/b/c", 4), ERR_TOO_LARGE);
	put(be, "empty", BYTES_EMPTY);
	expect(be, "empty", "");
	assert_int_equal(backend_delete(be, "a/b/c", &err), 0);
	assert_int_equal(backend_delete(be, "a/b/c", &err), 0);
	assert_int_equal(backend_delete(be, "a/x/y", &err), 0);
	assert_int_equal(read_error(be, "a/b/c", 10), ERR_NOT_FOUND);
}

static void conditional_puts_are_proved(void **state)
{
	struct err err = ERR_INIT;

	if (backend_prove_conditional(*state, &err) < 0)
		fail_msg("%s", err.msg);
	assert_int_equal(count(*state), 0);
}

static void a_writer_shows_nothing_until_finished(void **state)
{
	struct backend *be = *state;
	struct backend_writer *w = backend_writer_open(be, "t/b/data", NULL);

	assert_int_equal(backend_writer_append(w, BYTES_LIT("hello "), NULL), 0);
	assert_int_equal(backend_writer_append(w, BYTES_LIT("world"), NULL), 0);
	assert_int_equal(count(be), 0);
	assert_int_equal(read_error(be, "t/b/data", 10), ERR_NOT_FOUND);
	assert_int_equal(backend_writer_finish(w, NULL), 0);
	assert_int_equal(count(be), 1);
	expect(be, "t/b/data", "hello world");
	w = backend_writer_open(be, "t/b/data", NULL);
	assert_int_equal(backend_writer_append(w, BYTES_LIT("other"), NULL), 0);
	backend_writer_abort(w);
	backend_writer_abort(NULL);
	expect(be, "t/b/data", "hello world");
	w = backend_writer_open(be, "nothing", NULL);
	assert_int_equal(backend_writer_finish(w, NULL), 0);
	expect(be, "nothing", "");
}

/* n bytes in steps of `step`, then all of them read back by ranges. */
static void write_and_compare(struct backend *be, const uint8_t *p, size_t n, size_t step)
{
	struct backend_writer *w = backend_writer_open(be, "large", NULL);
	struct err err = ERR_INIT;
	struct buf b = BUF_INIT;
	uint64_t size = 0;

	for (size_t at = 0; at < n; at += step)
		if (backend_writer_append(w, (struct bytes){ p + at, MIN(step, n - at) }, &err) < 0)
			fail_msg("%s", err.msg);
	if (backend_writer_finish(w, &err) < 0)
		fail_msg("%s", err.msg);
	assert_int_equal(backend_size(be, "large", &size, NULL), 0);
	assert_int_equal(size, n);
	for (size_t at = 0; at < n; at += 3000001)
		assert_int_equal(
			backend_read_range(be, "large", at, MIN(3000001, n - at), &b, NULL), 0);
	assert_int_equal(b.n, n);
	assert_memory_equal(b.p, p, n);
	buf_fini(&b);
}

static void large_objects_are_whole(void **state)
{
	static const struct {
		size_t n, step;
	} cases[] = {
		{ PART - 1, 100000 },          { PART, PART },
		{ PART + 1, 700001 },          { 2 * PART, 64 << 10 },
		{ 3 * PART + 12345, 9000000 },
	};
	size_t max = 4 * PART;
	uint8_t *p = xmalloc(max);
	struct backend_writer *w;
	struct rng rng;

	rng_seed(&rng, 1);
	for (size_t i = 0; i < max; i += 8)
		store_le64(p + i, rng_next(&rng));
	for (size_t i = 0; i < COUNT_OF(cases); i++)
		write_and_compare(*state, p, cases[i].n, cases[i].step);
	/* An aborted one leaves what was there. */
	w = backend_writer_open(*state, "large", NULL);
	assert_int_equal(backend_writer_append(w, (struct bytes){ p, 2 * PART + 1 }, NULL), 0);
	backend_writer_abort(w);
	assert_int_equal(count(*state), 1);
	free(p);
}

/* An etag says whether an object is still the one that was read. */
static void what_is_unchanged_is_not_read(void **state)
{
	struct backend *be = *state;
	char etag[BACKEND_ETAG_SIZE] = "", first[BACKEND_ETAG_SIZE];
	struct buf b = BUF_INIT;
	struct err err = ERR_INIT;

	assert_int_equal(backend_read_changed(be, "e", 100, etag, &b, &err), -1);
	assert_int_equal(err.kind, ERR_NOT_FOUND);
	put(be, "e", BYTES_LIT("one"));
	assert_int_equal(backend_read_changed(be, "e", 100, etag, &b, NULL), 1);
	assert_string_not_equal(etag, "");
	assert_string_equal(buf_cstr(&b), "one");
	memcpy(first, etag, sizeof(first));
	err_clear(&err);
	assert_int_equal(backend_read_changed(be, "e", 100, etag, &b, &err), 0);
	assert_int_equal(err.kind, ERR_NONE);
	assert_int_equal(b.n, 3);
	put(be, "e", BYTES_LIT("two"));
	buf_reset(&b);
	assert_int_equal(backend_read_changed(be, "e", 100, etag, &b, NULL), 1);
	assert_string_equal(buf_cstr(&b), "two");
	assert_string_not_equal(etag, first);
	put(be, "e", BYTES_LIT("three"));
	buf_reset(&b);
	assert_int_equal(backend_read_changed(be, "e", 4, etag, &b, &err), -1);
	assert_int_equal(err.kind, ERR_TOO_LARGE);
	assert_int_equal(b.n, 0);
	buf_fini(&b);
}

static void ranges_are_whole_or_errors(void **state)
{
	static const struct {
		uint64_t off;
		size_t len;
		const char *want;
	} cases[] = {
		{ 0, 10, "0123456789" }, { 3, 4, "3456" },      { 9, 1, "9" },
		{ 10, 0, "" },           { 0, 11, NULL },       { 10, 1, NULL },
		{ 9, 2, NULL },          { 1000, 5, NULL },     { 11, 0, "" },
		{ UINT64_MAX, 2, NULL }, { 1, SIZE_MAX, NULL }, { 0, SIZE_MAX / 2, NULL },
	};
	struct backend *be = *state;
	uint64_t size = 0;

	put(be, "r", BYTES_LIT("0123456789"));
	assert_int_equal(backend_size(be, "r", &size, NULL), 0);
	assert_int_equal(size, 10);
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		struct buf b = BUF_INIT;
		struct err err = ERR_INIT;
		int ret;

		buf_add_str(&b, "+");
		ret = backend_read_range(be, "r", cases[i].off, cases[i].len, &b, &err);
		if ((ret == 0) != (cases[i].want != NULL))
			fail_msg("case %zu: %d %s", i, ret, err.msg);
		if (ret < 0 && err.kind != ERR_CORRUPT)
			fail_msg("case %zu: %s", i, err.msg);
		assert_string_equal(buf_cstr(&b) + 1, ret < 0 ? "" : cases[i].want);
		buf_fini(&b);
	}
	assert_int_equal(backend_size(be, "none", &size, NULL), -1);
}

static void keys_are_checked(void **state)
{
	static const char *const bad[] = { "",       "/a",    "a/",   "a//b", ".",     "..",
					   "a/../b", "a/./b", "a\\b", "a\nb", "a/\x7f" };
	struct backend *be = *state;
	char longest[BACKEND_KEY_MAX + 2];

	for (size_t i = 0; i < COUNT_OF(bad); i++) {
		struct err err = ERR_INIT;

		if (backend_put(be, bad[i], BYTES_EMPTY, BACKEND_REPLACE, &err) == 0 ||
		    err.kind != ERR_INVALID)
			fail_msg("\"%s\" passes", bad[i]);
		assert_int_equal(read_error(be, bad[i], 10), ERR_INVALID);
		assert_null(backend_writer_open(be, bad[i], NULL));
	}
	memset(longest, 'a', sizeof(longest));
	longest[sizeof(longest) - 1] = '\0';
	assert_int_equal(backend_key_check(longest, NULL), -1);
	longest[255] = longest[511] = longest[767] = longest[1000] = '/';
	assert_int_equal(backend_key_check(longest, NULL), -1);
	longest[BACKEND_KEY_MAX] = '\0';
	assert_int_equal(backend_key_check(longest, NULL), 0);
	assert_int_equal(backend_key_check("...", NULL), 0);
	assert_int_equal(backend_key_check("t!_.*'()-/x", NULL), 0);
}

static int join_entry(void *arg, const struct backend_entry *e, struct err *err)
{
	(void)err;
	return buf_printf(arg, "%s%s:%u ", e->key, e->is_prefix ? "/" : "", (unsigned)e->size);
}

static int note_key(void *arg, const struct backend_entry *e, struct err *err)
{
	(void)err;
	return buf_printf(arg, "<%s>", e->key);
}

/* Tenants, group ids and topics may have any of these; each comes back as it went in. */
static void odd_keys_survive(void **state)
{
	static const char *const odd[] = {
		"t/a b",
		"t/a+b",
		"t/a%20b",
		"t/a%2Bb",
		"t/a&b<c>\"'",
		"t/!_.*'()-",
		"t/a=b",
		"t/a?b#c",
		"t/~@:$,",
		"t/;[]{}|^`",
		"t/\xc3\xa9\xe2\x82\xac",
		"t/.a",
		"t/a.",
		"t/%",
	};
	struct backend *be = *state;
	struct buf list = BUF_INIT;
	char name[64];

	for (size_t i = 0; i < COUNT_OF(odd); i++)
		put(be, odd[i], bytes_str(odd[i]));
	assert_int_equal(backend_list(be, "t", BACKEND_ONE_LEVEL, note_key, &list, NULL), 0);
	for (size_t i = 0; i < COUNT_OF(odd); i++) {
		expect(be, odd[i], odd[i]);
		snprintf(name, sizeof(name), "<%s>", odd[i]);
		if (strstr(buf_cstr(&list), name) == NULL)
			fail_msg("%s is not in %s", odd[i], buf_cstr(&list));
	}
	assert_int_equal(count(be), COUNT_OF(odd));
	buf_fini(&list);
}

static int stop_entry(void *arg, const struct backend_entry *e, struct err *err)
{
	(void)err;
	buf_printf(arg, "%s ", e->key);
	return 1;
}

static int fail_entry(void *arg, const struct backend_entry *e, struct err *err)
{
	(void)arg;
	return err_set(err, ERR_INTERNAL, "no %s", e->key);
}

static void listings_are_complete(void **state)
{
	static const struct {
		const char *folder;
		enum backend_list_mode mode;
		const char *want;
	} cases[] = {
		{ "", BACKEND_ONE_LEVEL, "_spanmill/:0 t1/:0 t2/:0 top:3 " },
		{ "", BACKEND_RECURSIVE,
		  "_spanmill/commits/x:1 t1/b1/data:4 t1/b1/meta.json:2 "
		  "t1/b2/data:0 t2/b1/data:1 top:3 " },
		{ "t1", BACKEND_ONE_LEVEL, "t1/b1/:0 t1/b2/:0 " },
		{ "t1/b1", BACKEND_ONE_LEVEL, "t1/b1/data:4 t1/b1/meta.json:2 " },
		{ "t1/b1", BACKEND_RECURSIVE, "t1/b1/data:4 t1/b1/meta.json:2 " },
		{ "_spanmill", BACKEND_ONE_LEVEL, "_spanmill/commits/:0 " },
		{ "none", BACKEND_RECURSIVE, "" },
		{ "t", BACKEND_RECURSIVE, "" },
		{ "t1/b1/data", BACKEND_ONE_LEVEL, "" },
	};
	struct backend *be = *state;
	struct buf b = BUF_INIT;
	struct err err = ERR_INIT;

	put(be, "top", BYTES_LIT("abc"));
	put(be, "t2/b1/data", BYTES_LIT("x"));
	put(be, "t1/b2/data", BYTES_EMPTY);
	put(be, "t1/b1/meta.json", BYTES_LIT("{}"));
	put(be, "t1/b1/data", BYTES_LIT("abcd"));
	put(be, "_spanmill/commits/x", BYTES_LIT("c"));
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		buf_reset(&b);
		if (backend_list(be, cases[i].folder, cases[i].mode, join_entry, &b, &err) < 0)
			fail_msg("%s", err.msg);
		assert_string_equal(buf_cstr(&b), cases[i].want);
	}
	buf_reset(&b);
	assert_int_equal(backend_list(be, "", BACKEND_RECURSIVE, stop_entry, &b, NULL), 0);
	assert_string_equal(buf_cstr(&b), "_spanmill/commits/x ");
	assert_int_equal(backend_list(be, "t1", BACKEND_RECURSIVE, fail_entry, NULL, &err), -1);
	assert_string_equal(err.msg, "list t1: no t1/b1/data");
	buf_fini(&b);
}

static void members_are_listed(void **state)
{
	static const char *const keys[] = { "t/b1/meta.json", "t/b1/meta.json2", "t/b2/data",
					    "t/b3/meta.json", "t/meta.json",     "t/b4/x/meta.json",
					    "t2/b1/data" };
	struct buf b = BUF_INIT;

	for (size_t i = 0; i < COUNT_OF(keys); i++)
		put(*state, keys[i], BYTES_LIT("{}"));
	assert_int_equal(backend_list_members(*state, "t", "meta.json", join_entry, &b, NULL), 0);
	assert_string_equal(buf_cstr(&b), "t/b1/meta.json:2 t/b3/meta.json:2 ");
	buf_reset(&b);
	assert_int_equal(backend_list_members(*state, "t2", "meta.json", join_entry, &b, NULL), 0);
	assert_string_equal(buf_cstr(&b), "");
	buf_fini(&b);
}

static void lists_begin_behind_a_key(void **state)
{
	char key[32];
	struct buf b = BUF_INIT;

	/* More than a page, before and behind. */
	for (int i = 10; i < 30; i++) {
		snprintf(key, sizeof(key), "c/s/%d.json", i);
		put(*state, key, BYTES_LIT("{}"));
	}
	put(*state, "c/s/27.x/not/here", BYTES_LIT("{}"));
	put(*state, "c/t/99.json", BYTES_LIT("{}"));
	assert_int_equal(backend_list_after(*state, "c/s", "c/s/25.json", join_entry, &b, NULL), 0);
	assert_non_null(strstr(buf_cstr(&b), "c/s/26.json:2 "));
	assert_non_null(strstr(buf_cstr(&b), "c/s/29.json:2 "));
	assert_null(strstr(buf_cstr(&b), "c/s/25.json"));
	assert_null(strstr(buf_cstr(&b), "c/s/24.json"));
	assert_null(strstr(buf_cstr(&b), "99"));
	assert_null(strstr(buf_cstr(&b), "/not"));
	buf_reset(&b);
	/* A key that is not there is a place all the same. */
	assert_int_equal(backend_list_after(*state, "c/s", "c/s/28a", join_entry, &b, NULL), 0);
	assert_string_equal(buf_cstr(&b), "c/s/29.json:2 ");
	buf_reset(&b);
	assert_int_equal(backend_list_after(*state, "c/s", "c/s/9", join_entry, &b, NULL), 0);
	assert_string_equal(buf_cstr(&b), "");
	buf_fini(&b);
}

static void what_is_shown_may_be_deleted(void **state)
{
	struct backend *be = *state;
	char key[32];

	for (int i = 0; i < 20; i++) {
		snprintf(key, sizeof(key), "t/b%d/data", i);
		put(be, key, BYTES_LIT("x"));
	}
	assert_int_equal(count(be), 20);
	assert_int_equal(backend_list(be, "", BACKEND_RECURSIVE, delete_entry, be, NULL), 0);
	assert_int_equal(count(be), 0);
}

static int mtime_entry(void *arg, const struct backend_entry *e, struct err *err)
{
	(void)err;
	*(uint64_t *)arg = e->mtime_ns;
	return 0;
}

static void times_are_now(void **state)
{
	uint64_t mtime_ns = 0, now = clock_wall_ns();

	put(*state, "t/x", BYTES_LIT("x"));
	backend_list(*state, "t", BACKEND_ONE_LEVEL, mtime_entry, &mtime_ns, NULL);
	assert_true(mtime_ns + 60 * NS_PER_S > now && mtime_ns < now + 60 * NS_PER_S);
}

static void rename_never_replaces(void **state)
{
	struct backend *be = *state;
	struct err err = ERR_INIT;

	put(be, "t/b/meta.json", BYTES_LIT("live"));
	put(be, "t/c/meta.json", BYTES_LIT("other"));
	assert_int_equal(backend_rename(be, "t/b/meta.json", "t/b/meta.compacted.json", &err), 0);
	expect(be, "t/b/meta.compacted.json", "live");
	assert_int_equal(read_error(be, "t/b/meta.json", 10), ERR_NOT_FOUND);
	assert_int_equal(backend_rename(be, "t/b/meta.json", "t/b/meta.compacted.json", &err), -1);
	assert_int_equal(err.kind, ERR_NOT_FOUND);
	assert_int_equal(backend_rename(be, "t/c/meta.json", "t/b/meta.compacted.json", &err), -1);
	assert_int_equal(err.kind, ERR_EXISTS);
	expect(be, "t/c/meta.json", "other");
	expect(be, "t/b/meta.compacted.json", "live");
}

struct racer {
	pthread_t thread;
	struct backend *be;
	int no, won, failed;
};

/* All put the same keys; folders come and go meanwhile. */
static void *race(void *arg)
{
	struct racer *r = arg;
	struct err err = ERR_INIT;
	char key[64], text[16];

	for (int i = 0; i < 30; i++) {
		snprintf(key, sizeof(key), "commits/%d", i);
		snprintf(text, sizeof(text), "%d", r->no);
		if (backend_put(r->be, key, bytes_str(text), BACKEND_IF_NONE_MATCH, &err) == 0)
			r->won++;
		else if (err.kind != ERR_EXISTS)
			r->failed++;
		snprintf(key, sizeof(key), "x/y/%d", r->no);
		if (backend_put(r->be, key, bytes_str(text), BACKEND_REPLACE, &err) < 0 ||
		    backend_delete(r->be, key, &err) < 0) {
			printf("%s\n", err.msg);
			r->failed++;
		}
	}
	return NULL;
}

static void of_many_conditional_puts_one_wins(void **state)
{
	struct racer racers[6] = { 0 };
	int won = 0;

	for (int i = 0; i < 6; i++) {
		racers[i].be = *state;
		racers[i].no = i;
		assert_int_equal(pthread_create(&racers[i].thread, NULL, race, &racers[i]), 0);
	}
	for (int i = 0; i < 6; i++) {
		pthread_join(racers[i].thread, NULL);
		assert_int_equal(racers[i].failed, 0);
		won += racers[i].won;
	}
	assert_int_equal(won, 30);
	assert_int_equal(count(*state), 30);
}

/* Parts of a writer that was killed are dropped once they are old; those of a living one, and what
 * is no block's, are not. */
static void unfinished_uploads_are_swept(void **state)
{
	static const char *const keys[] = { "t/01234567-89ab-cdef-0123-456789abcdef/data",
					    "t/someone-elses/data" };
	uint64_t now = clock_wall_ns();
	struct backend_writer *w[2];
	struct backend *be = *state;
	uint8_t *p = xcalloc(1, 9 << 20);
	struct err err = ERR_INIT;
	size_t n = 7;

	for (int i = 0; i < 2; i++) {
		w[i] = backend_writer_open(be, keys[i], NULL);
		assert_int_equal(backend_writer_append(w[i], (struct bytes){ p, 9 << 20 }, NULL),
				 0);
	}
	if (backend_sweep_uploads(be, now - 3600 * NS_PER_S, &n, &err) < 0)
		fail_msg("%s", err.msg);
	assert_int_equal(n, 0);
	assert_int_equal(backend_sweep_uploads(be, now + 3600 * NS_PER_S, &n, NULL), 0);
	assert_true(n <= (backend_is_remote(be) ? 1 : 0));
	/* MinIO lists uploads of one whole key only (and drops old ones itself). */
	if (n == 0 && backend_is_remote(be))
		printf("this store does not list its uploads\n");
	backend_writer_abort(w[0]);
	assert_int_equal(backend_writer_finish(w[1], NULL), 0);
	assert_int_equal(backend_delete(be, keys[1], NULL), 0);
	free(p);
}

/* A block of one trace without its meta.json. */
static void write_block(struct backend *be, struct block_meta *m)
{
	struct block_writer *w = block_writer_open(be, "t", NULL, NULL, NULL);
	uint8_t id[16] = { 1, 2, 3 }, head[BLOCK_OBJECT_HEAD];
	struct bytes piece = { head, block_object_head(head, 1, 2, 0) };

	assert_non_null(w);
	assert_int_equal(block_writer_add(w, id, &piece, 1, NULL), 0);
	assert_int_equal(block_writer_finish(w, m, NULL), 0);
}

static bool has(struct backend *be, const struct block_meta *m, const char *name)
{
	char key[BACKEND_KEY_MAX + 1];
	uint64_t size;

	assert_int_equal(block_key(key, m->tenant, m->id, name, NULL), 0);
	return backend_size(be, key, &size, NULL) == 0;
}

/* The steps of a section, its attempts and what is left of them (blocks/section.h). */
/* A store's clock is known in whole seconds, its objects' times may be finer: what was written now
 * counts as old a second later. */
static void let_a_second_pass(struct backend *be)
{
	uint64_t size, until = backend_now_ns(be) + 2 * NS_PER_S;

	while (backend_is_remote(be) && backend_now_ns(be) < until) {
		usleep(100000);
		backend_size(be, "none", &size, NULL);
	}
}

static void sections_are_committed_followed_and_swept(void **state)
{
	enum { WON, LOST, COMPACTED, N };
	struct backend *be = *state;
	struct block_meta m[N];
	struct section_commit won = {
		.first = 1, .last = 9, .first_timestamp_ms = 5, .metas = &m[WON], .n_metas = 1
	};
	struct section_commit lost = {
		.first = 1, .last = 12, .first_timestamp_ms = 5, .metas = &m[LOST], .n_metas = 1
	};
	struct section_commit next = { .first = 13, .last = 20, .first_timestamp_ms = 6 };
	struct err err = ERR_INIT;
	uint64_t from = 0;
	size_t n = 0;

	for (int i = 0; i < N; i++)
		write_block(be, &m[i]);
	assert_int_equal(section_commit_put(be, "g/c a+b/t/0", &won, NULL), 0);
	assert_int_equal(section_commit_put(be, "g/c a+b/t/0", &lost, &err), -1);
	assert_int_equal(err.kind, ERR_EXISTS);
	assert_int_equal(section_publish(be, &m[COMPACTED], NULL), 1);
	assert_int_equal(block_mark_compacted(be, "t", m[COMPACTED].id, NULL), 0);
	assert_int_equal(section_publish(be, &m[COMPACTED], NULL), 0);
	/* Crashed here: whoever follows finishes it, also when it does so twice. */
	for (int i = 0; i < 2; i++) {
		if (section_follow(be, "g/c a+b/t/0", 1, NULL, NULL, &from, &err) < 0)
			fail_msg("%s", err.msg);
		assert_int_equal(from, 10);
	}
	assert_true(has(be, &m[WON], "meta.json"));
	let_a_second_pass(be);
	if (section_sweep_orphans(be, 0, &n, &err) < 0)
		fail_msg("%s", err.msg);
	assert_int_equal(n, 1);
	assert_false(has(be, &m[LOST], "data"));
	assert_true(has(be, &m[WON], "data") && has(be, &m[COMPACTED], "data"));
	assert_int_equal(section_commit_put(be, "g/c a+b/t/0", &next, NULL), 0);
	let_a_second_pass(be);
	assert_int_equal(section_sweep_commits(be, "g/c a+b/t/0", 20, 0, NULL), 0);
	assert_int_equal(section_follow(be, "g/c a+b/t/0", 13, NULL, NULL, &from, NULL), 0);
	assert_int_equal(from, 21);
	assert_int_equal(section_commit_read(be, "g/c a+b/t/0", 1, 5, &lost, &err), -1);
	assert_int_equal(err.kind, ERR_NOT_FOUND);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(put_replaces_or_not),
		TEST(conditional_puts_are_proved),
		TEST(a_writer_shows_nothing_until_finished),
		TEST(large_objects_are_whole),
		TEST(unfinished_uploads_are_swept),
		TEST(what_is_unchanged_is_not_read),
		TEST(ranges_are_whole_or_errors),
		TEST(keys_are_checked),
		TEST(odd_keys_survive),
		TEST(listings_are_complete),
		TEST(members_are_listed),
		TEST(lists_begin_behind_a_key),
		TEST(what_is_shown_may_be_deleted),
		TEST(times_are_now),
		TEST(rename_never_replaces),
		TEST(of_many_conditional_puts_one_wins),
		TEST(sections_are_committed_followed_and_swept),
	};

	if (getenv("SPANMILL_TEST_S3") == NULL)
		return cmocka_run_group_tests_name("backends: local", tests, NULL, NULL);
	open_backend = open_s3;
	return cmocka_run_group_tests_name("backends: s3", tests, NULL, NULL);
}
