/* SPDX-License-Identifier: Apache-2.0
 *
 * test_probabilistic_sampler.c - the processor: the specification's vectors, what th becomes in
 * each mode, sampling.priority, and a chi-square test over a million ids.
 */
#include "base/str.h"
#include "tests/unit/processor_fixture.h"
#include "wire/span_wish.h"
#include "wire/tracestate.h"

#include <math.h>

/* A trace id whose low 56 bits are r. */
static void id_of(uint64_t r, uint8_t id[16])
{
	memset(id, 0x5a, 16);
	store_be64(id + 8, r | UINT64_C(0x77) << 56);
}

static struct fx_span span_of(uint64_t r, const char *state)
{
	struct fx_span sp = { .state = state };

	id_of(r, sp.trace_id);
	return sp;
}

/* Run one span through a sampler; the trace_state that comes out, or NULL when it is dropped. What
 * the index says must be what the bytes say. */
static const char *run_one(const char *yaml, const struct fx_span *sp)
{
	static char text[600];
	const char *ret = NULL;

	fx_start("probabilistic_sampler", yaml);
	fx_give(fx_batch(sp, 1, "t"));
	if (fx.n_kept == 1) {
		struct batch *again = fx_again(fx.kept[0]);
		struct bytes state = span_trace_state(&again->tables.spans[0]);

		assert_int_equal(again->tables.n_spans, 1);
		assert_true(again->tables.spans[0].th == fx.kept[0]->tables.spans[0].th);
		snprintf(text, sizeof(text), "%.*s", (int)state.n,
			 state.n ? (const char *)state.p : "");
		ret = text;
		batch_unref(again);
	}
	fx_stop();
	return ret;
}

#define MAX_R (TRACESTATE_W56 - 1)

