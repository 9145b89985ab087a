/* SPDX-License-Identifier: Apache-2.0
 *
 * test_section.c - commits: whatever fails or crashes between the four steps, one block set stands.
 */
#include "tests/unit/section_fixture.h"

#include "blocks/block_writer.h"
#include "blocks/section.h"
#include "tests/faulty_backend.h"
#include "tests/memory_backend.h"

#define SOURCE "3f0c2b1a-log"

/* A block of one trace, steps 1 only. */
static void write_block(struct backend *be, const char *tenant, struct block_meta *m)
{
	struct block_writer *w = block_writer_open(be, tenant, NULL, NULL, NULL);
	uint8_t id[16] = { 1, 2, 3 }, head[BLOCK_OBJECT_HEAD];
	struct bytes pieces[1];

	assert_non_null(w);
	pieces[0] = (struct bytes){ head, block_object_head(head, 1, 2, 0) };
	assert_int_equal(block_writer_add(w, id, pieces, 1, NULL), 0);
	assert_int_equal(block_writer_finish(w, m, NULL), 0);
}

static bool has_object(struct backend *be, const struct block_meta *m, const char *name)
{
	char key[BACKEND_KEY_MAX + 1];
	uint64_t size;

	assert_int_equal(block_key(key, m->tenant, m->id, name, NULL), 0);
	return backend_size(be, key, &size, NULL) == 0;
}

struct visits {
	char ids[8][37];
	size_t n;
};

static int note_visit(void *arg, const struct block_meta *m, struct err *err)
{
	struct visits *v = arg;

	(void)err;
	assert_true(v->n < COUNT_OF(v->ids));
	memcpy(v->ids[v->n++], m->id, 37);
	return 0;
}

static struct section_commit commit_of(uint64_t first, uint64_t last, struct block_meta *metas,
				       size_t n)
{
	return (struct section_commit){ .first = first,
					.last = last,
					.first_timestamp_ms = 1790000000123,
					.metas = metas,
					.n_metas = n };
}

/* Both backends; the folder is NULL for memory. */
struct place {
	struct backend *be;
	char *dir;
};

static void open_place(struct place *p, bool on_disk)
{
	p->dir = on_disk ? scratch_dir() : NULL;
	p->be = on_disk ? local_at(p->dir) : memory_backend_new();
}

static void close_place(struct place *p)
{
	backend_free(p->be);
	if (p->dir != NULL)
		remove_tree(p->dir);
	free(p->dir);
}

/* Crash behind each of the steps of a section with two blocks, then follow: both are visible iff
 * the commit was reached, and following again changes nothing. */
static void crash_after(bool on_disk, int steps)
{
	struct block_meta metas[2];
	struct section_commit c = commit_of(1, 9, metas, 2);
	struct visits v = { .n = 0 };
	struct tally_blocks t;
	struct place p;
	uint64_t next;

	open_place(&p, on_disk);
	write_block(p.be, "a", &metas[0]);
	write_block(p.be, "b", &metas[1]);
	if (steps >= 2)
		assert_int_equal(section_commit_put(p.be, SOURCE, &c, NULL), 0);
	if (steps >= 3)
		assert_int_equal(section_publish(p.be, &metas[0], NULL), 1);
	if (steps >= 4)
		assert_int_equal(section_publish(p.be, &metas[1], NULL), 1);
	for (int again = 0; again < 2; again++) {
		v.n = 0;
		assert_int_equal(section_follow(p.be, SOURCE, 1, note_visit, &v, &next, NULL), 0);
		t = tally_backend(p.be);
		assert_int_equal(next, steps >= 2 ? 10 : 1);
		assert_int_equal(v.n, steps >= 2 ? 2 : 0);
		assert_int_equal(t.metas, steps >= 2 ? 2 : 0);
		assert_int_equal(t.datas, 2);
	}
	close_place(&p);
}

static void test_crash_between_steps(void **state)
{
	(void)state;
	for (int steps = 1; steps <= 4; steps++) {
		crash_after(false, steps);
		crash_after(true, steps);
	}
}

