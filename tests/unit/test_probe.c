/* SPDX-License-Identifier: Apache-2.0
 *
 * test_probe.c - the prober's verdicts: who says what, when it is final, and what does not count;
 * the HTTP side against scripted answers.
 */
#include "base/clock.h"
#include "connectors/spanmetrics/probe.h"
#include "connectors/spanmetrics/probe_http.h"
#include "connectors/spanmetrics/probe_seen.h"
#include "tests/unit/scripted_http.h"
#include "wire/otlp_find_span.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static const uint8_t trace_id[16] = { 1, 2, 3 }, span_id[8] = { 9 };

/* ---- otlp_find_span ---- */

#define TRACE_ID "\x01\x02\x03\0\0\0\0\0\0\0\0\0\0\0\0\0"
#define SPAN(id) "\x12\x1c\x0a\x10" TRACE_ID "\x12\x08" id "\0\0\0\0\0\0\0"
#define TRACE(id) "\x0a\x20\x12\x1e" SPAN(id)

static void spans_are_found_by_both_ids(void **state)
{
	static const struct {
		const char *name, *in;
		size_t n;
		int want;
	} cases[] = {
		{ "nothing", "", 0, 0 },
		{ "the span", TRACE("\x09"), 34, 1 },
		{ "another span", TRACE("\x08"), 34, 0 },
		{ "the second", TRACE("\x08") TRACE("\x09"), 68, 1 },
		{ "damage behind it", TRACE("\x09") "\x0a\xff", 36, 1 },
		{ "damage before it", "\x0b" TRACE("\x09"), 35, -1 },
		{ "cut", TRACE("\x09"), 33, -1 },
		{ "html", "<html>", 6, -1 },
		{ "an id of the wrong length", "\x0a\x09\x12\x07\x12\x05\x0a\x03\x01\x02\x03", 11,
		  0 },
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		struct bytes in = { (const uint8_t *)cases[i].in, cases[i].n };
		int got = otlp_find_span(in, trace_id, span_id);

		if (got != cases[i].want)
			fail_msg("%s: %d, want %d", cases[i].name, got, cases[i].want);
	}
}

/* ---- verdicts ---- */

/* Answers from a list; the last one stays. */
struct scripted_lookup {
	struct span_lookup lookup;
	const enum span_found *answers;
	size_t n;
	_Atomic size_t n_asked;
	enum err_kind kind;
	uint64_t asked_ns[64];
};

static enum span_found scripted_find(struct span_lookup *l, const struct span_wanted *w,
				     const _Atomic bool *is_gone, struct err *err)
{
	struct scripted_lookup *s = (struct scripted_lookup *)l;
	size_t i = atomic_load(&s->n_asked);
	enum span_found a = s->answers[MIN(i, s->n - 1)];

	(void)is_gone;
	assert_string_equal(w->tenant, "acme");
	assert_memory_equal(w->trace_id, trace_id, 12); /* the rest is a number */
	assert_memory_equal(w->span_id, span_id, 8);
	s->asked_ns[i % COUNT_OF(s->asked_ns)] = clock_mono_ns();
	if (a == SPAN_UNKNOWN)
		err_set(err, s->kind, "scripted");
	atomic_fetch_add(&s->n_asked, 1);
	return a;
}

/* The i-th of different exemplars. */
static void expose(struct probe *p, uint32_t i)
{
	uint8_t id[16];

	memcpy(id, trace_id, sizeof(id));
	memcpy(id + 12, &i, sizeof(i));
	probe_exposed(p, "acme", id, span_id);
}

/* The value of a sample line that begins so. */
static double sample(struct probe *p, const char *line)
{
	struct buf out = BUF_INIT;
	const char *at;
	double v = -1;

	probe_metrics(p, "spanmetrics", &out);
	at = strstr(buf_cstr(&out), line);
	if (at != NULL)
		v = strtod(at + strlen(line), NULL);
	buf_fini(&out);
	assert_true(v >= 0);
	return v;
}

static double result(struct probe *p, const char *word)
{
	char line[120];

	snprintf(line, sizeof(line),
		 "exemplar_probe_total{connector=\"spanmetrics\",result=\"%s\"} ", word);
	return sample(p, line);
}

static void wait_settled(struct probe *p)
{
	uint64_t until = clock_mono_ns() + 60 * NS_PER_S;

	while (sample(p, "exemplar_probe_waiting{connector=\"spanmetrics\"} ") > 0) {
		assert_true(clock_mono_ns() < until);
		usleep(1000);
	}
}

