/* SPDX-License-Identifier: Apache-2.0
 *
 * buf.c - see buf.h.
 */
#include "base/buf.h"

#include "base/mem.h"

#include <stdarg.h>
#include <stdio.h>

/* Room for `need` bytes in all: twice what there is or, when the meter has not that much, just
 * enough. False: not even that. */
static bool grow(struct buf *b, size_t need)
{
	size_t twice = MAX(need, b->cap * 2);

	if (b->meter == NULL) {
		b->p = xgrow(b->p, &b->cap, need, 1);
		return true;
	}
	if (twice - b->cap > budget_left(b->meter->budget))
		twice = need;
	if (!meter_charge(b->meter, twice - b->cap))
		return false;
	b->p = xrealloc(b->p, twice);
	b->cap = twice;
	return true;
}

uint8_t *buf_reserve(struct buf *b, size_t n)
{
	if ((b->max && n > b->max - b->n) || (n > b->cap - b->n && !grow(b, b->n + n))) {
		b->overflow = true;
		return NULL;
	}
	return b->p + b->n;
}

int buf_add(struct buf *b, const void *p, size_t n)
{
	uint8_t *to;

	if (n == 0)
		return 0;
	to = buf_reserve(b, n);
	if (to == NULL)
		return -1;
	memcpy(to, p, n);
	b->n += n;
	return 0;
}

int buf_add_bytes(struct buf *b, struct bytes s)
{
	return buf_add(b, s.p, s.n);
}

int buf_add_str(struct buf *b, const char *s)
{
	return buf_add(b, s, strlen(s));
}

int buf_add_char(struct buf *b, char c)
{
	return buf_add(b, &c, 1);
}

int buf_printf(struct buf *b, const char *fmt, ...)
{
	va_list ap, again;
	uint8_t *to;
	int n;

	va_start(ap, fmt);
	va_copy(again, ap);
	n = vsnprintf(NULL, 0, fmt, ap);
	va_end(ap);
	assert(n >= 0);
	to = buf_reserve(b, (size_t)n + 1);
	if (to != NULL) {
		vsnprintf((char *)to, (size_t)n + 1, fmt, again);
		b->n += (size_t)n;
	}
	va_end(again);
	return to ? 0 : -1;
}

const char *buf_cstr(struct buf *b)
{
	if (b->n == b->cap)
		b->p = xgrow(b->p, &b->cap, b->n + 1, 1);
	b->p[b->n] = '\0';
	return (const char *)b->p;
}

struct bytes buf_bytes(const struct buf *b)
{
	return (struct bytes){ b->p, b->n };
}

uint8_t *buf_take(struct buf *b, size_t *n)
{
	uint8_t *p = b->p;

	if (n != NULL)
		*n = b->n;
	b->p = NULL;
	b->n = b->cap = 0;
	return p;
}

void buf_reset(struct buf *b)
{
	b->n = 0;
	b->overflow = false;
}

void buf_fini(struct buf *b)
{
	free(b->p);
	b->p = NULL;
	b->n = b->cap = 0;
}
