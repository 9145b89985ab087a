/* SPDX-License-Identifier: Apache-2.0
 *
 * attr_edit.h - the attributes of one message (a Span, a Resource) while some are added, changed or
 * removed.
 *
 *   fields of the message   [name] [attr a] [attr b] [status]
 *   items                    run    a=1      b=2      run         + new ones at the end
 *
 * What is not touched stays the bytes it was, in its place; the result is a list of slices. A key
 * stands for its first attribute, as in the Collector.
 *
 * OWNERSHIP: items are in `scratch` (reset it between messages), new bytes in `keep`, which must
 * live as long as the message. Values given to it are copied. One thread at a time.
 * SPEC: opentelemetry-proto common.proto KeyValue; unknown fields survive.
 */
#ifndef WIRE_ATTR_EDIT_H
#define WIRE_ATTR_EDIT_H

#include "base/arena.h"
#include "base/base.h"
#include "base/buf.h"

struct attr_item {
	struct bytes raw; /* whole fields, tag and all; empty when removed */
	struct bytes key, any;
	bool is_attribute; /* else a run of other fields */
};

struct attr_edit {
	struct attr_item *v;
	size_t n, cap;
	uint32_t number; /* field number of attributes in the message */
	bool changed;
	struct arena *scratch, *keep;
	struct buf text; /* for building; attr_edit_fini */
};

/* For messages whose attributes have this field number (Span 9, Resource 1). */
void attr_edit_init(struct attr_edit *e, uint32_t number, struct arena *scratch,
		    struct arena *keep);
void attr_edit_fini(struct attr_edit *e);
/* Begin with a message, given as slices that end between fields. Forgets the one before. */
void attr_edit_start(struct attr_edit *e, const struct bytes *v, size_t n);
/* The attribute with this key, or NULL. Valid until the next change. */
struct attr_item *attr_edit_find(struct attr_edit *e, struct bytes key);
/* Give a key this value (the content of an AnyValue): changes its attribute, or adds one. */
void attr_edit_put(struct attr_edit *e, struct bytes key, struct bytes any);
/* Change the value of an attribute. */
void attr_edit_set(struct attr_edit *e, struct attr_item *item, struct bytes any);
void attr_edit_remove(struct attr_edit *e, struct attr_item *item);
/* The message as it is now: slices in `scratch`. */
struct bytes *attr_edit_fields(struct attr_edit *e, size_t *n);

#endif
