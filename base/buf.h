/* SPDX-License-Identifier: Apache-2.0
 *
 * buf.h - a growable byte buffer with an optional hard cap.
 *
 * Grows by doubling. With cap > 0 an append that would pass it fails (-1) and sets `overflow`,
 * which stays set, so a long series of appends can be checked once at the end. The same when a
 * meter refuses the memory. One thread at a time; owner frees with buf_fini.
 */
#ifndef BASE_BUF_H
#define BASE_BUF_H

#include "base/base.h"
#include "base/meter.h"

struct buf {
	uint8_t *p;
	size_t n;      /* bytes in use */
	size_t cap;    /* bytes allocated */
	size_t max;    /* hard limit of n; 0 = none */
	bool overflow; /* an append was refused */
	struct meter
		*meter; /* grants what it grows by; NULL: everything. Its owner gives it back */
};

#define BUF_INIT                                                                                   \
	{                                                                                          \
		NULL, 0, 0, 0, false, NULL                                                         \
	}
#define BUF_INIT_MAX(limit)                                                                        \
	{                                                                                          \
		NULL, 0, 0, (limit), false, NULL                                                   \
	}

/* Room for n more bytes; returns where they go, NULL over the cap. The caller adds to b->n what it
 * wrote. */
uint8_t *buf_reserve(struct buf *b, size_t n);
int buf_add(struct buf *b, const void *p, size_t n);
int buf_add_bytes(struct buf *b, struct bytes s);
int buf_add_str(struct buf *b, const char *s);
int buf_add_char(struct buf *b, char c);
int buf_printf(struct buf *b, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* NUL-terminated view of the content (the NUL is not counted); never NULL. Valid until the next
 * append. */
const char *buf_cstr(struct buf *b);
struct bytes buf_bytes(const struct buf *b);
/* Give the memory away: returns b->p (may be NULL when empty), free() it; b becomes empty. */
uint8_t *buf_take(struct buf *b, size_t *n);
/* Empty, keep the memory. */
void buf_reset(struct buf *b);
void buf_fini(struct buf *b);

#endif
