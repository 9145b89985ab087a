/* SPDX-License-Identifier: Apache-2.0
 *
 * test_span_numbers.c - numbers of spans behind a record: written, and counted once by whoever
 * meets them first, whatever the order and whatever was damaged.
 */
#include "base/mem.h"
#include "base/rng.h"
#include "pipeline/batch_record.h"
#include "pipeline/span/numbers.h"
#include "wire/pb.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

enum { N = 1000 };

static void nothing(struct origin *o)
{
	(void)o;
}

/* A request of n spans with its origin; fanned out or not. */
struct request {
	struct origin origin;
	struct batch *b;
};

static void request_init(struct request *rq, uint32_t n, bool is_fanned)
{
	struct buf out = BUF_INIT;
	struct otlp_result result;
	size_t rs = pb_begin(&out, 1), ss = pb_begin(&out, 2);
	struct rcbuf *r;

	for (uint32_t i = 0; i < n; i++) {
		size_t span = pb_begin(&out, 2);
		uint8_t id[16] = { 1, 2, 3 };

		store_be32(id + 4, i + 1);
		pb_put_bytes(&out, 1, (struct bytes){ id, 16 });
		pb_put_bytes(&out, 2, (struct bytes){ id, 8 });
		pb_end(&out, span);
	}
	pb_end(&out, ss);
	pb_end(&out, rs);
	r = rcbuf_new_forced(NULL, out.n);
	memcpy(r->p, out.p, out.n);
	r->n = out.n;
	buf_fini(&out);
	rq->b = batch_from_otlp(r, TENANT_DEFAULT, NULL, &result, NULL);
	assert_non_null(rq->b);
	origin_init(&rq->origin, n, nothing);
	batch_bind(rq->b, &rq->origin);
	if (is_fanned)
		origin_fan_out(&rq->origin, n, 1);
}

static void request_fini(struct request *rq)
{
	batch_unref(rq->b);
	origin_fini(&rq->origin);
}

/* A record as the log has it, and back. */
static void trailers_pass_through_records(void **state)
{
	uint8_t head[BATCH_RECORD_HEAD_MAX], keep[N];

	(void)state;
	for (int fanned = 0; fanned < 2; fanned++)
		for (unsigned step = 1; step <= 3; step++) {
			struct segment_append a = { .n_iov = 0 };
			struct arena arena = ARENA_INIT;
			struct buf record = BUF_INIT;
			struct batch_record r;
			struct request rq;

			request_init(&rq, N, fanned);
			for (unsigned i = 0; i < N; i++)
				keep[i] = i % step == 0;
			rq.b = batch_filter(rq.b, keep, DROP_SAMPLED);
			batch_record_lay_out(rq.b, 77, &arena, head, &a);
			for (uint32_t i = 0; i < a.n_iov; i++)
				buf_add(&record, a.iov[i].iov_base, a.iov[i].iov_len);
			assert_int_equal(batch_record_parse(buf_bytes(&record), &r, NULL), 0);
			assert_int_equal(r.numbers.n > 0, fanned);
			assert_int_equal(r.n_spans, (N + step - 1) / step);
			assert_int_equal(r.otlp.n, batch_encoded_size(rq.b));
			span_numbers_begin();
			assert_int_equal(span_numbers_count(r.numbers, r.n_spans), r.n_spans);
			assert_int_equal(span_numbers_count(r.numbers, r.n_spans),
					 fanned ? 0 : r.n_spans);
			span_numbers_end();
			/* A trailer longer than the record. */
			store_le16(record.p + 2, UINT16_MAX);
			assert_int_equal(batch_record_parse(buf_bytes(&record), &r, NULL), -1);
			buf_fini(&record);
			arena_fini(&arena);
			request_fini(&rq);
		}
}

/* Two logs that each hold some of the spans, in an order of their own, and are counted in any
 * order: together they count what at least one has. */
static void each_number_counts_once(void **state)
{
	struct rng rng;
	uint64_t seed = 0;

	(void)state;
	rng_kernel(&seed, 4);
	print_message("seed %llu\n", (unsigned long long)seed);
	rng_seed(&rng, seed);
	for (int round = 0; round < 50; round++) {
		bool has[N] = { false };
		struct arena arena = ARENA_INIT;
		struct request rq[10];
		uint64_t counted = 0, want = 0;

		span_numbers_begin();
		for (unsigned i = 0; i < COUNT_OF(rq); i++)
			request_init(&rq[i], N / COUNT_OF(rq), true);
		for (int look = 0; look < 40; look++) {
			unsigned which = (unsigned)rng_below(&rng, COUNT_OF(rq));
			struct batch *b = batch_ref(rq[which].b);
			uint8_t keep[N / 10];
			uint32_t n_kept = 0, share = 1 + (uint32_t)rng_below(&rng, 10);

			for (unsigned i = 0; i < N / 10; i++) {
				keep[i] = rng_below(&rng, 10) < share;
				n_kept += keep[i];
				has[which * (N / 10) + i] |= keep[i];
			}
			/* For the look only: what it settles is not owed twice. */
			origin_fan_out(&rq[which].origin, N / 10, 1);
			b = batch_filter(b, keep, DROP_SAMPLED);
			if (b != NULL)
				counted +=
					span_numbers_count(span_numbers_encode(b, &arena), n_kept);
			batch_unref(b);
		}
		for (unsigned i = 0; i < N; i++)
			want += has[i];
		span_numbers_end();
		assert_int_equal(counted, want);
		for (unsigned i = 0; i < COUNT_OF(rq); i++)
			request_fini(&rq[i]);
		arena_fini(&arena);
	}
}

/* Bytes that are no trailer: never more, never fewer than nothing, and no crash. */
static void damage_counts_as_not_met(void **state)
{
	struct rng rng;
	uint8_t bytes[64];

	(void)state;
	rng_seed(&rng, 7);
	span_numbers_begin();
	for (int i = 0; i < 100000; i++) {
		uint32_t n_spans = (uint32_t)rng_below(&rng, 300),
			 n = (uint32_t)rng_below(&rng, 64);

		for (uint32_t k = 0; k < n; k++)
			bytes[k] = k < 8 ? 1 : (uint8_t)rng_next(&rng);
		assert_true(span_numbers_count((struct bytes){ bytes, n }, n_spans) <= n_spans);
	}
	span_numbers_end();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(trailers_pass_through_records),
		cmocka_unit_test(each_number_counts_once),
		cmocka_unit_test(damage_counts_as_not_met),
	};

	return cmocka_run_group_tests_name("span_numbers", tests, NULL, NULL);
}
