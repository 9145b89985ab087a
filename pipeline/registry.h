/* SPDX-License-Identifier: Apache-2.0
 *
 * registry.h - every component type that was compiled in, from the five .def lists.
 *
 * A .def line is EXPORTER(kafka); the file beside it defines `const struct component_type
 * exporter_kafka`. A trimmed build is a shorter .def. Read-only, any thread.
 */
#ifndef PIPELINE_REGISTRY_H
#define PIPELINE_REGISTRY_H

#include "pipeline/component.h"

/* In the order of the lists: by kind, then as written there. NULL past the end. */
const struct component_type *registry_at(size_t i);
/* By kind and name (or alias); NULL when unknown. */
const struct component_type *registry_find(enum component_kind kind, struct bytes name);
/* "receiver", "processor", ...; and the key of its section, "receivers", ... */
const char *registry_kind_name(enum component_kind kind);
const char *registry_section_name(enum component_kind kind);
/* The program's registry is filled from the lists by cmd/; tests may register fewer. Before threads
 * start. */
void registry_init(const struct component_type *const *types, size_t n);

#endif
