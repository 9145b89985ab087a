/* SPDX-License-Identifier: Apache-2.0
 *
 * test_store.c - finding a trace over live sources and blocks: what fails makes the answer
 * incomplete, what is gone does not.
 */
#include "tests/unit/section_fixture.h"

#include "blocks/block_writer.h"
#include "tests/faulty_backend.h"

struct fixture {
	char *dir;
	struct backend *be; /* owned by the store */
	struct store *store;
	struct budget budget;
};

static int set_up_at(void **state, bool is_remote)
{
	struct fixture *f = xcalloc(1, sizeof(*f));

	f->dir = scratch_dir();
	f->be = faulty_backend_new_at(local_at(f->dir), is_remote);
	f->budget.limit = 64 << 20;
	f->store = store_new(&(struct store_options){ .backend = f->be,
						      .local_path = f->dir,
						      .poll_ns = 3600 * NS_PER_S,
						      .budget = &f->budget });
	assert_int_equal(store_start(f->store, NULL), 0);
	*state = f;
	return 0;
}

static int set_up(void **state)
{
	return set_up_at(state, false);
}

/* As over a bucket. */
static int set_up_far(void **state)
{
	return set_up_at(state, true);
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	store_free(f->store);
	assert_int_equal(f->budget.used, 0);
	remove_tree(f->dir);
	free(f->dir);
	free(f);
	return 0;
}

/* A published block of one span, that this store has not heard of. */
static struct block_meta write_block(struct fixture *f, const char *tenant,
				    const struct test_span *s)
{
	struct block_writer *w = block_writer_open(f->be, tenant, NULL, NULL, NULL);
	uint8_t id[16], head[BLOCK_OBJECT_HEAD];
	struct buf otlp = BUF_INIT;
	struct bytes pieces[2];
	struct block_meta m;

	put_request(&otlp, s, 1);
	trace_id_of(s, id);
	pieces[0] = (struct bytes){ head, block_object_head(head, 1, 2, otlp.n) };
	pieces[1] = buf_bytes(&otlp);
	assert_int_equal(block_writer_add(w, id, pieces, 2, NULL), 0);
	assert_int_equal(block_writer_finish(w, &m, NULL), 0);
	assert_int_equal(block_publish(f->be, &m, NULL), 0);
	buf_fini(&otlp);
	return m;
}

static struct block_meta add_block(struct fixture *f, const char *tenant, const struct test_span *s)
{
	struct block_meta m = write_block(f, tenant, s);

	store_add_block(f->store, &m);
	return m;
}

/* A live source of one span of tenant "t". */
struct live {
	struct live_source source;
	struct test_span span;
	bool fails;
	_Atomic int flushing, stop;
};

static int live_find(struct live_source *s, const char *tenant, const uint8_t id[16],
		     store_piece_fn *piece, void *arg, struct err *err)
{
	struct live *l = CONTAINER_OF(s, struct live, source);
	struct buf otlp = BUF_INIT;
	uint8_t own[16];
	int ret = 0;

	if (l->fails)
		return err_set(err, ERR_IO, "live source broken");
	trace_id_of(&l->span, own);
	if (strcmp(tenant, "t") != 0 || memcmp(own, id, 16) != 0)
		return 0;
	put_request(&otlp, &l->span, 1);
	ret = piece(arg, buf_bytes(&otlp), err);
	buf_fini(&otlp);
	return ret;
}

static int live_flush(struct live_source *s, struct err *err)
{
	struct live *l = CONTAINER_OF(s, struct live, source);

	if (l->fails)
		return err_set(err, ERR_UNAVAILABLE, "cannot flush");
	atomic_store(&l->flushing, 1);
	while (!atomic_load(&l->stop))
		usleep(1000);
	return 0;
}

static void live_init(struct live *l, const struct test_span *s)
{
	*l = (struct live){ .source = { .find = live_find, .flush = live_flush }, .span = *s };
}

static struct store_find_result find(struct fixture *f, const char *tenant,
				     const struct test_span *s, struct found_spans *found)
{
	struct store_find_result r;
	struct err err = ERR_INIT;
	uint8_t id[16];

	trace_id_of(s, id);
	found_reset(found);
	found->id = id;
	if (store_find(f->store, tenant, id, note_piece, found, &r, &err) < 0)
		fail_msg("%s", err.msg);
	found->id = NULL;
	return r;
}

