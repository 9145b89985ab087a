/* SPDX-License-Identifier: Apache-2.0
 *
 * pb.h - protobuf primitives: an iterator over the fields of a message, and appending writers.
 *
 * Reading never copies and never allocates. pb_next tells three things apart: 1 a field, 0 the end,
 * -1 damage (a length past the end, an overlong varint, field number 0, a group). Skip by the wire
 * type in the tag, never by what the field is expected to be: an unknown field is an item like any
 * other. Writing appends to a struct buf with minimal lengths, so equal input gives equal bytes.
 *
 * SPEC: protobuf.dev encoding; docs/formats/otlp.md. Pure functions, any thread.
 */
#ifndef WIRE_PB_H
#define WIRE_PB_H

#include "base/base.h"
#include "base/buf.h"

enum pb_wire { PB_VARINT = 0, PB_FIXED64 = 1, PB_LEN = 2, PB_FIXED32 = 5 };

struct pb_field {
	uint32_t number;
	uint8_t wire;      /* enum pb_wire */
	uint64_t value;    /* VARINT, FIXED64, FIXED32 */
	struct bytes data; /* LEN: the payload */
	struct bytes raw;  /* tag and all: what a forwarder copies */
};

/* The first varint of *in, which moves past it. False: truncated, or longer than 10 bytes. */
static inline bool pb_varint(struct bytes *in, uint64_t *out)
{
	uint64_t v = 0;

	if (LIKELY(in->n > 0 && in->p[0] < 0x80)) {
		*out = in->p[0];
		in->p++;
		in->n--;
		return true;
	}
	for (size_t i = 0; i < in->n && i < 10; i++) {
		v |= (uint64_t)(in->p[i] & 0x7f) << (7 * i);
		if (in->p[i] < 0x80) {
			*out = v;
			in->p += i + 1;
			in->n -= i + 1;
			return true;
		}
	}
	return false;
}

/* The next field of *in, which moves past it: 1 a field, 0 the end, -1 damaged (*in is then
 * unspecified). */
static inline int pb_next(struct bytes *in, struct pb_field *f)
{
	const uint8_t *start = in->p;
	uint64_t tag, len;

	if (in->n == 0)
		return 0;
	if (UNLIKELY(!pb_varint(in, &tag) || tag >> 3 == 0 || tag >> 3 > 0x1fffffff))
		return -1;
	f->number = (uint32_t)(tag >> 3);
	f->wire = tag & 7;
	f->value = 0;
	switch (f->wire) {
	case PB_LEN:
		if (UNLIKELY(!pb_varint(in, &len) || len > in->n))
			return -1;
		f->data = (struct bytes){ in->p, (size_t)len };
		in->p += len;
		in->n -= (size_t)len;
		break;
	case PB_VARINT:
		if (UNLIKELY(!pb_varint(in, &f->value)))
			return -1;
		break;
	case PB_FIXED64:
		if (UNLIKELY(in->n < 8))
			return -1;
		f->value = load_le64(in->p);
		in->p += 8;
		in->n -= 8;
		break;
	case PB_FIXED32:
		if (UNLIKELY(in->n < 4))
			return -1;
		f->value = load_le32(in->p);
		in->p += 4;
		in->n -= 4;
		break;
	default:
		return -1;
	}
	f->raw = (struct bytes){ start, (size_t)(in->p - start) };
	return 1;
}

/* sint32 and sint64 as they travel. */
static inline uint64_t pb_zigzag(int64_t v)
{
	return (uint64_t)v << 1 ^ (v < 0 ? UINT64_MAX : 0);
}

static inline int32_t pb_unzigzag32(uint32_t v)
{
	return (int32_t)(v >> 1 ^ (0 - (v & 1)));
}

/* Bytes a varint takes. */
static inline size_t pb_varint_size(uint64_t v)
{
	return (size_t)((63 - __builtin_clzll(v | 1)) / 7 + 1);
}

/* Write a varint at `to` (10 bytes of room); returns the bytes written. */
static inline size_t pb_varint_write(uint8_t *to, uint64_t v)
{
	size_t n = 0;

	while (v >= 0x80) {
		to[n++] = (uint8_t)(v | 0x80);
		v >>= 7;
	}
	to[n++] = (uint8_t)v;
	return n;
}

void pb_put_varint(struct buf *b, uint64_t v);
void pb_put_tag(struct buf *b, uint32_t number, enum pb_wire wire);
/* Whole fields. They write what they are given, zero or not: leaving out defaults is the caller's.
 */
void pb_put_uint(struct buf *b, uint32_t number, uint64_t v);
void pb_put_fixed64(struct buf *b, uint32_t number, uint64_t v);
void pb_put_fixed32(struct buf *b, uint32_t number, uint32_t v);
void pb_put_double(struct buf *b, uint32_t number, double v);
void pb_put_bytes(struct buf *b, uint32_t number, struct bytes v);
void pb_put_str(struct buf *b, uint32_t number, const char *v);

/* A nested message: mark = pb_begin(b, 5); ...fields...; pb_end(b, mark). Lengths come out minimal
 * (the payload moves when it needs more than one length byte). Marks nest. */
size_t pb_begin(struct buf *b, uint32_t number);
void pb_end(struct buf *b, size_t mark);

#endif
