/* SPDX-License-Identifier: Apache-2.0
 *
 * test_blocklist.c - the list follows the backend: what appears, goes, and cannot be read.
 */
#include "tests/unit/section_fixture.h"

#include "blocks/block_writer.h"
#include "blocks/tenant_index.h"
#include "tests/faulty_backend.h"

struct fixture {
	char *dir;
	struct backend *be; /* faulty around local */
	struct blocklist *list;
	struct budget budget;
};

static int set_up_at(void **state, bool is_remote)
{
	struct fixture *f = xcalloc(1, sizeof(*f));

	f->dir = scratch_dir();
	f->be = faulty_backend_new_at(local_at(f->dir), is_remote);
	f->list = blocklist_new(f->be);
	f->budget.limit = 64 << 20;
	blocklist_charge(f->list, &f->budget);
	*state = f;
	return 0;
}

static int set_up(void **state)
{
	return set_up_at(state, false);
}

/* As in a bucket. */
static int set_up_far(void **state)
{
	return set_up_at(state, true);
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	blocklist_free(f->list);
	assert_int_equal(f->budget.used, 0);
	backend_free(f->be);
	remove_tree(f->dir);
	free(f->dir);
	free(f);
	return 0;
}

static struct block_meta publish(struct fixture *f, const char *tenant)
{
	struct block_writer *w = block_writer_open(f->be, tenant, NULL, NULL, NULL);
	uint8_t id[16] = { 1 }, head[BLOCK_OBJECT_HEAD];
	struct block_meta m;
	struct bytes piece = { head, block_object_head(head, 1, 2, 0) };

	assert_int_equal(block_writer_add(w, id, &piece, 1, NULL), 0);
	assert_int_equal(block_writer_finish(w, &m, NULL), 0);
	assert_int_equal(block_publish(f->be, &m, NULL), 0);
	return m;
}

static size_t listed(struct fixture *f, const char *tenant)
{
	struct blocklist_snapshot s;
	size_t n;

	blocklist_snapshot(f->list, tenant, &s);
	n = s.n;
	for (size_t i = 0; i < n; i++)
		assert_string_equal(s.v[i]->meta.tenant, tenant);
	blocklist_snapshot_fini(&s);
	return n;
}

static size_t damaged(struct fixture *f, const char *tenant)
{
	struct blocklist_snapshot s;
	size_t n;

	blocklist_snapshot(f->list, tenant, &s);
	n = s.n_damaged;
	blocklist_snapshot_fini(&s);
	return n;
}

static void poll_ok(struct fixture *f)
{
	struct err err = ERR_INIT;

	if (blocklist_poll(f->list, &err) < 0)
		fail_msg("%s", err.msg);
}

static void test_appear_and_go(void **state)
{
	struct fixture *f = *state;
	struct block_meta a, b;
	struct blocklist_snapshot held;

	poll_ok(f);
	assert_int_equal(blocklist_count(f->list), 0);
	a = publish(f, "a");
	b = publish(f, "b");
	poll_ok(f);
	assert_int_equal(listed(f, "a"), 1);
	assert_int_equal(listed(f, "b"), 1);
	assert_int_equal(listed(f, "c"), 0);
	blocklist_snapshot(f->list, "a", &held);
	assert_int_equal(block_delete(f->be, "a", a.id, NULL), 0);
	assert_int_equal(block_mark_compacted(f->be, "b", b.id, NULL), 0);
	/* Both stay for a poll, so that who reads the list meanwhile finds inputs or output. */
	poll_ok(f);
	assert_int_equal(blocklist_count(f->list), 2);
	poll_ok(f);
	assert_int_equal(blocklist_count(f->list), 0);
	assert_string_equal(held.v[0]->meta.id, a.id);
	blocklist_snapshot_fini(&held);
}

/* Our own block is there at once, and a poll that began before it does not take it out. */
static void test_own_block_at_once(void **state)
{
	struct fixture *f = *state;
	struct block_meta a = publish(f, "a");

	blocklist_add(f->list, &a);
	blocklist_add(f->list, &a);
	assert_int_equal(listed(f, "a"), 1);
	poll_ok(f);
	poll_ok(f);
	poll_ok(f);
	assert_int_equal(listed(f, "a"), 1);
}

