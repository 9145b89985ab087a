/* SPDX-License-Identifier: Apache-2.0
 *
 * test_htpasswd.c - lines, hashes of every kind, what is remembered, and that nothing of a line
 * shows in an error.
 */
#include "net/htpasswd.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

/* All of "secret"; made with htpasswd, openssl passwd and slappasswd. */
#define BCRYPT "$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a"
static const char file[] = "# users\r\n"
			   "\n"
			   "plain:secret\r\n"
			   "  sha:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=  \n"
			   "ssha:{SSHA}gVK8WC9YyFT1gMsQHTGCgT3sSv5zYWx0\n"
			   "crypt:$6$salt$"
			   "egUxKNxDs8kPfh8iPMNcosMhb2eWah6d3R44JDm5Rj/j/"
			   "XWR5E33QPd0YmHXoDHOIDR6kL5D3JcQcz0O8FHE00\n"
			   "bcrypt:" BCRYPT "\n"
			   "colon:a:b";

static struct htpasswd *parse(const char *text)
{
	struct err err = ERR_INIT;
	struct htpasswd *h = htpasswd_parse(bytes_str(text), "users", &err);

	if (h == NULL)
		fail_msg("%s", err.msg);
	return h;
}

static const struct {
	const char *user, *password;
	enum htpasswd_verdict at_once, in_the_end;
} checks[] = {
	{ "plain", "secret", HTPASSWD_YES, HTPASSWD_YES },
	{ "plain", "secreT", HTPASSWD_NO, HTPASSWD_NO },
	{ "plain", "", HTPASSWD_NO, HTPASSWD_NO },
	{ "sha", "secret", HTPASSWD_YES, HTPASSWD_YES },
	{ "sha", "secret ", HTPASSWD_NO, HTPASSWD_NO },
	{ "ssha", "secret", HTPASSWD_YES, HTPASSWD_YES },
	{ "ssha", "salt", HTPASSWD_NO, HTPASSWD_NO },
	{ "crypt", "wrong", HTPASSWD_SLOW, HTPASSWD_NO },
	{ "crypt", "secret", HTPASSWD_SLOW, HTPASSWD_YES },
	{ "colon", "a:b", HTPASSWD_YES, HTPASSWD_YES },
	{ "bcrypt", "wrong", HTPASSWD_SLOW, HTPASSWD_NO },
	{ "bcrypt", BCRYPT, HTPASSWD_SLOW, HTPASSWD_NO },
	{ "bcrypt", "secret", HTPASSWD_SLOW, HTPASSWD_YES },
	{ "bcrypt", "secret", HTPASSWD_YES, HTPASSWD_YES }, /* remembered */
	{ "bcrypt", "wrong", HTPASSWD_SLOW, HTPASSWD_NO },
	{ "nobody", "secret", HTPASSWD_SLOW, HTPASSWD_NO }, /* as long as a wrong password */
	{ "", "", HTPASSWD_SLOW, HTPASSWD_NO },
};

static void passwords_are_checked(void **state)
{
	struct htpasswd *h = parse(file);

	(void)state;
	for (size_t i = 0; i < COUNT_OF(checks); i++) {
		struct bytes user = bytes_str(checks[i].user);
		struct bytes password = bytes_str(checks[i].password);
		enum htpasswd_verdict fast = htpasswd_check(h, user, password);
		enum htpasswd_verdict slow = htpasswd_check_slowly(h, user, password);

		if (fast != checks[i].at_once || slow != checks[i].in_the_end)
			fail_msg("%s, %s: %d then %d", checks[i].user, checks[i].password, fast,
				 slow);
	}
	htpasswd_free(h);
}

static void nobody_is_refused_at_once_where_no_hash_is_slow(void **state)
{
	struct htpasswd *h = parse("plain:secret");

	(void)state;
	assert_int_equal(htpasswd_check(h, bytes_str("x"), bytes_str("secret")), HTPASSWD_NO);
	htpasswd_free(h);
}

static const struct {
	const char *text, *want;
} bad[] = {
	{ "", "users: there is no user in it" },
	{ "# only\n", "users: there is no user in it" },
	{ "a:b\nhunter2", "users: line 2 is not user:hash" },
	{ ":hunter2", "users: line 1 is not user:hash" },
	{ "hunter2:", "users: line 1 is not user:hash" },
	{ "a:$apr1$hunter2$x", "users: line 1: this kind of hash is not known" },
	{ "a:{MD5}hunter2", "users: line 1: this kind of hash is not known" },
	{ "a:$2y$05$hunter2", "users: line 1: the hash is cut short" },
};

static void mistakes_are_named_without_their_text(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT_OF(bad); i++) {
		struct err err = ERR_INIT;

		assert_null(htpasswd_parse(bytes_str(bad[i].text), "users", &err));
		if (strstr(err.msg, bad[i].want) != err.msg || strstr(err.msg, "hunter2") != NULL)
			fail_msg("%s: %s", bad[i].text, err.msg);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(passwords_are_checked),
		cmocka_unit_test(nobody_is_refused_at_once_where_no_hash_is_slow),
		cmocka_unit_test(mistakes_are_named_without_their_text),
	};

	return cmocka_run_group_tests_name("htpasswd", tests, NULL, NULL);
}
