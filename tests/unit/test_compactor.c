/* SPDX-License-Identifier: Apache-2.0
 *
 * test_compactor.c - the parts of compaction one by one: records, joining, selection, merging,
 * retention, deletion, index, leases. How they behave together under kills: test_compact_model.c.
 */
#include "blocks/compact_chain.h"
#include "blocks/compact_lease.h"
#include "blocks/compact_merge.h"
#include "blocks/section.h"
#include "blocks/tenant_index.h"
#include "blocks/trace_join.h"
#include "tests/faulty_backend.h"
#include "tests/unit/compact_fixture.h"

#define START_NS (UINT64_C(1790000000) * NS_PER_S)
#define HOUR_NS (3600 * NS_PER_S)

static void at_time(uint64_t wall_ns)
{
	clock_set_wall_for_test(wall_ns);
}

static bool is_there(struct backend *be, const char *id, const char *name)
{
	char key[BACKEND_KEY_MAX + 1];

	assert_int_equal(block_key(key, TENANT, id, name, NULL), 0);
	return memory_find(be, key) != NULL;
}

/* ---- records ---- */

static struct compact_record a_record(char (*inputs)[COMPACT_ID], struct block_meta *output)
{
	struct compact_record r = { .number = 7, .inputs = inputs, .n_inputs = 2 };

	rng_uuid(r.id);
	rng_uuid(r.previous);
	rng_uuid(inputs[0]);
	rng_uuid(inputs[1]);
	block_meta_init(output);
	memcpy(output->format, "v2", 3);
	memcpy(output->tenant, TENANT, sizeof(TENANT));
	rng_uuid(output->id);
	r.created_at = block_time_of_ns(START_NS);
	r.outputs = output;
	r.n_outputs = 1;
	return r;
}

static void a_record_comes_back_and_damage_does_not(void **state)
{
	char inputs[2][COMPACT_ID];
	struct block_meta output;
	struct compact_record r = a_record(inputs, &output), got;
	struct buf json = BUF_INIT;
	struct err err = ERR_INIT;

	(void)state;
	compact_record_encode(&r, &json);
	assert_int_equal(compact_record_decode(buf_bytes(&json), TENANT, 7, &got, &err), 0);
	assert_string_equal(got.id, r.id);
	assert_string_equal(got.previous, r.previous);
	assert_int_equal(got.n_inputs, 2);
	assert_string_equal(got.inputs[1], inputs[1]);
	assert_int_equal(got.n_outputs, 1);
	assert_string_equal(got.outputs[0].id, output.id);
	compact_record_fini(&got);
	for (size_t i = 0; i < json.n; i++) {
		json.p[i] ^= 1;
		if (compact_record_decode(buf_bytes(&json), TENANT, 7, &got, &err) == 0)
			fail_msg("a flip at %zu went unseen", i);
		assert_int_equal(err.kind, ERR_CORRUPT);
		compact_record_fini(&got);
		json.p[i] ^= 1;
	}
	assert_int_equal(compact_record_decode(buf_bytes(&json), TENANT, 8, &got, &err), -1);
	compact_record_fini(&got);
	assert_int_equal(compact_record_decode(buf_bytes(&json), "u", 7, &got, &err), -1);
	compact_record_fini(&got);
	buf_fini(&json);
}

static void keys_of_records(void **state)
{
	static const struct {
		const char *key;
		uint64_t number;
	} cases[] = {
		{ "_spanmill/compactions/t/00000000000000000012.json", 12 },
		{ "_spanmill/compactions/t/00000000000000000000.json", 0 },
		{ "_spanmill/compactions/t/12.json", 0 },
		{ "_spanmill/compactions/t/00000000000000000012.json.damaged", 0 },
		{ "_spanmill/compactions/t/0000000000000000001x.json", 0 },
		{ "00000000000000000012.json", 0 },
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		uint64_t number = 0;
		bool is = compact_record_number(cases[i].key, &number);

		if (is != (cases[i].number > 0) || (is && number != cases[i].number))
			fail_msg("%s: %d %llu", cases[i].key, is, (unsigned long long)number);
	}
}

/* ---- joining ---- */

static struct test_span variant(uint64_t span, uint32_t padding)
{
	struct test_span s = plain_span(1, span);

	s.padding = padding;
	return s;
}

