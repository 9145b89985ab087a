/* SPDX-License-Identifier: Apache-2.0
 *
 * tree.c - YAML text to a tree of nodes with positions. Contract in tree.h; printing is
 * in print.c.
 *
 * DESIGN: libyaml's event stream and a stack of open collections, at most CONF_DEPTH_MAX deep, so
 * nothing recurses over input. A key that holds "::" becomes nested maps as it is inserted, each
 * piece with its own column. An alias is a deep copy that counts against the bound on nodes; `<<`
 * takes over the entries of its maps that the map itself lacks. Children are a linked list searched
 * by hash: maps are small, and CONF_KEYS_MAX bounds the square. SPEC: YAML 1.1 syntax as libyaml
 * reads it, scalars by scalar.h; docs/formats/config.md.
 */
#include "pipeline/conf/tree.h"

#include "base/hash.h"
#include "base/map.h"
#include "base/str.h"
#include "pipeline/conf/scalar.h"

#include <stdio.h>
#include <yaml.h>

struct frame {
	struct conf_node *node;
	const char *anchor;
	const char *key; /* MAP: read, its value is next */
	struct conf_pos key_pos;
	struct conf_node *merges; /* values of `<<`, linked by next */
};

struct parse {
	struct conf_build *b;
	const struct conf_source *source;
	const struct conf_pos *fixed; /* a fragment: every node is positioned here */
	const struct conf_pos *start; /* a value: where its text begins in the source */
	const char *outer;            /* a value: the path of its key */
	bool quiet;                   /* a fragment: no error lines */
	unsigned base_depth;
	struct frame stack[CONF_DEPTH_MAX];
	unsigned depth;
	struct map anchors;
	struct conf_node *root;
	struct conf_pos second; /* where the second document begins */
	bool done;
};

const struct conf_source *conf_tree_source(struct conf_build *b, const char *name)
{
	struct conf_source *s = arena_zalloc(b->arena, sizeof(*s));

	s->name = arena_strdup(b->arena, name);
	s->rank = b->n_sources++;
	return s;
}

struct conf_node *conf_tree_node(struct conf_build *b, enum conf_kind kind, struct conf_pos pos)
{
	struct conf_node *n;

	if (b->n_nodes >= CONF_NODES_MAX) {
		if (b->n_nodes++ == CONF_NODES_MAX)
			conf_error_add(b->errors, pos, NULL, "aliases and ${...} count too",
				       "the configuration has more than %d values", CONF_NODES_MAX);
		return NULL;
	}
	b->n_nodes++;
	n = arena_zalloc(b->arena, sizeof(*n));
	n->kind = kind;
	n->pos = pos;
	return n;
}

struct conf_node *conf_tree_scalar(struct conf_build *b, const char *text, bool plain,
				   struct conf_pos pos)
{
	bool is_null = plain && conf_scalar_type(text, NULL) == CONF_TYPE_NULL;
	struct conf_node *n = conf_tree_node(b, is_null ? CONF_NULL : CONF_SCALAR, pos);

	if (n != NULL && !is_null) {
		n->plain = plain;
		n->text = arena_strdup(b->arena, text);
	}
	return n;
}

void conf_tree_append(struct conf_node *parent, struct conf_node *n)
{
	n->next = NULL;
	if (parent->last != NULL)
		parent->last->next = n;
	else
		parent->first = n;
	parent->last = n;
	parent->n++;
}

static uint32_t key_hash(const char *key)
{
	return hash_fnv1a_32(key, strlen(key));
}

void conf_tree_name(struct conf_build *b, struct conf_node *n, const char *key,
		    struct conf_pos key_pos)
{
	n->key = arena_strdup(b->arena, key);
	n->key_hash = key_hash(key);
	n->key_pos = key_pos;
}

struct conf_node *conf_tree_find(const struct conf_node *map, const char *key)
{
	uint32_t h = key_hash(key);

	if (map == NULL || map->kind != CONF_MAP)
		return NULL;
	for (struct conf_node *c = map->first; c != NULL; c = c->next) {
		if (c->key_hash == h && strcmp(c->key, key) == 0)
			return c;
	}
	return NULL;
}

