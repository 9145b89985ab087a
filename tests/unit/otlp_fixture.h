/* SPDX-License-Identifier: Apache-2.0
 *
 * otlp_fixture.h - what the tests of the data model share: small requests, tables of exact size,
 * the oracle.
 *
 * Everything the index reads is a copy of exact size on the heap, so that AddressSanitizer sees one
 * byte too many. The oracle is protobuf-c: two requests mean the same when unpacking and packing
 * them gives the same bytes.
 */
#ifndef TESTS_UNIT_OTLP_FIXTURE_H
#define TESTS_UNIT_OTLP_FIXTURE_H

#include "base/buf.h"
#include "base/mem.h"
#include "wire/otlp_encode.h"
#include "wire/otlp_index.h"
#include "wire/pb.h"
#include "wire/proto/otlp_trace.pb-c.h"

#include <stdio.h>

typedef Otlp__ExportTraceServiceRequest oracle_request;

/* Raw fields, to be put together in any order. */
struct fields {
	struct bytes v[24];
	size_t n;
	struct arena arena;
};

static inline void fields_add(struct fields *f, const struct buf *b)
{
	f->v[f->n++] = (struct bytes){ arena_dup(&f->arena, b->p, b->n), b->n };
}

static inline void fields_add_bytes(struct fields *f, uint32_t number, struct bytes payload)
{
	struct buf b = BUF_INIT;

	pb_put_bytes(&b, number, payload);
	fields_add(f, &b);
	buf_fini(&b);
}

static inline void fields_join(const struct fields *f, struct buf *out)
{
	for (size_t i = 0; i < f->n; i++)
		buf_add_bytes(out, f->v[i]);
}

/* A KeyValue field with a string. */
static inline void put_attribute(struct buf *out, uint32_t number, const char *key,
				 const char *value)
{
	size_t kv = pb_begin(out, number), any;

	pb_put_str(out, 1, key);
	any = pb_begin(out, 2);
	pb_put_str(out, 1, value);
	pb_end(out, any);
	pb_end(out, kv);
}

/* The fields of a Span with every known field set; id makes it unlike others. */
static inline void span_fields(struct fields *f, uint8_t id)
{
	uint8_t trace[16] = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, id };
	uint8_t span[8] = { id, 1, 1, 1, 1, 1, 1, 1 }, parent[8] = { 9, 9, 9, 9, 9, 9, 9, id };
	struct buf b = BUF_INIT;
	size_t mark;

#define ADD(call)                                                                                  \
	do {                                                                                       \
		buf_reset(&b);                                                                     \
		call;                                                                              \
		fields_add(f, &b);                                                                 \
	} while (0)
	ADD(pb_put_bytes(&b, 1, (struct bytes){ trace, 16 }));
	ADD(pb_put_bytes(&b, 2, (struct bytes){ span, 8 }));
	ADD(pb_put_str(&b, 3, "ot=th:c,vendor=1"));
	ADD(pb_put_bytes(&b, 4, (struct bytes){ parent, 8 }));
	ADD(pb_put_str(&b, 5, "name"));
	ADD(pb_put_uint(&b, 6, 2));
	ADD(pb_put_fixed64(&b, 7, 1000 + id));
	ADD(pb_put_fixed64(&b, 8, 2000 + id));
	ADD(put_attribute(&b, 9, "key", "value"));
	ADD(put_attribute(&b, 9, "k\xc3\xbc", "\xe2\x82\xac"));
	ADD(pb_put_uint(&b, 10, 300));
	ADD((mark = pb_begin(&b, 11), pb_put_fixed64(&b, 1, 5), pb_put_str(&b, 2, "ev"),
	     put_attribute(&b, 3, "a", "b"), pb_put_uint(&b, 4, 1), pb_end(&b, mark)));
	ADD(pb_put_uint(&b, 12, 2));
	ADD((mark = pb_begin(&b, 13), pb_put_bytes(&b, 1, (struct bytes){ trace, 16 }),
	     pb_put_bytes(&b, 2, (struct bytes){ span, 8 }), pb_put_str(&b, 3, "s=1"),
	     put_attribute(&b, 4, "l", "m"), pb_put_uint(&b, 5, 1), pb_put_fixed32(&b, 6, 1),
	     pb_end(&b, mark)));
	ADD(pb_put_uint(&b, 14, 3));
	ADD((mark = pb_begin(&b, 15), pb_put_str(&b, 2, "bad"), pb_put_uint(&b, 3, 2),
	     pb_end(&b, mark)));
	ADD(pb_put_fixed32(&b, 16, 0x301));
#undef ADD
	buf_fini(&b);
}

/* Append a field `number` holding such a Span. */
static inline void put_span(struct buf *out, uint32_t number, uint8_t id)
{
	struct fields f = { 0 };
	size_t mark = pb_begin(out, number);

	span_fields(&f, id);
	fields_join(&f, out);
	pb_end(out, mark);
	arena_fini(&f.arena);
}

/* An Span with the least that is legal. */
static inline void put_small_span(struct buf *out, uint8_t id)
{
	uint8_t trace[16] = { id, 1 }, span[8] = { id, 2 };
	size_t mark = pb_begin(out, 2);

	pb_put_bytes(out, 1, (struct bytes){ trace, 16 });
	pb_put_bytes(out, 2, (struct bytes){ span, 8 });
	pb_end(out, mark);
}

