/* SPDX-License-Identifier: Apache-2.0
 *
 * print.c - a configuration tree as YAML or JSON text. Declared in tree.h.
 *
 * DESIGN: a string is written plain only when it surely reads back as the same string, else as a
 * JSON string, which YAML also reads. "${" and "$$" are doubled, so that what is printed expands to
 * what was meant. LIMITS: recursion is as deep as the tree, CONF_DEPTH_MAX.
 */
#include "base/str.h"
#include "pipeline/conf/scalar.h"
#include "pipeline/conf/tree.h"

static void indent(struct buf *out, unsigned depth)
{
	for (unsigned i = 0; i < depth; i++)
		buf_add_str(out, "  ");
}

static void add_quoted(struct buf *out, const char *s, bool double_dollars)
{
	buf_add_char(out, '"');
	for (; *s != '\0'; s++) {
		unsigned char c = (unsigned char)*s;

		if (c == '"' || c == '\\')
			buf_printf(out, "\\%c", c);
		else if (c == '\n')
			buf_add_str(out, "\\n");
		else if (c == '\t')
			buf_add_str(out, "\\t");
		else if (c < 0x20 || c == 0x7f)
			buf_printf(out, "\\u%04x", c);
		else
			buf_add_char(out, (char)c);
		if (c == '$' && double_dollars)
			buf_add_char(out, '$');
	}
	buf_add_char(out, '"');
}

static bool is_letter(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/* Words that other YAML readers take for a bool. */
static bool is_bool_elsewhere(const char *s)
{
	static const char *const words[] = { "y", "n", "yes", "no", "on", "off" };

	for (size_t i = 0; i < COUNT_OF(words); i++) {
		if (str_eq_nocase(bytes_str(s), words[i]))
			return true;
	}
	return false;
}

static bool is_plain_safe(const char *s)
{
	bool named = is_letter(*s) || *s == '/' || *s == '_', any_letter = false;

	if (conf_scalar_type(s, NULL) != CONF_TYPE_STRING || is_bool_elsewhere(s))
		return false;
	for (const char *p = s; *p != '\0'; p++) {
		any_letter |= is_letter(*p);
		if (is_letter(*p) || (*p >= '0' && *p <= '9') || *p == '.' || *p == '_' ||
		    *p == '/')
			continue;
		/* With a digit in front, - and : could be a date or a time to other readers. */
		if (!named ||
		    (strchr("-+", *p) == NULL && !(*p == ':' && p[1] != '\0' && p[1] != ' ')))
			return false;
	}
	return any_letter;
}

static bool has_dollars(const char *s)
{
	return strstr(s, "${") != NULL || strstr(s, "$$") != NULL;
}

enum style { STYLE_YAML, STYLE_JSON, STYLE_LINE };

static void add_scalar(struct buf *out, const struct conf_node *n, enum style style)
{
	bool json = style != STYLE_YAML;
	enum conf_type t = n->plain ? conf_scalar_type(n->text, NULL) : CONF_TYPE_STRING;
	struct conf_number v;

	if (n->raw != NULL && t != CONF_TYPE_STRING && !json && strcmp(n->raw, n->text) != 0)
		t = conf_scalar_type(n->text, NULL);
	if (t == CONF_TYPE_STRING) {
		if (!json && is_plain_safe(n->text))
			buf_add_str(out, n->text);
		else
			add_quoted(out, n->text, style != STYLE_LINE && has_dollars(n->text));
		return;
	}
	if (!json) {
		buf_add_str(out, n->text);
		return;
	}
	conf_scalar_type(n->text, &v);
	if (t == CONF_TYPE_BOOL)
		buf_add_str(out, conf_scalar_bool(n->text) ? "true" : "false");
	else if (t == CONF_TYPE_INT)
		buf_printf(out, "%s%llu", v.negative && v.magnitude ? "-" : "",
			   (unsigned long long)v.magnitude);
	else if (v.real - v.real == 0)
		buf_printf(out, "%.17g", v.real);
	else
		add_quoted(out, n->text, false); /* JSON has no infinity */
}

static void add_key(struct buf *out, const char *key)
{
	if (is_plain_safe(key))
		buf_add_str(out, key);
	else
		add_quoted(out, key, false);
}

/* Everything after "key:" or "-", with the line break. */
static void yaml_value(const struct conf_node *n, struct buf *out, unsigned depth, bool in_list)
{
	bool first = true;

	if (n->kind == CONF_NULL || n->kind == CONF_SCALAR) {
		if (n->kind == CONF_SCALAR) {
			buf_add_char(out, ' ');
			add_scalar(out, n, STYLE_YAML);
		}
		buf_add_char(out, '\n');
		return;
	}
	if (n->n == 0) {
		buf_add_str(out, n->kind == CONF_MAP ? " {}\n" : " []\n");
		return;
	}
	if (!in_list)
		buf_add_char(out, '\n');
	for (const struct conf_node *c = n->first; c != NULL; c = c->next, first = false) {
		if (in_list && first)
			buf_add_char(out, ' ');
		else
			indent(out, depth);
		if (n->kind == CONF_LIST) {
			buf_add_char(out, '-');
		} else {
			add_key(out, c->key);
			buf_add_char(out, ':');
		}
		yaml_value(c, out, depth + 1, n->kind == CONF_LIST);
	}
}

void conf_tree_print_yaml(const struct conf_node *n, struct buf *out)
{
	struct buf b = BUF_INIT;

	yaml_value(n, &b, 0, false);
	/* The root has no key in front: drop the line break or blank that would follow one. */
	if (b.n > 1)
		buf_add(out, b.p + 1, b.n - 1);
	else
		buf_add_str(out, "{}\n");
	buf_fini(&b);
}

static void json_break(struct buf *out, unsigned depth, enum style style)
{
	if (style == STYLE_LINE)
		return;
	buf_add_char(out, '\n');
	indent(out, depth);
}

static void json_value(const struct conf_node *n, struct buf *out, unsigned depth, enum style style)
{
	bool map = n->kind == CONF_MAP;

	if (n->kind == CONF_NULL) {
		buf_add_str(out, "null");
		return;
	}
	if (n->kind == CONF_SCALAR) {
		add_scalar(out, n, style);
		return;
	}
	buf_add_char(out, map ? '{' : '[');
	for (const struct conf_node *c = n->first; c != NULL; c = c->next) {
		json_break(out, depth + 1, style);
		if (map) {
			add_quoted(out, c->key, false);
			buf_add_str(out, style == STYLE_LINE ? ":" : ": ");
		}
		json_value(c, out, depth + 1, style);
		if (c->next != NULL)
			buf_add_char(out, ',');
	}
	if (n->n > 0)
		json_break(out, depth, style);
	buf_add_char(out, map ? '}' : ']');
}

void conf_tree_print_json(const struct conf_node *n, struct buf *out)
{
	json_value(n, out, 0, STYLE_JSON);
	buf_add_char(out, '\n');
}

void conf_tree_print_json_line(const struct conf_node *n, struct buf *out)
{
	json_value(n, out, 0, STYLE_LINE);
}