/* The node at dotted `path`; *deepest is the last one that exists on the way. */
static struct conf_node *walk(const struct conf_node *map, const char *path,
			      const struct conf_node **deepest)
{
	const struct conf_node *at = map;

	*deepest = map;
	while (at != NULL && *path != '\0') {
		size_t n = strcspn(path, ".");
		char key[256];

		if (n >= sizeof(key))
			return NULL;
		memcpy(key, path, n);
		key[n] = '\0';
		at = conf_tree_find(at, key);
		if (at != NULL)
			*deepest = at;
		path += n + (path[n] == '.');
	}
	return (struct conf_node *)(uintptr_t)at;
}

struct conf_node *conf_tree_find_path(const struct conf_node *map, const char *path)
{
	const struct conf_node *deepest;

	return walk(map, path, &deepest);
}

struct conf_pos conf_tree_own_pos(const struct conf_node *n)
{
	bool empty = n->kind == CONF_NULL || (n->kind != CONF_SCALAR && n->n == 0);

	return n->key != NULL && (empty || n->pos.source == NULL) ? n->key_pos : n->pos;
}

struct conf_pos conf_tree_kind_pos(const struct conf_node *n)
{
	/* What a ${...} gave is written as a scalar, whatever it became. */
	return n->kind == CONF_SCALAR || n->raw != NULL || n->key == NULL ? n->pos : n->key_pos;
}

struct conf_pos conf_tree_pos(const struct conf_node *node, const char *key)
{
	const struct conf_node *deepest = node, *at = node;

	if (key != NULL && key[0] != '\0')
		at = walk(node, key, &deepest);
	if (at != NULL && at != node)
		return conf_tree_own_pos(at);
	return deepest->key != NULL ? deepest->key_pos : deepest->pos;
}

const char *conf_tree_type_name(const struct conf_node *n)
{
	static const char *const names[] = { "null", "bool", "int", "float", "string" };

	switch (n->kind) {
	case CONF_NULL:
		return "null";
	case CONF_LIST:
		return "list";
	case CONF_MAP:
		return "map";
	case CONF_SCALAR:
		break;
	}
	return n->plain ? names[conf_scalar_type(n->text, NULL)] : "string";
}

/* ---- the parser ---- */

static struct conf_pos mark_pos(const struct parse *p, yaml_mark_t m)
{
	struct conf_pos pos = { p->source, (unsigned)m.line + 1, (unsigned)m.column + 1 };

	if (p->fixed != NULL)
		return *p->fixed;
	if (p->start != NULL) {
		pos.line += p->start->line - 1;
		pos.column += m.line == 0 ? p->start->column - 1 : 0;
	}
	return pos;
}

/* The keys that lead to the place being parsed, for an error's path. */
static const char *path_here(const struct parse *p)
{
	struct buf b = BUF_INIT;
	const char *path;

	buf_add_str(&b, p->outer != NULL ? p->outer : "");
	for (unsigned i = 0; i < p->depth; i++) {
		const char *key = p->stack[i].key;

		if (key == NULL)
			continue;
		if (b.n > 0)
			buf_add_char(&b, '.');
		for (size_t j = 0; key[j] != '\0' && j < 200; j++) {
			if (key[j] == ':' && key[j + 1] == ':')
				buf_add_char(&b, key[++j] == ':' ? '.' : ':');
			else
				buf_add_char(&b, key[j]);
		}
	}
	path = arena_strdup(p->b->arena, buf_cstr(&b));
	buf_fini(&b);
	return path;
}

static int fail(struct parse *p, struct conf_pos pos, const char *hint, const char *what)
{
	if (!p->quiet)
		conf_error_add(p->b->errors, pos, path_here(p), hint, "%s", what);
	return -1;
}

/* An error, after which reading goes on without the second one: all mistakes are told at once. */
static int duplicate(struct parse *p, const struct conf_node *old, const struct conf_node *n)
{
	char hint[160];

	if (p->quiet)
		return -1;

	snprintf(hint, sizeof(hint), "it is already set at %.80s:%u:%u; remove one of them",
		 old->key_pos.source ? old->key_pos.source->name : "?", old->key_pos.line,
		 old->key_pos.column);
	conf_error_add(p->b->errors, n->key_pos, path_here(p), hint, "duplicate key \"%.100s\"",
		       n->key);
	return 0;
}

