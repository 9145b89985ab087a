/* SPDX-License-Identifier: Apache-2.0
 *
 * pipelines.h - the part of check.c that resolves service.pipelines and
 * service.extensions. Only check.c and pipelines.c include it.
 */
#ifndef PIPELINE_RESOLVE_PIPELINES_H
#define PIPELINE_RESOLVE_PIPELINES_H

#include "pipeline/resolve/check.h"

/* What the passes of one check share; all borrowed. */
struct conf_check {
	struct arena *arena;
	struct conf_errors *errors;
	struct service_config *config;
	bool broken[KIND_MAX]; /* the section is no map, which was said already */
};

/* Split "type/name" with blanks trimmed. NULL, or what is wrong with it in the Collector's words.
 */
const char *conf_check_id(struct conf_check *k, const char *key, const char **type,
			  const char **name);
/* The configured component, or NULL. */
struct service_component *conf_check_find(struct conf_check *k, enum component_kind kind,
					  const char *id);
/* The registered type name most like `type`, or NULL when none is like it. */
const char *conf_check_nearest_type(enum component_kind kind, const char *type);
/* Fills config->pipelines and ->extensions. The nodes may be NULL. */
void conf_pipelines_check(struct conf_check *k, const struct conf_node *root,
			  const struct conf_node *extensions, const struct conf_node *pipelines);

#endif
