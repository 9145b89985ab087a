/* SPDX-License-Identifier: Apache-2.0
 *
 * test_slots.c - slots of exemplars: who takes one, what it shows and when, what is freed when; how
 * many are filled behind a sampler (the reference's table); many threads.
 */
#include "connectors/spanmetrics/slots.h"

#include "base/clock.h"
#include "base/mem.h"
#include "base/rng.h"
#include "tests/unit/otlp_fixture.h"
#include "wire/tracestate.h"

#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#define W56 TRACESTATE_W56

/* A request of one span, beside whose slot an exporter gets it. */
struct request {
	struct origin origin;
	struct batch *b;
};

static void settled(struct origin *o)
{
	origin_fini(o);
	free(CONTAINER_OF(o, struct request, origin));
}

static struct batch *one_span(void)
{
	struct buf out = BUF_INIT;
	struct otlp_result result;
	struct rcbuf *r;
	struct batch *b;
	size_t rs = pb_begin(&out, 1), ss = pb_begin(&out, 2);

	put_small_span(&out, 1);
	pb_end(&out, ss);
	pb_end(&out, rs);
	r = rcbuf_new(NULL, out.n);
	memcpy(r->p, out.p, out.n);
	r->n = out.n;
	buf_fini(&out);
	b = batch_from_otlp(r, "t", NULL, &result, NULL);
	assert_non_null(b);
	return b;
}

/* The span with this R ended at end_ns. */
static struct request *request_new(uint64_t r, uint64_t end_ns)
{
	struct request *rq = xcalloc(1, sizeof(*rq));
	struct span_ref *sp;

	rq->b = one_span();
	sp = &rq->b->tables.spans[0];
	sp->r = r;
	sp->end_ns = end_ns;
	store_be64(sp->trace_id + 8, r);
	origin_init(&rq->origin, 1, settled);
	batch_bind(rq->b, &rq->origin);
	origin_fan_out(&rq->origin, 1, 1);
	return rq;
}

static void end(struct request *rq, enum verdict v)
{
	struct batch *b = rq->b;

	batch_settle(b, VERDICT_DROPPED, DROP_BEST_EFFORT, NULL);
	batch_settle(b, v, DROP_FILTERED, NULL);
	batch_unref(b);
}

static struct slot_bid bid_0 = { .interval = 1, .value_ns = 7, .now_ns = 1000 * NS_PER_S };

/* The span's R competes; its request is ended by the caller. */
static struct request *compete(struct slots **slots, struct slot_bid *bid, uint64_t r)
{
	struct request *rq = request_new(r, bid->now_ns - NS_PER_MS);
	size_t grown;

	slots_compete(slots, bid, rq->b, 0, &grown);
	return rq;
}

/* The R that is shown, or 0. */
static uint64_t shown(struct slots *slots, struct slot_bid *bid)
{
	struct exemplar e;

	return slots_exposed(slots, bid->bucket, bid->now_ns, &e) ? e.r : 0;
}

static void shown_when_durable(void **state)
{
	static const struct {
		enum verdict v;
		bool is_shown;
	} cases[] = {
		{ VERDICT_DELIVERED, true },  { VERDICT_STORED, true },
		{ VERDICT_DROPPED, false },   { VERDICT_ASIDE, false },
		{ VERDICT_PERMANENT, false }, { VERDICT_RETRYABLE, false },
		{ VERDICT_HELD, false },
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		struct slots *slots = NULL;
		struct request *rq;

		rq = compete(&slots, &bid_0, 5);
		assert_int_equal(shown(slots, &bid_0), 0);
		end(rq, cases[i].v);
		if (shown(slots, &bid_0) != (cases[i].is_shown ? 5 : 0))
			fail_msg("case %zu", i);
		slots_free(slots);
		assert_int_equal(slots_n_waiting(), 0);
	}
}

