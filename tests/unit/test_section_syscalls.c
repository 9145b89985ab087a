/* SPDX-License-Identifier: Apache-2.0
 *
 * test_section_syscalls.c - the blocks exporter's log, its commits and the local backend, with each
 * system call that changes a file failing (EIO, ENOSPC, a short write) or being the last one before
 * a kill -9: what was acknowledged is found after the restart, once, and nothing else is lost.
 *
 * SPANMILL_ALL_FAULTS=1 takes every call in turn, else a sample with a printed seed.
 */
#include "tests/unit/section_log_fixture.h"
#include "tests/unit/syscall_faults.h"

#include <sys/socket.h>

enum { REQUESTS = 12, SPANS = 5, SAMPLE = 12, START_FAILED = 3 };

/* In memory where there is such a place: what a disk really keeps is another test's matter. */
static struct fixture *fixture_new(void)
{
	char name[] = "/dev/shm/spanmill-test-XXXXXX";
	struct fixture *f;

	set_up_closed((void **)&f);
	if (mkdtemp(name) == NULL)
		return f;
	remove_tree(f->dir);
	free(f->dir);
	free(f->log_dir);
	f->dir = xstrdup(name);
	f->log_dir = xasprintf("%s/_log", f->dir);
	return f;
}

/* By send, which does not count as a call. */
static void tell_by_socket(struct sent *s)
{
	if (syscall(SYS_sendto, s->fd, &s->first, sizeof(s->first), 0, NULL, 0) != sizeof(s->first))
		_exit(1);
}

/* n requests were answered, one way or the other. */
static void wait_settled(uint64_t n)
{
	for (int i = 0; i < 60000 && n_acknowledged + n_refused < n * SPANS; i++)
		usleep(1000);
	assert(n_acknowledged + n_refused == n * SPANS);
}

static void send_some(struct fixture *f, int fd, uint64_t from, uint64_t to)
{
	struct test_span spans[SPANS];

	for (uint64_t r = from; r < to; r++) {
		for (uint64_t k = 0; k < SPANS; k++)
			spans[k] = plain_span(1 + r, 1 + r * SPANS + k);
		send_request(f->log, r % 3 == 2 ? "u" : "t", spans, SPANS, tell_by_socket, fd);
		if (r % 2)
			wait_settled(r + 1);
	}
	wait_settled(to);
}

static void wait_published(struct fixture *f)
{
	section_log_cut(f->log);
	/* After a failure it pauses; then the restart has to finish it. */
	for (int i = 0; i < 400 && !section_log_is_idle(f->log); i++)
		usleep(1000);
}

/* A life from start to stop. Exits. */
static void live(struct fixture *f, int fd)
{
	struct err err = ERR_INIT;

	f->be = backend_local_open(&(struct backend_local_options){ .path = f->dir }, &err);
	if (f->be == NULL)
		_exit(START_FAILED);
	f->store = store_new(&(struct store_options){
		.backend = f->be, .local_path = f->dir, .poll_ns = 20 * NS_PER_MS });
	f->o.store = f->store;
	f->o.dir = f->log_dir;
	f->o.budget = &f->budget;
	if (store_start(f->store, &err) < 0 || (f->log = section_log_start(&f->o, &err)) == NULL)
		_exit(START_FAILED);
	send_some(f, fd, 0, REQUESTS / 2);
	wait_published(f);
	usleep(60000); /* two polls: the log is freed */
	send_some(f, fd, REQUESTS / 2, REQUESTS);
	wait_published(f);
	section_log_stop(f->log);
	store_free(f->store);
	assert(ledger.in_flight == 0 &&
	       ledger.accepted == ledger.delivered + (uint64_t)ledger.held);
	_exit(0);
}

/* acked[r] for the requests whose answer came; returns the child's exit status. */
static int run_child(struct fixture *f, bool acked[REQUESTS], enum fault_mode mode, int error,
		     uint64_t first, uint64_t times)
{
	int fds[2], status;
	uint64_t span;
	pid_t pid;

	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, fds), 0);
	reset_counts();
	memset(&ledger, 0, sizeof(ledger));
	span_left_forget();
	pid = fork();
	if (pid == 0) {
		log_configure(LOG_ERROR + 1, LOG_CONSOLE);
		faults_arm(mode, error, first, times);
		live(f, fds[1]);
	}
	close(fds[1]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	while (recv(fds[0], &span, sizeof(span), 0) == sizeof(span))
		acked[(span - 1) / SPANS] = true;
	close(fds[0]);
	if (!WIFEXITED(status))
		fail_msg("call %llu, mode %d, errno %d: the process died of signal %d",
			 (unsigned long long)first, mode, error, WTERMSIG(status));
	return WEXITSTATUS(status);
}

