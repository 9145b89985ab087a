/* SPDX-License-Identifier: Apache-2.0
 *
 * values.h - single values of option rows: from YAML nodes, to text, examples. Only
 * option*.c includes it.
 */
#ifndef PIPELINE_OPTION_VALUES_H
#define PIPELINE_OPTION_VALUES_H

#include "pipeline/conf/tree.h"
#include "pipeline/option/option.h"

/* A table and the key under which it hangs in the one above (NULL: at the same level, or the top).
 */
struct option_scope {
	const struct option *table;
	const char *prefix;
	const struct option_scope *up;
};

/* The row's default: its own unless a table further out has an OPT_DEFAULT for it; the outermost
 * wins. */
const char *option_scope_default(const struct option_scope *s, const struct option *row);

struct option_value {
	struct arena *arena;
	struct conf_errors *errors;
	const char *path; /* of the value, for errors */
};

/* Zero, "" or empty. */
void option_value_clear(const struct option *o, uint8_t *config);
/* Set the member from n; null keeps what is there. Adds an error and keeps what is there when n
 * does not fit. */
void option_value_parse(const struct option_value *v, const struct option *o,
			const struct conf_node *n, uint8_t *config);
/* The member as a node, or NULL when it is empty and has no default. */
struct conf_node *option_value_node(struct conf_build *b, const struct option *o,
				    const char *fallback, const uint8_t *config, bool redact);
/* Something that could stand after the colon; never NULL. */
const char *option_value_example(const struct option *o, const char *fallback, const char *key);

#endif