static const struct {
	const char *name;
	uint64_t a[3], b[3];   /* span ids of each object, 0 ends */
	uint32_t a_pad, b_pad; /* other bytes */
	unsigned spans, duplicates, conflicting;
} joins[] = {
	{ "nothing in common", { 1, 2 }, { 3 }, 0, 0, 3, 0, 0 },
	{ "all the same", { 1, 2 }, { 1, 2 }, 0, 0, 2, 2, 0 },
	{ "one of two is new", { 1, 2 }, { 2, 3 }, 0, 0, 3, 1, 0 },
	{ "one id, other bytes", { 1 }, { 1 }, 0, 5, 2, 0, 1 },
	{ "other bytes and a new one", { 1 }, { 1, 2 }, 0, 5, 3, 0, 1 },
	{ "empty second", { 1 }, { 0 }, 0, 0, 1, 0, 0 },
};

static void make_object(struct buf *out, const uint64_t *ids, uint32_t pad)
{
	struct test_span spans[3];
	size_t n = 0;

	while (n < 3 && ids[n] != 0) {
		spans[n] = variant(ids[n], pad);
		n++;
	}
	object_of(out, spans, n);
}

/* Span ids of what a join made. */
static size_t joined_spans(const struct trace_join *j)
{
	struct found_spans f = { NULL, 0, 0, NULL };
	struct buf whole = BUF_INIT;
	struct block_object o;
	struct bytes segment;
	size_t n;

	for (size_t i = 0; i < j->n; i++)
		buf_add_bytes(&whole, j->pieces[i]);
	assert_int_equal(block_object_parse(buf_bytes(&whole), "v2", &o, NULL), 0);
	assert_int_equal(o.start_s, 100);
	assert_int_equal(o.end_s, 200);
	while (block_object_segment_next(&o.segments, &segment, NULL) == 1)
		assert_int_equal(note_piece(&f, segment, NULL), 0);
	n = f.n;
	found_reset(&f);
	buf_fini(&whole);
	return n;
}

static void fragments_are_joined(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT_OF(joins); i++) {
		struct budget budget = BUDGET_INIT(MIB);
		struct buf a = BUF_INIT, b = BUF_INIT;
		struct trace_join j;
		size_t bad, n;

		trace_join_init(&j, &budget);
		make_object(&a, joins[i].a, joins[i].a_pad);
		make_object(&b, joins[i].b, joins[i].b_pad);
		assert_int_equal(trace_join(&j, (struct bytes[]){ buf_bytes(&a), buf_bytes(&b) }, 2,
					    "v2", &bad, NULL),
				 0);
		n = joined_spans(&j);
		if (n != joins[i].spans || j.n_duplicates != joins[i].duplicates ||
		    j.n_conflicting != joins[i].conflicting)
			fail_msg("%s: %zu spans, %llu duplicates, %llu conflicting", joins[i].name,
				 n, (unsigned long long)j.n_duplicates,
				 (unsigned long long)j.n_conflicting);
		assert_int_equal(budget.used, 0);
		trace_join_fini(&j);
		buf_fini(&a);
		buf_fini(&b);
	}
}

/* Without memory for tables, or when they are damaged inside, fragments are kept whole. */
static void what_cannot_be_looked_into_is_kept(void **state)
{
	struct budget none = BUDGET_INIT(0);
	struct buf a = BUF_INIT, b = BUF_INIT;
	struct trace_join j;
	size_t bad, bytes = 0;
	struct err err = ERR_INIT;

	(void)state;
	make_object(&a, (uint64_t[3]){ 1, 2 }, 0);
	make_object(&b, (uint64_t[3]){ 2, 3 }, 0);
	trace_join_init(&j, &none);
	assert_int_equal(trace_join(&j, (struct bytes[]){ buf_bytes(&a), buf_bytes(&b) }, 2, "v2",
				    &bad, NULL),
			 0);
	assert_int_equal(joined_spans(&j), 4);
	assert_int_equal(j.n_whole, 1);
	/* A length inside the second's segment: no OTLP any more. */
	b.p[BLOCK_OBJECT_TIMES + 4] ^= 0x7f;
	assert_int_equal(trace_join(&j, (struct bytes[]){ buf_bytes(&a), buf_bytes(&b) }, 2, "v2",
				    &bad, NULL),
			 0);
	for (size_t i = 0; i < j.n; i++)
		bytes += j.pieces[i].n;
	assert_int_equal(bytes, a.n + b.n - BLOCK_OBJECT_TIMES);
	/* No object at all. */
	b.n = 3;
	assert_int_equal(trace_join(&j, (struct bytes[]){ buf_bytes(&a), buf_bytes(&b) }, 2, "v2",
				    &bad, &err),
			 -1);
	assert_int_equal(err.kind, ERR_CORRUPT);
	assert_int_equal(bad, 1);
	trace_join_fini(&j);
	buf_fini(&a);
	buf_fini(&b);
}