static void test_live_and_blocks(void **state)
{
	struct fixture *f = *state;
	struct test_span a = plain_span(1, 1), b = plain_span(1, 2), c = plain_span(1, 3);
	struct found_spans found = { NULL, 0, 0, NULL };
	struct store_find_result r;
	struct live live;

	live_init(&live, &c);
	store_add_live(f->store, &live.source);
	add_block(f, "t", &a);
	add_block(f, "t", &b);
	add_block(f, "other", &a);
	r = find(f, "t", &a, &found);
	assert_int_equal(r.pieces, 3);
	assert_int_equal(r.blocks_asked, 2);
	assert_int_equal(r.blocks_failed + r.live_failed, 0);
	assert_true(r.inspected_bytes > 0);
	for (uint64_t i = 1; i <= 3; i++)
		assert_int_equal(count_span(&found, i), 1);
	r = find(f, "nobody", &a, &found);
	assert_int_equal(r.pieces, 0);
	store_remove_live(f->store, &live.source);
	r = find(f, "t", &a, &found);
	assert_int_equal(r.pieces, 2);
	found_reset(&found);
}

static void damage(struct fixture *f, const struct block_meta *m, const char *name)
{
	char key[BACKEND_KEY_MAX + 1];

	assert_int_equal(block_key(key, m->tenant, m->id, name, NULL), 0);
	assert_int_equal(backend_put(f->be, key, BYTES_LIT("damaged"), BACKEND_REPLACE, NULL), 0);
}

/* Whatever part of a block is damaged or cannot be read: the others answer, and it is said. */
static void test_failures_are_incomplete(void **state)
{
	static const char *const parts[] = { "data", "index", "bloom-0" };
	struct fixture *f = *state;
	struct test_span a = plain_span(1, 1), b = plain_span(1, 2);
	struct found_spans found = { NULL, 0, 0, NULL };
	struct store_find_result r;
	struct live live;

	add_block(f, "t", &a);
	live_init(&live, &b);
	store_add_live(f->store, &live.source);
	for (size_t i = 0; i < COUNT_OF(parts); i++) {
		struct block_meta m = add_block(f, "t", &b);

		damage(f, &m, parts[i]);
		r = find(f, "t", &a, &found);
		assert_int_equal(r.blocks_failed, i + 1);
		assert_true(r.first_failure[0] != '\0');
		assert_int_equal(count_span(&found, 1), 1);
		assert_int_equal(count_span(&found, 2), 1);
	}
	faulty_set(f->be, (struct faulty_rule){ .calls = FAULTY_READ, .times = -1 });
	r = find(f, "t", &a, &found);
	/* The good one needs nobody any more over a bucket. */
	assert_int_equal(r.blocks_failed, backend_is_remote(f->be) ? 3 : 4);
	faulty_set(f->be, (struct faulty_rule){ 0 });
	live.fails = true;
	r = find(f, "t", &a, &found);
	assert_int_equal(r.live_failed, 1);
	assert_int_equal(count_span(&found, 1), 1);
	store_remove_live(f->store, &live.source);
	found_reset(&found);
}

/* Deleted or compacted since the list was read: complete. Its data lost while it is published, or
 * nobody can say whether it is: incomplete. */
static void test_gone_blocks(void **state)
{
	struct fixture *f = *state;
	struct test_span a = plain_span(1, 1);
	struct found_spans found = { NULL, 0, 0, NULL };
	struct block_meta gone = add_block(f, "t", &a), lost;
	struct store_find_result r;
	char key[BACKEND_KEY_MAX + 1];

	assert_int_equal(block_delete(f->be, "t", gone.id, NULL), 0);
	faulty_set(f->be, (struct faulty_rule){ .calls = FAULTY_SIZE, .times = -1 });
	r = find(f, "t", &a, &found);
	assert_int_equal(r.blocks_failed, 1);
	faulty_set(f->be, (struct faulty_rule){ 0 });
	r = find(f, "t", &a, &found);
	assert_int_equal(r.blocks_asked, 1);
	assert_int_equal(r.blocks_failed, 0);
	assert_int_equal(found.n, 0);
	r = find(f, "t", &a, &found);
	assert_int_equal(r.blocks_asked, 0);
	lost = add_block(f, "t", &a);
	assert_int_equal(block_key(key, "t", lost.id, "data", NULL), 0);
	assert_int_equal(backend_delete(f->be, key, NULL), 0);
	r = find(f, "t", &a, &found);
	assert_int_equal(r.blocks_failed, 1);
	found_reset(&found);
}