static void the_greatest_r_takes_it(void **state)
{
	struct slot_bid bid = bid_0;
	struct slots *slots = NULL;
	struct exemplar e;

	(void)state;
	end(compete(&slots, &bid, 5), VERDICT_DELIVERED);
	end(compete(&slots, &bid, 4), VERDICT_DELIVERED);
	assert_int_equal(shown(slots, &bid), 5);
	end(compete(&slots, &bid, 9), VERDICT_DELIVERED);
	assert_int_equal(shown(slots, &bid), 9);
	/* A new interval begins with an open slot, and shows the old one until then. */
	bid.interval = 2;
	bid.now_ns += 60 * NS_PER_S;
	assert_int_equal(shown(slots, &bid), 9);
	end(compete(&slots, &bid, 2), VERDICT_DELIVERED);
	assert_int_equal(shown(slots, &bid), 2);
	/* Other buckets are other slots; the best of all is what a counter shows. */
	bid.bucket = 3;
	assert_int_equal(shown(slots, &bid), 0);
	end(compete(&slots, &bid, 7), VERDICT_DELIVERED);
	assert_int_equal(shown(slots, &bid), 7);
	assert_true(slots_best(slots, bid.now_ns, &e) && e.r == 7);
	assert_int_equal(e.value_ns, 7);
	slots_free(slots);
	assert_int_equal(slots_n_waiting(), 0);
}

/* The slot of a candidate that is lost is open again, and shows what it showed. */
static void lost_candidates(void **state)
{
	struct slots *slots = NULL;
	struct request *a, *b;
	size_t grown;

	(void)state;
	end(compete(&slots, &bid_0, 3), VERDICT_DELIVERED);
	a = compete(&slots, &bid_0, 8);
	b = compete(&slots, &bid_0, 9);
	assert_false(slots_offer(&slots, &bid_0, 5, &grown));
	assert_int_equal(slots_n_waiting(), 2);
	end(b, VERDICT_DROPPED);
	assert_int_equal(shown(slots, &bid_0), 3);
	assert_true(slots_offer(&slots, &bid_0, 5, &grown));
	/* The one before it may still make it. */
	end(a, VERDICT_DELIVERED);
	assert_int_equal(shown(slots, &bid_0), 8);
	slots_free(slots);
	assert_int_equal(slots_n_waiting(), 0);
}

static void told_in_any_order(void **state)
{
	(void)state;
	for (int order = 0; order < 2; order++) {
		struct slots *slots = NULL;
		struct request *v[3];

		for (int i = 0; i < 3; i++)
			v[i] = compete(&slots, &bid_0, 10 + (uint64_t)i);
		/* Two wait in the slot, the one between them is for nobody. */
		assert_int_equal(slots_n_waiting(), 3);
		for (int i = 0; i < 3; i++)
			end(v[order ? 2 - i : i], VERDICT_DELIVERED);
		assert_int_equal(slots_n_waiting(), 2);
		assert_int_equal(shown(slots, &bid_0), 12);
		assert_int_equal(slots_n_waiting(), 0);
		slots_free(slots);
	}
}

static void the_row_goes_first(void **state)
{
	struct slots *slots = NULL;
	struct request *a = compete(&slots, &bid_0, 3), *b = compete(&slots, &bid_0, 4);

	(void)state;
	slots_free(slots);
	assert_int_equal(slots_n_waiting(), 2);
	end(a, VERDICT_DELIVERED);
	end(b, VERDICT_DROPPED);
	assert_int_equal(slots_n_waiting(), 0);
}