static void test_two_attempts_one_winner(void **state)
{
	struct block_meta a, b;
	struct section_commit ca = commit_of(5, 9, &a, 1), cb = commit_of(5, 12, &b, 1), winner;
	struct err err = ERR_INIT;
	struct visits v = { .n = 0 };
	struct place p;
	uint64_t next;

	(void)state;
	for (int on_disk = 0; on_disk < 2; on_disk++) {
		open_place(&p, on_disk);
		write_block(p.be, "t", &a);
		write_block(p.be, "t", &b);
		assert_int_equal(section_commit_put(p.be, SOURCE, &ca, &err), 0);
		assert_int_equal(section_commit_put(p.be, SOURCE, &cb, &err), -1);
		assert_int_equal(err.kind, ERR_EXISTS);
		/* The loser learns who won, and how far that reaches. */
		assert_int_equal(
			section_commit_read(p.be, SOURCE, 5, ca.first_timestamp_ms, &winner, &err),
			0);
		assert_int_equal(winner.last, 9);
		assert_string_equal(winner.metas[0].id, a.id);
		section_commit_fini(&winner);
		assert_int_equal(block_delete(p.be, "t", b.id, NULL), 0);
		v.n = 0;
		assert_int_equal(section_follow(p.be, SOURCE, 5, note_visit, &v, &next, NULL), 0);
		assert_int_equal(next, 10);
		assert_int_equal(v.n, 1);
		assert_string_equal(v.ids[0], a.id);
		assert_int_equal(tally_backend(p.be).metas, 1);
		close_place(&p);
	}
}

/* The put said no and was done all the same: the second put meets its own record. */
static void test_ambiguous_commit(void **state)
{
	struct backend *be = faulty_backend_new(memory_backend_new());
	struct section_commit winner;
	struct err err = ERR_INIT;
	struct block_meta m;
	struct section_commit c;

	(void)state;
	write_block(be, "t", &m);
	c = commit_of(1, 2, &m, 1);
	faulty_set(be, (struct faulty_rule){ FAULTY_PUT, "commits", 1, true, ERR_TIMEOUT });
	assert_int_equal(section_commit_put(be, SOURCE, &c, &err), -1);
	assert_int_equal(err.kind, ERR_TIMEOUT);
	assert_int_equal(section_commit_put(be, SOURCE, &c, &err), -1);
	assert_int_equal(err.kind, ERR_EXISTS);
	assert_int_equal(section_commit_read(be, SOURCE, 1, c.first_timestamp_ms, &winner, &err),
			 0);
	assert_string_equal(winner.metas[0].id, m.id);
	section_commit_fini(&winner);
	backend_free(be);
}

/* What compaction or retention took since is not brought back, and not listed. */
static void test_not_published_again(void **state)
{
	struct block_meta metas[2];
	struct section_commit c = commit_of(1, 4, metas, 2);
	struct visits v = { .n = 0 };
	struct place p;
	uint64_t next;

	(void)state;
	for (int on_disk = 0; on_disk < 2; on_disk++) {
		open_place(&p, on_disk);
		write_block(p.be, "t", &metas[0]);
		write_block(p.be, "t", &metas[1]);
		assert_int_equal(section_commit_put(p.be, SOURCE, &c, NULL), 0);
		assert_int_equal(section_publish(p.be, &metas[0], NULL), 1);
		assert_int_equal(section_publish(p.be, &metas[1], NULL), 1);
		assert_int_equal(block_mark_compacted(p.be, "t", metas[0].id, NULL), 0);
		assert_int_equal(block_delete(p.be, "t", metas[1].id, NULL), 0);
		v.n = 0;
		assert_int_equal(section_follow(p.be, SOURCE, 1, note_visit, &v, &next, NULL), 0);
		assert_int_equal(v.n, 0);
		assert_int_equal(next, 5);
		assert_false(has_object(p.be, &metas[0], "meta.json"));
		assert_false(has_object(p.be, &metas[1], "meta.json"));
		close_place(&p);
	}
}

