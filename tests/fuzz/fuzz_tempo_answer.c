/* SPDX-License-Identifier: Apache-2.0
 *
 * fuzz_tempo_answer.c - what another query node might answer, to it or to the prober: [16 bytes:
 * the trace asked for] [body]. What is taken as an answer can be gathered, and what is made of it
 * is an answer again, of the same spans.
 */
#include "query/tempo_answer.h"
#include "query/tempo_proto.h"
#include "query/trace_by_id.h"
#include "wire/otlp_find_span.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_message(const struct tempo_answer *a)
{
	size_t n = strnlen(a->message, sizeof(a->message));

	assert(n < sizeof(a->message));
	for (size_t i = 0; i < n; i++)
		assert(a->message[i] >= 0x20 && a->message[i] < 0x7f);
}

static void gather(struct trace_by_id *t, struct bytes trace)
{
	struct err err = ERR_INIT;

	trace_by_id_init(t, 1 << 20, t->memory);
	assert(trace_by_id_add(t, trace, &err) == 0);
	assert(trace_by_id_combine(t, &err) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct budget budget = BUDGET_INIT(INT64_C(1) << 30);
	struct query_memory memory = { .budget = &budget };
	struct trace_by_id first = { .memory = &memory }, second = { .memory = &memory };
	struct tempo_answer a;
	struct err err = ERR_INIT;
	struct buf out = BUF_INIT;

	if (size < 16)
		return 0;
	otlp_find_span((struct bytes){ data + 16, size - 16 }, data, data);
	if (tempo_answer_parse((struct bytes){ data + 16, size - 16 }, data, &a, &err) < 0) {
		assert(err.kind == ERR_CORRUPT && err.msg[0] != '\0');
		return 0;
	}
	check_message(&a);
	/* what can be gathered is not damaged */
	assert(otlp_find_span(a.trace, data, data) >= 0);
	gather(&first, a.trace);
	tempo_proto_internal(&first, &out);
	assert(tempo_answer_parse(buf_bytes(&out), data, &a, &err) == 0);
	assert(a.is_partial == !first.is_complete);
	gather(&second, a.trace);
	assert(bytes_eq(buf_bytes(&first.otlp), buf_bytes(&second.otlp)));
	trace_by_id_fini(&first);
	trace_by_id_fini(&second);
	buf_fini(&out);
	assert(atomic_load(&budget.used) == 0);
	return 0;
}
