/* SPDX-License-Identifier: Apache-2.0
 *
 * sending_queue_fixture.h - what the tests of the sending queue share: clients with numbered spans,
 * and a next hop that answers as it is told.
 *
 * A client is one request: it is settled once, and keeps its outcome. The hop reads what it is sent
 * (the encoded bytes, not the batch) and notes the fate of every span number: a span whose fate is
 * decided twice was doubled, one without a fate was lost.
 */
#ifndef TESTS_UNIT_SENDING_QUEUE_FIXTURE_H
#define TESTS_UNIT_SENDING_QUEUE_FIXTURE_H

#include "base/clock.h"
#include "base/mem.h"
#include "base/rng.h"
#include "pipeline/service/ask.h"
#include "pipeline/span/left.h"
#include "pipeline/send/queue.h"
#include "pipeline/service/service.h"
#include "wire/pb.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

enum { SPANS_MAX = 20000 };

/* What the hop does with a call. */
enum hop_does {
	HOP_OK,
	HOP_RETRYABLE,
	HOP_TOLD,
	HOP_PERMANENT,
	HOP_TOO_LARGE,
	HOP_PARTIAL,
	HOP_HOLD
};

/* A call that the hop has not answered. */
struct call {
	struct send_request *r;
	struct loop_timer timer;
	enum hop_does does;
	struct call *next;
};

struct bed {
	struct service service;
	struct component components[2], *list[2]; /* the exporter, file_storage */
	struct component_counters counters[2];
	struct loop *loop;
	struct queue_options queue;
	struct retry_options retry;
	struct sending_queue_storage storage;
	struct sending_queue *q;
	uint64_t max_request_bytes;
	/* the hop; touched on the loop */
	enum hop_does (*behave)(struct bed *bed);
	struct rng rng;
	struct call *held;
	_Atomic uint32_t n_calls, n_spans_last, n_held, n_retries;
	_Atomic uint64_t n_rejected, n_permanent, n_ok;
	_Atomic uint8_t fate[SPANS_MAX]; /* how often decided */
	_Atomic uint8_t tries[SPANS_MAX];
	_Atomic uint64_t bytes_max, bytes_now; /* of a call: the largest, the one to be judged */
	enum hop_does (*next_mood)(struct bed *bed);
};

/* ---- clients ---- */

struct client {
	struct origin origin;
	_Atomic int settled;
	struct origin_outcome outcome;
	char message[256];
};

static inline void client_settled(struct origin *o)
{
	struct client *c = CONTAINER_OF(o, struct client, origin);

	origin_outcome(o, &c->outcome);
	snprintf(c->message, sizeof(c->message), "%s", c->outcome.err->msg);
	origin_fini(o);
	atomic_fetch_add(&c->settled, 1);
}

/* Spans first..first+n of about `bytes` bytes each. */
static inline struct batch *make_spans(uint32_t first, uint32_t n, size_t bytes, const char *tenant,
				       struct budget *budget)
{
	struct buf out = BUF_INIT;
	struct otlp_result result;
	struct rcbuf *r;
	struct batch *b;
	char name[2048];
	size_t rs = pb_begin(&out, 1), ss = pb_begin(&out, 2);

	memset(name, 'x', sizeof(name));
	name[MIN(bytes, sizeof(name) - 1)] = '\0';
	for (uint32_t i = first; i < first + n; i++) {
		size_t span = pb_begin(&out, 2);
		uint8_t id[16] = { 1 };

		store_be32(id + 4, i + 1);
		pb_put_bytes(&out, 1, (struct bytes){ id, 16 });
		pb_put_bytes(&out, 2, (struct bytes){ id, 8 });
		pb_put_str(&out, 5, name);
		pb_end(&out, span);
	}
	pb_end(&out, ss);
	pb_end(&out, rs);
	r = rcbuf_new_forced(budget, out.n);
	memcpy(r->p, out.p, out.n);
	r->n = out.n;
	buf_fini(&out);
	b = batch_from_otlp(r, tenant, budget, &result, NULL);
	assert_non_null(b);
	assert_int_equal(b->tables.n_spans, n);
	return b;
}

static inline void client_send(struct bed *bed, struct client *c, uint32_t first, uint32_t n,
			       size_t bytes, const char *tenant)
{
	struct batch *b = make_spans(first, n, bytes, tenant, &bed->service.budget);

	memset(c, 0, sizeof(*c));
	origin_init(&c->origin, n, client_settled);
	batch_bind(b, &c->origin);
	sending_queue_consume(bed->q, b);
}

/* ---- the hop ---- */

