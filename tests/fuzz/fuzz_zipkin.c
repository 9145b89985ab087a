/* SPDX-License-Identifier: Apache-2.0
 *
 * fuzz_zipkin.c - whatever is taken must be OTLP that encodes, with as many spans as were counted;
 * a cap must only ever shorten the answer to an error. Encoded as Zipkin again, in both forms, it
 * must be taken whole.
 *
 * The first byte says which form the rest is: 1 v2 protobuf, 2 v1 JSON, 3 v1 thrift, 4 OTLP that is
 * only encoded; anything else is the first byte of a v2 JSON text.
 */
#include "base/arena.h"
#include "base/buf.h"
#include "wire/otlp_json_encode.h"
#include "wire/pb.h"
#include "wire/zipkin_encode.h"
#include "wire/zipkin_json.h"
#include "wire/zipkin_proto.h"
#include "wire/zipkin_thrift.h"
#include "wire/zipkin_v1_json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

typedef int (*decode_fn)(struct bytes in, size_t max_bytes, bool typed_tags, struct arena *arena,
			 struct buf *out, struct zipkin_result *result, struct err *err);

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

/* OTLP as Zipkin and read again: as many spans, and none is bad. */
static void try_back(struct bytes otlp, size_t n_spans)
{
	static const decode_fn decoders[] = {
		[ZIPKIN_JSON] = zipkin_json_decode, [ZIPKIN_PROTO] = zipkin_proto_decode
	};

	for (int form = ZIPKIN_JSON; form <= ZIPKIN_PROTO; form++) {
		struct buf list = BUF_INIT, capped = BUF_INIT, again = BUF_INIT;
		struct zipkin_result res;
		struct arena a = ARENA_INIT;

		if (zipkin_encode_request(otlp, (enum zipkin_form)form, 0, &list, NULL) == 0) {
			assert(decoders[form](buf_bytes(&list), 0, false, &a, &again, &res, NULL) ==
			       0);
			assert(res.n_bad == 0 && (n_spans == SIZE_MAX || res.n_ok == n_spans));
			if (list.n > 1)
				assert(zipkin_encode_request(otlp, (enum zipkin_form)form,
							     list.n - 1, &capped, NULL) < 0);
			assert(capped.n == 0);
		} else {
			assert(n_spans == SIZE_MAX && list.n == 0);
		}
		arena_fini(&a);
		buf_fini(&list);
		buf_fini(&capped);
		buf_fini(&again);
	}
}

static void try_form(decode_fn decode, struct bytes in, bool is_v1)
{
	static const uint32_t to_spans[] = { 1, 2, 2, 0 };
	struct buf pb = BUF_INIT, text = BUF_INIT, capped = BUF_INIT;
	struct zipkin_result res, again;
	struct bytes part;
	struct arena a = ARENA_INIT;

	if (decode(in, 0, in.n & 1, &a, &pb, &res, NULL) == 0) {
		size_t n;

		part = buf_bytes(&pb);
		n = count_fields(part, to_spans);
		assert(is_v1 ? n >= res.n_ok : n == res.n_ok);
		assert((res.n_bad > 0) == (res.first_bad[0] != '\0'));
		assert(otlp_json_encode(&part, 1, OTLP_JSON, 0, &text, NULL) == 0);
		try_back(part, n);
		if (pb.n > 0)
			assert(decode(in, pb.n - 1, in.n & 1, &a, &capped, &again, NULL) < 0);
		assert(capped.n == 0);
	} else {
		assert(pb.n == 0);
	}
	arena_fini(&a);
	buf_fini(&pb);
	buf_fini(&text);
	buf_fini(&capped);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const decode_fn forms[] = { NULL, zipkin_proto_decode, zipkin_v1_json_decode,
					   zipkin_thrift_decode };
	struct bytes in = { data, size };

	if (size > 0 && data[0] == COUNT_OF(forms))
		try_back((struct bytes){ data + 1, size - 1 }, SIZE_MAX);
	else if (size > 0 && data[0] > 0 && data[0] < COUNT_OF(forms))
		try_form(forms[data[0]], (struct bytes){ data + 1, size - 1 }, data[0] > 1);
	else
		try_form(zipkin_json_decode, in, false);
	return 0;
}