/* ---- selection ---- */

/* A block as text: "<hours before now><shard a, b or -><level><size in MB>". */
struct block_text {
	int hours;
	char shard;
	unsigned level, mb;
};

static struct block_meta meta_from(const struct block_text *t)
{
	struct block_meta m;

	block_meta_init(&m);
	memcpy(m.format, "v2", 3);
	memcpy(m.data_encoding, "v2", 3);
	memcpy(m.tenant, TENANT, sizeof(TENANT));
	rng_uuid(m.id);
	m.size = t->mb * MIB;
	m.objects = t->mb * 100;
	m.records = 1;
	m.index_page_size = 256000;
	m.compaction_level = t->level;
	m.ingested_at = block_time_of_ns(START_NS - (uint64_t)t->hours * HOUR_NS);
	if (t->shard != '-')
		m.shard = (struct block_shard){ "murmur2", 2, (uint32_t)(t->shard - 'a') };
	return m;
}

enum { BLOCKS_MAX = 8 };

static const struct {
	const char *name;
	struct block_text blocks[BLOCKS_MAX];
	const char *jobs; /* inputs of each: "4" or "2,3" */
} selections[] = {
	{ "too few while the window is open",
	  { { 0, 'a', 0, 1 }, { 0, 'a', 0, 1 }, { 0, 'a', 0, 1 } },
	  "" },
	{ "enough",
	  { { 0, 'a', 0, 1 }, { 0, 'a', 0, 1 }, { 0, 'a', 0, 1 }, { 0, 'a', 0, 1 } },
	  "4" },
	{ "not of different levels",
	  { { 0, 'a', 0, 1 }, { 0, 'a', 0, 1 }, { 0, 'a', 1, 1 }, { 0, 'a', 1, 1 } },
	  "" },
	{ "not of different shards",
	  { { 0, 'a', 0, 1 }, { 0, 'b', 0, 1 }, { 0, '-', 0, 1 }, { 0, 'a', 0, 1 } },
	  "" },
	{ "two are enough when the window is over, of any level",
	  { { 2, 'a', 0, 1 }, { 2, 'a', 3, 1 } },
	  "2" },
	{ "one is left alone", { { 2, 'a', 0, 1 }, { 3, 'a', 0, 1 } }, "" },
	{ "each window by itself, the newest first",
	  { { 3, 'a', 0, 1 },
	    { 3, 'a', 0, 1 },
	    { 2, 'a', 0, 1 },
	    { 2, 'a', 0, 1 },
	    { 2, 'a', 0, 1 } },
	  "3,2" },
	{ "the lowest level first",
	  { { 2, 'a', 1, 1 },
	    { 2, 'a', 1, 1 },
	    { 3, 'a', 0, 1 },
	    { 3, 'a', 0, 1 },
	    { 3, 'a', 0, 1 } },
	  "3,2" },
	{ "not above the size", { { 2, 'a', 0, 60 }, { 2, 'a', 0, 60 } }, "" },
	{ "the small ones beside a large one",
	  { { 2, 'a', 2, 90 }, { 2, 'a', 0, 5 }, { 2, 'a', 0, 4 }, { 2, 'a', 0, 3 } },
	  "3" },
	{ "no more than max_inputs",
	  { { 2, 'a', 0, 1 },
	    { 2, 'a', 0, 1 },
	    { 2, 'a', 0, 1 },
	    { 2, 'a', 0, 1 },
	    { 2, 'a', 0, 1 },
	    { 2, 'a', 0, 1 },
	    { 2, 'a', 0, 1 } },
	  "5,2" },
};

static void blocks_are_selected(void **state)
{
	const struct compact_rules rules = { .now_ns = START_NS,
					     .window_ns = HOUR_NS,
					     .max_block_bytes = 100 * MIB,
					     .max_objects = 1000000,
					     .min_inputs = 4,
					     .max_inputs = 5 };

	(void)state;
	for (size_t i = 0; i < COUNT_OF(selections); i++) {
		struct block_meta metas[BLOCKS_MAX];
		const struct block_meta *v[BLOCKS_MAX];
		struct compact_job *jobs = NULL;
		struct buf got = BUF_INIT;
		size_t n = 0;

		for (; n < BLOCKS_MAX && selections[i].blocks[n].mb > 0; n++) {
			metas[n] = meta_from(&selections[i].blocks[n]);
			v[n] = &metas[n];
		}
		n = compact_select(v, n, &rules, &jobs);
		for (size_t k = 0; k < n; k++)
			buf_printf(&got, "%s%zu", k ? "," : "", jobs[k].n);
		if (strcmp(buf_cstr(&got), selections[i].jobs) != 0)
			fail_msg("%s: \"%s\", want \"%s\"", selections[i].name, buf_cstr(&got),
				 selections[i].jobs);
		free(jobs);
		buf_fini(&got);
	}
}

