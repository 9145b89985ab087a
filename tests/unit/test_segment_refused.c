/* SPDX-License-Identifier: Apache-2.0
 *
 * test_segment_refused.c - the segment log on a disk that refuses to read for a while or for good,
 * and in a folder that somebody removes.
 *
 * The program's own pread and clock_gettime stand before the C library's.
 */
#include "tests/unit/segment_fixture.h"

#include <sys/syscall.h>

enum { N_RECORDS = 40, RECORD_SIZE = 3000, PAGE_SIZE = 4096 };

/* Reads that touch [refused_from, refused_to) of a segment fail; with `all` those of the small
 * files, too. */
static _Atomic uint64_t refused_from, refused_to, clock_offset_s;
static _Atomic bool all_refused;

static bool is_segment(int fd)
{
	char link[64], path[256];
	ssize_t n;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = readlink(link, path, sizeof(path) - 1);
	return n > 8 && memcmp(path + n - 8, ".segment", 8) == 0;
}

ssize_t pread(int fd, void *buf, size_t n, off_t off)
{
	uint64_t end = (uint64_t)off + n;
	bool refused = (uint64_t)off < refused_to && end > refused_from && is_segment(fd);

	if (refused || all_refused) {
		errno = EIO;
		return -1;
	}
	return syscall(SYS_pread64, fd, buf, n, off);
}

int clock_gettime(clockid_t id, struct timespec *ts)
{
	int rc = (int)syscall(SYS_clock_gettime, id, ts);

	ts->tv_sec += (time_t)clock_offset_s;
	return rc;
}

static void refuse(uint64_t from, uint64_t to, bool all)
{
	refused_from = from;
	refused_to = to;
	all_refused = all;
}

static struct segment_log *open_small(const char *name, struct segment_log_options *o)
{
	struct segment_log *log;

	*o = (struct segment_log_options){ .dir = scratch(name), .sync = true };
	log = open_log(o, NULL);
	for (uint64_t i = 0; i < N_RECORDS; i++)
		assert_int_equal(append_one(log, i, RECORD_SIZE, NULL), 0);
	return log;
}

static uint64_t lost_of(struct segment_log *log)
{
	struct segment_log_stats st;

	segment_log_stats(log, &st);
	return st.lost;
}

/* Read on until the end, or a "not now"; adds to *n. The last answer. */
static int read_on(struct segment_reader *r, unsigned *n, struct err *err)
{
	struct segment_record rec;
	int rc;

	while ((rc = segment_reader_next(r, &rec, err)) != 0 && !(rc < 0 && err->retryable))
		*n += rc == 1;
	return rc;
}

/* Nothing is given up while the disk gives nothing, however long that takes. */
static void a_disk_that_comes_back(void **state)
{
	struct segment_log_options o;
	struct segment_log *log = open_small("back", &o);
	struct segment_reader *r = segment_reader_new(log, 0);
	struct err err = ERR_INIT;
	unsigned n = 0;

	(void)state;
	refuse(0, UINT64_MAX, true);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(read_on(r, &n, &err), -1);
		assert_non_null(strstr(err.msg, "the disk refuses it"));
		clock_offset_s += 3600;
	}
	refuse(0, 0, false);
	assert_int_equal(read_on(r, &n, &err), 0);
	assert_int_equal(n, N_RECORDS);
	assert_int_equal(lost_of(log), 0);
	segment_reader_free(r);
	segment_log_close(log);
}

/* A page that stays away while the rest is there costs its records, after a while. */
static void a_page_that_is_gone(void **state)
{
	struct segment_log_options o;
	struct segment_log *log = open_small("page", &o);
	struct segment_reader *r = segment_reader_new(log, 0);
	struct err err = ERR_INIT;
	unsigned n = 0;

	(void)state;
	refuse(10 * PAGE_SIZE, 11 * PAGE_SIZE, false);
	assert_int_equal(read_on(r, &n, &err), -1);
	assert_in_range(n, 10, 13);
	assert_int_equal(read_on(r, &n, &err), -1);
	clock_offset_s += 60;
	assert_int_equal(read_on(r, &n, &err), 0);
	assert_in_range(lost_of(log), 1, 3);
	assert_int_equal(n + lost_of(log), N_RECORDS);
	refuse(0, 0, false);
	segment_reader_free(r);
	segment_log_close(log);
}