/* reference: thresholds of the specification; R decides at the very edge. */
static void thresholds_and_edges(void **state)
{
	static const struct {
		const char *percentage;
		int precision;
		const char *th;
	} cases[] = {
		{ "50", 4, "8" },
		{ "25", 4, "c" },
		{ "33.333333333333336", 4, "aaab" },
		{ "10", 4, "e666" },
		{ "1", 4, "fd70a" },
		{ "0.1", 4, "ffbe77" },
		{ "0.0001", 4, "ffffef39" },
		{ "10", 14, "e6666666666666" },
		{ "33.333333333333336", 1, "b" },
		{ "99.99", 4, "00068dc" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(cases); i++)
		for (int mode = 0; mode < 2; mode++) {
			char yaml[160], want[32];
			struct tracestate_ot ot;
			struct fx_span sp;

			snprintf(yaml, sizeof(yaml),
				 "{sampling_percentage: %s, sampling_precision: %d, mode: %s}",
				 cases[i].percentage, cases[i].precision,
				 mode ? "proportional" : "equalizing");
			snprintf(want, sizeof(want), "ot=th:%s", cases[i].th);
			tracestate_read(bytes_str(want), &ot);
			sp = span_of(ot.th, NULL);
			if (run_one(yaml, &sp) == NULL)
				fail_msg("%s: dropped at R = T", yaml);
			if (strcmp(run_one(yaml, &sp), want) != 0)
				fail_msg("%s: %s, want %s", yaml, run_one(yaml, &sp), want);
			sp = span_of(ot.th - 1, NULL);
			if (run_one(yaml, &sp) != NULL)
				fail_msg("%s: kept at R = T - 1", yaml);
			sp = span_of(MAX_R, NULL);
			assert_string_equal(run_one(yaml, &sp), want);
		}
}

static void th_in_and_out(void **state)
{
	static const struct {
		const char *what, *yaml;
		uint64_t r;
		const char *in, *out;
	} cases[] = {
		{ "proportional multiplies", "{sampling_percentage: 50}", MAX_R, "ot=th:8",
		  "ot=th:c" },
		{ "and drops between the two", "{sampling_percentage: 50}", UINT64_C(9) << 52,
		  "ot=th:8", NULL },
		{ "equalizing raises", "{sampling_percentage: 25, mode: equalizing}", MAX_R,
		  "ot=th:8", "ot=th:c" },
		{ "equalizing keeps a stricter one", "{sampling_percentage: 50, mode: equalizing}",
		  MAX_R, "ot=th:c", "ot=th:c" },
		{ "rv goes before the trace id", "{sampling_percentage: 50}", 0,
		  "ot=rv:ffffffffffffff", "ot=th:8;rv:ffffffffffffff" },
		{ "also when it says drop", "{sampling_percentage: 50}", MAX_R,
		  "ot=rv:00000000000000", NULL },
		{ "other members stay", "{sampling_percentage: 50}", MAX_R, "a=1,ot=x:y;th:0,b=2",
		  "ot=th:8;x:y,a=1,b=2" },
		{ "a lie is dropped", "{sampling_percentage: 50}", UINT64_C(9) << 52, "ot=th:c",
		  NULL },
		{ "at 100 % too", "{sampling_percentage: 100}", UINT64_C(9) << 52, "ot=th:c",
		  NULL },
		{ "or kept and erased", "{sampling_percentage: 50, fail_closed: false}", 1,
		  "ot=th:c;x:y,a=1", "ot=x:y,a=1" },
		{ "100 % touches nothing", "{sampling_percentage: 100}", 0, NULL, "" },
		{ "nor a precise th", "{sampling_percentage: 100}", MAX_R, "ot=th:fd70a123456789",
		  "ot=th:fd70a123456789" },
		{ "rounding never lowers T", "{sampling_percentage: 99.9999999}", MAX_R,
		  "ot=th:fd70a123456789", "ot=th:fd70a123456789" },
		{ "0 % drops all", "{sampling_percentage: 0}", MAX_R, NULL, NULL },
		{ "150 % keeps all", "{sampling_percentage: 150}", 0, NULL, "" },
		{ "below 2^-56 nothing passes", "{sampling_percentage: 0.0001}", MAX_R,
		  "ot=th:ffffffffffffff", NULL },
		{ "malformed ot is replaced", "{sampling_percentage: 50}", MAX_R,
		  "ot=th:8;rv:1,a=1", "ot=th:8,a=1" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		struct fx_span sp = span_of(cases[i].r, cases[i].in);
		const char *got = run_one(cases[i].yaml, &sp);

		if ((got == NULL) != (cases[i].out == NULL) ||
		    (got != NULL && strcmp(got, cases[i].out) != 0))
			fail_msg("%s: %s, want %s", cases[i].what, got ? got : "dropped",
				 cases[i].out ? cases[i].out : "dropped");
	}
}

/* An ot of 250 characters has no room for more: no th is better than one that is too low. */
static void no_room_for_th(void **state)
{
	char in[300];
	struct fx_span sp;

	(void)state;
	snprintf(in, sizeof(in), "ot=th:8;x:%0238d", 7);
	sp = span_of(MAX_R, in);
	assert_null(
		strstr(run_one("{sampling_percentage: 10, sampling_precision: 14}", &sp), "th:"));
}

static void priority_goes_first(void **state)
{
	static const struct {
		const char *yaml;
		char kind;
		double priority;
		bool high, kept;
	} cases[] = {
		{ "{sampling_percentage: 100}", 'i', 0, true, false },
		{ "{sampling_percentage: 100}", 'd', 0, true, false },
		{ "{sampling_percentage: 100}", 's', 0, true, false },
		{ "{sampling_percentage: 0}", 'i', 1, false, true },
		{ "{sampling_percentage: 0}", 'd', 0.5, false, true },
		{ "{sampling_percentage: 0}", 's', 2, false, true },
		{ "{sampling_percentage: 50}", 'i', -1, true, true },
		{ "{sampling_percentage: 50}", 'i', -1, false, false },
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		struct fx_span sp = span_of(cases[i].high ? MAX_R : 0, NULL);

		sp.priority_kind = cases[i].kind;
		sp.priority = cases[i].priority;
		if ((run_one(cases[i].yaml, &sp) != NULL) != cases[i].kept)
			fail_msg("%s, %c %g: kept %d", cases[i].yaml, cases[i].kind,
				 cases[i].priority, !cases[i].kept);
	}
}

/* T_guard: what R reaches it is kept, however often it was sampled, and th says so. */
static void none_asks_more_than_the_guard(void **state)
{
	static const struct {
		const char *yaml, *in;
		uint64_t guard, r; /* in 1/16 */
		const char *out;
	} cases[] = {
		{ "{sampling_percentage: 25}", "ot=th:8", 12, 12, "ot=th:c" },
		{ "{sampling_percentage: 25}", "ot=th:8", 12, 11, NULL },
		{ "{sampling_percentage: 25}", NULL, 8, 8, "ot=th:8" },
		{ "{sampling_percentage: 25}", NULL, 8, 7, NULL },
		{ "{sampling_percentage: 25, mode: equalizing}", NULL, 8, 9, "ot=th:8" },
		{ "{sampling_percentage: 0}", NULL, 8, 9, "ot=th:8" },
		/* Sampled below it elsewhere: what has come this far goes on. */
		{ "{sampling_percentage: 25}", "ot=th:c", 8, 12, "ot=th:c" },
		{ "{sampling_percentage: 25}", "ot=th:8", 16, 13, NULL },
		{ "{sampling_percentage: 25}", "ot=th:8", 16, 14, "ot=th:e" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		struct fx_span sp = span_of(cases[i].r << 52, cases[i].in);
		struct bytes text;

		fx_start("probabilistic_sampler", cases[i].yaml);
		atomic_store(&fx.service.exemplar_th, cases[i].guard << 52);
		fx_give(fx_batch(&sp, 1, "t"));
		if ((fx.n_kept == 1) != (cases[i].out != NULL))
			fail_msg("case %zu: %u kept", i, fx.n_kept);
		text = fx.n_kept ? span_trace_state(&fx.kept[0]->tables.spans[0]) : BYTES_EMPTY;
		if (fx.n_kept && !bytes_eq_str(text, cases[i].out))
			fail_msg("case %zu: \"%.*s\"", i, (int)text.n, (const char *)text.p);
		fx_stop();
	}
}

/* A span that an exemplar names: kept by its R as any other, else against it, and then it weighs
 * nothing, in this process and the next. */
static void keep_records(void **state)
{
	static const struct {
		const char *yaml, *in, *reason;
		bool is_kept, high;
		const char *out; /* NULL: dropped */
		double weight;
	} cases[] = {
		{ "{sampling_percentage: 50}", NULL, "exemplar", false, true, "ot=th:8", 2 },
		{ "{sampling_percentage: 50}", NULL, "exemplar", false, false, "", 0 },
		{ "{sampling_percentage: 50}", NULL, NULL, true, false, "", 0 },
		{ "{sampling_percentage: 50}", NULL, NULL, false, false, NULL, 0 },
		{ "{sampling_percentage: 50}", NULL, "slow", false, false, NULL, 0 },
		{ "{sampling_percentage: 50}", "a=1,ot=th:0;x:y", "exemplar", false, false,
		  "ot=x:y,a=1", 0 },
		{ "{sampling_percentage: 0}", NULL, "exemplar", false, true, "", 0 },
		{ "{sampling_percentage: 100}", NULL, "exemplar", false, false, "", 1 },
		{ "{sampling_percentage: 1, mode: equalizing}", "ot=th:8", "exemplar", true, false,
		  "", 0 },
		{ "{sampling_percentage: 0.001, hash_seed: 7}", NULL, "exemplar", false, true, "",
		  0 },
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		struct fx_span sp = span_of(cases[i].high ? MAX_R : 0, cases[i].in);
		struct batch *b, *again;
		struct bytes text;
		bool unknown;
		double weight;

		if (cases[i].reason != NULL) {
			sp.key = "sampling.reason";
			sp.value = cases[i].reason;
		}
		fx_start("probabilistic_sampler", cases[i].yaml);
		b = fx_batch(&sp, 1, "t");
		b->tables.spans[0].is_kept = cases[i].is_kept;
		fx_give(b);
		if ((fx.n_kept == 1) != (cases[i].out != NULL))
			fail_msg("case %zu: %u kept", i, fx.n_kept);
		for (unsigned k = 0; k < 2 * fx.n_kept; k++) {
			again = k ? fx_again(fx.kept[0]) : batch_ref(fx.kept[0]);
			text = span_trace_state(&again->tables.spans[0]);
			weight = span_weight(&again->tables.spans[0], &unknown);
			if (!bytes_eq_str(text, cases[i].out) || weight != cases[i].weight)
				fail_msg("case %zu: \"%.*s\" weighs %g", i, (int)text.n,
					 (const char *)text.p, weight);
			assert_int_equal(unknown, weight == 1);
			batch_unref(again);
		}
		fx_stop();
	}
}

/* What an earlier stage wrote into the span does not hide its attributes. */
static void priority_of_an_edited_span(void **state)
{
	struct fx_span sp = span_of(MAX_R, NULL);
	struct batch *b;

	(void)state;
	sp.priority_kind = 'i';
	fx_start("probabilistic_sampler", "{sampling_percentage: 50}");
	b = fx_batch(&sp, 1, "t");
	batch_set_trace_state(b, 0, BYTES_LIT("ot=th:8"));
	fx_give(b);
	assert_int_equal(fx.n_kept, 0);
	fx_stop();
}

/* The Collector's rule, reckoned apart from ours: seed, share, id -> what is written, or NULL. */
static void hash_of_the_collector(void **state)
{
	static const struct {
		const char *yaml, *id, *in, *out;
	} cases[] = {
		{ "{sampling_percentage: 50, mode: hash_seed}", "5b8efff798038103d269b633813fc60c",
		  NULL, "ot=th:8;rv:a480091545d6df" },
		{ "{sampling_percentage: 50, hash_seed: 22}", "5b8efff798038103d269b633813fc60c",
		  "a=1,ot=x:y", "ot=th:8;rv:ccd828a32a4cc9;x:y,a=1" },
		{ "{sampling_percentage: 10, hash_seed: 22}", "00000000000000000000000000000001",
		  NULL, NULL },
		{ "{sampling_percentage: 99, hash_seed: 4294967295}",
		  "ffffffffffffffffffffffffffffffff", NULL, "ot=th:029;rv:54781488236ae1" },
		{ "{sampling_percentage: 100, hash_seed: 22}", "5b8efff798038103d269b633813fc60c",
		  NULL, "ot=th:0;rv:ccd828a32a4cc9" },
		{ "{sampling_percentage: 33.3, hash_seed: 7}", "0af7651916cd43dd8448eb211c80319c",
		  NULL, "ot=th:aac4;rv:e3a012759c4717" },
		{ "{sampling_percentage: 33.3, hash_seed: 8}", "0af7651916cd43dd8448eb211c80319c",
		  NULL, NULL },
		{ "{sampling_percentage: 33.3, hash_seed: 8, mode: proportional}",
		  "0af7651916cd43dd84ffffffffffffff", NULL, "ot=th:aac1" },
		{ "{sampling_percentage: 0.001, hash_seed: 7}", "0af7651916cd43dd8448eb211c80319c",
		  NULL, NULL },
		{ "{sampling_percentage: 100, hash_seed: 7}", "0af7651916cd43dd8448eb211c80319c",
		  "ot=th:8", NULL },
		{ "{sampling_percentage: 100, hash_seed: 7, fail_closed: false}",
		  "0af7651916cd43dd8448eb211c80319c", "ot=th:8", "ot=th:8" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		struct fx_span sp = { .state = cases[i].in };
		const char *got;

		assert_int_equal(str_unhex(bytes_str(cases[i].id), sp.trace_id, 16), 0);
		got = run_one(cases[i].yaml, &sp);
		if ((got == NULL) != (cases[i].out == NULL) ||
		    (got != NULL && strcmp(got, cases[i].out) != 0))
			fail_msg("%s: %s, want %s", cases[i].yaml, got ? got : "dropped",
				 cases[i].out ? cases[i].out : "dropped");
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(thresholds_and_edges),
		cmocka_unit_test(th_in_and_out),
		cmocka_unit_test(no_room_for_th),
		cmocka_unit_test(priority_goes_first),
		cmocka_unit_test(none_asks_more_than_the_guard),
		cmocka_unit_test(keep_records),
		cmocka_unit_test(priority_of_an_edited_span),
		cmocka_unit_test(hash_of_the_collector),
	};

	all_components_register();
	return cmocka_run_group_tests_name("probabilistic_sampler", tests, NULL, NULL);
}
