/* SPDX-License-Identifier: Apache-2.0
 *
 * thrift.h - a pull reader of Apache Thrift's compact and binary protocols: one interface for both,
 * so that one decoder of a struct serves UDP, HTTP and Kafka.
 *
 *	thrift_init(&r, in, THRIFT_COMPACT);
 *	thrift_message(&r, &m);				only where there is a message header
 *	thrift_struct(&r);
 *	while (thrift_field(&r, &f))
 *		if (f.id == 5 && f.type == THRIFT_STRING)
 *			name = thrift_string(&r);
 *		else
 *			thrift_skip(&r, f.type);	fields not known, or of another type
 *	if (thrift_failed(&r, &err) < 0) ...
 *
 * DESIGN: errors stick. A value that is not there reads as zero, every loop ends, and who reads
 * asks once at the end; so decoders have no error paths that nobody takes. Nothing is copied
 * (strings are slices of the input), nothing allocated.
 * LIMITS: a length or a count must be backed by as many bytes as are left (each element takes at
 * least one; in the binary protocol as many as its type), so a count may be used to make room.
 * Nesting is at most THRIFT_MAX_DEPTH. Skipping visits a byte once.
 * SPEC: thrift-compact-protocol.md, thrift-binary-protocol.md of Apache Thrift. Any thread.
 */
#ifndef WIRE_THRIFT_H
#define WIRE_THRIFT_H

#include "base/base.h"
#include "base/err.h"

enum { THRIFT_MAX_DEPTH = 32 };

enum thrift_protocol { THRIFT_BINARY, THRIFT_COMPACT };

/* The binary protocol's numbers; the compact one's are translated. */
enum thrift_type {
	THRIFT_STOP = 0,
	THRIFT_BOOL = 2,
	THRIFT_BYTE = 3,
	THRIFT_DOUBLE = 4,
	THRIFT_I16 = 6,
	THRIFT_I32 = 8,
	THRIFT_I64 = 10,
	THRIFT_STRING = 11, /* and binary */
	THRIFT_STRUCT = 12,
	THRIFT_MAP = 13,
	THRIFT_SET = 14,
	THRIFT_LIST = 15,
	THRIFT_UUID = 16,
};

enum thrift_message_type {
	THRIFT_CALL = 1,
	THRIFT_REPLY = 2,
	THRIFT_EXCEPTION = 3,
	THRIFT_ONEWAY = 4,
};

struct thrift_reader {
	const uint8_t *p, *end, *begin;
	enum thrift_protocol protocol;
	uint8_t depth;
	bool bool_in_header; /* compact: the value of the boolean field just begun is bool_value */
	bool bool_value;
	const char *why; /* NULL: nothing is wrong yet */
	uint64_t value;  /* the length, count or type that is */
	size_t at;       /* where, in bytes from the start */
	int16_t last_id[THRIFT_MAX_DEPTH + 1];
};

struct thrift_message {
	struct bytes name;
	uint8_t type; /* enum thrift_message_type */
	int32_t seqid;
};

struct thrift_field {
	enum thrift_type type;
	int16_t id;
};

struct thrift_list {
	enum thrift_type type;
	uint32_t n; /* elements yet to come */
};

struct thrift_map {
	enum thrift_type key, value;
	uint32_t n;
};

/* Borrows `in` as long as the reader and what it gave out are used. */
void thrift_init(struct thrift_reader *r, struct bytes in, enum thrift_protocol protocol);
/* The message header; the binary protocol's with a version (strict) or without (old). The struct of
 * the arguments follows. */
void thrift_message(struct thrift_reader *r, struct thrift_message *m);

/* Enter a struct: of the input, of a field or of an element. It is left when thrift_field has
 * returned false. */
void thrift_struct(struct thrift_reader *r);
/* The next field's header. False: the struct has ended, or something is wrong. The value must be
 * read (with the type that *f says) or skipped. */
bool thrift_field(struct thrift_reader *r, struct thrift_field *f);
/* Enter a list or set. A struct (map, list) element is entered as a field's is. */
struct thrift_list thrift_list(struct thrift_reader *r);
/* True as long as an element is there to be read or skipped. */
bool thrift_element(struct thrift_reader *r, struct thrift_list *l);
struct thrift_map thrift_map(struct thrift_reader *r);

bool thrift_bool(struct thrift_reader *r);
int8_t thrift_byte(struct thrift_reader *r);
int16_t thrift_i16(struct thrift_reader *r);
int32_t thrift_i32(struct thrift_reader *r);
int64_t thrift_i64(struct thrift_reader *r);
double thrift_double(struct thrift_reader *r);
/* A string or binary; UTF-8 is not checked. */
struct bytes thrift_string(struct thrift_reader *r);
void thrift_skip(struct thrift_reader *r, enum thrift_type type);

/* Bytes not read yet. */
static inline size_t thrift_left(const struct thrift_reader *r)
{
	return (size_t)(r->end - r->p);
}

/* 0, or -1 with ERR_INVALID that says what is wrong at which byte, when any call before found the
 * input damaged. */
int thrift_failed(const struct thrift_reader *r, struct err *err) MUST_CHECK;
/* The caller's own finding: as if the input were damaged here. `why` is kept, not copied. */
void thrift_fail(struct thrift_reader *r, const char *why, uint64_t value);

#endif