/* Compaction deletes a block that is still on our list; the one it wrote is not on it yet. */
static void test_gone_into_another_block(void **state)
{
	struct fixture *f = *state;
	struct test_span a = plain_span(1, 1);
	struct found_spans found = { NULL, 0, 0, NULL };
	struct block_meta gone = add_block(f, "t", &a);
	struct store_find_result r;

	write_block(f, "t", &a); /* published by somebody else: no poll has seen it */
	assert_int_equal(block_delete(f->be, "t", gone.id, NULL), 0);
	r = find(f, "t", &a, &found);
	assert_int_equal(r.blocks_failed, 0);
	assert_int_equal(r.blocks_asked, 2);
	assert_int_equal(found.n, 1);
	found_reset(&found);

	gone = add_block(f, "t", &a);
	assert_int_equal(block_delete(f->be, "t", gone.id, NULL), 0);
	faulty_set(f->be, (struct faulty_rule){ .calls = FAULTY_LIST, .times = -1 });
	r = find(f, "t", &a, &found);
	assert_int_equal(r.blocks_failed, 1);
	assert_non_null(strstr(r.first_failure, "list of blocks is too old"));
	faulty_set(f->be, (struct faulty_rule){ 0 });
	found_reset(&found);
}

/* A meta.json that cannot be read may be a block that has the trace. */
static void test_unreadable_meta(void **state)
{
	struct fixture *f = *state;
	struct test_span a = plain_span(1, 1);
	struct found_spans found = { NULL, 0, 0, NULL };
	struct store_find_result r;

	add_block(f, "t", &a);
	assert_int_equal(backend_put(f->be, "t/00000000-0000-4000-8000-000000000001/meta.json",
				     BYTES_LIT("{"), BACKEND_REPLACE, NULL),
			 0);
	assert_int_equal(store_refresh(f->store, NULL), 0);
	r = find(f, "t", &a, &found);
	assert_int_equal(r.blocks_failed, 1);
	assert_non_null(strstr(r.first_failure, "unreadable meta.json"));
	assert_int_equal(found.n, 1);
	r = find(f, "u", &a, &found);
	assert_int_equal(r.blocks_failed, 0);
	found_reset(&found);
}

static unsigned reads(struct fixture *f)
{
	return faulty_of(f->be)->calls[FAULTY_READ];
}

/* What a block's filter and index said once is not read again; what the block had is forgotten with
 * it. */
static void test_second_look_reads_nothing(void **state)
{
	struct fixture *f = *state;
	struct test_span a = plain_span(1, 1), absent = plain_span(2, 1);
	struct found_spans found = { NULL, 0, 0, NULL };
	struct block_cache_stats st;
	struct block_meta m = add_block(f, "t", &a);
	unsigned before;

	for (int i = 0; i < 9; i++)
		add_block(f, "t", &a);
	assert_int_equal(find(f, "t", &absent, &found).blocks_asked, 10);
	before = reads(f);
	assert_int_equal(find(f, "t", &absent, &found).blocks_asked, 10);
	assert_int_equal(reads(f), before);
	/* Found: index and data, then only data. */
	assert_int_equal(find(f, "t", &a, &found).pieces, 10);
	assert_int_equal(reads(f), before + 20);
	assert_int_equal(find(f, "t", &a, &found).pieces, 10);
	assert_int_equal(reads(f), before + 30);
	block_cache_stats(store_cache(f->store), &st);
	assert_int_equal(st.pieces, 20);
	assert_int_equal(st.misses[BLOCK_CACHE_BLOOM], 10);
	assert_int_equal(st.misses[BLOCK_CACHE_INDEX], 10);
	assert_int_equal(block_delete(f->be, "t", m.id, NULL), 0);
	for (int i = 0; i < 3; i++)
		assert_int_equal(store_refresh(f->store, NULL), 0);
	block_cache_stats(store_cache(f->store), &st);
	assert_int_equal(st.pieces, 18);
	assert_int_equal(find(f, "t", &a, &found).pieces, 9);
	found_reset(&found);
}

