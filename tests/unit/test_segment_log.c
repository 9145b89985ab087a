/* SPDX-License-Identifier: Apache-2.0
 *
 * test_segment_log.c - the segment log's life: append, read, free, limits, failing calls, full
 * disks.
 */
#include "tests/unit/segment_fixture.h"

/* ---- the plain life of a log ---- */

static void records_come_back(void **state)
{
	struct segment_log_options o = { .dir = scratch("plain"), .segment_bytes = 256 * KIB,
					 .sync = true };
	struct segment_log_found found;
	struct segment_log *log = open_log(&o, &found);
	struct item *it;
	struct buf b = BUF_INIT;
	struct err err = ERR_INIT;
	unsigned damages;
	char id[40];

	(void)state;
	assert_int_equal(found.next_lsn, 1);
	assert_int_equal(found.first_lsn, 1);
	snprintf(id, sizeof(id), "%s", segment_log_id(log));
	it = fill(log, 1000, 2000, 9000);
	for (size_t i = 0; i < 2000; i++) {
		assert_int_equal(it[i].a.lsn, i + 1);
		buf_reset(&b);
		assert_int_equal(segment_log_read(log, &it[i].a.position, &b, &err), 0);
		assert_int_equal(b.n, it[i].n);
		assert_memory_equal(b.p, it[i].payload, b.n);
	}
	assert_int_equal(drain(log, 0, &damages, NULL, NULL), 2000);
	assert_int_equal(drain(log, 1500, &damages, NULL, NULL), 501);
	assert_int_equal(damages, 0);
	segment_log_close(log);
	for (int verify = 0; verify < 2; verify++) {
		o.verify = verify;
		log = open_log(&o, &found);
		assert_string_equal(segment_log_id(log), id);
		assert_int_equal(found.records, 2000);
		assert_int_equal(found.next_lsn, 2001);
		assert_int_equal(found.lost + found.torn_bytes + found.quarantined, 0);
		assert_int_equal(drain(log, 0, &damages, NULL, NULL), 2000);
		buf_reset(&b);
		assert_int_equal(segment_log_read(log, &it[700].a.position, &b, &err), 0);
		assert_memory_equal(b.p, it[700].payload, b.n);
		segment_log_close(log);
	}
	buf_fini(&b);
	items_free(it, 2000);
}

static void freeing_survives_a_restart(void **state)
{
	struct segment_log_options o = { .dir = scratch("free"), .segment_bytes = 64 * KIB };
	struct segment_log_stats st, before;
	struct segment_log_found found;
	struct segment_log *log = open_log(&o, NULL);
	struct item *it = fill(log, 1, 1000, 3000);
	struct buf b = BUF_INIT;
	struct err err = ERR_INIT;
	unsigned damages;

	(void)state;
	segment_log_stats(log, &before);
	segment_log_free_to(log, 500);
	segment_log_free_to(log, 400);	/* backwards is ignored */
	segment_log_stats(log, &st);
	assert_true(st.bytes_on_disk < before.bytes_on_disk);
	assert_int_equal(st.records_held, 501);
	assert_int_equal(st.first_lsn, 500);
	assert_int_equal(segment_log_read(log, &it[0].a.position, &b, &err), -1);
	assert_int_equal(err.kind, ERR_NOT_FOUND);
	segment_log_close(log);
	log = open_log(&o, &found);
	assert_int_equal(found.first_lsn, 500);
	assert_int_equal(found.records, 501);
	assert_int_equal(drain(log, 0, &damages, NULL, NULL), 501);
	segment_log_free_to(log, UINT64_MAX);
	assert_int_equal(drain(log, 0, &damages, NULL, NULL), 0);
	segment_log_close(log);
	log = open_log(&o, &found);	/* an empty log goes on counting */
	assert_int_equal(found.next_lsn, 1001);
	assert_int_equal(found.records, 0);
	items_free(it, 1000);
	it = fill(log, 5000, 1, 100);
	assert_int_equal(it[0].a.lsn, 1001);
	segment_log_stats(log, &st);
	assert_int_equal(st.segments, 1);
	segment_log_close(log);
	items_free(it, 1);
	buf_fini(&b);
}

