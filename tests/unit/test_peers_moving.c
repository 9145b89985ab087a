/* SPDX-License-Identifier: Apache-2.0
 *
 * test_peers_moving.c - names whose addresses change while they are asked.
 *
 * This program's own getaddrinfo answers out of a string, as a name server would that a test cannot
 * tell what to say. Nobody listens on the port, so each call fails and has the name resolved again.
 */
#include "base/clock.h"
#include "base/mem.h"
#include "query/peers.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define PORT ":1"

static pthread_mutex_t zone_lock = PTHREAD_MUTEX_INITIALIZER;
static const char *zone; /* addresses of every name; "" when there is none */

static void set_zone(const char *addresses)
{
	pthread_mutex_lock(&zone_lock);
	zone = addresses;
	pthread_mutex_unlock(&zone_lock);
}

static struct addrinfo *address_of(const char *text)
{
	struct addrinfo *a = xcalloc(1, sizeof(*a));
	struct sockaddr_in *to = xcalloc(1, sizeof(*to));

	to->sin_family = AF_INET;
	if (inet_pton(AF_INET, text, &to->sin_addr) != 1)
		abort();
	a->ai_family = AF_INET;
	a->ai_addr = (struct sockaddr *)to;
	a->ai_addrlen = sizeof(*to);
	return a;
}

int getaddrinfo(const char *host, const char *port, const struct addrinfo *hints,
		struct addrinfo **out)
{
	char text[200], *rest = text, *one;

	(void)port;
	(void)hints;
	pthread_mutex_lock(&zone_lock);
	snprintf(text, sizeof(text), "%s", strcmp(host, "builders") == 0 ? zone : host);
	pthread_mutex_unlock(&zone_lock);
	*out = NULL;
	while ((one = strsep(&rest, " ")) != NULL && *one != '\0') {
		struct addrinfo *a = address_of(one);

		a->ai_next = *out;
		*out = a;
	}
	return *out != NULL ? 0 : EAI_NONAME;
}

void freeaddrinfo(struct addrinfo *list)
{
	while (list != NULL) {
		struct addrinfo *next = list->ai_next;

		free(list->ai_addr);
		free(list);
		list = next;
	}
}

static struct peers *start(bool keeps_left)
{
	static const char *const names[] = { "dns+builders" PORT };
	struct peers *p = peers_new(&(struct peers_options){ .what = "builder",
							     .names = names,
							     .n = 1,
							     .keeps_left = keeps_left,
							     .timeout_ms = 1000,
							     .max_reply = 1 << 20 });

	assert_non_null(p);
	assert_int_equal(peers_start(p, NULL), 0);
	return p;
}

/* "127.0.0.2 127.0.0.3", and when something was last seen to have gone. */
static uint64_t addresses_now(struct peers *p, char out[200])
{
	struct peer_list l;
	uint64_t left_ns;
	size_t n = 0;

	peers_snapshot(p, &l);
	out[0] = '\0';
	for (size_t i = 0; i < l.n; i++)
		n += (size_t)snprintf(out + n, 200 - n, "%s%.*s", i > 0 ? " " : "",
				      (int)strcspn(l.v[i]->address, ":"), l.v[i]->address);
	left_ns = l.left_ns;
	peer_list_fini(&l);
	return left_ns;
}

/* A call to the first of them, which fails. */
static void call_first(struct peers *p)
{
	struct peer_call c = { .path = "/" };
	struct peer_list l;

	peers_snapshot(p, &l);
	assert_true(l.n > 0);
	c.peer = l.v[0];
	peers_call(p, &c, 1, NULL, 0);
	assert_true(c.err.kind != ERR_NONE);
	peer_call_fini(&c);
	peer_list_fini(&l);
}

/* Until the name is what is wanted and something went after since_ns; when that was. */
static uint64_t wait_for(struct peers *p, const char *want, uint64_t since_ns)
{
	uint64_t deadline = clock_mono_ns() + 60 * NS_PER_S;
	char now[200];
	uint64_t left_ns;

	while (left_ns = addresses_now(p, now), strcmp(now, want) != 0 || left_ns <= since_ns) {
		if (clock_mono_ns() > deadline)
			fail_msg("\"%s\", want \"%s\"", now, want);
		call_first(p);
		usleep(20000);
	}
	return left_ns;
}

/* A builder that died is out of DNS before anybody has its partitions: it is missed until another
 * is there in its place, and what it published before is looked for in a newer list. */
static void one_that_left_is_missed_until_it_is_replaced(void **state)
{
	struct peers *p;
	char now[200];
	uint64_t left_ns;

	(void)state;
	set_zone("127.0.0.2 127.0.0.3");
	p = start(true);
	assert_int_equal(addresses_now(p, now), 0);
	assert_string_equal(now, "127.0.0.2 127.0.0.3");
	set_zone("127.0.0.3");
	left_ns = wait_for(p, "127.0.0.2 127.0.0.3", 0);
	set_zone("127.0.0.3 127.0.0.4");
	wait_for(p, "127.0.0.3 127.0.0.4", left_ns);
	/* What comes back has not gone. */
	set_zone("127.0.0.3");
	left_ns = wait_for(p, "127.0.0.3 127.0.0.4", left_ns);
	set_zone("127.0.0.3 127.0.0.4 127.0.0.5");
	wait_for(p, "127.0.0.3 127.0.0.4 127.0.0.5", left_ns - 1);
	peers_free(p);
}

/* Queriers have nothing of their own. */
static void a_querier_that_left_is_not_asked(void **state)
{
	struct peers *p;
	char now[200];

	(void)state;
	set_zone("127.0.0.2 127.0.0.3");
	p = start(false);
	addresses_now(p, now);
	assert_string_equal(now, "127.0.0.2 127.0.0.3");
	set_zone("127.0.0.3");
	wait_for(p, "127.0.0.3", 0);
	peers_free(p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(one_that_left_is_missed_until_it_is_replaced),
		cmocka_unit_test(a_querier_that_left_is_not_asked),
	};

	return cmocka_run_group_tests_name("peers that move", tests, NULL, NULL);
}
