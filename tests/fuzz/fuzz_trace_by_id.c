/* SPDX-License-Identifier: Apache-2.0
 *
 * fuzz_trace_by_id.c - pieces of a trace as hostile blocks might hold them: [u16 LE length][bytes]
 * ... Gathered in this order and the other way round they are the same trace; given twice too; and
 * whatever was taken can be written in every form of answer.
 */
#include "query/tempo_proto.h"
#include "query/trace_private.h"
#include "wire/otlp_json_encode.h"

enum { MAX_PIECES = 16 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct pieces {
	struct bytes v[MAX_PIECES];
	size_t n;
};

static void gather(struct trace_by_id *t, const struct pieces *p, bool backwards, int times)
{
	struct err err = ERR_INIT;

	trace_by_id_init(t, 1 << 20, t->memory);
	for (int k = 0; k < times; k++)
		for (size_t i = 0; i < p->n; i++)
			assert(trace_add_piece(t, p->v[backwards ? p->n - 1 - i : i], &err) == 0);
	assert(trace_by_id_combine(t, &err) == 0);
}

static void check_same(struct trace_by_id *a, struct trace_by_id *b)
{
	assert(a->n_spans == b->n_spans);
	assert(bytes_eq(buf_bytes(&a->otlp), buf_bytes(&b->otlp)));
	assert(a->is_complete == b->is_complete);
	trace_by_id_fini(b);
}

static void check_answers(const struct trace_by_id *t)
{
	struct bytes otlp = buf_bytes(&t->otlp);
	struct buf out = BUF_INIT;

	assert(otlp_json_encode(&otlp, 1, OTLP_JSON, 0, &out, NULL) == 0);
	buf_reset(&out);
	assert(otlp_json_encode(&otlp, 1, OTLP_JSON_TEMPO, 0, &out, NULL) == 0);
	buf_reset(&out);
	tempo_proto_trace(otlp, &out);
	tempo_proto_response(t, &out);
	buf_fini(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct budget budget = BUDGET_INIT(INT64_C(1) << 30);
	struct query_memory memory = { .budget = &budget };
	struct trace_by_id first = { .memory = &memory }, other = { .memory = &memory };
	struct pieces p = { .n = 0 };

	for (size_t at = 0; at + 2 <= size && p.n < MAX_PIECES;) {
		size_t n = MIN((size_t)load_le16(data + at), size - at - 2);

		p.v[p.n++] = (struct bytes){ data + at + 2, n };
		at += 2 + n;
	}
	gather(&first, &p, false, 1);
	gather(&other, &p, true, 1);
	check_same(&first, &other);
	gather(&other, &p, false, 2);
	check_same(&first, &other);
	check_answers(&first);
	trace_by_id_fini(&first);
	assert(atomic_load(&budget.used) == 0);
	return 0;
}