static void second_owner_is_told_the_pid(void **state)
{
	struct segment_log_options o = { .dir = scratch("lock") };
	struct segment_log *log = open_log(&o, NULL);
	struct err err = ERR_INIT;
	char want[256];

	(void)state;
	snprintf(want, sizeof(want), "segment log %s: in use by process %ld: stop it, or give "
		 "each a folder of its own", o.dir, (long)getpid());
	assert_null(segment_log_open(&o, NULL, &err));
	assert_int_equal(err.kind, ERR_EXISTS);
	assert_string_equal(err.msg, want);
	segment_log_close(log);
	log = open_log(&o, NULL);
	segment_log_close(log);
	segment_log_close(NULL);
}

static void limits_are_answered_at_once(void **state)
{
	struct segment_log_options o = { .dir = scratch("limits"), .max_bytes = 1 * MIB };
	struct segment_log *log = open_log(&o, NULL);
	struct item big, small;
	struct err err = ERR_INIT;

	(void)state;
	item_init(&big, 1, 300 * 1024);
	assert_int_equal(segment_log_append(log, &big.a, &err), -1);
	assert_int_equal(err.kind, ERR_TOO_LARGE);
	assert_false(err.retryable);
	free(big.payload);
	item_init(&small, 2, 0x4000);
	small.a.n_iov = 0;	/* an empty record is a record */
	assert_int_equal(segment_log_append(log, &small.a, &err), 0);
	assert_int_equal(segment_log_flush(log, &err), 0);
	assert_int_equal(small.a.lsn, 1);
	free(small.payload);
	segment_log_close(log);
}

/* ---- many threads, a tailing reader, a freeing consumer ---- */

struct crowd {
	struct segment_log *log;
	_Atomic uint64_t acked;
	_Atomic unsigned running;
	unsigned each;
	_Atomic unsigned number;
};

static void *crowd_main(void *arg)
{
	struct crowd *c = arg;
	unsigned me = atomic_fetch_add(&c->number, 1);
	struct err err = ERR_INIT;
	enum { WINDOW = 8 };
	struct item it[WINDOW];

	for (unsigned i = 0; i < c->each; i += WINDOW) {
		for (unsigned k = 0; k < WINDOW; k++) {
			uint64_t key = (uint64_t)(me + 1) << 32 | (i + k);

			item_init(&it[k], key, payload_length(key, 20000));
			while (segment_log_append(c->log, &it[k].a, &err) < 0)
				usleep(500);
		}
		for (unsigned k = 0; k < WINDOW; k++) {
			while (atomic_load(&it[k].state) == 0)
				usleep(50);
			assert(it[k].state == 1);
			free(it[k].payload);
			atomic_fetch_add(&c->acked, 1);
		}
	}
	atomic_fetch_sub(&c->running, 1);
	return NULL;
}

/* What a large record took is given back when there is nothing to read. */
static void a_reader_at_rest_holds_little(void **state)
{
	struct budget budget = BUDGET_INIT(1 * GIB);
	struct segment_log_options o = { .dir = scratch("rest"), .segment_bytes = 64 * MIB,
					 .sync = true, .budget = &budget };
	struct segment_log *log = open_log(&o, NULL);
	struct segment_reader *r = segment_reader_new(log, 0);
	struct segment_record rec;
	struct err err = ERR_INIT;

	(void)state;
	assert_int_equal(append_one(log, 1, 8 * MIB, &err), 0);
	assert_int_equal(segment_reader_next(r, &rec, &err), 1);
	assert_int_equal(rec.payload.n, 8 * MIB);
	assert_true(budget.used >= (int64_t)(8 * MIB));
	segment_reader_rest(r);
	assert_true(budget.used < (int64_t)MIB);
	assert_int_equal(append_one(log, 2, 100, &err), 0);
	assert_int_equal(segment_reader_next(r, &rec, &err), 1);
	assert_int_equal(rec.payload.n, 100);
	segment_reader_free(r);
	segment_log_close(log);
	assert_int_equal(budget.used, 0);
}