/* A chain with holes; entering it at any position. */
static void test_follow_from_anywhere(void **state)
{
	static const uint64_t ranges[][2] = { { 1, 10 }, { 11, 20 }, { 25, 30 } };
	static const struct {
		uint64_t from, next;
		size_t n_blocks;
	} cases[] = {
		{ 1, 31, 3 },  { 5, 31, 3 }, /* inside the first: it covers us all the same */
		{ 10, 31, 3 }, { 11, 31, 2 }, { 21, 31, 1 }, { 25, 31, 1 },
		{ 30, 31, 1 }, { 31, 31, 0 }, { 99, 99, 0 },
	};
	struct block_meta metas[3];
	struct place p;

	(void)state;
	open_place(&p, false);
	for (size_t i = 0; i < 3; i++) {
		struct section_commit c = commit_of(ranges[i][0], ranges[i][1], &metas[i], 1);

		write_block(p.be, "t", &metas[i]);
		assert_int_equal(section_commit_put(p.be, SOURCE, &c, NULL), 0);
	}
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		struct visits v = { .n = 0 };
		uint64_t next;

		assert_int_equal(
			section_follow(p.be, SOURCE, cases[i].from, note_visit, &v, &next, NULL),
			0);
		assert_int_equal(next, cases[i].next);
		assert_int_equal(v.n, cases[i].n_blocks);
	}
	close_place(&p);
}

/* Records that are none of ours in the folder are passed over; a damaged one of ours stops. */
static void test_hostile_commits(void **state)
{
	static const char *const bad[] = {
		"",
		"[]",
		"{",
		"{}",
		"{\"first\":7,\"last\":6,\"firstTimestampMs\":5,\"blocks\":[]}",
		"{\"first\":7,\"last\":18446744073709551615,\"firstTimestampMs\":5,\"blocks\":[]}",
		"{\"first\":1,\"last\":9,\"firstTimestampMs\":5,\"blocks\":[]}",
		"{\"first\":7,\"last\":9,\"firstTimestampMs\":6,\"blocks\":[]}",
		"{\"first\":7,\"last\":9,\"firstTimestampMs\":5,\"blocks\":[1]}",
		"{\"first\":7,\"last\":9,\"firstTimestampMs\":5,\"blocks\":[{}]}",
		"{\"first\":7,\"last\":9,\"firstTimestampMs\":5,\"blocks\":[]}x",
		"{\"first\":-7,\"last\":9,\"firstTimestampMs\":5}",
	};
	static const char *const odd[] = { "x.json",       "7.json",  "-7-5.json",
					   "7-5.json.bak", "7-.json", "99999999999999999999-5.json",
					   "+7-5.json" };
	struct backend *be = memory_backend_new();
	char key[BACKEND_KEY_MAX + 1];
	uint64_t next;

	(void)state;
	for (size_t i = 0; i < COUNT_OF(odd); i++) {
		assert_int_equal(backend_key(key, NULL, "_spanmill/commits/%s/%s", SOURCE, odd[i]),
				 0);
		assert_int_equal(backend_put(be, key, BYTES_LIT("x"), BACKEND_REPLACE, NULL), 0);
	}
	assert_int_equal(section_follow(be, SOURCE, 3, NULL, NULL, &next, NULL), 0);
	assert_int_equal(next, 3);
	assert_int_equal(backend_key(key, NULL, "_spanmill/commits/%s/%020u-5.json", SOURCE, 7), 0);
	for (size_t i = 0; i < COUNT_OF(bad); i++) {
		struct err err = ERR_INIT;
		struct section_commit c;
		uint64_t size;

		backend_put(be, key, bytes_str(bad[i]), BACKEND_REPLACE, NULL);
		assert_int_equal(section_commit_read(be, SOURCE, 7, 5, &c, &err), -1);
		assert_int_equal(err.kind, ERR_CORRUPT);
		assert_non_null(strstr(err.msg, "_spanmill/commits/"));
		/* It counts as none, and does not stop the start. */
		if (section_follow(be, SOURCE, 3, NULL, NULL, &next, NULL) < 0 || next != 3)
			fail_msg("followed %s to %llu", bad[i], (unsigned long long)next);
		assert_int_equal(backend_size(be, key, &size, NULL), -1);
		assert_int_equal(
			backend_key(key, NULL, "_spanmill/commits/%s/%020u-5.json", SOURCE, 7), 0);
	}
	backend_free(be);
}

