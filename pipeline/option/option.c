/* SPDX-License-Identifier: Apache-2.0
 *
 * option.c - fills a component's config struct from its YAML section by its option table. Contract
 * in option.h.
 *
 * DESIGN: defaults first (their texts go through the same value parsers, so a bad default is found
 * by the first test), then a walk over the user's map: each key is a row, the beginning of a dotted
 * row, or an error that names the nearest one. A chain of scopes says under which key a nested
 * table hangs, so that an outer table can give other defaults.
 */
#include "pipeline/option/option.h"

#include "base/str.h"
#include "pipeline/conf/scalar.h"
#include "pipeline/conf/tree.h"
#include "pipeline/option/values.h"

#include <stdio.h>

enum { ITEMS_MAX = 10000 };

static bool has_value(const struct option *o)
{
	return o->kind != OPTION_PRESENT && o->kind != OPTION_DEFAULT &&
	       o->kind != OPTION_REQUIRE && o->kind != OPTION_INCLUDE;
}

/* The row of this dotted key, also inside included tables; *config moves to the struct its offset
 * is in. */
static const struct option *row_find(const struct option *table, const char *key, uint8_t **config)
{
	for (const struct option *o = table; o->kind != OPTION_END; o++) {
		if (o->kind == OPTION_INCLUDE) {
			uint8_t *inner = *config + o->offset;
			const struct option *found = row_find(o->table, key, &inner);

			if (found != NULL) {
				*config = inner;
				return found;
			}
		} else if (has_value(o) && strcmp(o->key, key) == 0) {
			return o;
		}
	}
	return NULL;
}

static bool is_prefix(const struct option *table, const char *key)
{
	size_t n = strlen(key);

	for (const struct option *o = table; o->kind != OPTION_END; o++) {
		if (o->kind == OPTION_INCLUDE
			    ? is_prefix(o->table, key)
			    : has_value(o) && strncmp(o->key, key, n) == 0 && o->key[n] == '.')
			return true;
	}
	return false;
}

/* ---- defaults ---- */

const char *option_scope_default(const struct option_scope *s, const struct option *row)
{
	const char *found = row->fallback;
	char path[512];

	snprintf(path, sizeof(path), "%s", row->key);
	for (; s != NULL; s = s->up) {
		char outer[512];

		for (const struct option *o = s->table; o->kind != OPTION_END; o++) {
			if (o->kind == OPTION_DEFAULT && strcmp(o->key, path) == 0)
				found = o->fallback;
		}
		if (s->prefix == NULL)
			continue;
		if (snprintf(outer, sizeof(outer), "%s.%s", s->prefix, path) >= (int)sizeof(outer))
			break;
		memcpy(path, outer, sizeof(path));
	}
	return found;
}

static void defaults(const struct option_scope *s, uint8_t *config, struct arena *arena);

static void default_value(const struct option_scope *s, const struct option *o, uint8_t *config,
			  struct arena *arena)
{
	const char *text = option_scope_default(s, o);
	struct conf_errors errors = CONF_ERRORS_INIT;
	struct conf_build b = { .arena = arena, .errors = &errors };
	struct option_value v = { arena, &errors, o->key };
	struct conf_node *n = NULL;

	option_value_clear(o, config);
	if (text == NULL)
		return;
	if (text[0] == '[' || text[0] == '{' || text[0] == '"')
		n = conf_tree_fragment(&b, bytes_str(text), (struct conf_pos){ NULL, 0, 0 }, 0);
	else
		n = conf_tree_scalar(&b, text, o->kind != OPTION_STR,
				     (struct conf_pos){ NULL, 0, 0 });
	assert(n != NULL);
	option_value_parse(&v, o, n, config);
	assert(errors.n_errors == 0); /* a default that its own row refuses */
	conf_error_fini(&errors);
}

static void defaults(const struct option_scope *s, uint8_t *config, struct arena *arena)
{
	for (const struct option *o = s->table; o->kind != OPTION_END; o++) {
		struct option_scope in = { o->table, o->key, s };
		const char *text;

		switch (o->kind) {
		case OPTION_TABLE:
			defaults(&in, config + o->offset, arena);
			break;
		case OPTION_INCLUDE:
			in.prefix = NULL;
			defaults(&in, config + o->offset, arena);
			break;
		case OPTION_SECTION:
			defaults(&in, config + o->offset, arena);
			text = option_scope_default(s, o);
			*(bool *)(void *)(config + o->offset_on) =
				text != NULL && strcmp(text, "on") == 0;
			break;
		case OPTION_PRESENT:
			*(bool *)(void *)(config + o->offset) = false;
			break;
		case OPTION_LIST:
			*(struct option_list *)(void *)(config + o->offset) =
				(struct option_list){ NULL, 0 };
			break;
		case OPTION_DEFAULT:
		case OPTION_REQUIRE:
		case OPTION_IGNORED:
		case OPTION_MOVED:
		case OPTION_UNSUPPORTED:
		case OPTION_END:
			break;
		default:
			default_value(s, o, config, arena);
			break;
		}
	}
}

