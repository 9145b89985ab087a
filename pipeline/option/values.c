/* SPDX-License-Identifier: Apache-2.0
 *
 * values.c - one value of one option row. Contract in values.h.
 *
 * DESIGN: strict, as the Collector decodes: the YAML type must be the row's type, except that
 * durations, enums and sizes read their own text and a string becomes a list at its commas.
 * Messages use the Collector's words.
 */
#include "pipeline/option/values.h"

#include "base/str.h"
#include "pipeline/conf/scalar.h"

#include <stdio.h>

#define MEMBER(config, o, T) (*(T *)(void *)((config) + (o)->offset))
#define MEMBER_CONST(config, o, T) (*(const T *)(const void *)((config) + (o)->offset))

enum { ITEMS_MAX = 10000 };

void option_value_clear(const struct option *o, uint8_t *config)
{
	switch (o->kind) {
	case OPTION_BOOL:
		MEMBER(config, o, bool) = false;
		break;
	case OPTION_INT:
	case OPTION_DURATION:
		MEMBER(config, o, int64_t) = 0;
		break;
	case OPTION_UINT:
	case OPTION_BYTES:
	case OPTION_SIZE_MIB:
		MEMBER(config, o, uint64_t) = 0;
		break;
	case OPTION_DOUBLE:
		MEMBER(config, o, double) = 0;
		break;
	case OPTION_STR:
	case OPTION_EXTENSION:
	case OPTION_OPAQUE_STR:
		MEMBER(config, o, const char *) = "";
		break;
	case OPTION_STRLIST:
	case OPTION_CONNECTORS:
	case OPTION_OPAQUE_LIST:
		MEMBER(config, o, struct strlist) = (struct strlist){ NULL, 0 };
		break;
	case OPTION_ENUM:
		MEMBER(config, o, int) = 0;
		break;
	case OPTION_STRMAP:
	case OPTION_OPAQUE_MAP:
	case OPTION_PROPERTIES:
		MEMBER(config, o, struct strmap) = (struct strmap){ NULL, 0 };
		break;
	case OPTION_NODE:
		MEMBER(config, o, const struct conf_node *) = NULL;
		break;
	default:
		break;
	}
}

static bool is_opaque(const struct option *o)
{
	return o->kind == OPTION_OPAQUE_STR || o->kind == OPTION_OPAQUE_MAP ||
	       o->kind == OPTION_OPAQUE_LIST || o->kind == OPTION_PROPERTIES;
}

static void wrong_type(const struct option_value *v, const struct option *o,
		       const struct conf_node *n, const char *want, const char *hint)
{
	if (n->kind != CONF_SCALAR || is_opaque(o))
		conf_error_add(v->errors, conf_tree_kind_pos(n), v->path, hint,
			       "expected type '%s', got unconvertible type '%s'", want,
			       conf_tree_type_name(n));
	else
		conf_error_add(v->errors, conf_tree_kind_pos(n), v->path, hint,
			       "expected type '%s', got unconvertible type '%s', value: '%.80s'",
			       want, conf_tree_type_name(n), n->text);
}

static const char joined_hint[] =
	"text beside ${...} makes a string: put the whole value into one ${...}";

static const char *number_hint(const struct option_value *v, const struct option *o,
			       const struct conf_node *n)
{
	enum conf_type t =
		n->kind == CONF_SCALAR ? conf_scalar_type(n->text, NULL) : CONF_TYPE_NULL;

	if (n->joined)
		return joined_hint;
	if (n->kind == CONF_SCALAR && !n->plain && (t == CONF_TYPE_INT || t == CONF_TYPE_FLOAT))
		return arena_printf(v->arena, "write it without quotes: %.40s", n->text);
	return arena_printf(v->arena, "write a number, for example %s",
			    option_value_example(o, o->fallback, o->key));
}

/* A bound without needless digits. */
static const char *bound(const struct option_value *v, double x)
{
	return arena_printf(v->arena,
			    x < 9e15 && x > -9e15 && x - (double)(int64_t)x == 0 ? "%.0f" : "%.15g",
			    x);
}

