/* SPDX-License-Identifier: Apache-2.0
 *
 * kafka_token.c - see kafka_token.h.
 *
 * Of a JWT (header.claims.signature, RFC 7519) two claims are read, to know when to come again and
 * as whom; nothing is verified here: that is the broker's business.
 */
#include "net/kafka_token.h"

#include "base/clock.h"
#include "base/mem.h"
#include "base/str.h"

#include <ctype.h>
#include <stdio.h>

/* A token that does not say when it expires is good for this long, then the file is read again. */
#define UNSAID_MS INT64_C(60000)

/* The end of the string that starts at p[0] == '"', behind its quote; `end` when it has none. */
static const char *string_end(const char *p, const char *end)
{
	for (p++; p < end && *p != '"'; p++)
		p += *p == '\\' && p + 1 < end;
	return p < end ? p + 1 : end;
}

static const char *skip_blanks(const char *p, const char *end)
{
	while (p < end && isspace((unsigned char)*p))
		p++;
	return p;
}

/* Where the value of a member of the outermost object starts, or NULL. */
static const char *find_claim(const char *p, const char *end, const char *name)
{
	size_t n = strlen(name);
	int depth = 0;

	while (p < end) {
		const char *after = p + 1;

		if (*p == '"') {
			after = string_end(p, end);
			if (depth == 1 && (size_t)(after - p) == n + 2 && !memcmp(p + 1, name, n)) {
				const char *colon = skip_blanks(after, end);

				if (colon < end && *colon == ':')
					return skip_blanks(colon + 1, end);
			}
		}
		depth += (*p == '{' || *p == '[') - (*p == '}' || *p == ']');
		p = after;
	}
	return NULL;
}

static int64_t whole_number(const char *p, const char *end)
{
	int64_t v = 0;

	for (; p < end && isdigit((unsigned char)*p) && v < INT64_MAX / 20000; p++)
		v = v * 10 + (*p - '0');
	return v;
}

/* A string without control characters, which JSON has none of. */
static void take_principal(struct kafka_token *t, const char *claim, const char *end)
{
	int n = claim != NULL && *claim == '"' ? (int)(string_end(claim, end) - claim) - 2 : 0;

	for (int i = 1; i <= n; i++)
		if ((unsigned char)claim[i] < ' ')
			return;
	if (n > 0)
		snprintf(t->principal, sizeof(t->principal), "%.*s", n, claim + 1);
}

void kafka_token_claims(struct kafka_token *t, uint64_t wall_ns)
{
	const char *first = strchr(t->text, '.');
	const char *last = first ? strchr(first + 1, '.') : NULL;
	uint8_t json[3 * (KAFKA_TOKEN_MAX / 4) + 3];
	const char *p = (const char *)json, *end, *claim;
	long n = 0;

	t->expires_ms = (int64_t)(wall_ns / NS_PER_MS) + UNSAID_MS;
	snprintf(t->principal, sizeof(t->principal), "spanmill");
	if (last != NULL)
		n = str_unbase64(
			(struct bytes){ (const uint8_t *)first + 1, (size_t)(last - first - 1) },
			json);
	if (n <= 0)
		return;
	end = p + n;
	claim = find_claim(p, end, "exp");
	if (claim != NULL && whole_number(claim, end) > 0)
		t->expires_ms = whole_number(claim, end) * 1000;
	take_principal(t, find_claim(p, end, "sub"), end);
}

static bool is_token(const char *s)
{
	for (; *s != '\0'; s++)
		if (!isalnum((unsigned char)*s) && strchr("-._~+/=", *s) == NULL)
			return false;
	return true;
}

int kafka_token_read(const char *path, struct kafka_token *t, struct err *err)
{
	FILE *f = fopen(path, "re");
	size_t n, start = 0;

	if (f == NULL)
		return err_errno(err, "token file %s", path);
	n = fread(t->text, 1, sizeof(t->text), f);
	fclose(f);
	if (n == sizeof(t->text))
		return err_set(err, ERR_INVALID, "token file %s: longer than %d bytes", path,
			       KAFKA_TOKEN_MAX);
	while (n > 0 && isspace((unsigned char)t->text[n - 1]))
		n--;
	while (start < n && isspace((unsigned char)t->text[start]))
		start++;
	n -= start;
	memmove(t->text, t->text + start, n);
	t->text[n] = '\0';
	if (n == 0 || strlen(t->text) != n || !is_token(t->text))
		return err_set(err, ERR_INVALID, "token file %s: holds no token", path);
	kafka_token_claims(t, clock_wall_ns());
	return 0;
}