void option_defaults(const struct option *table, void *config, struct arena *arena)
{
	struct option_scope top = { table, NULL, NULL };

	defaults(&top, config, arena);
}

/* ---- the user's values ---- */

struct walk {
	struct arena *arena;
	struct conf_errors *errors;
};

static const char *join(struct walk *w, const char *path, const char *key)
{
	return path[0] == '\0' ? key : arena_printf(w->arena, "%s.%.200s", path, key);
}

/* The piece of row key `key` that may follow prefix, or NULL. */
static const char *next_piece(struct walk *w, const char *key, const char *prefix)
{
	size_t n = strlen(prefix);

	if (n > 0 && (strncmp(key, prefix, n) != 0 || key[n] != '.'))
		return NULL;
	key += n > 0 ? n + 1 : 0;
	return arena_strndup(w->arena, key, strcspn(key, "."));
}

struct nearest {
	const char *key;
	const struct option *row; /* NULL: the key is only the beginning of rows */
	unsigned distance;
	struct buf all;
};

/* Letters of either case count as equal: sendingQueue is near sending_queue. */
static unsigned key_distance(const char *a, const char *b)
{
	char low[64];
	size_t n = 0;

	for (; b[n] != '\0' && n < sizeof(low) - 1; n++)
		low[n] = b[n] >= 'A' && b[n] <= 'Z' ? (char)(b[n] - 'A' + 'a') : b[n];
	low[n] = '\0';
	return str_distance(a, low);
}

static void nearest_in(struct walk *w, const struct option *table, const char *prefix,
		       const char *key, struct nearest *best)
{
	for (const struct option *o = table; o->kind != OPTION_END; o++) {
		const char *piece;
		unsigned d;

		if (o->kind == OPTION_INCLUDE)
			nearest_in(w, o->table, prefix, key, best);
		if (!has_value(o) || o->kind == OPTION_IGNORED || o->kind == OPTION_UNSUPPORTED ||
		    o->kind == OPTION_MOVED)
			continue;
		piece = next_piece(w, o->key, prefix);
		if (piece == NULL)
			continue;
		if (best->all.n < 300 && strstr(buf_cstr(&best->all), piece) == NULL)
			buf_printf(&best->all, "%s%s", best->all.n ? ", " : "", piece);
		d = key_distance(piece, key);
		if (d < best->distance) {
			best->distance = d;
			best->key = piece;
			best->row = str_has_suffix(o->key, piece) ? o : NULL;
		}
	}
}

static void unknown_key(struct walk *w, const struct option_scope *s, const char *prefix,
			const struct conf_node *n, const char *path)
{
	struct nearest best = { NULL, NULL, UINT32_MAX, BUF_INIT };
	const char *hint;

	if (conf_error_is_full(w->errors)) { /* the nearest key costs more than the line is worth */
		w->errors->n_errors++;
		return;
	}
	nearest_in(w, s->table, prefix, n->key, &best);
	if (strchr(n->key, '.') != NULL)
		hint = "a dot is part of a key here: nest the keys, a: {b: value}";
	else if (best.key == NULL)
		hint = "this section takes no keys";
	else if (best.distance <= MAX(2, strlen(n->key) / 3))
		hint = arena_printf(
			w->arena, "did you mean \"%s\"? for example `%s: %s`", best.key, best.key,
			best.row ? option_value_example(best.row, option_scope_default(s, best.row),
							best.key)
				 : "{}");
	else
		hint = arena_printf(w->arena, "valid keys: %s", buf_cstr(&best.all));
	conf_error_add(w->errors, n->key_pos, join(w, path, n->key), hint,
		       "has invalid keys: %.100s", n->key);
	buf_fini(&best.all);
}

static void parse_map(struct walk *w, const struct option_scope *s, const struct conf_node *map,
		      const char *prefix, uint8_t *config, const char *path, bool has_enabled);

static bool expect_map(struct walk *w, const struct conf_node *n, const char *path)
{
	if (n->kind == CONF_MAP)
		return true;
	/* A scalar is where the mistake is; a list as a whole has its key to point to. */
	conf_error_add(w->errors, conf_tree_kind_pos(n), path,
		       "put the keys below it, indented, or write {}", "expected a map, got '%s'",
		       conf_tree_type_name(n));
	return false;
}