static bool in_bounds(const struct option_value *v, const struct option *o,
		      const struct conf_node *n, double x, const char *unit)
{
	const char *low = bound(v, o->min);

	if ((o->min == 0 && o->max == 0) || (x >= o->min && x <= o->max))
		return true;
	conf_error_add(v->errors, n->pos, v->path,
		       o->max >= 9e18 ? arena_printf(v->arena, "at least %s%s", low, unit)
				      : arena_printf(v->arena, "between %s and %s%s", low,
						     bound(v, o->max), unit),
		       "%.80s is out of range", n->text);
	return false;
}

static void parse_bool(const struct option_value *v, const struct option *o,
		       const struct conf_node *n, uint8_t *config)
{
	if (n->kind != CONF_SCALAR || !n->plain ||
	    conf_scalar_type(n->text, NULL) != CONF_TYPE_BOOL)
		wrong_type(v, o, n, "bool",
			   n->joined ? joined_hint : "write true or false, without quotes");
	else
		MEMBER(config, o, bool) = conf_scalar_bool(n->text);
}

/* An int beyond 64 bits, which YAML readers make a float. */
static bool is_all_digits(const char *text)
{
	text += *text == '-' || *text == '+';
	return text[0] != '\0' && text[strspn(text, "0123456789_")] == '\0';
}

static int out_of_range(const struct option_value *v, const struct conf_node *n, const char *hint)
{
	conf_error_add(v->errors, n->pos, v->path, hint, "%.80s is out of range", n->text);
	return -1;
}

/* An int64_t or uint64_t takes it? */
static bool fits(const struct option *o, const struct conf_number *num)
{
	if (o->kind == OPTION_INT)
		return num->negative || num->magnitude <= INT64_MAX;
	if (num->negative && num->magnitude > 0)
		return false;
	return o->kind != OPTION_SIZE_MIB || num->magnitude <= UINT64_C(1) << 40;
}

/* INT, UINT, SIZE_MIB and DOUBLE: 0 and *num when n is a number that fits. */
static int parse_number(const struct option_value *v, const struct option *o,
			const struct conf_node *n, struct conf_number *num)
{
	enum conf_type t = CONF_TYPE_STRING;
	bool real = o->kind == OPTION_DOUBLE;

	if (n->kind == CONF_SCALAR && n->plain)
		t = conf_scalar_type(n->text, num);
	/* 1e3 is a whole number too. */
	if (!real && t == CONF_TYPE_FLOAT && num->real > -9e15 && num->real < 9e15 &&
	    num->real == (double)(int64_t)num->real) {
		num->negative = num->real < 0;
		num->magnitude = (uint64_t)(num->negative ? -num->real : num->real);
		t = CONF_TYPE_INT;
	}
	if (!real && t == CONF_TYPE_FLOAT && is_all_digits(n->text))
		return out_of_range(v, n, "write a smaller number");
	if (t != CONF_TYPE_INT && !(real && t == CONF_TYPE_FLOAT)) {
		wrong_type(v, o, n,
			   real                    ? "float64"
			   : o->kind == OPTION_INT ? "int"
						   : "uint",
			   number_hint(v, o, n));
		return -1;
	}
	if (!real && !fits(o, num))
		return out_of_range(v, n, o->kind == OPTION_INT ? NULL : "write zero or more");
	return in_bounds(v, o, n, num->real, "") ? 0 : -1;
}

static void parse_numeric(const struct option_value *v, const struct option *o,
			  const struct conf_node *n, uint8_t *config)
{
	struct conf_number num = { false, 0, 0 };

	if (parse_number(v, o, n, &num) < 0)
		return;
	if (o->kind == OPTION_DOUBLE)
		MEMBER(config, o, double) = num.real;
	else if (o->kind == OPTION_INT)
		MEMBER(config, o, int64_t) =
			(int64_t)(num.negative ? UINT64_C(0) - num.magnitude : num.magnitude);
	else
		MEMBER(config, o, uint64_t) =
			num.magnitude * (o->kind == OPTION_SIZE_MIB ? MIB : 1);
}

