/* SPDX-License-Identifier: Apache-2.0
 *
 * pb.c - see pb.h. Every writer checks room once and is a no-op after the buffer's cap was passed
 * (b->overflow).
 */
#include "wire/pb.h"

enum { VARINT_MAX = 10 };

void pb_put_varint(struct buf *b, uint64_t v)
{
	uint8_t *to = buf_reserve(b, VARINT_MAX);

	if (to != NULL)
		b->n += pb_varint_write(to, v);
}

void pb_put_tag(struct buf *b, uint32_t number, enum pb_wire wire)
{
	pb_put_varint(b, (uint64_t)number << 3 | wire);
}

void pb_put_uint(struct buf *b, uint32_t number, uint64_t v)
{
	pb_put_tag(b, number, PB_VARINT);
	pb_put_varint(b, v);
}

void pb_put_fixed64(struct buf *b, uint32_t number, uint64_t v)
{
	uint8_t raw[8];

	store_le64(raw, v);
	pb_put_tag(b, number, PB_FIXED64);
	buf_add(b, raw, sizeof(raw));
}

void pb_put_fixed32(struct buf *b, uint32_t number, uint32_t v)
{
	uint8_t raw[4];

	store_le32(raw, v);
	pb_put_tag(b, number, PB_FIXED32);
	buf_add(b, raw, sizeof(raw));
}

void pb_put_double(struct buf *b, uint32_t number, double v)
{
	uint64_t bits;

	memcpy(&bits, &v, sizeof(bits));
	pb_put_fixed64(b, number, bits);
}

void pb_put_bytes(struct buf *b, uint32_t number, struct bytes v)
{
	uint8_t *to = buf_reserve(b, 2 * VARINT_MAX + v.n);

	if (to == NULL)
		return;
	b->n += pb_varint_write(to, (uint64_t)number << 3 | PB_LEN);
	pb_put_varint(b, v.n);
	buf_add_bytes(b, v);
}

void pb_put_str(struct buf *b, uint32_t number, const char *v)
{
	pb_put_bytes(b, number, bytes_str(v));
}

size_t pb_begin(struct buf *b, uint32_t number)
{
	pb_put_tag(b, number, PB_LEN);
	buf_add_char(b, 0);
	return b->n;
}

void pb_end(struct buf *b, size_t mark)
{
	size_t len, extra;

	if (b->overflow)
		return;
	len = b->n - mark;
	extra = pb_varint_size(len) - 1;
	if (extra > 0) {
		if (buf_reserve(b, extra) == NULL)
			return;
		memmove(b->p + mark + extra, b->p + mark, len);
		b->n += extra;
	}
	pb_varint_write(b->p + mark - 1, len);
}