static void verdicts(void **state)
{
	static const struct {
		const char *name;
		enum span_found answers[3];
		size_t n;
		enum err_kind kind;
		int64_t wait_ns;
		double ok, partial, missing, late, too_large;
		size_t n_asked;
	} cases[] = {
		{ "there", { SPAN_FOUND }, 1, ERR_NONE, 0, 1, 0, 0, 0, 0, 1 },
		{ "no trace", { SPAN_NO_TRACE }, 1, ERR_NONE, 0, 0, 0, 1, 0, 0, 1 },
		{ "without the span", { SPAN_NOT_IN_TRACE }, 1, ERR_NONE, 0, 0, 1, 0, 0, 0, 1 },
		{ "comes later",
		  { SPAN_NO_TRACE, SPAN_FOUND },
		  2,
		  ERR_NONE,
		  60 * INT64_C(1000000000),
		  1,
		  0,
		  0,
		  1,
		  0,
		  2 },
		{ "the last word counts",
		  { SPAN_NOT_IN_TRACE, SPAN_NO_TRACE },
		  2,
		  ERR_NONE,
		  INT64_C(500000000),
		  0,
		  0,
		  1,
		  0,
		  0,
		  2 },
		{ "no answer is no verdict",
		  { SPAN_UNKNOWN, SPAN_FOUND },
		  2,
		  ERR_UNAVAILABLE,
		  0,
		  1,
		  0,
		  0,
		  0,
		  0,
		  2 },
		{ "too large", { SPAN_UNKNOWN }, 1, ERR_TOO_LARGE, 0, 0, 0, 0, 0, 1, 1 },
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		struct scripted_lookup s = { .lookup = { .find = scripted_find },
					     .answers = cases[i].answers,
					     .n = cases[i].n,
					     .kind = cases[i].kind };
		struct probe_config conf = { .rate = 1000, .wait_ns = cases[i].wait_ns };
		struct probe *p = probe_new_asking(&s.lookup, &conf);

		probe_exposed(p, "acme", trace_id, span_id);
		wait_settled(p);
		if (result(p, "ok") != cases[i].ok || result(p, "partial") != cases[i].partial ||
		    result(p, "missing") != cases[i].missing ||
		    atomic_load(&s.n_asked) != cases[i].n_asked)
			fail_msg("%s: ok %g partial %g missing %g, asked %zu", cases[i].name,
				 result(p, "ok"), result(p, "partial"), result(p, "missing"),
				 atomic_load(&s.n_asked));
		assert_true(sample(p, "exemplar_probe_late_total{connector=\"spanmetrics\"} ") ==
			    cases[i].late);
		assert_true(sample(p, "reason=\"too_large\"} ") == cases[i].too_large);
		probe_free(p);
	}
}

static void the_rate_is_kept(void **state)
{
	static const enum span_found found[] = { SPAN_FOUND };
	struct scripted_lookup s = { .lookup = { .find = scripted_find },
				     .answers = found,
				     .n = 1 };
	struct probe_config conf = { .rate = 20 };
	struct probe *p = probe_new_asking(&s.lookup, &conf);
	uint64_t before = clock_mono_ns();

	(void)state;
	for (uint32_t i = 0; i < 5; i++) {
		expose(p, i);
		expose(p, i); /* the next flush shows it, too */
	}
	wait_settled(p);
	assert_true(result(p, "ok") == 5);
	/* no sooner; a busy machine may be later */
	for (size_t i = 1; i < 5; i++)
		assert_true(s.asked_ns[i] - before >= i * 50 * NS_PER_MS);
	probe_free(p);
}

/* More than may wait are counted, and the end does not wait for those that do. */
static void what_is_too_much_is_counted(void **state)
{
	static const enum span_found none[] = { SPAN_NO_TRACE };
	struct scripted_lookup s = { .lookup = { .find = scripted_find }, .answers = none, .n = 1 };
	struct probe_config conf = { .rate = 0.01, .wait_ns = 60 * INT64_C(1000000000) };
	struct probe *p = probe_new_asking(&s.lookup, &conf);

	(void)state;
	for (uint32_t i = 0; i < PROBE_WAITING + 7; i++)
		expose(p, i);
	assert_true(sample(p, "reason=\"full\"} ") == 7);
	assert_true(sample(p, "exemplar_probe_waiting{connector=\"spanmetrics\"} ") ==
		    PROBE_WAITING);
	probe_free(p);
	probe_free(NULL);
	probe_exposed(NULL, "acme", trace_id, span_id);
}

/* Known while it is shown again and again, whatever else is; forgotten when it is no more. */
static void what_is_shown_is_known(void **state)
{
	struct probe_seen s = { .seed = 0 };
	uint8_t id[16] = { 0 };

	(void)state;
	for (uint32_t i = 0; i < 5 * PROBE_SEEN / 2; i++) {
		memcpy(id, &i, sizeof(i));
		assert_true(probe_seen_is_new(&s, id, span_id));
		assert_false(probe_seen_is_new(&s, id, span_id));
		assert_true(probe_seen_is_new(&s, trace_id, span_id) == (i == 0));
	}
	assert_true(s.current.cap <= 2 * PROBE_SEEN && s.previous.cap <= 2 * PROBE_SEEN);
	memset(id, 0, sizeof(id));
	assert_true(probe_seen_is_new(&s, id, span_id));
	probe_seen_fini(&s);
}