static void put(struct fixture *f, const char *key, const char *text)
{
	assert_int_equal(backend_put(f->be, key, bytes_str(text), BACKEND_REPLACE, NULL), 0);
}

/* A meta.json that cannot be read costs its own block, and the snapshot says that it is missing. */
static void test_damaged_metas(void **state)
{
	struct fixture *f = *state;
	struct block_meta a = publish(f, "a");
	struct buf huge = BUF_INIT;
	char key[BACKEND_KEY_MAX + 1];

	put(f, "a/00000000-0000-4000-8000-000000000001/meta.json", "{");
	put(f, "a/00000000-0000-4000-8000-000000000002/meta.json", "");
	memset(buf_reserve(&huge, BLOCK_META_MAX + 1), ' ', BLOCK_META_MAX + 1);
	huge.n = BLOCK_META_MAX + 1;
	assert_int_equal(backend_put(f->be, "b/00000000-0000-4000-8000-000000000003/meta.json",
				     buf_bytes(&huge), BACKEND_REPLACE, NULL),
			 0);
	/* The folder of another tenant: listing it there would show it to the wrong one. */
	buf_reset(&huge);
	assert_int_equal(block_key(key, "a", a.id, "meta.json", NULL), 0);
	assert_int_equal(backend_read(f->be, key, BLOCK_META_MAX, &huge, NULL), 0);
	assert_int_equal(block_key(key, "c", a.id, "meta.json", NULL), 0);
	assert_int_equal(backend_put(f->be, key, buf_bytes(&huge), BACKEND_REPLACE, NULL), 0);
	/* No blocks at all. */
	put(f, "lost+found/x/meta.json", "{");
	put(f, "a/notes", "x");
	put(f, "_spanmill/commits/x/meta.json", "{");
	poll_ok(f);
	assert_int_equal(blocklist_count(f->list), 1);
	assert_int_equal(blocklist_damaged(f->list), 4);
	assert_int_equal(damaged(f, "a"), 2);
	assert_int_equal(damaged(f, "b"), 1);
	assert_int_equal(damaged(f, "c"), 1);
	assert_int_equal(damaged(f, "d"), 0);
	assert_int_equal(backend_delete(f->be, key, NULL), 0);
	poll_ok(f);
	assert_int_equal(damaged(f, "c"), 0);
	buf_fini(&huge);
}

/* A store that is away: the old list stays. One file that cannot be looked at: its block stays. */
static void test_store_away(void **state)
{
	struct fixture *f = *state;
	struct err err = ERR_INIT;

	publish(f, "a");
	poll_ok(f);
	publish(f, "a");
	faulty_set(f->be, (struct faulty_rule){ .calls = FAULTY_LIST, .times = -1 });
	for (int i = 0; i < 4; i++)
		assert_int_equal(blocklist_poll(f->list, &err), -1);
	assert_int_equal(listed(f, "a"), 1);
	faulty_set(f->be, (struct faulty_rule){ .calls = FAULTY_READ, .times = -1 });
	assert_int_equal(blocklist_poll(f->list, &err), -1);
	faulty_set(f->be,
		   (struct faulty_rule){ .calls = FAULTY_SIZE, .times = -1, .kind = ERR_IO });
	for (int i = 0; i < 4; i++)
		poll_ok(f);
	assert_int_equal(listed(f, "a"), 2);
	faulty_set(f->be, (struct faulty_rule){ 0 });
}

/* One tenant that cannot be listed keeps its old list; the others go on. */
static void test_one_tenant_fails(void **state)
{
	struct fixture *f = *state;
	struct err err = ERR_INIT;

	publish(f, "a");
	publish(f, "b");
	publish(f, "c");
	poll_ok(f);
	publish(f, "a");
	publish(f, "b");
	publish(f, "c");
	faulty_set(f->be, (struct faulty_rule){ .calls = FAULTY_LIST, .part = "b", .times = -1 });
	for (int i = 0; i < 4; i++)
		assert_int_equal(blocklist_poll(f->list, &err), -1);
	assert_int_equal(listed(f, "a"), 2);
	assert_int_equal(listed(f, "b"), 1);
	assert_int_equal(listed(f, "c"), 2);
	faulty_set(f->be, (struct faulty_rule){ 0 });
	poll_ok(f);
	assert_int_equal(blocklist_count(f->list), 6);
}

