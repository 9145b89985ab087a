/* SPDX-License-Identifier: Apache-2.0
 *
 * all_components.c - turns the five .def lists into the registry's table. Adding a component adds
 * one line there.
 */
#include "cmd/all_components.h"
#include "pipeline/registry.h"

#define RECEIVER(x) extern const struct component_type receiver_##x;
#define PROCESSOR(x) extern const struct component_type processor_##x;
#define EXPORTER(x) extern const struct component_type exporter_##x;
#define CONNECTOR(x) extern const struct component_type connector_##x;
#define EXTENSION(x) extern const struct component_type extension_##x;
#include "connectors/connectors.def"
#include "exporters/exporters.def"
#include "extensions/extensions.def"
#include "processors/processors.def"
#include "receivers/receivers.def"
#undef RECEIVER
#undef PROCESSOR
#undef EXPORTER
#undef CONNECTOR
#undef EXTENSION

#define RECEIVER(x) &receiver_##x,
#define PROCESSOR(x) &processor_##x,
#define EXPORTER(x) &exporter_##x,
#define CONNECTOR(x) &connector_##x,
#define EXTENSION(x) &extension_##x,
static const struct component_type *const all[] = {
#include "receivers/receivers.def"
#include "processors/processors.def"
#include "exporters/exporters.def"
#include "connectors/connectors.def"
#include "extensions/extensions.def"
	NULL
};

void all_components_register(void)
{
	registry_init(all, COUNT_OF(all) - 1);
}
