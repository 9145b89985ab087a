/* SPDX-License-Identifier: Apache-2.0
 *
 * test_peers.c - names of other query nodes, and who stands behind them.
 */
#include "query/peers.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static void names_are_checked(void **state)
{
	static const struct {
		const char *name;
		bool is_good;
	} cases[] = {
		{ "127.0.0.1:3200", true },  { "builder-0.builders:3200", true },
		{ "[::1]:3200", true },      { "dns+builders.traces.svc:3200", true },
		{ "dns+[::1]:3200", true },  { "h:1", true },
		{ "h:65535", true },         { "", false },
		{ "builder", false },        { "builder:", false },
		{ ":3200", false },          { "dns+", false },
		{ "dns+builder", false },    { "h:0", false },
		{ "h:65536", false },        { "h:-1", false },
		{ "h:3200x", false },        { "::1:3200", false },
		{ "[]:3200", false },        { "[::1:3200", false },
		{ "http://h:3200", false },  { "h:3200/api", false },
		{ "user@h:3200", false },    { "a b:3200", false },
		{ "h\r\nX: y:3200", false }, { "h?:3200", false },
		{ "h#:3200", false },        { "h%00:3200", false },
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		struct err err = ERR_INIT;
		int ret = peers_check_name(cases[i].name, &err);

		if ((ret == 0) != cases[i].is_good || (ret < 0 && err.msg[0] == '\0'))
			fail_msg("\"%s\": %d %s", cases[i].name, ret, err.msg);
	}
}

static struct peers *start(const char *const *names, size_t n)
{
	struct peers *p = peers_new(&(struct peers_options){ .what = "builder",
							     .names = names,
							     .n = n,
							     .timeout_ms = 1000,
							     .max_reply = 1 << 20 });

	assert_non_null(p);
	assert_int_equal(peers_start(p, NULL), 0);
	return p;
}

/* In order, each address once, whatever name led to it. */
static void addresses_are_asked_once(void **state)
{
	static const char *const names[] = { "z:1", "127.0.0.1:7", "dns+127.0.0.1:7",
					     "a:2", "z:1",         "dns+[::1]:8" };
	struct peers *p = start(names, COUNT_OF(names));
	struct peer_list l;

	(void)state;
	peers_snapshot(p, &l);
	assert_string_equal(l.missing, "");
	assert_true(l.n == 4);
	assert_string_equal(l.v[0]->address, "127.0.0.1:7");
	assert_string_equal(l.v[1]->address, "[::1]:8");
	assert_string_equal(l.v[2]->address, "a:2");
	assert_string_equal(l.v[3]->address, "z:1");
	/* A snapshot outlives them. */
	peers_free(p);
	assert_string_equal(l.v[3]->address, "z:1");
	peer_list_fini(&l);
}

static void a_name_without_an_address_is_told(void **state)
{
	static const char *const names[] = { "a:1", "dns+nobody.invalid:3200" };
	struct peers *p = start(names, COUNT_OF(names));
	struct peer_list l;

	(void)state;
	peers_snapshot(p, &l);
	assert_int_equal(l.n, 1);
	assert_string_equal(l.missing, "builder dns+nobody.invalid:3200: no address");
	peer_list_fini(&l);
	peers_free(p);
}

static void no_names_are_nobody(void **state)
{
	(void)state;
	assert_null(peers_new(&(struct peers_options){ .n = 0 }));
	peers_free(NULL);
	peers_interrupt(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(names_are_checked),
		cmocka_unit_test(addresses_are_asked_once),
		cmocka_unit_test(a_name_without_an_address_is_told),
		cmocka_unit_test(no_names_are_nobody),
	};

	return cmocka_run_group_tests_name("peers", tests, NULL, NULL);
}
