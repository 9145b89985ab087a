/* SPDX-License-Identifier: Apache-2.0
 *
 * print.c - option tables the other way round: a parsed config as YAML nodes, a table as
 * Markdown. See option.h.
 *
 * DESIGN: printing walks the same rows as parsing, so nothing can be parsed that is not printed.
 * Values that were unset and have no default are left out; so are rows whose PRESENT twin says the
 * user did not write them, because printing them would change what the next reader decides from
 * their presence.
 */
#include "pipeline/option/values.h"

#include "base/mem.h"
#include "pipeline/conf/scalar.h"

#include <stdio.h>

#define MEMBER(config, o, T) (*(const T *)(const void *)((config) + (o)->offset))

static const struct conf_pos nowhere;

static struct conf_node *number_node(struct conf_build *b, const char *text)
{
	return conf_tree_scalar(b, text, true, nowhere);
}

static struct conf_node *double_node(struct conf_build *b, double v)
{
	struct conf_number back;
	char text[40];

	snprintf(text, sizeof(text), "%.15g", v);
	if (conf_scalar_type(text, &back) == CONF_TYPE_STRING || back.real < v || back.real > v)
		snprintf(text, sizeof(text), "%.17g", v);
	if (v - v != 0)
		return number_node(b, v > 0 ? ".inf" : v < 0 ? "-.inf" : ".nan");
	return number_node(b, text);
}

static struct conf_node *text_node(struct conf_build *b, const char *text, const char *fallback,
				   bool redact)
{
	if (text[0] == '\0' && (fallback == NULL || fallback[0] == '\0'))
		return NULL;
	return conf_tree_scalar(b, redact && text[0] != '\0' ? "[REDACTED]" : text, false, nowhere);
}

static struct conf_node *list_node(struct conf_build *b, const struct strlist *list,
				   const char *fallback, bool redact)
{
	struct conf_node *n;

	if (list->n == 0 && (fallback == NULL || strcmp(fallback, "[]") == 0))
		return NULL;
	n = conf_tree_node(b, CONF_LIST, nowhere);
	for (size_t i = 0; n != NULL && i < list->n; i++) {
		struct conf_node *c =
			conf_tree_scalar(b, redact ? "[REDACTED]" : list->items[i], false, nowhere);

		if (c != NULL)
			conf_tree_append(n, c);
	}
	return n;
}

static struct conf_node *map_node(struct conf_build *b, const struct strmap *map, bool redact)
{
	struct conf_node *n = map->n > 0 ? conf_tree_node(b, CONF_MAP, nowhere) : NULL;

	for (size_t i = 0; n != NULL && i < map->n; i++) {
		struct conf_node *c = conf_tree_scalar(
			b, redact ? "[REDACTED]" : map->items[i].value, false, nowhere);

		if (c == NULL)
			continue;
		conf_tree_name(b, c, map->items[i].name, nowhere);
		conf_tree_append(n, c);
	}
	return n;
}

static struct conf_node *enum_node(struct conf_build *b, const struct option *o, int value)
{
	for (const struct option_choice *c = o->choices; c->name != NULL; c++) {
		if (c->value == value)
			return c->name[0] != '\0' ? conf_tree_scalar(b, c->name, false, nowhere)
						  : NULL;
	}
	return NULL;
}

static struct conf_node *raw_node(struct conf_build *b, const struct conf_node *from)
{
	struct conf_node *n;

	if (from == NULL || (n = conf_tree_node(b, from->kind, from->pos)) == NULL)
		return NULL;
	*n = *from; /* shares the children, which nobody changes */
	n->next = NULL;
	return n;
}

