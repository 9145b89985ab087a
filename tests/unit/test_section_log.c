/* SPDX-License-Identifier: Apache-2.0
 *
 * test_section_log.c - from acknowledgement to visible blocks: nothing lost, nothing twice, always
 * found; with threads, restarts and a store that fails.
 */
#include "tests/unit/section_log_fixture.h"

#include <poll.h>

/* ---- the tests ---- */

static void test_all_phases(void **state)
{
	struct fixture *f = *state;
	struct section_log_stats s;

	reset_counts();
	send_range(f, "t", 1, 200, 13);
	send_range(f, "u", 1, 100, 7);
	wait_acknowledged(300);
	check_range(f, "t", 1, 200, true);
	check_range(f, "u", 1, 100, true);
	check_books(300, 300);
	s = stats_of(f);
	assert_int_equal(s.live_spans, 300);
	assert_false(section_log_is_idle(f->log));
	assert_true(flush(f));
	assert_true(section_log_is_idle(f->log));
	check_books(300, 0);
	/* In blocks: the index is gone although the log still waits for other readers. */
	assert_int_equal(f->budget.used, 0);
	check_range(f, "t", 1, 200, true);
	check_range(f, "u", 1, 100, true);
	s = stats_of(f);
	assert_int_equal(s.blocks_written, 2);
	assert_int_equal(s.sections, 1);
	assert_int_equal(s.live_spans, 0);
	assert_int_equal(s.duplicates + s.conflicting + s.lost_spans + s.build_failures, 0);
	assert_true(flush(f)); /* of nothing */
	reopen(f);
	check_range(f, "t", 1, 200, true);
	assert_int_equal(stats_of(f).live_spans, 0);
}

static void test_cut_by_each_limit(void **state)
{
	static const struct {
		uint64_t bytes, traces, age_ns;
		int64_t budget;
	} cases[] = {
		{ 20000, 0, 3600 * NS_PER_S, 256 << 20 },
		{ 0, 20, 3600 * NS_PER_S, 256 << 20 },
		{ 0, 0, 50 * NS_PER_MS, 256 << 20 },
		{ 0, 0, 3600 * NS_PER_S, 40000 },
	};
	struct fixture *f = *state;

	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		close_all(f);
		f->o.max_block_bytes = cases[i].bytes;
		f->o.max_block_traces = cases[i].traces;
		f->o.max_block_age_ns = cases[i].age_ns;
		f->budget.limit = cases[i].budget;
		open_store(f);
		open_log(f);
		reset_counts();
		send_range(f, "t", 1 + i * 1000, 500, 10);
		wait_acknowledged(500);
		for (int k = 0; k < 60000 && stats_of(f).sections == 0; k++)
			usleep(1000);
		assert_true(stats_of(f).sections >= 1);
		check_range(f, "t", 1 + i * 1000, 500, false);
	}
	assert_true(flush(f));
	check_range(f, "t", 1, 500, false);
}

struct sender {
	struct fixture *f;
	const char *tenant;
	uint64_t first;
	size_t n;
	pthread_t thread;
};

static void *sender_main(void *arg)
{
	struct sender *s = arg;

	send_range(s->f, s->tenant, s->first, s->n, 5);
	return NULL;
}

/* Appends from several threads while sections are cut, published and retired all the time and a
 * reader looks: every acknowledged span is found at every moment. */
static void test_threads(void **state)
{
	enum { THREADS = 4, PER_THREAD = 1500 };
	struct fixture *f = *state;
	struct sender senders[THREADS];
	struct found_spans found = { NULL, 0, 0, NULL };
	struct rng rng;

	reset_counts();
	close_all(f);
	f->o.max_block_traces = 150;
	open_store(f);
	open_log(f);
	rng_seed(&rng, 3);
	for (size_t i = 0; i < THREADS; i++) {
		senders[i] = (struct sender){ f, i % 2 ? "u" : "t", 1 + i * 10000, PER_THREAD, 0 };
		pthread_create(&senders[i].thread, NULL, sender_main, &senders[i]);
	}
	for (int i = 0; i < 100; i++) {
		/* The log acknowledges in order: all of a sender's spans before one that is found.
		 */
		uint64_t last = 1 + rng_below(&rng, PER_THREAD);

		find(f, "t", last / 4, &found);
		if (found.n == 0)
			continue;
		find(f, "t", (1 + rng_below(&rng, last)) / 4, &found);
		assert_true(found.n > 0);
	}
	for (size_t i = 0; i < THREADS; i++)
		pthread_join(senders[i].thread, NULL);
	wait_acknowledged(THREADS * PER_THREAD);
	assert_true(flush(f));
	wait_retired(f);
	for (size_t i = 0; i < THREADS; i++)
		check_range(f, senders[i].tenant, senders[i].first, PER_THREAD, true);
	check_books(THREADS * PER_THREAD, 0);
	assert_true(stats_of(f).sections > 5);
	found_reset(&found);
}