static unsigned reads(struct fixture *f)
{
	return faulty_of(f->be)->calls[FAULTY_READ];
}

/* A known meta.json is not read again, a bad one only when it has changed. */
static void test_metas_are_read_once(void **state)
{
	static const char bad[] = "a/00000000-0000-4000-8000-000000000001/meta.json";
	struct fixture *f = *state;
	struct block_meta good = publish(f, "a");
	char key[BACKEND_KEY_MAX + 1];
	struct buf json = BUF_INIT;
	unsigned before;

	publish(f, "a");
	publish(f, "b");
	put(f, bad, "{");
	poll_ok(f);
	before = reads(f);
	for (int i = 0; i < 5; i++)
		poll_ok(f);
	assert_int_equal(reads(f), before);
	assert_int_equal(listed(f, "a"), 2);
	assert_int_equal(damaged(f, "a"), 1);
	put(f, bad, "{ ");
	poll_ok(f);
	assert_int_equal(reads(f), before + 1);
	assert_int_equal(damaged(f, "a"), 1);
	/* Repaired. */
	assert_int_equal(block_key(key, "a", good.id, "meta.json", NULL), 0);
	assert_int_equal(backend_read(f->be, key, BLOCK_META_MAX, &json, NULL), 0);
	memcpy(strstr(buf_cstr(&json), good.id), "00000000-0000-4000-8000-000000000001", 36);
	put(f, bad, buf_cstr(&json));
	poll_ok(f);
	assert_int_equal(damaged(f, "a"), 0);
	assert_int_equal(listed(f, "a"), 3);
	/* One that could not be read for another reason is tried again. */
	faulty_set(f->be, (struct faulty_rule){ .calls = FAULTY_READ, .times = 1, .kind = ERR_IO });
	publish(f, "b");
	poll_ok(f);
	assert_int_equal(damaged(f, "b"), 1);
	poll_ok(f);
	assert_int_equal(damaged(f, "b"), 0);
	assert_int_equal(listed(f, "b"), 2);
	buf_fini(&json);
}

struct gone {
	uint64_t numbers[8];
	size_t n;
};

static void note_gone(void *arg, uint64_t number)
{
	struct gone *g = arg;

	g->numbers[g->n++] = number;
}

/* Whoever keeps something of a block is told when nobody can see it any more, and a block that
 * comes back under its id has another number. */
static void test_gone_is_told_last(void **state)
{
	struct fixture *f = *state;
	struct gone gone = { { 0 }, 0 };
	struct blocklist_snapshot held, again;
	struct block_meta m = publish(f, "a");
	uint64_t number;

	blocklist_on_gone(f->list, note_gone, &gone);
	poll_ok(f);
	blocklist_snapshot(f->list, "a", &held);
	number = held.v[0]->number;
	assert_int_equal(block_mark_compacted(f->be, "a", m.id, NULL), 0);
	for (int i = 0; i < 3; i++)
		poll_ok(f);
	assert_int_equal(blocklist_count(f->list), 0);
	assert_int_equal(gone.n, 0);
	blocklist_snapshot_fini(&held);
	assert_int_equal(gone.n, 1);
	assert_int_equal(gone.numbers[0], number);
	blocklist_add(f->list, &m);
	blocklist_snapshot(f->list, "a", &again);
	assert_true(again.v[0]->number != number);
	number = again.v[0]->number;
	blocklist_snapshot_fini(&again);
	/* Added again by a poll or by hand: the same block. */
	blocklist_add(f->list, &m);
	blocklist_snapshot(f->list, "a", &again);
	assert_true(again.v[0]->number == number);
	blocklist_snapshot_fini(&again);
	assert_int_equal(gone.n, 1);
}

/* Equal lists give equal orders. */
static void test_snapshots_are_sorted(void **state)
{
	struct fixture *f = *state;
	struct blocklist_snapshot s;

	for (int i = 0; i < 20; i++)
		publish(f, "a");
	poll_ok(f);
	blocklist_snapshot(f->list, "a", &s);
	assert_int_equal(s.n, 20);
	for (size_t i = 1; i < s.n; i++)
		assert_true(strcmp(s.v[i - 1]->meta.id, s.v[i]->meta.id) < 0);
	blocklist_snapshot_fini(&s);
}

