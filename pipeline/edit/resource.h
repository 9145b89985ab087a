/* SPDX-License-Identifier: Apache-2.0
 *
 * resource.h - change the attributes of every resource of a batch.
 *
 * Logs and metrics have the same envelopes. Any thread; `fn` is called once a resource, on the
 * caller's. SPEC: opentelemetry-proto trace.proto ResourceSpans, resource.proto.
 */
#ifndef PIPELINE_EDIT_RESOURCE_H
#define PIPELINE_EDIT_RESOURCE_H

#include "pipeline/batch.h"
#include "wire/attr_edit.h"

typedef void resource_edit_fn(void *arg, struct attr_edit *e);

/* Takes b, returns it or an edited copy of its index; same duty. A resource that fn leaves alone
 * stays the bytes it was; one that had no Resource message may get one. */
struct batch *resource_edit(struct batch *b, resource_edit_fn *fn, void *arg);

#endif
