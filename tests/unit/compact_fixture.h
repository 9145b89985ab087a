/* SPDX-License-Identifier: Apache-2.0
 *
 * compact_fixture.h - what the tests of the compactor share: blocks of known spans, and which spans
 * a block or a whole store has.
 *
 * A span is a number below SPANS; span s is of trace s % TRACES. Header only, because every test
 * program is one file.
 */
#ifndef TESTS_UNIT_COMPACT_FIXTURE_H
#define TESTS_UNIT_COMPACT_FIXTURE_H

#include "base/str.h"
#include "blocks/block_iter.h"
#include "blocks/block_writer.h"
#include "blocks/compact_scan.h"
#include "blocks/compactor.h"
#include "tests/memory_backend.h"
#include "tests/unit/section_fixture.h"

enum { TRACES = 10, SPANS = 2048, SPAN_WORDS = SPANS / 64 };

#define TENANT "t"

/* A set of spans. */
struct spans {
	uint64_t w[SPAN_WORDS];
};

static inline bool spans_has(const struct spans *a, unsigned s)
{
	return a->w[s / 64] >> s % 64 & 1;
}

static inline void spans_put(struct spans *a, unsigned s)
{
	a->w[s / 64] |= UINT64_C(1) << s % 64;
}

static inline struct spans spans_from(unsigned first, unsigned n)
{
	struct spans a = { { 0 } };

	for (unsigned s = first; s < first + n; s++)
		spans_put(&a, s);
	return a;
}

static inline void spans_add(struct spans *a, const struct spans *b)
{
	for (int i = 0; i < SPAN_WORDS; i++)
		a->w[i] |= b->w[i];
}

/* How many are in a and not in b; in both. */
static inline unsigned spans_missing(const struct spans *a, const struct spans *b)
{
	unsigned n = 0;

	for (int i = 0; i < SPAN_WORDS; i++)
		n += (unsigned)__builtin_popcountll(a->w[i] & ~b->w[i]);
	return n;
}

static inline unsigned spans_common(const struct spans *a, const struct spans *b)
{
	unsigned n = 0;

	for (int i = 0; i < SPAN_WORDS; i++)
		n += (unsigned)__builtin_popcountll(a->w[i] & b->w[i]);
	return n;
}

static inline void object_of(struct buf *out, const struct test_span *spans, size_t n)
{
	struct buf otlp = BUF_INIT;
	uint8_t head[BLOCK_OBJECT_HEAD];

	put_request(&otlp, spans, n);
	buf_add(out, head, block_object_head(head, 100, 200, otlp.n));
	buf_add_bytes(out, buf_bytes(&otlp));
	buf_fini(&otlp);
}

struct fixture_trace {
	uint8_t id[16];
	struct buf object;
};

static inline int by_trace_id(const void *a, const void *b)
{
	return memcmp(a, b, 16);
}

/* Their traces, in order of their ids. */
static inline size_t traces_of(const struct spans *set, struct fixture_trace v[TRACES])
{
	size_t n = 0;

	for (uint64_t t = 0; t < TRACES; t++) {
		struct test_span spans[SPANS / TRACES + 1];
		size_t k = 0;

		for (unsigned s = (unsigned)t; s < SPANS; s += TRACES)
			if (spans_has(set, s))
				spans[k++] = plain_span(t, s + 1);
		if (k == 0)
			continue;
		trace_id_of(&spans[0], v[n].id);
		v[n].object = (struct buf)BUF_INIT;
		object_of(&v[n++].object, spans, k);
	}
	qsort(v, n, sizeof(*v), by_trace_id);
	return n;
}

/* A block of these spans, not published. */
static inline void write_block(struct backend *be, const struct spans *set, uint64_t ingested_ns,
			       struct block_meta *m)
{
	struct block_writer_options o = { .downsample_bytes = 300 };
	struct block_writer *w = block_writer_open(be, TENANT, NULL, &o, NULL);
	struct fixture_trace v[TRACES];
	size_t n = traces_of(set, v);

	for (size_t i = 0; i < n; i++) {
		struct bytes piece = buf_bytes(&v[i].object);

		assert_int_equal(block_writer_add(w, v[i].id, &piece, 1, NULL), 0);
		buf_fini(&v[i].object);
	}
	assert_int_equal(block_writer_finish(w, m, NULL), 0);
	m->ingested_at = block_time_of_ns(ingested_ns);
}

static inline void add_block(struct backend *be, const struct spans *set, uint64_t ingested_ns,
			     struct block_meta *m)
{
	struct block_meta own;

	m = m ? m : &own;
	write_block(be, set, ingested_ns, m);
	assert_int_equal(block_publish(be, m, NULL), 0);
}

/* The spans of a block; none of them is twice in it. */
static inline struct spans spans_of(struct backend *be, const char *id)
{
	struct block_reader *r;
	struct block_iter *it;
	struct page_object o;
	struct block_meta m;
	struct err err = ERR_INIT;
	struct spans set = { { 0 } };
	int got;

	if (block_read_meta(be, TENANT, id, "meta.json", &m, &err) < 0)
		fail_msg("%s: %s", id, err.msg);
	r = block_reader_new(be, &m, NULL, NULL);
	it = block_iter_new(r, BLOCK_ITER_CHECKED);
	while ((got = block_iter_next(it, &o, &err)) == 1) {
		struct found_spans f = { NULL, 0, 0, o.id };
		struct bytes segment;
		struct block_object object;

		assert_int_equal(block_object_parse(o.data, "v2", &object, NULL), 0);
		while (block_object_segment_next(&object.segments, &segment, NULL) == 1)
			assert_int_equal(note_piece(&f, segment, NULL), 0);
		for (size_t i = 0; i < f.n; i++) {
			if (spans_has(&set, (unsigned)f.v[i] - 1))
				fail_msg("block %s has span %llu twice", id,
					 (unsigned long long)f.v[i] - 1);
			spans_put(&set, (unsigned)f.v[i] - 1);
		}
		free(f.v);
	}
	if (got < 0)
		fail_msg("block %s: %s", id, err.msg);
	block_iter_free(it);
	block_reader_free(r);
	return set;
}

struct census {
	size_t live, compacted, other;
	struct spans spans; /* in any live block */
	unsigned doubled;   /* spans in two of them */
};

static inline struct census take_census(struct backend *be)
{
	struct census c = { .live = 0 };
	struct compact_scan s;

	assert_int_equal(compact_scan(be, TENANT, &s, NULL), 0);
	for (size_t i = 0; i < s.n; i++) {
		c.compacted += s.v[i].has_compacted;
		c.other += !s.v[i].has_compacted && !compact_is_live(&s.v[i]);
		if (compact_is_live(&s.v[i])) {
			struct spans set = spans_of(be, s.v[i].id);

			c.doubled += spans_common(&c.spans, &set);
			spans_add(&c.spans, &set);
			c.live++;
		}
	}
	compact_scan_fini(&s);
	return c;
}

static inline struct compactor_options plain_options(struct backend *be)
{
	return (struct compactor_options){
		.backend = be,
		.rules = { .window_ns = 3600 * NS_PER_S,
			   .max_block_bytes = GIB,
			   .max_objects = 1000000,
			   .min_inputs = 4,
			   .max_inputs = 8 },
		.compacted_retention_ns = 60 * NS_PER_S,
		.read_ahead_bytes = 64 * KIB,
	};
}

#endif
