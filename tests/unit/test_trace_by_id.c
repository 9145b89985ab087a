/* SPDX-License-Identifier: Apache-2.0
 *
 * test_trace_by_id.c - pieces of a trace from many places become one trace: the same bytes whatever
 * order they came in, doubles once, damage told.
 *
 * A piece is written as text, "svc|lib|1 2 3;svc2|lib|4": resources with scopes with spans. A span
 * is its number; its start is that number too. What comes back is written the same way.
 */
#include "base/mem.h"
#include "base/rng.h"
#include "query/trace_by_id.h"
#include "tests/memory_backend.h"
#include "wire/otlp_index.h"
#include "wire/pb.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

enum { MAX_PIECES = 64, MAX_BYTES = 1024 * 1024 };

/* ---- writing ---- */

static const uint8_t trace_id[16] = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16 };

static void put_text(struct buf *out, uint32_t number, const char *text)
{
	size_t any = pb_begin(out, number);

	pb_put_str(out, 1, text);
	pb_end(out, any);
}

static void put_resource(struct buf *out, const char *service)
{
	size_t resource = pb_begin(out, 1), kv = pb_begin(out, 1);

	pb_put_str(out, 1, "service.name");
	put_text(out, 2, service);
	pb_end(out, kv);
	pb_end(out, resource);
}

static void put_span(struct buf *out, const char *name)
{
	uint8_t id[8];
	size_t span = pb_begin(out, 2);

	store_be64(id, strtoull(name, NULL, 10));
	pb_put_bytes(out, 1, (struct bytes){ trace_id, 16 });
	pb_put_bytes(out, 2, (struct bytes){ id, 8 });
	pb_put_str(out, 5, name);
	pb_put_fixed64(out, 7, load_be64(id));
	pb_end(out, span);
}

/* "svc|lib|1 2 3" */
static void put_group(struct buf *out, char *text)
{
	char *rest = NULL, *service = strtok_r(text, "|", &rest);
	char *scope = strtok_r(NULL, "|", &rest), *names = strtok_r(NULL, "|", &rest), *name;
	size_t rs = pb_begin(out, 1), ss, head;

	/* The schema URL is a head field behind the spans: a second run. */
	if (service[0] != '-')
		put_resource(out, service);
	ss = pb_begin(out, 2);
	head = pb_begin(out, 1);
	pb_put_str(out, 1, scope);
	pb_end(out, head);
	while ((name = strtok_r(names, " ", &names)) != NULL)
		put_span(out, name);
	pb_put_str(out, 3, "scope schema");
	pb_end(out, ss);
	pb_put_str(out, 3, "resource schema");
	pb_end(out, rs);
}

static void put_piece(struct buf *out, const char *text)
{
	char *copy = xstrdup(text), *rest = NULL;

	for (char *g = strtok_r(copy, ";", &rest); g != NULL; g = strtok_r(NULL, ";", &rest))
		put_group(out, g);
	free(copy);
}

/* ---- a store that has these pieces ---- */

struct fixture {
	struct live_source source;
	struct store *store;
	struct buf pieces[MAX_PIECES];
	size_t n;
	struct budget budget;
	struct query_memory memory;
	struct trace_by_id t;
	struct err err;
};

static int give_pieces(struct live_source *s, const char *tenant, const uint8_t id[16],
		       store_piece_fn *piece, void *arg, struct err *err)
{
	struct fixture *f = CONTAINER_OF(s, struct fixture, source);

	(void)tenant;
	assert_memory_equal(id, trace_id, 16);
	for (size_t i = 0; i < f->n; i++)
		if (piece(arg, buf_bytes(&f->pieces[i]), err) < 0)
			return -1;
	return 0;
}

static int set_up(void **state)
{
	struct fixture *f = xcalloc(1, sizeof(*f));

	f->store = store_new(&(struct store_options){
		.backend = memory_backend_new(), .local_path = "unused", .poll_ns = 1 });
	f->source.find = give_pieces;
	store_add_live(f->store, &f->source);
	atomic_store(&f->budget.limit, INT64_C(1) << 30);
	f->memory.budget = &f->budget;
	*state = f;
	return 0;
}

