/* SPDX-License-Identifier: Apache-2.0
 *
 * test_sending_queue.c - the sending queue in memory: nothing lost, nothing doubled, whatever the
 * next hop says; what nobody waits for is given up.
 */
#include "tests/unit/sending_queue_fixture.h"

#include "pipeline/span/debt.h"

static struct client clients[SPANS_MAX];

static void thousand_spans_under_every_answer(void **state)
{
	struct bed *bed = bed_new();
	uint32_t n_clients = 0, at = 0;
	uint64_t n_permanent = 0;

	(void)state;
	bed->behave = hop_moody;
	bed_start(bed);
	for (; at < 1000; n_clients++) {
		uint32_t n = MIN(1 + at % 7, 1000 - at);

		client_send(bed, &clients[n_clients], at, n, 10, "t");
		at += n;
	}
	WAIT_FOR(all_settled(clients, n_clients));
	WAIT_FOR(sending_queue_is_drained(bed->q));
	assert_each_once(bed, 1000);
	for (uint32_t i = 0; i < n_clients; i++) {
		assert_int_equal(clients[i].settled, 1);
		assert_false(clients[i].outcome.retryable);
		n_permanent += clients[i].outcome.n_permanent;
	}
	assert_int_equal(n_permanent, bed->n_rejected + bed->n_permanent);
	assert_true(bed->n_retries > 0);
	assert_balance(1000, bed->n_ok, n_permanent, 0);
	assert_int_equal(bed->counters[0].sent + bed->counters[0].send_failed, 1000);
	assert_int_equal(bed->counters[0].queue_size, 0);
	bed_free(bed);
}

/* Batches of several clients, some of whom do not wait any more: only the others' spans are sent.
 */
static void withdrawn_spans_of_a_merged_batch_stay_behind(void **state)
{
	struct bed *bed = bed_new();
	struct batch *v[10];

	(void)state;
	bed_start(bed);
	for (uint32_t i = 0; i < 10; i++) {
		v[i] = make_spans(i * 3, 3, 10, "t", &bed->service.budget);
		memset(&clients[i], 0, sizeof(clients[i]));
		origin_init(&clients[i].origin, 3, client_settled);
		batch_bind(v[i], &clients[i].origin);
		if (i % 2 == 0)
			assert_true(origin_withdraw(&clients[i].origin));
	}
	sending_queue_consume(bed->q, batch_concat(v, 10));
	WAIT_FOR(all_settled(clients, 10));
	for (uint32_t i = 0; i < 30; i++)
		assert_int_equal(bed->fate[i], i / 3 % 2);
	assert_balance(15, 15, 0, 0);
	assert_int_equal(ledger.refused, 15);
	bed_free(bed);
}

static void withdraw_all(uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		origin_withdraw(&clients[i].origin);
}

/* Sent, sleeping and waiting requests are all given up soon after their clients were. */
static void withdrawn_requests_are_given_up(void **state)
{
	static enum hop_does (*const moods[])(struct bed *) = { hop_hold, hop_down };

	(void)state;
	for (size_t m = 0; m < COUNT_OF(moods); m++) {
		struct bed *bed = bed_new();
		uint32_t n_tries = 0;

		bed->behave = moods[m];
		bed->retry.initial_interval_ns = bed->retry.max_interval_ns =
			3600 * (int64_t)NS_PER_S;
		bed_start(bed);
		for (uint32_t i = 0; i < 20; i++)
			client_send(bed, &clients[i], i, 1, 10, "t");
		WAIT_FOR(bed->n_calls == 4);
		withdraw_all(20);
		WAIT_FOR(all_settled(clients, 20));
		WAIT_FOR(sending_queue_is_drained(bed->q));
		for (uint32_t i = 0; i < 20; i++)
			n_tries += bed->tries[i];
		assert_int_equal(n_tries, 4);
		assert_balance(0, 0, 0, 0);
		assert_int_equal(ledger.refused, 20);
		bed_free(bed);
	}
}