/* Put n (named) into map. Maps that stem from "::" keys grow together; anything else twice is an
 * error. */
static int map_insert(struct parse *p, struct conf_node *map, struct conf_node *n)
{
	struct conf_node *old = conf_tree_find(map, n->key), *next;

	if (old == NULL) {
		if (map->n >= CONF_KEYS_MAX)
			return fail(p, n->key_pos, "split it up", "a map has more than 4096 keys");
		conf_tree_append(map, n);
		return 0;
	}
	if (old->kind != CONF_MAP || n->kind != CONF_MAP || (!old->implicit && !n->implicit))
		return duplicate(p, old, n);
	for (struct conf_node *c = n->first; c != NULL; c = next) {
		next = c->next;
		if (map_insert(p, old, c) < 0) /* as deep as the tree: CONF_DEPTH_MAX */
			return -1;
	}
	return 0;
}

/* Insert value under key, which "::" splits into nested maps. */
static int insert_split(struct parse *p, struct conf_node *map, const char *key, struct conf_pos kp,
			struct conf_node *value, unsigned depth)
{
	const char *sep = strstr(key, "::");
	struct conf_node *outer = NULL, *into = NULL;

	while (sep != NULL) {
		struct conf_node *m = conf_tree_node(p->b, CONF_MAP, kp);

		if (m == NULL)
			return -1;
		if (++depth > CONF_DEPTH_MAX)
			return fail(p, kp, "flatten it", "nested deeper than 64 levels");
		m->implicit = true;
		conf_tree_name(p->b, m, arena_strndup(p->b->arena, key, (size_t)(sep - key)), kp);
		if (into != NULL)
			conf_tree_append(into, m);
		else
			outer = m;
		into = m;
		if (p->fixed == NULL)
			kp.column += (unsigned)(sep + 2 - key);
		key = sep + 2;
		sep = strstr(key, "::");
	}
	conf_tree_name(p->b, value, key, kp);
	if (into == NULL)
		return map_insert(p, map, value);
	conf_tree_append(into, value);
	return map_insert(p, map, outer);
}

static unsigned tree_depth(const struct conf_node *n)
{
	unsigned deepest = 0;

	for (const struct conf_node *c = n->first; c != NULL; c = c->next)
		deepest = MAX(deepest, tree_depth(c));
	return deepest + 1;
}

static struct conf_node *clone(struct conf_build *b, const struct conf_node *from)
{
	struct conf_node *n = conf_tree_node(b, from->kind, from->pos), *c;

	if (n == NULL)
		return NULL;
	*n = *from;
	n->first = n->last = n->next = NULL;
	n->n = 0;
	for (const struct conf_node *k = from->first; k != NULL; k = k->next) {
		c = clone(b, k);
		if (c == NULL)
			return NULL;
		conf_tree_append(n, c);
	}
	return n;
}

/* A finished value: into the collection that is open, or the root. Takes n. */
static int add_value(struct parse *p, struct conf_node *n)
{
	struct frame *f;
	int ret;

	if (p->depth == 0) {
		p->root = n;
		return 0;
	}
	f = &p->stack[p->depth - 1];
	if (f->node->kind == CONF_LIST) {
		conf_tree_append(f->node, n);
		return 0;
	}
	if (strcmp(f->key, "<<") == 0) {
		n->next = f->merges;
		f->merges = n;
		f->key = NULL;
		return 0;
	}
	ret = insert_split(p, f->node, f->key, f->key_pos, n, p->base_depth + p->depth);
	f->key = NULL;
	return ret;
}

/* Entries of `from` that the map lacks; a list of maps gives them in order. */
static int merge_in(struct parse *p, struct conf_node *map, struct conf_node *from)
{
	struct conf_node *next;

	if (from->kind != CONF_MAP && from->kind != CONF_LIST)
		return fail(p, from->pos, "write `<<: *anchor`",
			    "`<<` takes a map or a list of maps");
	for (struct conf_node *c = from->first; c != NULL; c = next) {
		next = c->next;
		if (from->kind == CONF_LIST) {
			if (c->kind != CONF_MAP)
				return fail(p, c->pos, "write `<<: [*a, *b]`",
					    "`<<` takes a list of maps");
			if (merge_in(p, map, c) < 0)
				return -1;
		} else if (conf_tree_find(map, c->key) == NULL && map_insert(p, map, c) < 0) {
			return -1;
		}
	}
	return 0;
}

