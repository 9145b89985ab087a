/* SPDX-License-Identifier: Apache-2.0
 *
 * json_writer.h - writes JSON into a struct buf; commas come by themselves.
 *
 *	struct json_writer w = JSON_WRITER(&out);
 *
 *	json_writer_object(&w);
 *	json_writer_key(&w, "n");
 *	json_writer_u64(&w, 7);
 *	json_writer_object_end(&w);		-> {"n":7}
 *
 * No function reports an error: when the buffer has a cap and it was passed, out->overflow is set,
 * what follows is dropped, and the caller checks once at the end. Text that is not UTF-8 is written
 * with U+FFFD for each bad byte, so that the output is always JSON. The writer does not check that
 * brackets balance or that keys stand only in objects.
 * OWNERSHIP, THREADS: borrows the buffer; one thread at a time.
 * SPEC: RFC 8259; 64-bit integers, bytes and special doubles as proto3 JSON has them.
 */
#ifndef WIRE_JSON_WRITER_H
#define WIRE_JSON_WRITER_H

#include "base/base.h"
#include "base/buf.h"

struct json_writer {
	struct buf *out;
	bool comma;	/* a value stands before what comes next at this level */
};

#define JSON_WRITER(buffer) { (buffer), false }

void json_writer_object(struct json_writer *w);
void json_writer_object_end(struct json_writer *w);
void json_writer_array(struct json_writer *w);
void json_writer_array_end(struct json_writer *w);
/* `key` is ours and needs no escaping; json_writer_key_bytes takes any text. */
void json_writer_key(struct json_writer *w, const char *key);
void json_writer_key_bytes(struct json_writer *w, struct bytes key);

void json_writer_null(struct json_writer *w);
void json_writer_bool(struct json_writer *w, bool v);
void json_writer_u64(struct json_writer *w, uint64_t v);
void json_writer_i64(struct json_writer *w, int64_t v);
/* In quotes, as proto3 JSON writes 64-bit integers. */
void json_writer_u64_str(struct json_writer *w, uint64_t v);
void json_writer_i64_str(struct json_writer *w, int64_t v);
/* The shortest decimal that reads back as v; "NaN", "Infinity", "-Infinity" in quotes; -0.0 keeps
 * its sign. */
void json_writer_double(struct json_writer *w, double v);
void json_writer_str(struct json_writer *w, const char *v);
void json_writer_bytes(struct json_writer *w, struct bytes v);
/* A string of lower-case hex; of standard base64 with padding. */
void json_writer_hex(struct json_writer *w, struct bytes v);
void json_writer_base64(struct json_writer *w, struct bytes v);
/* One complete JSON value, as it is. */
void json_writer_raw(struct json_writer *w, struct bytes json);

#endif