/* Opening is refused while the disk gives nothing; nothing is cut or moved. */
static void no_opening_without_the_disk(void **state)
{
	struct segment_log_options o;
	struct segment_log *log = open_small("open", &o);
	struct segment_log_found found;
	struct err err = ERR_INIT;

	(void)state;
	segment_log_close(log);
	refuse(0, UINT64_MAX, true);
	assert_null(segment_log_open(&o, NULL, &err));
	assert_non_null(strstr(err.msg, "Input/output error"));
	refuse(0, 0, false);
	log = open_log(&o, &found);
	assert_int_equal(found.records, N_RECORDS);
	assert_int_equal(found.lost + found.quarantined, 0);
	segment_log_close(log);
}

/* What lies behind a page that is refused at open is not cut off: it may be read another day. */
static void an_unreadable_tail_is_kept(void **state)
{
	struct segment_log_options o;
	struct segment_log *log = open_small("tail", &o);
	struct segment_log_found found;
	struct stat before, after;
	char path[256];

	(void)state;
	segment_log_close(log);
	segment_path(o.dir, 1, path);
	assert_int_equal(stat(path, &before), 0);
	refuse(20 * PAGE_SIZE, UINT64_MAX, false);
	log = open_log(&o, &found);
	refuse(0, 0, false);
	assert_in_range(found.records, 1, N_RECORDS - 1);
	assert_int_equal(append_one(log, 99, RECORD_SIZE, NULL), 0);
	segment_log_free_to(log, found.next_lsn);
	assert_int_equal(append_one(log, 100, RECORD_SIZE, NULL), 0);
	segment_log_close(log);
	snprintf(path, sizeof(path), "%s/quarantine/%020d.segment", o.dir, 1);
	assert_int_equal(stat(path, &after), 0);
	assert_int_equal(after.st_size, before.st_size);
}

/* What was said to be durable is in a file that has a name: rm -rf of the folder fails one append,
 * the next one is in a new folder. */
static void a_folder_that_is_removed(void **state)
{
	struct segment_log_options o;
	struct segment_log *log = open_small("gone", &o);
	struct segment_log_found found;
	struct err err = ERR_INIT;
	char id[40], cmd[200];

	(void)state;
	snprintf(id, sizeof(id), "%s", segment_log_id(log));
	snprintf(cmd, sizeof(cmd), "rm -rf '%s'", o.dir);
	assert_int_equal(system(cmd), 0);
	assert_int_equal(append_one(log, 50, RECORD_SIZE, &err), -1);
	assert_true(err.retryable);
	for (uint64_t i = 51; i < 55; i++)
		assert_int_equal(append_one(log, i, RECORD_SIZE, NULL), 0);
	assert_null(segment_log_open(&o, NULL, NULL)); /* it is locked as the old one was */
	segment_log_close(log);
	log = open_log(&o, &found);
	assert_int_equal(found.records, 4);
	assert_true(found.first_lsn > N_RECORDS);
	assert_string_equal(segment_log_id(log), id);
	segment_log_close(log);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_disk_that_comes_back),
		cmocka_unit_test(a_page_that_is_gone),
		cmocka_unit_test(no_opening_without_the_disk),
		cmocka_unit_test(an_unreadable_tail_is_kept),
		cmocka_unit_test(a_folder_that_is_removed),
	};

	log_configure(LOG_ERROR, LOG_CONSOLE);
	return cmocka_run_group_tests_name("segment_refused", tests, group_setup, group_teardown);
}
