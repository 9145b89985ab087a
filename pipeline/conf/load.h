/* SPDX-License-Identifier: Apache-2.0
 *
 * load.h - the sources of a configuration, merged and expanded: every --config in order, then
 * every --set.
 *
 * SPEC: docs/formats/config.md; INTERFACE.md "The program". A source is file:PATH (or just PATH),
 * env:NAME or yaml:TEXT.
 */
#ifndef PIPELINE_CONF_LOAD_H
#define PIPELINE_CONF_LOAD_H

#include "pipeline/conf/tree.h"

struct conf_request {
	const char *const *configs; /* --config values */
	size_t n_configs;
	const char *const *sets; /* --set values, a.b.c=v */
	size_t n_sets;
	bool no_files; /* neither file: sources nor ${file:} (fuzzing) */
};

/* The merged and expanded tree, in `arena`; every problem in `errors`. Returns NULL when there is
 * nothing to check (no source could be read); a tree may come with errors. Main thread (reads the
 * environment). */
struct conf_node *conf_load(const struct conf_request *r, struct arena *arena,
			    struct conf_errors *errors);

#endif
