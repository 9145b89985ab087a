/* SPDX-License-Identifier: Apache-2.0
 *
 * lookup.h - what the query extension lends (component_borrow): is this span to be found by
 * its trace id? The answer is the query API's own, without its port.
 *
 * THREADS: any; blocks on storage and on other nodes, so never on a loop or in consume. OWNERSHIP:
 * the lender's; valid as long as the borrower runs.
 */
#ifndef PIPELINE_SPAN_LOOKUP_H
#define PIPELINE_SPAN_LOOKUP_H

#include "base/err.h"

#include <stdatomic.h>

enum span_found {
	SPAN_FOUND,
	SPAN_NOT_IN_TRACE, /* every place was asked: the trace is there, this span is not */
	SPAN_NO_TRACE,     /* every place was asked: no span of the trace is there */
	SPAN_UNKNOWN,      /* not every place could be asked, and none of the others has it */
};

struct span_wanted {
	const char *tenant;
	uint8_t trace_id[16], span_id[8];
};

struct span_lookup {
	/* *err says why it is UNKNOWN. *is_gone (may be NULL): nobody waits any more. */
	enum span_found (*find)(struct span_lookup *l, const struct span_wanted *w,
				const _Atomic bool *is_gone, struct err *err);
};

#endif
