/* SPDX-License-Identifier: Apache-2.0
 *
 * test_span_watch.c - what becomes of a span is told once, and "found" is never said of one that is
 * not: single paths by table, logs that hold spans in every order, random branches on many threads
 * against what the branches wrote down.
 */
#include "tests/unit/otlp_fixture.h"

#include "base/rng.h"
#include "pipeline/span/watch.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

enum { SPANS_MAX = 12 };

struct watched {
	struct span_watch w;
	_Atomic int n_told;
	bool is_good, before_settled;
	struct request *request;
};

struct request {
	struct origin origin;
	_Atomic int settled;
	bool is_accepted;
	struct watched spans[SPANS_MAX], whole;
	_Atomic uint8_t found[SPANS_MAX]; /* by the branches' own account */
};

static void settled(struct origin *o)
{
	struct request *rq = CONTAINER_OF(o, struct request, origin);
	uint32_t n = origin_fini(o);

	rq->is_accepted = n > 0;
	atomic_fetch_add(&rq->settled, 1);
}

static void told(struct span_watch *w, bool is_good)
{
	struct watched *x = CONTAINER_OF(w, struct watched, w);

	x->is_good = is_good;
	x->before_settled = atomic_load(&x->request->settled) == 0;
	atomic_fetch_add(&x->n_told, 1);
}

static struct batch *make_request(struct request *rq, uint8_t n_spans)
{
	struct buf bytes = BUF_INIT;
	struct otlp_result result;
	struct rcbuf *r;
	struct batch *b;
	size_t rs = pb_begin(&bytes, 1), ss = pb_begin(&bytes, 2);

	memset(rq, 0, sizeof(*rq));
	for (uint8_t i = 1; i <= n_spans; i++)
		put_small_span(&bytes, i);
	pb_end(&bytes, ss);
	pb_end(&bytes, rs);
	r = rcbuf_new(NULL, bytes.n);
	memcpy(r->p, bytes.p, bytes.n);
	r->n = bytes.n;
	b = batch_from_otlp(r, "t1", NULL, &result, NULL);
	assert_non_null(b);
	buf_fini(&bytes);
	origin_init(&rq->origin, n_spans, settled);
	batch_bind(b, &rq->origin);
	return b;
}

static void watch(struct request *rq, uint32_t ordinal)
{
	struct watched *x = ordinal == WATCH_REQUEST ? &rq->whole : &rq->spans[ordinal];

	x->request = rq;
	x->w.ordinal = ordinal;
	x->w.told = told;
	origin_watch(&rq->origin, &x->w);
}

static void fan_out(struct batch *b, uint32_t branches)
{
	for (uint32_t i = 0; i < b->n_origins; i++)
		origin_fan_out(b->origins[i].origin, b->origins[i].n_spans, branches - 1);
}

/* As a connector does. */
static void look(struct batch *b)
{
	batch_settle(b, VERDICT_DROPPED, DROP_BEST_EFFORT, NULL);
}

/* ---- single paths ---- */

