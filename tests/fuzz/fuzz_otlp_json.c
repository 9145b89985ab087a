/* SPDX-License-Identifier: Apache-2.0
 *
 * fuzz_otlp_json.c - the input as JSON, of each signal: what decodes must encode, and decode again
 * to text that stays the same. The input as protobuf: what encodes must be JSON.
 */
#include "base/arena.h"
#include "base/buf.h"
#include "wire/json_reader.h"
#include "wire/otlp_json_decode.h"
#include "wire/otlp_json_encode.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_is_json(struct bytes text)
{
	struct arena a = ARENA_INIT;
	struct json_reader r;
	struct json_value v;

	json_reader_init(&r, text, &a);
	r.max_depth = JSON_DEPTH_MAX;
	assert(json_reader_value(&r, &v, NULL) == 0);
	assert(json_reader_skip(&r, &v, NULL) == 0 && json_reader_end(&r, NULL) == 0);
	arena_fini(&a);
}

static void from_json(enum otlp_signal g, struct bytes in)
{
	struct buf pb = BUF_INIT, text = BUF_INIT, again = BUF_INIT;
	struct arena a = ARENA_INIT;
	struct bytes part;

	if (otlp_json_decode_items(g, in, 1000000, &a, &pb, NULL) == 0) {
		part = buf_bytes(&pb);
		/* A packed count of 8 bytes may be two characters. */
		assert(pb.n <= (g == OTLP_METRICS ? 4 : 2) * in.n);
		assert(otlp_json_encode_items(g, &part, 1, OTLP_JSON, 0, &text, NULL) == 0);
		buf_reset(&pb);
		assert(otlp_json_decode_items(g, buf_bytes(&text), 0, &a, &pb, NULL) == 0);
		part = buf_bytes(&pb);
		assert(otlp_json_encode_items(g, &part, 1, OTLP_JSON, 0, &again, NULL) == 0);
		assert(bytes_eq(buf_bytes(&text), buf_bytes(&again)));
	}
	arena_fini(&a);
	buf_fini(&pb);
	buf_fini(&text);
	buf_fini(&again);
}

static void to_json(enum otlp_signal g, enum otlp_json_dialect dialect, struct bytes in)
{
	struct buf text = BUF_INIT;

	if (otlp_json_encode_items(g, &in, 1, dialect, 1000000, &text, NULL) == 0)
		check_is_json(buf_bytes(&text));
	buf_fini(&text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct bytes in = { data, size };

	for (int g = 0; g < OTLP_SIGNALS; g++) {
		from_json((enum otlp_signal)g, in);
		to_json((enum otlp_signal)g, OTLP_JSON, in);
	}
	to_json(OTLP_TRACES, OTLP_JSON_TEMPO, in);
	return 0;
}
