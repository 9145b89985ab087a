/* SPDX-License-Identifier: Apache-2.0
 *
 * uncount.h - a span that is kept against its R stands for nobody: whoever counts what comes
 * after (span_weight) counts the others, which were kept by theirs.
 */
#ifndef PIPELINE_SPAN_UNCOUNT_H
#define PIPELINE_SPAN_UNCOUNT_H

#include "base/buf.h"
#include "pipeline/batch.h"

/* In an editable batch: take th, which is not true of it, from span i's trace state, and write
 * sampling.adjusted_count = 0. `state`: scratch, kept from one span to the next. */
void span_uncount(struct batch *b, uint32_t i, struct buf *state);

#endif
