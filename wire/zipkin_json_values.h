/* SPDX-License-Identifier: Apache-2.0
 *
 * zipkin_json_values.h - the values that Zipkin's v1 and v2 JSON have in common.
 *
 * SPEC: docs/formats/zipkin.md ("Reading"). Pure functions, any thread.
 */
#ifndef WIRE_ZIPKIN_JSON_VALUES_H
#define WIRE_ZIPKIN_JSON_VALUES_H

#include "wire/json_reader.h"
#include "wire/zipkin_span.h"

/* Up to 2n hex digits of either case, padded with zeros at the left. 0, or -1: not this. */
int zipkin_json_id(struct bytes hex, uint8_t *id, size_t n) MUST_CHECK;
/* Microseconds. Negative is absent (0), what is between 0 and 1 is 1, a fraction is cut. -1: no
 * number. */
int zipkin_json_us(const struct json_value *v, uint64_t *us) MUST_CHECK;
/* The text of a scalar: a string's own, a number as written. False: null, array, object. */
bool zipkin_json_scalar(const struct json_value *v, struct bytes *out);
/* The members of an opened endpoint; what is not understood in it is left out, not held against the
 * span. 0, 1 when *bad is a name that is not UTF-8 (the object is then half read), -1 damaged. */
int zipkin_json_endpoint(struct json_reader *r, struct zipkin_span_endpoint *ep,
			 struct json_value *bad, struct err *err) MUST_CHECK;
/* In either case; NONE for what is unknown. */
enum zipkin_span_kind zipkin_json_kind(struct bytes s);
/* Nothing but white space. */
bool zipkin_json_is_blank(struct bytes s);

#endif