static void crowd_appends_while_one_reads_and_frees(void **state)
{
	struct budget budget = BUDGET_INIT(1 * GIB);
	struct segment_log_options o = { .dir = scratch("crowd"), .segment_bytes = 128 * KIB,
					 .max_bytes = 2 * MIB, .sync = true, .budget = &budget };
	struct segment_log *log = open_log(&o, NULL);
	enum { THREADS = 8, EACH = 400 };
	struct crowd c = { .log = log, .running = THREADS, .each = EACH };
	struct segment_reader *r = segment_reader_new(log, 0);
	struct segment_record rec;
	struct segment_log_stats st;
	struct err err = ERR_INIT;
	pthread_t t[THREADS];
	uint64_t seen = 0, key;

	(void)state;
	for (unsigned i = 0; i < THREADS; i++)
		pthread_create(&t[i], NULL, crowd_main, &c);
	while (seen < THREADS * EACH) {
		int rc = segment_reader_next(r, &rec, &err);

		assert_true(rc >= 0);
		if (rc == 0) {
			segment_log_wait(log, segment_reader_lsn(r), 50);
			continue;
		}
		assert_int_equal(rec.lsn, seen + 1);
		assert_true(payload_good(rec.payload, &key));
		seen++;
		if (seen % 50 == 0)
			segment_log_free_to(log, rec.lsn + 1);
		if (seen % 500 == 0) {
			segment_log_stats(log, &st);
			assert_true(st.bytes_on_disk <= o.max_bytes);
		}
	}
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(t[i], NULL);
	assert_int_equal(segment_reader_next(r, &rec, &err), 0);
	assert_int_equal(c.acked, THREADS * EACH);
	assert_int_equal(out_of_order, 0);
	segment_reader_free(r);
	segment_log_close(log);
	assert_int_equal(budget.used, 0);
}

/* ---- failing system calls ---- */

static struct {
	_Atomic int fail_write_at, fail_sync_at, fail_alloc_at;	/* n-th call from now; 0: never */
	_Atomic int error;
	_Atomic bool short_writes;
	_Atomic bool for_ever;
} fault;

static bool is_due(_Atomic int *counter)
{
	int n = atomic_load(counter);

	if (n == 0)
		return false;
	if (n > 1) {
		atomic_store(counter, n - 1);
		return false;
	}
	if (!fault.for_ever)
		atomic_store(counter, 0);
	errno = fault.error;
	return true;
}

static ssize_t fault_pwritev(int fd, const struct iovec *iov, int n, off_t off)
{
	struct iovec one = iov[0];

	if (is_due(&fault.fail_write_at)) {
		/* Half of it reaches the file first, as on a disk that fills up. */
		one.iov_len /= 2;
		if (pwritev(fd, &one, 1, off) < 0)
			return -1;
		errno = fault.error;
		return -1;
	}
	if (!fault.short_writes)
		return pwritev(fd, iov, n, off);
	one.iov_len = one.iov_len > 1 ? one.iov_len / 2 + 1 : one.iov_len;
	return pwritev(fd, &one, 1, off);
}

static int fault_fdatasync(int fd)
{
	return is_due(&fault.fail_sync_at) ? -1 : fdatasync(fd);
}

static int fault_fallocate(int fd, int mode, off_t off, off_t len)
{
	return is_due(&fault.fail_alloc_at) ? -1 : fallocate(fd, mode, off, len);
}

static const struct segment_io fault_io = { fault_pwritev, fault_fdatasync, fault_fallocate,
					    ftruncate };