static void verdicts(void **state)
{
	static const struct {
		const char *name;
		enum verdict a, b; /* of two exporters beside the connector */
		bool is_good, is_accepted;
	} cases[] = {
		{ "both deliver", VERDICT_DELIVERED, VERDICT_DELIVERED, true, true },
		{ "one delivers", VERDICT_PERMANENT, VERDICT_DELIVERED, true, true },
		{ "one drops on purpose", VERDICT_DROPPED, VERDICT_DELIVERED, true, true },
		{ "all drop", VERDICT_DROPPED, VERDICT_DROPPED, false, true },
		{ "all refuse", VERDICT_PERMANENT, VERDICT_PERMANENT, false, true },
		{ "one retries", VERDICT_DELIVERED, VERDICT_RETRYABLE, false, false },
		{ "stored", VERDICT_STORED, VERDICT_DROPPED, true, true },
		{ "stored and refused", VERDICT_STORED, VERDICT_PERMANENT, true, true },
		{ "only a dead letter", VERDICT_ASIDE, VERDICT_DROPPED, false, true },
		{ "a dead letter beside", VERDICT_ASIDE, VERDICT_DELIVERED, true, true },
		{ "held by a queue only", VERDICT_HELD, VERDICT_DROPPED, false, true },
		{ "held and delivered", VERDICT_HELD, VERDICT_DELIVERED, true, true },
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		struct request rq;
		struct batch *b = make_request(&rq, 3);

		fan_out(b, 3);
		watch(&rq, 1);
		watch(&rq, WATCH_REQUEST);
		look(b);
		batch_settle(b, cases[i].a, DROP_PERMANENT, NULL);
		assert_int_equal(rq.spans[1].n_told, 0);
		batch_settle(b, cases[i].b, DROP_PERMANENT, NULL);
		if (rq.spans[1].is_good != cases[i].is_good || rq.spans[1].n_told != 1 ||
		    !rq.spans[1].before_settled || rq.whole.n_told != 1 ||
		    rq.whole.is_good != cases[i].is_accepted)
			fail_msg("%s: told %d, good %d, accepted %d", cases[i].name,
				 rq.spans[1].n_told, rq.spans[1].is_good, rq.whole.is_good);
		assert_int_equal(rq.spans[0].n_told, 0);
		batch_unref(b);
	}
}

/* The sampler of the only branch that stores keeps spans 1 and 3 of 0..3. */
static void dropped_in_every_branch(void **state)
{
	static const uint8_t keep[4] = { 0, 1, 0, 1 };
	struct request rq;
	struct batch *b = make_request(&rq, 4), *kept;

	(void)state;
	fan_out(b, 2);
	for (uint32_t i = 0; i < 4; i++)
		watch(&rq, i);
	look(b);
	kept = batch_filter(b, keep, DROP_SAMPLED);
	batch_settle(kept, VERDICT_DELIVERED, DROP_REASON_MAX, NULL);
	for (uint32_t i = 0; i < 4; i++) {
		assert_int_equal(rq.spans[i].n_told, 1);
		assert_int_equal(rq.spans[i].is_good, keep[i]);
	}
	batch_unref(kept);
}

/* The books name the reason of the branch that meant to deliver. */
static void lookers_do_not_hide_reasons(void **state)
{
	struct request rq;
	struct batch *b;

	(void)state;
	for (int first = 0; first < 2; first++) {
		memset(&ledger, 0, sizeof(ledger));
		b = make_request(&rq, 2);
		fan_out(b, 2);
		if (first)
			look(b);
		batch_settle(b, VERDICT_DROPPED, DROP_SAMPLED, NULL);
		if (!first)
			look(b);
		assert_int_equal(ledger.dropped[DROP_SAMPLED], 2);
		assert_int_equal(ledger.dropped[DROP_BEST_EFFORT], 0);
		batch_unref(b);
	}
}

static void without_marks(void **state)
{
	static const uint8_t keep[4] = { 1, 1, 0, 1 };
	struct request rq;
	struct batch *b = make_request(&rq, 4);

	(void)state;
	watch(&rq, 0);
	batch_settle(b, VERDICT_DELIVERED, DROP_REASON_MAX, NULL);
	assert_true(rq.spans[0].is_good);
	batch_unref(b);
	/* Three of four were delivered: tallies do not say which. */
	b = make_request(&rq, 4);
	watch(&rq, 0);
	b = batch_filter(b, keep, DROP_SAMPLED);
	batch_settle(b, VERDICT_DELIVERED, DROP_REASON_MAX, NULL);
	assert_int_equal(rq.spans[0].n_told, 1);
	assert_false(rq.spans[0].is_good);
	batch_unref(b);
	b = make_request(&rq, 4);
	watch(&rq, 0);
	batch_settle(b, VERDICT_ASIDE, DROP_REASON_MAX, NULL);
	assert_false(rq.spans[0].is_good);
	batch_unref(b);
}

/* The next hop refused some of a request and did not say which. */
static void some_were_refused(void **state)
{
	(void)state;
	for (uint32_t n_bad = 0; n_bad <= 3; n_bad++) {
		struct request rq;
		struct batch *b = make_request(&rq, 3);

		fan_out(b, 2);
		watch(&rq, 0);
		look(b);
		batch_settle_partial(b, n_bad, NULL);
		assert_int_equal(rq.spans[0].n_told, 1);
		assert_int_equal(rq.spans[0].is_good, n_bad == 0);
		batch_unref(b);
	}
}

