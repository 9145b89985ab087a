/* SPDX-License-Identifier: Apache-2.0
 *
 * expand.h - ${...} in configuration values, and reading the places configuration comes from.
 *
 * SPEC: docs/formats/config.md "Expansion": ${env:NAME} ${NAME} ${env:NAME:-default} ${file:/path}
 * ${yaml:...}, nested;
 * $$ is a dollar. LIMITS: 1,000 expansions a value, 4 MiB a text, 64 MiB a load.
 */
#ifndef PIPELINE_CONF_EXPAND_H
#define PIPELINE_CONF_EXPAND_H

#include "base/err.h"
#include "pipeline/conf/tree.h"

/* Expand every scalar under root in place; positions stay those of the scalars in their source.
 * no_files refuses
 * ${file:...} (fuzzing). Problems go to b->errors; unset variables are warnings. One thread at a
 * time (getenv). */
void conf_expand(struct conf_build *b, struct conf_node *root, bool no_files);
/* A whole regular file of at most CONF_BYTES_MAX into the arena, NUL-terminated. 0, or -1 with a
 * reason. */
int conf_expand_file(struct arena *arena, const char *path, struct bytes *out, struct err *err);
/* [A-Za-z_][A-Za-z0-9_]* */
bool conf_expand_is_name(const char *name);

#endif