/* Over a bucket data pages are kept too: who asks for a trace again asks nobody. */
static void test_second_look_over_a_bucket(void **state)
{
	enum { N = 30 };
	struct fixture *f = *state;
	struct test_span a = plain_span(1, 1), absent = plain_span(2, 1);
	struct found_spans found = { NULL, 0, 0, NULL };
	struct block_cache_stats st;
	struct block_meta m = { .id = "" };
	unsigned before = reads(f);

	for (int i = 0; i < N; i++)
		m = add_block(f, "t", &a);
	/* Filters that nobody has read are asked several at a time. */
	assert_int_equal(find(f, "t", &absent, &found).blocks_asked, N);
	assert_int_equal(reads(f), before + N);
	assert_int_equal(find(f, "t", &a, &found).pieces, N);
	assert_int_equal(reads(f), before + 3 * N);
	assert_int_equal(find(f, "t", &a, &found).pieces, N);
	assert_int_equal(reads(f), before + 3 * N);
	store_cache_stats(f->store, &st);
	assert_int_equal(st.pieces, 3 * N);
	assert_int_equal(st.hits[BLOCK_CACHE_PAGE], N);
	assert_int_equal(st.misses[BLOCK_CACHE_PAGE], N);
	assert_int_equal(block_delete(f->be, "t", m.id, NULL), 0);
	for (int i = 0; i < 3; i++)
		assert_int_equal(store_refresh(f->store, NULL), 0);
	store_cache_stats(f->store, &st);
	assert_int_equal(st.pieces, 3 * (N - 1));
	found_reset(&found);
}

/* Of many filters asked at once some cannot be read: those blocks are missed, and said to be. */
static void test_filters_that_fail(void **state)
{
	struct fixture *f = *state;
	struct test_span a = plain_span(1, 1);
	struct found_spans found = { NULL, 0, 0, NULL };
	struct store_find_result r;

	for (int i = 0; i < 20; i++)
		add_block(f, "t", &a);
	faulty_set(f->be, (struct faulty_rule){ .calls = FAULTY_READ, .times = -1 });
	r = find(f, "t", &a, &found);
	assert_int_equal(r.blocks_asked, 20);
	assert_int_equal(r.blocks_failed, 20);
	/* Those that failed the first time only are asked again. */
	faulty_set(f->be, (struct faulty_rule){ .calls = FAULTY_READ, .times = 20 });
	r = find(f, "t", &a, &found);
	assert_int_equal(r.blocks_failed, 0);
	assert_int_equal(r.pieces, 20);
	faulty_set(f->be, (struct faulty_rule){ 0 });
	found_reset(&found);
}

/* A damaged filter or index is never kept: repaired, it answers. */
static void test_damage_is_not_kept(void **state)
{
	static const char *const parts[] = { "index", "bloom-0", "data" };
	struct fixture *f = *state;
	struct found_spans found = { NULL, 0, 0, NULL };

	for (uint64_t i = 0; i < COUNT_OF(parts); i++) {
		struct test_span a = plain_span(i + 1, 1);
		struct block_meta m = add_block(f, "t", &a);
		struct buf good = BUF_INIT;
		char key[BACKEND_KEY_MAX + 1];

		assert_int_equal(block_key(key, m.tenant, m.id, parts[i], NULL), 0);
		assert_int_equal(backend_read(f->be, key, MIB, &good, NULL), 0);
		damage(f, &m, parts[i]);
		assert_int_equal(find(f, "t", &a, &found).blocks_failed, 1);
		assert_int_equal(find(f, "t", &a, &found).blocks_failed, 1);
		assert_int_equal(backend_put(f->be, key, buf_bytes(&good), BACKEND_REPLACE, NULL),
				 0);
		assert_int_equal(find(f, "t", &a, &found).pieces, 1);
		buf_fini(&good);
	}
	found_reset(&found);
}