static void check_all(struct fixture *f, const bool acked[REQUESTS], const char *what)
{
	struct found_spans found = { NULL, 0, 0, NULL };

	for (uint64_t r = 0; r < REQUESTS; r++) {
		find(f, r % 3 == 2 ? "u" : "t", 1 + r, &found);
		for (uint64_t k = 0; k < SPANS; k++) {
			size_t n = count_span(&found, 1 + r * SPANS + k);

			if (n > 1 || (acked[r] && n == 0))
				fail_msg("%s: request %llu %s, found %zu times", what,
					 (unsigned long long)r,
					 acked[r] ? "acknowledged" : "not acknowledged", n);
		}
	}
	found_reset(&found);
}

/* One fault, then a restart without: everything acknowledged is there, live and in blocks. */
static void strike(enum fault_mode mode, int error, uint64_t first, uint64_t times)
{
	bool acked[REQUESTS] = { false };
	struct fixture *f = fixture_new();
	char what[80];
	int status;

	snprintf(what, sizeof(what), "call %llu (%llu), mode %d, errno %d",
		 (unsigned long long)first, (unsigned long long)times, mode, error);
	status = run_child(f, acked, mode, error, first, times);
	if (status != 0 && status != START_FAILED && status != FAULT_CRASHED)
		fail_msg("%s: exit status %d", what, status);
	reset_counts();
	memset(&ledger, 0, sizeof(ledger));
	span_left_forget();
	open_store(f);
	open_log(f);
	check_all(f, acked, what);
	assert_true(flush(f));
	wait_retired(f);
	check_all(f, acked, what);
	tear_down((void **)&f);
}

/* How many calls a life makes. */
static uint64_t count_calls(void)
{
	bool acked[REQUESTS] = { false };
	uint64_t lo = 1, hi = 4096;
	struct fixture *f;

	/* The first call that a crash in its place cannot reach. */
	while (lo < hi) {
		uint64_t mid = lo + (hi - lo) / 2;

		f = fixture_new();
		if (run_child(f, acked, FAULT_CRASH, 0, mid, 1) == FAULT_CRASHED)
			lo = mid + 1;
		else
			hi = mid;
		remove_tree(f->dir);
		free(f->dir);
		free(f->log_dir);
		free(f);
	}
	return lo - 1;
}

static void strike_each(enum fault_mode mode, int error, uint64_t times)
{
	static uint64_t n_calls;
	uint64_t seed = 0, step, first;
	struct rng rng;

	if (n_calls == 0)
		n_calls = count_calls();
	rng_kernel(&seed, 4);
	if (getenv("SPANMILL_FAULT_SEED") != NULL)
		seed = strtoull(getenv("SPANMILL_FAULT_SEED"), NULL, 10);
	rng_seed(&rng, seed);
	step = getenv("SPANMILL_ALL_FAULTS") != NULL ? 1 : MAX(n_calls / SAMPLE, UINT64_C(1));
	first = 1 + rng_below(&rng, step);
	print_message("mode %d errno %d: calls %llu, %llu, ... of %llu\n", mode, error,
		      (unsigned long long)first, (unsigned long long)(first + step),
		      (unsigned long long)n_calls);
	for (; first <= n_calls; first += step)
		strike(mode, error, first, times);
}

static void killed_at_each_call(void **state)
{
	(void)state;
	strike_each(FAULT_CRASH, 0, 1);
}

static void each_call_fails_once(void **state)
{
	(void)state;
	strike_each(FAULT_ERRNO, EIO, 1);
	strike_each(FAULT_ERRNO, ENOSPC, 1);
}

/* A disk that stays full for a while: a run of calls fails. */
static void calls_fail_for_a_while(void **state)
{
	(void)state;
	strike_each(FAULT_ERRNO, ENOSPC, 12);
}

static void each_write_is_short(void **state)
{
	(void)state;
	strike_each(FAULT_SHORT, 0, 3);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(killed_at_each_call),
		cmocka_unit_test(each_call_fails_once),
		cmocka_unit_test(calls_fail_for_a_while),
		cmocka_unit_test(each_write_is_short),
	};

	log_configure(LOG_ERROR + 1, LOG_CONSOLE);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