/* A string: quoted, or plain text that YAML does not take for something else; what ${...} gave
 * verbatim. */
static const char *string_of(const struct option_value *v, const struct option *o,
			     const struct conf_node *n)
{
	if (n->raw != NULL)
		return n->raw;
	if (n->kind == CONF_SCALAR &&
	    (o->kind == OPTION_PROPERTIES || strcmp(conf_tree_type_name(n), "string") == 0))
		return n->text;
	wrong_type(v, o, n, "string",
		   n->kind == CONF_SCALAR ? arena_printf(v->arena, "put it in quotes: \"%.40s\"",
							 is_opaque(o) ? "..." : n->text)
					  : "write one value");
	return NULL;
}

static void parse_duration(const struct option_value *v, const struct option *o,
			   const struct conf_node *n, uint8_t *config)
{
	char why[160];
	int64_t ns;

	if (n->kind != CONF_SCALAR) {
		wrong_type(v, o, n, "time.Duration", "write a number with a unit, for example 5s");
		return;
	}
	if (conf_scalar_duration(n->text, &ns, why, sizeof(why)) < 0)
		conf_error_add(v->errors, n->pos, v->path,
			       "use units ns, us, ms, s, m, h: for example 5s or 1h30m", "%s", why);
	else if (ns < 0 && o->min >= 0)
		conf_error_add(v->errors, n->pos, v->path, "write zero or more",
			       "duration %.40s is negative", n->text);
	else
		MEMBER(config, o, int64_t) = ns;
}

static void parse_bytes(const struct option_value *v, const struct option *o,
			const struct conf_node *n, uint8_t *config)
{
	uint64_t bytes;

	if (n->kind == CONF_SCALAR && !n->plain && !n->joined && is_all_digits(n->text))
		wrong_type(v, o, n, "size", number_hint(v, o, n));
	else if (n->kind != CONF_SCALAR || conf_scalar_bytes(n->text, &bytes) < 0)
		wrong_type(v, o, n, "size",
			   "write a number of bytes, or with KiB, MiB or GiB: for example 64MiB");
	else if (in_bounds(v, o, n, (double)bytes, " bytes"))
		MEMBER(config, o, uint64_t) = bytes;
}

static void parse_enum(const struct option_value *v, const struct option *o,
		       const struct conf_node *n, uint8_t *config)
{
	const char *text = n->kind == CONF_SCALAR ? n->text : n->raw, *near = NULL;
	struct buf all = BUF_INIT;
	unsigned best = 3;

	if (text == NULL) {
		wrong_type(v, o, n, "string", "write one of the words of the documentation");
		return;
	}
	for (const struct option_choice *c = o->choices; c->name != NULL; c++) {
		if (str_eq_nocase(bytes_str(text), c->name)) {
			MEMBER(config, o, int) = c->value;
			buf_fini(&all);
			return;
		}
		if (c->name[0] != '\0')
			buf_printf(&all, "%s%s", all.n ? ", " : "", c->name);
		if (str_distance(c->name, text) < best) {
			best = str_distance(c->name, text);
			near = c->name;
		}
	}
	if (near != NULL && near[0] != '\0')
		conf_error_add(v->errors, n->pos, v->path,
			       arena_printf(v->arena, "did you mean \"%s\"? valid values: %s", near,
					    buf_cstr(&all)),
			       "unknown value \"%.80s\"", text);
	else
		conf_error_add(v->errors, n->pos, v->path,
			       arena_printf(v->arena, "valid values: %s", buf_cstr(&all)),
			       "unknown value \"%.80s\"", text);
	buf_fini(&all);
}

/* "a,b" is [a, b]; "" is []. */
static void split_list(const struct option_value *v, const char *text, struct strlist *out)
{
	size_t n = text[0] != '\0';

	for (const char *p = text; *p != '\0'; p++)
		n += *p == ',';
	out->items = arena_zalloc(v->arena, n * sizeof(*out->items));
	for (out->n = 0; out->n < n; out->n++) {
		size_t len = strcspn(text, ",");

		out->items[out->n] = arena_strndup(v->arena, text, len);
		text += len + (text[len] == ',');
	}
}