static inline void note_fates(struct bed *bed, const struct send_request *r, bool decided)
{
	struct buf joined = BUF_INIT;
	struct otlp_result result;
	struct rcbuf *bytes;
	struct batch *b;

	for (size_t i = 0; i < r->encoding.n_pieces; i++)
		buf_add_bytes(&joined, r->encoding.pieces[i]);
	assert(joined.n == r->encoding.n_bytes);
	bytes = rcbuf_new_forced(NULL, joined.n);
	memcpy(bytes->p, joined.p, joined.n);
	bytes->n = joined.n;
	buf_fini(&joined);
	b = batch_from_otlp(bytes, "t", NULL, &result, NULL);
	assert(b != NULL && b->tables.n_spans == r->batch->tables.n_spans);
	for (uint32_t i = 0; i < b->tables.n_spans; i++) {
		uint32_t number = load_be32(b->tables.spans[i].span_id + 4) - 1;

		assert(number < SPANS_MAX);
		atomic_fetch_add(decided ? &bed->fate[number] : &bed->tries[number], 1);
	}
	batch_unref(b);
}

static inline void answer(struct bed *bed, struct send_request *r, enum hop_does does)
{
	uint32_t n = r->batch->tables.n_spans;
	struct err err = ERR_INIT;

	err_set(&err, ERR_UNAVAILABLE, "the hop says %d", does);
	if (does == HOP_TOO_LARGE && n > 1) {
		sending_queue_done(r, SEND_TOO_LARGE, 0, &err);
		return;
	}
	if (does == HOP_RETRYABLE || does == HOP_TOLD) {
		err.retry_after_ms = does == HOP_TOLD ? 300 : 0;
		atomic_fetch_add(&bed->n_retries, 1);
		sending_queue_done(r, SEND_RETRYABLE, 0, &err);
		return;
	}
	note_fates(bed, r, true);
	if (does == HOP_OK) {
		atomic_fetch_add(&bed->n_ok, n);
		sending_queue_done(r, SEND_OK, 0, NULL);
	} else if (does == HOP_PARTIAL) {
		atomic_fetch_add(&bed->n_rejected, 1);
		atomic_fetch_add(&bed->n_ok, n - 1);
		sending_queue_done(r, SEND_OK, 1, &err);
	} else {
		atomic_fetch_add(&bed->n_permanent, n);
		sending_queue_done(r, does == HOP_TOO_LARGE ? SEND_TOO_LARGE : SEND_PERMANENT, 0,
				   &err);
	}
}

static inline struct bed *bed_of(struct component *c)
{
	return CONTAINER_OF(c, struct bed, components[0]);
}

static inline void take_call(struct bed *bed, struct call *call)
{
	struct call **at = &bed->held;

	while (*at != call)
		at = &(*at)->next;
	*at = call->next;
	loop_timer_stop(bed->loop, &call->timer);
	atomic_fetch_sub(&bed->n_held, 1);
}

static inline void answer_late(void *arg)
{
	struct call *call = arg;
	struct send_request *r = call->r;
	struct bed *bed = bed_of(r->exporter_data);
	enum hop_does does = call->does;

	take_call(bed, call);
	free(call);
	answer(bed, r, does);
}

static struct call *call_of(struct bed *bed, struct send_request *r)
{
	struct call *call = bed->held;

	while (call->r != r)
		call = call->next;
	return call;
}

static inline void hop_send(struct component *c, struct send_request *r)
{
	struct bed *bed = bed_of(c);
	enum hop_does does;
	struct call *call;

	atomic_store(&bed->bytes_now, r->encoding.n_bytes);
	does = bed->behave(bed);
	r->exporter_data = c;
	atomic_fetch_add(&bed->n_calls, 1);
	atomic_store(&bed->n_spans_last, r->batch->tables.n_spans);
	atomic_store(&bed->bytes_max, MAX(atomic_load(&bed->bytes_max), r->encoding.n_bytes));
	note_fates(bed, r, false);
	if (does != HOP_HOLD && rng_below(&bed->rng, 2) == 0) {
		answer(bed, r, does);
		return;
	}
	call = xcalloc(1, sizeof(*call));
	*call = (struct call){ .r = r, .does = does, .next = bed->held };
	bed->held = call;
	atomic_fetch_add(&bed->n_held, 1);
	call->timer = (struct loop_timer){ .fn = answer_late, .arg = call };
	if (does != HOP_HOLD)
		loop_timer_start(bed->loop, &call->timer, rng_below(&bed->rng, 3));
}

static inline void hop_cancel(struct component *c, struct send_request *r)
{
	struct bed *bed = bed_of(c);
	struct call *call = call_of(bed, r);
	struct err err = ERR_INIT;

	take_call(bed, call);
	free(call);
	err_set(&err, ERR_UNAVAILABLE, "cancelled");
	sending_queue_done(r, SEND_RETRYABLE, 0, &err);
}

static inline enum hop_does hop_ok(struct bed *bed)
{
	(void)bed;
	return HOP_OK;
}

static inline enum hop_does hop_down(struct bed *bed)
{
	(void)bed;
	return HOP_RETRYABLE;
}

static inline enum hop_does hop_hold(struct bed *bed)
{
	(void)bed;
	return HOP_HOLD;
}

/* Everything a hop may say. */
static inline enum hop_does hop_moody(struct bed *bed)
{
	static const enum hop_does moods[] = { HOP_OK,        HOP_OK,        HOP_OK,
					       HOP_RETRYABLE, HOP_RETRYABLE, HOP_PERMANENT,
					       HOP_PARTIAL,   HOP_TOO_LARGE };

	return moods[rng_below(&bed->rng, COUNT_OF(moods))];
}

