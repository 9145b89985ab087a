/* SPDX-License-Identifier: Apache-2.0
 *
 * prometheus_labels.h - attributes, scope and resource of a data point as one sorted list of
 * Prometheus labels.
 *
 * A set is made per data point and reused: names and values that need no change are borrowed from
 * the message, what is changed goes into the set's arena, so a warm set allocates nothing. Bytes of
 * values that are not UTF-8 become U+FFFD, since a receiver refuses a whole request for one.
 *
 * OWNERSHIP: a set borrows what it was given until the next prometheus_labels_reset.
 * THREADS: a set belongs to one thread.
 * LIMITS: none of its own: n attributes cost n log n.
 * SPEC: OpenTelemetry "Prometheus and OpenMetrics compatibility" (metric attributes, scope,
 * resource attributes); docs/formats/prometheus.md.
 */
#ifndef WIRE_PROMETHEUS_LABELS_H
#define WIRE_PROMETHEUS_LABELS_H

#include "base/arena.h"
#include "wire/prometheus_name.h"

struct prometheus_label {
	struct bytes name, value;
	struct bytes key; /* before translation; of two with one name, decides who comes first */
	uint32_t order;
	uint8_t rank;
};

struct prometheus_labels {
	struct prometheus_label
		*v; /* after _finish: sorted by name, names unique, no value empty */
	uint32_t n, room;
	uint32_t n_nameless; /* attributes left out because nothing was left of their names */
	struct arena arena;
	struct buf text; /* scratch */
};

#define PROMETHEUS_LABELS_INIT                                                                     \
	{                                                                                          \
		NULL, 0, 0, 0, ARENA_INIT, BUF_INIT                                                \
	}

/* job and instance of a resource; "" when it does not say. */
struct prometheus_target {
	struct bytes job, instance;
};

/* Of a Resource message. Text that had to be made goes into `arena`; the rest is borrowed. */
struct prometheus_target prometheus_target(struct bytes resource, struct arena *arena);

/* Empty, keep the memory. */
void prometheus_labels_reset(struct prometheus_labels *l);
void prometheus_labels_fini(struct prometheus_labels *l);

/* Building. Any order of calls; who wins where names meet is fixed: _add > target and scope >
 * attributes > _add_external. Attributes whose names become the same are joined by ';' in the order
 * of their keys; of one key given twice the later wins. */

/* The KeyValue fields numbered `number` of a message (a data point's 7 or 9 or 1, a Resource's 1).
 */
void prometheus_labels_add_attributes(struct prometheus_labels *l,
				      const struct prometheus_naming *n, struct bytes message,
				      uint32_t number);
/* One attribute. `any` is the content of its AnyValue. */
void prometheus_labels_add_attribute(struct prometheus_labels *l, const struct prometheus_naming *n,
				     struct bytes key, struct bytes any);
void prometheus_labels_add_target(struct prometheus_labels *l, const struct prometheus_target *t);
/* otel_scope_name, otel_scope_version, otel_scope_schema_url, otel_scope_<attribute> of an
 * InstrumentationScope message and its ScopeMetrics.schema_url. */
void prometheus_labels_add_scope(struct prometheus_labels *l, const struct prometheus_naming *n,
				 struct bytes scope, struct bytes schema_url);
/* A label of our own. The name is taken as it is; the value may be any text. */
void prometheus_labels_add(struct prometheus_labels *l, struct bytes name, struct bytes value);
/* The user's external label: taken unless another has the name. Name as it is. */
void prometheus_labels_add_external(struct prometheus_labels *l, struct bytes name,
				    struct bytes value);
/* Everything but service.name, service.namespace and service.instance.id of a Resource message,
 * and job and instance: the labels of target_info. False: there is none to be had, because the
 * resource has no other attributes, or neither job nor instance. */
bool prometheus_labels_add_target_info(struct prometheus_labels *l,
				       const struct prometheus_naming *n, struct bytes resource,
				       const struct prometheus_target *t);

/* Sort, settle who wins, drop what has no value (which to Prometheus is no label). */
void prometheus_labels_finish(struct prometheus_labels *l);

/* After _finish, for the series of one point that differ by a label (__name__, le): replace or
 * insert, in its place. Borrows both; the name as it is. An empty value takes the label away. */
void prometheus_labels_put(struct prometheus_labels *l, struct bytes name, struct bytes value);
/* After _finish: the value, "" when there is none. */
struct bytes prometheus_labels_find(const struct prometheus_labels *l, struct bytes name);

#endif
