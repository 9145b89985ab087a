/* SPDX-License-Identifier: Apache-2.0
 *
 * ottl.h - conditions in the Collector's transformation language, over the bytes of a span.
 *
 *   IsMatch(name, "^GET") and attributes["code"] >= 500 or status.code == STATUS_CODE_ERROR
 *
 * WHAT IS THERE: and, or, not, parentheses; == != < <= > >=; + - * /; strings, integers, floats,
 * booleans, nil, 0x bytes, enums (SPAN_KIND_*, STATUS_CODE_*); the paths and functions of
 * docs/formats/ottl.md. Anything else is an error that names its place and what there is instead.
 *
 * COMPARING: an integer with a float as floats; two kinds that do not compare are only `!=`; a
 * missing attribute is nil.
 *
 * OWNERSHIP: the condition owns all it needs. THREADS: immutable once parsed; ottl_condition_met on
 * any thread. LIMITS: OTTL_TEXT_MAX bytes, OTTL_DEPTH_MAX levels, so no text of a configuration
 * makes evaluation deep. SPEC: the Collector's pkg/ottl, grammar of conditions.
 */
#ifndef PIPELINE_OTTL_OTTL_H
#define PIPELINE_OTTL_OTTL_H

#include "base/buf.h"
#include "base/err.h"
#include "wire/span.h"

enum { OTTL_TEXT_MAX = 16384, OTTL_DEPTH_MAX = 256 };

/* What a condition is asked about, and what paths without a prefix mean. */
enum ottl_context { OTTL_RESOURCE, OTTL_SCOPE, OTTL_SPAN, OTTL_SPAN_EVENT, OTTL_CONTEXT_MAX };

struct ottl_condition;

/* NULL with ERR_CONFIG "character 14: ...". The context may be OTTL_CONTEXT_MAX: then each path
 * must have its prefix, and the innermost context that occurs is the condition's
 * (ottl_condition_context). */
struct ottl_condition *ottl_condition_new(const char *text, enum ottl_context context,
					  struct err *err);
void ottl_condition_free(struct ottl_condition *c);
enum ottl_context ottl_condition_context(const struct ottl_condition *c);

/* The thing asked about. */
struct ottl_subject {
	const struct span_tables *tables;
	uint32_t resource, scope;
	const struct span_ref *span; /* NULL above the span context */
	struct bytes event;          /* the Event message; span event context */
	uint32_t event_index;
};

/* 1 yes, 0 no, -1 it cannot be told (a function on a value of the wrong kind), with why in err. */
int ottl_condition_met(const struct ottl_condition *c, const struct ottl_subject *subject,
		       struct err *err);

#endif
