/* SPDX-License-Identifier: Apache-2.0
 *
 * fuzz_jaeger.c - the first byte chooses the form.
 *
 * THRIFT and the two bits below it (protocol, message header): walking a value must judge as
 * skipping it does and end at the same byte; counts are backed by bytes. The others: whatever is
 * taken must be OTLP that encodes, with as many spans as were counted; a cap must only ever shorten
 * the answer to an error.
 */
#include "wire/jaeger_encode.h"
#include "wire/jaeger_json.h"
#include "wire/jaeger_proto.h"
#include "wire/jaeger_thrift.h"
#include "wire/otlp_json_encode.h"
#include "wire/pb.h"

enum form {
	THRIFT,
	COMPACT_MESSAGE = 4,
	BINARY_MESSAGE,
	COMPACT_BATCH,
	BINARY_BATCH,
	POST_SPANS,
	ONE_SPAN,
	JSON_SPAN,
	FORM_MAX
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void walk(struct thrift_reader *r, enum thrift_type type);

static void walk_map(struct thrift_reader *r)
{
	struct thrift_map m = thrift_map(r);

	assert(m.n <= thrift_left(r));
	thrift_struct(r);
	for (; m.n > 0 && r->why == NULL; m.n--) {
		walk(r, m.key);
		walk(r, m.value);
	}
	if (r->depth > 0)
		r->depth--;
}

static void walk_list(struct thrift_reader *r)
{
	struct thrift_list l = thrift_list(r);

	assert(l.n <= thrift_left(r));
	thrift_struct(r);
	while (thrift_element(r, &l))
		walk(r, l.type);
	if (r->depth > 0)
		r->depth--;
}

static void walk(struct thrift_reader *r, enum thrift_type type)
{
	struct thrift_field f;

	if (type == THRIFT_STRUCT) {
		thrift_struct(r);
		while (thrift_field(r, &f))
			walk(r, f.type);
	} else if (type == THRIFT_LIST || type == THRIFT_SET) {
		walk_list(r);
	} else if (type == THRIFT_MAP) {
		walk_map(r);
	} else if (type == THRIFT_STRING) {
		struct bytes s = thrift_string(r);

		assert(s.n == 0 || (s.p >= r->begin && s.p + s.n == r->p));
	} else {
		thrift_skip(r, type);
	}
}

static void fuzz_reader(struct bytes in, unsigned bits)
{
	struct thrift_reader walked, skipped;
	struct thrift_message m;

	thrift_init(&walked, in, bits & 1 ? THRIFT_COMPACT : THRIFT_BINARY);
	if (bits & 2)
		thrift_message(&walked, &m);
	skipped = walked;
	walk(&walked, THRIFT_STRUCT);
	thrift_skip(&skipped, THRIFT_STRUCT);
	assert((thrift_failed(&walked, NULL) < 0) == (thrift_failed(&skipped, NULL) < 0));
	assert(walked.p == skipped.p);
	if (walked.why == NULL)
		assert(walked.depth == 0);
}

static int decode_thrift(struct bytes in, enum form form, size_t max, struct arena *a,
			 struct buf *out, struct jaeger_result *res)
{
	bool compact = form == COMPACT_MESSAGE || form == COMPACT_BATCH;
	enum jaeger_method method = JAEGER_EMIT_BATCH;
	struct thrift_reader r;

	thrift_init(&r, in, compact ? THRIFT_COMPACT : THRIFT_BINARY);
	if ((form == COMPACT_MESSAGE || form == BINARY_MESSAGE) &&
	    (jaeger_thrift_message(&r, &method, NULL) < 0 || method != JAEGER_EMIT_BATCH))
		return -1;
	return jaeger_thrift_batch(&r, max, a, out, res, NULL);
}

static int decode(struct bytes in, enum form form, size_t max, struct arena *a, struct buf *out,
		  struct jaeger_result *res)
{
	switch (form) {
	case POST_SPANS:
		return jaeger_proto_request(in, max, a, out, res, NULL);
	case ONE_SPAN:
		return jaeger_proto_span(in, max, a, out, res, NULL);
	case JSON_SPAN:
		return jaeger_json_span(in, max, a, out, res, NULL);
	default:
		return decode_thrift(in, form, max, a, out, res);
	}
}

/* Fields `path` below `in`, counted at the last level. */
static size_t count_fields(struct bytes in, const uint32_t *path)
{
	struct pb_field f;
	size_t n = 0;
	int rc;

	while ((rc = pb_next(&in, &f)) > 0)
		if (f.number == path[0])
			n += path[1] ? count_fields(f.data, path + 1) : 1;
	assert(rc == 0);
	return n;
}

static void fuzz_decoder(struct bytes in, enum form form)
{
	static const uint32_t to_spans[] = { 1, 2, 2, 0 };
	struct buf pb = BUF_INIT, text = BUF_INIT, capped = BUF_INIT;
	struct jaeger_result res, again;
	struct arena a = ARENA_INIT;
	struct bytes part;

	if (decode(in, form, 0, &a, &pb, &res) == 0) {
		part = buf_bytes(&pb);
		assert(count_fields(part, to_spans) == res.n_ok);
		assert((res.n_bad > 0) == (res.first_bad[0] != '\0'));
		assert(otlp_json_encode(&part, 1, OTLP_JSON, 0, &text, NULL) == 0);
		buf_reset(&text);
		if (res.n_ok > 0)
			assert(jaeger_encode_span(part, &text, NULL) == 0 && text.n > 0);
		if (pb.n > 0)
			assert(decode(in, form, pb.n - 1, &a, &capped, &again) < 0);
		assert(capped.n == 0);
	} else {
		assert(pb.n == 0);
	}
	if (form == ONE_SPAN) {
		buf_reset(&text);
		(void)(jaeger_json_encode(in, &text, NULL) == 0);
	}
	arena_fini(&a);
	buf_fini(&pb);
	buf_fini(&text);
	buf_fini(&capped);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct bytes in;

	if (size == 0)
		return 0;
	in = (struct bytes){ data + 1, size - 1 };
	if (data[0] % FORM_MAX < COMPACT_MESSAGE)
		fuzz_reader(in, data[0] % FORM_MAX);
	else
		fuzz_decoder(in, (enum form)(data[0] % FORM_MAX));
	return 0;
}
