/* SPDX-License-Identifier: Apache-2.0
 *
 * test_loop.c - net/loop and net/listen: posting order across threads, timers, stop, addresses.
 */
#include "base/clock.h"
#include "net/listen.h"
#include "net/loop.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/un.h>
#include <unistd.h>

enum { N_THREADS = 4, N_TASKS = 2000 };

struct poster {
	struct loop *loop;
	pthread_t thread;
	struct loop_task tasks[N_TASKS];
	unsigned next; /* loop's thread: the task that must come next */
	bool out_of_order;
};

static struct poster posters[N_THREADS];

static void count_task(void *arg)
{
	struct loop_task *t = arg;

	for (size_t i = 0; i < N_THREADS; i++) {
		struct poster *p = &posters[i];

		if (t < p->tasks || t >= p->tasks + N_TASKS)
			continue;
		if ((size_t)(t - p->tasks) != p->next++)
			p->out_of_order = true;
		if (!loop_is_current(p->loop))
			p->out_of_order = true;
	}
}

static void *post_all(void *arg)
{
	struct poster *p = arg;

	for (size_t i = 0; i < N_TASKS; i++) {
		p->tasks[i] = (struct loop_task){ count_task, &p->tasks[i], NULL };
		loop_post(p->loop, &p->tasks[i]);
	}
	return NULL;
}

static void tasks_of_one_thread_run_in_order(void **state)
{
	struct loop *l = loop_new(0, NULL);

	(void)state;
	assert_int_equal(loop_start(l, NULL), 0);
	for (size_t i = 0; i < N_THREADS; i++) {
		posters[i].loop = l;
		pthread_create(&posters[i].thread, NULL, post_all, &posters[i]);
	}
	for (size_t i = 0; i < N_THREADS; i++)
		pthread_join(posters[i].thread, NULL);
	loop_stop(l);
	for (size_t i = 0; i < N_THREADS; i++) {
		assert_int_equal(posters[i].next, N_TASKS);
		assert_false(posters[i].out_of_order);
	}
	assert_false(loop_is_current(l));
	loop_free(l);
}

struct chain {
	struct loop *loop;
	struct loop_task task;
	int left;
};

static void post_again(void *arg)
{
	struct chain *c = arg;

	if (--c->left > 0)
		loop_post(c->loop, &c->task);
}

static void stop_runs_what_tasks_post(void **state)
{
	struct loop *l = loop_new(1, NULL);
	struct chain c = { l, { post_again, &c, NULL }, 100 };
	struct chain late = { l, { post_again, &late, NULL }, 3 };

	(void)state;
	loop_start(l, NULL);
	loop_post(l, &c.task);
	loop_stop(l);
	assert_int_equal(c.left, 0);
	loop_post(l, &late.task);
	loop_free(l);
	assert_int_equal(late.left, 0);
}

struct ring {
	struct loop *loop;
	struct loop_timer timers[64];
	int order[64];
	int n;
	uint64_t start_ns, last_ns;
};

static struct ring ring;

static void rang(void *arg)
{
	struct loop_timer *t = arg;

	ring.order[ring.n++] = (int)(t - ring.timers);
	ring.last_ns = clock_mono_ns();
	assert_false(loop_timer_is_active(t));
}

/* Timer i is due in (i * 37 % 64) ms; every third is stopped, every fifth restarted later. */
static void set_timers(void *arg)
{
	(void)arg;
	ring.start_ns = clock_mono_ns();
	for (size_t i = 0; i < 64; i++) {
		ring.timers[i] = (struct loop_timer){ .fn = rang, .arg = &ring.timers[i] };
		loop_timer_start(ring.loop, &ring.timers[i], i * 37 % 64);
	}
	for (size_t i = 0; i < 64; i += 3)
		loop_timer_stop(ring.loop, &ring.timers[i]);
	for (size_t i = 0; i < 64; i += 5)
		loop_timer_start(ring.loop, &ring.timers[i], 100 + i);
}

static void ask_rung(void *n)
{
	*(int *)n = ring.n;
}

static void timers_ring_once_in_order(void **state)
{
	int want = 0, n = 0, i;

	(void)state;
	for (i = 0; i < 64; i++)
		want += i % 3 != 0 || i % 5 == 0;
	ring.loop = loop_new(2, NULL);
	loop_start(ring.loop, NULL);
	loop_call(ring.loop, set_timers, NULL);
	for (i = 0; i < 6000 && n < want; i++) {
		usleep(10000);
		loop_call(ring.loop, ask_rung, &n);
	}
	usleep(50000); /* and none rings twice */
	loop_stop(ring.loop);
	assert_int_equal(ring.n, want);
	for (i = 1; i < ring.n; i++)
		assert_true(ring.timers[ring.order[i]].due_ms >=
			    ring.timers[ring.order[i - 1]].due_ms);
	assert_true(ring.last_ns - ring.start_ns >= 160 * NS_PER_MS);
	loop_free(ring.loop);
}

