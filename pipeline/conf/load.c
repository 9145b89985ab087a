/* SPDX-License-Identifier: Apache-2.0
 *
 * load.c - reads, merges and expands the sources of a configuration. Contract in load.h.
 *
 * DESIGN: each source is parsed on its own, so that its positions are its own, and laid over what
 * came before; expansion runs once over the merged tree, so a value that a later source replaces is
 * never asked for.
 */
#include "pipeline/conf/load.h"

#include "base/str.h"
#include "pipeline/conf/expand.h"

#include <stdio.h>
#include <stdlib.h>

static int load_text(struct conf_build *b, const struct conf_source *source, struct bytes text,
		     struct conf_node **root)
{
	/* A byte order mark is no part of the first key. (libyaml reads UTF-16 by its mark.) */
	if (text.n >= 3 && memcmp(text.p, "\xef\xbb\xbf", 3) == 0)
		text = (struct bytes){ text.p + 3, text.n - 3 };
	return conf_tree_parse(b, text, source, root);
}

static int load_file(struct conf_build *b, const char *path, bool no_files, struct conf_node **root)
{
	const struct conf_source *source = conf_tree_source(b, path);
	struct err err = ERR_INIT;
	struct bytes text = BYTES_EMPTY;

	if (no_files)
		err_set(&err, ERR_PERMISSION, "files are not read here");
	if (no_files || conf_expand_file(b->arena, path, &text, &err) < 0) {
		conf_error_add(b->errors, (struct conf_pos){ source, 1, 1 }, NULL,
			       "check the path after --config", "%s", err.msg);
		return -1;
	}
	return load_text(b, source, text, root);
}

static int load_env(struct conf_build *b, const char *name, struct conf_node **root)
{
	const struct conf_source *source =
		conf_tree_source(b, arena_printf(b->arena, "env:%.200s", name));
	struct conf_pos pos = { source, 1, 1 };
	const char *text;

	if (!conf_expand_is_name(name)) {
		conf_error_add(b->errors, pos, NULL, "use letters, digits and underscores",
			       "environment variable \"%.100s\" has invalid name: must match regex "
			       "^[a-zA-Z_][a-zA-Z0-9_]*$",
			       name);
		return -1;
	}
	text = getenv(name);
	if (text == NULL) {
		conf_error_add(b->errors, pos, NULL, "put YAML text into it",
			       "environment variable \"%s\" is not set", name);
		return -1;
	}
	return load_text(b, source, bytes_str(arena_strdup(b->arena, text)), root);
}

/* One --config value. */
static int load_source(struct conf_build *b, const char *uri, bool no_files,
		       struct conf_node **root)
{
	const char *colon = strchr(uri, ':');
	size_t n = colon ? (size_t)(colon - uri) : 0;

	if (uri[0] == '\0') {
		const struct conf_source *source = conf_tree_source(b, "--config");

		conf_error_add(b->errors, (struct conf_pos){ source, 1, 1 }, NULL,
			       "use a path, file:, env: or yaml:", "an empty source");
		return -1;
	}
	if (str_has_prefix(uri, "file:"))
		return load_file(b, uri + 5, no_files, root);
	if (str_has_prefix(uri, "env:"))
		return load_env(b, uri + 4, root);
	if (str_has_prefix(uri, "yaml:"))
		return load_text(b, conf_tree_source(b, "yaml"), bytes_str(uri + 5), root);
	if (n >= 2 &&
	    n == strspn(uri, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+.-")) {
		const struct conf_source *source = conf_tree_source(b, "--config");

		conf_error_add(b->errors, (struct conf_pos){ source, 1, 1 }, NULL,
			       "use file:, env: or yaml:",
			       "scheme \"%.*s\" is not supported for uri \"%.100s\"",
			       (int)MIN(n, 50), uri, uri);
		return -1;
	}
	return load_file(b, uri, no_files, root);
}

/* The length of the next piece of a --set key, which ends at `.`, `::` or the key's end. */
static size_t piece_length(const char *key, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (key[i] == '.' || (key[i] == ':' && i + 1 < n && key[i + 1] == ':'))
			return i;
	return n;
}

static int bad_set(struct conf_build *b, struct conf_pos pos, const char *what, const char *arg)
{
	conf_error_add(b->errors, pos, NULL, "write --set a.b.c=value", what, arg);
	return -1;
}

/* The named value at the end of the key; `path` is the key's, for errors. */
static struct conf_node *set_value(struct conf_build *b, const char *arg, const char *eq,
				   struct conf_pos pos, const char *path, unsigned depth)
{
	const char *value = eq + 1 + strspn(eq + 1, " \t");