/* What is not published survives the stop in the log, is found after the start, and is counted. */
static void test_restart_with_open_section(void **state)
{
	struct fixture *f = *state;

	reset_counts();
	send_range(f, "t", 1, 100, 9);
	wait_acknowledged(100);
	close_all(f);
	check_books(100, 100);
	memset(&ledger, 0, sizeof(ledger));
	span_left_forget();
	open_store(f);
	open_log(f);
	check_books(100, 100);
	check_range(f, "t", 1, 100, true);
	assert_true(flush(f));
	wait_retired(f);
	check_range(f, "t", 1, 100, true);
	check_books(100, 0);
}

/* The store fails at each kind of call, for some calls, or after having done them: what is
 * acknowledged stays, is found meanwhile, and ends in blocks exactly once. */
static void test_failing_store(void **state)
{
	static const struct faulty_rule rules[] = {
		{ FAULTY_WRITER, "/data", 2, false, ERR_IO },
		{ FAULTY_WRITER, "/data", 1, true, ERR_IO },
		{ FAULTY_PUT, "/index", 1, false, ERR_IO },
		{ FAULTY_PUT, "/bloom-", 1, true, ERR_TIMEOUT },
		{ FAULTY_PUT, "commits", 2, false, ERR_IO },
		{ FAULTY_PUT, "commits", 1, true, ERR_TIMEOUT },
		{ FAULTY_PUT, "meta.json", 2, false, ERR_UNAVAILABLE },
		{ FAULTY_PUT, "meta.json", 1, true, ERR_UNAVAILABLE },
		{ FAULTY_SIZE, "meta.compacted", 1, false, ERR_UNAVAILABLE },
	};
	struct fixture *f = *state;
	struct tally_blocks t;

	reset_counts();
	for (size_t i = 0; i < COUNT_OF(rules); i++) {
		uint64_t first = 1 + i * 100;

		faulty_set(f->be, rules[i]);
		send_range(f, "t", first, 40, 40);
		send_range(f, "u", first, 8, 8);
		wait_acknowledged((i + 1) * 48);
		assert_false(flush(f));
		check_range(f, "t", first, 40, false);
		for (int k = 0; k < 60000 && !section_log_is_idle(f->log); k++)
			usleep(1000);
		assert_true(section_log_is_idle(f->log));
		assert_int_equal(faulty_hits(f->be), rules[i].times);
		assert_string_equal(stats_of(f).last_error, "");
		check_books((i + 1) * 48, 0);
	}
	wait_retired(f);
	t = tally_backend(f->be);
	assert_int_equal(t.metas, 2 * COUNT_OF(rules));
	assert_int_equal(t.datas, 2 * COUNT_OF(rules));
	assert_int_equal(t.commits, COUNT_OF(rules));
	for (size_t i = 0; i < COUNT_OF(rules); i++)
		check_range(f, "t", 1 + i * 100, 40, true);
	reopen(f);
	for (size_t i = 0; i < COUNT_OF(rules); i++)
		check_range(f, "t", 1 + i * 100, 40, true);
}

/* A store that takes nothing for long: sections pile up in the log, none grows past its limit, stop
 * does not wait, and the next process works the backlog off. */
static void test_backlog(void **state)
{
	struct fixture *f = *state;
	uint64_t t0;

	reset_counts();
	close_all(f);
	f->o.max_block_traces = 25;
	open_store(f);
	open_log(f);
	faulty_set(f->be, (struct faulty_rule){ FAULTY_WRITER, NULL, -1, false, ERR_IO });
	send_range(f, "t", 1, 1000, 10);
	wait_acknowledged(1000);
	assert_false(flush(f));
	check_range(f, "t", 1, 1000, true);
	assert_int_equal(stats_of(f).live_spans, 1000);
	assert_true(stats_of(f).build_failures > 0);
	check_books(1000, 1000);
	t0 = clock_mono_ns();
	close_all(f);
	assert_true(clock_mono_ns() - t0 < 30 * NS_PER_S);
	/* A budget that could not hold the whole backlog's index and the builder at once. */
	f->budget.limit = 64 << 10;
	open_store(f);
	open_log(f);
	assert_true(flush(f));
	wait_retired(f);
	check_range(f, "t", 1, 1000, true);
	assert_in_range(stats_of(f).sections, 8, 100);
}

