/* SPDX-License-Identifier: Apache-2.0
 *
 * terminal.h - what the tools know of the terminal they write to, and text made fit for it.
 *
 * Text of spans comes from strangers: control characters, escape sequences and marks that turn the
 * direction of writing are shown as '?', never sent. Width is by code point: 0, 1 or 2 columns.
 * Pure functions but for terminal_width and terminal_has_colour, which ask the environment; any
 * thread.
 */
#ifndef CMD_TERMINAL_H
#define CMD_TERMINAL_H

#include "base/base.h"
#include "base/buf.h"

enum { TERMINAL_WIDTH_DEFAULT = 100, TERMINAL_TIME_SIZE = 24 };

/* Columns: $COLUMNS, else what the terminal behind fd says, else 100. At least 20, at most 1000. */
unsigned terminal_width(int fd);
/* A terminal, not a dumb one, and NO_COLOR is not set. */
bool terminal_has_colour(int fd);

/* Append text as it may be shown, cut to max columns with an ellipsis; returns the columns used.
 * ascii: nothing but ASCII goes out ("~" is the ellipsis, "?" what is not ASCII). */
unsigned terminal_add_text(struct buf *out, struct bytes text, unsigned max, bool ascii);
/* Columns that terminal_add_text would use without a limit; stops counting beyond max. */
unsigned terminal_text_width(struct bytes text, unsigned max);
/* "870 ns", "1.24 ms", "2m 05s" into out; three digits where a unit has room for them. */
void terminal_format_time(uint64_t ns, bool ascii, char out[TERMINAL_TIME_SIZE]);

#endif
