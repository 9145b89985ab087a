/* SPDX-License-Identifier: Apache-2.0
 *
 * dimensions.h - labels beside the four that every span has: attributes of a span, of one of its
 * events, of its resource, or a default, in this order.
 *
 * A set of values is written twice: as a key that tells rows apart, by the text of each value (so
 * 200 and "200" are one row, as they are one label), and as the OTLP attributes of a new row.
 *   key: (number of the dimension, varint length, text)...   absent ones are left out
 *
 * THREADS: a plan does not change. Nothing here allocates per span: values are slices, keys go to
 * a buffer of the batch.
 */
#ifndef CONNECTORS_SPANMETRICS_DIMENSIONS_H
#define CONNECTORS_SPANMETRICS_DIMENSIONS_H

#include "base/arena.h"
#include "base/buf.h"
#include "pipeline/option/option.h"
#include "wire/span.h"

enum { DIMENSIONS_MAX = 60 };
/* Numbers in keys beyond the configured ones. */
enum {
	DIMENSION_SCOPE_NAME = DIMENSIONS_MAX,
	DIMENSION_SCOPE_VERSION,
	DIMENSION_METHOD,
	DIMENSION_GLOB
};

/* One item of dimensions:, as typed. */
struct dimension_config {
	const char *name;
	const char *fallback;
	const char *glob; /* instead of a name */
	bool has_fallback;
};

struct dimension {
	struct bytes name;
	struct bytes fallback; /* AnyValue content; of a string */
	bool has_fallback;
};

/* Which dimensions there are, each once, and which rows have them: bit i is all[i]. */
struct dimension_plan {
	struct dimension all[DIMENSIONS_MAX];
	const char *fallbacks[DIMENSIONS_MAX]; /* as typed */
	uint32_t n;
	uint64_t spans, duration, events; /* sets: of calls, of the histogram, of events */
	uint64_t of_events;               /* those in `events` that are not in `spans` */
};

/* The values of one span; any[i] counts when bit i is in `found`. */
struct dimension_values {
	uint64_t found;
	struct bytes any[DIMENSIONS_MAX]; /* AnyValue contents */
};

/* Add a list of the configuration to a set. Strings live in `arena`. */
void dimension_plan_add(struct dimension_plan *p, const struct option_list *list, uint64_t *set,
			struct arena *arena);
/* Look for `wanted` among the KeyValue fields numbered `number` of a message; the first of several
 * counts. Found ones leave *wanted. */
void dimensions_find(const struct dimension_plan *p, struct bytes message, uint32_t number,
		     uint64_t *wanted, struct dimension_values *out);
/* The same over a span's own attributes, edited or not. */
void dimensions_find_in_span(const struct dimension_plan *p, const struct span_ref *sp,
			     uint64_t *wanted, struct dimension_values *out);
/* What is still wanted gets its default, if it has one. */
void dimensions_fall_back(const struct dimension_plan *p, uint64_t wanted,
			  struct dimension_values *out);
/* Copy the values of `set`, all of which `from` has. */
void dimensions_take(struct dimension_values *to, const struct dimension_values *from,
		     uint64_t set);
/* Append the values of `set` to a key, and as KeyValue fields 7 to attributes (may be NULL). */
void dimensions_key(const struct dimension_values *v, uint64_t set, struct buf *key);
/* One value of a number that no attribute has. */
void dimensions_key_text(uint8_t number, struct bytes text, struct buf *key);
void dimensions_attributes(const struct dimension_plan *p, const struct dimension_values *v,
			   uint64_t set, struct buf *attributes);

#endif
