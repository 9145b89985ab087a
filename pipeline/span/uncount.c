/* SPDX-License-Identifier: Apache-2.0
 *
 * uncount.c - see uncount.h.
 */
#include "pipeline/span/uncount.h"

#include "wire/span_wish.h"
#include "wire/tracestate.h"

void span_uncount(struct batch *b, uint32_t i, struct buf *state)
{
	/* KeyValue{key, AnyValue{int_value: 0}} as a field of Span. */
	static const uint8_t zero[] = "\x4a\x1d\x0a\x17" SPAN_COUNT_KEY "\x12\x02\x18";
	struct span_ref *sp = &b->tables.spans[i];
	struct bytes value;

	_Static_assert(sizeof(zero) == 2 + 0x1d && sizeof(SPAN_COUNT_KEY) == 0x17 + 1,
		       "lengths, and the 0 that ends the text is the value");
	buf_reset(state);
	if (sp->th != TH_UNKNOWN &&
	    tracestate_write_th(span_trace_state(sp), TH_UNKNOWN, state) == 0)
		batch_set_trace_state(b, i, buf_bytes(state));
	if (!sp->is_uncounted &&
	    !(sp->may_wish && span_attribute(sp, BYTES_LIT(SPAN_COUNT_KEY), &value)))
		batch_append_field(b, i, (struct bytes){ zero, sizeof(zero) });
	sp->is_uncounted = true;
}