static const struct {
	const char *name;
	int write_at, sync_at, alloc_at, error;
	bool short_writes;
	enum err_kind want;
} faults[] = {
	{ "short writes only", 0, 0, 0, 0, true, ERR_NONE },
	{ "first write ENOSPC", 1, 0, 0, ENOSPC, false, ERR_EXHAUSTED },
	{ "write ENOSPC in the middle", 7, 0, 0, ENOSPC, true, ERR_EXHAUSTED },
	{ "write EIO", 2, 0, 0, EIO, false, ERR_UNAVAILABLE },
	{ "write EDQUOT", 3, 0, 0, EDQUOT, true, ERR_EXHAUSTED },
	{ "first fdatasync EIO", 0, 1, 0, EIO, false, ERR_UNAVAILABLE },
	{ "later fdatasync EIO", 0, 3, 0, EIO, false, ERR_UNAVAILABLE },
	{ "fdatasync ENOSPC", 0, 2, 0, ENOSPC, false, ERR_EXHAUSTED },
	{ "fallocate ENOSPC once", 0, 0, 1, ENOSPC, false, ERR_NONE },
	{ "fallocate EOPNOTSUPP", 0, 0, 1, EOPNOTSUPP, false, ERR_NONE },
	{ "fallocate EIO", 0, 0, 1, EIO, false, ERR_UNAVAILABLE },
};

/* Append one by one under a fault; each is durable or failed whole, and the log goes on. */
static void run_fault(size_t f)
{
	struct segment_log_options o = { .dir = scratch("fault"), .segment_bytes = 64 * KIB,
					 .sync = true, .io = &fault_io };
	struct segment_log *log = open_log(&o, NULL);
	struct segment_log_found found;
	bool good[200] = { false };
	uint64_t n_good = 0, n_failed = 0;

	for (size_t i = 0; i < COUNT_OF(good); i++) {
		struct err err = ERR_INIT;

		if (i == 20 || (faults[f].alloc_at && i == 0)) {
			fault.error = faults[f].error;
			fault.fail_write_at = faults[f].write_at;
			fault.fail_sync_at = faults[f].sync_at;
			fault.fail_alloc_at = faults[f].alloc_at;
			fault.short_writes = faults[f].short_writes;
		}
		good[i] = append_one(log, i, payload_length(i, 3000), &err) == 0;
		if (!good[i] && strncmp(err.msg, "disk full", 9) == 0)
			usleep(20000);
		if (!good[i] && (err.kind != faults[f].want || !err.retryable))
			fail_msg("%s: %s", faults[f].name, err.msg);
		n_good += good[i];
		n_failed += !good[i];
	}
	memset(&fault, 0, sizeof(fault));
	if ((n_failed > 0) != (faults[f].want != ERR_NONE) || n_good < 100)
		fail_msg("%s: %d failed", faults[f].name, (int)n_failed);
	segment_log_close(log);
	log = open_log(&o, &found);
	assert_int_equal(found.records, n_good);
	{
		struct segment_reader *r = segment_reader_new(log, 0);
		struct segment_record rec;

		for (size_t i = 0; i < COUNT_OF(good); i++) {
			if (!good[i])
				continue;
			assert_int_equal(segment_reader_next(r, &rec, NULL), 1);
			assert_int_equal(load_le64(rec.payload.p), i);
		}
		assert_int_equal(segment_reader_next(r, &rec, NULL), 0);
		segment_reader_free(r);
	}
	segment_log_close(log);
}

static void failing_calls_tear_nothing(void **state)
{
	(void)state;
	for (size_t f = 0; f < COUNT_OF(faults); f++)
		run_fault(f);
}

/* ---- full disks ---- */