static void others_formats_are_left_out(void **state)
{
	const struct compact_rules rules = { START_NS, HOUR_NS, GIB, 1000000, 2, 8 };
	struct block_meta a = meta_from(&(struct block_text){ 2, 'a', 0, 1 }), b = a, c = a;
	const struct block_meta *v[] = { &a, &b, &c };
	struct compact_job *jobs = NULL;

	(void)state;
	memcpy(b.format, "vParquet4", 10);
	memcpy(c.data_encoding, "foo", 4);
	assert_int_equal(compact_select(v, 3, &rules, &jobs), 0);
	free(jobs);
}

/* ---- merging ---- */

static int merge_two(struct backend *be, const struct block_meta *a, const struct block_meta *b,
		     struct budget *budget, struct compact_merge *m, struct err *err)
{
	static struct block_meta inputs[2];

	inputs[0] = *a;
	inputs[1] = *b;
	*m = (struct compact_merge){ .backend = be,
				     .inputs = inputs,
				     .n_inputs = 2,
				     .budget = budget,
				     .read_ahead_bytes = 64 * KIB };
	return compact_merge(m, err);
}

static void two_blocks_become_one(void **state)
{
	struct backend *be = memory_backend_new();
	struct spans left = spans_from(0, 35), right = spans_from(20, 50), all = spans_from(0, 70);
	struct budget budget = BUDGET_INIT(64 * MIB);
	struct block_meta a, b;
	struct compact_merge m;
	struct err err = ERR_INIT;
	struct spans got;

	(void)state;
	add_block(be, &left, START_NS, &a);
	add_block(be, &right, START_NS + HOUR_NS, &b);
	a.start = block_time_of_ns(50 * NS_PER_S);
	b.compaction_level = 3;
	if (merge_two(be, &a, &b, &budget, &m, &err) < 0)
		fail_msg("%s", err.msg);
	assert_int_equal(m.n_joined, TRACES);
	assert_int_equal(m.n_duplicates, 15);
	assert_int_equal(m.n_conflicting, 0);
	assert_int_equal(m.output.objects, TRACES);
	assert_int_equal(m.output.compaction_level, 4);
	assert_int_equal(block_time_compare(m.output.start, a.start), 0);
	assert_int_equal(block_time_compare(m.output.ingested_at, b.ingested_at), 0);
	assert_false(is_there(be, m.output.id, "meta.json"));
	assert_int_equal(block_publish(be, &m.output, NULL), 0);
	got = spans_of(be, m.output.id);
	assert_int_equal(spans_missing(&all, &got) + spans_missing(&got, &all), 0);
	assert_int_equal(budget.used, 0);
	backend_free(be);
}

/* The claim stays only while every id was checked. */
static void a_claim_is_checked(void **state)
{
	struct backend *be = memory_backend_new();
	struct spans set = spans_from(0, TRACES);
	struct block_meta a, b;
	struct compact_merge m;

	(void)state;
	add_block(be, &set, START_NS, &a);
	add_block(be, &set, START_NS, &b);
	a.shard = b.shard = (struct block_shard){ "murmur2", 1, 0 };
	assert_int_equal(merge_two(be, &a, &b, NULL, &m, NULL), 0);
	assert_int_equal(m.output.shard.count, 1);
	a.shard = b.shard = (struct block_shard){ "murmur2", 1000, 7 };
	assert_int_equal(merge_two(be, &a, &b, NULL, &m, NULL), 0);
	assert_int_equal(m.output.shard.count, 0);
	backend_free(be);
}

static void a_bad_input_is_named_and_nothing_is_left(void **state)
{
	struct backend *be = memory_backend_new();
	struct spans set = spans_from(0, 40);
	struct budget small = BUDGET_INIT(MIB);
	struct block_meta a, b;
	struct compact_merge m;
	char key[BACKEND_KEY_MAX + 1];
	struct err err = ERR_INIT;
	size_t n_objects;

	(void)state;
	add_block(be, &set, START_NS, &a);
	add_block(be, &set, START_NS, &b);
	n_objects = memory_of(be)->n;
	assert_int_equal(merge_two(be, &a, &b, &small, &m, &err), -1);
	assert_int_equal(err.kind, ERR_EXHAUSTED);
	assert_int_equal(small.used, 0);
	assert_int_equal(block_key(key, TENANT, b.id, "data", NULL), 0);
	memory_find(be, key)->data.p[memory_find(be, key)->data.n / 2] ^= 0x10;
	assert_int_equal(merge_two(be, &a, &b, NULL, &m, &err), -1);
	assert_int_equal(m.bad_input, 1);
	assert_int_equal(memory_remove(be, key, NULL), 0);
	assert_int_equal(merge_two(be, &a, &b, NULL, &m, &err), -1);
	assert_int_equal(err.kind, ERR_NOT_FOUND);
	assert_int_equal(m.bad_input, 1);
	assert_int_equal(memory_of(be)->n, n_objects - 1);
	backend_free(be);
}