/* One request over the log's record limit is written in pieces. */
static void test_huge_batch(void **state)
{
	enum { N = 70 };
	struct fixture *f = *state;
	struct test_span spans[N];

	reset_counts();
	for (size_t i = 0; i < N; i++) {
		spans[i] = plain_span((i + 1) / 4, i + 1);
		spans[i].padding = 1 << 20;
	}
	send_request(f->log, "t", spans, N, NULL, 0);
	wait_acknowledged(N);
	assert_int_equal(n_permanent, 0);
	check_range(f, "t", 1, 4, true);
	check_range(f, "t", N - 3, 4, true);
	assert_true(flush(f));
	check_books(N, 0);
}

/* A batch of no spans is nobody's section. */
static void test_empty_batch(void **state)
{
	struct fixture *f = *state;

	section_log_append(f->log, make_batch("t", NULL, 0));
	assert_true(flush(f));
	assert_int_equal(stats_of(f).sections, 0);
	assert_int_equal(tally_backend(f->be).datas, 0);
}

static int flip_bytes(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	FILE *file;

	(void)st;
	(void)ftw;
	if (type != FTW_F || strstr(path, ".segment") == NULL)
		return 0;
	file = fopen(path, "r+b");
	assert_non_null(file);
	/* Enough to meet a span: what lies between them is not read from the log any more. */
	fseek(file, 2000, SEEK_SET);
	for (int i = 0; i < 60; i++)
		fputc(i % 2 ? 0xaa : 0x55, file);
	fclose(file);
	return 0;
}

/* A record damaged on disk between acknowledgement and build: it alone is lost, and counted. */
static void test_damaged_record(void **state)
{
	struct fixture *f = *state;
	struct section_log_stats s;

	reset_counts();
	send_range(f, "t", 1, 400, 4);
	wait_acknowledged(400);
	nftw(f->log_dir, flip_bytes, 4, FTW_PHYS);
	assert_true(flush(f));
	s = stats_of(f);
	assert_in_range(s.lost_spans, 1, 8);
	assert_int_equal(ledger.dropped[DROP_CORRUPT], s.lost_spans);
	assert_int_equal(ledger.delivered, 400 - s.lost_spans);
	assert_int_equal(ledger.held, 0);
}

/* ---- kill -9 ---- */

static void tell_parent(struct sent *s)
{
	uint64_t pair[2] = { s->first, s->n };

	if (write(s->fd, pair, sizeof(pair)) != sizeof(pair))
		_exit(1);
}

static void child_main(struct fixture *f, int fd, uint64_t round)
{
	struct test_span spans[8];
	uint64_t span = 1 + round * 1000000;

	log_configure(LOG_ERROR + 1, LOG_CONSOLE);
	open_store(f);
	open_log(f);
	for (;;) {
		for (size_t k = 0; k < COUNT_OF(spans); k++, span++)
			spans[k] = plain_span(span / 4, span);
		send_request(f->log, "t", spans, COUNT_OF(spans), tell_parent, fd);
		usleep(300);
	}
}

struct acked {
	uint64_t (*v)[2];
	size_t n, cap;
};

static void kill_round(struct fixture *f, struct acked *acked, struct rng *rng, uint64_t round)
{
	uint64_t pair[2];
	int fds[2], status;
	pid_t pid;

	assert_int_equal(pipe(fds), 0);
	pid = fork();
	if (pid == 0) {
		close(fds[0]);
		child_main(f, fds[1], round);
	}
	close(fds[1]);
	/* Some die while they start; the others have acknowledged something, however slow the
	 * machine is. */
	if (round % 4)
		poll(&(struct pollfd){ .fd = fds[0], .events = POLLIN }, 1, 20000);
	usleep((useconds_t)(10000 + rng_below(rng, 120000)));
	kill(pid, SIGKILL);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	while (read(fds[0], pair, sizeof(pair)) == sizeof(pair)) {
		acked->v = xgrow(acked->v, &acked->cap, acked->n + 1, sizeof(*acked->v));
		memcpy(acked->v[acked->n++], pair, sizeof(pair));
	}
	close(fds[0]);
}

/* Killed at random moments, sections every few milliseconds, steps of publishing drawn out: every
 * acknowledged span is found after the restart, and once. */
