/* SPDX-License-Identifier: Apache-2.0
 *
 * test_origin.c - acknowledgement tallies: random trees of filter, split, concat and fan-out on
 * several threads with random verdicts and withdrawals; every origin settles exactly once and the
 * books balance to the span.
 */
#include "tests/unit/otlp_fixture.h"

#include "base/rng.h"
#include "pipeline/batch.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

/* ---- books ---- */

struct totals {
	uint64_t accepted, refused, delivered, dropped;
	int64_t held, in_flight;
};

static struct totals read_ledger(void)
{
	struct totals t = { atomic_load(&ledger.accepted),  atomic_load(&ledger.refused),
			    atomic_load(&ledger.delivered), 0,
			    atomic_load(&ledger.held),      atomic_load(&ledger.in_flight) };

	for (int r = 0; r < DROP_REASON_MAX; r++)
		t.dropped += atomic_load(&ledger.dropped[r]);
	return t;
}

static void reset_ledger(void)
{
	memset(&ledger, 0, sizeof(ledger));
}

/* ---- a request as a receiver has it ---- */

struct request {
	struct origin origin;
	_Atomic int settled;
	_Atomic int refs; /* the settling, and the one who may withdraw */
	struct origin_outcome outcome;
	uint32_t accepted;
	_Atomic int withdrawn;
};

static _Atomic uint64_t n_settled;

static void request_unref(struct request *rq)
{
	if (atomic_fetch_sub(&rq->refs, 1) == 1)
		free(rq);
}

static void settled(struct origin *o)
{
	struct request *rq = CONTAINER_OF(o, struct request, origin);

	assert(atomic_fetch_add(&rq->settled, 1) == 0);
	assert(atomic_load(&o->owed) == 0);
	origin_outcome(o, &rq->outcome);
	rq->accepted = origin_fini(o);
	assert(!rq->outcome.retryable || rq->accepted == 0 || o->promised);
	atomic_fetch_add(&n_settled, 1);
	request_unref(rq);
}

static struct batch *make_batch(uint8_t n_spans)
{
	struct buf bytes = BUF_INIT;
	struct otlp_result result;
	struct rcbuf *r;
	struct batch *b;
	size_t rs = pb_begin(&bytes, 1), ss = pb_begin(&bytes, 2);

	for (uint8_t i = 1; i <= n_spans; i++)
		put_small_span(&bytes, i);
	pb_end(&bytes, ss);
	pb_end(&bytes, rs);
	r = rcbuf_new(NULL, bytes.n);
	memcpy(r->p, bytes.p, bytes.n);
	r->n = bytes.n;
	b = batch_from_otlp(r, "t1", NULL, &result, NULL);
	assert(b != NULL && b->tables.n_spans == n_spans);
	buf_fini(&bytes);
	return b;
}

/* A bound batch; *out (may be NULL) gets the request with a reference of its own. */
static struct batch *make_request(uint8_t n_spans, struct request **out)
{
	struct batch *b = make_batch(n_spans);
	struct request *rq = xcalloc(1, sizeof(*rq));

	atomic_init(&rq->refs, out ? 2 : 1);
	origin_init(&rq->origin, n_spans, settled);
	batch_bind(b, &rq->origin);
	if (out != NULL)
		*out = rq;
	return b;
}

/* ---- single paths ---- */

static void fan_out(struct batch *b, uint32_t branches)
{
	for (uint32_t i = 0; i < b->n_origins; i++)
		origin_fan_out(b->origins[i].origin, b->origins[i].n_spans, branches - 1);
}