static void *poll_often(void *arg)
{
	struct fixture *f = arg;

	for (int i = 0; i < 30; i++)
		poll_ok(f);
	return NULL;
}

/* For the thread sanitizer: polls, additions and snapshots at the same time. */
static void test_threads(void **state)
{
	struct fixture *f = *state;
	pthread_t t[2];

	for (size_t i = 0; i < COUNT_OF(t); i++)
		assert_int_equal(pthread_create(&t[i], NULL, poll_often, f), 0);
	for (int i = 0; i < 20; i++) {
		struct block_meta m = publish(f, "a");

		blocklist_add(f->list, &m);
		assert_int_equal(listed(f, "a"), i + 1);
	}
	for (size_t i = 0; i < COUNT_OF(t); i++)
		pthread_join(t[i], NULL);
	poll_ok(f);
	assert_int_equal(listed(f, "a"), 20);
}

/* ---- in a bucket ---- */

static struct blocklist_stats stats(struct fixture *f)
{
	struct blocklist_stats st;

	blocklist_stats(f->list, &st);
	return st;
}

/* Tenant a's index: these live, those compacted. */
static void write_index(struct fixture *f, const struct block_meta *live, size_t n_live,
			const struct block_meta *compacted, size_t n_compacted)
{
	struct tenant_index x;
	struct err err = ERR_INIT;

	tenant_index_init(&x, NULL);
	for (size_t i = 0; i < n_live; i++)
		assert_int_equal(tenant_index_add(&x, &x.live, &live[i], &err), 0);
	for (size_t i = 0; i < n_compacted; i++) {
		struct block_meta m = compacted[i];

		m.compacted_at = block_time_of_ns(1);
		assert_int_equal(tenant_index_add(&x, &x.compacted, &m, &err), 0);
	}
	if (tenant_index_write(f->be, "a", &x, &err) < 0)
		fail_msg("%s", err.msg);
	tenant_index_fini(&x);
}

/* What the index holds costs one request, what it does not one each. */
static void test_index_saves_requests(void **state)
{
	enum { N = 40 };
	struct fixture *f = *state;
	struct block_meta m[N + 2];

	for (size_t i = 0; i < COUNT_OF(m); i++)
		m[i] = publish(f, "a");
	write_index(f, m, N, NULL, 0);
	poll_ok(f);
	assert_int_equal(listed(f, "a"), N + 2);
	assert_int_equal(stats(f).metas_read, 2);
	assert_int_equal(stats(f).index_read, 1);
	for (int i = 0; i < 3; i++)
		poll_ok(f);
	assert_int_equal(stats(f).metas_read, 2);
	assert_int_equal(stats(f).index_read, 1);
	assert_int_equal(stats(f).index_same, 3);
	publish(f, "a");
	poll_ok(f);
	assert_int_equal(listed(f, "a"), N + 3);
	assert_int_equal(stats(f).metas_read, 3);
	/* Written anew. */
	write_index(f, m, N, NULL, 0);
	poll_ok(f);
	assert_int_equal(stats(f).index_read, 2);
	assert_int_equal(listed(f, "a"), N + 3);
}

/* Nothing of it is listed that is not in the backend, and what it calls both live and compacted is
 * asked for. */
static void test_index_is_never_the_truth(void **state)
{
	struct fixture *f = *state;
	struct block_meta m[3], gone;

	for (size_t i = 0; i < COUNT_OF(m); i++)
		m[i] = publish(f, "a");
	gone = publish(f, "a");
	assert_int_equal(block_delete(f->be, "a", gone.id, NULL), 0);
	write_index(f, (struct block_meta[]){ gone, m[0], m[0], m[1] }, 4, &m[1], 1);
	poll_ok(f);
	assert_int_equal(listed(f, "a"), 3);
	assert_int_equal(stats(f).metas_read, 2);
	put(f, "a/index.json.gz", "no gzip");
	poll_ok(f);
	poll_ok(f);
	assert_int_equal(stats(f).index_bad, 1); /* it is not read again and again */
	assert_int_equal(listed(f, "a"), 3);
	assert_int_equal(backend_delete(f->be, "a/index.json.gz", NULL), 0);
	poll_ok(f);
	assert_int_equal(listed(f, "a"), 3);
}

