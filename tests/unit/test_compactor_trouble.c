/* SPDX-License-Identifier: Apache-2.0
 *
 * test_compactor_trouble.c - a compactor among blocks that make trouble: one that cannot be read
 * stands before nobody, what others wrote is left alone and named, clocks that are wrong delete
 * nothing, and an index that somebody else wrote is put right.
 */
#include "blocks/tenant_index.h"
#include "tests/faulty_backend.h"
#include "tests/unit/compact_fixture.h"

#define START_NS (UINT64_C(1790000000) * NS_PER_S)
#define HOUR_NS (3600 * NS_PER_S)
#define DAY_NS (24 * HOUR_NS)

enum { N_BLOCKS = 4 };

struct bed {
	struct backend *be, *inner; /* the compactor's; the store itself */
	struct compactor_options o;
	struct compactor *c;
	struct block_meta blocks[N_BLOCKS]; /* of a window that is over */
};

static uint64_t store_clock_ns; /* 0: right */

static uint64_t store_now(struct backend *be)
{
	(void)be;
	return store_clock_ns != 0 ? store_clock_ns : clock_wall_ns();
}

static struct bed bed_new(void)
{
	struct bed b = { .be = faulty_backend_new(memory_backend_new()) };

	clock_set_wall_for_test(START_NS);
	store_clock_ns = 0;
	faulty_of(b.be)->ops.now_ns = store_now;
	b.inner = faulty_of(b.be)->inner;
	b.o = plain_options(b.be);
	b.o.retention_ns = 10 * HOUR_NS;
	for (unsigned i = 0; i < N_BLOCKS; i++) {
		struct spans set = spans_from(10 * i, 10);

		add_block(b.inner, &set, START_NS - 2 * HOUR_NS, &b.blocks[i]);
	}
	b.c = compactor_new(&b.o);
	return b;
}

static void bed_fini(struct bed *b)
{
	compactor_free(b->c);
	clock_set_wall_for_test(0);
	backend_free(b->be);
}

static bool is_there(struct bed *b, const char *id, const char *name)
{
	char key[BACKEND_KEY_MAX + 1];

	assert_int_equal(block_key(key, TENANT, id, name, NULL), 0);
	return memory_find(b->inner, key) != NULL;
}

static void put(struct bed *b, const char *id, const char *name, const char *text)
{
	char key[BACKEND_KEY_MAX + 1];

	assert_int_equal(block_key(key, TENANT, id, name, NULL), 0);
	assert_int_equal(backend_put(b->inner, key, bytes_str(text), BACKEND_REPLACE, NULL), 0);
}

static void read_index(struct bed *b, struct tenant_index *x)
{
	struct memory_object *o = memory_find(b->inner, TENANT "/index.json.gz");

	assert_non_null(o);
	assert_int_equal(tenant_index_decode(buf_bytes(&o->data), TENANT, NULL, x, NULL), 0);
}

static void write_index(struct bed *b, const struct block_meta *metas, size_t n)
{
	struct tenant_index x;

	tenant_index_init(&x, NULL);
	for (size_t i = 0; i < n; i++)
		assert_int_equal(tenant_index_add(&x, &x.live, &metas[i], NULL), 0);
	assert_int_equal(tenant_index_write(b->inner, TENANT, &x, NULL), 0);
	tenant_index_fini(&x);
}

/* ---- one block that cannot be had ---- */

/* What fails, how, and whether it is known at once not to pass by itself. */
static const struct {
	const char *name, *object;
	unsigned calls;
	enum err_kind kind;
	bool is_known;
} troubles[] = {
	{ "data of a bad sector", "data", FAULTY_READ | FAULTY_SIZE, ERR_IO, false },
	{ "an index for which the store says 500", "index", FAULTY_READ, ERR_UNAVAILABLE, false },
	{ "an index that is damaged", "index", FAULTY_READ, ERR_CORRUPT, true },
	{ "an index that may not be read", "index", FAULTY_READ, ERR_PERMISSION, true },
	{ "a meta for which the store says 500", "meta.json", FAULTY_READ, ERR_UNAVAILABLE, false },
};

/* The three others are merged in the same cycle, an old one is deleted; nothing of the fourth is
 * touched, and when it can be read again it is an input like any other. */