static inline void release_on_loop(void *arg)
{
	struct bed *bed = arg;
	struct call *v[64];
	size_t n = 0;

	for (struct call *call = bed->held; call != NULL && n < COUNT_OF(v); call = call->next)
		v[n++] = call;
	while (n > 0) {
		v[--n]->does = HOP_OK;
		answer_late(v[n]);
	}
}

/* Answer what is held now with OK. */
static inline void hop_release(struct bed *bed)
{
	loop_call(bed->loop, release_on_loop, bed);
}

static inline void change_on_loop(void *arg)
{
	struct bed *bed = arg;

	bed->behave = bed->next_mood;
}

/* From now on it behaves otherwise. */
static inline void hop_change(struct bed *bed, enum hop_does (*mood)(struct bed *bed))
{
	bed->next_mood = mood;
	loop_call(bed->loop, change_on_loop, bed);
}

/* ---- the bed ---- */

static inline void *lend_storage(struct component *c)
{
	return &CONTAINER_OF(c, struct bed, components[1])->storage;
}

static const struct component_type hop_type = { .name = "hop", .kind = KIND_EXPORTER };
static const struct component_type storage_type = { .name = SENDING_QUEUE_STORAGE_TYPE,
						    .kind = KIND_EXTENSION,
						    .lend = lend_storage };

static inline struct bed *bed_new(void)
{
	struct bed *bed = xcalloc(1, sizeof(*bed));

	memset(&ledger, 0, sizeof(ledger));
	span_left_forget();
	bed->loop = loop_new(0, NULL);
	loop_start(bed->loop, NULL);
	atomic_store(&bed->service.budget.limit, (int64_t)GIB);
	bed->list[0] = &bed->components[0];
	bed->list[1] = &bed->components[1];
	bed->service.components = bed->list;
	bed->service.n_components = 2;
	bed->components[0] = (struct component){ .type = &hop_type, .id = "hop/1" };
	bed->components[1] = (struct component){ .type = &storage_type, .id = "file_storage" };
	for (int i = 0; i < 2; i++) {
		bed->components[i].count = &bed->counters[i];
		bed->components[i].service = &bed->service;
	}
	bed->queue = (struct queue_options){
		.enabled = true, .num_consumers = 4, .queue_size = 1000, .storage = ""
	};
	bed->retry = (struct retry_options){ .enabled = true,
					     .initial_interval_ns = 5000000,
					     .max_interval_ns = 20000000,
					     .randomization_factor = 0.5,
					     .multiplier = 1.5 };
	bed->behave = hop_ok;
	rng_seed(&bed->rng, clock_mono_ns());
	return bed;
}

static inline void bed_start(struct bed *bed)
{
	struct err err = ERR_INIT;

	bed->q = sending_queue_new(
		&(struct sending_queue_settings){ .component = &bed->components[0],
						  .loop = bed->loop,
						  .queue = &bed->queue,
						  .retry = &bed->retry,
						  .max_request_bytes = bed->max_request_bytes,
						  .send = hop_send,
						  .cancel = hop_cancel },
		&err);
	if (bed->q == NULL)
		fail_msg("%s", err.msg);
}

static inline void bed_stop(struct bed *bed)
{
	sending_queue_free(bed->q);
	bed->q = NULL;
}

static inline void bed_free(struct bed *bed)
{
	bed_stop(bed);
	service_ask_forget(&bed->components[0]);
	loop_stop(bed->loop);
	loop_free(bed->loop);
	assert_int_equal(atomic_load(&bed->service.budget.used), 0);
	free(bed);
}

/* Poll for up to a minute. */
#define WAIT_FOR(what)                                                                             \
	do {                                                                                       \
		uint64_t until_ = clock_mono_ns() + 60 * NS_PER_S;                                 \
		while (!(what)) {                                                                  \
			if (clock_mono_ns() > until_)                                              \
				fail_msg("waited in vain for " #what);                             \
			usleep(500);                                                               \
		}                                                                                  \
	} while (0)

static inline uint64_t ledger_dropped(void)
{
	uint64_t n = 0;

	for (int r = 0; r < DROP_REASON_MAX; r++)
		n += atomic_load(&ledger.dropped[r]);
	return n;
}

static inline void assert_balance(uint64_t accepted, uint64_t delivered, uint64_t dropped,
				  int64_t held)
{
	assert_int_equal(atomic_load(&ledger.accepted), accepted);
	assert_int_equal(atomic_load(&ledger.delivered), delivered);
	assert_int_equal(ledger_dropped(), dropped);
	assert_int_equal(atomic_load(&ledger.held), held);
	assert_int_equal(atomic_load(&ledger.in_flight), 0);
}

/* Every span's fate was decided exactly once. */
static inline void assert_each_once(struct bed *bed, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		if (atomic_load(&bed->fate[i]) != 1)
			fail_msg("span %u was taken %u times", i, atomic_load(&bed->fate[i]));
}

static inline bool all_settled(const struct client *v, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (atomic_load(&v[i].settled) == 0)
			return false;
	return true;
}

#endif
