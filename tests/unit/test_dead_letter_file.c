/* SPDX-License-Identifier: Apache-2.0
 *
 * test_dead_letter_file.c - lines are whole, whatever is at the end of the file or in the texts.
 */
#include "pipeline/send/dead_letter_file.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define OURS "{\"time\":\"2026-01-01T00:00:00.000Z\""
#define MEMBERS ",\"topic\":\"t\",\"offset\":7,\"key\":null,\"value\":\"YWI=\"}\n"

static const struct dead_letter_member members[] = {
	{ "topic", LETTER_TEXT, { (const uint8_t *)"t", 1 }, 0 },
	{ "offset", LETTER_NUMBER, { NULL, 0 }, 7 },
	{ "key", LETTER_NULL, { NULL, 0 }, 0 },
	{ "value", LETTER_BASE64, { (const uint8_t *)"ab", 2 }, 0 },
};

static char folder[] = "/tmp/letters.XXXXXX", path[64];

static int set_up(void **state)
{
	(void)state;
	if (mkdtemp(folder) == NULL)
		return -1;
	snprintf(path, sizeof(path), "%s/dead.jsonl", folder);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	unlink(path);
	return rmdir(folder);
}

static void write_file(const char *text)
{
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	fputs(text, f);
	fclose(f);
}

static void read_file(char out[1024])
{
	FILE *f = fopen(path, "r");
	size_t n;

	assert_non_null(f);
	n = fread(out, 1, 1023, f);
	out[n] = '\0';
	fclose(f);
}

static const struct {
	const char *name, *before, *kept;
} cases[] = {
	{ "new file", NULL, "" },
	{ "empty file", "", "" },
	{ "whole lines stay", OURS "}\n" OURS "}\n", OURS "}\n" OURS "}\n" },
	{ "half a line goes", OURS "}\n" OURS ",\"val", OURS "}\n" },
	{ "so does the start of one", OURS "}\n{\"ti", OURS "}\n" },
	{ "and the only one", OURS, "" },
	{ "what is not ours stays", "my notes", "my notes\n" },
	{ "behind a line of ours too", OURS "}\nx", OURS "}\nx\n" },
};

static void a_line_is_whole(void **state)
{
	char got[1024];

	(void)state;
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		size_t n = strlen(cases[i].kept);

		unlink(path);
		if (cases[i].before != NULL)
			write_file(cases[i].before);
		if (dead_letter_file_put(path, members, COUNT_OF(members), NULL) < 0)
			fail_msg("%s: not written", cases[i].name);
		read_file(got);
		if (strncmp(got, cases[i].kept, n) != 0 ||
		    strncmp(got + n, "{\"time\":\"20", 11) != 0 ||
		    strcmp(strchr(got + n, ','), MEMBERS) != 0)
			fail_msg("%s: %s", cases[i].name, got);
	}
}

static void texts_cannot_break_it(void **state)
{
	static const char *const texts[][2] = {
		{ "a \"b\" \\ c\n", "a ?b? ? c?" },
		{ "\xc3\xbc", "\xc3\xbc" },
		{ "\xc3 \xff\x80", "? ??" },
	};
	char got[1024], want[64];

	(void)state;
	for (size_t i = 0; i < COUNT_OF(texts); i++) {
		struct dead_letter_member m = { "r", LETTER_TEXT, bytes_str(texts[i][0]), 0 };

		unlink(path);
		assert_int_equal(dead_letter_file_put(path, &m, 1, NULL), 0);
		read_file(got);
		snprintf(want, sizeof(want), ",\"r\":\"%s\"}\n", texts[i][1]);
		assert_string_equal(strchr(got, ','), want);
	}
}

/* Processes that share a file: no line is lost or mixed with another. */
static void writers_do_not_mix(void **state)
{
	enum { WRITERS = 4, LINES = 25 };
	char line[256];
	int n = 0;
	FILE *f;

	(void)state;
	unlink(path);
	for (int i = 0; i < WRITERS; i++)
		if (fork() == 0) {
			for (int k = 0; k < LINES; k++)
				dead_letter_file_put(path, members, COUNT_OF(members), NULL);
			_exit(0);
		}
	while (wait(NULL) > 0)
		continue;
	f = fopen(path, "r");
	assert_non_null(f);
	for (; fgets(line, sizeof(line), f) != NULL; n++)
		assert_string_equal(strchr(line, ','), MEMBERS);
	fclose(f);
	assert_int_equal(n, WRITERS * LINES);
}

static void what_cannot_be_written_is_said(void **state)
{
	struct err err = ERR_INIT;

	(void)state;
	assert_int_equal(dead_letter_file_put("/no/such/folder/f", members, 1, &err), -1);
	assert_non_null(strstr(err.msg, "open /no/such/folder/f: "));
	err_clear(&err);
	assert_int_equal(dead_letter_file_put("/dev/full", members, 1, &err), -1);
	assert_non_null(strstr(err.msg, "write /dev/full: No space left"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_line_is_whole),
		cmocka_unit_test(texts_cannot_break_it),
		cmocka_unit_test(writers_do_not_mix),
		cmocka_unit_test(what_cannot_be_written_is_said),
	};

	return cmocka_run_group_tests_name("dead_letter_file", tests, set_up, tear_down);
}