static void answers(void **state)
{
	static const struct {
		const char *name;
		enum verdict a, b; /* two branches */
		bool retryable;
		uint32_t n_permanent;
		uint64_t accepted, refused, delivered, dropped;
		int64_t held;
	} cases[] = {
		{ "both deliver", VERDICT_DELIVERED, VERDICT_DELIVERED, false, 0, 3, 0, 3, 0, 0 },
		{ "one retries", VERDICT_DELIVERED, VERDICT_RETRYABLE, true, 0, 0, 3, 0, 0, 0 },
		{ "one refuses", VERDICT_DELIVERED, VERDICT_PERMANENT, false, 3, 3, 0, 3, 0, 0 },
		{ "both refuse", VERDICT_PERMANENT, VERDICT_PERMANENT, false, 3, 3, 0, 0, 3, 0 },
		{ "one holds", VERDICT_DELIVERED, VERDICT_HELD, false, 0, 3, 0, 0, 0, 3 },
		{ "both hold", VERDICT_HELD, VERDICT_HELD, false, 0, 3, 0, 0, 0, 3 },
		{ "held and retry", VERDICT_HELD, VERDICT_RETRYABLE, true, 0, 3, 3, 0, 0, 3 },
		{ "dropped and refused", VERDICT_DROPPED, VERDICT_PERMANENT, false, 3, 3, 0, 0, 3,
		  0 },
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		enum verdict v[2] = { cases[i].a, cases[i].b };
		struct err err = ERR_INIT;
		struct request *rq;
		struct batch *b = make_request(3, &rq);
		struct totals t;
		uint32_t answers_for = 0;

		reset_ledger();
		atomic_store(&ledger.in_flight, 3);
		err_set(&err, ERR_UNAVAILABLE, "no");
		fan_out(b, 2);
		for (int k = 0; k < 2; k++)
			if (v[k] == VERDICT_HELD)
				answers_for += batch_hold(b);
			else
				batch_settle(b, v[k], DROP_PERMANENT, &err);
		assert_int_equal(atomic_load(&rq->settled), 1);
		t = read_ledger();
		if (rq->outcome.retryable != cases[i].retryable ||
		    rq->outcome.n_permanent != cases[i].n_permanent ||
		    t.accepted != cases[i].accepted || t.refused != cases[i].refused ||
		    t.delivered != cases[i].delivered || t.dropped != cases[i].dropped ||
		    t.held != cases[i].held || t.in_flight != 0)
			fail_msg("%s: accepted %llu refused %llu delivered %llu dropped %llu held "
				 "%lld",
				 cases[i].name, (unsigned long long)t.accepted,
				 (unsigned long long)t.refused, (unsigned long long)t.delivered,
				 (unsigned long long)t.dropped, (long long)t.held);
		assert_int_equal(answers_for, t.held);
		batch_unref(b);
		request_unref(rq);
	}
}

/* What was dropped before the fan-out keeps its reason. */
static void reasons_before_a_fan_out(void **state)
{
	uint8_t keep[4] = { 0, 1, 1, 0 };
	struct batch *b;

	(void)state;
	reset_ledger();
	b = batch_filter(make_request(4, NULL), keep, DROP_SAMPLED);
	fan_out(b, 2);
	batch_settle(b, VERDICT_DELIVERED, DROP_SAMPLED, NULL);
	batch_settle(b, VERDICT_PERMANENT, DROP_PERMANENT, NULL);
	assert_int_equal(atomic_load(&ledger.dropped[DROP_SAMPLED]), 2);
	assert_int_equal(atomic_load(&ledger.delivered), 2);
	assert_int_equal(atomic_load(&ledger.dropped[DROP_BEST_EFFORT]), 0);
	assert_int_equal(atomic_load(&ledger.accepted), 4);
	batch_unref(b);
}

/* ack: early - what goes back to a client that is not waiting is lost, with the reason it went back
 * for. */