/* Fill until refused, free a part, and it goes on: with nothing but deletion. */
static void fill_until_full(struct segment_log_options *o, const char *want)
{
	struct segment_log *log = open_log(o, NULL);
	struct segment_log_found found;
	struct err err = ERR_INIT;
	uint64_t acked = 0, low = 1;
	unsigned damages;

	for (int cycle = 0; cycle < 6; cycle++) {
		int refused = 0, taken = 0;

		while (refused < 3) {
			if (append_one(log, acked + 1, 7000, &err) == 0) {
				acked++;
				taken++;
				continue;
			}
			refused++;
			assert_true(err.retryable);
			if (strstr(err.msg, want) == NULL)
				fail_msg("wanted '%s', got '%s'", want, err.msg);
		}
		if (taken < 5)
			fail_msg("cycle %d took %d records only: %s", cycle, taken, err.msg);
		assert_int_equal(drain(log, low, &damages, NULL, NULL), acked - (low - 1));
		assert_int_equal(damages, 0);
		if (cycle < 5) {
			low += (acked - low) * 9 / 10;
			segment_log_free_to(log, low);
			continue;
		}
		segment_log_free_to(log, UINT64_MAX);
		segment_log_close(log);
		log = open_log(o, &found);
		assert_int_equal(found.records, 0);
	}
	/* Once more round, after everything was freed. */
	for (int i = 0; i < 30; i++)
		if (append_one(log, 50000 + (uint64_t)i, 7000, &err) < 0)
			fail_msg("after freeing all: %s", err.msg);
	segment_log_close(log);
}

static void max_bytes_is_back_pressure(void **state)
{
	struct segment_log_options o = { .dir = scratch("maxbytes"), .max_bytes = 1 * MIB };

	(void)state;
	fill_until_full(&o, "log full");
}

static void small_tmpfs_is_back_pressure(void **state)
{
	struct segment_log_options o = { .dir = NULL, .sync = true };
	char dir[160], mnt[128];

	(void)state;
	snprintf(mnt, sizeof(mnt), "%s", scratch("tmpfs"));
	assert_int_equal(mkdir(mnt, 0700), 0);
	if (mount("tmpfs", mnt, "tmpfs", 0, "size=3m") < 0) {
		printf("skipped: cannot mount a tmpfs: %s\n", strerror(errno));
		return;
	}
	snprintf(dir, sizeof(dir), "%s/log", mnt);
	o.dir = dir;
	fill_until_full(&o, "disk full");
	umount(mnt);
}