static void parse_section(struct walk *w, const struct option_scope *s, const struct option *o,
			  const struct conf_node *n, uint8_t *config, const char *path)
{
	struct option_scope in = { o->table, o->key, s };
	bool *on = (bool *)(void *)(config + o->offset_on);
	const struct conf_node *enabled = conf_tree_find(n, "enabled");

	if (n->kind == CONF_NULL) {
		*on = *on || !o->is_null_off;
		return;
	}
	if (!expect_map(w, n, path))
		return;
	*on = true;
	parse_map(w, &in, n, "", config + o->offset, path, true);
	if (enabled != NULL && enabled->kind != CONF_NULL) {
		struct option_value v = { w->arena, w->errors, join(w, path, "enabled") };
		const struct option row = { .key = "enabled", .kind = OPTION_BOOL, .offset = 0 };

		option_value_parse(&v, &row, enabled, (uint8_t *)on);
	}
}

static void parse_list(struct walk *w, const struct option *o, const struct conf_node *n,
		       uint8_t *config, const char *path)
{
	struct option_scope in = { o->table, NULL, NULL };
	struct option_list *list = (struct option_list *)(void *)(config + o->offset);
	size_t i = 0;

	if (n->kind == CONF_NULL)
		return;
	if (n->kind != CONF_LIST || n->n > ITEMS_MAX) {
		conf_error_add(w->errors, conf_tree_kind_pos(n), path,
			       "write one `- {key: value}` a line",
			       n->kind == CONF_LIST ? "a list has more than 10000 items"
						    : "expected a list, got '%s'",
			       conf_tree_type_name(n));
		return;
	}
	list->items = arena_zalloc(w->arena, n->n * o->size);
	list->n = n->n;
	for (const struct conf_node *c = n->first; c != NULL; c = c->next, i++) {
		uint8_t *item = (uint8_t *)list->items + i * o->size;
		const char *at = arena_printf(w->arena, "%s[%zu]", path, i);

		defaults(&in, item, w->arena);
		if (expect_map(w, c, at))
			parse_map(w, &in, c, "", item, at, false);
	}
}

static bool is_empty(const struct conf_node *n)
{
	if (n->kind == CONF_SCALAR)
		return n->text[0] == '\0';
	return n->n == 0 && (n->raw == NULL || n->raw[0] == '\0');
}

static void parse_row(struct walk *w, const struct option_scope *s, const struct option *o,
		      const struct conf_node *n, uint8_t *config, const char *path)
{
	struct option_scope in = { o->table, o->key, s };
	struct option_value v = { w->arena, w->errors, path };

	switch (o->kind) {
	case OPTION_TABLE:
		if (n->kind != CONF_NULL && expect_map(w, n, path))
			parse_map(w, &in, n, "", config + o->offset, path, false);
		break;
	case OPTION_SECTION:
		parse_section(w, s, o, n, config, path);
		break;
	case OPTION_LIST:
		parse_list(w, o, n, config, path);
		break;
	case OPTION_IGNORED:
		if (!is_empty(n))
			conf_error_warn(w->errors, n->key_pos, path, o->help,
					"accepted, but has no effect");
		break;
	case OPTION_MOVED:
		conf_error_add(w->errors, n->key_pos, path, o->help, "has invalid keys: %.100s",
			       n->key);
		break;
	case OPTION_UNSUPPORTED:
		if (!is_empty(n))
			conf_error_add(w->errors, n->key_pos, path, o->help,
				       "is not in Spanmill yet");
		break;
	default:
		option_value_parse(&v, o, n, config);
		break;
	}
}

static void parse_map(struct walk *w, const struct option_scope *s, const struct conf_node *map,
		      const char *prefix, uint8_t *config, const char *path, bool has_enabled)
{
	for (const struct conf_node *c = map->first; c != NULL; c = c->next) {
		const char *full =
			prefix[0] ? arena_printf(w->arena, "%s.%s", prefix, c->key) : c->key;
		uint8_t *at = config;
		const struct option *o = strchr(c->key, '.') ? NULL : row_find(s->table, full, &at);

		if (o != NULL) {
			parse_row(w, s, o, c, at, join(w, path, c->key));
		} else if (has_enabled && prefix[0] == '\0' && strcmp(c->key, "enabled") == 0) {
			continue; /* read by parse_section */
		} else if (!strchr(c->key, '.') && is_prefix(s->table, full)) {
			if (c->kind != CONF_NULL && expect_map(w, c, join(w, path, c->key)))
				parse_map(w, s, c, full, config, join(w, path, c->key), false);
		} else {
			unknown_key(w, s, prefix, c, path);
		}
	}
}

