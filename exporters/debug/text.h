/* SPDX-License-Identifier: Apache-2.0
 *
 * text.h - OTLP trace bytes as the text people read: the Collector's detailed debug output.
 *
 * Pure functions, any thread; input that was validated by otlp_index. Output stays the same for
 * equal input: tests compare with it.
 */
#ifndef EXPORTERS_DEBUG_TEXT_H
#define EXPORTERS_DEBUG_TEXT_H

#include "base/buf.h"

/* ResourceSpans, ScopeSpans and Span blocks of a TracesData. */
void debug_text_detailed(struct bytes traces_data, struct buf *out);
/* One line a span: name, trace id, span id, then attributes as key=value. */
void debug_text_normal(struct bytes traces_data, struct buf *out);

#endif