static void forget_pieces(struct fixture *f)
{
	for (size_t i = 0; i < f->n; i++)
		buf_fini(&f->pieces[i]);
	f->n = 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	store_remove_live(f->store, &f->source);
	store_free(f->store);
	forget_pieces(f);
	/* Whatever happened, nothing stays charged. */
	assert_int_equal(atomic_load(&f->budget.used), 0);
	assert_int_equal(atomic_load(&f->memory.used), 0);
	free(f);
	return 0;
}

static void add_piece(struct fixture *f, const char *text)
{
	f->pieces[f->n] = (struct buf)BUF_INIT;
	put_piece(&f->pieces[f->n++], text);
}

static int look_up(struct fixture *f, size_t max_bytes, bool keep_what_fits)
{
	err_clear(&f->err);
	trace_by_id_init(&f->t, max_bytes, &f->memory);
	f->t.keep_what_fits = keep_what_fits;
	if (trace_by_id_find(f->store, "t", trace_id, &f->t, &f->err) < 0)
		return -1;
	return trace_by_id_combine(&f->t, &f->err);
}

/* ---- reading back ---- */

static struct bytes field(struct bytes m, uint32_t number)
{
	struct pb_field pf;

	while (pb_next(&m, &pf) > 0)
		if (pf.number == number)
			return pf.data;
	return BYTES_EMPTY;
}

static void show_scope(struct bytes rs, struct bytes ss, struct buf *out)
{
	struct bytes service = field(field(field(field(rs, 1), 1), 2), 1);
	struct bytes scope = field(field(ss, 1), 1);
	struct pb_field f;
	const char *sep = "|";

	assert_true(bytes_eq_str(field(rs, 3), "resource schema"));
	assert_true(bytes_eq_str(field(ss, 3), "scope schema"));
	buf_printf(out, "%s%.*s|%.*s", out->n ? ";" : "", (int)service.n, (const char *)service.p,
		   (int)scope.n, (const char *)scope.p);
	while (pb_next(&ss, &f) > 0) {
		struct bytes name = f.number == 2 ? field(f.data, 5) : BYTES_EMPTY;

		if (f.number != 2)
			continue;
		buf_printf(out, "%s%.*s", sep, (int)name.n, (const char *)name.p);
		sep = " ";
	}
}

static const char *shown(const struct fixture *f, struct buf *out)
{
	struct bytes in = buf_bytes(&f->t.otlp);
	struct pb_field rs, ss;

	buf_reset(out);
	while (pb_next(&in, &rs) > 0)
		for (struct bytes rest = rs.data; pb_next(&rest, &ss) > 0;)
			if (ss.number == 2)
				show_scope(rs.data, ss.data, out);
	return buf_cstr(out);
}

/* ---- tests ---- */

static const struct {
	const char *pieces[6];
	const char *want;
	uint32_t n_spans;
} cases[] = {
	{ { "a|x|1 2 3" }, "a|x|1 2 3", 3 },
	{ { "a|x|3 1 2" }, "a|x|1 2 3", 3 },
	/* Pieces of one resource and scope come together, in order. */
	{ { "a|x|1 4", "a|x|2", "a|x|3 5" }, "a|x|1 2 3 4 5", 5 },
	{ { "a|x|2;a|y|1", "b|x|3", "a|x|4" }, "a|y|1;a|x|2 4;b|x|3", 4 },
	/* A resource stands where its first span is, with all its scopes. */
	{ { "b|x|9;a|x|5;b|y|1" }, "b|y|1;b|x|9;a|x|5", 3 },
	/* Doubles: in a piece, between pieces, under another resource. */
	{ { "a|x|1 1 2", "a|x|2 1" }, "a|x|1 2", 2 },
	{ { "b|x|1 2", "a|x|1" }, "a|x|1;b|x|2", 2 },
	{ { "a|y|1", "a|x|1" }, "a|x|1", 1 },
	/* The same number with another name: both stay (equal ids, other bytes). */
	{ { "a|x|7 7b", "a|x|7b 7" }, "a|x|7 7b", 2 },
	{ { "-|x|1", "-|x|2" }, "|x|1 2", 2 },
	{ { "" }, "", 0 },
};

