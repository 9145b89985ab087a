/* SPDX-License-Identifier: Apache-2.0
 *
 * expand.c - replaces ${...} in scalars. Contract in expand.h.
 *
 * DESIGN: as the Collector does it, so that users' files mean the same: find the first innermost
 * ${...} that no odd run of $ escapes, replace it everywhere in the value by its text, again until
 * nothing is left; last, halve the $$. (Not everywhere at once as the Collector does: that would
 * replace an escaped twin too.) A value that is one ${...} and nothing else is parsed as YAML, and
 * keeps the text as `raw` for string options.
 */
#include "pipeline/conf/expand.h"

#include "pipeline/conf/scalar.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum { EXPANSIONS_MAX = 1000, EXPANDED_BYTES_MAX = 64 << 20 };
#define NAME_PATTERN "^[a-zA-Z_][a-zA-Z0-9_]*$"

/* Where a node is, linked upwards; turned into text only for an error. */
struct place {
	const struct place *up;
	const struct conf_node *node;
	size_t index;
};

struct expand {
	struct conf_build *b;
	bool no_files;
};

static const char *place_text(struct arena *a, const struct place *at)
{
	const char *up;

	if (at == NULL || at->up == NULL)
		return "";
	up = place_text(a, at->up);
	if (at->node->key == NULL)
		return arena_printf(a, "%s[%zu]", up, at->index);
	return arena_printf(a, "%s%s%.200s", up, up[0] ? "." : "", at->node->key);
}

/* The YAML path for an error; "" once there are more errors than will be shown. */
static const char *place_path(const struct expand *x, const struct place *at)
{
	return conf_error_is_full(x->b->errors) ? "" : place_text(x->b->arena, at);
}

bool conf_expand_is_name(const char *name)
{
	if (*name >= '0' && *name <= '9')
		return false;
	for (const char *p = name; *p != '\0'; p++) {
		if (!((*p >= '0' && *p <= '9') || (*p >= 'a' && *p <= 'z') ||
		      (*p >= 'A' && *p <= 'Z') || *p == '_'))
			return false;
	}
	return *name != '\0';
}

int conf_expand_file(struct arena *arena, const char *path, struct bytes *out, struct err *err)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK), ret = -1;
	struct buf b = BUF_INIT;
	struct stat st;
	ssize_t got = 1;

	if (fd < 0 || fstat(fd, &st) < 0) {
		err_errno(err, "cannot be read");
		goto out;
	}
	if (S_ISDIR(st.st_mode)) {
		err_set(err, ERR_INVALID, "cannot be read: not a regular file");
		goto out;
	}
	if (!S_ISREG(st.st_mode)) /* <(process substitution), /dev/stdin: wait for the writer */
		fcntl(fd, F_SETFL, 0);
	while (got > 0 && b.n <= CONF_BYTES_MAX) {
		got = read(fd, buf_reserve(&b, 65536), 65536);
		if (got < 0 && errno == EINTR)
			got = 1;
		else if (got > 0)
			b.n += (size_t)got;
	}
	if (got < 0)
		err_errno(err, "cannot be read");
	else if (b.n > CONF_BYTES_MAX)
		err_set(err, ERR_TOO_LARGE, "larger than 4 MiB");
	else
		ret = 0;
	if (ret == 0)
		*out = (struct bytes){ arena_dup(arena, buf_cstr(&b), b.n + 1), b.n };
out:
	if (fd >= 0)
		close(fd);
	buf_fini(&b);
	return ret;
}

/* The first ${...} to expand: the shortest that ends at the first }, unless escaped. 1 and its
 * range, or 0. */
