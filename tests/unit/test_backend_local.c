/* SPDX-License-Identifier: Apache-2.0
 *
 * test_backend_local.c - objects on a local disk: atomicity, conditions, listings, sweeping, races.
 */
#include "base/clock.h"
#include "base/mem.h"
#include "blocks/backend_local.h"

#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

struct fixture {
	char path[64];
	struct backend *be;
};

static int setup(void **state)
{
	struct fixture *f = xcalloc(1, sizeof(*f));
	struct backend_local_options o = { .path = f->path };
	const char *tmp = getenv("TMPDIR");

	snprintf(f->path, sizeof(f->path), "%.40s/backend-XXXXXX", tmp ? tmp : "/tmp");
	if (mkdtemp(f->path) == NULL)
		return -1;
	f->be = backend_local_open(&o, NULL);
	*state = f;
	return f->be == NULL ? -1 : 0;
}

static int delete_entry(void *arg, const struct backend_entry *e, struct err *err)
{
	return backend_delete(arg, e->key, err);
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	char tmp[128];

	backend_list(f->be, "", BACKEND_RECURSIVE, delete_entry, f->be, NULL);
	backend_free(f->be);
	snprintf(tmp, sizeof(tmp), "%s/_spanmill/tmp", f->path);
	rmdir(tmp);
	snprintf(tmp, sizeof(tmp), "%s/_spanmill", f->path);
	rmdir(tmp);
	/* Nothing may be left over. */
	if (rmdir(f->path) < 0)
		return -1;
	free(f);
	return 0;
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
	buf_fini(&b);
	return err.kind;
}

static void put_replaces_or_not(void **state)
{
	struct backend *be = ((struct fixture *)*state)->be;
	struct err err = ERR_INIT;

	assert_int_equal(read_error(be, "a/b/c", 10), ERR_NOT_FOUND);
	assert_int_equal(backend_put(be, "a/b/c", BYTES_LIT("one"), BACKEND_IF_NONE_MATCH, &err),
			 0);
	assert_int_equal(backend_put(be, "a/b/c", BYTES_LIT("two"), BACKEND_IF_NONE_MATCH, &err),
			 -1);
	assert_int_equal(err.kind, ERR_EXISTS);
	expect(be, "a/b/c", "one");
	assert_int_equal(backend_put(be, "a/b/c", BYTES_LIT("three"), BACKEND_REPLACE, &err), 0);
	expect(be, "a/b/c", "three");
	assert_int_equal(read_error(be, "a/b/c", 4), ERR_TOO_LARGE);
	assert_int_equal(read_error(be, "a/b", 4), ERR_NOT_FOUND);
	assert_int_equal(read_error(be, "a/b/c/d", 4), ERR_NOT_FOUND);
	assert_int_equal(backend_put(be, "empty", BYTES_EMPTY, BACKEND_REPLACE, &err), 0);
	expect(be, "empty", "");
	assert_int_equal(backend_delete(be, "a/b/c", &err), 0);
	assert_int_equal(backend_delete(be, "a/b/c", &err), 0);
	assert_int_equal(backend_delete(be, "a/x/y", &err), 0);
	assert_int_equal(read_error(be, "a/b/c", 10), ERR_NOT_FOUND);
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

static void a_writer_shows_nothing_until_finished(void **state)
{
	struct backend *be = ((struct fixture *)*state)->be;
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
}

static void ranges_are_whole_or_errors(void **state)
{
	static const struct {
		uint64_t off;
		size_t len;
		const char *want;
	} cases[] = {
		{ 0, 10, "0123456789" }, { 3, 4, "3456" },
		{ 9, 1, "9" },           { 10, 0, "" },
		{ 0, 11, NULL },         { 10, 1, NULL },
		{ 11, 0, "" },           { UINT64_MAX, 2, NULL },
		{ 1, SIZE_MAX, NULL },   { 0, SIZE_MAX / 2, NULL },
	};
	struct backend *be = ((struct fixture *)*state)->be;
	uint64_t size = 0;

	assert_int_equal(backend_put(be, "r", BYTES_LIT("0123456789"), BACKEND_REPLACE, NULL), 0);
	assert_int_equal(backend_size(be, "r", &size, NULL), 0);
	assert_int_equal(size, 10);
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		struct buf b = BUF_INIT;
		struct err err = ERR_INIT;
		int ret = backend_read_range(be, "r", cases[i].off, cases[i].len, &b, &err);

		if ((ret == 0) != (cases[i].want != NULL))
			fail_msg("case %zu: %d %s", i, ret, err.msg);
		if (ret < 0)
			assert_int_equal(err.kind, ERR_CORRUPT);
		else
			assert_string_equal(buf_cstr(&b), cases[i].want);
		buf_fini(&b);
	}
	assert_int_equal(backend_size(be, "none", &size, NULL), -1);
}