static void withdrawn_and_promised(void **state)
{
	struct request rq;
	struct batch *b = make_request(&rq, 2);

	(void)state;
	fan_out(b, 2);
	watch(&rq, 0);
	watch(&rq, WATCH_REQUEST);
	assert_true(origin_withdraw(&rq.origin));
	look(b);
	batch_settle(b, VERDICT_DELIVERED, DROP_REASON_MAX, NULL);
	assert_true(rq.spans[0].n_told == 1 && !rq.spans[0].is_good && !rq.whole.is_good);
	batch_unref(b);
	/* Nobody sends these again: what one branch delivered is there. */
	b = make_request(&rq, 2);
	origin_promise(&rq.origin);
	fan_out(b, 2);
	watch(&rq, 0);
	watch(&rq, WATCH_REQUEST);
	batch_settle(b, VERDICT_RETRYABLE, DROP_QUEUE_FULL, NULL);
	batch_settle(b, VERDICT_DELIVERED, DROP_REASON_MAX, NULL);
	assert_true(rq.spans[0].is_good && rq.whole.is_good);
	batch_unref(b);
	b = make_request(&rq, 2);
	origin_promise(&rq.origin);
	fan_out(b, 2);
	watch(&rq, 0);
	watch(&rq, WATCH_REQUEST);
	look(b);
	batch_settle(b, VERDICT_RETRYABLE, DROP_QUEUE_FULL, NULL);
	assert_true(!rq.spans[0].is_good && rq.whole.is_good);
	batch_unref(b);
}

/* ---- logs ---- */

/* What a queue's log does when the record is synced. */
static struct held_watches *hold(struct batch *b)
{
	struct held_watches *h = held_watches_of(b);

	batch_hold(b);
	return h;
}

static void told_when_it_leaves_the_log(void **state)
{
	(void)state;
	for (int is_found = 0; is_found < 2; is_found++)
		for (int early = 0; early < 2; early++) {
			struct request rq;
			struct batch *b = make_request(&rq, 3);
			struct held_watches *h;

			fan_out(b, 2);
			watch(&rq, 0);
			watch(&rq, 2);
			h = hold(b);
			assert_non_null(h);
			if (early) /* before the other branch is done */
				held_watches_end(h, is_found);
			assert_int_equal(rq.spans[0].n_told, 0);
			look(b);
			if (!early) {
				assert_int_equal(rq.settled, 1);
				assert_int_equal(rq.spans[0].n_told, 0);
				held_watches_end(h, is_found);
			}
			assert_true(rq.spans[0].n_told == 1 && rq.spans[2].n_told == 1);
			assert_true(rq.spans[0].is_good == is_found &&
				    rq.spans[2].is_good == is_found);
			batch_unref(b);
		}
}

static void two_logs(void **state)
{
	(void)state;
	for (int order = 0; order < 4; order++) {
		bool first = order & 1, second = order & 2;
		struct request rq;
		struct batch *b = make_request(&rq, 3);
		struct held_watches *h[2];

		fan_out(b, 3);
		watch(&rq, 1);
		h[0] = hold(b);
		h[1] = hold(b);
		look(b);
		held_watches_end(h[0], first);
		assert_int_equal(rq.spans[1].n_told, first);
		held_watches_end(h[1], second);
		assert_int_equal(rq.spans[1].n_told, 1);
		assert_int_equal(rq.spans[1].is_good, first || second);
		batch_unref(b);
	}
}

/* A log that holds a part of the request knows only the watches of that part. */
static void a_part_of_a_request(void **state)
{
	struct request rq;
	struct batch *b = make_request(&rq, 9), *head, *tail;
	struct held_watches *h;

	(void)state;
	fan_out(b, 2);
	watch(&rq, 1);
	watch(&rq, 8);
	look(b);
	batch_split(b, 5, &head, &tail);
	h = hold(head);
	batch_settle(tail, VERDICT_DROPPED, DROP_FILTERED, NULL);
	assert_true(rq.spans[8].n_told == 1 && !rq.spans[8].is_good);
	assert_int_equal(rq.spans[1].n_told, 0);
	held_watches_end(h, true);
	assert_true(rq.spans[1].n_told == 1 && rq.spans[1].is_good);
	batch_unref(head);
	batch_unref(tail);
}

