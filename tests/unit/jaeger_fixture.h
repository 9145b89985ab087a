/* SPDX-License-Identifier: Apache-2.0
 *
 * jaeger_fixture.h - a Jaeger span as a test's table spells it, written as Thrift (both protocols)
 * and as api_v2 protobuf.
 */
#ifndef TESTS_UNIT_JAEGER_FIXTURE_H
#define TESTS_UNIT_JAEGER_FIXTURE_H

#include "tests/thrift_writer.h"
#include "wire/jaeger_span.h"

#include <stdlib.h>

enum { FIXTURE_TAGS = 8, FIXTURE_REFS = 4 };

struct fixture_tag {
	const char *key;
	char type; /* s, b, i, d; x binary, ? a type that nobody knows; 0 ends the list */
	const char *value;
};

struct fixture_ref {
	uint32_t type;
	int64_t high, low, span; /* all zero with type 9 is written as zeros; 0,0,0,0 ends */
};

struct fixture_span {
	int64_t high, low, id, parent;
	const char *name;
	int64_t start_us, duration_us;
	uint32_t flags;
	struct fixture_tag tags[FIXTURE_TAGS];
	struct fixture_ref refs[FIXTURE_REFS];
	int64_t log_us; /* 0: no log */
	struct fixture_tag log[FIXTURE_TAGS];
};

static inline size_t fixture_n_tags(const struct fixture_tag *t)
{
	size_t n = 0;

	while (n < FIXTURE_TAGS && t[n].type != 0)
		n++;
	return n;
}

static inline size_t fixture_n_refs(const struct fixture_ref *r)
{
	size_t n = 0;

	while (n < FIXTURE_REFS && (r[n].type | (uint64_t)(r[n].high | r[n].low | r[n].span)) != 0)
		n++;
	return n;
}

/* ---- Thrift ---- */

static inline void fixture_thrift_tags(struct thrift_writer *w, int id, const struct fixture_tag *t)
{
	static const struct {
		char type;
		int32_t thrift;
	} types[] = {
		{ 's', 0 }, { 'd', 1 }, { 'b', 2 }, { 'i', 3 }, { 'x', 4 }, { '?', 77 },
	};
	size_t n = fixture_n_tags(t);

	thrift_put_list(w, id, n);
	for (size_t i = 0; i < n; i++) {
		size_t k = 0;

		while (types[k].type != t[i].type)
			k++;
		thrift_begin(w);
		thrift_put_string(w, 1, bytes_str(t[i].key));
		thrift_put_i32(w, 2, types[k].thrift);
		if (t[i].type == 's')
			thrift_put_string(w, 3, bytes_str(t[i].value));
		if (t[i].type == 'd')
			thrift_put_double(w, 4, strtod(t[i].value, NULL));
		if (t[i].type == 'b')
			thrift_put_bool(w, 5, t[i].value[0] == 't');
		if (t[i].type == 'i')
			thrift_put_i64(w, 6, strtoll(t[i].value, NULL, 10));
		if (t[i].type == 'x')
			thrift_put_string(w, 7, bytes_str(t[i].value));
		thrift_end(w);
	}
}

static inline void fixture_thrift_refs(struct thrift_writer *w, const struct fixture_ref *r)
{
	size_t n = fixture_n_refs(r);

	thrift_put_list(w, 6, n);
	for (size_t i = 0; i < n; i++) {
		thrift_begin(w);
		thrift_put_i32(w, 1, (int32_t)r[i].type);
		thrift_put_i64(w, 2, r[i].low);
		thrift_put_i64(w, 3, r[i].high);
		thrift_put_i64(w, 4, r[i].span);
		thrift_end(w);
	}
}

static inline void fixture_thrift_span(struct thrift_writer *w, const struct fixture_span *sp)
{
	thrift_begin(w);
	thrift_put_i64(w, 1, sp->low);
	thrift_put_i64(w, 2, sp->high);
	thrift_put_i64(w, 3, sp->id);
	thrift_put_i64(w, 4, sp->parent);
	thrift_put_string(w, 5, bytes_str(sp->name));
	if (fixture_n_refs(sp->refs) > 0)
		fixture_thrift_refs(w, sp->refs);
	thrift_put_i32(w, 7, (int32_t)sp->flags);
	thrift_put_i64(w, 8, sp->start_us);
	thrift_put_i64(w, 9, sp->duration_us);
	fixture_thrift_tags(w, 10, sp->tags);
	if (sp->log_us != 0) {
		thrift_put_list(w, 11, 1);
		thrift_begin(w);
		thrift_put_i64(w, 1, sp->log_us);
		fixture_thrift_tags(w, 2, sp->log);
		thrift_end(w);
	}
	thrift_end(w);
}

