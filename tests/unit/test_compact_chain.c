/* SPDX-License-Identifier: Apache-2.0
 *
 * test_compact_chain.c - which records of a chain count, one situation at a time: records that were
 * swept, put late or damaged, before and between the calls of who follows. Record n merges block
 * "n" into block "n + 100"; in none of the situations may a block be used twice.
 */
#include "blocks/block.h"
#include "blocks/compact_chain.h"
#include "tests/faulty_backend.h"
#include "tests/memory_backend.h"
#include "tests/unit/section_fixture.h"

#define TENANT "t"
#define LATE 50 /* the id of a late record is that of its number + LATE */

enum { NEVER = -1 };

static void id_of(char out[COMPACT_ID], unsigned n)
{
	snprintf(out, COMPACT_ID, "00000000-0000-4000-8000-%012u", n);
}

static struct block_meta meta_of(unsigned n)
{
	struct block_meta m;

	block_meta_init(&m);
	memcpy(m.format, "v2", 3);
	memcpy(m.tenant, TENANT, sizeof(TENANT));
	id_of(m.id, n);
	return m;
}

static void put_data(struct backend *be, unsigned block)
{
	struct block_meta m = meta_of(block);
	char key[BACKEND_KEY_MAX + 1];

	assert_int_equal(block_key(key, TENANT, m.id, "data", NULL), 0);
	assert_int_equal(backend_put(be, key, bytes_str("spans"), BACKEND_REPLACE, NULL), 0);
}

static bool is_there(struct backend *be, unsigned block, const char *name)
{
	struct block_meta m = meta_of(block);
	char key[BACKEND_KEY_MAX + 1];

	assert_int_equal(block_key(key, TENANT, m.id, name, NULL), 0);
	return memory_find(be, key) != NULL;
}

/* What the chain of a situation has: record `number`, written by who saw `previous` below it. */
struct given {
	unsigned number, id, previous;
};

static void put_given(struct backend *be, const struct given *g)
{
	char input[1][COMPACT_ID];
	struct block_meta output = meta_of(g->id + 100), from = meta_of(g->id);
	struct compact_record r = { .number = g->number,
				    .inputs = input,
				    .n_inputs = 1,
				    .outputs = &output,
				    .n_outputs = 1,
				    .created_at = output.start };

	id_of(r.id, g->id);
	if (g->previous != 0)
		id_of(r.previous, g->previous);
	id_of(input[0], g->id);
	put_data(be, g->id);
	put_data(be, g->id + 100);
	assert_int_equal(block_publish(be, &from, NULL), 0);
	assert_int_equal(compact_record_put(be, TENANT, &r, NULL), 0);
}

static void key_of(char key[BACKEND_KEY_MAX + 1], unsigned number)
{
	assert_int_equal(compact_record_key(key, TENANT, number, NULL), 0);
}

static void sweep(struct backend *be, unsigned number)
{
	char key[BACKEND_KEY_MAX + 1];

	key_of(key, number);
	assert_int_equal(backend_delete(be, key, NULL), 0);
}

static void damage(struct backend *be, unsigned number)
{
	char key[BACKEND_KEY_MAX + 1];

	key_of(key, number);
	assert_int_equal(backend_put(be, key, bytes_str("{"), BACKEND_REPLACE, NULL), 0);
}

/* ---- following ---- */

enum { GIVEN_MAX = 4 };

static const struct situation {
	const char *name;
	struct given given[GIVEN_MAX];
	int damaged; /* a number, or NEVER */
	/* When this number is read for the first time (NEVER), those up to it are swept, and it is
	 * put late when `is_replaced`; then `come` is put. */
	int swept_at;
	bool is_replaced;
	struct given come;
	/* The lowest id that must be finished, or NEVER; and those in the order of `given` that
	 * must not be touched are those below. */
	int from;
	bool missed;
} situations[] = {
	{ "a chain from its begin",
	  { { 1, 1, 0 }, { 2, 2, 1 }, { 3, 3, 2 } },
	  NEVER,
	  NEVER,
	  false,
	  { 0, 0, 0 },
	  1,
	  false },
	{ "its begin was swept",
	  { { 2, 2, 1 }, { 3, 3, 2 } },
	  NEVER,
	  NEVER,
	  false,
	  { 0, 0, 0 },
	  2,
	  true },
	{ "a late one in the place of a swept one",
	  { { 1, 1 + LATE, 0 }, { 2, 2, 1 }, { 3, 3, 2 } },
	  NEVER,
	  NEVER,
	  false,
	  { 0, 0, 0 },
	  2,
	  true },
	{ "a late one above a hole",
	  { { 1, 1 + LATE, 0 }, { 3, 3, 2 } },
	  NEVER,
	  NEVER,
	  false,
	  { 0, 0, 0 },
	  3,
	  true },
	{ "late ones on each other",
	  { { 1, 1 + LATE, 0 }, { 2, 2 + LATE, 1 + LATE }, { 3, 3, 2 } },
	  NEVER,
	  NEVER,
	  false,
	  { 0, 0, 0 },
	  3,
	  true },
	/* Nothing but its successor tells that 1 is late, and it is swept between two reads. */
	{ "who tells of a late one is swept meanwhile",
	  { { 1, 1 + LATE, 0 }, { 2, 2, 1 }, { 3, 3, 2 } },
	  NEVER,
	  2,
	  false,
	  { 0, 0, 0 },
	  3,
	  true },
	{ "the newest is swept and replaced before it is read",
	  { { 1, 1, 0 }, { 2, 2, 1 } },
	  NEVER,
	  2,
	  true,
	  { 3, 3, 2 },
	  3,
	  true },
	{ "a damaged one proves nothing below it",
	  { { 1, 1 + LATE, 0 }, { 2, 2, 1 }, { 3, 3, 2 } },
	  2,
	  NEVER,
	  false,
	  { 0, 0, 0 },
	  3,
	  true },
	{ "the newest is damaged",
	  { { 1, 1, 0 }, { 2, 2, 1 } },
	  2,
	  NEVER,
	  false,
	  { 0, 0, 0 },
	  NEVER,
	  true },
	{ "its writer saw a damaged one below",
	  { { 1, 1, 0 }, { 2, 2, 0 } },
	  NEVER,
	  NEVER,
	  false,
	  { 0, 0, 0 },
	  2,
	  true },
};