static void offers_rise(void **state)
{
	struct slot_bid bid = bid_0;
	struct slots *slots = NULL;
	size_t grown, sum = 0;

	(void)state;
	assert_true(slots_offer(&slots, &bid, 0, &grown));
	sum += grown;
	assert_false(slots_offer(&slots, &bid, 0, &grown));
	assert_true(slots_offer(&slots, &bid, 6, &grown));
	assert_false(slots_offer(&slots, &bid, 6, &grown));
	assert_false(slots_offer(&slots, &bid, 5, &grown));
	for (bid.bucket = 1; bid.bucket < 9; bid.bucket++) {
		assert_true(slots_offer(&slots, &bid, 5, &grown));
		sum += grown;
	}
	assert_int_equal(sum, slots_bytes(slots));
	bid.bucket = 0;
	bid.interval++;
	assert_true(slots_offer(&slots, &bid, 5, &grown));
	slots_free(slots);
}

static void times_rise_and_end(void **state)
{
	struct slot_bid bid = bid_0;
	struct slots *slots = NULL;
	struct exemplar e;
	uint64_t last = 0;

	(void)state;
	for (uint64_t i = 0; i < 6; i++) {
		static const int64_t ends_ms[6] = { 0, -5000, 3, 1000000, -1, 2 };
		struct request *rq;
		size_t grown;

		bid.interval = i;
		bid.now_ns += 60 * NS_PER_S;
		rq = request_new(5, bid.now_ns + (uint64_t)(ends_ms[i] * (int64_t)NS_PER_MS));
		slots_compete(&slots, &bid, rq->b, 0, &grown);
		end(rq, VERDICT_DELIVERED);
		assert_true(slots_exposed(slots, 0, bid.now_ns, &e));
		assert_true(e.time_ns / NS_PER_MS > last / NS_PER_MS);
		assert_true(e.time_ns <= bid.now_ns);
		last = e.time_ns;
	}
	/* Its trace will be gone one day. */
	assert_true(slots_exposed(slots, 0, bid.now_ns + 3600 * NS_PER_S, &e));
	assert_false(slots_exposed(slots, 0, bid.now_ns + 3601 * NS_PER_S, &e));
	slots_free(slots);
}

static void who_may_compete(void **state)
{
	struct batch *b = one_span();
	struct span_ref *sp = &b->tables.spans[0];

	(void)state;
	sp->r = W56 / 2;
	sp->th = TH_UNKNOWN;
	assert_true(slots_may_compete(sp, 0));
	assert_true(slots_may_compete(sp, W56 / 2));
	assert_false(slots_may_compete(sp, W56 / 2 + 1));
	sp->is_kept = true;
	assert_true(slots_may_compete(sp, W56 / 2 + 1));
	/* A th that cannot be: the next sampler may drop it for that. */
	sp->th = W56 / 2 + 1;
	assert_false(slots_may_compete(sp, 0));
	sp->th = W56 / 2;
	assert_true(slots_may_compete(sp, 0));
	batch_unref(b);
}

static void nobody_tells_of_a_detached_batch(void **state)
{
	struct batch *b = one_span(), *d = batch_detached(b);
	struct slots *slots = NULL;
	size_t grown;

	(void)state;
	slots_compete(&slots, &bid_0, d, 0, &grown);
	assert_int_equal(slots_n_waiting(), 0);
	batch_unref(d);
	batch_unref(b);
	slots_free(slots);
}

/* ---- how many are filled ---- */

enum { TRIALS = 4000 };

/* n observations a slot, a sampler that keeps p behind: the shares of slots that show something,
 * and of those that show what the sampler dropped. */
static double filled(uint32_t n, double p, uint64_t guard, struct rng *rng)
{
	uint64_t th = tracestate_threshold(p, 14);
	uint32_t n_filled = 0;

	for (int k = 0; k < TRIALS; k++) {
		struct slots *slots = NULL;

		for (uint32_t i = 0; i < n; i++) {
			uint64_t r = rng_next(rng) >> 8;
			size_t grown;

			if (r < guard || !slots_offer(&slots, &bid_0, r, &grown))
				continue;
			end(compete(&slots, &bid_0, r),
			    r >= th ? VERDICT_DELIVERED : VERDICT_DROPPED);
		}
		if (shown(slots, &bid_0) > 0) {
			n_filled++;
			assert_true(shown(slots, &bid_0) >= th);
		}
		slots_free(slots);
	}
	assert_int_equal(slots_n_waiting(), 0);
	return (double)n_filled / TRIALS;
}