static void promises_are_kept_in_the_books(void **state)
{
	struct request *rq;
	struct batch *b;

	(void)state;
	reset_ledger();
	b = make_request(3, &rq);
	origin_promise(&rq->origin);
	batch_settle(b, VERDICT_RETRYABLE, DROP_QUEUE_FULL, NULL);
	assert_int_equal(atomic_load(&ledger.dropped[DROP_QUEUE_FULL]), 3);
	assert_int_equal(rq->accepted, 3);
	batch_unref(b);
	request_unref(rq);

	b = make_request(3, &rq);
	origin_promise(&rq->origin);
	fan_out(b, 2);
	batch_settle(b, VERDICT_RETRYABLE, DROP_SHUTDOWN, NULL);
	batch_settle(b, VERDICT_DELIVERED, DROP_REASON_MAX, NULL);
	assert_int_equal(atomic_load(&ledger.dropped[DROP_SHUTDOWN]), 0);
	assert_int_equal(atomic_load(&ledger.delivered), 3);
	batch_unref(b);
	request_unref(rq);

	b = make_request(3, &rq);
	origin_promise(&rq->origin);
	fan_out(b, 2);
	batch_settle(b, VERDICT_RETRYABLE, DROP_REASON_MAX, NULL);
	batch_settle(b, VERDICT_RETRYABLE, DROP_SHUTDOWN, NULL);
	assert_int_equal(atomic_load(&ledger.dropped[DROP_SHUTDOWN]), 3);
	assert_int_equal(atomic_load(&ledger.accepted), 9);
	assert_int_equal(atomic_load(&ledger.refused), 0);
	batch_unref(b);
	request_unref(rq);
}

static void partial_success_of_the_next_hop(void **state)
{
	(void)state;
	for (uint32_t branches = 1; branches <= 2; branches++)
		for (uint32_t bad = 0; bad <= 7; bad++) {
			struct request *rq[2];
			struct batch *v[2] = { make_request(2, &rq[0]), make_request(3, &rq[1]) };
			struct batch *b;
			uint32_t n = MIN(bad, 5u);

			reset_ledger();
			b = batch_concat(v, 2);
			if (branches == 2) {
				fan_out(b, 2);
				batch_settle(b, VERDICT_DROPPED, DROP_FILTERED, NULL);
			}
			batch_settle_partial(b, bad, NULL);
			assert_int_equal(rq[1]->outcome.n_permanent, MIN(n, 3u));
			assert_int_equal(rq[0]->outcome.n_permanent, n > 3 ? n - 3 : 0);
			assert_int_equal(atomic_load(&ledger.delivered), 5 - n);
			assert_int_equal(atomic_load(&ledger.dropped[DROP_REJECTED]) +
						 atomic_load(&ledger.dropped[DROP_FILTERED]),
					 n);
			batch_unref(b);
			request_unref(rq[0]);
			request_unref(rq[1]);
		}
}

static void withdrawal(void **state)
{
	struct request *rq;
	struct batch *b;

	(void)state;
	reset_ledger();
	b = make_request(2, &rq);
	assert_false(batch_is_withdrawn(b));
	assert_true(origin_withdraw(&rq->origin));
	assert_false(origin_withdraw(&rq->origin));
	assert_true(batch_is_withdrawn(b));
	batch_settle(b, VERDICT_DELIVERED, DROP_SAMPLED, NULL);
	assert_int_equal(rq->accepted, 0);
	assert_int_equal(atomic_load(&ledger.refused), 2);
	assert_int_equal(atomic_load(&ledger.accepted), 0);
	batch_unref(b);
	request_unref(rq);
	/* After the last verdict it is too late. */
	b = make_request(2, &rq);
	batch_settle(b, VERDICT_DELIVERED, DROP_SAMPLED, NULL);
	assert_false(origin_withdraw(&rq->origin));
	batch_unref(b);
	request_unref(rq);
}

/* A batch of origins that come and go: none is touched after its last verdict. */
static void origins_may_go_one_by_one(void **state)
{
	uint8_t keep[6] = { 0, 0, 1, 1, 0, 0 };
	struct batch *v[3], *b, *head, *tail;

	(void)state;
	reset_ledger();
	for (int i = 0; i < 3; i++)
		v[i] = make_request(2, NULL);
	/* Origins 0 and 2 settle here and are freed. */
	b = batch_filter(batch_concat(v, 3), keep, DROP_FILTERED);
	fan_out(b, 3);
	assert_false(batch_is_withdrawn(b));
	batch_settle(b, VERDICT_DELIVERED, DROP_SAMPLED, NULL);
	batch_settle_partial(b, 1, NULL);
	batch_split(b, 1, &head, &tail);
	batch_settle(head, VERDICT_DELIVERED, DROP_SAMPLED, NULL);
	batch_settle(tail, VERDICT_RETRYABLE, DROP_SAMPLED, NULL);
	batch_unref(head);
	batch_unref(tail);
	assert_int_equal(atomic_load(&ledger.dropped[DROP_FILTERED]), 4);
	assert_int_equal(atomic_load(&ledger.refused), 2);
	assert_int_equal(atomic_load(&ledger.in_flight), 0);
}

