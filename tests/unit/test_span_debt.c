/* SPDX-License-Identifier: Apache-2.0
 *
 * test_span_debt.c - the duty of spans that left their batch: settled once each, with and without a
 * fan-out, over many origins; and given back to an index of the same bytes.
 */
#include "tests/unit/sending_queue_fixture.h"

#include "pipeline/span/debt.h"

static void client_bind(struct client *c, struct batch *b)
{
	memset(c, 0, sizeof(*c));
	origin_init(&c->origin, b->tables.n_spans, client_settled);
	batch_bind(b, &c->origin);
}

/* Two requests over three records, in turn. */
static void each_record_pays_for_its_spans(void **state)
{
	static const uint32_t even[] = { 0, 2, 4 }, odd[] = { 1, 3 }, first[] = { 0 };
	struct span_debt records[3] = { { 0 } };
	struct client clients[2];
	struct batch *a = make_spans(0, 5, 10, "t", NULL), *b = make_spans(5, 3, 10, "t", NULL);

	(void)state;
	memset(&ledger, 0, sizeof(ledger));
	client_bind(&clients[0], a);
	client_bind(&clients[1], b);
	span_debt_take(&records[0], a, even, 3);
	span_debt_take(&records[1], a, odd, 2);
	span_debt_take(&records[1], b, first, 1);
	span_debt_take(&records[0], b, first + 0, 0);
	span_debt_take(&records[2], b, (const uint32_t[]){ 1, 2 }, 2);
	batch_unref(a);
	batch_unref(b);
	span_debt_settle(&records[0], VERDICT_DELIVERED, DROP_REASON_MAX, NULL);
	assert_int_equal(clients[0].settled, 0);
	span_debt_settle(&records[1], VERDICT_DELIVERED, DROP_REASON_MAX, NULL);
	assert_int_equal(clients[0].settled, 1);
	assert_int_equal(clients[1].settled, 0);
	span_debt_settle(&records[2], VERDICT_PERMANENT, DROP_TOO_LARGE, NULL);
	assert_int_equal(clients[1].settled, 1);
	assert_int_equal(clients[1].outcome.n_permanent, 2);
	assert_balance(8, 6, 2, 0);
	for (size_t i = 0; i < COUNT_OF(records); i++)
		span_debt_fini(&records[i]);
}

/* A span that also went to another branch is in the books once. */
static void a_fan_out_is_marked_span_by_span(void **state)
{
	struct span_debt here = { 0 }, there = { 0 };
	struct client c;
	struct batch *b = make_spans(0, 4, 10, "t", NULL);

	(void)state;
	memset(&ledger, 0, sizeof(ledger));
	client_bind(&c, b);
	origin_fan_out(&c.origin, 4, 1);
	span_debt_take(&here, b, NULL, 4);
	span_debt_take(&there, b, (const uint32_t[]){ 3, 1 }, 2);
	span_debt_settle(&here, VERDICT_PERMANENT, DROP_TOO_LARGE, NULL);
	span_debt_settle(&there, VERDICT_DELIVERED, DROP_REASON_MAX, NULL);
	assert_int_equal(c.settled, 0);
	span_debt_take(&there, b, (const uint32_t[]){ 0, 2 }, 2);
	span_debt_settle(&there, VERDICT_DROPPED, DROP_FILTERED, NULL);
	assert_int_equal(c.settled, 1);
	assert_balance(4, 2, 2, 0);
	assert_int_equal(atomic_load(&ledger.dropped[DROP_TOO_LARGE]), 2);
	batch_unref(b);
	span_debt_fini(&here);
	span_debt_fini(&there);
}