static void pieces_become_one_trace(void **state)
{
	struct fixture *f = *state;
	struct buf text = BUF_INIT;

	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		size_t n = 0;

		while (n < COUNT_OF(cases[i].pieces) && cases[i].pieces[n] != NULL)
			add_piece(f, cases[i].pieces[n++]);
		if (look_up(f, MAX_BYTES, false) < 0)
			fail_msg("case %zu: %s", i, f->err.msg);
		assert_string_equal(shown(f, &text), cases[i].want);
		assert_int_equal(f->t.n_spans, cases[i].n_spans);
		assert_true(f->t.is_complete);
		trace_by_id_fini(&f->t);
		forget_pieces(f);
	}
	buf_fini(&text);
}

static void shuffle(struct fixture *f, struct rng *rng)
{
	for (size_t i = f->n; i > 1; i--) {
		size_t k = rng_below(rng, i);
		struct buf b = f->pieces[i - 1];

		f->pieces[i - 1] = f->pieces[k];
		f->pieces[k] = b;
	}
}

/* Wherever the spans lay and however they were cut: the same bytes. */
static void the_order_of_pieces_does_not_matter(void **state)
{
	struct fixture *f = *state;
	struct buf first = BUF_INIT, text = BUF_INIT;
	struct rng rng;

	rng_seed(&rng, 7);
	for (int round = 0; round < 50; round++) {
		/* Spans 1 to 200 over 3 services and 2 scopes, some twice, in random pieces. */
		for (unsigned span = 1; span <= 200 && f->n < MAX_PIECES;) {
			buf_reset(&text);
			for (unsigned k = 0; k < 8 && span <= 200; k++, span++)
				buf_printf(&text, "%ss%u|l%u|%u%s", k ? ";" : "", span % 3,
					   span % 2, span, span % 5 ? "" : " 3");
			add_piece(f, buf_cstr(&text));
		}
		shuffle(f, &rng);
		assert_int_equal(look_up(f, MAX_BYTES, false), 0);
		assert_int_equal(f->t.n_spans, 200);
		if (round == 0)
			buf_add_bytes(&first, buf_bytes(&f->t.otlp));
		assert_true(bytes_eq(buf_bytes(&first), buf_bytes(&f->t.otlp)));
		trace_by_id_fini(&f->t);
		forget_pieces(f);
	}
	buf_fini(&first);
	buf_fini(&text);
}

/* A piece that is cut anywhere, or has any bit turned, costs itself at most, and it is said. */
static void damage_costs_its_piece(void **state)
{
	struct fixture *f = *state;
	struct buf text = BUF_INIT, whole = BUF_INIT;
	size_t n_told = 0;

	put_piece(&whole, "a|x|10 11 12");
	for (size_t cut = 1; cut < whole.n; cut++) {
		add_piece(f, "a|x|1 2");
		f->pieces[f->n++] = (struct buf)BUF_INIT;
		buf_add(&f->pieces[1], whole.p, cut);
		add_piece(f, "a|x|3 4");
		assert_int_equal(look_up(f, MAX_BYTES, false), 0);
		assert_string_equal(shown(f, &text), "a|x|1 2 3 4");
		assert_false(f->t.is_complete);
		assert_non_null(strstr(f->t.why, "damaged"));
		trace_by_id_fini(&f->t);
		forget_pieces(f);
	}
	for (size_t bit = 0; bit < 8 * whole.n; bit++) {
		add_piece(f, "b|x|1 2");
		f->pieces[f->n++] = (struct buf)BUF_INIT;
		buf_add_bytes(&f->pieces[1], buf_bytes(&whole));
		f->pieces[1].p[bit / 8] ^= (uint8_t)(1 << bit % 8);
		add_piece(f, "b|x|3 4");
		assert_int_equal(look_up(f, MAX_BYTES, false), 0);
		assert_true(f->t.n_spans >= 4);
		n_told += !f->t.is_complete;
		trace_by_id_fini(&f->t);
		forget_pieces(f);
	}
	assert_true(n_told > whole.n);
	buf_fini(&text);
	buf_fini(&whole);
}

