/* SPDX-License-Identifier: Apache-2.0
 *
 * fuzz_zipkin_json.c - whatever is taken must be OTLP that encodes, with as many spans as were
 * counted; a cap must only ever shorten the answer to an error.
 */
#include "base/arena.h"
#include "base/buf.h"
#include "wire/otlp_json_encode.h"
#include "wire/pb.h"
#include "wire/zipkin_json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

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

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const uint32_t to_spans[] = { 1, 2, 2, 0 };
	struct buf pb = BUF_INIT, text = BUF_INIT, capped = BUF_INIT;
	struct zipkin_json_result res, again;
	struct bytes in = { data, size }, part;
	struct arena a = ARENA_INIT;

	if (zipkin_json_decode(in, 0, &a, &pb, &res, NULL) == 0) {
		part = buf_bytes(&pb);
		assert(count_fields(part, to_spans) == res.n_ok);
		assert((res.n_bad > 0) == (res.first_bad[0] != '\0'));
		assert(otlp_json_encode(&part, 1, OTLP_JSON, 0, &text, NULL) == 0);
		if (pb.n > 0)
			assert(zipkin_json_decode(in, pb.n - 1, &a, &capped, &again, NULL) < 0);
		assert(capped.n == 0);
	} else {
		assert(pb.n == 0);
	}
	arena_fini(&a);
	buf_fini(&pb);
	buf_fini(&text);
	buf_fini(&capped);
	return 0;
}