static void parse_strlist(const struct option_value *v, const struct option *o,
			  const struct conf_node *n, uint8_t *config)
{
	struct strlist list = { NULL, 0 };
	size_t i = 0;

	if (n->kind == CONF_SCALAR) {
		const char *text = string_of(v, o, n);

		if (text == NULL)
			return;
		split_list(v, text, &list);
	} else if (n->kind != CONF_LIST || n->n > ITEMS_MAX) {
		wrong_type(v, o, n, "list", "write [a, b]");
		return;
	} else {
		list.items = arena_zalloc(v->arena, n->n * sizeof(*list.items));
		for (const struct conf_node *c = n->first; c != NULL; c = c->next, i++) {
			struct option_value in = { v->arena, v->errors,
						   arena_printf(v->arena, "%s[%zu]", v->path, i) };
			const char *text = string_of(&in, o, c);

			if (text != NULL)
				list.items[list.n++] = text;
		}
	}
	MEMBER(config, o, struct strlist) = list;
}

/* One {name: , value: } of a header list. */
static int parse_pair(const struct option_value *v, const struct option *o,
		      const struct conf_node *n, struct strpair *out)
{
	const struct conf_node *name = conf_tree_find(n, "name"),
			       *value = conf_tree_find(n, "value");

	if (name == NULL || name->kind != CONF_SCALAR || value == NULL || n->n != 2) {
		conf_error_add(v->errors, n->pos, v->path, "write {name: x-key, value: text}",
			       "an entry must have name and value");
		return -1;
	}
	out->name = name->text;
	out->value = value->kind == CONF_NULL && value->raw == NULL ? "" : string_of(v, o, value);
	return out->value != NULL ? 0 : -1;
}

/* Maps of secrets are headers: a name or value that no request can carry is found here, not by each
 * request. */
