/* SPDX-License-Identifier: Apache-2.0
 *
 * eval.c - says whether a condition holds: comparing, arithmetic, and the functions. Contract
 * in ottl.h.
 */
#include "base/str.h"
#include "pipeline/conf/scalar.h"
#include "pipeline/ottl/private.h"
#include "wire/pb.h"

#include <math.h>

struct eval {
	const struct ottl_subject *subject;
	struct arena scratch;
	struct err *err;
};

static const char *kind_name(enum ottl_kind kind)
{
	static const char *const names[] = { "nil",      "a boolean", "an integer", "a float",
					     "a string", "bytes",     "a list",     "a map" };

	return names[kind];
}

static void set_bool(struct ottl_value *out, bool v)
{
	*out = (struct ottl_value){ .kind = OTTL_BOOL, .s = BYTES_EMPTY };
	out->b = v;
}

static bool is_number(const struct ottl_value *v)
{
	return v->kind == OTTL_INT || v->kind == OTTL_DOUBLE;
}

static double as_double(const struct ottl_value *v)
{
	return v->kind == OTTL_INT ? (double)v->i : v->d;
}

/* Text for functions that take text of any scalar: false: it has none. */
static bool text_of(const struct ottl_value *v, struct arena *scratch, struct bytes *out)
{
	struct any_value any = { .kind = ANY_EMPTY, .s = v->s };
	struct buf text = BUF_INIT;

	*out = v->s;
	if (v->kind == OTTL_STRING)
		return true;
	if (v->kind == OTTL_NIL)
		return false;
	any.kind = v->kind == OTTL_BOOL     ? ANY_BOOL
		   : v->kind == OTTL_INT    ? ANY_INT
		   : v->kind == OTTL_DOUBLE ? ANY_DOUBLE
		   : v->kind == OTTL_LIST   ? ANY_ARRAY
		   : v->kind == OTTL_MAP    ? ANY_KVLIST
					    : ANY_BYTES;
	if (v->kind == OTTL_BOOL)
		any.b = v->b;
	else if (v->kind == OTTL_INT)
		any.i = v->i;
	else if (v->kind == OTTL_DOUBLE)
		any.d = v->d;
	any_value_text(&any, &text);
	*out = (struct bytes){ arena_dup(scratch, text.p, text.n), text.n };
	buf_fini(&text);
	return true;
}

/* ---- functions ---- */

static int wrong_kind(const struct ottl_call *c, unsigned i, const char *want)
{
	return err_set(c->err, ERR_INVALID, "%s: argument %u is %s, not %s",
		       c->node->function->name, i + 1, kind_name(c->args[i].kind), want);
}

static int fn_is_match(const struct ottl_call *c, struct ottl_value *out)
{
	struct bytes text;

	set_bool(out,
		 text_of(&c->args[0], c->scratch, &text) && regex_matches(c->node->pattern, text));
	return 0;
}

static int fn_has_prefix(const struct ottl_call *c, struct ottl_value *out)
{
	const struct bytes s = c->args[0].s, p = c->args[1].s;

	for (unsigned i = 0; i < 2; i++)
		if (c->args[i].kind != OTTL_STRING)
			return wrong_kind(c, i, "a string");
	set_bool(out, s.n >= p.n && (p.n == 0 || memcmp(s.p, p.p, p.n) == 0));
	return 0;
}

static int fn_has_suffix(const struct ottl_call *c, struct ottl_value *out)
{
	const struct bytes s = c->args[0].s, p = c->args[1].s;

	for (unsigned i = 0; i < 2; i++)
		if (c->args[i].kind != OTTL_STRING)
			return wrong_kind(c, i, "a string");
	set_bool(out, s.n >= p.n && (p.n == 0 || memcmp(s.p + s.n - p.n, p.p, p.n) == 0));
	return 0;
}

/* Bytes of a string, elements of a list or a map. */
static int fn_len(const struct ottl_call *c, struct ottl_value *out)
{
	const struct ottl_value *v = &c->args[0];
	struct bytes rest = v->s;
	struct pb_field f = { 0 };
	int64_t n = 0;

	if (v->kind == OTTL_STRING || v->kind == OTTL_BYTES) {
		n = (int64_t)v->s.n;
	} else if (v->kind == OTTL_LIST || v->kind == OTTL_MAP) {
		while (pb_next(&rest, &f) > 0)
			n += f.number == 1;
	} else {
		return wrong_kind(c, 0, "a string, a list or a map");
	}
	*out = (struct ottl_value){ .kind = OTTL_INT, .s = BYTES_EMPTY };
	out->i = n;
	return 0;
}

