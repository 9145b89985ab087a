/* SPDX-License-Identifier: Apache-2.0
 *
 * fuzz_otlp_index.c - any bytes through count, index and encode, against protobuf-c.
 *
 * Where both take it, protobuf-c sees the same spans in the same order, rejected ones apart;
 * encoding and indexing again gives the same spans and the same bytes; encoding means what the
 * request meant when nothing was rejected. The tables are of exact size and the request a copy of
 * exact size, so AddressSanitizer sees every byte too many. The same bytes as logs and as metrics:
 * what is indexed and encoded has the same items again, and then the same bytes. The judgement does
 * not depend on how much memory follows the request (wire/otlp_plain.h).
 */
#include "tests/unit/otlp_fixture.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_same_span(const struct span_ref *a, const struct span_ref *b)
{
	assert(memcmp(a->trace_id, b->trace_id, 16) == 0 && memcmp(a->span_id, b->span_id, 8) == 0);
	assert(memcmp(a->parent_id, b->parent_id, 8) == 0);
	assert(a->len == b->len && a->start_ns == b->start_ns && a->end_ns == b->end_ns);
	assert(a->kind == b->kind && a->status == b->status && a->flags == b->flags);
	assert(a->r == b->r && a->th == b->th && a->ordinal == b->ordinal);
	assert(bytes_eq(span_name(a), span_name(b)));
	assert(bytes_eq(span_trace_state(a), span_trace_state(b)));
}

static bool id_is(ProtobufCBinaryData id, const uint8_t *want, size_t n)
{
	return id.len == n && memcmp(id.data, want, n) == 0;
}

static void check_oracle_span(const Otlp__Span *m, const struct span_ref *sp)
{
	assert(id_is(m->trace_id, sp->trace_id, 16) && id_is(m->span_id, sp->span_id, 8));
	assert(m->start_time_unix_nano == sp->start_ns && m->end_time_unix_nano == sp->end_ns);
	assert(m->flags == sp->flags);
	assert(m->name == NULL || memcmp(m->name, span_name(sp).p, sp->name_len) == 0);
	if (m->kind >= 0 && m->kind < 255 && sp->kind != 255)
		assert(m->kind == sp->kind);
}

/* The spans of the tables and of the tree are the same, in order. With rejects only their number
 * is: which of two spans of one id was rejected is not to be seen from here. */
static void check_against_oracle(const struct indexed *x, const oracle_request *m)
{
	uint32_t at = 0;

	assert(oracle_count(m) == (size_t)x->t.n_spans + x->result.rejects.n);
	if (x->result.rejects.n > 0)
		return;
	for (size_t i = 0; i < m->n_resource_spans; i++)
		for (size_t k = 0; k < m->resource_spans[i]->n_scope_spans; k++) {
			const Otlp__ScopeSpans *ss = m->resource_spans[i]->scope_spans[k];

			for (size_t s = 0; s < ss->n_spans; s++)
				check_oracle_span(ss->spans[s], &x->t.spans[at++]);
		}
}

/* Field 1000 is ours to read, and protobuf-c keeps it as an unknown field. */
static bool has_deprecated_field(const oracle_request *m)
{
	for (size_t i = 0; i < m->n_resource_spans; i++)
		if (m->resource_spans[i]->n_scope_spans == 0)
			return true;
	return false;
}

static void check_encoding(const struct indexed *x, struct bytes request, const oracle_request *m)
{
	struct buf once = BUF_INIT, twice = BUF_INIT;
	struct indexed y;

	indexed_encode(x, NULL, x->t.n_spans, &once);
	assert(indexed_init(&y, buf_bytes(&once)) == 0);
	assert(y.result.rejects.n == 0 && y.t.n_spans == x->t.n_spans);
	for (uint32_t i = 0; i < x->t.n_spans; i++)
		check_same_span(&x->t.spans[i], &y.t.spans[i]);
	indexed_encode(&y, NULL, y.t.n_spans, &twice);
	assert(bytes_eq(buf_bytes(&once), buf_bytes(&twice)));
	if (x->result.is_whole && m != NULL)
		assert(oracle_same(request, buf_bytes(&once)));
	indexed_fini(&y);
	buf_fini(&once);
	buf_fini(&twice);
}

/* The same bytes with an unknown field behind them: the windows of otlp_plain.h fit now. */
static void check_with_room_behind(const struct indexed *x, struct bytes request, int rc)
{
	struct buf more = BUF_INIT;
	struct indexed y;
	int got;

	buf_add_bytes(&more, request);
	for (int i = 0; i < 10; i++)
		pb_put_fixed64(&more, 99, 0);
	got = indexed_init(&y, buf_bytes(&more));
	assert(rc < 0 || got == 0);
	if (rc == 0) {
		assert(y.result.rejects.n == x->result.rejects.n && y.t.n_spans == x->t.n_spans);
		for (uint32_t i = 0; i < x->t.n_spans; i++)
			check_same_span(&x->t.spans[i], &y.t.spans[i]);
	}
	indexed_fini(&y);
	buf_fini(&more);
}

static void check_items(enum otlp_signal signal, struct bytes request)
{
	struct buf once = BUF_INIT, twice = BUF_INIT;
	struct indexed x, y;

	if (indexed_init_items(&x, signal, request) == 0) {
		assert(x.counts.n_spans == x.t.n_spans && x.result.rejects.n == 0);
		assert(x.t.n_heads <= x.counts.n_heads);
		indexed_encode(&x, NULL, x.t.n_spans, &once);
		assert(indexed_init_items(&y, signal, buf_bytes(&once)) == 0);
		assert(y.t.n_spans == x.t.n_spans);
		for (uint32_t i = 0; i < x.t.n_spans; i++) {
			const struct span_ref *a = &x.t.spans[i], *b = &y.t.spans[i];

			assert(a->n_points == b->n_points && a->ordinal == b->ordinal);
			assert(bytes_eq((struct bytes){ a->p, a->len },
					(struct bytes){ b->p, b->len }));
		}
		indexed_encode(&y, NULL, y.t.n_spans, &twice);
		assert(bytes_eq(buf_bytes(&once), buf_bytes(&twice)));
		indexed_fini(&y);
	}
	indexed_fini(&x);
	buf_fini(&once);
	buf_fini(&twice);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct bytes request = { data, size };
	oracle_request *m;
	struct indexed x;
	int rc;

	if (size == 0 || size > 65536)
		return 0;
	check_items(OTLP_LOGS, request);
	check_items(OTLP_METRICS, request);
	rc = indexed_init(&x, request);
	check_with_room_behind(&x, request, rc);
	if (rc == 0) {
		assert(x.counts.n_spans * 28 <= size && x.t.n_heads <= x.counts.n_heads);
		m = oracle_unpack(request);
		if (m != NULL && !has_deprecated_field(m))
			check_against_oracle(&x, m);
		check_encoding(&x, request, m);
		oracle_free(m);
	}
	indexed_fini(&x);
	return 0;
}
