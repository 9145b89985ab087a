/* SPDX-License-Identifier: Apache-2.0
 *
 * lexer.c - see lexer.h.
 */
#include "pipeline/ottl/lexer.h"

#include "base/str.h"

static bool is_digit(uint8_t c)
{
	return c >= '0' && c <= '9';
}

static bool is_name(uint8_t c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

static void skip(struct ottl_lexer *l, size_t n)
{
	l->rest.p += n;
	l->rest.n -= n;
}

/* Take n bytes as the token's text. */
static void take(struct ottl_lexer *l, struct ottl_token *t, enum ottl_token_kind kind, size_t n)
{
	t->kind = kind;
	t->text = (struct bytes){ l->rest.p, n };
	skip(l, n);
}

static int unescape(uint8_t c)
{
	switch (c) {
	case 'n':
		return '\n';
	case 't':
		return '\t';
	case 'r':
		return '\r';
	case '"':
	case '\\':
		return c;
	default:
		return -1;
	}
}

/* "..." with \" \\ \n \t \r; any other \x stays as it is, which patterns like. */
static int read_string(struct ottl_lexer *l, struct ottl_token *t, struct err *err)
{
	uint8_t *to = arena_alloc(l->arena, l->rest.n);
	size_t n = 0, i = 1;

	for (; i < l->rest.n && l->rest.p[i] != '"'; i++) {
		uint8_t c = l->rest.p[i];
		int e = c == '\\' && i + 1 < l->rest.n ? unescape(l->rest.p[i + 1]) : -1;

		if (e >= 0) {
			c = (uint8_t)e;
			i++;
		}
		to[n++] = c;
	}
	if (i == l->rest.n)
		return err_set(err, ERR_CONFIG, "character %zu: a string without its end", t->at);
	t->kind = TOKEN_STRING;
	t->text = (struct bytes){ to, n };
	skip(l, i + 1);
	return 0;
}

static int read_bytes(struct ottl_lexer *l, struct ottl_token *t, struct err *err)
{
	size_t n = 2;
	uint8_t *to;

	while (n < l->rest.n && (is_digit(l->rest.p[n]) || is_name(l->rest.p[n])))
		n++;
	to = arena_alloc(l->arena, n / 2);
	if (n % 2 != 0 || n == 2 ||
	    str_unhex((struct bytes){ l->rest.p + 2, n - 2 }, to, n / 2 - 1) < 0)
		return err_set(err, ERR_CONFIG,
			       "character %zu: bytes are 0x and pairs of hex digits", t->at);
	t->kind = TOKEN_BYTES;
	t->text = (struct bytes){ to, n / 2 - 1 };
	skip(l, n);
	return 0;
}

static int read_number(struct ottl_lexer *l, struct ottl_token *t, struct err *err)
{
	size_t n = 0;
	bool is_float = false;

	for (; n < l->rest.n; n++) {
		uint8_t c = l->rest.p[n];
		bool sign = (c == '+' || c == '-') && n > 0 && (l->rest.p[n - 1] | 0x20) == 'e';

		if (c == '.' || (c | 0x20) == 'e')
			is_float = true;
		else if (!is_digit(c) && !sign)
			break;
	}
	take(l, t, is_float ? TOKEN_FLOAT : TOKEN_INT, n);
	if (is_float ? str_to_double(t->text, &t->d) < 0 : str_to_i64(t->text, &t->i) < 0)
		return err_set(err, ERR_CONFIG, "character %zu: \"%.*s\" is no number", t->at,
			       (int)MIN(n, 40), (const char *)t->text.p);
	return 0;
}

static int read_mark(struct ottl_lexer *l, struct ottl_token *t, struct err *err)
{
	static const char *const marks[] = { "==", "!=", "<=", ">=", "<", ">", "(", ")",
					     "[",  "]",  ",",  ".",  "+", "-", "*", "/" };

	for (size_t i = 0; i < COUNT_OF(marks); i++) {
		size_t n = strlen(marks[i]);

		if (l->rest.n >= n && memcmp(l->rest.p, marks[i], n) == 0) {
			take(l, t, TOKEN_MARK, n);
			return 0;
		}
	}
	return err_set(err, ERR_CONFIG, "character %zu: unexpected \"%c\"", t->at,
		       l->rest.p[0] >= 0x20 && l->rest.p[0] < 0x7f ? l->rest.p[0] : '?');
}

int ottl_lexer_next(struct ottl_lexer *l, struct ottl_token *t, struct err *err)
{
	size_t n = 0;

	while (l->rest.n > 0 && strchr(" \t\r\n", l->rest.p[0]) != NULL && l->rest.p[0] != '\0')
		skip(l, 1);
	*t = (struct ottl_token){ .kind = TOKEN_END, .at = (size_t)(l->rest.p - l->start) + 1 };
	if (l->rest.n == 0)
		return 0;
	if (l->rest.p[0] == '"')
		return read_string(l, t, err);
	if (l->rest.n > 1 && l->rest.p[0] == '0' && (l->rest.p[1] | 0x20) == 'x')
		return read_bytes(l, t, err);
	if (is_digit(l->rest.p[0]))
		return read_number(l, t, err);
	if (!is_name(l->rest.p[0]))
		return read_mark(l, t, err);
	while (n < l->rest.n && (is_name(l->rest.p[n]) || is_digit(l->rest.p[n])))
		n++;
	take(l, t, TOKEN_NAME, n);
	return 0;
}