/* What others stored and we would not have taken comes back as it lies. */
static void odd_spans_come_back(void **state)
{
	static const struct {
		const char *what;
		size_t n_trace, n_span;
		const char *name;
	} odd[] = {
		{ "text that is no UTF-8", 16, 8, "caf\xe9 and so on" },
		{ "a span id of 7 bytes", 16, 7, "long enough to be a span" },
		{ "a trace id of 8 bytes", 8, 8, "long enough to be a span" },
		{ "no ids", 0, 0, "long enough to be a span, with a name" },
		{ "a span id of 20 bytes", 16, 20, "x" },
	};
	struct fixture *f = *state;
	static const uint8_t id[32] = { 9, 9 };

	for (size_t i = 0; i < COUNT_OF(odd); i++)
		for (int twice = 0; twice < 2; twice++) {
			struct buf b = BUF_INIT;
			size_t rs = pb_begin(&b, 1), ss = pb_begin(&b, 2), span = pb_begin(&b, 2);

			pb_put_bytes(&b, 1, (struct bytes){ id, odd[i].n_trace });
			pb_put_bytes(&b, 2, (struct bytes){ id, odd[i].n_span });
			pb_put_str(&b, 5, odd[i].name);
			pb_end(&b, span);
			pb_end(&b, ss);
			pb_end(&b, rs);
			f->pieces[f->n++] = b;
			if (twice == 1)
				add_piece(f, "a|x|1");
			if (look_up(f, MAX_BYTES, false) < 0)
				fail_msg("%s: %s", odd[i].what, f->err.msg);
			if (f->t.n_spans != 1 + (uint32_t)twice || !f->t.is_complete)
				fail_msg("%s: %u spans", odd[i].what, f->t.n_spans);
			assert_non_null(
				memmem(f->t.otlp.p, f->t.otlp.n, odd[i].name, strlen(odd[i].name)));
			trace_by_id_fini(&f->t);
			forget_pieces(f);
		}
}

static void a_trace_can_be_too_large(void **state)
{
	struct fixture *f = *state;
	struct buf text = BUF_INIT;

	add_piece(f, "a|x|1 2 3");
	add_piece(f, "a|x|4 5 6");
	add_piece(f, "a|x|7");
	assert_int_equal(look_up(f, f->pieces[0].n + f->pieces[1].n + f->pieces[2].n, false), 0);
	assert_int_equal(f->t.n_spans, 7);
	trace_by_id_fini(&f->t);
	assert_int_equal(look_up(f, f->pieces[0].n + 10, false), -1);
	assert_int_equal(f->err.kind, ERR_TOO_LARGE);
	assert_non_null(strstr(f->err.msg, "exceeds max size"));
	trace_by_id_fini(&f->t);
	assert_int_equal(look_up(f, f->pieces[0].n + f->pieces[2].n, true), 0);
	/* What of the second piece has room, then of the third. */
	assert_string_equal(shown(f, &text), "a|x|1 2 3 4");
	assert_false(f->t.is_complete);
	assert_non_null(strstr(f->t.why, "exceeds max size"));
	trace_by_id_fini(&f->t);
	for (size_t room = 0; room < f->pieces[0].n; room++) {
		assert_int_equal(look_up(f, room, true), 0);
		assert_true(f->t.n_spans < 3 && f->t.otlp.n <= room);
		assert_false(f->t.is_complete);
		trace_by_id_fini(&f->t);
	}
	buf_fini(&text);
}