/* What others do while somebody follows. */
struct meanwhile {
	const struct situation *s;
	struct backend *inner;
	bool is_done;
};

static void sweep_meanwhile(void *arg, enum faulty_call call, const char *key)
{
	struct meanwhile *m = arg;
	uint64_t number;

	if (m->is_done || call != FAULTY_READ || !compact_record_number(key, &number) ||
	    (int)number != m->s->swept_at)
		return;
	m->is_done = true;
	if (m->s->come.number != 0)
		put_given(m->inner, &m->s->come);
	for (unsigned i = 1; i <= number; i++)
		sweep(m->inner, i);
	if (m->s->is_replaced)
		put_given(m->inner, &(struct given){ (unsigned)number, (unsigned)number + LATE,
						     (unsigned)number - 1 });
}

/* Finished as a whole, or not touched. */
static void check_record(struct backend *be, const struct situation *s, const struct given *g)
{
	bool want = s->from != NEVER && g->number >= (unsigned)s->from && g->id < LATE &&
		    (int)g->number != s->damaged;
	bool is_out = is_there(be, g->id + 100, "meta.json");
	bool is_in = is_there(be, g->id, "meta.compacted.json");

	if (is_out != want || is_in != want)
		fail_msg("%s: record %u (id %u): published %d, marked %d, want %d", s->name,
			 g->number, g->id, is_out, is_in, want);
}

static void what_counts_is_proved_from_the_newest_down(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT_OF(situations); i++) {
		const struct situation *s = &situations[i];
		struct backend *be = faulty_backend_new(memory_backend_new());
		struct meanwhile m = { s, faulty_of(be)->inner, false };
		struct compact_chain c;

		for (size_t k = 0; k < GIVEN_MAX && s->given[k].number != 0; k++)
			put_given(m.inner, &s->given[k]);
		if (s->damaged != NEVER)
			damage(m.inner, (unsigned)s->damaged);
		faulty_of(be)->hook = sweep_meanwhile;
		faulty_of(be)->hook_arg = &m;
		compact_chain_init(&c, be, TENANT);
		assert_int_equal(compact_chain_follow(&c, NULL), 0);
		if (c.missed != s->missed)
			fail_msg("%s: missed %d", s->name, c.missed);
		assert_int_equal(m.is_done, s->swept_at != NEVER);
		for (size_t k = 0; k < GIVEN_MAX && s->given[k].number != 0; k++)
			if (s->swept_at == NEVER || (int)s->given[k].number > s->swept_at ||
			    s->given[k].id >= LATE)
				check_record(m.inner, s, &s->given[k]);
		if (s->come.number != 0)
			check_record(m.inner, s, &s->come);
		if (s->is_replaced)
			assert_false(
				is_there(m.inner, (unsigned)s->swept_at + LATE + 100, "meta.json"));
		compact_chain_fini(&c);
		backend_free(be);
	}
}

/* ---- committing ---- */

/* Others begin the chain while we merge, with the block that we merge. */
struct rival {
	struct backend *inner;
	unsigned lists; /* since its records are there */
};

static void sweep_first(void *arg, enum faulty_call call, const char *key)
{
	struct rival *r = arg;

	/* After we were told that number 1 is taken, before we look at the chain. */
	if (call == FAULTY_LIST && strstr(key, COMPACT_RECORDS) != NULL && r->lists++ == 0)
		sweep(r->inner, 1);
}

static void a_swept_first_record_was_there(void **state)
{
	struct backend *be = faulty_backend_new(memory_backend_new());
	struct rival r = { faulty_of(be)->inner, 0 };
	struct block_meta output = meta_of(200);
	char inputs[1][COMPACT_ID];
	struct compact_chain c;

	(void)state;
	put_data(r.inner, 200);
	id_of(inputs[0], 1);
	compact_chain_init(&c, be, TENANT);
	assert_int_equal(compact_chain_follow(&c, NULL), 0);
	compact_chain_begin(&c);
	put_given(r.inner, &(struct given){ 1, 1, 0 });
	put_given(r.inner, &(struct given){ 2, 2, 1 });
	faulty_of(be)->hook = sweep_first;
	faulty_of(be)->hook_arg = &r;
	assert_int_equal(compact_chain_commit(&c, inputs, 1, &output, 1, NULL), COMPACT_LOST);
	assert_true(c.missed);
	assert_false(is_there(r.inner, 200, "meta.json"));
	compact_chain_fini(&c);
	backend_free(be);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_counts_is_proved_from_the_newest_down),
		cmocka_unit_test(a_swept_first_record_was_there),
	};

	log_configure(LOG_ERROR, LOG_CONSOLE);
	return cmocka_run_group_tests_name("compact_chain", tests, NULL, NULL);
}