/* ---- many threads ---- */

enum { THREADS = 4, REQUESTS = 4000, SPANS_MAX = 12 };

static struct {
	pthread_mutex_t lock;
	struct batch *jobs[65536];
	size_t n;
	_Atomic uint64_t sent, held_answers;
	_Atomic int producers;
} pool = { .lock = PTHREAD_MUTEX_INITIALIZER };

static bool pool_push(struct batch *b)
{
	bool room;

	pthread_mutex_lock(&pool.lock);
	room = pool.n < COUNT_OF(pool.jobs);
	if (room)
		pool.jobs[pool.n++] = b;
	pthread_mutex_unlock(&pool.lock);
	return room;
}

/* Up to n batches. */
static size_t pool_pop(struct batch **out, size_t n)
{
	size_t got = 0;

	pthread_mutex_lock(&pool.lock);
	while (got < n && pool.n > 0)
		out[got++] = pool.jobs[--pool.n];
	pthread_mutex_unlock(&pool.lock);
	return got;
}

static void give_verdict(struct batch *b, struct rng *r)
{
	static const enum verdict verdicts[] = { VERDICT_DELIVERED, VERDICT_DELIVERED,
						 VERDICT_DELIVERED, VERDICT_DROPPED,
						 VERDICT_PERMANENT, VERDICT_RETRYABLE };
	struct err err = ERR_INIT;
	uint64_t k = rng_below(r, 8);

	err_set(&err, ERR_UNAVAILABLE, "thread says no");
	if (k == 6)
		atomic_fetch_add(&pool.held_answers, batch_hold(b));
	else if (k == 7)
		batch_settle_partial(b, (uint32_t)rng_below(r, b->tables.n_spans + 1), &err);
	else
		batch_settle(b, verdicts[k], (enum drop_reason)rng_below(r, DROP_REASON_MAX), &err);
	batch_unref(b);
}

static void process(struct batch *b, struct rng *r, int depth);

static void branch(struct batch *b, struct rng *r, int depth)
{
	if (rng_below(r, 2) && pool_push(b))
		return;
	process(b, r, depth + 1);
}

static void process_fan_out(struct batch *b, struct rng *r, int depth)
{
	uint32_t k = 2 + (uint32_t)rng_below(r, 2);
	struct batch *looking = rng_below(r, 3) ? NULL : batch_detached(b);

	if (looking != NULL)
		give_verdict(looking, r);
	fan_out(b, k);
	while (--k > 0)
		branch(batch_ref(b), r, depth);
	branch(b, r, depth);
}

static void process(struct batch *b, struct rng *r, int depth)
{
	struct batch *parts[3];
	uint8_t keep[4096];
	size_t n;

	switch (depth > 3 ? 99 : rng_below(r, 6)) {
	case 0:
		assert(b->tables.n_spans <= sizeof(keep));
		for (uint32_t i = 0; i < b->tables.n_spans; i++)
			keep[i] = rng_below(r, 3) > 0;
		b = batch_filter(b, keep, (enum drop_reason)rng_below(r, 2));
		if (b != NULL)
			branch(b, r, depth);
		return;
	case 1:
		if (b->tables.n_spans < 2)
			break;
		batch_split(b, 1 + (uint32_t)rng_below(r, b->tables.n_spans - 1), &parts[0],
			    &parts[1]);
		branch(parts[0], r, depth);
		branch(parts[1], r, depth);
		return;
	case 2:
		process_fan_out(b, r, depth);
		return;
	case 3:
		parts[0] = b;
		n = 1 + pool_pop(parts + 1, 2);
		while (n > 1 && parts[0]->tables.n_spans + parts[n - 1]->tables.n_spans > 1000)
			branch(parts[--n], r, 4);
		branch(batch_concat(parts, n), r, depth);
		return;
	case 4:
		b = batch_editable(b);
		batch_set_trace_state(b, 0, BYTES_LIT("ot=th:8"));
		branch(b, r, depth);
		return;
	}
	give_verdict(b, r);
}

