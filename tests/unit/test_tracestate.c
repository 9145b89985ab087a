/* SPDX-License-Identifier: Apache-2.0
 *
 * test_tracestate.c - thresholds and randomness in tracestate: the specification's own values, and
 * rewriting.
 */
#include "base/base.h"
#include "wire/tracestate.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

static void thresholds_of_probabilities(void **state)
{
	static const struct {
		double p;
		int precision;
		const char *want;
	} cases[] = {
		{ 1.0, 4, "0" },
		{ 0.5, 4, "8" },
		{ 0.25, 4, "c" },
		{ 1.0 / 3, 4, "aaab" },
		{ 2.0 / 3, 4, "5555" },
		{ 0.1, 4, "e666" },
		{ 0.01, 4, "fd70a" },
		{ 0.001, 4, "ffbe77" },
		{ 1e-6, 4, "ffffef39" },
		{ 1.0 / 3, 1, "b" },
		{ 0.1, 14, "e6666666666666" },
		{ 0x1p-56, 4, "ffffffffffffff" },
		{ 2.0, 4, "0" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		char text[15];

		tracestate_format_th(tracestate_threshold(cases[i].p, cases[i].precision), text);
		if (strcmp(text, cases[i].want) != 0)
			fail_msg("p %g precision %d: %s, want %s", cases[i].p, cases[i].precision,
				 text, cases[i].want);
	}
	assert_true(tracestate_threshold(0, 4) == TRACESTATE_W56);
	assert_true(tracestate_threshold(-1, 4) == TRACESTATE_W56);
	assert_true(tracestate_threshold(NAN, 4) == TRACESTATE_W56);
	assert_true(tracestate_threshold(0x1p-57, 4) == TRACESTATE_W56);
	for (double p = 1; p > 1e-13; p *= 0.7)
		for (int precision = 1; precision <= 14; precision++) {
			uint64_t th = tracestate_threshold(p, precision);

			assert_true(th < TRACESTATE_W56);
			if (precision >= 3)
				assert_true(fabs(tracestate_probability(th) / p - 1) < 0.01);
		}
}

/* The specification's table of 1-in-N sampling: thresholds to 3, 4 and 5 digits, and the
 * probability that each stands for, to the last bit. */
static void table_of_the_specification(void **state)
{
	static const struct {
		double p;
		const char *th[3];
		double actual[3];
	} rows[] = {
		{ 1, { "0", "0", "0" }, { 1, 1, 1 } },
		{ 0.5, { "8", "8", "8" }, { 0.5, 0.5, 0.5 } },
		{ 0.3333333333333333,
		  { "aab", "aaab", "aaaab" },
		  { 0.333251953125, 0.3333282470703125, 0.33333301544189453 } },
		{ 0.25, { "c", "c", "c" }, { 0.25, 0.25, 0.25 } },
		{ 0.2,
		  { "ccd", "cccd", "ccccd" },
		  { 0.199951171875, 0.1999969482421875, 0.19999980926513672 } },
		{ 0.125, { "e", "e", "e" }, { 0.125, 0.125, 0.125 } },
		{ 0.1,
		  { "e66", "e666", "e6666" },
		  { 0.10009765625, 0.100006103515625, 0.10000038146972656 } },
		{ 0.0625, { "f", "f", "f" }, { 0.0625, 0.0625, 0.0625 } },
		{ 0.01,
		  { "fd71", "fd70a", "fd70a4" },
		  { 0.0099945068359375, 0.010000228881835938, 0.009999990463256836 } },
		{ 0.001,
		  { "ffbe7", "ffbe77", "ffbe76d" },
		  { 0.0010004043579101562, 0.0009999871253967285, 0.000999998301267624 } },
		{ 0.0001,
		  { "fff972", "fff9724", "fff97247" },
		  { 0.00010001659393310547, 0.00010000169277191162, 0.00010000006295740604 } },
		{ 0.00001,
		  { "ffff584", "ffff583a", "ffff583a5" },
		  { 9.998679161071777e-06, 1.00000761449337e-05, 1.0000003385357559e-05 } },
		{ 0.000001,
		  { "ffffef4", "ffffef39", "ffffef391" },
		  { 9.98377799987793e-07, 1.00000761449337e-06, 9.999930625781417e-07 } },
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(rows); i++)
		for (int k = 0; k < 3; k++) {
			uint64_t th = tracestate_threshold(rows[i].p, 3 + k);
			struct tracestate_ot ot;
			char text[15], ts[24];

			tracestate_format_th(th, text);
			snprintf(ts, sizeof(ts), "ot=th:%s", rows[i].th[k]);
			tracestate_read(bytes_str(ts), &ot);
			if (strcmp(text, rows[i].th[k]) != 0 || ot.th != th ||
			    tracestate_probability(ot.th) != rows[i].actual[k])
				fail_msg("%g to %d digits: %s (%.17g), want %s (%.17g)", rows[i].p,
					 3 + k, text, tracestate_probability(ot.th), rows[i].th[k],
					 rows[i].actual[k]);
		}
}

/* Texts of the specification: "keep iff R >= T" is the order of the digits, of ids and of rv. */
static void decisions_of_the_specification(void **state)
{
	static const struct {
		const char *rv;
		double p;
		bool kept;
	} cases[] = {
		/* 0x6e6d1a75832a2f is kept at every probability from 56.9 % on. */
		{ "6e6d1a75832a2f", 0.568, false },   { "6e6d1a75832a2f", 0.57, true },
		{ "6e6d1a75832a2f", 1, true },        { "00000000000000", 1, true },
		{ "00000000000000", 0.9999, false },  { "ffffffffffffff", 0x1p-56, true },
		{ "fffffffffffffe", 0x1p-56, false }, { "80000000000000", 0.5, true },
		{ "7fffffffffffff", 0.5, false },
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		uint64_t th = tracestate_threshold(cases[i].p, 14);
		struct tracestate_ot ot;
		char ts[40], th_text[15] = "";

		tracestate_format_th(th, th_text);
		snprintf(ts, sizeof(ts), "ot=th:%s;rv:%s", th_text, cases[i].rv);
		tracestate_read(bytes_str(ts), &ot);
		assert_true(ot.has_rv && ot.th == th);
		if ((ot.rv >= ot.th) != cases[i].kept)
			fail_msg("%s: kept %d", ts, ot.rv >= ot.th);
		/* Without a number: texts padded to 14 digits. */
		memset(th_text + strlen(th_text), '0', 14 - strlen(th_text));
		assert_true((strcmp(cases[i].rv, th_text) >= 0) == cases[i].kept);
	}
}

static void reads_the_ot_member(void **state)
{
	static const struct {
		const char *in;
		uint64_t th, rv;
		bool has_rv, malformed;
	} cases[] = {
		{ "", TH_UNKNOWN, 0, false, false },
		{ "vendor=x", TH_UNKNOWN, 0, false, false },
		{ "ot=th:0", 0, 0, false, false },
		{ "ot=th:c", UINT64_C(0xc0000000000000), 0, false, false },
		{ "ot=th:fd70a;rv:6e6d1a75832a2f", UINT64_C(0xfd70a000000000),
		  UINT64_C(0x6e6d1a75832a2f), true, false },
		{ "a=b , \tot=rv:00000000000001;th:8 ,c=d", UINT64_C(0x80000000000000), 1, true,
		  false },
		{ "ot=p:8;r:62;th:4", UINT64_C(0x40000000000000), 0, false, false },
		{ "xot=th:8", TH_UNKNOWN, 0, false, false },
		{ "ot=", TH_UNKNOWN, 0, false, false },
		{ "ot=th", TH_UNKNOWN, 0, false, false },
		{ "ot=th:", TH_UNKNOWN, 0, false, true },
		{ "ot=th:C", TH_UNKNOWN, 0, false, true },
		{ "ot=th:g", TH_UNKNOWN, 0, false, true },
		{ "ot=th:000000000000000", TH_UNKNOWN, 0, false, true },
		{ "ot=th:8;rv:123", TH_UNKNOWN, 0, false, true },
		{ "ot=rv:6e6d1a75832a2", TH_UNKNOWN, 0, false, true },
		{ "ot=th:8,ot=th:c", UINT64_C(0x80000000000000), 0, false, false },
		{ ",,;ot=th:8", TH_UNKNOWN, 0, false, false },
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		struct tracestate_ot ot;

		tracestate_read(bytes_str(cases[i].in), &ot);
		if (ot.th != cases[i].th || ot.has_rv != cases[i].has_rv ||
		    ot.malformed != cases[i].malformed || (ot.has_rv && ot.rv != cases[i].rv))
			fail_msg("\"%s\": th %llx rv %d malformed %d", cases[i].in,
				 (unsigned long long)ot.th, ot.has_rv, ot.malformed);
	}
}

static void rewriting_keeps_everything_else(void **state)
{
	static const struct {
		const char *in;
		uint64_t th;
		const char *want;
	} cases[] = {
		{ "", 0, "ot=th:0" },
		{ "", TH_UNKNOWN, "" },
		{ "a=1,b=2", UINT64_C(0xc0000000000000), "ot=th:c,a=1,b=2" },
		{ "a=1,ot=th:8;rv:6e6d1a75832a2f,b=2", UINT64_C(0xc0000000000000),
		  "ot=th:c;rv:6e6d1a75832a2f,a=1,b=2" },
		{ "ot=rv:6e6d1a75832a2f;x:y;th:8", UINT64_C(0xc0000000000000),
		  "ot=th:c;rv:6e6d1a75832a2f;x:y" },
		{ "ot=th:8,a=1", TH_UNKNOWN, "a=1" },
		{ "ot=th:8;rv:6e6d1a75832a2f,a=1", TH_UNKNOWN, "ot=rv:6e6d1a75832a2f,a=1" },
		{ "ot=th:8", TH_UNKNOWN, "" },
		{ "ot=th:8", TRACESTATE_W56, "" },
		{ " a=1 ,, b=2 ", 0, "ot=th:0,a=1,b=2" },
		{ "ot=;;th:1;;", 0, "ot=th:0" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		/* With and without something in the buffer already. */
		for (int prefix = 0; prefix < 2; prefix++) {
			struct buf out = BUF_INIT;

			buf_add_str(&out, prefix ? "before" : "");
			assert_int_equal(
				tracestate_write_th(bytes_str(cases[i].in), cases[i].th, &out), 0);
			if (strcmp(buf_cstr(&out) + (prefix ? 6 : 0), cases[i].want) != 0)
				fail_msg("\"%s\": \"%s\", want \"%s\"", cases[i].in, buf_cstr(&out),
					 cases[i].want);
			buf_fini(&out);
		}
	}
}

static void limits_of_the_list(void **state)
{
	struct buf in = BUF_INIT, out = BUF_INIT;
	struct bytes full;

	(void)state;
	/* 32 members: a new ot pushes the last one out, an old one is replaced in place. */
	for (int i = 0; i < 32; i++)
		buf_printf(&in, "%sk%d=v", i ? "," : "", i);
	full = buf_bytes(&in);
	assert_int_equal(tracestate_write_th(full, 0, &out), 0);
	assert_non_null(strstr(buf_cstr(&out), "ot=th:0,k0=v,"));
	assert_non_null(strstr(buf_cstr(&out), ",k30=v"));
	assert_null(strstr(buf_cstr(&out), "k31=v"));
	buf_reset(&out);
	assert_int_equal(tracestate_write_th(full, TH_UNKNOWN, &out), 0);
	assert_true(bytes_eq(full, buf_bytes(&out)));
	/* An ot value over 256 characters: nothing is written. */
	buf_reset(&in);
	buf_add_str(&in, "ot=x:");
	for (int i = 0; i < 251; i++)
		buf_add_char(&in, 'y');
	buf_reset(&out);
	assert_int_equal(tracestate_write_th(buf_bytes(&in), UINT64_C(0xc0000000000000), &out), -1);
	assert_int_equal(out.n, 0);
	assert_int_equal(tracestate_write_th(buf_bytes(&in), TH_UNKNOWN, &out), 0);
	buf_fini(&in);
	buf_fini(&out);
}

static void randomness_is_the_low_56_bits(void **state)
{
	static const uint8_t id[16] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
					0xff, 1,    2,    3,    4,    5,    6,    7 };

	(void)state;
	assert_true(tracestate_randomness(id) == UINT64_C(0x01020304050607));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(thresholds_of_probabilities),
		cmocka_unit_test(table_of_the_specification),
		cmocka_unit_test(decisions_of_the_specification),
		cmocka_unit_test(reads_the_ot_member),
		cmocka_unit_test(rewriting_keeps_everything_else),
		cmocka_unit_test(limits_of_the_list),
		cmocka_unit_test(randomness_is_the_low_56_bits),
	};

	return cmocka_run_group_tests_name("tracestate", tests, NULL, NULL);
}