static void full_queue_refuses(void **state)
{
	struct bed *bed = bed_new();

	(void)state;
	bed->behave = hop_hold;
	bed->queue.sizer = QUEUE_SIZER_ITEMS;
	bed->queue.queue_size = 10;
	bed_start(bed);
	client_send(bed, &clients[0], 0, 8, 10, "t");
	client_send(bed, &clients[1], 8, 3, 10, "t");
	client_send(bed, &clients[2], 11, 2, 10, "t");
	WAIT_FOR(bed->n_calls == 2);
	assert_int_equal(clients[1].settled, 1);
	assert_true(clients[1].outcome.retryable);
	assert_string_equal(clients[1].message, "sending queue is full");
	assert_int_equal(bed->counters[0].enqueue_failed, 3);
	assert_int_equal(bed->counters[0].queue_size, 10);
	hop_release(bed);
	WAIT_FOR(all_settled(clients, 3));
	/* Larger than the whole queue, but alone. */
	client_send(bed, &clients[3], 13, 20, 10, "t");
	WAIT_FOR(bed->n_calls == 3);
	hop_release(bed);
	WAIT_FOR(all_settled(clients, 4));
	assert_balance(30, 30, 0, 0);
	bed_free(bed);
}

/* The caller waits for its answer anyway: with block_on_overflow also when there is no room. */
static void overflow_waits_when_told_to(void **state)
{
	struct bed *bed = bed_new();

	(void)state;
	bed->behave = hop_hold;
	bed->queue.num_consumers = 1;
	bed->queue.queue_size = 2;
	bed->queue.block_on_overflow = true;
	bed_start(bed);
	for (uint32_t i = 0; i < 20; i++)
		client_send(bed, &clients[i], i, 1, 10, "t");
	WAIT_FOR(bed->n_calls == 1);
	origin_withdraw(&clients[19].origin);
	WAIT_FOR(clients[19].settled == 1);
	for (uint32_t i = 0; i < 19; i++)
		assert_int_equal(clients[i].settled, 0);
	while (!all_settled(clients, 20)) {
		hop_release(bed);
		usleep(500);
	}
	assert_each_once(bed, 19);
	assert_balance(19, 19, 0, 0);
	bed_free(bed);
}

static void without_a_queue_all_are_sent_at_once(void **state)
{
	struct bed *bed = bed_new();

	(void)state;
	bed->behave = hop_hold;
	bed->queue.enabled = false;
	bed->queue.queue_size = 1;
	bed_start(bed);
	for (uint32_t i = 0; i < 30; i++)
		client_send(bed, &clients[i], i, 1, 10, "t");
	WAIT_FOR(bed->n_calls == 30);
	hop_release(bed);
	WAIT_FOR(all_settled(clients, 30));
	bed_free(bed);
}

static void large_batches_are_split(void **state)
{
	struct bed *bed = bed_new();

	(void)state;
	bed->max_request_bytes = 5000;
	bed_start(bed);
	client_send(bed, &clients[0], 0, 1000, 100, "t");
	WAIT_FOR(all_settled(clients, 1));
	assert_each_once(bed, 1000);
	assert_true(bed->bytes_max <= 5000);
	assert_true(bed->n_calls >= 1000 * 100 / 5000);
	assert_balance(1000, 1000, 0, 0);
	bed_free(bed);
}

/* batch.max_size splits exactly; in bytes, as large messages are. */
static void larger_than_batch_max_size(void **state)
{
	(void)state;
	for (int by_bytes = 0; by_bytes < 2; by_bytes++) {
		struct bed *bed = bed_new();

		bed->queue.batch_on = true;
		bed->queue.batch.sizer = by_bytes ? QUEUE_SIZER_BYTES : QUEUE_SIZER_ITEMS;
		bed->queue.batch.min_size = 1;
		bed->queue.batch.max_size = by_bytes ? 3000 : 30;
		bed_start(bed);
		client_send(bed, &clients[0], 0, 1000, 100, "t");
		WAIT_FOR(all_settled(clients, 1));
		assert_each_once(bed, 1000);
		if (by_bytes)
			assert_in_range(bed->bytes_max, 1500, 3000);
		else
			assert_int_equal(bed->n_calls, 34);
		assert_balance(1000, 1000, 0, 0);
		bed_free(bed);
	}
}

static enum hop_does small_only(struct bed *bed)
{
	return bed->bytes_now > 150000 ? HOP_TOO_LARGE : HOP_OK;
}

/* A hop that takes less than configured is met with refused requests a few times, then no more. */
static void a_smaller_limit_is_learnt(void **state)
{
	struct bed *bed = bed_new();
	uint32_t before;

	(void)state;
	bed->behave = small_only;
	bed_start(bed);
	client_send(bed, &clients[0], 0, 4000, 100, "t");
	WAIT_FOR(all_settled(clients, 1));
	before = bed->n_calls;
	client_send(bed, &clients[1], 4000, 4000, 100, "t");
	WAIT_FOR(all_settled(clients, 2));
	assert_each_once(bed, 8000);
	assert_true(before > 4);
	assert_int_equal(bed->n_calls - before, 4);
	bed_free(bed);
}