static int open_frame(struct parse *p, enum conf_kind kind, const yaml_char_t *anchor,
		      struct conf_pos pos)
{
	struct frame *f = p->depth > 0 ? &p->stack[p->depth - 1] : NULL;
	struct conf_node *n;

	if (f != NULL && f->node->kind == CONF_MAP && f->key == NULL)
		return fail(p, pos, "use a plain name", "a key must be a scalar");
	if (p->base_depth + p->depth >= CONF_DEPTH_MAX)
		return fail(p, pos, "flatten it", "nested deeper than 64 levels");
	n = conf_tree_node(p->b, kind, pos);
	if (n == NULL)
		return -1;
	f = &p->stack[p->depth++];
	*f = (struct frame){ .node = n };
	if (anchor != NULL)
		f->anchor = arena_strdup(p->b->arena, (const char *)anchor);
	return 0;
}

static int close_frame(struct parse *p)
{
	struct frame *f = &p->stack[p->depth - 1];

	for (struct conf_node *m = f->merges, *next; m != NULL; m = next) {
		next = m->next;
		if (merge_in(p, f->node, m) < 0)
			return -1;
	}
	p->depth--;
	if (f->anchor != NULL) {
		/* A copy, because the node's own children may move into other maps (`<<`, "::"). */
		struct conf_node *kept = clone(p->b, f->node);

		if (kept == NULL)
			return -1;
		map_set(&p->anchors, bytes_str(f->anchor), kept);
	}
	return add_value(p, f->node);
}

static int on_key(struct parse *p, const char *key, size_t n, struct conf_pos pos)
{
	struct frame *f = &p->stack[p->depth - 1];

	if (strlen(key) != n || n > CONF_KEY_BYTES_MAX)
		return fail(p, pos, "use a plain name",
			    "a key holds a NUL or more than 2048 bytes");
	f->key = arena_strndup(p->b->arena, key, n);
	f->key_pos = pos;
	return 0;
}

static bool wants_key(const struct parse *p)
{
	const struct frame *f = p->depth > 0 ? &p->stack[p->depth - 1] : NULL;

	return f != NULL && f->node->kind == CONF_MAP && f->key == NULL;
}

/* What an explicit tag makes of a scalar: a string, or the type it names, quoted or not. */
static int apply_tag(struct parse *p, const char *tag, const char **text, bool *plain,
		     struct conf_pos pos)
{
	static const struct {
		const char *tag;
		enum conf_type type;
	} types[] = { { YAML_NULL_TAG, CONF_TYPE_NULL },
		      { YAML_BOOL_TAG, CONF_TYPE_BOOL },
		      { YAML_INT_TAG, CONF_TYPE_INT },
		      { YAML_FLOAT_TAG, CONF_TYPE_FLOAT } };
	enum conf_type is = conf_scalar_type(*text, NULL);

	if (strcmp(tag, YAML_STR_TAG) == 0 || strcmp(tag, "!") == 0)
		*plain = false;
	if (strcmp(tag, "tag:yaml.org,2002:binary") == 0) {
		size_t n = strlen(*text);
		uint8_t *bytes = arena_alloc(p->b->arena, 3 * (n / 4) + 4);
		long got = str_unbase64(bytes_str(*text), bytes);

		if (got < 0 || memchr(bytes, '\0', (size_t)got) != NULL)
			return fail(p, pos, "write the text itself",
				    "!!binary is not base64 of text");
		bytes[got] = '\0';
		*text = (const char *)bytes;
		*plain = false;
	}
	for (size_t i = 0; i < COUNT_OF(types); i++) {
		if (strcmp(tag, types[i].tag) != 0)
			continue;
		if (is != types[i].type &&
		    !(is == CONF_TYPE_INT && types[i].type == CONF_TYPE_FLOAT))
			return fail(p, pos, "remove the tag, or change the value",
				    arena_printf(p->b->arena, "cannot decode \"%.80s\" as %s",
						 *text, tag + strlen("tag:yaml.org,2002:")));
		*plain = true;
	}
	return 0;
}

