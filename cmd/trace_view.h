/* SPDX-License-Identifier: Apache-2.0
 *
 * trace_view.h - draws a trace_tree for a terminal.
 *
 *   trace 1496cfd9...  10 spans, 3 services, 206 ms, 1 error
 *   2026-11-24T00:19:51.435Z  frontend, cart
 *
 *                                    0                        206 ms
 *   frontend  POST /checkout    srv 206 ms   ━━━━━━━━━━━━━━━━━━━━━━━
 *   ├─ frontend  GET /cart      cli 98.9 ms  ━━━━━━━━━━
 *   │  └─ cart  GET /cart       srv 80.1 ms ✗ ━━━━━━━━━
 *   └─ frontend  render page    int 20.3 ms              ━━
 *
 * LIMITS: a line is as wide as the terminal; trees deeper than the name column has room for show
 * how many levels are left out ("+97").
 */
#ifndef CMD_TRACE_VIEW_H
#define CMD_TRACE_VIEW_H

#include "base/buf.h"
#include "cmd/trace_tree.h"

struct trace_view_options {
	unsigned width;  /* columns */
	bool ascii;      /* no box drawing, and '?' for what is not ASCII */
	bool has_colour; /* ANSI escape sequences */
	bool attributes; /* under each span: attributes, events, links, status */
};

/* Append the drawing. trace_id is text for the header. */
void trace_view_draw(const struct trace_tree *t, const char *trace_id,
		     const struct trace_view_options *o, struct buf *out);

#endif
