/* SPDX-License-Identifier: Apache-2.0
 *
 * tree.h - configuration as a tree of nodes that remember where they were written.
 *
 *   receivers: {otlp: {protocols: {grpc: }}}
 *   MAP --first--> MAP key "otlp" --first--> MAP key "protocols" --first--> NULL key "grpc"
 *
 * OWNERSHIP, THREADS: nodes and texts live in the arena of the load and are dropped with it; one
 * thread at a time while it is built, any thread once it is complete (nothing changes it then).
 * LIMITS: see CONF_*_MAX; alias copies count, so a "billion laughs" file is an error, not a bill.
 * SPEC: YAML by libyaml; docs/formats/config.md.
 */
#ifndef PIPELINE_CONF_TREE_H
#define PIPELINE_CONF_TREE_H

#include "base/arena.h"
#include "base/base.h"
#include "base/buf.h"
#include "pipeline/conf/error.h"

enum {
	CONF_DEPTH_MAX = 64,
	CONF_NODES_MAX = 100000,
	CONF_BYTES_MAX = 4 << 20, /* of one source */
	CONF_KEYS_MAX = 4096,     /* in one map */
	CONF_KEY_BYTES_MAX = 2048,
};

enum conf_kind { CONF_NULL, CONF_SCALAR, CONF_LIST, CONF_MAP };

struct conf_node {
	enum conf_kind kind;
	bool plain;    /* SCALAR: not quoted, so YAML gives it a type by its text */
	bool implicit; /* MAP made by splitting a key at "::" */
	bool joined;   /* SCALAR: text beside a ${...}, so a string whatever it looks like */
	uint32_t key_hash;
	const char *text; /* SCALAR: NUL-terminated, holds no other NUL */
	const char *raw;  /* text behind a whole-value ${...}, which is what a string option gets;
			     else NULL */
	const char *key;  /* as an entry of a map, else NULL */
	struct conf_pos pos; /* of the value */
	struct conf_pos key_pos;
	struct conf_node *first, *last, *next;
	size_t n; /* children */
};

/* What one load shares: memory, the error list and the count of nodes made. Zero n_nodes at the
 * start. */
struct conf_build {
	struct arena *arena;
	struct conf_errors *errors;
	size_t n_nodes;
	size_t n_expanded_bytes; /* texts made by ${...}, bounded by conf_expand */
	unsigned n_sources;
};

/* A source for positions, copied into the arena. */
const struct conf_source *conf_tree_source(struct conf_build *b, const char *name);

/* Parse YAML text. 0 and *root (a MAP or NULL, the only things a document may be), or -1 with the
 * reason in b->errors. Borrows text. */
int conf_tree_parse(struct conf_build *b, struct bytes text, const struct conf_source *source,
		    struct conf_node **root);
/* Parse one value of any kind that stands at `pos` in its source, for a key whose path is `path`;
 * NULL with an error line when it is not YAML. */
struct conf_node *conf_tree_value(struct conf_build *b, struct bytes text, struct conf_pos pos,
				  const char *path, unsigned depth);
/* Parse one value of any kind, every node of it positioned at `pos`. Returns NULL, without an error
 * line, when the text is not YAML; `depth` is that of the place it is for. */
struct conf_node *conf_tree_fragment(struct conf_build *b, struct bytes text, struct conf_pos pos,
				     unsigned depth);

/* A new node in b's arena; NULL when the bound on nodes is reached (reported once). */
struct conf_node *conf_tree_node(struct conf_build *b, enum conf_kind kind, struct conf_pos pos);
struct conf_node *conf_tree_scalar(struct conf_build *b, const char *text, bool plain,
				   struct conf_pos pos);
/* Append to a list, or to a map under n->key (no check for duplicates). */
void conf_tree_append(struct conf_node *parent, struct conf_node *n);
/* Name a node; copies key. */
void conf_tree_name(struct conf_build *b, struct conf_node *n, const char *key,
		    struct conf_pos key_pos);

/* The entry of a map, or NULL (also when map is NULL or of another kind). */
struct conf_node *conf_tree_find(const struct conf_node *map, const char *key);
/* The same along a dotted path. */
struct conf_node *conf_tree_find_path(const struct conf_node *map, const char *path);
/* Where to point for dotted `key` inside `node`: its value; its key when it is null or empty; else
 * the deepest parent key that exists. key may be NULL. */
struct conf_pos conf_tree_pos(const struct conf_node *node, const char *key);
/* Where to point for the node itself: its key when it has one and is null or empty, else its value.
 */
struct conf_pos conf_tree_own_pos(const struct conf_node *n);
/* Where to point when the node is of the wrong kind: a scalar itself, else its key. */
struct conf_pos conf_tree_kind_pos(const struct conf_node *n);
/* "null", "bool", "int", "float", "string", "list" or "map": what YAML makes of the node. */
const char *conf_tree_type_name(const struct conf_node *n);

/* Lay `over` on `base`: maps merge by key, anything else is replaced (null too). Both must be maps;
 * nodes of `over` are moved. */
void conf_tree_merge(struct conf_node *base, struct conf_node *over);

/* As block YAML, or JSON with two-blank indentation; both end with \n and read back as the same
 * tree. */
void conf_tree_print_yaml(const struct conf_node *n, struct buf *out);
void conf_tree_print_json(const struct conf_node *n, struct buf *out);
/* JSON on one line, without an end of line; for JSON readers: no `$` is doubled. */
void conf_tree_print_json_line(const struct conf_node *n, struct buf *out);

#endif
