/* SPDX-License-Identifier: Apache-2.0
 *
 * rcbuf.h - a reference-counted byte buffer: what a received request lives in, from the socket to
 * the last exporter.
 *
 * Memory comes from a small LIFO pool of power-of-two classes (4 KiB to 1 MiB; larger ones go to
 * malloc), because the buffer freed last is the one still in cache, and fresh pages cost more than
 * the copy into them. The budget is charged with the capacity at rcbuf_new and released when the
 * last reference goes. RCBUF_PAD readable bytes follow the capacity, so that readers may load 16
 * bytes at the end. Any thread; the bytes are written by their first owner only, before the buffer
 * is shared.
 */
#ifndef BASE_RCBUF_H
#define BASE_RCBUF_H

#include "base/base.h"
#include "base/budget.h"

enum { RCBUF_PAD = 16 };

struct rcbuf {
	uint8_t *p;
	size_t n;   /* bytes in use */
	size_t cap; /* bytes that may be used */
	_Atomic uint32_t refs;
	struct budget *budget;
	size_t charged;
	void (*release)(
		struct rcbuf *b); /* foreign memory: called instead of the pool; NULL normally */
	void *owner;              /* of `release` */
};

/* One reference, n = 0, at least `cap` bytes. NULL when the budget (may be NULL) refuses. */
struct rcbuf *rcbuf_new(struct budget *budget, size_t cap);
/* As rcbuf_new, but accounts above the limit instead of refusing: for bytes that are in memory
 * already. */
struct rcbuf *rcbuf_new_forced(struct budget *budget, size_t cap);
/* A buffer around n bytes at p, which malloc gave (takes them); shrinks the memory to fit. Accounts
 * above the limit. */
struct rcbuf *rcbuf_adopt(struct budget *budget, uint8_t *p, size_t n);
/* Grow to at least `cap`, keeping content; only while refs is 1. -1 when the budget refuses. */
int rcbuf_grow(struct rcbuf **b, size_t cap);
struct rcbuf *rcbuf_ref(struct rcbuf *b);
/* NULL is fine. */
void rcbuf_unref(struct rcbuf *b);
/* Give the pool's memory back to the system (tests, idle). */
void rcbuf_trim(void);

#endif