/* Refused by another branch: told at once, and the log has nobody to tell. */
static void refused_though_held(void **state)
{
	struct request rq;
	struct batch *b = make_request(&rq, 3);
	struct held_watches *h;

	(void)state;
	fan_out(b, 2);
	watch(&rq, 1);
	h = hold(b);
	batch_settle(b, VERDICT_RETRYABLE, DROP_QUEUE_FULL, NULL);
	assert_true(rq.spans[1].n_told == 1 && !rq.spans[1].is_good);
	held_watches_end(h, true);
	assert_int_equal(rq.spans[1].n_told, 1);
	batch_unref(b);
}

static void a_watch_after_the_log(void **state)
{
	struct request rq;
	struct batch *b = make_request(&rq, 3);

	(void)state;
	fan_out(b, 2);
	assert_null(hold(b));
	watch(&rq, 1);
	look(b);
	assert_true(rq.spans[1].n_told == 1 && !rq.spans[1].is_good);
	batch_unref(b);
}

/* ---- many threads ---- */

enum { THREADS = 4, REQUESTS = 3000, HELD_MAX = 64 };

static struct request *requests;
static _Atomic uint32_t next_request;

/* A branch's batch on its way to another thread. */
static struct {
	pthread_mutex_t lock;
	struct batch *jobs[4096];
	size_t n;
} pool = { .lock = PTHREAD_MUTEX_INITIALIZER };

struct hop {
	struct rng rng;
	struct {
		struct held_watches *watches;
		struct batch *b;
	} held[HELD_MAX];
	size_t n_held;
};

static void note_found(const struct batch *b, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		const struct span_ref *sp = &b->tables.spans[i];
		struct origin *o = b->origins[sp->origin].origin;

		atomic_store(&CONTAINER_OF(o, struct request, origin)->found[sp->ordinal], 1);
	}
}

static void leave_log(struct hop *h)
{
	size_t k = --h->n_held;
	bool is_found = rng_below(&h->rng, 2);

	if (is_found)
		note_found(h->held[k].b, h->held[k].b->tables.n_spans);
	held_watches_end(h->held[k].watches, is_found);
	batch_unref(h->held[k].b);
}

static void give_verdict(struct hop *h, struct batch *b)
{
	static const enum verdict v[] = { VERDICT_DELIVERED, VERDICT_STORED,    VERDICT_ASIDE,
					  VERDICT_DROPPED,   VERDICT_PERMANENT, VERDICT_RETRYABLE };
	uint64_t k = rng_below(&h->rng, 12);
	uint32_t n_bad;

	if (k < COUNT_OF(v)) {
		if (v[k] == VERDICT_DELIVERED || v[k] == VERDICT_STORED)
			note_found(b, b->tables.n_spans);
		batch_settle(b, v[k], DROP_PERMANENT, NULL);
	} else if (k < 8) {
		n_bad = (uint32_t)rng_below(&h->rng, b->tables.n_spans + 1);
		note_found(b, n_bad == 0 ? b->tables.n_spans : 0);
		batch_settle_partial(b, n_bad, NULL);
	} else {
		if (h->n_held == HELD_MAX)
			leave_log(h);
		h->held[h->n_held].watches = held_watches_of(b);
		h->held[h->n_held++].b = batch_ref(b);
		batch_hold(b);
	}
	batch_unref(b);
}