static int find_uri(const char *text, size_t *start, size_t *end)
{
	const char *from = text, *close;

	while ((close = strchr(from, '}')) != NULL) {
		const char *open = NULL;
		size_t dollars = 0;

		for (const char *p = close; p > from; p--) {
			if (p[-1] == '$' && p[0] == '{') {
				open = p - 1;
				break;
			}
		}
		while (open != NULL && open - dollars > from &&
		       open[-1 - (ptrdiff_t)dollars] == '$')
			dollars++;
		if (open != NULL && dollars % 2 == 0) {
			*start = (size_t)(open - text);
			*end = (size_t)(close + 1 - text);
			return 1;
		}
		from = close + 1;
	}
	return 0;
}

static int fail(struct expand *x, const struct place *at, const char *hint, const char *what)
{
	conf_error_add(x->b->errors, at->node->pos, place_path(x, at), hint, "%s", what);
	return -1;
}

/* ${env:NAME} and ${env:NAME:-default}. *text is NULL when the variable is unset and has no
 * default. */
static int expand_env(struct expand *x, const struct place *at, const char *spec, const char **text)
{
	struct arena *a = x->b->arena;
	const char *dflt = strstr(spec, ":-");
	const char *name = dflt ? arena_strndup(a, spec, (size_t)(dflt - spec)) : spec;

	if (!conf_expand_is_name(name))
		return fail(x, at, "use letters, digits and underscores",
			    arena_printf(a,
					 "environment variable \"%.100s\" has invalid name: must "
					 "match regex "
					 "%s",
					 name, NAME_PATTERN));
	*text = getenv(name);
	if (*text != NULL)
		*text = arena_strdup(a, *text);
	else if (dflt != NULL)
		*text = dflt + 2;
	else
		conf_error_warn(x->b->errors, at->node->pos, place_path(x, at),
				arena_printf(a, "set it, or write ${env:%.100s:-default}", name),
				"environment variable \"%.100s\" is not set", name);
	return 0;
}

static int expand_file(struct expand *x, const struct place *at, const char *path,
		       const char **text)
{
	struct err err = ERR_INIT;
	struct bytes got = BYTES_EMPTY;
	char *s;

	if (x->no_files)
		return fail(x, at, NULL, "files are not read here");
	if (conf_expand_file(x->b->arena, path, &got, &err) < 0)
		return fail(x, at, "check the path and its permissions",
			    arena_printf(x->b->arena, "file \"%.200s\" %s", path, err.msg));
	if (memchr(got.p, '\0', got.n) != NULL)
		return fail(
			x, at, "it must be text",
			arena_printf(x->b->arena, "file \"%.200s\" holds a NUL character", path));
	/* Editors and `kubectl create secret` leave a line end that no one means. */
	s = arena_strndup(x->b->arena, (const char *)got.p, got.n);
	if (got.n > 0 && s[got.n - 1] == '\n')
		s[got.n - 1] = '\0';
	*text = s;
	return 0;
}

/* The text that stands for ${spec}. */
static int resolve(struct expand *x, const struct place *at, const char *spec, const char **text)
{
	const char *colon = strchr(spec, ':');
	size_t n = colon ? (size_t)(colon - spec) : 0;

	/* ${NAME} and, as shells have it, ${NAME:-default} */
	if (colon == NULL || colon[1] == '-')
		return expand_env(x, at, spec, text);
	if (n == 3 && memcmp(spec, "env", 3) == 0)
		return expand_env(x, at, colon + 1, text);
	if (n == 4 && memcmp(spec, "file", 4) == 0)
		return expand_file(x, at, colon + 1, text);
	if (n == 4 && memcmp(spec, "yaml", 4) == 0) {
		*text = colon + 1;
		return 0;
	}
	return fail(x, at, "use env:, file: or yaml:; write $$ for a plain dollar",
		    arena_printf(x->b->arena, "scheme \"%.*s\" is not supported for uri \"%.100s\"",
				 (int)MIN(n, 50), spec, spec));
}

/* text with the range start..end replaced; NULL over the limits. */
static const char *replace(struct expand *x, const char *text, size_t start, size_t end,
			   const char *by)
{
	size_t n = start + strlen(by) + strlen(text + end);

	x->b->n_expanded_bytes += n;
	if (n > CONF_BYTES_MAX || x->b->n_expanded_bytes > EXPANDED_BYTES_MAX)
		return NULL;
	return arena_printf(x->b->arena, "%.*s%s%s", (int)start, text, by, text + end);
}