static int on_scalar(struct parse *p, const yaml_event_t *ev)
{
	const char *text = (const char *)ev->data.scalar.value;
	const char *tag = (const char *)ev->data.scalar.tag;
	struct conf_pos pos = mark_pos(p, ev->start_mark);
	bool plain = ev->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
	struct conf_node *n;

	if (wants_key(p))
		return on_key(p, text, ev->data.scalar.length, pos);
	if (strlen(text) != ev->data.scalar.length)
		return fail(p, pos, "remove \\0", "a value holds a NUL character");
	if (tag != NULL && apply_tag(p, tag, &text, &plain, pos) < 0)
		return -1;
	n = conf_tree_scalar(p->b, text, plain, pos);
	if (n == NULL)
		return -1;
	if (ev->data.scalar.anchor != NULL)
		map_set(&p->anchors, bytes_str((const char *)ev->data.scalar.anchor), n);
	/* The parent gets its own copy of an anchored node, since `next` and `key` are part of it.
	 */
	return add_value(p, ev->data.scalar.anchor != NULL ? clone(p->b, n) : n);
}

static int on_alias(struct parse *p, const yaml_event_t *ev)
{
	struct conf_pos pos = mark_pos(p, ev->start_mark);
	const struct conf_node *to =
		map_find(&p->anchors, bytes_str((const char *)ev->data.alias.anchor));
	struct conf_node *n;

	if (to == NULL)
		return fail(p, pos, "define it before, as &name", "unknown anchor");
	if (wants_key(p)) {
		if (to->kind != CONF_SCALAR)
			return fail(p, pos, "use a plain name", "a key must be a scalar");
		return on_key(p, to->text, strlen(to->text), pos);
	}
	if (p->base_depth + p->depth + tree_depth(to) > CONF_DEPTH_MAX)
		return fail(p, pos, "flatten it", "nested deeper than 64 levels");
	n = clone(p->b, to);
	if (n == NULL)
		return -1;
	n->key = NULL;
	return add_value(p, n);
}

/* After the first document: a warning, unless the second is empty too. */
static int after_document(struct parse *p, const yaml_event_t *ev)
{
	if (ev->type == YAML_DOCUMENT_START_EVENT) {
		p->second = mark_pos(p, ev->start_mark);
		return p->quiet ? -1 : 0;
	}
	p->done = true;
	if (ev->type == YAML_SCALAR_EVENT && ev->data.scalar.length == 0)
		return 0;
	conf_error_warn(p->b->errors, p->second, NULL, "remove what follows `---`",
			"only the first YAML document is read");
	return 0;
}

static int on_event(struct parse *p, const yaml_event_t *ev)
{
	if (p->depth == 0 && p->root != NULL && ev->type != YAML_STREAM_END_EVENT &&
	    ev->type != YAML_DOCUMENT_END_EVENT)
		return after_document(p, ev);
	switch (ev->type) {
	case YAML_ALIAS_EVENT:
		return on_alias(p, ev);
	case YAML_SCALAR_EVENT:
		return on_scalar(p, ev);
	case YAML_SEQUENCE_START_EVENT:
		return open_frame(p, CONF_LIST, ev->data.sequence_start.anchor,
				  mark_pos(p, ev->start_mark));
	case YAML_MAPPING_START_EVENT:
		return open_frame(p, CONF_MAP, ev->data.mapping_start.anchor,
				  mark_pos(p, ev->start_mark));
	case YAML_SEQUENCE_END_EVENT:
	case YAML_MAPPING_END_EVENT:
		return close_frame(p);
	case YAML_STREAM_END_EVENT:
		p->done = true;
		return 0;
	default:
		return 0;
	}
}

/* The reader stops at a byte, not at a mark. */
static yaml_mark_t mark_of_offset(struct bytes text, size_t offset)
{
	yaml_mark_t m = { 0, 0, 0 };

	for (size_t i = 0; i < MIN(offset, text.n); i++) {
		if (text.p[i] == '\n') {
			m.line++;
			m.column = 0;
		} else if ((text.p[i] & 0xc0) != 0x80) {
			m.column++;
		}
	}
	return m;
}

