/* SPDX-License-Identifier: Apache-2.0
 *
 * zipkin_result.h - what became of a list of Zipkin spans, whatever it was encoded in.
 *
 * A span that cannot be used is passed over, counted by reason, and the first one is named by its
 * place, the field and the value: `[3].id: "not hex"`.
 * SPEC: INTERFACE "Receivers' answers"; docs/formats/zipkin.md ("Reading"). Any thread.
 */
#ifndef WIRE_ZIPKIN_RESULT_H
#define WIRE_ZIPKIN_RESULT_H

#include "base/base.h"

/* Why a span was not taken. */
enum zipkin_reason {
	ZIPKIN_BAD_TRACE_ID, /* missing, not hex, of a wrong length, all zero */
	ZIPKIN_BAD_SPAN_ID,
	ZIPKIN_BAD_PARENT_ID, /* not hex, of a wrong length */
	ZIPKIN_BAD_JSON_TYPE, /* a member, or the span itself, is not what it must be */
	ZIPKIN_BAD_NUMBER,    /* a time is no number */
	ZIPKIN_BAD_UTF8,
	ZIPKIN_BAD_MAX
};

struct zipkin_result {
	size_t n_ok, n_bad; /* of the list's spans: a v1 span that becomes two counts once */
	size_t n_bad_by[ZIPKIN_BAD_MAX];
	char first_bad[200]; /* empty when n_bad is 0 */
};

/* "bad_trace_id", ...: for metrics' labels and logs. */
const char *zipkin_reason_name(enum zipkin_reason reason);

/* Count the span at `position` and, when it is the first, name it. field may be "" (the span
 * itself). The value as text (cut, and made printable), or NULL: missing; `quoted` says how. */
void zipkin_result_bad(struct zipkin_result *res, size_t position, enum zipkin_reason reason,
		       const char *field, const struct bytes *value, bool quoted);
/* The same with the value in hex: ids as bytes. */
void zipkin_result_bad_hex(struct zipkin_result *res, size_t position, enum zipkin_reason reason,
			   const char *field, const struct bytes *value);

#endif