/* Make n what `text` means as YAML; n keeps its name and position. Strings stay verbatim, quotes
 * and all. */
static void become(struct expand *x, struct conf_node *n, const char *text, unsigned depth)
{
	struct conf_node *v = conf_tree_fragment(x->b, bytes_str(text), n->pos, depth);

	n->raw = text;
	n->first = n->last = NULL;
	n->n = 0;
	if (v == NULL ||
	    (v->kind == CONF_SCALAR && strcmp(conf_tree_type_name(v), "string") == 0)) {
		n->kind = CONF_SCALAR;
		n->plain = false;
		n->text = text;
		return;
	}
	n->kind = v->kind;
	n->plain = v->plain;
	n->text = v->text;
	n->first = v->first;
	n->last = v->last;
	n->n = v->n;
}

static int expand_scalar(struct expand *x, const struct place *at, struct conf_node *n,
			 unsigned depth)
{
	size_t start, end;

	for (int i = 0; n->kind == CONF_SCALAR && find_uri(n->text, &start, &end); i++) {
		const char *by = NULL, *spec;

		if (i >= EXPANSIONS_MAX)
			return fail(x, at, "a value refers to itself",
				    "too many recursive expansions");
		spec = arena_strndup(x->b->arena, n->text + start + 2, end - start - 3);
		x->b->n_expanded_bytes += end - start;
		if (resolve(x, at, spec, &by) < 0)
			return -1;
		if (start == 0 && n->text[end] == '\0') {
			if (by != NULL) {
				x->b->n_expanded_bytes += strlen(by);
				if (x->b->n_expanded_bytes > EXPANDED_BYTES_MAX)
					return fail(x, at, "shorten it",
						    "${...} expands to too much text");
				become(x, n, by, depth);
			} else {
				n->kind = CONF_NULL;
				n->raw = NULL;
			}
			continue;
		}
		n->text = replace(x, n->text, start, end, by ? by : "");
		n->plain = false;
		n->joined = true;
		n->raw = NULL;
		if (n->text == NULL) {
			return fail(x, at, "shorten it", "${...} expands to too much text");
		}
	}
	return 0;
}

static void expand_node(struct expand *x, const struct place *up, struct conf_node *n, size_t index,
			unsigned depth)
{
	struct place at = { up, n, index };
	size_t i = 0;

	if (conf_error_is_full(x->b->errors))
		return;
	if (n->kind == CONF_SCALAR && strchr(n->text, '$') != NULL &&
	    expand_scalar(x, &at, n, depth) < 0) {
		/* One line is enough: what was not expanded is not checked further. */
		n->kind = CONF_NULL;
		n->raw = NULL;
		return;
	}
	for (struct conf_node *c = n->first; c != NULL; c = c->next)
		expand_node(x, &at, c, i++, depth + 1);
}

static const char *halve_dollars(struct arena *a, const char *s)
{
	char *out, *to;

	if (s == NULL || strstr(s, "$$") == NULL)
		return s;
	out = arena_strdup(a, s);
	for (to = out; *s != '\0'; s++) {
		*to++ = *s;
		if (s[0] == '$' && s[1] == '$')
			s++;
	}
	*to = '\0';
	return out;
}

static void unescape(struct arena *a, struct conf_node *n)
{
	if (n->kind == CONF_SCALAR)
		n->text = halve_dollars(a, n->text);
	n->raw = halve_dollars(a, n->raw);
	for (struct conf_node *c = n->first; c != NULL; c = c->next)
		unescape(a, c);
}

void conf_expand(struct conf_build *b, struct conf_node *root, bool no_files)
{
	struct expand x = { b, no_files };

	expand_node(&x, NULL, root, 0, 0);
	unescape(b->arena, root);
}
