/* SPDX-License-Identifier: Apache-2.0
 *
 * zipkin_result.c - see zipkin_result.h.
 */
#include "wire/zipkin_result.h"

#include "base/str.h"

#include <stdio.h>

enum { SHOWN = 40 };

const char *zipkin_reason_name(enum zipkin_reason reason)
{
	static const char *const names[ZIPKIN_BAD_MAX] = {
		[ZIPKIN_BAD_TRACE_ID] = "bad_trace_id",   [ZIPKIN_BAD_SPAN_ID] = "bad_span_id",
		[ZIPKIN_BAD_PARENT_ID] = "bad_parent_id", [ZIPKIN_BAD_JSON_TYPE] = "bad_json_type",
		[ZIPKIN_BAD_NUMBER] = "bad_number",       [ZIPKIN_BAD_UTF8] = "bad_utf8",
	};

	return names[reason];
}

void zipkin_result_bad(struct zipkin_result *res, size_t position, enum zipkin_reason reason,
		       const char *field, const struct bytes *value, bool quoted)
{
	char shown[SHOWN + 24] = "missing";
	const char *quote = quoted ? "\"" : "";

	res->n_bad++;
	res->n_bad_by[reason]++;
	if (res->n_bad > 1)
		return;
	if (value != NULL)
		snprintf(shown, sizeof(shown), "%s%.*s%s%s", quote, (int)MIN(value->n, SHOWN),
			 value->n ? (const char *)value->p : "", value->n > SHOWN ? "..." : "",
			 quote);
	for (char *c = shown; *c; c++) /* the text goes to logs and answers */
		if (*c < 0x20 || *c > 0x7e)
			*c = '?';
	snprintf(res->first_bad, sizeof(res->first_bad), "[%zu]%s%s: %s", position,
		 *field ? "." : "", field, shown);
}

void zipkin_result_bad_hex(struct zipkin_result *res, size_t position, enum zipkin_reason reason,
			   const char *field, const struct bytes *value)
{
	char hex[2 * SHOWN + 1];
	struct bytes text = { (const uint8_t *)hex, 0 };

	if (value == NULL) {
		zipkin_result_bad(res, position, reason, field, NULL, false);
		return;
	}
	str_hex(value->p, MIN(value->n, (size_t)SHOWN), hex);
	text.n = 2 * MIN(value->n, (size_t)SHOWN);
	zipkin_result_bad(res, position, reason, field, &text, true);
}