static void keys_are_checked(void **state)
{
	static const char *const bad[] = { "",
					   "/a",
					   "a/",
					   "a//b",
					   ".",
					   "..",
					   "a/../b",
					   "a/./b",
					   "a\\b",
					   "a\nb",
					   "a/\x7f",
					   "_spanmill/tmp",
					   "_spanmill/tmp/x" };
	struct backend *be = ((struct fixture *)*state)->be;
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

static void listings_are_sorted_and_complete(void **state)
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
		{ "_spanmill/tmp", BACKEND_ONE_LEVEL, "" },
		{ "none", BACKEND_RECURSIVE, "" },
		{ "t1/b1/data", BACKEND_ONE_LEVEL, "" },
	};
	struct backend *be = ((struct fixture *)*state)->be;
	struct buf b = BUF_INIT;
	struct err err = ERR_INIT;

	backend_put(be, "top", BYTES_LIT("abc"), BACKEND_REPLACE, NULL);
	backend_put(be, "t2/b1/data", BYTES_LIT("x"), BACKEND_REPLACE, NULL);
	backend_put(be, "t1/b2/data", BYTES_EMPTY, BACKEND_REPLACE, NULL);
	backend_put(be, "t1/b1/meta.json", BYTES_LIT("{}"), BACKEND_REPLACE, NULL);
	backend_put(be, "t1/b1/data", BYTES_LIT("abcd"), BACKEND_REPLACE, NULL);
	backend_put(be, "_spanmill/commits/x", BYTES_LIT("c"), BACKEND_REPLACE, NULL);
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		buf_reset(&b);
		assert_int_equal(
			backend_list(be, cases[i].folder, cases[i].mode, join_entry, &b, NULL), 0);
		assert_string_equal(buf_cstr(&b), cases[i].want);
	}
	buf_reset(&b);
	assert_int_equal(backend_list(be, "", BACKEND_RECURSIVE, stop_entry, &b, NULL), 0);
	assert_string_equal(buf_cstr(&b), "_spanmill/commits/x ");
	assert_int_equal(backend_list(be, "t1", BACKEND_RECURSIVE, fail_entry, NULL, &err), -1);
	assert_string_equal(err.msg, "list t1: no t1/b1/data");
	buf_fini(&b);
}

