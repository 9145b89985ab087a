/* SPDX-License-Identifier: Apache-2.0
 *
 * fuzz_kafka_token.c - the file of an OAUTHBEARER token, and the claims of a JWT.
 *
 * First byte even: the rest is the file. Odd: the rest is what the claims' base64 stands for, so
 * that mutations reach the JSON; behind it the same claims with `exp` and `sub` in front, which
 * must be found whatever follows.
 */
#include "base/buf.h"
#include "base/mem.h"
#include "base/str.h"
#include "net/kafka_token.h"

#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

enum { WALL_NS = 1000000000 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const struct kafka_token *t)
{
	size_t n = strnlen(t->principal, sizeof(t->principal));

	assert(n > 0 && n < sizeof(t->principal));
	assert(t->expires_ms > 0 && t->expires_ms < INT64_MAX / 2);
}

static void as_file(struct kafka_token *t, struct bytes in)
{
	char path[64];
	int fd = memfd_create("token", MFD_CLOEXEC);
	struct err err = ERR_INIT;

	assert(fd >= 0 && write(fd, in.p, in.n) == (ssize_t)in.n);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	if (kafka_token_read(path, t, &err) == 0) {
		assert(t->text[0] != '\0' && strlen(t->text) <= KAFKA_TOKEN_MAX);
		check(t);
	} else {
		assert(err.kind != ERR_NONE);
	}
	close(fd);
}

static void as_claims(struct kafka_token *t, const char *first, struct bytes rest)
{
	struct buf json = BUF_INIT;
	size_t n = strlen("e30.");

	buf_add_str(&json, first);
	buf_add_bytes(&json, rest);
	if (4 * ((json.n + 2) / 3) + 16 < KAFKA_TOKEN_MAX) {
		memcpy(t->text, "e30.", n);
		n += str_base64(json.p, json.n, t->text + n);
		memcpy(t->text + n, ".c2ln", sizeof(".c2ln"));
		kafka_token_claims(t, WALL_NS);
		check(t);
	}
	buf_fini(&json);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct kafka_token *t = xcalloc(1, sizeof(*t));
	struct bytes rest = { data + 1, size - 1 };

	if (size > 0 && data[0] % 2 == 0)
		as_file(t, rest);
	if (size > 0 && data[0] % 2 == 1) {
		as_claims(t, "", rest);
		t->expires_ms = 0;
		as_claims(t, "{\"exp\":1700000000,\"sub\":\"me\",", rest);
		assert(t->expires_ms == 0 ||
		       (t->expires_ms == INT64_C(1700000000000) && !strcmp(t->principal, "me")));
	}
	free(t);
	return 0;
}