/* Compacted blocks stay for two polls, then nobody asks for them any more. */
static void test_compacted_blocks_leave(void **state)
{
	struct fixture *f = *state;
	struct block_meta a = publish(f, "a"), b = publish(f, "a"), out;

	poll_ok(f);
	assert_int_equal(listed(f, "a"), 2);
	out = publish(f, "a");
	assert_int_equal(block_mark_compacted(f->be, "a", a.id, NULL), 0);
	assert_int_equal(block_mark_compacted(f->be, "a", b.id, NULL), 0);
	write_index(f, &out, 1, (struct block_meta[]){ a, b }, 2);
	poll_ok(f);
	assert_int_equal(listed(f, "a"), 3);
	poll_ok(f);
	assert_int_equal(listed(f, "a"), 1);
	assert_int_equal(stats(f).metas_read, 2);
	poll_ok(f);
	/* Not even when somebody who follows old commits says that it is there. */
	blocklist_add(f->list, &a);
	assert_int_equal(listed(f, "a"), 1);
	assert_int_equal(block_delete(f->be, "a", a.id, NULL), 0);
	poll_ok(f);
	poll_ok(f);
	assert_int_equal(stats(f).metas_read, 2);
	assert_int_equal(listed(f, "a"), 1);
}

/* Without an index a reader that starts finds out by itself, once. */
static void test_compacted_before_the_start(void **state)
{
	struct fixture *f = *state;
	struct block_meta a = publish(f, "a");

	publish(f, "a");
	assert_int_equal(block_mark_compacted(f->be, "a", a.id, NULL), 0);
	poll_ok(f);
	assert_int_equal(listed(f, "a"), 1);
	assert_int_equal(stats(f).metas_read, 2);
	poll_ok(f);
	assert_int_equal(stats(f).metas_read, 2);
}

/* Somebody compacts a block while a reader that starts asks for its meta.json: what replaced it
 * came after the list was made. */
static struct fixture *racing;
static struct block_meta raced; /* its id; "": it happened */

static int racing_read(struct backend *be, const char *key, size_t max, struct buf *out,
		       struct err *err)
{
	char id[37];

	memcpy(id, raced.id, sizeof(id));
	if (id[0] != '\0' && strstr(key, id) != NULL) {
		raced.id[0] = '\0';
		publish(racing, "a");
		assert_int_equal(block_mark_compacted(be, "a", id, NULL), 0);
	}
	return faulty_read(be, key, max, out, err);
}

static void test_compacted_while_it_is_asked(void **state)
{
	struct fixture *f = *state;
	struct backend_ops ops = *f->be->ops;
	const struct backend_ops *own = f->be->ops;

	racing = f;
	raced = publish(f, "a");
	ops.read = racing_read;
	f->be->ops = &ops;
	poll_ok(f);
	assert_int_equal(raced.id[0], '\0');
	assert_int_equal(listed(f, "a"), 1);
	f->be->ops = own;
}

/* A folder whose meta.json comes later is seen in the poll after. */
static void test_a_late_meta_is_seen(void **state)
{
	struct fixture *f = *state;
	struct block_meta a = publish(f, "a");
	char key[BACKEND_KEY_MAX + 1];
	struct buf json = BUF_INIT;

	assert_int_equal(block_key(key, "a", a.id, "meta.json", NULL), 0);
	assert_int_equal(backend_read(f->be, key, BLOCK_META_MAX, &json, NULL), 0);
	assert_int_equal(backend_delete(f->be, key, NULL), 0);
	for (int i = 0; i < 20; i++)
		poll_ok(f);
	assert_int_equal(listed(f, "a"), 0);
	assert_int_equal(stats(f).metas_read, 20);
	assert_int_equal(backend_put(f->be, key, buf_bytes(&json), BACKEND_REPLACE, NULL), 0);
	poll_ok(f);
	assert_int_equal(listed(f, "a"), 1);
	poll_ok(f);
	assert_int_equal(stats(f).metas_read, 21);
	buf_fini(&json);
}

