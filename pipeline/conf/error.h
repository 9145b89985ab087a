/* SPDX-License-Identifier: Apache-2.0
 *
 * error.h - collects what is wrong with a configuration and prints it all at once.
 *
 *   <source>:<line>:<column>: <yaml.path>: <what>: <hint>          INTERFACE.md "Config errors"
 *   warning: <source>:<line>:<column>: <yaml.path>: <what>: <hint>
 *
 * OWNERSHIP, THREADS: owns its lines (copies of everything it is told); one thread at a time.
 * LIMITS: 200 lines are kept, the rest only counted; control characters are written as \xNN, so a
 * line is a line.
 */
#ifndef PIPELINE_CONF_ERROR_H
#define PIPELINE_CONF_ERROR_H

#include "base/base.h"
#include "base/buf.h"

/* Where configuration text came from. `name` is what errors print; `rank` orders sources as they
 * were merged. */
struct conf_source {
	const char *name;
	unsigned rank;
};

/* A place in a source. Lines and columns (in characters) count from 1; a NULL source prints no
 * position. */
struct conf_pos {
	const struct conf_source *source;
	unsigned line;
	unsigned column;
};

struct conf_node;
struct conf_line;

struct conf_errors {
	struct conf_line *lines;
	size_t n, cap;
	unsigned n_errors, n_warnings;
};

#define CONF_ERRORS_INIT                                                                           \
	{                                                                                          \
		NULL, 0, 0, 0, 0                                                                   \
	}

/* Record an error. `path` (NULL or "": the document as a whole) is the YAML path with dots, `fmt`
 * says what is wrong, `hint` (may be NULL) what to do about it. Borrows everything. */
void conf_error_add(struct conf_errors *e, struct conf_pos pos, const char *path, const char *hint,
		    const char *fmt, ...) PRINTF_LIKE(5, 6);
/* The same for something that does not stop the program. */
void conf_error_warn(struct conf_errors *e, struct conf_pos pos, const char *path, const char *hint,
		     const char *fmt, ...) PRINTF_LIKE(5, 6);
/* For a component's `validate`: an error about `key` (dots for nested maps; NULL: the section
 * itself) inside the section `node` (may be NULL) that sits at `path`. The position is that of the
 * value when the user wrote one, of its key when that is null or empty, else of the nearest
 * parent's key. */
void conf_error_at(struct conf_errors *e, const struct conf_node *node, const char *path,
		   const char *key, const char *hint, const char *fmt, ...) PRINTF_LIKE(6, 7);
/* True once further lines would only be counted: callers skip what they would only say. */
bool conf_error_is_full(const struct conf_errors *e);
/* Every line to `out`, ordered by source, line and column, each ended by \n. */
void conf_error_print(struct conf_errors *e, struct buf *out);
void conf_error_fini(struct conf_errors *e);

#endif
