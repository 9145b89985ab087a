/* SPDX-License-Identifier: Apache-2.0
 *
 * test_backend_local.c - what is special to objects on a local disk: folders, hidden files, sweeps.
 * What every backend promises is in tests/contract/test_backends.c.
 */
#include "base/clock.h"
#include "base/mem.h"
#include "blocks/backend_local.h"

#include <fcntl.h>
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

static int mtime_entry(void *arg, const struct backend_entry *e, struct err *err)
{
	(void)err;
	*(uint64_t *)arg = e->mtime_ns;
	return 0;
}

static void folders_are_no_objects(void **state)
{
	struct backend *be = ((struct fixture *)*state)->be;

	backend_put(be, "a/b/c", BYTES_LIT("one"), BACKEND_REPLACE, NULL);
	assert_int_equal(read_error(be, "a/b", 4), ERR_NOT_FOUND);
	assert_int_equal(read_error(be, "a/b/c/d", 4), ERR_NOT_FOUND);
}

static void unfinished_files_are_hidden(void **state)
{
	static const char *const hidden[] = { "_spanmill/tmp", "_spanmill/tmp/x" };
	struct backend *be = ((struct fixture *)*state)->be;
	struct backend_writer *w = backend_writer_open(be, "w", NULL);
	struct buf b = BUF_INIT;

	for (size_t i = 0; i < COUNT_OF(hidden); i++) {
		struct err err = ERR_INIT;

		assert_int_equal(backend_put(be, hidden[i], BYTES_EMPTY, BACKEND_REPLACE, &err),
				 -1);
		assert_int_equal(err.kind, ERR_INVALID);
		assert_int_equal(read_error(be, hidden[i], 10), ERR_INVALID);
		assert_null(backend_writer_open(be, hidden[i], NULL));
	}
	assert_int_equal(
		backend_list(be, "_spanmill/tmp", BACKEND_ONE_LEVEL, join_entry, &b, NULL), 0);
	assert_int_equal(backend_list(be, "", BACKEND_RECURSIVE, join_entry, &b, NULL), 0);
	assert_string_equal(buf_cstr(&b), "");
	backend_writer_abort(w);
	buf_fini(&b);
}

/* A folder comes in the order of its names, also where whole keys would be ordered otherwise. */
static void listings_are_sorted_level_by_level(void **state)
{
	struct backend *be = ((struct fixture *)*state)->be;
	struct buf b = BUF_INIT;

	backend_put(be, "t-1/x", BYTES_LIT("abc"), BACKEND_REPLACE, NULL);
	backend_put(be, "t/b", BYTES_LIT("x"), BACKEND_REPLACE, NULL);
	backend_put(be, "t/a/y", BYTES_LIT("x"), BACKEND_REPLACE, NULL);
	assert_int_equal(backend_list(be, "", BACKEND_RECURSIVE, join_entry, &b, NULL), 0);
	assert_string_equal(buf_cstr(&b), "t/a/y:1 t/b:1 t-1/x:3 ");
	buf_fini(&b);
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
		TEST(folders_are_no_objects),
		TEST(unfinished_files_are_hidden),
		TEST(listings_are_sorted_level_by_level),
		TEST(members_are_listed),
		TEST(rename_sets_the_time),
		TEST(unfinished_files_are_swept_when_old),
		TEST(the_last_object_takes_its_folder_along),
		TEST(folders_that_cannot_be_are_named),
	};

	return cmocka_run_group_tests_name("backend_local", tests, NULL, NULL);
}
