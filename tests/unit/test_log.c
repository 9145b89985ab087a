/* SPDX-License-Identifier: Apache-2.0
 *
 * test_log.c - lines as key=value and as JSON, fields of every line, limits per call site, outputs.
 */
#include "base/base.h"
#include "base/log.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static char path[] = "/tmp/spanmill-log-XXXXXX";

static const struct log_field fields[] = { { "who", "a b", true }, { "n", "7", false } };

static void open_log(enum log_encoding encoding, struct log_sampling sampling, size_t n_fields)
{
	static const char *paths[1];
	struct err err = ERR_INIT;

	paths[0] = path;
	assert_int_equal(truncate(path, 0), 0);
	assert_int_equal(log_open(&(struct log_settings){ .level = LOG_INFO,
							  .encoding = encoding,
							  .sampling = sampling,
							  .paths = paths,
							  .n_paths = 1,
							  .fields = fields,
							  .n_fields = n_fields },
				  &err),
			 0);
}

static const char *read_log(void)
{
	static char text[65536];
	FILE *f = fopen(path, "r");
	size_t n;

	assert_non_null(f);
	n = fread(text, 1, sizeof(text) - 1, f);
	text[n] = '\0';
	fclose(f);
	return text;
}

static const struct {
	const char *value, *console, *json;
} cases[] = {
	{ "plain", "k=plain", "\"k\":\"plain\"" },
	{ "", "k=\"\"", "\"k\":\"\"" },
	{ "a b", "k=\"a b\"", "\"k\":\"a b\"" },
	{ "a=b", "k=\"a=b\"", "\"k\":\"a=b\"" },
	{ "a\nb", "k=\"a\\nb\"", "\"k\":\"a\\nb\"" },
	{ "q\"\\", "k=\"q\\\"\\\\\"", "\"k\":\"q\\\"\\\\\"" },
	{ "\x1b[31m", "k=\"\\u001b[31m\"", "\"k\":\"\\u001b[31m\"" },
	{ "\xc3\xbc", "k=\xc3\xbc", "\"k\":\"\xc3\xbc\"" },
	{ "x\xff", "k=\"x\\ufffd\"", "\"k\":\"x\\ufffd\"" },
};

static void values_cannot_break_a_line(void **state)
{
	static const struct log_sampling all = { false, 0, 0, 0 };
	char want[200];

	(void)state;
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		open_log(LOG_CONSOLE, all, 0);
		log_info("sentence", "k", cases[i].value);
		snprintf(want, sizeof(want), " info sentence %s\n", cases[i].console);
		assert_string_equal(strchr(read_log(), ' '), want);
		open_log(LOG_JSON, all, 0);
		log_warn("sentence", "k", cases[i].value);
		snprintf(want, sizeof(want), ",\"level\":\"warn\",\"msg\":\"sentence\",%s}\n",
			 cases[i].json);
		assert_string_equal(strchr(read_log(), ','), want);
	}
}

static void every_line_carries_the_fields(void **state)
{
	static const struct log_sampling all = { false, 0, 0, 0 };

	(void)state;
	open_log(LOG_CONSOLE, all, 2);
	log_info("one", "k", "v");
	assert_string_equal(strchr(read_log(), ' '), " info one k=v who=\"a b\" n=7\n");
	open_log(LOG_JSON, all, 2);
	log_info("one", "k", "v");
	assert_string_equal(strchr(read_log(), ','),
			    ",\"level\":\"info\",\"msg\":\"one\",\"who\":\"a b\",\"n\":7,\"k\":"
			    "\"v\"}\n");
	open_log(LOG_CONSOLE, all, 0);
	log_debug("below the level");
	log_info("no fields any more");
	assert_string_equal(strchr(read_log(), ' '), " info no fields any more\n");
}

static unsigned count_lines(const char *text)
{
	unsigned n = 0;

	for (; *text != '\0'; text++)
		n += *text == '\n';
	return n;
}

static void a_call_site_is_limited(void **state)
{
	static const struct {
		struct log_sampling limits;
		unsigned want;
	} sites[] = {
		{ { true, INT64_C(3600000000000), 3, 10 }, 3 + 9 },
		{ { true, INT64_C(3600000000000), 3, 0 }, 3 },
		{ { true, INT64_C(3600000000000), 0, 50 }, 2 },
		{ { false, INT64_C(3600000000000), 3, 10 }, 100 },
	};
	static struct log_site site[COUNT_OF(sites)];

	(void)state;
	for (size_t i = 0; i < COUNT_OF(sites); i++) {
		open_log(LOG_CONSOLE, sites[i].limits, 0);
		for (int k = 0; k < 100; k++)
			log_write(&site[i], LOG_INFO, "again", (const char *)NULL);
		assert_int_equal(count_lines(read_log()), sites[i].want);
	}
}

static void an_output_that_cannot_be_changes_nothing(void **state)
{
	static const char *const bad[] = { "/nonexistent/folder/log" };
	struct err err = ERR_INIT;

	(void)state;
	open_log(LOG_CONSOLE, (struct log_sampling){ false, 0, 0, 0 }, 0);
	assert_int_equal(log_open(&(struct log_settings){ .paths = bad, .n_paths = 1 }, &err), -1);
	assert_non_null(strstr(err.msg, "/nonexistent/folder/log"));
	log_info("still here");
	assert_string_equal(strchr(read_log(), ' '), " info still here\n");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(values_cannot_break_a_line),
		cmocka_unit_test(every_line_carries_the_fields),
		cmocka_unit_test(a_call_site_is_limited),
		cmocka_unit_test(an_output_that_cannot_be_changes_nothing),
	};
	int fd = mkstemp(path), ret;

	if (fd < 0)
		return 1;
	close(fd);
	ret = cmocka_run_group_tests_name("log", tests, NULL, NULL);
	unlink(path);
	return ret;
}