/* The backend's own way and the one made of a recursive list say the same. */
static void members_are_listed(void **state)
{
	static const struct {
		const char *folder, *want;
	} cases[] = {
		{ "t1", "t1/b1/meta.json:2 t1/b3/meta.json:0 " },
		{ "t2", "" },
		{ "none", "" },
		{ "_spanmill/tmp", "" },
	};
	struct backend *be = ((struct fixture *)*state)->be;
	const struct backend_ops *own = be->ops;
	struct backend_ops plain = *own;
	struct buf b = BUF_INIT;
	struct err err = ERR_INIT;

	assert_non_null(own->list_members);
	plain.list_members = NULL;
	backend_put(be, "t1/b1/meta.json", BYTES_LIT("{}"), BACKEND_REPLACE, NULL);
	backend_put(be, "t1/b1/meta.json2", BYTES_LIT("{}"), BACKEND_REPLACE, NULL);
	backend_put(be, "t1/b2/data", BYTES_LIT("abcd"), BACKEND_REPLACE, NULL);
	backend_put(be, "t1/b3/meta.json", BYTES_EMPTY, BACKEND_REPLACE, NULL);
	backend_put(be, "t1/meta.json", BYTES_LIT("{}"), BACKEND_REPLACE, NULL);
	backend_put(be, "t1/b4/x/meta.json", BYTES_LIT("{}"), BACKEND_REPLACE, NULL);
	backend_put(be, "t1/b5/meta.json/x", BYTES_LIT("{}"), BACKEND_REPLACE, NULL);
	backend_put(be, "t2/b1/data", BYTES_LIT("x"), BACKEND_REPLACE, NULL);
	for (size_t i = 0; i < 2 * COUNT_OF(cases); i++) {
		be->ops = i % 2 ? &plain : own;
		buf_reset(&b);
		assert_int_equal(backend_list_members(be, cases[i / 2].folder, "meta.json",
						      join_entry, &b, NULL),
				 0);
		assert_string_equal(buf_cstr(&b), cases[i / 2].want);
		buf_reset(&b);
		assert_int_equal(backend_list_members(be, "t1", "meta.json", stop_entry, &b, NULL),
				 0);
		assert_string_equal(buf_cstr(&b), "t1/b1/meta.json ");
		assert_int_equal(
			backend_list_members(be, "t1", "meta.json", fail_entry, NULL, &err), -1);
		assert_string_equal(err.msg, "list t1: no t1/b1/meta.json");
		assert_int_equal(
			backend_list_members(be, "t1/..", "meta.json", join_entry, &b, &err), -1);
	}
	be->ops = own;
	buf_fini(&b);
}

static void rename_never_replaces(void **state)
{
	struct backend *be = ((struct fixture *)*state)->be;
	struct err err = ERR_INIT;

	backend_put(be, "t/b/meta.json", BYTES_LIT("live"), BACKEND_REPLACE, NULL);
	backend_put(be, "t/c/meta.json", BYTES_LIT("other"), BACKEND_REPLACE, NULL);
	assert_int_equal(backend_rename(be, "t/b/meta.json", "t/b/meta.compacted.json", &err), 0);
	expect(be, "t/b/meta.compacted.json", "live");
	assert_int_equal(backend_rename(be, "t/b/meta.json", "t/b/meta.compacted.json", &err), -1);
	assert_int_equal(err.kind, ERR_NOT_FOUND);
	assert_int_equal(backend_rename(be, "t/c/meta.json", "t/b/meta.compacted.json", &err), -1);
	assert_int_equal(err.kind, ERR_EXISTS);
	expect(be, "t/c/meta.json", "other");
	expect(be, "t/b/meta.compacted.json", "live");
}

static int mtime_entry(void *arg, const struct backend_entry *e, struct err *err)
{
	(void)err;
	*(uint64_t *)arg = e->mtime_ns;
	return 0;
}

static void rename_sets_the_time(void **state)
{
	struct fixture *f = *state;
	struct timespec old[2] = { { 1000, 0 }, { 1000, 0 } };
	uint64_t mtime_ns = 0;
	char path[128];

	backend_put(f->be, "t/meta.json", BYTES_LIT("x"), BACKEND_REPLACE, NULL);
	snprintf(path, sizeof(path), "%s/t/meta.json", f->path);
	assert_int_equal(utimensat(AT_FDCWD, path, old, 0), 0);
	assert_int_equal(backend_rename(f->be, "t/meta.json", "t/meta.compacted.json", NULL), 0);
	backend_list(f->be, "t", BACKEND_ONE_LEVEL, mtime_entry, &mtime_ns, NULL);
	assert_true(mtime_ns + 60 * NS_PER_S > clock_wall_ns());
}

