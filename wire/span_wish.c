/* SPDX-License-Identifier: Apache-2.0
 *
 * span_wish.c - see span_wish.h.
 */
#include "wire/span_wish.h"

#include "base/str.h"
#include "wire/otlp_index.h"
#include "wire/pb.h"
#include "wire/tracestate.h"

#include <string.h>

enum { SPAN_ATTRIBUTES = 9, ANY_STRING = 1, ANY_BOOL = 2, ANY_INT = 3, ANY_DOUBLE = 4 };

bool span_attribute(const struct span_ref *sp, struct bytes key, struct bytes *value)
{
	const struct bytes whole = { sp->p, sp->len };
	const struct bytes *v = sp->pieces != NULL ? sp->pieces : &whole;
	unsigned n = sp->pieces != NULL ? sp->n_pieces : 1;

	/* The pieces of an edited span end between fields. */
	for (unsigned i = 0; i < n; i++)
		if (otlp_attribute(v[i], SPAN_ATTRIBUTES, key, value))
			return true;
	return false;
}

/* sampling.priority as a number: int, double or numeric text. */
static bool priority_of(const struct span_ref *sp, double *out)
{
	struct bytes value;
	struct pb_field f;

	if (!span_attribute(sp, BYTES_LIT(SPAN_PRIORITY_KEY), &value) || pb_next(&value, &f) <= 0)
		return false;
	if (f.number == ANY_INT) {
		*out = (double)(int64_t)f.value;
		return true;
	}
	if (f.number == ANY_DOUBLE) {
		memcpy(out, &f.value, sizeof(*out));
		return true;
	}
	return f.number == ANY_STRING && str_to_double(f.data, out) == 0;
}

static bool is_reason_ours(const struct span_ref *sp)
{
	struct bytes value;
	struct pb_field f;

	return span_attribute(sp, BYTES_LIT(SPAN_REASON_KEY), &value) && pb_next(&value, &f) > 0 &&
	       f.number == ANY_STRING && bytes_eq_str(f.data, SPAN_REASON_EXEMPLAR);
}

enum span_wish span_wish(const struct span_ref *sp)
{
	double priority;

	if (sp->may_wish && priority_of(sp, &priority) && priority >= 0)
		return priority > 0 ? WISH_KEEP : WISH_DROP;
	if (sp->is_kept || (sp->may_wish && is_reason_ours(sp)))
		return WISH_RECORD;
	return WISH_NONE;
}

static bool is_zero_count(const struct span_ref *sp)
{
	struct bytes value;
	struct pb_field f;

	return span_attribute(sp, BYTES_LIT(SPAN_COUNT_KEY), &value) && pb_next(&value, &f) > 0 &&
	       f.number == ANY_INT && f.value == 0;
}

double span_weight(const struct span_ref *sp, bool *is_unknown)
{
	*is_unknown = false;
	if (sp->th < TRACESTATE_W56 && sp->r >= sp->th)
		return 0x1p56 / (double)(TRACESTATE_W56 - sp->th);
	if (sp->is_uncounted || (sp->may_wish && is_zero_count(sp)))
		return 0;
	*is_unknown = true;
	return 1;
}

static bool is_true(const struct span_ref *sp, struct bytes key)
{
	struct bytes value;
	struct pb_field f;

	if (!span_attribute(sp, key, &value) || pb_next(&value, &f) <= 0)
		return false;
	return (f.number == ANY_BOOL && f.value != 0) ||
	       (f.number == ANY_STRING && bytes_eq_str(f.data, "true"));
}

bool span_is_hinted(const struct span_ref *sp)
{
	return sp->may_wish && (is_true(sp, BYTES_LIT(SPAN_EXEMPLAR_KEY)) ||
				is_true(sp, BYTES_LIT(SPAN_EXEMPLAR_SDK_KEY)));
}
