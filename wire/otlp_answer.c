/* SPDX-License-Identifier: Apache-2.0
 *
 * otlp_answer.c - see otlp_answer.h.
 */
#include "wire/otlp_answer.h"

#include "base/arena.h"
#include "wire/json_reader.h"
#include "wire/pb.h"

#include <stdio.h>

/* ---- protobuf ---- */

static void read_partial(struct bytes partial, uint64_t *n, struct bytes *text)
{
	struct pb_field f = { .number = 0 };

	while (pb_next(&partial, &f) > 0) {
		if (f.number == 1 && f.wire == PB_VARINT)
			*n = f.value;
		else if (f.number == 2 && f.wire == PB_LEN)
			*text = f.data;
	}
}

static void read_response(struct bytes response, uint64_t *n, struct bytes *text)
{
	struct pb_field f = { .number = 0 };

	while (pb_next(&response, &f) > 0)
		if (f.number == 1 && f.wire == PB_LEN)
			read_partial(f.data, n, text);
}

/* ---- JSON ---- */

static bool opens_object(struct json_reader *r, struct bytes text, struct arena *arena,
			 struct json_value *v)
{
	json_reader_init(r, text, arena);
	return json_reader_value(r, v, NULL) == 0 && v->kind == JSON_OBJECT;
}

static void read_partial_json(struct json_reader *r, uint64_t *n, struct bytes *text)
{
	struct json_value v;
	int64_t rejected;

	while (json_reader_member(r, &v, NULL) > 0) {
		/* rejectedSpans, rejectedLogRecords, rejectedDataPoints */
		if (v.key.n > 8 && memcmp(v.key.p, "rejected", 8) == 0) {
			if (json_reader_i64(&v, &rejected) == 0)
				*n = (uint64_t)rejected;
		} else if (v.kind == JSON_STRING &&
			   (JSON_KEY_IS(&v, "errorMessage") || JSON_KEY_IS(&v, "error_message"))) {
			*text = v.text;
		} else if (json_reader_skip(r, &v, NULL) < 0) {
			return;
		}
	}
}

static void read_response_json(struct bytes response, struct arena *arena, uint64_t *n,
			       struct bytes *text)
{
	struct json_reader r;
	struct json_value v;

	if (!opens_object(&r, response, arena, &v))
		return;
	while (json_reader_member(&r, &v, NULL) > 0) {
		bool is_it =
			JSON_KEY_IS(&v, "partialSuccess") || JSON_KEY_IS(&v, "partial_success");

		if (is_it && v.kind == JSON_OBJECT)
			read_partial_json(&r, n, text);
		else if (json_reader_skip(&r, &v, NULL) < 0)
			return;
	}
}

/* ---- both ---- */

void otlp_answer_partial(struct bytes response, bool is_json, struct otlp_partial_success *out)
{
	struct arena arena = ARENA_INIT;
	struct bytes text = BYTES_EMPTY;
	uint64_t n = 0;

	if (is_json)
		read_response_json(response, &arena, &n, &text);
	else
		read_response(response, &n, &text);
	out->n_rejected = (int64_t)n < 0 ? 0 : n;
	snprintf(out->message, sizeof(out->message), "%.*s",
		 (int)MIN(text.n, sizeof(out->message) - 1), text.n ? (const char *)text.p : "");
	arena_fini(&arena);
}

static struct bytes json_message(struct bytes status, struct arena *arena)
{
	struct json_reader r;
	struct json_value v;

	if (!opens_object(&r, status, arena, &v))
		return BYTES_EMPTY;
	while (json_reader_member(&r, &v, NULL) > 0) {
		if (v.kind == JSON_STRING && JSON_KEY_IS(&v, "message"))
			return v.text;
		if (json_reader_skip(&r, &v, NULL) < 0)
			break;
	}
	return BYTES_EMPTY;
}

void otlp_answer_status_message(struct bytes status, bool is_json, struct buf *out)
{
	struct arena arena = ARENA_INIT;
	struct pb_field f = { .number = 0 };

	if (is_json)
		buf_add_bytes(out, json_message(status, &arena));
	while (!is_json && pb_next(&status, &f) > 0)
		if (f.number == 2 && f.wire == PB_LEN)
			buf_add_bytes(out, f.data);
	arena_fini(&arena);
}