static void joined_with_batch(void **state)
{
	struct bed *bed = bed_new();

	(void)state;
	bed->behave = hop_hold;
	bed->queue.num_consumers = 1;
	bed->queue.batch_on = true;
	bed->queue.batch.sizer = QUEUE_SIZER_ITEMS;
	bed->queue.batch.min_size = 10;
	bed_start(bed);
	client_send(bed, &clients[0], 0, 1, 10, "t");
	WAIT_FOR(bed->n_calls == 1);
	for (uint32_t i = 1; i < 40; i++)
		client_send(bed, &clients[i], i, 1, 10, i < 30 ? "t" : "u");
	hop_release(bed);
	WAIT_FOR(bed->n_calls == 2);
	assert_int_equal(bed->n_spans_last, 10);
	while (!all_settled(clients, 40)) {
		hop_release(bed);
		usleep(500);
	}
	assert_each_once(bed, 40);
	assert_int_equal(bed->n_calls, 1 + 3 + 1);
	assert_balance(40, 40, 0, 0);
	bed_free(bed);
}

static enum hop_does told_once(struct bed *bed)
{
	return bed->n_calls == 0 ? HOP_TOLD : HOP_OK;
}

static void told_pauses_are_kept(void **state)
{
	struct bed *bed = bed_new();
	uint64_t start = clock_mono_ns();

	(void)state;
	bed->behave = told_once;
	bed_start(bed);
	client_send(bed, &clients[0], 0, 1, 10, "t");
	/* Successes of others do not rouse it. */
	WAIT_FOR(bed->n_retries == 1);
	client_send(bed, &clients[1], 1, 1, 10, "t");
	WAIT_FOR(all_settled(clients, 2));
	assert_true(clock_mono_ns() - start >= 300 * NS_PER_MS);
	assert_int_equal(bed->n_calls, 3);
	bed_free(bed);
}

static void elapsed_time_ends_retries(void **state)
{
	struct bed *bed = bed_new();

	(void)state;
	bed->behave = hop_down;
	bed->retry.max_elapsed_time_ns = 50 * (int64_t)NS_PER_MS;
	bed_start(bed);
	client_send(bed, &clients[0], 0, 1, 10, "t");
	WAIT_FOR(all_settled(clients, 1));
	assert_true(clients[0].outcome.retryable);
	assert_true(bed->n_calls > 1);
	assert_int_equal(bed->counters[0].send_failed, 1);
	assert_balance(0, 0, 0, 0);
	bed_free(bed);
}

/* In flight, sleeping, waiting: all are answered when the queue goes. */
static void free_answers_everyone(void **state)
{
	static enum hop_does (*const moods[])(struct bed *) = { hop_hold, hop_down };

	(void)state;
	for (size_t m = 0; m < COUNT_OF(moods); m++) {
		struct bed *bed = bed_new();

		bed->behave = moods[m];
		bed->retry.initial_interval_ns = 3600 * (int64_t)NS_PER_S;
		bed->retry.max_interval_ns = 3600 * (int64_t)NS_PER_S;
		bed_start(bed);
		for (uint32_t i = 0; i < 20; i++)
			client_send(bed, &clients[i], i, 1, 10, "t");
		WAIT_FOR(bed->n_calls == 4);
		bed_stop(bed);
		assert_true(all_settled(clients, 20));
		for (uint32_t i = 0; i < 20; i++)
			assert_true(clients[i].outcome.retryable);
		assert_balance(0, 0, 0, 0);
		bed_free(bed);
	}
}

/* A drain wakes sleepers and goes on until the hop takes what there is. */
static void drain_sends_what_sleeps(void **state)
{
	struct bed *bed = bed_new();

	(void)state;
	bed->behave = hop_down;
	bed->retry.initial_interval_ns = 3600 * (int64_t)NS_PER_S;
	bed->retry.max_interval_ns = 3600 * (int64_t)NS_PER_S;
	bed_start(bed);
	for (uint32_t i = 0; i < 20; i++)
		client_send(bed, &clients[i], i, 1, 10, "t");
	WAIT_FOR(bed->n_calls == 4);
	assert_false(sending_queue_is_drained(bed->q));
	hop_change(bed, hop_ok);
	sending_queue_drain(bed->q);
	WAIT_FOR(sending_queue_is_drained(bed->q));
	assert_each_once(bed, 20);
	assert_balance(20, 20, 0, 0);
	bed_free(bed);
}