/* A block whose ids all hash to another partition is not asked; one of an unknown hasher is. */
static void test_other_shards_are_not_asked(void **state)
{
	struct fixture *f = *state;
	struct test_span a = plain_span(1, 1);
	struct found_spans found = { NULL, 0, 0, NULL };
	size_t asked = 0;
	uint8_t id[16];

	trace_id_of(&a, id);
	for (uint32_t i = 0; i < 4; i++) {
		struct block_meta m;
		struct store_find_result r;

		m = add_block(f, "u", &a); /* for its bytes; listed again as another tenant's */
		assert_int_equal(block_delete(f->be, "u", m.id, NULL), 0);
		memcpy(m.tenant, "t", 2);
		m.shard = (struct block_shard){ "murmur2", 4, i };
		rng_uuid(m.id);
		store_add_block(f->store, &m);
		r = find(f, "t", &a, &found);
		asked = r.blocks_asked;
	}
	assert_int_equal(asked, 1);
	found_reset(&found);
}

static int refuse_piece(void *arg, struct bytes traces_data, struct err *err)
{
	(void)arg;
	(void)traces_data;
	return err_set(err, ERR_TOO_LARGE, "enough");
}

static void test_caller_stops(void **state)
{
	struct fixture *f = *state;
	struct test_span a = plain_span(1, 1);
	struct store_find_result r;
	struct err err = ERR_INIT;
	struct live live;
	uint8_t id[16];

	trace_id_of(&a, id);
	add_block(f, "t", &a);
	assert_int_equal(store_find(f->store, "t", id, refuse_piece, NULL, &r, &err), -1);
	assert_int_equal(err.kind, ERR_TOO_LARGE);
	live_init(&live, &a);
	store_add_live(f->store, &live.source);
	err_clear(&err);
	assert_int_equal(store_find(f->store, "t", id, refuse_piece, NULL, &r, &err), -1);
	assert_int_equal(err.kind, ERR_TOO_LARGE);
	assert_int_equal(r.blocks_asked, 0);
	store_remove_live(f->store, &live.source);
}

static void *flush_main(void *arg)
{
	struct fixture *f = arg;

	assert_int_equal(store_flush(f->store, NULL), 0);
	return NULL;
}

static void *remove_main(void *arg)
{
	struct live *l = arg;

	usleep(20000);
	atomic_store(&l->stop, 1);
	return NULL;
}

/* While a flush waits, look-ups, additions and removals of others go on; the source itself is let
 * go only when its flush returned. */
static void test_flush_holds_nothing(void **state)
{
	struct fixture *f = *state;
	struct test_span a = plain_span(1, 1), b = plain_span(1, 2);
	struct found_spans found = { NULL, 0, 0, NULL };
	struct live live, other;
	pthread_t flusher, stopper;

	live_init(&live, &a);
	live_init(&other, &b);
	store_add_live(f->store, &live.source);
	pthread_create(&flusher, NULL, flush_main, f);
	while (!atomic_load(&live.flushing))
		usleep(100);
	store_add_live(f->store, &other.source);
	find(f, "t", &a, &found);
	assert_int_equal(found.n, 2);
	store_remove_live(f->store, &other.source);
	pthread_create(&stopper, NULL, remove_main, &live);
	store_remove_live(f->store, &live.source);
	assert_int_equal(atomic_load(&live.stop), 1);
	pthread_join(flusher, NULL);
	pthread_join(stopper, NULL);
	found_reset(&found);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)
#define FAR(fn) { #fn " (far)", fn, set_up_far, tear_down, NULL }

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_live_and_blocks),
		TEST(test_failures_are_incomplete),
		TEST(test_gone_blocks),
		TEST(test_gone_into_another_block),
		TEST(test_unreadable_meta),
		TEST(test_second_look_reads_nothing),
		TEST(test_damage_is_not_kept),
		TEST(test_other_shards_are_not_asked),
		TEST(test_caller_stops),
		TEST(test_flush_holds_nothing),
		FAR(test_live_and_blocks),
		FAR(test_failures_are_incomplete),
		FAR(test_gone_blocks),
		FAR(test_gone_into_another_block),
		FAR(test_unreadable_meta),
		FAR(test_damage_is_not_kept),
		FAR(test_other_shards_are_not_asked),
		FAR(test_second_look_over_a_bucket),
		FAR(test_filters_that_fail),
	};

	log_configure(LOG_ERROR + 1, LOG_CONSOLE);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