/* A flip of any bit is seen, and only that section is built again. */
static void test_damaged_commits(void **state)
{
	struct backend *be = memory_backend_new();
	struct section_commit c = { .first = 10, .last = 19, .first_timestamp_ms = 5 }, got;
	struct buf json = BUF_INIT;
	char key[BACKEND_KEY_MAX + 1];
	uint64_t next;

	(void)state;
	assert_int_equal(section_commit_put(be, SOURCE, &c, NULL), 0);
	assert_int_equal(backend_key(key, NULL, "_spanmill/commits/%s/%020u-5.json", SOURCE, 10),
			 0);
	assert_int_equal(backend_read(be, key, 1 << 20, &json, NULL), 0);
	assert_int_equal(section_commit_read(be, SOURCE, 10, 5, &got, NULL), 0);
	assert_int_equal(got.last, 19);
	section_commit_fini(&got);
	for (size_t bit = 0; bit < 8 * json.n; bit++) {
		json.p[bit / 8] ^= (uint8_t)(1 << bit % 8);
		backend_put(be, key, buf_bytes(&json), BACKEND_REPLACE, NULL);
		/* The mark of the checksum itself may go: then the rest is whole. */
		if (section_commit_read(be, SOURCE, 10, 5, &got, NULL) == 0) {
			assert_true(bit / 8 >= json.n - 18);
			assert_int_equal(got.last, 19);
			section_commit_fini(&got);
		} else {
			assert_int_equal(section_follow(be, SOURCE, 5, NULL, NULL, &next, NULL), 0);
			assert_int_equal(next, 5);
		}
		json.p[bit / 8] ^= (uint8_t)(1 << bit % 8);
	}
	/* What follows a damaged one is followed all the same. */
	json.p[3] ^= 1;
	backend_put(be, key, buf_bytes(&json), BACKEND_REPLACE, NULL);
	c.first = 20;
	c.last = 29;
	assert_int_equal(section_commit_put(be, SOURCE, &c, NULL), 0);
	assert_int_equal(section_follow(be, SOURCE, 5, NULL, NULL, &next, NULL), 0);
	assert_int_equal(next, 30);
	buf_fini(&json);
	backend_free(be);
}

static void put_commits(struct backend *be, const char *source, uint64_t n)
{
	for (uint64_t i = 0; i < n; i++) {
		struct section_commit c = commit_of(1 + 10 * i, 10 + 10 * i, NULL, 0);

		assert_int_equal(section_commit_put(be, source, &c, NULL), 0);
	}
}

static void test_sweep_commits(void **state)
{
	struct place p;
	uint64_t next;

	(void)state;
	open_place(&p, true);
	put_commits(p.be, SOURCE, 5);
	put_commits(p.be, "other", 2);
	/* Too young. */
	assert_int_equal(section_sweep_commits(p.be, SOURCE, 51, 3600 * NS_PER_S, NULL), 0);
	assert_int_equal(tally_backend(p.be).commits, 7);
	clock_set_wall_for_test(clock_wall_ns() + 7200 * NS_PER_S);
	/* [21..30] is not below 30, so [11..20] is the newest that is; it stays. */
	assert_int_equal(section_sweep_commits(p.be, SOURCE, 30, 3600 * NS_PER_S, NULL), 0);
	assert_int_equal(tally_backend(p.be).commits, 5);
	assert_int_equal(section_follow(p.be, SOURCE, 25, NULL, NULL, &next, NULL), 0);
	assert_int_equal(next, 51);
	assert_int_equal(section_sweep_commits(p.be, SOURCE, 51, 3600 * NS_PER_S, NULL), 0);
	assert_int_equal(tally_backend(p.be).commits, 3);
	/* The last one still covers its own middle. */
	assert_int_equal(section_follow(p.be, SOURCE, 45, NULL, NULL, &next, NULL), 0);
	assert_int_equal(next, 51);
	clock_set_wall_for_test(0);
	close_place(&p);
}

