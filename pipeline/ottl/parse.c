/* SPDX-License-Identifier: Apache-2.0
 *
 * parse.c - text to tree, by descent: or < and < not < comparison < sum < product < value.
 * Contract in ottl.h.
 */
#include "base/mem.h"
#include "pipeline/ottl/lexer.h"
#include "pipeline/ottl/private.h"

#include <stdarg.h>
#include <stdio.h>

struct parse {
	struct ottl_condition *c;
	enum ottl_context context; /* of paths without a prefix; OTTL_CONTEXT_MAX: they need one */
	struct ottl_lexer lexer;
	struct ottl_token t; /* the next one */
	unsigned depth;
	struct err *err;
};

static struct ottl_node *parse_or(struct parse *p);

static struct ottl_node *fail(struct parse *p, size_t at, const char *fmt, ...) PRINTF_LIKE(3, 4);

static struct ottl_node *fail(struct parse *p, size_t at, const char *fmt, ...)
{
	char text[400];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	err_set(p->err, ERR_CONFIG, "character %zu: %s", at, text);
	return NULL;
}

static int advance(struct parse *p)
{
	return ottl_lexer_next(&p->lexer, &p->t, p->err);
}

static bool is_mark(const struct parse *p, const char *mark)
{
	return p->t.kind == TOKEN_MARK && bytes_eq_str(p->t.text, mark);
}

static bool is_word(const struct parse *p, const char *word)
{
	return p->t.kind == TOKEN_NAME && bytes_eq_str(p->t.text, word);
}

static int expect(struct parse *p, const char *mark)
{
	if (is_mark(p, mark))
		return advance(p);
	fail(p, p->t.at, "expected \"%s\"", mark);
	return -1;
}

static struct ottl_node *new_node(struct parse *p, enum ottl_op op)
{
	struct ottl_node *n = arena_zalloc(&p->c->arena, sizeof(*n));

	n->op = op;
	return n;
}

/* ---- literals ---- */

static struct ottl_node *literal(struct parse *p, struct ottl_value v)
{
	struct ottl_node *n = new_node(p, OP_LITERAL);

	n->value = v;
	return advance(p) < 0 ? NULL : n;
}

static bool find_enum(struct bytes name, int64_t *out)
{
	static const struct {
		const char *name;
		int64_t value;
	} enums[] = {
		{ "SPAN_KIND_UNSPECIFIED", 0 }, { "SPAN_KIND_INTERNAL", 1 },
		{ "SPAN_KIND_SERVER", 2 },      { "SPAN_KIND_CLIENT", 3 },
		{ "SPAN_KIND_PRODUCER", 4 },    { "SPAN_KIND_CONSUMER", 5 },
		{ "STATUS_CODE_UNSET", 0 },     { "STATUS_CODE_OK", 1 },
		{ "STATUS_CODE_ERROR", 2 },
	};

	for (size_t i = 0; i < COUNT_OF(enums); i++)
		if (bytes_eq_str(name, enums[i].name)) {
			*out = enums[i].value;
			return true;
		}
	return false;
}

/* -5: a sign belongs to the number behind it. */
static struct ottl_node *negative(struct parse *p)
{
	struct ottl_value v = { .kind = OTTL_INT, .s = BYTES_EMPTY };

	if (advance(p) < 0)
		return NULL;
	if (p->t.kind == TOKEN_INT) {
		v.i = -p->t.i;
	} else if (p->t.kind == TOKEN_FLOAT) {
		v.kind = OTTL_DOUBLE;
		v.d = -p->t.d;
	} else {
		return fail(p, p->t.at, "expected a number behind \"-\"");
	}
	return literal(p, v);
}

/* ---- paths ---- */

static const struct {
	const char *name;
	enum ottl_context context;
} prefixes[] = {
	{ "resource", OTTL_RESOURCE },           { "scope", OTTL_SCOPE },
	{ "instrumentation_scope", OTTL_SCOPE }, { "span", OTTL_SPAN },
	{ "spanevent", OTTL_SPAN_EVENT },
};

static bool find_prefix(struct bytes word, enum ottl_context *context)
{
	for (size_t i = 0; i < COUNT_OF(prefixes); i++)
		if (bytes_eq_str(word, prefixes[i].name)) {
			*context = prefixes[i].context;
			return true;
		}
	return false;
}