/* Whatever the budget allows, it is kept to, and the answer is all or an error that says which. */
static void memory_is_asked_for(void **state)
{
	struct fixture *f = *state;
	size_t n_fit = 0, n_later = 0, n_never = 0;

	for (int i = 0; i < 20; i++)
		add_piece(f, "a|x|1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20");
	for (int64_t limit = 0; limit < 160000; limit += 500) {
		atomic_store(&f->budget.limit, limit);
		if (look_up(f, MAX_BYTES, true) == 0) {
			assert_int_equal(f->t.n_spans, 20);
			assert_true(f->t.is_complete);
			n_fit++;
		} else if (f->err.kind == ERR_EXHAUSTED) {
			assert_true(f->err.retryable);
			n_later++;
		} else {
			assert_int_equal(f->err.kind, ERR_TOO_LARGE);
			n_never++;
		}
		trace_by_id_fini(&f->t);
		assert_int_equal(atomic_load(&f->memory.used), 0);
	}
	assert_true(n_fit > 0 && n_later > 0 && n_never > 0);
	/* Three quarters are for look-ups. */
	atomic_store(&f->budget.limit, 1000);
	assert_int_equal(query_memory_charge(&f->memory, 0, 751, &f->err), -1);
	assert_int_equal(f->err.kind, ERR_TOO_LARGE);
	assert_int_equal(query_memory_charge(&f->memory, 0, 400, &f->err), 0);
	assert_int_equal(query_memory_charge(&f->memory, 0, 351, &f->err), -1);
	assert_int_equal(f->err.kind, ERR_EXHAUSTED);
	query_memory_release(&f->memory, 400);
	budget_force(&f->budget, 900);
	assert_int_equal(query_memory_charge(&f->memory, 0, 200, &f->err), -1);
	assert_int_equal(f->err.kind, ERR_EXHAUSTED);
	budget_release(&f->budget, 900);
}

static const struct {
	const char *text;
	uint8_t last, last_but_one;
	bool ok;
} ids[] = {
	{ "1", 1, 0, true },
	{ "abc", 0xbc, 0x0a, true },
	{ "ABC", 0xbc, 0x0a, true },
	{ "00000000000000000000000000000abC", 0xbc, 0x0a, true },
	{ "0", 0, 0, true },
	{ "", 0, 0, false },
	{ "000000000000000000000000000000001", 0, 0, false },
	{ "g", 0, 0, false },
	{ "0x1", 0, 0, false },
	{ " 1", 0, 0, false },
	{ "1 ", 0, 0, false },
	{ "-1", 0, 0, false },
	{ "\xc3\xa9", 0, 0, false },
};

static void ids_are_hex_of_1_to_32_digits(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT_OF(ids); i++) {
		struct err err = ERR_INIT;
		uint8_t id[16];
		int ret = trace_by_id_parse(ids[i].text, id, &err);

		if (ret != (ids[i].ok ? 0 : -1))
			fail_msg("\"%s\": %d", ids[i].text, ret);
		if (ret == 0) {
			assert_int_equal(id[15], ids[i].last);
			assert_int_equal(id[14], ids[i].last_but_one);
			for (int k = 0; k < 14; k++)
				assert_int_equal(id[k], 0);
		} else {
			assert_int_equal(err.kind, ERR_INVALID);
		}
	}
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(pieces_become_one_trace),       TEST(the_order_of_pieces_does_not_matter),
		TEST(damage_costs_its_piece),        TEST(odd_spans_come_back),
		TEST(a_trace_can_be_too_large),      TEST(memory_is_asked_for),
		TEST(ids_are_hex_of_1_to_32_digits),
	};

	return cmocka_run_group_tests_name("trace_by_id", tests, NULL, NULL);
}