struct conf_node *option_value_node(struct conf_build *b, const struct option *o,
				    const char *fallback, const uint8_t *config, bool redact)
{
	struct buf text = BUF_INIT;
	struct conf_node *n;

	switch (o->kind) {
	case OPTION_BOOL:
		return number_node(b, MEMBER(config, o, bool) ? "true" : "false");
	case OPTION_DOUBLE:
		return double_node(b, MEMBER(config, o, double));
	case OPTION_STR:
	case OPTION_EXTENSION:
	case OPTION_OPAQUE_STR:
		return text_node(b, MEMBER(config, o, char *), fallback,
				 redact && o->kind == OPTION_OPAQUE_STR);
	case OPTION_STRLIST:
	case OPTION_CONNECTORS:
	case OPTION_OPAQUE_LIST:
		return list_node(b, &MEMBER(config, o, struct strlist), fallback,
				 redact && o->kind == OPTION_OPAQUE_LIST);
	case OPTION_ENUM:
		return enum_node(b, o, MEMBER(config, o, int));
	case OPTION_STRMAP:
	case OPTION_OPAQUE_MAP:
	case OPTION_PROPERTIES:
		return map_node(b, &MEMBER(config, o, struct strmap),
				redact && o->kind != OPTION_STRMAP);
	case OPTION_NODE:
		return raw_node(b, MEMBER(config, o, struct conf_node *));
	case OPTION_INT:
		buf_printf(&text, "%lld", (long long)MEMBER(config, o, int64_t));
		break;
	case OPTION_UINT:
		buf_printf(&text, "%llu", (unsigned long long)MEMBER(config, o, uint64_t));
		break;
	case OPTION_SIZE_MIB:
		buf_printf(&text, "%llu", (unsigned long long)(MEMBER(config, o, uint64_t) / MIB));
		break;
	case OPTION_BYTES:
		conf_scalar_add_bytes(&text, MEMBER(config, o, uint64_t));
		break;
	case OPTION_DURATION:
		conf_scalar_add_duration(&text, MEMBER(config, o, int64_t));
		break;
	default:
		return NULL;
	}
	n = number_node(b, buf_cstr(&text));
	buf_fini(&text);
	return n;
}

/* Put n at the dotted key below map, making the maps on the way. */
static void put(struct conf_build *b, struct conf_node *map, const char *key, struct conf_node *n)
{
	size_t len = strcspn(key, ".");
	const char *first = arena_strndup(b->arena, key, len);
	struct conf_node *in;

	if (key[len] == '\0') {
		conf_tree_name(b, n, first, nowhere);
		conf_tree_append(map, n);
		return;
	}
	in = conf_tree_find(map, first);
	if (in == NULL) {
		in = conf_tree_node(b, CONF_MAP, nowhere);
		if (in == NULL)
			return;
		conf_tree_name(b, in, first, nowhere);
		conf_tree_append(map, in);
	}
	put(b, in, key + len + 1, n); /* as deep as a key of ours has dots */
}

struct print {
	struct conf_build *b;
	bool redact;
};

static bool was_absent(const struct option *table, const char *key, const uint8_t *config)
{
	for (const struct option *o = table; o->kind != OPTION_END; o++) {
		if (o->kind == OPTION_PRESENT && strcmp(o->key, key) == 0)
			return !MEMBER(config, o, bool);
	}
	return false;
}

static void print_rows(struct print *p, const struct option_scope *s, const uint8_t *config,
		       struct conf_node *map);

static struct conf_node *print_section(struct print *p, const struct option_scope *s,
				       const struct option *o, const uint8_t *config)
{
	struct option_scope in = { o->table, o->key, s };
	struct conf_node *n = conf_tree_node(p->b, CONF_MAP, nowhere), *no;
	const char *fallback = option_scope_default(s, o);

	if (n == NULL)
		return NULL;
	if (*(const bool *)(const void *)(config + o->offset_on)) {
		print_rows(p, &in, config + o->offset, n);
		/* is_null_off sections need something inside to stay on. */
		no = n->n == 0 && o->is_null_off ? number_node(p->b, "true") : NULL;
	} else if (fallback != NULL && strcmp(fallback, "on") == 0) {
		no = number_node(p->b, "false");
	} else {
		return NULL;
	}
	if (no != NULL)
		put(p->b, n, "enabled", no);
	return n;
}

static struct conf_node *print_list(struct print *p, const struct option *o, const uint8_t *config)
{
	const struct option_list *list = &MEMBER(config, o, struct option_list);
	struct option_scope in = { o->table, NULL, NULL };
	struct conf_node *n = list->n > 0 ? conf_tree_node(p->b, CONF_LIST, nowhere) : NULL;

	for (size_t i = 0; n != NULL && i < list->n; i++) {
		struct conf_node *c = conf_tree_node(p->b, CONF_MAP, nowhere);

		if (c == NULL)
			break;
		print_rows(p, &in, (const uint8_t *)list->items + i * o->size, c);
		conf_tree_append(n, c);
	}
	return n;
}

