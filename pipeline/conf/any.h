/* SPDX-License-Identifier: Apache-2.0
 *
 * any.h - a value of the configuration as the content of an OTLP AnyValue.
 *
 * Plain scalars get the type YAML gives them, quoted ones are strings; lists and maps nest; null is
 * empty. Pure, any thread. SPEC: docs/formats/config.md; opentelemetry-proto common.proto.
 */
#ifndef PIPELINE_CONF_ANY_H
#define PIPELINE_CONF_ANY_H

#include "base/buf.h"

struct conf_node;

void conf_any_put(const struct conf_node *n, struct buf *out);

#endif
