/* SPDX-License-Identifier: Apache-2.0
 *
 * json_reader.h - a pull reader over one JSON text: the caller asks for the next member or element
 * and gets it.
 *
 * DESIGN: no tree and no tokens kept. The text is one contiguous run of bytes; the reader is a
 * cursor, a depth and one bit per level that says object or array. A value that is an object or an
 * array comes back *opened*: the caller walks it with json_reader_member or json_reader_element
 * until 0, or leaves it with json_reader_skip. Opening brackets that are never walked is a bug of
 * the caller, caught by an assert.
 *
 *	json_reader_init(&r, text, arena);
 *	if (json_reader_value(&r, &v, err) < 0 || v.kind != JSON_OBJECT) ...
 *	while ((rc = json_reader_member(&r, &v, err)) > 0) {
 *		if (JSON_KEY_IS(&v, "id"))
 *			use(v.text);
 *		else if (json_reader_skip(&r, &v, err) < 0) ...
 *	}
 *	if (rc < 0 || json_reader_end(&r, err) < 0) ...
 *
 * The grammar is checked in full, also in what is skipped: literals, numbers, escapes, commas,
 * control characters, UTF-8. Members come in the order of the text and duplicates are visible. A
 * lone surrogate (\ud800 by itself, which JavaScript can write) has no UTF-8 form and becomes
 * U+FFFD. \u0000 becomes a NUL byte.
 * OWNERSHIP, THREADS: a string without escapes is a slice of the text; one with escapes is written
 * into the caller's arena (never longer than it is in the text). A reader belongs to one thread.
 * LIMITS: max_depth (64 by default, at most JSON_DEPTH_MAX); time and arena are linear in the text.
 * SPEC: RFC 8259. Errors are ERR_INVALID and say `json: byte <offset>: <what>`; ERR_EXHAUSTED when
 * the arena's meter refused a string's memory.
 */
#ifndef WIRE_JSON_READER_H
#define WIRE_JSON_READER_H

#include "base/arena.h"
#include "base/base.h"
#include "base/err.h"

enum { JSON_DEPTH_DEFAULT = 64, JSON_DEPTH_MAX = 512 };

enum json_kind {
	JSON_NULL, JSON_FALSE, JSON_TRUE, JSON_NUMBER, JSON_STRING, JSON_ARRAY, JSON_OBJECT
};

struct json_value {
	struct bytes key;	/* unescaped; of the member, empty elsewhere */
	struct bytes text;	/* STRING: unescaped content. NUMBER: as written. Others: empty */
	size_t off;		/* of the value's first byte in the text */
	enum json_kind kind;
	bool bad_utf8;		/* key or string has malformed UTF-8 (only with keep_bad_utf8) */
};

struct json_reader {
	const uint8_t *start, *p, *end;
	struct arena *arena;
	unsigned depth;		/* brackets open now */
	unsigned max_depth;	/* may be set after init, at most JSON_DEPTH_MAX */
	bool keep_bad_utf8;	/* may be set after init: malformed UTF-8 is only flagged */
	bool first;		/* nothing read since the last opening bracket */
	uint8_t is_object[JSON_DEPTH_MAX / 8];
};

/* True when the member's key is this string literal. */
#define JSON_KEY_IS(v, lit) \
	((v)->key.n == sizeof(lit) - 1 && memcmp((v)->key.p, lit, sizeof(lit) - 1) == 0)

/* Borrows text; strings with escapes go to arena. Both must outlive the values. */
void json_reader_init(struct json_reader *r, struct bytes text, struct arena *arena);
/* The value at the cursor, before anything is opened: the whole text's value. 0 or -1. */
int json_reader_value(struct json_reader *r, struct json_value *v, struct err *err) MUST_CHECK;
/* The next member of the innermost object: 1 with v filled, 0 the object is closed, -1 damaged. */
int json_reader_member(struct json_reader *r, struct json_value *v, struct err *err) MUST_CHECK;
/* The next element of the innermost array: 1, 0 the array is closed, -1 damaged. */
int json_reader_element(struct json_reader *r, struct json_value *v, struct err *err) MUST_CHECK;
/* Pass over what v, just read, opened; nothing to do for a scalar. Recursion-free. 0 or -1. */
int json_reader_skip(struct json_reader *r, const struct json_value *v, struct err *err) MUST_CHECK;
/* Close brackets until `depth` of them are open: how to get out of a half-read object. 0 or -1. */
int json_reader_leave(struct json_reader *r, unsigned depth, struct err *err) MUST_CHECK;
/* Nothing but white space may follow the value. 0 or -1. */
int json_reader_end(struct json_reader *r, struct err *err) MUST_CHECK;

/* The number, also when written in quotes ("12"), with a fraction or an exponent ("1.5e3"), as an
 * exact integer. 0, or -1: not a number, not integral, or out of range (nothing is rounded). */
int json_reader_i64(const struct json_value *v, int64_t *out) MUST_CHECK;
int json_reader_u64(const struct json_value *v, uint64_t *out) MUST_CHECK;
/* The number, also in quotes, also "NaN", "Infinity", "-Infinity" (proto3 JSON). 0, or -1: not a
 * number, beyond a double's range, or longer than 500 characters. */
int json_reader_double(const struct json_value *v, double *out) MUST_CHECK;
/* "an object", "a string", ...: for messages. */
const char *json_reader_kind_name(enum json_kind kind);

#endif