/* Rows that speak about presence: PRESENT and REQUIRE, also in nested tables that are on. */
static void presence(struct walk *w, const struct option *table, const struct conf_node *node,
		     uint8_t *config, const char *path)
{
	for (const struct option *o = table; o->kind != OPTION_END; o++) {
		const struct conf_node *n = NULL;
		bool on = true;

		if (o->kind == OPTION_INCLUDE) {
			presence(w, o->table, node, config + o->offset, path);
			continue;
		}
		if (node == NULL && o->kind != OPTION_PRESENT)
			continue;
		n = conf_tree_find_path(node, o->key);
		if (o->kind == OPTION_PRESENT)
			*(bool *)(void *)(config + o->offset) = n != NULL && n->kind != CONF_NULL;
		else if (o->kind == OPTION_REQUIRE && (n == NULL || is_empty(n)))
			conf_error_at(w->errors, node, path, o->key,
				      arena_printf(w->arena, "add `%s: %s`", o->key,
						   option_value_example(o, NULL, o->key)),
				      "requires a non-empty \"%s\"", o->key);
		if (o->kind == OPTION_SECTION)
			on = *(bool *)(void *)(config + o->offset_on);
		if (n != NULL && on && n->kind != CONF_SCALAR && n->kind != CONF_LIST &&
		    (o->kind == OPTION_TABLE || o->kind == OPTION_SECTION))
			presence(w, o->table, n, config + o->offset, join(w, path, o->key));
		if (n == NULL || n->kind != CONF_LIST || o->kind != OPTION_LIST)
			continue;
		const struct option_list *list =
			(const struct option_list *)(void *)(config + o->offset);
		size_t i = 0;

		for (const struct conf_node *c = n->first; c != NULL && i < list->n;
		     c = c->next, i++)
			presence(w, o->table, c->kind == CONF_MAP ? c : NULL,
				 (uint8_t *)list->items + i * o->size,
				 arena_printf(w->arena, "%s.%s[%zu]", path, o->key, i));
	}
}

int option_parse(const struct option *table, const struct conf_node *node, void *config,
		 struct arena *arena, struct conf_errors *errors, const char *yaml_path)
{
	struct option_scope top = { table, NULL, NULL };
	struct walk w = { arena, errors };
	unsigned before = errors->n_errors;

	defaults(&top, config, arena);
	if (node != NULL && node->kind != CONF_NULL && expect_map(&w, node, yaml_path))
		parse_map(&w, &top, node, "", config, yaml_path, false);
	if (node != NULL && node->kind != CONF_SCALAR && node->kind != CONF_LIST)
		presence(&w, table, node, config, yaml_path);
	return errors->n_errors > before ? -1 : 0;
}

/* What one row names. */
static void references_of(const struct option *o, const char *key, const uint8_t *config,
			  option_reference_fn *fn, void *arg)
{
	const struct strlist *list = (const void *)(config + o->offset);
	const char *id;

	if (o->kind == OPTION_EXTENSION) {
		id = *(const char *const *)(const void *)(config + o->offset);
		if (id[0] != '\0')
			fn(arg, o->kind, key, id);
	}
	for (size_t i = 0; o->kind == OPTION_CONNECTORS && i < list->n; i++)
		fn(arg, o->kind, key, list->items[i]);
}

static void each_reference(const struct option *table, const char *prefix, const uint8_t *config,
			   option_reference_fn *fn, void *arg)
{
	for (const struct option *o = table; o->kind != OPTION_END; o++) {
		bool on = o->kind != OPTION_SECTION ||
			  *(const bool *)(const void *)(config + o->offset_on);
		char key[512];

		if (o->kind == OPTION_INCLUDE) {
			each_reference(o->table, prefix, config + o->offset, fn, arg);
			continue;
		}
		snprintf(key, sizeof(key), "%s%s%s", prefix, prefix[0] ? "." : "", o->key);
		references_of(o, key, config, fn, arg);
		if (on && (o->kind == OPTION_TABLE || o->kind == OPTION_SECTION))
			each_reference(o->table, key, config + o->offset, fn, arg);
	}
}

void option_each_reference(const struct option *table, const void *config, option_reference_fn *fn,
			   void *arg)
{
	each_reference(table, "", config, fn, arg);
}

bool option_has_key(const struct option *table, const char *key)
{
	uint8_t *none = NULL;

	return row_find(table, key, &none) != NULL;
}