/* Requests of one span each, more than are looked back at, and one that comes again. */
static void many_origins(void **state)
{
	static struct client clients[500];
	struct batch *again = make_spans(0, 2, 10, "t", NULL);
	struct span_debt d = { 0 };
	struct client twice;

	(void)state;
	memset(&ledger, 0, sizeof(ledger));
	client_bind(&twice, again);
	span_debt_take(&d, again, (const uint32_t[]){ 0 }, 1);
	for (size_t i = 0; i < COUNT_OF(clients); i++) {
		struct batch *b = make_spans(2 + (uint32_t)i, 1, 10, "t", NULL);

		client_bind(&clients[i], b);
		span_debt_take(&d, b, NULL, 1);
		batch_unref(b);
	}
	span_debt_take(&d, again, (const uint32_t[]){ 1 }, 1);
	batch_unref(again);
	assert_int_equal(d.n_spans, 502);
	assert_false(span_debt_has_withdrawn(&d));
	assert_true(origin_withdraw(&clients[7].origin));
	assert_true(span_debt_has_withdrawn(&d));
	assert_false(span_debt_is_withdrawn(&d));
	span_debt_settle(&d, VERDICT_DELIVERED, DROP_REASON_MAX, NULL);
	assert_true(all_settled(clients, COUNT_OF(clients)) && twice.settled == 1);
	assert_balance(501, 501, 0, 0);
	span_debt_fini(&d);
}

static void a_detached_batch_owes_nothing(void **state)
{
	struct batch *b = make_spans(0, 3, 10, "t", NULL), *alone;
	struct span_debt d = { 0 };
	struct client c;

	(void)state;
	memset(&ledger, 0, sizeof(ledger));
	client_bind(&c, b);
	alone = batch_detached(b);
	span_debt_take(&d, alone, NULL, 3);
	assert_int_equal(d.n_spans, 3);
	assert_false(span_debt_is_withdrawn(&d));
	span_debt_settle(&d, VERDICT_RETRYABLE, DROP_REASON_MAX, NULL);
	assert_int_equal(c.settled, 0);
	span_debt_take(&d, alone, NULL, 3);
	batch_unref(alone);
	alone = make_spans(0, 3, 10, "t", NULL);
	span_debt_to_batch(&d, alone);
	batch_settle(alone, VERDICT_DELIVERED, DROP_REASON_MAX, NULL);
	assert_int_equal(c.settled, 0);
	batch_unref(alone);
	batch_settle(b, VERDICT_DELIVERED, DROP_REASON_MAX, NULL);
	assert_int_equal(c.settled, 1);
	batch_unref(b);
	span_debt_fini(&d);
}

/* Out of a batch, back into an index of the same bytes, and then one span is dropped. */
static void a_batch_gets_its_duty_back(void **state)
{
	struct batch *a = make_spans(0, 2, 10, "t", NULL), *b = make_spans(2, 2, 10, "t", NULL);
	struct batch *again = make_spans(0, 4, 10, "t", NULL);
	struct span_debt d = { 0 };
	struct client clients[2];

	(void)state;
	memset(&ledger, 0, sizeof(ledger));
	client_bind(&clients[0], a);
	client_bind(&clients[1], b);
	span_debt_take(&d, a, NULL, 2);
	span_debt_take(&d, b, NULL, 2);
	batch_unref(a);
	batch_unref(b);
	span_debt_to_batch(&d, again);
	assert_int_equal(d.n_spans, 0);
	again = batch_filter(again, (const uint8_t[]){ 1, 0, 1, 1 }, DROP_FILTERED);
	assert_int_equal(again->tables.n_spans, 3);
	assert_int_equal(clients[0].settled, 0);
	batch_settle(again, VERDICT_DELIVERED, DROP_REASON_MAX, NULL);
	assert_true(all_settled(clients, 2));
	assert_balance(4, 3, 1, 0);
	batch_unref(again);
	span_debt_fini(&d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_record_pays_for_its_spans),
		cmocka_unit_test(a_fan_out_is_marked_span_by_span),
		cmocka_unit_test(many_origins),
		cmocka_unit_test(a_detached_batch_owes_nothing),
		cmocka_unit_test(a_batch_gets_its_duty_back),
	};

	return cmocka_run_group_tests_name("span_debt", tests, NULL, NULL);
}