/* What cannot be converted is nil, as in the Collector. */
static int fn_int(const struct ottl_call *c, struct ottl_value *out)
{
	const struct ottl_value *v = &c->args[0];
	int64_t i = 0;
	bool ok = true;

	if (v->kind == OTTL_INT)
		i = v->i;
	else if (v->kind == OTTL_DOUBLE && any_value_fits_int64(v->d))
		i = (int64_t)v->d;
	else if (v->kind == OTTL_BOOL)
		i = v->b;
	else
		ok = v->kind == OTTL_STRING && str_to_i64(v->s, &i) == 0;
	*out = (struct ottl_value){ .kind = ok ? OTTL_INT : OTTL_NIL, .s = BYTES_EMPTY };
	out->i = i;
	return 0;
}

static int fn_double(const struct ottl_call *c, struct ottl_value *out)
{
	const struct ottl_value *v = &c->args[0];
	double d = 0;
	bool ok = true;

	if (is_number(v))
		d = as_double(v);
	else if (v->kind == OTTL_BOOL)
		d = v->b;
	else
		ok = v->kind == OTTL_STRING && str_to_double(v->s, &d) == 0;
	*out = (struct ottl_value){ .kind = ok ? OTTL_DOUBLE : OTTL_NIL, .s = BYTES_EMPTY };
	out->d = d;
	return 0;
}

static int fn_string(const struct ottl_call *c, struct ottl_value *out)
{
	struct bytes text;
	bool ok = text_of(&c->args[0], c->scratch, &text);

	*out = (struct ottl_value){ .kind = ok ? OTTL_STRING : OTTL_NIL, .s = text };
	return 0;
}

static int fn_bool(const struct ottl_call *c, struct ottl_value *out)
{
	const struct ottl_value *v = &c->args[0];

	if (v->kind == OTTL_BOOL)
		set_bool(out, v->b);
	else if (is_number(v))
		set_bool(out, as_double(v) != 0);
	else if (v->kind == OTTL_STRING && (str_eq_nocase(v->s, "true") || bytes_eq_str(v->s, "1")))
		set_bool(out, true);
	else if (v->kind == OTTL_STRING &&
		 (str_eq_nocase(v->s, "false") || bytes_eq_str(v->s, "0")))
		set_bool(out, false);
	else
		*out = (struct ottl_value){ .kind = OTTL_NIL, .s = BYTES_EMPTY };
	return 0;
}

#define IS_KIND(name, wanted)                                                                      \
	static int name(const struct ottl_call *c, struct ottl_value *out)                         \
	{                                                                                          \
		set_bool(out, c->args[0].kind == (wanted));                                        \
		return 0;                                                                          \
	}
IS_KIND(fn_is_string, OTTL_STRING)
IS_KIND(fn_is_int, OTTL_INT)
IS_KIND(fn_is_double, OTTL_DOUBLE)
IS_KIND(fn_is_bool, OTTL_BOOL)
IS_KIND(fn_is_map, OTTL_MAP)
IS_KIND(fn_is_list, OTTL_LIST)
#undef IS_KIND

static int fn_is_root_span(const struct ottl_call *c, struct ottl_value *out)
{
	static const uint8_t none[8];

	set_bool(out, c->subject->span != NULL &&
			      memcmp(c->subject->span->parent_id, none, sizeof(none)) == 0);
	return 0;
}

static int change_case(const struct ottl_call *c, uint8_t first, uint8_t last,
		       struct ottl_value *out)
{
	const struct bytes s = c->args[0].s;
	uint8_t *to;

	if (c->args[0].kind != OTTL_STRING)
		return wrong_kind(c, 0, "a string");
	to = arena_dup(c->scratch, s.p, s.n);
	for (size_t i = 0; i < s.n; i++)
		if (to[i] >= first && to[i] <= last)
			to[i] ^= 0x20;
	*out = (struct ottl_value){ .kind = OTTL_STRING, .s = { to, s.n } };
	return 0;
}

static int fn_to_lower(const struct ottl_call *c, struct ottl_value *out)
{
	return change_case(c, 'A', 'Z', out);
}

static int fn_to_upper(const struct ottl_call *c, struct ottl_value *out)
{
	return change_case(c, 'a', 'z', out);
}