static void put_text(struct backend *be, const struct block_meta *m, const char *name)
{
	char key[BACKEND_KEY_MAX + 1];

	assert_int_equal(block_key(key, m->tenant, m->id, name, NULL), 0);
	assert_int_equal(backend_put(be, key, BYTES_LIT("x"), BACKEND_REPLACE, NULL), 0);
}

/* Only what nobody can still want goes. */
static void test_sweep_orphans(void **state)
{
	enum { ORPHAN, PUBLISHED, COMPACTED, COMMITTED, FOREIGN, N };
	struct block_meta m[N];
	struct section_commit c = commit_of(1, 2, &m[COMMITTED], 1);
	struct place p;
	size_t n;

	(void)state;
	open_place(&p, true);
	for (int i = 0; i < N; i++)
		write_block(p.be, i == FOREIGN ? "u" : "t", &m[i]);
	assert_int_equal(section_publish(p.be, &m[PUBLISHED], NULL), 1);
	assert_int_equal(section_publish(p.be, &m[COMPACTED], NULL), 1);
	assert_int_equal(block_mark_compacted(p.be, "t", m[COMPACTED].id, NULL), 0);
	/* Somebody else's source, crashed between steps 2 and 3. */
	assert_int_equal(section_commit_put(p.be, "group/cluster/topic/3", &c, NULL), 0);
	put_text(p.be, &m[FOREIGN], "notes.txt");
	assert_int_equal(section_sweep_orphans(p.be, 3600 * NS_PER_S, &n, NULL), 0);
	assert_int_equal(n, 0);
	clock_set_wall_for_test(clock_wall_ns() + 7200 * NS_PER_S);
	assert_int_equal(section_sweep_orphans(p.be, 3600 * NS_PER_S, &n, NULL), 0);
	assert_int_equal(n, 1);
	for (int i = 0; i < N; i++)
		assert_int_equal(has_object(p.be, &m[i], "data"), i != ORPHAN);
	/* A commit that cannot be read might name anything: nothing goes. */
	write_block(p.be, "t", &m[ORPHAN]);
	assert_int_equal(backend_put(p.be, "_spanmill/commits/z/00000000000000000001-1.json",
				     BYTES_LIT("{"), BACKEND_REPLACE, NULL),
			 0);
	assert_int_equal(section_sweep_orphans(p.be, 0, &n, NULL), -1);
	assert_true(has_object(p.be, &m[ORPHAN], "data"));
	clock_set_wall_for_test(0);
	close_place(&p);
}

/* Which records a commit speaks for: of another life of the topic none. */
static void test_what_a_commit_covers(void **state)
{
	static const struct {
		const char *name;
		uint64_t position, timestamp_ms;
		bool has_timestamps, has_samples;
		enum section_match want;
	} cases[] = {
		{ "its first", 10, 1000, true, false, SECTION_SAME },
		{ "its first offset, another record", 10, 1001, true, false, SECTION_OTHER },
		{ "the same without times", 10, 1000, false, false, SECTION_SAME },
		{ "before", 9, 1000, true, false, SECTION_OTHER },
		{ "in the middle", 15, 1100, true, false, SECTION_SAME },
		{ "its last, the oldest time", 20, 900, true, false, SECTION_SAME },
		{ "in the middle, younger", 15, 2001, true, false, SECTION_OTHER },
		{ "in the middle, older", 15, 899, true, false, SECTION_OTHER },
		{ "in the middle, times not known", 15, 1100, false, false, SECTION_OTHER },
		{ "behind", 21, 1100, true, false, SECTION_OTHER },
		{ "a sample", 15, 1100, true, true, SECTION_SAME },
		{ "its offset, another record", 15, 1101, true, true, SECTION_OTHER },
		{ "the last sample", 20, 900, true, true, SECTION_SAME },
		{ "its offset, another record", 20, 1000, true, true, SECTION_OTHER },
		{ "between samples", 16, 1100, true, true, SECTION_OPEN },
		{ "between samples, younger", 16, 2001, true, true, SECTION_OTHER },
	};
	struct section_sample samples[] = { { 10, 1000 }, { 15, 1100 }, { 20, 900 } };

	(void)state;
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		struct section_commit c = { .first = 10,
					    .last = 20,
					    .first_timestamp_ms = 1000,
					    .has_timestamps = cases[i].has_timestamps,
					    .min_timestamp_ms = 900,
					    .max_timestamp_ms = 2000,
					    .samples = samples,
					    .n_samples = cases[i].has_samples ? 3 : 0 };

		if (section_commit_match(&c, cases[i].position, cases[i].timestamp_ms) !=
		    cases[i].want)
			fail_msg("%s", cases[i].name);
	}
}