static void call_waits_for_its_end(void **state)
{
	struct chain c = { NULL, { 0 }, 2 };
	struct loop *l = loop_new(3, NULL);

	(void)state;
	c.loop = l;
	c.task = (struct loop_task){ post_again, &c, NULL };
	loop_call(l, post_again, &c); /* not started: here and now */
	assert_int_equal(c.left, 1);
	loop_turn(l);
	assert_int_equal(c.left, 0);
	loop_start(l, NULL);
	c.left = 1;
	loop_call(l, post_again, &c);
	assert_int_equal(c.left, 0);
	loop_stop(l);
	loop_free(l);
	loop_free(NULL);
}

static const struct {
	const char *in, *host;
	int port; /* -1: refused */
	bool is_unix;
} endpoints[] = {
	{ "localhost:4317", "localhost", 4317, false },
	{ "0.0.0.0:0", "0.0.0.0", 0, false },
	{ ":4318", "", 4318, false },
	{ "[::1]:65535", "::1", 65535, false },
	{ "unix:///run/x.sock", "/run/x.sock", 0, true },
	{ "unix:x.sock", "x.sock", 0, true },
	{ "/run/x.sock", "/run/x.sock", 0, true },
	{ "localhost", "", -1, false },
	{ "", "", -1, false },
	{ "localhost:", "", -1, false },
	{ "localhost:65536", "", -1, false },
	{ "localhost:-1", "", -1, false },
	{ "localhost:grpc", "", -1, false },
	{ "::1:4317", "", -1, false },
	{ "[::1]", "", -1, false },
	{ "[::1:4317", "", -1, false },
	{ "unix:", "", -1, false },
};

static void endpoints_are_taken_apart(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT_OF(endpoints); i++) {
		struct listen_endpoint e;
		struct err err = ERR_INIT;
		int rc = listen_parse(endpoints[i].in, &e, &err);

		if (rc != (endpoints[i].port < 0 ? -1 : 0))
			fail_msg("\"%s\": %d %s", endpoints[i].in, rc, err.msg);
		if (rc < 0) {
			assert_non_null(strstr(err.msg, endpoints[i].in));
			continue;
		}
		assert_string_equal(e.host, endpoints[i].host);
		assert_int_equal(e.port, endpoints[i].port);
		assert_int_equal(e.is_unix, endpoints[i].is_unix);
	}
}

static void a_group_shares_a_port_and_nobody_else_does(void **state)
{
	static const char *const hosts[] = { "127.0.0.1:0", "localhost:0", ":0" };
	char endpoint[32];

	(void)state;
	for (size_t i = 0; i < COUNT_OF(hosts); i++) {
		struct err err = ERR_INIT;
		int fds[3] = { -1, -1, -1 }, others[2] = { -1, -1 };

		assert_int_equal(listen_open(hosts[i], fds, 3, &err), 0);
		assert_int_not_equal(listen_port(fds[0]), 0);
		assert_int_equal(listen_port(fds[0]), listen_port(fds[1]));
		assert_int_equal(listen_port(fds[0]), listen_port(fds[2]));
		snprintf(endpoint, sizeof(endpoint), "127.0.0.1:%u", listen_port(fds[0]));
		assert_int_equal(listen_open(endpoint, others, 2, &err), -1);
		assert_non_null(strstr(err.msg, endpoint));
		listen_close(NULL, fds, 3);
		assert_int_equal(listen_open(endpoint, others, 2, &err), 0);
		listen_close(NULL, others, 2);
	}
}

static void a_dead_unix_socket_is_replaced(void **state)
{
	char path[64], text[LISTEN_ADDR_SIZE];
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	struct err err = ERR_INIT;
	int fds[2], others[2];

	(void)state;
	snprintf(path, sizeof(path), "unix:/tmp/test_loop.%d.sock", (int)getpid());
	assert_int_equal(listen_open(path, fds, 2, &err), 0);
	assert_int_equal(listen_open(path, others, 2, &err), -1);
	listen_close(NULL, fds, 2);
	assert_int_equal(access(path + 5, F_OK), 0);
	assert_int_equal(listen_open(path, others, 2, &err), 0);
	listen_close(path, others, 2);
	assert_int_equal(access(path + 5, F_OK), -1);
	memcpy(un.sun_path, path + 5, strlen(path + 5) + 1);
	listen_format((struct sockaddr *)&un, text);
	assert_string_equal(text, path);
}

static void a_missing_host_is_named(void **state)
{
	struct err err = ERR_INIT;
	int fd;

	(void)state;
	assert_int_equal(listen_open("no-such-host.invalid:1", &fd, 1, &err), -1);
	assert_non_null(strstr(err.msg, "no-such-host.invalid"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(tasks_of_one_thread_run_in_order),
		cmocka_unit_test(stop_runs_what_tasks_post),
		cmocka_unit_test(timers_ring_once_in_order),
		cmocka_unit_test(call_waits_for_its_end),
		cmocka_unit_test(endpoints_are_taken_apart),
		cmocka_unit_test(a_group_shares_a_port_and_nobody_else_does),
		cmocka_unit_test(a_dead_unix_socket_is_replaced),
		cmocka_unit_test(a_missing_host_is_named),
	};

	return cmocka_run_group_tests_name("loop", tests, NULL, NULL);
}
