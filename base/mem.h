/* SPDX-License-Identifier: Apache-2.0
 *
 * mem.h - allocation that cannot fail: out of memory aborts with one line on stderr.
 *
 * Memory is refused earlier, at the receiver, by the budget (pipeline/budget.h); past that point a
 * failed malloc is a state nobody could act upon. Free with free(). Any thread.
 */
#ifndef BASE_MEM_H
#define BASE_MEM_H

#include "base/base.h"

#include <stdlib.h>

void *xmalloc(size_t n);
void *xcalloc(size_t count, size_t size);
void *xrealloc(void *p, size_t n);
/* Grow an array to hold at least `need` elements: doubles *cap (in elements). Returns the (moved)
 * array. */
void *xgrow(void *p, size_t *cap, size_t need, size_t elem_size);
char *xstrdup(const char *s);
char *xstrndup(const char *s, size_t n);
char *xasprintf(const char *fmt, ...) PRINTF_LIKE(1, 2);

#endif