/* ---- HTTP ---- */

/* A span of "\1" x 16 and "\1" x 8, without NUL bytes, as scripted bodies are strings. */
#define ONES "\x01\x01\x01\x01\x01\x01\x01\x01"
#define BODY "\x0a\x20\x12\x1e\x12\x1c\x0a\x10" ONES ONES "\x12\x08" ONES

static void http_answers_are_judged(void **state)
{
	static const struct http_step steps[] = {
		{ 200, NULL, BODY, 0, 0 },     { 206, NULL, BODY, 0, 0 },
		{ 200, NULL, BODY, 0, 0 },     { 206, NULL, BODY, 0, 0 },
		{ 200, NULL, NULL, 0, 0 },     { 404, NULL, NULL, 0, 0 },
		{ 503, NULL, "busy", 0, 0 },   { 422, NULL, "large", 0, 0 },
		{ 200, NULL, "<html>", 0, 0 }, { 401, NULL, "who", 0, 0 },
		{ 200, NULL, BODY, 0, 5 },
	};
	static const struct {
		bool other;
		enum span_found want;
		enum err_kind kind;
	} want[] = {
		{ false, SPAN_FOUND, ERR_NONE },          { false, SPAN_FOUND, ERR_NONE },
		{ true, SPAN_NOT_IN_TRACE, ERR_NONE },    { true, SPAN_UNKNOWN, ERR_UNAVAILABLE },
		{ false, SPAN_NO_TRACE, ERR_NONE },       { false, SPAN_NO_TRACE, ERR_NONE },
		{ false, SPAN_UNKNOWN, ERR_UNAVAILABLE }, { false, SPAN_UNKNOWN, ERR_TOO_LARGE },
		{ false, SPAN_UNKNOWN, ERR_CORRUPT },     { false, SPAN_UNKNOWN, ERR_UNAVAILABLE },
		{ false, SPAN_UNKNOWN, ERR_UNAVAILABLE },
	};
	struct budget budget = BUDGET_INIT(1 << 20);
	_Atomic bool is_gone = false;
	struct scripted_http server;
	struct err err = ERR_INIT;
	struct span_lookup *l;

	(void)state;
	scripted_start(&server, steps, COUNT_OF(steps));
	l = probe_http_new(server.endpoint, &budget, &is_gone, &err);
	assert_non_null(l);
	for (size_t i = 0; i < COUNT_OF(want); i++) {
		struct span_wanted w = { .tenant = "acme" };
		struct err e = ERR_INIT;
		enum span_found got;

		memset(w.trace_id, 1, sizeof(w.trace_id));
		memset(w.span_id, want[i].other ? 2 : 1, sizeof(w.span_id));
		got = l->find(l, &w, &is_gone, &e);
		if (got != want[i].want || e.kind != want[i].kind)
			fail_msg("answer %zu: %d, kind %d: %s", i, got, e.kind, e.msg);
		assert_true(atomic_load(&budget.used) == 0);
	}
	assert_non_null(strstr(server.asked[0],
			       "GET /api/traces/01010101010101010101010101010101 HTTP/1.1\r\n"));
	assert_non_null(strstr(server.asked[0], "X-Scope-OrgID: acme\r\n"));
	assert_non_null(strstr(server.asked[0], "Accept: application/protobuf\r\n"));
	probe_http_free(l);
	scripted_stop(&server);
}

static void endpoints_are_checked(void **state)
{
	static const struct {
		const char *text;
		bool is_good;
	} cases[] = {
		{ "http://query:3200", true },
		{ "https://u:p@query/tempo/", true },
		{ "127.0.0.1:3200", true },
		{ "[::1]:3200", true },
		{ "query", false },
		{ "ftp://query:1", false },
		{ "http://", false },
		{ ":3200", false },
		{ "http://query:3200?x=1", false },
		{ "que ry:1", false },
		{ "query:3200\n", false },
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		struct err err = ERR_INIT;
		int ret = probe_http_check(cases[i].text, &err);

		if ((ret == 0) != cases[i].is_good || (ret < 0 && err.msg[0] == '\0'))
			fail_msg("\"%s\": %d %s", cases[i].text, ret, err.msg);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(spans_are_found_by_both_ids),
		cmocka_unit_test(verdicts),
		cmocka_unit_test(the_rate_is_kept),
		cmocka_unit_test(what_is_too_much_is_counted),
		cmocka_unit_test(what_is_shown_is_known),
		cmocka_unit_test(http_answers_are_judged),
		cmocka_unit_test(endpoints_are_checked),
	};

	return cmocka_run_group_tests_name("probe", tests, NULL, NULL);
}