/* ["key"] or [0], as often as they come. */
static int parse_keys(struct parse *p, struct ottl_node *n)
{
	n->keys = arena_zalloc(&p->c->arena, OTTL_KEYS_MAX * sizeof(*n->keys));
	while (is_mark(p, "[")) {
		struct ottl_key *key = &n->keys[n->n_keys];

		if (n->n_keys++ == OTTL_KEYS_MAX - 1) {
			fail(p, p->t.at, "more than %d keys", OTTL_KEYS_MAX - 1);
			return -1;
		}
		if (advance(p) < 0)
			return -1;
		if (p->t.kind != TOKEN_STRING && p->t.kind != TOKEN_INT) {
			fail(p, p->t.at, "expected a key: [\"name\"] or [0]");
			return -1;
		}
		key->is_index = p->t.kind == TOKEN_INT;
		key->index = (uint64_t)p->t.i;
		key->name = p->t.text;
		if (advance(p) < 0 || expect(p, "]") < 0)
			return -1;
	}
	return 0;
}

/* name.name.name as one text in `out`, which has room for `size`. */
static int join_names(struct parse *p, char *out, size_t size)
{
	size_t n = strlen(out);

	for (;;) {
		if (p->t.kind != TOKEN_NAME || n + p->t.text.n + 2 > size) {
			fail(p, p->t.at, "expected a name");
			return -1;
		}
		memcpy(out + n, p->t.text.p, p->t.text.n);
		n += p->t.text.n;
		out[n] = '\0';
		if (advance(p) < 0)
			return -1;
		if (!is_mark(p, "."))
			return 0;
		out[n++] = '.';
		if (advance(p) < 0)
			return -1;
	}
}

static const char *context_name(enum ottl_context context)
{
	static const char *const names[] = { "resource", "scope", "span", "spanevent" };

	return names[context];
}

/* Which context a path is of, and its name in there. */
static int resolve(struct parse *p, size_t at, const char *path, struct ottl_node *n,
		   const char **name)
{
	const char *dot = strchr(path, '.');
	struct bytes first = { (const uint8_t *)path, dot ? (size_t)(dot - path) : strlen(path) };

	*name = path;
	n->context = p->context;
	if (dot != NULL && find_prefix(first, &n->context)) {
		*name = dot + 1;
	} else if (p->context == OTTL_CONTEXT_MAX) {
		fail(p, at,
		     "\"%.60s\" does not say of what: write span.%.60s, or resource., scope. "
		     "or spanevent. in front",
		     path, path);
		return -1;
	}
	if (p->context != OTTL_CONTEXT_MAX && n->context > p->context) {
		fail(p, at, "\"%.60s\": there is no %s in a condition on a %s", path,
		     context_name(n->context), context_name(p->context));
		return -1;
	}
	if (p->c->context == OTTL_CONTEXT_MAX || n->context > p->c->context)
		p->c->context = n->context;
	return 0;
}

static struct ottl_node *parse_path(struct parse *p, size_t at, char *path)
{
	struct ottl_node *n = new_node(p, OP_PATH);
	bool takes_keys = false;
	const char *name;

	if (resolve(p, at, path, n, &name) < 0)
		return NULL;
	n->field = ottl_path_field(n->context, bytes_str(name), &takes_keys);
	if (n->field == OTTL_FIELD_NONE)
		return fail(p, at, "a %s has no \"%.60s\": did you mean \"%s\"?",
			    context_name(n->context), name, ottl_path_nearest(n->context, name));
	at = p->t.at;
	if (parse_keys(p, n) < 0)
		return NULL;
	if (n->n_keys > 0 && !takes_keys)
		return fail(p, at, "\"%.60s\" takes no key", path);
	if (n->field == OTTL_ATTRIBUTES && (n->n_keys == 0 || n->keys[0].is_index))
		return fail(p, at, "attributes need a key: attributes[\"name\"]");
	return n;
}

/* ---- functions ---- */

static int parse_arguments(struct parse *p, struct ottl_node *n)
{
	while (!is_mark(p, ")")) {
		if (n->n_args > 0 && expect(p, ",") < 0)
			return -1;
		if (n->n_args == OTTL_ARGS_MAX) {
			fail(p, p->t.at, "too many arguments");
			return -1;
		}
		n->args[n->n_args] = parse_or(p);
		if (n->args[n->n_args++] == NULL)
			return -1;
	}
	return advance(p);
}