static void one_block_stands_before_nobody(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT_OF(troubles); i++) {
		struct bed b = bed_new();
		const char *bad = b.blocks[i % N_BLOCKS].id;
		struct spans all = spans_from(0, 10 * N_BLOCKS);
		struct census now;
		struct block_meta old;
		char part[64];
		struct err err = ERR_INIT;
		int ret;

		add_block(b.inner, &all, START_NS - 20 * HOUR_NS, &old);
		assert_int_equal(block_mark_compacted(b.inner, TENANT, old.id, NULL), 0);
		clock_set_wall_for_test(START_NS + b.o.compacted_retention_ns + 2 * NS_PER_S);
		snprintf(part, sizeof(part), "%s/%s", bad, troubles[i].object);
		faulty_set(b.be, (struct faulty_rule){ troubles[i].calls, part, -1, false,
						       troubles[i].kind });
		ret = compactor_cycle(b.c, &err);
		if (ret != (troubles[i].is_known ? 0 : -1))
			fail_msg("%s: %d %s", troubles[i].name, ret, err.msg);
		if (ret < 0 && strstr(err.msg, bad) == NULL)
			fail_msg("%s: block %s is not named: %s", troubles[i].name, bad, err.msg);
		now = take_census(b.inner);
		if (now.live != 2 || now.compacted != N_BLOCKS - 1 || now.doubled != 0 ||
		    spans_missing(&all, &now.spans) != 0)
			fail_msg("%s: %zu live, %zu compacted", troubles[i].name, now.live,
				 now.compacted);
		assert_true(is_there(&b, bad, "meta.json"));
		assert_false(is_there(&b, old.id, "data"));
		/* Asked for ever, the answer is the same. */
		for (int k = 0; k < 3; k++)
			(void)compactor_cycle(b.c, NULL);
		assert_int_equal(take_census(b.inner).live, 2);
		assert_true(compactor_stats(b.c)->set_aside + (ret < 0) > 0);
		faulty_set(b.be, (struct faulty_rule){ .calls = 0 });
		compactor_free(b.c);
		b.c = compactor_new(&b.o);
		assert_int_equal(compactor_cycle(b.c, NULL), 0);
		now = take_census(b.inner);
		assert_int_equal(now.live, 1);
		assert_int_equal(spans_missing(&all, &now.spans), 0);
		bed_fini(&b);
	}
}

/* n spans of one trace. */
static struct spans spans_of_trace(unsigned trace, unsigned first, unsigned n)
{
	struct spans a = spans_from(0, 0);

	for (unsigned i = first; i < first + n; i++)
		spans_put(&a, trace + TRACES * i);
	return a;
}

/* Two inputs share a trace that is too large when it is joined; the others are merged. */
static void a_trace_too_large_spares_the_others(void **state)
{
	static const struct {
		unsigned trace, first, n;
	} blocks[] = { { 5, 0, 12 }, { 1, 0, 2 }, { 1, 2, 2 }, { 5, 12, 12 } };
	struct bed b = bed_new();
	struct spans all = spans_from(0, 0);
	struct census now;

	(void)state;
	for (size_t i = 0; i < N_BLOCKS; i++)
		assert_int_equal(block_delete(b.inner, TENANT, b.blocks[i].id, NULL), 0);
	for (size_t i = 0; i < COUNT_OF(blocks); i++) {
		struct spans set = spans_of_trace(blocks[i].trace, blocks[i].first, blocks[i].n);

		spans_add(&all, &set);
		add_block(b.inner, &set, START_NS - 2 * HOUR_NS, &b.blocks[i]);
	}
	compactor_free(b.c);
	/* A page holds the 12 spans of one of them, not those of both. */
	b.o.max_page_bytes = 1500;
	b.c = compactor_new(&b.o);
	assert_int_equal(compactor_cycle(b.c, NULL), 0);
	now = take_census(b.inner);
	assert_int_equal(spans_missing(&all, &now.spans), 0);
	assert_int_equal(now.live, 3);
	assert_int_equal(compactor_stats(b.c)->refused, 2);
	assert_true(is_there(&b, b.blocks[0].id, "meta.json"));
	assert_true(is_there(&b, b.blocks[3].id, "meta.json"));
	bed_fini(&b);
}

/* The smallest has more traces than a block may: the rest is merged all the same. */
static void a_block_of_many_traces_stands_before_nobody(void **state)
{
	struct compact_rules rules = { .now_ns = START_NS,
				       .window_ns = HOUR_NS,
				       .max_block_bytes = MIB,
				       .max_objects = 1000,
				       .min_inputs = 2,
				       .max_inputs = 8 };
	struct block_meta metas[N_BLOCKS];
	const struct block_meta *v[N_BLOCKS];
	struct compact_job *jobs = NULL;

	(void)state;
	for (size_t i = 0; i < N_BLOCKS; i++) {
		block_meta_init(&metas[i]);
		snprintf(metas[i].format, sizeof(metas[i].format), "v2");
		snprintf(metas[i].data_encoding, sizeof(metas[i].data_encoding), "v2");
		metas[i].records = 1;
		metas[i].index_page_size = 256000;
		metas[i].size = 100 * (i + 1);
		metas[i].objects = i == 0 ? 1001 : 10;
		metas[i].ingested_at = block_time_of_ns(START_NS - 2 * HOUR_NS);
		v[i] = &metas[i];
	}
	assert_int_equal(compact_select(v, N_BLOCKS, &rules, &jobs), 1);
	assert_int_equal(jobs[0].n, 3);
	free(jobs);
}