/* In a child, because the limit cannot be raised again by everybody. */
static void file_size_limit_is_back_pressure(void **state)
{
	struct segment_log_options o = { .dir = scratch("fsize"), .sync = true };
	struct rlimit lim = { 512 * 1024, 512 * 1024 };
	int status = -1;
	pid_t pid;

	(void)state;
	fflush(stdout);
	pid = fork();
	if (pid == 0) {
		struct segment_log *log;
		struct item *it;

		log_configure(LOG_ERROR, LOG_CONSOLE);
		if (setrlimit(RLIMIT_FSIZE, &lim) < 0)
			_exit(3);
		log = segment_log_open(&o, NULL, NULL);
		if (log == NULL)
			_exit(4);
		it = fill(log, 1, 500, 9000);	/* smaller segments, no signal */
		items_free(it, 500);
		segment_log_close(log);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

/* ---- large records, opening time ---- */

static void large_records_pass(void **state)
{
	struct segment_log_options o = { .dir = scratch("large"), .segment_bytes = 1 * MIB };
	static const size_t sizes[] = { 100, 3 * MIB, 1 * MIB, 64 * MIB, 700000, 20 };
	struct segment_log *log = open_log(&o, NULL);
	struct segment_reader *r = NULL;
	struct segment_record rec;
	struct err err = ERR_INIT;
	uint8_t *p = xcalloc(1, 64 * MIB + 1);

	(void)state;
	for (size_t i = 0; i < 64 * MIB; i += 4096)
		store_le32(p + i, (uint32_t)i);
	for (int pass = 0; pass < 2; pass++) {
		for (size_t i = 0; i < COUNT_OF(sizes) && pass == 0; i++) {
			struct item it = { .a.done = item_done };
			/* In three pieces, one of them empty. */
			struct iovec iov[3] = { { p, 10 }, { p, 0 }, { p + 10, sizes[i] - 10 } };

			it.a.iov = iov;
			it.a.n_iov = 3;
			assert_int_equal(segment_log_append(log, &it.a, &err), 0);
			assert_int_equal(segment_log_flush(log, &err), 0);
		}
		r = segment_reader_new(log, 0);
		for (size_t i = 0; i < COUNT_OF(sizes); i++) {
			assert_int_equal(segment_reader_next(r, &rec, &err), 1);
			assert_int_equal(rec.payload.n, sizes[i]);
			assert_int_equal(memcmp(rec.payload.p, p, sizes[i]), 0);
		}
		assert_int_equal(segment_reader_next(r, &rec, &err), 0);
		segment_reader_free(r);
		segment_log_close(log);
		log = open_log(&o, NULL);
	}
	{
		struct item it = { .a.done = item_done };

		segment_append_bytes(&it.a, (struct bytes){ p, 64 * MIB + 1 });
		assert_int_equal(segment_log_append(log, &it.a, &err), -1);
		assert_int_equal(err.kind, ERR_TOO_LARGE);
	}
	segment_log_close(log);
	free(p);
}

/* ---- fsck ---- */

static void check_line(void *arg, const struct segment_check_line *line)
{
	(void)line;
	++*(int *)arg;
}

static void fsck_counts_without_touching(void **state)
{
	struct segment_log_options o = { .dir = scratch("fsck"), .segment_bytes = 64 * KIB };
	struct segment_log *log = open_log(&o, NULL);
	struct item *it = fill(log, 1, 300, 4000);
	struct segment_check_report rep;
	struct err err = ERR_INIT;
	char path[256];
	int lines = 0, fd;

	(void)state;
	assert_int_equal(segment_check(o.dir, NULL, NULL, NULL, &rep, &err), -1);
	assert_int_equal(err.kind, ERR_EXISTS);	/* an owner is alive */
	segment_log_close(log);
	assert_int_equal(segment_check(o.dir, check_line, NULL, &lines, &rep, &err), 0);
	assert_int_equal(rep.records, 300);
	assert_int_equal(rep.lost + rep.torn_bytes + rep.unreadable, 0);
	assert_int_equal(lines, rep.segments);
	segment_path(o.dir, 2, path);
	fd = open(path, O_RDWR);
	assert_int_equal(pwrite(fd, "xxxx", 4, it[0].a.position.offset + 200), 4);
	close(fd);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(segment_check(o.dir, NULL, NULL, NULL, &rep, &err), 0);
		assert_int_equal(rep.records + rep.lost, 300);
		assert_true(rep.lost == 1 || rep.lost == 2);
	}
	assert_int_equal(segment_check("/nonexistent/log", NULL, NULL, NULL, &rep, &err), -1);
	items_free(it, 300);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(records_come_back),
		cmocka_unit_test(freeing_survives_a_restart),
		cmocka_unit_test(second_owner_is_told_the_pid),
		cmocka_unit_test(limits_are_answered_at_once),
		cmocka_unit_test(a_reader_at_rest_holds_little),
		cmocka_unit_test(crowd_appends_while_one_reads_and_frees),
		cmocka_unit_test(failing_calls_tear_nothing),
		cmocka_unit_test(max_bytes_is_back_pressure),
		cmocka_unit_test(small_tmpfs_is_back_pressure),
		cmocka_unit_test(file_size_limit_is_back_pressure),
		cmocka_unit_test(large_records_pass),
		cmocka_unit_test(fsck_counts_without_touching),
	};

	log_configure(LOG_ERROR, LOG_CONSOLE);
	return cmocka_run_group_tests_name("segment_log", tests, group_setup, group_teardown);
}
