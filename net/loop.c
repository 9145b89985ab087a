/* SPDX-License-Identifier: Apache-2.0
 *
 * loop.c - see loop.h.
 *
 * DESIGN: posted tasks are a list under a mutex held for a few instructions; uv_async wakes the
 * loop only when the list was empty, so a burst of acks costs one wake-up. Timers are a binary heap
 * driven by one uv_timer: uv_timer_t itself would need an asynchronous close before its owner may
 * be freed, and thousands of connections restart theirs at every request.
 * OWNERSHIP, THREADS: the loop owns its thread, heap and scratch; tasks and timers are their
 * owners'.
 * LIMITS: none of its own.
 */
#include "net/loop.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>

struct loop {
	uv_loop_t uv;
	uv_async_t wake;
	uv_timer_t tick;
	pthread_t thread;
	pthread_mutex_t lock;
	struct loop_task *head, **tail; /* under lock */
	bool stopping;                  /* under lock */
	bool started;
	unsigned index;
	struct loop_timer **heap; /* earliest first */
	size_t n_timers, timers_cap;
	uint8_t *scratch;
};

static THREAD_LOCAL struct loop *current;

/* ---- posted tasks ---- */

static struct loop_task *take_tasks(struct loop *l, bool *stopping)
{
	struct loop_task *t;

	pthread_mutex_lock(&l->lock);
	t = l->head;
	l->head = NULL;
	l->tail = &l->head;
	*stopping = l->stopping;
	pthread_mutex_unlock(&l->lock);
	return t;
}

/* Run what is posted now; false when there was nothing. */
static bool run_tasks(struct loop *l, bool *stopping)
{
	struct loop_task *t = take_tasks(l, stopping);
	bool any = t != NULL;

	while (t != NULL) {
		struct loop_task *next = t->next;

		t->fn(t->arg);
		t = next;
	}
	return any;
}

static void woken(uv_async_t *a)
{
	struct loop *l = a->data;
	bool stopping = false;

	/* One list a turn: tasks that post tasks must not starve the sockets. */
	if (run_tasks(l, &stopping) && stopping)
		uv_async_send(&l->wake);
	else if (stopping)
		uv_stop(&l->uv);
}

void loop_post(struct loop *l, struct loop_task *t)
{
	bool was_empty;

	t->next = NULL;
	pthread_mutex_lock(&l->lock);
	was_empty = l->head == NULL;
	*l->tail = t;
	l->tail = &t->next;
	pthread_mutex_unlock(&l->lock);
	if (was_empty)
		uv_async_send(&l->wake);
}

struct call {
	struct loop_task task;
	void (*fn)(void *arg);
	void *arg;
	pthread_mutex_t lock;
	pthread_cond_t cond;
	bool done;
};

static void run_call(void *arg)
{
	struct call *c = arg;

	c->fn(c->arg);
	pthread_mutex_lock(&c->lock);
	c->done = true;
	pthread_cond_signal(&c->cond);
	pthread_mutex_unlock(&c->lock);
}

void loop_call(struct loop *l, void (*fn)(void *arg), void *arg)
{
	struct call c = { .task = { run_call, &c, NULL }, .fn = fn, .arg = arg };

	if (!l->started || loop_is_current(l)) {
		struct loop *outer = current;

		current = l;
		fn(arg);
		current = outer;
		return;
	}
	pthread_mutex_init(&c.lock, NULL);
	pthread_cond_init(&c.cond, NULL);
	loop_post(l, &c.task);
	pthread_mutex_lock(&c.lock);
	while (!c.done)
		pthread_cond_wait(&c.cond, &c.lock);
	pthread_mutex_unlock(&c.lock);
	pthread_cond_destroy(&c.cond);
	pthread_mutex_destroy(&c.lock);
}

/* ---- timers ---- */

static void place(struct loop *l, struct loop_timer *t, size_t i)
{
	l->heap[i] = t;
	t->slot = i + 1;
}

static void sift_up(struct loop *l, size_t i)
{
	struct loop_timer *t = l->heap[i];

	while (i > 0 && l->heap[(i - 1) / 2]->due_ms > t->due_ms) {
		place(l, l->heap[(i - 1) / 2], i);
		i = (i - 1) / 2;
	}
	place(l, t, i);
}

static void sift_down(struct loop *l, size_t i)
{
	struct loop_timer *t = l->heap[i];

	for (;;) {
		size_t child = 2 * i + 1;

		if (child >= l->n_timers)
			break;
		if (child + 1 < l->n_timers && l->heap[child + 1]->due_ms < l->heap[child]->due_ms)
			child++;
		if (l->heap[child]->due_ms >= t->due_ms)
			break;
		place(l, l->heap[child], i);
		i = child;
	}
	place(l, t, i);
}

static void ticked(uv_timer_t *tick);

static void arm(struct loop *l)
{
	uint64_t now = uv_now(&l->uv), due;

	if (l->n_timers == 0) {
		uv_timer_stop(&l->tick);
		return;
	}
	due = l->heap[0]->due_ms;
	uv_timer_start(&l->tick, ticked, due > now ? due - now : 0, 0);
}