static int fn_duration(const struct ottl_call *c, struct ottl_value *out)
{
	char text[64], why[128];
	int64_t ns = 0;

	if (c->args[0].kind != OTTL_STRING || c->args[0].s.n >= sizeof(text))
		return wrong_kind(c, 0, "a duration such as \"1.5s\"");
	memcpy(text, c->args[0].s.p, c->args[0].s.n);
	text[c->args[0].s.n] = '\0';
	if (conf_scalar_duration(text, &ns, why, sizeof(why)) < 0)
		return err_set(c->err, ERR_INVALID, "Duration: %s", why);
	*out = (struct ottl_value){ .kind = OTTL_INT, .s = BYTES_EMPTY };
	out->i = ns;
	return 0;
}

/* An id of bytes or of hex. */
static int make_id(const struct ottl_call *c, size_t n, struct ottl_value *out)
{
	const struct ottl_value *v = &c->args[0];
	uint8_t *id = arena_alloc(c->scratch, n);

	if (v->kind == OTTL_BYTES && v->s.n == n)
		memcpy(id, v->s.p, n);
	else if (v->kind != OTTL_STRING || str_unhex(v->s, id, n) < 0)
		return wrong_kind(c, 0, n == 16 ? "32 hex digits" : "16 hex digits");
	*out = (struct ottl_value){ .kind = OTTL_BYTES, .s = { id, n } };
	return 0;
}

static int fn_trace_id(const struct ottl_call *c, struct ottl_value *out)
{
	return make_id(c, 16, out);
}

static int fn_span_id(const struct ottl_call *c, struct ottl_value *out)
{
	return make_id(c, 8, out);
}

static const struct ottl_function functions[] = {
	{ "IsMatch", 2, 2, true, fn_is_match },
	{ "HasPrefix", 2, 2, false, fn_has_prefix },
	{ "HasSuffix", 2, 2, false, fn_has_suffix },
	{ "Len", 1, 1, false, fn_len },
	{ "Int", 1, 1, false, fn_int },
	{ "Double", 1, 1, false, fn_double },
	{ "String", 1, 1, false, fn_string },
	{ "Bool", 1, 1, false, fn_bool },
	{ "IsString", 1, 1, false, fn_is_string },
	{ "IsInt", 1, 1, false, fn_is_int },
	{ "IsDouble", 1, 1, false, fn_is_double },
	{ "IsBool", 1, 1, false, fn_is_bool },
	{ "IsMap", 1, 1, false, fn_is_map },
	{ "IsList", 1, 1, false, fn_is_list },
	{ "IsRootSpan", 0, 0, false, fn_is_root_span },
	{ "ToLowerCase", 1, 1, false, fn_to_lower },
	{ "ToUpperCase", 1, 1, false, fn_to_upper },
	{ "Duration", 1, 1, false, fn_duration },
	{ "TraceID", 1, 1, false, fn_trace_id },
	{ "SpanID", 1, 1, false, fn_span_id },
};

const struct ottl_function *ottl_function_find(struct bytes name)
{
	for (size_t i = 0; i < COUNT_OF(functions); i++)
		if (bytes_eq_str(name, functions[i].name))
			return &functions[i];
	return NULL;
}

const char *ottl_function_nearest(const char *name)
{
	const struct ottl_function *best = functions;

	for (size_t i = 0; i < COUNT_OF(functions); i++)
		if (str_distance(functions[i].name, name) < str_distance(best->name, name))
			best = &functions[i];
	return best->name;
}

/* ---- operators ---- */

static int evaluate(struct eval *e, const struct ottl_node *n, struct ottl_value *out);

static int order_of_bytes(struct bytes a, struct bytes b)
{
	size_t n = MIN(a.n, b.n);
	int order = n > 0 ? memcmp(a.p, b.p, n) : 0;

	return order != 0 ? order : (a.n > b.n) - (a.n < b.n);
}

/* -1, 0, 1; 2: they do not compare, and are only unequal. */
static int compare(const struct ottl_value *a, const struct ottl_value *b)
{
	if (is_number(a) && is_number(b)) {
		double x = as_double(a), y = as_double(b);

		if (a->kind == OTTL_INT && b->kind == OTTL_INT)
			return (a->i > b->i) - (a->i < b->i);
		return isnan(x) || isnan(y) ? 2 : (x > y) - (x < y);
	}
	if (a->kind != b->kind)
		return 2;
	switch (a->kind) {
	case OTTL_NIL:
		return 0;
	case OTTL_BOOL:
		return a->b - b->b;
	case OTTL_STRING:
	case OTTL_BYTES:
		return order_of_bytes(a->s, b->s);
	default:
		return bytes_eq(a->s, b->s) ? 0 : 2;
	}
}

