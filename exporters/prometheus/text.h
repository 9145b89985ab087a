/* SPDX-License-Identifier: Apache-2.0
 *
 * text.h - names and text as they stand on a page.
 *
 * THREADS: pure functions, any thread. SPEC: OpenMetrics 1.0 ABNF; the Prometheus text format; both
 * with names in quotes (text 1.0.0).
 */
#ifndef EXPORTERS_PROMETHEUS_TEXT_H
#define EXPORTERS_PROMETHEUS_TEXT_H

#include "base/base.h"
#include "base/buf.h"

/* Append name="value", escaped; the name in quotes when it is not legal by itself. True: it is. */
bool text_put_label(struct buf *out, struct bytes name, struct bytes value);
/* The same behind a comma when *out is not empty; returns the code points of both. */
size_t text_put_exemplar_label(struct buf *out, struct bytes name, struct bytes value);
/* Append text with \, line feed and (quotes) " escaped, NUL and what is no UTF-8 as U+FFFD. */
void text_put_escaped(struct buf *out, struct bytes text, bool quotes);
/* Of UTF-8. */
size_t text_code_points(struct bytes text);

#endif