/* ---- a tenant's cycle ---- */

static void cycle(struct compactor *c)
{
	struct err err = ERR_INIT;

	if (compactor_cycle(c, &err) < 0)
		fail_msg("%s", err.msg);
}

static uint64_t five_hours(void *arg, const char *tenant)
{
	(void)arg;
	return strcmp(tenant, TENANT) == 0 ? 5 * HOUR_NS : 1;
}

/* A second on either side of the retention; the spans' own times are of the year 2026 all. */
static void retention_is_exact_and_by_ingest_time(void **state)
{
	struct backend *be = memory_backend_new();
	struct spans set = spans_from(0, 5);
	struct compactor_options o = plain_options(be);
	struct block_meta due, kept, without;
	struct compactor *c;

	(void)state;
	at_time(START_NS);
	o.retention_of = five_hours;
	o.rules.max_objects = 0;
	add_block(be, &set, START_NS - 5 * HOUR_NS - NS_PER_S, &due);
	add_block(be, &set, START_NS - 5 * HOUR_NS + NS_PER_S, &kept);
	/* Tempo's: no ingestedAt, and an end in the year 2200 that counts as now. */
	write_block(be, &set, START_NS, &without);
	without.ingested_at = BLOCK_TIME_NONE;
	without.end = block_time_of_ns(UINT64_C(7258118400) * NS_PER_S);
	assert_int_equal(block_publish(be, &without, NULL), 0);
	c = compactor_new(&o);
	cycle(c);
	assert_true(is_there(be, due.id, "meta.compacted.json"));
	assert_false(is_there(be, due.id, "meta.json"));
	assert_true(is_there(be, kept.id, "meta.json"));
	assert_true(is_there(be, without.id, "meta.json"));
	assert_int_equal(compactor_stats(c)->retired, 1);
	/* Its data stays for those who still read it. */
	at_time(START_NS + o.compacted_retention_ns);
	cycle(c);
	assert_true(is_there(be, due.id, "data"));
	assert_false(is_there(be, kept.id, "meta.json"));
	at_time(START_NS + o.compacted_retention_ns + 1);
	cycle(c);
	assert_false(is_there(be, due.id, "data"));
	assert_false(is_there(be, due.id, "meta.compacted.json"));
	assert_true(is_there(be, kept.id, "data"));
	compactor_free(c);
	at_time(0);
	backend_free(be);
}

/* An index says what is not so: the block's own meta.json counts. */
static void a_lying_index_deletes_nothing(void **state)
{
	struct backend *be = memory_backend_new();
	struct spans set = spans_from(0, 5);
	struct compactor_options o = plain_options(be);
	struct tenant_index lie;
	struct block_meta m;
	struct compactor *c;

	(void)state;
	at_time(START_NS);
	o.retention_ns = HOUR_NS;
	add_block(be, &set, START_NS, &m);
	m.ingested_at = BLOCK_TIME_NONE;
	m.end = block_time_of_ns(NS_PER_S);
	tenant_index_init(&lie, NULL);
	assert_int_equal(tenant_index_add(&lie, &lie.live, &m, NULL), 0);
	assert_int_equal(tenant_index_write(be, TENANT, &lie, NULL), 0);
	tenant_index_fini(&lie);
	c = compactor_new(&o);
	cycle(c);
	assert_true(is_there(be, m.id, "meta.json"));
	assert_int_equal(compactor_stats(c)->retired, 0);
	compactor_free(c);
	at_time(0);
	backend_free(be);
}

static void read_index(struct backend *be, struct tenant_index *x)
{
	struct memory_object *o = memory_find(be, TENANT "/index.json.gz");

	assert_non_null(o);
	assert_int_equal(tenant_index_decode(buf_bytes(&o->data), TENANT, NULL, x, NULL), 0);
}