static bool holds(enum ottl_op op, int order)
{
	if (order == 2)
		return op == OP_NE;
	switch (op) {
	case OP_EQ:
		return order == 0;
	case OP_NE:
		return order != 0;
	case OP_LT:
		return order < 0;
	case OP_LE:
		return order <= 0;
	case OP_GT:
		return order > 0;
	default:
		return order >= 0;
	}
}

static int integers(enum ottl_op op, int64_t a, int64_t b, struct ottl_value *out, struct err *err)
{
	bool overflow = false;

	*out = (struct ottl_value){ .kind = OTTL_INT, .s = BYTES_EMPTY };
	out->i = 0;
	if (op == OP_ADD)
		overflow = __builtin_add_overflow(a, b, &out->i);
	else if (op == OP_SUB)
		overflow = __builtin_sub_overflow(a, b, &out->i);
	else if (op == OP_MUL)
		overflow = __builtin_mul_overflow(a, b, &out->i);
	else if (b == 0)
		return err_set(err, ERR_INVALID, "division by zero");
	else if (b == -1)
		overflow = __builtin_sub_overflow(0, a, &out->i);
	else
		out->i = a / b;
	return overflow ? err_set(err, ERR_INVALID, "a number is too large") : 0;
}

static int arithmetic(struct eval *e, enum ottl_op op, const struct ottl_value *a,
		      const struct ottl_value *b, struct ottl_value *out)
{
	double x, y;

	if (!is_number(a) || !is_number(b))
		return err_set(e->err, ERR_INVALID, "%s and %s: arithmetic is for numbers",
			       kind_name(a->kind), kind_name(b->kind));
	if (a->kind == OTTL_INT && b->kind == OTTL_INT)
		return integers(op, a->i, b->i, out, e->err);
	x = as_double(a);
	y = as_double(b);
	*out = (struct ottl_value){ .kind = OTTL_DOUBLE, .s = BYTES_EMPTY };
	out->d = op == OP_ADD ? x + y : op == OP_SUB ? x - y : op == OP_MUL ? x * y : x / y;
	return 0;
}

static int evaluate_call(struct eval *e, const struct ottl_node *n, struct ottl_value *out)
{
	struct ottl_value args[OTTL_ARGS_MAX];
	struct ottl_call call = { n, e->subject, args, &e->scratch, e->err };

	for (unsigned i = 0; i < n->n_args; i++)
		if (evaluate(e, n->args[i], &args[i]) < 0)
			return -1;
	return n->function->fn(&call, out);
}

/* A value that must be true or false. */
static int evaluate_bool(struct eval *e, const struct ottl_node *n, bool *out)
{
	struct ottl_value v;

	if (evaluate(e, n, &v) < 0)
		return -1;
	if (v.kind != OTTL_BOOL)
		return err_set(e->err, ERR_INVALID, "%s is neither true nor false",
			       kind_name(v.kind));
	*out = v.b;
	return 0;
}

static int evaluate_logic(struct eval *e, const struct ottl_node *n, struct ottl_value *out)
{
	bool a, b = false;

	if (evaluate_bool(e, n->args[0], &a) < 0)
		return -1;
	if (n->op == OP_NOT) {
		set_bool(out, !a);
		return 0;
	}
	if (a == (n->op == OP_OR)) {
		set_bool(out, a);
		return 0;
	}
	if (evaluate_bool(e, n->args[1], &b) < 0)
		return -1;
	set_bool(out, b);
	return 0;
}

static int evaluate(struct eval *e, const struct ottl_node *n, struct ottl_value *out)
{
	struct ottl_value a, b;

	switch (n->op) {
	case OP_LITERAL:
		*out = n->value;
		return 0;
	case OP_PATH:
		ottl_path_get(n, e->subject, &e->scratch, out);
		return 0;
	case OP_CALL:
		return evaluate_call(e, n, out);
	case OP_OR:
	case OP_AND:
	case OP_NOT:
		return evaluate_logic(e, n, out);
	default:
		break;
	}
	if (evaluate(e, n->args[0], &a) < 0 || evaluate(e, n->args[1], &b) < 0)
		return -1;
	if (n->op >= OP_ADD)
		return arithmetic(e, n->op, &a, &b, out);
	set_bool(out, holds(n->op, compare(&a, &b)));
	return 0;
}

int ottl_condition_met(const struct ottl_condition *c, const struct ottl_subject *subject,
		       struct err *err)
{
	struct eval e = { .subject = subject, .err = err };
	bool met = false;
	int rc = evaluate_bool(&e, c->root, &met);

	arena_fini(&e.scratch);
	return rc < 0 ? -1 : met;
}
