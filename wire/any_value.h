/* SPDX-License-Identifier: Apache-2.0
 *
 * any_value.h - one AnyValue of OTLP, looked at: its kind, its scalar, its text; and attributes,
 * the KeyValues that carry them.
 *
 * For what decides by attributes or changes some. Reading never copies. Input was validated by
 * otlp_index (depth, lengths, wire types); damage reads as empty.
 * SPEC: opentelemetry-proto common.proto (AnyValue: of several members the last one counts); text
 * as the Collector's pdata gives it (AsString). Pure functions, any thread.
 */
#ifndef WIRE_ANY_VALUE_H
#define WIRE_ANY_VALUE_H

#include "base/base.h"
#include "base/buf.h"

/* Field numbers of AnyValue. */
enum any_kind {
	ANY_EMPTY = 0,
	ANY_STRING = 1,
	ANY_BOOL = 2,
	ANY_INT = 3,
	ANY_DOUBLE = 4,
	ANY_ARRAY = 5,
	ANY_KVLIST = 6,
	ANY_BYTES = 7,
};

struct any_value {
	enum any_kind kind;
	union {
		bool b;
		int64_t i;
		double d;
	};
	struct bytes s; /* STRING, BYTES: the content; ARRAY, KVLIST: the message */
};

/* Does a double, cut to an integer, fit an int64_t? NaN does not. */
static inline bool any_value_fits_int64(double d)
{
	return d >= -9223372036854775808.0 && d < 9223372036854775808.0;
}

/* The content of an AnyValue message. */
void any_value_read(struct bytes any, struct any_value *out);
/* Append the content of an AnyValue message (nothing when empty). */
void any_value_put(struct buf *out, const struct any_value *v);
/* The same kind and value; a NaN equals nothing, lists and maps by their bytes. */
bool any_value_equal(const struct any_value *a, const struct any_value *b);
/* Append its text: a string as it is, numbers in decimal, bytes in base64, lists and maps as JSON,
 * nothing for an empty one. */
void any_value_text(const struct any_value *v, struct buf *out);

/* Key and AnyValue content of a KeyValue message. */
void any_pair_read(struct bytes pair, struct bytes *key, struct bytes *any);
/* Append a KeyValue as field `number`; `any` is the content of its AnyValue. */
void any_pair_put(struct buf *out, uint32_t number, struct bytes key, struct bytes any);

#endif