static void blocks_are_merged_deleted_and_listed(void **state)
{
	struct backend *be = memory_backend_new();
	struct compactor_options o = plain_options(be);
	struct spans all = spans_from(0, 40);
	struct compactor *c = compactor_new(&o);
	struct tenant_index x;
	struct census now;
	uint64_t written;

	(void)state;
	at_time(START_NS);
	for (unsigned i = 0; i < 4; i++) {
		struct spans set = spans_from(10 * i, 10);

		add_block(be, &set, START_NS - 2 * HOUR_NS, NULL);
	}
	cycle(c);
	now = take_census(be);
	assert_int_equal(now.live, 1);
	assert_int_equal(now.compacted, 4);
	assert_int_equal(spans_missing(&all, &now.spans), 0);
	read_index(be, &x);
	assert_int_equal(x.live.n, 1);
	assert_int_equal(x.compacted.n, 4);
	assert_int_equal(x.compacted.v[0].compacted_at.s, START_NS / NS_PER_S);
	tenant_index_fini(&x);
	/* Nothing changes, nothing is written. */
	written = compactor_stats(c)->indexes;
	cycle(c);
	assert_int_equal(compactor_stats(c)->indexes, written);
	at_time(START_NS + o.compacted_retention_ns + 1);
	cycle(c);
	now = take_census(be);
	assert_int_equal(now.live, 1);
	assert_int_equal(now.compacted + now.other, 0);
	assert_int_equal(compactor_stats(c)->deleted, 4);
	assert_int_equal(compactor_stats(c)->compactions, 1);
	assert_int_equal(compactor_stats(c)->outstanding, 0);
	compactor_free(c);
	at_time(0);
	backend_free(be);
}

/* A quarter of the budget holds two inputs, or none. */
static void little_memory_means_small_merges(void **state)
{
	static const struct {
		int64_t budget_mib;
		size_t live;
		unsigned merges, postponed;
	} cases[] = { { 512, 1, 1, 0 }, { 40, 1, 3, 0 }, { 16, 4, 0, 1 } };

	(void)state;
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		struct budget budget = BUDGET_INIT(cases[i].budget_mib << 20);
		struct backend *be = memory_backend_new();
		struct compactor_options o = plain_options(be);
		struct compactor *c;

		at_time(START_NS);
		for (unsigned k = 0; k < 4; k++) {
			struct spans set = spans_from(10 * k, 10);

			add_block(be, &set, START_NS - 2 * HOUR_NS, NULL);
		}
		o.budget = &budget;
		c = compactor_new(&o);
		cycle(c);
		assert_int_equal(take_census(be).live, cases[i].live);
		assert_int_equal(compactor_stats(c)->compactions, cases[i].merges);
		assert_int_equal(compactor_stats(c)->postponed, cases[i].postponed);
		compactor_free(c);
		assert_int_equal(budget.used, 0);
		at_time(0);
		backend_free(be);
	}
}

/* What late followers of sections leave. */
static void late_names_are_put_right(void **state)
{
	struct backend *be = memory_backend_new();
	struct compactor_options o = plain_options(be);
	struct spans set = spans_from(0, 5);
	struct block_meta both, shell;
	struct compactor *c = compactor_new(&o);
	char key[BACKEND_KEY_MAX + 1];

	(void)state;
	at_time(START_NS);
	add_block(be, &set, START_NS, &both);
	assert_int_equal(block_mark_compacted(be, TENANT, both.id, NULL), 0);
	assert_int_equal(block_publish(be, &both, NULL), 0);
	add_block(be, &set, START_NS, &shell);
	assert_int_equal(block_key(key, TENANT, shell.id, "data", NULL), 0);
	assert_int_equal(backend_delete(be, key, NULL), 0);
	cycle(c);
	assert_false(is_there(be, both.id, "meta.json"));
	assert_true(is_there(be, both.id, "meta.compacted.json"));
	assert_true(is_there(be, shell.id, "meta.json"));
	at_time(START_NS + HOUR_NS + NS_PER_S);
	cycle(c);
	assert_false(is_there(be, shell.id, "meta.json"));
	assert_false(is_there(be, both.id, "data"));
	compactor_free(c);
	at_time(0);
	backend_free(be);
}