static void unfinished_files_are_swept_when_old(void **state)
{
	struct fixture *f = *state;
	struct backend_local_options o = { .path = f->path, .grace_s = 100 };
	struct timespec old[2] = { { 1000, 0 }, { 1000, 0 } };
	struct backend_writer *w = backend_writer_open(f->be, "w", NULL);
	struct backend *again = NULL;
	char path[128];

	snprintf(path, sizeof(path), "%s/_spanmill/tmp/left", f->path);
	int fd = open(path, O_CREAT | O_WRONLY, 0600);
	assert_true(fd >= 0);
	assert_int_equal(futimens(fd, old), 0);
	close(fd);
	again = backend_local_open(&o, NULL);
	assert_non_null(again);
	assert_int_equal(access(path, F_OK), -1);
	backend_free(again);
	assert_int_equal(backend_writer_append(w, BYTES_LIT("kept"), NULL), 0);
	assert_int_equal(backend_writer_finish(w, NULL), 0);
	expect(f->be, "w", "kept");
}

static void the_last_object_takes_its_folder_along(void **state)
{
	struct fixture *f = *state;
	char path[128];

	backend_put(f->be, "t/b/data", BYTES_LIT("x"), BACKEND_REPLACE, NULL);
	backend_put(f->be, "t/b/index", BYTES_LIT("x"), BACKEND_REPLACE, NULL);
	snprintf(path, sizeof(path), "%s/t", f->path);
	assert_int_equal(backend_delete(f->be, "t/b/data", NULL), 0);
	assert_int_equal(access(path, F_OK), 0);
	assert_int_equal(backend_delete(f->be, "t/b/index", NULL), 0);
	assert_int_equal(access(path, F_OK), -1);
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
	struct backend *be = ((struct fixture *)*state)->be;
	struct racer racers[6] = { 0 };
	int won = 0;

	for (int i = 0; i < 6; i++) {
		racers[i].be = be;
		racers[i].no = i;
		assert_int_equal(pthread_create(&racers[i].thread, NULL, race, &racers[i]), 0);
	}
	for (int i = 0; i < 6; i++) {
		pthread_join(racers[i].thread, NULL);
		assert_int_equal(racers[i].failed, 0);
		won += racers[i].won;
	}
	assert_int_equal(won, 30);
	assert_int_equal(count(be), 30);
}

static void folders_that_cannot_be_are_named(void **state)
{
	struct fixture *f = *state;
	struct backend_local_options o = { .path = NULL };
	struct err err = ERR_INIT;
	char path[128];

	assert_null(backend_local_open(&o, &err));
	backend_put(f->be, "file", BYTES_LIT("x"), BACKEND_REPLACE, NULL);
	snprintf(path, sizeof(path), "%s/file/sub", f->path);
	o.path = path;
	assert_null(backend_local_open(&o, &err));
	assert_non_null(strstr(err.msg, path));
	assert_int_equal(backend_put(f->be, "file/sub", BYTES_LIT("x"), BACKEND_REPLACE, &err), -1);
	assert_non_null(strstr(err.msg, "put file/sub"));
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(put_replaces_or_not),
		TEST(a_writer_shows_nothing_until_finished),
		TEST(ranges_are_whole_or_errors),
		TEST(keys_are_checked),
		TEST(listings_are_sorted_and_complete),
		TEST(members_are_listed),
		TEST(rename_never_replaces),
		TEST(rename_sets_the_time),
		TEST(unfinished_files_are_swept_when_old),
		TEST(the_last_object_takes_its_folder_along),
		TEST(of_many_conditional_puts_one_wins),
		TEST(folders_that_cannot_be_are_named),
	};

	return cmocka_run_group_tests_name("backend_local", tests, NULL, NULL);
}