static void *worker(void *arg)
{
	struct request *mine = NULL;
	struct batch *b = NULL;
	struct rng r;
	uint8_t n;

	rng_seed(&r, (uint64_t)(uintptr_t)arg);
	for (int i = 0; i < REQUESTS; i++) {
		n = (uint8_t)(1 + rng_below(&r, SPANS_MAX));
		atomic_fetch_add(&pool.sent, n);
		b = make_request(n, &mine);
		if (rng_below(&r, 4) == 0 && pool_push(b))
			b = NULL;
		if (b != NULL)
			process(b, &r, 0);
		if (rng_below(&r, 8) == 0)
			atomic_store(&mine->withdrawn, origin_withdraw(&mine->origin) ? 1 : 2);
		request_unref(mine);
		if (pool_pop(&b, 1))
			process(b, &r, 1);
	}
	atomic_fetch_sub(&pool.producers, 1);
	while (atomic_load(&pool.producers) > 0)
		if (pool_pop(&b, 1))
			process(b, &r, 2);
	return NULL;
}

static void random_trees_on_many_threads(void **state)
{
	pthread_t threads[THREADS];
	struct batch *b;
	struct totals t;
	struct rng r;

	(void)state;
	reset_ledger();
	atomic_store(&n_settled, 0);
	atomic_store(&pool.producers, THREADS);
	for (uintptr_t i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, worker, (void *)(i + 1)), 0);
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	rng_seed(&r, 5);
	while (pool_pop(&b, 1))
		give_verdict(b, &r);
	t = read_ledger();
	printf("%llu spans: accepted %llu, refused %llu, delivered %llu, dropped %llu, held %lld\n",
	       (unsigned long long)atomic_load(&pool.sent), (unsigned long long)t.accepted,
	       (unsigned long long)t.refused, (unsigned long long)t.delivered,
	       (unsigned long long)t.dropped, (long long)t.held);
	assert_int_equal(atomic_load(&n_settled), THREADS * REQUESTS);
	assert_int_equal(t.in_flight, 0);
	assert_int_equal(t.accepted, t.delivered + t.dropped + (uint64_t)t.held);
	/* Refused requests count apart, except for what a log holds of them. */
	assert_true(t.accepted + t.refused >= atomic_load(&pool.sent));
	assert_true(t.accepted + t.refused <= atomic_load(&pool.sent) + (uint64_t)t.held);
	assert_true(t.delivered > 0 && t.dropped > 0 && t.held > 0 && t.refused > 0);
	/* The logs answer for exactly what is held: when all leaves them, nothing is held. */
	assert_int_equal(atomic_load(&pool.held_answers), t.held);
	ledger_held_delivered(&ledger, atomic_load(&pool.held_answers));
	t = read_ledger();
	assert_int_equal(t.held, 0);
	assert_int_equal(t.accepted, t.delivered + t.dropped);
}

static void every_reason_has_a_name(void **state)
{
	(void)state;
	for (int i = 0; i < DROP_REASON_MAX; i++)
		assert_non_null(drop_reason_name((enum drop_reason)i));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(answers),
		cmocka_unit_test(reasons_before_a_fan_out),
		cmocka_unit_test(promises_are_kept_in_the_books),
		cmocka_unit_test(partial_success_of_the_next_hop),
		cmocka_unit_test(withdrawal),
		cmocka_unit_test(origins_may_go_one_by_one),
		cmocka_unit_test(random_trees_on_many_threads),
		cmocka_unit_test(every_reason_has_a_name),
	};

	return cmocka_run_group_tests_name("origin", tests, NULL, NULL);
}