/* A Batch. */
static inline void fixture_thrift(struct thrift_writer *w, const char *service,
				  const struct fixture_tag *process,
				  const struct fixture_span *spans, size_t n)
{
	thrift_begin(w);
	thrift_put_field(w, 1, THRIFT_STRUCT);
	thrift_begin(w);
	thrift_put_string(w, 1, bytes_str(service));
	fixture_thrift_tags(w, 2, process);
	thrift_end(w);
	thrift_put_list(w, 2, n);
	for (size_t i = 0; i < n; i++)
		fixture_thrift_span(w, &spans[i]);
	thrift_end(w);
}

/* ---- protobuf ---- */

static inline void fixture_proto_tags(struct buf *b, uint32_t number, const struct fixture_tag *t)
{
	for (size_t i = 0; i < fixture_n_tags(t); i++) {
		size_t mark = pb_begin(b, number);

		pb_put_str(b, 1, t[i].key);
		if (t[i].type == 's') {
			pb_put_str(b, 3, t[i].value);
		} else if (t[i].type == 'b') {
			pb_put_uint(b, 2, JAEGER_BOOL);
			pb_put_uint(b, 4, t[i].value[0] == 't');
		} else if (t[i].type == 'i') {
			pb_put_uint(b, 2, JAEGER_INT64);
			pb_put_uint(b, 5, (uint64_t)strtoll(t[i].value, NULL, 10));
		} else if (t[i].type == 'd') {
			pb_put_uint(b, 2, JAEGER_FLOAT64);
			pb_put_double(b, 6, strtod(t[i].value, NULL));
		} else if (t[i].type == 'x') {
			pb_put_uint(b, 2, JAEGER_BINARY);
			pb_put_str(b, 7, t[i].value);
		} else {
			pb_put_uint(b, 2, 77);
		}
		pb_end(b, mark);
	}
}

static inline void fixture_proto_id(struct buf *b, uint32_t number, int64_t high, int64_t low,
				    size_t n)
{
	uint8_t id[16];

	store_be64(id, (uint64_t)high);
	store_be64(id + 8, (uint64_t)low);
	pb_put_bytes(b, number, (struct bytes){ id + 16 - n, n });
}

static inline void fixture_proto_time(struct buf *b, uint32_t number, int64_t us)
{
	size_t mark = pb_begin(b, number);

	pb_put_uint(b, 1, (uint64_t)(us / 1000000));
	pb_put_uint(b, 2, (uint64_t)(us % 1000000 * 1000));
	pb_end(b, mark);
}

static inline void fixture_proto_ref(struct buf *b, uint32_t type, int64_t high, int64_t low,
				     int64_t span)
{
	size_t mark = pb_begin(b, 4);

	fixture_proto_id(b, 1, high, low, 16);
	fixture_proto_id(b, 2, 0, span, 8);
	pb_put_uint(b, 3, type);
	pb_end(b, mark);
}

/* Members of a model.Span; a parent becomes a reference, as Jaeger does it. */
static inline void fixture_proto_span(struct buf *b, const struct fixture_span *sp)
{
	size_t mark;

	fixture_proto_id(b, 1, sp->high, sp->low, sp->high != 0 ? 16 : 8);
	fixture_proto_id(b, 2, 0, sp->id, 8);
	pb_put_str(b, 3, sp->name);
	if (sp->parent != 0)
		fixture_proto_ref(b, JAEGER_CHILD_OF, sp->high, sp->low, sp->parent);
	for (size_t i = 0; i < fixture_n_refs(sp->refs); i++)
		fixture_proto_ref(b, sp->refs[i].type, sp->refs[i].high, sp->refs[i].low,
				  sp->refs[i].span);
	pb_put_uint(b, 5, sp->flags);
	fixture_proto_time(b, 6, sp->start_us);
	fixture_proto_time(b, 7, sp->duration_us);
	fixture_proto_tags(b, 8, sp->tags);
	if (sp->log_us == 0)
		return;
	mark = pb_begin(b, 9);
	fixture_proto_time(b, 1, sp->log_us);
	fixture_proto_tags(b, 2, sp->log);
	pb_end(b, mark);
}

static inline void fixture_proto_process(struct buf *b, uint32_t number, const char *service,
					 const struct fixture_tag *process)
{
	size_t mark = pb_begin(b, number);

	pb_put_str(b, 1, service);
	fixture_proto_tags(b, 2, process);
	pb_end(b, mark);
}

/* A PostSpansRequest. */
static inline void fixture_proto(struct buf *b, const char *service,
				 const struct fixture_tag *process,
				 const struct fixture_span *spans, size_t n)
{
	size_t batch = pb_begin(b, 1);

	for (size_t i = 0; i < n; i++) {
		size_t span = pb_begin(b, 1);

		fixture_proto_span(b, &spans[i]);
		pb_end(b, span);
	}
	fixture_proto_process(b, 2, service, process);
	pb_end(b, batch);
}

#endif