static int compile_pattern(struct parse *p, size_t at, struct ottl_node *n)
{
	const struct ottl_node *literal = n->args[1];
	struct err err = ERR_INIT;
	char *pattern;

	if (literal->op != OP_LITERAL || literal->value.kind != OTTL_STRING) {
		fail(p, at, "the pattern of %s must be a string", n->function->name);
		return -1;
	}
	pattern = arena_strndup(&p->c->arena, (const char *)literal->value.s.p, literal->value.s.n);
	n->pattern = regex_new(pattern, &err);
	if (n->pattern == NULL) {
		fail(p, at, "pattern \"%.100s\": %s", pattern, err.msg);
		return -1;
	}
	p->c->patterns = xgrow(p->c->patterns, &p->c->patterns_cap, p->c->n_patterns + 1,
			       sizeof(struct regex *));
	p->c->patterns[p->c->n_patterns++] = n->pattern;
	return 0;
}

/* The parenthesis is the next token. */
static struct ottl_node *parse_call(struct parse *p, size_t at, const char *name)
{
	struct ottl_node *n = new_node(p, OP_CALL);

	n->function = ottl_function_find(bytes_str(name));
	if (n->function == NULL)
		return fail(p, at, "there is no function \"%.60s\": did you mean \"%s\"?", name,
			    ottl_function_nearest(name));
	if (advance(p) < 0 || parse_arguments(p, n) < 0)
		return NULL;
	if (n->n_args < n->function->min_args || n->n_args > n->function->max_args)
		return fail(p, at, "%s takes %u argument%s, not %u", name, n->function->min_args,
			    n->function->min_args == 1 ? "" : "s", n->n_args);
	if (n->function->wants_pattern && compile_pattern(p, at, n) < 0)
		return NULL;
	return n;
}

/* ---- values and operators ---- */

static struct ottl_node *parse_word(struct parse *p)
{
	struct ottl_value v = { .kind = OTTL_NIL, .s = BYTES_EMPTY };
	size_t at = p->t.at;
	char path[160] = "";

	if (is_word(p, "true") || is_word(p, "false")) {
		v.kind = OTTL_BOOL;
		v.b = is_word(p, "true");
		return literal(p, v);
	}
	if (is_word(p, "nil"))
		return literal(p, v);
	if (find_enum(p->t.text, &v.i)) {
		v.kind = OTTL_INT;
		return literal(p, v);
	}
	if (join_names(p, path, sizeof(path)) < 0)
		return NULL;
	return is_mark(p, "(") ? parse_call(p, at, path) : parse_path(p, at, path);
}

static struct ottl_node *parse_value(struct parse *p)
{
	struct ottl_value v = { .kind = OTTL_NIL, .s = p->t.text };
	struct ottl_node *n;

	switch (p->t.kind) {
	case TOKEN_STRING:
	case TOKEN_BYTES:
		v.kind = p->t.kind == TOKEN_STRING ? OTTL_STRING : OTTL_BYTES;
		return literal(p, v);
	case TOKEN_INT:
		v.kind = OTTL_INT;
		v.i = p->t.i;
		return literal(p, v);
	case TOKEN_FLOAT:
		v.kind = OTTL_DOUBLE;
		v.d = p->t.d;
		return literal(p, v);
	case TOKEN_NAME:
		return parse_word(p);
	case TOKEN_END:
		return fail(p, p->t.at, "the condition ends here, expected a value");
	default:
		break;
	}
	if (is_mark(p, "-"))
		return negative(p);
	if (!is_mark(p, "("))
		return fail(p, p->t.at, "unexpected \"%.*s\"", (int)p->t.text.n,
			    (const char *)p->t.text.p);
	if (advance(p) < 0)
		return NULL;
	n = parse_or(p);
	return n != NULL && expect(p, ")") == 0 ? n : NULL;
}

static struct ottl_node *binary(struct parse *p, enum ottl_op op, struct ottl_node *a,
				struct ottl_node *b)
{
	struct ottl_node *n = new_node(p, op);

	n->args[0] = a;
	n->args[1] = b;
	n->n_args = 2;
	return b != NULL ? n : NULL;
}

/* Left to right: a - b - c is (a - b) - c. Long chains are deep, so they count as depth. */
static struct ottl_node *parse_chain(struct parse *p, struct ottl_node *(*operand)(struct parse *),
				     bool (*operator)(const struct parse *, enum ottl_op *))
{
	struct ottl_node *n = operand(p);
	unsigned depth = p->depth;
	enum ottl_op op;

	while (n != NULL && operator(p, &op)) {
		if (++p->depth > OTTL_DEPTH_MAX)
			return fail(p, p->t.at, "more than %d levels", OTTL_DEPTH_MAX);
		n = advance(p) < 0 ? NULL : binary(p, op, n, operand(p));
	}
	p->depth = depth;
	return n;
}