static void print_rows(struct print *p, const struct option_scope *s, const uint8_t *config,
		       struct conf_node *map)
{
	for (const struct option *o = s->table; o->kind != OPTION_END; o++) {
		struct option_scope in = { o->table, o->kind == OPTION_INCLUDE ? NULL : o->key, s };
		struct conf_node *n = NULL;

		if (o->kind == OPTION_INCLUDE) {
			print_rows(p, &in, config + o->offset, map);
		} else if (o->kind == OPTION_TABLE) {
			n = conf_tree_node(p->b, CONF_MAP, nowhere);
			if (n != NULL)
				print_rows(p, &in, config + o->offset, n);
			if (n != NULL && n->n == 0)
				n = NULL;
		} else if (o->kind == OPTION_SECTION) {
			n = print_section(p, s, o, config);
		} else if (o->kind == OPTION_LIST) {
			n = print_list(p, o, config);
		} else if (!was_absent(s->table, o->key, config)) {
			n = option_value_node(p->b, o, option_scope_default(s, o), config,
					      p->redact);
		}
		if (n != NULL)
			put(p->b, map, o->key, n);
	}
}

struct conf_node *option_print(const struct option *table, const void *config, struct arena *arena,
			       bool redact)
{
	struct conf_errors errors = CONF_ERRORS_INIT;
	struct conf_build b = { .arena = arena, .errors = &errors };
	struct option_scope top = { table, NULL, NULL };
	struct print p = { &b, redact };
	struct conf_node *map = conf_tree_node(&b, CONF_MAP, nowhere);

	print_rows(&p, &top, config, map);
	conf_error_fini(&errors);
	return map;
}

/* ---- Markdown ---- */

static const char *kind_name(const struct option *o)
{
	static const char *const names[] = {
		[OPTION_BOOL] = "bool",
		[OPTION_INT] = "int",
		[OPTION_UINT] = "uint",
		[OPTION_DOUBLE] = "number",
		[OPTION_STR] = "string",
		[OPTION_OPAQUE_STR] = "secret string",
		[OPTION_STRLIST] = "list",
		[OPTION_OPAQUE_LIST] = "secret list",
		[OPTION_DURATION] = "duration",
		[OPTION_BYTES] = "size",
		[OPTION_SIZE_MIB] = "MiB",
		[OPTION_ENUM] = "one of",
		[OPTION_STRMAP] = "map",
		[OPTION_OPAQUE_MAP] = "secret map",
		[OPTION_PROPERTIES] = "secret map",
		[OPTION_NODE] = "see text",
		[OPTION_TABLE] = "section",
		[OPTION_SECTION] = "optional section",
		[OPTION_LIST] = "list of",
		[OPTION_EXTENSION] = "extension",
		[OPTION_CONNECTORS] = "list of connectors",
		[OPTION_IGNORED] = "ignored",
		[OPTION_UNSUPPORTED] = "not yet",
	};

	return names[o->kind];
}

static void document_row(const struct option_scope *s, const struct option *o, const char *key,
			 struct buf *out)
{
	const char *fallback = option_scope_default(s, o);
	bool any = false;

	buf_printf(out, "| `%s` | %s", key, kind_name(o));
	for (const struct option_choice *c = o->choices; c != NULL && c->name != NULL; c++) {
		if (c->name[0] == '\0')
			continue;
		buf_printf(out, "%s `%s`", any ? "," : "", c->name);
		any = true;
	}
	buf_add_str(out, " | ");
	if (fallback != NULL && fallback[0] != '\0')
		buf_printf(out, "`%s`", fallback);
	buf_printf(out, " | %s%s |\n", o->kind == OPTION_IGNORED ? "Accepted without effect: " : "",
		   o->help ? o->help : "");
}

static void document_rows(const struct option_scope *s, const char *prefix, struct buf *out)
{
	for (const struct option *o = s->table; o->kind != OPTION_END; o++) {
		struct option_scope in = { o->table, o->key, s };
		char *key;

		if (o->kind == OPTION_DEFAULT || o->kind == OPTION_REQUIRE ||
		    o->kind == OPTION_PRESENT || o->kind == OPTION_MOVED)
			continue;
		if (o->kind == OPTION_INCLUDE) {
			in.prefix = NULL;
			document_rows(&in, prefix, out);
			continue;
		}
		key = xasprintf("%s%s%s", prefix, prefix[0] ? "." : "", o->key);
		document_row(s, o, key, out);
		if (o->kind == OPTION_LIST) {
			char *items = xasprintf("%s[]", key);

			in.up = NULL;
			in.prefix = NULL;
			document_rows(&in, items, out);
			free(items);
		} else if (o->table != NULL) {
			document_rows(&in, key, out);
		}
		free(key);
	}
}

void option_document(const struct option *table, struct buf *out)
{
	struct option_scope top = { table, NULL, NULL };

	if (table == NULL || table->kind == OPTION_END) {
		buf_add_str(out, "No keys.\n");
		return;
	}
	buf_add_str(out, "| key | type | default | meaning |\n|---|---|---|---|\n");
	document_rows(&top, "", out);
}