static int syntax_error(struct parse *p, const yaml_parser_t *y, struct bytes text)
{
	char what[200];
	char hint[120] = "check the indentation, quotes and brackets here";
	yaml_mark_t m = y->problem_mark;

	if (y->error == YAML_READER_ERROR) {
		snprintf(what, sizeof(what), "not YAML, %.100s (0x%02x)",
			 y->problem ? y->problem : "unreadable", (unsigned)y->problem_value);
		return fail(p, mark_pos(p, mark_of_offset(text, y->problem_offset)),
			    "a configuration is UTF-8 text", what);
	}
	if (m.index >= text.n) /* libyaml ends every text with a line end of its own */
		m = mark_of_offset(text, text.n);
	else if (text.p[m.index] == '\t')
		return fail(p, mark_pos(p, m), "indent with spaces",
			    "not YAML, a tab cannot indent");
	if (y->context != NULL)
		snprintf(hint, sizeof(hint), "%.60s that starts at %zu:%zu", y->context,
			 y->context_mark.line + 1, y->context_mark.column + 1);
	snprintf(what, sizeof(what), "not YAML, %.150s", y->problem ? y->problem : "unreadable");
	return fail(p, mark_pos(p, m), hint, what);
}

static int run(struct parse *p, struct bytes text)
{
	yaml_parser_t y;
	int ret = 0;

	if (!yaml_parser_initialize(&y))
		return fail(p, (struct conf_pos){ p->source, 1, 1 }, NULL, "out of memory");
	yaml_parser_set_input_string(&y, text.p, text.n);
	while (ret == 0 && !p->done) {
		yaml_event_t ev;

		if (!yaml_parser_parse(&y, &ev)) {
			ret = syntax_error(p, &y, text);
			break;
		}
		ret = on_event(p, &ev);
		yaml_event_delete(&ev);
	}
	yaml_parser_delete(&y);
	map_fini(&p->anchors);
	return ret;
}

int conf_tree_parse(struct conf_build *b, struct bytes text, const struct conf_source *source,
		    struct conf_node **root)
{
	struct parse p = { .b = b, .source = source, .anchors = MAP_INIT };
	struct conf_pos start = { source, 1, 1 };

	if (text.n > CONF_BYTES_MAX)
		return fail(&p, start, "split it up", "larger than 4 MiB");
	if (run(&p, text) < 0)
		return -1;
	if (p.root == NULL)
		p.root = conf_tree_node(b, CONF_NULL, start);
	if (p.root == NULL)
		return -1;
	if (p.root->kind != CONF_MAP && p.root->kind != CONF_NULL)
		return fail(&p, p.root->pos, "start with receivers:, exporters: and service:",
			    "a configuration must be a map of keys");
	*root = p.root;
	return 0;
}

struct conf_node *conf_tree_fragment(struct conf_build *b, struct bytes text, struct conf_pos pos,
				     unsigned depth)
{
	struct parse p = {
		.b = b, .fixed = &pos, .quiet = true, .base_depth = depth, .anchors = MAP_INIT
	};

	if (text.n > CONF_BYTES_MAX || run(&p, text) < 0)
		return NULL;
	return p.root != NULL ? p.root : conf_tree_node(b, CONF_NULL, pos);
}

struct conf_node *conf_tree_value(struct conf_build *b, struct bytes text, struct conf_pos pos,
				  const char *path, unsigned depth)
{
	struct parse p = { .b = b,
			   .source = pos.source,
			   .start = &pos,
			   .outer = path,
			   .base_depth = depth,
			   .anchors = MAP_INIT };

	if (run(&p, text) < 0)
		return NULL;
	return p.root != NULL ? p.root : conf_tree_node(b, CONF_NULL, pos);
}

void conf_tree_merge(struct conf_node *base, struct conf_node *over)
{
	struct conf_node *next;

	for (struct conf_node *c = over->first; c != NULL; c = next) {
		struct conf_node *old = conf_tree_find(base, c->key);

		next = c->next;
		if (old == NULL) {
			conf_tree_append(base, c);
		} else if (old->kind == CONF_MAP && c->kind == CONF_MAP) {
			conf_tree_merge(old, c);
		} else {
			struct conf_node *after =
				old->next; /* replaced where it stands: order is kept */

			*old = *c;
			old->next = after;
		}
	}
}