/* ---- what others wrote, or damaged ---- */

static const char parquet[] =
	"{\"format\":\"vParquet4\",\"blockID\":\"aaaaaaaa-0000-4000-8000-000000000001\","
	"\"tenantID\":\"" TENANT "\",\"startTime\":\"2020-01-01T00:00:00Z\","
	"\"endTime\":\"2020-01-01T00:00:01Z\",\"totalObjects\":3,\"size\":9,\"encoding\":\"none\","
	"\"indexPageSize\":0,\"totalRecords\":1,\"dataEncoding\":\"\",\"bloomShards\":1,"
	"\"dedicatedColumns\":[{\"n\":\"region\"}]}";

/* Two with a damaged meta.json, one of another format: they stay, are counted, and the index is
 * written once, not in each cycle. */
static void what_is_not_ours_stays(void **state)
{
	static const char *const ids[] = { "aaaaaaaa-0000-4000-8000-000000000001",
					   "aaaaaaaa-0000-4000-8000-000000000002",
					   "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx" };
	struct bed b = bed_new();
	const struct compactor_stats *s = compactor_stats(b.c);
	struct tenant_index x;
	uint64_t written;
	unsigned reads;

	(void)state;
	put(&b, ids[0], "meta.json", parquet);
	put(&b, ids[0], "data.parquet", "PAR1");
	put(&b, ids[1], "meta.json", "{\"format\":\"v2\",\"bl");
	put(&b, ids[1], "data", "x");
	put(&b, ids[2], "meta.json", "{}");
	put(&b, ids[2], "data", "x");
	assert_int_equal(compactor_cycle(b.c, NULL), 0);
	written = s->indexes;
	reads = memory_of(b.inner)->reads;
	for (int i = 0; i < 3; i++)
		assert_int_equal(compactor_cycle(b.c, NULL), 0);
	assert_int_equal(s->indexes, written);
	assert_int_equal(memory_of(b.inner)->reads, reads);
	assert_int_equal(s->unreadable, 2);
	assert_int_equal(s->foreign, 1);
	for (size_t i = 0; i < COUNT_OF(ids); i++)
		assert_true(is_there(&b, ids[i], "meta.json"));
	read_index(&b, &x);
	assert_int_equal(x.live.n, 2); /* the other format, and what the four became */
	/* For who reads that format. */
	for (size_t i = 0; i < x.live.n; i++)
		assert_true((strcmp(x.live.v[i].format, "v2") != 0) ==
			    (x.live.v[i].columns != NULL &&
			     strcmp(x.live.v[i].columns, "[{\"n\":\"region\"}]") == 0));
	tenant_index_fini(&x);
	/* Mended, it is read again. */
	clock_set_wall_for_test(START_NS + NS_PER_S);
	put(&b, ids[1], "meta.json",
	    "{\"format\":\"vParquet4\",\"blockID\":\"aaaaaaaa-0000-4000-8000-000000000002\","
	    "\"tenantID\":\"" TENANT "\"}");
	assert_int_equal(compactor_cycle(b.c, NULL), 0);
	assert_int_equal(s->unreadable, 1);
	assert_int_equal(s->foreign, 2);
	bed_fini(&b);
}

/* Without ingestedAt it counts from when it came into the store: by its spans' clocks one would be
 * deleted at once, and another never. */
static void what_says_no_time_counts_from_when_it_came(void **state)
{
	struct bed b = bed_new();
	struct spans set = spans_from(0, 5);
	struct block_meta old, wild;

	(void)state;
	write_block(b.inner, &set, START_NS, &old);
	write_block(b.inner, &set, START_NS, &wild);
	old.ingested_at = wild.ingested_at = BLOCK_TIME_NONE;
	old.end = block_time_of_ns(NS_PER_S);
	wild.end = block_time_of_ns(UINT64_C(7258118400) * NS_PER_S);
	old.replication_factor = 1; /* not merged: */
	wild.replication_factor = 2;
	assert_int_equal(block_publish(b.inner, &old, NULL), 0);
	assert_int_equal(block_publish(b.inner, &wild, NULL), 0);
	clock_set_wall_for_test(START_NS + b.o.retention_ns);
	assert_int_equal(compactor_cycle(b.c, NULL), 0);
	assert_true(is_there(&b, old.id, "meta.json"));
	assert_true(is_there(&b, wild.id, "meta.json"));
	clock_set_wall_for_test(START_NS + b.o.retention_ns + 2 * NS_PER_S);
	assert_int_equal(compactor_cycle(b.c, NULL), 0);
	assert_false(is_there(&b, old.id, "meta.json"));
	assert_false(is_there(&b, wild.id, "meta.json"));
	bed_fini(&b);
}