static void test_names_and_times_come_back(void **state)
{
	static const struct section_name all[] = {
		{ 1, 500 }, { 7, 900 }, { 7, 1000 }, { 99, 1 }, { 100, 2 },
	};
	struct section_names names = { NULL, 0, 0 };
	struct section_commit back;
	struct err err = ERR_INIT;
	struct place p;

	(void)state;
	for (int on_disk = 0; on_disk < 2; on_disk++) {
		open_place(&p, on_disk);
		for (size_t i = COUNT_OF(all); i-- > 0;) {
			struct section_commit c =
				commit_of(all[i].first, all[i].first + 5, NULL, 0);

			c.first_timestamp_ms = all[i].timestamp_ms;
			c.has_timestamps = i % 2;
			c.min_timestamp_ms = 3;
			c.max_timestamp_ms = 4000 + i;
			assert_int_equal(section_commit_put(p.be, SOURCE, &c, &err), 0);
		}
		/* Another exporter's commits lie in a folder beside. */
		assert_int_equal(backend_put(p.be, "_spanmill/commits/" SOURCE "/more/1-1.json",
					     BYTES_LIT("{}"), BACKEND_REPLACE, &err),
				 0);
		assert_int_equal(section_names_add(p.be, SOURCE, &all[3], &names, &err), 0);
		assert_int_equal(names.n, 1);
		assert_int_equal(names.v[0].first, 100);
		assert_int_equal(section_names_add(p.be, SOURCE, NULL, &names, &err), 0);
		assert_int_equal(section_names_add(p.be, SOURCE, NULL, &names, &err), 0);
		assert_int_equal(names.n, COUNT_OF(all));
		assert_memory_equal(names.v, all, sizeof(all));
		for (size_t i = 0; i < COUNT_OF(all); i++) {
			assert_int_equal(section_commit_read(p.be, SOURCE, all[i].first,
							     all[i].timestamp_ms, &back, &err),
					 0);
			assert_int_equal(back.has_timestamps, i % 2);
			if (i % 2)
				assert_int_equal(back.max_timestamp_ms, 4000 + i);
			section_commit_fini(&back);
		}
		free(names.v);
		names = (struct section_names){ NULL, 0, 0 };
		close_place(&p);
	}
}

static void check_samples(struct backend *be, struct section_sample *samples, size_t n)
{
	struct section_commit c = { .first = samples[0].position,
				    .last = samples[n - 1].position,
				    .first_timestamp_ms = samples[0].timestamp_ms,
				    .samples = samples,
				    .n_samples = n };
	struct section_commit back;
	struct err err = ERR_INIT;

	assert_int_equal(section_commit_put(be, SOURCE, &c, &err), 0);
	if (section_commit_read(be, SOURCE, c.first, c.first_timestamp_ms, &back, &err) < 0)
		fail_msg("%s", err.msg);
	assert_int_equal(back.n_samples, n);
	assert_memory_equal(back.samples, samples, n * sizeof(*samples));
	section_commit_fini(&back);
}

