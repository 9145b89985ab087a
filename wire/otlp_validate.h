/* SPDX-License-Identifier: Apache-2.0
 *
 * otlp_validate.h - the checks below span level: attributes, AnyValue, events, links, scope and
 * resource messages.
 *
 * Each returns VALID, BAD_TEXT (well-formed, but a string is not UTF-8) or, below zero, what makes
 * the whole request unusable. `end` is where readable memory ends, at or behind the end of the
 * message: it only makes things faster. Pure functions, any thread. SPEC: opentelemetry-proto
 * common.proto.
 */
#ifndef WIRE_OTLP_VALIDATE_H
#define WIRE_OTLP_VALIDATE_H

#include "base/base.h"

enum otlp_verdict {
	OTLP_TOO_DEEP = -2,
	OTLP_DAMAGED = -1,
	OTLP_VALID = 0,
	OTLP_BAD_TEXT = 1,
	OTLP_BAD_ID = 2, /* links only: an id of the wrong length */
};

enum otlp_verdict otlp_validate_string(struct bytes s);
enum otlp_verdict otlp_validate_key_value(struct bytes kv, int depth, const uint8_t *end);
enum otlp_verdict otlp_validate_event(struct bytes event, const uint8_t *end);
enum otlp_verdict otlp_validate_link(struct bytes link, const uint8_t *end);
enum otlp_verdict otlp_validate_status(struct bytes status, uint8_t *code, const uint8_t *end);
enum otlp_verdict otlp_validate_scope(struct bytes scope, const uint8_t *end);
enum otlp_verdict otlp_validate_resource(struct bytes resource, const uint8_t *end);

/* The worse of two: damage over bad ids over bad text over valid. */
static inline enum otlp_verdict otlp_worse(enum otlp_verdict a, enum otlp_verdict b)
{
	if (a < 0 || b < 0)
		return MIN(a, b);
	return MAX(a, b);
}

#endif