/* A reader who must see what is there now makes one poll of its tenant, unless one began since. */
static void test_poll_since(void **state)
{
	struct fixture *f = *state;
	struct err err = ERR_INIT;
	uint64_t before = clock_mono_ns();

	publish(f, "a");
	publish(f, "b");
	assert_int_equal(blocklist_poll_since(f->list, "a", before, &err), 0);
	assert_int_equal(listed(f, "a"), 1);
	assert_int_equal(listed(f, "b"), 0);
	publish(f, "a");
	assert_int_equal(blocklist_poll_since(f->list, "a", before, &err), 0);
	assert_int_equal(listed(f, "a"), 1);
	assert_int_equal(blocklist_poll_since(f->list, "a", clock_mono_ns(), &err), 0);
	assert_int_equal(listed(f, "a"), 2);
	assert_int_equal(blocklist_poll_since(f->list, "nobody", clock_mono_ns(), &err), 0);
	poll_ok(f);
	assert_int_equal(blocklist_count(f->list), 3);
	faulty_set(f->be, (struct faulty_rule){ .calls = FAULTY_LIST, .times = -1 });
	assert_int_equal(blocklist_poll_since(f->list, "a", before, &err), 0);
	assert_int_equal(blocklist_poll_since(f->list, "nobody", before, &err), 0);
	assert_int_equal(blocklist_poll_since(f->list, "a", clock_mono_ns(), &err), -1);
	faulty_set(f->be, (struct faulty_rule){ 0 });
}

/* Readers who must see what is there now, while the store hangs and then fails: each who waited for
 * that poll is told what it said, and does not wait for one of its own in turn. */
enum { READERS = 8 };
static _Atomic unsigned n_asking, n_lists;

static int hanging_list(struct backend *be, const char *folder, enum backend_list_mode mode,
			backend_list_fn *fn, void *arg, struct err *err)
{
	(void)be, (void)folder, (void)mode, (void)fn, (void)arg;
	atomic_fetch_add(&n_lists, 1);
	for (int i = 0; i < 6000 && atomic_load(&n_asking) < READERS; i++)
		usleep(10000);
	usleep(100000); /* they are at the lock by now, or some are not: those ask once more */
	return err_set(err, ERR_UNAVAILABLE, "the store does not answer");
}

static void *ask_now(void *arg)
{
	struct fixture *f = arg;
	struct err err = ERR_INIT;

	atomic_fetch_add(&n_asking, 1);
	assert_int_equal(blocklist_poll_since(f->list, "a", clock_mono_ns(), &err), -1);
	assert_non_null(strstr(err.msg, "the store does not answer"));
	return NULL;
}

static void test_readers_share_what_fails(void **state)
{
	struct fixture *f = *state;
	struct backend_ops ops = *f->be->ops;
	const struct backend_ops *own = f->be->ops;
	pthread_t threads[READERS];

	ops.list = hanging_list;
	f->be->ops = &ops;
	for (size_t i = 0; i < READERS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, ask_now, f), 0);
	for (size_t i = 0; i < READERS; i++)
		pthread_join(threads[i], NULL);
	f->be->ops = own;
	assert_in_range(atomic_load(&n_lists), 1, READERS / 2);
	assert_int_equal(blocklist_poll_since(f->list, "a", clock_mono_ns(), NULL), 0);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)
#define FAR(fn)                                                                                    \
	{                                                                                          \
#fn " (far)", fn, set_up_far, tear_down, NULL                                      \
	}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_appear_and_go),
		TEST(test_own_block_at_once),
		TEST(test_damaged_metas),
		TEST(test_store_away),
		TEST(test_metas_are_read_once),
		TEST(test_gone_is_told_last),
		TEST(test_snapshots_are_sorted),
		TEST(test_threads),
		TEST(test_poll_since),
		TEST(test_one_tenant_fails),
		FAR(test_one_tenant_fails),
		FAR(test_own_block_at_once),
		FAR(test_damaged_metas),
		FAR(test_store_away),
		FAR(test_snapshots_are_sorted),
		FAR(test_threads),
		FAR(test_poll_since),
		FAR(test_readers_share_what_fails),
		FAR(test_index_saves_requests),
		FAR(test_index_is_never_the_truth),
		FAR(test_compacted_blocks_leave),
		FAR(test_compacted_before_the_start),
		FAR(test_compacted_while_it_is_asked),
		FAR(test_a_late_meta_is_seen),
	};

	log_configure(LOG_ERROR + 1, LOG_CONSOLE);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
