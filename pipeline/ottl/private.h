/* SPDX-License-Identifier: Apache-2.0
 *
 * private.h - the tree of a condition: made by parse.c, walked by eval.c, its leaves
 * read by path.c.
 */
#ifndef PIPELINE_OTTL_PRIVATE_H
#define PIPELINE_OTTL_PRIVATE_H

#include "base/arena.h"
#include "base/regex.h"
#include "pipeline/ottl/ottl.h"
#include "wire/any_value.h"

enum ottl_kind {
	OTTL_NIL,
	OTTL_BOOL,
	OTTL_INT,
	OTTL_DOUBLE,
	OTTL_STRING,
	OTTL_BYTES,
	OTTL_LIST, /* s: an ArrayValue message */
	OTTL_MAP,  /* s: a KeyValueList message */
};

struct ottl_value {
	enum ottl_kind kind;
	union {
		bool b;
		int64_t i;
		double d;
	};
	struct bytes s;
};

/* A path by its field; keys follow for attributes and trace_state. */
enum ottl_field {
	OTTL_FIELD_NONE,
	OTTL_ATTRIBUTES,
	OTTL_TRACE_ID,
	OTTL_TRACE_ID_STRING,
	OTTL_SPAN_ID,
	OTTL_SPAN_ID_STRING,
	OTTL_PARENT_ID,
	OTTL_PARENT_ID_STRING,
	OTTL_TRACE_STATE,
	OTTL_NAME,
	OTTL_VERSION,
	OTTL_KIND,
	OTTL_KIND_STRING,
	OTTL_KIND_OLD_STRING,
	OTTL_START,
	OTTL_END,
	OTTL_TIME,
	OTTL_STATUS_CODE,
	OTTL_STATUS_MESSAGE,
	OTTL_FLAGS,
	OTTL_DROPPED_ATTRIBUTES,
	OTTL_DROPPED_EVENTS,
	OTTL_DROPPED_LINKS,
	OTTL_SCHEMA_URL,
	OTTL_EVENT_INDEX,
};

struct ottl_key {
	bool is_index;
	uint64_t index;
	struct bytes name;
};

enum ottl_op {
	OP_LITERAL,
	OP_PATH,
	OP_CALL,
	OP_OR,
	OP_AND,
	OP_NOT,
	OP_EQ,
	OP_NE,
	OP_LT,
	OP_LE,
	OP_GT,
	OP_GE,
	OP_ADD,
	OP_SUB,
	OP_MUL,
	OP_DIV,
};

enum { OTTL_ARGS_MAX = 8, OTTL_KEYS_MAX = 8 };

struct ottl_function;

struct ottl_node {
	enum ottl_op op;
	struct ottl_value value; /* LITERAL */
	enum ottl_context context;
	enum ottl_field field;
	struct ottl_key *keys;
	unsigned n_keys, n_args;
	struct ottl_node *args[OTTL_ARGS_MAX]; /* operands, or arguments */
	const struct ottl_function *function;
	struct regex *pattern; /* IsMatch with a literal: compiled */
};

struct ottl_condition {
	struct arena arena;
	struct ottl_node *root;
	enum ottl_context context;
	struct regex **patterns; /* to be freed */
	size_t n_patterns, patterns_cap;
};

/* What a function gets and gives. -1 with a reason in err: it cannot be told. */
struct ottl_call {
	const struct ottl_node *node;
	const struct ottl_subject *subject;
	const struct ottl_value *args;
	struct arena *scratch;
	struct err *err;
};
struct ottl_function {
	const char *name;
	unsigned min_args, max_args;
	bool wants_pattern; /* the second argument is a literal pattern */
	int (*fn)(const struct ottl_call *call, struct ottl_value *out);
};
/* By name, or NULL; ottl_function_nearest is for its error. */
const struct ottl_function *ottl_function_find(struct bytes name);
const char *ottl_function_nearest(const char *name);

/* The field of a dotted path without its context prefix; OTTL_FIELD_NONE: there is none.
 * *takes_keys: may ["..."] follow? */
enum ottl_field ottl_path_field(enum ottl_context context, struct bytes name, bool *takes_keys);
/* The path of a context that is spelt most like this one, for an error. */
const char *ottl_path_nearest(enum ottl_context context, const char *name);
/* The value a path has for this subject; nil when there is none. */
void ottl_path_get(const struct ottl_node *path, const struct ottl_subject *subject,
		   struct arena *scratch, struct ottl_value *out);

#endif