static bool is_product(const struct parse *p, enum ottl_op *op)
{
	*op = is_mark(p, "*") ? OP_MUL : OP_DIV;
	return is_mark(p, "*") || is_mark(p, "/");
}

static bool is_sum(const struct parse *p, enum ottl_op *op)
{
	*op = is_mark(p, "+") ? OP_ADD : OP_SUB;
	return is_mark(p, "+") || is_mark(p, "-");
}

static bool is_and(const struct parse *p, enum ottl_op *op)
{
	*op = OP_AND;
	return is_word(p, "and");
}

static bool is_or(const struct parse *p, enum ottl_op *op)
{
	*op = OP_OR;
	return is_word(p, "or");
}

static struct ottl_node *parse_product(struct parse *p)
{
	return parse_chain(p, parse_value, is_product);
}

static struct ottl_node *parse_sum(struct parse *p)
{
	return parse_chain(p, parse_product, is_sum);
}

static struct ottl_node *parse_comparison(struct parse *p)
{
	static const struct {
		const char *mark;
		enum ottl_op op;
	} ops[] = { { "==", OP_EQ }, { "!=", OP_NE }, { "<=", OP_LE },
		    { ">=", OP_GE }, { "<", OP_LT },  { ">", OP_GT } };
	struct ottl_node *n = parse_sum(p);

	for (size_t i = 0; n != NULL && i < COUNT_OF(ops); i++)
		if (is_mark(p, ops[i].mark))
			return advance(p) < 0 ? NULL : binary(p, ops[i].op, n, parse_sum(p));
	return n;
}

static struct ottl_node *parse_not(struct parse *p)
{
	struct ottl_node *n;

	if (!is_word(p, "not"))
		return parse_comparison(p);
	if (++p->depth > OTTL_DEPTH_MAX)
		return fail(p, p->t.at, "more than %d levels", OTTL_DEPTH_MAX);
	n = new_node(p, OP_NOT);
	n->n_args = 1;
	n->args[0] = advance(p) < 0 ? NULL : parse_not(p);
	p->depth--;
	return n->args[0] != NULL ? n : NULL;
}

static struct ottl_node *parse_and(struct parse *p)
{
	return parse_chain(p, parse_not, is_and);
}

static struct ottl_node *parse_or(struct parse *p)
{
	struct ottl_node *n;

	if (++p->depth > OTTL_DEPTH_MAX)
		return fail(p, p->t.at, "more than %d levels", OTTL_DEPTH_MAX);
	n = parse_chain(p, parse_and, is_or);
	p->depth--;
	return n;
}

struct ottl_condition *ottl_condition_new(const char *text, enum ottl_context context,
					  struct err *err)
{
	struct parse p = { .context = context, .err = err };

	if (strlen(text) > OTTL_TEXT_MAX) {
		err_set(err, ERR_CONFIG, "more than %d characters", OTTL_TEXT_MAX);
		return NULL;
	}
	p.c = xcalloc(1, sizeof(*p.c));
	p.c->context = context;
	text = arena_strdup(&p.c->arena, text);
	p.lexer = (struct ottl_lexer){ bytes_str(text), (const uint8_t *)text, &p.c->arena };
	if (advance(&p) == 0)
		p.c->root = parse_or(&p);
	if (p.c->root != NULL && p.t.kind != TOKEN_END)
		p.c->root = fail(&p, p.t.at, "unexpected \"%.*s\" behind the condition",
				 (int)MIN(p.t.text.n, 40), (const char *)p.t.text.p);
	if (p.c->root != NULL)
		return p.c;
	ottl_condition_free(p.c);
	return NULL;
}

void ottl_condition_free(struct ottl_condition *c)
{
	if (c == NULL)
		return;
	for (size_t i = 0; i < c->n_patterns; i++)
		regex_free(c->patterns[i]);
	free(c->patterns);
	arena_fini(&c->arena);
	free(c);
}

enum ottl_context ottl_condition_context(const struct ottl_condition *c)
{
	return c->context == OTTL_CONTEXT_MAX ? OTTL_SPAN : c->context;
}