/* Resource or InstrumentationScope, field 1: attributes are 1 there, 3 here. */
static inline void put_resource(struct buf *out, const char *service)
{
	size_t mark = pb_begin(out, 1);

	put_attribute(out, 1, "service.name", service);
	pb_put_uint(out, 2, 1);
	pb_end(out, mark);
}

static inline void put_scope(struct buf *out, const char *name)
{
	size_t mark = pb_begin(out, 1);

	pb_put_str(out, 1, name);
	pb_put_str(out, 2, "1.0");
	put_attribute(out, 3, "scope.attr", "x");
	pb_end(out, mark);
}

/* One resource, one scope, spans 1..n. */
static inline void put_request(struct buf *out, uint8_t n)
{
	size_t rs = pb_begin(out, 1), ss;

	put_resource(out, "svc");
	ss = pb_begin(out, 2);
	put_scope(out, "lib");
	for (uint8_t i = 1; i <= n; i++)
		put_span(out, 2, i);
	pb_put_str(out, 3, "https://schema/scope");
	pb_end(out, ss);
	pb_put_str(out, 3, "https://schema/resource");
	pb_end(out, rs);
}

/* ---- the index over exact memory ---- */

struct indexed {
	uint8_t *copy;
	struct otlp_counts counts;
	struct span_tables t;
	struct otlp_result result;
	struct arena arena;
	struct err err;
};

static inline int indexed_init_items(struct indexed *x, enum otlp_signal signal,
				     struct bytes request)
{
	memset(x, 0, sizeof(*x));
	x->copy = xmalloc(request.n);
	if (request.n > 0)
		memcpy(x->copy, request.p, request.n);
	if (otlp_count_items(signal, (struct bytes){ x->copy, request.n }, &x->counts, &x->err) < 0)
		return -1;
	x->t.spans = xmalloc(x->counts.n_spans * sizeof(*x->t.spans));
	x->t.scopes = xmalloc(x->counts.n_scopes * sizeof(*x->t.scopes));
	x->t.resources = xmalloc(x->counts.n_resources * sizeof(*x->t.resources));
	x->t.heads = xmalloc(x->counts.n_heads * sizeof(*x->t.heads));
	return otlp_index_items(signal, (struct bytes){ x->copy, request.n }, &x->t, &x->arena,
				&x->result, &x->err);
}

static inline int indexed_init(struct indexed *x, struct bytes request)
{
	return indexed_init_items(x, OTLP_TRACES, request);
}

static inline void indexed_fini(struct indexed *x)
{
	free(x->copy);
	free(x->t.spans);
	free(x->t.scopes);
	free(x->t.resources);
	free(x->t.heads);
	arena_fini(&x->arena);
}

/* The picked spans (NULL: all) encoded and joined. */
static inline void indexed_encode(const struct indexed *x, const uint32_t *pick, uint32_t n,
				  struct buf *out)
{
	struct arena a = ARENA_INIT;
	struct otlp_pieces pieces;

	otlp_encode(&x->t, pick, n, &a, &pieces);
	for (size_t i = 0; i < pieces.n; i++)
		buf_add_bytes(out, pieces.v[i]);
	assert(pieces.n_bytes == out->n && otlp_encoded_size(&x->t, pick, n) == out->n);
	arena_fini(&a);
}

/* ---- the oracle ---- */

static inline oracle_request *oracle_unpack(struct bytes b)
{
	return otlp__export_trace_service_request__unpack(NULL, b.n, b.p);
}

static inline void oracle_free(oracle_request *m)
{
	if (m != NULL)
		otlp__export_trace_service_request__free_unpacked(m, NULL);
}

static inline void oracle_pack(const oracle_request *m, struct buf *out)
{
	size_t n = otlp__export_trace_service_request__get_packed_size(m);
	uint8_t *to = buf_reserve(out, n + 1);

	out->n += otlp__export_trace_service_request__pack(m, to);
}

static inline size_t oracle_count(const oracle_request *m)
{
	size_t n = 0;

	for (size_t i = 0; i < m->n_resource_spans; i++)
		for (size_t k = 0; k < m->resource_spans[i]->n_scope_spans; k++)
			n += m->resource_spans[i]->scope_spans[k]->n_spans;
	return n;
}

static inline bool oracle_same(struct bytes a, struct bytes b)
{
	oracle_request *ma = oracle_unpack(a), *mb = oracle_unpack(b);
	struct buf pa = BUF_INIT, pb = BUF_INIT;
	bool same = ma != NULL && mb != NULL;

	if (same) {
		oracle_pack(ma, &pa);
		oracle_pack(mb, &pb);
		same = bytes_eq(buf_bytes(&pa), buf_bytes(&pb));
	}
	oracle_free(ma);
	oracle_free(mb);
	buf_fini(&pa);
	buf_fini(&pb);
	return same;
}

/* A golden file; false (and a line on stdout) when there is no golden data here. Free out with
 * buf_fini. */
static inline bool golden_read(const char *name, struct buf *out)
{
	const char *dir = getenv("SPANMILL_GOLDEN");
	char path[512];
	size_t got;
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", dir ? dir : "../shared/golden", name);
	f = fopen(path, "rb");
	if (f == NULL) {
		printf("skipped: no golden data (%s)\n", name);
		return false;
	}
	do {
		got = fread(buf_reserve(out, 65536), 1, 65536, f);
		out->n += got;
	} while (got > 0);
	fclose(f);
	return true;
}

#endif