/* An index without our keys, as Tempo writes it anew, puts blocks of two shards into one group. */
static void an_index_without_our_keys_is_put_right(void **state)
{
	struct bed b = bed_new();
	struct block_meta lies[N_BLOCKS];
	struct tenant_index x;

	(void)state;
	for (size_t i = 0; i < N_BLOCKS; i++) {
		struct block_meta *m = &b.blocks[i];

		m->shard = (struct block_shard){ "sarama_compat", 2, i % 2 };
		assert_int_equal(block_delete(b.inner, TENANT, m->id, NULL), 0);
	}
	for (size_t i = 0; i < N_BLOCKS; i++) {
		struct spans set = spans_from((unsigned)(10 * i), 10);
		struct block_shard shard = b.blocks[i].shard;

		write_block(b.inner, &set, START_NS - 2 * HOUR_NS, &b.blocks[i]);
		b.blocks[i].shard = shard;
		assert_int_equal(block_publish(b.inner, &b.blocks[i], NULL), 0);
		lies[i] = b.blocks[i];
		lies[i].shard = (struct block_shard){ .count = 0 };
		lies[i].ingested_at = BLOCK_TIME_NONE;
	}
	write_index(&b, lies, N_BLOCKS);
	for (int i = 0; i < 2; i++)
		assert_int_equal(compactor_cycle(b.c, NULL), 0);
	assert_int_equal(compactor_stats(b.c)->compactions, 2);
	read_index(&b, &x);
	assert_int_equal(x.live.n, 2);
	assert_int_equal(x.live.v[0].shard.count, 2);
	assert_int_not_equal(x.live.v[0].shard.index, x.live.v[1].shard.index);
	tenant_index_fini(&x);
	bed_fini(&b);
}

/* ---- clocks ---- */

/* This machine's clock is a day ahead of the store's: what was marked just now stays readable for
 * as long as it shall, and no block is past its retention. */
static void a_wrong_clock_deletes_nothing(void **state)
{
	struct bed b = bed_new();
	struct spans set = spans_from(0, 5);
	struct block_meta orphan;
	size_t n_live;

	(void)state;
	b.o.retention_ns = 10 * HOUR_NS;
	b.o.sweep_every_ns = 1;
	compactor_free(b.c);
	b.c = compactor_new(&b.o);
	write_block(b.inner, &set, START_NS, &orphan); /* a section that is being written */
	store_clock_ns = START_NS;
	assert_int_equal(compactor_cycle(b.c, NULL), 0);
	n_live = take_census(b.inner).live;
	clock_set_wall_for_test(START_NS + DAY_NS);
	store_clock_ns = START_NS + b.o.compacted_retention_ns - NS_PER_S;
	assert_int_equal(compactor_cycle(b.c, NULL), 0);
	assert_int_equal(take_census(b.inner).live, n_live);
	assert_int_equal(compactor_stats(b.c)->retired, 0);
	assert_true(is_there(&b, b.blocks[0].id, "data"));
	assert_true(is_there(&b, orphan.id, "data"));
	/* A bucket's times are whole seconds: the second is waited for. */
	store_clock_ns = START_NS + b.o.compacted_retention_ns + NS_PER_S;
	assert_int_equal(compactor_cycle(b.c, NULL), 0);
	assert_true(is_there(&b, b.blocks[0].id, "data"));
	store_clock_ns++;
	assert_int_equal(compactor_cycle(b.c, NULL), 0);
	assert_false(is_there(&b, b.blocks[0].id, "data"));
	/* A store's clock alone that is ahead retires nothing either. */
	clock_set_wall_for_test(START_NS);
	store_clock_ns = START_NS + 2 * DAY_NS;
	assert_int_equal(compactor_cycle(b.c, NULL), 0);
	assert_int_equal(take_census(b.inner).live, n_live);
	bed_fini(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(one_block_stands_before_nobody),
		cmocka_unit_test(a_trace_too_large_spares_the_others),
		cmocka_unit_test(a_block_of_many_traces_stands_before_nobody),
		cmocka_unit_test(what_is_not_ours_stays),
		cmocka_unit_test(what_says_no_time_counts_from_when_it_came),
		cmocka_unit_test(an_index_without_our_keys_is_put_right),
		cmocka_unit_test(a_wrong_clock_deletes_nothing),
	};

	return cmocka_run_group_tests_name("compactor_trouble", tests, NULL, NULL);
}