static void test_samples_come_back(void **state)
{
	struct section_sample odd[] = {
		{ 7, UINT64_MAX }, { 8, 0 }, { 9, 1 }, { 10, 2 }, { 12, 2 }, { UINT64_MAX - 1, 1 },
	};
	struct section_sample even[1000], random[1000];
	struct backend *be = memory_backend_new();
	char key[BACKEND_KEY_MAX + 1];
	struct rng rng;
	uint64_t size;

	(void)state;
	rng_seed(&rng, 3);
	for (size_t i = 0; i < COUNT_OF(even); i++) {
		even[i] = (struct section_sample){ 50 + i, 1000 };
		random[i] = (struct section_sample){ 100 + 10 * i + rng_below(&rng, 10),
						     rng_below(&rng, 1u << 30) };
	}
	check_samples(be, odd, COUNT_OF(odd));
	check_samples(be, odd + 1, 1);
	check_samples(be, random, COUNT_OF(random));
	check_samples(be, even, COUNT_OF(even));
	/* What is regular takes no room. */
	assert_int_equal(backend_key(key, NULL, "_spanmill/commits/%s/%020u-1000.json", SOURCE, 50),
			 0);
	assert_int_equal(backend_size(be, key, &size, NULL), 0);
	assert_true(size < 200);
	backend_free(be);
}

/* No room for what a number says, nothing out of order or out of the section. */
static void test_hostile_samples(void **state)
{
	static const struct {
		const char *records;
		bool is_right;
	} cases[] = {
		{ "[]", true },
		{ "[1,5,9]", true },
		{ "[1,5,9,4,1,-2]", true },
		{ "[0,7,7,1,5,9]", true },
		{ "\"later\"", true },
		{ "[1]", false },
		{ "[1,5]", false },
		{ "[1,5,9,1]", false },
		{ "[1,5,{}]", false },
		{ "[[1,5,9]]", false },
		{ "[-1,5,9]", false },
		{ "[1048577,5,9]", false },
		{ "[18446744073709551615,5,9]", false },
		{ "[1,5,9,18446744073709551615,1,1]", false },
		{ "[1,4,9]", false },
		{ "[1,10,9]", false },
		{ "[1,5,9,1,0,1]", false },
		{ "[1,7,9,1,-1,1]", false },
		{ "[1,5,9", false },
	};
	struct backend *be = memory_backend_new();
	char key[BACKEND_KEY_MAX + 1];

	(void)state;
	assert_int_equal(backend_key(key, NULL, "_spanmill/commits/%s/%020u-9.json", SOURCE, 5), 0);
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		struct buf json = BUF_INIT;
		struct section_commit c;
		struct err err = ERR_INIT;
		int got;

		buf_printf(&json,
			   "{\"first\":5,\"last\":9,\"firstTimestampMs\":9,\"records\":%s,"
			   "\"blocks\":[]}",
			   cases[i].records);
		assert_int_equal(backend_put(be, key, buf_bytes(&json), BACKEND_REPLACE, &err), 0);
		got = section_commit_read(be, SOURCE, 5, 9, &c, &err);
		if ((got == 0) != cases[i].is_right)
			fail_msg("%s: %d %s", cases[i].records, got, err.msg);
		section_commit_fini(&c);
		buf_fini(&json);
	}
	backend_free(be);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_crash_between_steps),
		cmocka_unit_test(test_two_attempts_one_winner),
		cmocka_unit_test(test_ambiguous_commit),
		cmocka_unit_test(test_not_published_again),
		cmocka_unit_test(test_follow_from_anywhere),
		cmocka_unit_test(test_hostile_commits),
		cmocka_unit_test(test_damaged_commits),
		cmocka_unit_test(test_sweep_commits),
		cmocka_unit_test(test_sweep_orphans),
		cmocka_unit_test(test_what_a_commit_covers),
		cmocka_unit_test(test_names_and_times_come_back),
		cmocka_unit_test(test_samples_come_back),
		cmocka_unit_test(test_hostile_samples),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