static void test_kill_at_any_point(void **state)
{
	enum { ROUNDS = 24 };
	struct fixture *f = *state;
	struct acked acked = { NULL, 0, 0 };
	struct tally_blocks t;
	uint64_t seed = 0;
	struct rng rng;

	rng_kernel(&seed, 4);
	print_message("seed %llu\n", (unsigned long long)seed);
	rng_seed(&rng, seed);
	f->o.max_block_age_ns = 5 * NS_PER_MS;
	for (uint64_t round = 0; round < ROUNDS; round++) {
		setenv("SPANMILL_TEST_STEP_DELAY_MS", round % 3 ? "3" : "0", 1);
		kill_round(f, &acked, &rng, round);
	}
	unsetenv("SPANMILL_TEST_STEP_DELAY_MS");
	reset_counts();
	open_store(f);
	open_log(f);
	assert_true(flush(f));
	wait_retired(f);
	assert_true(acked.n >= ROUNDS / 4 * 3);
	for (size_t i = 0; i < acked.n; i++)
		check_range(f, "t", acked.v[i][0], acked.v[i][1], true);
	t = tally_backend(f->be);
	print_message("%zu requests acknowledged, %zu commits, %zu blocks visible, %zu written\n",
		      acked.n, t.commits, t.metas, t.datas);
	free(acked.v);
}

/* The log forgot how far it had come (its cursor could not be written, or is gone, and its last
 * segment was emptied): new spans must not get positions that commits cover already. */
static void test_lost_cursor(void **state)
{
	struct fixture *f = *state;
	char *path;

	reset_counts();
	send_range(f, "t", 1, 200, 10);
	wait_acknowledged(200);
	assert_true(flush(f));
	wait_retired(f);
	close_all(f);
	path = xasprintf("%s/cursor", f->log_dir);
	assert_int_equal(unlink(path), 0);
	free(path);
	path = xasprintf("%s/00000000000000000001.segment", f->log_dir);
	assert_int_equal(truncate(path, 64), 0);
	free(path);
	for (int again = 0; again < 2; again++) {
		open_store(f);
		open_log(f);
		reset_counts();
		send_range(f, "t", 1001 + 100 * (uint64_t)again, 100, 10);
		wait_acknowledged(100);
		reopen(f);
		check_range(f, "t", 1, 200, true);
		check_range(f, "t", 1001, 100 + 100 * (size_t)again, true);
		assert_true(flush(f));
		check_range(f, "t", 1001, 100 + 100 * (size_t)again, true);
		close_all(f);
	}
	open_store(f);
	open_log(f);
}

/* A process that dies between its commit and the meta.json of the block, and starts on a disk that
 * has no room for it: it starts all the same, says why it is not ready, takes and finds spans, and
 * goes on by itself when there is room. */
static void test_start_on_a_full_disk(void **state)
{
	static const struct faulty_rule full = { FAULTY_PUT | FAULTY_WRITER, NULL, -1, false,
						 ERR_IO };
	struct fixture *f = *state;
	char why[256];

	reset_counts();
	faulty_set(f->be, (struct faulty_rule){ FAULTY_PUT, "meta.json", -1, false, ERR_IO });
	send_range(f, "t", 1, 40, 10);
	send_range(f, "u", 1, 40, 10);
	wait_acknowledged(80);
	assert_false(flush(f));
	close_all(f);
	assert_int_equal(ledger.held, 80);
	memset(&ledger, 0, sizeof(ledger)); /* another process */
	span_left_forget();
	open_store(f);
	faulty_set(f->be, full);
	open_log(f);
	assert_true(section_log_is_failing(f->log, why, sizeof(why)));
	assert_non_null(strstr(why, "following the commits of log"));
	/* Polls that see no meta.json do not take the committed blocks off the list. */
	for (int i = 0; i < 3; i++)
		assert_int_equal(store_refresh(f->store, NULL), 0);
	check_range(f, "t", 1, 40, true);
	send_range(f, "t", 1001, 40, 10);
	wait_acknowledged(120);
	assert_false(flush(f));
	check_range(f, "u", 1, 40, true);
	check_range(f, "t", 1001, 40, true);
	assert_int_equal(tally_backend(f->be).metas, 0);
	faulty_set(f->be, (struct faulty_rule){ .calls = 0 });
	for (int i = 0; i < 5000 && section_log_is_failing(f->log, why, sizeof(why)); i++)
		usleep(1000);
	assert_true(flush(f));
	assert_int_equal(tally_backend(f->be).metas, 3);
	check_books(40, 0);
	reopen(f);
	check_range(f, "t", 1, 40, true);
	check_range(f, "u", 1, 40, true);
	check_range(f, "t", 1001, 40, true);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		/* First: it forks, which the thread sanitizer allows while there are no threads. */
		cmocka_unit_test_setup_teardown(test_kill_at_any_point, set_up_closed, tear_down),
		TEST(test_all_phases),
		TEST(test_cut_by_each_limit),
		TEST(test_threads),
		TEST(test_restart_with_open_section),
		TEST(test_failing_store),
		TEST(test_backlog),
		TEST(test_huge_batch),
		TEST(test_empty_batch),
		TEST(test_damaged_record),
		TEST(test_lost_cursor),
		TEST(test_start_on_a_full_disk),
	};

	log_configure(LOG_ERROR + 1, LOG_CONSOLE);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