/* Deletion that ends in the middle leaves the mark: nobody takes the rest for a block. */
static void the_mark_goes_last(void **state)
{
	struct backend *be = faulty_backend_new(memory_backend_new());
	struct backend *inner = faulty_of(be)->inner;
	struct compactor_options o = plain_options(be);
	struct spans set = spans_from(0, 5);
	struct block_meta m;
	struct compactor *c = compactor_new(&o);

	(void)state;
	at_time(START_NS);
	add_block(inner, &set, START_NS, &m);
	assert_int_equal(block_mark_compacted(inner, TENANT, m.id, NULL), 0);
	at_time(START_NS + HOUR_NS);
	faulty_set(be, (struct faulty_rule){ FAULTY_REMOVE, "/data", 1, false, ERR_UNAVAILABLE });
	assert_int_equal(compactor_cycle(c, NULL), -1);
	assert_true(is_there(inner, m.id, "meta.compacted.json"));
	assert_int_equal(section_publish(inner, &m, NULL), 0);
	cycle(c);
	assert_false(is_there(inner, m.id, "data"));
	assert_false(is_there(inner, m.id, "meta.compacted.json"));
	assert_int_equal(section_publish(inner, &m, NULL), 0);
	compactor_free(c);
	at_time(0);
	backend_free(be);
}

/* ---- records whose outputs cannot be trusted ---- */

static void commit_late(struct backend *be, uint64_t wait_ns, bool is_swept, size_t *live)
{
	struct spans set = spans_from(0, 20);
	struct block_meta a, b, output;
	char inputs[2][COMPACT_ID];
	struct compact_chain chain;
	struct compact_merge m;
	int got;

	at_time(START_NS);
	add_block(be, &set, START_NS, &a);
	add_block(be, &set, START_NS, &b);
	assert_int_equal(merge_two(be, &a, &b, NULL, &m, NULL), 0);
	output = m.output;
	memcpy(inputs[0], a.id, COMPACT_ID);
	memcpy(inputs[1], b.id, COMPACT_ID);
	at_time(START_NS + wait_ns);
	if (is_swept)
		assert_int_equal(block_delete(be, TENANT, output.id, NULL), 0);
	compact_chain_init(&chain, be, TENANT);
	got = compact_chain_commit(&chain, inputs, 2, &output, 1, NULL);
	*live = take_census(be).live;
	assert_int_equal(got, *live == 1 ? COMPACT_COMMITTED : COMPACT_UNTOLD);
	/* Others see the same. */
	compact_chain_fini(&chain);
	compact_chain_init(&chain, be, TENANT);
	assert_int_equal(compact_chain_follow(&chain, NULL), 0);
	assert_int_equal(take_census(be).live, *live);
	compact_chain_fini(&chain);
}

static void a_late_commit_is_void(void **state)
{
	static const struct {
		uint64_t wait_ns;
		bool is_swept;
		size_t live;
	} cases[] = {
		{ 0, false, 1 },
		{ COMPACT_COMMIT_MAX_S * NS_PER_S, false, 1 },
		{ COMPACT_COMMIT_MAX_S * NS_PER_S + 1, false, 2 },
		{ 0, true, 2 },
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		struct backend *be = memory_backend_new();
		size_t live;

		commit_late(be, cases[i].wait_ns, cases[i].is_swept, &live);
		assert_int_equal(live, cases[i].live);
		at_time(0);
		backend_free(be);
	}
}

/* What a record names is no orphan, even unpublished for long; what nobody names is. */
static void orphans_are_swept_but_not_outputs(void **state)
{
	struct backend *be = faulty_backend_new(memory_backend_new());
	struct backend *inner = faulty_of(be)->inner;
	struct spans set = spans_from(0, 20);
	struct block_meta a, orphan, output;
	char inputs[1][COMPACT_ID];
	struct compact_chain chain;
	size_t n;

	(void)state;
	at_time(START_NS);
	add_block(inner, &set, START_NS, &a);
	write_block(inner, &set, START_NS, &output);
	write_block(inner, &set, START_NS, &orphan);
	memcpy(inputs[0], a.id, COMPACT_ID);
	compact_chain_init(&chain, be, TENANT);
	/* The record stands, and its owner dies before meta.json is there. */
	faulty_set(be, (struct faulty_rule){ FAULTY_PUT, "meta.json", -1, false, ERR_UNAVAILABLE });
	assert_int_equal(compact_chain_commit(&chain, inputs, 1, &output, 1, NULL),
			 COMPACT_COMMITTED);
	assert_false(is_there(inner, output.id, "meta.json"));
	at_time(START_NS + 2 * HOUR_NS);
	assert_int_equal(section_sweep_orphans(inner, HOUR_NS, &n, NULL), 0);
	assert_int_equal(n, 1);
	assert_true(is_there(inner, output.id, "data"));
	assert_false(is_there(inner, orphan.id, "data"));
	faulty_set(be, (struct faulty_rule){ .calls = 0 });
	assert_int_equal(compact_chain_follow(&chain, NULL), 0);
	assert_true(is_there(inner, output.id, "meta.json"));
	assert_false(is_there(inner, a.id, "meta.json"));
	compact_chain_fini(&chain);
	at_time(0);
	backend_free(be);
}

