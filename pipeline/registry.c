/* SPDX-License-Identifier: Apache-2.0
 *
 * registry.c - see registry.h. The list itself is in cmd/all_components.c, so that the core
 * includes no component.
 */
#include "pipeline/registry.h"

static const struct component_type *const *all;
static size_t n_all;

static const char *const kind_names[KIND_MAX] = { "receiver", "processor", "exporter", "connector",
						  "extension" };
static const char *const section_names[KIND_MAX] = { "receivers", "processors", "exporters",
						     "connectors", "extensions" };

void registry_init(const struct component_type *const *types, size_t n)
{
	all = types;
	n_all = n;
}

const struct component_type *registry_at(size_t i)
{
	return i < n_all ? all[i] : NULL;
}

const struct component_type *registry_find(enum component_kind kind, struct bytes name)
{
	for (size_t i = 0; i < n_all; i++) {
		const struct component_type *t = all[i];

		if (t->kind != kind)
			continue;
		if (bytes_eq_str(name, t->name) || (t->alias && bytes_eq_str(name, t->alias)))
			return t;
	}
	return NULL;
}

const char *registry_kind_name(enum component_kind kind)
{
	return kind_names[kind];
}

const char *registry_section_name(enum component_kind kind)
{
	return section_names[kind];
}