/* ---- an exporter that takes spans over ---- */

static struct {
	struct send_request *kept; /* no room for it yet */
	struct span_debt debt;     /* of what was taken */
	bool has_room;
	_Atomic uint32_t n_taken, n_kept;
} taker;

static void take(struct send_request *r)
{
	assert_null(r->encoding.pieces);
	span_debt_take(&taker.debt, r->batch, NULL, r->batch->tables.n_spans);
	atomic_fetch_add(&taker.n_taken, 1);
	sending_queue_done(r, SEND_TAKEN, 0, NULL);
}

static void taker_send(struct component *c, struct send_request *r)
{
	(void)c;
	assert_null(taker.kept);
	if (taker.has_room) {
		take(r);
		return;
	}
	taker.kept = r;
	atomic_fetch_add(&taker.n_kept, 1);
}

static void taker_cancel(struct component *c, struct send_request *r)
{
	(void)c;
	assert_ptr_equal(taker.kept, r);
	taker.kept = NULL;
	sending_queue_done(r, SEND_RETRYABLE, 0, &(struct err){ .kind = ERR_UNAVAILABLE });
}

static void make_room(void *arg)
{
	struct send_request *r = taker.kept;

	(void)arg;
	taker.has_room = true;
	taker.kept = NULL;
	take(r);
}

static void settle_taken(void *arg)
{
	(void)arg;
	span_debt_settle(&taker.debt, VERDICT_DELIVERED, DROP_REASON_MAX, NULL);
	span_debt_fini(&taker.debt);
}

/* One request is with the exporter until it has room; what it took, it settles itself. */
static void spans_are_taken_over(void **state)
{
	enum { REQUESTS = 20 };
	struct bed *bed = bed_new();

	(void)state;
	memset(&taker, 0, sizeof(taker));
	bed->q = sending_queue_new(
		&(struct sending_queue_settings){ .component = &bed->components[0],
						  .loop = bed->loop,
						  .queue = &bed->queue,
						  .retry = &bed->retry,
						  .takes_spans = true,
						  .send = taker_send,
						  .cancel = taker_cancel },
		NULL);
	assert_non_null(bed->q);
	for (uint32_t i = 0; i < REQUESTS; i++)
		client_send(bed, &clients[i], 3 * i, 3, 20, "t");
	WAIT_FOR(atomic_load(&taker.n_kept) == 1);
	assert_false(sending_queue_is_drained(bed->q));
	loop_call(bed->loop, make_room, bed);
	WAIT_FOR(atomic_load(&taker.n_taken) == REQUESTS);
	WAIT_FOR(sending_queue_is_drained(bed->q));
	assert_int_equal(atomic_load(&taker.n_kept), 1);
	for (size_t i = 0; i < REQUESTS; i++)
		assert_int_equal(clients[i].settled, 0);
	loop_call(bed->loop, settle_taken, bed);
	assert_true(all_settled(clients, REQUESTS));
	assert_balance(60, 60, 0, 0);
	bed_free(bed);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(spans_are_taken_over),
		cmocka_unit_test(thousand_spans_under_every_answer),
		cmocka_unit_test(withdrawn_spans_of_a_merged_batch_stay_behind),
		cmocka_unit_test(withdrawn_requests_are_given_up),
		cmocka_unit_test(full_queue_refuses),
		cmocka_unit_test(overflow_waits_when_told_to),
		cmocka_unit_test(without_a_queue_all_are_sent_at_once),
		cmocka_unit_test(large_batches_are_split),
		cmocka_unit_test(larger_than_batch_max_size),
		cmocka_unit_test(a_smaller_limit_is_learnt),
		cmocka_unit_test(joined_with_batch),
		cmocka_unit_test(told_pauses_are_kept),
		cmocka_unit_test(elapsed_time_ends_retries),
		cmocka_unit_test(free_answers_everyone),
		cmocka_unit_test(drain_sends_what_sleeps),
	};

	return cmocka_run_group_tests_name("sending_queue", tests, NULL, NULL);
}