static void remove_timer(struct loop *l, struct loop_timer *t)
{
	size_t i = t->slot - 1;
	struct loop_timer *last = l->heap[--l->n_timers];

	assert(l->heap[i] == t);
	t->slot = 0;
	if (last == t)
		return;
	place(l, last, i);
	sift_up(l, i);
	sift_down(l, last->slot - 1);
}

static void ticked(uv_timer_t *tick)
{
	struct loop *l = tick->data;
	uint64_t now = uv_now(&l->uv);

	while (l->n_timers > 0 && l->heap[0]->due_ms <= now) {
		struct loop_timer *t = l->heap[0];

		remove_timer(l, t);
		t->fn(t->arg);
	}
	arm(l);
}

void loop_timer_start(struct loop *l, struct loop_timer *t, uint64_t ms)
{
	bool was_first = t->slot == 1;

	if (t->slot != 0)
		remove_timer(l, t);
	/* Not uv_now, which stands still during a turn. +1: milliseconds are cut, not rounded. */
	t->due_ms = uv_hrtime() / NS_PER_MS + ms + 1;
	l->heap = xgrow(l->heap, &l->timers_cap, l->n_timers + 1, sizeof(struct loop_timer *));
	l->heap[l->n_timers] = t;
	sift_up(l, l->n_timers++);
	if (was_first || t->slot == 1)
		arm(l);
}

void loop_timer_stop(struct loop *l, struct loop_timer *t)
{
	/* The tick may now come for nothing once; cheaper than re-arming it at every request. */
	if (t->slot != 0)
		remove_timer(l, t);
}

/* ---- life ---- */

struct loop *loop_new(unsigned index, struct err *err)
{
	struct loop *l = xcalloc(1, sizeof(*l));
	int rc = uv_loop_init(&l->uv);

	if (rc == 0 && (rc = uv_async_init(&l->uv, &l->wake, woken)) != 0)
		uv_loop_close(&l->uv);
	if (rc != 0) {
		err_set(err, ERR_IO, "event loop: %s", uv_strerror(rc));
		free(l);
		return NULL;
	}
	uv_timer_init(&l->uv, &l->tick);
	l->wake.data = l;
	l->tick.data = l;
	l->index = index;
	l->tail = &l->head;
	pthread_mutex_init(&l->lock, NULL);
	return l;
}

static void *run(void *arg)
{
	struct loop *l = arg;
	char name[16];

	snprintf(name, sizeof(name), "loop-%u", l->index % 1000);
	pthread_setname_np(pthread_self(), name);
	current = l;
	uv_run(&l->uv, UV_RUN_DEFAULT);
	current = NULL;
	return NULL;
}

int loop_start(struct loop *l, struct err *err)
{
	sigset_t all, old;
	int rc;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	l->started = true;
	rc = pthread_create(&l->thread, NULL, run, l);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (rc == 0)
		return 0;
	l->started = false;
	return err_set(err, ERR_IO, "event loop: thread: %s", strerror(rc));
}

void loop_stop(struct loop *l)
{
	if (l == NULL || !l->started)
		return;
	assert(!loop_is_current(l));
	pthread_mutex_lock(&l->lock);
	l->stopping = true;
	pthread_mutex_unlock(&l->lock);
	uv_async_send(&l->wake);
	pthread_join(l->thread, NULL);
	l->started = false;
	l->stopping = false;
}

void loop_turn(struct loop *l)
{
	struct loop *outer = current;
	bool stopping = false;

	assert(!l->started);
	current = l;
	run_tasks(l, &stopping);
	uv_run(&l->uv, UV_RUN_NOWAIT);
	current = outer;
}

static void complain(uv_handle_t *h, void *arg)
{
	(void)arg;
	if (!uv_is_closing(h))
		log_error("event loop: a handle was left open", "type",
			  uv_handle_type_name(h->type));
}

void loop_free(struct loop *l)
{
	struct loop *outer = current;
	bool stopping = false;
	int rc;

	if (l == NULL)
		return;
	assert(!l->started);
	current = l;
	/* The closing of handles takes a turn or two; tasks may close more of them. */
	for (int i = 0; i < 8; i++) {
		while (run_tasks(l, &stopping))
			;
		uv_run(&l->uv, UV_RUN_NOWAIT);
	}
	uv_close((uv_handle_t *)&l->wake, NULL);
	uv_close((uv_handle_t *)&l->tick, NULL);
	uv_walk(&l->uv, complain, NULL);
	uv_run(&l->uv, UV_RUN_NOWAIT);
	rc = uv_loop_close(&l->uv);
	current = outer;
	free(l->heap);
	free(l->scratch);
	l->heap = NULL;
	l->scratch = NULL;
	/* A name look-up that still blocks a libuv thread will write to the loop: leave it that. */
	if (rc == UV_EBUSY)
		return;
	pthread_mutex_destroy(&l->lock);
	free(l);
}

bool loop_is_current(const struct loop *l)
{
	return current == l;
}

uv_loop_t *loop_uv(struct loop *l)
{
	return &l->uv;
}

unsigned loop_index(const struct loop *l)
{
	return l->index;
}

uint8_t *loop_scratch(struct loop *l)
{
	/* Lazily: a loop that only has timers and HTTP listeners need not pay for it. */
	if (l->scratch == NULL)
		l->scratch = xmalloc(LOOP_SCRATCH_BYTES);
	return l->scratch;
}
