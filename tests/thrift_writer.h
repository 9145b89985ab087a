/* SPDX-License-Identifier: Apache-2.0
 *
 * thrift_writer.h - writes Thrift structs in either protocol, for tests and benches. Fields in
 * ascending order of their ids; booleans with thrift_put_bool only.
 */
#ifndef TESTS_THRIFT_WRITER_H
#define TESTS_THRIFT_WRITER_H

#include "base/buf.h"
#include "wire/pb.h"
#include "wire/thrift.h"

struct thrift_writer {
	struct buf *out;
	enum thrift_protocol protocol;
	int depth;
	int last_id[THRIFT_MAX_DEPTH];
};

static inline uint8_t thrift_compact_type(enum thrift_type t)
{
	switch (t) {
	case THRIFT_BYTE:
		return 3;
	case THRIFT_I16:
		return 4;
	case THRIFT_I32:
		return 5;
	case THRIFT_I64:
		return 6;
	case THRIFT_DOUBLE:
		return 7;
	case THRIFT_STRING:
		return 8;
	case THRIFT_LIST:
		return 9;
	case THRIFT_STRUCT:
		return 12;
	default:
		return 1;
	}
}

static inline void thrift_put_fixed(struct buf *out, uint64_t v, size_t n)
{
	for (size_t i = n; i > 0; i--)
		buf_add_char(out, (char)(v >> (8 * (i - 1))));
}

static inline void thrift_put_zigzag(struct buf *out, int64_t v)
{
	pb_put_varint(out, (uint64_t)v << 1 ^ (uint64_t)(v >> 63));
}

static inline void thrift_begin(struct thrift_writer *w)
{
	w->last_id[++w->depth] = 0;
}

static inline void thrift_end(struct thrift_writer *w)
{
	buf_add_char(w->out, 0);
	w->depth--;
}

static inline void thrift_put_head(struct thrift_writer *w, int id, uint8_t compact, uint8_t binary)
{
	int delta = id - w->last_id[w->depth];

	if (w->protocol == THRIFT_BINARY) {
		buf_add_char(w->out, (char)binary);
		thrift_put_fixed(w->out, (uint64_t)id, 2);
		return;
	}
	if (delta > 0 && delta < 16) {
		buf_add_char(w->out, (char)(delta << 4 | compact));
	} else {
		buf_add_char(w->out, (char)compact);
		thrift_put_zigzag(w->out, id);
	}
	w->last_id[w->depth] = id;
}

static inline void thrift_put_field(struct thrift_writer *w, int id, enum thrift_type t)
{
	thrift_put_head(w, id, thrift_compact_type(t), (uint8_t)t);
}

static inline void thrift_put_bool(struct thrift_writer *w, int id, bool v)
{
	thrift_put_head(w, id, v ? 1 : 2, THRIFT_BOOL);
	if (w->protocol == THRIFT_BINARY)
		buf_add_char(w->out, v);
}

static inline void thrift_put_size(struct thrift_writer *w, size_t n)
{
	if (w->protocol == THRIFT_BINARY)
		thrift_put_fixed(w->out, n, 4);
	else
		pb_put_varint(w->out, n);
}

static inline void thrift_put_i32(struct thrift_writer *w, int id, int32_t v)
{
	thrift_put_field(w, id, THRIFT_I32);
	if (w->protocol == THRIFT_BINARY)
		thrift_put_fixed(w->out, (uint64_t)v, 4);
	else
		thrift_put_zigzag(w->out, v);
}

static inline void thrift_put_i64(struct thrift_writer *w, int id, int64_t v)
{
	thrift_put_field(w, id, THRIFT_I64);
	if (w->protocol == THRIFT_BINARY)
		thrift_put_fixed(w->out, (uint64_t)v, 8);
	else
		thrift_put_zigzag(w->out, v);
}

static inline void thrift_put_double(struct thrift_writer *w, int id, double v)
{
	uint8_t raw[8];
	uint64_t bits;

	memcpy(&bits, &v, sizeof(bits));
	thrift_put_field(w, id, THRIFT_DOUBLE);
	if (w->protocol == THRIFT_BINARY)
		store_be64(raw, bits);
	else
		store_le64(raw, bits);
	buf_add(w->out, raw, sizeof(raw));
}

static inline void thrift_put_string(struct thrift_writer *w, int id, struct bytes v)
{
	thrift_put_field(w, id, THRIFT_STRING);
	thrift_put_size(w, v.n);
	buf_add_bytes(w->out, v);
}

/* A list of n structs, each between thrift_begin and thrift_end. */
static inline void thrift_put_list(struct thrift_writer *w, int id, size_t n)
{
	thrift_put_field(w, id, THRIFT_LIST);
	if (w->protocol == THRIFT_BINARY) {
		buf_add_char(w->out, THRIFT_STRUCT);
		thrift_put_fixed(w->out, n, 4);
	} else {
		buf_add_char(w->out, (char)(MIN(n, (size_t)15) << 4 | 12));
		if (n >= 15)
			pb_put_varint(w->out, n);
	}
}

static inline void thrift_put_message(struct thrift_writer *w, const char *name,
				      enum thrift_message_type type)
{
	if (w->protocol == THRIFT_BINARY) {
		thrift_put_fixed(w->out, 0x80010000u | type, 4);
		thrift_put_fixed(w->out, strlen(name), 4);
		buf_add_str(w->out, name);
		thrift_put_fixed(w->out, 0, 4);
		return;
	}
	buf_add_char(w->out, (char)0x82);
	buf_add_char(w->out, (char)(type << 5 | 1));
	pb_put_varint(w->out, 0);
	pb_put_varint(w->out, strlen(name));
	buf_add_str(w->out, name);
}

#endif
