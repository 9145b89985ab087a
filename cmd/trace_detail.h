/* SPDX-License-Identifier: Apache-2.0
 *
 * trace_detail.h - what a span says of itself as indented lines: status, attributes, events, links.
 */
#ifndef CMD_TRACE_DETAIL_H
#define CMD_TRACE_DETAIL_H

#include "base/buf.h"
#include "wire/span.h"

/* Append lines that start with `indent`. Texts are cleaned for a terminal (terminal.h), values cut
 * at 4,000 columns. Any thread. */
void trace_detail_draw(const struct span_ref *sp, struct bytes indent, bool ascii, struct buf *out);

#endif