/* Of sources that ended long ago only the newest commit stays. */
static void old_commits_are_swept_but_the_newest(void **state)
{
	struct backend *be = memory_backend_new();
	static const struct {
		const char *source;
		uint64_t first, hours;
		bool stays;
	} commits[] = {
		{ "log-a", 1, 30, false },   { "log-a", 5, 29, true },  { "g/c/t/0", 1, 30, false },
		{ "g/c/t/0", 7, 30, false }, { "g/c/t/0", 9, 1, true }, { "g/c/t/1", 3, 40, true },
	};
	size_t n;

	(void)state;
	for (size_t i = 0; i < COUNT_OF(commits); i++) {
		struct section_commit c = { .first = commits[i].first, .last = commits[i].first };

		at_time(START_NS - commits[i].hours * HOUR_NS);
		assert_int_equal(section_commit_put(be, commits[i].source, &c, NULL), 0);
	}
	at_time(START_NS);
	assert_int_equal(section_sweep_aged(be, 24 * HOUR_NS, &n, NULL), 0);
	assert_int_equal(n, 3);
	for (size_t i = 0; i < COUNT_OF(commits); i++) {
		struct section_commit c;
		int got = section_commit_read(be, commits[i].source, commits[i].first, 0, &c, NULL);

		assert_int_equal(got, commits[i].stays ? 0 : -1);
		section_commit_fini(&c);
	}
	at_time(0);
	backend_free(be);
}

/* ---- leases ---- */

static void a_lease_is_one_s(void **state)
{
	struct backend *be = memory_backend_new();
	struct compact_lease a, b, c;

	(void)state;
	at_time(START_NS);
	assert_int_equal(compact_lease_take(&a, be, "A", TENANT, "none", NULL), 1);
	assert_int_equal(compact_lease_take(&b, be, "B", TENANT, "none", NULL), 0);
	assert_int_equal(compact_lease_take(&c, be, "B", TENANT, "murmur2-4-1", NULL), 1);
	/* Kept by who renews in time. */
	at_time(START_NS +
		(COMPACT_LEASE_S - START_NS / NS_PER_S % COMPACT_LEASE_S - 1) * NS_PER_S);
	compact_lease_renew(&a);
	at_time(START_NS + COMPACT_LEASE_S * NS_PER_S);
	assert_int_equal(compact_lease_take(&b, be, "B", TENANT, "none", NULL), 0);
	compact_lease_release(&a);
	assert_int_equal(compact_lease_take(&b, be, "B", TENANT, "none", NULL), 1);
	/* Left by somebody who died: over with its minute, swept an hour later. */
	at_time(START_NS + 2 * COMPACT_LEASE_S * NS_PER_S);
	assert_int_equal(compact_lease_take(&a, be, "A", TENANT, "none", NULL), 1);
	at_time(START_NS + 2 * HOUR_NS);
	assert_int_equal(compact_lease_sweep(be, HOUR_NS, NULL), 0);
	assert_int_equal(memory_of(be)->n, 0);
	at_time(0);
	backend_free(be);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_record_comes_back_and_damage_does_not),
		cmocka_unit_test(keys_of_records),
		cmocka_unit_test(fragments_are_joined),
		cmocka_unit_test(what_cannot_be_looked_into_is_kept),
		cmocka_unit_test(blocks_are_selected),
		cmocka_unit_test(others_formats_are_left_out),
		cmocka_unit_test(two_blocks_become_one),
		cmocka_unit_test(a_claim_is_checked),
		cmocka_unit_test(a_bad_input_is_named_and_nothing_is_left),
		cmocka_unit_test(retention_is_exact_and_by_ingest_time),
		cmocka_unit_test(a_lying_index_deletes_nothing),
		cmocka_unit_test(blocks_are_merged_deleted_and_listed),
		cmocka_unit_test(little_memory_means_small_merges),
		cmocka_unit_test(late_names_are_put_right),
		cmocka_unit_test(the_mark_goes_last),
		cmocka_unit_test(a_late_commit_is_void),
		cmocka_unit_test(orphans_are_swept_but_not_outputs),
		cmocka_unit_test(old_commits_are_swept_but_the_newest),
		cmocka_unit_test(a_lease_is_one_s),
	};

	log_configure(LOG_ERROR, LOG_CONSOLE);
	return cmocka_run_group_tests_name("compactor", tests, NULL, NULL);
}