	pos.column = (unsigned)(value - arg) + 1;
	return conf_tree_value(b, bytes_str(value), pos, path, depth);
}

/* a.b.c=v: the maps a and b around the YAML value v, each with its own column in the argument. */
static int load_set(struct conf_build *b, const char *arg, struct conf_node **root)
{
	const struct conf_source *source = conf_tree_source(b, "--set");
	struct conf_pos pos = { source, 1, 1 };
	const char *eq = strchr(arg, '='), *key = arg + strspn(arg, " \t"), *end = eq, *path = "";
	struct conf_node *at = conf_tree_node(b, CONF_MAP, pos), *n;

	if (at == NULL)
		return -1;
	*root = at;
	while (end != NULL && end > key && (end[-1] == ' ' || end[-1] == '\t'))
		end--;
	if (eq == NULL || end <= key)
		return bad_set(b, pos, "\"%.100s\" has no key and `=`", arg);
	for (unsigned depth = 1;; depth++) {
		size_t len = piece_length(key, (size_t)(end - key));
		bool last = key + len == end;

		pos.column = (unsigned)(key - arg) + 1;
		if (len == 0 || len > CONF_KEY_BYTES_MAX || depth >= CONF_DEPTH_MAX)
			return bad_set(b, pos, "\"%.100s\" has an empty, too long or too deep key",
				       arg);
		path = arena_printf(b->arena, "%s%s%.*s", path, path[0] ? "." : "", (int)len, key);
		n = last ? set_value(b, arg, eq, pos, path, depth)
			 : conf_tree_node(b, CONF_MAP, pos);
		if (n == NULL)
			return -1;
		conf_tree_name(b, n, arena_strndup(b->arena, key, len), pos);
		conf_tree_append(at, n);
		if (last)
			return 0;
		at = n;
		key += len + (key[len] == '.' ? 1 : 2);
		if (key > end)
			key = end;
	}
}

static void lay_over(struct conf_node **all, struct conf_node *over)
{
	if (*all == NULL || (*all)->kind != CONF_MAP)
		*all = over;
	else if (over->kind == CONF_MAP)
		conf_tree_merge(*all, over);
}

struct conf_node *conf_load(const struct conf_request *r, struct arena *arena,
			    struct conf_errors *errors)
{
	struct conf_build b = { .arena = arena, .errors = errors };
	struct conf_pos nowhere = { conf_tree_source(&b, "--config"), 1, 1 };
	struct conf_node *all = NULL, *one;
	bool ok = true;

	if (r->n_configs == 0) {
		conf_error_add(errors, nowhere, NULL,
			       "for example --config configs/all-in-one.yaml",
			       "at least one config flag must be provided");
		ok = false;
	}
	for (size_t i = 0; i < r->n_configs; i++) {
		one = NULL;
		if (load_source(&b, r->configs[i], r->no_files, &one) == 0)
			lay_over(&all, one);
		else
			ok = false;
	}
	for (size_t i = 0; i < r->n_sets; i++) {
		one = NULL;
		if (load_set(&b, r->sets[i], &one) == 0)
			lay_over(&all, one);
		else
			ok = false;
	}
	/* With a source missing, what the rest refers to is not known to be wrong: say only what
	 * is. */
	if (!ok)
		return NULL;
	if (all->kind == CONF_NULL || all->n == 0) {
		conf_error_add(errors, all->pos, NULL,
			       "start with receivers:, exporters: and service:",
			       "empty configuration file");
		return NULL;
	}
	conf_expand(&b, all, r->no_files);
	return all;
}
