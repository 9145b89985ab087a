/* SPDX-License-Identifier: Apache-2.0
 *
 * otlp_attr.h - KeyValue messages of OTLP, written in one go: a length known beforehand needs no
 * bytes to be moved. Inline, because a decoder writes ten of them per span.
 *
 * Every writer appends one field `number` (9 in a Span, 1 in a Resource, 3 in an Event, 4 in a
 * Link) and is a no-op after the buffer's cap was passed. SPEC: opentelemetry common.proto.
 */
#ifndef WIRE_OTLP_ATTR_H
#define WIRE_OTLP_ATTR_H

#include "base/buf.h"
#include "wire/pb.h"

/* The members of AnyValue. */
enum otlp_value {
	OTLP_STRING = 1,
	OTLP_BOOL = 2,
	OTLP_INT = 3,
	OTLP_DOUBLE = 4,
	OTLP_ARRAY = 5,
	OTLP_KVLIST = 6,
	OTLP_BYTES = 7,
};

/* Head of a KeyValue whose AnyValue has n_any bytes, up to and with that one's length. */
static inline uint8_t *otlp_attr_head(struct buf *b, uint32_t number, struct bytes key,
				      size_t n_any)
{
	size_t pair = 2 + pb_varint_size(key.n) + key.n + pb_varint_size(n_any) + n_any;
	uint8_t *p = buf_reserve(b, 16 + pair);

	if (p == NULL)
		return NULL;
	p += pb_varint_write(p, (uint64_t)number << 3 | PB_LEN);
	p += pb_varint_write(p, pair);
	*p++ = 1 << 3 | PB_LEN;
	p += pb_varint_write(p, key.n);
	if (key.n > 0)
		memcpy(p, key.p, key.n);
	p += key.n;
	*p++ = 2 << 3 | PB_LEN;
	return p + pb_varint_write(p, n_any);
}

static inline void otlp_attr_done(struct buf *b, const uint8_t *end)
{
	b->n = (size_t)(end - b->p);
}

/* member: OTLP_STRING or OTLP_BYTES. */
static inline void otlp_attr_bytes(struct buf *b, uint32_t number, struct bytes key,
				   enum otlp_value member, struct bytes value)
{
	uint8_t *p = otlp_attr_head(b, number, key, 1 + pb_varint_size(value.n) + value.n);

	if (p == NULL)
		return;
	*p++ = (uint8_t)(member << 3 | PB_LEN);
	p += pb_varint_write(p, value.n);
	if (value.n > 0)
		memcpy(p, value.p, value.n);
	otlp_attr_done(b, p + value.n);
}

/* member: OTLP_BOOL or OTLP_INT. */
static inline void otlp_attr_uint(struct buf *b, uint32_t number, struct bytes key,
				  enum otlp_value member, uint64_t value)
{
	uint8_t *p = otlp_attr_head(b, number, key, 1 + pb_varint_size(value));

	if (p == NULL)
		return;
	*p++ = (uint8_t)(member << 3 | PB_VARINT);
	otlp_attr_done(b, p + pb_varint_write(p, value));
}

/* bits: of an IEEE 754 double. */
static inline void otlp_attr_double(struct buf *b, uint32_t number, struct bytes key, uint64_t bits)
{
	uint8_t *p = otlp_attr_head(b, number, key, 9);

	if (p == NULL)
		return;
	*p++ = OTLP_DOUBLE << 3 | PB_FIXED64;
	store_le64(p, bits);
	otlp_attr_done(b, p + 8);
}

#endif