static bool header_is_legal(const struct option_value *v, const struct option *o,
			    const struct conf_node *n, const struct strpair *pair)
{
	static const char marks[] = "!#$%&'*+-.^_`|~";

	if (o->kind != OPTION_OPAQUE_MAP)
		return true;
	for (const char *p = pair->name; *p != '\0' || p == pair->name; p++) {
		bool letter = (*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') ||
			      (*p >= '0' && *p <= '9');

		if (*p != '\0' && (letter || strchr(marks, *p) != NULL))
			continue;
		conf_error_add(v->errors, n->key != NULL ? n->key_pos : n->pos, v->path,
			       "use letters, digits and -", "\"%.80s\" is no header name",
			       pair->name);
		return false;
	}
	for (const char *p = pair->value; *p != '\0'; p++) {
		if (((unsigned char)*p >= ' ' && *p != 0x7f) || *p == '\t')
			continue;
		conf_error_add(v->errors, n->pos, v->path,
			       "remove the line end or control character",
			       "the value of header \"%.80s\" holds a control character (0x%02x)",
			       pair->name, (unsigned)(unsigned char)*p);
		return false;
	}
	return true;
}

static void parse_strmap(const struct option_value *v, const struct option *o,
			 const struct conf_node *n, uint8_t *config)
{
	struct strmap map = { NULL, 0 };
	size_t i = 0;

	if ((n->kind != CONF_LIST && n->kind != CONF_MAP) || n->n > ITEMS_MAX) {
		wrong_type(v, o, n, "map", "write {name: value} or a list of {name: x, value: y}");
		return;
	}
	map.items = arena_zalloc(v->arena, n->n * sizeof(*map.items));
	for (const struct conf_node *c = n->first; c != NULL; c = c->next, i++) {
		struct option_value in = *v;

		if (n->kind == CONF_LIST) {
			in.path = arena_printf(v->arena, "%s[%zu]", v->path, i);
			map.n += parse_pair(&in, o, c, &map.items[map.n]) == 0 &&
				 header_is_legal(&in, o, c, &map.items[map.n]);
			continue;
		}
		in.path = arena_printf(v->arena, "%s.%.200s", v->path, c->key);
		map.items[map.n].name = c->key;
		map.items[map.n].value =
			c->kind == CONF_NULL && c->raw == NULL ? "" : string_of(&in, o, c);
		map.n += map.items[map.n].value != NULL &&
			 header_is_legal(&in, o, c, &map.items[map.n]);
	}
	MEMBER(config, o, struct strmap) = map;
}

/* "" is one of the words. */
static bool has_empty(const struct option *o)
{
	for (const struct option_choice *c = o->choices; c->name != NULL; c++)
		if (c->name[0] == '\0')
			return true;
	return false;
}

static bool takes_text(const struct option *o)
{
	return o->kind == OPTION_STR || o->kind == OPTION_OPAQUE_STR ||
	       o->kind == OPTION_EXTENSION || (o->kind == OPTION_ENUM && has_empty(o));
}

void option_value_parse(const struct option_value *v, const struct option *o,
			const struct conf_node *n, uint8_t *config)
{
	bool is_text = takes_text(o);
	const char *text;

	/* What ${...} gave is text to whatever takes text, also when YAML would call it null. */
	if (n->kind == CONF_NULL && !(is_text && n->raw != NULL) && o->kind != OPTION_NODE)
		return;
	switch (o->kind) {
	case OPTION_BOOL:
		parse_bool(v, o, n, config);
		break;
	case OPTION_INT:
	case OPTION_UINT:
	case OPTION_SIZE_MIB:
	case OPTION_DOUBLE:
		parse_numeric(v, o, n, config);
		break;
	case OPTION_STR:
	case OPTION_EXTENSION:
	case OPTION_OPAQUE_STR:
		text = string_of(v, o, n);
		if (text != NULL)
			MEMBER(config, o, const char *) = text;
		break;
	case OPTION_STRLIST:
	case OPTION_CONNECTORS:
	case OPTION_OPAQUE_LIST:
		parse_strlist(v, o, n, config);
		break;
	case OPTION_DURATION:
		parse_duration(v, o, n, config);
		break;
	case OPTION_BYTES:
		parse_bytes(v, o, n, config);
		break;
	case OPTION_ENUM:
		parse_enum(v, o, n, config);
		break;
	case OPTION_STRMAP:
	case OPTION_OPAQUE_MAP:
	case OPTION_PROPERTIES:
		parse_strmap(v, o, n, config);
		break;
	case OPTION_NODE:
		MEMBER(config, o, const struct conf_node *) = n;
		break;
	default:
		break;
	}
}

const char *option_value_example(const struct option *o, const char *fallback, const char *key)
{
	if (o->example != NULL)
		return o->example;
	if (fallback != NULL && fallback[0] != '\0' && o->kind != OPTION_SECTION)
		return fallback;
	switch (o->kind) {
	case OPTION_BOOL:
		return "true";
	case OPTION_INT:
	case OPTION_UINT:
	case OPTION_SIZE_MIB:
		return "1";
	case OPTION_DOUBLE:
		return "0.5";
	case OPTION_CONNECTORS:
		return "[spanmetrics]";
	case OPTION_STRLIST:
	case OPTION_OPAQUE_LIST:
		return "[a, b]";
	case OPTION_DURATION:
		return "5s";
	case OPTION_BYTES:
		return "64MiB";
	case OPTION_ENUM:
		return o->choices->name[0] != '\0' ? o->choices->name : o->choices[1].name;
	case OPTION_STRMAP:
	case OPTION_OPAQUE_MAP:
	case OPTION_PROPERTIES:
		return "{name: value}";
	case OPTION_TABLE:
	case OPTION_SECTION:
		return "{}";
	case OPTION_LIST:
		return "[{}]";
	default:
		return str_has_suffix(key, "endpoint") ? "localhost:4317" : "text";
	}
}
