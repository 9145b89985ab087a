/* SPDX-License-Identifier: Apache-2.0
 *
 * known.h - component types of the Collector that Spanmill does not have, so that an error can
 * say so by name.
 */
#ifndef PIPELINE_RESOLVE_KNOWN_H
#define PIPELINE_RESOLVE_KNOWN_H

#include "pipeline/component.h"

/* A component of our own that the documentation names and this version lacks. */
bool conf_known_is_planned(enum component_kind kind, const char *type);
/* Does the Collector (core or contrib) have this type, in the spelling with underscores or without
 * (k8s_attributes, k8sattributes)? */
bool conf_known_is_collector(enum component_kind kind, const char *type);
/* What to use instead of a type that the Collector itself removed; NULL when it is not one. */
const char *conf_known_removed(enum component_kind kind, const char *type);

#endif