static void fill_rates_of_the_reference(void **state)
{
	static const struct {
		uint32_t n;
		double p, filled;
	} cases[] = { { 10, .1, .653 }, { 100, .1, 1 }, { 100, .01, .638 }, { 1000, .01, 1 } };
	struct rng rng;

	(void)state;
	rng_seed(&rng, 6);
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		double want = cases[i].filled;
		uint64_t guard = tracestate_threshold(cases[i].p, 14);
		double got = filled(cases[i].n, cases[i].p, guard, &rng);

		printf("%u a slot, %g kept: %.4f filled (%.3f)\n", cases[i].n, cases[i].p, got,
		       want);
		assert_true(fabs(got - want) < 4 * sqrt(.25 / TRIALS));
		if (want == 1)
			assert_true(got > .998);
	}
	/* With the gate open what the sampler dropped is known in this process, and not shown. */
	assert_true(filled(100, .1, 0, &rng) > .99);
}

/* ---- many threads ---- */

enum { THREADS = 4, ROUNDS = 20000 };

static struct {
	pthread_mutex_t lock;
	struct slots *slots;
} row = { .lock = PTHREAD_MUTEX_INITIALIZER };

/* Its lowest bit says whether it will be found. */
static void *bidder(void *arg)
{
	struct request *under_way[8] = { NULL };
	struct slot_bid bid = bid_0;
	struct rng rng;
	struct exemplar e;

	rng_seed(&rng, (uint64_t)(uintptr_t)arg);
	for (int i = 0; i < ROUNDS; i++) {
		uint64_t r = rng_next(&rng) >> 8, k = rng_below(&rng, 8);
		size_t grown;

		bid.interval = (uint64_t)i / 500;
		bid.now_ns += NS_PER_MS;
		bid.bucket = (uint32_t)rng_below(&rng, 3);
		if (under_way[k] != NULL)
			end(under_way[k], under_way[k]->b->tables.spans[0].r & 1 ? VERDICT_STORED
										 : VERDICT_DROPPED);
		under_way[k] = NULL;
		pthread_mutex_lock(&row.lock);
		if (slots_offer(&row.slots, &bid, r, &grown))
			under_way[k] = compete(&row.slots, &bid, r);
		if (slots_exposed(row.slots, bid.bucket, bid.now_ns, &e))
			assert_true(e.r & 1);
		if (rng_below(&rng, 1000) == 0) {
			slots_free(row.slots);
			row.slots = NULL;
		}
		pthread_mutex_unlock(&row.lock);
	}
	for (int k = 0; k < 8; k++)
		if (under_way[k] != NULL)
			end(under_way[k], VERDICT_DROPPED);
	return NULL;
}

static void many_threads(void **state)
{
	pthread_t threads[THREADS];

	(void)state;
	for (uintptr_t i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, bidder, (void *)(i + 1)), 0);
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	slots_free(row.slots);
	assert_int_equal(slots_n_waiting(), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(shown_when_durable),
		cmocka_unit_test(the_greatest_r_takes_it),
		cmocka_unit_test(lost_candidates),
		cmocka_unit_test(told_in_any_order),
		cmocka_unit_test(the_row_goes_first),
		cmocka_unit_test(offers_rise),
		cmocka_unit_test(times_rise_and_end),
		cmocka_unit_test(who_may_compete),
		cmocka_unit_test(nobody_tells_of_a_detached_batch),
		cmocka_unit_test(fill_rates_of_the_reference),
		cmocka_unit_test(many_threads),
	};

	return cmocka_run_group_tests_name("slots", tests, NULL, NULL);
}