static void branch(struct hop *h, struct batch *b)
{
	struct batch *head, *tail;
	uint8_t keep[SPANS_MAX];
	bool pushed = false;

	if (rng_below(&h->rng, 3) == 0) {
		for (uint32_t i = 0; i < b->tables.n_spans; i++)
			keep[i] = rng_below(&h->rng, 3) > 0;
		b = batch_filter(b, keep, DROP_FILTERED);
	}
	if (b != NULL && b->tables.n_spans > 1 && rng_below(&h->rng, 3) == 0) {
		batch_split(b, 1 + (uint32_t)rng_below(&h->rng, b->tables.n_spans - 1), &head,
			    &tail);
		give_verdict(h, head);
		b = tail;
	}
	pthread_mutex_lock(&pool.lock);
	if (b != NULL && rng_below(&h->rng, 2) && pool.n < COUNT_OF(pool.jobs)) {
		pool.jobs[pool.n++] = b;
		pushed = true;
	}
	pthread_mutex_unlock(&pool.lock);
	if (b != NULL && !pushed)
		give_verdict(h, b);
}

static bool take_job(struct hop *h)
{
	struct batch *b = NULL;

	pthread_mutex_lock(&pool.lock);
	if (pool.n > 0)
		b = pool.jobs[--pool.n];
	pthread_mutex_unlock(&pool.lock);
	if (b != NULL)
		give_verdict(h, b);
	return b != NULL;
}

static void *worker(void *arg)
{
	struct hop h = { .n_held = 0 };
	uint32_t at;

	rng_seed(&h.rng, (uint64_t)(uintptr_t)arg);
	while ((at = atomic_fetch_add(&next_request, 1)) < REQUESTS) {
		struct request *rq = &requests[at];
		uint8_t n = (uint8_t)(1 + rng_below(&h.rng, SPANS_MAX));
		uint32_t k = 2 + (uint32_t)rng_below(&h.rng, 2);
		struct batch *b = make_request(rq, n);

		fan_out(b, k);
		for (uint32_t i = 0; i < n; i++)
			if (rng_below(&h.rng, 2))
				watch(rq, i);
		watch(rq, WATCH_REQUEST);
		while (--k > 0)
			branch(&h, batch_ref(b));
		/* The connector's own share comes last, so that none can settle under it. */
		if (rng_below(&h.rng, 8) == 0)
			origin_withdraw(&rq->origin);
		look(b);
		batch_unref(b);
		take_job(&h);
		if (h.n_held > 0 && rng_below(&h.rng, 2))
			leave_log(&h);
	}
	while (take_job(&h))
		;
	while (h.n_held > 0)
		leave_log(&h);
	return NULL;
}

static void random_branches_on_many_threads(void **state)
{
	uint32_t n_good = 0, n_bad = 0;
	pthread_t threads[THREADS];

	(void)state;
	requests = calloc(REQUESTS, sizeof(*requests));
	assert_non_null(requests);
	for (uintptr_t i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, worker, (void *)(i + 1)), 0);
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	for (uint32_t i = 0; i < REQUESTS; i++) {
		struct request *rq = &requests[i];

		assert_int_equal(rq->settled, 1);
		assert_true(rq->whole.n_told == 1 && rq->whole.is_good == rq->is_accepted);
		for (uint32_t k = 0; k < rq->origin.n_spans; k++) {
			const struct watched *x = &rq->spans[k];

			if (x->request == NULL)
				continue;
			assert_int_equal(x->n_told, 1);
			assert_int_equal(x->is_good, rq->is_accepted && rq->found[k]);
			n_good += x->is_good;
			n_bad += !x->is_good;
		}
	}
	printf("%u good, %u bad\n", n_good, n_bad);
	assert_true(n_good > 1000 && n_bad > 1000);
	free(requests);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(verdicts),
		cmocka_unit_test(dropped_in_every_branch),
		cmocka_unit_test(lookers_do_not_hide_reasons),
		cmocka_unit_test(without_marks),
		cmocka_unit_test(some_were_refused),
		cmocka_unit_test(withdrawn_and_promised),
		cmocka_unit_test(told_when_it_leaves_the_log),
		cmocka_unit_test(two_logs),
		cmocka_unit_test(a_part_of_a_request),
		cmocka_unit_test(refused_though_held),
		cmocka_unit_test(a_watch_after_the_log),
		cmocka_unit_test(random_branches_on_many_threads),
	};

	return cmocka_run_group_tests_name("span_watch", tests, NULL, NULL);
}
